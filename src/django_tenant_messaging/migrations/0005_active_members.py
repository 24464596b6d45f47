from __future__ import annotations

from django.db import migrations, models

from ._indexes import AddIndexBesideWrites


class Migration(migrations.Migration):
    # Memberships are written to meanwhile.
    atomic = False

    dependencies = [
        ("django_tenant_messaging", "0004_left_rooms"),
    ]

    operations = [
        AddIndexBesideWrites(
            model_name="membership",
            index=models.Index(
                condition=models.Q(("joined_seq__gte", 0), ("left_seq__isnull", True)),
                fields=["room", "joined_seq", "id"],
                name="messaging_member_active",
            ),
        ),
    ]

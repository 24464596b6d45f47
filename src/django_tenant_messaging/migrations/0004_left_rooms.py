from __future__ import annotations

from django.db import migrations, models

from ._indexes import AddIndexBesideWrites


class Migration(migrations.Migration):
    # Memberships are written to meanwhile.
    atomic = False

    dependencies = [
        ("django_tenant_messaging", "0003_allowances"),
    ]

    operations = [
        AddIndexBesideWrites(
            model_name="membership",
            index=models.Index(
                condition=models.Q(("left_by_choice", True)),
                fields=["user", "-left_at"],
                name="messaging_member_left",
            ),
        ),
    ]

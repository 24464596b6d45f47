from __future__ import annotations

import django.db.models.deletion
from django.db import migrations, models

from ._indexes import AddIndexBesideWrites, AlterFieldWithoutIndex, RemoveIndexBesideWrites


class Migration(migrations.Migration):
    # Large tables are written to meanwhile.
    atomic = False

    dependencies = [
        ("django_tenant_messaging", "0001_initial"),
    ]

    operations = [
        # Of group messages nothing is marked as read, and they are most of a large table.
        AddIndexBesideWrites(
            model_name="message",
            index=models.Index(
                condition=models.Q(("is_read", False), ("receiver__isnull", False)),
                fields=["room", "receiver", "seq"],
                name="messaging_message_to_read",
            ),
        ),
        RemoveIndexBesideWrites(model_name="message", name="messaging_message_unread"),
        AddIndexBesideWrites(
            model_name="notification",
            index=models.Index(
                condition=models.Q(("is_read", False)),
                fields=["user", "-id"],
                name="messaging_notification_to_read",
            ),
        ),
        RemoveIndexBesideWrites(model_name="notification", name="messaging_notification_unread"),
        # The unique key of room and user begins with the room.
        AlterFieldWithoutIndex(
            model_name="membership",
            name="room",
            field=models.ForeignKey(
                db_index=False,
                on_delete=django.db.models.deletion.CASCADE,
                related_name="memberships",
                to="django_tenant_messaging.chatroom",
                verbose_name="room",
            ),
        ),
        AddIndexBesideWrites(
            model_name="membership",
            index=models.Index(condition=models.Q(("role", "owner")), fields=["room"], name="messaging_member_owner"),
        ),
        # A unique field of text has a second index for searches by its beginning, which nobody makes.
        AlterFieldWithoutIndex(
            model_name="chatroom",
            name="direct_key",
            field=models.CharField(blank=True, editable=False, max_length=600, null=True),
        ),
        migrations.SeparateDatabaseAndState(
            state_operations=[
                # It has this name since the table was made.
                migrations.AddConstraint(
                    model_name="chatroom",
                    constraint=models.UniqueConstraint(
                        fields=("direct_key",), name="django_tenant_messaging_chatroom_direct_key_key"
                    ),
                ),
            ],
        ),
        # Neither this index nor a full page keeps PostgreSQL from renewing a status in place.
        AddIndexBesideWrites(
            model_name="userstatus",
            index=models.Index(condition=models.Q(("is_online", True)), fields=["id"], name="messaging_status_online"),
        ),
        RemoveIndexBesideWrites(model_name="userstatus", name="messaging_status_expiry"),
        migrations.RunSQL(
            "ALTER TABLE django_tenant_messaging_userstatus SET (fillfactor = 50)",
            "ALTER TABLE django_tenant_messaging_userstatus RESET (fillfactor)",
        ),
    ]

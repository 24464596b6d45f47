from __future__ import annotations

import uuid
from typing import TYPE_CHECKING, Any

import django.db.models.deletion
import django.utils.timezone
from django.conf import settings
from django.db import migrations, models

if TYPE_CHECKING:
    from collections.abc import Iterable

# What happens to a row when its user is deleted, carried out by the database: see models/users.py.
USER_KEYS = [
    ("chatroom", "created_by", "SET NULL"),
    ("membership", "user", "CASCADE"),
    ("message", "sender", "SET NULL"),
    ("message", "receiver", "SET NULL"),
    ("mention", "user", "CASCADE"),
    ("notification", "user", "CASCADE"),
    ("userstatus", "user", "CASCADE"),
]


def constrain_user_keys(apps: Any, schema_editor: Any, keys: Iterable[tuple[str, str, str]] = USER_KEYS) -> None:
    quote = schema_editor.quote_name
    user = apps.get_model(settings.AUTH_USER_MODEL)._meta
    for model_name, field_name, rule in keys:
        model = apps.get_model("django_tenant_messaging", model_name)
        column = model._meta.get_field(field_name).column
        schema_editor.execute(
            f"ALTER TABLE {quote(model._meta.db_table)}"
            f" ADD CONSTRAINT {quote(f'messaging_{model_name}_{column}_fk')} FOREIGN KEY ({quote(column)})"
            f" REFERENCES {quote(user.db_table)} ({quote(user.pk.column)})"
            f" ON DELETE {rule} DEFERRABLE INITIALLY DEFERRED"
        )


class Migration(migrations.Migration):
    initial = True

    dependencies = [
        migrations.swappable_dependency(settings.AUTH_USER_MODEL),
    ]

    operations = [
        migrations.CreateModel(
            name="ChatRoom",
            fields=[
                (
                    "id",
                    models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID"),
                ),
                (
                    "kind",
                    models.CharField(
                        choices=[("direct", "direct conversation"), ("group", "group")],
                        default="group",
                        max_length=10,
                        verbose_name="kind",
                    ),
                ),
                ("name", models.CharField(blank=True, max_length=120, verbose_name="name")),
                ("created_at", models.DateTimeField(auto_now_add=True, verbose_name="created at")),
                ("epoch", models.UUIDField(default=uuid.uuid4, editable=False)),
                ("changed_seq", models.BigIntegerField(default=0, editable=False)),
                (
                    "direct_key",
                    models.CharField(blank=True, editable=False, max_length=600, null=True, unique=True),
                ),
                (
                    "created_by",
                    models.ForeignKey(
                        blank=True,
                        db_constraint=False,
                        null=True,
                        on_delete=django.db.models.deletion.DO_NOTHING,
                        related_name="+",
                        to=settings.AUTH_USER_MODEL,
                        verbose_name="created by",
                    ),
                ),
            ],
            options={
                "verbose_name": "chat room",
                "verbose_name_plural": "chat rooms",
            },
        ),
        migrations.CreateModel(
            name="RoomCounter",
            fields=[
                (
                    "room",
                    models.OneToOneField(
                        on_delete=django.db.models.deletion.CASCADE,
                        primary_key=True,
                        related_name="counter",
                        serialize=False,
                        to="django_tenant_messaging.chatroom",
                    ),
                ),
                ("last_seq", models.BigIntegerField(default=0)),
                ("last_activity_at", models.DateTimeField(auto_now_add=True)),
            ],
        ),
        migrations.CreateModel(
            name="Membership",
            fields=[
                (
                    "id",
                    models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID"),
                ),
                (
                    "role",
                    models.CharField(
                        choices=[("owner", "owner"), ("member", "member")],
                        default="member",
                        max_length=10,
                        verbose_name="role",
                    ),
                ),
                ("last_read_seq", models.BigIntegerField(default=0)),
                ("visible_after_seq", models.BigIntegerField(default=0)),
                ("joined_seq", models.BigIntegerField(default=0)),
                (
                    "joined_at",
                    models.DateTimeField(default=django.utils.timezone.now, verbose_name="joined at"),
                ),
                ("left_seq", models.BigIntegerField(blank=True, null=True)),
                ("left_at", models.DateTimeField(blank=True, null=True, verbose_name="left at")),
                ("changed_seq", models.BigIntegerField(default=0)),
                (
                    "room",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="memberships",
                        to="django_tenant_messaging.chatroom",
                        verbose_name="room",
                    ),
                ),
                (
                    "user",
                    models.ForeignKey(
                        db_constraint=False,
                        db_index=False,
                        on_delete=django.db.models.deletion.DO_NOTHING,
                        related_name="chat_memberships",
                        to=settings.AUTH_USER_MODEL,
                        verbose_name="user",
                    ),
                ),
            ],
            options={
                "verbose_name": "membership",
                "verbose_name_plural": "memberships",
            },
        ),
        migrations.AddField(
            model_name="chatroom",
            name="members",
            field=models.ManyToManyField(
                related_name="chat_rooms",
                through="django_tenant_messaging.Membership",
                to=settings.AUTH_USER_MODEL,
                verbose_name="members",
            ),
        ),
        migrations.CreateModel(
            name="Mention",
            fields=[
                (
                    "id",
                    models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID"),
                ),
                (
                    "user",
                    models.ForeignKey(
                        db_constraint=False,
                        on_delete=django.db.models.deletion.DO_NOTHING,
                        related_name="+",
                        to=settings.AUTH_USER_MODEL,
                    ),
                ),
            ],
        ),
        migrations.CreateModel(
            name="Message",
            fields=[
                (
                    "id",
                    models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID"),
                ),
                ("seq", models.BigIntegerField(editable=False)),
                ("changed_seq", models.BigIntegerField(editable=False)),
                ("content", models.TextField(verbose_name="content")),
                ("timestamp", models.DateTimeField(default=django.utils.timezone.now, verbose_name="time")),
                ("edited_at", models.DateTimeField(blank=True, editable=False, null=True, verbose_name="edited at")),
                ("deleted_at", models.DateTimeField(blank=True, editable=False, null=True, verbose_name="deleted at")),
                ("is_read", models.BooleanField(default=False, verbose_name="read")),
                ("client_id", models.UUIDField(default=uuid.uuid4, editable=False)),
                (
                    "mentioned_users",
                    models.ManyToManyField(
                        related_name="+",
                        through="django_tenant_messaging.Mention",
                        to=settings.AUTH_USER_MODEL,
                        verbose_name="mentioned users",
                    ),
                ),
                (
                    "receiver",
                    models.ForeignKey(
                        blank=True,
                        db_constraint=False,
                        db_index=False,
                        null=True,
                        on_delete=django.db.models.deletion.DO_NOTHING,
                        related_name="received_messages",
                        to=settings.AUTH_USER_MODEL,
                        verbose_name="receiver",
                    ),
                ),
                (
                    "reply_to",
                    models.ForeignKey(
                        blank=True,
                        db_index=False,
                        null=True,
                        on_delete=django.db.models.deletion.SET_NULL,
                        related_name="replies",
                        to="django_tenant_messaging.message",
                        verbose_name="reply to",
                    ),
                ),
                (
                    "room",
                    models.ForeignKey(
                        db_index=False,
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="messages",
                        to="django_tenant_messaging.chatroom",
                        verbose_name="room",
                    ),
                ),
                (
                    "sender",
                    models.ForeignKey(
                        blank=True,
                        db_constraint=False,
                        db_index=False,
                        null=True,
                        on_delete=django.db.models.deletion.DO_NOTHING,
                        related_name="sent_messages",
                        to=settings.AUTH_USER_MODEL,
                        verbose_name="sender",
                    ),
                ),
            ],
            options={
                "verbose_name": "message",
                "verbose_name_plural": "messages",
            },
        ),
        migrations.AddField(
            model_name="mention",
            name="message",
            field=models.ForeignKey(
                db_index=False,
                on_delete=django.db.models.deletion.CASCADE,
                related_name="mentions",
                to="django_tenant_messaging.message",
            ),
        ),
        migrations.CreateModel(
            name="MessageRevision",
            fields=[
                (
                    "id",
                    models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID"),
                ),
                ("content", models.TextField(verbose_name="content")),
                ("written_at", models.DateTimeField(verbose_name="written at")),
                ("replaced_at", models.DateTimeField(verbose_name="replaced at")),
                (
                    "message",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="revisions",
                        to="django_tenant_messaging.message",
                        verbose_name="message",
                    ),
                ),
            ],
            options={
                "verbose_name": "earlier version",
                "verbose_name_plural": "earlier versions",
            },
        ),
        migrations.CreateModel(
            name="Notification",
            fields=[
                (
                    "id",
                    models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID"),
                ),
                ("notification_text", models.CharField(max_length=500, verbose_name="text")),
                ("is_read", models.BooleanField(default=False, verbose_name="read")),
                (
                    "created_at",
                    models.DateTimeField(default=django.utils.timezone.now, verbose_name="created at"),
                ),
                (
                    "message",
                    models.ForeignKey(
                        blank=True,
                        null=True,
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="notifications",
                        to="django_tenant_messaging.message",
                        verbose_name="message",
                    ),
                ),
                (
                    "user",
                    models.ForeignKey(
                        db_constraint=False,
                        db_index=False,
                        on_delete=django.db.models.deletion.DO_NOTHING,
                        related_name="notifications",
                        to=settings.AUTH_USER_MODEL,
                        verbose_name="user",
                    ),
                ),
            ],
            options={
                "verbose_name": "notification",
                "verbose_name_plural": "notifications",
            },
        ),
        migrations.CreateModel(
            name="UserStatus",
            fields=[
                (
                    "id",
                    models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID"),
                ),
                ("is_online", models.BooleanField(default=False, verbose_name="online")),
                ("last_seen", models.DateTimeField(blank=True, null=True, verbose_name="last seen")),
                ("connections", models.JSONField(default=dict, editable=False)),
                ("online_until", models.DateTimeField(editable=False, null=True)),
                (
                    "user",
                    models.OneToOneField(
                        db_constraint=False,
                        on_delete=django.db.models.deletion.DO_NOTHING,
                        related_name="chat_status",
                        to=settings.AUTH_USER_MODEL,
                        verbose_name="user",
                    ),
                ),
            ],
            options={
                "verbose_name": "user status",
                "verbose_name_plural": "user statuses",
            },
        ),
        migrations.AddIndex(
            model_name="membership",
            index=models.Index(fields=["user"], name="messaging_member_user"),
        ),
        migrations.AddIndex(
            model_name="membership",
            index=models.Index(
                condition=models.Q(("changed_seq__gt", 0)),
                fields=["room", "changed_seq"],
                name="messaging_member_changed",
            ),
        ),
        migrations.AddIndex(
            model_name="membership",
            index=models.Index(fields=["joined_at"], name="messaging_member_joined"),
        ),
        migrations.AddConstraint(
            model_name="membership",
            constraint=models.UniqueConstraint(fields=("room", "user"), name="messaging_member_unique"),
        ),
        migrations.AddConstraint(
            model_name="chatroom",
            constraint=models.CheckConstraint(
                condition=models.Q(
                    models.Q(("direct_key__isnull", False), ("kind", "direct")),
                    models.Q(("direct_key__isnull", True), ("kind", "group")),
                    _connector="OR",
                ),
                name="messaging_room_direct_key",
            ),
        ),
        migrations.AddIndex(
            model_name="message",
            index=models.Index(fields=["room", "changed_seq"], name="messaging_message_changed"),
        ),
        migrations.AddIndex(
            model_name="message",
            index=models.Index(
                condition=models.Q(("is_read", False)),
                fields=["room", "receiver", "seq"],
                name="messaging_message_unread",
            ),
        ),
        migrations.AddIndex(
            model_name="message",
            index=models.Index(
                condition=models.Q(("receiver__isnull", False)),
                fields=["receiver"],
                name="messaging_message_receiver",
            ),
        ),
        migrations.AddIndex(
            model_name="message",
            index=models.Index(
                condition=models.Q(("reply_to__isnull", False)),
                fields=["reply_to"],
                name="messaging_message_reply",
            ),
        ),
        migrations.AddConstraint(
            model_name="message",
            constraint=models.UniqueConstraint(fields=("room", "seq"), name="messaging_message_seq"),
        ),
        migrations.AddConstraint(
            model_name="message",
            constraint=models.UniqueConstraint(fields=("sender", "client_id"), name="messaging_message_client_id"),
        ),
        migrations.AddConstraint(
            model_name="mention",
            constraint=models.UniqueConstraint(fields=("message", "user"), name="messaging_mention_unique"),
        ),
        migrations.AddIndex(
            model_name="notification",
            index=models.Index(fields=["user", "-id"], name="messaging_notification_user"),
        ),
        migrations.AddIndex(
            model_name="notification",
            index=models.Index(
                condition=models.Q(("is_read", False)),
                fields=["user", "message"],
                name="messaging_notification_unread",
            ),
        ),
        migrations.AddConstraint(
            model_name="notification",
            constraint=models.UniqueConstraint(fields=("user", "message"), name="messaging_notification_once"),
        ),
        migrations.AddIndex(
            model_name="userstatus",
            index=models.Index(
                condition=models.Q(("is_online", True)),
                fields=["online_until"],
                name="messaging_status_expiry",
            ),
        ),
        migrations.RunPython(constrain_user_keys, migrations.RunPython.noop),
    ]

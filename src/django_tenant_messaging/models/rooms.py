from __future__ import annotations

import uuid
from typing import TYPE_CHECKING, Any

from django.conf import settings
from django.db import connections, models, transaction
from django.db.models.functions import Now
from django.utils.translation import gettext_lazy as _

from ..exceptions import Invalid
from ..tenancy import TENANT_DATABASE, table_of
from .content import isolated
from .users import user_key

if TYPE_CHECKING:
    from django.contrib.auth.models import AbstractBaseUser

NAME_LENGTH = 120


NOT_BY_THE_ORM = "Rooms can't be deleted through the ORM, which would lock them long and tell nobody; use {call}."


class ChatRoomQuerySet(models.QuerySet["ChatRoom"]):
    """Rooms, deleted one by one."""

    def delete(self) -> Any:
        """Not offered: members leave first, and what is in the room goes in steps."""
        raise TypeError(NOT_BY_THE_ORM.format(call="actions.delete_room(room_id=...) for each"))


class ChatRoomManager(models.Manager["ChatRoom"]):
    """Finds and makes rooms."""

    def get_queryset(self) -> ChatRoomQuerySet:
        """Return rooms that can't be deleted in a query."""
        return ChatRoomQuerySet(self.model, using=self._db)

    def direct(self, one: AbstractBaseUser, other: AbstractBaseUser) -> tuple[ChatRoom, bool]:
        """Find or make the direct room of two users; the same one whoever asks, also at the same time.

        Returns the room and whether it was made now.

        Raises :class:`~django_tenant_messaging.exceptions.Invalid` when both are the same user.
        """
        if one.pk == other.pk:
            raise Invalid.field("other", "a direct conversation needs two different users")
        key = ":".join(sorted((str(one.pk), str(other.pk))))
        with transaction.atomic(using=TENANT_DATABASE):
            room, created = self._direct_of_key(key, one)
            if not created and room.size < 2:
                # One of the two was deleted and somebody else has got the same key: the thread stays with who is left.
                self.set_aside(room.pk)
                room, created = self._direct_of_key(key, one)
            if created:
                room.furnish({one: "member", other: "member"})
        return room, created

    def set_aside(self, room_id: int) -> None:
        """Let the two of a direct room begin another one; nothing happens to a room that is set aside, or a group."""
        for room in self.filter(pk=room_id, kind=ChatRoom.Kind.DIRECT):
            key, end = str(room.direct_key), f":{room.epoch.hex}"
            if not key.endswith(end):
                self.filter(pk=room_id, direct_key=key).update(direct_key=f"{key}{end}")

    def _direct_of_key(self, key: str, maker: AbstractBaseUser) -> tuple[Any, bool]:
        # A concurrent maker waits at the unique key until the first has committed the room with its members.
        return self.annotate(size=models.Count("memberships")).get_or_create(
            direct_key=key, defaults={"kind": ChatRoom.Kind.DIRECT, "created_by_id": maker.pk}
        )


class ChatRoom(models.Model):
    """A conversation: between two users (``direct``) or in a group."""

    class Kind(models.TextChoices):
        DIRECT = "direct", _("direct conversation")
        GROUP = "group", _("group")

    kind = models.CharField(_("kind"), max_length=10, choices=Kind.choices, default=Kind.GROUP)
    name = models.CharField(_("name"), max_length=NAME_LENGTH, blank=True)
    created_by = user_key(null=True, blank=True, related_name="+", verbose_name=_("created by"))
    created_at = models.DateTimeField(_("created at"), auto_now_add=True)
    epoch = models.UUIDField(default=uuid.uuid4, editable=False)
    """Identifies this history. Positions of another epoch are refused when a client resumes."""
    changed_seq = models.BigIntegerField(default=0, editable=False)
    """The room's ``seq`` of its last renaming."""
    # Null for groups: empty texts would be equal.
    direct_key = models.CharField(max_length=600, null=True, blank=True, editable=False)  # noqa: DJ001
    members: models.ManyToManyField[Any, Any] = models.ManyToManyField(
        settings.AUTH_USER_MODEL,
        through="Membership",
        related_name="chat_rooms",
        verbose_name=_("members"),
    )

    objects = ChatRoomManager()

    class Meta:
        verbose_name = _("chat room")
        verbose_name_plural = _("chat rooms")
        constraints = [
            # Not `unique=True`, with which Django makes a second index that nothing uses.
            models.UniqueConstraint(fields=["direct_key"], name="django_tenant_messaging_chatroom_direct_key_key"),
            models.CheckConstraint(
                condition=models.Q(kind="direct", direct_key__isnull=False)
                | models.Q(kind="group", direct_key__isnull=True),
                name="messaging_room_direct_key",
            ),
        ]

    def __str__(self) -> str:
        return isolated(self.name) or f"{self.get_kind_display()} {self.pk}"

    def delete(self, *_args: Any, **_kwargs: Any) -> Any:
        """Not offered: members leave first, and what is in the room goes in steps."""
        raise TypeError(NOT_BY_THE_ORM.format(call=f"actions.delete_room(room_id={self.pk})"))

    def furnish(self, roles: dict[AbstractBaseUser, str]) -> None:
        """Give a new room its counter and first members. They are there from the start and take no ``seq``."""
        from .memberships import Membership

        RoomCounter.objects.create(room=self)
        Membership.objects.bulk_create(
            Membership(room=self, user_id=user.pk, role=role, joined_at=Now())
            for user, role in sorted(roles.items(), key=lambda item: str(item[0].pk))
        )


class RoomCounterManager(models.Manager["RoomCounter"]):
    """Hands out the numbers of timelines."""

    def advance(self, room_id: int) -> int:
        """Take the room's next ``seq``. The row stays locked until the transaction ends, so that the order of the
        numbers is the order of the commits, without a gap.
        """
        with connections[TENANT_DATABASE].cursor() as cursor:
            cursor.execute(
                f"UPDATE {table_of(self.model)} SET last_seq = last_seq + 1, last_activity_at = clock_timestamp()"
                " WHERE room_id = %s RETURNING last_seq",
                [room_id],
            )
            row = cursor.fetchone()
        if row is None:
            raise RoomCounter.DoesNotExist(f"Room {room_id} has no counter.")
        seq: int = row[0]
        return seq


class RoomCounter(models.Model):
    """The head of a room's timeline, in a narrow table because every message rewrites its row."""

    room = models.OneToOneField(ChatRoom, on_delete=models.CASCADE, primary_key=True, related_name="counter")
    last_seq = models.BigIntegerField(default=0)
    last_activity_at = models.DateTimeField(auto_now_add=True)

    objects = RoomCounterManager()

    def __str__(self) -> str:
        return f"{self.room_id}: {self.last_seq}"

"""The admin looks; what it writes, an action does, so that it takes its place in a timeline and is announced."""

from __future__ import annotations

from itertools import groupby
from typing import TYPE_CHECKING, Any

from django.contrib import admin
from django.contrib import messages as feedback
from django.db.models import Count, Exists, OuterRef, Subquery
from django.db.models.functions import Coalesce
from django.utils.text import Truncator
from django.utils.translation import gettext, ngettext
from django.utils.translation import gettext_lazy as _

from .. import actions
from ..models import ChatRoom, Membership, Mention, Message, MessageRevision, Notification, UserStatus
from .looking import LookOnlyAdmin, is_let_in
from .room_deletion import RoomDeletion

if TYPE_CHECKING:
    from django.db.models import QuerySet
    from django.http import HttpRequest

PREVIEW_CHARACTERS = 80


def beginning(text: str) -> str:
    """Return the beginning of a text, in one line."""
    return Truncator(" ".join(text.split())).chars(PREVIEW_CHARACTERS)


@admin.register(ChatRoom)
class ChatRoomAdmin(RoomDeletion, LookOnlyAdmin):
    """Rooms with their size and latest activity; the only rows that may be deleted here."""

    list_display = ("__str__", "kind", "members_now", "last_activity", "created_by", "created_at")
    list_filter = ("kind", "created_at")
    list_select_related = ("counter", "created_by")
    text_search = ("name",)
    user_search = ("memberships__user",)
    fields = ("name", "kind", "members_now", "head", "last_activity", "created_by", "created_at", "epoch")

    def get_queryset(self, request: HttpRequest) -> QuerySet[Any]:
        """Count the members in the same query."""
        members = (
            Membership.objects.filter(room=OuterRef("pk"), left_seq=None)
            .order_by()
            .values("room")
            .annotate(number=Count("pk"))
            .values("number")
        )
        rooms: QuerySet[Any] = super().get_queryset(request).annotate(member_count=Coalesce(Subquery(members), 0))
        return rooms

    @admin.display(description=_("members"))
    def members_now(self, room: Any) -> int:
        """How many are in the room."""
        number: int = room.member_count
        return number

    @admin.display(description=_("last activity"), ordering="counter__last_activity_at")
    def last_activity(self, room: ChatRoom) -> Any:
        """When something last happened in the room."""
        return room.counter.last_activity_at

    @admin.display(description=_("position"))
    def head(self, room: ChatRoom) -> int:
        """The number of the timeline's last entry."""
        return room.counter.last_seq


class LeftFilter(admin.SimpleListFilter):
    """Tells members from those who left."""

    title = _("membership")
    parameter_name = "member"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, Any]]:
        """Name the two."""
        return [("now", _("is a member")), ("left", _("has left"))]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        """Keep one of the two."""
        if self.value() is None:
            return queryset
        return queryset.filter(left_seq__isnull=self.value() == "now")


@admin.register(Membership)
class MembershipAdmin(LookOnlyAdmin):
    """Who is, or was, in which room, and how far they have read."""

    list_display = ("user", "room", "role", "joined_at", "left_at", "last_read_seq")
    list_filter = ("role", LeftFilter, "joined_at")
    list_select_related = ("user", "room")
    text_search = ("room__name",)
    user_search = ("user",)


class MentionFilter(admin.SimpleListFilter):
    """Tells messages that mention somebody from those to the whole room."""

    title = _("mentions")
    parameter_name = "mentions"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, Any]]:
        """Name the two."""
        return [("some", _("mentions somebody")), ("none", _("mentions nobody"))]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        """Keep one of the two."""
        if self.value() is None:
            return queryset
        mentions = Exists(Mention.objects.filter(message=OuterRef("pk")))
        return queryset.filter(mentions if self.value() == "some" else ~mentions)


@admin.register(Message)
class MessageAdmin(LookOnlyAdmin):
    """Messages with the beginning of their text and whether the receiver has read them."""

    list_display = ("preview", "sender", "receiver", "room", "timestamp", "is_read")
    list_filter = (
        "is_read",
        "timestamp",
        "room__kind",
        MentionFilter,
        ("edited_at", admin.EmptyFieldListFilter),
        ("deleted_at", admin.EmptyFieldListFilter),
    )
    list_select_related = ("sender", "receiver", "room")
    text_search = ("content", "room__name")
    user_search = ("sender", "receiver")
    fields = (
        "content",
        "sender",
        "receiver",
        "room",
        "seq",
        "timestamp",
        "edited_at",
        "deleted_at",
        "is_read",
        "reply_to",
        "mentioned",
        "client_id",
    )

    @admin.display(description=_("content"))
    def preview(self, message: Message) -> str:
        """The beginning of the text, in one line."""
        return beginning(message.content) if message.deleted_at is None else gettext("This message was deleted.")

    @admin.display(description=_("mentioned users"))
    def mentioned(self, message: Message) -> str:
        """Who is mentioned."""
        return ", ".join(user.get_username() for user in message.mentioned_users.all())


@admin.register(MessageRevision)
class MessageRevisionAdmin(LookOnlyAdmin):
    """What messages said before their edits."""

    list_display = ("preview", "message", "sender", "written_at", "replaced_at")
    list_filter = ("replaced_at",)
    list_select_related = ("message__sender",)
    text_search = ("content",)
    user_search = ("message__sender",)
    reveals = {"sender": Message}
    fields = ("content", "message", "sender", "written_at", "replaced_at")

    @admin.display(description=_("content"))
    def preview(self, revision: MessageRevision) -> str:
        """The beginning of the text, in one line."""
        return beginning(revision.content)

    @admin.display(description=_("sender"))
    def sender(self, revision: MessageRevision) -> Any:
        """Who wrote it."""
        return revision.message.sender


@admin.register(Notification)
class NotificationAdmin(LookOnlyAdmin):
    """Notifications and whether they were read."""

    list_display = ("notification_text", "user", "about", "created_at", "is_read")
    list_filter = ("is_read", "created_at")
    list_select_related = ("user", "message")
    text_search = ("notification_text",)
    user_search = ("user",)
    reveals = {"about": Message}
    actions = ("mark_as_read",)

    @admin.display(description=_("message"))
    def about(self, notification: Notification) -> str:
        """The beginning of the message that the notification is about."""
        message = notification.message
        return "" if message is None else beginning(message.content)

    @admin.action(description=_("Mark selected notifications as read"), permissions=["mark"])
    def mark_as_read(self, request: HttpRequest, queryset: QuerySet[Notification]) -> None:
        """Do for their owners what these could do themselves."""
        chosen = queryset.select_related("user").order_by("user_id")
        number = 0
        for user, notifications in groupby(chosen, key=lambda notification: notification.user):
            ids = [notification.pk for notification in notifications]
            number += actions.mark_notifications_read(user, notification_ids=ids)
        said = ngettext("%(count)d notification marked as read.", "%(count)d notifications marked as read.", number)
        self.message_user(request, said % {"count": number}, feedback.SUCCESS)

    def has_mark_permission(self, request: HttpRequest) -> bool:
        """Who may change notifications may mark them."""
        return is_let_in(request) and super(LookOnlyAdmin, self).has_change_permission(request)


@admin.register(UserStatus)
class UserStatusAdmin(LookOnlyAdmin):
    """Who is online."""

    list_display = ("user", "is_online", "last_seen")
    list_filter = ("is_online", "last_seen")
    list_select_related = ("user",)
    user_search = ("user",)

from __future__ import annotations

from typing import TYPE_CHECKING

from ..conf import messaging_settings
from ..exceptions import Invalid, NotFound
from ..models import Message, MessageRevision
from ..models.ids import may_be_id, whole_number
from ..payloads.sizes import bytes_of_revision, fitting
from ..types import RevisionData, RevisionPage
from .pages import extent_of_page
from .rooms import access_room

if TYPE_CHECKING:
    from django.contrib.auth.models import AbstractBaseUser

    from ..types import MessageData, RoomPosition


def list_revisions(
    user: AbstractBaseUser, *, room_id: int, message_id: int, before: int | None = None, limit: int = 50
) -> RevisionPage:
    """Return what a message said before its edits, oldest first: the newest versions, or those before one's id.

    Every member of the room who sees the message sees its earlier versions; a message that never changed or was
    deleted has none. ``limit`` is 1 to ``HISTORY_PAGE_LIMIT``; a page of more than ``HISTORY_PAGE_BYTES`` ends early,
    and ``has_before`` says whether there are older ones. Four queries.

    Raises :class:`~django_tenant_messaging.exceptions.NotFound` for someone who isn't a member, and when the message
    isn't in the room or was written before the member may look; ``Invalid`` for a limit out of range.
    """
    highest = messaging_settings.HISTORY_PAGE_LIMIT
    if not 1 <= whole_number(limit, "limit") <= highest:
        raise Invalid.field("limit", f"must be 1 to {highest}, is {limit}")
    room = access_room(user, room_id)
    if not may_be_id(message_id, "message_id") or not _is_visible(message_id, room):
        raise NotFound("There is no such message in this room.", message_id=message_id)
    rows = MessageRevision.objects.filter(message_id=message_id)
    if before is not None:
        rows = rows.filter(pk__lt=whole_number(before, "before"))
    rows = rows.order_by("-pk")
    most_bytes = messaging_settings.HISTORY_PAGE_BYTES
    first, is_cut = extent_of_page(rows, "pk", limit=limit, most_bytes=most_bytes)
    found = [] if first is None else rows.filter(pk__gte=first)
    revisions = [RevisionData(row.pk, row.content, row.written_at, row.replaced_at) for row in found]
    page = fitting(revisions, bytes_of_revision, most_bytes)
    return RevisionPage(tuple(page[::-1]), has_before=is_cut or len(page) < len(revisions))


def _is_visible(message_id: int, room: RoomPosition) -> bool:
    # By its id alone: asked for the room as well, the planner may look through all of that.
    found = Message.objects.filter(pk=message_id).values_list("room_id", "seq")
    return any(room_id == room.room_id and seq > room.visible_after_seq for room_id, seq in found)


def was_written_as(message: MessageData, content: str) -> bool:
    """Return whether a message was sent with this text, whatever it says now; one query if it was edited since.

    Of a deleted message that isn't known any more. The answer is yes, so that a send that is repeated after the
    deletion isn't taken for another message. No right is checked: for code that has compared sender and client id.
    """
    if message.deleted_at is not None:
        return True
    if message.edited_at is None:
        return message.content == content
    first = MessageRevision.objects.filter(message_id=message.id).order_by("pk").values_list("content", flat=True)
    return first.first() == content

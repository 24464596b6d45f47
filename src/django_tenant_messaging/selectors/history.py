from __future__ import annotations

from typing import TYPE_CHECKING

from ..conf import messaging_settings
from ..exceptions import Invalid
from ..models import Message
from ..models.ids import whole_number
from ..payloads.sizes import bytes_of_message, fitting
from ..types import HistoryPage, MessageData
from .messages import load_messages
from .pages import extent_of_page
from .rooms import access_room

if TYPE_CHECKING:
    from collections.abc import Sequence

    from django.contrib.auth.models import AbstractBaseUser
    from django.db.models import QuerySet


def room_history(
    user: AbstractBaseUser,
    *,
    room_id: int,
    before: int | None = None,
    after: int | None = None,
    around: int | None = None,
    limit: int = 50,
) -> HistoryPage:
    """Return a page of a room's messages: the newest, or those before, after or around a ``seq``.

    ``limit`` is 1 to ``HISTORY_PAGE_LIMIT`` messages; ``around`` takes half of them from each side, the message at
    that ``seq`` included. The page and the room's position in it are of one moment: a client that shows the newest
    page and resumes from ``page.room.seq`` misses nothing. A page of more than ``HISTORY_PAGE_BYTES`` ends early: where
    there is more, ``has_before`` and ``has_after`` say. Four queries, seven for ``around``, whatever the history.

    Raises :class:`~django_tenant_messaging.exceptions.NotFound` for someone who isn't a member, ``Invalid`` for a
    limit out of range or two places at once.
    """
    highest = messaging_settings.HISTORY_PAGE_LIMIT
    if not 1 <= whole_number(limit, "limit") <= highest:
        raise Invalid.field("limit", f"must be 1 to {highest}, is {limit}")
    places = {"before": before, "after": after, "around": around}
    given = [whole_number(place, name) for name, place in places.items() if place is not None]
    if len(given) > 1:
        raise Invalid("Give one of before, after and around, not several.")
    room = access_room(user, room_id)
    visible = Message.objects.filter(room_id=room_id, seq__gt=room.visible_after_seq, seq__lte=room.seq)

    most_bytes = messaging_settings.HISTORY_PAGE_BYTES

    def older(seq: int, count: int, most_bytes: int = most_bytes) -> tuple[Sequence[MessageData], bool]:
        rows = visible.filter(seq__lt=seq).order_by("-seq")
        page, is_cut = _page(rows, "seq__gte", count, most_bytes)
        return page[::-1], is_cut

    def newer(seq: int, count: int, most_bytes: int = most_bytes) -> tuple[Sequence[MessageData], bool]:
        return _page(visible.filter(seq__gt=seq).order_by("seq"), "seq__lte", count, most_bytes)

    if after is not None:
        messages, has_after = newer(after, limit)
        return HistoryPage(room, tuple(messages), has_before=after > room.visible_after_seq, has_after=has_after)
    if around is not None:
        half = limit // 2
        later, has_after = newer(around - 1, limit - half, most_bytes // 2)
        earlier, has_before = older(around, half, most_bytes // 2)
        return HistoryPage(room, (*earlier, *later), has_before=has_before, has_after=has_after)
    messages, has_before = older(room.seq + 1 if before is None else before, limit)
    return HistoryPage(room, tuple(messages), has_before, has_after=before is not None and before <= room.seq)


def _page(rows: QuerySet[Message], up_to: str, count: int, most_bytes: int) -> tuple[Sequence[MessageData], bool]:
    """Return the first messages of a query as far as they fit, and whether there are more. ``up_to`` is the look-up
    that says where the page ends.

    The texts are measured before they are read; the names, which the database keeps elsewhere, when they are there.
    """
    last, is_cut = extent_of_page(rows, "seq", limit=count, most_bytes=most_bytes)
    if last is None:
        return [], is_cut
    # The page's number besides its end: the planner takes a part of a long room for more than it is.
    found = load_messages(rows.filter(**{up_to: last})[:count])
    page = fitting(found, bytes_of_message, most_bytes)
    return page, is_cut or len(page) < len(found)

"""The members of a room, in pages: a large room has too many for one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from django.shortcuts import render

from ..conf import messaging_settings
from ..selectors import access_room, count_members, list_members
from .access import actor
from .pages import page_context

if TYPE_CHECKING:
    from django.contrib.auth.models import AbstractBaseUser
    from django.http import HttpRequest, HttpResponse

    from ..types import MemberData, RoomPosition

PAGE = 100
MOST_COUNTED = 1_000


@dataclass(frozen=True, slots=True)
class MembersPage:
    """Members of a room, and how many it has: ``most`` and more when ``number`` is higher. ``next_after`` is the user
    after whom the next page begins, if there is one.
    """

    members: list[MemberData]
    number: int
    next_after: str | None
    most: int = MOST_COUNTED

    @classmethod
    def of(cls, user: AbstractBaseUser, room: RoomPosition, *, after: str | None = None) -> MembersPage:
        """Read a page: the first, or the one after a user. A page is in the order of names."""
        found = list_members(user, room.room_id, after=after, limit=PAGE + 1)
        page = found[:PAGE]
        return cls(
            members=sorted(page, key=lambda member: member.user.username),
            number=count_members(user, room.room_id),
            next_after=page[-1].user.id if len(found) > PAGE else None,
        )

    def config(self) -> dict[str, Any]:
        """Return what the page's module needs: whether it is told who comes, and whether all members are shown."""
        return {
            "number": self.number,
            "mostCounted": self.most,
            "areAll": self.next_after is None,
            "tellsPresence": self.number <= messaging_settings.EPHEMERAL_ROOM_LIMIT,
        }


def members_page(request: HttpRequest, room_id: int) -> HttpResponse:
    """Answer the members after a user."""
    user = actor(request)
    room = access_room(user, room_id)
    context = {
        **page_context(user, [room]),
        "room": room,
        "members": MembersPage.of(user, room, after=request.GET.get("after")),
    }
    return render(request, "django_tenant_messaging/members.html", context)

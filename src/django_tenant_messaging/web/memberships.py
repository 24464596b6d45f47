from __future__ import annotations

from typing import TYPE_CHECKING

from django.shortcuts import redirect
from django.views.decorators.http import require_http_methods

from .. import actions
from .access import ROOM, ROOM_LIST, actor, form_of, tenant_page
from .forms import AddMembersForm
from .limits import charge_room
from .members import members_page
from .messages import room_page

if TYPE_CHECKING:
    from typing import Any

    from django.http import HttpRequest, HttpResponse


@tenant_page
@require_http_methods(["GET", "HEAD", "POST"])
def members(request: HttpRequest, room_id: int) -> HttpResponse:
    """Show a page of a room's members; a POST adds users to it by their names."""
    if request.method != "POST":
        return members_page(request, room_id)
    user = actor(request)
    charge_room(user, room_id)
    form = AddMembersForm(user, request.POST)

    def add(data: dict[str, Any]) -> bool:
        actions.add_members(user, room_id=room_id, users=data["people"])
        return True

    if form.perform(add) is None:
        return room_page(request, room_id, add_form=form, status=form.status)
    return redirect("tenant_messaging:room", room_id)


@tenant_page
@form_of(ROOM)
def leave_room(request: HttpRequest, room_id: int) -> HttpResponse:
    """Leave a room and go back to the conversations."""
    charge_room(actor(request), room_id)
    actions.leave_room(actor(request), room_id=room_id)
    return redirect("tenant_messaging:room-list")


@tenant_page
@form_of(ROOM_LIST)
def rejoin_room(request: HttpRequest, room_id: int) -> HttpResponse:
    """Come back to a room that the user left, and go there."""
    actions.rejoin_room(actor(request), room_id=room_id)
    return redirect("tenant_messaging:room", room_id)

from __future__ import annotations

from typing import TYPE_CHECKING

from django.shortcuts import redirect, render
from django.views.decorators.http import require_safe

from .. import actions
from ..conf import messaging_settings
from ..selectors import left_rooms, list_conversations
from .access import ROOM, ROOM_LIST, actor, form_of, tenant_page
from .forms import DirectForm, RenameForm, RoomForm
from .limits import charge_room
from .messages import room_page
from .pages import page_context

if TYPE_CHECKING:
    from django.http import HttpRequest, HttpResponse

CONVERSATION_LIMIT = 50


@tenant_page
@require_safe
def room_list(request: HttpRequest) -> HttpResponse:
    """Show the user's conversations."""
    return _page(request)


@tenant_page
@form_of(ROOM_LIST)
def create_room(request: HttpRequest) -> HttpResponse:
    """Make a group and go there."""
    user = actor(request)
    form = RoomForm(user, request.POST)
    room = form.perform(lambda data: actions.create_room(user, name=data["name"], members=data["people"]))
    if room is None:
        return _page(request, room_form=form, status=form.status)
    return redirect("tenant_messaging:room", room.pk)


@tenant_page
@form_of(ROOM_LIST)
def open_direct(request: HttpRequest) -> HttpResponse:
    """Find or make the conversation with one other user and go there."""
    user = actor(request)
    form = DirectForm(user, request.POST)
    room = form.perform(lambda data: actions.open_direct_room(user, other=data["people"][0]))
    if room is None:
        return _page(request, direct_form=form, status=form.status)
    return redirect("tenant_messaging:room", room.pk)


@tenant_page
@form_of(ROOM)
def rename_room(request: HttpRequest, room_id: int) -> HttpResponse:
    """Give a group another name."""
    user = actor(request)
    charge_room(user, room_id)
    form = RenameForm(request.POST)
    renamed = form.perform(lambda data: actions.rename_room(user, room_id=room_id, name=data["name"]))
    if renamed is None:
        return room_page(request, room_id, rename_form=form, status=form.status)
    return redirect("tenant_messaging:room", room_id)


def _page(
    request: HttpRequest,
    *,
    room_form: RoomForm | None = None,
    direct_form: DirectForm | None = None,
    status: int = 200,
) -> HttpResponse:
    user = actor(request)
    conversations = list_conversations(user, limit=CONVERSATION_LIMIT)
    positions = [conversation.room for conversation in conversations]
    context = {
        **page_context(
            user,
            positions,
            conversationLimit=CONVERSATION_LIMIT,
            unreadLimit=messaging_settings.UNREAD_COUNT_LIMIT,
        ),
        "conversations": conversations,
        "left_rooms": left_rooms(user),
        "room_form": room_form or RoomForm(user),
        "direct_form": direct_form or DirectForm(user),
    }
    return render(request, "django_tenant_messaging/rooms.html", context, status=status)

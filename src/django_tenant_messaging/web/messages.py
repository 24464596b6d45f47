from __future__ import annotations

from typing import TYPE_CHECKING
from uuid import uuid4

from django.shortcuts import redirect, render
from django.views.decorators.http import require_http_methods

from .. import actions
from ..conf import messaging_settings
from ..models.content import isolated
from ..selectors import owns_room, room_history
from .access import actor, tenant_page
from .forms import AddMembersForm, RenameForm, SendForm
from .limits import charge_room
from .members import MembersPage
from .pages import page_context

if TYPE_CHECKING:
    from django.http import HttpRequest, HttpResponse


@tenant_page
@require_http_methods(["GET", "HEAD", "POST"])
def room(request: HttpRequest, room_id: int) -> HttpResponse:
    """Show a room; a POST sends a message there, for browsers in which the page's module doesn't run."""
    if request.method != "POST":
        return room_page(request, room_id)
    charge_room(actor(request), room_id)
    form = SendForm(request.POST)
    sent = form.perform(lambda data: actions.send_message(actor(request), room_id=room_id, **data))
    if sent is None:
        return room_page(request, room_id, send_form=form, status=form.status)
    return redirect("tenant_messaging:room", room_id)


def room_page(
    request: HttpRequest,
    room_id: int,
    *,
    send_form: SendForm | None = None,
    add_form: AddMembersForm | None = None,
    rename_form: RenameForm | None = None,
    status: int = 200,
) -> HttpResponse:
    """Answer a room's newest messages and its members, with what a form said."""
    user = actor(request)
    page = room_history(user, room_id=room_id)
    members = MembersPage.of(user, page.room)
    context = {
        **page_context(
            user,
            [page.room],
            room=room_id,
            readSeq=page.room.read_seq,
            members=members.config(),
            ownsRoom=page.room.kind == "group" and owns_room(user, room_id),
            editWindow=messaging_settings.EDIT_WINDOW,
        ),
        "page": page,
        "title": isolated(page.room.name),
        "members": members,
        "send_form": send_form or SendForm(initial={"client_id": uuid4()}),
        "add_form": add_form or AddMembersForm(user),
        "rename_form": rename_form or RenameForm(initial={"name": page.room.name}),
    }
    return render(request, "django_tenant_messaging/room.html", context, status=status)

from __future__ import annotations

from typing import TYPE_CHECKING

from django.shortcuts import redirect

from .. import actions
from .access import ROOM_LIST, actor, form_of, tenant_page

if TYPE_CHECKING:
    from django.http import HttpRequest, HttpResponse


@tenant_page
@form_of(ROOM_LIST)
def mark_notifications_read(request: HttpRequest) -> HttpResponse:
    """Mark all of the user's notifications as read."""
    actions.mark_notifications_read(actor(request))
    return redirect("tenant_messaging:room-list")

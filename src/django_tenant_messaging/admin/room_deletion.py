"""Deleting rooms in the admin: as far as a request may last, and the rest when it is asked for again."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from django.contrib import admin
from django.contrib import messages as feedback
from django.contrib.admin.actions import delete_selected
from django.http import HttpResponseRedirect
from django.urls import reverse
from django.utils.decorators import method_decorator
from django.utils.translation import gettext_lazy as _
from django.utils.translation import ngettext
from django.views.decorators.csrf import csrf_protect

from .. import actions
from .looking import LookOnlyAdmin, is_let_in

if TYPE_CHECKING:
    from collections.abc import Iterable

    from django.db.models import QuerySet
    from django.http import HttpRequest, HttpResponse

    from ..models import ChatRoom

SECONDS = 10
"""How long a request deletes messages. Nobody is in the rooms any more by then."""


class RoomDeletion(LookOnlyAdmin):
    """Deletes rooms by the action, whose events tell connected clients."""

    actions = ("delete_selected",)

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Say whether the user may delete rooms, by Django's permission."""
        return is_let_in(request) and super(LookOnlyAdmin, self).has_delete_permission(request, obj)

    def get_deleted_objects(self, objs: Any, request: HttpRequest) -> Any:
        """Name the rooms alone: to find all that is in them would read all of it."""
        rooms = list(objs)
        return [str(room) for room in rooms], {self.opts.verbose_name_plural: len(rooms)}, set(), []

    @method_decorator(csrf_protect)
    def delete_view(self, request: HttpRequest, object_id: str, extra_context: dict[str, Any] | None = None) -> Any:
        """Ask, or delete; not in one transaction, as Django would."""
        asked: Any = self
        return asked._delete_view(request, object_id, extra_context)

    def delete_model(self, request: HttpRequest, obj: ChatRoom) -> None:
        """Delete a room as far as time allows."""
        self._delete(request, [obj])

    def response_delete(self, request: HttpRequest, obj_display: str, obj_id: int) -> HttpResponse:
        """Go back to the list; what was done is said by then."""
        return HttpResponseRedirect(reverse(f"admin:{self.opts.app_label}_{self.opts.model_name}_changelist"))

    @admin.action(description=_("Delete selected %(verbose_name_plural)s"), permissions=["delete"])
    def delete_selected(self, request: HttpRequest, queryset: QuerySet[ChatRoom]) -> Any:
        """Ask, or delete the rooms as far as time allows."""
        if not request.POST.get("post"):
            return delete_selected(self, request, queryset)
        self.log_deletions(request, queryset)
        self._delete(request, queryset)
        return None

    def _delete(self, request: HttpRequest, rooms: Iterable[ChatRoom]) -> None:
        ends = time.monotonic() + SECONDS
        gone = [actions.delete_room(room_id=room.pk, seconds=ends - time.monotonic()) for room in rooms]
        done, left = gone.count(True), gone.count(False)
        if done:
            said = ngettext("%(count)d room deleted.", "%(count)d rooms deleted.", done)
            self.message_user(request, said % {"count": done}, feedback.SUCCESS)
        if left:
            said = ngettext(
                "Nobody is in %(count)d of the rooms any more, but it still holds messages. Delete it again.",
                "Nobody is in %(count)d of the rooms any more, but they still hold messages. Delete them again.",
                left,
            )
            self.message_user(request, said % {"count": left}, feedback.WARNING)

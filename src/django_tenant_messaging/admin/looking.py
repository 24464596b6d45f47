"""The base of all lists: who may look, and at what."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from django.contrib import admin
from django.contrib.admin.options import IncorrectLookupParameters
from django.core.exceptions import FieldDoesNotExist, PermissionDenied

from ..models.ids import MAX_ID
from ..permissions import may_view, why_request_refused
from ..selectors import username_field
from ..tenancy import admin_log_is_shared, current_schema

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from django.db.models import Model, QuerySet
    from django.http import HttpRequest

    from ..permissions import Refusal

    ModelAdmin = admin.ModelAdmin[Any]
else:
    ModelAdmin = admin.ModelAdmin

WINDOW = 10_000
"""Rows that a list shows, sorts, filters and searches: the newest, or those before the one that ``?id__lt=`` names."""
REFUSALS = "_tenant_messaging_refusals"
"""The attribute of a request that holds why it isn't let in, by schema: the admin asks for each model that it names."""


def is_let_in(request: HttpRequest) -> bool:
    """Say whether a request may see anything of the tenant's messages; what its user may see is asked besides."""
    known: dict[str, Refusal | None] = request.__dict__.setdefault(REFUSALS, {})
    schema_name = current_schema()
    if schema_name not in known:
        known[schema_name] = why_request_refused(request)
    return known[schema_name] is None


class LookOnlyAdmin(ModelAdmin):
    """Lists and shows rows, to users whom the tenant's pages and sockets let in as well.

    Who may view the model may see all its rows: this is for operators, not for members. Columns, fields, filters and
    searches that lead to another of the app's models are there for users who may view that one too.
    """

    list_per_page = 50
    ordering = ("-pk",)
    # Counting all rows of a long history costs more than the page does.
    show_full_result_count = False
    user_search: tuple[str, ...] = ()
    text_search: tuple[str, ...] = ()
    reveals: ClassVar[Mapping[str, type[Model]]] = {}
    """Columns made by methods, and the other model of which each shows something."""

    def get_queryset(self, request: HttpRequest) -> QuerySet[Any]:
        """Keep a list to the newest rows: to search or sort all would read all."""
        rows: QuerySet[Any] = super().get_queryset(request)
        match = request.resolver_match
        if match is None or not (match.url_name or "").endswith("_changelist"):
            return rows
        if any("\0" in value for values in request.GET.lists() for value in values[1]):
            # PostgreSQL has no such texts. Django's own answer to a bad look-up: the list, with an error.
            raise IncorrectLookupParameters
        newest = self.model._default_manager.order_by("-pk")
        before = request.GET.get("id__lt", "")
        if before.isdecimal() and int(before) <= MAX_ID:
            newest = newest.filter(pk__lt=int(before))
        # Asked by itself, so that the planner knows how few are left.
        for floor in newest.values_list("pk", flat=True)[WINDOW : WINDOW + 1]:
            return rows.filter(pk__gt=floor)
        return rows

    def get_search_fields(self, request: HttpRequest) -> list[str]:
        """Search by username, whatever field the host's user model keeps it in."""
        names = [*self.text_search, *(f"{user}__{username_field()}" for user in self.user_search)]
        return self._visible(request, names)

    def get_list_display(self, request: HttpRequest) -> list[Any]:
        """Show the columns whose models the user may view."""
        return self._visible(request, self.list_display)

    def get_list_filter(self, request: HttpRequest) -> list[Any]:
        """Offer the filters by models that the user may view."""
        return self._visible(request, self.list_filter)

    def get_fields(self, request: HttpRequest, obj: Model | None = None) -> list[Any]:
        """Show the fields whose models the user may view."""
        return self._visible(request, super().get_fields(request, obj))

    def history_view(self, request: HttpRequest, object_id: str, extra_context: dict[str, Any] | None = None) -> Any:
        """Show what was done to a row; nobody sees it where that can't be told from another tenant's row of this id."""
        if admin_log_is_shared():
            raise PermissionDenied
        return super().history_view(request, object_id, extra_context)

    def has_module_permission(self, request: HttpRequest) -> bool:
        """Say whether the app is named among the others."""
        return is_let_in(request) and super().has_module_permission(request)

    def has_view_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        """Say whether the user may look."""
        return is_let_in(request) and super().has_view_permission(request, obj)

    def has_add_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        """Nobody adds rows here."""
        return False

    def has_change_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        """Nobody changes rows here."""
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        """Nobody deletes rows here: connected clients would go on showing them."""
        return False

    def _visible(self, request: HttpRequest, names: Any) -> list[Any]:
        return [name for name in names if all(may_view(request.user, model) for model in self._models_behind(name))]

    def _models_behind(self, name: Any) -> Iterator[type[Model]]:
        """Yield the app's other models to which a column, field, filter or search leads."""
        path = name[0] if isinstance(name, tuple) else name
        if not isinstance(path, str):
            return
        if path in self.reveals:
            yield self.reveals[path]
        model: Any = self.model
        for part in path.split("__"):
            try:
                model = model._meta.get_field(part).related_model
            except FieldDoesNotExist:
                return
            if model is None or model._meta.app_label != self.opts.app_label:
                return
            yield model

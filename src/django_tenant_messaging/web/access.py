"""Who gets a page, and what everybody else gets."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import wraps
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec

from django.contrib.auth.views import redirect_to_login
from django.db import DatabaseError, connections
from django.http import Http404, HttpResponseRedirect
from django.shortcuts import render
from django.urls import reverse
from django.utils.translation import gettext as _
from django.views.decorators.cache import never_cache
from django.views.decorators.csrf import csrf_protect
from django.views.decorators.http import require_http_methods

from ..exceptions import MessagingError, RateLimited, TenantNotReady
from ..permissions import Refusal, why_request_refused
from ..tenancy import TENANT_DATABASE, current_schema, require_ready
from ..tenancy.gate import hindrance_after
from .limits import charge_page
from .not_ready import refuse
from .texts import describe, headline

if TYPE_CHECKING:
    from django.contrib.auth.models import AbstractBaseUser
    from django.http import HttpRequest, HttpResponse

P = ParamSpec("P")
Page = Callable[Concatenate["HttpRequest", P], "HttpResponse"]

ROOM, ROOM_LIST = "tenant_messaging:room", "tenant_messaging:room-list"

STATUSES = {
    "not_found": 404,
    "forbidden": 403,
    "conflict": 409,
    "rate_limited": 429,
    "unavailable": 503,
    "tenant_not_ready": 503,
}


def tenant_page(view: Page[P]) -> Page[P]:
    """Let those in who signed in to this tenant and didn't ask for too much, and answer a domain error by a page that
    says what is wrong.

    A tenant that isn't ready, and a form from another site, are refused as by the middleware, which the host may have
    forgotten.
    """

    @never_cache
    @csrf_protect
    @wraps(view)
    def page(request: HttpRequest, /, *args: P.args, **kwargs: P.kwargs) -> HttpResponse:
        schema_name = current_schema()
        try:
            require_ready(schema_name)
            turned_away = _turned_away(request)
            if turned_away is not None:
                return turned_away
            charge_page(request)
            return view(request, *args, **kwargs)
        except TenantNotReady as error:
            return refuse(request, error.readiness)
        except MessagingError as error:
            answer = error_page(request, title=headline(error), reason=describe(error), status=status_of(error))
            if isinstance(error, RateLimited):
                answer["Retry-After"] = str(math.ceil(error.retry_after))
            return answer
        except DatabaseError as error:
            # In a broken transaction nothing can be asked; the middleware does it afterwards.
            is_broken = connections[TENANT_DATABASE].in_atomic_block
            found = None if is_broken else hindrance_after(error, schema_name)
            if found is None:
                raise
            return refuse(request, found)

    return page


def form_of(page: str) -> Callable[[Page[P]], Page[P]]:
    """Give an address that takes a form alone the name of the page that shows it: who comes there by a GET, as the
    address stays in the browser after an error in the form, is sent on to that page.
    """

    def decorate(view: Page[P]) -> Page[P]:
        @require_http_methods(["GET", "HEAD", "POST"])
        @wraps(view)
        def taken(request: HttpRequest, /, *args: P.args, **kwargs: P.kwargs) -> HttpResponse:
            if request.method == "POST":
                return view(request, *args, **kwargs)
            return HttpResponseRedirect(reverse(page, kwargs=kwargs if page == ROOM else None))

        return taken

    return decorate


def _turned_away(request: HttpRequest) -> HttpResponse | None:
    match why_request_refused(request):
        case None:
            return None
        case Refusal.NO_MESSAGES:
            raise Http404("The shared schema has no messages.")
        case Refusal.NOT_SIGNED_IN:
            return redirect_to_login(_after_login(request))
    reason = _("Your session belongs to another organisation, or you are not a member of this one.")
    return error_page(request, title=_("No access"), reason=reason, status=403)


def actor(request: HttpRequest) -> AbstractBaseUser:
    """Return the user of a request that :func:`tenant_page` let in."""
    user: Any = request.user
    actor: AbstractBaseUser = user
    return actor


def status_of(error: MessagingError) -> int:
    """Return the HTTP status that says the same as the error."""
    return STATUSES.get(error.code, 400)


def error_page(request: HttpRequest, *, title: str, reason: str, status: int) -> HttpResponse:
    """Answer a page that says in words what went wrong."""
    context = {"title": title, "reason": reason}
    return render(request, "django_tenant_messaging/error.html", context, status=status)


def _after_login(request: HttpRequest) -> str:
    """Where to go on; a form that was sent without a session is lost, and its address shows nothing."""
    return request.get_full_path() if request.method == "GET" else reverse("tenant_messaging:room-list")

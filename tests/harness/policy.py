"""The strictest rules that a host may have for its pages: ours need no exception from them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from django.utils.deprecation import MiddlewareMixin

if TYPE_CHECKING:
    from django.http import HttpRequest, HttpResponse

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'; "
    "require-trusted-types-for 'script'; trusted-types 'none'"
)


class StrictPolicy(MiddlewareMixin):
    """Forbids inline scripts and styles, other origins, and text that becomes HTML by script, in our pages."""

    def process_response(self, request: HttpRequest, response: HttpResponse) -> HttpResponse:
        """Add the policy unless there is one, as Django's own does; the browser's complaints fail the tests."""
        if request.path.startswith("/messages/"):
            response.headers.setdefault("Content-Security-Policy", POLICY)
        return response

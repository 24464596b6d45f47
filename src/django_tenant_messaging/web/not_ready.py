"""What a request gets instead of a tenant that isn't ready: a page, a problem document or plain text."""

from __future__ import annotations

import logging
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from django.core.exceptions import DisallowedHost
from django.http import HttpResponse, JsonResponse
from django.http.request import split_domain_port
from django.template.loader import render_to_string
from django.utils import translation
from django.utils.log import log_response
from django.utils.translation import gettext as _

from ..conf import messaging_settings
from ..exceptions import TenantNotReady
from ..signals import tenant_refused
from .details import may_see
from .protection import policy_for, protect
from .texts import advice, headline, safety, state_name, state_text

if TYPE_CHECKING:
    from django.http import HttpRequest

    from ..types import Readiness

logger = logging.getLogger(__name__)

STATUS = 503
TEMPLATE = "django_tenant_messaging/tenant_not_ready.html"
HTML, PROBLEM, JSON, TEXT = "text/html", "application/problem+json", "application/json", "text/plain"
PROBLEM_TYPE = "urn:problem-type:tenant-not-ready"
"""The ``type`` of the problem document (RFC 9457)."""


@dataclass(frozen=True, slots=True)
class Details:
    """What an administrator needs, and strangers perhaps not."""

    schema: str
    domain: str
    state: str
    state_name: str
    reason: str
    missing: tuple[str, ...]
    apps: tuple[str, ...]
    error: str
    remedy: str

    @property
    def remedy_words(self) -> list[str]:
        """The command's words, between which a narrow screen may break it; joined by spaces they are the command."""
        return self.remedy.split(" ")


@dataclass(frozen=True, slots=True)
class Refusal:
    """What is said, in the reader's language; the template's context, with ``language`` and ``is_rtl``.

    ``details`` is ``None`` for those whom ``SHOW_MIGRATION_DETAILS`` shows none.
    """

    title: str
    explanation: str
    safety: str
    advice: str
    retry_after: int
    details: Details | None


def refuse(request: HttpRequest, readiness: Readiness) -> HttpResponse:
    """Answer 503 and why: HTML, a problem document or plain text by ``Accept``. Never raises.

    ``tenant_refused`` is sent, and a warning logged, for each request.
    """
    tenant_refused.send_robust(None, readiness=readiness, face="http")
    with translation.override(translation.get_language_from_request(request)):
        refusal = _refusal(request, readiness)
        response = _answer(preferred_type(request), refusal)
        response["Content-Language"] = _language_of(refusal)
    response["Retry-After"] = str(refusal.retry_after)
    # Without this, Django logs each of these as an error, which it mails to ADMINS; what is wrong is logged already.
    log_response(
        "[%s] Refused: %s",
        readiness.schema_name,
        request.path,
        response=response,
        request=request,
        logger=logger,
        level="warning",
    )
    return response


def preferred_type(request: HttpRequest) -> str:
    """Return which of our media types the client names first; plain text for one that takes anything."""
    named = [
        (accepted.quality, kind)
        for kind in (HTML, PROBLEM, JSON, TEXT)
        if (accepted := request.accepted_type(kind)) is not None and accepted.main_type != "*"
    ]
    return max(named, key=lambda pair: pair[0])[1] if named else TEXT


def _refusal(request: HttpRequest, readiness: Readiness) -> Refusal:
    error = TenantNotReady(readiness)
    shows_details = may_see(request, messaging_settings.SHOW_MIGRATION_DETAILS)
    return Refusal(
        title=headline(error),
        explanation=state_text(readiness.state),
        safety=safety(),
        advice=advice(),
        retry_after=error.retry_after,
        details=_details(request, readiness) if shows_details else None,
    )


def _details(request: HttpRequest, readiness: Readiness) -> Details:
    return Details(
        schema=readiness.schema_name,
        domain=_domain(request),
        state=readiness.state.value,
        state_name=state_name(readiness.state),
        reason=readiness.reason,
        missing=readiness.missing_migrations or (*readiness.missing_relations, *readiness.differences),
        apps=readiness.apps,
        error=readiness.error,
        remedy=readiness.remedy,
    )


def _domain(request: HttpRequest) -> str:
    try:
        return split_domain_port(request.get_host())[0]
    except DisallowedHost:
        return ""


def _answer(media_type: str, refusal: Refusal) -> HttpResponse:
    if media_type == HTML:
        try:
            page = _html(refusal)
        except Exception:
            logger.exception("The template %s can't be rendered.", TEMPLATE)
        else:
            response = HttpResponse(page, status=STATUS)
            protect(response, policy=policy_for(page))
            return response
    response = (
        JsonResponse(_problem(refusal), status=STATUS, content_type=PROBLEM)
        if media_type in {PROBLEM, JSON}
        else HttpResponse(_text(refusal), status=STATUS, content_type=f"{TEXT}; charset=utf-8")
    )
    protect(response)
    return response


def _html(refusal: Refusal) -> str:
    # Without the request: context processors may ask for users and sessions, whose tables may be missing.
    context = {name: getattr(refusal, name) for name in Refusal.__slots__}
    language = _language_of(refusal)
    is_rtl = language != "en" and translation.get_language_bidi()
    return render_to_string(TEMPLATE, {**context, "language": language, "is_rtl": is_rtl})


def _problem(refusal: Refusal) -> dict[str, Any]:
    problem: dict[str, Any] = {
        "type": PROBLEM_TYPE,
        "title": refusal.title,
        "status": STATUS,
        "detail": f"{refusal.explanation} {refusal.advice}",
        "code": TenantNotReady.code,
        "retry_after": refusal.retry_after,
    }
    if refusal.details is not None:
        shown = asdict(refusal.details)
        problem |= {name: shown[name] for name in ("schema", "domain", "state", "reason", "missing", "apps", "remedy")}
    return problem


def _text(refusal: Refusal) -> str:
    lines = [refusal.title, "", refusal.explanation, refusal.safety, refusal.advice]
    details = refusal.details
    if details is not None:
        facts = {
            _("Address"): details.domain,
            _("Schema"): details.schema,
            _("State"): f"{details.state_name} ({details.state})",
            _("Missing or changed"): ", ".join(details.missing),
            _("Apps"): ", ".join(details.apps),
            _("Error"): details.error,
        }
        lines += ["", _("For administrators"), *(f"  {name}: {value}" for name, value in facts.items() if value)]
        lines += ["", _("Run this command to repair it"), f"  {details.remedy}"]
    return "\n".join([*lines, ""])


def _language_of(refusal: Refusal) -> str:
    """Return the language that the words are in: English where there is no translation into the reader's."""
    with translation.override("en"):
        is_english = refusal.safety == safety()
    return "en" if is_english else translation.get_language() or "en"

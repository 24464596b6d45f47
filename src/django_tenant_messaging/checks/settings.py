"""Checks of the ``TENANT_MESSAGING`` setting."""

from __future__ import annotations

from difflib import get_close_matches
from typing import TYPE_CHECKING, Any

from django.conf import settings
from django.core.checks import CheckMessage, Error

from ..conf import Setting, known_settings

if TYPE_CHECKING:
    from collections.abc import Iterator


def check_settings(**_kwargs: Any) -> list[CheckMessage]:
    """Report a setting that is no dict (E001), unknown names (E002) and wrong values (E003)."""
    given = getattr(settings, "TENANT_MESSAGING", {})
    if not isinstance(given, dict):
        return [
            Error(
                f"TENANT_MESSAGING is {_shown(given)}, not a dict.",
                hint='Write TENANT_MESSAGING = {"NAME": value}, or leave it out.',
                id="tenant_messaging.E001",
            )
        ]
    return list(_errors(given))


def _errors(given: dict[Any, Any]) -> Iterator[CheckMessage]:
    known = {setting.name: setting for setting in known_settings()}
    for name, value in given.items():
        if name not in known:
            yield Error(
                f"TENANT_MESSAGING has no setting {name!r}.",
                hint=_suggestion(str(name), list(known)),
                id="tenant_messaging.E002",
            )
        elif not _accepts(known[name], value):
            yield Error(
                f"TENANT_MESSAGING[{name!r}] is {_shown(value)}, which is not {known[name].rule.expected}"
                f"{_complaint(known[name], value)}.",
                hint=f"Its default is {known[name].default!r}.",
                id="tenant_messaging.E003",
            )


def _accepts(setting: Setting[Any], value: Any) -> bool:
    try:
        return setting.rule.accepts(value)
    except Exception:  # noqa: BLE001 - importing a host's module may raise anything
        return False


def _complaint(setting: Setting[Any], value: Any) -> str:
    complaint = setting.rule.complaint
    return "" if complaint is None else f": {complaint(value)}"


def _suggestion(name: str, known: list[str]) -> str:
    alike = get_close_matches(name.upper(), known, n=1)
    return f"Did you mean {alike[0]!r}?" if alike else f"The settings are {', '.join(known)}."


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."

"""What is wrong with the settings that a host gave."""

from __future__ import annotations

from difflib import get_close_matches
from typing import TYPE_CHECKING, Any, NamedTuple

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured

from .settings import Setting, known_settings

if TYPE_CHECKING:
    from collections.abc import Iterator


class Fault(NamedTuple):
    """What is wrong, how to mend it, and the id of the check that tells it."""

    message: str
    remedy: str
    id: str


def faults_of_settings() -> list[Fault]:
    """Return that ``TENANT_MESSAGING`` is no dict (E001), or its unknown names (E002) and wrong values (E003)."""
    given = getattr(settings, "TENANT_MESSAGING", {})
    if not isinstance(given, dict):
        message = f"TENANT_MESSAGING is {_shown(given)}, not a dict."
        remedy = 'Write TENANT_MESSAGING = {"NAME": value}, or leave it out.'
        return [Fault(message, remedy, id="tenant_messaging.E001")]
    return list(_faults_of(given))


def require_valid_settings() -> None:
    """Raise ``ImproperlyConfigured``, naming all that is wrong with the settings, if anything is.

    For the start of a server, before which the system checks may not have run: a wrong value may let in anybody.
    """
    faults = faults_of_settings()
    if faults:
        raise ImproperlyConfigured("\n".join(f"{fault.message} {fault.remedy}" for fault in faults))


def _faults_of(given: dict[Any, Any]) -> Iterator[Fault]:
    known = {setting.name: setting for setting in known_settings()}
    for name, value in given.items():
        if name not in known:
            message = f"TENANT_MESSAGING has no setting {name!r}."
            yield Fault(message, _suggestion(str(name), list(known)), id="tenant_messaging.E002")
        elif not _accepts(known[name], value):
            yield Fault(
                f"TENANT_MESSAGING[{name!r}] is {_shown(value)}, which is not {known[name].rule.expected}"
                f"{_complaint(known[name], value)}.",
                f"Its default is {known[name].default!r}.",
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

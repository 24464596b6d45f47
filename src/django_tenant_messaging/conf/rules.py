"""What the value of a setting has to be."""

from __future__ import annotations

import re
from dataclasses import dataclass
from ipaddress import ip_network
from typing import TYPE_CHECKING, Any

from django.apps import apps
from django.utils.module_loading import import_string

if TYPE_CHECKING:
    from collections.abc import Callable


@dataclass(frozen=True)
class Rule:
    """What a setting's value has to be: ``accepts`` decides, ``expected`` says it in words."""

    expected: str
    accepts: Callable[[Any], bool]
    complaint: Callable[[Any], str] | None = None
    """Says what is wrong with a value that isn't accepted, where there is more to say than what it should be."""


def list_of(expected: str, fault_of: Callable[[Any], str]) -> Rule:
    """Return the rule for lists: ``fault_of`` says what is wrong with an entry, nothing when it is right."""

    def complaint(value: Any) -> str:
        if isinstance(value, str):
            return f"it is a plain string; write [{value!r}]"
        if not isinstance(value, list | tuple):
            return f"it is of the type {type(value).__name__}"
        faults = ((item, fault_of(item)) for item in value)
        return "; ".join(f"{item!r} {fault}" for item, fault in faults if fault)

    return Rule(expected, lambda value: not complaint(value), complaint)


def _whole_number(value: Any, low: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= low


def at_least(low: int) -> Rule:
    """Return the rule for whole numbers from a lowest one on."""
    return Rule(f"a whole number, {low} or more", lambda value: _whole_number(value, low))


def seconds(low: float) -> Rule:
    """Return the rule for durations."""
    return Rule(
        f"a number of seconds, {low:g} or more",
        lambda value: isinstance(value, int | float) and not isinstance(value, bool) and low <= value < float("inf"),
    )


def or_none(rule: Rule) -> Rule:
    """Return the rule that allows ``None`` besides."""
    return Rule(f"{rule.expected}, or None", lambda value: value is None or rule.accepts(value), rule.complaint)


def _rate_limit(value: Any) -> bool:
    return (
        isinstance(value, list | tuple)
        and len(value) == 2
        and all(isinstance(number, int | float) and not isinstance(number, bool) for number in value)
        and 0 < value[0] < float("inf")
        and 1 <= value[1] < float("inf")
    )


RATE_LIMIT = Rule(
    "a pair of numbers (rate above 0, burst of 1 or more), or None", lambda value: value is None or _rate_limit(value)
)
FLAG = Rule("True or False", lambda value: isinstance(value, bool))
STRING = Rule("a string", lambda value: isinstance(value, str))
TEXT = Rule("a non-empty string", lambda value: isinstance(value, str) and value != "")
ORIGIN = re.compile(
    r"(?P<scheme>https?)://(\[[0-9a-f:.]+\]|[a-z0-9]([a-z0-9-]*[a-z0-9])?(\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)*)"
    r"(:(?P<port>[1-9][0-9]{0,4}))?"
)
DEFAULT_PORTS = {"http": "80", "https": "443"}


def _fault_of_origin(value: Any) -> str:
    found = ORIGIN.fullmatch(value) if isinstance(value, str) else None
    if found is None:
        return "is no origin as browsers write it"
    port = found["port"]
    if port is not None and int(port) > 65_535:
        return "has a port above 65535"
    return "names the port that its scheme has anyway" if port == DEFAULT_PORTS[found["scheme"]] else ""


ORIGINS = list_of(
    'a list of origins such as "https://app.example.com" or "https://app.example.com:8443" (in lower case, nothing'
    " after the host and port, and no port that the scheme has anyway)",
    _fault_of_origin,
)


LEAST_PREFIX = {4: 8, 6: 16}
"""Bits that a network of proxies has to share, by the version of its addresses, unless it is a private one. The largest
that anybody is given are larger."""


def _fault_of_network(value: Any) -> str:
    try:
        network = ip_network(value if isinstance(value, str) else "")
    except ValueError:
        return _fault_of_unread_network(value)
    is_too_large = not network.is_private and network.prefixlen < LEAST_PREFIX[network.version]
    return "holds so many addresses that strangers are believed to be proxies" if is_too_large else ""


def _fault_of_unread_network(value: Any) -> str:
    try:
        whole = ip_network(value if isinstance(value, str) else "", strict=False)
    except ValueError:
        return "is no address or network"
    return f"is an address within a network; write '{whole}', or the address alone"


NETWORKS = list_of('a list of addresses and networks such as "10.0.0.0/8"', _fault_of_network)


def _importable(value: Any) -> bool:
    if value is None:
        return True
    try:
        return callable(import_string(value) if isinstance(value, str) else value)
    except ImportError:
        return False


HOOK = Rule("the dotted path of a callable, a callable, or None", _importable)
APP_LABELS = list_of(
    'a list of labels of installed apps, such as "auth"',
    lambda label: "" if isinstance(label, str) and label in apps.app_configs else "is the label of no installed app",
)
FLAG_OR_HOOK = Rule(
    "True, False, a callable or its dotted path",
    lambda value: isinstance(value, bool) or (value is not None and _importable(value)),
)

"""Who is let see details, by a setting."""

from __future__ import annotations

import copy
import logging
from ipaddress import ip_address
from typing import TYPE_CHECKING

from django.conf import settings
from django.utils.functional import SimpleLazyObject
from django.utils.module_loading import import_string

from ..permissions import user_let_in

if TYPE_CHECKING:
    from collections.abc import Callable

    from django.http import HttpRequest

logger = logging.getLogger(__name__)

PROXIES_LEAVE = ("FORWARDED", "VIA", "X_FORWARDED_FOR", "X_FORWARDED_HOST", "X_FORWARDED_PROTO", "X_REAL_IP")
"""Headers by which a request shows that it came through a proxy, whose address is the one that we see."""


def may_see(request: HttpRequest, setting: bool | str | Callable[[HttpRequest], bool]) -> bool:
    """Say whether a setting that is true, false or a hook lets this request see details; a hook that raises doesn't.

    A hook that goes by ``request.user`` finds nobody there who isn't let in to the tenant.
    """
    if isinstance(setting, bool):
        return setting
    try:
        hook = import_string(setting) if isinstance(setting, str) else setting
        return bool(hook(_with_user_let_in(request)))
    except Exception:
        logger.exception("The hook %r, which says who sees details, failed.", setting)
        return False


def comes_from_inside(request: HttpRequest) -> bool:
    """Say whether a request comes from an address of ``INTERNAL_IPS``; while ``DEBUG`` is on, every one does.

    A loopback address, none at all, or one with a proxy's headers may be a stranger's, whom a proxy lets through: it
    doesn't count. Behind a proxy, name a hook that knows by what your own tells where a request comes from.
    """
    if settings.DEBUG:
        return True
    address = request.META.get("REMOTE_ADDR") or ""
    is_passed_on = any(f"HTTP_{name}" in request.META for name in PROXIES_LEAVE)
    return address in settings.INTERNAL_IPS and not is_passed_on and not _is_of_this_machine(address)


def _is_of_this_machine(address: str) -> bool:
    try:
        found = ip_address(address)
    except ValueError:
        # The other end of a Unix socket has none.
        return True
    return (getattr(found, "ipv4_mapped", None) or found).is_loopback


def _with_user_let_in(request: HttpRequest) -> HttpRequest:
    if not hasattr(request, "user"):
        return request
    seen = copy.copy(request)
    # Read only if the hook asks: most go by addresses and headers, and probes come each second.
    seen.user = SimpleLazyObject(lambda: user_let_in(request))  # type: ignore[assignment]
    return seen

"""Checks that the migration gate stands in every request's way, and in the right place."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django.conf import settings
from django.core.checks import CheckMessage, Error, Warning  # noqa: A004 - the names of Django's documentation
from django.utils.module_loading import import_string

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

GATE = "django_tenant_messaging.middleware.TenantMigrationCheckMiddleware"
TENANT = "django_tenants.middleware.main.TenantMainMiddleware"
READERS = frozenset(
    {
        "django.contrib.auth.middleware.AuthenticationMiddleware",
        "django.contrib.auth.middleware.LoginRequiredMiddleware",
        "django.contrib.auth.middleware.RemoteUserMiddleware",
        "django.contrib.messages.middleware.MessageMiddleware",
        "django.contrib.sessions.middleware.SessionMiddleware",
        "django.contrib.sites.middleware.CurrentSiteMiddleware",
    }
)
"""Django's middleware that reads tables on a request's way in, or on its way out whatever was answered."""


def check_middleware(**_kwargs: Any) -> list[CheckMessage]:
    """Report a gate that is missing (E007) or in the wrong place (E008), and an unknown tenant middleware (W010)."""
    names = {path: _names(path) for path in settings.MIDDLEWARE}
    tenant = [path for path in names if TENANT in names[path]]
    found: list[CheckMessage] = []
    if not tenant:
        found.append(
            Warning(
                f"No entry of MIDDLEWARE is {TENANT} or made from it: without a tenant every request is one of the"
                " shared schema.",
                hint=f"Put {TENANT!r} first in MIDDLEWARE. If another middleware of yours chooses the tenant, keep"
                " the migration check below it and silence this warning.",
                id="tenant_messaging.W010",
            )
        )
    if not any(GATE in names[path] for path in names):
        found.append(
            Error(
                f"{GATE} is not in MIDDLEWARE: requests of tenants that aren't migrated would be served.",
                hint=f"Add {GATE!r} to MIDDLEWARE, right after {_last(tenant)}.",
                id="tenant_messaging.E007",
            )
        )
    elif faults := _faults(names):
        found.append(
            Error(
                f"In MIDDLEWARE {GATE} {' and '.join(faults)}.",
                hint=f"Put {GATE!r} right after {_last(tenant)}, and both above what reads sessions, users or sites.",
                id="tenant_messaging.E008",
            )
        )
    return found


def _faults(names: Mapping[str, Collection[str]]) -> list[str]:
    paths = list(names)
    place = next(index for index, path in enumerate(paths) if GATE in names[path])
    late_tenants = [path for path in paths[place:] if TENANT in names[path]]
    early_readers = [path for path in paths[:place] if not READERS.isdisjoint(names[path])]
    faults = []
    if late_tenants:
        faults.append(f"comes before {', '.join(late_tenants)}, so it can't know whose request it is")
    if early_readers:
        faults.append(
            f"comes after {', '.join(early_readers)}, so tables are read before it is known that they are there"
        )
    return faults


def _names(path: str) -> frozenset[str]:
    """Return the dotted paths by which a middleware is known: its own, and those of the classes it is made from."""
    try:
        middleware = import_string(path)
    except Exception:  # noqa: BLE001 - importing a host's module may raise anything; Django will say so
        return frozenset({path})
    ancestors = middleware.__mro__ if isinstance(middleware, type) else ()
    return frozenset({path, *(f"{one.__module__}.{one.__qualname__}" for one in ancestors)})


def _last(tenant: list[str]) -> str:
    return repr(tenant[-1]) if tenant else "the middleware that chooses the tenant"

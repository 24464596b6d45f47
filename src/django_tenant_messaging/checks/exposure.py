"""Checks of what strangers and other tenants' pages could see or do. Django's own ``check --deploy`` has more."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django.conf import settings
from django.core.checks import CheckMessage, Warning  # noqa: A004 - the name of Django's documentation

from ..conf import RATE_LIMIT, known_settings, messaging_settings
from .settings import check_settings

if TYPE_CHECKING:
    from collections.abc import Iterator


def check_exposure(**_kwargs: Any) -> list[CheckMessage]:
    """Report details shown to everybody (W024), pages of all subdomains trusted with forms (W025), host names that
    nobody chose (W026), origins without TLS (W027) and limits that are off (W029). Only for ``check --deploy``.
    """
    found = [*_trusted_pages(), *_any_host()]
    # What is wrong by itself is the other check's subject.
    return found if check_settings() else [*_shown_details(), *found, *_plain_origins(), *_limits_off()]


def _shown_details() -> Iterator[CheckMessage]:
    names = [name for name in ("SHOW_MIGRATION_DETAILS", "SHOW_HEALTH_DETAILS") if _is_for_all(name)]
    if names and not settings.DEBUG:
        yield Warning(
            f"{' and '.join(names)} {'let' if len(names) > 1 else 'lets'} everybody see schema names, missing"
            " migrations and the repairing commands.",
            hint="Remove the setting, so that only the addresses of INTERNAL_IPS see them, or name a hook that knows"
            " your own people.",
            id="tenant_messaging.W024",
        )


def _is_for_all(name: str) -> bool:
    return getattr(messaging_settings, name) is True


def _trusted_pages() -> Iterator[CheckMessage]:
    wide = [origin for origin in settings.CSRF_TRUSTED_ORIGINS if "*" in origin]
    if wide:
        yield Warning(
            f"CSRF_TRUSTED_ORIGINS has {', '.join(map(repr, wide))}: a page of one tenant below that domain may send"
            " forms to every other one, in the name of those who are logged in there.",
            hint="Name the origins one by one. Forms of a tenant's own pages need no entry.",
            id="tenant_messaging.W025",
        )


def _any_host() -> Iterator[CheckMessage]:
    if "*" in settings.ALLOWED_HOSTS:
        yield Warning(
            "ALLOWED_HOSTS has '*': any host name is accepted, and appears in addresses that Django makes, such as"
            " those of mails that reset passwords.",
            hint="Name the domains of your tenants, such as '.example.com'; the ones that they bring need a proxy that"
            " knows them.",
            id="tenant_messaging.W026",
        )


def _plain_origins() -> Iterator[CheckMessage]:
    plain = [origin for origin in messaging_settings.ALLOWED_ORIGINS if origin.startswith("http://")]
    if plain and not settings.DEBUG:
        yield Warning(
            f"ALLOWED_ORIGINS has {', '.join(map(repr, plain))}: somebody on the way of such a page may change it, and"
            " read and write messages by it.",
            hint="Serve these pages by https, and write it so in ALLOWED_ORIGINS.",
            id="tenant_messaging.W027",
        )


def _limits_off() -> Iterator[CheckMessage]:
    limits = (setting.name for setting in known_settings() if setting.rule is RATE_LIMIT)
    off = [name for name in limits if getattr(messaging_settings, name) is None]
    if off and not settings.DEBUG:
        yield Warning(
            f"In TENANT_MESSAGING {', '.join(off)} {'are' if len(off) > 1 else 'is'} None: of that, one client may do"
            " as much as the server can carry.",
            hint="Leave them out for the defaults, or write a pair of numbers, as high as you like: (rate, burst).",
            id="tenant_messaging.W029",
        )

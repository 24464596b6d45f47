"""Check of how Django's database connections are kept."""

from __future__ import annotations

from typing import Any

from django.core.checks import CheckMessage, Warning  # noqa: A004 - the name of Django's documentation
from django.db import connections


def check_connections(**_kwargs: Any) -> list[CheckMessage]:
    """Report persistent connections without a pool, which pile up under ASGI (W015).

    Whether Django's views run under ASGI isn't written anywhere that a check could read: the README's installation
    runs them there.
    """
    return [
        Warning(
            f"DATABASES[{alias!r}] has CONN_MAX_AGE = {database['CONN_MAX_AGE']!r} and no pool: under ASGI each thread"
            " keeps a connection, until PostgreSQL has none left.",
            hint=f'In DATABASES[{alias!r}] set "CONN_MAX_AGE": 0 and "OPTIONS": {{"pool": True}}, and install'
            " psycopg[pool].",
            id="tenant_messaging.W015",
        )
        for alias, database in connections.settings.items()
        if database["CONN_MAX_AGE"] != 0 and not database["OPTIONS"].get("pool")
    ]

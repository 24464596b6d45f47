"""The database settings that a URL stands for."""

from __future__ import annotations

from typing import Any

from psycopg.conninfo import conninfo_to_dict


def database_from_url(url: str, *, pool: dict[str, Any] | None = None) -> dict[str, Any]:
    """Django's settings for the PostgreSQL database at `url`, with a connection pool if one is described."""
    info = conninfo_to_dict(url)
    names = {"dbname": "NAME", "user": "USER", "password": "PASSWORD", "host": "HOST", "port": "PORT"}
    database: dict[str, Any] = {name: str(info.pop(key, None) or "") for key, name in names.items()}
    options = {**info, **({"pool": pool} if pool else {})}
    return {"ENGINE": "django_tenants.postgresql_backend", "OPTIONS": options, **database}

"""Names that must not collide between tenants are built here and nowhere else."""

from __future__ import annotations

import hashlib
from functools import lru_cache

from .database import TENANT_DATABASE


@lru_cache(maxsize=4096)
def tenant_hash(schema_name: str) -> str:
    """Return 16 hexadecimal digits that stand for a schema of this database alias.

    Schema names may hold any character and be 63 bytes long; group names are limited to ``[A-Za-z0-9-_.]`` and 99.
    """
    return hashlib.sha256(f"{TENANT_DATABASE}\0{schema_name}".encode()).hexdigest()[:16]


def group_name(schema_name: str, kind: str, key: object) -> str:
    """Return the channel-layer group of an object of a tenant, such as ``("acme", "room", 7)``."""
    return f"messaging.{tenant_hash(schema_name)}.{kind}.{_safe(str(key))}"


def _safe(key: str) -> str:
    if key.isascii() and key.replace("-", "").isalnum() and len(key) <= 40:
        return key
    return hashlib.sha256(key.encode()).hexdigest()[:40]

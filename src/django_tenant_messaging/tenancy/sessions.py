"""Binding a login to the tenant in which it happened.

User ids and password hashes can be equal in two tenants (cloned templates, imported users), and a session store can
be shared by them (cache, signed cookies, a parent-domain cookie). Then Django's own check passes in the wrong tenant.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

from .context import current_schema
from .database import sessions_are_per_tenant
from .names import tenant_hash

if TYPE_CHECKING:
    from collections.abc import Mapping, MutableMapping

SESSION_KEY = "_tenant_messaging_tenant"


def bind_session(session: MutableMapping[str, Any]) -> None:
    """Remember in a session that its login happened in the current tenant."""
    session[SESSION_KEY] = tenant_hash(current_schema())


def session_hash(session_key: str) -> str:
    """Return what stands for a session where its key, which is a secret, must not appear."""
    return hashlib.sha256(session_key.encode()).hexdigest()[:32]


def session_belongs_here(session: Mapping[str, Any], schema_name: str) -> bool:
    """Say whether the session's login happened in this tenant.

    A session without a binding, from before the app was installed, belongs here only if sessions are rows in the
    tenant's own schema: then it can't have been found anywhere else.
    """
    binding = session.get(SESSION_KEY)
    if binding is None:
        return sessions_are_per_tenant()
    return bool(binding == tenant_hash(schema_name))

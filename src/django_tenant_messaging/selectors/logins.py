"""Whether those who are logged in still are, read for many tenants at once."""

from __future__ import annotations

from dataclasses import dataclass, field
from importlib import import_module
from typing import TYPE_CHECKING, Any, NamedTuple

from django.conf import settings
from django.contrib.auth import get_user_model
from django.db import connections
from django.utils import timezone

from ..tenancy import TENANT_DATABASE, column_of, table_in

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping


class LoginsAsked(NamedTuple):
    """Of whom it is asked in a tenant: keys of sessions, and of users."""

    session_keys: Collection[str]
    user_keys: Collection[Any]


@dataclass(slots=True)
class Logins:
    """The sessions, by key, that haven't ended, and the stored passwords of the active users, by id."""

    sessions: set[str] = field(default_factory=set)
    passwords: dict[str, str] = field(default_factory=dict)


def read_logins(asked: Mapping[str, LoginsAsked]) -> dict[str, Logins]:
    """Return by schema what is left of sessions and users; one statement for all tenants.

    For tenants that have sessions and users as rows of their own schema, users with a column ``is_active``.
    """
    connection = connections[TENANT_DATABASE]
    user: Any = get_user_model()
    session: Any = import_module(settings.SESSION_ENGINE).SessionStore.get_model_class()
    key_type = user._meta.pk.rel_db_type(connection)
    key, password, is_active = (column_of(user, name) for name in ("pk", "password", "is_active"))
    session_key, ends = column_of(session, "session_key"), column_of(session, "expire_date")
    parts = [
        f"SELECT {number}, {session_key}, NULL, NULL FROM {table_in(schema_name, session)}"
        f" WHERE {session_key} = ANY(%s::text[]) AND {ends} > %s"
        f" UNION ALL SELECT {number}, NULL, {key}::text, {password} FROM {table_in(schema_name, user)}"
        f" WHERE {key} = ANY(%s::{key_type}[]) AND {is_active}"
        for number, schema_name in enumerate(asked)
    ]
    now = timezone.now()
    values = [(list(of.session_keys), now, list(of.user_keys)) for of in asked.values()]
    found = {schema_name: Logins() for schema_name in asked}
    in_order = list(found.values())
    with connection.cursor() as cursor:
        cursor.execute(" UNION ALL ".join(parts), [value for of_tenant in values for value in of_tenant])
        for number, session, user_id, stored in cursor.fetchall():
            if user_id is None:
                in_order[number].sessions.add(session)
            else:
                in_order[number].passwords[user_id] = stored
    return found

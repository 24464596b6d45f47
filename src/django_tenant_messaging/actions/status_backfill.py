"""A status for every user of a tenant: those who were there before the app, and those whom no signal announced."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from django.contrib.auth import get_user_model
from django.core.exceptions import ImproperlyConfigured
from django.db import Error, InterfaceError, OperationalError, ProgrammingError, connections, transaction
from psycopg import errors

from ..conf import messaging_settings
from ..exceptions import Conflict, NotFound, TenantNotReady, Unavailable
from ..permissions import belongs_to_tenant
from ..tenancy import TENANT_DATABASE, activated, is_public_schema, require_ready
from ..tenancy.database import has_own_users, serves_messages
from ..tenancy.gate import hindrance_after, kind_of, schema_kinds
from .statuses import insert_statuses

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator

BATCH = 2_000
"""Users of one transaction; it lasts some 50 ms."""
LOCK_TIMEOUT = 400
"""Milliseconds to wait for rows that others hold. PostgreSQL ends a deadlock after a second, by failing one of the two:
before that the command gives way."""
PATIENCE = 30.0
"""Seconds after which a single user whom somebody keeps locked is given up."""
LOCKED = errors.LockNotAvailable | errors.DeadlockDetected | errors.SerializationFailure


@dataclass(frozen=True, slots=True)
class StatusCount:
    """How many users of a tenant had a status, and how many got one now."""

    schema_name: str
    existing: int
    created: int


def tenants_with_statuses(schema_names: Collection[str] = ()) -> list[str]:
    """Return the schemas of the named tenants, or of all, that have this app's tables; one query.

    Raises :class:`~django_tenant_messaging.exceptions.NotFound` for a name that isn't such a tenant's, and
    ``Unavailable`` when the database doesn't answer.
    """
    try:
        kinds = schema_kinds(schema_names or None)
    except (OperationalError, InterfaceError) as error:
        raise _unavailable() from error
    unknown = sorted(set(schema_names) - set(kinds))
    if unknown:
        raise NotFound(f"No tenant has the schema {', '.join(map(repr, unknown))}.", schemas=unknown)
    served = [name for name, kind in kinds.items() if not is_public_schema(name) and serves_messages(kind)]
    without = sorted(set(schema_names) - set(served))
    if without:
        raise NotFound(f"The app isn't installed for {', '.join(map(repr, without))}: no statuses.", schemas=without)
    return served


def create_user_statuses(schema_name: str, *, on_batch: Callable[[int], object] = lambda _users: None) -> StatusCount:
    """Give every user of a tenant who has none a status, inactive ones as well.

    Of users in the shared schema, those get one whom ``TENANT_MEMBERSHIP`` says to belong to the tenant. May be
    repeated, and run beside traffic and beside itself: in batches in the order of the users' keys, each committed by
    itself. ``on_batch`` is called after each with the number of users looked at so far.

    Raises :class:`~django_tenant_messaging.exceptions.TenantNotReady`; ``Conflict`` when somebody keeps a user locked
    for more than 30 seconds; ``Unavailable`` when the database doesn't answer; Django's ``ImproperlyConfigured`` when
    users are shared and ``TENANT_MEMBERSHIP`` isn't set.
    """
    try:
        require_ready(schema_name)
        keeps_users = has_own_users(kind_of(schema_name) or "")
        with activated(schema_name):
            return _fill(schema_name, _everyone if keeps_users else _members, on_batch)
    except ProgrammingError as error:
        found = hindrance_after(error, schema_name)
        if found is None:
            raise
        raise TenantNotReady(found) from error
    except (TenantNotReady, OperationalError, InterfaceError) as error:
        if _database_answers():
            raise
        raise _unavailable() from error


def _fill(
    schema_name: str,
    lacking: Callable[[list[Any], str], tuple[list[Any], int]],
    on_batch: Callable[[int], object],
) -> StatusCount:
    looked_at = strangers = created = 0
    for keys in _batches():
        users, others = lacking(keys, schema_name)
        created += _insert(users)
        strangers += others
        looked_at += len(keys)
        on_batch(looked_at)
    return StatusCount(schema_name, existing=looked_at - strangers - created, created=created)


def _batches() -> Iterator[list[Any]]:
    """Yield the keys of all users, those included that the model's own manager hides."""
    keys = get_user_model()._base_manager.using(TENANT_DATABASE).order_by("pk").values_list("pk", flat=True)
    batch = list(keys[:BATCH])
    while batch:
        yield batch
        batch = list(keys.filter(pk__gt=batch[-1])[:BATCH])


def _everyone(keys: list[Any], _schema_name: str) -> tuple[list[Any], int]:
    return keys, 0


def _members(keys: list[Any], schema_name: str) -> tuple[list[Any], int]:
    """Return the keys of those without a status who belong to the tenant, and how many don't."""
    if messaging_settings.TENANT_MEMBERSHIP is None:
        raise ImproperlyConfigured("Users are shared and TENANT_MEMBERSHIP isn't set: nobody belongs to a tenant.")
    shared = get_user_model()._base_manager.using(TENANT_DATABASE)
    users = list(shared.filter(pk__in=keys, chat_status=None).order_by("pk"))
    members = [user.pk for user in users if belongs_to_tenant(user, schema_name)]
    return members, len(users) - len(members)


def _insert(keys: list[Any]) -> int:
    """Make the statuses that are missing. Whoever holds a row is not waited for with others' rows in hand."""
    begun = time.monotonic()
    while True:
        try:
            return _insert_at_once(keys)
        except OperationalError as error:
            if not isinstance(error.__cause__, LOCKED):
                raise
            if len(keys) == 1 and time.monotonic() - begun > PATIENCE:
                raise Conflict(f"Another transaction keeps the user {keys[0]} locked.", user=str(keys[0])) from error
        if len(keys) > 1:
            size = (len(keys) + 9) // 10
            return sum(_insert(keys[start : start + size]) for start in range(0, len(keys), size))


def _insert_at_once(keys: list[Any]) -> int:
    connection = connections[TENANT_DATABASE]
    is_own = not connection.in_atomic_block
    with transaction.atomic(using=TENANT_DATABASE):
        if is_own:
            # In a transaction of somebody else's it would go on for the rest of that.
            with connection.cursor() as cursor:
                cursor.execute(f"SET LOCAL lock_timeout = {LOCK_TIMEOUT}")
        return insert_statuses(keys)


def _database_answers() -> bool:
    connection = connections[TENANT_DATABASE]
    try:
        connection.ensure_connection()
    except Error:
        return False
    return connection.is_usable()


def _unavailable() -> Unavailable:
    return Unavailable("The database did not answer.")

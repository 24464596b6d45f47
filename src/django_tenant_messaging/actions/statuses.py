"""Online status: every user has one, several sockets count once, a process that dies leaves no ghost."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django.contrib.auth import get_user_model
from django.db import connections, transaction
from django.db.models.functions import Now
from django.utils import timezone

from ..conf import messaging_settings
from ..events import PresenceChanged, emit_on_commit
from ..exceptions import NotFound
from ..models import UserStatus
from ..selectors import quiet_room_ids, user_key_type, user_ref
from ..tenancy import TENANT_DATABASE, SQLName, column_of, current_schema, table_in, table_of

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from django.contrib.auth.models import AbstractBaseUser

TABLE = table_of(UserStatus)
NOW = "extract(epoch FROM clock_timestamp())"
# The entries of "connections" that still count, without that of one process.
OTHERS = (
    "coalesce((SELECT jsonb_object_agg(key, value) FROM jsonb_each(connections)"
    f" WHERE key <> %(process)s AND value::double precision > {NOW}), '{{}}'::jsonb)"
)
ENTRY = f"jsonb_build_object(%(process)s::text, {NOW} + %(ttl)s)"
UNTIL = "clock_timestamp() + make_interval(secs => %(ttl)s)"


def ensure_userstatus_exists(user: AbstractBaseUser) -> UserStatus:
    """Return the user's status in this tenant, making it when there is none; safe when many do so at once.

    One query when it is there. Raises :class:`~django_tenant_messaging.exceptions.NotFound` for someone who isn't
    among the tenant's users.
    """
    statuses = UserStatus.objects.filter(user_id=user.pk)
    status = statuses.first()
    if status is None:
        # Unlike an insert that fails because another was first, this leaves an open transaction usable.
        insert_statuses([user.pk])
        status = statuses.first()
    if status is None:
        raise _no_such_user(user)
    return status


def insert_statuses(user_keys: Collection[Any]) -> int:
    """Make the statuses that these users lack, and return how many; one statement, in the order of their keys.

    Keys that no user has make none.
    """
    statement = _insertion({"is_online": "false", "connections": "'{}'::jsonb"})
    with connections[TENANT_DATABASE].cursor() as cursor:
        cursor.execute(statement, {"users": list(user_keys)})
        number: int = cursor.rowcount
        return number


def store_connections(
    *, opened: Collection[AbstractBaseUser], closed: Collection[AbstractBaseUser], process: str
) -> None:
    """Count a server process's first sockets of some users and forget its last ones of others; five statements.

    Announced when a user was offline before, or when no other process has a socket of theirs. Users who were deleted
    meanwhile are left out.
    """
    comers = {user.pk: user for user in opened}
    leavers = {user.pk: user for user in closed}
    with transaction.atomic(using=TENANT_DATABASE):
        changed: list[tuple[AbstractBaseUser, bool]] = []
        if comers:
            # Locked in one go and in one order: another process may store the same users the other way round.
            insert_statuses(list(comers))
            statuses = UserStatus.objects.filter(user_id__in=[*comers, *leavers])
            was_online = statuses.order_by("pk").select_for_update().values_list("user_id", "is_online")
            changed += [(comers[key], True) for key, is_online in was_online if key in comers and not is_online]
            renew_connections(list(comers), process=process)
        if leavers:
            changed += [(leavers[key], False) for key in _count_out(list(leavers), process=process)]
        _announce(changed)


def _count_out(user_keys: list[Any], *, process: str) -> list[Any]:
    """Store that users aren't connected to a process, and return those who are offline now."""
    with connections[TENANT_DATABASE].cursor() as cursor:
        cursor.execute(
            f"UPDATE {TABLE} SET connections = {OTHERS}, is_online = {OTHERS} <> '{{}}'::jsonb,"
            f" last_seen = clock_timestamp() WHERE id IN (SELECT id FROM {TABLE}"
            # Not by the index of those who are online: there are many, and it may be believed that they are few.
            f" WHERE user_id = ANY(%(users)s::{user_key_type()}[]) AND coalesce(is_online, false)"
            " ORDER BY id FOR UPDATE)"
            " RETURNING user_id, is_online",
            {"process": process, "users": user_keys},
        )
        return [key for key, is_online in cursor.fetchall() if not is_online]


def renew_connections(user_keys: Collection[Any], *, process: str) -> None:
    """Keep a process's connected users online for another ``PRESENCE_TTL`` seconds; one statement for all of them.

    A status that somebody deleted meanwhile is there again, by a second statement.
    """
    values: dict[str, Any] = {"process": process, "ttl": messaging_settings.PRESENCE_TTL, "users": list(user_keys)}
    with connections[TENANT_DATABASE].cursor() as cursor:
        cursor.execute(_renewal(TABLE, "users"), values)
        if cursor.rowcount < len(user_keys):
            lost = {"is_online": "true", "last_seen": "clock_timestamp()", "connections": ENTRY, "online_until": UNTIL}
            cursor.execute(_insertion(lost), values)


def renew_connections_of(users: Mapping[str, Collection[Any]], *, process: str) -> set[str]:
    """Keep a process's connected users online in many tenants, whose keys are given by schema; one statement for all.

    It waits for no row. Returns the schemas of the tenants in which that wasn't all there was to do, as a status is
    locked or lost, or somebody's process stopped renewing: call :func:`renew_connections` and
    :func:`expire_connections` there.
    """
    names = list(users)
    values: dict[str, Any] = {"process": process, "ttl": messaging_settings.PRESENCE_TTL}
    # Their numbers too: psycopg keeps the last 128 texts, so they shouldn't differ with each who comes or goes.
    values |= {f"users_{number}": list(keys) for number, keys in enumerate(users.values())}
    values |= {f"number_{number}": len(keys) for number, keys in enumerate(users.values())}
    tables = [table_in(name, UserStatus) for name in names]
    renewed = ", ".join(
        # Passing over what is locked, tenants in whatever order can't make two processes wait for each other.
        f"renewed_{number} AS ({_renewal(table, f'users_{number}', 'SKIP LOCKED')} RETURNING 1)"
        for number, table in enumerate(tables)
    )
    unfinished = " UNION ALL ".join(
        f"SELECT {number} WHERE (SELECT count(*) FROM renewed_{number}) < %(number_{number})s"
        f" OR EXISTS ({_expired(table)})"
        for number, table in enumerate(tables)
    )
    with connections[TENANT_DATABASE].cursor() as cursor:
        cursor.execute(f"WITH {renewed} {unfinished}", values)
        return {names[number] for (number,) in cursor.fetchall()}


def _renewal(table: SQLName, users: str, locked: str = "") -> str:
    """Return the statement that renews the users of a parameter, and what it does about rows that are locked."""
    return (
        f"UPDATE {table} SET is_online = true, last_seen = clock_timestamp(),"
        f" connections = {OTHERS} || {ENTRY}, online_until = {UNTIL}"
        # Locked in one order: two processes that renew the same users must not wait for each other. And an array of
        # them rather than a join, which takes half as long again to plan.
        f" WHERE id = ANY(ARRAY(SELECT id FROM {table} WHERE user_id = ANY(%({users})s::{user_key_type()}[])"
        f" ORDER BY id FOR UPDATE {locked}))"
    )


def _expired(table: SQLName) -> str:
    return f"SELECT FROM {table} WHERE is_online AND online_until < statement_timestamp()"


def expire_connections() -> None:
    """Take those offline whose processes stopped renewing them; one query when there is nobody."""
    with connections[TENANT_DATABASE].cursor() as cursor:
        cursor.execute(f"SELECT EXISTS ({_expired(TABLE)})")
        if cursor.fetchone() == (False,):
            return
    expired = UserStatus.objects.filter(is_online=True, online_until__lt=Now())
    with transaction.atomic(using=TENANT_DATABASE):
        found = list(expired.select_for_update(skip_locked=True, of=("self",)).select_related("user")[:500])
        if found:
            UserStatus.objects.filter(pk__in=[status.pk for status in found]).update(is_online=False, connections={})
            _announce([(status.user, False) for status in found])


def _announce(changed: Sequence[tuple[AbstractBaseUser, bool]]) -> None:
    """Tell the members of the users' rooms who is online now and who isn't; one query."""
    if not changed:
        return
    rooms = quiet_room_ids([user.pk for user, _is_online in changed])
    schema_name, now = current_schema(), timezone.now()
    emit_on_commit(
        *(
            PresenceChanged(
                schema_name, tuple(rooms.get(user.pk, ())), user_ref(user), is_online, None if is_online else now
            )
            for user, is_online in changed
        )
    )


def _insertion(values: Mapping[str, str]) -> str:
    """Return the statement that makes statuses, with these SQL values, of those among ``users`` who have none."""
    user = get_user_model()
    key = f"u.{column_of(user, 'pk')}"
    return (
        f"INSERT INTO {TABLE} (user_id, {', '.join(values)})"
        f" SELECT {key}, {', '.join(values.values())} FROM {table_of(user)} u"
        f" WHERE {key} = ANY(%(users)s::{user_key_type()}[])"
        f" AND NOT EXISTS (SELECT FROM {TABLE} s WHERE s.user_id = {key})"
        # Locked against deletion, which would fail the foreign key at the commit.
        f" ORDER BY {key} FOR KEY SHARE OF u ON CONFLICT (user_id) DO NOTHING"
    )


def _no_such_user(user: AbstractBaseUser) -> NotFound:
    return NotFound("There is no such user.", user=str(user.pk))

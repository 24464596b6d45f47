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
from ..selectors import active_room_ids, user_ref
from ..tenancy import TENANT_DATABASE, current_schema

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from django.contrib.auth.models import AbstractBaseUser

TABLE = UserStatus._meta.db_table
NOW = "extract(epoch FROM clock_timestamp())"
# The entries of "connections" that still count, without that of one process.
OTHERS = (
    "coalesce((SELECT jsonb_object_agg(key, value) FROM jsonb_each(connections)"
    f" WHERE key <> %(process)s AND value::double precision > {NOW}), '{{}}'::jsonb)"
)


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


def connection_opened(user: AbstractBaseUser, *, process: str) -> None:
    """Count a server process's first socket of a user. Announced when the user was offline before.

    Raises :class:`~django_tenant_messaging.exceptions.NotFound` for a user who was deleted meanwhile.
    """
    ensure_userstatus_exists(user)
    with transaction.atomic(using=TENANT_DATABASE):
        status = UserStatus.objects.select_for_update().filter(user_id=user.pk).first()
        if status is None:
            raise _no_such_user(user)
        renew_connections([user.pk], process=process)
        if not status.is_online:
            _announce(user, is_online=True)


def connection_closed(user: AbstractBaseUser, *, process: str) -> None:
    """Forget a server process's last socket of a user. Announced when no other process has one."""
    with transaction.atomic(using=TENANT_DATABASE), connections[TENANT_DATABASE].cursor() as cursor:
        cursor.execute(
            f"UPDATE {TABLE} SET connections = {OTHERS}, is_online = {OTHERS} <> '{{}}'::jsonb,"
            " last_seen = clock_timestamp() WHERE user_id = %(user)s AND is_online RETURNING is_online",
            {"process": process, "user": user.pk},
        )
        row = cursor.fetchone()
        if row is not None and not row[0]:
            _announce(user, is_online=False)


def renew_connections(user_keys: Collection[Any], *, process: str) -> None:
    """Keep a process's connected users online for another ``PRESENCE_TTL`` seconds; one statement for all of them.

    A status that somebody deleted meanwhile is there again.
    """
    entry = f"jsonb_build_object(%(process)s::text, {NOW} + %(ttl)s)"
    until = "clock_timestamp() + make_interval(secs => %(ttl)s)"
    lost = {"is_online": "true", "last_seen": "clock_timestamp()", "connections": entry, "online_until": until}
    with connections[TENANT_DATABASE].cursor() as cursor:
        cursor.execute(
            f"WITH lost AS ({_insertion(lost)})"
            f" UPDATE {TABLE} SET is_online = true, last_seen = clock_timestamp(),"
            f" connections = {OTHERS} || {entry}, online_until = {until}"
            # Locked in one order: two processes that renew the same users must not wait for each other.
            f" WHERE id IN (SELECT id FROM {TABLE} WHERE user_id = ANY(%(users)s::{_key_type()}[])"
            " ORDER BY id FOR UPDATE)",
            {"process": process, "ttl": messaging_settings.PRESENCE_TTL, "users": list(user_keys)},
        )


def expire_connections() -> None:
    """Take those offline whose processes stopped renewing them; two queries when there is nobody."""
    expired = UserStatus.objects.filter(is_online=True, online_until__lt=Now())
    with transaction.atomic(using=TENANT_DATABASE):
        for status in expired.select_for_update(skip_locked=True, of=("self",)).select_related("user")[:500]:
            UserStatus.objects.filter(pk=status.pk).update(is_online=False, connections={})
            _announce(status.user, is_online=False)


def _announce(user: AbstractBaseUser, *, is_online: bool) -> None:
    emit_on_commit(
        PresenceChanged(
            current_schema(),
            tuple(active_room_ids(user)),
            user_ref(user),
            is_online,
            None if is_online else timezone.now(),
        )
    )


def _insertion(values: Mapping[str, str]) -> str:
    """Return the statement that makes statuses, with these SQL values, of those among ``users`` who have none."""
    quote = connections[TENANT_DATABASE].ops.quote_name
    options: Any = get_user_model()._meta
    key = f"u.{quote(options.pk.column)}"
    return (
        f"INSERT INTO {TABLE} (user_id, {', '.join(values)})"
        f" SELECT {key}, {', '.join(values.values())} FROM {quote(options.db_table)} u"
        f" WHERE {key} = ANY(%(users)s::{_key_type()}[])"
        f" AND NOT EXISTS (SELECT FROM {TABLE} s WHERE s.user_id = {key})"
        # Locked against deletion, which would fail the foreign key at the commit.
        f" ORDER BY {key} FOR KEY SHARE OF u ON CONFLICT (user_id) DO NOTHING"
    )


def _key_type() -> str:
    key: Any = get_user_model()._meta.pk
    name: str = key.rel_db_type(connections[TENANT_DATABASE])
    return name


def _no_such_user(user: AbstractBaseUser) -> NotFound:
    return NotFound("There is no such user.", user=str(user.pk))

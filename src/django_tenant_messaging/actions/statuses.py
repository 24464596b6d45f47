"""Online status: several sockets count once, a process that dies leaves no ghost."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django.contrib.auth import get_user_model
from django.db import connections, transaction
from django.db.models.functions import Now
from django.utils import timezone

from ..conf import messaging_settings
from ..events import PresenceChanged, emit_on_commit
from ..models import UserStatus
from ..selectors import active_room_ids, user_ref
from ..tenancy import TENANT_DATABASE, current_schema

if TYPE_CHECKING:
    from collections.abc import Collection

    from django.contrib.auth.models import AbstractBaseUser

TABLE = UserStatus._meta.db_table
NOW = "extract(epoch FROM clock_timestamp())"
# The entries of "connections" that still count, without that of one process.
OTHERS = (
    "coalesce((SELECT jsonb_object_agg(key, value) FROM jsonb_each(connections)"
    f" WHERE key <> %(process)s AND value::double precision > {NOW}), '{{}}'::jsonb)"
)


def ensure_userstatus_exists(user: AbstractBaseUser) -> UserStatus:
    """Return the user's status in this tenant, making it when there is none; safe when many do so at once."""
    return UserStatus.objects.get_or_create(user_id=user.pk)[0]


def connection_opened(user: AbstractBaseUser, *, process: str) -> None:
    """Count a server process's first socket of a user. Announced when the user was offline before."""
    ensure_userstatus_exists(user)
    with transaction.atomic(using=TENANT_DATABASE):
        was_online = UserStatus.objects.select_for_update().get(user_id=user.pk).is_online
        renew_connections([user.pk], process=process)
        if not was_online:
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
    """Keep a process's connected users online for another ``PRESENCE_TTL`` seconds; one statement for all of them."""
    key_type = get_user_model()._meta.pk.rel_db_type(connections[TENANT_DATABASE])
    with connections[TENANT_DATABASE].cursor() as cursor:
        cursor.execute(
            f"UPDATE {TABLE} SET is_online = true, last_seen = clock_timestamp(),"
            f" connections = {OTHERS} || jsonb_build_object(%(process)s::text, {NOW} + %(ttl)s),"
            " online_until = clock_timestamp() + make_interval(secs => %(ttl)s)"
            # Locked in one order: two processes that renew the same users must not wait for each other.
            f" WHERE id IN (SELECT id FROM {TABLE} WHERE user_id = ANY(%(users)s::{key_type}[])"
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

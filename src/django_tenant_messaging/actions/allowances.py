"""What a user may do for a day, counted in the database: exact over all processes, and after a restart.

Each use is one row that is locked until the transaction ends. What is rolled back was never used.
"""

from __future__ import annotations

import math
from contextlib import contextmanager
from contextvars import ContextVar
from functools import lru_cache
from typing import TYPE_CHECKING

from django.contrib.auth import get_user_model
from django.db import connections, transaction

from ..conf import messaging_settings
from ..exceptions import Invalid, NotFound, RateLimited
from ..limits import Limit
from ..models import DailyAllowance
from ..selectors import find_users
from ..tenancy import TENANT_DATABASE, column_of, table_of

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from django.contrib.auth.models import AbstractBaseUser

DAY = 86_400.0
Kind = DailyAllowance.Kind

_is_unlimited = ContextVar("is_unlimited", default=False)


@contextmanager
def unlimited() -> Iterator[None]:
    """Let the actions in the body use nobody's daily allowance: for imports and for what the site does by itself.

    ::

        with unlimited():
            create_room(bot, name="Project 7", members=team)
    """
    token = _is_unlimited.set(True)
    try:
        yield
    finally:
        _is_unlimited.reset(token)


def look_up_users(actor: AbstractBaseUser, *, usernames: Collection[str]) -> list[AbstractBaseUser]:
    """Return the tenant's users with these usernames for somebody who typed them; each name is a use of theirs.

    Raises ``RateLimited`` past ``DAILY_LIMIT_LOOKUPS``, ``Invalid`` for more names than that grants at once, and
    ``NotFound`` as :func:`~django_tenant_messaging.selectors.find_users` does.
    """
    with transaction.atomic(using=TENANT_DATABASE):
        use_allowance(actor, Kind.LOOKUPS, len(set(usernames)))
    return find_users(usernames=usernames)


def use_allowance(actor: AbstractBaseUser, kind: Kind, number: int) -> None:
    """Take so many uses from an allowance of a user, in the open transaction.

    Raises :class:`~django_tenant_messaging.exceptions.RateLimited` when fewer are left, ``Invalid`` for more than could
    ever be left, ``NotFound`` when the user was deleted.
    """
    limit = _limit_of(kind)
    if limit is None or number == 0 or _is_unlimited.get():
        return
    if number > limit.burst:
        field = "usernames" if kind is Kind.LOOKUPS else "users"
        raise Invalid.field(field, f"at most {limit.burst:g} at once, not {number}")
    seconds = number / limit.rate
    values = {
        "user": actor.pk,
        "kind": str(kind),
        "seconds": seconds,
        "before": limit.burst / limit.rate - seconds,
    }
    with connections[TENANT_DATABASE].cursor() as cursor:
        cursor.execute(_statement(), values)
        if cursor.fetchone() is None:
            cursor.execute(_waiting(), values)
            row = cursor.fetchone()
            if row is None:
                raise NotFound("There is no such user.", user=str(actor.pk))
            (wait,) = row
            raise RateLimited(str(kind), *limit, retry_after=max(1, math.ceil(wait)))


def _limit_of(kind: Kind) -> Limit | None:
    given = {
        Kind.ROOMS: messaging_settings.DAILY_LIMIT_ROOMS,
        Kind.MEMBERS: messaging_settings.DAILY_LIMIT_MEMBERS,
        Kind.LOOKUPS: messaging_settings.DAILY_LIMIT_LOOKUPS,
    }[kind]
    return None if given is None else Limit(given[0] / DAY, given[1])


@lru_cache(maxsize=1)
def _statement() -> str:
    # The user comes first, as for whoever deletes the user.
    user = get_user_model()
    key = column_of(user, "pk")
    return f"""
WITH person AS MATERIALIZED (
    SELECT {key} AS id FROM {table_of(user)} WHERE {key} = %(user)s FOR KEY SHARE
)
INSERT INTO {table_of(DailyAllowance)} AS used (user_id, kind, full_at)
SELECT id, %(kind)s, clock_timestamp() + make_interval(secs => %(seconds)s) FROM person
ON CONFLICT (user_id, kind) DO UPDATE
SET full_at = greatest(used.full_at, clock_timestamp()) + make_interval(secs => %(seconds)s)
WHERE used.full_at <= clock_timestamp() + make_interval(secs => %(before)s)
RETURNING full_at
"""


@lru_cache(maxsize=1)
def _waiting() -> str:
    return f"""
SELECT extract(epoch FROM full_at - clock_timestamp())::float8 - %(before)s FROM {table_of(DailyAllowance)}
WHERE user_id = %(user)s AND kind = %(kind)s
"""

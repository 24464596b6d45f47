from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

from django.db import connections

from ..models import Notification
from ..models.ids import MAX_ID, may_be_id
from ..tenancy import TENANT_DATABASE, table_of

if TYPE_CHECKING:
    from collections.abc import Collection

    from django.contrib.auth.models import AbstractBaseUser

BATCH = 1_000
"""Notifications that are marked in one transaction; it lasts some 10 ms."""


def mark_notifications_read(actor: AbstractBaseUser, *, notification_ids: Collection[int] | None = None) -> int:
    """Mark the actor's notifications as read, all or those named, and return how many were unread.

    A query for each 1,000, committed by itself; those that come meanwhile stay unread. Ids of others' notifications
    have no effect.
    """
    if notification_ids is None:
        return _mark_all(actor)
    ids = sorted({key for key in notification_ids if may_be_id(key, "notification_ids")})
    return sum(_mark(actor, ids[first : first + BATCH]) for first in range(0, len(ids), BATCH))


def _mark(actor: AbstractBaseUser, ids: list[int]) -> int:
    with connections[TENANT_DATABASE].cursor() as cursor:
        cursor.execute(_statement_for_named(), {"user": actor.pk, "ids": ids})
        number: int = cursor.rowcount
        return number


def _mark_all(actor: AbstractBaseUser) -> int:
    number: int = 0
    before = MAX_ID
    while True:
        with connections[TENANT_DATABASE].cursor() as cursor:
            # The newest first: what comes meanwhile is newer still.
            cursor.execute(_statement(), {"user": actor.pk, "before": before, "batch": BATCH})
            found, marked, before = cursor.fetchone()
        number += marked
        if found < BATCH:
            return number


@lru_cache(maxsize=1)
def _statement_for_named() -> str:
    notification = table_of(Notification)
    # Found by their ids alone: by an index of the user's, the planner may read all that the user was ever told.
    return f"""
UPDATE {notification} SET is_read = true
WHERE id = ANY(ARRAY(
    SELECT id FROM (SELECT id, user_id FROM {notification} WHERE id = ANY(%(ids)s::bigint[]) OFFSET 0) named
    WHERE user_id = %(user)s
)) AND NOT coalesce(is_read, false)
"""


@lru_cache(maxsize=1)
def _statement() -> str:
    notification = table_of(Notification)
    # A range of one, ordered by the user too: else the planner may look for them among everybody's newest.
    # The second look at "is_read" is for what was marked since the first. It must not use the index of the unread ones.
    return f"""
WITH found AS MATERIALIZED (
    SELECT id FROM {notification}
    WHERE user_id BETWEEN %(user)s AND %(user)s AND NOT is_read AND id < %(before)s
    ORDER BY user_id, id DESC LIMIT %(batch)s
), marked AS (
    UPDATE {notification} SET is_read = true
    WHERE id = ANY(ARRAY(SELECT id FROM found)) AND NOT coalesce(is_read, false)
    RETURNING 1
)
SELECT (SELECT count(*) FROM found), (SELECT count(*) FROM marked), (SELECT min(id) FROM found)
"""

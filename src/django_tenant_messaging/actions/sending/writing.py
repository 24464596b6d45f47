"""Writing messages: one that comes alone by the short statement, several by the one that shares a commit."""

from __future__ import annotations

import json
from contextlib import nullcontext, suppress
from typing import TYPE_CHECKING, Any

from django.db import DataError, IntegrityError, OperationalError, connections, transaction

from ...tenancy import TENANT_DATABASE, plan_mark, preparing_cursor
from . import batch, single
from .rows import Outcome

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from contextlib import AbstractContextManager

    from .rows import LockedRows, Row

ATTEMPTS = 2
PREPARED_FROM = 8
"""Messages from which on the statement for several is prepared: a tenant that has so many at once will soon have them
again."""
DEADLOCK = "40P01"
"""What PostgreSQL calls it."""


def write_messages(rows: Sequence[Row], *, locked: LockedRows) -> list[Outcome | Exception]:
    """Write messages with their mentions and notifications, or find out why not; the outcomes are in their order.

    No two may have the same sender and client id. When the database refuses the statement, each message is tried by
    itself, and only those that it refuses alone have the database's error as their outcome.
    """
    try:
        return list(_execute(rows, locked))
    except (IntegrityError, DataError):
        pass
    except OperationalError as error:
        if not _is_deadlock(error):
            raise
    return list(_write_one_by_one(rows, locked))


def _write_one_by_one(rows: Sequence[Row], locked: LockedRows) -> Iterator[Outcome | Exception]:
    passed_over: dict[tuple[int, Any], Outcome] = {}
    for row in rows:
        place = row.room_id, row.sender
        # Nobody's message overtakes an earlier one of theirs in the same room.
        outcome = passed_over[place] if place in passed_over else _write_alone(row, locked)
        if isinstance(outcome, Outcome) and outcome.is_busy:
            passed_over[place] = outcome
        yield outcome


def _write_alone(row: Row, locked: LockedRows) -> Outcome | Exception:
    for _ in range(ATTEMPTS - 1):
        # Whoever was first with the client id is found the next time.
        with suppress(IntegrityError):
            return _execute([row], locked)[0]
    try:
        return _execute([row], locked)[0]
    except (IntegrityError, DataError) as error:
        return error


def _is_deadlock(error: OperationalError) -> bool:
    """Say whether two statements waited for each other: at the keys of two client ids, each used in both."""
    return getattr(error.__cause__, "sqlstate", None) == DEADLOCK


def _execute(rows: Sequence[Row], locked: LockedRows) -> list[Outcome]:
    with _scope():
        return [single.execute(rows[0], locked)] if len(rows) == 1 else _execute_several(rows, locked)


def _scope() -> AbstractContextManager[Any]:
    """In the host's transaction a failed statement must not take the rest along."""
    is_open = connections[TENANT_DATABASE].in_atomic_block
    return transaction.atomic(using=TENANT_DATABASE) if is_open else nullcontext()


def _execute_several(rows: Sequence[Row], locked: LockedRows) -> list[Outcome]:
    mentions = [(number, key) for number, row in enumerate(rows, 1) for key in row.mentioned]
    is_busy = len(rows) >= PREPARED_FROM
    statement = batch.statement(locked)
    if is_busy:
        statement += plan_mark(len(rows))
    with preparing_cursor() if is_busy else connections[TENANT_DATABASE].cursor() as cursor:
        cursor.execute(
            statement,
            {
                "rooms": [row.room_id for row in rows],
                "senders": [row.sender for row in rows],
                "client_ids": [row.client_id for row in rows],
                "contents": [row.content for row in rows],
                "replies": [row.reply_to for row in rows],
                "direct_texts": [row.direct_text for row in rows],
                "mention_texts": [row.mention_text for row in rows],
                "mention_numbers": [number for number, _key in mentions],
                "mention_users": [key for _number, key in mentions],
            },
        )
        return [_outcome(row) for row in cursor.fetchall()]


def _outcome(row: Sequence[Any]) -> Outcome:
    return Outcome._make([*row[:-1], [tuple(pair) for pair in json.loads(row[-1])]])

"""Number each room's timeline by a sequence of PostgreSQL instead of a counter whose row is locked until the commit."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django.db import connection

from django_tenant_messaging.actions.sending import batch, single
from django_tenant_messaging.actions.sending import writing as sending
from django_tenant_messaging.models.rooms import RoomCounterManager
from django_tenant_messaging.tenancy import current_schema
from tests.chaos.mutants.patching import replace, rewritten

if TYPE_CHECKING:
    from collections.abc import Sequence

COUNTER = "django_tenant_messaging_roomcounter"
_made: set[tuple[str, int]] = set()


def apply() -> None:
    """Take numbers from sequences; the counters follow after the commit, for those who read heads."""
    batch_statement, single_statement = batch.statement, single._statement

    def mutated_batch(locked: Any) -> str:
        return rewritten(
            batch_statement(locked),
            (
                r"ORDER BY room_id FOR UPDATE OF counter \S* ?\S* ?FOR KEY SHARE OF room[^)]*",
                "ORDER BY room_id\n",
            ),
            (r"UPDATE \S+ counter\s+SET last_seq.*?AS last_seq\n", "SELECT room_id, 0 AS last_seq FROM free\n"),
            (
                r"last_seq \+ number, last_seq \+ number,",
                "nextval('chaos_room_' || able.room_id), currval('chaos_room_' || able.room_id),",
            ),
        )

    def mutated_single(shape: Any) -> str:
        return rewritten(
            single_statement(shape),
            (r"FOR UPDATE OF counter \S* ?\S* ?FOR KEY SHARE OF room[^)]*", ""),
            (r"UPDATE \S+ SET last_seq.*?RETURNING last_seq AS seq", "SELECT 1 FROM free"),
            (r"seq, seq,", "nextval('chaos_room_' || %(room)s::bigint), currval('chaos_room_' || %(room)s::bigint),"),
        )

    replace(batch, "statement", mutated_batch)
    replace(single, "_statement", mutated_single)
    execute = sending._execute

    def mutated_execute(rows: Sequence[Any], locked: Any) -> Any:
        for row in rows:
            _make_sequence(row.room_id)
        outcomes = execute(rows, locked)
        for row, outcome in zip(rows, outcomes, strict=True):
            if outcome.seq is not None:
                _raise_counter(row.room_id, outcome.seq)
        return outcomes

    replace(sending, "_execute", mutated_execute)

    def advance(_manager: RoomCounterManager, room_id: int) -> int:
        _make_sequence(room_id)
        with connection.cursor() as cursor:
            cursor.execute("SELECT nextval('chaos_room_' || %s::text)", [room_id])
            seq: int = cursor.fetchone()[0]
        _raise_counter(room_id, seq)
        return seq

    replace(RoomCounterManager, "advance", advance)


def _make_sequence(room_id: int) -> None:
    key = current_schema(), room_id
    if key not in _made:
        with connection.cursor() as cursor:
            cursor.execute(f"CREATE SEQUENCE IF NOT EXISTS chaos_room_{room_id}")
        _made.add(key)


def _raise_counter(room_id: int, seq: int) -> None:
    with connection.cursor() as cursor:
        cursor.execute(f"UPDATE {COUNTER} SET last_seq = greatest(last_seq, %s) WHERE room_id = %s", [seq, room_id])

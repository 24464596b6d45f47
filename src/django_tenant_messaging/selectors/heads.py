"""Where the rooms of many tenants are, read so that a tenant in which nothing happens costs next to nothing."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from django.contrib.auth import get_user_model
from django.db import connections

from ..models import Membership, RoomCounter
from ..tenancy import TENANT_DATABASE, as_sent, table_in

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

RECENT_JOIN_SECONDS = 60
RECENTLY = f"joined_at > statement_timestamp() - interval '{RECENT_JOIN_SECONDS} s'"


@dataclass(slots=True)
class Heads:
    """The heads of rooms, and whether anybody joined any room of the tenant within the last minute."""

    seqs: dict[int, int] = field(default_factory=dict)
    has_joins: bool = False


def read_heads(rooms: Mapping[str, Collection[int]], *, kept_as: str) -> dict[str, Heads]:
    """Return by schema the heads of rooms; one statement for all tenants together, and one that asks for its plan.

    The connection keeps the statement's plan, some 25 KiB for each tenant, under the name ``kept_as``: planning takes
    ten times as long as executing. It is planned again when the same name comes with other tenants.
    """
    heads = {schema_name: Heads() for schema_name in rooms}
    names = list(heads)
    # Nothing but numbers and brackets: it needs no quoting, and EXECUTE takes no parameters from outside.
    arrays = ",".join(f'"{{{",".join(map(str, room_ids))}}}"' for room_ids in rooms.values())
    with connections[TENANT_DATABASE].cursor() as cursor:
        _keep(cursor, kept_as, _heads_of(names))
        cursor.execute(f"EXECUTE {kept_as}('{{{arrays}}}')")
        for number, room_id, seq in cursor.fetchall():
            of_tenant = heads[names[number - 1]]
            if room_id is None:
                of_tenant.has_joins = True
            else:
                of_tenant.seqs[room_id] = seq
    return heads


def read_joins(users: Mapping[str, Collection[Any]]) -> dict[str, set[tuple[str, int]]]:
    """Return by schema which of some users (by id) joined which room within the last minute; one statement."""
    connection = connections[TENANT_DATABASE]
    key_type = get_user_model()._meta.pk.rel_db_type(connection)
    parts = [
        f"SELECT {number}, user_id::text, room_id FROM {table_in(schema_name, Membership)}"
        f" WHERE {RECENTLY} AND user_id = ANY(%s::{key_type}[]) AND left_seq IS NULL"
        for number, schema_name in enumerate(users)
    ]
    found: defaultdict[int, set[tuple[str, int]]] = defaultdict(set)
    with connection.cursor() as cursor:
        cursor.execute(" UNION ALL ".join(parts), [list(keys) for keys in users.values()])
        for number, user_id, room_id in cursor.fetchall():
            found[number].add((user_id, room_id))
    return {schema_name: found[number] for number, schema_name in enumerate(users)}


def _heads_of(schema_names: Collection[str]) -> str:
    # One row of those who joined of late says enough, and needs no user's id. The last is where the index ends; for any
    # the planner may look at all.
    return " UNION ALL ".join(
        f"SELECT {number}, room_id, last_seq FROM {table_in(schema_name, RoomCounter)}"
        f" WHERE room_id = ANY($1[{number}]::bigint[])"
        f" UNION ALL (SELECT {number}, NULL, NULL FROM {table_in(schema_name, Membership)}"
        f" WHERE {RECENTLY} ORDER BY joined_at DESC LIMIT 1)"
        for number, schema_name in enumerate(schema_names, 1)
    )


def _keep(cursor: Any, name: str, text: str) -> None:
    """Have the connection know a statement by a name, whatever it knew by it before.

    The database is asked each time: psycopg makes it forget all that was prepared, after a rollback for example.
    """
    definition = as_sent(f"PREPARE {name} (text[]) AS {text}")
    cursor.execute("SELECT statement FROM pg_prepared_statements WHERE name = %s", [name])
    known = cursor.fetchone()
    if known == (definition,):
        return
    if known is not None:
        cursor.execute(f"DEALLOCATE {name}")
    cursor.execute(definition)

"""Looking at schemas, many together: what each of them is, so that one that can't be read costs the others nothing."""

from __future__ import annotations

import logging
from collections import defaultdict
from itertools import islice
from typing import TYPE_CHECKING

from django.db import DatabaseError, ProgrammingError, connections
from psycopg import errors

from ...exceptions import Unavailable
from ...types import Readiness, SchemaState
from ..context import is_public_schema
from ..database import TENANT_DATABASE
from .failures import first_line, is_away
from .reading import Seen, held, read, recording
from .requirements import APP_LABEL, requirements_of
from .schemas import unusable_name

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from .requirements import Requirements

logger = logging.getLogger(__name__)

BATCH = 200
"""Schemas that one statement reads: it holds a lock on two relations of each, of the 6,400 that PostgreSQL has by
default (``max_locks_per_transaction`` x ``max_connections``)."""


def inspect_schema(schema_name: str, kind: str) -> Readiness:
    """Return what one schema is; one statement when its migrations are recorded at all.

    Raises :class:`~django_tenant_messaging.exceptions.Unavailable` when the database doesn't answer.
    """
    if reason := unusable_name(schema_name):
        return _refused(schema_name, reason)
    try:
        requirements = requirements_of(kind)
    except LookupError as error:
        return _unknowable(schema_name, error)
    try:
        (seen,) = read([schema_name], requirements)
    except ProgrammingError:
        # No table of migrations, or not even the schema.
        (readiness,) = inspect_schemas({schema_name: kind})
        return readiness
    except DatabaseError as error:
        return _failure(schema_name, error)
    return _judge(seen, requirements)


def inspect_schemas(kinds: Mapping[str, str]) -> Iterator[Readiness]:
    """Yield what each schema is, in the given order; ``kinds`` maps their names to their tenant types.

    A schema that can't be read costs the others nothing. Raises
    :class:`~django_tenant_messaging.exceptions.Unavailable` when the database doesn't answer at all.
    """
    names = iter(kinds)
    while batch := list(islice(names, BATCH)):
        found = {name: _refused(name, reason) for name in batch if (reason := unusable_name(name))}
        found |= _inspect_batch({name: kinds[name] for name in batch if name not in found})
        yield from (found[name] for name in batch)


def _inspect_batch(kinds: Mapping[str, str]) -> dict[str, Readiness]:
    try:
        has_record = recording(list(kinds))
    except DatabaseError as error:
        raise Unavailable(reason=f"The schemas can't be listed: {first_line(error)}") from error
    by_kind: defaultdict[str, list[str]] = defaultdict(list)
    for name, kind in kinds.items():
        by_kind[kind].append(name)
    found: dict[str, Readiness] = {}
    for kind, names in by_kind.items():
        found |= _inspect_kind(kind, names, has_record)
    return found


def _inspect_kind(kind: str, names: list[str], has_record: Mapping[str, bool]) -> dict[str, Readiness]:
    try:
        requirements = requirements_of(kind)
    except LookupError as error:
        return {name: _unknowable(name, error) for name in names}
    found = {
        name: _judge(Seen(name), requirements)
        if name in has_record
        else Readiness(name, SchemaState.MISSING, is_shared=is_public_schema(name))
        for name in names
        if not has_record.get(name)
    }
    return found | _inspect_readable([name for name in names if has_record.get(name)], requirements)


def _inspect_readable(names: list[str], requirements: Requirements) -> dict[str, Readiness]:
    """Read schemas together; when that fails, in parts, so that the one at fault fails alone."""
    if not names:
        return {}
    try:
        seen = {one.schema_name: one for one in read(names, requirements)}
    except DatabaseError as error:
        found = _gone(names) if isinstance(error, ProgrammingError) else {}
        locked = held(names) if isinstance(error.__cause__, errors.LockNotAvailable) else set[str]()
        found |= {name: _failure(name, error) for name in names if name in locked or (len(names) == 1 and not found)}
        rest = [name for name in names if name not in found]
        # Without those that are gone, or locked, which would cost the full patience each, it may well do.
        middle = 0 if found else len(rest) // 2
        return found | _inspect_readable(rest[:middle], requirements) | _inspect_readable(rest[middle:], requirements)
    return {
        # One that vanished meanwhile wasn't seen.
        name: _judge(seen[name], requirements) if name in seen else Readiness(name, SchemaState.MISSING)
        for name in names
    }


def _gone(names: list[str]) -> dict[str, Readiness]:
    """Return those schemas that aren't there any longer."""
    there = recording(names)
    return {name: Readiness(name, SchemaState.MISSING) for name in names if name not in there}


def _judge(seen: Seen, requirements: Requirements) -> Readiness:
    pending, unknown = requirements.missing(seen.recorded), requirements.unknown(seen.recorded)
    missing, put_off = _split(((app, f"{app}.{migration}") for app, migration in pending), requirements)
    flaws = requirements.flaws(seen.tables, is_ahead=any(app == APP_LABEL for app, _migration in unknown))
    gone = sorted([*seen.absent, *(flaw.name for flaw in flaws if flaw.part == "relation")])
    # Of an app that is behind, most of what isn't there is still to come.
    behind = {app for app, _migration in pending}
    owned = ((requirements.owner(relation), relation) for relation in gone)
    lacking, spared = _split(((app, relation) for app, relation in owned if app not in behind), requirements)
    differences = [(APP_LABEL, flaw.text) for flaw in flaws if flaw.part != "relation" and APP_LABEL not in behind]
    if missing:
        state, lacking, differences = SchemaState.BEHIND, [], []
    elif lacking or differences:
        state = SchemaState.DRIFTED
    else:
        state = SchemaState.AHEAD if unknown else SchemaState.OK
    return Readiness(
        seen.schema_name,
        state,
        missing_migrations=_texts(missing),
        unknown_migrations=tuple(f"{app}.{migration}" for app, migration in unknown),
        missing_relations=_texts(lacking),
        differences=_texts(differences),
        tolerated=_texts([*put_off, *spared]),
        apps=tuple(sorted({app for app, _text in (*missing, *lacking, *differences)})),
        is_shared=is_public_schema(seen.schema_name),
    )


def _split(
    named: Iterable[tuple[str, str]], requirements: Requirements
) -> tuple[list[tuple[str, str]], list[tuple[str, str]]]:
    """Part what apps lack, as pairs of an app and a name: what refuses a tenant, and what doesn't."""
    refusing, tolerated = list[tuple[str, str]](), list[tuple[str, str]]()
    for app, name in named:
        (refusing if requirements.is_required(app) else tolerated).append((app, name))
    return refusing, tolerated


def _texts(named: Iterable[tuple[str, str]]) -> tuple[str, ...]:
    return tuple(text for _app, text in named)


def _failure(schema_name: str, error: DatabaseError) -> Readiness:
    if is_away(error):
        connection = connections[TENANT_DATABASE]
        if not connection.in_atomic_block:
            connection.close()
        raise Unavailable(reason=f"The database did not answer: {first_line(error)}") from error
    return _unknowable(schema_name, error)


def _refused(schema_name: str, reason: str) -> Readiness:
    error = f"{reason}: give the tenant a schema of another name"
    return Readiness(schema_name, SchemaState.ERROR, error=error, is_shared=is_public_schema(schema_name))


def _unknowable(schema_name: str, error: Exception) -> Readiness:
    logger.error("[%s] The schema can't be inspected: %s", schema_name, first_line(error))
    return Readiness(
        schema_name,
        SchemaState.ERROR,
        error=f"it can't be inspected: {first_line(error)}",
        is_shared=is_public_schema(schema_name),
    )

"""Counting queries, those left out that only choose the schema or mark a transaction."""

from __future__ import annotations

from contextlib import contextmanager
from itertools import count
from typing import TYPE_CHECKING

from django.db import connection
from django.test.utils import CaptureQueriesContext

if TYPE_CHECKING:
    from collections.abc import Iterator

NOT_COUNTED = ("SET search_path", "BEGIN", "COMMIT", "ROLLBACK", "SAVEPOINT", "RELEASE")

_numbers = count()


def fresh_statement() -> str:
    """A name under which no connection has prepared a statement yet."""
    return f"kept_{next(_numbers)}"


@contextmanager
def queries() -> Iterator[list[str]]:
    """A list that holds, after the body, the SQL of the body's queries."""
    found: list[str] = []
    with CaptureQueriesContext(connection) as captured:
        yield found
    found += [query["sql"] for query in captured if not query["sql"].startswith(NOT_COUNTED)]


@contextmanager
def exactly(count: int) -> Iterator[None]:
    """Fail unless the body made this many queries."""
    with queries() as made:
        yield
    assert len(made) == count, "\n".join([f"{len(made)} queries instead of {count}:", *made])

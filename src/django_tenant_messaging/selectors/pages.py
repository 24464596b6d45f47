"""How much fits into a page, found out before the texts are read."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from django.db.models import Func, IntegerField

if TYPE_CHECKING:
    from django.db.models import QuerySet

BYTES_BESIDES = 512
"""What each message counts besides its text: names, times and numbers."""


class Extent(NamedTuple):
    """What a page holds."""

    last: int | None
    """The place of its last row; ``None`` when it is empty."""
    is_cut: bool
    """Whether there are more rows."""


class _OctetLength(Func):
    """The bytes of a text, which PostgreSQL knows without reading it."""

    function = "OCTET_LENGTH"
    arity = 1
    output_field = IntegerField()


def extent_of_page(rows: QuerySet[Any, Any], place: str, *, limit: int, most_bytes: int) -> Extent:
    """Return how far a page goes in rows that are ordered by a field, ``place``: ``limit`` rows at most, and no more
    of those after the first than fit into so many bytes. One query, of numbers alone.
    """
    last: int | None = None
    total = 0
    for number, (here, size) in enumerate(rows.values_list(place, _OctetLength("content"))[: limit + 1]):
        total += size + BYTES_BESIDES
        if number == limit or (number and total > most_bytes):
            return Extent(last, is_cut=True)
        last = here
    return Extent(last, is_cut=False)

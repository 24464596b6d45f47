"""The rows of the database after a run, as far as promises speak of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.chaos.history import Place


@dataclass(frozen=True, slots=True)
class Row:
    """A message."""

    id: int
    seq: int
    changed_seq: int
    client_id: str
    sender: str | None
    content: str
    deleted: bool = False


@dataclass(frozen=True, slots=True)
class RoomRows:
    """A room: its head, its messages, its name and the place of its last renaming, 0 without one."""

    head: int
    rows: tuple[Row, ...]
    name: str = ""
    name_seq: int = 0


Truth = dict["Place", RoomRows]

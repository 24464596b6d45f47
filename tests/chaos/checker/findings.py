"""What a checker finds: each kind is one broken promise."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

LOST, DUPLICATED, REORDERED, FOREIGN = "lost", "duplicated", "reordered", "foreign"
COLUMNS = (LOST, DUPLICATED, REORDERED, FOREIGN)
KINDS = {
    # Writes and rows
    "acknowledged_missing": LOST,
    "acknowledged_twice": DUPLICATED,
    "answers_differ": "",
    "unknown_twice": DUPLICATED,
    "failed_present": "",
    "invented_row": FOREIGN,
    "altered_row": "",
    "unauthorised": "",
    "gap": LOST,
    "reused": "",
    # What receivers got
    "skipped": LOST,
    "incomplete": LOST,
    "repeated": DUPLICATED,
    "reordered": REORDERED,
    "other_tenant": FOREIGN,
    "other_room": FOREIGN,
    "invented": FOREIGN,
    "before_joining": FOREIGN,
    "after_removal": FOREIGN,
    "altered": "",
    "late": "",
    "slow_recovery": "",
    "view_differs": "",
    "history_differs": "",
    "refused": "",
    # What is left behind
    "sockets_left": "",
    "sessions_left": "",
    "keys_left": "",
    "channels_left": "",
    "memory_left": "",
    "memory_grows": "",
}
EXAMPLES = 10


@dataclass(slots=True)
class Findings:
    """How often each promise was broken, with some examples."""

    counts: Counter[str] = field(default_factory=Counter)
    examples: dict[str, list[str]] = field(default_factory=dict)

    def add(self, kind: str, example: str, times: int = 1) -> None:
        """Note a broken promise."""
        if kind not in KINDS:
            raise KeyError(kind)
        self.counts[kind] += times
        known = self.examples.setdefault(kind, [])
        if len(known) < EXAMPLES:
            known.append(example)

    def column(self, name: str) -> int:
        """How many of the kinds found belong to a column of the report."""
        return sum(times for kind, times in self.counts.items() if KINDS[kind] == name)

    def __bool__(self) -> bool:
        return bool(self.counts)

"""What is kept of a run in which something was found: the servers' logs, and what everybody recorded."""

from __future__ import annotations

import gzip
import json
import shutil
from dataclasses import asdict, is_dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

    from tests.chaos.history import History


def keep(folder: Path, history: History, logs: Path) -> None:
    """Write the history, a line for each thing, and copy the logs."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for log in logs.glob("*.log"):
        shutil.copy(log, folder)
    with gzip.open(folder / "history.jsonl.gz", "wt") as file:
        for name in ("writes", "changes", "faults"):
            for item in getattr(history, name):
                _write(file, {"what": name, **asdict(item)})
        for receiver in history.receivers:
            for event in receiver.events:
                _write(file, {"what": type(event).__name__, "receiver": receiver.name, **asdict(event)})
            _write(
                file,
                {"what": "connections", "receiver": receiver.name, "resumed": receiver.resumed, "lost": receiver.lost},
            )


def _write(file: Any, value: dict[str, Any]) -> None:
    file.write(json.dumps(value, default=_plain) + "\n")


def _plain(value: Any) -> Any:
    return asdict(value) if is_dataclass(value) and not isinstance(value, type) else sorted(value)

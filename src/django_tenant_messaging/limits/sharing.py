"""The limiter that all faces of a process use."""

from __future__ import annotations

from contextlib import suppress
from threading import Lock

from .limiter import Limiter, limits_of_settings

_lock = Lock()
_shared: list[Limiter] = []


def shared_limiter() -> Limiter:
    """Return the limiter of the process's sockets; in a process without sockets one that is made at the first use."""
    with _lock:
        if not _shared:
            _shared.append(Limiter(limits_of_settings()))
        return _shared[-1]


def share_limiter(limiter: Limiter) -> None:
    """Let all faces of the process use a limiter from now on."""
    with _lock:
        _shared.append(limiter)


def unshare_limiter(limiter: Limiter) -> None:
    """Take a limiter back, if it was shared."""
    with _lock, suppress(ValueError):
        _shared.remove(limiter)

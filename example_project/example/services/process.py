"""A child process that never outlives its parent."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
from functools import partial
from typing import IO, TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

PR_SET_PDEATHSIG = 1


class ServiceError(Exception):
    """A service can't be started; the text is one sentence for the person at the terminal."""


def python_path(*folders: Path) -> str:
    """Return the PYTHONPATH of a child that imports from these folders, and else what this process imports."""
    return os.pathsep.join([*map(str, folders), *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))])


def spawn(
    command: Sequence[str],
    *,
    uid: int | None = None,
    env: Mapping[str, str] | None = None,
    end_signal: signal.Signals = signal.SIGTERM,
    output: IO[bytes],
) -> subprocess.Popen[bytes]:
    """Start `command` in a session of its own, so that Ctrl-C reaches the parent alone, which then stops it.

    Should the parent be killed outright, Linux sends `end_signal` in its place.
    """
    prepare = None
    if sys.platform == "linux":
        # Loaded before the fork: between fork and exec only the call itself is safe.
        prepare = partial(ctypes.CDLL(None).prctl, PR_SET_PDEATHSIG, int(end_signal), 0, 0, 0)
    return subprocess.Popen(
        command,
        env=env,
        # Another account may not get into the folder in which this process is.
        cwd=None if uid is None else "/",
        user=uid,
        group=uid,
        extra_groups=None if uid is None else [],
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=subprocess.STDOUT,
        start_new_session=True,
        preexec_fn=prepare,  # noqa: PLW1509 - one system call, no lock is taken
    )


def end(process: subprocess.Popen[bytes], *, signals: Sequence[signal.Signals], seconds: float) -> None:
    """Ask `process` to end by each signal in turn, waiting up to `seconds` after each."""
    for number in (*signals, signal.SIGKILL):
        if process.poll() is not None:
            return
        process.send_signal(number)
        try:
            process.wait(seconds)
        except subprocess.TimeoutExpired:
            continue

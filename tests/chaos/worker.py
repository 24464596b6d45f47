"""What a worker of the stage serves: the example project, bent where its environment asks for it."""

from __future__ import annotations

import os
import time
from datetime import datetime, timedelta
from importlib import import_module

from django.utils import timezone

from tests.chaos.heap import answer_signals

OFFSET = float(os.environ.get("CHAOS_CLOCK_OFFSET", "0"))
MUTANT = os.environ.get("CHAOS_MUTANT", "")


def shift_clock(seconds: float) -> None:
    """Let this process's wall clock go ahead, before anything else asks it."""
    real, real_ns, real_now = time.time, time.time_ns, timezone.now

    def now() -> datetime:
        return real_now() + timedelta(seconds=seconds)

    time.time = lambda: real() + seconds
    time.time_ns = lambda: real_ns() + int(seconds * 1e9)
    timezone.now = now


answer_signals()
if OFFSET:
    shift_clock(OFFSET)

application = import_module("example.asgi").application

if MUTANT:
    import_module(f"tests.chaos.mutants.{MUTANT}").apply()

"""The example project with the limits that everybody gets who changes nothing."""

from __future__ import annotations

from example.settings import *  # noqa: F403

SECRET_KEY = "the benchmark's key, good for nothing else"  # noqa: S105 - nothing is kept by it

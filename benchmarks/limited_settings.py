"""The example project with the limits that everybody gets who changes nothing."""

from __future__ import annotations

from example.settings import *  # noqa: F403

DEBUG = False

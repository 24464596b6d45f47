from __future__ import annotations

from django.apps import AppConfig


class TutorialConfig(AppConfig):
    """The hand-written chat."""

    name = "benchmarks.tutorial"
    label = "tutorial"

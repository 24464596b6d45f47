from __future__ import annotations

from django.apps import AppConfig


class ReplayConfig(AppConfig):
    """The `replay_chat` command of the example project."""

    name = "replay"

"""System checks: what is wrong with a host's configuration, said before it hurts."""

from __future__ import annotations

from .installation import check_installation
from .settings import check_settings

__all__ = ["check_installation", "check_settings"]

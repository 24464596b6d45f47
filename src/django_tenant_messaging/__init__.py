"""Real-time chat for every tenant of a django-tenants project."""

from __future__ import annotations

__version__ = "0.1.0.dev0"

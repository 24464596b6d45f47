"""The WebSocket face: the only package, besides the test kit, that imports channels."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .asgi import Application
    from .hub import Hub

__all__ = ["messaging_asgi"]


def messaging_asgi(django_application: Application, *, hub: Hub | None = None) -> Application:
    """Put the WebSocket beside a Django application: see :func:`.asgi.messaging_asgi`."""
    # A host's asgi.py imports this before Django is set up, and models can't be imported until it is.
    from .asgi import messaging_asgi as build

    return build(django_application, hub=hub)

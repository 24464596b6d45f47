"""What the ASGI server may hold of what a client sends, before the application sees it and can refuse it.

A message reaches the application when it is complete and decompressed. uvicorn takes 16 MiB of each by default, and a
few kilobytes on the wire become that much: a read of its socket holds a thousand messages of any size allowed.
"""

from __future__ import annotations

import logging
import sys
from typing import TYPE_CHECKING, Any

from ..conf import messaging_settings

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

logger = logging.getLogger(__name__)

UVICORN = "uvicorn.config"
ROOM = 2
"""A message that is somewhat too large is to reach the application, which then says so by the documented close code."""
MOST_WAITING = 4
"""Messages of a client that uvicorn's older implementation may keep for the application."""


def bound_server(receive: Callable[[], Awaitable[Any]]) -> None:
    """Let uvicorn take no larger messages than are of use, none compressed, and few at a time. Say what was changed.

    For an application that answers all the WebSockets of the server. Connections that are there keep what they have.
    """
    config = _uvicorn_config(receive)
    if config is None:
        return
    faults = _faults(config)
    if faults:
        config.ws_max_size = min(config.ws_max_size, _largest())
        config.ws_max_queue = min(config.ws_max_queue, MOST_WAITING)
        config.ws_per_message_deflate = False
        logger.warning("uvicorn %s; it was told to stop that. Start it %s.", " and ".join(faults), _flags())
    _tell_if_too_small(config)


def was_bounded(receive: Callable[[], Awaitable[Any]]) -> bool:
    """Say whether the connection that the server gave this with was made after :func:`bound_server`.

    One that was made before keeps the compression that it agreed on. Of other servers nothing is known.
    """
    protocol = getattr(receive, "__self__", None)
    return not getattr(getattr(protocol, "conn", protocol), "available_extensions", None)


def inspect_server(receive: Callable[[], Awaitable[Any]]) -> None:
    """Say what uvicorn should be told, where it serves other WebSockets too, which may need what we don't."""
    config = _uvicorn_config(receive)
    if config is None:
        return
    faults = _faults(config)
    if faults:
        logger.warning("uvicorn %s: a client can fill the memory. Start it %s.", " and ".join(faults), _flags())
    _tell_if_too_small(config)


def _uvicorn_config(receive: Callable[[], Awaitable[Any]]) -> Any:
    """Return the configuration of the server whose own method this is; ``None`` of another, or behind a wrapper."""
    config = getattr(getattr(receive, "__self__", None), "config", None)
    if type(config).__module__ == UVICORN:
        return config
    if getattr(receive, "__self__", None) is None and UVICORN in sys.modules:
        logger.warning("Other code stands between uvicorn and messaging, which can't bound it. Start it %s.", _flags())
    return None


def _faults(config: Any) -> list[str]:
    faults = []
    if config.ws_max_size > _largest():
        faults.append(f"takes messages of up to {config.ws_max_size} bytes before they can be refused")
    if config.ws_per_message_deflate:
        faults.append("decompresses what clients send, a thousand bytes from one")
    return faults


def _tell_if_too_small(config: Any) -> None:
    if config.ws_max_size < messaging_settings.MAX_FRAME_BYTES:
        logger.warning(
            "uvicorn takes messages of %s bytes at most, and MAX_FRAME_BYTES is %s: larger ones are closed with 1009.",
            config.ws_max_size,
            messaging_settings.MAX_FRAME_BYTES,
        )


def _largest() -> int:
    return ROOM * messaging_settings.MAX_FRAME_BYTES


def _flags() -> str:
    return f"with --ws-max-size {_largest()} --ws-per-message-deflate false"

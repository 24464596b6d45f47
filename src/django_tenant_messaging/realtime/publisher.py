"""The sink through which committed events reach sockets, of this process and of others."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from asgiref.sync import async_to_sync
from channels.layers import get_channel_layer

from ..conf import messaging_settings
from .gathering import gather
from .hints import hints_of
from .hub import running_hub
from .link import send_from_outside

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..events import Event

logger = logging.getLogger(__name__)


def publish(events: Sequence[Event]) -> None:
    """Hand events to this process's hub; without one (a command, a WSGI server) send them over the channel layer."""
    hints = list(hints_of(events))
    if gather(hints):
        return
    hub = running_hub()
    if hub is not None:
        hub.publish_from_thread(hints)
        return
    layer = get_channel_layer(messaging_settings.CHANNEL_LAYER)
    if layer is not None:
        try:
            async_to_sync(send_from_outside)(layer, hints)
        except Exception as error:  # noqa: BLE001 - layers raise their clients' own classes
            # The message is committed; the servers find it when they next look at the database.
            logger.warning("[%s] The channel layer didn't take an event: %s", hints[0].schema_name, error)

"""Deliver whatever comes, when it comes: no numbers are compared, no gap is filled."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django_tenant_messaging.realtime.feeds import RoomFeed
from tests.chaos.mutants.patching import replace

if TYPE_CHECKING:
    from collections.abc import Iterable


def apply() -> None:
    """Let a room's feed pass everything on."""

    def offer(feed: RoomFeed, hints: Iterable[Any]) -> None:
        for hint in hints:
            if hint.seq:
                feed._deliver([hint])
            else:
                for socket in list(feed.sockets):
                    socket.offer_ephemeral(hint.frame)

    replace(RoomFeed, "offer", offer)

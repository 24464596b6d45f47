"""Why a socket was closed. After a retryable code a client reconnects with jitter; after the others it must not."""

from __future__ import annotations

from enum import IntEnum


class CloseCode(IntEnum):
    """The close codes; the text under each is its documentation."""

    RESTART = 1012
    """The server restarts."""
    BAD_FRAMES = 4400
    """Too many frames that can't be read or have wrong fields."""
    UNAUTHENTICATED = 4401
    """No session, an expired one, or one of another tenant."""
    FORBIDDEN = 4403
    """The page that opened the socket isn't of this tenant, or the user may not use the tenant."""
    UNKNOWN_TENANT = 4404
    """No tenant has this host name."""
    UNSUPPORTED_PROTOCOL = 4406
    """The client offered subprotocols, but none that is spoken here."""
    TOO_SLOW = 4408
    """The client was silent for three heartbeat intervals, or didn't read what it was sent."""
    FRAME_TOO_LARGE = 4413
    """A frame was larger than ``MAX_FRAME_BYTES``, or wasn't text; or the handshake had more headers or cookies
    than are read."""
    RATE_LIMITED = 4429
    """The client sent too much and went on when it was refused, or the user has too many sockets or handshakes."""
    UNAVAILABLE = 4503
    """The database couldn't be reached, or the tenant's tables aren't ready."""

    @property
    def may_retry(self) -> bool:
        """Whether a client should reconnect by itself."""
        return self in {CloseCode.RESTART, CloseCode.TOO_SLOW, CloseCode.RATE_LIMITED, CloseCode.UNAVAILABLE}

"""Checks of settings that are each allowed and contradict each other."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django.core.checks import CheckMessage, Warning  # noqa: A004 - the name of Django's documentation

from ..conf import messaging_settings
from .settings import check_settings

if TYPE_CHECKING:
    from collections.abc import Iterator

BYTES_OF_A_CHARACTER = 4
"""In UTF-8, of the longest."""
ENVELOPE = 1_024
"""Bytes of a frame besides its text."""
LONGEST_WAIT = 60
"""Seconds for which the limit of bytes may leave the largest frame unread."""


def check_relations(**_kwargs: Any) -> list[CheckMessage]:
    """Report settings that together forbid what each of them allows (W023)."""
    # What is wrong by itself is the other check's subject.
    if check_settings():
        return []
    return [
        Warning(f"In TENANT_MESSAGING {contradiction}.", hint=f"{remedy}.", id="tenant_messaging.W023")
        for contradiction, remedy in (*_sizes(), *_times())
    ]


def _sizes() -> Iterator[tuple[str, str]]:
    frame = messaging_settings.MAX_FRAME_BYTES
    longest = BYTES_OF_A_CHARACTER * messaging_settings.MAX_CONTENT_LENGTH + ENVELOPE
    if frame < longest:
        yield (
            f"MAX_FRAME_BYTES is {frame}: a message of MAX_CONTENT_LENGTH characters may need {longest} bytes",
            "Raise MAX_FRAME_BYTES or lower MAX_CONTENT_LENGTH",
        )
    queue = messaging_settings.SOCKET_QUEUE_BYTES
    if queue < frame:
        yield (
            f"SOCKET_QUEUE_BYTES is {queue}, less than MAX_FRAME_BYTES ({frame}): one large message fills a queue",
            "Raise SOCKET_QUEUE_BYTES or lower MAX_FRAME_BYTES",
        )
    of_user, page = messaging_settings.USER_QUEUE_BYTES, messaging_settings.HISTORY_PAGE_BYTES
    if of_user < queue:
        yield (
            f"USER_QUEUE_BYTES is {of_user}, less than SOCKET_QUEUE_BYTES ({queue}): no socket ever holds as much",
            "Raise USER_QUEUE_BYTES or lower SOCKET_QUEUE_BYTES",
        )
    if queue < page:
        yield (
            f"SOCKET_QUEUE_BYTES is {queue}, less than HISTORY_PAGE_BYTES ({page}): one page of history fills a queue",
            "Raise SOCKET_QUEUE_BYTES or lower HISTORY_PAGE_BYTES",
        )
    limit = messaging_settings.RATE_LIMIT_BYTES
    wait = 0 if limit is None else (frame - ENVELOPE) / limit[0]
    if limit is not None and wait > LONGEST_WAIT:
        yield (
            f"RATE_LIMIT_BYTES grants {limit[0]:g} bytes/s: a frame of MAX_FRAME_BYTES ({frame}) waits {wait:.0f} s",
            "Raise the rate of RATE_LIMIT_BYTES or lower MAX_FRAME_BYTES",
        )


def _times() -> Iterator[tuple[str, str]]:
    lock, statement = messaging_settings.LOCK_TIMEOUT, messaging_settings.STATEMENT_TIMEOUT
    if lock is not None and statement is not None and lock >= statement:
        yield (
            f"LOCK_TIMEOUT ({lock:g} s) never ends a wait, as STATEMENT_TIMEOUT ({statement:g} s) does it before",
            "Let LOCK_TIMEOUT be shorter than STATEMENT_TIMEOUT",
        )

"""What a run of a room's events says to each of those who follow it."""

from __future__ import annotations

import json
from typing import Any

import pytest

from django_tenant_messaging.realtime.hints import OTHERS_END, Hint, from_rows, rows_of
from django_tenant_messaging.realtime.packets import Packet, packets_of

AUTHOR, READER = "1", "2"


def hint(seq: int, about: int, author: str = "9") -> Hint:
    """A change of the message that was written at `about`; of a new one it is 0."""
    frame = f'{{"seq":{seq},"message":{{"text":"of {about}",{OTHERS_END}'
    return Hint("acme", "room", 1, frame, seq=seq, after=seq - 1, about=about, author=author)


def told(packet: Packet, user_id: str, visible_after: int) -> list[tuple[int, str | None, bool]]:
    """The positions, texts and `is_own_message` of what a user gets who sees the timeline after a position."""
    is_plain = user_id not in packet.authors and visible_after < packet.oldest
    frames: Any = json.loads(packet.text if is_plain else packet.text_for(user_id, visible_after))
    for frame in frames:
        if "message" not in frame:
            assert (frame["type"], frame["room"], frame["after"]) == ("skip", 1, frame["seq"] - 1)
    messages = [(frame["seq"], frame.get("message", {})) for frame in frames]
    return [(seq, message.get("text"), message.get("is_own_message", False)) for seq, message in messages]


@pytest.mark.parametrize("travels", [False, True], ids=["here", "from another process"])
def test_each_is_told_what_they_may_see(travels: bool) -> None:
    hints = [hint(21, 12), hint(22, 4), hint(23, 0, AUTHOR), hint(24, 8, AUTHOR), hint(25, 4)]
    if travels:
        hints = from_rows("acme", json.loads(json.dumps(rows_of(hints))))
    (packet,) = packets_of(hints)
    everything = [
        (21, "of 12", False),
        (22, "of 4", False),
        (23, "of 0", False),
        (24, "of 8", False),
        (25, "of 4", False),
    ]
    # In any order: what one is told doesn't depend on who was told before.
    for _ in range(2):
        assert told(packet, READER, 0) == told(packet, READER, 3) == everything
        assert told(packet, READER, 4) == [*everything[:1], (22, None, False), *everything[2:4], (25, None, False)]
        assert [text for _seq, text, _is_own in told(packet, READER, 8)] == ["of 12", None, "of 0", None, None]
        assert [text for _seq, text, _is_own in told(packet, READER, 20)] == [None, None, "of 0", None, None]
        assert [is_own for *_rest, is_own in told(packet, AUTHOR, 0)] == [False, False, True, True, False]


def test_new_messages_are_told_to_everybody() -> None:
    (packet,) = packets_of([hint(21, 0), hint(22, 0)])
    assert told(packet, READER, 20) == [(21, "of 0", False), (22, "of 0", False)]
    assert packet.oldest > 20

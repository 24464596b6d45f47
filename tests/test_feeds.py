"""A room's feed, given hints in any order, any number of times, or not at all."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from django_tenant_messaging.realtime.feeds import MAX_PENDING, RoomFeed
from django_tenant_messaging.realtime.hints import Hint
from django_tenant_messaging.selectors import Changes

HEAD = 5


class Listener:
    """Stands in for a live socket: notes what the feed gives it."""

    user_id = "1"

    def __init__(self) -> None:
        self.seqs: list[int] = []
        self.ephemeral = 0
        self.outbox = self
        self.is_full = False

    def put(self, text: str, _room_id: int, after: int) -> None:
        assert after == (self.seqs[-1] if self.seqs else HEAD)
        found = json.loads(text)
        self.seqs += [frame["seq"] for frame in (found if isinstance(found, list) else [found])]

    def offer_ephemeral(self, _text: str) -> None:
        self.ephemeral += 1


def hint(seq: int, after: int | None = None) -> Hint:
    return Hint("acme", "room", 1, json.dumps({"seq": seq}), seq=seq, after=seq - 1 if after is None else after)


def no_one_returns(_socket: object) -> None:
    raise AssertionError("nobody joined")


def listen() -> tuple[RoomFeed, Listener, list[RoomFeed]]:
    gaps: list[RoomFeed] = []
    feed = RoomFeed("acme", 1, gaps.append, no_one_returns)
    listener: Any = Listener()
    seat: Any = SimpleNamespace(room=SimpleNamespace(visible_after_seq=0), is_live=True)
    feed.sockets[listener] = feed.live[listener] = seat
    return feed, listener, gaps


@given(st.lists(st.integers(HEAD - 3, HEAD + 12)), st.integers(0, 20))
def test_what_goes_out_is_contiguous_and_a_gap_is_reported(arrivals: list[int], start_after: int) -> None:
    feed, listener, gaps = listen()
    if start_after > len(arrivals):
        feed.start(HEAD)
    for number, seq in enumerate(arrivals):
        if number == start_after:
            feed.start(HEAD)
        feed.offer([hint(seq)])
    feed.start(HEAD)
    assert feed.head == HEAD + len(listener.seqs)
    assert listener.seqs == list(range(HEAD + 1, feed.head + 1))
    waiting = {seq for seq in arrivals if seq > feed.head}
    assert {waiting_hint.seq for waiting_hint in feed.pending.values()} == waiting
    if waiting and start_after == 0:
        assert gaps


@given(st.permutations(range(HEAD + 1, HEAD + 8)), st.integers(0, 7))
def test_a_part_read_from_the_database_closes_the_gap_once(order: list[int], known: int) -> None:
    feed, listener, _gaps = listen()
    feed.start(HEAD)
    for seq in order[:known]:
        feed.offer([hint(seq)])
    after = feed.head or 0
    # The number before the last was replaced by a later change: the database has no state of it.
    kept = [seq for seq in range(after + 1, HEAD + 8) if seq != HEAD + 6]
    hints = [hint(seq, before) for before, seq in zip([after, *kept], kept, strict=False)]
    feed.fill(after, Changes((), HEAD + 7, complete=True), {}, hints)
    assert feed.head == HEAD + 7
    assert listener.seqs == sorted(set(listener.seqs))
    assert not feed.pending
    for seq in order:
        feed.offer([hint(seq)])
    assert feed.head == HEAD + 7


def test_a_tail_that_was_replaced_moves_the_position_only() -> None:
    feed, listener, _gaps = listen()
    feed.start(HEAD)
    feed.fill(HEAD, Changes((), HEAD + 3, complete=True), {}, [])
    assert (feed.head, listener.seqs) == (HEAD + 3, [HEAD + 3])


def test_what_was_read_for_another_position_is_ignored() -> None:
    feed, listener, _gaps = listen()
    feed.start(HEAD)
    feed.fill(HEAD - 1, Changes((), HEAD + 3, complete=True), {}, [hint(HEAD + 3, HEAD - 1)])
    assert (feed.head, listener.seqs) == (HEAD, [])


@given(st.lists(st.integers(HEAD + 1, HEAD + 30), max_size=40), st.integers(1, 7))
def test_however_hints_are_bundled_the_same_goes_out(arrivals: list[int], size: int) -> None:
    one, by_one, _gaps = listen()
    many, by_many, _gaps = listen()
    for feed in (one, many):
        feed.start(HEAD)
    for seq in arrivals:
        one.offer([hint(seq)])
    for start in range(0, len(arrivals), size):
        many.offer([hint(seq) for seq in arrivals[start : start + size]])
    assert by_one.seqs == by_many.seqs
    assert one.pending.keys() == many.pending.keys()


def test_many_at_once_are_no_gap() -> None:
    feed, listener, gaps = listen()
    feed.start(HEAD)
    feed.offer([hint(seq) for seq in range(HEAD + 1, HEAD + 2_001)])
    assert listener.seqs == list(range(HEAD + 1, HEAD + 2_001))
    assert gaps == []


def test_what_waits_behind_a_gap_is_bounded() -> None:
    feed, listener, gaps = listen()
    feed.start(HEAD)
    feed.offer([hint(seq) for seq in range(HEAD + 2, HEAD + 2_001)])
    assert listener.seqs == []
    assert gaps
    assert len(feed.pending) == MAX_PENDING
    feed.offer([hint(HEAD + 1)])
    assert listener.seqs == list(range(HEAD + 1, HEAD + 2 + MAX_PENDING))


def test_ephemeral_hints_pass_at_once() -> None:
    feed, listener, _gaps = listen()
    feed.offer([Hint("acme", "room", 1, "{}")])
    assert listener.ephemeral == 1

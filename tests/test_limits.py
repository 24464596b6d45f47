"""Token buckets and the limiter: what they grant, what they refuse and for how long, what processes tell each other."""

from __future__ import annotations

import sys
from concurrent.futures import ThreadPoolExecutor
from itertools import accumulate
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from django_tenant_messaging.exceptions import RateLimited
from django_tenant_messaging.limits import Key, Limiter, Scope, share_limiter, shared_limiter, unshare_limiter
from django_tenant_messaging.limits import limiter as module
from django_tenant_messaging.limits.buckets import MAX_DEBT, QUIET_BURST, QUIET_SHARE, Limit, TokenBucket

if TYPE_CHECKING:
    from collections.abc import Iterator

#: A clock that has run for a while, where rounding shows.
START = 1_000_000.0
ROUNDING = 1e-3

rates = st.floats(0.01, 10_000)
bursts = st.floats(1, 10_000)
some_limits = st.builds(Limit, rates, bursts)
pauses = st.one_of(st.just(0.0), st.floats(0, 20), st.floats(0, 0.01))
steps = st.lists(st.tuples(pauses, st.floats(0.1, 20)), max_size=60)

ALICE = Key(Scope.USER, "acme", "1")
HER_TWIN = Key(Scope.USER, "globex", "1")
ROOM = Key(Scope.ROOM, "acme", "1")
TENANT = Key(Scope.TENANT, "acme", "")


def taken(bucket: TokenBucket, moves: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """When and how much a bucket grants to someone who asks again and again."""
    now, granted = START, []
    for pause, tokens in moves:
        now += pause
        if not bucket.wait(tokens, now):
            bucket.take(tokens, now)
            granted.append((now, min(tokens, bucket.limit.burst)))
    return granted


# A bucket


@settings(deadline=None)
@given(limit=some_limits, moves=steps)
def test_never_more_than_the_burst_and_the_rate_in_any_window(limit: Limit, moves: list[tuple[float, float]]) -> None:
    granted = taken(TokenBucket(limit), moves)
    for first, (start, _tokens) in enumerate(granted):
        sums = accumulate(tokens for _at, tokens in granted[first:])
        for (end, _tokens), total in zip(granted[first:], sums, strict=True):
            assert total <= limit.burst + limit.rate * (end - start + ROUNDING)


@settings(deadline=None)
@given(limit=some_limits, moves=steps, wanted=st.floats(0.1, 20), lost=st.floats(0, 50_000))
def test_the_time_to_wait_is_enough_and_not_longer_than_needed(
    limit: Limit, moves: list[tuple[float, float]], wanted: float, lost: float
) -> None:
    bucket = TokenBucket(limit)
    taken(bucket, moves)
    now = START + sum(pause for pause, _tokens in moves)
    bucket.take_away(lost, now)
    seconds = bucket.wait(wanted, now)
    assert bucket.wait(wanted, now + seconds) == 0
    if seconds > ROUNDING:
        assert bucket.wait(wanted, now + seconds - ROUNDING) > 0
    assert seconds <= 2 * limit.burst / limit.rate + MAX_DEBT + ROUNDING


@settings(deadline=None)
@given(limit=some_limits, moves=steps, lost=st.floats(0, 50_000), more=steps)
def test_what_others_took_never_makes_more_available(
    limit: Limit, moves: list[tuple[float, float]], lost: float, more: list[tuple[float, float]]
) -> None:
    told, untold = TokenBucket(limit), TokenBucket(limit)
    for bucket in (told, untold):
        taken(bucket, moves)
    now = START + sum(pause for pause, _tokens in moves)
    told.take_away(lost, now)
    for pause, tokens in more:
        now += pause
        assert told.wait(tokens, now) >= untold.wait(tokens, now)
        told.take_away(tokens, now)


def test_a_full_bucket_grants_its_burst_at_once_and_then_its_rate() -> None:
    bucket = TokenBucket(Limit(10, 5))
    assert sum(tokens for _at, tokens in taken(bucket, [(0.0, 1)] * 100)) == 5
    assert bucket.wait(1, START) == pytest.approx(0.1)
    assert len(taken(bucket, [(0.1, 1)] * 100)) == 100


def test_who_asks_for_more_than_the_burst_gets_it_when_the_bucket_is_full() -> None:
    bucket = TokenBucket(Limit(2, 3))
    assert bucket.wait(5, START) == 0
    bucket.take(5, START)
    assert bucket.wait(5, START) == pytest.approx(1.5)


def test_what_others_took_is_owed_for_a_bounded_time() -> None:
    bucket = TokenBucket(Limit(10, 5))
    bucket.take_away(20, START)
    assert bucket.wait(1, START) == pytest.approx(1.6)
    for _ in range(1_000):
        bucket.take_away(1_000, START)
    assert bucket.wait(1, START) == pytest.approx(MAX_DEBT + 0.1)


# The limiter


def limiter(**given_limits: tuple[float, float]) -> Limiter:
    return Limiter({Scope(name): Limit(*limit) for name, limit in given_limits.items()})


def grants(limiter: Limiter, *keys: Key, now: float, tokens: float = 1) -> int:
    """How often a charge is granted at one moment."""
    for number in range(10_000):
        try:
            limiter.check([(key, tokens) for key in keys], now)
        except RateLimited:
            return number
    raise AssertionError("there is no limit")


def test_all_scopes_are_checked_before_any_is_charged() -> None:
    found = limiter(user=(1, 10), room=(1, 5), tenant=(1, 100))
    assert grants(found, ALICE, ROOM, TENANT, now=START) == 5
    assert grants(found, ALICE, now=START) == 5
    assert grants(found, TENANT, now=START) == 95


def test_the_longest_wait_is_told() -> None:
    found = limiter(user=(10, 1), room=(0.5, 1), tenant=(100, 1))
    found.check([(ALICE, 1), (ROOM, 1), (TENANT, 1)], START)
    with pytest.raises(RateLimited) as refused:
        found.check([(ALICE, 1), (ROOM, 1), (TENANT, 1)], START)
    assert refused.value.code == "rate_limited"
    assert refused.value.retry_after == 2.0
    assert refused.value.details == {"retry_after": 2.0, "scope": "room", "limit": {"rate": 0.5, "burst": 1}}
    found.check([(ALICE, 1), (ROOM, 1), (TENANT, 1)], START + 2.0)


@settings(deadline=None)
@given(rate=rates, burst=bursts, pause=st.floats(0, 5), tokens=st.floats(0.1, 20))
def test_the_time_that_is_told_is_enough_and_rounded_by_a_millisecond_at_most(
    rate: float, burst: float, pause: float, tokens: float
) -> None:
    found = limiter(user=(rate, burst))
    now = START
    for _ in range(50):
        try:
            found.check([(ALICE, tokens)], now)
        except RateLimited as error:
            seconds = error.retry_after
            assert seconds > 0
            assert round(seconds * 1000) == pytest.approx(seconds * 1000)
            if seconds > 0.002:
                with pytest.raises(RateLimited):
                    found.check([(ALICE, tokens)], now + seconds - 0.002)
            now += seconds
            found.check([(ALICE, tokens)], now)
            return
        now += pause / 50


def test_tenants_with_equal_ids_have_buckets_of_their_own() -> None:
    found = limiter(user=(1, 3))
    assert grants(found, ALICE, now=START) == 3
    assert grants(found, HER_TWIN, now=START) == 3


def test_a_scope_without_a_limit_is_never_refused_and_costs_no_memory() -> None:
    found = limiter(user=(1, 2))
    for _ in range(1_000):
        found.check([(ROOM, 1), (TENANT, 1)], START)
    assert len(found) == 0
    assert grants(found, ALICE, ROOM, now=START) == 2


def test_buckets_that_are_full_again_are_forgotten() -> None:
    found = limiter(user=(10, 5))
    for number in range(100_000):
        found.check([(Key(Scope.USER, "acme", str(number)), 1)], START + number / 100)
        assert len(found) <= 1_000


def test_memory_is_bounded_also_when_no_bucket_is_full(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_BUCKETS", 2_000)
    found = limiter(user=(0.001, 5))
    heavy = [Key(Scope.USER, "acme", f"heavy{number}") for number in range(100)]
    for key in heavy:
        assert grants(found, key, now=START) == 5
    for number in range(20_000):
        found.check([(Key(Scope.USER, "acme", str(number)), 3)], START + number / 100_000)
        assert max(len(found), len(found._loud)) <= 2_000
    # Those who took most are remembered longest.
    assert [grants(found, key, now=START + 1) for key in heavy] == [0] * 100


# Several processes


def test_nothing_is_reported_while_nobody_takes_much() -> None:
    found = limiter(user=(20, 60), room=(200, 400))
    now = START
    for number in range(10_000):
        now += 0.5
        found.check([(ALICE, 1), (Key(Scope.ROOM, "acme", str(number % 3)), 1)], now)
        assert found.report(now) == []
    found.check([(ALICE, 29)], now)
    assert found.report(now) == []


def test_a_report_says_once_what_was_taken_and_others_take_it_away() -> None:
    one, other = limiter(user=(20, 60), room=(200, 400)), limiter(user=(20, 60), room=(200, 400))
    one.check([(ALICE, 40), (ROOM, 40)], START)
    report = one.report(START)
    assert [(*share[:3], round(share[3], 3)) for share in report] == [("user", "acme", "1", 40)]
    one.check([(ALICE, 1)], START)
    assert one.report(START) == []
    other.absorb(report, START)
    assert grants(other, ALICE, now=START) == 20
    assert grants(other, HER_TWIN, now=START) == 60
    # What was heard of others isn't told again.
    assert [(*share[:3], round(share[3], 3)) for share in other.report(START)] == [("user", "globex", "1", 60)]
    assert grants(one, ALICE, now=START) == 19


def test_sockets_are_nobody_elses_business() -> None:
    found = limiter(socket=(1, 10))
    assert grants(found, Key(Scope.SOCKET, "acme", "7"), now=START) == 10
    assert found.report(START) == []


def test_a_report_is_bounded_and_the_rest_comes_next(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_REPORTED", 10)
    found = limiter(user=(1, 10))
    for number in range(25):
        found.check([(Key(Scope.USER, "acme", str(number)), 10)], START)
    reports = [found.report(START) for _ in range(4)]
    assert [len(report) for report in reports] == [10, 10, 5, 0]
    assert len({share[2] for report in reports for share in report}) == 25


def test_what_another_release_or_other_settings_report_is_passed_over() -> None:
    found = limiter(user=(1, 10))
    found.absorb([("galaxy", "acme", "1", 5.0), ("room", "acme", "1", 5.0), ("user", "acme", "1", 4.0)], START)
    assert grants(found, ALICE, now=START) == 6
    assert len(found) == 1


@settings(deadline=None)
@given(
    processes=st.integers(2, 6),
    limit=st.builds(Limit, st.floats(1, 100), st.floats(5, 100)),
    interval=st.floats(0.1, 1),
    weights=st.lists(st.integers(0, 6), min_size=6, max_size=6),
    rounds=st.integers(20, 80),
)
def test_a_flood_over_several_processes_is_bounded(
    processes: int, limit: Limit, interval: float, weights: list[int], rounds: int
) -> None:
    found = [Limiter({Scope.USER: limit}) for _ in range(processes)]
    now, total = START, 0.0
    for number in range(rounds):
        # As much as each process grants, at some moments of the interval.
        for process, weight in zip(found, weights, strict=False):
            if number % (weight + 1) == 0:
                total += grants(process, ALICE, now=now)
        now += interval
        reports = [process.report(now) for process in found]
        for teller, report in enumerate(reports):
            for hearer, process in enumerate(found):
                if hearer != teller:
                    process.absorb(report, now)
    seconds = now - START
    steady = limit.rate * (1 + (processes - 1) * QUIET_SHARE) * seconds
    unheard = (1 + QUIET_BURST) * limit.burst + limit.rate * interval
    assert total <= limit.burst + steady + (processes - 1) * unheard + processes


@pytest.fixture
def eager_threads() -> Iterator[None]:
    """Threads that take turns as often as they can."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


@pytest.mark.usefixtures("eager_threads")
def test_threads_take_no_more_than_there_is() -> None:
    found = limiter(user=(1, 2_000), room=(1, 2_000))
    with ThreadPoolExecutor(8) as pool:
        granted = list(pool.map(lambda _: grants(found, ALICE, ROOM, now=START), range(8)))
    assert sum(granted) == 2_000


def test_the_faces_of_a_process_share_the_limiter_of_its_sockets() -> None:
    of_sockets = limiter(user=(1, 3))
    own = shared_limiter()
    share_limiter(of_sockets)
    assert shared_limiter() is of_sockets
    unshare_limiter(of_sockets)
    assert shared_limiter() is own is not of_sockets

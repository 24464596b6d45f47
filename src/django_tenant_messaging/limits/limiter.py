"""How much sockets, users, rooms and tenants may ask for, as one process counts it."""

from __future__ import annotations

import math
from enum import StrEnum
from heapq import nsmallest
from threading import Lock
from typing import TYPE_CHECKING, NamedTuple

from ..conf import messaging_settings
from ..exceptions import RateLimited
from .buckets import Limit, TokenBucket

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

MAX_BUCKETS = 50_000
"""Most buckets of a process. When more are in use, those that are nearest to being full are given up."""
MAX_REPORTED = 1_000
"""Most buckets of one report; the others wait for the next one."""


class Scope(StrEnum):
    """Whose limit it is."""

    ADDRESS = "address"
    CONNECT = "connect"
    BYTES = "bytes"
    SOCKET = "socket"
    READS = "reads"
    USER = "user"
    ROOM = "room"
    TENANT = "tenant"

    # That of enumerations is written in Python, and every frame asks for it a dozen times.
    __hash__ = str.__hash__


class Key(NamedTuple):
    """Whose bucket it is."""

    scope: Scope
    schema_name: str
    id: str


Charge = tuple[Key, float]
"""So many tokens of a bucket."""
Share = tuple[str, str, str, float]
"""Scope, schema, id, and the tokens that were taken: what others are told, as a channel layer carries it."""


def limits_of_settings() -> dict[Scope, Limit]:
    """Return the limits of all scopes that have one."""
    found = {
        Scope.ADDRESS: messaging_settings.RATE_LIMIT_ADDRESS,
        Scope.CONNECT: messaging_settings.RATE_LIMIT_CONNECT,
        Scope.BYTES: messaging_settings.RATE_LIMIT_BYTES,
        Scope.SOCKET: messaging_settings.RATE_LIMIT_SOCKET,
        Scope.READS: messaging_settings.RATE_LIMIT_READS,
        Scope.USER: messaging_settings.RATE_LIMIT_USER,
        Scope.ROOM: messaging_settings.RATE_LIMIT_ROOM,
        Scope.TENANT: messaging_settings.RATE_LIMIT_TENANT,
    }
    return {scope: Limit(*limit) for scope, limit in found.items() if limit is not None}


class Limiter:
    """The buckets of a process. One that isn't there is full. Sockets use it from the event loop, pages from threads.

    ``on_loud`` is called when there is something to report, once for each report, in the thread that asked.
    """

    def __init__(self, limits: Mapping[Scope, Limit], on_loud: Callable[[], None] = lambda: None) -> None:
        self._limits = limits
        self._on_loud = on_loud
        self._buckets: dict[Key, TokenBucket] = {}
        self._loud: set[Key] = set()
        self._tidy_at = 1_000
        self._lock = Lock()

    def __len__(self) -> int:
        return len(self._buckets)

    def check(self, charges: Sequence[Charge], now: float) -> None:
        """Take the tokens of all charges, or of none.

        Raises :class:`~django_tenant_messaging.exceptions.RateLimited` for the one that has to wait longest.
        """
        with self._lock:
            has_become_loud = self._take(charges, now)
        if has_become_loud:
            self._on_loud()

    def require(self, key: Key, now: float) -> None:
        """Raise ``RateLimited`` unless a token is there, and take none."""
        with self._lock:
            if key in self._buckets and (seconds := self._buckets[key].wait(1, now)):
                raise self._refusal(key.scope, seconds)

    def overdraw(self, key: Key, now: float) -> None:
        """Take a token, whether it is there or not."""
        with self._lock:
            was_quiet = not self._loud
            if key.scope in self._limits and self._bucket(key, now).overdraw(1, now):
                self._loud.add(key)
            has_become_loud = was_quiet and bool(self._loud)
        if has_become_loud:
            self._on_loud()

    def _take(self, charges: Sequence[Charge], now: float) -> bool:
        """Take the tokens, and say whether these are the first that others should hear of."""
        was_quiet = not self._loud
        asked = [(self._bucket(key, now), key, tokens) for key, tokens in charges if key.scope in self._limits]
        longest, refused = 0.0, None
        for bucket, key, tokens in asked:
            if (seconds := bucket.wait(tokens, now)) > longest:
                longest, refused = seconds, key.scope
        if refused is not None:
            raise self._refusal(refused, longest)
        for bucket, key, tokens in asked:
            if bucket.take(tokens, now) and key.scope is not Scope.SOCKET:
                self._loud.add(key)
        return was_quiet and bool(self._loud)

    def _refusal(self, scope: Scope, seconds: float) -> RateLimited:
        return RateLimited(scope, *self._limits[scope], retry_after=math.ceil(seconds * 1000) / 1000)

    def report(self, now: float) -> list[Share]:
        """Return what other processes should hear, and count it as told; nothing as long as nobody takes much."""
        shares: list[Share] = []
        with self._lock:
            while self._loud and len(shares) < MAX_REPORTED:
                key = self._loud.pop()
                bucket = self._buckets.get(key)
                if bucket is not None and (tokens := bucket.unreported(now)):
                    shares.append((str(key.scope), key.schema_name, key.id, tokens))
                    bucket.reported()
            is_more = bool(self._loud)
        if is_more:
            self._on_loud()
        return shares

    def absorb(self, shares: Iterable[Share], now: float) -> None:
        """Take away what another process reports that it granted."""
        with self._lock:
            for scope, schema_name, key, tokens in shares:
                # Another release may know other scopes, and other settings limit others.
                if scope in self._limits:
                    self._bucket(Key(Scope(scope), schema_name, key), now).take_away(tokens, now)

    def _bucket(self, key: Key, now: float) -> TokenBucket:
        bucket = self._buckets.get(key)
        if bucket is None:
            if len(self._buckets) >= self._tidy_at:
                self._tidy(now)
            bucket = self._buckets[key] = TokenBucket(self._limits[key.scope])
        return bucket

    def _tidy(self, now: float) -> None:
        """Forget buckets that are full, and when that doesn't suffice, a part of those that will be so soonest."""
        self._buckets = {key: bucket for key, bucket in self._buckets.items() if bucket.full_at > now}
        if len(self._buckets) > MAX_BUCKETS * 0.9:
            full_at = {key: bucket.full_at for key, bucket in self._buckets.items()}
            for key in nsmallest(len(full_at) - int(MAX_BUCKETS * 0.9), full_at, key=full_at.__getitem__):
                del self._buckets[key]
        self._loud &= self._buckets.keys()
        # Not before there are twice as many, so that each new bucket pays for its part of the work.
        self._tidy_at = min(MAX_BUCKETS, max(1_000, 2 * len(self._buckets)))

"""Who connects, as far as can be told before the database is asked: the session that is named, and the address."""

from __future__ import annotations

import time
from collections import OrderedDict
from functools import lru_cache
from hashlib import sha256
from ipaddress import IPv6Address, IPv6Network, ip_address, ip_network
from typing import TYPE_CHECKING, Any

from ..conf import messaging_settings
from ..limits import Key, Scope
from .handshake import session_key_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from ipaddress import IPv4Address, IPv4Network

    from django.http import HttpRequest

    from ..limits import Limiter

MOST_HEADERS = 100
MOST_COOKIES = 300
MOST_COOKIE_BYTES = 16_384
"""Largest handshake that is read: reading cookies takes a microsecond for each, and one for a few escapes in it."""
MOST_PROVEN = 10_000
MOST_HOPS = 20
IPV6_SITE = 64
"""Bits of an address that a customer of a network can't choose."""


class Callers:
    """Charges handshakes: each to its session, those that aren't let in to their address.

    Who was let in before with the same session may come whatever others do at that address.
    """

    def __init__(self, limiter: Limiter) -> None:
        self._limiter = limiter
        self._proven: OrderedDict[str, None] = OrderedDict()

    def charge(self, scope: Mapping[str, Any], request: HttpRequest) -> None:
        """Charge a handshake, before anything is read for it. Raises ``RateLimited``."""
        now, session = time.monotonic(), _hashed_session(request)
        if session not in self._proven:
            self._limiter.require(_address_key(scope), now)
        if session:
            self._limiter.check([(Key(Scope.CONNECT, "", session), 1)], now)

    def let_in(self, request: HttpRequest) -> None:
        """Remember a session with which somebody was let in."""
        session = _hashed_session(request)
        self._proven[session] = None
        self._proven.move_to_end(session)
        if len(self._proven) > MOST_PROVEN:
            self._proven.popitem(last=False)

    def refused(self, scope: Mapping[str, Any], request: HttpRequest) -> None:
        """Charge somebody who wasn't let in to their address."""
        self._proven.pop(_hashed_session(request), None)
        self._limiter.overdraw(_address_key(scope), time.monotonic())


def is_too_large(scope: Mapping[str, Any]) -> bool:
    """Say whether a handshake has more headers or cookies than are read."""
    if len(scope["headers"]) > MOST_HEADERS:
        return True
    cookies = [value for name, value in scope["headers"] if name == b"cookie"]
    return sum(map(len, cookies)) > MOST_COOKIE_BYTES or sum(value.count(b";") for value in cookies) > MOST_COOKIES


def address_of(scope: Mapping[str, Any]) -> str:
    """Return the address of a handshake's client: that of the connection, unless ``TRUSTED_PROXIES`` has it. Then it is
    the last one in ``X-Forwarded-For`` that isn't a trusted proxy's too. Of an IPv6 address it is the site's part.
    """
    trusted = _networks(tuple(messaging_settings.TRUSTED_PROXIES))
    connected: str = (scope.get("client") or ("",))[0]
    if not trusted:
        return _site(_read(connected), connected)
    text, address = connected, _read(connected)
    for told in _forwarded(scope["headers"]):
        # A server that listens on a socket of the file system is connected by a program of its own machine alone.
        if text and not any(address in network for network in trusted if address is not None):
            break
        text, address = told, _read(told)
    return _site(address, text)


def _address_key(scope: Mapping[str, Any]) -> Key:
    return Key(Scope.ADDRESS, "", address_of(scope))


def _hashed_session(request: HttpRequest) -> str:
    # What is told to other processes must not open anybody's session.
    key = session_key_of(request)
    return sha256(key.encode()).hexdigest()[:32] if key else ""


@lru_cache(maxsize=4)
def _networks(written: tuple[str, ...]) -> tuple[IPv4Network | IPv6Network, ...]:
    return tuple(ip_network(network) for network in written)


def _forwarded(headers: Iterable[tuple[bytes, bytes]]) -> Iterator[str]:
    """Yield the addresses that proxies have told, the last one first."""
    told = b",".join(value for name, value in headers if name == b"x-forwarded-for")
    for address in reversed(told.decode("latin-1").rsplit(",", MOST_HOPS)[-MOST_HOPS:] if told else []):
        yield address.strip()


def _read(text: str) -> IPv4Address | IPv6Address | None:
    """Read an address, with or without a port."""
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        address = ip_address(text)
    except ValueError:
        return None
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return mapped or address


def _site(address: IPv4Address | IPv6Address | None, text: str) -> str:
    if isinstance(address, IPv6Address):
        return str(IPv6Network((address, IPV6_SITE), strict=False).network_address)
    return str(address) if address is not None else text[:64]

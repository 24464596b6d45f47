"""Handshakes are limited by what Django reads of them, and strangers by their address, before the database is asked."""

from __future__ import annotations

import asyncio
import time
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
from django.conf import settings as django_settings
from django.contrib.sessions.models import Session

from django_tenant_messaging.limits.buckets import MAX_DEBT
from django_tenant_messaging.realtime import arrivals, callers
from django_tenant_messaging.realtime.callers import address_of
from django_tenant_messaging.realtime.handshake import find_tenants, find_together
from django_tenant_messaging.realtime.hub import hub_of_this_loop
from django_tenant_messaging.tenancy import run_in_tenant
from tests.harness.peer import another_hub, scope_for, session_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.harness.peer import Peers
    from tests.harness.tenants import Tenant

#: What is taken doesn't come back while a test runs.
NEVER = 0.001
NAME = django_settings.SESSION_COOKIE_NAME


@pytest.fixture
def allow(settings: Any) -> Callable[..., None]:
    """`allow(ADDRESS=3)` lets three handshakes of an address fail, once."""

    def allow(**bursts: float) -> None:
        settings.TENANT_MESSAGING = {f"RATE_LIMIT_{name}": (NEVER, burst) for name, burst in bursts.items()}

    return allow


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many handshakes the database was asked about, in each call."""
    found: list[int] = []

    def noting(find: Any, schema_name: str, requests: Any) -> Any:
        found.append(len(requests))
        return find(schema_name, requests)

    for find in (find_tenants, find_together):
        monkeypatch.setattr(arrivals, find.__name__, partial(noting, find))
    return found


@pytest.fixture
async def session(acme: Tenant, globex: Tenant, people: Any) -> str:
    """A session of alice."""
    return await run_in_tenant("acme", session_of, acme.users["alice"])


async def code_for(peers: Peers, cookie: str = "", *, address: str = "10.0.0.1", **fields: Any) -> int | None:
    """The close code of a handshake with that Cookie header."""
    scope = scope_for("acme.localhost", client=[address, 1], **fields)
    if cookie:
        scope["headers"].append((b"cookie", cookie.encode()))
    return (await peers.open(scope)).close_code


def spellings(key: str) -> list[str]:
    """Cookie headers that Django reads as the same session."""
    return [
        f"{NAME}={key}",
        f"{NAME}=invented; {NAME}={key}",
        f"{NAME}=other; theme=dark; {NAME} = {key} ",
        f'{NAME}="{key}"',
        *(f'{NAME}="{key[:place]}\\{ord(key[place]):03o}{key[place + 1 :]}"' for place in range(3)),
    ]


async def test_a_session_is_one_however_its_cookie_is_written(
    session: str, peers: Peers, allow: Callable[..., None]
) -> None:
    allow(CONNECT=3)
    codes = [await code_for(peers, cookie) for cookie in spellings(session)]
    assert codes == [None] * 3 + [4429] * 4


async def test_a_cookie_in_front_of_the_real_one_charges_nobody_else(
    acme: Tenant, session: str, peers: Peers, allow: Callable[..., None]
) -> None:
    allow(CONNECT=2)
    others = await run_in_tenant("acme", session_of, acme.users["bob"])
    for _ in range(2):
        assert await code_for(peers, f"{NAME}={others}; {NAME}={session}") is None
    assert await code_for(peers, f"{NAME}={others}") is None


async def test_invented_sessions_are_counted_by_address_and_refused_before_the_database_is_asked(
    acme: Tenant, session: str, peers: Peers, allow: Callable[..., None], asked: list[int]
) -> None:
    allow(ADDRESS=3)
    cookies = ["", *(f"{NAME}={number:032d}" for number in range(5))]
    assert [await code_for(peers, cookie) for cookie in cookies] == [4401] * 3 + [4429] * 3
    assert sum(asked) == 3
    assert await code_for(peers, f"{NAME}=invented", address="10.0.0.2") == 4401
    assert await code_for(peers, f"{NAME}={session}", address="10.0.0.2") is None
    # Before it was proven, a session says nothing.
    bobs = await run_in_tenant("acme", session_of, acme.users["bob"])
    assert await code_for(peers, f"{NAME}={bobs}") == 4429


async def test_what_is_foreign_is_counted_by_address_too(
    session: str, peers: Peers, allow: Callable[..., None]
) -> None:
    allow(ADDRESS=2)
    cookie = f"{NAME}={session}"
    assert await code_for(peers, cookie, origin="https://evil.example") == 4403
    scope = scope_for("nobody.localhost", client=["10.0.0.1", 1])
    assert (await peers.open(scope)).close_code == 4404
    assert await code_for(peers) == 4429


async def test_who_was_let_in_comes_back_whatever_others_do_at_that_address(
    session: str, peers: Peers, allow: Callable[..., None]
) -> None:
    allow(ADDRESS=1)
    cookie = f"{NAME}={session}"
    assert await code_for(peers, cookie) is None
    assert [await code_for(peers) for _ in range(2)] == [4401, 4429]
    assert await code_for(peers, cookie) is None
    # Until the session ends.
    await run_in_tenant("acme", Session.objects.all().delete)
    assert [await code_for(peers, cookie) for _ in range(2)] == [4401, 4429]


async def test_only_so_many_sessions_are_remembered(
    acme: Tenant, session: str, peers: Peers, allow: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(callers, "MOST_PROVEN", 1)
    allow(ADDRESS=1)
    bobs = await run_in_tenant("acme", session_of, acme.users["bob"])
    for key in (session, bobs, session, bobs):
        assert await code_for(peers, f"{NAME}={key}") is None
    assert await code_for(peers) == 4401
    assert await code_for(peers, f"{NAME}={session}") == 4429
    assert await code_for(peers, f"{NAME}={bobs}") is None


async def test_strangers_at_the_same_moment_are_all_counted(
    people: Any, peers: Peers, allow: Callable[..., None]
) -> None:
    allow(ADDRESS=3)
    codes = await asyncio.gather(*(code_for(peers, f"{NAME}={number:032d}") for number in range(10)))
    assert set(codes) == {4401}
    (bucket,) = (bucket for key, bucket in hub_of_this_loop().limiter._buckets.items() if key.scope == "address")
    now = time.monotonic()
    assert 1 / NEVER < bucket.wait(1, now) <= 1 / NEVER + MAX_DEBT


async def test_other_processes_hear_of_an_address(people: Any, peers: Peers, allow: Callable[..., None]) -> None:
    allow(ADDRESS=4)
    async with another_hub(peers) as other:
        codes = [await code_for(peers) for _ in range(5)]
        assert codes == [4401] * 4 + [4429]
        async with asyncio.timeout(10):
            while not len(other.limiter):  # noqa: ASYNC110 - nothing tells when it has heard
                await asyncio.sleep(0.05)
        scope = scope_for("acme.localhost", client=["10.0.0.1", 1])
        assert (await peers.open(scope, hub=other)).close_code == 4429
        scope = scope_for("acme.localhost", client=["10.0.0.2", 1])
        assert (await peers.open(scope, hub=other)).close_code == 4401


LARGE = [
    [(b"x", b"y")] * 101,
    [(b"cookie", b"a=" + b"b" * 16_384)],
    [(b"cookie", b"a=b" * 3_000)] * 2,
    [(b"cookie", b"a;" * 301)],
    [(b"cookie", b'a="\\101";' * 200)] * 2,
]


@pytest.mark.parametrize("headers", LARGE, ids=["headers", "a cookie", "two cookies", "cookies", "quoted"])
async def test_a_handshake_that_is_too_large_is_not_read(
    headers: list[tuple[bytes, bytes]], session: str, peers: Peers, asked: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(arrivals, "handshake_request", None)
    scope = scope_for("acme.localhost", cookie=session)
    scope["headers"] += headers
    assert (await peers.open(scope)).close_code == 4413
    assert asked == []


# Addresses


PROXIES = ["10.0.0.0/8", "192.168.1.1", "fd00::/8"]


@pytest.mark.parametrize(
    ("client", "forwarded", "trusted", "address"),
    [
        ("203.0.113.7", [], [], "203.0.113.7"),
        # Nobody is trusted unless it is said.
        ("10.0.0.1", ["198.51.100.1"], [], "10.0.0.1"),
        ("203.0.113.7", ["198.51.100.1"], PROXIES, "203.0.113.7"),
        ("10.0.0.1", [], PROXIES, "10.0.0.1"),
        ("10.0.0.1", ["198.51.100.1"], PROXIES, "198.51.100.1"),
        ("192.168.1.1", ["198.51.100.1"], PROXIES, "198.51.100.1"),
        ("192.168.1.2", ["198.51.100.1"], PROXIES, "192.168.1.2"),
        # What the client wrote stands further left.
        ("10.0.0.1", ["1.1.1.1, 198.51.100.1, 10.9.9.9"], PROXIES, "198.51.100.1"),
        ("10.0.0.1", ["1.1.1.1", "198.51.100.1", "10.9.9.9,10.8.8.8"], PROXIES, "198.51.100.1"),
        ("10.0.0.1", ["10.1.1.1, 10.2.2.2"], PROXIES, "10.1.1.1"),
        ("10.0.0.1", [",".join(["1.1.1.1"] * 5_000 + ["198.51.100.1"])], PROXIES, "198.51.100.1"),
        # Without a name, as by a socket of the file system.
        (None, ["1.1.1.1, 198.51.100.1"], PROXIES, "198.51.100.1"),
        (None, ["198.51.100.1"], [], ""),
        (None, [], PROXIES, ""),
        # Some proxies tell the port.
        ("10.0.0.1", ["198.51.100.1:4711"], PROXIES, "198.51.100.1"),
        ("10.0.0.1", ["[2001:db8:1:2:3:4:5:6]:443"], PROXIES, "2001:db8:1:2::"),
        # A customer has a whole network of those.
        ("2001:db8:1:2:3:4:5:6", [], [], "2001:db8:1:2::"),
        ("2001:db8:1:2:ffff::", [], [], "2001:db8:1:2::"),
        ("::ffff:203.0.113.7", [], [], "203.0.113.7"),
        ("::ffff:10.0.0.1", ["198.51.100.1"], PROXIES, "198.51.100.1"),
        ("fd00::1", ["198.51.100.1"], PROXIES, "198.51.100.1"),
        ("fe80::1%eth0", [], [], "fe80::"),
        ("2001:db8:1:2::1", ["198.51.100.1"], ["2001:db8:1::/48"], "198.51.100.1"),
        ("2001:db8:1:2::1", ["198.51.100.1"], ["2001:db8:2::/48"], "2001:db8:1:2::"),
        ("10.0.0.1", ["::ffff:198.51.100.1"], PROXIES, "198.51.100.1"),
        ("10.0.0.1", ["[::ffff:198.51.100.1]:443"], PROXIES, "198.51.100.1"),
        ("10.0.0.1", ["2001:DB8:1:2::9 "], PROXIES, "2001:db8:1:2::"),
        ("10.0.0.1", ["[fd00::7]:443, 10.2.2.2"], PROXIES, "fd00::"),
        ("10.0.0.1", ["[2001:db8:1:2::1"], PROXIES, "2001:db8:1:2::"),
        # HTTP's lists may have empty elements, which aren't any.
        ("10.0.0.1", ["1.1.1.1, 198.51.100.1, ,"], PROXIES, "198.51.100.1"),
        ("10.0.0.1", ["1.1.1.1, 198.51.100.1:port"], PROXIES, "198.51.100.1"),
        ("10.0.0.1", ['for="[2001:db8::1]"'], PROXIES, 'for="[2001:db8::1]"'),
        ("10.0.0.1", ["unknown"], PROXIES, "unknown"),
        ("10.0.0.1", ["x" * 1_000], PROXIES, "x" * 64),
        ("10.0.0.1", ["1.1.1.1, unknown"], PROXIES, "unknown"),
        ("testclient", ["198.51.100.1"], PROXIES, "testclient"),
    ],
)
def test_the_address_of_a_client(
    client: str | None, forwarded: list[str], trusted: list[str], address: str, settings: Any
) -> None:
    settings.TENANT_MESSAGING = {"TRUSTED_PROXIES": trusted}
    headers = [(b"x-forwarded-for", value.encode()) for value in forwarded]
    scope = {"client": None if client is None else [client, 1], "headers": [(b"host", b"acme.localhost"), *headers]}
    assert address_of(scope) == address


async def test_behind_a_trusted_proxy_each_client_has_a_limit_of_its_own(
    people: Any, peers: Peers, settings: Any
) -> None:
    settings.TENANT_MESSAGING = {"RATE_LIMIT_ADDRESS": (NEVER, 1), "TRUSTED_PROXIES": ["10.0.0.1"]}

    async def through_the_proxy(address: str) -> int | None:
        scope = scope_for("acme.localhost", client=["10.0.0.1", 1])
        scope["headers"].append((b"x-forwarded-for", address.encode()))
        return (await peers.open(scope)).close_code

    assert [await through_the_proxy("198.51.100.1") for _ in range(2)] == [4401, 4429]
    assert await through_the_proxy("198.51.100.1, 198.51.100.2") == 4401
    assert await through_the_proxy("198.51.100.2, 198.51.100.1") == 4429

"""What a real uvicorn takes of a client before the application sees it: little, whatever uvicorn was told."""

from __future__ import annotations

import json
import re
import socket
import struct
import zlib
from contextlib import ExitStack, suppress
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect
from websockets.typing import Origin, Subprotocol

from tests.harness.server import Server

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.harness.tenants import Tenant

IMPLEMENTATIONS = ["websockets-sansio", "websockets", *(["wsproto"] if find_spec("wsproto") else [])]
LARGEST = 2 * 131_072
MIB = 1024 * 1024


@pytest.fixture
def uvicorn(tenants: Any, database_url: str, tmp_path: Path) -> Iterator[Callable[..., Server]]:
    """`uvicorn("--flag", "value", NAME="environment")` starts one with these flags alone."""
    with ExitStack() as stack:

        def start(*arguments: str, application: str = "example.asgi:application", **env: str) -> Server:
            server = Server(database_url, tmp_path / "uvicorn.log", env, application=application, arguments=arguments)
            stack.callback(server.stop)
            server.start()
            return server

        yield start


def open_socket(server: Server, tenant: Tenant, cookie: str) -> ClientConnection:
    """A socket of somebody who is logged in and offers compression, as browsers do."""
    return connect(
        server.websocket(tenant),
        sock=socket.create_connection(("127.0.0.1", server.port)),
        origin=Origin(server.origin(tenant)),
        subprotocols=[Subprotocol("tenant-messaging.v1")],
        additional_headers={"Cookie": cookie},
        max_size=None,
    )


def bomb() -> bytes:
    """A frame of some 15 KiB that is 15 MiB when it is decompressed."""
    deflate = zlib.compressobj(wbits=-12)
    data = deflate.compress(b"a" * (15 * MIB)) + deflate.flush(zlib.Z_SYNC_FLUSH)
    data = data.removesuffix(b"\x00\x00\xff\xff")
    # The last frame of a text, compressed; with a length of two bytes, and masked by zeros.
    return struct.pack("!BBH4x", 0xC1, 0xFE, len(data)) + data


def closed_by(socket: ClientConnection) -> int:
    with suppress(ConnectionClosed):
        while True:
            socket.recv(timeout=15)
    return socket.close_code or 0


def most_memory(server: Server) -> int:
    """The most bytes that the process ever had, by the kernel's count."""
    (peak,) = re.findall(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{server.pid}/status").read_text())
    return int(peak) * 1024


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_compressed_frames_take_no_memory_of_a_server_without_flags(
    implementation: str, uvicorn: Callable[..., Server], acme: Tenant, people: tuple[str, ...]
) -> None:
    server = uvicorn("--ws", implementation)
    cookie = server.login(acme, "alice")
    with open_socket(server, acme, cookie) as first:
        assert "hello" in first.recv(timeout=15)
    before = most_memory(server)
    with open_socket(server, acme, cookie) as alice:
        accepted = alice.protocol.extensions
        with suppress(OSError):
            alice.socket.sendall(b"".join(bomb() for _ in range(40)))
        # What wasn't agreed on is against the protocol; each implementation has its own word for that.
        assert closed_by(alice) in {1002, 1006, 1011}
    taken = most_memory(server) - before
    assert taken < 40 * MIB
    assert accepted == []
    with open_socket(server, acme, cookie) as again:
        assert "hello" in again.recv(timeout=15)
    said = server.log.read_text()
    assert said.count("uvicorn takes messages of up to 16777216 bytes before they can be refused") == 1
    assert f"Start it with --ws-max-size {LARGEST} --ws-per-message-deflate false." in said


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
@pytest.mark.parametrize(("size", "code"), [(131_073, 4413), (200_000, 4413), (300_000, 1009)])
def test_what_is_too_large_is_closed_by_us_or_before_us(
    implementation: str, size: int, code: int, uvicorn: Callable[..., Server], acme: Tenant, people: tuple[str, ...]
) -> None:
    server = uvicorn("--ws", implementation)
    with open_socket(server, acme, server.login(acme, "alice")) as alice:
        alice.send(json.dumps({"type": "ping", "id": "1", "x": "a" * size})[:size])
        assert closed_by(alice) == code


def test_flags_that_bound_are_left_and_nothing_is_said(
    uvicorn: Callable[..., Server], acme: Tenant, people: tuple[str, ...]
) -> None:
    server = uvicorn("--ws-max-size", "150000", "--ws-per-message-deflate", "false")
    with open_socket(server, acme, server.login(acme, "alice")) as alice:
        alice.send("a" * 160_000)
        assert closed_by(alice) == 1009
    assert "uvicorn" not in server.log.read_text().replace("uvicorn.", "")


def test_a_size_below_ours_is_told(uvicorn: Callable[..., Server], acme: Tenant) -> None:
    server = uvicorn("--ws-max-size", "100000", "--ws-per-message-deflate", "false")
    server.request(acme, "GET", "/accounts/login/")
    assert "uvicorn takes messages of 100000 bytes at most, and MAX_FRAME_BYTES is 131072" in server.log.read_text()


def test_the_bound_follows_the_setting(uvicorn: Callable[..., Server], acme: Tenant, people: tuple[str, ...]) -> None:
    server = uvicorn(TENANT_MESSAGING=json.dumps({"MAX_FRAME_BYTES": 400_000}))
    with open_socket(server, acme, server.login(acme, "alice")) as alice:
        alice.send("a" * 700_000)
        assert closed_by(alice) == 4413


def test_a_host_that_routes_by_itself_is_told_and_keeps_its_limits(
    uvicorn: Callable[..., Server], acme: Tenant, people: tuple[str, ...]
) -> None:
    login = uvicorn()
    cookie = login.login(acme, "alice")
    server = uvicorn("--lifespan", "off", application="tests.routed_host:application")
    for _ in range(2):
        with open_socket(server, acme, cookie) as alice:
            assert alice.protocol.extensions != []
            assert "hello" in alice.recv(timeout=15)
    assert server.log.read_text().count("a client can fill the memory. Start it with --ws-max-size") == 1


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_what_was_agreed_on_before_the_server_was_told_is_refused(
    implementation: str, uvicorn: Callable[..., Server], acme: Tenant, people: tuple[str, ...]
) -> None:
    """Without its lifespan uvicorn first calls the application when it has agreed on compression."""
    cookie = uvicorn().login(acme, "alice")
    server = uvicorn("--ws", implementation, "--lifespan", "off")
    with suppress(InvalidStatus), open_socket(server, acme, cookie) as first:
        # wsproto agrees when the application accepts.
        assert first.protocol.extensions == []
    with open_socket(server, acme, cookie) as second:
        assert second.protocol.extensions == []
        assert "hello" in second.recv(timeout=15)


def test_a_wrapper_that_hides_the_server_is_told(
    uvicorn: Callable[..., Server], acme: Tenant, people: tuple[str, ...]
) -> None:
    server = uvicorn(application="tests.routed_host:wrapped")
    with open_socket(server, acme, server.login(acme, "alice")) as alice:
        assert "hello" in alice.recv(timeout=15)
    assert f"can't bound it. Start it with --ws-max-size {LARGEST}" in server.log.read_text()


def test_another_server_is_left_alone() -> None:
    from django_tenant_messaging.realtime.server_bounds import bound_server, inspect_server

    class Other:
        config = type("Config", (), {"ws_max_size": 10**9})()

        async def receive(self) -> dict[str, Any]:
            return {}

    async def plain() -> dict[str, Any]:
        return {}

    for receive in (Other().receive, plain):
        bound_server(receive)
        inspect_server(receive)
    assert Other.config.ws_max_size == 10**9

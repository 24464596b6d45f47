"""What a server reads of a handshake, and what is read here, are one: on real servers, by bytes on a real connection.

Whatever the spelling, a handshake is of the tenant that a page of the same address is of, or it is refused.
"""

from __future__ import annotations

import json
import socket
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

from django_tenant_messaging import actions
from tests.harness.server import Daphne, Server

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.harness.tenants import Tenant

PATH = "/ws/messages/"
#: What is taken doesn't come back while a test runs.
ONCE = {"RATE_LIMIT_ADDRESS": (0.001, 3)}
SERVERS: dict[str, tuple[type[Server], tuple[str, ...]]] = {
    "uvicorn": (Server, ("--no-proxy-headers",)),
    "uvicorn, wsproto": (Server, ("--no-proxy-headers", "--ws", "wsproto")),
    "daphne": (Daphne, ()),
}


@pytest.fixture(scope="module", params=SERVERS)
def kind(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


class Door:
    """A server, and what knocking at it leads to."""

    def __init__(self, server: Server) -> None:
        self.server = server

    def knock(self, headers: list[str], *, path: str = PATH) -> str:
        """Send a handshake, and return `hello acme` by the name of the user's room, `close 4404` or `http 400`."""
        lines = [
            f"GET {path} HTTP/1.1",
            *headers,
            "Connection: Upgrade",
            "Upgrade: websocket",
            "Sec-WebSocket-Version: 13",
            "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
            "Sec-WebSocket-Protocol: tenant-messaging.v1",
        ]
        with socket.create_connection(("127.0.0.1", self.server.port), 10) as connection:
            connection.sendall("\r\n".join([*lines, "", ""]).encode("latin-1"))
            stream = connection.makefile("rb")
            status = stream.readline().split(b" ")[1].decode()
            while stream.readline().strip():
                pass
            if status != "101":
                return f"http {status}"
            opcode, length = stream.read(1)[0] & 15, stream.read(1)[0]
            body = stream.read(int.from_bytes(stream.read(2)) if length == 126 else length)
        if opcode == 8:
            return f"close {int.from_bytes(body[:2])}"
        return f"hello {json.loads(body)['rooms'][0]['name']}"


@pytest.fixture
def doors(kind: str, acme: Tenant, globex: Tenant, people: Any, database_url: str, tmp_path: Path) -> Iterator[Any]:
    """`doors(LIMIT=...)` is a server with those settings; alice has a room in each tenant, of the tenant's name."""
    for tenant in (acme, globex):
        with tenant.activated():
            actions.create_room(tenant.users["alice"], name=tenant.schema_name)
    started: list[Server] = []

    def start(**settings: Any) -> Door:
        server_class, arguments = SERVERS[kind]
        env = {"TENANT_MESSAGING": json.dumps(settings)}
        server = server_class(database_url, tmp_path / "server.log", env, arguments=arguments)
        started.append(server)
        server.start()
        return Door(server)

    yield start
    for server in started:
        server.stop()


class Row(NamedTuple):
    """A spelling; `{acme}` and `{globex}` are sessions of alice's there, `{port}` is the server's."""

    label: str
    outcomes: set[str]
    headers: list[str]
    path: str = PATH


OWN = ["Host: acme.localhost:{port}", "Origin: http://acme.localhost:{port}", "Cookie: {acme}"]
HOST, ORIGIN, COOKIE = OWN
IN = {"hello acme"}
#: Some servers refuse by themselves what others hand on, to be refused here.
OUT = {"http 400", "close 4404", "close 4403", "close 4401"}
UNSERVED = {"http 400", "http 403"}
"""Nothing is served at that path: the handshake isn't looked at."""
ROWS = [
    Row("plain", IN, OWN),
    Row("a query", IN, OWN, PATH + "?room=1"),
    Row("an absolute address", IN | UNSERVED, OWN, "http://acme.localhost:{port}" + PATH),
    Row("the other's absolute address", IN | UNSERVED, OWN, "http://globex.localhost:{port}" + PATH),
    # The path has been decoded once by the server, and isn't decoded again.
    Row("an escaped letter of the path", IN, OWN, "/%77s/messages/"),
    Row("an escaped slash", IN, OWN, "/ws/messages%2f"),
    Row("escaped twice", UNSERVED, OWN, "/%2577s/messages/"),
    Row("two slashes", UNSERVED, OWN, "//ws/messages/"),
    Row("dots", UNSERVED, OWN, "/ws/./messages/"),
    Row("capitals", UNSERVED, OWN, "/WS/messages/"),
    Row("a NUL", UNSERVED, OWN, "/ws/messages/%00"),
    # Host
    Row("the host in capitals", IN, ["HOST: ACME.localhost:{port}", ORIGIN, COOKIE]),
    Row("the host with a dot", IN, ["Host: acme.localhost.:{port}", ORIGIN, COOKIE]),
    Row("two hosts", OUT, [HOST, "Host: globex.localhost:{port}", ORIGIN, COOKIE]),
    Row("two hosts, the own one last", OUT, ["Host: globex.localhost:{port}", *OWN]),
    Row("the same host twice", OUT, [HOST, *OWN]),
    Row("two hosts in one header", OUT, ["Host: acme.localhost, globex.localhost", ORIGIN, COOKIE]),
    Row("no host", OUT, [ORIGIN, COOKIE]),
    Row("a host behind a space", IN | OUT, ["Host:  acme.localhost:{port}  ", ORIGIN, COOKIE]),
    Row("a host by another name", IN, [*OWN, "X-Forwarded-Host: globex.localhost"]),
    Row(
        "an underscore for the hyphen", IN, [*OWN, "X_Forwarded_Host: globex.localhost", "HTTP_HOST: globex.localhost"]
    ),
    # Origin
    Row("a foreign origin", {"close 4403"}, [HOST, "Origin: http://globex.localhost:{port}", COOKIE]),
    Row("two origins", OUT, [*OWN, "Origin: http://globex.localhost:{port}"]),
    Row("two origins, the own one last", OUT, [HOST, "Origin: http://globex.localhost:{port}", ORIGIN, COOKIE]),
    Row("no origin", {"close 4403"}, [HOST, COOKIE]),
    # Cookies
    Row("the session of the other tenant", {"close 4401"}, [HOST, ORIGIN, "Cookie: {globex}"]),
    Row("two cookie headers, the own one last", IN | OUT, [HOST, ORIGIN, "Cookie: {globex}", COOKIE]),
    Row("two cookie headers, the other's last", OUT, [*OWN, "Cookie: {globex}"]),
    Row("two cookies in one header", IN, [HOST, ORIGIN, "Cookie: {globex}; {acme}"]),
    Row("the other's cookie last", {"close 4401"}, [HOST, ORIGIN, "Cookie: {acme}; {globex}"]),
]


def test_a_handshake_is_of_one_tenant_however_it_is_written(doors: Any, acme: Tenant, globex: Tenant) -> None:
    door = doors(RATE_LIMIT_ADDRESS=None, RATE_LIMIT_CONNECT=None)
    names = {tenant.schema_name: door.server.login(tenant, "alice") for tenant in (acme, globex)}
    names["port"] = str(door.server.port)

    def outcome(row: Row) -> str:
        headers = [header.format(**names) for header in row.headers]
        return str(door.knock(headers, path=row.path.replace("{port}", names["port"])))

    found = {row.label: outcome(row) for row in ROWS}
    assert {row.label: found[row.label] for row in ROWS if found[row.label] not in row.outcomes} == {}


@pytest.mark.parametrize("invented", ["198.51.100.{n}", "[2001:db8::{n}]:443", "1.1.1.1, 198.51.100.{n}", "{n}"])
def test_an_invented_address_evades_no_limit(doors: Any, invented: str) -> None:
    door = doors(**ONCE)
    host = [f"Host: acme.localhost:{door.server.port}", f"Origin: http://acme.localhost:{door.server.port}"]
    codes = [door.knock([*host, f"X-Forwarded-For: {invented.format(n=number)}"]) for number in range(5)]
    assert codes[:3] == ["close 4401"] * 3
    assert set(codes[3:]) <= {"http 429", "close 4429"}


def test_behind_a_trusted_proxy_the_last_address_counts(doors: Any) -> None:
    door = doors(**ONCE, TRUSTED_PROXIES=["127.0.0.0/8"])
    host = [f"Host: acme.localhost:{door.server.port}", f"Origin: http://acme.localhost:{door.server.port}"]
    from_sites = ["2001:db8:1:2::1", "[2001:db8:1:2::2]:443", "2001:0DB8:1:2:ffff::3", "2001:db8:1:2::4"]
    codes = [door.knock([*host, f"X-Forwarded-For: 1.1.1.{n}, {site}"]) for n, site in enumerate(from_sites)]
    assert codes[:3] == ["close 4401"] * 3
    assert codes[3] in {"http 429", "close 4429"}
    assert door.knock([*host, "X-Forwarded-For: 2001:db8:1:3::1"]) == "close 4401"
    assert door.knock([*host, "X-Forwarded-For: 2001:db8:1:3::1", "X-Forwarded-For: 2001:db8:1:2::9"]) == codes[3]

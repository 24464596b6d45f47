"""A connection that may not be gets the close code that says why, costs nobody else, and leaves nothing behind."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
from django.contrib.auth import get_user, get_user_model
from django.contrib.sessions.backends.db import SessionStore
from django.contrib.sessions.models import Session
from django.db import connection
from django.http import HttpRequest
from django.test import override_settings
from django.utils import timezone
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import InvalidStatus

from django_tenant_messaging.realtime.asgi import PATH
from django_tenant_messaging.tenancy import run_in_tenant
from django_tenant_messaging.tenancy.gate import verdicts
from tests.harness.peer import scope_for, session_of
from tests.harness.tenants import PASSWORD

if TYPE_CHECKING:
    from collections.abc import Callable

    from django.contrib.auth.models import User

    from tests.harness.peer import Peers
    from tests.harness.server import Server
    from tests.harness.tenants import Tenant

ROOM = 1
pytestmark = pytest.mark.usefixtures("team")


@dataclass(frozen=True)
class Knock:
    """A handshake: whose session (`""` for none) at which host, and what else it brings.

    The session is made in `acme`, of which and of the other tenant its maker is told.
    """

    code: int
    label: str
    host: str = "acme.localhost"
    session: Callable[[Tenant, Tenant], str] | str | None = None
    extra: dict[str, Any] = field(default_factory=dict)


def logged_in(acme: Tenant, _globex: Tenant) -> str:
    return session_of(acme.users["alice"])


def expired(acme: Tenant, globex: Tenant) -> str:
    key = logged_in(acme, globex)
    Session.objects.filter(pk=key).update(expire_date=timezone.now() - timedelta(seconds=1))
    return key


def logged_out(acme: Tenant, globex: Tenant) -> str:
    key = logged_in(acme, globex)
    SessionStore(key).flush()
    return key


def tampered(acme: Tenant, globex: Tenant) -> str:
    key = logged_in(acme, globex)
    session = Session.objects.get(pk=key)
    Session.objects.filter(pk=key).update(session_data=session.session_data[:-1] + "x")
    return key


def anonymous(_acme: Tenant, _globex: Tenant) -> str:
    store = SessionStore()
    store["basket"] = [1]
    store.save()
    return str(store.session_key)


def of_changed_password(_acme: Tenant, _globex: Tenant) -> str:
    user: User = get_user_model().objects.create_user("careful", password=PASSWORD)
    key = session_of(user)
    user.set_password("another")
    user.save()
    return key


def of_inactive_user(_acme: Tenant, _globex: Tenant) -> str:
    user: User = get_user_model().objects.create_user("retired", password=PASSWORD)
    key = session_of(user)
    user.is_active = False
    user.save()
    return key


def of_deleted_user(_acme: Tenant, _globex: Tenant) -> str:
    user: User = get_user_model().objects.create_user("former", password=PASSWORD)
    key = session_of(user)
    user.delete()
    return key


def of_other_tenant(acme: Tenant, globex: Tenant) -> str:
    """A session of the same user id and password hash, put where `acme` finds it: Django's own check passes."""
    password = get_user_model().objects.get(username="alice").password
    with globex.activated():
        get_user_model().objects.filter(username="alice").update(password=password)
        key = session_of(get_user_model().objects.get(username="alice"))
        row = Session.objects.get(pk=key)
    Session.objects.create(session_key=key, session_data=row.session_data, expire_date=row.expire_date)
    request = HttpRequest()
    request.session = SessionStore(key)
    assert get_user(request) == acme.users["alice"]
    return key


def origin(value: str | None) -> dict[str, Any]:
    return {"origin": value}


def header(name: bytes, value: bytes) -> dict[str, Any]:
    return {"added": (name, value)}


KNOCKS = [
    Knock(4401, "no cookie", session=""),
    Knock(4401, "unknown session", session="x" * 32),
    Knock(4401, "short session key", session="x"),
    Knock(4401, "NUL in an escaped cookie", session='"\\000\\000\\000\\000\\000\\000\\000\\000"'),
    Knock(4401, "high characters in an escaped cookie", session='"\\377\\376\\375\\374\\373\\372\\371\\370"'),
    Knock(4401, "long session key", session="x" * 7_000),
    Knock(4401, "expired", session=expired),
    Knock(4401, "logged out", session=logged_out),
    Knock(4401, "tampered with", session=tampered),
    Knock(4401, "anonymous", session=anonymous),
    Knock(4401, "password changed", session=of_changed_password),
    Knock(4401, "inactive user", session=of_inactive_user),
    Knock(4401, "deleted user", session=of_deleted_user),
    Knock(4401, "other tenant", session=of_other_tenant),
    Knock(4403, "no origin", extra=origin(None)),
    Knock(4403, "opaque origin", extra=origin("null")),
    Knock(4403, "other site", extra=origin("https://evil.example")),
    Knock(4403, "other tenant's page", extra=origin("http://globex.localhost")),
    Knock(4403, "public page", extra=origin("http://localhost")),
    Knock(4403, "name that begins alike", extra=origin("http://acme.localhost.evil.example")),
    Knock(4403, "name that ends alike", extra=origin("http://evilacme.localhost")),
    Knock(4403, "other port", extra=origin("http://acme.localhost:8001")),
    Knock(4403, "impossible port", extra=origin("http://acme.localhost:99999")),
    Knock(4403, "no number for a port", extra=origin("http://acme.localhost:x")),
    Knock(4403, "port of many digits", extra=origin("http://acme.localhost:" + "9" * 5_000)),
    Knock(4403, "with a path", extra=origin("http://acme.localhost/page")),
    Knock(4403, "with a user", extra=origin("http://acme.localhost@evil.example")),
    Knock(4403, "with credentials", extra=origin("http://user@acme.localhost")),
    Knock(4403, "without a scheme", extra=origin("acme.localhost")),
    Knock(4403, "other scheme", extra=origin("ftp://acme.localhost")),
    Knock(4403, "broken address", extra=origin("http://[acme.localhost")),
    Knock(4403, "control character", extra=origin("http://ac\x00me.localhost")),
    Knock(4403, "control character in another name", extra=origin("http://glo\x00bex.localhost")),
    Knock(4403, "two origins", extra=header(b"origin", b"http://acme.localhost")),
    Knock(4403, "insecure page of a secure socket", extra={"scheme": "wss"}),
    Knock(4404, "no tenant", host="unknown.localhost"),
    Knock(4404, "public schema", host="localhost"),
    Knock(4404, "not in ALLOWED_HOSTS", host="acme.example"),
    Knock(4404, "no host", host=""),
    Knock(4404, "no host name", host="acme localhost"),
    Knock(4404, "port of many digits", host="acme.localhost:" + "9" * 5_000),
    Knock(4404, "control character", host="ac\x00me.localhost"),
    Knock(4404, "two hosts", extra=header(b"host", b"globex.localhost")),
    Knock(4406, "other subprotocol", extra={"subprotocols": ["graphql-ws"]}),
    Knock(4406, "later version", extra={"subprotocols": ["tenant-messaging.v2", "tenant-messaging.v10"]}),
]


async def scope_of(knock: Knock, acme: Tenant, globex: Tenant) -> dict[str, Any]:
    make = logged_in if knock.session is None else knock.session
    cookie = make if isinstance(make, str) else await run_in_tenant("acme", make, acme, globex)
    given = {"origin": "http://acme.localhost", **knock.extra}
    added = given.pop("added", None)
    scope = scope_for(knock.host, cookie=cookie, **given)
    if added:
        scope["headers"].append(added)
    return scope


@pytest.mark.parametrize("code", sorted({knock.code for knock in KNOCKS}))
async def test_a_connection_that_may_not_be_gets_its_close_code(
    code: int, acme: Tenant, globex: Tenant, peers: Peers
) -> None:
    bob = await peers.connect(acme, "bob")
    for knock in (knock for knock in KNOCKS if knock.code == code):
        refused = await peers.open(await scope_of(knock, acme, globex))
        assert (knock.label, refused.close_code, refused.events) == (knock.label, code, [])
        await refused.close()
    assert (await bob.post(ROOM, "undisturbed"))["type"] == "ok"
    assert bob.unasked == []


async def test_a_user_who_may_not_use_the_tenant_is_forbidden(acme: Tenant, globex: Tenant, peers: Peers) -> None:
    cookie = await run_in_tenant("acme", logged_in, acme, globex)
    with override_settings(TENANT_MESSAGING={"TENANT_MEMBERSHIP": lambda _user, schema_name: schema_name != "acme"}):
        peer = await peers.open(scope_for(acme.host, cookie=cookie))
    assert (peer.close_code, peer.events) == (4403, [])


@pytest.mark.parametrize(
    ("host", "extra"),
    [
        ("acme.localhost", {}),
        ("ACME.localhost.", {}),
        ("acme.localhost:8000", {"origin": "http://acme.localhost:8000"}),
        ("www.acme.localhost", {"origin": "http://acme.localhost"}),
        ("acme.localhost", {"origin": "HTTP://ACME.LOCALHOST"}),
        ("acme.localhost", {"scheme": "wss", "origin": "https://acme.localhost"}),
        ("acme.localhost", {"subprotocols": []}),
        ("acme.localhost", {"subprotocols": ["other", "tenant-messaging.v1"]}),
    ],
)
async def test_a_connection_that_may_be_is_greeted(
    host: str, extra: dict[str, Any], acme: Tenant, globex: Tenant, peers: Peers
) -> None:
    peer = await peers.open(scope_for(host, cookie=await run_in_tenant("acme", logged_in, acme, globex), **extra))
    assert peer.close_code is None
    assert peer.hello["user"]["username"] == "alice"
    assert peer.subprotocol == ("tenant-messaging.v1" if extra.get("subprotocols") != [] else None)


@override_settings(TENANT_MESSAGING={"ALLOWED_ORIGINS": ["https://app.example.com"]})
async def test_an_allowed_origin_is_greeted(acme: Tenant, globex: Tenant, peers: Peers) -> None:
    cookie = await run_in_tenant("acme", logged_in, acme, globex)
    peer = await peers.open(scope_for(acme.host, cookie=cookie, origin="https://app.example.com"))
    assert peer.close_code is None


@pytest.mark.parametrize("path", ["/", "/ws/", "/ws/messages", PATH + "x", PATH.upper()])
async def test_no_other_path_is_accepted(path: str, acme: Tenant, globex: Tenant, peers: Peers) -> None:
    scope = scope_for(acme.host, cookie=await run_in_tenant("acme", logged_in, acme, globex), path=path)
    peer = await peers.open(scope)
    assert (peer.close_code, peer.subprotocol, peer.events) == (4404, None, [])


@pytest.mark.parametrize("missing", ["django_session", "django_tenant_messaging_membership"])
async def test_a_tenant_whose_tables_are_not_there_is_unavailable(
    missing: str, acme: Tenant, globex: Tenant, peers: Peers, caplog: pytest.LogCaptureFixture
) -> None:
    def rename(old: str, new: str) -> None:
        with connection.cursor() as cursor:
            cursor.execute(f"ALTER TABLE acme.{old} RENAME TO {new}")

    stranger = await peers.connect(globex, "alice")
    cookie = await run_in_tenant("acme", logged_in, acme, globex)
    await run_in_tenant("public", rename, missing, "put_aside")
    try:
        peer = await peers.open(scope_for(acme.host, cookie=cookie))
    finally:
        await run_in_tenant("public", rename, "put_aside", missing)
        verdicts.forget("acme")
    assert (peer.close_code, peer.events) == (4503, [])
    (told,) = (record for record in caplog.records if record.levelname == "CRITICAL")
    assert missing in told.getMessage()
    assert (await stranger.post(ROOM, "undisturbed"))["type"] == "ok"
    assert (await peers.connect(acme, "alice")).close_code is None


# The same through a real server


async def test_close_codes_reach_clients_through_a_server(acme: Tenant, globex: Tenant, server: Server) -> None:
    cookie = await asyncio.to_thread(server.login, acme, "alice")

    def open_socket(path: str = "", **headers: str) -> connect:
        known = {"Origin": server.origin(acme), "Cookie": cookie, **headers}
        return connect(
            server.websocket(acme) + path,
            host="127.0.0.1",
            port=server.port,
            additional_headers=known,
            proxy=None,
        )

    async def end(socket: ClientConnection) -> int | None:
        async with asyncio.timeout(10):
            await socket.wait_closed()
        return socket.close_code

    async with open_socket() as witness:
        for code, frame in ((4413, b"{}"), (4413, "x" * 200_000), (1009, "x" * 300_000)):
            async with open_socket() as socket:
                await socket.recv()
                await socket.send(frame)
                assert await end(socket) == code
        for code, headers in (
            (4401, {"Cookie": ""}),
            (4401, {"Cookie": 'sessionid="\\000\\000\\000\\000\\000\\000\\000\\000"'}),
            (4403, {"Origin": server.origin(globex)}),
        ):
            async with open_socket(**headers) as socket:
                assert await end(socket) == code
        with pytest.raises(InvalidStatus) as refused:
            await open_socket("elsewhere/")
        assert refused.value.response.status_code == 403

        assert json.loads(await witness.recv())["type"] == "hello"
        await witness.send('{"type":"ping","id":"1"}')
        assert json.loads(await witness.recv()) == {"type": "ok", "id": "1"}
    assert "Traceback" not in server.log.read_text()

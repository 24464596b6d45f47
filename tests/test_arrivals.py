"""Who connects at the same time is let in together: to each their own, and what is wrong with one is nobody else's."""

from __future__ import annotations

import asyncio
import threading
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest
from django.conf import settings as django_settings
from django.contrib.auth import BACKEND_SESSION_KEY, HASH_SESSION_KEY, SESSION_KEY
from django.contrib.auth.backends import ModelBackend
from django.contrib.sessions.backends.db import SessionStore
from django.test import override_settings

from django_tenant_messaging import actions
from django_tenant_messaging.exceptions import Unavailable
from django_tenant_messaging.realtime import arrivals, batching, presence
from django_tenant_messaging.realtime.batching import MAX_BATCH, MOST_CALLS, Batches
from django_tenant_messaging.realtime.close_codes import CloseCode
from django_tenant_messaging.realtime.handshake import Standing, identify, identify_together
from django_tenant_messaging.realtime.hub import hub_of_this_loop
from django_tenant_messaging.selectors import online_contacts_of, room_positions_of
from django_tenant_messaging.tenancy import current_schema, handshake_request, run_in_tenant
from example.customers.models import Domain
from tests.harness.peer import scope_for, session_of
from tests.harness.presence import connection_opened
from tests.harness.queries import exactly

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Coroutine, Sequence

    from tests.harness.peer import Peer, Peers
    from tests.harness.tenants import Tenant

CROWD = 30


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often each work was done in a tenant for a batch."""
    counted: Counter[str] = Counter()

    async def counting(schema_name: str, work: Callable[..., Any], *args: Any) -> Any:
        counted[work.__name__] += 1
        return await run_in_tenant(schema_name, work, *args)

    monkeypatch.setattr(batching, "run_in_tenant", counting)
    return counted


@pytest.fixture
def crowds(tenants: tuple[Tenant, Tenant]) -> dict[str, list[str]]:
    """The sessions of a crowd in each tenant: equal ids, and rooms of equal ids that are named after the tenant."""
    keys: dict[str, list[str]] = {}
    for tenant in tenants:
        users = [tenant.create_user(f"{tenant.schema_name}{number}") for number in range(CROWD)]
        with tenant.activated():
            for start in range(0, CROWD, 2):
                actions.create_room(users[start], name=f"{tenant.schema_name} {start // 2}", members=[users[start + 1]])
            keys[tenant.schema_name] = [session_of(user) for user in users]
    return keys


async def test_an_address_that_is_another_tenants_now_leads_there(
    acme: Tenant, globex: Tenant, crowds: dict[str, list[str]], peers: Peers, calls: Counter[str]
) -> None:
    """Where it led before is where the next one is asked for, in one call, and not what is answered."""
    own, theirs = crowds["acme"][0], crowds["globex"][0]

    async def outcome(key: str) -> Any:
        peer = await peers.open(scope_for(acme.host, cookie=key))
        return peer.close_code or (peer.hello["user"]["username"], peer.hello["rooms"][0]["name"])

    def move(**changed: Any) -> None:
        Domain.objects.filter(pk=domain.pk).update(**changed)

    domain = await run_in_tenant("public", lambda: Domain.objects.select_related("tenant").get(domain=acme.host))
    other = await run_in_tenant("public", lambda: Domain.objects.get(domain=globex.host).tenant)
    # The other tenant is served already: nobody is looked at a second time for being its first.
    assert (await peers.open(scope_for(globex.host, cookie=theirs))).close_code is None
    assert await outcome(own) == ("acme0", "acme 0")
    calls.clear()
    assert await outcome(own) == ("acme0", "acme 0")
    assert calls == {"find_together": 1, "_read_welcomes": 1}
    assert await outcome(theirs) == 4401
    try:
        await run_in_tenant("public", lambda: move(tenant=other))
        assert [await outcome(key) for key in (own, theirs, theirs)] == [4401, *[("globex0", "globex 0")] * 2]
        await run_in_tenant("public", lambda: move(domain="suspended.localhost"))
        assert [await outcome(key) for key in (own, theirs)] == [4404, 4404]
    finally:
        await run_in_tenant("public", lambda: move(domain=acme.host, tenant=domain.tenant))
    assert [await outcome(key) for key in (own, theirs)] == [("acme0", "acme 0"), 4401]


async def test_a_foreign_page_is_refused_also_where_the_address_is_known(
    acme: Tenant, globex: Tenant, crowds: dict[str, list[str]], peers: Peers
) -> None:
    for _ in range(2):
        await peers.open(scope_for(acme.host, cookie=crowds["acme"][0]))
        foreign = scope_for(acme.host, cookie=crowds["acme"][0], origin=f"http://{globex.host}")
        assert (await peers.open(foreign)).close_code == 4403


async def test_where_addresses_led_is_kept_of_so_many(
    acme: Tenant, crowds: dict[str, list[str]], peers: Peers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(arrivals, "MAX_GUESSES", 3)
    for port in range(1, 9):
        peer = await peers.open(scope_for(f"{acme.host}:{port}", cookie=crowds["acme"][0]))
        assert peer.close_code is None
        assert len(hub_of_this_loop().arrivals._guesses) <= 3


async def test_a_crowd_of_two_tenants_gets_each_their_own_in_a_few_calls(
    tenants: tuple[Tenant, Tenant], crowds: dict[str, list[str]], peers: Peers, calls: Counter[str]
) -> None:
    connecting = [
        (tenant.schema_name, number, peers.open(scope_for(tenant.host, cookie=key)))
        for number in range(CROWD)
        for tenant in tenants
        for key in [crowds[tenant.schema_name][number]]
    ]
    opened = await asyncio.gather(*(peer for _, _, peer in connecting))
    for (schema_name, number, _), peer in zip(connecting, opened, strict=True):
        assert peer.hello["user"]["username"] == f"{schema_name}{number}"
        assert [room["name"] for room in peer.hello["rooms"]] == [f"{schema_name} {number // 2}"]
        assert all(user["username"].startswith(schema_name) for user in peer.hello["online"])
    assert set(calls) == {"find_tenants", "identify_together", "_read_welcomes"}
    assert max(calls.values()) <= 12


async def test_each_of_a_crowd_is_refused_for_reasons_of_their_own(
    tenants: tuple[Tenant, Tenant], crowds: dict[str, list[str]], peers: Peers
) -> None:
    acme, globex = tenants
    keys = crowds["acme"]

    def spoil() -> None:
        type(acme.users["acme1"]).objects.filter(username="acme1").update(is_active=False)
        acme.users["acme2"].set_password("another")
        acme.users["acme2"].save()
        SessionStore(keys[3]).flush()
        changed(keys[6], **{SESSION_KEY: "no number"})

    await run_in_tenant("acme", spoil)
    scopes = [scope_for(acme.host, cookie=key) for key in keys]
    scopes += [
        scope_for(globex.host, cookie=keys[0]),
        scope_for("nowhere.localhost", cookie=keys[0]),
        scope_for(acme.host, cookie=keys[0], origin="http://globex.localhost"),
        scope_for(acme.host),
        scope_for(acme.host, cookie="\\000" * 9),
    ]
    opened = await asyncio.gather(*(peers.open(scope) for scope in scopes))
    wrong = {1: 4401, 2: 4401, 3: 4401, 6: 4503}
    wrong |= {CROWD: 4401, CROWD + 1: 4404, CROWD + 2: 4403, CROWD + 3: 4401, CROWD + 4: 4401}
    for place, peer in enumerate(opened):
        assert (place, peer.close_code) == (place, wrong.get(place))


class OneAtATime(ModelBackend):
    """A backend that finds users in its own way."""

    def get_user(self, user_id: Any) -> Any:
        user: Any = super().get_user(user_id)
        return None if user is None or user.username == "acme4" else user


class NoGuests(ModelBackend):
    """A backend that lets not all be signed in."""

    def user_can_authenticate(self, user: Any) -> bool:
        return super().user_can_authenticate(user) and user.username != "acme5"


BACKENDS = ["django.contrib.auth.backends.ModelBackend", *(f"{__name__}.{kind}" for kind in ("OneAtATime", "NoGuests"))]


def changed(key: str, **values: Any) -> str:
    """Return a session with other values; those that are None are taken out."""
    store = SessionStore(key)
    for name, value in values.items():
        if value is None:
            del store[name]
        else:
            store[name] = value
    store.save()
    return key


@override_settings(AUTHENTICATION_BACKENDS=BACKENDS)
def test_together_decides_as_alone(acme: Tenant, globex: Tenant, crowds: dict[str, list[str]]) -> None:
    """Each case twice: what is decided alone first may end the session."""
    binding = next(name for name in _session_names(globex, crowds["globex"][0]) if name.endswith("_tenant"))

    def cases(keys: list[str]) -> list[str]:
        return [
            keys[0],
            changed(keys[1], **{HASH_SESSION_KEY: "of an older password"}),
            changed(keys[2], **{SESSION_KEY: "-1"}),
            changed(keys[3], **{BACKEND_SESSION_KEY: "gone.Backend"}),
            changed(keys[4], **{BACKEND_SESSION_KEY: BACKENDS[1]}),
            changed(keys[5], **{BACKEND_SESSION_KEY: BACKENDS[2]}),
            changed(keys[6], **{BACKEND_SESSION_KEY: BACKENDS[1]}),
            changed(keys[7], **{BACKEND_SESSION_KEY: BACKENDS[2]}),
            changed(keys[8], **{binding: "another tenant's"}),
            changed(keys[9], **{binding: None}),
            changed(keys[10], **{SESSION_KEY: "999999"}),
            changed(keys[11], **{HASH_SESSION_KEY: None}),
            changed(keys[12], **{SESSION_KEY: None}),
            "short",
            "x" * 32,
            "",
        ]

    def outcomes(decide: Callable[[list[Any]], list[Standing | CloseCode]], keys: list[str]) -> list[Any]:
        requests = [handshake_request(scope_for(acme.host, cookie=key)) for key in keys]
        return [
            (found.user.get_username(), bool(found.session_key), found.password_hash[:9])
            if isinstance(found, Standing)
            else found
            for found in decide(requests)
        ]

    def identified(requests: list[Any]) -> list[Standing | CloseCode]:
        found = identify_together("acme", requests)
        assert any(found)
        return [standing or identify("acme", request) for request, standing in zip(requests, found, strict=True)]

    with acme.activated():
        keys = cases(crowds["acme"])
        users = [acme.users[f"acme{number}"] for number in range(CROWD)]
        again = cases([session_of(user, backend=BACKENDS[0]) for user in users])
        alone = outcomes(lambda requests: [identify("acme", request) for request in requests], keys)
        together = outcomes(identified, again)
    assert together == alone
    refused = [place for place, outcome in enumerate(alone) if outcome is CloseCode.UNAUTHENTICATED]
    assert refused == [1, 2, 3, 4, 5, 8, 10, 11, 12, 13, 14, 15]


def _session_names(tenant: Tenant, key: str) -> list[str]:
    with tenant.activated():
        return list(SessionStore(key).keys())


def test_a_session_of_an_older_secret_key_counts(acme: Tenant, crowds: dict[str, list[str]]) -> None:
    fallback = {"SECRET_KEY": "a new one", "SECRET_KEY_FALLBACKS": [django_settings.SECRET_KEY]}
    requests = [handshake_request(scope_for(acme.host, cookie=key)) for key in crowds["acme"][:2]]
    with override_settings(**fallback), acme.activated():
        assert identify_together("acme", requests) == [None, None]
        found = [identify("acme", request) for request in requests]
    assert [isinstance(standing, Standing) for standing in found] == [True, True]


@pytest.mark.parametrize("number", [2, CROWD])
def test_a_crowd_costs_as_many_queries_as_one(acme: Tenant, crowds: dict[str, list[str]], number: int) -> None:
    requests = [handshake_request(scope_for(acme.host, cookie=key)) for key in crowds["acme"][:number]]
    users = [acme.users[f"acme{place}"] for place in range(number)]
    with acme.activated():
        with exactly(2):
            found = identify_together("acme", requests)
        with exactly(1):
            rooms = room_positions_of(users, limit=9)
        with exactly(1):
            contacts = online_contacts_of(users)
    assert [standing.user for standing in found if isinstance(standing, Standing)] == users
    assert [[room.name for room in of] for of in rooms] == [[f"acme {place // 2}"] for place in range(number)]
    assert contacts == [[]] * number


def test_rooms_and_contacts_are_those_of_each_user(acme: Tenant, globex: Tenant, people: tuple[str, ...]) -> None:
    alice, bob, carol = (acme.users[name] for name in people)
    with globex.activated():
        actions.create_room(globex.users["carol"], name="foreign", members=list(globex.users.values()))
        connection_opened(globex.users["carol"], process="there")
    with acme.activated():
        for name in ("oldest", "older", "newest"):
            actions.create_room(alice, name=name, members=[bob])
        connection_opened(bob, process="here")
        asked = [bob, carol, alice, bob]
        rooms = [[room.name for room in of] for of in room_positions_of(asked, limit=2)]
        contacts = [[user.username for user in of] for of in online_contacts_of(asked)]
        assert (room_positions_of([], limit=2), online_contacts_of([])) == ([], [])
    assert rooms == [["newest", "older"], [], ["newest", "older"], ["newest", "older"]]
    assert contacts == [[], [], ["bob"], []]


async def test_sessions_elsewhere_are_looked_at_one_at_a_time(
    acme: Tenant, people: tuple[str, ...], peers: Peers, calls: Counter[str]
) -> None:
    cookies = {"SESSION_ENGINE": "django.contrib.sessions.backends.signed_cookies"}
    with override_settings(**cookies):
        client = await run_in_tenant("acme", acme.client, acme.users["alice"])
        peer = await peers.open(scope_for(acme.host, cookie=client.cookies["sessionid"].value))
    assert peer.hello["user"]["username"] == "alice"
    assert "identify_together" not in calls


# Batches


class Asking:
    """Questions whose work the test lets go on, and what was asked together in which schema."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str, list[Any]]] = []
        self.tasks: list[asyncio.Task[None]] = []
        self.working = asyncio.Event()
        self.may_answer = threading.Event()
        self.may_answer.set()
        self._loop = asyncio.get_running_loop()
        self.batches: Batches[Any, Any] = Batches(self.spawn, self.work)

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        self.tasks.append(asyncio.get_running_loop().create_task(work))

    def work(self, schema_name: str, items: Sequence[Any]) -> list[Any]:
        self.asked.append((schema_name, current_schema(), list(items)))
        self._loop.call_soon_threadsafe(self.working.set)
        assert self.may_answer.wait(10)
        for item in items:
            if isinstance(item, Exception):
                raise item
        return [(current_schema(), item) for item in items]

    async def answers(self, *items: Any, schema_name: str = "acme") -> list[Any]:
        return await asyncio.gather(*(self.batches.ask(schema_name, item) for item in items), return_exceptions=True)


@pytest.fixture
async def asking(tenants: tuple[Tenant, Tenant]) -> AsyncIterator[Asking]:
    asking = Asking()
    yield asking
    assert asking.batches._waiting == {}


async def test_what_is_asked_together_is_answered_together_in_its_tenant(asking: Asking) -> None:
    ours, theirs = await asyncio.gather(
        asking.answers(*range(MAX_BATCH + 1)), asking.answers(*range(3), schema_name="globex")
    )
    assert ours == [("acme", number) for number in range(MAX_BATCH + 1)]
    assert theirs == [("globex", number) for number in range(3)]
    assert sorted((asked, entered, len(items)) for asked, entered, items in asking.asked) == [
        ("acme", "acme", 1),
        ("acme", "acme", MAX_BATCH),
        ("globex", "globex", 3),
    ]


async def test_two_calls_run_at_a_time_and_who_comes_meanwhile_waits_for_one(asking: Asking) -> None:
    asking.may_answer.clear()
    answers = []
    for number in range(5):
        answers.append(asyncio.create_task(asking.answers(number)))
        await asyncio.sleep(0)
        if number < MOST_CALLS:
            await asyncio.wait_for(asking.working.wait(), 10)
            asking.working.clear()
    assert [items for _schema, _entered, items in asking.asked] == [[0], [1]]
    asking.may_answer.set()
    assert [await answer for answer in answers] == [[("acme", number)] for number in range(5)]
    assert [items for _schema, _entered, items in asking.asked][2:] == [[2, 3, 4]]


async def test_a_bad_question_fails_alone(asking: Asking) -> None:
    bad = ValueError("bad")
    assert await asking.answers(1, bad, 3) == [("acme", 1), bad, ("acme", 3)]


async def test_a_database_that_does_not_answer_is_not_asked_for_each(asking: Asking) -> None:
    down = Unavailable("down")
    assert await asking.answers(1, down, 3) == [down] * 3
    assert len(asking.asked) == 1


async def test_who_waits_no_more_keeps_nobody_from_the_answer(asking: Asking) -> None:
    gone, stays = (asyncio.create_task(asking.batches.ask("acme", number)) for number in range(2))
    await asyncio.sleep(0)
    gone.cancel()
    assert await stays == ("acme", 1)
    assert gone.cancelled()


async def test_more_than_may_wait_are_refused(asking: Asking, settings: Any) -> None:
    settings.TENANT_MESSAGING = {"DATABASE_QUEUE_LIMIT": 2}
    answers = await asking.answers(1, 2, 3)
    assert answers[:2] == [("acme", 1), ("acme", 2)]
    assert isinstance(answers[2], Unavailable)


async def test_who_waits_when_the_hub_stops_is_told(asking: Asking) -> None:
    asking.may_answer.clear()
    waiting = asyncio.create_task(asking.answers(*range(MAX_BATCH + 1)))
    await asking.working.wait()
    for task in asking.tasks:
        task.cancel()
    asking.may_answer.set()
    assert {type(answer) for answer in await waiting} == {Unavailable}


async def test_who_comes_soon_after_another_is_told_with_the_next(
    acme: Tenant, people: tuple[str, ...], peers: Peers, monkeypatch: pytest.MonkeyPatch
) -> None:
    stored: list[int] = []
    was_stored = asyncio.Event()
    loop = asyncio.get_running_loop()

    def storing(**changes: Any) -> None:
        stored.append(len(changes["opened"]))
        actions.store_connections(**changes)
        loop.call_soon_threadsafe(was_stored.set)

    monkeypatch.setattr(presence, "store_connections", storing)
    monkeypatch.setattr(presence, "SPACING", 5)
    await run_in_tenant("acme", actions.create_room, acme.users["alice"], name="all", members=list(acme.users.values()))
    alice = await peers.connect(acme, "alice")
    await was_stored.wait()
    await peers.connect(acme, "bob")
    await peers.connect(acme, "carol")
    assert stored == [1]
    await hub_of_this_loop().presence.settled(10)
    assert stored == [1, 2]
    await alice.until(lambda: names(alice) == {"bob", "carol"})


def names(peer: Peer) -> set[str]:
    """Those of whose coming a peer was told."""
    return {event["user"]["username"] for event in peer.of_type("presence")}

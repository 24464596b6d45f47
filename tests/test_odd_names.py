"""Tenants whose schemas have odd names: all that works for others works for them, and nothing gets into the other.

Each example gives the same two tenants other names: what they hold stays, as the database knows schemas by number.
"""

from __future__ import annotations

import asyncio
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
from django.contrib.auth import get_user_model
from django.db import connection
from hypothesis import HealthCheck, example, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from psycopg import sql

from django_tenant_messaging import actions
from django_tenant_messaging.actions import Draft
from django_tenant_messaging.exceptions import TenantCreationError, TenantNotReady
from django_tenant_messaging.models import Message, Notification, RoomCounter, UserStatus
from django_tenant_messaging.realtime.together import ask_together
from django_tenant_messaging.selectors import (
    LoginsAsked,
    list_conversations,
    list_members,
    list_revisions,
    online_contacts_of,
    read_heads,
    read_joins,
    read_logins,
    room_history,
)
from django_tenant_messaging.tenancy import (
    activated,
    close_executor,
    forget_readiness,
    group_name,
    public_schema,
    readiness_of,
    readiness_of_all,
    run_in_tenant,
)
from django_tenant_messaging.tenancy.gate import creation, inspect_schema
from django_tenant_messaging.tenancy.gate.repair import repair_schema
from django_tenant_messaging.types import SchemaState, SentMessage
from example.customers.models import Customer
from tests.harness.peer import session_of
from tests.harness.spare import definition, spare_tenant
from tests.harness.tenants import KEPT_TABLES, Tenant, leave_tenant

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Test = Callable[["Pair", tuple[str, str]], None]

ROOM = 1
TABLE, MESSAGES = "django_tenant_messaging_userstatus", "django_tenant_messaging_message"
LONG = "x" * 61
PAIRS = [
    ("a%b", "a%%b"),
    ("a%%b", "a%b"),
    ("%s", "%(rooms)s"),
    ("%%", "%"),
    ("A b", "a b "),
    ("a,b", "a"),
    ("a.b", "b"),
    ("{0}", "{schema_name}"),
    ("--", "/* */"),
    ("é", "e\u0301"),
    (f"{LONG}y%", f"{LONG}y"),
    ("é" * 31, "é" * 30),
    ("select", "user"),
]

schema_names = st.text(
    st.characters(exclude_categories=["C", "Z"], exclude_characters="\"'\\\\;") | st.sampled_from("%s() {}."),
    min_size=1,
    max_size=63,
).filter(lambda name: len(name.encode()) <= 63 and not name.lower().startswith("pg_"))


def run_sql(statement: str, *names: str) -> None:
    """Run SQL, with names composed by psycopg and not by what is tested."""
    with connection.cursor() as cursor:
        cursor.execute(sql.SQL(statement).format(*map(sql.Identifier, names)).as_string(cursor.connection))


class Pair:
    """Two tenants that change their names."""

    def __init__(self, *tenants: Tenant) -> None:
        self._names = [tenant.schema_name for tenant in tenants]

    def renamed(self, *names: str) -> list[Tenant]:
        """Return both under new names, empty, with the same people in each."""
        leave_tenant()
        close_executor()
        aside = [f"aside_{number}" for number in range(len(names))]
        for olds, news in ((self._names, aside), (aside, names)):
            for old, new in zip(olds, news, strict=True):
                run_sql("ALTER SCHEMA {} RENAME TO {}", old, new)
                Customer.objects.filter(schema_name=old).update(schema_name=new)
        self._names = list(names)
        leave_tenant()
        tenants = [Tenant(name) for name in names]
        for tenant in tenants:
            empty(tenant)
            for person in ("alice", "bob"):
                tenant.create_user(person)
        return tenants


def empty(tenant: Tenant) -> None:
    with connection.cursor() as cursor:
        cursor.execute("SELECT tablename FROM pg_tables WHERE schemaname = %s", [tenant.schema_name])
        tables = [name for (name,) in cursor.fetchall() if name not in KEPT_TABLES]
    places = ", ".join(["{}.{}"] * len(tables))
    run_sql(f"TRUNCATE {places} RESTART IDENTITY", *(part for table in tables for part in (tenant.schema_name, table)))


def made(tenant: Tenant, table: str) -> str:
    return repr(definition(tenant, table)).replace(f'"{tenant.schema_name}".', "")


def schemas() -> set[str]:
    with connection.cursor() as cursor:
        cursor.execute("SELECT nspname FROM pg_namespace")
        return {name for (name,) in cursor.fetchall()}


@contextmanager
def row_of(schema_name: str) -> Iterator[None]:
    """The row of a tenant without a schema, as an import or an older django-tenants left it."""
    Customer.objects.bulk_create([Customer(schema_name=schema_name, name="Row")])
    leave_tenant()
    yield
    leave_tenant()
    Customer.objects.filter(schema_name=schema_name).delete()


@pytest.fixture
def pair(tenants: tuple[Tenant, Tenant]) -> Iterator[Pair]:
    with spare_tenant("spare_one") as one, spare_tenant("spare_two") as two:
        pair = Pair(one, two)
        yield pair
        close_executor()
        pair.renamed("spare_one", "spare_two")


def told(answer: object) -> SentMessage:
    assert isinstance(answer, SentMessage), answer
    return answer


def write(tenant: Tenant) -> None:
    """Do in a tenant all that there is to do."""
    alice, bob = tenant.users.values()
    name = tenant.schema_name
    first = told(actions.send_message(alice, room_id=ROOM, content="hello @bob")).message
    actions.edit_message(alice, room_id=ROOM, message_id=first.id, content="hello all")
    second = told(actions.send_message(bob, room_id=ROOM, content="100 %s", reply_to=first.id)).message
    actions.delete_message(bob, room_id=ROOM, message_id=second.id)
    actions.rename_room(alice, room_id=ROOM, name=name[:50])
    assert actions.mark_read(bob, room_id=ROOM, seq=3) == 3
    actions.open_direct_room(alice, other=bob)
    actions.store_connections(opened=[alice], closed=[], process="here")
    actions.renew_connections([alice.pk], process="here")


def write_much(tenant: Tenant, other: Tenant) -> None:
    """Send so many that the worker threads prepare the statements, and look into the other tenant in between."""
    alice = tenant.users["alice"]

    async def send() -> None:
        for number in range(4):
            draft = [Draft(alice, ROOM, f"alone {number}")]
            told(*await run_in_tenant(tenant.schema_name, actions.send_messages_where_free, draft))
            assert await run_in_tenant(other.schema_name, Message.objects.count) == 0
        for number in range(8):
            drafts = [Draft(alice, ROOM, f"{number}-{place}") for place in range(8)]
            answers = await run_in_tenant(tenant.schema_name, actions.send_messages_where_free, drafts)
            assert len([told(answer) for answer in answers]) == 8

    asyncio.run(send())


def look(tenant: Tenant) -> dict[str, Any]:
    """Read in a tenant all that there is to read."""
    alice, bob = tenant.users.values()
    history = room_history(alice, room_id=ROOM)
    return {
        "history": [message.content for message in history.messages],
        "revisions": [list_revisions(alice, room_id=ROOM, message_id=message.id) for message in history.messages[:1]],
        "conversations": [found.unread_count for found in list_conversations(bob)],
        "members": [(found.user.username, found.is_online) for found in list_members(bob, ROOM)],
        "contacts": [found.username for found in online_contacts_of([bob])[0]],
        "rows": [model.objects.count() for model in (Message, Notification)],
        "heads": list(RoomCounter.objects.order_by("pk").values_list("last_seq", flat=True)),
        "online": list(UserStatus.objects.filter(is_online=True).values_list("user__username", flat=True)),
    }


NOTHING = {
    "history": [],
    "revisions": [],
    "conversations": [0],
    "members": [("alice", False), ("bob", False)],
    "contacts": [],
    "rows": [0, 0],
    "heads": [0],
    "online": [],
}


def look_together(one: Tenant, two: Tenant, cookies: dict[str, str]) -> None:
    """Read of both in the statements that are made for many tenants, and see what belongs to each."""
    names = one.schema_name, two.schema_name
    with activated(public_schema()):
        for _ in range(2):
            heads = ask_together(partial(read_heads, kept_as="names"), {name: [ROOM] for name in names})
            assert [heads[name].seqs for name in names] == [{ROOM: 73}, {ROOM: 0}]
        keys = {tenant.schema_name: [user.pk for user in tenant.users.values()] for tenant in (one, two)}
        joins = ask_together(read_joins, keys)
        assert [len(joins[name]) for name in names] == [4, 2]
        asked = {
            tenant.schema_name: LoginsAsked(list(cookies.values()), [user.pk for user in tenant.users.values()])
            for tenant in (one, two)
        }
        logins = ask_together(read_logins, asked)
        assert {name: logins[name].sessions for name in names} == {name: {cookies[name]} for name in names}
        passwords = [logins[tenant.schema_name].passwords for tenant in (one, two)]
        assert passwords == [{str(u.pk): u.password for u in tenant.users.values()} for tenant in (one, two)]
        online = {one.schema_name: [one.users["alice"].pk], two.schema_name: []}
        assert actions.renew_connections_of(online, process="here") == set()


def any_of(pairs: list[tuple[str, str]]) -> Callable[[Test], Test]:
    """Try each of the pairs before those that are made up."""

    def decorate(test: Test) -> Test:
        for names in pairs:
            test = example(names)(test)
        return test

    return decorate


@hypothesis_settings(max_examples=4, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.tuples(schema_names, schema_names).filter(lambda names: names[0].lower() != names[1].lower()))
@any_of(PAIRS)
def test_nothing_gets_into_a_tenant_of_another_name(pair: Pair, names: tuple[str, str]) -> None:
    one, two = pair.renamed(*names)
    assert [readiness_of_all()[name].state for name in names] == [SchemaState.OK] * 2
    assert [inspect_schema(name, "").state for name in names] == [SchemaState.OK] * 2
    assert group_name(names[0], "room", ROOM) != group_name(names[1], "room", ROOM)
    cookies = {}
    for tenant in (one, two):
        with tenant.activated(), connection.cursor() as cursor:
            cursor.execute("SELECT current_schema()")
            assert cursor.fetchone() == (tenant.schema_name,)
            actions.create_room(tenant.users["alice"], name="team", members=[tenant.users["bob"]])
            cookies[tenant.schema_name] = session_of(tenant.users["alice"])
    with one.activated():
        write(one)
    write_much(one, two)
    look_together(one, two, cookies)
    with one.activated():
        found = look(one)
    assert found["rows"] == [70, 1]
    assert found["heads"] == [73, 0]
    assert found["online"] == ["alice"]
    assert found["contacts"] == ["alice"]
    assert found["history"][-1] == "7-7"
    with two.activated():
        assert look(two) == NOTHING


BAD_NAMES = {
    "é" * 32: "has 64 bytes, and PostgreSQL cuts it short after 63",
    "$user": "means the schema called like the connection's user",
    "information_schema": "means a schema of its own",
    "a\x1b[2Jb": "what can't be printed",
    "a\u2028b": "what can't be printed",
    "a\u202eb": "what can't be printed",
    "pg_a": "begins with pg_",
    'a"b': "holds a quote",
    "a;b": "a semicolon",
    "o'brien": "holds a quote",
    "a\\b": "a backslash",
}


@pytest.mark.parametrize("name", BAD_NAMES)
@pytest.mark.usefixtures("tenants")
def test_a_tenant_is_not_made_under_a_name_that_means_another_schema(name: str) -> None:
    before = schemas()
    with pytest.raises(TenantCreationError, match=BAD_NAMES[name]) as raised:
        Customer(schema_name=name, name="Bad").save(verbosity=0)
    assert "removed: its row" in str(raised.value)
    assert str(raised.value).isprintable()
    assert not Customer.objects.filter(schema_name=name).exists()
    assert schemas() == before


@pytest.mark.parametrize("name", BAD_NAMES)
def test_a_tenant_that_has_such_a_name_is_refused(acme: Tenant, name: str, caplog: pytest.LogCaptureFixture) -> None:
    with row_of(name):
        found = readiness_of_all()
        assert (found[name].state, found[acme.schema_name].is_ready) == (SchemaState.ERROR, True)
        assert BAD_NAMES[name] in found[name].reason
        forget_readiness(name)
        with pytest.raises(TenantNotReady) as raised:
            asyncio.run(run_in_tenant(name, Message.objects.count))
        assert raised.value.readiness == found[name]
        assert all(record.message.isprintable() for record in caplog.records)
        close_executor()


def test_a_name_that_is_cut_short_is_not_served_from_the_schema_it_is_cut_to(tenants: tuple[Tenant, Tenant]) -> None:
    short = "é" * 31
    with spare_tenant(short) as tenant:
        tenant.create_user("alice")
        with pytest.raises(TenantCreationError, match="cuts it short"):
            Customer(schema_name=f"{short}éz", name="Bad").save(verbosity=0)
        with tenant.activated():
            assert get_user_model().objects.count() == 1
        with row_of(f"{short}éz"):
            assert not readiness_of(f"{short}éz").is_ready


def test_making_and_repairing_one_touches_no_other(tenants: tuple[Tenant, Tenant]) -> None:
    """The names are those that each other's statements would mean if they were formatted once more."""
    with spare_tenant("a%b") as one, spare_tenant("a%%b") as two:
        whole = made(one, TABLE)
        assert made(two, TABLE) == whole
        run_sql("DROP TABLE {}.{} CASCADE", two.schema_name, TABLE)
        run_sql("ALTER TABLE {}.{} DROP COLUMN seq CASCADE", one.schema_name, MESSAGES)
        leave_tenant()
        assert readiness_of("a%b").missing_relations == (f"{MESSAGES}.seq",)
        assert readiness_of("a%%b").missing_relations == (TABLE,)
        assert repair_schema("a%%b", "").is_success
        assert made(two, TABLE) == whole
        leave_tenant()
        assert readiness_of("a%b").missing_relations == (f"{MESSAGES}.seq",)
        assert repair_schema("a%b", "").is_success
        assert made(one, MESSAGES) == made(two, MESSAGES)


def test_a_creation_that_fails_removes_no_other_schema(
    tenants: tuple[Tenant, Tenant], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_args: Any) -> None:
        raise RuntimeError("no")

    with spare_tenant("a%b"):
        with monkeypatch.context() as patch:
            patch.setattr(creation, "inspect_schema", fail)
            with pytest.raises(TenantCreationError, match="removed: its schema, its row"):
                Customer(schema_name="a%%b", name="Fails").save(verbosity=0)
        assert "a%%b" not in schemas()
        assert inspect_schema("a%b", "").is_ready


def test_a_clone_records_what_its_own_template_does(tenants: tuple[Tenant, Tenant]) -> None:
    with spare_tenant("a%b") as template, spare_tenant("a%%b") as clone:
        run_sql("DELETE FROM {}.django_migrations WHERE app = 'sessions'", template.schema_name)
        creation._record_as_in(template.schema_name, clone.schema_name)
        assert [inspect_schema(tenant.schema_name, "").missing_migrations for tenant in (template, clone)] == [
            ("sessions.0001_initial",)
        ] * 2

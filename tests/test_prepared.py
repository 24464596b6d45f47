"""Messages that come alone: their statement is planned once for each tenant, and never meant for another one."""

from __future__ import annotations

import asyncio
from contextlib import nullcontext, suppress
from functools import partial
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import pytest
from django.db import DataError, connection, transaction

from django_tenant_messaging import actions
from django_tenant_messaging.actions import Draft
from django_tenant_messaging.actions.sending import single
from django_tenant_messaging.exceptions import NotFound, Unavailable
from django_tenant_messaging.models import Message
from django_tenant_messaging.tenancy import activated, close_executor, run_in_tenant, thread_connections
from django_tenant_messaging.tenancy.prepared import GROWTH, MOST_FAILURES, numbered
from django_tenant_messaging.types import SentMessage
from tests.harness.breaking import locked_table

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.harness.tenants import Tenant

untyped: Any = connection


@pytest.fixture(autouse=True)
def one_thread(tenants: tuple[Tenant, Tenant], team: None, settings: Any) -> Iterator[None]:
    settings.TENANT_MESSAGING = {"DATABASE_THREADS": 1}
    close_executor()
    yield
    close_executor()


def in_tenant(schema_name: str, function: Callable[..., Any], *arguments: Any) -> Any:
    return asyncio.run(run_in_tenant(schema_name, function, *arguments))


def send(tenant: Tenant, content: str, **fields: Any) -> SentMessage:
    draft = Draft(tenant.users["alice"], 1, content, **fields)
    (answer,) = in_tenant(tenant.schema_name, actions.send_messages_where_free, [draft])
    assert isinstance(answer, SentMessage), answer
    return answer


def contents(tenant: Tenant) -> list[str]:
    with tenant.activated():
        return list(Message.objects.order_by("seq").values_list("content", flat=True))


def rows(statement: str) -> list[Any]:
    with connection.cursor() as cursor:
        cursor.execute(statement)
        return list(cursor.fetchall())


def execute(statement: str) -> None:
    with connection.cursor() as cursor:
        cursor.execute(statement)


def prepared() -> list[tuple[str, str]]:
    """Name and text of the connection's statements, in the order in which they were prepared."""
    return rows(
        r"SELECT name, statement FROM pg_prepared_statements WHERE statement ~ 'WITH draft' ORDER BY prepare_time"
    )


def test_each_tenant_has_its_plan_and_its_messages(tenants: tuple[Tenant, Tenant]) -> None:
    turns = [f"{turn}" for turn in range(3)]
    for text in turns:
        for tenant in tenants:
            sent = send(tenant, f"{tenant.schema_name} {text}")
            assert (sent.message.seq, sent.message.sender.username) == (int(text) + 1, "alice")  # type: ignore[union-attr]
    for tenant in tenants:
        assert contents(tenant) == [f"{tenant.schema_name} {text}" for text in turns]
    texts = [text for _name, text in in_tenant("acme", prepared)]
    assert len(texts) == 2
    assert all(f'"{tenant.schema_name}".' in text for tenant, text in zip(tenants, texts, strict=True))


def test_the_second_time_a_statement_comes_it_is_prepared(acme: Tenant) -> None:
    send(acme, "once")
    assert in_tenant("acme", prepared) == []
    send(acme, "twice")
    ((_name, _text),) = in_tenant("acme", prepared)


def test_what_follows_in_the_same_thread_is_in_its_own_tenant(tenants: tuple[Tenant, Tenant]) -> None:
    acme, globex = tenants
    for number in range(4):
        send(acme, f"{number}")
        assert in_tenant("globex", Message.objects.count) == number
        send(globex, f"{number}")
        assert in_tenant("acme", Message.objects.count) == number + 1
        assert in_tenant("globex", rows, "SELECT current_schemas(false)") == [(["globex", "public"],)]
        assert in_tenant("acme", rows, "SELECT current_schemas(false)") == [(["acme", "public"],)]


def test_a_trigger_of_the_hosts_finds_its_own_tenants_tables(tenants: tuple[Tenant, Tenant]) -> None:
    """It names no schema, as the host's own statements don't."""
    for tenant in tenants:
        with tenant.activated():
            rows_of = f"""
                CREATE TABLE audit (content text);
                CREATE FUNCTION audit() RETURNS trigger LANGUAGE plpgsql AS
                'BEGIN INSERT INTO audit VALUES (NEW.content); RETURN NEW; END';
                CREATE TRIGGER audit AFTER INSERT ON {Message._meta.db_table} FOR EACH ROW EXECUTE FUNCTION audit()
            """
            with connection.cursor() as cursor:
                cursor.execute(rows_of)
    try:
        for number in range(3):
            for tenant in tenants:
                send(tenant, f"{tenant.schema_name} {number}")
                in_tenant(tenant.schema_name, Message.objects.count)
        for tenant in tenants:
            found = in_tenant(tenant.schema_name, rows, "SELECT content FROM audit")
            assert found == [(f"{tenant.schema_name} {number}",) for number in range(3)]
    finally:
        for tenant in tenants:
            with tenant.activated(), connection.cursor() as cursor:
                cursor.execute("DROP TABLE audit; DROP FUNCTION audit CASCADE")


@pytest.mark.parametrize("ends_by", ["rollback", "savepoint"])
def test_the_path_that_a_rollback_takes_back_is_set_again(tenants: tuple[Tenant, Tenant], ends_by: str) -> None:
    acme, globex = tenants
    for tenant in (*tenants, *tenants):
        send(tenant, "before")

    def take_back() -> None:
        with suppress(DataError), transaction.atomic():
            if ends_by == "rollback":
                Message.objects.count()
            with transaction.atomic() if ends_by == "savepoint" else nullcontext():
                Message.objects.count()
                rows("SELECT 1 / 0")

    in_tenant("acme", take_back)
    send(acme, "after")
    assert in_tenant("acme", rows, "SELECT current_schemas(false)") == [(["acme", "public"],)]
    in_tenant("globex", take_back)
    assert in_tenant("acme", Message.objects.count) == 3
    assert in_tenant("globex", Message.objects.count) == 2
    assert contents(globex) == ["before", "before"]


def test_a_savepoint_that_is_taken_back_takes_the_path_along(tenants: tuple[Tenant, Tenant]) -> None:
    def look_into_both() -> list[str]:
        found: list[str] = []
        with transaction.atomic():
            found.append(Message.objects.get().content)
            for _ in range(2):
                with activated("globex"), suppress(LookupError), transaction.atomic():
                    found.append(Message.objects.get().content)
                    raise LookupError
        return found

    for tenant in tenants:
        send(tenant, tenant.schema_name)
    assert in_tenant("acme", look_into_both) == ["acme", "globex", "globex"]


def test_there_are_no_more_statements_than_wanted(tenants: tuple[Tenant, Tenant], settings: Any) -> None:
    settings.TENANT_MESSAGING |= {"PREPARED_STATEMENTS": 2}
    acme, globex = tenants
    kinds: list[dict[str, Any]] = [{"content": "a"}, {"content": "@bob"}, {"content": "b", "reply_to": 1}]
    for fields in kinds:
        for _ in range(3):
            send(acme, **fields)
    assert len(in_tenant("acme", prepared)) == 2
    # Each comes too seldom to be worth a plan.
    for _ in range(3):
        for tenant in tenants:
            for fields in kinds:
                send(tenant, **fields)
    assert len(in_tenant("acme", prepared)) == 2
    assert len(contents(acme)) == 18
    assert len(contents(globex)) == 9


@pytest.mark.parametrize("reason", ["setting", "host", "wrapper"])
def test_where_nothing_is_prepared_messages_are_written_all_the_same(
    acme: Tenant, settings: Any, monkeypatch: pytest.MonkeyPatch, reason: str
) -> None:
    if reason == "setting":
        settings.TENANT_MESSAGING |= {"PREPARED_STATEMENTS": 0}
    if reason == "host":
        monkeypatch.setitem(untyped.settings_dict["OPTIONS"], "prepare_threshold", None)
    heard: list[str] = []

    def listening(execute: Any, sql: str, *rest: Any) -> Any:
        heard.append(sql)
        return execute(sql, *rest)

    def send_heard() -> Any:
        with connection.execute_wrapper(listening):
            return actions.send_message(acme.users["alice"], room_id=1, content="heard")

    for _ in range(3):
        if reason == "wrapper":
            in_tenant("acme", send_heard)
        else:
            send(acme, "sent")
    assert in_tenant("acme", prepared) == []
    assert len(contents(acme)) == 3
    assert len([sql for sql in heard if "WITH draft" in sql]) == (3 if reason == "wrapper" else 0)


def test_a_plan_is_made_again_as_the_tables_grow(acme: Tenant) -> None:
    names = []
    for number in range(2 * GROWTH + 2):
        send(acme, f"{number}")
        names += [name for name, _text in in_tenant("acme", prepared)]
    # The old one is given up at once.
    assert len(names) == 2 * GROWTH + 1
    assert len(dict.fromkeys(names)) == 2


def test_a_plan_made_for_small_tables_reads_no_large_one(acme: Tenant, monkeypatch: pytest.MonkeyPatch) -> None:
    # As PostgreSQL has it, with which it prefers reading a small table as a whole.
    monkeypatch.setattr(thread_connections, "RANDOM_PAGE_COST", "4")
    kinds: list[dict[str, Any]] = [{"content": "a"}, {"content": "@bob"}, {"content": "b", "reply_to": 1}]
    send(acme, "first")
    # Of a table that was never looked at PostgreSQL expects that it will grow.
    in_tenant("acme", execute, "VACUUM ANALYZE")
    for fields in [*kinds, *kinds]:
        send(acme, **fields)
    plans = in_tenant("acme", kept_plans)
    assert len(plans) == len(kinds)
    for plan in plans:
        assert "Index" in plan
        assert "Seq Scan" not in plan, plan


def kept_plans() -> list[str]:
    found = rows("SELECT name, cardinality(parameter_types) FROM pg_prepared_statements WHERE statement ~ 'WITH draft'")
    return [
        "\n".join(line for (line,) in rows(f"EXPLAIN EXECUTE {name} ({', '.join(['NULL'] * number)})"))
        for name, number in found
    ]


def test_the_plan_is_for_all_values(acme: Tenant) -> None:
    for number in range(3):
        send(acme, f"{number}")
    counts = "SELECT custom_plans, generic_plans FROM pg_prepared_statements WHERE statement ~ 'WITH draft'"
    assert in_tenant("acme", rows, counts) == [(0, 2)]


def test_a_refused_message_leaves_the_connection_as_it_was(
    tenants: tuple[Tenant, Tenant], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where the same round trip sets the path, or prepares the statement."""
    acme, globex = tenants
    client_id = uuid4()
    send(acme, "first", client_id=client_id)
    statement = single._statement

    def blind(shape: Any) -> str:
        text = statement(shape).replace(
            "client_id = %(client_id)s::uuid)", "client_id = %(client_id)s::uuid AND false)"
        )
        assert text != statement(shape)
        return text

    for other in (None, globex, None, None):
        if other is not None:
            send(other, "between")
        with monkeypatch.context() as patch:
            patch.setattr(single, "_statement", blind)
            (answer,) = in_tenant("acme", actions.send_messages, [Draft(acme.users["alice"], 1, "again", client_id)])
            assert type(answer).__name__ == "IntegrityError", answer
    assert send(acme, "second").message.seq == 2
    assert contents(globex) == ["between"]


def test_a_connection_that_forgets_its_statements(acme: Tenant, caplog: pytest.LogCaptureFixture) -> None:
    """As behind a pooler that gives each transaction another connection."""
    for times in range(MOST_FAILURES + 2):
        for number in range(3):
            send(acme, f"{times} {number}")
        in_tenant("acme", execute, "DEALLOCATE ALL")
    assert len(contents(acme)) == 3 * (MOST_FAILURES + 2)
    assert len([record for record in caplog.records if "lost its prepared" in record.message]) == MOST_FAILURES
    assert in_tenant("acme", prepared) == []


def test_a_table_that_is_locked_while_its_plan_is_made_ends_no_other_plan(
    tenants: tuple[Tenant, Tenant], settings: Any, database_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    settings.TENANT_MESSAGING |= {"LOCK_TIMEOUT": 0.1}
    acme, globex = tenants
    send(acme, "first")
    with locked_table(database_url, "acme", Message._meta.db_table):
        for _ in range(MOST_FAILURES + 1):
            with pytest.raises(Unavailable):
                in_tenant("acme", actions.send_messages, [Draft(acme.users["alice"], 1, "waits")])
            send(globex, "goes on")
    for number in range(3):
        send(acme, f"{number}")
    assert len(in_tenant("acme", prepared)) == 2
    assert not [record for record in caplog.records if "lost its prepared" in record.message]


def test_another_connection_prepares_anew(acme: Tenant) -> None:
    for number in range(3):
        send(acme, f"{number}")
    with pytest.raises(Exception, match="did not answer"):
        in_tenant("acme", rows, "SELECT pg_terminate_backend(pg_backend_pid())")
    for number in range(3):
        send(acme, f"again {number}")
    assert len(in_tenant("acme", prepared)) == 1
    assert len(contents(acme)) == 6


def test_nobody_writes_where_they_are_no_member(tenants: tuple[Tenant, Tenant]) -> None:
    """By a statement that is prepared, with ids that are right in the other tenant."""
    acme, globex = tenants
    stranger, _namesake = (tenant.create_user("dave") for tenant in tenants)
    with globex.activated():
        actions.add_members(globex.users["alice"], room_id=1, users=[globex.users["dave"]])
    for number in range(3):
        send(acme, f"{number}")
        (answer,) = in_tenant("acme", actions.send_messages, [Draft(stranger, 1, "hello")])
        assert isinstance(answer, NotFound)
    assert contents(globex) == []


@pytest.mark.parametrize(
    ("text", "sent", "names"),
    [
        ("SELECT %(a)s, %(b)s, %(a)s", b"SELECT $1, $2, $1", ("a", "b")),
        ('SELECT 1 FROM "100%%".t', b'SELECT 1 FROM "100%".t', ()),
        ('SELECT 1 FROM "%%(a)s".t WHERE x = %(a)s', b'SELECT 1 FROM "%(a)s".t WHERE x = $1', ("a",)),
    ],
)
def test_names_that_look_like_parameters(text: str, sent: bytes, names: tuple[str, ...]) -> None:
    assert numbered(text) == (sent, names)


def path_reset(how: str) -> None:
    """What the host's own code may do with a connection."""
    raw = untyped.connection
    match how:
        case "set":
            execute("SET search_path = globex, public")
        case "set by the driver":
            raw.execute("SET search_path = globex, public")
        case "reset":
            execute("RESET search_path")
        case "discard":
            execute("DISCARD ALL")
        case "aborted":
            with suppress(DataError), transaction.atomic(), suppress(DataError):
                rows("SELECT 1 / 0")
        case "begun":
            execute("BEGIN")
        case "begun by the driver":
            raw.execute("BEGIN")


HOWS = ["set", "set by the driver", "reset", "discard", "aborted", "begun", "begun by the driver"]


@pytest.mark.parametrize("how", HOWS)
def test_whatever_a_host_does_with_the_path_the_next_call_is_in_its_tenant(
    tenants: tuple[Tenant, Tenant], how: str
) -> None:
    acme, globex = tenants
    for _ in range(3):
        for tenant in tenants:
            send(tenant, tenant.schema_name)
    for before in ("acme", "globex"):
        in_tenant(before, Message.objects.count)
        in_tenant("acme", path_reset, how)
        found = in_tenant("acme", lambda: set(Message.objects.values_list("content", flat=True)))
        assert found == {"acme"}
        in_tenant("acme", path_reset, how)
        assert send(acme, "acme").message.sender.id == str(acme.users["alice"].pk)  # type: ignore[union-attr]
        in_tenant("acme", path_reset, how)
        send(globex, "globex")
    assert contents(acme) == ["acme"] * 5
    assert contents(globex) == ["globex"] * 5


@pytest.mark.parametrize("where", ["in the call between", "in the same call"])
def test_a_name_that_is_found_by_the_path_is_of_the_tenant(tenants: tuple[Tenant, Tenant], where: str) -> None:
    acme, globex = tenants
    with acme.activated():
        room = actions.open_direct_room(acme.users["alice"], other=acme.users["bob"])
    with globex.activated():
        type(globex.users["bob"]).objects.filter(pk=acme.users["bob"].pk).update(username="stranger")

    def receiver() -> str:
        sent = actions.send_message(acme.users["alice"], room_id=room.pk, content="hello")
        return sent.message.receiver.username  # type: ignore[union-attr]

    def receiver_after_a_look_elsewhere() -> str:
        receiver()
        with activated("globex"):
            Message.objects.count()
        return receiver()

    for _ in range(3):
        assert in_tenant("acme", receiver) == "bob"
        if where == "in the call between":
            in_tenant("acme", path_reset, "set by the driver")
            assert in_tenant("acme", receiver) == "bob"
        else:
            assert in_tenant("acme", receiver_after_a_look_elsewhere) == "bob"


def test_a_path_that_is_not_set_ends_the_call(tenants: tuple[Tenant, Tenant]) -> None:
    """As by a cancelled statement: django-tenants passes over it, and the next one would run in the tenant before."""
    for tenant in tenants:
        send(tenant, tenant.schema_name)
    assert in_tenant("globex", lambda: Message.objects.get().content) == "globex"

    def cancelled(run: Any, sql: str, params: Any, many: Any, context: Any) -> Any:
        if sql.startswith("SET search_path"):
            return run("SELECT pg_cancel_backend(pg_backend_pid()), pg_sleep(5)", None, many, context)
        return run(sql, params, many, context)

    def look() -> str:
        with connection.execute_wrapper(cancelled):
            return Message.objects.get().content

    with pytest.raises(Unavailable):
        in_tenant("acme", look)
    assert in_tenant("acme", lambda: Message.objects.get().content) == "acme"


def test_many_at_once(acme: Tenant) -> None:
    """Several threads, each with statements of its own."""

    async def all_at_once() -> list[Any]:
        drafts = [Draft(acme.users[name], 1, f"{name} {number}") for number in range(20) for name in ("alice", "bob")]
        calls = [run_in_tenant("acme", partial(actions.send_messages, [draft])) for draft in drafts]
        return await asyncio.gather(*calls)

    answers = asyncio.run(all_at_once())
    assert sorted(answer.message.seq for (answer,) in answers) == list(range(1, 41))

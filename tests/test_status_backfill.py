"""The command makes the statuses that are missing."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from django.contrib.auth.models import User
from django.core.exceptions import ImproperlyConfigured
from django.db import connection, transaction
from django.test import override_settings

from django_tenant_messaging import actions
from django_tenant_messaging.actions import status_backfill
from django_tenant_messaging.actions.status_backfill import StatusCount, create_user_statuses, tenants_with_statuses
from django_tenant_messaging.exceptions import Conflict, NotFound, TenantNotReady, Unavailable
from django_tenant_messaging.models import UserStatus
from django_tenant_messaging.permissions import belongs_to_tenant, may_use_tenant
from django_tenant_messaging.tenancy import require_ready
from django_tenant_messaging.tenancy.gate import BYPASS_VARIABLE, verdicts
from example.services.process import python_path
from tests.harness.breaking import OURS, STATUS_TABLE, without_record, without_table
from tests.harness.commands import Terminal, run_command
from tests.harness.presence import connection_opened
from tests.harness.queries import queries
from tests.harness.statuses import WITHOUT_OWN_USERS, owners, without_statuses
from tests.harness.together import outcomes, together

run = partial(run_command, "create_user_statuses")

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.harness.tenants import Tenant

ROOT = Path(__file__).resolve().parents[1]


# The command's work


def test_every_user_gets_one_and_only_once(acme: Tenant, globex: Tenant, people: tuple[str, ...]) -> None:
    made = without_statuses(acme, 25)
    with acme.activated():
        User.objects.filter(pk=made[0].pk).update(is_active=False)
        connection_opened(acme.users["bob"], process="here")
        before = list(UserStatus.objects.order_by("pk").values())
    without_statuses(globex, 30)
    assert create_user_statuses("acme") == StatusCount("acme", existing=3, created=25)
    assert create_user_statuses("acme") == StatusCount("acme", existing=28, created=0)
    assert owners(acme) == [*people, *(user.username for user in made)]
    with acme.activated():
        assert list(UserStatus.objects.order_by("pk").values())[:3] == before
        assert UserStatus.objects.get(user=made[0]).is_online is False
    assert owners(globex) == list(people)


def test_batches_bound_memory_and_queries(acme: Tenant, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(status_backfill, "BATCH", 10)
    without_statuses(acme, 25)
    require_ready("acme")
    seen: list[int] = []
    with queries() as made:
        create_user_statuses("acme", on_batch=seen.append)
    assert seen == [10, 20, 25]
    # Reads, inserts and limits of waiting.
    assert len(made) == 4 + 3 + 3


def test_shared_users_get_one_where_they_belong(acme: Tenant, globex: Tenant, people: tuple[str, ...]) -> None:
    asked: list[tuple[str, str]] = []

    def is_member(user: User, schema_name: str) -> bool:
        asked.append((user.username, schema_name))
        return user.username != "user000001"

    made = without_statuses(acme, 3)
    with acme.activated():
        User.objects.filter(pk=made[2].pk).update(is_active=False)
    with WITHOUT_OWN_USERS, override_settings(TENANT_MESSAGING={"TENANT_MEMBERSHIP": is_member}):
        assert create_user_statuses("acme") == StatusCount("acme", existing=3, created=2)
        assert asked == [(f"user{place:06}", "acme") for place in range(3)]
        assert create_user_statuses("acme") == StatusCount("acme", existing=5, created=0)
    with WITHOUT_OWN_USERS, pytest.raises(ImproperlyConfigured, match="nobody belongs to a tenant"):
        create_user_statuses("acme")
    assert owners(acme) == [*people, "user000000", "user000002"]
    assert owners(globex) == list(people)


def test_who_is_inactive_belongs_but_may_not_use(acme: Tenant) -> None:
    user = acme.create_user("alice", is_active=False)
    assert belongs_to_tenant(user, "acme")
    assert not may_use_tenant(user, "acme")
    with override_settings(TENANT_MESSAGING={"TENANT_MEMBERSHIP": lambda _user, schema_name: schema_name == "acme"}):
        assert (belongs_to_tenant(user, "acme"), belongs_to_tenant(user, "globex")) == (True, False)


def test_shared_schema_and_tenants_without_the_app_are_left_out(tenants: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    assert tenants_with_statuses() == ["acme", "globex"]
    assert tenants_with_statuses(["globex", "acme", "acme"]) == ["acme", "globex"]
    with pytest.raises(NotFound, match="No tenant has the schema 'initech'"):
        tenants_with_statuses(["acme", "initech"])
    with pytest.raises(NotFound, match="isn't installed for 'public'"):
        tenants_with_statuses(["public"])
    monkeypatch.setattr(
        status_backfill, "schema_kinds", lambda _names: {"public": "public", "acme": "a", "globex": "b"}
    )
    monkeypatch.setattr(status_backfill, "serves_messages", lambda kind: kind != "b")
    assert tenants_with_statuses() == ["acme"]
    with pytest.raises(NotFound, match="isn't installed for 'globex'"):
        tenants_with_statuses(["globex"])


@pytest.mark.parametrize("break_schema", [without_table, without_record])
def test_a_tenant_that_isnt_ready_is_refused(acme: Tenant, database_url: str, break_schema: Any) -> None:
    without_statuses(acme, 1)
    with break_schema(database_url, "acme"), pytest.raises(TenantNotReady):
        create_user_statuses("acme")
    assert owners(acme) == []


def test_a_table_that_vanishes_unnoticed_is_told_as_not_ready(acme: Tenant, database_url: str) -> None:
    without_statuses(acme, 1)
    require_ready("acme")
    with without_table(database_url, "acme"), pytest.raises(TenantNotReady) as caught:
        create_user_statuses("acme")
    assert caught.value.readiness.missing_relations == (STATUS_TABLE,)


def test_two_at_once_beside_live_traffic(
    acme: Tenant, globex: Tenant, no_pool: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Users are created, announced and not, used in any order, locked and deleted meanwhile."""
    monkeypatch.setattr(status_backfill, "BATCH", 50)
    made = without_statuses(acme, 1_000)
    require_ready("acme")

    def fill() -> None:
        assert create_user_statuses("acme").existing

    def live(work: Callable[[int], None]) -> Callable[[], None]:
        def run() -> None:
            with acme.activated():
                for place in range(40):
                    with transaction.atomic():
                        work(place)

        return run

    def come(place: int) -> None:
        User.objects.create_user(f"came{place}")
        User.objects.bulk_create([User(username=f"silent{place}")])

    def use(place: int) -> None:
        for user in (made[-1 - place], made[20 * place]):
            actions.ensure_userstatus_exists(user)

    def change(place: int) -> None:
        user = User.objects.select_for_update().get(pk=made[20 * place + 7].pk)
        user.save()

    def leave(place: int) -> None:
        made[20 * place + 13].delete()

    together(fill, fill, live(come), live(use), live(change), live(leave))
    with acme.activated():
        create_user_statuses("acme")
        assert User.objects.count() == UserStatus.objects.count() == 1_000 + 80 - 40
        assert not User.objects.filter(chat_status=None).exists()
    assert owners(globex) == []


@contextmanager
def somebody_holds(database_url: str, statement: str, *values: Any) -> Iterator[psycopg.Connection]:
    """Another program's transaction in acme, open for as long as the body runs, then committed."""
    with psycopg.connect(database_url) as other:
        other.execute("SET search_path = acme")
        other.execute(statement, values)
        yield other


def test_who_keeps_a_user_locked_is_named_and_the_others_are_done(
    acme: Tenant, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(status_backfill, "LOCK_TIMEOUT", 20)
    monkeypatch.setattr(status_backfill, "PATIENCE", 0)
    made = without_statuses(acme, 30)
    held = made[25]
    with (
        somebody_holds(database_url, "SELECT FROM auth_user WHERE id = %s FOR UPDATE", held.pk),
        pytest.raises(Conflict, match=f"keeps the user {held.pk} locked"),
    ):
        create_user_statuses("acme")
    assert owners(acme) == [user.username for user in made[:25]]
    assert create_user_statuses("acme") == StatusCount("acme", existing=25, created=5)


@contextmanager
def filling_waits_for(other: psycopg.Connection) -> Iterator[None]:
    """Run the body when the command's work in acme waits for an open transaction; then let it come to its end."""
    waiting = "SELECT FROM pg_stat_activity WHERE %s = ANY(pg_blocking_pids(pid))"
    failed: list[list[Exception]] = []
    thread = threading.Thread(target=lambda: failed.append(outcomes(lambda: create_user_statuses("acme"))[1]))
    thread.start()
    while not other.execute(waiting, [other.info.backend_pid]).fetchall():
        assert thread.is_alive()
    yield
    other.commit()
    thread.join(60)
    assert failed == [[]]


def test_a_deadlock_is_never_the_others_loss(acme: Tenant, database_url: str) -> None:
    """Somebody's transaction uses statuses in another order than the command, each waiting for the other's row."""
    made = without_statuses(acme, 30)
    insert = f"INSERT INTO {STATUS_TABLE} (user_id, is_online, connections) VALUES (%s, false, '{{}}')"
    with somebody_holds(database_url, insert, made[-1].pk) as other, filling_waits_for(other):
        other.execute(f"{insert} ON CONFLICT DO NOTHING", [made[0].pk])
    assert owners(acme) == [user.username for user in made]


def test_a_user_who_is_being_deleted_gets_none(acme: Tenant, database_url: str) -> None:
    made = without_statuses(acme, 30)
    with (
        somebody_holds(database_url, "DELETE FROM auth_user WHERE id = %s", made[10].pk) as other,
        filling_waits_for(other),
    ):
        pass
    assert owners(acme) == [user.username for user in made if user is not made[10]]


def test_within_a_transaction_nothing_of_it_is_changed(acme: Tenant) -> None:
    without_statuses(acme, 3)
    with acme.activated(), transaction.atomic(), connection.cursor() as cursor:
        cursor.execute("SET LOCAL lock_timeout = '7s'")
        assert create_user_statuses("acme").created == 3
        cursor.execute("SHOW lock_timeout")
        assert cursor.fetchone() == ("7s",)


def lose_connection(*_arguments: Any) -> Any:
    """Let the server end this thread's session, as a restart does, and query."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_terminate_backend(pg_backend_pid())")


@pytest.mark.parametrize("point", ["require_ready", "_insert_at_once"])
def test_a_database_that_goes_away_is_told_as_such(acme: Tenant, monkeypatch: pytest.MonkeyPatch, point: str) -> None:
    without_statuses(acme, 1)
    monkeypatch.setattr(status_backfill, point, lose_connection)
    try:
        with pytest.raises(Unavailable, match="The database did not answer"):
            create_user_statuses("acme")
    finally:
        connection.close()


# The command


def test_command_does_all_tenants_and_counts(acme: Tenant, globex: Tenant, people: tuple[str, ...]) -> None:
    without_statuses(acme, 5)
    without_statuses(globex, 2)
    assert run() == (
        0,
        [
            "acme: 5 created, 3 existed.",
            "globex: 2 created, 3 existed.",
            "In all: 7 created, 6 existed, in 2 of 2 tenants.",
        ],
        [],
    )
    assert run(verbosity=0) == (0, [], [])
    assert (len(owners(acme)), len(owners(globex))) == (8, 5)


def test_command_does_the_named_tenants(acme: Tenant, globex: Tenant) -> None:
    for tenant in (acme, globex):
        without_statuses(tenant, 2)
    status, printed, complaints = run("--schema", "globex", "--schema=globex")
    assert (status, printed[0], complaints) == (0, "globex: 2 created, 0 existed.", [])
    assert (len(owners(acme)), len(owners(globex))) == (0, 2)


@pytest.mark.parametrize(("name", "reason"), [("initech", "No tenant has the schema"), ("public", "isn't installed")])
def test_command_knows_its_tenants(acme: Tenant, name: str, reason: str) -> None:
    without_statuses(acme, 1)
    status, printed, (complaint,) = run("--schema=acme", f"--schema={name}")
    assert (status, printed) == (2, [])
    assert reason in complaint
    assert repr(name) in complaint
    assert owners(acme) == []


def test_command_reports_a_tenant_that_isnt_ready_and_does_the_others(
    acme: Tenant, globex: Tenant, database_url: str
) -> None:
    for tenant in (acme, globex):
        without_statuses(tenant, 2)
    with without_record(database_url, "acme"):
        status, printed, (complaint, summary) = run()
    assert status == 1
    assert printed == ["globex: 2 created, 0 existed.", "In all: 2 created, 0 existed, in 1 of 2 tenants."]
    assert complaint == (
        f"acme: NOT READY: not applied: {', '.join(OURS)}."
        " Required action: python manage.py migrate_schemas --schema=acme"
    )
    assert summary == "1 of 2 tenants could not be done."
    assert (len(owners(acme)), len(owners(globex))) == (0, 2)
    verdicts.forget_all()
    assert run()[0] == 0


def test_command_survives_a_hook_that_fails_for_one_tenant(
    acme: Tenant, globex: Tenant, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def is_member(_user: User, schema_name: str) -> bool:
        return bool(1 / (schema_name == "globex"))

    # The tables refer to the tenant's own users, so that the gate would refuse them under these settings.
    monkeypatch.setenv(BYPASS_VARIABLE, "true")

    for tenant in (acme, globex):
        without_statuses(tenant, 2)
    with WITHOUT_OWN_USERS, override_settings(TENANT_MESSAGING={"TENANT_MEMBERSHIP": is_member}):
        status, printed, complaints = run()
    assert (status, printed[0]) == (1, "globex: 2 created, 0 existed.")
    assert complaints[0] == "acme: NOT DONE: ZeroDivisionError: division by zero"
    assert "in is_member" in caplog.text


def test_command_ends_when_the_database_goes_away(acme: Tenant, monkeypatch: pytest.MonkeyPatch) -> None:
    without_statuses(acme, 1)
    monkeypatch.setattr(status_backfill, "_insert_at_once", lose_connection)
    try:
        status, printed, complaints = run()
    finally:
        connection.close()
    assert (status, printed) == (2, [])
    assert complaints == ["The database did not answer. Nothing more was done."]


def test_command_can_be_interrupted_and_run_again(acme: Tenant, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(status_backfill, "BATCH", 10)
    without_statuses(acme, 25)
    original = status_backfill._insert
    done: list[int] = []

    def interrupted(keys: list[Any]) -> int:
        if done:
            raise KeyboardInterrupt
        done.append(original(keys))
        return done[-1]

    with monkeypatch.context() as patched:
        patched.setattr(status_backfill, "_insert", interrupted)
        status, _printed, (complaint,) = run()
    assert (status, complaint) == (130, "Interrupted. What was done stays; run it again for the rest.")
    assert len(owners(acme)) == 10
    assert run("--schema=acme")[1][0] == "acme: 15 created, 10 existed."


def test_command_shows_progress_to_people_only(acme: Tenant) -> None:
    without_statuses(acme, 3)
    terminal = Terminal()
    run(stderr=terminal)
    assert "\r\x1b[Kacme: 3 users\r\x1b[K" in terminal.getvalue()
    assert "tenants done: 1 of 2\r\x1b[K" in terminal.getvalue()
    assert terminal.getvalue().endswith("\r\x1b[K")
    assert run()[2] == []


def test_two_commands_at_once(acme: Tenant, globex: Tenant, database_url: str) -> None:
    for tenant in (acme, globex):
        without_statuses(tenant, 3_000)
    path = python_path(ROOT, ROOT / "example_project")
    env = {**os.environ, "PYTHONPATH": path, "DATABASE_URL": database_url, "DJANGO_SETTINGS_MODULE": "tests.settings"}
    command = [sys.executable, "-W", "error", "-m", "django", "create_user_statuses"]

    def fill() -> int:
        done = subprocess.run(command, env=env, capture_output=True, text=True, check=False, timeout=60)
        assert (done.returncode, done.stderr) == (0, "")
        return int(done.stdout.splitlines()[-1].split()[2])

    assert sum(together(fill, fill)) == 6_000
    assert len(owners(acme)) == len(owners(globex)) == 3_000

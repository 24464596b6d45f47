"""Every user has a status: from creation, at the latest at first use, and the command makes what is missing."""

from __future__ import annotations

import json
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
from asgiref.sync import async_to_sync
from django.conf import settings as django_settings
from django.contrib.auth.models import AnonymousUser, User
from django.core.exceptions import ImproperlyConfigured
from django.core.management import call_command
from django.db import connection, connections, transaction
from django.test import override_settings
from django.test.utils import isolate_apps

from django_tenant_messaging import actions
from django_tenant_messaging.actions import status_backfill, status_creation
from django_tenant_messaging.actions.status_backfill import StatusCount, create_user_statuses, tenants_with_statuses
from django_tenant_messaging.exceptions import Conflict, NotFound, TenantNotReady, Unavailable
from django_tenant_messaging.models import UserStatus
from django_tenant_messaging.permissions import belongs_to_tenant, may_use_tenant
from django_tenant_messaging.selectors import list_members
from django_tenant_messaging.tenancy import activated, require_ready, run_in_tenant
from django_tenant_messaging.tenancy.gate import BYPASS_VARIABLE, verdicts
from tests.harness.breaking import STATUS_TABLE, without_record, without_table
from tests.harness.commands import Terminal, run_command
from tests.harness.presence import connection_closed, connection_opened
from tests.harness.queries import exactly, queries
from tests.harness.run import disconnect_django
from tests.harness.together import outcomes, together
from tests.harness.world import TEAM, made_world

run = partial(run_command, "create_user_statuses")

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.harness.peer import Peers
    from tests.harness.tenants import Tenant

ROOT = Path(__file__).resolve().parents[1]
WITHOUT_OWN_USERS = override_settings(
    TENANT_APPS=[app for app in django_settings.TENANT_APPS if app != "django.contrib.auth"]
)
"""Settings of a host whose users are shared. The table that they then name is still each tenant's."""


def owners(tenant: Tenant) -> list[str]:
    """The names of the users who have a status, once for each."""
    with tenant.activated():
        return list(UserStatus.objects.order_by("user_id").values_list("user__username", flat=True))


def without_statuses(tenant: Tenant, number: int) -> list[User]:
    """Make users whom no signal announces."""
    with tenant.activated():
        return User.objects.bulk_create(User(username=f"user{place:06}") for place in range(number))


@pytest.fixture
def no_pool(tenants: Any) -> Iterator[None]:
    """Django's connections without a pool, so that each of many threads has one."""
    disconnect_django()
    options = connections.settings["default"]["OPTIONS"]
    pool = options.pop("pool")
    yield
    disconnect_django()
    options["pool"] = pool


# At first use


def test_fifty_first_uses_at_once_make_one_status(acme: Tenant, globex: Tenant, no_pool: None) -> None:
    (user,) = without_statuses(acme, 1)
    ready = threading.Barrier(50, timeout=60)

    def use() -> int:
        with acme.activated():
            connection.ensure_connection()
            ready.wait()
            return actions.ensure_userstatus_exists(user).pk

    assert len(set(together(*[use] * 50))) == 1
    assert owners(acme) == [user.username]
    assert owners(globex) == []


def test_fifty_first_sockets_at_once_make_one_status(acme: Tenant, globex: Tenant, no_pool: None) -> None:
    (user,) = without_statuses(acme, 1)
    ready = threading.Barrier(50, timeout=60)

    def use(process: str) -> None:
        with acme.activated():
            connection.ensure_connection()
            ready.wait()
            connection_opened(user, process=process)

    together(*(lambda process=process: use(str(process)) for process in range(50)))
    with acme.activated():
        status = UserStatus.objects.get()
    assert (status.is_online, len(status.connections)) == (True, 50)
    assert owners(globex) == []


def test_a_status_that_is_there_costs_one_query(acme: Tenant) -> None:
    (user,) = without_statuses(acme, 1)
    with acme.activated():
        with exactly(3):
            made = actions.ensure_userstatus_exists(user)
        with exactly(1):
            assert actions.ensure_userstatus_exists(user) == made
        with transaction.atomic(), exactly(1):
            assert actions.ensure_userstatus_exists(user) == made


def test_who_is_no_user_of_the_tenant_gets_none_and_breaks_nothing(
    acme: Tenant, globex: Tenant, people: tuple[str, ...]
) -> None:
    stranger = globex.create_user("stranger")
    with acme.activated(), transaction.atomic():
        for nobody in (stranger, AnonymousUser()):
            with pytest.raises(NotFound):
                actions.ensure_userstatus_exists(nobody)  # type: ignore[arg-type]
        connection_opened(stranger, process="here")
        User.objects.create_user("after")
    assert owners(acme) == [*people, "after"]


def test_a_status_that_isnt_there_reads_as_offline_and_comes_with_use(
    acme: Tenant, globex: Tenant, people: tuple[str, ...]
) -> None:
    with made_world(acme, globex) as world:
        UserStatus.objects.all().delete()
        seen = {member.user.username: member.is_online for member in list_members(world.alice, TEAM)}
        assert seen == {"alice": False, "bob": False}
        connection_closed(world.bob, process="here")
        actions.expire_connections()
        connection_opened(world.bob, process="here")
        assert [member.is_online for member in list_members(world.alice, TEAM)] == [False, True]
        assert owners(acme) == ["bob"]


def test_a_status_lost_while_online_comes_back_with_the_next_renewal(
    acme: Tenant, globex: Tenant, people: tuple[str, ...]
) -> None:
    with acme.activated():
        for name in ("alice", "bob"):
            connection_opened(acme.users[name], process="here")
        UserStatus.objects.filter(user=acme.users["bob"]).delete()
        keys = [acme.users["alice"].pk, acme.users["bob"].pk, 1_000_000]
        with exactly(2):
            actions.renew_connections(keys, process="here")
        assert owners(acme) == list(people)
        online = UserStatus.objects.filter(is_online=True, online_until__isnull=False).order_by("user_id")
        assert [(status.user_id, list(status.connections)) for status in online] == [
            (keys[0], ["here"]),
            (keys[1], ["here"]),
        ]
        connection_closed(acme.users["bob"], process="here")
        assert not UserStatus.objects.get(user=acme.users["bob"]).is_online
    assert owners(globex) == list(people)


async def test_a_socket_gives_its_user_a_status(acme: Tenant, people: tuple[str, ...], peers: Peers) -> None:
    def forget() -> None:
        UserStatus.objects.all().delete()

    await run_in_tenant("acme", forget)
    bob = await peers.connect(acme, "bob")
    assert bob.hello
    from django_tenant_messaging.realtime.hub import running_hub

    hub = running_hub()
    assert hub is not None
    await hub.presence.settled(30)
    assert await run_in_tenant("acme", lambda: list(UserStatus.objects.values_list("user__username", "is_online"))) == [
        ("bob", True)
    ]


# At creation


def test_a_new_user_has_a_status_in_their_tenant_alone(acme: Tenant, globex: Tenant) -> None:
    first = globex.create_user("first")
    with acme.activated():
        user = User.objects.create_user("alice")
        assert user.pk == first.pk
        assert user.chat_status.is_online is False
        User(username="saved").save()
        User.objects.get_or_create(username="made")
    assert owners(acme) == ["alice", "saved", "made"]
    assert owners(globex) == ["first"]


@pytest.mark.parametrize("atomic", [False, True])
def test_a_status_at_creation_costs_one_statement(acme: Tenant, atomic: bool) -> None:
    require_ready("acme")
    with acme.activated():
        if atomic:
            with transaction.atomic(), exactly(2):
                User.objects.create(username="alice")
        else:
            with exactly(2):
                User.objects.create(username="alice")


def test_a_transaction_looks_at_the_schemas_once(acme: Tenant) -> None:
    with acme.activated():
        for number in range(2):
            # What the transaction before has seen isn't believed.
            with transaction.atomic():
                with queries() as made:
                    User.objects.create(username=f"first{number}")
                assert sum("django_migrations" in sql for sql in made) == 2
                with exactly(3):
                    User.objects.create(username=f"second{number}")
                with transaction.atomic(), exactly(3):
                    User.objects.create(username=f"third{number}")
    assert len(owners(acme)) == 6


def test_a_user_rolled_back_leaves_no_status(acme: Tenant) -> None:
    with acme.activated(), transaction.atomic():
        User.objects.create_user("alice")
        assert owners(acme) == ["alice"]
        transaction.set_rollback(True)
    assert owners(acme) == []


def test_a_user_made_asynchronously_has_a_status(acme: Tenant, globex: Tenant) -> None:
    with acme.activated():
        async_to_sync(User.objects.acreate_user)("alice")
        async_to_sync(User(username="bob").asave)()
    assert owners(acme) == ["alice", "bob"]
    assert owners(globex) == []


def test_saving_a_user_again_makes_none(acme: Tenant, people: tuple[str, ...]) -> None:
    with acme.activated():
        UserStatus.objects.all().delete()
        acme.users["alice"].save()
        User.objects.update_or_create(username="bob", defaults={"first_name": "Bob"})
        User.objects.filter(username="carol").update(first_name="Carol")
    assert owners(acme) == []


def test_a_fixture_makes_none(acme: Tenant, tmp_path: Path) -> None:
    fixture = tmp_path / "users.json"
    fixture.write_text(json.dumps([{"model": "auth.user", "pk": 7, "fields": {"username": "alice"}}]))
    with acme.activated():
        call_command("loaddata", str(fixture), verbosity=0)
        assert User.objects.get().pk == 7
        assert owners(acme) == []
        actions.ensure_userstatus_exists(User.objects.get())
    assert owners(acme) == ["alice"]


@isolate_apps("django.contrib.auth")
def test_users_saved_by_a_proxy_or_a_child_model_have_a_status(acme: Tenant) -> None:
    from django.db import models

    class Clerk(User):
        class Meta:
            app_label = "auth"
            proxy = True

    class Driver(User):
        licence = models.AutoField(primary_key=True)
        user = models.OneToOneField(User, models.CASCADE, parent_link=True)

        class Meta:
            app_label = "auth"

    with acme.activated():
        Clerk.objects.create(username="clerk")
        with connection.schema_editor() as editor:
            editor.create_model(Driver)
        try:
            driver = Driver.objects.create(username="driver")
            assert driver.pk != driver.user_id  # type: ignore[attr-defined]
        finally:
            with connection.schema_editor() as editor:
                editor.delete_model(Driver)
    assert owners(acme) == ["clerk", "driver"]


def test_other_models_make_none(acme: Tenant) -> None:
    from django.contrib.auth.models import Group

    with acme.activated(), exactly(1):
        Group.objects.create(name="staff")


def test_shared_users_get_none_at_creation_but_at_first_use(acme: Tenant) -> None:
    with WITHOUT_OWN_USERS, acme.activated():
        with exactly(1):
            user = User.objects.create(username="alice")
        assert owners(acme) == []
        actions.ensure_userstatus_exists(user)
    assert owners(acme) == ["alice"]


def test_with_users_in_both_the_tenants_own_get_one(acme: Tenant, monkeypatch: pytest.MonkeyPatch) -> None:
    # The shared schema has no such table here, and would be asked for it.
    monkeypatch.setenv(BYPASS_VARIABLE, "true")
    both = ["django.contrib.auth", "django_tenant_messaging"]
    with override_settings(SHARED_APPS=[*django_settings.SHARED_APPS, *both]):
        user = acme.create_user("alice")
        with activated("public"), exactly(0):
            status_creation.insert_status_of_new_user(user, using="default")
    assert owners(acme) == ["alice"]


def test_tenants_without_the_app_and_other_databases_are_let_alone(
    acme: Tenant, monkeypatch: pytest.MonkeyPatch
) -> None:
    (user,) = without_statuses(acme, 1)
    with acme.activated(), exactly(0):
        status_creation.insert_status_of_new_user(user, using="other")
    with acme.activated(), override_settings(TENANT_APPS=["django.contrib.auth"]), exactly(0):
        status_creation.insert_status_of_new_user(user, using="default")
    # With tenant types: a schema that no tenant has.
    monkeypatch.setattr(status_creation, "kind_of", lambda _schema_name: None)
    with acme.activated(), exactly(0):
        status_creation.insert_status_of_new_user(user, using="default")
    assert owners(acme) == []


@pytest.mark.parametrize("atomic", [False, True])
@pytest.mark.parametrize("break_schema", [without_table, without_record])
def test_in_a_tenant_that_isnt_ready_users_are_created_with_a_warning(
    acme: Tenant,
    globex: Tenant,
    database_url: str,
    caplog: pytest.LogCaptureFixture,
    break_schema: Any,
    atomic: bool,
) -> None:
    with break_schema(database_url, "acme"):
        with acme.activated():
            if atomic:
                with transaction.atomic():
                    user = User.objects.create_user("alice")
                    User.objects.filter(pk=user.pk).update(first_name="Alice")
            else:
                user = User.objects.create_user("alice", first_name="Alice")
        globex.create_user("alice")
        assert owners(globex) == ["alice"]
    (warning,) = [record for record in caplog.records if record.levelname == "WARNING"]
    assert warning.getMessage().startswith(f"[acme] The new user {user.pk} has no status before its first use: ")
    assert "python manage.py " in warning.getMessage()
    assert (warning.schema_name, bool(warning.remedy)) == ("acme", True)  # type: ignore[attr-defined]
    with acme.activated():
        assert User.objects.get().first_name == "Alice"
        assert owners(acme) == []
        actions.ensure_userstatus_exists(user)
    assert owners(acme) == ["alice"]


@pytest.mark.parametrize("atomic", [False, True])
def test_a_table_that_vanishes_unnoticed_breaks_no_user_creation(
    acme: Tenant, database_url: str, caplog: pytest.LogCaptureFixture, atomic: bool
) -> None:
    require_ready("acme")
    with without_table(database_url, "acme"), acme.activated():
        if atomic:
            with transaction.atomic():
                User.objects.create_user("alice")
                assert User.objects.count() == 1
        else:
            User.objects.create_user("alice")
    (warning,) = [record for record in caplog.records if record.levelname == "WARNING"]
    assert f"not there: {STATUS_TABLE}" in warning.getMessage()
    with acme.activated():
        assert User.objects.get().username == "alice"


def test_whatever_fails_in_us_fails_no_user_creation(
    acme: Tenant, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_keys: Any) -> int:
        with connection.cursor() as cursor:
            cursor.execute("SELECT 1 / 0")
        return 0

    monkeypatch.setattr(status_creation, "insert_statuses", fail)
    with acme.activated(), transaction.atomic():
        User.objects.create_user("alice")
        assert User.objects.count() == 1
    assert "[acme] No status could be made for the new user 1." in caplog.text
    assert "division by zero" in caplog.text


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
        "acme: NOT READY: not applied: django_tenant_messaging.0001_initial."
        " Required action: python manage.py migrate_schemas --schema=acme"
    )
    assert summary == "1 of 2 tenants could not be done."
    assert (len(owners(acme)), len(owners(globex))) == (0, 2)
    verdicts.forget_all()
    assert run()[0] == 0


def test_command_survives_a_hook_that_fails_for_one_tenant(
    acme: Tenant, globex: Tenant, caplog: pytest.LogCaptureFixture
) -> None:
    def is_member(_user: User, schema_name: str) -> bool:
        return bool(1 / (schema_name == "globex"))

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
    path = os.pathsep.join(str(folder) for folder in (ROOT, ROOT / "example_project"))
    env = {**os.environ, "PYTHONPATH": path, "DATABASE_URL": database_url, "DJANGO_SETTINGS_MODULE": "tests.settings"}
    command = [sys.executable, "-W", "error", "-m", "django", "create_user_statuses"]

    def fill() -> int:
        done = subprocess.run(command, env=env, capture_output=True, text=True, check=False, timeout=60)
        assert (done.returncode, done.stderr) == (0, "")
        return int(done.stdout.splitlines()[-1].split()[2])

    assert sum(together(fill, fill)) == 6_000
    assert len(owners(acme)) == len(owners(globex)) == 3_000


# The admin


def test_admin_lists_the_status_of_every_user(acme: Tenant, globex: Tenant) -> None:
    operator = acme.client(acme.create_user("root", is_staff=True, is_superuser=True))
    without_statuses(acme, 3)
    globex.create_user("stranger")
    page = "/admin/django_tenant_messaging/userstatus/"
    assert "1 user status" in operator.get(page).content.decode()
    create_user_statuses("acme")
    shown = operator.get(page).content.decode()
    assert "4 user statuses" in shown
    assert "user000002" in shown
    assert "stranger" not in shown

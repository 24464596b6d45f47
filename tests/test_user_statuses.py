"""Every user has a status: from creation, at the latest at first use."""

from __future__ import annotations

import json
import threading
from typing import TYPE_CHECKING, Any

import pytest
from asgiref.sync import async_to_sync
from django.conf import settings as django_settings
from django.contrib.auth.models import AnonymousUser, User
from django.core.management import call_command
from django.db import connection, transaction
from django.test import override_settings
from django.test.utils import isolate_apps

from django_tenant_messaging import actions
from django_tenant_messaging.actions import status_creation
from django_tenant_messaging.actions.status_backfill import create_user_statuses
from django_tenant_messaging.exceptions import NotFound
from django_tenant_messaging.models import UserStatus
from django_tenant_messaging.selectors import list_members
from django_tenant_messaging.tenancy import activated, require_ready, run_in_tenant
from django_tenant_messaging.tenancy.gate import BYPASS_VARIABLE
from tests.harness.breaking import STATUS_TABLE, without_record, without_table
from tests.harness.presence import connection_closed, connection_opened
from tests.harness.queries import exactly, queries
from tests.harness.statuses import WITHOUT_OWN_USERS, owners, without_statuses
from tests.harness.together import together
from tests.harness.world import TEAM, made_world

if TYPE_CHECKING:
    from pathlib import Path

    from tests.harness.peer import Peers
    from tests.harness.tenants import Tenant

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

"""Tenants with odd schema names on running servers and in commands of their own process."""

from __future__ import annotations

import html
import http.client
import json
import os
import re
import subprocess
import sys
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from django.db import connection
from psycopg import sql

from django_tenant_messaging import actions
from django_tenant_messaging.models import UserStatus
from django_tenant_messaging.tenancy import readiness_of, readiness_of_all
from example.customers.models import Customer, Domain
from example.services.process import python_path
from tests.harness.breaking import STATUS_TABLE
from tests.harness.spare import spare_tenant
from tests.harness.tenants import Tenant, leave_tenant
from tests.harness.wire import Wire

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from example.services import LocalRedis
    from tests.harness.server import Server

NAMES = ["Spare", "spare", "a%b", "a%%b", "$", "$a `b`", "a ", "a", "--fix", "1"]
"""Each is what another one would be if it were folded, trimmed, formatted or expanded once more."""
ROOT = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class OddTenant(Tenant):
    """A tenant whose host name isn't made of its schema's name."""

    number: int = 0

    @property
    def host(self) -> str:
        return f"odd{self.number}.localhost"


def rename(old: str, new: str) -> None:
    leave_tenant()
    names = map(sql.Identifier, (old, new))
    with connection.cursor() as cursor:
        cursor.execute("SET lock_timeout = '10s'")
        cursor.execute(sql.SQL("ALTER SCHEMA {} RENAME TO {}").format(*names).as_string(cursor.connection))
        cursor.execute("RESET lock_timeout")
    Customer.objects.filter(schema_name=old).update(schema_name=new)


@contextmanager
def odd_tenant(number: int) -> Iterator[OddTenant]:
    """Made under another name: django-tenants no longer makes two whose names differ in case alone, but once did."""
    tenant, plain = OddTenant(NAMES[number], number=number), f"odd{number}"
    with spare_tenant(plain), ExitStack() as stack:
        customer = Customer.objects.get(schema_name=plain)
        Domain.objects.create(domain=tenant.host, tenant=customer, is_primary=True)
        rename(plain, tenant.schema_name)
        stack.callback(rename, tenant.schema_name, plain)
        for person in ("alice", "bob"):
            tenant.create_user(person)
        with tenant.activated():
            actions.create_room(tenant.users["alice"], name="team", members=[tenant.users["bob"]])
        yield tenant


@pytest.fixture
def odd(tenants: tuple[Tenant, Tenant]) -> Iterator[list[OddTenant]]:
    with ExitStack() as stack:
        yield [stack.enter_context(odd_tenant(number)) for number in range(len(NAMES))]


def online(tenant: Tenant) -> set[str]:
    with tenant.activated():
        return set(UserStatus.objects.filter(is_online=True).values_list("user__username", flat=True))


def test_each_hears_of_its_own_alone(
    odd: list[OddTenant], redis_server: LocalRedis, start_server: Callable[..., Server]
) -> None:
    servers = [start_server(REDIS_URL=redis_server.url()) for _ in range(2)]
    with ExitStack() as stack:
        alices = [stack.enter_context(Wire(servers[0], tenant, "alice")) for tenant in odd]
        bobs = {tenant: stack.enter_context(Wire(servers[1], tenant, "bob")) for tenant in odd[::2]}
        for tenant, alice in zip(odd, alices, strict=True):
            assert alice.post(f"of {tenant.schema_name!r}")["type"] == "ok"
        for tenant, alice in zip(odd, alices, strict=True):
            alice.await_messages(f"of {tenant.schema_name!r}")
        for tenant, bob in bobs.items():
            bob.await_messages(f"of {tenant.schema_name!r}")
            assert [user["username"] for user in bob.hello["online"]] == ["alice"]
        for tenant in odd:
            assert online(tenant) == ({"alice", "bob"} if tenant in bobs else {"alice"})
        for bob in bobs.values():
            assert bob.ask("ping")["type"] == "ok"


def change(statement: str, tenants: list[OddTenant]) -> None:
    with connection.cursor() as cursor:
        for tenant in tenants:
            schema, table = sql.Identifier(tenant.schema_name), sql.Identifier(STATUS_TABLE)
            cursor.execute(sql.SQL(statement).format(schema=schema, table=table).as_string(cursor.connection))


def typed(command: str, database_url: str) -> tuple[int, str, str]:
    """Run a line that was copied into a shell, where `manage.py` is."""
    env = {
        **os.environ,
        "DATABASE_URL": database_url,
        "DJANGO_SETTINGS_MODULE": "tests.settings",
        "PYTHONPATH": python_path(ROOT, ROOT / "example_project"),
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
    }
    done = subprocess.run(
        ["sh", "-c", command],
        cwd=ROOT / "example_project",
        env=env,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    return done.returncode, done.stdout, done.stderr


def command_on(page: str) -> str:
    """What a reader selects in the page and copies."""
    found = re.search(r"<pre.*?>(.*?)</pre>", page, re.DOTALL)
    assert found is not None, page
    return html.unescape(re.sub(r"<.*?>", "", found[1]))


def asked(server: Server, tenant: Tenant, accept: str) -> tuple[int, str]:
    """What a page of the tenant answers."""
    client = http.client.HTTPConnection(server.address, server.port, timeout=30)
    try:
        client.request("GET", "/accounts/login/", headers={"Host": f"{tenant.host}:{server.port}", "Accept": accept})
        response = client.getresponse()
        return response.status, response.read().decode()
    finally:
        client.close()


def test_what_is_copied_from_a_refusal_repairs_that_tenant_alone(
    odd: list[OddTenant], start_server: Callable[..., Server], database_url: str
) -> None:
    """Of each second one; the others, which are their likes, are served all the time."""
    broken, whole = odd[::2], odd[1::2]
    settings = {"SHOW_MIGRATION_DETAILS": True, "MIGRATION_RECHECK_INTERVAL": 0.1}
    server = start_server(TENANT_MESSAGING=json.dumps(settings))
    change("DROP TABLE {schema}.{table}", broken[:-2])
    change("DELETE FROM {schema}.django_migrations WHERE app = 'sessions'", broken[-2:])
    change("DROP TABLE {schema}.django_session", broken[-2:])
    commands = {}
    for tenant in broken:
        status, text = asked(server, tenant, "application/json")
        problem: dict[str, Any] = json.loads(text)
        assert (status, problem["schema"]) == (503, tenant.schema_name)
        status, page = asked(server, tenant, "text/html")
        assert (status, command_on(page)) == (503, problem["remedy"])
        commands[tenant] = problem["remedy"]
    assert [command.split()[2] for command in commands.values()] == [
        *["verify_tenant_migrations"] * (len(broken) - 2),
        *["migrate_schemas"] * 2,
    ]
    assert [asked(server, tenant, "text/html")[0] for tenant in whole] == [200] * len(whole)
    for tenant, command in commands.items():
        status, printed, complaints = typed(command, database_url)
        assert status == 0, (command, printed, complaints)
        broken.remove(tenant)
        leave_tenant()
        unready = {name for name, found in readiness_of_all().items() if not found.is_ready}
        assert unready == {one.schema_name for one in broken}
        assert asked(server, tenant, "text/html")[0] == 200
    change("DROP TABLE {schema}.{table}", odd)
    names = " ".join(f"--schema='{tenant.schema_name}'" for tenant in odd)
    status, printed, complaints = typed(f"python manage.py verify_tenant_migrations {names}", database_url)
    assert (status, complaints) == (1, f"CommandError: Not ready: {len(odd)} of {len(odd)} schemas.\n")
    status, printed, complaints = typed(printed.splitlines()[-1].removeprefix("To repair: "), database_url)
    assert status == 0, (printed, complaints)
    leave_tenant()
    assert all(readiness_of(tenant.schema_name).is_ready for tenant in odd)

"""The system checks: each is seen to report what it is for, with the remedy, and to keep silent about what is right."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from django.conf import settings as django_settings
from django.contrib.auth.models import User
from django.core.checks import CheckMessage, Error, Tags, Warning, run_checks  # noqa: A004
from django.db import OperationalError, connection, connections, transaction
from django.test import override_settings

from django_tenant_messaging import checks
from django_tenant_messaging.checks.middleware import GATE, READERS, TENANT
from django_tenant_messaging.conf import faults, known_settings
from django_tenant_messaging.exceptions import TenantNotReady
from django_tenant_messaging.middleware import TenantMigrationCheckMiddleware
from django_tenant_messaging.models import ChatRoom
from django_tenant_messaging.permissions import may_use_tenant
from django_tenant_messaging.tenancy import activated, require_ready
from django_tenant_messaging.tenancy.gate import BYPASS_VARIABLE, inspect_schema, verdicts
from django_tenant_messaging.types import SchemaState
from tests.harness.breaking import without_record, without_table
from tests.harness.queries import exactly
from tests.harness.run import TEMPLATE
from tests.harness.spare import spare_tenant
from tests.harness.stores import STORES
from tests.harness.tenants import leave_tenant

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.harness.run import Run
    from tests.harness.tenants import Tenant

EXAMPLE = Path(__file__).resolve().parents[1] / "example_project"
NAMES = {setting.name for setting in known_settings()}
WITHOUT_USERS = ["django.contrib.contenttypes", "django_tenant_messaging"]
SESSIONS = "django.contrib.sessions.middleware.SessionMiddleware"
LOCALE = "django.middleware.locale.LocaleMiddleware"
ENGINES = "django.contrib.sessions.backends."
LOCMEM = "django.core.cache.backends.locmem.LocMemCache"
CORE = "channels_redis.core.RedisChannelLayer"
PUBSUB = "channels_redis.pubsub.RedisPubSubChannelLayer"
IN_MEMORY = {"BACKEND": "channels.layers.InMemoryChannelLayer"}
PATIENT = {"address": "redis://localhost:6379/0", "socket_timeout": None}
REDIS_LAYER = {"BACKEND": PUBSUB, "CONFIG": {"hosts": [PATIENT]}}

Found = list[tuple[str, str, str]]


@pytest.fixture(autouse=True)
def _host_without_faults(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Each test starts from a host in production about which nothing is reported."""
    monkeypatch.delenv(BYPASS_VARIABLE, raising=False)
    with override_settings(DEBUG=False, CHANNEL_LAYERS={"default": REDIS_LAYER}):
        yield


def found(**kwargs: Any) -> Found:
    """What the checks say, as (id, message, hint)."""
    return [shown(message) for message in run_checks(**{"tags": ["tenant_messaging"], "databases": [], **kwargs})]


def shown(message: CheckMessage) -> tuple[str, str, str]:
    """A message, whose id has to fit its level."""
    name = str(message.id).removeprefix("tenant_messaging.")
    assert type(message) is (Error if name.startswith("E") else Warning)
    assert message.hint
    return name, message.msg, message.hint


def not_accepted(**given: Any) -> Found:
    with override_settings(TENANT_MESSAGING=given):
        return found()


def the_only(**host: Any) -> tuple[str, str, str]:
    """The one thing that is said about a host with these settings."""
    with override_settings(**host):
        (message,) = found()
    return message


def nothing_is_said(**host: Any) -> bool:
    with override_settings(**host):
        return found() == []


# All of them


def test_example_project_passes_all_checks_in_development(tenants: object) -> None:
    with override_settings(DEBUG=True, CHANNEL_LAYERS={"default": IN_MEMORY}):
        assert run_checks(databases=["default"]) == []


def test_example_project_passes_all_checks_in_production(tenants: object) -> None:
    assert not django_settings.DEBUG
    assert run_checks(databases=["default"]) == []


def test_every_id_has_a_test_and_is_used_once() -> None:
    ids = [
        found
        for file in (*Path(checks.__file__).parent.glob("*.py"), Path(faults.__file__))
        for found in re.findall(r'id="tenant_messaging\.(\w+)"', file.read_text())
    ]
    assert sorted(ids) == sorted(set(ids))
    assert sorted(name[1:] for name in ids) == [f"{number:03}" for number in range(1, len(ids) + 1)]
    assert {name.split("_")[1].upper() for name in globals() if re.match(r"test_[ew]\d{3}_", name)} == set(ids)


# The settings


@pytest.mark.parametrize("given", [None, [], "MAX_MENTIONS", 7, ["x" * 1_000]])
def test_e001_setting_is_no_dict(given: Any) -> None:
    with override_settings(TENANT_MESSAGING=given):
        ((identifier, message, hint),) = found()
    assert identifier == "E001"
    assert message.startswith("TENANT_MESSAGING is ")
    assert message.endswith(", not a dict.")
    assert len(message) < 120
    assert "leave it out" in hint


@pytest.mark.parametrize(
    ("name", "meant"),
    [("MAX_MENTION", "MAX_MENTIONS"), ("max_mentions", "MAX_MENTIONS"), ("HEARTBEAT", "HEARTBEAT_INTERVAL")],
)
def test_e002_unknown_name(name: str, meant: str) -> None:
    ((identifier, message, hint),) = not_accepted(**{name: 1, "MAX_MENTIONS": 1})
    assert (identifier, message) == ("E002", f"TENANT_MESSAGING has no setting '{name}'.")
    assert hint == f"Did you mean '{meant}'?"


def test_e002_unknown_name_like_no_other() -> None:
    with override_settings(TENANT_MESSAGING={7: 1}):
        ((identifier, _message, hint),) = found()
    assert identifier == "E002"
    assert all(name in hint for name in NAMES)


WRONG: list[tuple[str, Any, str]] = [
    ("MAX_CONTENT_LENGTH", 0, "a whole number, 1 or more"),
    ("MAX_CONTENT_LENGTH", "10", "a whole number, 1 or more"),
    ("MAX_CONTENT_LENGTH", 10.0, "a whole number, 1 or more"),
    ("MAX_CONTENT_LENGTH", True, "a whole number, 1 or more"),
    ("MAX_CONTENT_LENGTH", None, "a whole number, 1 or more"),
    ("MAX_MENTIONS", -1, "a whole number, 0 or more"),
    ("HEARTBEAT_INTERVAL", 0, "a number of seconds, 0.1 or more"),
    ("HEARTBEAT_INTERVAL", float("nan"), "a number of seconds, 0.1 or more"),
    ("HEARTBEAT_INTERVAL", float("inf"), "a number of seconds, 0.1 or more"),
    ("HEARTBEAT_INTERVAL", True, "a number of seconds, 0.1 or more"),
    ("STATEMENT_TIMEOUT", 0, "a number of seconds, 0.1 or more, or None"),
    ("LOCK_TIMEOUT", "5s", "a number of seconds, 0.1 or more, or None"),
    *(
        ("RATE_LIMIT_USER", value, "a pair of numbers (rate above 0, burst of 1 or more), or None")
        for value in (20, (20,), (0, 5), (1, 0), (1, True), ("1", 5), (float("inf"), 5), (1, float("nan")), (1, 2, 3))
    ),
    ("NEW_MEMBERS_SEE_HISTORY", 1, "True or False"),
    ("CHANNEL_LAYER", "", "a non-empty string"),
    ("ALLOWED_ORIGINS", "https://app.example.com", "a list of origins"),
    *(
        ("ALLOWED_ORIGINS", [origin], "a list of origins")
        for origin in (
            "app.example.com",
            "https://",
            "https://a..b",
            "https://*",
            "https://*.example.com",
            "*",
            "null",
            "",
            "https://app.example.com/",
            "https://app.example.com/chat",
            "https://app.example.com?",
            "https://app.example.com#x",
            "https://user@app.example.com",
            "https://app.example.com:",
            "https://app.example.com:0",
            "https://app.example.com:65536",
            "https://app.example.com:443",
            "http://app.example.com:80",
            "https://app.example.com:https",
            "https://App.example.com",
            "HTTPS://app.example.com",
            "https://app example.com",
            "https://app.example.com\n",
            "https://bücher.example",
            "ws://app.example.com",
            "https://https://app.example.com",
            7,
        )
    ),
    *(
        ("TRUSTED_PROXIES", value, "a list of addresses and networks")
        for value in ("10.0.0.0/8", ["proxy.internal"], ["10.0.0.1/8"], ["0.0.0.0/0"], ["::/0"], [10], ["*"])
    ),
    ("TENANT_MEMBERSHIP", "no.such.module", "the dotted path of a callable"),
    ("TENANT_MEMBERSHIP", "nodots", "the dotted path of a callable"),
    ("TENANT_MEMBERSHIP", "django.conf.ENVIRONMENT_VARIABLE", "the dotted path of a callable"),
    ("TENANT_MEMBERSHIP", "tests.broken_module.hook", "the dotted path of a callable"),
    ("TENANT_MEMBERSHIP", 5, "the dotted path of a callable"),
]


@pytest.mark.parametrize(("name", "value", "expected"), WRONG, ids=str)
def test_e003_wrong_value(name: str, value: Any, expected: str) -> None:
    ((identifier, message, hint),) = not_accepted(**{name: value})
    assert identifier == "E003"
    assert message.startswith(f"TENANT_MESSAGING['{name}'] is {value!r}, which is not {expected}")
    assert hint.startswith("Its default is ")


@pytest.mark.parametrize(
    "origin",
    [
        "https://app.example.com",
        "http://localhost",
        "https://app.example.com:8443",
        "https://[::1]:444",
        "http://10.0.0.1:443",
    ],
)
def test_origins_as_browsers_write_them_are_accepted(origin: str) -> None:
    assert not_accepted(ALLOWED_ORIGINS=[origin]) == []


def test_e003_path_to_a_module_that_breaks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "breaking_hooks.py").write_text("1 / 0\n")
    monkeypatch.syspath_prepend(tmp_path)
    assert [identifier for identifier, *_ in not_accepted(TENANT_MEMBERSHIP="breaking_hooks.is_member")] == ["E003"]


def test_all_that_is_wrong_is_said_at_once() -> None:
    messages = not_accepted(MAX_MENTION=1, MAX_CONTENT_LENGTH=0, HEARTBEAT_INTERVAL="often")
    assert [identifier for identifier, *_ in messages] == ["E002", "E003", "E003"]


def test_e004_app_is_not_the_tenants() -> None:
    with override_settings(TENANT_APPS=["django.contrib.auth"]):
        ((identifier, message, hint),) = found()
    assert identifier == "E004"
    assert "not in TENANT_APPS" in message
    assert "migrate_schemas" in hint


def test_app_may_be_named_by_its_config() -> None:
    named = ["django.contrib.auth", "django_tenant_messaging.apps.TenantMessagingConfig"]
    with override_settings(TENANT_APPS=named):
        assert found() == []


def test_e005_app_is_shared() -> None:
    with override_settings(SHARED_APPS=[*django_settings.SHARED_APPS, "django_tenant_messaging"]):
        ((identifier, message, hint),) = found()
    assert identifier == "E005"
    assert "would read and write the shared schema's tables" in message
    assert hint.startswith('Remove "django_tenant_messaging" from SHARED_APPS')
    assert "migrate_schemas --shared django_tenant_messaging zero --skip-checks" in hint


def test_e006_shared_users_without_a_rule() -> None:
    with override_settings(TENANT_APPS=WITHOUT_USERS):
        ((identifier, message, hint),) = found()
        assert identifier == "E006"
        assert "nobody could use messaging" in message
        assert "TENANT_MEMBERSHIP" in hint
        assert not_accepted(TENANT_MEMBERSHIP=lambda _user, _schema_name: True) == []
        assert [identifier for identifier, *_ in not_accepted(TENANT_MEMBERSHIP="no.such.hook")] == ["E003"]
        with override_settings(TENANT_MESSAGING=None):
            assert [identifier for identifier, *_ in found()] == ["E001"]


def test_e006_users_of_some_tenant_types_only() -> None:
    chat = ["django_tenant_messaging"]
    types = {
        "public": {"APPS": ["django.contrib.auth"]},
        "own users": {"APPS": [*chat, "django.contrib.auth"]},
        "shared users": {"APPS": chat},
    }
    with override_settings(HAS_MULTI_TYPE_TENANTS=True, TENANT_TYPES=types):
        assert [identifier for identifier, *_ in found()] == ["E006"]
        assert not may_use_tenant(User(username="anybody", is_active=True), "acme")
    types["shared users"]["APPS"] = []
    with override_settings(HAS_MULTI_TYPE_TENANTS=True, TENANT_TYPES=types):
        assert found() == []


def test_e006_users_whose_table_names_a_schema(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each tenant has the app, and all have the same table."""
    monkeypatch.setattr(User._meta, "db_table", 'accounts"."people')
    with override_settings(TENANT_APPS=django_settings.TENANT_APPS):
        assert [identifier for identifier, *_ in found()] == ["E006"]
        assert not may_use_tenant(User(username="anybody", is_active=True), "acme")


@pytest.mark.parametrize("name", ["100%", "%s", "%(key)s", "a%%%b", 'a"b', 'a"."b"."c', '"a'])
def test_e022_a_name_that_no_query_finds(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setattr(User._meta.get_field("email"), "column", name)
    ((identifier, message, hint),) = found()
    assert identifier == "E022"
    assert message.endswith(f"the user model names {name!r}.")
    assert "write % as %%" in hint


@pytest.mark.parametrize("name", ["100%%", 'a""b', '"a"', "a.b", "E-mail; --"])
def test_a_name_that_queries_find_is_right(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setattr(User._meta.get_field("email"), "column", name)
    assert found() == []


def test_tenant_types_are_checked_like_tenant_apps() -> None:
    types = {"main": {"APPS": ["django_tenant_messaging"]}, "firm": {"APPS": ["django.contrib.auth"]}}
    with override_settings(HAS_MULTI_TYPE_TENANTS=True, PUBLIC_SCHEMA_NAME="main", TENANT_TYPES=types):
        assert [identifier for identifier, *_ in found()] == ["E004", "E005"]
        types["firm"]["APPS"].append("django_tenant_messaging")
        types["main"]["APPS"].clear()
        assert found() == []


def test_limits_may_be_pairs_of_any_kind_or_none() -> None:
    assert not_accepted(RATE_LIMIT_USER=[0.5, 10], RATE_LIMIT_ROOM=(1, 1.5), LOCK_TIMEOUT=None) == []
    assert not_accepted(RATE_LIMIT_TENANT=None, RATE_LIMIT_SOCKET=None, RATE_LIMIT_CONNECT=(10_000, 1)) == []


@pytest.mark.parametrize(
    ("name", "value", "complaint"),
    [
        (
            "TRUSTED_PROXIES",
            ["10.0.0.1/8", "10.0.0.0/8", "proxy.internal", "::/0", 10],
            (
                "'10.0.0.1/8' is an address within a network; write '10.0.0.0/8', or the address"
                " alone;"
                " 'proxy.internal' is no address or network;"
                " '::/0' holds so many addresses that strangers are believed to be proxies;"
                " 10 is no address or network."
            ),
        ),
        ("TRUSTED_PROXIES", "10.0.0.0/8", "it is a plain string; write ['10.0.0.0/8']."),
        ("TRUSTED_PROXIES", {"10.0.0.0/8"}, "it is of the type set."),
        (
            "ALLOWED_ORIGINS",
            ["https://a.example", "https://b.example:443", "https://c.example:65536", "https://d.example/"],
            (
                "'https://b.example:443' names the port that its scheme has anyway;"
                " 'https://c.example:65536' has a port above 65535;"
                " 'https://d.example/' is no origin as browsers write it."
            ),
        ),
        ("ALLOWED_ORIGINS", "https://a.example", "it is a plain string; write ['https://a.example']."),
        ("REQUIRED_APPS", ["auth", "nobodys", 7], "'nobodys' is the label of no installed app; 7 is the label of no"),
        ("REQUIRED_APPS", "auth", "it is a plain string; write ['auth']."),
    ],
    ids=str,
)
def test_e003_names_the_entry_that_is_wrong(name: str, value: Any, complaint: str) -> None:
    ((identifier, message, _hint),) = not_accepted(**{name: value})
    assert identifier == "E003"
    assert f": {complaint}" in message
    assert "'auth' is" not in message


def test_proxies_are_addresses_or_networks() -> None:
    assert not_accepted(TRUSTED_PROXIES=["10.0.0.0/8", "::1", "192.168.0.1"]) == not_accepted(TRUSTED_PROXIES=()) == []


def test_defaults_are_accepted() -> None:
    assert not_accepted(**{setting.name: setting.default for setting in known_settings()}) == []


# The trap of an app in both lists


@contextmanager
def unmigrated(*schema_names: str, records: bool) -> Iterator[None]:
    """Tenants with a schema and none of its tables, recorded as migrated or not; the shared schema has a room table."""
    from example.customers.models import Customer

    table = ChatRoom._meta.db_table
    Customer.objects.bulk_create([Customer(schema_name=name, name=name) for name in schema_names])
    try:
        with connection.cursor() as cursor:
            cursor.execute(f"CREATE TABLE public.{table} (LIKE acme.{table} INCLUDING ALL)")
            for name in schema_names:
                cursor.execute(f"CREATE SCHEMA {name}")
                if records:
                    cursor.execute(f"CREATE TABLE {name}.django_migrations AS TABLE acme.django_migrations")
        yield
    finally:
        leave_tenant()
        with connection.cursor() as cursor:
            cursor.execute(f"DROP TABLE public.{table}")
            for name in schema_names:
                cursor.execute(f"DROP SCHEMA {name} CASCADE")
        Customer.objects.filter(schema_name__in=schema_names).delete()


@pytest.mark.parametrize(
    ("records", "state"), [(False, SchemaState.BEHIND), (True, SchemaState.DRIFTED)], ids=["unmigrated", "faked"]
)
def test_e005_app_in_both_lists_is_the_trap_that_the_check_and_the_gate_know(
    acme: Tenant, *, records: bool, state: SchemaState
) -> None:
    with (
        override_settings(SHARED_APPS=[*django_settings.SHARED_APPS, "django_tenant_messaging"]),
        unmigrated("trapped", "caught", records=records),
    ):
        with activated("trapped"):
            ChatRoom.objects.create(name="secret of trapped")
        with connection.cursor() as cursor:
            cursor.execute(f"SELECT name FROM public.{ChatRoom._meta.db_table}")
            assert cursor.fetchall() == [("secret of trapped",)]
        with activated("caught"):
            assert [room.name for room in ChatRoom.objects.all()] == ["secret of trapped"]
        with acme.activated():
            assert not ChatRoom.objects.exists()

        assert "E005" in [identifier for identifier, *_ in found()]
        for name in ("trapped", "caught"):
            assert inspect_schema(name, "").state is state
            with pytest.raises(TenantNotReady):
                require_ready(name)
        assert inspect_schema("acme", "").is_ready


# The middleware


class OwnGate(TenantMigrationCheckMiddleware):
    """A host's variant."""


OWN_GATE = f"{__name__}.OwnGate"


def test_e007_gate_is_missing() -> None:
    identifier, message, hint = the_only(MIDDLEWARE=[TENANT, SESSIONS])
    assert identifier == "E007"
    assert message.startswith(f"{GATE} is not in MIDDLEWARE")
    assert hint == f"Add '{GATE}' to MIDDLEWARE, right after '{TENANT}'."


@pytest.mark.parametrize(
    "tenant",
    [
        TENANT,
        "django_tenants.middleware.TenantMainMiddleware",
        "django_tenants.middleware.default.DefaultTenantMiddleware",
        "django_tenants.middleware.subfolder.TenantSubfolderMiddleware",
        "django_tenants.middleware.suspicious.SuspiciousTenantMiddleware",
    ],
)
@pytest.mark.parametrize("gate", [GATE, OWN_GATE])
def test_every_tenant_middleware_and_gate_is_known(tenant: str, gate: str) -> None:
    assert nothing_is_said(MIDDLEWARE=[LOCALE, tenant, LOCALE, gate, *READERS])
    assert the_only(MIDDLEWARE=[gate, tenant])[0] == "E008"
    assert the_only(MIDDLEWARE=[tenant])[2].endswith(f"right after '{tenant}'.")


def test_e008_gate_comes_before_the_tenant_is_known() -> None:
    identifier, message, hint = the_only(MIDDLEWARE=[LOCALE, GATE, TENANT, SESSIONS])
    assert identifier == "E008"
    assert f"comes before {TENANT}, so it can't know whose request it is" in message
    assert hint.startswith(f"Put '{GATE}' right after '{TENANT}'")


def test_e008_gate_comes_before_the_last_of_chained_tenant_middleware() -> None:
    subfolder = "django_tenants.middleware.subfolder.TenantSubfolderMiddleware"
    identifier, message, hint = the_only(MIDDLEWARE=[TENANT, GATE, subfolder])
    assert (identifier, subfolder in message) == ("E008", True)
    assert hint.startswith(f"Put '{GATE}' right after '{subfolder}'")


@pytest.mark.parametrize("reader", sorted(READERS))
def test_e008_gate_comes_after_what_reads_tables(reader: str) -> None:
    identifier, message, _hint = the_only(MIDDLEWARE=[TENANT, reader, GATE])
    assert identifier == "E008"
    assert f"comes after {reader}, so tables are read before it is known that they are there" in message


def test_all_that_is_wrong_with_the_order_is_said_at_once() -> None:
    _identifier, message, hint = the_only(MIDDLEWARE=[SESSIONS, GATE, TENANT])
    assert f"comes before {TENANT}" in message
    assert f"comes after {SESSIONS}" in message
    assert "both above what reads sessions" in hint


def test_w010_no_tenant_middleware() -> None:
    identifier, message, hint = the_only(MIDDLEWARE=[GATE, SESSIONS])
    assert identifier == "W010"
    assert f"No entry of MIDDLEWARE is {TENANT} or made from it" in message
    assert "silence this warning" in hint
    with override_settings(MIDDLEWARE=[]):
        assert [identifier for identifier, *_ in found()] == ["W010", "E007"]


def test_middleware_that_cannot_be_imported_is_left_to_django() -> None:
    assert nothing_is_said(MIDDLEWARE=[TENANT, "no.such.Middleware", GATE])


# What tenants would share


def test_w011_cache_without_a_key_function() -> None:
    caches = {
        "default": {"BACKEND": LOCMEM},
        "pages": {"BACKEND": "django.core.cache.backends.db.DatabaseCache", "LOCATION": "cache"},
    }
    with override_settings(CACHES=caches):
        (default, pages) = found()
    assert default[0] == pages[0] == "W011"
    assert default[1].startswith("CACHES['default'] has no KEY_FUNCTION")
    assert pages[1].startswith("CACHES['pages'] has no KEY_FUNCTION")
    assert '"KEY_FUNCTION": "django_tenants.cache.make_key"' in default[2]
    assert '"REVERSE_KEY_FUNCTION": "django_tenants.cache.reverse_key"' in default[2]


def test_w011_tenants_meet_in_a_cache_until_the_remedy_is_followed(acme: Tenant, globex: Tenant) -> None:
    from django.core.cache import cache

    for keys, seen in (({}, "of acme"), ({"KEY_FUNCTION": "django_tenants.cache.make_key"}, None)):
        with override_settings(CACHES={"default": {"BACKEND": LOCMEM, "LOCATION": f"{__name__}{len(keys)}", **keys}}):
            with acme.activated():
                cache.set("key", "of acme")
            with globex.activated():
                assert cache.get("key") == seen
            assert [identifier for identifier, *_ in found()] == ([] if keys else ["W011"])


@pytest.mark.parametrize(
    "cache",
    [
        {"BACKEND": "django.core.cache.backends.dummy.DummyCache"},
        {"BACKEND": LOCMEM, "KEY_FUNCTION": "django_tenants.cache.make_key"},
        {"BACKEND": LOCMEM, "KEY_FUNCTION": "django.core.cache.backends.base.default_key_func"},
    ],
    ids=["stores nothing", "by tenant", "shared on purpose"],
)
def test_cache_in_which_tenants_do_not_meet_unseen(cache: dict[str, str]) -> None:
    assert nothing_is_said(CACHES={"default": cache})


def test_djangos_own_cache_counts_only_when_sessions_are_in_it(monkeypatch: pytest.MonkeyPatch) -> None:
    from django.conf import UserSettingsHolder, global_settings

    with override_settings(CACHES=global_settings.CACHES):
        monkeypatch.setattr(UserSettingsHolder, "is_overridden", lambda _self, name: name != "CACHES")
        assert found() == []
        assert the_only(SESSION_ENGINE="django.contrib.sessions.backends.cached_db")[0] == "W011"


def test_w016_session_cookie_of_all_tenants() -> None:
    identifier, message, hint = the_only(SESSION_COOKIE_DOMAIN=".example.com")
    assert identifier == "W016"
    assert message.startswith("SESSION_COOKIE_DOMAIN is '.example.com'")
    assert hint.startswith("Remove SESSION_COOKIE_DOMAIN")


def reported(**host: Any) -> list[str]:
    with override_settings(**host):
        return [identifier for identifier, *_ in found()]


def test_w020_sessions_that_the_server_can_not_end() -> None:
    with override_settings(SESSION_ENGINE=f"{ENGINES}signed_cookies"):
        (message, _other) = found()
    assert message[0] == "W020"
    assert message[1].startswith(f"SESSION_ENGINE is '{ENGINES}signed_cookies'")
    assert f'Use "{ENGINES}db"' in message[2]


@pytest.mark.parametrize(
    ("engine", "shared", "place"),
    [
        ("file", [], "in one folder"),
        ("db", ["django.contrib.sessions"], "in a table of the shared schema"),
        ("cached_db", ["django.contrib.sessions"], "in a table of the shared schema"),
    ],
)
def test_w021_sessions_of_all_tenants_are_in_one_place(engine: str, shared: list[str], place: str) -> None:
    """Not where users are shared: there one place for their sessions is what the host wants."""
    left = [app for app in django_settings.TENANT_APPS if app not in shared]
    host = {
        "SESSION_ENGINE": f"{ENGINES}{engine}",
        "SHARED_APPS": [*django_settings.SHARED_APPS, *shared],
        "TENANT_APPS": left,
    }
    identifier, message, hint = the_only(**host)
    assert identifier == "W021"
    assert place in message
    assert f'Use "{ENGINES}db"' in hint
    without_users = [app for app in left if app != "django.contrib.auth"]
    assert reported(**host | {"TENANT_APPS": without_users}) == ["E006"]


@pytest.mark.parametrize(
    ("store", "expected"),
    [
        ("db", []),
        ("cache", []),
        ("shared cache", ["W011"]),
        ("cached_db", []),
        ("cached_db in a shared cache", ["W011"]),
        ("file", ["W021"]),
        ("signed_cookies", ["W020", "W021"]),
    ],
)
def test_what_is_said_of_each_store_of_sessions(store: str, expected: list[str]) -> None:
    assert reported(**STORES[store]) == expected


def test_store_of_sessions_that_cannot_be_imported_is_left_to_django() -> None:
    assert nothing_is_said(SESSION_ENGINE="no.such.engine")


def test_w028_one_table_of_what_was_done_in_the_admin() -> None:
    admin = "django.contrib.admin"
    left = [app for app in django_settings.TENANT_APPS if app != admin]
    shared = [*django_settings.SHARED_APPS, admin]
    identifier, message, hint = the_only(SHARED_APPS=shared, TENANT_APPS=left)
    assert identifier == "W028"
    assert "one table of the shared schema" in message
    assert f'Put "{admin}" into TENANT_APPS' in hint
    assert nothing_is_said(SHARED_APPS=shared)


# The channel layer


def fake_redis(folder: Path, version: str) -> None:
    """Let this version of redis-py be the installed one; its code isn't needed."""
    metadata = folder / f"redis-{version}.dist-info/METADATA"
    metadata.parent.mkdir()
    metadata.write_text(f"Metadata-Version: 2.1\nName: redis\nVersion: {version}\n")


@pytest.fixture
def redis_8(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_redis(tmp_path, "8.1.0")
    monkeypatch.syspath_prepend(tmp_path)


def test_e009_layer_whose_package_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "channels_redis", None)
    identifier, message, hint = the_only(CHANNEL_LAYERS={"default": REDIS_LAYER})
    assert identifier == "E009"
    assert message == f"CHANNEL_LAYERS['default'] is {PUBSUB}, and channels_redis is not installed."
    assert 'pip install "django-tenant-messaging[redis]"' in hint
    with override_settings(DEBUG=True):
        assert nothing_is_said(CHANNEL_LAYERS={"default": IN_MEMORY})


def test_w012_layer_in_memory_with_debug_off() -> None:
    identifier, message, hint = the_only(CHANNEL_LAYERS={"default": IN_MEMORY})
    assert identifier == "W012"
    assert message.startswith("CHANNEL_LAYERS['default'] is kept in memory and DEBUG is off: several server processes")
    assert PUBSUB in hint
    with override_settings(DEBUG=True):
        assert nothing_is_said(CHANNEL_LAYERS={"default": IN_MEMORY})


def test_w012_is_about_the_layer_that_the_app_uses() -> None:
    layers = {"default": REDIS_LAYER, "chat": IN_MEMORY}
    assert nothing_is_said(CHANNEL_LAYERS=layers)
    identifier, message, hint = the_only(CHANNEL_LAYERS=layers, TENANT_MESSAGING={"CHANNEL_LAYER": "chat"})
    assert (identifier, message.startswith("CHANNEL_LAYERS['chat'] is kept in memory")) == ("W012", True)
    assert hint.startswith("Set CHANNEL_LAYERS['chat'] to ")


def test_w012_no_layer_of_the_name_that_the_app_uses() -> None:
    identifier, message, _hint = the_only(TENANT_MESSAGING={"CHANNEL_LAYER": "chat"})
    assert identifier == "W012"
    assert message.startswith("CHANNEL_LAYERS has no 'chat', the layer that this app is told to use")


def test_the_remedy_of_w012_is_a_layer_that_passes(redis_8: None) -> None:
    hint = the_only(CHANNEL_LAYERS={"default": IN_MEMORY})[2]
    (layer,) = re.findall(r"to (\{.*\})\. With", hint)
    assert nothing_is_said(CHANNEL_LAYERS={"default": eval(layer, {"__builtins__": {}})})  # noqa: S307 - our own text


@pytest.mark.parametrize("layers", [{}, None])
def test_w013_no_layer_is_said_to_who_deploys_only(layers: Any) -> None:
    with override_settings(CHANNEL_LAYERS=layers):
        assert found() == []
        ((identifier, message, hint),) = found(include_deployment_checks=True)
        assert identifier == "W013"
        assert message.startswith("CHANNEL_LAYERS is not set: several server processes")
        assert "With a single server process, silence this warning." in hint
        with override_settings(DEBUG=True):
            assert found(include_deployment_checks=True) == []
    assert found(include_deployment_checks=True) == []


def test_w013_needs_no_setting_to_be_there() -> None:
    with override_settings():
        del django_settings.CHANNEL_LAYERS
        assert [identifier for identifier, *_ in found(include_deployment_checks=True)] == ["W013"]


IMPATIENT: list[Any] = [
    None,
    [],
    ["redis://localhost:6379/0"],
    "redis://localhost:6379/0",
    [("localhost", 6379)],
    [{"address": "redis://localhost:6379/0"}],
    [{"address": "redis://localhost:6379/0", "socket_timeout": 30}],
    [{"host": "localhost", "port": 6379}],
    [{"sentinels": [("localhost", 26379)], "master_name": "main"}],
]


@pytest.mark.parametrize("backend", [CORE, PUBSUB])
@pytest.mark.parametrize("hosts", IMPATIENT, ids=str)
def test_w014_redis_8_without_patience(hosts: Any, backend: str, redis_8: None) -> None:
    layer = {"BACKEND": backend, **({} if hosts is None else {"CONFIG": {"hosts": hosts}})}
    identifier, message, hint = the_only(CHANNEL_LAYERS={"default": layer})
    assert identifier == "W014"
    assert message.startswith("CHANNEL_LAYERS['default'] lacks \"socket_timeout\": None (its host): redis 8.1.0")
    assert '{"address": "redis://localhost:6379/0", "socket_timeout": None}' in hint


@pytest.mark.parametrize(
    "host",
    [
        PATIENT,
        {"host": "localhost", "port": 6379, "socket_timeout": None},
        {"sentinels": [("localhost", 26379)], "master_name": "main", "socket_timeout": None},
    ],
    ids=str,
)
def test_redis_8_with_patience(host: Any, redis_8: None) -> None:
    assert nothing_is_said(CHANNEL_LAYERS={"default": {"BACKEND": CORE, "CONFIG": {"hosts": [host, PATIENT]}}})


def test_w014_names_the_layer_and_its_hosts_but_no_password(redis_8: None) -> None:
    hosts = [PATIENT, "redis://:secret@localhost/1", ("localhost", 6379)]
    layers = {"default": REDIS_LAYER, "other": {"BACKEND": CORE, "CONFIG": {"hosts": hosts}}}
    _identifier, message, hint = the_only(CHANNEL_LAYERS=layers)
    assert message.startswith("CHANNEL_LAYERS['other'] lacks \"socket_timeout\": None (of its 3 hosts number 2, 3)")
    assert "secret" not in message + hint


def test_redis_before_8_waits_by_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_redis(tmp_path, "7.9.9")
    monkeypatch.syspath_prepend(tmp_path)
    assert nothing_is_said(CHANNEL_LAYERS={"default": {"BACKEND": CORE}})


# Database connections


@pytest.mark.parametrize("age", [60, None])
def test_w015_persistent_connections_without_a_pool(age: int | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(connections.settings["default"], "CONN_MAX_AGE", age)
    assert found() == []
    monkeypatch.setitem(connections.settings["default"], "OPTIONS", {})
    ((identifier, message, hint),) = found()
    assert identifier == "W015"
    assert message.startswith(f"DATABASES['default'] has CONN_MAX_AGE = {age} and no pool")
    assert '"CONN_MAX_AGE": 0 and "OPTIONS": {"pool": True}' in hint
    monkeypatch.setitem(connections.settings["default"], "CONN_MAX_AGE", 0)
    assert found() == []


# The gate


@pytest.mark.parametrize("given", ["true", " TRUE "])
def test_w017_gate_is_bypassed(given: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(BYPASS_VARIABLE, given)
    ((identifier, message, hint),) = found()
    assert identifier == "W017"
    assert message.startswith(f"{BYPASS_VARIABLE}={given} is in the environment: tenants are served")
    assert "verify_tenant_migrations --fix" in hint


@pytest.mark.parametrize("given", ["1", "yes", "on", "ture"])
def test_w018_bypass_that_is_not_understood(given: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(BYPASS_VARIABLE, given)
    ((identifier, message, hint),) = found()
    assert identifier == "W018"
    assert message.startswith(f"{BYPASS_VARIABLE}={given} has no effect")
    assert f"{BYPASS_VARIABLE}=true" in hint


@pytest.mark.parametrize("given", ["", "false", "False", "0", "no", "off"])
def test_bypass_that_is_off(given: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(BYPASS_VARIABLE, given)
    assert found() == []


def of_the_database() -> Found:
    return [shown(message) for message in run_checks(tags=[Tags.database], databases=["default"])]


def test_w019_tenants_that_are_not_ready(tenants: object, database_url: str, caplog: pytest.LogCaptureFixture) -> None:
    assert of_the_database() == []
    with without_record(database_url, "acme"), without_table(database_url, "globex"):
        ((identifier, message, hint),) = of_the_database()
    assert identifier == "W019"
    assert message == (
        "2 of 3 schemas are not ready, and nothing is served from them: acme (behind), globex (drifted)."
    )
    assert hint == "Run python manage.py verify_tenant_migrations --fix."
    # Looking before a migration is no alarm, and nothing is believed by it afterwards.
    assert caplog.records == []
    assert verdicts.fresh("acme") is None
    assert of_the_database() == []


def test_w019_shows_names_in_their_line(tenants: object) -> None:
    with spare_tenant("a\x1b[2Jb\nc", is_made=False):
        ((_identifier, message, _hint),) = of_the_database()
    assert message.endswith(r"from them: a\x1b[2Jb\nc (error).")


def test_w019_names_ten_of_many(tenants: object) -> None:
    from example.customers.models import Customer

    names = [f"absent{number:02}" for number in range(12)]
    Customer.objects.bulk_create([Customer(schema_name=name, name=name) for name in names])
    try:
        # One lists the tenants, one their schemas, and one of each kind what is in them.
        with exactly(4):
            ((_identifier, message, _hint),) = of_the_database()
    finally:
        Customer.objects.filter(schema_name__in=names).delete()
    assert message.startswith("12 of 15 schemas are not ready")
    assert message.endswith("absent08 (missing), absent09 (missing) and 2 more.")


def test_tenants_are_looked_at_only_where_database_checks_are_asked_for(acme: Tenant) -> None:
    with exactly(0):
        assert found() == []
        assert found(databases=["other"]) == []
        # As in `migrate_schemas`, which runs Django's command with its checks in each schema.
        with acme.activated():
            assert found(databases=["default"]) == []


def test_w019_database_that_does_not_answer(tenants: object, monkeypatch: pytest.MonkeyPatch) -> None:
    def unreachable(*_args: object) -> None:
        raise OperationalError("connection refused")

    connection.close()
    with monkeypatch.context() as patch:
        patch.setattr(connection, "ensure_connection", unreachable)
        ((identifier, message, _hint),) = of_the_database()
    assert (identifier, message) == ("W019", "It can't be found out which tenants are ready: connection refused")


def test_table_of_tenants_that_is_not_there_yet_disturbs_no_transaction(tenants: object, database_url: str) -> None:
    with without_table(database_url, "public", "customers_customer"), transaction.atomic():
        assert of_the_database() == []
        with connection.cursor() as cursor:
            cursor.execute("SELECT 1")


def manage(database_url: str, *arguments: str, expected: int = 0) -> str:
    """Run a command of the example project as in a terminal, with checks and with warnings as errors."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "manage.py", *arguments],
        cwd=EXAMPLE,
        env={**os.environ, "DATABASE_URL": database_url, "DEBUG": "1", "DJANGO_SETTINGS_MODULE": "example.settings"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == expected, done.stdout + done.stderr
    return done.stdout + done.stderr


def test_the_first_migration_of_a_new_project_runs_with_the_checks(run: Run) -> None:
    database_url = run.create("checks_new")
    assert "no issues" in manage(database_url, "check", "--database", "default", "--fail-level", "WARNING")
    assert "W019" not in manage(database_url, "migrate_schemas")
    assert "no issues" in manage(database_url, "check", "--database", "default", "--fail-level", "WARNING")


def test_tenants_that_are_behind_are_repaired_by_a_migration_with_the_checks(run: Run, database_url: str) -> None:
    own = run.create("checks_behind", template=TEMPLATE)
    for name in ("acme", "globex"):
        _empty_schema(own, name)
    check = ("check", "--database", "default", "--fail-level", "WARNING")
    assert "2 of 3 schemas are not ready" in manage(own, *check, expected=1)
    # Said once, not again in each schema.
    assert manage(own, "migrate_schemas").count("W019") == 1
    assert "no issues" in manage(own, *check)


def _empty_schema(database_url: str, name: str) -> None:
    import psycopg

    with psycopg.connect(database_url, autocommit=True) as own:
        own.execute(f"DROP SCHEMA {name} CASCADE; CREATE SCHEMA {name}")


# Settings that contradict each other, and what others could see or do


@pytest.mark.parametrize(
    ("given", "named"),
    [
        ({"MAX_CONTENT_LENGTH": 40_000}, "MAX_FRAME_BYTES is 131072: a message of MAX_CONTENT_LENGTH"),
        ({"MAX_FRAME_BYTES": 41_023}, "MAX_FRAME_BYTES is 41023"),
        (
            {"SOCKET_QUEUE_BYTES": 131_071, "HISTORY_PAGE_BYTES": 65_536},
            "SOCKET_QUEUE_BYTES is 131071, less than MAX_FRAME_BYTES (131072)",
        ),
        ({"HISTORY_PAGE_BYTES": 1_048_577}, "less than HISTORY_PAGE_BYTES (1048577)"),
        ({"USER_QUEUE_BYTES": 1_048_575}, "USER_QUEUE_BYTES is 1048575, less than SOCKET_QUEUE_BYTES (1048576)"),
        ({"RATE_LIMIT_BYTES": (2_100, 1)}, "a frame of MAX_FRAME_BYTES (131072) waits 62 s"),
        ({"LOCK_TIMEOUT": 15}, "LOCK_TIMEOUT (15 s) never ends a wait"),
    ],
    ids=str,
)
def test_w023_settings_that_contradict_each_other(given: dict[str, Any], named: str) -> None:
    identifier, message, hint = the_only(TENANT_MESSAGING=given)
    assert identifier == "W023"
    assert named in message
    assert any(name in hint for name in given)


@pytest.mark.parametrize(
    "given",
    [
        {"MAX_FRAME_BYTES": 41_024},
        {"RATE_LIMIT_BYTES": (2_168, 1)},
        {"RATE_LIMIT_BYTES": None},
        {"SOCKET_QUEUE_BYTES": 131_072, "HISTORY_PAGE_BYTES": 131_072},
        {"USER_QUEUE_BYTES": 1_048_576},
        {"LOCK_TIMEOUT": 14.9},
        {"LOCK_TIMEOUT": 60, "STATEMENT_TIMEOUT": None},
        {"LOCK_TIMEOUT": None},
    ],
    ids=str,
)
def test_settings_that_fit_together_are_not_reported(given: dict[str, Any]) -> None:
    assert nothing_is_said(TENANT_MESSAGING=given)


def at_deploy(**host: Any) -> Found:
    """What only `check --deploy` says about a host with these settings, of ours."""
    with override_settings(**host):
        return [message for message in found(include_deployment_checks=True) if message not in found()]


def test_w024_details_for_everybody() -> None:
    both = {"SHOW_MIGRATION_DETAILS": True, "SHOW_HEALTH_DETAILS": True}
    ((identifier, message, hint),) = at_deploy(TENANT_MESSAGING=both)
    assert identifier == "W024"
    assert message.startswith("SHOW_MIGRATION_DETAILS and SHOW_HEALTH_DETAILS let everybody see")
    assert "INTERNAL_IPS" in hint
    for name in both:
        ((_identifier, message, _hint),) = at_deploy(TENANT_MESSAGING={name: True})
        assert message.startswith(f"{name} lets everybody see")
    for given in ({}, dict.fromkeys(both, False), {"SHOW_HEALTH_DETAILS": lambda _request: True}):
        assert at_deploy(TENANT_MESSAGING=given) == []
    assert at_deploy(TENANT_MESSAGING=both, DEBUG=True) == []


def test_w025_forms_from_all_subdomains() -> None:
    ((identifier, message, _hint),) = at_deploy(
        CSRF_TRUSTED_ORIGINS=["https://*.example.com", "https://app.example.com"]
    )
    assert identifier == "W025"
    assert "has 'https://*.example.com':" in message
    assert at_deploy(CSRF_TRUSTED_ORIGINS=["https://app.example.com"]) == []


def test_w026_any_host_name() -> None:
    ((identifier, message, hint),) = at_deploy(ALLOWED_HOSTS=["*"])
    assert identifier == "W026"
    assert "any host name is accepted" in message
    assert "'.example.com'" in hint
    assert at_deploy(ALLOWED_HOSTS=[".example.com"]) == []


def test_w027_origins_without_tls() -> None:
    origins = ["http://app.example.com", "https://app.example.com"]
    ((identifier, message, _hint),) = at_deploy(TENANT_MESSAGING={"ALLOWED_ORIGINS": origins})
    assert identifier == "W027"
    assert "has 'http://app.example.com':" in message
    assert at_deploy(TENANT_MESSAGING={"ALLOWED_ORIGINS": origins[1:]}) == []
    assert at_deploy(TENANT_MESSAGING={"ALLOWED_ORIGINS": origins}, DEBUG=True) == []


def test_w029_limits_that_are_off() -> None:
    off = {"RATE_LIMIT_BYTES": None, "DAILY_LIMIT_ROOMS": None}
    ((identifier, message, hint),) = at_deploy(TENANT_MESSAGING=off)
    assert identifier == "W029"
    assert message.startswith("In TENANT_MESSAGING RATE_LIMIT_BYTES, DAILY_LIMIT_ROOMS are None:")
    assert "(rate, burst)" in hint
    ((_identifier, message, _hint),) = at_deploy(TENANT_MESSAGING={"RATE_LIMIT_USER": None})
    assert message.startswith("In TENANT_MESSAGING RATE_LIMIT_USER is None:")
    assert at_deploy(TENANT_MESSAGING={"RATE_LIMIT_BYTES": (10**9, 10**9)}) == []
    assert at_deploy(TENANT_MESSAGING=off, DEBUG=True) == []


def test_what_is_wrong_by_itself_is_said_once() -> None:
    given = {"ALLOWED_ORIGINS": 7, "MAX_FRAME_BYTES": "large", "SHOW_HEALTH_DETAILS": True}
    with override_settings(TENANT_MESSAGING=given):
        assert {identifier for identifier, *_ in found(include_deployment_checks=True)} == {"E003"}
    with override_settings(TENANT_MESSAGING=None):
        assert {identifier for identifier, *_ in found(include_deployment_checks=True)} == {"E001"}

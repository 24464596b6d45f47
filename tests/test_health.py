"""The health view: what a monitor polls, and strangers may see."""

from __future__ import annotations

import sys
import threading
from functools import wraps
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from django.db import OperationalError, connection, connections
from django.http import HttpResponse
from django.test import AsyncClient, Client, RequestFactory, override_settings
from django.urls import include, path

from django_tenant_messaging.exceptions import Unavailable
from django_tenant_messaging.middleware import MigrationHealthMiddleware, TenantMigrationCheckMiddleware
from django_tenant_messaging.tenancy import readiness_of_all
from django_tenant_messaging.tenancy.gate import inspect_schemas
from django_tenant_messaging.types import SchemaState
from django_tenant_messaging.web.health import migration_health
from example.customers.models import Customer
from tests.harness.breaking import OURS, without_record, without_table
from tests.harness.queries import exactly, queries
from tests.harness.together import together

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping

    from django.http import HttpRequest

    from django_tenant_messaging.types import Readiness
    from tests.harness.clock import Clock
    from tests.harness.server import Server
    from tests.harness.tenants import Tenant

pytestmark = pytest.mark.usefixtures("tenants")
# The package exports an object of the same name.
VERDICTS = sys.modules["django_tenant_messaging.tenancy.gate.verdicts"]
HEALTH = "/health/migrations/"
EVERYTHING = {"SHOW_HEALTH_DETAILS": True}
FIRST = "django_tenant_messaging.middleware.MigrationHealthMiddleware"
MANY = 1_000


def decorated(view: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(view)
    def wrapper(request: HttpRequest) -> Any:
        return view(request)

    return wrapper


# The addresses of a host that keeps the view elsewhere, and of one with addresses like it
urlpatterns = [
    path("up/migrations/", decorated(migration_health)),
    path("other/migrations/", lambda _request: HttpResponse("the host's own")),
    path("health/", include("django_tenant_messaging.health_urls")),
]


@pytest.fixture(autouse=True)
def _the_monitor_is_inside(settings: Any) -> None:
    settings.TENANT_MESSAGING = EVERYTHING


@pytest.fixture
def behind_the_tenant(settings: Any) -> None:
    """A host that answers the view where Django does, not before all else."""
    settings.MIDDLEWARE = [name for name in settings.MIDDLEWARE if name != FIRST]


@pytest.fixture
def client() -> Client:
    """A monitor that asks at acme's address."""
    return Client(SERVER_NAME="acme.localhost", raise_request_exception=False)


def totals(**counts: int) -> dict[str, int]:
    return {**dict.fromkeys(("ok", "missing", "behind", "ahead", "drifted", "error"), 0), **counts}


# What it says


def test_all_is_well(client: Client) -> None:
    response = client.get(HEALTH)
    assert response.status_code == 200
    assert response["Content-Type"] == "application/json"
    assert "no-store" in response["Cache-Control"]
    assert response["Content-Security-Policy"].startswith("default-src 'none'; ")
    assert response["X-Content-Type-Options"] == "nosniff"
    assert response["X-Frame-Options"] == "DENY"
    assert response.json() == {"status": "ok", "totals": totals(ok=3), "tenants": [], "check_disabled": False}


def test_strangers_get_what_a_probe_needs(client: Client, settings: Any, database_url: str) -> None:
    settings.TENANT_MESSAGING = {}
    response = client.get(HEALTH)
    assert (response.status_code, response.json()) == (200, {"status": "ok"})
    with without_record(database_url, "acme"), without_table(database_url, "globex"):
        VERDICTS.verdicts.forget_all()
        response = client.get(HEALTH)
        assert (response.status_code, response.json()) == (503, {"status": "not_ready"})


def test_addresses_inside_get_everything(client: Client, settings: Any) -> None:
    settings.TENANT_MESSAGING = {}
    settings.INTERNAL_IPS = ["192.0.2.7"]
    assert client.get(HEALTH, REMOTE_ADDR="192.0.2.7").json()["totals"] == totals(ok=3)
    assert "totals" not in client.get(HEALTH, REMOTE_ADDR="192.0.2.8").json()


def test_operators_get_names_and_remedies(client: Client, database_url: str) -> None:
    with without_record(database_url, "acme"), without_table(database_url, "globex"):
        assert client.get(HEALTH).json()["tenants"] == [
            {
                "schema": "acme",
                "state": "behind",
                "reason": f"not applied: {', '.join(OURS)}",
                "missing_migrations": list(OURS),
                "missing_relations": [],
                "differences": [],
                "apps": ["django_tenant_messaging"],
                "remedy": "python manage.py migrate_schemas --schema=acme",
            },
            {
                "schema": "globex",
                "state": "drifted",
                "reason": "recorded as migrated, but not there: django_tenant_messaging_userstatus",
                "missing_migrations": [],
                "missing_relations": ["django_tenant_messaging_userstatus"],
                "differences": [],
                "apps": ["django_tenant_messaging"],
                "remedy": "python manage.py verify_tenant_migrations --fix --schema=globex",
            },
        ]
    VERDICTS.verdicts.forget_all()
    assert client.get(HEALTH).json()["tenants"] == []


def knows_the_word(request: HttpRequest) -> bool:
    return bool(request.headers["x-word"] == "please")


@pytest.mark.parametrize("hook", [knows_the_word, f"{__name__}.knows_the_word"])
def test_a_hook_says_who_sees_names(client: Client, hook: object, caplog: pytest.LogCaptureFixture) -> None:
    with override_settings(TENANT_MESSAGING={"SHOW_HEALTH_DETAILS": hook}):
        assert "tenants" in client.get(HEALTH, headers={"x-word": "please"}).json()
        assert "tenants" not in client.get(HEALTH, headers={"x-word": "now"}).json()
        # Without the header the hook raises.
        assert "tenants" not in client.get(HEALTH).json()
    assert caplog.text.count("which says who sees details, failed") == 1


def test_a_newer_schema_is_counted_as_such_and_is_well(client: Client) -> None:
    with connection.cursor() as cursor:
        cursor.execute("INSERT INTO acme.django_migrations (app, name, applied) VALUES ('auth', '9999_later', now())")
        try:
            response = client.get(HEALTH)
        finally:
            cursor.execute("DELETE FROM acme.django_migrations WHERE name = '9999_later'")
    assert response.status_code == 200
    assert response.json()["totals"] == totals(ok=2, ahead=1)


def test_the_emergency_switch_is_shown(client: Client, database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DISABLE_MIGRATION_CHECK", "true")
    shown = {"status": "ok", "totals": totals(ok=3), "tenants": [], "check_disabled": True}
    assert client.get(HEALTH).json() == shown
    with without_record(database_url, "acme"):
        VERDICTS.verdicts.forget_all()
        response = client.get(HEALTH)
        # It is served, and still not well.
        assert client.get("/accounts/login/").status_code == 200
    assert response.status_code == 503
    assert [response.json()[name] for name in ("status", "check_disabled")] == ["not_ready", True]


@pytest.mark.parametrize(("method", "status"), [("head", 200), ("post", 405), ("put", 405), ("delete", 405)])
def test_it_is_only_read(client: Client, method: str, status: int) -> None:
    response = getattr(client, method)(HEALTH)
    assert response.status_code == status
    assert response.content == b""


# Where it is reached


@pytest.mark.parametrize("host", ["acme.localhost", "globex.localhost", "localhost"])
def test_it_is_reached_at_every_host_of_a_broken_site(behind_the_tenant: None, host: str, database_url: str) -> None:
    client = Client(SERVER_NAME=host)
    with without_record(database_url, "acme"), without_record(database_url, "public", "customers"):
        assert client.get("/health/").status_code == 503
        response = client.get(HEALTH)
        assert response.json()["totals"] == totals(ok=1, behind=2)
        assert response.status_code == 503


def test_it_asks_for_no_session_and_no_user(
    behind_the_tenant: None, acme: Tenant, people: tuple[str, ...], database_url: str
) -> None:
    client = acme.client(acme.users["alice"])
    hidden = without_table(database_url, "acme", "django_session"), without_table(database_url, "globex", "auth_user")
    with hidden[0], hidden[1]:
        VERDICTS.verdicts.forget_all()
        assert client.get(HEALTH).json()["totals"] == totals(ok=1, drifted=2)
        with queries() as made:
            client.get(HEALTH)
        assert not [statement for statement in made if "session" in statement or "auth_user" in statement]


@override_settings(ROOT_URLCONF=__name__, TENANT_MESSAGING={"SHOW_MIGRATION_DETAILS": True})
def test_a_host_may_decorate_and_move_it(behind_the_tenant: None, client: Client, database_url: str) -> None:
    with without_record(database_url, "acme"):
        assert client.get("/up/migrations/").json()["status"] == "not_ready"
        assert client.get("/other/migrations/").status_code == 503
        assert b"migrate_schemas" in client.get("/other/migrations/").content
        assert client.get("/no/migrations/").status_code == 503


@override_settings(ROOT_URLCONF="no.such.module")
def test_addresses_that_cannot_be_read_are_no_500_of_a_refusal(
    database_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    request = RequestFactory(SERVER_NAME="acme.localhost").get("/messages/")
    request.tenant = SimpleNamespace(schema_name="acme")  # type: ignore[attr-defined]
    with without_record(database_url, "acme"):
        response: Any = TenantMigrationCheckMiddleware(lambda _request: HttpResponse())(request)
    assert response.status_code == 503
    assert "can't be resolved" in caplog.text


@pytest.mark.parametrize("host", ["10.0.0.7", "nobody.localhost", "evil.example", ""])
def test_a_probe_needs_no_tenants_host_name(host: str) -> None:
    assert Client().get(HEALTH, HTTP_HOST=host).json()["status"] == "ok"
    assert Client().get("/", HTTP_HOST=host).status_code == 404


@override_settings(ROOT_URLCONF=__name__)
def test_the_first_middleware_leaves_all_other_addresses_alone(client: Client) -> None:
    assert client.get("/other/migrations/").content == b"the host's own"
    assert client.get("/no/migrations/").status_code == 404


async def test_it_answers_under_asgi(database_url: str, settings: Any) -> None:
    settings.USE_X_FORWARDED_HOST = True
    headers = {"x-forwarded-host": "acme.localhost"}
    with without_record(database_url, "acme"):
        for middleware in (settings.MIDDLEWARE, [name for name in settings.MIDDLEWARE if name != FIRST]):
            settings.MIDDLEWARE = middleware
            response = await AsyncClient().get(HEALTH, headers=headers)
            assert response.status_code == 503
            assert response.json()["totals"] == totals(ok=2, behind=1)


def test_a_server_answers_it(server: Server, acme: Tenant, database_url: str) -> None:
    assert server.request(acme, "GET", HEALTH)[0].status == 200


# When it can't be found out


def test_a_database_that_is_down_is_not_well(start_server: Callable[..., Server], acme: Tenant) -> None:
    server = start_server(DATABASE_URL="postgresql://nobody@127.0.0.1:1/nothing")
    response, text = server.request(acme, "GET", HEALTH)
    assert response.status == 503
    assert response.headers["Content-Type"] == "application/json"
    assert text == '{"status": "not_ready"}'


def fail(*_args: Any) -> Any:
    raise OperationalError("connection to 10.1.2.3 refused")


@pytest.mark.parametrize("part", ["schema_kinds", "inspect_schemas"])
def test_strangers_are_not_told_where_the_database_is(
    client: Client, part: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    error = Unavailable("connection to 10.1.2.3 refused")
    monkeypatch.setattr(VERDICTS, part, fail if part == "schema_kinds" else lambda _kinds: (_ for _ in ()).throw(error))
    response = client.get(HEALTH)
    assert response.status_code == 503
    assert response.json()["status"] == "unavailable"
    assert "10.1.2.3" in response.json()["error"]
    with override_settings(TENANT_MESSAGING={}):
        response = client.get(HEALTH)
        assert (response.status_code, response.json()) == (503, {"status": "not_ready"})


def test_tenants_that_cannot_be_listed_are_a_typed_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(VERDICTS, "schema_kinds", fail)
    with pytest.raises(Unavailable, match="can't be listed"):
        readiness_of_all()


def test_a_broken_migration_is_no_500(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    def inspected(kinds: Mapping[str, str]) -> Iterator[Readiness]:
        if "" in kinds.values():
            raise SyntaxError("0002_broken.py")
        return inspect_schemas(kinds)

    monkeypatch.setattr(VERDICTS, "inspect_schemas", inspected)
    response = client.get(HEALTH)
    assert response.status_code == 503
    assert response.json()["totals"] == totals(ok=1, error=2)
    assert "0002_broken.py" in readiness_of_all()["acme"].reason


# What it costs


@pytest.fixture
def many_tenants() -> Iterator[None]:
    """A thousand tenants besides, whose schemas are still to be made."""
    made = [Customer(schema_name=f"many{number:04}", name="One of many") for number in range(MANY)]
    Customer.objects.bulk_create(made)
    try:
        yield
    finally:
        connection.set_schema_to_public()  # type: ignore[attr-defined]
        Customer.objects.filter(schema_name__startswith="many").delete()


def test_polling_a_thousand_tenants_is_one_query(many_tenants: None) -> None:
    request = RequestFactory().get(HEALTH)
    with queries() as made:
        response = migration_health(request)
    assert b'"missing": 1000' in response.content
    # The list, six batches of the catalog, and a statement for each kind of schema that is there.
    assert len(made) == 1 + 6 + 2
    for _ in range(3):
        with exactly(1):
            migration_health(request)


def test_only_what_is_not_ready_is_looked_at_again_soon(clock: Clock, database_url: str) -> None:
    with without_record(database_url, "acme"):
        assert not readiness_of_all()["acme"].is_ready
        clock.now += 2.1
        with queries() as made:
            assert not readiness_of_all()["acme"].is_ready
    assert len(made) == 3
    assert all("globex" not in statement for statement in made)


def test_what_expires_while_it_is_read_is_not_looked_at_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    readiness_of_all()
    really, asked = VERDICTS.Verdicts.fresh, set[str]()

    def once(self: Any, schema_name: str) -> Readiness | None:
        """What is known, for the first who asks."""
        known: Readiness | None = None if schema_name in asked else really(self, schema_name)
        asked.add(schema_name)
        return known

    monkeypatch.setattr(VERDICTS.Verdicts, "fresh", once)
    with exactly(1):
        assert len(readiness_of_all()) == 3


def test_many_who_poll_at_once_look_once(monkeypatch: pytest.MonkeyPatch) -> None:
    looks: list[list[str]] = []
    all_asked = threading.Barrier(8, timeout=30)
    really = VERDICTS.schema_kinds

    def listed(names: Collection[str] | None) -> dict[str, str]:
        kinds: dict[str, str] = really(names)
        all_asked.wait()
        return kinds

    def inspected(kinds: Mapping[str, str]) -> Iterator[Readiness]:
        looks.append(list(kinds))
        return inspect_schemas(kinds)

    monkeypatch.setattr(VERDICTS, "schema_kinds", listed)
    monkeypatch.setattr(VERDICTS, "inspect_schemas", inspected)
    answers = together(*[readiness_of_all] * 8)
    assert [names for names in looks if names] == [["public", "acme", "globex"]]
    assert all(readiness.state is SchemaState.OK for answer in answers for readiness in answer.values())


def test_nobody_waits_for_long_for_the_look_of_another(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(VERDICTS, "CHECK_PATIENCE", 0.01)
    with VERDICTS.verdicts._looking_at_all:
        response = client.get(HEALTH)
        assert response.status_code == 503
        assert response.json()["status"] == "unavailable"
    assert client.get(HEALTH).status_code == 200


def test_a_host_with_a_transaction_for_each_request_keeps_what_is_found(
    behind_the_tenant: None, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(connections.settings["default"], "ATOMIC_REQUESTS", True)
    assert client.get(HEALTH).status_code == 200
    with exactly(0):
        assert VERDICTS.verdicts.fresh("globex") is not None
    with queries() as made:
        client.get(HEALTH)
    # Whose host it is, and the list.
    assert len(made) == 2


def test_the_first_middleware_costs_other_requests_no_look_at_addresses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("django_tenant_messaging.middleware.is_migration_health", None)
    middleware: Any = MigrationHealthMiddleware(lambda _request: HttpResponse("served"))
    assert middleware(RequestFactory().get("/messages/")).content == b"served"

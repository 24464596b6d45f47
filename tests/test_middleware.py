"""The HTTP face of the migration gate: a tenant that isn't ready is refused in words, and no other notices."""

from __future__ import annotations

import json
import logging
import re
import sys
import threading
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from django.db import ProgrammingError, connection, connections, transaction
from django.http import HttpResponse
from django.template.response import SimpleTemplateResponse
from django.test import AsyncClient, Client, RequestFactory, override_settings
from django.urls import include, path
from django.utils.deprecation import MiddlewareMixin

from django_tenant_messaging import middleware as middleware_module
from django_tenant_messaging import signals
from django_tenant_messaging.middleware import TenantMigrationCheckMiddleware
from django_tenant_messaging.models import Message, UserStatus
from django_tenant_messaging.tenancy import readiness_of, require_ready
from django_tenant_messaging.tenancy.gate import inspect_schema
from django_tenant_messaging.types import Readiness, SchemaState
from django_tenant_messaging.web.not_ready import refuse
from example.customers.models import Customer, Domain
from tests.harness.breaking import OURS as OUR_MIGRATIONS
from tests.harness.breaking import without_record, without_table
from tests.harness.queries import exactly, queries
from tests.harness.together import together

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from django.http import HttpRequest

    from tests.harness.clock import Clock
    from tests.harness.server import Server
    from tests.harness.tenants import Tenant

pytestmark = pytest.mark.usefixtures("tenants")
# The package exports an object of the same name.
VERDICTS = sys.modules["django_tenant_messaging.tenancy.gate.verdicts"]
SERVED = "/accounts/login/"
OURS = "django_tenant_messaging.middleware.TenantMigrationCheckMiddleware"
BROWSER = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"


# The views of a host, for the tests that need more than the example's


def lists_messages(_request: HttpRequest) -> HttpResponse:
    return HttpResponse(str(list(Message.objects.all())))


def wraps_the_error(_request: HttpRequest) -> HttpResponse:
    try:
        return HttpResponse(str(UserStatus.objects.count()))
    except ProgrammingError as error:
        raise RuntimeError("statuses can't be counted") from error


def renders_late(_request: HttpRequest) -> SimpleTemplateResponse:
    class Late(SimpleTemplateResponse):
        @property
        def rendered_content(self) -> str:
            return str(UserStatus.objects.count())

    return Late("unused")


def asks_itself(_request: HttpRequest) -> HttpResponse:
    require_ready("globex")
    return HttpResponse("served")


def has_a_bug(_request: HttpRequest) -> HttpResponse:
    with connection.cursor() as cursor:
        cursor.execute("SELECT 1 FROM a_table_that_nobody_has")
    return HttpResponse()


async def is_async(_request: HttpRequest) -> HttpResponse:
    return HttpResponse(str(await UserStatus.objects.acount()))


urlpatterns = [
    path("messages/", include("django_tenant_messaging.urls")),
    path("lists/", lists_messages),
    path("wraps/", wraps_the_error),
    path("renders/", renders_late),
    path("asks/", asks_itself),
    path("bug/", has_a_bug),
    path("async/", is_async),
    path("served/", lambda _request: HttpResponse("served")),
]
with_views = override_settings(ROOT_URLCONF=__name__)


class CountsStatuses(MiddlewareMixin):
    """A host's middleware with queries of its own."""

    def process_request(self, _request: HttpRequest) -> None:
        UserStatus.objects.count()


@pytest.fixture(autouse=True)
def _details_are_for_everybody(settings: Any) -> None:
    settings.TENANT_MESSAGING = {"SHOW_MIGRATION_DETAILS": True}


@pytest.fixture
def client() -> Client:
    """A stranger at acme, who gets errors as answers."""
    return Client(SERVER_NAME="acme.localhost", raise_request_exception=False, headers={"accept": BROWSER})


@pytest.fixture
def other() -> Client:
    """A stranger at globex."""
    return Client(SERVER_NAME="globex.localhost", raise_request_exception=False)


@pytest.fixture
def ghost() -> Iterator[Client]:
    """A stranger at a tenant that has no schema."""
    customer = Customer(schema_name="ghost", name="Ghost")
    customer.auto_create_schema = False
    customer.save()
    Domain.objects.create(domain="ghost.localhost", tenant=customer, is_primary=True)
    try:
        yield Client(SERVER_NAME="ghost.localhost", headers={"accept": BROWSER})
    finally:
        connection.set_schema_to_public()  # type: ignore[attr-defined]
        Customer.objects.filter(pk=customer.pk).delete()


def unreadable(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let acme, and acme alone, fail to be inspected."""

    def failing(schema_name: str, kind: str) -> Readiness:
        if schema_name == "acme":
            raise RuntimeError("its migrations <can't> be read")
        return inspect_schema(schema_name, kind)

    monkeypatch.setattr(VERDICTS, "inspect_schema", failing)


def text_of(response: Any) -> str:
    """The words of a page, without its tags."""
    page = re.sub(r"<style>.*?</style>|<title>.*?</title>", "", response.content.decode(), flags=re.DOTALL)
    return " ".join(re.sub(r"<[^>]+>", " ", page).split())


def assert_refused(response: Any) -> None:
    assert response.status_code == 503
    assert response["Retry-After"] == "30"
    assert "no-store" in response["Cache-Control"].split(", ")
    assert response["X-Content-Type-Options"] == "nosniff"
    assert response["X-Frame-Options"] == "DENY"
    assert response["Referrer-Policy"] == "same-origin"
    assert response["Cross-Origin-Opener-Policy"] == "same-origin"
    policy = response["Content-Security-Policy"].split("; ")
    assert {"default-src 'none'", "base-uri 'none'", "form-action 'none'", "frame-ancestors 'none'"} <= set(policy)
    assert "unsafe" not in response["Content-Security-Policy"]


# What it says


def test_a_tenant_that_is_behind_is_told_the_command(client: Client, other: Client, database_url: str) -> None:
    with without_record(database_url, "acme"):
        response = client.get(SERVED)
        assert_refused(response)
        text = text_of(response)
        assert "Temporarily unavailable" in text
        assert "the update of its database is not finished yet" in text
        assert "nothing is read or changed until this is done" in text
        assert "Please try again in a few minutes" in text
        assert "Address acme.localhost Schema acme State migrations not applied ( behind )" in text
        assert "django_tenant_messaging.0001_initial" in text
        assert "python manage.py migrate_schemas --schema=acme" in text
        assert other.get(SERVED).status_code == 200


def test_a_tenant_whose_tables_drifted_is_told_which(client: Client, other: Client, database_url: str) -> None:
    with without_table(database_url, "acme"):
        response = client.get(SERVED)
        assert_refused(response)
        text = text_of(response)
        assert "Parts of the database of this site are missing or changed." in text
        assert "State tables missing or changed ( drifted )" in text
        assert "Missing or changed django_tenant_messaging_userstatus" in text
        assert "python manage.py verify_tenant_migrations --fix --schema=acme" in text
        assert other.get(SERVED).status_code == 200


def test_a_tenant_without_a_schema_is_told_so(ghost: Client, other: Client) -> None:
    response = ghost.get(SERVED)
    assert_refused(response)
    text = text_of(response)
    assert "The database of this site is not there" in text
    assert "Address ghost.localhost Schema ghost State schema missing ( missing )" in text
    assert "python manage.py verify_tenant_migrations --fix --schema=ghost" in text
    assert other.get(SERVED).status_code == 200


def test_what_cannot_be_found_out_is_refused(client: Client, other: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    unreadable(monkeypatch)
    response = client.get(SERVED)
    assert_refused(response)
    text = text_of(response)
    assert "It is not known at the moment whether the database of this site is ready." in text
    assert "State check failed ( error )" in text
    assert "its migrations &lt;can&#x27;t&gt; be read" in text
    assert "python manage.py verify_tenant_migrations --schema=acme" in text
    assert other.get(SERVED).status_code == 200


def test_every_tenant_relies_on_the_shared_schema(client: Client, other: Client, database_url: str) -> None:
    with without_record(database_url, "public", "customers"):
        for refused in (client, other, Client(SERVER_NAME="localhost")):
            response = refused.get("/", headers={"accept": "application/json"})
            assert_refused(response)
            assert response.json()["schema"] == "public"
            assert response.json()["remedy"] == "python manage.py migrate_schemas --shared"


def test_a_newer_database_is_served(client: Client, database_url: str) -> None:
    with connection.cursor() as cursor:
        cursor.execute(
            "INSERT INTO acme.django_migrations (app, name, applied)"
            " VALUES ('django_tenant_messaging', '9999_later', now())"
        )
        try:
            assert client.get(SERVED).status_code == 200
            assert readiness_of("acme").state is SchemaState.AHEAD
        finally:
            cursor.execute("DELETE FROM acme.django_migrations WHERE name = '9999_later'")


@pytest.mark.parametrize("method", ["get", "head", "post", "put", "patch", "delete", "options"])
def test_every_method_is_refused_at_every_address(client: Client, database_url: str, method: str) -> None:
    with without_record(database_url, "acme"):
        for address in ("/", "/messages/", "/admin/", "/no/such/page", "/health/", "/%00%0a<script>"):
            assert_refused(getattr(client, method)(address))


@pytest.mark.parametrize(
    ("accept", "expected"),
    [
        (BROWSER, "text/html; charset=utf-8"),
        ("text/html", "text/html; charset=utf-8"),
        ("text/html, */*", "text/html; charset=utf-8"),
        ("text/*;q=0.5", "text/html; charset=utf-8"),
        ("application/problem+json", "application/problem+json"),
        ("application/json", "application/problem+json"),
        ("application/json, text/plain, */*", "application/problem+json"),
        ("application/json, text/javascript, */*; q=0.01", "application/problem+json"),
        ("text/html;q=0.1, application/json", "application/problem+json"),
        ("application/*", "application/problem+json"),
        ("text/plain", "text/plain; charset=utf-8"),
        ("*/*", "text/plain; charset=utf-8"),
        ("image/avif,image/webp,*/*;q=0.8", "text/plain; charset=utf-8"),
        ("image/png", "text/plain; charset=utf-8"),
        ("", "text/plain; charset=utf-8"),
        (None, "text/plain; charset=utf-8"),
        (";;;,,, text/html;q=nonsense, \x7f/\xff", "text/html; charset=utf-8"),
    ],
)
def test_the_client_chooses_the_form(database_url: str, accept: str | None, expected: str) -> None:
    with without_record(database_url, "acme"):
        headers = {} if accept is None else {"accept": accept}
        response = Client(SERVER_NAME="acme.localhost").get(SERVED, headers=headers)
        assert_refused(response)
        assert response["Content-Type"] == expected


def test_a_problem_document_says_it_to_programs(client: Client, database_url: str) -> None:
    with without_record(database_url, "acme"):
        assert client.get(SERVED, headers={"accept": "application/problem+json"}).json() == {
            "type": "urn:problem-type:tenant-not-ready",
            "title": "Temporarily unavailable",
            "status": 503,
            "detail": "The service was updated, but the update of its database is not finished yet."
            " Please try again in a few minutes. If this lasts, tell your administrator.",
            "code": "tenant_not_ready",
            "retry_after": 30,
            "schema": "acme",
            "domain": "acme.localhost",
            "state": "behind",
            "reason": f"not applied: {', '.join(OUR_MIGRATIONS)}",
            "missing": list(OUR_MIGRATIONS),
            "apps": ["django_tenant_messaging"],
            "remedy": "python manage.py migrate_schemas --schema=acme",
        }


def test_plain_text_says_it_in_a_terminal(client: Client, database_url: str) -> None:
    with without_record(database_url, "acme"):
        text = client.get(SERVED, headers={"accept": "*/*"}).content.decode()
    assert text.startswith("Temporarily unavailable\n\nThe service was updated")
    assert "  Schema: acme\n" in text
    assert text.endswith("\n  python manage.py migrate_schemas --schema=acme\n")


def test_a_long_list_is_cut_on_the_page(client: Client, database_url: str) -> None:
    with without_record(database_url, "acme", "auth"):
        text = text_of(client.get(SERVED))
        assert "auth.0001_initial" in text
        assert "and 4 more" in text
        assert len(client.get(SERVED, headers={"accept": "application/json"}).json()["missing"]) == 12


# In which language


@pytest.mark.parametrize("accept_language", ["fr", "fr-CA,fr;q=0.9,en;q=0.5", "de;q=0.1, fr"])
def test_french_readers_get_french(client: Client, database_url: str, accept_language: str) -> None:
    with without_table(database_url, "acme"):
        response = client.get(SERVED, headers={"accept-language": accept_language})
        assert response["Content-Language"] == "fr"
        assert '<html lang="fr">' in response.content.decode()
        text = text_of(response)
        for words in (
            "Temporairement indisponible",
            "Des parties de la base de données de ce site manquent ou ont changé.",
            "Réessayer",
            "Pour les administrateurs",
            "État tables absentes ou modifiées ( drifted )",
            "Exécutez cette commande",
        ):
            assert words in text


def test_the_language_of_the_cookie_comes_first(client: Client, database_url: str) -> None:
    client.cookies["django_language"] = "fr"
    with without_table(database_url, "acme"):
        response = client.get(SERVED, headers={"accept": "application/json", "accept-language": "en"})
        assert response.json()["title"] == "Temporairement indisponible"
        text = client.get(SERVED, headers={"accept": "text/plain"}).content.decode()
        assert "Pour les administrateurs" in text


@pytest.mark.parametrize("code", ["de", "ar", "en-gb"])
@override_settings(LANGUAGES=[("en", "English"), ("de", "Deutsch"), ("ar", "Arabic"), ("en-gb", "British")])
def test_words_without_a_translation_are_marked_as_english(client: Client, database_url: str, code: str) -> None:
    with without_table(database_url, "acme"):
        page = client.get(SERVED, headers={"accept-language": code}).content.decode()
        assert '<html lang="en">' in page
        assert "Temporarily unavailable" in page


@pytest.mark.parametrize("accept_language", ["", "*", "xx-yy-zz;q=foo", "\x00,;;=" * 200, "fr" * 5_000])
def test_any_language_header_gets_an_answer(client: Client, database_url: str, accept_language: str) -> None:
    with without_table(database_url, "acme"), override_settings(LANGUAGE_CODE="en"):
        assert_refused(client.get(SERVED, headers={"accept-language": accept_language}))


# Who sees the details


def from_the_office(request: HttpRequest) -> bool:
    return request.headers.get("x-office") == "yes"


def broken_hook(_request: HttpRequest) -> bool:
    raise LookupError("no such office")


def shown_to(client: Client, **headers: str) -> list[bool]:
    """Whether each form shows the schema, its address and the command."""
    forms = ("text/html", "application/json", "text/plain")
    answers = [client.get(SERVED, headers={"accept": form, **headers}) for form in forms]
    for answer in answers:
        assert_refused(answer)
    texts = [answer.content.decode() for answer in answers]
    shown = [[word in text for word in ("acme", "migrate_schemas", "0001_initial")] for text in texts]
    assert all(len(set(words)) == 1 for words in shown)
    return [words[0] for words in shown]


def test_details_can_be_hidden(client: Client, database_url: str) -> None:
    with without_record(database_url, "acme"):
        assert shown_to(client) == [True, True, True]
        with override_settings(TENANT_MESSAGING={"SHOW_MIGRATION_DETAILS": False}):
            assert shown_to(client) == [False, False, False]
            assert "the update of its database is not finished yet" in text_of(client.get(SERVED))


@pytest.mark.parametrize(
    ("address", "headers", "shown"),
    [
        ("192.0.2.7", {}, True),
        ("192.0.2.8", {}, False),
        ("192.0.2.7", {"x-forwarded-for": "192.0.2.7"}, False),
        ("192.0.2.7", {"forwarded": "for=192.0.2.7"}, False),
        ("192.0.2.7", {"x-real-ip": "192.0.2.7"}, False),
        ("192.0.2.7", {"via": "1.1 proxy"}, False),
        ("127.0.0.1", {}, False),
        ("127.0.0.1", {"x-forwarded-for": "192.0.2.7"}, False),
        ("::1", {}, False),
        ("::ffff:127.0.0.1", {}, False),
        ("", {}, False),
    ],
)
def test_by_default_only_addresses_inside_see_details(
    client: Client, database_url: str, settings: Any, address: str, headers: dict[str, str], shown: bool
) -> None:
    settings.TENANT_MESSAGING = {}
    settings.INTERNAL_IPS = ["192.0.2.7", "127.0.0.1", "::1", "::ffff:127.0.0.1", ""]
    client.defaults["REMOTE_ADDR"] = address
    with without_record(database_url, "acme"):
        assert shown_to(client, **headers) == [shown] * 3
        settings.DEBUG = True
        assert shown_to(client, **headers) == [True] * 3


def test_by_default_nobody_sees_details_of_a_site_without_inside_addresses(client: Client, database_url: str) -> None:
    with without_record(database_url, "acme"), override_settings(TENANT_MESSAGING={}):
        assert shown_to(client) == [False] * 3


@pytest.mark.parametrize("hook", [from_the_office, f"{__name__}.from_the_office"])
def test_a_hook_says_who_sees_details(client: Client, database_url: str, hook: object) -> None:
    settings = override_settings(TENANT_MESSAGING={"SHOW_MIGRATION_DETAILS": hook})
    with without_record(database_url, "acme"), settings:
        assert shown_to(client) == [False, False, False]
        assert shown_to(client, **{"x-office": "yes"}) == [True, True, True]


def test_a_hook_that_fails_lets_nobody(client: Client, database_url: str, caplog: pytest.LogCaptureFixture) -> None:
    settings = override_settings(TENANT_MESSAGING={"SHOW_MIGRATION_DETAILS": broken_hook})
    with without_record(database_url, "acme"), settings:
        assert shown_to(client) == [False, False, False]
    assert "which says who sees details, failed" in caplog.text


# What a host may do to it


def templates(folder: Path, source: str) -> Any:
    template = folder / "django_tenant_messaging/tenant_not_ready.html"
    template.parent.mkdir()
    template.write_text(source)
    from django.conf import settings

    return override_settings(TEMPLATES=[{**settings.TEMPLATES[0], "DIRS": [folder]}])


def test_a_host_has_its_own_page(client: Client, database_url: str, tmp_path: Path) -> None:
    source = "<h1>Acme & Co: {{ title }}</h1>{{ details.remedy }} {{ language }} {{ retry_after }} {{ request }}"
    with templates(tmp_path, source), without_record(database_url, "acme"):
        response = client.get(SERVED)
        assert_refused(response)
        assert response.content.decode() == (
            "<h1>Acme & Co: Temporarily unavailable</h1>python manage.py migrate_schemas --schema=acme en 30 "
        )


def test_a_page_that_cannot_be_rendered_becomes_plain_text(
    client: Client, database_url: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with templates(tmp_path, "{% no_such_tag %}"), without_record(database_url, "acme"):
        response = client.get(SERVED)
    assert_refused(response)
    assert response["Content-Type"] == "text/plain; charset=utf-8"
    assert "can't be rendered" in caplog.text


@pytest.mark.parametrize("form", ["text/html", "application/json", "text/plain"])
def test_names_cannot_become_markup(form: str) -> None:
    evil = "\"><script>alert('1')</script>&"
    readiness = Readiness(evil, SchemaState.DRIFTED, missing_relations=(evil,), error=evil)
    request = RequestFactory(SERVER_NAME=evil).get(f"/{evil}", headers={"accept": form})
    with override_settings(ALLOWED_HOSTS=["*"]):
        response = refuse(request, readiness)
    assert_refused(response)
    body = response.content.decode()
    if form == "text/html":
        assert "<script" not in body
        assert "&lt;script&gt;" in body
    elif form == "application/json":
        assert json.loads(body)["schema"] == evil
    else:
        assert response["Content-Type"].startswith("text/plain")


@pytest.mark.parametrize("host", ["", "evil.example", "acme.localhost:99999999", "a b", "[::1", "\x00"])
def test_any_host_header_gets_an_answer(host: str, database_url: str) -> None:
    with without_record(database_url, "acme"):
        request = tenant_request("acme", HTTP_HOST=host, HTTP_ACCEPT="application/json")
        response: Any = TenantMigrationCheckMiddleware(lambda _request: HttpResponse("served"))(request)
        assert_refused(response)
        assert json.loads(response.content)["domain"] in {"", "acme.localhost"}


def test_spellings_of_the_host_are_the_same_tenant(database_url: str) -> None:
    with without_record(database_url, "acme"):
        for host in ("acme.localhost:8000", "www.acme.localhost"):
            response = Client().get(SERVED, HTTP_HOST=host, HTTP_ACCEPT="application/json")
            assert_refused(response)
            assert response.json()["schema"] == "acme"


# What it costs


def tenant_request(schema_name: str, **headers: str) -> HttpRequest:
    request = RequestFactory(SERVER_NAME=f"{schema_name}.localhost").get("/", **headers)  # type: ignore[arg-type]
    request.tenant = SimpleNamespace(schema_name=schema_name)  # type: ignore[attr-defined]
    return request


def test_a_request_costs_no_query_while_its_tenant_is_known() -> None:
    middleware = TenantMigrationCheckMiddleware(lambda _request: HttpResponse("served"))
    with exactly(2):
        middleware(tenant_request("acme"))
    with exactly(0):
        response: Any = middleware(tenant_request("acme"))
    assert response.content == b"served"
    # The shared schema is known by now.
    with queries() as made:
        middleware(tenant_request("globex"))
    assert len(made) == 1
    assert "globex" in made[0]
    assert "acme" not in made[0]


def test_a_request_without_a_tenant_is_of_the_shared_schema(database_url: str) -> None:
    middleware = TenantMigrationCheckMiddleware(lambda _request: HttpResponse("served"))
    for tenant in ({}, {"tenant": None}, {"tenant": SimpleNamespace(schema_name="")}):
        request = RequestFactory(SERVER_NAME="localhost").get("/")
        request.__dict__.update(tenant)
        response: Any = middleware(request)
        assert response.content == b"served"
    assert VERDICTS.verdicts.fresh("public") is not None
    assert VERDICTS.verdicts.fresh("acme") is None


async def test_an_async_request_takes_no_thread_while_its_tenant_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    async def serve(_request: HttpRequest) -> HttpResponse:
        return HttpResponse("served")

    middleware: Any = TenantMigrationCheckMiddleware(serve)
    assert (await middleware(tenant_request("acme"))).content == b"served"
    monkeypatch.setattr(middleware_module, "sync_to_async", None)
    assert (await middleware(tenant_request("acme"))).content == b"served"


def test_many_requests_look_once_when_a_refusal_is_due_again(
    client: Client, clock: Clock, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with without_record(database_url, "acme"):
        assert_refused(client.get(SERVED))
        clock.now += 2.1
        looks: list[str] = []
        looking, answered = threading.Event(), threading.Semaphore(0)

        def slow(schema_name: str, kind: str) -> Readiness:
            looks.append(schema_name)
            looking.set()
            # Until all others have their answer.
            for _ in range(9):
                assert answered.acquire(timeout=30)
            return inspect_schema(schema_name, kind)

        monkeypatch.setattr(VERDICTS, "inspect_schema", slow)

        def ask() -> int:
            status = Client(SERVER_NAME="acme.localhost").get(SERVED).status_code
            answered.release()
            return status

        assert together(*[ask] * 10) == [503] * 10
        assert looks == ["acme"]


# When it changes


def test_a_repaired_tenant_is_served_again(client: Client, clock: Clock, database_url: str) -> None:
    with without_record(database_url, "acme"):
        assert_refused(client.get(SERVED))
    assert_refused(client.get(SERVED))
    clock.now += 2.1
    assert client.get(SERVED).status_code == 200


@with_views
@pytest.mark.parametrize("address", ["/wraps/", "/renders/", "/async/"])
def test_a_missing_table_is_no_500(client: Client, other: Client, database_url: str, address: str) -> None:
    assert client.get(address).status_code == 200
    assert other.get(address).status_code == 200
    with without_table(database_url, "acme"):
        response = client.get(address)
        assert_refused(response)
        assert "tables missing or changed" in text_of(response)
        assert other.get(address).status_code == 200


def test_a_missing_table_under_another_middleware_is_no_500(client: Client, database_url: str, settings: Any) -> None:
    settings.MIDDLEWARE = [*settings.MIDDLEWARE, f"{__name__}.CountsStatuses"]
    assert client.get(SERVED).status_code == 200
    with without_table(database_url, "acme"):
        response = client.get(SERVED)
        assert_refused(response)
        assert "tables missing or changed" in text_of(response)


@pytest.mark.parametrize("form", ["text/html", "application/json"])
def test_a_missing_table_of_the_session_is_no_500(
    acme: Tenant, people: tuple[str, ...], database_url: str, form: str
) -> None:
    client = acme.client(acme.users["alice"])
    client.raise_request_exception = False
    with without_table(database_url, "acme", "django_session"):
        assert_refused(client.get("/messages/", headers={"accept": form}))
    with without_table(database_url, "acme", "auth_user"):
        VERDICTS.verdicts.forget_all()
        assert_refused(client.get("/messages/", headers={"accept": form}))


@with_views
def test_a_missing_table_in_a_transaction_is_no_500(
    client: Client, acme: Tenant, people: tuple[str, ...], database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(connections.settings["default"], "ATOMIC_REQUESTS", True)
    with override_settings(ROOT_URLCONF="example.urls"):
        alice = acme.client(acme.users["alice"])
    assert client.get("/lists/").status_code == 200
    with without_table(database_url, "acme", "django_tenant_messaging_message"):
        response = client.get("/lists/")
        assert_refused(response)
        assert "tables missing or changed" in text_of(response)
    VERDICTS.verdicts.forget_all()
    assert alice.get("/messages/").status_code == 200
    with without_table(database_url, "acme", "django_tenant_messaging_message"):
        response = alice.get("/messages/", headers={"accept": "text/html"})
        assert_refused(response)
        # In the transaction that it broke, nothing could have been found out.
        assert "tables missing or changed" in text_of(response)
    assert not transaction.get_connection().in_atomic_block


@with_views
def test_an_error_of_the_hosts_own_stays_one(client: Client, other: Client, caplog: pytest.LogCaptureFixture) -> None:
    assert client.get("/bug/").status_code == 500
    assert client.get("/served/").content == b"served"
    assert other.get("/served/").content == b"served"
    assert "NOT READY" not in caplog.text


@with_views
def test_a_host_that_asks_itself_gets_the_same_answer(client: Client, database_url: str) -> None:
    assert client.get("/asks/").content == b"served"
    with without_record(database_url, "globex"):
        VERDICTS.verdicts.forget("globex")
        response = client.get("/asks/", headers={"accept": "application/json"})
        assert_refused(response)
        assert response.json()["schema"] == "globex"


# Who is told


def test_receivers_are_told_of_each_refusal(
    client: Client, database_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    told: list[tuple[Readiness, str]] = []

    def tell(readiness: Readiness, face: str, **_kwargs: Any) -> None:
        told.append((readiness, face))
        raise LookupError("a receiver's own")

    signals.tenant_refused.connect(tell)
    try:
        with without_record(database_url, "acme"):
            assert_refused(client.get(SERVED))
            assert_refused(client.get(SERVED))
    finally:
        signals.tenant_refused.disconnect(tell)
    assert [(readiness.schema_name, face) for readiness, face in told] == [("acme", "http")] * 2


def test_refusals_are_warnings_and_the_state_is_critical_once(
    client: Client, database_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    with without_record(database_url, "acme"):
        for _ in range(5):
            assert_refused(client.get(SERVED))
    refusals = [record for record in caplog.records if record.getMessage() == f"[acme] Refused: {SERVED}"]
    assert [record.levelno for record in refusals] == [logging.WARNING] * 5
    # Each error would be mailed to the ADMINS.
    assert [record.levelno for record in caplog.records if record.levelno >= logging.ERROR] == [logging.CRITICAL]


@with_views
def test_the_error_that_a_refusal_replaces_is_logged(
    client: Client, database_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    # Django doesn't take it for an unhandled one, which it would tell to whoever watches for those.
    client.raise_request_exception = True
    assert client.get("/wraps/").status_code == 200
    with without_table(database_url, "acme"):
        assert_refused(client.get("/wraps/"))
    (record,) = (record for record in caplog.records if "met a schema" in record.getMessage())
    assert record.exc_info is not None
    assert isinstance(record.exc_info[1], RuntimeError)


# In an emergency


def warnings_of_bypass(caplog: pytest.LogCaptureFixture) -> int:
    return sum("DISABLE_MIGRATION_CHECK=true" in record.getMessage() for record in caplog.records)


def test_the_block_can_be_bypassed_and_warns_once(
    client: Client, database_url: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(VERDICTS, "_bypass_warned", float("-inf"))
    monkeypatch.setenv("DISABLE_MIGRATION_CHECK", "true")
    with without_record(database_url, "acme"):
        for _ in range(3):
            assert client.get(SERVED).status_code == 200
        assert warnings_of_bypass(caplog) == 1
        monkeypatch.delenv("DISABLE_MIGRATION_CHECK")
        assert_refused(client.get(SERVED))


async def test_the_bypass_warns_also_of_tenants_that_are_known(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def serve(_request: HttpRequest) -> HttpResponse:
        return HttpResponse("served")

    middleware: Any = TenantMigrationCheckMiddleware(serve)
    await middleware(tenant_request("acme"))
    monkeypatch.setattr(VERDICTS, "_bypass_warned", float("-inf"))
    monkeypatch.setenv("DISABLE_MIGRATION_CHECK", "TRUE")
    for _ in range(3):
        await middleware(tenant_request("acme"))
    assert warnings_of_bypass(caplog) == 1


@with_views
def test_while_bypassed_a_missing_table_is_the_hosts_own_error(
    client: Client, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DISABLE_MIGRATION_CHECK", "true")
    with without_table(database_url, "acme"):
        assert client.get("/wraps/").status_code == 500


# Without the middleware


@pytest.fixture
def forgotten(settings: Any) -> None:
    """A host that installed the app without the middleware."""
    settings.MIDDLEWARE = [name for name in settings.MIDDLEWARE if name != OURS]


def test_our_pages_refuse_without_the_middleware(
    forgotten: None, acme: Tenant, globex: Tenant, people: tuple[str, ...], database_url: str
) -> None:
    alice, other = acme.client(acme.users["alice"]), globex.client(globex.users["alice"])
    with without_record(database_url, "acme"):
        VERDICTS.verdicts.forget_all()
        response = alice.get("/messages/", headers={"accept": "text/html"})
        assert_refused(response)
        assert "python manage.py migrate_schemas --schema=acme" in text_of(response)
        assert alice.post("/messages/rooms/create/").status_code == 503
        # The host's own pages are its own.
        assert alice.get("/accounts/login/").status_code == 302
        assert other.get("/messages/").status_code == 200


def test_our_pages_meet_a_missing_table_without_the_middleware(
    forgotten: None, acme: Tenant, people: tuple[str, ...], database_url: str
) -> None:
    alice = acme.client(acme.users["alice"])
    assert alice.get("/messages/").status_code == 200
    with without_table(database_url, "acme", "django_tenant_messaging_message"):
        assert_refused(alice.get("/messages/"))


def test_our_pages_are_refused_by_the_shared_schema_alone_too(
    forgotten: None, acme: Tenant, people: tuple[str, ...], database_url: str
) -> None:
    alice = acme.client(acme.users["alice"])
    with without_record(database_url, "public", "customers"):
        VERDICTS.verdicts.forget_all()
        assert_refused(alice.get("/messages/"))


# Under ASGI


@pytest.fixture
def ask(settings: Any) -> Callable[..., Any]:
    """A request to a tenant through Django's ASGI handler; its test client has no other way to name a host."""
    settings.USE_X_FORWARDED_HOST = True
    client = AsyncClient(raise_request_exception=False)

    async def asked(address: str, tenant: str = "acme") -> Any:
        headers = {"x-forwarded-host": f"{tenant}.localhost", "accept": "application/json"}
        return await client.get(address, headers=headers)

    return asked


async def test_async_requests_are_refused(ask: Callable[..., Any], database_url: str) -> None:
    assert (await ask(SERVED)).status_code == 200
    with without_record(database_url, "acme"):
        VERDICTS.verdicts.forget("acme")
        response = await ask(SERVED)
        assert_refused(response)
        assert response.json()["remedy"] == "python manage.py migrate_schemas --schema=acme"
        assert (await ask(SERVED, "globex")).status_code == 200


@with_views
@pytest.mark.parametrize("address", ["/wraps/", "/renders/", "/async/"])
async def test_a_missing_table_is_no_500_under_asgi(ask: Callable[..., Any], database_url: str, address: str) -> None:
    assert (await ask(address)).status_code == 200
    with without_table(database_url, "acme"):
        assert_refused(await ask(address))
        assert (await ask(address, "globex")).status_code == 200


async def test_a_missing_table_under_another_middleware_is_no_500_under_asgi(
    ask: Callable[..., Any], database_url: str, settings: Any
) -> None:
    settings.MIDDLEWARE = [*settings.MIDDLEWARE, f"{__name__}.CountsStatuses"]
    assert (await ask(SERVED)).status_code == 200
    with without_table(database_url, "acme"):
        assert_refused(await ask(SERVED))


def test_a_server_refuses_one_tenant_and_serves_it_when_repaired(
    server: Server, acme: Tenant, globex: Tenant, people: tuple[str, ...], database_url: str
) -> None:
    cookie, other = server.login(acme, "alice"), server.login(globex, "alice")

    def shown(tenant: Tenant, cookie: str) -> int:
        return server.request(tenant, "GET", "/messages/", cookie=cookie)[0].status

    with without_table(database_url, "acme", "django_tenant_messaging_message"):
        # It is known as ready, and the first page meets the missing table.
        response, text = server.request(acme, "GET", "/messages/", cookie=cookie)
        assert response.status == 503
        assert response.headers["Retry-After"] == "30"
        assert "Temporarily unavailable" in text
        # Its settings are the server's own: this client is a stranger.
        assert not any(word in text for word in ("acme", "django_tenant_messaging", "migrat"))
        assert shown(globex, other) == 200
        assert shown(acme, cookie) == 503
    while (status := shown(acme, cookie)) == 503:
        assert shown(globex, other) == 200
    assert status == 200

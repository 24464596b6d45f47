"""The two tenants of every test: equal in all but name, and the second must never notice the first."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from django.contrib.auth import get_user_model
from django.core.management import call_command
from django.db import connection
from django.test import Client

from django_tenant_messaging.tenancy import activated
from django_tenant_messaging.tenancy.gate import inspect_schemas, schema_kinds, verdicts

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from django.contrib.auth.models import User

PASSWORD = "password"
#: Filled by `migrate` itself, so not part of what a test leaves behind.
KEPT_TABLES = ("auth_permission", "django_content_type", "django_migrations")


@dataclass(frozen=True)
class Tenant:
    """One tenant: its schema, its host name, and the users a test made in it."""

    schema_name: str
    users: dict[str, User] = field(default_factory=dict, compare=False)

    @property
    def host(self) -> str:
        """The host name of the tenant's pages."""
        return f"{self.schema_name}.localhost"

    def activated(self) -> AbstractContextManager[Any]:
        """A context in which this thread's queries go to the tenant's schema."""
        return activated(self.schema_name)

    def create_user(self, username: str, **fields: Any) -> User:
        """Make a user who can log in with `PASSWORD`."""
        with self.activated():
            user: User = get_user_model().objects.create_user(username, password=PASSWORD, **fields)
        self.users[username] = user
        return user

    def client(self, user: User | None = None) -> Client:
        """A test client at the tenant's host, with `user` logged in by the login page if given."""
        client = Client(SERVER_NAME=self.host)
        if user is not None:
            credentials = {"username": user.get_username(), "password": PASSWORD}
            response = client.post("/accounts/login/", credentials)
            assert response.status_code == 302, response.content
        return client


def build_template() -> None:
    """Migrate the shared schema and make both tenants, with empty tables, in the current database."""
    from example.customers.models import Customer, Domain

    call_command("migrate_schemas", shared=True, verbosity=0)
    for schema_name in ("public", "acme", "globex"):
        customer = Customer(schema_name=schema_name, name=schema_name.title())
        customer.save(verbosity=0)
        host = "localhost" if schema_name == "public" else f"{schema_name}.localhost"
        Domain.objects.create(domain=host, tenant=customer, is_primary=True)


def know_structures() -> None:
    """Let the process know the structure of the tenants' tables, as after its first look at any of them."""
    assert all(found.is_ready for found in inspect_schemas(schema_kinds()))


def leave_tenant() -> None:
    """Put this thread's connection back to the shared schema, and let nothing be known of any schema."""
    untyped: Any = connection
    untyped.set_schema_to_public()
    verdicts.forget_all()


def empty_tenants() -> None:
    """Empty the tenants' tables and let their ids start at 1 again, so that equal rows get equal ids."""
    with connection.cursor() as cursor:
        # Names the open transaction of a test that left one, rather than hang on it.
        cursor.execute("SET lock_timeout = '10s'")
        cursor.execute(
            "SELECT string_agg(format('%%I.%%I', schemaname, tablename), ',') FROM pg_tables"
            " WHERE schemaname IN ('acme', 'globex') AND NOT tablename = ANY(%s)",
            [list(KEPT_TABLES)],
        )
        (tables,) = cursor.fetchone()
        cursor.execute(f"TRUNCATE {tables} RESTART IDENTITY")
        cursor.execute("RESET lock_timeout")


def forbid_kept_connections() -> None:
    """Fail when threads of a test keep connections of the pool, which later tests would wait for in vain."""
    connection.close()
    untyped: Any = connection
    statistics = untyped.pool.get_stats()
    kept = statistics["pool_size"] - statistics["pool_available"]
    # The thread that `sync_to_async` shares among all tests keeps the one it used last.
    assert kept <= 1, f"the test's threads keep {kept} database connections"

"""Two customers with the same users on purpose, and something to read in their rooms."""

from __future__ import annotations

import os
import shlex
import sys
from pathlib import Path

from django.contrib.auth.models import User
from django.db import connection, transaction
from django.db.migrations.loader import MigrationLoader
from django.db.migrations.recorder import MigrationRecorder
from django_tenants.utils import schema_exists

from django_tenant_messaging.actions import create_room, open_direct_room, send_message
from django_tenant_messaging.models import ChatRoom
from django_tenant_messaging.tenancy import activated, public_schema, readiness_of, readiness_of_all
from django_tenant_messaging.tenancy.gate.migrating import migration_lock, run_migrations
from django_tenant_messaging.types import SchemaState
from example.customers.models import Customer, Domain
from example.services import ServiceError

ADMINISTRATOR = "alice"
USERNAMES = (ADMINISTRATOR, "bob", "carol")
CUSTOMERS = {"acme": "Acme", "globex": "Globex"}


def demo_password() -> str:
    """The password of the demo's users, from `DEMO_PASSWORD`; `make demo` makes one."""
    if given := os.environ.get("DEMO_PASSWORD"):
        return given
    raise ServiceError(
        "Set DEMO_PASSWORD in the environment: the demo's users, an administrator among them, log in by it."
    )


def seed() -> None:
    """Bring the database up to the code and make the customers that are missing.

    Nothing written is changed. A schema that was broken stays broken, and is named: what then happens is to be seen.
    """
    password, public = demo_password(), public_schema()
    if code_is_newer():
        run_migrations(public)
        migrate_customers()
    make_customer(public, "Public", host="localhost")
    for schema_name, name in CUSTOMERS.items():
        make_customer(schema_name, name, host=f"{schema_name}.localhost")
        readiness = readiness_of(schema_name)
        if not readiness.is_ready:
            print(f"  {name} is NOT READY: {readiness.reason}. To repair it:\n    {in_this_project(readiness.remedy)}")
            continue
        with activated(schema_name), transaction.atomic():
            if not ChatRoom.objects.exists():
                make_conversations(name, password)


def code_is_newer() -> bool:
    """Tell whether the code has migrations that were not there at the last start.

    `migrate_schemas` records every app's in the shared schema, also those whose tables only customers have.
    """
    recorded = MigrationRecorder(connection).applied_migrations()
    return not recorded.keys() >= MigrationLoader(None).disk_migrations.keys()


def migrate_customers() -> None:
    """Bring each customer's schema that is behind up to the code; one that can't be disturbs no other."""
    for schema_name, readiness in readiness_of_all().items():
        if readiness.state is SchemaState.BEHIND:
            try:
                with migration_lock(schema_name):
                    run_migrations(schema_name)
            except Exception as error:  # noqa: BLE001 - whatever the migration raises
                print(f"  {schema_name} can't be migrated: {error}")


def make_customer(schema_name: str, name: str, *, host: str) -> None:
    """Find or make the customer, and its schema if it has none because its making was interrupted."""
    customer = Customer.objects.filter(schema_name=schema_name).first()
    if customer is None or not schema_exists(schema_name):
        customer = customer or Customer(schema_name=schema_name, name=name)
        customer.save()
    Domain.objects.get_or_create(domain=host, defaults={"tenant": customer, "is_primary": True})


def in_this_project(command: str) -> str:
    """The command for a terminal in any folder; without `DATABASE_URL` it finds the running demo's database."""
    manage = Path(__file__).resolve().parents[1] / "manage.py"
    return command.replace("python manage.py", shlex.join([sys.executable, str(manage)]))


def make_conversations(customer: str, password: str) -> None:
    """Fill the active schema with users, rooms and a few messages."""
    alice, bob, carol = (
        # They outlive a chat whose tables were removed and made again.
        User.objects.filter(username=name).first() or User.objects.create_user(name, password=password)
        for name in USERNAMES
    )
    alice.is_staff = alice.is_superuser = True
    alice.save()
    everyone = [alice, bob, carol]
    general = create_room(alice, name="general", members=everyone)
    random = create_room(bob, name="random", members=everyone)
    direct = open_direct_room(alice, other=bob)
    for room, sender, content in (
        (general, alice, f"Welcome to {customer}! This room is for all of us."),
        (general, bob, "Hello team"),
        (general, carol, "Hello! @alice, where do I find the handbook?"),
        (general, alice, "@carol it is pinned in the kitchen, I'll send you a copy too."),
        (random, carol, "Who is in for lunch at noon?"),
        (random, bob, "Me, and I have read about a new place round the corner."),
        (direct, bob, "Do you have a minute for the release notes?"),
        (direct, alice, "Sure, send them over."),
    ):
        send_message(sender, room_id=room.pk, content=content)

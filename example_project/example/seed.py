"""Two customers with the same users on purpose, and something to read in their rooms."""

from __future__ import annotations

from django.contrib.auth.models import User
from django.core.management import call_command
from django.db import connection, transaction
from django.db.migrations.loader import MigrationLoader
from django_tenants.utils import get_public_schema_name, schema_exists

from django_tenant_messaging.actions import create_room, open_direct_room, send_message
from django_tenant_messaging.models import ChatRoom
from django_tenant_messaging.tenancy import activated
from example.customers.models import Customer, Domain

PASSWORD = "demo-password"  # noqa: S105 - printed for whoever runs the demo
USERNAMES = ("alice", "bob", "carol")
CUSTOMERS = {"acme": "Acme", "globex": "Globex"}


def seed() -> None:
    """Bring every schema up to date and make the customers that are missing; nothing written is changed."""
    public = get_public_schema_name()
    if not is_migrated(public):
        call_command("migrate_schemas", schema_name=public, verbosity=0)
    make_customer(public, "Public", host="localhost")
    for schema_name, name in CUSTOMERS.items():
        make_customer(schema_name, name, host=f"{schema_name}.localhost")
        with activated(schema_name), transaction.atomic():
            if not ChatRoom.objects.exists():
                make_conversations(name)


def make_customer(schema_name: str, name: str, *, host: str) -> None:
    """Find or make the customer, and complete a schema whose making was interrupted."""
    customer = Customer.objects.filter(schema_name=schema_name).first()
    if customer is None:
        customer = Customer(schema_name=schema_name, name=name)
        customer.save(verbosity=0)
    elif not schema_exists(schema_name):
        customer.create_schema(verbosity=0)
    elif not is_migrated(schema_name):
        call_command("migrate_schemas", schema_name=schema_name, verbosity=0)
    Domain.objects.get_or_create(domain=host, defaults={"tenant": customer, "is_primary": True})


def is_migrated(schema_name: str) -> bool:
    """Tell whether the schema has recorded every migration there is, which one query answers."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT to_regclass(%s)", [f"{schema_name}.django_migrations"])
        if cursor.fetchone() == (None,):
            return False
        cursor.execute(f'SELECT app, name FROM "{schema_name}".django_migrations')
        recorded = set(cursor.fetchall())
    return recorded >= set(MigrationLoader(None).disk_migrations)


def make_conversations(customer: str) -> None:
    """Fill the active schema with users, rooms and a few messages."""
    alice, bob, carol = (User.objects.create_user(name, password=PASSWORD) for name in USERNAMES)
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

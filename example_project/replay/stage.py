"""Prepares a tenant for a play through the package's actions, and reads back what the play left there."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any

from django.conf import settings
from django.contrib.auth import get_user_model, login
from django.contrib.auth.hashers import make_password
from django.db import transaction
from django.http import HttpRequest

from django_tenant_messaging.actions import create_room, unlimited
from django_tenant_messaging.models import Message
from django_tenant_messaging.tenancy import activated
from example.customers.models import Customer
from replay.checker import Entry, digest
from replay.client import Account

if TYPE_CHECKING:
    from collections.abc import Iterator

    from replay.script import RoomScript, Script


class UnknownTenantError(Exception):
    """No tenant has this schema, or it has no domain."""


@dataclass(frozen=True, slots=True)
class Stage:
    """A tenant with its users, their sessions and the rooms of one play."""

    schema: str
    accounts: list[Account]
    room_ids: list[int]


def domain_of(schema: str) -> str:
    """Return the tenant's primary domain."""
    customer = Customer.objects.filter(schema_name=schema).first()
    domain = customer and customer.domains.order_by("-is_primary", "pk").first()
    if not domain:
        known = ", ".join(Customer.objects.exclude(domains=None).values_list("schema_name", flat=True).distinct())
        raise UnknownTenantError(f"There is no tenant {schema!r} with a domain; there are: {known or 'none'}.")
    return str(domain.domain)


@contextmanager
def staged(schema: str, script: Script, run: str) -> Iterator[Stage]:
    """Make users, sessions and fresh rooms for `script`. The sessions end with the context, the rest is kept.

    A nick becomes a username as it is, also where Django's form validation would object to its characters:
    the column holds it.
    """
    with activated(schema), transaction.atomic():
        users = _users(script.users)
        accounts = [_account(user) for user in users]
        room_ids = [_room(room, users, run) for room in script.rooms]
    try:
        yield Stage(schema, accounts, room_ids)
    finally:
        with activated(schema):
            for account in accounts:
                _session_store(account.session).delete()


def history(schema: str, room_id: int) -> list[Entry]:
    """Return a room's messages in the order of the timeline."""
    with activated(schema):
        rows = Message.objects.filter(room_id=room_id).order_by("seq")
        columns = rows.values_list("seq", "id", "client_id", "sender_id", "content", "reply_to_id")
        return [
            Entry(room_id, seq, pk, str(client_id), str(sender) if sender else None, digest(content), reply_to)
            for seq, pk, client_id, sender, content, reply_to in columns.iterator()
        ]


def _users(names: list[str]) -> list[Any]:
    model = get_user_model()
    no_password = make_password(None)
    model.objects.bulk_create((model(username=name, password=no_password) for name in names), ignore_conflicts=True)
    found = {user.get_username(): user for user in model.objects.filter(username__in=names)}
    return [found[name] for name in names]


def _account(user: Any) -> Account:
    request = HttpRequest()
    request.session = _session_store()
    login(request, user, backend=settings.AUTHENTICATION_BACKENDS[0])
    request.session.save()
    return Account(str(user.pk), user.get_username(), request.session.session_key or "")


def _session_store(key: str | None = None) -> Any:
    return import_module(settings.SESSION_ENGINE).SessionStore(key)


def _room(room: RoomScript, users: list[Any], run: str) -> int:
    members = [users[number] for number in room.members]
    with unlimited():
        return create_room(members[0], name=f"{room.name}#{run}", members=members[1:]).pk

"""Makes the tenants, users, sessions and rooms of a contender that is a Django project.

Runs as a process of its own with the contender's settings: reads a plan from the standard input, one JSON object, and
writes to the standard output whom it made.
"""

from __future__ import annotations

import json
import sys
from datetime import timedelta
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "example_project")]


def main() -> None:
    """Carry out the plan."""
    import django

    django.setup()
    from benchmarks.tenants import MODEL, make_tenants

    plan = json.load(sys.stdin)
    make_tenants([MODEL, *(tenant["schema"] for tenant in plan["tenants"])])
    json.dump([furnish(plan["run"], **tenant) for tenant in plan["tenants"]], sys.stdout)


def furnish(run: str, *, schema: str, users: int, rooms: list[list[int]], stored: int) -> dict[str, Any]:
    """Fill a tenant; the session keys of its new users, and the ids of the new rooms with these as members."""
    from django.db import transaction
    from django_tenants.utils import schema_context

    from example.customers.models import Customer, Domain

    with schema_context("public"):
        domain = f"{schema}.localhost"
        tenant = Customer.objects.get(schema_name=schema)
        Domain.objects.get_or_create(domain=domain, defaults={"tenant": tenant, "is_primary": True})
    with schema_context(schema), transaction.atomic():
        people = make_users(run, users)
        made: dict[str, Any] = {
            "host": domain,
            "sessions": make_sessions(people),
            "rooms": make_rooms(run, [[people[at] for at in members] for members in rooms]),
        }
        for room in made["rooms"]:
            store_messages(room, people[0], stored)
    finish(schema)
    return made


def make_users(run: str, number: int) -> list[Any]:
    """Make users without passwords, which take long to hash."""
    from django.contrib.auth.models import User

    names = [f"{run}-{place}" for place in range(number)]
    User.objects.bulk_create(User(username=name, password="!none") for name in names)  # noqa: S106 - fits nothing
    found = {user.username: user for user in User.objects.filter(username__startswith=f"{run}-")}
    return [found[name] for name in names]


def make_sessions(people: list[Any]) -> list[str]:
    """Log the users in."""
    from django.conf import settings
    from django.contrib.auth import BACKEND_SESSION_KEY, HASH_SESSION_KEY, SESSION_KEY
    from django.contrib.sessions.backends.db import SessionStore
    from django.contrib.sessions.models import Session
    from django.utils import timezone
    from django.utils.crypto import get_random_string

    store, expires, rows = SessionStore(), timezone.now() + timedelta(days=1), []
    for user in people:
        data = {
            SESSION_KEY: str(user.pk),
            BACKEND_SESSION_KEY: settings.AUTHENTICATION_BACKENDS[0],
            HASH_SESSION_KEY: user.get_session_auth_hash(),
        }
        if is_ours():
            from django_tenant_messaging.tenancy import bind_session

            bind_session(data)
        rows.append(Session(session_key=get_random_string(32), session_data=store.encode(data), expire_date=expires))
    Session.objects.bulk_create(rows)
    return [row.session_key for row in rows]


def make_rooms(run: str, rooms: list[list[Any]]) -> list[int]:
    """Make rooms with these members, in few statements; their ids."""
    return make_rooms_of_ours(run, rooms) if is_ours() else make_rooms_by_hand(run, rooms)


def make_rooms_of_ours(run: str, rooms: list[list[Any]]) -> list[int]:
    """Make rooms as `ChatRoom.furnish` does, many at once."""
    from django_tenant_messaging.models import ChatRoom, Membership, RoomCounter

    made = ChatRoom.objects.bulk_create(
        ChatRoom(name=f"{run} {number}", created_by=members[0]) for number, members in enumerate(rooms)
    )
    RoomCounter.objects.bulk_create(RoomCounter(room=room) for room in made)
    Membership.objects.bulk_create(
        Membership(room=room, user_id=member.pk)
        for room, members in zip(made, rooms, strict=True)
        for member in members
    )
    return [room.pk for room in made]


def make_rooms_by_hand(run: str, rooms: list[list[Any]]) -> list[int]:
    """Make rooms of the hand-written chat."""
    from django.apps import apps

    model: Any = apps.get_app_config("tutorial").get_model("Room")
    made = model.objects.bulk_create(model(name=f"{run} {number}") for number in range(len(rooms)))
    through = model._meta.get_field("members").remote_field.through
    through.objects.bulk_create(
        through(room=room, user=member) for room, members in zip(made, rooms, strict=True) for member in members
    )
    return [room.pk for room in made]


def store_messages(room: int, sender: Any, number: int) -> None:
    """Give a room of ours a past: so many messages."""
    if not number:
        return
    from django.db import connection

    with connection.cursor() as cursor:
        cursor.execute(
            "INSERT INTO django_tenant_messaging_message"
            " (room_id, seq, changed_seq, sender_id, content, timestamp, is_read, client_id)"
            " SELECT %s, seq, seq, %s, 'what was said earlier, number ' || seq,"
            " now() - make_interval(secs => %s - seq), false, gen_random_uuid() FROM generate_series(1, %s) AS seq",
            [room, sender.pk, number, number],
        )
        cursor.execute(
            "UPDATE django_tenant_messaging_roomcounter SET last_seq = %s WHERE room_id = %s", [number, room]
        )
        cursor.execute("ANALYZE django_tenant_messaging_message, django_tenant_messaging_roomcounter")


def finish(schema: str) -> None:
    """What the app needs of users that no signal announced."""
    if is_ours():
        from django_tenant_messaging.actions.status_backfill import create_user_statuses

        create_user_statuses(schema)


def is_ours() -> bool:
    """Whether the contender is the project itself."""
    from django.apps import apps

    return apps.is_installed("django_tenant_messaging")


if __name__ == "__main__":
    main()

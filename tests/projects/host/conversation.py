"""The host with the app installed: a conversation in one company by each of the statements written by hand, and what
there is of it in each; printed as JSON.
"""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any

import django

django.setup()

from django.contrib.auth import get_user_model  # noqa: E402
from django.core.management import call_command  # noqa: E402
from django.db import connection  # noqa: E402

from django_tenant_messaging import actions  # noqa: E402
from django_tenant_messaging.actions import Draft  # noqa: E402
from django_tenant_messaging.models import Message, Notification, UserStatus  # noqa: E402
from django_tenant_messaging.selectors import (  # noqa: E402
    LoginsAsked,
    list_conversations,
    online_contacts_of,
    read_heads,
    read_joins,
    read_logins,
    room_positions,
)
from django_tenant_messaging.tenancy import (  # noqa: E402
    activated,
    readiness_of_all,
    run_in_tenant,
    users_are_shared,
)

COMPANIES = ("acme", "globex")
users = get_user_model().objects
name = get_user_model().USERNAME_FIELD


def people() -> list[Any]:
    return [users.get_by_natural_key(f"{person}@example.com") for person in ("ann", "ben")]


def converse() -> list[Draft]:
    ann, ben = people()
    room = actions.create_room(ann, name="team", members=[ben]).pk
    direct = actions.open_direct_room(ann, other=ben).pk
    actions.send_message(ann, room_id=direct, content="for Ben")
    first = actions.send_message(ann, room_id=room, content="hello").message
    actions.edit_message(ann, room_id=room, message_id=first.id, content="hello again")
    second = actions.send_message(ben, room_id=room, content="oh", reply_to=first.id).message
    actions.delete_message(ben, room_id=room, message_id=second.id)
    actions.store_connections(opened=[ann], closed=[], process="here")
    return [Draft(ann, room, f"more {number}") for number in range(8)]


def look(schema_name: str) -> dict[str, Any]:
    ann, ben = people()
    kinds = {room.kind: room.name for room in room_positions(ann, limit=10)}
    with activated("public"):
        heads = read_heads({schema_name: [1]}, kept_as="here")[schema_name].seqs
        joined = read_joins({schema_name: [ann.pk, ben.pk]})[schema_name]
    return {
        "rooms": [kinds["group"]] if "group" in kinds else [],
        "others": [kinds["direct"]] if "direct" in kinds else [],
        "texts": list(Message.objects.order_by("pk").values_list("content", flat=True)),
        "unread": [found.unread_count for found in list_conversations(ben)],
        "statuses": UserStatus.objects.count(),
        "told": list(Notification.objects.values_list(f"user__{name}", flat=True)),
        "contacts": [contact.username for contact in online_contacts_of([ben])[0]],
        "heads": heads,
        "joined": len([room for _user, room in joined if room == 1]),
    }


def logins() -> list[tuple[str, dict[str, str]]]:
    """Whose passwords are read in each company, by whom: only where companies have users of their own."""
    if users_are_shared():
        return []
    known = {}
    for schema_name in COMPANIES:
        with activated(schema_name):
            known[schema_name] = {person.password: f"{person.email[:3]}'s" for person in people()}
            emails = {str(person.pk): person.email for person in people()}
            keys = [person.pk for person in people()]
    found = read_logins({schema_name: LoginsAsked([], keys) for schema_name in COMPANIES})
    return [
        (schema_name, {emails[key]: known[schema_name][stored] for key, stored in found[schema_name].passwords.items()})
        for schema_name in COMPANIES
    ]


call_command("create_user_statuses", stdout=sys.stderr)
with activated("acme"):
    drafts = converse()
asyncio.run(run_in_tenant("acme", actions.send_messages, drafts))
shown: dict[str, Any] = {}
for company in COMPANIES:
    with activated(company):
        shown[company] = look(company)
assert actions.renew_connections_of({company: [] for company in COMPANIES}, process="here") == set()
connection.close()
states = {schema_name: found.state.value for schema_name, found in readiness_of_all().items()}
print(json.dumps({**shown, "logins": logins(), "states": states}))

"""The host with the app installed: a message in one company; prints as JSON what each company shows of it."""

from __future__ import annotations

import json
import sys

import django

django.setup()

from config.asgi import application  # noqa: E402
from django.contrib.auth import get_user_model  # noqa: E402
from django.core.management import call_command  # noqa: E402
from django.db import connection  # noqa: E402
from django.test import Client  # noqa: E402

from django_tenant_messaging.models import Message, UserStatus  # noqa: E402
from django_tenant_messaging.tenancy import users_are_shared  # noqa: E402

connection.set_schema("acme")
users = get_user_model().objects
ann, ben = (users.get_by_natural_key(f"{name}@example.com") for name in ("ann", "ben"))
Message.objects.create(sender=ann, receiver=ben, content="for Ben alone")
users.create_user("dan@example.com", password="password")
connection.set_schema_to_public()


def statuses() -> dict[str, list[str]]:
    """Who has a status in which company."""
    found = {}
    name = f"user__{get_user_model().USERNAME_FIELD}"
    for schema_name in ("acme", "globex"):
        connection.set_schema(schema_name)
        found[schema_name] = sorted(UserStatus.objects.values_list(name, flat=True))
        connection.set_schema_to_public()
    return found


def page(schema_name: str, username: str) -> dict[str, object]:
    client = Client(SERVER_NAME=f"{schema_name}.example.com")
    before = client.get("/messages/").status_code
    client.post("/login/", {"username": username, "password": "password"})
    response = client.get("/messages/")
    return {
        "anonymous": before,
        "status": response.status_code,
        "shown": "for Ben alone" in response.content.decode(),
    }


shown = {}
statuses_at_first = statuses()
call_command("create_user_statuses", stdout=sys.stderr)
statuses_then = statuses()
for schema_name in ("acme", "globex"):
    connection.set_schema(schema_name)
    shown[schema_name] = {
        "messages": list(Message.objects.values_list("content", flat=True)),
        "notified": list(
            Message.objects.values_list("notifications__user__" + get_user_model().USERNAME_FIELD, flat=True)
        ),
        "statuses": [statuses_at_first[schema_name], statuses_then[schema_name]],
    }
    connection.set_schema_to_public()
    shown[schema_name]["ben"] = page(schema_name, "ben@example.com")
    shown[schema_name]["stranger"] = page(schema_name, "stranger@example.com")

# Where users are shared they are deleted in the shared schema, which has no messages.
connection.set_schema("public" if users_are_shared() else "acme")
users.get(pk=ann.pk).delete()
connection.set_schema("acme")
shown["acme"]["after deletion"] = list(Message.objects.values_list("content", "sender"))

# As another process would, without this one being told.
with connection.cursor() as cursor:
    cursor.execute(f"ALTER TABLE acme.{Message._meta.db_table} RENAME TO put_aside")
connection.set_schema_to_public()
for schema_name in ("acme", "globex"):
    shown[schema_name]["broken"] = page(schema_name, "ben@example.com")["status"]
print(json.dumps({"application": type(application).__name__, **shown}))

"""The host with the app installed: a message in one company; prints as JSON what each company shows of it."""

from __future__ import annotations

import json

import django

django.setup()

from config.asgi import application  # noqa: E402
from django.contrib.auth import get_user_model  # noqa: E402
from django.db import connection  # noqa: E402
from django.test import Client  # noqa: E402

from django_tenant_messaging.models import Message  # noqa: E402
from django_tenant_messaging.tenancy import users_are_shared  # noqa: E402

connection.set_schema("acme")
users = get_user_model().objects
ann, ben = (users.get_by_natural_key(f"{name}@example.com") for name in ("ann", "ben"))
Message.objects.create(sender=ann, receiver=ben, content="for Ben alone")
connection.set_schema_to_public()


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
for schema_name in ("acme", "globex"):
    connection.set_schema(schema_name)
    shown[schema_name] = {
        "messages": list(Message.objects.values_list("content", flat=True)),
        "notified": list(
            Message.objects.values_list("notifications__user__" + get_user_model().USERNAME_FIELD, flat=True)
        ),
    }
    connection.set_schema_to_public()
    shown[schema_name]["ben"] = page(schema_name, "ben@example.com")
    shown[schema_name]["stranger"] = page(schema_name, "stranger@example.com")

# Where users are shared they are deleted in the shared schema, which has no messages.
connection.set_schema("public" if users_are_shared() else "acme")
users.get(pk=ann.pk).delete()
connection.set_schema("acme")
shown["acme"]["after deletion"] = list(Message.objects.values_list("content", "sender"))
print(json.dumps({"application": type(application).__name__, **shown}))

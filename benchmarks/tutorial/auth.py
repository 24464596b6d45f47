"""Who connects, and to which tenant: Channels' own middleware asks whatever schema the thread was left in."""

from __future__ import annotations

from typing import Any

from channels.db import database_sync_to_async
from channels.middleware import BaseMiddleware
from django.contrib.auth import get_user
from django.contrib.auth.models import AnonymousUser
from django.contrib.sessions.backends.db import SessionStore
from django.http import HttpRequest
from django_tenants.utils import get_public_schema_name, schema_context

from example.customers.models import Domain


@database_sync_to_async
def identify(host: str, session_key: str | None) -> tuple[str | None, Any]:
    """The tenant's schema and its user."""
    with schema_context(get_public_schema_name()):
        domain = Domain.objects.select_related("tenant").filter(domain=host).first()
    if domain is None:
        return None, AnonymousUser()
    schema = domain.tenant.schema_name
    with schema_context(schema):
        request = HttpRequest()
        request.session = SessionStore(session_key)
        return schema, get_user(request)


class TenantAuthMiddleware(BaseMiddleware):
    """Puts the tenant's schema and its user into the scope. Wants the cookies there already."""

    async def __call__(self, scope: dict[str, Any], receive: Any, send: Any) -> Any:
        """Serve a connection."""
        headers = dict(scope["headers"])
        host = headers.get(b"host", b"").decode("latin-1").partition(":")[0]
        schema, user = await identify(host, scope["cookies"].get("sessionid"))
        return await super().__call__({**scope, "schema": schema, "user": user}, receive, send)

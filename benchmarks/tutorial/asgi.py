"""The hand-written chat's entry point."""

from __future__ import annotations

from channels.routing import ProtocolTypeRouter, URLRouter
from channels.security.websocket import AllowedHostsOriginValidator
from channels.sessions import CookieMiddleware
from django.core.asgi import get_asgi_application
from django.urls import path

# Loads the apps, so it comes before what imports models.
django_application = get_asgi_application()

from benchmarks.tutorial.auth import TenantAuthMiddleware  # noqa: E402
from benchmarks.tutorial.consumers import ChatConsumer  # noqa: E402

websockets = URLRouter([path("ws/chat/", ChatConsumer.as_asgi())])
application = ProtocolTypeRouter(
    {
        "http": django_application,
        "websocket": AllowedHostsOriginValidator(CookieMiddleware(TenantAuthMiddleware(websockets))),
    }
)

from __future__ import annotations

import os

from django.core.asgi import get_asgi_application

from django_tenant_messaging.realtime import messaging_asgi

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "example.settings")

application = messaging_asgi(get_asgi_application())

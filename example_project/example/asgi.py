from __future__ import annotations

import os

from django.conf import settings
from django.contrib.staticfiles.handlers import ASGIStaticFilesHandler
from django.core.asgi import get_asgi_application

from django_tenant_messaging.realtime import messaging_asgi

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "example.settings")

# Django raises when it is empty: a server without one is not to start, and then fail at each page.
str(settings.SECRET_KEY)

# A real site leaves its static files to a web server; the example has none.
application = messaging_asgi(ASGIStaticFilesHandler(get_asgi_application()))

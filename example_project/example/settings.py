"""A small SaaS: its customers are tenants, and each customer's users live in the customer's own schema."""

from __future__ import annotations

import json
import os
from pathlib import Path

from example.database import database_from_url

PACKAGE_DIR = Path(__file__).resolve().parent

# Nobody's default would be secret: Django refuses to work without one. `make demo` makes its own.
SECRET_KEY = os.environ.get("SECRET_KEY", "")
DEBUG = os.environ.get("DEBUG", "") == "1"
ALLOWED_HOSTS = os.environ.get("ALLOWED_HOSTS", ".localhost").split(",")

SHARED_APPS = [
    "django_tenants",
    "example.customers",
    "django.contrib.contenttypes",
    "django.contrib.staticfiles",
    "example",
    "replay",
]
TENANT_APPS = [
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.messages",
    "django.contrib.sessions",
    "django_tenant_messaging",
]
INSTALLED_APPS = SHARED_APPS + [app for app in TENANT_APPS if app not in SHARED_APPS]

TENANT_MODEL = "customers.Customer"
TENANT_DOMAIN_MODEL = "customers.Domain"
DATABASE_ROUTERS = ["django_tenants.routers.TenantSyncRouter"]
DATABASES = {
    "default": database_from_url(
        os.environ.get("DATABASE_URL", "postgresql://postgres@localhost/messaging_example"),
        # Under ASGI a persistent connection per thread runs out of them; a pool doesn't.
        pool={"min_size": 1, "max_size": 10, "timeout": 10},
    )
}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

MIDDLEWARE = [
    "django_tenant_messaging.middleware.MigrationHealthMiddleware",
    "django_tenants.middleware.main.TenantMainMiddleware",
    "django_tenant_messaging.middleware.TenantMigrationCheckMiddleware",
    "django.middleware.security.SecurityMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.locale.LocaleMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
]
ROOT_URLCONF = "example.urls"
PUBLIC_SCHEMA_URLCONF = "example.public_urls"
ASGI_APPLICATION = "example.asgi.application"
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ],
        },
    }
]

LOGIN_URL = "login"
LOGIN_REDIRECT_URL = "/messages/"
LOGOUT_REDIRECT_URL = "login"

LANGUAGE_CODE = "en"
LANGUAGES = [("en", "English"), ("fr", "Français")]
TIME_ZONE = "UTC"
USE_TZ = True
STATIC_URL = "static/"

CACHES = {
    "default": {
        "BACKEND": "django.core.cache.backends.locmem.LocMemCache",
        # Else a tenant finds what another one stored under the same key.
        "KEY_FUNCTION": "django_tenants.cache.make_key",
        "REVERSE_KEY_FUNCTION": "django_tenants.cache.reverse_key",
    }
}
# As JSON; for whoever tries settings out, and for the replay, which is faster than any person.
TENANT_MESSAGING = json.loads(os.environ.get("TENANT_MESSAGING", "{}"))
if redis_url := os.environ.get("REDIS_URL"):
    CHANNEL_LAYERS = {
        "default": {
            "BACKEND": "channels_redis.pubsub.RedisPubSubChannelLayer",
            # redis-py 8 drops a connection that is idle for 5 s unless it is told to wait.
            "CONFIG": {"hosts": [{"address": redis_url, "socket_timeout": None}]},
        }
    }
else:
    CHANNEL_LAYERS = {"default": {"BACKEND": "channels.layers.InMemoryChannelLayer"}}
    # The demo is one process: there is no other that has to hear of anything.
    SILENCED_SYSTEM_CHECKS = ["tenant_messaging.W012"]

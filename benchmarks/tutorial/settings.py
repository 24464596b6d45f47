"""The settings of the hand-written chat."""

from __future__ import annotations

import os

from example.database import database_from_url

SECRET_KEY = "the hand-written chat's key, good for nothing else"  # noqa: S105 - nothing is kept by it
DEBUG = False
ALLOWED_HOSTS = [".localhost"]

SHARED_APPS = ["django_tenants", "example.customers", "django.contrib.contenttypes"]
TENANT_APPS = [
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "benchmarks.tutorial",
]
INSTALLED_APPS = [*SHARED_APPS, *(app for app in TENANT_APPS if app not in SHARED_APPS), "channels"]
TENANT_MODEL = "customers.Customer"
TENANT_DOMAIN_MODEL = "customers.Domain"
DATABASE_ROUTERS = ["django_tenants.routers.TenantSyncRouter"]
DATABASES = {
    "default": {
        **database_from_url(os.environ["DATABASE_URL"]),
        # All consumers share one thread, hence one connection; by default it would be opened for each message anew.
        "CONN_MAX_AGE": None,
    }
}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
MIDDLEWARE = [
    "django_tenants.middleware.main.TenantMainMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
]
ROOT_URLCONF = "benchmarks.tutorial.urls"
ASGI_APPLICATION = "benchmarks.tutorial.asgi.application"
USE_TZ = True

LAYERS = {
    "core": "channels_redis.core.RedisChannelLayer",
    "pubsub": "channels_redis.pubsub.RedisPubSubChannelLayer",
}
CHANNEL_LAYERS = {
    "default": {
        "BACKEND": LAYERS[os.environ.get("LAYER", "core")],
        "CONFIG": {
            "hosts": [
                {
                    "address": os.environ.get("REDIS_URL", "redis://localhost:6379/0"),
                    # redis-py 8 drops a connection that is idle for 5 s unless it is told to wait,
                    "socket_timeout": None,
                    # and fails the 101st of many messages that are sent at the same time.
                    "max_connections": 2_000,
                }
            ]
        },
    }
}

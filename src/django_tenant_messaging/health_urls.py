"""The health view's address: ``path("health/", include("django_tenant_messaging.health_urls"))``."""

from __future__ import annotations

from django.urls import path

from .web.health import migration_health

app_name = "tenant_messaging_health"
urlpatterns = [path("migrations/", migration_health, name="migrations")]

from __future__ import annotations

from django.apps import AppConfig


class CustomersConfig(AppConfig):
    """The tenants, in the shared schema."""

    name = "example.customers"
    default_auto_field = "django.db.models.BigAutoField"

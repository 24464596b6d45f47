from __future__ import annotations

from django.db import models
from django_tenants.models import DomainMixin, TenantMixin


class Customer(TenantMixin):
    """A company that uses the service: one PostgreSQL schema."""

    name = models.CharField(max_length=100)

    auto_create_schema = True

    def __str__(self) -> str:
        return self.name


class Domain(DomainMixin):
    """A host name under which a customer's pages are found."""

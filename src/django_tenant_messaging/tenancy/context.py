"""Entering a tenant's schema in synchronous code.

django-tenants keeps the previous tenant of ``with tenant:`` on the class and that of ``@schema_context`` on the
shared decorator object; with threads both restore a stranger's schema. Here it is a local variable of the caller.
"""

from __future__ import annotations

from contextlib import contextmanager
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from django.core.signals import setting_changed
from django.db import connections
from django.dispatch import receiver
from django_tenants.utils import get_public_schema_name

from .database import TENANT_DATABASE

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextmanager
def activated(schema_name: str) -> Iterator[None]:
    """Run the body in a tenant's schema, on this thread's connection, and restore what was there before.

    Never hold it over an ``await``: other coroutines share the thread.
    """
    connection = _connection()
    previous, include_public = connection.tenant, connection.include_public_schema
    if connection.schema_name != schema_name:
        connection.set_schema(schema_name)
    try:
        yield
    finally:
        if connection.tenant is not previous:
            connection.set_tenant(previous, include_public)


def current_schema() -> str:
    """Return the schema that this thread's queries go to."""
    schema: str = _connection().schema_name
    return schema


def is_public_schema(schema_name: str) -> bool:
    """Say whether this is the shared schema, which holds no messages."""
    return schema_name == public_schema()


@lru_cache(maxsize=1)
def public_schema() -> str:
    """Return the name of the shared schema."""
    # Kept, as every request asks and a setting that isn't set costs an exception each time.
    name: str = get_public_schema_name()
    return name


@receiver(setting_changed)
def _forget_public_schema(**_kwargs: Any) -> None:
    public_schema.cache_clear()


def _connection() -> Any:
    """Return this thread's connection: django-tenants' wrapper, for which there are no type stubs."""
    return connections[TENANT_DATABASE]

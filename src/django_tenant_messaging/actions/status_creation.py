"""The status of a user who was just created. Where nothing can be made it comes with the first use."""

from __future__ import annotations

import logging
import threading
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

from django.contrib.auth import get_user_model
from django.db import connections, transaction

from ..tenancy import TENANT_DATABASE, current_schema, is_public_schema
from ..tenancy.database import has_own_users, serves_messages
from ..tenancy.gate import facts, hindrance, hindrance_after, kind_of, known_to_be_ready
from .statuses import insert_statuses

if TYPE_CHECKING:
    from django.contrib.auth.models import AbstractBaseUser

    from ..types import Readiness

logger = logging.getLogger(__name__)

_thread = threading.local()


def insert_status_of_new_user(user: AbstractBaseUser, *, using: str) -> None:
    """Give a user who was just saved a status, if the current tenant keeps its users in its own schema.

    ``using`` is the database that the user was saved to. Never raises and never breaks an open transaction: what
    hinders is logged.
    """
    schema_name = current_schema()
    try:
        if using != TENANT_DATABASE or not _begins_with_status(schema_name):
            return
        found = _hindrance(schema_name)
        if found is None:
            with _harmless():
                insert_statuses([_key(user)])
    except Exception as error:
        found = hindrance_after(error, schema_name)
        if found is None:
            logger.exception("[%s] No status could be made for the new user %r.", schema_name, user.pk)
    if found is not None:
        _warn(user, found, schema_name)


def _begins_with_status(schema_name: str) -> bool:
    if is_public_schema(schema_name):
        return False
    kind = kind_of(schema_name)
    return kind is not None and serves_messages(kind) and has_own_users(kind)


def _hindrance(schema_name: str) -> Readiness | None:
    """Return what forbids to write to a tenant; what an open transaction finds out is believed until its end.

    Elsewhere it is forgotten at once, and every user of a long import would cost two looks at the schemas.
    """
    if known_to_be_ready(schema_name) or not connections[TENANT_DATABASE].in_atomic_block:
        return hindrance(schema_name)
    seen = schema_name, _transaction_id()
    if getattr(_thread, "seen_ready", None) == seen:
        return None
    found = hindrance(schema_name)
    if found is None:
        _thread.seen_ready = seen
    return found


def _transaction_id() -> int:
    """Return the open transaction's number, which no other one ever has."""
    with connections[TENANT_DATABASE].cursor() as cursor:
        cursor.execute("SELECT pg_current_xact_id()::text::bigint")
        number: int = cursor.fetchone()[0]
        return number


def _key(user: AbstractBaseUser) -> Any:
    """Return the key under which the user model knows a user, whose own class may be a child of it."""
    key: Any = get_user_model()._meta.pk
    return getattr(user, key.attname)


def _harmless() -> Any:
    """Return a context whose failure leaves an open transaction usable; outside of one nothing has to be done."""
    is_open = connections[TENANT_DATABASE].in_atomic_block
    return transaction.atomic(using=TENANT_DATABASE) if is_open else nullcontext()


def _warn(user: AbstractBaseUser, found: Readiness, schema_name: str) -> None:
    logger.warning(
        "[%s] The new user %r has no status before its first use: %s. Required action: %s",
        schema_name,
        user.pk,
        found.reason,
        found.remedy,
        extra=facts(found),
    )

"""Pages are limited as sockets are, by the same buckets."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from ..limits import Key, Scope, shared_limiter
from ..selectors import access_room, user_ref
from ..tenancy import current_schema

if TYPE_CHECKING:
    from django.contrib.auth.models import AbstractBaseUser
    from django.http import HttpRequest


def charge_page(request: HttpRequest) -> None:
    """Charge a page to what its user reads, or changes. Raises ``RateLimited``."""
    user: Any = request.user
    scope = Scope.READS if request.method in {"GET", "HEAD", "OPTIONS"} else Scope.USER
    _charge(Key(scope, current_schema(), user_ref(user).id))


def charge_room(user: AbstractBaseUser, room_id: int) -> None:
    """Charge what makes work for all members of a room to the room and to the tenant. Raises ``RateLimited``.

    Raises ``NotFound`` unless the user is a member: nobody can use up the limit of others' rooms. One query.
    """
    access_room(user, room_id)
    schema_name = current_schema()
    _charge(Key(Scope.TENANT, schema_name, ""), Key(Scope.ROOM, schema_name, str(room_id)))


def _charge(*keys: Key) -> None:
    shared_limiter().check([(key, 1) for key in keys], time.monotonic())

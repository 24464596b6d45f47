from __future__ import annotations

from typing import TYPE_CHECKING, Any, overload

from django.contrib.auth import get_user_model
from django.db import connections

from ..exceptions import NotFound
from ..permissions import may_use_tenant
from ..tenancy import TENANT_DATABASE, current_schema
from ..types import UserRef

if TYPE_CHECKING:
    from collections.abc import Collection

    from django.contrib.auth.models import AbstractBaseUser


def username_field() -> str:
    """Return the name of the user model's username field."""
    name: str = get_user_model().USERNAME_FIELD
    return name


def user_key_type() -> str:
    """Return the type that the database gives the keys of users."""
    key: Any = get_user_model()._meta.pk
    name: str = key.rel_db_type(connections[TENANT_DATABASE])
    return name


@overload
def user_ref(user: AbstractBaseUser) -> UserRef: ...
@overload
def user_ref(user: AbstractBaseUser | None) -> UserRef | None: ...
def user_ref(user: AbstractBaseUser | None) -> UserRef | None:
    """Return a user as others see them."""
    return None if user is None else UserRef(id=str(user.pk), username=user.get_username())


def find_users(*, usernames: Collection[str]) -> list[AbstractBaseUser]:
    """Return the tenant's users with these usernames, in the given order.

    Raises :class:`~django_tenant_messaging.exceptions.NotFound` naming those that aren't users of this tenant.
    """
    schema_name = current_schema()
    found = {
        found.get_username(): found
        for found in get_user_model().objects.filter(**{f"{username_field()}__in": usernames}, is_active=True)
        if may_use_tenant(found, schema_name)
    }
    missing = [name for name in usernames if name not in found]
    if missing:
        raise NotFound(f"No such user: {', '.join(missing)}.", usernames=missing)
    return [found[name] for name in dict.fromkeys(usernames)]

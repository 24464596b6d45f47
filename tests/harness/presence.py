"""One user's first or last socket of a server process, as the server stores it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from django_tenant_messaging import actions

if TYPE_CHECKING:
    from django.contrib.auth.models import AbstractBaseUser


def connection_opened(user: AbstractBaseUser, *, process: str) -> None:
    """The user connects."""
    actions.store_connections(opened=[user], closed=[], process=process)


def connection_closed(user: AbstractBaseUser, *, process: str) -> None:
    """The user disconnects."""
    actions.store_connections(opened=[], closed=[user], process=process)

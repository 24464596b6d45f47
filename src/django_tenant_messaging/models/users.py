"""Foreign keys to the host's users.

The user table may be in the shared schema, from which Django's deletion collector can't see the tenants' tables: it
would query tables that aren't there, or miss those of other tenants. So the database carries out the deletion rule,
in the constraints that the first migration makes: a user's own rows go, other people's threads stay.
"""

from __future__ import annotations

from typing import Any

from django.conf import settings
from django.db import models


def user_key(field: type[models.ForeignKey[Any, Any]] = models.ForeignKey, **options: Any) -> Any:
    """Return a foreign key (or a one-to-one field) to the user model whose constraint the migration makes."""
    return field(settings.AUTH_USER_MODEL, on_delete=models.DO_NOTHING, db_constraint=False, **options)

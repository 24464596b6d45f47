from __future__ import annotations

from typing import TYPE_CHECKING

from employment.models import Employment

if TYPE_CHECKING:
    from django.contrib.auth.models import User


def is_member(user: User, schema_name: str) -> bool:
    return Employment.objects.filter(user=user, company__schema_name=schema_name).exists()

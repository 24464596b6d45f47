"""Online statuses: who has one, and users who have none."""

from __future__ import annotations

from typing import TYPE_CHECKING

from django.conf import settings
from django.contrib.auth.models import User
from django.test import override_settings

from django_tenant_messaging.models import UserStatus

if TYPE_CHECKING:
    from tests.harness.tenants import Tenant

WITHOUT_OWN_USERS = override_settings(TENANT_APPS=[app for app in settings.TENANT_APPS if app != "django.contrib.auth"])
"""Settings of a host whose users are shared. The table that they then name is still each tenant's."""


def owners(tenant: Tenant) -> list[str]:
    """The names of the users who have a status, once for each."""
    with tenant.activated():
        return list(UserStatus.objects.order_by("user_id").values_list("user__username", flat=True))


def without_statuses(tenant: Tenant, number: int) -> list[User]:
    """Make users whom no signal announces."""
    with tenant.activated():
        return User.objects.bulk_create(User(username=f"user{place:06}") for place in range(number))

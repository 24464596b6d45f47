"""What is asked for everybody who comes or goes costs the same while PostgreSQL believes that nobody is online.

So it does while its statistics are those of last night, or of a database that was just made.
"""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
from django.contrib.auth import get_user_model
from django.db import connection
from django.utils import timezone

from django_tenant_messaging import actions
from django_tenant_messaging.models import UserStatus
from django_tenant_messaging.selectors import online_contacts_of
from tests.harness.queries import queries

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.harness.tenants import Tenant

OF_THE_ONLINE = UserStatus._meta.indexes[0].name


@pytest.fixture
def crowd(acme: Tenant) -> list[Any]:
    """Two thousand users, in rooms of ten, who have come since the statistics were made."""
    user_model = get_user_model()
    with acme.activated():
        users = user_model.objects.bulk_create(user_model(username=f"user{number:04}") for number in range(2_000))
        UserStatus.objects.bulk_create(UserStatus(user=user) for user in users)
        for first in range(0, len(users), 10):
            actions.create_room(users[first], name="ten", members=users[first : first + 10])
        with connection.cursor() as cursor:
            cursor.execute("ANALYZE")
        UserStatus.objects.update(is_online=True, online_until=timezone.now() + timedelta(hours=1))
    return users


def come(users: list[Any]) -> None:
    actions.store_connections(opened=users, closed=[], process="here")


def go(users: list[Any]) -> None:
    actions.store_connections(opened=[], closed=users, process="here")


@pytest.mark.parametrize("work", [online_contacts_of, come, go])
def test_nobody_is_found_by_looking_through_all_who_are_online(
    acme: Tenant, crowd: list[Any], work: Callable[[list[Any]], Any]
) -> None:
    with acme.activated():
        with queries() as made:
            work(crowd[:5])
        assert made
        with connection.cursor() as cursor:
            for statement in made:
                cursor.execute(f"EXPLAIN {statement}")
                plan = "\n".join(line for (line,) in cursor.fetchall())
                assert OF_THE_ONLINE not in plan, f"{statement}\n{plan}"


def test_who_is_online_is_told_all_the_same(acme: Tenant, crowd: list[Any]) -> None:
    with acme.activated():
        UserStatus.objects.filter(user=crowd[3]).update(is_online=False)
        (found,) = online_contacts_of(crowd[:1])
    assert [user.username for user in found] == [f"user{number:04}" for number in range(10) if number not in {0, 3}]

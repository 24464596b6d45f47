"""Fixtures for the tests of sends on their way to the database."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from django_tenant_messaging import actions
from django_tenant_messaging.actions.sending import writing as sending
from django_tenant_messaging.tenancy import close_executor
from tests.sending.senders import Hold, Sender

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.harness.tenants import Tenant


@pytest.fixture
def rooms(acme: Tenant, globex: Tenant, people: tuple[str, ...]) -> list[int]:
    """Nine rooms of alice, bob and carol in both tenants, 1 to 9."""
    numbers = list(range(1, 10))
    for tenant in (acme, globex):
        with tenant.activated():
            first, *others = (tenant.users[name] for name in people)
            made = [actions.create_room(first, name=f"{number}", members=others).pk for number in numbers]
            assert made == numbers
    return numbers


@pytest.fixture
async def sender(acme: Tenant, rooms: list[int]) -> AsyncIterator[Sender]:
    sender = Sender(acme)
    yield sender
    for task in list(sender.tasks):
        task.cancel()
    await asyncio.gather(*sender.tasks, return_exceptions=True)
    await asyncio.to_thread(close_executor)


@pytest.fixture
def statements(monkeypatch: pytest.MonkeyPatch) -> list[list[tuple[int, str]]]:
    """The statements that wrote, each as the rooms and texts of its messages."""
    execute, found = sending._execute, []

    def counting(rows: Any, locked: Any) -> Any:
        found.append([(row.room_id, row.content) for row in rows])
        return execute(rows, locked)

    monkeypatch.setattr(sending, "_execute", counting)
    return found


@pytest.fixture
async def hold(database_url: str, acme: Tenant) -> AsyncIterator[Hold]:
    async with await psycopg.AsyncConnection.connect(database_url) as connection:
        yield Hold(connection, acme.schema_name)
        await connection.rollback()

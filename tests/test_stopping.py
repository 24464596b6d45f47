from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING, Any

import pytest

from django_tenant_messaging.tenancy import run_in_tenant
from django_tenant_messaging.tenancy.executor import close_executor

if TYPE_CHECKING:
    from tests.harness.tenants import Tenant


async def test_a_stopping_server_finishes_what_runs_and_drops_what_waits(acme: Tenant, settings: Any) -> None:
    settings.TENANT_MESSAGING = {"DATABASE_THREADS": 1}
    await asyncio.to_thread(close_executor)
    loop, started, go_on, done = asyncio.get_running_loop(), asyncio.Event(), threading.Event(), []

    def slow() -> None:
        loop.call_soon_threadsafe(started.set)
        assert go_on.wait(10)
        done.append("running")

    running = asyncio.create_task(run_in_tenant(acme.schema_name, slow))
    await started.wait()
    waiting = asyncio.create_task(run_in_tenant(acme.schema_name, done.append, "waiting"))
    closing = asyncio.create_task(asyncio.to_thread(close_executor))
    with pytest.raises(asyncio.CancelledError):
        await waiting
    go_on.set()
    await asyncio.gather(running, closing)
    assert done == ["running"]

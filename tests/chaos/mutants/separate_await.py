"""Set the tenant in one await and write in the next, in a thread that all tenants share, as `sync_to_async` has one."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from typing import TYPE_CHECKING, Any

from django.db import connection, connections

from django_tenant_messaging.realtime import sending
from tests.chaos.mutants.patching import replace

if TYPE_CHECKING:
    from collections.abc import Callable

_thread = ThreadPoolExecutor(1)


def apply() -> None:
    """Let sends be written that way."""

    async def run_apart(schema_name: str, work: Callable[[], Any]) -> Any:
        loop = asyncio.get_running_loop()
        untyped: Any = connection
        await loop.run_in_executor(_thread, lambda: untyped.set_schema(schema_name))
        context = copy_context()
        return await loop.run_in_executor(_thread, lambda: context.run(_write, work))

    replace(sending, "run_in_tenant", run_apart)


def _write(work: Callable[[], Any]) -> Any:
    try:
        return work()
    except Exception:
        connections.close_all()
        raise

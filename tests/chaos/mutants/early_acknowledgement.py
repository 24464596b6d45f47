"""Acknowledge a message, and hand it out, before the commit."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any

from django.db import transaction

from django_tenant_messaging.realtime import sending
from django_tenant_messaging.tenancy import run_in_tenant
from tests.chaos.mutants.patching import replace

if TYPE_CHECKING:
    from collections.abc import Callable

COMMIT_SECONDS = 0.03
"""What a commit takes on a slow disk."""

_running: set[asyncio.Task[Any]] = set()


def apply() -> None:
    """Answer when the statement is through, and commit after that."""

    async def run_early(schema_name: str, work: Callable[[], Any]) -> Any:
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[Any] = loop.create_future()

        def give(result: Any) -> None:
            if not answer.done():
                answer.set_result(result)

        def run() -> None:
            with transaction.atomic():
                loop.call_soon_threadsafe(give, work())
                time.sleep(COMMIT_SECONDS)

        def ended(task: asyncio.Task[Any]) -> None:
            _running.discard(task)
            error = None if task.cancelled() else task.exception()
            if error is not None and not answer.done():
                answer.set_exception(error)

        task = loop.create_task(run_in_tenant(schema_name, run))
        _running.add(task)
        task.add_done_callback(ended)
        return await answer

    replace(sending, "run_in_tenant", run_early)

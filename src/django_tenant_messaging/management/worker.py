"""What a worker process runs. It is imported before Django is set up there, so it imports nothing that needs it."""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
from multiprocessing import parent_process
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ..tenancy.gate.repair import Repair


def begin(databases: dict[str, Any]) -> None:
    """Set Django up on the parent's databases. The worker ends with its parent, however that ends."""
    import django
    from django.conf import settings

    # Ctrl-C in a terminal reaches every process; the parent decides.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    # The parent's output is a report, maybe JSON; what migrations print isn't part of it.
    sys.stdout = sys.stderr
    settings.DATABASES = databases
    django.setup()
    keep_records_off_the_terminal()


def repair(schema_name: str, kind: str) -> Repair:
    """Repair a schema."""
    from ..tenancy.gate.repair import repair_schema

    return repair_schema(schema_name, kind)


def keep_records_off_the_terminal() -> None:
    """Let no log record reach the terminal merely because the host configured no logging: the report tells it all."""
    for name in (__package__.partition(".")[0], "psycopg.pool"):
        logger = logging.getLogger(name)
        if not logger.hasHandlers():
            logger.addHandler(logging.NullHandler())


def _end_with_parent() -> None:
    parent = parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)

"""The database of a play: `DATABASE_URL`, else the demo's, running or not."""

from __future__ import annotations

import os
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

from django.conf import settings
from django.db import connections

from demo import FOLDER, only_demo, use_own_secrets
from example.database import database_from_url
from example.seed import seed
from example.services import ServiceError, postgres_url, running_url

if TYPE_CHECKING:
    from collections.abc import Iterator

DATA_DIR = FOLDER / "postgres"


@contextmanager
def demo_database() -> Iterator[None]:
    """Without `DATABASE_URL`, use the database of the running demo, or start it for as long as the context."""
    if os.environ.get("DATABASE_URL"):
        yield
        return
    with ExitStack() as stack:
        try:
            stack.enter_context(only_demo())
        except ServiceError:
            url = running_url(DATA_DIR)
            if url is None:
                raise ServiceError("The demo is starting or ending; try again, or set DATABASE_URL.") from None
        else:
            url = stack.enter_context(postgres_url(DATA_DIR))
        use_own_secrets()
        settings.SECRET_KEY = os.environ["SECRET_KEY"]
        database = connections.settings["default"]
        database.update(database_from_url(url, pool=database["OPTIONS"].get("pool")))
        os.environ["DATABASE_URL"] = url  # for the processes that are started from here
        stack.callback(os.environ.pop, "DATABASE_URL")
        seed()
        yield
        connection: Any = connections["default"]
        connection.close()
        connection.close_pool()

"""Comparing what a process follows with the database, so that nothing stays lost that the channel layer lost."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter, defaultdict
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from django.db import OperationalError, connections, transaction

from ..conf import messaging_settings
from ..exceptions import MessagingError, TenantNotReady, Unavailable
from ..selectors import read_heads, read_joins
from ..tenancy import TENANT_DATABASE, public_schema, require_all_ready, run_in_tenant

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from .hub import Hub

T = TypeVar("T")

logger = logging.getLogger(__name__)

MAX_TENANTS = 50
"""Most tenants of one statement. Each costs more in one of hundreds, and all are planned again when one comes."""
PLANNING = {"plan_cache_mode": "force_generic_plan", "enable_seqscan": "off", "max_parallel_workers_per_gather": "0"}
"""What keeps the statements cheap: one plan, good for tables of any size, without starting processes to share it."""
LOCK_TIMEOUT = "250ms"
"""How long the statement for several tenants waits for the tables of one, before each is asked by itself."""
PATIENCE = 2.0
"""Seconds after which a statement that isn't answered is left to itself, and the next one asked on another connection:
a backend that hangs, or a connection whose other end is gone, must not keep everybody from learning what was lost."""
MOST_UNDER_WAY = 2
"""Most unanswered statements of a group: a database that is slow everywhere isn't asked more and more."""
LOCKED_OR_SLOW = {"55P03", "57014"}
"""What PostgreSQL says of a statement that was ended for its timeout: it may be one tenant's fault."""


class Comparison:
    """Reads the heads of all rooms that are followed, for many tenants in one statement, every ``RECONCILE_INTERVAL``;
    and of the tenants where somebody joined a room of late, who did.

    While the channel layer is down it does so up to eight times as often, but never more than a fifth of the time. A
    connection that doesn't answer keeps up nobody for more than ``PATIENCE`` seconds.
    """

    def __init__(self, hub: Hub) -> None:
        self._hub = hub
        self._alone: set[str] = set()
        self._groups: list[dict[str, None]] = []
        self._under_way: Counter[int] = Counter()

    async def run_forever(self) -> None:
        """Compare, and look after the sockets."""
        took = rechecked = 0.0
        was_late = False
        while True:
            interval = messaging_settings.RECONCILE_INTERVAL
            if not self._hub.link.is_whole:
                interval = min(interval, max(interval / 8, 4 * took))
            await asyncio.sleep(interval)
            began = time.monotonic()
            try:
                self._hub.tidy()
                if not self._hub.link.is_whole and began - rechecked >= messaging_settings.RECONCILE_INTERVAL:
                    # What another process says of somebody's rights isn't heard.
                    rechecked = began
                    self._hub.access.recheck_all()
                is_late = not await self._compare()
            except Exception:
                logger.exception("Looking after the sockets failed.")
                is_late = False
            # What one connection keeps waiting says nothing of how soon another one answers.
            took = 0.0 if is_late and not was_late else time.monotonic() - began
            was_late = is_late

    async def _compare(self) -> bool:
        """Compare all, and say whether the database answered in time."""
        rooms: defaultdict[str, list[int]] = defaultdict(list)
        for schema_name, room_id in self._hub.feeds:
            rooms[schema_name].append(room_id)
        # A tenant that is being asked by itself keeps nobody waiting but itself.
        asked = {name: rooms.get(name, []) for name in self._hub.schemas() if name not in self._alone}
        is_in_time = True
        for number, group in self._grouped(asked):
            if self._under_way[number] < MOST_UNDER_WAY:
                answered = asyncio.Event()
                self._hub.spawn(self._compare_group(number, {name: asked[name] for name in group}, answered))
                try:
                    async with asyncio.timeout(PATIENCE):
                        await answered.wait()
                    continue
                except TimeoutError:
                    logger.warning("Comparing %s tenants with the database takes long; it is asked again.", len(group))
            is_in_time = False
        return is_in_time

    async def _compare_group(self, number: int, some: dict[str, list[int]], answered: asyncio.Event) -> None:
        """Compare the tenants of a group. However late the answer is, it is acted on: heads only grow."""
        self._under_way[number] += 1
        try:
            read = partial(read_heads, kept_as=f"tenant_messaging_heads_{number}")
            heads = await run_in_tenant(public_schema(), _read_together, read, some)
            joined = self._users_of({schema_name for schema_name, found in heads.items() if found.has_joins})
            joins = await run_in_tenant(public_schema(), _read_together, read_joins, joined) if joined else {}
        except Unavailable as error:
            logger.warning("Comparing %s tenants with the database failed: %s", len(some), error)
        except Exception as error:  # noqa: BLE001 - each is told its own below
            logger.debug("Comparing %s tenants together failed: %r", len(some), error)
            for schema_name, room_ids in some.items():
                if schema_name not in self._alone:
                    self._alone.add(schema_name)
                    self._hub.spawn(self._compare_alone(schema_name, room_ids))
        else:
            for schema_name, found in heads.items():
                self._hub.follow(schema_name, found.seqs, joins.get(schema_name, ()))
        finally:
            self._under_way[number] -= 1
            answered.set()

    def _grouped(self, schema_names: Iterable[str]) -> Iterator[tuple[int, list[str]]]:
        """Yield numbered groups of the tenants that change no more than they must: a changed one is planned anew."""
        fresh = dict.fromkeys(schema_names)
        for group in self._groups:
            for schema_name in list(group):
                if schema_name in fresh:
                    del fresh[schema_name]
                else:
                    del group[schema_name]
        for schema_name in fresh:
            if all(len(group) >= MAX_TENANTS for group in self._groups):
                self._groups.append({})
            next(group for group in self._groups if len(group) < MAX_TENANTS)[schema_name] = None
        return ((number, list(group)) for number, group in enumerate(self._groups) if group)

    def _users_of(self, schema_names: Iterable[str]) -> dict[str, list[Any]]:
        keys: dict[str, list[Any]] = {schema_name: [] for schema_name in schema_names}
        for (schema_name, _user_id), sockets in self._hub.sockets.items() if keys else ():
            if schema_name in keys:
                keys[schema_name].append(next(iter(sockets)).user.pk)
        return keys

    async def _compare_alone(self, schema_name: str, room_ids: list[int]) -> None:
        try:
            read = partial(read_heads, kept_as="tenant_messaging_heads")
            heads = (await run_in_tenant(schema_name, _read, read, {schema_name: room_ids}))[schema_name]
            joined = self._users_of({schema_name} if heads.has_joins else ())
            joins = await run_in_tenant(schema_name, _read, read_joins, joined) if joined else {}
        except TenantNotReady as error:
            self._hub.close_tenant(schema_name, error.readiness)
        except MessagingError as error:
            logger.warning("[%s] Comparing with the database failed: %s", schema_name, error)
        except Exception:
            logger.exception("[%s] Comparing with the database failed.", schema_name)
        else:
            self._hub.follow(schema_name, heads.seqs, joins.get(schema_name, ()))
        finally:
            self._alone.discard(schema_name)


def _read_together(read: Callable[[dict[str, Any]], T], asked: dict[str, Any]) -> T:
    require_all_ready(asked)
    try:
        return _read(read, asked, lock_timeout=LOCK_TIMEOUT)
    except OperationalError as error:
        if getattr(error.__cause__, "sqlstate", None) in LOCKED_OR_SLOW:
            raise _OneKeepsWaiting from error
        raise


def _read(read: Callable[[dict[str, Any]], T], asked: dict[str, Any], **limits: str) -> T:
    settings = {**PLANNING, **limits}
    with transaction.atomic(using=TENANT_DATABASE):
        with connections[TENANT_DATABASE].cursor() as cursor:
            calls = ", ".join(f"set_config('{name}', '{value}', true)" for name, value in settings.items())
            cursor.execute(f"SELECT {calls}")
        return read(asked)


class _OneKeepsWaiting(Exception):
    """A tenant of several can't be asked in time."""

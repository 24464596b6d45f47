"""Comparing what a process follows with the database, so that nothing stays lost that the channel layer lost."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter, defaultdict
from functools import partial
from typing import TYPE_CHECKING, Any

from ..conf import messaging_settings
from ..exceptions import MessagingError, TenantNotReady, Unavailable
from ..selectors import read_heads, read_joins
from ..tenancy import public_schema, run_in_tenant
from .together import MAX_TENANTS, PATIENCE, ask_planned, ask_together

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from ..selectors import Heads
    from .hub import Hub

logger = logging.getLogger(__name__)

MOST_UNDER_WAY = 2
"""Most unanswered statements of a group: a database that is slow everywhere isn't asked more and more."""


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
        took = 0.0
        was_late = False
        while True:
            interval = messaging_settings.RECONCILE_INTERVAL
            if not self._hub.link.is_whole:
                interval = min(interval, max(interval / 8, 4 * took))
            await asyncio.sleep(interval)
            began = time.monotonic()
            try:
                self._hub.tidy()
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
                if await self._hub.begun(self._compare_group(number, {name: asked[name] for name in group}), PATIENCE):
                    continue
                logger.warning("Comparing %s tenants with the database takes long; it is asked again.", len(group))
            is_in_time = False
        return is_in_time

    async def _compare_group(self, number: int, some: dict[str, list[int]]) -> None:
        """Compare the tenants of a group. However late the answer is, it is acted on: heads only grow."""
        self._under_way[number] += 1
        try:
            read = partial(read_heads, kept_as=f"tenant_messaging_heads_{number}")
            heads = await run_in_tenant(public_schema(), ask_together, read, some)
            joined = self._users_of({schema_name for schema_name, found in heads.items() if found.has_joins})
            joins = await run_in_tenant(public_schema(), ask_together, read_joins, joined) if joined else {}
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
                self._act_on(schema_name, some[schema_name], found, joins.get(schema_name, ()))
        finally:
            self._under_way[number] -= 1

    def _act_on(self, schema_name: str, room_ids: list[int], heads: Heads, joins: Iterable[tuple[str, int]]) -> None:
        self._hub.follow(schema_name, heads.seqs, joins)
        if len(heads.seqs) < len(room_ids):
            self._hub.drop_rooms(schema_name, set(room_ids) - heads.seqs.keys())

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
            heads = (await run_in_tenant(schema_name, ask_planned, read, {schema_name: room_ids}))[schema_name]
            joined = self._users_of({schema_name} if heads.has_joins else ())
            joins = await run_in_tenant(schema_name, ask_planned, read_joins, joined) if joined else {}
        except TenantNotReady as error:
            self._hub.close_tenant(schema_name, error.readiness)
        except MessagingError as error:
            logger.warning("[%s] Comparing with the database failed: %s", schema_name, error)
        except Exception:
            logger.exception("[%s] Comparing with the database failed.", schema_name)
        else:
            self._act_on(schema_name, room_ids, heads, joins.get(schema_name, ()))
        finally:
            self._alone.discard(schema_name)

"""What the host's own code does: makes users, sessions and rooms, and adds and removes members.

Everything runs in one thread, in which Django's connection lives; whatever a fault interrupts is repeated.
"""

from __future__ import annotations

import asyncio
import time
from concurrent.futures import ThreadPoolExecutor
from time import monotonic
from typing import TYPE_CHECKING, Any, TypeVar

import psycopg

from tests.chaos.rows import changed_seq

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from tests.chaos.history import History, MemberChange
    from tests.chaos.stage import Stage
    from tests.harness.tenants import Tenant

T = TypeVar("T")
PATIENCE = 90.0


class Host:
    """The host application of the stage."""

    def __init__(self, stage: Stage) -> None:
        from tests.harness.tenants import Tenant

        self._stage = stage
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="host")
        self.tenants: dict[str, Tenant] = {}
        self._tenant_class = Tenant

    async def call(self, function: Callable[..., T], *args: Any) -> T:
        """Run a function in the host's thread, on a connection that works."""

        def run() -> T:
            from django.db import connection

            if connection.connection is not None and not connection.is_usable():
                connection.close()
            return function(*args)

        return await asyncio.get_running_loop().run_in_executor(self._thread, run)

    async def close(self) -> None:
        """Give the connection back and end the thread."""
        from tests.harness.run import disconnect_django

        await self.call(disconnect_django)
        self._thread.shutdown()

    # What a run begins with

    def furnish(self, tenant: str, usernames: Collection[str], rooms: Collection[Collection[str]]) -> dict[str, str]:
        """Make users and rooms; return each user's cookie."""
        from django.conf import settings

        from django_tenant_messaging import actions
        from tests.harness.peer import session_of

        place = self.tenants[tenant] = self._tenant_class(tenant)
        for name in usernames:
            place.create_user(name)
        with place.activated():
            for number, members in enumerate(rooms, 1):
                first, *others = (place.users[name] for name in members)
                room = actions.create_room(first, name=f"room {number}", members=others)
                assert room.pk == number, "the rooms of both tenants have equal numbers"
            return {name: f"{settings.SESSION_COOKIE_NAME}={session_of(user)}" for name, user in place.users.items()}

    # Members

    async def change_members(self, history: History, change: MemberChange) -> None:
        """Add or remove the users of a change, however often it takes, and note it."""
        history.changes.append(change)
        change.seq = await self.call(self._change_members, change)
        change.acknowledged = monotonic()

    def _change_members(self, change: MemberChange) -> int:
        from django.db import DatabaseError, InterfaceError

        from django_tenant_messaging.exceptions import NotFound, TenantNotReady

        deadline = monotonic() + PATIENCE
        while True:
            try:
                try:
                    self._ask(change)
                except NotFound:
                    # Asked before, and done: the answer was lost.
                    assert not change.joined
                with self._stage.connect("chaos-host") as connection:
                    return max(
                        changed_seq(connection, change.tenant, change.room, username) for username in change.users
                    )
            except (DatabaseError, InterfaceError, TenantNotReady, psycopg.Error):
                if monotonic() > deadline:
                    raise
                self._reset()
                time.sleep(0.3)

    def _ask(self, change: MemberChange) -> None:
        from django_tenant_messaging import actions

        tenant = self.tenants[change.tenant]
        users = [tenant.users[name] for name in sorted(change.users)]
        with tenant.activated():
            owner = self._owner(change.room)
            if change.joined:
                actions.add_members(owner, room_id=change.room, users=users)
            else:
                (user,) = users
                actions.remove_member(owner, room_id=change.room, user=user)

    def _owner(self, room_id: int) -> Any:
        from django_tenant_messaging.models import Membership

        return Membership.objects.select_related("user").get(room_id=room_id, role="owner", left_seq=None).user

    def _reset(self) -> None:
        from django.db import connection

        connection.close()

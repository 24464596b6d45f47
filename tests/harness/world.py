"""Two tenants with rooms of equal numbers, for tests of what one of them may see and do."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from django_tenant_messaging import actions
from django_tenant_messaging.selectors import list_members

if TYPE_CHECKING:
    from collections.abc import Iterator

    from django.contrib.auth.models import User

    from tests.harness.tenants import Tenant

TEAM, THEIRS = 1, 2
"""In acme the room 1 is that of alice, its owner, and bob. In globex carol owns 1, with all in it, and 2."""


@dataclass(frozen=True)
class World:
    """Acme's people, with acme entered."""

    acme: Tenant
    globex: Tenant
    alice: User
    bob: User
    carol: User

    def roles(self, room_id: int) -> dict[str, str]:
        """The members of one of alice's rooms."""
        return {member.user.username: member.role for member in list_members(self.alice, room_id)}


@contextmanager
def made_world(acme: Tenant, globex: Tenant) -> Iterator[World]:
    """Make the rooms and stay in acme."""
    alice, bob, carol = (acme.users[name] for name in ("alice", "bob", "carol"))
    with globex.activated():
        actions.create_room(globex.users["carol"], name="theirs", members=list(globex.users.values()))
        actions.create_room(globex.users["carol"], name="theirs too")
    with acme.activated():
        actions.create_room(alice, name="team", members=[bob])
        yield World(acme, globex, alice, bob, carol)

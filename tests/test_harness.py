"""What every other test relies on: two tenants, equal in all but name, empty at the start."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from django.contrib.auth import get_user_model

if TYPE_CHECKING:
    from tests.harness.server import Server
    from tests.harness.tenants import Tenant


@pytest.mark.parametrize("turn", [1, 2])
def test_tenants_start_empty_with_equal_ids(acme: Tenant, globex: Tenant, turn: int) -> None:
    names = {}
    for tenant in (acme, globex):
        tenant.create_user("alice", first_name=tenant.schema_name)
        with tenant.activated():
            names[tenant.schema_name] = list(get_user_model().objects.values_list("pk", "username", "first_name"))
    assert names == {"acme": [(1, "alice", "acme")], "globex": [(1, "alice", "globex")]}


def test_server_logs_in_by_tenant(acme: Tenant, globex: Tenant, people: tuple[str, ...], server: Server) -> None:
    acme.create_user("dave")
    assert "sessionid=" in server.login(acme, "dave")
    with pytest.raises(AssertionError, match="errorlist"):
        server.login(globex, "dave")

"""Name groups by the room alone, and believe that what comes on one is for whoever listens."""

from __future__ import annotations

from typing import TYPE_CHECKING

from django_tenant_messaging.realtime import link
from django_tenant_messaging.realtime.hints import from_rows
from django_tenant_messaging.realtime.hub import Hub
from tests.chaos.mutants.patching import replace

if TYPE_CHECKING:
    from django_tenant_messaging.realtime.sealing import Message


def apply() -> None:
    """Let processes of all tenants hear the same, without a word about whose it is."""

    def group_of(schema_name: str) -> str:
        return "messaging.tenant.hints" if schema_name else link.EVERYONE

    replace(link, "group_of", group_of)
    listen = Hub._on_message

    def on_message(hub: Hub, message: Message) -> None:
        if message.kind == link.LIMITS:
            listen(hub, message)
            return
        for schema_name in hub.schemas():
            hub._dispatch(schema_name, from_rows(schema_name, message.content))

    replace(Hub, "_on_message", on_message)

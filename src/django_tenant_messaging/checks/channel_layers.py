"""Checks of the channel layer, by which the processes of a site tell each other what happens."""

from __future__ import annotations

import re
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from django.conf import settings
from django.core.checks import CheckMessage, Error, Warning  # noqa: A004 - the names of Django's documentation

from ..conf import host_settings, messaging_settings

if TYPE_CHECKING:
    from collections.abc import Iterator

IN_MEMORY = "channels.layers.InMemoryChannelLayer"
REDIS = "channels_redis."
IMPATIENT_REDIS = 8
"""The first major version of redis-py whose reads end by themselves, after 5 s."""
SHARED_LAYER = (
    'Set CHANNEL_LAYERS[{alias!r}] to {{"BACKEND": "channels_redis.pubsub.RedisPubSubChannelLayer", "CONFIG":'
    ' {{"hosts": [{{"address": "redis://localhost:6379/0", "socket_timeout": None}}]}}}}. With a single server process,'
    " silence this warning."
)
CONSEQUENCE = (
    "several server processes would find each other's messages only by comparing with the database, and typing and"
    " presence not at all"
)


def check_channel_layers(**_kwargs: Any) -> list[CheckMessage]:
    """Report a layer without its package (E009), one that ends at the process's border (W012) and one whose
    connections to Redis end when they are idle (W014).
    """
    return [*_not_installed(), *_process_local(), *_impatient()]


def check_shared_layer(**_kwargs: Any) -> list[CheckMessage]:
    """Report that there is no channel layer at all (W013).

    Only for ``check --deploy``: a single server process needs none.
    """
    if settings.DEBUG or _layers():
        return []
    return [
        Warning(
            f"CHANNEL_LAYERS is not set: {CONSEQUENCE}.",
            hint=SHARED_LAYER.format(alias=_alias()),
            id="tenant_messaging.W013",
        )
    ]


def _not_installed() -> Iterator[CheckMessage]:
    for alias, layer in _redis_layers().items():
        if find_spec("channels_redis") is None:
            yield Error(
                f"CHANNEL_LAYERS[{alias!r}] is {layer['BACKEND']}, and channels_redis is not installed.",
                hint='Run pip install "django-tenant-messaging[redis]".',
                id="tenant_messaging.E009",
            )


def _process_local() -> Iterator[CheckMessage]:
    alias, layers = _alias(), _layers()
    if settings.DEBUG or not layers:
        return
    if alias not in layers:
        cause = f"CHANNEL_LAYERS has no {alias!r}, the layer that this app is told to use"
    elif layers[alias].get("BACKEND") == IN_MEMORY:
        cause = f"CHANNEL_LAYERS[{alias!r}] is kept in memory and DEBUG is off"
    else:
        return
    yield Warning(f"{cause}: {CONSEQUENCE}.", hint=SHARED_LAYER.format(alias=alias), id="tenant_messaging.W012")


def _impatient() -> Iterator[CheckMessage]:
    installed = _redis_version()
    if int((re.match(r"\d+", installed) or ["0"])[0]) < IMPATIENT_REDIS:
        return
    for alias, layer in _redis_layers().items():
        hosts = _hosts(layer)
        impatient = [number for number, host in enumerate(hosts, 1) if not _is_patient(host)]
        if impatient:
            which = "its host" if len(hosts) == 1 else f"of its {len(hosts)} hosts number {_listed(impatient)}"
            yield Warning(
                f'CHANNEL_LAYERS[{alias!r}] lacks "socket_timeout": None ({which}): redis {installed} gives a read up'
                " after 5 s of silence, and a consumer of channels_redis.core with it.",
                hint='Write each of its hosts as a dict with "socket_timeout": None, such as'
                ' {"address": "redis://localhost:6379/0", "socket_timeout": None}.',
                id="tenant_messaging.W014",
            )


def _layers() -> dict[str, dict[str, Any]]:
    given = getattr(settings, "CHANNEL_LAYERS", None) or {}
    return {alias: layer for alias, layer in given.items() if isinstance(layer, dict)}


def _redis_layers() -> dict[str, dict[str, Any]]:
    return {alias: layer for alias, layer in _layers().items() if str(layer.get("BACKEND")).startswith(REDIS)}


def _alias() -> str:
    # What is set but wrong is the other check's subject.
    given = messaging_settings.CHANNEL_LAYER if isinstance(host_settings(), dict) else None
    return given if isinstance(given, str) and given else type(messaging_settings).CHANNEL_LAYER.default


def _hosts(layer: dict[str, Any]) -> list[Any]:
    """Return the hosts as they are written; without any there is one, Redis's own default."""
    hosts = (layer.get("CONFIG") or {}).get("hosts") or ["redis://localhost:6379"]
    return list(hosts) if isinstance(hosts, list | tuple) else [hosts]


def _is_patient(host: Any) -> bool:
    return isinstance(host, dict) and host.get("socket_timeout", 0) is None


def _redis_version() -> str:
    try:
        return version("redis")
    except PackageNotFoundError:
        return "0"


def _listed(numbers: list[int]) -> str:
    return ", ".join(map(str, numbers))

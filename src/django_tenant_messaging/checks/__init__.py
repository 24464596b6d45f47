"""System checks: what is wrong with a host's configuration, said before it hurts.

Of other packages they know dotted paths and versions only, as they stand in the host's settings.
"""

from __future__ import annotations

from .channel_layers import check_channel_layers, check_shared_layer
from .connections import check_connections
from .exposure import check_exposure
from .gate import check_bypass, check_tenants
from .installation import check_installation
from .isolation import check_isolation
from .middleware import check_middleware
from .relations import check_relations
from .settings import check_settings

__all__ = [
    "check_bypass",
    "check_channel_layers",
    "check_connections",
    "check_exposure",
    "check_installation",
    "check_isolation",
    "check_middleware",
    "check_relations",
    "check_settings",
    "check_shared_layer",
    "check_tenants",
]

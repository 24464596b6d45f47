"""How much may be asked for, the same for every face."""

from __future__ import annotations

from .buckets import Limit, TokenBucket
from .limiter import Charge, Key, Limiter, Scope, Share, limits_of_settings
from .sharing import share_limiter, shared_limiter, unshare_limiter

__all__ = [
    "Charge",
    "Key",
    "Limit",
    "Limiter",
    "Scope",
    "Share",
    "TokenBucket",
    "limits_of_settings",
    "share_limiter",
    "shared_limiter",
    "unshare_limiter",
]

"""Whom a setting lets see details."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from django.utils.module_loading import import_string

if TYPE_CHECKING:
    from collections.abc import Callable

    from django.http import HttpRequest

logger = logging.getLogger(__name__)


def may_see(request: HttpRequest, setting: bool | str | Callable[[HttpRequest], bool]) -> bool:
    """Say whether a setting that is true, false or a hook lets this request see details; a hook that raises doesn't."""
    if isinstance(setting, bool):
        return setting
    try:
        hook = import_string(setting) if isinstance(setting, str) else setting
        return bool(hook(request))
    except Exception:
        logger.exception("The hook %r, which says who sees details, failed.", setting)
        return False

"""Checks of the ``TENANT_MESSAGING`` setting."""

from __future__ import annotations

from typing import Any

from django.core.checks import CheckMessage, Error

from ..conf import faults_of_settings


def check_settings(**_kwargs: Any) -> list[CheckMessage]:
    """Report a setting that is no dict (E001), unknown names (E002) and wrong values (E003)."""
    return [Error(fault.message, hint=fault.remedy, id=fault.id) for fault in faults_of_settings()]

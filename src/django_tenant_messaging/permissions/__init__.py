"""Who may do what."""

from __future__ import annotations

from .models import may_view
from .tenants import Refusal, belongs_to_tenant, may_use_tenant, user_let_in, why_refused, why_request_refused

__all__ = [
    "Refusal",
    "belongs_to_tenant",
    "may_use_tenant",
    "may_view",
    "user_let_in",
    "why_refused",
    "why_request_refused",
]

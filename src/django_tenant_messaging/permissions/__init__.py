"""Who may do what."""

from __future__ import annotations

from .tenants import may_use_tenant, signed_in_here

__all__ = ["may_use_tenant", "signed_in_here"]

"""Who may do what."""

from __future__ import annotations

from .tenants import belongs_to_tenant, may_use_tenant, signed_in_here

__all__ = ["belongs_to_tenant", "may_use_tenant", "signed_in_here"]

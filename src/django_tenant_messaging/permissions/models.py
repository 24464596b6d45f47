from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django.contrib.auth import get_permission_codename

if TYPE_CHECKING:
    from django.db.models import Model


def may_view(user: Any, model: type[Model]) -> bool:
    """Say whether Django's permissions let a user view a model's rows; as in the admin, who may change them may."""
    options = model._meta
    names = (f"{options.app_label}.{get_permission_codename(kind, options)}" for kind in ("view", "change"))
    return any(user.has_perm(name) for name in names)

"""One account works for several companies; the accounts are in a schema of their own, named by the user's table."""

from __future__ import annotations

from config.shared_users import *  # noqa: F403
from config.shared_users import SHARED_APPS

SHARED_APPS = [*SHARED_APPS, "elsewhere"]
INSTALLED_APPS = list(SHARED_APPS)
AUTH_USER_MODEL = "elsewhere.Person"

"""The example project, made quick for tests; the harness fills in the worker's own database."""

from __future__ import annotations

from example.settings import *  # noqa: F403

SECRET_KEY = "for tests"
DEBUG = False
ALLOWED_HOSTS = [".localhost"]
MIDDLEWARE = [*MIDDLEWARE, "tests.harness.policy.StrictPolicy"]  # noqa: F405
PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]

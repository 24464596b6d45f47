"""PostgreSQL and Redis for the demo and the tests, without anything installed on the machine."""

from __future__ import annotations

from example.services.postgres import EmbeddedPostgres, postgres_url, running_url, temporary_folder
from example.services.process import ServiceError
from example.services.redis import LocalRedis, redis_url

__all__ = [
    "EmbeddedPostgres",
    "LocalRedis",
    "ServiceError",
    "postgres_url",
    "redis_url",
    "running_url",
    "temporary_folder",
]

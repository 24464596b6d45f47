"""What the running code requires of a schema: migrations to be recorded, tables and columns to be there."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from django.apps import apps
from django.conf import settings
from django.db import router
from django.db.migrations.loader import MigrationLoader
from django_tenants.routers import TenantSyncRouter

from ..database import TENANT_DATABASE, apps_of_kind, is_among

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from django.db.migrations.state import StateApps

Key = tuple[str, str]
"""A migration: its app's label and its name."""


@dataclass(frozen=True, slots=True)
class Requirements:
    """What the schemas of one kind must hold.

    ``migrations`` maps each migration on disk to those that it replaces. ``columns`` are pairs of table and column.
    """

    labels: frozenset[str]
    migrations: Mapping[Key, tuple[Key, ...]]
    columns: tuple[tuple[str, str], ...]

    def missing(self, recorded: Collection[Key]) -> list[Key]:
        """Return the migrations that ``migrate`` would apply.

        As in Django, a squashed migration counts when all that it replaces is recorded, and what it replaces counts
        when the squashed one is. Of a squashed migration and its parts those are named that would run.
        """
        missing = [key for key in self.migrations if not self._is_applied(key, recorded)]
        return [key for key in missing if self._would_run(key, recorded)]

    def unknown(self, recorded: Collection[Key]) -> list[Key]:
        """Return what is recorded for these apps, but neither on disk nor replaced by what is."""
        replaced = {part for parts in self.migrations.values() for part in parts}
        return sorted(
            key for key in recorded if key[0] in self.labels and key not in self.migrations and key not in replaced
        )

    def _is_applied(self, key: Key, recorded: Collection[Key]) -> bool:
        return self._is_recorded(key, recorded) or any(
            self._is_applied(squashed, recorded) for squashed, parts in self.migrations.items() if key in parts
        )

    def _is_recorded(self, key: Key, recorded: Collection[Key]) -> bool:
        parts = self.migrations.get(key, ())
        return key in recorded or (bool(parts) and all(self._is_recorded(part, recorded) for part in parts))

    def _would_run(self, key: Key, recorded: Collection[Key]) -> bool:
        parts = self.migrations[key]
        if any(self._is_recorded(part, recorded) for part in parts):
            # Begun in its parts, it is finished in its parts.
            return not any(part in self.migrations for part in parts)
        return not any(
            key in parts and not any(self._is_recorded(part, recorded) for part in parts)
            for parts in self.migrations.values()
        )


_lock = threading.Lock()
_known: dict[tuple[Any, ...], Requirements] = {}


def requirements_of(kind: str) -> Requirements:
    """Return what schemas of a tenant type must hold; worked out once for each process and set of apps.

    The tables are those of the migrations' own state, not of today's models: a model that was changed without
    ``makemigrations`` doesn't make every tenant unready. Raises what a broken migration module raises.
    """
    entries = apps_of_kind(kind)
    key = entries, tuple(sorted(settings.MIGRATION_MODULES.items())), settings.AUTH_USER_MODEL
    with _lock:
        if key not in _known:
            _known[key] = _work_out(entries)
        return _known[key]


def state_models(labels: Collection[str]) -> list[Any]:
    """Return the models of these apps, as all migrations together leave them, that have tables in a schema."""
    state: StateApps = MigrationLoader(None, ignore_no_migrations=True).project_state().apps
    models: list[Any] = state.get_models(include_auto_created=True)
    return [model for model in models if model._meta.app_label in labels and _has_table(model)]


def _work_out(entries: frozenset[str]) -> Requirements:
    labels = frozenset(app.label for app in apps.get_app_configs() if is_among(app, entries))
    disk = MigrationLoader(None, ignore_no_migrations=True).disk_migrations
    migrations = {key: tuple(migration.replaces) for key, migration in disk.items() if key[0] in labels}
    columns = [
        (model._meta.db_table, field.column)
        for model in state_models(labels)
        for field in model._meta.local_concrete_fields
        if field.column
    ]
    return Requirements(labels, migrations, tuple(columns))


def _has_table(model: Any) -> bool:
    options = model._meta
    # A quote in the name is the trick by which some hosts put a table into another schema.
    return (
        options.managed
        and not options.proxy
        and not options.swapped
        and '"' not in options.db_table
        and _is_here(model)
    )


def _is_here(model: Any) -> bool:
    """Ask the host's routers whether the model belongs in this database; which apps a schema has was decided before."""
    options = model._meta
    for candidate in router.routers:
        if isinstance(candidate, TenantSyncRouter) or not hasattr(candidate, "allow_migrate"):
            continue
        allowed = candidate.allow_migrate(
            TENANT_DATABASE, options.app_label, model_name=options.model_name, model=model
        )
        if allowed is not None:
            return bool(allowed)
    return True

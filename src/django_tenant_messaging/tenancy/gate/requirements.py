"""What the running code requires of a schema: migrations to be recorded, tables and columns to be there."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from django.apps import apps
from django.conf import settings
from django.db import connections, router
from django.db.migrations.loader import MigrationLoader
from django_tenants.routers import TenantSyncRouter
from django_tenants.utils import get_tenant_types, has_multi_type_tenants

from ...conf import messaging_settings
from ..context import public_schema
from ..database import TENANT_DATABASE, apps_of_kind, is_among
from ..identifiers import is_elsewhere, stored_column, stored_schema, stored_table
from . import structure as kept
from .structure import Flaw, Structure, Users

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping

    from django.db.migrations import Migration
    from django.db.migrations.state import StateApps

APP_LABEL = "django_tenant_messaging"
Key = tuple[str, str]
"""A migration: its app's label and its name."""


@dataclass(frozen=True, slots=True)
class Requirements:
    """What the schemas of one kind must hold.

    ``migrations`` maps each migration on disk, in the order in which they run, to those that it replaces. ``columns``
    are pairs of table and column, ``owners`` the apps of the tables; ``structure`` is that of this app's own tables,
    ``None`` where it has none.
    """

    labels: frozenset[str]
    migrations: Mapping[Key, tuple[Key, ...]]
    columns: tuple[tuple[str, str], ...]
    owners: Mapping[str, str] = field(default_factory=dict)
    structure: Structure | None = None

    def owner(self, relation: str) -> str:
        """Return the app of a table, or of a column as ``table.column``."""
        # A table's name may hold a dot as well.
        return self.owners.get(relation) or self.owners[relation.rpartition(".")[0]]

    def is_required(self, label: str) -> bool:
        """Say whether a tenant is refused for what this app lacks: see ``REQUIRED_APPS``."""
        chosen = messaging_settings.REQUIRED_APPS
        return chosen is None or label == APP_LABEL or label in chosen

    def flaws(self, tables: Mapping[str, tuple[Flaw, ...]], *, is_ahead: bool) -> list[Flaw]:
        """Return what isn't as the migrations make it in this app's tables, given what was found of those there are.

        Of a schema that a newer release has migrated, only what isn't there: that release may have changed the rest.
        """
        if self.structure is None:
            return []
        gone = [Flaw(table, "relation", table, table) for table in self.structure.tables if table not in tables]
        flaws = [*gone, *(flaw for found in tables.values() for flaw in found)]
        return [flaw for flaw in flaws if flaw.part == "relation" or not is_ahead]

    def missing(self, recorded: Collection[Key]) -> list[Key]:
        """Return the migrations that ``migrate`` would apply, in that order.

        As in Django, a squashed migration counts when all that it replaces is recorded; one whose parts are recorded
        only in part is finished by those. Two cases differ: one that is itself recorded, and none of its parts, isn't
        missing, though Django might run it again; and one that was begun by parts that are no longer on disk is, though
        Django might pass over it in silence.
        """
        applied, unused = set(recorded), set[Key]()
        for squashed, parts in self.migrations.items():
            if not parts:
                continue
            left = [part for part in self._originals(squashed) if part not in recorded]
            is_begun = len(left) < len(self._originals(squashed))
            if not left:
                applied.add(squashed)
            elif is_begun:
                applied.discard(squashed)
            if left and is_begun:
                unused.update([squashed] if all(part in self.migrations for part in left) else [])
            else:
                unused.update(parts)
        return [key for key in self.migrations if key not in applied and key not in unused]

    def unknown(self, recorded: Collection[Key]) -> list[Key]:
        """Return what is recorded for these apps, but neither on disk nor replaced by what is."""
        replaced = {part for parts in self.migrations.values() for part in parts}
        return sorted(
            key for key in recorded if key[0] in self.labels and key not in self.migrations and key not in replaced
        )

    def _originals(self, key: Key) -> list[Key]:
        """Resolve a squashed migration to the unsquashed ones that it replaces, those of squashed parts included."""
        parts = self.migrations.get(key)
        return [original for part in parts for original in self._originals(part)] if parts else [key]


_lock = threading.Lock()
_known: dict[tuple[Any, ...], Requirements] = {}


def requirements_of(kind: str) -> Requirements:
    """Return what schemas of a tenant type must hold; worked out once for each process and set of apps.

    The tables are those of the migrations' own state, not of today's models: a model that was changed without
    ``makemigrations`` doesn't make every tenant unready. Raises ``LookupError`` for a kind that isn't in
    ``TENANT_TYPES``, and what a broken migration module raises.
    """
    if has_multi_type_tenants() and kind not in get_tenant_types():
        raise LookupError(f"its tenant type {kind!r} is not one of TENANT_TYPES")
    entries = apps_of_kind(kind)
    key = entries, tuple(sorted(settings.MIGRATION_MODULES.items())), settings.AUTH_USER_MODEL
    with _lock:
        if key not in _known:
            _known[key] = _work_out(entries)
        return _known[key]


def state_models(labels: Collection[str]) -> list[Any]:
    """Return the models of these apps, as all migrations together leave them, that have tables in a schema.

    Apps without migrations have none: ``migrate_schemas`` makes no tables for them.
    """
    return _state_models(MigrationLoader(None, ignore_no_migrations=True), labels)


def migrations_of(label: str) -> list[Migration]:
    """Return an app's migrations, those that are replaced included."""
    disk = MigrationLoader(None, ignore_no_migrations=True).disk_migrations
    return [migration for key, migration in disk.items() if key[0] == label]


def _work_out(entries: frozenset[str]) -> Requirements:
    labels = frozenset(app.label for app in apps.get_app_configs() if is_among(app, entries))
    loader = MigrationLoader(None, ignore_no_migrations=True)
    migrations = {
        key: tuple(loader.disk_migrations[key].replaces) for key in _running_order(loader) if key[0] in labels
    }
    models = _state_models(loader, labels)
    columns = [
        (stored_table(model), stored_column(field)) for model in models for field in model._meta.local_concrete_fields
    ]
    owners = {stored_table(model): model._meta.app_label for model in models}
    return Requirements(labels, migrations, tuple(columns), owners, _structure(models, entries, loader))


def _structure(models: list[Any], entries: frozenset[str], loader: MigrationLoader) -> Structure | None:
    """Return what our tables have to be among these models; unknown where other migrations make them."""
    names = {name for app, name in loader.disk_migrations if app == APP_LABEL}
    message = next((model for model in models if model._meta.label == f"{APP_LABEL}.Message"), None)
    if message is None or APP_LABEL in settings.MIGRATION_MODULES or names != set(kept.kept_migrations()):
        return None
    key = message._meta.get_field("sender")
    user = key.related_model
    is_own = is_among(apps.get_app_config(user._meta.app_label), entries)
    return Structure(
        Users(
            schema=stored_schema(user) or ("" if is_own else public_schema()),
            table=stored_table(user),
            key=stored_column(user._meta.pk),
            key_type=key.db_type(connections[TENANT_DATABASE]),
        )
    )


def _running_order(loader: MigrationLoader) -> list[Key]:
    """Return all migrations on disk, each after those that it depends on, and after those that it replaces."""

    def with_parts(key: Key) -> Iterator[Key]:
        migration = loader.disk_migrations.get(key)
        if migration is not None:
            for part in migration.replaces:
                yield from with_parts(part)
            yield key

    plan = (key for leaf in loader.graph.leaf_nodes() for key in loader.graph.forwards_plan(leaf))
    return list(dict.fromkeys(part for key in plan for part in with_parts(key)))


def _state_models(loader: MigrationLoader, labels: Collection[str]) -> list[Any]:
    state: StateApps = loader.project_state().apps
    models: list[Any] = state.get_models(include_auto_created=True)
    wanted = loader.migrated_apps & set(labels)
    return [model for model in models if model._meta.app_label in wanted and _has_table(model)]


def _has_table(model: Any) -> bool:
    options = model._meta
    is_its_own = options.managed and not options.proxy and not options.swapped
    return is_its_own and not is_elsewhere(model) and _is_here(model)


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

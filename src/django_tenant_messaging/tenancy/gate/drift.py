"""Filling the gaps of a drifted schema: tables and columns that its migrations record, and that aren't there."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any

from django.db import connections
from django.db.migrations import RunSQL, SeparateDatabaseAndState
from django.db.models import NOT_PROVIDED

from ..context import activated
from ..database import TENANT_DATABASE, tenant_kinds
from ..identifiers import stored_column, stored_table, table_in
from .requirements import migrations_of, requirements_of, state_models
from .structure import kept_tables

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from ...types import Readiness

APP_LABEL = "django_tenant_messaging"
WITH_USER_KEYS = tuple(f"django_tenant_messaging.migrations.{name}" for name in ("0001_initial", "0003_allowances"))
"""The migrations that make constraints of which the models don't tell."""
LOCK_TIMEOUT = 10_000
"""Milliseconds that a repair waits for a table in use: what comes after it would queue behind it."""


class RepairRefusedError(Exception):
    """A repair would lose or falsify what others rely on. The message says why, and what to do instead."""


@dataclass(frozen=True, slots=True)
class Gaps:
    """What isn't there. ``tables`` are models, ``columns`` pairs of a model and its field."""

    schema_name: str
    tables: list[Any]
    columns: list[tuple[Any, Any]]
    survivors: list[Any]

    @property
    def labels(self) -> set[str]:
        """The apps concerned."""
        return {model._meta.app_label for model in [*self.tables, *(model for model, _field in self.columns)]}


def fill_gaps(readiness: Readiness, kind: str) -> list[str]:
    """Make the tables and columns that a schema lacks, all or none; return what was made, in words.

    They are made as the migrations' own state describes them, without rows. Raises :class:`RepairRefusedError` when
    that wouldn't do: where rows are left that refer to those that are gone, where a column can't be filled, or where
    an app's migrations did more than the state knows. Waits ten seconds for a table in use, then raises the database's
    error.
    """
    gaps = _gaps_of(readiness, kind)
    _require_described(gaps)
    _require_unreferred(gaps)
    _require_free_names(gaps)
    connection: Any = connections[TENANT_DATABASE]
    with activated(readiness.schema_name), connection.schema_editor() as editor:
        editor.execute(f"SET LOCAL lock_timeout = {LOCK_TIMEOUT}")
        _require_fillable(gaps, editor)
        _make_tables(gaps.tables, editor)
        for model, field in gaps.columns:
            editor.add_field(model, field)
        for model in {model for model, _field in gaps.columns}:
            _restore_indexes(model, editor)
        _constrain_user_keys(gaps, editor)
    return [
        *(f"table {stored_table(model)} was created again, empty" for model in gaps.tables),
        *(
            f"column {_column_name(model, field)} was added again, without the values it had"
            for model, field in gaps.columns
        ),
    ]


def _gaps_of(readiness: Readiness, kind: str) -> Gaps:
    absent = set(readiness.missing_relations)
    labels = requirements_of(kind).labels
    models = state_models(labels)
    tables = [model for model in models if stored_table(model) in absent]
    columns = [
        (model, field)
        for model in models
        for field in model._meta.local_concrete_fields
        if _column_name(model, field) in absent
    ]
    referring = models + (_of_tenants(labels) if readiness.is_shared else [])
    survivors = [model for model in referring if model not in tables]
    return Gaps(readiness.schema_name, tables, columns, survivors)


def _of_tenants(shared: Collection[str]) -> list[Any]:
    """Return the tenants' models that may refer to a shared table: not to one that tenants have as well."""
    labels = frozenset[str]().union(*(requirements_of(kind).labels for kind in tenant_kinds()))
    shared_alone = set(shared) - labels
    return [
        model
        for model in state_models(labels)
        if any(related._meta.app_label in shared_alone for _field, related in _references(model))
    ]


def _column_name(model: Any, field: Any) -> str:
    return f"{stored_table(model)}.{stored_column(field)}"


def _references(model: Any) -> list[tuple[Any, Any]]:
    """Return a model's foreign keys, each with the model whose table it refers to."""
    return [
        (field, field.related_model._meta.concrete_model)
        for field in model._meta.local_concrete_fields
        if field.is_relation and field.related_model is not None
    ]


def _require_described(gaps: Gaps) -> None:
    for label in sorted(gaps.labels - {APP_LABEL}):
        for migration in migrations_of(label):
            if _runs_sql(migration.operations):
                raise RepairRefusedError(
                    f"{label}.{migration.name} runs SQL of its own, so the tables of {label} may need more than its"
                    f" models tell: {_backup(gaps)}"
                )


def _runs_sql(operations: Iterable[Any]) -> bool:
    return any(
        isinstance(operation, RunSQL)
        or (isinstance(operation, SeparateDatabaseAndState) and _runs_sql(operation.database_operations))
        for operation in operations
    )


def _require_unreferred(gaps: Gaps) -> None:
    lost = {_identity(model): model for model in gaps.tables}
    for model in gaps.survivors:
        for field, related in _references(model):
            if _identity(related) in lost:
                raise RepairRefusedError(
                    f"{_column_name(model, field)} refers to rows of {stored_table(related)}, which are gone with"
                    f" their table: {_backup(gaps)}"
                )


def _require_free_names(gaps: Gaps) -> None:
    """Refuse to make a table whose indexes another one has: it may be the same under another name, with its rows."""
    for model in gaps.tables:
        table = stored_table(model)
        kept = kept_tables().get(table, {"indexes": []})
        names = [index["name"] for index in kept["indexes"] if index["kind"] != "PRIMARY KEY"]
        with connections[TENANT_DATABASE].cursor() as cursor:
            cursor.execute(
                "SELECT x.relname, t.relname FROM pg_index i JOIN pg_class x ON x.oid = i.indexrelid"
                " JOIN pg_class t ON t.oid = i.indrelid JOIN pg_namespace n ON n.oid = x.relnamespace"
                " WHERE n.nspname = %s AND x.relname = ANY(%s::name[]) ORDER BY i.indisunique DESC, 1 LIMIT 1",
                [gaps.schema_name, names],
            )
            held = cursor.fetchone()
        if held:
            raise RepairRefusedError(
                f"{table} can't be made again, as {held[1]} holds its index {held[0]}: if {held[1]} is that table under"
                " another name, rename it back; else rename the index"
            )


def _identity(model: Any) -> str:
    """Name a model: two states of the same migrations have classes of their own."""
    name: str = model._meta.label_lower
    return name


def _require_fillable(gaps: Gaps, editor: Any) -> None:
    referred = {
        _column_name(related, field.target_field) for model in gaps.survivors for field, related in _references(model)
    }
    for model, field in gaps.columns:
        name = _column_name(model, field)
        if _is_filled(field, editor) and not field.primary_key and name not in referred:
            continue
        if _has_rows(gaps.schema_name, model):
            why = "identifies its rows" if field.primary_key or name in referred else "has no default and can't be null"
            raise RepairRefusedError(
                f"{name} {why}, and its table has rows: {_backup(gaps)}{_renaming(gaps.schema_name, model)}"
            )


def _renaming(schema_name: str, model: Any) -> str:
    """Tell what else may be done where a table has columns that its model doesn't."""
    with connections[TENANT_DATABASE].cursor() as cursor:
        cursor.execute(
            "SELECT string_agg(a.attname, ', ' ORDER BY a.attnum) FROM pg_attribute a"
            " JOIN pg_class c ON c.oid = a.attrelid JOIN pg_namespace n ON n.oid = c.relnamespace"
            " WHERE n.nspname = %s AND c.relname = %s AND a.attnum > 0 AND NOT a.attisdropped"
            " AND a.attname <> ALL (%s::name[])",
            [schema_name, stored_table(model), [stored_column(field) for field in model._meta.local_concrete_fields]],
        )
        (others,) = cursor.fetchone()
    return f", or, if it was renamed (to {others}?), rename it back" if others else ""


def _is_filled(field: Any, editor: Any) -> bool:
    return (
        field.null
        or field.generated
        or field.db_default is not NOT_PROVIDED
        or editor.effective_default(field) is not None
    )


def _has_rows(schema_name: str, model: Any) -> bool:
    connection = connections[TENANT_DATABASE]
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT EXISTS (SELECT FROM {table_in(schema_name, model)})", [])
        (has_rows,) = cursor.fetchone()
        return bool(has_rows)


def _backup(gaps: Gaps) -> str:
    return f"restore schema {gaps.schema_name} from a backup"


def _make_tables(models: list[Any], editor: Any) -> None:
    made = {_identity(model) for model in models}
    for model in models:
        owner = model._meta.auto_created
        # Its owner's creation makes the table of a many-to-many field too.
        if not owner or _identity(owner) not in made:
            editor.create_model(model)


def _restore_indexes(model: Any, editor: Any) -> None:
    """Make what went with a column: indexes and constraints over several columns."""
    options = model._meta
    connection: Any = connections[TENANT_DATABASE]
    with connection.cursor() as cursor:
        there = connection.introspection.get_constraints(cursor, stored_table(model))
    for index in options.indexes:
        if index.name not in there:
            editor.add_index(model, index)
    for constraint in options.constraints:
        if constraint.name not in there:
            editor.add_constraint(model, constraint)
    unique = {tuple(found["columns"]) for found in there.values() if found["unique"]}
    kept = [fields for fields in options.unique_together if _columns(options, fields) in unique]
    editor.alter_unique_together(model, kept, options.unique_together)


def _columns(options: Any, fields: Iterable[str]) -> tuple[str, ...]:
    return tuple(stored_column(options.get_field(name)) for name in fields)


def _constrain_user_keys(gaps: Gaps, editor: Any) -> None:
    """Make the constraints of our own tables that no model describes."""
    ours = [model for model in gaps.tables if model._meta.app_label == APP_LABEL]
    made = {(model._meta.model_name, field.name) for model in ours for field in model._meta.local_concrete_fields}
    made |= {
        (model._meta.model_name, field.name) for model, field in gaps.columns if model._meta.app_label == APP_LABEL
    }
    if made:
        keys = [key for name in WITH_USER_KEYS for key in import_module(name).USER_KEYS if key[:2] in made]
        models = [*ours, *(model for model, _field in gaps.columns)]
        import_module(WITH_USER_KEYS[0]).constrain_user_keys(models[0]._meta.apps, editor, keys)

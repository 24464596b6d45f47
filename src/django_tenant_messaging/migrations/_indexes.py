"""Changes of indexes that don't lock a large table for as long as they take.

``CREATE INDEX CONCURRENTLY`` lets others write meanwhile, but it can't run in a transaction, and it waits for every
older transaction of the whole database, a backup's too. So a table with rows gets it, outside of a transaction. An
empty table doesn't: it is a new tenant's, whose creation must wait for nobody and often is inside a transaction.

A migration of these isn't atomic. When it is interrupted the next run goes on: what is there stays, what is there
unfinished is made again. Each index is looked for in the table, as by its name alone another schema's could be found.
"""

from __future__ import annotations

from typing import Any

from django.db.migrations.operations import AddIndex, AlterField, RemoveIndex

INDEXES_OF = """
SELECT name.relname, i.indisvalid,
       i.indnkeyatts = 1 AND NOT i.indisunique AND i.indpred IS NULL AND a.attname IS NOT DISTINCT FROM %s
FROM pg_index i JOIN pg_class name ON name.oid = i.indexrelid
LEFT JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = i.indkey[0]
WHERE i.indrelid = to_regclass(%s)
"""


class AddIndexBesideWrites(AddIndex):
    """Makes an index while others write."""

    def database_forwards(self, app_label: str, schema_editor: Any, _from_state: Any, to_state: Any) -> None:
        """Make it."""
        _make(self, schema_editor, to_state.apps.get_model(app_label, self.model_name), self.index)

    def database_backwards(self, app_label: str, schema_editor: Any, from_state: Any, _to_state: Any) -> None:
        """Drop it."""
        _drop(self, schema_editor, from_state.apps.get_model(app_label, self.model_name), self.index)


class RemoveIndexBesideWrites(RemoveIndex):
    """Drops an index while others write."""

    def database_forwards(self, app_label: str, schema_editor: Any, from_state: Any, _to_state: Any) -> None:
        """Drop it."""
        index = from_state.models[app_label, self.model_name_lower].get_index_by_name(self.name)
        _drop(self, schema_editor, from_state.apps.get_model(app_label, self.model_name), index)

    def database_backwards(self, app_label: str, schema_editor: Any, _from_state: Any, to_state: Any) -> None:
        """Make it again."""
        index = to_state.models[app_label, self.model_name_lower].get_index_by_name(self.name)
        _make(self, schema_editor, to_state.apps.get_model(app_label, self.model_name), index)


class AlterFieldWithoutIndex(AlterField):
    """Gives a field an equal one whose plain indexes are gone; what makes it unique stays.

    ``AlterField`` would make the field's foreign key again, and check all rows.
    """

    def database_forwards(self, app_label: str, schema_editor: Any, from_state: Any, _to_state: Any) -> None:
        """Drop the indexes."""
        model = from_state.apps.get_model(app_label, self.model_name)
        if not self.allow_migrate_model(schema_editor.connection.alias, model):
            return
        column = model._meta.get_field(self.name).column
        how = _concurrently(schema_editor, model)
        for name, (_is_valid, is_plain) in _indexes(schema_editor, model, column).items():
            if is_plain:
                schema_editor.execute(f"DROP INDEX {how}{schema_editor.quote_name(name)}")

    def database_backwards(self, app_label: str, schema_editor: Any, _from_state: Any, to_state: Any) -> None:
        """Make the indexes again."""
        model = to_state.apps.get_model(app_label, self.model_name)
        if self.allow_migrate_model(schema_editor.connection.alias, model):
            for statement in schema_editor._field_indexes_sql(model, model._meta.get_field(self.name)):
                schema_editor.execute(statement)


def _make(operation: Any, editor: Any, model: Any, index: Any) -> None:
    if not operation.allow_migrate_model(editor.connection.alias, model):
        return
    concurrently = bool(_concurrently(editor, model))
    is_valid, _is_plain = _indexes(editor, model).get(index.name, (None, False))
    if is_valid is False:
        editor.remove_index(model, index, concurrently=concurrently)
    if not is_valid:
        editor.add_index(model, index, concurrently=concurrently)


def _drop(operation: Any, editor: Any, model: Any, index: Any) -> None:
    is_asked = operation.allow_migrate_model(editor.connection.alias, model)
    if is_asked and (editor.collect_sql or index.name in _indexes(editor, model)):
        editor.remove_index(model, index, concurrently=bool(_concurrently(editor, model)))


def _concurrently(editor: Any, model: Any) -> str:
    """Return how SQL says that others may write meanwhile, or nothing where they needn't or can't."""
    if editor.collect_sql:
        return "CONCURRENTLY "
    if editor.connection.in_atomic_block:
        return ""
    with editor.connection.cursor() as cursor:
        cursor.execute(f"SELECT EXISTS (SELECT FROM {editor.quote_name(model._meta.db_table)})")
        return "CONCURRENTLY " if cursor.fetchone() == (True,) else ""


def _indexes(editor: Any, model: Any, column: str | None = None) -> dict[str, tuple[bool, bool]]:
    """Return by name of a table's indexes whether they are complete, and whether they are plain ones of a column."""
    with editor.connection.cursor() as cursor:
        cursor.execute(INDEXES_OF, [column, editor.quote_name(model._meta.db_table)])
        return {name: (is_valid, is_plain) for name, is_valid, is_plain in cursor.fetchall()}

"""No name gets into SQL but by `tenancy/identifiers.py`: looked for in the source, so that a new place is found too."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import django_tenant_messaging

if TYPE_CHECKING:
    from collections.abc import Iterator
    from collections.abc import Set as AbstractSet

ROOT = Path(django_tenant_messaging.__file__).parent
COMPOSING = "tenancy/identifiers.py"
COMPOSERS = {"quoted", "table_of", "table_in", "column_of"}
RAW = {"db_table", "db_column", "column"}
"""Attributes of models and fields that hold a name as the host wrote it."""
OTHER_COMPOSERS = {"quote_name", "quote_schema_name", "Identifier"}
MIGRATIONS = "migrations/"
"""There the names of models are composed as Django's schema editor does: by its `quote_name`, or that as `quote`."""
ALLOWED = {
    ("tenancy/gate/reading.py", "Identifier"): "psycopg composes the whole statement, which takes no parameters",
}
SQL = re.compile(
    r"\b(SELECT|INSERT INTO|UPDATE|DELETE FROM|TRUNCATE|ALTER|CREATE|DROP|LOCK TABLE|PREPARE|EXECUTE|DEALLOCATE|COPY"
    r"|FROM|JOIN|WHERE|ANALYZE|VACUUM|REINDEX|COMMENT ON|SET \w+)\b"
)
NAME_FOLLOWS = re.compile(
    r"\b(FROM|JOIN|INTO|(?<!FOR )(?<!KEY )UPDATE|TABLE|SCHEMA|ONLY|INDEX|CONCURRENTLY|EXISTS|REFERENCES|TRUNCATE"
    r"|ANALYZE|VACUUM|ON|search_path\s*(?:=|TO))\s+$"
)
NAMED_LIKE_A_NAME = re.compile(r"schema|db_table|column")
"""In a constant, ``COLUMNS``, it is text that the file itself wrote."""


def sources() -> list[str]:
    return sorted(path.relative_to(ROOT).as_posix() for path in ROOT.rglob("*.py"))


FUNCTION = ast.FunctionDef | ast.AsyncFunctionDef


def _walk_scope(scope: ast.AST) -> Iterator[ast.AST]:
    """Yield what is in a module or a function, without what is in the functions in it."""
    for child in ast.iter_child_nodes(scope):
        if not isinstance(child, FUNCTION):
            yield child
            yield from _walk_scope(child)


class Source:
    """A file, and the names in it that stand for nothing but what was composed."""

    def __init__(self, text: str, path: str = "") -> None:
        self.path = path
        self.tree = ast.parse(text)
        self.is_migration = path.startswith(MIGRATIONS)
        self._composers = COMPOSERS | ({"quote"} if self.is_migration else set())

    def _composed_names(self, scope: ast.AST, outer: AbstractSet[str] = frozenset()) -> AbstractSet[str]:
        composed, others = set[str](), set[str]()
        for node in _walk_scope(scope):
            match node:
                case ast.arg(arg=name, annotation=annotation):
                    # The type checker lets nothing else be handed over.
                    is_composed = isinstance(annotation, ast.Name) and annotation.id == "SQLName"
                    (composed if is_composed else others).add(name)
                case ast.Assign(targets=[target], value=value):
                    for name, assigned in _pairs(target, value):
                        (composed if self._is_call(assigned) else others).add(name)
                case ast.For(target=target) | ast.comprehension(target=target):
                    others |= {name.id for name in ast.walk(target) if isinstance(name, ast.Name)}
        return (outer | composed) - others

    def _is_call(self, node: ast.expr) -> bool:
        match node:
            case ast.Call(func=ast.Name(id=name)):
                return name in self._composers
            case ast.Call(func=ast.Attribute(attr="quote_name")):
                return self.is_migration
        return False

    def faults(self) -> Iterator[str]:
        """Say what is wrong, each with its line."""
        for scope in (self.tree, *(node for node in ast.walk(self.tree) if isinstance(node, FUNCTION))):
            known = self._composed_names(scope, self._composed_names(self.tree))
            for node in _walk_scope(scope):
                match node:
                    case ast.Attribute(attr=name) | ast.alias(name=name) | ast.Name(id=name):
                        is_raw = name in OTHER_COMPOSERS or (name in RAW and isinstance(node, ast.Attribute))
                        if is_raw and not self.is_migration and (self.path, name) not in ALLOWED:
                            yield f"{node.lineno}: {name} is used"
                    case ast.Call(func=ast.Name(id="getattr"), args=[_, ast.Constant(value="column" | "db_table")]):
                        yield f"{node.lineno}: getattr reads a name"
                    case ast.JoinedStr() if SQL.search(_constant_text(node)):
                        yield from self._faults_of(node, known)
                    case ast.BinOp(op=ast.Mod() | ast.Add(), left=left, right=right):
                        if any(_is_sql(part) for part in (left, right)) and _names_in(node):
                            yield f"{node.lineno}: a name is put into SQL by an operator"
                    case ast.Call(func=ast.Attribute(value=text, attr="format")) if _is_sql(text):
                        yield f"{node.lineno}: SQL is formatted"

    def _faults_of(self, text: ast.JoinedStr, known: AbstractSet[str]) -> Iterator[str]:
        before = ""
        for part, following in zip(text.values, [*text.values[1:], None], strict=True):
            if isinstance(part, ast.Constant):
                before = str(part.value)
                continue
            value = part.value if isinstance(part, ast.FormattedValue) else part
            is_composed = self._is_call(value) or (isinstance(value, ast.Name) and value.id in known)
            if not is_composed and _names_in(value):
                yield f"{value.lineno}: {ast.unparse(value)} is put into SQL as it is"
            if isinstance(following, ast.FormattedValue):
                # A word such as CONCURRENTLY, or nothing, before the name.
                continue
            if not is_composed and NAME_FOLLOWS.search(before):
                yield f"{value.lineno}: {ast.unparse(value)} stands where a name does, and isn't known to be composed"
            if before.endswith('"'):
                yield f"{value.lineno}: {ast.unparse(value)} is quoted by hand"
            before = ""


def _pairs(target: ast.expr, value: ast.expr) -> Iterator[tuple[str, ast.expr]]:
    if isinstance(target, ast.Name):
        yield target.id, value
    elif isinstance(target, ast.Tuple):
        # a, b = f(x), g(y); and a, b = (f(x) for x in y)
        each = value.elts if isinstance(value, ast.Tuple) else [getattr(value, "elt", value)] * len(target.elts)
        for one, its in zip(target.elts, each, strict=True):
            yield from _pairs(one, its)


def _constant_text(node: ast.JoinedStr) -> str:
    return " ".join(str(part.value) for part in node.values if isinstance(part, ast.Constant))


def _is_sql(node: ast.expr) -> bool:
    if isinstance(node, ast.JoinedStr):
        return bool(SQL.search(_constant_text(node)))
    return isinstance(node, ast.Constant) and isinstance(node.value, str) and bool(SQL.search(node.value))


def _names_in(node: ast.AST) -> bool:
    """Say whether an expression reads what is called like a name; what a call does with it isn't looked at."""
    if isinstance(node, ast.Call):
        return False
    name = getattr(node, "id", None) or getattr(node, "attr", None)
    if isinstance(name, str) and NAMED_LIKE_A_NAME.search(name):
        return True
    return any(_names_in(child) for child in ast.iter_child_nodes(node))


@pytest.mark.parametrize("path", [path for path in sources() if path != COMPOSING])
def test_no_name_gets_into_sql_but_composed(path: str) -> None:
    assert list(Source((ROOT / path).read_text(), path).faults()) == []


@pytest.mark.parametrize(
    "text",
    [
        'cursor.execute(f"SELECT 1 FROM {model._meta.db_table}")',
        "cursor.execute(f'SELECT 1 FROM \"{table}\"')",
        'cursor.execute(f"DROP SCHEMA {tenant.schema_name} CASCADE")',
        'name = tenant.schema_name\ncursor.execute(f"DROP SCHEMA {name} CASCADE")',
        'cursor.execute(f"DROP SCHEMA IF EXISTS {name}")',
        'cursor.execute(f"SET search_path = {name}")',
        'cursor.execute("DROP SCHEMA " + schema_name)',
        'cursor.execute("DROP SCHEMA %s" % tenant.schema_name)',
        'cursor.execute("DROP SCHEMA {}".format(name))',
        'table = table_of(model)\ntable = other\ncursor.execute(f"SELECT 1 FROM {table}")',
        'def look(table: str): cursor.execute(f"SELECT 1 FROM {table}")',
        'cursor.execute(f"SELECT {user.pk.column} FROM x")',
        'cursor.execute(f"DROP INDEX {how}{name}")',
        'column = getattr(field, "column")',
        'T = table_of(model)\ndef look(T): cursor.execute(f"SELECT 1 FROM {T}")',
        "quoted = connection.ops.quote_name",
        "from django_tenants.utils import quote_schema_name",
    ],
)
def test_a_new_place_is_found(text: str) -> None:
    assert list(Source(text).faults()) != []


@pytest.mark.parametrize(
    "text",
    [
        'cursor.execute(f"SELECT 1 FROM {table_of(model)}")',
        'table, key = table_of(model), column_of(model, "pk")\ncursor.execute(f"SELECT {key} FROM {table}")',
        'def look(table: SQLName): cursor.execute(f"SELECT 1 FROM {table}")',
        'cursor.execute(f"TRUNCATE {how}{table_of(model)}")',
        'cursor.execute(f"SELECT {number} FROM part_{number}")',
        'cursor.execute("SELECT 1 WHERE nspname = %s", [schema_name])',
        'logger.info("[%s] Removed from the room.", schema_name)',
    ],
)
def test_what_is_composed_or_a_parameter_is_right(text: str) -> None:
    assert list(Source(text).faults()) == []

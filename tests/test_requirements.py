"""What the code requires of a schema, compared with what Django itself would do."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from django.apps import apps
from django.db import connection, migrations
from django.db.migrations.exceptions import InconsistentMigrationHistory, NodeNotFoundError
from django.db.migrations.executor import MigrationExecutor
from django.db.migrations.loader import MigrationLoader
from django.db.migrations.recorder import MigrationRecorder
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from django_tenant_messaging.tenancy.gate.requirements import Requirements, requirements_of, state_models

if TYPE_CHECKING:
    from collections.abc import Iterable

Key = tuple[str, str]
Graph = dict[Key, migrations.Migration]


def migration(app: str, name: str, dependencies: list[Key], replaces: list[Key]) -> migrations.Migration:
    described = {"dependencies": dependencies, "replaces": replaces}
    made: migrations.Migration = type("Migration", (migrations.Migration,), described)(name, app)
    return made


def graph(**described: tuple[str, str]) -> Graph:
    """Migrations by `app_name="dependencies", "replaces"`, each a list of such names."""

    def keys(names: str) -> list[Key]:
        return [(name[0], name) for name in names.split()]

    made: Graph = {}
    for name, (dependencies, replaces) in described.items():
        made[name[0], name] = migration(name[0], name, keys(dependencies), keys(replaces))
    return made


PLAIN = graph(a1=("", ""), a2=("a1", ""), a3=("a2", ""))
SQUASHED = graph(a1=("", ""), a2=("a1", ""), a12=("", "a1 a2"), a3=("a2", ""))
SQUASHED_ALONE = graph(a12=("", "a1 a2"), a3=("a12", ""))
SQUASHED_WHOLE = graph(a1=("", ""), a2=("a1", ""), a12=("", "a1 a2"))
TWO_SQUASHED = graph(
    a1=("", ""), a2=("a1", ""), a12=("", "a1 a2"), a3=("a2", ""), a4=("a3", ""), a34=("a12", "a3 a4"), a5=("a34", "")
)
ACROSS = graph(
    a1=("", ""),
    b1=("a1", ""),
    a2=("a1 b1", ""),
    b2=("b1", ""),
    b12=("a1", "b1 b2"),
    a3=("a2 b2", ""),
    b3=("b12 a2", ""),
)
GRAPHS = [PLAIN, SQUASHED, SQUASHED_WHOLE, TWO_SQUASHED, ACROSS]


def required(disk: Graph, labels: Iterable[str] = "ab") -> Requirements:
    replaced = {key: tuple(migration.replaces) for key, migration in disk.items()}
    return Requirements(frozenset(labels), replaced, ())


def missing(disk: Graph, recorded: str) -> list[str]:
    return [name for _app, name in required(disk).missing({(name[0], name) for name in recorded.split()})]


class Oracle:
    """Django, with migrations and records that are in memory."""

    def __init__(self, disk: Graph, recorded: set[Key], patch: pytest.MonkeyPatch) -> None:
        def load_disk(loader: Any) -> None:
            loader.disk_migrations = dict(disk)
            loader.unmigrated_apps, loader.migrated_apps = set(), {"a", "b"}

        patch.setattr(MigrationLoader, "load_disk", load_disk)
        patch.setattr(MigrationRecorder, "applied_migrations", lambda _self: dict.fromkeys(recorded))
        self.executor = MigrationExecutor(connection)

    def plan(self) -> set[Key]:
        """What `migrate` would run."""
        loader = self.executor.loader
        loader.check_consistent_history(connection)
        steps = self.executor.migration_plan(loader.graph.leaf_nodes())
        return {(migration.app_label, migration.name) for migration, _backwards in steps}

    def unapplied(self) -> set[Key]:
        """What isn't applied, also where `migrate` doesn't look: behind a migration that is."""
        loader = self.executor.loader
        return set(loader.graph.nodes) - set(loader.applied_migrations)


@st.composite
def situations(draw: st.DrawFn) -> tuple[Graph, set[Key]]:
    disk = draw(st.sampled_from(GRAPHS))
    known = sorted({*disk, *(part for migration in disk.values() for part in migration.replaces)})
    return disk, draw(st.sets(st.sampled_from([*known, ("a", "a9")])))


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(situations())
def test_missing_is_what_django_would_run(situation: tuple[Graph, set[Key]]) -> None:
    disk, recorded = situation
    found = required(disk).missing(recorded)
    with pytest.MonkeyPatch.context() as patch:
        try:
            oracle = Oracle(disk, recorded, patch)
            planned, unapplied = oracle.plan(), oracle.unapplied()
        except (InconsistentMigrationHistory, NodeNotFoundError):
            # Django refuses to migrate this; then it must not be served either.
            assert found
            return
    # What is itself recorded, Django may want to run again.
    assert set(found) == unapplied - recorded
    assert planned - recorded <= set(found)
    assert len(found) == len(set(found))


@pytest.mark.parametrize(
    ("disk", "recorded", "expected"),
    [
        (PLAIN, "", "a1 a2 a3"),
        (PLAIN, "a1", "a2 a3"),
        (PLAIN, "a1 a2 a3", ""),
        (SQUASHED, "", "a12 a3"),
        (SQUASHED, "a1", "a2 a3"),
        (SQUASHED, "a1 a2", "a3"),
        (SQUASHED, "a1 a2 a3", ""),
        (SQUASHED, "a1 a2 a12 a3", ""),
        (SQUASHED, "a12", "a3"),
        (SQUASHED, "a12 a3", ""),
        (SQUASHED_ALONE, "a1 a2", "a3"),
        (SQUASHED_ALONE, "a1 a2 a3", ""),
        # Begun by parts that are gone: neither can be finished.
        (SQUASHED_ALONE, "a1 a3", "a12"),
        (SQUASHED_ALONE, "", "a12 a3"),
        (TWO_SQUASHED, "a1 a2 a3", "a4 a5"),
        (TWO_SQUASHED, "a1", "a2 a34 a5"),
    ],
)
def test_missing_of_squashed_migrations(disk: Graph, recorded: str, expected: str) -> None:
    assert missing(disk, recorded) == expected.split()


def test_a_squashed_migration_may_replace_squashed_ones() -> None:
    disk = graph(a1=("", ""), a2=("a1", ""), a12=("", "a1 a2"), a3=("a12", ""), a123=("", "a12 a3"))
    assert missing(disk, "") == ["a123"]
    assert missing(disk, "a1 a2 a3") == []
    assert missing(disk, "a1 a2") == ["a3"]
    assert missing(disk, "a1") == ["a2", "a3"]


def test_unknown_is_neither_on_disk_nor_replaced_nor_of_another_app() -> None:
    recorded = {("a", "a1"), ("a", "a12"), ("a", "a9"), ("c", "c1")}
    assert required(SQUASHED_ALONE).unknown(recorded) == [("a", "a9")]


def test_an_app_that_moved_to_another_name_counts_by_its_replaced_records() -> None:
    moved = migration("new", "0001", [], [("old", "0001")])
    assert required({("new", "0001"): moved}, ["new"]).missing({("old", "0001")}) == []


def test_migrations_are_named_in_the_order_in_which_they_run() -> None:
    order = list(requirements_of("").migrations)
    for key, migration in MigrationLoader(None).disk_migrations.items():
        for dependency in migration.dependencies:
            if key in order and dependency in order:
                assert order.index(dependency) < order.index(key)


def test_tenants_and_the_shared_schema_require_their_own_apps() -> None:
    tenant, shared = requirements_of(""), requirements_of("public")
    assert "django_tenant_messaging" in tenant.labels
    assert "django_tenant_messaging" not in shared.labels
    assert ("customers_customer", "schema_name") in shared.columns
    assert ("customers_customer", "schema_name") not in tenant.columns
    assert ("auth_user_groups", "user_id") in tenant.columns


def test_apps_without_migrations_require_nothing(settings: Any) -> None:
    assert {model._meta.app_label for model in state_models(["sessions", "auth"])} == {"auth", "sessions"}
    settings.MIGRATION_MODULES = {"sessions": None}
    assert apps.get_model("sessions", "Session")
    assert {model._meta.app_label for model in state_models(["sessions", "auth"])} == {"auth"}


def test_a_host_may_keep_models_out_of_this_database(settings: Any) -> None:
    settings.DATABASE_ROUTERS = [*settings.DATABASE_ROUTERS, "tests.test_requirements.NoSessionsHere"]
    assert state_models(["sessions"]) == []


class NoSessionsHere:
    def allow_migrate(self, _db: str, app_label: str, **_hints: Any) -> bool | None:
        return False if app_label == "sessions" else None


def test_an_unknown_tenant_type_is_no_requirement_at_all(settings: Any) -> None:
    settings.HAS_MULTI_TYPE_TENANTS = True
    settings.TENANT_TYPES = {"public": {"APPS": []}, "full": {"APPS": ["django.contrib.auth"]}}
    assert requirements_of("full").labels == {"auth"}
    with pytest.raises(LookupError, match="'other' is not one of TENANT_TYPES"):
        requirements_of("other")

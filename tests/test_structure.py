"""What makes tables safe is looked at as well: constraints, indexes, types, triggers."""

from __future__ import annotations

import json
import threading
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from django.core.checks import run_checks
from django.db import connection, transaction

from django_tenant_messaging.tenancy import readiness_of
from django_tenant_messaging.tenancy.gate import inspect_schema, inspect_schemas, schema_kinds, structure, verdicts
from django_tenant_messaging.tenancy.gate.describing import to_keep
from django_tenant_messaging.tenancy.gate.repair import repair_schema
from django_tenant_messaging.tenancy.gate.requirements import Requirements, requirements_of
from django_tenant_messaging.tenancy.gate.structure import KEPT
from django_tenant_messaging.types import SchemaState
from tests.harness.commands import run_command
from tests.harness.queries import exactly, queries
from tests.harness.spare import execute
from tests.harness.tenants import know_structures

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.harness.clock import Clock
    from tests.harness.spare import OwnMigrations
    from tests.harness.tenants import Tenant

OURS = "django_tenant_messaging_"
MESSAGE = f"acme.{OURS}message"
INVALID = "UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'acme.{}'::regclass"
RULE = (
    "ALTER TABLE {table} DROP CONSTRAINT {name}",
    (
        "ALTER TABLE {table} ADD CONSTRAINT {name} FOREIGN KEY ({column}) REFERENCES {users} ON DELETE {rule}"
        " DEFERRABLE INITIALLY DEFERRED"
    ),
)


def user_key(**changed: str) -> tuple[str, ...]:
    names = {
        "table": MESSAGE,
        "name": "messaging_message_sender_id_fk",
        "column": "sender_id",
        "users": "acme.auth_user",
        "rule": "SET NULL",
    } | changed
    return tuple(statement.format(**names) for statement in RULE)


BROKEN: dict[str, tuple[tuple[str, ...], str]] = {
    "a unique constraint": (
        (f"ALTER TABLE {MESSAGE} DROP CONSTRAINT messaging_message_client_id",),
        f"{OURS}message: unique constraint messaging_message_client_id missing",
    ),
    "an index that isn't unique in place of the constraint": (
        (
            f"ALTER TABLE {MESSAGE} DROP CONSTRAINT messaging_message_client_id",
            f"CREATE INDEX messaging_message_client_id ON {MESSAGE} (sender_id, client_id)",
        ),
        f"{OURS}message: unique constraint messaging_message_client_id missing",
    ),
    "a deferred unique constraint": (
        (
            f"ALTER TABLE {MESSAGE} DROP CONSTRAINT messaging_message_client_id",
            f"ALTER TABLE {MESSAGE} ADD CONSTRAINT deferred UNIQUE (sender_id, client_id) DEFERRABLE",
        ),
        f"{OURS}message: unique constraint messaging_message_client_id deferrable: it doesn't refuse at once",
    ),
    "a primary key": (
        (f"ALTER TABLE acme.{OURS}mention DROP CONSTRAINT {OURS}mention_pkey",),
        f"{OURS}mention: primary key {OURS}mention_pkey missing",
    ),
    "an index": (
        ("DROP INDEX acme.messaging_message_reply",),
        f"{OURS}message: index messaging_message_reply missing",
    ),
    "an index over other rows": (
        (
            "DROP INDEX acme.messaging_message_reply",
            f"CREATE INDEX messaging_message_reply ON {MESSAGE} (reply_to_id) WHERE reply_to_id > 7",
        ),
        f"{OURS}message: index messaging_message_reply missing",
    ),
    "an index in another order": (
        (
            "DROP INDEX acme.messaging_message_changed",
            f"CREATE INDEX messaging_message_changed ON {MESSAGE} (changed_seq, room_id)",
        ),
        f"{OURS}message: index messaging_message_changed missing",
    ),
    "an invalid index": (
        (INVALID.format("messaging_message_reply"),),
        f"{OURS}message: index messaging_message_reply invalid: it wasn't built to the end",
    ),
    "an invalid unique index": (
        (INVALID.format("messaging_message_seq"),),
        f"{OURS}message: unique constraint messaging_message_seq invalid: it wasn't built to the end",
    ),
    "a foreign key": (
        (f"ALTER TABLE {MESSAGE} DROP CONSTRAINT messaging_message_sender_id_fk",),
        f"{OURS}message: foreign key (sender_id) missing",
    ),
    "a foreign key that isn't valid": (
        (
            f"ALTER TABLE {MESSAGE} DROP CONSTRAINT messaging_message_sender_id_fk",
            user_key()[1] + " NOT VALID",
        ),
        f"{OURS}message: foreign key (sender_id) not valid: rows may break it",
    ),
    "what happens when a user is deleted": (
        user_key(rule="CASCADE"),
        (
            f"{OURS}message: foreign key (sender_id) ON DELETE CASCADE DEFERRABLE INITIALLY DEFERRED"
            " instead of ON DELETE SET NULL DEFERRABLE INITIALLY DEFERRED"
        ),
    ),
    "a second rule beside the right one": (
        (user_key(name="second", rule="CASCADE")[1],),
        (
            f"{OURS}message: foreign key (sender_id) ON DELETE CASCADE DEFERRABLE INITIALLY DEFERRED"
            " instead of ON DELETE SET NULL DEFERRABLE INITIALLY DEFERRED"
        ),
    ),
    "a foreign key to another tenant's users": (
        user_key(users="globex.auth_user"),
        f"{OURS}message: foreign key (sender_id) refers to globex.auth_user.id instead of auth_user.id",
    ),
    "the triggers of foreign keys": (
        (f"ALTER TABLE acme.{OURS}mention DISABLE TRIGGER ALL",),
        f"{OURS}mention: foreign key (message_id) disabled by its triggers",
    ),
    "the triggers of the users' table": (
        ("ALTER TABLE acme.auth_user DISABLE TRIGGER ALL",),
        f"{OURS}message: foreign key (sender_id) disabled by its triggers",
    ),
    "a check": (
        (f"ALTER TABLE acme.{OURS}chatroom DROP CONSTRAINT messaging_room_direct_key",),
        f"{OURS}chatroom: check constraint messaging_room_direct_key missing",
    ),
    "another check of the same name": (
        (
            f"ALTER TABLE acme.{OURS}chatroom DROP CONSTRAINT messaging_room_direct_key",
            f"ALTER TABLE acme.{OURS}chatroom ADD CONSTRAINT messaging_room_direct_key CHECK (kind <> '')",
        ),
        f"{OURS}chatroom: check constraint messaging_room_direct_key missing",
    ),
    "a column's type": (
        (f"ALTER TABLE {MESSAGE} ALTER COLUMN content TYPE varchar(10)",),
        f"{OURS}message.content: type character varying(10) instead of text",
    ),
    "a column that is too short": (
        (f"ALTER TABLE acme.{OURS}chatroom ALTER COLUMN name TYPE varchar(119)",),
        f"{OURS}chatroom.name: type character varying(119) instead of character varying(120)",
    ),
    "the type of a key to users": (
        (f"ALTER TABLE {MESSAGE} ALTER COLUMN sender_id TYPE bigint",),
        f"{OURS}message.sender_id: type bigint instead of integer",
    ),
    "a column that may be null": (
        (f"ALTER TABLE {MESSAGE} ALTER COLUMN seq DROP NOT NULL",),
        f"{OURS}message.seq: may be null",
    ),
    "a column that must not be null": (
        (f"ALTER TABLE {MESSAGE} ALTER COLUMN receiver_id SET NOT NULL",),
        f"{OURS}message.receiver_id: must not be null",
    ),
    "an identity": (
        (f"ALTER TABLE {MESSAGE} ALTER COLUMN id DROP IDENTITY",),
        f"{OURS}message.id: not an identity column as it should be",
    ),
    "a collation that folds case": (
        (
            # As one that folds case, which not every build of PostgreSQL can make.
            "CREATE COLLATION acme.folding (locale = 'C')",
            "UPDATE pg_collation SET collisdeterministic = false WHERE collname = 'folding'",
            f"ALTER TABLE acme.{OURS}chatroom ALTER COLUMN direct_key TYPE varchar(600) COLLATE acme.folding",
        ),
        f"{OURS}chatroom.direct_key: a collation that takes different texts for equal",
    ),
    "a table that isn't logged": (
        (f"ALTER TABLE acme.{OURS}messagerevision SET UNLOGGED",),
        f"{OURS}messagerevision: unlogged, so that a crash empties it",
    ),
    "another tenant's rows": (
        (f"ALTER TABLE globex.{OURS}message INHERIT {MESSAGE}",),
        f"{OURS}message: shows the rows of globex.{OURS}message, which inherits from it",
    ),
    "rows that another table shows": (
        ("CREATE TABLE acme.parent (id bigint NOT NULL)", f"ALTER TABLE {MESSAGE} INHERIT acme.parent"),
        f"{OURS}message: inherits from acme.parent, which shows its rows",
    ),
    "rules": (
        (f"CREATE RULE lost AS ON INSERT TO {MESSAGE} DO INSTEAD NOTHING",),
        f"{OURS}message: rule lost rewrites its statements",
    ),
    "row security": (
        (f"ALTER TABLE {MESSAGE} ENABLE ROW LEVEL SECURITY",),
        f"{OURS}message: row security is enabled, which hides rows",
    ),
    "forced row security": (
        (f"ALTER TABLE {MESSAGE} FORCE ROW LEVEL SECURITY",),
        f"{OURS}message: row security is forced on its owner",
    ),
    "a column of others that nobody fills": (
        (
            f"ALTER TABLE {MESSAGE} ADD COLUMN later text NOT NULL DEFAULT ''",
            f"ALTER TABLE {MESSAGE} ALTER COLUMN later DROP DEFAULT",
        ),
        f"{OURS}message.later: must not be null and has no default, so that no row can be added",
    ),
    "a view": (
        (
            f"ALTER TABLE acme.{OURS}mention RENAME TO put_aside",
            f"CREATE VIEW acme.{OURS}mention AS SELECT * FROM acme.put_aside",
        ),
        f"{OURS}mention: a view instead of a table",
    ),
    "a partitioned table": (
        (
            f"ALTER TABLE acme.{OURS}mention RENAME TO put_aside",
            f"CREATE TABLE acme.{OURS}mention (LIKE acme.put_aside) PARTITION BY RANGE (id)",
        ),
        f"{OURS}mention: a partitioned table instead of a table",
    ),
}


@pytest.fixture
def breaking(tenants: tuple[Tenant, Tenant]) -> Iterator[None]:
    """What the test does to acme is undone."""
    with transaction.atomic():
        yield
        transaction.set_rollback(True)


@pytest.mark.parametrize("what", BROKEN)
def test_what_makes_tables_safe_is_looked_at(what: str, acme: Tenant, globex: Tenant, breaking: None) -> None:
    statements, expected = BROKEN[what]
    execute(*statements)
    found = readiness_of("acme")
    assert found.state is SchemaState.DRIFTED
    assert expected in found.differences, found.differences
    assert found.apps == ("django_tenant_messaging",)
    assert found.missing_relations == ()
    if what == "another tenant's rows":
        # It shows its rows to the other one, and isn't as it should be either.
        assert readiness_of("globex").differences == (f"{OURS}message: inherits from {MESSAGE}, which shows its rows",)
        return
    assert readiness_of("globex").state is SchemaState.OK
    assert acme.client().get("/accounts/login/").status_code == 503
    assert globex.client().get("/accounts/login/").status_code == 200


def test_a_renamed_column_is_missing(acme: Tenant, breaking: None) -> None:
    execute(f"ALTER TABLE {MESSAGE} RENAME COLUMN client_id TO other_id")
    found = inspect_schema("acme", "")
    assert found.missing_relations == (f"{OURS}message.client_id",)
    assert found.differences == (
        f"{OURS}message.other_id: must not be null and has no default, so that no row can be added",
        f"{OURS}message: unique constraint messaging_message_client_id missing",
    )
    assert found.reason == (
        f"recorded as migrated, but not there: {OURS}message.client_id;"
        f" not as the migrations make it: {'; '.join(found.differences)}"
    )


@pytest.mark.parametrize(
    "statement",
    [
        f"ALTER TABLE {MESSAGE} ADD COLUMN later text NOT NULL DEFAULT ''",
        (
            f"ALTER TABLE {MESSAGE} ADD COLUMN later text NOT NULL DEFAULT '';"
            f"ALTER TABLE {MESSAGE} ALTER COLUMN later DROP DEFAULT;"
            "CREATE FUNCTION acme.fill() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN NEW.later = 1; RETURN NEW; END';"
            f"CREATE TRIGGER fill BEFORE INSERT ON {MESSAGE} FOR EACH ROW EXECUTE FUNCTION acme.fill()"
        ),
        "CREATE TABLE acme.parent (id int); ALTER TABLE acme.parent ENABLE ROW LEVEL SECURITY",
        f"CREATE INDEX later ON {MESSAGE} (timestamp)",
        f"ALTER TABLE {MESSAGE} ADD CONSTRAINT later CHECK (seq > 0) NOT VALID",
        f"ALTER TABLE {MESSAGE} ALTER COLUMN is_read SET DEFAULT false",
        f"ALTER TABLE {MESSAGE} SET (fillfactor = 80)",
        "ALTER INDEX acme.messaging_message_reply SET (fillfactor = 80)",
        "ALTER INDEX acme.messaging_message_reply RENAME TO other",
        f"ALTER TABLE {MESSAGE} RENAME CONSTRAINT messaging_message_client_id TO other",
        f"ALTER TABLE {MESSAGE} ALTER COLUMN content SET STATISTICS 1000",
        f"ALTER TABLE acme.{OURS}chatroom ALTER COLUMN name TYPE varchar(200)",
        f"ALTER TABLE acme.{OURS}chatroom ALTER COLUMN name TYPE text",
        (
            f"ALTER TABLE {MESSAGE} DROP COLUMN seq CASCADE, ADD COLUMN seq bigint NOT NULL,"
            " ADD CONSTRAINT messaging_message_seq UNIQUE (room_id, seq)"
        ),
    ],
)
def test_what_is_more_or_called_otherwise_is_no_difference(statement: str, acme: Tenant, breaking: None) -> None:
    execute(statement)
    if "DROP COLUMN seq" in statement:
        execute(
            f"CREATE INDEX again ON {MESSAGE} (room_id, receiver_id, seq) WHERE NOT is_read AND receiver_id IS NOT NULL"
        )
    assert inspect_schema("acme", "").differences == ()


def test_what_is_expected_is_what_the_migrations_make(acme: Tenant) -> None:
    """Else run `make structure`, and commit what it writes."""
    assert to_keep("acme") == json.loads(KEPT.read_text())


def test_a_structure_that_is_known_takes_one_query(acme: Tenant) -> None:
    inspect_schema("acme", "")
    ours = requirements_of("").structure
    assert ours is not None
    with exactly(1):
        assert inspect_schema("globex", "").is_ready
    with transaction.atomic():
        execute(*BROKEN["an index"][0])
        ours.judged.clear()
        # Those that are alike are described once, and the table that differs besides.
        found = {one.schema_name: one.state.value for one in inspect_schemas(schema_kinds())}
        assert found == {"public": "ok", "acme": "drifted", "globex": "ok"}
        assert len(ours.judged) == len(ours.tables) + 1
        with queries() as made:
            assert not inspect_schema("acme", "").is_ready
        assert len([one for one in made if "WITH" in one]) == 1
        transaction.set_rollback(True)


def test_a_memory_that_is_full_forgets_nothing_that_is_being_judged(acme: Tenant, monkeypatch: Any) -> None:
    """The look itself makes it forget the tables of globex, which it knew, when it learns of the one of acme."""
    know_structures()
    monkeypatch.setattr(structure, "MOST_JUDGED", 0)
    with transaction.atomic():
        execute(*BROKEN["an index"][0])
        found = {one.schema_name: one.state.value for one in inspect_schemas(schema_kinds())}
        assert found == {"public": "ok", "acme": "drifted", "globex": "ok"}
        transaction.set_rollback(True)


def test_what_other_threads_make_it_forget_is_judged_all_the_same(acme: Tenant, monkeypatch: Any) -> None:
    know_structures()
    monkeypatch.setattr(structure, "MOST_JUDGED", 0)
    ours, flaws = requirements_of("").structure, Requirements.flaws
    assert ours is not None

    def flaws_after_another_look(requirements: Requirements, *args: Any, **kwargs: Any) -> Any:
        """Between the reading of the tables and their judgement, as another thread may come at any time."""
        other = threading.Thread(target=ours.learn, args=([], "integer"))
        other.start()
        other.join()
        return flaws(requirements, *args, **kwargs)

    monkeypatch.setattr(Requirements, "flaws", flaws_after_another_look)
    assert inspect_schema("acme", "").is_ready
    assert ours.judged == {}
    assert all(one.is_ready for one in inspect_schemas(schema_kinds()))


def test_the_running_server_notices_within_its_time(clock: Clock, database_url: str, acme: Tenant) -> None:
    assert readiness_of("acme").is_ready
    assert readiness_of("globex").is_ready
    with psycopg.connect(database_url, autocommit=True) as other:
        other.execute("ALTER INDEX acme.messaging_message_reply RENAME TO put_aside")
        other.execute("UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'acme.put_aside'::regclass")
        try:
            clock.now += 59
            assert readiness_of("acme").is_ready
            clock.now += 2
            assert readiness_of("acme").state is SchemaState.DRIFTED
            assert readiness_of("globex").is_ready
        finally:
            other.execute("UPDATE pg_index SET indisvalid = true WHERE indexrelid = 'acme.put_aside'::regclass")
            other.execute("ALTER INDEX acme.put_aside RENAME TO messaging_message_reply")
    clock.now += 3
    assert readiness_of("acme").is_ready


def test_a_table_that_is_held_costs_no_known_structure_anything(acme: Tenant, database_url: str) -> None:
    assert inspect_schema("acme", "").is_ready
    with psycopg.connect(database_url) as other:
        other.execute(f"LOCK TABLE {MESSAGE} IN ACCESS EXCLUSIVE MODE")
        with exactly(1):
            assert inspect_schema("acme", "").is_ready


def test_of_a_newer_releases_schema_only_what_is_there_is_looked_at(acme: Tenant, breaking: None) -> None:
    execute(
        *BROKEN["an index"][0],
        "INSERT INTO acme.django_migrations (app, name, applied) VALUES ('django_tenant_messaging', '0099', now())",
    )
    assert inspect_schema("acme", "").state is SchemaState.AHEAD
    execute(f"ALTER TABLE {MESSAGE} DROP COLUMN content")
    found = inspect_schema("acme", "")
    assert (found.state, found.missing_relations) == (SchemaState.DRIFTED, (f"{OURS}message.content",))


def test_what_was_made_for_other_migrations_is_not_compared(
    acme: Tenant, monkeypatch: pytest.MonkeyPatch, settings: Any
) -> None:
    """While a migration is being written; the test above fails then."""
    monkeypatch.setattr(structure, "kept_migrations", lambda: ("0001_initial",))
    settings.MIGRATION_MODULES = {"sessions": "django.contrib.sessions.migrations"}
    assert requirements_of("").structure is None


def test_a_host_with_migrations_of_its_own_for_this_app_is_left_alone(acme: Tenant, settings: Any) -> None:
    settings.MIGRATION_MODULES = {"django_tenant_messaging": "django_tenant_messaging.migrations"}
    assert requirements_of("").structure is None


def test_the_reader_is_told_what_differs(acme: Tenant, breaking: None, settings: Any) -> None:
    settings.TENANT_MESSAGING = {**getattr(settings, "TENANT_MESSAGING", {}), "SHOW_MIGRATION_DETAILS": True}
    execute(*BROKEN["a unique constraint"][0])
    response = acme.client().get("/", headers={"accept": "application/json"})
    shown = response.json()
    assert response.status_code == 503
    assert shown["missing"] == [BROKEN["a unique constraint"][1]]
    assert shown["apps"] == ["django_tenant_messaging"]
    page = acme.client().get("/", headers={"accept": "text/html"}).content.decode()
    assert "unique constraint messaging_message_client_id missing" in page


def test_no_transaction_is_left_open(acme: Tenant) -> None:
    assert inspect_schema("acme", "").is_ready
    assert not connection.in_atomic_block


# What another app lacks


@pytest.fixture
def own_app(own: OwnMigrations, settings: Any) -> OwnMigrations:
    """An app of the host's with a migration that no tenant has."""
    own.write("messages", "0001_first", "migrations.RunSQL('SELECT 1 FROM nothing_there')")
    return own


def required(settings: Any, *labels: str) -> None:
    settings.TENANT_MESSAGING = {**getattr(settings, "TENANT_MESSAGING", {}), "REQUIRED_APPS": labels}


def test_another_app_refuses_a_tenant_unless_told_otherwise(acme: Tenant, own_app: Any, settings: Any) -> None:
    found = readiness_of("acme")
    assert (found.state, found.apps) == (SchemaState.BEHIND, ("messages",))
    verdicts.forget_all()
    required(settings, "auth", "sessions")
    found = readiness_of("acme")
    assert (found.state, found.is_ready) == (SchemaState.OK, True)
    assert found.tolerated == ("messages.0001_first",)
    assert found.reason == "migrated as far as is required; not required, and not there: messages.0001_first"
    assert acme.client().get("/accounts/login/").status_code == 200


def test_a_missing_table_of_another_app_too(acme: Tenant, breaking: None, settings: Any) -> None:
    execute("ALTER TABLE acme.auth_group RENAME TO put_aside")
    assert inspect_schema("acme", "").apps == ("auth",)
    required(settings, "sessions")
    found = inspect_schema("acme", "")
    assert (found.is_ready, found.tolerated, found.missing_relations) == (True, ("auth_group",), ())


def test_this_app_is_always_required(acme: Tenant, breaking: None, settings: Any) -> None:
    required(settings)
    execute(*BROKEN["an index"][0])
    assert inspect_schema("acme", "").state is SchemaState.DRIFTED
    execute("DELETE FROM acme.django_migrations WHERE app = 'django_tenant_messaging'")
    assert inspect_schema("acme", "").state is SchemaState.BEHIND


def test_verify_tells_what_others_lack_as_a_note(acme: Tenant, own_app: Any, settings: Any) -> None:
    required(settings, "auth")
    status, printed, complaints = run_command("verify_tenant_migrations")
    assert status == 0
    assert "acme    ok     migrated as far as is required; not required, and not there: messages.0001_first" in printed
    assert complaints == ["Warning: 2 of the schemas lack what REQUIRED_APPS doesn't ask for; they are served."]


def test_a_failing_migration_of_another_app_keeps_no_tenant_closed(spare: Tenant, own_app: Any, settings: Any) -> None:
    execute("DELETE FROM spare.django_migrations WHERE app = 'sessions'", "DROP TABLE spare.django_session")
    required(settings, "auth", "sessions")
    repair = repair_schema("spare", "")
    assert (repair.done, repair.failure, repair.is_success) == (("applied sessions.0001_initial",), "", True)
    required(settings, "messages")
    verdicts.forget_all()
    assert "messages.0001_first" in repair_schema("spare", "").failure


@pytest.mark.parametrize("wrong", ["auth", [1], ["nothing"], ("auth", None)])
def test_only_labels_of_apps_are_taken(wrong: Any, settings: Any) -> None:
    settings.TENANT_MESSAGING = {"REQUIRED_APPS": wrong}
    assert any("REQUIRED_APPS" in error.msg for error in run_checks())

"""New tenants on a real database: fully migrated, or not there at all; what was there before is kept."""

from __future__ import annotations

import copy
import logging
import os
import pickle
import signal
import subprocess
import sys
import threading
import time
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import psycopg
import pytest
from django.contrib.admin import AdminSite, ModelAdmin
from django.core.exceptions import ValidationError
from django.db import DataError, IntegrityError, connection, connections, transaction
from django.db.models.signals import post_delete
from django.http import HttpResponse
from django.test import RequestFactory
from django_tenants.models import TenantMixin
from django_tenants.signals import post_schema_sync, schema_migrated

from django_tenant_messaging import migrations as real_migrations
from django_tenant_messaging.exceptions import TenantCreationError
from django_tenant_messaging.signals import tenant_created, tenant_creation_failed
from django_tenant_messaging.tenancy import activated, connect_creation, current_schema, readiness_of
from django_tenant_messaging.tenancy.gate import inspect_schema, verdicts
from django_tenant_messaging.tenancy.gate.migrating import migration_lock, run_migrations
from django_tenant_messaging.types import SchemaState
from example.customers.models import Customer
from example.services.process import python_path
from tests.harness.spare import waiting_migrators
from tests.harness.together import outcomes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from django.dispatch import Signal

ROOT = Path(__file__).resolve().parents[1]
APP = "django_tenant_messaging"
TRIAL = f"{APP}.0999_trial"
LOGGER = "django_tenant_messaging.tenancy.gate.creation"
PATIENCE = 60
FAILS = '[migrations.RunSQL("CREATE TABLE trial (id int)"), migrations.RunSQL("SELECT 1/0")]'
CONCURRENT = f'[migrations.RunSQL("CREATE INDEX CONCURRENTLY trial ON {APP}_userstatus (user_id)")]'
MAKES_A_TABLE = '[migrations.CreateModel("Trial", [("id", models.BigAutoField(primary_key=True))])]'
LATE = (
    'migrations.CreateModel("Trial", [("id", models.BigAutoField(primary_key=True))],'
    ' options={"indexes": [models.Index(fields=["id"], name="late")]})'
)
LATCH = 20_260_321
WAITS = f'[migrations.RunSQL("SELECT pg_advisory_xact_lock({LATCH})")]'

pytestmark = pytest.mark.usefixtures("nothing_else_changes")


def schemas() -> set[str]:
    with connection.cursor() as cursor:
        cursor.execute("SELECT nspname FROM pg_namespace WHERE nspname !~ '^(pg_|information_schema)'")
        return {name for (name,) in cursor.fetchall()}


def rows() -> set[str]:
    return set(Customer.objects.values_list("schema_name", flat=True))


def execute(statement: str) -> list[Any]:
    with connection.cursor() as cursor:
        cursor.execute(statement)
        return list(cursor.fetchall()) if cursor.description else []


@pytest.fixture
def nothing_else_changes(tenants: Any) -> Iterator[None]:
    """Whatever a test makes is gone after it; the other tenants are as they were."""
    schemas_before, rows_before = schemas(), rows()
    records = execute("SELECT * FROM globex.django_migrations ORDER BY id")
    yield
    connection.set_schema_to_public()  # type: ignore[attr-defined] # django-tenants' wrapper
    for name in schemas() - schemas_before:
        execute(f'DROP SCHEMA "{name}" CASCADE')
    Customer.objects.exclude(schema_name__in=rows_before).delete()
    assert (schemas(), rows()) == (schemas_before, rows_before)
    assert execute("SELECT * FROM globex.django_migrations ORDER BY id") == records


@pytest.fixture
def second_migration(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, settings: Any) -> Callable[..., dict[str, str]]:
    """`second_migration(operations)` gives the app one more migration, `0999_trial`."""

    def write(operations: str, *, atomic: bool = True, before: str = "") -> dict[str, str]:
        folder = tmp_path / f"migrations_{uuid4().hex}"
        folder.mkdir()
        (folder / "__init__.py").touch()
        names = sorted(path.stem for path in Path(str(real_migrations.__file__)).parent.glob("0*.py"))
        for name in names:
            module = f"{APP}.migrations.{name}"
            text = f"from importlib import import_module\nMigration = import_module({module!r}).Migration\n"
            (folder / f"{name}.py").write_text(text)
        (folder / "0999_trial.py").write_text(
            f"from django.db import migrations, models\n{before}\n"
            "class Migration(migrations.Migration):\n"
            f"    atomic = {atomic}\n    dependencies = [({APP!r}, {names[-1]!r})]\n    operations = {operations}\n"
        )
        monkeypatch.syspath_prepend(tmp_path)
        settings.MIGRATION_MODULES = {APP: folder.name}
        verdicts.forget_all()
        modules: dict[str, str] = settings.MIGRATION_MODULES
        return modules

    return write


@contextmanager
def receiving(signal_: Signal, receiver: Callable[..., None]) -> Iterator[None]:
    signal_.connect(receiver)
    try:
        yield
    finally:
        signal_.disconnect(receiver)


def raise_value_error(**_kwargs: Any) -> None:
    raise ValueError("the host's receiver failed")


def criticals(caplog: pytest.LogCaptureFixture) -> list[logging.LogRecord]:
    return [record for record in caplog.records if record.name == LOGGER and record.levelno == logging.CRITICAL]


def make(name: str = "fresh", **fields: Any) -> Customer:
    customer = Customer(schema_name=name, name=name.title(), **fields)
    customer.save()
    return customer


def make_with_data(name: str = "fresh") -> None:
    """A migrated schema with a user in it, which no tenant has."""
    customer = make(name)
    execute(f"INSERT INTO {name}.django_content_type (app_label, model) VALUES ('kept', 'kept')")
    customer.delete()
    assert name in schemas()


def data_is_kept(name: str = "fresh") -> bool:
    return execute(f"SELECT count(*) FROM {name}.django_content_type WHERE app_label = 'kept'") == [(1,)]


def test_new_tenant_is_ready_and_told(caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]) -> None:
    told: list[dict[str, Any]] = []
    sent: list[Any] = []

    def receive(schema_name: str, seconds: float, **_kwargs: Any) -> None:
        told.append({"schema_name": schema_name, "seconds": seconds})

    def synced(tenant: Any, **_kwargs: Any) -> None:
        sent.append(tenant)

    with caplog.at_level("INFO", LOGGER), receiving(tenant_created, receive), receiving(post_schema_sync, synced):
        customer = make()
    assert readiness_of("fresh").state is SchemaState.OK
    assert current_schema() == "public"
    assert [record.getMessage() for record in caplog.records if record.name == LOGGER] == [
        "Running migrations for tenant: fresh",
        "Migrations completed successfully for tenant: fresh",
    ]
    assert [(event["schema_name"], event["seconds"] > 0) for event in told] == [("fresh", True)]
    assert sent == [customer]
    assert capsys.readouterr().out == ""


def test_failing_migration_leaves_nothing(
    second_migration: Callable[..., Any], caplog: pytest.LogCaptureFixture
) -> None:
    second_migration(FAILS)
    told: list[dict[str, Any]] = []

    def receive(**event: Any) -> None:
        told.append(event)

    with receiving(tenant_creation_failed, receive), pytest.raises(RuntimeError) as raised:
        make()
    assert isinstance(raised.value, TenantCreationError)
    assert str(raised.value) == (
        f"CRITICAL MIGRATION FAILURE for tenant 'fresh': {TRIAL}: DataError: division by zero."
        " Tenant creation ABORTED: removed: its schema, its row."
        f" Required action: correct the migration {TRIAL}, or what it needs, and create the tenant again"
    )
    assert isinstance(raised.value.__cause__, DataError)
    assert "fresh" not in schemas() | rows()
    assert current_schema() == "public"
    (record,) = criticals(caplog)
    fields = vars(record)
    assert record.getMessage() == str(raised.value)
    assert record.exc_info is not None
    assert fields["schema_name"] == "fresh"
    assert fields["migration"] == TRIAL
    assert fields["error"] == "division by zero"
    assert fields["error_type"] == "DataError"
    assert fields["remedy"] == raised.value.remedy
    assert [(event["schema_name"], str(event["error"])) for event in told] == [("fresh", "division by zero")]
    assert pickle.loads(pickle.dumps(raised.value)).remedy == raised.value.remedy  # noqa: S301 - our own


@pytest.mark.parametrize("is_in_transaction", [False, True])
def test_migration_that_fails_at_its_end_leaves_nothing(
    is_in_transaction: bool, second_migration: Callable[..., Any]
) -> None:
    """Django makes indexes when all else is done, and leaves its transaction when that fails."""
    second_migration(f'[migrations.RunSQL("CREATE TABLE taken (id int); CREATE INDEX late ON taken (id)"), {LATE}]')
    with transaction.atomic() if is_in_transaction else nullcontext():
        with pytest.raises(TenantCreationError) as raised:
            make()
        assert str(raised.value) == (
            f"CRITICAL MIGRATION FAILURE for tenant 'fresh': {TRIAL}:"
            ' ProgrammingError: relation "late" already exists.'
            " Tenant creation ABORTED: removed: its schema, its row."
            f" Required action: correct the migration {TRIAL}, or what it needs, and create the tenant again"
        )
        assert connection.in_atomic_block == is_in_transaction
        assert "fresh" not in schemas() | rows()
        assert Customer.objects.filter(schema_name="globex").exists()
    assert not connection.in_atomic_block
    assert connection.get_autocommit()
    assert "fresh" not in schemas() | rows()


def test_same_object_can_be_saved_again_after_a_failure(second_migration: Callable[..., Any], settings: Any) -> None:
    second_migration(FAILS)
    customer = Customer(schema_name="fresh", name="Fresh")
    with pytest.raises(TenantCreationError):
        customer.save()
    assert customer._state.adding
    settings.MIGRATION_MODULES = {}
    customer.save()
    assert readiness_of("fresh").is_ready
    assert "fresh" in rows()


def test_failing_migration_in_a_transaction_leaves_nothing_and_the_transaction_usable(
    second_migration: Callable[..., Any],
) -> None:
    second_migration(FAILS)
    with transaction.atomic():
        with pytest.raises(TenantCreationError, match=r"0999_trial: DataError: division by zero\."):
            make()
        assert "fresh" not in schemas() | rows()
        with activated("acme"):
            assert execute("SELECT count(*) FROM acme.django_migrations") != [(0,)]
    assert "fresh" not in schemas() | rows()


def test_creation_in_a_transaction_is_part_of_it() -> None:
    told: list[Any] = []

    def receive(schema_name: str, **_kwargs: Any) -> None:
        told.append(schema_name)

    with receiving(tenant_created, receive):
        with transaction.atomic():
            make()
            assert inspect_schema("fresh", "").is_ready
            transaction.set_rollback(True)
        assert "fresh" not in schemas() | rows()
        assert told == []
        with transaction.atomic():
            make()
        assert told == ["fresh"]
    assert readiness_of("fresh").is_ready


def test_non_atomic_migration_outside_a_transaction(second_migration: Callable[..., Any]) -> None:
    second_migration(CONCURRENT, atomic=False)
    make()
    assert readiness_of("fresh").is_ready


def test_non_atomic_migration_in_a_transaction_is_named_and_explained(second_migration: Callable[..., Any]) -> None:
    second_migration(CONCURRENT, atomic=False)
    with transaction.atomic(), pytest.raises(TenantCreationError) as raised:
        make()
    text = str(raised.value)
    assert f"{TRIAL}: InternalError: CREATE INDEX CONCURRENTLY cannot run inside a transaction block." in text
    assert "create the tenant again outside of a transaction" in text
    assert "current transaction is aborted" not in text
    assert "fresh" not in schemas() | rows()


def test_operations_that_django_itself_refuses_in_a_transaction_are_explained(
    second_migration: Callable[..., Any],
) -> None:
    operation = "postgres.AddIndexConcurrently('UserStatus', models.Index(fields=['user'], name='trial'))"
    imports = "from django.contrib.postgres import operations as postgres"
    second_migration(f"[{operation}]", atomic=False, before=imports)
    with transaction.atomic(), pytest.raises(TenantCreationError, match="outside of a transaction"):
        make()
    assert "fresh" not in schemas() | rows()


def test_first_error_is_named_when_later_ones_mask_it(second_migration: Callable[..., Any]) -> None:
    stumble = (
        "def stumble(apps, schema_editor):\n"
        "    try:\n"
        "        schema_editor.execute('SELECT nothing_here')\n"
        "    except Exception:\n"
        "        schema_editor.execute('SELECT 1')\n"
    )
    second_migration("[migrations.RunPython(stumble)]", atomic=False, before=stumble)
    with transaction.atomic(), pytest.raises(TenantCreationError) as raised:
        make()
    assert f'{TRIAL}: ProgrammingError: column "nothing_here" does not exist.' in str(raised.value)
    assert "is aborted" not in str(raised.value)


def test_interrupted_creation_leaves_nothing(second_migration: Callable[..., Any]) -> None:
    interrupt = "def interrupt(apps, schema_editor):\n    raise KeyboardInterrupt\n"
    second_migration("[migrations.RunPython(interrupt)]", before=interrupt)
    with pytest.raises(KeyboardInterrupt):
        make()
    assert "fresh" not in schemas() | rows()


def test_lost_connection_is_survived_and_leaves_nothing(second_migration: Callable[..., Any]) -> None:
    second_migration('[migrations.RunSQL("SELECT pg_terminate_backend(pg_backend_pid())")]', atomic=False)
    with pytest.raises(TenantCreationError, match=r"0999_trial: OperationalError: .*removed: its schema, its row\."):
        make()
    assert "fresh" not in schemas() | rows()


def test_schema_of_somebody_else_is_kept_when_the_lock_cannot_be_had(
    monkeypatch: pytest.MonkeyPatch, database_url: str
) -> None:
    def refused(schema_name: str) -> Any:
        with psycopg.connect(database_url) as other:
            other.execute(f"CREATE SCHEMA {schema_name}")
        raise psycopg.OperationalError("too many clients")

    monkeypatch.setattr("django_tenant_messaging.tenancy.gate.creation.migration_lock", refused)
    with pytest.raises(TenantCreationError, match=r"OperationalError: too many clients\. .*removed: its row\."):
        make()
    assert "fresh" in schemas() - rows()


def test_schema_that_somebody_makes_without_the_lock_is_kept(
    monkeypatch: pytest.MonkeyPatch, database_url: str
) -> None:
    create_schema = Customer.create_schema

    def beaten(customer: Customer, **options: Any) -> Any:
        with psycopg.connect(database_url) as other:
            other.execute("CREATE SCHEMA fresh")
        return create_schema(customer, **{**options, "check_if_exists": False})

    monkeypatch.setattr(Customer, "create_schema", beaten)
    monkeypatch.setattr(Customer, "auto_drop_schema", True)
    with pytest.raises(TenantCreationError, match=r"schema .fresh. already exists\. .*removed: its row\."):
        make()
    assert "fresh" in schemas() - rows()


def test_what_cannot_be_removed_is_told(second_migration: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    second_migration(FAILS)

    with receiving(post_delete, raise_value_error), pytest.raises(TenantCreationError) as raised:
        make()
    text = "removed: its schema; kept: its row, as it can't be removed (the host's receiver failed)."
    assert text in str(raised.value)
    assert "Required action: remove by hand what is left of it; correct the migration" in str(raised.value)
    assert "fresh" in rows()
    assert readiness_of("fresh").state is SchemaState.MISSING


def test_killed_creation_is_seen_and_repaired(
    second_migration: Callable[..., dict[str, str]], tmp_path: Path, database_url: str
) -> None:
    modules = second_migration(WAITS)
    (tmp_path / "killed_settings.py").write_text(f"from tests.settings import *\nMIGRATION_MODULES = {modules!r}\n")
    path = python_path(ROOT, ROOT / "example_project", tmp_path)
    env = {**os.environ, "PYTHONPATH": path, "DATABASE_URL": database_url, "DJANGO_SETTINGS_MODULE": "killed_settings"}
    script = (
        "import django; django.setup()\n"
        "from example.customers.models import Customer\n"
        "Customer(schema_name='fresh', name='Fresh').save()\n"
    )
    with psycopg.connect(database_url) as latch:
        latch.execute("SELECT pg_advisory_xact_lock(%s)", [LATCH])
        with subprocess.Popen([sys.executable, "-c", script], env=env) as process:
            until(lambda: waiting_for(database_url, LATCH), process)
            process.send_signal(signal.SIGKILL)
    assert "fresh" in schemas() & rows()
    found = readiness_of("fresh")
    assert found.state is SchemaState.BEHIND
    assert found.missing_migrations[0] == TRIAL
    Customer.objects.get(schema_name="fresh").save()
    assert readiness_of("fresh").state is SchemaState.BEHIND
    with migration_lock("fresh"):
        run_migrations("fresh")
    assert readiness_of("fresh").state is SchemaState.OK


def until(is_true: Callable[[], bool], process: subprocess.Popen[bytes] | None = None) -> None:
    deadline = time.monotonic() + PATIENCE
    while not is_true():
        assert process is None or process.poll() is None, "the process ended"
        assert time.monotonic() < deadline
        time.sleep(0.02)


def waiting_for(database_url: str, key: int) -> bool:
    """Tell whether somebody waits for an advisory lock of this key in this database."""
    with psycopg.connect(database_url) as connection_:
        found = connection_.execute(
            "SELECT count(*) FROM pg_locks l JOIN pg_database d ON d.oid = l.database"
            " WHERE l.locktype = 'advisory' AND NOT l.granted AND d.datname = current_database() AND l.objid = %s",
            [key],
        ).fetchone()
    return found != (0,)


def test_receiver_that_raises_after_a_new_schema_leaves_nothing(caplog: pytest.LogCaptureFixture) -> None:
    with receiving(post_schema_sync, raise_value_error), pytest.raises(ValueError, match="the host's receiver failed"):
        make()
    assert "fresh" not in schemas() | rows()
    (record,) = criticals(caplog)
    assert record.getMessage() == (
        "CRITICAL FAILURE OF A RECEIVER for tenant 'fresh': ValueError: the host's receiver failed."
        " Tenant creation ABORTED: removed: its schema, its row."
        " Required action: correct the receiver that raised and create the tenant again"
    )


def test_receiver_that_raises_after_the_migrations_leaves_nothing() -> None:
    with (
        receiving(schema_migrated, raise_value_error),
        pytest.raises(TenantCreationError, match=r"'fresh': ValueError: the host's receiver failed\."),
    ):
        make()
    assert "fresh" not in schemas() | rows()


@pytest.mark.parametrize("drops", [False, True], ids=["", "auto_drop_schema"])
@pytest.mark.parametrize("in_transaction", [False, True], ids=["autocommit", "transaction"])
def test_existing_schema_with_data_outlives_a_receiver_that_raises(
    caplog: pytest.LogCaptureFixture, drops: bool, in_transaction: bool
) -> None:
    make_with_data()
    caplog.clear()
    customer = Customer(schema_name="fresh", name="Fresh")
    customer.auto_drop_schema = drops

    with (
        receiving(post_schema_sync, raise_value_error),
        transaction.atomic() if in_transaction else nullcontext(),
        pytest.raises(ValueError, match="the host's receiver failed"),
    ):
        customer.save()
    assert data_is_kept()
    assert "fresh" not in rows()
    (record,) = criticals(caplog)
    assert "Tenant creation ABORTED: removed: its row; kept: its schema." in record.getMessage()


def test_existing_schema_outlives_an_upsert_whose_receiver_raises(monkeypatch: pytest.MonkeyPatch) -> None:
    make_with_data()
    customer = make()
    # django-tenants takes it for a new one, and refuses equal names of those.
    monkeypatch.setattr(Customer, "_check_schema_name_is_unique", lambda _self: None)
    with receiving(post_schema_sync, raise_value_error), pytest.raises(ValueError, match="the host's receiver failed"):
        Customer(pk=customer.pk, schema_name="fresh", name="Again").save()
    assert data_is_kept()


def test_existing_schema_is_dropped_by_whoever_asks_for_it() -> None:
    make_with_data()
    customer = make()
    pickle.dumps(customer)
    other = copy.copy(customer)
    other.pk, other.schema_name = None, "other"
    other._state.adding = True
    other.save()
    other.delete(force_drop=True)
    assert "other" not in schemas()
    assert data_is_kept()
    try:
        raise_value_error()
    except ValueError:
        customer.delete(force_drop=True)
    assert "fresh" not in schemas() | rows()


def test_existing_schema_is_left_as_it_is_and_told(caplog: pytest.LogCaptureFixture) -> None:
    make_with_data()
    caplog.clear()
    with caplog.at_level("INFO", LOGGER):
        make()
    (record,) = (record for record in caplog.records if record.name == LOGGER)
    assert record.levelname == "INFO"
    assert record.getMessage() == "[fresh] The new tenant's schema existed before: fully migrated."
    assert data_is_kept()


@pytest.mark.parametrize(
    ("change", "state", "level"),
    [
        (f"DELETE FROM fresh.django_migrations WHERE app = '{APP}'", SchemaState.BEHIND, "WARNING"),
        (f"DROP TABLE fresh.{APP}_userstatus", SchemaState.DRIFTED, "CRITICAL"),
    ],
)
def test_existing_schema_that_is_not_ready_is_refused_and_told(
    caplog: pytest.LogCaptureFixture, change: str, state: SchemaState, level: str
) -> None:
    make_with_data()
    execute(change)
    caplog.clear()
    make()
    assert inspect_schema("fresh", "").state is state
    assert data_is_kept()
    (record,) = (record for record in caplog.records if record.name == LOGGER)
    assert record.levelname == level
    assert "existed before, is left as it was, and is NOT READY" in record.getMessage()
    assert f"Required action: {readiness_of('fresh').remedy}" in record.getMessage()
    assert vars(record)["schema_state"] == state


def test_failed_tenant_can_be_kept(second_migration: Callable[..., Any], settings: Any) -> None:
    second_migration(FAILS)
    settings.TENANT_MESSAGING = {"KEEP_FAILED_TENANTS": True}
    with pytest.raises(TenantCreationError) as raised:
        make()
    assert "row and schema are kept for diagnosis (KEEP_FAILED_TENANTS)" in str(raised.value)
    assert str(raised.value).endswith("python manage.py verify_tenant_migrations --fix --schema=fresh")
    assert current_schema() == "public"
    assert "fresh" in schemas() & rows()
    assert readiness_of("fresh").missing_migrations[0] == TRIAL


def test_nothing_is_kept_in_a_transaction(second_migration: Callable[..., Any], settings: Any) -> None:
    second_migration(FAILS)
    settings.TENANT_MESSAGING = {"KEEP_FAILED_TENANTS": True}
    with transaction.atomic():
        with pytest.raises(TenantCreationError, match="removed: its schema, its row"):
            make()
        assert "fresh" not in schemas() | rows()


def test_two_creators_of_one_tenant() -> None:
    made, errors = outcomes(make, make)
    assert [customer.schema_name for customer in made] == ["fresh"]
    (error,) = errors
    assert isinstance(error, ValidationError | IntegrityError)
    assert readiness_of("fresh").is_ready
    assert "fresh" in rows()


def test_two_creators_of_one_tenant_in_transactions() -> None:
    made, errors = outcomes(transaction.atomic(make), transaction.atomic(make))
    assert len(made) == 1
    (error,) = errors
    assert isinstance(error, ValidationError | IntegrityError)
    assert readiness_of("fresh").is_ready


def test_schema_made_by_a_repair_meanwhile_is_taken(database_url: str, caplog: pytest.LogCaptureFixture) -> None:
    results: list[Any] = []

    def create() -> None:
        try:
            results.append(make())
        finally:
            connections.close_all()

    creator = threading.Thread(target=create)
    with caplog.at_level("INFO", LOGGER):
        with migration_lock("fresh"):
            creator.start()
            until(lambda: waiting_migrators() > 0)
            Customer.objects.get(schema_name="fresh").create_schema(verbosity=0)
        creator.join(PATIENCE)
    assert len(results) == 1
    messages = [record.getMessage() for record in caplog.records if record.name == LOGGER]
    assert messages == ["[fresh] The new tenant's schema existed before: fully migrated."]


def test_schema_in_the_making_by_a_repair_is_waited_for(database_url: str, caplog: pytest.LogCaptureFixture) -> None:
    results: list[Any] = []

    def create() -> None:
        try:
            results.append(make())
        finally:
            connections.close_all()

    creator = threading.Thread(target=create)
    with caplog.at_level("INFO", LOGGER):
        with migration_lock("fresh"):
            execute("CREATE SCHEMA fresh")
            creator.start()
            until(lambda: waiting_migrators() > 0)
            run_migrations("fresh")
        creator.join(PATIENCE)
    assert len(results) == 1
    messages = [record.getMessage() for record in caplog.records if record.name == LOGGER]
    assert messages == ["[fresh] The new tenant's schema existed before: fully migrated."]


def test_older_row_without_a_schema_gets_one_when_saved() -> None:
    customer = make()
    execute("DROP SCHEMA fresh CASCADE")
    sent: list[Any] = []

    def synced(tenant: Any, **_kwargs: Any) -> None:
        sent.append(tenant)

    with receiving(post_schema_sync, synced):
        customer.save()
        customer.save()
    assert sent == [customer]
    assert readiness_of("fresh").is_ready


def test_older_row_is_kept_when_its_schema_cannot_be_made(second_migration: Callable[..., Any]) -> None:
    customer = make()
    execute("DROP SCHEMA fresh CASCADE")
    second_migration(FAILS)
    with pytest.raises(TenantCreationError, match=r"ABORTED: removed: its schema\."):
        customer.save()
    assert "fresh" not in schemas()
    assert "fresh" in rows()


def test_clone_of_a_template_that_is_behind_is_migrated(second_migration: Callable[..., Any], settings: Any) -> None:
    make("pattern")
    second_migration(MAKES_A_TABLE)
    settings.TENANT_CREATION_FAKES_MIGRATIONS = True
    settings.TENANT_BASE_SCHEMA = "pattern"
    make()
    assert readiness_of("fresh").state is SchemaState.OK
    assert execute(f"SELECT count(*) FROM fresh.{APP}_trial") == [(0,)]
    assert readiness_of("pattern").state is SchemaState.BEHIND


def test_clone_of_a_template_that_drifted_is_refused(settings: Any) -> None:
    make("pattern")
    execute(f"DROP TABLE pattern.{APP}_userstatus")
    settings.TENANT_CREATION_FAKES_MIGRATIONS = True
    settings.TENANT_BASE_SCHEMA = "pattern"
    with pytest.raises(TenantCreationError) as raised:
        make()
    text = str(raised.value)
    assert f"'fresh': recorded as migrated, but not there: {APP}_userstatus." in text
    assert (
        "repair the template schema first (python manage.py verify_tenant_migrations --fix --schema=pattern),"
        " then create the tenant again"
    ) in text
    assert "fresh" not in schemas() | rows()


def test_clone_of_a_sound_template(settings: Any) -> None:
    make("pattern")
    settings.TENANT_CREATION_FAKES_MIGRATIONS = True
    settings.TENANT_BASE_SCHEMA = "pattern"
    make()
    assert readiness_of("fresh").state is SchemaState.OK


def test_tenant_without_automatic_schema_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Customer, "auto_create_schema", False)
    make()
    assert "fresh" in rows()
    assert "fresh" not in schemas()


def test_tenant_of_a_fixture_is_left_alone() -> None:
    Customer(pk=987_654, schema_name="fresh", name="Fresh").save_base(raw=True)
    assert "fresh" not in schemas()


def test_verdict_is_forgotten_by_creation_migration_and_deletion() -> None:
    assert readiness_of("fresh").state is SchemaState.MISSING
    customer = make()
    assert readiness_of("fresh").is_ready
    execute(f"DROP TABLE fresh.{APP}_userstatus")
    assert readiness_of("fresh").is_ready
    run_migrations("fresh")
    assert readiness_of("fresh").state is SchemaState.DRIFTED
    customer.delete(force_drop=True)
    assert readiness_of("fresh").state is SchemaState.MISSING


def test_connecting_again_changes_nothing() -> None:
    before = Customer._drop_schema
    connect_creation()
    assert Customer._drop_schema is before
    assert before is not TenantMixin._drop_schema


class QuietAdmin(ModelAdmin):  # type: ignore[type-arg] # not a generic at run time
    """The admin's add page, as far as it saves."""

    def has_add_permission(self, *_args: Any) -> bool:
        return True

    def log_addition(self, *_args: Any) -> Any:
        return None

    def response_add(self, *_args: Any) -> HttpResponse:
        return HttpResponse("added")


def add_in_admin() -> Any:
    request = RequestFactory().post("/add/", {"schema_name": "fresh", "name": "Fresh"})
    vars(request)["_dont_enforce_csrf_checks"] = True
    return QuietAdmin(Customer, AdminSite()).add_view(request)


def test_admin_creates_a_tenant() -> None:
    assert add_in_admin().content == b"added"
    assert readiness_of("fresh").is_ready


def test_admin_tells_why_a_tenant_cannot_be_created(second_migration: Callable[..., Any]) -> None:
    second_migration(CONCURRENT, atomic=False)
    with pytest.raises(TenantCreationError, match="add page of the admin"):
        add_in_admin()
    assert "fresh" not in schemas() | rows()

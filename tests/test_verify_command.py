"""The command that tells which schemas are ready and repairs the others: its output, its exit status, its processes."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
import pytest
from django.core.management import call_command
from django.db import connection, transaction

from django_tenant_messaging.exceptions import Unavailable
from django_tenant_messaging.management import fixing, looking, verification
from django_tenant_messaging.models import Message
from django_tenant_messaging.tenancy.gate import inspect_schema, inspect_schemas, reading, schema_kinds, verdicts
from django_tenant_messaging.tenancy.gate.migrating import migration_lock
from django_tenant_messaging.types import SchemaState
from example.services.process import python_path
from tests.harness.breaking import STATUS_TABLE, locked_table, without_table
from tests.harness.commands import Terminal, run_command
from tests.harness.queries import exactly, queries
from tests.harness.spare import OwnMigrations, execute, spare_tenant, tables, waiting_migrators

run = partial(run_command, "verify_tenant_migrations")

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.harness.tenants import Tenant

ROOT = Path(__file__).resolve().parents[1]
PATIENCE = 120
INDEXED = (
    "migrations.CreateModel('Late', [('id', models.BigAutoField(primary_key=True)), ('name', models.TextField())],"
    " options={'indexes': [models.Index(fields=['name'], name='late_name')]})"
)


@pytest.fixture
def other(tenants: Any) -> Iterator[Tenant]:
    """Another one."""
    with spare_tenant("other") as tenant:
        yield tenant


def drift(*tenants: Tenant) -> None:
    execute(*(f"DROP TABLE {tenant.schema_name}.{STATUS_TABLE}" for tenant in tenants))


def start(database_url: str, *arguments: str, **env: str) -> subprocess.Popen[str]:
    """The command as a process of its own, that leads a group as one that was typed in a terminal does."""
    path = python_path(ROOT, ROOT / "example_project")
    settings = {"DATABASE_URL": database_url, "DJANGO_SETTINGS_MODULE": "tests.settings", "PYTHONPATH": path, **env}
    return subprocess.Popen(
        [sys.executable, "-W", "error", "-m", "django", "verify_tenant_migrations", *arguments],
        env={**os.environ, **settings},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        process_group=0,
    )


def finish(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    stdout, stderr = process.communicate(timeout=PATIENCE)
    return process.returncode, stdout, stderr


@contextmanager
def holding(schema_name: str) -> Iterator[Callable[..., None]]:
    """Hold a schema's lock; the value waits until so many others wait for it, for which these processes run."""

    def wait_for(count: int, *processes: subprocess.Popen[str]) -> None:
        deadline = time.monotonic() + PATIENCE
        while (waiting := waiting_migrators()) != count:
            ended = [process.communicate() for process in processes if process.poll() is not None]
            assert not ended, ended
            assert time.monotonic() < deadline, f"{waiting} wait, not {count}"

    with migration_lock(schema_name):
        yield wait_for


# Looking


def test_all_ready(acme: Tenant) -> None:
    status, printed, complaints = run()
    assert (status, complaints) == (0, [])
    assert printed == [
        "SCHEMA  STATE  DETAILS",
        "public  ok     fully migrated",
        "acme    ok     fully migrated",
        "globex  ok     fully migrated",
        "3 schemas: 3 ok",
    ]


def test_one_not_ready(spare: Tenant) -> None:
    drift(spare)
    status, printed, complaints = run()
    assert (status, complaints) == (1, ["Not ready: 1 of 4 schemas."])
    assert f"spare   drifted  recorded as migrated, but not there: {STATUS_TABLE}" in printed
    assert printed[-2:] == [
        "4 schemas: 3 ok, 1 drifted",
        "To repair: python manage.py verify_tenant_migrations --fix --schema=spare",
    ]


def test_every_state_has_its_line(spare: Tenant, other: Tenant, database_url: str, settings: Any) -> None:
    with spare_tenant("gone", is_made=False), spare_tenant("stale") as stale:
        drift(spare)
        execute(f"DELETE FROM {stale.schema_name}.django_migrations WHERE app = 'sessions'")
        execute("INSERT INTO other.django_migrations (app, name, applied) VALUES ('auth', '0099_new', now())")
        execute("ALTER TABLE acme.django_migrations RENAME COLUMN name TO put_aside")
        try:
            status, printed, complaints = run()
        finally:
            execute("ALTER TABLE acme.django_migrations RENAME COLUMN put_aside TO name")
    states = {line.split()[0]: line.split()[1] for line in printed[1:-2]}
    assert states == {
        "public": "ok",
        "acme": "error",
        "globex": "ok",
        "gone": "missing",
        "other": "ahead",
        "spare": "drifted",
        "stale": "behind",
    }
    assert printed[-2:] == [
        "7 schemas: 2 ok, 1 missing, 1 behind, 1 ahead, 1 drifted, 1 error",
        "To repair: python manage.py verify_tenant_migrations --fix",
    ]
    assert status == 1
    assert complaints == [
        "Warning: a newer release has migrated 1 of the schemas; this code serves them.",
        "Not ready: 4 of 7 schemas.",
    ]


def test_ahead_is_ready(spare: Tenant) -> None:
    execute("INSERT INTO spare.django_migrations (app, name, applied) VALUES ('auth', '0099_new', now())")
    status, printed, (warning,) = run("--schema=spare")
    assert status == 0
    assert "auth.0099_new" in printed[1]
    assert warning.startswith("Warning: a newer release")


def test_of_many_schemas_those_that_are_fine_are_not_listed(spare: Tenant, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("django_tenant_messaging.management.report.FEW", 3)
    drift(spare)
    assert [line.split()[0] for line in run()[1]] == ["SCHEMA", "spare", "4", "To"]
    assert len(run(verbosity=2)[1]) == 7
    assert run(verbosity=0)[1][0].startswith("4 schemas:")


def test_named_schemas_only(spare: Tenant) -> None:
    drift(spare)
    status, printed, _complaints = run("--schema", "acme", "--schema", "public")
    assert (status, printed[-1]) == (0, "2 schemas: 2 ok")
    status, printed, _complaints = run("--schema", "acme", "--schema", "spare")
    assert (status, printed[-2]) == (1, "2 schemas: 1 ok, 1 drifted")


def test_remedy_names_the_schemas_that_were_asked_for(spare: Tenant, other: Tenant) -> None:
    drift(spare, other)
    printed = run("--schema", "spare", "--schema", "other", "--schema", "acme")[1]
    assert printed[-1].endswith("verify_tenant_migrations --fix --schema=other --schema=spare")


def test_unknown_schemas_are_named(acme: Tenant) -> None:
    status, printed, complaints = run("--schema=acme", "--schema=nope", "--schema=never\n\x1b[31m")
    assert (status, printed) == (2, [])
    assert complaints == [r"No tenant has the schema: nope, never\n\x1b[31m"]


def test_fail_fast_stops_at_the_first(spare: Tenant, other: Tenant) -> None:
    drift(spare, other)
    status, printed, _complaints = run("--fail-fast")
    assert status == 1
    assert printed[-3:-1] == ["4 schemas: 3 ok, 1 drifted", "Not looked at: 1"]


def test_json_is_one_document(spare: Tenant) -> None:
    drift(spare)
    status, printed, complaints = run("--json")
    document = json.loads("\n".join(printed))
    assert status == 1
    assert complaints == ["Not ready: 1 of 4 schemas."]
    assert set(document) == {"ready", "totals", "schemas", "left"}
    assert document["ready"] is False
    assert document["totals"] == {
        "schemas": 4,
        "ok": 3,
        "missing": 0,
        "behind": 0,
        "ahead": 0,
        "drifted": 1,
        "error": 0,
    }
    assert document["left"] == []
    entries = {entry["schema"]: entry for entry in document["schemas"]}
    assert [name for name, entry in entries.items() if entry["shared"]] == ["public"]
    assert entries["spare"] == {
        "schema": "spare",
        "state": "drifted",
        "ready": False,
        "shared": False,
        "reason": f"recorded as migrated, but not there: {STATUS_TABLE}",
        "missing_migrations": [],
        "unknown_migrations": [],
        "missing_relations": [STATUS_TABLE],
        "differences": [],
        "tolerated": [],
        "apps": ["django_tenant_messaging"],
        "remedy": "python manage.py verify_tenant_migrations --fix --schema=spare",
    }


def test_json_tells_what_was_repaired_and_what_migrations_print_is_elsewhere(
    spare: Tenant, own: OwnMigrations, capsys: pytest.CaptureFixture[str]
) -> None:
    own.write("messages", "0001_chatty", "migrations.RunPython(run)", run="print('chatter')")
    call_command("verify_tenant_migrations", "--json", "--fix", "--schema=spare")
    printed = capsys.readouterr()
    (entry,) = json.loads(printed.out)["schemas"]
    assert (entry["state"], entry["done"], entry["failure"]) == ("ok", ["applied messages.0001_chatty"], "")
    assert "chatter" in printed.err


def test_progress_is_shown_to_people_only(spare: Tenant) -> None:
    drift(spare)
    terminal = Terminal()
    run("--fix", stderr=terminal)
    assert "\r\x1b[KSchemas looked at: 3 of 4\r\x1b[K" in terminal.getvalue()
    assert "\r\x1b[KSchemas repaired: 0 of 1\r\x1b[K" in terminal.getvalue()
    assert terminal.getvalue().endswith("\r\x1b[K")
    assert run()[2] == []


def test_a_name_moves_no_cursor(tenants: Any) -> None:
    with spare_tenant("bad\n\x1b[2Jname", is_made=False):
        printed = run()[1]
    (line,) = (line for line in printed if line.startswith("bad"))
    assert line.startswith(r"bad\n\x1b[2Jname  error  the schema's name is empty")


def test_looking_takes_few_queries_however_many_schemas_there_are(spare: Tenant) -> None:
    run()
    with queries() as made:
        run()
    # The tenants, the catalog, and a statement for each of both kinds.
    assert len(made) == 4, made


def test_a_locked_schema_is_an_error_and_the_others_are_told(
    acme: Tenant, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading, "SETTINGS", ("SET LOCAL lock_timeout = 100",))
    with locked_table(database_url, "acme", "django_migrations"):
        status, printed, _complaints = run()
    assert status == 1
    assert "3 schemas: 2 ok, 1 error" in printed
    assert any("lock timeout" in line for line in printed)


# What the answer is when there is none


def test_without_a_database_there_is_one_line(acme: Tenant, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_kinds: Any) -> Any:
        raise Unavailable("The database did not answer: gone\nand more")

    monkeypatch.setattr(looking, "inspect_schemas", fail)
    assert run() == (2, [], ["The schemas can't be verified: The database did not answer: gone"])


def test_without_a_tenant_model_there_is_one_line(acme: Tenant, settings: Any) -> None:
    settings.TENANT_MODEL = "customers.Nobody"
    status, printed, (complaint,) = run()
    assert (status, printed) == (2, [])
    assert complaint.startswith("The tenants aren't configured: ")


# Repairing


def test_fix_repairs_each_state(spare: Tenant, other: Tenant, globex: Tenant) -> None:
    with spare_tenant("gone", is_made=False) as gone, spare_tenant("begun", is_made=False):
        execute("CREATE SCHEMA begun")
        drift(spare)
        verdicts.of("spare")
        status, printed, complaints = run("--fix")
        assert (status, complaints) == (0, [])
        changes = [line for line in printed if ": " in line][:-1]
        assert changes[0].startswith("begun: applied contenttypes.0001_initial, ")
        assert changes[1:] == [
            "gone: created and migrated",
            f"spare: table {STATUS_TABLE} was created again, empty",
        ]
        assert printed[-1] == "7 schemas: 7 ok"
        assert tables("begun") == tables("gone") == tables("globex")
        assert verdicts.of("spare").is_ready
        gone.create_user("alice")
        assert run("--fix")[1][-1] == "7 schemas: 7 ok"


def test_fix_goes_on_after_a_failure_and_tells_its_cause(spare: Tenant, other: Tenant, own: OwnMigrations) -> None:
    own.write("messages", "0001_taken", "migrations.RunSQL('CREATE TABLE taken ()')")
    execute("CREATE TABLE other.taken ()")
    status, printed, complaints = run("--fix", "--schema=other", "--schema=spare")
    assert printed[:2] == [
        'other: FAILED: messages.0001_taken: ProgrammingError: relation "taken" already exists',
        "spare: applied messages.0001_taken",
    ]
    assert (status, complaints) == (1, ["Not ready: 1 of 2 schemas."])
    execute("DROP TABLE other.taken")
    assert run("--fix", "--schema=other", "--schema=spare")[0] == 0


def test_fix_goes_on_after_a_failure_at_the_end_of_a_migration(
    spare: Tenant, other: Tenant, own: OwnMigrations
) -> None:
    """Django makes indexes when all else is done, and leaves its transaction when that fails."""
    own.write("messages", "0001_late", INDEXED)
    execute("CREATE TABLE other.taken (name text)", "CREATE INDEX late_name ON other.taken (name)")
    failure = 'messages.0001_late: ProgrammingError: relation "late_name" already exists'
    status, printed, complaints = run("--fix", "--schema=other", "--schema=spare")
    assert printed[:2] == [f"other: FAILED: {failure}", "spare: applied messages.0001_late"]
    assert (status, complaints) == (1, ["Not ready: 1 of 2 schemas."])
    assert not connection.in_atomic_block
    assert [line.split()[:2] for line in printed if line.startswith(("other  ", "spare  "))] == [
        ["other", "behind"],
        ["spare", "ok"],
    ]
    assert "messages_late" not in tables("other")
    execute("DROP TABLE other.taken")
    assert run("--fix", "--schema=other", "--schema=spare")[0] == 0


def test_each_change_has_a_line_and_all_that_is_missing_is_listed_if_wanted(spare: Tenant, globex: Tenant) -> None:
    indexes = [f"messaging_message_{name}" for name in ("reply", "changed")]
    columns = [f"django_tenant_messaging_message.{name}" for name in ("seq", "room_id", "timestamp", "content")]
    execute(*(f"DROP INDEX spare.{name}" for name in indexes))
    execute(*(f"ALTER TABLE spare.{column.replace('.', ' ALTER COLUMN ')} DROP NOT NULL" for column in columns))
    (brief,) = [line for line in run("--schema=spare", "--schema=globex")[1] if line.startswith("spare  ")]
    assert brief.endswith(" and 1 more")
    (full,) = [line for line in run("-v2", "--schema=spare", "--schema=globex")[1] if line.startswith("spare  ")]
    assert "more" not in full
    assert all(name in full for name in (*indexes, *columns))
    status, printed, _complaints = run("--fix", "--schema=spare", "--schema=globex")
    assert status == 0
    assert len([line for line in printed if line.startswith("spare: ")]) == len(indexes) + len(columns)
    assert not any(";" in line for line in printed)


def test_fix_goes_on_after_a_table_that_cant_be_made_again(spare: Tenant, other: Tenant) -> None:
    mention = "django_tenant_messaging_mention"
    execute(
        f"ALTER TABLE other.{mention} RENAME TO put_aside",
        f"DROP TABLE spare.{mention}",
    )
    status, printed, _complaints = run("--fix", "--schema=other", "--schema=spare")
    assert status == 1
    assert printed[0] == (
        f"other: FAILED: {mention} can't be made again, as put_aside holds its index messaging_mention_unique:"
        " if put_aside is that table under another name, rename it back; else rename the index"
    )
    assert printed[1] == f"spare: table {mention} was created again, empty"
    assert not connection.in_atomic_block


def test_fix_stops_at_the_first_failure_if_told(spare: Tenant, other: Tenant, own: OwnMigrations) -> None:
    own.write("messages", "0001_taken", "migrations.RunSQL('CREATE TABLE taken ()')")
    execute("CREATE TABLE other.taken ()")
    status, printed, _complaints = run("--fix", "--fail-fast", "--schema=other", "--schema=spare")
    assert (status, printed[-1]) == (1, "2 schemas: 2 behind")
    assert "taken" not in tables("spare")


def test_fix_tells_what_it_refuses(spare: Tenant) -> None:
    execute("DROP TABLE spare.auth_user CASCADE")
    status, printed, _complaints = run("--fix")
    assert status == 1
    assert re.match(r"spare: FAILED: .* restore schema spare from a backup$", printed[0])


def test_fix_repairs_the_shared_schema_first(spare: Tenant, own: OwnMigrations) -> None:
    own.write(
        "staticfiles", "0001_shared", "migrations.RunSQL('CREATE TABLE shared_thing ()', 'DROP TABLE shared_thing')"
    )
    drift(spare)
    try:
        status, printed, _complaints = run("--fix")
        assert status == 0
        assert printed[:2] == [
            "public: applied staticfiles.0001_shared",
            f"spare: table {STATUS_TABLE} was created again, empty",
        ]
    finally:
        execute(
            "DROP TABLE IF EXISTS public.shared_thing",
            "DELETE FROM public.django_migrations WHERE app = 'staticfiles'",
        )


def test_an_error_of_a_hosts_receiver_is_told_although_the_schema_is_ready(tenants: Any) -> None:
    from django_tenants.signals import post_schema_sync

    def fail(**_kwargs: Any) -> None:
        raise ValueError("on purpose")

    with spare_tenant("gone", is_made=False):
        post_schema_sync.connect(fail)
        try:
            status, printed, complaints = run("--fix")
        finally:
            post_schema_sync.disconnect(fail)
        assert printed[:2] == ["gone: created and migrated", "gone: FAILED: ValueError: on purpose"]
        assert (status, complaints) == (1, ["All schemas are ready, but not everything could be done."])
        assert run("--fix")[0] == 0


def test_an_interrupted_fix_tells_what_it_did(spare: Tenant, other: Tenant, monkeypatch: pytest.MonkeyPatch) -> None:
    drift(spare, other)
    original = fixing.repair_one_by_one

    def interrupted(*arguments: Any, **options: Any) -> Iterator[Any]:
        for repair in original(*arguments, **options):
            yield repair
            raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(verification, "repair_one_by_one", interrupted)
        status, printed, complaints = run("--fix")
    assert printed[0].startswith("other: table")
    assert printed[-1] == "5 schemas: 4 ok, 1 drifted"
    assert (status, complaints) == (
        2,
        ["Interrupted. What was done is kept; the command can be run again."],
    )
    assert run("--fix")[0] == 0


def test_a_database_that_goes_away_ends_a_fix(spare: Tenant, monkeypatch: pytest.MonkeyPatch) -> None:
    drift(spare)

    def fail(*_arguments: Any) -> None:
        raise Unavailable("The database did not answer.")

    monkeypatch.setattr("django_tenant_messaging.management.fixing.repair_schema", fail)
    status, _printed, complaints = run("--fix")
    assert (status, complaints) == (2, ["The schemas can't be verified: The database did not answer."])


# As a process


def test_exit_statuses(spare: Tenant, database_url: str) -> None:
    status, printed, complaints = finish(start(database_url))
    assert (status, printed.splitlines()[-1], complaints) == (0, "4 schemas: 4 ok", "")
    drift(spare)
    status, printed, complaints = finish(start(database_url, "--json"))
    assert (status, json.loads(printed)["ready"], complaints) == (
        1,
        False,
        "CommandError: Not ready: 1 of 4 schemas.\n",
    )
    status, printed, complaints = finish(start("postgresql://postgres@/nothing?host=/nowhere"))
    assert (status, printed, len(complaints.splitlines())) == (2, "", 1)
    # What the server's client library says; a pool would have tried again for ten seconds.
    assert "No such file or directory" in complaints
    for wrong in (["--parallel=0"], ["--parallel=65"], ["--parallel=x"], ["--nonsense"], ["--schema=nope"]):
        status, printed, complaints = finish(start(database_url, *wrong))
        assert (status, printed) == (2, ""), wrong
        assert "Traceback" not in complaints


def test_a_database_without_a_table_is_migrated_by_fix(run: Any, tenants: Any) -> None:
    """The container's first start."""
    url = run.create("fresh")
    status, printed, complaints = finish(start(url))
    assert status == 1
    assert "public  behind" in printed
    assert "Warning: the tenants can't be listed before the shared schema is migrated." in complaints
    status, printed, complaints = finish(start(url, "--fix"))
    assert (status, complaints) == (0, "")
    assert printed.splitlines()[-1] == "1 schema: 1 ok"


def test_three_at_once_on_one_schema_all_succeed(tenants: Any, database_url: str) -> None:
    with spare_tenant("begun", is_made=False):
        execute("CREATE SCHEMA begun")
        with holding("begun") as wait_for:
            processes = [start(database_url, "--fix", "--schema=begun") for _ in range(3)]
            wait_for(3, *processes)
        results = [finish(process) for process in processes]
        assert [(status, complaints) for status, _printed, complaints in results] == [(0, "")] * 3
        printed = sorted(printed.splitlines()[0][:20] for _status, printed, _complaints in results)
        assert printed == ["begun: applied conte", "begun: ready by now", "begun: ready by now"]
        assert inspect_schema("begun", "").state is SchemaState.OK


def test_ctrl_c_ends_a_fix_that_waits(spare: Tenant, other: Tenant, database_url: str) -> None:
    drift(spare, other)
    with holding("spare") as wait_for:
        process = start(database_url, "--fix")
        wait_for(1, process)
        process.send_signal(signal.SIGINT)
        status, printed, complaints = finish(process)
    assert status == 2
    assert printed.splitlines()[0] == f"other: table {STATUS_TABLE} was created again, empty"
    assert complaints == "CommandError: Interrupted. What was done is kept; the command can be run again.\n"
    assert inspect_schema("spare", "").state is SchemaState.DRIFTED


# With several processes


def test_parallel_fix_repairs_on_the_database_of_the_caller(
    spare: Tenant, other: Tenant, globex: Tenant, acme: Tenant
) -> None:
    with spare_tenant("gone", is_made=False) as gone:
        drift(spare, other)
        status, printed, complaints = run("--fix", "--parallel=2")
        assert (status, complaints) == (0, [])
        assert sorted(printed[:3]) == [
            "gone: created and migrated",
            f"other: table {STATUS_TABLE} was created again, empty",
            f"spare: table {STATUS_TABLE} was created again, empty",
        ]
        assert printed[-1] == "6 schemas: 6 ok"
        for tenant in (gone, spare):
            users = [tenant.create_user(name) for name in ("alice", "bob")]
            with tenant.activated():
                Message.objects.create(sender=users[0], receiver=users[1], content="hello")
        assert workers_of(psutil.Process()) == []


def workers_of(process: psutil.Process) -> list[psutil.Process]:
    """The worker processes of a parent; the one that keeps track of semaphores isn't any."""
    found = []
    for child in process.children(recursive=True):
        try:
            if any("spawn_main" in part for part in child.cmdline()):
                found.append(child)
        except psutil.NoSuchProcess:
            pass
    return found


def read_line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    watchdog = threading.Timer(PATIENCE, process.kill)
    watchdog.start()
    try:
        return process.stdout.readline().rstrip()
    finally:
        watchdog.cancel()


def test_a_killed_worker_costs_its_own_schema(spare: Tenant, other: Tenant, database_url: str) -> None:
    drift(spare, other)
    with holding("spare") as wait_for:
        process = start(database_url, "--fix", "--parallel=2")
        assert read_line(process).startswith("other: table")
        wait_for(1, process)
        for worker in workers_of(psutil.Process(process.pid)):
            # The first one's end may be the idle one's too.
            with suppress(psutil.NoSuchProcess):
                worker.kill()
        status, printed, complaints = finish(process)
    assert (status, complaints) == (1, "CommandError: Not ready: 1 of 5 schemas.\n")
    assert printed.splitlines()[0] == "spare: FAILED: its worker process ended (was it killed?)"
    assert "5 schemas: 4 ok, 1 drifted" in printed
    assert run("--fix")[0] == 0


def test_ctrl_c_leaves_no_worker(spare: Tenant, other: Tenant, database_url: str) -> None:
    drift(spare, other)
    with holding("spare") as wait_for:
        process = start(database_url, "--fix", "--parallel=2")
        assert read_line(process).startswith("other: table")
        wait_for(1, process)
        workers = workers_of(psutil.Process(process.pid))
        assert len(workers) == 2
        # As a terminal does: all at once, before the command could end its workers.
        os.killpg(process.pid, signal.SIGINT)
        status, printed, complaints = finish(process)
        assert (status, complaints) == (
            2,
            "CommandError: Interrupted. What was done is kept; the command can be run again.\n",
        )
        assert "5 schemas: 4 ok, 1 drifted" in printed
        assert psutil.wait_procs(workers, timeout=PATIENCE)[1] == []


def test_a_killed_parent_leaves_no_worker(spare: Tenant, other: Tenant, database_url: str) -> None:
    drift(spare, other)
    with holding("spare") as wait_for:
        process = start(database_url, "--fix", "--parallel=2")
        assert read_line(process).startswith("other: table")
        wait_for(1, process)
        workers = workers_of(psutil.Process(process.pid))
        process.kill()
        finish(process)
        assert psutil.wait_procs(workers, timeout=PATIENCE)[1] == []


def test_workers_that_never_start_are_told(
    spare: Tenant, other: Tenant, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    drift(spare, other)
    monkeypatch.setenv("DJANGO_SETTINGS_MODULE", "nothing.there")
    status, printed, complaints = run("--fix", "--parallel=2")
    assert status == 1
    assert [line for line in printed if "its worker process ended" in line]
    assert complaints == ["Not ready: 2 of 5 schemas."]


def test_parallel_fix_stops_at_the_first_failure_if_told(spare: Tenant, other: Tenant) -> None:
    with spare_tenant("third") as third:
        execute("DROP TABLE other.auth_user CASCADE", "DROP TABLE spare.auth_user CASCADE")
        drift(third)
        status, printed, _complaints = run("--fix", "--fail-fast", "--parallel=2")
        assert status == 1
        assert len([line for line in printed if "FAILED" in line]) == 2
        assert not [line for line in printed if line.startswith("third: ")]
        assert inspect_schema("third", "").state is SchemaState.DRIFTED


def test_a_schema_that_is_no_text_is_named_and_unknown() -> None:
    name = b"\xff\xfe".decode(errors="surrogateescape")
    status, printed, complaints = run("--schema", name)
    assert (status, printed, complaints) == (2, [], ["No tenant has the schema: \\udcff\\udcfe"])
    status, _printed, complaints = run_command("create_user_statuses", "--schema", name)
    assert status == 2
    assert "No tenant has the schema" in complaints[-1]


def test_a_chosen_tenant_is_not_ready_while_the_shared_schema_is_not(spare: Tenant, database_url: str) -> None:
    with without_table(database_url, "public", "customers_domain"):
        status, printed, complaints = run("--schema", "spare")
        assert status == 1
        assert "1 schema: 1 ok" in printed
        assert "the shared schema is not ready" in complaints[0]
        assert "--schema=public" in complaints[0]
        assert complaints[-1] == "Not ready: the shared schema."
    assert run("--schema", "spare")[0] == 0


def test_many_are_looked_at_over_two_connections(spare: Tenant, monkeypatch: pytest.MonkeyPatch) -> None:
    """In their order, and what the one that asks hasn't committed yet is seen nevertheless."""
    monkeypatch.setattr(looking, "FEW", 2)
    expected = list(inspect_schemas(schema_kinds()))
    kinds = schema_kinds()
    with exactly(0):
        assert list(looking.look_at(kinds)) == expected
    with transaction.atomic():
        drift(spare)
        found = {one.schema_name: one.state for one in looking.look_at(schema_kinds())}
        transaction.set_rollback(True)
    assert found["spare"] is SchemaState.DRIFTED

"""What alerting sees of a tenant that isn't ready: by Sentry, by a formatter of JSON, and by patterns in the log."""

from __future__ import annotations

import ast
import json
import logging
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from django_tenant_messaging.tenancy import readiness_of
from example.services.process import python_path
from tests.harness.breaking import OURS, without_record, without_table
from tests.harness.peer import session_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.harness.tenants import Tenant

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "src/django_tenant_messaging"
GUIDE = (ROOT / "docs/operations.md").read_text()
SECRET = "the merger is on Friday"
#: In a process of its own: Sentry's integrations change Django and logging for good.
PROGRAM = """
import json, os, sys

import django
import sentry_sdk
from sentry_sdk.transport import Transport

class Kept(Transport):
    events = []

    def capture_envelope(self, envelope):
        self.events += [item.payload.json for item in envelope.items if item.payload.json is not None]

really = sentry_sdk.init
sentry_sdk.init = lambda **options: really(**options | {"dsn": "https://key@sentry.invalid/1", "transport": Kept})
exec(os.environ["INIT"])
django.setup()

from django.conf import settings
from django.test import Client
from django_tenant_messaging import actions

def fail(actor, *, room_id, content, **fields):
    raise RuntimeError("a fault")

actions.send_message = fail
answers = []
for tenant, session in json.loads(os.environ["SESSIONS"]).items():
    client = Client(SERVER_NAME=tenant + ".localhost", raise_request_exception=False)
    client.cookies[settings.SESSION_COOKIE_NAME] = session
    # What a member of the tenant was about to write.
    form = {"content": os.environ["SECRET"], "client_id": "00000000-0000-4000-8000-000000000000"}
    answers.append(client.post("/messages/rooms/1/", form).status_code)
sentry_sdk.flush()
json.dump({"answers": answers, "events": Kept.events}, sys.stdout)
"""


def guide_block(word: str) -> str:
    """The guide's Python example that holds a word."""
    (found,) = (block for block in re.findall(r"```python\n(.*?)```", GUIDE, re.DOTALL) if word in block)
    return str(found)


@pytest.fixture
def sessions(acme: Tenant, globex: Tenant, people: tuple[str, ...], team: None) -> dict[str, str]:
    """Those of alice, who is logged in at both tenants, by tenant."""
    found = {}
    for tenant in (acme, globex):
        with tenant.activated():
            found[tenant.schema_name] = session_of(tenant.users["alice"])
    return found


def reported(database_url: str, sessions: dict[str, str], init: str) -> tuple[list[int], list[dict[str, Any]]]:
    """What a message to each tenant is answered with, and the events that Sentry is sent, set up by `init`."""
    path = python_path(ROOT, ROOT / "example_project")
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        env={
            **os.environ,
            "PYTHONPATH": path,
            "DJANGO_SETTINGS_MODULE": "tests.settings",
            "DATABASE_URL": database_url,
            "INIT": init,
            "SECRET": SECRET,
            "SESSIONS": json.dumps(sessions),
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    return answer["answers"], answer["events"]


def test_sentry_gets_a_fatal_event_with_fields_and_nothing_that_users_wrote(
    database_url: str, sessions: dict[str, str]
) -> None:
    with without_record(database_url, "acme"):
        answers, events = reported(database_url, sessions, guide_block("sentry_sdk.init"))
    # In acme, which isn't ready, a refusal; in globex the fault of a view, whose traceback Sentry adds.
    assert answers == [503, 500]
    fatal, fault = events
    assert fatal["level"] == "fatal"
    assert fatal["logger"] == "django_tenant_messaging.tenancy.gate.verdicts"
    remedy = "python manage.py migrate_schemas --schema=acme"
    assert fatal["logentry"]["formatted"] == (
        f"[acme] NOT READY, nothing is served from this schema: not applied: {', '.join(OURS)}."
        f" Required action: {remedy}"
    )
    expected = {
        "schema_name": "acme",
        "schema_state": "behind",
        "missing_migrations": list(OURS),
        "missing_relations": [],
        "remedy": remedy,
    }
    assert fatal["extra"].items() >= expected.items()
    assert fatal["tags"] == {"schema_name": "acme", "schema_state": "behind"}
    assert fault["exception"]["values"][-1]["value"] == "a fault"
    for event in events:
        text = json.dumps(event)
        assert SECRET not in text
        assert not any(session in text for session in sessions.values())


def test_the_fields_reach_sentry_without_any_setup_of_ours(database_url: str, sessions: dict[str, str]) -> None:
    with without_record(database_url, "acme"):
        _answers, events = reported(database_url, {"acme": sessions["acme"]}, "sentry_sdk.init()")
    assert [(event["level"], event["extra"]["schema_name"]) for event in events] == [("fatal", "acme")]


def test_a_formatter_of_json_finds_the_fields(
    acme: Tenant, database_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    names: dict[str, Any] = {}
    exec(guide_block("JsonFormatter"), names)  # noqa: S102 - our own documentation
    with without_table(database_url, "acme"):
        readiness_of("acme")
    record = next(record for record in caplog.records if record.levelno == logging.CRITICAL)
    line = json.loads(names["JsonFormatter"]().format(record))
    assert line["level"] == "CRITICAL"
    assert line["message"].startswith("[acme] NOT READY")
    assert line["schema_name"] == "acme"
    assert line["schema_state"] == "drifted"
    assert line["missing_relations"] == ["django_tenant_messaging_userstatus"]
    assert line["remedy"] == "python manage.py verify_tenant_migrations --fix --schema=acme"


METHODS = {
    "debug": "DEBUG",
    "info": "INFO",
    "warning": "WARNING",
    "error": "ERROR",
    "exception": "ERROR",
    "critical": "CRITICAL",
    # Its level is a variable, of which the guide names the worst.
    "log": "CRITICAL",
}


def shape(node: ast.AST) -> str | None:
    """A text of the source with `…` for all that differs."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return re.sub(r"%(\.\d+)?[srdf]", "…", node.value)
    if isinstance(node, ast.JoinedStr):
        return "".join(shape(part) if isinstance(part, ast.Constant) else "…" for part in node.values)  # type: ignore[misc] # a constant has a shape
    return None


def written_lines() -> Iterator[tuple[str, str, str]]:
    """The level, logger and shape of each line that the package can log."""
    for file in PACKAGE.rglob("*.py"):
        logger = ".".join(file.relative_to(PACKAGE).with_suffix("").parts)
        for node in ast.walk(ast.parse(file.read_text())):
            match node:
                case ast.Call(func=ast.Attribute(value=ast.Name(id="logger"), attr=method), args=[text, *others]) if (
                    method in METHODS
                ):
                    found = shape(others[0] if method == "log" else text)
                    assert found is not None, ast.dump(node)
                    yield METHODS[method], logger, found
                case ast.Call(func=ast.Name(id="log_response"), args=[text, *_]):
                    yield "WARNING", logger, str(shape(text))
                case _:
                    pass


def documented_lines() -> list[tuple[str, str, str]]:
    """The level, logger and pattern of each row of the guide."""
    return re.findall(r"^\| ([A-Z]+)(?: or WARNING)? \| `([\w.]+)` \| `(.+?)` \|", GUIDE, re.MULTILINE)


def test_every_pattern_of_the_guide_occurs_in_the_source() -> None:
    written = set(written_lines())
    texts = {
        found
        for file in PACKAGE.rglob("*.py")
        for node in ast.walk(ast.parse(file.read_text()))
        if (found := shape(node))
    }
    documented = documented_lines()
    assert len(documented) > 30
    for level, logger, pattern in documented:
        # A line that is made elsewhere is logged as it is.
        assert (level, logger, pattern) in written or ((level, logger, "…") in written and pattern in texts), pattern


def test_every_line_from_info_on_is_in_the_guide() -> None:
    documented = set(documented_lines())
    for level, logger, pattern in written_lines():
        assert level == "DEBUG" or pattern == "…" or (level, logger, pattern) in documented, (level, logger, pattern)

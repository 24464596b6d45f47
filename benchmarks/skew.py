"""What reading and writing cost in a tenant with a room of a million messages, each thing by itself.

Run it with `make bench-skew`. It brings its own PostgreSQL, fills one tenant, and asks everything four times: by the
host's own connections and by a worker thread's, with statistics of now and of a time when there were 1,000 messages.
The table goes to `benchmarks/results/skew.txt`, the figures to `skew.json`. What is written is undone.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "example_project")]

from example.services import EmbeddedPostgres  # noqa: E402 - the path is set above

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from benchmarks.skewed_tenant import Skewed

    Figures = dict[str, dict[str, Any]]

RESULTS = ROOT / "benchmarks/results"
LONGEST = 15.0
"""Seconds after which a measurement is given up."""
SLOW = 0.5
"""Seconds from which a single try is enough."""
RUNS = 5
SERVER_OPTIONS = {"fsync": "off", "autovacuum": "off", "shared_buffers": "1GB", "max_wal_size": "8GB", "jit": "on"}
CONDITIONS = [(age, where) for age in ("stale", "fresh") for where in ("worker", "host")]
HEADS = {
    "worker": "by a worker thread, as for sockets",
    "host": "by the host's own connection, as for pages and commands",
    "fresh": "statistics of now",
    "stale": "statistics of a time when the room had 1,000 messages",
}


@dataclass(frozen=True)
class Row:
    """Something that is asked; pages are never asked by a worker.

    What is written in steps is committed, and put back afterwards: undone, each step would have to pass by what those
    before it left.
    """

    name: str
    ask: Callable[[], Any]
    by_worker: bool = True
    in_steps: bool = False


def main() -> None:
    """Measure everything and write it down."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", type=int, default=1_000_000, help="messages of the huge room, 10,000 or more")
    parser.add_argument("--before", type=Path, help="figures of another run, to stand beside these")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder for the table and the figures")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, EmbeddedPostgres(Path(folder), options=SERVER_OPTIONS) as server:
        os.environ |= {"DATABASE_URL": server.url(), "DJANGO_SETTINGS_MODULE": "benchmarks.ours_settings", "DEBUG": "0"}
        import django

        django.setup()
        figures = measure(chosen.size)
    before = json.loads(chosen.before.read_text()) if chosen.before else {}
    text = table(figures, before)
    chosen.results.mkdir(exist_ok=True)
    (chosen.results / "skew.json").write_text(json.dumps(figures, indent=1) + "\n")
    (chosen.results / "skew.txt").write_text(text)
    print(text)


def measure(size: int) -> dict[str, Figures]:
    """Fill the tenant and ask everything under each condition."""
    from benchmarks.skewed_tenant import SCHEMA, analyse, fill
    from benchmarks.tenants import make_tenants
    from django_tenant_messaging.tenancy import activated
    from example.customers.models import Customer, Domain

    make_tenants([SCHEMA])
    Domain.objects.create(
        domain=f"{SCHEMA}.localhost", tenant=Customer.objects.get(schema_name=SCHEMA), is_primary=True
    )
    began = time.perf_counter()
    with activated(SCHEMA):
        tenant = fill(size)
    print(f"filled in {time.perf_counter() - began:.0f} s", file=sys.stderr)
    figures: dict[str, Figures] = {}
    for age, where in CONDITIONS:
        if age == "fresh":
            with activated(SCHEMA):
                analyse()
        rows = [row for row in rows_of(tenant) if row.by_worker or where == "host"]
        figures[f"{age}, {where}"] = {row.name: measured(row, where) for row in rows}
    return figures


def rows_of(tenant: Skewed) -> list[Row]:
    """List what is asked; what writes much comes last, for it leaves dead rows."""
    from benchmarks.skewed_tenant import DIRECT, HUGE
    from django_tenant_messaging import actions, selectors

    t = tenant
    room_ids = range(DIRECT + 1, DIRECT + 1_001)
    about = {"room_id": HUGE, "message_id": t.message}
    fifty = range(t.message, t.message + 50)
    page, steps = partial(Row, by_worker=False), partial(Row, in_steps=True)
    admin = "/admin/django_tenant_messaging/message/"
    return [
        Row("conversations of one in 50 small rooms", lambda: selectors.list_conversations(t.few)),
        page("their list page", lambda: get(t.few, "/messages/")),
        Row("conversations of one in 2,000 rooms", lambda: selectors.list_conversations(t.many)),
        Row("the same, 200 of them", lambda: selectors.list_conversations(t.many, limit=200)),
        Row("positions in 1,000 named rooms", lambda: selectors.rooms_among(t.many, room_ids)),
        Row("unread notifications, 10^5 of 2 x 10^5", lambda: selectors.list_notifications(t.told, unread_only=True)),
        Row("the right to be in the huge room", lambda: selectors.access_membership(t.member, HUGE)),
        Row("its changes from far back, a page", lambda: selectors.read_changes(HUGE, after=10, limit=50)),
        Row("an older page of its history", lambda: selectors.room_history(t.member, room_id=HUGE, before=t.message)),
        Row("50 messages by id, with mentions", lambda: selectors.messages_by_id(fifty)),
        Row("one mention in the huge room", lambda: selectors.mentioned_members({HUGE: ["user7"]})),
        Row("who is online for 50 of its members", lambda: selectors.online_contacts_of(t.crowd)),
        Row("earlier versions of a message", lambda: selectors.list_revisions(t.writer, **about)),
        Row("editing a message", lambda: actions.edit_message(t.writer, **about, content="said otherwise")),
        Row("deleting a message", lambda: actions.delete_message(t.writer, **about)),
        Row("sending with a mention", lambda: actions.send_message(t.member, room_id=HUGE, content="hello @user7")),
        Row("leaving the huge room", lambda: actions.leave_room(t.member, room_id=HUGE)),
        page("the huge room's page", lambda: get(t.member, f"/messages/rooms/{HUGE}/")),
        page("its members' page", lambda: get(t.member, f"/messages/rooms/{HUGE}/members/?after=9")),
        page("admin: messages", lambda: get(t.owner, admin)),
        page("admin: messages, searched", lambda: get(t.owner, f"{admin}?q=number+77")),
        page("admin: messages, sorted by time", lambda: get(t.owner, f"{admin}?o=5")),
        page("admin: messages with mentions", lambda: get(t.owner, f"{admin}?mentions=some")),
        page("admin: messages without mentions", lambda: get(t.owner, f"{admin}?mentions=none")),
        page("admin: messages, the last page", lambda: get(t.owner, f"{admin}?p={last_page()}")),
        Row("marking 5 of 10^5 as read", lambda: actions.mark_read(t.told, room_id=DIRECT, seq=5)),
        Row("marking 50 of 10^5 as read", lambda: actions.mark_read(t.told, room_id=DIRECT, seq=50)),
        steps("marking 10^5 as read", lambda: actions.mark_read(t.told, room_id=DIRECT, seq=t.unread)),
        steps("marking the huge room as read", lambda: actions.mark_read(t.told, room_id=HUGE, seq=t.messages)),
        steps("marking 10^5 notifications as read", lambda: actions.mark_notifications_read(t.told)),
        page("admin: all unread notifications of a list", lambda: mark_in_admin(t.owner), in_steps=True),
    ]


def last_page() -> int:
    """Return the number of the last page of messages."""
    from django_tenant_messaging.admin.looking import WINDOW, LookOnlyAdmin

    return WINDOW // LookOnlyAdmin.list_per_page


def client_of(user: Any) -> Any:
    """Return a browser in which the user is logged in."""
    from django.test import Client

    from benchmarks.skewed_tenant import SCHEMA

    client = Client(SERVER_NAME=f"{SCHEMA}.localhost")
    client.force_login(user)
    return client


def get(user: Any, path: str) -> None:
    """Look at a page."""
    answered(client_of(user).get(path), 200, path)


def mark_in_admin(user: Any) -> None:
    """Choose all of a filtered list of notifications and mark them."""
    path = "/admin/django_tenant_messaging/notification/?is_read__exact=0"
    form = {"action": "mark_as_read", "select_across": "1", "index": "0", "_selected_action": "1"}
    answered(client_of(user).post(path, form), 302, path)


def answered(response: Any, status: int, path: str) -> None:
    """Fail unless a page was answered as it should be."""
    if response.status_code != status:
        raise RuntimeError(f"{path} answered {response.status_code}")


def in_tenant(work: Callable[[], Any]) -> Any:
    """Do something in the tenant, by this thread."""
    from benchmarks.skewed_tenant import SCHEMA
    from django_tenant_messaging.tenancy import activated

    with activated(SCHEMA):
        return work()


def measured(row: Row, where: str) -> dict[str, Any]:
    """Ask some times: the median of the milliseconds, and the buffers, which are the same each time but the first."""
    from asgiref.sync import async_to_sync

    from benchmarks.skewed_tenant import SCHEMA, put_back
    from django_tenant_messaging.tenancy import run_in_tenant

    def once() -> dict[str, Any]:
        work = partial(cost_of, row.ask, undone=not row.in_steps)
        found: dict[str, Any] = in_tenant(work) if where == "host" else async_to_sync(run_in_tenant)(SCHEMA, work)
        if row.in_steps:
            in_tenant(put_back)
        return found

    tries = [once()]
    # The first one fills caches.
    again = 0 if row.in_steps or tries[0]["ms"] is None or tries[0]["ms"] > SLOW * 1e3 else RUNS
    tries = [once() for _ in range(again)] or tries
    times = [found["ms"] for found in tries if found["ms"] is not None]
    figures = {"ms": round(statistics.median(times), 1) if times else None, "buffers": tries[-1]["buffers"]}
    print(f"{where:7}{row.name:45}{figures}", file=sys.stderr)
    return figures


def cost_of(ask: Callable[[], Any], *, undone: bool) -> dict[str, Any]:
    """Ask once, on this thread's connection: milliseconds, none when it took too long, and buffers."""
    from django.db import OperationalError, connection

    buffers_before = buffers()
    began = time.perf_counter()
    ms: float | None = None

    def in_time(execute: Any, *arguments: Any) -> Any:
        if time.perf_counter() - began > LONGEST:
            raise OperationalError("given up")
        return execute(*arguments)

    try:
        with undoing() if undone else nullcontext(), connection.execute_wrapper(in_time):
            ask()
            ms = (time.perf_counter() - began) * 1e3
    except OperationalError:
        pass
    return {"ms": ms, "buffers": buffers() - buffers_before}


@contextmanager
def undoing() -> Iterator[None]:
    """Undo what the body writes, and end a statement that takes too long."""
    from django.db import connection, transaction

    with transaction.atomic():
        with connection.cursor() as cursor:
            cursor.execute(f"SET LOCAL statement_timeout = {int(LONGEST * 1e3)}")
        yield
        transaction.set_rollback(True)


def buffers() -> int:
    """Return how many buffers of tables the database has looked at until now."""
    from django.db import connection

    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_stat_force_next_flush()")
        cursor.execute("SELECT blks_hit + blks_read FROM pg_stat_database WHERE datname = current_database()")
        return int(cursor.fetchone()[0])


def table(figures: dict[str, Figures], before: dict[str, Figures]) -> str:
    """Lay the figures out, beside those of another run where there are any."""
    runs = [before, figures] if before else [figures]
    heads = ["before", "now"] if before else ["now"]
    lines = []
    for condition, of_rows in figures.items():
        age, where = condition.split(", ")
        lines += [f"{HEADS[where]}; {HEADS[age]}", ""]
        titles = [f"{unit} {head}" for unit in ("ms", "buffers") for head in heads]
        lines.append(" " * 44 + "".join(f"{title:>16}" for title in titles))
        for name in of_rows:
            found = [run.get(condition, {}).get(name) for run in runs]
            cells = [shown(one, unit) for unit in ("ms", "buffers") for one in found]
            lines.append(f"{name:44}" + "".join(f"{cell:>16}" for cell in cells))
        lines.append("")
    return "\n".join(lines)


def shown(found: dict[str, Any] | None, unit: str) -> str:
    """Show a figure; what was given up has none."""
    if found is None:
        return "-"
    if found["ms"] is None:
        return f"over {LONGEST * 1e3:,.0f}" if unit == "ms" else "-"
    return f"{found[unit]:,.1f}" if unit == "ms" and found[unit] < 100 else f"{found[unit]:,.0f}"


if __name__ == "__main__":
    main()

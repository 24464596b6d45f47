from __future__ import annotations

import signal
import sys
import threading
import uuid
from argparse import ArgumentParser, ArgumentTypeError
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError
from django.db import OperationalError
from psycopg_pool import PoolTimeout
from tqdm import tqdm

from django_tenant_messaging.exceptions import MessagingError
from example.services.process import ServiceError
from replay.checker import check_elsewhere, check_logs, check_rows
from replay.client import Endpoint
from replay.conductor import play_all, raise_file_limit
from replay.corpus import Corpus, CorpusError, read_corpus
from replay.database import demo_database
from replay.player import GaveUpError, Job, Progress
from replay.report import Report, TenantReport
from replay.script import Script, build_script
from replay.server import own_server, require_answer
from replay.stage import Stage, UnknownTenantError, domain_of, history, staged

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from replay.recorder import Record

BAD_CALL = 2
INTERRUPTED = 130
SPARE_FILES = 200


class Command(BaseCommand):
    """Plays recorded chat through the WebSocket API and checks every delivery."""

    help = (
        "Play a file of recorded chat (JSON lines, plain or gzipped) through the public WebSocket API with "
        "one real client for each nick, then compare what each client received with the database. Exit status: 0 "
        "when all logs equal their room's history, 1 when one doesn't, 2 for a bad call."
    )
    requires_system_checks: list[str] = []

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Declare the options."""
        parser.add_argument("file", type=Path, help="room, at, user, text and reply_to in each line")
        parser.add_argument(
            "--tenant",
            action="append",
            metavar="SCHEMA",
            help="play into this tenant; give it again to play into several at once (default: acme)",
        )
        parser.add_argument("--lines", type=_at_least(1), metavar="N", help="play the first N lines only")
        parser.add_argument(
            "--speed",
            type=_speed,
            default=None,
            metavar="N|max",
            help="messages per second in each tenant; the default, max, sends the next message of a room as "
            "soon as the one before is acknowledged. The times of the file aren't kept: its rooms lie years "
            "apart",
        )
        parser.add_argument(
            "--users",
            type=_at_least(1),
            metavar="N",
            help="clients in each tenant at most; a nick above that number shares the account of another",
        )
        parser.add_argument(
            "--listeners",
            type=_at_least(0),
            default=0,
            metavar="N",
            help="silent members added to every room",
        )
        parser.add_argument(
            "--churn",
            type=_share,
            default=0.05,
            metavar="SHARE",
            help="share of the clients that lose their connection during the play and resume (default: 0.05)",
        )
        parser.add_argument(
            "--patience",
            type=_at_least(1),
            default=60,
            metavar="SECONDS",
            help="give up when nothing moves for so long (default: 60)",
        )
        parser.add_argument(
            "--url",
            metavar="ws://HOST:PORT",
            help="a running server on the same database (default: start one)",
        )

    def handle(self, *_args: Any, **options: Any) -> None:
        """Prepare, play, check, report."""
        try:
            corpus = read_corpus(options["file"], limit=options["lines"])
            self._tell_skips(corpus)
            address = _address(options["url"]) if options["url"] else None
            if address:
                require_answer(*address)
            with _sigterm_like_ctrl_c(), demo_database():
                report = self._play(corpus, address, options)
        except (CorpusError, UnknownTenantError, ServiceError, MessagingError, GaveUpError) as error:
            raise CommandError(str(error), returncode=BAD_CALL) from error
        except KeyboardInterrupt:
            raise CommandError("Interrupted.", returncode=INTERRUPTED) from None
        except (OperationalError, PoolTimeout) as error:
            raise CommandError(f"The database doesn't answer: {error}", returncode=BAD_CALL) from error
        self.stdout.write(report.text())
        if not report.clean:
            raise CommandError("The play isn't clean.", returncode=1)

    def _play(self, corpus: Corpus, address: tuple[str, int] | None, options: dict[str, Any]) -> Report:
        tenants = list(dict.fromkeys(options["tenant"] or ["acme"]))
        domains = [domain_of(tenant) for tenant in tenants]
        run = uuid.uuid4()
        most = (raise_file_limit() - SPARE_FILES) // len(tenants) - options["listeners"]
        scripts = [
            build_script(
                corpus.lines,
                tenant=tenant,
                run=run,
                max_users=min(options["users"] or most, most),
                listeners=options["listeners"],
            )
            for tenant in tenants
        ]
        self._tell_cast(scripts[0], tenants)
        with ExitStack() as stack:
            stages = [
                stack.enter_context(staged(tenant, script, run.hex[:8]))
                for tenant, script in zip(tenants, scripts, strict=True)
            ]
            host, port = address or stack.enter_context(own_server(self.stderr.write))
            jobs = [
                Job(
                    tenant=stage.schema,
                    endpoint=Endpoint(host, port, domain, settings.SESSION_COOKIE_NAME),
                    accounts=stage.accounts,
                    rooms=script.rooms,
                    room_ids=stage.room_ids,
                    rate=options["speed"],
                    churn=options["churn"],
                    patience=options["patience"],
                    seed=run.int,
                )
                for stage, script, domain in zip(stages, scripts, domains, strict=True)
            ]
            with _progress_bar(jobs) as on_progress:
                records = play_all(jobs, on_progress)
            return _check(stages, scripts, records)

    def _tell_skips(self, corpus: Corpus) -> None:
        for skipped in corpus.skips:
            self.stderr.write(f"line {skipped.number} skipped: {skipped.reason}")
        if corpus.skipped > len(corpus.skips):
            self.stderr.write(f"... {corpus.skipped:,} lines skipped in all")
        if corpus.orphans:
            self.stderr.write(f"{corpus.orphans:,} replies to skipped lines are sent as plain messages")
        if not corpus.lines:
            raise CorpusError("The file has no line to play.")

    def _tell_cast(self, script: Script, tenants: Sequence[str]) -> None:
        self.stdout.write(
            f"{script.parts:,} messages in {len(script.rooms):,} rooms by {len(script.users):,} clients, "
            f"{script.deliveries:,} deliveries, in each of: {', '.join(tenants)}"
        )
        if script.shared:
            self.stdout.write(f"{script.shared:,} nicks share the account of another (--users or the file limit)")


def _check(stages: Sequence[Stage], scripts: Sequence[Script], records: Sequence[Record]) -> Report:
    of_this_run = {part.client_id for script in scripts for room in script.rooms for part in room.parts}
    report = Report()
    for stage, script, record in zip(stages, scripts, records, strict=True):
        tally = check_elsewhere(record.strays, of_this_run)
        numbers = {entry: number for number, entry in enumerate(record.table)}
        senders = [account.user_id for account in stage.accounts]
        rows = 0
        for room_id, room in zip(stage.room_ids, script.rooms, strict=True):
            stored = history(stage.schema, room_id)
            rows += len(stored)
            logs = (record.logs[number, room_id] for number in room.members)
            tally.add(check_logs(stored, logs, record.table, numbers))
            tally.add(check_rows(room, senders, stored, record.acks))
        report.tenants.append(
            TenantReport(
                tenant=stage.schema,
                lines=script.parts,
                rooms=len(script.rooms),
                clients=len(script.users),
                expected=script.deliveries,
                rows=rows,
                record=record,
                tally=tally,
            )
        )
    return report


@contextmanager
def _sigterm_like_ctrl_c() -> Iterator[None]:
    """End server, players and database in order when the command is told to end."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def _progress_bar(jobs: Sequence[Job]) -> Iterator[Callable[[str, Progress], None]]:
    """A bar of the acknowledged messages of all tenants; only on a terminal."""
    latest: dict[str, Progress] = {}
    total = sum(len(room.parts) for job in jobs for room in job.rooms)
    with tqdm(total=total, unit="msg", disable=not sys.stderr.isatty(), dynamic_ncols=True) as bar:

        def on_progress(tenant: str, progress: Progress) -> None:
            latest[tenant] = progress
            bar.n = sum(state.acked for state in latest.values())
            bar.set_postfix_str(
                f"{sum(state.connected for state in latest.values()):,} clients, "
                f"{sum(state.deliveries for state in latest.values()):,} deliveries"
            )

        yield on_progress


def _address(url: str) -> tuple[str, int]:
    try:
        parts = urlsplit(url)
        port = parts.port or 80
    except ValueError as error:
        raise ServiceError(f"{url} isn't an address: {error}.") from error
    if parts.scheme not in {"ws", "http"} or not parts.hostname:
        raise ServiceError(f"{url} isn't an address such as ws://127.0.0.1:8000.")
    return parts.hostname, port


def _at_least(low: int) -> Callable[[str], int]:
    def number(text: str) -> int:
        if not text.isascii() or not text.isdigit() or int(text) < low:
            raise ArgumentTypeError(f"{text!r} isn't a whole number of at least {low}")
        return int(text)

    return number


def _speed(text: str) -> float | None:
    value = None if text == "max" else _number(text)
    if value is not None and not 0 < value < float("inf"):
        raise ArgumentTypeError(f"{text!r} is neither max nor a number of messages per second above 0")
    return value


def _share(text: str) -> float:
    value = _number(text)
    if not 0 <= value <= 1:
        raise ArgumentTypeError(f"{text!r} isn't between 0 and 1")
    return value


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise ArgumentTypeError(f"{text!r} isn't a number") from None

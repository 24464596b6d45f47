"""The replay: what its reader refuses, what its checker catches, and a small play against the real server."""

from __future__ import annotations

import gzip
import io
import json
import uuid
from array import array
from typing import TYPE_CHECKING, Any

import pytest
from django.core.management import CommandError, call_command

from replay.checker import Entry, Tally, check_elsewhere, check_log, check_logs, check_rows, digest
from replay.corpus import CorpusError, read_corpus
from replay.recorder import Latencies
from replay.script import build_script

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from tests.harness.server import Server
    from tests.harness.tenants import Tenant

NICKS = ("ball", "mib_y9uyk1", "we|rd[x]^", "Zoë{}", "back\\slash")


def line(**fields: Any) -> dict[str, Any]:
    whole = {"room": "rust", "at": "2018-05-29T21:25:45+00:00", "user": "ball", "text": "hello", "reply_to": None}
    return whole | fields


def write(path: Path, lines: Sequence[dict[str, Any] | bytes]) -> Path:
    rows = [item if isinstance(item, bytes) else json.dumps(item).encode() for item in lines]
    path.write_bytes(b"\n".join(rows) + b"\n")
    return path


class TestReader:
    @pytest.mark.parametrize(
        ("broken", "reason"),
        [
            (b"", "not JSON"),
            (b"{", "not JSON"),
            (b"[" * 100_000, "not JSON"),
            (b'{"room": "rust", "at": ' + b"1" * 5000 + b"}", "not JSON"),
            (b"[]", "not a JSON object"),
            (b'{"room": "\xff"}', "not UTF-8"),
            (b" " * (1 << 20), "longer than"),
            ({}, "room: missing"),
            (line(room=1), "room: not a string"),
            (line(room=""), "room: empty"),
            (line(user=None), "user: not a string"),
            (line(user="x" * 151), "user: longer than 150"),
            (line(text=""), "text: empty"),
            (line(text=" \t"), "text: empty"),
            (line(text="a\0b"), "text: has a NUL"),
            (line(text="\ud800"), "text: has a lone surrogate"),
            (line(text="\x0304red"), "text: must not contain U+0003 (character 1): it is a control character"),
            (line(at="yesterday"), "at: not an ISO 8601 time"),
            ({key: value for key, value in line().items() if key != "reply_to"}, "reply_to: missing"),
            (line(reply_to="0"), "reply_to: neither"),
            (line(reply_to=True), "reply_to: neither"),
            (line(reply_to=-1), "isn't an earlier message"),
            (line(reply_to=1), "isn't an earlier message"),
            (line(reply_to=10**30), "isn't an earlier message"),
        ],
        ids=str,
    )
    def test_broken_line_is_skipped(self, tmp_path: Path, broken: dict[str, Any] | bytes, reason: str) -> None:
        lines = [line(text="first"), broken, line(text="to first", reply_to=0), line(reply_to=1)]
        corpus = read_corpus(write(tmp_path / "chat.jsonl", lines))
        assert [(skipped.number, reason in skipped.reason) for skipped in corpus.skips] == [(2, True)]
        # The broken line keeps its place: who answers the first still does, who answers it answers nobody.
        assert [(one.number, one.index, one.reply_to) for one in corpus.lines] == [
            (1, 0, None),
            (3, 2, 0),
            (4, 3, None),
        ]
        assert corpus.orphans == 1

    def test_reads_gzip_and_byte_order_mark(self, tmp_path: Path) -> None:
        path = tmp_path / "chat.jsonl.gz"
        path.write_bytes(gzip.compress(b"\xef\xbb\xbf" + json.dumps(line()).encode()))
        assert [one.text for one in read_corpus(path).lines] == ["hello"]

    def test_broken_lines_count_in_the_room_around_them(self, tmp_path: Path) -> None:
        lines: list[dict[str, Any] | bytes] = [
            b"{",
            line(text="a1"),
            line(room="other", text="b0"),
            b"{",
            line(room="other", reply_to=0),
            line(reply_to=1),
        ]
        corpus = read_corpus(write(tmp_path / "chat.jsonl", lines))
        assert [(one.room, one.index, one.reply_to) for one in corpus.lines] == [
            ("rust", 1, None),
            ("other", 0, None),
            ("other", 2, 0),
            ("rust", 2, 1),
        ]

    def test_many_broken_lines_are_counted(self, tmp_path: Path) -> None:
        corpus = read_corpus(write(tmp_path / "chat.jsonl", [b"{"] * 1500))
        assert (corpus.skipped, len(corpus.skips)) == (1500, 1000)

    def test_reads_as_many_lines_as_asked(self, tmp_path: Path) -> None:
        path = write(tmp_path / "chat.jsonl", [line(), b"{", line(), line()])
        corpus = read_corpus(path, limit=3)
        assert (len(corpus.lines), corpus.skipped) == (2, 1)

    def test_a_truncated_file_is_played_up_to_there(self, tmp_path: Path) -> None:
        path = tmp_path / "chat.jsonl.gz"
        whole = b"".join(json.dumps(line(text=uuid.uuid4().hex)).encode() + b"\n" for _ in range(2000))
        path.write_bytes(gzip.compress(whole)[:-5000])
        corpus = read_corpus(path)
        assert 0 < len(corpus.lines) < 2000
        assert [skipped.number for skipped in corpus.skips] == [len(corpus.lines) + 1]
        assert "can't be read from here on" in corpus.skips[0].reason

    @pytest.mark.parametrize("name", ["missing", "."])
    def test_an_unreadable_file_is_refused(self, tmp_path: Path, name: str) -> None:
        with pytest.raises(CorpusError, match="can't be read"):
            read_corpus(tmp_path / name)


class TestScript:
    def test_names_are_unaltered_and_members_are_the_speakers(self, tmp_path: Path) -> None:
        lines = [line(user=nick) for nick in NICKS] + [line(room="other", user=NICKS[2])]
        corpus = read_corpus(write(tmp_path / "chat.jsonl", lines))
        script = build_script(corpus.lines, tenant="acme", run=uuid.uuid4(), max_users=10, listeners=1)
        assert script.users == [*NICKS, "replay-listener-1"]
        assert [room.members for room in script.rooms] == [[0, 1, 2, 3, 4, 5], [2, 5]]
        assert (script.parts, script.deliveries) == (6, 5 * 6 + 2)

    def test_surplus_nicks_share_accounts_the_same_way_every_time(self, tmp_path: Path) -> None:
        corpus = read_corpus(write(tmp_path / "chat.jsonl", [line(user=nick) for nick in NICKS]))
        scripts = [build_script(corpus.lines, tenant=tenant, run=uuid.uuid4(), max_users=2) for tenant in ("a", "b")]
        casts = [[part.sender for part in script.rooms[0].parts] for script in scripts]
        assert casts[0] == casts[1]
        assert (scripts[0].users, scripts[0].shared) == (list(NICKS[:2]), 3)

    def test_client_ids_differ_between_tenants_and_runs(self, tmp_path: Path) -> None:
        corpus = read_corpus(write(tmp_path / "chat.jsonl", [line(), line(room="other")]))
        runs = [uuid.uuid4(), uuid.uuid4()]
        ids = {
            part.client_id
            for run in runs
            for tenant in ("acme", "globex")
            for room in build_script(corpus.lines, tenant=tenant, run=run, max_users=9).rooms
            for part in room.parts
        }
        assert len(ids) == 8


def entry(seq: int, *, tenant: str = "acme", text: str = "", reply_to: int | None = None) -> Entry:
    return Entry(1, seq, 100 + seq, f"{tenant}-{seq}", "7", digest(text or str(seq)), reply_to)


HISTORY = [entry(seq) for seq in (1, 2, 4, 5, 6)]


class TestLogs:
    @pytest.mark.parametrize(
        ("log", "expected"),
        [
            (HISTORY, Tally()),
            ([], Tally(lost=5)),
            (HISTORY[:-1], Tally(lost=1)),
            (HISTORY[1:], Tally(lost=1)),
            ([*HISTORY[:2], *HISTORY[3:]], Tally(lost=1)),
            ([*HISTORY, HISTORY[-1]], Tally(duplicated=1)),
            ([*HISTORY, *HISTORY], Tally(duplicated=5)),
            ([*HISTORY[:3], HISTORY[0], *HISTORY[3:]], Tally(duplicated=1)),
            ([HISTORY[1], HISTORY[0], *HISTORY[2:]], Tally(out_of_order=1)),
            ([*HISTORY[1:], HISTORY[0]], Tally(out_of_order=1)),
            (HISTORY[::-1], Tally(out_of_order=4)),
            ([*HISTORY, entry(3, tenant="globex")], Tally(foreign=1)),
            ([*HISTORY[:-1], entry(6, tenant="globex")], Tally(lost=1, foreign=1)),
            ([*HISTORY[:-1], entry(6, text="other")], Tally(altered=1)),
            ([*HISTORY[:-1], entry(6, reply_to=101)], Tally(altered=1)),
            ([*HISTORY[:-1], HISTORY[-1]._replace(seq=7)], Tally(altered=1)),
            ([*HISTORY[:-1], HISTORY[-1]._replace(id=7)], Tally(altered=1)),
            ([*HISTORY[:-1], HISTORY[-1]._replace(sender="8")], Tally(altered=1)),
        ],
    )
    def test_mutated_log(self, log: list[Entry], expected: Tally) -> None:
        assert check_log(HISTORY, log) == expected
        assert expected.clean is (log == HISTORY)
        # The same through the compact form, next to a log without fault and one of a client that got nothing.
        table = list(dict.fromkeys([*log, *HISTORY]))
        numbers = {item: number for number, item in enumerate(table)}
        logs = [array("I", (numbers[item] for item in one)) for one in (HISTORY, log, [])]
        expected.lost += len(HISTORY)
        assert check_logs(HISTORY, logs, table, numbers) == expected

    def test_a_message_that_nobody_received_is_lost_by_each(self) -> None:
        numbers = {item: number for number, item in enumerate(HISTORY[:-1])}
        logs = [array("I", range(4)), array("I", range(4))]
        assert check_logs(HISTORY, logs, HISTORY[:-1], numbers) == Tally(lost=2)

    def test_a_message_of_the_run_in_a_strange_room_is_foreign(self) -> None:
        assert check_elsewhere({"a", "b", "small talk"}, {"a", "b", "c"}) == Tally(foreign=2)


class TestRows:
    @pytest.fixture
    def played(self, tmp_path: Path) -> tuple[Any, list[Entry], dict[str, tuple[int, int]]]:
        """A room of four lines, the rows that it should leave, and the acknowledgements."""
        lines = [line(text="one"), line(text="e\u0301"), line(text="three", reply_to=0), line(text="four")]
        corpus = read_corpus(write(tmp_path / "chat.jsonl", lines))
        room = build_script(corpus.lines, tenant="acme", run=uuid.uuid4(), max_users=9).rooms[0]
        texts = ["one", "\u00e9", "three", "four"]  # normalised, as the server does
        rows = [
            Entry(1, seq, 10 + seq, part.client_id, "7", digest(text), 11 if part.reply_to == 0 else None)
            for seq, (part, text) in enumerate(zip(room.parts, texts, strict=True), start=1)
        ]
        return room, rows, {row.client_id: (row.id, row.seq) for row in rows}

    @pytest.mark.parametrize(
        ("mutate", "expected"),
        [
            (lambda rows: rows, Tally()),
            (lambda rows: rows[:-1], Tally(rows_missing=1)),
            (lambda rows: [*rows, rows[3]._replace(seq=5, client_id="x")], Tally(rows_extra=1)),
            (lambda rows: [*rows, rows[3]._replace(seq=5)], Tally(rows_extra=1, rows_altered=1)),
            (lambda rows: [*rows[:3], rows[3]._replace(digest=digest("4"))], Tally(rows_altered=1)),
            (lambda rows: [*rows[:3], rows[3]._replace(sender="8")], Tally(rows_altered=1)),
            (lambda rows: [*rows[:3], rows[3]._replace(seq=9)], Tally(rows_altered=1)),
            (lambda rows: [*rows[:3], rows[3]._replace(reply_to=11)], Tally(wrong_replies=1)),
            (lambda rows: [*rows[:2], rows[2]._replace(reply_to=12), rows[3]], Tally(wrong_replies=1)),
            (lambda rows: [*rows[:2], rows[2]._replace(reply_to=None), rows[3]], Tally(wrong_replies=1)),
        ],
    )
    def test_mutated_rows(
        self,
        played: tuple[Any, list[Entry], dict[str, tuple[int, int]]],
        mutate: Callable[[list[Entry]], list[Entry]],
        expected: Tally,
    ) -> None:
        room, rows, acks = played
        assert check_rows(room, ["7"], mutate(rows), acks) == expected

    def test_rows_in_another_order_than_the_lines(
        self, played: tuple[Any, list[Entry], dict[str, tuple[int, int]]]
    ) -> None:
        room, rows, _ = played
        swapped = [rows[0], rows[1], rows[3]._replace(seq=3), rows[2]._replace(seq=4)]
        acks = {row.client_id: (row.id, row.seq) for row in swapped}
        assert check_rows(room, ["7"], swapped, acks) == Tally(rows_out_of_order=1)


def test_percentiles() -> None:
    latencies = Latencies()
    for milliseconds in range(1, 1001):
        latencies.add(milliseconds / 1000)
    assert latencies.percentile(50) == pytest.approx(0.5, rel=0.02)
    assert latencies.percentile(99) == pytest.approx(0.99, rel=0.02)
    assert latencies.highest == 1.0


class TestPlay:
    @pytest.fixture(autouse=True)
    def _database(self, database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("DATABASE_URL", database_url)

    def play(self, path: Path, *options: str) -> tuple[str, str]:
        out, err = io.StringIO(), io.StringIO()
        call_command("replay_chat", str(path), *options, stdout=out, stderr=err)
        return out.getvalue(), err.getvalue()

    def test_two_tenants_at_once(self, acme: Tenant, globex: Tenant, server: Server, tmp_path: Path) -> None:
        lines: list[dict[str, Any] | bytes] = [
            line(
                room=f"room-{room}",
                user=NICKS[(number + room) % len(NICKS)],
                text=f"{number} <b>e\u0301</b> red @{NICKS[number % 5]}",
                reply_to=number - 2 if number > 1 and number % 3 == 0 else None,
            )
            for room in range(3)
            for number in range(35)
        ]
        lines[1] = b"not JSON"
        path = write(tmp_path / "chat.jsonl", lines)
        url = f"ws://127.0.0.1:{server.port}"
        both = ("--tenant", "acme", "--tenant", "globex", "--url", url, "--churn", "0.5")
        for _ in range(2):  # in a second run the users are there already
            out, err = self.play(path, *both)
            assert "line 2 skipped: not JSON" in err
            assert "1 replies to skipped lines" in err
            for tenant in (acme, globex):
                name = tenant.schema_name
                assert f"{name}: 104 lines, 104 rows, 3 rooms, 5 clients, 520 of 520 deliveries" in out
            assert "208 lines into 2 tenants: 0 lost, 0 duplicated, 0 out of order, 0 foreign" in out
            assert "every log equals its room's history" in out

    def test_a_row_changed_behind_the_back_is_found(self, acme: Tenant, server: Server, tmp_path: Path) -> None:
        from django.db import connection

        with acme.activated(), connection.cursor() as cursor:
            cursor.execute(
                "CREATE FUNCTION spoil() RETURNS trigger LANGUAGE plpgsql AS "
                "$$BEGIN NEW.content := NEW.content || '!'; RETURN NEW; END$$"
            )
            cursor.execute(
                "CREATE TRIGGER spoil BEFORE INSERT ON django_tenant_messaging_message"
                " FOR EACH ROW EXECUTE FUNCTION spoil()"
            )
        try:
            path = write(tmp_path / "chat.jsonl", [line(text="one"), line(text="two")])
            with pytest.raises(CommandError, match="isn't clean") as error:
                self.play(path, "--tenant", "acme", "--url", f"ws://127.0.0.1:{server.port}")
        finally:
            with acme.activated(), connection.cursor() as cursor:
                cursor.execute("DROP FUNCTION spoil CASCADE")
        assert error.value.returncode == 1

    @pytest.mark.parametrize(
        ("options", "sentence"),
        [
            (("--tenant", "nobody"), "There is no tenant 'nobody' with a domain; there are: "),
            (("--url", "ws://127.0.0.1:1"), "No server answers at 127.0.0.1:1"),
            (("--url", "nonsense"), "isn't an address such as"),
            (("--url", "ws://[::1"), "isn't an address"),
        ],
    )
    @pytest.mark.usefixtures("tenants")
    def test_a_bad_call_is_one_sentence(self, tmp_path: Path, options: tuple[str, ...], sentence: str) -> None:
        path = write(tmp_path / "chat.jsonl", [line()])
        with pytest.raises(CommandError, match=sentence) as error:
            self.play(path, *options)
        assert error.value.returncode == 2

    @pytest.mark.usefixtures("tenants")
    def test_a_file_without_a_line_is_a_bad_call(self, tmp_path: Path) -> None:
        for path in (tmp_path / "missing", write(tmp_path / "empty.jsonl", [])):
            with pytest.raises(CommandError) as error:
                self.play(path)
            assert error.value.returncode == 2

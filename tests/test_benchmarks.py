"""The measuring rig itself: it has to notice whatever a server does wrong, and its figures have to be right."""

from __future__ import annotations

import json
import subprocess
import sys
from array import array
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st
from websockets.frames import Opcode
from websockets.protocol import State
from websockets.server import ServerProtocol

from benchmarks.rig.checker import Check, Sent
from benchmarks.rig.dialects import Messaging, Plain
from benchmarks.rig.frames import CLOSE, PING, TEXT, FrameError, FrameReader, client_frame
from benchmarks.rig.generator import percentiles
from benchmarks.rig.plot import plot
from benchmarks.rig.tables import scenario_tables, target_table
from benchmarks.rig.targets import targets
from benchmarks.rig.texts import number_and_time, text_of
from benchmarks.skew import table

ROOT = Path(__file__).resolve().parents[1]
ACME, GLOBEX = "acme.localhost", "globex.localhost"
SENT_AT, CAME_AT = 1_000_000, 3_000_000

payloads = st.one_of(
    st.text(max_size=300), st.integers(120, 130).map("x".__mul__), st.integers(65530, 65540).map("y".__mul__)
)
said = st.one_of(
    st.tuples(st.just("text"), payloads),
    st.tuples(st.just("pieces"), st.lists(st.text(min_size=1, max_size=20), min_size=2, max_size=4)),
    st.tuples(st.just("ping"), st.binary(max_size=125)),
)


def serialize(protocol: ServerProtocol, kind: str, what: Any) -> tuple[int, bytes]:
    """Let the library say something as a server does; answer what a client should read."""
    match kind:
        case "text":
            protocol.send_text(what.encode())
            return TEXT, what.encode()
        case "ping":
            protocol.send_ping(what)
            return PING, what
        case _:
            protocol.send_text(what[0].encode(), fin=False)
            for place, piece in enumerate(what[1:], start=2):
                protocol.send_continuation(piece.encode(), fin=place == len(what))
            return TEXT, "".join(what).encode()


@given(st.lists(said, max_size=6), st.data())
def test_a_servers_frames_are_read_in_any_pieces(talk: list[tuple[str, Any]], data: st.DataObject) -> None:
    protocol = ServerProtocol(state=State.OPEN)
    expected = [serialize(protocol, kind, what) for kind, what in talk]
    stream = b"".join(protocol.data_to_send())
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=8)))
    reader = FrameReader()
    found = []
    for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True):
        found += reader.feed(stream[start:end])
    assert found == expected


@given(st.lists(payloads, max_size=5))
def test_a_server_reads_the_clients_frames(texts: list[str]) -> None:
    protocol = ServerProtocol(state=State.OPEN)
    protocol.receive_data(b"".join(client_frame(text.encode()) for text in texts))
    assert [(frame.opcode, bytes(frame.data).decode()) for frame in protocol.events_received()] == [  # type: ignore[union-attr]
        (Opcode.TEXT, text) for text in texts
    ]


@pytest.mark.parametrize("data", [b"\x81\x80\0\0\0\0", b"\xc1\x00", b"\x80\x00", b"\x01\x01a\x81\x01b"])
def test_what_no_server_may_send_is_an_error(data: bytes) -> None:
    with pytest.raises(FrameError):
        FrameReader().feed(data)


def test_a_close_is_read() -> None:
    protocol = ServerProtocol(state=State.OPEN)
    protocol.send_close(1012, "restart")
    (frame,) = FrameReader().feed(b"".join(protocol.data_to_send()))
    assert frame == (CLOSE, (1012).to_bytes(2) + b"restart")


def test_a_text_carries_its_number_and_time() -> None:
    texts = [text_of(number, SENT_AT) for number in range(1000)]
    assert [number_and_time(text) for text in texts] == [(number, SENT_AT) for number in range(1000)]
    assert 60 < sum(map(len, texts)) / 1000 < 100


class Records:
    """Two tenants with a room of the same id: three members in acme, one in globex; three messages to acme's."""

    def __init__(self, dialect: Any, *, first: int = 0) -> None:
        self.dialect = dialect
        self.messages = [Sent((ACME, 7), text_of(number, SENT_AT)) for number in range(3)]
        self.messages.append(Sent((GLOBEX, 7), text_of(3, SENT_AT)))
        members = {(ACME, 7): {0, 1, 2}, (GLOBEX, 7): {3}}
        self.check = Check(dialect, self.messages, members, first=first)

    def event(self, number: int, *, place: int | None = None, text: str | None = None) -> dict[str, Any]:
        """A delivery as the server writes it."""
        content = self.messages[number].text if text is None else text
        place = number + 1 if place is None else place
        if isinstance(self.dialect, Plain):
            return {"type": "message", "id": place, "room": 7, "content": content}
        return {"type": "message", "room": 7, "after": place - 1, "seq": place, "message": {"content": content}}

    def got(self, wire: int, *events: Any, host: str = ACME) -> None:
        """A member's socket received these, each in a frame of its own; a list is one frame."""
        self.check.read(wire, host, [(CAME_AT, [(TEXT, json.dumps(event).encode())]) for event in events])

    def all_but(self, wire: int) -> None:
        """Everybody but one member got everything."""
        for other in {0, 1, 2} - {wire}:
            self.got(other, self.event(0), self.event(1), self.event(2))

    def faults(self) -> dict[str, int]:
        """What the check finds."""
        return self.check.verdict([0, 1, 2]).faults()


@pytest.fixture(params=[Plain(), Messaging()], ids=["plain", "messaging"])
def records(request: pytest.FixtureRequest) -> Records:
    """Records in each of the protocols."""
    return Records(request.param)


def test_nothing_is_found_where_nothing_is_wrong(records: Records) -> None:
    records.all_but(0)
    records.got(0, {"type": "presence"}, records.event(0), [records.event(1), {"type": "typing"}, records.event(2)])
    verdict = records.check.verdict([0, 1, 2])
    assert verdict.faults() == {}
    assert (verdict.deliveries, verdict.expected, verdict.last_delivery) == (9, 9, CAME_AT)
    assert set(verdict.latencies) == {CAME_AT - SENT_AT}


def test_a_lost_delivery_is_found(records: Records) -> None:
    records.all_but(0)
    records.got(0, records.event(0), records.event(2))
    assert records.check.missing([0, 1, 2]) == 1
    assert records.faults() == {"lost": 1}


def test_a_delivery_that_comes_with_the_next_record_is_not_lost(records: Records) -> None:
    records.all_but(0)
    records.got(0, records.event(0))
    assert records.check.missing([0, 1, 2]) == 2
    records.got(0, records.event(1), records.event(2))
    assert records.faults() == {}


def test_what_was_not_acknowledged_may_be_missing(records: Records) -> None:
    records.all_but(0)
    records.got(0, records.event(0), records.event(2))
    assert records.check.verdict([0, 2]).faults() == {}


def test_a_repeated_delivery_is_found(records: Records) -> None:
    records.all_but(0)
    records.got(0, records.event(0), records.event(1), records.event(1), records.event(2))
    assert records.faults() == {"duplicated": 1}


@pytest.mark.parametrize("order", [(1, 0, 2), (0, 2, 1)])
def test_a_delivery_out_of_order_is_found(records: Records, order: tuple[int, ...]) -> None:
    records.all_but(0)
    records.got(0, *map(records.event, order))
    assert records.faults() == {"reordered": 1}


def test_two_messages_in_one_place_are_found(records: Records) -> None:
    records.all_but(0)
    records.got(0, records.event(0), records.event(1, place=1), records.event(2))
    assert records.faults() == {"reordered": 1}


def test_another_tenants_message_is_found(records: Records) -> None:
    records.all_but(3)
    records.got(0, records.event(3))
    assert records.faults() == {"foreign": 1}


def test_a_message_of_a_room_that_one_is_not_in_is_found(records: Records) -> None:
    records.all_but(3)
    records.got(3, records.event(0), host=ACME)
    records.got(3, records.event(0), host=GLOBEX)
    assert records.faults() == {"foreign": 2}


@pytest.mark.parametrize("text", ["nobody said this", f"#99 {SENT_AT} so", "#-1 5 so"])
def test_a_message_that_nobody_sent_is_found(records: Records, text: str) -> None:
    records.all_but(3)
    records.got(0, records.event(0, text=text))
    assert records.faults() == {"foreign": 1}


def test_an_altered_text_is_found(records: Records) -> None:
    records.all_but(0)
    altered = records.messages[1].text + "!"
    records.got(0, records.event(0), records.event(1, text=altered), records.event(2))
    assert records.faults() == {"altered": 1}


def test_a_delivery_of_an_earlier_load_counts_for_none() -> None:
    records = Records(Plain(), first=1)
    records.got(0, records.event(0))
    verdict = records.check.verdict([])
    assert (verdict.faults(), verdict.deliveries) == ({"late": 1}, 0)


def test_percentiles_are_those_of_all_deliveries() -> None:
    assert percentiles(array("q")) == {}
    shuffled = array("q", [number * 1_000_000 for number in range(101)][::-1])
    assert percentiles(shuffled) == {"p50": 50.0, "p95": 95.0, "p99": 99.0, "max": 100.0}


def load_figures(**fields: Any) -> dict[str, Any]:
    """A load's figures where nothing is wrong."""
    each = {"server": 10.0, "postgresql": 1.0, "redis": 0.5}
    return {
        "messages_per_second": 1_000.0,
        "deliveries_per_second": 100_000.0,
        "cpu_us_per_message": each,
        "cpu_us_per_delivery": each,
        "latencies": {"p50": 1.0, "p95": 2.0, "p99": 3.0, "max": 4.0},
        "seconds": 1.0,
        "expected": 10,
        "deliveries": 10,
        "server_load": 0.5,
        "generator_load": 0.5,
        "others_load": 0.0,
        "uncommitted": 0,
        "faults": {},
        "refused": {},
        **fields,
    }


def all_figures() -> dict[str, dict[str, Any]]:
    """A run in which everything is reached."""

    def large(rate: float) -> dict[str, Any]:
        return {"in_flight": 1, "top": load_figures(deliveries_per_second=rate), "half": load_figures()}

    def small(rate: float) -> dict[str, Any]:
        return {"in_flight": 1, "top": load_figures(messages_per_second=rate)}

    def burst(seconds: float, **fields: Any) -> dict[str, Any]:
        return {"messages": 1_000, "burst": load_figures(seconds=seconds, **fields)}

    def idle(rate: float) -> dict[str, Any]:
        cpu = {"server": 0.001, "postgresql": 0.0, "redis": 0.0}
        return {"sockets": 2_000, "kib_per_socket": 30.0, "connects_per_second": rate, "idle_cpu": cpu}

    def cost(microseconds: float) -> dict[str, Any]:
        each = {"server": microseconds, "postgresql": 0.0, "redis": 0.0, "all": microseconds, "itself": microseconds}
        return {"cpu_us_per_message": each, "faults": {}, "latencies": {"p99": 1.0}, "uncommitted": 0}

    hand_written = ("tutorial-daphne-core", "tutorial-uvicorn-pubsub")
    return {
        "A": {"limit": large(99_000), **{name: large(4_000) for name in hand_written}, "ours": large(81_000)},
        "B": {"commit": small(3_600), **{name: small(400) for name in hand_written}, "ours": small(4_100)},
        "C": {
            "tutorial-daphne-core": burst(1.0, faults={"lost": 9}),
            "tutorial-uvicorn-pubsub": burst(9.0),
            "ours": burst(1.0),
        },
        "D": {"tutorial-daphne-core": idle(190), "ours": {**idle(600), "many": {**idle(600), "sockets": 10_000}}},
        "E": {
            "ours": {
                "tenants": {"1": {**cost(100), "idle_cpu": {"server": 0.1}}, "1000": cost(110)},
                "stored": {"1000": cost(100), "1000000": cost(114)},
            }
        },
        "F": {
            "ours": {
                "before": {"same": load_figures(), "another": load_figures()},
                "meanwhile": {"same": load_figures(), "another": load_figures()},
                "flood": {"sent": 9_000, "rate_limited": 400},
            }
        },
        "G": {name: {"one": load_figures(), "spread": load_figures()} for name in ("commit", *hand_written, "ours")},
    }


def missed(results: dict[str, dict[str, Any]]) -> list[str]:
    """The scenarios of the targets that aren't reached."""
    return [target.what.partition(":")[0] for target in targets(results) if not target.is_reached]


def test_targets_that_are_reached_are_said_to_be() -> None:
    found = targets(all_figures())
    assert [target.what for target in found if not target.is_reached] == []
    assert len(found) == 25
    assert "NOT" not in target_table(found)


@pytest.mark.parametrize(
    ("path", "value", "expected"),
    [
        ("A ours top deliveries_per_second", 79_000.0, ["A"]),
        ("A ours top cpu_us_per_delivery", {"server": 20.1, "postgresql": 0, "redis": 0}, ["A"]),
        ("A ours half latencies p99", 51.0, ["A"]),
        ("A tutorial-uvicorn-pubsub top deliveries_per_second", 9_000.0, ["A"]),
        ("B ours top messages_per_second", 3_650.0, ["B", "B", "B"]),
        ("B commit top messages_per_second", 5_000.0, ["B"]),
        ("C ours burst seconds", 1.2, ["C"]),
        ("C ours burst deliveries", 9, ["C"]),
        ("D ours kib_per_socket", 41.0, ["D"]),
        ("D ours connects_per_second", 500.0, ["D"]),
        ("D ours idle_cpu server", 0.05, ["D"]),
        ("E ours tenants 1000 cpu_us_per_message all", 116.0, ["E"]),
        ("E ours tenants 1000 cpu_us_per_message itself", 116.0, ["E"]),
        ("E ours stored 1000000 cpu_us_per_message all", 116.0, ["E"]),
        ("F ours meanwhile another latencies p50", 1.3, ["F"]),
        ("G ours one latencies p50", 1.1, ["G"]),
        ("G ours spread cpu_us_per_message postgresql", 2.0, ["G"]),
        ("A ours half faults reordered", 1, ["All"]),
        ("B ours top uncommitted", 1, ["All"]),
    ],
)
def test_a_target_that_is_missed_is_said_to_be(path: str, value: Any, expected: list[str]) -> None:
    results = all_figures()
    at: Any = results
    *way, last = path.split()
    for name in way:
        at = at[name]
    at[last] = value
    assert missed(results) == expected


def test_what_was_not_measured_is_not_judged() -> None:
    assert targets({}) == []
    assert targets({"A": {"limit": all_figures()["A"]["limit"]}}) == []
    assert missed({**all_figures(), "A": {"ours": {"failed": "it doesn't start"}}}) == []


def test_every_figure_is_in_the_tables_and_the_plot_is_a_picture() -> None:
    results = all_figures()
    results["A"]["limit"]["top"]["generator_load"] = 0.95
    results["A"]["ours"]["half"]["others_load"] = 0.7
    results["B"]["commit"] = {"failed": "it doesn't start"}
    tables = {name: scenario_tables(name, rows) for name, rows in results.items()}
    assert "the generator is at its limit" in tables["A"]
    assert "others took 0.7 cores" in tables["A"]
    assert "commit: it doesn't start" in tables["B"]
    assert "9 lost" in tables["C"]
    assert "10,000" in tables["D"]
    assert "messages stored" in tables["E"]
    picture = ET.fromstring(plot(results))  # noqa: S314 - our own
    bars = picture.findall("{http://www.w3.org/2000/svg}rect")
    assert len(bars) == 4 + 4 + 3 + 3


def bench(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "benchmarks/delivery.py", *arguments], cwd=ROOT, capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--scenario", "Z"], "There is no scenario 'Z'; there are A, B, C, D, E, F, G."),
        (["--contender", "granian"], "There is no contender 'granian'; there are limit,"),
        (["--seconds", "soon"], "'soon' isn't a number of seconds from 0.2 to 600"),
        (["--seconds", "nan"], "'nan' isn't a number of seconds from 0.2 to 600"),
        (["--seconds", "-1"], "'-1' isn't a number of seconds"),
        (["--output", "."], ". is a folder, not a file."),
        (["fast"], "unrecognized arguments: fast"),
    ],
)
def test_a_bad_call_is_refused_by_a_sentence(arguments: list[str], sentence: str) -> None:
    done = bench(*arguments)
    assert done.returncode == 2
    assert sentence in done.stderr
    assert "Traceback" not in done.stderr


def test_a_short_run_measures_ours_beside_the_limit(tmp_path: Path) -> None:
    before = {process.pid for process in psutil.process_iter()}
    output = tmp_path / "figures/delivery.json"
    arguments = ["--quick", "--scenario", "C", "--contender", "limit", "--contender", "ours", "--output", str(output)]
    done = bench(*arguments)
    assert done.returncode == 0, done.stderr
    assert "C: 1,000 messages at once into a room of 50 members" in done.stdout
    report = json.loads(output.read_text())
    assert report["machine"]["cores"]
    assert report["versions"]["Django"]
    assert {target["what"] for target in report["targets"]} >= {"C: lost deliveries"}
    for name in ("limit", "ours"):
        burst = report["scenarios"]["C"][name]["burst"]
        assert burst["faults"] == burst["refused"] == {}
        assert (burst["acknowledged"], burst["deliveries"], burst["uncommitted"]) == (1_000, 50_000, 0)
        assert burst["cpu_us_per_message"]["server"] > 0
    # The system counts in hundredths of a second, for each connection.
    assert report["scenarios"]["C"]["ours"]["burst"]["cpu_us_per_message"]["postgresql"] > 0
    mine = [process for process in psutil.process_iter(["cmdline"]) if process.pid not in before]
    assert not [process for process in mine if str(tmp_path) in str(process.info["cmdline"])]


def test_the_table_of_a_skewed_tenant_shows_two_runs_side_by_side() -> None:
    given_up, slow, quick = {"ms": None, "buffers": 9}, {"ms": 1234.5, "buffers": 5_000}, {"ms": 2.25, "buffers": 7}
    now = {"stale, host": {"reading": quick, "writing": slow, "new": quick}}
    rows = table(now, {"stale, host": {"reading": given_up, "writing": slow}}).splitlines()
    assert [row.split() for row in rows[2:]] == [
        ["ms", "before", "ms", "now", "buffers", "before", "buffers", "now"],
        ["reading", "over", "15,000", "2.2", "-", "7"],
        ["writing", "1,234", "1,234", "5,000", "5,000"],
        ["new", "-", "2.2", "-", "7"],
    ]
    assert [row.split() for row in table(now, {}).splitlines()[3:4]] == [["reading", "2.2", "7"]]

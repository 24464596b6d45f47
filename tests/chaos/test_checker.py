"""The checker finds every kind of broken promise in made-up runs, and nothing in those that keep them."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from tests.chaos.checker import Habits
from tests.chaos.checker.findings import COLUMNS, KINDS, Findings
from tests.chaos.checker.truth import Row
from tests.chaos.frames import Entry
from tests.chaos.history import Answer, Ended, Fault, Got, Sign, Started, Told, Write
from tests.chaos.resources import MEGABYTE, Resources, check_resources
from tests.chaos.tale import DELAY, ROOM, Tale, shown

if TYPE_CHECKING:
    from tests.chaos.history import Event

HABITS = {
    "acme": Habits(signing=frozenset({"alice"}), absent=frozenset({"bob"})),
    "globex": Habits(signing=frozenset({"bob"}), absent=frozenset({"alice"})),
}


@pytest.fixture
def tale() -> Tale:
    """Three messages in one tenant, two in the other."""
    tale = Tale()
    for number, user in enumerate(("alice", "bob", "carol"), 1):
        tale.send(user, f"acme {number}")
    tale.send("alice", "globex 1", tenant="globex")
    tale.send("bob", "globex 2", tenant="globex")
    return tale


def drop(tale: Tale, user: str, *seqs: int) -> None:
    """Let a device never have got some entries."""
    events = tale.receiver(user).events
    events[:] = [event for event in events if not (isinstance(event, Got) and event.entry.seq in seqs)]


def as_seen_by_sender(entry: Entry) -> Entry:
    """Another's entry as the one gets it who wrote the message."""
    assert entry.message is not None
    return replace(entry, message=replace(entry.message, own=True))


class TestWhatIsKept:
    def test_a_run_without_a_fault(self, tale: Tale) -> None:
        tale.page("bob", final=True)
        assert tale.found(latest=DELAY * 2, soon=0, habits=HABITS) == {}

    def test_edits_deletions_and_members(self, tale: Tale) -> None:
        first = tale.send("alice", "first")
        tale.edit(first, "better")
        tale.add("dave")
        second = tale.send("dave", "hello")
        tale.delete(first)
        tale.alter("dave", tale.rooms["acme", ROOM].head, kind="skip", message=None)
        tale.edit(second, "hello all")
        tale.remove("dave")
        tale.send("bob", "gone")
        assert tale.found() == {}

    def test_a_client_that_comes_back_gets_only_the_latest_state(self, tale: Tale) -> None:
        first = tale.send("alice", "first")  # 4
        tale.edit(first, "better")  # 5
        tale.send("bob", "between")  # 6
        tale.edit(first, "best")  # 7
        drop(tale, "carol", 4, 5)
        tale.alter("carol", 6, after=3)
        assert tale.found() == {}
        drop(tale, "carol", 6)
        tale.alter("carol", 7, after=3)
        assert tale.found() == {"skipped": 1, "view_differs": 1}

    def test_members_who_came_and_went_meanwhile_may_be_left_out(self, tale: Tale) -> None:
        tale.add("dave")  # 4
        tale.remove("dave")  # 5
        drop(tale, "alice", 4)
        tale.alter("alice", 5, after=3)
        assert tale.found() == {}
        drop(tale, "alice", 5)
        assert tale.found() == {"incomplete": 1}

    def test_what_limited_left_out_is_read_by_pages(self, tale: Tale) -> None:
        drop(tale, "bob", 2, 3)
        tale.resume("bob", 3, "limited")
        assert tale.found() == {"view_differs": 2}
        tale.page("bob")
        assert tale.found() == {}

    def test_a_reset_begins_anew(self, tale: Tale) -> None:
        tale.resume("bob", 3, "reset")
        assert tale.found() == {"view_differs": 3}
        tale.page("bob")
        assert tale.found() == {}

    def test_a_return_begins_where_the_second_membership_does(self, tale: Tale) -> None:
        tale.remove("carol")  # 4
        tale.send("alice", "between")  # 5
        tale.add("carol")  # 6
        tale.send("alice", "after")  # 7
        events = tale.receiver("carol").events
        # As if she had been away all the time: she isn't told that she was out.
        events[:] = [event for event in events if not isinstance(event, Ended)]
        (began,) = [event for event in events if isinstance(event, Started) and event.how == "added"]
        events[events.index(began)] = replace(began, how="ok")
        assert tale.found() == {}

    def test_an_unknown_write_may_be_there_or_not(self, tale: Tale) -> None:
        write = Write("acme", ROOM, "alice", "send", "lost", tale.now, "client 77", unsettled=1)
        tale.history.writes.append(write)
        assert write.outcome == "unknown"
        assert tale.found() == {}
        known = tale.send("alice", "there")
        known.answers.clear()
        known.unsettled = 1
        assert tale.found() == {}

    def test_an_unknown_edit_may_have_taken_a_number_that_nobody_saw(self, tale: Tale) -> None:
        first = tale.send("alice", "first")
        edit = tale.edit(first, "better")
        last = tale.edit(first, "best")
        for user in ("alice", "bob", "carol"):
            drop(tale, user, edit.answers[0].seq)
            tale.alter(user, last.answers[0].seq, after=first.answers[0].seq)
        edit.answers.clear()
        assert tale.found() == {"gap": 1}
        edit.unsettled = 1
        assert tale.found() == {}


class TestWrites:
    def test_acknowledged_and_missing(self, tale: Tale) -> None:
        write = Write("acme", ROOM, "alice", "send", "lost", tale.now, "client 77", answers=[Answer(77, 3, tale.now)])
        tale.history.writes.append(write)
        assert tale.found() == {"acknowledged_missing": 1}

    @pytest.mark.parametrize(("is_known", "kind"), [(True, "acknowledged_twice"), (False, "unknown_twice")])
    def test_written_twice(self, tale: Tale, is_known: bool, kind: str) -> None:
        write = tale.send("alice", "twice")
        again = tale.send("alice", "twice")
        tale.history.writes.remove(again)
        row = tale.rooms["acme", ROOM].rows[again.answers[0].message_id]
        tale.rooms["acme", ROOM].rows[row.id] = replace(row, client_id=write.client_id)
        if not is_known:
            write.answers.clear()
            write.unsettled = 2
        assert tale.judge().findings.counts[kind] == 1

    def test_answers_that_differ(self, tale: Tale) -> None:
        write = tale.send("alice", "hello")
        write.answers.append(replace(write.answers[0], seq=3))
        assert tale.found() == {"answers_differ": 1}
        write.answers[:] = [write.answers[1]]
        assert tale.found() == {"answers_differ": 1}

    def test_failed_and_there(self, tale: Tale) -> None:
        write = tale.send("alice", "hello")
        write.answers.clear()
        write.refusals.append("invalid")
        assert write.outcome == "failed"
        assert tale.found() == {"failed_present": 1}

    def test_a_conflict_leaves_the_first_text(self, tale: Tale) -> None:
        write = tale.send("alice", "hello")
        other = Write("acme", ROOM, "alice", "send", "other", tale.now, write.client_id, refusals=["conflict"])
        tale.history.writes.append(other)
        assert tale.found() == {}
        other.unsettled = 1
        assert (other.outcome, tale.found()) == ("unknown", {})
        other.unsettled = 0
        row = tale.rooms["acme", ROOM].rows[write.answers[0].message_id]
        tale.rooms["acme", ROOM].rows[row.id] = replace(row, content="other")
        found = tale.found()
        assert (found["failed_present"], found["altered_row"]) == (1, 1)

    def test_a_row_that_nobody_sent(self, tale: Tale) -> None:
        write = tale.send("alice", "hello")
        tale.history.writes.remove(write)
        assert tale.found() == {"invented_row": 1}

    def test_a_row_in_another_tenant(self, tale: Tale) -> None:
        write = tale.send("alice", "hello")
        write.tenant = "globex"
        assert tale.found()["invented_row"] == 1

    @pytest.mark.parametrize("change", [{"sender": "bob"}, {"content": "else"}])
    def test_an_altered_row(self, tale: Tale, change: dict[str, Any]) -> None:
        write = tale.send("alice", "hello")
        room = tale.rooms["acme", ROOM]
        row = room.rows[write.answers[0].message_id]
        room.rows[row.id] = replace(row, **change)
        assert tale.judge().findings.counts["altered_row"] == 1

    def test_a_send_by_somebody_who_was_removed(self, tale: Tale) -> None:
        tale.remove("carol")
        write = tale.send("bob", "I am still here")
        write.user = "carol"
        row = tale.rooms["acme", ROOM].rows[write.answers[0].message_id]
        tale.rooms["acme", ROOM].rows[row.id] = replace(row, sender="carol")
        assert tale.judge().findings.counts["unauthorised"] == 1

    def test_an_edit_that_is_gone(self, tale: Tale) -> None:
        write = tale.send("alice", "hello")
        before = tale.rooms["acme", ROOM].rows[write.answers[0].message_id]
        tale.edit(write, "better")
        tale.rooms["acme", ROOM].rows[before.id] = before
        assert tale.judge().findings.counts["acknowledged_missing"] == 1

    def test_an_edited_message_that_is_gone(self, tale: Tale) -> None:
        write = tale.send("alice", "hello")
        tale.edit(write, "better")
        del tale.rooms["acme", ROOM].rows[write.answers[0].message_id]
        assert tale.judge().findings.counts["acknowledged_missing"] == 2

    def test_a_change_that_nobody_asked_for(self, tale: Tale) -> None:
        write = tale.send("alice", "hello")
        edit = tale.edit(write, "better")
        edit.text = "else"
        assert tale.judge().findings.counts["altered_row"] == 1

    def test_an_edit_that_failed_and_is_there(self, tale: Tale) -> None:
        write = tale.send("alice", "hello")
        edit = tale.edit(write, "better")
        edit.answers.clear()
        edit.refusals.append("forbidden")
        assert tale.judge().findings.counts["failed_present"] == 1


class TestNumbers:
    def test_a_gap(self, tale: Tale) -> None:
        tale.rooms["acme", ROOM].head += 1
        tale.send("alice", "after a gap")
        for user in ("alice", "bob", "carol"):
            tale.alter(user, 5, after=3)
        assert tale.found() == {"gap": 1}

    def test_a_number_past_the_head(self, tale: Tale) -> None:
        tale.send("alice", "last")
        tale.rooms["acme", ROOM].head -= 1
        assert tale.judge().findings.counts["gap"] == 1

    def test_a_number_used_twice(self, tale: Tale) -> None:
        tale.rooms["acme", ROOM].rows[99] = Row(99, 3, 3, "client 99", "alice", "again")
        tale.history.writes.append(
            Write("acme", ROOM, "alice", "send", "again", tale.now, "client 99", answers=[Answer(99, 3, tale.now)])
        )
        found = tale.found()
        assert found["reused"] == 1


class TestDeliveries:
    def test_a_lost_one(self, tale: Tale) -> None:
        drop(tale, "bob", 2)
        # The client notices, comes back, and asks from where it was.
        tale.resume("bob", 1)
        events = tale.receiver("bob").events
        events += [
            Got(tale.now, as_seen_by_sender(tale.got("alice")[1].entry)),
            Got(tale.now, tale.got("alice")[2].entry),
        ]
        assert tale.found() == {"skipped": 1}

    def test_a_lost_last_one(self, tale: Tale) -> None:
        drop(tale, "bob", 3)
        assert tale.found() == {"incomplete": 1, "view_differs": 1}
        tale.receiver("bob").is_complete = False
        assert tale.found() == {}

    def test_a_resume_that_leaves_something_out(self, tale: Tale) -> None:
        drop(tale, "bob", 2)
        events = tale.receiver("bob").events
        tale.resume("bob", 2)
        events.insert(2, events.pop())
        assert tale.found() == {"skipped": 1, "view_differs": 1}

    @pytest.mark.parametrize("kind", ["skip", "message"])
    def test_a_skip_over_what_still_holds(self, tale: Tale, kind: str) -> None:
        if kind == "skip":
            tale.alter("bob", 2, kind="skip", message=None)
        else:
            drop(tale, "bob", 2)
            tale.alter("bob", 3, after=1)
        assert tale.found() == {"skipped": 1, "view_differs": 1}

    def test_a_room_that_never_began(self, tale: Tale) -> None:
        tale.receiver("bob").events.clear()
        assert tale.found() == {"incomplete": 3, "view_differs": 3}

    def test_a_repeated_one(self, tale: Tale) -> None:
        tale.receiver("bob").events.append(tale.got("bob")[1])
        assert tale.found() == {"repeated": 1}

    def test_one_in_the_wrong_order(self, tale: Tale) -> None:
        drop(tale, "bob", 2)
        tale.alter("bob", 3, after=1)
        late = replace(as_seen_by_sender(tale.got("alice")[1].entry), after=1)
        tale.receiver("bob").events.append(Got(tale.now, late))
        found = tale.found()
        assert found["reordered"] == 1

    def test_one_of_another_tenant(self, tale: Tale) -> None:
        tale.receiver("carol").events.append(tale.got("carol", "globex")[0])
        assert tale.found() == {"other_tenant": 1}

    def test_one_of_another_room(self, tale: Tale) -> None:
        tale.rooms["acme", 2] = tale.rooms.pop(("globex", ROOM))
        tale.history.members["acme", 2] = tale.history.members.pop(("globex", ROOM))
        foreign = tale.got("alice", "globex")
        tale.history.receivers = [receiver for receiver in tale.history.receivers if receiver.tenant == "acme"]
        for receiver in tale.history.receivers:
            receiver.is_complete = receiver.user == "alice"
        for write in tale.history.writes:
            if write.tenant == "globex":
                write.tenant, write.room = "acme", 2
        tale.receiver("alice").events.append(foreign[0])
        found = tale.found()
        assert found["other_room"] == 1

    def test_one_of_a_room_that_does_not_exist(self, tale: Tale) -> None:
        tale.receiver("bob").events.append(Got(tale.now, Entry(9, 0, 1, "members")))
        assert tale.found() == {"other_room": 1}

    def test_one_that_nobody_wrote(self, tale: Tale) -> None:
        made_up = Row(50, 4, 4, "client 50", "alice", "made up")
        tale.receiver("bob").events.append(Got(tale.now, Entry(ROOM, 3, 4, "message", shown(made_up, "bob"))))
        assert tale.found() == {"invented": 1}

    def test_a_change_past_the_head(self, tale: Tale) -> None:
        tale.receiver("bob").events.append(Got(tale.now, Entry(ROOM, 3, 4, "members", joined=frozenset({"dave"}))))
        assert tale.found() == {"invented": 1}

    def test_one_from_before_joining(self, tale: Tale) -> None:
        tale.add("dave")
        for user in ("alice", "bob"):
            tale.send(user, "hello dave")
        early = tale.got("bob")[0]
        tale.receiver("dave").events.insert(1, early)
        assert tale.found() == {"before_joining": 1}

    def test_an_edit_of_a_message_from_before_joining(self, tale: Tale) -> None:
        write = tale.send("alice", "a secret")
        tale.add("dave")
        tale.edit(write, "still a secret")
        assert tale.judge().findings.counts["before_joining"] == 1

    def test_one_from_after_the_removal(self, tale: Tale) -> None:
        tale.remove("carol")
        tale.send("alice", "now that she is gone")
        tale.receiver("carol").events.append(Got(tale.now, tale.got("bob")[-1].entry))
        assert tale.found() == {"after_removal": 1}

    def test_one_that_comes_when_the_client_was_told_that_it_is_out(self, tale: Tale) -> None:
        tale.remove("carol")
        drop(tale, "carol", 4)
        events = tale.receiver("carol").events
        events.append(Got(tale.now, tale.got("bob")[-1].entry))
        assert tale.found() == {"after_removal": 1}

    @pytest.mark.parametrize(
        "change", [{"content": "else"}, {"sender": "bob"}, {"place": 2}, {"id": 77}, {"deleted": True}, {"own": True}]
    )
    def test_an_altered_message(self, tale: Tale, change: dict[str, Any]) -> None:
        entry = tale.got("bob")[0].entry
        assert entry.message is not None
        tale.alter("bob", 1, message=replace(entry.message, **change))
        assert tale.judge().findings.counts["altered"] == 1

    @pytest.mark.parametrize(
        "change", [{"joined": frozenset({"bob"})}, {"joined": frozenset()}, {"left": frozenset({"bob"})}]
    )
    def test_altered_members(self, tale: Tale, change: dict[str, Any]) -> None:
        tale.add("dave")
        tale.alter("bob", 4, **change)
        assert tale.found() == {"altered": 1}

    def test_a_made_up_number_that_no_edit_explains(self, tale: Tale) -> None:
        unknown = Write("acme", ROOM, "alice", "edit", "x", tale.now, message_id=1, unsettled=1)
        tale.history.writes.append(unknown)
        tale.rooms["acme", ROOM].head += 1
        for user in ("alice", "bob", "carol"):
            receiver = tale.receiver(user)
            receiver.events.append(Got(tale.now, Entry(ROOM, 3, 4, "members", joined=frozenset({"dave"}))))
        assert tale.found() == {"altered": 3}


class TestNames:
    def test_what_nobody_was_told_because_it_was_replaced(self, tale: Tale) -> None:
        tale.rename("alice", "one")  # 4
        tale.rename("bob", "two")  # 5
        assert tale.found() == {}
        for user in ("alice", "bob", "carol"):
            drop(tale, user, 4)
            tale.alter(user, 5, after=3)
        assert tale.found() == {}

    def test_a_renaming_that_is_gone(self, tale: Tale) -> None:
        tale.rename("alice", "one")
        room = tale.rooms["acme", ROOM]
        room.name, room.name_seq, room.head = "", 0, 3
        for user in ("alice", "bob", "carol"):
            drop(tale, user, 4)
        assert tale.found() == {"acknowledged_missing": 1}

    def test_a_name_that_nobody_gave(self, tale: Tale) -> None:
        tale.rename("alice", "one").text = "another"
        assert tale.judge().findings.counts["altered_row"] == 1

    def test_one_that_was_not_told(self, tale: Tale) -> None:
        tale.rename("alice", "one")
        drop(tale, "bob", 4)
        assert tale.found() == {"incomplete": 1}

    def test_a_name_at_a_message_s_place(self, tale: Tale) -> None:
        tale.rename("alice", "one")
        tale.alter("bob", 2, kind="room", message=None, name="one")
        found = tale.found()
        assert (found["reused"], found["altered"]) == (1, 1)


class TestTheEnd:
    def test_a_message_in_the_history_that_was_not_received(self, tale: Tale) -> None:
        page = tale.page("bob", final=True)
        tale.change_events("bob", lambda events: events.remove(page))
        short = replace(page, messages=page.messages[:-1])
        tale.receiver("bob").events.append(short)
        assert tale.found() == {"history_differs": 1}

    @pytest.mark.parametrize("order", [(0, 0, 1, 2), (1, 0, 2)])
    def test_a_history_with_a_message_twice_or_out_of_order(self, tale: Tale, order: tuple[int, ...]) -> None:
        page = tale.page("bob", final=True)
        events: list[Event] = tale.receiver("bob").events
        events[-1] = replace(page, messages=tuple(page.messages[place] for place in order))
        assert tale.found() == {"history_differs": 1}

    def test_someone_who_is_refused(self, tale: Tale) -> None:
        tale.receiver("bob").refused = "closed with 4401"
        assert tale.found() == {"refused": 1}


class TestTimes:
    def test_a_late_one(self, tale: Tale) -> None:
        events = tale.receiver("bob").events
        events[-1] = replace(events[-1], at=events[-1].at + 5)
        assert tale.found(latest=4) == {"late": 1}
        assert tale.found(latest=6) == {}
        tale.receiver("bob").resumed.append(events[-1].at - 1)
        assert tale.found(latest=4) == {}, "the client wasn't there"

    def test_one_that_waits_for_the_end_of_a_fault(self, tale: Tale) -> None:
        events = tale.receiver("bob").events
        committed = events[-1].at - DELAY
        events[-1] = replace(events[-1], at=committed + 5)
        fault = Fault("hang", committed - 1, committed + 3, excuses=True)
        tale.history.faults.append(fault)
        assert tale.found(latest=2.5) == {}
        assert tale.judge().times.recoveries == {"hang": [pytest.approx(2)]}
        tale.history.faults[0] = replace(fault, excuses=False)
        assert tale.found(latest=2.5) == {"late": 1}
        tale.history.faults[0] = replace(fault, resumes=True)
        assert tale.found(soon=2.5) == {}
        assert tale.found(soon=1.5) == {"slow_recovery": 1}

    def test_how_soon_somebody_who_was_removed_is_told(self, tale: Tale) -> None:
        tale.remove("carol")
        assert tale.judge().times.removals == [pytest.approx(DELAY)]
        tale.remove("bob")
        tale.receiver("bob").resumed.append(tale.now)
        assert len(tale.judge().times.removals) == 1, "he wasn't connected"


class TestSigns:
    def test_typing_of_another_tenants_user(self, tale: Tale) -> None:
        tale.receiver("carol").events.append(Sign(tale.now, "typing", ROOM, "alice"))
        assert tale.found(habits=HABITS) == {}
        tale.receiver("carol").events.append(Sign(tale.now, "typing", ROOM, "bob"))
        assert tale.found(habits=HABITS) == {"other_tenant": 1}

    def test_typing_in_a_room_of_others(self, tale: Tale) -> None:
        tale.receiver("dave").events.append(Sign(tale.now, "read", ROOM, "alice"))
        assert tale.found(habits=HABITS) == {"other_room": 1}

    def test_somebody_online_who_is_so_in_another_tenant(self, tale: Tale) -> None:
        tale.receiver("carol").online.add("alice")
        assert tale.found(habits=HABITS) == {}
        tale.receiver("carol").online.add("bob")
        assert tale.found(habits=HABITS) == {"other_tenant": 1}

    def test_a_notification(self, tale: Tale) -> None:
        message_id = tale.send("alice", "hello @bob").answers[0].message_id
        right = Told(tale.now, ROOM, message_id, "alice mentioned you")
        tale.receiver("bob").events.append(right)
        assert tale.found() == {}

    def test_a_notification_of_a_mention_that_an_edit_brought_or_took_away(self, tale: Tale) -> None:
        write = tale.send("alice", "hello @bob")
        tale.edit(write, "hello @carol")
        for user in ("bob", "carol"):
            told = Told(tale.now, ROOM, write.answers[0].message_id, "alice mentioned you")
            tale.receiver(user).events.append(told)
        assert tale.found() == {}

    @pytest.mark.parametrize("change", [{"text": "carol mentioned you"}, {"message_id": 1}, {"message_id": 99}])
    def test_a_notification_of_something_else(self, tale: Tale, change: dict[str, Any]) -> None:
        message_id = tale.send("alice", "hello @bob").answers[0].message_id
        right = Told(tale.now, ROOM, message_id, "alice mentioned you")
        tale.receiver("bob").events.append(replace(right, **change))
        assert tale.found() == {"other_tenant": 1}

    def test_a_notification_of_a_room_of_others(self, tale: Tale) -> None:
        message_id = tale.send("alice", "hello @dave").answers[0].message_id
        tale.receiver("dave").events.append(Told(tale.now, ROOM, message_id, "alice mentioned you"))
        assert tale.found() == {"other_room": 1}


class TestResources:
    BEFORE = Resources(sockets=0, sessions=18, keys=1, channels=2, memory=0, allocated=9 * MEGABYTE, blocks=1000)

    def test_all_given_back(self) -> None:
        findings = Findings()
        check_resources(self.BEFORE, self.BEFORE, self.BEFORE, findings, workers=2)
        assert not findings

    @pytest.mark.parametrize("kind", ["sockets", "sessions", "keys", "channels"])
    def test_something_left(self, kind: str) -> None:
        findings = Findings()
        after = replace(self.BEFORE, **{kind: getattr(self.BEFORE, kind) + 2})
        check_resources(self.BEFORE, self.BEFORE, after, findings, workers=2)
        assert findings.counts == {f"{kind}_left": 2}

    @pytest.mark.parametrize("growth", [{"allocated": 16 * MEGABYTE}, {"blocks": 1200}])
    def test_memory_that_grew(self, growth: dict[str, int]) -> None:
        findings = Findings()
        check_resources(self.BEFORE, self.BEFORE, replace(self.BEFORE, **growth), findings, workers=2)
        assert findings.counts == {"memory_left": 1}


def test_every_kind_belongs_to_a_column_of_the_table_or_to_the_others() -> None:
    assert set(KINDS.values()) == {*COLUMNS, ""}
    findings = Findings()
    findings.add("skipped", "", 3)
    findings.add("repeated", "")
    assert (findings.column("lost"), findings.column("duplicated"), findings.column("foreign")) == (3, 1, 0)
    with pytest.raises(KeyError):
        findings.add("unheard of", "")

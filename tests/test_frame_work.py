"""Reading a frame costs little, whatever it holds: it is bounded before it is done."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from django_tenant_messaging.exceptions import BadFrame, BadJson, Invalid
from django_tenant_messaging.payloads import Resume, parse_frame, parsing
from django_tenant_messaging.payloads.client import MAX_ERRORS, MAX_POSITIONS

if TYPE_CHECKING:
    from collections.abc import Callable

    from pydantic import ValidationError

LARGEST = 131_072


def filled(head: str, item: Callable[[int], str], tail: str) -> str:
    """A frame as large as may be, of one kind of item."""
    items: list[str] = []
    size = len(head) + len(tail)
    while (size := size + len(text := item(len(items))) + 1) < LARGEST:
        items.append(text)
    return head + ",".join(items) + tail


def of_positions(item: Callable[[int], str]) -> str:
    return filled('{"type":"resume","id":"1","positions":{', item, "}}")


def of_values(value: str) -> str:
    return filled('{"type":"ping","id":"1","x":[', lambda _number: value, "]}")


TOO_MANY = {
    "positions": of_positions(lambda number: f'"{number + 1}":{{"epoch":"","seq":0}}'),
    "malformed positions": of_positions(lambda number: f'"x{number}":{{}}'),
    "keys": filled('{"type":"ping","id":"1",', lambda number: f'"x{number}":0', "}"),
    "keys of a position": filled(
        '{"type":"resume","id":"1","positions":{"1":{', lambda number: f'"x{number}":0', "}}}"
    ),
    "the same key": filled('{"type":"ping","id":"1",', lambda _number: '"x":0', "}"),
    "behind escaped quotes": filled('{"type":"ping","id":"1","y":"\\\\\\"[","x":[', lambda _number: "[]", "]}"),
    **{value: of_values(value) for value in ("0", "1e1", "[]", "{}", '""', '"\\""', '"\\\\"', "[[[[]]]]", '{"a":0}')},
    "open brackets": "[" * LARGEST,
    "open objects": '{"x":' * (LARGEST // 5),
    "quotes": '"' * LARGEST,
}


@pytest.mark.parametrize("text", TOO_MANY.values(), ids=TOO_MANY)
def test_a_frame_of_too_many_values_is_refused_before_they_are_made(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parsing, "_DECODER", None)
    frame_id, error = parse_frame(text)
    assert frame_id is None
    assert isinstance(error, BadFrame)
    assert "6016 values" in error.message


def test_what_stands_in_a_text_is_no_value() -> None:
    content = '[{,\\"' * 2_000
    frame = {"type": "send", "id": "1", "room": 1, "client_id": "6f1c6dd8-7a4f-4f8e-9d43-0d2f6a1b5c11"}
    for text in (content, content + "\\", '"' * 10_000, "\\" * 9_999):
        _, read = parse_frame(json.dumps({**frame, "content": text}))
        assert read.content == text  # type: ignore[union-attr]


def test_the_largest_resume_is_read() -> None:
    positions = {str(number + 1): {"epoch": "e" * 32, "seq": number} for number in range(MAX_POSITIONS)}
    _, frame = parse_frame(json.dumps({"type": "resume", "id": "1", "positions": positions}))
    assert isinstance(frame, Resume)
    assert frame.positions == positions
    too_many = dict.fromkeys(range(1, MAX_POSITIONS + 2), 0)
    _, refused = parse_frame(json.dumps({"type": "resume", "id": "1", "positions": too_many}))
    assert isinstance(refused, Invalid)
    assert [error["field"] for error in refused.details["errors"]] == ["positions"]


@pytest.fixture
def found(monkeypatch: pytest.MonkeyPatch) -> list[ValidationError]:
    """What pydantic found wrong, before the refusal names some of it."""
    errors: list[ValidationError] = []
    invalid = parsing._invalid

    def note(error: ValidationError) -> Invalid:
        errors.append(error)
        return invalid(error)

    monkeypatch.setattr(parsing, "_invalid", note)
    return errors


MANY_ERRORS: dict[str, Any] = {
    "positions": {"positions": {f"x{number}": {} for number in range(MAX_POSITIONS)}},
    "last positions": {
        "positions": {str(number): 0 if number > 1_900 else {"epoch": "", "seq": 0} for number in range(1, 2_001)}
    },
    "keys": {f"x{number}": 0 for number in range(5_000)},
    "keys of a position": {"positions": {"1": {f"x{number}": 0 for number in range(5_000)}}},
    "keys of positions": {"positions": {str(n): {f"x{number}": 0 for number in range(50)} for n in range(1, 100)}},
}


@pytest.mark.parametrize("fields", MANY_ERRORS.values(), ids=MANY_ERRORS)
def test_no_more_errors_are_looked_for_than_are_told(fields: dict[str, Any], found: list[ValidationError]) -> None:
    frame_id, error = parse_frame(json.dumps({"id": "1", "type": "resume", **fields}))
    assert frame_id == "1"
    assert isinstance(error, Invalid)
    assert 0 < len(error.details["errors"]) <= MAX_ERRORS
    # Of each of fifty positions at most a wrong key, two missing fields and ten unknown ones.
    assert found[0].error_count() <= 650


NUMBERS = {
    **{str(digits): of_values("9" * digits) for digits in (22, 40, 1_000)},
    "negative": of_values("-" + "9" * 20),
    "fractions": of_values("0." + "9" * 19),
    "exponents": of_values("123456789123456789e-300"),
    **{f"one of {digits}": '{"type":"ping","id":"1","x":%s}' % ("9" * digits) for digits in (1_025, 4_300, 100_000)},
}


@pytest.mark.parametrize("text", NUMBERS.values(), ids=NUMBERS)
def test_digits_are_counted_before_numbers_are_made(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parsing, "_DECODER", None)
    _, error = parse_frame(text)
    assert isinstance(error, BadFrame)
    assert error.message == "A frame's numbers have at most 41024 digits together, each one at most 1024."


def test_a_frame_of_few_digits_is_read() -> None:
    _, error = parse_frame('{"type":"ping","id":"1","x":%s}' % ("9" * 1_024))
    assert isinstance(error, Invalid)
    _, read = parse_frame(json.dumps({"id": "1", "type": "rename", "room": 1, "name": "9" * 100_000}))
    assert read.name == "9" * 100_000  # type: ignore[union-attr]


@pytest.mark.parametrize("padding", ["", " " * 2_000])
@pytest.mark.parametrize("twice", ['"x":0,"x":0', '"x":[{"a":":","a":1}]', '"x":0,"\\u0078":1'])
def test_a_key_twice_is_found_in_frames_of_any_size(twice: str, padding: str) -> None:
    _, error = parse_frame('{"type":"ping","id":"1",' + twice + padding + "}")
    assert isinstance(error, BadJson)
    assert error.message == "The frame is not JSON: an object has a key twice."

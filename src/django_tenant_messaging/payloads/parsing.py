"""Reading a client's frame: strict JSON first, then the frame's own class."""

from __future__ import annotations

import json
import re
from typing import Any, NoReturn, get_args

from pydantic import TypeAdapter, ValidationError

from ..exceptions import BadFrame, BadJson, FrameError, Invalid, TooDeep, UnknownType
from .client import FRAME_ID, MAX_ERRORS, MAX_POSITIONS, ClientFrame, with_few_unknown

MAX_DEPTH = 8
"""Deepest nesting of objects and arrays. The deepest frame of the protocol has 3."""
MAX_VALUES = 3 * MAX_POSITIONS + 16
"""Most values of a frame, those inside others included: what a resume may have, and no other frame has."""
MAX_QUOTES = 8 * MAX_POSITIONS + 64
MAX_DIGITS = 1_000
SHORT = 1_024
"""Characters of a frame that is read without counting its values first: it can't have many."""

_FRAMES: dict[str, type[ClientFrame]] = {
    get_args(frame.model_fields["type"].annotation)[0]: frame for frame in get_args(ClientFrame)
}
_ADAPTERS: dict[str, TypeAdapter[ClientFrame]] = {kind: TypeAdapter(frame) for kind, frame in _FRAMES.items()}


def parse_frame(text: str) -> tuple[str | None, ClientFrame | FrameError | Invalid]:
    """Return the id of a client's frame, as far as it has one, and the frame or what is wrong with it.

    The size was checked by the caller, in bytes. The work is bounded besides: values are counted before they are made,
    and no more than ``MAX_ERRORS`` errors are looked for.
    """
    try:
        value = _strict_json(text)
    except FrameError as error:
        return None, error
    if not isinstance(value, dict):
        return None, BadFrame("A frame is a JSON object.")
    frame_id = value.get("id")
    # `fullmatch`: Python's "$" lets a line break follow.
    known_id = frame_id if isinstance(frame_id, str) and re.fullmatch(FRAME_ID, frame_id) else None
    kind = value.get("type")
    if known_id is None or not isinstance(kind, str):
        return known_id, BadFrame('A frame has a "type", a string, and an "id", of 1 to 64 printable ASCII characters.')
    adapter = _ADAPTERS.get(kind)
    if adapter is None:
        return known_id, UnknownType(f"No such frame type. Known are: {', '.join(_ADAPTERS)}.", known=list(_ADAPTERS))
    try:
        return known_id, adapter.validate_python(with_few_unknown(value, _FRAMES[kind].model_fields))
    except ValidationError as error:
        return known_id, _invalid(error)


def _strict_json(text: str) -> Any:
    if len(text) > SHORT and _has_too_many_values(text):
        raise BadFrame(f"A frame has at most {MAX_VALUES} values.")
    try:
        value = _DECODER.decode(text)
    except RecursionError:
        raise _too_deep() from None
    except ValueError as error:
        raise BadJson(f"The frame is not JSON: {_reason(error)}.") from None
    # Nothing can be deeper than it has brackets.
    if text.count("{") + text.count("[") > MAX_DEPTH and _deeper_than(value, MAX_DEPTH):
        raise _too_deep()
    return value


def _has_too_many_values(text: str) -> bool:
    """Say so of a text from what stands between its strings, without a step of Python for each of them."""
    unescaped = text.replace("\\\\", "").replace('\\"', "")
    if unescaped.count('"') > MAX_QUOTES:
        return True
    between = "".join(unescaped.split('"')[::2])
    return sum(map(between.count, ",[{")) >= MAX_VALUES


def _reason(error: ValueError) -> str:
    """Say what is wrong without repeating the text, which may be a message's."""
    return f"{error.msg} at character {error.pos}" if isinstance(error, json.JSONDecodeError) else str(error)


class _RefusedError(ValueError):
    pass


def _refuse_constant(name: str) -> NoReturn:
    raise _RefusedError(f"{name} is not a JSON value")


def _whole(digits: str) -> int:
    # The time that Python takes grows with the square of their number.
    if len(digits) > MAX_DIGITS:
        raise _RefusedError("a number has too many digits")
    return int(digits)


def _finite(digits: str) -> float:
    number = float(digits)
    if number in (float("inf"), float("-inf")):
        raise _RefusedError("a number is too large")
    return number


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        raise _RefusedError("an object has a key twice")
    return value


_DECODER = json.JSONDecoder(
    parse_constant=_refuse_constant, parse_int=_whole, parse_float=_finite, object_pairs_hook=_unique_keys
)


def _deeper_than(value: Any, depth: int) -> bool:
    level = [value]
    for _ in range(depth):
        level = [
            child
            for parent in level
            if isinstance(parent, dict | list)
            for child in (parent.values() if isinstance(parent, dict) else parent)
        ]
    return any(isinstance(value, dict | list) for value in level)


def _too_deep() -> TooDeep:
    return TooDeep(f"A frame has at most {MAX_DEPTH} levels of objects and arrays.")


def _invalid(error: ValidationError) -> Invalid:
    errors = [
        {"field": ".".join(str(part) for part in item["loc"])[:200], "reason": item["msg"]}
        for item in error.errors(include_url=False, include_context=False, include_input=False)[:MAX_ERRORS]
    ]
    # A key that the client made up may hold what JSON text can't carry back.
    for item in errors:
        item["field"] = item["field"].encode("utf-8", "replace").decode()
    return Invalid(f"Wrong fields: {', '.join(item['field'] for item in errors)}.", errors=errors)

"""Reading a client's frame: strict JSON first, then the frame's own class."""

from __future__ import annotations

import json
import re
from itertools import chain
from typing import Any, NoReturn, get_args

from pydantic import TypeAdapter, ValidationError

from ..exceptions import BadFrame, BadJson, FrameError, Invalid, TooDeep, UnknownType
from .client import FRAME_ID, MAX_ERRORS, MAX_POSITIONS, ClientFrame, with_few_unknown

SHORT = 1_024
"""Characters of a frame that is read without counting first what it holds: it can't be much."""
MAX_DEPTH = 8
"""Deepest nesting of objects and arrays. The deepest frame of the protocol has 3."""
MAX_VALUES = 3 * MAX_POSITIONS + 16
"""Most values of a frame, those inside others included: what a resume may have, and no other frame has."""
MAX_QUOTES = 8 * MAX_POSITIONS + 64
MAX_DIGITS = 20 * MAX_POSITIONS + SHORT
"""Most digits of a frame's numbers together: what a resume may have."""
_ONLY_ZEROS = bytes.maketrans(b"123456789", b"000000000")
_TOO_LONG = b"0" * (SHORT + 1)
_CONTAINERS = frozenset({dict, list})
KEY_TWICE = "an object has a key twice"

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
    is_short = len(text) <= SHORT
    between = "" if is_short else _between_strings(text)
    try:
        value = (_SHORT_DECODER if is_short else _DECODER).decode(text)
    except RecursionError:
        raise _too_deep() from None
    except ValueError as error:
        raise BadJson(f"The frame is not JSON: {_reason(error)}.") from None
    # Nothing can be deeper than it has brackets.
    if is_short and text.count("{") + text.count("[") <= MAX_DEPTH:
        return value
    depth, keys = _extent(value)
    if depth > MAX_DEPTH:
        raise _too_deep()
    # A call for each of thousands of objects took longer than all else.
    if not is_short and keys != between.count(":"):
        raise BadJson(f"The frame is not JSON: {KEY_TWICE}.")
    return value


def _between_strings(text: str) -> str:
    """Return what stands between the strings of a text, without a step of Python for each value.

    Raises ``BadFrame`` if that shows more values or digits than a frame may have.
    """
    unescaped = text.replace("\\\\", "").replace('\\"', "")
    between = "".join(unescaped.split('"')[::2]) if unescaped.count('"') <= MAX_QUOTES else None
    if between is None or sum(map(between.count, ",[{")) >= MAX_VALUES:
        raise BadFrame(f"A frame has at most {MAX_VALUES} values.")
    zeros = between.encode("utf-8", "replace").translate(_ONLY_ZEROS)
    # The time that Python takes for a number grows with the square of its digits.
    if zeros.count(b"0") > MAX_DIGITS or _TOO_LONG in zeros:
        raise BadFrame(f"A frame's numbers have at most {MAX_DIGITS} digits together, each one at most {SHORT}.")
    return between


def _reason(error: ValueError) -> str:
    """Say what is wrong without repeating the text, which may be a message's."""
    return f"{error.msg} at character {error.pos}" if isinstance(error, json.JSONDecodeError) else str(error)


class _RefusedError(ValueError):
    pass


def _refuse_constant(name: str) -> NoReturn:
    raise _RefusedError(f"{name} is not a JSON value")


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        raise _RefusedError(KEY_TWICE)
    return value


_DECODER = json.JSONDecoder(parse_constant=_refuse_constant)
_SHORT_DECODER = json.JSONDecoder(parse_constant=_refuse_constant, object_pairs_hook=_unique_keys)


def _extent(value: Any) -> tuple[int, int]:
    """Return the levels of objects and arrays, and the keys of all objects."""
    depth = keys = 0
    level = [value] if type(value) in _CONTAINERS else []
    while level:
        depth += 1
        objects = [parent for parent in level if type(parent) is dict]
        keys += sum(map(len, objects))
        arrays = [parent for parent in level if type(parent) is list]
        children = chain.from_iterable((*map(dict.values, objects), *arrays))
        level = [child for child in children if type(child) in _CONTAINERS]
    return depth, keys


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

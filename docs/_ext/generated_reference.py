"""A Sphinx extension that writes the reference pages' tables from the code, so that they can't say anything else."""

from __future__ import annotations

import ast
import inspect
import json
import re
from itertools import pairwise
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import TYPE_CHECKING, Any, cast, get_args

from frame_examples import EXAMPLES

from django_tenant_messaging import conf, exceptions
from django_tenant_messaging.payloads import ClientFrame, ServerFrame
from django_tenant_messaging.realtime.allowance import COSTS
from django_tenant_messaging.realtime.close_codes import CloseCode

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from pydantic import BaseModel
    from sphinx.application import Sphinx

FOLDER = Path(__file__).resolve().parents[1] / "_generated"

# What a client does about an error; whether it may send the same frame again.
ERROR_ADVICE = {
    "bad_json": ("Correct the client.", "no"),
    "too_deep": ("Correct the client.", "no"),
    "bad_frame": ("Correct the client.", "no"),
    "unknown_type": ("Correct the client; `details.known` lists the types.", "no"),
    "invalid": ("Show or correct the fields that `details.errors` names.", "no"),
    "not_found": ("Forget the room, or the message that was answered.", "no"),
    "forbidden": ("Don't offer it to this user.", "no"),
    "conflict": ("Correct the client: a new message needs a new client id, and a socket resumes once.", "no"),
    "rate_limited": ("Wait for `details.retry_after` seconds. Repeat a send with the same `client_id`.", "yes"),
    "tenant_not_ready": (
        "Nothing: the socket is closed with 4503, and the client comes back. The operators' logs say what is wrong.",
        "yes",
    ),
    "unavailable": ("Wait a moment. Repeat a send with the same `client_id`: it is written once.", "yes"),
}
INTERNAL = (
    "internal",
    "The server failed in a way it doesn't know; its log says how.",
    "As with `unavailable`, but not without an end.",
    "yes",
)
# Of these none reaches a client as a frame's code.
NOT_IN_FRAMES = {"error", "tenant_not_found"}


def settings_page() -> str:
    """The settings, with default, expected value and documentation."""
    texts = texts_after_assignments(conf.MessagingSettings)
    parts = []
    for setting in conf.known_settings():
        parts += [
            f"### `{setting.name}`",
            f"Default: `{setting.default!r}`. Expected: {setting.rule.expected}.",
            as_markdown(texts[setting.name]),
        ]
    return paragraphs(parts)


def error_codes_page() -> str:
    """The codes of error frames."""
    rows = [
        (kind.code, as_markdown(inspect.getdoc(kind) or ""), *ERROR_ADVICE[kind.code])
        for kind in sorted(error_kinds(), key=lambda kind: list(ERROR_ADVICE).index(kind.code))
    ]
    return table(
        ("Code", "What it says", "What to do", "Send again?"),
        [(f"`{code}`", *cells) for code, *cells in [*rows, INTERNAL]],
    )


def error_kinds() -> list[type[exceptions.MessagingError]]:
    """The exceptions whose codes reach clients."""
    found = [kind for kind in vars(exceptions).values() if isinstance(kind, type)]
    return [kind for kind in found if issubclass(kind, exceptions.MessagingError) and kind.code not in NOT_IN_FRAMES]


def close_codes_page() -> str:
    """The close codes of the application."""
    texts = texts_after_assignments(CloseCode)
    return table(
        ("Code", "Name", "Why", "Reconnect?"),
        [
            (f"`{int(code)}`", f"`{code.name}`", as_markdown(texts[code.name]), "yes" if code.may_retry else "no")
            for code in CloseCode
        ],
    )


def client_frames_page() -> str:
    """The frames that clients send."""
    return frames_page(get_args(ClientFrame), mode="validation")


def server_frames_page() -> str:
    """The frames that clients get."""
    return frames_page(get_args(ServerFrame), mode="serialization")


def frame_costs_page() -> str:
    """What each frame is charged."""

    def sign(counts: bool) -> str:
        return "1" if counts else ""

    return table(
        ("Frame", "Of the socket's", "Of the user's reads", "Of the user's", "Of the room's and the tenant's"),
        [
            (f"`{kind}`", str(cost.frames), sign(cost.is_read), sign(cost.is_write), sign(cost.is_post))
            for kind, cost in sorted(COSTS.items(), key=lambda item: (item[1], item[0]))
        ],
    )


PAGES = {
    "frame_costs.md": frame_costs_page,
    "settings.md": settings_page,
    "error_codes.md": error_codes_page,
    "close_codes.md": close_codes_page,
    "client_frames.md": client_frames_page,
    "server_frames.md": server_frames_page,
}


# Frames


def frames_page(frames: Iterable[type[BaseModel]], *, mode: Any) -> str:
    """A section for each frame, then the objects that they hold."""
    parts, objects = [], {}
    for frame in frames:
        schema = frame.model_json_schema(mode=mode)
        objects |= schema.get("$defs", {})
        example = json.dumps(EXAMPLES[frame.__name__], indent=2)
        parts += [f"### {frame_title(frame)}", as_markdown(inspect.getdoc(frame) or ""), fields_table(schema)]
        parts.append(f"```json\n{example}\n```")
    for name, schema in objects.items():
        parts += [f"### {object_title(name)}", as_markdown(schema["description"]), fields_table(schema)]
    return paragraphs(parts)


def frame_title(frame: type[BaseModel]) -> str:
    """The frame's type; replies are told apart by what they answer."""
    kind = get_args(frame.model_fields["type"].annotation)[0]
    answered = frame.__name__.removesuffix("Reply").lower()
    return f"`{kind}`" if answered == frame.__name__.lower() else f"`{kind}` to `{answered}`"


def object_title(name: str) -> str:
    """How the tables name an object that frames hold."""
    return f"{name.removesuffix('Payload')} object"


def fields_table(schema: dict[str, Any]) -> str:
    """The fields of an object, with what they may hold."""
    required = set(schema.get("required", ()))
    rows = []
    for name, field in schema["properties"].items():
        text = as_markdown(field.get("description", ""))
        if name not in required and "const" not in field:
            text = f"{text} Optional, default `{json.dumps(field.get('default', {}))}`.".strip()
        rows.append((f"`{name}`", described(field), text))
    return table(("Field", "Value", "Meaning"), rows)


def described(field: dict[str, Any]) -> str:
    """What a field may hold, from its JSON schema."""
    if "$ref" in field:
        return object_title(field["$ref"].rpartition("/")[2])
    if "anyOf" in field:
        return " or ".join(described(choice) for choice in field["anyOf"])
    if "const" in field:
        return f"`{json.dumps(field['const'])}`"
    if "enum" in field:
        return ", ".join(f"`{json.dumps(value)}`" for value in field["enum"])
    match field["type"]:
        case "array":
            return f"list of {described(field['items'])}"
        case "object":
            return described_mapping(field)
        case "null":
            return "`null`"
        case kind:
            return " ".join([kind, *limits(field)])


def described_mapping(field: dict[str, Any]) -> str:
    """What an object with keys of its own may hold."""
    for pattern, value in field.get("patternProperties", {}).items():
        return f"object of {described(value)} by keys like `{pattern}`"
    values = field.get("additionalProperties")
    return f"object of {described(values)}" if isinstance(values, dict) else "object"


def limits(field: dict[str, Any]) -> Iterator[str]:
    """The bounds of a value."""
    if "format" in field:
        yield f"({field['format']})"
    if "pattern" in field:
        yield f"like `{field['pattern']}`"
    if "maxLength" in field:
        yield f"of at most {field['maxLength']} characters"
    if "minimum" in field:
        highest = "2^63 - 1" if field["maximum"] == 2**63 - 1 else field["maximum"]
        yield f"from {field['minimum']} to {highest}"


# Text


def texts_after_assignments(owner: type) -> dict[str, str]:
    """The string that follows each assignment in a class, by name."""
    (definition,) = ast.parse(inspect.getsource(owner)).body
    statements = cast("ast.ClassDef", definition).body
    texts = {}
    for statement, following in pairwise(statements):
        match statement, following:
            case (
                (ast.Assign(targets=[ast.Name(id=name)]) | ast.AnnAssign(target=ast.Name(id=name))),
                ast.Expr(value=ast.Constant(value=str(text))),
            ):
                texts[name] = inspect.cleandoc(text)
    return texts


def as_markdown(text: str) -> str:
    """A docstring's reStructuredText, as far as the reference needs it, as Markdown on one line a paragraph."""
    text = re.sub(r":\w+:`~?[\w.]*?(\w+)`", r"`\1`", text)
    text = re.sub(r"``(.+?)``", r"`\1`", text)
    return "\n\n".join(" ".join(paragraph.split()) for paragraph in text.split("\n\n"))


def table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    """A Markdown table."""
    lines = [head, ("---",) * len(head), *rows]
    return "\n".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |" for line in lines)


def paragraphs(parts: Iterable[str]) -> str:
    """The parts with an empty line between them."""
    return "\n\n".join(parts) + "\n"


def write_pages(_app: Sphinx) -> None:
    """Write the pages that changed, each at once: another build may be reading."""
    FOLDER.mkdir(exist_ok=True)
    for name, page in PAGES.items():
        file, text = FOLDER / name, page()
        if not file.exists() or file.read_text(encoding="utf-8") != text:
            with NamedTemporaryFile("w", dir=FOLDER, encoding="utf-8", delete=False) as fresh:
                fresh.write(text)
            Path(fresh.name).replace(file)


def setup(app: Sphinx) -> dict[str, Any]:
    """Register with Sphinx."""
    app.connect("builder-inited", write_pages)
    return {"parallel_read_safe": True}

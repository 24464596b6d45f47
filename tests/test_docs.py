"""The documentation builds without a warning, names all there is, and says what the code and the hosts say."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import pytest
from django.dispatch import Signal

import django_tenant_messaging
from django_tenant_messaging import actions, conf, exceptions, selectors, signals
from django_tenant_messaging.payloads import PROTOCOL, ClientFrame, ServerFrame, parse_frame
from django_tenant_messaging.realtime.asgi import PATH
from django_tenant_messaging.realtime.close_codes import CloseCode

if TYPE_CHECKING:
    from pydantic import BaseModel

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
HOST = ROOT / "tests/projects/host"
# Exported for the faces of the package itself, not for hosts.
INNER_ACTIONS = {
    "end_login",
    "end_replaced_login",
    "expire_connections",
    "mark_read_where_free",
    "renew_connections",
    "renew_connections_of",
    "send_messages_where_free",
    "set_typing",
    "store_connections",
}
DOCUMENTED_SELECTORS = {
    "access_room",
    "find_users",
    "left_rooms",
    "list_conversations",
    "list_members",
    "list_notifications",
    "list_revisions",
    "room_history",
}


class Page(HTMLParser):
    """What a built page says, and the names of its anchors."""

    def __init__(self, file: Path) -> None:
        super().__init__()
        self.text = ""
        self.anchors: set[str] = set()
        self.feed(file.read_text(encoding="utf-8"))

    def handle_data(self, data: str) -> None:
        self.text += data

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:  # noqa: ARG002 - HTMLParser's
        self.anchors |= {value for name, value in attrs if name == "id" and value}


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The documentation, built as `make docs` does; a broken link is a warning, and a warning an error."""
    folder = tmp_path_factory.mktemp("docs")
    done = subprocess.run(
        [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", "-d", folder / "trees", DOCS, folder / "html"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return folder / "html"


@pytest.fixture(scope="module")
def examples() -> dict[str, dict[str, Any]]:
    """The example frames of the protocol reference."""
    names: dict[str, Any] = {}
    exec(compile((DOCS / "_ext/frame_examples.py").read_text(), "frame_examples.py", "exec"), names)  # noqa: S102
    found: dict[str, dict[str, Any]] = names["EXAMPLES"]
    return found


def page(built: Path, name: str) -> Page:
    return Page(built / f"{name}.html")


def test_every_setting_is_documented(built: Path) -> None:
    settings = page(built, "settings")
    for setting in conf.known_settings():
        assert setting.name.lower() in settings.anchors
        assert f"Default: {setting.default!r}. Expected: {setting.rule.expected}." in settings.text


def test_every_system_check_is_documented() -> None:
    package = Path(django_tenant_messaging.__file__).parent
    ids = {
        found
        for file in package.rglob("*.py")
        for found in re.findall(r'id="(tenant_messaging\.\w+)"', file.read_text())
    }
    rows, _, sections = (DOCS / "checks.md").read_text().partition("\n## ")
    assert ids
    assert re.findall(r"^\| \[`(tenant_messaging\.\w+)`\]\(#", rows, re.MULTILINE) == sorted(ids)
    # Each is explained below, in one section that says why it matters and how to fix it.
    explained = [section.splitlines() for section in f"## {sections}".split("\n## ")]
    assert sorted(re.findall(r"[EW]\d{3}", "".join(lines[0].partition(":")[0] for lines in explained))) == [
        name.removeprefix("tenant_messaging.") for name in sorted(ids)
    ]
    for lines in explained:
        assert {"Why it matters", "How to fix it"} <= set(lines), lines[0]


def test_every_error_and_close_code_is_documented(built: Path) -> None:
    errors = page(built, "errors").text.split()
    kinds = [kind for kind in vars(exceptions).values() if isinstance(kind, type)]
    codes = {kind.code for kind in kinds if issubclass(kind, exceptions.MessagingError)}
    # The base class is never raised, and a connection without a tenant is closed, with 4404.
    for code in codes - {"error", "tenant_not_found"} | {"internal"}:
        assert code in errors
    for close_code in CloseCode:
        assert str(int(close_code)) in errors
        assert close_code.name in errors


def test_the_table_of_bad_input_names_real_codes_only() -> None:
    table = (DOCS / "errors.md").read_text().partition("## Kinds of bad input")[2]
    rows = [line.strip("| ").split(" | ") for line in table.splitlines() if line.startswith("|")][2:]
    known = {kind.code for kind in vars(exceptions).values() if isinstance(kind, type) and hasattr(kind, "code")}
    answers = {answer for _input, answer in rows}
    assert answers <= {
        *(f"`{code}`" for code in known),
        *(f"close {int(code)}" for code in CloseCode),
        "status `reset`",
        "status `gone`",
    }
    assert len(rows) > 15


def test_every_frame_is_documented_with_its_fields(built: Path) -> None:
    protocol = page(built, "protocol").text
    for frame in (*get_args(ClientFrame), *get_args(ServerFrame)):
        assert get_args(frame.model_fields["type"].annotation)[0] in protocol
        for name in frame.model_fields:
            assert re.search(rf"\b{name}\b", protocol), name
    assert PROTOCOL in protocol
    assert PATH in protocol


def test_every_frame_has_an_example(examples: dict[str, Any]) -> None:
    frames = (*get_args(ClientFrame), *get_args(ServerFrame))
    assert set(examples) == {frame.__name__ for frame in frames}


@pytest.mark.parametrize("frame", get_args(ClientFrame))
def test_the_example_of_a_client_frame_is_accepted(frame: type[BaseModel], examples: dict[str, Any]) -> None:
    example = examples[frame.__name__]
    frame_id, parsed = parse_frame(json.dumps(example))
    assert isinstance(parsed, frame), parsed
    assert frame_id == example["id"]


@pytest.mark.parametrize("frame", get_args(ServerFrame))
def test_the_example_of_a_server_frame_is_what_is_sent(frame: type[BaseModel], examples: dict[str, Any]) -> None:
    example = examples[frame.__name__]
    assert json.loads(frame.model_validate(example).model_dump_json()) == example


def test_every_public_function_and_signal_is_documented(built: Path) -> None:
    anchors = page(built, "api").anchors
    for name in set(actions.__all__) - INNER_ACTIONS:
        assert f"django_tenant_messaging.actions.{name}" in anchors
    assert set(selectors.__all__) > DOCUMENTED_SELECTORS
    for name in DOCUMENTED_SELECTORS:
        assert f"django_tenant_messaging.selectors.{name}" in anchors
    for name in (name for name, value in vars(signals).items() if isinstance(value, Signal)):
        assert f"django_tenant_messaging.signals.{name}" in anchors


def python_blocks(file: Path) -> list[str]:
    return re.findall(r"^ *```python\n(.*?)^ *```", file.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)


@pytest.mark.parametrize("file", [ROOT / "README.md", *sorted(DOCS.glob("*.md"))], ids=lambda file: file.name)
def test_python_blocks_are_python_and_import_what_exists(file: Path) -> None:
    for block in python_blocks(file):
        compile(block, file.name, "exec")
        ours = [line for line in block.splitlines() if re.match(r"from django_tenant_messaging\b", line)]
        exec("\n".join(ours), {})  # noqa: S102 - our own documentation
        for name in re.findall(r"\bactions\.(\w+)\(", block):
            assert name in actions.__all__
        for name in re.findall(r"^TENANT_MESSAGING = (\{.*?^\}|\{.*\})$", block, re.DOTALL | re.MULTILINE):
            known = {setting.name for setting in conf.known_settings()}
            assert set(re.findall(r'"([A-Z_]+)":', name)) <= known


def test_the_quick_start_installs_by_the_readme_into_the_hosts_of_the_tests(built: Path) -> None:
    text = page(built, "quickstart").text
    install = (ROOT / "README.md").read_text().partition("## Install")[2].partition("\n## ")[0]
    for block in re.findall(r"```\w+\n(.*?)```", install, re.DOTALL):
        assert block.strip() in text
    assert (HOST / "employment/members.py").read_text().strip() in text
    assert "employment.members.is_member" in text
    # Each shape that the page names is a host that the install test installs into.
    assert {file.stem for file in (HOST / "config").glob("*_user*.py")} == {
        "tenant_users",
        "shared_users",
        "custom_user",
    }


def test_the_picture_has_a_text(built: Path) -> None:
    html = (built / "architecture.html").read_text()
    start = html.index('<svg class="data-way"')
    picture = html[start : html.index("</svg>", start)]
    assert 'role="img"' in picture
    labels = re.search(r'aria-labelledby="([^"]+)"', picture)
    assert labels is not None
    assert all(f'id="{name}"' in picture for name in labels[1].split())


def test_the_recommended_frame_size_of_the_server_holds_the_largest_frame() -> None:
    default = conf.MessagingSettings.MAX_FRAME_BYTES.default
    for file in ("README.md", "docs/operations.md", "example_project/deploy/Dockerfile"):
        words = re.sub(r"[\s,\\\"]+", " ", (ROOT / file).read_text())
        (size,) = re.findall(r"--ws-max-size (\d+) --ws-per-message-deflate false", words)
        assert int(size) == 2 * default


def test_each_threat_names_tests_that_are_there() -> None:
    table = (DOCS / "threat-model.md").read_text().partition("## Threats")[2].partition("\n## ")[0]
    rows = [line for line in table.splitlines() if line.startswith("| ")][2:]
    assert len(rows) > 15
    for row in rows:
        named = re.findall(r"`((?:browser/)?test_\w+)`", row.split("|")[3])
        assert named, row
        for name in named:
            assert (ROOT / f"tests/{name}.py").exists(), name

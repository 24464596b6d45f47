"""The TENANT_MESSAGING setting, and the system checks of it and of the installation."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings as django_settings
from django.core.checks import run_checks
from django.test import override_settings

from django_tenant_messaging import checks
from django_tenant_messaging.conf import known_settings, messaging_settings

NAMES = {setting.name for setting in known_settings()}
WITHOUT_USERS = ["django.contrib.contenttypes", "django_tenant_messaging"]


def found() -> list[tuple[str, str, str]]:
    """What the checks say, as (id, message, hint)."""
    messages = run_checks(tags=["tenant_messaging"])
    assert all(message.is_serious() for message in messages)
    return [
        (str(message.id).removeprefix("tenant_messaging."), message.msg, message.hint or "") for message in messages
    ]


def not_accepted(**given: Any) -> list[tuple[str, str, str]]:
    with override_settings(TENANT_MESSAGING=given):
        return found()


# The settings


def test_settings_are_read_at_every_access() -> None:
    assert messaging_settings.MAX_CONTENT_LENGTH == 10_000
    with override_settings(TENANT_MESSAGING={"MAX_CONTENT_LENGTH": 5}):
        assert messaging_settings.MAX_CONTENT_LENGTH == 5
        assert messaging_settings.MAX_MENTIONS == 50
    assert messaging_settings.MAX_CONTENT_LENGTH == 10_000


def test_defaults_are_accepted_by_their_own_rules() -> None:
    assert len(NAMES) > 15
    for setting in known_settings():
        assert setting.rule.accepts(setting.default), setting.name
        assert getattr(messaging_settings, setting.name) == setting.default
    assert not_accepted(**{setting.name: setting.default for setting in known_settings()}) == []


def test_example_project_passes_all_checks() -> None:
    assert run_checks() == []


# The checks


def test_every_id_has_a_test_and_is_used_once() -> None:
    ids = [
        found
        for file in Path(checks.__file__).parent.glob("*.py")
        for found in re.findall(r'id="tenant_messaging\.(\w+)"', file.read_text())
    ]
    assert sorted(ids) == sorted(set(ids))
    assert {name.split("_")[1].upper() for name in globals() if re.match(r"test_[ew]\d{3}_", name)} == set(ids)


@pytest.mark.parametrize("given", [None, [], "MAX_MENTIONS", 7, ["x" * 1_000]])
def test_e001_setting_is_no_dict(given: Any) -> None:
    with override_settings(TENANT_MESSAGING=given):
        ((identifier, message, hint),) = found()
    assert identifier == "E001"
    assert message.startswith("TENANT_MESSAGING is ")
    assert message.endswith(", not a dict.")
    assert len(message) < 120
    assert "leave it out" in hint


@pytest.mark.parametrize(
    ("name", "meant"),
    [("MAX_MENTION", "MAX_MENTIONS"), ("max_mentions", "MAX_MENTIONS"), ("HEARTBEAT", "HEARTBEAT_INTERVAL")],
)
def test_e002_unknown_name(name: str, meant: str) -> None:
    ((identifier, message, hint),) = not_accepted(**{name: 1, "MAX_MENTIONS": 1})
    assert (identifier, message) == ("E002", f"TENANT_MESSAGING has no setting '{name}'.")
    assert hint == f"Did you mean '{meant}'?"


def test_e002_unknown_name_like_no_other() -> None:
    with override_settings(TENANT_MESSAGING={7: 1}):
        ((identifier, _message, hint),) = found()
    assert identifier == "E002"
    assert all(name in hint for name in NAMES)


WRONG: list[tuple[str, Any, str]] = [
    ("MAX_CONTENT_LENGTH", 0, "a whole number, 1 or more"),
    ("MAX_CONTENT_LENGTH", "10", "a whole number, 1 or more"),
    ("MAX_CONTENT_LENGTH", 10.0, "a whole number, 1 or more"),
    ("MAX_CONTENT_LENGTH", True, "a whole number, 1 or more"),
    ("MAX_CONTENT_LENGTH", None, "a whole number, 1 or more"),
    ("MAX_MENTIONS", -1, "a whole number, 0 or more"),
    ("HEARTBEAT_INTERVAL", 0, "a number of seconds, 0.1 or more"),
    ("HEARTBEAT_INTERVAL", float("nan"), "a number of seconds, 0.1 or more"),
    ("HEARTBEAT_INTERVAL", float("inf"), "a number of seconds, 0.1 or more"),
    ("HEARTBEAT_INTERVAL", True, "a number of seconds, 0.1 or more"),
    ("NEW_MEMBERS_SEE_HISTORY", 1, "True or False"),
    ("CHANNEL_LAYER", "", "a non-empty string"),
    ("ALLOWED_ORIGINS", "https://app.example.com", "a list of origins"),
    ("ALLOWED_ORIGINS", ["app.example.com"], "a list of origins"),
    ("TENANT_MEMBERSHIP", "no.such.module", "the dotted path of a callable"),
    ("TENANT_MEMBERSHIP", "nodots", "the dotted path of a callable"),
    ("TENANT_MEMBERSHIP", "django.conf.ENVIRONMENT_VARIABLE", "the dotted path of a callable"),
    ("TENANT_MEMBERSHIP", "tests.broken_module.hook", "the dotted path of a callable"),
    ("TENANT_MEMBERSHIP", 5, "the dotted path of a callable"),
]


@pytest.mark.parametrize(("name", "value", "expected"), WRONG, ids=str)
def test_e003_wrong_value(name: str, value: Any, expected: str) -> None:
    ((identifier, message, hint),) = not_accepted(**{name: value})
    assert identifier == "E003"
    assert message.startswith(f"TENANT_MESSAGING['{name}'] is {value!r}, which is not {expected}")
    assert hint.startswith("Its default is ")


def test_e003_path_to_a_module_that_breaks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "breaking_hooks.py").write_text("1 / 0\n")
    monkeypatch.syspath_prepend(tmp_path)
    assert [identifier for identifier, *_ in not_accepted(TENANT_MEMBERSHIP="breaking_hooks.is_member")] == ["E003"]


def test_all_that_is_wrong_is_said_at_once() -> None:
    messages = not_accepted(MAX_MENTION=1, MAX_CONTENT_LENGTH=0, HEARTBEAT_INTERVAL="often")
    assert [identifier for identifier, *_ in messages] == ["E002", "E003", "E003"]


def test_e004_app_is_not_the_tenants() -> None:
    with override_settings(TENANT_APPS=["django.contrib.auth"]):
        ((identifier, message, hint),) = found()
    assert identifier == "E004"
    assert "not in TENANT_APPS" in message
    assert "migrate_schemas" in hint


def test_app_may_be_named_by_its_config() -> None:
    named = ["django.contrib.auth", "django_tenant_messaging.apps.TenantMessagingConfig"]
    with override_settings(TENANT_APPS=named):
        assert found() == []


def test_e005_app_is_shared() -> None:
    with override_settings(SHARED_APPS=[*django_settings.SHARED_APPS, "django_tenant_messaging"]):
        ((identifier, message, hint),) = found()
    assert identifier == "E005"
    assert "SHARED_APPS" in message
    assert "Remove" in hint


def test_e006_shared_users_without_a_rule() -> None:
    with override_settings(TENANT_APPS=WITHOUT_USERS):
        ((identifier, message, hint),) = found()
        assert identifier == "E006"
        assert "nobody could use messaging" in message
        assert "TENANT_MEMBERSHIP" in hint
        assert not_accepted(TENANT_MEMBERSHIP=lambda _user, _schema_name: True) == []
        assert [identifier for identifier, *_ in not_accepted(TENANT_MEMBERSHIP="no.such.hook")] == ["E003"]
        with override_settings(TENANT_MESSAGING=None):
            assert [identifier for identifier, *_ in found()] == ["E001"]


def test_tenant_types_are_checked_like_tenant_apps() -> None:
    types = {"main": {"APPS": ["django_tenant_messaging"]}, "firm": {"APPS": ["django.contrib.auth"]}}
    with override_settings(HAS_MULTI_TYPE_TENANTS=True, PUBLIC_SCHEMA_NAME="main", TENANT_TYPES=types):
        assert [identifier for identifier, *_ in found()] == ["E004", "E005"]
        types["firm"]["APPS"].append("django_tenant_messaging")
        types["main"]["APPS"].clear()
        assert found() == []

"""Names that carry the tenant, within what channel layers allow."""

from __future__ import annotations

import re

import pytest
from channels.layers import InMemoryChannelLayer
from hypothesis import given
from hypothesis import strategies as st

from django_tenant_messaging.tenancy import group_name

LAYER = InMemoryChannelLayer()
# What django-tenants accepts as a schema name: anything but quotes, backslash, semicolon, line ends and NUL, 63 bytes.
SCHEMAS = st.text(st.characters(exclude_characters="'\"\\;\r\n\0", exclude_categories=["Cs"]), min_size=1).filter(
    lambda name: len(name.encode()) <= 63
)
KEYS = st.one_of(st.integers(min_value=-(2**63), max_value=2**63), st.uuids(), st.text(st.characters(codec="utf-8")))
KINDS = st.sampled_from(["room", "user", "presence"])


@given(SCHEMAS, KINDS, KEYS)
def test_group_name_is_valid_for_every_layer(schema_name: str, kind: str, key: object) -> None:
    name = group_name(schema_name, kind, key)
    assert LAYER.require_valid_group_name(name)
    assert len(name) < 100
    assert re.fullmatch(r"[\w.-]+", name, re.ASCII)


@given(st.tuples(SCHEMAS, KINDS, KEYS), st.tuples(SCHEMAS, KINDS, KEYS))
def test_different_objects_have_different_groups(one: tuple[str, str, object], other: tuple[str, str, object]) -> None:
    is_same = (*one[:2], str(one[2])) == (*other[:2], str(other[2]))
    assert (group_name(*one) == group_name(*other)) == is_same


@pytest.mark.parametrize(
    "schema_name", ["acme", "Acme", "a b", "ä" * 31, "ac.me", "会社", "acme%", "x" * 63, "😀" * 15, "acme-1", "acme_1"]
)
def test_odd_schema_names(schema_name: str) -> None:
    assert LAYER.require_valid_group_name(group_name(schema_name, "room", 7))
    assert group_name(schema_name, "room", 7) != group_name("acme2", "room", 7)
    assert group_name(schema_name, "room", 7) == group_name(schema_name, "room", "7")


def test_odd_keys_do_not_reach_other_groups() -> None:
    keys = ["1", "1.", "1 ", "01", "a" * 40, "a" * 41, "ä", "a@example.com", "", "-", "1.room.2"]
    assert len({group_name("acme", "user", key) for key in keys}) == len(keys)

"""Names inside SQL are composed in one place, and mean what Django means by them."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from django_tenant_messaging.models import Message
from django_tenant_messaging.tenancy import as_sent, column_of, quoted, table_in, table_of
from django_tenant_messaging.tenancy.identifiers import is_elsewhere, stored_column, stored_table


def model_of(db_table: str, *, column: str = "id") -> Any:
    field = SimpleNamespace(column=column)
    return SimpleNamespace(_meta=SimpleNamespace(db_table=db_table, pk=field, get_field=lambda _name: field))


@pytest.mark.parametrize(
    ("name", "composed"),
    [
        ("acme", '"acme"'),
        ("A b", '"A b"'),
        ('a"b', '"a""b"'),
        ('a"; DROP SCHEMA public; --', '"a""; DROP SCHEMA public; --"'),
        ("a%b", '"a%%b"'),
        ("a%%b", '"a%%%%b"'),
        ("%(rooms)s", '"%%(rooms)s"'),
        ("a.b", '"a.b"'),
    ],
)
def test_a_name_is_quoted_and_its_percent_signs_doubled(name: str, composed: str) -> None:
    assert quoted(name) == composed
    assert quoted("other", name) == f'"other".{composed}'
    assert as_sent(quoted(name)) == composed.replace("%%", "%")


def test_a_name_with_nul_is_refused() -> None:
    with pytest.raises(ValueError, match="can't hold a NUL"):
        quoted("a\0b")


@pytest.mark.parametrize(
    ("db_table", "plain", "in_acme"),
    [
        ("User", '"User"', '"acme"."User"'),
        ('"User"', '"User"', '"acme"."User"'),
        ('us""er', '"us""er"', '"acme"."us""er"'),
        # Django's queries read two signs as one, and of one alone or a quote alone they make nothing.
        ("us%%er", '"us%%er"', '"acme"."us%%er"'),
        ("us%er", '"us%%er"', '"acme"."us%%er"'),
        ('us"er', '"us""er"', '"acme"."us""er"'),
        ('shared"."people', '"shared"."people"', '"shared"."people"'),
        ('"shared"."people"', '"shared"."people"', '"shared"."people"'),
        ('"sha.red"."people"', '"sha.red"."people"', '"sha.red"."people"'),
        ("shared.people", '"shared.people"', '"acme"."shared.people"'),
    ],
)
def test_a_table_is_qualified_unless_its_name_is(db_table: str, plain: str, in_acme: str) -> None:
    model = model_of(db_table)
    assert table_of(model) == plain
    assert table_in("acme", model) == in_acme
    assert is_elsewhere(model) == (in_acme == plain)


def test_a_column_is_found_by_its_field() -> None:
    assert column_of(Message, "pk") == '"id"'
    assert column_of(Message, "sender") == '"sender_id"'
    assert column_of(model_of("t", column='to""tal %%'), "pk") == '"to""tal %%"'


def test_what_the_database_calls_it() -> None:
    assert stored_table(model_of('"sha.red"."pe""ople"')) == 'pe"ople'
    assert stored_table(model_of('us"er%')) == 'us"er%'
    assert stored_column(SimpleNamespace(column='a""b.c')) == 'a"b.c'
    assert stored_column(SimpleNamespace(column="a" + "é" * 32)) == "a" + "é" * 31

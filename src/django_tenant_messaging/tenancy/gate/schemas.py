"""Which schemas there are, and of which kind: the shared one, or a tenant type's."""

from __future__ import annotations

from typing import TYPE_CHECKING

from django_tenants.postgresql_backend.base import is_valid_schema_name
from django_tenants.utils import get_multi_type_database_field_name, get_tenant_model, has_multi_type_tenants

from ..context import activated, is_public_schema, public_schema
from ..database import TENANT_DATABASE, serves_messages
from ..identifiers import LONGEST_NAME

if TYPE_CHECKING:
    from collections.abc import Collection


OTHERS_NAMES = {"$user": "the schema called like the connection's user", "information_schema": "a schema of its own"}
"""What PostgreSQL takes for something else, in quotes too."""


def unusable_name(schema_name: str) -> str:
    """Say why no tenant can have a schema of this name, though its row may; empty for one that can be used.

    A name that django-tenants refuses fails in every query. One that is cut short, or means something else, would be
    served from a schema that isn't the tenant's; one that can't be printed would forge lines in logs.
    """
    size = len(schema_name.encode(errors="replace"))
    if size > LONGEST_NAME:
        return f"the schema's name has {size} bytes, and PostgreSQL cuts it short after {LONGEST_NAME}"
    if meaning := OTHERS_NAMES.get(schema_name):
        return f"the schema's name means {meaning} to PostgreSQL"
    if not is_valid_schema_name(schema_name) or not schema_name.isprintable():
        return (
            "the schema's name is empty, begins with pg_, or holds a quote, a semicolon, a backslash or what can't be"
            " printed"
        )
    return ""


def schema_kinds(schema_names: Collection[str] | None = None) -> dict[str, str]:
    """Return the kinds of the named schemas, or of all, by schema name, the shared schema first; one query.

    The kind is the tenant's type, ``""`` where tenants have no types, and the shared schema's own name for itself.
    Names that no tenant has are left out.
    """
    type_field = [get_multi_type_database_field_name()] if has_multi_type_tenants() else []
    public = public_schema()
    tenants = get_tenant_model().objects.using(TENANT_DATABASE).exclude(schema_name=public).order_by("schema_name")
    if schema_names is not None:
        tenants = tenants.filter(schema_name__in=[name for name in schema_names if _can_be_a_name(name)])
    with activated(public):
        rows = list(tenants.values_list("schema_name", *type_field))
    kinds = {public: public} if schema_names is None or public in schema_names else {}
    return kinds | {name: kind[0] if kind else "" for name, *kind in rows}


def _can_be_a_name(name: str) -> bool:
    """Say whether the database can be asked for a name: a command line may hold what isn't text."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return "\0" not in name


def kind_of(schema_name: str) -> str | None:
    """Return the kind of a schema; a query only where tenants have types, and ``None`` when no tenant has it there."""
    if is_public_schema(schema_name):
        return schema_name
    return schema_kinds([schema_name]).get(schema_name) if has_multi_type_tenants() else ""


def has_messages(schema_name: str) -> bool:
    """Say whether a schema gets this app's tables: not the shared one, nor a tenant's whose type is without the app."""
    if is_public_schema(schema_name):
        return False
    kind = kind_of(schema_name)
    return kind is not None and serves_messages(kind)

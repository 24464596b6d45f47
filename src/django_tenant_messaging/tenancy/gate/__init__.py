"""The migration gate: what a schema must hold, what it holds, and whether it may be served."""

from __future__ import annotations

from .creation import connect_creation, schema_unready
from .inspection import inspect_schema, inspect_schemas
from .requirements import requirements_of, state_models
from .schemas import has_messages, kind_of, schema_kinds
from .verdicts import (
    BYPASS_VARIABLE,
    check_is_bypassed,
    facts,
    forget_readiness,
    hindrance,
    hindrance_after,
    known_to_be_ready,
    readiness_of,
    readiness_of_all,
    require_all_ready,
    require_ready,
    verdicts,
)

__all__ = [
    "BYPASS_VARIABLE",
    "check_is_bypassed",
    "connect_creation",
    "facts",
    "forget_readiness",
    "has_messages",
    "hindrance",
    "hindrance_after",
    "inspect_schema",
    "inspect_schemas",
    "kind_of",
    "known_to_be_ready",
    "readiness_of",
    "readiness_of_all",
    "require_all_ready",
    "require_ready",
    "requirements_of",
    "schema_kinds",
    "schema_unready",
    "state_models",
    "verdicts",
]

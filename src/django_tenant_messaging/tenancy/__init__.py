"""Everything that knows about tenants: the only package that imports django_tenants."""

from __future__ import annotations

from .context import activated, current_schema, is_public_schema, public_schema
from .database import (
    TENANT_DATABASE,
    admin_log_is_shared,
    app_is_shared,
    app_is_tenants,
    database_address,
    sessions_are_per_tenant,
    sessions_are_shared,
    users_are_shared,
)
from .executor import close_executor, run_in_tenant
from .gate import (
    connect_creation,
    forget_readiness,
    has_messages,
    readiness_of,
    readiness_of_all,
    require_all_ready,
    require_ready,
    schema_unready,
)
from .hosts import Tenant, handshake_request, origin_allowed, resolve_tenant, resolve_tenants
from .identifiers import SQLName, as_sent, column_of, quoted, table_in, table_of, unfindable_names
from .names import group_name
from .sessions import Login, bind_session, has_login, login_belongs_here, login_of
from .thread_connections import execute_prepared, plan_mark, preparing_cursor

__all__ = [
    "TENANT_DATABASE",
    "Login",
    "SQLName",
    "Tenant",
    "activated",
    "admin_log_is_shared",
    "app_is_shared",
    "app_is_tenants",
    "as_sent",
    "bind_session",
    "close_executor",
    "column_of",
    "connect_creation",
    "current_schema",
    "database_address",
    "execute_prepared",
    "forget_readiness",
    "group_name",
    "handshake_request",
    "has_login",
    "has_messages",
    "is_public_schema",
    "login_belongs_here",
    "login_of",
    "origin_allowed",
    "plan_mark",
    "preparing_cursor",
    "public_schema",
    "quoted",
    "readiness_of",
    "readiness_of_all",
    "require_all_ready",
    "require_ready",
    "resolve_tenant",
    "resolve_tenants",
    "run_in_tenant",
    "schema_unready",
    "sessions_are_per_tenant",
    "sessions_are_shared",
    "table_in",
    "table_of",
    "unfindable_names",
    "users_are_shared",
]

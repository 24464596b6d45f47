"""Making a tenant: when ``save()`` returns its schema is there and fully migrated, or nothing of it is.

django-tenants makes the schema after ``post_save``. Receivers of that signal do it first, verified and one process at
a time; django-tenants then finds the schema and leaves it alone.
"""

from __future__ import annotations

import logging
import sys
import time
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass
from functools import partial, wraps
from typing import TYPE_CHECKING, Any

from django.apps import apps
from django.core.exceptions import ValidationError
from django.db import connections, transaction
from django.db.models import Model
from django.db.models.signals import post_delete, post_save, pre_save
from django.dispatch import Signal
from django_tenants.utils import (
    get_creation_fakes_migrations,
    get_tenant_model,
    schema_exists,
)

from ...conf import messaging_settings
from ...exceptions import TenantCreationError, TenantNotReady
from ...signals import tenant_created, tenant_creation_failed
from ...types import Readiness, SchemaState
from ..context import activated, public_schema
from ..database import TENANT_DATABASE
from ..identifiers import quoted
from .failures import Failure, cause_of, first_line, migration_of
from .inspection import inspect_schema
from .migrating import migration_lock, no_transaction_left, run_migrations
from .schemas import kind_of, unusable_name
from .sites import connect_sites, name_site
from .verdicts import facts, readiness_of, verdicts

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager

logger = logging.getLogger(__name__)

schema_unready = Signal()
"""A schema can't be served any more, by what this process did to it. Arguments: ``schema_name``."""

DISPATCH_UID = "tenant_messaging_creation"
NOTE = "_messaging_schema_note"
"""Attribute of a tenant instance, in its ``__dict__`` alone."""


@dataclass(slots=True)
class _Note:
    """What is remembered of a tenant's latest save: whose schema it would be if the save failed."""

    schema_name: str
    is_new: bool
    since: float
    existed: bool = True
    is_told: bool = False


def connect_creation() -> None:
    """Connect to the host's tenant and domain models and to django-tenants' signals, once all models are loaded."""
    from django_tenants.signals import schema_migrated, schema_pre_migration

    tenant_model = get_tenant_model()
    for model in apps.get_models():
        # A receiver of a model hears nothing of its proxies and children.
        if issubclass(model, tenant_model):
            pre_save.connect(note_save, sender=model, dispatch_uid=DISPATCH_UID)
            post_save.connect(complete_tenant, sender=model, dispatch_uid=DISPATCH_UID)
            post_delete.connect(forget_tenant, sender=model, dispatch_uid=DISPATCH_UID)
    schema_pre_migration.connect(forget_schema, dispatch_uid=DISPATCH_UID)
    schema_migrated.connect(look_again, dispatch_uid=DISPATCH_UID)
    _keep_existing_schemas(tenant_model)
    connect_sites()


def note_save(instance: Any, raw: bool = False, **_kwargs: Any) -> None:
    """Remember of a tenant that is about to be saved whether django-tenants will take it for a new one."""
    if not raw:
        vars(instance)[NOTE] = _Note(instance.schema_name, is_new=instance._state.adding, since=time.monotonic())


def complete_tenant(instance: Any, created: bool, raw: bool = False, **_kwargs: Any) -> None:
    """Make and migrate the schema of a tenant that was saved and has none.

    A schema that is there already is neither changed nor dropped; one that isn't ready is reported, and refused by
    the gate. Raises :class:`~django_tenant_messaging.exceptions.TenantCreationError`.
    """
    if raw or not instance.auto_create_schema:
        return
    note: _Note = vars(instance)[NOTE]
    with activated(public_schema()):
        # A new name that is cut short would find somebody else's.
        exists = schema_exists(instance.schema_name) and not (created and unusable_name(instance.schema_name))
        note.existed = exists or not _make_schema(instance, note, row_is_new=created)
    if note.existed:
        if created:
            _report_existing(instance)
        return
    name_site(instance)


def forget_tenant(instance: Any, **_kwargs: Any) -> None:
    """Believe nothing of the schema of a tenant that was deleted."""
    verdicts.forget(instance.schema_name)
    schema_unready.send_robust(None, schema_name=instance.schema_name)


def forget_schema(schema_name: str, **_kwargs: Any) -> None:
    """Believe nothing of a schema that this process is about to migrate."""
    verdicts.forget(schema_name)


def look_again(schema_name: str, **_kwargs: Any) -> None:
    """Believe nothing of a schema that this process has migrated, and tell when it can't be served now."""
    verdicts.forget(schema_name)
    if not readiness_of(schema_name).is_ready:
        schema_unready.send_robust(None, schema_name=schema_name)


def _make_schema(tenant: Any, note: _Note, *, row_is_new: bool) -> bool:
    """Make the schema, or leave nothing of it; ``False`` when somebody else made it meanwhile."""
    name = tenant.schema_name
    started = time.monotonic()
    template: Readiness | None = None
    is_ours = False
    with ExitStack() as stack:
        try:
            _require_usable(name)
            stack.enter_context(migration_lock(name))
            if schema_exists(name):
                return False
            is_ours = True
            logger.info("Running migrations for tenant: %s", name, extra={"schema_name": name})
            template = _template_of(tenant)
            with _savepoint(), no_transaction_left():
                if not _migrate(tenant, template):
                    return False
                if not note.is_new:
                    _announce(tenant)
        except BaseException as error:
            # Still under the lock, so that no repair of this very tenant comes between.
            seconds = time.monotonic() - started
            failure = _failure(tenant, error, template)
            _undo(failure, tenant, schema_is_ours=is_ours, row_is_new=row_is_new)
            _report_failure(failure, error, seconds)
            if not isinstance(error, Exception):
                raise
            raise TenantCreationError(str(failure), schema_name=name, remedy=failure.remedy) from failure.cause
    seconds = time.monotonic() - started
    fields = {"schema_name": name, "seconds": round(seconds, 3)}
    logger.info("Migrations completed successfully for tenant: %s", name, extra=fields)
    _on_commit(partial(verdicts.forget, name))
    _on_commit(partial(tenant_created.send_robust, None, schema_name=name, seconds=seconds))
    return True


def _require_usable(schema_name: str) -> None:
    if reason := unusable_name(schema_name):
        raise ValidationError(reason)


def _migrate(tenant: Any, template: Readiness | None) -> bool:
    name = tenant.schema_name
    kind = kind_of(name) or ""
    if tenant.create_schema(check_if_exists=True, verbosity=0) is False:
        return False
    if template is not None and template.state is SchemaState.BEHIND:
        _record_as_in(template.schema_name, name)
    found = inspect_schema(name, kind)
    if found.state is SchemaState.BEHIND:
        run_migrations(name)
        found = inspect_schema(name, kind)
    if not found.is_ready:
        raise TenantNotReady(found)
    return True


def _template_of(tenant: Any) -> Readiness | None:
    """Return what the schema is that this tenant will be cloned from, if it will."""
    base = tenant.get_base_schema() if get_creation_fakes_migrations() else None
    return inspect_schema(base, kind_of(tenant.schema_name) or "") if base and schema_exists(base) else None


def _record_as_in(template: str, clone: str) -> None:
    """Let a clone record what its template records: django-tenants records every migration there is for a clone."""
    ours, theirs = quoted(clone, "django_migrations"), quoted(template, "django_migrations")
    with connections[TENANT_DATABASE].cursor() as cursor:
        cursor.execute(
            f"DELETE FROM {ours} c WHERE NOT EXISTS (SELECT 1 FROM {theirs} t WHERE (t.app, t.name) = (c.app, c.name))",
            [],
        )


def _announce(tenant: Any) -> None:
    """Tell what django-tenants tells after a new tenant; of an older row it will find that the schema exists."""
    from django_tenants.models import TenantMixin
    from django_tenants.signals import post_schema_sync

    post_schema_sync.send(sender=TenantMixin, tenant=tenant.serializable_fields())


def _savepoint() -> AbstractContextManager[Any]:
    """Inside a transaction, a caller who catches the error must find it usable, with nothing half-made in it."""
    in_transaction = connections[TENANT_DATABASE].in_atomic_block
    return transaction.atomic(TENANT_DATABASE) if in_transaction else nullcontext()


def _failure(tenant: Any, error: BaseException, template: Readiness | None = None) -> Failure:
    return Failure(
        schema_name=tenant.schema_name,
        cause=cause_of(error),
        migration=migration_of(error),
        template=template,
        in_transaction=connections[TENANT_DATABASE].in_atomic_block,
    )


def _undo(failure: Failure, tenant: Any, *, schema_is_ours: bool, row_is_new: bool) -> None:
    """Remove what a failed creation made, and note what became of it."""
    verdicts.forget(tenant.schema_name)
    if messaging_settings.KEEP_FAILED_TENANTS and not failure.in_transaction:
        failure.is_for_diagnosis = True
        return
    connection: Any = connections[TENANT_DATABASE]
    if not failure.in_transaction and not connection.is_usable():
        connection.close()
    connection.set_schema_to_public()
    if schema_is_ours and failure.in_transaction:
        # Rolled back by now.
        failure.removed.append("its schema")
    elif schema_is_ours and not failure.made_nothing:
        failure.remove("its schema", partial(_drop, tenant.schema_name))
    if row_is_new:
        failure.remove("its row", partial(_delete_row, tenant))


def _drop(schema_name: str) -> None:
    with transaction.atomic(TENANT_DATABASE), connections[TENANT_DATABASE].cursor() as cursor:
        cursor.execute(f"DROP SCHEMA IF EXISTS {quoted(schema_name)} CASCADE", [])


def _delete_row(tenant: Any) -> None:
    # The schema is gone already, or isn't ours to drop.
    drops, tenant.auto_drop_schema = tenant.auto_drop_schema, False
    try:
        with transaction.atomic(tenant._state.db):
            Model.delete(tenant)
    finally:
        tenant.auto_drop_schema = drops
    # So that the same object can be saved again.
    tenant._state.adding = True


def _report_failure(failure: Failure, error: BaseException, seconds: float) -> None:
    logger.critical("%s", failure, exc_info=error, extra={**failure.fields(), "seconds": round(seconds, 3)})
    tenant_creation_failed.send_robust(None, schema_name=failure.schema_name, seconds=seconds, error=failure.cause)


def _report_existing(tenant: Any) -> None:
    name = tenant.schema_name
    kind = kind_of(name) or ""
    verdicts.forget(name)
    try:
        found = inspect_schema(name, kind)
        if not found.is_ready:
            # A repair in another process may be making it, having seen the new row at once.
            with migration_lock(name):
                found = inspect_schema(name, kind)
    except Exception as error:  # noqa: BLE001 - whatever it is, the gate will refuse the schema
        found = Readiness(name, SchemaState.ERROR, error=f"it can't be inspected: {first_line(error)}")
    if found.is_ready:
        logger.info("[%s] The new tenant's schema existed before: %s.", name, found.reason, extra={"schema_name": name})
        return
    level = logging.WARNING if found.state is SchemaState.BEHIND else logging.CRITICAL
    logger.log(
        level,
        "[%s] The new tenant's schema existed before, is left as it was, and is NOT READY: %s. Required action: %s",
        name,
        found.reason,
        found.remedy,
        extra=facts(found),
    )


def _on_commit(call: Callable[[], Any]) -> None:
    transaction.on_commit(call, using=TENANT_DATABASE, robust=True)


def _keep_existing_schemas(tenant_model: Any) -> None:
    """Let a failing save never drop a schema that it hasn't made.

    When a ``post_schema_sync`` receiver raises, ``TenantMixin.save`` drops the tenant's schema, even one that existed
    before and holds data. It offers no hook between the two, so the method that drops is wrapped. Other deletions
    are as ever.
    """
    from django_tenants.models import TenantMixin

    save = TenantMixin.save.__code__
    drop = tenant_model._drop_schema
    if getattr(drop, "keeps_existing", False):
        return

    @wraps(drop)
    def drop_schema(self: Any, force_drop: bool = False) -> None:
        note: _Note | None = vars(self).get(NOTE)
        error = _handled_in(save)
        if error is None or note is None or note.schema_name != self.schema_name:
            drop(self, force_drop)
            return
        if not note.is_told:
            note.is_told = True
            _report_receiver(self, note, error)
        if not note.existed:
            drop(self, force_drop)

    vars(drop_schema)["keeps_existing"] = True
    tenant_model._drop_schema = drop_schema


def _handled_in(code: object) -> BaseException | None:
    """Return the exception that a function, which called us, is handling in an ``except`` of its own."""
    error = sys.exception()
    while error is not None:
        # The outermost entry of a traceback is the frame that caught it.
        if error.__traceback__ is not None and error.__traceback__.tb_frame.f_code is code:
            return error
        error = error.__context__
    return None


def _report_receiver(tenant: Any, note: _Note, error: BaseException) -> None:
    """Tell that a host's receiver ended a creation; its own exception is what the caller gets."""
    failure = _failure(tenant, error)
    failure.is_receivers = True
    (failure.kept if note.existed else failure.removed).append("its schema")
    if note.is_new:
        failure.removed.append("its row")
    _report_failure(failure, error, time.monotonic() - note.since)

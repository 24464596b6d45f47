"""The course of ``verify_tenant_migrations``: list, look, repair, report."""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NoReturn

from django.core.exceptions import ImproperlyConfigured
from django.core.management.base import CommandError, OutputWrapper
from django.db import Error

from ..exceptions import Unavailable
from ..tenancy import public_schema
from ..tenancy.gate import inspect_schemas, schema_kinds
from ..tenancy.gate.verdicts import is_undefined
from ..types import Readiness, SchemaState, printable
from . import report
from .fixing import repair_in_processes, repair_one_by_one
from .looking import look_at
from .progress import Progress
from .worker import keep_records_off_the_terminal

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence

    from ..tenancy.gate.repair import Repair

NOT_READY = 1
NOT_KNOWN = 2


@dataclass(frozen=True, slots=True)
class Options:
    """What was asked for. ``schemas`` are names, ``None`` for all."""

    schemas: Sequence[str] | None = None
    fix: bool = False
    as_json: bool = False
    processes: int = 1
    fail_fast: bool = False
    verbosity: int = 1


@dataclass(slots=True)
class _Course:
    """What is known so far. ``kinds`` are the schemas that are asked for, ``found`` those that were looked at."""

    kinds: dict[str, str] = field(default_factory=dict)
    found: dict[str, Readiness] = field(default_factory=dict)
    repairs: dict[str, Repair] = field(default_factory=dict)
    tenants_are_listed: bool = True

    @property
    def left(self) -> list[str]:
        return [name for name in self.kinds if name not in self.found]

    @property
    def is_success(self) -> bool:
        is_complete = self.tenants_are_listed and not self.left
        repaired = all(repair.is_success for repair in self.repairs.values())
        return is_complete and repaired and all(readiness.is_ready for readiness in self.found.values())


def verify(options: Options, output: OutputWrapper, errors: OutputWrapper) -> None:
    """Tell which schemas are ready, and repair those that aren't if that is wanted.

    The report goes to ``output``, warnings and progress to ``errors``. Raises ``CommandError`` with the exit status
    as its ``returncode``: 1 when a schema isn't ready, 2 when that can't be found out or the user interrupts.
    """
    keep_records_off_the_terminal()
    course = _Course()
    try:
        _list(course, options)
        _look(course, options, errors)
        if options.fix:
            _fix(course, options, output, errors)
        _leave_out_deleted(course)
    except KeyboardInterrupt:
        _give_up(course, options, output, "Interrupted. What was done is kept; the command can be run again.")
    except (Unavailable, Error) as error:
        text = str(error).strip().partition("\n")[0]
        _give_up(course, options, output, f"The schemas can't be verified: {text}")
    except (ImproperlyConfigured, LookupError, AttributeError) as error:
        _give_up(course, options, output, f"The tenants aren't configured: {error}")
    _report(course, options, output)
    _conclude(course, options, output, errors)


def _list(course: _Course, options: Options) -> None:
    try:
        course.kinds = schema_kinds(options.schemas)
    except Error as error:
        if not is_undefined(error) or set(options.schemas or ()) - {public_schema()}:
            raise
        # The tenants' own table comes with the shared schema's migrations.
        course.tenants_are_listed = False
        course.kinds = {public_schema(): public_schema()}
        return
    unknown = [name for name in options.schemas or () if name not in course.kinds]
    if unknown:
        names = ", ".join(printable(name) for name in unknown)
        raise CommandError(f"No tenant has the schema: {names}", returncode=NOT_KNOWN)


def _look(course: _Course, options: Options, errors: OutputWrapper) -> None:
    progress = Progress(errors, "Schemas looked at", len(course.kinds))
    kinds = {name: kind for name, kind in course.kinds.items() if name not in course.found}
    for readiness in progress.over(look_at(kinds)):
        course.found[readiness.schema_name] = readiness
        if options.fail_fast and not options.fix and not readiness.is_ready:
            return


def _fix(course: _Course, options: Options, output: OutputWrapper, errors: OutputWrapper) -> None:
    """Repair what isn't ready: first the shared schema, which the tenants rely on."""
    public = public_schema()
    if public in course.found and not course.found[public].is_ready:
        _repair([public], course, options, output, errors)
        if options.fail_fast and not course.repairs[public].is_success:
            return
    if not course.tenants_are_listed and course.found[public].is_ready:
        course.tenants_are_listed = True
        course.kinds = schema_kinds(options.schemas)
        _look(course, options, errors)
    tenants = [name for name, found in course.found.items() if not found.is_ready and name != public]
    _repair(tenants, course, options, output, errors)


def _leave_out_deleted(course: _Course) -> None:
    """Forget tenants that were deleted since they were listed: nobody needs their schemas any longer."""
    absent = [name for name, found in course.found.items() if found.state is SchemaState.MISSING]
    if absent and course.tenants_are_listed:
        kept = schema_kinds(absent)
        for name in absent:
            if name not in kept:
                del course.kinds[name], course.found[name]
                course.repairs.pop(name, None)


def _repair(names: list[str], course: _Course, options: Options, output: OutputWrapper, errors: OutputWrapper) -> None:
    kinds = {name: course.kinds[name] for name in names}
    progress = Progress(errors, "Schemas repaired", len(kinds))
    with closing(_repairs(kinds, options)) as repairs, closing(progress.over(repairs)) as counted:
        for repair in counted:
            name = repair.readiness.schema_name
            course.repairs[name] = repair
            course.found[name] = repair.readiness
            if not options.as_json:
                for line in report.changes(repair):
                    output.write(line)
                output.flush()


def _repairs(kinds: dict[str, str], options: Options) -> Generator[Repair]:
    if min(options.processes, len(kinds)) > 1:
        yield from repair_in_processes(kinds, options.processes, fail_fast=options.fail_fast)
    else:
        yield from repair_one_by_one(kinds, fail_fast=options.fail_fast)


def _unready_shared_schema(course: _Course) -> Readiness | None:
    """Return what is wrong with the shared schema, which tenants rely on, if it wasn't asked for."""
    public = public_schema()
    if public in course.kinds or not course.is_success:
        return None
    (shared,) = inspect_schemas({public: public})
    return None if shared.is_ready else shared


def _give_up(course: _Course, options: Options, output: OutputWrapper, message: str) -> NoReturn:
    if course.repairs:
        _report(course, options, output)
    raise CommandError(printable(message), returncode=NOT_KNOWN) from None


def _report(course: _Course, options: Options, output: OutputWrapper) -> None:
    found = list(course.found.values())
    if options.as_json:
        output.write(report.document(found, course.repairs, course.left))
        return
    if options.verbosity > 0:
        for line in report.table(found, with_ready=options.verbosity > 1):
            output.write(line)
    output.write(report.totals(found))
    if course.left:
        output.write(f"Not looked at: {len(course.left)}")


def _conclude(course: _Course, options: Options, output: OutputWrapper, errors: OutputWrapper) -> None:
    found = list(course.found.values())
    ahead = [readiness.schema_name for readiness in found if readiness.state is SchemaState.AHEAD]
    if ahead:
        errors.write(f"Warning: a newer release has migrated {len(ahead)} of the schemas; this code serves them.")
    spared = [readiness for readiness in found if readiness.is_ready and readiness.tolerated]
    if spared:
        errors.write(f"Warning: {len(spared)} of the schemas lack what REQUIRED_APPS doesn't ask for; they are served.")
    shared = _unready_shared_schema(course)
    if shared is not None:
        errors.write(
            f"Warning: the shared schema is not ready ({printable(shared.reason)}), so no tenant is served."
            f" Required action: {shared.remedy}"
        )
        raise CommandError("Not ready: the shared schema.", returncode=NOT_READY)
    if course.is_success:
        return
    if not course.tenants_are_listed:
        errors.write("Warning: the tenants can't be listed before the shared schema is migrated.")
    unready = sum(not readiness.is_ready for readiness in found)
    if not options.as_json and not options.fix:
        output.write(f"To repair: {report.remedy(found, is_all=options.schemas is None)}")
    if unready:
        message = f"Not ready: {unready} of {len(found)} schemas."
    else:
        message = "All schemas are ready, but not everything could be done."
    raise CommandError(message, returncode=NOT_READY)

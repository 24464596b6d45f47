"""The errors of the domain. Every face maps them once; ``code`` is stable and documented."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

if TYPE_CHECKING:
    from .types import Readiness


class MessagingError(Exception):
    """Base of all errors that tell a caller what was wrong with a request.

    ``message`` is a sentence for people, ``details`` holds JSON values for programs.
    """

    code: ClassVar[str] = "error"

    def __init__(self, message: str, **details: Any) -> None:
        super().__init__(message)
        self.message = message
        self.details = details


class NotFound(MessagingError):
    """The object doesn't exist, or the user has no access to it: the two are not told apart."""

    code = "not_found"


class Forbidden(MessagingError):
    """The user sees the object but may not do this with it."""

    code = "forbidden"


class Invalid(MessagingError):
    """A value is wrong. ``details["errors"]`` lists ``{"field", "reason"}``."""

    code = "invalid"

    @classmethod
    def field(cls, field: str, reason: str) -> Invalid:
        """Make the error for a single field."""
        return cls(f"{field}: {reason}", errors=[{"field": field, "reason": reason}])


class Conflict(MessagingError):
    """The request contradicts what is stored, such as a client id that was used for another message."""

    code = "conflict"


class Unavailable(MessagingError):
    """The database couldn't answer in time. The request may be repeated, a send with the same client id.

    ``reason``, which is also the error's text, may name schemas and servers: it is for logs and operators, the message
    for everybody.
    """

    code = "unavailable"

    def __init__(self, message: str = "The database did not answer; try again.", *, reason: str = "") -> None:
        super().__init__(message)
        self.reason = reason or message

    def __str__(self) -> str:
        return self.reason


class RateLimited(MessagingError):
    """Too much was asked for in too short a time. Nothing was done; the request may be repeated after a pause.

    ``details`` holds ``retry_after`` (seconds), ``scope`` (whose limit it is: ``address``, ``connect``, ``socket``,
    ``reads``, ``user``, ``room`` or ``tenant``; of what a user may do in a day ``rooms``, ``members`` or ``lookups``)
    and ``limit``, an object of ``rate`` (each second) and ``burst`` (at once).
    """

    code = "rate_limited"

    def __init__(self, scope: str, rate: float, burst: float, *, retry_after: float) -> None:
        super().__init__(
            f"Too much at once; try again in {retry_after:g} seconds.",
            retry_after=retry_after,
            scope=str(scope),
            limit={"rate": rate, "burst": burst},
        )
        self.retry_after = retry_after
        """Seconds after which the same request succeeds, unless others of the same scope are faster."""


class TenantNotFound(MessagingError):
    """No tenant is served under this host name."""

    code = "tenant_not_found"


class TenantNotReady(MessagingError):
    """The tenant's schema isn't fully migrated, so nothing is served from it.

    ``readiness`` says what is wrong and how it is repaired: it is for logs and operators, the message for everybody.
    """

    code = "tenant_not_ready"
    retry_after: ClassVar[int] = 30
    """Seconds after which a refused client should try again."""

    def __init__(self, readiness: Readiness) -> None:
        super().__init__("The service is being prepared for your organisation; try again later.")
        self.readiness = readiness


class TenantCreationError(RuntimeError):
    """A new tenant's schema couldn't be made or migrated, so there is no such tenant.

    The message names the cause, what was removed or kept, and the required action, which is ``remedy`` too. It is
    raised by the ``save()`` of the tenant, from the first cause (``__cause__``).
    """

    def __init__(self, message: str, *, schema_name: str, remedy: str) -> None:
        super().__init__(message)
        self.schema_name = schema_name
        self.remedy = remedy

    def __reduce__(self) -> tuple[Any, ...]:
        return partial(type(self), schema_name=self.schema_name, remedy=self.remedy), self.args


class FrameError(MessagingError):
    """Base of the errors of frames that can't be read at all."""


class BadJson(FrameError):
    """The frame is not JSON as RFC 8259 defines it."""

    code = "bad_json"


class TooDeep(FrameError):
    """Objects and arrays are nested too deeply."""

    code = "too_deep"


class BadFrame(FrameError):
    """The frame is not an object with a ``type`` and an ``id``, or holds more values than any frame has."""

    code = "bad_frame"


class UnknownType(FrameError):
    """No frame has this ``type``."""

    code = "unknown_type"

"""The app, and the one place where receivers and event sinks are connected."""

from __future__ import annotations

from functools import lru_cache
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from django.apps import AppConfig
from django.utils.translation import gettext_lazy as _

if TYPE_CHECKING:
    from collections.abc import Sequence

    from django.dispatch import Signal

    from .events import Event


class TenantMessagingConfig(AppConfig):
    """Messaging, one instance for each tenant."""

    name = "django_tenant_messaging"
    verbose_name = _("Messaging")
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        """Connect receivers and event sinks, register the system checks."""
        from django.contrib.auth.signals import user_logged_in, user_logged_out
        from django.core.checks import Tags, register
        from django.db.models.signals import post_delete, post_save

        from . import checks
        from .events import connect_sink
        from .models import Message
        from .models.messages import message_begins
        from .tenancy import connect_creation, schema_unready

        user_logged_in.connect(bind_login, dispatch_uid="tenant_messaging_bind_login")
        message_begins.connect(resolve_message, dispatch_uid="tenant_messaging_message_begins")
        post_save.connect(complete_message, sender=Message, dispatch_uid="tenant_messaging_message")
        # Not of one sender: a user may be saved by a proxy of the user model, or by a child of it.
        post_save.connect(begin_status, dispatch_uid="tenant_messaging_status")
        user_logged_out.connect(close_connections, dispatch_uid="tenant_messaging_end_login")
        post_save.connect(recheck_saved_user, dispatch_uid="tenant_messaging_saved_user")
        post_delete.connect(recheck_deleted_user, dispatch_uid="tenant_messaging_deleted_user")
        schema_unready.connect(recheck_tenant, dispatch_uid="tenant_messaging_schema_unready")
        connect_creation()
        connect_sink(publish)
        connect_sink(send_signals)
        register(checks.check_settings, "tenant_messaging")
        register(checks.check_installation, "tenant_messaging")
        register(checks.check_middleware, "tenant_messaging")
        register(checks.check_isolation, "tenant_messaging", Tags.security)
        register(checks.check_connections, "tenant_messaging")
        register(checks.check_channel_layers, "tenant_messaging")
        register(checks.check_shared_layer, "tenant_messaging", deploy=True)
        register(checks.check_relations, "tenant_messaging")
        register(checks.check_exposure, "tenant_messaging", Tags.security, deploy=True)
        register(checks.check_bypass, "tenant_messaging")
        register(checks.check_tenants, "tenant_messaging", Tags.database)
        if find_spec("prometheus_client"):
            from .metrics import connect_metrics

            connect_metrics()


def publish(events: Sequence[Event]) -> None:
    """Hand events to the sockets."""
    # Loaded with the first event: a command that sends nothing starts in three quarters of the time.
    from .realtime.publisher import publish

    publish(events)


def send_signals(events: Sequence[Event]) -> None:
    """Tell the host's receivers, in the event's tenant."""
    from .tenancy import activated

    for event in events:
        signal, names = signals_by_kind().get(type(event), (None, ()))
        if signal is not None and signal.has_listeners():
            arguments = {name: getattr(event, name) for name in names}
            with activated(event.schema_name):
                signal.send_robust(None, schema_name=event.schema_name, **arguments)


@lru_cache(maxsize=1)
def signals_by_kind() -> dict[type, tuple[Signal, Sequence[str]]]:
    """Return the signals by which hosts hear of events, by the event's class, and the names of its fields in them."""
    from . import events, signals

    return {
        events.MessagePosted: (signals.message_sent, ["message"]),
        events.MessageEdited: (signals.message_edited, ["message"]),
        events.MessageDeleted: (signals.message_deleted, ["message", "deleted_by"]),
        events.RoomRenamed: (signals.room_renamed, ["room_id", "name"]),
        events.MembersChanged: (signals.members_changed, ["room_id", "joined", "left"]),
    }


def bind_login(request: Any, **_kwargs: Any) -> None:
    """A login is valid in the tenant in which it happens."""
    from .actions import end_replaced_login
    from .tenancy import bind_session

    session = session_with_login(request)
    if session is not None:
        bind_session(session)
        end_replaced_login(request)


def close_connections(request: Any, **_kwargs: Any) -> None:
    """A logout closes the connections that its session opened."""
    from .actions import end_login

    session = session_with_login(request)
    if session is not None:
        end_login(session)


def session_with_login(request: Any) -> Any:
    """Return the session that is logged in or out; ``None`` where that is told of something else, such as a token."""
    from .tenancy import has_login

    session = getattr(request, "session", None)
    return session if session is not None and has_login(session) else None


def recheck_saved_user(
    instance: Any, created: bool, raw: bool = False, update_fields: Any = None, **_kwargs: Any
) -> None:
    """A user who was saved may have another password, or be deactivated."""
    from django.contrib.auth import get_user_model

    from .actions import recheck_access

    # Every login saves this one.
    is_login = update_fields is not None and set(update_fields) == {"last_login"}
    if not (created or raw or is_login) and isinstance(instance, get_user_model()):
        recheck_access(instance)


def recheck_deleted_user(instance: Any, **_kwargs: Any) -> None:
    """A user who was deleted has no connections."""
    from django.contrib.auth import get_user_model

    from .actions import recheck_access

    if isinstance(instance, get_user_model()):
        recheck_access(instance)


def recheck_tenant(schema_name: str, **_kwargs: Any) -> None:
    """Nobody stays connected to a tenant that can't be served any more."""
    from .events import AccessChanged, emit_on_commit

    emit_on_commit(AccessChanged(schema_name, None))


def resolve_message(message: Any, **_kwargs: Any) -> None:
    """A message that is about to be saved through the ORM mentions members."""
    from .actions.messages import resolve_before_creation

    resolve_before_creation(message)


def complete_message(instance: Any, created: bool, raw: bool = False, **_kwargs: Any) -> None:
    """A message saved through the ORM is completed like one that was sent."""
    from .actions.messages import complete_created_message

    if created and not raw:
        complete_created_message(instance)


def begin_status(instance: Any, created: bool, using: str, raw: bool = False, **_kwargs: Any) -> None:
    """A user who was just created gets a status; those of a fixture come with theirs, or get one at first use."""
    from django.contrib.auth import get_user_model

    from .actions.status_creation import insert_status_of_new_user

    if created and not raw and isinstance(instance, get_user_model()):
        insert_status_of_new_user(instance, using=using)

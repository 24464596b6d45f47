"""The app, and the one place where receivers and event sinks are connected."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django.apps import AppConfig
from django.utils.translation import gettext_lazy as _

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .events import Event


class TenantMessagingConfig(AppConfig):
    """Messaging, one instance for each tenant."""

    name = "django_tenant_messaging"
    verbose_name = _("Messaging")
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        """Connect receivers and event sinks, register the system checks."""
        from django.contrib.auth.signals import user_logged_in
        from django.core.checks import register
        from django.db.models.signals import post_save

        from .checks import check_installation, check_settings
        from .events import connect_sink
        from .models import Message
        from .realtime.publisher import publish

        user_logged_in.connect(bind_login, dispatch_uid="tenant_messaging_bind_login")
        post_save.connect(complete_message, sender=Message, dispatch_uid="tenant_messaging_message")
        connect_sink(publish)
        connect_sink(send_signals)
        register(check_settings, "tenant_messaging")
        register(check_installation, "tenant_messaging")


def send_signals(events: Sequence[Event]) -> None:
    """Tell the host's receivers, in the event's tenant."""
    from . import signals
    from .events import MembersChanged, MessagePosted
    from .tenancy import activated

    for event in events:
        with activated(event.schema_name):
            match event:
                case MessagePosted():
                    signals.message_sent.send_robust(None, message=event.message, schema_name=event.schema_name)
                case MembersChanged():
                    signals.members_changed.send_robust(
                        None,
                        room_id=event.room_id,
                        joined=event.joined,
                        left=event.left,
                        schema_name=event.schema_name,
                    )
                case _:
                    pass


def bind_login(request: Any, **_kwargs: Any) -> None:
    """A login is valid in the tenant in which it happens."""
    from .tenancy import bind_session

    bind_session(request.session)


def complete_message(instance: Any, created: bool, raw: bool = False, **_kwargs: Any) -> None:
    """A message saved through the ORM is completed like one that was sent."""
    from .actions.messages import complete_created_message

    if created and not raw:
        complete_created_message(instance)

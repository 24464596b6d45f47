"""Signals for the host project.

A receiver that raises is logged and disturbs nobody. What is about messages is sent after the commit, once for each
event, inside the event's tenant.
"""

from __future__ import annotations

from django.dispatch import Signal

message_sent = Signal()
"""A message was committed. Arguments: ``message`` (:class:`~.types.MessageData`), ``schema_name``."""

message_edited = Signal()
"""A message's content was changed by its sender. Arguments: ``message`` (:class:`~.types.MessageData`),
``schema_name``."""

message_deleted = Signal()
"""A message was deleted for everybody. Arguments: ``message`` (:class:`~.types.MessageData`, without its content),
``deleted_by`` (:class:`~.types.UserRef`), ``schema_name``."""

room_renamed = Signal()
"""A room got another name. Arguments: ``room_id``, ``name``, ``schema_name``."""

members_changed = Signal()
"""Users joined or left a room. Arguments: ``room_id``, ``joined`` and ``left`` (tuples of
:class:`~.types.UserRef`), ``schema_name``."""

tenant_refused = Signal()
"""Something was refused because a tenant isn't ready. Arguments: ``readiness`` (:class:`~.types.Readiness`), ``face``
(``"http"`` or ``"websocket"``)."""

tenant_created = Signal()
"""A new tenant's schema was made and migrated. Arguments: ``schema_name``, ``seconds``."""

tenant_creation_failed = Signal()
"""A new tenant couldn't be migrated. Arguments: ``schema_name``, ``seconds``, ``error``."""

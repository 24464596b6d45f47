"""Signals for the host project.

They are sent after the commit, once for each event, inside the event's tenant. A receiver that raises is logged
and disturbs nobody.
"""

from __future__ import annotations

from django.dispatch import Signal

message_sent = Signal()
"""A message was committed. Arguments: ``message`` (:class:`~.types.MessageData`), ``schema_name``."""

members_changed = Signal()
"""Users joined or left a room. Arguments: ``room_id``, ``joined`` and ``left`` (tuples of
:class:`~.types.UserRef`), ``schema_name``."""

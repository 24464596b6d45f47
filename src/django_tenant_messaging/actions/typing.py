from __future__ import annotations

from typing import TYPE_CHECKING

from ..events import TypingChanged, emit_on_commit
from ..models.ids import of_wrong_kind
from ..selectors import access_quietness, user_ref
from ..tenancy import current_schema

if TYPE_CHECKING:
    from django.contrib.auth.models import AbstractBaseUser


def set_typing(actor: AbstractBaseUser, *, room_id: int, is_typing: bool) -> None:
    """Tell a room's members that the actor types, or no longer does. Nothing is stored; one query.

    It ends by itself after ``TYPING_TTL`` seconds, and is told in no room of more than ``EPHEMERAL_ROOM_LIMIT``
    members. Raises ``NotFound`` when the actor isn't a member.
    """
    if not isinstance(is_typing, bool):
        raise of_wrong_kind(is_typing, "is_typing", "True or False")
    if access_quietness(actor, room_id):
        emit_on_commit(TypingChanged(current_schema(), room_id, user_ref(actor), is_typing))

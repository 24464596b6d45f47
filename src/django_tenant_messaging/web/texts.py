"""Words for people: of errors, and of what the pages' modules say."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from django.utils.translation import gettext as _

from ..conf import messaging_settings
from ..models.content import isolated
from ..types import SchemaState

if TYPE_CHECKING:
    from ..exceptions import MessagingError


LONG = 60
"""Seconds past which a pause is told in minutes."""
MOST_NAMES = 200
"""Most usernames of one form."""


def headline(error: MessagingError) -> str:
    """Return an error in two or three words."""
    match error.code:
        case "not_found":
            return _("Not found")
        case "forbidden":
            return _("Not allowed")
        case "unavailable":
            return _("Not available")
        case "tenant_not_ready":
            return _("Temporarily unavailable")
        case _code:
            return _("That did not work")


def describe(error: MessagingError) -> str:
    """Return a domain error as a sentence in the reader's language."""
    if usernames := error.details.get("usernames"):
        names = ", ".join(map(isolated, usernames))
        return _("There is no user here with this name: %(names)s.") % {"names": names}
    if left := error.details.get("left"):
        names = ", ".join(map(isolated, left))
        return _("They left this room, and only they themselves can come back: %(names)s.") % {"names": names}
    if error.details.get("retry_after", 0) > LONG:
        minutes = math.ceil(error.details["retry_after"] / 60)
        return _("You have done this often today. You can do it again in %(minutes)s minutes.") % {"minutes": minutes}
    fields = {entry["field"] for entry in error.details.get("errors", ())}
    if "other" in fields:
        return _("A direct conversation needs somebody else.")
    if "members" in fields:
        return _("A room has at most %(count)s members.") % {"count": messaging_settings.MAX_ROOM_MEMBERS}
    if fields & {"users", "usernames"}:
        return too_many_names()
    if "name" in fields:
        return name_rule()
    if "content" in fields:
        return content_rule()
    return error_texts().get(error.code, _("The server refused this."))


def name_rule() -> str:
    """Return what a room's name has to be."""
    return _("The room needs a name of at most 120 characters.")


def too_many_names() -> str:
    """Return how many people may be named at once."""
    limits = messaging_settings.DAILY_LIMIT_LOOKUPS, messaging_settings.DAILY_LIMIT_MEMBERS
    most = min([MOST_NAMES, *(int(limit[1]) for limit in limits if limit is not None)])
    return _("Give at most %(count)s usernames at once.") % {"count": most}


def content_rule() -> str:
    """Return what a message's text has to be."""
    limit = messaging_settings.MAX_CONTENT_LENGTH
    return _("A message is not empty and has at most %(count)s characters.") % {"count": limit}


def error_texts() -> dict[str, str]:
    """Return a sentence for each error code."""
    return {
        "not_found": _("There is no such conversation, or you are not a member of it."),
        "forbidden": _("You may not do this."),
        "invalid": content_rule(),
        "conflict": _("This contradicts something that happened before."),
        "rate_limited": _("That was too much at once. Please try again in a moment."),
        "unavailable": _("The service cannot be reached. Please try again."),
        "tenant_not_ready": advice(),
        "disconnected": _("The connection is lost."),
        "timeout": _("The server did not answer in time."),
        "closed": _("The connection is closed."),
    }


def state_text(state: SchemaState) -> str:
    """Return in a sentence, for everybody, why a tenant in this state isn't served."""
    match state:
        case SchemaState.BEHIND:
            return _("The service was updated, but the update of its database is not finished yet.")
        case SchemaState.MISSING:
            return _("The database of this site is not there: it has not been set up yet, or it is being restored.")
        case SchemaState.DRIFTED:
            return _("Parts of the database of this site are missing or changed. It has to be repaired first.")
        case _state:
            return _("It is not known at the moment whether the database of this site is ready.")


def state_name(state: SchemaState) -> str:
    """Return a state in two or three words, for administrators."""
    match state:
        case SchemaState.BEHIND:
            return _("migrations not applied")
        case SchemaState.MISSING:
            return _("schema missing")
        case SchemaState.DRIFTED:
            return _("tables missing or changed")
        case _state:
            return _("check failed")


def safety() -> str:
    """Return what becomes of the data while a tenant isn't served."""
    return _("To protect your data, nothing is read or changed until this is done.")


def advice() -> str:
    """Return what somebody can do whose tenant isn't served."""
    return _("Please try again in a few minutes. If this lasts, tell your administrator.")


def page_texts() -> dict[str, object]:
    """Return what the pages' modules say, in the reader's language; they fill the ``%(name)s`` in."""
    return {
        "connecting": _("Connecting…"),
        "lost": _("Connection lost."),
        "retryIn": _("Next attempt in %(seconds)s s."),
        "recovered": _("Connected again."),
        "closed": {
            "unauthenticated": _("You are signed out. Reload the page to sign in."),
            "forbidden": _("You may not use the messages of this organisation."),
            "unknown_tenant": _("This address belongs to no organisation."),
            "other": _("The connection was closed. Reload the page to go on."),
        },
        "allMembers": _("All members"),
        "mentionsYou": _("@you"),
        "mentions": _("mentions %(names)s"),
        "deletedUser": _("Deleted user"),
        "you": _("You"),
        "sending": _("Sending…"),
        "failed": _("Not sent: %(reason)s"),
        "isTyping": _("%(name)s is typing…"),
        "areTyping": _("%(names)s are typing…"),
        "answersEarlier": _("In reply to an earlier message"),
        "answer": _("In reply to %(name)s: %(text)s"),
        "online": _("online"),
        "offline": _("offline"),
        "unread": _("%(count)s unread"),
        "removed": _("You are no longer a member of this room."),
        "newNotification": _("New notification: %(text)s"),
        "historyFailed": _("Older messages could not be loaded: %(reason)s"),
        "wasDeleted": _("This message was deleted."),
        "editedAt": _("Edited %(time)s"),
        "notSaved": _("Not saved: %(reason)s"),
        "notDeleted": _("Not deleted: %(reason)s"),
        "notRenamed": _("Not renamed: %(reason)s"),
        "noVersions": _("Earlier versions could not be loaded: %(reason)s"),
        "pageTitle": f"%(name)s · {_('Messages')}",
        "nameRule": name_rule(),
        "errors": error_texts(),
        "otherError": _("The server refused this."),
    }

"""What people fill in. Rules of the domain stay in the actions; their errors end up at the form."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, TypeVar

from django import forms
from django.utils.translation import gettext_lazy as _

from ..actions import look_up_users
from ..exceptions import Conflict, Forbidden, Invalid, NotFound
from ..models.rooms import NAME_LENGTH
from .access import status_of
from .texts import MOST_NAMES, describe, too_many_names

if TYPE_CHECKING:
    from collections.abc import Callable

    from django.contrib.auth.models import AbstractBaseUser

T = TypeVar("T")

MOST_CHARACTERS = 20_000
"""Longest list of usernames, in characters."""


class ActionForm(forms.Form):
    """A form in front of one action."""

    status = 400

    def perform(self, action: Callable[[dict[str, Any]], T]) -> T | None:
        """Call the action with the cleaned data; ``None`` when the form or the action refused, as it then says.

        What the user has no access to stays an error of the page.
        """
        if not self.is_valid():
            return None
        try:
            return action(self.cleaned_data)
        except (Conflict, Forbidden, Invalid) as error:
            self.add_error(None, describe(error))
            self.status = status_of(error)
            return None


class UsernamesField(forms.CharField):
    """Usernames, with or without ``@``, separated by commas, semicolons or spaces."""

    def to_python(self, value: Any) -> Any:
        """Return the names, each once; what is too long is refused before anything is done with it."""
        if len(value or "") > MOST_CHARACTERS:
            raise forms.ValidationError(too_many_names())
        names = (name.removeprefix("@") for name in re.split(r"[\s,;]+", super().to_python(value) or ""))
        found = list(dict.fromkeys(filter(None, names)))
        if len(found) > MOST_NAMES:
            raise forms.ValidationError(too_many_names())
        return found

    def run_validators(self, value: Any) -> None:
        """Validate each name as text."""
        for name in value:
            super().run_validators(name)

    def widget_attrs(self, widget: forms.Widget) -> dict[str, Any]:
        """Let as much be typed as is read; the validators' limit is that of a single name."""
        return super().widget_attrs(widget) | {"maxlength": str(MOST_CHARACTERS)}


class PeopleForm(ActionForm):
    """Asks for users of this tenant by their names."""

    people = UsernamesField(
        label=_("Usernames"),
        max_length=300,
        help_text=_("Several are separated by commas."),
        widget=forms.TextInput(attrs={"autocomplete": "off", "autocapitalize": "none", "spellcheck": "false"}),
    )

    def __init__(self, actor: AbstractBaseUser, data: Any = None, **options: Any) -> None:
        super().__init__(data, **options)
        self.actor = actor

    def clean_people(self) -> list[AbstractBaseUser]:
        """Turn the names into users."""
        try:
            return look_up_users(self.actor, usernames=self.cleaned_data["people"])
        except (Invalid, NotFound) as error:
            raise forms.ValidationError(describe(error)) from error


class DirectForm(PeopleForm):
    """With whom to talk."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, prefix="direct", **options)
        self.fields["people"].label = _("Username")
        self.fields["people"].help_text = ""

    def clean_people(self) -> list[AbstractBaseUser]:
        """Take exactly one."""
        if len(self.cleaned_data["people"]) != 1:
            raise forms.ValidationError(_("Give one username."))
        return super().clean_people()


class RoomForm(PeopleForm):
    """A new room and its members."""

    name = forms.CharField(
        label=_("Name"), max_length=NAME_LENGTH, widget=forms.TextInput(attrs={"autocomplete": "off", "dir": "auto"})
    )
    field_order = ["name", "people"]

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, prefix="room", **options)
        self.fields["people"].required = False


class RenameForm(ActionForm):
    """Another name for a room."""

    name = forms.CharField(
        label=_("Name"), max_length=NAME_LENGTH, widget=forms.TextInput(attrs={"autocomplete": "off", "dir": "auto"})
    )

    def __init__(self, data: Any = None, **options: Any) -> None:
        super().__init__(data, prefix="rename", **options)


class AddMembersForm(PeopleForm):
    """Who joins a room."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, prefix="add", **options)


class SendForm(ActionForm):
    """A message, sent by a page whose module doesn't run."""

    content = forms.CharField(strip=False)
    client_id = forms.UUIDField(required=False)

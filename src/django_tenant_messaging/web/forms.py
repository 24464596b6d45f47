"""What people fill in. Rules of the domain stay in the actions; their errors end up at the form."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, TypeVar

from django import forms
from django.utils.translation import gettext_lazy as _

from ..exceptions import Conflict, Forbidden, Invalid, NotFound
from ..models.rooms import NAME_LENGTH
from ..selectors import find_users
from .access import status_of
from .texts import describe

if TYPE_CHECKING:
    from collections.abc import Callable

    from django.contrib.auth.models import AbstractBaseUser

T = TypeVar("T")


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
        """Return the names, each once."""
        names = (name.removeprefix("@") for name in re.split(r"[\s,;]+", super().to_python(value) or ""))
        return list(dict.fromkeys(filter(None, names)))

    def run_validators(self, value: Any) -> None:
        """Validate each name as text."""
        for name in value:
            super().run_validators(name)


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
            return find_users(usernames=self.cleaned_data["people"])
        except NotFound as error:
            raise forms.ValidationError(describe(error)) from error


class DirectForm(PeopleForm):
    """With whom to talk."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, prefix="direct", **options)
        self.fields["people"].label = _("Username")
        self.fields["people"].help_text = ""

    def clean_people(self) -> list[AbstractBaseUser]:
        """Take exactly one."""
        people = super().clean_people()
        if len(people) != 1:
            raise forms.ValidationError(_("Give one username."))
        return people


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

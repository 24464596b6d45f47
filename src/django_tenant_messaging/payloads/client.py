"""The frames that clients send. The protocol reference is made from these classes."""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING, Annotated, Any, Literal
from uuid import UUID

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    StringConstraints,
    ValidatorFunctionWrapHandler,
    WrapValidator,
    with_config,
)
from pydantic_core import PydanticCustomError
from typing_extensions import TypedDict

if TYPE_CHECKING:
    from collections.abc import Collection

MAX_BIGINT = 2**63 - 1
MAX_ERRORS = 10
"""Most wrong fields that a refusal names: looking for more would be work without use."""
MAX_POSITIONS = 2_000
"""Most positions of a resume."""
POSITIONS_AT_ONCE = 50
"""Positions of a resume that are validated before it is looked whether any of them is wrong."""

FRAME_ID = r"^[!-~]{1,64}$"
FrameId = Annotated[str, StringConstraints(pattern=FRAME_ID)]
RowId = Annotated[int, Field(ge=1, le=MAX_BIGINT)]
RoomId = Annotated[RowId, Field(description="A room that the user is in.")]
Seq = Annotated[int, Field(ge=0, le=MAX_BIGINT)]
RoomKey = Annotated[str, StringConstraints(pattern=r"^[1-9][0-9]{0,18}$")]


class _ClientFrame(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)

    id: FrameId = Field(description="Chosen by the client, 1 to 64 printable ASCII characters; the reply carries it.")


@with_config(ConfigDict(strict=True, extra="forbid"))
class Position(TypedDict):
    """How far a client has a room's timeline."""

    # Of thousands, models took twice as long to make.
    epoch: Annotated[str, Field(max_length=64, description="The history the position is in.")]
    seq: Annotated[Seq, Field(description="The last `seq` that the client has.")]


def with_few_unknown(given: dict[str, Any], known: Collection[str]) -> dict[str, Any]:
    """Return an object without most of its unknown keys, so that not each of thousands is found to be an error."""
    if len(given) <= len(known):
        return given
    unknown = islice((key for key in given if key not in known), MAX_ERRORS)
    return {key: given[key] for key in (*(key for key in known if key in given), *unknown)}


_POSITION = tuple(Position.__annotations__)


def _in_parts(positions: Any, validate: ValidatorFunctionWrapHandler) -> Any:
    """Validate positions few at a time: what is wrong with the first is told without a look at the rest."""
    if not isinstance(positions, dict):
        return validate(positions)
    if len(positions) > MAX_POSITIONS:
        raise PydanticCustomError("too_long", "There should be at most {most} of them", {"most": MAX_POSITIONS})
    found: dict[str, Position] = {}
    items = iter(positions.items())
    while part := dict(islice(items, POSITIONS_AT_ONCE)):
        for key, position in part.items():
            if isinstance(position, dict) and len(position) > len(_POSITION):
                part[key] = with_few_unknown(position, _POSITION)
        found |= validate(part)
    return found


class Resume(_ClientFrame):
    """Start the stream of events. Rooms that aren't named start at the position in `hello`. Once per socket."""

    type: Literal["resume"]
    positions: Annotated[dict[RoomKey, Position], WrapValidator(_in_parts)] = Field(
        default_factory=dict, description="By room id, at most 2,000."
    )


class Send(_ClientFrame):
    """Write a message. The reply comes after the commit."""

    type: Literal["send"]
    room: RoomId
    client_id: Annotated[UUID, Field(strict=False)] = Field(
        description="The sender's own id for the message. Repeating a send with it is safe."
    )
    content: str = Field(description="The text, 1 to `max_content_length` characters after NFC.")
    reply_to: RowId | None = Field(default=None, description="Id of the message answered, in the same room.")


class Edit(_ClientFrame):
    """Give a message of the user's own another text. The same text again changes nothing, so repeating it is safe."""

    type: Literal["edit"]
    room: RoomId
    message_id: RowId = Field(description="A message in this room.")
    content: str = Field(description="The text, 1 to `max_content_length` characters after NFC.")


class Delete(_ClientFrame):
    """Delete a message for everybody: the user's own, or in a group of theirs anyone's. Repeating it is safe."""

    type: Literal["delete"]
    room: RoomId
    message_id: RowId = Field(description="A message in this room.")


class Revisions(_ClientFrame):
    """Read what a message said before its edits: the newest versions, or those before one."""

    type: Literal["revisions"]
    room: RoomId
    message_id: RowId = Field(description="A message in this room.")
    before: RowId | None = Field(default=None, description="Versions with a lower `id`.")
    limit: Annotated[int, Field(ge=1, le=MAX_BIGINT)] = Field(
        default=50, description="Most versions of the answer, at most `HISTORY_PAGE_LIMIT`."
    )


class Rename(_ClientFrame):
    """Give a group another name. Any member may."""

    type: Literal["rename"]
    room: RoomId
    name: str = Field(description="1 to 120 characters after NFC.")


class Read(_ClientFrame):
    """Say how far the user has read a room."""

    type: Literal["read"]
    room: RoomId
    seq: Seq = Field(description="The last `seq` that was read, at most the room's head.")


class Typing(_ClientFrame):
    """Say that the user types. Renew it while that lasts."""

    type: Literal["typing"]
    room: RoomId
    is_typing: bool


class History(_ClientFrame):
    """Read a page of messages: the newest, or those before, after or around a `seq`; at most one of the three."""

    type: Literal["history"]
    room: RoomId
    before: Seq | None = Field(default=None, description="Messages with a lower `seq`.")
    after: Seq | None = Field(default=None, description="Messages with a higher `seq`.")
    around: Seq | None = Field(default=None, description="The message at this `seq` and its neighbours.")
    limit: Annotated[int, Field(ge=1, le=MAX_BIGINT)] = Field(
        default=50, description="Most messages of the page, at most `HISTORY_PAGE_LIMIT`."
    )


class Ping(_ClientFrame):
    """Show that the client is alive, at least once in each heartbeat interval."""

    type: Literal["ping"]


ClientFrame = Resume | Send | Edit | Delete | Revisions | Rename | Read | Typing | History | Ping

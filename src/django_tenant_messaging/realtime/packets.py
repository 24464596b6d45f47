"""Events that follow each other in a room, as the one text by which they are sent."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .outbox import JOINED_CHARACTERS, JOINED_FRAMES, joined

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from .hints import Hint


class Packet:
    """What brings the sockets of a room from position ``after`` to ``seq``.

    All of them get the same text, except the ``authors``, each of whom has a text of their own, and those who don't
    see messages as old as ``oldest``, which something changed.
    """

    __slots__ = ("_hints", "_own", "after", "authors", "left", "oldest", "seq", "text")

    def __init__(self, hints: list[Hint]) -> None:
        self._hints = hints
        self._own: dict[str, str] = {}
        self.after = hints[0].after
        self.seq = hints[-1].seq
        self.left = hints[-1].left
        self.text = joined([hint.frame for hint in hints])
        self.authors = {hint.author for hint in hints}
        self.oldest = min((hint.about for hint in hints if hint.about), default=self.seq)

    def text_for(self, user_id: str, visible_after: int) -> str:
        """Return the text as a user gets it who is an author, or sees the timeline after a position only."""
        if visible_after >= self.oldest:
            return joined([hint.frame_for(user_id, visible_after) for hint in self._hints])
        text = self._own.get(user_id)
        if text is None:
            text = self._own[user_id] = joined([hint.frame_for(user_id, visible_after) for hint in self._hints])
        return text


def packets_of(hints: Iterable[Hint]) -> Iterator[Packet]:
    """Divide a run of hints into packets of a bounded size. A packet ends where somebody leaves, who gets no more."""
    run: list[Hint] = []
    characters = 0
    for hint in hints:
        run.append(hint)
        characters += len(hint.frame)
        if hint.left or len(run) == JOINED_FRAMES or characters >= JOINED_CHARACTERS:
            yield Packet(run)
            run, characters = [], 0
    if run:
        yield Packet(run)

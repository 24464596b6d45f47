"""What may be stored as a message's text."""

from __future__ import annotations

import unicodedata

from ..conf import messaging_settings
from ..exceptions import Invalid


def clean_text(text: str, *, field: str, limit: int) -> str:
    """Return the text in NFC. Raises ``Invalid`` when it is blank, longer than ``limit`` characters, or holds what
    PostgreSQL can't store: NUL or a lone surrogate.
    """
    if "\0" in text:
        raise Invalid.field(field, "must not contain NUL characters")
    if any("\ud800" <= char <= "\udfff" for char in text):
        raise Invalid.field(field, "must not contain lone surrogates")
    if len(text) > 4 * limit:
        raise Invalid.field(field, f"must have at most {limit} characters, has {len(text)}")
    text = unicodedata.normalize("NFC", text)
    if len(text) > limit:
        raise Invalid.field(field, f"must have at most {limit} characters, has {len(text)}")
    if not text.strip():
        raise Invalid.field(field, "must not be empty")
    return text


def clean_content(content: str) -> str:
    """Return a message's content as it is stored; see :func:`clean_text`."""
    return clean_text(content, field="content", limit=messaging_settings.MAX_CONTENT_LENGTH)

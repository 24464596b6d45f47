"""What may be stored as a message's text."""

from __future__ import annotations

import re
import unicodedata

from ..conf import messaging_settings
from ..exceptions import Invalid

SURROGATES = re.compile("[\ud800-\udfff]")


def clean_text(text: str, *, field: str, limit: int) -> str:
    """Return the text in NFC. Raises ``Invalid`` when it is blank, longer than ``limit`` characters, or holds what
    PostgreSQL can't store: NUL or a lone surrogate.
    """
    if "\0" in text:
        raise Invalid.field(field, "must not contain NUL characters")
    if len(text) > 4 * limit:
        raise Invalid.field(field, f"must have at most {limit} characters, has {len(text)}")
    if not text.isascii():
        if SURROGATES.search(text):
            raise Invalid.field(field, "must not contain lone surrogates")
        text = unicodedata.normalize("NFC", text)
    if len(text) > limit:
        raise Invalid.field(field, f"must have at most {limit} characters, has {len(text)}")
    if not text.strip():
        raise Invalid.field(field, "must not be empty")
    return text


def clean_content(content: str) -> str:
    """Return a message's content as it is stored; see :func:`clean_text`."""
    return clean_text(content, field="content", limit=messaging_settings.MAX_CONTENT_LENGTH)

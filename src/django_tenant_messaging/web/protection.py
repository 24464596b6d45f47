"""What browsers may do with our answers that come before the host's middleware, which adds none of its headers."""

from __future__ import annotations

import re
from base64 import b64encode
from hashlib import sha256
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from django.http.response import HttpResponseBase

NOTHING = "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
STYLES = re.compile(r"<style\b[^>]*>(.*?)</style>", re.DOTALL | re.IGNORECASE)


def protect(response: HttpResponseBase, *, policy: str = NOTHING) -> None:
    """Let nobody keep, frame or guess the type of an answer, and a browser load only what the policy says."""
    response["Cache-Control"] = "no-store"
    response["Content-Security-Policy"] = policy
    response["Cross-Origin-Opener-Policy"] = "same-origin"
    response["Referrer-Policy"] = "same-origin"
    response["X-Content-Type-Options"] = "nosniff"
    response["X-Frame-Options"] = "DENY"


def policy_for(page: str) -> str:
    """Return the policy for a page without scripts: its own style elements, and styles, images and fonts of its site.

    A page whose template the host replaced keeps its looks, and still runs no script.
    """
    own = " ".join(f"'sha256-{_digest(style)}'" for style in STYLES.findall(page))
    return f"{NOTHING}; style-src 'self' {own}; img-src 'self' data:; font-src 'self'"


def _digest(style: str) -> str:
    # A browser reads all line endings as this one before it compares.
    read = style.replace("\r\n", "\n").replace("\r", "\n")
    return b64encode(sha256(read.encode()).digest()).decode()

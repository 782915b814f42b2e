"""Papers as text that survives mail, print and QR codes: `CUNTONG:<KIND>:` and base32 (SPEC 5.5)."""

from __future__ import annotations

import base64
import re

_LINE_CHARS = 76


def paper_as_text(kind: str, data: bytes) -> str:
    """A paper in lines of 76 characters."""
    text = f"CUNTONG:{kind}:" + base64.b32encode(data).decode().rstrip("=")
    lines = (text[start : start + _LINE_CHARS] for start in range(0, len(text), _LINE_CHARS))
    return "\n".join(lines) + "\n"


def paper_of_text(kind: str, text: str, max_bytes: int) -> bytes | None:
    """The bytes of a paper; None when it isn't one of this kind, or has more than `max_bytes`.

    White space and case don't matter.
    """
    if len(text) > 4 * max_bytes + len(kind) + 64:
        return None
    head, _, body = qr_text(text).upper().rpartition(":")
    if head != f"CUNTONG:{kind}":
        return None
    try:
        data = base64.b32decode(body + "=" * (-len(body) % 8))
    except ValueError:
        return None
    return data if 0 < len(data) <= max_bytes else None


def qr_text(text: str) -> str:
    """The same paper on one line, in characters that QR codes hold most densely."""
    return re.sub(r"\s", "", text)

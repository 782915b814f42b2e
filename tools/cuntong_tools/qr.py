"""QR codes on a terminal, or as a picture. They need segno, which is an extra."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import segno

BORDER = 2
"""The standard says 4; on a screen 2 are read well, and larger codes fit 80 columns."""
PICTURE_SCALE = 6
"""Pixels a module."""


@dataclass(frozen=True, slots=True)
class QrCode:
    """A code that was made."""

    _code: segno.QRCode

    @property
    def columns(self) -> int:
        """Of a terminal, that `show` needs."""
        return int(self._code.symbol_size(border=BORDER)[0])

    def show(self) -> None:
        """Draw it on stdout, two modules a character."""
        self._code.terminal(border=BORDER, compact=True)

    def save(self, picture: Path) -> None:
        """Write it as a picture: SVG when the name says so, else PNG.

        Raises:
            OSError: it can't be written.
        """
        kind = "svg" if picture.suffix.lower() == ".svg" else "png"
        self._code.save(str(picture), kind=kind, scale=PICTURE_SCALE)

    def inline_svg(self) -> str:
        """An element for HTML, as large as its style says."""
        return str(self._code.svg_inline(border=BORDER, omitsize=True))


def make_qr(text: str) -> QrCode | None:
    """A code; None where segno isn't installed.

    Args:
        text: At most 4,296 capital letters, digits and colons, or 2,953 bytes.
    """
    try:
        import segno
    except ImportError:
        return None
    return QrCode(segno.make(text, error="l", micro=False))

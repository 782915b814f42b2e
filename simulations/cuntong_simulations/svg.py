"""Plots as SVG with text as text, so that they stay small, can be searched, and use the reader's own fonts."""

from __future__ import annotations

import functools
import io
import re
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

from .page import FONT_LIST

TIER_COLOURS = {
    "nation": "#1c2430",
    "province": "#7a4fa3",
    "city": "#4f6aa3",
    "county": "#c0662b",
    "township": "#8a8f2a",
    "village": "#23785a",
}
WIDTH_IN = 9.0
_OPTIONS: dict[Any, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "cuntong",
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#e6eaef",
    "axes.axisbelow": True,
    "legend.frameon": False,
}
_FONT = re.compile(r"font(-family)?: ?([^;\"]*?)('[^;\"]*)")
"""Of a style: the list of families, which matplotlib quotes; before it, style and size."""
_CHINESE = ("Noto Sans CJK SC", "Noto Sans CJK JP", "Noto Sans SC", "Source Han Sans SC", "PingFang SC",
            "Microsoft YaHei", "WenQuanYi Zen Hei", "WenQuanYi Micro Hei", "SimHei")  # fmt: skip
"""Collections go by the name of one of their fonts, with the same widths."""
_CHINESE_FILES = (
    "notosanscjk",
    "notosanssc",
    "sourcehansans",
    "pingfang",
    "msyh",
    "wqy-",
    "simhei",
)
"""How their files begin, in small letters."""


def svg(height_in: float, draw: Callable[[Any], None], *, rows: int = 1, columns: int = 1) -> str:
    """One picture.

    Args:
        height_in: Inches, at a width of `WIDTH_IN`.
        draw: Is given the axes; an array of them where there are several.
        rows: Of axes.
        columns: Likewise.
    """
    import matplotlib as mpl
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    options = _OPTIONS | {"font.family": [*_measures(), "DejaVu Sans"]}
    with mpl.rc_context(options), warnings.catch_warnings():
        # Where no Chinese font is installed, widths are guessed; the reader's fonts draw the text.
        warnings.filterwarnings("ignore", message="Glyph .* missing", category=UserWarning)
        figure = Figure(figsize=(WIDTH_IN, height_in), layout="constrained")
        FigureCanvasSVG(figure)
        draw(figure.subplots(rows, columns))
        out = io.StringIO()
        figure.savefig(out, format="svg", metadata={"Date": None})
    text = out.getvalue()
    return _FONT.sub(_readers_fonts, text[text.index("<svg") :])


def has_chinese_font() -> bool:
    """Whether this machine can measure and draw Chinese."""
    return bool(_measures())


@functools.cache
def _measures() -> tuple[str, ...]:
    """The installed font with which text is measured."""
    from matplotlib import font_manager

    def known() -> tuple[str, ...]:
        installed = set(font_manager.get_font_names())
        return tuple(name for name in _CHINESE if name in installed)[:1]

    if not known():
        # matplotlib remembers the fonts that there were when it was used for the first time.
        for path in font_manager.findSystemFonts():
            if Path(path).name.lower().startswith(_CHINESE_FILES):
                font_manager.fontManager.addfont(path)
    return known()


def _readers_fonts(found: re.Match[str]) -> str:
    return f"font{found[1] or ''}: {found[2]}{FONT_LIST}"

"""Reports are single HTML pages: no script, nothing from elsewhere."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape

from cuntong_daemon.i18n import _

FONTS = (
    "system-ui",
    "Noto Sans",
    "Noto Sans SC",
    "Noto Sans CJK SC",
    "Source Han Sans SC",
    "PingFang SC",
    "Microsoft YaHei",
    "WenQuanYi Zen Hei",
    "WenQuanYi Micro Hei",
    "DejaVu Sans",
    "sans-serif",
)
"""What readers of Latin and of Chinese have, on any system."""
FONT_LIST = ", ".join(f"'{name}'" if " " in name else name for name in FONTS)

_STYLE = """
:root { color-scheme: light; --ink: #1c2430; --soft: #5c6775; --line: #d9dee5; --bad: #a3262a; --good: #1d6b45; }
body { font: 15px/1.5 FONTS; color: var(--ink);
       max-width: 62rem; margin: 2rem auto; padding: 0 1rem; background: #fff; }
h1 { font-size: 1.5rem; margin-bottom: .2rem; } h2 { font-size: 1.1rem; margin-top: 2.2rem; }
h3 { font-size: 1rem; margin: 1.4rem 0 .3rem; }
p.lead, p.note { color: var(--soft); margin-top: 0; } p.note { font-size: .9rem; margin: .3rem 0; }
.verdict { border-left: 4px solid var(--good); padding: .4rem .8rem; background: #f4f8f6; }
.verdict.bad { border-color: var(--bad); background: #fbf3f3; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { text-align: right; padding: .2rem .8rem; border-bottom: 1px solid var(--line); white-space: nowrap; }
th:first-child, td:first-child { text-align: left; padding-left: 0; }
th { color: var(--soft); font-weight: 600; }
svg { max-width: 100%; height: auto; }
details { margin-top: 1rem; } summary { cursor: pointer; color: var(--soft); }
.scroll { overflow-x: auto; }
""".replace("FONTS", FONT_LIST)

Row = Sequence[str]


def document(title: str, body: Iterable[str], style: str = "") -> str:
    """The page.

    Args:
        title: Plain text.
        body: HTML.
        style: What it needs beyond what all reports have.
    """
    # A translator's word: which language the page is in decides how Chinese characters are drawn.
    language = _("lang=en").removeprefix("lang=")
    return (
        f'<!doctype html><html lang="{escape(language)}"><head><meta charset="utf-8"><title>{escape(title)}</title>'
        f'<meta name="viewport" content="width=device-width"><style>{_STYLE}{style}</style></head>'
        f"<body>{''.join(body)}</body></html>\n"
    )


def table(heads: Row, rows: Iterable[Row], style: str = "") -> str:
    """Plain text in cells; `style` is a class of the table."""
    head = "".join(f"<th>{escape(cell)}</th>" for cell in heads)
    body = "".join(
        f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in row)}</tr>" for row in rows
    )
    begin = f'<table class="{style}">' if style else "<table>"
    return f'<div class="scroll">{begin}{f"<tr>{head}</tr>" if heads else ""}{body}</table></div>'

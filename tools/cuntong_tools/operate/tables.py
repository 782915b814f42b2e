"""Tables that the operators' views share."""

from __future__ import annotations

from collections.abc import Sequence

from rich.table import Table
from rich.text import Text


def pairs(rows: Sequence[tuple[str, Text]]) -> Table:
    """Names on the left, what there is to say on the right; an empty name continues the one above."""
    table = Table.grid(padding=(0, 2), expand=False)
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in rows:
        table.add_row(name, value)
    return table

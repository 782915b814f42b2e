"""What the commands of `cuntong node` show and take: facts, tables, codes, files."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click

from cuntong_daemon.i18n import _
from cuntong_protocol.divisions import Division, parse_division
from cuntong_protocol.enrolment import (
    Request,
    fingerprint,
    load_public_key,
    spki_sha256,
)
from cuntong_tools.output import console, wrap_cells

FACTS_WIDTH = 14
"""Columns of the names in a list of facts; Chinese names fit, too."""


class DivisionType(click.ParamType[Division]):
    """A division code as people write it."""

    name = "CODE"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> Division:
        return value if isinstance(value, Division) else parse_division(str(value))


DIVISION = DivisionType()
FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
FOLDER = click.Path(exists=True, file_okay=False, writable=True, path_type=Path)


def request_facts(request: Request) -> list[tuple[str, str]]:
    code = Division(request.code)
    made = datetime.fromtimestamp(request.made_at, UTC).date().isoformat()
    tiers = (
        _("nation"),
        _("province"),
        _("city"),
        _("county"),
        _("township"),
        _("village"),
    )
    shown = [
        (_("Node"), f"{code} ({tiers[code.tier]})"),
        (_("Site"), request.site),
        (_("Contact"), request.contact),
        (_("Equipment"), request.equipment),
        (_("Link"), request.link),
        (_("Asked on"), made),
        (_("Key"), fingerprint(spki_sha256(load_public_key(request.public_key)))),
    ]
    return [(name, value) for name, value in shown if value]


def say(text: str) -> None:
    click.echo("\n".join(wrap_cells(text, console().width)))


def facts(shown: Sequence[tuple[str, str]]) -> None:
    from rich.cells import set_cell_size

    width = console().width
    for name, value in shown:
        first, *rest = wrap_cells(_clean(value), width - FACTS_WIDTH) or [""]
        click.echo(set_cell_size(name, FACTS_WIDTH) + first)
        for line in rest:
            click.echo(" " * FACTS_WIDTH + line)


def _clean(text: str) -> str:
    """Text from somebody else's file, fit for a terminal."""
    return _("{text}", text=text)


def table(*titles: str) -> Any:  # noqa: ANN401 - rich is imported only where it is used.
    from rich.table import Table

    made = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for title in titles:
        made.add_column(title, overflow="fold", no_wrap=title != titles[1])
    return made

"""How much of the link may be used: `limit`, `pause`, `resume`. The daemon keeps to what it is told at once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

from cuntong_daemon.control.messages import BandwidthStatus
from cuntong_daemon.i18n import _
from cuntong_daemon.paths import DataPaths
from cuntong_tools.client import connect, data_option
from cuntong_tools.output import console, print_json

from .bandwidth_views import bandwidth_view

F = TypeVar("F", bound=Callable[..., Any])

_json_option = click.option("--json", "as_json", is_flag=True, help=_("Print JSON, for programs."))


def _when_options(command: F) -> F:
    """`--until`, `--for` and `--weekly`, as `until`, `duration` and `weekly`."""
    for option in (
        click.option(
            "--weekly",
            metavar=_("DAYS HOURS"),
            nargs=2,
            multiple=True,
            help=_(
                "Every week, such as: --weekly mon-fri 08:00-18:00. May be given several times."
            ),
        ),
        click.option(
            "--for", "duration", metavar=_("TIME"), help=_("For so long: 30min, 2h, 1h30m, 3d.")
        ),
        click.option(
            "--until",
            metavar=_("TIME"),
            help=_("Until then, by the clock of the node's time zone: 18:00, or 2026-12-01T08:00."),
        ),
    ):
        command = option(command)
    return command


def _params(
    until: str | None, duration: str | None, weekly: tuple[tuple[str, str], ...]
) -> dict[str, Any]:
    said = {"until": until, "for": duration, "weekly": weekly or None}
    return {name: value for name, value in said.items() if value is not None}


@click.command(
    name="limit",
    help=_(
        "Limit what is moved: from now on, until a time, or by the week. A new limit takes the place of the one "
        "before; a weekly one adds to the others, unless it is for the same days and hours. Of all that hold, with "
        "those of config.toml and of the place above, the lowest counts. Without options: show what holds now."
    ),
)
@click.option("--down", metavar="KBIT", type=int, help=_("Receive at most so many kbit/s."))
@click.option("--up", metavar="KBIT", type=int, help=_("Send at most so many kbit/s."))
@_when_options
@click.option("--none", "is_none", is_flag=True, help=_("Take back all limits that were set so."))
@data_option
@_json_option
def limit(
    down: int | None,
    up: int | None,
    until: str | None,
    duration: str | None,
    weekly: tuple[tuple[str, str], ...],
    paths: DataPaths,
    *,
    is_none: bool,
    as_json: bool,
) -> None:
    params = _params(until, duration, weekly)
    if down is not None:
        params["down_kbit_s"] = down
    if up is not None:
        params["up_kbit_s"] = up
    if is_none:
        params["none"] = True
    status = _ask(paths, "limit" if params else "bandwidth", params)
    if as_json:
        print_json(status)
    elif is_none or weekly:
        console().print(bandwidth_view(status))
    else:
        console().print(bandwidth_view(status, asked_down=down or 0, asked_up=up or 0))


@click.command(
    name="pause",
    help=_(
        "Move nothing: from now on, until a time, or by the week. The control link to the place above stays, "
        "so notices and withdrawals still come."
    ),
)
@_when_options
@data_option
@_json_option
def pause(
    until: str | None,
    duration: str | None,
    weekly: tuple[tuple[str, str], ...],
    paths: DataPaths,
    *,
    as_json: bool,
) -> None:
    status = _ask(paths, "pause", _params(until, duration, weekly))
    if as_json:
        print_json(status)
    else:
        console().print(bandwidth_view(status))


@click.command(
    name="resume",
    help=_("End a pause. A weekly one comes again at its next time, unless --weekly is given."),
)
@click.option("--weekly", is_flag=True, help=_("Take back the weekly pauses, too."))
@data_option
@_json_option
def resume(paths: DataPaths, *, weekly: bool, as_json: bool) -> None:
    status = _ask(paths, "resume", {"weekly": weekly})
    if as_json:
        print_json(status)
        return
    if status.is_paused:
        click.echo(_("It stays paused: resume lifts only what cuntong pause has set."))
    console().print(bandwidth_view(status))


def _ask(paths: DataPaths, method: str, params: dict[str, Any]) -> BandwidthStatus:
    with connect(paths) as daemon:
        return daemon.call_as(BandwidthStatus, method, params)


commands: list[click.Command] = [limit, pause, resume]

"""What the commands at an authority's keyboard share."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from typing import Any, TypeVar

import click

from cuntong_daemon.authority.repository import AuthorityRepository
from cuntong_daemon.control.client import RemoteError
from cuntong_daemon.control.sockets import ControlError
from cuntong_daemon.i18n import _, show
from cuntong_daemon.paths import DataPaths
from cuntong_tools.client import connect
from cuntong_tools.output import cell_width, console, wrap_cells

F = TypeVar("F", bound=Callable[..., Any])


def yes_option(command: F) -> F:
    """`--yes`: don't ask; the parameter is called `yes`."""
    return click.option("--yes", is_flag=True, help=_("Don't ask, do it."))(command)


def now() -> dt.datetime:
    """This computer's clock; what is signed with it can't be taken back, see `check_clock`."""
    return dt.datetime.now(dt.UTC)


def repository_of(paths: DataPaths) -> AuthorityRepository:
    """The authority of a data directory."""
    return AuthorityRepository(paths.authority)


def confirm(question: str, *, yes: bool) -> None:
    """Ask before something is signed; everything to be known stands above the question.

    Raises:
        click.Abort: The answer was no.
    """
    if not yes:
        click.confirm(question, abort=True, err=True)


def say(text: str) -> None:
    """One paragraph for a person, on stdout."""
    click.echo("\n".join(wrap_cells(text, console().width)))


def show_facts(title: str, facts: list[tuple[str, str]]) -> None:
    """A heading, and what it's about in two columns."""
    say(title)
    width = max(cell_width(name) for name, _value in facts)
    columns = console().width
    for name, value in facts:
        lead = f"  {name}{' ' * (width - cell_width(name))}  "
        lines = wrap_cells(value, columns, " " * (width + 4)) or [""]
        click.echo(lead + lines[0].lstrip())
        for line in lines[1:]:
            click.echo(line)


def tell_daemon(paths: DataPaths) -> None:
    """Let the daemon announce what has just been signed."""
    try:
        with connect(paths) as client:
            client.call("authority.changed")
    except ControlError as error:
        if error.code == "control.no-daemon":
            say(_("The daemon isn't running; it will announce this when it starts."))
        else:
            say(show(error.sentence))
    except RemoteError as error:
        say(show(error.sentence))

"""What the commands share that talk to a daemon: where its data is, and a connection to it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from cuntong_daemon.control.client import TIMEOUT_S, ControlClient
from cuntong_daemon.i18n import _
from cuntong_daemon.paths import DataPaths, default_data_dir
from cuntong_protocol.errors import CuntongError

F = TypeVar("F", bound=Callable[..., Any])

COMPLETION_TIMEOUT_S = 1.0
"""A shell waits for suggestions; none is better than late ones."""
MAX_SUGGESTIONS = 50


def data_option(command: F) -> F:
    """`--data DIR`, given to the command as `paths: DataPaths`."""
    return click.option(
        "--data",
        "paths",
        metavar=_("DIR"),
        type=click.Path(file_okay=False, path_type=Path),
        default=default_data_dir,
        callback=lambda _context, _option, value: DataPaths(Path(value).absolute()),
        help=_("The node's data directory; $CUNTONG_DATA or /var/lib/cuntong when not given."),
    )(command)


def connect(paths: DataPaths, *, timeout_s: float = TIMEOUT_S) -> ControlClient:
    """Connect to the daemon of a data directory. Errors as `ControlClient`."""
    return ControlClient(paths.socket, timeout_s=timeout_s)


def complete_bundle(
    context: click.Context, _parameter: click.Parameter, incomplete: str
) -> list[str]:
    """Bundle identifiers for the shell's completion, asked from the daemon; none when it doesn't run."""
    paths = context.params.get("paths") or DataPaths(default_data_dir())
    try:
        with ControlClient(paths.socket, timeout_s=COMPLETION_TIMEOUT_S) as client:
            page = client.call("catalogue.list", {"prefix": incomplete, "limit": MAX_SUGGESTIONS})
        return [entry["id"] for entry in page["entries"]]
    except (CuntongError, KeyError, TypeError):
        return []


def bundle_argument(*, required: bool = True) -> Callable[[F], F]:
    """An argument `bundle_id`, with completion."""
    return click.argument(
        "bundle_id", metavar="ID", required=required, shell_complete=complete_bundle
    )

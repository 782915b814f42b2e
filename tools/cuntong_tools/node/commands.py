"""`cuntong node`: a place becomes a node, stays one, and ceases to be one (SPEC 5)."""

from __future__ import annotations

import click

from cuntong_daemon.i18n import _

from .at_centre import accept_command, list_command, reject_command, remove_command, renew_command
from .at_node import enrol_command, request_command


@click.group(
    name="node",
    help=_("Enrol places as nodes, renew and remove them.")
    + "\n\n"
    + _(
        "A new place: 'node request' there, carry the file to the parent, 'node accept' there, carry the pack back, 'node enrol'."
    ),
)
def node() -> None:
    pass


for _command in (
    request_command,
    accept_command,
    reject_command,
    enrol_command,
    renew_command,
    remove_command,
    list_command,
):
    node.add_command(_command)

commands: list[click.Command] = [node]

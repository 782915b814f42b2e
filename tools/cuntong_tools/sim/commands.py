"""`cuntong sim`: assembles the simulations' commands by name, when one of them is used.

The simulations stand beside the tools, not below them: neither imports the other. What their commands need of the tools,
the builder of networks, is handed to them as click's context object.
"""

from __future__ import annotations

import importlib
from typing import Any

import click

from cuntong_daemon.i18n import _
from cuntong_protocol.errors import CuntongError, Fault
from cuntong_protocol.texts import N_
from cuntong_tools.demo.network import Network

PLUGINS: tuple[tuple[str, str], ...] = (
    ("run", "cuntong_simulations.commands"),
    ("compare", "cuntong_simulations.commands"),
    ("sweep", "cuntong_simulations.commands"),
    ("plan", "cuntong_simulations.commands"),
    ("validate", "cuntong_simulations.commands"),
    ("calibrate", "cuntong_simulations.commands"),
    ("report", "cuntong_simulations.commands"),
    ("lab", "cuntong_simulations.lab.commands"),
)
"""Name of a command, and the module that exports it in `commands`."""


class SimError(CuntongError):
    """A simulation can't be used on this machine."""

    fault = Fault.SYSTEM


class PluginGroup(click.Group):
    """Finds commands in the modules of `PLUGINS`."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [name for name, _module in PLUGINS]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        for name, module in PLUGINS:
            if name == cmd_name:
                exported: list[click.Command] = importlib.import_module(module).commands
                return next(command for command in exported if command.name == name)
        return None

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        found = [(name, self.get_command(ctx, name)) for name in self.list_commands(ctx)]
        with formatter.section(_("Commands")):
            formatter.write_dl(
                [
                    (name, one.get_short_help_str(limit=200))
                    for name, one in found
                    if one is not None
                ]
            )

    def invoke(self, ctx: click.Context) -> Any:  # noqa: ANN401 - what the command returns.
        # Commands import what calculates only when they need it, so that it shows here and not above.
        try:
            return super().invoke(ctx)
        except ModuleNotFoundError as error:
            if (error.name or "").startswith("cuntong"):
                raise
            raise SimError(
                "sim.not-installed",
                N_("This needs {module}, which isn't installed; install cuntong[sim]."),
                module=error.name or "",
            ) from None


@click.group(name="sim", cls=PluginGroup, help=_("Plan and measure: simulations and a laboratory."))
@click.pass_context
def sim(context: click.Context) -> None:
    context.obj = Network


commands: list[click.Command] = [sim]

"""The `cuntong` command: assembles the parts' commands and turns every error into one line and an exit code.

A part's module exports `commands: list[click.Command]`. It is imported only when one of its commands is
used, so `cuntong status` doesn't pay for what `cuntong publish` needs.
"""

from __future__ import annotations

import gettext
import importlib
import signal
import sys
import traceback
from importlib import metadata

import click
from click import shell_completion

from cuntong_daemon.i18n import DOMAIN, LOCALE_DIR, _
from cuntong_protocol.errors import Fault
from cuntong_protocol.texts import N_

from .output import WideHelpFormatter, make_output_safe, print_error, tell_error

PROGRAM = "cuntong"
COMPLETE_VARIABLE = "_CUNTONG_COMPLETE"
SHELLS = ("bash", "zsh", "fish")

SECTIONS: tuple[tuple[str, str, tuple[str, ...]], ...] = (
    (
        N_("Look and steer"),
        "cuntong_tools.operate.commands",
        ("status", "catalogue", "order", "verify", "events", "limit", "pause", "resume"),
    ),
    (
        N_("Publish"),
        "cuntong_tools.publish.commands",
        ("publish", "revise", "review", "promote", "withdraw"),
    ),
    (N_("Satellite"), "cuntong_tools.datacast.commands", ("datacast",)),
    (N_("Disks and discs by post"), "cuntong_tools.media.commands", ("media",)),
    (N_("Trust"), "cuntong_tools.authority.commands", ("authority",)),
    (N_("Nodes"), "cuntong_tools.node.commands", ("node",)),
    (N_("Try it out"), "cuntong_tools.demo.commands", ("demo",)),
    (N_("Plan and measure"), "cuntong_tools.sim.commands", ("sim",)),
    (N_("Shell"), "cuntong_tools.main", ("completion",)),
)
"""Heading, module and names of the commands, in the order of the help page."""


class LazyGroup(click.Group):
    """Finds commands in the modules of `SECTIONS`."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [name for _heading, _module, names in SECTIONS for name in names]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        for _heading, module, names in SECTIONS:
            if cmd_name in names:
                exported: list[click.Command] = importlib.import_module(module).commands
                return next(command for command in exported if command.name == cmd_name)
        return None

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        for heading, _module, names in SECTIONS:
            rows = []
            for name in names:
                command = self.get_command(ctx, name)
                if command is not None and not command.hidden:
                    rows.append((name, command.get_short_help_str(limit=200)))
            if rows:
                with formatter.section(_(heading)):
                    formatter.write_dl(rows)


def _print_version(context: click.Context, _option: click.Parameter, is_asked: bool) -> None:
    if is_asked and not context.resilient_parsing:
        click.echo(f"{PROGRAM} {metadata.version('cuntong')}")
        context.exit()


@click.command(
    name="completion",
    help=_("Print the completion script for SHELL: bash, zsh or fish.")
    + "\n\n"
    + _('For bash, add to ~/.bashrc: eval "$(cuntong completion bash)"'),
)
@click.argument("shell", metavar="SHELL", type=click.Choice(SHELLS))
def completion(shell: str) -> None:
    kind = shell_completion.get_completion_class(shell)
    assert kind is not None  # noqa: S101 - the choice allows only shells that click knows.
    script = kind(build(), {}, PROGRAM, COMPLETE_VARIABLE)
    click.echo(script.source_template % script.source_vars())


commands: list[click.Command] = [completion]


def build() -> click.Group:
    """The whole command."""
    version = click.Option(
        ["--version"],
        is_flag=True,
        is_eager=True,
        expose_value=False,
        callback=_print_version,
        help=_("Show the version and exit."),
    )
    return LazyGroup(
        name=PROGRAM,
        params=[version],
        help=_("Cuntong brings signed resource bundles from the centre to the village."),
        subcommand_metavar=_("COMMAND [ARGUMENT]…"),
    )


def set_up_language() -> None:
    """Let click look its own texts up in our catalogue, and measure help pages in columns."""
    gettext.bindtextdomain(DOMAIN, str(LOCALE_DIR))
    gettext.textdomain(DOMAIN)
    click.Context.formatter_class = WideHelpFormatter


def run(arguments: list[str] | None = None) -> int:
    """Run one command; returns the exit code (SPEC 8). `None`: the process's own arguments."""
    set_up_language()
    try:
        code = build().main(
            arguments, PROGRAM, complete_var=COMPLETE_VARIABLE, standalone_mode=False
        )
    except SystemExit:
        raise  # The shell's completion, or a reader that has enough (`cuntong events | head`).
    except BaseException as error:  # noqa: BLE001 - the edge of the program: all ends in one line.
        try:
            return tell_error(error)
        except BaseException as unknown:  # noqa: BLE001 - what we can't name is our own fault.
            traceback.print_exception(unknown)
            print_error(
                _("This is a fault in Cuntong; please report the lines above."), "internal.fault"
            )
            return Fault.OURS.value
    return code if isinstance(code, int) else 0


def main() -> None:
    """The entry point of the `cuntong` script."""
    make_output_safe()
    # Who ends a command in another way than with Ctrl-C wants it cleaned up just the same. `nohup` ignores SIGHUP.
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, signal.default_int_handler)
    sys.exit(run())

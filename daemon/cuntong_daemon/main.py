"""`cuntongd`: one node's daemon."""

from __future__ import annotations

import signal
import sys
from pathlib import Path

import click
import trio

from cuntong_protocol.errors import CuntongError

from .app import node_running
from .config import Config, load_config
from .control.lock import hold_data_directory
from .i18n import _, show
from .logs import configure_logging, get_logger
from .memory import use_little
from .paths import DataPaths, default_data_dir
from .store.errors import disk_error

log = get_logger("daemon")


async def _until_signalled(config: Config, paths: DataPaths) -> None:
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        async with node_running(config, paths):
            log.info("daemon.ready", code=config.node.code)
            async for number in signals:
                log.info("daemon.stopping", signal=signal.Signals(number).name)
                break
            # A second signal ends at once: somebody is waiting.
            for number in (signal.SIGTERM, signal.SIGINT):
                signal.signal(number, signal.SIG_DFL)


def _told(error: BaseException) -> CuntongError | None:
    """What to tell a person of an error, or of a group of them (every nursery makes one); None: our own fault."""
    if isinstance(error, BaseExceptionGroup):
        return next((told for inner in error.exceptions if (told := _told(inner))), None)
    if isinstance(error, CuntongError):
        return error
    if isinstance(error, OSError):
        return disk_error(error)
    return None


@click.command(help=_("Run a node of the network. Stop it with SIGTERM."))
@click.option(
    "--data",
    type=click.Path(path_type=Path, file_okay=False),
    default=default_data_dir,
    help=_("The node's data directory."),
)
@click.version_option(package_name="cuntong")
def main(data: Path) -> None:
    """Run a node until SIGTERM; the exit code is that of the fault (see `Fault`)."""
    paths = DataPaths(data)
    use_little()
    try:
        config = load_config(paths.config)
        configure_logging(config.log.level)
        with hold_data_directory(paths):
            trio.run(_until_signalled, config, paths)
    except Exception as error:
        told = _told(error)
        if told is None:
            raise
        click.echo(f"cuntongd: {show(told.sentence)} ({told.code})", err=True)
        sys.exit(told.fault.value)

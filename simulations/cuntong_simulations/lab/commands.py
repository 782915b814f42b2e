"""`cuntong sim lab`: run a measurement, or let the emulator prove itself."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import msgspec

from cuntong_daemon.i18n import _

from .cuntong import Cuntong
from .namespaces import isolate
from .run import run
from .scenario import load_scenario
from .topology import load_topology

LINE_EVERY_S = 10.0


@click.group(name="lab", help=_("Real daemons on emulated links: measure what the public feels."))
def lab() -> None:
    pass


@lab.command(name="run", help=_("Measure one scenario on the network TOPOLOGY, a TOML file."))
@click.argument("topology_file", metavar="TOPOLOGY", type=click.Path(path_type=Path))
@click.option("--scenario", "scenario_name", default="idle", show_default=True)
@click.option("--out", type=click.Path(file_okay=False, path_type=Path), metavar=_("DIR"))
@click.option("--baseline", type=float, metavar=_("SECONDS"))
@click.option("--seed", type=int, default=1, show_default=True)
@click.pass_obj
def run_command(
    build: Callable[..., Any],
    topology_file: Path,
    scenario_name: str,
    out: Path | None,
    baseline: float | None,
    seed: int,
) -> None:
    topology = load_topology(topology_file)
    scenario = load_scenario(scenario_name)
    if baseline is not None:
        scenario = msgspec.structs.replace(scenario, baseline_s=baseline)
    isolate([sys.executable, "-m", "cuntong_tools", *sys.argv[1:]])
    lines = _Lines()
    result = run(
        topology, scenario, Cuntong(build, click.echo), seed=seed, say=click.echo, watch=lines.watch
    )
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        (out / "result.json").write_bytes(msgspec.json.format(msgspec.json.encode(result)))
    click.echo(f"last village: {result.last_s} s (bound {result.bound_s:.1f} s)")
    click.echo(f"copies out of the source: {result.copies_out:.3f}")
    click.echo(str(result.machine))


class _Lines:
    """A line now and then."""

    def __init__(self) -> None:
        self._next = 0.0

    def watch(self, seconds: float, done: int, places: int) -> None:
        now = time.monotonic()
        if now >= self._next:
            self._next = now + LINE_EVERY_S
            click.echo(f"{seconds:6.0f} s  {done}/{places}")


commands: list[click.Command] = [lab]

"""`cuntong sim lab`: run a measurement, or let the emulator prove itself."""

from __future__ import annotations

import importlib.util
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import msgspec
from rich.console import Console
from rich.table import Table

from cuntong_daemon.i18n import _
from cuntong_protocol.texts import N_

from .compare import file_name, save, table
from .contenders import CONTENDERS
from .cuntong import Cuntong, Network
from .errors import LabError
from .namespaces import isolate
from .proof import prove
from .result import Check, Result
from .run import Contender, run
from .scenario import BUILT_IN, Scenario, load_scenario
from .summary import headline, problem_text
from .topology import Topology, load_topology

LINE_EVERY_S = 10.0
"""Between two lines where there is no terminal."""
TABLE_COLUMNS = 130
"""Where there is no terminal."""

_WORDS = (
    click.argument("topology_file", metavar="TOPOLOGY", type=click.Path(path_type=Path)),
    click.option(
        "--scenario",
        "scenario_name",
        default="idle",
        metavar=_("NAME"),
        help=_("{known}, or a TOML file; idle if not given.", known=", ".join(BUILT_IN)),
    ),
    click.option(
        "--out",
        type=click.Path(file_okay=False, path_type=Path),
        metavar=_("DIR"),
        help=_("Write results, the report and the programs' logs there."),
    ),
    click.option(
        "--baseline",
        type=click.FloatRange(0, 100_000),
        metavar=_("SECONDS"),
        help=_("How long the public is measured before anything is published."),
    ),
    click.option(
        "--seed",
        type=int,
        default=1,
        metavar=_("NUMBER"),
        help=_("Of the files and of what is random on the links; 1 if not given."),
    ),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Measurement:
    """What `run` and `compare` are to measure, said in the same words (`_WORDS`)."""

    topology_file: Path
    scenario_name: str
    out: Path | None
    baseline: float | None
    seed: int

    @property
    def name(self) -> str:
        """What tells it from other measurements at the same time: where its results go."""
        return "" if self.out is None else self.out.resolve().name

    def read(self) -> tuple[Topology, Scenario]:
        """Topology and scenario, checked.

        Raises:
            LabFileError: as `load_topology`, `load_scenario`.
        """
        scenario = load_scenario(self.scenario_name)
        if self.baseline is not None:
            scenario = msgspec.structs.replace(scenario, baseline_s=self.baseline)
        return load_topology(self.topology_file), scenario


def told_what_to_measure(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the words that make a `Measurement`."""
    for word in reversed(_WORDS):
        command = word(command)
    return command


@click.group(
    name="lab", help=_("Real daemons on emulated links: measure time, bytes, and what the public feels.")
)  # fmt: skip
def lab() -> None:
    pass


@lab.command(
    name="run",
    help=_("Measure a scenario on the network that the file TOPOLOGY describes.")
    + "\n\n"
    + _("Needs root, or a kernel that lets users make namespaces; leaves nothing behind."),
)
@told_what_to_measure
@click.pass_obj
def run_command(
    build: Callable[..., Network],
    /,
    **words: Any,  # noqa: ANN401 - what `Measurement` has.
) -> None:
    wanted = Measurement(**words)
    topology, scenario = wanted.read()
    out = wanted.out
    if out is not None:
        check_can_report()
    enter_laboratory()
    screen = Screen()
    result = run(
        topology,
        scenario,
        Cuntong(build, screen.step),
        seed=wanted.seed,
        say=screen.say,
        watch=screen.watch,
        logs=None if out is None else out / "logs",
        name=wanted.name,
    )
    screen.clear()
    show(result)
    if out is not None:
        write(result, out)


@lab.command(
    name="compare",
    help=_("Measure Cuntong and then other programs in the same way, and print the ratios.")
    + "\n\n"
    + _("Nothing is installed; programs that aren't there are named and left out."),
)
@click.option(
    "--contender",
    "names",
    multiple=True,
    type=click.Choice(list(CONTENDERS)),
    metavar=_("NAME"),
    help=_("Again for each; all if not given: {known}", known=", ".join(CONTENDERS)),
)
@told_what_to_measure
@click.pass_obj
def compare_command(
    build: Callable[..., Network],
    /,
    names: tuple[str, ...],
    **words: Any,  # noqa: ANN401 - what `Measurement` has.
) -> None:
    wanted = Measurement(**words)
    topology, scenario = wanted.read()
    out = wanted.out
    enter_laboratory()
    screen = Screen()
    contenders: list[Contender] = [Cuntong(build, screen.step)]
    for kind in (CONTENDERS[name] for name in names or CONTENDERS):
        if missing := kind.missing():
            click.echo(
                _(
                    "{contender}: not installed: {programs}",
                    contender=kind.name,
                    programs=", ".join(missing),
                ),
                err=True,
            )
        else:
            contenders.append(kind())
    results = []
    for contender in contenders:
        screen.say(f"== {contender.name}")
        try:
            result = run(
                topology,
                scenario,
                contender,
                seed=wanted.seed,
                say=screen.say,
                watch=screen.watch,
                logs=None if out is None else out / "logs" / file_name(contender.name),
                name=wanted.name,
            )
        except LabError as error:
            click.echo(f"! {contender.name}: {error}", err=True)
            continue
        screen.clear()
        show(result)
        results.append(result)
        if out is not None:
            save(result, out)
    if results:
        click.echo(
            _("Ratios are to {name}; round trips and pages: p50 / p95.", name=results[0].contender)
        )
        screen.print(table(results))


@lab.command(name="prove", help=_("Let the link emulator prove its rate, delay and loss."))
def prove_command() -> None:
    enter_laboratory()
    checks = prove()
    for check in checks:
        click.echo(_check_line(check))
    if not all(check.is_met for check in checks):
        raise LabError(
            "lab.not-proven",
            N_("The emulator isn't exact on this machine: it is too slow, or too busy."),
        )


def enter_laboratory() -> None:
    """Begin again in namespaces of one's own; returns when this is that process.

    Raises:
        LabError: as `isolate`.
    """
    isolate([sys.executable, "-m", "cuntong_tools", *sys.argv[1:]])


def check_can_report() -> None:
    """Say it before a measurement, not after.

    Raises:
        LabError: `lab.no-matplotlib`.
    """
    if importlib.util.find_spec("matplotlib") is None:
        raise LabError(
            "lab.no-matplotlib",
            N_("Reports need matplotlib, which isn't installed; install cuntong[sim], or leave --out away."),
        )  # fmt: skip


def show(result: Result) -> None:
    """Print what matters."""
    for name, value in headline(result):
        click.echo(f"{name}: {value}")
    if result.machine.problems:
        click.echo(_("This run doesn't count."), err=True)
    for problem in result.machine.problems:
        click.echo(f"! {problem_text(problem)}", err=True)


def write(result: Result, out: Path) -> None:
    """Write `result.json` and `report.html`."""
    # Not at the top: a measurement needs no plots.
    from .report import render

    out.mkdir(parents=True, exist_ok=True)
    (out / "result.json").write_bytes(msgspec.json.encode(result))
    page = out / "report.html"
    page.write_text(render(result), encoding="utf-8")
    click.echo(_("Report: {file}", file=str(page)))


def _check_line(check: Check) -> str:
    mark = "✓" if check.is_met else "✗"
    return _(
        "  {mark} {name}: {measured} {unit}, expected {expected} ± {tolerance}",
        mark=mark,
        name=check.name,
        measured=f"{check.measured:.5g}",
        unit=check.unit,
        expected=f"{check.expected:.5g}",
        tolerance=f"{check.tolerance:.3g}",
    )


class Screen:
    """One line that changes on a terminal, a line now and then elsewhere."""

    def __init__(self) -> None:
        self._next = 0.0
        self._is_terminal = sys.stdout.isatty()

    def say(self, text: str) -> None:
        """A new step has begun."""
        self.clear()
        click.echo(text)
        self._next = time.monotonic() + LINE_EVERY_S

    def step(self, text: str) -> None:
        """The step has come so far."""
        now = time.monotonic()
        if now < self._next and not self._is_terminal:
            return
        self._next = now + LINE_EVERY_S
        if self._is_terminal:
            click.echo(f"\r\x1b[K  {text}", nl=False)
        else:
            click.echo(f"  {text}")

    def watch(self, seconds: float, done: int, places: int) -> None:
        """The measurement has come so far."""
        self.step(
            _(
                "{seconds} s: {done} of {places} places have everything",
                seconds=round(seconds),
                done=done,
                places=places,
            )
        )

    def print(self, found: Table) -> None:
        """A table, never narrower than it has to be to be read."""
        width = None if self._is_terminal else TABLE_COLUMNS
        Console(highlight=False, width=width).print(found)

    def clear(self) -> None:
        if self._is_terminal:
            click.echo("\r\x1b[K", nl=False)


commands: list[click.Command] = [lab]

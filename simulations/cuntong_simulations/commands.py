"""`cuntong sim …`: run, compare, sweep, plan, validate, calibrate and report; the laboratory has its own module."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cuntong_daemon.i18n import _, show

if TYPE_CHECKING:
    from .calibration.measure import Measurement
    from .results.findings import Findings

POLICIES = ("star", "tree", "swarm", "satellite-first")
MISSED = 1
"""Exit code where deadlines are missed, or a check fails: for scripts."""

MOST_SHOWN = 32
"""Characters before a bar."""

_out_option = click.option(
    "--out",
    type=click.Path(file_okay=False, path_type=Path),
    metavar=_("DIR"),
    help=_("Write results and the report there."),
)
_scenario_argument = click.argument(
    "scenario_file", metavar="SCENARIO", type=click.Path(path_type=Path)
)
_RUN_WORDS = (
    click.option(
        "--quick", is_flag=True, help=_("A sample of 5 % of the counties, with its interval.")
    ),
    click.option(
        "--seed",
        type=click.IntRange(min=0),
        metavar=_("NUMBER"),
        help=_("Of everything that is random; the scenario's if not given."),
    ),
    click.option(
        "--policy",
        type=click.Choice(POLICIES),
        metavar=_("NAME"),
        help=_("{known}; the scenario's if not given.", known=", ".join(POLICIES)),
    ),
)
_threads_option = click.option(
    "--threads",
    type=click.IntRange(1, 256),
    metavar=_("NUMBER"),
    help=_("All cores if not given; the results are the same."),
)


def _told_how_to_run(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command the words that say how a scenario is run."""
    for word in reversed(_RUN_WORDS):
        command = word(command)
    return command


@click.command(
    name="run",
    help=_(
        "Run the scenario in the file SCENARIO: which tier will have what when, and what misses."
    )
    + "\n\n"
    + _("Ends with exit code 1 when deadlines are missed."),
)
@_scenario_argument
@_out_option
@_told_how_to_run
@_threads_option
def run_command(
    scenario_file: Path,
    out: Path | None,
    *,
    quick: bool,
    seed: int | None,
    policy: Any,  # noqa: ANN401 - one of POLICIES.
    threads: int | None,
) -> int:
    from .results import screen, simulate, write

    if out is not None:
        write.check_out(out)
    wanted = simulate.Wanted(
        file=scenario_file, is_quick=quick, seed=seed, policy=policy, threads=threads
    )
    with screen.progress(_("Running {file}", file=scenario_file.name)) as tell:
        outcome, findings = simulate.simulate(wanted, tell)
    screen.show_run(findings)
    if out is not None:
        from .results.report import render

        write.write(outcome, findings, out, report=render(findings))
        _tell_report(out)
    return MISSED if findings.missed else 0


@click.command(
    name="compare",
    help=_("Put runs side by side: scenarios, which are run, or folders of results."),
)
@click.argument(
    "runs", metavar="SCENARIO|DIR…", nargs=-1, required=True, type=click.Path(path_type=Path)
)
@_told_how_to_run
@_threads_option
def compare_command(
    runs: tuple[Path, ...],
    *,
    quick: bool,
    seed: int | None,
    policy: Any,  # noqa: ANN401 - one of POLICIES.
    threads: int | None,
) -> None:
    from .results import screen, simulate
    from .results.read import read

    found: list[tuple[str, Findings]] = []
    for path in runs:
        if path.is_dir():
            found.append((path.name, read(path)))
            continue
        wanted = simulate.Wanted(
            file=path, is_quick=quick, seed=seed, policy=policy, threads=threads
        )
        with screen.progress(_("Running {file}", file=path.name)) as tell:
            found.append((path.stem, simulate.simulate(wanted, tell)[1]))
    for table in screen.compare(found):
        screen.console().print(table)


@click.command(
    name="sweep",
    help=_("Run SCENARIO with each combination of other values, and put the runs into one table.")
    + "\n\n"
    + _("A key is written as in the file, with a tier's or a release's name: tier.village.dish."),
)
@_scenario_argument
@click.option(
    "--set",
    "settings",
    multiple=True,
    required=True,
    metavar=_("KEY=VALUE,…"),
    help=_("A key and the values that it takes; again for each key."),
)
@_out_option
@_told_how_to_run
@click.option(
    "--jobs",
    type=click.IntRange(1, 256),
    metavar=_("NUMBER"),
    help=_("Runs at the same time; as many as there are cores if not given."),
)
@click.option(
    "--dask",
    "address",
    metavar=_("ADDRESS"),
    help=_("Of a Dask scheduler, such as tcp://10.0.0.1:8786: run there. Needs cuntong[dask]."),
)
def sweep_command(
    scenario_file: Path,
    settings: tuple[str, ...],
    out: Path | None,
    *,
    quick: bool,
    seed: int | None,
    policy: Any,  # noqa: ANN401 - one of POLICIES.
    jobs: int | None,
    address: str | None,
) -> None:
    from .results import screen, simulate, sweep, write

    if address is not None:
        sweep.check_dask()
    if out is not None:
        write.check_out(out)
    chosen = sweep.combinations(settings)
    wanted = [
        simulate.Wanted(
            file=scenario_file, settings=one, is_quick=quick, seed=seed, policy=policy, threads=1
        )
        for one in chosen
    ]
    for one in wanted:
        one.scenario()  # All are checked before the first one runs.
    found: dict[int, Findings] = {}
    with screen.progress(_("{count} runs", count=len(wanted))) as tell:
        results = (
            sweep.on_processes(simulate.findings_of, wanted, jobs or os.cpu_count() or 1)
            if address is None
            else sweep.on_cluster(simulate.findings_of, wanted, address)
        )
        with closing(results):
            for place, findings in results:
                found[place] = findings
                tell(len(found) / len(wanted))
    rows = [(one, found[place]) for place, one in enumerate(chosen)]
    screen.console().print(screen.sweep_table(rows))
    if out is not None:
        write.write_sweep(rows, out)


@click.command(
    name="plan",
    help=_(
        "Find the cheapest mix of links, satellite and disks that meets the deadlines of counties."
    )
    + "\n\n"
    + _(
        "What has no price in SCENARIO isn't used. Ends with exit code 1 when there is no such mix."
    ),
)
@_scenario_argument
@_out_option
@click.option(
    "--seconds",
    type=click.IntRange(1, 86400),
    default=60,
    metavar=_("SECONDS"),
    help=_("For each plan at most so long; 60 if not given."),
)
def plan_command(scenario_file: Path, out: Path | None, *, seconds: int) -> int:
    from .results import plan_run, screen, write

    if out is not None:
        write.check_out(out)
    with screen.working(_("Planning {file}", file=scenario_file.name)) as tell:
        made = plan_run.make(scenario_file, seconds=seconds, tell=tell)
    screen.show_plan(made.planned, made.scenario)
    if out is not None:
        from .results.report import render, render_plan

        report = (
            render_plan(made.planned, made.scenario)
            if made.run is None
            else render(made.run[1], made.planned)
        )
        write.write_plan(made.planned, out, orders=made.orders, run=made.run, report=report)
        _tell_report(out)
    return 0 if made.is_safe else MISSED


@click.command(
    name="validate",
    help=_("Let the model prove itself: against formulas, a plain reference, and single pieces.")
    + "\n\n"
    + _("Ends with exit code 1 when a check fails."),
)
def validate_command() -> int:
    from .model.validate import validate
    from .results import screen

    with screen.working(_("Checking the model")) as tell:
        checks = validate(lambda name: tell(show(name)))
    screen.console().print(screen.checks_table(checks))
    return 0 if all(check.is_met for check in checks) else MISSED


@click.command(
    name="calibrate",
    help=_("Measure real daemons on small networks, and fit the model's parameters to them.")
    + "\n\n"
    + _(
        "Takes hours; stop it when you like, the same command goes on. Needs what `cuntong sim lab` needs. Ends with exit code 1 when the model stays further from the daemons than 5 % in the mean times of tiers, 10 % in those of last places."
    ),
)
@click.option(
    "--out",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path("calibration"),
    metavar=_("DIR"),
    help=_("Measurements, the parameters and the comparison lie there; calibration if not given."),
)
@click.option(
    "--repeats",
    type=click.IntRange(1, 100),
    default=3,
    metavar=_("NUMBER"),
    help=_("On each network; 3 if not given."),
)
@click.option(
    "--jobs",
    type=click.IntRange(1, 256),
    metavar=_("NUMBER"),
    help=_("Networks at the same time; as many as there are cores if not given."),
)
@click.option(
    "--seed",
    type=click.IntRange(min=0),
    default=1,
    metavar=_("NUMBER"),
    help=_("Of the networks that are drawn; 1 if not given."),
)
def calibrate_command(out: Path, *, repeats: int, jobs: int | None, seed: int) -> int:
    from .calibration import calibrate, measure, networks
    from .lab.commands import check_can_report
    from .lab.namespaces import check_can_isolate
    from .results import screen
    from .results.simulate import cores

    wanted = measure.measurements(networks.networks(seed), repeats, out)
    with calibrate.only_one(out):
        measure.check_folder(wanted)
        if any(one.result is None for one in wanted):
            check_can_report()
            check_can_isolate()
            _measure(wanted, cores(jobs))
        with screen.working(_("Fitting the parameters")):
            found = calibrate.calibrate(calibrate.by_network(wanted))
        file = calibrate.write(found, out)
    screen.show_calibrated(found)
    click.echo(
        _("Parameters: {file}; a scenario takes them with file in [calibration].", file=str(file))
    )
    return 0 if found.is_met else MISSED


def _measure(wanted: list[Measurement], jobs: int) -> None:
    """With a line for each that is done, and on a terminal a bar."""
    from .calibration.calibrate import Course
    from .calibration.measure import measure
    from .results import screen

    course = Course(wanted)
    count = len(wanted)

    def tell(one: Measurement, what: str) -> None:
        course.tell(one, what)
        place: dict[str, str | int] = {"network": one.network.name, "repeat": one.repeat}
        if what == "done" and one.result is not None:
            seconds = round(one.result.last_s or 0)
            click.echo(
                _("{network}, repeat {repeat}: all have everything after {seconds} s; {done} of {count} measured", seconds=seconds, done=len(course.done), count=count, **place),
                err=True,
            )  # fmt: skip
        elif what == "again":
            click.echo(
                _("{network}, repeat {repeat}: failed, or doesn't count; once more", **place), err=True
            )  # fmt: skip

    with screen.progress(_("Measuring")) as bar:

        def watch() -> None:
            done = _("{done} of {count} measured", done=len(course.done), count=count)
            bar(course.share, f"{done}: {' '.join(course.running)}"[:MOST_SHOWN])

        measure(wanted, jobs=jobs, tell=tell, watch=watch)


@click.command(
    name="report",
    help=_("Render the report of the results in DIR again, in the language that is set."),
)
@click.argument("folder", metavar="DIR", type=click.Path(file_okay=False, path_type=Path))
def report_command(folder: Path) -> None:
    from .results.report import render_folder
    from .results.write import write_report

    write_report(render_folder(folder), folder)
    _tell_report(folder)


def _tell_report(folder: Path) -> None:
    from .results.write import REPORT
    from .svg import has_chinese_font

    click.echo(_("Report: {file}", file=str(folder / REPORT)))
    if not has_chinese_font():
        click.echo(
            _(
                "No Chinese font is installed here: a browser elsewhere shows the report well, on this machine Chinese labels may be missing."
            ),
            err=True,
        )


commands: list[click.Command] = [
    run_command,
    compare_command,
    sweep_command,
    plan_command,
    validate_command,
    calibrate_command,
    report_command,
]

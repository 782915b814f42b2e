"""What commands print: within 80 columns, Chinese two columns a character."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol

from rich.console import Console
from rich.table import Table
from rich.text import Text

from cuntong_daemon.i18n import _, show
from cuntong_protocol.divisions import TIER_LABELS
from cuntong_simulations.calibration.record import PARAMETERS, Measured
from cuntong_simulations.scenario.scenario import Scenario

from . import amounts, plan_words, words
from .findings import Findings, Parameter
from .planned import Planned

if TYPE_CHECKING:
    # Load the compiler.
    from cuntong_simulations.calibration.calibrate import Calibrated
    from cuntong_simulations.calibration.fit import Comparison
    from cuntong_simulations.model.validate import Check

COLUMNS = 80
MOST_COMPARED = 4
"""Runs side by side within 80 columns."""
MOST_MISSES = 3
MOST_LINES = 6


def console(*, stderr: bool = False) -> Console:
    """For tables and bars; where it isn't a terminal, plain and 80 columns wide."""
    made = Console(stderr=stderr, highlight=False, emoji=False, markup=False)
    if not made.is_terminal:
        made = Console(stderr=stderr, highlight=False, emoji=False, markup=False, width=COLUMNS)
    return made


class Bar(Protocol):
    """Is told the share that is done, and perhaps what is done now."""

    def __call__(self, share: float, now: str = "") -> None: ...


@contextmanager
def progress(what: str) -> Iterator[Bar]:
    """A bar on stderr; nothing where that isn't a terminal."""
    from rich.progress import (
        BarColumn,
        Progress,
        TaskProgressColumn,
        TextColumn,
        TimeRemainingColumn,
    )

    shown = console(stderr=True)
    with Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=30),
        TaskProgressColumn(),
        TimeRemainingColumn(),
        console=shown,
        transient=True,
        disable=not shown.is_terminal,
    ) as bars:
        bar = bars.add_task(what, total=1.0)

        def tell(share: float, now: str = "") -> None:
            bars.update(bar, completed=share, description=now or what)

        yield tell


@contextmanager
def working(what: str) -> Iterator[Callable[[str], None]]:
    """The same for what has no end that is known. Yields what is told how it gets on."""
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    shown = console(stderr=True)
    with Progress(
        SpinnerColumn(),
        TextColumn("{task.description}", markup=False),
        TimeElapsedColumn(),
        console=shown,
        transient=True,
        disable=not shown.is_terminal,
    ) as bars:
        bar = bars.add_task(what, total=None)
        yield lambda text: bars.update(bar, description=f"{what}: {text}")


def show_run(findings: Findings) -> None:
    """One screen: which tiers will have what when, what holds them back, what misses."""
    out = console()
    out.print(Text(words.title(findings.manifest.scenario), style="bold"))
    out.print(Text(words.lead(findings), style="dim"))
    out.print()
    out.print(_arrivals(findings))
    note = _("half, 90 %, last: days from the release until so many places have it")
    out.print(Text(note, style="dim"))
    for heading, rows in (
        (_("What holds places back"), words.held_back(findings)),
        (_("What carried the bytes"), words.carried(findings)),
    ):
        if rows:
            out.print()
            out.print(Text(heading, style="bold"))
            out.print(pairs(rows))
    if findings.misses:
        out.print()
        out.print(Text(_("What misses its deadline"), style="bold"))
        for one in words.worst_misses(findings, MOST_MISSES):
            out.print(Text("  " + words.miss_text(one)))
        if len(findings.misses) > MOST_MISSES:
            out.print(Text("  " + words.and_more(len(findings.misses) - MOST_MISSES), style="dim"))
    if findings.costs:
        out.print()
        out.print(Text(_("Cost: {cost}", cost=words.total_cost(findings))))
    out.print()
    _show_parameters(out, findings.manifest.calibration, findings.manifest.measured)
    style = "bold red" if findings.missed else "bold green" if findings.pairs else "bold"
    out.print(Text(words.verdict(findings), style=style))


def show_plan(planned: Planned, scenario: Scenario) -> None:
    """The mix and its cost, or what stands in the way."""
    out = console()
    out.print(Text(words.title(scenario), style="bold"))
    if planned.ways:
        out.print()
        heads, rows = plan_words.way_rows(planned)
        # The shares stand in the last column's words too.
        mix = table(heads[:3], heads[3:5])
        mix.add_column(heads[-1], overflow="fold")
        for row in rows:
            mix.add_row(*row[:5], row[-1])
        out.print(mix)
        out.print()
        out.print(pairs(plan_words.cost_rows(planned)))
    if planned.shortfalls:
        out.print()
        out.print(Text(_("What stands in the way:"), style="bold"))
        for one in planned.shortfalls[:MOST_LINES]:
            out.print(Text("  " + plan_words.shortfall_text(one)))
        if len(planned.shortfalls) > MOST_LINES:
            out.print(Text("  " + words.and_more(len(planned.shortfalls) - MOST_LINES)))
    gains = plan_words.gain_rows(planned)[:MOST_LINES]
    if gains:
        out.print()
        out.print(Text(_("What would make it cheaper"), style="bold"))
        out.print(pairs(gains))
    out.print()
    for note in planned.notes:
        out.print(Text(show(note), style="dim"))
    _show_parameters(out, planned.calibration, planned.measured)
    style = "bold green" if planned.ways else "bold red"
    out.print(Text(plan_words.verdict(planned), style=style))


def _show_parameters(
    out: Console, parameters: Sequence[Parameter], measured: Measured | None
) -> None:
    values = _("Model: {parameters}.", parameters=words.parameter_values(parameters))
    out.print(Text(f"{values} {words.calibration_note(parameters, measured)}", style="dim"))


def _arrivals(findings: Findings) -> Table:
    shown = words.shown_arrivals(findings)
    found = table([_("Tier"), _("Release")], [_("places"), _("have it, %"), _("in time, %"),
                   _("half"), _("90 %"), _("last")])  # fmt: skip
    last = ""
    for one in shown:
        tier = words.tier_name(one.tier)
        found.add_row(
            "" if tier == last else tier,
            one.release,
            amounts.count(one.places),
            amounts.percent(one.end),
            amounts.percent(one.due),
            amounts.days(one.p50.value if one.p50 else None),
            amounts.days(one.p90.value if one.p90 else None),
            amounts.days(one.last_days),
        )
        last = tier
    return found


def table(left: Sequence[str], right: Sequence[str]) -> Table:
    """Columns of words, then columns of figures, which never break."""
    found = Table(
        box=None, padding=(0, 2, 0, 0), pad_edge=False, collapse_padding=True, header_style="dim"
    )
    for head in left:
        found.add_column(head, overflow="fold")
    for head in right:
        found.add_column(head, justify="right", no_wrap=True)
    return found


def pairs(rows: Sequence[tuple[str, str]]) -> Table:
    """Names on the left, what there is to say on the right."""
    found = Table.grid(padding=(0, 2))
    found.add_column(no_wrap=True)
    found.add_column(overflow="fold")
    for name, text in rows:
        found.add_row(f"  {name}", text)
    return found


def compare(runs: Sequence[tuple[str, Findings]]) -> Iterator[Table]:
    """Tables of at most four runs side by side; a second one repeats the first run to compare with."""
    first, *others = runs
    width = MOST_COMPARED - 1
    for start in range(0, max(1, len(others)), width):
        yield _side_by_side([first, *others[start : start + width]])


def _side_by_side(runs: Sequence[tuple[str, Findings]]) -> Table:
    found = table([""], [])
    for name, _findings in runs:
        found.add_column(name, justify="right", overflow="fold", max_width=16)
    all_findings = [findings for _name, findings in runs]
    for name, value in _figures(all_findings):
        found.add_row(name, *(value(one) for one in all_findings))
    return found


def _figures(runs: Sequence[Findings]) -> Iterator[tuple[str, Callable[[Findings], str]]]:
    yield _("policy"), lambda one: one.manifest.policy
    yield _("missed deadlines"), lambda one: amounts.share(one.missed_share)
    for tier in TIER_LABELS[1:]:
        if any(one.tier == tier for findings in runs for one in findings.arrivals):
            name = words.tier_name(tier)
            yield _("{tier}: have it", tier=name), _of_tier(tier, _end)
            yield _("{tier}: in time", tier=name), _of_tier(tier, _due)
            yield _("{tier}: half, d", tier=name), _of_tier(tier, _half)
    for carrier, name in words.CARRIER_NAMES.items():
        if any(one.carrier == carrier for findings in runs for one in findings.carried):
            yield _(name), _over(carrier)
    if any(findings.costs for findings in runs):
        yield _("cost"), lambda one: words.total_cost(one) if one.costs else amounts.NOTHING


def _of_tier(tier: str, value: Callable[[Findings, str], str]) -> Callable[[Findings], str]:
    return lambda findings: value(findings, tier)


def _over(carrier: str) -> Callable[[Findings], str]:
    return lambda findings: amounts.size(
        sum(one.bytes for one in findings.carried if one.carrier == carrier)
    )


def _end(findings: Findings, tier: str) -> str:
    return amounts.share(findings.share_at_end(tier))


def _due(findings: Findings, tier: str) -> str:
    """Over all releases with a deadline within the run."""
    found = [one for one in findings.arrivals if one.tier == tier and one.due is not None]
    places = sum(one.places for one in found)
    if not places:
        return amounts.NOTHING
    return amounts.share(sum(one.places * one.due.value for one in found if one.due) / places)


def _half(findings: Findings, tier: str) -> str:
    """Of the slowest release."""
    found = [one.p50 for one in findings.arrivals if one.tier == tier]
    if not found or any(one is None for one in found):
        return amounts.NOTHING
    return amounts.days(max(one.value for one in found if one is not None))


def sweep_table(runs: Sequence[tuple[dict[str, str], Findings]]) -> Table:
    """A row for each run."""
    tiers = [
        tier
        for tier in TIER_LABELS[1:]
        if any(one.tier == tier for _settings, findings in runs for one in findings.arrivals)
    ]
    has_costs = any(findings.costs for _settings, findings in runs)
    found = table(
        [*runs[0][0]],
        [
            _("missed"),
            *(words.tier_name(tier) for tier in tiers),
            *([_("cost")] if has_costs else []),
        ],
    )
    for settings, findings in runs:
        found.add_row(
            *settings.values(),
            amounts.share(findings.missed_share),
            *(amounts.share(findings.share_at_end(tier)) for tier in tiers),
            *(
                [words.total_cost(findings) if findings.costs else amounts.NOTHING]
                if has_costs
                else []
            ),
        )
    return found


def comparisons_table(comparisons: Sequence[Comparison]) -> Table:
    """Each tier of each network, as measured and as computed."""
    found = table(
        [_("Network"), _("for"), _("Tier")],
        [_("mean, s"), _("range"), _("computed"), _("error"), _("error of last")],
    )
    last = ""
    for one in comparisons:
        use = _("the fit") if one.is_for_fit else _("the test")
        found.add_row(
            "" if one.network == last else one.network,
            "" if one.network == last else use,
            words.tier_name(one.tier),
            f"{one.measured_mean_s:.1f}",
            f"{one.least_mean_s:.0f}-{one.most_mean_s:.0f}",
            f"{one.computed_mean_s:.1f}",
            f"{one.mean_error * 100:+.1f} %",
            f"{one.last_error * 100:+.1f} %",
        )
        last = one.network
    return found


def show_calibrated(calibrated: Calibrated) -> None:
    """The table, the parameters, and whether they are good enough."""
    from cuntong_simulations.calibration.calibrate import GOAL_LAST, GOAL_MEAN

    out = console()
    out.print(comparisons_table(calibrated.comparisons))
    out.print()
    record = calibrated.record
    values = [
        Parameter(name=name, value=float(getattr(record.parameters, name))) for name in PARAMETERS
    ]
    _show_parameters(out, values, record.measured)
    goal = {"mean": amounts.part(GOAL_MEAN), "last": amounts.part(GOAL_LAST)}
    if calibrated.is_met:
        verdict = _("That is near enough: the goal is {mean} at most in the mean times of tiers, {last} in the times of last places.", **goal)  # fmt: skip
    else:
        verdict = _("That is too far: the goal is {mean} at most in the mean times of tiers, {last} in the times of last places.", **goal)  # fmt: skip
    out.print(Text(verdict, style="bold green" if calibrated.is_met else "bold red"))


def checks_table(checks: Sequence[Check]) -> Table:
    """What the model had to prove about itself."""
    found = table([_("Check")], [_("cases"), _("difference"), _("allowed"), _("met")])
    for one in checks:
        found.add_row(
            show(one.name),
            str(one.cases),
            f"{one.found:.2g}",
            f"{one.allowed:.2g}",
            _("yes") if one.is_met else _("NO"),
        )
    return found

"""Why there is no plan, and what one more unit of each resource would save."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, replace

import msgspec
import numpy as np

from cuntong_protocol.divisions import TIER_LABELS
from cuntong_simulations.model.country import Country
from cuntong_simulations.scenario.scenario import Scenario
from cuntong_simulations.scenario.units import Rate

from .capacity import DAY_S, Bools, Floats, amount
from .carriers import disks_of, months_of, satellite_of
from .demand import COUNTY, Demand, demand
from .inputs import Case, Margins
from .problem import GB, MBIT_GB_S, Problem, build
from .program import Kind
from .result import Gain, Shortfall
from .solve import Solution, solve

MBIT_BYTES_S = 1e6 / 8
UNREACHED_WEIGHT = 1000.0
"""What no carrier brings weighs so much more than a link that is too thin: it is the last thing to be named."""
LEAST_SHORT = 1e-3
"""GB; less is rounding."""
EXAMPLES = 5
INTEGER_SECONDS = 20.0
GAIN_GAP = 1e-3
LEAST_GAIN = 1e-4
"""Of the cost; less is rounding."""
MOST_CLASSES = 12
"""Link classes for which one more unit is tried, those with most places first."""


def store_shortfalls(country: Country, wanted: Demand) -> tuple[Shortfall, ...]:
    """Places whose store is smaller than what they have to keep."""
    room = np.array([one.store_bytes for one in country.classes])[wanted.site_class]
    short = np.where(room > 0, wanted.kept - room, 0.0)
    found = np.flatnonzero(short > LEAST_SHORT * GB)
    lacks = [
        _Lack("store", int(site), (), float(short[site]), float(room[site]), float(wanted.kept[site]))
        for site in found
    ]  # fmt: skip
    return tuple(_grouped(lacks, country, wanted, country.scenario))


def shortfalls(case: Case, wanted: Demand) -> tuple[Shortfall, ...]:
    """Prove that a plan is impossible and say which links stand in the way.

    The least additional capacity with which it would be possible (an elastic program). If it is more than nothing, the
    plan is impossible: that is the proof. Where several resources could make up for each other, one such set is named.

    Returns:
        Those with most missing first; empty if nothing is missing.
    """
    problem = build(case, wanted, is_elastic=True)
    short = _least_slack(problem, case)
    lacks = list(_lacks(problem, short, case.scenario, case.country, wanted))
    return tuple(_grouped(lacks, case.country, wanted, case.scenario))


def _least_slack(problem: Problem, case: Case) -> Floats:
    """How much each row lacks, in its own unit (GB, Mbit/s, disks)."""
    scenario, rates, program = case.scenario, case.rates, problem.program
    kind = np.concatenate(program.kind)
    upper = np.concatenate(program.row_upper)
    weight = np.zeros(program.row_count)
    weight[(kind == Kind.DOWN) | (kind == Kind.UP)] = 1.0
    weight[kind == Kind.COVER] = UNREACHED_WEIGHT
    disks = disks_of(scenario)
    if disks is not None:
        weight[kind == Kind.BATCH] = disks.size / GB
    if satellite_of(scenario) is not None:
        # Bytes that receivers get weigh the same by whichever way they come.
        dishes = max(1, int((problem.covered.max(axis=1) > 0).sum()))
        aired_s = amount(
            rates.air[None], rates.first_hour, np.zeros(1), np.array([scenario.run.days * DAY_S])
        )
        brought = float(aired_s[0, 0]) * MBIT_GB_S / problem.passes * dishes
        # Only the row that bounds the leased rate can be exceeded.
        weight[(kind == Kind.AIR) & (upper > 0)] = brought
    rows = np.flatnonzero(weight)
    program.cost = [np.zeros(program.column_count)]
    sign = np.where(kind[rows] == Kind.COVER, 1.0, -1.0)
    slack = program.columns(len(rows), weight[rows])
    program.put(rows, slack, sign)
    found = solve(program, seconds=INTEGER_SECONDS, is_relaxed=True)
    if len(found.x) and found.cost <= LEAST_SHORT:
        # Enough in fractions of disks: only whole ones are impossible.
        found = solve(program, seconds=INTEGER_SECONDS, gap=0.01)
    short = np.zeros(program.row_count)
    if len(found.x):
        short[rows] = found.x[slack]
    return short


@dataclass(frozen=True, slots=True)
class _Lack:
    """What one place lacks of one resource; `site` -1: the nation."""

    kind: str
    site: int
    releases: tuple[int, ...]
    short: float
    rate: float
    enough: float


def _lacks(
    problem: Problem, short: Floats, scenario: Scenario, country: Country, wanted: Demand
) -> Iterator[_Lack]:
    program = problem.program
    kinds, subjects = np.concatenate(program.kind), np.concatenate(program.subject)
    numbers, upper = np.concatenate(program.set_number), np.concatenate(program.row_upper)
    disks, satellite = disks_of(scenario), satellite_of(scenario)
    for row in np.flatnonzero(short > LEAST_SHORT).tolist():
        kind, site, number = Kind(kinds[row]), int(subjects[row]), int(numbers[row])
        lack, room = float(short[row]), float(upper[row])
        site_class = country.classes[
            wanted.site_class[site] if site >= 0 else int(country.node_class[0])
        ]
        more = (room + lack) / room if room > 0 else 1.0
        if kind is Kind.DOWN:
            items = problem.sets[kind][int(wanted.tier[site])].holds[number]
            rate = site_class.down_bytes_s
            yield _Lack("down", site, _releases(items, wanted), lack * GB, rate, rate * more)
        elif kind is Kind.UP:
            rate = site_class.up_bytes_s
            items = problem.sets[kind][0].holds[number]
            yield _Lack("up", site, _releases(items, wanted), lack * GB, rate, rate * more)
        elif kind is Kind.AIR and satellite is not None:
            enough = satellite.rate + lack * MBIT_BYTES_S
            seconds = scenario.run.days * DAY_S
            yield _Lack("air", -1, (), lack * MBIT_BYTES_S * seconds, satellite.rate, enough)
        elif kind is Kind.BATCH and disks is not None:
            items = problem.sets[kind][0].holds[number]
            batch = float(disks.batch)
            yield _Lack("batch", -1, _releases(items, wanted), lack, batch, batch * more)
        elif kind is Kind.COVER:
            yield _Lack("none", site, (number,), lack * GB, 0.0, 0.0)


def _releases(items: Bools, wanted: Demand) -> tuple[int, ...]:
    return tuple(np.flatnonzero(items.reshape(-1, wanted.release_count).any(axis=0)).tolist())


def _grouped(
    lacks: list[_Lack], country: Country, wanted: Demand, scenario: Scenario
) -> list[Shortfall]:
    groups: dict[tuple[str, str, str], list[_Lack]] = defaultdict(list)
    for lack in lacks:
        tier, link = "nation", ""
        if lack.site >= 0:
            tier = TIER_LABELS[int(wanted.tier[lack.site])]
            link = country.classes[wanted.site_class[lack.site]].link
        elif lack.kind == "up":
            link = country.classes[int(country.node_class[0])].link
        groups[lack.kind, tier, link].append(lack)
    found = []
    for (kind, tier, link), parts in groups.items():
        worst = max(parts, key=lambda part: part.enough)
        sites = sorted({part.site for part in parts})
        nodes = [int(wanted.node[site]) if site >= 0 else 0 for site in sites[:EXAMPLES]]
        releases = sorted({release for part in parts for release in part.releases})
        found.append(
            Shortfall(
                kind=kind,
                tier=tier,
                link=link,
                releases=[scenario.releases[release].name for release in releases],
                places=len(sites),
                short_bytes=sum(part.short for part in parts),
                rate=worst.rate,
                enough=worst.enough,
                examples=[f"{int(country.code[node]):012d}" for node in nodes],
            )
        )
    return sorted(found, key=lambda one: -one.short_bytes)


# What one more unit saves.


def gains(case: Case, *, margins: Margins | None = None, seconds: float = 10.0) -> list[Gain]:
    """What one more unit of each resource saves, by planning again with it.

    Duals would say that hardly anything is saved, since a disk is sent or not. What is saved is rounded to nothing where
    it lies within the gap to which plans are made.

    Args:
        case: One with a plan.
        margins: Those of the plan.
        seconds: For each resource at most so long.

    Returns:
        The one that saves most first.
    """
    margins = margins or Margins()
    case = case.planned_with(margins)
    scenario, country, rates = case.scenario, case.country, case.rates

    def solved(other: Case, later_s: float = 0.0) -> Solution:
        wanted = demand(other, margins.deadline_s - later_s)
        return solve(build(other, wanted).program, seconds=seconds, gap=GAIN_GAP)

    def cost(other: Case, later_s: float = 0.0) -> float:
        return solved(other, later_s).cost

    bound = solved(case).bound
    found: list[Gain] = []

    def note(
        kind: str, unit: str, less: float, *, tier: str = "nation", link: str = "", places: int = 1,
        price: float | None = None,
    ) -> None:  # fmt: skip
        # No plan without it costs less than the bound, so this much is saved for sure.
        saves = bound - less if bound - less > LEAST_GAIN * bound else 0.0
        found.append(
            Gain(
                kind=kind, tier=tier, link=link, unit=unit, places=places, saves=saves,
                price=price,
            )
        )  # fmt: skip

    costs, months = scenario.costs, months_of(scenario)
    satellite, disks = satellite_of(scenario), disks_of(scenario)
    if satellite is not None and costs is not None:
        more = msgspec.structs.replace(satellite, rate=Rate(satellite.rate + MBIT_BYTES_S))
        other = msgspec.structs.replace(scenario, satellite=more)
        note("air", "Mbit/s", cost(replace(case, scenario=other)))
    if disks is not None:
        larger = msgspec.structs.replace(disks, batch=disks.batch + 1)
        other = msgspec.structs.replace(scenario, disks=larger)
        note("batch", "disk", cost(replace(case, scenario=other)))
    note("days", "d", cost(case, later_s=DAY_S))
    extra = costs.extra_mbit_month if costs is not None else None
    for direction, tier, link, chosen, places in _link_classes(country):
        table = np.array(getattr(rates, direction))
        nominal = np.array([getattr(one, f"{direction}_bytes_s") for one in country.classes])
        table[chosen] *= (1 + MBIT_BYTES_S / nominal[chosen])[:, None]
        faster = replace(rates, down=table) if direction == "down" else replace(rates, up=table)
        is_priced = direction == "down" and tier == COUNTY and extra is not None
        note(
            direction, "Mbit/s", cost(replace(case, rates=faster)), tier=TIER_LABELS[tier], link=link,
            places=places, price=float(extra or 0) * months * places if is_priced else None,
        )  # fmt: skip
    return sorted(found, key=lambda gain: -gain.saves)


def _link_classes(country: Country) -> Iterator[tuple[str, int, str, Bools, int]]:
    """Direction, tier, link's name, site classes and number of places: uplinks of sources, downlinks below the nation."""
    places = np.bincount(country.node_class, minlength=len(country.classes))
    kinds: dict[tuple[str, int, str], Bools] = {}
    for number, one in enumerate(country.classes):
        for direction, is_used in (("up", one.tier < COUNTY), ("down", 0 < one.tier <= COUNTY)):
            if is_used and one.down_bytes_s > 0 and one.up_bytes_s > 0:
                empty = np.zeros(len(country.classes), np.bool_)
                kinds.setdefault((direction, one.tier, one.link), empty)[number] = True
    largest = sorted(kinds.items(), key=lambda kind: -int(places[kind[1]].sum()))
    for (direction, tier, link), chosen in largest[:MOST_CLASSES]:
        yield direction, tier, link, chosen, int(places[chosen].sum())

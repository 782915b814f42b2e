"""The planning problem as a mixed-integer program (research/simulation.md 6, model B, collapsed).

Only the satellite needs to know bundles: what is on the air is paid for once and comes to all who have a dish. For
everything else a release is a volume that is split between the link and disks:

    link[s,r] + disk[s,r] + covered[s] * air[s,r] >= need[s,r]
    sum of link[s,r] over a Hall set   <= bytes of the downlink, of the source's uplink, in its interval
    sum of passes * size[b] on_air[b]  <= bytes of the leased rate in its interval
    disk[s,r] <= need[s,r] * parcel[s,r],  disk[s,r] <= disk size * disks[s,r],  disks >= parcel  (tight fixed charges)
    sum of disks[s,r] over a Hall set  <= batches in its interval

Volumes are in GB and rates in Mbit/s, so that coefficients lie close together.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

from cuntong_daemon.policy.airtime import FRESH_PART, METADATA_PART
from cuntong_daemon.policy.peers import may_trade
from cuntong_daemon.policy.reception import SYMBOL_AIR_BYTES, Weather
from cuntong_protocol.datacast.blocks import REPAIR_PART
from cuntong_protocol.datacast.packets import SYMBOL_BYTES
from cuntong_protocol.divisions import TIER_LABELS, Division
from cuntong_simulations.model.country import Country
from cuntong_simulations.results.costs import MONTH_S
from cuntong_simulations.scenario.scenario import Costs, Disks, Satellite, Scenario

from .capacity import Bools, Floats, Hall, Rates, amount, hall
from .demand import COUNTY, DAY_S, Demand

GB = 1e9
MBIT_GB_S = 1e6 / 8 / GB
"""GB in a second at 1 Mbit/s."""
LEAST_LISTENING = 0.5
"""The air is repeated for receivers that listen at least so much; others get the rest by other ways."""
CAROUSEL_MISSING = 1e-3
"""A plain carousel is repeated until less than this is missing."""
LOST_TWICE = 1e-3
"""Disks leave early enough to be sent again, unless fewer than this get lost."""
LEAST_COST = 1e-6
"""Of a GB on a disk: what the link can bring isn't asked of the disk."""
NOTHING = 1e-9

Ints = NDArray[np.int64]


class Kind(IntEnum):
    """What a row of the program says; of those up to `BATCH` a planner can have more."""

    DOWN = 0
    UP = 1
    AIR = 2
    BATCH = 3
    COVER = 4
    OTHER = 5


@dataclass(slots=True)
class Program:
    """A mixed-integer program: minimise cost * x, lower <= x <= upper, row_lower <= A x <= row_upper.

    Attributes:
        kind: Of each row.
        subject: What a row is about: a place (nation: -1) of DOWN, UP and COVER; else -1.
        set_number: Of a row: the set in `Problem.sets[kind]`; of COVER the release.
    """

    cost: list[Floats] = field(default_factory=list)
    lower: list[Floats] = field(default_factory=list)
    upper: list[Floats] = field(default_factory=list)
    is_integer: list[Bools] = field(default_factory=list)
    row_lower: list[Floats] = field(default_factory=list)
    row_upper: list[Floats] = field(default_factory=list)
    kind: list[Ints] = field(default_factory=list)
    subject: list[Ints] = field(default_factory=list)
    set_number: list[Ints] = field(default_factory=list)
    entries: list[tuple[Ints, Ints, Floats]] = field(default_factory=list)
    column_count: int = 0
    row_count: int = 0

    def columns(
        self,
        count: int,
        cost: float | Floats,
        *,
        lower: float | Floats = 0.0,
        upper: float | Floats = math.inf,
        is_integer: bool = False,
    ) -> Ints:
        """Add columns and return their numbers."""
        self.cost.append(np.broadcast_to(np.asarray(cost, float), count))
        self.lower.append(np.broadcast_to(np.asarray(lower, float), count))
        self.upper.append(np.broadcast_to(np.asarray(upper, float), count))
        self.is_integer.append(np.full(count, is_integer))
        self.column_count += count
        return np.arange(self.column_count - count, self.column_count)

    def rows(
        self,
        count: int,
        kind: Kind,
        *,
        lower: float | Floats = -math.inf,
        upper: float | Floats = math.inf,
        subject: int | Ints = -1,
        set_number: int | Ints = -1,
    ) -> Ints:
        """Add rows and return their numbers."""
        self.row_lower.append(np.broadcast_to(np.asarray(lower, float), count))
        self.row_upper.append(np.broadcast_to(np.asarray(upper, float), count))
        self.kind.append(np.full(count, int(kind)))
        self.subject.append(np.broadcast_to(np.asarray(subject), count))
        self.set_number.append(np.broadcast_to(np.asarray(set_number), count))
        self.row_count += count
        return np.arange(self.row_count - count, self.row_count)

    def put(self, rows: int | Ints, columns: int | Ints, values: float | Floats) -> None:
        """Put coefficients; those of one place are added up."""
        row, column, value = np.broadcast_arrays(rows, columns, np.asarray(values, float))
        self.entries.append((row.ravel(), column.ravel(), value.ravel()))


@dataclass(slots=True)
class Problem:
    """The program, and what its columns mean. S places, R releases, B bundles.

    Attributes:
        link: Column of what a place gets of a release over its link, (S, R); -1: none.
        disk, disks, parcel: Columns of volume, number of disks and parcel, (S, R); -1: none. Where one disk is enough,
            `parcel` is `disks`.
        on_air: Column of each bundle, (B); -1: not to be had.
        rate: Column of the leased rate in Mbit/s; -1: no satellite.
        stock: Column of the disks that are bought; -1: they have no price.
        covered: Share of what is on the air that a place gets, (S, R).
        passes: GB of air time at the leased rate for a GB of a bundle.
        sets: By kind; items of DOWN are releases by tier, of UP and BATCH `tier * R + release`, of AIR releases.
        room: GB (or disks) that a row of kinds DOWN to BATCH has, as far as the plan may use it; AIR: at the full rate.
    """

    program: Program
    link: Ints
    disk: Ints
    disks: Ints
    parcel: Ints
    on_air: Ints
    rate: int
    stock: int
    covered: Floats
    passes: float
    sets: dict[Kind, list[Hall]]


@dataclass(frozen=True, slots=True)
class Margins:
    """How carefully is planned: share of the capacities, and seconds by which deadlines come earlier."""

    capacity: float = 1.0
    deadline_s: float = 0.0


def satellite_of(scenario: Scenario) -> Satellite | None:
    """The satellite, if it has a price."""
    costs = scenario.costs
    return None if costs is None or costs.satellite_per_mbit_month is None else scenario.satellite


def disks_of(scenario: Scenario) -> Disks | None:
    """Disks, if they have a price."""
    costs = scenario.costs
    has_price = costs is not None and not (
        costs.disk is None and costs.disk_trip is None and costs.parcel is None
    )
    return scenario.disks if has_price else None


def months_of(scenario: Scenario) -> float:
    """For how long the satellite is leased: the whole run."""
    return scenario.run.days * DAY_S / MONTH_S


def travel_s(disks: Disks) -> float:
    """How long a disk may be on its way, being sent again where too many get lost."""
    again = 0
    if disks.lost > 0:
        again = max(0, math.ceil(math.log(LOST_TWICE) / math.log(min(disks.lost, 0.99))) - 1)
    return disks.transit_most + again * (disks.notice + disks.transit_most)


def departures_s(scenario: Scenario, disks: Disks) -> Floats:
    """When batches leave."""
    return np.arange(0.0, scenario.run.days * DAY_S, max(disks.leave, scenario.run.step))


def latest_s(scenario: Scenario, wanted: Demand, disks: Disks) -> Floats:
    """When disks have to leave at the latest, by tier and release, (4, R)."""
    largest = np.zeros_like(wanted.deadline_s)
    np.maximum.at(largest, wanted.tier, wanted.need)
    return wanted.deadline_s - travel_s(disks) - largest / disks.copy_rate


def build(
    scenario: Scenario,
    country: Country,
    wanted: Demand,
    rates: Rates,
    *,
    margins: Margins,
    is_elastic: bool = False,
) -> Problem:
    """Write the program down.

    Args:
        scenario: With prices.
        country: Of the scenario.
        wanted: With `margins.deadline_s` in its deadlines.
        rates: By site class.
        margins: How carefully is planned.
        is_elastic: Leave out the bounds that follow from capacities, since these can be exceeded.
    """
    return _Builder(scenario, country, wanted, rates, margins, is_elastic).build()


class _Builder:
    def __init__(
        self,
        scenario: Scenario,
        country: Country,
        wanted: Demand,
        rates: Rates,
        margins: Margins,
        is_elastic: bool,
    ) -> None:
        self.scenario, self.country, self.wanted, self.rates = scenario, country, wanted, rates
        self.costs = scenario.costs or Costs(currency="", source="")
        self.margins, self.is_elastic = margins, is_elastic
        self.need = wanted.need / GB
        self.program = Program()
        self.sets: dict[Kind, list[Hall]] = {}
        self.none = np.full(self.need.shape, -1)
        self.nation_class = int(country.node_class[0])
        has_source = wanted.source >= 0
        self.source_class = np.where(
            has_source, wanted.site_class[wanted.source], self.nation_class
        )
        self.is_source = np.isin(np.arange(wanted.site_count), wanted.source)

    def build(self) -> Problem:
        by_link = self._links()
        on_air, rate, air, covered, passes = self._satellite()
        disk, disks, parcel, stock = self._disks(by_link, covered)
        problem = Problem(
            self.program, self.link, disk, disks, parcel, on_air, rate, stock, covered, passes, self.sets
        )  # fmt: skip
        if not self.is_elastic:
            for tier in range(1, COUNTY + 1):
                self._cuts(tier, parcel, air, covered)
        place, release = np.nonzero((self.need > 0) & self.is_first[:, None])
        rows = self.program.rows(
            len(place), Kind.COVER, lower=self.need[place, release], subject=place, set_number=release
        )  # fmt: skip
        for columns, values in ((self.link, None), (disk, None), (air, covered)):
            there = columns[place, release] >= 0
            value = 1.0 if values is None else values[place, release][there]
            self.program.put(rows[there], columns[place, release][there], value)
        return problem

    # Links.

    def _links(self) -> Floats:
        """Add links; returns what each place could get of each release over its link, GB, (S, R)."""
        wanted, share = self.wanted, self.margins.capacity
        halls = [hall(wanted.released_s, by_tier) for by_tier in wanted.deadline_s]
        self.sets[Kind.DOWN] = halls
        own = np.zeros_like(self.need)
        for tier in range(1, COUNTY + 1):
            there = wanted.tier == tier
            own[there] = self._intake(wanted.released_s, wanted.deadline_s[tier], there)
        by_link = np.minimum(own * share, self.need)
        has_link = (self.need > 0) & (own > 0)
        taken = np.where(has_link, self.need if self.is_elastic else by_link, 0.0)
        items, room, binds, takes = self._uplinks(taken)
        self._merge(binds)
        price = self.costs.link_per_gb or 0.0
        place, release = np.nonzero(has_link & self.is_first[:, None])
        self.link = self.none.copy()
        self.link[place, release] = self.program.columns(
            len(place),
            np.where(wanted.tier[place] == COUNTY, price, 0.0) * self.alike[place],
            upper=taken[place, release],
        )
        self.link = self.link[self.first]
        for tier in range(1, COUNTY + 1):
            self._downlinks(tier, halls[tier], taken)
        self._uplink_rows(items, room, binds, takes)
        return by_link

    def _merge(self, binds: Bools) -> None:
        """Treat places alike that are alike: same class and need, and where an uplink above binds, below the same one.

        What one of them gets all of them get: a plan is a tenth as large, its integers are no longer interchangeable, and
        people can follow it. Nothing is lost where no uplink and no batch binds, since the same choice is the cheapest
        for all of them. Elsewhere a plan could be cheaper in which only some of them get disks; `Plan.bound` doesn't
        speak of such plans. In an elastic program each place stands for itself.
        """
        wanted = self.wanted
        own = np.arange(wanted.site_count)
        is_bound = np.any(binds, axis=1)[wanted.source]
        below = own if self.is_elastic else np.where(is_bound, wanted.source, -2)
        key = np.column_stack((
            wanted.site_class, wanted.tier, below, self.need,
            np.where(self.is_source, own, -1), self.source_class,
        ))  # fmt: skip
        _keys, first, group, count = np.unique(
            key, axis=0, return_index=True, return_inverse=True, return_counts=True
        )
        self.first = first[group.ravel()]
        self.is_first = self.first == own
        self.alike = count[group.ravel()]

    def _intake(self, begin_s: Floats, end_s: Floats, there: Bools) -> Floats:
        """GB that some places can take in intervals, (places, intervals): their own link, and what is new at their source."""
        rates, wanted = self.rates, self.wanted
        down = amount(rates.down, rates.first_hour, begin_s, end_s)
        fresh = amount(rates.up * rates.phi, rates.first_hour, begin_s, end_s)
        return np.minimum(down[wanted.site_class[there]], fresh[self.source_class[there]]) / GB

    def _downlinks(self, tier: int, sets: Hall, taken: Floats) -> None:
        is_there = (self.wanted.tier == tier) & self.is_first
        there = np.flatnonzero(is_there)
        room = self._intake(sets.begin_s, sets.end_s, is_there) * self.margins.capacity
        load = taken[there] @ sets.holds.T
        # One release alone is bounded by its column, unless there is to be slack.
        is_alone = sets.holds.sum(axis=1) == 1
        at, number = np.nonzero((load > room) & (room > 0) & (self.is_elastic | ~is_alone))
        rows = self.program.rows(
            len(at), Kind.DOWN, upper=room[at, number], subject=there[at], set_number=number
        )
        row, release = np.nonzero(sets.holds[number])
        self._put_there(rows[row], self.link[there[at[row]], release], 1.0)

    def _cuts(self, tier: int, parcel: Ints, air: Ints, covered: Floats) -> None:
        """Say what follows from whole parcels: what the link can't bring comes from the sky, or a parcel goes there.

        Without them the relaxation sends a tenth of a parcel for a missing tenth, and the solver takes minutes to find
        out about each place. With `lacks` the part of a set that a place's link can't bring, each parcel covers at most
        its release, and all of what is lacking: a valid inequality, and the tightest for a single release.
        """
        is_there = (self.wanted.tier == tier) & self.is_first
        sets, there = self.sets[Kind.DOWN][tier], np.flatnonzero(is_there)
        room = self._intake(sets.begin_s, sets.end_s, is_there)
        lacks = self.need[there] @ sets.holds.T - room * self.margins.capacity
        at, number = np.nonzero(lacks > NOTHING)
        lacking, place = lacks[at, number], there[at]
        row, release = np.nonzero(sets.holds[number])
        brings = np.minimum(lacking[row], self.need[place[row], release])
        rows = self.program.rows(len(at), Kind.OTHER, lower=lacking)
        self._put_there(rows[row], parcel[place[row], release], brings)
        self._put_there(rows[row], air[place[row], release], covered[place[row], release])
        # Places of one class lack the same and are helped by the same broadcast: one decision for all of them.
        under_sky = np.flatnonzero((air[place] >= 0).any(axis=1))
        alike = np.column_stack((self.wanted.site_class[place], number, lacking.round(6)))
        groups, first, group = np.unique(
            alike[under_sky], axis=0, return_index=True, return_inverse=True
        )
        is_enough = self.program.columns(len(groups), 0.0, upper=1.0, is_integer=True)
        which = np.full(len(at), -1)
        which[under_sky] = is_enough[group.ravel()]
        one_each = np.full(len(at), -1)
        one_each[under_sky] = self.program.rows(len(under_sky), Kind.OTHER, lower=1.0)
        self._put_there(one_each[under_sky], which[under_sky], 1.0)
        part = which[row] >= 0
        self._put_there(one_each[row[part]], parcel[place[row], release][part], 1.0)
        example = under_sky[first]
        rows = np.full(len(at), -1)
        rows[example] = self.program.rows(len(groups), Kind.OTHER, lower=0.0)
        self._put_there(rows[example], which[example], -lacking[example])
        part = rows[row] >= 0
        self._put_there(
            rows[row[part]],
            air[place[row], release][part],
            covered[place[row], release][part],
        )

    def _put_there(self, rows: Ints, columns: Ints, values: float | Floats) -> None:
        """Put coefficients where there is a column."""
        there = columns >= 0
        self.program.put(rows[there], columns[there], np.broadcast_to(values, len(rows))[there])

    def _uplinks(self, taken: Floats) -> tuple[Hall, Floats, Bools, Floats]:
        """Uplinks of sources; where siblings trade, what is left of theirs counts, too (Kumar and Ross, 2006).

        Args:
            taken: GB that places could take over their links at most, (S, R).

        Returns:
            The sets of items `tier * R + release`; each source's GB by set, the nation last, so that -1 means it; which
            of these could be too little; and what each place takes of the uplink above its source, for a byte.
        """
        wanted, rates = self.wanted, self.rates
        sources = wanted.site_count + 1
        items = hall(np.tile(wanted.released_s, COUNTY + 1), wanted.deadline_s.ravel())
        self.sets[Kind.UP] = [items]
        trades = self._trades()
        siblings = np.bincount(wanted.source % sources, minlength=sources)[wanted.source] - 1.0
        below = self.country.child_count[wanted.node]
        # A county's uplink is split by connections between siblings and places below, which aren't planned for; of other
        # places the rows say what their own children take.
        split = np.where(self.is_source, 1.0, siblings / np.maximum(siblings + below, 1))
        up = amount(rates.up, rates.first_hour, items.begin_s, items.end_s) / GB
        room = np.zeros((sources, len(items.begin_s)))
        np.add.at(
            room, wanted.source, rates.eta * (trades * split)[:, None] * up[wanted.site_class]
        )
        room[:-1] += up[wanted.site_class]
        room[-1] += up[self.nation_class]
        room *= self.margins.capacity

        above = wanted.source
        further = np.where(above >= 0, wanted.source[above], -1)
        takes = np.where((above >= 0) & trades[above], rates.eta, 0.0)
        load = np.zeros_like(room)
        for number, holds in enumerate(items.holds):
            by_tier = holds.reshape(COUNTY + 1, -1)
            need = (taken * by_tier[wanted.tier]).sum(axis=1)
            load[:, number] = np.bincount(above % sources, need, sources)
            load[:, number] += np.bincount(further % sources, need * takes, sources)
        return items, room, (load > room) & (room > 0), takes

    def _uplink_rows(self, items: Hall, room: Floats, binds: Bools, takes: Floats) -> None:
        wanted, program = self.wanted, self.program
        place, release = np.nonzero(self.link >= 0)
        columns, item = (
            self.link[place, release],
            wanted.tier[place] * wanted.release_count + release,
        )
        above = wanted.source[place]
        further = np.where(above >= 0, wanted.source[above], -1)
        for number, holds in enumerate(items.holds):
            at = np.flatnonzero(binds[:, number])
            rows = np.full(len(binds), -1)
            rows[at] = program.rows(
                len(at), Kind.UP, upper=room[at, number],
                subject=np.where(at < wanted.site_count, at, -1), set_number=number,
            )  # fmt: skip
            child = holds[item] & (rows[above] >= 0)
            program.put(rows[above[child]], columns[child], 1.0)
            grandchild = holds[item] & (takes[place] > 0) & (rows[further] >= 0)
            program.put(rows[further[grandchild]], columns[grandchild], takes[place[grandchild]])

    def _trades(self) -> Bools:
        """Which places trade with their siblings."""
        wanted, run = self.wanted, self.scenario.run
        if run.policy in ("star", "tree"):
            return np.zeros(wanted.site_count, np.bool_)
        by_tier = np.zeros(COUNTY + 1, np.bool_)
        for tier in range(1, COUNTY + 1):
            of_tier = np.flatnonzero(wanted.tier == tier)
            if len(of_tier):
                code = Division(f"{int(self.country.code[wanted.node[of_tier[0]]]):012d}")
                by_tier[tier] = may_trade(code, self.scenario.vpn.shape)
        return by_tier[wanted.tier]

    # Satellite.

    def _satellite(self) -> tuple[Ints, int, Ints, Floats, float]:
        wanted, rates, program = self.wanted, self.rates, self.program
        on_air = np.full(len(wanted.size), -1)
        covered = np.zeros_like(self.need)
        satellite = satellite_of(self.scenario)
        if satellite is None:
            return on_air, -1, self.none, covered, 0.0
        names = [release.name for release in self.scenario.releases]
        allowed = np.array([not satellite.releases or name in satellite.releases for name in names])
        passes, share = _reception(satellite, self.country, wanted, rates)
        in_time = wanted.deadline_s >= wanted.deadline_s[COUNTY]
        covered = share[wanted.site_class, None] * in_time[wanted.tier] * allowed

        bundle = np.flatnonzero(allowed[wanted.release])
        on_air[bundle] = program.columns(len(bundle), 0.0, upper=1.0, is_integer=True)
        price = (self.costs.satellite_per_mbit_month or 0.0) * months_of(self.scenario)
        most = satellite.rate / GB / MBIT_GB_S
        (rate,) = program.columns(1, price, upper=math.inf if self.is_elastic else most)

        sets = hall(wanted.released_s, wanted.deadline_s[COUNTY])
        self.sets[Kind.AIR] = [sets]
        seconds = amount(rates.air[None], rates.first_hour, sets.begin_s, sets.end_s)[0]
        rows = program.rows(len(seconds), Kind.AIR, upper=0.0, set_number=np.arange(len(seconds)))
        program.put(rows, rate, -seconds * MBIT_GB_S * self.margins.capacity)
        at, which = np.nonzero(sets.holds[:, wanted.release[bundle]])
        program.put(rows[at], on_air[bundle[which]], passes * wanted.size[bundle[which]] / GB)
        if self.is_elastic:
            # What is leased beyond what there is counts as capacity that is missing.
            (limit,) = program.rows(1, Kind.AIR, upper=most, set_number=len(seconds))
            program.put(limit, rate, 1.0)

        # Places that want the same bundles have the same on the air: one column for each kind of them.
        choices, choice = np.unique(wanted.wants[wanted.site_class], axis=0, return_inverse=True)
        air = np.full((len(choices), wanted.release_count), -1)
        air[:, allowed] = program.columns(air[:, allowed].size, 0.0).reshape(air[:, allowed].shape)
        kind, release = np.nonzero(air >= 0)
        rows = program.rows(len(kind), Kind.OTHER, upper=0.0)
        program.put(rows, air[kind, release], 1.0)
        at, which = np.nonzero(
            choices[kind][:, bundle] & (wanted.release[bundle] == release[:, None])
        )
        program.put(rows[at], on_air[bundle[which]], -wanted.size[bundle[which]] / GB)
        columns = np.where(covered > 0, air[choice.ravel()], -1)
        return on_air, int(rate), columns, covered, passes

    # Disks.

    def _disks(self, by_link: Floats, covered: Floats) -> tuple[Ints, Ints, Ints, int]:
        wanted, program, costs = self.wanted, self.program, self.costs
        disks = disks_of(self.scenario)
        if disks is None:
            return self.none, self.none, self.none, -1
        latest = latest_s(self.scenario, wanted, disks)
        leave = departures_s(self.scenario, disks)
        is_to = np.array([TIER_LABELS[tier] in disks.to for tier in range(COUNTY + 1)])
        chances = (leave >= wanted.released_s[:, None]) & (leave <= latest[..., None])
        possible = chances.any(axis=-1) & is_to[:, None] & (disks.batch > 0)
        is_possible = (self.need > 0) & possible[wanted.tier]
        place, release = np.nonzero(is_possible & self.is_first[:, None])
        need, alike = self.need[place, release], self.alike[place].astype(np.float64)
        size = disks.size / GB
        # What can't come by any other way has to be on disks: integers that are known beforehand.
        least = need - by_link[place, release] - covered[place, release] * need
        least = np.zeros(len(need)) if self.is_elastic else np.maximum(least, 0.0)
        sent = 1 / (1 - min(disks.lost, 0.99))
        trip, parcel_price = (costs.disk_trip or 0.0) * sent, (costs.parcel or 0.0) * sent
        is_one = need <= size
        one_more: Floats = (trip + np.where(is_one, parcel_price, 0.0)) * alike

        disk, count, parcel = self.none.copy(), self.none.copy(), self.none.copy()
        least_costs: Floats = LEAST_COST * alike
        disk[place, release] = volume = program.columns(len(place), least_costs, upper=need)
        count[place, release] = number = program.columns(
            len(place),
            one_more,
            lower=np.ceil(least / size - NOTHING),
            upper=np.ceil(need / size - NOTHING),
            is_integer=True,
        )
        parcel[place, release] = number
        many = np.flatnonzero(~is_one)
        parcels = number.copy()
        each: Floats = parcel_price * alike[many]
        parcels[many] = program.columns(
            len(many),
            each,
            lower=np.where(least[many] > NOTHING, 1.0, 0.0),
            upper=1.0,
            is_integer=True,
        )
        parcel[place, release] = parcels
        rows = program.rows(len(place), Kind.OTHER, upper=0.0)
        program.put(rows, volume, 1.0)
        program.put(rows, parcels, -need)
        rows = program.rows(len(many), Kind.OTHER, upper=0.0)
        program.put(rows, volume[many], 1.0)
        program.put(rows, number[many], -size)
        rows = program.rows(len(many), Kind.OTHER, lower=0.0)
        program.put(rows, number[many], 1.0)
        program.put(rows, parcels[many], -1.0)

        disk, count, parcel = disk[self.first], count[self.first], parcel[self.first]
        place, release = np.nonzero(count >= 0)
        item, number = wanted.tier[place] * wanted.release_count + release, count[place, release]
        self._batches(disks, leave, item, number, latest, possible)
        stock = self._stock(item, number) if costs.disk else -1
        return disk, count, parcel, stock

    def _batches(
        self, disks: Disks, leave: Floats, item: Ints, number: Ints, latest: Floats, possible: Bools
    ) -> None:
        released = np.tile(self.wanted.released_s, COUNTY + 1)
        used = np.flatnonzero(possible.ravel())
        sets = hall(released[used], latest.ravel()[used]) if len(used) else None
        self.sets[Kind.BATCH] = []
        if sets is None:
            return
        holds = np.zeros((len(sets.begin_s), len(released)), np.bool_)
        holds[:, used] = sets.holds
        self.sets[Kind.BATCH] = [Hall(holds, sets.begin_s, sets.end_s)]
        batches = (leave >= sets.begin_s[:, None]) & (leave <= sets.end_s[:, None])
        rows = self.program.rows(
            len(holds), Kind.BATCH, upper=disks.batch * batches.sum(axis=1).astype(float),
            set_number=np.arange(len(holds)),
        )  # fmt: skip
        at, which = np.nonzero(holds[:, item])
        self.program.put(rows[at], number[which], 1.0)

    def _stock(self, item: Ints, number: Ints) -> int:
        """Disks are bought for the most that are away at once: from a release to its deadline."""
        (stock,) = self.program.columns(1, self.costs.disk or 0.0)
        released = np.tile(self.wanted.released_s, COUNTY + 1)
        moments = np.unique(released)[:, None]
        is_away = (released <= moments) & (moments < self.wanted.deadline_s.ravel())
        rows = self.program.rows(len(moments), Kind.OTHER, upper=0.0)
        self.program.put(rows, int(stock), -1.0)
        at, which = np.nonzero(is_away[:, item])
        self.program.put(rows[at], number[which], 1.0)
        return int(stock)


def _reception(
    satellite: Satellite, country: Country, wanted: Demand, rates: Rates
) -> tuple[float, Floats]:
    """What the air costs and brings.

    Returns:
        Bytes of the leased rate for each byte of a bundle, and the share that each site class gets.
    """
    has_dish = np.array([one.has_dish for one in country.classes])
    on_air = rates.air / max(rates.air.sum(), NOTHING)
    listens = np.where(has_dish, rates.listens @ on_air, 0.0)
    used = listens[wanted.site_class]
    used = used[used >= LEAST_LISTENING]
    weather = Weather(
        loss=min(satellite.loss, 0.99),
        fade_s=satellite.fade,
        fades_an_hour=satellite.fades_per_hour,
    )
    clear = max(weather.clear_part, 0.01)
    least = float(used.min()) if len(used) else 1.0
    overhead = SYMBOL_AIR_BYTES / SYMBOL_BYTES / (1 - METADATA_PART)
    # While first passes wait, up to a quarter of the air repeats.
    if satellite.code == "fountain":
        passes = max(1 + REPAIR_PART, 1 / clear) * max(1 / FRESH_PART, 1 / least)
        return passes * overhead, np.minimum(listens / least, 1.0)
    missing = 1 - clear * least
    passes = math.ceil(math.log(CAROUSEL_MISSING) / math.log(missing)) if missing > 0 else 1
    share = np.where(listens >= least, 1.0, 1 - (1 - clear * listens) ** passes)
    return max(1 / FRESH_PART, passes) * overhead, np.where(has_dish, share, 0.0)

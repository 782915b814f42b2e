"""The planning problem as a mixed-integer program (research/simulation.md 6, model B, collapsed).

Only the satellite needs to know bundles: what is on the air is paid for once and comes to all who have a dish. For
everything else a release is a volume that is split between the link and disks. Places that are alike form a group `g`
of `n[g]`: volumes are the mean of a group's places. Where an uplink above is too thin for all, parcels and disks are
counted for the whole group, so that some of its places get a parcel and others don't (`places.py` says which); elsewhere
what one of them gets all of them get, since the same is the cheapest for each.

    link[g,r] + disk[g,r] + covered[g] * air[g,r] >= need[g,r]
    sum of link[g,r] over a Hall set          <= bytes of the downlink in its interval
    sum of n[g] link[g,r] over a Hall set     <= bytes of the source's uplink in its interval
    sum of passes * size[b] on_air[b]         <= bytes of the leased rate in its interval
    n[g] disk[g,r] <= need[g,r] * parcels[g,r],  n[g] disk[g,r] <= disk size * disks[g,r],  disks >= parcels
    sum of disks[g,r] over a Hall set         <= batches in its interval

Volumes are in GB and rates in Mbit/s, so that coefficients lie close together.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from cuntong_daemon.policy.peers import may_trade
from cuntong_protocol.divisions import TIER_LABELS, Division
from cuntong_simulations.scenario.scenario import Costs, Disks

from .capacity import Bools, Floats, Hall, amount, hall
from .carriers import (
    LEASE_STEP_MBIT_S,
    departures_s,
    disks_of,
    latest_s,
    months_of,
    reception,
    satellite_of,
    sent,
)
from .demand import COUNTY, Demand
from .inputs import Case
from .program import Ints, Kind, Program

GB = 1e9
MBIT_GB_S = 1e6 / 8 / GB
"""GB in a second at 1 Mbit/s."""
LEAST_COST = 1e-6
"""Of a GB on a disk: what the link can bring isn't asked of the disk."""
CHUNKS = 20
"""Into so many the bundles that may be broadcast are put, for the envelope of a product."""
FILL = 0.995
"""Of a disk that isn't the last one of a parcel: bundles go onto disks as a whole."""
NOTHING = 1e-9


@dataclass(slots=True)
class Problem:
    """The program, and what its columns mean. S places, R releases, B bundles.

    Attributes:
        first: The first place of each place's group, (S).
        need: GB that the program brings to each place, (S, R).
        link: Column of what a place gets of a release over its link, (S, R); -1: none.
        disk: Column of what it gets on disks, in the mean of its group, (S, R); -1: none.
        disks, parcels: Columns of how many units its group gets, (S, R); -1: none. Where one disk is enough for a place,
            they are the same.
        is_bound: Whether an uplink above a place could be too thin for all below it, (S).
        unit: So many places of a group get a disk or parcel for each that its column says, (S).
        on_air: Column of each bundle, (B); -1: not to be had.
        rate: Column of the leased rate in steps of `LEASE_STEP_MBIT_S`; -1: no satellite.
        covered: Share of what is on the air that a place gets, (S, R).
        passes: GB of air time at the leased rate for a GB of a bundle.
        sets: By kind; items of DOWN are releases by tier, of UP and BATCH `tier * R + release`, of AIR releases.
        room: By tier: GB that each place can take in the intervals of the sets of DOWN, (S, sets).
        air_mbit_s: Rate that each bundle takes in the interval of each set of AIR, (sets, B).
    """

    program: Program
    first: Ints
    need: Floats
    link: Ints
    disk: Ints
    disks: Ints
    parcels: Ints
    is_bound: Bools
    unit: Ints
    on_air: Ints
    rate: int
    covered: Floats
    passes: float
    sets: dict[Kind, list[Hall]]
    room: list[Floats]
    air_mbit_s: Floats

    def link_is_enough(self, tier: Ints) -> Bools:
        """Whether a place's link brings a release in time, with all else that it has to bring, (S, R)."""
        found = np.repeat(~self.is_bound[:, None], self.need.shape[1], axis=1)
        for number, sets in enumerate(self.sets[Kind.DOWN]):
            lacks = self.need @ sets.holds.T - self.room[number] > 1e-6 * self.need.max(initial=1.0)
            found &= ~((lacks & (tier == number)[:, None]) @ sets.holds)
        return found

    def rate_mbit_s(self, on_air: Bools) -> float:
        """What has to be leased for these bundles."""
        return float((self.air_mbit_s @ on_air).max(initial=0.0))

    def is_on_offer(self, on_air: Bools) -> bool:
        """Whether the satellite has so much, and may be used for them."""
        upper = np.concatenate(self.program.upper)
        is_allowed = not (on_air & (self.on_air < 0)).any()
        return is_allowed and (
            not on_air.any() or self.rate_mbit_s(on_air) <= upper[self.rate + 1] + NOTHING
        )


def build(
    case: Case,
    wanted: Demand,
    *,
    aired: Bools | None = None,
    is_counted: bool = False,
    is_tight: bool = False,
    is_elastic: bool = False,
) -> Problem:
    """Write the program down.

    Args:
        case: With its margins.
        wanted: With the margins of deadlines.
        aired: Bundles that are broadcast, (B): what else is needed is left to links and disks. None: to be decided.
        is_counted: Some places of any group may get disks and others not; for where batches are too small for all.
        is_tight: Say also what a broadcast spares where only some places get parcels: a better bound, a larger program.
        is_elastic: Leave out the bounds that follow from capacities, since these can be exceeded.
    """
    return _Builder(case, wanted, aired, is_counted, is_tight, is_elastic).build()


def brought_by_air(wanted: Demand, covered: Floats, aired: Bools) -> Floats:
    """Bytes of each release that each place gets from the sky, (S, R)."""
    is_of = wanted.release[:, None] == np.arange(wanted.release_count)
    volume = (wanted.wants * np.where(aired, wanted.size, 0.0)) @ is_of
    found: Floats = np.minimum(covered * volume[wanted.site_class], wanted.need)
    return found


class _Builder:
    def __init__(
        self,
        case: Case,
        wanted: Demand,
        aired: Bools | None,
        is_counted: bool,
        is_tight: bool,
        is_elastic: bool,
    ) -> None:
        self.scenario, self.country, self.wanted, self.rates = (
            case.scenario, case.country, wanted, case.rates,
        )  # fmt: skip
        self.costs = self.scenario.costs or Costs(currency="", source="")
        self.is_counted, self.is_tight, self.is_elastic = is_counted, is_tight, is_elastic
        self.is_sky_open = aired is None
        self.need = wanted.need / GB
        self.passes, self.covered = 0.0, np.zeros_like(self.need)
        satellite = satellite_of(self.scenario)
        if satellite is not None:
            self.passes, self.covered = reception(satellite, self.country, wanted, self.rates)
            if aired is not None:
                self.need = (wanted.need - brought_by_air(wanted, self.covered, aired)) / GB
                self.need[self.need < NOTHING] = 0.0
        self.program = Program()
        self.sets: dict[Kind, list[Hall]] = {}
        self.air_mbit_s = np.zeros((0, len(wanted.size)))
        self.none = np.full(self.need.shape, -1)
        self.nation_class = int(self.country.node_class[0])
        has_source = wanted.source >= 0
        self.source_class = np.where(
            has_source, wanted.site_class[wanted.source], self.nation_class
        )
        self.is_source = np.isin(np.arange(wanted.site_count), wanted.source)

    def build(self) -> Problem:
        by_link = self._links()
        on_air, rate, air = self._satellite()
        disk, disks, parcels = self._disks(by_link)
        if not self.is_elastic:
            for tier in range(1, COUNTY + 1):
                self._cuts(tier, disks, parcels, air)
        if self.is_tight:
            self._overlaps(on_air, air, parcels)
        place, release = np.nonzero((self.need > 0) & self.is_first[:, None])
        rows = self.program.rows(
            len(place), Kind.COVER, lower=self.need[place, release], subject=place, set_number=release
        )  # fmt: skip
        self._put_there(rows, self.link[place, release], 1.0)
        self._put_there(rows, disk[place, release], 1.0)
        self._put_there(rows, air[place, release], self.covered[place, release])
        return Problem(
            self.program, self.first, self.need, self.link, disk, disks, parcels, self.is_bound, self.unit,
            on_air, rate, self.covered, self.passes, self.sets, self.room, self.air_mbit_s,
        )  # fmt: skip

    # Links.

    def _links(self) -> Floats:
        """Add links; returns what each place could get of each release over its link, GB, (S, R)."""
        wanted = self.wanted
        halls = [hall(wanted.released_s, by_tier) for by_tier in wanted.deadline_s]
        self.sets[Kind.DOWN] = halls
        own = np.zeros_like(self.need)
        for tier in range(1, COUNTY + 1):
            there = wanted.tier == tier
            own[there] = self._intake(wanted.released_s, wanted.deadline_s[tier])[there]
        by_link = np.minimum(own, self.need)
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
        self.room = [self._intake(sets.begin_s, sets.end_s) for sets in halls]
        for tier in range(1, COUNTY + 1):
            self._downlinks(tier, halls[tier], taken)
        self._uplink_rows(items, room, binds, takes)
        return by_link

    def _merge(self, binds: Bools) -> None:
        """Put places together that are alike: same class and need, and where an uplink above binds, below the same one.

        In an elastic program each place stands for itself.
        """
        wanted = self.wanted
        own = np.arange(wanted.site_count)
        self.is_bound: Bools = np.any(binds, axis=1)[wanted.source]
        below = own if self.is_elastic else np.where(self.is_bound, wanted.source, -2)
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
        self.unit = np.where(self.is_bound | self.is_counted, 1, self.alike)

    def _intake(self, begin_s: Floats, end_s: Floats) -> Floats:
        """GB that places can take in intervals, (S, intervals): their own link, and what is new at their source."""
        rates = self.rates
        down = amount(rates.down, rates.first_hour, begin_s, end_s)
        fresh = amount(rates.up * rates.phi, rates.first_hour, begin_s, end_s)
        return np.minimum(down[self.wanted.site_class], fresh[self.source_class]) / GB

    def _downlinks(self, tier: int, sets: Hall, taken: Floats) -> None:
        there = np.flatnonzero((self.wanted.tier == tier) & self.is_first)
        room = self.room[tier][there]
        load = taken[there] @ sets.holds.T
        # One release alone is bounded by its column, unless there is to be slack.
        is_alone = sets.holds.sum(axis=1) == 1
        at, number = np.nonzero((load > room) & (room > 0) & (self.is_elastic | ~is_alone))
        rows = self.program.rows(
            len(at), Kind.DOWN, upper=room[at, number], subject=there[at], set_number=number
        )
        row, release = np.nonzero(sets.holds[number])
        self._put_there(rows[row], self.link[there[at[row]], release], 1.0)

    def _cuts(self, tier: int, disks: Ints, parcels: Ints, air: Ints) -> None:
        """Say what follows from whole parcels: what the link can't bring comes from the sky, or a parcel goes there.

        Without them the relaxation sends a tenth of a parcel for a missing tenth, and the solver takes minutes to find
        out about each place. With `lacks` the part of a set that a place's link can't bring, each parcel covers at most
        its release, and all of what is lacking: a valid inequality, and the tightest for a single release.
        """
        sets = self.sets[Kind.DOWN][tier]
        there = np.flatnonzero((self.wanted.tier == tier) & self.is_first)
        lacks = self.need[there] @ sets.holds.T - self.room[tier][there]
        at, number = np.nonzero(lacks > NOTHING)
        if not len(at):
            return
        lacking, place = lacks[at, number], there[at]
        row, release = np.nonzero(sets.holds[number])
        brings = np.minimum(lacking[row], self.need[place[row], release])
        rows = self.program.rows(len(at), Kind.OTHER, lower=lacking)
        units = (self.unit / self.alike)[place[row]]
        self._put_there(rows[row], parcels[place[row], release], brings * units)
        self._put_there(rows[row], air[place[row], release], self.covered[place[row], release])
        self._whole_cuts(place, number, sets.holds, lacking, parcels, air, math.inf)
        if (disks != parcels).any():
            self._whole_cuts(place, number, sets.holds, lacking, disks, air, self.disk_gb)

    def _whole_cuts(
        self,
        place: Ints,
        number: Ints,
        holds: Bools,
        lacking: Floats,
        counts: Ints,
        air: Ints,
        most: float,
    ) -> None:
        """Say that half a parcel is none: the air brings so much that some parcels are enough, or there is one more.

        Args:
            place: First places of groups, (cuts).
            number: The set of each cut, (cuts).
            holds: Releases of each set, (sets, R).
            lacking: GB that links lack for a set, (cuts).
            counts: Columns of parcels, or of disks, (S, R).
            air: Columns, (S, R).
            most: GB that one of them holds.
        """
        need = np.where(holds[number], self.need[place], 0.0)
        most = min(most, float(need.max()))
        parts = np.arange(math.ceil(need.max() / most - NOTHING))
        pieces = np.clip(need[..., None] - parts * most, 0.0, most).reshape(len(place), -1)
        brought = np.cumsum(-np.sort(-pieces, axis=1), axis=1)
        # What is still lacking after the largest parcel, the two largest, and so on.
        left = lacking[:, None] - np.column_stack((np.zeros(len(place)), brought[:, :-1]))
        rows = self.program.rows(
            len(place), Kind.OTHER, lower=(left > NOTHING).sum(axis=1).astype(float)
        )
        cut, release = np.nonzero(holds[number])
        columns = counts[place[cut], release]
        self._put_there(rows[cut], columns, (self.unit / self.alike)[place[cut]])
        # Places of one class lack the same and are helped by the same broadcast: one decision for all of them.
        under_sky: Bools = np.any(np.where(holds[number], air[place], -1) >= 0, axis=1)
        cut, level = np.nonzero((left > NOTHING) & under_sky[:, None])
        alike = np.column_stack((
            self.wanted.site_class[place[cut]], number[cut], level, left[cut, level].round(6),
        ))  # fmt: skip
        _keys, first, group = np.unique(alike, axis=0, return_index=True, return_inverse=True)
        is_enough = self.program.columns(len(first), 0.0, upper=1.0, is_integer=True)
        self.program.put(rows[cut], is_enough[group.ravel()], 1.0)
        rows = self.program.rows(len(first), Kind.OTHER, lower=0.0)
        self.program.put(rows, is_enough, -left[cut[first], level[first]])
        row, release = np.nonzero(holds[number[cut[first]]])
        example = place[cut[first[row]]]
        self._put_there(rows[row], air[example, release], self.covered[example, release])

    def _overlaps(self, on_air: Ints, air: Ints, parcels: Ints) -> None:
        """Say that what is broadcast spares the links of those places only that get no parcel.

        Where some places of a group get one, the mean would count the broadcast twice for them. What places without a
        parcel have of it is the product of their share and of what is on the air; with bundles put into a few chunks it
        is written down by its envelope (McCormick, 1976), which is exact for chunks that are on the air as a whole, or
        not at all.
        """
        wanted, program = self.wanted, self.program
        mixes = self.is_first[:, None] & (self.unit < self.alike)[:, None]
        place, release = np.nonzero(mixes & (air >= 0) & (parcels >= 0) & (self.need > 0))
        if not len(place):
            return
        chunk = self._chunks(on_air)
        count = int(chunk.max()) + 1
        bundle = np.flatnonzero(chunk >= 0)
        size: Floats = np.bincount(chunk[bundle], wanted.size[bundle] / GB, count).astype(float)
        aired = program.columns(count, 0.0, upper=size)
        rows = program.rows(count, Kind.OTHER, upper=0.0)
        program.put(rows, aired, 1.0)
        program.put(rows[chunk[bundle]], on_air[bundle], -wanted.size[bundle] / GB)

        # Bundles of a chunk are of one release and wanted by the same places.
        example = bundle[np.unique(chunk[bundle], return_index=True)[1]]
        is_of = wanted.release[example] == release[:, None]
        row, which = np.nonzero(is_of & wanted.wants[wanted.site_class[place]][:, example])
        spared = program.columns(len(row), 0.0)
        rows = program.rows(len(row), Kind.OTHER, upper=0.0)
        program.put(rows, spared, 1.0)
        program.put(rows, aired[which], -1.0)
        part = (self.unit / self.alike)[place]
        rows = program.rows(len(row), Kind.OTHER, upper=size[which])
        program.put(rows, spared, 1.0)
        program.put(rows, parcels[place, release][row], size[which] * part[row])
        need = self.need[place, release]
        rows = program.rows(len(place), Kind.OTHER, lower=need)
        self._put_there(rows, self.link[place, release], 1.0)
        program.put(rows, parcels[place, release], need * part)
        program.put(rows[row], spared, self.covered[place, release][row])

    def _chunks(self, on_air: Ints) -> Ints:
        """A number for each bundle that may be broadcast, -1 for others: alike bundles that go together, (B)."""
        wanted = self.wanted
        choices = np.unique(wanted.wants[wanted.site_class], axis=0)
        kinds, kind = np.unique(np.vstack((wanted.release, choices)), axis=1, return_inverse=True)
        kind = kind.ravel()
        chunk = np.full(len(on_air), -1)
        allowed = np.where(on_air >= 0, wanted.size, 0.0)
        most = allowed.sum() / CHUNKS
        begin = 0
        for number in range(kinds.shape[1]):
            there = np.flatnonzero((kind == number) & (on_air >= 0))
            if len(there):
                volume = np.cumsum(wanted.size[there]) - wanted.size[there] / 2
                parts = max(1, round(float(wanted.size[there].sum() / most)))
                part = (volume / wanted.size[there].sum() * parts).astype(int)
                chunk[there] = begin + np.unique(part, return_inverse=True)[1]
                begin = int(chunk[there].max()) + 1
        return chunk

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

    def _satellite(self) -> tuple[Ints, int, Ints]:
        wanted, rates, program = self.wanted, self.rates, self.program
        on_air = np.full(len(wanted.size), -1)
        satellite = satellite_of(self.scenario)
        if satellite is None or not self.is_sky_open:
            return on_air, -1, self.none
        names = [release.name for release in self.scenario.releases]
        allowed = np.array([not satellite.releases or name in satellite.releases for name in names])

        bundle = np.flatnonzero(allowed[wanted.release])
        on_air[bundle] = program.columns(len(bundle), 0.0, upper=1.0, is_integer=True)
        price = (self.costs.satellite_per_mbit_month or 0.0) * months_of(self.scenario)
        most = satellite.rate / GB / MBIT_GB_S
        (steps,) = program.columns(1, price * LEASE_STEP_MBIT_S, is_integer=True)
        (rate,) = program.columns(1, 0.0, upper=math.inf if self.is_elastic else most)
        (leased,) = program.rows(1, Kind.OTHER, upper=0.0)
        program.put(leased, rate, 1.0)
        program.put(leased, steps, -LEASE_STEP_MBIT_S)

        sets = hall(wanted.released_s, wanted.deadline_s[COUNTY])
        self.sets[Kind.AIR] = [sets]
        seconds = amount(rates.air[None], rates.first_hour, sets.begin_s, sets.end_s)[0]
        rows = program.rows(len(seconds), Kind.AIR, upper=0.0, set_number=np.arange(len(seconds)))
        program.put(rows, rate, -seconds * MBIT_GB_S)
        self.air_mbit_s = (
            sets.holds[:, wanted.release] * self.passes * wanted.size / GB
            / np.maximum(seconds * MBIT_GB_S, NOTHING)[:, None]
        )  # fmt: skip
        at, which = np.nonzero(sets.holds[:, wanted.release[bundle]])
        program.put(rows[at], on_air[bundle[which]], self.passes * wanted.size[bundle[which]] / GB)
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
        columns = np.where(self.covered > 0, air[choice.ravel()], -1)
        return on_air, int(steps), columns

    # Disks.

    def _disks(self, by_link: Floats) -> tuple[Ints, Ints, Ints]:
        wanted, program, costs = self.wanted, self.program, self.costs
        disks = disks_of(self.scenario)
        if disks is None:
            return self.none, self.none, self.none
        latest = latest_s(wanted, disks)
        leave = departures_s(self.scenario, disks)
        is_to = np.array([TIER_LABELS[tier] in disks.to for tier in range(COUNTY + 1)])
        chances = (leave >= wanted.released_s[:, None]) & (leave <= latest[..., None])
        possible = chances.any(axis=-1) & is_to[:, None] & (disks.batch > 0)
        is_possible = (self.need > 0) & possible[wanted.tier]
        place, release = np.nonzero(is_possible & self.is_first[:, None])
        need, alike = self.need[place, release], self.alike[place].astype(np.float64)
        unit = self.unit[place]
        units = alike / unit
        self.disk_gb = size = disks.size / GB
        # What can't come by any other way has to be on disks: integers that are known beforehand.
        least = need - by_link[place, release]
        if self.is_sky_open:
            least -= self.covered[place, release] * need
        least = np.zeros(len(need)) if self.is_elastic else np.maximum(least, 0.0)
        trip, parcel_price = (
            float(one or 0.0) * sent(disks) for one in (costs.disk_trip, costs.parcel)
        )
        most = np.ceil(need / size - NOTHING)
        is_one = most <= 1
        holds = np.maximum(FILL * size, need / most)

        disk, count, parcels = self.none.copy(), self.none.copy(), self.none.copy()
        least_costs: Floats = LEAST_COST * alike
        disk[place, release] = volume = program.columns(len(place), least_costs, upper=need)
        count[place, release] = number = program.columns(
            len(place),
            (trip + np.where(is_one, parcel_price, 0.0)) * unit,
            lower=np.ceil(least / holds - NOTHING) * units,
            upper=most * units,
            is_integer=True,
        )
        many = np.flatnonzero(~is_one)
        parcel = number.copy()
        parcel[many] = program.columns(
            len(many),
            parcel_price * unit[many],
            lower=np.where(least[many] > NOTHING, units[many], 0.0),
            upper=units[many],
            is_integer=True,
        )
        parcels[place, release] = parcel
        rows = program.rows(len(place), Kind.OTHER, upper=0.0)
        program.put(rows, volume, units)
        program.put(rows, parcel, -need)
        # A parcel's last disk isn't full.
        need, holds, others = need[many], holds[many], most[many] - 1
        last = need - others * holds
        rows = program.rows(2 * len(many), Kind.OTHER, upper=0.0).reshape(2, -1)
        program.put(rows, volume[many], units[many])
        program.put(rows[0], number[many], -holds)
        program.put(rows[1], number[many], -last)
        program.put(rows[1], parcel[many], others * (last - holds))
        rows = program.rows(len(many), Kind.OTHER, lower=0.0)
        program.put(rows, number[many], 1.0)
        program.put(rows, parcel[many], -1.0)

        item = wanted.tier[place] * wanted.release_count + release
        self._batches(disks, leave, item, number, unit, latest, possible)
        if costs.disk:
            self._stock(item, number, unit)
        return disk[self.first], count[self.first], parcels[self.first]

    def _batches(
        self,
        disks: Disks,
        leave: Floats,
        item: Ints,
        number: Ints,
        unit: Ints,
        latest: Floats,
        possible: Bools,
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
        self.program.put(rows[at], number[which], unit[which].astype(float))

    def _stock(self, item: Ints, number: Ints, unit: Ints) -> None:
        """Disks are bought for the most that are away at once: from a release to its deadline."""
        (stock,) = self.program.columns(1, self.costs.disk or 0.0)
        released = np.tile(self.wanted.released_s, COUNTY + 1)
        moments = np.unique(released)[:, None]
        is_away = (released <= moments) & (moments < self.wanted.deadline_s.ravel())
        rows = self.program.rows(len(moments), Kind.OTHER, upper=0.0)
        self.program.put(rows, int(stock), -1.0)
        at, which = np.nonzero(is_away[:, item])
        self.program.put(rows[at], number[which], unit[which].astype(float))

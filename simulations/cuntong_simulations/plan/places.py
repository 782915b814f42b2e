"""From groups of alike places to places: who gets the parcels, and how much has to be on them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from cuntong_simulations.scenario.scenario import Costs, Disks

from .capacity import Bools, Floats, Hall
from .carriers import sent
from .demand import Demand
from .problem import FILL, GB, NOTHING, Problem
from .program import Ints, Kind


@dataclass(frozen=True, slots=True)
class _Group:
    """Alike places: R releases, H sets of releases that a link has to bring within an interval.

    Attributes:
        need: GB of each release, (R).
        holds: (H, R).
        room: GB, (H).
        size: GB on a disk.
        prices: Of a disk on its way, and of a parcel.
    """

    need: Floats
    holds: Bools
    room: Floats
    size: float
    prices: tuple[float, float]

    def lacking(self, left: Floats) -> Floats:
        """GB by which the link is too small for each set, (places, H); `left`: to come by it, (places, R)."""
        return left @ self.holds.T - self.room

    def most(self, count: Ints) -> Floats:
        """GB that so many disks bring."""
        is_all = count * self.size >= self.need * (1 - NOTHING)
        return np.where(is_all, self.need, count * self.size * FILL)


def settle(
    problem: Problem, wanted: Demand, disks: Disks, costs: Costs, x: Floats
) -> tuple[Ints, Floats]:
    """Give each place its disks.

    A group's links are as full in the mean as the program says; a place gets so many disks that its own link can bring
    the rest. As a rule these are the group's; where whole disks don't come out even, a place gets one more.

    Args:
        problem: Solved.
        wanted: What it was built from.
        disks: Of the scenario.
        costs: Likewise.
        x: The solution.

    Returns:
        How many disks each place gets of each release, and the GB that have to be on them, both (S, R).
    """
    count = np.zeros(problem.need.shape, np.int64)
    volume = np.zeros(problem.need.shape)
    again = sent(disks)
    prices = (float(costs.disk_trip or 0.0) * again, float(costs.parcel or 0.0) * again)
    has_disks = problem.disks >= 0
    x = np.append(x, 0.0)
    order = np.argsort(problem.first, kind="stable")
    begins = np.flatnonzero(np.diff(problem.first[order], prepend=-1))
    for places in np.split(order, begins[1:]):
        first = int(places[0])
        if not has_disks[first].any():
            continue
        tier = int(wanted.tier[first])
        sets: Hall = problem.sets[Kind.DOWN][tier]
        group = _Group(problem.need[first], sets.holds, problem.room[tier][first], disks.size / GB, prices)  # fmt: skip
        unit = int(problem.unit[first])
        number = np.rint(x[problem.disks[first]]).astype(np.int64) * unit
        if not number.any():
            continue
        parcels = np.rint(x[problem.parcels[first]]).astype(np.int64) * unit
        at_least = x[problem.disk[first]] * len(places)
        count[places] = _shared_out(group, number, parcels, len(places))
        _mended(group, count, places, has_disks[first])
        volume[places] = _filled(group, count[places], at_least)
    return count, volume


def _shared_out(group: _Group, number: Ints, parcels: Ints, places: int) -> Ints:
    """Disks of each release to those places whose links lack most, (places, R)."""
    count = np.zeros((places, len(number)), np.int64)
    for release in np.argsort(-group.need, kind="stable").tolist():
        chosen = int(parcels[release])
        if not chosen:
            continue
        sets = group.holds[:, release]
        lacking = group.lacking(group.need - group.most(count))[:, sets].max(axis=1, initial=0.0)
        most_first = np.lexsort((count.sum(axis=1), -lacking.round(6)))[:chosen]
        each, more = divmod(int(number[release]), chosen)
        count[most_first, release] = each
        count[most_first[:more], release] += 1
    return count


def _mended(group: _Group, count: Ints, places: Ints, has_disks: Bools) -> None:
    """One more disk, the one that brings most for its price, wherever the link is too small for the rest."""
    trip, parcel = group.prices
    while True:
        left = group.need - group.most(count[places])
        lacking = group.lacking(left).max(axis=1)
        lacking = np.where((left[:, has_disks] > NOTHING).any(axis=1), lacking, 0.0)
        short = np.flatnonzero(lacking > 1e-6 * max(1.0, float(group.need.max())))
        if not len(short):
            return
        for place in short.tolist():
            sets = group.lacking(left[place]) > NOTHING
            helps = group.holds[sets].any(axis=0) & has_disks
            brings = np.minimum(np.minimum(left[place], group.size), lacking[place]) * helps
            price = trip + np.where(count[places[place]] > 0, 0.0, parcel)
            if not brings.any():
                return
            count[places[place], int(np.argmax(brings / np.maximum(price, NOTHING)))] += 1


def _filled(group: _Group, count: Ints, at_least: Floats) -> Floats:
    """GB that have to be on each place's disks: its part of the group's, and what its link can't bring."""
    most = group.most(count)
    part = at_least / np.maximum(most.sum(axis=0), NOTHING)
    volume: Floats = most * np.minimum(part, 1.0)
    for number, holds in enumerate(group.holds):
        lacking = np.maximum(group.lacking(group.need - volume)[:, number], 0.0)
        spare = (most - volume) * holds
        share = lacking / np.maximum(spare.sum(axis=1), NOTHING)
        volume += spare * np.minimum(share, 1.0)[:, None]
    return volume

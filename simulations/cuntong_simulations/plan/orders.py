"""From volumes to parcels: which bundles go onto a place's disks, and with which batch they leave."""

from __future__ import annotations

import math

import numpy as np

from cuntong_simulations.scenario.scenario import Disks, Scenario

from .capacity import DAY_S, Bools, Floats
from .carriers import departures_s, latest_s
from .demand import Demand
from .problem import NOTHING
from .program import Ints
from .result import Order

FINENESS = 20_000
"""Sizes are rounded up to such a part of the room on a parcel's disks."""


def orders(
    scenario: Scenario,
    wanted: Demand,
    disks: Disks,
    count: Ints,
    volume: Floats,
    arrives: Bools,
) -> tuple[Order, ...]:
    """Make parcels.

    Disks are filled: what fits on them needs no link. What is last in the queue comes first onto them, since the link will
    have fetched what is first by the time they arrive; what comes from the sky goes only where there is room.

    Args:
        scenario: Says when batches leave.
        wanted: By place and release.
        disks: Of the scenario.
        count: How many disks each place gets for each release, (S, R).
        volume: Bytes that have to be on them at least, (S, R).
        arrives: Which bundles each place gets from the sky, (S, B).

    Returns:
        By departure, and in each by node; a parcel is split between batches only where none has room for it. What
        doesn't fit into any batch leaves after the last: the plan keeps to batches, so this is a few that were split.
    """
    latest = latest_s(wanted, disks)
    place, release = np.nonzero(count)
    urgency = np.lexsort((-volume[place, release], latest[wanted.tier[place], release]))
    room: dict[float, int] = dict.fromkeys(departures_s(scenario, disks).tolist(), disks.batch)
    found: list[Order] = []
    for number in urgency.tolist():
        site, of = int(place[number]), int(release[number])
        chosen, needed = _contents(wanted, disks, site, of, count, volume, arrives)
        last = latest[wanted.tier[site], of]
        node, parts = int(wanted.node[site]), _departures(room, needed, wanted.released_s[of], last)
        # Of a split parcel all counts as had when its last part is there.
        found += [Order(node, of, (), at / DAY_S, parcel) for at, parcel in parts[:-1]]
        found += [Order(node, of, chosen, at / DAY_S, parcel) for at, parcel in parts[-1:]]
    return tuple(sorted(found, key=lambda order: (order.day, order.node)))


def _contents(
    wanted: Demand,
    disks: Disks,
    site: int,
    release: int,
    count: Ints,
    volume: Floats,
    arrives: Bools,
) -> tuple[tuple[int, ...], int]:
    """Bundles for one parcel, and how many disks they need."""
    is_wanted = wanted.wants[wanted.site_class[site]] & (wanted.release == release)
    is_in_sky = arrives[site] & is_wanted
    bundles = np.concatenate((
        np.flatnonzero(is_wanted & ~is_in_sky)[::-1], np.flatnonzero(is_in_sky)[::-1],
    ))  # fmt: skip
    number = int(count[site, release])
    room, needed = number * disks.size * (1 + NOTHING), float(volume[site, release])
    chosen: list[int] = []
    left = room
    for bundle in bundles.tolist():
        size = float(wanted.size[bundle])
        if size <= left:
            chosen.append(bundle)
            left -= size
    if wanted.size[chosen].sum() < needed * (1 - NOTHING):
        chosen = [int(bundles[one]) for one in fullest(wanted.size[bundles], room)]
    # A bundle goes onto disks as a whole, though the plan may have meant a part of it.
    total = float(wanted.size[chosen].sum())
    for bundle in bundles.tolist():
        if total >= needed * (1 - NOTHING):
            break
        if bundle not in chosen:
            chosen.append(bundle)
            total += float(wanted.size[bundle])
    return tuple(sorted(chosen)), max(number, math.ceil(total / disks.size - NOTHING))


def fullest(sizes: Floats, room: float) -> list[int]:
    """Which of these fill the room best: the subset sum, to a part in `FINENESS` (Martello and Toth, 1990, 4.2)."""
    units = np.ceil(sizes / room * FINENESS - NOTHING).astype(int).tolist()
    within = (1 << (FINENESS + 1)) - 1
    # A bit for each sum that can be reached with the first sizes.
    reached = [1]
    for unit in units:
        reached.append((reached[-1] | reached[-1] << unit) & within)
    left = reached[-1].bit_length() - 1
    chosen = []
    for number in range(len(units) - 1, -1, -1):
        if not reached[number] >> left & 1:
            chosen.append(number)
            left -= units[number]
    return chosen


def _departures(
    room: dict[float, int], needed: int, released_s: float, latest_s: float
) -> list[tuple[float, int]]:
    """When the disks of a parcel leave; takes their room."""
    times = [at for at in room if released_s <= at <= latest_s]
    for at in times:
        if room[at] >= needed:
            room[at] -= needed
            return [(at, needed)]
    found = []
    for at in [*times, *(at for at in room if at > latest_s)]:
        part = min(room[at], needed)
        if part:
            room[at] -= part
            needed -= part
            found.append((at, part))
        if not needed:
            break
    return found

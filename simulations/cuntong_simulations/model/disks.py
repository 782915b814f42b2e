"""When disks arrive (MODEL.md 7 and 12): orders queue for batches, travel, get lost and are sent again."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cuntong_protocol.divisions import TIER_LABELS
from cuntong_simulations.scenario.scenario import Disks, Scenario

from .chance import chance
from .country import Bundles, Country
from .parcel import Parcel

DRAW_TRANSIT = 1 << 33
DRAW_LOSS = 1 << 34
ROUNDING = 1e-9
"""Of a disk: weights are fractions."""
ATTEMPTS = 64
"""Of one order; nothing is lost so often."""
DAY_S = 86400.0


@dataclass(frozen=True, slots=True)
class Arrivals:
    """Orders in the order in which they are copied in.

    Attributes:
        node: Where each goes.
        arrived_s: Seconds after the start.
        brings: By order and bundle.
        copy_bytes_s: How fast a place copies.
    """

    node: NDArray[np.int32]
    arrived_s: NDArray[np.float64]
    brings: NDArray[np.uint8]
    copy_bytes_s: float


def arrivals(
    scenario: Scenario,
    country: Country,
    bundles: Bundles,
    wants: NDArray[np.bool_],
    parcels: Sequence[Parcel] | None = None,
) -> Arrivals:
    """What leaves by post, or what the scenario's `disks.releases` order.

    Args:
        scenario: It says what is sent, and to whom.
        country: Where to.
        bundles: What.
        wants: By node's class and bundle.
        parcels: What leaves; None: what the scenario says.
    """
    disks = scenario.disks
    if disks is not None and parcels is not None:
        return _posted(disks, scenario.run.seed, country, len(bundles.size), parcels)
    orders: list[tuple[float, int, NDArray[np.uint8], int]] = []
    if disks is not None:
        tiers = [TIER_LABELS.index(label) for label in disks.to]
        places = np.flatnonzero(np.isin(country.tier, tiers))
        for number, release in enumerate(scenario.releases):
            if release.name not in disks.releases:
                continue
            of_release = bundles.release == number
            for node in places.tolist():
                brings = (wants[country.node_class[node]] & of_release).astype(np.uint8)
                brings &= _is_below(country, bundles, node)
                size = float(bundles.size[brings > 0].sum())
                if size > 0:
                    count = math.ceil(size / disks.size)
                    orders.append((release.day * DAY_S, node, brings, count))
    orders.sort(key=lambda order: order[:2])
    arrived = _arrivals(disks, scenario.run.seed, country, orders) if disks else []
    return Arrivals(
        np.array([order[1] for order in orders], np.int32),
        np.array(arrived, np.float64),
        np.array([order[2] for order in orders], np.uint8).reshape(-1, len(bundles.size)),
        float(disks.copy_rate) if disks else 0.0,
    )


def _posted(
    disks: Disks, seed: int, country: Country, bundle_count: int, parcels: Sequence[Parcel]
) -> Arrivals:
    brings = np.zeros((len(parcels), bundle_count), np.uint8)
    numbers = _numbers([parcel.node for parcel in parcels])
    for number, parcel in enumerate(parcels):
        brings[number, list(parcel.bundles)] = 1
    return Arrivals(
        np.array([parcel.node for parcel in parcels], np.int32),
        np.array(
            [
                _arrival(disks, seed, int(country.identity[parcel.node]), number, parcel.leaves_s)
                for number, parcel in zip(numbers, parcels, strict=True)
            ],
            np.float64,
        ),
        brings,
        float(disks.copy_rate),
    )


def _is_below(country: Country, bundles: Bundles, node: int) -> NDArray[np.uint8]:
    above = set()
    while node > 0:
        node = int(country.parent[node])
        above.add(node)
    return np.array([publisher in above for publisher in bundles.publisher.tolist()], np.uint8)


def _arrivals(
    disks: Disks,
    seed: int,
    country: Country,
    orders: list[tuple[float, int, NDArray[np.uint8], int]],
) -> list[float]:
    """When the disks of each order arrive; infinite where no batch takes any."""
    if not disks.batch:
        return [math.inf] * len(orders)
    found = []
    numbers = _numbers([order[1] for order in orders])
    departure, left = 0, float(disks.batch)

    def take(needed: float) -> None:
        nonlocal departure, left
        while needed > left + ROUNDING:
            needed -= left
            departure, left = departure + 1, float(disks.batch)
        left -= needed

    for number, (ordered_s, node, _brings, count) in zip(numbers, orders, strict=True):
        earliest = math.ceil(ordered_s / disks.leave)
        if departure < earliest:
            departure, left = earliest, float(disks.batch)
        # In a sample a place stands for several that order one after the other: it leaves with the middle one.
        weight = float(country.weight[node])
        take(count * (weight + 1) / 2)
        leaves = departure * float(disks.leave)
        take(count * (weight - 1) / 2)
        found.append(_arrival(disks, seed, int(country.identity[node]), number, leaves))
    return found


def _numbers(nodes: Sequence[int]) -> list[int]:
    """The number of each order among those of its place: so in a sample lots fall as in the whole country."""
    count: Counter[int] = Counter()
    found = []
    for node in nodes:
        found.append(count[node])
        count[node] += 1
    return found


def _arrival(disks: Disks, seed: int, identity: int, number: int, leaves: float) -> float:
    for attempt in range(ATTEMPTS):
        draw = ATTEMPTS * number + attempt
        if float(chance(seed, identity, DRAW_LOSS + draw)) >= disks.lost:
            lot = float(chance(seed, identity, DRAW_TRANSIT + draw))
            return leaves + disks.transit_least + lot * (disks.transit_most - disks.transit_least)
        leaves += disks.notice
    return math.inf

"""Places of a country that nobody has listed: how many lie below which, and their codes (MODEL.md 2)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cuntong_protocol.divisions import GROUP_LENGTHS, TIER_LABELS
from cuntong_protocol.texts import N_
from cuntong_simulations.scenario.errors import ScenarioError
from cuntong_simulations.scenario.places import Listed, check_tiers, listed_places
from cuntong_simulations.scenario.rows import broken
from cuntong_simulations.scenario.scenario import Scenario

from .chance import DRAW_PARENT, chance
from .drawn import draw_classes
from .site_class import SiteClass

PROVINCES = (
    11, 12, 13, 14, 15, 21, 22, 23, 31, 32, 33, 34, 35, 36, 37, 41, 42, 43, 44, 45, 46, 50, 51, 52, 53, 54,
    61, 62, 63, 64, 65,
    # Xinjiang's Production and Construction Corps, as the statistics number it.
    66,
)  # fmt: skip
"""The codes of GB/T 2260 that generated provinces get first; those beyond get numbers that it leaves free."""
UNITS = (10**10, 10**8, 10**6, 10**3, 1)
"""What a one in each group of a code is worth: province, city, county, township, village."""


def parents_of(count: int, parents: int, spread: float, seed: int, tier: int) -> NDArray[np.int64]:
    """The parent, 0 to `parents - 1`, of each of `count` places, ascending.

    The share `spread` of them falls wherever the lot falls; the others are dealt out evenly.
    """
    drawn = round(count * spread)
    even = count - drawn
    below = np.bincount(np.arange(even) * parents // max(even, 1), minlength=parents)
    if drawn:
        # The tier keeps the draws of different tiers apart: identities aren't known yet.
        lots = chance(seed, np.arange(drawn), DRAW_PARENT + (tier << 33))
        below = below + np.bincount((lots * parents).astype(np.int64), minlength=parents)
    return np.repeat(np.arange(parents), below)


def codes_below(parent_code: NDArray[np.int64], parent: NDArray[np.int64], tier: int) -> NDArray[np.int64]:  # fmt: skip
    """Codes for the children of some places: numbered within each from 1.

    Args:
        parent_code: Codes of the parents.
        parent: Index into it of each child, ascending.
        tier: Of the children, 1 to 5.

    Raises:
        ScenarioError: `sim.too-many-below`: a place has more than its codes have numbers.
    """
    most = 10 ** GROUP_LENGTHS[tier - 1] - 1
    first = np.searchsorted(parent, np.arange(len(parent_code)))
    number = np.arange(len(parent)) - first[parent] + 1
    if len(number) and number.max() > most:
        raise ScenarioError(
            "sim.too-many-below",
            N_("One place would have {count} places right below it; division codes allow {most}."),
            count=int(number.max()),
            most=most,
        )
    if tier == 1:
        free = [code for code in range(99, 0, -1) if code not in PROVINCES]
        number = np.array(sorted([*PROVINCES, *free][: len(number)]), dtype=np.int64)
    found: NDArray[np.int64] = parent_code[parent] + number * UNITS[tier - 1]
    return found


@dataclass(frozen=True, slots=True)
class Generated:
    """All places of a country, breadth first; the arrays as in `Country`.

    Attributes:
        depth: 0 is the nation; places of one tier may have different depths where real ones lack a tier.
    """

    classes: tuple[SiteClass, ...]
    code: NDArray[np.int64]
    tier: NDArray[np.int8]
    depth: NDArray[np.int8]
    parent: NDArray[np.int32]
    province: NDArray[np.int32]
    node_class: NDArray[np.int32]


def generate(scenario: Scenario) -> Generated:
    """Put the country together: codes, the tree, then what is drawn for each place.

    Raises:
        ScenarioError: as `codes_below`, `listed_places`; a listed place has nobody above it.
    """
    listed = listed_places(scenario)
    code, tier, row = _places(scenario, listed)
    order = np.argsort(code)
    code, tier, row = code[order], tier[order], row[order]
    parent = _parents(scenario, code, tier, row, listed)
    depth = np.zeros(len(code), dtype=np.int8)
    for number in range(1, 6):
        here = np.flatnonzero(tier == number)
        depth[here] = depth[parent[here]] + 1
    # Subtrees are ranges of codes, so by depth and code children of one place follow each other.
    order = np.argsort(depth, kind="stable")
    place = np.empty(len(order), dtype=np.int32)
    place[order] = np.arange(len(order), dtype=np.int32)
    code, tier, row, depth = code[order], tier[order], row[order], depth[order]
    parent = np.where(parent[order] < 0, -1, place[parent[order]])
    province = np.zeros(len(code), dtype=np.int32)
    for level in range(1, int(depth.max()) + 1):
        here = np.flatnonzero(depth == level)
        province[here] = np.where(tier[here] == 1, here, province[parent[here]])
    classes, node_class = draw_classes(scenario, tier, row, listed)
    return Generated(classes, code, tier, depth, parent.astype(np.int32), province, node_class)


def _places(
    scenario: Scenario, listed: Listed | None
) -> tuple[NDArray[np.int64], NDArray[np.int8], NDArray[np.int64]]:
    """Codes, tiers, and rows in the file (-1: generated) of all places, tier by tier."""
    code = {0: np.zeros(1, dtype=np.int64)}
    row = {0: np.full(1, -1, dtype=np.int64)}
    listed_tiers: set[int] = set()
    if listed is not None:
        check_tiers(scenario, listed)
        listed_tiers = {int(number) for number in np.unique(listed.tier)}
    above = 0
    for number in range(6):
        given = next((one for one in scenario.tiers if TIER_LABELS[number] == one.tier), None)
        if listed is not None and number in listed_tiers:
            row[number] = np.flatnonzero(listed.tier == number)
            code[number] = listed.code[row[number]]
        elif number and given is not None and given.count:
            parents = code[above]
            parent = parents_of(given.count, len(parents), given.spread, scenario.run.seed, number)
            code[number] = codes_below(parents, parent, number)
            row[number] = np.full(given.count, -1, dtype=np.int64)
        if number in code:
            above = number
    tier = [np.full(len(codes), number, dtype=np.int8) for number, codes in code.items()]
    return np.concatenate([*code.values()]), np.concatenate(tier), np.concatenate([*row.values()])


def _parents(
    scenario: Scenario,
    code: NDArray[np.int64],
    tier: NDArray[np.int8],
    row: NDArray[np.int64],
    listed: Listed | None,
) -> NDArray[np.int64]:
    """The nearest place above by code that there is, as an index; codes are sorted, and the nation is the first."""
    known = {TIER_LABELS.index(one.tier) for one in scenario.tiers}
    parent = np.full(len(code), -1, dtype=np.int64)
    for above in range(4, -1, -1):
        open_ = np.flatnonzero((parent < 0) & (tier > above))
        unit = UNITS[above - 1] if above else 10**12
        place = code[open_] // unit * unit
        found = np.minimum(np.searchsorted(code, place), len(code) - 1)
        is_there = (code[found] == place) & (found != open_)
        parent[open_[is_there]] = found[is_there]
        if listed is None or above == 0 or above not in known:
            continue
        # A code that has digits for this tier names a place of this tier.
        coarser = UNITS[above - 2] if above > 1 else 10**12
        orphans = open_[~is_there & (place % coarser != 0)]
        if len(orphans):
            orphan = orphans[0]
            raise broken(
                listed.path,
                int(listed.line[row[orphan]]),
                N_("{file}, line {line}: above {code} there should be {parent}, but the file doesn't have it."),
                code=f"{code[orphan]:012}",
                parent=f"{code[orphan] // unit * unit:012}",
            )  # fmt: skip
    return parent

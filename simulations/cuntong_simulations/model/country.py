"""The country of a scenario as arrays (MODEL.md 2, 3, 10). Built by `build`; read by kernel, reference and planner."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cuntong_protocol.divisions import Tier, parse_division
from cuntong_simulations.scenario.scenario import Scenario

from .chance import DRAW_SAMPLE, chance
from .generate import Generated, generate
from .site_class import SiteClass

Ints = NDArray[np.int32]
Floats = NDArray[np.float64]
COUNTY_UNIT = 10**6
"""A county's code is that of a place in it without the last digits."""
__all__ = ["Bundles", "Country", "SiteClass", "build"]


@dataclass(frozen=True, slots=True)
class Country:
    """All places, breadth first: children of one place follow each other.

    Attributes:
        scenario: It is of.
        classes: The site classes that occur.
        parent: Of each node; -1 for the nation, which is node 0.
        first_child, child_count: Of each node; without children both are 0.
        node_class: Index into `classes`.
        tier: Of each node, 0 to 5.
        province: The node number of the province it lies in; the nation: 0.
        identity: Number in the whole country, sampled or not.
        weight: How many places it stands for.
        code: Division code of each node, as 12 digits in an integer.
    """

    scenario: Scenario
    classes: tuple[SiteClass, ...]
    parent: Ints
    first_child: Ints
    child_count: Ints
    node_class: Ints
    tier: NDArray[np.int8]
    province: Ints
    identity: NDArray[np.int64]
    weight: Floats
    code: NDArray[np.int64]

    @property
    def node_count(self) -> int:
        return len(self.parent)


@dataclass(frozen=True, slots=True)
class Bundles:
    """What is published, in the order in which the nation would rank it.

    Attributes:
        names: Unique: `<release>/<number>`, or the name in the release's file.
        release: Index into the scenario's releases.
        size: Bytes.
        priority: 0 to 9.
        released_s: Seconds after the start.
        deadline_s: By bundle and tier, seconds after the start; NaN: none.
        publisher: Node number.
        category, languages: Of each bundle; empty: as its release says.
    """

    names: tuple[str, ...]
    release: Ints
    size: Floats
    priority: Ints
    released_s: Floats
    deadline_s: Floats
    publisher: Ints
    category: tuple[str, ...] = ()
    languages: tuple[tuple[str, ...], ...] = ()


def build(scenario: Scenario, sample: float | None = None) -> Country:
    """The places of a scenario: listed in its file, the others generated.

    Args:
        scenario: Checked, as `load` gives it.
        sample: The share of the counties that is kept, with all below them (MODEL.md 10); None: all.

    Raises:
        ScenarioError: the file of places is broken; more places below one than codes can number.
    """
    made = generate(scenario)
    kept = np.arange(len(made.code))
    weight = np.ones(len(made.code))
    if sample is not None:
        weight = _sample_weights(scenario, made, sample)
        kept = np.flatnonzero(weight)
    number = np.full(len(made.code), -1, dtype=np.int32)
    number[kept] = np.arange(len(kept), dtype=np.int32)
    # Above what is kept everything is kept.
    parent = np.where(made.parent[kept] < 0, -1, number[made.parent[kept]]).astype(np.int32)
    child_count = np.bincount(parent[1:], minlength=len(kept)).astype(np.int32)
    first_child = np.zeros(len(kept), dtype=np.int32)
    # Backwards, so that the first one stays.
    first_child[parent[:0:-1]] = np.arange(len(kept) - 1, 0, -1, dtype=np.int32)
    occurring, node_class = np.unique(made.node_class[kept], return_inverse=True)
    return Country(
        scenario=scenario,
        classes=tuple(made.classes[one] for one in occurring),
        parent=parent,
        first_child=first_child,
        child_count=child_count,
        node_class=node_class.astype(np.int32),
        tier=made.tier[kept],
        province=number[made.province[kept]],
        identity=kept.astype(np.int64),
        weight=weight[kept],
        code=made.code[kept],
    )


def _sample_weights(scenario: Scenario, made: Generated, share: float) -> Floats:
    """What each node stands for when whole counties are drawn; 0: it isn't in the sample."""
    counties = np.flatnonzero(made.tier == Tier.COUNTY)
    link = np.array([made.classes[one].link_number for one in made.node_class[counties]])
    stratum = made.province[counties].astype(np.int64) * 1000 + link
    # Whoever publishes has to be there: a stratum of its own.
    publishers = [int(parse_division(release.publisher)) for release in scenario.releases]
    county_of = made.code[counties] // COUNTY_UNIT
    publishes = np.isin(county_of, np.array(publishers, dtype=np.int64) // COUNTY_UNIT)
    lots = chance(scenario.run.seed, counties, DRAW_SAMPLE)
    order = np.lexsort((lots, stratum, publishes))
    _, first, count = np.unique(
        np.stack((publishes[order], stratum[order])), axis=1, return_index=True, return_counts=True
    )
    place = np.arange(len(order)) - np.repeat(first, count)
    chosen = np.maximum(np.round(count * share), 1)
    weight_of = np.repeat(count / chosen, count)
    is_chosen = place < np.repeat(chosen, count)
    weight_of[publishes[order]] = 1.0
    is_chosen |= publishes[order]
    weight = np.ones(len(made.code))
    weight[counties[order]] = np.where(is_chosen, weight_of, 0.0)
    for depth in range(1, int(made.depth.max()) + 1):
        nodes = np.flatnonzero((made.depth == depth) & (made.tier > Tier.COUNTY))
        weight[nodes] = weight[made.parent[nodes]]
    return weight

"""Who needs what by when: counties and the places above them, release by release (research: model B, collapsed).

Which bundle is meant plays a part only on the satellite. For links and disks a release is a volume: what a county lacks
of it can be split between them in any way, since pieces of one bundle may come by both.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cuntong_protocol.divisions import TIER_LABELS
from cuntong_protocol.texts import N_
from cuntong_simulations.model.country import Bundles, Country
from cuntong_simulations.scenario.scenario import Scenario

from .capacity import DAY_S, Bools, Floats
from .errors import PlanError
from .inputs import Case

COUNTY = TIER_LABELS.index("county")
LEAST_TIME_S = 3600.0
"""A margin never brings a deadline nearer to the release than one step of the model."""

Ints = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Demand:
    """S places, R releases, B bundles, C site classes.

    Attributes:
        node: Node number of each place, shape (S); counties and places above, without the nation, in the order of nodes.
        site_class: Of each place, (S).
        tier: Of each place, (S): 1 to 3.
        source: Whom it fetches from: an index into the places, or -1 for the nation, (S).
        wants: (C, B).
        size: Of each bundle, (B).
        release: Of each bundle, (B).
        need: Bytes, (S, R).
        kept: Bytes that it keeps for itself, (S): what its store has to hold.
        released_s: (R).
        deadline_s: By tier, (4, R), after the margin; at the latest the end of the run.
    """

    node: Ints
    site_class: Ints
    tier: Ints
    source: Ints
    wants: Bools
    size: Floats
    release: Ints
    need: Floats
    kept: Floats
    released_s: Floats
    deadline_s: Floats

    @property
    def site_count(self) -> int:
        return len(self.node)

    @property
    def release_count(self) -> int:
        return len(self.released_s)


def demand(case: Case, margin_s: float | Floats = 0.0) -> Demand:
    """Collect what the plan has to bring.

    A tier without a deadline of its own has what counties need when they need it, since they get it through it; so has
    one whose deadline is later than theirs.

    Args:
        case: What is planned for.
        margin_s: By so much deadlines are brought forward, of each release or of all.

    Raises:
        PlanError: `sim.plan-no-counties`.
    """
    scenario, country, bundles, wants = case.scenario, case.country, case.bundles, case.wants
    is_site = (country.tier > 0) & (country.tier <= COUNTY)
    node = np.flatnonzero(is_site)
    tier = country.tier[node].astype(np.int64)
    if not (tier == COUNTY).any():
        raise PlanError(
            "sim.plan-no-counties",
            N_("{scenario} has no counties: the planner decides what goes to each county by which way."),
            scenario=scenario.name,
        )  # fmt: skip
    index = np.full(country.node_count, -1)
    index[node] = np.arange(len(node))
    # In a star everyone fetches from the publisher, which is taken to be the nation.
    source = (
        np.full(len(node), -1) if scenario.run.policy == "star" else index[country.parent[node]]
    )
    site_class = country.node_class[node].astype(np.int64)

    count = len(scenario.releases)
    is_of = bundles.release[:, None] == np.arange(count)
    volume = (wants * bundles.size) @ is_of
    need = volume[site_class]
    released_s = np.array([release.day * DAY_S for release in scenario.releases])
    for number in range(count):
        of_it = np.flatnonzero(is_of[:, number])
        if len(of_it):
            released_s[number] = bundles.released_s[of_it].max()
            need[~below(country, int(bundles.publisher[of_it[0]]))[node], number] = 0.0
    kept = np.zeros(len(node))
    for number, release in enumerate(scenario.releases):
        keeps = [not release.tiers or TIER_LABELS[one] in release.tiers for one in tier]
        kept += need[:, number] * keeps

    return Demand(
        node,
        site_class,
        tier,
        source,
        wants,
        bundles.size.astype(np.float64),
        bundles.release.astype(np.int64),
        need,
        kept,
        released_s,
        _deadlines(scenario, bundles, is_of, released_s, margin_s),
    )


def below(country: Country, publisher: int) -> Bools:
    """Which nodes lie below another one; it doesn't itself."""
    found = np.zeros(country.node_count, np.bool_)
    found[publisher] = True
    # Breadth first: whoever lies above has been looked at already, one level of the tree at a time.
    for tier in range(1, len(TIER_LABELS)):
        of_tier = np.flatnonzero(country.tier == tier)
        found[of_tier] |= found[country.parent[of_tier]]
    found[publisher] = False
    return found


def _deadlines(
    scenario: Scenario, bundles: Bundles, is_of: Bools, released_s: Floats, margin_s: float | Floats
) -> Floats:
    end_s = scenario.run.days * DAY_S
    found: Floats = np.full((COUNTY + 1, len(released_s)), end_s)
    for number in range(len(released_s)):
        stated = bundles.deadline_s[is_of[:, number], : COUNTY + 1]
        if len(stated):
            found[:, number] = np.fmin(found[:, number], np.fmin.reduce(stated, axis=0))
    found = np.minimum(found, found[COUNTY])
    found -= margin_s
    return np.maximum(found, released_s + LEAST_TIME_S, out=found)

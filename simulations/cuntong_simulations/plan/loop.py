"""Plan, replay in the model, plan again more carefully: a plan that is possible isn't a safe plan yet.

Links are shared out by max-min fairness and not as the program would have it, what is on the air ends at the deadline
with repairs still to come, disks take longer than the mean. In a trial a plan without margins missed 1.3 % of the
deadlines of counties and bundles, and one with a tenth of the capacity and five of sixty days left 0.05 %, at a tenth
more cost (research/simulation.md 6).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from cuntong_simulations.model.country import Bundles, Country
from cuntong_simulations.model.outcome import Outcome
from cuntong_simulations.model.parcel import Parcel
from cuntong_simulations.scenario.scenario import Scenario
from cuntong_simulations.scenario.units import Rate

from .capacity import DAY_S
from .channels import plan
from .demand import COUNTY, below, demand
from .explain import MBIT_BYTES_S
from .inputs import Case, Margins
from .problem import build
from .result import Plan
from .solve import Tell, solve

STEPS = ((1.0, 0.0), (0.95, 0.04), (0.9, 0.08), (0.85, 0.12), (0.8, 0.17), (0.7, 0.25))
"""Share of the capacities that is planned with, and of the time from a release to its deadline that is left."""
MOST_ROUNDS = 10
POSSIBLE_SECONDS = 20.0
MOST_MISSED = 1e-3
HOUR_S = 3600.0

Bools = NDArray[np.bool_]
Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Replay = Callable[[Plan, Case], Outcome]
Told = Callable[["Round"], None]


@dataclass(frozen=True, slots=True)
class Round:
    """One plan and what came of it in the model.

    Attributes:
        pairs: Of counties and bundles that they want, by site class and bundle, (C, B).
        missed: Of them not there by the deadline, (C, B).
    """

    plan: Plan
    pairs: Floats
    missed: Floats

    @property
    def missed_share(self) -> float:
        return float(self.missed.sum() / self.pairs.sum()) if self.pairs.any() else 0.0

    @property
    def is_safe(self) -> bool:
        return self.plan.is_feasible and self.missed_share <= MOST_MISSED


def tighten(
    case: Case,
    *,
    seconds: float = 60.0,
    gap: float = 0.01,
    tell: Tell | None = None,
    told: Told | None = None,
    replay: Replay | None = None,
) -> list[Round]:
    """Plan more and more carefully until the replay meets the deadlines.

    Only what missed something is planned more carefully: links of those places and of those above them, those releases,
    the satellite. What can't be, since there would be no plan any more, stays as it is.

    Args:
        case: As for `plan`.
        seconds: For each plan.
        gap: For each plan.
        tell: Is told how a plan gets on.
        told: Is told of each round.
        replay: The model; None: the compiled one.

    Returns:
        The rounds; the last one is safe, or nothing can be planned more carefully. The first is not feasible if nothing
        is; choose by `best`.
    """
    care = _Care(case)
    found: list[Round] = []
    while len(found) < MOST_ROUNDS:
        made = plan(case, seconds=seconds, gap=gap, tell=tell, margins=care.margins(care.steps))
        if not made.is_feasible:
            nothing = np.zeros(case.wants.shape)
            return found or [Round(made, nothing, nothing)]
        found.append(judge(made, (replay or replay_compiled)(made, case)))
        if told is not None:
            told(found[-1])
        if found[-1].is_safe or not care.take(found[-1]):
            break
    return found


class _Care:
    """How carefully each thing is planned: a step of `STEPS` for each site class, for the satellite, for each release."""

    def __init__(self, case: Case) -> None:
        self._case = case
        wanted = demand(case)
        self._span_s = wanted.deadline_s[COUNTY] - wanted.released_s
        self._classes, self._releases = len(case.country.classes), len(self._span_s)
        self.steps: Ints = np.zeros(self._classes + 1 + self._releases, np.int64)
        country = case.country
        # Whose links a county's bytes cross: (C, C), its own among them.
        self._crosses = np.eye(self._classes, dtype=bool)
        node = np.flatnonzero(country.tier == COUNTY)
        above = country.parent[node]
        while (above >= 0).any():
            node, above = node[above >= 0], above[above >= 0]
            self._crosses[country.node_class[node], country.node_class[above]] = True
            above = country.parent[above]

    def margins(self, steps: Ints) -> Margins:
        capacity, share = np.array(STEPS)[steps].T
        return Margins(
            capacity[: self._classes],
            float(capacity[self._classes]),
            share[self._classes + 1 :] * self._span_s,
        )

    def take(self, one: Round) -> bool:
        """Take more care of what missed something; False: that isn't possible."""
        release = self._case.bundles.release
        by_class = one.missed.sum(axis=1) > MOST_MISSED * one.pairs.sum(axis=1)
        is_late = one.missed.sum(axis=0) > MOST_MISSED * one.pairs.sum(axis=0)
        more = np.concatenate((
            self._crosses[by_class].any(axis=0),
            [(is_late & one.plan.on_air).any()],
            np.isin(np.arange(self._releases), release[is_late]),
        ))  # fmt: skip
        more &= self.steps < len(STEPS) - 1
        before = self.steps
        if self._is_possible(before + more):
            self.steps = before + more
        else:
            for number in np.flatnonzero(more):
                tried = self.steps.copy()
                tried[number] += 1
                if self._is_possible(tried):
                    self.steps = tried
        return bool((self.steps > before).any())

    def _is_possible(self, steps: Ints) -> bool:
        """Whether there is a plan, if disks could be cut."""
        margins = self.margins(steps)
        case = self._case.planned_with(margins)
        program = build(case, demand(case, margins.deadline_s)).program
        return len(solve(program, seconds=POSSIBLE_SECONDS, is_relaxed=True).x) > 0


def best(rounds: Sequence[Round]) -> Round:
    """The cheapest safe round; without one that which misses least."""
    return min(
        rounds,
        key=lambda one: (not one.is_safe, 0.0 if one.is_safe else one.missed_share, one.plan.cost),
    )


def judge(made: Plan, outcome: Outcome) -> Round:
    """Count the deadlines of counties that the replay missed."""
    country, bundles = outcome.country, outcome.bundles
    counties = np.flatnonzero(country.tier == COUNTY)
    end_s = country.scenario.run.days * DAY_S
    deadline_s = np.fmin(bundles.deadline_s[:, COUNTY], end_s)
    wants = outcome.wants[country.node_class[counties]]
    for publisher in np.unique(bundles.publisher).tolist():
        # A class wants what is published anywhere; a place only what is published above it.
        its_own = below(country, publisher)[counties]
        wants &= its_own[:, None] | (bundles.publisher != publisher)
    # A float32 of hours is good to some milliseconds.
    is_late = wants & ~(outcome.done_h[counties] * HOUR_S <= deadline_s + 1.0)
    weight = country.weight[counties][:, None]
    pairs = np.zeros((len(country.classes), len(bundles.size)))
    missed = np.zeros_like(pairs)
    np.add.at(pairs, country.node_class[counties], wants * weight)
    np.add.at(missed, country.node_class[counties], is_late * weight)
    return Round(made, pairs, missed)


def replayed(made: Plan, scenario: Scenario) -> Scenario:
    """The scenario with the plan's satellite; without one, nothing is left to the sky."""
    satellite = scenario.satellite
    if satellite is None:
        return scenario
    if not made.on_air.any():
        policy = "swarm" if scenario.run.policy == "satellite-first" else scenario.run.policy
        run = msgspec.structs.replace(scenario.run, policy=policy)
        return msgspec.structs.replace(scenario, satellite=None, run=run)
    leased = msgspec.structs.replace(satellite, rate=Rate(made.satellite_mbit_s * MBIT_BYTES_S))
    run = msgspec.structs.replace(scenario.run, policy="satellite-first")
    return msgspec.structs.replace(scenario, satellite=leased, run=run)


def above_villages(country: Country) -> tuple[Country, NDArray[np.int32]]:
    """The country without the places below counties, in the same order, and the new number of each place (-1: none)."""
    kept = np.flatnonzero(country.tier <= COUNTY)
    number = np.full(country.node_count, -1, np.int32)
    number[kept] = np.arange(len(kept))
    parent = np.where(country.parent[kept] < 0, -1, number[country.parent[kept]]).astype(np.int32)
    count = np.bincount(parent[1:], minlength=len(kept)).astype(np.int32)
    first = np.zeros(len(kept), np.int32)
    first[parent[:0:-1]] = np.arange(len(kept) - 1, 0, -1, dtype=np.int32)
    upper = Country(
        scenario=country.scenario,
        classes=country.classes,
        parent=parent,
        first_child=first,
        child_count=count,
        node_class=country.node_class[kept],
        tier=country.tier[kept],
        province=number[country.province[kept]],
        identity=country.identity[kept],
        weight=country.weight[kept],
        code=country.code[kept],
    )
    return upper, number


def parcels(made: Plan, numbers: NDArray[np.int32] | None = None) -> list[Parcel]:
    """What leaves by post, for the model; `numbers`: of the places in the country that is replayed."""
    places = [order.node if numbers is None else int(numbers[order.node]) for order in made.orders]
    return [
        Parcel(place, order.bundles, order.day * DAY_S)
        for place, order in zip(places, made.orders, strict=True)
        if order.bundles
    ]


def replay_compiled(made: Plan, case: Case) -> Outcome:
    """Run a plan in the compiled model, without the places below counties."""
    # These compile; a plan alone doesn't need them.
    from cuntong_simulations.model.run import run
    from cuntong_simulations.model.sky import silent, sky

    scenario, bundles = case.scenario, case.bundles
    upper, numbers = above_villages(case.country)
    leased = replayed(made, scenario)
    on_air = np.flatnonzero(made.on_air)
    heard = silent(len(bundles.size), round(scenario.run.days * DAY_S / scenario.run.step))
    if len(on_air):
        few = Bundles(**{name: _some(getattr(bundles, name), on_air) for name in Bundles.__slots__})
        brings = sky(leased, few)
        heard.air[on_air], heard.flow[on_air] = brings.air, brings.flow
    return run(leased, upper, bundles, heard=heard, parcels=parcels(made, numbers))


def _some(of_each: Any, chosen: NDArray[np.int64]) -> Any:  # noqa: ANN401 - arrays and tuples.
    """What belongs to the chosen bundles; what is empty stays so."""
    if isinstance(of_each, tuple):
        return tuple(of_each[number] for number in chosen) if of_each else ()
    return of_each[chosen]

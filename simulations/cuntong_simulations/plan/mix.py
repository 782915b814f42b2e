"""The search for the cheapest mix: what is broadcast, and what goes onto disks."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from .capacity import Bools, Floats
from .carriers import LEASE_STEP_MBIT_S, disks_of, months_of
from .demand import Demand
from .inputs import Case
from .places import settle
from .problem import NOTHING, Problem, build
from .program import Ints, Kind
from .solve import Solution, Status, Tell, solve

SETTLING_PART = 0.15
"""Of the time, for the disks beside one choice of what is broadcast."""
GAP_PART = 0.5
"""Of the gap, likewise."""
WHOLE = 1e-4
LEAST_SECONDS = 1.0
"""With less left a second search isn't begun."""
STEPS = 3
"""So many rates are tried that are larger than the relaxation's."""


@dataclass(frozen=True, slots=True)
class Mix:
    """A mix, or that there is none.

    Attributes:
        status: How the search ended.
        bound: No mix is cheaper.
        on_air: Which bundles are broadcast, (B).
        mbit_s: Rate that is leased for them.
        cost: Of this mix; infinite: there is none.
        problem: What is left for links and disks; `x`: its solution, empty without a mix.
    """

    status: Status
    bound: float
    on_air: Bools
    mbit_s: float
    cost: float
    problem: Problem
    x: Floats


def cheapest(case: Case, wanted: Demand, *, seconds: float, gap: float, tell: Tell | None) -> Mix:
    """Find it.

    First with the same for all places that are alike; where batches are too small for that, place by place.

    Args:
        case: With its margins.
        wanted: With the margins of deadlines.
        seconds: At most so long.
        gap: Relative to the bound, good enough.
        tell: Is told how it gets on.
    """
    began = time.perf_counter()
    found = _Search(case, wanted, seconds, gap, tell, is_counted=False).run()
    is_whole = len(found.x) and not _fills_batches(found)
    left_s = seconds - (time.perf_counter() - began)
    is_last = found.status is Status.UNKNOWN or left_s < LEAST_SECONDS
    if is_whole or is_last or disks_of(case.scenario) is None:
        return found
    other = _Search(case, wanted, left_s, gap, tell, is_counted=True).run()
    if other.cost <= found.cost or other.bound == -math.inf:
        return other if other.cost <= found.cost else found
    # Only the second one's bound is one for all mixes.
    return replace(found, bound=other.bound)


def _fills_batches(found: Mix) -> bool:
    """Whether batches are so full that a choice for all places that are alike may not fit."""
    problem, program = found.problem, found.problem.program
    rows = np.flatnonzero(np.concatenate(program.kind) == Kind.BATCH)
    used = program.times(found.x)[rows]
    return bool((used > np.concatenate(program.row_upper)[rows] - problem.unit.max()).any())


class _Search:
    """One search.

    The relaxation says how cheap a mix could be at best, and rounded, what to broadcast: often that is good enough. If
    it isn't, the program is solved, beginning with the best of these.
    """

    def __init__(
        self,
        case: Case,
        wanted: Demand,
        seconds: float,
        gap: float,
        tell: Tell | None,
        *,
        is_counted: bool,
    ) -> None:
        self._case, self._wanted, self._is_counted = case, wanted, is_counted
        self._gap, self._tell = gap, tell
        self._ends = time.perf_counter() + seconds
        self._problem = build(case, wanted, is_counted=is_counted)
        self._nothing = np.zeros(len(wanted.size), np.bool_)
        self._best = Mix(
            Status.UNKNOWN, -math.inf, self._nothing, 0.0, math.inf, self._problem, np.zeros(0)
        )

    def run(self) -> Mix:
        problem, gap = self._problem, self._gap
        if problem.rate < 0:
            found = solve(problem.program, seconds=self._left_s(), gap=gap, tell=self._tell)
            return replace(
                self._mix(problem, found, self._nothing), status=found.status, bound=found.bound
            )
        relaxed = self._relaxed(problem)
        tight = build(self._case, self._wanted, is_counted=self._is_counted, is_tight=True)
        if len(relaxed.x) and tight.program.row_count > problem.program.row_count:
            closer = self._relaxed(tight)
            # The larger program takes its time: only where it says more.
            if closer.cost * (1 - gap * GAP_PART) > relaxed.cost:
                self._problem, problem, relaxed = tight, tight, closer
        if not len(relaxed.x):
            return replace(self._best, status=relaxed.status)
        for on_air in self._rounded(relaxed.x):
            self._try(on_air, relaxed.bound)
            if self._best.cost * (1 - gap) <= relaxed.bound:
                return replace(self._best, status=Status.OPTIMAL, bound=relaxed.bound)
        found = solve(
            problem.program,
            seconds=self._left_s() * (1 - SETTLING_PART),
            gap=gap * (1 - GAP_PART),
            tell=self._tell,
            start=self._start(),
        )
        if len(found.x):
            self._try(np.append(found.x, 0.0)[problem.on_air] > 0.5, found.bound)
        best = replace(self._best, status=found.status, bound=max(found.bound, relaxed.bound))
        if found.status is not Status.INFEASIBLE and not len(best.x):
            return replace(best, status=Status.UNKNOWN)
        return best

    def _relaxed(self, problem: Problem) -> Solution:
        """The relaxation, but for the leased rate, which is a whole number of steps."""
        program, rate = problem.program, problem.rate
        found = solve(program, seconds=self._left_s(), is_relaxed=True)
        if not len(found.x) or abs(found.x[rate] - round(found.x[rate])) < WHOLE:
            return found
        least = float(math.ceil(found.x[rate]))
        more, less = (
            solve(program, seconds=self._left_s(), is_relaxed=True, within={rate: within})
            for within in ((least, math.inf), (0.0, least - 1))
        )
        best = min(more, less, key=lambda one: one.cost)
        is_proven = more.status is not Status.UNKNOWN and less.status is not Status.UNKNOWN
        return replace(best, bound=best.cost if is_proven else found.cost)

    def _left_s(self) -> float:
        return max(1.0, self._ends - time.perf_counter())

    def _rounded(self, x: Floats) -> Iterator[Bools]:
        """What to broadcast by the relaxation: what fits into the next steps of the rate, all of which there is some, nothing."""
        problem, wanted = self._problem, self._wanted
        part = np.append(x, 0.0)[problem.on_air]
        is_heard = problem.covered[:, wanted.release] > 0
        wanted_by = (wanted.wants[wanted.site_class] & is_heard).sum(axis=0)
        first = np.lexsort((-wanted.size, -wanted_by, -part.round(6)))
        least = math.ceil(x[problem.rate] - WHOLE)
        choices = [self._filled(first, wanted_by, least)] if least else []
        choices += [part > NOTHING]
        choices += [
            self._filled(first, wanted_by, least + more) for more in range(1, STEPS) if least
        ]
        tried: list[Bools] = []
        for on_air in (*choices, self._nothing):
            if not any((on_air == other).all() for other in tried):
                tried.append(on_air)
                yield on_air

    def _filled(self, order: Ints, wanted_by: Ints, steps: int) -> Bools:
        """The first bundles that fit into so many steps of the rate, exchanged until they leave next to nothing of it."""
        problem, size, release = self._problem, self._wanted.size, self._wanted.release
        most = steps * LEASE_STEP_MBIT_S + NOTHING
        on_air = self._nothing.copy()
        for bundle in order.tolist():
            on_air[bundle] = problem.on_air[bundle] >= 0
            on_air[bundle] &= problem.rate_mbit_s(on_air) <= most
        used = problem.air_mbit_s @ on_air
        while True:
            out, into = np.flatnonzero(on_air), np.flatnonzero(~on_air & (problem.on_air >= 0))
            more = size[into] - size[out, None]
            is_same = (release[into] == release[out, None]) & (
                wanted_by[into] >= wanted_by[out, None]
            )
            rates = problem.air_mbit_s[:, None, into] - problem.air_mbit_s[:, out, None]
            fits = is_same & (more > 0) & ((used[:, None, None] + rates).max(axis=0) <= most)
            if not fits.any():
                return on_air
            one, other = np.unravel_index(int(np.argmax(np.where(fits, more, 0.0))), fits.shape)
            on_air[out[one]], on_air[into[other]] = False, True
            used = problem.air_mbit_s @ on_air

    def _try(self, on_air: Bools, bound: float) -> None:
        """Find the disks beside what is broadcast; keep the mix if it is the cheapest so far."""
        is_known = len(self._best.x) > 0 and bool((on_air == self._best.on_air).all())
        if is_known or not self._problem.is_on_offer(on_air):
            return
        problem = build(self._case, self._wanted, aired=on_air, is_counted=self._is_counted)
        # The gap is one of all costs.
        disks = max(bound - self._leased(on_air)[1], GAP_PART * bound, NOTHING)
        found = solve(
            problem.program,
            seconds=self._left_s() * SETTLING_PART,
            gap=min(self._gap * GAP_PART * bound / disks, 0.5),
        )
        mix = self._mix(problem, found, on_air)
        if mix.cost < self._best.cost:
            self._best = mix

    def _mix(self, problem: Problem, found: Solution, on_air: Bools) -> Mix:
        mbit_s, price = self._leased(on_air)
        cost = found.cost + price if len(found.x) else math.inf
        return Mix(found.status, -math.inf, on_air, mbit_s, cost, problem, found.x)

    def _leased(self, on_air: Bools) -> tuple[float, float]:
        """Rate in Mbit/s, and what it costs."""
        if not on_air.any():
            return 0.0, 0.0
        steps = math.ceil(self._problem.rate_mbit_s(on_air) / LEASE_STEP_MBIT_S - NOTHING)
        costs = self._case.scenario.costs
        price = float(costs.satellite_per_mbit_month or 0.0) if costs is not None else 0.0
        mbit_s = steps * LEASE_STEP_MBIT_S
        return mbit_s, mbit_s * price * months_of(self._case.scenario)

    def _start(self) -> dict[int, float]:
        """The best mix so far, in the columns of the whole program; empty if there is none."""
        problem, best, wanted = self._problem, self._best, self._wanted
        disks, costs = disks_of(self._case.scenario), self._case.scenario.costs
        if not len(best.x):
            return {}
        there = np.flatnonzero(problem.on_air >= 0)
        found = dict(zip(problem.on_air[there].tolist(), best.on_air[there].astype(float).tolist(), strict=True))  # fmt: skip
        found[problem.rate] = round(best.mbit_s / LEASE_STEP_MBIT_S)
        if disks is None or costs is None:
            return found
        count, _volume = settle(best.problem, wanted, disks, costs, best.x)
        for columns, number in (
            (problem.disks, count),
            (problem.parcels, (count > 0).astype(np.int64)),
        ):
            place, release = np.nonzero(columns >= 0)
            column = columns[place, release]
            total = np.bincount(column, number[place, release] / problem.unit[place])
            found |= {int(one): float(total[one]) for one in np.unique(column)}
        return found

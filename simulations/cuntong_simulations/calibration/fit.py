"""The parameters with which the model agrees best with what was measured (MODEL.md 9)."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from cuntong_simulations.lab.result import Result
from cuntong_simulations.scenario.scenario import Calibration
from cuntong_simulations.scenario.units import Rate, Share, Span

from .networks import TestNetwork
from .predict import predict

Vector = tuple[float, ...]

START: Vector = (0.94, 100.0, 2.5, 0.8, 0.9)
"""efficiency, thin (kbit/s), startup, eta, phi."""
LEAST: Vector = (0.5, 0.0, 0.0, 0.1, 0.1)
MOST: Vector = (1.0, 250.0, 60.0, 1.0, 1.0)
FIRST_STEP: Vector = (0.02, 10.0, 1.0, 0.1, 0.1)
HALVINGS = 4


@dataclass(frozen=True, slots=True)
class Comparison:
    """A tier of a network: measured (the mean of the repeats) and computed, in seconds.

    Attributes:
        least_mean_s, most_mean_s: Over the repeats.
    """

    network: str
    is_for_fit: bool
    tier: str
    measured_mean_s: float
    least_mean_s: float
    most_mean_s: float
    computed_mean_s: float
    measured_last_s: float
    computed_last_s: float

    @property
    def mean_error(self) -> float:
        """Relative; negative: the model is too fast."""
        return self.computed_mean_s / self.measured_mean_s - 1

    @property
    def last_error(self) -> float:
        return self.computed_last_s / self.measured_last_s - 1


def compare(
    network: TestNetwork, results: Sequence[Result], parameters: Calibration
) -> list[Comparison]:
    """The network's tiers, from the top down."""
    payload = sum(result.payload_bytes for result in results) / len(results)
    computed = predict(network.topology, payload, parameters)
    found = []
    for tier in dict.fromkeys(one.tier for one in results[0].completions):
        times = [
            [one.seconds or math.nan for one in result.completions if one.tier == tier]
            for result in results
        ]
        codes = [one.code for one in results[0].completions if one.tier == tier]
        means = [sum(one) / len(one) for one in times]
        found.append(
            Comparison(
                network=network.name,
                is_for_fit=network.is_for_fit,
                tier=tier,
                measured_mean_s=sum(means) / len(means),
                least_mean_s=min(means),
                most_mean_s=max(means),
                computed_mean_s=sum(computed[code] for code in codes) / len(codes),
                measured_last_s=sum(max(one) for one in times) / len(times),
                computed_last_s=max(computed[code] for code in codes),
            )
        )
    return found


def fit(measured: Sequence[tuple[TestNetwork, Sequence[Result]]]) -> Calibration:
    """Least squares of the relative errors of tier means and last places, over the networks for the fit.

    By pattern search (Hooke and Jeeves, "Direct Search" Solution of Numerical and Statistical Problems, 1961): five
    parameters with bounds, and a function with corners.
    """

    def loss(vector: Vector) -> float:
        parameters = as_calibration(vector)
        return sum(
            one.mean_error**2 + 0.25 * one.last_error**2
            for network, results in measured
            if network.is_for_fit
            for one in compare(network, results, parameters)
        )

    return as_calibration(_pattern_search(loss, START, FIRST_STEP))


def as_calibration(vector: Vector) -> Calibration:
    """Parameters by name."""
    efficiency, thin, startup, eta, phi = vector
    return Calibration(
        efficiency=Share(efficiency),
        thin=Rate(thin * 125),
        startup=Span(startup),
        eta=Share(eta),
        phi=Share(phi),
    )


def _pattern_search(loss: Callable[[Vector], float], start: Vector, steps: Vector) -> Vector:
    best, lowest = start, loss(start)
    for _ in range(HALVINGS):
        is_better = True
        while is_better:
            is_better = False
            for at, step in enumerate(steps):
                for moved in (best[at] + step, best[at] - step):
                    value = min(MOST[at], max(LEAST[at], moved))
                    tried = (*best[:at], value, *best[at + 1 :])
                    found = loss(tried)
                    if found < lowest:
                        best, lowest, is_better = tried, found, True
                        break
        steps = tuple(step / 2 for step in steps)
    return best

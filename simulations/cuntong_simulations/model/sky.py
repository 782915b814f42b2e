"""What the satellite brings to a receiver that always listens, bundle by bundle and step by step (MODEL.md 6)."""

from __future__ import annotations

import math
import random
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cuntong_daemon.policy.airtime import URGENT_PRIORITY
from cuntong_daemon.policy.reception import Broadcast, Weather, receive, symbols_per_s
from cuntong_simulations.scenario.calendars import hours
from cuntong_simulations.scenario.scenario import Satellite, Scenario

from .country import Bundles

RECEIVERS = 12
MOST_BLOCKS = 8
"""Followed of a bundle; more of them together."""
SETTLED_PASSES = 3.0
"""Passes of the bundle that is furthest behind, after which all goes on as it has lately."""


@dataclass(frozen=True, slots=True)
class Sky:
    """By bundle and step.

    Attributes:
        air: The share of a bundle's blocks that a receiver has before the step; one step more than there are.
        flow: Symbols that come in a step over the bundle's size.
    """

    air: NDArray[np.float64]
    flow: NDArray[np.float64]


def silent(bundles: int, steps: int) -> Sky:
    """Nothing is sent."""
    return Sky(np.zeros((bundles, steps + 1)), np.zeros((bundles, steps)))


def sky(scenario: Scenario, bundles: Bundles) -> Sky:
    """Let the sender's own policy send, and receivers in the weather receive."""
    steps = round(scenario.run.days * 86400 / scenario.run.step)
    found = silent(len(bundles.size), steps)
    satellite = scenario.satellite
    names = [release.name for release in scenario.releases]
    on_air = [
        number
        for number in range(len(bundles.size))
        if satellite is not None
        and (not satellite.releases or names[bundles.release[number]] in satellite.releases)
    ]
    if satellite is None or not satellite.rate or not on_air:
        return found
    _fill(found, scenario, satellite, bundles, on_air)
    return found


def _fill(found: Sky, scenario: Scenario, satellite: Satellite, bundles: Bundles, on_air: list[int]) -> None:  # fmt: skip
    dt = float(scenario.run.step)
    steps = found.flow.shape[1]
    weather = Weather(
        loss=satellite.loss, fade_s=satellite.fade, fades_an_hour=satellite.fades_per_hour
    )
    week = hours(scenario, satellite.hours)
    hour = (scenario.run.start.weekday() * 24 + np.arange(steps) * dt / 3600).astype(int) % 168
    sends = week[hour] * dt
    sent = Broadcast(symbols_per_s(satellite.rate))
    passes = np.zeros((len(bundles.size), steps + 1))
    clock = np.zeros(steps + 1)  # The broadcast's own, at the begin of each step.
    waiting = sorted(on_air, key=lambda number: (bundles.released_s[number], number))
    steady: dict[int, float] | None = None
    for step in range(steps):
        added = False
        while waiting and bundles.released_s[waiting[0]] <= step * dt:
            number = waiting.pop(0)
            priority = int(bundles.priority[number])
            sent.add(
                str(number),
                max(1, int(bundles.size[number])),
                priority=priority,
                is_urgent=priority >= URGENT_PRIORITY,
                order=number,
                most_blocks=MOST_BLOCKS,
            )
            added = True
        passes[:, step + 1] = passes[:, step]
        clock[step + 1] = clock[step]
        if added:
            steady = None
        if not sent.blocks or sends[step] == 0:
            continue
        if steady is None and sent.progress >= SETTLED_PASSES:
            steady = _lately(passes, sends, step)
        if steady is not None:
            for number, per_s in steady.items():
                passes[number, step + 1] += per_s * sends[step]
            continue
        before = {key: sent.sent_bytes(key, sent.now) for key in sent.blocks}
        begun = sent.now
        sent.send(begun + sends[step])
        clock[step + 1] = sent.now
        for key, was in before.items():
            number = int(key)
            passes[number, step + 1] += (sent.sent_bytes(key, sent.now) - was) / bundles.size[
                number
            ]
    found.flow[:] = np.diff(passes, axis=1) * weather.clear_part
    if satellite.code == "carousel":
        missing = 1 - weather.clear_part
        whole = np.floor(passes)
        found.air[:] = 1 - missing**whole * (1 - weather.clear_part * (passes - whole))
        return
    chance = random.Random(f"sky {scenario.run.seed}")  # noqa: S311
    for _ in range(RECEIVERS):
        for key, times in receive(sent, weather, chance).items():
            last = np.searchsorted(clock, np.array([time for time in times if time < math.inf]) - 1e-6)  # fmt: skip
            counts = np.bincount(last, minlength=steps + 2)[: steps + 1]
            found.air[int(key)] += np.cumsum(counts) / (len(times) * RECEIVERS)
    np.minimum(found.air, 1.0, out=found.air)


def _lately(passes: NDArray[np.float64], sends: NDArray[np.float64], step: int) -> dict[int, float]:
    """Passes in a second, of each bundle, as in the last day."""
    first = max(0, step - max(1, step // 4))
    took = sends[first:step].sum()
    if took == 0:
        return {}
    gained = passes[:, step] - passes[:, first]
    return {int(number): gained[number] / took for number in np.flatnonzero(gained)}

"""What the satellite brings to a receiver that always listens, bundle by bundle and step by step (MODEL.md 6)."""

from __future__ import annotations

import math
import random
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cuntong_daemon.policy.airtime import URGENT_PRIORITY, worth_of
from cuntong_daemon.policy.reception import Broadcast, Weather, receive, symbols_per_s
from cuntong_protocol.datacast.blocks import PASSES_WITHOUT_REPEAT
from cuntong_protocol.datacast.packets import SYMBOL_BYTES
from cuntong_simulations.scenario.calendars import hours
from cuntong_simulations.scenario.scenario import Satellite, Scenario

from .country import Bundles

RECEIVERS = 12
MOST_BLOCKS = 4
"""Followed of a bundle; more of them together."""
SETTLED_PASSES = 3.0
"""Of the bundle that is furthest behind, in clear weather: three times what a receiver needs. After that it is only counted how
much comes."""


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
    clear_part, settled = weather.clear_part, float(PASSES_WITHOUT_REPEAT)
    if clear_part * PASSES_WITHOUT_REPEAT > SETTLED_PASSES:
        settled = SETTLED_PASSES / clear_part
    week = hours(scenario, satellite.hours)
    hour = (scenario.run.start.weekday() * 24 + np.arange(steps) * dt / 3600).astype(int) % 168
    sends = week[hour] * dt
    symbols_s = symbols_per_s(satellite.rate)
    sent = Broadcast(symbols_s)
    passes = np.zeros((len(bundles.size), steps + 1))
    clock = np.zeros(steps + 1)  # The broadcast's own, at the begin of each step.
    waiting = sorted(on_air, key=lambda number: (bundles.released_s[number], number))
    steady: NDArray[np.float64] | None = None
    for step in range(steps):
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
            steady = None
        passes[:, step + 1] = passes[:, step]
        clock[step + 1] = clock[step]
        if not sent.blocks or sends[step] == 0:
            continue
        if steady is None and sent.progress >= settled:
            steady = _steady(sent, symbols_s, bundles)
        if steady is not None:
            passes[:, step + 1] += steady * sends[step]
            continue
        # A run lasts beyond the step's end: what it takes of the next step is missing there.
        clock[step + 1] += sends[step]
        sent.send(clock[step + 1])
        for key in sent.blocks:
            came = sent.sent_bytes(key, clock[step + 1]) - sent.sent_bytes(key, clock[step])
            passes[int(key), step + 1] += came / bundles.size[int(key)]
    found.flow[:] = np.diff(passes, axis=1) * clear_part
    if satellite.code == "carousel":
        found.air[:] = carousel(passes, clear_part, bundles.size[:, np.newaxis])
        return
    if clear_part * PASSES_WITHOUT_REPEAT <= 1:
        return  # A block's symbols begin anew before enough have come.
    chance = random.Random(f"sky {scenario.run.seed}")  # noqa: S311
    for _ in range(RECEIVERS):
        for key, times in receive(sent, weather, chance).items():
            last = np.searchsorted(clock, np.array([time for time in times if time < math.inf]) - 1e-6)  # fmt: skip
            counts = np.bincount(last, minlength=steps + 2)[: steps + 1]
            found.air[int(key)] += np.cumsum(counts) / (len(times) * RECEIVERS)
    np.minimum(found.air, 1.0, out=found.air)


def _steady(sent: Broadcast, symbols_s: float, bundles: Bundles) -> NDArray[np.float64]:
    """Passes in a second of each bundle, when all are repeated."""
    worths = {int(key): worth_of(sent.air.items[key]) for key in sent.blocks}
    found = np.zeros(len(bundles.size))
    for number, worth in worths.items():
        part = worth / sum(worths.values())
        found[number] = part * symbols_s * SYMBOL_BYTES / bundles.size[number]
    return found


def carousel(
    passes: NDArray[np.float64], clear_part: float, size: NDArray[np.float64]
) -> NDArray[np.float64]:
    """The share of a bundle that a receiver has when it is sent again and again without a code.

    In each pass it gets the same part of what it lacks. What is left is whole symbols: once it is more likely than not that
    nothing is, it has all.

    Args:
        passes: That were sent.
        clear_part: Of the symbols comes.
        size: In bytes.
    """
    whole = np.floor(passes)
    lacks = (1 - clear_part) ** whole * (1 - clear_part * (passes - whole))
    found: NDArray[np.float64] = np.where(lacks * np.ceil(size / SYMBOL_BYTES) < math.log(2), 1.0, 1 - lacks)  # fmt: skip
    return found

"""Weather over dishes: traces of fades, made from a few numbers and a seed.

Fades come by chance, more often in the afternoon where it rains then, and their lengths are log-normal, as measured ones
of more than some seconds are (ITU-R P.1623). Some are rain cells that pass over all dishes, one a little after the
other; the rest is each dish's own: trees, snow, a bus that parks before it. That isn't a model of any climate: who has
records of a real dish replays them.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from random import Random
from typing import Annotated

import msgspec

from .traces import Fade

DAY_S = 86_400.0
HOUR_S = 3600.0
Share = Annotated[float, msgspec.Meta(ge=0, le=1)]
Length = Annotated[float, msgspec.Meta(gt=0, le=DAY_S)]


class Climate(msgspec.Struct, frozen=True, kw_only=True):
    """How often, when and how long.

    Attributes:
        fades_per_hour: At each dish, in the day's mean.
        median_s: Half of the fades are shorter.
        spread: Standard deviation of the natural logarithm of a length; 0: all are `median_s` long.
        longest_s: No fade is longer.
        shared: Share of the fades that are rain cells, which all dishes have.
        drift_s: A cell needs at most so long from the first dish to the last.
        swing: How much more often than in the mean it happens at `peak_hour`, and less often twelve hours later.
        peak_hour: Of the day that begins with the trace.
    """

    fades_per_hour: Annotated[float, msgspec.Meta(ge=0, le=360)] = 1.0
    median_s: Length = 60.0
    spread: Annotated[float, msgspec.Meta(ge=0, le=4)] = 0.8
    longest_s: Length = 1800.0
    shared: Share = 0.5
    drift_s: Annotated[float, msgspec.Meta(ge=0, le=DAY_S)] = 600.0
    swing: Share = 0.0
    peak_hour: Annotated[float, msgspec.Meta(ge=0, le=24)] = 16.0


CLEAR = Climate(fades_per_hour=0.0)
SHOWERS = Climate(fades_per_hour=1.0, median_s=120.0, spread=0.0, shared=0.0)
"""Two minutes every hour: what the schedule was designed for."""
MONSOON = Climate(fades_per_hour=2.0, median_s=90.0, spread=1.0, shared=0.7, swing=0.8)


def make_weather(
    climate: Climate, *, dishes: int, seed: int, length_s: float = DAY_S
) -> list[tuple[Fade, ...]]:
    """The fades of each dish, in order and without overlaps.

    Args:
        climate: How often, when and how long.
        dishes: How many; the first ones have the same weather whatever their number is.
        seed: The same one makes the same weather.
        length_s: A day, if nothing else is said.
    """
    cells = Random(f"{seed} cells")  # noqa: S311 - has to be repeatable.
    per_second = climate.fades_per_hour / HOUR_S
    together = _begins(climate, per_second * climate.shared, length_s, cells)
    found: list[tuple[Fade, ...]] = []
    for number in range(dishes):
        own = Random(f"{seed} dish {number}")  # noqa: S311 - has to be repeatable.
        begins = [begin + own.random() * climate.drift_s for begin in together]
        begins += _begins(climate, per_second * (1 - climate.shared), length_s, own)
        fades = (Fade(begin, begin + _length(climate, own)) for begin in begins)
        found.append(joined(fades, length_s=length_s))
    return found


def joined(fades: Iterable[Fade], *, length_s: float = math.inf) -> tuple[Fade, ...]:
    """Fades in order; those that overlap become one, with the greater loss. What is after `length_s` goes."""
    found: list[Fade] = []
    for fade in sorted(fades, key=lambda fade: fade.begin_s):
        if fade.begin_s >= length_s:
            break
        end_s = min(fade.end_s, length_s)
        if found and fade.begin_s <= found[-1].end_s:
            last = found[-1]
            found[-1] = Fade(last.begin_s, max(last.end_s, end_s), max(last.loss, fade.loss))
        else:
            found.append(Fade(fade.begin_s, end_s, fade.loss))
    return tuple(found)


def dark_s(fades: Sequence[Fade]) -> float:
    """How long nothing came through, partial losses counted in their share."""
    return sum((fade.end_s - fade.begin_s) * fade.loss for fade in fades)


def _begins(climate: Climate, per_second: float, length_s: float, random: Random) -> list[float]:
    """Times of a Poisson process whose rate changes over the day: candidates at the highest rate, then thinned."""
    highest = per_second * (1 + climate.swing)
    if highest <= 0:
        return []
    found: list[float] = []
    at = random.expovariate(highest)
    while at < length_s:
        hours = (at / HOUR_S - climate.peak_hour) / 24
        rate = per_second * (1 + climate.swing * math.cos(2 * math.pi * hours))
        if random.random() * highest < rate:
            found.append(at)
        at += random.expovariate(highest)
    return found


def _length(climate: Climate, random: Random) -> float:
    length = random.lognormvariate(math.log(climate.median_s), climate.spread)
    return min(length, climate.longest_s)

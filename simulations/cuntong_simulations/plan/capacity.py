"""What links carry between two moments, and between which moments that matters (Hall intervals)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

WEEK_HOURS = 168
HOUR_S = 3600.0
DAY_S = 86400.0

Bools = NDArray[np.bool_]
Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Rates:
    """What transfers may use, by site class and hour of the week (0 is Monday 00:00), shape (classes, 168).

    Attributes:
        down: Bytes/s over the access link, after goodput, calendar, caps, and hours and days off.
        up: Likewise.
        listens: Share of the hour in which a receiver of the class listens, days off included.
        air: Share of the hour in which the satellite sends, shape (168).
        eta: How well siblings' uplinks are used (MODEL.md 5).
        phi: Which share of a source's uplink brings its children something new (MODEL.md 5).
        first_hour: Hour of the week in which the run begins.
    """

    down: Floats
    up: Floats
    listens: Floats
    air: Floats
    eta: float
    phi: float
    first_hour: int


def amount(table: Floats, first_hour: int, begin_s: Floats, end_s: Floats) -> Floats:
    """Integrate tables by hour of the week.

    Args:
        table: Per second, shape (rows, 168).
        first_hour: Hour of the week at which time is 0.
        begin_s: Of each interval, shape (intervals).
        end_s: Of each interval.

    Returns:
        Shape (rows, intervals); 0 where an interval ends before it begins.
    """
    cumulative = np.zeros((len(table), WEEK_HOURS + 1))
    np.cumsum(table * HOUR_S, axis=1, out=cumulative[:, 1:])

    def until(moment_s: Floats) -> Floats:
        weeks, hours = np.divmod(moment_s / HOUR_S + first_hour, WEEK_HOURS)
        whole = np.minimum(hours.astype(int), WEEK_HOURS - 1)
        begun: Floats = table[:, whole] * (hours - whole) * HOUR_S
        return weeks * cumulative[:, -1:] + cumulative[:, whole] + begun

    return until(np.maximum(begin_s, end_s)) - until(begin_s)


@dataclass(frozen=True, slots=True)
class Hall:
    """Sets of items that have to go through one resource within one interval.

    By Hall's theorem a resource can serve all items between their releases and deadlines, if each of these intervals
    has room for the items that lie in it.

    Attributes:
        holds: Which items are in each set, shape (sets, items).
        begin_s: Of each interval, shape (sets).
        end_s: Likewise.
    """

    holds: Bools
    begin_s: Floats
    end_s: Floats


def hall(released_s: Floats, deadline_s: Floats) -> Hall:
    """All sets that could bind: each with the shortest interval that contains exactly it."""
    begins, ends = np.meshgrid(np.unique(released_s), np.unique(deadline_s), indexing="ij")
    holds = (released_s >= begins.reshape(-1, 1)) & (deadline_s <= ends.reshape(-1, 1))
    holds = np.unique(holds[holds.any(axis=1)], axis=0)
    return Hall(
        holds,
        np.where(holds, released_s, np.inf).min(axis=1),
        np.where(holds, deadline_s, -np.inf).max(axis=1),
    )

"""What a place's link could have carried, and what it did; pure."""

from __future__ import annotations

from collections.abc import Sequence

from .scenario import Scenario, chosen
from .topology import Node, Topology

BUSY_SHARE = 0.05
"""Of the rate: a second with less is one in which nothing came but keep-alives."""

Series = Sequence[tuple[float, float, float, float]]
"""For each second: when it ended, kbit/s, mean and highest queueing delay in ms."""


class Capacity:
    """The rate of a place's downlink over time, as the events of a scenario make it."""

    def __init__(self, topology: Topology, scenario: Scenario, node: Node) -> None:
        self._rate = node.link.down_kbit_s
        self._shares: list[tuple[float, float]] = []
        self._outages: list[tuple[float, float]] = []
        for event in sorted(scenario.events, key=lambda event: event.at_s):
            if node in chosen(topology, event.nodes):
                if event.share is not None:
                    self._shares.append((event.at_s, event.share))
                if event.outage_s:
                    self._outages.append((event.at_s, event.at_s + event.outage_s))

    def at(self, moment: float) -> float:
        """kbit/s at a moment."""
        if any(begin <= moment < end for begin, end in self._outages):
            return 0.0
        share = next((share for at, share in reversed(self._shares) if at <= moment), 1.0)
        return self._rate * share


def used_share(capacity: Capacity, series: Series, done_s: float) -> float:
    """What crossed the link of what it could carry, from the first busy second to `done_s`."""
    until = [row for row in series if row[0] <= done_s + 1]
    first = next((at for at, row in enumerate(until) if _is_busy(capacity, row)), None)
    if first is None:
        return 0.0
    could = sum(capacity.at(row[0] - 0.5) for row in until[first:])
    return sum(row[1] for row in until[first:]) / could if could else 0.0


def longest_stall_s(capacity: Capacity, series: Series, done_s: float) -> float:
    """The longest time in which nothing came although the link was there, after the first byte."""
    longest = current = 0.0
    has_begun = False
    for row in series:
        if row[0] > done_s:
            break
        if _is_busy(capacity, row):
            has_begun, current = True, 0.0
        elif not capacity.at(row[0] - 0.5):
            current = 0.0
        elif has_begun:
            current += 1.0
            longest = max(longest, current)
    return longest


def _is_busy(capacity: Capacity, row: tuple[float, float, float, float]) -> bool:
    could = capacity.at(row[0] - 0.5)
    return bool(could) and row[1] > BUSY_SHARE * could

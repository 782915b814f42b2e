"""When a packet may leave (SPEC 10.9): sans-I/O, `now` is an argument.

A sender of uTP sends on when what it sent is acknowledged. So who holds acknowledgements back decides how fast data
comes, to the packet, without the sender's help and without a queue anywhere on the link: the data that isn't
acknowledged yet has arrived. Each acknowledgement waits for its turn: the one before it, and then the time that the data
it acknowledges takes at the wanted rate. What this node sends itself is paced likewise by its size.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Generic, TypeVar

T = TypeVar("T")

MAX_DEBT_S = 1.0
"""A rate that falls to a hundredth would leave minutes of silence for what came before; it was allowed to come."""

MAX_WAITING = 2048
"""Packets: a window of a megabyte. What comes on top is lost, as in any router."""


@dataclass(slots=True)
class _Waiting(Generic[T]):
    packet: T
    cost: int
    since: float


class Pacer(Generic[T]):
    """One queue with one rate.

    Attributes:
        dropped: Packets that found the queue full.
    """

    def __init__(self) -> None:
        self.dropped = 0
        self._rate: float | None = None
        self._waiting: deque[_Waiting[T]] = deque()
        self._left_at = float("-inf")

    def __len__(self) -> int:
        return len(self._waiting)

    @property
    def rate_bytes_s(self) -> float | None:
        """None for no limit, 0 to hold all. May be changed at any time, and holds for what waits already."""
        return self._rate

    @rate_bytes_s.setter
    def rate_bytes_s(self, rate: float | None) -> None:
        if rate and (self._rate is None or rate < self._rate):
            owed = sum(one.cost for one in self._waiting)
            if owed > rate * MAX_DEBT_S:
                for one in self._waiting:
                    one.cost = max(1, int(one.cost * rate * MAX_DEBT_S / owed)) if one.cost else 0
        self._rate = rate

    def put(self, packet: T, cost: int, now: float) -> bool:
        """Let a packet wait for its turn, unless too many do.

        Args:
            packet: Any.
            cost: Bytes that it stands for; 0 goes as soon as it is first.
            now: Seconds.

        Returns:
            Whether it waits.
        """
        if len(self._waiting) >= MAX_WAITING:
            self.dropped += 1
            return False
        self._waiting.append(_Waiting(packet, cost, now))
        return True

    def due(self) -> float:
        """When the first packet may leave; infinity when none waits."""
        if not self._waiting:
            return float("inf")
        first = self._waiting[0]
        if self._rate is None or not first.cost:
            return float("-inf")
        if not self._rate:
            return float("inf")
        return max(self._left_at, first.since) + first.cost / self._rate

    def take(self, now: float) -> T | None:
        """The first packet, if its time has come."""
        due = self.due()
        if due > now:
            return None
        first = self._waiting.popleft()
        if first.cost:
            # No credit for silence: the next one doesn't come sooner because this one came late. But what the
            # clock's coarseness took from it is given back.
            self._left_at = max(due, now - COARSENESS_S)
        return first.packet


COARSENESS_S = 0.004
"""A loop wakes up some milliseconds late."""

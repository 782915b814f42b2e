"""Round trips, and how much longer each is than it has to be (SPEC 10.5)."""

from __future__ import annotations

from dataclasses import dataclass

BASE_BUCKET_S = 600.0
"""The base of a round trip is the least of the last 10 to 20 minutes, longer than a film's trailer: a download by the
public that fills the queue all that time must not become the base."""
MAX_SOURCES = 64
PROBES = "parent"
"""The source of our own probes' round trips."""


@dataclass(frozen=True, slots=True)
class Sample:
    """A round trip.

    Attributes:
        at: When its answer came, monotonic seconds.
        delay_s: How long it took.
        source: Whose it is; each source has a base of its own.
    """

    at: float
    delay_s: float
    source: str = PROBES


class _Base:
    """The least delay of one source over the last one to two buckets of time."""

    __slots__ = ("_before", "_since", "_this", "seen_at")

    def __init__(self, sample: Sample) -> None:
        self._before = self._this = sample.delay_s
        self._since = self.seen_at = sample.at

    @property
    def least(self) -> float:
        return min(self._this, self._before)

    def excess(self, sample: Sample) -> float:
        if sample.at - self._since >= BASE_BUCKET_S:
            self._before, self._this, self._since = self._this, sample.delay_s, sample.at
        self._this = min(self._this, sample.delay_s)
        self.seen_at = sample.at
        return sample.delay_s - self.least


class RoundTrips:
    """The bases of all sources, the longest silent ones forgotten first."""

    def __init__(self) -> None:
        self._bases: dict[str, _Base] = {}

    def __len__(self) -> int:
        return len(self._bases)

    def excess_s(self, sample: Sample) -> float:
        """How much longer this one took than the shortest of its source."""
        base = self._bases.get(sample.source)
        if base is None:
            if len(self._bases) >= MAX_SOURCES:
                del self._bases[min(self._bases, key=lambda name: self._bases[name].seen_at)]
            base = self._bases[sample.source] = _Base(sample)
        return base.excess(sample)

    def base_s(self, source: str) -> float | None:
        """The shortest round trip of a source; None when it has none."""
        base = self._bases.get(source)
        return None if base is None else base.least

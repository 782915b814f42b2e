"""What a link carries, learnt from the transfers that happen anyway, never by a flood (SPEC 10.1).

A transfer shows the link's rate when it was the link that held it back: not a limit of ours, and delays rose
meanwhile, since a queue stood before the bottleneck. Others may have had their part of the link at the time, so the
rate is a high percentile of such intervals. Every other interval shows that the link carries at least as much.

A rate in the configuration counts as it is; when transfers contradict it for long, that is told.
"""

from __future__ import annotations

import enum
from collections import deque
from dataclasses import dataclass

from cuntong_protocol.divisions import Tier
from cuntong_protocol.texts import N_, Sentence, sentence

ASSUMED_BYTES_S = {Tier.TOWNSHIP: 250_000, Tier.VILLAGE: 64_000}
"""The programme's minima, 2 Mbit/s and 512 kbit/s. Above, nothing is assumed."""
MEMORY_S = 1800.0
"""Lines change with the weather, not with the minute."""
MAX_INTERVALS = 60
MIN_INTERVAL_S = 0.9
"""A shorter interval may be one lump of 16 KiB."""
PERCENTILE = 0.9
ENOUGH = 20
"""Intervals held back by the link for full confidence."""
SURE = 0.5
LOW, HIGH = 0.7, 1.3
"""Within these parts of the configured rate there is no contradiction: headers, and others on the line."""
CONTRADICTED_S = 600.0


class How(enum.Enum):
    """How a rate is known."""

    CONFIGURED = "configured"
    MEASURED = "measured"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Interval:
    """What was moved in one direction for a while.

    Attributes:
        at: Its end, monotonic seconds.
        seconds: Its length.
        bytes_moved: On the wire.
        is_limited_by_us: A limit, a pause, or want of anything to move held it back.
        is_delay_rising: Round trips were longer than on an idle link, about as long as uTP's target or more.
    """

    at: float
    seconds: float
    bytes_moved: int
    is_limited_by_us: bool
    is_delay_rising: bool


@dataclass(frozen=True, slots=True)
class Estimate:
    """What a link carries in one direction.

    Attributes:
        bytes_s: 0 when nothing is known and nothing assumed.
        how: Where the figure comes from.
        confidence: 0 to 1; a configured rate has 1 until transfers contradict it.
        reason: For people.
        contradiction: What should be looked at in the configuration.
    """

    bytes_s: int
    how: How
    confidence: float
    reason: Sentence
    contradiction: Sentence | None = None


class LinkRate:
    """One direction of one link.

    Args:
        tier: Of the node at the thin end: tells what is assumed.
        configured_bytes_s: From the configuration; 0: not given.
    """

    def __init__(self, tier: Tier, configured_bytes_s: int = 0) -> None:
        self._assumed = ASSUMED_BYTES_S.get(tier, 0)
        self._configured = configured_bytes_s
        self._full: deque[tuple[float, float]] = deque(maxlen=MAX_INTERVALS)
        self._least: tuple[float, float] = (0.0, 0.0)
        self._contradicted_since: float | None = None

    def add(self, interval: Interval) -> None:
        """Learn from a transfer."""
        if interval.seconds < MIN_INTERVAL_S or interval.bytes_moved <= 0:
            return
        rate = interval.bytes_moved / interval.seconds
        if rate >= self._least[1] or interval.at - self._least[0] > MEMORY_S:
            self._least = (interval.at, rate)
        if interval.is_delay_rising and not interval.is_limited_by_us:
            self._full.append((interval.at, rate))

    def estimate(self, now: float) -> Estimate:
        """What is known at `now`, monotonic seconds."""
        measured, confidence = self._measured(now)
        if self._configured:
            contradiction = self._contradiction(now, measured, confidence)
            return Estimate(
                self._configured,
                How.CONFIGURED,
                1.0 if contradiction is None else 1.0 - confidence,
                sentence("link-rate.configured", N_("It stands in config.toml.")),
                contradiction,
            )
        if measured:
            return Estimate(
                measured,
                How.MEASURED,
                confidence,
                sentence("link-rate.measured", N_("It was measured from transfers.")),
            )
        if self._assumed:
            reason = sentence("link-rate.assumed", N_("It is the least for a place of this kind."))
        else:
            reason = sentence("link-rate.unknown", N_("No transfer has shown it yet."))
        return Estimate(self._assumed, How.UNKNOWN, 0.0, reason)

    def _measured(self, now: float) -> tuple[int, float]:
        rates = sorted(rate for at, rate in self._full if now - at <= MEMORY_S)
        if not rates:
            # That it carries at least so much is worth saying only beyond what is assumed anyway.
            at, least = self._least
            if now - at <= MEMORY_S and least > max(self._assumed, self._configured):
                return int(least), 0.1
            return 0, 0.0
        rate = rates[min(int(len(rates) * PERCENTILE), len(rates) - 1)]
        return int(rate), min(1.0, len(rates) / ENOUGH)

    def _contradiction(self, now: float, measured: int, confidence: float) -> Sentence | None:
        at, least = self._least
        is_more = now - at <= MEMORY_S and least > self._configured * HIGH
        is_less = confidence >= SURE and measured < self._configured * LOW
        if not (is_more or is_less):
            self._contradicted_since = None
            return None
        if self._contradicted_since is None:
            self._contradicted_since = now
        if now - self._contradicted_since < CONTRADICTED_S:
            return None
        return sentence(
            "link-rate.contradiction",
            N_("config.toml says {configured} kbit/s, but transfers show {measured} kbit/s."),
            configured=self._configured * 8 // 1000,
            measured=int(max(least, measured) if is_more else measured) * 8 // 1000,
        )

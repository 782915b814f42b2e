"""What the sky didn't bring: when a node with a return path asks the swarm for it (SPEC 11.12).

Only when that is sooner than the next time round; neighbours first; and after a delay of its own, because a rain cell
hits many villages at once and they share what is above them.
"""

from __future__ import annotations

import enum
import math
from dataclasses import dataclass, field

from cuntong_protocol.texts import N_, Sentence, sentence

USABLE_PART = 0.9
"""Of a link: what transfers get of it in the long run."""
ASSUMED_LINK_BYTES_S = 64_000
DELAY_PART = 0.25
"""The longest delay, as a part of the time until the air would have brought it."""
MIN_DELAY_S = 30.0
MAX_DELAY_S = 1800.0
NEIGHBOURS_S = 120.0
"""So long neighbours are asked alone."""
BACK_FACTOR = 2.0
"""Who has begun to fetch goes on, unless the air is twice as fast."""


class Source(enum.StrEnum):
    """Where a bundle that is on the air comes from."""

    AIR = "air"
    NEIGHBOURS = "neighbours"
    ANYBODY = "anybody"


@dataclass(slots=True)
class Repair:
    """The decision for one bundle, kept from call to call.

    Attributes:
        delay_part: This node's place in the delay, 0 to 1; drawn at random.
        source: Where the bundle comes from now.
        reason: Why.
    """

    delay_part: float
    source: Source = Source.AIR
    reason: Sentence = field(default_factory=lambda: _from_air(math.inf))
    _sooner_since: float = math.inf
    _asked_at: float = math.inf

    def decide(
        self,
        now: float,
        *,
        missing_bytes: int,
        link_bytes_s: int,
        air_s: float,
        has_neighbours: bool,
    ) -> Source:
        """Look again.

        Args:
            now: Seconds of a steady clock.
            missing_bytes: Of the pieces that aren't here.
            link_bytes_s: What the link carries; 0: not known.
            air_s: Until the air will have brought it; infinite when it isn't heard.
            has_neighbours: Whether neighbours that may have it are known.
        """
        fetch_s = missing_bytes / ((link_bytes_s or ASSUMED_LINK_BYTES_S) * USABLE_PART)
        if self.source is not Source.AIR:
            if fetch_s > air_s * BACK_FACTOR:
                self.source, self._sooner_since = Source.AIR, math.inf
            elif not has_neighbours or now - self._asked_at >= NEIGHBOURS_S:
                self.source = Source.ANYBODY
        elif fetch_s >= air_s:
            self._sooner_since = math.inf
        else:
            self._sooner_since = min(self._sooner_since, now)
            if now - self._sooner_since >= self.delay_part * _longest_delay(air_s):
                self.source = Source.NEIGHBOURS if has_neighbours else Source.ANYBODY
                self._asked_at = now
        self.reason = _from_air(air_s) if self.source is Source.AIR else _from_swarm(air_s)
        return self.source


def _longest_delay(air_s: float) -> float:
    return min(MAX_DELAY_S, max(MIN_DELAY_S, air_s * DELAY_PART))


def air_wait(now: float, *, begins: float, ends: float, after: float, missing_part: float) -> float:
    """How long until the air will have brought what is missing.

    Args:
        now: By the sender's clock, as the other times are; seconds.
        begins: When the present or next pass begins.
        ends: When it is through.
        after: When the pass after that begins; 0: it isn't planned.
        missing_part: Of a pass, what the block that lacks most still needs.

    Returns:
        Seconds; infinite when nothing is known.
    """
    duration = max(1.0, ends - begins)
    if now < begins:
        return begins - now + missing_part * duration
    coming = max(0.0, (ends - now) / duration)
    if missing_part <= coming:
        return missing_part * duration
    if not after:
        return math.inf
    return max(after - now, 0.0) + (missing_part - coming) * duration


def _from_air(air_s: float) -> Sentence:
    if math.isinf(air_s):
        return sentence("repair.air", N_("It comes by satellite."))
    return sentence(
        "repair.air-in",
        N_("It comes by satellite; what is missing will be here in about {minutes} minutes."),
        minutes=max(1, round(air_s / 60)),
    )


def _from_swarm(air_s: float) -> Sentence:
    if math.isinf(air_s):
        return sentence(
            "repair.silent", N_("The satellite isn't heard; what is missing comes over the link.")
        )
    return sentence(
        "repair.sooner",
        N_(
            "What is missing comes over the link: by satellite it would take about {minutes} minutes."
        ),
        minutes=max(1, round(air_s / 60)),
    )

"""The way from the satellite to one dish: what happens to each packet, and when it arrives.

Pure and seeded: the same seed and the same times give the same fates. Each kind of trouble draws from random numbers of
its own, so that other weather or more duplicates don't change which packets the noise takes.

- *Noise*: each packet is lost with a probability, independently.
- *Bursts*: the chain of two states of Gilbert (1960) and Elliott (1963), stepped with each packet.
- *Fades*: from a trace (`traces`). Modern codes end like a cliff: nothing comes through, or all.
- *Reordering*: some packets arrive later than those that were sent after them. *Duplicates* arrive twice.
"""

from __future__ import annotations

import math
from bisect import bisect, bisect_right
from functools import lru_cache
from random import Random
from typing import Annotated, Literal

import msgspec

from .traces import Fade

Share = Annotated[float, msgspec.Meta(ge=0, le=1)]
Chance = Annotated[float, msgspec.Meta(gt=0, le=1)]
Seconds = Annotated[float, msgspec.Meta(ge=0, le=3600)]
Cause = Literal["noise", "burst", "fade"]


class Bursts(msgspec.Struct, frozen=True, kw_only=True):
    """The chain's bad state.

    Attributes:
        begins: Probability, with each packet, that it begins.
        ends: Probability, with each packet of it, that it ends; a burst has 1 / `ends` packets in the mean.
        loss: Of the packets in it.
    """

    begins: Share
    ends: Chance
    loss: Share = 1.0

    @property
    def share(self) -> float:
        """Of all packets: how many are in bursts."""
        return self.begins / (self.begins + self.ends)


def bursts_of(loss: float, *, packets: float) -> Bursts:
    """Bursts that take this share of all packets, each so many in the mean.

    Args:
        loss: More than 0, less than 1.
        packets: At least 1.

    Raises:
        ValueError: there are no such bursts.
    """
    if not 0 < loss < 1 or packets < 1:
        raise ValueError((loss, packets))
    begins = loss / (1 - loss) / packets
    if begins > 1:
        raise ValueError((loss, packets))
    return Bursts(begins=begins, ends=1 / packets)


class ChannelSettings(msgspec.Struct, frozen=True, kw_only=True):
    """What a channel does to packets; without anything said it does nothing.

    Attributes:
        loss: Of the noise.
        fades: In order, without overlaps; seconds of the clock that `Channel` is asked by.
        delay_s: To the satellite and back: 0.25 for a geostationary one.
        reordered: Share of the packets that come `reordered_by_s` later than they should.
        duplicated: Share that comes twice.
    """

    loss: Share = 0.0
    bursts: Bursts | None = None
    fades: tuple[Fade, ...] = ()
    delay_s: Seconds = 0.0
    reordered: Share = 0.0
    reordered_by_s: Seconds = 0.01
    duplicated: Share = 0.0


class Channel:
    """One dish's channel.

    Attributes:
        lost: Packets so far, by what took them.
        carried: Packets that arrived, each counted once.
        reordered: Of these, how many came late.
        duplicated: And how many came twice.
    """

    def __init__(self, settings: ChannelSettings, *, seed: str) -> None:
        """Begin with the first packet, in the good state.

        Args:
            settings: What to do.
            seed: Of everything random; another dish needs another one.
        """
        self.settings = settings
        self._noise, self._burst, self._fade, self._late, self._twice = (
            Random(f"{seed} {kind}")  # noqa: S311 - has to be repeatable.
            for kind in ("noise", "burst", "fade", "late", "twice")
        )
        self._begins = [fade.begin_s for fade in settings.fades]
        self._is_bad = False
        self.lost: dict[Cause, int] = {"noise": 0, "burst": 0, "fade": 0}
        self.carried = 0
        self.reordered = 0
        self.duplicated = 0

    # Packet by packet.

    def carry(self, at_s: float) -> tuple[float, ...]:
        """What happens to the next packet, which is sent now.

        Returns:
            When its copies arrive; none when it is lost.
        """
        cause = self._next_loss(at_s)
        settings = self.settings
        is_late = settings.reordered > 0 and self._late.random() < settings.reordered
        is_twice = settings.duplicated > 0 and self._twice.random() < settings.duplicated
        if cause is not None:
            self.lost[cause] += 1
            return ()
        self.carried += 1
        arrives = at_s + settings.delay_s
        if is_late:
            self.reordered += 1
            arrives += settings.reordered_by_s
        if is_twice:
            self.duplicated += 1
            return (arrives, arrives)
        return (arrives,)

    def _next_loss(self, at_s: float) -> Cause | None:
        """Every packet draws the same numbers, whatever becomes of it."""
        settings = self.settings
        cause: Cause | None = None
        if settings.loss and self._noise.random() < settings.loss:
            cause = "noise"
        bursts = settings.bursts
        if bursts is not None:
            turns = bursts.ends if self._is_bad else bursts.begins
            if self._burst.random() < turns:
                self._is_bad = not self._is_bad
            if self._is_bad and self._burst.random() < bursts.loss:
                cause = "burst"
        if self._begins:
            faded = self.faded(at_s)
            if faded and self._fade.random() < faded:
                cause = "fade"
        return cause

    def faded(self, at_s: float) -> float:
        """The share of packets that a fade takes at a time."""
        place = bisect_right(self._begins, at_s) - 1
        if place < 0:
            return 0.0
        fade = self.settings.fades[place]
        return fade.loss if at_s < fade.end_s else 0.0

    # Many packets at once.

    def come_through(self, count: int, at_s: float) -> int:
        """How many of the next packets, all sent at about the same time, arrive at all.

        It has the distribution that `carry` has, but not its numbers, and costs next to nothing.
        """
        settings = self.settings
        passes = (1 - settings.loss) * (1 - self.faded(at_s))
        if passes <= 0.0:
            self._step_state(count)
            return 0
        bursts = settings.bursts
        if bursts is None:
            return draw_binomial(count, passes, self._noise)
        bad = self._step_state(count)
        return draw_binomial(count - bad, passes, self._noise) + draw_binomial(
            bad, passes * (1 - bursts.loss), self._noise
        )

    def _step_state(self, count: int) -> int:
        """Let packets go by; returns how many of them were in the bad state."""
        bursts = self.settings.bursts
        if bursts is None:
            return 0
        bad = 0
        left = count
        while left:
            turns = bursts.ends if self._is_bad else bursts.begins
            # So many stay in this state before one turns: geometric, and without memory, so that nothing is kept
            # from one call to the next.
            stay = min(left, _geometric(turns, self._burst))
            bad += stay if self._is_bad else 0
            left -= stay
            if left:
                self._is_bad = not self._is_bad
                bad += self._is_bad
                left -= 1
        return bad


def _geometric(chance: float, random: Random) -> int:
    """How many failures come before the first success."""
    if chance >= 1.0:
        return 0
    if chance <= 0.0:
        return 1 << 62
    return int(math.log(1.0 - random.random()) / math.log1p(-chance))


def draw_binomial(count: int, chance: float, random: Random) -> int:
    """How many of `count` succeed, from one random number.

    Args:
        count: At most a few hundred.
        chance: Of each.
        random: Gives the number.
    """
    if count <= 0 or chance <= 0.0:
        return 0
    if chance >= 1.0:
        return count
    return min(count, bisect(_distribution(count, chance), random.random()))


@lru_cache(maxsize=4096)
def _distribution(count: int, chance: float) -> list[float]:
    """The probabilities of at most 0, 1, … successes."""
    odds = math.log(chance / (1 - chance))
    start = count * math.log1p(-chance)
    total = 0.0
    found: list[float] = []
    for successes in range(count + 1):
        total += math.exp(start + math.log(math.comb(count, successes)) + successes * odds)
        found.append(total)
    return found

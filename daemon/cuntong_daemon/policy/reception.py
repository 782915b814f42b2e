"""How long a set takes: what a sender would send, and when receivers in the weather would have it (SPEC 11.10).

Pure, on a counted clock: the sender's own policy (`airtime`) says which symbols go out when, and for each receiver a
block is there when as many of its symbols have come as the block has (RFC 6330). Nothing is encoded and no packet made,
so that a thousand receivers of a gigabyte take seconds.

What is exact: which run of which block is on the air when, of bundles up to 4 GiB (`Broadcast.add`); which runs a fade
takes; how many symbols random loss takes until a block is whole (`Weather.symbols_needed`). What is left out: manifests
and catalogues, which come soon enough; disks that are full; receivers that share a rain cell, unless a trace says so.
"""

from __future__ import annotations

import math
from array import array
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Protocol

from cuntong_protocol.datacast.blocks import (
    BLOCK_BYTES,
    PASSES_WITHOUT_REPEAT,
    object_blocks,
    pass_length,
    symbol_count,
)
from cuntong_protocol.datacast.packets import (
    DIGEST_BYTES,
    DIGESTS_AT_ONCE,
    HEADER_BYTES,
    IP_BYTES,
    PACKET_BYTES,
    SIGNATURE_BYTES,
    SYMBOL_BYTES,
)

from .airtime import RUN_SYMBOLS, Aired, Airtime, Kind

_SEGMENTS_BYTES = 1 + 2 * 10
"""Of a digest packet: two runs."""
_DIGESTS_BYTES = (
    IP_BYTES + HEADER_BYTES + _SEGMENTS_BYTES + DIGESTS_AT_ONCE * DIGEST_BYTES + SIGNATURE_BYTES
)
SYMBOL_AIR_BYTES = IP_BYTES + PACKET_BYTES + _DIGESTS_BYTES / DIGESTS_AT_ONCE
"""What a symbol takes of the satellite's rate, its part of a digest packet (1.3 %) included."""
ONE_MORE = 1 / 256
"""So many blocks need one symbol more than they have (RFC 6330: a decoder fails with 1/256 for K symbols)."""
IDLE_S = 0.1
"""The sender looks again so soon when there is nothing to send."""
HOUR_S = 3600.0
_FAR_SD = 12.0
_FAR_SYMBOLS = 40
"""The chance of losing more than this beyond the mean is below one in ten million."""


class Chance(Protocol):
    """A `random.Random`."""

    def random(self) -> float: ...


def symbols_per_s(rate_bytes_s: float) -> float:
    """Symbols that are sent in a second at a rate with IP headers."""
    return rate_bytes_s / SYMBOL_AIR_BYTES


@dataclass(slots=True)
class SentBlock:
    """When the symbols of a block were sent.

    Attributes:
        size: In bytes.
        blocks: How many of this size it stands for.
        run: Symbols that follow each other on the air; the last run of a pass may be shorter.
        times: The middle of each run.
    """

    size: int
    blocks: int
    run: int
    times: array[float] = field(default_factory=lambda: array("d"))

    @property
    def length(self) -> int:
        """Symbols of one pass."""
        return self.blocks * pass_length(self.size)


class Broadcast:
    """What a sender sends, from 0 on.

    Attributes:
        air: Decides; whoever wants other things on the air adds them there.
        now: Until then it has been sent. Seconds.
        blocks: What was sent of each bundle.
    """

    def __init__(self, symbols_s: float) -> None:
        """Begin at 0 with nothing on the air.

        Args:
            symbols_s: What is sent in a second (`symbols_per_s`).
        """
        self.air = Airtime()
        self.now = 0.0
        self.blocks: dict[str, list[SentBlock]] = {}
        self.sizes: dict[str, int] = {}
        self._symbol_s = 1 / symbols_s

    def add(
        self,
        key: str,
        size: int,
        *,
        priority: int = 5,
        is_urgent: bool = False,
        order: int = 0,
        most_blocks: int = 1024,
    ) -> None:
        """Put a bundle on the air now.

        Args:
            key: Unique.
            size: In bytes, at least 1.
            priority: 0 to 9.
            is_urgent: Gets two slots.
            order: Place among first passes.
            most_blocks: Of a bundle with more whole blocks, several are followed as one: they are sent together, and it
                is there when the one is that has lost the most.
        """
        sizes = object_blocks(size)
        multiple = -(-len(sizes) // most_blocks)
        run = RUN_SYMBOLS * multiple
        if multiple == 1:
            blocks = [SentBlock(block, 1, run) for block in sizes]
        else:
            whole = len(
                sizes
            )  # The last one, too: as one of its own it would have a few long runs only.
            shares = [
                whole * (n + 1) // most_blocks - whole * n // most_blocks
                for n in range(most_blocks)
            ]
            blocks = [SentBlock(BLOCK_BYTES, share, run) for share in shares]
        self.blocks[key] = blocks
        self.sizes[key] = size
        self.air.add(
            Aired(
                key,
                Kind.BUNDLE,
                [block.length for block in blocks],
                [0] * len(blocks),
                priority=priority,
                is_urgent=is_urgent,
                order=order,
                run_symbols=run,
            )
        )

    @property
    def progress(self) -> float:
        """Passes of the bundle that is furthest behind."""
        return min(self.air.items[key].progress for key in self.blocks)

    def send(self, until_s: float) -> None:
        """Let time pass."""
        air, symbol_s, blocks = self.air, self._symbol_s, self.blocks
        while self.now < until_s:
            run = air.next_run(self.now)
            if run is None:
                self.now += IDLE_S
                continue
            took = run.count * symbol_s
            if run.item in blocks:
                blocks[run.item][run.block].times.append(self.now + took / 2)
            self.now += took

    def sent_bytes(self, key: str, until_s: float) -> int:
        """Bytes of a bundle's symbols that were sent until then, without headers."""
        return SYMBOL_BYTES * sum(
            _symbols_of(bisect_left(block.times, until_s), block.length, block.run)
            for block in self.blocks[key]
        )

    def half_run_s(self, block: SentBlock) -> float:
        """From the middle of a run to its end."""
        return min(block.run, block.length) * self._symbol_s / 2


class Weather:
    """What keeps symbols from a receiver."""

    def __init__(
        self,
        *,
        loss: float = 0.0,
        fade_s: float = 0.0,
        fades_an_hour: float = 0.0,
        trace: Sequence[tuple[float, float]] | None = None,
    ) -> None:
        """Say how it is.

        Args:
            loss: The part of all packets that is lost, each by itself; below 1.
            fade_s: How long nothing at all comes.
            fades_an_hour: How often that begins, at even intervals, for each receiver at another moment.
            trace: Fades of all receivers instead, as (begin, end) in seconds, in order.
        """
        self.loss = loss
        self._fade_s = fade_s
        self._every_s = HOUR_S / fades_an_hour if fades_an_hour and fade_s else math.inf
        self._trace = trace
        self._tables: dict[int, tuple[int, list[float]]] = {}

    @property
    def clear_part(self) -> float:
        """Which part of the symbols comes, in the long run and without a trace."""
        return (1 - self.loss) * (1 - self._fade_s / self._every_s)

    def fades(self, chance: Chance, until_s: float) -> Sequence[tuple[float, float]]:
        """One receiver's fades, in order: (begin, end) in seconds."""
        if self._trace is not None:
            return self._trace
        if self._every_s == math.inf:
            return ()
        # The one before the first may still last at 0.
        first = (chance.random() - 1) * self._every_s
        begins = (first + n * self._every_s for n in range(int(until_s / self._every_s) + 2))
        return [(begin, begin + self._fade_s) for begin in begins]

    def symbols_needed(self, size: int, chance: Chance, *, blocks: int = 1) -> int:
        """How many different symbols of a block must be sent, without a fade, for one receiver to have it.

        Exact: the losses before the K-th symbol arrives are distributed as a negative binomial.

        Args:
            size: Of the block, in bytes.
            chance: Where chance comes from.
            blocks: Of several blocks of this size: as many as the unluckiest needs.
        """
        count = symbol_count(size)
        if count not in self._tables:
            self._tables[count] = _losses(count, self.loss)
        least, cumulative = self._tables[count]
        point = chance.random() ** (1 / blocks) if blocks > 1 else chance.random()
        return count + least + bisect_left(cumulative, point * cumulative[-1])


def receive(
    sent: Broadcast, weather: Weather, chance: Chance, *, since_s: float = 0.0
) -> dict[str, list[float]]:
    """When one receiver has each block of each bundle: seconds on the broadcast's clock.

    `math.inf`: not with what has been sent so far, or not with the symbols of 16 passes: those after them come again, and
    that isn't followed.

    Args:
        sent: What has been sent.
        weather: What keeps it from the receiver.
        chance: Where chance comes from. The same one gives the same again, and more when more has been sent.
        since_s: Before that the receiver doesn't listen.
    """
    fades = weather.fades(chance, sent.now)
    return {
        key: [
            _time_of(
                block,
                block.blocks * weather.symbols_needed(block.size, chance, blocks=block.blocks),
                fades,
                since_s,
            )
            + sent.half_run_s(block)
            for block in blocks
        ]
        for key, blocks in sent.blocks.items()
    }


def time_of_part(times: Sequence[float], part: float) -> float:
    """When a part of the receivers, 0 to 1, had something; `times` has one entry for each."""
    return sorted(times)[max(0, math.ceil(part * len(times) - 1e-9) - 1)]


def _time_of(
    block: SentBlock, needed: int, fades: Sequence[tuple[float, float]], since_s: float
) -> float:
    """The middle of the run with which so many symbols have come."""
    times, length, run = block.times, block.length, block.run
    if needed > PASSES_WITHOUT_REPEAT * length:
        return math.inf
    missed = _symbols_of(bisect_left(times, since_s), length, run)
    for begin, end in fades:
        if end <= since_s:
            continue
        first = bisect_left(times, max(begin, since_s))
        before = _symbols_of(first, length, run)
        if before - missed >= needed:
            break
        missed += _symbols_of(bisect_left(times, end, first), length, run) - before
    passes, rest = divmod(needed + missed - 1, length)
    index = passes * -(-length // run) + rest // run
    return times[index] if index < len(times) else math.inf


def _symbols_of(runs: int, length: int, run: int) -> int:
    """How many symbols a block's first runs have: a pass's last one ends with the pass."""
    passes, rest = divmod(runs, -(-length // run))
    return passes * length + rest * run


def _losses(count: int, loss: float) -> tuple[int, list[float]]:
    """How many symbols are lost, or needed beyond K, until a block is whole.

    Returns:
        The least number that is looked at, and from there on the probability that it is so many or fewer.
    """
    chances = [1.0]
    least = 0
    if loss:
        mean = count * loss / (1 - loss)
        far = _FAR_SD * math.sqrt(mean / (1 - loss))
        least = max(0, int(mean - far))
        logarithm = (
            math.lgamma(least + count)
            - math.lgamma(count)
            - math.lgamma(least + 1)
            + count * math.log1p(-loss)
            + least * math.log(loss)
        )
        chances = [math.exp(logarithm)]
        for lost in range(least, int(mean + far) + _FAR_SYMBOLS):
            chances.append(chances[-1] * loss * (lost + count) / (lost + 1))
    one_more = [
        chance * (1 - ONE_MORE) + before * ONE_MORE
        for chance, before in zip([*chances, 0.0], [0.0, *chances], strict=True)
    ]
    return least, list(accumulate(one_more))

"""The satellite's time on a counted clock: a day of it in seconds.

The daemon's own policy (`policy.airtime`) says what is sent, run by run; each dish's channel says how much of a run
arrives; a block is there when it has enough different symbols (RFC 6330). No packet is made and nothing is encoded, so
what this says holds as far as the policy goes: real packets are `tests/benchmarks/datacast.py`'s.

`policy.reception` forecasts the same from formulas, for one kind of weather and from the first bundle on. Here chance is
drawn for each run, so that bursts, manifests, dishes that are switched on late, numbers that begin anew and bundles that
come while others are sent all count; and each is a check of the other.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from random import Random

from cuntong_daemon.policy.airtime import Aired, Airtime, Kind
from cuntong_daemon.policy.reception import ONE_MORE, symbols_per_s
from cuntong_protocol.datacast.blocks import (
    esi_limit,
    object_blocks,
    pass_length,
    symbol_count,
)

from .channel import Channel

BEACON_AIR_BYTES_S = 1000
"""Beacon and identities, once a second."""
MANIFEST = "manifest/"
"""Begins the key of a bundle's manifest."""
IDLE_S = 0.05
"""The sender looks again so soon when there is nothing to send."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Publication:
    """A bundle that goes on the air.

    Attributes:
        key: Its name.
        size: In bytes.
        at_s: When.
        is_urgent: Gets two slots (`policy.airtime`).
        manifest_bytes: How large its manifest is.
    """

    key: str
    size: int
    at_s: float = 0.0
    priority: int = 5
    is_urgent: bool = False
    manifest_bytes: int = 4096


@dataclass(slots=True)
class Sent:
    """What the satellite's time was used for.

    Attributes:
        symbols: Of each item.
        idle_s: Time that fillers took.
        passes: Complete passes of each item.
    """

    symbols: dict[str, int] = field(default_factory=dict)
    idle_s: float = 0.0
    passes: dict[str, int] = field(default_factory=dict)


@dataclass(slots=True)
class _Gathered:
    """What a dish has of an item."""

    counts: list[int]
    needed: list[int]
    limits: Sequence[int]
    missing: int
    runs: dict[tuple[int, int], int] = field(default_factory=dict)

    def take(self, block: int, first: int, count: int, channel: Channel, now: float) -> None:
        """A run is on the air."""
        if self.counts[block] >= self.needed[block]:
            return
        limit = self.limits[block]
        came = channel.come_through(count, now)
        key = (block, first % limit)
        if first >= limit:
            # The numbers have begun anew: what is here already is of no use. Which ones came is up to chance.
            known = self.runs.get(key, 0)
            came = round(came * (1 - known / count))
            self.runs[key] = known + came
        elif came:
            self.runs[key] = came
        self.counts[block] += came
        if self.counts[block] >= self.needed[block]:
            self.missing -= 1


class Dish:
    """A receiver.

    Attributes:
        since_s: Before that it is switched off.
        complete_s: When it had a bundle and its manifest, by the bundle's key.
    """

    def __init__(self, name: str, channel: Channel, *, seed: int, since_s: float = 0.0) -> None:
        self.name = name
        self.channel = channel
        self.since_s = since_s
        self.complete_s: dict[str, float] = {}
        self._random = Random(f"{seed} {name}")  # noqa: S311 - has to be repeatable.
        self._items: dict[str, _Gathered] = {}

    def want(self, key: str, sizes: Sequence[int]) -> None:
        """Gather an item."""
        needed = [symbol_count(size) + (self._random.random() < ONE_MORE) for size in sizes]
        limits = [esi_limit(size) for size in sizes]
        self._items[key] = _Gathered([0] * len(sizes), needed, limits, len(sizes))

    def has(self, key: str) -> bool:
        """Whether all of an item is here."""
        item = self._items.get(key)
        return item is not None and not item.missing

    def hear(self, key: str, block: int, first: int, count: int, now: float) -> bool:
        """A run is on the air; returns whether all of the item is here with it, and wasn't before."""
        item = self._items.get(key)
        if item is None or not item.missing or now < self.since_s:
            return False
        item.take(block, first, count, self.channel, now)
        return not item.missing


class Medium:
    """One satellite, one sender, many dishes."""

    def __init__(
        self, publications: Sequence[Publication], dishes: Sequence[Dish], *, rate_bytes_s: int
    ) -> None:
        """Begin at 0 with nothing on the air.

        Args:
            publications: What is published when.
            dishes: All of them want all of it.
            rate_bytes_s: What is sent, IP headers included.
        """
        self._coming = sorted(publications, key=lambda it: it.at_s, reverse=True)
        self.dishes = list(dishes)
        self.air = Airtime()
        self.now = 0.0
        self.sent = Sent()
        self._symbol_s = 1 / symbols_per_s(rate_bytes_s - BEACON_AIR_BYTES_S)
        self._known: dict[str, Publication] = {}
        self._waiting: dict[str, list[Dish]] = {}

    def run(self, until_s: float, *, is_over_when_complete: bool = False) -> None:
        """Let time pass.

        Args:
            until_s: Up to then.
            is_over_when_complete: Stop as soon as every dish has everything, and nothing more is to come.
        """
        while self.now < until_s:
            while self._coming and self._coming[-1].at_s <= self.now:
                self._publish(self._coming.pop())
            if is_over_when_complete and not self._waiting and not self._coming:
                break
            run = self.air.next_run(self.now)
            if run is None:
                self.now += IDLE_S
                self.sent.idle_s += IDLE_S
                continue
            bundle = run.item.removeprefix(MANIFEST)
            has_news = False
            for dish in self._waiting.get(bundle, ()):
                has_news |= dish.hear(run.item, run.block, run.first, run.count, self.now)
            self.now += run.count * self._symbol_s
            self.sent.symbols[run.item] = self.sent.symbols.get(run.item, 0) + run.count
            if has_news:
                self._look(bundle)
        self.sent.passes = {key: item.complete_passes for key, item in self.air.items.items()}

    def complete_part(self, key: str, *, by_s: float = math.inf) -> float:
        """The share of the dishes that had a bundle by then; `by_s` counts from its publication."""
        begin = self._known[key].at_s
        done = sum(dish.complete_s.get(key, math.inf) - begin <= by_s for dish in self.dishes)
        return done / len(self.dishes)

    def waits_s(self, key: str) -> list[float]:
        """How long each dish that has a bundle waited for it, shortest first."""
        begin = self._known[key].at_s
        return sorted(
            dish.complete_s[key] - begin for dish in self.dishes if key in dish.complete_s
        )

    def symbols_needed(self, key: str) -> int:
        """What a bundle would take without any loss."""
        return sum(symbol_count(size) for size in object_blocks(self._known[key].size))

    def _publish(self, it: Publication) -> None:
        self._known[it.key] = it
        self._waiting[it.key] = list(self.dishes)
        manifest = MANIFEST + it.key
        for key, size in ((manifest, it.manifest_bytes), (it.key, it.size)):
            sizes = object_blocks(size)
            for dish in self.dishes:
                dish.want(key, sizes)
            lengths = [pass_length(size) for size in sizes]
            is_bundle = key == it.key
            self.air.add(
                Aired(
                    key,
                    Kind.BUNDLE if is_bundle else Kind.METADATA,
                    lengths,
                    [0] * len(sizes),
                    priority=it.priority,
                    is_urgent=it.is_urgent and is_bundle,
                    order=len(self._known) if is_bundle else 2,
                    manifest=manifest if is_bundle else "",
                )
            )

    def _look(self, key: str) -> None:
        waiting = self._waiting[key]
        done = [dish for dish in waiting if dish.has(key) and dish.has(MANIFEST + key)]
        for dish in done:
            dish.complete_s[key] = self.now
            waiting.remove(dish)
        if not waiting:
            del self._waiting[key]

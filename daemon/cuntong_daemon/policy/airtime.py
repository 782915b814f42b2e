"""What goes on the air next (SPEC 11.10): the satellite's time, shared out symbol by symbol.

Pure: it knows sizes, priorities and how far each block is, and says which symbols of which block come next. A
block's *counter* is the number of its symbols that were sent so far; everything follows from the counters, so a
sender that was killed goes on where it was.

- Within an item the block with the least part of a pass behind it is next, in runs of 32 symbols. So a pass is
  spread over the whole item: a fade takes a little of each block instead of all of some.
- Items are served by deficit round robin (Shreedhar and Varghese, 1995) with weights.
- Items stand in four classes. *Metadata* (programme, catalogues, manifests) has 3 % reserved, and more while there
  is nothing else. Of the rest the *urgent* have at most 60 % while others wait, first passes (*fresh*) three times as
  much as what is repeated (*carousel*).
- An urgent bundle has two slots: a pass, and 0.30 of one at least 20 minutes after the beginning of the first, so
  that no fade of some minutes hits both. Then it is repeated like all others.
"""

from __future__ import annotations

import enum
import heapq
import math
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

RUN_SYMBOLS = 32
"""43 kB: what a receiver writes to one place of its disk at once."""
METADATA_PART = 0.03
URGENT_PART = 0.60
CLASS_WEIGHTS = (0.60, 0.30, 0.10)
"""Of urgent, fresh, carousel, while all three have something; what one doesn't use the others get."""
FRESH_AT_ONCE = 4
"""First passes at the same time: more would only make all of them late."""
SECOND_SLOT_PART = 0.30
SECOND_SLOT_AFTER_S = 1200.0
SECOND_SLOT_GAP_S = 300.0
"""At least so long between the end of the first slot and the second: longer than most fades."""
MANIFEST_INTERVAL_S = 600.0
QUANTUM_SYMBOLS = 2048
"""Of one round for a weight of 1; at 20 Mbit/s 1.1 s."""
PRIORITY_FACTOR = 1.5
MOST_CREDIT = 256.0
"""Symbols that metadata may be owed: a cycle of a small catalogue, not an hour without one."""
MOST_SKIPPED = 64
"""Blocks of an item that are looked at for one that is ready."""
SORTED_FOR_S = 0.5
"""Second slots begin by the clock."""


class Kind(enum.Enum):
    """What an item is."""

    METADATA = "metadata"
    BUNDLE = "bundle"


class Turn(enum.IntEnum):
    """The class in which a bundle is served."""

    URGENT = 0
    FRESH = 1
    CAROUSEL = 2


@dataclass(frozen=True, slots=True)
class Run:
    """Symbols to send: those that a block's counter passes from `first` on.

    Attributes:
        item: Its key.
        block: Number within the item.
        first: The block's counter; the symbol's number is this modulo the block's limit.
        count: How many.
    """

    item: str
    block: int
    first: int
    count: int


@dataclass(slots=True)
class Aired:
    """An item on the air.

    Attributes:
        key: Unique.
        passes: Symbols that one pass of each block has.
        counters: Symbols of each block that were handed out.
        priority: 0 to 9.
        is_urgent: Gets two slots, before others.
        order: Place among first passes, or among metadata.
        manifest: Of a bundle: the item that must have been sent once before.
        interval_s: Of metadata: a pass begins so long after the last one began.
        began_at: When the first pass began; `now` of `Airtime`.
        first_ended_at: When the first pass was complete.
    """

    key: str
    kind: Kind
    passes: Sequence[int]
    counters: list[int]
    priority: int = 5
    is_urgent: bool = False
    order: int = 0
    manifest: str = ""
    interval_s: float = MANIFEST_INTERVAL_S
    began_at: float = -math.inf
    first_ended_at: float = -math.inf
    due_at: float = -math.inf
    _heap: list[tuple[float, int]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._heap = [
            (counter / length, block)
            for block, (counter, length) in enumerate(zip(self.counters, self.passes, strict=True))
        ]
        heapq.heapify(self._heap)

    @property
    def progress(self) -> float:
        """Passes of the block that is furthest behind."""
        return self._heap[0][0]

    @property
    def complete_passes(self) -> int:
        return int(self.progress)

    @property
    def symbols_a_pass(self) -> int:
        return sum(self.passes)

    @property
    def remaining_symbols(self) -> int:
        """Of the present pass."""
        target = self.complete_passes + 1
        return sum(
            max(0, target * length - counter)
            for counter, length in zip(self.counters, self.passes, strict=True)
        )

    def take(self, is_ready: Callable[[int], bool]) -> Run | None:
        """The next run: of the block that is furthest behind among those that are ready."""
        skipped: list[tuple[float, int]] = []
        found: Run | None = None
        while self._heap and len(skipped) < MOST_SKIPPED:
            entry = heapq.heappop(self._heap)
            block = entry[1]
            if not is_ready(block):
                skipped.append(entry)
                continue
            counter, length = self.counters[block], self.passes[block]
            count = min(RUN_SYMBOLS, length - counter % length)
            self.counters[block] = counter + count
            heapq.heappush(self._heap, ((counter + count) / length, block))
            found = Run(self.key, block, counter, count)
            break
        for entry in skipped:
            heapq.heappush(self._heap, entry)
        return found


class Airtime:
    """Decides what is sent. `now` is in seconds of any clock that doesn't jump."""

    def __init__(self, is_ready: Callable[[str, int], bool] = lambda _item, _block: True) -> None:
        """Start with nothing on the air.

        Args:
            is_ready: Asked before each run whether the next symbols of an item's block can be had at once.
        """
        self._is_ready = is_ready
        self._items: dict[str, Aired] = {}
        self._rings: dict[Turn, deque[str]] = {turn: deque() for turn in Turn}
        self._weights: dict[str, float] = {}
        self._deficits: dict[str, float] = {}
        self._class_served = dict.fromkeys(Turn, 0.0)
        self._credit = 0.0
        self._sorted_at = -math.inf

    # What is on the air.

    @property
    def items(self) -> Mapping[str, Aired]:
        """Everything on the air, by key."""
        return self._items

    def add(self, item: Aired) -> None:
        """Put something on the air, or in the place of what has its key."""
        self.remove(item.key)
        self._items[item.key] = item
        self._sorted_at = -math.inf

    def remove(self, key: str) -> None:
        """Take something off the air; nothing happens when it isn't on it."""
        if self._items.pop(key, None) is not None:
            self._deficits.pop(key, None)
            for ring in self._rings.values():
                if key in ring:
                    ring.remove(key)

    # What comes next.

    def next_run(self, now: float) -> Run | None:
        """The next symbols to send; None when nothing is on the air, or nothing is ready."""
        if self._credit > 0:
            run = self._next_metadata(now)
            if run is not None:
                self._credit -= run.count
                return run
        run = self._next_content(now)
        if run is None:
            return self._next_metadata(now)
        self._credit = min(self._credit + METADATA_PART * run.count, MOST_CREDIT)
        return run

    def _next_metadata(self, now: float) -> Run | None:
        due = [
            item
            for item in self._items.values()
            if item.kind is Kind.METADATA and item.due_at <= now
        ]
        due.sort(key=lambda item: (item.order, item.due_at))
        for item in due:
            before = item.complete_passes
            run = item.take(partial(self._is_ready, item.key))
            if run is None:
                continue
            if item.began_at < item.due_at or item.began_at == -math.inf:
                item.began_at = now
            if item.complete_passes > before:
                item.due_at = item.began_at + item.interval_s
                if not before:
                    self._sorted_at = -math.inf  # What waited for it may begin.
            return run
        return None

    def _next_content(self, now: float) -> Run | None:
        if not 0 <= now - self._sorted_at < SORTED_FOR_S:
            self._sort(now)
        waiting = [turn for turn in Turn if self._rings[turn]]
        # First the class that has had the least of its share.
        for turn in sorted(waiting, key=self._class_served.__getitem__):
            run = self._next_of(turn, now)
            if run is not None:
                # Who had nothing to send gets no credit for that.
                least = min(self._class_served[other] for other in waiting)
                for other in Turn:
                    self._class_served[other] = max(self._class_served[other], least)
                self._class_served[turn] += run.count / CLASS_WEIGHTS[turn]
                return run
        return None

    def _sort(self, now: float) -> None:
        """Put every bundle into the ring where it belongs now."""
        self._sorted_at = now
        found: dict[Turn, list[Aired]] = {turn: [] for turn in Turn}
        for item in self._items.values():
            if item.kind is Kind.BUNDLE and self._may_begin(item):
                turn = turn_of(item, now)
                if turn is not None:
                    found[turn].append(item)
        found[Turn.FRESH].sort(key=lambda item: (item.order, item.key))
        del found[Turn.FRESH][FRESH_AT_ONCE:]
        self._weights.clear()
        for turn, items in found.items():
            ring, keys = self._rings[turn], {item.key for item in items}
            stay = [key for key in ring if key in keys]
            ring.clear()
            ring.extend(stay)
            ring.extend(item.key for item in items if item.key not in stay)
            weights = {item.key: weight_of(item, turn) for item in items}
            most = max(weights.values(), default=1.0)
            self._weights |= {key: weight / most for key, weight in weights.items()}

    def _may_begin(self, item: Aired) -> bool:
        """A bundle's symbols are of use when its manifest has been sent once."""
        manifest = self._items.get(item.manifest)
        return manifest is None or manifest.complete_passes > 0

    def _next_of(self, turn: Turn, now: float) -> Run | None:
        ring = self._rings[turn]
        unready = 0
        while unready < len(ring):
            key = ring[0]
            if self._deficits.get(key, 0.0) <= 0:
                ring.rotate(-1)
                more = QUANTUM_SYMBOLS * self._weights[key]
                self._deficits[key] = self._deficits.get(key, 0.0) + max(more, 1.0)
                continue
            item = self._items[key]
            before = item.complete_passes
            run = item.take(partial(self._is_ready, key))
            if run is None:
                ring.rotate(-1)
                unready += 1
                continue
            self._deficits[key] -= run.count
            if item.began_at == -math.inf:
                item.began_at = now
            if item.complete_passes > before:
                self._ended(item, now)
            return run
        return None

    def _ended(self, item: Aired, now: float) -> None:
        """A pass is through: its class may be another one, and its manifest comes before the next."""
        if item.first_ended_at == -math.inf:
            item.first_ended_at = now
        manifest = self._items.get(item.manifest)
        if manifest is not None:
            manifest.due_at = min(manifest.due_at, now)
        self._sorted_at = -math.inf


def turn_of(item: Aired, now: float) -> Turn | None:
    """In which class a bundle is served now; None: an urgent one between its two slots."""
    progress = item.progress
    if item.is_urgent and progress < 1 + SECOND_SLOT_PART:
        if progress < 1 or now >= second_slot_at(item):
            return Turn.URGENT
        return None
    return Turn.FRESH if progress < 1 else Turn.CAROUSEL


def second_slot_at(item: Aired) -> float:
    """When the second slot of an urgent bundle begins, once its first is complete."""
    return max(item.began_at + SECOND_SLOT_AFTER_S, item.first_ended_at + SECOND_SLOT_GAP_S)


def weight_of(item: Aired, turn: Turn) -> float:
    """The weight among others of a class.

    What is repeated gets the square root of demand times size: that makes the mean wait least (Ammar and Wong, 1985).
    """
    demand = PRIORITY_FACTOR**item.priority
    return math.sqrt(demand * item.symbols_a_pass) if turn is Turn.CAROUSEL else demand


@dataclass(frozen=True, slots=True)
class Forecast:
    """When a bundle comes round, as far as is known now; `now` of `Airtime`.

    Attributes:
        begins: When the present pass began, or the next one will begin.
        ends: When that is through.
        next: When the one after it begins.
    """

    begins: float
    ends: float
    next: float


def forecast(air: Airtime, *, symbols_s: float, now: float) -> dict[str, Forecast]:
    """Say when each bundle on the air comes round, should nothing be added.

    Args:
        air: What is on the air.
        symbols_s: Symbols that are sent in a second.
        now: The present.
    """
    groups: dict[Turn, list[Aired]] = {turn: [] for turn in Turn}
    found: dict[str, Forecast] = {}
    for item in air.items.values():
        if item.kind is not Kind.BUNDLE:
            continue
        turn = turn_of(item, now)
        if turn is None:
            begins = second_slot_at(item)
            ends = begins + SECOND_SLOT_PART * item.symbols_a_pass / (symbols_s * URGENT_PART)
            found[item.key] = Forecast(begins, ends, ends)
        else:
            groups[turn].append(item)
    busy = sum(CLASS_WEIGHTS[turn] for turn in Turn if groups[turn])
    rates = {
        turn: symbols_s * (1 - METADATA_PART) * CLASS_WEIGHTS[turn] / busy
        for turn in Turn
        if groups[turn]
    }
    ahead = 0
    for item in sorted(groups[Turn.FRESH], key=lambda item: (item.order, item.key)):
        begins = now + ahead / rates[Turn.FRESH] if item.began_at == -math.inf else item.began_at
        ahead += item.remaining_symbols
        ends = now + ahead / rates[Turn.FRESH]
        found[item.key] = Forecast(begins, ends, ends)
    for turn in (Turn.URGENT, Turn.CAROUSEL):
        total = sum(weight_of(item, turn) for item in groups[turn])
        for item in groups[turn]:
            rate = rates[turn] * weight_of(item, turn) / total
            ends = now + item.remaining_symbols / rate
            begins = ends - item.symbols_a_pass / rate
            if turn is Turn.URGENT:
                begins = now if item.began_at == -math.inf else item.began_at
            is_first = turn is Turn.URGENT and item.progress < 1
            after = max(begins + SECOND_SLOT_AFTER_S, ends + SECOND_SLOT_GAP_S)
            found[item.key] = Forecast(begins, ends, after if is_first else ends)
    return found

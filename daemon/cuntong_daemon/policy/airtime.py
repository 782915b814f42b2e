"""What goes on the air next (SPEC 11.10): the satellite's time, shared out symbol by symbol.

Pure: it knows sizes, priorities and how far each block is, and says which symbols of which block come next. A
block's *counter* is the number of its symbols that were sent so far; everything follows from the counters, so a
sender that was killed goes on where it was.

- Within an item the block with the least part of a pass behind it is next, in runs of 32 symbols. So a pass is
  spread over the whole item: a fade takes a little of each block instead of all of some.
- Items share the air by weights: start-time fair queueing (Goyal, Vin and Cheng, 1996).
- Items stand in four classes. *Metadata* (programme, catalogues, manifests) has 3 % reserved, and more while there
  is nothing else. Of the rest the *urgent* have at most 60 % while others wait, first passes (*fresh*) at least three
  times as much as what is repeated (*carousel*): a little to repeat isn't sent a thousand times while much waits.
- A bundle's manifest goes before each of its passes, in the bundle's own time: however many others wait, content that
  nobody can place isn't sent.
- An urgent bundle has two slots: a pass, and 0.29 of one at least 20 minutes after the beginning of the first, so
  that no fade of some minutes hits both. Then it is repeated like all others.

Whatever is asked for costs the logarithm of the number of items: there may be 20,000 bundles.
"""

from __future__ import annotations

import enum
import heapq
import math
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TypeVar

Who = TypeVar("Who")

RUN_SYMBOLS = 32
"""43 kB: what a receiver writes to one place of its disk at once."""
METADATA_PART = 0.03
URGENT_PRIORITY = 8
"""From this priority on a bundle is urgent."""
URGENT_PART = 0.60
FRESH_PART = 0.75
"""Of what the urgent leave, at least, while something is to be repeated, too."""
FRESH_AT_ONCE = 4
"""First passes at the same time: more would only make all of them late."""
FRESH_STUCK_S = 5.0
"""When none of these was ready for so long, another one may begin."""
SECOND_SLOT_PART = 0.29
"""Of a pass. With the first slot 1.32 times the source symbols."""
SECOND_SLOT_AFTER_S = 1200.0
SECOND_SLOT_GAP_S = 300.0
"""At least so long between the end of the first slot and the second: longer than most fades."""
MANIFEST_INTERVAL_S = 600.0
PRIORITY_FACTOR = 1.5
MOST_CREDIT = 256.0
"""Symbols that metadata may be owed: a cycle of a small catalogue, not an hour without one."""
PATIENCE_S = 0.02
"""So much later for each of its symbols metadata may be: a catalogue's small delta needn't wait for its snapshot."""
MOST_SKIPPED = 64
"""Blocks of an item, or items, that are looked at for one that is ready."""
ASKED_AGAIN = 4
"""Of the items that weren't ready when it was their turn."""


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
    """An item on the air. Once it is there, `Airtime.change` is how to change it.

    Attributes:
        key: Unique.
        passes: Symbols that one pass of each block has; an item has at least one block.
        counters: Symbols of each block that were handed out.
        priority: 0 to 9.
        is_urgent: Gets two slots, before others.
        order: Place among first passes. Of metadata: its group; groups that have something due share evenly.
        manifest: Of a bundle: the item that is sent once before each pass.
        interval_s: Of metadata: a pass begins so long after the last one began.
        run_symbols: At most so many of a block follow each other.
        sources: Of each block: its source symbols, after which a run ends too. Receivers that lost nothing have all by
            then, and no encoder is waited for before. Empty: nobody knows.
        began_at: When the first pass began, of metadata the last one; `now` of `Airtime`.
        first_ended_at: When the first pass was complete.
        due_at: Of metadata: when the next pass begins, or the present one should have.
        manifest_passes: Of a bundle: its manifest must have had so many passes before it goes on.
        symbols_a_pass: Of all blocks.
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
    run_symbols: int = RUN_SYMBOLS
    sources: Sequence[int] = ()
    began_at: float = -math.inf
    first_ended_at: float = -math.inf
    due_at: float = -math.inf
    manifest_passes: int = 1
    symbols_a_pass: int = field(init=False)
    _sent: int = field(init=False)
    _heap: list[tuple[float, int]] = field(init=False)

    def __post_init__(self) -> None:
        self.symbols_a_pass = sum(self.passes)
        self._sent = sum(self.counters)
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
    def has_begun(self) -> bool:
        return self._sent > 0

    @property
    def complete_passes(self) -> int:
        return int(self.progress)

    @property
    def remaining_symbols(self) -> int:
        """Of the present pass."""
        return max(0, (self.complete_passes + 1) * self.symbols_a_pass - self._sent)

    def next_count(self, block: int) -> int:
        """How many symbols the next run of a block has."""
        counter, length = self.counters[block], self.passes[block]
        left = length - counter % length
        if self.sources and counter < self.sources[block]:
            left = self.sources[block] - counter
        return min(self.run_symbols, left)

    def take(self, is_ready: Callable[[int], bool]) -> Run | None:
        """The next run: of the block that is furthest behind among those that are ready.

        No block goes on to the next pass before all have ended the present one: one that can't be had for long would
        be left behind.
        """
        end = self.complete_passes + 1
        skipped: list[tuple[float, int]] = []
        found: Run | None = None
        while self._heap and self._heap[0][0] < end and len(skipped) < MOST_SKIPPED:
            entry = heapq.heappop(self._heap)
            block = entry[1]
            if not is_ready(block):
                skipped.append(entry)
                continue
            counter, length = self.counters[block], self.passes[block]
            count = self.next_count(block)
            self.counters[block] = counter + count
            self._sent += count
            heapq.heappush(self._heap, ((counter + count) / length, block))
            found = Run(self.key, block, counter, count)
            break
        for entry in skipped:
            heapq.heappush(self._heap, entry)
        return found


class _Queue:
    """A class of bundles. Who is next, by start-time fair queueing: who has had the least for its weight.

    Attributes:
        worth: Of all that are here.
    """

    def __init__(self) -> None:
        self.worth = 0.0
        self._heap: list[tuple[float, int, str]] = []
        self._aside: deque[tuple[int, str]] = deque()
        self._here: dict[str, tuple[int, float]] = {}  # An entry with another number doesn't count.
        self._last_number = 0
        self._virtual = 0.0

    def __len__(self) -> int:
        return len(self._here)

    def put(self, item: Aired, cost: float = 0.0) -> None:
        """Let somebody wait who isn't here.

        Args:
            item: Who.
            cost: Symbols that it has just had, by its weight; 0 for who comes anew: waiting elsewhere gives no credit.
        """
        heapq.heappush(self._heap, (self._virtual + cost, self._number(item), item.key))

    def put_aside(self, item: Aired) -> None:
        """It was its turn, and it had nothing to send: it is asked again, but holds nobody up."""
        self._aside.append((self._number(item), item.key))

    def discard(self, key: str) -> None:
        """Nothing happens when it isn't here."""
        _, worth = self._here.pop(key, (0, 0.0))
        self.worth = self.worth - worth if self._here else 0.0

    def whose_turn(self) -> Iterator[str]:
        """Those to be asked now, one after the other; each must be put or put aside, or goes."""
        for _ in range(min(ASKED_AGAIN, len(self._aside))):
            number, key = self._aside.popleft()
            if self._here.get(key, (0,))[0] == number:
                self.discard(key)
                yield key
        asked = 0
        while self._heap and asked < MOST_SKIPPED:
            virtual, number, key = heapq.heappop(self._heap)
            if self._here.get(key, (0,))[0] == number:
                self._virtual = virtual
                self.discard(key)
                asked += 1
                yield key

    def _number(self, item: Aired) -> int:
        self._last_number += 1
        worth = worth_of(item)
        self._here[item.key] = (self._last_number, worth)
        self.worth += worth
        return self._last_number


class Airtime:
    """Decides what is sent. `now` is in seconds of any clock that doesn't jump."""

    def __init__(self, is_ready: Callable[[str, int], bool] = lambda _item, _block: True) -> None:
        """Start with nothing on the air.

        Args:
            is_ready: Asked before each run whether the next symbols of an item's block can be had at once.
        """
        self._is_ready = is_ready
        self._items: dict[str, Aired] = {}
        # An entry of a heap below counts while its stamp is its item's: with another one the item has gone elsewhere.
        self._stamps: dict[str, int] = {}
        self._last_stamp = 0
        self._queues = {turn: _Queue() for turn in Turn}
        self._class_served = dict.fromkeys(Turn, 0.0)
        self._unplaced: list[tuple[int, str]] = []
        self._fresh: list[tuple[bool, int, str, int]] = []  # First passes beyond `FRESH_AT_ONCE`.
        self._fresh_sent_at = -math.inf
        self._between: list[tuple[float, int, str]] = []  # Urgent ones between their two slots.
        self._bundle_of: dict[str, str] = {}  # By manifest.
        self._later: list[tuple[float, int, str]] = []  # Metadata that isn't due yet.
        self._due: dict[int, list[tuple[float, int, str]]] = {}  # By group.
        self._group_served: dict[int, float] = {}
        self._credit = 0.0

    # What is on the air.

    @property
    def items(self) -> Mapping[str, Aired]:
        """Everything on the air, by key."""
        return self._items

    def add(self, item: Aired) -> None:
        """Put something on the air, or in the place of what has its key."""
        self.remove(item.key)
        self._items[item.key] = item
        if item.kind is Kind.METADATA:
            self._schedule(item)
        else:
            if item.manifest:
                self._bundle_of[item.manifest] = item.key
            self._unplaced.append((self._stamp(item.key), item.key))

    def remove(self, key: str) -> None:
        """Take something off the air; nothing happens when it isn't on it."""
        item = self._items.pop(key, None)
        if item is None:
            return
        del self._stamps[key]
        for queue in self._queues.values():
            queue.discard(key)
        if key in self._bundle_of:
            self._items[self._bundle_of[key]].manifest_passes = 1
        if self._bundle_of.get(item.manifest) == key:
            del self._bundle_of[item.manifest]
            manifest = self._items.get(item.manifest)
            if manifest is not None:
                self._schedule(manifest)

    def change(self, key: str, *, priority: int, is_urgent: bool, order: int) -> None:
        """Something else counts for a bundle from now on; nothing happens when it is the same."""
        item = self._items[key]
        if item.kind is Kind.BUNDLE and (priority, is_urgent, order) != (
            item.priority,
            item.is_urgent,
            item.order,
        ):
            item.priority, item.is_urgent, item.order = priority, is_urgent, order
            for queue in self._queues.values():
                queue.discard(key)
            self._unplaced.append((self._stamp(key), key))

    def _stamp(self, key: str) -> int:
        self._last_stamp += 1
        self._stamps[key] = self._last_stamp
        return self._last_stamp

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
        owed = run.count * METADATA_PART / (1 - METADATA_PART)
        self._credit = min(self._credit + owed, MOST_CREDIT)
        return run

    # Metadata.

    def _next_metadata(self, now: float) -> Run | None:
        self._look_what_is_due(now)
        served = self._group_served
        for group in sorted(self._due, key=lambda group: (served[group], group)):
            run = self._next_due(group, now)
            if run is not None:
                _charge(served, group, run.count)
                return run
        return None

    def _look_what_is_due(self, now: float) -> None:
        while self._later and self._later[0][0] <= now:
            due_at, stamp, key = heapq.heappop(self._later)
            if self._stamps.get(key) == stamp:
                self._set_due(self._items[key], now if due_at == -math.inf else due_at)

    def _set_due(self, item: Aired, since: float) -> None:
        wanted_at = since + PATIENCE_S * item.symbols_a_pass
        self._group_served.setdefault(item.order, 0.0)
        heap = self._due.setdefault(item.order, [])
        heapq.heappush(heap, (wanted_at, self._stamp(item.key), item.key))

    def _next_due(self, group: int, now: float) -> Run | None:
        heap = self._due[group]
        unready: list[Aired] = []
        run = None
        while run is None and heap and len(unready) < MOST_SKIPPED:
            entry = heapq.heappop(heap)
            _, stamp, key = entry
            if self._stamps.get(key) != stamp:
                continue
            item = self._items[key]
            if key in self._bundle_of and not item.complete_passes:
                continue  # Its bundle brings it.
            run = self._send(item, now)
            if run is None:
                unready.append(item)
            elif self._stamps[key] == stamp:
                heapq.heappush(heap, entry)
        for item in unready:
            self._set_due(item, now)
        if not heap:
            del self._due[group]
        return run

    def _schedule(self, item: Aired) -> None:
        heapq.heappush(self._later, (item.due_at, self._stamp(item.key), item.key))

    def _send(self, item: Aired, now: float) -> Run | None:
        """Take a run of metadata."""
        before = item.complete_passes
        is_at_start = item.remaining_symbols == item.symbols_a_pass
        run = item.take(partial(self._is_ready, item.key))
        if run is not None:
            if is_at_start:
                item.began_at = now
            if item.complete_passes > before:
                item.due_at = item.began_at + item.interval_s
                self._schedule(item)
        return run

    # Content.

    def _next_content(self, now: float) -> Run | None:
        self._place(now)
        served = self._class_served
        parts = class_parts({turn: queue.worth for turn, queue in self._queues.items() if queue})
        # First the class that has had the least of its share.
        for turn in sorted(parts, key=served.__getitem__):
            run = self._next_of(turn, now)
            if run is not None:
                _charge(served, turn, run.count / parts[turn])
                return run
        return None

    def _next_of(self, turn: Turn, now: float) -> Run | None:
        queue = self._queues[turn]
        for key in queue.whose_turn():
            item = self._items[key]
            run = self._take(item, now)
            if run is None:
                queue.put_aside(item)
                continue
            if turn is Turn.FRESH:
                self._fresh_sent_at = now
            if turn_of(item, now) is turn:
                queue.put(item, run.count / weight_of(item, turn))
            else:
                self._unplaced.append((self._stamp(key), key))
            return run
        if turn is Turn.FRESH and now - self._fresh_sent_at >= FRESH_STUCK_S:
            self._fresh_sent_at = now
            self._begin_next()
        return None

    def _take(self, item: Aired, now: float) -> Run | None:
        """Take a run of a bundle, or of its manifest."""
        manifest = self._items.get(item.manifest)
        if manifest is not None and manifest.complete_passes < item.manifest_passes:
            return self._send(manifest, now)
        before = item.complete_passes
        run = item.take(partial(self._is_ready, item.key))
        if run is not None:
            if item.began_at == -math.inf:
                item.began_at = now
            if item.complete_passes > before:
                if item.first_ended_at == -math.inf:
                    item.first_ended_at = now
                if manifest is not None:
                    item.manifest_passes = manifest.complete_passes + 1
        return run

    def _place(self, now: float) -> None:
        """Put every bundle where it belongs now."""
        while self._between and self._between[0][0] <= now:
            self._unplaced.append(heapq.heappop(self._between)[1:])
        for stamp, key in self._unplaced:
            if self._stamps.get(key) == stamp:
                self._place_one(self._items[key], now)
        self._unplaced.clear()
        while self._fresh and len(self._queues[Turn.FRESH]) < FRESH_AT_ONCE:
            self._begin_next()

    def _begin_next(self) -> None:
        """Let the next first pass begin."""
        while self._fresh:
            *_, key, stamp = heapq.heappop(self._fresh)
            if self._stamps.get(key) == stamp:
                self._queues[Turn.FRESH].put(self._items[key])
                return

    def _place_one(self, item: Aired, now: float) -> None:
        if item.first_ended_at == -math.inf and item.progress >= 1:
            # The sender was started anew. Nobody knows when the slot was: it counts as if it had been now.
            item.began_at = item.first_ended_at = now
        turn, key = turn_of(item, now), item.key
        if turn is None:
            heapq.heappush(self._between, (second_slot_at(item), self._stamps[key], key))
        elif turn is Turn.FRESH:
            heapq.heappush(self._fresh, (*place_of(item), self._stamps[key]))
        else:
            self._queues[turn].put(item)


def _charge(served: dict[Who, float], who: Who, cost: float) -> None:
    """Note what somebody has had. Those whose turn it was before had nothing to send: they get no credit for that."""
    had = served[who]
    for other, its in served.items():
        served[other] = max(its, had)
    served[who] = had + cost


def class_parts(worths: Mapping[Turn, float]) -> dict[Turn, float]:
    """Which parts of the air the classes have, without metadata's.

    What is repeated has no more than it would have if all shared by their worth.

    Args:
        worths: Of all in each class that has something to send.
    """
    parts: dict[Turn, float] = {}
    left = 1.0
    if Turn.CAROUSEL in worths:
        if Turn.URGENT in worths:
            left -= URGENT_PART
        if Turn.FRESH in worths:
            left *= 1 - FRESH_PART
        parts[Turn.CAROUSEL] = min(left, worths[Turn.CAROUSEL] / sum(worths.values()))
        left = 1 - parts[Turn.CAROUSEL]
    if Turn.URGENT in worths:
        parts[Turn.URGENT] = URGENT_PART if Turn.FRESH in worths else left
        left -= parts[Turn.URGENT]
    if Turn.FRESH in worths:
        parts[Turn.FRESH] = left
    return parts


def turn_of(item: Aired, now: float) -> Turn | None:
    """In which class a bundle is served now; None: an urgent one between its two slots."""
    progress = item.progress
    if item.is_urgent and progress < 1 + SECOND_SLOT_PART:
        # The second slot goes on, once it has begun, also when the sender was started anew.
        return None if progress == 1 and now < second_slot_at(item) else Turn.URGENT
    return Turn.FRESH if progress < 1 else Turn.CAROUSEL


def second_slot_at(item: Aired) -> float:
    """When the second slot of an urgent bundle begins, once its first is complete."""
    return max(item.began_at + SECOND_SLOT_AFTER_S, item.first_ended_at + SECOND_SLOT_GAP_S)


def place_of(item: Aired) -> tuple[bool, int, str]:
    """Place among first passes, the lowest first: what has begun is ended."""
    return not item.has_begun, item.order, item.key


def weight_of(item: Aired, turn: Turn) -> float:
    """The weight among others of a class."""
    return worth_of(item) if turn is Turn.CAROUSEL else _demand(item)


def worth_of(item: Aired) -> float:
    """By what the air is shared for repetitions: the square root of demand times size.

    That makes the mean wait least (Ammar and Wong, 1985).
    """
    return math.sqrt(_demand(item) * item.symbols_a_pass)


def _demand(item: Aired) -> float:
    return float(PRIORITY_FACTOR**item.priority)


@dataclass(frozen=True, slots=True)
class Forecast:
    """When a bundle comes round, as far as is known now; `now` of `Airtime`.

    Attributes:
        begins: When the present pass or slot began, or the next one will begin.
        ends: When that is through.
        next: When the one after it begins.
    """

    begins: float
    ends: float
    next: float


class _Flow:
    """A class of bundles as if it flowed: all at once, each by its weight.

    Attributes:
        level: Rises with what each has had for a weight of 1; whoever is here ends at a level.
        weight: Of all that are here.
        worth: The same.
        ends: Level and key of those whose end isn't known yet.
    """

    def __init__(self, turn: Turn) -> None:
        self.level = 0.0
        self.weight = 0.0
        self.worth = 0.0
        self.ends: list[tuple[float, str]] = []
        self._turn = turn

    def add(self, item: Aired, symbols: float = math.inf) -> None:
        """Somebody comes, and ends after so many symbols."""
        weight = weight_of(item, self._turn)
        self.weight += weight
        self.worth += worth_of(item)
        if symbols < math.inf:
            heapq.heappush(self.ends, (self.level + symbols / weight, item.key))

    def leave(self, item: Aired) -> None:
        """Somebody goes."""
        self.weight = self.weight - weight_of(item, self._turn) if self.ends else 0.0
        self.worth = self.worth - worth_of(item) if self.ends else 0.0


def forecast(air: Airtime, *, symbols_s: float, now: float) -> dict[str, Forecast]:
    """Say when each bundle on the air comes round, should nothing be added.

    Args:
        air: What is on the air.
        symbols_s: Symbols that are sent in a second.
        now: The present.
    """
    items = {key: item for key, item in air.items.items() if item.kind is Kind.BUNDLE}
    flows = {turn: _Flow(turn) for turn in Turn}
    waiting: list[tuple[bool, int, str]] = []
    between: list[tuple[float, str]] = []
    begun: dict[str, float] = {}
    for key, item in items.items():
        turn = turn_of(item, now)
        if turn is None:
            between.append((second_slot_at(item), key))
        elif turn is Turn.FRESH:
            waiting.append(place_of(item))
        else:
            begun[key] = _began(item, now)
            flows[turn].add(item, _left(item))
    heapq.heapify(waiting)
    heapq.heapify(between)
    rate = symbols_s * (1 - METADATA_PART)
    found: dict[str, Forecast] = {}
    at, carousel = now, flows[Turn.CAROUSEL]
    while len(found) < len(items):
        fresh = flows[Turn.FRESH]
        while waiting and len(fresh.ends) < FRESH_AT_ONCE:
            key = heapq.heappop(waiting)[-1]
            begun[key] = _began(items[key], at)
            fresh.add(items[key], _left(items[key]))
        # Up to where something changes: a second slot begins, or a first pass or slot ends.
        parts = class_parts({turn: flow.worth for turn, flow in flows.items() if flow.weight > 0})
        speeds = {turn: rate * part / flows[turn].weight for turn, part in parts.items()}
        until, ender = (max(at, between[0][0]) if between else math.inf), None
        for turn in (Turn.URGENT, Turn.FRESH):
            flow = flows[turn]
            if flow.ends and (end := at + (flow.ends[0][0] - flow.level) / speeds[turn]) <= until:
                until, ender = end, turn
        # What is repeated takes its part from the others before and after its pass ends.
        while carousel.ends:
            speed = speeds[Turn.CAROUSEL]
            end = at + (carousel.ends[0][0] - carousel.level) / speed
            if end > until:
                break
            key = heapq.heappop(carousel.ends)[1]
            item = items[key]
            took = item.symbols_a_pass / (speed * weight_of(item, Turn.CAROUSEL))
            found[key] = Forecast(min(end - took, now), end, end)
        if until == math.inf:
            break
        for turn, speed in speeds.items():
            flows[turn].level += speed * (until - at)
        at = until
        if ender is None:
            key = heapq.heappop(between)[1]
            begun[key] = at
            flows[Turn.URGENT].add(items[key], SECOND_SLOT_PART * items[key].symbols_a_pass)
            continue
        flow = flows[ender]
        key = heapq.heappop(flow.ends)[1]
        item = items[key]
        flow.leave(item)
        after = at
        if ender is Turn.URGENT and item.progress < 1 and key not in found:
            after = max(begun[key] + SECOND_SLOT_AFTER_S, at + SECOND_SLOT_GAP_S)
            heapq.heappush(between, (after, key))
        else:
            carousel.add(item)
        found.setdefault(key, Forecast(begun[key], at, after))
    return found


def _began(item: Aired, now: float) -> float:
    """When the present first pass or slot began; now, if it hasn't, or nobody knows."""
    began = item.began_at if item.progress < 1 else second_slot_at(item)
    return now if began == -math.inf else min(began, now)


def _left(item: Aired) -> float:
    """Symbols until the end of the present pass or slot."""
    if item.is_urgent and 1 <= item.progress < 1 + SECOND_SLOT_PART:
        return max(0, item.remaining_symbols - (1 - SECOND_SLOT_PART) * item.symbols_a_pass)
    return item.remaining_symbols

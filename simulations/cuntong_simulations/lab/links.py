"""The model of the links: a packet comes in at one time and goes out at another, or is dropped.

Nothing here reads a clock, a socket or a process's random source, so a test can drive it. Each direction of an
access link is a queue with a limit, a serialiser of so many bit/s, and a delay. Times are seconds of any
monotonic clock. A packet that crosses several links enters the next one at the time it *should* have left the
last one, not at the time the process got to it: lateness doesn't add up.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable, Sequence
from random import Random

MTU = 1500
MIN_QUEUE_PACKETS = 2
"""Real modems hold at least two packets, however short the queue is said to be."""
BINS_PER_S = 2000
"""Queueing delays are counted in steps of half a millisecond."""
BINS = 4 * BINS_PER_S
"""The last one holds all that waited for four seconds and more."""

Packet = bytes
Path = tuple[int, ...]
"""Indices of link directions, in the order in which a packet crosses them."""


class LinkDirection:
    """One direction of one access link.

    Args:
        rate_bit_s: Of IP packets.
        delay_s: From the end of serialisation to the other end.
        queue_s: A packet that would wait longer is dropped.
        loss: Share of packets lost after they were sent; they used the link.
    """

    __slots__ = (
        "bytes",
        "delay_s",
        "histogram",
        "is_down",
        "loss",
        "lost",
        "overflowed",
        "packets",
        "peak_s",
        "queue",
        "queue_s",
        "random",
        "s_per_byte",
        "sent_until",
        "wait_limit_s",
        "waited_s",
    )  # fmt: skip

    def __init__(
        self, *, rate_bit_s: float, delay_s: float, queue_s: float, loss: float, random: Random
    ) -> None:
        self.delay_s = delay_s
        self.queue_s = queue_s
        self.loss = loss
        self.random = random
        self.is_down = False
        self.sent_until = 0.0
        # (when it arrives, packet, path, place in the path), oldest first.
        self.queue: deque[tuple[float, Packet, Path, int]] = deque()
        self.bytes = self.packets = self.overflowed = self.lost = 0
        self.waited_s = self.peak_s = 0.0
        self.histogram = [0] * BINS
        self._set_rate(rate_bit_s)

    def _set_rate(self, rate_bit_s: float) -> None:
        self.s_per_byte = 8.0 / rate_bit_s
        self.wait_limit_s = max(self.queue_s, MIN_QUEUE_PACKETS * MTU * self.s_per_byte)

    def offer(self, now: float, packet: Packet, path: Path, place: int) -> bool:
        """Take a packet in at `now`; `False` when it won't arrive."""
        wait = self.sent_until - now
        if wait < 0.0:
            wait = 0.0
        elif wait > self.wait_limit_s:
            self.overflowed += 1
            return False
        if self.is_down:
            self.lost += 1
            return False
        size = len(packet)
        self.sent_until = sent = now + wait + size * self.s_per_byte
        self.bytes += size
        self.packets += 1
        self.waited_s += wait
        if wait > self.peak_s:
            self.peak_s = wait
        step = int(wait * BINS_PER_S)
        self.histogram[step if step < BINS else -1] += 1
        if self.loss and self.random.random() < self.loss:
            self.lost += 1
            return False
        self.queue.append((sent + self.delay_s, packet, path, place))
        return True

    def set_rate(self, now: float, rate_bit_s: float) -> None:
        """Change the rate; what waits or is being sent goes on at the new one."""
        old, delay = self.s_per_byte, self.delay_s
        self._set_rate(rate_bit_s)
        scale = self.s_per_byte / old
        self.queue = deque(
            (due + max(0.0, due - delay - now) * (scale - 1), packet, path, place)
            for due, packet, path, place in self.queue
        )
        if self.sent_until > now:
            self.sent_until = now + (self.sent_until - now) * scale

    def set_down(self, now: float, *, is_down: bool) -> None:
        """Cut the link, or mend it. What had not left the queue is lost."""
        self.is_down = is_down
        if is_down:
            kept = deque(entry for entry in self.queue if entry[0] - self.delay_s <= now)
            self.lost += len(self.queue) - len(kept)
            self.queue = kept
            self.sent_until = min(self.sent_until, now)


class Fabric:
    """All links together.

    Args:
        links: The directions that paths name by index.
        deliver: Called with (when it was due, the last argument of `send`'s path, packet).
    """

    def __init__(
        self, links: Sequence[LinkDirection], deliver: Callable[[float, Path, Packet], None]
    ) -> None:
        self.links = list(links)
        self._deliver = deliver
        # (when the oldest packet of a link arrives, the link); each busy link is here once.
        self._busy: list[tuple[float, int]] = []

    def send(self, now: float, packet: Packet, path: Path) -> None:
        """A place sends a packet at `now`."""
        first = path[0]
        link = self.links[first]
        was_idle = not link.queue
        if link.offer(now, packet, path, 0) and was_idle:
            heapq.heappush(self._busy, (link.queue[0][0], first))

    def advance(self, now: float) -> float | None:
        """Move everything that is due by `now`; returns when the next packet is."""
        busy, links, deliver = self._busy, self.links, self._deliver
        while busy and busy[0][0] <= now:
            index = busy[0][1]
            queue = links[index].queue
            due, packet, path, place = queue.popleft()
            if queue:
                heapq.heapreplace(busy, (queue[0][0], index))
            else:
                heapq.heappop(busy)
            place += 1
            if place == len(path):
                deliver(due, path, packet)
                continue
            following = links[path[place]]
            was_idle = not following.queue
            if following.offer(due, packet, path, place) and was_idle:
                heapq.heappush(busy, (following.queue[0][0], path[place]))
        return busy[0][0] if busy else None

    def change(
        self,
        now: float,
        index: int,
        *,
        rate_bit_s: float | None = None,
        loss: float | None = None,
        is_down: bool | None = None,
    ) -> None:
        """Change a link direction from `now` on."""
        self.advance(now)
        link = self.links[index]
        if rate_bit_s is not None:
            link.set_rate(now, rate_bit_s)
        if loss is not None:
            link.loss = loss
        if is_down is not None:
            link.set_down(now, is_down=is_down)
        self._busy = [(found.queue[0][0], at) for at, found in enumerate(self.links) if found.queue]
        heapq.heapify(self._busy)


def percentile_ms(histogram: Sequence[int], share: float, bins_per_s: int = BINS_PER_S) -> float:
    """The delay that a share of the packets didn't exceed, to one bin; 0 without packets."""
    needed = sum(histogram) * share
    seen = 0
    for step, count in enumerate(histogram):
        seen += count
        if count and seen >= needed:
            return (step + 0.5) / bins_per_s * 1000 if step else 0.0
    return 0.0

"""How long packets of one sender queue on the way (SPEC 10.9; the base delay is LEDBAT's, RFC 6817)."""

from __future__ import annotations

from collections import deque

BUCKET_S = 300.0
"""The base is the least of the last 5 to 10 minutes: longer than a film's trailer, shorter than clocks drift apart."""
REMEMBERED_S = 1.0
"""No modem queues for longer."""
USUAL_GAIN = 1 / 32
"""The last second or so at 512 kbit/s."""
_UINT32 = 1 << 32
_HALF = 1 << 31


class QueueingDelay:
    """The least one-way delay of a sender, and what each packet took beyond it.

    Args:
        bucket_s: The least of so long counts, or of up to twice that.
    """

    __slots__ = ("_before", "_bucket_s", "_since", "_this")

    def __init__(self, bucket_s: float = BUCKET_S) -> None:
        self._bucket_s = bucket_s
        self._this: int | None = None
        self._before: int | None = None
        self._since = 0.0

    @property
    def base_us(self) -> int | None:
        """The least delay, modulo 2^32; None before the first packet."""
        if self._this is None or self._before is None:
            return None
        return self._this if _before(self._this, self._before) else self._before

    def forget(self) -> None:
        """Begin anew: a clock was set."""
        self._this = self._before = None

    def excess_s(self, now: float, delay_us: int) -> float:
        """How much longer than the least this packet took, in seconds.

        Args:
            now: Monotonic seconds.
            delay_us: From `utp.delay_us`, without the time that the packet itself takes: of two clocks, modulo 2^32.
        """
        if self._this is None or self._before is None:
            self._this = self._before = delay_us
            self._since = now
        elif now - self._since >= self._bucket_s:
            self._before, self._this, self._since = self._this, delay_us, now
        elif _before(delay_us, self._this):
            self._this = delay_us
        return ((delay_us - (self.base_us or 0)) % _UINT32) / 1_000_000


class Usual:
    """What a delay is as a rule, with twice its mean deviation, in seconds (as RFC 6298 does with round trips)."""

    __slots__ = ("_deviation", "_mean")

    def __init__(self) -> None:
        self._mean = self._deviation = 0.0

    @property
    def s(self) -> float:
        """More than this isn't usual."""
        return self._mean + 2 * self._deviation

    def add(self, delay_s: float) -> None:
        """So it was with one packet."""
        off = delay_s - self._mean
        self._mean += off * USUAL_GAIN
        self._deviation += (abs(off) - self._deviation) * USUAL_GAIN


class OwnArrivals:
    """What of a queue was our own.

    A packet that queued for a time had as many bytes before it as the link carries in that time. Those of our own have
    arrived meanwhile; the rest is somebody else's.
    """

    def __init__(self) -> None:
        self._arrived: deque[tuple[float, int]] = deque()

    def foreign_s(self, now: float, size: int, excess_s: float, link_bytes_s: int) -> float:
        """How long others' packets held this one up, in seconds.

        Args:
            now: When it came, monotonic seconds.
            size: Bytes on the wire.
            excess_s: How long it queued, without the time that it took itself.
            link_bytes_s: What the link carries; 0 when unknown: then all of the queue counts as others'.
        """
        arrived = self._arrived
        while arrived and arrived[0][0] < now - REMEMBERED_S:
            arrived.popleft()
        own = 0
        if link_bytes_s:
            entered = now - excess_s - size / link_bytes_s
            for at, one in reversed(arrived):
                if at < entered:
                    break
                own += one
        arrived.append((now, size))
        return max(0.0, excess_s - own / link_bytes_s) if link_bytes_s else excess_s


def _before(one: int, other: int) -> bool:
    """Whether one delay is less than the other, however the clocks stand."""
    return (one - other) % _UINT32 > _HALF

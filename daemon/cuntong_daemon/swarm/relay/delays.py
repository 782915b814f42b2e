"""How long packets of one sender queue on the way (SPEC 10.8; the base delay is LEDBAT's, RFC 6817)."""

from __future__ import annotations

BUCKET_S = 300.0
"""The base is the least of the last 5 to 10 minutes: longer than a film's trailer, shorter than clocks drift apart."""
_UINT32 = 1 << 32
_HALF = 1 << 31


class QueueingDelay:
    """The least one-way delay of a sender, and what each packet took beyond it."""

    __slots__ = ("_before", "_since", "_this")

    def __init__(self) -> None:
        self._this: int | None = None
        self._before: int | None = None
        self._since = 0.0

    def excess_s(self, now: float, delay_us: int) -> float:
        """How much longer than the least this packet took, in seconds.

        Args:
            now: Monotonic seconds.
            delay_us: From `utp.delay_us`: of two clocks, modulo 2^32.
        """
        if self._this is None or self._before is None:
            self._this = self._before = delay_us
            self._since = now
        elif now - self._since >= BUCKET_S:
            self._before, self._this, self._since = self._this, delay_us, now
        elif _before(delay_us, self._this):
            self._this = delay_us
        base = self._this if _before(self._this, self._before) else self._before
        return ((delay_us - base) % _UINT32) / 1_000_000


def _before(one: int, other: int) -> bool:
    """Whether one delay is less than the other, however the clocks stand."""
    return (one - other) % _UINT32 > _HALF

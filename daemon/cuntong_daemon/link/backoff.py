"""When to dial a parent again: twice as long after each failure, never all children at once (SPEC 6.6)."""

from __future__ import annotations

import random
from typing import Final

FIRST_S: Final = 2.0
MAX_S: Final = 300.0
"""A parent that is back after a day is found again within five minutes."""
GOOD_AFTER_S: Final = 300.0
"""A link must have lasted this long before earlier failures are forgotten; a parent that welcomes and then
misbehaves is not dialled in a circle."""


class Backoff:
    """The failures of one parent."""

    __slots__ = ("_failures", "_random", "next_try_at")

    def __init__(self, source: random.Random) -> None:
        self._random = source
        self._failures = 0
        self.next_try_at = float("-inf")

    def failed(self, now: float, *, at_once_longest: bool = False) -> None:
        """A dial or a link ended; wait between half and all of the doubled time.

        Args:
            now: The clock that `next_try_at` is in.
            at_once_longest: The parent refused us: nothing changes within seconds.
        """
        self._failures += 1
        delay_s = (
            MAX_S if at_once_longest else min(MAX_S, FIRST_S * 2.0 ** min(self._failures - 1, 20))
        )
        self.next_try_at = now + delay_s * self._random.uniform(0.5, 1.0)

    def ended(self, now: float, lasted_s: float, *, at_once_longest: bool = False) -> None:
        """An open link ended after `lasted_s`."""
        if lasted_s >= GOOD_AFTER_S:
            self._failures = 0
        self.failed(now, at_once_longest=at_once_longest)

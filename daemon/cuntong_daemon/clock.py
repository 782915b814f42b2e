"""The node's idea of the time: its own clock, set right by a parent when it is plainly wrong.

A village PC may wake up in the year 2000 or 2040. The machine's clock is left alone; only what is judged by
time here (certificates, strict expiry, licence ends) uses the corrected one.
"""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta

TOLERANCE = timedelta(minutes=10)
"""A clock that is off by less is taken as right: nothing here turns on minutes."""


class NodeClock:
    """Wall time for judgements. Whether it may be believed is decided by the trust layer (SPEC 4.7)."""

    def __init__(self) -> None:
        self._confirmed: tuple[float, float] | None = None

    def now(self) -> datetime:
        """The time, UTC."""
        own = datetime.now(UTC)
        if self._confirmed is None:
            return own
        parent_s, at_monotonic_s = self._confirmed
        said = datetime.fromtimestamp(parent_s + time.monotonic() - at_monotonic_s, UTC)
        return own if abs(own - said) <= TOLERANCE else said

    @property
    def is_confirmed(self) -> bool:
        """Whether a parent has told the time since the start."""
        return self._confirmed is not None

    @property
    def error(self) -> timedelta | None:
        """How far this machine's clock is off; None while that isn't known or doesn't matter."""
        difference = datetime.now(UTC) - self.now()
        return difference if abs(difference) > TOLERANCE else None

    def confirm(self, parent_s: int) -> None:
        """A parent said over TLS that it is `parent_s` (seconds since 1970)."""
        self._confirmed = (float(parent_s), time.monotonic())

"""The node's idea of the time: its own clock, set right by a parent when it is plainly wrong.

A village PC may wake up in the year 2000 or 2040. The machine's clock is left alone; only what is judged by
time here (certificates, strict expiry, licence ends) uses the corrected one.
"""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta

from cuntong_protocol.trust.rules import is_clock_trusted

TOLERANCE = timedelta(minutes=10)
"""A clock that is off by less is taken as right: nothing here turns on minutes."""


class NodeClock:
    """Wall time for judgements. Whether it may be believed is decided by the trust layer (SPEC 4.7)."""

    def __init__(self) -> None:
        self._confirmed: tuple[float, float] | None = None
        self._proven: datetime | None = None

    def now(self) -> datetime:
        """The time, UTC: the parent's where this machine's is wrong, but never one that can't be."""
        own, said = datetime.now(UTC), self._said()
        if said is None or abs(own - said) <= TOLERANCE or not self._is_plausible(said):
            return own
        return said

    @property
    def is_confirmed(self) -> bool:
        """Whether a parent has told a time that can be, since the start."""
        said = self._said()
        return said is not None and self._is_plausible(said)

    @property
    def error(self) -> timedelta | None:
        """How far this machine's clock is off; None while that isn't known or doesn't matter."""
        difference = datetime.now(UTC) - self.now()
        return difference if abs(difference) > TOLERANCE else None

    @property
    def parent_error(self) -> timedelta | None:
        """How far the parent's clock is off, when what it says can't be."""
        said = self._said()
        return None if said is None or self._is_plausible(said) else said - datetime.now(UTC)

    def confirm(self, parent_s: int) -> None:
        """A parent said over TLS that it is `parent_s` (seconds since 1970)."""
        self._confirmed = (float(parent_s), time.monotonic())

    def prove(self, moment: datetime) -> None:
        """The nation has signed at this time. One parent with a wrong clock can't mislead all below it then."""
        self._proven = moment

    def _said(self) -> datetime | None:
        if self._confirmed is None:
            return None
        parent_s, at_monotonic_s = self._confirmed
        return datetime.fromtimestamp(parent_s + time.monotonic() - at_monotonic_s, UTC)

    def _is_plausible(self, moment: datetime) -> bool:
        return self._proven is None or is_clock_trusted(moment + TOLERANCE, self._proven)

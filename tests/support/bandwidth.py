"""A node's bandwidth service without a swarm: real calendars and a real file, and nothing to apply them to."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from zoneinfo import ZoneInfo

from cuntong_daemon.config_bandwidth import BYTES_PER_KBIT
from cuntong_daemon.control.messages import BandwidthStatus
from cuntong_daemon.paths import DataPaths
from cuntong_daemon.policy.calendar import Calendar, limits_at
from cuntong_daemon.said import PersonsLimits

BEIJING = ZoneInfo("Asia/Shanghai")


class FakeBandwidth:
    """Tells what the calendars say.

    Attributes:
        others: Calendars beside the person's: the node's own, its parent's.
        link: What a status says besides.
        looks: How often it was told that something changed.
    """

    def __init__(self, paths: DataPaths, now: Callable[[], dt.datetime]) -> None:
        self.person = PersonsLimits(paths, BEIJING)
        self.others: list[Calendar] = []
        self.link: dict[str, object] = {}
        self.looks = 0
        self._now = now

    def look(self) -> None:
        self.looks += 1

    def status(self) -> BandwidthStatus:
        now = self._now()
        limits = limits_at(now, [*self.others, *self.person.calendars(now)])
        return BandwidthStatus(
            limit_down_kbit_s=limits.down.bytes_s // BYTES_PER_KBIT,
            limit_down_reason=limits.down.reason,
            limit_up_kbit_s=limits.up.bytes_s // BYTES_PER_KBIT,
            limit_up_reason=limits.up.reason,
            is_paused=limits.is_paused,
            pause_reason=limits.reason if limits.is_paused else None,
            until=int(limits.until.timestamp()) if limits.until is not None else None,
            **self.link,  # type: ignore[arg-type]
        )

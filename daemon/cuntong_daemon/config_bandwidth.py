"""`[bandwidth]` of config.toml: what the link carries, and when how much of it may be used (SPEC 10.2).

The tables are turned into the calendars of `policy.calendar`: one for this node, and one that this node sets for the
places below it.
"""

from __future__ import annotations

import datetime as dt
import re
from typing import Annotated, Literal, get_args
from zoneinfo import ZoneInfo

import msgspec

from cuntong_protocol.texts import N_

from .policy.calendar import (
    DAY_MINUTES,
    Calendar,
    Exemption,
    Holiday,
    Rule,
    Source,
    Window,
)

MAX_WINDOWS = 64
"""A different one for each hour of three kinds of day."""
MAX_HOLIDAYS = 128
"""Ten years of public holidays."""
MAX_EXCEPTIONS = 64
BYTES_PER_KBIT = 125

Rate = Annotated[int, msgspec.Meta(ge=0, le=100_000_000)]
Day = Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun"]
BANDWIDTH_REASONS: dict[str, str] = {
    "bandwidth": N_("{file}: {key} must be a number of kbit/s, 0 for no limit."),
    "bandwidth.shared": N_("{file}: {key} must be true or false."),
    "bandwidth.time_zone": N_(
        "{file}: {key} must be a time zone that this machine knows, such as 'Asia/Shanghai'."
    ),
    "bandwidth.windows": N_(
        "{file}: {key} must be tables, each with from and to such as '08:00' and a rate or a pause."
    ),
    "bandwidth.windows.days": N_(
        "{file}: {key} must be a list of 'mon', 'tue', 'wed', 'thu', 'fri', 'sat', 'sun'."
    ),
    "bandwidth.windows.from": N_("{file}: {key} must be a time in quotes, such as '08:00'."),
    "bandwidth.windows.to": N_(
        "{file}: {key} must be a time in quotes, such as '18:00' or '24:00', other than from."
    ),
    "bandwidth.holidays": N_(
        "{file}: {key} must be tables, each with from and to such as 2027-02-06, and like or windows."
    ),
    "bandwidth.holidays.from": N_("{file}: {key} must be a date, such as 2027-02-06."),
    "bandwidth.holidays.to": N_("{file}: {key} must be a date, not before from."),
    "bandwidth.holidays.like": N_(
        "{file}: {key} must be a day such as 'sun', and stands instead of windows."
    ),
    "bandwidth.holidays.windows": N_(
        "{file}: {key} must be tables, each with from and to such as '08:00', without days."
    ),
    "bandwidth.exceptions": N_(
        "{file}: {key} must be tables, each with from and to such as 2027-03-01T08:00:00."
    ),
    "bandwidth.exceptions.from": N_("{file}: {key} must be a moment, such as 2027-03-01T08:00:00."),
    "bandwidth.exceptions.to": N_("{file}: {key} must be a moment after from."),
    "*.down_kbit_s": N_("{file}: {key} must be a number of kbit/s, 0 for no limit."),
    "*.up_kbit_s": N_("{file}: {key} must be a number of kbit/s, 0 for no limit."),
    "*.pause": N_("{file}: {key} must be true or false."),
    "*.below": N_("{file}: {key} must be true or false."),
}
"""What a key must be, by key or by its last word."""
DAYS: tuple[Day, ...] = get_args(Day)
_CLOCK = re.compile(r"([01][0-9]|2[0-4]):([0-5][0-9])", re.ASCII)
_NAME = re.compile(r"[A-Za-z0-9_+-]+(/[A-Za-z0-9_+-]+)*", re.ASCII)


class BadKey(ValueError):
    """A value that its type allows and its meaning doesn't.

    Attributes:
        key: Dotted, below `bandwidth`.
        index: Of the table in its list.
    """

    def __init__(self, key: str, index: int = 0) -> None:
        super().__init__(key)
        self.key = key
        self.index = index


class _Table(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What a time's rule says.

    Attributes:
        down_kbit_s: Limit, 0 for none of its own.
        up_kbit_s: The same for sending.
        pause: Nothing is moved.
        below: It is for each of the places below this node, not for the node itself.
    """

    down_kbit_s: Rate = 0
    up_kbit_s: Rate = 0
    pause: bool = False
    below: bool = False

    @property
    def rule(self) -> Rule:
        return Rule(self.down_kbit_s * BYTES_PER_KBIT, self.up_kbit_s * BYTES_PER_KBIT, self.pause)


class WindowTable(_Table, frozen=True, kw_only=True):
    """`[[bandwidth.windows]]`: a time of the day.

    Attributes:
        days: On which it begins; empty: on all.
        begins: `08:00`, the key is `from`.
        ends: `18:00`, exclusive, the key is `to`; not after `begins`: on the next day.
    """

    days: Annotated[list[Day], msgspec.Meta(max_length=7)] = []
    begins: str = msgspec.field(name="from")
    ends: str = msgspec.field(name="to")

    def window(self, key: str, index: int) -> Window:
        """The window it is.

        Raises:
            BadKey: a time isn't one, or both are the same.
        """
        begins = minute_of(self.begins)
        if begins is None or begins == DAY_MINUTES:
            raise BadKey(f"{key}.from", index)
        ends = minute_of(self.ends)
        if ends is None or ends == begins:
            raise BadKey(f"{key}.to", index)
        days = frozenset(DAYS.index(day) for day in self.days or DAYS)
        return Window(days, begins, ends or DAY_MINUTES, self.rule)


class HolidayTable(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """`[[bandwidth.holidays]]`: days that aren't what their weekday is.

    Attributes:
        first: The key is `from`.
        last: The last day, the key is `to`; left out: one day.
        like: The weekday whose windows apply.
        windows: Without `like`: the windows of these days; none: only the limits of all times.
    """

    first: dt.date = msgspec.field(name="from")
    last: dt.date | None = msgspec.field(name="to", default=None)
    like: Day | None = None
    windows: Annotated[list[WindowTable], msgspec.Meta(max_length=MAX_WINDOWS)] = []

    def holiday(self, index: int, *, is_below: bool) -> Holiday:
        """The holiday it is.

        Raises:
            BadKey: as `WindowTable.window`; it ends before it begins; it has both a model and windows; a window
                names weekdays.
        """
        last = self.last or self.first
        if last < self.first:
            raise BadKey("holidays.to", index)
        if self.windows and self.like is not None:
            raise BadKey("holidays.like", index)
        if any(table.days for table in self.windows):
            raise BadKey("holidays.windows", index)
        windows = [(table.below, table.window("holidays.windows", index)) for table in self.windows]
        return Holiday(
            self.first,
            last,
            None if self.like is None else DAYS.index(self.like),
            tuple(window for below, window in windows if below == is_below),
        )


class ExceptionTable(_Table, frozen=True, kw_only=True):
    """`[[bandwidth.exceptions]]`: once, in place of the windows.

    Attributes:
        begins: A moment, by `time_zone` unless it says its own offset; the key is `from`.
        ends: The same, exclusive; the key is `to`.
    """

    begins: dt.datetime = msgspec.field(name="from")
    ends: dt.datetime = msgspec.field(name="to")

    def exemption(self, zone: dt.tzinfo, index: int) -> Exemption:
        """The exemption it is.

        Raises:
            BadKey: it ends before it begins.
        """
        begins, ends = _aware(self.begins, zone), _aware(self.ends, zone)
        if ends <= begins:
            raise BadKey("exceptions.to", index)
        return Exemption(begins, ends, self.rule)


class BandwidthSection(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """`[bandwidth]`: the link, and what may be used of it. All in kbit/s, 0 is none or unknown.

    Attributes:
        link_down_kbit_s: What the link carries; 0: it is learnt from transfers.
        link_up_kbit_s: The same for sending.
        shared: Others use the link too: uTP only, and the governor makes way for them.
        down_kbit_s: Limit for all times.
        up_kbit_s: The same for sending.
        up_kbit_s_per_child: Limit for what is sent to each place below.
        time_zone: By whose clock windows, holidays and exceptions are meant.
    """

    link_down_kbit_s: Rate = 0
    link_up_kbit_s: Rate = 0
    shared: bool = True
    down_kbit_s: Rate = 0
    up_kbit_s: Rate = 0
    up_kbit_s_per_child: Rate = 0
    time_zone: Annotated[str, msgspec.Meta(max_length=64)] = "Asia/Shanghai"
    windows: Annotated[list[WindowTable], msgspec.Meta(max_length=MAX_WINDOWS)] = []
    holidays: Annotated[list[HolidayTable], msgspec.Meta(max_length=MAX_HOLIDAYS)] = []
    exceptions: Annotated[list[ExceptionTable], msgspec.Meta(max_length=MAX_EXCEPTIONS)] = []

    @property
    def zone(self) -> dt.tzinfo:
        """The zone.

        Raises:
            BadKey: no such zone is known on this machine.
        """
        if not _NAME.fullmatch(self.time_zone):
            raise BadKey("time_zone")
        try:
            return ZoneInfo(self.time_zone)
        except (KeyError, ValueError, OSError):
            raise BadKey("time_zone") from None

    def calendar(self, *, is_below: bool = False) -> Calendar:
        """What the file says for this node, or for each of the places below it.

        Raises:
            BadKey: never after the configuration was loaded.
        """
        zone = self.zone
        limits = (
            Rule(down_bytes_s=self.up_kbit_s_per_child * BYTES_PER_KBIT)
            if is_below
            else Rule(self.down_kbit_s * BYTES_PER_KBIT, self.up_kbit_s * BYTES_PER_KBIT)
        )
        windows = [
            (table.below, table.window("windows", index))
            for index, table in enumerate(self.windows)
        ]
        exemptions = [
            (table.below, table.exemption(zone, index))
            for index, table in enumerate(self.exceptions)
        ]
        return Calendar(
            Source.OWN,
            zone,
            limits,
            tuple(window for below, window in windows if below == is_below),
            tuple(
                table.holiday(index, is_below=is_below) for index, table in enumerate(self.holidays)
            ),
            tuple(exemption for below, exemption in exemptions if below == is_below),
        )


def minute_of(text: str) -> int | None:
    """Minutes after midnight of `08:00`; `24:00` is the last one."""
    match = _CLOCK.fullmatch(text)
    if match is None:
        return None
    minute = int(match[1]) * 60 + int(match[2])
    return minute if minute <= DAY_MINUTES else None


def _aware(moment: dt.datetime, zone: dt.tzinfo) -> dt.datetime:
    return moment if moment.tzinfo is not None else moment.replace(tzinfo=zone)

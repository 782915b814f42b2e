"""The calendar: what may cross the link at a moment, and until when (SPEC 10.2).

A calendar has limits that always hold, a week of windows, holidays on which another day's windows (or none) apply,
and exceptions, each for one span of time. Several calendars hold at once: the node's own, its parent's, and
what a person said by `cuntong limit`. There is one law, within a calendar and between them: **the lower limit
wins, and a pause beats all.** The one thing that lifts anything is an exception: while it lasts, the windows of its own
calendar don't apply.

Windows are judged by the wall clock of the calendar's zone: 08:00 to 18:00 is what the clock on the wall
shows, whatever the zone does with summer time. A window belongs to the day on which it begins, so one from 22:00
to 06:00 on Fridays lasts until Saturday morning, holiday or not.

Everything is a function of `now`, so it is right in a daemon that starts inside a window and after the clock
has jumped. A limit of 0 is no limit; pausing is not the rate 0.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta, tzinfo

from cuntong_protocol.texts import N_, Sentence, sentence

DAY_MINUTES = 24 * 60
HORIZON_DAYS = 15
"""How far ahead windows are searched for a change: a week, after the longest public holiday."""
_MINUTE = timedelta(minutes=1)
_DAY = timedelta(days=1)


class Source(enum.Enum):
    """Whose calendar it is; decides which sentence explains it."""

    OWN = "own"
    PARENT = "parent"
    PERSON = "person"


@dataclass(frozen=True, slots=True)
class Rule:
    """What holds for a time: limits in bytes/s (0: none), or a pause."""

    down_bytes_s: int = 0
    up_bytes_s: int = 0
    is_paused: bool = False


@dataclass(frozen=True, slots=True)
class Window:
    """A rule for a time of the day.

    Attributes:
        days: Weekdays on which it begins, 0 is Monday. Ignored in a holiday's own windows.
        begins_minute: Minutes after midnight, 0 to 1439.
        ends_minute: Minutes after midnight, 1 to 1440, exclusive; not after `begins_minute`: on the next day.
        rule: What holds.
    """

    days: frozenset[int]
    begins_minute: int
    ends_minute: int
    rule: Rule

    @property
    def is_across_midnight(self) -> bool:
        return self.ends_minute <= self.begins_minute


@dataclass(frozen=True, slots=True)
class Holiday:
    """Days with windows of their own instead of their weekday's.

    Attributes:
        first: The first day.
        last: The last day.
        like_day: The weekday whose windows apply, 0 is Monday; None: those of `windows`.
        windows: With no `like_day`; may be empty: nothing but the limits that always hold.
    """

    first: date
    last: date
    like_day: int | None = None
    windows: tuple[Window, ...] = ()


@dataclass(frozen=True, slots=True)
class Exemption:
    """A rule for one span of time, in place of the windows.

    Attributes:
        begins: Aware; None: since ever.
        ends: Aware, exclusive; None: until it is taken back.
        rule: What holds.
    """

    begins: datetime | None
    ends: datetime | None
    rule: Rule

    def holds_at(self, now: datetime) -> bool:
        return (self.begins is None or self.begins <= now) and (
            self.ends is None or now < self.ends
        )


@dataclass(frozen=True, slots=True)
class Calendar:
    """One party's limits. Of several holidays that name a day, the first counts."""

    source: Source
    zone: tzinfo
    always: Rule = Rule()
    windows: tuple[Window, ...] = ()
    holidays: tuple[Holiday, ...] = ()
    exemptions: tuple[Exemption, ...] = ()


@dataclass(frozen=True, slots=True)
class Limit:
    """The limit for a direction in bytes/s (0: none), and why."""

    bytes_s: int
    reason: Sentence


@dataclass(frozen=True, slots=True)
class Limits:
    """What holds at a moment.

    Attributes:
        down: For receiving. Of a paused node too: what will hold when it is resumed.
        up: For sending.
        is_paused: Nothing may be moved.
        reason: Why it is paused, or why the tighter limit holds.
        until: When a pause ends, or else when limits or pause change next, UTC; None: not within `HORIZON_DAYS`.
    """

    down: Limit
    up: Limit
    is_paused: bool
    reason: Sentence
    until: datetime | None


def said(source: Source, rule: Rule, *, now: datetime, seconds: float | None) -> Calendar:
    """The calendar of somebody who only said what holds from now on: a parent, or a person.

    Args:
        source: Who said it.
        rule: What was said.
        now: Aware.
        seconds: How long it still holds, by a clock that doesn't jump; None: until it is taken back.
    """
    ends = None if seconds is None else now + timedelta(seconds=seconds)
    return Calendar(source, UTC, exemptions=(Exemption(None, ends, rule),))


_NO_LIMIT = sentence("limits.none", N_("No limit applies now."))
_ALWAYS = {
    Source.OWN: sentence("limits.own", N_("config.toml sets this limit for all times.")),
    Source.PARENT: sentence("limits.parent", N_("The place above sets this limit.")),
    Source.PERSON: sentence("limits.person", N_("Somebody set this limit by cuntong limit.")),
}
_PAUSED = {
    Source.OWN: sentence("limits.own-pause", N_("The calendar in config.toml pauses it now.")),
    Source.PARENT: sentence("limits.parent-pause", N_("The place above has paused it.")),
    Source.PERSON: sentence("limits.person-pause", N_("Somebody paused it by cuntong pause.")),
}


def lower(first: int, second: int) -> int:
    """The lower of two limits, where 0 is no limit."""
    return min(first, second) if first and second else first or second


def limits_at(now: datetime, calendars: Sequence[Calendar]) -> Limits:
    """What holds at `now`, and until when.

    Args:
        now: Aware.
        calendars: All that hold; the order plays a part in the reason only, when two say the same.

    Raises:
        ValueError: `now` is naive.
    """
    if now.tzinfo is None:
        raise ValueError("a calendar needs to know the zone of now")
    now = now.astimezone(UTC)
    limits = _judge(now, calendars)
    until = next(
        (
            moment
            for moment in _moments(now, calendars)
            if _outcome(_judge(moment, calendars)) != _outcome(limits)
        ),
        None,
    )
    return Limits(limits.down, limits.up, limits.is_paused, limits.reason, until)


def _outcome(limits: Limits) -> tuple[int, int, bool]:
    if limits.is_paused:
        return (
            0,
            0,
            True,
        )  # A pause lasts until it ends, whatever the limits behind it do meanwhile.
    return limits.down.bytes_s, limits.up.bytes_s, False


def _judge(now: datetime, calendars: Sequence[Calendar]) -> Limits:
    down = up = Limit(0, _NO_LIMIT)
    pause: Sentence | None = None
    for calendar in calendars:
        for rule, reason in _rules_at(now, calendar):
            if rule.is_paused:
                pause = pause or _PAUSED[calendar.source]
            down = _tighter(down, rule.down_bytes_s, reason)
            up = _tighter(up, rule.up_bytes_s, reason)
    tighter = up if up.bytes_s and lower(down.bytes_s, up.bytes_s) == up.bytes_s else down
    if down.bytes_s == up.bytes_s:
        tighter = down
    return Limits(down, up, pause is not None, pause or tighter.reason, None)


def _tighter(limit: Limit, bytes_s: int, reason: Sentence) -> Limit:
    found = lower(limit.bytes_s, bytes_s)
    return limit if found == limit.bytes_s else Limit(found, reason)


def _rules_at(now: datetime, calendar: Calendar) -> Iterator[tuple[Rule, Sentence]]:
    yield calendar.always, _ALWAYS[calendar.source]
    exemptions = [exemption for exemption in calendar.exemptions if exemption.holds_at(now)]
    for exemption in exemptions:
        yield exemption.rule, _exemption_reason(calendar, exemption)
    if exemptions or not (calendar.windows or calendar.holidays):
        return
    local = now.astimezone(calendar.zone)
    today = local.date()
    minute = local.hour * 60 + local.minute
    for window in _windows_of(calendar, today):
        if window.begins_minute <= minute and (
            window.is_across_midnight or minute < window.ends_minute
        ):
            yield window.rule, _window_reason(calendar, window)
    for window in _windows_of(calendar, today - _DAY) if today > date.min else ():
        if window.is_across_midnight and minute < window.ends_minute:
            yield window.rule, _window_reason(calendar, window)


def _windows_of(calendar: Calendar, day: date) -> Iterable[Window]:
    """The windows that begin on a day."""
    weekday = day.weekday()
    for holiday in calendar.holidays:
        if holiday.first <= day <= holiday.last:
            if holiday.like_day is None:
                return holiday.windows
            weekday = holiday.like_day
            break
    return [window for window in calendar.windows if weekday in window.days]


def _window_reason(calendar: Calendar, window: Window) -> Sentence:
    span = f"{_clock_text(window.begins_minute)}-{_clock_text(window.ends_minute)}"
    if calendar.source is Source.OWN:
        return sentence(
            "limits.own-window",
            N_("The calendar in config.toml sets this limit for {span}."),
            span=span,
        )
    if calendar.source is Source.PERSON:
        return sentence(
            "limits.person-window", N_("Somebody set this limit for {span}."), span=span
        )
    return _ALWAYS[calendar.source]


def _clock_text(minute: int) -> str:
    return f"{minute // 60:02}:{minute % 60:02}"


def _exemption_reason(calendar: Calendar, exemption: Exemption) -> Sentence:
    if exemption.ends is None or calendar.source is Source.PARENT:
        return _ALWAYS[calendar.source]
    ends = f"{exemption.ends.astimezone(calendar.zone):%Y-%m-%d %H:%M}"
    if calendar.source is Source.OWN:
        return sentence(
            "limits.own-until", N_("config.toml sets this limit until {time}."), time=ends
        )
    return sentence("limits.person-until", N_("Somebody set this limit until {time}."), time=ends)


# When it may change.


def _moments(now: datetime, calendars: Sequence[Calendar]) -> list[datetime]:
    """Every moment after `now` at which something could change, in order."""
    moments: set[datetime] = set()
    for calendar in calendars:
        for exemption in calendar.exemptions:
            for moment in (exemption.begins, exemption.ends):
                if moment is not None:
                    moments.add(moment.astimezone(UTC))
        if calendar.windows or any(holiday.windows for holiday in calendar.holidays):
            moments.update(_window_moments(now, calendar))
    return sorted(moment for moment in moments if moment > now)


def _window_moments(now: datetime, calendar: Calendar) -> Iterator[datetime]:
    today = now.astimezone(calendar.zone).date()
    for offset in range(-1, HORIZON_DAYS + 1):
        day = today + offset * _DAY
        for window in _windows_of(calendar, day):
            yield from _instants(calendar.zone, day, window.begins_minute)
            end = window.ends_minute + (DAY_MINUTES if window.is_across_midnight else 0)
            yield from _instants(calendar.zone, day, end)
    # Where the zone's offset changes, the wall clock jumps, perhaps into a window or out of one.
    for offset in range(HORIZON_DAYS + 1):
        begins, ends = now + offset * _DAY, now + (offset + 1) * _DAY
        if _offset(calendar.zone, begins) != _offset(calendar.zone, ends):
            yield _change_of_offset(calendar.zone, begins, ends)


def _instants(zone: tzinfo, day: date, minute: int) -> Iterator[datetime]:
    """The moments at which the wall clock shows this: one, two when clocks go back."""
    wall = datetime.combine(day, time(), zone) + minute * _MINUTE
    for fold in (0, 1):
        yield wall.replace(fold=fold).astimezone(UTC)


def _offset(zone: tzinfo, moment: datetime) -> timedelta | None:
    return moment.astimezone(zone).utcoffset()


def _change_of_offset(zone: tzinfo, begins: datetime, ends: datetime) -> datetime:
    before = _offset(zone, begins)
    while ends - begins > timedelta(microseconds=1):
        middle = begins + (ends - begins) / 2
        if _offset(zone, middle) == before:
            begins = middle
        else:
            ends = middle
    return ends

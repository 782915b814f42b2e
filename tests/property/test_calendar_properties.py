"""The calendar against an oracle that looks at the wall clock of every minute."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cuntong_daemon.policy.calendar import (
    Calendar,
    Exemption,
    Holiday,
    Rule,
    Source,
    Window,
    limits_at,
)

MINUTE = timedelta(minutes=1)
DAY = timedelta(days=1)
WEEK_MINUTES = 7 * 24 * 60
# Weeks with a change of the clock in Berlin and on Lord Howe (by half an hour), and an ordinary one.
WEEKS = [
    (ZoneInfo("Asia/Shanghai"), datetime(2027, 2, 4, 16, tzinfo=UTC)),
    (ZoneInfo("Europe/Berlin"), datetime(2027, 3, 25, 5, 17, tzinfo=UTC)),
    (ZoneInfo("Europe/Berlin"), datetime(2027, 10, 28, tzinfo=UTC)),
    (ZoneInfo("Australia/Lord_Howe"), datetime(2027, 4, 1, tzinfo=UTC)),
    (ZoneInfo("Australia/Lord_Howe"), datetime(2027, 10, 1, tzinfo=UTC)),
]

rates = st.sampled_from([0, 0, 1_000, 8_000, 64_000])
rules = st.builds(Rule, rates, rates, st.booleans())
limited = st.builds(Rule, rates, rates, st.just(False))
minutes = st.integers(0, 1439) | st.sampled_from([0, 60, 90, 120, 150, 180])
windows = st.builds(
    Window, st.frozensets(st.integers(0, 6)), minutes, minutes.map(lambda m: m or 1440), rules
)
some_windows = st.lists(windows, max_size=3).map(tuple)


@st.composite
def calendars(draw: st.DrawFn, zone: ZoneInfo, week: datetime) -> Calendar:
    def a_day() -> date:
        return (week + draw(st.integers(-1, 8)) * DAY).date()

    def a_moment() -> datetime:
        return week + draw(st.integers(-600, WEEK_MINUTES + 600)) * MINUTE

    holidays = []
    for _ in range(draw(st.integers(0, 2))):
        first, last = sorted((a_day(), a_day()))
        like = draw(st.none() | st.integers(0, 6))
        holidays.append(Holiday(first, last, like, () if like is not None else draw(some_windows)))
    exemptions = []
    for _ in range(draw(st.integers(0, 2))):
        begins, ends = sorted((a_moment(), a_moment()))
        exemptions.append(
            Exemption(
                draw(st.sampled_from([begins, None])),
                draw(st.sampled_from([ends, None])),
                draw(rules),
            )
        )
    return Calendar(
        draw(st.sampled_from(Source)),
        zone,
        draw(limited),
        draw(some_windows),
        tuple(holidays),
        tuple(exemptions),
    )


def oracle(now: datetime, all_calendars: list[Calendar]) -> tuple[int, int, bool]:
    """By the book: which rules hold in this minute, then the lowest of each direction."""
    holding = []
    for calendar in all_calendars:
        holding.append(calendar.always)
        lifted = False
        for exemption in calendar.exemptions:
            if exemption.begins is not None and now < exemption.begins:
                continue
            if exemption.ends is not None and now >= exemption.ends:
                continue
            lifted = True
            holding.append(exemption.rule)
        if lifted:
            continue
        wall = now.astimezone(calendar.zone)
        shown = wall.hour * 60 + wall.minute
        for is_yesterday in (False, True):
            day = wall.date() - is_yesterday * DAY
            grid = [w for w in calendar.windows if day.weekday() in w.days]
            for holiday in reversed(calendar.holidays):
                if holiday.first <= day <= holiday.last:
                    if holiday.like_day is None:
                        grid = list(holiday.windows)
                    else:
                        grid = [w for w in calendar.windows if holiday.like_day in w.days]
            for w in grid:
                minute = shown + 1440 * is_yesterday
                ends = w.ends_minute + 1440 * (w.ends_minute <= w.begins_minute)
                if minute in range(w.begins_minute, ends):
                    holding.append(w.rule)
    downs = [rule.down_bytes_s for rule in holding if rule.down_bytes_s]
    ups = [rule.up_bytes_s for rule in holding if rule.up_bytes_s]
    return min(downs, default=0), min(ups, default=0), any(rule.is_paused for rule in holding)


def felt(outcome: tuple[int, int, bool]) -> tuple[int, int, bool]:
    """What a node notices of an outcome: of a pause, nothing but the pause."""
    return (0, 0, True) if outcome[2] else outcome


@given(st.data())
@settings(max_examples=60, deadline=None)
def test_any_moment_is_as_the_oracle_says(data: st.DataObject) -> None:
    zone, week = data.draw(st.sampled_from(WEEKS))
    found = data.draw(st.lists(calendars(zone, week), max_size=3))
    now = week + data.draw(st.integers(0, WEEK_MINUTES)) * MINUTE
    limits = limits_at(now, found)
    assert (limits.down.bytes_s, limits.up.bytes_s, limits.is_paused) == oracle(now, found)
    # It holds until it says, and then something else does.
    end = limits.until or now + 8 * DAY
    assert end > now
    for _ in range(40):
        moment = now + data.draw(st.floats(0, 1)) * (end - now)
        if moment < end:
            minute = moment.replace(second=0, microsecond=0)
            assert felt(oracle(max(minute, now), found)) == felt(oracle(now, found))
    if limits.until is not None:
        assert felt(oracle(limits.until, found)) != felt(oracle(now, found))
    # Another calendar never allows more; the order of calendars plays no part.
    more = [*found, data.draw(calendars(zone, week))]
    tighter = limits_at(now, more)
    for before, after in ((limits.down, tighter.down), (limits.up, tighter.up)):
        assert after.bytes_s <= before.bytes_s or not before.bytes_s
    assert tighter.is_paused >= limits.is_paused
    turned = limits_at(now, more[::-1])
    assert (turned.down.bytes_s, turned.up.bytes_s, turned.until) == (
        tighter.down.bytes_s,
        tighter.up.bytes_s,
        tighter.until,
    )


@pytest.mark.parametrize(("zone", "week"), WEEKS)
def test_a_week_followed_from_change_to_change_is_the_oracles_week(
    zone: ZoneInfo, week: datetime
) -> None:
    """A daemon that only looks when told to has at every minute what the slow oracle says."""
    found = [
        Calendar(
            Source.OWN,
            zone,
            Rule(up_bytes_s=57_600),
            (
                Window(frozenset(range(5)), 8 * 60, 18 * 60, Rule(16_000, 8_000)),
                Window(frozenset({5, 6}), 9 * 60 + 30, 21 * 60, Rule(8_000, 8_000)),
                Window(frozenset(range(7)), 22 * 60, 2 * 60 + 15, Rule(32_000, 0)),
                Window(frozenset({1}), 12 * 60, 12 * 60 + 1, Rule(is_paused=True)),
            ),
            (Holiday((week + 2 * DAY).date(), (week + 3 * DAY).date(), like_day=6),),
            (Exemption(week + 4 * DAY, week + 4 * DAY + 90 * MINUTE, Rule()),),
        ),
        Calendar(
            Source.PARENT,
            zone,
            windows=(Window(frozenset({0, 2}), 17 * 60, 9 * 60, Rule(12_000, 12_000)),),
        ),
    ]
    limits = limits_at(week, found)
    looks = 0
    for minute in range(WEEK_MINUTES):
        now = week + minute * MINUTE
        while limits.until is not None and now >= limits.until:
            limits = limits_at(limits.until, found)
            looks += 1
        assert (limits.down.bytes_s, limits.up.bytes_s, limits.is_paused) == oracle(now, found), now
    assert 20 < looks < 60

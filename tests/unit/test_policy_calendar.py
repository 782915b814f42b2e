"""The calendar: weeks, midnights, summer time, holidays, exceptions, and who wins."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest

from cuntong_daemon.policy.calendar import (
    Calendar,
    Exemption,
    Holiday,
    Limits,
    Rule,
    Source,
    Window,
    limits_at,
    lower,
    said,
)

BEIJING = ZoneInfo("Asia/Shanghai")
BERLIN = ZoneInfo("Europe/Berlin")
EVERY_DAY = frozenset(range(7))
WORKDAYS = frozenset(range(5))
DAY = Rule(down_bytes_s=8_000, up_bytes_s=4_000)
PAUSE = Rule(is_paused=True)


def at(text: str, zone: ZoneInfo = BEIJING) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=zone)


def window(begins: str, ends: str, rule: Rule = DAY, days: frozenset[int] = EVERY_DAY) -> Window:
    first, last = (int(text[:2]) * 60 + int(text[3:]) for text in (begins, ends))
    return Window(days, first, last, rule)


def own(*windows: Window, zone: ZoneInfo = BEIJING, **more: object) -> Calendar:
    return Calendar(Source.OWN, zone, windows=windows, **more)  # type: ignore[arg-type]


def down(limits: Limits) -> int:
    return limits.down.bytes_s


# 2027-03-01 is a Monday.


def test_a_daemon_that_starts_inside_a_window_is_right_at_once() -> None:
    calendar = own(window("08:00", "18:00"))
    limits = limits_at(at("2027-03-01 12:34:56"), [calendar])
    assert (limits.down.bytes_s, limits.up.bytes_s, limits.is_paused) == (8_000, 4_000, False)
    assert limits.until == at("2027-03-01 18:00")
    assert limits.reason.code == "limits.own-window"
    assert "08:00-18:00" in str(limits.reason)


def test_a_window_begins_with_its_first_minute_and_has_ended_at_its_last() -> None:
    calendar = own(window("08:00", "18:00"))
    assert down(limits_at(at("2027-03-01 07:59:59.999999"), [calendar])) == 0
    assert down(limits_at(at("2027-03-01 08:00"), [calendar])) == 8_000
    assert down(limits_at(at("2027-03-01 17:59:59.999999"), [calendar])) == 8_000
    assert down(limits_at(at("2027-03-01 18:00"), [calendar])) == 0
    assert limits_at(at("2027-03-01 18:00"), [calendar]).until == at("2027-03-02 08:00")


def test_a_window_across_midnight_goes_on_into_the_next_day() -> None:
    calendar = own(window("22:00", "06:00", days=frozenset({4})))
    assert down(limits_at(at("2027-03-05 21:59"), [calendar])) == 0
    assert down(limits_at(at("2027-03-05 23:59"), [calendar])) == 8_000
    saturday = limits_at(at("2027-03-06 05:59"), [calendar])
    assert (down(saturday), saturday.until) == (8_000, at("2027-03-06 06:00"))
    # Friday's window doesn't begin on Thursday night.
    assert down(limits_at(at("2027-03-05 05:59"), [calendar])) == 0


def test_a_whole_day_ends_at_midnight() -> None:
    sunday = own(window("00:00", "24:00", days=frozenset({6})))
    assert down(limits_at(at("2027-03-07 23:59"), [sunday])) == 8_000
    assert down(limits_at(at("2027-03-08 00:00"), [sunday])) == 0


def test_pausing_is_not_the_rate_0_and_keeps_what_holds_afterwards() -> None:
    calendar = own(window("08:00", "18:00", PAUSE), always=Rule(down_bytes_s=50_000))
    limits = limits_at(at("2027-03-01 09:00"), [calendar])
    assert (limits.is_paused, down(limits)) == (True, 50_000)
    assert limits.reason.code == "limits.own-pause"
    free = limits_at(at("2027-03-01 19:00"), [own(window("08:00", "18:00", PAUSE))])
    assert (free.is_paused, down(free), free.reason.code) == (False, 0, "limits.none")


def test_windows_that_overlap_leave_the_lower_limit_in_each_direction() -> None:
    calendar = own(
        window("08:00", "18:00", Rule(down_bytes_s=8_000, up_bytes_s=4_000)),
        window("12:00", "14:00", Rule(down_bytes_s=9_000, up_bytes_s=1_000)),
    )
    limits = limits_at(at("2027-03-01 13:00"), [calendar])
    assert (limits.down.bytes_s, limits.up.bytes_s) == (8_000, 1_000)
    assert "12:00-14:00" in str(limits.up.reason)
    assert "08:00-18:00" in str(limits.down.reason)
    assert limits.reason == limits.up.reason


def test_windows_that_touch_with_the_same_limit_are_one_to_those_who_wait() -> None:
    calendar = own(window("08:00", "12:00"), window("12:00", "18:00"))
    assert limits_at(at("2027-03-01 09:00"), [calendar]).until == at("2027-03-01 18:00")


def test_a_spring_festival_has_sundays_hours_and_a_make_up_day_mondays() -> None:
    weekday = window("08:00", "18:00", days=WORKDAYS)
    sunday = window("10:00", "12:00", PAUSE, days=frozenset({6}))
    calendar = own(
        weekday,
        sunday,
        holidays=(
            Holiday(date(2027, 2, 6), date(2027, 2, 12), like_day=6),
            Holiday(date(2027, 2, 20), date(2027, 2, 20), like_day=0),
        ),
    )
    tuesday = limits_at(at("2027-02-09 10:30"), [calendar])
    assert (tuesday.is_paused, down(tuesday)) == (True, 0)
    saturday = limits_at(at("2027-02-20 09:00"), [calendar])
    assert (saturday.is_paused, down(saturday)) == (False, 8_000)


def test_a_closed_week_has_no_windows_and_the_next_change_is_after_it() -> None:
    calendar = own(
        window("08:00", "18:00"), holidays=(Holiday(date(2027, 10, 1), date(2027, 10, 8)),)
    )
    limits = limits_at(at("2027-09-30 18:00"), [calendar])
    assert (down(limits), limits.until) == (0, at("2027-10-09 08:00"))


def test_a_holiday_may_have_hours_of_its_own_and_the_first_that_names_a_day_counts() -> None:
    festival = window("19:00", "01:00", PAUSE, days=frozenset())
    calendar = own(
        window("08:00", "18:00"),
        holidays=(
            Holiday(date(2027, 3, 2), date(2027, 3, 2), windows=(festival,)),
            Holiday(date(2027, 3, 1), date(2027, 3, 3)),
        ),
    )
    assert down(limits_at(at("2027-03-02 09:00"), [calendar])) == 0
    assert limits_at(at("2027-03-02 20:00"), [calendar]).is_paused
    assert limits_at(at("2027-03-03 00:59"), [calendar]).is_paused
    assert not limits_at(at("2027-03-01 20:00"), [calendar]).is_paused


def test_an_exception_lifts_the_windows_of_its_own_calendar_only() -> None:
    stocktaking = Exemption(at("2027-03-01 08:00"), at("2027-03-01 12:00"), Rule())
    calendar = own(
        window("08:00", "18:00"), exemptions=(stocktaking,), always=Rule(down_bytes_s=50_000)
    )
    limits = limits_at(at("2027-03-01 09:00"), [calendar])
    assert (down(limits), limits.until) == (50_000, at("2027-03-01 12:00"))
    parent = Calendar(Source.PARENT, BEIJING, windows=(window("08:00", "18:00"),))
    assert down(limits_at(at("2027-03-01 09:00"), [calendar, parent])) == 8_000


def test_an_exception_is_a_moment_whatever_zone_it_was_written_in() -> None:
    exemption = Exemption(
        datetime(2027, 3, 1, 0, 30, tzinfo=UTC), datetime(2027, 3, 1, 1, 0, tzinfo=UTC), PAUSE
    )
    calendar = own(exemptions=(exemption,))
    assert not limits_at(at("2027-03-01 08:29:59"), [calendar]).is_paused
    paused = limits_at(at("2027-03-01 08:30"), [calendar])
    assert (paused.is_paused, paused.until) == (True, at("2027-03-01 09:00"))
    assert not limits_at(at("2027-03-01 09:00"), [calendar]).is_paused


def test_the_lower_of_all_calendars_wins_and_a_pause_beats_all() -> None:
    now = at("2027-03-01 09:00")
    mine = own(window("08:00", "18:00", Rule(down_bytes_s=30_000, up_bytes_s=3_000)))
    parent = Calendar(Source.PARENT, BEIJING, always=Rule(down_bytes_s=20_000, up_bytes_s=9_000))
    limits = limits_at(now, [mine, parent])
    assert (limits.down.bytes_s, limits.down.reason.code) == (20_000, "limits.parent")
    assert (limits.up.bytes_s, limits.up.reason.code) == (3_000, "limits.own-window")
    until = at("2027-03-01 09:30")
    person = Calendar(Source.PERSON, BEIJING, exemptions=(Exemption(None, until, PAUSE),))
    paused = limits_at(now, [mine, parent, person])
    assert (paused.is_paused, paused.until) == (True, until)
    assert paused.reason.code == "limits.person-pause"


def test_a_limit_until_taken_back_has_no_end() -> None:
    person = Calendar(
        Source.PERSON, BEIJING, exemptions=(Exemption(None, None, Rule(down_bytes_s=1_000)),)
    )
    limits = limits_at(at("2027-03-01 09:00"), [person])
    assert (down(limits), limits.until, limits.reason.code) == (1_000, None, "limits.person")


def test_what_a_parent_said_is_over_when_its_seconds_are() -> None:
    now = at("2027-03-01 09:00")
    calendar = said(Source.PARENT, PAUSE, now=now, seconds=90)
    limits = limits_at(now, [calendar])
    assert (limits.is_paused, limits.until) == (True, now + timedelta(seconds=90))
    assert limits.reason.code == "limits.parent-pause"
    assert not limits_at(now + timedelta(seconds=90), [calendar]).is_paused
    assert limits_at(now, [said(Source.PERSON, PAUSE, now=now, seconds=None)]).until is None


def test_a_limit_until_a_time_says_so() -> None:
    ends = at("2027-03-01 18:00")
    person = Calendar(
        Source.PERSON, BEIJING, exemptions=(Exemption(None, ends, Rule(up_bytes_s=1_000)),)
    )
    limits = limits_at(at("2027-03-01 09:00"), [person])
    assert str(limits.reason) == "Somebody set this limit until 2027-03-01 18:00."


def test_the_hour_that_summer_time_skips_ends_nothing_late() -> None:
    """On 2027-03-28 Berlin's clocks go from 02:00 to 03:00."""
    calendar = own(window("01:00", "02:30"), zone=BERLIN)
    before = limits_at(at("2027-03-28 01:30", BERLIN), [calendar])
    assert down(before) == 8_000
    # 02:30 never comes: the window ends when the clock jumps over it.
    assert before.until == datetime(2027, 3, 28, 1, 0, tzinfo=UTC)
    assert down(limits_at(datetime(2027, 3, 28, 1, 0, tzinfo=UTC), [calendar])) == 0


def test_the_hour_that_comes_twice_is_in_the_window_twice() -> None:
    """On 2027-10-31 Berlin's clocks go back from 03:00 to 02:00."""
    calendar = own(window("02:00", "02:30"), zone=BERLIN)
    first = datetime(2027, 10, 31, 0, 15, tzinfo=UTC)
    limits = limits_at(first, [calendar])
    assert (down(limits), limits.until) == (8_000, first + timedelta(minutes=15))
    between = limits_at(first + timedelta(minutes=30), [calendar])
    assert (down(between), between.until) == (0, first + timedelta(minutes=45))
    assert down(limits_at(first + timedelta(hours=1), [calendar])) == 8_000


def test_a_clock_that_jumps_by_years_finds_its_week_again() -> None:
    calendar = own(window("08:00", "18:00"))
    assert down(limits_at(datetime(2000, 1, 1, tzinfo=UTC), [calendar])) == 8_000
    assert down(limits_at(at("2040-01-02 07:00"), [calendar])) == 0


def test_a_moment_without_a_zone_is_refused() -> None:
    with pytest.raises(ValueError):
        limits_at(datetime(2027, 3, 1), [])  # noqa: DTZ001  That is what is refused.


def test_nothing_configured_is_no_limit_for_ever() -> None:
    limits = limits_at(at("2027-03-01 09:00"), [])
    assert (down(limits), limits.up.bytes_s, limits.until) == (0, 0, None)
    assert limits.reason.code == "limits.none"


@pytest.mark.parametrize(("one", "two", "both"), [(0, 0, 0), (0, 5, 5), (5, 0, 5), (4, 5, 4)])
def test_0_is_no_limit(one: int, two: int, both: int) -> None:
    assert lower(one, two) == both

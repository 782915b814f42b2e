"""What a person said: what it means at which time, and that it survives restarts and damage."""

from __future__ import annotations

import datetime as dt
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cuntong_daemon.config_bandwidth import MAX_WINDOWS
from cuntong_daemon.paths import DataPaths
from cuntong_daemon.policy.calendar import Calendar, Limits, Rule, Source, Window, limits_at
from cuntong_daemon.said import PersonsLimits
from tests.support.bandwidth import BEIJING

WORKDAYS = frozenset(range(5))
PAUSE = Rule(is_paused=True)


def at(text: str) -> dt.datetime:
    """2027-03-01 is a Monday."""
    return dt.datetime.fromisoformat(text).replace(tzinfo=BEIJING)


def open_in(folder: Path) -> PersonsLimits:
    return PersonsLimits(DataPaths(folder), BEIJING)


def again(person: PersonsLimits, folder: Path) -> PersonsLimits:
    """After a restart."""
    person.save()
    assert person.problem is None
    return open_in(folder)


def holds(person: PersonsLimits, moment: str, *others: Calendar) -> Limits:
    return limits_at(at(moment), [*others, *person.calendars(at(moment))])


def weekly(begins: int, ends: int, rule: Rule, days: frozenset[int] = WORKDAYS) -> Window:
    return Window(days, begins * 60, ends * 60, rule)


def test_nothing_was_said_on_a_new_node(tmp_path: Path) -> None:
    person = open_in(tmp_path)
    assert person.problem is None
    assert holds(person, "2027-03-01 09:00").reason.code == "limits.none"
    assert not (tmp_path / "limits.json").exists()


def test_a_limit_holds_after_a_restart_until_it_is_taken_back(tmp_path: Path) -> None:
    person = open_in(tmp_path)
    person.limit(Rule(25_000, 12_500))
    person = again(person, tmp_path)
    limits = holds(person, "2030-03-01 09:00")
    assert (limits.down.bytes_s, limits.up.bytes_s, limits.until) == (25_000, 12_500, None)
    person.limit(Rule(up_bytes_s=1_000))
    assert holds(person, "2030-03-01 09:00").down.bytes_s == 0
    person.unlimit()
    assert holds(again(person, tmp_path), "2030-03-01 09:00").up.bytes_s == 0


def test_a_limit_that_ended_while_the_daemon_was_down_is_over(tmp_path: Path) -> None:
    person = open_in(tmp_path)
    person.limit(Rule(25_000), at("2027-03-01 18:00"))
    person.pause(at("2027-03-01 12:00"))
    person = again(person, tmp_path)
    limits = holds(person, "2027-03-01 11:59")
    assert (limits.is_paused, limits.until) == (True, at("2027-03-01 12:00"))
    limits = holds(person, "2027-03-01 12:00")
    assert (limits.is_paused, limits.down.bytes_s) == (False, 25_000)
    assert limits.until == at("2027-03-01 18:00")
    assert [calendar.exemptions for calendar in person.calendars(at("2027-03-01 18:00"))] == [
        (),
        (),
    ]


def test_a_clock_that_jumps_forward_and_back_forgets_no_pause(tmp_path: Path) -> None:
    person = open_in(tmp_path)
    person.pause(at("2027-03-01 12:00"))
    assert not holds(person, "2040-01-01 00:00").is_paused
    assert holds(again(person, tmp_path), "2027-03-01 11:00").is_paused


def test_a_limit_until_noon_stands_in_place_of_the_weekly_ones(tmp_path: Path) -> None:
    person = open_in(tmp_path)
    person.limit_weekly([weekly(8, 18, Rule(10_000))])
    person.limit(Rule(25_000), at("2027-03-01 12:00"))
    assert holds(person, "2027-03-01 09:00").down.bytes_s == 25_000
    limits = holds(person, "2027-03-01 12:00")
    assert (limits.down.bytes_s, limits.until) == (10_000, at("2027-03-01 18:00"))


def test_a_limit_never_ends_a_weekly_pause(tmp_path: Path) -> None:
    person = open_in(tmp_path)
    person.limit_weekly([weekly(8, 18, PAUSE)])
    person.limit(Rule(25_000), at("2027-03-01 12:00"))
    assert holds(person, "2027-03-01 09:00").is_paused


def test_a_limit_without_end_and_a_weekly_one_the_lower_wins(tmp_path: Path) -> None:
    person = open_in(tmp_path)
    person.limit_weekly([weekly(8, 18, Rule(10_000, 90_000))])
    person.limit(Rule(25_000, 30_000))
    limits = holds(person, "2027-03-01 09:00")
    assert (limits.down.bytes_s, limits.up.bytes_s) == (10_000, 30_000)


def test_weekly_times_add_up_and_the_same_one_is_replaced(tmp_path: Path) -> None:
    person = open_in(tmp_path)
    person.limit_weekly([weekly(8, 18, Rule(10_000)), weekly(12, 14, PAUSE)])
    person.limit_weekly([weekly(8, 18, Rule(20_000)), weekly(8, 18, Rule(5_000), frozenset({5}))])
    person = again(person, tmp_path)
    assert len(person.said.weekly) == 3
    assert holds(person, "2027-03-01 09:00").down.bytes_s == 20_000
    assert holds(person, "2027-03-06 09:00").down.bytes_s == 5_000
    assert holds(person, "2027-03-02 12:30").is_paused
    person.unlimit()
    assert holds(person, "2027-03-01 09:00").down.bytes_s == 0
    assert holds(person, "2027-03-02 12:30").is_paused


def test_too_many_weekly_times_change_nothing(tmp_path: Path) -> None:
    person = open_in(tmp_path)
    windows = [Window(WORKDAYS, minute, minute + 1, PAUSE) for minute in range(MAX_WINDOWS + 1)]
    person.limit_weekly(windows[:-1])
    with pytest.raises(ValueError, match=str(MAX_WINDOWS + 1)):
        person.limit_weekly(windows[-1:])
    assert len(again(person, tmp_path).said.weekly) == MAX_WINDOWS


def test_a_pause_is_shown_until_it_ends_whatever_the_limits_do_meanwhile(tmp_path: Path) -> None:
    person = open_in(tmp_path)
    person.limit_weekly([weekly(8, 18, Rule(10_000))])
    person.pause()
    assert holds(person, "2027-03-01 07:00").until is None
    person.pause(at("2027-03-03 09:00"))
    assert holds(person, "2027-03-01 07:00").until == at("2027-03-03 09:00")


def test_resuming_ends_a_weekly_pause_once_and_keeps_the_limits(tmp_path: Path) -> None:
    person = open_in(tmp_path)
    person.limit_weekly([weekly(8, 18, PAUSE), weekly(9, 17, Rule(10_000))])
    person.pause()
    person.resume(at("2027-03-01 10:00"))
    person = again(person, tmp_path)
    limits = holds(person, "2027-03-01 10:00")
    assert (limits.is_paused, limits.down.bytes_s) == (False, 10_000)
    assert not holds(person, "2027-03-01 17:59").is_paused
    assert holds(person, "2027-03-02 08:00").is_paused
    person.pause()
    assert holds(person, "2027-03-01 10:00").is_paused
    person.resume(at("2027-03-01 20:00"), is_weekly=True)
    assert not holds(again(person, tmp_path), "2027-03-02 08:00").is_paused
    assert holds(person, "2027-03-02 10:00").down.bytes_s == 10_000


def test_resuming_at_any_hour_ends_a_pause_of_the_whole_week(tmp_path: Path) -> None:
    person = open_in(tmp_path)
    person.limit_weekly([weekly(0, 24, PAUSE, frozenset(range(7)))])
    person.resume(at("2027-03-01 10:00"))
    assert not holds(again(person, tmp_path), "2027-03-20 10:00").is_paused


def test_resuming_by_a_clock_that_is_years_ahead_doesnt_end_the_weekly_pauses(
    tmp_path: Path,
) -> None:
    person = open_in(tmp_path)
    person.limit_weekly([weekly(8, 18, PAUSE)])
    person.resume(at("2040-03-01 10:00"))  # A Thursday.
    assert not holds(person, "2040-03-01 10:00").is_paused
    assert holds(person, "2027-03-01 10:00").is_paused


def test_resuming_cant_lift_what_another_calendar_pauses(tmp_path: Path) -> None:
    person = open_in(tmp_path)
    own = Calendar(Source.OWN, BEIJING, Rule(is_paused=True))
    person.pause()
    person.resume(at("2027-03-01 10:00"))
    limits = holds(person, "2027-03-01 10:00", own)
    assert (limits.is_paused, limits.reason.code) == (True, "limits.own-pause")


def test_a_pause_holds_though_the_disk_is_full(tmp_path: Path) -> None:
    person = open_in(tmp_path / "gone")
    person.pause()
    person.save()
    assert person.problem is not None
    assert person.problem.code == "limits.not-written"
    assert holds(person, "2027-03-01 10:00").is_paused
    (tmp_path / "gone").mkdir()
    assert holds(again(person, tmp_path / "gone"), "2027-03-01 10:00").is_paused


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "{}",
        '{"v":2}',
        '{"v":1,"limit":3}',
        '{"v":1,"pause":{"begins":null,"ends":"2027-03-01T00:00:00","rule":{"is_paused":true}}}',
        '{"v":1,"pause":{"begins":null,"ends":"9999-12-31T23:59:59-12:00","rule":{}}}',
        '{"v":1,"limit":{"begins":null,"ends":null,"rule":{"down_bytes_s":-1}}}',
        '{"v":1,"weekly":[{"days":[7],"begins_minute":0,"ends_minute":1,"rule":{}}]}',
        '{"v":1,"weekly":[{"days":[],"begins_minute":0,"ends_minute":1,"rule":{}}]}',
        '{"v":1,"weekly":[{"days":[1],"begins_minute":1440,"ends_minute":1,"rule":{}}]}',
    ],
)
def test_a_damaged_file_is_told_in_one_sentence_and_mended_by_the_next_word(
    tmp_path: Path, text: str
) -> None:
    (tmp_path / "limits.json").write_text(text)
    person = open_in(tmp_path)
    assert person.problem is not None
    assert person.problem.code == "limits.damaged"
    assert "limits.json" in str(person.problem)
    assert not holds(person, "2027-03-01 09:00").is_paused
    person.pause()
    assert holds(again(person, tmp_path), "2027-03-01 09:00").is_paused


def test_fields_of_a_newer_program_are_skipped(tmp_path: Path) -> None:
    (tmp_path / "limits.json").write_text('{"v":1,"mood":"good","weekly":[]}')
    assert open_in(tmp_path).problem is None


_RATES = st.integers(0, 10**9)
_RULES = st.builds(Rule, _RATES, _RATES, st.booleans())
_MOMENTS = st.integers(946_684_800, 4_102_444_800).map(  # The years 2000 to 2099.
    lambda second: dt.datetime.fromtimestamp(second, dt.UTC)
)
_WINDOWS = st.builds(
    Window,
    st.frozensets(st.integers(0, 6), min_size=1),
    st.integers(0, 1439),
    st.integers(1, 1440),
    _RULES,
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    now=_MOMENTS,
    rule=_RULES,
    ends=st.none() | _MOMENTS,
    paused=st.none() | _MOMENTS,
    windows=st.lists(_WINDOWS, max_size=4),
    is_resumed=st.booleans(),
)
def test_what_was_said_is_the_same_after_a_restart(
    tmp_path: Path,
    now: dt.datetime,
    rule: Rule,
    ends: dt.datetime | None,
    paused: dt.datetime | None,
    windows: list[Window],
    is_resumed: bool,
) -> None:
    person = open_in(tmp_path)
    person.limit(rule, ends)
    person.limit_weekly(windows)
    person.pause(paused)
    if is_resumed:
        person.resume(now)
        assert not limits_at(now, [person.calendars(now)[1]]).is_paused
    restarted = again(person, tmp_path)
    assert restarted.said == person.said
    assert restarted.calendars(now) == person.calendars(now)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.binary(max_size=200))
def test_no_bytes_in_the_file_stop_the_daemon(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "limits.json").write_bytes(data)
    assert open_in(tmp_path).problem is not None

"""`cuntong limit | pause | resume` against a real local socket, with real calendars behind it."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
import trio
from rich.cells import cell_len

from cuntong_daemon import i18n
from cuntong_daemon.control.bandwidth_methods import bandwidth_methods, bandwidth_status
from cuntong_daemon.control.client import call
from cuntong_daemon.control.messages import BandwidthStatus, ChildBandwidth, NodeStatus, Status
from cuntong_daemon.control.times import LimitError, parse_duration, parse_until
from cuntong_daemon.paths import DataPaths
from cuntong_daemon.policy import calendar, caps, governor
from cuntong_daemon.policy.calendar import Calendar, Rule, Source, Window
from cuntong_protocol.errors import CuntongError, Fault
from cuntong_protocol.texts import Sentence, sentence
from cuntong_tools.main import run
from cuntong_tools.operate.bandwidth_views import bandwidth_rows
from cuntong_tools.operate.tables import pairs
from cuntong_tools.output import console
from tests.support.bandwidth import BEIJING, FakeBandwidth
from tests.support.node import fake_node

EVENING = dt.datetime(2027, 3, 5, 20, 0, tzinfo=BEIJING)
"""A Friday."""
EVERY_DAY = frozenset(range(7))
LINK = {
    "link_down_kbit_s": 512,
    "link_down_how": "configured",
    "link_down_reason": sentence("link-rate.configured", "It stands in config.toml."),
    "link_up_kbit_s": 128,
    "link_up_how": "assumed",
    "link_up_reason": sentence("link-rate.assumed", "It is the least for a place of this kind."),
    "down_kbit_s": 498,
    "governor_state": "free",
    "governor_reason": governor._REASONS[governor.State.FREE],
}


class Shell:
    """Runs `cuntong …` in this process against a node whose clock can be set."""

    def __init__(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.now = EVENING
        self.paths = DataPaths(folder)
        self.bandwidth = FakeBandwidth(self.paths, lambda: self.now)
        self.bandwidth.link = dict(LINK)
        self.events: list[str] = []
        self._capsys = capsys

    async def record(self, event: Sentence) -> None:
        await trio.lowlevel.checkpoint()
        self.events.append(str(event))

    async def status(self, _params: dict[str, Any]) -> object:
        await trio.lowlevel.checkpoint()
        return Status(
            node=NodeStatus(code="441900003005", name="石排村", tier="village"),
            bandwidth=bandwidth_status(self.bandwidth, self.now),
        )

    async def __call__(self, *arguments: str) -> tuple[int, str, str]:
        code = await trio.to_thread.run_sync(run, [*arguments, "--data", str(self.paths.root)])
        out, err = self._capsys.readouterr()
        assert max(cell_len(line) for line in (out or " ").splitlines()) <= 80
        return code, " ".join(out.split()), err

    async def says(self, *arguments: str) -> str:
        code, out, err = await self(*arguments)
        assert (code, err) == (0, "")
        return out


@pytest.fixture(autouse=True)
def english(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("LANGUAGE", "en")
    monkeypatch.setenv("TZ", "America/New_York")  # People's times are by the node's zone.
    monkeypatch.delenv("COLUMNS", raising=False)
    i18n._catalogue.cache_clear()
    yield
    i18n._catalogue.cache_clear()


@pytest.fixture
async def shell(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> AsyncIterator[Shell]:
    shell = Shell(tmp_path, capsys)
    methods = bandwidth_methods(shell.bandwidth, now=lambda: shell.now, record=shell.record)
    async with fake_node(tmp_path, [], methods | {"status": shell.status}):
        yield shell


def in_config(rule: Rule) -> Calendar:
    """A window of config.toml that holds all day."""
    return Calendar(Source.OWN, BEIJING, windows=(Window(EVERY_DAY, 0, 1439, rule),))


async def test_without_options_it_shows_what_holds_and_changes_nothing(shell: Shell) -> None:
    out = await shell.says("limit")
    for said in (
        "Line in 512 kbit/s: It stands in config.toml.",
        "out 128 kbit/s: It is the least",
        "Limit in unlimited out unlimited",
        "Now in 498 kbit/s, out 0 kbit/s",
        "Others Nobody else's traffic shows",
    ):
        assert said in out, said
    assert shell.bandwidth.looks == 0
    assert not shell.paths.limits.exists()


async def test_a_limit_holds_at_once_and_the_answer_says_until_when(shell: Shell) -> None:
    out = await shell.says("limit", "--down", "200", "--up", "100", "--for", "2h")
    assert shell.bandwidth.looks == 1
    assert "in 200 kbit/s: Somebody set this limit until 2027-03-05 22:00." in out
    assert "out 100 kbit/s" in out
    assert "Next change 2027-03-05 22:00" in out
    assert "Set here until 2027-03-05 22:00 in 200 kbit/s, out 100 kbit/s" in out
    shell.now += dt.timedelta(hours=2)
    assert "Limit in unlimited" in await shell.says("limit")


async def test_a_time_of_day_is_the_next_one_by_the_nodes_zone(shell: Shell) -> None:
    assert "Next change 2027-03-06 18:00" in await shell.says(
        "limit", "--up", "9", "--until", "18:00"
    )
    assert "Next change 2027-03-05 21:30" in await shell.says(
        "limit", "--up", "9", "--until", "21:30"
    )
    out = await shell.says("limit", "--up", "9", "--until", "2027-12-01T08:00")
    assert "Next change 2027-12-01 08:00" in out


async def test_less_than_was_asked_for_is_told_with_the_reason(shell: Shell) -> None:
    shell.bandwidth.others = [in_config(Rule(down_bytes_s=100 * 125))]
    out = await shell.says("limit", "--down", "200")
    assert (
        "in 100 kbit/s, less than the 200 kbit/s asked for: The calendar in config.toml sets" in out
    )


async def test_weekly_limits_and_pauses_add_up_and_are_shown(shell: Shell) -> None:
    await shell.says(
        "limit", "--down", "200",
        "--weekly", "mon-fri", "08:00-18:00", "--weekly", "sat,sun", "9:00-12:00",
    )  # fmt: skip
    out = await shell.says("pause", "--weekly", "fri-sun", "19:00-24:00")
    assert "paused until 2027-03-06 00:00" in out
    assert "mon-fri 08:00-18:00 in 200 kbit/s" in out
    assert "sat, sun 09:00-12:00 in 200 kbit/s" in out
    assert "fri-sun 19:00-24:00 pause" in out
    out = await shell.says("limit", "--none")
    assert "08:00-18:00" not in out
    assert "fri-sun 19:00-24:00 pause" in out
    assert "paused" not in await shell.says("resume")
    assert "fri-sun" not in await shell.says("resume", "--weekly")


async def test_a_pause_is_in_plain_sight_until_it_is_resumed(shell: Shell) -> None:
    out = await shell.says("pause")
    assert "Pause paused: Somebody paused it by cuntong pause." in out
    out = await shell.says("status")
    assert "Limit paused Somebody paused it by cuntong pause." in out
    assert "until" not in out
    assert "paused" not in await shell.says("resume")


async def test_resuming_what_the_calendar_pauses_says_that_it_cant(shell: Shell) -> None:
    shell.bandwidth.others = [in_config(Rule(is_paused=True))]
    await shell.says("pause")
    out = await shell.says("resume")
    assert out.startswith("It stays paused: resume lifts only what cuntong pause has set.")
    assert "The calendar in config.toml pauses it now." in out


async def test_what_cant_be_written_holds_and_is_told(shell: Shell) -> None:
    shell.paths.limits.mkdir()
    out = await shell.says("pause", "--for", "30min")
    assert out.startswith("! Limits and pauses hold, but only until a restart")
    assert "paused until 2027-03-05 20:30" in out
    assert "! Limits and pauses hold" in await shell.says("status")


async def test_what_was_said_and_taken_back_is_an_event_with_its_end(shell: Shell) -> None:
    for words, event in (
        ("limit --down 200 --up 100", "limited transfers until it is taken back: in 200 kbit/s, out 100 kbit/s."),
        ("limit --up 9 --for 2h", "limited transfers until 2027-03-05 22:00: in -, out 9 kbit/s."),
        ("limit --down 9 --weekly mon-fri 8:00-9:00 --weekly sat 1:00-2:00",
         "limited transfers every week (mon-fri 8:00-9:00, sat 1:00-2:00): in 9 kbit/s, out -."),
        ("limit --none", "took all limits back."),
        ("pause --until 18:00", "paused transfers until 2027-03-06 18:00."),
        ("pause", "paused transfers until it is taken back."),
        ("resume", "ended the pause."),
        ("pause --weekly fri 19:00-24:00", "paused transfers every week (fri 19:00-24:00)."),
        ("resume", "ended the weekly pause early: it was to last until 2027-03-06 00:00."),
        ("resume --weekly", "took the pauses back, the weekly ones too."),
    ):  # fmt: skip
        await shell.says(*words.split())
        assert shell.events.pop() == f"Somebody {event}"
        assert shell.events == []


async def test_what_changes_nothing_is_no_event(shell: Shell) -> None:
    await shell.says("resume")
    await shell.says("limit", "--none")
    assert shell.events == []
    await shell.says("pause")
    await shell.says("pause")
    assert len(shell.events) == 1


async def test_json_is_what_the_daemon_said(shell: Shell) -> None:
    _code, _out, _err = await shell("pause", "--for", "30min", "--json")
    said = msgspec.json.decode(_out, type=BandwidthStatus)
    assert said.is_paused
    assert said.until == int((EVENING + dt.timedelta(minutes=30)).timestamp())
    assert said.time_zone == "Asia/Shanghai"
    assert [each.is_paused for each in said.said] == [True]
    document = json.loads((await shell("status", "--json"))[1])
    assert document["bandwidth"]["link_down_how"] == "configured"


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["limit", "--down", "0"], "limit.bad-rate"),
        (["limit", "--up", "-5"], "limit.bad-rate"),
        (["limit", "--up", "100000001"], "limit.bad-rate"),
        (["limit", "--until", "18:00"], "limit.no-rate"),
        (["limit", "--weekly", "mon", "08:00-18:00"], "limit.no-rate"),
        (["limit", "--down", "9", "--until", "18:00", "--for", "2h"], "limit.times"),
        (["pause", "--until", "18:00", "--for", "2h"], "limit.times"),
        (["pause", "--for", "2h", "--weekly", "mon", "08:00-18:00"], "limit.times"),
        (["pause", "--until", "2027-03-05T19:59"], "limit.past"),
        (["pause", "--until", "2026-12-01T08:00+00:00"], "limit.past"),
        (["pause", "--until", "2040-01-01"], "limit.too-far"),
        (["pause", "--until", "noon"], "limit.bad-time"),
        (["pause", "--until", "25:00"], "limit.bad-time"),
        (["pause", "--until", ""], "limit.bad-time"),
        (["pause", "--for", "0h"], "limit.bad-duration"),
        (["pause", "--for", "2"], "limit.bad-duration"),
        (["pause", "--for", ""], "limit.bad-duration"),
        (["pause", "--for", "9999d"], "limit.too-far"),
        (["pause", "--weekly", "moon-fri", "08:00-18:00"], "limit.bad-days"),
        (["pause", "--weekly", "mon-", "08:00-18:00"], "limit.bad-days"),
        (["pause", "--weekly", "", "08:00-18:00"], "limit.bad-days"),
        (["pause", "--weekly", "mon", "08:00"], "limit.bad-hours"),
        (["pause", "--weekly", "mon", "08:00-08:00"], "limit.bad-hours"),
        (["pause", "--weekly", "mon", "24:00-08:00"], "limit.bad-hours"),
        (["limit", "--none", "--down", "9"], "limit.none-and-more"),
        (["limit", "--down", "x"], "usage.bad-command-line"),
    ],
)
async def test_what_makes_no_sense_is_refused_in_one_line_and_changes_nothing(
    shell: Shell, arguments: list[str], code: str
) -> None:
    ended, out, err = await shell(*arguments)
    assert (ended, out) == (Fault.USAGE.value, "")
    assert err.startswith("cuntong: ")
    assert err.count("\n") == 1
    assert f"({code})" in err
    assert shell.bandwidth.looks == 0
    assert shell.bandwidth.person.said.pause is None
    assert shell.events == []


async def test_too_many_weekly_times_are_refused(shell: Shell) -> None:
    def pause_at(minutes: range) -> None:
        weekly = [["mon", f"{m // 60:02}:{m % 60:02}-24:00"] for m in minutes]
        call(shell.paths.socket, "pause", {"weekly": weekly})

    await trio.to_thread.run_sync(pause_at, range(64))
    with pytest.raises(CuntongError) as caught:
        await trio.to_thread.run_sync(pause_at, range(64, 65))
    assert caught.value.code == "limit.too-many"
    assert len(shell.bandwidth.person.said.weekly) == 64


@pytest.mark.parametrize(
    "params", [{"down_kbit_s": "200"}, {"weekly": [["mon"]]}, {"until": "x" * 61}, {"untill": ""}]
)
async def test_nonsense_on_the_socket_is_a_bad_request(
    shell: Shell, params: dict[str, Any]
) -> None:
    with pytest.raises(CuntongError) as caught:
        await trio.to_thread.run_sync(call, shell.paths.socket, "limit", params)
    assert caught.value.code == "control.bad-request"


@pytest.mark.parametrize(
    ("text", "minutes"), [("30min", 30), ("2h", 120), ("1h30m", 90), ("1 D 1 h", 1500)]
)
def test_durations(text: str, minutes: int) -> None:
    assert parse_duration(text) == dt.timedelta(minutes=minutes)


@pytest.mark.parametrize(
    ("text", "until"),
    [
        ("20:00", "2027-03-06T20:00+08:00"),  # It is that time now: tomorrow.
        ("24:00", "2027-03-06T00:00+08:00"),
        ("0:00", "2027-03-06T00:00+08:00"),
        ("2027-03-07", "2027-03-07T00:00+08:00"),
        ("2027-03-07T08:00+00:00", "2027-03-07T16:00+08:00"),
    ],
)
def test_moments(text: str, until: str) -> None:
    assert parse_until(text, EVENING, BEIJING) == dt.datetime.fromisoformat(until)


def test_a_moment_beyond_all_time_is_refused() -> None:
    with pytest.raises(LimitError):
        parse_until("9999-12-31T23:59:59-12:00", EVENING, BEIJING)


def reasons() -> list[Sentence]:
    """Every reason that the policies give for a limit."""
    known = [*calendar._ALWAYS.values(), *governor._REASONS.values()]
    window = Window(EVERY_DAY, 480, 1080, Rule())
    until = calendar.Exemption(None, EVENING, Rule())
    for source in Source:
        whose = Calendar(source, BEIJING)
        known += [
            calendar._window_reason(whose, window),
            calendar._exemption_reason(whose, until),
        ]
    no_limits = calendar.limits_at(EVENING, [])
    known.append(caps.session_caps(no_limits, is_shared=True, link_up_bytes_s=64_000).reason)
    return known


@pytest.mark.parametrize("language", ["en", "zh_CN"])
def test_every_reason_fits_three_lines_of_a_status(
    language: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("LANGUAGE", language)
    i18n._catalogue.cache_clear()
    base = BandwidthStatus(
        link_down_kbit_s=9_999,
        link_down_how="assumed",
        link_up_kbit_s=9_999,
        link_up_how="configured",
        limit_down_kbit_s=9_999,
        limit_up_kbit_s=9_999,
        until=int(EVENING.timestamp()),
        time_zone="Asia/Shanghai",
    )
    shown = [msgspec.structs.replace(base, limit_down_reason=reason) for reason in reasons()]
    shown += [
        msgspec.structs.replace(base, is_paused=True, pause_reason=reason)
        for reason in calendar._PAUSED.values()
    ]
    for status in shown:
        # The longest name of the overview stands above it.
        label = i18n._("Authority")
        console().print(pairs([*bandwidth_rows(status), (label, bandwidth_rows(base)[0][1])]))
        lines = capsys.readouterr().out.splitlines()
        assert len(lines) <= 4, lines
        assert max(cell_len(line) for line in lines) <= 80


async def test_children_that_are_held_are_shown_and_many_are_counted(shell: Shell) -> None:
    reason = sentence("limits.own", "config.toml sets this limit for all times.")
    shell.bandwidth.link["children"] = [
        ChildBandwidth(code="441900003001"),
        *(
            ChildBandwidth(code=f"44190000{n:04}", limit_kbit_s=100, reason=reason)
            for n in range(4000, 4050)
        ),
        ChildBandwidth(code="441900003009", is_paused=True),
    ]
    out = await shell.says("limit")
    assert "441900003001" not in out
    assert "Below 441900004000 100 kbit/s: config.toml sets" in out
    assert "and 11 more" in out


async def test_a_contradiction_stands_first(shell: Shell) -> None:
    shell.bandwidth.link["contradiction"] = sentence(
        "link-rate.contradiction", "config.toml says 512 kbit/s, but transfers show 300 kbit/s."
    )
    assert (await shell.says("limit")).startswith("! config.toml says 512 kbit/s")
    assert (await shell.says("status")).startswith("! config.toml says 512 kbit/s")


async def test_a_status_of_a_daemon_that_knows_no_bandwidth_is_shown_without(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async def status(_params: dict[str, Any]) -> object:
        await trio.lowlevel.checkpoint()
        return {"node": {"code": "441900003005", "tier": "village"}}

    async with fake_node(tmp_path, [], {"status": status}):
        assert await trio.to_thread.run_sync(run, ["status", "--data", str(tmp_path)]) == 0
    assert "Limit" not in capsys.readouterr().out

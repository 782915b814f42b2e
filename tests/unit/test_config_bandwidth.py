"""`[bandwidth]`: what it becomes, and what a wrong one gets."""

from __future__ import annotations

import re
import tomllib
from datetime import UTC, datetime
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from cuntong_daemon.config import Config, ConfigError, parse_config
from cuntong_daemon.policy.calendar import limits_at
from cuntong_protocol.divisions import Tier

ROOT = Path(__file__).parents[2]
HEAD = '[node]\ncode = "441900003005"\n[bandwidth]\n'
WINDOW = '[[bandwidth.windows]]\nfrom = "08:00"\nto = "18:00"\n'
BEIJING = ZoneInfo("Asia/Shanghai")


def parsed(text: str) -> Config:
    return parse_config((HEAD + text).encode(), file="config.toml")


def down_at(config: Config, moment: str, *, is_below: bool = False) -> int:
    """kbit/s at a moment in Beijing; -1 when paused."""
    now = datetime.fromisoformat(moment).replace(tzinfo=BEIJING)
    limits = limits_at(now, [config.bandwidth.calendar(is_below=is_below)])
    return -1 if limits.is_paused else limits.down.bytes_s // 125


def test_a_week_with_holidays_and_an_exception() -> None:
    config = parsed(
        """
        down_kbit_s = 400
        [[bandwidth.windows]]
        days = ["mon", "tue", "wed", "thu", "fri"]
        from = "08:00"
        to = "18:00"
        down_kbit_s = 256
        [[bandwidth.windows]]
        days = ["sun"]
        from = "22:00"
        to = "02:00"
        pause = true
        [[bandwidth.holidays]]
        from = 2027-03-03
        like = "sun"
        [[bandwidth.holidays]]
        from = 2027-03-04
        to = 2027-03-05
        windows = [{from = "10:00", to = "24:00", down_kbit_s = 64}]
        [[bandwidth.exceptions]]
        from = 2027-03-02T09:00:00
        to = 2027-03-02T02:00:00Z
        """
    )
    assert down_at(config, "2027-03-01 07:59") == 400
    assert down_at(config, "2027-03-01 08:00") == 256
    assert down_at(config, "2027-03-02 09:30") == 400
    assert down_at(config, "2027-03-02 10:00") == 256
    assert down_at(config, "2027-03-03 12:00") == 400
    assert down_at(config, "2027-03-03 23:00") == -1
    assert down_at(config, "2027-03-04 01:00") == -1
    assert down_at(config, "2027-03-05 23:59") == 64


def test_what_is_meant_for_places_below_does_not_hold_here() -> None:
    config = parsed("up_kbit_s_per_child = 300\n" + WINDOW + "down_kbit_s = 128\nbelow = true\n")
    assert down_at(config, "2027-03-01 09:00") == 0
    assert down_at(config, "2027-03-01 09:00", is_below=True) == 128
    assert down_at(config, "2027-03-01 19:00", is_below=True) == 300


def test_another_time_zone_is_another_clock_on_the_wall() -> None:
    config = parsed('time_zone = "Asia/Urumqi"\n' + WINDOW + "down_kbit_s = 128\n")
    assert down_at(config, "2027-03-01 09:00") == 0
    assert down_at(config, "2027-03-01 10:00") == 128


@pytest.mark.parametrize("tier", list(Tier))
def test_a_tier_says_whether_its_link_is_shared(tier: Tier) -> None:
    code = {0: "0" * 12, 1: "440000000000", 2: "441900000000", 3: "442301000000"}.get(
        tier, "441900003000" if tier is Tier.TOWNSHIP else "441900003005"
    )
    config = parse_config(f'[node]\ncode = "{code}"\n'.encode(), file="config.toml")
    assert config.division.tier is tier
    assert config.bandwidth.shared == (tier >= Tier.TOWNSHIP)
    assert limits_at(datetime(2027, 3, 1, tzinfo=UTC), [config.bandwidth.calendar()]).until is None


@pytest.mark.parametrize("name", ["village", "township", "county", "nation"])
def test_the_examples_in_comments_load_when_they_are_uncommented(name: str) -> None:
    text = (ROOT / "config" / f"{name}.toml").read_text(encoding="utf-8")
    setting = re.compile(r"^# (\[\[.*\]\]|[a-z_]+ = .*)$", re.MULTILINE)
    text = setting.sub(r"\1", text)
    config = parse_config(text.encode(), file="config.toml")
    assert tomllib.loads(text)["bandwidth"]["windows"]
    assert len(config.bandwidth.holidays) == len(config.bandwidth.exceptions) == 1


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            "down_kbit = 4",
            "config.toml:4: bandwidth.down_kbit is not a known key; the nearest is d",
        ),
        (WINDOW + "dwon_kbit_s = 4", "config.toml:7: bandwidth.windows.dwon_kbit_s is not a known"),
        (WINDOW + "beginning = 4", "nearest is"),
        (
            WINDOW * 2 + "down_kbit_s = -4",
            "config.toml:10: bandwidth.windows.down_kbit_s must be a",
        ),
        (WINDOW + "pause = 1", "config.toml:7: bandwidth.windows.pause must be true or false"),
        (WINDOW + 'days = ["Monday"]', "config.toml:7: bandwidth.windows.days must be a list"),
        (WINDOW.replace("08", "8"), "config.toml:5: bandwidth.windows.from must be a time"),
        (WINDOW.replace('"08:00"', "08:00:00"), "config.toml:5: bandwidth.windows.from"),
        (WINDOW.replace("08", "24"), "config.toml:5: bandwidth.windows.from"),
        (WINDOW.replace("18:00", "24:01"), "config.toml:6: bandwidth.windows.to"),
        (WINDOW.replace("18:00", "08:00"), "config.toml:6: bandwidth.windows.to"),
        (WINDOW + WINDOW.replace("18:00", "١8:00"), "config.toml:9: bandwidth.windows.to"),
        ("[[bandwidth.windows]]\nto = '08:00'", "bandwidth.windows.from is missing"),
        ("windows = 3", "config.toml:4: bandwidth.windows must be tables"),
        ("windows = [3]", "config.toml:4: bandwidth.windows must be tables"),
        ("shared = 3", "config.toml:4: bandwidth.shared must be true or false"),
        ("time_zone = 'Mars/Phobos'", "config.toml:4: bandwidth.time_zone must be a time zone"),
        ("time_zone = '../../etc/passwd'", "bandwidth.time_zone must be a time zone"),
        ("time_zone = ''", "bandwidth.time_zone must be a time zone"),
        ("time_zone = 'Asia'", "bandwidth.time_zone must be a time zone"),
        (
            "[[bandwidth.holidays]]\nfrom = 2027",
            "config.toml:5: bandwidth.holidays.from must be a d",
        ),
        (
            "[[bandwidth.holidays]]\nfrom = 2027-02-02\nto = 2027-02-01",
            "config.toml:6: bandwidth.holidays.to must be a date",
        ),
        (
            "[[bandwidth.holidays]]\nfrom = 2027-02-02\nlike = 'sun'\n"
            "windows = [{from = '08:00', to = '09:00'}]",
            "config.toml:6: bandwidth.holidays.like must be a day",
        ),
        (
            "[[bandwidth.holidays]]\nfrom = 2027-02-02\n"
            "windows = [{from = '08:00', to = '09:00', days = ['sun']}]",
            "config.toml:6: bandwidth.holidays.windows must be tables",
        ),
        (
            "[[bandwidth.holidays]]\nfrom = 2027-02-02\nwindows = [{from = '08:00', till = '9'}]",
            "bandwidth.holidays.windows.till is not a known key; the nearest is",
        ),
        (
            "[[bandwidth.holidays]]\nfrom = 2027-02-02\nwindows = [{from = '08:00', to = '9'}]",
            "config.toml:6: bandwidth.holidays.windows.to must be",
        ),
        (
            "[[bandwidth.exceptions]]\nfrom = 2027-02-02\nto = 2027-02-03T00:00:00",
            "config.toml:5: bandwidth.exceptions.from must be a moment",
        ),
        (
            "[[bandwidth.exceptions]]\nfrom = 2027-02-02T08:00:00\nto = 2027-02-02T00:00:00Z",
            "config.toml:6: bandwidth.exceptions.to must be a moment after from",
        ),
    ],
)
def test_a_wrong_calendar_is_refused_with_its_line(text: str, said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parsed(text)
    assert said in str(caught.value)

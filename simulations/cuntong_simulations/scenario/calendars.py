"""Calendars of a scenario: "mon-fri 08:00-12:00", "sat,sun 09:00-17:00", "always"."""

from __future__ import annotations

import re
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from cuntong_daemon.policy.calendar import DAY_MINUTES, Rule, Window
from cuntong_protocol.texts import N_

from .scenario import Scenario
from .units import UnitError, half_width, shown

ALWAYS = "always"
WEEK_HOURS = 168
_DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_WINDOW = re.compile(r"\s*([a-z,\s-]+?)\s+([0-9]{1,2}):([0-9]{2})\s*-\s*([0-9]{1,2}):([0-9]{2})\s*")


def windows(written: Iterable[str], rule: Rule) -> tuple[Window, ...]:
    """The windows of a calendar, each with the same rule.

    Args:
        written: A line for each, days (`mon-fri`, `sat,sun`, `daily`) and times; a window may last until the next
            morning, and to 24:00. Or `always`.
        rule: What holds in them.

    Raises:
        UnitError: `sim.not-a-window`.
    """
    return tuple(_window(line, rule) for line in written)


def windows_of(scenario: Scenario, name: str, rule: Rule) -> tuple[Window, ...]:
    """The windows of a calendar by name; `always` needs no calendar, an empty name has no windows."""
    if not name:
        return ()
    return windows([ALWAYS] if name == ALWAYS else scenario.calendars[name], rule)


def hours(scenario: Scenario, name: str) -> NDArray[np.float64]:
    """The share of each hour of the week (0 is Monday 00:00) that lies in a calendar's windows, shape (168,)."""
    minutes = np.zeros(7 * DAY_MINUTES, dtype=np.bool_)
    for window in windows_of(scenario, name, Rule()):
        length = (window.ends_minute - window.begins_minute - 1) % DAY_MINUTES + 1
        for day in window.days:
            begin = day * DAY_MINUTES + window.begins_minute
            # Sunday's window may last into Monday.
            minutes[np.arange(begin, begin + length) % len(minutes)] = True
    found: NDArray[np.float64] = minutes.reshape(WEEK_HOURS, 60).mean(axis=1)
    return found


def _window(line: str, rule: Rule) -> Window:
    plain = half_width(line).lower()
    if plain.strip() == ALWAYS:
        return Window(frozenset(range(7)), 0, DAY_MINUTES, rule)
    match = _WINDOW.fullmatch(plain)
    days = _days(match[1]) if match else frozenset()
    if match is None or not days:
        raise _refusal(line)
    begins = int(match[2]) * 60 + int(match[3])
    ends = int(match[4]) * 60 + int(match[5])
    is_clock = int(match[3]) < 60 and int(match[5]) < 60 and begins < DAY_MINUTES
    if not is_clock or ends > DAY_MINUTES or begins == ends:
        raise _refusal(line)
    return Window(days, begins, ends or DAY_MINUTES, rule)


def _days(written: str) -> frozenset[int]:
    if written == "daily":
        return frozenset(range(7))
    found: set[int] = set()
    for part in written.split(","):
        names = [name.strip() for name in part.split("-")]
        if not 1 <= len(names) <= 2 or not set(names) <= set(_DAYS):
            return frozenset()
        first, last = _DAYS.index(names[0]), _DAYS.index(names[-1])
        found.update((first + step) % 7 for step in range((last - first) % 7 + 1))
    return frozenset(found)


def _refusal(line: str) -> UnitError:
    return UnitError(
        "sim.not-a-window",
        N_("{file}, line {line}: {value} isn't a window of a calendar, such as 'mon-fri 08:00-12:00'."),
        value=shown(repr(line)),
    )  # fmt: skip

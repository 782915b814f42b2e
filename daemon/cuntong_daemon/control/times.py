"""The times that people type: `18:00`, `2026-12-01T08:00`, `2h30min`, `mon-fri 08:00-18:00` (SPEC 10.8)."""

from __future__ import annotations

import re
from datetime import UTC, date, datetime, time, timedelta, tzinfo

from cuntong_daemon.config_bandwidth import DAYS, minute_of
from cuntong_daemon.policy.calendar import DAY_MINUTES, Rule, Window
from cuntong_protocol.errors import CuntongError, Fault
from cuntong_protocol.texts import N_

MAX_AHEAD = timedelta(days=3660)
"""Ten years: what is meant to hold longer is said without an end."""
_SPAN = re.compile(r"(?:([0-9]{1,4})d)?(?:([0-9]{1,5})h)?(?:([0-9]{1,7})(?:min|m))?", re.ASCII)
_CLOCK = re.compile(r"[0-9]{1,2}:[0-9]{2}", re.ASCII)
_DAY_OF_WEEK: dict[str, int] = {name: number for number, name in enumerate(DAYS)}


class LimitError(CuntongError):
    """A limit or pause that makes no sense."""

    fault = Fault.USAGE


def parse_until(text: str, now: datetime, zone: tzinfo) -> datetime:
    """The moment that is meant: `18:00` is the next time that the clock of `zone` shows it.

    Args:
        text: `HH:MM`, or a date, with a time or without, by `zone` unless it names its offset.
        now: Aware.
        zone: By whose clock.

    Returns:
        The moment, UTC.

    Raises:
        LimitError: `limit.bad-time`, `limit.past`, `limit.too-far`.
    """
    minute = minute_of(text.zfill(5)) if _CLOCK.fullmatch(text) else None
    if minute is not None:
        today = now.astimezone(zone).date()
        moment = min(at for at in _walls(today, minute, zone) if at > now)
    else:
        try:
            moment = datetime.fromisoformat(text)
            moment = moment if moment.tzinfo is not None else moment.replace(tzinfo=zone)
            ahead = moment - now
        except (ValueError, OverflowError):
            raise LimitError(
                "limit.bad-time",
                N_("{text} isn't a time such as 18:00 or 2026-12-01T08:00."),
                text=text,
            ) from None
        if ahead <= timedelta(0):
            raise LimitError(
                "limit.past",
                N_("{text} is past: by this node's clock it is {now}."),
                text=text,
                now=f"{now.astimezone(zone):%Y-%m-%d %H:%M}",
            )
        if ahead > MAX_AHEAD:
            raise _too_far(text)
    return moment.astimezone(UTC)


def _walls(today: date, minute: int, zone: tzinfo) -> list[datetime]:
    """The moments around now at which a clock shows this; where clocks go back it is twice in a day."""
    walls = [
        datetime.combine(today + timedelta(days=days), time(), zone) + timedelta(minutes=minute)
        for days in (-1, 0, 1)
    ]
    return [wall.replace(fold=fold).astimezone(UTC) for wall in walls for fold in (0, 1)]


def parse_duration(text: str) -> timedelta:
    """How long is meant: `2h`, `30min`, `1h30m`, `3d`.

    Raises:
        LimitError: `limit.bad-duration`, `limit.too-far`.
    """
    match = _SPAN.fullmatch("".join(text.lower().split()))
    days, hours, minutes = (int(part or 0) for part in match.groups()) if match else (0, 0, 0)
    span = timedelta(days=days, hours=hours, minutes=minutes)
    if not span:
        raise LimitError(
            "limit.bad-duration", N_("{text} isn't a time such as 30min, 2h or 3d."), text=text
        )
    if span > MAX_AHEAD:
        raise _too_far(text)
    return span


def _too_far(text: str) -> LimitError:
    return LimitError(
        "limit.too-far",
        N_("{text} is more than ten years ahead; leave the end away instead."),
        text=text,
    )


def parse_weekly(days: str, hours: str, rule: Rule) -> Window:
    """A window of the week: days such as `mon-fri` or `sat,sun`, hours such as `08:00-18:00`.

    Raises:
        LimitError: `limit.bad-days`, `limit.bad-hours`.
    """
    begins_text, _, ends_text = hours.replace(" ", "").partition("-")
    begins, ends = minute_of(begins_text.zfill(5)), minute_of(ends_text.zfill(5))
    if begins is None or ends is None or begins in (ends, DAY_MINUTES):
        raise LimitError(
            "limit.bad-hours", N_("{text} aren't hours such as 08:00-18:00."), text=hours
        )
    return Window(_days(days), begins, ends or DAY_MINUTES, rule)


def _days(text: str) -> frozenset[int]:
    found: set[int] = set()
    for part in text.lower().replace(" ", "").split(","):
        first, dash, last = part.partition("-")
        begins = _DAY_OF_WEEK.get(first)
        ends = _DAY_OF_WEEK.get(last) if dash else begins
        if begins is None or ends is None:
            raise LimitError(
                "limit.bad-days",
                N_("{text} aren't days such as mon-fri or sat,sun."),
                text=text,
            )
        # From Friday to Monday is four days, over the end of the week.
        found |= {day % 7 for day in range(begins, ends + (7 if ends < begins else 0) + 1)}
    return frozenset(found)

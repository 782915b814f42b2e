"""What a person said by `cuntong limit`, `cuntong pause` and `cuntong resume`, kept over restarts (SPEC 10.8).

There is at most one limit and one pause at a time, each until it is taken back or until a moment, and a week of
windows, each a limit or a pause. They are handed on as two calendars, one of limits and one of pauses, since
in a calendar an exception lifts the windows: a limit until noon stands in place of the weekly limits, but must not
lift a weekly pause, and resuming must not lift a limit.

Moments are by the node's clock, so nothing is forgotten while that is wrong: what has ended is only left out.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta, tzinfo
from pathlib import Path
from typing import Literal

import msgspec

from cuntong_protocol.texts import N_, Sentence, sentence

from .config_bandwidth import MAX_WINDOWS
from .files import write_atomically
from .paths import DataPaths
from .policy.calendar import (
    DAY_MINUTES,
    HORIZON_DAYS,
    Calendar,
    Exemption,
    Rule,
    Source,
    Window,
    limits_at,
)

VERSION: Literal[1] = 1
LAST_YEAR = 9000
"""Beyond, moments can't be told in every time zone."""


class Said(msgspec.Struct, frozen=True, omit_defaults=True):
    """All that was said and not taken back; also the form of the file.

    Attributes:
        v: Version of the file.
        limit: The limit from now on; `ends` None: until it is taken back.
        pause: The same for a pause.
        resumed_until: A weekly pause was ended before its time: until then weekly pauses don't hold.
        weekly: Limits and pauses by the week, no two for the same days and times.
    """

    v: Literal[1]
    limit: Exemption | None = None
    pause: Exemption | None = None
    resumed_until: datetime | None = None
    weekly: tuple[Window, ...] = ()


class PersonsLimits:
    """What holds because a person said so. What is said holds at once; `save` makes it survive a restart.

    Args:
        paths: Of the node; what is said is kept in `limits.json`.
        zone: By whose clock weekly windows are meant.
    """

    def __init__(self, paths: DataPaths, zone: tzinfo) -> None:
        self._path = paths.limits
        self.zone = zone
        self.problem: Sentence | None = None
        """What is wrong with the file, until it was written again."""
        self.said = Said(VERSION)
        try:
            self.said = _read(self._path)
        except FileNotFoundError:
            pass
        except (OSError, ValueError, msgspec.MsgspecError):
            self.problem = sentence(
                "limits.damaged",
                N_("{file} can't be read, so no limit or pause in it holds. Say them again."),
                file=self._path.name,
            )

    def calendars(self, now: datetime) -> tuple[Calendar, Calendar]:
        """What was said, as calendars that all hold at once. `now` is aware; what ended before is left out."""
        said = self.said
        limits = [window for window in said.weekly if not window.rule.is_paused]
        pauses = [window for window in said.weekly if window.rule.is_paused]
        return (
            self._calendar(now, said.limit, limits),
            self._calendar(now, said.pause, pauses, said.resumed_until),
        )

    def _calendar(
        self,
        now: datetime,
        exemption: Exemption | None,
        windows: Iterable[Window],
        resumed_until: datetime | None = None,
    ) -> Calendar:
        always, exemptions = Rule(), []
        if exemption is not None and exemption.ends is None:
            # In a calendar, an exception would lift the windows as long as it lasts.
            always = exemption.rule
        elif exemption is not None:
            exemptions.append(exemption)
        if resumed_until is not None:
            # Said by a clock that was years ahead, it must not end weekly pauses for years.
            begins = resumed_until - timedelta(days=HORIZON_DAYS)
            exemptions.append(Exemption(begins, resumed_until, Rule()))
        return Calendar(
            Source.PERSON,
            self.zone,
            always,
            tuple(windows),
            exemptions=tuple(each for each in exemptions if each.ends and now < each.ends),
        )

    def limit(self, rule: Rule, until: datetime | None = None) -> None:
        """Limit from now on, in place of what was said before; weekly limits don't hold before an `until`."""
        self._change(limit=Exemption(None, until, rule))

    def limit_weekly(self, windows: Iterable[Window]) -> None:
        """Limit or pause by the week, besides what was said for other days or times.

        Raises:
            ValueError: more than `MAX_WINDOWS` would hold.
        """
        spans = {_span(window): window for window in (*self.said.weekly, *windows)}
        if len(spans) > MAX_WINDOWS:
            raise ValueError(len(spans))
        self._change(weekly=tuple(spans.values()))

    def unlimit(self) -> None:
        """Take all limits back, the weekly ones too."""
        weekly = tuple(window for window in self.said.weekly if window.rule.is_paused)
        self._change(limit=None, weekly=weekly)

    def pause(self, until: datetime | None = None) -> None:
        """Pause from now on."""
        self._change(pause=Exemption(None, until, Rule(is_paused=True)), resumed_until=None)

    def resume(self, now: datetime, *, is_weekly: bool = False) -> None:
        """End a pause. A weekly one comes again at its next time, unless `is_weekly` takes those back.

        Args:
            now: Aware.
            is_weekly: Take weekly pauses back, too.
        """
        self._change(pause=None)
        calendar = self.calendars(now)[1]
        pause = limits_at(now, [calendar])
        if is_weekly or (pause.is_paused and pause.until is None):
            weekly = tuple(window for window in self.said.weekly if not window.rule.is_paused)
            self._change(resumed_until=None, weekly=weekly)
        elif pause.is_paused:
            self._change(resumed_until=pause.until)

    def _change(self, **changes: object) -> None:
        self.said = msgspec.structs.replace(self.said, **changes)

    def save(self) -> None:
        """Write down what was said. Blocks. What can't be written holds all the same; `problem` tells of it."""
        try:
            write_atomically(self._path, msgspec.json.encode(self.said) + b"\n")
        except OSError as error:
            self.problem = sentence(
                "limits.not-written",
                N_(
                    "Limits and pauses hold, but only until a restart: {file} can't be written: {reason}."
                ),
                file=self._path.name,
                reason=error.strerror or str(error),
            )
        else:
            self.problem = None


def _span(window: Window) -> tuple[frozenset[int], int, int]:
    return window.days, window.begins_minute, window.ends_minute


def _read(path: Path) -> Said:
    """Read what was said.

    Raises:
        OSError, ValueError, msgspec.MsgspecError: it isn't there, or isn't what `save` writes.
    """
    said = msgspec.json.decode(path.read_bytes(), type=Said)
    exemptions = [each for each in (said.limit, said.pause) if each is not None]
    moments = [said.resumed_until]
    for exemption in exemptions:
        moments += [exemption.begins, exemption.ends]
    rules = [exemption.rule for exemption in exemptions] + [window.rule for window in said.weekly]
    is_sound = (
        len(said.weekly) <= MAX_WINDOWS
        and all(moment.tzinfo and moment.year < LAST_YEAR for moment in moments if moment)
        and all(rule.down_bytes_s >= 0 and rule.up_bytes_s >= 0 for rule in rules)
        and all(
            window.days
            and window.days <= frozenset(range(7))
            and 0 <= window.begins_minute < DAY_MINUTES
            and 1 <= window.ends_minute <= DAY_MINUTES
            for window in said.weekly
        )
    )
    if not is_sound:
        raise ValueError(path.name)
    return said

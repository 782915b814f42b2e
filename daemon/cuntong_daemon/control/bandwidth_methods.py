"""The local socket's methods by which a person limits, pauses and resumes (SPEC 8, 10.8)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from datetime import datetime
from typing import Annotated, Any, Protocol

import msgspec
import trio

from cuntong_daemon.config_bandwidth import BYTES_PER_KBIT, DAYS, MAX_WINDOWS
from cuntong_daemon.policy.calendar import Exemption, Rule, Window
from cuntong_daemon.said import PersonsLimits, Said
from cuntong_protocol.texts import N_, Sentence

from .bandwidth_events import When, limited, paused, resumed, unlimited
from .messages import BandwidthStatus, SaidLimit
from .server import Handler
from .times import LimitError, parse_duration, parse_until, parse_weekly

MAX_KBIT_S = 100_000_000
"""As in config.toml: 100 Gbit/s."""
_Word = Annotated[str, msgspec.Meta(max_length=60)]
_Weekly = Annotated[list[tuple[_Word, _Word]], msgspec.Meta(max_length=MAX_WINDOWS)]


class BandwidthControl(Protocol):
    """What the methods need of the service that keeps to the limits."""

    @property
    def person(self) -> PersonsLimits: ...

    def look(self) -> None:
        """What was said has changed: keep to it now."""

    def status(self) -> BandwidthStatus:
        """What holds at the time of the call."""


class _Times(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """When something holds: `until` and `for` as they were typed, `weekly` as pairs of days and hours."""

    until: _Word | None = None
    duration: _Word | None = msgspec.field(name="for", default=None)
    weekly: _Weekly = []


class _LimitParams(_Times, frozen=True, kw_only=True):
    down_kbit_s: int | None = None
    up_kbit_s: int | None = None
    none: bool = False


class _ResumeParams(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    weekly: bool = False


def bandwidth_methods(
    bandwidth: BandwidthControl,
    *,
    now: Callable[[], datetime],
    record: Callable[[Sentence], Awaitable[None]],
) -> dict[str, Handler]:
    """`bandwidth`, `limit`, `pause` and `resume` for a `ControlServer`; all answer `BandwidthStatus`.

    Args:
        bandwidth: The service.
        now: The node's clock, aware.
        record: Remembers as an event that something other than before holds, once it does.
    """
    person = bandwidth.person
    writer = trio.CapacityLimiter(1)

    async def show(_params: dict[str, Any]) -> BandwidthStatus:
        await trio.lowlevel.checkpoint()
        return bandwidth_status(bandwidth, now())

    async def keep_to_it(before: Said, event: Sentence) -> BandwidthStatus:
        after = person.said
        # A pause is ordered to hold now, however long the disk takes.
        bandwidth.look()
        await trio.to_thread.run_sync(person.save, limiter=writer)
        if after != before:
            await record(event)
        return bandwidth_status(bandwidth, now())

    async def limit(params: dict[str, Any]) -> BandwidthStatus:
        wish = msgspec.convert(params, _LimitParams)
        before = person.said
        if wish.none:
            if wish != _LimitParams(none=True):
                raise LimitError(
                    "limit.none-and-more", N_("--none takes every limit back and stands alone.")
                )
            person.unlimit()
            event = unlimited()
        else:
            rule = Rule(_bytes_s(wish.down_kbit_s), _bytes_s(wish.up_kbit_s))
            if rule == Rule():
                raise LimitError(
                    "limit.no-rate", N_("Say how much: --down KBIT, --up KBIT or both.")
                )
            event = limited(rule, _say(wish, rule, person.limit), person.zone)
        return await keep_to_it(before, event)

    async def pause(params: dict[str, Any]) -> BandwidthStatus:
        wish = msgspec.convert(params, _Times)
        before = person.said
        when = _say(wish, Rule(is_paused=True), lambda _rule, until: person.pause(until))
        return await keep_to_it(before, paused(when, person.zone))

    async def resume(params: dict[str, Any]) -> BandwidthStatus:
        wish = msgspec.convert(params, _ResumeParams)
        before = person.said
        person.resume(now(), is_weekly=wish.weekly)
        return await keep_to_it(before, resumed(before, person.said, person.zone))

    def _say(wish: _Times, rule: Rule, say_now: Callable[[Rule, datetime | None], None]) -> When:
        if (wish.until is not None) + (wish.duration is not None) + bool(wish.weekly) > 1:
            raise LimitError(
                "limit.times", N_("Of --until, --for and --weekly only one can be said at a time.")
            )
        if wish.weekly:
            windows = [parse_weekly(days, hours, rule) for days, hours in wish.weekly]
            try:
                person.limit_weekly(windows)
            except ValueError:
                raise LimitError(
                    "limit.too-many",
                    N_("At most {count} weekly times can be kept; take some back first."),
                    count=MAX_WINDOWS,
                ) from None
            return When(weekly=wish.weekly)
        until = None
        if wish.until is not None:
            until = parse_until(wish.until, now(), person.zone)
        elif wish.duration is not None:
            until = now() + parse_duration(wish.duration)
        say_now(rule, until)
        return When(until)

    return {"bandwidth": show, "limit": limit, "pause": pause, "resume": resume}


def bandwidth_status(bandwidth: BandwidthControl, now: datetime) -> BandwidthStatus:
    """What holds, and what was said."""
    person = bandwidth.person
    return msgspec.structs.replace(
        bandwidth.status(),
        time_zone=str(person.zone),
        said=[
            *_now_said((person.said.limit, person.said.pause), now),
            *_weekly(person.said.weekly),
        ],
        problem=person.problem,
    )


def _now_said(exemptions: Iterable[Exemption | None], now: datetime) -> Iterable[SaidLimit]:
    for exemption in exemptions:
        if exemption is not None and exemption.holds_at(now):
            ends = exemption.ends
            yield _said(exemption.rule, until=None if ends is None else int(ends.timestamp()))


def _weekly(windows: Iterable[Window]) -> Iterable[SaidLimit]:
    for window in sorted(windows, key=lambda window: (min(window.days), window.begins_minute)):
        begins, ends = window.begins_minute, window.ends_minute
        yield _said(
            window.rule,
            days=[DAYS[day] for day in sorted(window.days)],
            hours=f"{begins // 60:02}:{begins % 60:02}-{ends // 60:02}:{ends % 60:02}",
        )


def _said(rule: Rule, **when: Any) -> SaidLimit:  # noqa: ANN401 - fields of the struct.
    return SaidLimit(
        down_kbit_s=rule.down_bytes_s // BYTES_PER_KBIT,
        up_kbit_s=rule.up_bytes_s // BYTES_PER_KBIT,
        is_paused=rule.is_paused,
        **when,
    )


def _bytes_s(kbit_s: int | None) -> int:
    if kbit_s is not None and not 0 < kbit_s <= MAX_KBIT_S:
        raise LimitError(
            "limit.bad-rate",
            N_(
                "{rate} isn't a rate: it is a number of kbit/s from 1 on. To stop altogether: cuntong pause; "
                "for no limit: cuntong limit --none"
            ),
            rate=kbit_s,
        )
    return (kbit_s or 0) * BYTES_PER_KBIT

"""What `cuntong events` tells of limits and pauses that a person said or took back (SPEC 10.8).

Nobody knows who it was: whoever may open the local socket may say it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, tzinfo

from cuntong_daemon.config_bandwidth import BYTES_PER_KBIT
from cuntong_daemon.policy.calendar import Rule
from cuntong_daemon.said import Said
from cuntong_protocol.texts import N_, Sentence, sentence


@dataclass(frozen=True, slots=True)
class When:
    """How long something holds: until a moment, at times of the week, or with neither until it is taken back.

    Attributes:
        weekly: Days and hours, as they were typed.
    """

    until: datetime | None = None
    weekly: Sequence[tuple[str, str]] = ()


def limited(rule: Rule, when: When, zone: tzinfo) -> Sentence:
    """A limit was said."""
    rates = {"down": _rate(rule.down_bytes_s), "up": _rate(rule.up_bytes_s)}
    if when.weekly:
        return sentence(
            "said.limit-weekly",
            N_("Somebody limited transfers every week ({times}): in {down}, out {up}."),
            times=_times(when),
            **rates,
        )
    if when.until is not None:
        return sentence(
            "said.limit-until",
            N_("Somebody limited transfers until {time}: in {down}, out {up}."),
            time=_clock_text(when.until, zone),
            **rates,
        )
    return sentence(
        "said.limit",
        N_("Somebody limited transfers until it is taken back: in {down}, out {up}."),
        **rates,
    )


def unlimited() -> Sentence:
    """Limits were taken back."""
    return sentence("said.no-limit", N_("Somebody took all limits back."))


def paused(when: When, zone: tzinfo) -> Sentence:
    """A pause was said."""
    if when.weekly:
        return sentence(
            "said.pause-weekly",
            N_("Somebody paused transfers every week ({times})."),
            times=_times(when),
        )
    if when.until is not None:
        return sentence(
            "said.pause-until",
            N_("Somebody paused transfers until {time}."),
            time=_clock_text(when.until, zone),
        )
    return sentence("said.pause", N_("Somebody paused transfers until it is taken back."))


def resumed(before: Said, after: Said, zone: tzinfo) -> Sentence:
    """A pause was taken back; which one shows in what was said before and after."""
    if before.weekly != after.weekly:
        return sentence(
            "said.resume-weekly", N_("Somebody took the pauses back, the weekly ones too.")
        )
    if after.resumed_until is not None and after.resumed_until != before.resumed_until:
        return sentence(
            "said.resume-early",
            N_("Somebody ended the weekly pause early: it was to last until {time}."),
            time=_clock_text(after.resumed_until, zone),
        )
    return sentence("said.resume", N_("Somebody ended the pause."))


def _rate(bytes_s: int) -> str:
    return f"{bytes_s // BYTES_PER_KBIT} kbit/s" if bytes_s else "-"


def _times(when: When) -> str:
    return ", ".join(f"{days} {hours}" for days, hours in when.weekly)


def _clock_text(moment: datetime, zone: tzinfo) -> str:
    return f"{moment.astimezone(zone):%Y-%m-%d %H:%M}"

"""The link, what limits it and why: as a page for `cuntong limit`, and as three lines of `cuntong status`."""

from __future__ import annotations

from datetime import UTC, datetime
from zoneinfo import ZoneInfo

from rich.console import Group, RenderableType
from rich.text import Text

from cuntong_daemon.control.messages import BandwidthStatus, SaidLimit
from cuntong_daemon.i18n import _, ngettext
from cuntong_protocol.texts import N_, Sentence
from cuntong_tools.output import format_time, say

from .tables import pairs

MAX_CHILDREN = 40
"""In one page; the rest is counted."""
WEEK = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
DAY_NAMES = {
    "mon": N_("mon"),
    "tue": N_("tue"),
    "wed": N_("wed"),
    "thu": N_("thu"),
    "fri": N_("fri"),
    "sat": N_("sat"),
    "sun": N_("sun"),
}
RATE_KNOWN = {
    "configured": N_("configured"),
    "measured": N_("measured"),
    "assumed": N_("assumed"),
    "unknown": N_("unknown"),
}


def bandwidth_rows(status: BandwidthStatus) -> list[tuple[str, Text]]:
    """At most three lines of a status: the link, what limits it, and why."""
    rows = [(_("Line"), Text(_link_text(status)))]
    if status.is_paused:
        rows.append((_("Limit"), Text(_paused_text(status), "bold red")))
        rows.append(("", Text(say(status.pause_reason))))
        return rows
    if not (status.limit_down_kbit_s or status.limit_up_kbit_s):
        rows.append((_("Limit"), Text(_("none"))))
        return rows
    limits = _both(status.limit_down_kbit_s, status.limit_up_kbit_s)
    if status.until is not None:
        limits = _("{limits}, until {time}", limits=limits, time=_time(status, status.until))
    rows.append((_("Limit"), Text(limits, "yellow")))
    reason = status.limit_down_reason if status.limit_down_kbit_s else status.limit_up_reason
    rows.append(("", Text(say(reason))))
    return rows


def bandwidth_problems(status: BandwidthStatus) -> list[Sentence]:
    """What asks for somebody's attention."""
    return [each for each in (status.contradiction, status.problem) if each is not None]


def bandwidth_view(
    status: BandwidthStatus, *, asked_down: int = 0, asked_up: int = 0
) -> RenderableType:
    """All that holds now, and what was said for other times.

    Args:
        asked_down: What was just asked for, in kbit/s; told where less holds. 0: nothing.
        asked_up: The same for sending.
    """
    parts: list[RenderableType] = [
        Text(f"! {say(problem)}", "bold red") for problem in bandwidth_problems(status)
    ]
    rows = [
        (_("Line"), _with_reason(_link_in(status), status.link_down_reason)),
        ("", _with_reason(_link_out(status), status.link_up_reason)),
    ]
    if status.is_paused:
        rows.append(
            (_("Pause"), _with_reason(_paused_text(status), status.pause_reason, "bold red"))
        )
    else:
        rows += [
            (
                _("Limit"),
                _limit(
                    N_("in {rate}"), status.limit_down_kbit_s, asked_down, status.limit_down_reason
                ),
            ),
            (
                "",
                _limit(N_("out {rate}"), status.limit_up_kbit_s, asked_up, status.limit_up_reason),
            ),
        ]
        if status.until is not None:
            rows.append((_("Next change"), Text(_time(status, status.until))))
    rows.append((_("Now"), Text(_both(status.down_kbit_s, status.up_kbit_s, is_limit=False))))
    if status.governor_reason is not None and not status.is_paused:
        rows.append((_("Others"), Text(say(status.governor_reason))))
    rows += [
        (_("Set here") if number == 0 else "", Text(_said_text(status, said)))
        for number, said in enumerate(status.said)
    ]
    rows += _children(status)
    return Group(*parts, pairs(rows))


def _children(status: BandwidthStatus) -> list[tuple[str, Text]]:
    held = [child for child in status.children if child.is_paused or child.limit_kbit_s]
    rows = []
    for number, child in enumerate(held[:MAX_CHILDREN]):
        what = _("paused") if child.is_paused else _rate(child.limit_kbit_s)
        name = _("Below") if number == 0 else ""
        rows.append((name, _with_reason(f"{child.code}  {what}", child.reason)))
    if len(held) > MAX_CHILDREN:
        more = ngettext("and {count} more", "and {count} more", len(held) - MAX_CHILDREN)
        rows.append(("", Text(more)))
    return rows


def _limit(template: str, kbit_s: int, asked_kbit_s: int, reason: Sentence | None) -> Text:
    if not kbit_s:
        return Text(_(template, rate=_("unlimited")))
    text = _(template, rate=_rate(kbit_s))
    if kbit_s < asked_kbit_s:
        text = _("{limit}, less than the {asked} asked for", limit=text, asked=_rate(asked_kbit_s))
    return _with_reason(text, reason, "yellow")


def _said_text(status: BandwidthStatus, said: SaidLimit) -> str:
    what = _("pause") if said.is_paused else _both(said.down_kbit_s, said.up_kbit_s)
    if said.days:
        return f"{_days(said.days)} {said.hours}  {what}"
    if said.until is None:
        return _("until it is taken back  {what}", what=what)
    return _("until {time}  {what}", time=_time(status, said.until), what=what)


def _days(days: list[str]) -> str:
    """`mon-wed, sat`: runs of days by their ends."""
    runs: list[list[str]] = [[]]
    for day in WEEK:
        if day in days:
            runs[-1].append(_(DAY_NAMES[day]))
        else:
            runs.append([])
    comma = _(", ")
    return comma.join(
        f"{run[0]}-{run[-1]}" if len(run) > 2 else comma.join(run) for run in runs if run
    )


def _link_text(status: BandwidthStatus) -> str:
    return _(
        "{down} ({down_how}), {up} ({up_how})",
        down=_link_in(status),
        down_how=_(RATE_KNOWN[status.link_down_how]),
        up=_link_out(status),
        up_how=_(RATE_KNOWN[status.link_up_how]),
    )


def _link_in(status: BandwidthStatus) -> str:
    return _("in {rate}", rate=_rate(status.link_down_kbit_s) if status.link_down_kbit_s else "-")


def _link_out(status: BandwidthStatus) -> str:
    return _("out {rate}", rate=_rate(status.link_up_kbit_s) if status.link_up_kbit_s else "-")


def _paused_text(status: BandwidthStatus) -> str:
    if status.until is None:
        return _("paused")
    return _("paused until {time}", time=_time(status, status.until))


def _both(down_kbit_s: int, up_kbit_s: int, *, is_limit: bool = True) -> str:
    """Both directions; of limits only those that there are."""
    parts = []
    if down_kbit_s or not is_limit:
        parts.append(_("in {rate}", rate=_rate(down_kbit_s)))
    if up_kbit_s or not is_limit:
        parts.append(_("out {rate}", rate=_rate(up_kbit_s)))
    return _(", ").join(parts)


def _rate(kbit_s: int) -> str:
    """`512 kbit/s`, as it is typed; `100 Mbit/s` from 10 Mbit/s on."""
    return f"{kbit_s} kbit/s" if kbit_s < 10_000 else f"{kbit_s / 1000:.15g} Mbit/s"


def _time(status: BandwidthStatus, epoch_s: int) -> str:
    """By the clock that windows are meant by, which needn't be this machine's."""
    try:
        zone = ZoneInfo(status.time_zone)
        return f"{datetime.fromtimestamp(epoch_s, UTC).astimezone(zone):%Y-%m-%d %H:%M}"
    except (KeyError, ValueError, OverflowError, OSError):
        return format_time(epoch_s)


def _with_reason(text: str, reason: Sentence | None, style: str = "") -> Text:
    if reason is None:
        return Text(text, style)
    shown = Text(_("{what}: {reason}", what=text, reason=say(reason)))
    shown.stylize(style, 0, len(text))
    return shown

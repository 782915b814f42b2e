"""What comes from a satellite and what goes to one: pages, a schedule, and two lines of `cuntong status`."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Literal

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from cuntong_daemon.control.messages import (
    DatacastStatus,
    HeardBundle,
    ReceiverStatus,
    SenderStatus,
    SentBundle,
)
from cuntong_daemon.datacast.sockets import RECEIVE_BUFFER_BYTES
from cuntong_daemon.i18n import _, ngettext
from cuntong_protocol.texts import N_, Sentence
from cuntong_tools.operate.tables import pairs
from cuntong_tools.output import (
    format_bytes,
    format_duration,
    format_percent,
    format_time,
    say,
)

MAX_SHOWN = 40
"""Bundles in one page; the rest is counted."""
SILENT_S = 10.0
"""A beacon comes every second; after so long without one something is wrong."""
DAY_S = 86_400
HOUR_S = 3600

DROP_NAMES = {
    "truncated": N_("too short"),
    "oversized": N_("too long"),
    "wrong-version": N_("of another version"),
    "malformed": N_("not in order"),
    "other-session": N_("of another session"),
    "bad-signature": N_("with a wrong signature"),
    "forged": N_("forged"),
    "replayed": N_("old ones sent again"),
    "unknown-block": N_("of an unknown block"),
    "bad-symbol": N_("with a number that can't be"),
    "duplicate": N_("here already"),
    "not-needed": N_("of blocks that are whole"),
    "spool-full": N_("no room in the spool"),
}
LOST = ("spool-full",)
USUAL = ("duplicate", "not-needed")
"""What is repeated comes to those who have it, too."""
TURN_NAMES = {
    "urgent": N_("urgent"),
    "fresh": N_("first pass"),
    "carousel": N_("repeated"),
    "waiting": N_("between two slots"),
}
STATE_NAMES = {
    "complete": N_("complete"),
    "waiting": N_("waiting"),
    "": N_("not wanted"),
}

Round = tuple[Literal["now", "later", "unknown"], int, int]
"""Whether a bundle is on the air; then when that begins and ends, 0: not known."""


def round_of(bundle: HeardBundle | SentBundle, now: int) -> Round:
    """When a bundle comes round next.

    Args:
        bundle: Which.
        now: By the sender's clock, as its times are; 0: not known.
    """
    if not now:
        return "unknown", 0, 0
    if bundle.begins <= now < bundle.ends:
        return "now", bundle.begins, bundle.ends
    if now < bundle.begins:
        return "later", bundle.begins, bundle.ends
    if now < bundle.next:
        return "later", bundle.next, 0
    return "unknown", 0, 0


def satellite_rows(status: DatacastStatus) -> list[tuple[str, Text]]:
    """At most two lines of a status."""
    rows: list[tuple[str, Text]] = []
    if status.receiver is not None:
        receiver = status.receiver
        if is_heard(receiver):
            text = Text(
                ngettext(
                    "in {rate} from {sender}, {coming} of {count} bundle on the air coming",
                    "in {rate} from {sender}, {coming} of {count} bundles on the air coming",
                    receiver.bundles_total,
                    rate=rate_text(receiver.rate_kbit_s),
                    sender=receiver.sender,
                    coming=receiver.bundles_coming,
                )
            )
        else:
            text = Text(_("in: {what}", what=_silence(receiver)), "yellow")
        rows.append((_("Satellite"), text))
    if status.sender is not None:
        sender = status.sender
        text = Text(_("out: nothing is sent"), "yellow")
        if sender.session:
            text = Text(
                ngettext(
                    "out {rate}, {count} bundle on the air",
                    "out {rate}, {count} bundles on the air",
                    sender.bundles_total,
                    rate=rate_text(sender.rate_kbit_s),
                )
            )
        rows.append(("" if rows else _("Satellite"), text))
    return rows


def status_view(status: DatacastStatus) -> RenderableType:
    """All of a node's satellite services: problems first."""
    parts: list[RenderableType] = problem_lines(status.problems)
    if status.receiver is None and status.sender is None:
        parts.append(
            Text(
                _(
                    "This node neither receives from a satellite nor sends to one; [dish] and [cast] in config.toml set that."
                )
            )
        )
    if status.receiver is not None:
        parts += _receiver(status.receiver)
    if status.sender is not None:
        parts += [Text("")] if status.receiver is not None else []
        parts += _sender(status.sender)
    return Group(*parts)


def sender_view(sender: SenderStatus, problems: Sequence[Sentence]) -> RenderableType:
    """What is sent now."""
    return Group(*problem_lines(problems), *_sender(sender))


def schedule_view(status: DatacastStatus) -> RenderableType:
    """When everything comes round, the soonest first."""
    parts: list[RenderableType] = []
    for heading, now, bundles in _directions(status):
        if parts:
            parts.append(Text(""))
        parts.append(Text(heading, "bold"))
        if now:
            parts.append(Text(_("By the sender's clock it is {time}.", time=format_time(now))))
        if not bundles:
            parts.append(Text(_("Nothing is known to be on the air.")))
            continue
        table = _table()
        table.add_column(_("Bundle"), overflow="fold", ratio=1)
        for name in (_("Begins"), _("End"), _("Next")):
            table.add_column(name, no_wrap=True)
        for bundle in sorted(bundles, key=lambda bundle: _soonness(bundle, now)):
            kind, begins, ends = round_of(bundle, now)
            following = bundle.next if begins < bundle.next > now else 0
            table.add_row(
                _name(bundle),
                Text(_("now"), "green") if kind == "now" else _clock(begins, now),
                _clock(ends, now),
                _clock(following, now),
            )
        parts.append(table)
    return Group(*parts)


def bundle_view(status: DatacastStatus) -> RenderableType:
    """When the one bundle comes round that was asked about."""
    parts: list[RenderableType] = []
    for _heading, now, bundles in _directions(status):
        for bundle in bundles:
            if not parts:
                parts.append(Text(f"{bundle.id}  {bundle.title}".rstrip(), "bold"))
            parts.append(Text(_round_text(bundle, now)))
            if bundle.next > max(now, bundle.begins) > 0 and round_of(bundle, now)[2]:
                parts.append(
                    Text(
                        _(
                            "The pass after that begins at {time}, in {duration}.",
                            time=format_time(bundle.next),
                            duration=rough(bundle.next - now),
                        )
                    )
                )
            if isinstance(bundle, HeardBundle):
                parts.append(Text(_("Here: {what}.", what=_here(bundle))))
            else:
                parts.append(Text(_("Sent from here: {what}.", what=_pass(bundle))))
    return Group(*parts)


def problem_lines(problems: Sequence[Sentence]) -> list[RenderableType]:
    """What asks for somebody's attention."""
    return [Text(f"! {say(problem)}", "bold red") for problem in problems]


def is_heard(receiver: ReceiverStatus) -> bool:
    """Whether the signal is there."""
    return receiver.beacon_age_s is not None and receiver.beacon_age_s <= SILENT_S


def rate_text(kbit_s: int) -> str:
    """`512 kbit/s`, as it is typed; `100 Mbit/s` from 10 Mbit/s on."""
    return f"{kbit_s} kbit/s" if kbit_s < 10_000 else f"{kbit_s / 1000:.15g} Mbit/s"


def rough(seconds: int) -> str:
    """A time to wait: in minutes, rounded up."""
    minutes = -(-max(seconds, 0) // 60)
    if minutes < 60:
        return _("{minutes} min", minutes=minutes)
    return format_duration(minutes * 60)


# Receiving.


def _receiver(receiver: ReceiverStatus) -> list[RenderableType]:
    signal = Text(_silence(receiver), "bold red")
    if is_heard(receiver):
        signal = Text(
            _(
                "{rate} from {sender}, last beacon {age} s ago",
                rate=rate_text(receiver.rate_kbit_s),
                sender=receiver.sender,
                age=round(receiver.beacon_age_s or 0),
            ),
            "green",
        )
    rows: list[tuple[str, Text]] = [
        (_("Receiving"), signal),
        ("", Text(_place_text(receiver.interface, receiver.group, receiver.session))),
    ]
    if receiver.session:
        here = receiver.catalogue_here or "-"
        text = _("version {version} on the air, {here} here", version=receiver.catalogue, here=here)
        rows.append((_("Catalogue"), Text(text)))
    rows += _packets(receiver)
    used = _(
        "{used} of {quota}",
        used=format_bytes(receiver.used_bytes),
        quota=format_bytes(receiver.quota_bytes),
    )
    rows += [
        (
            _("Spool"),
            Text(
                ngettext(
                    "{used}, {count} block open",
                    "{used}, {count} blocks open",
                    receiver.open_blocks,
                    used=used,
                )
            ),
        ),
        (
            _("Blocks"),
            Text(
                ngettext(
                    "{count} made whole since the start",
                    "{count} made whole since the start",
                    receiver.blocks_done,
                )
            ),
        ),
        (
            _("Programme"),
            Text(
                ngettext(
                    "{count} bundle, {coming} coming",
                    "{count} bundles, {coming} coming",
                    receiver.bundles_total,
                    coming=receiver.bundles_coming,
                )
            ),
        ),
    ]
    parts: list[RenderableType] = [pairs(rows)]
    if receiver.bundles:
        now = receiver.sender_time
        table = _table()
        table.add_column(_("Bundle"), overflow="fold", ratio=1)
        table.add_column(_("Here"), no_wrap=True)
        table.add_column(_("On the air"), no_wrap=True)
        for bundle in receiver.bundles[:MAX_SHOWN]:
            style = "green" if bundle.state == "complete" else ""
            here = _(STATE_NAMES[bundle.state]) if bundle.state != "coming" else _part(bundle)
            table.add_row(_name(bundle), Text(here, style), _when(bundle, now))
        parts += [Text(""), table, *_more(receiver.bundles_total, receiver.bundles)]
    return parts


def _packets(receiver: ReceiverStatus) -> list[tuple[str, Text]]:
    """What has come, and what of it was lost, refused or not needed."""
    rows = [
        (
            _("Received"),
            Text(
                _(
                    "{packets} packets, {bytes}; of these {fillers} fillers",
                    packets=receiver.packets,
                    bytes=format_bytes(receiver.bytes),
                    fillers=receiver.fillers,
                )
            ),
        ),
        (
            _("Symbols"),
            Text(
                _(
                    "{symbols} kept, {unverified} came unverified, {vouched} proven later",
                    symbols=receiver.symbols,
                    unverified=receiver.unverified,
                    vouched=receiver.vouched,
                )
            ),
        ),
    ]
    lost = [
        (receiver.socket_drops, _("the socket's buffer was full")),
        *((receiver.dropped.get(reason, 0), _(DROP_NAMES[reason])) for reason in LOST),
        (receiver.write_errors, _("the disk refused")),
    ]
    refused = [
        (count, _(DROP_NAMES.get(reason, reason)))
        for reason, count in sorted(receiver.dropped.items(), key=lambda pair: -pair[1])
        if reason not in LOST and reason not in USUAL
    ]
    usual = [(receiver.dropped.get(reason, 0), _(DROP_NAMES[reason])) for reason in USUAL]
    for name, counts, style in (
        (_("Lost"), lost, "red"),
        (_("Refused"), refused, "yellow"),
        (_("Not needed"), usual, ""),
    ):
        said = _(", ").join(f"{count} {what}" for count, what in counts if count)
        if said:
            rows.append((name, Text(said, style)))
    gaps = ngettext("{count} gap", "{count} gaps", receiver.gaps)
    if receiver.gaps:
        gaps = _(
            "{gaps}, {duration} in all", gaps=gaps, duration=format_duration(round(receiver.gap_s))
        )
    last = format_duration(round(receiver.silent_s))
    rows.append(
        (_("Signal"), Text(_("{gaps}; last packet {duration} ago", gaps=gaps, duration=last)))
    )
    # The kernel says twice what it was asked for: its own overhead takes the other half.
    wanted = 2 * RECEIVE_BUFFER_BYTES
    if 0 < receiver.buffer_bytes < wanted:
        rows.append(
            (
                _("Buffer"),
                Text(
                    _(
                        "only {size}, so packets may be lost: sysctl -w net.core.rmem_max={bytes}",
                        size=format_bytes(receiver.buffer_bytes),
                        bytes=RECEIVE_BUFFER_BYTES,
                    ),
                    "yellow",
                ),
            )
        )
    return rows


def _silence(receiver: ReceiverStatus) -> str:
    if receiver.beacon_age_s is None:
        return _("nothing was heard from {sender} yet", sender=receiver.sender)
    return _(
        "nothing was heard from {sender} for {duration}",
        sender=receiver.sender,
        duration=format_duration(int(receiver.beacon_age_s)),
    )


def _part(bundle: HeardBundle) -> str:
    """Two lines, as the bundle's name has."""
    return f"{format_percent(bundle.progress)}\n{bundle.blocks_done}/{bundle.blocks}"


def _here(bundle: HeardBundle) -> str:
    if bundle.state != "coming":
        return _(STATE_NAMES[bundle.state])
    return _(
        "{percent}, {done} of {blocks} blocks",
        percent=format_percent(bundle.progress),
        done=bundle.blocks_done,
        blocks=bundle.blocks,
    )


# Sending.


def _sender(sender: SenderStatus) -> list[RenderableType]:
    if not sender.session:
        rows = [
            (_("Sending"), Text(_("nothing is sent yet"), "yellow")),
            ("", Text(_place_text(sender.interface, sender.group, 0))),
        ]
        return [pairs(rows)]
    rate = _(
        "{rate}, {behind} ms behind at most",
        rate=rate_text(sender.rate_kbit_s),
        behind=f"{sender.behind_ms:.1f}",
    )
    sent = _(
        "{packets} packets, {bytes}; of these {fillers} fillers",
        packets=sender.packets,
        bytes=format_bytes(sender.bytes),
        fillers=sender.fillers,
    )
    rows = [
        (_("Sending"), Text(rate, "green")),
        ("", Text(_place_text(sender.interface, sender.group, sender.session))),
        (_("Catalogue"), Text(_("version {version} on the air", version=sender.catalogue or "-"))),
        (_("Sent"), Text(sent)),
    ]
    if sender.failed or sender.lost_ms:
        text = _(
            "{failed} packets refused by the system, {seconds} s not caught up",
            failed=sender.failed,
            seconds=f"{sender.lost_ms / 1000:.1f}",
        )
        rows.append((_("Lost"), Text(text, "red")))
    count = ngettext("{count} bundle", "{count} bundles", sender.bundles_total)
    rows.append((_("On the air"), Text(count)))
    parts: list[RenderableType] = [pairs(rows)]
    if sender.bundles:
        table = _table()
        table.add_column(_("Bundle"), overflow="fold", ratio=1)
        table.add_column(_("Turn"), no_wrap=True)
        table.add_column(_("Pass"), no_wrap=True)
        table.add_column(_("On the air"), no_wrap=True)
        for bundle in sender.bundles[:MAX_SHOWN]:
            turn = _(TURN_NAMES.get(bundle.turn, bundle.turn))
            progress = f"{bundle.passes + 1}\n{format_percent(bundle.permille / 1000)}"
            table.add_row(_name(bundle), turn, progress, _when(bundle, sender.time))
        parts += [Text(""), table, *_more(sender.bundles_total, sender.bundles)]
    return parts


def _pass(bundle: SentBundle) -> str:
    return _(
        "pass {number}, {percent}",
        number=bundle.passes + 1,
        percent=format_percent(bundle.permille / 1000),
    )


# Both.


def _directions(
    status: DatacastStatus,
) -> list[tuple[str, int, Sequence[HeardBundle | SentBundle]]]:
    found: list[tuple[str, int, Sequence[HeardBundle | SentBundle]]] = []
    if status.receiver is not None:
        heading = _("From the satellite of {sender}", sender=status.receiver.sender)
        found.append((heading, status.receiver.sender_time, status.receiver.bundles))
    if status.sender is not None:
        found.append((_("To the satellite"), status.sender.time, status.sender.bundles))
    return found


def _place_text(interface: str, group: str, session: int) -> str:
    text = _("interface {interface}, group {group}", interface=interface, group=group)
    return _("{place}, session {session}", place=text, session=session) if session else text


def _name(bundle: HeardBundle | SentBundle) -> Text:
    """The title, and below it the ID in one piece, so that it can be copied."""
    if not bundle.title:
        return Text(bundle.id)
    return Text.assemble(bundle.title, "\n", (bundle.id, "dim"))


def _when(bundle: HeardBundle | SentBundle, now: int) -> Text:
    """Two lines, as the bundle's name has."""
    kind, begins, ends = round_of(bundle, now)
    if kind == "now":
        until = _("until {time}", time=_clock(ends, now))
        return Text.assemble((_("now"), "green"), f"\n{until}")
    if kind == "later":
        return Text(f"{_clock(begins, now)}\n" + _("in {duration}", duration=rough(begins - now)))
    return Text("-")


def _round_text(bundle: HeardBundle | SentBundle, now: int) -> str:
    kind, begins, ends = round_of(bundle, now)
    if kind == "now":
        return _(
            "It is on the air now, until {time}, for another {duration}.",
            time=format_time(ends),
            duration=rough(ends - now),
        )
    if kind == "unknown":
        return _("When it comes round isn't known at the moment.")
    if not ends:
        return _(
            "It comes round at {time}, in {duration}.",
            time=format_time(begins),
            duration=rough(begins - now),
        )
    return _(
        "It comes round at {time}, in {duration}, until {end}.",
        time=format_time(begins),
        duration=rough(begins - now),
        end=format_time(ends),
    )


def _soonness(bundle: HeardBundle | SentBundle, now: int) -> tuple[int, int, str]:
    kind, begins, ends = round_of(bundle, now)
    if kind == "now":
        return 0, ends, bundle.id
    return (1, begins, bundle.id) if kind == "later" else (2, 0, bundle.id)


def _clock(at: int, now: int) -> str:
    """`14:05`, or `03-06 14:05` on another day; the sender's clock, in this machine's time zone."""
    if not at:
        return "-"
    try:
        shown, today = (datetime.fromtimestamp(it, UTC).astimezone() for it in (at, now))
    except (ValueError, OverflowError, OSError):
        return "-"
    return f"{shown:%H:%M}" if shown.date() == today.date() else f"{shown:%m-%d %H:%M}"


def _more(total: int, shown: Sequence[object]) -> list[RenderableType]:
    rest = total - min(len(shown), MAX_SHOWN)
    if rest <= 0:
        return []
    text = ngettext(
        "and {count} bundle more: cuntong datacast schedule",
        "and {count} bundles more: cuntong datacast schedule",
        rest,
    )
    return [Text(text, "dim")]


def _table() -> Table:
    return Table(box=None, padding=(0, 2, 0, 0), header_style="bold", expand=False)

"""`cuntong datacast plan`: how long a set takes until receivers have it, reckoned with the sender's own policy."""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from random import Random
from typing import Any, Protocol

import click
import msgspec

from cuntong_daemon.control.messages import Detail
from cuntong_daemon.i18n import _, ngettext
from cuntong_daemon.paths import DataPaths
from cuntong_daemon.policy.airtime import METADATA_PART, URGENT_PRIORITY
from cuntong_daemon.policy.reception import (
    HOUR_S,
    Broadcast,
    Weather,
    receive,
    symbols_per_s,
    time_of_part,
)
from cuntong_protocol.datacast.blocks import BLOCK_BYTES, PASSES_WITHOUT_REPEAT, pass_length
from cuntong_protocol.datacast.errors import DatacastError
from cuntong_protocol.errors import Fault
from cuntong_protocol.texts import N_
from cuntong_tools.client import complete_bundle, connect, data_option
from cuntong_tools.output import (
    console,
    format_bytes,
    format_duration,
    print_json,
    wrap_cells,
)
from cuntong_tools.sizes import parse_size

PARTS = ("50", "90", "99", "99.5")
"""Of the receivers, in percent."""
MODEL_BLOCKS = 2048
"""Followed in all: 8 GiB; of larger sets several blocks as one."""
LEAST_BLOCKS = 8
"""Of each bundle."""
MANY_FADES = 20
"""In a pass; the more there are, the fewer blocks tell the same in the same time."""
MOST_BUNDLES = 1000
MOST_RECEIVERS = 10_000
MOST_LOSS_PERCENT = 90.0
MOST_DAYS = 100
"""Of one pass."""
BYTES_PER_KBIT = 125
DAY_S = 86_400.0
STAGE_PASSES = 0.05
STAGE_PART = 0.1
"""After so many more passes, or so much of those so far, it is looked who has what."""
STEPS = 200
"""Of a pass, after which the bar moves."""

_FADE = re.compile(
    r"([0-9]{1,6}(?:\.[0-9]{1,3})?)(s|min|m|h)/([0-9]{1,6})?(s|min|m|h|d)", re.IGNORECASE
)
_SECONDS = {"s": 1.0, "min": 60.0, "m": 60.0, "h": HOUR_S, "d": DAY_S}


class PlannedBundle(msgspec.Struct, frozen=True, kw_only=True):
    """What is reckoned for one bundle, or for all of them together.

    Attributes:
        id: As it was named: in the catalogue, or its size.
        size: In bytes.
        seconds: Until so many percent of the receivers have it; None: not with 16 passes.
        sent_bytes: Symbols that are sent until the last of these times, without headers.
    """

    id: str
    size: int
    seconds: dict[str, float | None]
    sent_bytes: int


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """The answer, with what it was reckoned for."""

    rate_kbit_s: int
    share_percent: int
    loss_percent: float
    fade_s: float
    fade_every_s: float | None
    receivers: int
    seed: int
    bundles: list[PlannedBundle]
    together: PlannedBundle


@dataclass(frozen=True, slots=True)
class Wanted:
    """A bundle that is to be sent."""

    name: str
    size: int
    priority: int = 5


class Show(Protocol):
    """Shows how far the reckoning is."""

    def __call__(self, what: str, done: float, total: float) -> None: ...


@click.command(
    name="plan",
    help=_(
        "Reckon how long it takes until receivers have what is sent by satellite: bundles of the catalogue, or of "
        "sizes that are only planned so far. Each receiver has its own bad weather."
    ),
)
@click.argument("ids", metavar="[ID]…", nargs=-1, shell_complete=complete_bundle)
@click.option(
    "--size",
    "sizes",
    metavar=_("SIZE"),
    multiple=True,
    help=_("A bundle of this size, such as 64MB or 1.5GiB. May be given several times."),
)
@click.option(
    "--rate",
    metavar="KBIT",
    type=click.IntRange(64, 1_000_000),
    required=True,
    help=_("What is sent, in kbit/s with IP headers."),
)
@click.option(
    "--share",
    metavar=_("PERCENT"),
    type=click.IntRange(1, 100),
    default=100,
    show_default=True,
    help=_("The part of it that these bundles have; others have the rest."),
)
@click.option(
    "--loss",
    metavar=_("PERCENT"),
    type=click.FloatRange(0, MOST_LOSS_PERCENT),
    default=0.0,
    show_default=True,
    help=_("How many packets are lost, each by itself."),
)
@click.option(
    "--fade",
    metavar=_("TIME/TIME"),
    help=_("How long and how often nothing comes at all: 2min/h, 30s/10min, 1h/d."),
)
@click.option("--urgent", "is_urgent", is_flag=True, help=_("Send all of it in two slots."))
@click.option(
    "--receivers",
    metavar=_("NUMBER"),
    type=click.IntRange(1, MOST_RECEIVERS),
    default=300,
    show_default=True,
    help=_("For so many receivers."),
)
@click.option(
    "--seed",
    metavar=_("NUMBER"),
    type=int,
    default=1,
    show_default=True,
    help=_("Another one is other weather of the same kind."),
)
@data_option
@click.option("--json", "as_json", is_flag=True, help=_("Print JSON, for programs."))
def plan(
    ids: tuple[str, ...],
    sizes: tuple[str, ...],
    rate: int,
    share: int,
    loss: float,
    fade: str | None,
    receivers: int,
    seed: int,
    paths: DataPaths,
    *,
    is_urgent: bool,
    as_json: bool,
) -> None:
    if not ids and not sizes:
        raise click.UsageError(_("Name bundles of the catalogue, or give sizes with --size."))
    wanted = [Wanted(text, parse_size(text)) for text in sizes]
    fade_s, every_s = (0.0, math.inf) if fade is None else parse_fade(fade)
    if len(ids) + len(sizes) > MOST_BUNDLES:
        raise DatacastError(
            "datacast.plan-too-many",
            N_("A plan has at most {limit} bundles."),
            fault=Fault.USAGE,
            limit=MOST_BUNDLES,
        )
    wanted = _from_catalogue(ids, paths) + wanted
    with _bar() as show:
        found = reckon(
            wanted,
            rate_kbit_s=rate,
            share_percent=share,
            loss_percent=loss,
            fade_s=fade_s,
            fade_every_s=every_s,
            receivers=receivers,
            seed=seed,
            is_urgent=is_urgent,
            show=show,
        )
    if as_json:
        print_json(found)
    else:
        _print(found, set(ids))


def parse_fade(text: str) -> tuple[float, float]:
    """How long a fade is and how often one begins, in seconds, of `2min/h` or `30s/10min`.

    Raises:
        DatacastError: `datacast.bad-fade`, `datacast.endless-fade`.
    """
    match = _FADE.fullmatch("".join(text.split()))
    if match is None:
        raise DatacastError(
            "datacast.bad-fade",
            N_("{text} doesn't say how long and how often, such as 2min/h or 30s/10min."),
            fault=Fault.USAGE,
            text=text,
        )
    fade_s = float(match[1]) * _SECONDS[match[2].lower()]
    every_s = int(match[3] or 1) * _SECONDS[match[4].lower()]
    if fade_s >= every_s:
        raise DatacastError(
            "datacast.endless-fade",
            N_(
                "With fades of {text} nothing would ever come: a fade must be over before the next."
            ),
            fault=Fault.USAGE,
            text=text,
        )
    return fade_s, every_s


def _from_catalogue(ids: Sequence[str], paths: DataPaths) -> list[Wanted]:
    """What the node's catalogue says of these bundles.

    Raises:
        CuntongError: no daemon answers, or a bundle isn't listed or is never cast.
    """
    from cuntong_daemon.control.datacast_methods import never_cast

    found: list[Wanted] = []
    if ids:
        with connect(paths) as daemon:
            for identifier in dict.fromkeys(ids):
                detail = daemon.call_as(Detail, "catalogue.show", {"id": identifier})
                licence: dict[str, Any] = detail.metadata.get("licence") or {}
                if licence.get("kind", "open") != "open":
                    raise never_cast(identifier)
                priority = int(detail.metadata.get("priority", 5))
                size = max(1, detail.summary.payload_size)
                found.append(Wanted(identifier, size, priority))
    return found


def reckon(
    wanted: Sequence[Wanted],
    *,
    rate_kbit_s: int,
    share_percent: int,
    loss_percent: float,
    fade_s: float,
    fade_every_s: float,
    receivers: int,
    seed: int,
    is_urgent: bool,
    show: Show,
) -> Plan:
    """Send in thought until enough receivers have everything, or 16 passes are through.

    Args:
        wanted: What is sent.
        is_urgent: All of it in two slots; those from priority 8 on are anyway.
        show: Told how far it is, some hundred times.

    Raises:
        DatacastError: `datacast.plan-too-long`.
    """
    symbols_s = symbols_per_s(rate_kbit_s * BYTES_PER_KBIT * share_percent / 100)
    symbols_s *= 1 - METADATA_PART
    weather = Weather(loss=loss_percent / 100, fade_s=fade_s, fades_an_hour=HOUR_S / fade_every_s)
    sent = _prepare(wanted, symbols_s, fade_every_s if fade_s else math.inf, is_urgent=is_urgent)
    step_s = sum(item.symbols_a_pass for item in sent.air.items.values()) / symbols_s / STEPS
    keys = list(sent.blocks)
    enough = math.ceil(receivers * float(PARTS[-1]) / 100)
    times = [[math.inf] * receivers for _ in keys]
    waiting: Sequence[int] = range(receivers)
    target = min(1 / weather.clear_part, PASSES_WITHOUT_REPEAT)
    while True:
        while sent.progress < target:
            sent.send(sent.now + step_s)
            show(_("Sending"), sent.progress, target)
        still = []
        for done, receiver in enumerate(waiting):
            # The same weather each time, however long it is looked at.
            chance = Random(f"{seed} {receiver}")  # noqa: S311 - has to be repeatable.
            found = receive(sent, weather, chance)
            for number, key in enumerate(keys):
                times[number][receiver] = max(found[key])
            if any(of_bundle[receiver] == math.inf for of_bundle in times):
                still.append(receiver)
            if done % 16 == 0:
                show(_("Receiving"), done, len(waiting))
        waiting = still
        if len(still) <= receivers - enough or target >= PASSES_WITHOUT_REPEAT:
            break
        target = min(target + max(STAGE_PASSES, STAGE_PART * target), PASSES_WITHOUT_REPEAT)
    bundles = [
        _planned(it.name, it.size, of_bundle, sent, [key])
        for it, key, of_bundle in zip(wanted, keys, times, strict=True)
    ]
    together = [max(of_receiver) for of_receiver in zip(*times, strict=True)]
    return Plan(
        rate_kbit_s=rate_kbit_s,
        share_percent=share_percent,
        loss_percent=loss_percent,
        fade_s=fade_s,
        fade_every_s=None if fade_every_s == math.inf else fade_every_s,
        receivers=receivers,
        seed=seed,
        bundles=bundles,
        together=_planned("", sum(it.size for it in wanted), together, sent, keys),
    )


def _prepare(
    wanted: Sequence[Wanted], symbols_s: float, fade_every_s: float, *, is_urgent: bool
) -> Broadcast:
    size = sum(it.size for it in wanted)
    pass_s = size / BLOCK_BYTES * pass_length(BLOCK_BYTES) / symbols_s
    if pass_s > MOST_DAYS * DAY_S:
        raise DatacastError(
            "datacast.plan-too-long",
            N_("To send {size} once takes {duration}; a plan may be for {days} days."),
            fault=Fault.USAGE,
            size=format_bytes(size),
            duration=format_duration(round(pass_s)),
            days=MOST_DAYS,
        )
    fades = pass_s / fade_every_s
    most = MODEL_BLOCKS * min(1.0, MANY_FADES / fades if fades else 1.0)
    sent = Broadcast(symbols_s)
    # The order is the sender's.
    places = sorted(range(len(wanted)), key=lambda n: (-wanted[n].priority, wanted[n].size))
    for number, it in enumerate(wanted):
        sent.add(
            f"{number}",
            it.size,
            priority=it.priority,
            is_urgent=is_urgent or it.priority >= URGENT_PRIORITY,
            order=places.index(number),
            most_blocks=max(LEAST_BLOCKS, int(most * it.size / size)),
        )
    return sent


def _planned(
    name: str, size: int, times: Sequence[float], sent: Broadcast, keys: Sequence[str]
) -> PlannedBundle:
    seconds = {part: time_of_part(times, float(part) / 100) for part in PARTS}
    until = min(max(seconds.values()), sent.now)
    return PlannedBundle(
        id=name,
        size=size,
        seconds={part: None if time == math.inf else time for part, time in seconds.items()},
        sent_bytes=sum(sent.sent_bytes(key, until) for key in keys),
    )


def _print(found: Plan, listed: Collection[str]) -> None:
    """A table, and what its numbers are.

    Args:
        listed: Names from the catalogue; the others say the size themselves.
    """
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold", expand=False)
    table.add_column(_("Bundle"), overflow="fold")
    for part in PARTS:
        table.add_column(f"{part} %", justify="right", no_wrap=True)
    table.add_column(_("Sent"), justify="right", no_wrap=True)
    rows = [
        (Text.assemble(it.id, ("\n" + format_bytes(it.size)) if it.id in listed else ""), it)
        for it in found.bundles
    ]
    if len(rows) > 1:
        rows.append((Text(_("all of them")), found.together))
    for name, it in rows:
        times = [
            "-" if seconds is None else format_duration(math.ceil(seconds))
            for seconds in it.seconds.values()
        ]
        table.add_row(name, *times, f"{it.sent_bytes / it.size:.2f}")
    notes = [
        ngettext(
            "The time from when sending begins until so many of {count} receiver have it.",
            "The time from when sending begins until so many of {count} receivers have it.",
            found.receivers,
        ),
        _("Sent: until 99.5 % have it, as a multiple of the size."),
    ]
    if any(None in it.seconds.values() for it in (*found.bundles, found.together)):
        notes.append(_("-: not within 16 passes; too much is lost."))
    screen = console()
    screen.print(table)
    for note in notes:
        click.echo("\n".join(wrap_cells(note, screen.width)))


@contextmanager
def _bar() -> Iterator[Show]:
    """A bar on stderr for what takes longer than a second; nothing where stderr isn't a terminal."""
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn

    shown = console(stderr=True)
    with Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=20),
        TaskProgressColumn(),
        console=shown,
        transient=True,
        disable=not shown.is_terminal,
    ) as bars:
        task = bars.add_task("")

        def show(what: str, done: float, total: float) -> None:
            bars.update(task, description=what, completed=done, total=total)

        yield show

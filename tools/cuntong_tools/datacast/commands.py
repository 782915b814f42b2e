"""`cuntong datacast`: what comes from a satellite, what goes to one, and when."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence

import click
import msgspec

from cuntong_daemon.control.client import ControlClient
from cuntong_daemon.control.messages import (
    MAX_PAGE,
    DatacastStatus,
    HeardBundle,
    SenderStatus,
    SentBundle,
)
from cuntong_daemon.i18n import _, ngettext
from cuntong_daemon.paths import DataPaths
from cuntong_protocol.texts import Sentence
from cuntong_tools.client import bundle_argument, connect, data_option
from cuntong_tools.output import console, format_bytes, format_duration, print_json, say

from .plan import plan

WATCH_INTERVAL_S = 1.0

json_option = click.option("--json", "as_json", is_flag=True, help=_("Print JSON, for programs."))


@click.group(name="datacast", help=_("What comes from a satellite, what goes to one, and when."))
def datacast() -> None:
    pass


@datacast.command(
    name="status", help=_("Show how well the satellite is heard, what is sent, and how far it is.")
)
@data_option
@json_option
@click.option("--watch", is_flag=True, help=_("Show it again every second, until Ctrl-C."))
def status_command(paths: DataPaths, *, as_json: bool, watch: bool) -> None:
    from .views import MAX_SHOWN, status_view

    if as_json and watch:
        raise click.UsageError(_("--json and --watch don't go together."))
    params = {"limit": MAX_SHOWN}
    with connect(paths) as daemon:
        if not watch:
            answer = daemon.call_as(DatacastStatus, "datacast", params)
            if as_json:
                print_json(answer)
            else:
                console().print(status_view(answer))
            return
        from rich.live import Live

        # Ctrl-C is how one leaves: it isn't an error.
        with (
            contextlib.suppress(KeyboardInterrupt),
            Live(console=console(), auto_refresh=False) as live,
        ):
            while True:
                answer = daemon.call_as(DatacastStatus, "datacast", params)
                live.update(status_view(answer), refresh=True)
                time.sleep(WATCH_INTERVAL_S)


@datacast.command(
    name="schedule",
    help=_("Show what is on the air, and when the bundle ID comes round; without ID, all of them."),
)
@bundle_argument(required=False)
@data_option
@json_option
def schedule_command(bundle_id: str | None, paths: DataPaths, *, as_json: bool) -> None:
    from cuntong_daemon.control.datacast_methods import not_set_up

    from .views import bundle_view, schedule_view

    with connect(paths) as daemon:
        if bundle_id is not None:
            answer = daemon.call_as(DatacastStatus, "datacast", {"id": bundle_id})
        else:
            answer = _everything(daemon)
    if answer.receiver is None and answer.sender is None:
        raise not_set_up()
    if as_json:
        print_json(answer)
    else:
        console().print(bundle_view(answer) if bundle_id is not None else schedule_view(answer))


def _everything(daemon: ControlClient) -> DatacastStatus:
    """All pages of the schedule, in the order of the bundles' IDs."""
    heard: list[HeardBundle] = []
    sent: list[SentBundle] = []
    after = ""
    while True:
        params = {"after": after, "limit": MAX_PAGE}
        answer = daemon.call_as(DatacastStatus, "datacast", params)
        receiver, sender = answer.receiver, answer.sender
        pages = (
            receiver.bundles if receiver is not None else [],
            sender.bundles if sender is not None else [],
        )
        heard += pages[0]
        sent += pages[1]
        # Where one of the lists is longer than a page, both go on after the end of the shorter page.
        full = [page[-1].id for page in pages if len(page) == MAX_PAGE]
        if not full:
            break
        after = min(full)
        heard = [bundle for bundle in heard if bundle.id <= after]
        sent = [bundle for bundle in sent if bundle.id <= after]
    return msgspec.structs.replace(
        answer,
        receiver=None if receiver is None else msgspec.structs.replace(receiver, bundles=heard),
        sender=None if sender is None else msgspec.structs.replace(sender, bundles=sent),
    )


@datacast.command(
    name="send",
    help=_(
        "Send the bundles ID, or --all that may be cast, to a satellite until Ctrl-C: in the foreground, where no "
        "daemon runs. A daemon sends by itself when config.toml has [cast]."
    )
    + "\n\n"
    + _(
        "What the options don't say comes from [cast]. Bundles with a restricted licence are never cast; "
        "what isn't sent now begins anew when it is sent again."
    ),
)
@click.argument("ids", metavar="[ID]…", nargs=-1)
@click.option("--all", "is_all", is_flag=True, help=_("Send everything that may be cast."))
@click.option("--interface", metavar=_("NAME"), help=_("The network interface of the uplink."))
@click.option("--source", metavar=_("ADDRESS"), help=_("This node's address on it."))
@click.option("--group", metavar=_("ADDRESS:PORT"), help=_("The multicast group to send to."))
@click.option(
    "--rate",
    metavar="KBIT",
    type=click.IntRange(64, 1_000_000),
    help=_("How much to send all the time, in kbit/s with IP headers."),
)
@click.option(
    "--hops", metavar=_("NUMBER"), type=click.IntRange(1, 255), help=_("Time to live of packets.")
)
@data_option
def send_command(
    ids: tuple[str, ...],
    interface: str | None,
    source: str | None,
    group: str | None,
    rate: int | None,
    hops: int | None,
    paths: DataPaths,
    *,
    is_all: bool,
) -> None:
    if is_all == bool(ids):
        raise click.UsageError(_("Name the bundles to send, or give --all."))
    from .send import prepared, run_sender

    options = {
        "interface": interface,
        "source": source,
        "group": group,
        "rate_kbit_s": rate,
        "hops": hops,
    }
    with prepared(paths, options, ids) as ready:
        began = time.monotonic()
        with _shown(ready.problems) as show:
            last = run_sender(ready, show)
        took = format_duration(round(time.monotonic() - began))
    click.echo(
        _(
            "Sent {packets} packets, {bytes}, in {duration}.",
            packets=last.packets,
            bytes=format_bytes(last.bytes),
            duration=took,
        )
    )


@contextlib.contextmanager
def _shown(
    problems: Sequence[Sentence],
) -> Iterator[Callable[[SenderStatus, Sequence[Sentence]], None]]:
    """A live page on a terminal; elsewhere a line for what is new."""
    from rich.live import Live

    from .views import problem_lines, rate_text, sender_view

    screen = console()
    if screen.is_terminal:
        for line in problem_lines(problems):
            screen.print(line)
        with Live(console=screen, auto_refresh=False) as live:
            yield lambda status, found: live.update(sender_view(status, found), refresh=True)
        return
    known: list[str] = []

    def show(status: SenderStatus, found: Sequence[Sentence]) -> None:
        lines = [say(problem) for problem in found]
        if status.session and status.packets:
            sending = ngettext(
                "Sending {rate} to {group} on {interface}, {count} bundle.",
                "Sending {rate} to {group} on {interface}, {count} bundles.",
                status.bundles_total,
                rate=rate_text(status.rate_kbit_s),
                group=status.group,
                interface=status.interface,
            )
            lines.append(sending)
        for line in lines:
            if line not in known:
                click.echo(line)
        known[:] = lines

    for problem in problems:
        click.echo(say(problem), err=True)
    yield show


datacast.add_command(plan)

commands: list[click.Command] = [datacast]

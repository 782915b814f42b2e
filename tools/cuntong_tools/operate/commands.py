"""Look at a node and steer it: `status`, `catalogue`, `order`, `verify`, `events`. All ask the daemon.

`limit`, `pause` and `resume` are in `bandwidth`.
"""

from __future__ import annotations

import contextlib
import time

import click

from cuntong_daemon.control.messages import (
    MAX_PAGE,
    CataloguePage,
    Detail,
    Happening,
    Status,
    VerifyStep,
    Why,
)
from cuntong_daemon.i18n import _, ngettext
from cuntong_daemon.paths import DataPaths
from cuntong_protocol.errors import Fault
from cuntong_protocol.texts import Sentence
from cuntong_tools.client import bundle_argument, connect, data_option
from cuntong_tools.output import console, print_json, progress_bar, say

from . import bandwidth, views

WATCH_INTERVAL_S = 1.0
VERIFY_TIMEOUT_S = 600.0
"""Between two items of a verification: a slow disk reads a large piece."""

json_option = click.option("--json", "as_json", is_flag=True, help=_("Print JSON, for programs."))


@click.command(
    name="status", help=_("Show what the node does, what it has, what is late, and why.")
)
@data_option
@json_option
@click.option("--watch", is_flag=True, help=_("Show it again every second, until Ctrl-C."))
@click.option(
    "--why", metavar=_("ID"), help=_("Tell why a bundle is here, waits, or isn't wanted.")
)
def status(paths: DataPaths, *, as_json: bool, watch: bool, why: str | None) -> None:
    if sum((as_json and not why, watch, why is not None)) > 1:
        raise click.UsageError(_("--json, --watch and --why don't go together."))
    with connect(paths) as daemon:
        if why is not None:
            answer = daemon.call_as(Why, "why", {"id": why})
            if as_json:
                print_json(answer)
            else:
                console().print(views.why_view(answer))
            return
        if not watch:
            now = daemon.call_as(Status, "status")
            if as_json:
                print_json(now)
            else:
                console().print(views.status_view(now))
            return
        from rich.live import Live

        # Ctrl-C is how one leaves: it isn't an error.
        with (
            contextlib.suppress(KeyboardInterrupt),
            Live(console=console(), auto_refresh=False) as live,
        ):
            while True:
                live.update(views.status_view(daemon.call_as(Status, "status")), refresh=True)
                time.sleep(WATCH_INTERVAL_S)


@click.group(name="catalogue", help=_("Look into the catalogue of signed bundles."))
def catalogue() -> None:
    pass


@catalogue.command(
    name="list", help=_("List the bundles whose ID begins with PREFIX; all without.")
)
@click.argument("prefix", metavar=_("PREFIX"), default="")
@data_option
@json_option
def catalogue_list(prefix: str, paths: DataPaths, *, as_json: bool) -> None:
    entries = []
    after: str | None = ""
    total = 0
    with connect(paths) as daemon:
        while after is not None:
            page = daemon.call_as(
                CataloguePage,
                "catalogue.list",
                {"prefix": prefix, "after": after, "limit": MAX_PAGE},
            )
            entries += page.entries
            total, after = page.total, page.next
    if as_json:
        print_json(entries)
        return
    if entries:
        console().print(views.entries_view(entries))
    click.echo(
        ngettext("{count} bundle.", "{count} bundles.", len(entries))
        if total == len(entries)
        else ngettext(
            "{count} bundle of {total}.", "{count} bundles of {total}.", len(entries), total=total
        )
    )


@catalogue.command(
    name="search",
    help=_(
        "Find bundles that hold all WORDS in title, description or other terms: Chinese words anywhere, "
        "simplified or traditional; other words by their beginning."
    ),
)
@click.argument("words", metavar=_("WORDS"), nargs=-1, required=True)
@click.option(
    "--limit",
    type=click.IntRange(1, MAX_PAGE),
    default=50,
    show_default=True,
    help=_("Show at most so many."),
)
@data_option
@json_option
def catalogue_search(
    words: tuple[str, ...], limit: int, paths: DataPaths, *, as_json: bool
) -> None:
    with connect(paths) as daemon:
        page = daemon.call_as(
            CataloguePage, "catalogue.search", {"text": " ".join(words)[:1000], "limit": limit}
        )
    if as_json:
        print_json(page.entries)
    elif page.entries:
        console().print(views.entries_view(page.entries))
    else:
        click.echo(_("Nothing in the catalogue holds these words."))


@catalogue.command(name="show", help=_("Show all that is known about one bundle."))
@bundle_argument()
@data_option
@json_option
def catalogue_show(bundle_id: str, paths: DataPaths, *, as_json: bool) -> None:
    with connect(paths) as daemon:
        detail = daemon.call_as(Detail, "catalogue.show", {"id": bundle_id})
    if as_json:
        print_json(detail)
    else:
        console().print(views.detail_view(detail))


@click.command(name="order", help=_("Order a bundle for this place, whatever it subscribes to."))
@bundle_argument()
@click.option("--cancel", is_flag=True, help=_("Take the order back."))
@data_option
def order(bundle_id: str, paths: DataPaths, *, cancel: bool) -> None:
    with connect(paths) as daemon:
        answer = daemon.call_as(Sentence, "order", {"id": bundle_id, "cancel": cancel})
    click.echo(say(answer))


@click.command(
    name="verify",
    help=_(
        "Read a bundle's files again and check every piece; bad ones are fetched anew. All bundles without ID."
    ),
)
@bundle_argument(required=False)
@data_option
@json_option
@click.pass_context
def verify(
    context: click.Context, bundle_id: str | None, paths: DataPaths, *, as_json: bool
) -> None:
    finished: list[VerifyStep] = []
    with connect(paths, timeout_s=VERIFY_TIMEOUT_S) as daemon, progress_bar() as bars:
        tasks = {}
        for step in daemon.stream(
            VerifyStep, "verify", {} if bundle_id is None else {"id": bundle_id}
        ):
            if step.id not in tasks:
                tasks[step.id] = bars.add_task(step.title or step.id, total=step.bytes_total)
            bars.update(tasks[step.id], completed=step.bytes_done)
            if step.is_done:
                finished.append(step)
                bars.remove_task(tasks[step.id])
    bad = [step for step in finished if step.bad_pieces]
    if as_json:
        print_json(finished)
    else:
        for step in bad:
            click.echo(
                ngettext(
                    "{id}: {count} damaged piece; it is fetched again.",
                    "{id}: {count} damaged pieces; they are fetched again.",
                    step.bad_pieces,
                    id=step.id,
                )
            )
        sound = len(finished) - len(bad)
        click.echo(ngettext("{count} bundle is sound.", "{count} bundles are sound.", sound))
    if bad:
        context.exit(Fault.CONTENT.value)


@click.command(name="events", help=_("Show what happened on this node, the latest last."))
@click.option(
    "--limit",
    type=click.IntRange(1, MAX_PAGE),
    default=50,
    show_default=True,
    help=_("Show at most so many."),
)
@data_option
@json_option
def events(limit: int, paths: DataPaths, *, as_json: bool) -> None:
    with connect(paths) as daemon:
        happenings = daemon.call_as(list[Happening], "events", {"limit": limit})
    if as_json:
        print_json(happenings)
    elif happenings:
        console().print(views.events_view(happenings))
    else:
        click.echo(_("Nothing has happened yet."))


commands: list[click.Command] = [
    status,
    catalogue,
    order,
    verify,
    events,
    *bandwidth.commands,
]

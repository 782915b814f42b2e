"""`cuntong datacast send`: the sender in the foreground, on a node whose daemon doesn't run.

It is the daemon's own caster, with the same keys, the same state and the same lock; only what is on the air is said on
the command line.
"""

from __future__ import annotations

import contextlib
import signal
import sqlite3
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import click
import msgspec
import trio

from cuntong_daemon.addresses import parse_address
from cuntong_daemon.catalogue import Catalogue, Database
from cuntong_daemon.clock import NodeClock
from cuntong_daemon.config import Config, load_config
from cuntong_daemon.config_datacast import CastSection, DishSection, bad_datacast_key
from cuntong_daemon.control.datacast_methods import never_cast, sender_status
from cuntong_daemon.control.lock import hold_data_directory
from cuntong_daemon.control.messages import SenderStatus
from cuntong_daemon.control.sockets import ControlError
from cuntong_daemon.datacast.caster import Caster, CastOrder, CastStatus
from cuntong_daemon.datacast.lineup import Lineup, lineup_of
from cuntong_daemon.datacast.sender import cast_order, is_installed
from cuntong_daemon.datacast.sockets import Group, open_sender
from cuntong_daemon.i18n import _
from cuntong_daemon.logs import configure_logging
from cuntong_daemon.paths import DataPaths
from cuntong_daemon.place import check_place
from cuntong_daemon.store.errors import database_error
from cuntong_daemon.trust.federation import Federation
from cuntong_protocol.datacast.errors import DatacastError
from cuntong_protocol.errors import Fault
from cuntong_protocol.link.messages import Announcement
from cuntong_protocol.texts import N_, Sentence

Show = Callable[[SenderStatus, Sequence[Sentence]], None]


@dataclass(frozen=True, slots=True)
class Prepared:
    """All that a caster needs.

    Attributes:
        titles: Of what is cast, by bundle id.
        problems: What the verified catalogue says an administrator should know.
    """

    section: CastSection
    order: CastOrder
    lineup: Lineup
    titles: Mapping[str, str]
    problems: Sequence[Sentence]


@contextlib.contextmanager
def prepared(
    paths: DataPaths, options: Mapping[str, str | int | None], ids: Sequence[str]
) -> Iterator[Prepared]:
    """Own the data directory inside the block, as the daemon does, with everything checked. Blocks.

    Args:
        paths: The node's data directory.
        options: Values that go before those of `[cast]`; None: not given.
        ids: What to cast; all that may be cast when empty.

    Raises:
        CuntongError: it can't be done, in words.
        click.UsageError: an option's value can't be used.
    """
    config = load_config(paths.config)
    section = _section(config, options)
    if not is_installed():
        raise DatacastError(
            "datacast.not-installed",
            N_(
                "To send, install the package raptorq: pip install 'cuntong[datacast]' (x86-64 only)."
            ),
            fault=Fault.SYSTEM,
        )
    configure_logging("error")
    try:
        lock = contextlib.ExitStack()
        lock.enter_context(hold_data_directory(paths))
    except ControlError as error:
        if error.code != "control.second-daemon":
            raise
        raise DatacastError(
            "datacast.daemon-runs",
            N_(
                "The daemon runs on {folder} and sends by itself: set [cast] in its config.toml, then: systemctl restart cuntong"
            ),
            fault=Fault.SYSTEM,
            folder=str(paths.root),
        ) from None
    with lock:
        check_place(config, paths)
        # What can't be used is found now, and not by the pacer once everything runs.
        address, port = parse_address(section.group)
        group = Group(address, port, section.interface, section.source)
        open_sender(group, hops=section.hops).close()
        try:
            lineup, titles, problems = _lineup(config, paths, ids)
        except sqlite3.Error as error:
            raise database_error(error, str(paths.database)) from error
        order = cast_order(paths, config.division, section)
        yield Prepared(section, order, lineup, titles, problems)


def _section(config: Config, options: Mapping[str, str | int | None]) -> CastSection:
    """`[cast]`, with what the command line says instead."""
    given = {name: value for name, value in options.items() if value is not None}
    section = msgspec.structs.replace(config.cast, **given)
    if not section.interface:
        raise click.UsageError(
            _(
                "Say where to send: --interface NAME and --source ADDRESS, or set [cast] in config.toml."
            )
        )
    bad = bad_datacast_key(section, DishSection())
    if bad == "cast.group":
        raise click.UsageError(
            _("--group must be a multicast address and a port, such as 232.20.1.1:7450.")
        )
    if bad == "cast.source":
        raise click.UsageError(
            _("--source must be this node's address on the interface, IPv4 or IPv6 as the group.")
        )
    return section


def _lineup(
    config: Config, paths: DataPaths, ids: Sequence[str]
) -> tuple[Lineup, dict[str, str], Sequence[Sentence]]:
    """What to cast, by the verified catalogue."""
    database = Database(paths.database)
    federation = Federation(
        paths, code=config.division, profile=config.node.profile, clock=NodeClock().now
    )
    try:
        refresh = federation.refresh()
        catalogue = Catalogue(database.connection)
        catalogue.replace_listings(refresh.view.listings.values(), federation.spool.read_blob)
        held = {row.id: row for row in catalogue.states()}
        announcements = [
            Announcement(authority, version, bytes.fromhex(digest))
            for authority, version, digest in federation.announcements()
        ]
        lineup = lineup_of(catalogue, config.division, held, announcements)
        chosen = _choose(lineup, catalogue, ids)
        titles = {}
        for bundle in chosen.bundles:
            summary = catalogue.summary(bundle.id)
            titles[bundle.id] = summary.title if summary is not None else ""
        return chosen, titles, refresh.problems
    finally:
        federation.close()
        database.close()


def _choose(lineup: Lineup, catalogue: Catalogue, ids: Sequence[str]) -> Lineup:
    """These bundles of a lineup; all when none is named."""
    known = {bundle.id for bundle in lineup.bundles}
    for identifier in ids:
        if identifier in known:
            continue
        entry = catalogue.demand(identifier)
        if entry.descriptor.metadata.licence.kind != "open":
            raise never_cast(identifier)
        raise DatacastError(
            "datacast.not-held",
            N_(
                "{id} isn't whole on this node in its newest revision; start the daemon until it has come."
            ),
            fault=Fault.USAGE,
            id=identifier,
        )
    if not lineup.bundles:
        raise DatacastError(
            "datacast.nothing-to-cast",
            N_(
                "Nothing here may be cast: no bundle with an open licence is whole on this node. What was just published is taken in when the daemon runs."
            ),
            fault=Fault.USAGE,
        )
    if not ids:
        return lineup
    return msgspec.structs.replace(
        lineup, bundles=[bundle for bundle in lineup.bundles if bundle.id in set(ids)]
    )


def run_sender(ready: Prepared, show: Show) -> SenderStatus:
    """Send until SIGINT (Ctrl-C) or SIGTERM; returns what was told last.

    Args:
        ready: What to send.
        show: Called every second.

    Raises:
        DatacastError: `datacast.sender-state`.
    """
    last = sender_status(ready.section, CastStatus(), time.time())

    def told(status: CastStatus) -> None:
        nonlocal last
        last = sender_status(ready.section, status, time.time())
        bundles = [
            msgspec.structs.replace(bundle, title=ready.titles.get(bundle.id, ""))
            for bundle in last.bundles
        ]
        last = msgspec.structs.replace(last, bundles=bundles)
        show(last, status.problems)

    trio.run(_run, ready, told)
    return last


async def _run(ready: Prepared, told: Callable[[CastStatus], None]) -> None:
    with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        caster = Caster(ready.order, told)
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(caster.run)
                caster.set_lineup(ready.lineup)
                async for _number in signals:
                    break
                nursery.cancel_scope.cancel()
        finally:
            caster.close()

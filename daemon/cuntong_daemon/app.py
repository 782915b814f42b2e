"""The one place that builds the services, wires them, and states the order of start and stop.

Each service is entered after all that it relies on, so they stop newest first: local socket, links, datacast,
metadata, replicator, centre, the swarm engine, the databases last.
"""

from __future__ import annotations

import sqlite3
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime

import msgspec
import trio

from cuntong_protocol.divisions import Division
from cuntong_protocol.errors import CuntongError
from cuntong_protocol.link.messages import (
    LINK_VERSION,
    Announcement,
    Hello,
    PeerAddress,
    SwarmCertificate,
    SwarmRequest,
    Welcome,
)
from cuntong_protocol.link.messages import Bandwidth as Said
from cuntong_protocol.texts import N_, Sentence, sentence

from . import __version__
from .addresses import parse_address
from .admission import Admissions
from .api import Api
from .bandwidth import Bandwidth
from .catalogue import Catalogue, Database
from .centre import Centre
from .clock import NodeClock
from .config import Config
from .config_bandwidth import BYTES_PER_KBIT
from .control.server import ControlServer
from .datacast.lineup import Lineup, lineup_of
from .datacast.receiver import DatacastReceiver, read_order
from .datacast.sender import DatacastSender, cast_order
from .link.parent import ParentLink
from .link.parts import Parts
from .link.server import ChildServer
from .link.session import LinkSession
from .link.transport import ParentAddress, tls_dialler
from .logs import get_logger
from .media.accounts import Accounts
from .media.importing import Services
from .media.offers import Offers
from .media.receipts import load_identity
from .media.records import MediaRecords
from .media.service import Media
from .metadata import MetadataKeeper
from .neighbours import Neighbours, order_noted
from .paths import DataPaths
from .pki.certificates import KeyFiles, network_digest, own_certificate
from .pki.issued import install_renewal
from .pki.tls import client_context, peer_identity, server_context
from .place import check_place
from .replicator import Replicator
from .said import PersonsLimits
from .services import running
from .store.errors import StoreError, database_error
from .store.library import Library
from .store.store import Store
from .swarm.engine import SwarmEngine
from .trust.federation import Federation
from .trust.floors import Equivocation
from .trust.view import Refresh, View

log = get_logger("app")

GAP_S = 0.01
GAP_LOGGED_S = 0.25
"""The event loop should never be held up so long; whoever does it is a defect."""
MAX_NOTICES = 50
MAX_LOGGED = 20
"""Names of bundles in the log for one change; a new node's whole catalogue is only counted."""


class Node:
    """The wiring: turns what one service learns into what another should do."""

    def __init__(self, config: Config, paths: DataPaths) -> None:
        self.config = config
        self.paths = paths
        self.code = config.division
        self.clock = NodeClock()
        self.started_at = time.monotonic()
        self.software = f"cuntong {__version__}"
        self.view = View()
        self.database = Database(paths.database)
        self.catalogue = Catalogue(self.database.connection)
        self.federation = Federation(
            paths, code=self.code, profile=config.node.profile, clock=self.clock.now
        )
        self.spool = self.federation.spool
        self._store_database = Database(paths.database)
        self.store = Store(paths, self._store_database.connection)
        self.library = Library(paths)
        self.engine = SwarmEngine(
            paths,
            listen=config.network.swarm,
            networks=config.network.ranges,
            down_bytes_s=config.bandwidth.down_kbit_s * BYTES_PER_KBIT,
            up_bytes_s=config.bandwidth.up_kbit_s * BYTES_PER_KBIT,
            tier=self.code.tier,
            is_shared=config.bandwidth.shared,
            link_down_bytes_s=config.bandwidth.link_down_kbit_s * BYTES_PER_KBIT,
        )
        self.neighbours = Neighbours(
            self.code,
            vpn_shape=config.node.vpn_shape,
            clock=self.clock,
            spool=self.spool,
            swarm_ports=lambda: (self.engine.address[1], self.engine.closed_address[1]),
        )
        self.keeper = MetadataKeeper(
            self.federation, self.spool, self._on_refresh, self.neighbours.sessions
        )
        self.centre = Centre(paths, self.clock, self.keeper.look)
        self.admissions = Admissions(
            paths,
            self.code,
            clock=self.clock,
            neighbours=self.neighbours,
            on_change=lambda publisher: self.replicator.admitted(publisher),
        )
        self.replicator = Replicator(
            config,
            clock=self.clock,
            database=self.database,
            catalogue=self.catalogue,
            store=self.store,
            library=self.library,
            engine=self.engine,
            neighbours=self.neighbours,
            admissions=self.admissions,
            on_held=self._on_held,
        )
        self.sender = self._make_sender()
        self.receiver = self._make_receiver()
        self.bandwidth = Bandwidth(
            config,
            clock=self.clock,
            engine=self.engine,
            neighbours=self.neighbours,
            person=PersonsLimits(paths, config.bandwidth.zone),
        )
        self.problems: Callable[[], list[Sentence]] = list
        self.media = self._make_media()
        self.tls_contexts: list[ssl.SSLContext] = []
        self.certificate_ends: datetime | None = None
        self.parent_link: ParentLink | None = None
        self.child_server: ChildServer | None = None
        self._jobs: trio.Nursery | None = None
        self._reported: set[Equivocation] = set()

    def _make_sender(self) -> DatacastSender | None:
        section = self.config.cast
        if not section.interface:
            return None
        return DatacastSender(cast_order(self.paths, self.code, section), self._lineup)

    def _make_receiver(self) -> DatacastReceiver | None:
        section = self.config.dish
        if not section.interface:
            return None
        return DatacastReceiver(
            read_order(self.paths, section),
            self.paths,
            self.code,
            spool=self.spool,
            engine=self.engine,
            replicator=self.replicator,
            look=self.keeper.look,
            has_parents=bool(self.config.network.parents),
        )

    def _make_media(self) -> Media:
        identity = load_identity(self.code, self.paths.keys)
        records = MediaRecords(self.database.connection)
        receiver = self.receiver
        services = Services(
            self.paths,
            identity,
            network_digest(self.federation.nation_root_sha256, identity.anchor),
            self,
            self.database,
            records,
            self.keeper,
            self.neighbours,
            self.replicator,
            self.store,
            self.engine,
            Offers(self.paths, self.database, records, self.replicator),
            self.catalogue,
        )
        accounts = Accounts(
            self.config,
            services,
            clock=self.clock,
            satellite_bytes=lambda: 0 if receiver is None else receiver.bytes_done,
            problems=lambda: self.problems(),
            record=self.record,
        )
        return Media(self.config, services, accounts, record=self.record)

    def _on_held(self) -> None:
        self._look_at_lineup()
        self.media.look()

    def _look_at_lineup(self) -> None:
        if self.sender is not None:
            self.sender.look()

    async def _lineup(self) -> Lineup:
        announcements = await self.keeper.announcements()
        return await self.database.call(
            lineup_of, self.catalogue, self.code, self.replicator.rows, announcements
        )

    def close(self) -> None:
        """Close the databases; last of all."""
        self.federation.close()
        self._store_database.close()
        self.database.close()

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Room for small jobs that news starts, and the watch over the event loop."""
        async with trio.open_nursery() as nursery:
            self._jobs = nursery
            nursery.start_soon(self._watch_gaps)
            task_status.started()
            await trio.sleep_forever()

    async def _watch_gaps(self) -> None:
        while True:
            before = trio.current_time()
            await trio.sleep(GAP_S * 100)
            gap = trio.current_time() - before - GAP_S * 100
            if gap > GAP_LOGGED_S:
                log.warning("app.loop-gap", seconds=round(gap, 3))

    # News of the trust layer.

    async def _on_refresh(self, refresh: Refresh, has_blobs: bool) -> None:
        self.view = refresh.view
        self.clock.prove(refresh.view.proven_time)
        await self.database.call(self._replace_listings, refresh.view)
        announcements = await self.keeper.announcements()
        self.neighbours.set_view(refresh.view, announcements, has_blobs=has_blobs)
        self.admissions.set_view(refresh.view)
        self.replicator.set_view(refresh.view)
        if self.receiver is not None:
            self.receiver.set_view(refresh.view)
        self.media.look()
        self._look_at_lineup()
        self._report_equivocations()

    def _replace_listings(self, view: View) -> None:
        changes = self.catalogue.replace_listings(view.listings.values(), self.spool.read_blob)
        for event, identifiers in (
            ("catalogue.added", changes.added),
            ("catalogue.changed", changes.changed),
        ):
            for identifier in identifiers[:MAX_LOGGED]:
                log.info(event, id=identifier)
            if len(identifiers) > MAX_LOGGED:
                log.info(event, more=len(identifiers) - MAX_LOGGED)

    def _report_equivocations(self) -> None:
        parent = self.neighbours.parent
        if parent is None:
            return
        for evidence in self.view.equivocations:
            if evidence not in self._reported:
                self._reported.add(evidence)
                parent.report("equivocation", msgspec.json.encode(evidence, enc_hook=str))

    # The listener of the neighbours.

    def on_parent(self, session: LinkSession) -> None:
        if session.welcome is not None:
            self.federation.confirm_clock(datetime.fromtimestamp(session.welcome.time, UTC))
        self.replicator.report_all()
        self.bandwidth.on_parent(session)
        self.admissions.on_parent()
        self._report_equivocations()
        self.start(self.pass_orders_on)

    async def pass_orders_on(self) -> None:
        """Tell the parent what was ordered here and hasn't come yet."""
        session = self.neighbours.parent
        if session is None:
            return
        for identifier in await self.database.call(self.catalogue.orders):
            if identifier not in self.replicator.rows and session.is_open:
                try:
                    await session.order(identifier)
                except CuntongError as error:
                    log.info("order.not-passed-on", id=identifier, code=error.code)

    def on_child(self, session: LinkSession) -> None:
        self.bandwidth.on_child(session)
        self.start(self.centre.deliver_certificate, session)

    def on_admission(self, peer: LinkSession, message: SwarmRequest | SwarmCertificate) -> None:
        self.admissions.handle(peer, message)

    def on_bandwidth(self, peer: LinkSession, message: Said) -> None:
        self.bandwidth.on_said(peer, message)

    def on_introduced(self, infohash: bytes, peers: Sequence[PeerAddress]) -> None:
        self.replicator.introduced(infohash, peers)

    def on_child_haves(self) -> None:
        self.replicator.on_child_haves()

    async def on_child_order(self, child: Division, bundle: str) -> Sentence:
        if await self.database.call(self.catalogue.bundle, bundle) is None:
            return sentence("order.unknown", N_("{id} isn't in the parent's catalogue."), id=bundle)
        self.replicator.demand(bundle)
        await self.record("order", _ordered(child, bundle))
        return order_noted()

    def on_notice(self, sender: Division, text: Sentence) -> None:
        self.start(self.record, "notice", text)

    def on_certificate(self, chain: str) -> None:
        self.start(self._install_certificate, chain)

    async def _install_certificate(self, chain: str) -> None:
        try:
            is_new = await trio.to_thread.run_sync(install_renewal, self.paths.keys, chain.encode())
        except (CuntongError, OSError) as error:
            log.warning("app.certificate-refused", text=str(error))
            return
        if is_new:
            await trio.to_thread.run_sync(self._load_certificates)
            await self.record(
                "certificate",
                sentence(
                    "app.certificate-renewed",
                    N_("The parent renewed this node's certificate."),
                ),
            )

    def _load_certificates(self) -> None:
        """Show the new certificate on every connection from now on."""
        files = KeyFiles(self.paths.keys)
        for context in self.tls_contexts:
            context.load_cert_chain(files.chain, files.key)
        self.certificate_ends = own_certificate(files).not_valid_after_utc

    def on_report(self, child: Division, kind: str, body: bytes) -> None:
        text = sentence(
            "app.report",
            N_("{child} reports: {kind}. Look into the log and ask there."),
            child=child,
            kind=kind,
        )
        log.warning("app.report", child=child, kind=kind, body=body[:2000].hex())
        self.start(self.record, "report", text)

    async def record(self, kind: str, text: Sentence) -> None:
        """Remember something that happened here for the operator; what can't be written is in the log."""
        try:
            await self.database.call(self.catalogue.record_event, kind, text, self.clock.now())
        except StoreError as error:
            log.warning("app.not-recorded", kind=kind, text=str(text), code=error.code)

    def start(self, job: Callable[..., Awaitable[None]], *arguments: object) -> None:
        """Run a small job until the node stops. What it raises takes the node down."""
        if self._jobs is not None:
            self._jobs.start_soon(job, *arguments)

    # What each side says first.

    def hello(self) -> Hello:
        return Hello(
            LINK_VERSION,
            self.code,
            self.software,
            self.code.tier.label,
            self.engine.address[1],
            self.engine.closed_address[1],
        )

    def welcome(self) -> Welcome:
        return Welcome(
            LINK_VERSION,
            self.code,
            int(self.clock.now().timestamp()),
            self.engine.address[1],
            max(0, int(self.view.proven_time.timestamp())),
            self.engine.closed_address[1],
        )

    def announcements(self) -> Sequence[Announcement]:
        return self.neighbours.announcements()


@asynccontextmanager
async def node_running(config: Config, paths: DataPaths) -> AsyncIterator[Node]:
    """Run a whole node inside the block.

    Raises:
        CuntongError: it can't start, in words; or a service failed.
    """
    await trio.to_thread.run_sync(check_place, config, paths)
    try:
        node = Node(config, paths)
    except sqlite3.Error as error:
        raise database_error(error, str(paths.database)) from error
    try:
        dial_context = await trio.to_thread.run_sync(client_context, paths.keys)
        listen_context = await trio.to_thread.run_sync(server_context, paths.keys)
        node.tls_contexts += [dial_context, listen_context]
        node.certificate_ends = own_certificate(KeyFiles(paths.keys)).not_valid_after_utc
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(running(node))
            await stack.enter_async_context(running(node.engine))
            await stack.enter_async_context(running(node.centre))
            parts = Parts(paths.spool)
            if config.network.listen:
                host, port = parse_address(config.network.listen)
                node.child_server = ChildServer(
                    host,
                    port,
                    context=listen_context,
                    identify=peer_identity,
                    delegate=node.neighbours,
                    welcome=node.welcome,
                    parts=parts,
                )
            node.parent_link = ParentLink(
                [
                    ParentAddress(Division(parent.code), *parse_address(parent.address))
                    for parent in config.network.parents
                ],
                dial=tls_dialler(
                    dial_context,
                    peer_identity,
                    local_host=parse_address(config.network.swarm)[0],
                ),
                delegate=node.neighbours,
                hello=node.hello,
                parts=parts,
            )
            node.neighbours.attach(keeper=node.keeper, listener=node, server=node.child_server)
            await stack.enter_async_context(running(node.bandwidth))
            await stack.enter_async_context(running(node.admissions))
            await stack.enter_async_context(running(node.replicator))
            await stack.enter_async_context(running(node.keeper))
            await stack.enter_async_context(running(node.media))
            if node.receiver is not None:
                await stack.enter_async_context(running(node.receiver))
            if node.sender is not None:
                await stack.enter_async_context(running(node.sender))
            if node.child_server is not None:
                await stack.enter_async_context(running(node.child_server))
            await stack.enter_async_context(running(node.parent_link))
            api = Api(node)
            node.problems = api.problems
            await stack.enter_async_context(
                running(ControlServer(paths.socket, api.handlers, api.streams))
            )
            yield node
    finally:
        node.close()


def _ordered(child: Division, bundle: str) -> Sentence:
    return sentence("order.from-below", N_("{child} ordered {id}."), child=child, id=bundle)

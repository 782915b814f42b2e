"""The replicator: makes the store hold what this node wants, and the library show it (DESIGN 5, 7).

It owns what is being brought (`Item`s, in memory) and what is held (rows in the catalogue: a row means
"complete, with this payload"). Everything that changes what should be done sets one event; one task then
compares what is with what should be, and starts and stops work. So it doesn't matter in which order news
comes, or whether some was missed while the daemon was down.

The life of a bundle: wanted -> torrent fetched -> (closed: certificate here) -> files that are here already linked -> downloaded ->
read back -> library folder made -> held. A new revision goes the same way beside the old one, which leaves
when the new one is shown.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import date
from functools import partial
from pathlib import Path
from typing import Literal, TypeVar, TypeVarTuple, Unpack

import trio

from cuntong_protocol.bundle.descriptor import Descriptor
from cuntong_protocol.bundle.errors import BundleError
from cuntong_protocol.bundle.index import INDEX_PATH, Index, decode_index
from cuntong_protocol.bundle.torrent import Torrent
from cuntong_protocol.divisions import Division
from cuntong_protocol.errors import CuntongError
from cuntong_protocol.link.messages import HaveItem, HaveState, PeerAddress
from cuntong_protocol.texts import N_, Sentence, sentence

from .addresses import parse_address
from .admission import Admissions
from .catalogue import BundleState, Catalogue, Database
from .clock import NodeClock
from .config import Config
from .logs import get_logger
from .memory import return_memory
from .neighbours import Neighbours
from .planning import Plan, Planner, Want, end_of_day
from .policy.eviction import Held, evict
from .policy.repair import Source
from .policy.shares import Claim, shares
from .store.errors import StoreError, disk_error
from .store.library import Library
from .store.pieces import PieceSet, present_pieces, sync_pieces
from .store.store import Payload, Store
from .swarm.engine import Credential, SwarmEngine
from .swarm.events import Completed, FileError, SwarmError, TorrentState, Unusable
from .torrents import check_access, fetch_torrent, publisher_of
from .trust.view import View

log = get_logger("replicator")

CASTS_AT_ONCE = 64
"""From the air bundles come at the sender's pace and in its order, so they don't wait for each other."""
DOWNLOADS_AT_ONCE = 4
"""More would only spread a thin link over more unfinished bundles; priorities would mean less."""
RETRY_S = 60.0
"""For what failed on this machine's side: a full disk, a damaged file."""
LOOK_INTERVAL_S = 600.0
"""Licences end at midnight without any news."""
LIBRARY_INTERVAL_S = 10.0
"""Long enough to cost nothing, and no reader takes what doesn't belong there for part of the collection."""
PROGRESS_INTERVAL_S = 1.0
QUIET_S = 10.0
"""After the last download, or the start: then what the work took is given back to the system."""
PROGRESS_STEP_PERMILLE = 100
"""How much more a child must have before it says so: the parent only needs to know that it has some."""
MAX_INTRODUCED = 20_000

POLL_S = 0.02
"""How soon is looked again whether what was cancelled, or goes on elsewhere, has ended."""

Fill = Callable[[Torrent, Path, PieceSet], PieceSet]
"""Given a torrent, the folder of its payload and the pieces that are there, writes others there and returns them; in a
worker thread."""

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

ItemState = Literal["waiting", "downloading", "unpacking", "repairing", "paused", "refused"]


@dataclass(slots=True)
class Item:
    """A bundle that is being brought.

    Attributes:
        want: What, why, and its place in the queue.
        problem: Why it doesn't go on.
        retry_at: Not to be begun before (trio's clock).
        has_news: Something has changed since it was begun last: if that fails, it is tried again at once.
        told: What the parent was told last, in thousandths.
    """

    want: Want
    state: ItemState = "waiting"
    problem: Sentence | None = None
    retry_at: float = 0.0
    has_news: bool = False
    told: int = -1
    scope: trio.CancelScope | None = None

    @property
    def id(self) -> str:
        return self.want.id

    @property
    def infohash(self) -> bytes:
        return self.want.infohash

    def try_again(self) -> None:
        """Something has changed: don't wait any longer, should it be waiting."""
        self.retry_at, self.has_news = 0.0, True

    @property
    def is_started(self) -> bool:
        return self.state in ("downloading", "unpacking", "repairing", "paused")


class Replicator:
    """A service; see the module."""

    def __init__(
        self,
        config: Config,
        *,
        clock: NodeClock,
        database: Database,
        catalogue: Catalogue,
        store: Store,
        library: Library,
        engine: SwarmEngine,
        neighbours: Neighbours,
        admissions: Admissions,
        on_held: Callable[[], object] = lambda: None,
    ) -> None:
        """Prepare.

        Args:
            on_held: Called when `rows` has changed.
        """
        self._on_held = on_held
        self._config = config
        self._clock = clock
        self._database = database
        self._catalogue = catalogue
        self._store = store
        self._library = library
        self._engine = engine
        self._neighbours = neighbours
        self._admissions = admissions
        self._view: View | None = None
        self._rows: dict[str, BundleState] = {}
        self._sizes: dict[bytes, int] = {}
        self._items: dict[str, Item] = {}
        self._planner = Planner(config, catalogue)
        self._plan = Plan()
        self._is_swept = False
        self._demanded: set[str] = set()
        self._introduced: dict[bytes, Sequence[PeerAddress]] = {}
        self._wake = trio.Event()
        self._nursery: trio.Nursery | None = None
        self._comparing = trio.Lock()
        self._supplying = trio.Lock()
        self._disk_turn = trio.CapacityLimiter(1)
        self._unshown: set[str] = set()
        self._cast: frozenset[bytes] = frozenset()
        self._sources: Mapping[bytes, Source] = {}
        self.problem: Sentence | None = None

    # What others see.

    @property
    def plan(self) -> Plan:
        """The latest decisions."""
        return self._plan

    @property
    def items(self) -> Mapping[str, Item]:
        """What is being brought, by bundle id."""
        return self._items

    @property
    def rows(self) -> Mapping[str, BundleState]:
        """What is held, by bundle id."""
        return self._rows

    def size_of(self, infohash: bytes) -> int:
        """Payload bytes of something that is held."""
        return self._sizes.get(infohash, 0)

    # What others tell.

    def demand(self, identifier: str) -> None:
        """A place below needs this bundle, so this node needs it too."""
        self._demanded.add(identifier)
        self.look()

    def look(self) -> None:
        """Something has changed: compare again soon."""
        self._wake.set()

    def set_view(self, view: View) -> None:
        """The verified view has changed; the catalogue's listings have been replaced already."""
        self._view = view
        self._planner.forget()
        self._demanded &= view.listings.keys()
        self.look()

    def introduced(self, infohash: bytes, peers: Sequence[PeerAddress]) -> None:
        """The parent names peers for a bundle."""
        if infohash in self._introduced or len(self._introduced) < MAX_INTRODUCED:
            self._introduced[infohash] = peers
        item = self._item_of(infohash)
        if item is not None and item.state == "waiting":
            item.try_again()  # Whoever is named has its torrent.
        self._connect(infohash)
        self.look()

    def admitted(self, publisher: Division) -> None:
        """The certificate for a publisher's closed swarms has come, or was refused."""
        for item in self._items.values():
            if item.want.is_restricted and publisher_of(item.id) == publisher:
                item.try_again()
        if self._nursery is not None:
            self._nursery.start_soon(self._admit, publisher)
        self.look()

    def set_on_air(self, sources: Mapping[bytes, Source], ready: frozenset[bytes]) -> None:
        """Say what comes by satellite.

        Args:
            sources: Payloads that are on the air, and where each should come from.
            ready: Those of them whose torrents are here.
        """
        before, self._sources = self._sources, sources
        fresh, self._cast = ready - self._cast, ready
        for item in self._items.values():
            source = sources.get(item.infohash)
            if item.infohash in fresh:
                item.try_again()
            if source is not before.get(item.infohash):
                self._engine.hold(item.infohash, is_held=source is Source.AIR)
                item.told = -1
                self._tell_item(item)
                if item.is_started:
                    self._connect(item.infohash)
        if fresh:
            self.look()

    def has_neighbours(self, infohash: bytes) -> bool:
        """Whether places that aren't above this one are known to have a payload, or some of it."""
        return bool(self._peers_of(infohash, Source.NEIGHBOURS))

    def on_child_haves(self) -> None:
        """Children have more, or want more."""
        for item in self._items.values():
            if item.is_started:
                self._connect(item.infohash)
            elif item.state == "waiting" and self._neighbours.holders_below(item.infohash):
                item.try_again()  # Who has some of it has its torrent.
        self.look()

    def report_all(self) -> None:
        """A parent is new: tell it everything."""
        for item in self._items.values():
            item.told = -1
            item.try_again()  # This one may have what the other hadn't.
        items = [HaveItem(row.infohash, HaveState.COMPLETE, 1000) for row in self._rows.values()]
        self._tell(items)
        for item in self._items.values():
            self._tell_item(item)
        self.look()

    # Running.

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Run until cancelled; usable once what an interruption left behind is mended."""
        await self._on_disk(self._library.recover)
        await self._sweep(None)
        await self._read_rows()
        await self.lose_places()
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            nursery.start_soon(self._watch_engine)
            nursery.start_soon(self._watch_progress)
            nursery.start_soon(self._watch_library)
            task_status.started()
            while True:
                with trio.move_on_after(LOOK_INTERVAL_S):
                    await self._wake.wait()
                self._wake = trio.Event()
                if self._view is not None:
                    await self._try_to_reconcile(self._view)

    async def _read_rows(self) -> None:
        self._rows = {row.id: row for row in await self._database.call(self._catalogue.states)}
        payloads = await self._on_disk(self._store.payloads)
        self._sizes = {payload.infohash: payload.size for payload in payloads}
        self._on_held()

    # Comparing.

    def judge(self, identifier: str) -> Sentence:
        """Why a listed bundle is liked here or not. Blocks; runs in the database's thread.

        Raises:
            CatalogueError: `catalogue.unknown-bundle`.
        """
        return self._planner.judge(identifier, self._today(self._view or View()))

    def _today(self, view: View) -> date:
        return max(self._clock.now() if view.is_clock_trusted else view.time, view.time).date()

    async def settle(self) -> None:
        """Compare now; what should be brought is known afterwards."""
        if self._view is None:
            await trio.lowlevel.checkpoint()
        else:
            await self._try_to_reconcile(self._view)

    async def _try_to_reconcile(self, view: View) -> None:
        """A disk that is full or broken is told, and everything is compared again later."""
        try:
            async with self._comparing:
                await self._reconcile(view)
        except (OSError, StoreError) as error:
            self.problem = told(error)
            log.warning("replicator.disk", code=self.problem.code, text=str(self.problem))
            self._look_after(RETRY_S)
        else:
            self.problem = None

    async def _reconcile(self, view: View) -> None:
        """Make what is done fit what should be."""
        below = self._neighbours.wanted_below()
        if below:
            self._demanded |= {
                listing.id
                for listing in view.listings.values()
                if bytes.fromhex(listing.infohash) in below
            }
        for _ in range(2):  # Once more after room was made.
            self._plan = await self._database.call(
                partial(
                    self._planner.plan,
                    demanded=frozenset(self._demanded),
                    held={row.id: row.infohash for row in self._rows.values()},
                    begun=frozenset(item.id for item in self._items.values() if item.is_started),
                    in_place=frozenset(self._store.places()),
                    today=self._today(view),
                )
            )
            self._neighbours.set_closed(self._plan.closed)
            if not await self._remove_what_must_go(view, below):
                break
        for identifier in list(self._items):
            item = self._items[identifier]
            want = self._plan.wants.get(identifier)
            if want is None or want.infohash != item.infohash:
                await self._drop(item, is_replaced=want is not None)
        for want in self._plan.wants.values():
            await self._pursue(want)
        self._start_waiting()
        self._tell_swarms()
        await self._remove_unclaimed(view)

    async def _remove_unclaimed(self, view: View) -> None:
        """Begun payloads that nothing wants any more: withdrawn, or replaced by a later revision.

        As long as that revision hasn't begun, it may still take over what has come.
        """
        if not view.is_complete or not view.authorities:
            return
        if any(authority.state == "unknown" for authority in view.authorities.values()):
            return  # It may list what lies here.
        heirs = {_slug(item.id) for item in self._items.values() if not item.is_started}
        for payload in await self._unclaimed():
            if payload.name not in heirs:
                await self._engine.remove(payload.infohash)
                await self._on_disk(self._store.delete, payload.infohash)
                log.info("store.stray-removed", infohash=payload.infohash.hex())
        if not self._is_swept:
            self._is_swept = True
            wanted = {want.infohash for want in self._plan.wants.values()}
            await self._sweep(wanted)

    async def _sweep(self, wanted: Collection[bytes] | None) -> None:
        for infohash in await self._on_disk(partial(self._store.recover, wanted=wanted)):
            log.info("store.stray-removed", infohash=infohash.hex())

    async def _unclaimed(self) -> list[Payload]:
        payloads = await self._on_disk(self._store.payloads)
        claimed = {row.infohash for row in self._rows.values()}
        claimed |= {item.infohash for item in self._items.values()}
        return [payload for payload in payloads if payload.infohash not in claimed]

    async def _remove_what_must_go(self, view: View, below: Collection[bytes]) -> bool:
        """Take out what may not be held, and what must make room. True when something went."""
        held: list[Held] = []
        for row in self._rows.values():
            is_unlisted = view.is_complete and row.id not in view.listings
            held.append(
                Held(
                    key=row.id,
                    size_bytes=self._sizes.get(row.infohash, 0),
                    is_withdrawn=row.id in view.withdrawn or is_unlisted,
                    licence_until=self._plan.licence_until.get(row.id),
                    # On a medium it takes no room that could be made.
                    is_wanted=row.id in self._plan.wants or self._store.is_in_place(row.infohash),
                    is_needed_below=row.infohash in below,
                    used_at=row.used_at,
                )
            )
        evictions = evict(held, needed_bytes=self._plan.short_bytes, today=self._today(view))
        for identifier, item in list(self._items.items()):
            if identifier in view.withdrawn:
                await self._drop(item)
        for eviction in evictions:
            tombstone = view.withdrawn.get(eviction.key)
            reason = (
                eviction.reason
                if tombstone is None
                else sentence(
                    "replicator.withdrawn",
                    N_("{id} was withdrawn by {authority}: {reason}"),
                    id=tombstone.id,
                    authority=tombstone.by,
                    reason=tombstone.reason,
                )
            )
            if tombstone is None and eviction.key not in view.listings:
                reason = sentence(
                    "replicator.unlisted",
                    N_("{id} isn't listed by any authority any more; it was removed."),
                    id=eviction.key,
                )
            await self._remove(self._rows[eviction.key], reason)
        for identifier in await self._on_disk(self._library.bundles):
            if self._is_stray(identifier):
                await self._on_disk(self._library.remove, identifier)
                await self._note(
                    "removed",
                    sentence(
                        "replicator.stray",
                        N_("{id} lay in the library without being verified; it was removed."),
                        id=identifier,
                    ),
                )
        return bool(evictions)

    def _is_stray(self, identifier: str) -> bool:
        """Whether a folder in the library belongs to nothing that was verified here."""
        item = self._items.get(identifier)
        return identifier not in self._rows and (item is None or item.state != "unpacking")

    async def _remove(self, row: BundleState, reason: Sentence) -> None:
        """Stop seeding, take it out of sight, free the disk; in this order."""
        self._planner.forget()  # There is room now.
        await self._engine.remove(row.infohash)
        await self._on_disk(self._library.remove, row.id)
        await self._on_disk(self._store.delete, row.infohash)
        await self._database.call(self._catalogue.remove_state, row.id)
        self._rows.pop(row.id, None)
        self._sizes.pop(row.infohash, None)
        self._on_held()
        self._tell([HaveItem(row.infohash, HaveState.GONE, 0)])
        await self._note("removed", reason)

    async def _drop(self, item: Item, *, is_replaced: bool = False) -> None:
        """Stop bringing something and forget what came.

        Args:
            is_replaced: What came may be of use for the next revision: it goes when that has begun.
        """
        self._items.pop(item.id, None)
        if item.scope is not None:
            item.scope.cancel()
        await self._engine.remove(item.infohash)
        row = self._rows.get(item.id)
        if row is None or row.infohash != item.infohash:
            if not is_replaced:
                await self._on_disk(self._store.delete, item.infohash)
            self._tell([HaveItem(item.infohash, HaveState.GONE, 0)])

    async def _pursue(self, want: Want) -> None:
        item = self._items.get(want.id)
        if item is not None:
            item.want = want
            return
        row = self._rows.get(want.id)
        if row is not None and row.infohash == want.infohash:
            if self._engine.status(want.infohash) is not None:
                if row.id in self._unshown:
                    await self._show_again(row)
                return
            if await self._on_disk(self._store.is_complete, row.infohash) and await self._seed(
                row, is_restricted=want.is_restricted
            ):
                return
            if self._store.is_in_place(row.infohash):
                await self._give_up_place(row, _unreadable(row.id))
        item = Item(want)
        self._items[want.id] = item
        if self._engine.status(want.infohash) is not None:
            item.state = "repairing"  # The engine has found pieces missing, and fetches them.
        self._tell_item(item)

    async def _seed(self, row: BundleState, *, is_restricted: bool) -> bool:
        """Serve what is held; a library folder that went missing is made again. False: it isn't whole."""
        try:
            torrent = await self._on_disk(self._store.torrent, row.infohash)
            check_access(torrent, is_restricted=is_restricted)
            await self._engine.add(torrent, credential=await self._credential(row.id, torrent))
        except CuntongError as error:
            await self._lose(row, error)
            return False
        status = self._engine.status(row.infohash)
        if status is None or status.state is not TorrentState.COMPLETE:
            return False
        if self._store.is_in_place(row.infohash):
            await self._on_disk(self._library.remove, row.id)
            return True
        shown = await self._on_disk(self._library.revision, row.id)
        if self._config.store.library and shown != row.infohash:
            await self._show_again(row)
        return True

    async def _lose(self, row: BundleState, error: CuntongError) -> None:
        """Its torrent has gone: it is brought again, which costs the torrent if the files are still there."""
        log.warning("replicator.lost", id=row.id, code=error.code, text=str(error))
        await self._database.call(self._catalogue.remove_state, row.id)
        self._rows.pop(row.id, None)

    async def _show_again(self, row: BundleState) -> None:
        want = self._plan.wants.get(row.id)
        if want is None or want.infohash != row.infohash:
            return
        self._unshown.discard(row.id)
        try:
            await self._materialise(row.id, row.infohash)
        except (OSError, CuntongError) as error:
            reason = told(error)
            log.warning("replicator.not-shown", id=row.id, code=reason.code, text=str(reason))
            self._unshown.add(row.id)
            self._look_after(RETRY_S)

    def _start_waiting(self) -> None:
        """Give free places to those first in the queue."""
        now = trio.current_time()
        started = [item for item in self._items.values() if item.is_started]
        cast = sum(item.infohash in self._cast for item in started)
        busy = len(started) - cast
        waiting = [
            item
            for item in self._items.values()
            if item.state == "waiting" and item.scope is None and item.retry_at <= now
        ]
        waiting.sort(key=lambda item: item.want.order)
        assert self._nursery is not None  # noqa: S101 - set by run.
        for item in waiting:
            # One whose torrent nobody has yet takes no place from those behind it.
            if item.infohash in self._cast and cast < CASTS_AT_ONCE:
                cast += 1
            elif busy < DOWNLOADS_AT_ONCE:
                busy += 1
            else:
                continue
            item.scope, item.has_news = trio.CancelScope(), False
            self._nursery.start_soon(self._bring, item, item.scope)

    # Bringing.

    async def _bring(self, item: Item, scope: trio.CancelScope) -> None:
        with scope:
            try:
                try:
                    await self._begin(item)
                except (BundleError, SwarmError) as error:
                    await self._refuse(item, error.sentence)
            except (OSError, CuntongError) as error:
                self._delay(item, told(error))
            finally:
                item.scope = None
        if scope.cancelled_caught and item.state == "unpacking":
            # Whoever would bring it another way came too late.
            assert self._nursery is not None  # noqa: S101 - set by run.
            self._nursery.start_soon(self._finish, item)
        self._tell_swarms()

    async def _begin(self, item: Item) -> None:
        if item.infohash in await self._on_disk(self._store.incoming):
            torrent = await self._on_disk(self._store.take_incoming, item.infohash)
            check_access(torrent, is_restricted=item.want.is_restricted)
            await self._engine.add(
                torrent,
                have=PieceSet.full(torrent.piece_count),
                credential=await self._credential(item.id, torrent),
            )
            item.state = "unpacking"
            await self._finish(item)
            return
        torrent_or_none = await self._torrent_for(item)
        if torrent_or_none is None:
            self._delay(
                item,
                sentence(
                    "replicator.no-torrent",
                    N_("No neighbour has it yet; it begins as soon as one does."),
                ),
            )
            return
        torrent = torrent_or_none
        check_access(torrent, is_restricted=item.want.is_restricted)
        await self._on_disk(self._store.prepare, torrent)
        credential = await self._credential(item.id, torrent)
        if torrent.is_closed and credential is None:
            self._delay(item, self._admissions.problem(publisher_of(item.id)))
            return
        have, has_heritage = await self._reuse(torrent)
        await self._engine.add(
            torrent,
            have=have or None,
            credential=credential,
            peers=self._peers_of(item.infohash, self._sources.get(item.infohash)),
            is_held=self._sources.get(item.infohash) is Source.AIR,
        )
        item.state, item.problem = "downloading", None
        if has_heritage:
            self.look()  # What was begun of earlier revisions can go now.
        if have.is_full:
            # Other bundles have all of its content: the engine has nothing to tell.
            item.state = "unpacking"
            await self._finish(item)
            return
        self._connect(item.infohash)
        self._tell_item(item)

    async def _reuse(self, torrent: Torrent) -> tuple[PieceSet, bool]:
        """Link what is here already. Returns the pieces, and whether earlier revisions had been begun."""
        abandoned = {it.infohash for it in await self._unclaimed() if it.name == torrent.name}
        have = await self._on_disk(partial(self._store.reuse, torrent, abandoned=abandoned))
        return have, bool(abandoned)

    async def _torrent_for(self, item: Item) -> Torrent | None:
        try:
            return await self._on_disk(self._store.torrent, item.infohash)
        except StoreError:
            pass  # The usual case: it isn't here yet.
        return await fetch_torrent(
            self._neighbours.sessions(),
            item.infohash,
            size=item.want.size,
            limit=item.want.torrent_limit,
        )

    async def _credential(self, identifier: str, torrent: Torrent) -> Credential | None:
        """What opens a torrent, when it is a closed one and its certificate is here."""
        if not torrent.is_closed:
            return None
        return await self._admissions.credential(publisher_of(identifier), torrent.root_certificate)

    async def _admit(self, publisher: Division) -> None:
        """Show a new certificate in the swarms that run."""
        running = {item.id: item.infohash for item in self._items.values()}
        for identifier, infohash in [
            *running.items(),
            *((row.id, row.infohash) for row in self._rows.values()),
        ]:
            if infohash not in self._plan.closed or publisher_of(identifier) != publisher:
                continue
            if self._engine.status(infohash) is None:
                continue
            try:
                torrent = await self._on_disk(self._store.torrent, infohash)
            except StoreError:
                continue  # Whoever needs it fetches it again, and asks then.
            credential = await self._credential(identifier, torrent)
            if credential is not None:
                self._engine.admit(infohash, credential)

    async def supply(self, identifier: str, torrent: Torrent, fill: Fill) -> PieceSet | None:
        """Let a medium bring what it has of a bundle that is being brought; `conclude` must follow.

        It waits for no place among the downloads. What is missing afterwards comes as usual.

        Args:
            identifier: Of the bundle; if it isn't being brought (any more), nothing happens.
            torrent: Of the revision that is wanted.
            fill: What the medium has.

        Returns:
            The pieces that are there and durable; None: it isn't being brought.

        Raises:
            OSError, StoreError: it can't be written; it is tried again as usual.
            BundleError, SwarmError: the bundle is refused.
        """
        async with self._supplying:
            return await self._supply(identifier, torrent, fill)

    async def _supply(self, identifier: str, torrent: Torrent, fill: Fill) -> PieceSet | None:
        item = self._items.get(identifier)
        if item is None or item.infohash != torrent.infohash or item.state == "refused":
            return None

        def work(torrent: Torrent, have: PieceSet) -> PieceSet:
            folder = self._store.folder(torrent)
            pieces = fill(torrent, folder, have)
            if pieces:
                sync_pieces(torrent, folder, pieces)
            return pieces

        while item.scope is not None:  # It is just being begun.
            item.scope.cancel()
            await trio.sleep(POLL_S)
        if self._engine.status(item.infohash) is None:
            return await self._begin_with(item, torrent, work)
        scope = item.scope = trio.CancelScope()
        try:
            with scope:
                await self._engine.fill(item.infohash, work)
        finally:
            item.scope = None
        return None if scope.cancelled_caught else self._engine.durable(item.infohash)

    async def _begin_with(
        self, item: Item, torrent: Torrent, work: Callable[[Torrent, PieceSet], PieceSet]
    ) -> PieceSet | None:
        scope = item.scope = trio.CancelScope()
        item.retry_at = 0.0  # Its torrent is here: if this is stopped, it goes on as usual.
        try:
            with scope:
                check_access(torrent, is_restricted=item.want.is_restricted)
                await self._on_disk(self._store.prepare, torrent)
                have, has_heritage = await self._reuse(torrent)
                folder = self._store.folder(torrent)
                have = await self._on_disk(
                    partial(
                        present_pieces,
                        torrent,
                        folder,
                        believed=have,
                        checkpoint=trio.from_thread.check_cancelled,
                    )
                )
                await self._on_disk(sync_pieces, torrent, folder, have)
                have |= await trio.to_thread.run_sync(work, torrent, have)
                if has_heritage:
                    self.look()
                if not have.is_full and self._are_slots_taken():
                    # The rest takes its turn with the others.
                    await self._on_disk(self._engine.note_pieces, torrent, have)
                    self.look()
                    return have
                # A closed torrent without a certificate meets nobody, but may be shown.
                await self._engine.add(
                    torrent,
                    have=have or None,
                    credential=await self._credential(item.id, torrent),
                    peers=self._peers_of(item.infohash, self._sources.get(item.infohash)),
                    is_held=self._sources.get(item.infohash) is Source.AIR,
                )
                item.state, item.problem = "downloading", None
                self._connect(item.infohash)
                self._tell_item(item)
                return have
        except (BundleError, SwarmError) as error:
            await self._refuse(item, error.sentence)
            raise
        except (OSError, StoreError) as error:
            self._delay(item, told(error))
            raise
        finally:
            item.scope = None
            self.look()
        if torrent.infohash not in {
            it.infohash for it in await self._on_disk(self._store.payloads)
        }:
            # It was withdrawn, and deleted while the medium still wrote.
            await self._on_disk(self._store.delete, torrent.infohash)
        return None

    def _are_slots_taken(self) -> bool:
        started = [item for item in self._items.values() if item.is_started]
        return len(started) >= DOWNLOADS_AT_ONCE

    async def conclude(self, identifier: str) -> None:
        """Read back and show what `supply` has brought to its end.

        Raises:
            OSError, StoreError: it can't be written; it is tried again by itself.
        """
        item = self._items.get(identifier)
        if item is None or item.state not in ("downloading", "repairing"):
            while item is not None and item.state == "unpacking" and item.problem is None:
                await trio.sleep(POLL_S)  # The engine has found it complete by itself.
                item = self._items.get(identifier)
            await trio.lowlevel.checkpoint()
            return
        assert self._nursery is not None  # noqa: S101 - set by run.
        item.state = "unpacking"
        try:
            await self._try_to_finish(item)
        except (OSError, StoreError) as error:
            item.problem = told(error)
            self._nursery.start_soon(self._finish_later, item)
            raise
        except trio.Cancelled:
            # Whoever brought it doesn't wait for it any more.
            self._nursery.start_soon(self._finish, item)
            raise

    async def hold_in_place(self, identifier: str, torrent: Torrent, place: Path) -> bool:
        """Hold a bundle that is being brought where it lies on a medium (SPEC 12.5).

        Args:
            identifier: Of the bundle.
            torrent: Of the revision that is wanted.
            place: The folder that holds the folder with the torrent's name.

        Returns:
            False: it isn't being brought, or not whole there; nothing has changed.

        Raises:
            OSError, StoreError: it can't be noted.
        """
        item = self._items.get(identifier)
        if item is None or not self._may_be_in_place(item, torrent):
            return False
        check_access(torrent, is_restricted=item.want.is_restricted)
        bad = await self._on_disk(
            partial(
                self._store.inspect_place,
                torrent,
                place,
                checkpoint=trio.from_thread.check_cancelled,
            )
        )
        if bad:
            return False
        # Neither a look nor an eject may come in between, or half of it would stay.
        async with self._comparing:
            while item.scope is not None:  # It is just being begun.
                item.scope.cancel()
                await trio.sleep(POLL_S)
            if not self._may_be_in_place(item, torrent):
                return False
            with trio.CancelScope(shield=True):
                return await self._hold_at(item, torrent, place)
        return False

    def _may_be_in_place(self, item: Item, torrent: Torrent) -> bool:
        """Whether it is still being brought, and nothing of it is shown or about to be."""
        row = self._rows.get(item.id)
        return (
            self._items.get(item.id) is item
            and item.infohash == torrent.infohash
            and item.state in ("waiting", "downloading")
            and (row is None or row.infohash != item.infohash)
        )

    async def _hold_at(self, item: Item, torrent: Torrent, place: Path) -> bool:
        credential = await self._credential(item.id, torrent)
        await self._engine.remove(item.infohash)
        try:
            await self._on_disk(self._store.hold_in_place, torrent, place)
            full = PieceSet.full(torrent.piece_count)
            await self._engine.add(torrent, have=full, credential=credential)
        except (OSError, CuntongError) as error:
            self._delay(item, told(error))
            raise
        status = self._engine.status(item.infohash)
        if status is None or status.state is not TorrentState.COMPLETE:
            # It has gone again, or is being changed. The link goes as soon as it is begun.
            await self._engine.remove(item.infohash)
            self._delay(item, _unreadable(item.id))
            return False
        self._planner.forget()
        await self._hold(item)
        await self._on_disk(self._library.remove, item.id)  # An earlier revision.
        return True

    async def lose_places(self, below: Path | None = None) -> int:
        """Give up what was held on media that have gone, or on those below a folder; it is wanted again.

        Returns:
            How many bundles.

        Raises:
            StoreError: it can't be noted.
        """
        async with self._comparing:
            lost = set(await self._on_disk(partial(self._store.places_lost, below)))
            rows = [row for row in self._rows.values() if row.infohash in lost]
            for row in rows:
                gone = sentence(
                    "replicator.medium-gone",
                    N_("{id} lay on a medium that isn't there any more; it is wanted again."),
                    id=row.id,
                )
                await self._give_up_place(row, gone)
            for infohash in lost - {row.infohash for row in rows}:
                await self._on_disk(self._store.delete, infohash)  # A crash has left it.
            return len(rows)

    async def _lose_unreadable(self, infohash: bytes) -> None:
        """Give up what lies on a medium and can't be read there, or isn't right; it is wanted again."""
        try:
            await self.lose_places()  # Perhaps all of it has gone.
            async with self._comparing:
                for row in list(self._rows.values()):
                    if row.infohash == infohash and self._store.is_in_place(infohash):
                        await self._give_up_place(row, _unreadable(row.id))
        except (OSError, StoreError) as error:
            self.problem = told(error)
            log.warning("replicator.disk", code=self.problem.code, text=str(self.problem))

    async def _give_up_place(self, row: BundleState, why: Sentence) -> None:
        """Hold something no longer on a medium. What must be known first: that it isn't here any more."""
        await self._engine.remove(row.infohash)
        await self._database.call(self._catalogue.remove_state, row.id)
        self._rows.pop(row.id, None)
        self._sizes.pop(row.infohash, None)
        await self._on_disk(self._store.delete, row.infohash)
        self._tell([HaveItem(row.infohash, HaveState.GONE, 0)])
        await self._note("medium", why)
        self._planner.forget()
        self._on_held()
        self.look()

    def _delay(self, item: Item, problem: Sentence) -> None:
        item.state, item.problem = "waiting", problem
        delay_s = 0.0 if item.has_news else RETRY_S
        item.retry_at = trio.current_time() + delay_s
        self._look_after(delay_s)

    def _look_after(self, seconds: float) -> None:
        assert self._nursery is not None  # noqa: S101 - set by run.
        self._nursery.start_soon(self._look_later, seconds)

    async def _look_later(self, seconds: float) -> None:
        await trio.sleep(seconds)
        self.look()

    async def _refuse(self, item: Item, problem: Sentence) -> None:
        """What was signed can't be used; it isn't shown and not tried again until it changes."""
        item.state, item.problem = "refused", problem
        await self._engine.remove(item.infohash)
        await self._on_disk(self._store.delete, item.infohash)
        await self._note(
            "refused",
            sentence(
                "replicator.refused",
                N_("{id} can't be used: {reason}"),
                id=item.id,
                reason=str(problem),
            ),
        )

    async def _watch_engine(self) -> None:
        assert self._nursery is not None  # noqa: S101 - set by run.
        while True:
            event = await self._engine.wait_event()
            item = self._item_of(event.infohash)
            if isinstance(event, Completed):
                if item is not None and item.state != "refused":
                    item.state = "unpacking"
                    self._nursery.start_soon(self._finish, item)
            elif isinstance(event, Unusable):
                if item is not None and item.state != "refused":
                    item.state = "refused"
                    self._nursery.start_soon(self._refuse, item, event.problem)
            elif isinstance(event, FileError):
                await self._note("disk", event.problem)
                if item is not None:
                    item.problem = event.problem
                elif self._store.is_in_place(event.infohash):
                    self._nursery.start_soon(self._lose_unreadable, event.infohash)

    def _item_of(self, infohash: bytes) -> Item | None:
        return next((item for item in self._items.values() if item.infohash == infohash), None)

    async def _finish_later(self, item: Item) -> None:
        await trio.sleep(RETRY_S)
        await self._finish(item)

    async def _finish(self, item: Item) -> None:
        """All pieces are here: read them back, show the files, let the old revision go."""
        while self._items.get(item.id) is item and item.state != "refused":
            try:
                await self._try_to_finish(item)
            except (OSError, StoreError) as error:
                item.problem = told(error)
            else:
                return
            await trio.sleep(RETRY_S)

    async def _try_to_finish(self, item: Item) -> None:
        try:
            bad = await self._on_disk(self._store.complete, item.infohash)
            if bad:
                await self._repair(item, bad)
                return
            if self._config.store.library:
                await self._materialise(item.id, item.infohash, is_verified=True)
        except StoreError as error:
            if error.code != "library.damaged":
                raise
            bad = await self._on_disk(self._store.verify, item.infohash)
            if bad:
                await self._repair(item, bad)
                return
            await self._refuse(item, error.sentence)
            return
        except BundleError as error:
            await self._refuse(item, error.sentence)
            return
        if self._items.get(item.id) is not item:
            self.look()  # Withdrawn or replaced meanwhile: what was just made must go.
            return
        await self._hold(item)

    async def _hold(self, item: Item) -> None:
        previous = self._rows.get(item.id)
        await self._database.call(
            lambda: self._catalogue.set_state(
                item.id,
                revision=item.want.revision,
                infohash=item.infohash,
                state="complete",
                at=self._clock.now(),
                reason=item.want.reason,
            )
        )
        await self._read_rows()
        was_repair = item.state == "repairing" or (
            previous is not None and previous.infohash == item.infohash
        )
        self._items.pop(item.id, None)
        self._tell([HaveItem(item.infohash, HaveState.COMPLETE, 1000)])
        if previous is not None and previous.infohash != item.infohash:
            await self._engine.remove(previous.infohash)
            await self._on_disk(partial(self._store.delete, previous.infohash, is_replaced=True))
            self._tell([HaveItem(previous.infohash, HaveState.GONE, 0)])
        if was_repair:
            text = sentence(
                "replicator.repaired", N_("{id} was repaired; it is whole again."), id=item.id
            )
        else:
            text = sentence(
                "replicator.complete",
                N_("{id} is complete: {title}"),
                id=item.id,
                title=item.want.title,
            )
        await self._note("repaired" if was_repair else "complete", text)
        self.look()

    async def _materialise(
        self, identifier: str, infohash: bytes, *, is_verified: bool = False
    ) -> None:
        entry = await self._database.call(self._catalogue.bundle, identifier)
        if entry is None or entry.descriptor.infohash != infohash:
            return  # Another revision is listed by now; this one isn't shown any more.
        index = await self._on_disk(self._read_index, entry.descriptor)
        await self._on_disk(
            partial(self._library.materialise, identifier, infohash, index, is_verified=is_verified)
        )

    def _read_index(self, descriptor: Descriptor) -> Index:
        torrent = self._store.torrent(descriptor.infohash)
        data = (self._store.folder(torrent) / INDEX_PATH).read_bytes()
        return decode_index(
            data, content_size=descriptor.content_size, file_count=descriptor.file_count
        )

    # Verifying.

    async def verify(self, identifier: str, progress: Callable[[int], None]) -> tuple[int, int]:
        """Read a held bundle again, payload and library; what is bad is fetched or made anew.

        Args:
            progress: Called in a worker thread with the bytes read so far, roughly.

        Returns:
            Bad pieces, and files of the library that were made again.
        """
        row = self._rows[identifier]
        try:
            torrent = await self._on_disk(self._store.torrent, row.infohash)
        except StoreError as error:
            await self._engine.remove(row.infohash)
            await self._lose(row, error)
            self.look()
            raise
        read = 0

        def checkpoint() -> None:
            nonlocal read
            read += torrent.piece_length
            progress(read)

        bad = await trio.to_thread.run_sync(
            lambda: self._store.verify(row.infohash, checkpoint=checkpoint),
            limiter=self._disk_turn,
        )
        entry = await self._database.call(self._catalogue.bundle, identifier)
        is_listed = entry is not None and entry.descriptor.infohash == row.infohash
        wrong: list[str] = []
        if bad and self._store.is_in_place(row.infohash):
            await self._lose_unreadable(row.infohash)
        elif bad:
            damage = sentence(
                "replicator.damaged",
                N_("{id} has {count} damaged pieces; they are fetched again."),
                id=identifier,
                count=len(bad),
            )
            await self._note("damage", damage)
            item = Item(
                Want(
                    identifier,
                    row.revision,
                    row.infohash,
                    entry.descriptor.metadata.title if entry is not None else identifier,
                    torrent.payload_size,
                    torrent_limit=0,  # It is here.
                    is_restricted=torrent.is_closed,
                    reason=row.reason or damage,
                )
            )
            self._items[identifier] = item
            await self._repair(item, bad)
        elif self._config.store.library and is_listed and not self._store.is_in_place(row.infohash):
            assert entry is not None  # noqa: S101 - is_listed says so.
            index = await self._on_disk(self._read_index, entry.descriptor)
            wrong = await self._on_disk(self._library.check, identifier, index)
            if wrong:
                await self._materialise(identifier, row.infohash)
                await self._note(
                    "repaired",
                    sentence(
                        "replicator.library-repaired",
                        N_("{count} damaged files of {id} in the library were made again."),
                        count=len(wrong),
                        id=identifier,
                    ),
                )
        return len(bad), len(wrong)

    async def _repair(self, item: Item, bad: PieceSet) -> None:
        item.state = "repairing"
        if self._engine.status(item.infohash) is None:
            torrent = await self._on_disk(self._store.torrent, item.infohash)
            await self._engine.add(torrent, credential=await self._credential(item.id, torrent))
        await self._engine.repair(item.infohash, bad)
        item.told = -1
        self._tell_item(item)
        self._connect(item.infohash)

    # Telling.

    def _peers_of(self, infohash: bytes, source: Source | None) -> list[tuple[str, int]]:
        if source is Source.AIR:
            return []
        peers = [*self._introduced.get(infohash, ()), *self._neighbours.holders_below(infohash)]
        if source is Source.NEIGHBOURS:
            above = {parse_address(it.address)[0] for it in self._config.network.parents}
            peers = [peer for peer in peers if peer.ip not in above]
        return [(peer.ip, peer.port) for peer in peers]

    def _connect(self, infohash: bytes) -> None:
        peers = self._peers_of(infohash, self._sources.get(infohash))
        if peers:
            self._engine.connect_peers(infohash, peers)

    def _tell(self, items: Sequence[HaveItem]) -> None:
        parent = self._neighbours.parent
        if parent is not None:
            parent.report_status(items)

    def _tell_item(self, item: Item) -> None:
        if self._sources.get(item.infohash) is Source.AIR:
            return  # Nobody is to be introduced.
        status = self._engine.status(item.infohash)
        permille = 0 if status is None else min(999, int(status.progress * 1000))
        step = permille // PROGRESS_STEP_PERMILLE
        if step == item.told:
            return
        item.told = step
        state = HaveState.PARTIAL if item.is_started and permille else HaveState.WANTED
        self._tell([HaveItem(item.infohash, state, permille)])

    def _tell_swarms(self) -> None:
        self._neighbours.set_swarms(
            {infohash: status.progress for infohash, status in self._engine.statuses().items()}
        )

    async def _watch_progress(self) -> None:
        quiet_s = 0.0
        while True:
            await trio.sleep(PROGRESS_INTERVAL_S)
            started = [item for item in self._items.values() if item.is_started]
            for item in started:
                self._tell_item(item)
            if started:
                quiet_s = 0.0
                self._tell_swarms()
                self._share_out(started)
            elif quiet_s < QUIET_S:
                quiet_s += PROGRESS_INTERVAL_S
                if quiet_s >= QUIET_S:
                    await trio.to_thread.run_sync(return_memory)

    def _share_out(self, started: Collection[Item]) -> None:
        """Of a link that is too thin for all, the urgent ones get more (SPEC 10.6)."""
        statuses = {item.id: self._engine.status(item.infohash) for item in started}
        claims = [
            Claim(
                item.id,
                item.want.priority,
                max(0, status.bytes_total - status.bytes_done),
                None if item.want.deadline is None else end_of_day(item.want.deadline),
            )
            for item in started
            if (status := statuses[item.id]) is not None
        ]
        infohashes = {item.id: item.infohash for item in started}
        parts = shares(claims, now=self._clock.now(), link_bytes_s=self._engine.link_down_bytes_s)
        self._engine.set_shares({infohashes[share.id]: share.part for share in parts})

    async def _watch_library(self) -> None:
        """What somebody else puts there isn't shown for long."""
        while True:
            await trio.sleep(LIBRARY_INTERVAL_S)
            with suppress(OSError):  # A folder that is just being removed.
                found = await trio.to_thread.run_sync(self._library.bundles)
                if any(self._is_stray(identifier) for identifier in found):
                    self.look()

    async def _note(self, kind: str, text: Sentence) -> None:
        log.info("replicator.event", kind=kind, code=text.code, text=str(text))
        try:
            await self._database.call(self._catalogue.record_event, kind, text, self._clock.now())
        except StoreError as error:
            log.warning("replicator.not-recorded", code=error.code)

    async def _on_disk(self, function: Callable[[Unpack[Ts]], T], *arguments: *Ts) -> T:
        """Run something that reads or writes much, one at a time: village disks turn slowly."""
        return await trio.to_thread.run_sync(function, *arguments, limiter=self._disk_turn)


def told(error: OSError | CuntongError) -> Sentence:
    """What to tell of an error of the disk."""
    return error.sentence if isinstance(error, CuntongError) else disk_error(error).sentence


def _unreadable(identifier: str) -> Sentence:
    return sentence(
        "replicator.medium-unreadable",
        N_(
            "{id} is damaged or can't be read on the medium that it lies on; it is wanted again, and nothing on the medium is changed."
        ),
        id=identifier,
    )


def _slug(identifier: str) -> str:
    """What a payload of this bundle is called."""
    return identifier.rpartition("/")[2]

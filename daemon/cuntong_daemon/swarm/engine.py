"""The swarm engine: the one owner of the libtorrent session (SPEC 7).

How it keeps its promises:

- libtorrent's pread storage keeps received blocks in memory until it is asked to flush. So the engine asks after
  every few pieces: what a `kill -9` costs is what arrived since, and the pieces that were half received.
- Every `RESUME_INTERVAL_S` what is new is read back, fsynced and written down (`disk.py`): only that is believed
  at the next start. Anything else on the disk is hashed before libtorrent hears of it; libtorrent itself never
  checks files. A payload is complete when all of it has gone this way.
- A torrent whose disk fails leaves the session at once, with a sentence, and is tried again by itself.
"""

from __future__ import annotations

import errno
import ipaddress
import math
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeVar

import libtorrent as lt
import trio

from cuntong_daemon.paths import DataPaths
from cuntong_daemon.store.errors import StoreError, disk_error
from cuntong_daemon.store.pieces import PieceSet, bytes_of
from cuntong_daemon.store.torrents import load_torrent, torrent_path
from cuntong_protocol.bundle.torrent import Torrent
from cuntong_protocol.divisions import Tier
from cuntong_protocol.errors import Fault
from cuntong_protocol.texts import N_, Sentence, sentence

from . import alerts as al
from .accounting import Accounting
from .disk import Inspected, check_disk, inspect, make_durable
from .events import (
    Completed,
    Event,
    EventBox,
    FileError,
    HashFailed,
    SwarmError,
    TorrentState,
    TorrentStatus,
    Totals,
    Unusable,
)
from .peer_limits import PeerLimits
from .relay import INSIDE, Order, Relay, RelayStatus
from .resume import VERSION, Resume, resume_path, write_resume
from .session import Session, open_session
from .settings import IPNetwork, closed_port, is_shared_link, limit_settings

TICK_S = 1.0
RESUME_INTERVAL_S = 15.0
"""What a power cut can cost is what arrived in this time, plus half-received pieces."""
FLUSH_DELAY_S = 0.1
FLUSH_PART = 64
"""Flush after 1/64 of a payload, or after `FLUSH_MAX_BYTES`, if that comes before `FLUSH_DELAY_S`."""
FLUSH_MAX_BYTES = 4 * 1024 * 1024
RETRY_FIRST_S = 5.0
RETRY_MAX_S = 300.0
LONELY_S = 60.0
"""A torrent that refused pieces and then lost all its peers may have banned a parent that has mended its disk
since: after this time it starts afresh."""
MAX_PEERS_PER_TORRENT = 64
"""Introductions that are remembered for a torrent."""
FINISH_TRIES = 20
"""Seconds that pieces may take from libtorrent's memory to the disk. Then those that can't be read back
are fetched again."""
STOP_DEADLINE_S = 8.0
DETACH_DEADLINE_S = 5.0

INSIDE_NETWORK = ipaddress.ip_network(INSIDE)

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Credential:
    """What opens a closed torrent (SPEC 7.6): certificate and key, PEM."""

    certificate: str
    key: str = field(repr=False)


@dataclass(eq=False, slots=True)
class _Entry:
    """One torrent. `torrent` is only kept in memory while it isn't complete."""

    infohash: bytes
    name: str
    size: int
    piece_count: int
    piece_length: int
    torrent: Torrent | None
    durable: PieceSet
    state: TorrentState = TorrentState.CHECKING
    handle: lt.torrent_handle | None = None
    is_closed: bool = False
    credential: Credential | None = None
    peers: dict[tuple[str, int], None] = field(default_factory=dict)
    progress: al.Progress | None = None
    problem: Sentence | None = None
    suspects: set[str] = field(default_factory=set)
    lock: trio.Lock = field(default_factory=trio.Lock)
    added: trio.Event = field(default_factory=trio.Event)
    flushed: trio.Event = field(default_factory=trio.Event)
    removed: trio.Event = field(default_factory=trio.Event)
    add_error: str = ""
    unflushed: int = 0
    is_dirty: bool = False
    is_resume_asked: bool = False
    is_gone: bool = False
    is_held: bool = False
    finish_tries: int = 0
    refused: int = 0
    lonely_since: float = math.inf
    retry_at: float = math.inf
    retry_delay: float = RETRY_FIRST_S


class SwarmEngine:
    """A service. Methods may be called once it has started; everything is keyed by v2 infohash."""

    def __init__(
        self,
        paths: DataPaths,
        *,
        listen: str,
        networks: Sequence[IPNetwork],
        down_bytes_s: int,
        up_bytes_s: int,
        tier: Tier,
        is_shared: bool | None = None,
        link_down_bytes_s: int = 0,
    ) -> None:
        """Prepare; nothing is opened before `run`.

        Args:
            paths: The node's data directory.
            listen: `address:port` to listen on and to send from; port 0 takes a free one. A village, which
                nobody dials, is best on port 0: see `PEER_TIMEOUT_S`. Closed torrents have the next port.
            networks: The only ranges that packets may go to or come from.
            down_bytes_s: Limit for everything on the wire; 0 for none.
            up_bytes_s: The same for the other direction.
            tier: Of this node; decides memory.
            is_shared: Others use the link: then uTP only, through the relay. None: as is usual for the tier.
            link_down_bytes_s: What the link carries towards this node; 0: not known.
        """
        host, _, port = listen.rpartition(":")
        self._host, self._port = host.strip("[]"), int(port)
        self._closed_port = 0
        self._paths = paths
        self._networks = tuple(networks)
        self._limits = (down_bytes_s, up_bytes_s)
        self._link_down = link_down_bytes_s
        self._parent = ""
        self._is_shared = is_shared_link(tier) if is_shared is None else is_shared
        self._relay: Relay | None = None
        self._target_delay_ms = 0
        self._is_paused = False
        self._hosts: PeerLimits | None = None
        self._tier = tier
        self._session: lt.session | None = None
        self._entries: dict[bytes, _Entry] = {}
        self._box = EventBox()
        self._accounting = Accounting()
        self._wire = al.Wire(0, 0)
        self._counted = trio.Event()
        self._dirty = trio.Event()
        self._hash_limiter = trio.CapacityLimiter(1)
        self._file_limiter = trio.CapacityLimiter(1)
        self._jobs: trio.Nursery | None = None

    # What others may ask.

    @property
    def address(self) -> tuple[str, int]:
        """Where it listens, once started."""
        return self._host, self._port

    @property
    def closed_address(self) -> tuple[str, int]:
        """Where it listens for peers of closed torrents, once started."""
        return self._host, self._closed_port

    @property
    def totals(self) -> Totals:
        """Bytes since the start."""
        rates = [e.progress for e in self._entries.values() if e.progress is not None]
        return Totals(
            self._accounting.down,
            self._accounting.up,
            self._wire.down,
            self._wire.up,
            sum(rate.down_rate for rate in rates),
            sum(rate.up_rate for rate in rates),
            self._accounting.by_host(),
        )

    async def count(self) -> Totals:
        """Bytes up to this moment; `totals` may be a second old."""
        counted = self._counted
        if self._session is None:
            await trio.lowlevel.checkpoint()
            return self.totals
        self._session.post_torrent_updates(0)
        self._session.post_session_stats()
        await counted.wait()
        return self.totals

    def statuses(self) -> Mapping[bytes, TorrentStatus]:
        """A snapshot of all torrents."""
        return {infohash: self._status(entry) for infohash, entry in self._entries.items()}

    def status(self, infohash: bytes) -> TorrentStatus | None:
        """A snapshot of one torrent; None when it wasn't added."""
        entry = self._entries.get(infohash)
        return None if entry is None else self._status(entry)

    async def wait_event(self) -> Event:
        """The next event; one consumer."""
        return await self._box.take()

    async def add(
        self,
        torrent: Torrent,
        *,
        have: PieceSet | None = None,
        credential: Credential | None = None,
        peers: Iterable[tuple[str, int]] = (),
        is_held: bool = False,
    ) -> None:
        """Download and seed a payload; returns when peers can be connected. Adding twice does nothing.

        Args:
            torrent: A checked torrent; it is kept in `torrents/`.
            have: Pieces that the caller has checked and made durable. None: what the last run left behind is
                found by itself. Either way pieces beyond these are looked for on the disk and hashed.
            credential: For a closed torrent; without one it meets nobody until `admit` brings it.
            peers: As for `connect_peers`; these are dialled at once, others within a second.
            is_held: As by `hold`.

        Emits `Completed` when everything turns out to be there, unless `have` already said so.

        Raises:
            SwarmError: `swarm.bad-torrent`.
        """
        if torrent.infohash in self._entries:
            await trio.lowlevel.checkpoint()
            return
        entry = _Entry(
            torrent.infohash,
            torrent.name,
            torrent.payload_size,
            torrent.piece_count,
            torrent.piece_length,
            torrent,
            PieceSet(torrent.piece_count),
            is_closed=torrent.is_closed,
            credential=credential,
            is_held=is_held,
        )
        self._entries[torrent.infohash] = entry
        self._remember(entry, peers)
        try:
            async with entry.lock:
                await self._enter(entry, torrent, have)
        except BaseException:
            entry.is_gone = True
            if self._entries.get(torrent.infohash) is entry:
                del self._entries[torrent.infohash]
            raise

    def admit(self, infohash: bytes, credential: Credential) -> None:
        """Show a (new) certificate on the connections of a closed torrent from now on."""
        entry = self._entries.get(infohash)
        if entry is not None and entry.credential != credential:
            entry.credential = credential
            self._show_credential(entry)
            self._connect(entry)

    async def remove(self, infohash: bytes) -> None:
        """Stop at once and forget what was downloaded; the files stay. Unknown ones are ignored."""
        entry = self._entries.get(infohash)
        if entry is None:
            await trio.lowlevel.checkpoint()
            return
        entry.is_gone = True
        self._box.forget(infohash)
        async with entry.lock:
            await self._detach(entry)
            await self._in_file_thread(
                lambda: resume_path(self._paths, infohash).unlink(missing_ok=True)
            )
        self._accounting.forget(infohash)
        if self._entries.get(infohash) is entry:
            del self._entries[infohash]

    async def repair(self, infohash: bytes, bad: PieceSet) -> None:
        """Fetch pieces again that were found damaged; emits `Completed` when they are there.

        Raises:
            StoreError: `store.no-torrent`.
        """
        entry = self._entries.get(infohash)
        if entry is None:
            await trio.lowlevel.checkpoint()
            return
        async with entry.lock:
            await self._detach(entry)
            torrent = await self._torrent_of(entry)
            await self._enter(entry, torrent, entry.durable - bad)

    def connect_peers(self, infohash: bytes, peers: Iterable[tuple[str, int]]) -> None:
        """Introduce peers. Remembered as long as the torrent isn't complete; others' addresses are dropped."""
        entry = self._entries.get(infohash)
        if entry is not None:
            self._remember(entry, peers)
            self._connect(entry)

    # What comes another way.

    async def fill(self, infohash: bytes, work: Callable[[Torrent, PieceSet], PieceSet]) -> None:
        """Let somebody write pieces straight into a payload's files; meanwhile the torrent is out of the session.

        `Completed` isn't emitted for what `work` has brought to the end; `status` says it.

        Args:
            infohash: Of a torrent that isn't complete; others are left alone.
            work: Called in a thread with the torrent and the durable pieces; writes others, and returns those that it
                has checked and made durable.

        Raises:
            StoreError: `store.no-torrent`.
            OSError: from `work`; what is on the disk is hashed and counts.
        """
        entry = self._entries.get(infohash)
        if entry is None or entry.state is TorrentState.COMPLETE:
            await trio.lowlevel.checkpoint()
            return
        async with entry.lock:
            await self._detach(entry)
            torrent = await self._torrent_of(entry)
            have: PieceSet | None = None
            try:
                have = entry.durable | await trio.to_thread.run_sync(work, torrent, entry.durable)
            finally:
                with trio.CancelScope(shield=True):
                    await self._enter(entry, torrent, have)

    def note_pieces(self, torrent: Torrent, have: PieceSet) -> None:
        """Remember durable pieces of a payload that isn't added (yet). Blocks.

        Raises:
            OSError: the disk refuses.
        """
        write_resume(self._paths, torrent.infohash, Resume(VERSION, have.to_bytes()))

    def durable(self, infohash: bytes) -> PieceSet | None:
        """Pieces that were checked and would survive a power cut; None when the torrent wasn't added."""
        entry = self._entries.get(infohash)
        return None if entry is None else entry.durable

    def add_piece(self, infohash: bytes, piece: int, data: bytes) -> bool:
        """Hand over a piece that came by satellite or disk. It is checked like any other; a wrong one is dropped.

        Returns:
            Whether the torrent takes pieces now. `durable` says when it is safe.
        """
        entry = self._entries.get(infohash)
        if entry is None or entry.handle is None or entry.state is not TorrentState.DOWNLOADING:
            return False
        entry.handle.add_piece(piece, data, 0)
        return True

    def hold(self, infohash: bytes, *, is_held: bool) -> None:
        """Ask nobody for pieces of a torrent, as long as it is held; what is here goes to whoever wants it.

        It is for what comes another way. Peers that are known are dialled by `connect_peers` all the same.
        """
        entry = self._entries.get(infohash)
        if entry is not None and entry.is_held != is_held:
            entry.is_held = is_held
            self._apply_hold(entry)

    # What may cross the link.

    @property
    def is_paused(self) -> bool:
        """Whether nothing is moved at the moment."""
        return self._is_paused

    def set_limits(self, *, down_bytes_s: int, up_bytes_s: int) -> None:
        """Limits for everything on the wire, at once; 0 for none."""
        if (down_bytes_s, up_bytes_s) != self._limits:
            self._limits = (down_bytes_s, up_bytes_s)
            if self._relay is not None:
                self._relay.set_order(self._relay_order())
            elif self._session is not None:
                self._session.apply_settings(limit_settings(down_bytes_s, up_bytes_s))

    def set_link(self, *, down_bytes_s: int, parent: str) -> None:
        """What the link carries towards this node, as is known by now, and who is above.

        Args:
            down_bytes_s: 0: not known.
            parent: The address of the one that was connected last; empty before the first.
        """
        if (down_bytes_s, parent) != (self._link_down, self._parent):
            self._link_down, self._parent = down_bytes_s, parent
            if self._relay is not None:
                self._relay.set_order(self._relay_order())

    @property
    def link_down_bytes_s(self) -> int:
        """As it was set; 0: not known."""
        return self._link_down

    @property
    def usable_down_bytes_s(self) -> int:
        """What may come now: the link's rate or the limit, whichever is lower; 0: neither is known."""
        return min((rate for rate in (self._link_down, self._limits[0]) if rate), default=0)

    def set_shares(self, shares: Mapping[bytes, float]) -> None:
        """The part of a shared link, 0 to 1, that each torrent should get; on other links nothing.

        Torrents of closed swarms can't be told apart: they get what an average one does.
        """
        if self._relay is not None:
            self._relay.set_shares(shares)

    @property
    def relay(self) -> RelayStatus | None:
        """What the relay of a shared link sees; None on other links."""
        return None if self._relay is None else self._relay.status

    def _relay_order(self) -> Order:
        down, up = self._limits
        return Order(self._link_down, down, up, self._parent)

    def set_target_delay(self, milliseconds: int) -> None:
        """The queue that uTP keeps standing on a link that this node sends to (SPEC 10.4)."""
        if milliseconds != self._target_delay_ms:
            self._target_delay_ms = milliseconds
            if self._session is not None:
                self._session.apply_settings({"utp_target_delay": milliseconds})

    def limit_host(self, host: str, bytes_s: int | None) -> None:
        """What may be sent to one address, 0 for no limit; None: it is forgotten.

        A connection takes its address's limit when it is made, and follows every change from then on. So say at
        least 0 before the first one.
        """
        if self._hosts is not None:
            self._hosts.set(host, bytes_s)

    def pause(self) -> None:
        """Hang up on all peers, at once, until `resume`."""
        self._is_paused = True
        if self._session is not None:
            self._session.pause()

    def resume(self) -> None:
        """Go on where it was."""
        self._is_paused = False
        if self._session is not None:
            self._session.resume()
            for entry in self._entries.values():
                self._connect(entry)

    # The service.

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Run until cancelled.

        Raises:
            SwarmError: `swarm.cannot-listen`.
        """
        down, up = (0, 0) if self._is_shared else self._limits
        with (
            open_session(
                host=INSIDE if self._is_shared else self._host,
                networks=[INSIDE_NETWORK] if self._is_shared else self._networks,
                down_bytes_s=down,
                up_bytes_s=up,
                is_shared=self._is_shared,
            ) as session,
            ExitStack() as stack,
        ):
            if self._is_shared:
                inside = await session.listen(INSIDE, 0)
                self._relay = Relay(self._networks)
                stack.callback(self._relay.close)
                self._relay.set_order(self._relay_order())
                self._port, self._closed_port = self._relay.open(
                    self._host,
                    (self._port, closed_port(self._port)),
                    [(INSIDE, port) for port in inside],
                )
            else:
                self._port, self._closed_port = await session.listen(self._host, self._port)
            self._session = session.raw
            self._hosts = PeerLimits(session.raw)
            if self._target_delay_ms:
                session.raw.apply_settings({"utp_target_delay": self._target_delay_ms})
            if self._is_paused:
                session.raw.pause()
            try:
                async with trio.open_nursery() as nursery:
                    self._jobs = nursery
                    nursery.start_soon(self._pump, session)
                    nursery.start_soon(self._tick, session)
                    nursery.start_soon(self._flush_often)
                    nursery.start_soon(self._count_peers)
                    task_status.started()
            finally:
                self._jobs = self._session = self._hosts = self._relay = None
                with trio.move_on_after(STOP_DEADLINE_S, shield=True):
                    await self._stop(session)

    async def _pump(self, session: Session) -> None:
        while True:
            for alert in await session.alerts():
                self._handle(alert)

    async def _tick(self, session: Session) -> None:
        next_resume = trio.current_time() + RESUME_INTERVAL_S
        while True:
            await trio.sleep(TICK_S)
            if self._relay is not None and self._relay.failure is not None:
                raise self._relay.failure
            session.raw.post_torrent_updates(0)
            session.raw.post_session_stats()
            now = trio.current_time()
            is_resume_time = now >= next_resume
            if is_resume_time:
                next_resume = now + RESUME_INTERVAL_S
            for entry in list(self._entries.values()):
                self._look_after(entry, now, is_resume_time=is_resume_time)

    def _look_after(self, entry: _Entry, now: float, *, is_resume_time: bool) -> None:
        peers = _peers(entry)
        if entry.state is TorrentState.DOWNLOADING:
            if is_resume_time and entry.is_dirty:
                self._ask_resume(entry)
            if is_resume_time and not peers:
                self._connect(entry)
            if peers or not entry.refused or self._is_paused:
                entry.lonely_since = now
            elif now - entry.lonely_since > LONELY_S:
                entry.retry_at = now
        elif entry.state is TorrentState.FINISHING:
            self._ask_resume(entry)
        if now >= entry.retry_at and not entry.is_gone:
            entry.retry_at = math.inf
            self._start(self._retry, entry)

    async def _count_peers(self) -> None:
        limiter = trio.CapacityLimiter(1)
        while True:
            await trio.sleep(TICK_S)
            busy = [
                (entry.infohash, entry.handle)
                for entry in self._entries.values()
                if entry.handle is not None
                and (_peers(entry) or self._accounting.is_watched(entry.infohash))
            ]
            if busy:
                found = await trio.to_thread.run_sync(al.all_connections, busy, limiter=limiter)
                del busy
                for infohash, connections in found:
                    if infohash in self._entries:
                        seen = [
                            replace(it, host=host, port=port)
                            for it in connections
                            for host, port in [self._outside(it.host, it.port)]
                        ]
                        self._accounting.look(infohash, tuple(seen))

    async def _flush_often(self) -> None:
        while True:
            await self._dirty.wait()
            await trio.sleep(FLUSH_DELAY_S)
            self._dirty = trio.Event()
            for entry in list(self._entries.values()):
                self._flush(entry)

    def _flush(self, entry: _Entry) -> None:
        if entry.unflushed and entry.handle is not None:
            entry.unflushed = 0
            entry.handle.flush_cache()

    # Alerts.

    def _handle(self, alert: al.Alert) -> None:
        match alert:
            case al.PieceFinished(infohash):
                if entry := self._entries.get(infohash):
                    entry.is_dirty = True
                    entry.unflushed += entry.piece_length
                    if entry.unflushed >= min(entry.size // FLUSH_PART, FLUSH_MAX_BYTES):
                        self._flush(entry)
                    else:
                        self._dirty.set()
            case al.Updated(torrents):
                for progress in torrents:
                    self._update(progress)
            case al.Connected(infohash, host, port):
                if infohash in self._entries:
                    self._accounting.begin(infohash, *self._outside(host, port))
            case al.Wire():
                self._wire = alert
                self._counted.set()
                self._counted = trio.Event()
            case al.Finished(infohash):
                if entry := self._entries.get(infohash):
                    self._finish(entry)
            case al.ResumeSaved(infohash):
                entry = self._entries.get(infohash)
                if entry is not None and entry.is_resume_asked:
                    self._start(self._keep, entry, alert)
            case al.ResumeFailed(infohash):
                if entry := self._entries.get(infohash):
                    entry.is_resume_asked = False
            case al.PieceRefused(infohash):
                if entry := self._entries.get(infohash):
                    entry.refused += 1
                    self._box.put(HashFailed(infohash, 1))
            case al.DiskError(infohash, file, number, reason):
                entry = self._entries.get(infohash)
                # One full disk is one alert for each block that was on its way.
                if entry is not None and entry.handle is not None:
                    self._fail(entry, number, reason, file)
            case al.Inconsistent(infohash):
                if entry := self._entries.get(infohash):
                    self._give_up(entry)
            case al.Added(infohash, handle, error):
                entry = self._entries.get(infohash)
                if entry is not None and not entry.added.is_set():
                    entry.handle, entry.add_error = handle, error
                    entry.added.set()
                elif not error and self._session is not None:
                    self._session.remove_torrent(handle)  # Whoever asked for it has gone.
            case al.Flushed(infohash):
                if entry := self._entries.get(infohash):
                    entry.flushed.set()
            case al.Removed(infohash):
                if entry := self._entries.get(infohash):
                    entry.removed.set()
            case al.AlertsLost():
                for entry in self._entries.values():
                    entry.is_dirty = True
                    entry.unflushed += 1
                self._dirty.set()
            case _:
                pass

    def _update(self, progress: al.Progress) -> None:
        entry = self._entries.get(progress.infohash)
        if entry is None or entry.handle is None:
            return
        entry.progress = progress
        self._accounting.progress(progress.infohash, progress.down, progress.up)
        if progress.pieces == entry.piece_count:
            self._finish(entry)  # Should its own alert have been dropped.

    def _finish(self, entry: _Entry) -> None:
        if entry.state is TorrentState.DOWNLOADING:
            entry.state = TorrentState.FINISHING
            entry.finish_tries = 0
            self._ask_resume(entry)

    def _ask_resume(self, entry: _Entry) -> None:
        if entry.handle is not None and not entry.is_resume_asked:
            entry.is_resume_asked = True
            entry.is_dirty = False
            entry.unflushed = 0
            entry.handle.flush_cache()
            entry.handle.save_resume_data(0)

    async def _keep(self, entry: _Entry, saved: al.ResumeSaved, *, at_stop: bool = False) -> None:
        torrent, before = entry.torrent, entry.durable
        if torrent is None:
            return

        def work() -> PieceSet | None:
            if entry.is_gone or entry.handle is None:
                return None
            return make_durable(self._paths, torrent, saved, before=before, at_stop=at_stop)

        try:
            have = await self._in_file_thread(work)
        except OSError as error:
            self._fail(entry, error.errno or 0, str(error.strerror), str(error.filename or ""))
            return
        entry.is_resume_asked = False
        if have is None or entry.is_gone or entry.handle is None or entry.torrent is not torrent:
            return
        entry.durable = have
        entry.retry_delay = RETRY_FIRST_S
        if have.is_full:
            self._complete(entry)
            self._box.put(Completed(entry.infohash))
        elif entry.state is TorrentState.FINISHING:
            entry.finish_tries += 1
            if entry.finish_tries > FINISH_TRIES:
                entry.retry_at = trio.current_time()

    def _complete(self, entry: _Entry) -> None:
        entry.state = TorrentState.COMPLETE
        entry.torrent = None
        entry.suspects.clear()
        entry.refused = 0

    # Coming and going.

    async def _enter(self, entry: _Entry, torrent: Torrent, have: PieceSet | None) -> None:
        """Find out what is there, then hand the torrent to the session. Under the entry's lock."""
        entry.state, entry.torrent, entry.problem = TorrentState.CHECKING, torrent, None
        entry.retry_at = math.inf

        def work() -> Inspected:
            return inspect(
                self._paths,
                torrent,
                have=have,
                suspects=tuple(entry.suspects),
                checkpoint=trio.from_thread.check_cancelled,
            )

        try:
            inspected = await trio.to_thread.run_sync(work, limiter=self._hash_limiter)
        except OSError as error:
            self._fail(entry, error.errno or 0, str(error.strerror), str(error.filename or ""))
            return
        except RuntimeError as error:  # libtorrent's own refusals.
            raise _bad_torrent(torrent, str(error)) from error
        if entry.is_gone or self._session is None:
            return
        entry.added, entry.removed = trio.Event(), trio.Event()
        entry.is_resume_asked = entry.is_dirty = False
        entry.unflushed = entry.refused = 0
        entry.lonely_since = trio.current_time()
        params, found = inspected.params, inspected.have
        if entry.is_held and not found.is_full:
            params.flags |= lt.torrent_flags.upload_mode
        if not entry.is_closed and not found.is_full:
            params.peers = self._places(
                entry
            )  # libtorrent waits up to a second with those that come later.
        entry.durable = found
        self._accounting.start(entry.infohash, params.total_downloaded, params.total_uploaded)
        self._session.async_add_torrent(params)
        await entry.added.wait()
        if entry.add_error:
            entry.handle = None
            raise _bad_torrent(torrent, entry.add_error)
        self._show_credential(entry)
        if found.is_full:
            self._complete(entry)
            if have is None or not have.is_full:
                self._box.put(Completed(entry.infohash))
        else:
            entry.state = TorrentState.DOWNLOADING
            self._apply_hold(entry)
            self._connect(entry)

    async def _detach(self, entry: _Entry) -> None:
        """Take the torrent out of the session; afterwards nothing of it is written any more."""
        if entry.handle is None or self._session is None:
            return
        handle, entry.handle = entry.handle, None
        entry.flushed, entry.removed, entry.progress = trio.Event(), trio.Event(), None
        with trio.move_on_after(DETACH_DEADLINE_S, shield=True):
            handle.pause()
            handle.flush_cache()
            await entry.flushed.wait()
            self._session.remove_torrent(handle)
            await entry.removed.wait()
            return
        self._session.remove_torrent(handle)

    def _fail(self, entry: _Entry, number: int, reason: str, file: str) -> None:
        """The disk refused: out of the session, tell, and try again later."""
        if entry.is_gone:
            return
        if entry.handle is not None and self._session is not None:
            self._session.remove_torrent(entry.handle)
        entry.handle, entry.progress = None, None
        with suppress(ValueError):
            top = self._paths.store / entry.infohash.hex() / entry.name
            entry.suspects.add(Path(file).relative_to(top).as_posix())
        is_full = number in (errno.ENOSPC, errno.EDQUOT)
        if is_full:
            entry.state = TorrentState.DISK_FULL
            entry.problem = disk_error(OSError(number, reason)).sentence
        else:
            entry.state = TorrentState.ERROR
            entry.problem = sentence(
                "swarm.file-error",
                N_("{file} can't be read or written: {reason}. It is tried again by itself."),
                file=file or entry.name,
                reason=reason,
            )
        entry.retry_at = trio.current_time() + entry.retry_delay
        entry.retry_delay = min(entry.retry_delay * 2, RETRY_MAX_S)
        self._box.put(FileError(entry.infohash, entry.problem, is_full))

    def _give_up(self, entry: _Entry) -> None:
        """The publisher's own fault: nobody sends anything better."""
        if entry.is_gone:
            return
        if entry.handle is not None and self._session is not None:
            self._session.remove_torrent(entry.handle)
        entry.handle, entry.progress = None, None
        entry.state = TorrentState.ERROR
        entry.problem = sentence(
            "swarm.inconsistent-hashes",
            N_("The two kinds of hashes in the torrent {name} contradict each other."),
            name=entry.name,
        )
        self._box.put(Unusable(entry.infohash, entry.problem))

    async def _retry(self, entry: _Entry) -> None:
        async with entry.lock:
            if entry.is_gone:
                return
            await self._detach(entry)
            try:
                torrent = await self._torrent_of(entry)
                missing = entry.size - bytes_of(torrent, entry.durable)
                await self._in_file_thread(lambda: check_disk(self._paths, entry.infohash, missing))
            except OSError as error:
                self._fail(entry, error.errno or 0, str(error.strerror), str(error.filename or ""))
                return
            except StoreError as error:  # Of something complete; its torrent has gone, too.
                self._fail(entry, 0, str(error), str(torrent_path(self._paths, entry.infohash)))
                return
            if not entry.is_gone:
                await self._enter(entry, torrent, None)

    async def _torrent_of(self, entry: _Entry) -> Torrent:
        if entry.torrent is not None:
            return entry.torrent
        return await self._in_file_thread(lambda: load_torrent(self._paths, entry.infohash))

    # Small things.

    def _show_credential(self, entry: _Entry) -> None:
        # It isn't part of what libtorrent can keep, so it is given anew each time, before the first connection.
        if entry.handle is not None and entry.credential is not None:
            entry.handle.set_ssl_certificate_buffer(
                entry.credential.certificate, entry.credential.key, ""
            )

    def _apply_hold(self, entry: _Entry) -> None:
        if entry.handle is None:
            return
        if entry.is_held and entry.state is TorrentState.DOWNLOADING:
            entry.handle.set_flags(lt.torrent_flags.upload_mode)
        else:
            entry.handle.unset_flags(lt.torrent_flags.upload_mode)

    def _connect(self, entry: _Entry) -> None:
        if self._is_paused or (entry.is_closed and entry.credential is None):
            return
        if entry.handle is not None and entry.state is TorrentState.DOWNLOADING:
            for place in self._places(entry):
                entry.handle.connect_peer(place)

    def _remember(self, entry: _Entry, peers: Iterable[tuple[str, int]]) -> None:
        for host, port in peers:
            if not self._is_inside(host) or not 0 < port < 65_536:
                continue
            entry.peers.pop((host, port), None)
            entry.peers[host, port] = None
            if len(entry.peers) > MAX_PEERS_PER_TORRENT:
                del entry.peers[next(iter(entry.peers))]

    def _places(self, entry: _Entry) -> list[tuple[str, int]]:
        """Where libtorrent finds the peers that were introduced."""
        relay = self._relay
        if relay is None:
            return list(entry.peers)
        places = (relay.inside_of(peer, is_closed=entry.is_closed) for peer in entry.peers)
        return [place for place in places if place is not None]

    def _outside(self, host: str, port: int) -> tuple[str, int]:
        """The address of a peer that libtorrent has a connection with."""
        found = self._relay.outside_of(port) if self._relay is not None else None
        return found or (host, port)

    def _is_inside(self, host: str) -> bool:
        try:
            address = ipaddress.ip_address(host)
        except ValueError:
            return False
        return any(address in network for network in self._networks)

    def _status(self, entry: _Entry) -> TorrentStatus:
        progress = entry.progress
        is_done = entry.state is TorrentState.COMPLETE
        done = entry.size if is_done else progress.bytes_done if progress is not None else 0
        if progress is None and not is_done and entry.torrent is not None:
            done = bytes_of(entry.torrent, entry.durable)
        return TorrentStatus(
            entry.infohash,
            entry.state,
            min(done, entry.size),
            entry.size,
            entry.piece_count,
            len(entry.durable),
            progress.down_rate if progress is not None else 0,
            progress.up_rate if progress is not None else 0,
            progress.down if progress is not None else 0,
            progress.up if progress is not None else 0,
            _peers(entry),
            entry.problem,
        )

    def _start(self, job: Callable[..., Awaitable[None]], *arguments: object) -> None:
        if self._jobs is not None:
            self._jobs.start_soon(job, *arguments)

    async def _in_file_thread(self, work: Callable[[], T]) -> T:
        return await trio.to_thread.run_sync(work, limiter=self._file_limiter)

    async def _stop(self, session: Session) -> None:
        """Write down what is there; whatever doesn't succeed in time is hashed at the next start."""
        session.raw.pause()
        waiting: set[bytes] = set()
        for entry in self._entries.values():
            if entry.handle is not None and entry.torrent is not None:
                entry.handle.save_resume_data(0)
                entry.handle.flush_cache()
                waiting.add(entry.infohash)
        saved: dict[bytes, al.ResumeSaved] = {}
        flushed: set[bytes] = set()
        while waiting - (saved.keys() & flushed):
            for alert in await session.alerts():
                if isinstance(alert, al.ResumeSaved):
                    saved[alert.infohash] = alert
                elif isinstance(alert, al.Flushed):
                    flushed.add(alert.infohash)
                elif isinstance(alert, al.ResumeFailed):
                    waiting.discard(alert.infohash)
        for infohash, answer in saved.items():
            if found := self._entries.get(infohash):
                await self._keep(found, answer, at_stop=True)
        await self._in_file_thread(self._keep_counters)

    def _keep_counters(self) -> None:
        """Remember what complete torrents have sent."""
        for entry in self._entries.values():
            progress = entry.progress
            if entry.state is TorrentState.COMPLETE and progress is not None:
                resume = Resume(VERSION, entry.durable.to_bytes(), {}, progress.down, progress.up)
                with suppress(OSError):
                    write_resume(self._paths, entry.infohash, resume)


def _peers(entry: _Entry) -> int:
    return entry.progress.peers if entry.progress is not None else 0


def _bad_torrent(torrent: Torrent, reason: str) -> SwarmError:
    return SwarmError(
        "swarm.bad-torrent",
        N_("The torrent {name} was refused: {reason}."),
        fault=Fault.CONTENT,
        name=torrent.name,
        reason=reason,
    )

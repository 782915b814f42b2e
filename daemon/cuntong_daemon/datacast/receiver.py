"""The receiver: the daemon's side of what comes from the air (SPEC 11.9).

The beacon names the programme, the programme catalogues, manifests and bundles. Of these it asks the reader for what
this node is about: the catalogues of the authorities that it follows, and the blocks of bundles that the replicator
wants. A block that has enough symbols is made whole by the decoder, checked against the torrent, and its pieces go to
the swarm engine; its symbols are kept until these pieces are durable there. Catalogues go into the trust layer's spool.
Nothing from the air is believed beyond that.
"""

from __future__ import annotations

import contextlib
import itertools
import math
import os
import time
from collections.abc import AsyncIterator, Callable, Collection, Iterable
from dataclasses import dataclass, field
from functools import partial
from hashlib import sha256
from pathlib import Path

import msgspec
import trio

from cuntong_daemon.addresses import parse_address
from cuntong_daemon.config_datacast import DishSection
from cuntong_daemon.files import write_atomically
from cuntong_daemon.logs import get_logger
from cuntong_daemon.paths import DataPaths
from cuntong_daemon.pki.certificates import KeyFiles, certificate_der, load_chain
from cuntong_daemon.policy.repair import Repair, Source, air_wait
from cuntong_daemon.replicator import Item as Wanted
from cuntong_daemon.replicator import Replicator
from cuntong_daemon.store.errors import disk_error
from cuntong_daemon.store.pieces import bytes_of
from cuntong_daemon.store.torrents import keep_torrent
from cuntong_daemon.swarm.engine import SwarmEngine
from cuntong_daemon.torrents import check_access
from cuntong_daemon.trust.spool import Spool
from cuntong_daemon.trust.view import View
from cuntong_protocol.bundle.errors import BundleError
from cuntong_protocol.bundle.torrent import Torrent, decode_torrent
from cuntong_protocol.datacast.blocks import (
    BLOCK_BYTES,
    Layout,
    Part,
    check_halves,
    is_right,
    object_blocks,
    pass_length,
    symbol_count,
)
from cuntong_protocol.datacast.errors import DatacastError
from cuntong_protocol.datacast.objects import (
    BundleEntry,
    CatalogueEntry,
    Programme,
    Ref,
    decode_manifest,
    decode_programme,
)
from cuntong_protocol.datacast.packets import SYMBOL_BYTES, Beacon, Channel
from cuntong_protocol.divisions import Division
from cuntong_protocol.errors import CuntongError
from cuntong_protocol.texts import N_, Sentence, sentence

from .catalogues import CatalogueIntake, read_object
from .children import child, module_command, receive_frames
from .decoder import Decoded, DecodeJob
from .frames import encode_frame
from .reader import (
    Again,
    Close,
    CloseOthers,
    FromReader,
    Heard,
    Ignore,
    Judge,
    Open,
    Progress,
    ReadOrder,
    ReadProblem,
    ReadStatus,
    Ready,
    ToReader,
)
from .sender import is_installed, not_installed

log = get_logger("datacast")

LOOK_S = 1.0
RESTART_S = 1.0
RETRY_S = 10.0
"""After the reader said why it can't work: an interface that is down, a full disk."""
HANDED_S = 120.0
"""Pieces that aren't durable after so long are handed over again."""
DECODER_IDLE_S = 30.0
"""Then the decoder ends, and its memory is free."""
MAX_WAITING = 256
"""Blocks to be decoded that are remembered; the reader is asked to name others again."""
SILENT_S = 10.0
"""Without a beacon for so long the operator is told."""
PROGRAMME = "programme"

Key = tuple[int, int]


@dataclass(slots=True)
class _Object:
    """An object that is being received; what has come of it lies in a file."""

    name: str
    channel: Channel
    ref: Ref
    sizes: list[int]
    done: set[int] = field(default_factory=set)


@dataclass(slots=True)
class _Content:
    """A bundle whose blocks are being received."""

    entry: BundleEntry
    torrent: Torrent
    halves: dict[bytes, bytes]
    layout: Layout
    handed: dict[int, float] = field(default_factory=dict)
    """Blocks whose pieces the engine has, and when they are handed over again unless they are durable by then."""
    whole: dict[int, Ready] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Signal:
    """How well the sender is heard; what `cuntong datacast status` shows."""

    session: int = 0
    beacon: Beacon | None = None
    heard_s: float | None = None
    reader: ReadStatus = field(default_factory=ReadStatus)


@dataclass(frozen=True, slots=True)
class Gathered:
    """How far a bundle is.

    Attributes:
        blocks_done: Blocks that are whole.
        blocks: All of them.
        progress: Of the bytes, those of blocks that aren't whole counted by their symbols; 0 to 1.
    """

    blocks_done: int
    blocks: int
    progress: float


class DatacastReceiver:
    """A service; see the module."""

    def __init__(
        self,
        order: ReadOrder,
        paths: DataPaths,
        code: Division,
        *,
        spool: Spool,
        engine: SwarmEngine,
        replicator: Replicator,
        look: Callable[[], None],
        has_parents: bool,
    ) -> None:
        """Prepare; nothing is opened before `run`.

        Args:
            order: What the reader is told.
            paths: The node's data directory.
            code: This node.
            spool: Where catalogues go.
            engine: Where pieces go.
            replicator: Knows what is wanted.
            look: Makes the trust layer look into the spool.
            has_parents: There is a link; then a catalogue that isn't newer than what is here is left alone.
        """
        self._order = order
        self._paths = paths
        self._code = code
        self._catalogues = CatalogueIntake(spool, Path(order.folder) / "catalogues")
        self._engine = engine
        self._replicator = replicator
        self._look_at_spool = look
        self._has_parents = has_parents
        self._folder = Path(order.folder)
        self._view = View()
        self._session = 0
        self._beacon: Beacon | None = None
        self._heard_at: float | None = None
        self._began_at = time.monotonic()
        self._status = ReadStatus()
        self._programme: Programme | None = None
        self._programme_ref: Ref | None = None
        self._entries: dict[bytes, BundleEntry] = {}
        self._taken: dict[str, tuple[bytes, ...]] = {}
        self._refused: set[bytes] = set()
        self._objects: dict[str, _Object] = {}
        self._contents: dict[bytes, _Content] = {}
        self._ignored: list[tuple[int, int]] = []
        self._ignored_basis: object = None
        self._counts: dict[int, int] = {}
        self._repairs: dict[bytes, Repair] = {}
        self._open: dict[Key, int] = {}
        self._owners: dict[Key, tuple[_Object | _Content, int]] = {}
        self._to_reader: trio.Process | None = None
        self._outbox: list[ToReader] = []
        self._outbox_news = trio.Event()
        self._send_ready, self._receive_ready = trio.open_memory_channel[Ready](MAX_WAITING)
        self._missed: set[Key] = set()
        self._problem: Sentence | None = None
        self._problems: dict[str, Sentence] = {}
        self.blocks_done = 0
        self.bytes_done = 0

    # What others see.

    @property
    def signal(self) -> Signal:
        """How well the sender is heard."""
        heard = None if self._heard_at is None else time.monotonic() - self._heard_at
        return Signal(self._session, self._beacon, heard, self._status)

    @property
    def programme(self) -> Programme | None:
        """What is on the air, by the sender's word."""
        return self._programme

    def reason_of(self, infohash: bytes) -> Sentence | None:
        """Where a bundle that isn't complete comes from, and why; None when it isn't on the air."""
        if infohash not in self._entries:
            return None
        return self._repairs.get(infohash, Repair(0.0)).reason

    @property
    def quota_bytes(self) -> int:
        """What symbols may take on the disk."""
        return self._order.quota_bytes

    @property
    def gathered(self) -> dict[bytes, Gathered]:
        """How far each bundle is whose blocks are gathered, by infohash."""
        found: dict[bytes, Gathered] = {}
        for infohash, content in self._contents.items():
            sizes = content.layout.sizes
            durable = self._engine.durable(infohash)
            missing = (
                set(range(len(sizes)))
                if durable is None
                else set(content.layout.blocks_of(iter(durable.missing())))
            )
            missing -= content.handed.keys()
            toi = content.entry.toi
            lacking = sum(
                max(0, sizes[number] - self._counts.get(toi + number, 0) * SYMBOL_BYTES)
                for number in missing
            )
            found[infohash] = Gathered(
                len(sizes) - len(missing), len(sizes), 1 - lacking / max(1, sum(sizes))
            )
        return found

    @property
    def problems(self) -> list[Sentence]:
        """What an operator should know."""
        found = [] if self._problem is None else [self._problem]
        since = self._began_at if self._heard_at is None else self._heard_at
        if self._problem is None and time.monotonic() - since > SILENT_S:
            found.append(
                sentence(
                    "datacast.silent",
                    N_(
                        "Nothing is heard from the satellite. Check dish, receiver and cable; at the interface {interface}: {packets} packets."
                    ),
                    interface=self._order.interface,
                    packets=self._status.packets,
                )
            )
        return found + list(self._problems.values())

    def set_view(self, view: View) -> None:
        """The trust layer has news."""
        self._view = view
        self._send(self._judgement())

    # Running.

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Run until cancelled; usable at once, heard or not."""
        task_status.started()
        if not is_installed():
            self._problem = not_installed()
            log.warning("datacast.not-installed")
            await trio.sleep_forever()
        (self._folder / "received").mkdir(parents=True, exist_ok=True)
        self._forget_received()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._run_reader)
            nursery.start_soon(self._run_decoder)
            nursery.start_soon(self._look_often)

    async def _run_reader(self) -> None:
        while True:
            command = [*module_command("reader"), msgspec.json.encode(self._order).decode()]
            async with child(command) as process, trio.open_nursery() as nursery:
                self._outbox = [self._judgement()]
                if self._session:
                    self._outbox += self._all_open()
                nursery.start_soon(self._write_orders, process)
                assert process.stdout is not None  # noqa: S101 - a pipe was asked for.
                messages: AsyncIterator[FromReader] = receive_frames(process.stdout, FromReader)  # type: ignore[arg-type]
                async for message in messages:
                    self._hear(message)
                nursery.cancel_scope.cancel()
            log.warning("datacast.reader-ended", code=process.returncode)
            await trio.sleep(RESTART_S if self._problem is None else RETRY_S)

    async def _write_orders(self, process: trio.Process) -> None:
        assert process.stdin is not None  # noqa: S101 - a pipe was asked for.
        while True:
            orders, self._outbox = self._outbox, []
            for order in orders:
                with contextlib.suppress(trio.BrokenResourceError):  # It has ended; that is seen.
                    await process.stdin.send_all(encode_frame(order))
            if not self._outbox:
                self._outbox_news = trio.Event()
                await self._outbox_news.wait()

    def _send(self, message: ToReader) -> None:
        self._outbox.append(message)
        self._outbox_news.set()

    def _judgement(self) -> Judge:
        return Judge(
            proven_time=max(0, int(self._view.proven_time.timestamp())),
            removed=[
                member.spki
                for lines in self._view.members.values()
                for member in lines.values()
                if member.code == self._order.sender and not member.is_active
            ],
        )

    def _all_open(self) -> list[ToReader]:
        blocks = [(*key, size) for key, size in self._open.items()]
        return [
            CloseOthers(session=self._session, blocks=list(self._open)),
            Open(session=self._session, blocks=blocks),
            Ignore(session=self._session, ranges=self._ignored),
        ]

    def _hear(self, message: FromReader) -> None:
        match message:
            case ReadStatus():
                self._status = message
                self._problem = None
            case ReadProblem(problem=problem):
                self._problem = problem
                log.warning("datacast.problem", code=problem.code, text=str(problem))
            case Progress(session=session, blocks=blocks):
                if session == self._session:
                    self._counts = dict(blocks)
            case Heard(session=session, beacon=beacon):
                self._on_beacon(session, beacon)
            case Ready():
                try:
                    self._send_ready.send_nowait(message)
                except trio.WouldBlock:
                    self._missed.add((message.channel, message.toi))

    def _on_beacon(self, session: int, beacon: Beacon) -> None:
        if session != self._session:
            log.info("datacast.session", session=session, sender=beacon.sender)
            self._session = session
            self._forget_received()
            self._contents.clear()
            self._open.clear()
            self._owners.clear()
            self._missed.clear()
            self._refused.clear()
            self._problems.clear()
            self._ignored, self._ignored_basis = [], None
            self._programme = self._programme_ref = None
            self._entries = {}
            self._outbox += self._all_open()
        self._beacon, self._heard_at = beacon, time.monotonic()
        if beacon.programme is not None and beacon.programme != self._programme_ref:
            self._receive(PROGRAMME, Channel.CATALOGUE, beacon.programme)

    def _forget_received(self) -> None:
        """What has come of objects; their numbers stand for others now, which may be shorter."""
        self._objects.clear()
        for path in (self._folder / "received").glob("*"):
            path.unlink(missing_ok=True)

    # What is asked for.

    async def _look_often(self) -> None:
        while True:
            await trio.sleep(LOOK_S)
            self._ask_for_missed()
            if self._programme is not None:
                try:
                    await self._look(self._programme)
                except OSError as error:
                    self._problems["disk"] = disk_error(error).sentence
                else:
                    self._problems.pop("disk", None)

    def _ask_for_missed(self) -> None:
        """Blocks that were ready when too many others were."""
        room = MAX_WAITING // 2 - self._receive_ready.statistics().current_buffer_used
        if self._missed and room > 0:
            keys = [key for key in self._missed if key in self._open][:room]
            self._missed = (self._missed & self._open.keys()) - set(keys)
            self._send(
                Open(session=self._session, blocks=[(*key, self._open[key]) for key in keys])
            )

    async def _look(self, programme: Programme) -> None:
        """Ask for what is needed by now, and for nothing else."""
        for entry in programme.catalogues:
            if self._is_followed(entry):
                await self._look_at_catalogue(entry)
        wanted = {
            item.infohash: item
            for item in self._replicator.items.values()
            if item.state != "refused"
        }
        on_air = self._entries
        for infohash in [one for one in self._contents if one not in wanted or one not in on_air]:
            self._forget_content(self._contents.pop(infohash))
        for name in list(self._objects):
            kind, _, rest = name.partition("/")
            if kind == "manifest" and bytes.fromhex(rest) not in wanted:
                self._drop_object(name)
        room = self._order.quota_bytes
        for item in sorted(wanted.values(), key=lambda item: item.want.order):
            entry_or_none = on_air.get(item.infohash)
            if entry_or_none is not None and item.infohash not in self._refused:
                room -= await self._look_at_bundle(entry_or_none, item, room)
        sources = {
            infohash: self._source_of(infohash, on_air[infohash], item)
            for infohash, item in wanted.items()
            if infohash in on_air and infohash not in self._refused
        }
        for infohash in self._repairs.keys() - sources.keys():
            del self._repairs[infohash]
        self._ignore(programme, wanted.keys())
        self._replicator.set_on_air(sources, frozenset(self._contents))

    def _ignore(self, programme: Programme, wanted: Collection[bytes]) -> None:
        """Keep what isn't for this node out of the ring, as soon as that is known."""
        followed = [entry for entry in programme.catalogues if self._is_followed(entry)]
        if any(self._version_of(entry.authority) < entry.version for entry in followed):
            return
        kept = {bundle.toi for one in wanted if (bundle := self._entries.get(one)) is not None}
        basis = (self._programme_ref, kept)
        if basis == self._ignored_basis:
            return
        self._ignored_basis = basis
        objects = [entry.manifest for entry in programme.bundles]
        for entry in programme.catalogues:
            objects += [ref for ref in (entry.snapshot, entry.delta) if ref is not None]
        ends = {ref.toi: ref.toi + len(object_blocks(ref.size)) for ref in objects}
        for bundle in programme.bundles:
            ends[bundle.toi] = bundle.toi + -(-bundle.size // BLOCK_BYTES)
        firsts = sorted(ends)
        # A bundle may have more blocks than its size demands; they end where the next thing begins.
        ends |= dict(itertools.pairwise(firsts))
        self._ignored = [(first, ends[first]) for first in firsts if first not in kept]
        self._send(Ignore(session=self._session, ranges=self._ignored))

    def _version_of(self, authority: str) -> int:
        """Of the newest verified catalogue."""
        state = self._view.authorities.get(Division(authority))
        return state.versions.get("timestamp", 0) if state is not None else 0

    def _source_of(self, infohash: bytes, entry: BundleEntry, item: Wanted) -> Source:
        """Where a bundle should come from now."""
        if not self._has_parents:
            return Source.AIR
        repair = self._repairs.get(infohash)
        if repair is None:
            drawn = sha256(f"{self._code} {infohash.hex()}".encode()).digest()
            repair = Repair(int.from_bytes(drawn[:8], "big") / 2**64)
            self._repairs[infohash] = repair
        content = self._contents.get(infohash)
        durable = self._engine.durable(infohash)
        missing, part = item.want.size, 1.0
        if content is not None:
            if durable is not None:
                missing -= bytes_of(content.torrent, durable)
            part = self._missing_part(content)
        air_s = math.inf
        if self._beacon is not None and self._heard_at is not None:
            silent_s = time.monotonic() - self._heard_at
            if silent_s <= SILENT_S:
                air_s = air_wait(
                    self._beacon.time + silent_s,
                    begins=entry.begins,
                    ends=entry.ends,
                    after=entry.next,
                    missing_part=part,
                )
        return repair.decide(
            trio.current_time(),
            missing_bytes=missing,
            link_bytes_s=self._engine.usable_down_bytes_s,
            air_s=air_s,
            has_neighbours=self._replicator.has_neighbours(infohash),
        )

    def _missing_part(self, content: _Content) -> float:
        """Of a pass, what the block that lacks most still needs."""
        most = 0.0
        for number, size in enumerate(content.layout.sizes):
            toi = content.entry.toi + number
            if (Channel.CONTENT, toi) in self._open and number not in content.handed:
                lacking = symbol_count(size) - self._counts.get(toi, 0)
                most = max(most, lacking / pass_length(size))
        return most

    def _is_followed(self, entry: CatalogueEntry) -> bool:
        code = Division(entry.authority)
        return code == self._code or code in self._code.ancestors or code in self._view.authorities

    async def _look_at_catalogue(self, entry: CatalogueEntry) -> None:
        authority = entry.authority
        known = self._version_of(authority)
        if entry.version < known or (entry.version == known and self._has_parents):
            return
        taken = self._taken.get(authority, ())
        if entry.snapshot.sha256 in self._refused:
            return
        if entry.snapshot.sha256 not in taken:
            path = self._catalogues.snapshot_path(authority)
            if await trio.to_thread.run_sync(_is_object, path, entry.snapshot):
                try:
                    await self._take_catalogue(authority, path, entry.snapshot)
                except CuntongError as error:
                    name = f"snapshot/{authority}"
                    log.warning("datacast.bad-object", name=name, code=error.code, text=str(error))
                    self._refused.add(entry.snapshot.sha256)
                    self._problems[name] = error.sentence
            else:
                self._receive(f"snapshot/{authority}", Channel.CATALOGUE, entry.snapshot)
        elif entry.delta is not None and entry.delta.sha256 not in taken:
            self._receive(f"delta/{authority}", Channel.CATALOGUE, entry.delta)

    async def _look_at_bundle(self, entry: BundleEntry, item: Wanted, room: int) -> int:
        """Ask for what is missing of a bundle; returns the room in the spool that it takes."""
        content = self._contents.get(entry.infohash)
        if content is None:
            path = self._manifest_path(entry.infohash)
            if not path.exists():
                self._receive(f"manifest/{entry.infohash.hex()}", Channel.MANIFEST, entry.manifest)
                return 0
            try:
                content = await trio.to_thread.run_sync(self._read_manifest, path, entry, item)
            except CuntongError as error:
                self._refuse(entry, error)
                return 0
            self._contents[entry.infohash] = content
        elif content.entry.toi != entry.toi:
            self._forget_content(content)
        content.entry = entry
        durable = self._engine.durable(entry.infohash)
        needed = (
            range(len(content.layout.sizes))
            if durable is None
            else content.layout.blocks_of(iter(durable.missing()))
        )
        return self._ask_for(content, needed, room)

    def _ask_for(self, content: _Content, needed: Iterable[int], room: int) -> int:
        now, used = time.monotonic(), 0
        toi, sizes = content.entry.toi, content.layout.sizes
        missing = set(needed)
        done = [
            number
            for number in range(len(sizes))
            if (Channel.CONTENT, toi + number) in self._open and number not in missing
        ]
        if done:
            self._close([(Channel.CONTENT, toi + number) for number in done])
        for number in done:
            content.handed.pop(number, None)
            content.whole.pop(number, None)
        wanted: list[tuple[int, int, int]] = []
        for number in sorted(missing):
            key = (Channel.CONTENT, toi + number)
            used += sizes[number]
            if used > room:
                break
            if key not in self._open:
                self._open[key] = sizes[number]
                self._owners[key] = (content, number)
                wanted.append((*key, sizes[number]))
            elif now > content.handed.get(number, now):
                content.handed[number] = now + HANDED_S
                wanted.append((*key, sizes[number]))  # The reader says again that it is ready.
        if wanted:
            self._send(Open(session=self._session, blocks=wanted))
        return used

    def _receive(self, name: str, channel: Channel, ref: Ref) -> None:
        """Gather an object, unless it is being gathered."""
        known = self._objects.get(name)
        if known is not None:
            if known.ref == ref:
                return
            self._drop_object(name)
        if ref.sha256 in self._refused:
            return
        fetch = _Object(name, channel, ref, object_blocks(ref.size))
        self._objects[name] = fetch
        blocks: list[tuple[int, int, int]] = []
        for number, size in enumerate(fetch.sizes):
            key = (int(channel), ref.toi + number)
            self._open[key] = size
            self._owners[key] = (fetch, number)
            blocks.append((*key, size))
        self._send(Open(session=self._session, blocks=blocks))

    def _drop_object(self, name: str) -> None:
        fetch = self._objects.pop(name)
        self._close(
            [(int(fetch.channel), fetch.ref.toi + number) for number in range(len(fetch.sizes))]
        )
        self._received_path(fetch).unlink(missing_ok=True)

    def _forget_content(self, content: _Content) -> None:
        toi = content.entry.toi
        self._close([(Channel.CONTENT, toi + at) for at in range(len(content.layout.sizes))])
        content.handed.clear()
        content.whole.clear()

    def _close(self, keys: Iterable[Key]) -> None:
        known = [key for key in keys if self._open.pop(key, None) is not None]
        for key in known:
            self._owners.pop(key, None)
        if known:
            self._send(Close(session=self._session, blocks=known))

    def _refuse(self, entry: BundleEntry, error: CuntongError) -> None:
        """What is on the air doesn't fit what was signed: that isn't looked at again in this session."""
        self._refused.add(entry.infohash)
        self._problems[entry.id] = error.sentence
        log.warning("datacast.refused", id=entry.id, code=error.code, text=str(error))
        self._manifest_path(entry.infohash).unlink(missing_ok=True)

    # Blocks.

    async def _run_decoder(self) -> None:
        """One block at a time: it takes 21 MiB and 15 ms."""
        waiting: Ready | None = None
        while True:
            if waiting is None:
                waiting = await self._receive_ready.receive()
            async with (
                child(module_command("decoder")) as process,
                contextlib.AsyncExitStack() as stack,
            ):
                assert process.stdout is not None  # noqa: S101 - a pipe was asked for.
                answers = receive_frames(process.stdout, Decoded)
                stack.push_async_callback(answers.aclose)
                is_fresh = True
                while waiting is not None:
                    try:
                        has_ended = not await self._make(waiting, process, answers)
                    except OSError as error:
                        has_ended = False
                        self._problems["disk"] = disk_error(error).sentence
                    if has_ended:
                        log.warning("datacast.decoder-ended", toi=waiting.toi)
                        if is_fresh:
                            self._again(waiting, is_wrong=True)
                            waiting = None
                        # Else another block may have been its end: this one gets a decoder of its own.
                        break
                    waiting, is_fresh = None, False
                    with trio.move_on_after(DECODER_IDLE_S):
                        waiting = await self._receive_ready.receive()

    async def _make(self, ready: Ready, process: trio.Process, answers: object) -> bool:
        """Make a block whole and hand it over; False when the decoder has ended."""
        key = (ready.channel, ready.toi)
        owner = self._owners.get(key)
        if owner is None or ready.session != self._session or self._open.get(key) != ready.size:
            return True
        path = self._folder / "blocks"
        if 0 in ready.source:
            job = DecodeJob(
                path=str(path),
                offset=ready.offset,
                size=ready.size,
                source=ready.source,
                repairs=ready.repairs,
            )
            answer: Decoded | None = None
            with contextlib.suppress(trio.BrokenResourceError):
                assert process.stdin is not None  # noqa: S101 - a pipe was asked for.
                await process.stdin.send_all(encode_frame(job))
                answer = await anext(answers, None)  # type: ignore[call-overload]
            if answer is None:
                return False
            if not answer.is_whole:
                self._again(ready, is_wrong=False)
                return True
        data = await trio.to_thread.run_sync(_read, path, ready.offset, ready.size)
        if self._owners.get(key) is not owner:
            return True  # Something else is wanted meanwhile.
        holder, number = owner
        if isinstance(holder, _Object):
            await self._take_block(holder, number, data)
        else:
            await self._take_content(holder, number, data, ready)
        return True

    def _again(self, ready: Ready, *, is_wrong: bool) -> None:
        self._send(
            Again(session=ready.session, channel=ready.channel, toi=ready.toi, is_wrong=is_wrong)
        )

    # Content.

    async def _take_content(
        self, content: _Content, number: int, data: bytes, ready: Ready
    ) -> None:
        def check() -> list[tuple[Part, bool]]:
            view = memoryview(data)
            return [
                (
                    part,
                    is_right(
                        content.torrent,
                        content.halves,
                        part,
                        view[part.start : part.start + part.length],
                    ),
                )
                for part in content.layout.parts(number)
            ]

        judged = await trio.to_thread.run_sync(check)
        is_good = all(good for _, good in judged)
        if is_good:
            if number not in content.whole:
                self.blocks_done += 1
                self.bytes_done += len(data)
            content.whole[number] = ready
        has_engine = self._engine.status(content.entry.infohash) is not None
        for part, good in judged:
            if good and part.is_whole:
                self._hand_over(content, part.piece, data[part.start : part.start + part.length])
            elif good and is_good:
                await self._hand_over_halves(content, part.piece)
        if not is_good:
            log.warning("datacast.wrong-block", id=content.entry.id, block=number)
            self._again(ready, is_wrong=True)
        elif has_engine:
            content.handed[number] = time.monotonic()
        else:
            # The torrent isn't in the engine yet; the block is taken up soon again.
            content.handed[number] = time.monotonic() - HANDED_S + LOOK_S

    def _hand_over(self, content: _Content, piece: int, data: bytes) -> None:
        self._engine.add_piece(content.entry.infohash, piece, data)

    async def _hand_over_halves(self, content: _Content, piece: int) -> bool:
        """A piece larger than a block, when all blocks with a part of it are whole."""
        parts: list[tuple[int, Part]] = [
            (number, part)
            for number in content.layout.blocks_of(iter([piece]))
            for part in content.layout.parts(number)
            if part.piece == piece
        ]
        found: list[bytes] = []
        for number, part in parts:
            ready = content.whole.get(number)
            if ready is None:
                return True  # The one that comes last hands it over.
            found.append(
                await trio.to_thread.run_sync(
                    _read, self._folder / "blocks", ready.offset + part.start, part.length
                )
            )
        return self._engine.add_piece(content.entry.infohash, piece, b"".join(found))

    # Objects.

    async def _take_block(self, fetch: _Object, number: int, data: bytes) -> None:
        if self._objects.get(fetch.name) is not fetch:
            return
        path = self._received_path(fetch)
        await trio.to_thread.run_sync(
            _write_at, path, number * fetch.sizes[0], data, fetch.ref.size
        )
        fetch.done.add(number)
        if len(fetch.done) < len(fetch.sizes):
            return
        try:
            await self._take_object(fetch, path)
        except CuntongError as error:
            log.warning("datacast.bad-object", name=fetch.name, code=error.code, text=str(error))
            if error.code == "datacast.bad-object" and not await trio.to_thread.run_sync(
                _is_object, path, fetch.ref
            ):
                fetch.done.clear()
                for at in range(len(fetch.sizes)):
                    self._send(
                        Again(
                            session=self._session,
                            channel=int(fetch.channel),
                            toi=fetch.ref.toi + at,
                            is_wrong=True,
                        )
                    )
                return
            self._refused.add(fetch.ref.sha256)
            self._problems[fetch.name] = error.sentence
        else:
            self._problems.pop(fetch.name, None)
        if self._objects.get(fetch.name) is fetch:
            self._drop_object(fetch.name)

    async def _take_object(self, fetch: _Object, path: Path) -> None:
        kind, _, rest = fetch.name.partition("/")
        if kind == PROGRAMME:
            data = await trio.to_thread.run_sync(read_object, path, fetch.ref)
            programme = await trio.to_thread.run_sync(decode_programme, data)
            self._programme, self._programme_ref = programme, fetch.ref
            self._entries = {entry.infohash: entry for entry in programme.bundles}
        elif kind == "manifest":
            data = await trio.to_thread.run_sync(read_object, path, fetch.ref)
            target = self._manifest_path(bytes.fromhex(rest))
            target.parent.mkdir(exist_ok=True)
            await trio.to_thread.run_sync(write_atomically, target, data)
        else:
            target = self._catalogues.snapshot_path(rest)
            if kind == "snapshot":
                data = await trio.to_thread.run_sync(read_object, path, fetch.ref)
                target.parent.mkdir(exist_ok=True)
                await trio.to_thread.run_sync(write_atomically, target, data)
                path = target
            await self._take_catalogue(rest, path, fetch.ref)

    async def _take_catalogue(self, authority: str, path: Path, ref: Ref) -> None:
        """Put a catalogue's files where the trust layer looks for them."""
        is_superseded = any(
            entry.authority == authority and entry.snapshot == ref and entry.delta is not None
            for entry in (self._programme.catalogues if self._programme is not None else ())
        )
        count = await trio.to_thread.run_sync(
            partial(
                self._catalogues.take,
                Division(authority),
                path,
                ref,
                is_superseded=is_superseded,
            )
        )
        taken = self._taken.get(authority, ())
        self._taken[authority] = (*taken[-7:], ref.sha256)
        if count:
            log.info("datacast.catalogue", authority=authority, files=count)
            self._look_at_spool()

    def _read_manifest(self, path: Path, entry: BundleEntry, item: Wanted) -> _Content:
        """A manifest that fits what was signed; its torrent is kept. Blocks.

        Raises:
            CuntongError: it doesn't fit.
        """
        manifest = decode_manifest(path.read_bytes())
        torrent = decode_torrent(manifest.torrent, infohash=entry.infohash)
        if torrent.payload_size != item.want.size:
            raise BundleError(
                "bundle.payload-mismatch",
                N_("The payload doesn't have the size that its descriptor states."),
            )
        check_access(torrent, is_restricted=item.want.is_restricted)
        check_halves(torrent, manifest.halves)
        keep_torrent(self._paths, torrent)
        return _Content(entry, torrent, manifest.halves, Layout(torrent))

    def _manifest_path(self, infohash: bytes) -> Path:
        return self._folder / "manifests" / infohash.hex()

    def _received_path(self, fetch: _Object) -> Path:
        return self._folder / "received" / f"{fetch.channel}.{fetch.ref.toi}"


def _read(path: Path, offset: int, length: int) -> bytes:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return os.pread(descriptor, length, offset)
    finally:
        os.close(descriptor)


def _write_at(path: Path, offset: int, data: bytes, size: int) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        os.ftruncate(descriptor, size)  # Something longer may have had its place.
        os.pwrite(descriptor, data, offset)
    finally:
        os.close(descriptor)


def _is_object(path: Path, ref: Ref) -> bool:
    try:
        read_object(path, ref)
    except (OSError, DatacastError):
        return False
    return True


def read_order(paths: DataPaths, section: DishSection) -> ReadOrder:
    """What a reader is told; the nation's CA comes from the node's keys.

    Raises:
        OSError: the keys can't be read.
        EnrolmentError: `node.bad-certificate`.
    """
    anchor = load_chain(KeyFiles(paths.keys).anchor.read_bytes())[0]
    address, port = parse_address(section.group)
    return ReadOrder(
        folder=str((paths.datacast / "receiver").resolve()),
        anchor=certificate_der(anchor),
        sender=section.sender,
        address=address,
        port=port,
        interface=section.interface,
        source=section.source,
        quota_bytes=section.spool_bytes,
    )

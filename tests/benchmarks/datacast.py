"""What the satellite's time yields: file bytes for each IP byte sent until every receiver has the whole bundle.

Three ways, each with real packets, digests, beacon, identities, catalogue, programme and manifest:

- *counted*: the real caster, with its pacer and encoders on a counted clock in this process; for each receiver the real
  intake, spool and decoder, behind a channel of its own. Says also where what isn't the file went.
- *namespaces*: the caster's real processes, and receivers with the real sockets, behind the satellite emulator.
- beside them, in the same namespaces and with the same losses, `udp-sender --async` (udpcast) and uftp, where installed.

Then what RaptorQ itself costs: symbols beyond K, and the speed of encoder and decoder beside the line's.
"""

from __future__ import annotations

import contextlib
import filecmp
import importlib.util
import json
import math
import multiprocessing
import os
import random
import select
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Executor, Future, ProcessPoolExecutor
from dataclasses import dataclass, field
from hashlib import sha256
from ipaddress import ip_address
from multiprocessing.connection import Connection
from pathlib import Path
from statistics import fmean
from typing import Any, TypeVar
from unittest import mock

import msgspec
import trio
from cryptography import x509
from trio.testing import MockClock

from cuntong_daemon.datacast.blockspool import BlockSpool, OpenBlock
from cuntong_daemon.datacast.caster import Caster, CastOrder
from cuntong_daemon.datacast.decoder import DecodeJob, decode
from cuntong_daemon.datacast.encoder import Encoded, EncodeJob, encode, read_stretches
from cuntong_daemon.datacast.frames import encode_frame
from cuntong_daemon.datacast.intake import Intake
from cuntong_daemon.datacast.lineup import Lineup, LineupBundle, LineupCatalogue
from cuntong_daemon.datacast.pacer import Pacer, ip_bytes
from cuntong_daemon.datacast.sockets import Group, dropped_packets, open_receiver
from cuntong_daemon.datacast.symbols import BATCH_SYMBOLS
from cuntong_daemon.paths import DataPaths
from cuntong_daemon.pki.certificates import KeyFiles, load_chain
from cuntong_daemon.store.torrents import keep_torrent
from cuntong_protocol.bundle.torrent import Torrent, decode_torrent, piece_length_for
from cuntong_protocol.datacast.blocks import (
    BLOCK_BYTES,
    Layout,
    check_halves,
    esi_limit,
    is_right,
    object_blocks,
    symbol_count,
)
from cuntong_protocol.datacast.objects import (
    BundleEntry,
    Ref,
    check_object,
    decode_manifest,
    decode_programme,
)
from cuntong_protocol.datacast.packets import (
    IP_BYTES,
    PACKET_BYTES,
    SYMBOL_BYTES,
    Channel,
    Codepoint,
    read_header,
)
from cuntong_protocol.divisions import NATION
from cuntong_simulations.lab.errors import LabError
from cuntong_simulations.lab.namespaces import entered, isolate
from cuntong_simulations.sky import channel as sky
from cuntong_simulations.sky.wires import INTERFACE, SENDER, SkyWires, address
from tests.support.payloads import random_bytes, torrent_of, write_payload
from tests.support.pki import NOW
from tests.support.pki import World as Authorities
from tests.support.trust_repo import Repository

MIB = 1024 * 1024
BUNDLE_BYTES = 64 * MIB
RECEIVERS = 3
GOALS = {0.0: 0.94, 0.05: 0.89, 0.20: 0.74}
"""File bytes for each IP byte, by loss."""
RATE_BYTES_S = 2_500_000
SLOW_RATE_BYTES_S = 250_000
"""What `[cast]` has if nothing else is said."""
REAL_RATE_KBIT_S = 30_000
"""Over the namespaces; what sender, emulator and three receivers on two cores keep up with."""
SEEDS = (1, 2, 3, 4, 5, 6)
GROUP = Group("232.20.1.1", 7450, INTERFACE, SENDER)
LISTENING, HEARING = "listening", "hearing"
SPOOL_BYTES = 1_000_000_000
CATALOGUE_BUNDLES = 1
"""In the catalogue that is on the air with the bundle."""
BUNDLE_ID = f"{NATION}/202611/films"
LIMIT_S = 3600.0
"""Of a cast on the counted clock."""
ENCODE_S = 0.03
"""What a job of an encoder takes there: as on a machine of these years."""
LOOK_S = 0.02
AT_ONCE = 256
"""Packets between two looks at what the decoder has done."""
LISTEN_S = 120.0
START_S = 60.0

OVERHEAD_DECODES = 10_000
OVERHEAD_SYMBOLS = 820
OVERHEAD_GOAL = 0.02
SPEED_GOAL = 50
SPEED_BLOCKS = 24

FEC = {
    0.0: ("8x1/128", "8x4/128", "8x8/128"),
    0.05: ("8x12/128", "8x16/128", "8x20/128", "8x24/128", "8x32/128", "8x48/128"),
    0.20: ("8x48/128", "8x64/128", "8x80/128", "8x96/128", "8x127/128"),
}
"""udpcast's `interleave x redundancy / stripe`, the least first: the first with which all receivers get all counts."""
UDPCAST_S = 120.0
UFTP_S = 120.0
UFTP_TRIES = 3


# What is sent.


@dataclass(frozen=True, slots=True)
class Content:
    """A sender's data directory with a bundle that may be cast."""

    paths: DataPaths
    anchor: x509.Certificate
    torrent: Torrent
    catalogues: list[LineupCatalogue]

    @property
    def bundle(self) -> LineupBundle:
        return LineupBundle(
            id=BUNDLE_ID,
            infohash=self.torrent.infohash,
            size=self.torrent.payload_size,
            priority=5,
        )

    def order(self, rate_bytes_s: int) -> CastOrder:
        """How it is sent."""
        return CastOrder(
            data=str(self.paths.root.resolve()),
            sender=str(NATION),
            address=GROUP.address,
            port=GROUP.port,
            interface=GROUP.interface,
            source=GROUP.source,
            hops=8,
            rate_bytes_s=rate_bytes_s,
        )


def make_content(folder: Path, *, size: int = BUNDLE_BYTES) -> Content:
    """Keys, a signed catalogue, and a payload of exactly so many bytes."""
    authorities = Authorities("ed25519", folder / "authorities")
    keys, _ = authorities.node(NATION, NATION)
    paths = DataPaths(folder / "sender")
    paths.root.mkdir(parents=True)
    keys.rename(paths.keys)
    repository = Repository(NATION)
    for number in range(CATALOGUE_BUNDLES):
        repository.list_bundle(f"bundle-{number}", data=random_bytes(600, number))
    repository.publish()
    trusted = paths.trusted / str(NATION)
    for target, files in ((trusted, repository.files), (paths.blobs, repository.blobs)):
        target.mkdir(parents=True)
        for name, data in files.items():
            (target / name).write_bytes(data)
    small = {"files/index.html": random_bytes(3000, 2), "index": random_bytes(99, 3)}
    rest = size - sum(map(len, small.values()))
    files = {"files/film.mp4": random_bytes(rest, 1), **small}
    torrent = torrent_of(files, piece_length=piece_length_for(size))
    write_payload(paths, torrent, files)
    keep_torrent(paths, torrent)
    catalogue = LineupCatalogue(
        authority=str(NATION),
        version=repository.version,
        sha256=sha256(repository.files["timestamp.json"]).digest(),
    )
    anchor = load_chain(KeyFiles(paths.keys).anchor.read_bytes())[0]
    return Content(paths, anchor, torrent, [catalogue])


# Who receives.


class AtOnce(Executor):
    """Does what it is given before it says that it has taken it."""

    def submit(self, work: Callable[..., Any], /, *arguments: Any, **named: Any) -> Future[Any]:
        done: Future[Any] = Future()
        done.set_result(work(*arguments, **named))
        return done


def decode_job(job: DecodeJob) -> bytes | None:
    """What the decoder's process does with a block."""
    descriptor = os.open(job.path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        if 0 not in job.source:
            return os.pread(descriptor, job.size, job.offset)
        return decode(job, descriptor)
    finally:
        os.close(descriptor)


class Village:
    """A receiver: what reader, decoder and daemon do, without the swarm; one packet at a time.

    Attributes:
        completed_by: The mark of the packet that made the bundle whole.
        tries: Decodings of its blocks.
    """

    def __init__(
        self, folder: Path, anchor: x509.Certificate, decoder: Executor | None = None
    ) -> None:
        """Begin with an empty spool.

        Args:
            folder: For the spool.
            anchor: The nation's CA.
            decoder: Decodes blocks; if there is none, that is done while the packet is taken.
        """
        folder.mkdir(parents=True)
        self._decoder = decoder or AtOnce()
        self._decoding: list[tuple[OpenBlock, bytes, Future[bytes | None]]] = []
        self._spool = BlockSpool(folder, quota_bytes=SPOOL_BYTES)
        self._intake = Intake(
            self._spool,
            anchor=anchor,
            sender=NATION,
            session=self._spool.session,
            number=self._spool.number,
        )
        self._intake.judge(proven_time=NOW, removed=())
        self._known: set[bytes] = set()
        self._objects: dict[tuple[int, int], tuple[Ref, int]] = {}
        self._parts: dict[bytes, dict[int, bytes]] = {}
        self._entry: BundleEntry | None = None
        self._torrent: Torrent | None = None
        self._layout: Layout | None = None
        self._missing: set[int] = set()
        self.has_programme = False
        self.completed_by = b""
        self.tries = 0

    def close(self) -> None:
        self._spool.close()

    def hear(self, packet: bytes, now: float) -> None:
        """Take a packet."""
        beacon = self._intake.feed(packet, now)
        if beacon is not None:
            self._spool.begin_session(self._intake.session)
            self._spool.number = beacon.number
            if beacon.programme is not None:
                self._gather(Channel.CATALOGUE, beacon.programme)
        while ready := self._spool.ready():
            for block in ready:
                self._decode(block, mark_of(packet))
            self.look()

    def look(self) -> None:
        """Take what the decoder has done."""
        done = [it for it in self._decoding if it[2].done()]
        for it in done:
            self._decoding.remove(it)
            self._take(*it)

    def _gather(self, channel: Channel, ref: Ref) -> None:
        if ref.sha256 in self._known:
            return
        self._known.add(ref.sha256)
        self._parts[ref.sha256] = {}
        wanted: list[tuple[int, int, int]] = []
        for number, size in enumerate(object_blocks(ref.size)):
            self._objects[channel, ref.toi + number] = (ref, number)
            wanted.append((channel, ref.toi + number, size))
        self._spool.open_blocks_of(wanted)

    def _decode(self, block: OpenBlock, mark: bytes) -> None:
        job = DecodeJob(
            path=str(self._spool.path),
            offset=block.offset,
            size=block.size,
            source=bytes(block.source),
            repairs=list(block.repairs),
        )
        self.tries += block.channel == Channel.CONTENT and 0 in block.source
        self._decoding.append((block, mark, self._decoder.submit(decode_job, job)))

    def _take(self, block: OpenBlock, mark: bytes, future: Future[bytes | None]) -> None:
        """Look whether a block is what it should be."""
        key = (block.channel, block.toi)
        data = future.result()
        if data is None:
            self._spool.again(*key, is_wrong=False)
            return
        self._spool.close_blocks([key])
        if block.channel != Channel.CONTENT:
            self._take_part(*self._objects.pop(key), block.channel, data)
            return
        self._check(block.toi, data)
        if not self._missing:
            # One decoder does one block after the other, in the order in which they had enough symbols.
            self.completed_by = mark

    def _take_part(self, ref: Ref, number: int, channel: int, data: bytes) -> None:
        parts = self._parts[ref.sha256]
        parts[number] = data
        if len(parts) < len(object_blocks(ref.size)):
            return
        whole = b"".join(parts[at] for at in sorted(parts))
        check_object(ref, whole)
        if channel == Channel.CATALOGUE:
            self.has_programme = True
            for entry in decode_programme(whole).bundles:
                self._entry = self._entry or entry
                self._gather(Channel.MANIFEST, entry.manifest)
        elif self._layout is None:
            assert self._entry is not None
            manifest = decode_manifest(whole)
            self._torrent = decode_torrent(manifest.torrent, infohash=self._entry.infohash)
            check_halves(self._torrent, manifest.halves)
            self._layout = Layout(self._torrent)
            sizes = self._layout.sizes
            self._missing = set(range(len(sizes)))
            self._spool.open_blocks_of(
                [(Channel.CONTENT, self._entry.toi + at, size) for at, size in enumerate(sizes)]
            )

    def _check(self, toi: int, data: bytes) -> None:
        assert self._entry is not None
        assert self._torrent is not None
        assert self._layout is not None
        number = toi - self._entry.toi
        view = memoryview(data)
        for part in self._layout.parts(number):
            piece = view[part.start : part.start + part.length]
            if not is_right(self._torrent, {}, part, piece):
                raise RuntimeError(f"block {number} is wrong")
        self._missing.discard(number)


def mark_of(packet: bytes) -> bytes:
    """What tells a symbol from all others, until its numbers begin anew."""
    return bytes(packet[: PACKET_BYTES - SYMBOL_BYTES])


KINDS = ("content", "digests", "manifest", "catalogue", "beacon", "fillers")
_KIND_OF = {
    Codepoint.DIGESTS: "digests",
    Codepoint.BEACON: "beacon",
    Codepoint.IDENTITY: "beacon",
    Codepoint.FILLER: "fillers",
}


@dataclass(slots=True)
class Witness:
    """Counts what was sent, from `begin` on: IP bytes by kind, as they were when a symbol was sent."""

    is_counting: bool = False
    counts: dict[str, int] = field(default_factory=lambda: dict.fromkeys(KINDS, 0))
    marks: dict[bytes, tuple[int, ...]] = field(default_factory=dict)

    def hear(self, packet: bytes) -> None:
        """A packet was sent."""
        if not self.is_counting:
            return
        header = read_header(packet)
        kind = _KIND_OF.get(header.codepoint) or header.channel.name.lower()
        if kind == "fillers" and not self.counts["content"]:
            return  # Nothing could be sent yet: the line's time that nobody needs.
        self.counts[kind] += len(packet) + IP_BYTES
        if header.codepoint is Codepoint.SYMBOL:
            self.marks[mark_of(packet)] = tuple(self.counts.values())


@dataclass(frozen=True, slots=True)
class Outcome:
    """A cast, when the last receiver had all.

    Attributes:
        size: File bytes.
        sent: IP bytes of each kind.
        needed: Source symbols of all blocks.
        tries, blocks: Decodings at all receivers, and blocks there.
    """

    size: int
    sent: dict[str, int]
    needed: int
    loss: float
    tries: int = 0
    blocks: int = 0
    note: str = ""

    @property
    def ratio(self) -> float:
        return self.size / sum(self.sent.values())

    @property
    def symbols(self) -> float:
        """Content symbols that were sent."""
        return self.sent["content"] / (PACKET_BYTES + IP_BYTES)

    def shares(self) -> dict[str, float]:
        """Where the bytes went, in parts of all that was sent; they add up to 1."""
        total = sum(self.sent.values())
        packet = PACKET_BYTES + IP_BYTES
        ideal = self.needed / (1 - self.loss)
        found = {
            "file": self.size / total,
            "padding": (self.needed * SYMBOL_BYTES - self.size) / total,
            "lost on the way, unavoidably": (ideal - self.needed) * SYMBOL_BYTES / total,
            "sent beyond that": (self.symbols - ideal) * SYMBOL_BYTES / total,
            "headers of content": self.symbols * (packet - SYMBOL_BYTES) / total,
        }
        return found | {kind: self.sent[kind] / total for kind in KINDS if kind != "content"}


@dataclass(frozen=True, slots=True)
class Completed:
    """What a receiver tells when it has the bundle.

    Attributes:
        by: The mark of the packet that brought that.
        tries: Decodings of its blocks.
        dropped: Packets that the kernel dropped at its socket.
    """

    by: bytes
    tries: int
    dropped: int = 0


def outcome_of(
    content: Content, witness: Witness, villages: Sequence[Completed], loss: float, note: str = ""
) -> Outcome:
    """What was sent up to the packet that completed the last receiver."""
    counts = max((witness.marks[village.by] for village in villages), key=sum)
    sizes = Layout(content.torrent).sizes
    return Outcome(
        size=content.torrent.payload_size,
        sent=dict(zip(KINDS, counts, strict=True)),
        needed=sum(map(symbol_count, sizes)),
        loss=loss,
        tries=sum(village.tries for village in villages),
        blocks=len(sizes) * len(villages),
        note=note,
    )


# On a counted clock.

T = TypeVar("T")


async def _at_once(work: Callable[..., T], *arguments: Any, **_settings: Any) -> T:
    """In the place of a thread: a counted clock doesn't wait for one, and would tell another story each time."""
    found = work(*arguments)
    await trio.lowlevel.checkpoint()
    return found


class CountedCaster(Caster):
    """The caster with its pacer and its encoders on the clock of this process."""

    def __init__(self, order: CastOrder, send: Callable[[bytes], None]) -> None:
        super().__init__(order, lambda _status: None)
        self._put_on_air = send
        self._to_encoders, self._encoders = trio.open_memory_channel[EncodeJob](math.inf)

    async def _run_pacer(self) -> None:
        pacer = Pacer(
            self._ring,
            lambda packet: self._put_on_air(bytes(packet)),
            rate_bytes_s=self._order.rate_bytes_s,
            session=self._state.session,
            headers=ip_bytes(self._group),
            now=trio.current_time(),
        )
        while True:
            again_at = pacer.step(trio.current_time())
            await trio.sleep_until(again_at)

    def _ask(self, job: EncodeJob) -> None:
        self._to_encoders.send_nowait(job)

    async def _run_encoder(self) -> None:
        async for job in self._encoders.clone():
            symbols = encode(read_stretches(job.source), job.first, job.count)
            await trio.to_thread.run_sync(Path(job.output).write_bytes, symbols)
            await trio.sleep(ENCODE_S)
            self._symbols.encoded(Encoded(id=job.id))


def cast_counted(
    content: Content,
    folder: Path,
    *,
    loss: float,
    receivers: int = RECEIVERS,
    seed: int = 1,
    rate_bytes_s: int = RATE_BYTES_S,
) -> Outcome:
    """Cast a bundle on a counted clock, until every receiver has it.

    Args:
        content: What; the sender's state is begun anew.
        folder: For the receivers' spools; empty.
        loss: Of each packet at each receiver, independently.
        receivers: How many.
        seed: Of the losses.
        rate_bytes_s: What the caster sends.
    """
    shutil.rmtree(content.paths.datacast, ignore_errors=True)
    villages = [Village(folder / str(number), content.anchor) for number in range(receivers)]
    channels = [
        sky.Channel(sky.ChannelSettings(loss=loss), seed=f"{seed} {number}")
        for number in range(receivers)
    ]
    witness = Witness()
    over = trio.Event()

    def send(packet: bytes) -> None:
        now = trio.current_time()
        witness.hear(packet)
        for village, channel in zip(villages, channels, strict=True):
            if not village.completed_by and channel.carry(now):
                village.hear(packet, now)
        if all(village.completed_by for village in villages):
            over.set()

    async def is_heard() -> None:
        while True:
            if all(village.has_programme for village in villages):
                return
            await trio.sleep(1)

    async def cast() -> None:
        caster = CountedCaster(content.order(rate_bytes_s), send)
        try:
            with trio.fail_after(LIMIT_S):
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(caster.run)
                    caster.set_lineup(Lineup(catalogues=content.catalogues))
                    await is_heard()
                    witness.is_counting = True
                    caster.set_lineup(
                        Lineup(bundles=[content.bundle], catalogues=content.catalogues)
                    )
                    await over.wait()
                    nursery.cancel_scope.cancel()
        finally:
            caster.close()

    try:
        with mock.patch.object(trio.to_thread, "run_sync", _at_once):
            trio.run(cast, clock=MockClock(autojump_threshold=0))
    finally:
        for village in villages:
            village.close()
    completed = [Completed(village.completed_by, village.tries) for village in villages]
    return outcome_of(content, witness, completed, loss)


# Through namespaces.


def _completed(said: Sequence[object]) -> list[Completed]:
    return [it for it in said if isinstance(it, Completed)]


def _be_village(pipe: Connection, handle: int, folder: Path, anchor: x509.Certificate) -> None:
    """A process of its own, as a receiver's reader is: it tells when it hears the sender, and when it has all."""
    with entered(handle):
        source = open_receiver(GROUP)
    with ProcessPoolExecutor(1, multiprocessing.get_context("fork")) as decoder:
        village = Village(folder, anchor, decoder)
        pipe.send(LISTENING)
        is_told = False
        while not village.completed_by:
            select.select([source], (), (), LOOK_S)
            village.look()
            with contextlib.suppress(BlockingIOError):
                for _ in range(AT_ONCE):
                    village.hear(source.recv(PACKET_BYTES + 1), time.monotonic())
            if village.has_programme and not is_told:
                is_told = True
                pipe.send(HEARING)
        pipe.send(Completed(village.completed_by, village.tries, dropped_packets(source)))
        village.close()


def cast_through(content: Content, folder: Path, *, loss: float, seed: int) -> Outcome:
    """Cast a bundle through the satellite emulator; this process has namespaces of its own."""
    shutil.rmtree(content.paths.datacast, ignore_errors=True)
    names = [f"dish {number}" for number in range(RECEIVERS)]
    channels = dict.fromkeys(names, sky.ChannelSettings(loss=loss))
    witness = Witness()
    with contextlib.ExitStack() as stack:
        wires = SkyWires(channels | {"witness": sky.ChannelSettings()}, seed=seed)
        stack.callback(wires.close)
        with entered(wires.dishes["witness"].handle):
            source = stack.enter_context(open_receiver(GROUP))
        told: dict[Connection, list[object]] = {}
        for name in names:
            ours, theirs = multiprocessing.Pipe()
            told[ours] = []
            village = multiprocessing.get_context("fork").Process(
                target=_be_village,
                args=(theirs, wires.dishes[name].handle, folder / name, content.anchor),
            )
            village.start()
            stack.callback(village.join)
            stack.callback(village.kill)

        def listen(is_over: Callable[[], bool], seconds: float) -> None:
            deadline = time.monotonic() + seconds
            while not is_over():
                if time.monotonic() > deadline:
                    raise RuntimeError(f"not complete after {seconds:.0f} s at {loss:.0%} loss")
                waited = [pipe for pipe, said in told.items() if not _completed(said)]
                select.select([it.fileno() for it in (source, *waited)], (), (), 1.0)
                for pipe in waited:
                    if pipe.poll():
                        told[pipe].append(pipe.recv())
                with contextlib.suppress(BlockingIOError):
                    for _ in range(AT_ONCE):
                        witness.hear(source.recv(PACKET_BYTES + 1))

        listen(lambda: all(it == [LISTENING] for it in told.values()), START_S)
        order = msgspec.json.encode(content.order(REAL_RATE_KBIT_S * 125)).decode()
        command = [*wires.sender.prefix, sys.executable, "-m", "cuntong_daemon.datacast.caster"]
        caster = stack.enter_context(
            subprocess.Popen([*command, order], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL)
        )
        stack.callback(caster.kill)
        assert caster.stdin is not None
        caster.stdin.write(encode_frame(Lineup(catalogues=content.catalogues)))
        caster.stdin.flush()
        listen(lambda: all(HEARING in it for it in told.values()), START_S)
        witness.is_counting = True
        both = Lineup(bundles=[content.bundle], catalogues=content.catalogues)
        caster.stdin.write(encode_frame(both))
        caster.stdin.flush()

        def completed() -> list[Completed]:
            return [found for said in told.values() for found in _completed(said)]

        listen(lambda: len(completed()) == RECEIVERS, LISTEN_S)
        # The witness may be read a little after the others.
        listen(lambda: all(it.by in witness.marks for it in completed()), START_S)
        caster.stdin.close()
        caster.wait(START_S)
        dropped = [it.dropped for it in completed()]
        sample = wires.stop()
        taken = {dish.name: sum(dish.lost.values()) / sample.packets for dish in sample.dishes}
        note = (
            f"lost {', '.join(f'{taken[name]:.1%}' for name in names)}; dropped by the kernel:"
            f" {sum(dropped)} at sockets, {sample.kernel_drops} at the emulator, which was late by"
            f" {sample.lateness.p99_ms:.1f} ms (99 %)"
        )
        return outcome_of(content, witness, completed(), loss, note)


def udpcast(payload: Path, folder: Path, *, loss: float, fec: str, seed: int) -> float:
    """What `udp-sender --async` makes of the sender's bytes; 0 when a receiver doesn't get all."""
    rendezvous = ("--mcast-rdv-address", "239.20.1.1", "--interface", INTERFACE, "--nokbd")
    with _contenders(folder, loss=loss, seed=seed) as (wires, files, processes):
        for name, place in wires.dishes.items():
            command = [*place.prefix, "udp-receiver", *rendezvous, "--ttl", "8"]
            processes.append(_quiet([*command, "--file", str(files[name])], files[name].parent))
        sender = [
            *wires.sender.prefix,
            "udp-sender",
            "--async",
            "--file",
            str(payload),
            *rendezvous,
        ]
        sender += ["--mcast-data-address", "239.20.1.2", "--ttl", "8", "--fec", fec]
        sender += ["--max-bitrate", f"{REAL_RATE_KBIT_S}k", "--rexmit-hello-interval", "100"]
        sender += ["--autostart", "20"]
        _finish(_quiet(sender, folder), processes, UDPCAST_S)
        return _ratio(payload, files, wires)


def uftp(payload: Path, folder: Path, *, loss: float, seed: int, is_two_way: bool) -> float:
    """The same for uftp, which asks its receivers what they miss."""
    groups = ("-M", "239.20.2.1", "-I", INTERFACE)
    with _contenders(folder, loss=loss, seed=seed, is_two_way=is_two_way) as found:
        wires, files, processes = found
        for name, place in wires.dishes.items():
            home = files[name].parent
            command = [*place.prefix, "uftpd", "-d", *groups, "-D", str(home)]
            processes.append(_quiet(command, home))
        # Else it begins without those whose answers it hasn't got soon enough.
        hosts = [f"0x{int(ip_address(address(2 + at))):08X}" for at in range(RECEIVERS)]
        sender = [*wires.sender.prefix, "uftp", *groups, "-P", "239.20.2.2", "-t", "8"]
        sender += ["-H", ",".join(hosts), "-s", "50"]
        sender += ["-R", str(REAL_RATE_KBIT_S), "-D", "file", str(payload)]
        _finish(_quiet(sender, folder), processes, UFTP_S, is_daemon=True)
        return _ratio(payload, files, wires)


@contextlib.contextmanager
def _contenders(
    folder: Path, *, loss: float, seed: int, is_two_way: bool = False
) -> Iterator[tuple[SkyWires, dict[str, Path], list[subprocess.Popen[bytes]]]]:
    names = [f"dish {number}" for number in range(RECEIVERS)]
    files = {name: folder / name / "file" for name in names}
    for file in files.values():
        file.parent.mkdir(parents=True)
    channels = dict.fromkeys(names, sky.ChannelSettings(loss=loss))
    wires = SkyWires(channels, seed=seed, is_two_way=is_two_way)
    processes: list[subprocess.Popen[bytes]] = []
    try:
        yield wires, files, processes
    finally:
        for process in processes:
            process.kill()
            process.wait()
        wires.close()
        for file in files.values():
            shutil.rmtree(file.parent)


def _quiet(command: list[str], folder: Path) -> subprocess.Popen[bytes]:
    with (folder / "log").open("ab") as log:
        return subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=folder
        )


def _finish(
    sender: subprocess.Popen[bytes],
    receivers: Sequence[subprocess.Popen[bytes]],
    seconds: float,
    *,
    is_daemon: bool = False,
) -> None:
    """Wait for the sender, then a little for the receivers; those that go on have missed something."""
    try:
        sender.wait(seconds)
    except subprocess.TimeoutExpired:
        sender.kill()
        sender.wait()
    for receiver in receivers:
        with contextlib.suppress(subprocess.TimeoutExpired):
            receiver.wait(1 if is_daemon else 5)


def _ratio(payload: Path, files: Mapping[str, Path], wires: SkyWires) -> float:
    sent = wires.stop().bytes
    is_there = [
        file.exists() and filecmp.cmp(payload, file, shallow=False) for file in files.values()
    ]
    return payload.stat().st_size / sent if all(is_there) else 0.0


def inside(folder: Path) -> list[tuple[str, str]]:
    """All that needs namespaces."""
    rows: list[tuple[str, str]] = []
    content = make_content(folder / "content")
    payload = folder / "payload"
    payload.write_bytes(random_bytes(BUNDLE_BYTES, 1))
    for loss, goal in GOALS.items():
        outcome = cast_through(content, folder / f"cast {loss}", loss=loss, seed=SEEDS[0])
        named = f"namespaces, {REAL_RATE_KBIT_S // 1000} Mbit/s, {loss:.0%} loss"
        rows.append(
            (f"{named}: cuntong (goal: {goal:.2f})", f"{outcome.ratio:.4f} ({outcome.note})")
        )
        if shutil.which("udp-sender") and shutil.which("udp-receiver"):
            rows.append((f"{named}: udp-sender --async", _best_udpcast(payload, folder, loss)))
        else:
            rows.append((f"{named}: udp-sender --async", "not installed (udpcast)"))
        if shutil.which("uftp") and shutil.which("uftpd"):
            rows.append(
                (f"{named}: uftp, which needs a way back", _some_uftp(payload, folder, loss))
            )
        else:
            rows.append((f"{named}: uftp", "not installed (uftp)"))
    if shutil.which("uftp") and shutil.which("uftpd"):
        ratio = uftp(payload, folder / "uftp one-way", loss=0.0, seed=1, is_two_way=False)
        rows.append(("namespaces, no way back, 0% loss: uftp", _said(ratio)))
    return rows


def _said(ratio: float) -> str:
    return f"{ratio:.4f}" if ratio else "fails"


def _some_uftp(payload: Path, folder: Path, loss: float) -> str:
    """It loses a receiver now and then."""
    for number, seed in enumerate(SEEDS[:UFTP_TRIES], start=1):
        home = folder / f"uftp {loss} {seed}"
        ratio = uftp(payload, home, loss=loss, seed=seed, is_two_way=True)
        if ratio:
            return f"{ratio:.4f}" + (f" (in run {number})" if number > 1 else "")
    return f"fails {UFTP_TRIES} times"


def _best_udpcast(payload: Path, folder: Path, loss: float) -> str:
    tried: list[str] = []
    for fec in FEC[loss]:
        home = folder / f"udpcast {loss} {fec.replace('/', ' ')}"
        ratio = udpcast(payload, home, loss=loss, fec=fec, seed=SEEDS[0])
        if ratio:
            failed = f"; fail: {', '.join(tried)}" if tried else ""
            return f"{ratio:.4f} (--fec {fec}{failed})"
        tried.append(fec)
    return f"fails with --fec {', '.join(tried)}"


def through_namespaces() -> list[tuple[str, str]]:
    """Run `inside` in a process with its own namespaces; where there can be none, the reason is the result."""
    with tempfile.TemporaryDirectory() as folder:
        process = subprocess.run(
            [sys.executable, "-m", "tests.benchmarks.datacast", "--inside", folder],
            stdout=subprocess.PIPE,
            check=False,
        )
        if process.returncode:
            return [("namespaces", f"broke off with {process.returncode}")]
        return [(measured, figure) for measured, figure in json.loads(process.stdout)]


# RaptorQ itself.


@dataclass(frozen=True, slots=True)
class Overhead:
    """Symbols beyond K that decodings needed: how many needed 0, 1, 2 …"""

    counts: dict[int, int]

    @property
    def decodes(self) -> int:
        return sum(self.counts.values())

    @property
    def mean(self) -> float:
        return sum(more * times for more, times in self.counts.items()) / self.decodes


def overhead(
    folder: Path, *, decodes: int, symbols: int = OVERHEAD_SYMBOLS, seed: int = 1
) -> Overhead:
    """Decode blocks from random symbols, as many as the spool would wait for.

    Args:
        folder: For the symbols; they lie as in a spool.
        decodes: How many.
        symbols: K.
        seed: Of the choice, and of the bytes.
    """
    chosen = random.Random(seed)
    size = symbols * SYMBOL_BYTES
    data = random_bytes(size, seed)
    limit = esi_limit(size)
    repair = encode(data, symbols, limit - symbols)
    counts: dict[int, int] = {}
    descriptor = os.open(folder / "spool", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC)
    try:
        os.pwrite(descriptor, data, 0)
        for number in range(decodes):
            # From a few losses to a receiver that was switched on after the first pass.
            loss = (0.01, 0.05, 0.2, 0.5, 1.0)[number % 5]
            source = bytes(chosen.random() >= loss for _ in range(symbols))
            repairs = chosen.sample(range(symbols, limit), symbols - sum(source) + 8)
            for place, esi in enumerate(repairs):
                start = (esi - symbols) * SYMBOL_BYTES
                os.pwrite(
                    descriptor,
                    repair[start : start + SYMBOL_BYTES],
                    size + place * SYMBOL_BYTES,
                )
            for more in range(8):
                taken = repairs[: symbols - sum(source) + more]
                job = DecodeJob(path="", offset=0, size=size, source=source, repairs=taken)
                found = decode(job, descriptor)
                if found is not None:
                    break
            if found != data:
                raise RuntimeError("a decoding went wrong")
            counts[more] = counts.get(more, 0) + 1
    finally:
        os.close(descriptor)
    return Overhead(counts)


def speeds(folder: Path) -> list[tuple[str, str]]:
    """How much faster than the line encoder and decoder are, one core."""
    line_s = symbol_count(BLOCK_BYTES) * (PACKET_BYTES + IP_BYTES) / RATE_BYTES_S
    data = random_bytes(BLOCK_BYTES, 1)
    count = symbol_count(BLOCK_BYTES)
    began = time.perf_counter()
    for _ in range(SPEED_BLOCKS):
        repair = encode(data, count, BATCH_SYMBOLS)
    encode_s = (time.perf_counter() - began) / SPEED_BLOCKS
    last = esi_limit(BLOCK_BYTES) - BATCH_SYMBOLS
    began = time.perf_counter()
    encode(data, last, BATCH_SYMBOLS)
    last_s = time.perf_counter() - began
    batch_s = BATCH_SYMBOLS * (PACKET_BYTES + IP_BYTES) / RATE_BYTES_S
    missing = range(0, count, max(1, count // BATCH_SYMBOLS))
    descriptor = os.open(folder / "spool", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC)
    try:
        os.pwrite(descriptor, data, 0)
        os.pwrite(descriptor, repair, count * SYMBOL_BYTES)
        source = bytearray(b"\1" * count)
        gone = list(missing)[: BATCH_SYMBOLS - 2]
        for esi in gone:
            source[esi] = 0
        repairs = list(range(count, count + len(gone) + 2))
        job = DecodeJob(path="", offset=0, size=BLOCK_BYTES, source=bytes(source), repairs=repairs)
        began = time.perf_counter()
        for _ in range(SPEED_BLOCKS):
            if decode(job, descriptor) != data:
                raise RuntimeError("a decoding went wrong")
        decode_s = (time.perf_counter() - began) / SPEED_BLOCKS
    finally:
        os.close(descriptor)
    return [
        (
            f"decoding a block of 4 MiB with {len(gone) / count:.0%} of it repaired, beside its time on a line of 20 Mbit/s (goal: {SPEED_GOAL})",
            f"{line_s / decode_s:.0f} times as fast ({decode_s * 1000:.0f} ms)",
        ),
        (
            f"encoding {BATCH_SYMBOLS} repair symbols of it, beside their time on the line",
            f"{batch_s / encode_s:.1f} times as fast ({encode_s * 1000:.0f} ms);"
            f" in the last pass {batch_s / last_s:.1f} ({last_s * 1000:.0f} ms)",
        ),
    ]


# The table.


def counted(folder: Path) -> list[tuple[str, str]]:
    """Ratios on the counted clock, and where the rest went."""
    rows: list[tuple[str, str]] = []
    content = make_content(folder / "content")
    for loss, goal in GOALS.items():
        outcomes = [
            cast_counted(content, folder / f"{loss} {seed}", loss=loss, seed=seed) for seed in SEEDS
        ]
        ratios = [outcome.ratio for outcome in outcomes]
        rows.append(
            (
                f"counted, 20 Mbit/s, {loss:.0%} loss: cuntong (goal: {goal:.2f})",
                f"{fmean(ratios):.4f} ({min(ratios):.4f} to {max(ratios):.4f} with {len(SEEDS)} seeds)",
            )
        )
        each = [outcome.shares() for outcome in outcomes]
        shares = {name: fmean(found[name] for found in each) for name in each[0]}
        rows.append(
            (
                f"counted, {loss:.0%} loss: of the bytes sent",
                ", ".join(f"{name} {share:.2%}" for name, share in shares.items() if share >= 5e-5),
            )
        )
    for loss in GOALS:
        slow = cast_counted(
            content, folder / f"slow {loss}", loss=loss, rate_bytes_s=SLOW_RATE_BYTES_S
        )
        rows.append((f"counted, 2 Mbit/s, {loss:.0%} loss: cuntong", f"{slow.ratio:.4f}"))
    return rows


def run() -> list[tuple[str, str]]:
    """Measure; takes some ten minutes, most of it in other programs."""
    if importlib.util.find_spec("raptorq") is None:
        return [("datacast", "raptorq isn't installed (x86-64 only)")]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        rows = counted(folder / "counted")
        rows += through_namespaces()
        found = overhead(folder, decodes=OVERHEAD_DECODES)
        rows.append(
            (
                f"symbols beyond K in {found.decodes} decodings of {OVERHEAD_SYMBOLS} symbols (goal: {OVERHEAD_GOAL} in the mean)",
                f"{found.mean:.4f} ({', '.join(f'{more}: {times}' for more, times in sorted(found.counts.items()))})",
            )
        )
        return rows + speeds(folder)


def main() -> None:
    """Print the table, or be the part that has namespaces."""
    if sys.argv[1:2] != ["--inside"]:
        for measured, figure in run():
            sys.stdout.write(f"{measured}: {figure}\n")
        return
    try:
        isolate([sys.executable, "-m", "tests.benchmarks.datacast", *sys.argv[1:]])
        rows = inside(Path(sys.argv[2]))
    except LabError as error:
        rows = [("namespaces", f"{error} ({error.code})")]
    sys.stdout.write(json.dumps(rows))


if __name__ == "__main__":
    main()

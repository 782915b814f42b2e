"""The caster: the process that decides what is sent, makes the packets and signs them (SPEC 11.10).

It writes packets into a ring two seconds ahead of the pacer, so that neither the disk nor an encoder ever makes the
modem wait. What it has written but the pacer hasn't sent when all end is sent again.
"""

from __future__ import annotations

import contextlib
import math
import os
import sys
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from hashlib import sha256
from pathlib import Path

import msgspec
import trio

from cuntong_daemon.files import write_atomically
from cuntong_daemon.paths import DataPaths
from cuntong_daemon.pki.certificates import (
    KeyFiles,
    certificate_der,
    certificate_spki,
    load_chain,
    load_private_key,
)
from cuntong_daemon.policy.airtime import (
    URGENT_PRIORITY,
    Aired,
    Airtime,
    Kind,
    Run,
    forecast,
    turn_of,
)
from cuntong_daemon.store.errors import StoreError, disk_error
from cuntong_daemon.trust.spool import Spool
from cuntong_protocol.datacast.blocks import object_blocks, pass_length, symbol_count
from cuntong_protocol.datacast.errors import DatacastError
from cuntong_protocol.datacast.objects import (
    BundleEntry,
    CatalogueEntry,
    Item,
    Programme,
    Ref,
    catalogue_head,
    catalogue_items,
    encode_programme,
)
from cuntong_protocol.datacast.packets import (
    GROUP_SEGMENTS,
    GROUP_SYMBOLS,
    KEY_ID_BYTES,
    PACKET_BYTES,
    Beacon,
    Channel,
    Segment,
    beacon_packet,
    digest,
    digest_packet,
    identity_packet,
    symbol_packet,
)
from cuntong_protocol.errors import CuntongError
from cuntong_protocol.texts import N_, Sentence, sentence

from .children import child, module_command, receive_frames
from .encoder import Encoded, EncodeJob, Stretch
from .frames import encode_frame, write_frame
from .lineup import (
    CastBundle,
    Lineup,
    LineupBundle,
    LineupCatalogue,
    cast_bundle,
    catalogue_delta,
    catalogue_files,
    catalogue_snapshot,
)
from .onair import OnAirState
from .pacer import Pace, Paced, ip_bytes
from .ring import Ring, make_memory
from .signing import signer
from .sockets import Group
from .symbols import Symbols

AHEAD_S = 2.0
"""What lies in the ring: longer than an encoder's turn, a slow disk's or a collection of garbage."""
MIN_SLOTS = 512
ENCODERS = 2
FILL_S = 0.05
BEACON_S = 1.0
SAVE_S = 1.0
PROGRAMME_S = 10.0
"""A programme whose times alone have changed stays on the air at least so long."""
PROGRAMME_INTERVAL_S = 5.0
CATALOGUE_INTERVAL_S = 15.0
URGENT_WITHIN_S = 2 * 86_400.0
URGENT_AGAIN_S = 3600.0
SNAPSHOT_AGAIN_PART = 0.25
SNAPSHOT_AGAIN_BYTES = 16_384
"""A delta beyond this part of the snapshot, and more than this, is made a snapshot."""
RETRY_S = 10.0
PROGRAMME = "programme"
MANY_BUNDLES = 1000
"""To look into the future of so many takes 10 ms, which is done every 10 s."""
_UNKNOWN = (0, 0, 0)


class CastOrder(msgspec.Struct, frozen=True, kw_only=True):
    """How to send."""

    data: str
    sender: str
    address: str
    port: int
    interface: str
    source: str
    hops: int
    rate_bytes_s: int


class OnAirBundle(msgspec.Struct, frozen=True, kw_only=True):
    """A bundle on the air. Times are seconds since 1970, 0: not known.

    Attributes:
        turn: `urgent`, `fresh` or `carousel`; `waiting` between two slots.
        passes: Complete ones.
        permille: Of the present one.
    """

    id: str
    turn: str
    passes: int
    permille: int
    begins: int
    ends: int
    next: int


class CastStatus(msgspec.Struct, frozen=True, kw_only=True):
    """What the caster tells every second.

    Attributes:
        catalogue: Version of the sender's own catalogue on the air.
        bundles: What is on the air, soonest first.
        problems: What an administrator should know.
    """

    session: int = 0
    rate_bytes_s: int = 0
    paced: Paced = Paced()
    catalogue: int = 0
    bundles: list[OnAirBundle] = []
    problems: list[Sentence] = []


@dataclass(slots=True)
class _Cast:
    """A metadata object or bundle on the air, in its blocks."""

    channel: Channel
    toi: int
    ref: Ref | None = None
    entry: LineupBundle | None = None


@dataclass(slots=True)
class _Catalogue:
    wanted: LineupCatalogue
    base: list[Item]
    names: tuple[str, ...]


@dataclass(slots=True)
class _Sent:
    """Counters as they are once the pacer has taken `written` packets."""

    written: int
    counters: dict[int, int] = field(default_factory=dict)
    beacon: int = 0


class Caster:
    """Runs until cancelled; `set_lineup` says what to send."""

    def __init__(self, order: CastOrder, report: Callable[[CastStatus], None]) -> None:
        """Open the sender's state.

        Raises:
            DatacastError: `datacast.sender-state`.
            CuntongError: the node's key or certificate can't be used.
        """
        self._order = order
        self._report = report
        self._paths = DataPaths(Path(order.data))
        self._folder = self._paths.datacast
        self._objects = self._folder / "objects"
        self._objects.mkdir(parents=True, exist_ok=True)
        files = KeyFiles(self._paths.keys)
        self._sign = signer(load_private_key(files.key.read_bytes()))
        chain = load_chain(files.chain.read_bytes())
        self._key = certificate_spki(chain[0])[:KEY_ID_BYTES]
        self._state = OnAirState(self._folder / "sender.sqlite", now_s=time.time())
        session = self._state.session
        # The highest first: a receiver proves each by the one before.
        self._identities = [
            identity_packet(session, certificate_der(link)) for link in reversed(chain)
        ]
        self._group = Group(order.address, order.port, order.interface, order.source)
        packet_s = (PACKET_BYTES + ip_bytes(self._group)) / order.rate_bytes_s
        self._slots = max(MIN_SLOTS, math.ceil((AHEAD_S * 1.5) / packet_s))
        self._packet_s = packet_s
        memory = make_memory(self._slots, PACKET_BYTES)
        self._memory = memory
        self._ring = Ring(memory, self._slots, PACKET_BYTES)
        self._send_job, self._receive_job = trio.open_memory_channel[EncodeJob](math.inf)
        self._symbols = Symbols(self._folder / "symbols", self._ask)
        self._air = Airtime(self._is_ready)
        self._cast: dict[str, _Cast] = {}
        self._catalogues: dict[str, _Catalogue] = {}
        self._lineup = Lineup()
        self._has_lineup = trio.Event()
        self._beacon_due = 0.0
        self._beacon = self._state.beacon
        self._beacon_body: tuple[Ref | None, int] = (None, 0)
        self._unsaved: deque[_Sent] = deque()
        self._dirty: dict[int, int] = {}
        self._segments_before: list[Segment] = []
        self._programme_made_at = -math.inf
        self._forecasts: dict[str, tuple[int, int, int]] = {}
        self._forecast_again = -math.inf
        self._programme_look_at = -math.inf
        self._programme_what: object = None
        self._programme_passes: object = None
        self._paced = Paced()
        self._problems: dict[str, Sentence] = {}

    def close(self) -> None:
        self._symbols.close()
        self._ring.close()
        os.close(self._memory)
        self._state.close()

    def set_lineup(self, lineup: Lineup) -> None:
        """Send this from now on."""
        self._lineup = lineup
        self._has_lineup.set()

    async def run(self) -> None:
        """Send until cancelled.

        Raises:
            DatacastError: `datacast.no-interface`, or a process of the sender ends again and again.
        """
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._run_pacer)
            for _ in range(ENCODERS):
                nursery.start_soon(self._run_encoder)
            nursery.start_soon(self._follow_lineup)
            nursery.start_soon(self._fill)
            nursery.start_soon(self._tell)

    # The children.

    async def _run_pacer(self) -> None:
        order = self._order
        pace = Pace(
            ring=self._memory,
            slots=self._slots,
            address=order.address,
            port=order.port,
            interface=order.interface,
            source=order.source,
            hops=order.hops,
            rate_bytes_s=order.rate_bytes_s,
            session=self._state.session,
        )
        while True:
            os.set_inheritable(self._memory, True)
            command = [*module_command("pacer"), msgspec.json.encode(pace).decode()]
            async with child(command, [self._memory]) as process:
                assert process.stdout is not None  # noqa: S101 - a pipe was asked for.
                async for paced in receive_frames(process.stdout, Paced):
                    if paced.problem is not None:
                        self._problems["pacer"] = paced.problem
                    else:
                        self._problems.pop("pacer", None)
                        self._paced = paced
            await trio.sleep(RETRY_S if "pacer" in self._problems else BEACON_S)

    def _ask(self, job: EncodeJob) -> None:
        self._send_job.send_nowait(job)

    async def _run_encoder(self) -> None:
        while True:
            async with child(module_command("encoder")) as process:
                assert process.stdin is not None and process.stdout is not None  # noqa: S101, PT018
                answers = receive_frames(process.stdout, Encoded)
                while True:
                    job = await self._receive_job.receive()
                    answer = Encoded(id=job.id, error="the encoder ended")
                    with contextlib.suppress(trio.BrokenResourceError):
                        await process.stdin.send_all(encode_frame(job))
                        answer = await anext(answers, answer)
                    self._symbols.encoded(answer)
                    if answer.error and process.poll() is not None:
                        break
            await trio.sleep(BEACON_S)

    # What is on the air.

    async def _follow_lineup(self) -> None:
        while True:
            with trio.move_on_after(URGENT_AGAIN_S):  # Deadlines come nearer.
                await self._has_lineup.wait()
            self._has_lineup = trio.Event()
            lineup = self._lineup
            is_complete = await self._apply(lineup)
            if not is_complete:
                with trio.move_on_after(RETRY_S):
                    await self._has_lineup.wait()
                self._has_lineup.set()

    async def _apply(self, lineup: Lineup) -> bool:
        """Make what is on the air fit a lineup; False when something must be tried again."""
        is_complete = True
        problems: dict[str, Sentence] = {}
        bundles = {bundle.infohash.hex(): bundle for bundle in lineup.bundles}
        authorities = {it.authority: it for it in lineup.catalogues}
        for key in [key for key, cast in self._cast.items() if cast.entry and key not in bundles]:
            self._take_off(key)
            self._take_off(f"manifest/{key}")
        for authority in self._catalogues.keys() - authorities.keys():
            self._drop_catalogue(authority)
        for authority, wanted in authorities.items():
            try:
                await self._put_catalogue(authority, wanted)
            except (DatacastError, OSError) as error:
                is_complete = False
                problems[authority] = _told(error)
        for key, bundle in bundles.items():
            if key in self._cast:
                self._cast[key].entry = bundle
                self._air.change(
                    key,
                    priority=bundle.priority,
                    order=bundle.order,
                    is_urgent=_is_urgent(bundle, time.time()),
                )
                continue
            try:
                await self._put_bundle(key, bundle)
            except (StoreError, OSError) as error:
                is_complete = False
                problems[key] = _told(error)
            await trio.lowlevel.checkpoint()
        await self._forget_others()
        self._programme_look_at = -math.inf
        self._problems = {
            key: problem for key, problem in self._problems.items() if key == "pacer"
        } | problems
        return is_complete

    async def _forget_others(self) -> None:
        known = set(self._cast)
        stale = [key for key in self._state.keys() if key not in known]  # noqa: SIM118 - a method.
        if stale and self._lineup.bundles:
            await trio.to_thread.run_sync(self._state.forget, stale)
        tois = {str(cast.toi) for cast in self._cast.values()}
        for path in self._objects.iterdir():
            if path.name not in tois:
                path.unlink()

    async def _put_bundle(self, key: str, bundle: LineupBundle) -> None:
        cast: CastBundle = await trio.to_thread.run_sync(cast_bundle, self._paths, bundle.infohash)
        manifest = f"manifest/{key}"
        await self._put_object(manifest, Channel.MANIFEST, cast.manifest, order=2)
        claimed = await trio.to_thread.run_sync(
            self._state.claim, key, bundle.infohash, len(cast.blocks)
        )
        self._symbols.add(key, cast.blocks)
        self._cast[key] = _Cast(Channel.CONTENT, claimed.toi, entry=bundle)
        self._air.add(
            Aired(
                key,
                Kind.BUNDLE,
                [pass_length(size) for size, _ in cast.blocks],
                claimed.counters,
                priority=bundle.priority,
                is_urgent=_is_urgent(bundle, time.time()),
                order=bundle.order,
                manifest=manifest,
                sources=[symbol_count(size) for size, _ in cast.blocks],
            )
        )

    async def _put_object(
        self,
        key: str,
        channel: Channel,
        data: bytes,
        *,
        order: int,
        interval_s: float | None = None,
    ) -> Ref:
        """Cast an object in the place of what has its key."""
        identity = sha256(data).digest()
        sizes = object_blocks(len(data))
        cast = self._cast.get(key)
        if cast is not None and cast.ref is not None and cast.ref.sha256 == identity:
            return cast.ref
        claimed = await trio.to_thread.run_sync(self._state.claim, key, identity, len(sizes))
        path = self._objects / str(claimed.toi)
        await trio.to_thread.run_sync(partial(write_atomically, path, data, durable=False))
        blocks: list[tuple[int, list[Stretch]]] = []
        for size in sizes:
            offset = sum(done for done, _ in blocks)
            blocks.append((size, [Stretch(str(path), offset, size)]))
        ref = Ref(toi=claimed.toi, size=len(data), sha256=identity)
        self._take_off(key)
        self._symbols.add(key, blocks)
        self._cast[key] = _Cast(channel, claimed.toi, ref=ref)
        item = Aired(
            key, Kind.METADATA, [pass_length(size) for size in sizes], claimed.counters, order=order
        )
        if interval_s is not None:
            item.interval_s = interval_s
        self._air.add(item)
        return ref

    def _take_off(self, key: str) -> None:
        self._air.remove(key)
        self._symbols.remove(key)
        cast = self._cast.pop(key, None)
        if cast is not None and cast.ref is not None:
            (self._objects / str(cast.toi)).unlink(missing_ok=True)

    async def _put_catalogue(self, authority: str, wanted: LineupCatalogue) -> None:
        known = self._catalogues.get(authority)
        if known is not None and known.wanted == wanted:
            return
        spool = Spool(self._paths, None)
        snapshot_key, delta_key = f"catalogue/{authority}", f"delta/{authority}"
        keep = self._folder / f"{authority}.snapshot"

        def make() -> tuple[list[Item], bytes, bytes]:
            files = catalogue_files(spool, wanted)
            old = known.base if known is not None else _read_snapshot(keep, authority)
            if old is not None:
                snapshot = keep.read_bytes()
                delta = catalogue_delta(authority, old, files)
                limit = max(SNAPSHOT_AGAIN_BYTES, int(len(snapshot) * SNAPSHOT_AGAIN_PART))
                if len(delta) <= limit:
                    return old, snapshot, delta
            snapshot = catalogue_snapshot(authority, files)
            write_atomically(keep, snapshot)
            return files, snapshot, b""

        base, snapshot, delta = await trio.to_thread.run_sync(make)
        interval = CATALOGUE_INTERVAL_S
        await self._put_object(
            snapshot_key, Channel.CATALOGUE, snapshot, order=1, interval_s=interval
        )
        if delta:
            await self._put_object(
                delta_key, Channel.CATALOGUE, delta, order=1, interval_s=interval
            )
        else:
            self._take_off(delta_key)
        names = (snapshot_key, delta_key) if delta else (snapshot_key,)
        self._catalogues[authority] = _Catalogue(wanted, base, names)

    def _drop_catalogue(self, authority: str) -> None:
        del self._catalogues[authority]
        self._take_off(f"catalogue/{authority}")
        self._take_off(f"delta/{authority}")

    # The programme.

    async def _look_at_programme(self, now: float) -> None:
        """Make a new programme when it would say something new; times alone aren't worth one a second."""
        if now < self._programme_look_at:
            return
        self._programme_look_at = now + BEACON_S
        item = self._air.items.get(PROGRAMME)
        if not self._catalogues or (item is not None and item.complete_passes < 1):
            return
        content = [
            (
                cast.toi,
                [self._cast[name].toi for name in (f"manifest/{key}",) if name in self._cast],
            )
            for key, cast in self._cast.items()
            if cast.entry is not None
        ]
        catalogues = [
            (it.wanted, [self._cast[name].toi for name in it.names if name in self._cast])
            for it in self._catalogues.values()
        ]
        passes = [
            (key, self._air.items[key].complete_passes, self._turn(key, now))
            for key, cast in self._cast.items()
            if cast.entry is not None
        ]
        what = (content, catalogues)
        if what == self._programme_what and (
            passes == self._programme_passes or now - self._programme_made_at < PROGRAMME_S
        ):
            return
        self._programme_what, self._programme_passes = what, passes
        self._programme_made_at = now
        programme = self._programme(now)
        data = await trio.to_thread.run_sync(encode_programme, programme)
        ref = await self._put_object(
            PROGRAMME, Channel.CATALOGUE, data, order=0, interval_s=PROGRAMME_INTERVAL_S
        )
        own = self._catalogues.get(self._order.sender)
        self._beacon_body = (ref, own.wanted.version if own is not None else 0)

    def _turn(self, key: str, now: float) -> str:
        turn = turn_of(self._air.items[key], now)
        return "waiting" if turn is None else turn.name.lower()

    def _programme(self, now: float) -> Programme:
        times = self._forecast(now)
        bundles: list[BundleEntry] = []
        for key, cast in self._cast.items():
            manifest = self._cast.get(f"manifest/{key}")
            if cast.entry is None or manifest is None or manifest.ref is None:
                continue
            begins, ends, after = times.get(key, _UNKNOWN)
            bundles.append(
                BundleEntry(
                    id=cast.entry.id,
                    infohash=cast.entry.infohash,
                    size=cast.entry.size,
                    toi=cast.toi,
                    manifest=manifest.ref,
                    passes=self._air.items[key].complete_passes,
                    begins=begins,
                    ends=ends,
                    next=after,
                )
            )
        catalogues: list[CatalogueEntry] = []
        for authority, it in self._catalogues.items():
            refs = [self._cast[name].ref for name in it.names if name in self._cast]
            if refs and refs[0] is not None:
                catalogues.append(
                    CatalogueEntry(
                        authority=authority,
                        version=it.wanted.version,
                        snapshot=refs[0],
                        delta=refs[1] if len(refs) > 1 else None,
                    )
                )
        return Programme(
            made_at=int(time.time()), catalogues=tuple(catalogues), bundles=tuple(bundles)
        )

    def _forecast(self, now: float) -> dict[str, tuple[int, int, int]]:
        """When each bundle comes round, seconds since 1970; of many bundles it is up to 10 s old."""
        if now < self._forecast_again:
            return self._forecasts
        wall = time.time() - now
        # What was handed out already lies in the ring.
        found = forecast(self._air, symbols_s=1 / self._packet_s, now=now + self._ahead_s())
        self._forecasts = {
            key: (int(wall + it.begins), int(wall + it.ends), int(wall + it.next))
            for key, it in found.items()
        }
        self._forecast_again = now + (PROGRAMME_S if len(found) > MANY_BUNDLES else 0.0)
        return self._forecasts

    # Packets.

    async def _fill(self) -> None:
        """Keep the ring filled."""
        save_at = 0.0
        while True:
            now = trio.current_time()
            await self._look_at_programme(now)
            lateness = 0
            while self._ahead_s() < AHEAD_S and self._ring.room > GROUP_SYMBOLS * 2:
                air = now + self._ahead_s()
                if air >= self._beacon_due:
                    self._put_beacon(air)
                if not self._put_group(air):
                    break
                lateness += 1
                if lateness % 8 == 0:
                    await trio.lowlevel.checkpoint()
            if now >= save_at:
                save_at = now + SAVE_S
                await self._save()
            await trio.sleep(FILL_S)

    def _ahead_s(self) -> float:
        return (self._ring.written - self._ring.taken) * self._packet_s

    def _put_beacon(self, air: float) -> None:
        self._beacon_due = max(self._beacon_due + BEACON_S, air)
        self._beacon += 1
        programme, version = self._beacon_body
        beacon = Beacon(
            sender=self._order.sender,
            number=self._beacon,
            time=int(time.time() + self._ahead_s()),
            key=self._key,
            rate_bytes_s=self._order.rate_bytes_s,
            catalogue=version,
            programme=programme,
        )
        for packet in self._identities:
            self._ring.put(packet)
        self._ring.put(beacon_packet(self._state.session, beacon, self._sign))

    def _is_ready(self, key: str, block: int) -> bool:
        item = self._air.items[key]
        return self._symbols.is_ready(key, block, item.counters[block], item.next_count(block))

    def _put_group(self, air: float) -> bool:
        """A digest packet and up to 64 symbols; False when there is nothing to send now."""
        session = self._state.session
        packets: list[bytes] = []
        segments: list[Segment] = []
        while len(segments) < GROUP_SEGMENTS and len(packets) <= GROUP_SYMBOLS - 32:
            run = self._air.next_run(air)
            if run is None:
                break
            cast = self._cast[run.item]
            try:
                first, symbols = self._symbols.read(run.item, run.block, run.first, run.count)
            except OSError as error:
                self._unreadable(run, error)
                continue
            toi = cast.toi + run.block
            made = [
                symbol_packet(session, cast.channel, toi, first + number, symbol)
                for number, symbol in enumerate(symbols)
            ]
            segments.append(
                Segment(cast.channel, toi, first, tuple(digest(packet) for packet in made))
            )
            packets += made
            self._dirty[toi] = run.first + run.count
        if not packets:
            return False
        # Those before once more: their first digests may be lost.
        self._ring.put(digest_packet(session, [*self._segments_before, *segments], self._sign))
        self._segments_before = segments
        for packet in packets:
            self._ring.put(packet)
        return True

    def _unreadable(self, run: Run, error: OSError) -> None:
        """What can't be read is off the air until it is put on again."""
        cast = self._cast[run.item]
        self._problems[run.item] = _told(error)
        if cast.entry is not None:
            self._take_off(f"manifest/{run.item}")
        self._take_off(run.item)

    async def _save(self) -> None:
        """Remember how far the pacer is: what it hasn't sent yet is sent again after a crash."""
        if self._dirty or self._unsaved:
            self._unsaved.append(_Sent(self._ring.written, self._dirty, self._beacon))
            self._dirty = {}
        counters: dict[int, int] = {}
        beacon = self._state.beacon
        while self._unsaved and self._unsaved[0].written <= self._ring.taken:
            sent = self._unsaved.popleft()
            counters |= sent.counters
            beacon = sent.beacon
        # A beacon's number must not come twice, so it is remembered before it is sent.
        beacon = max(beacon, self._beacon + math.ceil(AHEAD_S / BEACON_S) + 1)
        if counters or beacon != self._state.beacon:
            await trio.to_thread.run_sync(self._state.save, list(counters.items()), beacon)

    # Telling.

    def _on_air(self, now: float) -> list[OnAirBundle]:
        """What is on the air, soonest first."""
        times = self._forecast(now)
        bundles: list[OnAirBundle] = []
        for key, cast in self._cast.items():
            if cast.entry is None:
                continue
            item = self._air.items[key]
            begins, ends, after = times.get(key, _UNKNOWN)
            bundles.append(
                OnAirBundle(
                    id=cast.entry.id,
                    turn=self._turn(key, now),
                    passes=item.complete_passes,
                    permille=int(item.progress % 1 * 1000),
                    begins=begins,
                    ends=ends,
                    next=after,
                )
            )
        return sorted(bundles, key=lambda bundle: bundle.begins)

    async def _tell(self) -> None:
        bundles: list[OnAirBundle] = []
        while True:
            await trio.sleep(BEACON_S)
            now = trio.current_time()
            if now >= self._forecast_again:
                bundles = self._on_air(now)
            problems = list(self._problems.values())
            problems += [
                sentence(
                    "datacast.unreadable",
                    N_("{id} can't be read and isn't cast: {reason}."),
                    id=cast.entry.id if cast is not None and cast.entry is not None else key,
                    reason=reason,
                )
                for key, reason in self._symbols.unreadable.items()
                for cast in [self._cast.get(key)]
            ]
            self._report(
                CastStatus(
                    session=self._state.session,
                    rate_bytes_s=self._order.rate_bytes_s,
                    paced=self._paced,
                    catalogue=self._beacon_body[1],
                    bundles=bundles,
                    problems=problems,
                )
            )


def _is_urgent(bundle: LineupBundle, wall_s: float) -> bool:
    return bundle.priority >= URGENT_PRIORITY or 0 < bundle.deadline - wall_s < URGENT_WITHIN_S


def _read_snapshot(path: Path, authority: str) -> list[Item] | None:
    """What the last run's snapshot held; None when it isn't there or of no use."""
    try:
        data = path.read_bytes()
        return list(catalogue_items(data, catalogue_head(data, authority), {}))
    except (OSError, DatacastError):
        return None


def _told(error: OSError | CuntongError) -> Sentence:
    return error.sentence if isinstance(error, CuntongError) else disk_error(error).sentence


async def run(order: CastOrder) -> None:
    """Be a child process: lineups on the standard input, status on the standard output."""
    output = sys.stdout.fileno()
    caster = Caster(order, lambda status: write_frame(output, status))
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(caster.run)
            source = trio.lowlevel.FdStream(os.dup(sys.stdin.fileno()))
            async for lineup in receive_frames(source, Lineup):
                caster.set_lineup(lineup)
            nursery.cancel_scope.cancel()
    finally:
        caster.close()


if __name__ == "__main__":
    trio.run(run, msgspec.json.decode(sys.argv[1], type=CastOrder))

"""Fuzz target for what comes from the air: intake, spool and decoder together, with real certificates and symbols.

Invariant: whatever the packets, `Intake.feed` raises nothing, each of them is kept or counted under one reason, no wrong
bytes are taken for a block, and every block is complete after at most `ENOUGH` times as many genuine symbols as it has,
though a twentieth of the genuine packets is lost and the process dies now and then. In the end nothing is open, and the
spool holds nothing.

Hostile packets are genuine ones, of any kind and of any time, with bits flipped, cut off, prolonged, spliced with others,
moved to another place, or as they were. For each genuine packet there are four of them.

`fuzz(count, seed, folder)` is the target. Run it longer with `python -m tests.fuzz.fuzz_datacast COUNT [SEED]`;
1,000,000 packets take a minute or two.
"""

from __future__ import annotations

import random
import sys
import time
import warnings
from collections import Counter, deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

from cuntong_daemon.datacast.blockspool import OpenBlock
from cuntong_protocol.datacast.blocks import esi_limit, symbol_count
from cuntong_protocol.datacast.errors import DROP_REASONS
from cuntong_protocol.datacast.packets import (
    HEADER_BYTES,
    MAX_TOI,
    PACKET_BYTES,
    SYMBOL_BYTES,
    Channel,
    Codepoint,
    filler_packet,
)
from cuntong_protocol.divisions import NATION
from tests.support.datacast import SESSION, OnAir, Sender, Station, make_sender, on_air
from tests.support.pki import GUANGDONG, World

HOSTILE = 4
"""For each genuine packet."""
LOSS = 0.05
ENOUGH = 2.0
SPARE = 150
"""Symbols beyond that, for the smallest blocks: of a block with one symbol each second one may be lost."""
SIZES = (1, 1_000, 1_344, 5_000, 60_000, 200_000, 400_000)
AT_ONCE = 3
LAG = 10
"""Packets until a block is judged."""
HELLO_EVERY = 150
COMMIT_EVERY = 900
CRASH_EVERY = 7_000
SESSION_EVERY = 20_000
KEPT = 200
"""Genuine packets of each kind that hostile ones are made of."""
KINDS = {Codepoint.SYMBOL: 5, Codepoint.DIGESTS: 2, Codepoint.BEACON: 1, Codepoint.IDENTITY: 1}
"""How often one of them is taken."""
PACKET_S = 0.002


@dataclass
class Report:
    """What has happened.

    Attributes:
        longest: The largest part of `ENOUGH` that a block has needed.
    """

    hostile: int = 0
    genuine: int = 0
    blocks: int = 0
    wrong: int = 0
    crashes: int = 0
    sessions: int = 0
    longest: float = 0.0
    dropped: Counter[str] = field(default_factory=Counter)


class Fuzz:
    """One run."""

    def __init__(self, seed: int, folder: Path) -> None:
        self.chance = random.Random(seed)
        world = World(("ed25519", "p256")[seed % 2], folder / "world")
        # One sender for all: it has a CA of its own above it, and a neighbour with as good a chain.
        self.sender = make_sender(world, GUANGDONG)
        self.others = [
            make_sender(world, NATION),
            make_sender(World("ed25519", folder / "elsewhere"), GUANGDONG),
        ]
        anchor = world.authorities[NATION].certificate
        self.station = Station(folder / "spool", anchor, GUANGDONG, quota=50_000_000)
        self.kept = {kind: deque[bytes](maxlen=KEPT) for kind in KINDS}
        self.blocks: list[OnAir] = []
        self.streams: list[Iterator[bytes]] = []
        self.given: Counter[tuple[int, int]] = Counter()
        self.judged: deque[tuple[int, OpenBlock]] = deque()
        self.next_toi = 1
        self.fed = 0
        self.report = Report()
        for other in self.others:
            for packet in [*other.hello(), *other.packets([self._new_block()], 20)]:
                self._keep(packet)
        self.next_toi = 1

    def run(self, count: int) -> Report:
        """Feed so many hostile packets."""
        report, station = self.report, self.station
        station.listen(self.sender)
        while report.hostile < count:
            self._renew()
            for number, stream in enumerate(self.streams):
                packet = next(stream)
                self._genuine(packet, self.blocks[number])
                for _ in range(HOSTILE):
                    self._feed(self._hostile())
                    report.hostile += 1
            self._sometimes()
        self._finish()
        return report

    # Genuine ones.

    def _new_block(self) -> OnAir:
        size = self.chance.choice(SIZES)
        channel = self.chance.choice((Channel.CATALOGUE, Channel.MANIFEST, Channel.CONTENT))
        block = on_air(self.chance.randbytes(size), self.next_toi, channel)
        self.next_toi += 1
        return block

    def _stream(self, block: OnAir) -> Iterator[bytes]:
        limit, first = esi_limit(block.size), 0
        while True:
            count = min(256, limit - first)
            yield from self.sender.packets([block], count, first)
            first = (first + count) % limit

    def _renew(self) -> None:
        """What is complete is replaced by something new."""
        for number in reversed(range(len(self.blocks))):
            block = self.blocks[number]
            if block.key in self.station.done:
                part = (self.given[block.key] - SPARE) / (ENOUGH * symbol_count(block.size))
                self.report.longest = max(self.report.longest, part)
                self.report.blocks += 1
                del self.blocks[number], self.streams[number]
        while len(self.blocks) < AT_ONCE:
            block = self._new_block()
            self.blocks.append(block)
            self.streams.append(self._stream(block))
            # Half of them are asked for late, so that their first symbols lie in the ring.
            if self.chance.random() < 0.5:
                self.station.gather(block)
        for block in self.blocks:
            if block.key not in self.station.right and self.given[block.key] > 10:
                self.station.gather(block)

    def _genuine(self, packet: bytes, block: OnAir) -> None:
        self.report.genuine += 1
        self._keep(packet)
        if len(packet) == PACKET_BYTES:
            self.given[block.key] += 1
            needed = ENOUGH * symbol_count(block.size) + SPARE
            assert self.given[block.key] <= needed, f"{block.key} of {block.size} is lost"
        if self.chance.random() >= LOSS:
            self._feed(packet)

    def _feed(self, packet: bytes) -> None:
        station, intake = self.station, self.station.intake
        before = intake.dropped.total() + intake.symbols + intake.fillers
        station.feed(packet)
        after = intake.dropped.total() + intake.symbols + intake.fillers
        assert after - before <= 1
        self.fed += 1
        station.now += PACKET_S
        self.judged.extend((self.fed + LAG, block) for block in station.spool.ready())
        while self.judged and self.judged[0][0] <= self.fed:
            _, ready = self.judged.popleft()
            if station.spool.block(ready.channel, ready.toi) is ready:
                station.judge(ready)

    def _sometimes(self) -> None:
        station, chance = self.station, self.chance
        if chance.random() < AT_ONCE / HELLO_EVERY:
            for packet in self.sender.hello():
                self._keep(packet)
                self._feed(packet)
            self._feed(filler_packet(self.sender.session))
        if chance.random() < AT_ONCE / COMMIT_EVERY:
            station.commit()
        if chance.random() < AT_ONCE / CRASH_EVERY:
            station.commit()
            self._count()
            station.crash()
            self.judged.clear()
            self.report.crashes += 1
            # The daemon asks for what it wants, and for nothing else.
            wanted = [block for block in self.blocks if block.key in station.right]
            station.spool.close_blocks(station.spool.keys() - {block.key for block in wanted})
            station.gather(*wanted)
            station.listen(self.sender)
        if chance.random() < AT_ONCE / SESSION_EVERY:
            self.sender = Sender(
                GUANGDONG, self.sender.key, self.sender.chain, self.sender.session + 1
            )
            self.report.sessions += 1
            self.next_toi = 1
            self.blocks, self.streams = [], []
            self.given.clear()
            self.judged.clear()
            station.right.clear()
            station.done.clear()
            station.listen(self.sender)

    # Hostile ones.

    def _keep(self, packet: bytes) -> None:
        self.kept[Codepoint(packet[3])].append(packet)

    def _any_kept(self) -> bytes:
        (kind,) = self.chance.choices(list(KINDS), list(KINDS.values()))
        return self.chance.choice(self.kept[kind])

    def _hostile(self) -> bytes:
        chance = self.chance
        packet = bytearray(self._any_kept())
        match chance.randrange(10):
            case 0 | 1:
                for _ in range(chance.choice((1, 1, 2, 8))):
                    packet[chance.randrange(len(packet))] ^= 1 << chance.randrange(8)
            case 2:
                packet[chance.randrange(min(len(packet), HEADER_BYTES + 8))] ^= (
                    1 << chance.randrange(8)
                )
            case 3:
                del packet[chance.randrange(len(packet)) :]
            case 4:
                packet += chance.randbytes(chance.choice((1, 2, 64, 2000)))
            case 5:
                other = self._any_kept()
                at = chance.choice((HEADER_BYTES, HEADER_BYTES + 4, chance.randrange(len(packet))))
                packet[at:] = other[min(at, len(other)) :]
            case 6:
                other = self._any_kept()
                at = chance.randrange(len(packet))
                start = chance.randrange(len(other))
                packet[at : at + 100] = other[start : start + 100]
            case 7:
                self._move(packet)
            case 8:
                packet[-SYMBOL_BYTES:] = chance.randbytes(min(SYMBOL_BYTES, len(packet)))
            case _:
                pass  # As it was.
        return bytes(packet)

    def _move(self, packet: bytearray) -> None:
        """To another session, block or number; to those that are waited for above all."""
        chance = self.chance
        session = chance.choice((self.sender.session, self.sender.session, SESSION - 1, 1 << 27))
        block = chance.choice(self.blocks) if self.blocks else None
        channel = int(block.channel) if block is not None else chance.randrange(16)
        toi = chance.choice((0, 1, MAX_TOI, self.next_toi, block.toi if block is not None else 0))
        packet[8:12] = (session << 4 | channel).to_bytes(4, "big")
        packet[12:16] = toi.to_bytes(4, "big")
        packet[16:20] = chance.choice(
            (chance.randrange(400), chance.randrange(1 << 24), (1 << 24) - 1, 1 << 24)
        ).to_bytes(4, "big")

    # The end.

    def _count(self) -> None:
        self.report.dropped += self.station.dropped

    def _finish(self) -> None:
        station, report = self.station, self.report
        for number, block in enumerate(self.blocks):
            station.gather(block)
            while block.key not in station.done:
                self._genuine(next(self.streams[number]), block)
        self._renew()
        station.spool.close_blocks(station.spool.keys())
        station.commit()
        self._count()
        assert station.spool.used_bytes == 0
        assert (station.folder / "blocks").stat().st_blocks * 512 < 1_000_000
        assert set(report.dropped) <= set(DROP_REASONS)
        report.wrong = station.wrong
        station.close()


def fuzz(count: int, seed: int, folder: Path) -> Report:
    """Feed `count` hostile packets and enough genuine ones; the same for a seed."""
    with warnings.catch_warnings():
        # The library's own, of a certificate whose number is negative by now.
        warnings.filterwarnings("ignore", message="Parsed a serial number")
        return Fuzz(seed, folder).run(count)


def main() -> None:
    count, seed = int(sys.argv[1]), int((*sys.argv, "0")[2])
    began = time.monotonic()
    with TemporaryDirectory(prefix="cuntong-fuzz-") as folder:
        report = fuzz(count, seed, Path(folder))
    sys.stdout.write(f"{report}\n{time.monotonic() - began:.0f} s\n")


if __name__ == "__main__":
    main()

"""A sender and a receiver of the datacast in one process: real certificates, packets, RaptorQ symbols and spools.

`Sender` makes the packets that a caster would make of given content, without rate or schedule. `Station` is what the
reader's process and the decoder's do with them, one packet at a time, so that a test decides what is lost, forged or
late.
"""

from __future__ import annotations

import importlib.util
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509

from cuntong_daemon.datacast.blockspool import BlockSpool, OpenBlock
from cuntong_daemon.datacast.decoder import DecodeJob, decode
from cuntong_daemon.datacast.intake import Intake
from cuntong_daemon.datacast.reader import _ready
from cuntong_daemon.datacast.signing import signer
from cuntong_daemon.pki.ca import issue_node_certificate
from cuntong_daemon.pki.certificates import (
    PrivateKey,
    certificate_der,
    certificate_spki,
    key_type_of,
    new_key,
)
from cuntong_protocol.datacast.blocks import pass_length, symbol_count
from cuntong_protocol.datacast.objects import Ref
from cuntong_protocol.datacast.packets import (
    DIGESTS_AT_ONCE,
    KEY_ID_BYTES,
    PAYLOAD_ID_BYTES,
    SYMBOL_BYTES,
    Beacon,
    Channel,
    Segment,
    Sign,
    beacon_packet,
    digest,
    digest_packet,
    identity_packet,
    symbol_packet,
)
from cuntong_protocol.divisions import NATION, Division
from tests.support.pki import NOW, World

SESSION = 29_000_000
RUN_SYMBOLS = 32
GROUP_SYMBOLS = 64
VOUCHES_TWICE = DIGESTS_AT_ONCE >= 2 * GROUP_SYMBOLS
"""Whether the digests of a group go with those of the next one too."""
SENT_AT = 1_795_000_000
"""By the clock of senders here."""
PROVEN = datetime(2026, 11, 1, tzinfo=UTC)
QUOTA = 1_000_000_000

needs_raptorq = pytest.mark.skipif(
    importlib.util.find_spec("raptorq") is None,
    reason="raptorq has wheels for x86-64 only",
)


class Symbols:
    """The encoding symbols of one block, made when they are asked for."""

    def __init__(self, data: bytes) -> None:
        from raptorq import Encoder

        self.data = data
        self.source = symbol_count(len(data))
        self._encoder = Encoder.with_defaults(data, SYMBOL_BYTES)
        self._made: list[bytes] = []

    def __getitem__(self, esi: int) -> bytes:
        if esi >= len(self._made):
            # The encoder makes all of them again each time, so a pass more is made at once.
            more = max(0, esi + 1 - self.source) + pass_length(len(self.data))
            packets = self._encoder.get_encoded_packets(more)
            self._made = [packet[PAYLOAD_ID_BYTES:] for packet in packets]
        return self._made[esi]


@dataclass(frozen=True)
class OnAir:
    """A block on the air."""

    channel: Channel
    toi: int
    symbols: Symbols

    @property
    def key(self) -> tuple[int, int]:
        return int(self.channel), self.toi

    @property
    def size(self) -> int:
        return len(self.symbols.data)

    @property
    def opening(self) -> tuple[int, int, int]:
        """What `BlockSpool.open_blocks_of` is told."""
        return int(self.channel), self.toi, self.size


def on_air(data: bytes, toi: int = 5, channel: Channel = Channel.CONTENT) -> OnAir:
    """A block with this content."""
    return OnAir(channel, toi, Symbols(data))


@dataclass
class Sender:
    """Somebody with a key and a chain, who sends."""

    code: Division
    key: PrivateKey
    chain: list[x509.Certificate]
    session: int = SESSION
    number: int = 0

    @property
    def sign(self) -> Sign:
        return signer(self.key)

    @property
    def spki(self) -> bytes:
        return certificate_spki(self.chain[0])

    def identities(self) -> list[bytes]:
        """The chain, in the caster's order."""
        return [identity_packet(self.session, certificate_der(link)) for link in self.chain]

    def beacon(self, *, programme: Ref | None = None, **changes: Any) -> bytes:
        """The next beacon."""
        self.number += 1
        fields: dict[str, Any] = {
            "sender": str(self.code),
            "number": self.number,
            "time": SENT_AT + self.number,
            "key": self.spki[:KEY_ID_BYTES],
            "rate_bytes_s": 2_500_000,
            "programme": programme,
        }
        return beacon_packet(self.session, Beacon(**fields | changes), self.sign)

    def hello(self, *, programme: Ref | None = None) -> list[bytes]:
        """What a sender says of itself each second."""
        return [*self.identities(), self.beacon(programme=programme)]

    def symbol(self, block: OnAir, esi: int) -> bytes:
        """The packet with one symbol."""
        return symbol_packet(self.session, block.channel, block.toi, esi, block.symbols[esi])

    def group(
        self, *runs: tuple[OnAir, int, int], before: Sequence[tuple[OnAir, int, int]] = ()
    ) -> list[bytes]:
        """A digest packet and its symbols: for each run block, first number and count.

        Args:
            before: Runs that were sent already, for whose symbols the digests come once more.
        """
        packets: list[bytes] = []
        segments: list[Segment] = []
        for block, first, count in (*before, *runs):
            made = [self.symbol(block, first + at) for at in range(count)]
            segments.append(
                Segment(block.channel, block.toi, first, tuple(digest(packet) for packet in made))
            )
            packets += made
        skipped = sum(count for _, _, count in before)
        return [digest_packet(self.session, segments, self.sign), *packets[skipped:]]

    def groups(
        self, blocks: Sequence[OnAir], symbols: int, first: int = 0
    ) -> Iterator[list[bytes]]:
        """Groups that carry `symbols` symbols of each block, in runs that take turns, as on the air."""
        runs: list[tuple[OnAir, int, int]] = []
        before: tuple[tuple[OnAir, int, int], ...] = ()
        size = 0
        for start in range(first, first + symbols, RUN_SYMBOLS):
            for block in blocks:
                count = min(RUN_SYMBOLS, first + symbols - start)
                if size + count > GROUP_SYMBOLS:
                    yield self.group(*runs, before=before)
                    before, runs, size = tuple(runs) if VOUCHES_TWICE else (), [], 0
                runs.append((block, start, count))
                size += count
        if runs:
            yield self.group(*runs, before=before)

    def packets(self, blocks: Sequence[OnAir], symbols: int, first: int = 0) -> list[bytes]:
        """The packets of `groups`."""
        return [packet for group in self.groups(blocks, symbols, first) for packet in group]


def make_sender(
    world: World,
    code: Division = NATION,
    *,
    issuer: Division | None = None,
    key: PrivateKey | None = None,
    session: int = SESSION,
    now: datetime = NOW,
) -> Sender:
    """A sender that was enrolled properly, by the authority of its own place unless it is said otherwise."""
    authority = world.authorities[code if issuer is None else issuer]
    key = key or new_key(key_type_of(authority.key))
    certificate = issue_node_certificate(
        code, key.public_key(), authority.certificate, authority.key, now=now
    )
    return Sender(code, key, [certificate, *authority.chain], session)


@dataclass
class Station:
    """Intake, spool and decoder.

    Attributes:
        right: What blocks are, by channel and TOI: they stand for the pieces' hashes.
        done: Blocks that came out right.
        wrong: How often bytes came out that weren't right.
        tries: Decodings.
    """

    folder: Path
    anchor: x509.Certificate
    sender: Division = NATION
    quota: int = QUOTA
    right: dict[tuple[int, int], bytes] = field(default_factory=dict)
    done: set[tuple[int, int]] = field(default_factory=set)
    wrong: int = 0
    tries: int = 0
    now: float = 1000.0

    def __post_init__(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        self.start()

    def start(self) -> None:
        """Open what lies in the folder."""
        self.spool = BlockSpool(self.folder, quota_bytes=self.quota)
        self.intake = Intake(
            self.spool,
            anchor=self.anchor,
            sender=self.sender,
            session=self.spool.session,
            number=self.spool.number,
        )
        self.intake.judge(proven_time=PROVEN, removed=())

    def crash(self) -> None:
        """End without a word, as after `kill -9`, and start again."""
        abandon(self.spool)
        self.start()

    def close(self) -> None:
        self.spool.close()

    @property
    def dropped(self) -> Counter[str]:
        return Counter({str(reason): count for reason, count in self.intake.dropped.items()})

    def gather(self, *blocks: OnAir) -> None:
        """Ask for these blocks."""
        self.right |= {block.key: block.symbols.data for block in blocks}
        self.spool.open_blocks_of([block.opening for block in blocks])

    def feed(self, packet: bytes) -> Beacon | None:
        """One packet, as the reader takes it."""
        beacon = self.intake.feed(packet, self.now)
        if beacon is not None:
            self.spool.begin_session(self.intake.session)
            self.spool.number = beacon.number
        return beacon

    def feed_all(self, packets: Iterable[bytes]) -> list[Beacon]:
        found = [self.feed(packet) for packet in packets]
        return [beacon for beacon in found if beacon is not None]

    def listen(self, sender: Sender) -> None:
        """Hear what a sender says of itself, a few times, as the leaf may be understood only with its CAs."""
        for _ in range(len(sender.chain) + 1):
            self.feed_all(sender.hello())
            self.now += 1.0
        assert self.intake.session == sender.session

    def commit(self) -> None:
        """What the reader does every few seconds."""
        rows = self.spool.prepare()
        self.spool.sync()
        self.spool.commit(rows)

    def make(self) -> None:
        """Decode what is ready, and judge it."""
        for block in self.spool.ready():
            self.judge(block)

    def judge(self, block: OpenBlock) -> None:
        """What decoder and daemon do with a block that is ready."""
        key = (block.channel, block.toi)
        self.tries += 1
        try:
            data = made_whole(self.spool, block)
        except (OSError, ValueError):
            data = b""  # The decoder ends, and the daemon takes it for a wrong block.
        if data is None:
            self.spool.again(*key, is_wrong=False)
        elif data != self.right[key]:
            self.wrong += 1
            self.spool.again(*key, is_wrong=True)
        else:
            self.done.add(key)
            self.spool.close_blocks([key])


def made_whole(spool: BlockSpool, block: OpenBlock) -> bytes | None:
    """The bytes of a block that is ready, right or not; None when its symbols don't suffice."""
    ready = _ready(spool.session, block)
    descriptor = os.open(spool.path, os.O_RDONLY)
    try:
        if 0 not in ready.source:
            return os.pread(descriptor, ready.size, ready.offset)
        job = DecodeJob(
            path=str(spool.path),
            offset=ready.offset,
            size=ready.size,
            source=ready.source,
            repairs=ready.repairs,
        )
        return decode(job, descriptor)
    finally:
        os.close(descriptor)


def abandon(spool: BlockSpool) -> None:
    """Give the files back without writing anything down: all that is left is what a dead process leaves."""
    spool._database.close()
    spool._ring.close()
    os.close(spool._data)

"""The reader: the process that takes packets from the socket, proves them and keeps their symbols (SPEC 11.9).

It does nothing that takes long. It sleeps a little between its looks at the socket, whose buffer of 8 MiB holds what
comes meanwhile; so it wakes up 50 times a second and not for every packet.
"""

from __future__ import annotations

import fcntl
import os
import select
import socket
import sqlite3
import sys
import threading
import time
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from cuntong_daemon.memory import use_little
from cuntong_daemon.pki.certificates import load_certificate
from cuntong_daemon.store.errors import database_error, disk_error
from cuntong_protocol.datacast.packets import PACKET_BYTES, Beacon, Channel
from cuntong_protocol.divisions import Division
from cuntong_protocol.errors import CuntongError
from cuntong_protocol.texts import Sentence

from .blockspool import BlockSpool, OpenBlock, Row
from .frames import FrameDecoder, write_frame
from .intake import Intake
from .sockets import Group, buffer_bytes, dropped_packets, open_receiver

LOOK_S = 0.02
COMMIT_S = 5.0
"""What the end of this process, or a power cut, may cost."""
REPORT_S = 1.0
GAP_S = 0.5
"""Without any packet for so long: the signal is gone. A sender sends fillers when it has nothing else."""
AT_ONCE = 1024
"""Packets between two looks at what the daemon says."""


class ReadOrder(msgspec.Struct, frozen=True, kw_only=True):
    """What the reader is told at its start, as its only argument (JSON)."""

    folder: str
    anchor: bytes
    sender: str
    address: str
    port: int
    interface: str
    source: str
    quota_bytes: int


class Judge(msgspec.Struct, frozen=True, kw_only=True, tag="judge"):
    """What the trust layer knows: proven time (seconds since 1970), and public keys that were removed."""

    proven_time: int
    removed: list[bytes]


class Open(msgspec.Struct, frozen=True, kw_only=True, tag="open"):
    """Gather these blocks: (channel, TOI, size)."""

    session: int
    blocks: list[tuple[int, int, int]]


class Close(msgspec.Struct, frozen=True, kw_only=True, tag="close"):
    """These blocks aren't needed any more: (channel, TOI)."""

    session: int
    blocks: list[tuple[int, int]]


class CloseOthers(msgspec.Struct, frozen=True, kw_only=True, tag="close-others"):
    """All blocks but these aren't needed: what an earlier run of the daemon wanted."""

    session: int
    blocks: list[tuple[int, int]]


class Ignore(msgspec.Struct, frozen=True, kw_only=True, tag="ignore"):
    """Blocks that are known and not wanted: (first TOI, TOI after the last), in order."""

    session: int
    ranges: list[tuple[int, int]]


class Again(msgspec.Struct, frozen=True, kw_only=True, tag="again"):
    """A block that was ready didn't decode, or to wrong bytes."""

    session: int
    channel: int
    toi: int
    is_wrong: bool


ToReader = Judge | Open | Close | CloseOthers | Ignore | Again


class Heard(msgspec.Struct, frozen=True, kw_only=True, tag="heard"):
    """A true beacon."""

    session: int
    beacon: Beacon


class Ready(msgspec.Struct, frozen=True, kw_only=True, tag="ready"):
    """A block has enough symbols; they lie in `path` of the spool.

    Attributes:
        offset: Of its first source symbol.
        source: For each source symbol whether it is here.
        repairs: Numbers of repair symbols, which follow the source symbols in this order; 0: nothing lies there.
    """

    session: int
    channel: int
    toi: int
    size: int
    offset: int
    source: bytes
    repairs: list[int]


class ReadStatus(msgspec.Struct, frozen=True, kw_only=True, tag="status"):
    """What the reader tells every second; counts are since its start.

    Attributes:
        socket_drops: Packets that the kernel dropped because the buffer was full.
        buffer_bytes: Of the socket.
        gaps: How often nothing came for half a second and more.
        gap_s: How long that lasted, in all.
        silent_s: Since the last packet.
        write_errors: Symbols that the disk refused.
    """

    packets: int = 0
    bytes: int = 0
    symbols: int = 0
    unverified: int = 0
    vouched: int = 0
    fillers: int = 0
    dropped: dict[str, int] = {}
    socket_drops: int = 0
    buffer_bytes: int = 0
    gaps: int = 0
    gap_s: float = 0.0
    silent_s: float = 0.0
    open_blocks: int = 0
    used_bytes: int = 0
    write_errors: int = 0


class Progress(msgspec.Struct, frozen=True, kw_only=True, tag="progress"):
    """Symbols that are here of each open block of content: TOI, count."""

    session: int
    blocks: list[tuple[int, int]]


class ReadProblem(msgspec.Struct, frozen=True, kw_only=True, tag="problem"):
    """Why the reader ends."""

    problem: Sentence


FromReader = Heard | Ready | ReadStatus | Progress | ReadProblem


class Reader:
    """Socket, intake and spool together."""

    def __init__(self, order: ReadOrder, receiver: socket.socket) -> None:
        self._socket = receiver
        folder = Path(order.folder)
        self._spool = BlockSpool(folder, quota_bytes=order.quota_bytes)
        self._intake = Intake(
            self._spool,
            anchor=load_certificate(order.anchor),
            sender=Division(order.sender),
            session=self._spool.session,
            number=self._spool.number,
        )
        self._last_packet = time.monotonic()
        self._gaps = 0
        self._gap_s = 0.0
        self._sync: threading.Thread | None = None
        self._sync_error: OSError | None = None
        self._rows: list[tuple[OpenBlock, list[int], Row]] = []

    def close(self) -> None:
        if self._sync is not None:
            self._sync.join()
            if self._sync_error is None:
                self._spool.commit(self._rows)
        self._spool.close()

    def read(self) -> list[Heard]:
        """Take what waits in the socket."""
        heard: list[Heard] = []
        now = time.monotonic()
        receive, feed = self._socket.recv, self._intake.feed
        for number in range(AT_ONCE):
            try:
                packet = receive(PACKET_BYTES + 1)
            except BlockingIOError:
                break
            except OSError:
                break  # The interface went down; what comes when it is up again is read then.
            if not number:
                silent = now - self._last_packet
                if silent > GAP_S:
                    self._gaps += 1
                    self._gap_s += silent
                self._last_packet = now
            beacon = feed(packet, now)
            if beacon is not None:
                self._spool.begin_session(self._intake.session)
                self._spool.number = beacon.number
                heard.append(Heard(session=self._intake.session, beacon=beacon))
        return heard

    def obey(self, message: ToReader) -> None:
        """Do what the daemon says."""
        spool = self._spool
        if isinstance(message, Judge):
            self._intake.judge(
                proven_time=datetime.fromtimestamp(message.proven_time, UTC),
                removed=message.removed,
            )
        elif message.session != spool.session:
            return  # About numbers that have another meaning by now.
        elif isinstance(message, Open):
            spool.open_blocks_of(message.blocks)
        elif isinstance(message, Close):
            spool.close_blocks(message.blocks)
        elif isinstance(message, CloseOthers):
            spool.close_blocks(spool.keys() - set(message.blocks))
        elif isinstance(message, Ignore):
            spool.ignore(message.ranges)
        else:
            spool.again(message.channel, message.toi, is_wrong=message.is_wrong)

    def ready(self) -> list[Ready]:
        """Blocks that can be decoded."""
        return [_ready(self._spool.session, block) for block in self._spool.ready()]

    def keep(self) -> None:
        """Begin, or end, writing down what is there."""
        if self._sync is not None:
            if not self._sync.is_alive():
                self._sync = None
                if self._sync_error is not None:
                    raise self._sync_error
                self._spool.commit(self._rows)
            return
        self._rows = self._spool.prepare()
        self._sync = threading.Thread(target=self._sync_disk)
        self._sync.start()

    def _sync_disk(self) -> None:
        try:
            self._spool.sync()
        except OSError as error:  # What wasn't synced isn't written down; `keep` tells.
            self._sync_error = error

    @property
    def is_keeping(self) -> bool:
        return self._sync is not None

    def progress(self) -> Progress:
        """How far blocks of content are."""
        return Progress(session=self._spool.session, blocks=self._spool.counts(Channel.CONTENT))

    def status(self) -> ReadStatus:
        """Counts up to now."""
        intake, spool = self._intake, self._spool
        return ReadStatus(
            packets=intake.packets,
            bytes=intake.bytes,
            symbols=intake.symbols,
            unverified=intake.unverified,
            vouched=intake.vouched,
            fillers=intake.fillers,
            dropped={reason: count for reason, count in intake.dropped.items()},  # noqa: C416 - plain words.
            socket_drops=dropped_packets(self._socket),
            buffer_bytes=buffer_bytes(self._socket),
            gaps=self._gaps,
            gap_s=round(self._gap_s, 1),
            silent_s=round(time.monotonic() - self._last_packet, 1),
            open_blocks=spool.open_blocks,
            used_bytes=spool.used_bytes,
            write_errors=spool.write_errors,
        )


def _ready(session: int, block: OpenBlock) -> Ready:
    return Ready(
        session=session,
        channel=block.channel,
        toi=block.toi,
        size=block.size,
        offset=block.offset,
        source=bytes(block.source),
        repairs=list(block.repairs),
    )


def run(order: ReadOrder) -> None:
    """Read until the daemon has gone."""
    output = sys.stdout.fileno()
    try:
        # One that a killed daemon left behind may just be writing down what it has.
        lock = os.open(Path(order.folder) / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        fcntl.flock(lock, fcntl.LOCK_EX)
        receiver = open_receiver(Group(order.address, order.port, order.interface, order.source))
        reader = Reader(order, receiver)
    except CuntongError as error:
        write_frame(output, ReadProblem(problem=error.sentence))
        return
    except sqlite3.Error as error:
        write_frame(output, ReadProblem(problem=database_error(error, order.folder).sentence))
        return
    except OSError as error:
        write_frame(output, ReadProblem(problem=disk_error(error).sentence))
        return
    try:
        _loop(reader, output)
    except BrokenPipeError:
        pass  # The daemon has gone.
    except sqlite3.Error as error:
        write_frame(output, ReadProblem(problem=database_error(error, order.folder).sentence))
    except OSError as error:
        write_frame(output, ReadProblem(problem=disk_error(error).sentence))
    finally:
        reader.close()


def _loop(reader: Reader, output: int) -> None:
    decoder: FrameDecoder[ToReader] = FrameDecoder(ToReader)  # type: ignore[arg-type]
    orders = select.poll()
    orders.register(sys.stdin.fileno(), select.POLLIN | select.POLLHUP)
    report_at = keep_at = time.monotonic()
    while True:
        for heard in reader.read():
            write_frame(output, heard)
        for ready in reader.ready():
            write_frame(output, ready)
        now = time.monotonic()
        if now >= report_at:
            report_at = now + REPORT_S
            write_frame(output, reader.status())
        if reader.is_keeping or now >= keep_at:
            reader.keep()
            if not reader.is_keeping:
                keep_at = now + COMMIT_S
                write_frame(output, reader.progress())
        if orders.poll(LOOK_S * 1000):
            data = os.read(sys.stdin.fileno(), 65_536)
            if not data:
                return
            for message in decoder.feed(data):
                reader.obey(message)


if __name__ == "__main__":
    use_little()
    run(msgspec.json.decode(sys.argv[1], type=ReadOrder))

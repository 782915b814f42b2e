"""Symbols on their way to whole blocks, on the disk (SPEC 11.9).

All blocks lie in one sparse file, each in a slot: first its source symbols in their places, so that a block whose
source symbols have all come is there without any decoding; then repair symbols as they come. Which symbol lies where
is written to SQLite every few seconds, after the file was synced. Symbols of blocks that nobody has asked for yet lie in
a ring of a fixed size; each slot of it says what it holds.

A symbol that a power cut has spoilt makes a block with wrong bytes. That is found by the piece's hash, like any other;
then the block begins anew.
"""

from __future__ import annotations

import array
import bisect
import contextlib
import ctypes
import os
import sqlite3
import struct
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from cuntong_protocol.datacast.blocks import BLOCK_BYTES, esi_limit, symbol_count
from cuntong_protocol.datacast.errors import DropReason
from cuntong_protocol.datacast.packets import (
    PACKET_BYTES,
    SYMBOL_BYTES,
    Channel,
    digest,
    symbol_packet,
)

SLOT_BYTES = -(-2 * symbol_count(BLOCK_BYTES) * SYMBOL_BYTES // 4096) * 4096
"""Room for all source symbols and as many repair symbols; what isn't written takes no room on the disk."""
RING_BYTES = 256 * 1024 * 1024
RING_PART = 4
"""The ring takes at most a quarter of the quota."""
SPARE_SYMBOLS = 1
"""After a decoding that wanted more; K symbols suffice in 99.6 % of the cases, one more in all but 0.002 %."""

_SYMBOL_START = PACKET_BYTES - SYMBOL_BYTES
_RING_HEAD = struct.Struct(">QB7x")
"""Number in order, from 1; whether the symbol was verified."""
_RING_SLOT = _RING_HEAD.size + PACKET_BYTES
_RING_KEYS = struct.Struct(">QB7x8xIII")
_UNVERIFIED, _VERIFIED = 1, 2
_PUNCH = 0x01 | 0x02
"""FALLOC_FL_KEEP_SIZE | FALLOC_FL_PUNCH_HOLE, see fallocate(2)."""
_PENDING = 64
"""Symbols that are written together at most: 86 kB."""
_SCHEMA = """
CREATE TABLE IF NOT EXISTS heard (session INTEGER NOT NULL, number INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS blocks (
    channel INTEGER NOT NULL,
    toi INTEGER NOT NULL,
    size INTEGER NOT NULL,
    slot INTEGER NOT NULL,
    source BLOB NOT NULL,
    repairs BLOB NOT NULL,
    flags BLOB NOT NULL,
    PRIMARY KEY (channel, toi)
) WITHOUT ROWID;
"""

_libc = ctypes.CDLL(None, use_errno=True)


@dataclass(slots=True)
class OpenBlock:
    """A block whose symbols are gathered.

    Attributes:
        source: For each source symbol 0 (not here), 1 (unverified), 2.
        repairs: Numbers of repair symbols, in the order in which they lie.
        flags: For each of these 1 or 2.
        needed: With so many symbols decoding is tried.
        is_ready: It was told that there are enough; nothing more is taken.
    """

    channel: int
    toi: int
    size: int
    slot: int
    source: bytearray
    repairs: array.array[int]
    flags: bytearray
    needed: int
    known: set[int] = field(default_factory=set)
    here: int = 0
    is_ready: bool = False
    is_dirty: bool = False

    @property
    def offset(self) -> int:
        """Where it begins in the file."""
        return self.slot * SLOT_BYTES

    @property
    def count(self) -> int:
        """Symbols that are here."""
        return self.here + len(self.repairs)

    @property
    def has_unverified(self) -> bool:
        return _UNVERIFIED in self.source or _UNVERIFIED in self.flags


class BlockSpool:
    """The spool. Blocks; used by one thread, but for `sync`."""

    def __init__(self, folder: Path, *, quota_bytes: int) -> None:
        """Open it, with what the last run left.

        Args:
            folder: It must exist.
            quota_bytes: What symbols may take on the disk.

        Raises:
            OSError, sqlite3.Error: it can't be opened.
        """
        self._quota = quota_bytes
        self._data = os.open(folder / "blocks", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        self.path = folder / "blocks"
        self._database = _open(folder / "spool.sqlite")
        row = self._database.execute("SELECT session, number FROM heard").fetchone()
        self.session: int = row[0] if row else 0
        self.number: int = row[1] if row else -1
        self._used = 0
        self._ignored_from: list[int] = []
        self._ignored_to: list[int] = []
        self._blocks: dict[tuple[int, int], OpenBlock] = {}
        self._free: list[int] = []
        self._next_slot = 0
        self._pending: list[memoryview] = []
        self._pending_at = -1
        self._pending_marks: list[tuple[OpenBlock, int]] = []
        self._closed: list[tuple[int, int]] = []
        self._news: list[OpenBlock] = []
        self.write_errors = 0
        self._load()
        self._ring = _Ring(
            folder / "ring", min(RING_BYTES, quota_bytes // RING_PART), session=self.session
        )

    def close(self) -> None:
        """Write down what is there and close the files."""
        self.flush()
        self.commit(self.prepare())
        self._database.close()
        self._ring.close()
        os.close(self._data)

    @property
    def used_bytes(self) -> int:
        """What symbols of open blocks take."""
        return self._used

    @property
    def open_blocks(self) -> int:
        return len(self._blocks)

    def keys(self) -> set[tuple[int, int]]:
        """Channel and TOI of every open block."""
        return set(self._blocks)

    def counts(self, channel: int) -> list[tuple[int, int]]:
        """Symbols that are here of each open block of a channel: TOI, count."""
        return [
            (block.toi, block.count) for block in self._blocks.values() if block.channel == channel
        ]

    def block(self, channel: int, toi: int) -> OpenBlock | None:
        """A block that is open."""
        return self._blocks.get((channel, toi))

    # Opening and closing.

    def begin_session(self, session: int) -> None:
        """A new session: what the old one's numbers meant is over."""
        if session != self.session:
            self.close_blocks(list(self._blocks))
            self._ring.clear(session)
            self.ignore([])
            self.session = session

    def open_blocks_of(self, wanted: Iterable[tuple[int, int, int]]) -> None:
        """Gather these blocks' symbols from now on: (channel, TOI, size). Those in the ring count."""
        fresh: set[tuple[int, int]] = set()
        for channel, toi, size in wanted:
            known = self._blocks.get((channel, toi))
            if known is not None and known.size == size:
                if known.count >= known.needed:
                    known.is_ready = True
                    self._news.append(known)
                continue
            if known is not None:
                self.close_blocks([(channel, toi)])
            if not 0 < size <= BLOCK_BYTES:
                continue
            count = symbol_count(size)
            slot = self._free.pop() if self._free else self._next_slot
            self._next_slot = max(self._next_slot, slot + 1)
            self._blocks[channel, toi] = OpenBlock(
                channel, toi, size, slot, bytearray(count), array.array("I"), bytearray(), count,
                is_dirty=True,
            )  # fmt: skip
            fresh.add((channel, toi))
        if fresh:
            for channel, toi, esi, packet, is_verified in self._ring.take_out(fresh):
                self.take(channel, toi, esi, packet, is_verified=is_verified)

    def close_blocks(self, keys: Iterable[tuple[int, int]]) -> None:
        """These aren't needed any more: their room is free."""
        self.flush()
        for key in keys:
            block = self._blocks.pop(key, None)
            if block is not None:
                self._used -= block.count * SYMBOL_BYTES
                self._free.append(block.slot)
                self._closed.append(key)
                _punch(self._data, block.offset, SLOT_BYTES)

    def ignore(self, ranges: Sequence[tuple[int, int]]) -> None:
        """Symbols of these blocks aren't kept for later: (first TOI, TOI after the last), in order."""
        self._ignored_from = [first for first, _ in ranges]
        self._ignored_to = [end for _, end in ranges]

    def _is_ignored(self, toi: int) -> bool:
        at = bisect.bisect_right(self._ignored_from, toi) - 1
        return at >= 0 and toi < self._ignored_to[at]

    def again(self, channel: int, toi: int, *, is_wrong: bool) -> None:
        """What was ready didn't make the block.

        Args:
            channel: Its channel.
            toi: Its TOI.
            is_wrong: It gave other bytes than it should: unverified symbols go, or if there are none, all. Else more
                are needed.
        """
        block = self._blocks.get((channel, toi))
        if block is None:
            return
        self.flush()
        block.is_ready, block.is_dirty = False, True
        before = block.count
        count = symbol_count(block.size)
        if not is_wrong:
            block.needed = max(block.needed, block.count) + SPARE_SYMBOLS
            return
        keep = _VERIFIED if block.has_unverified else _VERIFIED + 1
        for esi, flag in enumerate(block.source):
            if flag and flag < keep:
                block.source[esi] = 0
        # Slots of repair symbols are filled in their order: the first ones that stay move up.
        stay = [
            (esi, at)
            for at, (esi, flag) in enumerate(zip(block.repairs, block.flags, strict=True))
            if flag >= keep
        ]
        base = block.offset + count * SYMBOL_BYTES
        for new, (_, old) in enumerate(stay):
            if new != old:
                data = os.pread(self._data, SYMBOL_BYTES, base + old * SYMBOL_BYTES)
                os.pwrite(self._data, data, base + new * SYMBOL_BYTES)
        block.repairs = array.array("I", [esi for esi, _ in stay])
        block.flags = bytearray([_VERIFIED]) * len(stay)
        block.known = set(block.repairs)
        block.here = len(block.source) - block.source.count(0)
        block.needed = count
        self._used -= (before - block.count) * SYMBOL_BYTES

    # Symbols.

    def take(
        self, channel: int, toi: int, esi: int, packet: bytes, *, is_verified: bool
    ) -> DropReason | None:
        """Keep a symbol, or say why not (`SymbolStore`)."""
        block = self._blocks.get((channel, toi))
        if block is None:
            if self._is_ignored(toi):
                return "not-needed"
            return self._ring.put(channel, toi, esi, packet, is_verified=is_verified)
        if block.is_ready:
            return "not-needed"
        if self._used >= self._quota:
            return "spool-full"
        flag = _VERIFIED if is_verified else _UNVERIFIED
        count = len(block.source)
        if esi < count:
            known = block.source[esi]
            if known >= flag:
                return "duplicate"
            block.source[esi] = flag
            block.here += not known
            place = esi
        else:
            if esi >= esi_limit(block.size):
                return "bad-symbol"
            if esi in block.known:
                at = block.repairs.index(esi)
                if block.flags[at] >= flag:
                    return "duplicate"
                block.flags[at] = flag
                place = count + at
            else:
                if len(block.repairs) >= count:
                    return "not-needed"
                place = count + len(block.repairs)
                block.repairs.append(esi)
                block.flags.append(flag)
                block.known.add(esi)
        block.is_dirty = True
        self._used += SYMBOL_BYTES
        self._write(block, place, packet)
        if block.count >= block.needed:
            block.is_ready = True
            self._news.append(block)
        return None

    def vouch(self, channel: int, toi: int, esi: int, expected: bytes) -> bool:
        """A digest has come after its symbol (`SymbolStore`)."""
        block = self._blocks.get((channel, toi))
        if block is None or block.is_ready:
            return False
        count = len(block.source)
        if esi < count:
            if block.source[esi] != _UNVERIFIED:
                return False
            place = esi
        else:
            if esi not in block.known:
                return False
            place = count + block.repairs.index(esi)
            if block.flags[place - count] != _UNVERIFIED:
                return False
        self.flush()
        data = os.pread(self._data, SYMBOL_BYTES, block.offset + place * SYMBOL_BYTES)
        packet = symbol_packet(self.session, Channel(channel), toi, esi, data)
        if digest(packet) != expected:
            return False
        if esi < count:
            block.source[esi] = _VERIFIED
        else:
            block.flags[place - count] = _VERIFIED
        return True

    def ready(self) -> list[OpenBlock]:
        """Blocks that have enough symbols since the last call; their symbols are on the disk."""
        self.flush()
        news = [block for block in self._news if block.is_ready]
        self._news = []
        return news

    # Writing.

    def _write(self, block: OpenBlock, place: int, packet: bytes) -> None:
        at = block.offset + place * SYMBOL_BYTES
        if at != self._pending_at + len(self._pending) * SYMBOL_BYTES or (
            len(self._pending) >= _PENDING
        ):
            self.flush()
            self._pending_at = at
        self._pending.append(memoryview(packet)[_SYMBOL_START:])
        self._pending_marks.append((block, place))

    def flush(self) -> None:
        """Hand what was taken to the system; after that the end of this process loses nothing of it."""
        if not self._pending:
            return
        try:
            written = os.pwritev(self._data, self._pending, self._pending_at)
            is_whole = written == len(self._pending) * SYMBOL_BYTES
        except OSError:
            is_whole = False
        if not is_whole:
            # A full disk: these symbols never came.
            self.write_errors += len(self._pending)
            for block, place in reversed(self._pending_marks):
                self._used -= SYMBOL_BYTES
                _unmark(block, place)
        self._pending, self._pending_marks, self._pending_at = [], [], -1

    def prepare(self) -> list[tuple[int, int, int, int, bytes, bytes, bytes]]:
        """What `commit` will write down; `sync` comes between the two."""
        self.flush()
        rows: list[tuple[int, int, int, int, bytes, bytes, bytes]] = []
        for block in self._blocks.values():
            if block.is_dirty:
                block.is_dirty = False
                rows.append(
                    (
                        block.channel,
                        block.toi,
                        block.size,
                        block.slot,
                        bytes(block.source),
                        block.repairs.tobytes(),
                        bytes(block.flags),
                    )
                )
        return rows

    def sync(self) -> None:
        """Wait until the disk has the symbols. May be called in another thread."""
        os.fdatasync(self._data)

    def commit(self, rows: Collection[tuple[int, int, int, int, bytes, bytes, bytes]]) -> None:
        """Write down where the symbols lie."""
        closed, self._closed = self._closed, []
        with self._database:
            self._database.executemany("DELETE FROM blocks WHERE channel = ? AND toi = ?", closed)
            self._database.executemany(
                "INSERT OR REPLACE INTO blocks VALUES (?, ?, ?, ?, ?, ?, ?)",
                [row for row in rows if row[:2] in self._blocks],
            )
            self._database.execute("DELETE FROM heard")
            self._database.execute("INSERT INTO heard VALUES (?, ?)", (self.session, self.number))

    def _load(self) -> None:
        slots: set[int] = set()
        for channel, toi, size, slot, source, repairs, flags in self._database.execute(
            "SELECT channel, toi, size, slot, source, repairs, flags FROM blocks"
        ):
            count = symbol_count(size)
            block = OpenBlock(
                channel,
                toi,
                size,
                slot,
                bytearray(source),
                array.array("I", repairs),
                bytearray(flags),
                count,
            )
            if len(block.source) != count or len(block.repairs) != len(block.flags):
                continue  # Not ours; it is written anew when somebody opens it.
            block.known = set(block.repairs)
            block.here = count - block.source.count(0)
            self._blocks[channel, toi] = block
            self._used += block.count * SYMBOL_BYTES
            slots.add(slot)
        self._next_slot = max(slots, default=-1) + 1
        self._free = [slot for slot in range(self._next_slot) if slot not in slots]
        for slot in self._free:
            _punch(self._data, slot * SLOT_BYTES, SLOT_BYTES)


class _Ring:
    """Symbols of blocks that nobody has asked for yet; the oldest are overwritten."""

    def __init__(self, path: Path, size: int, *, session: int) -> None:
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        self._slots = max(1, size // _RING_SLOT)
        self._keys = array.array("Q", bytes(8 * self._slots))
        self._numbers = 0
        self._session = session
        self._pending: list[bytes] = []
        self._load()

    def close(self) -> None:
        os.close(self._file)

    def clear(self, session: int) -> None:
        """Forget everything."""
        self._session = session
        self._keys = array.array("Q", bytes(8 * self._slots))
        os.ftruncate(self._file, 0)

    def put(
        self, channel: int, toi: int, esi: int, packet: bytes, *, is_verified: bool
    ) -> DropReason | None:
        slot = self._numbers % self._slots
        self._numbers += 1
        head = _RING_HEAD.pack(self._numbers, is_verified)
        try:
            os.pwritev(self._file, [head, packet], slot * _RING_SLOT)
        except OSError:
            self._keys[slot] = 0
            return "spool-full"
        self._keys[slot] = channel << 56 | toi << 24 | esi
        return None

    def take_out(
        self, wanted: Collection[tuple[int, int]]
    ) -> Iterator[tuple[int, int, int, bytes, bool]]:
        """Symbols of these blocks, verified ones first: (channel, TOI, number, packet, is verified)."""
        blocks = {channel << 32 | toi for channel, toi in wanted}
        slots = [slot for slot, key in enumerate(self._keys) if key >> 24 in blocks]
        found: list[tuple[int, int, int, bytes, bool]] = []
        for slot in slots:
            key, self._keys[slot] = self._keys[slot], 0
            data = os.pread(self._file, _RING_SLOT, slot * _RING_SLOT)
            if len(data) == _RING_SLOT:
                is_verified = bool(data[8])
                found.append(
                    (
                        key >> 56,
                        key >> 24 & 0xFFFF_FFFF,
                        key & 0xFF_FFFF,
                        data[_RING_HEAD.size :],
                        is_verified,
                    )
                )
        found.sort(key=lambda entry: not entry[4])
        yield from found

    def _load(self) -> None:
        """What the last run left: each slot says what it holds."""
        for slot in range(self._slots):
            data = os.pread(self._file, _RING_KEYS.size, slot * _RING_SLOT)
            if len(data) < _RING_KEYS.size:
                break
            number, _, tsi, toi, esi = _RING_KEYS.unpack(data)
            if number and tsi >> 4 == self._session:
                self._keys[slot] = (tsi & 15) << 56 | toi << 24 | esi
                self._numbers = max(self._numbers, number)


def _unmark(block: OpenBlock, place: int) -> None:
    count = len(block.source)
    if place < count:
        block.here -= block.source[place] != 0
        block.source[place] = 0
    else:
        block.known.discard(block.repairs.pop(place - count))
        block.flags.pop(place - count)
    block.is_ready = False


def _punch(descriptor: int, start: int, length: int) -> None:
    """Give room back to the file system; where that isn't possible, it is used again all the same."""
    with contextlib.suppress(AttributeError):
        _libc.fallocate(descriptor, _PUNCH, ctypes.c_long(start), ctypes.c_long(length))


def _open(path: Path) -> sqlite3.Connection:
    try:
        return _connect(path)
    except sqlite3.DatabaseError:
        # It only knew what lies where in the spool; that is sent again.
        for name in (path, Path(f"{path}-wal"), Path(f"{path}-shm")):
            name.unlink(missing_ok=True)
        return _connect(path)


def _connect(path: Path) -> sqlite3.Connection:
    database = sqlite3.connect(path, check_same_thread=False)
    try:
        database.execute("PRAGMA journal_mode = WAL")
        database.execute("PRAGMA synchronous = NORMAL")
        database.executescript(_SCHEMA)
        database.execute("PRAGMA quick_check(1)").fetchone()
    except BaseException:
        database.close()
        raise
    return database

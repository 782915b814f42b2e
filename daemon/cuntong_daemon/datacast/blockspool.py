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
import itertools
import os
import sqlite3
import struct
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from cuntong_protocol.datacast.blocks import BLOCK_BYTES, esi_limit, symbol_count
from cuntong_protocol.datacast.errors import DropReason
from cuntong_protocol.datacast.packets import (
    MAX_ESI,
    MAX_SESSION,
    MAX_TOI,
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
_RING_VERIFIED = 1 << 63
_RING_KEY = _RING_VERIFIED - 1
"""In memory a slot is a number: verified, channel, TOI and symbol number."""
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

_MOST_LATER = 64
_MAX_SLOTS = 1 << 20
_MAX_NUMBER = 1 << 62
_NUMBER_BYTES = array.array("I").itemsize
_CHANNELS = frozenset(int(channel) for channel in Channel if channel is not Channel.CONTROL)

_libc = ctypes.CDLL(None, use_errno=True)

Row = tuple[int, int, int, int, bytes, bytes, bytes]
"""Of the table `blocks`."""


@dataclass(slots=True)
class OpenBlock:
    """A block whose symbols are gathered.

    Attributes:
        source: For each source symbol 0 (not here), 1 (unverified), 2.
        repairs: Numbers of repair symbols, in the order in which they lie; 0: nothing lies there.
        flags: For each of these 0, 1 or 2.
        needed: With so many symbols decoding is tried.
        known: The place of each repair symbol among these.
        is_ready: It was told that there are enough; nothing more is taken until `again`.
        later: Verified symbols that have come since: a forger could keep a small block ready all the time.
        free: Places among the repair symbols that may be used again.
        left: Those that may be once it is written down that nothing lies there: else a verified symbol would have another
            one's bytes after a crash.
    """

    channel: int
    toi: int
    size: int
    slot: int
    source: bytearray
    repairs: array.array[int]
    flags: bytearray
    needed: int
    known: dict[int, int] = field(default_factory=dict)
    here: int = 0
    is_ready: bool = False
    is_dirty: bool = False
    free: list[int] = field(default_factory=list)
    left: list[int] = field(default_factory=list)
    later: dict[int, bytes] = field(default_factory=dict)

    @property
    def offset(self) -> int:
        """Where it begins in the file."""
        return self.slot * SLOT_BYTES

    @property
    def count(self) -> int:
        """Symbols that are here."""
        return self.here + len(self.known)

    @property
    def has_unverified(self) -> bool:
        return _UNVERIFIED in self.source or _UNVERIFIED in self.flags

    def unmark(self, place: int, *, is_written: bool = True) -> bool:
        """What lies in a place doesn't count any more; False when it didn't.

        Args:
            place: Source symbols first, then repair symbols.
            is_written: It may be written down that it is there.
        """
        count = len(self.source)
        self.is_ready, self.is_dirty = False, True
        if place < count:
            was_here, self.source[place] = bool(self.source[place]), 0
            self.here -= was_here
            return was_here
        at = place - count
        if not self.flags[at]:
            return False
        is_left = is_written and self.flags[at] == _VERIFIED
        del self.known[self.repairs[at]]
        self.repairs[at] = self.flags[at] = 0
        (self.left if is_left else self.free).append(at)
        return True

    def least_unverified(self) -> int | None:
        """The lowest number of a repair symbol that isn't verified."""
        numbers = (esi for esi, at in self.known.items() if self.flags[at] == _UNVERIFIED)
        return min(numbers, default=None)


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
        self.session, self.number = 0, -1
        self._used = 0
        self._ignored_from: list[int] = []
        self._ignored_to: list[int] = []
        self._blocks: dict[tuple[int, int], OpenBlock] = {}
        self._free: list[int] = []
        self._next_slot = 0
        self._pending: list[memoryview] = []
        self._pending_at = -1
        self._pending_marks: list[tuple[OpenBlock, int]] = []
        self._closed: list[tuple[tuple[int, int], int | None]] = []
        self._news: list[OpenBlock] = []
        self.write_errors = 0
        try:
            self._database = self._open(folder)
        except sqlite3.DatabaseError:
            # It only knew what lies where in the spool; that is sent again.
            for name in ("spool.sqlite", "spool.sqlite-wal", "spool.sqlite-shm"):
                (folder / name).unlink(missing_ok=True)
            self._database = self._open(folder)
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
                # Its place is another's only once that is written down: after a crash it would have that one's bytes.
                self._closed.append((key, block.slot))

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
        if is_wrong:
            keep = _VERIFIED if block.has_unverified else _VERIFIED + 1
            marked = itertools.chain(block.source, block.flags)
            self._unmark(block, [place for place, flag in enumerate(marked) if 0 < flag < keep])
            block.needed = symbol_count(block.size)
        else:
            block.needed = max(block.needed, block.count) + SPARE_SYMBOLS
        later, block.later = block.later, {}
        for esi, packet in later.items():
            self.take(channel, toi, esi, packet, is_verified=True)

    def _unmark(self, block: OpenBlock, places: Iterable[int]) -> None:
        self._used -= sum(block.unmark(place) for place in places) * SYMBOL_BYTES

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
            if is_verified and len(block.later) < _MOST_LATER:
                block.later[esi] = packet
            return "not-needed"
        if self._used >= self._quota and channel == Channel.CONTENT:
            return "spool-full"  # What tells of other content gets in all the same; it is little.
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
            at = block.known.get(esi)
            known = 0 if at is None else block.flags[at]
            if known >= flag:
                return "duplicate"
            if at is None:
                at = self._place_for(block, is_verified=is_verified)
                if at is None:
                    return "not-needed"
            block.repairs[at], block.flags[at], block.known[esi] = esi, flag, at
            place = count + at
        block.is_dirty = True
        if not known:
            self._used += SYMBOL_BYTES
        self._write(block, place, packet)
        if block.count >= block.needed:
            block.is_ready = True
            self._news.append(block)
        return None

    def _place_for(self, block: OpenBlock, *, is_verified: bool) -> int | None:
        """Where another repair symbol may lie."""
        if not block.free and len(block.repairs) < len(block.source):
            block.repairs.append(0)
            block.flags.append(0)
            return len(block.repairs) - 1
        if not block.free and is_verified:
            # Forged ones don't keep it out.
            victim = block.least_unverified()
            if victim is not None:
                self.flush()
                self._unmark(block, [len(block.source) + block.known[victim]])
        return block.free.pop() if block.free else None

    def vouch(self, channel: int, toi: int, esi: int, expected: bytes) -> bool:
        """A digest has come after its symbol (`SymbolStore`)."""
        block = self._blocks.get((channel, toi))
        if block is None or block.is_ready:
            return False
        count = len(block.source)
        at = block.known.get(esi)
        if esi < count:
            place, flag = esi, block.source[esi]
        elif at is not None:
            place, flag = count + at, block.flags[at]
        else:
            return False
        if flag != _UNVERIFIED:
            return False
        self.flush()
        try:
            data = os.pread(self._data, SYMBOL_BYTES, block.offset + place * SYMBOL_BYTES)
        except OSError:
            return False
        packet = symbol_packet(self.session, Channel(channel), toi, esi, data)
        if digest(packet) != expected:
            # It was forged: the genuine one may have the place.
            self._unmark(block, [place])
            return False
        block.is_dirty = True
        if place < count:
            block.source[place] = _VERIFIED
        else:
            block.flags[place - count] = _VERIFIED
        return True

    def ready(self) -> list[OpenBlock]:
        """Blocks that have enough symbols since the last call; their symbols are on the disk."""
        self.flush()
        news, self._news = self._news, []
        return [
            block
            for block in news
            if block.is_ready and self._blocks.get((block.channel, block.toi)) is block
        ]

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
            for block, place in self._pending_marks:
                self._used -= block.unmark(place, is_written=False) * SYMBOL_BYTES
        self._pending, self._pending_marks, self._pending_at = [], [], -1

    def prepare(self) -> list[tuple[OpenBlock, list[int], Row]]:
        """What `commit` will write down; `sync` comes between the two."""
        self.flush()
        rows: list[tuple[OpenBlock, list[int], Row]] = []
        for block in self._blocks.values():
            if block.is_dirty:
                block.is_dirty = False
                left, block.left = block.left, []
                row = (
                    block.channel,
                    block.toi,
                    block.size,
                    block.slot,
                    bytes(block.source),
                    block.repairs.tobytes(),
                    bytes(block.flags),
                )
                rows.append((block, left, row))
        return rows

    def sync(self) -> None:
        """Wait until the disk has the symbols. May be called in another thread."""
        os.fdatasync(self._data)

    def commit(self, rows: Collection[tuple[OpenBlock, list[int], Row]]) -> None:
        """Write down where the symbols lie."""
        closed = list(self._closed)
        with self._database:
            self._database.executemany(
                "DELETE FROM blocks WHERE channel = ? AND toi = ?", [key for key, _ in closed]
            )
            self._database.executemany(
                "INSERT OR REPLACE INTO blocks VALUES (?, ?, ?, ?, ?, ?, ?)",
                # Another one may have its numbers by now, in another place.
                [row for block, _, row in rows if self._blocks.get(row[:2]) is block],
            )
            self._database.execute("DELETE FROM heard")
            self._database.execute("INSERT INTO heard VALUES (?, ?)", (self.session, self.number))
        del self._closed[: len(closed)]
        for _, slot in closed:
            if slot is not None:
                self._free.append(slot)
                _punch(self._data, slot * SLOT_BYTES, SLOT_BYTES)
        for block, left, _ in rows:
            block.free += left

    def _open(self, folder: Path) -> sqlite3.Connection:
        database = _connect(folder / "spool.sqlite")
        try:
            self._load(database)
        except BaseException:
            database.close()
            raise
        return database

    def _load(self, database: sqlite3.Connection) -> None:
        self._blocks, self._closed, self._used = {}, [], 0
        slots: set[int] = set()
        for session, number in database.execute("SELECT session, number FROM heard"):
            if _is_within(session, 0, MAX_SESSION) and _is_within(number, -1, 1 << 53):
                self.session, self.number = session, number
        for row in database.execute(
            "SELECT channel, toi, size, slot, source, repairs, flags FROM blocks"
        ):
            block = _block_of(row)
            if block is None or block.slot in slots:
                self._closed.append((row[:2], None))  # It is written anew when somebody opens it.
                continue
            self._blocks[block.channel, block.toi] = block
            self._used += block.count * SYMBOL_BYTES
            slots.add(block.slot)
        self._next_slot = max(slots, default=-1) + 1
        self._free = [slot for slot in range(self._next_slot) if slot not in slots]
        if os.fstat(self._data).st_size > self._next_slot * SLOT_BYTES:
            os.ftruncate(self._data, self._next_slot * SLOT_BYTES)
        for slot in self._free:
            _punch(self._data, slot * SLOT_BYTES, SLOT_BYTES)


def _is_within(value: object, least: int, most: int) -> bool:
    return type(value) is int and least <= value <= most


def _block_of(row: Row) -> OpenBlock | None:
    """A block as it was written down; None when that makes no sense."""
    channel, toi, size, slot, source, repairs, flags = row
    if (
        channel not in _CHANNELS
        or not _is_within(toi, 0, MAX_TOI)
        or not _is_within(size, 1, BLOCK_BYTES)
        or not _is_within(slot, 0, _MAX_SLOTS)
        or not all(isinstance(data, bytes) for data in (source, repairs, flags))
    ):
        return None
    count = symbol_count(size)
    if (
        len(source) != count
        or len(flags) > count
        or len(repairs) != len(flags) * _NUMBER_BYTES
        or not {*source, *flags} <= {0, _UNVERIFIED, _VERIFIED}
    ):
        return None
    numbers = array.array("I", repairs)
    known = {esi: at for at, esi in enumerate(numbers) if esi}
    limit = esi_limit(size)
    if (
        len(known) != len(flags) - flags.count(0)
        or any(bool(esi) != bool(flag) for esi, flag in zip(numbers, flags, strict=True))
        or any(not count <= esi < limit for esi in known)
    ):
        return None
    return OpenBlock(
        channel, toi, size, slot, bytearray(source), numbers, bytearray(flags), count,
        known=known,
        here=count - source.count(0),
        free=[at for at, esi in enumerate(numbers) if not esi],
    )  # fmt: skip


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
            is_whole = os.pwritev(self._file, [head, packet], slot * _RING_SLOT) == _RING_SLOT
        except OSError:
            is_whole = False
        if not is_whole:
            # What is left of the packet that was there is of no use, after a restart neither.
            self._keys[slot] = 0
            with contextlib.suppress(OSError):
                os.pwrite(self._file, bytes(_RING_HEAD.size), slot * _RING_SLOT)
            return "spool-full"
        self._keys[slot] = is_verified * _RING_VERIFIED | channel << 56 | toi << 24 | esi
        return None

    def take_out(
        self, wanted: Collection[tuple[int, int]]
    ) -> Iterator[tuple[int, int, int, bytes, bool]]:
        """Symbols of these blocks, verified ones first: (channel, TOI, number, packet, is verified)."""
        blocks = {channel << 32 | toi for channel, toi in wanted}
        slots = [slot for slot, key in enumerate(self._keys) if (key & _RING_KEY) >> 24 in blocks]
        for is_verified in (True, False):
            for slot in slots:
                key = self._keys[slot]
                if not key or bool(key & _RING_VERIFIED) is not is_verified:
                    continue
                self._keys[slot] = 0
                data = os.pread(self._file, _RING_SLOT, slot * _RING_SLOT)
                if len(data) == _RING_SLOT:
                    key &= _RING_KEY
                    packet = data[_RING_HEAD.size :]
                    yield key >> 56, key >> 24 & 0xFFFF_FFFF, key & 0xFF_FFFF, packet, is_verified

    def _load(self) -> None:
        """What the last run left: each slot says what it holds."""
        for slot in range(self._slots):
            data = os.pread(self._file, _RING_KEYS.size, slot * _RING_SLOT)
            if len(data) < _RING_KEYS.size:
                break
            number, is_verified, tsi, toi, esi = _RING_KEYS.unpack(data)
            if (
                0 < number < _MAX_NUMBER
                and tsi >> 4 == self._session
                and tsi & 15 in _CHANNELS
                and esi <= MAX_ESI
            ):
                verified = (is_verified == 1) * _RING_VERIFIED
                self._keys[slot] = verified | (tsi & 15) << 56 | toi << 24 | esi
                self._numbers = max(self._numbers, number)


def _punch(descriptor: int, start: int, length: int) -> None:
    """Give room back to the file system; where that isn't possible, it is used again all the same."""
    with contextlib.suppress(AttributeError):
        _libc.fallocate(descriptor, _PUNCH, ctypes.c_long(start), ctypes.c_long(length))


def _connect(path: Path) -> sqlite3.Connection:
    database = sqlite3.connect(path, check_same_thread=False)
    try:
        database.execute("PRAGMA journal_mode = WAL")
        database.execute("PRAGMA synchronous = NORMAL")
        database.executescript(_SCHEMA)
        found = database.execute("PRAGMA quick_check(1)").fetchone()
    except BaseException:
        database.close()
        raise
    if found != ("ok",):
        database.close()
        raise sqlite3.DatabaseError(str(found))
    return database

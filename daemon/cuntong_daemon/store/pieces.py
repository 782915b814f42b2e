"""Which pieces of a payload are there: a set of piece numbers, and the check against the disk.

BitTorrent v2 starts each file at a piece, so a piece lies in one file (BEP 52). What is believed without
reading it is decided by the caller; everything else counts only when its Merkle hash is right.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from cuntong_protocol.bundle.errors import BundleError
from cuntong_protocol.bundle.torrent import Torrent, TorrentFile


def no_checkpoint() -> None:
    """For callers that can't be cancelled."""


@dataclass(frozen=True, slots=True)
class PieceSet:
    """A set of piece numbers below `count`.

    Attributes:
        count: How many pieces the payload has.
        bits: Bit i is set when piece i is in the set.
    """

    count: int
    bits: int = 0

    @classmethod
    def full(cls, count: int) -> PieceSet:
        return cls(count, (1 << count) - 1)

    @classmethod
    def of(cls, count: int, pieces: Iterable[int]) -> PieceSet:
        """A set of these pieces; numbers outside the payload are left out."""
        field = bytearray((count + 7) // 8)
        for piece in pieces:
            if 0 <= piece < count:
                field[piece >> 3] |= 1 << (piece & 7)
        return cls(count, int.from_bytes(field, "little"))

    @classmethod
    def from_bytes(cls, count: int, data: bytes) -> PieceSet:
        """Read what `to_bytes` wrote; bits beyond `count` are dropped."""
        return cls(count, int.from_bytes(data, "little") & ((1 << count) - 1))

    def to_bytes(self) -> bytes:
        """Piece i is bit `i & 7` of byte `i >> 3`."""
        return self.bits.to_bytes((self.count + 7) // 8, "little")

    def as_bools(self) -> list[bool]:
        data = self.to_bytes()
        return [bool(data[i >> 3] >> (i & 7) & 1) for i in range(self.count)]

    @property
    def is_full(self) -> bool:
        return self.bits == (1 << self.count) - 1

    def missing(self) -> PieceSet:
        return PieceSet(self.count, self.bits ^ ((1 << self.count) - 1))

    def __contains__(self, piece: int) -> bool:
        return piece >= 0 and bool(self.bits >> piece & 1)

    def __len__(self) -> int:
        return self.bits.bit_count()

    def __bool__(self) -> bool:
        return self.bits != 0

    def __iter__(self) -> Iterator[int]:
        data = self.to_bytes()
        return (i for i in range(self.count) if data[i >> 3] >> (i & 7) & 1)

    def __or__(self, other: PieceSet) -> PieceSet:
        return PieceSet(self.count, self.bits | other.bits)

    def __sub__(self, other: PieceSet) -> PieceSet:
        return PieceSet(self.count, self.bits & ~other.bits)


def bytes_of(torrent: Torrent, pieces: PieceSet) -> int:
    """How many bytes of content these pieces hold."""
    total = 0
    for file in torrent.files:
        numbers = torrent.pieces_of(file)
        if not numbers:
            continue
        part = (pieces.bits >> numbers.start) & ((1 << len(numbers)) - 1)
        total += part.bit_count() * torrent.piece_length
        if numbers[-1] in pieces:
            total -= len(numbers) * torrent.piece_length - file.length
    return total


def present_pieces(
    torrent: Torrent,
    folder: Path,
    *,
    believed: PieceSet,
    checkpoint: Callable[[], None] = no_checkpoint,
) -> PieceSet:
    """Which pieces are on the disk, reading only what isn't believed.

    A believed piece must still lie within its file's size on the disk. Other pieces are hashed; holes of
    sparse files are skipped, since a download reserves its files that way.

    Args:
        torrent: The payload.
        folder: Where its files lie.
        believed: Pieces that were checked before and are durable.
        checkpoint: Called between pieces; may raise to stop.
    """
    return _check(torrent, folder, believed, checkpoint, skip_holes=True)


def checked_pieces(torrent: Torrent, folder: Path, pieces: PieceSet) -> PieceSet:
    """Which of these pieces are on the disk and right."""
    good: list[int] = []
    for piece in pieces:
        file, start, length = torrent.piece_place(piece)
        try:
            descriptor = open_plain(folder / file.path)
        except OSError:
            continue
        try:
            if _read_matches(descriptor, torrent, piece, start, start + length):
                good.append(piece)
        finally:
            os.close(descriptor)
    return PieceSet.of(torrent.piece_count, good)


def verified_pieces(
    torrent: Torrent, folder: Path, *, checkpoint: Callable[[], None] = no_checkpoint
) -> PieceSet:
    """Which pieces are on the disk and right: every byte is read, nothing is believed."""
    return _check(torrent, folder, PieceSet(torrent.piece_count), checkpoint, skip_holes=False)


def _check(
    torrent: Torrent,
    folder: Path,
    believed: PieceSet,
    checkpoint: Callable[[], None],
    *,
    skip_holes: bool,
) -> PieceSet:
    good: list[int] = []
    for file in torrent.files:
        good += _good_in_file(torrent, file, folder / file.path, believed, checkpoint, skip_holes)
    return PieceSet.of(torrent.piece_count, good)


def _good_in_file(
    torrent: Torrent,
    file: TorrentFile,
    path: Path,
    believed: PieceSet,
    checkpoint: Callable[[], None],
    skip_holes: bool,
) -> Iterator[int]:
    numbers = torrent.pieces_of(file)
    if not numbers:
        return
    try:
        descriptor = open_plain(path)
    except OSError:
        return  # Not there, not readable or not a plain file: then none of its pieces are.
    with os.fdopen(descriptor, "rb", buffering=0) as handle:
        size = os.fstat(descriptor).st_size
        for position, number in enumerate(numbers):
            checkpoint()
            start = position * torrent.piece_length
            end = min(start + torrent.piece_length, file.length)
            if size < end:
                return
            if number in believed:
                yield number
            elif skip_holes and _is_hole(descriptor, start, end):
                continue
            elif _read_matches(handle.fileno(), torrent, number, start, end):
                yield number


def _read_matches(descriptor: int, torrent: Torrent, number: int, start: int, end: int) -> bool:
    try:
        torrent.check_piece(number, os.pread(descriptor, end - start, start))
    except (OSError, BundleError):
        return False  # A bad sector, or other bytes than they should be.
    return True


def _is_hole(descriptor: int, start: int, end: int) -> bool:
    try:
        return os.lseek(descriptor, start, os.SEEK_DATA) >= end
    except OSError as error:
        return error.errno == errno.ENXIO  # ENXIO: no data up to the end of the file.


def open_plain(path: Path) -> int:
    """Open a plain file for reading; a link, a device or a pipe is refused.

    Raises:
        OSError: it isn't there, can't be read, or isn't a plain file.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, os.strerror(errno.EINVAL), str(path))
    return descriptor


def sync_pieces(torrent: Torrent, folder: Path, pieces: PieceSet) -> None:
    """Make the files of these pieces durable, and the folders they lie in.

    Raises:
        OSError: a file vanished or the disk failed; then nothing about them may be believed.
    """
    folders = {folder.parent, folder}
    for file in torrent.files:
        numbers = torrent.pieces_of(file)
        if not (pieces.bits >> numbers.start) & ((1 << len(numbers)) - 1):
            continue
        path = folder / file.path
        _sync(path)
        parent = path.parent
        while parent not in folders:
            folders.add(parent)
            parent = parent.parent
    for place in folders:
        _sync(place)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

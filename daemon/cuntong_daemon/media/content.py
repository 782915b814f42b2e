"""Content of a volume into payloads: by place first, by hash then (SPEC 12.4).

Whatever is read is checked piece by piece before it counts. Everything here blocks; it runs in a worker thread.
"""

from __future__ import annotations

import fcntl
import mmap
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from types import TracebackType
from typing import Self

from cuntong_daemon.store.links import FICLONE
from cuntong_daemon.store.pieces import PieceSet
from cuntong_protocol.bundle.errors import BundleError
from cuntong_protocol.bundle.merkle import BLOCK, leaf_hashes, merkle_root, reduce_hashes
from cuntong_protocol.bundle.torrent import MAX_PIECE_LENGTH, Torrent, TorrentFile
from cuntong_protocol.media.errors import MediaError
from cuntong_protocol.media.layout import (
    PARTS_FOLDER,
    PAYLOAD,
    parse_part,
    part_file,
    store_file,
)

from .volume import VolumeFolder, is_gone, manifest_lines

CHUNK_BYTES = 2 * 1024 * 1024
"""Read at once, or one piece if that is longer."""
BUFFERS = 3
"""Chunks in memory: one is read and hashed, one written, one waits."""


@dataclass(slots=True)
class Gained:
    """What came from a volume for one payload.

    Attributes:
        pieces: Right, and written; durable when the caller has synced them.
        bytes_taken: Of these.
        bytes_wrong: That were read where the payload should lie, and weren't right.
    """

    pieces: PieceSet
    bytes_taken: int = 0
    bytes_wrong: int = 0


@dataclass(frozen=True, slots=True)
class _Stretch:
    """Where consecutive pieces of a file may lie on the volume.

    Attributes:
        first: Number within the file of the piece at offset 0.
    """

    path: PurePosixPath
    first: int


@dataclass(slots=True)
class VolumeContent:
    """The content of one open volume.

    Attributes:
        volume: It.
        is_gone: It was pulled out; nothing more comes.
        bytes_read: Of content.
    """

    volume: VolumeFolder
    is_gone: bool = False
    bytes_read: int = 0
    _sound: set[PurePosixPath] = field(default_factory=set)
    _has_wrong: bool = False
    _misplaced: dict[bytes, tuple[PurePosixPath, int]] = field(default_factory=dict)

    def take(
        self,
        torrent: Torrent,
        folder: Path,
        have: PieceSet,
        report: Callable[[int], None],
        checkpoint: Callable[[], None],
    ) -> Gained:
        """Write what the volume has of a payload, where it should lie, into the payload's files.

        Args:
            torrent: Of the payload.
            folder: Its files; they are made.
            have: Pieces that are there.
            report: Told how many bytes were read.
            checkpoint: Called between chunks; may raise to stop.

        Raises:
            OSError: the payload's files can't be written. What was written before lies there.
        """
        parts = self._parts(torrent)
        gained = Gained(PieceSet(torrent.piece_count))
        good: list[int] = []
        with _Writer(_chunk_bytes(torrent)) as writer:
            for number, file in enumerate(torrent.files):
                wanted = [piece for piece in torrent.pieces_of(file) if piece not in have]
                whole = store_file(torrent.infohash, torrent.name, file.path)
                stretches = [_Stretch(whole, 0), *parts.get(number, ())]
                if not wanted or self.is_gone:
                    continue
                good += self._take_file(
                    torrent, file, wanted, stretches, folder, writer, gained, report, checkpoint
                )
        gained.pieces = PieceSet.of(torrent.piece_count, good)
        return gained

    def take_misplaced(
        self,
        torrent: Torrent,
        folder: Path,
        have: PieceSet,
        report: Callable[[int], None],
        checkpoint: Callable[[], None],
    ) -> Gained:
        """Write pieces that lie somewhere else on the volume than they should; `search` has found them.

        Args, errors: as `take`.
        """
        gained = Gained(PieceSet(torrent.piece_count))
        good: list[int] = []
        with _Writer(_chunk_bytes(torrent)) as writer:
            for piece in have.missing():
                checkpoint()
                place = self._misplaced.get(torrent.piece_hash(piece))
                if place is None or self.is_gone:
                    continue
                file, offset, length = torrent.piece_place(piece)
                data = self._read(place[0], place[1], length)
                if data is not None and _is_right(torrent, piece, data):
                    writer.open(folder / file.path)
                    writer.write_now(data, offset)
                    good.append(piece)
                    gained.bytes_taken += length
                    report(length)
        gained.pieces = PieceSet.of(torrent.piece_count, good)
        return gained

    def search(
        self, wanted: Iterable[tuple[Torrent, PieceSet]], checkpoint: Callable[[], None]
    ) -> bool:
        """Look for missing pieces in all files that weren't wholly right where they lay.

        Nothing is looked for on a volume that is as its manifest says: what it lacks lies on another one.

        Args:
            wanted: Payloads, and their pieces that are still missing.
            checkpoint: Called between chunks; may raise to stop.

        Returns:
            Whether something was found.
        """
        hashes: dict[int, set[bytes]] = {}
        for torrent, missing in wanted:
            some = hashes.setdefault(torrent.piece_length, set())
            some.update(torrent.piece_hash(piece) for piece in missing)
        hashes = {length: some for length, some in hashes.items() if some}
        if not hashes or self.is_gone or not self._is_damaged():
            return False
        for found in self.volume.files():
            if found.path in self._sound or not found.size:
                continue
            for digest, offset in self._hashes_of(found.path, found.size, hashes, checkpoint):
                self._misplaced.setdefault(digest, (found.path, offset))
            if self.is_gone:
                break
        return bool(self._misplaced)

    def _is_damaged(self) -> bool:
        """Whether something was wrong where it lay, or other files are there than the manifest names."""
        if self._has_wrong:
            return True
        stated = {path for path, _ in manifest_lines(self.volume)}
        here = {
            found.path.as_posix()
            for found in self.volume.files()
            if found.path.is_relative_to(PAYLOAD)
        }
        return not stated or stated != here

    def _hashes_of(
        self,
        path: PurePosixPath,
        size: int,
        wanted: Mapping[int, set[bytes]],
        checkpoint: Callable[[], None],
    ) -> Iterator[tuple[bytes, int]]:
        """The wanted hashes that a file's stretches have, and where."""
        source = self._open(path)
        if source is None:
            return
        step = min(wanted)
        buffer = memoryview(bytearray(min(size, MAX_PIECE_LENGTH)))
        try:
            for start in range(0, size, MAX_PIECE_LENGTH):
                checkpoint()
                data = buffer[: min(MAX_PIECE_LENGTH, size - start)]
                got = self._read_into(source, data, start, step, checkpoint)
                leaves = leaf_hashes(data)
                for length, hashes in wanted.items():
                    for at in range(0, len(data), length):
                        if not got(at, min(length, len(data) - at)):
                            continue
                        some = leaves[at // BLOCK : (at + length) // BLOCK]
                        # A file of one piece has a root of its own; the last piece of a longer one is filled up.
                        for digest in (merkle_root(some), reduce_hashes(some, BLOCK, length)[0]):
                            if digest in hashes:
                                yield digest, start + at
                if self.is_gone:
                    return
        finally:
            os.close(source)

    def _parts(self, torrent: Torrent) -> dict[int, list[_Stretch]]:
        """The stretches of files that lie as parts, by number of the file."""
        top = PARTS_FOLDER / torrent.infohash.hex()
        found: dict[int, list[_Stretch]] = {}
        for folder in self.volume.names(top):
            for name in self.volume.names(top / folder):
                place = parse_part(folder, name)
                if place is not None and place[0] < len(torrent.files):
                    path = part_file(torrent.infohash, *place)
                    found.setdefault(place[0], []).append(_Stretch(path, place[1]))
        return found

    def _take_file(
        self,
        torrent: Torrent,
        file: TorrentFile,
        wanted: Sequence[int],
        stretches: Sequence[_Stretch],
        folder: Path,
        writer: _Writer,
        gained: Gained,
        report: Callable[[int], None],
        checkpoint: Callable[[], None],
        *,
        may_share: bool = True,
    ) -> list[int]:
        target = folder / file.path
        numbers = torrent.pieces_of(file)
        missing = dict.fromkeys(wanted)
        for stretch in stretches:
            if not missing or self.is_gone:
                break
            source = self._open(stretch.path)
            if source is None:
                continue
            is_shared = is_kept = False
            try:
                size = os.fstat(source).st_size
                target.parent.mkdir(parents=True, exist_ok=True)
                is_shared = (
                    may_share
                    and len(missing) == len(numbers)
                    and size == file.length
                    and _share(source, self.volume.path / stretch.path, target)
                )
                good, wrong = self._take_stretch(
                    torrent,
                    file,
                    [piece for piece in missing if piece - numbers.start >= stretch.first],
                    source,
                    (numbers.start + stretch.first, size),
                    None if is_shared else target,
                    writer,
                    report,
                    checkpoint,
                )
                is_kept = not (is_shared and wrong)
            finally:
                try:
                    writer.finish()
                finally:
                    os.close(source)
                    if is_shared and not is_kept:
                        target.unlink(missing_ok=True)  # Others mustn't be written through it.
            if not is_kept:
                # A copy of its own takes the good pieces instead.
                return self._take_file(
                    torrent,
                    file,
                    wanted,
                    stretches,
                    folder,
                    writer,
                    gained,
                    report,
                    checkpoint,
                    may_share=False,
                )
            for piece in good:
                del missing[piece]
            gained.bytes_wrong += wrong
            self._has_wrong |= wrong > 0
            if len(good) == -(-size // torrent.piece_length):
                self._sound.add(stretch.path)
        taken = [piece for piece in wanted if piece not in missing]
        gained.bytes_taken += sum(torrent.piece_place(piece)[2] for piece in taken)
        return taken

    def _take_stretch(
        self,
        torrent: Torrent,
        file: TorrentFile,
        wanted: Sequence[int],
        source: int,
        place: tuple[int, int],
        target: Path | None,
        writer: _Writer,
        report: Callable[[int], None],
        checkpoint: Callable[[], None],
    ) -> tuple[list[int], int]:
        """Check, and write unless `target` is None. Returns the good pieces and how many bytes were wrong."""
        first, size = place
        length = torrent.piece_length
        per_chunk = _chunk_bytes(torrent) // length
        good: list[int] = []
        wrong = 0
        if target is not None:
            writer.open(target)
        for group in _runs(wanted, per_chunk):
            checkpoint()
            start = (group[0] - first) * length
            end = min((group[-1] + 1 - first) * length, size)
            if end <= start:
                continue
            buffer = writer.buffer()
            got = self._read_into(source, buffer[: end - start], start, length, checkpoint)
            report(end - start)
            right: list[int] = []
            for piece in group:
                at = (piece - first) * length - start
                _, offset, expected = torrent.piece_place(piece)
                data = buffer[at : at + expected]
                # A file that ends earlier than the piece, or a stretch of the medium that can't be read.
                if at + expected > end - start or not got(at, expected):
                    wrong += min(expected, max(0, end - start - at))
                elif _is_right(torrent, piece, data):
                    right.append(piece)
                    if target is not None:
                        writer.write(buffer, at, expected, offset)
                else:
                    wrong += expected
            good += right
            writer.hand_over()
            if self.is_gone:
                break
        return good, wrong

    def _read_into(
        self,
        source: int,
        buffer: memoryview,
        start: int,
        step: int,
        checkpoint: Callable[[], None],
    ) -> Callable[[int, int], bool]:
        """Read; where that fails, step by step. Returns what tells whether a stretch was read."""
        self.bytes_read += len(buffer)
        try:
            count = _read_fully(source, buffer, start)
        except OSError as error:
            if self._note(error):
                return lambda at, length: False
        else:
            return lambda at, length: at + length <= count
        bad: list[int] = []
        for at in range(0, len(buffer), step):
            checkpoint()
            try:
                stretch = buffer[at : at + step]
                if _read_fully(source, stretch, start + at) < len(stretch):
                    bad.append(at)
            except OSError as error:
                bad.append(at)
                if self._note(error):
                    return lambda at, length: False
        return lambda at, length: not any(at < it + step and it < at + length for it in bad)

    def _open(self, path: PurePosixPath) -> int | None:
        try:
            return self.volume.open(path)
        except OSError as error:
            self._note(error)
            return None

    def _read(self, path: PurePosixPath, offset: int, length: int) -> bytes | None:
        source = self._open(path)
        if source is None:
            return None
        try:
            self.bytes_read += length
            data = os.pread(source, length, offset)
        except OSError as error:
            self._note(error)
            return None
        finally:
            os.close(source)
        return data if len(data) == length else None

    def _note(self, error: OSError) -> bool:
        """Whether an error means that the medium has gone."""
        if not self.is_gone:
            try:
                self.volume.check()
            except MediaError:
                self.is_gone = True
            self.is_gone = self.is_gone or is_gone(error)
        return self.is_gone


@dataclass(frozen=True, slots=True)
class _Part:
    """A part of a buffer, and where it goes in the file."""

    buffer: memoryview
    at: int
    length: int
    offset: int


class _Writer:
    """Writes good pieces into one file at a time, in a thread of its own, while the next ones are hashed."""

    def __init__(self, chunk_bytes: int) -> None:
        self._chunk_bytes = chunk_bytes
        self._memory = mmap.mmap(-1, chunk_bytes * BUFFERS)
        self._view = memoryview(self._memory)
        self._turn = 0
        self._jobs: deque[Future[None]] = deque()
        self._batch: list[_Part] = []
        self._target = -1
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="medium")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            self.finish()
        finally:
            self._pool.shutdown()

    def open(self, target: Path) -> None:
        """The file that is written from now on; it is made, or made writable."""
        self.finish()
        target.parent.mkdir(parents=True, exist_ok=True)
        if target.exists() and not os.access(target, os.W_OK):
            target.chmod(0o644)
        self._target = os.open(
            target, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644
        )

    def buffer(self) -> memoryview:
        """Memory for the next chunk; its earlier content has been written."""
        while len(self._jobs) >= BUFFERS - 1:
            self._jobs.popleft().result()
        self._turn = (self._turn + 1) % BUFFERS
        start = self._turn * self._chunk_bytes
        return self._view[start : start + self._chunk_bytes]

    def write(self, buffer: memoryview, at: int, length: int, offset: int) -> None:
        """Write a part of the buffer that was taken last; `hand_over` lets it begin.

        Args:
            buffer: That buffer.
            at: Where the part begins in it.
            length: Its bytes.
            offset: Where it goes in the file.
        """
        last = self._batch[-1] if self._batch else None
        if last is not None and (last.at + last.length, last.offset + last.length) == (at, offset):
            self._batch[-1] = replace(last, length=last.length + length)
        else:
            self._batch.append(_Part(buffer, at, length, offset))

    def hand_over(self) -> None:
        """Let the thread write what was given for this buffer."""
        batch, self._batch = self._batch, []
        self._jobs.append(self._pool.submit(self._write_all, self._target, batch))

    def write_now(self, data: bytes, offset: int) -> None:
        """Write something small at once."""
        self._write_all(self._target, [_Part(memoryview(data), 0, len(data), offset)])

    def finish(self) -> None:
        """Wait until everything is written, and close the file.

        Raises:
            OSError: it couldn't be written.
        """
        try:
            while self._jobs:
                self._jobs.popleft().result()
        finally:
            while self._jobs:
                self._jobs.popleft().exception()
            self._batch.clear()
            if self._target >= 0:
                os.close(self._target)
                self._target = -1

    @staticmethod
    def _write_all(target: int, batch: Sequence[_Part]) -> None:
        for part in batch:
            rest, offset = part.buffer[part.at : part.at + part.length], part.offset
            while rest:
                written = os.pwrite(target, rest, offset)
                rest, offset = rest[written:], offset + written
            # The system begins to write it now rather than when it is waited for.
            os.posix_fadvise(target, part.offset, part.length, os.POSIX_FADV_DONTNEED)


def _chunk_bytes(torrent: Torrent) -> int:
    return max(CHUNK_BYTES, torrent.piece_length)


def _runs(pieces: Sequence[int], most: int) -> Iterator[list[int]]:
    """Consecutive pieces together, at most so many."""
    run: list[int] = []
    for piece in pieces:
        if run and (piece != run[-1] + 1 or len(run) >= most):
            yield run
            run = []
        run.append(piece)
    if run:
        yield run


def _read_fully(source: int, buffer: memoryview, start: int) -> int:
    done = 0
    while done < len(buffer):
        count = os.preadv(source, [buffer[done:]], start + done)
        if not count:
            break
        done += count
    return done


def _is_right(torrent: Torrent, piece: int, data: bytes | memoryview) -> bool:
    try:
        torrent.check_piece(piece, data)
    except BundleError:
        return False
    return True


def _share(source: int, path: Path, target: Path) -> bool:
    """Let `target`, which mustn't exist, have a whole file's content without copying it. False: it can't be."""
    if target.exists():
        return False
    status = os.fstat(source)
    try:
        if status.st_dev != target.parent.stat().st_dev:
            return False
        made = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
    except OSError:
        return False
    try:
        fcntl.ioctl(made, FICLONE, source)
    except OSError:
        target.unlink()
    else:
        return True
    finally:
        os.close(made)
    # Of somebody else's file the permissions couldn't be changed.
    if status.st_uid != os.geteuid():
        return False
    try:
        os.link(path, target, follow_symlinks=False)
        linked = target.lstat()
    except OSError:
        return False
    if (linked.st_dev, linked.st_ino) != (status.st_dev, status.st_ino):
        target.unlink()  # Another file took its place meanwhile.
        return False
    return True

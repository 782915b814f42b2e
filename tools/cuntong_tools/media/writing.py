"""Writing the files of a volume, so that each is proven to lie on the medium as it should.

Content is read once from the store, hashed for the manifest on the way, and written; another thread reads it back from the
medium behind it and checks each piece's Merkle hash. What lies there already and is right is kept, so an export that was
interrupted anywhere is taken up by doing the same again.

When a piece comes back wrong the source tells whose fault it is: the store's, then the bundle is left out; or the medium's,
then the file is written once more, and a second failure ends it.

Small files (catalogues, torrents, papers) are read back at the end. They are the first that were written: on a stick that
claims more room than it has, what came later has overwritten them by then.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import hashlib
import os
import queue
import stat
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from threading import Thread
from types import TracebackType
from typing import Literal, Self

from cuntong_daemon.policy.volumes import Stretch, as_parts
from cuntong_protocol.bundle.errors import BundleError
from cuntong_protocol.bundle.torrent import Torrent
from cuntong_protocol.errors import Fault
from cuntong_protocol.media.errors import MediaError
from cuntong_protocol.media.layout import part_file, store_file
from cuntong_protocol.texts import N_
from cuntong_tools.publish.copying import DIRECT_FROM_BYTES, clone
from cuntong_tools.publish.scan import show_path

from .bag import BAGIT_FILE
from .medium import ALIGNMENT, STEP_BYTES, Target, new_buffer, read_medium, set_direct

BATCH_BYTES = 64 * 1024 * 1024
"""So much is written through the page cache before the medium is synced and that is read back."""
BATCH_FILES = 1_000

Report = Callable[[Literal["written", "checked"], int], None]
"""Told how many bytes more of content were written, or read back. Called in both threads."""

_REFUSED = frozenset(
    {
        errno.EINVAL,
        errno.EPERM,
        errno.EILSEQ,
        errno.ENAMETOOLONG,
        errno.EACCES,
        errno.ENOENT,
        errno.EEXIST,
    }
)
"""What file systems say to a name that they can't take; some put another in its place and don't find it, or find one."""


@dataclass(frozen=True)
class Content:
    """A stretch of a payload that goes onto a volume.

    Attributes:
        torrent: Of the payload.
        folder: Where its files are.
        stretch: Which part of them.
    """

    torrent: Torrent
    folder: Path
    stretch: Stretch

    @functools.cached_property
    def path(self) -> str:
        """Where it lies on the volume."""
        infohash, stretch = self.torrent.infohash, self.stretch
        if stretch.is_part:
            return str(part_file(infohash, stretch.file, stretch.piece))
        return str(store_file(infohash, self.torrent.name, self.torrent.files[stretch.file].path))

    @property
    def source(self) -> Path:
        return self.folder / self.torrent.files[self.stretch.file].path

    @property
    def offset(self) -> int:
        """In the source."""
        return self.stretch.piece * self.torrent.piece_length

    def check(self, offset: int, data: memoryview) -> None:
        """Check whole pieces.

        Args:
            offset: In the stretch, at the beginning of a piece.
            data: Up to the end of a piece.

        Raises:
            BundleError: `bundle.bad-piece`.
        """
        span = self.torrent.piece_length
        file = self.torrent.files[self.stretch.file]
        first = self.torrent.pieces_of(file).start + self.stretch.piece + offset // span
        for number, start in enumerate(range(0, len(data), span), start=first):
            self.torrent.check_piece(number, data[start : start + span])


@dataclass(frozen=True, slots=True)
class Entry:
    """A file of the volume that is proven: its length in bytes and its SHA-256."""

    length: int
    sha256: bytes


class SourceError(Exception):
    """The store doesn't have what it should."""


class VolumeFiles:
    """The files below a volume's `data/`, from entering to leaving it as a context.

    Attributes:
        damaged: Infohashes of payloads that are left out, since the store's copy is damaged.
    """

    def __init__(
        self,
        target: Target,
        folder: Path,
        load: Callable[[bytes], tuple[Torrent, Path]],
        report: Report,
    ) -> None:
        """Write to a volume.

        Args:
            target: The medium.
            folder: The volume's, by the target's descriptor. It is made if it isn't there.
            load: Gives the torrent of an infohash, and the folder of its files.
            report: Told of progress.
        """
        self._target = target
        self._folder = folder
        self._report = report
        self._writer = _Writer(folder)
        self._reader = _Reader(target, folder, report)
        self._load = load
        self._origins: dict[str, tuple[bytes, Stretch]] = {}
        self._proven: dict[str, Entry] = {}
        self._small: dict[str, Callable[[], bytes]] = {}
        self._pending = 0
        self._retried: set[str] = set()
        self._longest: int | None = target.max_file_bytes
        self.damaged: set[bytes] = set()

    def __enter__(self) -> Self:
        """Make the folder, remove what must not be in it, and start the reading thread."""
        with self._target.errors():
            if self._folder.is_symlink() or (self._folder.exists() and not self._folder.is_dir()):
                self._folder.unlink()
            self._folder.mkdir(exist_ok=True)
            # An unfinished volume is no valid bag.
            (self._folder / BAGIT_FILE).unlink(missing_ok=True)
            self._tidy(lambda _path, mode: stat.S_ISREG(mode))
        self._reader.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Stop at once."""
        self._reader.stop()
        self._writer.close()

    def put(self, path: str, make: Callable[[], bytes]) -> None:
        """Write a small file; `prove` reads it back.

        Args:
            path: Where it lies on the volume.
            make: Gives its content, the same each time; there are too many to have all in memory.

        Raises:
            MediaError: see `Target.errors`.
        """
        data = make()
        with self._target.errors():
            self._writer.put(path, data)
        self._small[path] = make

    def place(self, content: Content) -> None:
        """Let a stretch lie on the volume, written now or found there.

        Raises:
            MediaError: see `Target.errors`; `media.bad-medium`.
        """
        with self._target.errors():
            for verdict in self._reader.verdicts():
                self._judge(verdict)
            self._place(content, keep=True)

    def finish_content(self) -> None:
        """Wait until all content has been read back, and what was wrong was mended.

        Raises:
            MediaError: as `place`.
        """
        with self._target.errors():
            self._settle()
            listed = {path for path, _ in self._walk()}
            renamed = [
                (path, origin)
                for path, origin in self._origins.items()
                if path not in listed and not origin[1].is_part
            ]
            # The medium took these names and lists others: a reader elsewhere wouldn't find them.
            for path, (infohash, stretch) in renamed:
                self._forget(path)
                self._place_parts(Content(*self._load(infohash), stretch))
            self._settle()

    def finish(self) -> dict[str, Entry]:
        """Prove the small files, and remove whatever else lies there.

        Returns:
            All files below `data/`, by path.

        Raises:
            MediaError: as `place`; `media.changes-names`.
        """
        self.prove()
        with self._target.errors():
            if not self._proven.keys() <= {path for path, _ in self._walk()}:
                raise MediaError(
                    "media.changes-names",
                    N_(
                        "The medium at {target} changes the names of files: mount it with long names (vfat), or format it anew."
                    ),
                    target=show_path(self._target.path),
                    fault=Fault.SYSTEM,
                )
            self._tidy(lambda path, _mode: path in self._proven)
        return dict(self._proven)

    def prove(self) -> None:
        """Sync, and read back the files that were put since the last time.

        Raises:
            MediaError: as `place`.
        """
        buffer = new_buffer()
        with self._target.errors():
            for is_last in (False, True):
                self._target.sync()
                wrong = [path for path in self._small if not self._reads(path, buffer)]
                if not wrong:
                    break
                if is_last:
                    raise self._bad_medium(wrong[0])
                for path in wrong:
                    self._writer.put(path, self._small[path]())
        self._small.clear()

    def drop(self, path: str) -> None:
        """Let a file that was put not be there after all; `finish` removes it."""
        self._small.pop(path, None)

    # One stretch.

    def _place(self, content: Content, *, keep: bool) -> None:
        """Place a stretch; `keep` lets what lies there count if it is right."""
        if content.torrent.infohash in self.damaged:
            return
        stretch, longest = content.stretch, self._longest
        if longest is not None and stretch.length > longest:
            self._place_parts(content)
            return
        path = content.path
        self._origins[path] = content.torrent.infohash, stretch
        if keep and self._has_length(path, stretch.length):
            self._report("written", stretch.length)
            self._read_back(_Check(content, was_found=True, is_synced=False))
            return
        try:
            written = self._writer.write(content, self._report, may_clone=keep)
        except SourceError:
            self._leave_out(content)
        except _NameRefusedError as error:
            self._forget(path)
            if stretch.is_part:
                raise error.cause from error
            self._place_parts(content)
        except _TooLongError as error:
            self._forget(path)
            (self._folder / path).unlink(missing_ok=True)
            # At least a piece must fit, and each time less is tried than before.
            if error.written < content.torrent.piece_length:
                raise error.cause from error
            self._longest = min(error.written, stretch.length - 1)
            self._place_parts(content)
        else:
            self._read_back(written)

    def _place_parts(self, content: Content) -> None:
        span = content.torrent.piece_length
        limit = content.stretch.length if self._longest is None else self._longest
        for part in as_parts(content.stretch, span, max(limit, span)):
            self._place(Content(content.torrent, content.folder, part), keep=True)

    def _has_length(self, path: str, length: int) -> bool:
        try:
            found = (self._folder / path).lstat()
        except OSError:
            return False
        return stat.S_ISREG(found.st_mode) and found.st_size == length

    # What has been read back.

    def _read_back(self, check: _Check) -> None:
        self._pending += 1
        self._reader.check(check)

    def _settle(self) -> None:
        while self._pending:
            for verdict in self._reader.all_verdicts():
                self._judge(verdict)

    def _judge(self, verdict: _Verdict) -> None:
        self._pending -= 1
        content, path = verdict.check.content, verdict.check.content.path
        if isinstance(verdict.error, OSError) and verdict.error.errno not in _MEDIUM_FAULTS:
            raise verdict.error
        if content.torrent.infohash in self.damaged:
            return
        if verdict.error is None:
            self._proven[path] = Entry(content.stretch.length, verdict.sha256)
        elif verdict.check.was_found:
            self._write_again(content)  # It is no wonder: it was never finished.
        elif not _is_source_right(content):
            self._leave_out(content)
        elif path in self._retried:
            raise self._bad_medium(path)
        else:
            self._retried.add(path)
            self._write_again(content)

    def _write_again(self, content: Content) -> None:
        self._report("written", -content.stretch.length)
        self._place(content, keep=False)

    def _leave_out(self, content: Content) -> None:
        infohash = content.torrent.infohash
        self.damaged.add(infohash)
        for path, (other, _) in list(self._origins.items()):
            if other == infohash:
                self._forget(path)

    def _forget(self, path: str) -> None:
        self._origins.pop(path, None)
        self._proven.pop(path, None)

    def _reads(self, path: str, buffer: memoryview) -> bool:
        data = self._small[path]()
        entry = Entry(len(data), hashlib.sha256(data).digest())
        self._proven[path] = entry
        found = hashlib.sha256()
        try:
            for step in read_medium(self._folder / path, entry.length, buffer):
                found.update(step)
        except OSError as error:
            if error.errno not in _MEDIUM_FAULTS:
                raise
            self._target.check()
            return False
        return found.digest() == entry.sha256

    def _bad_medium(self, path: str) -> MediaError:
        self._target.check()
        return MediaError(
            "media.bad-medium",
            N_(
                "The medium at {target} is bad: {path} was written twice and came back wrong each time. Take another medium and run the same command again."
            ),
            target=show_path(self._target.path),
            path=path,
            fault=Fault.SYSTEM,
        )

    # The folder.

    def _walk(self) -> Iterator[tuple[str, int]]:
        """Everything in the volume's folder but folders, with its mode."""
        for parent, folders, names in os.walk(self._folder, onerror=_raise):
            relative = Path(parent).relative_to(self._folder)
            for name in (*folders, *names):
                mode = (Path(parent) / name).lstat().st_mode
                if not stat.S_ISDIR(mode):
                    yield str(relative / name), mode

    def _tidy(self, is_wanted: Callable[[str, int], bool]) -> None:
        """Remove what isn't wanted, and folders that are empty then."""
        for path, mode in list(self._walk()):
            if not is_wanted(path, mode):
                (self._folder / path).unlink()
        for parent, _, _ in os.walk(self._folder, topdown=False):
            if Path(parent) != self._folder:
                with contextlib.suppress(OSError):
                    Path(parent).rmdir()


_MEDIUM_FAULTS = frozenset({errno.EIO, errno.EBADMSG, errno.ENODATA, errno.EUCLEAN, errno.ENOENT})
"""What reading a bad spot gives, and a file that isn't there although it was written."""


def _is_source_right(content: Content) -> bool:
    buffer = new_buffer()
    try:
        for offset, data in _read_source(content, buffer):
            content.check(offset, data)
    except (SourceError, BundleError):
        return False
    return True


def _read_source(content: Content, buffer: memoryview) -> Iterator[tuple[int, memoryview]]:
    """A stretch from the store in steps: offset in the stretch, and data in the buffer.

    Raises:
        SourceError: it isn't there, is too short or can't be read.
    """
    with _open_source(content) as descriptor:
        for offset in range(0, content.stretch.length, STEP_BYTES):
            yield offset, _read_step(descriptor, content, offset, buffer)


@contextlib.contextmanager
def _open_source(content: Content) -> Iterator[int]:
    try:
        descriptor = os.open(content.source, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError as error:
        raise SourceError(str(error)) from error
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _read_step(descriptor: int, content: Content, offset: int, buffer: memoryview) -> memoryview:
    length = min(STEP_BYTES, content.stretch.length - offset)
    done = 0
    while done < length:
        try:
            count = os.preadv(descriptor, [buffer[done:length]], content.offset + offset + done)
        except OSError as error:
            raise SourceError(str(error)) from error
        if not count:
            raise SourceError("too short")
        done += count
    with contextlib.suppress(OSError):  # The disk reads on while this is hashed and written.
        os.posix_fadvise(
            descriptor, content.offset + offset + length, STEP_BYTES, os.POSIX_FADV_WILLNEED
        )
    return buffer[:length]


# --- Writing --------------------------------------------------------------------------------------


class _NameRefusedError(Exception):
    """The medium doesn't take a file's name."""

    def __init__(self, cause: OSError) -> None:
        super().__init__(cause)
        self.cause = cause


class _TooLongError(Exception):
    """The medium doesn't take a file of this length; so many bytes went in."""

    def __init__(self, cause: OSError, written: int) -> None:
        super().__init__(cause, written)
        self.cause = cause
        self.written = written


@dataclass(frozen=True, slots=True)
class _Check:
    """A file that is to be read back.

    Attributes:
        content: What it should be.
        sha256: Of what was written, if that was read.
        was_found: It lay there.
        is_synced: It was written past the page cache.
    """

    content: Content
    sha256: bytes | None = None
    was_found: bool = False
    is_synced: bool = True


class _Writer:
    """Copies stretches: while one step is being written, the next is read and hashed."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._made: set[Path] = set()
        self._buffers = (new_buffer(), new_buffer())
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="write")
        # The pool doesn't know of a thread that Ctrl-C came upon as it began, and would begin a second one.
        self._pool.submit(int).result()
        self._can_clone = True

    def close(self) -> None:
        self._pool.shutdown()

    def put(self, path: str, data: bytes) -> None:
        place = self._folder / path
        self._make_parent(place)
        descriptor = _create(place)
        try:
            _write_all(descriptor, memoryview(data))
        finally:
            os.close(descriptor)

    def write(self, content: Content, report: Report, *, may_clone: bool) -> _Check:
        """Write a stretch; where the file system can share its blocks with the store's file, do that instead.

        Raises:
            SourceError: the store doesn't have it.
            _NameRefusedError, _TooLongError: the medium doesn't take it like this.
            OSError: the medium failed.
        """
        with _open_source(content) as source:
            place = self._folder / content.path
            try:
                self._make_parent(place)
                target = _create(place)
            except OSError as error:
                if error.errno in _REFUSED:
                    raise _NameRefusedError(error) from error
                raise
            try:
                if may_clone and self._clone(content, source, target):
                    report("written", content.stretch.length)
                    return _Check(content, is_synced=False)
                return self._copy(content, source, target, report)
            finally:
                if content.stretch.length > STEP_BYTES:
                    # In the thread that writes, after its last step: Ctrl-C may come while one is handed over, and what is
                    # closed under it fails like a bad medium. That also waits until it has left the buffers.
                    self._pool.submit(os.close, target).result()
                else:
                    os.close(target)

    def _clone(self, content: Content, source: int, target: int) -> bool:
        if content.stretch.is_part or not self._can_clone:
            return False
        if os.fstat(source).st_size != content.stretch.length:
            raise SourceError("another length")
        self._can_clone = clone(source, target)
        return self._can_clone

    def _copy(self, content: Content, source: int, target: int, report: Report) -> _Check:
        length = content.stretch.length
        sink = _Sink(target, is_direct=length >= DIRECT_FROM_BYTES)
        found = hashlib.sha256()
        writing: Future[None] | None = None
        reported = 0
        try:
            for number, offset in enumerate(range(0, length, STEP_BYTES)):
                buffer = self._buffers[number % 2]
                data = _read_step(source, content, offset, buffer)
                found.update(data)
                if writing is not None:
                    writing.result()
                    report("written", offset - reported)
                    reported = offset
                if length <= STEP_BYTES:
                    sink.write(buffer, len(data), offset)
                else:
                    writing = self._pool.submit(sink.write, buffer, len(data), offset)
            if writing is not None:
                writing.result()
        except OSError as error:
            if error.errno == errno.EFBIG:
                report("written", -reported)
                raise _TooLongError(error, sink.written) from error
            raise
        report("written", length - reported)
        return _Check(content, found.digest(), is_synced=sink.is_direct)

    def _make_parent(self, place: Path) -> None:
        if place.parent not in self._made:
            place.parent.mkdir(parents=True, exist_ok=True)
            self._made.add(place.parent)


class _Sink:
    """An open file that is written step by step, past the page cache where that works.

    Attributes:
        is_direct: It works.
        written: Bytes so far.
    """

    def __init__(self, descriptor: int, *, is_direct: bool) -> None:
        self._descriptor = descriptor
        self.is_direct = is_direct and set_direct(descriptor, is_on=True)
        self.written = 0

    def write(self, buffer: memoryview, length: int, offset: int) -> None:
        """Write the first `length` bytes of a buffer."""
        begun = 0
        if self.is_direct:
            begun = length // ALIGNMENT * ALIGNMENT
            try:
                self._write(buffer[:begun], offset)
            except OSError as error:
                if error.errno != errno.EINVAL:
                    raise
                begun, self.is_direct = 0, False
            if begun == length:
                return
            # Only whole blocks go past the page cache; not every file system lets a file be cut off behind its end.
            set_direct(self._descriptor, is_on=False)
        self._write(buffer[begun:length], offset + begun)
        # The system begins to write it now rather than when it is waited for.
        os.posix_fadvise(self._descriptor, offset, length, os.POSIX_FADV_DONTNEED)

    def _write(self, data: memoryview, offset: int) -> None:
        self.written = offset
        while data:
            count = os.pwrite(self._descriptor, data, offset)
            data, offset = data[count:], offset + count
            self.written = offset


def _create(place: Path) -> int:
    """Open a new, empty file, whatever lay there."""
    with contextlib.suppress(FileNotFoundError):
        place.unlink()
    return os.open(place, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)


def _write_all(descriptor: int, data: memoryview) -> None:
    while data:
        data = data[os.write(descriptor, data) :]


def _raise(error: OSError) -> None:
    raise error


# --- Reading back ---------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Verdict:
    """What came back: the file's SHA-256 if it is right, else what is wrong."""

    check: _Check
    sha256: bytes = b""
    error: OSError | BundleError | None = None


class _Reader:
    """A thread that reads files back from the medium and checks them."""

    def __init__(self, target: Target, folder: Path, report: Report) -> None:
        self._target = target
        self._folder = folder
        self._report = report
        self._checks: queue.SimpleQueue[_Check | None] = queue.SimpleQueue()
        self._verdicts: queue.SimpleQueue[_Verdict | BaseException | None] = queue.SimpleQueue()
        self._batch: list[_Check] = []
        self._batch_bytes = 0
        self._is_stopped = False
        self._thread = Thread(target=self._run, name="read-back", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Stop at once; returns when the thread has ended."""
        self._is_stopped = True
        self._checks.put(None)
        if self._thread.ident is not None:
            self._thread.join()

    def check(self, check: _Check) -> None:
        self._checks.put(check)

    def verdicts(self) -> Iterator[_Verdict]:
        """Those that are there now."""
        with contextlib.suppress(queue.Empty):
            while True:
                found = self._verdicts.get_nowait()
                if isinstance(found, BaseException):
                    raise found
                if found is not None:
                    yield found

    def all_verdicts(self) -> Iterator[_Verdict]:
        """All on what was given to it before; waits for them."""
        self._checks.put(None)
        while (found := self._verdicts.get()) is not None:
            if isinstance(found, BaseException):
                raise found
            yield found

    def _run(self) -> None:
        buffer = new_buffer()
        try:
            while not self._is_stopped:
                check = self._checks.get()
                if check is None:
                    self._check_batch(buffer)
                    self._verdicts.put(None)
                elif check.is_synced:
                    self._verdicts.put(self._judged(check, buffer))
                else:
                    self._batch.append(check)
                    self._batch_bytes += check.content.stretch.length
                    if self._batch_bytes >= BATCH_BYTES or len(self._batch) >= BATCH_FILES:
                        self._check_batch(buffer)
        except BaseException as error:  # noqa: BLE001 - it is raised in the other thread.
            self._verdicts.put(error)

    def _check_batch(self, buffer: memoryview) -> None:
        if self._batch:
            self._target.sync()
        for check in self._batch:
            if not self._is_stopped:
                self._verdicts.put(self._judged(check, buffer))
        self._batch, self._batch_bytes = [], 0

    def _judged(self, check: _Check, buffer: memoryview) -> _Verdict:
        content = check.content
        found = hashlib.sha256()
        offset = 0
        try:
            for step in read_medium(self._folder / content.path, content.stretch.length, buffer):
                content.check(offset, step)
                if check.sha256 is None:
                    found.update(step)
                offset += len(step)
                self._report("checked", len(step))
                if self._is_stopped:
                    break
        except (OSError, BundleError) as error:
            self._report("checked", -offset)
            return _Verdict(check, error=error)
        return _Verdict(check, check.sha256 or found.digest())

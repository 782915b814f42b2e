"""Bringing files into a payload while the folder is being hashed.

One thread copies, in the order in which the hashing reads, so that both find the same pages in memory and a file is read
from the disk once. It never makes a hard link: the original stays the publisher's, and who edits it later must not
edit the payload.

Where the file system can share blocks (btrfs, XFS, bcachefs) a copy costs nothing. Elsewhere long files are written past
the page cache: writing through it and waiting for it took five times as long on ext4, for pages that nobody reads.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import mmap
import os
import queue
from collections.abc import Callable, Container
from concurrent.futures import Future, ThreadPoolExecutor, wait
from pathlib import Path
from types import TracebackType
from typing import Self

from .hashing import open_source, read_source
from .scan import SourceFile

STEP_BYTES = 8 * 1024 * 1024
"""What is copied at once: all the memory that copying takes, and how far it goes on when it shall stop."""
DIRECT_FROM_BYTES = 1024 * 1024
"""Shorter files are written through the page cache, where the system gathers them."""
LEAD_BYTES = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 4
"""How far hashing may be ahead: what waits to be copied shall still be in memory."""
_ALIGNMENT = 4096
_PAUSE_S = 0.05
"""How often is looked at how far the thread has come."""
_FICLONE = 0x40049409
"""ioctl: the copy shares the original's blocks until one is written to."""
_NOT_SUPPORTED = frozenset(
    {errno.EOPNOTSUPP, errno.ENOTTY, errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EPERM}
)


class Copier:
    """Copies files in a thread of its own, from entering to leaving it as a context.

    Attributes:
        copied_bytes: So far.
    """

    def __init__(self, folder: Path, *, is_direct: bool) -> None:
        """Copy to below `folder`; `is_direct` allows to write past the page cache."""
        self._folder = folder
        self._is_direct = is_direct
        self._files: queue.SimpleQueue[SourceFile | None] = queue.SimpleQueue()
        self._paths: list[str] = []
        self._is_stopped = False
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="copy")
        self.copied_bytes = 0

    def __enter__(self) -> Self:
        """Start the thread."""
        self._work: Future[None] = self._pool.submit(self._run)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Stop at once; returns when the thread has ended."""
        self._is_stopped = True
        self._files.put(None)
        self._pool.shutdown()

    def offer(self, file: SourceFile) -> None:
        """Copy a file after those that were offered before."""
        self._files.put(file)

    def check(self) -> None:
        """Raise what stopped the thread.

        Raises:
            BuildError: `build.file-changed`, `build.unreadable`.
            OSError: when it couldn't be written.
        """
        if self._work.done():
            self._work.result()

    def keep_near(self, hashed_bytes: int, report: Callable[[], None]) -> None:
        """Wait until copying is near enough to hashing.

        Args:
            hashed_bytes: Of the files that were offered.
            report: Called now and then.

        Raises:
            BuildError, OSError: see `check`.
        """
        while hashed_bytes - self.copied_bytes > LEAD_BYTES and not self._has_ended():
            report()
        self.check()

    def finish(self, wanted: Container[str], report: Callable[[], None]) -> None:
        """Wait for the last file, and remove what isn't wanted after all.

        Args:
            wanted: Paths of the files to keep.
            report: Called now and then.

        Raises:
            BuildError, OSError: see `check`.
        """
        self._files.put(None)
        while not self._has_ended():
            report()
        self.check()
        report()
        for path in self._paths:
            if path not in wanted:
                _remove(self._folder, path)

    def _has_ended(self) -> bool:
        return bool(wait([self._work], timeout=_PAUSE_S).done)

    def _run(self) -> None:
        buffer = memoryview(mmap.mmap(-1, STEP_BYTES))  # Whole pages, as direct writing wants them.
        while (file := self._files.get()) is not None and not self._is_stopped:
            self._copy(file, buffer)

    def _copy(self, file: SourceFile, buffer: memoryview) -> None:
        target = self._folder / file.path
        target.parent.mkdir(parents=True, exist_ok=True)
        self._paths.append(file.path)
        with open_source(file) as source:
            descriptor = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
            try:
                if clone(source, descriptor):
                    self.copied_bytes += file.size
                else:
                    self._write(file, source, descriptor, buffer)
            finally:
                os.close(descriptor)

    def _write(self, file: SourceFile, source: int, target: int, buffer: memoryview) -> None:
        is_direct = (
            self._is_direct and file.size >= DIRECT_FROM_BYTES and _set_direct(target, is_on=True)
        )
        for offset in range(0, file.size, STEP_BYTES):
            if self._is_stopped:
                return
            length = min(STEP_BYTES, file.size - offset)
            read_source(file, source, buffer[:length], offset)
            # Past the page cache only whole blocks can be written.
            padded = buffer[: -(-length // _ALIGNMENT) * _ALIGNMENT if is_direct else length]
            try:
                _write_all(target, padded, offset)
            except OSError as error:
                if not is_direct or error.errno != errno.EINVAL:
                    raise
                is_direct = not _set_direct(target, is_on=False)
                _write_all(target, padded, offset)
            if not is_direct:
                # The system begins to write it now rather than when it is waited for.
                os.posix_fadvise(target, offset, length, os.POSIX_FADV_DONTNEED)
            self.copied_bytes += length
        os.ftruncate(target, file.size)


def clone(source: int, target: int) -> bool:
    """Make an open, empty file share another one's blocks.

    Returns:
        False where the file systems can't.

    Raises:
        OSError: such as a full disk.
    """
    try:
        fcntl.ioctl(target, _FICLONE, source)
    except OSError as error:
        if error.errno not in _NOT_SUPPORTED:
            raise
        return False
    return True


def _set_direct(descriptor: int, *, is_on: bool) -> bool:
    """Write past the page cache or through it; returns whether the file system agreed."""
    flags = fcntl.fcntl(descriptor, fcntl.F_GETFL)
    flags = flags | os.O_DIRECT if is_on else flags & ~os.O_DIRECT
    try:
        fcntl.fcntl(descriptor, fcntl.F_SETFL, flags)
    except OSError as error:
        if error.errno not in _NOT_SUPPORTED:
            raise
        return False
    return True


def _write_all(descriptor: int, data: memoryview, offset: int) -> None:
    while data:
        written = os.pwrite(descriptor, data, offset)
        data, offset = data[written:], offset + written


def _remove(folder: Path, path: str) -> None:
    """Remove a file and the folders that only led to it."""
    (folder / path).unlink()
    for parent in (folder / path).relative_to(folder).parents[:-1]:
        with contextlib.suppress(OSError):
            (folder / parent).rmdir()

"""A medium that volumes are written to: what it is, whether it is still there, and reading past the page cache."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import mmap
import os
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Self

from cuntong_daemon.paths import DataPaths
from cuntong_daemon.store.links import sync_filesystem
from cuntong_protocol.errors import Fault
from cuntong_protocol.media.errors import MediaError
from cuntong_protocol.media.layout import MAX_FAT_FILE_BYTES
from cuntong_protocol.texts import N_
from cuntong_tools.publish.scan import show_path

STEP_BYTES = 8 * 1024 * 1024
"""What is read or written at once: at least a piece, and always whole pieces."""
ALIGNMENT = 4096
"""Past the page cache only whole blocks go."""
FAT_TYPES = frozenset({"vfat", "msdos", "fuse.fusefat"})
FUSE_CLUSTER_BYTES = 4096
"""Some file systems in user space name smaller clusters than they have."""

_GONE = frozenset({errno.ENODEV, errno.ENXIO, errno.ESTALE, errno.ENOTCONN, errno.ENOMEDIUM})
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})
_FORBIDDEN = frozenset({errno.EROFS, errno.EACCES, errno.EPERM})


class Target:
    """A directory on a medium, open and locked.

    Everything is done through its descriptor: when the medium is unmounted meanwhile, not a byte lands in the folder that
    comes to light beneath it.

    Attributes:
        path: As a person named it.
        folder: The same directory by its descriptor.
        device: Number of the file system.
    """

    def __init__(self, path: Path, paths: DataPaths) -> None:
        """Open and lock it.

        Args:
            path: The directory.
            paths: The node's data directory, in which it must not lie.

        Raises:
            MediaError: `media.no-target`, `media.in-data`, `media.not-writable`, `media.busy`.
        """
        self.path = path
        try:
            self._descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            raise MediaError(
                "media.no-target",
                N_(
                    "{target} isn't a folder that can be opened ({reason}): put the medium in, or name another folder."
                ),
                target=show_path(path),
                reason=os.strerror(error.errno or errno.EIO),
                fault=Fault.USAGE,
            ) from None
        try:
            self.folder = Path(f"/proc/self/fd/{self._descriptor}")
            status = os.fstat(self._descriptor)
            self.device = status.st_dev
            self._identity = status.st_dev, status.st_ino
            number = f"{os.major(status.st_dev)}:{os.minor(status.st_dev)}"
            self._device_link = Path("/sys/dev/block") / number
            self._had_device = self._device_link.exists()
            kind = _file_system_type(number)
            self.is_fat = kind in FAT_TYPES
            self._least_cluster = FUSE_CLUSTER_BYTES if kind.startswith("fuse") else 512
            self._check_usable(paths)
            self._lock()
        except BaseException:
            os.close(self._descriptor)
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Let go of it, so that it can be unmounted."""
        os.close(self._descriptor)

    @property
    def is_mount(self) -> bool:
        """Whether a medium is mounted at just this directory."""
        return os.path.ismount(self.path)

    @property
    def free_bytes(self) -> int:
        room = os.fstatvfs(self._descriptor)
        return room.f_bavail * room.f_frsize

    @property
    def free_entries(self) -> int | None:
        """How many files and folders it can still take; None where that isn't limited."""
        room = os.fstatvfs(self._descriptor)
        return room.f_favail if room.f_files else None

    @property
    def cluster_bytes(self) -> int:
        return max(os.fstatvfs(self._descriptor).f_frsize, self._least_cluster)

    @property
    def max_file_bytes(self) -> int | None:
        """The longest file that it takes, where that is known beforehand."""
        return MAX_FAT_FILE_BYTES if self.is_fat else None

    def sync(self) -> None:
        """Make everything on it durable.

        Raises:
            OSError: the medium failed.
        """
        sync_filesystem(self.folder)

    def check(self) -> None:
        """Check that the medium is still where it was.

        Raises:
            MediaError: `media.vanished`.
        """
        if not self._is_there():
            raise self._vanished()

    @contextlib.contextmanager
    def errors(self) -> Iterator[None]:
        """Say in one sentence what the system said while it was written or read.

        Raises:
            MediaError: `media.vanished`, `media.full`, `media.not-writable`, `media.io-error`.
        """
        try:
            yield
        except OSError as error:
            raise self._explained(error) from error

    def _explained(self, error: OSError) -> MediaError:
        if error.errno in _GONE or not self._is_there():
            return self._vanished()
        if error.errno in _FULL:
            return MediaError(
                "media.full",
                N_(
                    "The medium at {target} is full: make room, or take a larger one, and run the same command again."
                ),
                target=show_path(self.path),
                fault=Fault.SYSTEM,
            )
        if error.errno in _FORBIDDEN:
            return self._not_writable()
        return MediaError(
            "media.io-error",
            N_(
                "The medium at {target} failed: {reason}. Run the same command again; if it fails again, take another medium."
            ),
            target=show_path(self.path),
            reason=os.strerror(error.errno or errno.EIO),
            fault=Fault.SYSTEM,
        )

    def _is_there(self) -> bool:
        try:
            status = self.path.stat()
        except OSError:
            return False
        is_same = (status.st_dev, status.st_ino) == self._identity
        # The directory of a stick that was pulled out can still be looked at: its device is gone.
        return is_same and (self._device_link.exists() or not self._had_device)

    def _check_usable(self, paths: DataPaths) -> None:
        if self.path.resolve().is_relative_to(paths.root.resolve()):
            raise MediaError(
                "media.in-data",
                N_("{target} lies in this node's own data directory: name a folder on the medium."),
                target=show_path(self.path),
                fault=Fault.USAGE,
            )
        if not os.access(self.folder, os.W_OK | os.X_OK):
            raise self._not_writable()

    def _lock(self) -> None:
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise MediaError(
                "media.busy",
                N_("Another export is writing to {target}: wait until it has ended."),
                target=show_path(self.path),
                fault=Fault.SYSTEM,
            ) from None
        except OSError:
            pass  # A file system without locks.

    def _vanished(self) -> MediaError:
        return MediaError(
            "media.vanished",
            N_(
                "The medium at {target} is gone. Put it in again and run the same command: what is right on it stays."
            ),
            target=show_path(self.path),
            fault=Fault.SYSTEM,
        )

    def _not_writable(self) -> MediaError:
        return MediaError(
            "media.not-writable",
            N_(
                "Nothing can be written to {target}: look at its permissions, and whether it is write-protected."
            ),
            target=show_path(self.path),
            fault=Fault.SYSTEM,
        )


def _file_system_type(device: str) -> str:
    """Of the file system with this number (`major:minor`), as the kernel calls it; empty when it isn't known."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/mountinfo").read_text(errors="replace").splitlines():
            words = line.split()
            # Optional fields end with a dash; then comes the type (proc_pid_mountinfo(5)).
            if words[2] == device and "-" in words[6:]:
                return words[words.index("-", 6) + 1]
    return ""


def new_buffer() -> memoryview:
    """Room for one step, at the beginning of a page as reading and writing past the page cache wants it."""
    return memoryview(mmap.mmap(-1, STEP_BYTES))


def set_direct(descriptor: int, *, is_on: bool) -> bool:
    """Go past the page cache or through it; returns whether the file system agreed."""
    flags = fcntl.fcntl(descriptor, fcntl.F_GETFL)
    try:
        fcntl.fcntl(
            descriptor, fcntl.F_SETFL, flags | os.O_DIRECT if is_on else flags & ~os.O_DIRECT
        )
    except OSError:
        return False
    return True


def padded(length: int) -> int:
    """As many whole blocks as hold `length` bytes."""
    return -(-length // ALIGNMENT) * ALIGNMENT


def read_medium(path: Path, length: int, buffer: memoryview) -> Iterator[memoryview]:
    """Read a file from the medium itself and not from memory.

    What was written through the page cache must have been synced. Where the file system can't go past the cache the
    file's pages are dropped from it.

    Args:
        path: The file.
        length: That it must have.
        buffer: From `new_buffer`; each step is a part of it.

    Raises:
        OSError: it can't be read, or has another length (EIO).
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    try:
        if os.fstat(descriptor).st_size != length:
            raise OSError(errno.EIO, os.strerror(errno.EIO), str(path))
        is_direct = set_direct(descriptor, is_on=True)
        if not is_direct:
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        for start in range(0, length, STEP_BYTES):
            step = min(STEP_BYTES, length - start)
            done = 0
            while done < step:
                wanted = buffer[done : padded(step) if is_direct else step]
                try:
                    count = os.preadv(descriptor, [wanted], start + done)
                except OSError as error:
                    if not is_direct or error.errno != errno.EINVAL:
                        raise
                    set_direct(descriptor, is_on=False)
                    is_direct = False
                    os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
                    continue
                if not count:
                    raise OSError(errno.EIO, os.strerror(errno.EIO), str(path))
                done += count
            yield buffer[:step]
    finally:
        os.close(descriptor)

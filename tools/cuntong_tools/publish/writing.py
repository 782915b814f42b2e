"""Writing a payload: it is there whole, or nothing is.

Files are copied as cheaply as the file system allows, but never by hard link: the original stays the publisher's, and
who edits it later must not edit the payload.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from cuntong_daemon.files import sync_folder
from cuntong_protocol.errors import Fault
from cuntong_protocol.texts import N_

from .scan import BuildError, show_path

_FICLONE = 0x40049409
"""ioctl of btrfs, XFS, bcachefs: the copy shares the original's blocks until one is written to."""
_STEP_BYTES = 64 * 1024 * 1024
_NOT_SUPPORTED = frozenset(
    {errno.EOPNOTSUPP, errno.ENOTTY, errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EPERM}
)


def copy_file(source: int, target: Path, size: int) -> None:
    """Copy an open file to `target`, which must not exist.

    Args:
        source: Descriptor, read from its beginning.
        target: Its folder must exist.
        size: Bytes to copy; a shorter file gives a shorter copy.

    Raises:
        OSError: something may be left at `target`.
    """
    descriptor = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
    try:
        if not _clone(source, descriptor):
            _copy(source, descriptor, size)
    finally:
        os.close(descriptor)


def _clone(source: int, target: int) -> bool:
    try:
        fcntl.ioctl(target, _FICLONE, source)
    except OSError as error:
        if error.errno not in _NOT_SUPPORTED:
            raise
        return False
    return True


def _copy(source: int, target: int, size: int) -> None:
    offset = 0
    in_kernel = True
    while offset < size:
        step = min(_STEP_BYTES, size - offset)
        if in_kernel:
            try:
                copied = os.copy_file_range(source, target, step, offset, offset)
            except OSError as error:
                if error.errno not in _NOT_SUPPORTED:
                    raise
                in_kernel = False
                continue
        else:
            copied = os.pwrite(target, os.pread(source, min(step, 1024 * 1024), offset), offset)
        if not copied:
            return
        offset += copied


def check_output(folder: Path, output: Path, slug: str) -> None:
    """Check where a payload shall go.

    Raises:
        BuildError: `build.output-inside`, `build.exists`.
    """
    if output.resolve().is_relative_to(folder.resolve()):
        raise BuildError(
            "build.output-inside",
            N_("{output} lies inside the folder that is to be published: choose another place."),
            output=show_path(output),
            fault=Fault.USAGE,
        )
    if (output / slug).exists():
        raise BuildError(
            "build.exists",
            N_("{path} is there already: remove it first."),
            path=show_path(output / slug),
            fault=Fault.USAGE,
        )


@contextlib.contextmanager
def temporary_folder(output: Path) -> Iterator[Path]:
    """A folder beside the result, gone afterwards unless it was renamed."""
    is_new = not output.exists()
    output.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=".building-", dir=output))
    temporary.chmod(0o755)
    try:
        yield temporary
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        if is_new:
            with contextlib.suppress(OSError):
                output.rmdir()
        raise


@contextlib.contextmanager
def write_errors(output: Path) -> Iterator[None]:
    """Say in one sentence what the system said while the payload was written.

    Raises:
        BuildError: `build.disk-full`, `build.write-failed`.
    """
    try:
        yield
    except OSError as error:
        if error.errno in {errno.ENOSPC, errno.EDQUOT}:
            raise BuildError(
                "build.disk-full",
                N_("The disk that holds {output} is full: make room and try again."),
                output=show_path(output),
                fault=Fault.SYSTEM,
            ) from error
        raise BuildError(
            "build.write-failed",
            N_("The bundle can't be written to {output}: {detail}."),
            output=show_path(output),
            detail=os.strerror(error.errno or errno.EIO),
            fault=Fault.SYSTEM,
        ) from error


def sync_tree(folder: Path) -> None:
    """Make everything below `folder` survive a power cut."""
    for parent, _, names in os.walk(folder):
        for name in names:
            with (Path(parent) / name).open("rb") as file:
                os.fsync(file.fileno())
        sync_folder(Path(parent))

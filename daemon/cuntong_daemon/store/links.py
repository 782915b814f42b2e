"""The same content in two places: hard links where the disk can, else clones, else copies."""

from __future__ import annotations

import ctypes
import fcntl
import os
import shutil
from contextlib import suppress
from pathlib import Path

from .pieces import open_plain

FICLONE = 0x40049409
"""ioctl of Linux: share the blocks of another file (btrfs, XFS, bcachefs)."""


def link_or_copy(source: Path, target: Path) -> bool:
    """Make `target` have the content of `source`. It must not exist.

    Returns:
        Whether it is a hard link.

    Raises:
        OSError: nothing is left behind.
    """
    with suppress(OSError):  # Another file system, too many links, or a disk without them.
        os.link(source, target, follow_symlinks=False)
        return True
    copy(source, target)
    return False


def copy(source: Path, target: Path) -> None:
    """Make a file of its own with the content of `source`, sharing blocks where the disk can.

    Raises:
        OSError: nothing is left behind.
    """
    try:
        with os.fdopen(open_plain(source), "rb") as reader, target.open("xb") as writer:
            try:
                fcntl.ioctl(writer.fileno(), FICLONE, reader.fileno())
            except OSError:
                shutil.copyfileobj(reader, writer, 1024 * 1024)
        target.chmod(0o444)
    except FileExistsError:
        raise
    except OSError:
        target.unlink(missing_ok=True)
        raise


def sync_filesystem(folder: Path) -> None:
    """Make everything below `folder` durable: one call instead of thousands of fsyncs.

    Raises:
        OSError: the disk failed.
    """
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.syncfs(descriptor) != 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number), str(folder))
    finally:
        os.close(descriptor)

"""Durable file writing: a file is there whole, or it isn't there."""

from __future__ import annotations

import contextlib
import os
import tempfile
from pathlib import Path

UNFINISHED = ".tmp-"
"""How the names of files begin that are being written."""


def write_atomically(path: Path, data: bytes, *, mode: int = 0o644, durable: bool = True) -> None:
    """Write `data` to a temporary file beside `path`, fsync it, rename it over `path`, fsync the folder.

    Args:
        path: Its folder must exist.
        data: The whole content.
        mode: Permissions of the new file.
        durable: False leaves the two fsyncs out, for files that can be had again.

    Raises:
        OSError: nothing is left behind.
    """
    descriptor, name = tempfile.mkstemp(prefix=UNFINISHED, dir=path.parent)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fchmod(file.fileno(), mode)
            if durable:
                os.fsync(file.fileno())
        Path(name).replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            Path(name).unlink()
        raise
    if durable:
        sync_folder(path.parent)


def remove_unfinished(folder: Path) -> None:
    """Remove what a power cut has left of `write_atomically` here and one folder below.

    Args:
        folder: Nobody else writes there now. What can't be removed stays: it is never read.
    """
    for pattern in (f"{UNFINISHED}*", f"*/{UNFINISHED}*"):
        for path in folder.glob(pattern):
            with contextlib.suppress(OSError):
                path.unlink()


def sync_folder(folder: Path) -> None:
    """Make renames and unlinks in `folder` survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

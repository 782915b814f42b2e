"""What can go wrong with files on the disk."""

from __future__ import annotations

import errno
import os
import sqlite3
from pathlib import Path

from cuntong_protocol.errors import CuntongError, Fault
from cuntong_protocol.texts import N_


class StoreError(CuntongError):
    """A payload or a library folder couldn't be read, written or believed."""

    fault = Fault.SYSTEM


def disk_error(error: OSError) -> StoreError:
    """The sentence for a failed disk operation: `store.disk-full` or `store.disk-error`."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return StoreError(
            "store.disk-full",
            N_("The disk is full. Make room; Cuntong goes on by itself."),
        )
    return StoreError(
        "store.disk-error",
        N_("{file} can't be read or written: {reason}. It is tried again by itself."),
        file=str(error.filename or "?"),
        reason=os.strerror(error.errno) if error.errno else str(error),
    )


_CODE_MASK = 0xFF
"""SQLite's extended codes keep the primary one in the low byte."""
_SQLITE_NEEDS_BYTES = 64 * 1024
"""A write-ahead log's index grows by 32 KiB."""
_DAMAGED = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)


def database_error(error: sqlite3.Error, file: str) -> StoreError:
    """The sentence for a failed database operation; its transaction was rolled back.

    `store.disk-full` and `store.disk-error` pass when the disk is mended; `catalogue.damaged` doesn't.
    """
    code = getattr(error, "sqlite_errorcode", 0) & _CODE_MASK
    if code in _DAMAGED:
        return StoreError(
            "catalogue.damaged",
            N_(
                "The database {file} is damaged ({reason}). Restore it from a backup, or move it away and enrol"
                " the node again: cuntong node enrol PACK --replace"
            ),
            file=file,
            reason=str(error),
        )
    if code == sqlite3.SQLITE_FULL or (
        code != sqlite3.SQLITE_BUSY and is_disk_full(Path(file).parent)
    ):
        return disk_error(OSError(errno.ENOSPC, ""))
    return StoreError(
        "store.disk-error",
        N_("{file} can't be read or written: {reason}. It is tried again by itself."),
        file=file,
        reason=str(error),
    )


def is_disk_full(folder: Path) -> bool:
    """Whether not even a database can work there: SQLite only says "disk I/O error" then."""
    try:
        room = os.statvfs(folder)
    except OSError:
        return False
    return room.f_bavail * room.f_frsize < _SQLITE_NEEDS_BYTES

"""Room on a full disk for what must get in all the same: a withdrawal, which then makes more room.

A file that holds nothing. It is given up when the disk is full, and made again when there is plenty.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from .paths import DataPaths

RESERVE_BYTES = 4 * 1024 * 1024
"""Some catalogue files and a full write-ahead log of the database."""
PLENTY = 4
"""How many times the reserve must be free before it is made."""


class Reserve:
    """Blocks; call it in a worker thread. It never fails: a reserve that can't be made isn't there."""

    def __init__(self, paths: DataPaths) -> None:
        self._path: Path = paths.reserve

    def give_up(self) -> bool:
        """Free its room. False when there was none."""
        try:
            self._path.unlink()
        except OSError:
            return False
        return True

    def make(self) -> None:
        """Make it, unless it is there or the disk has little room."""
        with contextlib.suppress(OSError):
            room = os.statvfs(self._path.parent)
            if self._path.exists() or room.f_bavail * room.f_frsize < PLENTY * RESERVE_BYTES:
                return
            with self._path.open("xb") as file:
                os.posix_fallocate(file.fileno(), 0, RESERVE_BYTES)

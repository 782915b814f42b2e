"""Working folders of runs, in the temporary directory: whose they are shows in their names.

A run holds a lock on its folder as long as its process lives, however that ends. Process ids wouldn't do to find out:
each run is number 1 in a process namespace of its own, sees no other, and ids come again.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from .namespaces import outer_pid

PREFIX = "cuntong-lab-"
_OURS = re.compile(rf"{PREFIX}[0-9]+-.+")
"""What this version makes; earlier ones locked nothing, and had no process id in the name."""
MAX_NAME_CHARS = 40
"""Of the name in the folder's; with four bytes each still well below the 255 of a file name."""


@contextlib.contextmanager
def working_folder(name: str = "") -> Iterator[Path]:
    """A folder of this run's own, removed at the end: `cuntong-lab-<process id>[-<name>]-<random>`.

    Args:
        name: For people; what isn't a letter, a digit, a dot or an underscore becomes one.
    """
    folder, lock = _make(_prefix(name))
    try:
        yield folder
    finally:
        shutil.rmtree(folder)
        os.close(lock)


def remove_abandoned() -> list[Path]:
    """Remove working folders whose process is gone; those of other users stay. Returns what was removed."""
    removed = []
    for folder in sorted(Path(tempfile.gettempdir()).glob(f"{PREFIX}*")):
        if not _OURS.fullmatch(folder.name):
            continue
        with contextlib.suppress(OSError):
            # Not through links: a temporary directory is everybody's.
            lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
            try:
                if os.fstat(lock).st_uid == os.geteuid():
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    shutil.rmtree(folder)
                    removed.append(folder)
            finally:
                os.close(lock)
    return removed


def _prefix(name: str) -> str:
    parts = [str(outer_pid()), re.sub(r"[^\w.]", "_", name)[:MAX_NAME_CHARS]]
    return PREFIX + "".join(f"{part}-" for part in parts if part)


def _make(prefix: str) -> tuple[Path, int]:
    while True:
        folder = Path(tempfile.mkdtemp(prefix=prefix))
        # Until it is locked, another run takes it for an abandoned one.
        with contextlib.suppress(FileNotFoundError):
            lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
            with contextlib.suppress(OSError):  # Where nothing can be locked, nothing is removed.
                fcntl.flock(lock, fcntl.LOCK_EX)
            if folder.is_dir():
                return folder, lock
            os.close(lock)

"""Media that are put in, fill up, fail and vanish under whoever uses them.

Where root may mount images, a medium has a file system of its own; elsewhere it is a folder, which is renamed when it
is taken out.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import struct
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

from tests.support.world import POLL_S, WAIT_S

FS_IOC_SHUTDOWN = 0x8004587D
NO_LOG_FLUSH = struct.pack("I", 2)
FILLER = "holiday.avi"
FILL_BYTES = 1_000_000
THROTTLE = Path("/sys/fs/cgroup/blkio/cuntong-removable")
"""A control group whose processes read and write media as slowly as these are (cgroup v1; others aren't slowed down)."""


class Medium:
    """A medium, out at first.

    Attributes:
        path: Where it is mounted when it is in; else there is nothing, as a desktop leaves it.
        is_image: It has a file system of its own.
    """

    def __init__(self, folder: Path, name: str, *, mb: int = 0, kind: str = "ext4") -> None:
        """Make it.

        Args:
            folder: Where it is mounted; its image lies there too.
            name: Of the mount point.
            mb: Size of its file system in megabytes; 0: it is a folder.
            kind: `ext2` or `ext4`, without and with a journal.
        """
        self.path = folder / name
        self.is_image = bool(mb)
        self._away = folder / f"{name}.away"
        if mb:
            with self._away.open("wb") as file:
                file.truncate(mb * 1_000_000)
            run(f"mkfs.{kind}", "-q", "-F", "-m", "0", str(self._away))
        else:
            self._away.mkdir()

    @property
    def is_in(self) -> bool:
        return self.path.exists()

    def put_in(self, *, speed_bytes_s: int = 0) -> None:
        """Mount it, once nobody uses any more what was pulled out before.

        Args:
            speed_bytes_s: How fast processes that `slow_down` was told of read and write it; 0: as fast as they can.
        """
        if not self.is_image:
            self._away.rename(self.path)
            return
        wait_until(f"{self._away} is let go", lambda: not run("losetup", "-j", str(self._away)))
        # What a pull has left is cleared up, as a desktop or the system's start does.
        subprocess.run(["e2fsck", "-fy", self._away], capture_output=True, check=False)
        self.path.mkdir()
        run("mount", "-o", "loop", str(self._away), str(self.path))
        shutil.rmtree(self.path / "lost+found", ignore_errors=True)
        if speed_bytes_s and THROTTLE.parent.exists():
            THROTTLE.mkdir(exist_ok=True)
        if (
            THROTTLE.exists()
        ):  # What another medium on the same loop device was held to counts no more.
            device = self.path.stat().st_dev
            limit = f"{os.major(device)}:{os.minor(device)} {speed_bytes_s}"
            for way in ("read", "write"):
                (THROTTLE / f"blkio.throttle.{way}_bps_device").write_text(limit)

    def take_out(self) -> None:
        """Unmount it properly.

        Raises:
            subprocess.CalledProcessError: somebody uses it.
            OSError: something was written beneath it.
        """
        if self.is_image:
            run("umount", str(self.path))
            self.path.rmdir()
        else:
            self.path.rename(self._away)

    def remove(self) -> None:
        """Take it out for good. Errors as `take_out`."""
        self.take_out()
        if self.is_image:
            self._away.unlink()
        else:
            shutil.rmtree(self._away)

    def vanish(self, *, is_failing: bool = False) -> None:
        """Take it out in the middle of whatever is done with it.

        Args:
            is_failing: It fails for those who have files of it open, and what wasn't synced is lost: a stick is pulled
                out, or a power cut. Else these go on reading and writing until they close them.
        """
        if not self.is_image:
            self.path.rename(self._away)
            return
        folder = os.open(self.path, os.O_RDONLY)
        try:
            # First, as the device of a stick is gone before the first error of its file system.
            run("umount", "--lazy", str(self.path))
            self.path.rmdir()
            if is_failing:
                fcntl.ioctl(folder, FS_IOC_SHUTDOWN, NO_LOG_FLUSH)
        finally:
            os.close(folder)

    def fill(self, *, but_bytes: int = 0) -> None:
        """Somebody else fills it, but for so many bytes."""
        room = os.statvfs(self.path)
        left = room.f_bavail * room.f_frsize - but_bytes
        with (self.path / FILLER).open("wb", buffering=0) as file, contextlib.suppress(OSError):
            # What others give back meanwhile is taken as well.
            while left > 0 or not but_bytes:
                left -= file.write(bytes(min(left, FILL_BYTES) if but_bytes else FILL_BYTES))

    def make_room(self) -> None:
        """Remove what filled it."""
        (self.path / FILLER).unlink(missing_ok=True)


@cache
def can_mount() -> bool:
    """Whether this process may mount images."""
    if os.geteuid() != 0 or any(shutil.which(it) is None for it in ("mkfs.ext4", "losetup")):
        return False
    with tempfile.TemporaryDirectory() as folder:
        medium = Medium(Path(folder), "try", mb=8)
        try:
            medium.put_in()
            medium.take_out()
        except subprocess.CalledProcessError:
            return False
    return True


@contextlib.contextmanager
def media_in(folder: Path) -> Iterator[Callable[..., Medium]]:
    """What makes media as `Medium` does, folders where nothing can be mounted; those that are in at the end are taken out.

    Args:
        folder: Where they are mounted if nothing else is said.
    """
    made: list[Medium] = []

    def make(name: str, where: Path = folder, *, mb: int = 0, kind: str = "ext4") -> Medium:
        made.append(Medium(where, name, mb=mb if can_mount() else 0, kind=kind))
        return made[-1]

    try:
        yield make
    finally:
        for path in {medium.path for medium in made if os.path.ismount(medium.path)}:
            subprocess.run(["umount", "--lazy", path], check=False)


def slow_down(pid: int) -> None:
    """Hold a process to the speed of the media, where the kernel can."""
    if THROTTLE.exists():
        (THROTTLE / "cgroup.procs").write_text(str(pid))


def run(*command: str) -> str:
    """What a command of the system prints."""
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def wait_until(what: str, condition: Callable[[], object]) -> None:
    """Wait until a condition holds.

    Raises:
        AssertionError: it took too long.
    """
    deadline = time.monotonic() + WAIT_S
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(POLL_S)

"""Reading a volume that may come from anybody: no link is followed, no path leads out, nothing is believed (SPEC 12.4).

Every method blocks; call them in a worker thread.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from types import TracebackType
from typing import Self

from cuntong_protocol.errors import Fault
from cuntong_protocol.media.errors import MediaError
from cuntong_protocol.media.layout import (
    AGAIN_FOLDER,
    CATALOGUE_FOLDER,
    PARTS_FOLDER,
    PAYLOAD,
    STORE_FOLDER,
    TORRENT_FOLDER,
    VOLUME_FILE,
    parse_volume_folder,
)
from cuntong_protocol.texts import N_

MAX_ENTRIES = 200_000
"""Names that are read of one folder: twice the files of the largest torrent."""
MAX_FILES = 2_000_000
"""Files of a volume that are looked at, when content is looked for by its hash."""
MAX_DEPTH = 70
"""Of folders below a volume: a path in a bundle has at most 64."""
MAX_MANIFEST_LINES = 1_000_000
MAX_LINE_BYTES = 8_192
"""Of a manifest: twice the longest path."""
MAX_VOLUMES = 1_000
MAX_RECEIPTS = 1_000
"""Of each below one path."""
LOOKED_INTO = 1_000
"""Folders in which is looked for volumes."""
RECEIPT_SUFFIX = ".receipt"

_OUR_NAMES = frozenset(
    part.name
    for part in (
        PAYLOAD,
        VOLUME_FILE,
        CATALOGUE_FOLDER,
        TORRENT_FOLDER,
        STORE_FOLDER,
        PARTS_FOLDER,
        AGAIN_FOLDER,
    )
)
_GONE = (errno.ENODEV, errno.ENXIO, errno.ESTALE, errno.ENOTCONN, errno.ESHUTDOWN, errno.ENOMEDIUM)
_FOLDER_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY


@dataclass(frozen=True, slots=True)
class Found:
    """A plain file on a volume: its path below the volume's folder, and its length."""

    path: PurePosixPath
    size: int


class VolumeFolder:
    """One volume, opened from entering to leaving it as a context."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._root = -1

    def __enter__(self) -> Self:
        """Open the folder.

        Raises:
            OSError: it isn't there, or can't be read.
        """
        self._root = os.open(self.path, _FOLDER_FLAGS)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Close it."""
        os.close(self._root)
        self._root = -1

    @property
    def device(self) -> int:
        """The file system's number, as `os.stat` gives it."""
        return os.fstat(self._root).st_dev

    def check(self) -> None:
        """Make sure that the medium is still in.

        Raises:
            MediaError: `media.gone`.
        """
        try:
            here = self.path.stat()
            with os.scandir(self._root) as entries:
                next(entries, None)
        except OSError:
            raise gone(self.path) from None
        opened = os.fstat(self._root)
        if (here.st_dev, here.st_ino) != (opened.st_dev, opened.st_ino):
            raise gone(self.path)

    def open(self, path: PurePosixPath) -> int:
        """Open a plain file for reading; the caller closes the descriptor.

        Raises:
            OSError: it isn't there or can't be read, it isn't a plain file, or a link lies on the way.
        """
        folder = self._folder(path.parent)
        try:
            name = _spelling(path.name, folder)
            # Looked at first: to open a device or a pipe may do something.
            _check_plain(os.stat(name, dir_fd=folder, follow_symlinks=False), path)
            descriptor = os.open(name, _FILE_FLAGS, dir_fd=folder)
        finally:
            self._close(folder)
        try:
            _check_plain(os.fstat(descriptor), path)
        except OSError:
            os.close(descriptor)
            raise
        return descriptor

    def read(self, path: PurePosixPath, limit: int) -> bytes | None:
        """A small file; None when it isn't there, can't be read, isn't a plain file, or has more than `limit` bytes."""
        try:
            with os.fdopen(self.open(path), "rb") as file:
                data = file.read(limit + 1)
        except OSError:
            return None
        return data if len(data) <= limit else None

    def head(self, path: PurePosixPath, length: int) -> bytes:
        """The first bytes of a file; fewer, or none, when it has no more or can't be read."""
        try:
            with os.fdopen(self.open(path), "rb", buffering=0) as file:
                return file.read(length)
        except OSError:
            return b""

    def names(self, path: PurePosixPath) -> list[str]:
        """What lies in a folder, sorted; nothing when there is no such folder. At most `MAX_ENTRIES`."""
        try:
            folder = self._folder(path)
        except OSError:
            return []
        found: list[str] = []
        try:
            with os.scandir(folder) as entries:
                for entry in entries:
                    found.append(entry.name)
                    if len(found) >= MAX_ENTRIES:
                        break
        except OSError:
            pass  # A damaged folder; what was read of it counts.
        finally:
            self._close(folder)
        return sorted(found)

    def files(self) -> Iterator[Found]:
        """All plain files, whatever they are called. At most `MAX_FILES`."""
        waiting = [PurePosixPath()]
        count = 0
        while waiting:
            place = waiting.pop()
            for name in self.names(place):
                path = place / name
                try:
                    folder = self._folder(place)
                    try:
                        status = os.stat(name, dir_fd=folder, follow_symlinks=False)
                    finally:
                        self._close(folder)
                except (OSError, ValueError):
                    continue
                if stat.S_ISDIR(status.st_mode) and len(path.parts) < MAX_DEPTH:
                    waiting.append(path)
                elif stat.S_ISREG(status.st_mode):
                    yield Found(path, status.st_size)
                    count += 1
                    if count >= MAX_FILES:
                        return

    def _folder(self, path: PurePosixPath) -> int:
        """Open a folder below the volume's, one step at a time: a link anywhere on the way is refused."""
        if path.is_absolute() or ".." in path.parts:
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL), str(path))
        current = self._root
        try:
            for part in path.parts:
                following = os.open(_spelling(part, current), _FOLDER_FLAGS, dir_fd=current)
                self._close(current)
                current = following
        except BaseException:
            self._close(current)
            raise
        return current

    def _close(self, descriptor: int) -> None:
        if descriptor != self._root:
            os.close(descriptor)


def _check_plain(status: os.stat_result, path: PurePosixPath) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise OSError(errno.EINVAL, os.strerror(errno.EINVAL), str(path))


def _spelling(name: str, folder: int) -> str:
    """How a medium spells one of our own names, whatever case it has made of them; of others nothing is assumed."""
    if name in _OUR_NAMES:
        try:
            os.stat(name, dir_fd=folder, follow_symlinks=False)
        except FileNotFoundError:
            with os.scandir(folder) as entries:
                return next((it.name for it in entries if it.name.casefold() == name), name)
    return name


def is_volume(path: Path) -> bool:
    """Whether a folder is a volume, damaged as it may be."""
    try:
        payload = next(it for it in path.iterdir() if it.name.casefold() == PAYLOAD.name)
        names = {entry.name.casefold() for entry in payload.iterdir()}
    except (OSError, StopIteration):
        return False
    known = (VOLUME_FILE, CATALOGUE_FOLDER, TORRENT_FOLDER, STORE_FOLDER, PARTS_FOLDER)
    parts = sum(part.name in names for part in known)
    return parts >= 2 or (parts == 1 and parse_volume_folder(path.name) is not None)


def shown(path: Path | str) -> str:
    """A path for people and programs, also where a name isn't UTF-8."""
    return os.fsencode(path).decode("utf-8", "replace")


def find_volumes(path: Path) -> list[Path]:
    """The volumes that a path is or holds, up to two folders deep, sorted. At most `MAX_VOLUMES`.

    Raises:
        MediaError: `media.no-such-path`, `media.cannot-read`.
    """
    _check_readable(path)
    found: list[Path] = []
    level, looked = [path], 0
    for _ in range(3):
        deeper: list[Path] = []
        for place in level:
            looked += 1
            if looked > LOOKED_INTO:
                break
            if is_volume(place):
                found.append(place)
            else:
                deeper += folders_in(place)
        level = deeper
    found.sort(key=lambda it: (parse_volume_folder(it.name) or ("", 0), it.name))
    return found[:MAX_VOLUMES]


def folders_in(path: Path) -> list[Path]:
    """The folders in a folder, links left out; nothing when it can't be read."""
    try:
        with os.scandir(path) as entries:
            return sorted(
                path / entry.name for entry in entries if entry.is_dir(follow_symlinks=False)
            )[:LOOKED_INTO]
    except OSError:
        return []


def find_receipts(path: Path, volumes: list[Path]) -> list[Path]:
    """Receipts beside and in volumes, or the one that the path itself is."""
    if path.is_file():
        return [path] if path.suffix == RECEIPT_SUFFIX else []
    places = dict.fromkeys([path, *(volume.parent for volume in volumes), *volumes])
    found: list[Path] = []
    for place in places:
        with contextlib.suppress(OSError), os.scandir(place) as entries:
            found += [
                place / entry.name
                for entry in entries
                if entry.name.endswith(RECEIPT_SUFFIX) and entry.is_file(follow_symlinks=False)
            ][:MAX_RECEIPTS]
    return sorted(found)[:MAX_RECEIPTS]


def manifest_lines(volume: VolumeFolder) -> list[tuple[str, str]]:
    """Path and SHA-256, in hexadecimal, of each payload file that the bag's manifest names; nothing if it can't be read."""
    found: list[tuple[str, str]] = []
    try:
        with os.fdopen(
            volume.open(PurePosixPath("manifest-sha256.txt")), encoding="utf-8"
        ) as lines:
            while len(found) < MAX_MANIFEST_LINES:
                line = lines.readline(MAX_LINE_BYTES)
                if not line:
                    break
                if len(line) == MAX_LINE_BYTES:
                    return []
                digest, _, path = line.rstrip("\r\n").partition("  ")
                found.append((path, digest))
    except (OSError, UnicodeDecodeError):
        return []
    return found


def is_gone(error: OSError) -> bool:
    """Whether an error says that the medium isn't there any more, rather than that a part of it can't be read."""
    return error.errno in _GONE


def gone(path: Path) -> MediaError:
    """The error for a medium that was pulled out."""
    return MediaError(
        "media.gone",
        N_(
            "{path} isn't there any more. What came so far is kept; put the medium in again and repeat the command to go on."
        ),
        fault=Fault.SYSTEM,
        path=shown(path),
    )


def _check_readable(path: Path) -> None:
    try:
        if path.is_dir():
            next(path.iterdir(), None)
        else:
            path.stat()
    except PermissionError:
        raise MediaError(
            "media.cannot-read",
            N_(
                "The daemon may not read {path}. Mount the medium so that the user “cuntong” can read it, or copy the volume to a folder that he can read."
            ),
            fault=Fault.SYSTEM,
            path=shown(path),
        ) from None
    except OSError as error:
        raise MediaError(
            "media.no-such-path",
            N_("{path} can't be opened: {reason}. Is the medium in, and mounted?"),
            fault=Fault.USAGE,
            path=shown(path),
            reason=error.strerror or str(error),
        ) from None

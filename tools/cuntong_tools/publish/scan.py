"""What lies in a publisher's folder, and whether it can become a bundle. Nothing is written here."""

from __future__ import annotations

import errno
import os
import stat
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from cuntong_protocol.bundle.errors import BundleError
from cuntong_protocol.bundle.index import FILES_FOLDER
from cuntong_protocol.bundle.paths import MAX_PATHS, check_paths
from cuntong_protocol.errors import Fault
from cuntong_protocol.texts import N_


class BuildError(BundleError):
    """A bundle couldn't be built; nothing of it is left."""


@dataclass(frozen=True, slots=True)
class SourceFile:
    """A file of the folder.

    Attributes:
        path: As in the index: `/`-separated, NFC.
        disk_path: Where it can be read.
        size: In bytes.
        stamp: Changes when the file does.
    """

    path: str
    disk_path: Path
    size: int
    stamp: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Scan:
    """A folder's files in path order, and its folders without entries."""

    files: tuple[SourceFile, ...]
    folders: tuple[str, ...]


def scan_folder(folder: Path) -> Scan:
    """List a folder and check that all of it can be read and named in a bundle.

    Links to files and folders within are followed.

    Raises:
        BuildError: `build.not-a-folder`, `build.unreadable`, `build.dangling-link`, `build.link-outside`,
            `build.link-cycle`, `build.special-file`, `build.empty-folder`.
        BundleError: as `check_paths`.
    """
    if not folder.is_dir():
        raise BuildError(
            "build.not-a-folder",
            N_("{folder} is not a folder."),
            folder=show_path(folder),
            fault=Fault.USAGE,
        )
    root = folder.resolve()
    walk = _Walk(root)
    for file in walk.walk(root, "", (root,)):
        walk.files.append(file)
        if len(walk.files) > MAX_PATHS:
            break  # `check_paths` says the rest.
    files = sorted(walk.files, key=lambda file: file.path.encode(errors="surrogatepass"))
    folders = sorted(walk.folders, key=lambda path: path.encode(errors="surrogatepass"))
    # What is stored as it is lies below `files/` in the torrent; the longer path must be right too.
    check_paths((FILES_FOLDER + file.path for file in files), [FILES_FOLDER + it for it in folders])
    if not any(file.size for file in files):
        raise BuildError(
            "build.empty-folder",
            N_("{folder} holds no files with content: there is nothing to publish."),
            folder=show_path(folder),
        )
    return Scan(tuple(files), tuple(folders))


def file_stamp(status: os.stat_result) -> tuple[int, ...]:
    """Changes when a file's content or the file itself does."""
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns


class _Walk:
    def __init__(self, root: Path) -> None:
        self._root = root
        self.files: list[SourceFile] = []
        self.folders: list[str] = []

    def walk(self, folder: Path, prefix: str, chain: tuple[Path, ...]) -> Iterator[SourceFile]:
        """Yield the files below `folder`; `chain` are the real folders that led here."""
        try:
            entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
        except OSError as error:
            raise unreadable(folder, error) from None
        if not entries and prefix:
            self.folders.append(prefix[:-1])
        for entry in entries:
            path = prefix + unicodedata.normalize("NFC", entry.name)
            place = self._resolve(Path(entry.path), entry.is_symlink())
            mode = place.lstat().st_mode
            if stat.S_ISDIR(mode):
                if place in chain:
                    raise BuildError(
                        "build.link-cycle",
                        N_("The link {path} leads back to a folder above it: remove it."),
                        path=show_path(entry.path),
                    )
                yield from self.walk(place, path + "/", (*chain, place))
            elif stat.S_ISREG(mode):
                yield _source_file(path, place)
            else:
                raise BuildError(
                    "build.special-file",
                    N_("{path} is neither a file nor a folder: remove it."),
                    path=show_path(entry.path),
                )

    def _resolve(self, path: Path, is_link: bool) -> Path:
        if not is_link:
            return path
        try:
            place = path.resolve(strict=True)
        except (OSError, RuntimeError):
            raise BuildError(
                "build.dangling-link",
                N_("The link {path} leads nowhere: remove or mend it."),
                path=show_path(path),
            ) from None
        if not place.is_relative_to(self._root):
            raise BuildError(
                "build.link-outside",
                N_("The link {path} leads outside the folder: replace it by a copy."),
                path=show_path(path),
            )
        return place


def _source_file(path: str, place: Path) -> SourceFile:
    try:
        descriptor = os.open(place, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError as error:
        raise unreadable(place, error) from None
    try:
        status = os.fstat(descriptor)
    finally:
        os.close(descriptor)
    return SourceFile(path, place, status.st_size, file_stamp(status))


def unreadable(path: Path, error: OSError) -> BuildError:
    """The error for what the system doesn't let us read."""
    return BuildError(
        "build.unreadable",
        N_("{path} can't be read: {detail}."),
        path=show_path(path),
        detail=os.strerror(error.errno or errno.EIO),
        fault=Fault.SYSTEM,
    )


def show_path(path: Path | str) -> str:
    """A path for a sentence; bytes that aren't UTF-8 are escaped."""
    return str(path).encode(errors="backslashreplace").decode()

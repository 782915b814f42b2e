"""The library: what the public sees, one folder a bundle, made from a payload and its index (SPEC 3.5, 9).

A bundle's folder is built under `.staging/` and appears by a rename, whole and durable. Every file in it has been
read and has the root that the index gives. The staging place of a bundle says how far a change got, and `recover`
carries it to its end:

    partial/    being built: removed
    new/        built and durable: takes its place
    old/        what was there before, or is being withdrawn: removed

Every method blocks; call them in a worker thread, one at a time.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from cuntong_daemon.files import sync_folder, write_atomically
from cuntong_daemon.paths import DataPaths
from cuntong_protocol.bundle.errors import BundleError
from cuntong_protocol.bundle.index import (
    FILES_FOLDER,
    PACKS_FOLDER,
    Index,
    IndexFile,
    check_payload,
)
from cuntong_protocol.bundle.merkle import EMPTY_ROOT, FileHasher
from cuntong_protocol.bundle.packing import unpack_pack
from cuntong_protocol.errors import Fault
from cuntong_protocol.texts import N_

from .errors import StoreError, disk_error
from .links import link_or_copy, sync_filesystem
from .pieces import no_checkpoint, open_plain
from .torrents import load_torrent, payload_folder

_READ_BYTES = 1024 * 1024
_HASH_SPAN = 8 * 1024 * 1024
"""Any piece length gives the same root; a long one keeps few hashes in memory."""


class Library:
    """The folders of the bundles, by bundle id."""

    def __init__(self, paths: DataPaths) -> None:
        """The library of this data directory; nothing is touched yet."""
        self._paths = paths
        self._root = paths.library
        self._staging = paths.library / ".staging"

    def folder(self, bundle_id: str) -> Path:
        """Where the public finds a bundle."""
        return self._root / bundle_id

    def revision(self, bundle_id: str) -> bytes | None:
        """The infohash of the payload that the bundle's folder was made from, or None if there is none."""
        try:
            found = bytes.fromhex((self._place(bundle_id) / "revision").read_text("ascii"))
        except (OSError, ValueError):
            return None
        return found if self.folder(bundle_id).is_dir() else None

    def materialise(
        self,
        bundle_id: str,
        infohash: bytes,
        index: Index,
        *,
        is_verified: bool = False,
        checkpoint: Callable[[], None] = no_checkpoint,
    ) -> Path:
        """Make the bundle's folder from a complete payload, replacing an earlier one.

        Whole files are linked, packed ones unpacked. A crash leaves either the folder that was there or the new one.

        Args:
            bundle_id: The bundle's id.
            infohash: Of its payload, complete in the store.
            index: The payload's index, already decoded and checked against the descriptor.
            is_verified: Every byte of the payload has just been read and was right: what is linked isn't read again.
            checkpoint: Called between files; may raise to stop.

        Raises:
            StoreError: `library.damaged` (verify the payload, then try again), `store.no-torrent`,
                `store.disk-full`, `store.disk-error`. What was there before stays.
            BundleError: `bundle.payload-mismatch`: index and torrent contradict each other.
        """
        torrent = load_torrent(self._paths, infohash)
        check_payload(index, torrent)
        payload = payload_folder(self._paths, torrent)
        place = self._place(bundle_id)
        partial = place / "partial"
        try:
            place.mkdir(parents=True, exist_ok=True)
            _remove(partial)
            _remove(place / "new")
            partial.mkdir()
            for folder in index.folders:
                (partial / folder).mkdir(parents=True, exist_ok=True)
            self._fill(partial, payload, index, checkpoint, is_verified=is_verified)
            (place / "revision").unlink(missing_ok=True)
            sync_filesystem(partial)
            partial.rename(place / "new")
            sync_folder(place)
            self._swap(bundle_id)
            write_atomically(place / "revision", infohash.hex().encode())
        except OSError as error:
            raise disk_error(error) from error
        finally:
            shutil.rmtree(partial, ignore_errors=True)
        return self.folder(bundle_id)

    def remove(self, bundle_id: str) -> None:
        """Take the bundle's folder away: out of sight in one step, then off the disk.

        Raises:
            StoreError: `store.disk-error`; `recover` removes what is left.
        """
        place = self._place(bundle_id)
        folder = self.folder(bundle_id)
        try:
            if folder.exists():
                place.mkdir(parents=True, exist_ok=True)
                (place / "revision").unlink(missing_ok=True)
                _remove(place / "new")
                _remove(place / "old")
                folder.rename(place / "old")
                sync_folder(folder.parent)
            _remove(place)
            for parent in (folder.parent, folder.parent.parent):
                if parent != self._root and parent.is_dir() and not any(parent.iterdir()):
                    parent.rmdir()
        except OSError as error:
            raise disk_error(error) from error

    def recover(self) -> None:
        """At the start: finish what a crash interrupted, remove what is left over.

        Raises:
            StoreError: `store.disk-full`, `store.disk-error`.
        """
        try:
            for place in self._staging.iterdir() if self._staging.is_dir() else ():
                _remove(place / "partial")
                if (place / "new").is_dir():
                    self._swap(_id_of(place.name))
                _remove(place / "old")
        except OSError as error:
            raise disk_error(error) from error

    def bundles(self) -> list[str]:
        """The ids of the bundles that have a folder."""
        return sorted(
            path.relative_to(self._root).as_posix()
            for path in self._root.glob("[0-9]*/[0-9]*/*")
            if path.is_dir()
        )

    def check(
        self,
        bundle_id: str,
        index: Index,
        *,
        checkpoint: Callable[[], None] = no_checkpoint,
    ) -> list[str]:
        """Read every file of the bundle's folder.

        Returns:
            The paths that are missing or damaged, or that don't belong there.
        """
        folder = self.folder(bundle_id)
        bad: list[str] = []
        for file in index.files:
            checkpoint()
            if not _has_root(folder / file.path, file):
                bad.append(file.path)
        known = {file.path for file in index.files}
        for base, _, names in os.walk(folder):
            found = (Path(base, name).relative_to(folder).as_posix() for name in names)
            bad += [path for path in found if path not in known]
        bad += [path for path in index.folders if not (folder / path).is_dir()]
        return sorted(bad)

    # Parts.

    def _place(self, bundle_id: str) -> Path:
        # An id has two slashes, and no part of it can hold a plus sign (SPEC 3.1).
        return self._staging / bundle_id.replace("/", "+")

    def _swap(self, bundle_id: str) -> None:
        """Put `new/` in its place; may be interrupted anywhere and done again."""
        place, folder = self._place(bundle_id), self.folder(bundle_id)
        folder.parent.mkdir(parents=True, exist_ok=True)
        _remove(place / "old")
        if folder.exists():
            folder.rename(place / "old")
        (place / "new").rename(folder)
        sync_folder(folder.parent)
        _remove(place / "old")

    def _fill(
        self,
        target: Path,
        payload: Path,
        index: Index,
        checkpoint: Callable[[], None],
        *,
        is_verified: bool,
    ) -> None:
        by_pack: dict[int, list[IndexFile]] = {}
        for file in index.files:
            path = target / file.path
            path.parent.mkdir(parents=True, exist_ok=True)
            if file.pack is not None:
                by_pack.setdefault(file.pack, []).append(file)
                continue
            checkpoint()
            is_linked = False
            if file.stored is None:
                path.touch()
            else:
                is_linked = link_or_copy(payload / FILES_FOLDER / file.stored, path)
            if not (is_linked and is_verified) and not _has_root(path, file):
                raise _damaged(file.path)
            _finish(path, file)
        for number, data in _unpacked(payload, index, sorted(by_pack)):
            checkpoint()
            view = memoryview(data)
            for file in by_pack[number]:
                content = view[file.offset : file.offset + file.size]
                if _root_of([content]) != file.root:
                    raise _damaged(file.path)
                path = target / file.path
                path.write_bytes(content)
                _finish(path, file)


def _unpacked(payload: Path, index: Index, numbers: Sequence[int]) -> Iterator[tuple[int, bytes]]:
    """Unpack packs, those with the same base one after the other; holds two packs at a time."""

    def read(number: int, base: bytes | None) -> bytes:
        pack = index.packs[number]
        path = payload / PACKS_FOLDER / pack.name
        try:
            with os.fdopen(open_plain(path), "rb") as file:
                return unpack_pack(file.read(), pack.size, base)
        except BundleError as error:
            raise _damaged(f"{PACKS_FOLDER}{pack.name}") from error

    last: tuple[int, bytes] | None = None
    bases = [pack.base for pack in index.packs]
    order = sorted(numbers, key=lambda n: (n, 0) if bases[n] is None else (bases[n], 1))
    for number in order:
        base = bases[number]
        if base is None:
            last = (number, read(number, None))
            yield last
            continue
        if last is None or last[0] != base:
            last = (base, read(base, None))
        yield number, read(number, last[1])


def _has_root(path: Path, file: IndexFile) -> bool:
    try:
        with os.fdopen(open_plain(path), "rb", buffering=0) as handle:
            if os.fstat(handle.fileno()).st_size != file.size:
                return False
            return _root_of(iter(lambda: handle.read(_READ_BYTES), b"")) == file.root
    except OSError:
        return False


def _root_of(chunks: Iterator[bytes] | list[memoryview]) -> bytes:
    hasher = FileHasher(_HASH_SPAN)
    for chunk in chunks:
        hasher.update(chunk)
    return hasher.finish()[0] if hasher.length else EMPTY_ROOT


def _finish(path: Path, file: IndexFile) -> None:
    path.chmod(0o444)
    os.utime(path, (file.time, file.time))


def _remove(path: Path) -> None:
    if path.exists():
        shutil.rmtree(path)


def _id_of(name: str) -> str:
    return name.replace("+", "/")


def _damaged(path: str) -> StoreError:
    return StoreError(
        "library.damaged",
        N_("{path} is damaged in the store; it is fetched again."),
        fault=Fault.CONTENT,
        path=path,
    )

"""The store: one folder a payload, `store/<v2 infohash>/<name>/…`, and who has which content (SPEC 9).

A file's v2 root depends on its content alone. So whatever a new payload brings that is already here, in any
complete payload, is linked instead of fetched. Links are hard links where the disk can: content once on the
disk is there once. Complete files are read-only for that reason too.

Every method blocks; call them in a worker thread. They may be called from several at once.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import sqlite3
import threading
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from cuntong_daemon.files import sync_folder
from cuntong_daemon.paths import DataPaths
from cuntong_protocol.bundle.errors import BundleError
from cuntong_protocol.bundle.torrent import Torrent, decode_torrent
from cuntong_protocol.errors import Fault
from cuntong_protocol.texts import N_

from .errors import StoreError, database_error, disk_error
from .links import copy, link_or_copy
from .pieces import (
    PieceSet,
    no_checkpoint,
    open_plain,
    sync_pieces,
    verified_pieces,
)
from .torrents import (
    keep_superseded,
    keep_torrent,
    load_torrent,
    payload_folder,
    torrent_path,
)

MAX_TORRENT_BYTES = 256 * 1024 * 1024
"""More than the largest torrent that can be made: 2^20 piece hashes and 100,000 long paths."""
_CANDIDATES = 8
"""How many places of the same content are tried before it is fetched instead."""

_SCHEMA = """
CREATE TABLE IF NOT EXISTS store_payloads (
    infohash BLOB PRIMARY KEY,
    name TEXT NOT NULL,
    size INTEGER NOT NULL,
    is_complete INTEGER NOT NULL
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS store_files (
    root BLOB NOT NULL,
    length INTEGER NOT NULL,
    infohash BLOB NOT NULL REFERENCES store_payloads (infohash) ON DELETE CASCADE,
    path TEXT NOT NULL
);
CREATE INDEX IF NOT EXISTS store_files_by_root ON store_files (root, length);
CREATE INDEX IF NOT EXISTS store_files_by_infohash ON store_files (infohash);
"""


@dataclass(frozen=True, slots=True)
class Payload:
    """One payload in the store; `size` is the bytes of its files."""

    infohash: bytes
    name: str
    size: int
    is_complete: bool


@dataclass(frozen=True, slots=True)
class Usage:
    """Bytes on the disk: of the store (shared content counted once), and free for it."""

    used: int
    free: int


@dataclass(frozen=True, slots=True)
class _Source:
    """Where a file's content should lie; `is_in_place` on a medium."""

    path: Path
    is_in_place: bool


class Store:
    """The payloads of a node."""

    def __init__(self, paths: DataPaths, connection: sqlite3.Connection) -> None:
        """Take over the store.

        Args:
            paths: The node's data directory.
            connection: To the node's database, opened with `check_same_thread=False` and used by nobody else.
        """
        self._paths = paths
        self._database = connection
        self._lock = threading.Lock()
        self._in_place = _links_in(paths.store)
        with self._lock, connection:
            connection.execute("PRAGMA foreign_keys = ON")
            connection.executescript(_SCHEMA)

    # What is there.

    def payloads(self) -> list[Payload]:
        """All payloads, complete or not."""
        with self._transaction():
            rows = self._database.execute(
                "SELECT infohash, name, size, is_complete FROM store_payloads ORDER BY infohash"
            ).fetchall()
        return [Payload(infohash, name, size, bool(done)) for infohash, name, size, done in rows]

    def is_complete(self, infohash: bytes) -> bool:
        with self._transaction():
            row = self._database.execute(
                "SELECT is_complete FROM store_payloads WHERE infohash = ?", (infohash,)
            ).fetchone()
        return row is not None and bool(row[0])

    def torrent(self, infohash: bytes) -> Torrent:
        """The torrent of a payload.

        Raises:
            StoreError: `store.no-torrent`.
        """
        return load_torrent(self._paths, infohash)

    def folder(self, torrent: Torrent) -> Path:
        """Where the payload's files lie."""
        return payload_folder(self._paths, torrent)

    def usage(self) -> Usage:
        """Space used and free.

        Raises:
            StoreError: `store.disk-error`.
        """
        seen: set[tuple[int, int]] = set()
        used = 0
        for folder, _, names in os.walk(self._paths.store):
            for name in names:
                try:
                    entry = os.lstat(os.path.join(folder, name))  # noqa: PTH118  A million times.
                except OSError:
                    continue  # Removed meanwhile.
                if (entry.st_dev, entry.st_ino) not in seen:
                    if entry.st_nlink > 1:
                        seen.add((entry.st_dev, entry.st_ino))
                    used += entry.st_blocks * 512
        try:
            room = os.statvfs(self._paths.store)
        except OSError as error:
            raise disk_error(error) from error
        return Usage(used, room.f_bavail * room.f_frsize)

    # The life of a payload.

    def prepare(self, torrent: Torrent) -> None:
        """Note that a payload is wanted, and keep its torrent. Doing it twice does nothing.

        From now on it lies in the store, even if it was held on a medium.

        Raises:
            StoreError: `store.disk-full`, `store.disk-error`.
        """
        try:
            if (self._paths.store / torrent.infohash.hex()).is_symlink():
                # A crash has left it, and what comes must not be written to a medium.
                self._clear(torrent.infohash)
            keep_torrent(self._paths, torrent)
            payload_folder(self._paths, torrent).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise disk_error(error) from error
        self._note(torrent, is_complete=False)

    def reuse(
        self,
        torrent: Torrent,
        *,
        abandoned: Collection[bytes] = (),
        checkpoint: Callable[[], None] = no_checkpoint,
    ) -> PieceSet:
        """Link files whose content a complete payload already has; each is hashed on the way.

        What is held on a medium is copied: others may change it there, and nothing may change there by this node.

        Args:
            torrent: Of the payload that takes them.
            abandoned: Payloads that were begun and are about to be deleted: what has come of files with the
                same content is moved over. It counts only when somebody has hashed it.
            checkpoint: Called between files and pieces; may raise to stop.

        Returns:
            The pieces of the linked files, durable. Files that are already in place are left alone.

        Raises:
            StoreError: `store.disk-full`, `store.disk-error`.
        """
        folder = payload_folder(self._paths, torrent)
        found: list[int] = []
        begun = self._begun_files(abandoned)
        try:
            for file in torrent.files:
                target = folder / file.path
                if target.exists():
                    continue
                for source in self._places(file.root, file.length, torrent.infohash):
                    checkpoint()
                    if _is_whole(torrent, file.path, source.path, checkpoint):
                        target.parent.mkdir(parents=True, exist_ok=True)
                        if not source.is_in_place:
                            link_or_copy(source.path, target)
                        elif not _copy_whole(torrent, file.path, source.path, target, checkpoint):
                            continue
                        found += torrent.pieces_of(file)
                        break
                else:
                    part = begun.pop((file.root, file.length), None)
                    if part is not None and part.exists():
                        target.parent.mkdir(parents=True, exist_ok=True)
                        part.rename(target)
            pieces = PieceSet.of(torrent.piece_count, found)
            if pieces:
                sync_pieces(torrent, folder, pieces)
        except OSError as error:
            raise disk_error(error) from error
        return pieces

    def complete(
        self, infohash: bytes, *, checkpoint: Callable[[], None] = no_checkpoint
    ) -> PieceSet:
        """Read a downloaded payload back, make it read-only and let others reuse its files.

        Returns:
            The pieces that are damaged; only when there are none is it complete.

        Raises:
            StoreError: `store.no-torrent`, `store.disk-full`, `store.disk-error`.
        """
        torrent = load_torrent(self._paths, infohash)
        return self._complete(torrent, payload_folder(self._paths, torrent), checkpoint)

    def verify(
        self, infohash: bytes, *, checkpoint: Callable[[], None] = no_checkpoint
    ) -> PieceSet:
        """Read every byte of a payload.

        Returns:
            The pieces that are missing or damaged. A complete payload with such pieces isn't complete any more.

        Raises:
            StoreError: `store.no-torrent`.
        """
        torrent = load_torrent(self._paths, infohash)
        folder = payload_folder(self._paths, torrent)
        bad = verified_pieces(torrent, folder, checkpoint=checkpoint).missing()
        if bad and self.is_complete(infohash):
            self._note(torrent, is_complete=False)
        return bad

    def delete(self, infohash: bytes, *, is_replaced: bool = False) -> None:
        """Remove a payload's files, torrent and traces. Content that others link stays with them.

        Args:
            infohash: The payload's.
            is_replaced: By a later revision: its torrent is kept aside (SPEC 12, ADR 15), since other places may still
                have this one.

        Raises:
            StoreError: `store.disk-error`; what is left is removed by `recover` or by calling again.
        """
        with contextlib.suppress(StoreError):  # On a full disk the files must go first.
            self._forget(infohash)
        try:
            if is_replaced:
                keep_superseded(self._paths, infohash)
            torrent_path(self._paths, infohash).unlink(missing_ok=True)
            self._clear(infohash)
        except OSError as error:
            raise disk_error(error) from error
        self._forget(infohash)

    def take_incoming(
        self, infohash: bytes, *, checkpoint: Callable[[], None] = no_checkpoint
    ) -> Torrent:
        """Move a payload that `cuntong publish` built into the store, after reading all of it.

        Raises:
            StoreError: `store.bad-incoming` and nothing has moved; `store.disk-full`, `store.disk-error`.
            BundleError: the torrent beside it is not one of ours.
        """
        source = self._paths.incoming / infohash.hex()
        torrent = self._incoming_torrent(infohash)
        target = self._paths.store / infohash.hex()
        try:
            if (source / torrent.name).exists():  # Else a crash came after the move.
                if verified_pieces(torrent, source / torrent.name, checkpoint=checkpoint).missing():
                    raise StoreError(
                        "store.bad-incoming",
                        N_(
                            "The files that were built for {name} have changed since. Publish it again."
                        ),
                        fault=Fault.CONTENT,
                        name=torrent.name,
                    )
                self._paths.store.mkdir(parents=True, exist_ok=True)
                keep_torrent(self._paths, torrent)
                self._note(torrent, is_complete=False)
                self._clear(infohash)  # It was wanted before; what came of it is here too.
                sync_pieces(torrent, source / torrent.name, PieceSet.full(torrent.piece_count))
                source.rename(target)
                sync_folder(self._paths.store)
            bad = self._complete(torrent, target / torrent.name, checkpoint)
            if not bad:
                shutil.rmtree(source, ignore_errors=True)
                (self._paths.incoming / f"{infohash.hex()}.torrent").unlink(missing_ok=True)
        except OSError as error:
            raise disk_error(error) from error
        return torrent

    def incoming(self) -> list[bytes]:
        """Infohashes of payloads that wait in `incoming/`."""
        try:
            names = [path.name for path in self._paths.incoming.iterdir()]
        except OSError:
            return []
        return sorted({found for name in names if (found := _infohash(name)) is not None})

    def recover(self, *, wanted: Collection[bytes] | None = None) -> list[bytes]:
        """Remove folders and torrents that no payload claims.

        Args:
            wanted: What else must stay. None: it isn't known yet, and then nothing goes where the database knows
                of no payload at all. It was lost and made anew, and what lies here is hashed when it is wanted again.

        Returns:
            The infohashes removed.
        """
        known = {payload.infohash for payload in self.payloads()}
        if wanted is None and not known:
            return []
        known |= set(wanted or ())
        removed: set[bytes] = set()
        for folder in (self._paths.store, self._paths.torrents):
            try:
                places = list(folder.iterdir())
            except OSError:
                continue
            for place in places:
                infohash = _infohash(place.name)
                if infohash is None or infohash in known:
                    continue
                if folder == self._paths.store:
                    with contextlib.suppress(OSError):
                        remove_place(place)
                        self._in_place.pop(infohash, None)
                else:
                    place.unlink(missing_ok=True)
                removed.add(infohash)
        return sorted(removed)

    # What is held on a medium (SPEC 12.5).

    def is_in_place(self, infohash: bytes) -> bool:
        """Whether a payload lies on a medium and not in the store."""
        return infohash in self._in_place

    def places(self) -> dict[bytes, Path]:
        """Where payloads lie that are held on media."""
        return dict(self._in_place)

    def places_lost(self, below: Path | None = None) -> list[bytes]:
        """Payloads that were held on a medium which has gone, or on one below a folder."""
        return [
            infohash
            for infohash, place in self.places().items()
            if not _is_readable(place) or (below is not None and place.is_relative_to(below))
        ]

    def inspect_place(
        self, torrent: Torrent, place: Path, *, checkpoint: Callable[[], None] = no_checkpoint
    ) -> PieceSet:
        """The pieces of a payload that are missing or wrong on a medium; every byte is read.

        Of a payload to which a link leads, or in which one lies, all are: it may lead anywhere tomorrow.

        Args:
            torrent: Of the payload.
            place: The folder that holds the folder with the torrent's name: absolute, with no link on the way.
            checkpoint: Called between folders and pieces; may raise to stop.
        """
        folder = place / torrent.name
        for parent in {(folder / file.path).parent for file in torrent.files}:
            checkpoint()
            if os.path.realpath(parent) != os.fspath(parent):
                return PieceSet.full(torrent.piece_count)
        return verified_pieces(torrent, folder, checkpoint=checkpoint).missing()

    def hold_in_place(self, torrent: Torrent, place: Path) -> None:
        """Hold a payload where it lies; all of it has been read.

        Args:
            torrent: Of the payload.
            place: The folder that holds the folder with the torrent's name.

        Raises:
            StoreError: `store.disk-full`, `store.disk-error`.
        """
        target = self._paths.store / torrent.infohash.hex()
        try:
            keep_torrent(self._paths, torrent)
            self._clear(torrent.infohash)
            target.symlink_to(place, target_is_directory=True)
            sync_folder(self._paths.store)
            self._in_place[torrent.infohash] = place
        except OSError as error:
            raise disk_error(error) from error
        self._note(torrent, is_complete=True)

    # Parts.

    def _clear(self, infohash: bytes) -> None:
        """Remove a payload's folder, or the link to where it is held.

        Raises:
            OSError: some of it is left.
        """
        if remove_place(self._paths.store / infohash.hex()):
            sync_folder(self._paths.store)
        self._in_place.pop(infohash, None)

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        """The database for one thread at a time; what was written counts whole or not at all."""
        try:
            with self._lock, self._database:
                yield
        except sqlite3.Error as error:
            raise database_error(error, str(self._paths.database)) from error

    def _forget(self, infohash: bytes) -> None:
        with self._transaction():
            self._database.execute("DELETE FROM store_payloads WHERE infohash = ?", (infohash,))

    def _complete(self, torrent: Torrent, folder: Path, checkpoint: Callable[[], None]) -> PieceSet:
        bad = verified_pieces(torrent, folder, checkpoint=checkpoint).missing()
        if bad:
            self._note(torrent, is_complete=False)
            return bad
        if not self.is_in_place(torrent.infohash):
            try:
                for file in torrent.files:
                    path = folder / file.path
                    if path.stat().st_size != file.length:
                        os.truncate(path, file.length)
                    path.chmod(0o444)
                sync_pieces(torrent, folder, PieceSet.full(torrent.piece_count))
            except OSError as error:
                raise disk_error(error) from error
        self._note(torrent, is_complete=True)
        return bad

    def _note(self, torrent: Torrent, *, is_complete: bool) -> None:
        with self._transaction():
            self._database.execute(
                "INSERT INTO store_payloads VALUES (?, ?, ?, ?)"
                " ON CONFLICT (infohash) DO UPDATE SET is_complete = excluded.is_complete",
                (torrent.infohash, torrent.name, torrent.payload_size, is_complete),
            )
            self._database.execute(
                "DELETE FROM store_files WHERE infohash = ?", (torrent.infohash,)
            )
            if is_complete:
                self._database.executemany(
                    "INSERT INTO store_files VALUES (?, ?, ?, ?)",
                    (
                        (file.root, file.length, torrent.infohash, f"{torrent.name}/{file.path}")
                        for file in torrent.files
                    ),
                )

    def _places(self, root: bytes, length: int, except_for: bytes) -> list[_Source]:
        with self._transaction():
            rows = self._database.execute(
                "SELECT infohash, path FROM store_files"
                " WHERE root = ? AND length = ? AND infohash != ? LIMIT ?",
                (root, length, except_for, _CANDIDATES),
            ).fetchall()
        return [
            _Source(self._paths.store / infohash.hex() / path, self.is_in_place(infohash))
            for infohash, path in rows
        ]

    def _begun_files(self, infohashes: Collection[bytes]) -> dict[tuple[bytes, int], Path]:
        """Where files of these payloads lie, by root and length, if something of them has come."""
        found: dict[tuple[bytes, int], Path] = {}
        for infohash in infohashes:
            if self.is_in_place(infohash):
                continue  # Nothing is moved away from a medium.
            try:
                torrent = load_torrent(self._paths, infohash)
            except StoreError:
                continue  # It was never begun.
            folder = payload_folder(self._paths, torrent)
            found |= {(file.root, file.length): folder / file.path for file in torrent.files}
        return found

    def _incoming_torrent(self, infohash: bytes) -> Torrent:
        name = f"{infohash.hex()}.torrent"
        for path in (self._paths.incoming / name, torrent_path(self._paths, infohash)):
            try:
                with os.fdopen(open_plain(path), "rb") as file:
                    return decode_torrent(file.read(MAX_TORRENT_BYTES), infohash=infohash)
            except OSError:
                continue
        raise StoreError(
            "store.no-incoming",
            N_("There is no built payload {infohash}. Publish it again."),
            fault=Fault.CONTENT,
            infohash=infohash.hex()[:16],
        )


def _is_whole(torrent: Torrent, path: str, source: Path, checkpoint: Callable[[], None]) -> bool:
    """Whether `source` holds the content of this file of the torrent."""
    file = torrent.file(path)
    if file is None:
        return False
    try:
        descriptor = open_plain(source)
    except OSError:
        return False
    with os.fdopen(descriptor, "rb", buffering=0) as handle:
        if os.fstat(descriptor).st_size != file.length:
            return False
        for piece in torrent.pieces_of(file):
            checkpoint()
            _, offset, length = torrent.piece_place(piece)
            try:
                torrent.check_piece(piece, os.pread(handle.fileno(), length, offset))
            except (OSError, BundleError):
                return False
    return True


def _copy_whole(
    torrent: Torrent, path: str, source: Path, target: Path, checkpoint: Callable[[], None]
) -> bool:
    """Copy a file of the torrent from where others may change it meanwhile. False: it wasn't right; nothing is left.

    Raises:
        OSError: it can't be written.
    """
    copy(source, target)
    if _is_whole(torrent, path, target, checkpoint):
        return True
    target.unlink()
    return False


def _is_readable(place: Path) -> bool:
    try:
        return place.is_dir()
    except OSError:  # What was pulled out without being unmounted.
        return False


def _links_in(store: Path) -> dict[bytes, Path]:
    """Payloads that are held elsewhere, and where."""
    found: dict[bytes, Path] = {}
    with contextlib.suppress(OSError), os.scandir(store) as entries:
        for entry in entries:
            infohash = _infohash(entry.name)
            if infohash is not None and entry.is_symlink():
                found[infohash] = Path(entry.path).readlink()
    return found


def remove_place(place: Path) -> bool:
    """Remove a payload's folder; of one that is held on a medium, the link to it. False: there was none.

    Raises:
        OSError: some of it is left.
    """
    if place.is_symlink():
        place.unlink()
    elif place.exists():
        shutil.rmtree(place)
    else:
        return False
    return True


def _infohash(name: str) -> bytes | None:
    try:
        found = bytes.fromhex(name.removesuffix(".torrent"))
    except ValueError:
        return None
    return found if len(found) == 32 else None

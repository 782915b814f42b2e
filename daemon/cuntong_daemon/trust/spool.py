"""Files that come and go: unverified metadata in, verified objects out (SPEC 6.3).

What others send lands under `spool/` and `blobs/` and is trusted by nobody until `Federation` has verified
it. What is served lies under `trusted/` (written by `Federation` only), `blobs/` and `torrents/`. A centre's
own repository is read where its tools write it.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from cuntong_daemon.files import write_atomically
from cuntong_daemon.paths import DataPaths
from cuntong_protocol.divisions import Division
from cuntong_protocol.texts import N_
from cuntong_protocol.trust.names import (
    MAX_MEMBERS_BYTES,
    ROOT,
    TIMESTAMP,
    TrustError,
    is_sha256,
    max_metadata_bytes,
    parse_metadata_name,
    parse_object_path,
)

MAX_SPOOL_BYTES = 64 * 1024 * 1024
"""Of one authority: some 200,000 bundles. A flood stops here."""
MAX_SPOOL_FILES = 2_048
"""Of one authority: all months of a century, and roots."""
MAX_BLOB_BYTES = MAX_MEMBERS_BYTES
"""The largest kind of small signed file."""
MAX_TORRENT_BYTES = 64 * 1024 * 1024
"""Piece layers of some 2 million pieces, libtorrent's own limit."""
KEPT_VERSIONS = 3
"""Of each role, so that a follower who is behind gets a small patch instead of the whole file."""

_VERSIONED = re.compile(r"([0-9]+)\.([a-z0-9]+)\.json")


class Spool:
    """The folders of metadata and blobs. Holds no state; may be used from several threads."""

    def __init__(self, paths: DataPaths, own: Division | None = None) -> None:
        """Use the folders below `paths`; `own` is the code whose repository lies in `paths.authority`."""
        self.paths = paths
        self._own = own

    def store_metadata(self, authority: Division, name: str, data: bytes) -> None:
        """Put down unverified metadata for `Federation.refresh()` to look at.

        Args:
            authority: Whose it is said to be.
            name: `<N>.<role>.json` or `timestamp.json`.
            data: Its bytes.

        Raises:
            TrustError: `trust.bad-object`, `trust.too-large`, `trust.spool-full`.
            OSError: it can't be written; nothing is left behind.
        """
        role, _ = parse_metadata_name(name)
        _check_size(name, data, max_metadata_bytes(role))
        folder = self.paths.spool / authority
        folder.mkdir(parents=True, exist_ok=True)
        used, count = len(data), 1
        for path in folder.iterdir():
            if path.name != name:
                with contextlib.suppress(FileNotFoundError):
                    used += path.stat().st_size
                    count += 1
        if used > MAX_SPOOL_BYTES or count > MAX_SPOOL_FILES:
            raise TrustError(
                "trust.spool-full",
                N_("{authority} has more catalogue than this node takes: {name} is refused."),
                authority=authority,
                name=name,
            )
        write_atomically(folder / name, data, durable=False)

    def store_blob(self, sha256: str, data: bytes) -> None:
        """Keep a small signed file.

        Raises:
            TrustError: `trust.bad-object`, `trust.too-large`, or `trust.blob-mismatch`: it has another hash.
            OSError: it can't be written; nothing is left behind.
        """
        if not is_sha256(sha256):
            parse_object_path(f"blobs/{sha256}")
        _check_size(sha256, data, MAX_BLOB_BYTES)
        if hashlib.sha256(data).hexdigest() != sha256:
            raise TrustError(
                "trust.blob-mismatch",
                N_("A file that should have the hash {sha256} has another: it is refused."),
                sha256=sha256,
            )
        self.paths.blobs.mkdir(parents=True, exist_ok=True)
        # Not synced: the hash is checked on every reading, and a lost blob is fetched again.
        write_atomically(self.paths.blobs / sha256, data, durable=False)

    def read_blob(self, sha256: str) -> bytes | None:
        """A blob whose hash is right, or None. A damaged one is removed, so that it is fetched again."""
        for folder in self._blob_folders():
            # Not `folder / sha256`: pathlib interns each name, and 10,000 of them take 2 MB for good.
            data = _read(f"{folder}/{sha256}", MAX_BLOB_BYTES)
            if data is None:
                continue
            if hashlib.sha256(data).hexdigest() == sha256:
                return data
            if folder == self.paths.blobs:
                (folder / sha256).unlink(missing_ok=True)
        return None

    def blob_names(self) -> Iterator[str]:
        """The hashes of all blobs that are there, one by one: 10,000 names are 1 MB."""
        for folder in self._blob_folders():
            with (
                contextlib.suppress(FileNotFoundError, NotADirectoryError),
                os.scandir(folder) as found,
            ):
                for entry in found:
                    yield entry.name

    def read(self, path: str) -> bytes | None:
        """An object to serve, by its object path, or None when it isn't here.

        Metadata comes from what this node has verified, never from the spool.

        Raises:
            TrustError, DivisionError: it isn't an object path.
        """
        wanted = parse_object_path(path)
        if wanted.kind == "blobs":
            return self.read_blob(wanted.role)
        if wanted.kind == "torrents":
            return _read(self.paths.torrents / f"{wanted.role}.torrent", MAX_TORRENT_BYTES)
        folder = self.paths.trusted / str(wanted.authority)
        return _read(folder / wanted.file_name, max_metadata_bytes(wanted.role))

    def find_version(self, authority: Division, role: str, sha256: str) -> bytes | None:
        """The kept version of a verified role with this hash: what a patch for a follower starts from."""
        for path in self._versions(authority, role):
            data = _read(path, max_metadata_bytes(role))
            if data is not None and hashlib.sha256(data).hexdigest() == sha256:
                return data
        return None

    def base_for(self, path: str) -> tuple[str, bytes] | None:
        """The newest verified version of the role that `path` is a version of, and its SHA-256.

        Whoever asks for `path` may name it, to be sent a patch.
        """
        wanted = parse_object_path(path)
        if wanted.authority is None or wanted.role in (ROOT, TIMESTAMP):
            return None
        for found in self._versions(wanted.authority, wanted.role):
            data = _read(found, max_metadata_bytes(wanted.role))
            if data:
                return hashlib.sha256(data).hexdigest(), data
        return None

    def read_spooled(self, authority: Division, name: str) -> bytes | None:
        """Unverified metadata, for the verifier only."""
        role, _ = parse_metadata_name(name)
        limit = (
            max_metadata_bytes(role) + 1
        )  # One more, so that python-tuf sees that it is too long.
        if authority == self._own:
            data = _read(self.paths.authority / "metadata" / name, limit)
            if data is not None:
                return data
        return _read(self.paths.spool / authority / name, limit)

    def has_spooled(self, authority: Division, name: str) -> bool:
        """Whether `read_spooled` would find something."""
        if authority == self._own and (self.paths.authority / "metadata" / name).is_file():
            return True
        return (self.paths.spool / authority / name).is_file()

    def fingerprint(self, authority: Division) -> frozenset[tuple[str, int, int]]:
        """Changes whenever unverified metadata of this authority comes or goes."""
        folders = [self.paths.spool / authority]
        if authority == self._own:
            folders.append(self.paths.authority / "metadata")
        found: set[tuple[str, int, int]] = set()
        for folder in folders:
            with contextlib.suppress(FileNotFoundError):
                for path in folder.iterdir():
                    status = path.stat()
                    found.add((path.name, status.st_mtime_ns, status.st_ino))
        return frozenset(found)

    def drop_spooled(self, authority: Division, name: str) -> None:
        """Remove a file that was refused. A centre's own repository is never touched."""
        (self.paths.spool / authority / name).unlink(missing_ok=True)

    def drop_older(self, authority: Division, role: str, version: int) -> None:
        """Remove spooled files of a role up to the accepted version; the timestamp stays, to compare with."""
        with contextlib.suppress(FileNotFoundError):
            for path in (self.paths.spool / authority).iterdir():
                match = _VERSIONED.fullmatch(path.name)
                if match and match[2] == role and int(match[1]) <= version:
                    path.unlink(missing_ok=True)

    def read_trusted(
        self, authority: Division, role: str, version: int, sha256: str
    ) -> bytes | None:
        """An accepted file whose hash is right, or None when it was lost or damaged."""
        path = self.paths.trusted / authority / f"{version}.{role}.json"
        data = _read(path, max_metadata_bytes(role))
        return data if data and hashlib.sha256(data).hexdigest() == sha256 else None

    def write_trusted(self, authority: Division, files: Iterable[tuple[str, bytes]]) -> None:
        """Write verified files durably, in this order; those that are there already are left alone.

        Raises:
            OSError: what was written before stays, the file that failed leaves nothing.
        """
        folder = self.paths.trusted / authority
        folder.mkdir(parents=True, exist_ok=True)
        for name, data in files:
            path = folder / name
            if _read(path, len(data) + 1) != data:
                write_atomically(path, data)

    def prune_trusted(self, authority: Division, current: Iterable[tuple[str, int]]) -> None:
        """Keep the accepted version of each role and the last ones before it; of the root, all before it.

        Versions above the accepted one are of an earlier epoch, or of an update that was never completed.
        """
        newest = dict(current)
        versions: dict[str, list[tuple[int, Path]]] = {}
        for path in (self.paths.trusted / authority).iterdir():
            match = _VERSIONED.fullmatch(path.name)
            if match:
                versions.setdefault(match[2], []).append((int(match[1]), path))
        for role, found in versions.items():
            top = newest.get(role, 0)
            kept = sorted(version for version, _ in found if version <= top)
            if role != ROOT:
                kept = kept[-KEPT_VERSIONS:]
            for version, path in found:
                if version not in kept:
                    path.unlink(missing_ok=True)

    def _versions(self, authority: Division, role: str) -> list[Path]:
        found: list[tuple[int, Path]] = []
        with contextlib.suppress(FileNotFoundError):
            for path in (self.paths.trusted / authority).iterdir():
                match = _VERSIONED.fullmatch(path.name)
                if match and match[2] == role:
                    found.append((int(match[1]), path))
        return [path for _, path in sorted(found, reverse=True)]

    def _blob_folders(self) -> tuple[Path, ...]:
        return self.paths.blobs, self.paths.authority / "targets"


def _check_size(name: str, data: bytes, limit: int) -> None:
    if len(data) > limit:
        raise TrustError(
            "trust.too-large",
            N_("{name} has more than {limit} bytes: it is refused."),
            name=name,
            limit=limit,
        )


def _read(path: Path | str, limit: int) -> bytes | None:
    """At most `limit` bytes of a file; None when there is no such file."""
    try:
        with open(path, "rb") as file:  # noqa: PTH123 - see `read_blob`.
            return file.read(limit)
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
        return None

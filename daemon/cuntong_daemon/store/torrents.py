"""The `.torrent` files of a node: `torrents/<v2 infohash>.torrent`, checked before they are kept."""

from __future__ import annotations

from pathlib import Path

from cuntong_daemon.files import write_atomically
from cuntong_daemon.paths import DataPaths
from cuntong_protocol.bundle.errors import BundleError
from cuntong_protocol.bundle.torrent import Torrent, decode_torrent
from cuntong_protocol.errors import Fault
from cuntong_protocol.texts import N_

from .errors import StoreError

MAX_SUPERSEDED = 2_000
"""About 200 MB; the oldest go first."""


def torrent_path(paths: DataPaths, infohash: bytes) -> Path:
    return paths.torrents / f"{infohash.hex()}.torrent"


def payload_folder(paths: DataPaths, torrent: Torrent) -> Path:
    """Where this payload's files lie (SPEC 9)."""
    return paths.store / torrent.infohash.hex() / torrent.name


def keep_torrent(paths: DataPaths, torrent: Torrent) -> None:
    """Write the torrent durably, unless it is there.

    Raises:
        OSError: as `write_atomically`.
    """
    path = torrent_path(paths, torrent.infohash)
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, torrent.encode())


def superseded_path(paths: DataPaths, infohash: bytes) -> Path:
    """Where the torrent of a replaced revision is kept."""
    return paths.media / "superseded" / f"{infohash.hex()}.torrent"


def keep_superseded(paths: DataPaths, infohash: bytes) -> None:
    """Keep a torrent aside: by it can be told what a place has that holds this revision (ADR 15).

    Raises:
        OSError: it can't be moved.
    """
    source, target = torrent_path(paths, infohash), superseded_path(paths, infohash)
    if source.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        source.replace(target)
        kept = sorted(target.parent.iterdir(), key=lambda path: path.stat().st_mtime)
        for path in kept[:-MAX_SUPERSEDED]:
            path.unlink(missing_ok=True)


def load_torrent(paths: DataPaths, infohash: bytes) -> Torrent:
    """Read a torrent that was kept.

    Raises:
        StoreError: `store.no-torrent`; a damaged file is removed, so that it is fetched again.
    """
    path = torrent_path(paths, infohash)
    try:
        return decode_torrent(path.read_bytes(), infohash=infohash)
    except BundleError:
        path.unlink(missing_ok=True)
    except OSError:
        pass
    raise StoreError(
        "store.no-torrent",
        N_("The torrent {infohash} isn't here; it is fetched again from the parent."),
        fault=Fault.SYSTEM,
        infohash=infohash.hex()[:16],
    )

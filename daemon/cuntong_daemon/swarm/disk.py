"""What the engine does with files, in worker threads: nothing here knows the session."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import libtorrent as lt

from cuntong_daemon.paths import DataPaths
from cuntong_daemon.store.pieces import PieceSet, checked_pieces, present_pieces, sync_pieces
from cuntong_daemon.store.torrents import keep_torrent, payload_folder
from cuntong_protocol.bundle.torrent import Torrent

from .alerts import ResumeSaved
from .resume import VERSION, Resume, load_resume, pack_blocks, unpack_blocks, write_resume

ROOM_TO_GO_ON_BYTES = 32 * 1024 * 1024
"""After a full disk: as much free space, or as much as is missing, before the download goes on."""


@dataclass(frozen=True, slots=True)
class Inspected:
    """What is on the disk, and libtorrent's parameters for it."""

    params: lt.add_torrent_params
    have: PieceSet


def inspect(
    paths: DataPaths,
    torrent: Torrent,
    *,
    have: PieceSet | None,
    suspects: Iterable[str],
    checkpoint: Callable[[], None],
) -> Inspected:
    """Find out what is there and write it down durably.

    What is held on a medium is never written: it is whole there, or refused.

    Args:
        paths: The node's data directory.
        torrent: The payload.
        have: Pieces to believe; None: those that the last run made durable.
        suspects: Files of which nothing is believed.
        checkpoint: Called between pieces; may raise to stop.

    Raises:
        OSError: the disk refuses.
        RuntimeError: libtorrent refuses the torrent.
    """
    keep_torrent(paths, torrent)
    folder = payload_folder(paths, torrent)
    is_on_medium = folder.parent.is_symlink()
    if not is_on_medium:
        folder.mkdir(parents=True, exist_ok=True)
    resume = load_resume(paths, torrent)
    known = PieceSet.from_bytes(torrent.piece_count, resume.pieces)
    believed = known if have is None else have
    for path in suspects:
        if (file := torrent.file(path)) is not None:
            believed -= PieceSet.of(torrent.piece_count, torrent.pieces_of(file))
    found = present_pieces(torrent, folder, believed=believed, checkpoint=checkpoint)
    if not found.is_full:
        if is_on_medium:
            raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(folder))
        _make_writable(torrent, folder, found)
    if found != known:
        if not is_on_medium:  # Nothing was written there, and of a disc nothing can be synced.
            sync_pieces(torrent, folder, found - believed)
        write_resume(
            paths,
            torrent.infohash,
            Resume(VERSION, found.to_bytes(), resume.unfinished, resume.down, resume.up),
        )
    params = lt.load_torrent_buffer(torrent.encode())
    params.save_path = str(folder.parent)
    params.have_pieces = found.as_bools()
    params.unfinished_pieces = unpack_blocks(torrent, resume, found)
    params.total_downloaded, params.total_uploaded = resume.down, resume.up
    params.flags = (
        lt.torrent_flags.update_subscribe
        | lt.torrent_flags.apply_ip_filter
        | lt.torrent_flags.no_verify_files  # It was done above; libtorrent's check would start afresh.
        | lt.torrent_flags.disable_dht
        | lt.torrent_flags.disable_lsd
        | lt.torrent_flags.disable_pex
    )
    return Inspected(params, found)


def make_durable(
    paths: DataPaths, torrent: Torrent, saved: ResumeSaved, *, before: PieceSet, at_stop: bool
) -> PieceSet:
    """Read back what libtorrent says it has, make it durable, and only then write down that it is.

    libtorrent may answer before the last blocks have left its memory: such pieces count the next time.
    Blocks of half-received pieces can't be checked; they are only remembered when nothing comes any more.

    Returns:
        The durable pieces.

    Raises:
        OSError: the disk refuses.
    """
    count = torrent.piece_count
    folder = payload_folder(paths, torrent)
    claimed = PieceSet.of(count, (i for i, has in enumerate(saved.have) if has))
    fresh = checked_pieces(torrent, folder, claimed - before)
    unfinished = pack_blocks(saved.unfinished) if at_stop else {}
    sync_pieces(torrent, folder, fresh | PieceSet.of(count, unfinished))
    have = before | fresh
    resume = Resume(VERSION, have.to_bytes(), unfinished, saved.down, saved.up)
    write_resume(paths, torrent.infohash, resume)
    return have


def check_disk(paths: DataPaths, infohash: bytes, missing_bytes: int) -> None:
    """Whether going on makes sense after the disk refused: there is room, and the store can be written.

    Raises:
        OSError: it doesn't.
    """
    place = paths.store / infohash.hex()
    if place.is_symlink():
        return  # Nothing is written to a medium.
    place.mkdir(parents=True, exist_ok=True)
    room = os.statvfs(place)
    if room.f_bavail * room.f_frsize < min(missing_bytes, ROOM_TO_GO_ON_BYTES):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(place))
    probe = place / ".probe"
    probe.write_bytes(b"")
    probe.unlink()


def _make_writable(torrent: Torrent, folder: Path, found: PieceSet) -> None:
    """Files that were complete are read-only; those that lack pieces now must be written again."""
    for file in torrent.files:
        numbers = torrent.pieces_of(file)
        part = (found.bits >> numbers.start) & ((1 << len(numbers)) - 1)
        path = folder / file.path
        if part.bit_count() < len(numbers) and path.exists() and not os.access(path, os.W_OK):
            path.chmod(0o644)

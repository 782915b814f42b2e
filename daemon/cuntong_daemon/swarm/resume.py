"""What a torrent had when its files were last made durable: `resume/<v2 infohash>` (SPEC 7.4).

Only pieces that were written and fsynced before the file was are in it, so it may be believed after a power
cut. libtorrent's own resume data isn't kept: with v2 it holds 32 bytes for each 16 KiB of content.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import msgspec

from cuntong_daemon.files import write_atomically
from cuntong_daemon.paths import DataPaths
from cuntong_daemon.store.pieces import PieceSet
from cuntong_protocol.bundle.torrent import Torrent

VERSION = 1
MAX_UNFINISHED = 4096
"""Half-received pieces that are remembered; more aren't open at a time."""
_BLOCK = 16 * 1024


class Resume(msgspec.Struct, frozen=True):
    """One torrent's state.

    Attributes:
        v: Version of this structure.
        pieces: `PieceSet.to_bytes` of the durable pieces.
        unfinished: Piece to the bit field of its blocks of 16 KiB that are durable (not verified).
        down: Payload bytes received so far.
        up: Payload bytes sent so far.
    """

    v: Annotated[int, msgspec.Meta(ge=1, le=VERSION)]
    pieces: bytes
    unfinished: Annotated[dict[int, bytes], msgspec.Meta(max_length=MAX_UNFINISHED)] = {}
    down: Annotated[int, msgspec.Meta(ge=0)] = 0
    up: Annotated[int, msgspec.Meta(ge=0)] = 0


EMPTY = Resume(VERSION, b"")


def resume_path(paths: DataPaths, infohash: bytes) -> Path:
    return paths.resume / infohash.hex()


def load_resume(paths: DataPaths, torrent: Torrent) -> Resume:
    """Read it; what is missing or damaged counts as nothing, since every piece can be hashed again."""
    try:
        resume = msgspec.msgpack.decode(
            resume_path(paths, torrent.infohash).read_bytes(), type=Resume
        )
    except (OSError, msgspec.DecodeError):
        return EMPTY
    if len(resume.pieces) != (torrent.piece_count + 7) // 8:
        return EMPTY
    return resume


def write_resume(paths: DataPaths, infohash: bytes, resume: Resume) -> None:
    """Write it durably.

    Raises:
        OSError: as `write_atomically`.
    """
    paths.resume.mkdir(parents=True, exist_ok=True)
    write_atomically(resume_path(paths, infohash), msgspec.msgpack.encode(resume))


def pack_blocks(unfinished: dict[int, tuple[bool, ...]]) -> dict[int, bytes]:
    """libtorrent's block lists as bit fields, without the pieces that have no block yet."""
    some = {piece: blocks for piece, blocks in unfinished.items() if any(blocks)}
    return {
        piece: PieceSet.of(len(blocks), (i for i, has in enumerate(blocks) if has)).to_bytes()
        for piece, blocks in sorted(some.items())[:MAX_UNFINISHED]
    }


def unpack_blocks(torrent: Torrent, resume: Resume, have: PieceSet) -> dict[int, list[bool]]:
    """The block lists for libtorrent, for pieces that aren't whole."""
    blocks: dict[int, list[bool]] = {}
    for piece, field in resume.unfinished.items():
        if 0 <= piece < torrent.piece_count and piece not in have:
            _, _, length = torrent.piece_place(piece)
            blocks[piece] = PieceSet.from_bytes(-(-length // _BLOCK), field).as_bools()
    return blocks

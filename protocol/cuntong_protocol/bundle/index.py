"""The index: which files a bundle has and where in the payload each lies (SPEC 3.5).

It is a file of the payload, so its bytes are proven by the torrent; what it says is the publisher's, and nothing of
it is believed: every number is checked here against the others, against the descriptor, and (in
`check_payload`) against the torrent, before anybody writes a byte.
"""

from __future__ import annotations

import itertools
import re
from typing import Annotated

import msgspec
import zstandard

from cuntong_protocol.texts import N_

from .errors import BundleError
from .merkle import EMPTY_ROOT
from .paths import check_paths
from .torrent import Torrent

VERSION = 1
INDEX_PATH = "index"
FILES_FOLDER = "files/"
PACKS_FOLDER = "packs/"
MAX_PACK_BYTES = 32 * 1024 * 1024
"""Unpacked; what a village's PC can hold in memory twice (a pack and its base)."""
MAX_UNPACKED_RATIO = 8
"""Kept packs may hold content that no file uses any more, but a bundle isn't mostly that."""
MAX_INDEX_BYTES = 256 * 1024 * 1024
"""Unpacked; a million files with paths of 200 bytes."""
BYTES_PER_FILE = 8 * 1024
"""Unpacked; two paths of the longest kind, and a folder."""

_PACK_NAME = re.compile(r"[0-9a-f]{16}\.zst")

Hash = Annotated[bytes, msgspec.Meta(min_length=32, max_length=32)]
Size = Annotated[int, msgspec.Meta(ge=0, le=1 << 48)]
Number = Annotated[int, msgspec.Meta(ge=0, le=1_000_000)]


class IndexFile(msgspec.Struct, frozen=True, array_like=True):
    """One file as the public sees it.

    Attributes:
        path: `/`-separated.
        size: In bytes.
        time: Modification time, seconds since 1970, UTC.
        root: v2 Merkle root of its content; zeros when it is empty.
        pack: Number of the pack that holds it, or None.
        offset: Where it begins in the unpacked pack.
        stored: When it lies in no pack: the path below `files/` of the (first) file with this content. None when it
            is packed or empty.
    """

    path: str
    size: Size
    time: Annotated[int, msgspec.Meta(ge=-(1 << 40), le=1 << 40)]
    root: Hash
    pack: Number | None = None
    offset: Size = 0
    stored: str | None = None


class IndexPack(msgspec.Struct, frozen=True, array_like=True):
    """One pack.

    Attributes:
        name: Its file below `packs/`: 16 hex digits of its v2 root, and `.zst`.
        size: Unpacked, in bytes.
        base: Number of the pack whose unpacked bytes are its dictionary, or None. That pack has no base.
    """

    name: str
    size: Annotated[int, msgspec.Meta(ge=1, le=MAX_PACK_BYTES)]
    base: Number | None = None


class Index(msgspec.Struct, frozen=True):
    """All files of a bundle, in path order (`order_key`).

    Attributes:
        v: Version of the format.
        files: Each path once.
        packs: In no particular order; each is used by a file or as a base.
        folders: Folders without files.
    """

    files: tuple[IndexFile, ...]
    packs: tuple[IndexPack, ...] = ()
    folders: tuple[str, ...] = ()
    v: int = VERSION


class _Version(msgspec.Struct):
    v: int


_ENCODER = msgspec.msgpack.Encoder(order="deterministic")
_DECODER = msgspec.msgpack.Decoder(Index)
_VERSION_DECODER = msgspec.msgpack.Decoder(_Version)


def pack_name(root: bytes) -> str:
    """The name of the pack file with this v2 root."""
    return f"{root.hex()[:16]}.zst"


def order_key(path: str) -> bytes:
    """The order of paths in an index: by their bytes."""
    return path.encode()


def encode_index(index: Index) -> bytes:
    """The payload's file `index`.

    Raises:
        BundleError: when it couldn't be read back, see `decode_index`.
    """
    check_index(index)
    data = _ENCODER.encode(index)
    if len(data) > _unpacked_limit(len(index.files)):
        raise _bad_index("too long")
    return zstandard.ZstdCompressor(level=19, write_checksum=False).compress(data)


def decode_index(data: bytes, *, content_size: int, file_count: int) -> Index:
    """Read an index and check all that can be checked without the torrent.

    Args:
        data: The file `index`.
        content_size: What the descriptor says.
        file_count: What the descriptor says.

    Raises:
        BundleError: `bundle.bad-index`, `bundle.newer-version`, or as `check_paths`.
    """
    raw = unpack_frame(data, limit=_unpacked_limit(file_count))
    try:
        if _VERSION_DECODER.decode(raw).v > VERSION:
            raise BundleError(
                "bundle.newer-version",
                N_("The bundle was made by a newer version of Cuntong: update this node."),
            )
        index = _DECODER.decode(raw)
    # msgspec lets bytes that aren't UTF-8 through to Python's own error.
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise _bad_index(str(error)) from None
    if len(index.files) != file_count or sum(file.size for file in index.files) != content_size:
        raise _bad_index("other sums than the descriptor's")
    check_index(index)
    return index


def check_index(index: Index) -> None:
    """Check that an index is sound in itself.

    Raises:
        BundleError: `bundle.bad-index`, or as `check_paths`.
    """
    check_paths((file.path for file in index.files), index.folders)
    _check_order([file.path for file in index.files])
    _check_order(list(index.folders))
    used = _check_packs(index)
    stored: dict[str, IndexFile] = {}
    for file in index.files:
        if file.size == 0:
            if file.root != EMPTY_ROOT or file.pack is not None or file.stored is not None:
                raise _bad_index("an empty file with content")
        elif file.pack is not None:
            if file.pack >= len(index.packs) or file.stored is not None:
                raise _bad_index("a file in no pack")
            if file.offset + file.size > index.packs[file.pack].size:
                raise _bad_index("a file beyond the end of its pack")
            used.add(file.pack)
        else:
            # The first file with this content stands for itself; later ones point at it.
            first = stored.setdefault(file.path, file) if file.stored == file.path else None
            first = first or stored.get(file.stored or "")
            if first is None or (first.size, first.root) != (file.size, file.root):
                raise _bad_index("a file that lies nowhere")
        if file.pack is None and file.offset:
            raise _bad_index("an offset without a pack")
    if len(used) != len(index.packs):
        raise _bad_index("a pack that nothing uses")


def _check_order(paths: list[str]) -> None:
    keys = [order_key(path) for path in paths]
    if any(left >= right for left, right in itertools.pairwise(keys)):
        raise _bad_index("paths out of order")


def _check_packs(index: Index) -> set[int]:
    """Check the packs; returns the numbers of those that are bases."""
    bases: set[int] = set()
    if len({pack.name for pack in index.packs}) != len(index.packs):
        raise _bad_index("two packs of one name")
    for pack in index.packs:
        if not _PACK_NAME.fullmatch(pack.name):
            raise _bad_index("a pack's name")
        if pack.base is not None:
            if pack.base >= len(index.packs) or index.packs[pack.base].base is not None:
                raise _bad_index("a pack's base")
            bases.add(pack.base)
    unpacked = sum(pack.size for pack in index.packs)
    content = sum(file.size for file in index.files)
    if unpacked > content * MAX_UNPACKED_RATIO + MAX_PACK_BYTES:
        raise _bad_index("packs much larger than the files")
    return bases


def check_payload(index: Index, torrent: Torrent) -> None:
    """Check that a torrent holds exactly what its index says.

    Raises:
        BundleError: `bundle.payload-mismatch`.
    """
    expected: dict[str, tuple[int, bytes] | None] = {INDEX_PATH: None}
    for file in index.files:
        if file.stored == file.path:
            expected[FILES_FOLDER + file.path] = (file.size, file.root)
    for pack in index.packs:
        expected[PACKS_FOLDER + pack.name] = None
    sound = expected.keys() == {entry.path for entry in torrent.files}
    for entry in torrent.files:
        if entry.path.startswith(PACKS_FOLDER):
            sound = sound and entry.path == PACKS_FOLDER + pack_name(entry.root)
        elif (what := expected.get(entry.path)) is not None:
            sound = sound and what == (entry.length, entry.root)
    if not sound:
        raise BundleError(
            "bundle.payload-mismatch",
            N_("The bundle's index and its torrent contradict each other."),
        )


def unpack_frame(data: bytes, *, limit: int, size: int | None = None, base: bytes = b"") -> bytes:
    """Unpack one zstd frame that states its size, and nothing but that (SPEC 1.4).

    Args:
        data: The frame.
        limit: The most bytes it may unpack to.
        size: Exactly how many it must unpack to, when known.
        base: Its dictionary, raw content.

    Raises:
        BundleError: `bundle.bad-frame`.
    """
    try:
        frame = zstandard.get_frame_parameters(data)
        stated = frame.content_size
        if stated > limit or (size is not None and stated != size) or frame.dict_id:
            raise _bad_frame()
        dictionary = (
            zstandard.ZstdCompressionDict(base, dict_type=zstandard.DICT_TYPE_RAWCONTENT)
            if base
            else None
        )
        # In one step the output is the window: a frame's own window size costs no memory.
        unpacked = zstandard.ZstdDecompressor(dict_data=dictionary).decompress(
            data, allow_extra_data=False
        )
    except zstandard.ZstdError:
        raise _bad_frame() from None
    if len(unpacked) != stated:
        raise _bad_frame()
    return unpacked


def _unpacked_limit(file_count: int) -> int:
    return min(1024 * 1024 + file_count * BYTES_PER_FILE, MAX_INDEX_BYTES)


def _bad_frame() -> BundleError:
    return BundleError("bundle.bad-frame", N_("Packed content is damaged or not what it says."))


def _bad_index(detail: str) -> BundleError:
    return BundleError(
        "bundle.bad-index", N_("The bundle's index is invalid: {detail}."), detail=detail
    )

"""BitTorrent v2 Merkle trees (BEP 52): SHA-256 over blocks of 16 KiB.

A file's root depends on its content alone, whatever the piece length. The hashes of the blocks are filled
up with zero hashes to a power of two. A *layer* is one level of the tree: one hash for each `span` bytes, as
far as there is content, joined. The piece layer is the one with `span = piece_length`. A file of one piece or
less has none: its root is over its own blocks only.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Sequence

from cuntong_protocol.texts import N_

from .errors import BundleError

BLOCK = 16 * 1024
HASH = 32
EMPTY_ROOT = bytes(HASH)
"""Stands for the root of an empty file, which has no tree."""
_STRIDE = 1024 * 1024
"""What is hashed before the hashes are joined; a multiple of a block."""


@functools.cache
def pad_hash(span: int) -> bytes:
    """The root over `span` bytes' worth of zero hashes, which fills a layer to a power of two."""
    if span == BLOCK:
        return bytes(HASH)
    below = pad_hash(span // 2)
    return hashlib.sha256(below + below).digest()


def leaf_hashes(data: bytes | memoryview) -> list[bytes]:
    """The hash of each block of 16 KiB; the last may be shorter."""
    view = memoryview(data)
    sha256 = hashlib.sha256
    return [sha256(view[start : start + BLOCK]).digest() for start in range(0, len(view), BLOCK)]


def merkle_root(hashes: Sequence[bytes], span: int = BLOCK) -> bytes:
    """The root over hashes of `span` bytes each, filled to a power of two; zero when there are none."""
    if not hashes:
        return EMPTY_ROOT
    wider_span = span << (len(hashes) - 1).bit_length()
    return reduce_hashes(hashes, span, wider_span)[0]


def reduce_hashes(hashes: Sequence[bytes], span: int, wider_span: int) -> list[bytes]:
    """The hashes of `wider_span` bytes each from those of `span` bytes each (powers of two)."""
    level = list(hashes)
    sha256 = hashlib.sha256
    while span < wider_span:
        if len(level) % 2:
            level.append(pad_hash(span))
        pairs = iter(level)
        level = [sha256(left + right).digest() for left, right in zip(pairs, pairs, strict=True)]
        span *= 2
    return level


def split_hashes(layer: bytes) -> list[bytes]:
    """A layer's hashes, one by one."""
    return [layer[start : start + HASH] for start in range(0, len(layer), HASH)]


def reduce_layer(layer: bytes, span: int, wider_span: int) -> bytes:
    """The layer of `wider_span` from that of `span`, for a file longer than `wider_span`."""
    return b"".join(reduce_hashes(split_hashes(layer), span, wider_span))


def piece_hash(data: bytes | memoryview, piece_length: int) -> bytes:
    """The hash that a piece layer holds for this piece; a short last piece is filled with zero hashes."""
    return reduce_hashes(leaf_hashes(data), BLOCK, piece_length)[0]


def verify_layer(root: bytes, layer: bytes, length: int, piece_length: int) -> None:
    """Check a piece layer against its file's root.

    Args:
        root: The file's root.
        layer: Its piece layer; empty for a file of one piece or less.
        length: The file's length in bytes.
        piece_length: In bytes.

    Raises:
        BundleError: `bundle.bad-layer`.
    """
    pieces = -(-length // piece_length) if length > piece_length else 0
    if len(layer) != pieces * HASH or (
        pieces and merkle_root(split_hashes(layer), piece_length) != root
    ):
        raise BundleError(
            "bundle.bad-layer", N_("The torrent's piece hashes don't belong to its files.")
        )


class FileHasher:
    """Hashes a file that arrives in any chunks.

    Memory: one hash a piece.
    """

    def __init__(self, piece_length: int) -> None:
        """Start a file; `piece_length` is a power of two and at least 16 KiB."""
        self._piece_length = piece_length
        self._pieces: list[bytes] = []
        self._leaves: list[bytes] = []
        self._rest = bytearray()
        self.length = 0

    def update(self, data: bytes | memoryview) -> None:
        """Take the next bytes."""
        view = memoryview(data)
        self.length += len(view)
        if self._rest:
            missing = BLOCK - len(self._rest)
            self._rest += view[:missing]
            view = view[missing:]
            if len(self._rest) < BLOCK:
                return
            self._add(leaf_hashes(bytes(self._rest)))
            self._rest.clear()
        whole = len(view) - len(view) % BLOCK
        for start in range(0, whole, _STRIDE):
            self._add(leaf_hashes(view[start : min(start + _STRIDE, whole)]))
        self._rest += view[whole:]

    def finish(self) -> tuple[bytes, bytes]:
        """The root and the piece layer (empty for a file of one piece or less). Call once."""
        self._add(leaf_hashes(bytes(self._rest)))
        if self.length <= self._piece_length:
            return merkle_root(self._leaves), b""
        if self._leaves:
            self._pieces += reduce_hashes(self._leaves, BLOCK, self._piece_length)
        return merkle_root(self._pieces, self._piece_length), b"".join(self._pieces)

    def _add(self, leaves: list[bytes]) -> None:
        self._leaves += leaves
        per_piece = self._piece_length // BLOCK
        # The first piece's blocks stay: a file that ends with it has no layer.
        while len(self._leaves) > per_piece or (self._pieces and len(self._leaves) == per_piece):
            piece, self._leaves = self._leaves[:per_piece], self._leaves[per_piece:]
            self._pieces.append(merkle_root(piece))


def hash_file(data: bytes | memoryview, piece_length: int) -> tuple[bytes, bytes]:
    """Root and piece layer of a file that is in memory."""
    hasher = FileHasher(piece_length)
    hasher.update(data)
    return hasher.finish()

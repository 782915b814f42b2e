"""BitTorrent v2 torrents (SPEC 3.4, BEP 52): exactly what we make, and nothing else is read.

A torrent comes from any neighbour, so the reader takes only the one encoding that `Torrent.encode` gives for
the same content. There is no room for trackers, web seeds or attributes that would lead a client outside.
v2 pads each file to a whole piece: no piece holds two files.

A *hybrid* torrent also carries what clients of BitTorrent v1 read: the same files as a list, with pad files
(BEP 47) where v2 pads, and a SHA-1 for each piece. The list follows from the v2 tree, so any other one is refused. The
SHA-1 hashes can't be told from the tree: the publisher makes each of content that has just passed its v2 check
(`v1_piece_hash`), and nodes check v2 alone.

A *closed* torrent, of a bundle with a restricted licence, names the publisher's swarm CA (SPEC 7.6): only those who show
a certificate of it can join. It is part of the info dictionary, so the infohash proves it.
"""

from __future__ import annotations

import base64
import binascii
import bisect
import functools
import hashlib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import accumulate

from cuntong_protocol.texts import N_

from . import bencode
from .bencode import Bencoded
from .errors import BundleError
from .merkle import BLOCK, HASH, leaf_hashes, merkle_root, piece_hash, verify_layer
from .paths import check_paths

MIN_PIECE_LENGTH = 32 * 1024
"""Small pieces let a village link of 512 kbit/s pass on what it has after half a second."""
MAX_PIECE_LENGTH = 8 * 1024 * 1024
"""Half a piece is the largest that a satellite block holds, and a piece lost costs two minutes."""
PIECES_AIMED_AT = 4000
"""128 kB of piece hashes in a torrent."""
MAX_PIECES = 1 << 20
"""32 MiB of piece hashes; libtorrent's own limit is twice that."""
MAX_TORRENT_FILES = 100_000
"""libtorrent's resume data refuses 200,000."""
MAX_HYBRID_FILES = 50_000
"""Each is in a hybrid torrent twice, with a pad file; clients refuse three million bencoded values."""
MAX_FILE_BYTES = 1 << 48
MAX_ROOT_CERTIFICATE_BYTES = 2048
"""A certificate of ours has about 600 bytes as PEM; room for another key type."""
SHA1 = 20
"""Bytes of a v1 piece hash."""

_PAD_FOLDER = ".pad/"
"""Where the pad files of a v1 list lie, by custom; nobody writes them."""
_NAME = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,62}[a-z0-9])?")
_PEM = re.compile(
    rb"-----BEGIN CERTIFICATE-----\n((?:[A-Za-z0-9+/]{64}\n)*[A-Za-z0-9+/]{1,64}={0,2}\n)"
    rb"-----END CERTIFICATE-----\n"
)
"""One certificate and nothing else, in the form that everybody writes (RFC 7468)."""


@dataclass(frozen=True, slots=True)
class TorrentFile:
    """One file of a torrent: its path below the torrent's name, its length in bytes, its v2 root."""

    path: str
    length: int
    root: bytes


@dataclass(frozen=True)
class Torrent:
    """A checked v2 torrent.

    Attributes:
        name: The folder that holds the files; the bundle's slug.
        piece_length: In bytes.
        files: In the v2 order; none is empty.
        infohash: SHA-256 of the info dictionary, 32 bytes.
        layers: Root to piece layer, for files longer than a piece.
        v1_pieces: In a hybrid torrent the SHA-1 of each piece, joined; else empty. Not proven by anything but the
            publisher's signature.
        root_certificate: In a closed torrent the publisher's swarm CA, PEM; else empty. Only its form is checked.
    """

    name: str
    piece_length: int
    files: tuple[TorrentFile, ...]
    infohash: bytes
    layers: Mapping[bytes, bytes]
    v1_pieces: bytes = b""
    root_certificate: bytes = b""

    def encode(self) -> bytes:
        """The `.torrent` file."""
        info = _info(
            self.name, self.piece_length, self.files, self.v1_pieces, self.root_certificate
        )
        return bencode.encode({b"info": info, b"piece layers": dict(self.layers)})

    @property
    def is_hybrid(self) -> bool:
        return bool(self.v1_pieces)

    @property
    def is_closed(self) -> bool:
        """Whether only those with a certificate of its CA can join."""
        return bool(self.root_certificate)

    @functools.cached_property
    def _piece_ends(self) -> tuple[int, ...]:
        return tuple(accumulate(-(-file.length // self.piece_length) for file in self.files))

    @functools.cached_property
    def _numbers(self) -> dict[str, int]:
        return {file.path: number for number, file in enumerate(self.files)}

    @property
    def piece_count(self) -> int:
        return self._piece_ends[-1]

    @property
    def payload_size(self) -> int:
        """Bytes of all files, without the padding that v2 only counts."""
        return sum(file.length for file in self.files)

    def file(self, path: str) -> TorrentFile | None:
        """The file with this path."""
        number = self._numbers.get(path)
        return None if number is None else self.files[number]

    def pieces_of(self, file: TorrentFile) -> range:
        """The pieces that hold this file, and nothing else."""
        number = self._numbers[file.path]
        return range(self._piece_ends[number - 1] if number else 0, self._piece_ends[number])

    def piece_place(self, piece: int) -> tuple[TorrentFile, int, int]:
        """Where a piece lies: its file, its offset there and its length in bytes."""
        if not 0 <= piece < self.piece_count:
            raise IndexError(piece)
        number = bisect.bisect_right(self._piece_ends, piece)
        file = self.files[number]
        first = self._piece_ends[number - 1] if number else 0
        offset = (piece - first) * self.piece_length
        return file, offset, min(self.piece_length, file.length - offset)

    def piece_hash(self, piece: int) -> bytes:
        """What the piece's content must hash to (see `check_piece`)."""
        file, offset, _ = self.piece_place(piece)
        if file.length <= self.piece_length:
            return file.root
        start = offset // self.piece_length * HASH
        return self.layers[file.root][start : start + HASH]

    def check_piece(self, piece: int, data: bytes | memoryview) -> None:
        """Check a piece's content.

        Raises:
            BundleError: `bundle.bad-piece`.
        """
        file, _, length = self.piece_place(piece)
        if len(data) == length:
            found = (
                merkle_root(leaf_hashes(data))
                if file.length <= self.piece_length
                else piece_hash(data, self.piece_length)
            )
            if found == self.piece_hash(piece):
                return
        raise BundleError(
            "bundle.bad-piece",
            N_("Piece {piece} of {path} is damaged."),
            piece=piece,
            path=file.path,
        )


@dataclass(frozen=True, slots=True)
class HashedFile:
    """A file with its root and its piece layer (empty when it is one piece or less)."""

    path: str
    length: int
    root: bytes
    layer: bytes


def piece_length_for(payload_size: int) -> int:
    """The piece length of a payload of this many bytes: a power of two, so that pieces stay few."""
    length = MIN_PIECE_LENGTH
    while length < MAX_PIECE_LENGTH and payload_size > length * PIECES_AIMED_AT:
        length *= 2
    return length


def torrent_size_limit(
    payload_size: int, piece_length: int, file_count: int, *, hybrid: bool = False
) -> int:
    """The most bytes that the `.torrent` of a bundle with these numbers can have.

    For whoever fetches one by its infohash: the numbers come from the signed descriptor. A torrent has at most
    as many files as the bundle, as many packs, and the index; 1 KiB is an ample path for each on average.
    """
    files = min(2 * file_count + 1, MAX_TORRENT_FILES)
    pieces = min(payload_size // piece_length + files, MAX_PIECES)
    if hybrid:
        return 65_536 + files * 2048 + pieces * (HASH + SHA1)
    return 65_536 + files * 1024 + pieces * HASH


def make_torrent(
    name: str, piece_length: int, files: Iterable[HashedFile], *, root_certificate: bytes = b""
) -> Torrent:
    """Make a torrent of files that were hashed with this piece length.

    Args:
        name: The bundle's slug.
        piece_length: In bytes.
        files: In any order.
        root_certificate: The publisher's swarm CA, PEM, for a closed torrent.

    Raises:
        BundleError: see `decode_torrent`.
    """
    ordered = sorted(files, key=lambda file: _order(file.path))
    entries = tuple(TorrentFile(file.path, file.length, file.root) for file in ordered)
    layers = {file.root: file.layer for file in ordered if file.layer}
    return _checked(
        name,
        piece_length,
        entries,
        dict(sorted(layers.items())),
        root_certificate=root_certificate,
    )


def make_hybrid(torrent: Torrent, v1_hashes: Iterable[bytes]) -> Torrent:
    """The hybrid torrent of the same files, which has another infohash.

    Args:
        torrent: Of v2 alone.
        v1_hashes: `v1_piece_hash` of each piece.

    Raises:
        BundleError: see `decode_torrent`.
    """
    return _checked(
        torrent.name, torrent.piece_length, torrent.files, torrent.layers, b"".join(v1_hashes)
    )


def v1_piece_hash(torrent: Torrent, piece: int, data: bytes | memoryview) -> bytes:
    """The SHA-1 of a piece with its padding, of content that passes its v2 check.

    Raises:
        BundleError: `bundle.bad-piece`.
    """
    torrent.check_piece(piece, data)
    # BEP 3 demands SHA-1; nothing of ours rests on it.
    found = hashlib.sha1(data, usedforsecurity=False)
    found.update(bytes(torrent.piece_length - len(data)))
    return found.digest()


def decode_torrent(data: bytes, *, infohash: bytes | None = None) -> Torrent:
    """Read a `.torrent` file that may come from anyone.

    Args:
        data: The file.
        infohash: The v2 infohash it must have, when one is known.

    Raises:
        BundleError: `bundle.bad-torrent`, `bundle.wrong-infohash`, `bundle.bad-layer`, or as `check_paths`.
    """
    match bencode.decode(data):
        case {b"info": dict(info), b"piece layers": dict(layers)}:
            pass
        case _:
            raise _bad_torrent()
    match info:
        case {b"file tree": dict(tree), b"name": bytes(raw_name), b"piece length": int(length)}:
            name = raw_name.decode(errors="replace")
        case _:
            raise _bad_torrent()
    match info:
        case {b"pieces": bytes(v1_pieces)}:
            pass
        case _:
            v1_pieces = b""
    match info:
        case {b"ssl-cert": bytes(root_certificate)}:
            pass
        case _:
            root_certificate = b""
    if not all(isinstance(layer, bytes) for layer in layers.values()):
        raise _bad_torrent()
    files = tuple(_walk(tree))
    torrent = _checked(name, length, files, layers, v1_pieces, root_certificate)  # type: ignore[arg-type]
    if infohash is not None and torrent.infohash != infohash:
        raise BundleError(
            "bundle.wrong-infohash", N_("The torrent isn't the one that was asked for.")
        )
    # One content has one encoding, and it has no place for anything else: not for a v1 list of other files either.
    if torrent.encode() != data:
        raise _bad_torrent()
    return torrent


def _walk(tree: dict[bytes, Bencoded]) -> list[TorrentFile]:
    files: list[TorrentFile] = []
    todo: list[tuple[bytes, Bencoded]] = [(b"", tree)]
    while todo:
        path, node = todo.pop()
        match node:
            case {b"": {b"length": int(length), b"pieces root": bytes(root)}}:
                try:
                    files.append(TorrentFile(path.decode(), length, root))
                except UnicodeDecodeError:
                    raise _bad_torrent() from None
            case dict() if node and b"" not in node:
                prefix = path + b"/" if path else b""
                todo.extend((prefix + part, node[part]) for part in sorted(node, reverse=True))
            case _:
                raise _bad_torrent()
    return files


def _checked(
    name: str,
    piece_length: int,
    files: tuple[TorrentFile, ...],
    layers: Mapping[bytes, bytes],
    v1_pieces: bytes = b"",
    root_certificate: bytes = b"",
) -> Torrent:
    if (
        not _NAME.fullmatch(name)
        or not BLOCK <= piece_length <= MAX_PIECE_LENGTH
        or piece_length.bit_count() != 1
        # With a single file some clients leave the folder out.
        or not 2 <= len(files) <= MAX_TORRENT_FILES
        or not all(1 <= file.length <= MAX_FILE_BYTES and len(file.root) == HASH for file in files)
        or (root_certificate and (v1_pieces or not _is_certificate(root_certificate)))
    ):
        raise _bad_torrent()
    check_paths(file.path for file in files)
    info = bencode.encode(_info(name, piece_length, files, v1_pieces, root_certificate))
    infohash = hashlib.sha256(info).digest()
    torrent = Torrent(name, piece_length, files, infohash, layers, v1_pieces, root_certificate)
    if torrent.piece_count > MAX_PIECES:
        raise _bad_torrent()
    if v1_pieces and (
        len(v1_pieces) != torrent.piece_count * SHA1
        or len(files) > MAX_HYBRID_FILES
        or any(file.path.startswith(_PAD_FOLDER) for file in files)
    ):
        raise _bad_torrent()
    needed = {file.root for file in files if file.length > piece_length}
    if needed != layers.keys():
        raise _bad_torrent()
    for file in files:
        if file.length > piece_length:
            verify_layer(file.root, layers[file.root], file.length, piece_length)
    return torrent


def _is_certificate(pem: bytes) -> bool:
    """Whether this is one certificate in PEM, as far as it can be told without reading it."""
    found = _PEM.fullmatch(pem) if len(pem) <= MAX_ROOT_CERTIFICATE_BYTES else None
    if found is None:
        return False
    text = found.group(1).replace(b"\n", b"")
    try:
        # Bits that stand for nothing would give one certificate several forms.
        return base64.b64encode(base64.b64decode(text, validate=True)) == text
    except binascii.Error:
        return False


def _info(
    name: str,
    piece_length: int,
    files: tuple[TorrentFile, ...],
    v1_pieces: bytes,
    root_certificate: bytes,
) -> dict[bytes, Bencoded]:
    tree: dict[bytes, Bencoded] = {}
    for file in files:
        node = tree
        for part in file.path.split("/"):
            node = node.setdefault(part.encode(), {})  # type: ignore[assignment]
        node[b""] = {b"length": file.length, b"pieces root": file.root}
    info: dict[bytes, Bencoded] = {
        b"file tree": tree,
        b"meta version": 2,
        b"name": name.encode(),
        b"piece length": piece_length,
        b"private": 1,
    }
    if v1_pieces:
        info |= {b"files": _v1_files(piece_length, files), b"pieces": v1_pieces}
    if root_certificate:
        info[b"ssl-cert"] = root_certificate
    return info


def _v1_files(piece_length: int, files: tuple[TorrentFile, ...]) -> list[Bencoded]:
    """The files in the order of the tree, each padded to a whole piece.

    The last one too: BEP 47 leaves it open, and this is what the authors' own program and libtorrent make.
    """
    found: list[Bencoded] = []
    for file in files:
        path: list[Bencoded] = [part.encode() for part in file.path.split("/")]
        found.append({b"length": file.length, b"path": path})
        padding = -file.length % piece_length
        if padding:
            pad_path: list[Bencoded] = [b".pad", b"%d" % padding]
            found.append({b"attr": b"p", b"length": padding, b"path": pad_path})
    return found


def _order(path: str) -> list[bytes]:
    """v2 walks the tree, so folders sort by their own names and not by whole paths."""
    return [part.encode() for part in path.split("/")]


def _bad_torrent() -> BundleError:
    return BundleError("bundle.bad-torrent", N_("The torrent is not one that Cuntong makes."))

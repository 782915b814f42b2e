"""What a sender puts on the air besides content: programme, manifests, catalogues (SPEC 11.6 to 11.8).

Each is an object: bytes that are cut into blocks like content. The beacon names the programme, the programme
everything else, each by first TOI, size and SHA-256.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from typing import Annotated, TypeVar

import msgspec
import zstandard

from cuntong_protocol.bundle.errors import BundleError
from cuntong_protocol.bundle.index import unpack_frame
from cuntong_protocol.texts import N_

from .errors import DatacastError

VERSION = 1
MAX_OBJECT_BYTES = 128 * 1024 * 1024
"""A catalogue of 500,000 bundles; the largest manifest has 34 MiB."""
MAX_PROGRAMME_BYTES = 8 * 1024 * 1024
"""Unpacked: 20,000 bundles with 400 bytes each."""
MAX_MANIFEST_BYTES = 48 * 1024 * 1024
"""Unpacked: the largest torrent, and hashes of half pieces."""
MAX_FRAME_BYTES = 8 * 1024 * 1024
"""Unpacked: what a receiver has in memory at once of a catalogue. The largest role has 5 MB."""
MAX_UNPACKED_FACTOR = 20
MIN_UNPACKED_BYTES = 64 * 1024 * 1024
"""A catalogue unpacks to no more than the larger of this and 20 times its size; ours to a tenth of that."""
FRAME_AIMED_AT = 1024 * 1024
MAX_FIRST_TOI = (1 << 31) - 1
"""Of an object's or bundle's first block; however many follow, they have numbers of 32 bits."""
MAX_BUNDLES = 20_000
MAX_AUTHORITIES = 8_192

_Hash = Annotated[bytes, msgspec.Meta(min_length=32, max_length=32)]
_Code = Annotated[str, msgspec.Meta(pattern=r"\A[0-9]{12}\Z", max_length=12)]
_Toi = Annotated[int, msgspec.Meta(ge=1, le=MAX_FIRST_TOI)]
_Time = Annotated[int, msgspec.Meta(ge=0, le=1 << 40)]

T = TypeVar("T")


class Ref(msgspec.Struct, frozen=True, kw_only=True):
    """An object on the air.

    Attributes:
        toi: Of its first block; the others follow.
        size: In bytes.
        sha256: Of all of it.
    """

    toi: _Toi
    size: Annotated[int, msgspec.Meta(ge=1, le=MAX_OBJECT_BYTES)]
    sha256: _Hash


class CatalogueEntry(msgspec.Struct, frozen=True, kw_only=True):
    """One authority's catalogue.

    Attributes:
        version: Of its timestamp.
        snapshot: All of it, as of some time.
        delta: What has changed since, if anything has.
    """

    authority: _Code
    version: Annotated[int, msgspec.Meta(ge=1, le=1 << 53)]
    snapshot: Ref
    delta: Ref | None = None


class BundleEntry(msgspec.Struct, frozen=True, kw_only=True):
    """One bundle on the air.

    Attributes:
        id: SPEC 3.1.
        infohash: Of its payload.
        size: Bytes of the payload.
        toi: Of its first block.
        manifest: How to read it.
        passes: How many passes are complete.
        begins: When the next pass begins, or the present one began; the sender's clock, seconds since 1970.
        ends: When that pass will be through.
        next: When the pass after that begins; 0: not planned.
    """

    id: Annotated[str, msgspec.Meta(max_length=90)]
    infohash: _Hash
    size: Annotated[int, msgspec.Meta(ge=1, le=1 << 50)]
    toi: _Toi
    manifest: Ref
    passes: Annotated[int, msgspec.Meta(ge=0, le=1 << 40)] = 0
    begins: _Time = 0
    ends: _Time = 0
    next: _Time = 0


class Programme(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that is on the air, or will be."""

    v: Annotated[int, msgspec.Meta(ge=1)] = VERSION
    made_at: _Time = 0
    catalogues: Annotated[tuple[CatalogueEntry, ...], msgspec.Meta(max_length=MAX_AUTHORITIES)] = ()
    bundles: Annotated[tuple[BundleEntry, ...], msgspec.Meta(max_length=MAX_BUNDLES)] = ()


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """How to read a bundle's blocks.

    Attributes:
        torrent: The `.torrent` file.
        halves: With pieces of 8 MiB: v2 root of each file beyond 4 MiB, and its layer of 4 MiB.
    """

    v: Annotated[int, msgspec.Meta(ge=1)] = VERSION
    torrent: bytes
    halves: dict[_Hash, bytes] = {}


class Item(msgspec.Struct, frozen=True, array_like=True):
    """A file of a catalogue: a name below the authority's metadata, or empty for a blob, and its bytes."""

    name: Annotated[str, msgspec.Meta(max_length=60)]
    data: bytes


class _Version(msgspec.Struct):
    v: Annotated[int, msgspec.Meta(ge=1)]


class _Base(msgspec.Struct, frozen=True, array_like=True):
    name: Annotated[str, msgspec.Meta(max_length=60)]
    sha256: _Hash


class CatalogueHead(msgspec.Struct, frozen=True, kw_only=True):
    """The beginning of a catalogue object.

    Attributes:
        authority: Whose it is.
        bases: Files, in this order, whose joined bytes are the dictionary of the frames: earlier versions of
            roles. Empty in a snapshot.
        frames: Bytes of each frame that follows.
    """

    v: Annotated[int, msgspec.Meta(ge=1)] = VERSION
    authority: _Code
    bases: Annotated[tuple[_Base, ...], msgspec.Meta(max_length=64)] = ()
    frames: Annotated[
        tuple[Annotated[int, msgspec.Meta(ge=1, le=MAX_FRAME_BYTES)], ...],
        msgspec.Meta(max_length=4096),
    ]


_ITEM_BYTES = 256
"""What an item takes in memory beside its data, for whoever reads it."""

_ENCODER = msgspec.msgpack.Encoder()
_ITEMS = msgspec.msgpack.Decoder(
    Annotated[list[Item], msgspec.Meta(max_length=FRAME_AIMED_AT // _ITEM_BYTES + 1)]
)
_HEAD_SIZE = 4


def check_object(ref: Ref, data: bytes) -> None:
    """Check that these bytes are the object that was named.

    Raises:
        DatacastError: `datacast.bad-object`.
    """
    if len(data) != ref.size or hashlib.sha256(data).digest() != ref.sha256:
        raise _bad_object("hash")


def encode_programme(programme: Programme) -> bytes:
    """A programme as it is cast."""
    return _pack(programme)


def decode_programme(data: bytes) -> Programme:
    """Read a programme.

    Raises:
        DatacastError: `datacast.bad-object`, `datacast.newer-version`.
    """
    return _unpack(data, Programme, MAX_PROGRAMME_BYTES)


def encode_manifest(manifest: Manifest) -> bytes:
    """A manifest as it is cast; equal ones give equal bytes."""
    return _pack(msgspec.structs.replace(manifest, halves=dict(sorted(manifest.halves.items()))))


def decode_manifest(data: bytes) -> Manifest:
    """Read a manifest; what its torrent says must still be checked against the bundle's descriptor.

    Raises:
        DatacastError: `datacast.bad-object`, `datacast.newer-version`.
    """
    return _unpack(data, Manifest, MAX_MANIFEST_BYTES)


def encode_catalogue(
    authority: str, items: Iterable[Item], bases: Iterable[tuple[str, bytes]] = ()
) -> bytes:
    """A catalogue of one authority.

    Args:
        authority: Its code.
        items: Its files, in the order in which a receiver should have them.
        bases: Name and content of files that every receiver of it has; at most 64.
    """
    known = list(bases)
    dictionary = zstandard.ZstdCompressionDict(
        b"".join(data for _, data in known), dict_type=zstandard.DICT_TYPE_RAWCONTENT
    )
    packer = zstandard.ZstdCompressor(level=12, dict_data=dictionary)
    frames: list[bytes] = []
    group: list[Item] = []
    size = 0
    for item in items:
        length = len(item.data) + _ITEM_BYTES
        if group and size + length > FRAME_AIMED_AT:
            frames.append(packer.compress(_ENCODER.encode(group)))
            group, size = [], 0
        group.append(item)
        size += length
    if group:
        frames.append(packer.compress(_ENCODER.encode(group)))
    head = _ENCODER.encode(
        CatalogueHead(
            authority=str(authority),
            bases=tuple(_Base(name, hashlib.sha256(data).digest()) for name, data in known),
            frames=tuple(len(frame) for frame in frames),
        )
    )
    return b"".join([len(head).to_bytes(_HEAD_SIZE, "big"), head, *frames])


def catalogue_head(data: bytes, authority: str) -> CatalogueHead:
    """The beginning of a catalogue object.

    Args:
        data: All of it.
        authority: Whose it must be.

    Raises:
        DatacastError: `datacast.bad-object`, `datacast.newer-version`.
    """
    end = _HEAD_SIZE + int.from_bytes(data[:_HEAD_SIZE], "big")
    head = _decode(data[_HEAD_SIZE:end], CatalogueHead)
    if head.authority != authority or end + sum(head.frames) != len(data):
        raise _bad_object("catalogue")
    return head


def catalogue_items(data: bytes, head: CatalogueHead, bases: Mapping[str, bytes]) -> Iterator[Item]:
    """The files of a catalogue, one frame in memory at a time.

    Args:
        data: The whole object.
        head: Its beginning.
        bases: Content of every file that it names as a base, whose hashes the caller has checked.

    Raises:
        DatacastError: `datacast.bad-object`.
    """
    dictionary = b"".join(bases[base.name] for base in head.bases)
    room = _room(data)
    start = len(data) - sum(head.frames)
    for size in head.frames:
        frame = _unpacked(data[start : start + size], min(MAX_FRAME_BYTES, room), dictionary)
        room -= len(frame)
        yield from _items(frame)
        start += size


def snapshot_frame(
    data: bytes, head: CatalogueHead, number: int, *, max_bytes: int = MAX_FRAME_BYTES
) -> list[Item]:
    """The files in one frame of a snapshot.

    Args:
        data: The whole object.
        head: Its beginning.
        number: Of the frame, from 0.
        max_bytes: That it may have unpacked, beside the limit for every frame.

    Raises:
        DatacastError: `datacast.bad-object`; the other frames may be sound.
    """
    start = len(data) - sum(head.frames[number:])
    packed = data[start : start + head.frames[number]]
    return _items(_unpacked(packed, min(MAX_FRAME_BYTES, max_bytes)))


def _room(data: bytes) -> int:
    return max(MIN_UNPACKED_BYTES, MAX_UNPACKED_FACTOR * len(data))


def _items(frame: bytes) -> list[Item]:
    try:
        items: list[Item] = _ITEMS.decode(frame)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise _bad_object(str(error)) from None
    return items


def _pack(value: msgspec.Struct) -> bytes:
    return zstandard.ZstdCompressor(level=12).compress(_ENCODER.encode(value))


def _unpack(data: bytes, kind: type[T], limit: int) -> T:
    return _decode(_unpacked(data, limit), kind)


def _unpacked(data: bytes, limit: int, base: bytes = b"") -> bytes:
    try:
        return unpack_frame(data, limit=limit, base=base)
    except BundleError as error:
        raise _bad_object(error.code) from None


def _decode(data: bytes, kind: type[T]) -> T:
    try:
        if msgspec.msgpack.decode(data, type=_Version).v > VERSION:
            raise DatacastError(
                "datacast.newer-version",
                N_("The satellite's sender has a newer version of Cuntong: update this node."),
            )
        return msgspec.msgpack.decode(data, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise _bad_object(str(error)) from None


def _bad_object(detail: str) -> DatacastError:
    return DatacastError(
        "datacast.bad-object",
        N_("Something that came from the satellite is invalid: {detail}."),
        detail=detail,
    )

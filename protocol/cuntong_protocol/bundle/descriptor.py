"""The descriptor: the small signed file that stands for a bundle (SPEC 3.3).

It is the target of the trust layer, so its bytes are what a publisher signs; the v2 infohash in it leads to
every byte of the payload.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Annotated

import msgspec

from cuntong_protocol.divisions import Division
from cuntong_protocol.texts import N_

from .errors import BundleError
from .metadata import SLUG_PATTERN, Metadata, check_metadata

VERSION = 1
MAX_DESCRIPTOR_BYTES = 64 * 1024
"""Ten times a descriptor with every field in use; a catalogue has 10,000 of them."""

Hash = Annotated[bytes, msgspec.Meta(min_length=32, max_length=32)]
Count = Annotated[int, msgspec.Meta(ge=1, le=1 << 50)]
Revision = Annotated[int, msgspec.Meta(ge=1, le=1_000_000)]

_CODE = re.compile(r"[0-9]{12}")
_MONTH = re.compile(r"20[0-9]{2}(0[1-9]|1[0-2])")
_SLUG = re.compile(SLUG_PATTERN)


@dataclass(frozen=True, slots=True, order=True)
class BundleId:
    """`<code>/<yyyymm>/<slug>`: who published it, in which month first, under what name."""

    code: Division
    month: str
    slug: str

    def __post_init__(self) -> None:
        """Check the parts, so that the id is safe as a path and as a target name.

        Raises:
            BundleError: `bundle.bad-id`.
        """
        if not _MONTH.fullmatch(self.month) or not _SLUG.fullmatch(self.slug):
            raise _bad_id(str(self))

    def __str__(self) -> str:
        return f"{self.code}/{self.month}/{self.slug}"


def parse_bundle_id(text: str) -> BundleId:
    """Read an id; nothing but the exact form is taken.

    Raises:
        BundleError: `bundle.bad-id`.
    """
    code, _, rest = text.partition("/")
    month, _, slug = rest.partition("/")
    if not _CODE.fullmatch(code):
        raise _bad_id(text)
    return BundleId(Division(code), month, slug)


class Supersedes(msgspec.Struct, frozen=True):
    """The revision before.

    Attributes:
        revision: Its number.
        sha256: Of its descriptor.
        infohash: Of its payload.
    """

    revision: Revision
    sha256: Hash
    infohash: Hash


class Descriptor(msgspec.Struct, frozen=True, kw_only=True):
    """A bundle.

    Attributes:
        v: Version of the format.
        id: As `parse_bundle_id` reads.
        revision: From 1.
        metadata: What the publisher says about it.
        infohash: v2, 32 bytes.
        piece_length: Of the torrent, in bytes.
        payload_size: Bytes of all files of the torrent.
        content_size: Bytes of all files of the bundle as the public sees it.
        file_count: Of these files.
        supersedes: The revision before, or None.
    """

    v: int = VERSION
    id: str
    revision: Revision
    metadata: Metadata
    infohash: Hash
    piece_length: Annotated[int, msgspec.Meta(ge=16 * 1024, le=8 * 1024 * 1024)]
    payload_size: Count
    content_size: Count
    file_count: Annotated[int, msgspec.Meta(ge=1, le=1_000_000)]
    supersedes: Supersedes | None = None

    @property
    def bundle_id(self) -> BundleId:
        return parse_bundle_id(self.id)


class _Version(msgspec.Struct):
    v: int


_ENCODER = msgspec.msgpack.Encoder(order="deterministic")
_DECODER = msgspec.msgpack.Decoder(Descriptor)
_VERSION_DECODER = msgspec.msgpack.Decoder(_Version)


def encode_descriptor(descriptor: Descriptor) -> bytes:
    """The bytes that are signed; equal descriptors give equal bytes.

    Raises:
        BundleError: when it couldn't be read back, see `decode_descriptor`.
    """
    data = _ENCODER.encode(descriptor)
    decode_descriptor(data)
    return data


def decode_descriptor(data: bytes, *, expected_id: str | BundleId | None = None) -> Descriptor:
    """Read a descriptor. It is signed, but perhaps by someone who wishes ill: everything is checked.

    Args:
        data: Its bytes.
        expected_id: The path under which it was listed, when there is one.

    Raises:
        BundleError: `bundle.bad-descriptor`, `bundle.newer-version`, `bundle.wrong-id`, `bundle.bad-id`, or the
            codes of `check_metadata`.
    """
    if len(data) > MAX_DESCRIPTOR_BYTES:
        raise _bad_descriptor("too long")
    try:
        if _VERSION_DECODER.decode(data).v > VERSION:
            raise BundleError(
                "bundle.newer-version",
                N_("The bundle was made by a newer version of Cuntong: update this node."),
            )
        descriptor = _DECODER.decode(data)
    # msgspec lets bytes that aren't UTF-8 through to Python's own error.
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise _bad_descriptor(str(error)) from None
    bundle_id = descriptor.bundle_id
    if expected_id is not None and descriptor.id != str(expected_id):
        raise BundleError(
            "bundle.wrong-id",
            N_("The descriptor of {id} was listed as {expected}."),
            id=descriptor.id,
            expected=str(expected_id),
        )
    supersedes = descriptor.supersedes
    if (
        descriptor.v < 1
        or descriptor.metadata.slug != bundle_id.slug
        or descriptor.piece_length.bit_count() != 1
        or (supersedes is None) != (descriptor.revision == 1)
        or (supersedes is not None and supersedes.revision >= descriptor.revision)
    ):
        raise _bad_descriptor("fields contradict each other")
    check_metadata(descriptor.metadata, publisher=bundle_id.code)
    return descriptor


def _bad_id(text: str) -> BundleError:
    return BundleError(
        "bundle.bad-id",
        N_("{id} is not a bundle's id: it looks like 441900000000/202703/spring-opera."),
        id=text,
    )


def _bad_descriptor(detail: str) -> BundleError:
    return BundleError(
        "bundle.bad-descriptor", N_("The bundle's descriptor is invalid: {detail}."), detail=detail
    )

"""How an object is packed for the way, and taken apart again without trust (SPEC 6.3, 1.4).

Pure functions that take as long as zstd does: call them in a thread when the object is large.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import zstandard

from cuntong_protocol.texts import N_

from .errors import LinkError
from .messages import Encoding, ObjectHead

FORM_BYTES = 8
_LEVEL = 19
_LARGE_BYTES = 4 * 1024 * 1024
"""Above this zstd's best level takes more than about three seconds of a core."""
_LARGE_LEVEL = 9
_MAX_WINDOW_BYTES = 64 * 1024 * 1024
"""Twice the largest object: no honest frame asks for more memory."""


@dataclass(frozen=True, slots=True)
class Encoded:
    """An object in the form in which it travels. `form` and `sha256` are as in `ObjectHead`."""

    size: int
    sha256: bytes
    encoding: Encoding
    form: bytes
    data: bytes


def encode_object(data: bytes, base: bytes | None = None) -> Encoded:
    """Choose the shortest of: as it is, zstd, zstd against `base`.

    The same bytes, base and version of zstd give the same form.
    """
    level = _LEVEL if len(data) <= _LARGE_BYTES else _LARGE_LEVEL
    if base:
        encoding = Encoding.PATCH
        dictionary = zstandard.ZstdCompressionDict(base, dict_type=zstandard.DICT_TYPE_RAWCONTENT)
        packed = zstandard.ZstdCompressor(level=level, dict_data=dictionary).compress(data)
    else:
        encoding = Encoding.ZSTD
        packed = zstandard.ZstdCompressor(level=level).compress(data)
    if len(packed) >= len(data):
        encoding, packed = Encoding.PLAIN, data
    form = hashlib.sha256(packed).digest()[:FORM_BYTES]
    return Encoded(len(data), hashlib.sha256(data).digest(), encoding, form, packed)


def decode_object(head: ObjectHead, encoded: bytes, *, max_bytes: int, base: bytes | None) -> bytes:
    """The object, proven to be the one that `head` names.

    Args:
        head: The head of the transfer.
        encoded: The whole encoded form.
        max_bytes: The asker's limit; nothing larger is unpacked.
        base: The object that the asker named as dictionary.

    Raises:
        LinkError: `link.bad-object`.
    """
    if head.size > max_bytes or len(encoded) != head.encoded_size:
        raise bad_object()
    if head.encoding is Encoding.PLAIN:
        data = encoded
    else:
        data = _unpack(encoded, head.size, base if head.encoding is Encoding.PATCH else None)
    if len(data) != head.size or hashlib.sha256(data).digest() != head.sha256:
        raise bad_object()
    return data


def _unpack(encoded: bytes, size: int, base: bytes | None) -> bytes:
    dictionary = zstandard.ZstdCompressionDict(
        base or b"", dict_type=zstandard.DICT_TYPE_RAWCONTENT
    )
    unpacker = zstandard.ZstdDecompressor(dict_data=dictionary, max_window_size=_MAX_WINDOW_BYTES)
    try:
        if zstandard.get_frame_parameters(encoded).content_size != size:
            raise bad_object()
        return unpacker.decompress(
            encoded, max_output_size=size, read_across_frames=False, allow_extra_data=False
        )
    except zstandard.ZstdError as error:
        raise bad_object() from error


def bad_object() -> LinkError:
    """What to raise when received bytes don't make the object that was asked for."""
    return LinkError(
        "link.bad-object", N_("The other end sent an object that isn't what was asked for.")
    )

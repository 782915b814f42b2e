"""Bencoding (BEP 3), strict: one value has one encoding, and only that is read."""

from __future__ import annotations

import re
from typing import TypeAlias, Union

from cuntong_protocol.texts import N_

from .errors import BundleError

MAX_DEPTH = 80
"""Folders of a torrent's file tree and the dictionaries around them; keeps recursion bounded."""

Bencoded: TypeAlias = Union[int, bytes, "list[Bencoded]", "dict[bytes, Bencoded]"]

# 18 digits always fit 64 bits.
_INTEGER = re.compile(rb"i(0|-?[1-9][0-9]{0,17})e")
_LENGTH = re.compile(rb"(0|[1-9][0-9]{0,9}):")


def encode(value: Bencoded) -> bytes:
    """Encode; dictionaries are sorted by key."""
    parts: list[bytes] = []
    _encode(value, parts)
    return b"".join(parts)


def _encode(value: Bencoded, parts: list[bytes]) -> None:
    match value:
        case int():
            parts.append(b"i%de" % value)
        case bytes():
            parts.append(b"%d:" % len(value))
            parts.append(value)
        case list():
            parts.append(b"l")
            for item in value:
                _encode(item, parts)
            parts.append(b"e")
        case dict():
            parts.append(b"d")
            for key in sorted(value):
                _encode(key, parts)
                _encode(value[key], parts)
            parts.append(b"e")


def decode(data: bytes) -> Bencoded:
    """Decode exactly one value.

    Raises:
        BundleError: `bundle.bad-bencoding` for anything that `encode` wouldn't write.
    """
    value, end = _decode(data, 0, 0)
    if end != len(data):
        raise _bad(end)
    return value


def _decode(data: bytes, at: int, depth: int) -> tuple[Bencoded, int]:
    if depth > MAX_DEPTH:
        raise _bad(at)
    match data[at : at + 1]:
        case b"i":
            found = _INTEGER.match(data, at)
            if found is None:
                raise _bad(at)
            return int(found[1]), found.end()
        case b"l":
            items: list[Bencoded] = []
            at += 1
            while data[at : at + 1] != b"e":
                item, at = _decode(data, at, depth + 1)
                items.append(item)
            return items, at + 1
        case b"d":
            table: dict[bytes, Bencoded] = {}
            last: bytes | None = None
            at += 1
            while data[at : at + 1] != b"e":
                key, value_at = _decode_bytes(data, at)
                if last is not None and key <= last:
                    raise _bad(at)
                table[key], at = _decode(data, value_at, depth + 1)
                last = key
            return table, at + 1
        case _:
            return _decode_bytes(data, at)


def _decode_bytes(data: bytes, at: int) -> tuple[bytes, int]:
    found = _LENGTH.match(data, at)
    if found is None:
        raise _bad(at)
    start = found.end()
    end = start + int(found[1])
    if end > len(data):
        raise _bad(at)
    return data[start:end], end


def _bad(at: int) -> BundleError:
    return BundleError(
        "bundle.bad-bencoding", N_("The torrent is damaged at byte {offset}."), offset=at
    )

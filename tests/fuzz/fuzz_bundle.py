"""Fuzz target for everything of a bundle that comes from another node.

Invariant: whatever the bytes, each reader either raises `BundleError` or returns a value that is sound: written
again and read again it is the same; a torrent is written as the very bytes it was read from; an index passes its own check;
an unpacked pack has the size that was asked for. No other exception escapes, and no reader unpacks more
than its limit.

`target(data)` takes any bytes. Run it longer with `python -m tests.fuzz.fuzz_bundle SECONDS [SEED]`.
"""

from __future__ import annotations

import random
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import zstandard

from cuntong_protocol.bundle.descriptor import decode_descriptor, encode_descriptor
from cuntong_protocol.bundle.errors import BundleError
from cuntong_protocol.bundle.index import check_index, decode_index, encode_index, unpack_frame
from cuntong_protocol.bundle.metadata import parse_metadata
from cuntong_protocol.bundle.packing import unpack_pack
from cuntong_protocol.bundle.torrent import decode_torrent
from cuntong_protocol.divisions import Division

VECTORS = Path(__file__).parent.parent / "vectors" / "bundle"
METADATA = b"""title = "T"
slug = "t"
date = 2027-03-01
[terms]
subject = ["a", "b"]
[audience]
scope = ["4419"]
[release]
name = "r"
[release.deadlines]
county = 2027-05-01
"""


def read_descriptor(data: bytes) -> None:
    descriptor = decode_descriptor(data)
    assert decode_descriptor(encode_descriptor(descriptor)) == descriptor


def read_torrent(data: bytes) -> None:
    torrent = decode_torrent(data)
    assert torrent.encode() == data
    assert torrent.piece_count >= len(torrent.files)


def read_index(data: bytes) -> None:
    try:
        raw = unpack_frame(data, limit=1 << 20)
        files = msgspec.msgpack.decode(raw)["files"]
        sums = (sum(file[1] for file in files), len(files))
    except (BundleError, msgspec.DecodeError, ValueError, LookupError, TypeError):
        sums = (1, 1)
    index = decode_index(data, content_size=sums[0], file_count=sums[1])
    check_index(index)
    assert decode_index(encode_index(index), content_size=sums[0], file_count=sums[1]) == index


def read_raw_index(data: bytes) -> None:
    """The same behind the compression, where mutations of the index itself arrive."""
    read_index(zstandard.ZstdCompressor(level=1).compress(data))


def read_pack(data: bytes) -> None:
    assert len(unpack_pack(data, 1000)) == 1000


def read_metadata(data: bytes) -> None:
    parse_metadata(data.decode(errors="replace"), file="m", publisher=Division("440000000000"))


READERS: tuple[Callable[[bytes], None], ...] = (
    read_descriptor,
    read_torrent,
    read_index,
    read_raw_index,
    read_pack,
    read_metadata,
)


def target(data: bytes) -> int:
    """Give the bytes to every reader; returns how many took them."""
    taken = 0
    for read in READERS:
        try:
            read(data)
        except BundleError as error:
            str(error).encode()
        else:
            taken += 1
    return taken


def seeds() -> list[bytes]:
    """Good files to start from."""
    good = [(VECTORS / f"good.{kind}").read_bytes() for kind in ("descriptor", "torrent", "index")]
    raw = zstandard.ZstdDecompressor().decompress(good[2])
    return [*good, raw, zstandard.ZstdCompressor().compress(bytes(1000)), METADATA]


def mutations(seed: int) -> Iterator[bytes]:
    """Endless bytes that are nearly good; the same for a seed."""
    chance = random.Random(seed)  # Reproducible.
    good = seeds()
    while True:
        data = bytearray(chance.choice(good))
        for _ in range(chance.choice((1, 1, 1, 2, 5))):
            at = chance.randrange(len(data) + 1)
            match chance.randrange(6):
                case 0:
                    data[at : at + 1] = bytes([chance.randrange(256)])
                case 1 if at < len(data):
                    data[at] ^= 1 << chance.randrange(8)
                case 2:
                    del data[at : at + chance.choice((1, 2, 8, 100))]
                case 3:
                    data[at:at] = data[at : at + chance.choice((1, 4, 40))]
                case 4:
                    data[at:at] = chance.choice(
                        (b"\0", b"\xff\xff", b"/..", b"i0e", b"\xc0", b"99999:")
                    )
                case 5:
                    other = chance.choice(good)
                    start = chance.randrange(len(other))
                    data[at : at + 20] = other[start : start + 20]
        yield bytes(data)


def main() -> None:
    seconds, seed = float(sys.argv[1]), int((*sys.argv, "0")[2])
    end = time.monotonic() + seconds
    for number, data in enumerate(mutations(seed)):
        try:
            target(data)
        except BaseException:
            sys.stderr.write(f"seed {seed}, number {number}: {data!r}\n")
            raise
        if time.monotonic() > end:
            sys.stdout.write(f"{number + 1} inputs, nothing found\n")
            return


if __name__ == "__main__":
    main()

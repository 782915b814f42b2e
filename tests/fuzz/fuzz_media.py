"""Fuzz target for what comes by post and may be anybody's: the papers of a volume, receipts, and names on a medium.

Invariant: whatever the bytes, each reader either raises `MediaError`, or says that it is none of ours, or returns a value that
is sound. A volume's and a receipt's values are within the limits of SPEC 12.3 and 12.6 and can be written, signed and read
again as the same; a receipt that passes was signed by the key in it; what a name says is written as the very same name.
No other exception escapes.

`target(data)` takes any bytes. Run it longer with `python -m tests.fuzz.fuzz_media SECONDS [SEED]`.
"""

from __future__ import annotations

import random
import sys
import time
from collections.abc import Callable, Iterator

import msgspec

from cuntong_protocol.divisions import Division
from cuntong_protocol.enrolment import load_public_key
from cuntong_protocol.enrolment import verify as verify_signature
from cuntong_protocol.media.errors import MediaError
from cuntong_protocol.media.layout import (
    MAX_COMPONENT_UNITS,
    is_portable,
    parse_part,
    parse_volume_folder,
    volume_folder,
)
from cuntong_protocol.media.papers import (
    MAX_PLACES,
    MAX_QR_CHARS,
    MAX_SETS,
    MAX_VOLUME_BUNDLES,
    SHORT,
    check_volume,
    decode_receipt,
    decode_volume,
    encode_volume,
    is_receipt,
    receipt_qr_text,
    receipt_text,
    sign_receipt,
)
from tests.vectors.media import make
from tests.vectors.media.make import CHAIN, HERE, KEY, RECEIPT, VOLUME

Taken = bool


def read_volume(data: bytes) -> Taken:
    volume, signed = decode_volume(data)
    assert 1 <= volume.number <= volume.count
    assert len(volume.places) <= MAX_PLACES
    assert len(volume.bundles) <= MAX_VOLUME_BUNDLES
    for code in (volume.by, *volume.places):
        Division(code)
    assert parse_volume_folder(volume_folder(volume.serial, volume.number)) is not None
    again, resigned = decode_volume(encode_volume(volume, KEY, signed.chain))
    assert again == volume
    check_volume(resigned, KEY.public_key())
    return True


def read_volume_body(data: bytes) -> Taken:
    """The same behind a good signature, where mutations of the body arrive."""
    return read_volume(make.volume(data))


def read_receipt(data: bytes) -> Taken:
    receipt, signed = decode_receipt(data.decode("utf-8", "replace"))
    verify_signature(
        load_public_key(signed.public_key), signed.signature, make.RECEIPT_CONTEXT + signed.body
    )
    Division(receipt.code)
    assert len(receipt.sets) <= MAX_SETS
    assert all(len(short) == SHORT for short in receipt.holdings)
    resigned = sign_receipt(receipt, KEY, signed.chain)
    assert decode_receipt(receipt_text(resigned)) == (receipt, resigned)
    code = receipt_qr_text(resigned)
    assert code is None or len(code) <= MAX_QR_CHARS
    return is_receipt(data)


def read_receipt_bytes(data: bytes) -> Taken:
    """The same behind base32."""
    return read_receipt(make.as_text(data))


def read_receipt_body(data: bytes) -> Taken:
    """The same behind a good signature."""
    return read_receipt(make.receipt(data))


def read_folder(data: bytes) -> Taken:
    name = data.decode("utf-8", "surrogateescape")
    found = parse_volume_folder(name)
    assert found is None or volume_folder(*found) == name
    return found is not None


def read_part(data: bytes) -> Taken:
    file, _, piece = data.decode("utf-8", "surrogateescape").partition("/")
    found = parse_part(file, piece)
    assert found is None or (str(found[0]), str(found[1])) == (file, piece)
    return found is not None


def read_path(data: bytes) -> Taken:
    path = data.decode("utf-8", "replace")
    is_good = is_portable(path)
    if is_good:
        assert not set(path) & set('"*:<>?|%')
        units = (len(part.encode("utf-16-le")) // 2 for part in path.split("/"))
        assert max(units) <= MAX_COMPONENT_UNITS
    return is_good


READERS: tuple[Callable[[bytes], Taken], ...] = (
    read_volume,
    read_volume_body,
    read_receipt,
    read_receipt_bytes,
    read_receipt_body,
    read_folder,
    read_part,
    read_path,
)


def target(data: bytes) -> set[str]:
    """Give the bytes to every reader; returns the names of those that took them."""
    taken = set()
    for read in READERS:
        try:
            if read(data):
                taken.add(read.__name__)
        except MediaError as error:
            str(error).encode()
    return taken


def seeds() -> list[bytes]:
    """Good ones to start from."""
    signed = sign_receipt(RECEIPT, KEY, CHAIN)
    return [
        encode_volume(VOLUME, KEY, CHAIN),
        make.packed(make.fields(VOLUME)),
        receipt_text(signed).encode(),
        (receipt_qr_text(signed) or "").encode(),
        msgspec.msgpack.encode(signed),
        make.packed(make.fields(RECEIPT)),
        volume_folder("abcdefgh27", 12).encode(),
        b"12/345",
        "files/杜甫/登高 (1).txt".encode(),
        *((HERE / make.file_of(name)).read_bytes() for name in make.good()),
    ]


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
                        (b"\0", b"\xff\xff", b"\xdd\xff\xff\xff\xff", b"\xc0", b"\xcb", b"\n", b"A" * 8,
                         b"\x91" * 2000, b"\xcf" + b"\xff" * 8, "１".encode(), b"CUNTONG:", b"\xed\xa0\x80")
                    )  # fmt: skip
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

"""Makes the vectors of this folder: `python -m tests.vectors.datacast.make` (see README.md)."""

from __future__ import annotations

import base64
import hashlib
import json
import struct
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import msgspec
import zstandard
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from cuntong_protocol.datacast.flute import FluteObject
from cuntong_protocol.datacast.objects import (
    MAX_BUNDLES,
    MAX_FIRST_TOI,
    MAX_FRAME_BYTES,
    MAX_MANIFEST_BYTES,
    MAX_PROGRAMME_BYTES,
    BundleEntry,
    CatalogueEntry,
    CatalogueHead,
    Item,
    Manifest,
    Programme,
    Ref,
    catalogue_head,
    catalogue_items,
    decode_manifest,
    decode_programme,
    encode_catalogue,
    encode_programme,
)
from cuntong_protocol.datacast.packets import (
    MAX_ESI,
    MAX_SESSION,
    MAX_TOI,
    SIGNATURE_BYTES,
    SYMBOL_BYTES,
    Beacon,
    Channel,
    Codepoint,
    Header,
    Segment,
    Symbol,
    beacon_packet,
    check_beacon,
    digest,
    digest_packet,
    filler_packet,
    identity_packet,
    peek_beacon,
    read_digests,
    read_header,
    read_identity,
    read_symbol,
    symbol_packet,
)
from tests.support.payloads import random_bytes

HERE = Path(__file__).parent
BUNDLE_VECTORS = HERE.parent / "bundle"

KEY = Ed25519PrivateKey.from_private_bytes(b"the sender's key, known to all!!")
OTHER_KEY = Ed25519PrivateKey.from_private_bytes(b"a forger's key, known to all!!!!")
CONTEXT = b"cuntong datacast 1\0"
"""What signatures begin with; it isn't on the wire."""

SESSION = 0x0123456
AUTHORITY = "440000000000"
PEM = (BUNDLE_VECTORS / "swarm-ca.pem").read_bytes()
CERTIFICATE = base64.b64decode(b"".join(PEM.splitlines()[1:-1]))
"""Any certificate will do: nothing in a packet tells whose it is."""
SYMBOL = random_bytes(SYMBOL_BYTES, 44)

Made = tuple[bytes, Any]
"""Bytes, and what they say: a value, or the reason why they are refused."""


def sign(data: bytes) -> bytes:
    """The sender's signature."""
    return KEY.sign(data)


def verify(data: bytes, signature: bytes) -> bool:
    """Whether a signature is the sender's."""
    try:
        KEY.public_key().verify(signature, data)
    except InvalidSignature:
        return False
    return True


def read(name: str, data: bytes) -> object:
    """What a vector says; the name's first word tells what it is.

    Raises:
        BadPacketError: as a reader of packets.
        DatacastError: as a reader of objects.
    """
    match name.partition("-")[0]:
        case "programme":
            return decode_programme(data)
        case "manifest":
            return decode_manifest(data)
        case "snapshot":
            return read_catalogue(data, {})
        case "delta":
            return read_catalogue(data, dict(BASES))
        case _:
            return read_packet(data)


def read_packet(data: bytes) -> object:
    """What a packet says, all checks made."""
    header = read_header(data)
    match header.codepoint:
        case Codepoint.SYMBOL:
            return read_symbol(data)
        case Codepoint.DIGESTS:
            return read_digests(data, verify)
        case Codepoint.BEACON:
            beacon = peek_beacon(data)
            check_beacon(data, verify)
            return beacon
        case Codepoint.IDENTITY:
            return read_identity(data)
        case Codepoint.FILLER:
            return header


def read_catalogue(data: bytes, bases: Mapping[str, bytes]) -> object:
    """What a catalogue says: bases, number of frames, files."""
    found = catalogue_head(data, AUTHORITY)
    named = [(base.name, base.sha256.hex()) for base in found.bases]
    return named, len(found.frames), summary(catalogue_items(data, found, bases))


def summary(items: Iterable[Item]) -> list[tuple[str, int, str]]:
    """Names, sizes and hashes of a catalogue's files."""
    return [(it.name, len(it.data), hashlib.sha256(it.data).hexdigest()) for it in items]


# Packets.

GOOD_SYMBOL = symbol_packet(SESSION, Channel.CONTENT, 0x89ABCDEF, 3121, SYMBOL)
SEGMENTS = [
    Segment(Channel.CONTENT, 1000, 3121, tuple(digest(b"content%d" % n) for n in range(32))),
    Segment(Channel.CATALOGUE, 7, 0, tuple(digest(b"catalogue%d" % n) for n in range(3))),
    Segment(Channel.MANIFEST, MAX_TOI, MAX_ESI, (digest(b"manifest"),)),
]
FULL_SEGMENTS = [
    Segment(Channel.CONTENT, 1000 + n, 8 * n, tuple(digest(b"%d.%d" % (n, m)) for m in range(8)))
    for n in range(8)
]
BEACON = Beacon(
    sender=AUTHORITY,
    number=86_400,
    time=1_800_000_000,
    key=bytes.fromhex("0011223344556677"),
    rate_bytes_s=2_500_000,
    catalogue=12,
    programme=Ref(toi=3, size=70_000, sha256=hashlib.sha256(b"programme").digest()),
)
FEW_FIELDS = {
    "sender": AUTHORITY,
    "number": 1,
    "time": 1_800_000_000,
    "key": bytes(8),
    "rate_bytes_s": 1,
}
HEAD = struct.Struct(">IIII")


def head(
    codepoint: int,
    *,
    first: int = 0x10A0_0400,
    congestion: int = 0,
    channel: int = 0,
    toi: int = 0,
) -> bytes:
    """An LCT header made by hand (RFC 5651 section 5.1)."""
    return HEAD.pack(first | codepoint, congestion, SESSION << 4 | channel, toi)


def signed(data: bytes, key: Ed25519PrivateKey = KEY) -> bytes:
    """Bytes with a signature, whatever they are."""
    return data + key.sign(CONTEXT + data)


def digests(
    heads: list[tuple[int, int, int, int]],
    count: int | None = None,
    digest_count: int | None = None,
    header: bytes = b"",
    tail: bytes = b"",
) -> bytes:
    """A signed digest packet made by hand: heads are channel, TOI, first ESI and number of symbols."""
    total = sum(symbols for *_, symbols in heads) if digest_count is None else digest_count
    parts = [header or head(128), bytes([len(heads) if count is None else count])]
    parts += [struct.pack(">BIIB", *entry) for entry in heads]
    return signed(b"".join(parts) + random_bytes(8 * total, 5) + tail)


def beacon(**changes: object) -> bytes:
    """A signed beacon with other or more fields."""
    return signed(head(129) + packed(fields(BEACON, **changes)))


def identity(**changes: object) -> bytes:
    """An identity packet with other or more fields."""
    return head(130) + packed({"v": 1, "certificate": CERTIFICATE, **changes})


def packed(value: object) -> bytes:
    return msgspec.msgpack.encode(value)


def changed(data: bytes, place: int) -> bytes:
    """One bit is another one."""
    place %= len(data)
    return data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :]


def good_packets() -> dict[str, Made]:
    """Packets that are taken, and what they say."""
    filler = filler_packet(MAX_SESSION)
    few = signed(head(129) + packed(FEW_FIELDS))
    return {
        "symbol-good": (GOOD_SYMBOL, Symbol(Channel.CONTENT, 0x89ABCDEF, 3121)),
        "symbol-last": (
            symbol_packet(MAX_SESSION, Channel.CATALOGUE, MAX_TOI, MAX_ESI, SYMBOL),
            Symbol(Channel.CATALOGUE, MAX_TOI, MAX_ESI),
        ),
        "symbol-first": (
            symbol_packet(0, Channel.MANIFEST, 1, 0, bytes(SYMBOL_BYTES)),
            Symbol(Channel.MANIFEST, 1, 0),
        ),
        "digests-good": (digest_packet(SESSION, SEGMENTS, sign), SEGMENTS),
        "digests-full": (digest_packet(SESSION, FULL_SEGMENTS, sign), FULL_SEGMENTS),
        "beacon-good": (beacon_packet(SESSION, BEACON, sign), BEACON),
        "beacon-few-fields": (few, msgspec.convert(FEW_FIELDS, Beacon)),
        "beacon-unknown-field": (beacon(later=[1, {"a": None}]), BEACON),
        "identity-good": (identity_packet(SESSION, CERTIFICATE), CERTIFICATE),
        "identity-unknown-field": (identity(later={"a": 1}), CERTIFICATE),
        "filler-good": (filler, Header(Codepoint.FILLER, MAX_SESSION, Channel.CONTROL, 0)),
    }


def bad_packets() -> dict[str, tuple[bytes, str]]:
    """Packets that are dropped, and why."""
    payload = GOOD_SYMBOL[16:]
    good_digests = digest_packet(SESSION, SEGMENTS, sign)
    good_beacon = beacon_packet(SESSION, BEACON, sign)
    good_identity = identity_packet(SESSION, CERTIFICATE)
    one = (3, 1000, 0, 1)
    return {
        "packet-empty": (b"", "truncated"),
        "packet-half-a-header": (GOOD_SYMBOL[:15], "truncated"),
        "packet-text": (b"GET / HTTP/1.1\r\n\r\n", "wrong-version"),
        "packet-flute": (FluteObject(1, 1, 1).packet(0, 0, SYMBOL), "oversized"),
        "symbol-truncated": (GOOD_SYMBOL[:-1], "truncated"),
        "symbol-header-only": (GOOD_SYMBOL[:16], "truncated"),
        "symbol-oversized": (GOOD_SYMBOL + b"\0", "oversized"),
        "symbol-lct-version-0": (head(6, first=0x00A0_0400, channel=3) + payload, "wrong-version"),
        "symbol-lct-version-2": (head(6, first=0x20A0_0400, channel=3) + payload, "wrong-version"),
        "symbol-unknown-codepoint": (head(7, channel=3) + payload, "malformed"),
        "symbol-no-code": (head(0, channel=3) + payload, "malformed"),
        "symbol-close-object": (head(6, first=0x10A1_0400, channel=3) + payload, "malformed"),
        "symbol-close-session": (head(6, first=0x10A2_0400, channel=3) + payload, "malformed"),
        "symbol-longer-header": (head(6, first=0x10A0_0500, channel=3) + payload, "malformed"),
        "symbol-congestion": (head(6, congestion=1, channel=3) + payload, "malformed"),
        "symbol-unknown-channel": (head(6, channel=4) + payload, "malformed"),
        "symbol-last-channel": (head(6, channel=15) + payload, "malformed"),
        "symbol-control-channel": (head(6, channel=0) + payload, "malformed"),
        "symbol-source-block-1": (head(6, channel=3) + b"\x01" + payload[1:], "bad-symbol"),
        "digests-truncated": (good_digests[:-1], "malformed"),
        "digests-signature-only": (signed(head(128)), "truncated"),
        "digests-header-only": (head(128), "truncated"),
        "digests-oversized": (digests([one], tail=bytes(1300)), "oversized"),
        "digests-no-segment": (digests([]), "malformed"),
        "digests-17-segments": (digests([one] * 17), "malformed"),
        "digests-segments-missing": (digests([one], count=8), "malformed"),
        "digests-no-symbol": (digests([one, (3, 1001, 0, 0)]), "malformed"),
        "digests-no-symbol-at-all": (digests([(3, 1000, 0, 0)]), "malformed"),
        "digests-129-symbols": (digests([(3, 1000, 0, 129)]), "malformed"),
        "digests-129-symbols-in-two": (digests([(3, 1, 0, 65), (3, 2, 0, 64)]), "malformed"),
        "digests-one-missing": (digests([(3, 1, 0, 2)], digest_count=1), "malformed"),
        "digests-one-byte-more": (digests([one], tail=b"\0"), "malformed"),
        "digests-unknown-channel": (digests([(4, 1, 0, 1)]), "malformed"),
        "digests-control-channel": (digests([(0, 1, 0, 1)]), "malformed"),
        "digests-beyond-last-symbol": (digests([(3, 1, MAX_ESI, 2)]), "malformed"),
        "digests-far-beyond": (digests([(3, 1, (1 << 32) - 1, 1)]), "malformed"),
        "digests-on-content": (digests([one], header=head(128, channel=3)), "malformed"),
        "digests-with-toi": (digests([one], header=head(128, toi=1)), "malformed"),
        "digests-bad-signature": (changed(good_digests, -1), "bad-signature"),
        "digests-other-digest": (changed(good_digests, -SIGNATURE_BYTES - 1), "bad-signature"),
        "digests-other-session": (changed(good_digests, 10), "bad-signature"),
        "digests-forged": (
            signed(good_digests[:-SIGNATURE_BYTES], OTHER_KEY),
            "bad-signature",
        ),
        "beacon-truncated": (good_beacon[:-1], "malformed"),
        "beacon-header-only": (good_beacon[:16], "malformed"),
        "beacon-shorter-than-a-signature": (good_beacon[:70], "malformed"),
        "beacon-oversized": (beacon(later=bytes(1300)), "oversized"),
        "beacon-newer": (beacon(v=2), "wrong-version"),
        "beacon-version-0": (beacon(v=0), "malformed"),
        "beacon-other-symbol-size": (beacon(symbol_bytes=1280), "wrong-version"),
        "beacon-no-symbol-size": (beacon(symbol_bytes=0), "malformed"),
        "beacon-no-rate": (beacon(rate_bytes_s=0), "malformed"),
        "beacon-negative-number": (beacon(number=-1), "malformed"),
        "beacon-bad-sender": (beacon(sender="44000000000\n"), "malformed"),
        "beacon-long-key": (beacon(key=bytes(9)), "malformed"),
        "beacon-no-sender": (signed(head(129) + packed({"number": 1})), "malformed"),
        "beacon-programme-without-size": (beacon(programme={"toi": 1}), "malformed"),
        "beacon-trailing": (
            signed(good_beacon[:-SIGNATURE_BYTES] + b"\0"),
            "malformed",
        ),
        "beacon-not-utf8": (
            signed(good_beacon[:-SIGNATURE_BYTES].replace(b"440000000000", b"44000000000\xff")),
            "malformed",
        ),
        "beacon-deep": (signed(head(129) + b"\x81\xa1a" + b"\x91" * 1200 + b"\0"), "malformed"),
        "beacon-with-toi": (signed(head(129, toi=1) + good_beacon[16:-64]), "malformed"),
        "beacon-bad-signature": (changed(good_beacon, -1), "bad-signature"),
        "beacon-other-number": (
            good_beacon.replace(packed({"number": 86_400})[1:], packed({"number": 86_401})[1:]),
            "bad-signature",
        ),
        "beacon-forged": (signed(good_beacon[:-SIGNATURE_BYTES], OTHER_KEY), "bad-signature"),
        "identity-truncated": (good_identity[:-1], "malformed"),
        "identity-header-only": (good_identity[:16], "malformed"),
        "identity-oversized": (identity(later=bytes(1300)), "oversized"),
        "identity-newer": (identity(v=2), "wrong-version"),
        "identity-empty": (identity(certificate=b""), "malformed"),
        "identity-long": (identity(certificate=bytes(1301)), "malformed"),
        "identity-text": (identity(certificate="-----BEGIN CERTIFICATE-----"), "malformed"),
        "identity-on-catalogue": (head(130, channel=1) + good_identity[16:], "malformed"),
        "filler-oversized": (filler_packet(SESSION) + b"\0", "oversized"),
        "filler-on-content": (head(131, channel=3) + bytes(1348), "malformed"),
    }


# Objects.


def ref(toi: int, data: bytes) -> Ref:
    """How an object would be named."""
    return Ref(toi=toi, size=len(data), sha256=hashlib.sha256(data).digest())


MANIFEST = Manifest(
    torrent=(BUNDLE_VECTORS / "good.torrent").read_bytes(),
    halves={bytes(range(32)): random_bytes(96, 7)},
)
PROGRAMME = Programme(
    made_at=1_800_000_000,
    catalogues=(
        CatalogueEntry(
            authority=AUTHORITY, version=12, snapshot=ref(10, b"s"), delta=ref(20, b"d")
        ),
        CatalogueEntry(authority="441900000000", version=1, snapshot=ref(30, b"t")),
    ),
    bundles=(
        BundleEntry(
            id="440000000000/202703/poems",
            infohash=hashlib.sha256(b"poems").digest(),
            size=1 << 30,
            toi=1000,
            manifest=ref(40, b"n"),
            passes=2,
            begins=1_800_000_100,
            ends=1_800_000_530,
            next=1_800_001_300,
        ),
        BundleEntry(
            id="441900000000/202703/new",
            infohash=hashlib.sha256(b"new").digest(),
            size=1,
            toi=MAX_FIRST_TOI,
            manifest=ref(41, b"m"),
        ),
    ),
)
ITEMS = [
    Item("timestamp.json", b'{"signed": {"version": 12}}'),
    # More than a frame is aimed at, so it has one of its own.
    Item("targets.json", b'{"name": "440000000000/202703/poems"}\n' * 30_000),
    Item("", random_bytes(300, 8)),
    Item("", b""),
]
BASES = [("1.targets.json", ITEMS[1].data[:2000]), ("1.timestamp.json", ITEMS[0].data)]
CHANGED = [Item("timestamp.json", ITEMS[0].data.replace(b"12", b"13"))]


def compressed(value: object) -> bytes:
    """Any value as a programme or manifest is cast."""
    return zstandard.ZstdCompressor(level=12).compress(packed(value))


def fields(value: msgspec.Struct, **changes: object) -> dict[str, object]:
    """A value's fields, with other or more ones."""
    return {name: getattr(value, name) for name in value.__struct_fields__} | changes


def bomb(limit: int) -> bytes:
    """A frame that unpacks to a byte more than it may."""
    return zstandard.ZstdCompressor().compress(bytes(limit + 1))


def unstated(value: object) -> bytes:
    """A frame that doesn't tell what it unpacks to."""
    return zstandard.ZstdCompressor(write_content_size=False).compress(packed(value))


def catalogue(*frames: bytes, size: int | None = None, **changes: object) -> bytes:
    """A catalogue made by hand."""
    listed = tuple(map(len, frames))
    data = packed(fields(CatalogueHead(authority=AUTHORITY, frames=listed), **changes))
    length = len(data) if size is None else size
    return b"".join([length.to_bytes(4, "big"), data, *frames])


def good_objects() -> dict[str, Made]:
    """Objects that are read, and what they say."""
    snapshot = encode_catalogue(AUTHORITY, ITEMS)
    delta = encode_catalogue(AUTHORITY, CHANGED, BASES)
    named = [(name, hashlib.sha256(data).hexdigest()) for name, data in BASES]
    items = compressed([["timestamp.json", b"{}"]])
    return {
        "programme-good": (encode_programme(PROGRAMME), PROGRAMME),
        "programme-few-fields": (compressed({"v": 1}), Programme()),
        "programme-unknown-field": (compressed(fields(PROGRAMME, later=[1, {}])), PROGRAMME),
        "manifest-good": (compressed(fields(MANIFEST)), MANIFEST),
        "manifest-few-fields": (compressed({"v": 1, "torrent": b"d"}), Manifest(torrent=b"d")),
        "manifest-unknown-field": (compressed(fields(MANIFEST, later="x")), MANIFEST),
        "snapshot-good": (snapshot, ([], 3, summary(ITEMS))),
        "snapshot-empty": (encode_catalogue(AUTHORITY, []), ([], 0, [])),
        "snapshot-unknown-field": (
            catalogue(items, later={"a": 1}),
            ([], 1, summary([Item("timestamp.json", b"{}")])),
        ),
        "delta-good": (delta, (named, 1, summary(CHANGED))),
    }


def bad_objects() -> dict[str, tuple[bytes, str]]:
    """Objects that are refused, and the code of the error."""
    programme, manifest = encode_programme(PROGRAMME), compressed(fields(MANIFEST))
    snapshot = encode_catalogue(AUTHORITY, ITEMS)
    items = compressed([["timestamp.json", b"{}"]])
    bundle = fields(PROGRAMME.bundles[0])
    bad, newer = "datacast.bad-object", "datacast.newer-version"
    # A version after ours may have changed anything but `v`.
    later: dict[str, Any] = {
        "v": 2,
        "torrent": 1,
        "bundles": "none",
        "frames": {},
        "authority": None,
    }
    return {
        "programme-empty": (b"", bad),
        "programme-truncated": (programme[:-1], bad),
        "programme-trailing": (programme + b"\0", bad),
        "programme-bomb": (bomb(MAX_PROGRAMME_BYTES), bad),
        "programme-unstated-size": (unstated({"v": 1}), bad),
        "programme-not-packed": (packed({"v": 1}), bad),
        "programme-newer": (compressed(fields(PROGRAMME, v=2)), newer),
        "programme-newer-and-different": (compressed(later), newer),
        "programme-no-version": (compressed({}), bad),
        "programme-array": (compressed([1]), bad),
        "programme-deep": (zstandard.ZstdCompressor().compress(b"\x91" * 60_000 + b"\0"), bad),
        "programme-short-infohash": (
            compressed({"v": 1, "bundles": [{**bundle, "infohash": bytes(31)}]}),
            bad,
        ),
        "programme-toi-0": (compressed({"v": 1, "bundles": [{**bundle, "toi": 0}]}), bad),
        "programme-bad-authority": (
            compressed(
                {
                    "v": 1,
                    "catalogues": [{"authority": "../4400000000", "version": 1, "snapshot": {}}],
                }
            ),
            bad,
        ),
        "programme-too-many-bundles": (
            compressed({"v": 1, "bundles": [bundle] * (MAX_BUNDLES + 1)}),
            bad,
        ),
        "manifest-truncated": (manifest[:-1], bad),
        "manifest-bomb": (bomb(MAX_MANIFEST_BYTES), bad),
        "manifest-unstated-size": (unstated(fields(MANIFEST)), bad),
        "manifest-newer": (compressed(fields(MANIFEST, v=2)), newer),
        "manifest-newer-and-different": (compressed(later), newer),
        "manifest-no-torrent": (compressed({"v": 1}), bad),
        "manifest-short-root": (compressed(fields(MANIFEST, halves={bytes(31): b""})), bad),
        "snapshot-empty-file": (b"", bad),
        "snapshot-truncated": (snapshot[:-1], bad),
        "snapshot-trailing": (snapshot + b"\0", bad),
        "snapshot-head-only": (snapshot[:20], bad),
        "snapshot-long-head": (catalogue(items, size=(1 << 32) - 1), bad),
        "snapshot-other-authority": (catalogue(items, authority="441900000000"), bad),
        "snapshot-newer": (catalogue(items, v=2), newer),
        "snapshot-newer-and-different": (catalogue(items, **later), newer),
        "snapshot-bomb": (catalogue(items, bomb(MAX_FRAME_BYTES)), bad),
        "snapshot-unstated-size": (catalogue(unstated([["a", b""]])), bad),
        "snapshot-no-items": (catalogue(compressed({"a": b""})), bad),
        "snapshot-long-name": (catalogue(compressed([["x" * 61, b""]])), bad),
        "snapshot-name-not-utf8": (
            catalogue(zstandard.ZstdCompressor().compress(b"\x91\x92\xa1\xff\xc4\x00")),
            bad,
        ),
        "snapshot-short-base": (catalogue(items, bases=[["a", bytes(31)]]), bad),
        "snapshot-too-many-bases": (catalogue(items, bases=[["a", bytes(32)]] * 65), bad),
    }


def vectors() -> tuple[dict[str, bytes], dict[str, Any]]:
    """The files, and the index that says what each must give."""
    makers: tuple[Callable[[], dict[str, Made]], ...] = (good_packets, good_objects)
    good = {name: made for make in makers for name, made in make().items()}
    bad = {**bad_packets(), **bad_objects()}
    files = {f"{name}.bin": data for name, (data, _) in (good | bad).items()}
    index = {
        "key": KEY.public_key().public_bytes_raw().hex(),
        "good": {name: repr(value) for name, (_, value) in good.items()},
        "bad": {name: reason for name, (_, reason) in bad.items()},
    }
    return files, index


def main() -> None:
    """Write all files anew."""
    files, index = vectors()
    for file_name, data in files.items():
        (HERE / file_name).write_bytes(data)
    (HERE / "index.json").write_text(json.dumps(index, indent=1, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()

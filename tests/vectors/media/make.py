"""Makes the vectors of this folder: `python -m tests.vectors.media.make` (see README.md)."""

from __future__ import annotations

import base64
import hashlib
import json
from pathlib import Path
from typing import Any

import msgspec
from cryptography.hazmat.primitives.asymmetric.ec import SECP384R1, derive_private_key
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from cuntong_protocol.enrolment import PrivateKey, public_key_der
from cuntong_protocol.media.papers import (
    MAX_PLACES,
    MAX_SETS,
    Receipt,
    SignedReceipt,
    SignedVolume,
    Statistics,
    Subscriptions,
    Volume,
    VolumeBundle,
    check_volume,
    decode_receipt,
    decode_volume,
    encode_volume,
    receipt_qr_text,
    receipt_text,
    shortened,
    sign_receipt,
)

HERE = Path(__file__).parent
PEM = (HERE.parent / "bundle" / "swarm-ca.pem").read_bytes()
CERTIFICATE = base64.b64decode(b"".join(PEM.splitlines()[1:-1]))
"""Any certificate will do: whose it is, isn't judged here."""
CHAIN = (CERTIFICATE, CERTIFICATE)

KEY = Ed25519PrivateKey.from_private_bytes(b"the exporter's key, known to all")
OTHER_KEY = Ed25519PrivateKey.from_private_bytes(b"a forger's key, known to all!!!!")
VOLUME_CONTEXT = b"cuntong volume 1\0"
RECEIPT_CONTEXT = b"cuntong receipt 1\0"
"""What signatures begin with; it isn't in the papers."""

GUANGDONG = "440000000000"
VILLAGE = "441900003005"
NETWORK = hashlib.sha256(b"network").digest()
PARTS = (Volume, VolumeBundle, SignedVolume, Receipt, SignedReceipt, Statistics, Subscriptions)
"""What the schema tells of."""


def infohash(name: str) -> bytes:
    return hashlib.sha256(name.encode()).digest()


VOLUME = Volume(
    serial="abcdefgh27",
    number=2,
    count=5,
    made_at=1_795_000_000,
    by=GUANGDONG,
    network=NETWORK,
    places=(VILLAGE, "441900003007"),
    bundles=(
        VolumeBundle(
            id="440000000000/202611/poems",
            revision=3,
            infohash=infohash("poems"),
            bytes=123_456_789,
            is_whole=True,
        ),
        VolumeBundle(
            id="441900000000/202611/opera",
            revision=1,
            infohash=infohash("opera"),
            bytes=4_294_967_296,
            is_whole=False,
        ),
    ),
)
FEW_OF_VOLUME = {
    "v": 1,
    "serial": "abcdefgh27",
    "number": 1,
    "count": 1,
    "made_at": 0,
    "by": GUANGDONG,
    "network": NETWORK,
}
RECEIPT = Receipt(
    code=VILLAGE,
    number=12,
    made_at=1_795_000_000,
    proven_time=1_794_999_000,
    network=NETWORK,
    is_all=True,
    held=shortened({infohash("poems"), infohash("opera"), infohash("film")}),
    orders=("440000000000/202611/lectures",),
    catalogues={"000000000000": 14, GUANGDONG: 7},
    sets={"abcdefgh27": (1, 2, 4), "zyxwvuts23": (1,)},
    subscriptions=Subscriptions(
        categories=["opera"], languages=["zh-Hans"], publishers=["44"], groups=["schools"]
    ),
    free=320_000_000_000,
    used=180_000_000_000,
    statistics=Statistics(
        since=1_790_000_000,
        until=1_795_000_000,
        bundles=3,
        by_satellite=1,
        by_swarm=2,
        by_medium=4_418_424_085,
        sent=0,
        problems=("clock.wrong",),
    ),
)
FEW_OF_RECEIPT = {
    "v": 1,
    "code": VILLAGE,
    "number": 1,
    "made_at": 0,
    "proven_time": 0,
    "network": NETWORK,
    "is_all": False,
    "held": b"",
}


def read(name: str, data: bytes) -> object:
    """What a vector says; the name's first word tells what it is.

    Raises:
        MediaError: as a reader of papers.
    """
    if name.startswith("receipt"):
        return decode_receipt(data.decode("ascii", "replace"))[0]
    volume, signed = decode_volume(data)
    check_volume(signed, KEY.public_key())
    return volume


def fields(value: msgspec.Struct, **changes: object) -> dict[str, object]:
    """A value's fields, with other or more ones."""
    return {name: getattr(value, name) for name in value.__struct_fields__} | changes


def packed(value: object) -> bytes:
    return msgspec.msgpack.encode(value, order="sorted")


def volume(body: object, key: PrivateKey = KEY, **changes: object) -> bytes:
    """A volume's paper made by hand."""
    data = body if isinstance(body, bytes) else packed(body)
    signature = _sign(key, VOLUME_CONTEXT + data)
    return packed({"v": 1, "body": data, "chain": CHAIN, "signature": signature} | changes)


def receipt(body: object, key: PrivateKey = KEY, **changes: object) -> bytes:
    """A receipt made by hand."""
    data = body if isinstance(body, bytes) else packed(body)
    paper = {
        "v": 1,
        "body": data,
        "public_key": public_key_der(key.public_key()),
        "chain": CHAIN,
        "signature": _sign(key, RECEIPT_CONTEXT + data),
    }
    return as_text(packed(paper | changes))


def as_text(data: bytes, kind: str = "RECEIPT") -> bytes:
    text = f"CUNTONG:{kind}:" + base64.b32encode(data).decode().rstrip("=")
    lines = [text[start : start + 76] for start in range(0, len(text), 76)]
    return "".join(f"{line}\n" for line in lines).encode()


def _sign(key: PrivateKey, data: bytes) -> bytes:
    return key.sign(data) if isinstance(key, Ed25519PrivateKey) else bytes(70)


def changed(data: bytes, old: bytes, new: bytes) -> bytes:
    """One stretch is another one."""
    assert data.count(old) == 1
    assert len(old) == len(new)
    return data.replace(old, new)


def good() -> dict[str, tuple[bytes, msgspec.Struct]]:
    """Papers that are taken, and what they say."""
    signed = sign_receipt(RECEIPT, KEY, CHAIN)
    text = receipt_text(signed).encode()
    return {
        "volume-good": (encode_volume(VOLUME, KEY, CHAIN), VOLUME),
        "volume-few-fields": (volume(FEW_OF_VOLUME), msgspec.convert(FEW_OF_VOLUME, Volume)),
        "volume-unknown-field": (
            volume(fields(VOLUME, later=[1, {"a": None}]), later="x"),
            VOLUME,
        ),
        "receipt-good": (text, RECEIPT),
        "receipt-qr": ((receipt_qr_text(signed) or "").encode(), RECEIPT),
        "receipt-carried-badly": (b" \r\n" + text.lower().replace(b"\n", b" \r\n\r\n\t"), RECEIPT),
        "receipt-few-fields": (receipt(FEW_OF_RECEIPT), msgspec.convert(FEW_OF_RECEIPT, Receipt)),
        "receipt-unknown-field": (
            receipt(fields(RECEIPT, later={"a": [1]}), later=2),
            RECEIPT,
        ),
    }


def bad() -> dict[str, tuple[bytes, str]]:
    """Papers that are refused, and the code of the error."""
    # A version after ours may have changed anything but `v`.
    newer = {"v": 2, "body": 1, "bundles": "none", "code": [], "signature": None}
    return _bad_volumes(newer) | _bad_receipts(newer)


def _bad_volumes(newer: dict[str, Any]) -> dict[str, tuple[bytes, str]]:
    data = encode_volume(VOLUME, KEY, CHAIN)
    wrong, forged, later = "media.bad-volume", "media.forged-volume", "media.newer-version"
    one = fields(VOLUME.bundles[0])

    def with_(**changes: object) -> tuple[bytes, str]:
        return volume(fields(VOLUME, **changes)), wrong

    return {
        "volume-empty": (b"", wrong),
        "volume-truncated": (data[:-1], wrong),
        "volume-trailing": (data + b"\0", wrong),
        "volume-text": (b"BagIt-Version: 1.0\n", wrong),
        "volume-deep": (b"\x81\xa1v" + b"\x91" * 5_000 + b"\1", wrong),
        "volume-long-array": (b"\x82\xa1v\x01\xa5chain\xdd\xff\xff\xff\xff", wrong),
        "volume-array": (packed([1]), wrong),
        "volume-no-version": (packed({"body": b""}), wrong),
        "volume-version-0": (volume(fields(VOLUME), v=0), wrong),
        "volume-body-truncated": (volume(packed(fields(VOLUME))[:-1]), wrong),
        "volume-body-version-0": with_(v=0),
        "volume-no-chain": (volume(fields(VOLUME), chain=[]), wrong),
        "volume-long-chain": (volume(fields(VOLUME), chain=[b"x"] * 9), wrong),
        "volume-number-beyond-count": with_(number=6),
        "volume-number-0": with_(number=0),
        "volume-no-code": with_(by="4400"),
        "volume-code-with-a-line-end": with_(by="44000000000\n"),
        "volume-place-is-no-code": with_(places=["４４１９００００３００５"]),
        "volume-too-many-places": with_(places=[VILLAGE] * (MAX_PLACES + 1)),
        "volume-serial-climbs": with_(serial="../../../x"),
        "volume-long-serial": with_(serial="abcdefgh27a"),
        "volume-short-network": with_(network=bytes(31)),
        "volume-short-infohash": with_(bundles=[one | {"infohash": bytes(31)}]),
        "volume-negative-bytes": with_(bundles=[one | {"bytes": -1}]),
        "volume-revision-0": with_(bundles=[one | {"revision": 0}]),
        "volume-whole-is-a-number": with_(bundles=[one | {"is_whole": 1}]),
        "volume-time-is-a-fraction": with_(made_at=1.5),
        "volume-newer": (volume(fields(VOLUME), v=2), later),
        "volume-body-newer": (volume(fields(VOLUME, v=2)), later),
        "volume-newer-and-different": (packed(newer), later),
        "volume-body-newer-and-different": (volume(newer), later),
        "volume-wrong-signature": (changed(data, b"poems", b"poema"), forged),
        "volume-signed-by-another": (volume(fields(VOLUME), OTHER_KEY), forged),
        "volume-unsigned": (volume(fields(VOLUME), signature=b""), forged),
        "volume-signed-as-a-receipt": (
            volume(
                fields(VOLUME), signature=KEY.sign(RECEIPT_CONTEXT + packed(fields(VOLUME)))
            ),
            forged,
        ),
    }  # fmt: skip


def _bad_receipts(newer: dict[str, Any]) -> dict[str, tuple[bytes, str]]:
    text = receipt_text(sign_receipt(RECEIPT, KEY, CHAIN)).encode()
    wrong, forged, later = "media.bad-receipt", "media.forged-receipt", "media.newer-version"
    p384 = derive_private_key(7, SECP384R1())
    body = packed(fields(RECEIPT))

    def with_(**changes: object) -> tuple[bytes, str]:
        return receipt(fields(RECEIPT, **changes)), wrong

    return {
        "receipt-empty": (b"", wrong),
        "receipt-head-only": (b"CUNTONG:RECEIPT:\n", wrong),
        "receipt-truncated": (text[:-3], wrong),
        "receipt-one-line-missing": (b"".join(text.splitlines(keepends=True)[:-2]), wrong),
        "receipt-trailing": (text + b"AAAAAAAA", wrong),
        "receipt-not-base32": (text[:-2] + b"1\n", wrong),
        "receipt-other-paper": (text.replace(b"RECEIPT", b"REQUEST"), wrong),
        "receipt-unpacked": (packed(fields(RECEIPT)), wrong),
        "receipt-deep": (as_text(b"\x81\xa1v" + b"\x91" * 5_000 + b"\1"), wrong),
        "receipt-array": (as_text(packed([1])), wrong),
        "receipt-version-0": (receipt(fields(RECEIPT), v=0), wrong),
        "receipt-body-version-0": with_(v=0),
        "receipt-number-0": with_(number=0),
        "receipt-no-code": with_(code="4419"),
        "receipt-catalogue-of-no-code": with_(catalogues={"../../../../x": 1}),
        "receipt-long-order": with_(orders=["x" * 101]),
        "receipt-too-many-sets": with_(
            sets={f"aaaaaaaa{number // 6 + 2}{number % 6 + 2}": (1,) for number in range(MAX_SETS + 1)}
        ),
        "receipt-volume-0": with_(sets={"abcdefgh27": (0,)}),
        "receipt-held-is-text": with_(held="x"),
        "receipt-negative-room": with_(free=-1),
        "receipt-endless-room": with_(free=2**63),
        "receipt-no-key": (receipt(body, public_key=b"key"), wrong),
        "receipt-other-kind-of-key": (receipt(body, p384), wrong),
        "receipt-newer": (receipt(fields(RECEIPT), v=2), later),
        "receipt-body-newer": (receipt(fields(RECEIPT, v=2)), later),
        "receipt-newer-and-different": (as_text(packed(newer)), later),
        "receipt-body-newer-and-different": (receipt(newer), later),
        "receipt-wrong-signature": (
            receipt(fields(RECEIPT, number=13), signature=KEY.sign(RECEIPT_CONTEXT + body)),
            forged,
        ),
        "receipt-key-of-another": (
            receipt(body, public_key=public_key_der(OTHER_KEY.public_key())),
            forged,
        ),
        "receipt-unsigned": (receipt(body, signature=b""), forged),
        "receipt-signed-as-a-volume": (
            receipt(body, signature=KEY.sign(VOLUME_CONTEXT + body)),
            forged,
        ),
    }  # fmt: skip


def schema() -> dict[str, Any]:
    """Fields, kinds and limits of each paper, as `schema.json` has them."""
    _, parts = msgspec.json.schema_components(PARTS)
    for part in parts.values():
        part.pop("description", None)
    found = {
        "fields": {kind.__name__: list(kind.__struct_fields__) for kind in PARTS},
        "parts": dict(sorted(parts.items())),
    }
    # Defaults that are tuples are lists in a file.
    return json.loads(json.dumps(found))  # type: ignore[no-any-return]


def file_of(name: str) -> str:
    """Volumes are bytes, receipts are text."""
    return f"{name}.txt" if name.startswith("receipt") else f"{name}.bin"


def vectors() -> tuple[dict[str, bytes], dict[str, Any]]:
    """The files, and the index that says what each must give."""
    taken, refused = good(), bad()
    files = {file_of(name): data for name, (data, _) in (taken | refused).items()}
    index = {
        "key": KEY.public_key().public_bytes_raw().hex(),
        "good": {name: repr(value) for name, (_, value) in taken.items()},
        "bad": {name: code for name, (_, code) in refused.items()},
    }
    return files, index


def main() -> None:
    """Write all files anew."""
    files, index = vectors()
    for file_name, data in files.items():
        (HERE / file_name).write_bytes(data)
    (HERE / "index.json").write_text(json.dumps(index, indent=1, ensure_ascii=False) + "\n")
    (HERE / "schema.json").write_text(json.dumps(schema(), indent=1) + "\n")


if __name__ == "__main__":
    main()

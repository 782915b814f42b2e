"""The signed papers of the post: what a volume says of itself, and a receipt (SPEC 12.3, 12.6).

Both may come from anybody: decoding checks form and limits, `check` the signature with a key that the caller has
reason to believe.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Annotated, TypeVar

import msgspec
from cryptography.exceptions import InvalidSignature

from cuntong_protocol.divisions import Division, DivisionError
from cuntong_protocol.enrolment import PrivateKey, PublicKey, load_public_key, public_key_der, sign
from cuntong_protocol.enrolment import verify as verify_signature
from cuntong_protocol.errors import CuntongError
from cuntong_protocol.paper_text import paper_as_text, paper_of_text, qr_text
from cuntong_protocol.texts import N_

from .errors import MediaError

VERSION = 1
MAX_VOLUME_PAPER_BYTES = 4 * 1024 * 1024
"""20,000 bundles of 150 bytes."""
MAX_RECEIPT_BYTES = 1024 * 1024
"""Receipts of 100,000 payloads."""
MAX_QR_CHARS = 4296
"""Alphanumeric characters of the largest QR code (ISO/IEC 18004)."""
MAX_VOLUME_BUNDLES = 20_000
MAX_PLACES = 256
MAX_SETS = 16
MAX_SET_VOLUMES = 9_999
MAX_ORDERS = 500
MAX_PROBLEMS = 50
SHORT = 8
"""Bytes of an infohash in a receipt."""

_VOLUME_DOMAIN = b"cuntong volume 1\0"
_RECEIPT_DOMAIN = b"cuntong receipt 1\0"
_KIND = "RECEIPT"

_Version = Annotated[int, msgspec.Meta(ge=1)]
_Code = Annotated[str, msgspec.Meta(pattern=r"\A[0-9]{12}\Z")]
_Serial = Annotated[str, msgspec.Meta(pattern=r"\A[a-z2-7]{10}\Z")]
_Number = Annotated[int, msgspec.Meta(ge=1, le=MAX_SET_VOLUMES)]
_Hash = Annotated[bytes, msgspec.Meta(min_length=32, max_length=32)]
_Count = Annotated[int, msgspec.Meta(ge=0, le=2**62)]
_Seconds = Annotated[int, msgspec.Meta(ge=0, le=2**40)]
_Id = Annotated[str, msgspec.Meta(pattern=r"\A[0-9]{12}/[0-9]{6}/[a-z0-9-]{1,64}\Z")]
_Reason = Annotated[str, msgspec.Meta(pattern=r"\A[a-z0-9.-]{1,100}\Z")]
_Word = Annotated[str, msgspec.Meta(min_length=1, max_length=100)]
_Words = Annotated[list[_Word], msgspec.Meta(max_length=256)]
_Der = Annotated[bytes, msgspec.Meta(min_length=1, max_length=4096)]
_Chain = Annotated[tuple[_Der, ...], msgspec.Meta(max_length=8)]
_Signature = Annotated[bytes, msgspec.Meta(max_length=128)]


class VolumeBundle(msgspec.Struct, frozen=True, kw_only=True):
    """What a volume has of one bundle.

    Attributes:
        bytes: Of its payload, on this volume.
        is_whole: Nothing of what was exported of it lies on another volume.
    """

    id: _Id
    revision: Annotated[int, msgspec.Meta(ge=1, le=1_000_000)]
    infohash: _Hash
    bytes: _Count
    is_whole: bool


class Volume(msgspec.Struct, frozen=True, kw_only=True):
    """What a volume says of itself.

    Attributes:
        serial: Of its set.
        number: From 1.
        count: Of volumes in the set.
        made_at: The exporter's clock, seconds since 1970.
        by: Who exported.
        network: SHA-256 whose beginning is the network's fingerprint (SPEC 5.6).
        places: Whom it is for; empty: anybody.
    """

    v: _Version = VERSION
    serial: _Serial
    number: _Number
    count: _Number
    made_at: _Seconds
    by: _Code
    network: _Hash
    places: Annotated[tuple[_Code, ...], msgspec.Meta(max_length=MAX_PLACES)] = ()
    bundles: Annotated[tuple[VolumeBundle, ...], msgspec.Meta(max_length=MAX_VOLUME_BUNDLES)] = ()


class SignedVolume(msgspec.Struct, frozen=True, kw_only=True):
    """A volume's body as it was signed, and by whom: `chain` is the exporter's certificate and the CAs above it."""

    v: _Version = VERSION
    body: Annotated[bytes, msgspec.Meta(max_length=MAX_VOLUME_PAPER_BYTES)]
    chain: _Chain
    signature: _Signature


class Statistics(msgspec.Struct, frozen=True, kw_only=True):
    """What a place has done (SPEC 12.7). Times by its own clock, bytes of payload.

    Attributes:
        since: The beginning of what is counted.
        until: Its end.
        bundles: Held.
        problems: Codes of what is wrong now.
    """

    since: _Seconds = 0
    until: _Seconds = 0
    bundles: _Count = 0
    by_satellite: _Count = 0
    by_swarm: _Count = 0
    by_medium: _Count = 0
    sent: _Count = 0
    problems: Annotated[tuple[_Reason, ...], msgspec.Meta(max_length=MAX_PROBLEMS)] = ()


class Subscriptions(msgspec.Struct, frozen=True, kw_only=True):
    """As configured; empty lists of the first three mean all."""

    categories: _Words = []
    languages: _Words = []
    publishers: _Words = []
    groups: _Words = []


class Receipt(msgspec.Struct, frozen=True, kw_only=True):
    """What a place has, lacks and has done.

    Attributes:
        number: Grows with each receipt of the place.
        made_at: The place's clock, which may be wrong; seconds since 1970.
        proven_time: The nation's, as the place knows it.
        network: As in `Volume`.
        is_all: `held` is everything; else it is some of it.
        held: The first 8 bytes of the infohash of each payload held, sorted and joined.
        orders: Bundles that were ordered there and haven't come.
        catalogues: Version of each authority's timestamp.
        sets: Numbers of the volumes imported, by serial.
        free: Bytes that the place has room for.
        used: Bytes of its store.
    """

    v: _Version = VERSION
    code: _Code
    number: Annotated[int, msgspec.Meta(ge=1, le=2**62)]
    made_at: _Seconds
    proven_time: _Seconds
    network: _Hash
    is_all: bool
    held: Annotated[bytes, msgspec.Meta(max_length=MAX_RECEIPT_BYTES)]
    orders: Annotated[tuple[_Id, ...], msgspec.Meta(max_length=MAX_ORDERS)] = ()
    catalogues: Annotated[dict[_Code, _Count], msgspec.Meta(max_length=5000)] = {}
    sets: Annotated[
        dict[_Serial, Annotated[tuple[_Number, ...], msgspec.Meta(max_length=MAX_SET_VOLUMES)]],
        msgspec.Meta(max_length=MAX_SETS),
    ] = {}
    subscriptions: Subscriptions = Subscriptions()
    free: _Count = 0
    used: _Count = 0
    statistics: Statistics = Statistics()

    @property
    def holdings(self) -> frozenset[bytes]:
        """The shortened infohashes."""
        return frozenset(
            self.held[start : start + SHORT]
            for start in range(0, len(self.held) // SHORT * SHORT, SHORT)
        )


class SignedReceipt(msgspec.Struct, frozen=True, kw_only=True):
    """A receipt's body as it was signed; `chain` is empty in a QR code."""

    v: _Version = VERSION
    body: Annotated[bytes, msgspec.Meta(max_length=MAX_RECEIPT_BYTES)]
    public_key: Annotated[bytes, msgspec.Meta(max_length=200)]
    chain: _Chain = ()
    signature: _Signature


# --- Volumes --------------------------------------------------------------------------------------


def encode_volume(volume: Volume, key: PrivateKey, chain: tuple[bytes, ...]) -> bytes:
    """A volume's paper, signed.

    Args:
        volume: What it says.
        key: The exporter's node key.
        chain: Its certificate, then the CAs above it without the nation's; DER.
    """
    body = _encode(volume)
    return _encode(SignedVolume(body=body, chain=chain, signature=sign(key, _VOLUME_DOMAIN + body)))


def decode_volume(data: bytes) -> tuple[Volume, SignedVolume]:
    """Read a volume's paper. Nothing in it is proven before `check_volume`.

    Raises:
        MediaError: `media.bad-volume`, `media.newer-version`.
    """
    signed = _decode(data, SignedVolume, MAX_VOLUME_PAPER_BYTES + 65_536, _bad_volume)
    volume = _decode(signed.body, Volume, MAX_VOLUME_PAPER_BYTES, _bad_volume)
    if volume.number > volume.count or not signed.chain:
        raise _bad_volume()
    _check_codes((volume.by, *volume.places), _bad_volume())
    return volume, signed


def check_volume(signed: SignedVolume, key: PublicKey) -> None:
    """Check that the exporter signed it.

    Raises:
        MediaError: `media.forged-volume`.
    """
    try:
        verify_signature(key, signed.signature, _VOLUME_DOMAIN + signed.body)
    except InvalidSignature:
        raise MediaError(
            "media.forged-volume",
            N_("What this volume says of itself was changed after it was signed."),
        ) from None


# --- Receipts -------------------------------------------------------------------------------------


def shortened(infohashes: set[bytes] | frozenset[bytes]) -> bytes:
    """What a receipt states of payloads."""
    return b"".join(sorted(infohash[:SHORT] for infohash in infohashes))


def sign_receipt(receipt: Receipt, key: PrivateKey, chain: tuple[bytes, ...]) -> SignedReceipt:
    """Sign a receipt with the node's key."""
    body = _encode(receipt)
    return SignedReceipt(
        body=body,
        public_key=public_key_der(key.public_key()),
        chain=chain,
        signature=sign(key, _RECEIPT_DOMAIN + body),
    )


def receipt_text(signed: SignedReceipt) -> str:
    """A receipt as text, for a file."""
    return paper_as_text(_KIND, _encode(signed))


def receipt_qr_text(signed: SignedReceipt) -> str | None:
    """A receipt in the characters of a QR code, without its chain; None when it is too long for one."""
    text = qr_text(receipt_text(msgspec.structs.replace(signed, chain=())))
    return text if len(text) <= MAX_QR_CHARS else None


def is_receipt(data: bytes) -> bool:
    """Whether a file looks like a receipt."""
    return re.match(rb"\s*CUNTONG:RECEIPT:", data[:1024], re.IGNORECASE) is not None


def decode_receipt(text: str) -> tuple[Receipt, SignedReceipt]:
    """Read a receipt, and check that whoever made it has the key in it. Whose key that is must be checked then.

    Raises:
        MediaError: `media.bad-receipt`, `media.newer-version`, `media.forged-receipt`.
    """
    data = paper_of_text(_KIND, text, MAX_RECEIPT_BYTES + 65_536)
    if data is None:
        raise _bad_receipt()
    signed = _decode(data, SignedReceipt, MAX_RECEIPT_BYTES + 65_536, _bad_receipt)
    receipt = _decode(signed.body, Receipt, MAX_RECEIPT_BYTES, _bad_receipt)
    _check_codes((receipt.code, *receipt.catalogues), _bad_receipt())
    try:
        verify_signature(
            load_public_key(signed.public_key), signed.signature, _RECEIPT_DOMAIN + signed.body
        )
    except InvalidSignature:
        raise MediaError(
            "media.forged-receipt",
            N_("The receipt was changed after it was signed. Ask the place for it again."),
        ) from None
    except CuntongError:
        raise _bad_receipt() from None
    return receipt, signed


# --- msgpack --------------------------------------------------------------------------------------


class _Versioned(msgspec.Struct):
    v: int


S = TypeVar("S", bound=msgspec.Struct)


def _encode(value: msgspec.Struct) -> bytes:
    return msgspec.msgpack.encode(value, order="sorted")


def _decode(data: bytes, kind: type[S], limit: int, bad: Callable[[], MediaError]) -> S:
    if len(data) > limit:
        raise bad()
    try:
        if msgspec.msgpack.decode(data, type=_Versioned).v > VERSION:
            raise MediaError(
                "media.newer-version",
                N_("It was made by a newer version of Cuntong: update this node."),
            )
        return msgspec.msgpack.decode(data, type=kind, strict=True)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        raise bad() from None


def _check_codes(codes: tuple[str, ...], bad: MediaError) -> None:
    try:
        for code in codes:
            Division(code)
    except DivisionError:
        raise bad from None


def _bad_volume() -> MediaError:
    return MediaError(
        "media.bad-volume", N_("What this volume says of itself is missing or damaged.")
    )


def _bad_receipt() -> MediaError:
    return MediaError(
        "media.bad-receipt", N_("This is not a receipt, or it is damaged. Copy it again.")
    )

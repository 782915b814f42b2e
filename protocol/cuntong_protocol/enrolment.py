"""The papers of an enrolment: request, refusal, and pack (SPEC 5.5, 5.6).

A request and a refusal are short and travel as text that survives mail, print and QR codes:
`CUNTONG:REQUEST:` and then base32. A pack is a file. All three may come from anybody: decoding checks form,
limits and signatures, and never trusts more than those prove. Whether the certificates in a pack are in order
is the daemon's business (`cuntong_daemon.pki`).
"""

from __future__ import annotations

import base64
import hashlib
import ipaddress
from typing import Annotated, Any, Literal, TypeVar

import msgspec
import zstandard
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import (
    ECDSA,
    SECP256R1,
    EllipticCurvePrivateKey,
    EllipticCurvePublicKey,
)
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_der_public_key,
)

from .divisions import TIER_LABELS, Division
from .errors import CuntongError, Fault
from .paper_text import paper_as_text, paper_of_text
from .texts import N_


class EnrolmentError(CuntongError):
    """A node's proof of who it is, or a paper of its enrolment, is not in order."""

    fault = Fault.REFUSED


PrivateKey = Ed25519PrivateKey | EllipticCurvePrivateKey
PublicKey = Ed25519PublicKey | EllipticCurvePublicKey

VERSION = 1
MAX_REQUEST_BYTES = 2048
"""As base32 it still fits one QR code (4,296 characters)."""
MAX_FIELD_CHARS = 120
"""Four fields of this length in Chinese, a key and a signature stay below `MAX_REQUEST_BYTES`."""
MAX_PACK_FILE_BYTES = 16 * 2**20
"""A pack goes on a stick with metadata of at most five authorities, about 1 MB in the largest case seen."""
MAX_PACK_BYTES = 64 * 2**20
MAX_OBJECTS = 20_000
"""Five authorities with a role for each month of ten years, their roots, and endorsed children's roots."""
MAX_OBJECT_BYTES = 8 * 2**20
MAX_PARENTS = 8
MAX_NETWORKS = 64

_REQUEST_DOMAIN = b"cuntong enrolment request 1\0"
_PACK_DOMAIN = b"cuntong enrolment pack 1\0"
_SIGN_NOTHING = b""

_PRINTABLE = r"\A[^\x00-\x1f\x7f-\x9f]*\Z"
Field = Annotated[str, msgspec.Meta(max_length=MAX_FIELD_CHARS, pattern=_PRINTABLE)]
Code = Annotated[str, msgspec.Meta(pattern=r"\A[0-9]{12}\Z")]
Spki = Annotated[bytes, msgspec.Meta(min_length=32, max_length=32)]
Seconds = Annotated[int, msgspec.Meta(ge=0, le=2**40)]
Der = Annotated[bytes, msgspec.Meta(min_length=1, max_length=4096)]
Signature = Annotated[bytes, msgspec.Meta(max_length=128)]
ObjectPath = Annotated[
    str, msgspec.Meta(max_length=200, pattern=r"\A(metadata/[0-9]{12}|blobs)/[A-Za-z0-9._-]+\Z")
]


class Request(msgspec.Struct, frozen=True, kw_only=True):
    """What a node asks its parent (SPEC 5.5).

    Attributes:
        code: The place.
        public_key: SubjectPublicKeyInfo, DER.
        site, contact, equipment, link: What the programme's application form asks.
        made_at: Seconds since 1970 by the node's clock, which may be wrong.
        signature: By `public_key` over the rest: who asks has the key.
    """

    v: Literal[1] = 1
    code: Code
    public_key: Annotated[bytes, msgspec.Meta(max_length=200)]
    site: Annotated[str, msgspec.Meta(min_length=1, max_length=MAX_FIELD_CHARS, pattern=_PRINTABLE)]
    contact: Field
    equipment: Field
    link: Field
    made_at: Seconds
    signature: Signature = _SIGN_NOTHING


class Refusal(msgspec.Struct, frozen=True, kw_only=True):
    """The parent's no. It proves nothing and changes nothing; it only tells why.

    Attributes:
        spki: SHA-256 of the public key of the request that it answers.
        by: The authority.
    """

    v: Literal[1] = 1
    code: Code
    spki: Spki
    by: Code
    at: Seconds
    reason: Annotated[str, msgspec.Meta(min_length=1, max_length=300, pattern=_PRINTABLE)]


class Parent(msgspec.Struct, frozen=True):
    """Where a node that stands above another one answers.

    Attributes:
        address: `host:port`, IPv6 hosts in brackets.
    """

    code: Code
    address: Annotated[str, msgspec.Meta(max_length=260, pattern=r"\A[^\s\x00-\x1f]+:[0-9]{1,5}\Z")]


class Pack(msgspec.Struct, frozen=True, kw_only=True):
    """All that a node needs to start, and no secret (SPEC 5.6).

    Attributes:
        code: The node.
        name: The place's name for people.
        chain: The node's certificate, then the CAs above it without the nation's; DER.
        anchor: The nation's CA certificate; DER.
        nation_root: The nation's root metadata, version 1.
        objects: Metadata that the issuing centre had verified, by object path (SPEC 6.3).
        proven_time: Seconds since 1970; the node's time starts here.
        parents: In the order in which to dial. Empty for a node that only receives.
        tier: Label of the tier profile.
        receives_only: No return path: nothing on the node may need a reply or a right clock.
        vpn_shape: See the configuration.
        networks: The VPN's address ranges.
    """

    v: Literal[1] = 1
    code: Code
    name: Annotated[str, msgspec.Meta(max_length=MAX_FIELD_CHARS, pattern=_PRINTABLE)]
    chain: Annotated[tuple[Der, ...], msgspec.Meta(min_length=1, max_length=len(TIER_LABELS) + 1)]
    anchor: Der
    nation_root: Annotated[bytes, msgspec.Meta(max_length=MAX_OBJECT_BYTES)]
    objects: Annotated[
        dict[ObjectPath, Annotated[bytes, msgspec.Meta(max_length=MAX_OBJECT_BYTES)]],
        msgspec.Meta(max_length=MAX_OBJECTS),
    ]
    proven_time: Seconds
    parents: Annotated[tuple[Parent, ...], msgspec.Meta(max_length=MAX_PARENTS)]
    tier: Literal["nation", "province", "city", "county", "township", "village"]
    receives_only: bool
    vpn_shape: Literal["mesh", "hub"]
    networks: Annotated[
        tuple[Annotated[str, msgspec.Meta(max_length=64)], ...],
        msgspec.Meta(min_length=1, max_length=MAX_NETWORKS),
    ]


class SignedPack(msgspec.Struct, frozen=True, kw_only=True):
    """A pack's bytes and the signature over them by the CA that issued the node's certificate."""

    v: Literal[1] = 1
    body: Annotated[bytes, msgspec.Meta(max_length=MAX_PACK_BYTES)]
    signature: Signature


# --- Keys -----------------------------------------------------------------------------------------


def load_public_key(spki: bytes) -> PublicKey:
    """Read SubjectPublicKeyInfo; only the key types of SPEC 5.1.

    Raises:
        EnrolmentError: `node.bad-key`.
    """
    try:
        return checked_public_key(load_der_public_key(spki))
    except (ValueError, UnsupportedAlgorithm):
        raise bad_key() from None


def checked_public_key(key: object) -> PublicKey:
    """Let only the key types of SPEC 5.1 pass.

    Raises:
        EnrolmentError: `node.bad-key`.
    """
    if isinstance(key, Ed25519PublicKey) or (
        isinstance(key, EllipticCurvePublicKey) and isinstance(key.curve, SECP256R1)
    ):
        return key
    raise bad_key()


def bad_key() -> EnrolmentError:
    """The error for a key that is damaged or of another type."""
    return EnrolmentError(
        "node.bad-key", N_("This key is damaged, or neither an Ed25519 nor a P-256 key.")
    )


def public_key_der(key: PublicKey) -> bytes:
    """SubjectPublicKeyInfo."""
    return key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def spki_sha256(key: PublicKey) -> bytes:
    """What the members list knows a node by (SPEC 5.4)."""
    return hashlib.sha256(public_key_der(key)).digest()


def fingerprint(digest: bytes) -> str:
    """The first 125 bits of a SHA-256 in five groups, for people to compare: `ABCDE-…`."""
    text = base64.b32encode(digest).decode()
    return "-".join(text[start : start + 5] for start in range(0, 25, 5))


def sign(key: PrivateKey, data: bytes) -> bytes:
    """Sign; ECDSA with SHA-256 for P-256."""
    return key.sign(data) if isinstance(key, Ed25519PrivateKey) else key.sign(data, ECDSA(SHA256()))


def verify(key: PublicKey, signature: bytes, data: bytes) -> None:
    """Check a signature.

    Raises:
        InvalidSignature: from `cryptography`.
    """
    if isinstance(key, Ed25519PublicKey):
        key.verify(signature, data)
    else:
        key.verify(signature, data, ECDSA(SHA256()))


# --- Request and refusal --------------------------------------------------------------------------


def make_request(
    key: PrivateKey,
    code: Division,
    *,
    site: str,
    contact: str,
    equipment: str,
    link: str,
    made_at: int,
) -> Request:
    """Make and sign a request.

    Raises:
        EnrolmentError: `request.bad-field` when a field is empty, too long or holds control characters.
    """
    unsigned = Request(
        code=str(code),
        public_key=public_key_der(key.public_key()),
        site=site.strip(),
        contact=contact.strip(),
        equipment=equipment.strip(),
        link=link.strip(),
        made_at=made_at,
    )
    try:
        msgspec.convert(msgspec.to_builtins(unsigned, builtin_types=(bytes,)), Request, strict=True)
    except msgspec.ValidationError as error:
        raise EnrolmentError(
            "request.bad-field",
            N_(
                "The request is not in order ({detail}). A field has at most {limit} characters on one line, and the site must be named."
            ),
            fault=Fault.USAGE,
            detail=str(error),
            limit=MAX_FIELD_CHARS,
        ) from None
    request = msgspec.structs.replace(unsigned, signature=sign(key, _signed_part(unsigned)))
    assert len(_encode(request)) <= MAX_REQUEST_BYTES  # noqa: S101  # The fields' limits see to it.
    return request


def _signed_part(request: Request) -> bytes:
    return _REQUEST_DOMAIN + _encode(msgspec.structs.replace(request, signature=_SIGN_NOTHING))


def encode_request(request: Request) -> str:
    """A request as text."""
    return _as_text("REQUEST", request)


def decode_request(text: str) -> Request:
    """Read a request and check that whoever made it has the key.

    Raises:
        EnrolmentError: `request.damaged`, `request.bad-signature`, `node.bad-key`, `pack.newer`.
    """
    request = _of_text("REQUEST", text, Request)
    try:
        verify(load_public_key(request.public_key), request.signature, _signed_part(request))
    except InvalidSignature:
        raise EnrolmentError(
            "request.bad-signature",
            N_("The request was changed after it was made. Ask the node for it again."),
            fault=Fault.CONTENT,
        ) from None
    return request


def encode_refusal(refusal: Refusal) -> str:
    """A refusal as text."""
    return _as_text("REFUSAL", refusal)


def decode_refusal(text: str) -> Refusal:
    """Read a refusal.

    Raises:
        EnrolmentError: `request.damaged`, `pack.newer`.
    """
    return _of_text("REFUSAL", text, Refusal)


def is_refusal(data: bytes) -> bool:
    """Whether a file is a refusal rather than a pack."""
    return data.lstrip().upper().startswith(b"CUNTONG:REFUSAL:")


def _as_text(kind: str, paper: Request | Refusal) -> str:
    return paper_as_text(kind, _encode(paper))


S = TypeVar("S", bound=msgspec.Struct)


def _of_text(kind: str, text: str, paper: type[S]) -> S:
    data = paper_of_text(kind, text, MAX_REQUEST_BYTES)
    if data is None:
        raise _damaged("request.damaged")
    return _decode(data, paper, "request.damaged")


# --- Pack -----------------------------------------------------------------------------------------


def encode_pack(pack: Pack, issuer_key: PrivateKey) -> bytes:
    """A pack as a file, signed by the CA that issued the certificate in it."""
    body = _encode(pack)
    signed = SignedPack(body=body, signature=sign(issuer_key, _PACK_DOMAIN + body))
    return zstandard.ZstdCompressor(level=12, write_content_size=True).compress(_encode(signed))


def open_pack(data: bytes) -> tuple[Pack, SignedPack]:
    """Read a pack. Nothing in it is proven yet: check its chain, then `verify_pack`.

    Raises:
        EnrolmentError: `pack.damaged`, `pack.newer`.
    """
    signed = _decode(_unpack(data), SignedPack, "pack.damaged")
    pack = _decode(signed.body, Pack, "pack.damaged")
    try:
        for network in pack.networks:
            ipaddress.ip_network(network)
        above = Division(pack.code).ancestors
    except ValueError:
        raise _damaged("pack.damaged") from None
    if any(parent.code not in above for parent in pack.parents):
        raise _damaged("pack.damaged")
    if pack.receives_only and pack.parents:
        raise _damaged("pack.damaged")
    return pack, signed


def verify_pack(signed: SignedPack, issuer_key: PublicKey) -> None:
    """Check that the CA which issued the node's certificate also made this pack.

    Raises:
        EnrolmentError: `pack.bad-signature`.
    """
    try:
        verify(issuer_key, signed.signature, _PACK_DOMAIN + signed.body)
    except InvalidSignature:
        raise EnrolmentError(
            "pack.bad-signature",
            N_("The pack was changed after it was made. Get it from the parent again."),
            fault=Fault.CONTENT,
        ) from None


def _unpack(data: bytes) -> bytes:
    if len(data) <= MAX_PACK_FILE_BYTES:
        try:
            size = zstandard.frame_content_size(data)
            if 0 < size <= MAX_PACK_BYTES:
                return zstandard.ZstdDecompressor().decompress(
                    data, max_output_size=size, allow_extra_data=False
                )
        except zstandard.ZstdError:
            pass
    raise _damaged("pack.damaged")


# --- msgpack --------------------------------------------------------------------------------------


class _Version(msgspec.Struct):
    v: int


def _encode(value: msgspec.Struct) -> bytes:
    return msgspec.msgpack.encode(value, order="sorted")


def _decode(data: bytes, kind: type[S], damaged: str) -> S:
    try:
        if msgspec.msgpack.decode(data, type=_Version).v > VERSION:
            raise EnrolmentError(
                "pack.newer",
                N_("This file was made by a newer version of the program. Update this node first."),
                fault=Fault.CONTENT,
            )
        return msgspec.msgpack.decode(data, type=kind, strict=True)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        raise _damaged(damaged) from None


def _damaged(code: str) -> EnrolmentError:
    sentences: dict[str, Any] = {
        "request.damaged": N_(
            "This is not a request or a refusal, or it is damaged. Copy it again."
        ),
        "pack.damaged": N_("This is not an enrolment pack, or it is damaged. Copy it again."),
    }
    return EnrolmentError(code, sentences[code], fault=Fault.CONTENT)

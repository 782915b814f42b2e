"""Packets of the datacast: ALC/LCT with RaptorQ symbols, and what makes them trusted (SPEC 11.2 to 11.4).

One UDP payload is one packet: an LCT header of RFC 5651 (16 bytes, always the same fields), then what its codepoint
says. Nothing in a packet tells the size of anything that would be allocated, decoded or written: sizes come from
what is signed.
"""

from __future__ import annotations

import enum
import hashlib
import struct
from collections.abc import Callable, Sequence
from typing import Annotated

import msgspec

from .errors import BadPacketError
from .objects import Ref

WIRE_VERSION = 1
SYMBOL_BYTES = 1344
"""A multiple of 64, so that RaptorQ needs no sub-blocks; 1,392 bytes with IP, which leaves room for tunnels."""
HEADER_BYTES = 16
PAYLOAD_ID_BYTES = 4
PACKET_BYTES = HEADER_BYTES + PAYLOAD_ID_BYTES + SYMBOL_BYTES
"""Of every packet with a symbol; no packet is longer."""
IP_BYTES = 28
"""Headers of IPv4 and UDP, which count as sent."""
MAX_SESSION = (1 << 28) - 1
MAX_TOI = (1 << 32) - 1
MAX_ESI = (1 << 24) - 1
DIGEST_BYTES = 8
"""A forger needs a second packet for the very place that has the same digest, 2^64 attempts, before the block is whole."""
DIGESTS_AT_ONCE = 128
MAX_SEGMENTS = 16
GROUP_SYMBOLS = 64
"""That follow their digests. Those of the group before come once more: with a loss of 5 % one symbol of 400 stays unverified,
and not one of 20, which are lost for all when one of them is forged."""
GROUP_SEGMENTS = 8
SIGNATURE_BYTES = 64
KEY_ID_BYTES = 8
MAX_CERTIFICATE_BYTES = 1300
"""A node's or CA's certificate has 450 to 700 bytes."""

Sign = Callable[[bytes], bytes]
"""Gives a signature of 64 bytes (Ed25519, or P-256 as r and s)."""
Verify = Callable[[bytes, bytes], bool]
"""Whether a signature (second) of these bytes (first) is the sender's."""

_CONTEXT = b"cuntong datacast 1\0"
_HEADER = struct.Struct(">IIII")
_SYMBOL_HEADER = struct.Struct(">IIIII")
_SEGMENT = struct.Struct(">BIIB")
_FIRST_WORD = 0x10A0_0400
"""LCT version 1, C=0, PSI=0, S=1, O=1, H=0, A=0, B=0, header of 4 words; then the codepoint."""


class Channel(enum.IntEnum):
    """What a packet belongs to; the low four bits of the TSI."""

    CONTROL = 0
    CATALOGUE = 1
    MANIFEST = 2
    CONTENT = 3


class Codepoint(enum.IntEnum):
    """The kind of a packet. 6 is the FEC encoding ID of RaptorQ (RFC 6330)."""

    SYMBOL = 6
    DIGESTS = 128
    BEACON = 129
    IDENTITY = 130
    FILLER = 131


_SYMBOL_WORD = _FIRST_WORD | Codepoint.SYMBOL
_CODEPOINTS = {_FIRST_WORD | codepoint: codepoint for codepoint in Codepoint}
_CHANNELS = frozenset(Channel)


class Header(msgspec.Struct, frozen=True):
    """The fields of a header that aren't always the same."""

    codepoint: Codepoint
    session: int
    channel: Channel
    toi: int


class Symbol(msgspec.Struct, frozen=True):
    """Where an encoding symbol belongs; its bytes are the packet's from `PACKET_BYTES - SYMBOL_BYTES` on."""

    channel: Channel
    toi: int
    esi: int


class Segment(msgspec.Struct, frozen=True):
    """Symbols that follow each other in one block, and what their packets hash to.

    Attributes:
        first_esi: Of the first; each next one is one more.
        digests: `digest` of each packet.
    """

    channel: Channel
    toi: int
    first_esi: int
    digests: tuple[bytes, ...]


class Beacon(msgspec.Struct, frozen=True, kw_only=True):
    """What a sender says of itself every second.

    Attributes:
        sender: Its division code.
        number: Grows with each beacon of the session.
        time: The sender's clock, seconds since 1970.
        key: The first 8 bytes of the SHA-256 of its public key (SubjectPublicKeyInfo).
        rate_bytes_s: What it sends, IP headers included.
        symbol_bytes: Of the session; this version knows 1,344 only.
        catalogue: Version of the sender's newest timestamp (SPEC 4.1).
        programme: What is on the air.
    """

    v: Annotated[int, msgspec.Meta(ge=1)] = WIRE_VERSION
    sender: Annotated[str, msgspec.Meta(pattern=r"\A[0-9]{12}\Z", max_length=12)]
    number: Annotated[int, msgspec.Meta(ge=0, le=1 << 53)]
    time: Annotated[int, msgspec.Meta(ge=0, le=1 << 40)]
    key: Annotated[bytes, msgspec.Meta(min_length=KEY_ID_BYTES, max_length=KEY_ID_BYTES)]
    rate_bytes_s: Annotated[int, msgspec.Meta(ge=1, le=1 << 40)]
    symbol_bytes: Annotated[int, msgspec.Meta(ge=1, le=65_535)] = SYMBOL_BYTES
    catalogue: Annotated[int, msgspec.Meta(ge=0, le=1 << 53)] = 0
    programme: Ref | None = None


class _Identity(msgspec.Struct, frozen=True, kw_only=True):
    v: Annotated[int, msgspec.Meta(ge=1)] = WIRE_VERSION
    certificate: Annotated[bytes, msgspec.Meta(min_length=1, max_length=MAX_CERTIFICATE_BYTES)]


class _Version(msgspec.Struct, frozen=True):
    v: Annotated[int, msgspec.Meta(ge=1)] = WIRE_VERSION


_ENCODER = msgspec.msgpack.Encoder(order="deterministic")
_VERSION = msgspec.msgpack.Decoder(_Version)
_BEACON = msgspec.msgpack.Decoder(Beacon)
_IDENTITY = msgspec.msgpack.Decoder(_Identity)


def _header(codepoint: Codepoint, session: int, channel: Channel, toi: int) -> bytes:
    return _HEADER.pack(_FIRST_WORD | codepoint, 0, session << 4 | channel, toi)


def read_header(packet: bytes | memoryview) -> Header:
    """The header of any packet.

    Raises:
        BadPacketError: it isn't one of ours, or has not the length that its codepoint demands.
    """
    size = len(packet)
    if size < HEADER_BYTES:
        raise BadPacketError("truncated")
    if size > PACKET_BYTES:
        raise BadPacketError("oversized")
    word, congestion, tsi, toi = _HEADER.unpack_from(packet)
    if word >> 28 != 1:
        raise BadPacketError("wrong-version")
    codepoint = _CODEPOINTS.get(word)
    channel = tsi & 15
    if codepoint is None or congestion or channel not in _CHANNELS:
        raise BadPacketError("malformed")
    if codepoint is Codepoint.SYMBOL:
        if size < PACKET_BYTES:
            raise BadPacketError("truncated")
    elif channel != Channel.CONTROL or toi:
        raise BadPacketError("malformed")
    return Header(codepoint, tsi >> 4, Channel(channel), toi)


# Symbols.


def symbol_packet(session: int, channel: Channel, toi: int, esi: int, symbol: bytes) -> bytes:
    """A packet with one encoding symbol of `SYMBOL_BYTES`."""
    return _SYMBOL_HEADER.pack(_SYMBOL_WORD, 0, session << 4 | channel, toi, esi) + symbol


def read_symbol(packet: bytes | memoryview) -> Symbol:
    """Where a packet's symbol belongs; `read_header` has found nothing wrong with it.

    Raises:
        BadPacketError: it has a source block number, as no block of ours has.
    """
    _, _, tsi, toi, payload_id = _SYMBOL_HEADER.unpack_from(packet)
    if payload_id > MAX_ESI:
        raise BadPacketError("bad-symbol")
    channel = tsi & 15
    if channel == Channel.CONTROL:
        raise BadPacketError("malformed")
    return Symbol(Channel(channel), toi, payload_id)


def digest(packet: bytes | memoryview) -> bytes:
    """What stands for a packet in a digest packet: BLAKE2b of 8 bytes over all of it."""
    return hashlib.blake2b(packet, digest_size=DIGEST_BYTES).digest()


# Digests.


def digest_packet(session: int, segments: Sequence[Segment], sign: Sign) -> bytes:
    """A signed packet for up to 64 symbols that follow it, and the 64 before it, each in up to 8 segments."""
    parts = [_header(Codepoint.DIGESTS, session, Channel.CONTROL, 0), bytes([len(segments)])]
    parts += [
        _SEGMENT.pack(segment.channel, segment.toi, segment.first_esi, len(segment.digests))
        for segment in segments
    ]
    parts += [b"".join(segment.digests) for segment in segments]
    data = b"".join(parts)
    return data + sign(_CONTEXT + data)


def read_digests(packet: bytes, verify: Verify) -> list[Segment]:
    """What a digest packet vouches for.

    Raises:
        BadPacketError: it is malformed, or the signature isn't the sender's.
    """
    data, signature = packet[:-SIGNATURE_BYTES], packet[-SIGNATURE_BYTES:]
    if len(data) <= HEADER_BYTES:
        raise BadPacketError("truncated")
    count = data[HEADER_BYTES]
    start = HEADER_BYTES + 1 + count * _SEGMENT.size
    if not 0 < count <= MAX_SEGMENTS or len(data) < start:
        raise BadPacketError("malformed")
    heads = list(_SEGMENT.iter_unpack(data[HEADER_BYTES + 1 : start]))
    total = sum(head[3] for head in heads)
    if not 0 < total <= DIGESTS_AT_ONCE or len(data) != start + total * DIGEST_BYTES:
        raise BadPacketError("malformed")
    if any(
        channel not in _CHANNELS
        or channel == Channel.CONTROL
        or not symbols
        or first + symbols - 1 > MAX_ESI
        for channel, _, first, symbols in heads
    ):
        raise BadPacketError("malformed")
    if not verify(_CONTEXT + data, signature):
        raise BadPacketError("bad-signature")
    found: list[Segment] = []
    for channel, toi, first, symbols in heads:
        end = start + symbols * DIGEST_BYTES
        digests = tuple(data[at : at + DIGEST_BYTES] for at in range(start, end, DIGEST_BYTES))
        found.append(Segment(Channel(channel), toi, first, digests))
        start = end
    return found


# Beacon, identity, filler.


def beacon_packet(session: int, beacon: Beacon, sign: Sign) -> bytes:
    """A signed beacon."""
    data = _header(Codepoint.BEACON, session, Channel.CONTROL, 0) + _ENCODER.encode(beacon)
    return data + sign(_CONTEXT + data)


def peek_beacon(packet: bytes) -> Beacon:
    """What a beacon says, before anybody knows whether it is true: to find the key that proves it.

    Raises:
        BadPacketError: it is malformed, or of a newer version.
    """
    body = packet[HEADER_BYTES:-SIGNATURE_BYTES]
    try:
        if _VERSION.decode(body).v > WIRE_VERSION:
            raise BadPacketError("wrong-version")
        beacon = _BEACON.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise BadPacketError("malformed") from None
    if beacon.symbol_bytes != SYMBOL_BYTES:
        raise BadPacketError("wrong-version")
    return beacon


def check_beacon(packet: bytes, verify: Verify) -> None:
    """Prove a beacon.

    Raises:
        BadPacketError: the signature isn't the sender's.
    """
    if not verify(_CONTEXT + packet[:-SIGNATURE_BYTES], packet[-SIGNATURE_BYTES:]):
        raise BadPacketError("bad-signature")


def identity_packet(session: int, certificate: bytes) -> bytes:
    """One certificate (DER) of the chain that leads from the sender up to the nation's CA, without that one."""
    head = _header(Codepoint.IDENTITY, session, Channel.CONTROL, 0)
    return head + _ENCODER.encode(_Identity(certificate=certificate))


def read_identity(packet: bytes) -> bytes:
    """The certificate (DER) in an identity packet; nothing proves it but itself.

    Raises:
        BadPacketError: it is malformed, or of a newer version.
    """
    try:
        identity = _IDENTITY.decode(packet[HEADER_BYTES:])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise BadPacketError("malformed") from None
    if identity.v > WIRE_VERSION:
        raise BadPacketError("wrong-version")
    return identity.certificate


def filler_packet(session: int) -> bytes:
    """A packet that says nothing, so that the modem has something to send."""
    head = _header(Codepoint.FILLER, session, Channel.CONTROL, 0)
    return head + bytes(PACKET_BYTES - HEADER_BYTES)

"""The messages of the control link and their byte form (SPEC 6.1 to 6.3).

A message is a msgpack array `[type, fields…]`; the type is a number below 128 and there are at most 14
fields, so the first two bytes of a payload always tell array and type. Types that this version doesn't
know are skipped, and so are further fields at the end: that is how later versions add to the protocol.

Limits stand in the types themselves: what decodes is within them.
"""

from __future__ import annotations

import enum
import ipaddress
from typing import Annotated, TypeAlias

import msgspec

from cuntong_protocol.divisions import Division
from cuntong_protocol.errors import CuntongError, Fault
from cuntong_protocol.texts import N_, Sentence

from .errors import LinkError

LINK_VERSION = 1
"""Written in `Hello` and `Welcome`; both ends speak the lower of the two."""
MAX_FRAME_BYTES = 65_536
"""The longest payload: SPEC 6.1."""
CHUNK_BYTES = 16_384
"""Object bytes in one message: a TLS record, and 0.26 s on a link of 512 kbit/s, which a ping has to wait."""
MAX_OBJECT_BYTES = 32 * 1024 * 1024
"""The largest object: about twelve times the metadata of 10,000 bundles in one file."""
MAX_ANNOUNCEMENTS = 512
"""In one message (below 32 KiB); more go into several."""
MAX_HAVES = 512
MAX_INTRODUCED = 64
"""Peers for one bundle; libtorrent keeps fewer connections than that on a village's box."""
MAX_PATH_CHARS = 200
MAX_PEM_CHARS = 32_768
"""A chain of five certificates is about 4 kB."""
MAX_REPORT_BYTES = 32_768
"""The longest timestamp (16 KiB) in base64, with what it contradicts: whoever equivocates chooses its length."""
MAX_PUBLIC_KEY_BYTES = 128
"""P-256 has 91 bytes, Ed25519 44."""
MAX_CERTIFICATE_BYTES = 4096
"""One certificate in DER; ours have below 600 bytes."""

_FIX_ARRAY = 0x90
_MAX_TYPE = 0x7F

Count: TypeAlias = Annotated[int, msgspec.Meta(ge=0, le=2**53)]
Version: TypeAlias = Annotated[int, msgspec.Meta(ge=1, le=2**31)]
RequestId: TypeAlias = Annotated[int, msgspec.Meta(ge=0, le=2**32 - 1)]
Port: TypeAlias = Annotated[int, msgspec.Meta(ge=0, le=65_535)]
Digest: TypeAlias = Annotated[bytes, msgspec.Meta(min_length=32, max_length=32)]
"""A SHA-256, or a v2 infohash, which is one too."""
Tag: TypeAlias = Annotated[bytes, msgspec.Meta(max_length=8)]
Path: TypeAlias = Annotated[
    str,
    msgspec.Meta(
        max_length=MAX_PATH_CHARS, pattern=r"\A(?!.*(\.\.|//))[A-Za-z0-9_-][A-Za-z0-9._/-]*\Z"
    ),
]
"""Plain enough that it can't lead out of a folder; still, whoever serves it checks the whole name."""
Seconds: TypeAlias = Annotated[int, msgspec.Meta(ge=0, le=2**40)]


class Message(msgspec.Struct, frozen=True, array_like=True):
    """Base of all messages."""


class Hello(Message, frozen=True, tag=1):
    """The child's first words.

    Attributes:
        version: The highest link version it speaks.
        code: Its division; must be the one in its certificate.
        software: For the operator's eyes only.
        tier: Label of its tier profile.
        swarm_port: Where its BitTorrent session listens; 0 while it doesn't.
        closed_swarm_port: The same for closed torrents (SPEC 7.6); older versions don't say it.
    """

    version: Version
    code: Division
    software: Annotated[str, msgspec.Meta(max_length=80)]
    tier: Annotated[str, msgspec.Meta(max_length=20)]
    swarm_port: Port
    closed_swarm_port: Port = 0


class Welcome(Message, frozen=True, tag=2):
    """The parent accepts; from here on the link is open.

    Attributes:
        version: The version that both ends now speak.
        code: The parent's division; must be the one in its certificate.
        time: The parent's clock, UTC seconds.
        swarm_port: Where its BitTorrent session listens; 0 while it doesn't.
        proven_time: The highest signed time of the nation that the parent has verified, UTC seconds.
        closed_swarm_port: As in `Hello`.
    """

    version: Version
    code: Division
    time: Seconds
    swarm_port: Port
    proven_time: Seconds
    closed_swarm_port: Port = 0


class Refused(Message, frozen=True, tag=3):
    """The parent refuses this node, at the start or later, and says why. It then closes."""

    reason: Sentence


class Announcement(msgspec.Struct, frozen=True, array_like=True):
    """The newest timestamp of one authority that the sender has verified."""

    authority: Division
    version: Version
    sha256: Digest


class Announce(Message, frozen=True, tag=4):
    """What is new since the last one; the first holds all."""

    entries: Annotated[list[Announcement], msgspec.Meta(max_length=MAX_ANNOUNCEMENTS)]


class Get(Message, frozen=True, tag=5):
    """Asks for an object (SPEC 6.3).

    Attributes:
        id: Named in the answer; unique among those not yet answered.
        path: The object's name.
        max_bytes: A larger object isn't sent at all.
        base: SHA-256 of an object that the asker has and that may serve as zstd dictionary; empty: none.
        offset: Encoded bytes that the asker already has, of the form called `form`.
        form: `ObjectHead.form` of the interrupted transfer; empty when there was none.
    """

    id: RequestId
    path: Path
    max_bytes: Annotated[int, msgspec.Meta(ge=0, le=MAX_OBJECT_BYTES)]
    base: Annotated[bytes, msgspec.Meta(max_length=32)] = b""
    offset: Count = 0
    form: Tag = b""


class Encoding(enum.IntEnum):
    """How an object's bytes travel."""

    PLAIN = 0
    ZSTD = 1
    PATCH = 2
    """zstd with the asker's base as raw dictionary."""


class ObjectHead(Message, frozen=True, tag=6):
    """Starts the answer to a `Get`; small objects need nothing more.

    Attributes:
        id: Of the `Get`.
        size: Of the object.
        sha256: Of the object.
        encoding: How it travels.
        encoded_size: Bytes in that form; never more than `size`.
        form: The first 8 bytes of the SHA-256 of the encoded form: tells whether a transfer can go on.
        offset: Where this answer starts in the encoded form: the asker's, or 0 when the form is another.
        data: The first bytes from there.
    """

    id: RequestId
    size: Annotated[int, msgspec.Meta(ge=0, le=MAX_OBJECT_BYTES)]
    sha256: Digest
    encoding: Encoding
    encoded_size: Annotated[int, msgspec.Meta(ge=0, le=MAX_OBJECT_BYTES)]
    form: Tag
    offset: Count
    data: Annotated[bytes, msgspec.Meta(max_length=CHUNK_BYTES)]


class ObjectChunk(Message, frozen=True, tag=7):
    """The next bytes of an object's encoded form."""

    id: RequestId
    data: Annotated[bytes, msgspec.Meta(min_length=1, max_length=CHUNK_BYTES)]


class NotFound(Message, frozen=True, tag=8):
    """There is no such object here, or none of at most `Get.max_bytes`."""

    id: RequestId


class HaveState(enum.IntEnum):
    """What a child has of a bundle."""

    GONE = 0
    WANTED = 1
    PARTIAL = 2
    COMPLETE = 3


class HaveItem(msgspec.Struct, frozen=True, array_like=True):
    """One bundle in a `Have`; `permille` of it is on the child's disk."""

    infohash: Digest
    state: HaveState
    permille: Annotated[int, msgspec.Meta(ge=0, le=1000)]


class Have(Message, frozen=True, tag=9):
    """What changed in the child's bundles; the first ones after `Welcome` name all of them."""

    items: Annotated[list[HaveItem], msgspec.Meta(max_length=MAX_HAVES)]


class PeerAddress(msgspec.Struct, frozen=True, array_like=True):
    """Where a BitTorrent peer listens: a literal IPv4 or IPv6 address without a zone."""

    ip: Annotated[str, msgspec.Meta(max_length=45)]
    port: Annotated[int, msgspec.Meta(ge=1, le=65_535)]

    def __post_init__(self) -> None:
        if "%" in self.ip:
            raise ValueError("an address with a zone means nothing on another machine")
        ipaddress.ip_address(self.ip)


class Introduce(Message, frozen=True, tag=10):
    """Whom to connect to for one bundle; replaces what was said about it before."""

    infohash: Digest
    peers: Annotated[list[PeerAddress], msgspec.Meta(max_length=MAX_INTRODUCED)]


class Order(Message, frozen=True, tag=11):
    """The child's reading room asks for a bundle by its identifier."""

    bundle: Annotated[
        str, msgspec.Meta(max_length=90, pattern=r"\A[0-9]{12}/[0-9]{6}/[a-z0-9-]+\Z")
    ]


class OrderResult(Message, frozen=True, tag=12):
    """What the parent says to an order."""

    bundle: Annotated[str, msgspec.Meta(max_length=90)]
    answer: Sentence


class Notice(Message, frozen=True, tag=13):
    """Something that the child's operator should read."""

    text: Sentence


class Certificate(Message, frozen=True, tag=14):
    """A renewed certificate with its chain, PEM, for the child's unchanged key."""

    chain: Annotated[str, msgspec.Meta(min_length=1, max_length=MAX_PEM_CHARS)]


class Report(Message, frozen=True, tag=15):
    """Evidence for the authority above; what `body` holds depends on `kind`."""

    kind: Annotated[str, msgspec.Meta(max_length=40, pattern=r"\A[a-z0-9-]+\Z")]
    body: Annotated[bytes, msgspec.Meta(max_length=MAX_REPORT_BYTES)]


class Ping(Message, frozen=True, tag=16):
    """Asks for a sign of life."""

    nonce: RequestId


class Pong(Message, frozen=True, tag=17):
    """The answer, with the ping's nonce."""

    nonce: RequestId


class Bye(Message, frozen=True, tag=18):
    """The sender closes, and says why."""

    reason: Sentence


class SwarmRequest(Message, frozen=True, tag=19):
    """Asks a publisher above for a certificate for its closed torrents (SPEC 7.6).

    It is handed upwards until it reaches the publisher. Whoever hands it on vouches that it came from the link to
    the child above or at the asker, and that the asker isn't removed, as far as it knows.

    Attributes:
        publisher: Whose swarm CA is asked.
        asker: The node that the certificate is for.
        public_key: Of the asker (SubjectPublicKeyInfo, DER); the key of its node certificate.
    """

    publisher: Division
    asker: Division
    public_key: Annotated[bytes, msgspec.Meta(min_length=1, max_length=MAX_PUBLIC_KEY_BYTES)]


class SwarmCertificate(Message, frozen=True, tag=20):
    """The answer to a `SwarmRequest`; it is handed down to the asker.

    Attributes:
        publisher: As in the request.
        asker: As in the request.
        certificate: DER; empty when it is refused.
        refusal: Why it is refused.
    """

    publisher: Division
    asker: Division
    certificate: Annotated[bytes, msgspec.Meta(max_length=MAX_CERTIFICATE_BYTES)] = b""
    refusal: Sentence | None = None


class Bandwidth(Message, frozen=True, tag=21):
    """What may cross the child's link, said by either side; the newest one of each side holds (SPEC 10.7).

    Down is towards the child, whoever says it. The lower limit of both sides wins, and so does a pause. The
    sender of payload keeps a limit best, so a parent takes `limit_down_bytes_s` as its own for this child.

    Attributes:
        link_down_bytes_s: What the link carries, as far as the child knows; 0: not known. A parent says 0.
        link_up_bytes_s: The same for the other direction.
        limit_down_bytes_s: 0 for no limit.
        limit_up_bytes_s: 0 for no limit.
        is_paused: Nothing may be moved in either direction.
        seconds: How long limits and pause hold, counted from when this arrives, since clocks may be wrong; 0: until
            the next of these, or the end of the control link.
        reason: For the operator at the other end.
    """

    link_down_bytes_s: Count
    link_up_bytes_s: Count
    limit_down_bytes_s: Count
    limit_up_bytes_s: Count
    is_paused: bool
    seconds: Annotated[int, msgspec.Meta(ge=0, le=2**32 - 1)]
    reason: Sentence | None = None


AnyMessage: TypeAlias = (
    Hello
    | Welcome
    | Refused
    | Announce
    | Get
    | ObjectHead
    | ObjectChunk
    | NotFound
    | Have
    | Introduce
    | Order
    | OrderResult
    | Notice
    | Certificate
    | Report
    | Ping
    | Pong
    | Bye
    | SwarmRequest
    | SwarmCertificate
    | Bandwidth
)
MESSAGES: tuple[type[Message], ...] = AnyMessage.__args__
_KNOWN_TYPES = frozenset(message.__struct_config__.tag for message in MESSAGES)


def _decode_hook(wanted: type, value: object) -> object:
    if wanted is Division and isinstance(value, str):
        try:
            return Division(value)
        except CuntongError as error:
            raise ValueError(str(error)) from error
    raise ValueError(f"expected {wanted.__name__}")


_encoder = msgspec.msgpack.Encoder(enc_hook=str)
_decoder: msgspec.msgpack.Decoder[AnyMessage] = msgspec.msgpack.Decoder(
    AnyMessage, dec_hook=_decode_hook
)


def encode_payload(message: Message) -> bytes:
    """The msgpack form of a message."""
    return _encoder.encode(message)


def check_message(message: Message) -> None:
    """Make sure that a message of ours is within its own limits: the other end would end the link.

    Raises:
        LinkError: `link.misuse` with `Fault.OURS`.
    """
    try:
        _decoder.decode(_encoder.encode(message))
    except (msgspec.MsgspecError, ValueError) as error:
        raise LinkError(
            "link.misuse",
            N_("{kind} can't be sent: {reason}."),
            fault=Fault.OURS,
            kind=type(message).__name__,
            reason=str(error),
        ) from error


def decode_payload(payload: bytes) -> AnyMessage | None:
    """Read one payload, strictly.

    Returns:
        None for a type that this version doesn't know: it is skipped unread.

    Raises:
        LinkError: `link.bad-message`.
    """
    if len(payload) < 2 or not _FIX_ARRAY < payload[0] <= _FIX_ARRAY | 0x0F:
        raise _bad_message("array")
    if payload[1] > _MAX_TYPE:
        raise _bad_message("type")
    if payload[1] not in _KNOWN_TYPES:
        return None
    try:
        return _decoder.decode(payload)
    # msgspec lets errors of nesting and of text pass as they are.
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise _bad_message(f"{type(error).__name__}, type {payload[1]}") from error


def _bad_message(detail: str) -> LinkError:
    return LinkError(
        "link.bad-message",
        N_("The other end sent a message that can't be read ({detail})."),
        detail=detail,
    )

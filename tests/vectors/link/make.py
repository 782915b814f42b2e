"""Makes the vectors of the control link: `python -m tests.vectors.link.make` (see README.md)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec

from cuntong_protocol.divisions import Division
from cuntong_protocol.link.frames import encode_frame
from cuntong_protocol.link.messages import (
    MESSAGES,
    Announce,
    Announcement,
    Bandwidth,
    Bye,
    Certificate,
    Encoding,
    Get,
    Have,
    HaveItem,
    HaveState,
    Hello,
    Introduce,
    Message,
    NotFound,
    Notice,
    ObjectChunk,
    ObjectHead,
    Order,
    OrderResult,
    PeerAddress,
    Ping,
    Pong,
    Refused,
    Report,
    SwarmCertificate,
    SwarmRequest,
    Welcome,
)
from cuntong_protocol.texts import Sentence

HERE = Path(__file__).parent
A, B = bytes(range(32)), bytes(range(32, 64))
WHY = Sentence("node.removed", "{node} was removed on {date}.", {"node": "x", "date": "2027-03-01"})

GOOD: dict[str, Message] = {
    "hello": Hello(1, Division("441900003005"), "cuntong 0.1.0", "village", 6881, 6882),
    "welcome": Welcome(1, Division("441900000000"), 1_800_000_000, 6881, 1_799_996_400, 6882),
    "refused": Refused(WHY),
    "announce": Announce(
        [
            Announcement(Division("000000000000"), 1, A),
            Announcement(Division("440000000000"), 2**31, B),
        ]
    ),
    "get": Get(7, "metadata/440000000000/8.202611.json", 65_536),
    "get-patch": Get(8, "metadata/440000000000/9.targets.json", 2**20, B),
    "get-resume": Get(2**32 - 1, f"blobs/{A.hex()}", 32 * 2**20, b"", 123_456, b"12345678"),
    "object-head": ObjectHead(7, 5, A, Encoding.PLAIN, 5, b"abcdefgh", 0, b"hello"),
    "object-chunk": ObjectChunk(7, b"more"),
    "not-found": NotFound(7),
    "have": Have([HaveItem(A, HaveState.PARTIAL, 512), HaveItem(B, HaveState.COMPLETE, 1000)]),
    "introduce": Introduce(A, [PeerAddress("10.44.19.0", 6881), PeerAddress("fd00::1", 65_535)]),
    "order": Order("441900000000/202611/yueju"),
    "order-result": OrderResult("441900000000/202611/yueju", WHY),
    "notice": Notice(WHY),
    "certificate": Certificate("-----BEGIN CERTIFICATE-----\n"),
    "report": Report("equivocation", b"\x00\x01\x02"),
    "ping": Ping(1),
    "pong": Pong(1),
    "bye": Bye(WHY),
    "swarm-request": SwarmRequest(Division("440000000000"), Division("441900003005"), A + b"key"),
    "swarm-certificate": SwarmCertificate(
        Division("440000000000"), Division("441900003005"), b"0\x82"
    ),
    "swarm-refusal": SwarmCertificate(Division("440000000000"), Division("441900003005"), b"", WHY),
    "bandwidth": Bandwidth(64_000, 16_000, 3_200, 0, False, 2, WHY),
    "bandwidth-pause": Bandwidth(0, 0, 0, 14_400, True, 0),
}
OLD: dict[str, Message] = {
    "old-hello": Hello(1, Division("441900003005"), "cuntong 0.1.0", "village", 6881),
    "old-welcome": Welcome(1, Division("441900000000"), 1_800_000_000, 6881, 1_799_996_400),
}
"""Of versions that knew fewer fields, which are at their default now."""


def framed(payload: bytes) -> bytes:
    """A payload made by hand, as a frame."""
    return len(payload).to_bytes(4, "big") + payload


def bad() -> dict[str, tuple[bytes, str | None]]:
    """Streams and the code of the error that they end with; None: nothing is said, more bytes are awaited."""
    ping, get = encode_frame(GOOD["ping"]), encode_frame(GOOD["get"])
    return {
        "truncated-length": (ping[:3], None),
        "truncated-payload": (get[:-1], None),
        "truncated-message": (framed(get[4:-1]), "link.bad-message"),
        "too-long": (b"\x00\x01\x00\x01", "link.too-long"),
        "unknown-type": (framed(b"\x92\x63\xa3new"), None),
        "empty": (framed(b""), "link.bad-message"),
        "no-array": (framed(b"\x81\x10\x01"), "link.bad-message"),
        "long-array": (framed(b"\xdc\x00\x02\x10\x01"), "link.bad-message"),
        "missing-field": (framed(b"\x91\x10"), "link.bad-message"),
        "wrong-kind": (framed(b"\x92\x10\xa11"), "link.bad-message"),
        "negative": (framed(b"\x92\x10\xff"), "link.bad-message"),
        "trailing": (framed(b"\x92\x10\x01\x00"), "link.bad-message"),
        "deep": (framed(b"\x93\x10\x01" + b"\x91" * 60_000 + b"\x00"), "link.bad-message"),
        "path-upwards": (get.replace(b"metadata", b"../etc/x"), "link.bad-message"),
        "path-out": (get.replace(b"440000000000", b"44/../../etc"), "link.bad-message"),
        "long-key": (
            framed(
                encode_frame(GOOD["swarm-request"])[4:].replace(
                    b"\xc4\x23" + A + b"key", b"\xc4\x81" + bytes(129)
                )
            ),
            "link.bad-message",
        ),
        "no-key": (
            framed(
                encode_frame(GOOD["swarm-request"])[4:].replace(
                    b"\xc4\x23" + A + b"key", b"\xc4\x00"
                )
            ),
            "link.bad-message",
        ),
        "negative-limit": (
            framed(b"\x97\x15\x00\x00\xff\x00\xc2\x00"),
            "link.bad-message",
        ),
        "short-hash": (framed(b"\x92\x09\x91\x93\xc4\x01a\x01\x00"), "link.bad-message"),
        "host-name": (
            framed(b"\x93\x0a\xc4\x20" + A + b"\x91\x92\xa9localhost\x05"),
            "link.bad-message",
        ),
    }


def schema() -> dict[str, Any]:
    """Number, fields, kinds and limits of each message, as `schema.json` has them."""

    def of_hook(kind: type) -> dict[str, Any]:
        assert kind is Division
        return {"type": "string", "pattern": "[0-9]{12}"}

    shapes, parts = msgspec.json.schema_components(MESSAGES, schema_hook=of_hook)
    for part in parts.values():
        part.pop("description", None)
    return {
        "messages": [shape["$ref"].rsplit("/", 1)[1] for shape in shapes],
        "fields": {kind.__name__: list(kind.__struct_fields__) for kind in MESSAGES},
        "parts": dict(sorted(parts.items())),
    }


def main() -> None:
    """Write all files anew."""
    index: dict[str, Any] = {"good": {}, "bad": {}}
    for name, message in GOOD.items():
        (HERE / f"good-{name}.bin").write_bytes(encode_frame(message))
        index["good"][name] = repr(message)
    for name, message in OLD.items():
        # The last field is a small number at its default: one byte.
        payload = encode_frame(message)[4:]
        old = framed(bytes([payload[0] - 1]) + payload[1:-1])
        (HERE / f"good-{name}.bin").write_bytes(old)
        index["good"][name] = repr(message)
    # A later version's message: one field more than we know.
    payload = encode_frame(GOOD["pong"])[4:]
    (HERE / "good-unknown-field.bin").write_bytes(
        framed(bytes([payload[0] + 1]) + payload[1:] + b"\xa3new")
    )
    index["good"]["unknown-field"] = repr(GOOD["pong"])
    for name, (data, code) in bad().items():
        (HERE / f"bad-{name}.bin").write_bytes(data)
        index["bad"][name] = code
    (HERE / "index.json").write_text(json.dumps(index, indent=1, ensure_ascii=False) + "\n")
    (HERE / "schema.json").write_text(json.dumps(schema(), indent=1) + "\n")


if __name__ == "__main__":
    main()

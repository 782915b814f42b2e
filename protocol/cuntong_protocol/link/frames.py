"""Frames: 4 bytes of length (big endian), then the payload (SPEC 6.1)."""

from __future__ import annotations

from cuntong_protocol.errors import Fault
from cuntong_protocol.texts import N_

from .errors import LinkError
from .messages import MAX_FRAME_BYTES, Message, encode_payload

HEADER_BYTES = 4
HELLO_FRAME_BYTES = 4096
"""The longest frame before the link is open: a `Refused` with the longest sentence fits twice, and whoever
hasn't been welcomed can't make the other end hold more."""


def encode_frame(message: Message) -> bytes:
    """A message as it goes onto the wire.

    Raises:
        LinkError: `link.too-long`, our own fault, when it doesn't fit into a frame.
    """
    payload = encode_payload(message)
    if len(payload) > MAX_FRAME_BYTES:
        raise _too_long(len(payload), MAX_FRAME_BYTES, Fault.OURS)
    return len(payload).to_bytes(HEADER_BYTES, "big") + payload


class FrameDecoder:
    """Cuts a stream of bytes into payloads, however it arrives in pieces.

    Its buffer holds at most one frame and the piece that was fed last, provided that the payloads are
    taken out before more is fed.
    """

    __slots__ = ("_buffer", "max_frame_bytes")

    def __init__(self, max_frame_bytes: int) -> None:
        self.max_frame_bytes = max_frame_bytes
        self._buffer = bytearray()

    def feed(self, data: bytes) -> None:
        self._buffer += data

    def next_payload(self) -> bytes | None:
        """The next whole payload, or None when more bytes are needed.

        Raises:
            LinkError: `link.too-long`, as soon as the length is read.
        """
        if len(self._buffer) < HEADER_BYTES:
            return None
        length = int.from_bytes(self._buffer[:HEADER_BYTES], "big")
        if length > self.max_frame_bytes:
            raise _too_long(length, self.max_frame_bytes, Fault.PEER)
        end = HEADER_BYTES + length
        if len(self._buffer) < end:
            return None
        payload = bytes(self._buffer[HEADER_BYTES:end])
        if len(self._buffer) == end:
            # A new one, so that an idle link holds no buffer.
            self._buffer = bytearray()
        else:
            del self._buffer[:end]
        return payload


def _too_long(length: int, limit: int, fault: Fault) -> LinkError:
    return LinkError(
        "link.too-long",
        N_("A message of {length} bytes is longer than the {limit} allowed."),
        fault=fault,
        length=length,
        limit=limit,
    )

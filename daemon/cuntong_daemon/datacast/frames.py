"""Messages between the daemon and its datacast processes: msgpack with a length before it, through pipes.

Both ends are the same version of the program, so there is nothing to negotiate. A child whose parent has gone finds
the end of its input.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Generic, TypeVar

import msgspec

MAX_FRAME_BYTES = 64 * 1024 * 1024
"""Above what any message has; a child that writes nonsense doesn't fill the daemon's memory."""
_HEAD = 4

T = TypeVar("T")


def encode_frame(message: object) -> bytes:
    """A message as it travels."""
    body = msgspec.msgpack.encode(message)
    return len(body).to_bytes(_HEAD, "big") + body


class FrameDecoder(Generic[T]):
    """Takes bytes in any chunks, gives messages.

    Raises:
        ValueError: a frame is too long, or not a message (`msgspec.DecodeError` is one).
    """

    def __init__(self, kind: type[T]) -> None:
        self._decoder = msgspec.msgpack.Decoder(kind)
        self._rest = bytearray()

    def feed(self, data: bytes | bytearray) -> Iterator[T]:
        """The messages that are complete with these bytes."""
        self._rest += data
        start = 0
        while len(self._rest) - start >= _HEAD:
            size = int.from_bytes(self._rest[start : start + _HEAD], "big")
            if size > MAX_FRAME_BYTES:
                raise ValueError(size)
            end = start + _HEAD + size
            if len(self._rest) < end:
                break
            yield self._decoder.decode(self._rest[start + _HEAD : end])
            start = end
        del self._rest[:start]


def read_frames(descriptor: int, kind: type[T]) -> Iterator[T]:
    """Messages from a pipe, blocking, until its other end is closed."""
    decoder = FrameDecoder(kind)
    while data := os.read(descriptor, 65_536):
        yield from decoder.feed(data)


def write_frame(descriptor: int, message: object) -> None:
    """Write a message, blocking."""
    data = memoryview(encode_frame(message))
    while data:
        data = data[os.write(descriptor, data) :]

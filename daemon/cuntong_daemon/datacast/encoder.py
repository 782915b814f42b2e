"""The encoder: a process that makes repair symbols (RFC 6330). raptorq holds the GIL and takes 25 ms for a block."""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path

import msgspec

from cuntong_daemon.memory import use_little
from cuntong_protocol.datacast.blocks import symbol_count
from cuntong_protocol.datacast.packets import PAYLOAD_ID_BYTES, SYMBOL_BYTES

from .frames import read_frames, write_frame


class Stretch(msgspec.Struct, frozen=True, array_like=True):
    """Bytes of a file."""

    path: str
    offset: int
    length: int


class EncodeJob(msgspec.Struct, frozen=True, kw_only=True):
    """Make the symbols `first` to `first + count - 1` of a block and write them to `output`.

    Attributes:
        id: Comes back with the answer.
        source: The block's bytes.
        first: At least the block's number of source symbols.
    """

    id: int
    source: list[Stretch]
    first: int
    count: int
    output: str


class Encoded(msgspec.Struct, frozen=True, kw_only=True):
    """A job is done, or couldn't be: then `error` says why."""

    id: int
    error: str = ""


def read_stretches(source: list[Stretch]) -> bytes:
    """The bytes of a block.

    Raises:
        OSError: a file can't be read, or is shorter than it should be.
    """
    parts: list[bytes] = []
    for stretch in source:
        with Path(stretch.path).open("rb", buffering=0) as file:
            file.seek(stretch.offset)
            data = file.read(stretch.length)
            if len(data) != stretch.length:
                raise OSError(f"{stretch.path} is shorter than it should be")
        parts.append(data)
    return b"".join(parts)


def encode(data: bytes, first: int, count: int) -> bytes:
    """Repair symbols of a block, joined."""
    from raptorq import Encoder

    source = symbol_count(len(data))
    packets = Encoder.with_defaults(data, SYMBOL_BYTES).get_encoded_packets(first + count - source)
    return b"".join(packet[PAYLOAD_ID_BYTES:] for packet in packets[first : first + count])


def run() -> None:
    """Do jobs until there are no more."""
    for job in read_frames(sys.stdin.fileno(), EncodeJob):
        try:
            symbols = encode(read_stretches(job.source), job.first, job.count)
            Path(job.output).write_bytes(symbols)
        except OSError as error:
            write_frame(sys.stdout.fileno(), Encoded(id=job.id, error=str(error)))
        else:
            write_frame(sys.stdout.fileno(), Encoded(id=job.id))


if __name__ == "__main__":
    use_little()
    with contextlib.suppress(BrokenPipeError):  # Whoever asked has gone.
        run()

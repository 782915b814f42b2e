"""The decoder: a process that makes blocks whole (RFC 6330). It may die: raptorq panics at what it doesn't expect.

What it is given was checked by the reader, and it checks again what would make raptorq panic. It writes missing source
symbols into their places, so that the block can be read from the spool afterwards.
"""

from __future__ import annotations

import contextlib
import os
import sys

import msgspec

from cuntong_daemon.memory import return_memory, use_little
from cuntong_protocol.datacast.blocks import BLOCK_BYTES, symbol_count
from cuntong_protocol.datacast.packets import MAX_ESI, PAYLOAD_ID_BYTES, SYMBOL_BYTES

from .frames import read_frames, write_frame


class DecodeJob(msgspec.Struct, frozen=True, kw_only=True):
    """Make a block whole. See `reader.Ready`; `path` is the spool's file."""

    path: str
    offset: int
    size: int
    source: bytes
    repairs: list[int]


class Decoded(msgspec.Struct, frozen=True, kw_only=True):
    """Whether it could be done: False when more symbols are needed."""

    is_whole: bool


def decode(job: DecodeJob, descriptor: int) -> bytes | None:
    """The block's bytes, or None when its symbols don't suffice.

    Raises:
        ValueError: the job contradicts itself.
        OSError: the spool can't be read.
    """
    count = symbol_count(job.size)
    if not 0 < job.size <= BLOCK_BYTES or len(job.source) != count:
        raise ValueError("a block of another size")
    repairs = {at: esi for at, esi in enumerate(job.repairs) if esi}
    if any(not count <= esi <= MAX_ESI for esi in repairs.values()):
        raise ValueError("a symbol number that isn't a repair symbol's")
    if len(set(repairs.values())) != len(repairs):
        raise ValueError("a symbol twice")
    from raptorq import Decoder

    decoder = Decoder.with_defaults(job.size, SYMBOL_BYTES)
    places = [place for place, is_here in enumerate(job.source) if is_here]
    places += [count + at for at in repairs]
    for place in places:
        # One by one: what is read at once would take as much memory as the decoder's own copy.
        symbol = os.pread(descriptor, SYMBOL_BYTES, job.offset + place * SYMBOL_BYTES)
        if len(symbol) != SYMBOL_BYTES:
            raise OSError("the spool is shorter than it should be")
        esi = place if place < count else job.repairs[place - count]
        found: bytes | None = decoder.decode(esi.to_bytes(PAYLOAD_ID_BYTES, "big") + symbol)
        if found is not None:
            return found if len(found) == job.size else None
    return None


def run() -> None:
    """Do jobs until there are no more."""
    descriptor, opened = -1, ""
    for job in read_frames(sys.stdin.fileno(), DecodeJob):
        if opened != job.path:
            descriptor, opened = os.open(job.path, os.O_RDWR | os.O_CLOEXEC), job.path
        data = decode(job, descriptor)
        if data is not None:
            view = memoryview(data)
            for place, is_here in enumerate(job.source):
                if not is_here:
                    start = place * SYMBOL_BYTES
                    os.pwrite(descriptor, view[start : start + SYMBOL_BYTES], job.offset + start)
        is_whole, data = data is not None, None
        write_frame(sys.stdout.fileno(), Decoded(is_whole=is_whole))
        return_memory()


if __name__ == "__main__":
    use_little()
    with contextlib.suppress(BrokenPipeError):  # Whoever asked has gone.
        run()

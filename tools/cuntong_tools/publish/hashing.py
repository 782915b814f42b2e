"""Hashing a folder with all cores: reads every file once and writes nothing."""

from __future__ import annotations

import contextlib
import hashlib
import os
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

from cuntong_protocol.bundle.merkle import (
    BLOCK,
    EMPTY_ROOT,
    leaf_hashes,
    merkle_root,
    reduce_hashes,
)
from cuntong_protocol.bundle.packing import (
    PACKED_BELOW_BYTES,
    SAMPLE_BYTES,
    is_packable,
    sample_offsets,
)
from cuntong_protocol.bundle.torrent import piece_length_for
from cuntong_protocol.texts import N_

from .scan import BuildError, SourceFile, file_stamp, unreadable

CHUNK_BYTES = 1024 * 1024
SEGMENT_BYTES = 32 * 1024 * 1024
"""What one job hashes of a large file; a multiple of every piece length."""
JOBS_A_THREAD = 4
"""Jobs waiting for each thread: a folder of a million files isn't a million futures."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Hashed:
    """A hashed file.

    Attributes:
        file: Which.
        root: v2 Merkle root.
        layer: One hash for each `piece_length_for(size)` bytes; empty for a file not longer than that.
        is_packable: Whether it goes into a pack.
    """

    file: SourceFile
    root: bytes
    layer: bytes
    is_packable: bool


def run_jobs(jobs: Iterable[Callable[[], T]], threads: int, on_done: Callable[[T], None]) -> None:
    """Run jobs in threads; `on_done` gets each result in the calling thread, in any order.

    The first error ends it: jobs that didn't begin are dropped, the others are waited for.
    """
    waiting: set[Future[T]] = set()
    todo = iter(jobs)
    with ThreadPoolExecutor(threads, thread_name_prefix="build") as pool:
        try:
            is_last = False
            while not is_last or waiting:
                while not is_last and len(waiting) < threads * JOBS_A_THREAD:
                    job = next(todo, None)
                    is_last = job is None
                    if job is not None:
                        waiting.add(pool.submit(job))
                done, waiting = wait(waiting, return_when=FIRST_COMPLETED)
                for future in done:
                    on_done(future.result())
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def hash_files(
    files: Sequence[SourceFile],
    threads: int,
    *,
    on_start: Callable[[SourceFile, int], None],
    on_bytes: Callable[[int], None],
    on_hashed: Callable[[Hashed], None],
) -> None:
    """Hash files. Everything is called in this thread.

    Args:
        files: From the scan.
        threads: How many.
        on_start: Told of each file, and of how many bytes of it, before they are read: in order, a long file part by part.
        on_bytes: Told of progress.
        on_hashed: Given each file, in order.

    Raises:
        BuildError: `build.file-changed`, `build.unreadable`.
    """
    parts: dict[int, dict[int, _Part]] = {}
    following = 0

    def pass_on() -> None:
        nonlocal following
        while following < len(files):
            file, have = files[following], parts.get(following, {})
            if len(have) < len(_segments(file)):
                return
            on_hashed(_join(file, [part for _, part in sorted(have.items())]))
            parts.pop(following, None)
            following += 1

    def done(part: _Part) -> None:
        parts.setdefault(part.number, {})[part.offset] = part
        on_bytes(part.length)
        pass_on()

    run_jobs(_jobs(files, on_start), threads, done)
    pass_on()  # Empty files at the end have no jobs.


def _segments(file: SourceFile) -> range:
    return range(0, file.size, SEGMENT_BYTES)


def _join(file: SourceFile, parts: Sequence[_Part]) -> Hashed:
    hashes = [one for part in parts for one in part.hashes]
    span = piece_length_for(file.size)
    is_long = file.size > span
    root = merkle_root(hashes, span if is_long else BLOCK) if hashes else EMPTY_ROOT
    layer = b"".join(hashes) if is_long else b""
    return Hashed(file, root, layer, any(part.is_packable for part in parts))


@dataclass(frozen=True, slots=True)
class _Part:
    number: int
    offset: int
    length: int
    hashes: list[bytes]
    is_packable: bool


def _jobs(
    files: Sequence[SourceFile], on_start: Callable[[SourceFile, int], None]
) -> Iterator[Callable[[], _Part]]:
    for number, file in enumerate(files):
        for offset in _segments(file):
            on_start(file, min(SEGMENT_BYTES, file.size - offset))
            yield partial(_hash_part, number, file, offset)


def _hash_part(number: int, file: SourceFile, offset: int) -> _Part:
    span = piece_length_for(file.size)
    if file.size <= span:
        span = BLOCK
    end = min(offset + SEGMENT_BYTES, file.size)
    hashes: list[bytes] = []
    with open_source(file) as descriptor:
        for start in range(offset, end, CHUNK_BYTES):
            hashes += _hash_chunk(file, descriptor, start, min(CHUNK_BYTES, end - start), span)
        if span > CHUNK_BYTES:
            hashes = reduce_hashes(hashes, CHUNK_BYTES, span)
        packable = False
        if offset == 0 and end == file.size < PACKED_BELOW_BYTES:
            packable = is_packable(file.size, _sample(file, descriptor))
    return _Part(number, offset, end - offset, hashes, packable)


def _sample(file: SourceFile, descriptor: int) -> bytes:
    samples: list[bytearray] = []
    for offset in sample_offsets(file.size):
        samples.append(bytearray(min(SAMPLE_BYTES, file.size - offset)))
        read_source(file, descriptor, memoryview(samples[-1]), offset)
    return b"".join(samples)


class _Buffer(threading.local):
    """A thread's buffer, with a view of each block: making views anew costs as much as a tenth of the hashing."""

    def __init__(self) -> None:
        self.whole = memoryview(bytearray(CHUNK_BYTES))
        self.blocks = [self.whole[at : at + BLOCK] for at in range(0, CHUNK_BYTES, BLOCK)]


_buffer = _Buffer()


def _hash_chunk(
    file: SourceFile, descriptor: int, start: int, length: int, span: int
) -> list[bytes]:
    """Hashes of `span` bytes each, or of the whole chunk where `span` is wider."""
    read_source(file, descriptor, _buffer.whole[:length], start)
    sha256 = hashlib.sha256
    if length == CHUNK_BYTES:
        leaves = [sha256(block).digest() for block in _buffer.blocks]
    else:
        leaves = leaf_hashes(_buffer.whole[:length])
    return reduce_hashes(leaves, BLOCK, min(span, CHUNK_BYTES))


@contextlib.contextmanager
def open_source(file: SourceFile) -> Iterator[int]:
    """Open a file of the scan for reading.

    Raises:
        BuildError: `build.file-changed` when it isn't what was scanned, before or after the body;
            `build.unreadable`.
    """
    try:
        descriptor = os.open(file.disk_path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except FileNotFoundError:
        raise changed(file) from None
    except OSError as error:
        raise unreadable(file.disk_path, error) from None
    try:
        _check_stamp(file, descriptor)
        yield descriptor
        _check_stamp(file, descriptor)
    finally:
        os.close(descriptor)


def read_source(file: SourceFile, descriptor: int, buffer: memoryview, offset: int) -> None:
    """Fill `buffer` from an open file of the scan.

    Raises:
        BuildError: `build.file-changed` when it has become shorter; `build.unreadable`.
    """
    try:
        length = os.preadv(descriptor, [buffer], offset)
    except OSError as error:
        raise unreadable(file.disk_path, error) from None
    if length != len(buffer):
        raise changed(file)


def _check_stamp(file: SourceFile, descriptor: int) -> None:
    if file_stamp(os.fstat(descriptor)) != file.stamp:
        raise changed(file)


def changed(file: SourceFile) -> BuildError:
    """The error for a file that is being written to."""
    return BuildError(
        "build.file-changed",
        N_("{path} changed while it was read: wait until it is finished, then try again."),
        path=file.path,
    )

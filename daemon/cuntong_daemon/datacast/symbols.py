"""Where a sender's symbols come from: source symbols from the files, repair symbols from what encoders have written."""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from cuntong_protocol.datacast.blocks import esi_limit, symbol_count
from cuntong_protocol.datacast.packets import SYMBOL_BYTES

from .encoder import Encoded, EncodeJob, Stretch

BATCH_SYMBOLS = 512
"""Made at once: setting an encoder up takes 25 ms, a symbol 3 us. On the air they take 0.3 s at 20 Mbit/s."""
ASK_BELOW = 256
"""Fewer symbols left than this: the next batch is asked for."""
MAX_OPEN_FILES = 64
MAX_FAILURES = 2
"""Of one block's encoding, before its item counts as unreadable."""


class Ask(Protocol):
    """Hands a job to the encoders."""

    def __call__(self, job: EncodeJob) -> None: ...


@dataclass(slots=True)
class _Batch:
    first: int
    count: int
    path: str


@dataclass(slots=True)
class _Block:
    size: int
    source: list[Stretch]
    batches: list[_Batch] = field(default_factory=list)
    asked: int | None = None
    failures: int = 0


class Symbols:
    """The symbols of everything on the air. Not thread-safe."""

    def __init__(self, folder: Path, ask: Ask) -> None:
        """Use a folder for repair symbols; whatever lies there goes."""
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        for path in folder.iterdir():
            path.unlink()
        self._ask = ask
        self._items: dict[str, list[_Block]] = {}
        self._jobs: dict[int, tuple[str, int, EncodeJob]] = {}
        self._next_job = 0
        self._files: OrderedDict[str, int] = OrderedDict()
        self.unreadable: dict[str, str] = {}

    def close(self) -> None:
        for descriptor in self._files.values():
            os.close(descriptor)
        self._files.clear()

    def add(self, key: str, blocks: Sequence[tuple[int, list[Stretch]]]) -> None:
        """An item's blocks: size, and where the bytes lie."""
        self.remove(key)
        self._items[key] = [_Block(size, source) for size, source in blocks]

    def remove(self, key: str) -> None:
        """An item is off the air."""
        for block in self._items.pop(key, ()):
            for batch in list(block.batches):
                self._drop(block, batch)
            for stretch in block.source:
                self._close_file(stretch.path)
        self.unreadable.pop(key, None)

    def is_ready(self, key: str, block: int, counter: int, count: int) -> bool:
        """Whether `read` would find these symbols; if not, they are asked for."""
        if key in self.unreadable:
            return False
        state = self._items[key][block]
        first = counter % esi_limit(state.size)
        end = first + count
        source = symbol_count(state.size)
        if end + ASK_BELOW <= source:
            return True
        first = max(first, source)
        have = _covered(state, first)
        if have < end + ASK_BELOW and state.asked is None:
            start = max(have, first)
            batch = min(BATCH_SYMBOLS, esi_limit(state.size) - start)
            if batch > 0:
                self._request(key, block, state, start, batch)
        return end <= source or have >= end

    def read(self, key: str, block: int, counter: int, count: int) -> tuple[int, list[bytes]]:
        """Symbols that are ready, and the number of the first.

        Raises:
            OSError: a file can't be read any more.
        """
        state = self._items[key][block]
        first = counter % esi_limit(state.size)
        source = symbol_count(state.size)
        found: list[bytes] = []
        if first < source:
            some = min(count, source - first)
            data = self._read_source(state, first * SYMBOL_BYTES, some * SYMBOL_BYTES)
            found += _split(data.ljust(some * SYMBOL_BYTES, b"\0"))
        while len(found) < count:
            esi = first + len(found)
            batch = next(it for it in state.batches if it.first <= esi < it.first + it.count)
            some = min(count - len(found), batch.first + batch.count - esi)
            data = self._pread(batch.path, some * SYMBOL_BYTES, (esi - batch.first) * SYMBOL_BYTES)
            found += _split(data)
            if esi + some == batch.first + batch.count:
                self._drop(state, batch)
        return first, found

    def encoded(self, answer: Encoded) -> None:
        """An encoder has answered."""
        key, number, job = self._jobs.pop(answer.id)
        blocks = self._items.get(key)
        if blocks is None or number >= len(blocks) or blocks[number].asked != job.id:
            Path(job.output).unlink(missing_ok=True)
            return
        state = blocks[number]
        state.asked = None
        if answer.error:
            state.failures += 1
            if state.failures >= MAX_FAILURES:
                self.unreadable[key] = answer.error
            return
        state.failures = 0
        state.batches.append(_Batch(job.first, job.count, job.output))

    def _request(self, key: str, number: int, state: _Block, first: int, count: int) -> None:
        self._next_job += 1
        job = EncodeJob(
            id=self._next_job,
            source=state.source,
            first=first,
            count=count,
            output=str(self._folder / str(self._next_job)),
        )
        state.asked = job.id
        self._jobs[job.id] = (key, number, job)
        self._ask(job)

    def _drop(self, state: _Block, batch: _Batch) -> None:
        state.batches.remove(batch)
        self._close_file(batch.path)
        Path(batch.path).unlink(missing_ok=True)

    def _close_file(self, path: str) -> None:
        descriptor = self._files.pop(path, None)
        if descriptor is not None:
            os.close(descriptor)

    def _read_source(self, state: _Block, start: int, length: int) -> bytes:
        parts: list[bytes] = []
        end = min(start + length, state.size)
        at = 0
        for stretch in state.source:
            low, high = max(start, at), min(end, at + stretch.length)
            if low < high:
                parts.append(self._pread(stretch.path, high - low, stretch.offset + low - at))
            at += stretch.length
        return b"".join(parts)

    def _pread(self, path: str, length: int, offset: int) -> bytes:
        descriptor = self._files.pop(path, None)
        if descriptor is None:
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        self._files[path] = descriptor
        if len(self._files) > MAX_OPEN_FILES:
            os.close(self._files.popitem(last=False)[1])
        data = os.pread(descriptor, length, offset)
        if len(data) != length:
            raise OSError(f"{path} is shorter than it should be")
        return data


def _covered(state: _Block, first: int) -> int:
    """Up to which number symbols are there without a gap, from `first` on."""
    end = first
    for batch in sorted(state.batches, key=lambda batch: batch.first):
        if batch.first <= end < batch.first + batch.count:
            end = batch.first + batch.count
    return end


def _split(data: bytes) -> list[bytes]:
    return [data[start : start + SYMBOL_BYTES] for start in range(0, len(data), SYMBOL_BYTES)]

"""Encoded bytes of transfers that aren't finished, kept over reconnects and restarts (SPEC 6.3).

One file a transfer: 4 bytes of length, a msgpack header, the encoded bytes so far. Nothing is fsynced:
what a power cut spoils fails the hash at the end and is fetched again from the start.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from pathlib import Path

import msgspec
import trio

from cuntong_protocol.link.messages import Encoding, ObjectHead

MAX_PARTS = 256
"""Files kept; only transfers that were interrupted leave one. The oldest go first."""
MAX_HEADER_BYTES = 1024
_SUFFIX = ".part"


class PartHeader(msgspec.Struct, frozen=True, array_like=True):
    """What the interrupted transfer was; fields as in `ObjectHead`."""

    v: int
    path: str
    base: bytes
    size: int
    sha256: bytes
    encoding: Encoding
    encoded_size: int
    form: bytes


class Part:
    """The bytes of one transfer, used by one fetch at a time.

    Attributes:
        form: The encoded form that they belong to; empty while there are none.
        length: How many there are.
    """

    def __init__(self, file: Path, name: tuple[str, bytes]) -> None:
        self._file = file
        self._name = name
        self._data_offset = 0
        self.is_claimed = False
        self.form = b""
        self.length = 0

    def load(self) -> bool:
        """Read the header from the disk; False when the file is no part."""
        try:
            with self._file.open("rb") as file:
                header = _read_header(file.read(4 + MAX_HEADER_BYTES))
                size = file.seek(0, os.SEEK_END)
        except (OSError, msgspec.MsgspecError, ValueError):
            return False
        self._name = (header[0].path, header[0].base)
        self.form, self._data_offset = header[0].form, header[1]
        self.length = min(size - self._data_offset, header[0].encoded_size)
        return self.length > 0

    async def write(self, head: ObjectHead, offset: int, data: bytes) -> None:
        """Put `data` at `offset` of the encoded form; offset 0 starts the part anew.

        Raises:
            OSError: The part is gone then.
        """
        try:
            await trio.to_thread.run_sync(self._write, head, offset, data)
        except OSError:
            await self.drop()
            raise

    def _write(self, head: ObjectHead, offset: int, data: bytes) -> None:
        if offset == 0:
            header = msgspec.msgpack.encode(
                PartHeader(
                    1,
                    *self._name,
                    head.size,
                    head.sha256,
                    head.encoding,
                    head.encoded_size,
                    head.form,
                )
            )
            self._data_offset = 4 + len(header)
            self._file.parent.mkdir(exist_ok=True)
            self._file.write_bytes(len(header).to_bytes(4, "big") + header + data)
        else:
            with self._file.open("r+b") as file:
                file.seek(self._data_offset + offset)
                file.write(data)
                file.truncate()
        self.form, self.length = head.form, offset + len(data)

    async def read(self, length: int) -> bytes:
        """The first `length` encoded bytes."""
        return await trio.to_thread.run_sync(self._read, length)

    def _read(self, length: int) -> bytes:
        with self._file.open("rb") as file:
            file.seek(self._data_offset)
            return file.read(length)

    async def drop(self) -> None:
        """Forget the bytes."""
        if self.length:
            self.form, self.length = b"", 0
            await trio.to_thread.run_sync(_unlink, self._file)


class Parts:
    """The folder of parts, one owner for all links of the daemon.

    What an earlier run left is found at the first use; what can't be read or is too much is deleted.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._parts: dict[str, Part] = {}
        self._loading = trio.Lock()
        self._is_loaded = False

    def _load(self) -> None:
        with contextlib.suppress(OSError):
            files = sorted(
                self._folder.glob("*" + _SUFFIX), key=lambda f: f.stat().st_mtime, reverse=True
            )
            for number, file in enumerate(files):
                part = Part(file, ("", b""))
                if number < MAX_PARTS and part.load():
                    self._parts.setdefault(file.stem, part)
                else:
                    _unlink(file)

    async def claim(self, path: str, base: bytes) -> Part | None:
        """The part of a transfer, for one user until `release`; None while it has another user."""
        async with self._loading:
            if not self._is_loaded:
                await trio.to_thread.run_sync(self._load)
                self._is_loaded = True
        key = hashlib.sha256(base + path.encode()).hexdigest()[:32]
        part = self._parts.get(key)
        if part is None:
            part = self._parts[key] = Part(self._folder / (key + _SUFFIX), (path, base))
        if part.is_claimed:
            return None
        part.is_claimed = True
        return part

    def release(self, path: str, base: bytes, part: Part) -> None:
        """Give a part back; an empty one is forgotten."""
        part.is_claimed = False
        if not part.length:
            del self._parts[hashlib.sha256(base + path.encode()).hexdigest()[:32]]


def _read_header(start: bytes) -> tuple[PartHeader, int]:
    end = 4 + int.from_bytes(start[:4], "big")
    if end > len(start):
        raise ValueError("no whole header")
    header = msgspec.msgpack.decode(start[4:end], type=PartHeader)
    if header.v != 1:
        raise ValueError("unknown version")
    return header, end


def _unlink(file: Path) -> None:
    with contextlib.suppress(OSError):
        file.unlink()

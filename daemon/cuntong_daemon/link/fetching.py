"""One object on its way to us: collected, kept when the link breaks, proven at the end."""

from __future__ import annotations

from types import TracebackType
from typing import Final

import trio

from cuntong_protocol.errors import Fault
from cuntong_protocol.link.errors import LinkError
from cuntong_protocol.link.messages import (
    MAX_OBJECT_BYTES,
    Get,
    NotFound,
    ObjectChunk,
    ObjectHead,
)
from cuntong_protocol.link.objects import bad_object, decode_object
from cuntong_protocol.texts import N_

from .parts import Part, Parts

BUFFER_BYTES: Final = 262_144
"""Encoded bytes in memory before they go to the disk; 64 fetches at once hold 16 MiB of them at most."""
MIN_PART_BYTES: Final = 16_384
"""Less isn't worth a file when the link breaks."""
KEEP_S: Final = 2.0
"""For writing what came so far when everything stops."""
INLINE_BYTES: Final = 65_536
"""Unpacking and hashing this takes less than a thread's turn."""
_BLOBS: Final = "blobs/"

_unpackers: Final = trio.CapacityLimiter(2)


class LinkLostError(LinkError):
    """The link ended before the answer came; try again on the next one."""

    fault = Fault.TRANSPORT

    def __init__(self) -> None:
        super().__init__("link.lost", N_("The connection ended before the answer came."))


class Fetching:
    """The life of one `Get`: the reader of the session feeds it, the one who fetches waits for it.

    As a context manager it holds the part file of this object. Whatever ends it, encoded bytes that are
    worth it are kept for the next attempt, unless the object is complete.
    """

    def __init__(
        self, parts: Parts, path: str, max_bytes: int, base: tuple[bytes, bytes] | None
    ) -> None:
        self._parts = parts
        self._path = path
        self._max_bytes = min(max_bytes, MAX_OBJECT_BYTES)
        self._base_sha256 = base[0] if base else b""
        self._base = base[1] if base else None
        self._part: Part | None = None
        self._head: ObjectHead | None = None
        self._stored = 0
        self._buffer: list[bytes] = []
        self._buffered = 0
        self._missing = 0
        self._is_abandoned = False
        self._is_lost = False
        self._done = trio.Event()
        self._failure: LinkError | None = None
        self.is_missing = False

    @property
    def is_finished(self) -> bool:
        """True when nothing more will come."""
        return self.is_missing or (self._head is not None and not self._missing)

    @property
    def was_resumed(self) -> bool:
        """True when bytes of an earlier connection were used."""
        return self._head is not None and self._head.offset > 0

    async def __aenter__(self) -> Fetching:
        self._part = await self._parts.claim(self._path, self._base_sha256)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        part, self._part = self._part, None
        self._is_abandoned = True
        if part is not None:
            try:
                with trio.CancelScope(shield=True, deadline=trio.current_time() + KEEP_S):
                    if self.is_finished:
                        await part.drop()
                    elif self._stored + self._buffered >= MIN_PART_BYTES:
                        await self._store(part)
            except OSError:
                pass  # Then it is fetched again from the start.
            finally:
                self._parts.release(self._path, self._base_sha256, part)
        self._buffer = []

    def get(self, request: int) -> Get:
        """What to ask."""
        get = Get(request, self._path, self._max_bytes, self._base_sha256)
        if self._part is not None and self._part.length:
            get = Get(
                request,
                self._path,
                self._max_bytes,
                self._base_sha256,
                self._part.length,
                self._part.form,
            )
        return get

    # The reader's side.

    async def take(self, message: ObjectHead | ObjectChunk | NotFound) -> None:
        """The next piece of the answer, in the order in which the connection let it pass.

        Raises:
            LinkError: `link.bad-object`.
        """
        match message:
            case NotFound():
                self.is_missing = True
            case ObjectHead():
                if self._path.startswith(_BLOBS) and self._path != _BLOBS + message.sha256.hex():
                    raise bad_object()
                self._head = message
                self._stored = message.offset
                self._missing = message.encoded_size - message.offset
                await self._add(message.data)
            case ObjectChunk():
                await self._add(message.data)
        if self.is_finished:
            self._done.set()

    async def _add(self, data: bytes) -> None:
        self._missing -= len(data)
        if self._is_abandoned or self._failure is not None:
            return
        self._buffer.append(data)
        self._buffered += len(data)
        if self._buffered >= BUFFER_BYTES and self._missing and self._part is not None:
            try:
                await self._store(self._part)
            except OSError as error:
                self._buffer, self._buffered = [], 0
                self._failure = LinkError(
                    "link.cannot-store",
                    N_("What comes over the link can't be stored: {reason}."),
                    fault=Fault.SYSTEM,
                    reason=error.strerror or str(error),
                )
                self._done.set()

    async def _store(self, part: Part) -> None:
        if self._head is not None and self._buffered:
            data = b"".join(self._buffer)
            offset, self._stored = self._stored, self._stored + len(data)
            self._buffer, self._buffered = [], 0
            await part.write(self._head, offset, data)

    def lose(self) -> None:
        """The link ended."""
        self._is_lost = True
        self._done.set()

    # The waiting side.

    async def result(self) -> bytes | None:
        """Wait for the object; None when the neighbour hasn't got it.

        Raises:
            LinkLostError: The link ended first.
            LinkError: `link.bad-object`; `link.cannot-store` (Fault.SYSTEM).
        """
        await self._done.wait()
        if self._failure is not None:
            raise self._failure
        if self.is_missing:
            return None
        if self._head is None or self._missing:
            raise LinkLostError()
        encoded = b"".join(self._buffer)
        if self._stored:
            # Nobody but us holds the part, and only with a part bytes are stored.
            assert self._part is not None  # noqa: S101
            encoded = await self._part.read(self._stored) + encoded
        head, max_bytes, base = self._head, self._max_bytes, self._base
        if head.size <= INLINE_BYTES and len(base or b"") <= INLINE_BYTES:
            return decode_object(head, encoded, max_bytes=max_bytes, base=base)
        return await trio.to_thread.run_sync(
            lambda: decode_object(head, encoded, max_bytes=max_bytes, base=base),
            limiter=_unpackers,
        )

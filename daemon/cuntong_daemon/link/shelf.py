"""Objects packed for the way, shared by all connections that send them.

A centre sends the same few objects to a thousand children: each is packed once, and lies in memory once.
What is being sent is limited in all, so children that stop reading can't fill the memory; who comes later
waits until there is room.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from typing import Final

import trio

from cuntong_daemon.logs import get_logger
from cuntong_protocol.link.messages import Get
from cuntong_protocol.link.objects import Encoded, encode_object

from .delegate import LinkDelegate

MAX_IN_USE_BYTES = 64 * 1024 * 1024
"""Packed objects that are being sent: twice the largest object, or the usual metadata of all authorities."""
MAX_IDLE_BYTES = 8 * 1024 * 1024
"""Packed objects kept for the next who asks: 10,000 bundles' metadata eight times."""
READ_AT_ONCE = 4
"""Objects in memory unpacked, for reading and packing."""
_INLINE_HASH_BYTES = 65_536
"""Hashing this takes 0.1 ms: less than a thread's turn."""

log = get_logger("link")

_Key = tuple[bytes, bytes]


class Loan:
    """A packed object in use. Give it back with `Shelf.give_back`."""

    __slots__ = ("encoded", "key", "users")

    def __init__(self, key: _Key, encoded: Encoded) -> None:
        self.key = key
        self.encoded = encoded
        self.users = 0


class Shelf:
    """Reads objects through the delegate and packs them in threads."""

    def __init__(
        self,
        delegate: LinkDelegate,
        *,
        max_in_use_bytes: int = MAX_IN_USE_BYTES,
        max_idle_bytes: int = MAX_IDLE_BYTES,
    ) -> None:
        self._delegate = delegate
        self._max_in_use_bytes: Final = max_in_use_bytes
        self._max_idle_bytes: Final = max_idle_bytes
        self._idle: OrderedDict[_Key, Loan] = OrderedDict()
        self._used: dict[_Key, Loan] = {}
        self._packing: dict[_Key, trio.Event] = {}
        self._readers = trio.Semaphore(READ_AT_ONCE)
        self._room = trio.Event()
        self.in_use_bytes = 0
        self.idle_bytes = 0

    async def take(self, get: Get) -> Loan | None:
        """The object that is asked for, packed; None when there is none of at most `max_bytes`."""
        async with self._readers:
            try:
                data = await self._delegate.read_object(get.path)
            except OSError as error:
                log.warning("link.unreadable-object", path=get.path, error=str(error))
                data = None
            if data is None or len(data) > get.max_bytes:
                return None
            if len(data) <= _INLINE_HASH_BYTES:
                sha256 = hashlib.sha256(data).digest()
            else:
                sha256 = await trio.to_thread.run_sync(lambda: hashlib.sha256(data).digest())
            key = (sha256, get.base)
            while True:
                loan = self._used.get(key) or self._idle.get(key)
                if loan is None and (busy := self._packing.get(key)) is not None:
                    await busy.wait()
                elif loan is None:
                    await self._pack(key, data, get)
                elif loan.users or not self.in_use_bytes or self._has_room(loan):
                    self._use(loan)
                    return loan
                else:
                    await self._room.wait()

    async def _pack(self, key: _Key, data: bytes, get: Get) -> None:
        self._packing[key] = done = trio.Event()
        try:
            base = await self._delegate.read_base(get.path, get.base) if get.base else None
            loan = Loan(key, await trio.to_thread.run_sync(encode_object, data, base))
            self._idle[key] = loan
            self.idle_bytes += len(loan.encoded.data)
        finally:
            del self._packing[key]
            done.set()

    def give_back(self, loan: Loan) -> None:
        """End a use."""
        loan.users -= 1
        if loan.users:
            return
        del self._used[loan.key]
        self._idle[loan.key] = loan
        self.in_use_bytes -= len(loan.encoded.data)
        self.idle_bytes += len(loan.encoded.data)
        while self.idle_bytes > self._max_idle_bytes:
            _, oldest = self._idle.popitem(last=False)
            self.idle_bytes -= len(oldest.encoded.data)
        self._room.set()
        self._room = trio.Event()

    def _has_room(self, loan: Loan) -> bool:
        return self.in_use_bytes + len(loan.encoded.data) <= self._max_in_use_bytes

    def _use(self, loan: Loan) -> None:
        if not loan.users:
            del self._idle[loan.key]
            self._used[loan.key] = loan
            self.idle_bytes -= len(loan.encoded.data)
            self.in_use_bytes += len(loan.encoded.data)
        loan.users += 1

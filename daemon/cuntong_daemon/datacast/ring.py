"""A ring of packets in memory, from one process that makes them to one that sends them.

One writes `head`, the other `tail`, each an aligned 64-bit word of its own cache line, and only after the packets:
so there is nothing to lock.
"""

from __future__ import annotations

import mmap
import os

_HEAD = 0
_TAIL = 8
"""In words; a cache line away from the head."""
_DATA = 4096
_LENGTH = 2


class Ring:
    """A view of the ring; both processes have one."""

    def __init__(self, descriptor: int, slots: int, slot_bytes: int) -> None:
        """Map a ring.

        Args:
            descriptor: Of memory that `make_memory` made.
            slots: How many packets it holds.
            slot_bytes: The longest packet.
        """
        self._slots = slots
        self._stride = slot_bytes + _LENGTH
        self._map = mmap.mmap(descriptor, ring_bytes(slots, slot_bytes))
        self._view = memoryview(self._map)
        self._words = self._view[:_DATA].cast("Q")

    def close(self) -> None:
        self._words.release()
        self._view.release()
        self._map.close()

    @property
    def written(self) -> int:
        """Packets that were put in since the beginning."""
        return self._words[_HEAD]

    @property
    def taken(self) -> int:
        """Packets that were taken out since the beginning."""
        return self._words[_TAIL]

    @property
    def room(self) -> int:
        """Packets that may be put in now."""
        return self._slots - (self.written - self.taken)

    def put(self, packet: bytes) -> None:
        """Put a packet in; there must be room."""
        number = self._words[_HEAD]
        start = _DATA + number % self._slots * self._stride
        self._view[start : start + _LENGTH] = len(packet).to_bytes(_LENGTH, "little")
        self._view[start + _LENGTH : start + _LENGTH + len(packet)] = packet
        self._words[_HEAD] = number + 1

    def peek(self) -> memoryview | None:
        """The oldest packet, valid until `drop`; None when there is none."""
        number = self._words[_TAIL]
        if number == self._words[_HEAD]:
            return None
        start = _DATA + number % self._slots * self._stride
        size = int.from_bytes(self._view[start : start + _LENGTH], "little")
        return self._view[start + _LENGTH : start + _LENGTH + size]

    def drop(self) -> None:
        """The oldest packet was sent."""
        self._words[_TAIL] += 1


def ring_bytes(slots: int, slot_bytes: int) -> int:
    """The memory that a ring takes."""
    return _DATA + slots * (slot_bytes + _LENGTH)


def make_memory(slots: int, slot_bytes: int) -> int:
    """Anonymous memory for a ring, as a descriptor that can be handed to a child."""
    descriptor = os.memfd_create("cuntong-ring", os.MFD_CLOEXEC)
    os.ftruncate(descriptor, ring_bytes(slots, slot_bytes))
    return descriptor

"""What the swarm engine tells the rest of the daemon."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import trio

from cuntong_protocol.errors import CuntongError, Fault
from cuntong_protocol.texts import N_, Sentence


class SwarmError(CuntongError):
    """The engine couldn't do what it was asked."""

    fault = Fault.SYSTEM


def cannot_listen(address: str, reason: str) -> SwarmError:
    """The daemon can't start; trying again can mend it: the VPN may not be up yet."""
    return SwarmError(
        "swarm.cannot-listen",
        N_(
            "{address} can't be listened on for swarms: {reason}. Is another daemon running, or"
            " is the address under [network] swarm not one of this machine?"
        ),
        address=address,
        reason=reason,
    )


class TorrentState(enum.StrEnum):
    CHECKING = "checking"
    DOWNLOADING = "downloading"
    FINISHING = "finishing"
    """Every piece has passed; the files are being made durable."""
    COMPLETE = "complete"
    DISK_FULL = "disk-full"
    ERROR = "error"


@dataclass(frozen=True, slots=True)
class TorrentStatus:
    """A snapshot. Bytes are payload; rates are bytes per second; `down` and `up` survive restarts.

    Attributes:
        problem: Why it doesn't go on, for a person.
        durable_pieces: Pieces that were checked and would survive a power cut.
    """

    infohash: bytes
    state: TorrentState
    bytes_done: int
    bytes_total: int
    piece_count: int
    durable_pieces: int
    down_bytes_s: int
    up_bytes_s: int
    down: int
    up: int
    peers: int
    problem: Sentence | None

    @property
    def progress(self) -> float:
        """0 to 1."""
        return self.bytes_done / self.bytes_total if self.bytes_total else 1.0


@dataclass(frozen=True, slots=True)
class PeerBytes:
    """Payload bytes exchanged with one address."""

    down: int = 0
    up: int = 0


@dataclass(frozen=True, slots=True)
class Totals:
    """Since the engine started. Payload per torrent and address; wire with all overhead."""

    down: int = 0
    up: int = 0
    down_wire: int = 0
    up_wire: int = 0
    down_bytes_s: int = 0
    up_bytes_s: int = 0
    peers: Mapping[str, PeerBytes] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Completed:
    """Every piece passed its check and is durable."""

    infohash: bytes


@dataclass(frozen=True, slots=True)
class FileError:
    """The disk refused; the torrent waits and is tried again by itself."""

    infohash: bytes
    problem: Sentence
    is_disk_full: bool


@dataclass(frozen=True, slots=True)
class Unusable:
    """What the publisher signed contradicts itself; the torrent has stopped for good."""

    infohash: bytes
    problem: Sentence


@dataclass(frozen=True, slots=True)
class HashFailed:
    """Peers sent pieces that didn't match; nothing of them is kept."""

    infohash: bytes
    pieces: int


Event = Completed | FileError | Unusable | HashFailed


class EventBox:
    """Events that wait to be taken: at most one of a kind for each torrent, so it can't overflow."""

    def __init__(self) -> None:
        self._events: dict[tuple[type[Event], bytes], Event] = {}
        self._lot = trio.lowlevel.ParkingLot()

    def put(self, event: Event) -> None:
        """Add an event; refused pieces are summed up, anything else replaces the older one."""
        key = (type(event), event.infohash)
        before = self._events.pop(key, None)
        if isinstance(event, HashFailed) and isinstance(before, HashFailed):
            event = replace(event, pieces=event.pieces + before.pieces)
        self._events[key] = event
        self._lot.unpark()

    def forget(self, infohash: bytes) -> None:
        """Drop what waits about a torrent that is gone."""
        for key in [key for key in self._events if key[1] == infohash]:
            del self._events[key]

    async def take(self) -> Event:
        """The oldest event; waits for one."""
        await trio.lowlevel.checkpoint()
        while not self._events:
            await self._lot.park()
        return self._events.pop(next(iter(self._events)))

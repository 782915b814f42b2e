"""The uTP connections that pass through the relay, and what is known of the way to each peer."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from .delays import QueueingDelay, Usual
from .utp import Kind, connection_of

MAX_CONNECTIONS = 64
"""Of one peer: one for each bundle on its way. The one that was silent longest makes room."""
ASSUMED_TRIP_S = 0.1
MAX_TRIP_S = 3.0
TRIPS = 32
"""The last second or so at 512 kbit/s."""

Peer = TypeVar("Peer")


@dataclass(slots=True)
class Unheard:
    """A packet of ours that hasn't been acknowledged yet."""

    packet: bytes
    sent_at: float
    due: float
    """When it is sent again."""


@dataclass(slots=True)
class Path:
    """The way to a peer and back.

    Attributes:
        delay: Of packets from there, without the time they take themselves.
        usual: How long others hold packets up that come this way, as a rule.
        is_above: It is a parent's, not a sibling's.
    """

    is_above: bool = False
    usual: Usual = field(default_factory=Usual)
    delay: QueueingDelay = field(default_factory=QueueingDelay)
    _trips: deque[float] = field(default_factory=lambda: deque(maxlen=TRIPS))

    @property
    def trip_s(self) -> float:
        """The longest of the latest round trips, without our own link's queue and the answer's own time."""
        return max(self._trips, default=ASSUMED_TRIP_S)

    @property
    def jitter_s(self) -> float:
        """How much these differ."""
        return max(self._trips) - min(self._trips) if self._trips else 0.0

    def tripped(self, trip_s: float) -> None:
        """A round trip took so long."""
        if (
            abs(trip_s) <= MAX_TRIP_S
        ):  # Otherwise a clock was set. Below 0: a packet took less than the link's time.
            self._trips.append(max(0.0, trip_s))


@dataclass(slots=True, eq=False)
class Connection(Generic[Peer]):
    """One uTP connection.

    Attributes:
        peer: Whose it is.
        path: The peer's.
        unacknowledged: Bytes that came and that nothing from inside has acknowledged.
        besides: Bytes that came without data, which no acknowledgement has counted yet.
        acknowledged: The last packet of theirs that we have told them of; None before the first.
        swarm: Which torrent it is for, as 20 bytes; None as long as that isn't known.
        theirs: The last packet of ours that they have told us of.
        header: Of the last packet that was sent.
        foreign_s: How long others held up the last packet of theirs.
        unheard: Small packets of ours, by their number.
        pending: Acknowledgements of this connection that wait.
        came_at: When data came last.
        told_at: When it was acknowledged or probed last.
    """

    peer: Peer
    path: Path
    unacknowledged: int = 0
    besides: int = 0
    acknowledged: int | None = None
    swarm: bytes | None = None
    theirs: int | None = None
    header: bytes | None = None
    foreign_s: float = 0.0
    unheard: dict[int, Unheard] = field(default_factory=dict)
    pending: int = 0
    came_at: float = float("-inf")
    told_at: float = float("-inf")

    def has(self, number: int) -> None:
        """They have everything up to this packet."""
        self.theirs = number
        for one in [one for one in self.unheard if (number - one) % 65_536 < 32_768]:
            del self.unheard[one]

    @property
    def missing(self) -> Unheard | None:
        """The first packet that they don't have, if it is known."""
        return None if self.theirs is None else self.unheard.get((self.theirs + 1) % 65_536)


class Connections(Generic[Peer]):
    """Those with one peer, by the number in packets from there, and by that in ours (BEP 29: they differ by one)."""

    def __init__(self, peer: Peer) -> None:
        self.path = Path()
        self._peer = peer
        self._incoming: dict[int, Connection[Peer]] = {}
        self._outgoing: dict[int, Connection[Peer]] = {}

    def incoming(self, packet: bytes, kind: Kind) -> Connection[Peer]:
        """Whose packet this is that came from outside."""
        number = connection_of(packet)
        if kind is Kind.SYN:
            return self._begin(incoming=(number + 1) % 65_536, outgoing=number)
        return self._known(self._incoming, number) or self._begin(number, (number + 1) % 65_536)

    def outgoing(self, packet: bytes | bytearray, kind: Kind) -> Connection[Peer]:
        """Whose packet this is that comes from inside."""
        number = connection_of(packet)
        if kind is Kind.SYN:
            return self._begin(incoming=number, outgoing=(number + 1) % 65_536)
        return self._known(self._outgoing, number) or self._begin((number - 1) % 65_536, number)

    def _begin(self, incoming: int, outgoing: int) -> Connection[Peer]:
        connection = Connection(self._peer, self.path)
        for table, number in ((self._incoming, incoming), (self._outgoing, outgoing)):
            table.pop(number, None)
            if len(table) >= MAX_CONNECTIONS:
                del table[next(iter(table))]
            table[number] = connection
        return connection

    def _known(self, table: dict[int, Connection[Peer]], number: int) -> Connection[Peer] | None:
        connection = table.pop(number, None)
        if connection is not None:
            table[number] = connection  # The last one used is the last one to make room.
        return connection

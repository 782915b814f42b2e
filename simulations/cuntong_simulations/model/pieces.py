"""A model of pieces and connections, for some hundred places: what the flow model is judged by.

Idealised: links share max-min fairly and at once, and nothing is lost or late. Pieces are real: who lacks which, whom it
asks, what is rarest among its neighbours. Time passes from the end of one transfer to the next.
"""

from __future__ import annotations

import heapq
import math
import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from cuntong_daemon.policy.peers import partners_of
from cuntong_protocol.divisions import Division

from .filling import progressive_filling

Link = tuple[int, int]
"""A place, and 1 for its uplink or 0 for its downlink."""
PIECE_BYTES = 16 * 1024
IN_FLIGHT = 3
"""Pieces asked for at once over a connection, so that it never waits for the next."""


@dataclass(frozen=True, slots=True)
class Peer:
    """A place.

    Attributes:
        parent: Its number; -1 for the source, which is number 0.
        down_bytes_s: Of its access link.
        up_bytes_s: Likewise.
        hub: The place through whose link everything to it goes that isn't from there itself; -1: none.
    """

    parent: int
    down_bytes_s: float
    up_bytes_s: float
    hub: int = -1


@dataclass(slots=True)
class _Connection:
    """From a sender to a receiver.

    Attributes:
        number: Of the connection.
        sender: Place.
        receiver: Place.
        asked: Pieces in flight, the first is coming.
        left: Bytes of the first that are still to come, at `at`.
        rate: Bytes/s now.
        version: Ends of transfers that were planned with another one don't count.
        way: The links that it crosses, (place, 1 for up); each counts once.
    """

    number: int
    sender: int
    receiver: int
    way: dict[Link, float]
    asked: list[int] = field(default_factory=list)
    left: float = 0.0
    at: float = 0.0
    rate: float = 0.0
    version: int = 0


def distribute(
    peers: Sequence[Peer],
    payload_bytes: float,
    *,
    mode: Literal["tree", "swarm"],
    is_trading: Sequence[bool] | None = None,
    piece_bytes: int = PIECE_BYTES,
    seed: int = 1,
) -> list[float]:
    """When each place has a payload that the first one has from the beginning.

    Args:
        peers: Parents before their children.
        payload_bytes: Its size.
        mode: `tree`: from the parent only; `swarm`: siblings without a hub exchange pieces, too, with the partners that
            `policy.peers` names.
        is_trading: By place: its children may exchange pieces in a swarm; None: all may.
        piece_bytes: Of a piece; the last one may be smaller.
        seed: Of ties between equally rare pieces.

    Returns:
        Seconds, by place.
    """
    trading = [mode == "swarm"] * len(peers) if is_trading is None else is_trading
    return _Exchange(
        peers, payload_bytes, trading if mode == "swarm" else [], piece_bytes, seed
    ).run()


class _Exchange:
    def __init__(
        self,
        peers: Sequence[Peer],
        payload_bytes: float,
        is_trading: Sequence[bool],
        piece_bytes: int,
        seed: int,
    ) -> None:
        self._peers = peers
        self._pieces = max(1, -int(-payload_bytes // piece_bytes))
        self._piece_bytes = piece_bytes
        self._last_bytes = payload_bytes - (self._pieces - 1) * piece_bytes
        self._lacking = [set(range(self._pieces)) for _ in peers]
        self._lacking[0] = set()
        self._chance = random.Random(seed)  # noqa: S311 - a model, nothing secret.
        # Equally rare pieces in another order at each place: else all would ask for the same.
        self._tie = [[self._chance.random() for _ in range(self._pieces)] for _ in peers]
        self._asked: list[set[int]] = [set() for _ in peers]
        self._from: list[list[_Connection]] = [[] for _ in peers]
        self._to: list[list[_Connection]] = [[] for _ in peers]
        self._connect(is_trading)
        self._rarity = [self._count_neighbours(node) for node in range(len(peers))]
        # Busy connections by the links that they cross.
        self._across: dict[Link, set[int]] = {}
        self._changed: set[Link] = set()  # Links across which something has begun or ended.
        self._begun: list[_Connection] = []
        self._planned: list[tuple[float, int, int]] = []
        self._done = [0.0 if node == 0 else math.inf for node in range(len(peers))]
        self._now = 0.0

    def run(self) -> list[float]:
        for node in range(len(self._peers)):
            self._ask(node)
        self._go_on()
        while self._planned:
            self._now = self._planned[0][0]
            # What ends at the same moment is one event.
            while self._planned and self._planned[0][0] <= self._now:
                _, number, version = heapq.heappop(self._planned)
                if self._all[number].version == version:
                    self._arrive(self._all[number])
            self._go_on()
        return self._done

    # Who is joined to whom.

    def _connect(self, is_trading: Sequence[bool]) -> None:
        self._all: list[_Connection] = []
        children: dict[int, list[int]] = {}
        for node, peer in enumerate(self._peers):
            if peer.parent >= 0:
                self._join(peer.parent, node)
                children.setdefault(peer.parent, []).append(node)
        for parent, siblings in children.items():
            if not (is_trading and is_trading[parent]):
                continue
            codes = {
                Division(f"{node:012}"): node for node in siblings if self._peers[node].hub < 0
            }
            for code, others in partners_of("payload", dict.fromkeys(codes, 0.0)).items():
                for other in others:
                    self._join(codes[code], codes[other])
                    self._join(codes[other], codes[code])

    def _join(self, sender: int, receiver: int) -> None:
        way: dict[Link, float] = {(sender, 1): 1.0, (receiver, 0): 1.0}
        hub = self._peers[receiver].hub
        if hub not in (-1, sender):
            way[hub, 1] = way[hub, 0] = 1.0
        connection = _Connection(len(self._all), sender, receiver, way)
        self._all.append(connection)
        self._from[sender].append(connection)
        self._to[receiver].append(connection)

    def _count_neighbours(self, node: int) -> list[int]:
        """How many of those it is joined to have each piece."""
        whole = sum(connection.sender == 0 for connection in self._to[node])
        return [whole] * self._pieces

    # Asking.

    def _ask(self, node: int) -> None:
        """Keep the connections to a place busy; those with the least in flight first."""
        for connection in sorted(self._to[node], key=lambda one: len(one.asked)):
            self._fill(connection)

    def _fill(self, connection: _Connection) -> None:
        node = connection.receiver
        while len(connection.asked) < IN_FLIGHT:
            wanted = self._lacking[node] - self._asked[node] - self._lacking[connection.sender]
            if not wanted:
                return
            rarity, tie = self._rarity[node], self._tie[node]
            piece = min(wanted, key=lambda piece: (rarity[piece], tie[piece]))
            self._asked[node].add(piece)
            connection.asked.append(piece)
            if len(connection.asked) == 1:
                self._begin(connection)

    def _begin(self, connection: _Connection) -> None:
        """The next piece in flight; the connection may have been idle."""
        is_last = connection.asked[0] == self._pieces - 1
        connection.left = self._last_bytes if is_last else self._piece_bytes
        connection.at = self._now
        self._begun.append(connection)
        for link in connection.way:
            across = self._across.setdefault(link, set())
            if connection.number not in across:
                across.add(connection.number)
                self._changed.add(link)

    def _arrive(self, connection: _Connection) -> None:
        """The first piece in flight is there."""
        node, piece = connection.receiver, connection.asked.pop(0)
        connection.version += 1
        self._lacking[node].discard(piece)
        self._asked[node].discard(piece)
        if not self._lacking[node]:
            self._done[node] = self._now
        if connection.asked:
            self._begin(connection)
        self._fill(connection)
        if not connection.asked:
            self._take_over(connection)
        if not connection.asked:
            connection.rate = 0.0
            for link in connection.way:
                self._across[link].discard(connection.number)
                self._changed.add(link)
        for following in self._from[node]:
            self._rarity[following.receiver][piece] += 1
            self._fill(following)

    def _take_over(self, idle: _Connection) -> None:
        """A piece that waits behind another one at a busy connection; else the end would wait for the slowest."""
        candidates = [
            busy
            for busy in self._to[idle.receiver]
            if len(busy.asked) > 1 and busy.asked[-1] not in self._lacking[idle.sender]
        ]
        if candidates:
            busy = max(candidates, key=lambda one: len(one.asked) / max(one.rate, 1e-9))
            idle.asked.append(busy.asked.pop())
            self._begin(idle)

    # Time.

    def _go_on(self) -> None:
        """New rates where something has changed, and new ends."""
        moved = self._share_out() if self._changed else set()
        for connection in self._begun:
            if connection.asked and connection.number not in moved:
                self._plan(connection)
        self._begun.clear()
        self._changed.clear()

    def _share_out(self) -> set[int]:
        """Among the connections that share a link with what has changed, directly or by others."""
        links, found = list(self._changed), set()
        seen = set(links)
        while links:
            for number in self._across.get(links.pop(), ()):
                found.add(number)
                fresh = [link for link in self._all[number].way if link not in seen]
                links += fresh
                seen.update(fresh)
        numbers = sorted(found)
        room = {link: self._room(link) for link in seen}
        rates = progressive_filling(
            room, [math.inf] * len(numbers), [self._all[number].way for number in numbers]
        )
        for number, rate in zip(numbers, rates, strict=True):
            connection = self._all[number]
            connection.left -= connection.rate * (self._now - connection.at)
            connection.at, connection.rate = self._now, rate
            self._plan(connection)
        return found

    def _room(self, link: Link) -> float:
        owner, direction = link
        peer = self._peers[owner]
        return peer.up_bytes_s if direction else peer.down_bytes_s

    def _plan(self, connection: _Connection) -> None:
        """When the present piece will have come."""
        connection.version += 1
        if connection.rate > 0:
            ends = connection.at + max(connection.left, 0.0) / connection.rate
            heapq.heappush(self._planned, (ends, connection.number, connection.version))

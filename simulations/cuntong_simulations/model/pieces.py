"""A model of pieces and connections, for some hundred places: what the flow model is judged by.

Idealised: links share max-min fairly and at once, and nothing is lost or late. Pieces are real: who lacks which, whom it
asks, what is rarest among its neighbours. Time passes from the end of one transfer to the next. What all connections or
all pieces are looked through for is compiled.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from cuntong_daemon.policy.peers import partners_of
from cuntong_protocol.divisions import Division

from .compiled import compiled

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
    """

    number: int
    sender: int
    receiver: int
    asked: list[int] = field(default_factory=list)


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
        pieces = max(1, -int(-payload_bytes // piece_bytes))
        self._bytes = [float(piece_bytes)] * (pieces - 1)
        self._bytes.append(payload_bytes - (pieces - 1) * piece_bytes)
        # By place and piece: whether it is there; whether it is neither there nor asked for; how many neighbours have it.
        self._has = np.zeros((len(peers), pieces), np.bool_)
        self._has[0] = True
        self._is_open = ~self._has
        self._rarity = np.zeros((len(peers), pieces), np.int64)
        self._lacking = [pieces] * len(peers)
        chance = random.Random(seed)  # noqa: S311 - a model, nothing secret.
        # Equally rare pieces in another order at each place: else all would ask for the same.
        self._tie = np.array([[chance.random() for _ in range(pieces)] for _ in peers])
        self._from: list[list[_Connection]] = [[] for _ in peers]
        self._to: list[list[_Connection]] = [[] for _ in peers]
        ways = self._connect(is_trading)
        self._ways = np.array(ways, np.int64).reshape(-1, 4)
        self._room = np.array([rate for peer in peers for rate in (peer.down_bytes_s, peer.up_bytes_s)], np.float64)  # fmt: skip
        # By connection: bytes of the piece that is coming which were left at a time, bytes/s, when it will be there.
        count = len(ways)
        self._is_busy = np.zeros(count, np.bool_)
        self._left, self._at, self._rate = np.zeros(count), np.zeros(count), np.zeros(count)
        self._ends = np.full(count, np.inf)
        # Links across which something has begun or ended.
        self._is_changed = np.zeros(len(self._room), np.bool_)
        self._begun: list[int] = []
        self._done = [0.0 if node == 0 else math.inf for node in range(len(peers))]
        self._now = 0.0

    def run(self) -> list[float]:
        for node in range(len(self._peers)):
            self._ask(node)
        self._go_on()
        while len(self._ends):
            self._now = float(self._ends.min())
            if self._now == math.inf:
                break
            # What ends at the same moment is one event.
            for number in np.flatnonzero(self._ends <= self._now).tolist():
                self._arrive(self._all[number])
            self._go_on()
        return self._done

    # Who is joined to whom.

    def _connect(self, is_trading: Sequence[bool]) -> list[list[int]]:
        """The links that each connection crosses."""
        self._all: list[_Connection] = []
        ways: list[list[int]] = []
        children: dict[int, list[int]] = {}
        for node, peer in enumerate(self._peers):
            if peer.parent >= 0:
                ways.append(self._join(peer.parent, node))
                children.setdefault(peer.parent, []).append(node)
        for parent, siblings in children.items():
            if not (is_trading and is_trading[parent]):
                continue
            codes = {
                Division(f"{node:012}"): node for node in siblings if self._peers[node].hub < 0
            }
            for code, others in partners_of("payload", dict.fromkeys(codes, 0.0)).items():
                for other in others:
                    ways.append(self._join(codes[code], codes[other]))
                    ways.append(self._join(codes[other], codes[code]))
        return ways

    def _join(self, sender: int, receiver: int) -> list[int]:
        """The links that the new connection crosses, each once; -1: none."""
        way = {_up(sender), _down(receiver)}
        hub = self._peers[receiver].hub
        if hub not in (-1, sender):
            way |= {_up(hub), _down(hub)}
        connection = _Connection(len(self._all), sender, receiver)
        self._all.append(connection)
        self._from[sender].append(connection)
        self._to[receiver].append(connection)
        self._rarity[receiver] += sender == 0
        return [*sorted(way), -1, -1][:4]

    # Asking.

    def _ask(self, node: int) -> None:
        """Keep the connections to a place busy; those with the least in flight first."""
        for connection in sorted(self._to[node], key=lambda one: len(one.asked)):
            self._fill(connection)

    def _fill(self, connection: _Connection) -> None:
        node = connection.receiver
        while self._lacking[node] and len(connection.asked) < IN_FLIGHT:
            piece = _rarest(self._is_open, self._has, self._rarity, self._tie, node, connection.sender)  # fmt: skip
            if piece < 0:
                return
            self._is_open[node, piece] = False
            connection.asked.append(piece)
            if len(connection.asked) == 1:
                self._begin(connection)

    def _begin(self, connection: _Connection) -> None:
        """The next piece in flight; the connection may have been idle."""
        number = connection.number
        self._left[number] = self._bytes[connection.asked[0]]
        self._at[number] = self._now
        self._begun.append(number)
        if not self._is_busy[number]:
            self._is_busy[number] = True
            self._change(number)

    def _change(self, number: int) -> None:
        way = self._ways[number]
        self._is_changed[way[way >= 0]] = True

    def _arrive(self, connection: _Connection) -> None:
        """The first piece in flight is there."""
        number, node, piece = connection.number, connection.receiver, connection.asked.pop(0)
        self._ends[number] = np.inf
        self._has[node, piece] = True
        self._lacking[node] -= 1
        if not self._lacking[node]:
            self._done[node] = self._now
        if connection.asked:
            self._begin(connection)
        self._fill(connection)
        if not connection.asked:
            self._take_over(connection)
        if not connection.asked:
            self._rate[number] = 0.0
            self._is_busy[number] = False
            self._change(number)
        for following in self._from[node]:
            self._rarity[following.receiver, piece] += 1
            self._fill(following)

    def _take_over(self, idle: _Connection) -> None:
        """A piece that waits behind another one at a busy connection; else the end would wait for the slowest."""
        candidates = [
            busy
            for busy in self._to[idle.receiver]
            if len(busy.asked) > 1 and self._has[idle.sender, busy.asked[-1]]
        ]
        if candidates:
            busy = max(candidates, key=lambda one: len(one.asked) / max(self._rate[one.number], 1e-9))  # fmt: skip
            idle.asked.append(busy.asked.pop())
            self._begin(idle)

    # Time.

    def _go_on(self) -> None:
        """New rates where something has changed, and new ends."""
        if self._is_changed.any():
            share_out(self._ways, self._is_busy, self._is_changed, self._room, self._now, self._left, self._at, self._rate)  # fmt: skip
            self._is_changed[:] = False
            _plan(np.flatnonzero(self._is_busy), self._left, self._at, self._rate, self._ends)
        else:
            _plan(np.array(self._begun, np.int64), self._left, self._at, self._rate, self._ends)
        self._begun.clear()


def _down(node: int) -> int:
    return 2 * node


def _up(node: int) -> int:
    return 2 * node + 1


@compiled
def _rarest(is_open: NDArray[np.bool_], has: NDArray[np.bool_], rarity: NDArray[np.int64], tie: NDArray[np.float64], node: int, sender: int) -> int:  # fmt: skip
    """The piece that a place asks a sender for, -1 if there is none."""
    found = -1
    for piece in range(is_open.shape[1]):
        if not is_open[node, piece] or not has[sender, piece]:
            continue
        if found >= 0 and rarity[node, piece] > rarity[node, found]:
            continue
        if (
            found < 0
            or rarity[node, piece] < rarity[node, found]
            or tie[node, piece] < tie[node, found]
        ):
            found = piece
    return found


@compiled
def share_out(ways: NDArray[np.int64], is_busy: NDArray[np.bool_], is_changed: NDArray[np.bool_], room: NDArray[np.float64], now: float, left: NDArray[np.float64], at: NDArray[np.float64], rate: NDArray[np.float64]) -> None:  # fmt: skip
    """`filling.progressive_filling` among connections that share a link with what has changed, directly or by others.

    Args:
        ways: The links that each connection crosses; -1: none.
        is_busy: By connection.
        is_changed: By link.
        room: By link, bytes/s.
        now: Seconds.
        left, at: By connection: bytes that were left at a time; are brought forward to now.
        rate: By connection; is written.
    """
    seen = is_changed.copy()
    growing = np.empty(len(ways), np.int64)
    count = 0
    is_found = np.zeros(len(ways), np.bool_)
    is_new = True
    while is_new:
        is_new = False
        for number in range(len(ways)):
            if not is_busy[number] or is_found[number]:
                continue
            for link in ways[number]:
                if link >= 0 and seen[link]:
                    is_found[number] = True
            if is_found[number]:
                is_new = True
                growing[count] = number
                count += 1
                for link in ways[number]:
                    if link >= 0:
                        seen[link] = True
    load, spare = np.zeros(len(room)), room.copy()
    for place in range(count):
        number = growing[place]
        left[number] -= rate[number] * (now - at[number])
        at[number] = now
        for link in ways[number]:
            if link >= 0:
                load[link] += 1.0
    level = 0.0
    while count:
        step = np.inf
        for link in range(len(room)):
            if load[link] > 0.0:
                step = min(step, max(spare[link], 0.0) / load[link])
        level += step
        for link in range(len(room)):
            if load[link] > 0.0:
                is_full = max(spare[link], 0.0) / load[link] <= step
                spare[link] = 0.0 if is_full else spare[link] - step * load[link]
                seen[link] = not is_full
        kept = 0
        for place in range(count):
            number = growing[place]
            is_stopped = False
            for link in ways[number]:
                if link >= 0 and not seen[link]:
                    is_stopped = True
            if not is_stopped:
                growing[kept] = number
                kept += 1
                continue
            rate[number] = level
            for link in ways[number]:
                if link >= 0:
                    load[link] -= 1.0
        count = kept


@compiled
def _plan(numbers: NDArray[np.int64], left: NDArray[np.float64], at: NDArray[np.float64], rate: NDArray[np.float64], ends: NDArray[np.float64]) -> None:  # fmt: skip
    """When the present pieces of some connections will have come."""
    for number in numbers:
        ends[number] = np.inf
        if rate[number] > 0.0:
            ends[number] = at[number] + max(left[number], 0.0) / rate[number]

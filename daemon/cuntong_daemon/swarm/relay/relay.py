"""The sockets of the relay, and the thread that serves them (SPEC 10.9).

libtorrent listens on a loopback address; the node's own address belongs to the relay. Each peer outside has a socket
inside, so that libtorrent tells them apart by port. What comes in goes on at once, after a look at how long it was
under way; what goes out waits for its turn (`pacing`). The thread has no locks: others leave it frozen values to
read, and read those that it leaves.
"""

from __future__ import annotations

import errno
import ipaddress
import os
import select
import socket
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

from cuntong_daemon.logs import get_logger
from cuntong_daemon.policy.governor import State
from cuntong_daemon.swarm.events import cannot_listen
from cuntong_daemon.swarm.settings import LOWER_EFFORT, IPNetwork
from cuntong_protocol.texts import Sentence

from .connections import Connection, Connections
from .downlink import STEP_S, Downlink, Rate
from .pacing import Pacer
from .utp import (
    HEADER_BYTES,
    IP_UDP_BYTES,
    Kind,
    acknowledged_by,
    acknowledgement_of,
    has_selective_acknowledgement,
    kind_of,
    set_acknowledged,
    swarm_of,
)

log = get_logger("relay")

INSIDE = "127.0.0.1"
MAX_PEERS = 128
"""Outside addresses; a village has a few. The one that was silent longest makes room."""
MAX_PACKET = 2048
AT_ONCE = 32
"""Packets read from one socket before the others have their turn."""
IDLE_POLL_S = 1.0
Address = tuple[str, int]


@dataclass(frozen=True, slots=True)
class Order:
    """What the relay is to hold; bytes/s, 0 for no limit or not known.

    Attributes:
        link_down_bytes_s: What the link carries towards this node.
        cap_down_bytes_s: The most that may come.
        cap_up_bytes_s: The most that may be sent.
        parent: The address of the place above that was connected last; empty before the first.
    """

    link_down_bytes_s: int = 0
    cap_down_bytes_s: int = 0
    cap_up_bytes_s: int = 0
    parent: str = ""


@dataclass(frozen=True, slots=True)
class RelayStatus:
    """What the relay sees.

    Attributes:
        down_bytes_s: Of data on the wire, over the last second.
        up_bytes_s: The same for what is sent.
        rate_down_bytes_s: What is allowed at the moment; None for no limit.
        state: Of the governor.
        reason: Of its last decision.
        queue_s: How long the last packet queued on its way.
        dropped: Packets lost here, all in all.
    """

    down_bytes_s: int = 0
    up_bytes_s: int = 0
    rate_down_bytes_s: int | None = None
    state: State = State.FREE
    reason: Sentence | None = None
    queue_s: float = 0.0
    dropped: int = 0


@dataclass(slots=True, eq=False)
class _Peer:
    """One address outside."""

    outside: Address
    inner: socket.socket
    door: socket.socket
    heard_at: float
    connections: Connections[_Peer] = field(init=False)

    def __post_init__(self) -> None:
        self.connections = Connections(self)


class Relay:
    """Open between `open` and `close`; its methods may be called from any thread.

    Attributes:
        failure: What ended its thread; None as long as that runs, or was told to stop.
    """

    def __init__(self, networks: Sequence[IPNetwork]) -> None:
        self._networks = tuple(networks)
        self._doors: list[socket.socket] = []
        self._inside: dict[socket.socket, Address] = {}
        self._peers: dict[tuple[socket.socket, Address], _Peer] = {}
        self._by_port: dict[int, Address] = {}
        self._order = self._held = Order()
        self._down: Downlink[_Peer] = Downlink()
        self._data: Pacer[tuple[_Peer, Connection[_Peer] | None, bytearray]] = Pacer()
        self._up, self._acks_up = Rate(), Rate()
        self._lock = threading.Lock()  # Of `_peers`: dialling makes one, too.
        self._poll = select.epoll()
        self._files: dict[int, tuple[socket.socket, _Peer | None]] = {}
        self._is_closing = False
        self.failure: Exception | None = None
        self._bell = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._poll.register(self._bell, select.EPOLLIN)
        self._thread = threading.Thread(target=self._run, name="relay", daemon=True)

    @property
    def status(self) -> RelayStatus:
        """What is so at the moment; the thread goes on meanwhile."""
        now, down = time.monotonic(), self._down
        decision = down.decision
        return RelayStatus(
            down.rate.at(now),
            self._up.at(now),
            down.rate_bytes_s,
            State.FREE if decision is None else decision.state,
            None if decision is None else decision.reason,
            down.queue_s,
            down.dropped + self._data.dropped,
        )

    def set_order(self, order: Order) -> None:
        """What is to be held from now on."""
        self._order = order

    def set_shares(self, shares: Mapping[bytes, float]) -> None:
        """The part of the link, 0 to 1, for each infohash."""
        self._down.shares = {infohash[:20]: part for infohash, part in shares.items()}

    def open(self, host: str, ports: Sequence[int], inside: Sequence[Address]) -> list[int]:
        """Take the node's own ports, and begin.

        Args:
            host: The node's address.
            ports: For open torrents, and for closed ones; 0 takes a free one.
            inside: Where libtorrent listens for each.

        Returns:
            The ports.

        Raises:
            SwarmError: `swarm.cannot-listen`.
        """
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        for port, place in zip(ports, inside, strict=True):
            door = socket.socket(
                family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC
            )
            self._doors.append(door)
            try:
                door.bind((host, port))
            except OSError as error:
                self.close()
                raise cannot_listen(f"{host}:{port}", error.strerror or str(error)) from error
            _mark(door)
            self._inside[door] = place
            self._watch(door, None)
        self._thread.start()
        return [door.getsockname()[1] for door in self._doors]

    def close(self) -> None:
        """Stop, and give everything back. Doing it twice does nothing."""
        if self._bell < 0:
            return
        self._is_closing = True
        if self._thread.is_alive():
            os.eventfd_write(self._bell, 1)
            self._thread.join(2 * IDLE_POLL_S)
        for peer in self._peers.values():
            peer.inner.close()
        for door in self._doors:
            door.close()
        self._poll.close()
        os.close(self._bell)
        self._bell = -1

    def inside_of(self, outside: Address, *, is_closed: bool) -> Address | None:
        """What libtorrent is to dial for a peer outside; None when it can't be reached."""
        door = self._doors[is_closed] if self._doors else None
        if door is None or not self._is_allowed(outside[0]):
            return None
        try:
            peer = self._peer(door, outside, time.monotonic())
        except OSError:
            return None
        address: Address = peer.inner.getsockname()
        return address

    def outside_of(self, port: int) -> Address | None:
        """Who is behind a port inside."""
        return self._by_port.get(port)

    # The thread.

    def _run(self) -> None:
        try:
            while not self._is_closing:
                self._turn()
        except Exception as error:  # noqa: BLE001 - whoever looks after the relay raises it.
            self.failure = error

    def _turn(self) -> None:
        now = time.monotonic()
        due = min(self._down.due(now), self._data.due(), now + self._patience_s())
        for file, _ in self._poll.poll(max(0.0, due - now)):
            found = self._files.get(file)
            if found is None:
                continue
            source, peer = found
            if peer is None:
                self._read_outside(source)
            else:
                self._read_inside(peer)
        self._release(time.monotonic())

    def _patience_s(self) -> float:
        return STEP_S if self._down.waiting or self._data else IDLE_POLL_S

    def _read_outside(self, door: socket.socket) -> None:
        for _ in range(AT_ONCE):
            try:
                packet, sender = door.recvfrom(MAX_PACKET)
            except OSError:  # Nothing more; or an ICMP error, which means nothing here.
                return
            now = time.monotonic()
            outside: Address = sender[:2]
            peer = self._peers.get((door, outside))
            if peer is None:
                if not packet or not self._is_allowed(outside[0]):
                    continue
                try:
                    peer = self._peer(door, outside, now)
                except OSError:
                    continue
            peer.heard_at = now
            kind = kind_of(packet)
            if kind is not None:
                self._down.came(peer.connections.incoming(packet, kind), packet, kind, now)
            with suppress(OSError):
                peer.inner.sendto(packet, self._inside[door])

    def _read_inside(self, peer: _Peer) -> None:
        for _ in range(AT_ONCE):
            try:
                packet = bytearray(peer.inner.recv(MAX_PACKET))
            except OSError:
                return
            now = time.monotonic()
            kind = kind_of(packet)
            if kind is None:
                self._queue(peer, None, packet, now)
                continue
            connection = peer.connections.outgoing(packet, kind)
            self._down.sent(connection, packet, now)
            if kind in (Kind.FIN, Kind.RESET):
                self._down.forget(connection)
            if kind not in (Kind.DATA, Kind.STATE, Kind.FIN):
                self._queue(peer, connection, packet, now)
                continue
            connection.header = bytes(packet[:HEADER_BYTES])
            if kind is not Kind.DATA:
                self._down.acknowledge(connection, packet, now)
                continue
            if connection.swarm is None:
                connection.swarm = swarm_of(packet)
            # Data doesn't wait for what it acknowledges, and what it acknowledges doesn't wait for the uplink.
            if connection.unacknowledged or has_selective_acknowledgement(packet):
                self._down.acknowledge(connection, acknowledgement_of(packet), now)
            self._queue(peer, connection, packet, now)

    def _queue(
        self, peer: _Peer, connection: Connection[_Peer] | None, packet: bytearray, now: float
    ) -> None:
        self._data.put((peer, connection, packet), len(packet) + IP_UDP_BYTES, now)

    def _release(self, now: float) -> None:
        down, order = self._down, self._order
        if order is not self._held:
            self._held = order
            down.link_bytes_s, down.cap_bytes_s = order.link_down_bytes_s, order.cap_down_bytes_s
            for peer in [*self._peers.values()]:
                peer.connections.path.is_above = peer.outside[0] == order.parent
        # What is sent at all is capped; acknowledgements don't wait for that, so data gets what they leave.
        self._acks_up.roll(now)
        most = max(order.cap_up_bytes_s - self._acks_up.last, order.cap_up_bytes_s // 10)
        self._data.rate_bytes_s = most or None
        for connection, packet in down.take(now):
            self._acks_up.add(len(packet) + IP_UDP_BYTES, now)
            self._send(connection.peer, packet, now)
        while (taken := self._data.take(now)) is not None:
            peer, known, packet = taken
            if known is not None:
                down.narrow(known, packet)
            if known is not None and kind_of(packet) is Kind.DATA:
                if known.acknowledged is None:
                    known.acknowledged = acknowledged_by(packet)
                # libtorrent drops data that acknowledges less than what came before it, by more than 3 packets.
                set_acknowledged(packet, known.acknowledged)
                down.stamp(packet, now)
                down.left(known, packet, now)
            self._send(peer, packet, now)

    def _send(self, peer: _Peer, packet: bytearray, now: float) -> None:
        self._up.add(len(packet) + IP_UDP_BYTES, now)
        try:
            peer.door.sendto(packet, peer.outside)
        except OSError as error:
            # Too long for the path: as good as lost, and libtorrent makes them shorter.
            if error.errno not in (errno.EMSGSIZE, errno.EAGAIN, errno.ECONNREFUSED):
                log.debug("relay.not-sent", reason=error.strerror)

    # Peers.

    def _peer(self, door: socket.socket, outside: Address, now: float) -> _Peer:
        with self._lock:
            peer = self._peers.get((door, outside))
            if peer is not None:
                return peer
            if len(self._peers) >= MAX_PEERS:
                self._forget(min(self._peers.values(), key=lambda one: one.heard_at))
            inner = socket.socket(
                socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC
            )
            try:
                inner.bind((INSIDE, 0))
                inner.connect(self._inside[door])
            except OSError:
                inner.close()
                raise
            peer = _Peer(outside, inner, door, now)
            peer.connections.path.is_above = outside[0] == self._order.parent
            self._peers[door, outside] = peer
            self._by_port[inner.getsockname()[1]] = outside
            self._watch(inner, peer)
            return peer

    def _forget(self, peer: _Peer) -> None:
        del self._peers[peer.door, peer.outside]
        self._by_port.pop(peer.inner.getsockname()[1], None)
        self._files.pop(peer.inner.fileno(), None)
        self._poll.unregister(peer.inner)
        peer.inner.close()

    def _watch(self, source: socket.socket, peer: _Peer | None) -> None:
        self._files[source.fileno()] = (source, peer)
        self._poll.register(source, select.EPOLLIN)

    def _is_allowed(self, host: str) -> bool:
        try:
            address = ipaddress.ip_address(host)
        except ValueError:
            return False
        return any(address in network for network in self._networks)


def _mark(door: socket.socket) -> None:
    """Lower Effort; and the path's own limit of a packet's length counts, as libtorrent expects when it probes."""
    if door.family == socket.AF_INET6:
        door.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_TCLASS, LOWER_EFFORT)
        return
    door.setsockopt(socket.IPPROTO_IP, socket.IP_TOS, LOWER_EFFORT)
    door.setsockopt(socket.IPPROTO_IP, IP_MTU_DISCOVER, IP_PMTUDISC_DO)


IP_MTU_DISCOVER = 10
IP_PMTUDISC_DO = 2
"""Of ip(7); Python names neither."""

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
import statistics
import threading
import time
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field

from cuntong_daemon.logs import get_logger
from cuntong_daemon.policy.governor import Governor, State
from cuntong_daemon.swarm.events import SwarmError
from cuntong_daemon.swarm.settings import LOWER_EFFORT, IPNetwork
from cuntong_protocol.errors import Fault
from cuntong_protocol.texts import N_, Sentence

from .delays import OwnArrivals, QueueingDelay
from .pacing import MAX_WAITING, Pacer
from .utp import (
    IP_UDP_BYTES,
    Kind,
    acknowledge,
    acknowledged_by,
    connection_of,
    delay_us,
    hold,
    kind_of,
    narrow_window,
)

log = get_logger("relay")

INSIDE = "127.0.0.1"
MAX_PEERS = 128
"""Outside addresses; a village has a few. The one that was silent longest makes room."""
MAX_CONNECTIONS = 64
"""Of one peer: one for each bundle on its way."""
MAX_PACKET = 2048
AT_ONCE = 32
"""Packets read from one socket before the others have their turn."""
MIN_WINDOW_BYTES = 6_000
"""Four packets."""
WAITING_S = 0.06
"""Besides a round trip, so much may be under way: some acknowledgements have to wait here, or the pace isn't ours. But
what is under way can come all at once after a silence, and goes on coming when we yield."""
LATE_S = 0.01
"""When what should have come by now is late by a packet's time and this, it waits behind somebody's page. Until it
comes and tells, nothing more is asked for."""
UNANSWERED = 3
"""Acknowledgements without an answer; fewer may not have let the sender send anything yet."""
SILENT_S = 0.4
"""For so long at most; the longest queue of a modem."""
WINDOW_STEP = 1500
MOST_WAITING = 4
MAX_EXTRA_S = 0.5
"""A round trip may become longer: a centre that fills its own downlink gets our acknowledgements a quarter of a second
later. While none wait here and less comes than could, more may be under way; when many wait, less, twice as fast."""
STARVED_SHARE = 0.9
ASSUMED_TRIP_S = 0.1
MAX_TRIP_S = 3.0
RATE_S = 1.0
"""Over which what was moved is counted."""
IDLE_POLL_S = 1.0
STEP_S = 0.25
"""The governor is asked at least so often while something waits."""

Address = tuple[str, int]


@dataclass(frozen=True, slots=True)
class Order:
    """What the relay is to hold; bytes/s, 0 for no limit or not known.

    Attributes:
        link_down_bytes_s: What the link carries towards this node.
        cap_down_bytes_s: The most that may come.
        cap_up_bytes_s: The most that may be sent.
    """

    link_down_bytes_s: int = 0
    cap_down_bytes_s: int = 0
    cap_up_bytes_s: int = 0


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
    """One address outside.

    Attributes:
        unacknowledged: Bytes that came and that nothing we sent has acknowledged.
        dialled_at: When it was dialled and hasn't answered yet.
        trip_s: How long its answer took then.
        acknowledged: By connection, what it was last told to have come.
    """

    outside: Address
    inner: socket.socket
    door: socket.socket
    heard_at: float
    delay: QueueingDelay = field(default_factory=QueueingDelay)
    unacknowledged: int = 0
    dialled_at: float | None = None
    trip_s: float | None = None
    acknowledged: dict[int, int] = field(default_factory=dict)

    def acknowledge(self, packet: bytearray, kind: Kind) -> None:
        """Data waits for the uplink, acknowledgements don't: it mustn't say less than they did."""
        connection = connection_of(packet)
        if kind is Kind.SYN:
            self.acknowledged.pop((connection + 1) % 65_536, None)  # What it will have (BEP 29).
            return
        known = self.acknowledged.pop(connection, None)
        number = acknowledged_by(packet) if known is None else acknowledge(packet, known)
        if len(self.acknowledged) >= MAX_CONNECTIONS:
            del self.acknowledged[next(iter(self.acknowledged))]
        self.acknowledged[connection] = number


@dataclass(slots=True)
class _Rate:
    """Bytes over the last second or so."""

    since: float = 0.0
    bytes: int = 0
    last: int = 0

    def add(self, count: int, now: float) -> None:
        self.roll(now)
        self.bytes += count

    def roll(self, now: float) -> None:
        if now - self.since >= RATE_S:
            self.last = int(self.bytes / (now - self.since)) if now - self.since < 10 else 0
            self.since, self.bytes = now, 0


class Relay:
    """Open between `open` and `close`; its methods may be called from any thread."""

    def __init__(self, networks: Sequence[IPNetwork]) -> None:
        self._networks = tuple(networks)
        self._doors: list[socket.socket] = []
        self._inside: dict[socket.socket, Address] = {}
        self._peers: dict[tuple[socket.socket, Address], _Peer] = {}
        self._by_port: dict[int, Address] = {}
        self._order = Order()
        self._status = RelayStatus()
        self._acks: Pacer[tuple[_Peer, bytearray, int]] = Pacer()
        self._data: Pacer[tuple[_Peer, bytearray, int]] = Pacer()
        self._governor = Governor()
        self._next_step = 0.0
        self._heard_at = float("-inf")
        self._extra = 0
        self._releases: deque[tuple[float, float]] = deque(maxlen=MAX_WAITING)
        self._least_waiting = MAX_WAITING
        self._queues: deque[float] = deque([0.0], maxlen=QUEUE_SAMPLES)
        self._own = OwnArrivals()
        self._down, self._up = _Rate(), _Rate()
        self._lock = threading.Lock()  # Of `_peers`: dialling makes one, too.
        self._poll = select.epoll()
        self._files: dict[int, tuple[socket.socket, _Peer | None]] = {}
        self._is_closing = False
        self._bell = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._poll.register(self._bell, select.EPOLLIN)
        self._thread = threading.Thread(target=self._run, name="relay", daemon=True)

    @property
    def status(self) -> RelayStatus:
        """A snapshot, a second old at most."""
        return self._status

    def set_order(self, order: Order) -> None:
        """What is to be held from now on."""
        self._order = order

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
                raise SwarmError(
                    "swarm.cannot-listen",
                    N_(
                        "{address} can't be listened on for swarms: {reason}. Is another daemon running, or"
                        " is the address under [network] swarm not one of this machine?"
                    ),
                    fault=Fault.SYSTEM,  # The VPN may not be up yet: starting again can mend it.
                    address=f"{host}:{port}",
                    reason=error.strerror or str(error),
                ) from error
            _mark(door)
            self._inside[door] = place
            self._watch(door, None)
        self._thread.start()
        return [door.getsockname()[1] for door in self._doors]

    def close(self) -> None:
        """Stop, and give everything back."""
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
        while not self._is_closing:
            now = time.monotonic()
            acks_due = max(self._acks.due(), self._silent_until(now))
            due = min(acks_due, self._data.due(), now + self._patience_s())
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
        return STEP_S if self._acks or self._data else IDLE_POLL_S

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
            if peer.dialled_at is not None:
                trip_s = min(now - peer.dialled_at, MAX_TRIP_S)
                peer.trip_s, peer.dialled_at = trip_s, None
            kind = kind_of(packet)
            if kind is Kind.DATA:
                self._note_data(peer, packet, now)
            elif kind is Kind.SYN:
                peer.acknowledged.pop(connection_of(packet), None)
            with suppress(OSError):
                peer.inner.sendto(packet, self._inside[door])

    def _note_data(self, peer: _Peer, packet: bytes, now: float) -> None:
        size = len(packet) + IP_UDP_BYTES
        self._heard_at = now
        self._least_waiting = min(self._least_waiting, len(self._acks))
        peer.unacknowledged += size
        self._down.add(size, now)
        excess_s = peer.delay.excess_s(now, delay_us(packet, int(now * 1_000_000)))
        self._queues.append(excess_s)
        foreign_s = self._own.foreign_s(now, size, excess_s, self._governor.link_bytes_s)
        self._governor.packet(now, size, foreign_s)
        self._govern(now)

    def _govern(self, now: float) -> None:
        order, governor = self._order, self._governor
        governor.know(order.link_down_bytes_s)
        self._down.roll(now)
        self._up.roll(now)
        queue_s = statistics.median(self._queues)
        decision = governor.step(now, queue_s=queue_s, achieved_bytes_s=self._down.last)
        most = int(decision.link_bytes_s * link_share(queue_s, governor.packet_s))
        rates = [rate for rate in (decision.rate_bytes_s, most, order.cap_down_bytes_s) if rate]
        rate = min(rates, default=None)
        self._acks.rate_bytes_s = rate
        if now >= self._next_step:
            if decision.state is State.FREE:
                self._fit_window(rate)
            self._next_step = now + STEP_S
        self._data.rate_bytes_s = order.cap_up_bytes_s or None
        self._status = RelayStatus(
            self._down.last,
            self._up.last,
            rate,
            decision.state,
            decision.reason,
            queue_s,
            self._acks.dropped + self._data.dropped,
        )

    def _read_inside(self, peer: _Peer) -> None:
        for _ in range(AT_ONCE):
            try:
                packet = bytearray(peer.inner.recv(MAX_PACKET))
            except OSError:
                return
            now = time.monotonic()
            kind = kind_of(packet)
            cost, peer.unacknowledged = peer.unacknowledged, 0
            if kind is not None and self._acks.rate_bytes_s is not None:
                narrow_window(packet, self._window(peer))
            # Whatever is sent acknowledges what has come, requests as well as bare acknowledgements.
            self._acks.put((peer, packet, cost), cost, now)

    def _window(self, peer: _Peer) -> int:
        """How much a peer may have under way."""
        order = self._order
        rates = [self._governor.link_bytes_s, order.cap_down_bytes_s]
        rate = min((rate for rate in rates if rate), default=0)
        trip_s = ASSUMED_TRIP_S if peer.trip_s is None else peer.trip_s
        return max(MIN_WINDOW_BYTES, int(rate * (trip_s + WAITING_S))) + self._extra

    def _fit_window(self, rate: int | None) -> None:
        waiting, self._least_waiting = self._least_waiting, MAX_WAITING
        if rate is None or waiting == MAX_WAITING:  # Unlimited, or nothing came.
            return
        if waiting > MOST_WAITING:
            self._extra = max(0, self._extra - 2 * WINDOW_STEP)
        elif not waiting and self._down.last < rate * STARVED_SHARE:
            self._extra = min(int(rate * MAX_EXTRA_S), self._extra + WINDOW_STEP)

    def _silent_until(self, now: float) -> float:
        """Until when nothing is acknowledged, because what is under way doesn't come."""
        releases = self._releases
        while releases and releases[0][0] + releases[0][1] <= self._heard_at:
            releases.popleft()  # What this asked for has come.
        if len(releases) < UNANSWERED or not self._order.link_down_bytes_s:
            return float("-inf")
        released_at, trip_s = releases[0]
        late_at = released_at + trip_s + self._governor.packet_s + LATE_S
        until = released_at + trip_s + SILENT_S
        return until if late_at < now < until else float("-inf")

    def _release(self, now: float) -> None:
        if now >= self._next_step:
            self._govern(now)
        while now >= self._silent_until(now) and (taken := self._acks.take(now)) is not None:
            (peer, packet, cost), held_s = taken
            if cost:
                trip_s = ASSUMED_TRIP_S if peer.trip_s is None else peer.trip_s
                self._releases.append((now, trip_s))
            kind = kind_of(packet)
            if kind is not None:
                hold(packet, int(held_s * 1_000_000))
            if kind is Kind.DATA:
                self._data.put((peer, packet, 0), len(packet) + IP_UDP_BYTES, now)
            else:
                self._send(peer, packet, now)
        while (taken := self._data.take(now)) is not None:
            (peer, packet, _), held_s = taken
            hold(packet, int(held_s * 1_000_000))
            self._send(peer, packet, now)

    def _send(self, peer: _Peer, packet: bytearray, now: float) -> None:
        self._up.add(len(packet) + IP_UDP_BYTES, now)
        kind = kind_of(packet)
        if kind is not None:
            peer.acknowledge(packet, kind)
        if kind is Kind.SYN:
            peer.dialled_at = now
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


LINK_SHARE = 0.99
"""Of the link's rate: all but what keeps a queue from building up."""
DRAIN_PER_S = 0.5
"""A queue of our own of 50 ms is drained in a second."""
MAX_DRAIN = 0.1
QUEUE_SAMPLES = 8
"""Packets: a fifth of a second at 512 kbit/s."""


def link_share(queue_s: float, packet_s: float) -> float:
    """How much of the link to use, so that a queue that stands is drained: whoever comes next would wait behind it."""
    standing_s = max(0.0, queue_s - packet_s * 1.1)
    return LINK_SHARE - min(MAX_DRAIN, standing_s / DRAIN_PER_S)


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

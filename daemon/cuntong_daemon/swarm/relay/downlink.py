"""What comes over a shared link, and when it is acknowledged (SPEC 10.9): sans-I/O, `now` is an argument.

A sender sends on when it is told that something came. So acknowledgements leave here at the pace that is wanted; they
stay while what they asked for is late, because it waits behind somebody's page, and while the governor says so. Until
they go on, probes ask whether the way is free: a byte that the sender has had already, and answers at once.
"""

from __future__ import annotations

import math
import statistics
from collections import Counter, deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Generic, TypeVar

from cuntong_daemon.policy.governor import Decision, Governor, State

from .connections import Connection, Path, Unheard
from .delays import OwnArrivals, QueueingDelay
from .pacing import Pacer
from .utp import (
    IP_UDP_BYTES,
    Kind,
    acknowledged_by,
    delay_us,
    is_probe,
    narrow_window,
    probe,
    report_no_more,
    reported_us,
    sequence_of,
    set_acknowledged,
    set_timestamp,
    timestamp_us,
)

PACKET_BYTES = 1_500
"""A window is whole packets, one at least: what is slower than a round trip needs no more."""
WAITING_S = 0.06
"""Besides a round trip, so much may be under way: some acknowledgements have to wait here, or the pace isn't ours. But
what is under way can come all at once after a silence."""
LATE_S = 0.008
"""What should have come by now, by its round trip with its jitter and its own time, and this much later hasn't, waits
behind others. Of a single peer: among several there is always one with nothing to send, or no room in its uplink; then
what comes from the others tells."""
UNANSWERED = 2
"""Acknowledgements without an answer; a single one may not have let the sender send anything."""
OUTAGE_S = 1.0
"""Nothing at all came for so long, not even answers to probes: it isn't others. No modem queues for longer."""
PROBE_S = 0.08
"""48 bytes each way: 0.9 % of 512 kbit/s."""
SMALL_BYTES = 200
"""uTP packets of data up to this are kept until they are acknowledged: requests, not what a village gives."""
MAX_UNHEARD = 64
"""Of each connection; later ones are libtorrent's business."""
REPEAT_S = 0.1
"""Besides two round trips, before one is sent again."""
PROBE_EACH_S = 0.4
"""Whoever waits for an acknowledgement hears so often at least: uTP's least time-out is 0.5 s, and begins anew then."""
STARVED_SHARE = 0.96
MOST_WAITING = 4
STRETCH, SHRINK = 1.25, 0.9
"""When less comes than could and nothing waits here, some peers don't use their part: windows become longer, four times
a second, and shorter again when many acknowledgements wait."""
PARENTS_PART = 0.5
"""Of what comes for a torrent, when siblings send, too: a centre's uplink isn't shared with the public, theirs are."""
SPARE_PACE = 0.7
"""Who gets less than this of what is allowed, while nobody else's traffic shows, is held up by the sender's uplink: the
queues that show are there, and the public has the rest of this link anyway."""
PACE_S = 4.0
"""Over which that is averaged, while something comes and nobody else's traffic has shown for `UNDISTURBED_S`."""
UNDISTURBED_S = 2.0
MAX_USUAL_S = 0.15
"""A limit at the sender lets data through in lumps of 0.1 s. What stands there beyond that tells its sender to slow down."""
BUSY_S = 1.0
"""Something came so lately."""
ACTIVE_S = 3.0
"""A connection on which something came so lately may have more under way."""
STEPPED_S = 0.05
"""A packet can't have queued for longer than its round trip took; if so, a clock was set."""
MOST_PACKETS = 2.5
"""The queue of others that is reported at most, 1.5 of uTP's target delays: its sender slows down by a packet in each
round trip, not to a single one because of somebody's page, for which the governor gives way anyhow."""
CLOCK_S = 2.0
"""The relay is never late for so long."""
RATE_S = 1.0
"""Over which what was moved is counted."""
STEP_S = 0.25
"""The governor is asked at least so often while something waits."""
LINK_SHARE = 0.998
"""Of the link's rate: all but what keeps a queue from building up."""
DRAIN_PER_S = 0.5
"""A queue of our own of 50 ms is drained in a second."""
MAX_DRAIN = 0.1
QUEUE_SAMPLES = 8
"""Packets: a fifth of a second at 512 kbit/s."""
COLLIDING_SAMPLES = 32
"""Of several peers: most of a second."""
_UINT32 = 1 << 32

Peer = TypeVar("Peer")


@dataclass(slots=True)
class Rate:
    """Bytes a second, over the last second or so."""

    since: float = 0.0
    bytes: int = 0
    last: int = 0

    def add(self, count: int, now: float) -> None:
        """So many were moved."""
        self.roll(now)
        self.bytes += count

    def roll(self, now: float) -> None:
        """Let time pass."""
        if now - self.since >= RATE_S:
            self.last = int(self.bytes / (now - self.since)) if now - self.since < 10 else 0
            self.since, self.bytes = now, 0

    def at(self, now: float) -> int:
        """What it is by now, also when nothing was moved lately; any thread may ask."""
        return self.last if now - self.since < 2 * RATE_S else 0


class Downlink(Generic[Peer]):
    """One shared link's way down.

    Attributes:
        link_bytes_s: What the link carries, as configured; 0: not known.
        cap_bytes_s: The most that may come; 0: no limit.
        rate_bytes_s: What is wanted at the moment; None: no limit. 0: nothing.
        queue_s: How long a packet queues by now.
        rate: What comes.
        shares: The part that each torrent should get, by its infohash as 20 bytes.
        decision: The governor's last.
    """

    def __init__(self) -> None:
        self.link_bytes_s = 0
        self.cap_bytes_s = 0
        self.rate_bytes_s: int | None = None
        self.queue_s = 0.0
        self.rate = Rate()
        self.shares: Mapping[bytes, float] = {}
        self.decision: Decision | None = None
        self._acks: Pacer[tuple[Connection[Peer], bytearray, int]] = Pacer()
        self._governor = Governor()
        self._next_step = 0.0
        self._heard_at = float("-inf")
        self._releases: deque[tuple[float, float]] = deque(maxlen=1024)
        self._queues: deque[float] = deque([0.0], maxlen=QUEUE_SAMPLES)
        self._own_queues: deque[float] = deque([0.0], maxlen=COLLIDING_SAMPLES)
        self._own = OwnArrivals()
        self._unhindered_at = float("-inf")
        self._active: dict[Connection[Peer], None] = {}
        self._crowd: Counter[tuple[bytes | None, bool]] = Counter()
        self._weights = 0.0
        self._busy_peers = 0
        self._stretch = 1.0
        self._pace = 1.0
        self._disturbed_at = float("-inf")
        self._least_waiting = 0
        self._probe_at = float("-inf")
        self._clock = QueueingDelay(CLOCK_S)
        self._clock_us = 0  # How far ours is before the one inside.

    @property
    def dropped(self) -> int:
        """Acknowledgements that found the queue full."""
        return self._acks.dropped

    @property
    def waiting(self) -> int:
        """Acknowledgements that wait."""
        return len(self._acks)

    def came(self, connection: Connection[Peer], packet: bytes, kind: Kind, now: float) -> None:
        """A packet has come from outside."""
        if kind in (Kind.FIN, Kind.RESET):
            self.forget(connection)
        if kind not in (Kind.DATA, Kind.STATE):
            return
        connection.has(acknowledged_by(packet))
        size = len(packet) + IP_UDP_BYTES
        if kind is Kind.STATE or is_probe(packet):
            connection.besides += size
            if not self.link_bytes_s:
                return
        else:
            connection.unacknowledged += size + connection.besides
            connection.besides = 0
            connection.came_at = now
            self._active[connection] = None
            self.rate.add(size, now)
            self._least_waiting = min(self._least_waiting, len(self._acks))
        self._heard(now)
        excess_s = self._excess_s(connection.path, packet, size, now)
        self._queues.append(excess_s)
        foreign_s = self._own.foreign_s(now, size, excess_s, self._governor.link_bytes_s)
        self._own_queues.append(excess_s - foreign_s)
        # Whoever came through unhindered, from whatever peer, found no queue here: what waited longer waited elsewhere.
        foreign_s = min(foreign_s, now - self._unhindered_at)
        if foreign_s <= LATE_S:
            self._unhindered_at = now
        connection.foreign_s = foreign_s
        usual = connection.path.usual
        self._governor.packet(now, size, foreign_s - usual.s if self._is_spare else foreign_s)
        if self._state is not State.YIELDING:
            usual.add(foreign_s)
        self.govern(now)

    def sent(self, connection: Connection[Peer], packet: bytearray, now: float) -> None:
        """A packet of a connection comes from inside, with libtorrent's time on it."""
        # On a busy machine what libtorrent says is read late; the wall clock, which is libtorrent's, may be set.
        self._clock.excess_s(now, (int(now * 1_000_000) - timestamp_us(packet)) % _UINT32)
        self._clock_us = self._clock.base_us or 0
        base_us = connection.path.delay.base_us
        if self.link_bytes_s and base_us is not None and self._state is not State.LEARNING:
            packet_s = self._governor.packet_s
            most_s, foreign_s = MOST_PACKETS * packet_s, connection.foreign_s
            if self._is_spare and connection.path.is_above:
                # In the queue of a centre's uplink whoever has few packets finds others' only, and would slow down alone.
                foreign_s -= min(connection.path.usual.s, MAX_USUAL_S)
            queue_s = packet_s + min(max(0.0, foreign_s), most_s)
            report_no_more(packet, base_us - self._clock_us + int(queue_s * 1_000_000))

    def forget(self, connection: Connection[Peer]) -> None:
        """It ends: nothing of it is asked for or repeated any more."""
        self._active.pop(connection, None)
        connection.unheard.clear()

    def narrow(self, connection: Connection[Peer], packet: bytearray) -> None:
        """Let the peer have no more under way than the pace asks for; for every packet that leaves."""
        if self._acks.rate_bytes_s is not None:
            narrow_window(packet, self._window(connection))

    def acknowledge(self, connection: Connection[Peer], packet: bytearray, now: float) -> None:
        """Let an acknowledgement wait for its turn."""
        cost, connection.unacknowledged = connection.unacknowledged, 0
        # Its turn doesn't come later because it was read late.
        late_us = (int(now * 1_000_000) - timestamp_us(packet) - self._clock_us) % _UINT32
        since = now - late_us / 1_000_000 if late_us < CLOCK_S * 1_000_000 else now
        if self._acks.put((connection, packet, cost), cost, since):
            connection.pending += 1

    def due(self, now: float) -> float:
        """When `take` has something to give, at the latest."""
        if self._is_held(now):
            return min(self._probe_at, self._repeat_at()) if self._active else float("inf")
        return min(self._acks.due(), self._late_at(), self._impatient()[0], self._repeat_at())

    def stamp(self, packet: bytearray, now: float) -> None:
        """Say that a packet leaves now, by libtorrent's clock."""
        set_timestamp(packet, int(now * 1_000_000) - self._clock_us)

    def take(self, now: float) -> Iterator[tuple[Connection[Peer], bytearray]]:
        """What may leave now; probes among it."""
        if now >= self._next_step:
            self.govern(now)
        yield from self._repeat(now)
        while not self._is_held(now):
            taken = self._acks.take(now)
            if taken is None:
                break
            connection, packet, cost = taken
            connection.pending -= 1
            connection.told_at = now
            connection.acknowledged = acknowledged_by(packet)
            if cost and self.link_bytes_s and self._state is not State.LEARNING:
                path = connection.path
                self._releases.append((now, path.trip_s + 2 * path.jitter_s))
            self.narrow(connection, packet)
            self.stamp(packet, now)
            yield connection, packet
        if self._is_held(now):
            if self._active and now >= self._probe_at:
                self._probe_at = now + max(
                    PROBE_S / 2, min(PROBE_S, PROBE_EACH_S / len(self._active))
                )
                yield from self._probe(min(self._active, key=lambda one: one.told_at), now)
            return
        due, impatient = self._impatient()
        if impatient is not None and now >= due:
            yield from self._probe(impatient, now)

    def govern(self, now: float) -> None:
        """Ask the governor, and set the pace."""
        governor = self._governor
        if now >= self._next_step:
            self._next_step = now + STEP_S
            for connection in list(self._active):
                is_over = not connection.pending and now - connection.came_at > ACTIVE_S
                # As long as nothing may come they stay: they are what is probed.
                if is_over and self.rate_bytes_s != 0:
                    del self._active[connection]
            busy = [one for one in self._active if now - one.came_at < BUSY_S]
            self._busy_peers = len({id(one.path) for one in busy})
            self._crowd = Counter((one.swarm, one.path.is_above) for one in busy)
            weights = [self._weight(one) for one in busy]
            self._weights = sum(weights)
            self._fit(self._weights / min(weights) if weights else 1.0, now)
        governor.know(self.link_bytes_s)
        self.rate.roll(now)
        self.queue_s = statistics.median(self._queues)
        standing_s = self._standing_s
        decision = governor.step(now, queue_s=standing_s)
        most = int(decision.link_bytes_s * link_share(standing_s, governor.packet_s))
        rates = [decision.rate_bytes_s, most or None, self.cap_bytes_s or None]
        self.rate_bytes_s = min((rate for rate in rates if rate is not None), default=None)
        self._acks.rate_bytes_s = self.rate_bytes_s
        self.decision = decision
        if decision.state is not State.FREE:
            self._disturbed_at = now
        if decision.state is State.LEARNING:
            self._releases.clear()

    def _fit(self, connections: float, now: float) -> None:
        """Make windows longer or shorter.

        Args:
            connections: The least part is one of so many.
            now: Seconds.
        """
        rate, waiting = self.rate_bytes_s, self._least_waiting
        self._least_waiting = len(self._acks)
        if not rate or self._state is not State.FREE:
            return
        if self._busy_peers and now - self._disturbed_at > UNDISTURBED_S:
            self._pace += (min(1.0, self.rate.last / rate) - self._pace) * STEP_S / PACE_S
        if not waiting and self.rate.last < rate * STARVED_SHARE:
            most = connections * max(self._rates, default=1) / min(self._rates, default=1)
            self._stretch = min(self._stretch * STRETCH, most)
        elif waiting > MOST_WAITING:
            self._stretch = max(1.0, self._stretch * SHRINK)

    @property
    def _standing_s(self) -> float:
        """How long the queue of our own is that doesn't go away."""
        if self._busy_peers > 1:
            # Their packets collide; what stands is what the luckiest one finds (RFC 8289).
            return min(self._own_queues)
        return statistics.median([*self._own_queues][-QUEUE_SAMPLES:])

    @property
    def _is_spare(self) -> bool:
        """Whether senders give less than the link could take, as a rule."""
        return self._pace < SPARE_PACE

    @property
    def _state(self) -> State:
        return State.FREE if self.decision is None else self.decision.state

    @property
    def _rates(self) -> list[int]:
        return [rate for rate in (self._governor.link_bytes_s, self.cap_bytes_s) if rate]

    def _window(self, connection: Connection[Peer]) -> int:
        """How much a peer may have under way on one connection; all that are busy share what the pace asks for."""
        # Acknowledgements leave in the order in which data came: who has more under way gets more.
        part = self._weight(connection) / self._weights if self._weights else 1.0
        # A sender with a limit of its own needs longer than a round trip: up to the link's own rate it may have more.
        rates = self._rates
        rate = min(min(rates, default=0) * part * self._stretch, max(rates, default=0))
        own = rate * (connection.path.trip_s + WAITING_S)
        return max(1, math.ceil(own / PACKET_BYTES)) * PACKET_BYTES

    def _weight(self, connection: Connection[Peer]) -> float:
        """The torrent's share: a part for its parents, the rest for its siblings, among each alike."""
        usual = 1 / max(1, len(self.shares))
        swarm, is_above = connection.swarm, connection.path.is_above
        if swarm is None:
            return usual
        part = PARENTS_PART if is_above else 1 - PARENTS_PART
        if not self._crowd[swarm, not is_above]:
            part = 1.0
        return self.shares.get(swarm, usual) * part / max(1, self._crowd[swarm, is_above])

    def _excess_s(self, path: Path, packet: bytes, size: int, now: float) -> float:
        """How long a packet queued."""
        took_us = delay_us(packet, int(now * 1_000_000))
        own_us = size * 1_000_000 // self.link_bytes_s if self.link_bytes_s else 0
        excess_s = path.delay.excess_s(now, took_us - own_us)
        reported = reported_us(packet)
        if reported:
            trip_s = ((took_us + reported - self._clock_us) % _UINT32 - own_us) / 1_000_000
            if excess_s > trip_s + STEPPED_S:
                path.delay.forget()
                excess_s = path.delay.excess_s(now, took_us - own_us)
            path.tripped(trip_s - excess_s)
        return excess_s

    def _heard(self, now: float) -> None:
        self._heard_at = now
        soonest = now - self._governor.packet_s / 2
        while self._releases and sum(self._releases[0]) <= soonest:
            self._releases.popleft()  # What this asked for has come.

    def _late_at(self) -> float:
        if len(self._releases) < UNANSWERED or self._busy_peers > 1 or self._is_spare:
            return float("inf")
        return sum(self._releases[0]) + self._governor.packet_s + LATE_S

    def _is_held(self, now: float) -> bool:
        """Whether nothing is acknowledged for the time being."""
        if self.rate_bytes_s == 0:
            return True
        if now < self._late_at():
            return False
        if now - max(self._heard_at, sum(self._releases[0])) > OUTAGE_S:
            self._releases.clear()
            return False
        return True

    def left(self, connection: Connection[Peer], packet: bytearray, now: float) -> None:
        """Data of ours has left. A small packet, a request mostly, is sent again here if it is lost.

        libtorrent would begin its time-out anew with every packet that comes, and counts as repeated
        acknowledgements only those without data: a request that was lost on a parent's full downlink stopped a village
        for ten seconds.
        """
        if len(packet) <= SMALL_BYTES and len(connection.unheard) < MAX_UNHEARD:
            due = now + self._patience_s(connection.path)
            connection.unheard[sequence_of(packet)] = Unheard(bytes(packet), now, due)

    def _patience_s(self, path: Path) -> float:
        return 2 * path.trip_s + path.jitter_s + REPEAT_S

    def _repeat_at(self) -> float:
        missing = (one.missing for one in self._active)
        return min((one.due for one in missing if one is not None), default=float("inf"))

    def _repeat(self, now: float) -> Iterator[tuple[Connection[Peer], bytearray]]:
        for connection in self._active:
            missing = connection.missing
            if missing is None or now < missing.due:
                continue
            missing.due = now + 2 * (missing.due - missing.sent_at)
            made = bytearray(missing.packet)
            if connection.acknowledged is not None:
                set_acknowledged(made, connection.acknowledged)
            self.stamp(made, now)
            yield connection, made

    def _impatient(self) -> tuple[float, Connection[Peer] | None]:
        """Who waits for an acknowledgement for the longest, and until when it may."""
        waiting = (one for one in self._active if one.pending)
        first = min(waiting, key=lambda one: one.told_at, default=None)
        return (float("inf"), None) if first is None else (first.told_at + PROBE_EACH_S, first)

    def _probe(
        self, connection: Connection[Peer], now: float
    ) -> Iterator[tuple[Connection[Peer], bytearray]]:
        connection.told_at = now
        header, theirs, ours = connection.header, connection.theirs, connection.acknowledged
        if header is not None and theirs is not None and ours is not None:
            sent_us = int(now * 1_000_000) - self._clock_us
            made = probe(header, theirs, ours, sent_us, self._window(connection))
            yield connection, made


def link_share(queue_s: float, packet_s: float) -> float:
    """How much of the link to use, so that a queue that stands is drained: whoever comes next would wait behind it."""
    return LINK_SHARE - min(MAX_DRAIN, max(0.0, queue_s - packet_s / 4) / DRAIN_PER_S)

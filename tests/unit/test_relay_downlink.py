"""When the relay acknowledges: a sender, a link with others on it, and a receiver, by a clock that is counted."""

from __future__ import annotations

import heapq
import itertools
import random
import statistics
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cuntong_daemon.policy.governor import HOLD_S, State
from cuntong_daemon.swarm.relay.connections import MAX_CONNECTIONS, Connection, Connections
from cuntong_daemon.swarm.relay.downlink import LATE_S, PROBE_S, Downlink
from cuntong_daemon.swarm.relay.utp import (
    IP_UDP_BYTES,
    Kind,
    acknowledged_by,
    is_probe,
    kind_of,
    probe,
    reported_us,
    sequence_of,
    timestamp_us,
)

LINK = 64_000
FULL = 1_472
ONE_WAY_S = 0.03
OTHERS_CLOCK_US = 77_000_000
INSIDE_CLOCK_US = 3_000_000_000
"""How far the clocks of the sender, and of libtorrent behind the relay, are before the relay's."""


def header(
    kind: Kind, connection: int, sent_us: int, reported: int, sequence: int, acknowledged: int
) -> bytearray:
    made = bytearray([kind << 4 | 1, 0]) + (connection % 65_536).to_bytes(2, "big")
    for value in (sent_us, reported, 1_000_000):
        made += (value % 2**32).to_bytes(4, "big")
    return (
        made + (sequence % 65_536).to_bytes(2, "big") + (acknowledged % 65_536).to_bytes(2, "big")
    )


class Sender:
    """The other end of a connection; it always has something."""

    def __init__(self, line: Line, number: int, peer: Connections[str]) -> None:
        self.line = line
        self.peer = peer
        self.number = number
        self.swarm = number.to_bytes(20, "big")
        self.is_silent = False
        self.every_s = 0.0
        self.sent = 0
        self._sent_at = float("-inf")
        self._next = 1
        self._told = 0
        self._window = 3_000
        self._reply_us = 0
        self._received = 0

    def told(self, packet: bytes) -> None:
        self._reply_us = int(self.line.now * 1e6) + OTHERS_CLOCK_US - timestamp_us(packet)
        self._told = max(self._told, acknowledged_by(packet))
        self._window = int.from_bytes(packet[12:16], "big")
        if kind_of(packet) is Kind.DATA:
            self._queue(Kind.STATE, self._next, b"")
        self.send()

    def send(self) -> None:
        while not self.is_silent and (self._next - self._told) * (FULL - 20) <= self._window:
            now = self.line.now
            if now < self._sent_at + self.every_s:  # Its own uplink is thin.
                self.line.at(self._sent_at + self.every_s, self.send)
                return
            self._sent_at = now
            self._queue(Kind.DATA, self._next, bytes(FULL - 20))
            self._next += 1
            self.sent += 1

    def _queue(self, kind: Kind, sequence: int, payload: bytes) -> None:
        sent_us = int(self.line.now * 1e6) + OTHERS_CLOCK_US
        made = header(kind, self.number, sent_us, self._reply_us, sequence, 7)
        self.line.carry(bytes(made + payload), lambda packet: self._arrive(packet, kind, sequence))

    def _arrive(self, packet: bytes, kind: Kind, sequence: int) -> None:
        """At the relay, and at libtorrent behind it, which acknowledges at once."""
        line = self.line
        connection = self.peer.incoming(packet, kind)
        connection.swarm = self.swarm
        line.down.came(connection, packet, kind, line.now)
        if kind is not Kind.DATA:
            return
        line.came.append((line.now, len(packet) + IP_UDP_BYTES))
        self._received = max(self._received, sequence)
        inside_us = int(line.now * 1e6) + line.inside_us
        reply = inside_us - timestamp_us(packet)
        state = header(Kind.STATE, self.number + 1, inside_us, reply, 8, self._received)
        line.at(line.now + line.read_late_s(), lambda: self._acknowledge(connection, state))

    def _acknowledge(self, connection: Connection[str], state: bytearray) -> None:
        """The relay reads what libtorrent says."""
        line = self.line
        assert self.peer.outgoing(state, Kind.STATE) is connection
        line.senders[connection] = self
        line.down.sent(connection, state, line.now)
        # What the sender is told of the queue: how long the packet took, without the way itself.
        way_us = line.inside_us - OTHERS_CLOCK_US + int(ONE_WAY_S * 1e6)
        line.reported.append((line.now, (reported_us(state) - way_us) % 2**32 / 1e6))
        connection.header = bytes(state[:20])
        line.down.acknowledge(connection, state, line.now)


class Line:
    """A link of 512 kbit/s that others use, too, and the relay at its end."""

    def __init__(
        self, *, extra_trip_s: float = 0.0, read_late_s: Callable[[], float] = lambda: 0.0
    ) -> None:
        self.now = 0.0
        self.read_late_s = read_late_s
        self.rate = LINK
        self.inside_us = INSIDE_CLOCK_US
        self.extra_trip_s = extra_trip_s
        self.down: Downlink[str] = Downlink()
        self.down.link_bytes_s = LINK
        self.senders: dict[Connection[str], Sender] = {}
        self.came: list[tuple[float, int]] = []
        self.probes: list[float] = []
        self.acks: list[float] = []
        self.reported: list[tuple[float, float]] = []
        self.free_at = 0.0
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._count = itertools.count()

    def at(self, when: float, what: Callable[[], None]) -> None:
        heapq.heappush(self._events, (when, next(self._count), what))

    def others(self, when: float, size: int) -> None:
        """Somebody else's bytes join the queue."""

        def join() -> None:
            self.free_at = max(self.free_at, self.now) + size / self.rate

        self.at(when, join)

    def carry(self, packet: bytes, then: Callable[[bytes], None]) -> None:
        """A packet joins the queue, and arrives."""
        self.free_at = max(self.free_at, self.now) + (len(packet) + IP_UDP_BYTES) / self.rate
        self.at(self.free_at + ONE_WAY_S, lambda: then(packet))

    def run(self, until: float) -> None:
        while self.now < until:
            due = self.down.due(self.now)
            event_at = self._events[0][0] if self._events else float("inf")
            self.now = max(self.now, min(due, event_at, until, self.now + 0.25))
            while self._events and self._events[0][0] <= self.now:
                heapq.heappop(self._events)[2]()
            for connection, packet in self.down.take(self.now):
                self._leave(self.senders[connection], bytes(packet))

    def start(self, count: int = 1, *, peers: int = 1) -> list[Sender]:
        known = [Connections(f"peer {number}") for number in range(peers)]
        senders = [
            Sender(self, 100 * (number + 1), known[number % peers]) for number in range(count)
        ]
        for sender in senders:
            self.at(0.0, sender.send)
        return senders

    def bytes_between(self, begin: float, end: float) -> int:
        return sum(size for at, size in self.came if begin <= at < end)

    def _leave(self, sender: Sender, packet: bytes) -> None:
        (self.probes if kind_of(packet) is Kind.DATA else self.acks).append(self.now)
        self.at(self.now + ONE_WAY_S + self.extra_trip_s, lambda: sender.told(packet))


@pytest.mark.parametrize("extra_trip_s", [0.0, 0.05, 0.4])
def test_alone_the_link_is_full_and_no_queue_stands(extra_trip_s: float) -> None:
    line = Line(extra_trip_s=extra_trip_s)
    line.start()
    line.run(20)
    assert line.bytes_between(10, 20) > 0.97 * 10 * LINK
    assert line.down.queue_s < 0.03
    assert line.down._state is State.FREE


@pytest.mark.parametrize("count", [2, 5, 20])
def test_several_senders_share_the_link_and_leave_no_queue(count: int) -> None:
    line = Line()
    line.start(count)
    line.run(30)
    assert line.bytes_between(10, 30) > (0.97 if count < 20 else 0.94) * 20 * LINK
    assert line.down.queue_s < 0.03
    line.others(30.0, 15_000)
    for number in range(85):
        line.others(30.1 + number * 1000 / LINK, 1000)
    line.run(40)
    assert line.bytes_between(30 + 2 * ONE_WAY_S, 30 + 100_000 / LINK) <= 9 * 1500
    assert line.bytes_between(33, 40) > 0.9 * 7 * LINK


def test_who_could_give_more_than_its_part_does_when_others_give_less() -> None:
    line = Line()
    for sender in line.start(5)[1:]:
        sender.every_s = 0.5  # 3 kB/s each.
    line.run(40)
    assert line.bytes_between(20, 40) > 0.9 * 20 * LINK


def test_what_libtorrent_says_may_be_read_late_and_its_clock_may_be_set() -> None:
    late = random.Random(7)
    line = Line(read_late_s=lambda: late.uniform(0, 0.02))
    line.start()
    line.run(10)
    for step_us in (-30_000_000, 200_000, -200_000):
        line.inside_us += step_us
        line.run(line.now + 20)
        assert line.bytes_between(line.now - 10, line.now) > 0.97 * 10 * LINK
        assert line.down.queue_s < 0.03
        assert all(reported < 0.06 for at, reported in line.reported if at > line.now - 10)


@pytest.mark.parametrize("peers", [1, 6])
def test_senders_that_often_have_nothing_to_send_cost_the_others_little(peers: int) -> None:
    """Of a single peer lateness counts, so that a page is seen a round trip sooner: that costs a little more."""
    line = Line(extra_trip_s=0.1)
    for sender in line.start(6, peers=peers)[1:]:
        sender.every_s = 0.3
    line.run(30)
    assert line.bytes_between(10, 30) > (0.9 if peers > 1 else 0.85) * 20 * LINK
    assert len([at for at in line.probes if at > 10]) < (20 if peers > 1 else 100)


def test_an_urgent_torrent_gets_more_and_the_other_goes_on() -> None:
    line = Line()
    urgent, bulk, bulk_too = line.start(3)
    bulk_too.swarm = bulk.swarm  # From two peers.
    line.down.shares = {urgent.swarm: 0.8, bulk.swarm: 0.2}
    line.run(30)
    assert line.bytes_between(10, 30) > 0.97 * 20 * LINK
    assert 1.5 < urgent.sent / (bulk.sent + bulk_too.sent) < 5
    assert min(bulk.sent, bulk_too.sent) > 100


def test_a_page_stops_us_within_a_round_trip_and_costs_no_time_afterwards() -> None:
    line = Line()
    line.start()
    line.run(10)
    page = 100_000
    line.others(10.0, 15_000)
    for number in range(85):
        line.others(10.1 + number * 1000 / LINK, 1000)  # As its acknowledgements ask for it.
    line.run(20)
    gone = 10 + page / LINK
    # What was under way comes behind the first of it, nothing else until the page is through.
    assert line.bytes_between(10.0 + 2 * ONE_WAY_S, gone) <= 4 * 1500
    assert all(later - sooner > PROBE_S * 0.9 for sooner, later in itertools.pairwise(line.probes))
    assert len([at for at in line.probes if 10 < at < gone]) >= 10
    # Its sender isn't told of all of the page's queue, and of none that isn't there.
    assert 2 < max(queue for at, queue in line.reported if at > 10) * LINK / 1500 < 4
    assert max(queue for at, queue in line.reported if 5 < at < 10) < 2 * 1500 / LINK
    back = gone + HOLD_S + 0.5
    assert line.bytes_between(back, back + 5) > 0.97 * 5 * LINK
    assert not [at for at in line.acks if 10.2 < at < gone]


def test_a_small_packet_of_others_costs_nothing() -> None:
    line = Line()
    line.start()
    for number in range(50):
        line.others(10 + number / 5, 84)
    line.run(20)
    assert line.bytes_between(10, 20) > 0.96 * 10 * LINK


def test_who_uses_the_link_for_long_leaves_a_little() -> None:
    line = Line()
    line.start()
    for number in range(600):
        line.others(10 + number / 10, LINK // 10)
    line.run(60)
    assert 0.02 * 20 * LINK < line.bytes_between(40, 60) < 0.1 * 20 * LINK


def test_a_link_that_halves_is_filled_all_the_same() -> None:
    line = Line()
    line.start()
    line.run(10)
    line.rate = LINK // 2
    line.run(60)
    assert line.bytes_between(40, 60) > 0.85 * 20 * LINK / 2
    line.rate = LINK
    line.run(140)
    assert line.bytes_between(120, 140) > 0.9 * 20 * LINK


def test_a_link_that_halves_while_nothing_comes_is_learnt_all_the_same() -> None:
    """An idle place isn't one whose senders give less than the link could take."""
    line = Line()
    (sender,) = line.start()
    line.run(5)
    sender.is_silent = True
    line.run(45)
    line.rate = LINK // 2
    sender.is_silent = False
    line.at(line.now, sender.send)
    line.run(80)
    assert line.bytes_between(60, 80) > 0.85 * 20 * line.rate
    assert line.down.queue_s < 0.1


def test_a_sender_with_nothing_to_send_is_not_taken_for_a_page() -> None:
    line = Line()
    (sender,) = line.start()
    line.run(5)
    sender.is_silent = True
    line.run(8)
    assert line.down._state is State.FREE
    sender.is_silent = False
    line.at(8.0, sender.send)
    line.run(15)
    assert line.bytes_between(9, 15) > 0.95 * 6 * LINK


def test_an_outage_ends_and_all_goes_on() -> None:
    line = Line()
    line.start()
    line.run(5)
    line.free_at += 20  # Nothing comes through for 20 s; what waited comes then.
    line.run(40)
    assert line.bytes_between(30, 40) > 0.95 * 10 * LINK


@pytest.mark.parametrize("step_us", [-5_000_000, 400_000, 5_000_000])
def test_a_clock_that_is_set_at_the_other_end_is_no_page(
    step_us: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    line = Line()
    line.start()
    line.run(10)
    monkeypatch.setattr(f"{__name__}.OTHERS_CLOCK_US", OTHERS_CLOCK_US + step_us)
    line.run(30)
    assert line.bytes_between(15, 30) > 0.95 * 15 * LINK


def test_a_cap_without_a_known_link_is_a_pace_only() -> None:
    line = Line()
    line.down.link_bytes_s = 0
    line.down.cap_bytes_s = LINK // 4
    line.start()
    line.others(5.0, 50_000)
    line.run(30)
    assert 0.95 < line.bytes_between(10, 30) / (20 * LINK / 4) < 1.05
    assert line.down._state is State.FREE


def test_what_is_late_by_less_than_the_jitter_is_waited_for_without_a_probe() -> None:
    line = Line()
    line.start()
    line.run(10)
    probes = len(line.probes)
    line.others(10.0, int(LINK * LATE_S / 2))
    line.run(12)
    assert len(line.probes) == probes


@pytest.mark.parametrize("is_sibling_there", [True, False])
def test_a_queue_elsewhere_is_not_ours(is_sibling_there: bool) -> None:
    """A county whose own uplink is full holds its packets up, but not those of a village beside us."""
    down: Downlink[str] = Downlink()
    down.link_bytes_s = LINK

    def arrive(peer: Connections[str], now: float, way_s: float) -> None:
        packet = bytes(header(Kind.DATA, 100, int((now - way_s) * 1e6), 0, 1, 1)) + bytes(1_000)
        down.came(peer.incoming(packet, Kind.DATA), packet, Kind.DATA, now)

    county, sibling = Connections("county"), Connections("sibling")
    for number in range(100):
        now = number * 0.05
        arrive(county, now, 0.04 if number < 10 else 0.24)
        if is_sibling_there:
            arrive(sibling, now + 0.025, 0.06)
    assert (down._state is State.FREE) is is_sibling_there


def test_a_parent_gives_more_than_each_sibling_or_what_it_can() -> None:
    line = Line(extra_trip_s=0.03)
    parent, *siblings = line.start(7, peers=7)
    parent.peer.path.is_above = True
    for sibling in siblings:
        sibling.swarm = parent.swarm
    line.run(30)
    sent = [sender.sent for sender in siblings]
    assert line.bytes_between(10, 30) > 0.97 * 20 * LINK
    # Siblings have a packet under way at least, which is more than their part.
    assert 1.7 * max(sent) < parent.sent < sum(sent)
    parent.every_s = 0.1  # 15 kB/s.
    line.run(60)
    assert line.bytes_between(40, 60) > 0.97 * 20 * LINK


def test_a_parent_whose_uplink_is_full_is_not_taken_for_others_but_a_page_is() -> None:
    """A county sends in lumps to twenty villages: each packet waits there for up to 0.1 s, and some for longer."""
    down: Downlink[str] = Downlink()
    down.link_bytes_s = LINK
    county = Connections("county")
    county.path.is_above = True
    lumps = random.Random(7)
    states, told = [], []

    def arrive(now: float, queue_s: float) -> None:
        sent_us = int((now - 0.04 - queue_s) * 1e6)
        packet = bytes(header(Kind.DATA, 100, sent_us, 0, 1, 1)) + bytes(FULL - 20)
        down.came(county.incoming(packet, Kind.DATA), packet, Kind.DATA, now)
        reply = header(Kind.STATE, 101, int(now * 1e6), int((0.04 + queue_s) * 1e6), 1, 1)
        connection = county.outgoing(reply, Kind.STATE)
        down.sent(connection, reply, now)
        told.append(reported_us(reply) / 1e6 - 0.04 - FULL / LINK)
        down.acknowledge(connection, reply, now)
        list(down.take(now))
        down.govern(now)
        states.append(down._state)

    now = 0.0
    while now < 30:
        now += 0.06  # A third of the link.
        arrive(now, lumps.uniform(0.0, 0.1))
    assert set(states[-200:]) == {State.FREE}
    assert statistics.median(told[-200:]) < 0.03, "the county needn't slow down for itself"
    for number in range(1, 8):
        arrive(now + number * 0.06, 0.1 + 0.03 * number)
    assert State.YIELDING in states[-7:]


def test_a_request_that_was_lost_is_sent_again_until_it_is_heard() -> None:
    down: Downlink[str] = Downlink()
    down.link_bytes_s = LINK
    county = Connections("county")

    def arrive(now: float, acknowledged: int) -> None:
        sent_us = int((now - ONE_WAY_S) * 1e6)
        packet = bytes(header(Kind.DATA, 100, sent_us, 0, 1, acknowledged)) + bytes(40)
        down.came(county.incoming(packet, Kind.DATA), packet, Kind.DATA, now)

    arrive(0.0, 65_534)
    (connection,) = down._active
    connection.acknowledged = 1
    for number, size in ((65_535, 17), (0, 17), (1, 1_000)):
        request = header(Kind.DATA, 101, 0, 0, number, 1) + bytes(size)
        down.left(connection, request, 0.0)
    again = []
    now = 0.0
    while now < 10:
        now += 0.05
        arrive(now, 65_534)  # Whatever comes meanwhile.
        again += [(now, sequence_of(packet)) for _, packet in down.take(now) if len(packet) > 21]
    assert {number for _, number in again} == {65_535}
    gaps = [later - sooner for (sooner, _), (later, _) in itertools.pairwise(again)]
    assert 3 <= len(again) <= 6
    assert gaps == sorted(gaps), "each time it waits longer"
    arrive(now, 0)
    assert not connection.unheard, "the large one is libtorrent's business"
    assert down._repeat_at() == float("inf")


def test_probes_of_another_relay_keep_nothing_alive() -> None:
    down: Downlink[str] = Downlink()
    down.link_bytes_s = LINK
    sibling = Connections("sibling")
    data = bytes(header(Kind.DATA, 100, 0, 0, 1, 1))
    down.came(
        sibling.incoming(data, Kind.DATA), asked := bytes(probe(data, 1, 1, 0, 0)), Kind.DATA, 0.0
    )
    assert is_probe(asked)
    assert not down._active
    down.came(sibling.incoming(data, Kind.DATA), data + bytes(9), Kind.DATA, 0.1)
    assert down._active
    end = bytes(header(Kind.FIN, 100, 0, 0, 2, 1))
    down.came(sibling.incoming(end, Kind.FIN), end, Kind.FIN, 0.2)
    assert not down._active


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 65_535), st.sampled_from(list(Kind)))))
def test_a_connection_is_the_same_in_both_directions(
    packets: list[tuple[bool, int, Kind]],
) -> None:
    connections: Connections[str] = Connections("peer")
    for is_incoming, number, kind in packets:
        packet = bytes(header(kind, number, 0, 0, 0, 0))
        if is_incoming:
            found = connections.incoming(packet, kind)
        else:
            found = connections.outgoing(packet, kind)
        assert found.path is connections.path
        assert len(connections._incoming) <= MAX_CONNECTIONS
        assert len(connections._outgoing) <= MAX_CONNECTIONS
    dialled = connections.outgoing(bytes(header(Kind.SYN, 50, 0, 0, 0, 0)), Kind.SYN)
    assert connections.incoming(bytes(header(Kind.STATE, 50, 0, 0, 0, 0)), Kind.STATE) is dialled
    assert connections.outgoing(bytes(header(Kind.DATA, 51, 0, 0, 0, 0)), Kind.DATA) is dialled
    accepted = connections.incoming(bytes(header(Kind.SYN, 60, 0, 0, 0, 0)), Kind.SYN)
    assert connections.outgoing(bytes(header(Kind.STATE, 60, 0, 0, 0, 0)), Kind.STATE) is accepted
    assert connections.incoming(bytes(header(Kind.DATA, 61, 0, 0, 0, 0)), Kind.DATA) is accepted

"""The relay's parts without sockets: pace, delays, headers."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cuntong_daemon.swarm.relay.delays import BUCKET_S, OwnArrivals, QueueingDelay
from cuntong_daemon.swarm.relay.downlink import LINK_SHARE, MAX_DRAIN, link_share
from cuntong_daemon.swarm.relay.pacing import COARSENESS_S, MAX_DEBT_S, MAX_WAITING, Pacer
from cuntong_daemon.swarm.relay.utp import (
    SELECTIVE_ACK,
    Kind,
    acknowledged_by,
    acknowledgement_of,
    delay_us,
    has_selective_acknowledgement,
    kind_of,
    narrow_window,
    probe,
    report_no_more,
    reported_us,
    set_acknowledged,
    set_timestamp,
    swarm_of,
    timestamp_us,
)


def packet(kind: Kind = Kind.DATA, *, sent_us: int = 0, window: int = 1 << 20) -> bytearray:
    """A header as BEP 29 lays it out: type and version, extension, connection, times, window, numbers."""
    head = bytes([kind << 4 | 1, 0, 0x12, 0x34])
    return bytearray(
        head + sent_us.to_bytes(4, "big") + bytes(4) + window.to_bytes(4, "big") + bytes(4)
    )


def leave_times(pacer: Pacer[int], until: float) -> list[tuple[float, int]]:
    """Take what is due, by a loop that wakes up a millisecond late."""
    left = []
    now = 0.0
    while now < until:
        while (taken := pacer.take(now)) is not None:
            left.append((now, taken))
        now += 0.001
    return left


@given(st.lists(st.integers(40, 1500), min_size=2, max_size=60), st.integers(1_000, 1_000_000))
def test_a_pace_is_kept_over_any_stretch(costs: list[int], rate: int) -> None:
    pacer: Pacer[int] = Pacer()
    pacer.rate_bytes_s = rate
    for number, cost in enumerate(costs):
        pacer.put(number, cost, 0.0)
    left = leave_times(pacer, sum(costs) / rate + 1)
    assert [number for _, number in left] == list(range(len(costs)))
    assert left[0][0] >= costs[0] / rate
    for (before, _), (after, one) in pairwise(left):
        assert after - before >= costs[one] / rate - COARSENESS_S - 0.0011
    assert left[-1][0] <= sum(costs) / rate + 0.01 + 0.001 * len(costs)


def test_what_costs_nothing_goes_as_soon_as_it_is_first() -> None:
    pacer: Pacer[str] = Pacer()
    pacer.rate_bytes_s = 1500.0
    pacer.put("ack", 1500, 0.0)
    pacer.put("window", 0, 0.0)
    assert pacer.take(0.5) is None
    assert pacer.take(1.0) == "ack"
    assert pacer.take(1.0) == "window"
    assert pacer.take(1.0) is None


def test_a_changed_rate_holds_for_what_waits_already() -> None:
    pacer: Pacer[str] = Pacer()
    pacer.rate_bytes_s = 1.0
    pacer.put("a", 1500, 0.0)
    assert pacer.due() == 1500
    pacer.rate_bytes_s = 0
    assert pacer.due() == float("inf")
    pacer.rate_bytes_s = None
    assert pacer.take(0.001) == "a"


def test_a_rate_that_falls_leaves_no_debt_of_minutes() -> None:
    pacer: Pacer[int] = Pacer()
    pacer.rate_bytes_s = 1_250_000
    for number in range(50):
        pacer.put(number, 1500, 0.0)
    pacer.put(50, 0, 0.0)
    pacer.rate_bytes_s = 2_000
    left = leave_times(pacer, 3.0)
    assert [number for _, number in left] == list(range(51))
    assert MAX_DEBT_S / 2 < left[-1][0] < MAX_DEBT_S + 0.1


def test_silence_gives_no_credit() -> None:
    pacer: Pacer[int] = Pacer()
    pacer.rate_bytes_s = 15_000
    pacer.put(0, 1500, 0.0)
    assert pacer.take(0.1) == 0
    for number in range(3):
        pacer.put(number, 1500, 60.0)
    assert pacer.take(60.05) is None
    assert pacer.take(60.1) is not None
    assert pacer.take(60.15) is None


def test_a_flood_is_dropped_and_counted() -> None:
    pacer: Pacer[int] = Pacer()
    pacer.rate_bytes_s = 1.0
    for number in range(MAX_WAITING + 5):
        pacer.put(number, 1, 0.0)
    assert (len(pacer), pacer.dropped) == (MAX_WAITING, 5)


@given(st.integers(0, 2**32 - 1), st.lists(st.integers(0, 3_000_000), min_size=1))
def test_the_excess_is_the_same_whatever_the_clocks_show(offset: int, delays: list[int]) -> None:
    queueing = QueueingDelay()
    least = delays[0]
    for number, one in enumerate(delays):
        least = min(least, one)
        excess = queueing.excess_s(number * 0.01, (offset + one) % 2**32)
        assert excess == pytest.approx((one - least) / 1e6)


def test_a_longer_route_is_the_new_base_after_a_while() -> None:
    queueing = QueueingDelay()
    queueing.excess_s(0.0, 20_000)
    assert queueing.excess_s(1.0, 80_000) == pytest.approx(0.06)
    queueing.excess_s(BUCKET_S + 1, 80_000)
    assert queueing.excess_s(2 * BUCKET_S + 2, 80_000) == 0.0


def test_our_own_queue_is_not_taken_for_others() -> None:
    own = OwnArrivals()
    rate = 64_000
    for number in range(1, 11):  # Ten packets sent at once: each waits for those before it.
        at = number * 1500 / rate
        assert own.foreign_s(at, 1500, at, rate) == pytest.approx(0.0, abs=0.024)


def test_a_burst_of_others_before_our_packet_is_seen() -> None:
    own = OwnArrivals()
    own.foreign_s(0.0, 1500, 0.0234, 64_000)
    assert own.foreign_s(0.25, 1500, 0.25, 64_000) > 0.2
    assert own.foreign_s(0.5, 1500, 0.1, 0) == 0.1  # Of an unknown link all of it counts.


def test_headers_are_read_and_changed_in_place() -> None:
    made = packet(sent_us=2**32 - 10, window=100_000)
    assert kind_of(made) is Kind.DATA
    assert delay_us(made, 5) == 15
    set_timestamp(made, timestamp_us(made) + 25)
    assert timestamp_us(made) == 15
    narrow_window(made, 9_600)
    assert made[12:16] == (9_600).to_bytes(4, "big")
    narrow_window(made, 50_000)
    assert made[12:16] == (9_600).to_bytes(4, "big")
    assert len(made) == 20


def test_data_can_be_told_from_what_it_acknowledges() -> None:
    made = packet(sent_us=7, window=9_000)
    made[1] = SELECTIVE_ACK
    made[18:20] = (500).to_bytes(2, "big")
    made += bytes([0, 4, 1, 2, 3, 4]) + b"data"
    state = acknowledgement_of(made)
    assert kind_of(state) is Kind.STATE
    assert acknowledged_by(state) == 500
    assert has_selective_acknowledgement(state)
    assert state[20:] == bytes([0, 4, 1, 2, 3, 4])
    assert (timestamp_us(state), state[12:16]) == (7, made[12:16])
    set_acknowledged(made, 499)
    assert kind_of(made) is Kind.DATA
    assert acknowledged_by(made) == 499
    assert not has_selective_acknowledgement(made)
    assert made[20:] == b"data"


@given(st.binary(min_size=20, max_size=60), st.integers(0, 65_535))
def test_whatever_is_sent_inside_is_not_a_crash(data: bytes, number: int) -> None:
    made = bytearray(data)
    state = acknowledgement_of(made)
    assert kind_of(state) is Kind.STATE
    assert len(state) <= len(data)
    set_acknowledged(made, number)
    assert acknowledged_by(made) == number
    assert data.endswith(bytes(made[20:]))


def test_a_handshake_tells_the_torrent() -> None:
    made = packet(sent_us=0, window=0)
    assert swarm_of(made) is None
    infohash = bytes(range(20))
    handshake = b"\x13BitTorrent protocol" + bytes(8) + infohash
    assert swarm_of(made + handshake + b"peer id") == infohash
    assert swarm_of(made + handshake[:-1]) is None
    made[1] = SELECTIVE_ACK
    assert swarm_of(made + handshake) is None


def test_a_probe_is_a_byte_that_came_already_and_says_nothing_new() -> None:
    made = probe(bytes(packet(sent_us=5, window=1)), 65_535, 300, 2**32 + 9, 6_000)
    assert kind_of(made) is Kind.DATA
    assert (int.from_bytes(made[16:18], "big"), acknowledged_by(made)) == (65_535, 300)
    assert (timestamp_us(made), reported_us(made)) == (9, 0)
    assert made[12:16] == (6_000).to_bytes(4, "big")
    assert len(made) == 21


def test_delays_are_reported_up_to_a_limit_however_the_clocks_stand() -> None:
    for base in (0, 5, 2**32 - 100):
        made = packet(sent_us=0, window=0)
        made[8:12] = ((base + 300) % 2**32).to_bytes(4, "big")
        report_no_more(made, base + 400)
        assert reported_us(made) == (base + 300) % 2**32
        report_no_more(made, base + 200)
        assert reported_us(made) == (base + 200) % 2**32
    made[8:12] = bytes(4)
    report_no_more(made, 7)
    assert reported_us(made) == 0, "no sample stays no sample"


@given(st.binary(max_size=60))
def test_whatever_comes_is_not_a_crash(data: bytes) -> None:
    kind = kind_of(data)
    assert kind is None or len(data) >= 20


@given(st.floats(0, 2), st.floats(0.0001, 0.2))
def test_the_share_of_the_link_stays_in_bounds(queue_s: float, packet_s: float) -> None:
    assert LINK_SHARE - MAX_DRAIN <= link_share(queue_s, packet_s) <= LINK_SHARE

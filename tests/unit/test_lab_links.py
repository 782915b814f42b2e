"""The link model: rate, queue, delay, loss and changes, on a clock that the test moves."""

from __future__ import annotations

import itertools
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cuntong_simulations.lab.links import MTU, Fabric, LinkDirection, Packet, Path, percentile_ms


def link(rate_bit_s: float = 8000.0, **changes: Any) -> LinkDirection:
    """1,000 bytes a second, half a second of queue, no delay."""
    settings = {"delay_s": 0.0, "queue_s": 0.5, "loss": 0.0} | changes
    return LinkDirection(rate_bit_s=rate_bit_s, random=Random(1), **settings)


class World:
    """A fabric whose deliveries are written down."""

    def __init__(self, *links: LinkDirection) -> None:
        self.arrived: list[tuple[float, Packet]] = []
        self.fabric = Fabric(links, self._deliver)

    def _deliver(self, due: float, _path: Path, packet: Packet) -> None:
        self.arrived.append((round(due, 9), packet))

    def run(self, until: float) -> list[tuple[float, Packet]]:
        self.fabric.advance(until)
        return self.arrived


def test_packet_takes_its_serialisation_and_the_delay() -> None:
    world = World(link(delay_s=0.25))
    world.fabric.send(10.0, bytes(100), (0,))
    assert world.run(10.3499) == []
    assert world.run(10.35) == [(10.35, bytes(100))]


def test_second_packet_waits_for_the_first() -> None:
    world = World(link())
    for packet in (b"a" * 100, b"b" * 100):
        world.fabric.send(0.0, packet, (0,))
    assert [at for at, _packet in world.run(1.0)] == [0.1, 0.2]


def test_full_queue_drops_the_newcomer_and_nothing_else() -> None:
    world = World(link(rate_bit_s=80_000.0, queue_s=0.505))
    for number in range(100):
        world.fabric.send(0.0, bytes([number]) * 100, (0,))
    arrived = world.run(10.0)
    # What waits half a second at a hundred packets a second, and the one that is being sent.
    assert [packet[0] for _at, packet in arrived] == list(range(51))
    assert world.fabric.links[0].overflowed == 49


def test_queue_of_no_time_still_holds_two_packets() -> None:
    world = World(link(queue_s=0.0))
    for _ in range(10):
        world.fabric.send(0.0, bytes(MTU), (0,))
    assert len(world.run(100.0)) == 3


def test_lateness_of_the_process_does_not_add_up_over_two_links() -> None:
    world = World(link(), link(rate_bit_s=80_000.0, delay_s=0.5))
    world.fabric.send(0.0, bytes(100), (0, 1))
    # Nobody looked for a long time.
    assert world.run(60.0) == [(0.61, bytes(100))]


def test_flows_that_meet_share_one_queue_in_the_order_of_time() -> None:
    world = World(link(delay_s=0.3), link(), link(rate_bit_s=800.0))
    world.fabric.send(0.0, b"late" * 10, (0, 2))
    world.fabric.send(0.0, b"soon" * 10, (1, 2))
    assert [packet[:4] for _at, packet in world.run(10.0)] == [b"soon", b"late"]


def test_lost_packet_uses_the_link_and_never_arrives() -> None:
    world = World(link(loss=0.5, rate_bit_s=8_000_000.0))
    for number in range(400):
        world.fabric.send(number * 0.01, bytes(100), (0,))
    arrived = world.run(10.0)
    assert world.fabric.links[0].bytes == 40_000
    assert world.fabric.links[0].lost == 400 - len(arrived)
    assert 150 < len(arrived) < 250


def test_same_seed_loses_the_same_packets() -> None:
    def lost() -> list[bytes]:
        world = World(link(loss=0.3, rate_bit_s=8_000_000.0))
        for number in range(100):
            world.fabric.send(number * 0.01, bytes([number]), (0,))
        return [packet for _at, packet in world.run(10.0)]

    assert lost() == lost()


def test_half_the_rate_lets_what_waits_take_twice_as_long() -> None:
    world = World(link())
    for _ in range(3):
        world.fabric.send(0.0, bytes(100), (0,))
    world.fabric.change(0.15, 0, rate_bit_s=4000.0)
    assert [at for at, _packet in world.run(10.0)] == [0.1, 0.25, 0.45]


def test_rate_step_does_not_touch_what_is_on_its_way() -> None:
    world = World(link(delay_s=5.0))
    world.fabric.send(0.0, bytes(100), (0,))
    world.fabric.change(1.0, 0, rate_bit_s=8.0)
    assert world.run(10.0) == [(5.1, bytes(100))]


def test_outage_loses_what_waits_and_what_comes_and_the_link_works_again() -> None:
    world = World(link(delay_s=1.0))
    for packet in (b"sent" * 25, b"wait" * 25):
        world.fabric.send(0.0, packet, (0,))
    world.fabric.change(0.15, 0, is_down=True)
    world.fabric.send(0.5, b"down" * 25, (0,))
    world.fabric.change(2.0, 0, is_down=False)
    world.fabric.send(2.0, b"back" * 25, (0,))
    assert [(at, packet[:4]) for at, packet in world.run(10.0)] == [(1.1, b"sent"), (3.1, b"back")]
    assert world.fabric.links[0].lost == 2


@given(
    sizes=st.lists(st.integers(20, MTU), min_size=1, max_size=60),
    gaps=st.lists(st.floats(0, 0.2), min_size=60, max_size=60),
)
def test_no_link_is_faster_than_its_rate_and_none_reorders(
    sizes: list[int], gaps: list[float]
) -> None:
    world = World(link(queue_s=1000.0))
    now = 0.0
    for number, (size, gap) in enumerate(zip(sizes, gaps, strict=False)):
        now += gap
        world.fabric.send(now, number.to_bytes(2, "big") * (size // 2), (0,))
    arrived = world.run(1e6)
    assert [int.from_bytes(packet[:2], "big") for _at, packet in arrived] == list(range(len(sizes)))
    for (before, _), (after, packet) in itertools.pairwise(arrived):
        assert after - before >= len(packet) / 1000 - 1e-6


def test_percentile_of_waits() -> None:
    histogram = [90, 0, 0, 0, 10]
    assert percentile_ms(histogram, 0.5) == 0.0
    assert percentile_ms(histogram, 0.95) == pytest.approx(2.25)
    assert percentile_ms([], 0.5) == 0.0

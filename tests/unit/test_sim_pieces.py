"""The model of pieces."""

from __future__ import annotations

import random

import numpy as np
import pytest

from cuntong_simulations.model.filling import progressive_filling
from cuntong_simulations.model.pieces import Peer, distribute, share_out
from cuntong_simulations.model.trials import Place, one_bundle
from cuntong_simulations.model.validate import run_network

PIECE = 1024


def test_a_place_below_a_slow_one_is_done_a_piece_later() -> None:
    found = distribute([Peer(-1, 9e9, 9e9), Peer(0, 1024, 9e9), Peer(1, 1e8, 1)], 64 * PIECE, mode="tree", piece_bytes=PIECE)  # fmt: skip
    assert found[:2] == [0.0, pytest.approx(64.0)]
    assert found[2] == pytest.approx(64.0, rel=1e-3)


def test_a_thin_server_isnt_asked_for_every_copy_in_a_swarm() -> None:
    peers = [Peer(-1, 1024, 1024), *(Peer(0, 10_240, 10_240) for _ in range(8))]
    alone = max(distribute(peers, 128 * PIECE, mode="tree", piece_bytes=PIECE))
    helped = max(distribute(peers, 128 * PIECE, mode="swarm", piece_bytes=PIECE))
    assert alone == pytest.approx(8 * 128)
    # 1 would be the minimum distribution time; measured swarms of few pieces take a quarter more, and some more than that.
    assert 128 <= helped < 2 * 128


def test_what_goes_through_a_hub_takes_its_link_twice() -> None:
    peers = [Peer(-1, 1e9, 1e9), Peer(0, 1e9, 1024), Peer(1, 1e9, 1e9), Peer(2, 1e9, 1e9, hub=1)]
    assert max(distribute(peers, 64 * PIECE, mode="tree", piece_bytes=PIECE)) == pytest.approx(128, rel=0.05)  # fmt: skip


def test_the_same_seed_gives_the_same_seconds() -> None:
    peers = [Peer(-1, 5000, 5000), *(Peer(0, 3000 + 100 * n, 2000) for n in range(6))]
    first, second = (
        distribute(peers, 64.5 * PIECE, mode="swarm", piece_bytes=PIECE, seed=7) for _ in range(2)
    )
    assert first == second


@pytest.mark.parametrize("seed", range(20))
def test_connections_share_links_as_textbooks_have_it(seed: int) -> None:
    chance = random.Random(seed)
    room = [chance.choice((0.0, 1.0, 2.0, chance.uniform(0, 5))) for _ in range(30)]
    ways = [sorted(chance.sample(range(30), chance.choice((2, 2, 4)))) for _ in range(80)]
    is_busy = np.array([chance.random() < 0.8 for _ in ways])
    rate = np.zeros(80)
    share_out(
        np.array([[*way, -1, -1][:4] for way in ways]), is_busy, np.ones(30, np.bool_),
        np.array(room), 0.0, np.zeros(80), np.zeros(80), rate,
    )  # fmt: skip
    busy = np.flatnonzero(is_busy)
    expected = progressive_filling(
        dict(enumerate(room)), [np.inf] * len(busy), [dict.fromkeys(ways[one], 1.0) for one in busy]
    )
    assert rate[busy].tolist() == expected
    assert not rate[~is_busy].any()


@pytest.mark.parametrize("counties", [2, 12])
def test_a_thin_uplink_gives_siblings_as_much_as_single_pieces_do(counties: int) -> None:  # fmt: skip
    """What siblings give each other is split by connections, not by how fast they are."""
    places = [Place(-1, 0, 4e6, 4e6), Place(0, 1, 4e6, 4e6)]
    places += [Place(1, 3, 8e5, 4e5 if number == 0 else 2e6) for number in range(counties)]
    places += [Place(2 + number, 5, 3e5, 2e4) for number in range(counties) for _ in range(3)]
    size = 256 * 16384.0
    peers = [Peer(one.parent, one.down_bytes_s, one.up_bytes_s) for one in places]
    is_trading = [number <= 1 for number in range(len(places))]
    expected = distribute(peers, size, mode="swarm", is_trading=is_trading)
    found = run_network(one_bundle(places, size * 200, policy="swarm", step_s=36.0)).done_h
    last = max(expected)
    assert expected.index(last) in range(2 + counties, 5 + counties)
    assert float(found.max()) * 3600 / 200 == pytest.approx(last, rel=0.02)

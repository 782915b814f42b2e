"""What is calculated by hand."""

from __future__ import annotations

import pytest

from cuntong_simulations.model import closed


def test_a_swarm_is_held_up_by_server_slowest_link_or_sum_of_uplinks() -> None:
    assert closed.swarm_s(1000, 10, [1000, 1000], [1000, 1000]) == 100
    assert closed.swarm_s(1000, 1000, [5, 1000], [1000, 1000]) == 200
    assert closed.swarm_s(1000, 50, [1000, 1000], [25, 25]) == 20


def test_a_branch_gets_its_share_of_a_thin_uplink_above() -> None:
    shares = closed.even_shares_bytes_s([-1, 0, 0, 1], [9, 8, 8, 7], [6, 5, 5, 4], 3)
    assert sorted(shares) == [3.0, 5.0, 7, 8]
    assert closed.pipeline_s(30, shares) == 10


def test_loss_costs_a_fountain_its_share_and_a_carousel_whole_passes() -> None:
    assert closed.fountain_s(10_000_000, 1e6, 0.2) == pytest.approx(
        closed.broadcast_pass_s(10_000_000, 1e6) / 0.8
    )
    # The measured ones: six passes at 5 % loss, twelve at 20 %, for some ten thousand packets.
    assert [closed.carousel_passes(50_000_000 / 1344, loss, 0.5) for loss in (0.0, 0.05, 0.2)] == [1, 4, 7]  # fmt: skip
    assert closed.carousel_passes(1e6, 0.2, 0.99) == 12


def test_small_batches_keep_the_last_county_waiting() -> None:
    days = closed.disks_days(2800, 2, 560, leave_s=7 * 86400, transit_most_s=5 * 86400)
    assert days == 9 * 7 + 5

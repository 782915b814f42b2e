"""Who gives in a swarm."""

from __future__ import annotations

import numpy as np
import pytest

from cuntong_daemon.policy.peers import partners_of
from cuntong_protocol.divisions import Division
from cuntong_simulations.model.connections import joined, spread


def _spread(
    room: float,
    given: list[float],
    offers: list[float],
    *,
    first: list[float] | None = None,
    near: float = 1.0,
    beside: list[float] | None = None,
) -> tuple[float, list[float]]:
    """What comes from above, and from each child."""
    count = len(given)
    used = np.empty(count)
    above = spread(
        room,
        np.array(given, float),
        np.array(first or [0.0] * count),
        np.array(offers, float),
        np.ones(count),
        np.full(count, near),
        np.array(beside or [0.0] * count),
        1.0,
        used,
        np.zeros((4, count)),
    )
    return above, used.tolist()


@pytest.mark.parametrize("count", [2, 3, 4, 5, 7, 12, 31, 200])
def test_a_place_is_joined_to_as_many_siblings_as_the_policy_joins_it_to(count: int) -> None:
    places = [Division(f"{number:012}") for number in range(count)]
    found = []
    for bundle in range(20):
        partners = partners_of(str(bundle), dict.fromkeys(places, 0.0))
        found.append(2 * sum(len(others) for others in partners.values()) / count / (count - 1))
    assert joined(count) == pytest.approx(np.mean(found), rel=0.03)


def test_a_sibling_with_a_thin_uplink_gives_as_much_as_others_do_until_it_is_full() -> None:
    # Two that take 6 each over two connections each: 3 would come from everywhere, the thin one hasn't got that.
    above, used = _spread(100, [6, 6], [100, 1])
    assert used == [3, 1]
    assert above == pytest.approx(8)


def test_own_children_keep_their_part_of_an_uplink_that_few_siblings_use() -> None:
    # An uplink of 10, half of it promised to siblings, with as many children's connections beside.
    _, used = _spread(100, [20, 0, 0], [0, 5, 5], near=2.0, beside=[2.0, 2.0, 2.0])
    assert used == [0, pytest.approx(10 / 3), pytest.approx(10 / 3)]


def test_who_keeps_up_with_the_place_above_costs_no_sibling_anything() -> None:
    assert _spread(100, [6, 6], [50, 50], first=[6, 6]) == (12, [0, 0])


def test_nobody_gives_to_itself() -> None:
    above, used = _spread(4, [6, 0], [50, 50])
    assert used[0] == 0
    assert above + used[1] == pytest.approx(6)


def test_what_is_given_is_given_by_somebody() -> None:
    # The second can't have 7 of 1 from above and 1 from the first, but by the pool it was given that.
    above, used = _spread(1, [1, 7], [1, 9])
    assert above + sum(used) == pytest.approx(8)
    assert above <= 1
    assert used[0] <= 1

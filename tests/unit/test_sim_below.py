"""Who lies below a place that publishes."""

from __future__ import annotations

import pytest

from cuntong_simulations.model.run import _below
from cuntong_simulations.model.trials import draw


@pytest.mark.parametrize("seed", range(12))
def test_whoever_has_the_publisher_somewhere_above_lies_below_it(seed: int) -> None:
    country = draw(seed).country
    for place in range(country.node_count):
        above = [set[int]() for _ in range(country.node_count)]
        for node in range(1, country.node_count):
            parent = int(country.parent[node])
            above[node] = above[parent] | {parent}
        assert _below(country, place).tolist() == [place in those for those in above]

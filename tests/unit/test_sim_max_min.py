"""Max-min on nested links against progressive filling."""

import random

import numpy as np

from cuntong_simulations.model.filling import progressive_filling
from cuntong_simulations.model.max_min import cut


def test_nested_cuts_give_what_progressive_filling_gives_on_300_random_trees() -> None:
    worst = 0.0
    for seed in range(300):
        chance = random.Random(f"tree {seed}")
        sizes = [chance.randint(1, 6) for _ in range(chance.randint(1, 8))]
        count = sum(sizes)
        demands = [chance.choice((0.0, 1.0, chance.expovariate(1.0))) for _ in range(count)]
        weights = [chance.choice((1.0, 1.0, 2.5)) for _ in range(count)]
        rooms: dict[object, float] = {"top": chance.uniform(0, 0.7 * count)}
        ways: list[dict[object, float]] = []
        for group, size in enumerate(sizes):
            rooms[group] = chance.choice((0.0, chance.uniform(0, size)))
            ways += [{group: 1.0, "top": weights[len(ways) + n]} for n in range(size)]
        expected = progressive_filling(rooms, demands, ways)  # type: ignore[arg-type]
        given = np.array(demands)
        begin = 0
        for group, size in enumerate(sizes):
            cut(given, np.ones(count), begin, begin + size, rooms[group])
            begin += size
        cut(given, np.array(weights), 0, count, rooms["top"])
        worst = max(worst, float(np.abs(given - expected).max()))
    assert worst <= 1e-9


def test_a_link_that_carries_nothing_gives_nothing() -> None:
    demands = np.array([1.0, 2.0])
    assert cut(demands, np.ones(2), 0, 2, 0.0) == 0.0
    assert not demands.any()


def test_the_compiled_cut_and_the_plain_one_give_the_same_bytes() -> None:
    numbers = np.random.default_rng(6).random((50, 2, 40))
    for demands, weights in numbers:
        compiled, plain = demands.copy(), demands.copy()
        taken = cut(compiled, weights, 3, 40, 4.0)
        assert taken == cut.py_func(plain, weights, 3, 40, 4.0)  # type: ignore[attr-defined]
        assert compiled.tobytes() == plain.tobytes()

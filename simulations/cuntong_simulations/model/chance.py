"""What is drawn by lot, by place and occasion: the same whatever else there is (MODEL.md 2).

A counter-based hash: three steps of SplitMix64 (Steele, Lea and Flood, Fast Splittable Pseudorandom Number Generators,
OOPSLA 2014), each taking in one word. There is no state, so threads, samples and the order of the places don't matter.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

GAMMA = np.uint64(0x9E3779B97F4A7C15)
MIX_1 = np.uint64(0xBF58476D1CE4E5B9)
MIX_2 = np.uint64(0x94D049BB133111EB)
UNIT = 2.0**-53
"""The highest 53 bits of a word times this: 0 to 1, 1 not included."""

# What is drawn once for a place, in words that no day of a run reaches.
DRAW_PARENT = 1 << 32
DRAW_NO_LINK = DRAW_PARENT + 1
DRAW_LINK = DRAW_PARENT + 2
DRAW_DISH = DRAW_PARENT + 3
DRAW_SUBSCRIPTION = DRAW_PARENT + 4
DRAW_SAMPLE = DRAW_PARENT + 5

_MASK = (1 << 64) - 1


def chance(seed: int, node: ArrayLike, draw: ArrayLike) -> NDArray[np.float64]:
    """`u(seed, node, draw)`: equally spread over 0 (included) to 1 (not), alike for alike arguments.

    Args:
        seed: Of the scenario; its lowest 64 bits count.
        node: Identities (numbers in the whole country), not negative; any shape.
        draw: Which draw of the node's: the number of a day, or one of the `DRAW_…`; broadcast against `node`.
    """
    with np.errstate(over="ignore"):  # Words wrap around; NumPy warns of it when they are single.
        seen = _mix(np.uint64(seed & _MASK) + GAMMA)
        for word in (node, draw):
            seen = _mix(seen + np.asarray(word).astype(np.uint64) + GAMMA)
        return np.asarray((seen >> np.uint64(11)) * UNIT)


def _mix(words: NDArray[np.uint64] | np.uint64) -> NDArray[np.uint64] | np.uint64:
    words = (words ^ (words >> np.uint64(30))) * MIX_1
    words = (words ^ (words >> np.uint64(27))) * MIX_2
    return words ^ (words >> np.uint64(31))

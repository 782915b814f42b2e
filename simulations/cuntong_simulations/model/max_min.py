"""Max-min fairness on nested links: cut from the innermost set of flows to the outermost, which is exact.

The constraints are laminar (MODEL.md 5): of two sets of flows one contains the other, or they have none in common. A set
that is filled up to a level leaves its flows with smaller demands, and a level that is cut further out is at most as high
(Bertsekas and Gallager, Data Networks, 2nd edition, 6.5.2).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from .compiled import compiled_bare


@compiled_bare
def cut(
    demands: NDArray[np.float64],
    counts: NDArray[np.float64],
    begin: int,
    end: int,
    room: float,
) -> float:
    """Cut the demands of one set at the level at which a link is full; they stay if it has room for all.

    Args:
        demands: What each flow takes at most; is changed. Not negative.
        counts: How many flows like it there are on this link.
        begin: The set is from here.
        end: To here, exclusive.
        room: What the link carries.

    Returns:
        What is taken of the room.
    """
    total = 0.0
    for flow in range(begin, end):
        total += counts[flow] * demands[flow]
    if total <= room:
        return total
    if room <= 0.0:
        for flow in range(begin, end):
            demands[flow] = 0.0
        return 0.0
    # Who takes no more than an equal share is content; what it leaves is for the others, until nobody else is.
    level = 0.0
    while True:
        left = room
        growing = 0.0
        for flow in range(begin, end):
            if demands[flow] <= level:
                left -= counts[flow] * demands[flow]
            else:
                growing += counts[flow]
        if growing == 0.0:
            break
        higher = left / growing
        if higher <= level:
            break
        level = higher
    for flow in range(begin, end):
        demands[flow] = min(demands[flow], level)
    return room

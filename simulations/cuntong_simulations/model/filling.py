"""Max-min fairness by progressive filling, as textbooks have it.

All flows grow alike until a link is full; the flows across it keep what they have, the others grow on (Bertsekas and
Gallager, Data Networks, 2nd edition, section 6.5.2). It knows nothing of trees, so it judges what does.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from typing import TypeVar

Link = TypeVar("Link", bound=Hashable)


def progressive_filling(
    room: Mapping[Link, float], demands: Sequence[float], flows: Sequence[Mapping[Link, float]]
) -> list[float]:
    """Share links out among flows.

    Args:
        room: What each link carries; only those that a flow crosses matter.
        demands: The most that each flow takes.
        flows: Of each the links that it crosses, and how many flows like it there are on each (1, without samples).

    Returns:
        What each flow gets, in any unit that `room` and `demands` have.
    """
    given = [0.0] * len(flows)
    growing = {number for number, demand in enumerate(demands) if demand > 0}
    left = dict(room)
    level = 0.0
    while growing:
        load: dict[Link, float] = {}
        for number in sorted(growing):
            for link, count in flows[number].items():
                load[link] = load.get(link, 0.0) + count
        step_of = {link: max(left[link], 0.0) / count for link, count in load.items()}
        least_demand = min(demands[number] for number in growing)
        step = min([least_demand - level, *step_of.values()])
        # What stops the filling is told by identity, not by what is left of it: that may be a rounding error.
        full = {link for link, reached in step_of.items() if reached <= step}
        level += step
        for link, count in load.items():
            left[link] = 0.0 if link in full else left[link] - step * count
        stopped = {
            number
            for number in growing
            if math.isclose(demands[number], level, rel_tol=1e-15)
            or demands[number] <= level
            or not full.isdisjoint(flows[number])
        }
        for number in stopped:
            given[number] = min(level, demands[number])
        growing -= stopped
    return given

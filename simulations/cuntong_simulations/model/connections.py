"""Who gives in a swarm: what a group's children are given, over the connections between them (MODEL.md 5 and 12)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from cuntong_daemon.policy.peers import CIRCLES

from .compiled import compiled_bare
from .max_min import cut

Floats = NDArray[np.float64]


@compiled_bare
def joined(places: float) -> float:
    """The share of its siblings that a place is joined to, when so many take part in `policy.peers.partners_of`."""
    others = places - 1.0
    if others <= 2.0:
        return 1.0
    return float(1.0 - (1.0 - 2.0 / others) ** CIRCLES)


@compiled_bare
def rest(left: float, taken: float) -> float:
    """What is left; a rounding error isn't."""
    return left - taken if left - taken > left * 1e-12 else 0.0


@compiled_bare
def _without(left: float, step: float, count: float) -> float:
    """What is left of a link; nothing if this step was as long as it could be, whatever the rounding."""
    return 0.0 if left / count <= step else left - step * count


@compiled_bare
def spread(room: float, given: Floats, first: Floats, offers: Floats, counts: Floats, near: Floats, beside: Floats, reach: float, used: Floats, rows: Floats) -> float:  # fmt: skip
    """Take what children are given from those who have it, max-min fairly among the connections.

    The set of connections is complete but for a child's to itself, so two lists of levels are enough: connections across
    links that aren't full all have the same rate.

    Args:
        room: What is left of the uplink above.
        given: By child; together at most `room` and `offers`.
        first: What each takes from above before anything else; is changed.
        offers: What each gives at most, 0 without a connection.
        counts: How many like it each child stands for.
        near: By child, above 0: the connections to siblings among which its share of its uplink was split.
        beside: By child: the connections that this share leaves the rest of the uplink to.
        reach: The share of its siblings that each is joined to.
        used: Of the offers, by child; is written.
        rows: Four rows of scratch.

    Returns:
        What comes from above.
    """
    size = len(given)
    total, pool = 0.0, room
    for number in range(size):
        total += counts[number] * given[number]
        pool += counts[number] * offers[number]
    if total >= pool * (1.0 - 1e-12):
        for number in range(size):
            used[number] = offers[number]
        return room
    above = cut(first, counts, 0, size, room)
    for number in range(size):
        used[number] = 0.0
    if above >= total:
        return above
    lacks, lefts, into, out_of = rows[0], rows[1], rows[2], rows[3]
    left_above = room - above
    for number in range(size):
        lacks[number] = max(0.0, given[number] - first[number])
        lefts[number] = 0.0
        if offers[number] > 0.0:
            lefts[number] = offers[number] * (near[number] + beside[number]) / near[number]
    while True:
        # Growing connections: of all to those above, of each into it and out of it.
        takers, givers = 0.0, 0.0
        for number in range(size):
            takers += counts[number] if lacks[number] > 0.0 else 0.0
            givers += counts[number] if lefts[number] > 0.0 else 0.0
        is_above = takers > 0.0 and left_above > 0.0
        step = left_above / takers if is_above else np.inf
        for number in range(size):
            is_taker, is_giver = lacks[number] > 0.0, lefts[number] > 0.0
            into[number] = out_of[number] = 0.0
            if is_taker:
                into[number] = reach * (givers - (1.0 if is_giver else 0.0))
                into[number] += 1.0 if is_above else 0.0
                if into[number] > 1e-12:
                    step = min(step, lacks[number] / into[number])
            if is_giver:
                out_of[number] = reach * (takers - (1.0 if is_taker else 0.0))
                if out_of[number] > 1e-12:
                    step = min(step, lefts[number] / (out_of[number] + beside[number]))
        if step == np.inf:
            break
        if is_above:
            above += step * takers
            left_above = _without(left_above, step, takers)
        for number in range(size):
            if into[number] > 1e-12:
                lacks[number] = _without(lacks[number], step, into[number])
            if out_of[number] > 1e-12:
                used[number] += step * out_of[number]
                lefts[number] = _without(lefts[number], step, out_of[number] + beside[number])
    # A child's own uplink counts in what all are given; what only that could carry comes from what the others have left.
    carried = above
    for number in range(size):
        carried += counts[number] * used[number]
    part = max(0.0, total - carried) / max(pool - carried, 1e-300)
    for number in range(size):
        used[number] += (offers[number] - used[number]) * part
    return float(above + (room - above) * part)

"""A day of the model, compiled (MODEL.md 4 to 6 and 12): arrays in, arrays changed.

Nodes lie breadth first, so those of one depth follow each other, and so do the children of one node. A depth is cut into
parts whose number doesn't depend on the threads; each adds up for itself, so the sums are always the same.
"""

from __future__ import annotations

import numba

from .arrays import (
    ALONE,
    FETCHED,
    GROUP,
    HELD,
    HUB,
    NO_ROOM,
    OFF,
    Floats,
    Given,
    Ints,
    Settings,
    State,
)
from .compiled import compiled_bare, compiled_parallel
from .deliveries import copy_disks, listen
from .groups import forms_group, serve_groups
from .star import star
from .uplinks import serve_alone, serve_hub

PARTS = 64
LEAST_SOURCES = 16
"""Of a part."""


@compiled_bare
def _find_room(g: Given, s: State) -> None:
    """What may be begun where not all fits: in the order of the queue, what fits into what is left."""
    for node in g.tight:
        kind = g.node_class[node]
        room = g.store[kind] - s.used[node]
        for place in range(g.wanted_count[kind]):
            b = g.order[kind, place]
            if s.pending[b, node] == 0:
                continue
            s.pending[b, node] = FETCHED
            if s.have[b, node] <= 0.0:
                if g.size[b] > room:
                    s.pending[b, node] = NO_ROOM
                else:
                    room -= g.size[b]


@compiled_bare
def _begin(g: Given, s: State, hours: float, sums: Floats) -> None:
    """Find out below whom nobody can get anything; during a day nobody begins to want anything."""
    parent, hub, is_stranded, left, is_idle = g.parent, g.hub, g.is_stranded, s.left, s.is_idle
    pair, weight, up_used = g.pair, g.weight, s.up_used
    for node in range(len(parent)):
        is_idle[node] = 1
        up_used[node] = 0.0
    for node in range(1, len(parent)):
        if left[node] > 0 and not is_stranded[node]:
            is_idle[parent[node]] = 0
    for node in range(1, len(parent)):
        if left[node] > 0 and is_idle[parent[node]] and hub[parent[node]] < 0:
            sums[pair[node], HELD + OFF] += weight[node] * hours


@compiled_bare
def _find_roles(g: Given, x: Settings, s: State, hour: int, begin: int, end: int, sums: Floats) -> int:  # fmt: skip
    """What the sources of a part of a depth do in this step; returns the bits of all that there are."""
    node_class, children, first, hub, tight = g.node_class, g.children, g.first, g.hub, g.is_tight
    down_of, up_of, weight, pair, trades = g.down, g.up, g.weight, g.pair, g.trades
    left, is_off, up_used, role, is_idle = s.left, s.is_off, s.up_used, s.role, s.is_idle
    is_swarm, hours, found = x.is_swarm, x.dt / 3600.0, 0
    for source in range(begin, end):
        role[source] = 0
        if hub[source] >= 0:
            role[source] = HUB if hub[source] == source and children[source] > 0 else 0
            found |= role[source]
            continue
        if is_idle[source]:
            continue
        wanting, is_open, is_tight = False, False, False
        last = first[source] + children[source]
        for node in range(first[source], last):
            if left[node] > 0:
                wanting = True
                if not is_off[node] and down_of[node_class[node], hour] > 0.0:
                    is_open = True
                    break
            is_tight = is_tight or tight[node_class[node]] != 0
        if wanting and (is_open or is_tight):
            own_up = 0.0 if is_off[source] else up_of[node_class[source], hour]
            role[source] = ALONE
            if is_swarm and forms_group(trades[source], own_up, down_of, up_of, node_class, left, is_off, hour, first[source], last):  # fmt: skip
                role[source] = GROUP
            found |= role[source]
            continue
        # Nobody can get anything. (Where something may be evicted, what a group has together is noted each time.)
        up_used[source] = 0.0
        if wanting:
            for node in range(first[source], last):
                if left[node] > 0:
                    sums[pair[node], HELD + OFF] += weight[node] * hours
    return found


@compiled_bare
def _transfer(g: Given, x: Settings, s: State, step: int, hour: int, begin: int, end: int, scratch: Floats, who: Ints, sums: Floats) -> None:  # fmt: skip
    """The sources of a part of a depth."""
    found = _find_roles(g, x, s, hour, begin, end, sums)
    if found & ALONE:
        serve_alone(g, x, s, step, hour, begin, end, scratch, sums)
    if found & GROUP:
        serve_groups(g, x, s, step, hour, begin, end, scratch, who, sums)
    if found & HUB:
        for source in range(begin, end):
            if s.role[source] == HUB:
                serve_hub(g, x, s, step, hour, source, scratch, sums)


@compiled_parallel
def run_day(g: Given, x: Settings, s: State, first_step: int, steps: int, first_hour: int, scratch: Floats, who: Ints, sums: Floats) -> None:  # fmt: skip
    """Some steps; what they add up to is added to `sums`, of shape (parts, pairs, columns)."""
    dishes = len(g.dish)
    if not x.is_star:
        _begin(g, s, steps * x.dt / 3600.0, sums[0])
    for number in range(steps):
        step = first_step + number
        hour = int((first_hour + number * x.dt / 3600.0) % 168)
        _find_room(g, s)
        if x.has_air:
            for part in numba.prange(PARTS):
                listen(g, x, s, step, hour, dishes * part // PARTS, dishes * (part + 1) // PARTS, sums[part])  # fmt: skip
        copy_disks(g, x, s, step, sums[0])
        if x.is_star:
            star(g, x, s, step, hour, scratch[0], sums[0])
            continue
        for depth in range(len(g.depth_begin) - 2):
            begin = g.depth_begin[depth]
            count = g.depth_begin[depth + 1] - begin
            parts = min(PARTS, 1 + count // LEAST_SOURCES)
            for part in numba.prange(parts):
                _transfer(g, x, s, step, hour, begin + count * part // parts, begin + count * (part + 1) // parts, scratch[part], who[part], sums[part])  # fmt: skip

"""A source shares out its uplink among its children, or among all below a hub, compiled (MODEL.md 5)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from .arrays import (
    ALMOST,
    ALONE,
    DOWN,
    FETCHED,
    HELD,
    LINK,
    OFF,
    UP,
    Bytes,
    Floats,
    Given,
    Ints,
    Settings,
    State,
)
from .compiled import compiled_bare
from .max_min import cut
from .waiting import cause_of, held_by, hold


@compiled_bare
def can_get(have: float, there: float, down_bytes: float, startup: float, dt: float) -> float:
    """What of a bundle can come over the link in this step, when its source has `there`.

    Args:
        have: Of the bundle; less than 0: seconds of the start-up that are over.
        there: Bytes.
        down_bytes: What the link carries in the step.
        startup: Seconds; 0 where the source is closed: nothing begins, and what could be got but for that counts.
        dt: Of the step, seconds.
    """
    if have > 0.0:
        return max(0.0, there - have)
    if there <= 0.0 or have <= -startup:
        return max(0.0, there)
    return min(there, down_bytes * max(0.0, 1.0 - (startup + have) / dt))


@compiled_bare
def want(have: Floats, pending: Bytes, publisher: Ints, to_sky: Bytes, order: Ints, count: int, node: int, row: int, source: int, own: int, startup: float, down_bytes: float, most: float, dt: float) -> float:  # fmt: skip
    """What a node can get from a source, up to somewhat more than `most`.

    Arrays one by one, here and in `_take`: a tuple of them costs more to pass on than what is done with it.

    Args:
        have, pending, publisher, to_sky: As in `State` and `Given`.
        order: The queue of the node's class; `count` is its length.
        row: Of the node's dish if it leaves anything to the sky, else -1.
        own: Only what this place publishes; -1: all.
        startup, down_bytes, dt: As in `_can_get`.
    """
    total = 0.0
    for place in range(count):
        b = order[place]
        if pending[b, node] != FETCHED or (own >= 0 and publisher[b] != own):
            continue
        if row >= 0 and to_sky[row, b] != 0:
            continue
        total += can_get(have[b, node], have[b, source], down_bytes, startup, dt)
        if total >= most:
            break
    return total


@compiled_bare
def take(have: Floats, pending: Bytes, left: Ints, used: Floats, done_h: NDArray[np.float32], publisher: Ints, to_sky: Bytes, size: Floats, order: Ints, count: int, node: int, row: int, source: int, own: int, startup: float, down_bytes: float, given: float, before: float, step: int, dt: float) -> None:  # fmt: skip
    """Spread over bundles what a node was given, after `before` in the same step."""
    rest = given
    for place in range(count):
        b = order[place]
        if pending[b, node] != FETCHED or (own >= 0 and publisher[b] != own):
            continue
        if row >= 0 and to_sky[row, b] != 0:
            continue
        has, there = have[b, node], have[b, source]
        got = min(can_get(has, there, down_bytes, startup, dt), rest)
        if got > 0.0:
            rest -= got
            if has <= 0.0:
                used[node] += size[b]
            have[b, node] = max(has, 0.0) + got
            if have[b, node] >= size[b] * ALMOST:
                part = (before + given - rest) / down_bytes
                have[b, node] = size[b]
                done_h[node, b] = (step + min(part, 1.0)) * dt / 3600.0
                pending[b, node] = 0
                left[node] -= 1
        elif has <= 0.0 and there > 0.0 and startup > 0.0:
            have[b, node] = -min(startup, dt - has)
        if rest <= 0.0 and startup == 0.0:
            break


@compiled_bare
def serve_alone(g: Given, x: Settings, s: State, step: int, hour: int, begin: int, end: int, scratch: Floats, sums: Floats) -> None:  # fmt: skip
    """The uplinks of some sources among their children, each for itself."""
    # Arrays by names of their own: what is read out of a tuple within a loop is counted each time.
    node_class, weight, pair, down_of, hub = g.node_class, g.weight, g.pair, g.down, g.hub
    order, wanted_count, is_tight, size = g.order, g.wanted_count, g.is_tight, g.size
    have, pending, left, is_off, used = s.have, s.pending, s.left, s.is_off, s.used
    done_h, to_sky, publisher, dish_row = s.done_h, s.to_sky, g.publisher, g.dish_row
    first, children, up_of, up_used, role = g.first, g.children, g.up, s.up_used, s.role
    dt, hours = x.dt, x.dt / 3600.0
    wanted, given, counts = scratch[0], scratch[1], scratch[2]
    for source in range(begin, end):
        if role[source] != ALONE:
            continue
        first_child, count = first[source], children[source]
        up = 0.0 if is_off[source] else up_of[node_class[source], hour]
        startup = x.startup if up > 0.0 else 0.0
        room = max(0.0, up * dt - up_used[source])
        up_used[source] = 0.0
        any_demand = False
        for number in range(count):
            node = first_child + number
            wanted[number] = given[number] = counts[number] = 0.0
            if left[node] == 0 or is_off[node]:
                continue
            kind = node_class[node]
            most = down_of[kind, hour] * dt
            if most == 0.0:
                continue
            row = dish_row[node] if x.leaves_to_sky else -1
            total = want(have, pending, publisher, to_sky, order[kind], wanted_count[kind], node, row, source, -1, startup, most, most, dt)  # fmt: skip
            if total > 0.0:
                wanted[number] = total
                given[number] = min(total, most)
                counts[number] = weight[node] / weight[source]
                any_demand = True
        if any_demand:
            sent = cut(given, counts, 0, count, room)
            sums[pair[source], UP] += weight[source] * sent
        for number in range(count):
            node = first_child + number
            if left[node] == 0:
                continue
            kind = node_class[node]
            most = 0.0 if is_off[node] else down_of[kind, hour] * dt
            if most == 0.0:
                sums[pair[node], HELD + OFF] += weight[node] * hours
                continue
            why = -1
            if x.leaves_to_sky or is_tight[kind]:
                why = cause_of(g, x, s, node)
            gets = given[number]
            held = held_by(why, wanted[number], gets, most)
            sums[pair[node], HELD + held] += weight[node] * hours
            if gets == 0.0 and startup == 0.0:
                continue
            sums[pair[node], LINK] += weight[node] * gets
            sums[pair[node], DOWN] += weight[node] * gets
            if hub[node] == node:
                s.intake[node] = gets
            row = dish_row[node] if x.leaves_to_sky else -1
            take(have, pending, left, used, done_h, publisher, to_sky, size, order[kind], wanted_count[kind], node, row, source, -1, startup, most, gets, 0.0, step, dt)  # fmt: skip


@compiled_bare
def serve_hub(g: Given, x: Settings, s: State, step: int, hour: int, hub: int, scratch: Floats, sums: Floats) -> None:  # fmt: skip
    """All below a hub, depth by depth; `up_used` of what is above each is up to date."""
    wanted, given, counts = scratch[0], scratch[1], scratch[2]
    order, wanted_count, publisher, dish_row, size = g.order, g.wanted_count, g.publisher, g.dish_row, g.size  # fmt: skip
    have, pending, left, used, done_h, to_sky = s.have, s.pending, s.left, s.used, s.done_h, s.to_sky  # fmt: skip
    kind = g.node_class[hub]
    hub_up = 0.0 if s.is_off[hub] else max(0.0, g.up[kind, hour] * x.dt - s.up_used[hub])
    hub_down = 0.0 if s.is_off[hub] else max(0.0, g.down[kind, hour] * x.dt - s.intake[hub])
    s.up_used[hub] = s.intake[hub] = 0.0
    first, last = hub, hub + 1
    while first < last:
        begin, end = -1, -1
        for source in range(first, last):
            if g.children[source] == 0:
                continue
            if begin < 0:
                begin = g.first[source]
            end = g.first[source] + g.children[source]
        if begin < 0:
            break
        for source in range(first, last):
            up = 0.0 if s.is_off[source] else g.up[g.node_class[source], hour]
            place = g.first[source] - begin
            for number in range(place, place + g.children[source]):
                node = begin + number
                wanted[number] = given[number] = 0.0
                counts[number] = g.weight[node] / g.weight[source]
                down = g.down[g.node_class[node], hour]
                if s.left[node] == 0 or s.is_off[node] or down == 0.0:
                    continue
                startup = x.startup if up > 0.0 else 0.0
                row, k = dish_row[node] if x.leaves_to_sky else -1, g.node_class[node]
                wanted[number] = want(have, pending, publisher, to_sky, order[k], wanted_count[k], node, row, source, -1, startup, down * x.dt, down * x.dt, x.dt)  # fmt: skip
                given[number] = min(wanted[number], down * x.dt)
            if source != hub and g.children[source] > 0:
                cut(given, counts, place, place + g.children[source], up * x.dt)
        for number in range(end - begin):
            counts[number] = g.weight[begin + number] / g.weight[hub]
        room = hub_up if first == hub else min(hub_up, hub_down)
        sent = cut(given, counts, 0, end - begin, room)
        hub_up -= sent
        sums[g.pair[hub], UP] += g.weight[hub] * sent
        if first != hub:
            hub_down -= sent
            sums[g.pair[hub], DOWN] += g.weight[hub] * sent
        for source in range(first, last):
            up = 0.0 if s.is_off[source] else g.up[g.node_class[source], hour]
            place = g.first[source] - begin
            for number in range(place, place + g.children[source]):
                node = begin + number
                if s.left[node] == 0:
                    continue
                down = g.down[g.node_class[node], hour]
                if s.is_off[node] or down == 0.0:
                    hold(g, x, sums, node, OFF, 0.0, 0.0, 0.0)
                    continue
                why = cause_of(g, x, s, node)
                hold(g, x, sums, node, why, wanted[number], given[number], down * x.dt)
                startup = x.startup if up > 0.0 else 0.0
                row, k = dish_row[node] if x.leaves_to_sky else -1, g.node_class[node]
                take(have, pending, left, used, done_h, publisher, to_sky, size, order[k], wanted_count[k], node, row, source, -1, startup, down * x.dt, given[number], 0.0, step, x.dt)  # fmt: skip
                bytes_ = g.weight[node] * given[number]
                sums[g.pair[node], LINK] += bytes_
                sums[g.pair[node], DOWN] += bytes_
                if source != hub:
                    sums[g.pair[source], UP] += bytes_
        first, last = begin, end

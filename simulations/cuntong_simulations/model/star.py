"""Everybody fetches from the publishers themselves, compiled."""

from __future__ import annotations

import numpy as np

from .arrays import DOWN, HELD, LINK, OFF, UP, Floats, Given, Settings, State
from .compiled import compiled_bare
from .max_min import cut
from .uplinks import take, want
from .waiting import cause_of, held_by


@compiled_bare
def star(g: Given, x: Settings, s: State, step: int, hour: int, scratch: Floats, sums: Floats) -> None:  # fmt: skip
    """Everybody fetches from the publishers themselves, one publisher after the other."""
    nodes = len(g.parent)
    order, wanted_count, publisher_of, dish_row, size = g.order, g.wanted_count, g.publisher, g.dish_row, g.size  # fmt: skip
    have, pending, left, used, done_h, to_sky = s.have, s.pending, s.left, s.used, s.done_h, s.to_sky  # fmt: skip
    node_class, weight, pair, down_of, up_of, is_off, hub_of = g.node_class, g.weight, g.pair, g.down, g.up, s.is_off, g.hub  # fmt: skip
    star_order, is_tight = g.star_order, g.is_tight
    wanted, got, given, counts = scratch[0], scratch[1], scratch[2], scratch[3]
    up_left, why, through = scratch[4], scratch[5], scratch[6]
    for node in range(nodes):
        kind = node_class[node]
        wanted[node] = got[node] = 0.0
        up_left[node] = 0.0 if is_off[node] else up_of[kind, hour] * x.dt
        through[node] = 0.0 if is_off[node] else down_of[kind, hour] * x.dt
        why[node] = -1
        if left[node] > 0 and (x.leaves_to_sky or is_tight[kind]):
            why[node] = cause_of(g, x, s, node)
        if hub_of[node] == node and left[node] > 0 and through[node] > 0.0:
            own = 0.0
            for publisher in g.publishers:
                row = dish_row[node] if x.leaves_to_sky else -1
                is_closed = is_off[publisher] or up_of[node_class[publisher], hour] == 0.0
                startup = 0.0 if is_closed else x.startup
                own += want(have, pending, publisher_of, to_sky, order[kind], wanted_count[kind], node, row, publisher, publisher, startup, down_of[kind, hour] * x.dt, through[node], x.dt)  # fmt: skip
            through[node] -= min(own, through[node])
    for publisher in g.publishers:
        publisher_up = 0.0 if is_off[publisher] else up_of[node_class[publisher], hour]
        startup = x.startup if publisher_up > 0.0 else 0.0
        for place in range(nodes):
            node = star_order[place]
            given[place] = 0.0
            counts[place] = 0.0
            if left[node] == 0 or is_off[node] or node == publisher:
                continue
            down = down_of[node_class[node], hour]
            if down == 0.0:
                continue
            most = down * x.dt
            row, kind = dish_row[node] if x.leaves_to_sky else -1, node_class[node]
            can = want(have, pending, publisher_of, to_sky, order[kind], wanted_count[kind], node, row, publisher, publisher, startup, most, np.inf, x.dt)  # fmt: skip
            wanted[node] += can
            given[place] = min(can, max(0.0, most - got[node]))
        for number in range(len(g.star_hub)):
            hub = g.star_hub[number]
            if hub == publisher:
                continue
            begin, end = g.star_begin[number], g.star_begin[number + 1]
            for place in range(begin, end):
                counts[place] = weight[star_order[place]] / weight[hub]
            cut(given, counts, begin, end, min(through[hub], up_left[hub]))
        for place in range(nodes):
            counts[place] = weight[star_order[place]] / weight[publisher]
        sent = cut(given, counts, 0, nodes, up_left[publisher])
        up_left[publisher] -= sent
        sums[pair[publisher], UP] += weight[publisher] * sent
        for number in range(len(g.star_hub)):
            hub = g.star_hub[number]
            if hub == publisher:
                continue
            passed = 0.0
            for place in range(g.star_begin[number], g.star_begin[number + 1]):
                passed += given[place] * weight[star_order[place]] / weight[hub]
            through[hub] -= passed
            up_left[hub] -= passed
            sums[pair[hub], UP] += weight[hub] * passed
            sums[pair[hub], DOWN] += weight[hub] * passed
        for place in range(nodes):
            node = star_order[place]
            down = down_of[node_class[node], hour]
            if left[node] == 0 or is_off[node] or down == 0.0 or node == publisher:
                continue
            if given[place] > 0.0 or x.startup > 0.0:
                row, kind = dish_row[node] if x.leaves_to_sky else -1, node_class[node]
                take(have, pending, left, used, done_h, publisher_of, to_sky, size, order[kind], wanted_count[kind], node, row, publisher, publisher, startup, down * x.dt, given[place], got[node], step, x.dt)  # fmt: skip
                got[node] += given[place]
                sums[pair[node], LINK] += weight[node] * given[place]
                sums[pair[node], DOWN] += weight[node] * given[place]
    for node in range(nodes):
        if left[node] == 0 and got[node] == 0.0:
            continue
        down = down_of[node_class[node], hour]
        if is_off[node] or down == 0.0:
            held = OFF
        else:
            held = held_by(int(why[node]), wanted[node], got[node], down * x.dt)
        sums[pair[node], HELD + held] += weight[node] * x.dt / 3600.0

"""What comes without a link: the broadcast and disks, compiled (MODEL.md 6 and 7)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from cuntong_daemon.policy.repair import ASSUMED_LINK_BYTES_S, USABLE_PART

from .arrays import ALMOST, DISK, NO_ROOM, SATELLITE, Bytes, Floats, Given, Ints, Settings, State
from .compiled import compiled_bare


@compiled_bare
def fetch_seconds(missing: float, link_bytes_s: float) -> float:
    """How long `policy.repair` thinks that the link takes."""
    link = link_bytes_s if link_bytes_s > 0 else float(ASSUMED_LINK_BYTES_S)
    return missing / (link * USABLE_PART)


@compiled_bare
def _finish(done_h: NDArray[np.float32], pending: Bytes, left: Ints, node: int, bundle: int, hours: float) -> None:  # fmt: skip
    done_h[node, bundle] = hours
    pending[bundle, node] = 0
    left[node] -= 1


@compiled_bare
def _obtain(have: Floats, used: Floats, size: Floats, node: int, bundle: int, got: float) -> bool:
    """Add bytes; True: it is done with that."""
    before = max(have[bundle, node], 0.0)
    if before == 0.0 and got > 0.0:
        used[node] += size[bundle]
    now = before + got
    if now >= size[bundle] * ALMOST:
        have[bundle, node] = size[bundle]
        return True
    have[bundle, node] = now
    return False


@compiled_bare
def is_left_to_sky(g: Given, s: State, node: int, bundle: int) -> bool:
    row = g.dish_row[node]
    return bool(row >= 0 and s.to_sky[row, bundle] != 0)


@compiled_bare
def listen(g: Given, x: Settings, s: State, step: int, hour: int, begin: int, end: int, sums: Floats) -> None:  # fmt: skip
    """The broadcast, for some dishes."""
    dish, node_class, pair, weight, sizes = g.dish, g.node_class, g.pair, g.weight, g.size
    listens_of, link_bytes_s, air, flows, flow_sum = g.listens, g.link_bytes_s, g.air, g.flow, g.flow_sum  # fmt: skip
    left, is_off, pending, have, used, done_h = s.left, s.is_off, s.pending, s.have, s.used, s.done_h  # fmt: skip
    all_missed, to_sky, sent = s.missed, s.to_sky, g.sent
    leaves_to_sky, is_carousel, dt, steps = x.leaves_to_sky, x.is_carousel, x.dt, flows.shape[1]
    for row in range(begin, end):
        node = dish[row]
        if left[node] == 0:
            continue
        kind = node_class[node]
        listens = 0.0 if is_off[node] else listens_of[kind, hour]
        for place in range(g.sent_begin[step], g.sent_begin[step + 1]):
            b = sent[place]
            if pending[b, node] == 0:
                continue
            grows, flow = air[b, step + 1] - air[b, step], flows[b, step]
            size = sizes[b]
            lacks = size - max(have[b, node], 0.0)
            if leaves_to_sky:
                # The air takes no longer than the link if enough is sent in so many steps.
                fetch = fetch_seconds(lacks, link_bytes_s[kind])
                last = steps
                if fetch < (steps - step) * dt:
                    last = step + int(np.floor(fetch / dt))
                enough = flow_sum[b, last] - flow_sum[b, step] >= lacks / size
                to_sky[row, b] = 1 if enough else 0
            if grows == 0.0 and flow == 0.0:
                continue
            hears = listens
            if pending[b, node] == NO_ROOM:
                hears = 0.0
            missed = all_missed[row, b]
            refill = min(missed, hears * flow)
            if is_carousel:
                refill = missed * min(1.0, hears * flow)
            all_missed[row, b] = missed + (1.0 - hears) * grows - refill
            got = min((hears * grows + refill) * size, lacks)
            if got > 0.0:
                sums[pair[node], SATELLITE] += weight[node] * got
                if _obtain(have, used, sizes, node, b, got):
                    _finish(done_h, pending, left, node, b, (step + 1) * dt / 3600.0)


@compiled_bare
def copy_disks(g: Given, x: Settings, s: State, step: int, sums: Floats) -> None:
    for number in range(len(g.order_node)):
        if s.order_done[number] or g.order_step[number] > step:
            continue
        node = g.order_node[number]
        kind = g.node_class[node]
        left = x.copy_bytes
        is_all = True
        for place in range(g.wanted_count[kind]):
            b = g.order[kind, place]
            if g.order_brings[number, b] == 0 or s.pending[b, node] == 0:
                continue
            if s.pending[b, node] == NO_ROOM:
                is_all = False
                continue
            got = min(left, g.size[b] - max(s.have[b, node], 0.0))
            if got > 0.0:
                left -= got
                sums[g.pair[node], DISK] += g.weight[node] * got
                if _obtain(s.have, s.used, g.size, node, b, got):
                    _finish(s.done_h, s.pending, s.left, node, b, (step + 1) * x.dt / 3600.0)
            if s.pending[b, node]:
                is_all = False
        if is_all:
            s.order_done[number] = 1

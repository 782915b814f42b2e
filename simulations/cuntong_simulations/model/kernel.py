"""A day of the model, compiled (MODEL.md 4 to 6 and 12): arrays in, arrays changed.

Nodes lie breadth first, so those of one depth follow each other, and so do the children of one node. A depth is cut into
parts whose number doesn't depend on the threads; each adds up for itself, so the sums are always the same.
"""

from __future__ import annotations

from typing import NamedTuple

import numba
import numpy as np
from numpy.typing import NDArray

from cuntong_daemon.policy.repair import ASSUMED_LINK_BYTES_S, USABLE_PART
from cuntong_daemon.policy.uplink import GAIN

from .connections import joined, rest, spread
from .max_min import compiled_bare, cut

PARTS = 64
LEAST_SOURCES = 16
"""Of a part."""
ALMOST = 1 - 1e-9
# Columns of the sums: bytes by carrier, bytes over access links, node-hours by cause.
LINK, SIBLINGS, SATELLITE, DISK, DOWN, UP, HELD = 0, 1, 2, 3, 4, 5, 6
OWN_LINK, UPLINK, CONTENT, OFF, SKY, STORE = 0, 1, 2, 3, 4, 5
COLUMNS = 12
STAR_ROWS, GROUP_ROWS = 7, 19
"""Of scratch."""
FETCHED, NO_ROOM = 1, 2
ALONE, GROUP, HUB = 1, 2, 4
"""What a source does in a step: share out its uplink, with its children's, or with all below it."""

Ints = NDArray[np.int32]
Floats = NDArray[np.float64]
Bytes = NDArray[np.uint8]


class Given(NamedTuple):
    """What doesn't change: by node, by class (and hour of the week), by bundle.

    Attributes:
        depth_begin: The first node of each depth, and their number.
        pair: Of each node: its row in the sums.
        hub: Of each node: the hub that it lies below; -1: none.
        trades: Of each node: whether its children form a group (0 never, 1 always, 2 while its uplink is scarce).
        fresh_row: Of a node whose children may form a group.
        dish: Nodes with a dish; `dish_row` the other way round, -1: none.
        is_stranded: Of each node: nothing ever reaches it, by whatever way, and it has nothing to give.
        is_tight: By class: not all that it wants fits into its store.
        tight: The nodes of such classes.
        air, flow: By bundle and step (one more of `flow_sum`): what a receiver has, symbols sent over size, their sum.
        sent: Bundles that are on the air, step by step; `sent_begin` where each step's begin. With `leaves_to_sky` all.
        star_order: Nodes by hub, those without one first; `star_begin` where each hub's begin.
    """

    parent: Ints
    first: Ints
    children: Ints
    node_class: Ints
    weight: Floats
    depth_begin: Ints
    pair: Ints
    hub: Ints
    trades: NDArray[np.int8]
    fresh_row: Ints
    down: Floats
    up: Floats
    listens: Floats
    order: Ints
    wanted_count: Ints
    link_bytes_s: Floats
    store: Floats
    is_stranded: Bytes
    is_tight: Bytes
    tight: Ints
    size: Floats
    publisher: Ints
    dish: Ints
    dish_row: Ints
    air: Floats
    flow: Floats
    flow_sum: Floats
    sent: Ints
    sent_begin: NDArray[np.int64]
    order_node: Ints
    order_step: NDArray[np.int64]
    order_brings: Bytes
    publishers: Ints
    star_order: Ints
    star_begin: Ints
    star_hub: Ints


class Settings(NamedTuple):
    """Numbers."""

    dt: float
    startup: float
    eta: float
    phi: float
    copy_bytes: float
    is_swarm: bool
    is_star: bool
    leaves_to_sky: bool
    is_carousel: bool
    has_air: bool


class State(NamedTuple):
    """What changes.

    Attributes:
        have: Bytes by bundle and node; less than 0: so many seconds of the start-up are over.
        done_h: Hours after the start; NaN: not yet.
        pending: By bundle and node. 1: released, wanted, not done; 2: and has no room in this step.
        left: How many are pending, by node.
        is_off: Today.
        is_idle: Today no child of this node wants anything that could reach it.
        role: Of a source in this step; 0: nothing.
        up_used: Of a node's uplink in this step, by siblings.
        fresh: By `fresh_row` and bundle: what the group has together.
        is_awaited: Likewise: whether a child of the group may want it still.
        used: Of the store, by node.
        intake: What a hub itself got over its link in this step.
        missed: By dish and bundle: the share that it would have if it had listened.
        to_sky: By dish and bundle: left to the sky in this step.
        order_done: A disk has nothing left to copy.
    """

    have: Floats
    done_h: NDArray[np.float32]
    pending: Bytes
    left: Ints
    is_off: Bytes
    is_idle: Bytes
    role: Bytes
    up_used: Floats
    fresh: Floats
    is_awaited: Bytes
    used: Floats
    intake: Floats
    missed: Floats
    to_sky: Bytes
    order_done: Bytes


@compiled_bare
def is_scarce(own_up: int, count: int, least_down: int, sum_up: int) -> bool:
    """`policy.uplink.uplink_scarcity` in a mesh, of receivers that are added up."""
    if own_up == 0 or count < 2:
        return False
    alone = max(count / own_up, 1.0 / least_down)
    helped = max(max(1.0 / own_up, 1.0 / least_down), count / (own_up + sum_up))
    return helped <= alone * GAIN


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
def _is_left_to_sky(g: Given, s: State, node: int, bundle: int) -> bool:
    row = g.dish_row[node]
    return bool(row >= 0 and s.to_sky[row, bundle] != 0)


@compiled_bare
def _listen(g: Given, x: Settings, s: State, step: int, hour: int, begin: int, end: int, sums: Floats) -> None:  # fmt: skip
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
def _copy_disks(g: Given, x: Settings, s: State, step: int, sums: Floats) -> None:
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


@compiled_bare
def _can_get(have: float, there: float, down_bytes: float, startup: float, dt: float) -> float:
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
def _want(have: Floats, pending: Bytes, publisher: Ints, to_sky: Bytes, order: Ints, count: int, node: int, row: int, source: int, own: int, startup: float, down_bytes: float, most: float, dt: float) -> float:  # fmt: skip
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
        total += _can_get(have[b, node], have[b, source], down_bytes, startup, dt)
        if total >= most:
            break
    return total


@compiled_bare
def _take(have: Floats, pending: Bytes, left: Ints, used: Floats, done_h: NDArray[np.float32], publisher: Ints, to_sky: Bytes, size: Floats, order: Ints, count: int, node: int, row: int, source: int, own: int, startup: float, down_bytes: float, given: float, before: float, step: int, dt: float) -> None:  # fmt: skip
    """Spread over bundles what a node was given, after `before` in the same step."""
    rest = given
    for place in range(count):
        b = order[place]
        if pending[b, node] != FETCHED or (own >= 0 and publisher[b] != own):
            continue
        if row >= 0 and to_sky[row, b] != 0:
            continue
        has, there = have[b, node], have[b, source]
        got = min(_can_get(has, there, down_bytes, startup, dt), rest)
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
def _cause(g: Given, x: Settings, s: State, node: int) -> int:
    """Why nothing can be asked for: all is left to the sky, or none has room; else -1."""
    kind = g.node_class[node]
    if not x.leaves_to_sky and not g.is_tight[kind]:
        return -1
    is_sky, is_full = True, True
    for place in range(g.wanted_count[kind]):
        b = g.order[kind, place]
        if s.pending[b, node] == 0:
            continue
        if not _is_left_to_sky(g, s, node, b):
            is_sky = False
        if s.pending[b, node] == FETCHED:
            is_full = False
    if is_sky:
        return SKY
    return STORE if is_full else -1


@compiled_bare
def _held_by(why: int, wanted: float, got: float, most: float) -> int:
    """What held a wanting node back."""
    if why >= 0:
        return why
    if got >= most * ALMOST:
        return OWN_LINK
    return UPLINK if got < wanted * ALMOST else CONTENT


@compiled_bare
def _hold(g: Given, x: Settings, sums: Floats, node: int, why: int, wanted: float, got: float, most: float) -> None:  # fmt: skip
    """Count what held a wanting node back."""
    sums[g.pair[node], HELD + _held_by(why, wanted, got, most)] += g.weight[node] * x.dt / 3600.0


@compiled_bare
def _serve_alone(g: Given, x: Settings, s: State, step: int, hour: int, begin: int, end: int, scratch: Floats, sums: Floats) -> None:  # fmt: skip
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
            total = _want(have, pending, publisher, to_sky, order[kind], wanted_count[kind], node, row, source, -1, startup, most, most, dt)  # fmt: skip
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
                why = _cause(g, x, s, node)
            gets = given[number]
            held = _held_by(why, wanted[number], gets, most)
            sums[pair[node], HELD + held] += weight[node] * hours
            if gets == 0.0 and startup == 0.0:
                continue
            sums[pair[node], LINK] += weight[node] * gets
            sums[pair[node], DOWN] += weight[node] * gets
            if hub[node] == node:
                s.intake[node] = gets
            row = dish_row[node] if x.leaves_to_sky else -1
            _take(have, pending, left, used, done_h, publisher, to_sky, size, order[kind], wanted_count[kind], node, row, source, -1, startup, most, gets, 0.0, step, dt)  # fmt: skip


@compiled_bare
def _serve_hub(g: Given, x: Settings, s: State, step: int, hour: int, hub: int, scratch: Floats, sums: Floats) -> None:  # fmt: skip
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
                wanted[number] = _want(have, pending, publisher, to_sky, order[k], wanted_count[k], node, row, source, -1, startup, down * x.dt, down * x.dt, x.dt)  # fmt: skip
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
                    _hold(g, x, sums, node, OFF, 0.0, 0.0, 0.0)
                    continue
                why = _cause(g, x, s, node)
                _hold(g, x, sums, node, why, wanted[number], given[number], down * x.dt)
                startup = x.startup if up > 0.0 else 0.0
                row, k = dish_row[node] if x.leaves_to_sky else -1, g.node_class[node]
                _take(have, pending, left, used, done_h, publisher, to_sky, size, order[k], wanted_count[k], node, row, source, -1, startup, down * x.dt, given[number], 0.0, step, x.dt)  # fmt: skip
                bytes_ = g.weight[node] * given[number]
                sums[g.pair[node], LINK] += bytes_
                sums[g.pair[node], DOWN] += bytes_
                if source != hub:
                    sums[g.pair[source], UP] += bytes_
        first, last = begin, end


@compiled_bare
def _serve_groups(g: Given, x: Settings, s: State, step: int, hour: int, begin: int, end: int, scratch: Floats, who: Ints, sums: Floats) -> None:  # fmt: skip
    """The uplinks of some sources and their children's own, bundle by bundle."""
    node_class, weight, pair, first, children = g.node_class, g.weight, g.pair, g.first, g.children
    down_of, up_of, size = g.down, g.up, g.size
    have, pending, left, is_off, used = s.have, s.pending, s.left, s.is_off, s.used
    fresh, is_awaited, done_h = s.fresh, s.is_awaited, s.done_h
    dt, hours = x.dt, x.dt / 3600.0
    up_used, role, fresh_row, is_stranded = s.up_used, s.role, g.fresh_row, g.is_stranded
    most, down_left, up_share, up_left = scratch[0], scratch[1], scratch[2], scratch[3]
    given, counts, offers = scratch[4], scratch[5], scratch[6]
    got_all, from_above, wanted_all, why = scratch[7], scratch[8], scratch[9], scratch[10]
    near, beside, first_above, gives = scratch[11], scratch[12], scratch[13], scratch[14]
    for source in range(begin, end):
        if role[source] != GROUP:
            continue
        first_child, last = first[source], first[source] + children[source]
        row = fresh_row[source]
        count, present, receivers = 0, 0.0, 0.0
        for node in range(first_child, last):
            alike = weight[node] / weight[source]
            if not is_off[node]:
                present += alike
                if left[node] > 0:
                    receivers += alike
            if is_off[node] or is_stranded[node]:
                if left[node] > 0:
                    sums[pair[node], HELD + OFF] += weight[node] * hours
                continue
            who[count] = node
            counts[count] = alike
            count += 1
        # All from here on is about children that are on and can get anything, by their number among these.
        reach = joined(present)
        is_open = False
        for number in range(count):
            node = who[number]
            kind = node_class[node]
            most[number] = down_left[number] = down_of[kind, hour] * dt
            up_left[number] = near[number] = beside[number] = 0.0
            got_all[number] = from_above[number] = wanted_all[number] = 0.0
            why[number] = -1.0
            others = receivers
            if left[node] > 0:
                others -= 1.0  # Of those alike itself only.
                is_open = is_open or most[number] > 0.0
                if x.leaves_to_sky or g.is_tight[kind]:
                    # Before anything comes: what has no room now is held back by that.
                    why[number] = _cause(g, x, s, node)
            if others > 1e-12 and up_of[kind, hour] > 0.0:
                below = 0.0
                for child in range(first[node], first[node] + children[node]):
                    if left[child] > 0 and not is_off[child]:
                        below += weight[child] / weight[node]
                near[number] = reach * others
                beside[number] = below + max(0.0, 1.0 - near[number])
                up_left[number] = up_of[kind, hour] * dt * near[number] / (near[number] + beside[number])  # fmt: skip
            up_share[number] = up_left[number]
        root_up = 0.0 if is_off[source] else up_of[node_class[source], hour]
        room = max(0.0, root_up * dt - up_used[source])
        up_used[source] = 0.0
        sent_above = 0.0
        for b in range(len(size)):
            if is_awaited[row, b] == 0:
                continue
            before = fresh[row, b]
            is_asked, is_starting = False, False
            for number in range(count):
                node = who[number]
                has = have[b, node]
                before = max(before, has)
                if pending[b, node]:
                    is_asked = True
                    is_starting = is_starting or -x.startup < has <= 0.0
            if not is_asked:
                is_awaited[row, b] = _is_any(pending, b, first_child, last)
                continue
            above = max(have[b, source], 0.0)
            grown = max(before, min(above, before + x.phi * room))
            there = min(grown, above)
            fresh[row, b] = before
            demand, takers = 0.0, 0.0
            if is_open:
                is_whole = above >= size[b] * ALMOST
                for number in range(count):
                    node = who[number]
                    has = have[b, node]
                    takes = first_above[number] = 0.0
                    if pending[b, node] == FETCHED and not (
                        x.leaves_to_sky and _is_left_to_sky(g, s, node, b)
                    ):
                        can = _can_get(has, there, most[number], x.startup, dt)
                        wanted_all[number] += can
                        takes = min(can, down_left[number])
                        demand += counts[number] * takes
                        if takes > 0.0:
                            takers += counts[number]
                            if not is_whole and can * ALMOST < down_left[number]:
                                first_above[number] = takes
                    given[number] = takes
            if demand > 0.0:
                pool = room
                for number in range(count):
                    is_taker = given[number] > 0.0
                    is_in = is_taker or have[b, who[number]] > 0.0
                    others = takers - (1.0 if is_taker else 0.0)
                    offers[number] = x.eta * up_left[number] if is_in and others > 1e-12 else 0.0
                    pool += counts[number] * offers[number]
                sent = cut(given, counts, 0, count, pool)
                came = 0.0
                if sent > 0.0:
                    came = spread(room, given[:count], first_above[:count], offers[:count], counts[:count], near[:count], beside[:count], reach, gives[:count], scratch[15:19, :count])  # fmt: skip
                else:
                    for number in range(count):
                        gives[number] = 0.0
                share_above = came / sent if sent > 0.0 else 0.0
                sent_above += came
                room = rest(room, came)
                fresh[row, b] = min(grown, before + sent)
                is_open = False
                for number in range(count):
                    node = who[number]
                    if gives[number] > 0.0:
                        up_left[number] = rest(up_left[number], gives[number] / x.eta)
                    got = given[number]
                    if got > 0.0:
                        down_left[number] -= got
                        got_all[number] += got
                        from_above[number] += got * share_above
                        has = have[b, node]
                        if has <= 0.0:
                            used[node] += size[b]
                        have[b, node] = max(has, 0.0) + got
                        if have[b, node] >= size[b] * ALMOST:
                            have[b, node] = size[b]
                            done_h[node, b] = (
                                step + min(1.0, got_all[number] / most[number])
                            ) * hours
                            pending[b, node] = 0
                            left[node] -= 1
                    is_open = is_open or (down_left[number] > 0.0 and left[node] > 0)
            if is_starting and there > 0.0:
                for number in range(count):
                    node = who[number]
                    has = have[b, node]
                    if has > 0.0 or pending[b, node] != FETCHED or most[number] == 0.0:
                        continue
                    if not (x.leaves_to_sky and _is_left_to_sky(g, s, node, b)):
                        have[b, node] = -min(x.startup, dt - has)
        sums[pair[source], UP] += weight[source] * sent_above
        for number in range(count):
            node = who[number]
            got = got_all[number]
            spent = up_share[number] - up_left[number]
            if spent > 0.0:
                up_used[node] = spent
                sums[pair[node], UP] += weight[node] * x.eta * spent
            if children[node] == 0:
                up_used[node] = 0.0
            if got > 0.0:
                if g.hub[node] == node:
                    s.intake[node] = got
                sums[pair[node], LINK] += weight[node] * from_above[number]
                sums[pair[node], SIBLINGS] += weight[node] * (got - from_above[number])
                sums[pair[node], DOWN] += weight[node] * got
            if left[node] == 0 and got == 0.0:
                continue
            if most[number] == 0.0:
                held = OFF
            else:
                cause = int(why[number]) if got == 0.0 else -1
                held = _held_by(cause, wanted_all[number], got, most[number])
            sums[pair[node], HELD + held] += weight[node] * hours


@compiled_bare
def _is_any(marks: Bytes, row: int, begin: int, end: int) -> int:
    for column in range(begin, end):
        if marks[row, column]:
            return 1
    return 0


@compiled_bare
def _forms_group(trades: int, own_up: float, down_of: Floats, up_of: Floats, node_class: Ints, left: Ints, is_off: Bytes, hour: int, begin: int, end: int) -> bool:  # fmt: skip
    """Whether these children share their uplinks in this step."""
    if trades != 2:
        return trades == 1
    count, least_down, sum_up = 0, 1 << 62, 0
    for node in range(begin, end):
        if left[node] == 0 or is_off[node]:
            continue
        down, up = int(down_of[node_class[node], hour]), int(up_of[node_class[node], hour])
        if down > 0 and up > 0:
            count += 1
            least_down = min(least_down, down)
            sum_up += up
    return is_scarce(int(own_up), count, least_down, sum_up)


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
            if is_swarm and _forms_group(trades[source], own_up, down_of, up_of, node_class, left, is_off, hour, first[source], last):  # fmt: skip
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
        _serve_alone(g, x, s, step, hour, begin, end, scratch, sums)
    if found & GROUP:
        _serve_groups(g, x, s, step, hour, begin, end, scratch, who, sums)
    if found & HUB:
        for source in range(begin, end):
            if s.role[source] == HUB:
                _serve_hub(g, x, s, step, hour, source, scratch, sums)


@compiled_bare
def _star(g: Given, x: Settings, s: State, step: int, hour: int, scratch: Floats, sums: Floats) -> None:  # fmt: skip
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
            why[node] = _cause(g, x, s, node)
        if hub_of[node] == node and left[node] > 0 and through[node] > 0.0:
            own = 0.0
            for publisher in g.publishers:
                row = dish_row[node] if x.leaves_to_sky else -1
                is_closed = is_off[publisher] or up_of[node_class[publisher], hour] == 0.0
                startup = 0.0 if is_closed else x.startup
                own += _want(have, pending, publisher_of, to_sky, order[kind], wanted_count[kind], node, row, publisher, publisher, startup, down_of[kind, hour] * x.dt, through[node], x.dt)  # fmt: skip
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
            can = _want(have, pending, publisher_of, to_sky, order[kind], wanted_count[kind], node, row, publisher, publisher, startup, most, np.inf, x.dt)  # fmt: skip
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
                _take(have, pending, left, used, done_h, publisher_of, to_sky, size, order[kind], wanted_count[kind], node, row, publisher, publisher, startup, down * x.dt, given[place], got[node], step, x.dt)  # fmt: skip
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
            held = _held_by(int(why[node]), wanted[node], got[node], down * x.dt)
        sums[pair[node], HELD + held] += weight[node] * x.dt / 3600.0


@numba.njit(cache=True, parallel=True)
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
                _listen(g, x, s, step, hour, dishes * part // PARTS, dishes * (part + 1) // PARTS, sums[part])  # fmt: skip
        _copy_disks(g, x, s, step, sums[0])
        if x.is_star:
            _star(g, x, s, step, hour, scratch[0], sums[0])
            continue
        for depth in range(len(g.depth_begin) - 2):
            begin = g.depth_begin[depth]
            count = g.depth_begin[depth + 1] - begin
            parts = min(PARTS, 1 + count // LEAST_SOURCES)
            for part in numba.prange(parts):
                _transfer(g, x, s, step, hour, begin + count * part // parts, begin + count * (part + 1) // parts, scratch[part], who[part], sums[part])  # fmt: skip

"""Children of one source that share their uplinks as well, compiled (MODEL.md 5 and 12)."""

from __future__ import annotations

from cuntong_daemon.policy.uplink import GAIN

from .arrays import (
    ALMOST,
    DOWN,
    FETCHED,
    GROUP,
    HELD,
    LINK,
    OFF,
    SIBLINGS,
    UP,
    Bytes,
    Floats,
    Given,
    Ints,
    Settings,
    State,
)
from .compiled import compiled_bare
from .connections import joined, rest, spread
from .deliveries import is_left_to_sky
from .max_min import cut
from .uplinks import can_get
from .waiting import cause_of, held_by


@compiled_bare
def is_scarce(own_up: int, count: int, least_down: int, sum_up: int) -> bool:
    """`policy.uplink.uplink_scarcity` in a mesh, of receivers that are added up."""
    if own_up == 0 or count < 2:
        return False
    alone = max(count / own_up, 1.0 / least_down)
    helped = max(max(1.0 / own_up, 1.0 / least_down), count / (own_up + sum_up))
    return helped <= alone * GAIN


@compiled_bare
def _is_any(marks: Bytes, row: int, begin: int, end: int) -> int:
    for column in range(begin, end):
        if marks[row, column]:
            return 1
    return 0


@compiled_bare
def forms_group(trades: int, own_up: float, down_of: Floats, up_of: Floats, node_class: Ints, left: Ints, is_off: Bytes, hour: int, begin: int, end: int) -> bool:  # fmt: skip
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
def serve_groups(g: Given, x: Settings, s: State, step: int, hour: int, begin: int, end: int, scratch: Floats, who: Ints, sums: Floats) -> None:  # fmt: skip
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
                    why[number] = cause_of(g, x, s, node)
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
                        x.leaves_to_sky and is_left_to_sky(g, s, node, b)
                    ):
                        can = can_get(has, there, most[number], x.startup, dt)
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
                    if not (x.leaves_to_sky and is_left_to_sky(g, s, node, b)):
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
                held = held_by(cause, wanted_all[number], got, most[number])
            sums[pair[node], HELD + held] += weight[node] * hours

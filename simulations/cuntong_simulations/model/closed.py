"""What can be calculated by hand: bounds and times in closed form, to judge the model by."""

from __future__ import annotations

import math
from collections.abc import Sequence

from cuntong_daemon.policy.reception import SYMBOL_AIR_BYTES
from cuntong_daemon.policy.uplink import Receiver, minimum_distribution_s
from cuntong_protocol.datacast.blocks import object_blocks, symbol_count

DAY_S = 86400.0


def swarm_s(
    payload_bytes: int,
    server_up_bytes_s: float,
    down_bytes_s: Sequence[int],
    up_bytes_s: Sequence[int],
) -> float:
    """The least time until all of some siblings have a payload (Kumar and Ross 2006).

    Args:
        payload_bytes: Its size.
        server_up_bytes_s: Uplink of the place above, which has all of it.
        down_bytes_s: Of each sibling.
        up_bytes_s: Likewise.
    """
    siblings = [Receiver(down, up) for down, up in zip(down_bytes_s, up_bytes_s, strict=True)]
    return minimum_distribution_s(payload_bytes, server_up_bytes_s, siblings)


def pipeline_s(payload_bytes: float, shares_bytes_s: Sequence[float]) -> float:
    """When a place has a payload that is passed on as it comes: it takes as long as at the narrowest link on its way.

    Args:
        payload_bytes: Its size.
        shares_bytes_s: Along the way, of each link what this place's branch has of it.
    """
    return payload_bytes / min(shares_bytes_s)


def even_shares_bytes_s(
    parent: Sequence[int], down_bytes_s: Sequence[float], up_bytes_s: Sequence[float], node: int
) -> list[float]:
    """The shares for `pipeline_s` in a tree in which the children of one place have like links.

    Args:
        parent: Of each place; -1 for the topmost, which has the payload.
        down_bytes_s: Of each place.
        up_bytes_s: Of each place.
        node: Whose way it is.
    """
    shares: list[float] = []
    while parent[node] >= 0:
        above = parent[node]
        shares += [down_bytes_s[node], up_bytes_s[above] / sum(one == above for one in parent)]
        node = above
    return shares


def broadcast_pass_s(payload_bytes: int, rate_bytes_s: float) -> float:
    """How long the source symbols of a bundle are on the air when nothing else is: one repetition of a carousel.

    Args:
        payload_bytes: Its size.
        rate_bytes_s: Of the broadcast, IP headers included.
    """
    symbols = sum(symbol_count(block) for block in object_blocks(payload_bytes))
    return symbols * SYMBOL_AIR_BYTES / rate_bytes_s


def fountain_s(payload_bytes: int, rate_bytes_s: float, loss: float) -> float:
    """How long fresh symbols have to be sent until a receiver has a bundle, in the mean.

    Args:
        payload_bytes: Its size.
        rate_bytes_s: Of the broadcast, IP headers included.
        loss: Share of packets lost, each by itself; below 1.
    """
    return broadcast_pass_s(payload_bytes, rate_bytes_s) / (1 - loss)


def carousel_passes(packets: float, loss: float, chance: float = 0.5) -> int:
    """How many plain repetitions it takes until a receiver has every packet, with a given chance at least.

    After n passes a packet is missing with `loss**n`, and all are there with `(1 - loss**n)**packets`.

    Args:
        packets: Of the bundle.
        loss: Share of packets lost, each by itself; below 1.
        chance: That they are all there, above 0 and below 1.
    """
    if loss <= 0:
        return 1
    missing = -math.expm1(math.log(chance) / packets)
    return max(1, math.ceil(math.log(missing) / math.log(loss) - 1e-12))


def disks_days(
    destinations: int,
    disks_each: int,
    batch: int,
    *,
    leave_s: float,
    transit_most_s: float,
    copy_s: float = 0.0,
    ordered_s: float = 0.0,
) -> float:
    """Days until all destinations have what is sent to them on disks, if none is lost and all take longest.

    Args:
        destinations: How many places.
        disks_each: Disks for each of them.
        batch: Disks that leave at a time.
        leave_s: From one departure to the next; the first is at 0.
        transit_most_s: On the way.
        copy_s: Copying in.
        ordered_s: When they were ordered.
    """
    first = math.ceil(ordered_s / leave_s - 1e-12)
    batches = -(-destinations * disks_each // batch)
    return ((first + batches - 1) * leave_s + transit_most_s + copy_s) / DAY_S

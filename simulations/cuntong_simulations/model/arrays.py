"""What the compiled model computes with: arrays by node, class and bundle."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

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

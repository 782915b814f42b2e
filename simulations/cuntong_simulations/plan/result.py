"""What the planner answers."""

from __future__ import annotations

from dataclasses import dataclass

import msgspec
import numpy as np
from numpy.typing import NDArray

from cuntong_protocol.texts import Sentence
from cuntong_simulations.results.findings import CostLine

from .inputs import Margins
from .solve import Status

Floats = NDArray[np.float64]


class Way(msgspec.Struct, frozen=True, kw_only=True):
    """How one release comes to the places of one tier and link class; bytes of all of them together.

    Attributes:
        places: That need it.
        without_disks: Of them that get no disks.
        by_satellite: Of them to which the satellite brings something.
        link_is_enough: Of them for which their links alone would do.
    """

    release: str
    tier: str
    link: str
    places: int
    without_disks: int
    by_satellite: int
    link_is_enough: int
    need_bytes: float
    link_bytes: float
    satellite_bytes: float
    disk_bytes: float
    disks: int
    parcels: int


class Shortfall(msgspec.Struct, frozen=True, kw_only=True):
    """What stands in the way, for the places of one tier, link class and set of releases.

    Attributes:
        kind: `down`: their own links; `up`: their uplinks; `air`: the satellite; `batch`: disks that leave in time;
            `none`: nothing reaches them at all; `store`: it doesn't fit into their stores.
        places: How many of them; `examples` are codes of a few.
        short_bytes: Bytes that are missing in all; of `batch`: disks.
        rate: Of the worst place, bytes/s of the access link (of `batch`: disks in a batch; of `store`: bytes).
        enough: With so much it would be enough there.
    """

    kind: str
    tier: str
    link: str
    releases: list[str]
    places: int
    short_bytes: float
    rate: float
    enough: float
    examples: list[str]


class Gain(msgspec.Struct, frozen=True, kw_only=True):
    """What one more unit of a resource saves, by a plan with it.

    Attributes:
        kind: `down`, `up`, `air`, `batch`, `days`: as in `Shortfall`, and deadlines one day later.
        places: That get one more each.
        saves: In the scenario's currency, all together, over the run.
        price: Of all these units over the run, where the scenario states one.
    """

    kind: str
    tier: str
    link: str
    unit: str
    places: int
    saves: float
    price: float | None


@dataclass(frozen=True, slots=True)
class Order:
    """Disks to one place in one batch.

    Attributes:
        node: Where to.
        release: Index into the scenario's.
        bundles: Their numbers, in the order of `Bundles`; of a split parcel they count with its last part.
        day: Days after the start on which they leave.
        disks: How many.
    """

    node: int
    release: int
    bundles: tuple[int, ...]
    day: float
    disks: int


@dataclass(frozen=True, slots=True)
class Plan:
    """A plan, or why there is none. S places, R releases, B bundles.

    Attributes:
        status: `INFEASIBLE`: see `shortfalls`; `UNKNOWN`: not within the time.
        notes: What wasn't available, for people.
        margins: With which it was made.
        satellite_mbit_s: To be leased; 0: none.
        on_air: Whether each bundle is broadcast, (B).
        orders: Disks.
        node: Node numbers of the places, (S).
        link_bytes, satellite_bytes, disk_bytes: What each gets of each release by which way, (S, R).
        cost: Of all lines.
        bound: No plan with these margins is cheaper; where batches are full and time ran out before it was looked at place
            by place: none that gives alike places the same.
        gap: Between `cost` and `bound`, relative.
        seconds: It took.
    """

    status: Status
    notes: tuple[Sentence, ...]
    margins: Margins
    satellite_mbit_s: float
    on_air: NDArray[np.bool_]
    orders: tuple[Order, ...]
    node: NDArray[np.int64]
    link_bytes: Floats
    satellite_bytes: Floats
    disk_bytes: Floats
    ways: tuple[Way, ...]
    bill: tuple[CostLine, ...]
    cost: float
    bound: float
    gap: float
    seconds: float
    shortfalls: tuple[Shortfall, ...]

    @property
    def is_feasible(self) -> bool:
        return self.status in (Status.OPTIMAL, Status.TIME)

    @property
    def disk_count(self) -> int:
        return sum(order.disks for order in self.orders)

    @property
    def parcel_count(self) -> int:
        return len(self.orders)

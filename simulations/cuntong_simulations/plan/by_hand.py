"""The same question on the back of an envelope: what a county's link brings in time, and what it needs beside it.

No program and no model, only rates times seconds: what the report's appendix shows beside the plan, so that a reader
can check it with a pocket calculator.
"""

from __future__ import annotations

import math

import msgspec

from cuntong_simulations.model.parameters import calibration_of, goodput
from cuntong_simulations.scenario.scenario import Costs, Scenario

DAY_S = 86400.0


class Envelope(msgspec.Struct, frozen=True, kw_only=True):
    """One release and one kind of county link.

    Attributes:
        places: With this link.
        days: From the release to its deadline.
        open_share: Of the week in which the link may be used.
        possible_bytes: Rate times goodput times open time.
        needed_rate: Bytes/s of the link with which it would be enough.
        disks: For each place, 0: none needed.
        cost: Of the disks and parcels of all places; None: no prices.
        satellite_rate: Bytes/s of a broadcast that brings all of it in time, without losses or repeats.
    """

    release: str
    link: str
    places: float
    size_bytes: float
    days: float
    open_share: float
    rate: float
    goodput: float
    possible_bytes: float
    needed_rate: float
    disks: int
    cost: float | None
    satellite_rate: float

    @property
    def is_enough(self) -> bool:
        return self.possible_bytes >= self.size_bytes


def by_hand(scenario: Scenario, open_share: float = 1.0) -> list[Envelope]:
    """Each release over each kind of county link.

    Args:
        scenario: Any; what provinces' uplinks carry, subscriptions, and other releases at the same time are left out.
        open_share: Of the week in which counties may use their links for this.
    """
    county = next((one for one in scenario.tiers if one.tier == "county"), None)
    if county is None:
        return []
    calibration = calibration_of(scenario)
    found = []
    for release in scenario.releases:
        size = float(sum(release.sizes) or release.size)
        days = min(release.deadlines.get("county", math.inf), scenario.run.days - release.day)
        for link in county.links:
            part = goodput(float(link.down), calibration)
            usable = part * open_share * days * DAY_S
            possible = link.down * usable
            places = county.count * link.share * (1 - county.without_link)
            disks = _disks(scenario, size, possible)
            found.append(
                Envelope(
                    release=release.name,
                    link=link.name or f"{link.down * 8 / 1e6:g} Mbit/s",
                    places=places,
                    size_bytes=size,
                    days=days,
                    open_share=open_share,
                    rate=float(link.down),
                    goodput=part,
                    possible_bytes=possible,
                    needed_rate=size / usable,
                    disks=disks,
                    cost=_cost(scenario.costs, places, disks),
                    satellite_rate=size / (days * DAY_S),
                )
            )
    return found


def _disks(scenario: Scenario, size: float, possible: float) -> int:
    if possible >= size or scenario.disks is None:
        return 0
    return math.ceil((size - possible) / scenario.disks.size - 1e-9)


def _cost(costs: Costs | None, places: float, disks: int) -> float | None:
    if costs is None:
        return None
    prices = [costs.disk_trip, costs.parcel]
    if all(price is None for price in prices):
        return None
    trip, parcel = (float(price or 0.0) for price in prices)
    return places * (disks * trip + (parcel if disks else 0.0))

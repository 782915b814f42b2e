"""The same question on the back of an envelope: what a county's link brings in time, and what it needs beside it.

No program and no model, only rates times seconds: what the report's appendix shows beside the plan, so that a reader
can check it with a pocket calculator.
"""

from __future__ import annotations

import math

import msgspec

from cuntong_simulations.model.parameters import calibration_of, goodput
from cuntong_simulations.model.site_class import SiteClass
from cuntong_simulations.model.tables import link_hours
from cuntong_simulations.scenario.scenario import Calibration, Costs, Link, Scenario, Tier

from .capacity import DAY_S
from .carriers import months_of, satellite_of
from .demand import COUNTY

ENOUGH_BYTES_S = 1e9
"""A link of which goodput takes nothing but headers."""


class Envelope(msgspec.Struct, frozen=True, kw_only=True):
    """One release and one kind of county link.

    Attributes:
        places: With this link.
        days: From the release to its deadline.
        open_share: Of the time, what the calendar leaves of the link.
        possible_bytes: Rate times goodput times open time.
        needed_rate: Bytes/s of the link with which it would be enough; None: the calendar leaves nothing.
        disks: For each place, 0: none needed, or none in the scenario.
        cost: Of the disks of all places, bought and sent; None: no disks, or no prices.
        satellite_rate: Bytes/s of a broadcast that brings all of it in time, without losses or repeats.
        satellite_cost: Of leasing that for the whole run; None: no satellite, or no price.
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
    needed_rate: float | None
    disks: int
    cost: float | None
    satellite_rate: float
    satellite_cost: float | None

    @property
    def is_enough(self) -> bool:
        return self.possible_bytes >= self.size_bytes


def by_hand(scenario: Scenario) -> list[Envelope]:
    """Each release over each kind of county link.

    Args:
        scenario: Any; what provinces' uplinks carry, subscriptions, and other releases at the same time are left out.
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
            # Of a link that isn't there, too, it is told how fast it would have to be.
            part = goodput(float(link.down) or ENOUGH_BYTES_S, calibration)
            open_share = _open_share(scenario, county, link, calibration)
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
                    needed_rate=size / usable if usable else None,
                    disks=disks,
                    cost=_cost(scenario.costs, places, disks),
                    satellite_rate=size / (days * DAY_S),
                    satellite_cost=_satellite_cost(scenario, size / (days * DAY_S)),
                )
            )
    return found


def _disks(scenario: Scenario, size: float, possible: float) -> int:
    if possible >= size or scenario.disks is None:
        return 0
    return math.ceil((size - possible) / scenario.disks.size - 1e-9)


def _open_share(scenario: Scenario, county: Tier, link: Link, calibration: Calibration) -> float:
    """What opening hours, pauses, and days off leave of a link."""
    rate = float(link.down) or ENOUGH_BYTES_S
    site = SiteClass(
        COUNTY, rate, float(link.up) or rate, "", 0, -1, has_dish=False, store_bytes=0.0
    )
    left, _up = link_hours(scenario, county, site, calibration)
    return float(left.mean()) / (rate * goodput(rate, calibration)) * (1 - county.off_days)


def _cost(costs: Costs | None, places: float, disks: int) -> float | None:
    prices = [costs.disk, costs.disk_trip, costs.parcel] if costs is not None else []
    if not disks or all(price is None for price in prices):
        return None
    disk, trip, parcel = (float(price or 0.0) for price in prices)
    return places * (disks * (disk + trip) + parcel)


def _satellite_cost(scenario: Scenario, rate: float) -> float | None:
    if satellite_of(scenario) is None or scenario.costs is None:
        return None
    price = float(scenario.costs.satellite_per_mbit_month or 0.0)
    return rate * 8 / 1e6 * months_of(scenario) * price

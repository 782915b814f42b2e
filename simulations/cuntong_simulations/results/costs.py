"""What a run costs under the scenario's prices: what it used of each resource, times the price of a unit."""

from __future__ import annotations

import math

import numpy as np

from cuntong_protocol.divisions import TIER_LABELS
from cuntong_simulations.model.outcome import CARRIERS, Outcome
from cuntong_simulations.scenario.scenario import Disks, Scenario

from .findings import CostLine

MONTH_S = 365.25 / 12 * 86400
COUNTY = TIER_LABELS.index("county")


def bill(outcome: Outcome, scenario: Scenario) -> list[CostLine]:
    """A line for each resource that has a price; extra links are the planner's, a run has none.

    The satellite is paid for at its leased rate for the whole run, used or not; disks that get lost are paid for again.
    """
    costs = scenario.costs
    if costs is None:
        return []
    lines = []
    if scenario.satellite is not None and costs.satellite_per_mbit_month is not None:
        months = scenario.run.days * 86400 / MONTH_S
        rate_mbit_s = scenario.satellite.rate * 8 / 1e6
        lines.append(("satellite", rate_mbit_s * months, "Mbit/s·month", costs.satellite_per_mbit_month))  # fmt: skip
    if costs.link_per_gb is not None:
        counties = [c for c, one in enumerate(outcome.country.classes) if one.tier == COUNTY]
        over_vpn = [CARRIERS.index("link"), CARRIERS.index("siblings")]
        carried = float(outcome.carried[np.ix_(counties, over_vpn)].sum())
        lines.append(("link", carried / 1e9, "GB", costs.link_per_gb))
    if scenario.disks is not None and scenario.disks.releases:
        parcels, trips, stock = _posted(outcome, scenario.disks)
        if costs.disk is not None:
            lines.append(("disk", stock, "disk", costs.disk))
        if costs.disk_trip is not None:
            lines.append(("disk-trip", trips, "disk", costs.disk_trip))
        if costs.parcel is not None:
            lines.append(("parcel", parcels, "parcel", costs.parcel))
    return [
        CostLine(item=item, quantity=quantity, unit=unit, price=float(price))
        for item, quantity, unit, price in lines
    ]


def _posted(outcome: Outcome, disks: Disks) -> tuple[float, float, float]:
    """What was sent and what had to be bought for it.

    Returns:
        Parcels, one for each destination and release; disks in them; the disks of the largest release, since what comes
        back serves the next one.
    """
    country, bundles = outcome.country, outcome.bundles
    places = np.bincount(country.node_class, country.weight, minlength=len(country.classes))
    again = 1 / (1 - min(disks.lost, 0.99))
    parcels = trips = stock = 0.0
    for number, release in enumerate(country.scenario.releases):
        if release.name not in disks.releases:
            continue
        before = trips
        is_of = bundles.release == number
        for c, one in enumerate(country.classes):
            if TIER_LABELS[one.tier] in disks.to:
                volume = float(bundles.size[is_of & outcome.wants[c]].sum())
                count = math.ceil(volume / disks.size)
                parcels += places[c] * again * (count > 0)
                trips += places[c] * again * count
        stock = max(stock, (trips - before) / again)
    return float(parcels), float(trips), float(stock)

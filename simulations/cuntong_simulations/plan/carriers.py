"""What the satellite and disks can do, and whether they may be used."""

from __future__ import annotations

import math

import numpy as np

from cuntong_daemon.policy.airtime import FRESH_PART, METADATA_PART
from cuntong_daemon.policy.reception import SYMBOL_AIR_BYTES, Weather
from cuntong_protocol.datacast.blocks import REPAIR_PART
from cuntong_protocol.datacast.packets import SYMBOL_BYTES
from cuntong_simulations.model.country import Country
from cuntong_simulations.results.costs import MONTH_S
from cuntong_simulations.scenario.scenario import Disks, Satellite, Scenario

from .capacity import DAY_S, Floats, Rates
from .demand import COUNTY, Demand

LEAST_LISTENING = 0.5
"""The air is repeated for receivers that listen at least so much; others get the rest by other ways."""
CAROUSEL_MISSING = 1e-3
"""A plain carousel is repeated until less than this is missing."""
LOST_TWICE = 1e-3
"""Disks leave early enough to be sent again, unless fewer than this get lost."""
LEASE_STEP_MBIT_S = 0.1
"""The leased rate is a multiple of this."""
LEAST_RATE = 1e-9


def satellite_of(scenario: Scenario) -> Satellite | None:
    """The satellite, if it has a price."""
    costs = scenario.costs
    return None if costs is None or costs.satellite_per_mbit_month is None else scenario.satellite


def disks_of(scenario: Scenario) -> Disks | None:
    """Disks, if they have a price."""
    costs = scenario.costs
    has_price = costs is not None and not (
        costs.disk is None and costs.disk_trip is None and costs.parcel is None
    )
    return scenario.disks if has_price else None


def months_of(scenario: Scenario) -> float:
    """For how long the satellite is leased: the whole run."""
    return scenario.run.days * DAY_S / MONTH_S


def travel_s(disks: Disks) -> float:
    """How long a disk may be on its way, being sent again where too many get lost."""
    again = 0
    if disks.lost > 0:
        again = max(0, math.ceil(math.log(LOST_TWICE) / math.log(min(disks.lost, 0.99))) - 1)
    return disks.transit_most + again * (disks.notice + disks.transit_most)


def sent(disks: Disks) -> float:
    """How often a disk is sent in the mean, since some get lost."""
    return 1 / (1 - min(disks.lost, 0.99))


def departures_s(scenario: Scenario, disks: Disks) -> Floats:
    """When batches leave."""
    return np.arange(0.0, scenario.run.days * DAY_S, max(disks.leave, scenario.run.step))


def latest_s(wanted: Demand, disks: Disks) -> Floats:
    """When disks have to leave at the latest, by tier and release, (4, R)."""
    largest = np.zeros_like(wanted.deadline_s)
    np.maximum.at(largest, wanted.tier, wanted.need)
    return wanted.deadline_s - travel_s(disks) - largest / disks.copy_rate


def reception(
    satellite: Satellite, country: Country, wanted: Demand, rates: Rates
) -> tuple[float, Floats]:
    """What the air costs and brings.

    Returns:
        Bytes of the leased rate for each byte of a bundle, and the share of what is on the air that each place gets of
        each release in time, (S, R).
    """
    has_dish = np.array([one.has_dish for one in country.classes])
    on_air = rates.air / max(rates.air.sum(), LEAST_RATE)
    listens = np.where(has_dish, rates.listens @ on_air, 0.0)
    used = listens[wanted.site_class]
    used = used[used >= LEAST_LISTENING]
    weather = Weather(
        loss=min(satellite.loss, 0.99),
        fade_s=satellite.fade,
        fades_an_hour=satellite.fades_per_hour,
    )
    clear = max(weather.clear_part, 0.01)
    least = float(used.min()) if len(used) else 1.0
    # While first passes wait, up to a quarter of the air repeats.
    if satellite.code == "fountain":
        passes = max(1 + REPAIR_PART, 1 / clear) * max(1 / FRESH_PART, 1 / least)
        share = np.minimum(listens / least, 1.0)
    else:
        missing = 1 - clear * least
        times = math.ceil(math.log(CAROUSEL_MISSING) / math.log(missing)) if missing > 0 else 1
        passes = max(1 / FRESH_PART, times)
        share = np.where(listens >= least, 1.0, 1 - (1 - clear * listens) ** times)
    in_time = wanted.deadline_s >= wanted.deadline_s[COUNTY]
    covered = np.where(has_dish, share, 0.0)[wanted.site_class, None] * in_time[wanted.tier]
    return passes * SYMBOL_AIR_BYTES / SYMBOL_BYTES / (1 - METADATA_PART), covered

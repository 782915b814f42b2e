"""What the plan takes from the model: who wants what, and what links carry (MODEL.md 2, 3, 9)."""

from __future__ import annotations

import numpy as np

from cuntong_protocol.divisions import TIER_LABELS
from cuntong_simulations.model.country import Bundles, Country
from cuntong_simulations.model.parameters import MEASURED, calibration_of
from cuntong_simulations.model.reference import choose, link_hours
from cuntong_simulations.scenario.calendars import hours
from cuntong_simulations.scenario.scenario import Calibration, Scenario

from .capacity import WEEK_HOURS, Bools, Rates


def link_rates(scenario: Scenario, country: Country, measured: Calibration = MEASURED) -> Rates:
    """What links carry by site class and hour of the week; days off are spread over all days."""
    calibration = calibration_of(scenario, measured)
    tiers = {TIER_LABELS.index(one.tier): one for one in scenario.tiers}
    count = len(country.classes)
    down, up, listens = (np.zeros((count, WEEK_HOURS)) for _ in range(3))
    known: dict[tuple[int, float, float], int] = {}
    for number, site in enumerate(country.classes):
        tier = tiers[site.tier]
        same = known.setdefault((site.tier, site.down_bytes_s, site.up_bytes_s), number)
        if same != number:
            down[number], up[number], listens[number] = down[same], up[same], listens[same]
            continue
        by_hour = link_hours(scenario, tier, site, calibration)
        down[number], up[number], listens[number] = (
            np.array(table) * (1 - tier.off_days) for table in by_hour
        )
    # A place without a dish hears nothing, whatever another one with the same link hears.
    listens *= np.array([one.has_dish for one in country.classes])[:, None]
    satellite = scenario.satellite
    return Rates(
        down=down,
        up=up,
        listens=listens,
        air=np.zeros(WEEK_HOURS) if satellite is None else hours(scenario, satellite.hours),
        eta=float(calibration.eta or 0.0),
        phi=float(calibration.phi or 0.0),
        first_hour=scenario.run.start.weekday() * 24,
    )


def wanted_bundles(scenario: Scenario, country: Country, bundles: Bundles) -> Bools:
    """Which site class wants which bundle, shape (classes, bundles)."""
    known: dict[tuple[int, int], list[bool]] = {}
    found = np.zeros((len(country.classes), len(bundles.size)), np.bool_)
    for number, site in enumerate(country.classes):
        key = (site.tier, site.subscription)
        if key not in known:
            known[key] = choose(scenario, site, bundles).wants
        found[number] = known[key]
    return found

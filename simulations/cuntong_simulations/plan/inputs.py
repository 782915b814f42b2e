"""What a plan is made from: who wants what, and what links carry, as the model has it (MODEL.md 2, 3, 9)."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from cuntong_simulations.model.country import Bundles, Country
from cuntong_simulations.model.parameters import calibration_of
from cuntong_simulations.model.tables import tables
from cuntong_simulations.scenario.calendars import hours
from cuntong_simulations.scenario.scenario import Scenario

from .capacity import WEEK_HOURS, Bools, Floats, Rates


@dataclass(frozen=True, slots=True)
class Margins:
    """How carefully is planned.

    Attributes:
        capacity: Share of its links that is planned with, for each site class or for all.
        air: Likewise of the satellite.
        deadline_s: Deadlines come earlier by so much, for each release or for all.
    """

    capacity: float | Floats = 1.0
    air: float = 1.0
    deadline_s: float | Floats = 0.0


@dataclass(frozen=True, slots=True)
class Case:
    """What is planned for.

    Attributes:
        scenario: With `[costs]`. A carrier that costs something may only be used if its price is stated.
        country: The whole one, not a sample.
        bundles: Of the scenario.
        rates: What links carry, by site class.
        wants: By site class and bundle.
    """

    scenario: Scenario
    country: Country
    bundles: Bundles
    rates: Rates
    wants: Bools

    def planned_with(self, margins: Margins) -> Case:
        """The same with less capacity."""
        part = np.broadcast_to(margins.capacity, len(self.country.classes))[:, None]
        rates = replace(
            self.rates,
            down=self.rates.down * part,
            up=self.rates.up * part,
            air=self.rates.air * margins.air,
        )
        return replace(self, rates=rates)


def case_of(scenario: Scenario, country: Country, bundles: Bundles) -> Case:
    """Ask the model; days off are spread over all days."""
    calibration = calibration_of(scenario)
    said = tables(scenario, country.classes, bundles, calibration)
    on = (1 - said.off_part)[:, None]
    satellite = scenario.satellite
    rates = Rates(
        down=said.down * on,
        up=said.up * on,
        listens=said.listens * on,
        air=np.zeros(WEEK_HOURS) if satellite is None else hours(scenario, satellite.hours),
        eta=float(calibration.eta or 0.0),
        phi=float(calibration.phi or 0.0),
        first_hour=scenario.run.start.weekday() * 24,
    )
    return Case(scenario, country, bundles, rates, said.wants)

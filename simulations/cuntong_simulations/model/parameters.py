"""The model's parameters (MODEL.md 9): the scenario's own, else those of its file, else the ones that come with the program."""

from __future__ import annotations

from pathlib import Path

import msgspec

from cuntong_simulations.calibration.record import PARAMETERS, SHIPPED_FILE, Record, read
from cuntong_simulations.scenario.scenario import Calibration, Scenario

SHIPPED: Record = read(SHIPPED_FILE)
MEASURED: Calibration = SHIPPED.parameters
"""For what nothing else says."""


def record_of(scenario: Scenario) -> Record:
    """Where the parameters come from that the scenario doesn't give itself.

    Raises:
        ScenarioError: as `read`, of the file that the scenario names.
    """
    named = scenario.calibration.file
    return read(Path(named)) if named else SHIPPED


def calibration_of(scenario: Scenario, measured: Calibration = MEASURED) -> Calibration:
    """All parameters.

    Args:
        scenario: What it gives itself, or the file that it names, comes first.
        measured: For the rest.

    Raises:
        ScenarioError: as `read`, of the file that the scenario names.
    """
    if scenario.calibration.file:
        measured = record_of(scenario).parameters
    own = {name: getattr(scenario.calibration, name) for name in PARAMETERS}
    return msgspec.structs.replace(
        measured, **{name: value for name, value in own.items() if value is not None}
    )


def goodput(rate_bytes_s: float, calibration: Calibration) -> float:
    """The share of a link's rate that is content, in one direction (MODEL.md 9).

    A thin link has few packets in flight, and is never quite busy.
    """
    if rate_bytes_s <= 0:
        return 0.0
    thin = float(calibration.thin or 0.0)
    return float(calibration.efficiency or 1.0) / (1 + (thin / rate_bytes_s) ** 2)

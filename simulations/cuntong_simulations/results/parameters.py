"""Which parameters the model of a scenario has, and where they come from (MODEL.md 9)."""

from __future__ import annotations

from pathlib import Path

from cuntong_simulations.calibration.record import PARAMETERS, SHIPPED_FILE, Measured
from cuntong_simulations.model.parameters import calibration_of, record_of
from cuntong_simulations.scenario.scenario import Scenario

from .findings import Parameter


def parameters(scenario: Scenario) -> list[Parameter]:
    """All of them.

    Raises:
        ScenarioError: the file that the scenario names can't be used.
    """
    used, own = calibration_of(scenario), scenario.calibration
    file = Path(own.file).name if own.file else SHIPPED_FILE.name
    elsewhere = "trial" if measured(scenario) is None else file
    return [
        Parameter(
            name=name,
            value=float(getattr(used, name)),
            origin=elsewhere if getattr(own, name) is None else "scenario",
        )
        for name in PARAMETERS
    ]


def measured(scenario: Scenario) -> Measured | None:
    """How those were measured that the scenario doesn't give itself; None: not with real daemons.

    Raises:
        ScenarioError: as `parameters`.
    """
    return record_of(scenario).measured

"""The model's parameters (MODEL.md 9)."""

from __future__ import annotations

import msgspec

from cuntong_simulations.scenario.scenario import Calibration, Scenario
from cuntong_simulations.scenario.units import Share, Span

TRIED = Calibration(
    efficiency=Share(0.95),
    efficiency_thin=Share(0.91),
    startup=Span(2.5),
    eta=Share(0.9),
    phi=Share(0.8),
)
"""Fitted to plain libtorrent in 19 namespaces in a trial: for what nothing else says."""


def calibration_of(scenario: Scenario, measured: Calibration = TRIED) -> Calibration:
    """The scenario's own parameters, and where it gives none the measured ones."""
    own = msgspec.structs.asdict(scenario.calibration)
    return msgspec.structs.replace(
        measured, **{name: value for name, value in own.items() if value is not None}
    )

"""A plan's figures, as they are stored (`plan.json`), shown and reported."""

from __future__ import annotations

import msgspec

from cuntong_protocol.texts import Sentence
from cuntong_simulations.calibration.record import Measured
from cuntong_simulations.plan.by_hand import Envelope, by_hand
from cuntong_simulations.plan.result import Gain, Plan, Shortfall, Way
from cuntong_simulations.scenario.scenario import Scenario

from .findings import CostLine, Parameter
from .parameters import measured, parameters


class Planned(msgspec.Struct, frozen=True, kw_only=True):
    """One plan, or why there is none.

    Attributes:
        status: `optimal`, `time`, `infeasible` or `unknown`.
        cost: In `currency`; 0 without a plan.
        gap: No plan is cheaper by more than this, relative.
        missed_share: Of the deadlines, when the plan was replayed in the model; None: it wasn't.
        on_air: Names of the bundles that are broadcast.
        by_hand: The same question, answered without program and model.
        calibration, measured: As in a run's manifest.
        scenario: None: the plan was replayed, and it stands in that run's manifest.
    """

    status: str
    currency: str
    satellite_mbit_s: float
    on_air: list[str]
    ways: list[Way]
    bill: list[CostLine]
    cost: float
    gap: float
    notes: list[Sentence]
    shortfalls: list[Shortfall]
    gains: list[Gain]
    missed_share: float | None = None
    by_hand: list[Envelope] = []
    calibration: list[Parameter] = []
    measured: Measured | None = None
    scenario: Scenario | None = None


def planned(
    plan: Plan,
    scenario: Scenario,
    names: tuple[str, ...],
    *,
    gains: list[Gain],
    missed_share: float | None,
) -> Planned:
    """A plan's figures.

    Args:
        plan: Of the scenario.
        scenario: With its prices.
        names: Of the bundles.
        gains: What one more unit of each resource saves.
        missed_share: Of the replay.
    """
    return Planned(
        status=plan.status.value,
        currency=scenario.costs.currency if scenario.costs is not None else "",
        satellite_mbit_s=plan.satellite_mbit_s,
        on_air=[name for name, is_on in zip(names, plan.on_air, strict=True) if is_on],
        ways=[*plan.ways],
        bill=[*plan.bill],
        cost=plan.cost if plan.is_feasible else 0.0,
        gap=plan.gap if plan.is_feasible else 0.0,
        notes=[*plan.notes],
        shortfalls=[*plan.shortfalls],
        gains=gains,
        missed_share=missed_share,
        by_hand=by_hand(scenario),
        calibration=parameters(scenario),
        measured=measured(scenario),
        scenario=scenario if missed_share is None else None,
    )

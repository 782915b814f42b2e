"""From a scenario to a plan that was replayed in the model."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from cuntong_daemon.i18n import _
from cuntong_simulations.model.country import build
from cuntong_simulations.model.outcome import Outcome
from cuntong_simulations.plan.explain import gains
from cuntong_simulations.plan.inputs import Case, case_of
from cuntong_simulations.plan.loop import Round, best, replay_compiled, replayed, tighten
from cuntong_simulations.plan.result import Plan
from cuntong_simulations.scenario.bundles import bundles_of
from cuntong_simulations.scenario.load import load
from cuntong_simulations.scenario.scenario import Scenario

from . import amounts
from .findings import Findings
from .planned import Planned, planned
from .simulate import manifest
from .summary import summarise

Tell = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Made:
    """A plan and what came of it.

    Attributes:
        orders: Division code, day, disks and bundles of each parcel.
        run: The replay; None: there is no plan.
        is_safe: The replay meets the deadlines.
    """

    scenario: Scenario
    planned: Planned
    orders: list[tuple[str, float, int, str]]
    run: tuple[Outcome, Findings] | None
    is_safe: bool


def make(file: Path, *, seconds: float = 60.0, tell: Tell = lambda _text: None) -> Made:
    """Plan, replay, and plan more carefully until the replay meets the deadlines.

    Args:
        file: A scenario with prices.
        seconds: For each plan at most so long.
        tell: Is told how it gets on.

    Raises:
        CuntongError: the scenario can't be used, or not be planned for.
    """
    scenario = load(file)
    country = build(scenario)
    bundles = bundles_of(scenario, country)
    case = case_of(scenario, country, bundles)
    replays: dict[int, Outcome] = {}

    def replay(made: Plan, case: Case) -> Outcome:
        tell(_("replaying the plan in the model"))
        replays[id(made)] = replay_compiled(made, case)
        return replays[id(made)]

    def told(one: Round) -> None:
        tell(_("{share} of the deadlines missed", share=amounts.share(one.missed_share)))

    rounds = tighten(case, seconds=seconds, told=told, replay=replay)
    chosen = best(rounds)
    plan = chosen.plan
    outcome = replays.get(id(plan))
    run = None
    if outcome is not None:
        used = replayed(plan, scenario)
        run = (outcome, summarise(outcome, manifest(used, file, outcome)))
        tell(_("trying one more unit of each resource"))
    figures = planned(
        plan,
        scenario,
        bundles.names,
        gains=gains(case, margins=plan.margins) if outcome is not None else [],
        missed_share=chosen.missed_share if outcome is not None else None,
    )
    orders = [
        (
            f"{country.code[order.node]:012d}",
            order.day,
            order.disks,
            " ".join(bundles.names[one] for one in order.bundles),
        )
        for order in plan.orders
    ]
    return Made(scenario, figures, orders, run, chosen.is_safe)

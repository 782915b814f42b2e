"""From a scenario to findings: builds the country, runs the model, adds up."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from cuntong_daemon.i18n import _
from cuntong_simulations.model.country import build
from cuntong_simulations.model.outcome import Outcome
from cuntong_simulations.scenario.bundles import bundles_of
from cuntong_simulations.scenario.load import load
from cuntong_simulations.scenario.scenario import Policy, Scenario

from .findings import Findings, Manifest
from .parameters import measured, parameters
from .summary import summarise
from .write import digest, versions

if TYPE_CHECKING:
    from .screen import Bar

QUICK_SHARE = 0.05
"""Of the counties."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What to run.

    Attributes:
        file: A scenario.
        settings: What it says otherwise, by key.
        seed, policy: Of the scenario if None.
        threads: All cores if None.
    """

    file: Path
    settings: dict[str, str] = field(default_factory=dict)
    is_quick: bool = False
    seed: int | None = None
    policy: Policy | None = None
    threads: int | None = None

    def scenario(self) -> Scenario:
        """Read and checked.

        Raises:
            ScenarioError: with file, line and reason.
        """
        options = {"seed": self.seed, "policy": self.policy}
        return load(
            self.file, self.settings, {key: it for key, it in options.items() if it is not None}
        )


def simulate(wanted: Wanted, tell: Bar | None = None) -> tuple[Outcome, Findings]:
    """Run it.

    Args:
        wanted: What to run.
        tell: Is told how it gets on.

    Raises:
        CuntongError: the scenario can't be used, or doesn't fit into the memory.
    """
    scenario = wanted.scenario()
    parameters(scenario)  # A file that can't be used is told before anything is built.
    # Loads the compiler: a scenario that is refused needn't wait for it.
    from cuntong_simulations.model import kernel
    from cuntong_simulations.model.compiled import is_kept
    from cuntong_simulations.model.run import run

    if tell is not None and not is_kept(kernel.run_day):
        tell(0.0, _("Compiling, the first time only"))
    share = QUICK_SHARE if wanted.is_quick else None
    country = build(scenario, share)
    bundles = bundles_of(scenario, country)
    outcome = run(scenario, country, bundles, threads=cores(wanted.threads), tell=tell)
    return outcome, summarise(outcome, manifest(scenario, wanted.file, outcome, share or 1.0))


def cores(threads: int | None) -> int:
    """As many as asked for, or all."""
    return threads or len(os.sched_getaffinity(0))


def manifest(
    scenario: Scenario, file: Path, outcome: Outcome, sample_share: float = 1.0
) -> Manifest:
    """What a run was.

    Args:
        scenario: As it was run.
        file: Where it stands.
        outcome: Of the run, that has just ended.
        sample_share: Of the counties.
    """
    return Manifest(
        scenario=scenario,
        scenario_sha256=digest(scenario),
        file=file.name,
        ended_at=datetime.now(UTC).isoformat(timespec="seconds"),
        seed=scenario.run.seed,
        step_s=float(scenario.run.step),
        policy=scenario.run.policy,
        sample_share=sample_share,
        node_count=outcome.country.node_count,
        bundle_count=len(outcome.bundles.names),
        threads=outcome.threads,
        seconds=outcome.seconds,
        versions=versions(),
        calibration=parameters(scenario),
        measured=measured(scenario),
    )


def findings_of(wanted: Wanted) -> Findings:
    """`simulate` in a process of its own: what comes back is small."""
    return simulate(wanted)[1]

"""From measurements to parameters: fitted to some networks, tested on the others, and written down."""

from __future__ import annotations

import csv
import datetime as dt
import fcntl
import os
import statistics
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

import msgspec

from cuntong_daemon.files import write_atomically
from cuntong_protocol.errors import Fault
from cuntong_protocol.texts import N_
from cuntong_simulations.lab.errors import LabError
from cuntong_simulations.lab.result import Result
from cuntong_simulations.scenario.scenario import Calibration

from .fit import Comparison, compare, fit
from .measure import Measurement
from .networks import TestNetwork
from .record import PARAMETERS, Measured, Record, text

GOAL_MEAN, GOAL_LAST = 0.05, 0.10
"""The largest relative error that a plan can live with: of tier means, and of last places."""
FILE, COMPARISON = "calibration.toml", "comparison.csv"
PREPARATION_S = 60.0
"""Of a measurement, before the publication: the emulator's proof, and starting the daemons."""
USUAL_FACTOR = 1.25
"""A transfer's time over its bound, to say how long it will take."""

Measurements = Sequence[tuple[TestNetwork, Sequence[Result]]]


@dataclass(frozen=True, slots=True)
class Calibrated:
    """The parameters, and each tier of each network beside what was measured."""

    record: Record
    comparisons: list[Comparison]

    @property
    def is_met(self) -> bool:
        """Whether the goal is, on the networks to which nothing was fitted."""
        measured = self.record.measured
        return (
            measured is not None
            and measured.mean_error_largest <= GOAL_MEAN
            and measured.last_error_largest <= GOAL_LAST
        )


def by_network(wanted: Iterable[Measurement]) -> Measurements:
    """The repeats of each network; all have to have been measured."""
    found: dict[str, tuple[TestNetwork, list[Result]]] = {}
    for one in wanted:
        result = one.result
        if result is not None:
            found.setdefault(one.network.name, (one.network, []))[1].append(result)
    return [*found.values()]


def calibrate(measured: Measurements) -> Calibrated:
    """Fit to the networks that are for it, and compare on all.

    Args:
        measured: At least one network for the fit, and one that isn't.
    """
    parameters = _rounded(fit(measured))
    comparisons = [
        one for network, results in measured for one in compare(network, results, parameters)
    ]
    tests = [one for one in comparisons if not one.is_for_fit]
    means = [abs(one.mean_error) for one in tests]
    last = [abs(one.last_error) for one in tests]
    results = [result for _network, found in measured for result in found]
    record = Record(
        parameters=parameters,
        measured=Measured(
            date=max(dt.datetime.fromisoformat(result.began_at) for result in results).date(),
            networks=len(measured),
            tested=sum(not network.is_for_fit for network, _results in measured),
            repeats=min(len(found) for _network, found in measured),
            mean_error_median=statistics.median(means),
            mean_error_largest=max(means),
            last_error_median=statistics.median(last),
            last_error_largest=max(last),
            versions={name: metadata.version(name) for name in ("cuntong", "libtorrent")},
        ),
    )
    return Calibrated(record, comparisons)


def write(calibrated: Calibrated, out: Path) -> Path:
    """Write both files; returns the one with the parameters."""
    # Spreadsheets take a file for UTF-8 only when it begins with a byte order mark.
    with (out / COMPARISON).open("w", encoding="utf-8-sig", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(
            (
                "network", "use", "tier", "measured_mean_s", "least_mean_s", "most_mean_s", "computed_mean_s",
                "mean_error", "measured_last_s", "computed_last_s", "last_error",
            )
        )  # fmt: skip
        for one in calibrated.comparisons:
            figures = (
                one.measured_mean_s, one.least_mean_s, one.most_mean_s, one.computed_mean_s, one.mean_error,
                one.measured_last_s, one.computed_last_s, one.last_error,
            )  # fmt: skip
            use = "fit" if one.is_for_fit else "test"
            rows.writerow((one.network, use, one.tier, *(f"{figure:.6g}" for figure in figures)))
    write_atomically(out / FILE, text(calibrated.record).encode())
    return out / FILE


@contextmanager
def only_one(out: Path) -> Iterator[None]:
    """Make the folder and keep others like us out of it while the block runs.

    Raises:
        LabError: `sim.calibrating`: another one is in it.
    """
    out.mkdir(parents=True, exist_ok=True)
    lock = os.open(out, os.O_RDONLY | os.O_DIRECTORY)
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise LabError(
                "sim.calibrating",
                N_("Another calibration is at work in {folder}."),
                fault=Fault.USAGE,
                folder=str(out),
            ) from None
        yield
    finally:
        os.close(lock)


@dataclass(slots=True)
class Course:
    """How far the measurements have come."""

    wanted: Sequence[Measurement]
    began: dict[Path, float] = field(default_factory=dict)
    done: set[Path] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.done = {one.folder for one in self.wanted if one.result is not None}

    def tell(self, one: Measurement, what: str) -> None:
        """As `measure.measure` tells it."""
        if what == "begun":
            self.began[one.folder] = time.monotonic()
            return
        self.began.pop(one.folder, None)
        if what == "done":
            self.done.add(one.folder)

    @property
    def running(self) -> list[str]:
        """Names of networks that are being measured."""
        return [one.network.name for one in self.wanted if one.folder in self.began]

    @property
    def share(self) -> float:
        """Of the time that all take; what takes longer than usual stays just before its end."""
        now, done, total = time.monotonic(), 0.0, 0.0
        for one in self.wanted:
            usual_s = one.network.bound_s * USUAL_FACTOR + PREPARATION_S
            total += usual_s
            if one.folder in self.done:
                done += usual_s
            elif one.folder in self.began:
                done += min(now - self.began[one.folder], 0.99 * usual_s)
        return done / total if total else 1.0


def _rounded(parameters: Calibration) -> Calibration:
    """As they are written, so that what is compared is what is used."""
    values: dict[str, Any] = {name: getattr(parameters, name) for name in PARAMETERS}
    return msgspec.structs.replace(
        parameters, **{name: type(value)(f"{value:.4g}") for name, value in values.items()}
    )

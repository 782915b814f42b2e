"""Node-days a second of the planners' simulation, beside SimGrid's on the same tree; then the national scenario, with its memory.

Both pass bundles down a tree of constant links and share each uplink max-min: ours hour by hour, SimGrid from event to event. SimGrid
passes on whole chunks, so its places are done a little later; where they differ by more than `TOLERANCE`, the benchmark breaks off.
The time is from the description to the completions, without the interpreter's start and imports, and ours with compiled code; for the
national scenario it is the whole command's. SimGrid is driven through its Python binding, in which every place is a thread; of 4,000
places more than half of its time went into switching between them. Calendars, computers that are off and more bundles would be more
events for it; ours takes them hour by hour.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cuntong_simulations.model.country import build
from cuntong_simulations.model.run import run as run_model
from cuntong_simulations.model.tables import tables
from cuntong_simulations.model.trials import PERFECT
from cuntong_simulations.scenario.bundles import bundles_of
from cuntong_simulations.scenario.scenario import Link, Release, Run, Scenario, Tier
from cuntong_simulations.scenario.units import Rate, Share, Size

PLACES = (100, 1_000, 10_000)
DAYS = 30
BUNDLES = 4
BUNDLE_BYTES = 10e9
CHUNKS = 6
"""Of a bundle in SimGrid: so few that it is quick, so many that completions agree."""
TOLERANCE = 0.02
"""By how much the mean and the last completion in a tier may differ."""
NATIONAL = Path("config/scenarios/national.toml")
_MBIT = 125_000.0
_MEASURE = """
import json, resource, subprocess, sys, time
began = time.perf_counter()
code = subprocess.run(sys.argv[1:], stdout=subprocess.DEVNULL).returncode
seconds, used = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
print(json.dumps([code, seconds, used.ru_utime + used.ru_stime, used.ru_maxrss * 1024]))
"""
"""A small process of its own: Linux counts into a child's peak what the process that starts it has in memory."""


def run() -> list[tuple[str, str]]:
    """Measure; takes some minutes."""
    return [*beside_simgrid(simgrid_python()), *national()]


# Beside SimGrid.


@dataclass(frozen=True, slots=True)
class Found:
    """What a program found.

    Attributes:
        program: With its version.
        seconds, cpu_s: That it took.
        done_s: When each place had each bundle, shape (places, bundles); NaN: never.
    """

    program: str
    seconds: float
    cpu_s: float
    done_s: NDArray[np.float64]


def beside_simgrid(python: str | None, sizes: Sequence[int] = PLACES) -> list[tuple[str, str]]:
    """Rows of ours and SimGrid's.

    Args:
        python: A Python that has SimGrid; None: ours only.
        sizes: How many places.

    Raises:
        RuntimeError: they don't agree, so that their times say nothing.
    """
    first = ours(tree(sizes[0]))
    rows = [("first run: compiles, or loads what is compiled", f"{first.seconds:.1f} s")]
    for places in sizes:
        scenario = tree(places)
        found = ours(scenario)
        rows.append(_row(places, found))
        if python is None:
            continue
        theirs = simgrid(python, scenario)
        apart = disagreement(scenario, found, theirs)
        if not apart <= TOLERANCE:
            raise RuntimeError(f"With {places} places, completions differ by {apart:.1%}.")
        what, figure = _row(places, theirs)
        ratio = theirs.seconds / found.seconds
        rows.append((what, f"{figure}; {ratio:.1f} times our time, completions within {apart:.1%}"))
    if python is None:
        rows.append(("SimGrid", "isn't installed; on Debian: apt install python3-simgrid"))
    return rows


def _row(places: int, found: Found) -> tuple[str, str]:
    return (
        f"{places:,} places, {DAYS} days, {BUNDLES} bundles: {found.program}",
        f"{found.seconds:.2f} s ({found.cpu_s:.2f} s of CPU),"
        f" {places * DAYS / found.seconds:,.0f} node-days/s",
    )


def tree(places: int) -> Scenario:
    """A nation, provinces, counties and villages; many counties' uplinks are too thin for all below them."""
    provinces, counties = max(2, places // 1000), max(4, places // 20)
    return Scenario(
        name="tree",
        run=Run(start=date(2027, 3, 1), days=DAYS, policy="tree"),
        tiers=[
            Tier(tier="nation", count=1, links=[_link(10_000, 10_000)]),
            Tier(tier="province", count=provinces, links=[_link(1000, 1000)]),
            Tier(tier="county", count=counties, links=[_link(4, 4, 0.6), _link(20, 10, 0.4)]),
            Tier(
                tier="village",
                count=places - 1 - provinces - counties,
                spread=Share(0.5),
                links=[_link(0.256, 0.256, 0.3), _link(0.512, 0.512, 0.5), _link(2, 0.512, 0.2)],
            ),
        ],
        releases=[Release(name="march", bundles=BUNDLES, size=Size(BUNDLES * BUNDLE_BYTES))],
        calibration=PERFECT,
    )


def _link(down_mbit: float, up_mbit: float, share: float = 1.0) -> Link:
    return Link(down=Rate(down_mbit * _MBIT), up=Rate(up_mbit * _MBIT), share=Share(share))


def ours(scenario: Scenario) -> Found:
    """The model, on one thread."""
    began, began_cpu = time.perf_counter(), time.process_time()
    country = build(scenario)
    outcome = run_model(scenario, country, bundles_of(scenario, country))
    seconds, cpu_s = time.perf_counter() - began, time.process_time() - began_cpu
    return Found("Cuntong", seconds, cpu_s, outcome.done_h.astype(np.float64) * 3600)


def simgrid_python() -> str | None:
    """A Python outside of the virtual environment that has SimGrid."""
    python = shutil.which("python3", path=os.defpath)
    if python is None:
        return None
    tried = subprocess.run([python, "-Ic", "import simgrid"], capture_output=True)
    return None if tried.returncode else python


def simgrid(python: str, scenario: Scenario) -> Found:
    """SimGrid on the same places, links and bundles."""
    country = build(scenario)
    bundles = bundles_of(scenario, country)
    links = tables(scenario, country.classes, bundles, scenario.calibration)
    given = {
        "parent": country.parent.tolist(),
        "down_bytes_s": links.down[country.node_class, 0].tolist(),
        "up_bytes_s": links.up[country.node_class, 0].tolist(),
        "size_bytes": bundles.size.astype(int).tolist(),
        "chunks": CHUNKS,
    }
    command = [python, "-I", str(Path(__file__).with_name("_simgrid.py"))]
    done = subprocess.run(command, input=json.dumps(given), stdout=subprocess.PIPE, text=True, check=True)  # fmt: skip
    found = json.loads(done.stdout)
    return Found(
        f"SimGrid {found['version']}",
        found["seconds"],
        found["cpu_s"],
        np.array(found["done_s"]),
    )


def disagreement(scenario: Scenario, one: Found, other: Found) -> float:
    """The largest relative difference in a tier's mean or last completion of a bundle; NaN if one is never done."""
    tier_of = build(scenario).tier
    found = [
        np.abs(figure(one.done_s[tier_of == tier], axis=0) / figure(other.done_s[tier_of == tier], axis=0) - 1)
        for tier in np.unique(tier_of[1:])
        for figure in (np.mean, np.max)
    ]  # fmt: skip
    return float(np.max(found))


# The national scenario.


def national() -> list[tuple[str, str]]:
    """Rows of the whole command on one thread: time and peak memory."""
    program = str(Path(sys.executable).with_name("cuntong"))
    rows = []
    for what, options in (("5 % of the counties", ["--quick"]), ("all places", [])):
        command = [program, "sim", "run", str(NATIONAL), "--threads", "1", *options]
        done = subprocess.run([sys.executable, "-Ic", _MEASURE, *command], stdout=subprocess.PIPE, text=True, check=True)  # fmt: skip
        code, seconds, cpu_s, peak_bytes = json.loads(done.stdout)
        # 1: deadlines are missed, which isn't this benchmark's business.
        if code not in (0, 1):
            raise RuntimeError(f"{NATIONAL} ended with {code}.")
        figure = f"{seconds:.1f} s ({cpu_s:.1f} s of CPU), {peak_bytes / 1e9:.2f} GB"
        rows.append((f"{NATIONAL.name}, {what}: Cuntong", figure))
    return rows


if __name__ == "__main__":
    for name, figure in run():
        print(f"{name}: {figure}")

"""The model beside SimGrid, which knows nothing of it, on one small tree. On large ones: `make bench-sim`."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from tests.benchmarks.simulation import (
    TOLERANCE,
    beside_simgrid,
    disagreement,
    ours,
    simgrid_python,
    tree,
)

PLACES = 60


def test_completions_differ_from_simgrid() -> None:
    python = simgrid_python()
    if python is None:
        pytest.skip("needs SimGrid (Debian package python3-simgrid)")
    rows = beside_simgrid(python, [PLACES])
    assert [row[0].split(": ")[1].split()[0] for row in rows[1:]] == ["Cuntong", "SimGrid"]


def test_a_place_that_is_late_or_never_done_goes_unnoticed() -> None:
    scenario = tree(PLACES)
    found = ours(scenario)
    assert disagreement(scenario, found, found) == 0
    late, never = found.done_s.copy(), found.done_s.copy()
    late[-1, -1] = found.done_s.max() * (1 + 2 * TOLERANCE)
    never[-1, -1] = np.nan
    assert disagreement(scenario, replace(found, done_s=late), found) > TOLERANCE
    assert not disagreement(scenario, replace(found, done_s=never), found) <= TOLERANCE


def test_benchmark_breaks_off_where_simgrid_is_missing() -> None:
    *_, ours_alone, (_, said) = beside_simgrid(None, [PLACES])
    assert ours_alone[0] == f"{PLACES} places, 30 days, 4 bundles: Cuntong"
    assert "apt install python3-simgrid" in said

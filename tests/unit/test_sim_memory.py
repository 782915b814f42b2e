"""The estimate of a run's memory, against a run in a process of its own."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from cuntong_simulations.model import memory
from cuntong_simulations.model.memory import estimate

SCENARIOS = Path(__file__).parents[2] / "config" / "scenarios"
_MEASURED = """
import json, sys
from pathlib import Path
from cuntong_simulations.model import memory, run
from cuntong_simulations.model.country import build
from cuntong_simulations.scenario.bundles import bundles_of
from cuntong_simulations.scenario.load import load
scenario = load(Path(sys.argv[1]), {"run.days": "45", "release.april-films.bundles": sys.argv[2]})
country = build(scenario)
bundles = bundles_of(scenario, country)
told = []
run.refuse_too_large = told.append
def peak():
    # Of this program: what `getrusage` tells begins with what the one had that started it.
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) * 1024
before = peak()
run.run(scenario, country, bundles)
print(json.dumps([told[0], before, peak()]))
"""


def measured(bundles: int) -> tuple[int, int, int]:
    """Of a province: the estimate, and the most that was resident before the run and in it."""
    done = subprocess.run(
        [sys.executable, "-c", _MEASURED, str(SCENARIOS / "province.toml"), str(bundles)],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    told, before, peak = json.loads(done.stdout)
    return told, before, peak


@pytest.mark.slow
def test_a_run_takes_about_as_much_memory_as_was_estimated() -> None:
    measured(400)  # Whatever has to be compiled is.
    told, before, peak = measured(400)
    assert before < peak
    assert 0.95 <= told / peak <= 1.4


def test_everything_that_grows_counts() -> None:
    least = estimate(1000, 50, 100, rows=100, steps=100)
    for more in (
        estimate(2000, 50, 100, rows=100, steps=100),
        estimate(1000, 60, 100, rows=100, steps=100),
        estimate(1000, 50, 200, rows=100, steps=100),
        estimate(1000, 50, 100, rows=200, steps=100),
        estimate(1000, 50, 100, rows=100, steps=200),
        estimate(1000, 50, 100, rows=100, steps=100, is_star=True),
    ):
        assert more > least


def test_what_a_program_has_already_is_not_what_it_lacks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "meminfo").write_text("MemTotal: 4000000 kB\nMemAvailable: 1000000 kB\n")
    monkeypatch.setattr(memory, "_MEMORY", tmp_path / "meminfo")
    before = memory.available_bytes()
    assert before is not None
    assert before > 1_024_000_000
    block = bytearray(b"x") * 300_000_000
    after = memory.available_bytes()
    assert after is not None
    assert after - before == pytest.approx(len(block), rel=0.1)

"""`cuntong sim calibrate` with real daemons on two very small networks, and interrupted in the middle."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from cuntong_simulations.calibration.record import read
from tests.integration.test_lab import MISSING, POLL_S, TOGETHER_S

PROGRAM = """
import sys
from cuntong_simulations.calibration import calibrate, networks
from cuntong_simulations.model.parameters import MEASURED
from cuntong_tools.main import run

def small(name, is_for_fit):
    rows = (["000000000000", "440101000000"], 8000), (["440101001001", "440101001002"], 1000)
    links = [
        {"nodes": nodes, "down_kbit_s": rate, "up_kbit_s": rate, "delay_ms": 5, "queue_ms": 250}
        for nodes, rate in rows
    ]
    return networks.TestNetwork({"name": name, "routing": "mesh", "links": links}, MEGABYTES, is_for_fit)

networks.networks = lambda seed: [small("F", True), small("T", False)]
calibrate.fit = lambda measured: MEASURED  # It takes its time; it has tests of its own.
sys.exit(run(["sim", "calibrate", *sys.argv[1:]]))
"""
"""The command, with networks whose transfer takes some seconds."""


def calibrate(
    out: Path, temporary: Path, *, megabytes: float, jobs: int = 2
) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [
            sys.executable, "-c", PROGRAM.replace("MEGABYTES", str(megabytes)),
            "--out", str(out), "--repeats", "1", "--jobs", str(jobs),
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "LANGUAGE": "en", "TMPDIR": str(temporary)},
        start_new_session=True,
    )  # fmt: skip


def skip_where_it_cannot_be(err: str) -> None:
    said = (err.strip().splitlines() or [""])[-1]
    if said.endswith(MISSING):
        pytest.skip(said.removeprefix("cuntong: "))


@pytest.mark.slow
def test_parameters_come_from_real_daemons_and_a_second_run_measures_nothing(
    tmp_path: Path,
) -> None:
    out = tmp_path / "out"
    process = calibrate(out, tmp_path, megabytes=1.5)
    said, err = process.communicate(timeout=TOGETHER_S)
    skip_where_it_cannot_be(err)
    if "(sim.not-measured)" in err and '"problems":[]' not in (
        "".join(path.read_text() for path in out.glob("runs/*/result.json"))
    ):
        pytest.skip("this machine is too busy for a measurement that counts")
    # What so short a transfer says of the model is another matter.
    assert process.returncode in (0, 1), err
    measured = read(out / "calibration.toml").measured
    assert measured is not None
    assert (measured.networks, measured.tested, measured.repeats) == (2, 1, 1)
    assert measured.versions["libtorrent"]
    assert (out / "comparison.csv").is_file()
    assert "village" in said
    assert "2 of 2 measured" in err
    again = calibrate(out, tmp_path, megabytes=1.5)
    assert again.communicate(timeout=TOGETHER_S) == (said, "")
    assert again.returncode == process.returncode
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def _working_on(folder: Path) -> list[int]:
    """Processes that have the folder in their command line."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            if os.fsencode(folder) in path.read_bytes():
                found.append(int(path.parent.name))
    return found


@pytest.fixture
def nothing_is_left(tmp_path: Path) -> Iterator[None]:
    yield
    for process in _working_on(tmp_path):
        with contextlib.suppress(ProcessLookupError):
            os.kill(process, signal.SIGKILL)


@pytest.mark.slow
@pytest.mark.usefixtures("nothing_is_left")
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGKILL])
def test_interrupted_calibration_leaves_no_process(tmp_path: Path, how: signal.Signals) -> None:
    process = calibrate(tmp_path / "out", tmp_path, megabytes=100.0)
    deadline = time.monotonic() + TOGETHER_S
    while len([*tmp_path.glob("cuntong-lab-*/places/*")]) < 2:
        if process.poll() is not None:
            _out, err = process.communicate()
            skip_where_it_cannot_be(err)
            pytest.fail(err)
        assert time.monotonic() < deadline, "no laboratory begins"
        time.sleep(POLL_S)
    os.kill(process.pid, how)
    process.communicate(timeout=TOGETHER_S)
    expected = {signal.SIGINT: 130, signal.SIGKILL: -signal.SIGKILL}
    assert process.returncode == expected.get(how, 128 + how)
    while _working_on(tmp_path):
        assert time.monotonic() < deadline, "some of its processes go on"
        time.sleep(POLL_S)
    if how != signal.SIGKILL:
        assert [*tmp_path.glob("cuntong-lab-*")] == []

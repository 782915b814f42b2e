"""Sweeps on a Dask cluster: a real scheduler and real workers, as processes on this machine."""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from importlib import metadata
from pathlib import Path

import msgspec
import pytest

from cuntong_protocol.errors import CuntongError, Fault
from cuntong_protocol.texts import N_
from cuntong_simulations.model.errors import ModelError
from cuntong_simulations.results import sweep
from cuntong_simulations.results.findings import Findings
from cuntong_simulations.results.simulate import Wanted, findings_of
from cuntong_simulations.results.write import digest

needs_dask = pytest.mark.skipif(
    importlib.util.find_spec("distributed") is None,
    reason="dask.distributed isn't installed (the extra cuntong[dask])",
)
ROOT = Path(__file__).parents[2]
COUNTY = ROOT / "config" / "scenarios" / "county.toml"
PACKAGES = ("daemon", "protocol", "simulations", "tools")
PATIENCE_S = 120


def paths(before: Path | None = None) -> str:
    return os.pathsep.join(str(one) for one in (before, *(ROOT / name for name in PACKAGES)) if one)


class Cluster:
    """A scheduler, and workers that are started when they are wanted."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._started: list[subprocess.Popen[bytes]] = []
        file = folder / "scheduler.json"
        self._start(
            "scheduler", "--host", "127.0.0.1", "--port", "0", "--no-dashboard",
            "--scheduler-file", str(file),
        )  # fmt: skip
        self._wait_for(file.exists)
        self.address: str = json.loads(file.read_text("utf-8"))["address"]

    def worker(self, before: Path | None = None) -> subprocess.Popen[bytes]:
        """Without a nanny: who dies stays dead. `before`: where its packages are looked for first."""
        folder = self._folder / f"worker{len(self._started)}"
        started = self._start(
            "worker", self.address, "--nthreads", "1", "--no-nanny", "--no-dashboard",
            "--name", folder.name, "--local-directory", str(folder), before=before,
        )  # fmt: skip
        import distributed

        with distributed.Client(self.address, timeout=PATIENCE_S) as client:
            client.wait_for_workers(len(self._started) - 1, timeout=PATIENCE_S)
        return started

    def stop(self) -> None:
        for process in reversed(self._started):
            process.kill()
            process.wait()

    def _start(self, kind: str, *words: str, before: Path | None = None) -> subprocess.Popen[bytes]:
        told = (self._folder / f"{kind}{len(self._started)}.log").open("wb")
        with told:
            process = subprocess.Popen(
                [sys.executable, "-m", "dask", kind, *words],
                env=os.environ | {"PYTHONPATH": paths(before)}, stdout=told, stderr=told,
            )  # fmt: skip
        self._started.append(process)
        return process

    def _wait_for(self, is_so: Callable[[], bool]) -> None:
        until = time.monotonic() + PATIENCE_S
        while not is_so():
            assert time.monotonic() < until, [one.read_text() for one in self._folder.glob("*.log")]
            time.sleep(0.1)


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    made = Cluster(tmp_path)
    yield made
    made.stop()


def runs(file: Path = COUNTY, **settings: str) -> list[Wanted]:
    return [
        Wanted(file=file, settings=settings | {"run.policy": policy}, seed=seed, threads=1)
        for policy in ("tree", "swarm", "star")
        for seed in (1, 2)
    ]


def figures(findings: Findings) -> str:
    """All but when it was run, and how fast."""
    manifest = msgspec.structs.replace(findings.manifest, ended_at="", seconds=0.0)
    return repr(msgspec.structs.replace(findings, manifest=manifest))


def refused(cluster: Cluster, tasks: list[Wanted]) -> str:
    with pytest.raises(CuntongError) as caught:
        list(sweep.on_cluster(findings_of, tasks, cluster.address))
    return caught.value.code


@needs_dask
def test_a_worker_that_is_killed_in_the_middle_changes_no_bit(cluster: Cluster) -> None:
    first, _second = cluster.worker(), cluster.worker()
    tasks = runs()
    found: dict[int, str] = {}
    for place, findings in sweep.on_cluster(findings_of, tasks, cluster.address):
        if not found:
            first.send_signal(signal.SIGKILL)
        found[place] = figures(findings)
    assert found == {place: figures(findings_of(task)) for place, task in enumerate(tasks)}


@needs_dask
def test_without_workers_a_sweep_does_not_wait_for_ever(cluster: Cluster) -> None:
    assert refused(cluster, runs()) == "sim.dask-no-workers"


@needs_dask
@pytest.mark.parametrize("address", ["tcp://127.0.0.1:1", "127.0.0.1", ""])
def test_at_a_wrong_address_a_sweep_ends_with_a_sentence(address: str) -> None:
    # In a process of its own: of a client that never was there Dask leaves something behind that the next one may wait for.
    done = subprocess.run(
        [
            sys.executable, "-m", "cuntong_tools", "sim", "sweep", str(COUNTY),
            "--set", "run.policy=tree", "--dask", address,
        ],
        env=os.environ | {"PYTHONPATH": paths(), "LANGUAGE": "en"}, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    assert done.returncode == Fault.USAGE.value
    assert (done.stdout, done.stderr.count("\n")) == ("", 1)
    assert done.stderr.endswith("(sim.dask-unreachable)\n")


@needs_dask
def test_a_worker_with_another_version_gets_no_run(cluster: Cluster, tmp_path: Path) -> None:
    other = tmp_path / "cuntong-0.0.1.dist-info"
    other.mkdir()
    (other / "METADATA").write_text("Metadata-Version: 2.1\nName: cuntong\nVersion: 0.0.1\n")
    cluster.worker(before=tmp_path)
    assert refused(cluster, runs()) == "sim.dask-version"


@needs_dask
def test_what_refuses_a_run_on_a_worker_is_told_in_its_own_words(cluster: Cluster, tmp_path: Path) -> None:  # fmt: skip
    cluster.worker()
    (tmp_path / "places.csv").write_text("code\n1101\n")
    file = tmp_path / "broken.toml"
    file.write_text(COUNTY.read_text("utf-8") + '\n[places]\nfile = "places.csv"\n', "utf-8")
    assert refused(cluster, runs(file)) == "sim.broken-row"


def test_a_worker_with_other_files_refuses() -> None:
    task = runs()[0]
    for version, sha256, code in (
        ("0.0.1", digest(task.scenario()), "sim.dask-version"),
        (metadata.version("cuntong"), "0" * 64, "sim.dask-scenario"),
    ):
        with pytest.raises(CuntongError) as caught:
            sweep._run_same(findings_of, task, sweep._Same(version, sha256))
        assert caught.value.code == code
    gone = runs(COUNTY.with_name("none.toml"))[0]
    with pytest.raises(CuntongError) as caught:
        sweep._run_same(findings_of, gone, sweep._Same(metadata.version("cuntong"), "0" * 64))
    assert caught.value.code == "sim.dask-scenario"


def too_large(_: int) -> None:
    raise ModelError("sim.too-large", N_("This is {size} too large."), size=3)


def test_what_refuses_a_run_in_another_process_is_told_in_its_own_words() -> None:
    with pytest.raises(ModelError, match="This is 3 too large") as caught:
        list(sweep.on_processes(too_large, [1, 2], jobs=2))
    assert (caught.value.code, caught.value.fault) == ("sim.too-large", ModelError.fault)

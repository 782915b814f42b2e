"""Real daemons on the small networks: each measurement is a `cuntong sim lab run` of its own, and lies in a folder."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from cuntong_protocol.errors import Fault
from cuntong_protocol.texts import N_
from cuntong_simulations.lab.errors import LabError
from cuntong_simulations.lab.result import Result

from .networks import TestNetwork

LIMIT_FACTOR = 2.5
"""A network that takes so many times its bound is broken, not slow."""
ATTEMPTS = 3
"""Of one measurement, while it fails, or the machine is too busy for it to count."""
POLL_S = 0.5
GRACE_S = 30.0
"""For a laboratory to end its daemons and remove its folder."""


@dataclass(frozen=True, slots=True)
class Measurement:
    """One repeat on one network, and the folder for it."""

    network: TestNetwork
    repeat: int
    folder: Path

    @property
    def result(self) -> Result | None:
        """What was found; None: it hasn't been measured, or doesn't count."""
        found = self.read()
        if found is None or found.machine.problems or found.last_s is None:
            return None
        return found

    def read(self) -> Result | None:
        """What lies in the folder, whether it counts or not."""
        with suppress(OSError, msgspec.MsgspecError):
            return msgspec.json.decode((self.folder / "result.json").read_bytes(), type=Result)
        return None

    def is_of(self, found: Result) -> bool:
        """Whether it was this network that was measured."""
        return (
            found.topology == self.network.topology
            and found.scenario.payload.random_mb == self.network.payload_mb
        )


def measurements(networks: Iterable[TestNetwork], repeats: int, out: Path) -> list[Measurement]:
    """All that are wanted, whether they were made or not."""
    return [
        Measurement(network, repeat, out / "runs" / f"{network.name}-{repeat}")
        for repeat in range(1, repeats + 1)
        for network in networks
    ]


def check_folder(wanted: Iterable[Measurement]) -> None:
    """See that nothing that was measured would be lost.

    Raises:
        LabError: `sim.other-networks`: it holds measurements of networks that only have the same names.
    """
    for one in wanted:
        found = one.read()
        if found is not None and not one.is_of(found):
            raise LabError(
                "sim.other-networks",
                N_(
                    "{folder} holds a measurement of another network; name another folder, or the seed of this one."
                ),
                fault=Fault.USAGE,
                folder=str(one.folder),
            )


def measure(
    wanted: Iterable[Measurement],
    *,
    jobs: int,
    tell: Callable[[Measurement, str], None],
    watch: Callable[[], None] = lambda: None,
) -> None:
    """Make those that weren't made yet; what is interrupted is gone on with next time.

    Whatever ends this, ends all that it started.

    Args:
        wanted: All.
        jobs: At the same time. Each takes about half a core.
        tell: Is told of each: `begun`, `done`, or `again` when it failed or didn't count.
        watch: Is called twice a second.

    Raises:
        LabError: `sim.not-measured`: one failed again and again; the others were made.
        KeyboardInterrupt, SystemExit: it was asked to end.
    """
    waiting = [(one, 1) for one in wanted if one.result is None]
    running: list[tuple[Measurement, int, subprocess.Popen[bytes]]] = []
    failed: list[Measurement] = []
    with _asked_to_end() as asked:
        try:
            while waiting or running:
                while waiting and len(running) < jobs and not asked:
                    one, attempt = waiting.pop(0)
                    tell(one, "begun")
                    running.append((one, attempt, _start(one)))
                for entry in list(running):
                    one, attempt, process = entry
                    if process.poll() is None:
                        continue
                    running.remove(entry)
                    if one.result is not None:
                        tell(one, "done")
                    elif attempt < ATTEMPTS:
                        tell(one, "again")
                        waiting.append((one, attempt + 1))
                    else:
                        failed.append(one)
                _end_if(asked)
                watch()
                time.sleep(POLL_S)
        finally:
            _stop([process for _one, _attempt, process in running])
    if failed:
        raise LabError(
            "sim.not-measured",
            N_(
                "The measurement in {folder} failed; its file output.txt says why. Run the command again to go on."
            ),
            folder=str(failed[0].folder),
        )


@contextmanager
def _asked_to_end() -> Iterator[list[int]]:
    """Signals that ask for the end are collected, so that it begins where everything that runs is known.

    What is ignored (nohup, the background of a shell) stays ignored.
    """
    asked: list[int] = []
    before = {
        number: signal.getsignal(number)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    }
    try:
        for number, how in before.items():
            if how != signal.SIG_IGN:
                signal.signal(number, lambda got, _frame: asked.append(got))
        yield asked
    finally:
        for number, how in before.items():
            signal.signal(number, how)


def _end_if(asked: list[int]) -> None:
    if signal.SIGINT in asked:
        raise KeyboardInterrupt
    if asked:
        sys.exit(128 + asked[0])


def _stop(processes: list[subprocess.Popen[bytes]]) -> None:
    """End laboratories with all that they started.

    Each is a process group: `unshare` itself doesn't hear SIGTERM, what runs inside does, and cleans up. With SIGKILL the
    kernel ends a whole process namespace.
    """
    for how in (signal.SIGTERM, signal.SIGKILL):
        for process in processes:
            if process.poll() is None:
                os.killpg(process.pid, how)
        deadline = time.monotonic() + GRACE_S
        for process in processes:
            with suppress(subprocess.TimeoutExpired):
                process.wait(max(0.0, deadline - time.monotonic()))


def _start(one: Measurement) -> subprocess.Popen[bytes]:
    one.folder.mkdir(parents=True, exist_ok=True)
    topology, scenario = one.folder / "topology.toml", one.folder / "scenario.toml"
    topology.write_text("\n".join(_lines(one.network.tables)) + "\n", encoding="utf-8")
    written: dict[str, Any] = {
        "name": one.network.name,
        "pings": "none",
        "baseline_s": 0,
        "limit_s": round(one.network.bound_s * LIMIT_FACTOR),
        "payload": [{"random_mb": one.network.payload_mb}],
    }
    text = "\n".join(_lines(written)).replace("[[payload]]", "[payload]")
    scenario.write_text(text + "\n", encoding="utf-8")
    # Even when this process is killed, so that it can't end anything, nothing goes on.
    with_us = ["setpriv", "--pdeathsig", "KILL"] if shutil.which("setpriv") else []
    with (one.folder / "output.txt").open("wb") as output:
        return subprocess.Popen(
            [
                *with_us, sys.executable, "-m", "cuntong_tools", "sim", "lab", "run", str(topology),
                "--scenario", str(scenario), "--seed", str(one.repeat), "--out", str(one.folder),
            ],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )  # fmt: skip


def _lines(tables: dict[str, Any]) -> Iterator[str]:
    """TOML of plain values and of lists of flat tables, which is all that a topology has."""
    nested = {key: value for key, value in tables.items() if _is_tables(value)}
    for key, value in tables.items():
        if key not in nested:
            yield f"{key} = {msgspec.json.encode(value).decode()}"
    for key, found in nested.items():
        for table in found:
            yield f"\n[[{key}]]"
            yield from _lines(table)


def _is_tables(value: object) -> bool:
    return isinstance(value, list) and bool(value) and isinstance(value[0], dict)

"""Real daemons on the small networks: each measurement is a `cuntong sim lab run` of its own, and lies in a folder."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from cuntong_protocol.texts import N_
from cuntong_simulations.lab.errors import LabError
from cuntong_simulations.lab.result import Result

from .networks import TestNetwork

LIMIT_FACTOR = 2.5
"""A network that takes so many times its bound is broken, not slow."""
ATTEMPTS = 3
"""Of one measurement, while the machine is too busy for it to count."""
POLL_S = 0.5


@dataclass(frozen=True, slots=True)
class Measurement:
    """One repeat on one network, and the folder for it."""

    network: TestNetwork
    repeat: int
    folder: Path

    @property
    def result(self) -> Result | None:
        """What was found; None: it hasn't been measured, or doesn't count."""
        with suppress(OSError, msgspec.MsgspecError):
            found = msgspec.json.decode((self.folder / "result.json").read_bytes(), type=Result)
            if not found.machine.problems and found.last_s is not None:
                return found
        return None


def measurements(networks: Iterable[TestNetwork], repeats: int, out: Path) -> list[Measurement]:
    """All that are wanted, whether they were made or not."""
    return [
        Measurement(network, repeat, out / "runs" / f"{network.name}-{repeat}")
        for repeat in range(1, repeats + 1)
        for network in networks
    ]


def measure(
    wanted: Iterable[Measurement], *, jobs: int, tell: Callable[[Measurement, str], None]
) -> None:
    """Make those that weren't made yet; what is interrupted is gone on with next time.

    Args:
        jobs: At the same time. Each takes about half a core.
        tell: Is told of each: `begun`, `done`, or `again` when it didn't count.

    Raises:
        LabError: `sim.not-measured`: one ended with an error, or never counted.
    """
    waiting = [(one, 1) for one in wanted if one.result is None]
    running: list[tuple[Measurement, int, subprocess.Popen[bytes]]] = []
    try:
        while waiting or running:
            while waiting and len(running) < jobs:
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
                elif process.returncode == 0 and attempt < ATTEMPTS:
                    tell(one, "again")
                    waiting.append((one, attempt + 1))
                else:
                    raise LabError(
                        "sim.not-measured",
                        N_(
                            "The measurement in {folder} failed; its file output.txt says why. Run the command again to go on."
                        ),
                        folder=str(one.folder),
                    )
            time.sleep(POLL_S)
    finally:
        for _one, _attempt, process in running:
            process.terminate()
        for _one, _attempt, process in running:
            process.wait()


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
    with (one.folder / "output.txt").open("wb") as output:
        return subprocess.Popen(
            [
                sys.executable, "-m", "cuntong_tools", "sim", "lab", "run", str(topology),
                "--scenario", str(scenario), "--seed", str(one.repeat), "--out", str(one.folder),
            ],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
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

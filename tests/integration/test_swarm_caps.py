"""A village's cap on the wire, over every private range that a VPN may use, and a limit that falls to almost nothing."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CAP = 8_000
"""64 kbit/s."""

Packets = list[tuple[float, int]]


NETWORKS = ["10.64.9.0/24", "100.64.9.0/24", "fc00:9::/64"]
RUNS = {network: (network, f"{CAP}:12") for network in NETWORKS}
RUNS["falling"] = (NETWORKS[0], "1250000:2", "2000:13")


@pytest.fixture(scope="module")
def wires(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Packets, list[float]]]:
    """What `tests.support.caps` saw, in namespaces side by side: packets, and when each cap was set."""
    if shutil.which("ip") is None or shutil.which("unshare") is None:
        pytest.skip("needs ip (Debian package iproute2) and unshare (util-linux)")
    unshare = ["unshare", "--net", *([] if os.geteuid() == 0 else ["--user", "--map-root-user"])]
    tried = subprocess.run([*unshare, "true"], capture_output=True, text=True, check=False)
    if tried.returncode:
        pytest.skip(f"this machine gives nobody a network namespace: {tried.stderr.strip()}")
    command = [*unshare, sys.executable, "-m", "tests.support.caps"]
    running = {
        name: subprocess.Popen(
            [*command, str(tmp_path_factory.mktemp("caps")), *arguments],
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
        )
        for name, arguments in RUNS.items()
    }
    found = {}
    for name, process in running.items():
        output, _ = process.communicate()
        assert process.returncode == 0, name
        seen = json.loads(output)
        found[name] = [(at, size) for at, size in seen["packets"]], seen["moments"]
    return found


def most(packets: Packets, seconds: float) -> float:
    """The most bytes/s over any stretch of so many seconds."""
    found, first, total = 0, 0, 0
    for at, size in packets:
        total += size
        while packets[first][0] <= at - seconds:
            total -= packets[first][1]
            first += 1
        found = max(found, total)
    return found / seconds


@pytest.mark.parametrize("network", NETWORKS)
def test_a_cap_holds_over_any_stretch(
    wires: dict[str, tuple[Packets, list[float]]], network: str
) -> None:
    packets, _ = wires[network]
    assert most(packets, 1) <= CAP * 1.25
    assert most(packets, 10) <= CAP * 1.1
    assert sum(size for _, size in packets) >= CAP * 0.9 * packets[-1][0], "and it is used"


def test_a_limit_that_falls_from_10_mbit_s_to_16_kbit_s_leaves_no_silence(
    wires: dict[str, tuple[Packets, list[float]]],
) -> None:
    packets, (_, fell) = wires["falling"]
    assert sum(size for at, size in packets if at < fell) > 500_000
    assert max(later - sooner for (sooner, _), (later, _) in pairwise(packets)) < 3
    settled = [(at, size) for at, size in packets if at > fell + 2]
    assert most(settled, 10) <= 2_000 * 1.1

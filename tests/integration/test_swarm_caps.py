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


def wire(tmp_path: Path, network: str, *steps: str) -> tuple[Packets, list[float]]:
    """What `tests.support.caps` saw."""
    if shutil.which("ip") is None or shutil.which("unshare") is None:
        pytest.skip("needs ip (Debian package iproute2) and unshare (util-linux)")
    unshare = ["unshare", "--net", *([] if os.geteuid() == 0 else ["--user", "--map-root-user"])]
    tried = subprocess.run([*unshare, "true"], capture_output=True, text=True, check=False)
    if tried.returncode:
        pytest.skip(f"this machine gives nobody a network namespace: {tried.stderr.strip()}")
    command = [*unshare, sys.executable, "-m", "tests.support.caps", str(tmp_path), network, *steps]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    seen = json.loads(done.stdout)
    return [(at, size) for at, size in seen["packets"]], seen["moments"]


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


@pytest.mark.parametrize("network", ["10.64.9.0/24", "100.64.9.0/24", "fc00:9::/64"])
def test_a_cap_holds_over_any_stretch(tmp_path: Path, network: str) -> None:
    packets, _ = wire(tmp_path, network, f"{CAP}:15")
    assert most(packets, 1) <= CAP * 1.25
    assert most(packets, 10) <= CAP * 1.1
    assert sum(size for _, size in packets) >= CAP * 0.9 * packets[-1][0], "and it is used"


def test_a_limit_that_falls_from_10_mbit_s_to_16_kbit_s_leaves_no_silence(tmp_path: Path) -> None:
    packets, (_, fell) = wire(tmp_path, "10.64.9.0/24", "1250000:3", "2000:14")
    assert sum(size for at, size in packets if at < fell) > 1_250_000
    assert max(later - sooner for (sooner, _), (later, _) in pairwise(packets)) < 3
    settled = [(at, size) for at, size in packets if at > fell + 2]
    assert most(settled, 10) <= 2_000 * 1.1

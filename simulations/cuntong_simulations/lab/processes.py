"""What processes cost, from /proc."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_TICKS_PER_S = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class Cost:
    """At one time: processor seconds so far and the highest resident memory."""

    at: float
    cpu_s: float
    peak_bytes: int


def cost_of(pid: int) -> Cost:
    """What a process has cost so far; zeros when it is gone."""
    now = time.monotonic()
    try:
        # The name in brackets may hold spaces.
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return Cost(now, 0.0, 0)
    peak = next((line.split()[1] for line in status.splitlines() if line.startswith("VmHWM")), "0")
    return Cost(now, (int(fields[11]) + int(fields[12])) / _TICKS_PER_S, int(peak) * 1024)


@dataclass(slots=True)
class Busy:
    """Share of all cores that was in use, 0 to 1."""

    share: float = 0.0


@contextlib.contextmanager
def busy_share() -> Iterator[Busy]:
    """Measure how busy the whole machine is in the block."""
    found = Busy()
    idle, total = _machine()
    try:
        yield found
    finally:
        idle_after, total_after = _machine()
        found.share = 1 - (idle_after - idle) / max(1, total_after - total)


def _machine() -> tuple[int, int]:
    """Ticks that were idle, and all."""
    numbers = [int(word) for word in Path("/proc/stat").read_text().split("\n")[0].split()[1:9]]
    return numbers[3] + numbers[4], sum(numbers)

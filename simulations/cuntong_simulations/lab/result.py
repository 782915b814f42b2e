"""What a run found: everything that a report or a comparison needs, as one JSON document."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from .scenario import Scenario
from .topology import Topology

VERSION = 1


class Check(msgspec.Struct, frozen=True, kw_only=True):
    """One thing the emulator had to prove about itself."""

    name: str
    expected: float
    measured: float
    tolerance: float
    unit: str

    @property
    def is_met(self) -> bool:
        return abs(self.measured - self.expected) <= self.tolerance


class Machine(msgspec.Struct, frozen=True, kw_only=True):
    """Whether the machine kept up.

    Attributes:
        emulator_cpu: Share of one core, over the run.
        busy: Share of all cores that was used, while the payload was on its way.
        kernel_drops: Packets that the emulator didn't fetch in time.
        problems: Why the run doesn't count; empty when it does.
    """

    lateness_p50_ms: float
    lateness_p99_ms: float
    lateness_max_ms: float
    is_real_time: bool
    emulator_cpu: float
    busy: float
    kernel_drops: int
    problems: list[str] = []


class Completion(msgspec.Struct, frozen=True, kw_only=True):
    """When a place had the payload; seconds since the publication began, `None`: it didn't.

    Attributes:
        used: What crossed its downlink of what that could carry, from the first busy second on.
        longest_stall_s: For so long nothing came although the link was there.
    """

    code: str
    tier: str
    seconds: float | None
    bound_s: float
    used: float = 0.0
    longest_stall_s: float = 0.0


class LinkUse(msgspec.Struct, frozen=True, kw_only=True):
    """One direction of an access link.

    Attributes:
        bytes: IP bytes since the publication began; `packets`, `overflowed`, `lost` likewise.
        copies: The same in payloads, less what the foreground took.
        wait_p50_ms: Queueing delay over the whole run.
        series: For each second since the publication began: kbit/s, mean and highest queueing delay in ms.
    """

    code: str
    direction: str
    rate_kbit_s: float
    bytes: int
    packets: int
    overflowed: int
    lost: int
    copies: float
    wait_p50_ms: float
    wait_p95_ms: float
    series: list[tuple[float, float, float, float]] = []


class Spread(msgspec.Struct, frozen=True, kw_only=True):
    """The middle and the tail of some observations; zeros when there were none."""

    count: int = 0
    failed: int = 0
    p50: float = 0.0
    p95: float = 0.0
    highest: float = 0.0


class Foreground(msgspec.Struct, frozen=True, kw_only=True):
    """What the public at one place saw: before the publication, and from this place's turn until it was done.

    Attributes:
        begun_s: When its turn came, seconds since the publication.
        page_s: Seconds a page took; `rtt_ms` of pings; `bulk_kbit_s` of a download, by the second.
        pages: Each page: when it began (seconds since the publication) and what it took.
    """

    code: str
    begun_s: float = 0.0
    idle_page_s: Spread = Spread()
    page_s: Spread = Spread()
    idle_rtt_ms: Spread = Spread()
    rtt_ms: Spread = Spread()
    idle_bulk_kbit_s: float = 0.0
    bulk_kbit_s: float = 0.0
    bytes_down: int = 0
    pages: list[tuple[float, float]] = []
    rtts: list[tuple[float, float, float, float]] = []


class Daemon(msgspec.Struct, frozen=True, kw_only=True):
    """What a daemon cost while the payload was on its way: share of one core, peak resident MiB."""

    code: str
    cpu: float
    peak_mib: float


class Result(msgspec.Struct, frozen=True, kw_only=True):
    """One run.

    Attributes:
        contender: What moved the payload.
        payload_bytes: As it crosses links, before headers; `content_bytes` as it was on the disk.
        last_s: When the last of the deepest tier had it; `None`: not within the limit.
        bound_s: When it could have had it.
        copies_out: Payloads that left the source, without the foreground.
        commanded_s: How long the publishing command took.
    """

    version: int = VERSION
    contender: str
    topology: Topology
    scenario: Scenario
    seed: int
    began_at: str
    payload_bytes: int
    content_bytes: int
    last_s: float | None
    bound_s: float
    copies_out: float
    commanded_s: float
    completions: list[Completion]
    links: list[LinkUse]
    foreground: list[Foreground] = []
    daemons: list[Daemon] = []
    proof: list[Check] = []
    machine: Machine
    notes: dict[str, Any] = {}


def percentile(values: Sequence[float], share: float) -> float:
    """By linear interpolation between the nearest two; 0 without values."""
    if not values:
        return 0.0
    found = sorted(values)
    at = (len(found) - 1) * share
    low = int(at)
    high = min(low + 1, len(found) - 1)
    return found[low] + (found[high] - found[low]) * (at - low)


def spread(values: Sequence[float]) -> Spread:
    """Of observations, of which negative ones failed."""
    good = [value for value in values if value >= 0]
    return Spread(
        count=len(good),
        failed=len(values) - len(good),
        p50=percentile(good, 0.5),
        p95=percentile(good, 0.95),
        highest=max(good, default=0.0),
    )

"""From what was recorded to a result; pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from .bounds import last_bound_s, place_bound_s
from .carried import Capacity, longest_stall_s, used_share
from .emulator import Sample
from .links import percentile_ms
from .probes import Seen
from .recorder import Recorder
from .result import (
    Check,
    Completion,
    Daemon,
    Foreground,
    LinkUse,
    Machine,
    Result,
    percentile,
    spread,
)
from .scenario import PAGE_BYTES, Scenario
from .topology import Node, Topology

LATENESS_LIMIT_MS = 2.0
"""A packet of 1,500 bytes takes 3 ms at 4 Mbit/s: what is later by less doesn't change a result."""
SEGMENT_BYTES = 1448
SEGMENT_HEADERS = 52
"""IPv4 and TCP with timestamps."""
PAGE_WIRE_BYTES = PAGE_BYTES + SEGMENT_HEADERS * (PAGE_BYTES // SEGMENT_BYTES + 4)
"""With connection set-up and end; acknowledgements go the other way."""
PING_WIRE_BYTES = 84
Direction = Literal["up", "down"]


def analyse(
    topology: Topology,
    scenario: Scenario,
    *,
    contender: str,
    seed: int,
    began_at: str,
    content_bytes: int,
    payload_bytes: int,
    recorder: Recorder,
    samples: Sequence[Sample],
    seen: Sequence[Seen],
    proof: Sequence[Check],
    kernel_drops: int,
) -> Result:
    """Put everything together; `samples` are the emulator's, the last one with histograms."""
    foreground = _foreground(topology, recorder, seen)
    taken = {found.code: found.bytes_down for found in foreground}
    links = _links(topology, recorder, samples, payload_bytes, taken)
    start = recorder.published
    completions = [
        _completion(
            topology, scenario, recorder, links, node, payload_bytes + taken.get(node.code, 0)
        )
        for node in topology.receivers
    ]
    deepest = topology.last_tier[0].tier.label
    last = [found.seconds for found in completions if found.tier == deepest]
    source_up = next(
        found for found in links if found.code == topology.source and found.direction == "up"
    )
    return Result(
        contender=contender,
        topology=topology,
        scenario=scenario,
        seed=seed,
        began_at=began_at,
        payload_bytes=payload_bytes,
        content_bytes=content_bytes,
        last_s=None if None in last else max(found for found in last if found is not None),
        bound_s=max(
            last_bound_s(topology, payload_bytes), *(found.bound_s for found in completions)
        ),
        copies_out=source_up.copies,
        commanded_s=recorder.commanded - start,
        completions=completions,
        links=links,
        foreground=foreground,
        daemons=[
            Daemon(
                code=code,
                cpu=(after.cpu_s - before.cpu_s) / max(0.001, after.at - before.at),
                peak_mib=after.peak_bytes / 2**20,
            )
            for code, (before, after) in recorder.costs.items()
        ],
        proof=list(proof),
        machine=_machine(samples, recorder, proof, kernel_drops),
    )


def _completion(
    topology: Topology,
    scenario: Scenario,
    recorder: Recorder,
    links: Sequence[LinkUse],
    node: Node,
    needed_bytes: int,
) -> Completion:
    done = recorder.done.get(node.code)
    until = (recorder.ended if done is None else done) - recorder.published
    series = next(
        found.series for found in links if found.code == node.code and found.direction == "down"
    )
    capacity = Capacity(topology, scenario, node)
    return Completion(
        code=node.code,
        tier=node.tier.label,
        seconds=None if done is None else until,
        bound_s=place_bound_s(topology, node, needed_bytes),
        used=used_share(capacity, series, until),
        longest_stall_s=longest_stall_s(capacity, series, until),
    )


def _machine(
    samples: Sequence[Sample], recorder: Recorder, proof: Sequence[Check], kernel_drops: int
) -> Machine:
    last = samples[-1]
    problems = [f"proof: {check.name}" for check in proof if not check.is_met]
    if last.lateness.p99_ms > LATENESS_LIMIT_MS:
        problems.append("lateness")
    if kernel_drops:
        problems.append("kernel drops")
    return Machine(
        lateness_p50_ms=last.lateness.p50_ms,
        lateness_p99_ms=last.lateness.p99_ms,
        lateness_max_ms=last.lateness.max_ms,
        is_real_time=last.is_real_time,
        emulator_cpu=last.cpu_s / max(1.0, last.at - samples[0].at),
        busy=recorder.busy,
        kernel_drops=kernel_drops,
        problems=problems,
    )


def _at(samples: Sequence[Sample], moment: float) -> int:
    """The first sample at or after a moment; the last one when there is none."""
    return next((at for at, found in enumerate(samples) if found.at >= moment), len(samples) - 1)


def _links(
    topology: Topology,
    recorder: Recorder,
    samples: Sequence[Sample],
    payload_bytes: int,
    taken: dict[str, int],
) -> list[LinkUse]:
    first, last = _at(samples, recorder.published), _at(samples, recorder.ended)
    waits = samples[-1].waits or []
    found = []
    for number, (node, direction) in enumerate(
        (node, direction) for node in topology.nodes for direction in ("up", "down")
    ):
        begin, end = samples[first].directions[number], samples[last].directions[number]
        used = end.bytes - begin.bytes
        if direction == "down":
            foreground = taken.get(node.code, 0)
        else:
            foreground = sum(taken.values()) if node.code == topology.source else 0
        series = []
        for before, after in zip(samples[first:last], samples[first + 1 : last + 1], strict=True):
            now = after.directions[number]
            bits = (now.bytes - before.directions[number].bytes) * 8
            series.append(
                (
                    round(after.at - recorder.published, 2),
                    round(bits / (after.at - before.at) / 1000, 1),
                    round(now.wait_mean_ms, 2),
                    round(now.wait_peak_ms, 2),
                )
            )
        found.append(
            LinkUse(
                code=node.code,
                direction=direction,
                rate_kbit_s=node.link.down_kbit_s if direction == "down" else node.link.up_kbit_s,
                bytes=used,
                packets=end.packets - begin.packets,
                overflowed=end.overflowed - begin.overflowed,
                lost=end.lost - begin.lost,
                copies=round((used - foreground) / max(1, payload_bytes), 4),
                wait_p50_ms=percentile_ms(waits[number], 0.5) if waits else 0.0,
                wait_p95_ms=percentile_ms(waits[number], 0.95) if waits else 0.0,
                series=series,
            )
        )
    return found


def _foreground(topology: Topology, recorder: Recorder, seen: Sequence[Seen]) -> list[Foreground]:
    """By place: before the publication against the time until this place had the payload."""
    start = recorder.published
    by_place: dict[str, dict[str, list[Seen]]] = {}
    for one in seen:
        by_place.setdefault(one.code, {}).setdefault(one.kind, []).append(one)
    found = []
    for code, kinds in sorted(by_place.items()):
        begin, end = recorder.begun.get(code, start), recorder.done.get(code, recorder.ended)
        pages, pings = kinds.get("page", []), kinds.get("ping", [])
        bulk = kinds.get("bulk", [])
        during = [one for one in pages if begin <= one.at < end]
        pinged = [one for one in pings if begin <= one.at < end]
        moved = [one for one in bulk if start <= one.at < end]
        found.append(
            Foreground(
                code=code,
                begun_s=begin - start,
                # A page that the publication overtakes belongs to neither side.
                idle_page_s=spread([one.value for one in pages if one.at + one.value < start]),
                page_s=spread([one.value for one in during]),
                idle_rtt_ms=spread([one.value * 1000 for one in pings if one.at < start - 0.5]),
                rtt_ms=spread([one.value * 1000 for one in pinged]),
                idle_bulk_kbit_s=_rate(bulk, recorder.began, start),
                bulk_kbit_s=_rate(bulk, begin, end),
                bytes_down=int(
                    PAGE_WIRE_BYTES * sum(start <= one.at < end for one in pages if one.value >= 0)
                    + PING_WIRE_BYTES * sum(start <= one.at < end for one in pings)
                    + sum(one.value for one in moved) * (1 + SEGMENT_HEADERS / SEGMENT_BYTES)
                ),
                pages=[(round(one.at - start, 2), round(one.value, 3)) for one in pages],
                rtts=_rtt_series(pings, start),
            )
        )
    return found


def _rate(bulk: Sequence[Seen], begin: float, end: float) -> float:
    """kbit/s of a download between two moments, after its slow start."""
    inside = [one for one in bulk if begin <= one.at < end]
    if len(inside) < 2:
        return 0.0
    seconds = inside[-1].at - inside[0].at
    return sum(one.value for one in inside[:-1]) * 8 / 1000 / seconds


def _rtt_series(pings: Sequence[Seen], start: float) -> list[tuple[float, float, float, float]]:
    """For each two seconds: when, middle, highest, lost."""
    buckets: dict[int, list[float]] = {}
    for one in pings:
        buckets.setdefault(int((one.at - start) // 2), []).append(one.value)
    series: list[tuple[float, float, float, float]] = []
    for bucket, values in sorted(buckets.items()):
        good: list[Any] = [value * 1000 for value in values if value >= 0]
        series.append(
            (
                bucket * 2.0,
                round(percentile(good, 0.5), 1),
                round(max(good, default=0.0), 1),
                float(len(values) - len(good)),
            )
        )
    return series

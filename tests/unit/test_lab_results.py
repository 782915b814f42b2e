"""From samples to figures, and from figures to a page."""

from __future__ import annotations

from html.parser import HTMLParser
from typing import Any

import msgspec
import pytest

from cuntong_simulations.lab.analysis import analyse
from cuntong_simulations.lab.carried import Capacity, longest_stall_s, used_share
from cuntong_simulations.lab.emulator import DirectionSample, Lateness, Sample
from cuntong_simulations.lab.probes import Seen
from cuntong_simulations.lab.processes import Cost
from cuntong_simulations.lab.recorder import Recorder
from cuntong_simulations.lab.report import render
from cuntong_simulations.lab.result import Check, Result, percentile, spread
from cuntong_simulations.lab.scenario import Event, Scenario
from cuntong_simulations.lab.summary import added_rtt_ms, headline, pooled_pages
from cuntong_simulations.lab.topology import parse_topology

NATION, VILLAGE = "000000000000", "440101001001"
START = 1000.0
TOPOLOGY = parse_topology(
    {
        "name": "two",
        "links": [
            {"nodes": [NATION], "down_kbit_s": 4000, "up_kbit_s": 4000, "delay_ms": 5},
            {"nodes": [VILLAGE], "down_kbit_s": 512, "up_kbit_s": 512, "delay_ms": 20},
        ],
    }
)


def samples(seconds: int = 60, late_ms: float = 0.2) -> list[Sample]:
    """The village's downlink is full from 10 s to 30 s after the publication, the nation's uplink too."""
    found = []
    for at in range(-20, seconds):
        moved = 64_000 * min(max(0, at - 10), 20)
        directions = [
            DirectionSample(
                bytes=moved if number in (0, 3) else 0,
                packets=moved // 1000,
                overflowed=0,
                lost=0,
                wait_mean_ms=40.0,
                wait_peak_ms=60.0,
            )
            for number in range(4)
        ]
        found.append(
            Sample(
                at=START + at,
                directions=directions,
                lateness=Lateness(p50_ms=0.1, p99_ms=late_ms, max_ms=3.0, packets=100),
                cpu_s=1.0,
                is_real_time=True,
                waits=[[0, 10]] * 4 if at == seconds - 1 else None,
            )
        )
    return found


def result(
    *, late_ms: float = 0.2, kernel_drops: int = 0, proof: Any = (), **changes: Any
) -> Result:
    seen = [
        *(Seen(kind="page", code=VILLAGE, at=START - 18 + 4 * n, value=1.8) for n in range(4)),
        # Overtaken by the publication: on neither side.
        Seen(kind="page", code=VILLAGE, at=START - 1, value=1.9),
        *(Seen(kind="page", code=VILLAGE, at=START + 11 + 4 * n, value=2.0 + n / 10) for n in range(4)),
        Seen(kind="page", code=VILLAGE, at=START + 45, value=1.8),
        *(Seen(kind="ping", code=VILLAGE, at=START - 10 + n / 5, value=0.05) for n in range(45)),
        *(Seen(kind="ping", code=VILLAGE, at=START + n / 5, value=0.09) for n in range(99)),
        Seen(kind="ping", code=VILLAGE, at=START + 20, value=-1.0),
    ]  # fmt: skip
    recorder = Recorder(began=START - 20, published=START, commanded=START + 1, ended=START + 58)
    recorder.done = {VILLAGE: START + 30.0}
    recorder.costs = {VILLAGE: (Cost(START, 1.0, 0), Cost(START + 30, 1.6, 70 * 2**20))}
    return analyse(
        TOPOLOGY,
        changes.pop("scenario", Scenario(name="pages", pages="first")),
        contender="cuntong",
        seed=1,
        began_at="2026-01-01T00:00:00+00:00",
        content_bytes=1_000_000,
        payload_bytes=1_000_000,
        recorder=recorder,
        samples=samples(late_ms=late_ms),
        seen=seen,
        proof=list(proof),
        kernel_drops=kernel_drops,
    )


def test_completion_is_counted_from_the_publication_and_compared_with_its_bound() -> None:
    found = result().completions[0]
    assert found.seconds == 30.0
    # The payload and four pages with their headers, at 512 kbit/s.
    assert found.bound_s == pytest.approx((1_000_000 + 4 * 103_796 + 100 * 84) / 64_000)
    assert found.used == pytest.approx(1.0, abs=0.06)
    assert found.longest_stall_s == 0.0


def test_foreground_is_not_counted_as_copies() -> None:
    assert result().copies_out == pytest.approx(
        (1_280_000 - 4 * 103_796 - 100 * 84) / 1e6, abs=1e-3
    )


def test_page_that_the_publication_overtakes_and_pages_after_the_end_count_on_neither_side() -> (
    None
):
    idle, during = pooled_pages(result())
    assert idle == [1.8] * 4
    assert during == pytest.approx([2.0, 2.1, 2.2, 2.3])


def test_added_round_trip_is_over_the_idle_median_and_lost_pings_are_counted() -> None:
    found = result()
    assert added_rtt_ms(found) == (pytest.approx(40.0), pytest.approx(40.0))
    assert found.foreground[0].rtt_ms.failed == 1


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"late_ms": 2.5}, "lateness"),
        ({"kernel_drops": 1}, "kernel drops"),
        (
            {"proof": [Check(name="loss", expected=0.1, measured=0.3, tolerance=0.01, unit="")]},
            "proof: loss",
        ),
    ],
)
def test_run_on_a_machine_that_was_too_slow_does_not_count(
    changes: dict[str, Any], problem: str
) -> None:
    found = result(**changes)
    assert found.machine.problems == [problem]
    assert "This run doesn&#x27;t count." in render(found)


def test_result_survives_its_file() -> None:
    found = result()
    assert msgspec.json.decode(msgspec.json.encode(found), type=Result) == found


class _Page(HTMLParser):
    """What a page would fetch from elsewhere, and what isn't closed."""

    def __init__(self) -> None:
        super().__init__()
        self.fetched: list[str] = []
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag in ("script", "link", "img", "iframe"):
            self.fetched.append(tag)
        self.fetched += [
            value or "" for name, value in attrs if name in ("src", "href") and (value or "")[:1] != "#"
        ]  # fmt: skip
        if tag != "meta":
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_report_holds_everything_and_fetches_nothing() -> None:
    pytest.importorskip("matplotlib")
    text = render(result())
    page = _Page()
    page.feed(text.removeprefix("<!doctype html>"))
    assert (page.fetched, page.open) == ([], [])
    assert text.count("<svg") == 5
    for _name, value in headline(result()):
        assert value in text


def test_link_that_was_away_is_neither_unused_nor_stalled() -> None:
    scenario = Scenario(name="outage", events=[Event(at_s=5.0, outage_s=10.0)])
    capacity = Capacity(TOPOLOGY, scenario, TOPOLOGY.node(VILLAGE))
    series = [
        (float(at), 0.0 if 6 <= at <= 18 else 512.0, 0.0, 0.0) for at in range(1, 31)
    ]  # fmt: skip
    # Three seconds of silence after the link is back.
    assert longest_stall_s(capacity, series, 30.0) == 3.0
    assert used_share(capacity, series, 30.0) == pytest.approx(17 / 20)


def test_slower_link_is_judged_by_its_own_rate() -> None:
    scenario = Scenario(name="step", events=[Event(at_s=10.0, share=0.5)])
    capacity = Capacity(TOPOLOGY, scenario, TOPOLOGY.node(VILLAGE))
    series = [(float(at), 512.0 if at <= 10 else 256.0, 0.0, 0.0) for at in range(1, 21)]
    assert used_share(capacity, series, 20.0) == pytest.approx(1.0)


def test_percentiles() -> None:
    assert percentile([1.0, 2.0, 3.0, 4.0], 0.5) == 2.5
    assert percentile([], 0.5) == 0.0
    assert spread([1.0, -1.0, 3.0]).failed == 1

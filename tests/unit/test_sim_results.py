"""From the model's arrays to figures, folders and pages; every figure of the small country can be counted."""

from __future__ import annotations

import csv
import dataclasses
import datetime as dt
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pyarrow.parquet as pq
import pytest

from cuntong_protocol.errors import CuntongError
from cuntong_simulations.calibration.record import Measured
from cuntong_simulations.model.outcome import Outcome
from cuntong_simulations.results import words
from cuntong_simulations.results.findings import Arrival, Findings, Manifest, Parameter
from cuntong_simulations.results.read import read
from cuntong_simulations.results.report import render
from cuntong_simulations.results.summary import summarise
from cuntong_simulations.results.write import check_out, digest, versions, write
from cuntong_simulations.scenario.scenario import Release, Run, Scenario
from cuntong_simulations.scenario.units import Days, Size
from tests.support.outcomes import link, outcome, scenario, with_everything

MEASURED = Measured(
    date=dt.date(2026, 11, 20), networks=8, tested=4, repeats=3, mean_error_median=0.01,
    mean_error_largest=0.028, last_error_median=0.02, last_error_largest=0.061,
    versions={"libtorrent": "2.1.1"},
)  # fmt: skip
NODES = 1 + 2 + 8 + 80


def found(of: Outcome, **changes: Any) -> Findings:
    given = of.country.scenario
    values: dict[str, Any] = {
        "scenario": given,
        "scenario_sha256": digest(given),
        "file": "small.toml",
        "ended_at": "2027-01-01T00:00:00+00:00",
        "seed": 1,
        "step_s": 3600.0,
        "policy": "swarm",
        "sample_share": 1.0,
        "node_count": of.country.node_count,
        "bundle_count": len(of.bundles.names),
        "threads": 1,
        "seconds": 0.1,
        "versions": versions(),
    }
    return summarise(of, Manifest(**values | changes))


def arrival(of: Findings, release: str, tier: str) -> Arrival:
    return next(one for one in of.arrivals if (one.release, one.tier) == (release, tier))


def counties_done(hours: list[float]) -> Outcome:
    """Each county had all of the first release at its hour; everybody else had nothing."""
    made = outcome()
    made.done_h[:] = np.nan
    for county, hour in enumerate(hours):
        made.done_h[3 + county, :3] = hour
    return made


def test_shares_and_quantiles_are_those_counted_by_hand() -> None:
    got = arrival(found(counties_done([24, 48, 72, 96, 120, 240, 264, np.nan])), "spring", "county")
    assert got.places == 8
    assert got.end.value == pytest.approx(7 / 8)
    # The deadline is day 10: exactly at it is in time.
    assert got.due is not None
    assert got.due.value == pytest.approx(6 / 8)
    assert got.p50 is not None
    assert got.p50.value == pytest.approx(4.0)
    assert (got.p90, got.p99, got.last_days) == (None, None, None)
    assert (got.pairs, got.missed, got.undecided) == (24.0, 6.0, 0.0)


def test_days_are_counted_from_the_release_and_not_from_the_start() -> None:
    made = counties_done([])
    made.done_h[3:11, 3:] = 24.0 * 7
    got = arrival(found(made), "opera", "county")
    assert got.p50 is not None
    assert got.p50.value == pytest.approx(2.0)
    assert got.last_days == pytest.approx(2.0)


def test_place_that_lacks_one_bundle_does_not_have_the_release() -> None:
    made = counties_done([24.0] * 8)
    made.done_h[3, 2] = np.nan
    got = arrival(found(made), "spring", "county")
    assert got.end.value == pytest.approx(7 / 8)
    assert got.missed == 1.0


def test_deadline_after_the_end_is_neither_met_nor_missed() -> None:
    got = arrival(found(counties_done([])), "opera", "county")
    assert (got.pairs, got.missed, got.undecided, got.due) == (16.0, 0.0, 16.0, None)


def test_place_without_a_wish_is_not_counted() -> None:
    made = outcome()
    made.wants[2, :] = False  # The first of the two kinds of counties.
    got = arrival(found(made), "spring", "county")
    assert got.places == 4


def test_publisher_does_not_wait_for_its_own_bundle_and_others_below_it_do() -> None:
    made = outcome()
    made.bundles.publisher[:3] = 1  # The first province.
    got = found(made)
    assert arrival(got, "spring", "county").places == 4
    assert not any((one.release, one.tier) == ("spring", "province") for one in got.arrivals)


def test_weights_count_as_so_many_places_and_give_an_interval_that_holds_the_value() -> None:
    got = arrival(found(outcome(weight=20.0), sample_share=0.05), "spring", "village")
    assert got.places == 1600
    assert got.end.low is not None
    assert got.end.high is not None
    assert 0 <= got.end.low < got.end.value < got.end.high <= 1
    assert arrival(found(outcome()), "spring", "village").end.low is None


def large(*, weight: float, counties: int, seed: int) -> Findings:
    return found(outcome(sized(counties), weight=weight, seed=seed), sample_share=1 / weight)


def sized(counties: int) -> Scenario:
    base = scenario()
    tiers = [
        msgspec.structs.replace(tier, count={"county": counties, "village": counties * 10}[tier.tier])
        if tier.tier in ("county", "village")
        else tier
        for tier in base.tiers
    ]  # fmt: skip
    return scenario(tiers=tiers)


def test_intervals_of_samples_hold_the_truth_about_as_often_as_they_say() -> None:
    truth = arrival(large(weight=1.0, counties=2000, seed=99), "spring", "village").end.value
    held = 0
    for seed in range(40):
        got = arrival(large(weight=20.0, counties=60, seed=seed), "spring", "village").end
        held += (got.low or 0.0) <= truth <= (got.high or 1.0)
    # 38 of 40 are expected.
    assert 34 <= held <= 40


def test_curves_end_where_the_shares_do_and_never_fall() -> None:
    got = found(outcome())
    for curve in got.curves:
        assert len(curve.share) == 31
        assert all(a <= b for a, b in zip(curve.share, curve.share[1:], strict=False))
        if curve.release:
            assert curve.share[-1] == pytest.approx(
                arrival(got, curve.release, curve.tier).end.value, abs=1e-6
            )


def test_misses_by_province_and_link_add_up_to_those_of_the_release() -> None:
    got = found(outcome())
    assert got.missed > 0
    assert sum(one.missed for one in got.misses) == pytest.approx(got.missed)
    assert {one.province for one in got.misses} <= {"11", "12"}


def test_bytes_and_waiting_hours_add_up_to_those_of_the_model() -> None:
    made = outcome()
    got = found(made)
    assert sum(one.bytes for one in got.carried) == pytest.approx(made.carried.sum())
    assert sum(one.node_hours for one in got.held) == pytest.approx(made.held_back.sum())
    assert sum(one.down_bytes for one in got.links) == pytest.approx(made.link_bytes[:, 0].sum())
    villages = next(one for one in got.links if one.tier == "village")
    assert villages.places == 80
    assert 0 < villages.use < villages.highest_use < 1


def test_what_a_link_can_do_by_hand_is_volume_over_a_days_bytes() -> None:
    got = next(one for one in found(outcome()).reaches if one.link == "512 kbit/s")
    # 60 GB at 64 kB/s.
    assert got.least_days == pytest.approx(60e9 / 64e3 / 86400)
    assert got.deadline_days == pytest.approx(20.0)


def test_bill_has_a_line_for_each_price_and_counts_disks_by_hand() -> None:
    got = {one.item: one for one in found(outcome(scenario(**with_everything()))).costs}
    assert set(got) == {"satellite", "link", "disk-trip", "parcel"}
    assert got["satellite"].cost == pytest.approx(8 * 30 / (365.25 / 12) * 60000)
    # 60 GB on disks of 50 GB, to 8 counties.
    assert (got["disk-trip"].quantity, got["parcel"].quantity) == (16.0, 8.0)
    assert found(outcome()).costs == []


def test_folder_holds_everything_and_is_read_again_as_it_was(tmp_path: Path) -> None:
    made = outcome(scenario(**with_everything()))
    got = found(made, calibration=[Parameter(name="eta", value=0.9)], measured=MEASURED)
    write(made, got, tmp_path / "out", report=render(got))
    assert read(tmp_path / "out") == got
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    for path in (tmp_path / "out").glob("*.csv"):
        assert path.read_bytes()[:3] == b"\xef\xbb\xbf", (
            "Spreadsheets would take it for another encoding."
        )
        rows = list(csv.reader(path.read_text("utf-8-sig").splitlines()))
        assert {len(row) for row in rows} == {len(rows[0])}


def test_hours_tell_what_is_not_wanted_from_what_never_came(tmp_path: Path) -> None:
    made = counties_done([24.0])
    made.wants[-1, 0] = False  # Villages.
    write(made, found(made), tmp_path / "out")
    table = pq.read_table(tmp_path / "out" / "completions.parquet")
    assert table.num_rows == NODES
    rows = table.to_pylist()
    assert (rows[3]["tier"], rows[3]["province"], rows[3]["spring/0"]) == ("county", "11", 24.0)
    assert rows[4]["spring/0"] == np.inf
    assert rows[-1]["spring/0"] is None
    assert rows[0]["spring/0"] is None, "The publisher has it."


def test_results_never_replace_what_is_not_a_run(tmp_path: Path) -> None:
    (tmp_path / "letters").mkdir()
    (tmp_path / "letters" / "thesis.txt").write_text("x")
    with pytest.raises(CuntongError) as caught:
        check_out(tmp_path / "letters")
    assert caught.value.code == "sim.out-taken"
    with pytest.raises(CuntongError):
        write(None, found(outcome()), tmp_path / "letters")
    assert [path.name for path in (tmp_path / "letters").iterdir()] == ["thesis.txt"]
    (tmp_path / "file").write_text("x")
    with pytest.raises(CuntongError):
        check_out(tmp_path / "file")
    (tmp_path / "empty").mkdir()
    check_out(tmp_path / "empty")


def test_failure_in_the_middle_leaves_the_old_results_as_they_were(tmp_path: Path) -> None:
    got = found(outcome())
    write(None, got, tmp_path / "out")
    broken = outcome()
    broken = dataclasses.replace(broken, wants=broken.wants[:, :1])
    with pytest.raises(IndexError):
        write(broken, got, tmp_path / "out")
    assert read(tmp_path / "out") == got
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    write(None, found(outcome(seed=2)), tmp_path / "out")
    assert read(tmp_path / "out") != got


@pytest.mark.parametrize("damage", ["{", '{"manifest": 1}', "[]", "{}"])
def test_damaged_results_are_refused_in_one_sentence(tmp_path: Path, damage: str) -> None:
    with pytest.raises(CuntongError) as caught:
        read(tmp_path)
    assert caught.value.code == "sim.no-results"
    write(None, found(outcome()), tmp_path / "out")
    (tmp_path / "out" / "findings.json").write_text(damage)
    with pytest.raises(CuntongError) as caught:
        read(tmp_path / "out")
    assert caught.value.code == "sim.results-unreadable"


def test_same_scenario_has_the_same_digest_wherever_its_files_lie(tmp_path: Path) -> None:
    digests = set()
    for folder in ("a", "b"):
        path = tmp_path / folder / "bundles.csv"
        path.parent.mkdir()
        path.write_text("name,size\nx,1 GB\n")
        digests.add(digest(scenario(releases=[Release(name="spring", file=str(path))])))
    assert len(digests) == 1
    path.write_text("name,size\nx,2 GB\n")
    assert digest(scenario(releases=[Release(name="spring", file=str(path))])) not in digests


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
        if tag not in ("meta", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


@pytest.mark.parametrize("weight", [1.0, 20.0])
def test_report_holds_everything_and_fetches_nothing(weight: float) -> None:
    got = found(
        outcome(scenario(**with_everything()), weight=weight), sample_share=1 / weight,
        calibration=[Parameter(name="eta", value=0.9, origin="calibration.toml")], measured=MEASURED,
    )  # fmt: skip
    text = render(got)
    page = _Page()
    page.feed(text.removeprefix("<!doctype html>"))
    assert (page.fetched, page.open) == ([], [])
    assert text.count("<svg") == 3
    assert "小国 &lt;two provinces&gt;" in text
    for said in (
        words.verdict(got),
        words.total_cost(got),
        "512 kbit/s",
        "2026-11-20",
        "2.8 %",
        "Invented.",
        "Made up, to be counted by hand.",
        "tier.county.dish",
    ):
        assert said in text
    assert ("jackknife" in text) == (weight > 1)


def test_report_of_a_run_in_which_nothing_moves_and_nobody_wants_anything_is_still_a_page() -> None:
    made = outcome()
    made.wants[:] = False
    for array in (made.carried, made.link_bytes, made.link_room, made.held_back):
        array[:] = 0.0
    got = found(made)
    assert got.arrivals == []
    page = _Page()
    page.feed(render(got).removeprefix("<!doctype html>"))
    assert page.open == []


def test_many_releases_still_fit_on_one_screen() -> None:
    given = scenario(
        run=Run(start=dt.date(2027, 3, 1), days=90),
        releases=[
            Release(name=f"r{n}", day=n * 3, size=Size(1e9), deadlines={"county": Days(10 + n)})
            for n in range(24)
        ],
        tiers=[*scenario().tiers[:2], *sized(8).tiers[2:]],
    )
    got = found(outcome(given))
    assert len(words.shown_arrivals(got)) == 3
    assert "Of each tier the release that fares worst." in render(got)
    assert link(1, 1, "x").down == 125_000

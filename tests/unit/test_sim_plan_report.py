"""A plan's pages: of one that is there, of one that can't be, and the calculation by hand beside it."""

from __future__ import annotations

from pathlib import Path

import pytest

from cuntong_simulations.plan.by_hand import by_hand
from cuntong_simulations.plan.result import Way
from cuntong_simulations.results import plan_run, plan_words, report, write
from cuntong_simulations.results.errors import ResultsError
from cuntong_simulations.results.planned import Planned
from cuntong_simulations.scenario.load import load

SCENARIO = """
name = "push"
[run]
start = 2027-03-01
days = 60
policy = "tree"
[[tier]]
tier = "nation"
count = 1
links = [{ down = "10 Gbit/s", up = "10 Gbit/s" }]
[[tier]]
tier = "province"
count = 2
links = [{ down = "1 Gbit/s", up = "1 Gbit/s" }]
[[tier]]
tier = "county"
count = 40
public = "open"
links = [
  { name = "2 Mbit/s", share = "50 %", down = "2 Mbit/s", up = "2 Mbit/s" },
  { name = "100 Mbit/s", share = "50 %", down = "100 Mbit/s", up = "100 Mbit/s" },
]
[[release]]
name = "push"
bundles = 4
size = "4 TB"
deadlines = { county = "60 d" }
[calendars]
open = []
[costs]
currency = "CNY"
source = "invented for tests"
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    made = tmp_path / "push.toml"
    made.write_text(SCENARIO)
    return made


def test_the_report_of_a_plan_that_cannot_be_is_rendered_again_from_its_folder(
    file: Path, tmp_path: Path
) -> None:
    made = plan_run.make(file)
    assert made.run is None
    page = report.render_plan(made.planned, made.scenario)
    write.write_plan(made.planned, tmp_path / "out", report=page)

    assert report.render_folder(tmp_path / "out") == page
    assert "What stands in the way" in page
    assert "2 Mbit/s" in page


def test_without_disks_nobody_is_told_that_a_link_that_is_too_thin_is_enough(file: Path) -> None:
    made = plan_run.make(file)
    page = report.render_plan(made.planned, made.scenario)

    assert page.count("the link alone") == 1
    assert page.count("none to be had") == 1


def test_a_folder_without_plan_or_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ResultsError) as caught:
        report.render_folder(tmp_path)
    assert caught.value.code == "sim.no-results"


def test_by_hand_opening_hours_are_taken_from_the_link(file: Path) -> None:
    always = {one.link: one for one in by_hand(load(file))}
    file.write_text(SCENARIO.replace("open = []", 'open = ["mon-sun 06:00-18:00"]'))
    half = {one.link: one for one in by_hand(load(file))}

    for link, one in half.items():
        assert one.open_share == pytest.approx(0.5)
        assert one.possible_bytes == pytest.approx(always[link].possible_bytes / 2)
        assert one.needed_rate == pytest.approx(2 * (always[link].needed_rate or 0), rel=1e-3)


def way(**changes: float) -> Way:
    settings = {
        "places": 10, "without_disks": 10, "by_satellite": 0, "link_is_enough": 0, "need_bytes": 10.0,
        "link_bytes": 10.0, "satellite_bytes": 0.0, "disk_bytes": 0.0, "disks": 0, "parcels": 0,
    }  # fmt: skip
    return Way(release="push", tier="county", link="a", **settings | changes)  # type: ignore[arg-type]


def test_what_a_broadcast_brings_without_need_is_not_called_a_need() -> None:
    aired = way(satellite_bytes=5.0, by_satellite=10, link_is_enough=10)
    needed = way(satellite_bytes=5.0, by_satellite=6, without_disks=6, disk_bytes=4.0)

    assert plan_words.needs(way(link_is_enough=10)) == "the link alone"
    assert plan_words.needs(aired) == "the link alone; 50 % comes by satellite anyway"
    assert plan_words.needs(needed) == "satellite to 6 of them, disks to 4 of them"


def test_releases_for_which_the_link_is_enough_share_a_row() -> None:
    def rows(*ways: Way) -> list[list[str]]:
        made = Planned(
            status="optimal", currency="CNY", satellite_mbit_s=0.0, on_air=[], ways=[*ways], bill=[], cost=0.0,
            gap=0.0, notes=[], shortfalls=[], gains=[],
        )  # fmt: skip
        return plan_words.way_rows(made)[1]

    alone = way(link_is_enough=10)
    assert len(rows(alone, alone)) == 1
    assert len(rows(alone, way(disk_bytes=5.0, without_disks=5))) == 2

"""The networks on which the model is compared with real daemons, and the search for its parameters."""

from __future__ import annotations

from pathlib import Path

import pytest

from cuntong_simulations.calibration.fit import LEAST, MOST, START, _pattern_search
from cuntong_simulations.calibration.measure import _lines, measurements
from cuntong_simulations.calibration.networks import LEAST_S, networks
from cuntong_simulations.calibration.predict import predict
from cuntong_simulations.lab.topology import load_topology
from cuntong_simulations.model.parameters import TRIED


def test_networks_are_the_same_for_the_same_seed_and_take_five_minutes() -> None:
    first, again, other = networks(1), networks(1), networks(2)
    assert [one.tables for one in first] == [one.tables for one in again]
    assert [one.tables for one in first] != [one.tables for one in other]
    assert [one.name for one in first[:3]] == ["R1", "R1h", "R2"]
    assert len(first) == 8
    assert sum(one.is_for_fit for one in first) == 4
    for one in first + other:
        assert one.bound_s == pytest.approx(LEAST_S, rel=0.01)


def test_network_is_read_back_as_it_was_written(tmp_path: Path) -> None:
    for one in networks():
        file = tmp_path / f"{one.name}.toml"
        file.write_text("\n".join(_lines(one.tables)), encoding="utf-8")
        assert load_topology(file) == one.topology


def test_what_was_not_measured_or_cannot_be_read_is_measured_again(tmp_path: Path) -> None:
    wanted = measurements(networks(), 2, tmp_path)
    assert len({one.folder for one in wanted}) == 16
    wanted[0].folder.mkdir(parents=True)
    (wanted[0].folder / "result.json").write_text('{"version": 1')
    assert all(one.result is None for one in wanted)


def test_no_place_is_predicted_sooner_than_its_links_allow() -> None:
    reference = networks()[0]
    seconds = predict(reference.topology, reference.payload_mb * 1e6, TRIED)
    assert len(seconds) == 18
    assert min(seconds[code] for code in seconds if not code.endswith("000000")) > LEAST_S


def test_search_finds_the_lowest_point_within_its_bounds() -> None:
    target = (0.9, 1.2, 7.0, 0.5, 0.3)
    found = _pattern_search(
        lambda it: sum((one - other) ** 2 for one, other in zip(it, target, strict=True)),
        START,
        (0.04, 0.04, 4.0, 0.2, 0.2),
    )
    assert found == pytest.approx((0.9, 1.0, 7.0, 0.5, 0.3), abs=0.1)
    assert all(low <= one <= high for low, one, high in zip(LEAST, found, MOST, strict=True))

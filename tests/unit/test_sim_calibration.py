"""The networks on which the model is compared with real daemons, and the search for its parameters."""

from __future__ import annotations

import csv
import math
from datetime import date
from pathlib import Path

import msgspec
import pytest

from cuntong_protocol.errors import CuntongError, Fault
from cuntong_simulations.calibration import calibrate
from cuntong_simulations.calibration.calibrate import Course, by_network, only_one, write
from cuntong_simulations.calibration.fit import FIRST_STEP, LEAST, MOST, START, _pattern_search
from cuntong_simulations.calibration.measure import (
    Measurement,
    _lines,
    check_folder,
    measure,
    measurements,
)
from cuntong_simulations.calibration.networks import LEAST_S, networks
from cuntong_simulations.calibration.networks import TestNetwork as Network
from cuntong_simulations.calibration.predict import predict
from cuntong_simulations.calibration.record import SHIPPED_FILE, Measured, Record, read, text
from cuntong_simulations.lab.result import Completion, Machine, Result
from cuntong_simulations.lab.scenario import Payload
from cuntong_simulations.lab.scenario import Scenario as LabScenario
from cuntong_simulations.lab.topology import load_topology
from cuntong_simulations.model.parameters import MEASURED, calibration_of
from cuntong_simulations.results.parameters import measured, parameters
from cuntong_simulations.scenario.load import load
from cuntong_simulations.scenario.scenario import Calibration
from cuntong_simulations.scenario.units import Rate, Share, Span

COUNTY = Path(__file__).parents[2] / "config" / "scenarios" / "county.toml"
MEASUREMENT = Measured(
    date=date(2026, 11, 23),
    networks=8,
    tested=4,
    repeats=3,
    mean_error_median=0.01,
    mean_error_largest=0.034,
    last_error_median=0.02,
    last_error_largest=0.061,
    versions={"cuntong": "0.7.0", "libtorrent": "2.1.1"},
)


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
    seconds = predict(reference.topology, reference.payload_mb * 1e6, MEASURED)
    assert len(seconds) == 18
    assert min(seconds[code] for code in seconds if not code.endswith("000000")) > LEAST_S


def test_search_finds_the_lowest_point_within_its_bounds() -> None:
    target = (0.9, 260.0, 7.0, 0.5, 0.3)
    found = _pattern_search(
        lambda it: sum((one - other) ** 2 for one, other in zip(it, target, strict=True)),
        START,
        FIRST_STEP,
    )
    for got, wanted, step in zip(found, (0.9, 250.0, 7.0, 0.5, 0.3), FIRST_STEP, strict=True):
        assert got == pytest.approx(wanted, abs=step / 4)
    assert all(low <= one <= high for low, one, high in zip(LEAST, found, MOST, strict=True))


def found(
    network: Network, seconds: dict[str, float], *, began_at: str = "2026-11-23T02:44:51+00:00"
) -> Result:
    """As if it had been measured."""
    completions = [
        Completion(
            code=node.code,
            tier=node.tier.label,
            seconds=seconds.get(node.code, network.bound_s),
            bound_s=network.bound_s,
        )
        for node in network.topology.receivers
    ]
    return Result(
        contender="Cuntong",
        topology=network.topology,
        scenario=LabScenario(name=network.name, payload=Payload(random_mb=network.payload_mb)),
        seed=1,
        began_at=began_at,
        payload_bytes=round(network.payload_mb * 1e6),
        content_bytes=round(network.payload_mb * 1e6),
        last_s=max(one.seconds or 0.0 for one in completions),
        bound_s=network.bound_s,
        copies_out=1.0,
        commanded_s=1.0,
        completions=completions,
        links=[],
        machine=Machine(
            lateness_p50_ms=0, lateness_p99_ms=0, lateness_max_ms=0, is_real_time=True,
            emulator_cpu=0, busy=0, kernel_drops=0,
        ),
    )  # fmt: skip


def put(one: Measurement, result: Result) -> None:
    one.folder.mkdir(parents=True)
    (one.folder / "result.json").write_bytes(msgspec.json.encode(result))


def test_record_is_read_as_it_was_written(tmp_path: Path) -> None:
    parameters = Calibration(
        efficiency=Share(0.9431), thin=Rate(12_270.0), startup=Span(12.25), eta=Share(1.0), phi=Share(0.0)
    )  # fmt: skip
    for record in (
        Record(parameters=parameters, measured=MEASUREMENT),
        Record(parameters=parameters),
    ):
        (tmp_path / "calibration.toml").write_text(text(record), encoding="utf-8")
        assert read(tmp_path / "calibration.toml") == record
    assert read(SHIPPED_FILE).parameters == MEASURED


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ("version = 1", "version = 2", "version"),
        ("version = 1", "version = ", "line 2"),
        ("eta = 0.9", "", "eta"),
        ("eta = 0.9", "eta = 95", "95 isn't a value from 0 to 100 %"),
        ("eta = 0.9", "eta = nan", "nan"),
        ("eta = 0.9", "eta = 0.9\nbeta = 1", "beta"),
        ('"2.5 s"', '"2.5 m"', "2.5 m"),
        ("[parameters]", "[[parameters]]", "parameters"),
        ("networks = 8", "networks = -8", "networks"),
        ("2026-11-23", "true", "date"),
        ("mean_error_largest = 0.034", "mean_error_largest = nan", "mean_error_largest"),
    ],
)
def test_broken_record_is_refused_with_its_name_and_the_reason(
    tmp_path: Path, old: str, new: str, reason: str
) -> None:
    file = tmp_path / "calibration.toml"
    values = msgspec.structs.replace(MEASURED, eta=Share(0.9), startup=Span(2.5))
    whole = text(Record(parameters=values, measured=MEASUREMENT))
    assert old in whole
    file.write_text(whole.replace(old, new), encoding="utf-8")
    with pytest.raises(CuntongError) as caught:
        read(file)
    assert caught.value.code == "sim.bad-calibration"
    assert caught.value.fault is Fault.CONFIG
    assert str(file) in str(caught.value)
    assert reason in str(caught.value)


def test_record_that_is_no_text_too_long_or_not_there_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "calibration.toml"
    for damage in (b"\xff\xfe", b"#" * 100_000):
        file.write_bytes(damage)
        with pytest.raises(CuntongError) as caught:
            read(file)
        assert caught.value.code == "sim.bad-calibration"
    with pytest.raises(CuntongError) as caught:
        read(tmp_path / "none.toml")
    assert caught.value.code == "sim.file-unreadable"


def test_own_values_come_before_the_named_file_and_that_before_the_shipped_one(
    tmp_path: Path,
) -> None:
    base = tmp_path / "below" / "base.toml"
    base.parent.mkdir()
    own = 'file = "measured.toml"\neta = 0.5\n'
    base.write_text(f'extends = "{COUNTY}"\n[calibration]\n{own}', encoding="utf-8")
    record = Record(
        parameters=msgspec.structs.replace(MEASURED, eta=Share(0.7), phi=Share(0.6)),
        measured=MEASUREMENT,
    )
    (base.parent / "measured.toml").write_text(text(record), encoding="utf-8")
    # Named beside the file that names it, whichever extends that.
    over = tmp_path / "over.toml"
    over.write_text('extends = "below/base.toml"\n[calibration]\nphi = 0.4\n', encoding="utf-8")
    for file, phi, origin in ((base, 0.6, "measured.toml"), (over, 0.4, "scenario")):
        scenario = load(file)
        assert calibration_of(scenario) == msgspec.structs.replace(
            MEASURED, eta=Share(0.5), phi=Share(phi)
        )
        origins = {one.name: one.origin for one in parameters(scenario)}
        assert origins == {
            "efficiency": "measured.toml", "thin": "measured.toml",
            "startup": "measured.toml", "eta": "scenario", "phi": origin,
        }  # fmt: skip
        assert measured(scenario) == MEASUREMENT
    (base.parent / "measured.toml").unlink()
    with pytest.raises(CuntongError) as caught:
        parameters(load(base))
    assert caught.value.code == "sim.file-unreadable"
    assert calibration_of(load(COUNTY)) == MEASURED


def test_errors_count_only_where_nothing_was_fitted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The search has tests of its own, and takes its time.
    unrounded = msgspec.structs.replace(MEASURED, startup=Span(float(MEASURED.startup or 0) + 4e-6))
    monkeypatch.setattr(calibrate, "fit", lambda measured: unrounded)
    tested, fitted = networks()[:2]
    wanted = measurements([fitted, tested], 2, tmp_path)
    computed = predict(tested.topology, tested.payload_mb * 1e6, MEASURED)
    for one, factor in zip(wanted, (1.0, 1.0 / 1.03, 1.0, 1.0 / 1.05), strict=True):
        seconds = {code: value * factor for code, value in computed.items()}
        day = "2026-11-24T23:00:00+00:00" if one.repeat == 2 else "2026-11-23T01:00:00+00:00"
        put(one, found(one.network, {} if one.network is fitted else seconds, began_at=day))
    got = calibrate.calibrate(by_network(wanted))
    assert got.record.parameters == MEASURED
    said = got.record.measured
    assert said is not None
    assert (said.date, said.networks, said.tested, said.repeats) == (date(2026, 11, 24), 2, 1, 2)
    assert said.mean_error_largest == pytest.approx(2 / (1 / 1.03 + 1 / 1.05) - 1, rel=1e-6)
    assert said.last_error_median == pytest.approx(said.mean_error_median)
    assert got.is_met
    file = write(got, tmp_path)
    assert read(file).parameters == MEASURED
    rows = list(csv.DictReader((tmp_path / "comparison.csv").read_text("utf-8-sig").splitlines()))
    assert [(row["network"], row["use"], row["tier"]) for row in rows] == [
        (network, use, tier)
        for network, use in (("R1h", "fit"), ("R1", "test"))
        for tier in ("province", "county", "village")
    ]
    assert float(rows[-1]["least_mean_s"]) < float(rows[-1]["measured_mean_s"])
    bad = msgspec.structs.replace(said, last_error_largest=0.11)
    assert not calibrate.Calibrated(msgspec.structs.replace(got.record, measured=bad), []).is_met


def test_measurements_of_other_networks_are_never_written_over(tmp_path: Path) -> None:
    first, second = networks(1)[3], networks(2)[3]
    assert first.name == second.name
    (one,) = measurements([first], 1, tmp_path)
    put(one, found(first, {}))
    check_folder([one])
    assert one.result is not None
    with pytest.raises(CuntongError) as caught:
        check_folder(measurements([second], 1, tmp_path))
    assert (caught.value.code, caught.value.fault) == ("sim.other-networks", Fault.USAGE)
    assert str(one.folder) in str(caught.value)


def test_second_calibration_in_the_same_folder_is_refused(tmp_path: Path) -> None:
    with only_one(tmp_path / "out"):
        with pytest.raises(CuntongError) as caught, only_one(tmp_path / "out"):
            pytest.fail("two of them")
        assert caught.value.code == "sim.calibrating"
    with only_one(tmp_path / "out"):
        pass


def test_measurement_that_fails_again_and_again_is_told_after_the_others(tmp_path: Path) -> None:
    good = networks()[0]
    wanted = measurements([good], 1, tmp_path)
    put(wanted[0], found(good, {}))
    # The laboratory refuses its payload at once.
    broken = Network(good.tables | {"name": "broken"}, -1.0, is_for_fit=True)
    told: list[str] = []
    with pytest.raises(CuntongError) as caught:
        measure(
            [*wanted, *measurements([broken], 1, tmp_path)],
            jobs=2,
            tell=lambda one, what: told.append(f"{one.network.name} {what}"),
        )
    assert caught.value.code == "sim.not-measured"
    assert told == ["broken begun", "broken again"] * 2 + ["broken begun"]
    assert "output.txt" in str(caught.value)


def test_share_that_is_done_grows_with_time_and_never_ends_too_soon(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [0.0]
    monkeypatch.setattr("cuntong_simulations.calibration.calibrate.time.monotonic", lambda: now[0])
    wanted = measurements(networks()[:2], 2, tmp_path)
    put(wanted[0], found(wanted[0].network, {}))
    course = Course(wanted)
    assert course.share == pytest.approx(0.25)
    course.tell(wanted[1], "begun")
    now[0] = 200.0
    assert course.running == ["R1h"]
    assert 0.25 < course.share < 0.4
    now[0] = math.inf
    assert 0.25 < course.share < 0.5
    course.tell(wanted[1], "again")
    assert course.share == pytest.approx(0.25)
    course.tell(wanted[1], "begun")
    course.tell(wanted[1], "done")
    assert (course.running, course.share) == ([], pytest.approx(0.5))

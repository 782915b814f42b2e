"""Scenarios: what is refused, and that the refusal names file, line and reason."""

from __future__ import annotations

import tomllib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cuntong_daemon.policy.calendar import Rule
from cuntong_simulations import toml
from cuntong_simulations.model.country import build
from cuntong_simulations.scenario.bundles import bundles_of
from cuntong_simulations.scenario.calendars import hours, windows
from cuntong_simulations.scenario.errors import ScenarioError
from cuntong_simulations.scenario.load import load
from cuntong_simulations.scenario.units import (
    Days,
    Money,
    Quantity,
    Rate,
    Share,
    Size,
    Span,
    UnitError,
)

SCENARIOS = Path(__file__).parents[2] / "config" / "scenarios"
SMALL = """\
name = "small"
[run]
start = 2027-03-01
days = 60
[calendars]
open = ["mon-fri 08:00-12:00"]
[[tier]]
tier = "nation"
count = 1
links = [{ down = "1 Gbit/s", up = "1 Gbit/s" }]
[[tier]]
tier = "county"
count = 3
links = [
  { share = 0.5, down = "2 Mbit/s", up = "2 Mbit/s" },
  { share = "50 %", down = "10 Mbit/s", up = "10 Mbit/s" },
]
store = "4 TB"
[[tier]]
tier = "village"
count = 30
links = [{ down = "512 kbit/s", up = "512 kbit/s" }]
public = "open"
dish = 0.2
[satellite]
rate = "20 Mbit/s"
[disks]
size = "4 TB"
batch = 10
copy_rate = "100 MB/s"
[[release]]
name = "march"
bundles = 2
size = "20 GB"
deadlines = { county = 30, village = "60 d" }
[costs]
currency = "CNY"
source = "a guess"
disk = 700
"""


def write(folder: Path, text: str, name: str = "small.toml") -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def refusal(path: Path) -> ScenarioError:
    with pytest.raises(ScenarioError) as caught:
        load(path)
    assert "{" not in str(caught.value)
    return caught.value


@pytest.mark.parametrize(
    ("kind", "written", "value"),
    [
        (Rate, "512 kbit/s", 64_000),
        (Rate, "2 Mbit/s", 250_000),
        (Rate, "1.5 MB/s", 1.5e6),
        (Size, "4 TB", 4e12),
        (Span, "60 d", 60 * 86400),
        (Days, 60, 60),
        (Days, "2 weeks", 14),
        (Share, "2 min/h", 1 / 30),
        (Share, "30 h/week", 30 / 168),
        (Share, "5 %", 0.05),
        (Share, 0.25, 0.25),
        (Money, 700, 700),
    ],
)
def test_units_mean_what_people_mean(kind: type[Quantity], written: object, value: float) -> None:
    assert kind.of(written) == pytest.approx(value)


@pytest.mark.parametrize(
    ("kind", "written"),
    [
        (Rate, "nan Mbit/s"), (Rate, "inf Mbit/s"), (Rate, "-1 Mbit/s"), (Rate, "1e400 Mbit/s"), (Rate, "5000 Tbit/s"),
        (Rate, 512), (Rate, "512"), (Rate, "512 kbps"), (Rate, "512 kbit"), (Rate, True), (Rate, "kbit/s"), (Rate, ""),
        (Size, "4 TiB"), (Size, 4), (Span, "4000 d"), (Span, 60), (Span, "h"), (Days, 4000), (Share, 5), (Share, "101 %"),
        (Share, float("nan")), (Share, "2 h/min"), (Money, -1), (Money, float("inf")), (Money, "5 CNY"), (Money, [1]),
    ],
)  # fmt: skip
def test_absurd_numbers_are_refused(kind: type[Quantity], written: object) -> None:
    with pytest.raises(UnitError):
        kind.of(written)


@pytest.mark.parametrize(
    ("old", "new", "line", "code"),
    [
        ('size = "20 GB"', 'sise = "20 GB"', 34, "sim.unknown-key"),
        ("{ share = 0.5, down", "{ shre = 0.5, down", 15, "sim.unknown-key"),
        ('down = "512 kbit/s"', 'down = "512"', 22, "sim.not-a-rate"),
        ('down = "512 kbit/s"', "down = nan", 22, "sim.not-a-rate"),
        ('down = "512 kbit/s"', 'down = "nan kbit/s"', 22, "sim.absurd"),
        ('down = "512 kbit/s"', 'down = "1 Tbit/s"', 22, "sim.absurd-link"),
        ('down = "512 kbit/s"', 'down = "0 kbit/s"', 22, "sim.zero-rate"),
        ("days = 60", "days = 4000", 4, "sim.out-of-bounds"),
        ("days = 60", 'days = "60 d"', 4, "sim.wrong-kind"),
        ("days = 60\n", "", 2, "sim.missing-key"),
        ("days = 60", 'days = 60\nstep = "7 h"', 5, "sim.step"),
        ("days = 60", 'days = 60\nstep = "0 h"', 5, "sim.step"),
        ("days = 60", 'days = 60\npolicy = "swarn"', 5, "sim.unknown-word"),
        ('"mon-fri 08:00-12:00"', '"mon-fri 08:00-25:00"', 6, "sim.not-a-window"),
        ('public = "open"', 'public = "opne"', 23, "sim.unknown-calendar"),
        ("count = 3\n", "count = 0\n", 13, "sim.no-parents"),
        ("count = 1\n", "count = 2\n", 9, "sim.one-nation"),
        ('tier = "county"', 'tier = "village"', 20, "sim.tier-twice"),
        ("share = 0.5", "share = 0.4", 14, "sim.shares"),
        ('store = "4 TB"', 'store = "10 GB"', 34, "sim.release-too-large"),
        ("village = \"60 d\"", "village = 0", 35, "sim.deadline-before-release"),
        ("village = \"60 d\"", "village = -3", 35, "sim.absurd"),
        ("village = \"60 d\"", "township = 60", 35, "sim.no-such-tier"),
        ('size = "20 GB"', "", 31, "sim.release-size"),
        ('size = "20 GB"', 'size = "20 GB"\nday = 60', 35, "sim.release-after-end"),
        ('size = "20 GB"', 'size = "20 GB"\npublisher = "44x"', 35, "sim.bad-publisher"),
        ("disk = 700", "disk = -700", 39, "sim.absurd"),
        ("dish = 0.2", "", 25, "sim.no-dish"),
        ('rate = "20 Mbit/s"', 'rate = "0 Mbit/s"', 26, "sim.zero"),
        ("batch = 10", 'batch = 10\nto = ["city"]', 30, "sim.no-such-tier"),
        ("batch = 10", 'batch = 10\nreleases = ["april"]', 30, "sim.unknown-release"),
        ("[satellite]", "[satellite", 25, "sim.file-not-toml"),
        ("[costs]", '[[release]]\nname = "march"\nsize = "1 GB"\n[costs]', 37, "sim.release-twice"),
    ],
)  # fmt: skip
def test_a_contradiction_is_refused_with_its_file_and_line(
    tmp_path: Path, old: str, new: str, line: int, code: str
) -> None:
    assert SMALL.count(old) >= 1
    error = refusal(write(tmp_path, SMALL.replace(old, new, 1)))
    assert (error.code, error.sentence.params["line"]) == (code, line), str(error)
    assert error.sentence.params["file"] == str(tmp_path / "small.toml")


def test_an_unknown_key_is_answered_with_the_nearest(tmp_path: Path) -> None:
    error = refusal(write(tmp_path, SMALL.replace("batch =", "bach =")))
    assert error.sentence.params["nearest"] == "batch"
    assert error.sentence.params["key"] == "disks.bach"


def test_a_what_if_says_only_what_is_different_and_is_refused_by_its_own_line(
    tmp_path: Path,
) -> None:
    write(tmp_path, SMALL)
    (tmp_path / "below").mkdir()
    text = 'extends = "../small.toml"\nname = "other"\n[satellite]\nloss = "5 %"\n'
    path = write(tmp_path / "below", text, "other.toml")
    scenario = load(path)
    assert scenario.name == "other"
    assert scenario.satellite is not None
    assert (scenario.satellite.rate, scenario.satellite.loss) == (2.5e6, 0.05)
    error = refusal(write(tmp_path / "below", text + 'rate = "0 Mbit/s"\n', "other.toml"))
    assert (error.sentence.params["file"], error.sentence.params["line"]) == (str(path), 5)
    write(tmp_path, SMALL.replace('copy_rate = "100 MB/s"', 'copy_rate = "100 MB"'))
    error = refusal(write(tmp_path / "below", text, "other.toml"))
    assert str(error.sentence.params["file"]).endswith("small.toml")
    assert error.sentence.params["line"] == 30


def test_files_that_extend_each_other_are_refused(tmp_path: Path) -> None:
    first = write(tmp_path, 'extends = "b.toml"\n', "a.toml")
    write(tmp_path, '\nextends = "a.toml"\n', "b.toml")
    error = refusal(first)
    assert (error.code, error.sentence.params["line"]) == ("sim.extends-circle", 2)
    assert refusal(write(tmp_path, 'extends = "none.toml"\n')).code == "sim.extends-missing"
    assert refusal(tmp_path / "none.toml").code == "sim.file-unreadable"


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "gb18030"])
def test_bundles_come_from_a_spreadsheet_whatever_its_encoding(
    tmp_path: Path, encoding: str
) -> None:
    (tmp_path / "list.csv").write_bytes(
        "name,size,category,priority\r\n戏曲,2 GB,opera,3\r\n\r\n农技,300 MB,,7\r\n".encode(
            encoding
        )
    )
    scenario = load(write(tmp_path, SMALL.replace('size = "20 GB"', 'file = "list.csv"')))
    bundles = bundles_of(scenario, build(scenario))
    assert bundles.names == ("march/农技", "march/戏曲")
    assert bundles.size.tolist() == [3e8, 2e9]
    assert bundles.category == ("general", "opera")


@pytest.mark.parametrize(
    ("rows", "line"),
    [
        ("name,size\na,1 GB\nb\n", 3),
        ("name,size\na,1 GB\n\nb,1 GB,2\n", 4),
        ("name,size\na,1 Gbit\n", 2),
        ("name,size\na,nan GB\n", 2),
        ("name,size\na,1 GB\na,1 GB\n", 3),
        ("name,size,priority\na,1 GB,12\n", 2),
        ("name,sise\na,1 GB\n", 1),
        ("name\na\n", 1),
        ("name,size\n", 1),
        ('name,size\n"a,1 GB\n', 2),
        ("", 1),
    ],
)
def test_a_broken_row_stops_everything_with_its_line(tmp_path: Path, rows: str, line: int) -> None:
    write(tmp_path, rows, "list.csv")
    error = refusal(write(tmp_path, SMALL.replace('size = "20 GB"', 'file = "list.csv"')))
    assert error.sentence.params["file"] == str(tmp_path / "list.csv")
    assert error.sentence.params["line"] == line


def test_bytes_of_no_known_encoding_are_refused(tmp_path: Path) -> None:
    (tmp_path / "list.csv").write_bytes(b"name,size\n\xff\xff,1 GB\n")
    error = refusal(write(tmp_path, SMALL.replace('size = "20 GB"', 'file = "list.csv"')))
    assert error.sentence.params["line"] == 2


def test_bundles_stand_in_the_order_of_the_daemons_queue(tmp_path: Path) -> None:
    text = SMALL.replace(
        'size = "20 GB"', 'sizes = ["9 GB", "1 GB"]\n'
        'deadlines.county = 50\n[[release]]\nname = "urgent"\npriority = 9\nsize = "30 GB"\n'
        '[[release]]\nname = "soon"\nsize = "30 GB"\n', 1
    )  # fmt: skip
    scenario = load(write(tmp_path, text))
    names = bundles_of(scenario, build(scenario)).names
    assert names == ("urgent/0", "soon/0", "march/1", "march/0")


def test_calendars_become_windows_and_hours(tmp_path: Path) -> None:
    scenario = load(
        write(tmp_path, SMALL.replace('["mon-fri 08:00-12:00"]', '["sun,fri-sat 22:30-06:00"]'))
    )
    found = hours(scenario, "open")
    assert found.sum() == 3 * 7.5
    assert (found[4 * 24 + 22], found[4 * 24 + 23], found[0], found[6]) == (0.5, 1.0, 1.0, 0.0)
    assert hours(scenario, "always").sum() == 168
    assert hours(scenario, "").sum() == 0
    assert windows(["daily 00:00-24:00"], Rule()) == windows(["always"], Rule())


@pytest.mark.parametrize(
    "written", ["mon", "mon-fri", "mo 08:00-09:00", "mon 08:00", "mon 8-9", "mon 08:00-08:00", "mon 08:60-09:00", ""]
)  # fmt: skip
def test_what_is_no_window_is_refused(written: str) -> None:
    with pytest.raises(UnitError):
        windows([written], Rule())


@pytest.mark.parametrize("path", sorted(SCENARIOS.glob("*.toml")), ids=lambda path: path.stem)
def test_the_scenarios_that_are_handed_out_can_be_used(path: Path) -> None:
    scenario = load(path)
    assert scenario.name == path.stem
    assert scenario.sources
    country = build(scenario, sample=0.05)
    bundles = bundles_of(scenario, country)
    assert np.isfinite(bundles.size).all()


_values = st.recursive(
    st.integers(0, 9) | st.sampled_from(['"a # b"', "'c ] d'", '"""e\n= f"""', "2027-03-01"]).map(str),
    lambda inner: st.lists(inner, max_size=3).map(lambda items: "[\n" + ",\n".join(map(str, items)) + " # end\n]")
    | st.dictionaries(st.sampled_from(["x", '"y.z"']), inner, max_size=2).map(
        lambda table: "{" + ", ".join(f"{key} = {value}" for key, value in table.items()) + "}"
    ),
    max_leaves=6,
)  # fmt: skip


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["", "[[t]]\n", "# note\n", "[[t]]\n[t.u]\n"]), st.lists(_values, max_size=3)
        ),
        max_size=4,
    )
)  # fmt: skip
def test_each_value_of_a_document_has_a_line(blocks: list[tuple[str, list[object]]]) -> None:
    text = ""
    number = 0
    expected: dict[str, int] = {}
    for header, values in blocks:
        text += header
        for value in values:
            number += 1
            expected[f"k{number}"] = text.count("\n") + 1
            text += f"k{number} = {value} # more\n"
    document = tomllib.loads(text)
    lines = toml.lines(text)
    assert set(lines) == set(_paths(document, ()))
    for path, line in lines.items():
        if path[-1] in expected:
            assert line == expected[path[-1]]


def _paths(value: object, at: toml.Path) -> list[toml.Path]:
    items: list[tuple[str | int, object]] = []
    if isinstance(value, dict):
        items = list(value.items())
    elif isinstance(value, list):
        items = list(enumerate(value))
    return [found for key, inner in items for found in [(*at, key), *_paths(inner, (*at, key))]]

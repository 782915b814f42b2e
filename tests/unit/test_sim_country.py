"""The country: a tree in breadth-first order, codes that are codes, draws that nobody else's place changes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet

from cuntong_protocol.divisions import Division
from cuntong_simulations.model.chance import chance
from cuntong_simulations.model.country import Country, build
from cuntong_simulations.scenario.errors import ScenarioError
from cuntong_simulations.scenario.load import load

SCENARIOS = Path(__file__).parents[2] / "config" / "scenarios"
LISTED = """\
name = "listed"
[run]
start = 2027-03-01
days = 60
[places]
file = "places.csv"
[[tier]]
tier = "nation"
count = 1
links = [{ down = "1 Gbit/s", up = "1 Gbit/s" }]
[[tier]]
tier = "province"
count = 0
links = [{ down = "1 Gbit/s", up = "1 Gbit/s" }]
[[tier]]
tier = "city"
count = 0
links = [{ down = "100 Mbit/s", up = "100 Mbit/s" }]
[[tier]]
tier = "county"
count = 0
links = [{ down = "10 Mbit/s", up = "10 Mbit/s" }]
store = "4 TB"
[[tier]]
tier = "township"
count = 0
links = [{ down = "2 Mbit/s", up = "2 Mbit/s" }]
[[tier]]
tier = "village"
count = 12
links = [{ down = "512 kbit/s", up = "512 kbit/s" }]
[[release]]
name = "march"
size = "20 GB"
"""
PLACES = """\
code,name,down,up,dish,store
44,广东,,,,
4419,东莞,,,,
441900003,东城,4 Mbit/s,2 Mbit/s,yes,
4401,广州,,,,
440103,荔湾,0 Mbit/s,0 Mbit/s,no,2 TB
440103001,沙面,,,,
"""


def listed(folder: Path, places: str = PLACES) -> Country:
    (folder / "places.csv").write_text(places, encoding="gb18030")
    (folder / "listed.toml").write_text(LISTED)
    return build(load(folder / "listed.toml"))


def check_tree(country: Country) -> None:
    nodes = np.arange(country.node_count)
    parent = country.parent[1:]
    assert country.parent[0] == -1
    assert (parent < nodes[1:]).all()
    assert (np.diff(parent) >= 0).all(), "children of one place follow each other"
    assert country.child_count.tolist() == np.bincount(parent, minlength=len(nodes)).tolist()
    assert (country.parent[country.first_child[country.child_count > 0]] == nodes[country.child_count > 0]).all()  # fmt: skip
    assert len(np.unique(country.code)) == len(nodes)
    assert {country.classes[one].tier for one in np.unique(country.node_class)} == set(np.unique(country.tier))  # fmt: skip


def test_splitmix_is_the_published_one() -> None:
    # The first three outputs of SplitMix64 seeded with 0 are the finaliser of multiples of its gamma.
    first = 0xE220A8397B1DCDAF
    mask = (1 << 64) - 1
    gamma = 0x9E3779B97F4A7C15

    def mix(word: int) -> int:
        word = ((word ^ (word >> 30)) * 0xBF58476D1CE4E5B9) & mask
        word = ((word ^ (word >> 27)) * 0x94D049BB133111EB) & mask
        return word ^ (word >> 31)

    assert mix(gamma) == first
    word = 12345
    for taken in (12345, 643_000, 59):
        word = mix(((taken if taken == 12345 else word + taken) + gamma) & mask)
    assert float(chance(12345, 643_000, 59)) == (word >> 11) * 2.0**-53


def test_lots_are_spread_evenly_and_no_two_draws_agree() -> None:
    lots = chance(1, np.arange(100_000)[:, None], np.arange(2))
    assert (lots >= 0).all()
    assert (lots < 1).all()
    assert lots.mean() == pytest.approx(0.5, abs=0.005)
    assert abs(np.corrcoef(lots.T)[0, 1]) < 0.02
    assert abs(np.corrcoef(lots[1:, 0], lots[:-1, 0])[0, 1]) < 0.02


@pytest.mark.parametrize("name", ["county", "province", "push-4tb"])
def test_every_generated_place_has_a_code_whose_parent_is_its_parent(name: str) -> None:
    country = build(load(SCENARIOS / f"{name}.toml"))
    check_tree(country)
    codes = [Division(f"{code:012}") for code in country.code]
    for node in range(1, country.node_count):
        assert codes[node].tier == country.tier[node]
        assert codes[node].parent == codes[country.parent[node]]


def test_the_nation_has_as_many_places_as_it_says_with_the_links_it_says() -> None:
    scenario = load(SCENARIOS / "national.toml")
    country = build(scenario)
    check_tree(country)
    assert np.bincount(country.tier).tolist() == [1, 33, 330, 2800, 40_000, 600_000]
    assert country.code[1] == 110_000_000_000
    villages = country.node_class[country.tier == 5]
    without = np.array([one.down_bytes_s == 0 for one in country.classes])[villages].mean()
    dish = np.array([one.has_dish for one in country.classes])[villages].mean()
    thin = np.array([one.link_number == 0 for one in country.classes])[villages].mean()
    assert without == pytest.approx(0.05, abs=0.002)
    assert dish == pytest.approx(0.2, abs=0.003)
    assert thin == pytest.approx(0.8 * 0.95, abs=0.003)
    assert (country.tier[country.province[1:]] == 1).all()


def test_a_sample_is_whole_counties_as_they_are_in_the_whole_country() -> None:
    scenario = load(SCENARIOS / "national.toml")
    whole, part = build(scenario), build(scenario, sample=0.05)
    check_tree(part)
    assert part.code.tolist() == whole.code[part.identity].tolist()
    of_whole = [whole.classes[one] for one in whole.node_class[part.identity]]
    assert [part.classes[one] for one in part.node_class] == of_whole
    counties = part.tier == 3
    assert part.weight[counties].sum() == pytest.approx(2800)
    assert 120 < counties.sum() < 260
    assert (part.weight[part.tier < 3] == 1).all()
    below = part.tier > 3
    assert (part.weight[below] == part.weight[part.parent[below]]).all()
    assert part.child_count[counties].tolist() == whole.child_count[part.identity[counties]].tolist()  # fmt: skip
    assert part.weight[part.tier == 5].sum() == pytest.approx(600_000, rel=0.05)


def test_a_county_that_publishes_is_in_every_sample(tmp_path: Path) -> None:
    text = (SCENARIOS / "push-4tb.toml").read_text()
    for code in ("110101", "130203"):
        path = tmp_path / "one.toml"
        path.write_text(text.replace('name = "push"', f'name = "push"\npublisher = "{code}"'))
        country = build(load(path), sample=0.01)
        assert int(code.ljust(12, "0")) in country.code


def test_a_place_less_at_the_end_leaves_the_others_draws_alone(tmp_path: Path) -> None:
    text = (SCENARIOS / "county.toml").read_text()
    text = text.replace('links = [{ down = "512 kbit/s", up = "512 kbit/s" }]', 'dish = 0.5\nlinks = [{ down = "512 kbit/s", up = "512 kbit/s" }]')  # fmt: skip
    dishes = []
    for count in (20, 19):
        path = tmp_path / "one.toml"
        path.write_text(text.replace("count = 20", f"count = {count}"))
        country = build(load(path))
        dishes.append([country.classes[one].has_dish for one in country.node_class])
    assert dishes[0][:-1] == dishes[1]
    assert len(set(dishes[0])) == 2


def test_more_places_than_codes_can_number_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "one.toml"
    path.write_text((SCENARIOS / "county.toml").read_text().replace("count = 20", "count = 1000"))
    with pytest.raises(ScenarioError) as caught:
        build(load(path))
    assert caught.value.code == "sim.too-many-below"


def test_real_places_keep_their_codes_links_and_missing_tiers(tmp_path: Path) -> None:
    country = listed(tmp_path)
    check_tree(country)
    node = {f"{code:012}": number for number, code in enumerate(country.code)}
    town = node["441900003000"]
    assert country.parent[town] == node["441900000000"], "Dongguan has no counties"
    one = country.classes[country.node_class[town]]
    assert (one.down_bytes_s, one.up_bytes_s, one.has_dish, one.link_number) == (
        5e5,
        2.5e5,
        True,
        -1,
    )
    county = country.classes[country.node_class[node["440103000000"]]]
    assert (county.down_bytes_s, county.store_bytes, county.link_number) == (0, 2e12, -2)
    assert (country.tier == 5).sum() == 12
    assert set(country.tier[country.parent[country.tier == 5]]) == {4}


def test_parquet_says_the_same_as_csv(tmp_path: Path) -> None:
    country = listed(tmp_path)
    rows = [line.split(",") for line in PLACES.splitlines()]
    table = {name: [row[n] or None for row in rows[1:]] for n, name in enumerate(rows[0])}
    parquet.write_table(pa.table(table), tmp_path / "places.parquet")
    (tmp_path / "listed.toml").write_text(LISTED.replace("places.csv", "places.parquet"))
    other = build(load(tmp_path / "listed.toml"))
    assert other.classes == country.classes
    assert other.code.tolist() == country.code.tolist()
    assert other.node_class.tolist() == country.node_class.tolist()


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ("44x,,,,,", "isn't a division code"),
        ("440103,,,,,", "stands in line 6 already"),
        ("440105001,,,,,", "there should be 440105000000"),
        ("4403,,512,,,", "has to be a rate"),
        ("4403,,0 kbit/s,2 Mbit/s,,", "without a link both are 0"),
        ("4403,,,,maybe,", "yes or no"),
        ("4403,,,,,-1 GB", "makes no sense"),
        ("4403,,,", "4 cells instead of 6"),
    ],
)
def test_a_broken_row_is_refused_with_its_line(tmp_path: Path, row: str, reason: str) -> None:
    with pytest.raises(ScenarioError) as caught:
        listed(tmp_path, f"{PLACES}{row}\n")
    assert "places.csv, line 8: " in str(caught.value)
    assert reason in str(caught.value)


def test_listed_places_cant_lie_below_generated_ones(tmp_path: Path) -> None:
    (tmp_path / "places.csv").write_text("code\n440103001\n")
    (tmp_path / "one.toml").write_text(LISTED.replace("count = 0", "count = 3"))
    with pytest.raises(ScenarioError, match="none of that tier itself"):
        build(load(tmp_path / "one.toml"))

"""Topologies and scenarios: what is refused, who is whose parent, and which links a packet crosses."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import pytest

from cuntong_protocol.divisions import Tier
from cuntong_simulations.lab.bounds import last_bound_s, place_bound_s
from cuntong_simulations.lab.errors import LabFileError
from cuntong_simulations.lab.scenario import BUILT_IN, chosen, load_scenario, make_payload
from cuntong_simulations.lab.topology import Topology, load_topology, parse_topology
from cuntong_simulations.lab.wires import make_plan

LAB = Path(__file__).parents[2] / "config" / "lab"
NATION, PROVINCE, COUNTY = "000000000000", "440000000000", "440101000000"
VILLAGE, NEIGHBOUR, FAR = "440101001001", "440101001002", "450101001001"


def tables(**changes: Any) -> dict[str, Any]:
    text = """
        name = "small"
        [[links]]
        nodes = ["000000000000", "440101000000"]
        down_kbit_s = 4000
        up_kbit_s = 4000
        delay_ms = 10
        [[links]]
        nodes = ["440101001001", "440101001002"]
        down_kbit_s = 512
        up_kbit_s = 128
        delay_ms = 20
    """
    return tomllib.loads(text) | changes


def r1() -> Topology:
    return load_topology(LAB / "R1.toml")


def refusal(given: dict[str, Any]) -> LabFileError:
    with pytest.raises(LabFileError) as caught:
        parse_topology(given)
    return caught.value


@pytest.mark.parametrize("path", sorted(LAB.glob("*.toml")), ids=lambda path: path.stem)
def test_every_topology_we_ship_loads(path: Path) -> None:
    topology = load_topology(path)
    assert topology.name == path.stem
    plan = make_plan(topology, {node.code: at for at, node in enumerate(topology.nodes, start=3)})
    assert len(plan.ends) == len(topology.nodes)
    assert all(len(end.routes) == len(topology.nodes) - 1 for end in plan.ends)


@pytest.mark.parametrize("path", sorted(LAB.glob("scenarios/*.toml")), ids=lambda path: path.stem)
def test_every_scenario_we_ship_loads(path: Path) -> None:
    assert load_scenario(str(path)).name == path.stem


def test_misspelt_key_is_refused_with_the_nearest() -> None:
    given = tables()
    given["links"][0]["delay_msec"] = 5
    error = refusal(given)
    assert error.code == "lab.unknown-key"
    found = error.sentence.params
    assert (found["key"], found["nearest"]) == ("links.delay_msec", "delay_ms")


@pytest.mark.parametrize(
    ("change", "key"),
    [
        ({"network": "10.0.0.0/30"}, "network"),
        ({"network": "nonsense"}, "network"),
        ({"source": "990000000000"}, "source"),
        ({"routing": "star"}, "routing"),
        ({"links": []}, "links"),
    ],
)
def test_value_that_makes_no_sense_is_refused(change: dict[str, Any], key: str) -> None:
    error = refusal(tables(**change))
    assert error.code == "lab.bad-value"
    assert error.sentence.params["key"] == key


def test_place_that_is_there_twice_is_refused() -> None:
    given = tables()
    given["links"][1]["nodes"].append(COUNTY)
    assert refusal(given).sentence.params["key"] == f"links.nodes: {COUNTY}"


def test_two_places_with_nobody_above_are_refused() -> None:
    given = tables()
    given["links"][0]["nodes"] = [PROVINCE, COUNTY]
    given["links"][1]["nodes"] = [FAR]
    assert refusal(given).code == "lab.bad-value"


def test_parent_is_the_nearest_place_above_that_exists() -> None:
    topology = parse_topology(tables())
    assert [node.parent for node in topology.nodes] == ["", NATION, COUNTY, COUNTY]
    assert [node.tier for node in topology.last_tier] == [Tier.VILLAGE, Tier.VILLAGE]


def test_a_place_knows_its_link_and_may_be_told_more() -> None:
    village = parse_topology(tables()).node(VILLAGE)
    known = {
        "link_down_kbit_s": int(village.link.down_kbit_s),
        "link_up_kbit_s": int(village.link.up_kbit_s),
    }
    assert village.settings == {"bandwidth": known}
    given = tables()
    given["links"][1]["config"] = {"bandwidth": {"up_kbit_s": 50, "link_up_kbit_s": 0}}
    assert parse_topology(given).node(VILLAGE).settings == {
        "bandwidth": {**known, "up_kbit_s": 50, "link_up_kbit_s": 0}
    }


@pytest.mark.parametrize("network", ["10.1.0.0/16", "100.64.0.0/10", "fd77::/64"])
def test_addresses_lie_in_the_range(network: str) -> None:
    topology = parse_topology(tables(network=network))
    assert len({node.address for node in topology.nodes}) == 4


def test_mesh_packet_crosses_two_links() -> None:
    assert r1().path(VILLAGE, FAR) == [(VILLAGE, "up"), (FAR, "down")]


def test_hub_packet_between_villages_crosses_the_link_of_their_county_twice() -> None:
    topology = load_topology(LAB / "R1h.toml")
    assert topology.path(VILLAGE, NEIGHBOUR) == [
        (VILLAGE, "up"),
        (COUNTY, "down"),
        (COUNTY, "up"),
        (NEIGHBOUR, "down"),
    ]
    assert topology.path(VILLAGE, COUNTY) == [(VILLAGE, "up"), (COUNTY, "down")]
    assert topology.path(NATION, VILLAGE) == [
        (NATION, "up"),
        (PROVINCE, "down"),
        (PROVINCE, "up"),
        (COUNTY, "down"),
        (COUNTY, "up"),
        (VILLAGE, "down"),
    ]


def test_bounds_are_those_of_the_narrowest_link_and_of_the_uplinks() -> None:
    topology = r1()
    assert place_bound_s(topology, topology.node(VILLAGE), 8e6) == 125.0
    assert place_bound_s(topology, topology.node(PROVINCE), 8e6) == 6.4
    assert last_bound_s(topology, 8e6) == 125.0
    assert last_bound_s(load_topology(LAB / "county20.toml"), 8e6) == 125.0
    # Twenty copies over the county's 4 Mbit/s.
    assert last_bound_s(load_topology(LAB / "county20h.toml"), 8e6) == 320.0


def test_chosen_places() -> None:
    topology = r1()
    assert chosen(topology, "none") == []
    assert len(chosen(topology, "all")) == 12
    assert [node.code[-3:] for node in chosen(topology, "first")] == ["001"] * 4
    assert [node.code[-3:] for node in chosen(topology, "last")] == ["003"] * 4
    assert [node.code for node in chosen(topology, [PROVINCE])] == [PROVINCE]


def test_unknown_scenario_names_those_there_are() -> None:
    with pytest.raises(LabFileError) as caught:
        load_scenario("idel")
    assert caught.value.code == "lab.no-scenario"
    assert "pages" in str(caught.value.sentence.params["known"])


def test_payload_is_the_same_for_the_same_seed(tmp_path: Path) -> None:
    payload = BUILT_IN["idle"].payload
    sizes = [make_payload(payload, tmp_path / name, seed) for name, seed in (("a", 7), ("b", 7))]
    assert sizes == [8_000_000, 8_000_000]
    for path in (tmp_path / "a").iterdir():
        assert path.read_bytes() == (tmp_path / "b" / path.name).read_bytes()

"""A village with a dish and a link: what comes by satellite doesn't cross the link."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.on_air import on_air
from tests.support.world import World, assert_same_folder, make_films

pytest.importorskip("raptorq", reason="the datacast needs raptorq")

MOST_OVER_LINK = 0.05
LINK_KBIT_S = 512


def test_village_with_a_dish_leaves_its_link_to_the_public(world: World, tmp_path: Path) -> None:
    folder = make_films(tmp_path / "films", [5_000_000, 4_500_000], seed=5)
    on_air(world, world.nation, world.west, has_links=True)
    world.limit(LINK_KBIT_S, world.west)
    world.start(world.nation, world.province, world.county, world.west)
    world.until(
        "the village hears the satellite",
        lambda: world.net.ask(world.west, "datacast")["receiver"]["session"],
    )
    bundle = world.publish(world.nation, folder)
    world.until_complete(bundle, world.county, world.west, timeout_s=120)
    assert_same_folder(folder, world.library(world.west, bundle))
    crossed = world.traffic(world.west)["down_wire"]
    print(f"{crossed} of {bundle.payload_bytes} bytes crossed the village's link")
    assert crossed <= MOST_OVER_LINK * bundle.payload_bytes

"""From a centre over a satellite to villages without a way back, in network namespaces of the test's own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from cuntong_tools.demo.network import Place
from tests.e2e.test_delivery import text_collection
from tests.support.sky import Sky, can_have_namespaces
from tests.support.world import assert_same_folder, make_films, make_poems

_WHY_NOT = can_have_namespaces()
pytestmark = pytest.mark.skipif(bool(_WHY_NOT), reason=_WHY_NOT)
VILLAGES = ("441900003005", "441900003006", "441900003007")
WITHOUT_DISH = "441900003008"


@pytest.fixture
def sky(tmp_path: Path) -> Iterator[Sky]:
    """A nation with an uplink, three villages with a dish and nothing else, one village with a cable."""
    world = Sky(tmp_path / "network")
    try:
        yield world
    finally:
        world.close()


def test_villages_without_a_way_back_show_what_was_cast_and_seed_a_neighbour(
    sky: Sky, tmp_path: Path
) -> None:
    folders = {
        "poetry": text_collection(tmp_path / "poetry"),
        "films": make_films(tmp_path / "films", [3_000_000, 5_500_000, 70_000], seed=1),
        "letters": make_poems(tmp_path / "letters", files=3, seed=2, lines=5),
    }
    sky.found()
    villages = [sky.village(code, dish=True) for code in VILLAGES]
    cabled = sky.village(WITHOUT_DISH, dish=False)
    sky.net.enrol(sky.township)  # Last, so that its pack says who the villages are.
    for village in villages:
        assert "[[network.parents]]" not in _said(village)
    sky.start(sky.nation, *villages)
    bundles = {name: sky.publish(sky.nation, folder) for name, folder in folders.items()}
    for name, bundle in bundles.items():
        sky.until_complete(bundle, *villages, timeout_s=240)
        for village in villages:
            assert_same_folder(folders[name], sky.library(village, bundle))
            assert sky.traffic(village)["down_wire"] == 0
    sky.net.stop(sky.nation)

    # A cable from one of them to the township, which has neither dish nor uplink, and where another village hangs.
    seeding = villages[0]
    sky.net.stop(seeding)
    sky.lay_cable(seeding)
    sky.start(sky.township, seeding, cabled)
    for name, bundle in bundles.items():
        sky.until_complete(bundle, cabled, timeout_s=120)
        assert_same_folder(folders[name], sky.library(cabled, bundle))
    sky.until("it is counted who sent", lambda: sky.traffic(seeding)["up"] > 0)


def _said(place: Place) -> str:
    """The lines of a place's configuration that aren't comments."""
    lines = place.paths.config.read_text().splitlines()
    return "\n".join(line for line in lines if not line.startswith("#"))

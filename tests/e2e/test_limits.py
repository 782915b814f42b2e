"""`cuntong pause`, `resume` and `limit` while something is on its way."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cuntong_daemon.policy.uplink import SHARED_OUT
from cuntong_tools.demo.network import Place
from tests.support.world import World, assert_same_folder, make_films

RATE_KBIT_S = 8192
LESS_KBIT_S = 1024
STOP_S = 2
"""A pause stops what is moved within so much time (SPEC 10.3)."""
OPENS_S, OPEN_S, CLOSED_S = 8, 5, 6
WINDOW_S = 1.0
"""At each of these rates many packets come in that time."""


def rate_at_most(world: World, place: Place, kbit_s: int) -> Callable[[], bool]:
    """Whether no more than that came in over the last window of its own, with all overhead."""
    before, began = world.traffic(place)["down_wire"], time.monotonic()

    def is_at_most() -> bool:
        nonlocal before, began
        now, seconds = world.traffic(place)["down_wire"], time.monotonic() - began
        if seconds < WINDOW_S:
            return False
        moved, before, began = now - before, now, began + seconds
        return bool(moved * 8 <= kbit_s * 1000 * seconds)

    return is_at_most


def test_reading_room_slows_stops_and_goes_on_with_a_transfer(world: World, tmp_path: Path) -> None:
    folder = make_films(tmp_path / "series", [2_000_000] * 4, seed=1)
    village = world.west
    world.limit(RATE_KBIT_S, village)
    world.start(world.county, village)
    bundle = world.publish(world.county, folder)
    world.until("it comes", lambda: world.net.progress(village, bundle.id, 1) > 0.1)

    world.run(village, "limit", "--down", str(LESS_KBIT_S))
    world.until("it comes slower", rate_at_most(world, village, LESS_KBIT_S * 5 // 4))
    had = world.net.progress(village, bundle.id, 1)
    assert 0.1 < had < 1.0
    world.run(village, "limit", "--none")
    world.until("more comes again", lambda: world.net.progress(village, bundle.id, 1) > had + 0.1)

    assert "paused" in world.run(village, "pause")
    came = world.traffic(village)["down_wire"]
    world.until("nothing comes", rate_at_most(world, village, 0))
    late = world.traffic(village)["down_wire"] - came
    print(f"{late} bytes came after the pause")
    assert late <= RATE_KBIT_S * 1000 // 8 * STOP_S
    assert had < world.net.progress(village, bundle.id, 1) < 1.0
    bandwidth = world.status(village).bandwidth
    assert bandwidth is not None
    assert bandwidth.is_paused
    assert "Somebody paused it" in " ".join(world.run(village, "status").split())
    assert not world.library(village, bundle).exists()

    world.run(village, "resume")
    world.until_complete(bundle, village)
    assert_same_folder(folder, world.library(village, bundle))
    happened = " ".join(world.run(village, "events").split())
    for event in (
        f"Somebody limited transfers until it is taken back: in {LESS_KBIT_S} kbit/s, out -.",
        "Somebody took all limits back.",
        "Somebody paused transfers until it is taken back.",
        "Somebody ended the pause.",
    ):
        assert event in happened


def opening_hours(place: Place, *hours: tuple[datetime, datetime]) -> None:
    """Pause a place that doesn't run yet for good, but for these hours of its calendar."""
    tables = "".join(
        f"[[bandwidth.exceptions]]\nfrom = {begins.isoformat()}\nto = {ends.isoformat()}\ndown_kbit_s = {RATE_KBIT_S}\n"
        for begins, ends in hours
    )
    window = '[[bandwidth.windows]]\nfrom = "00:00"\nto = "24:00"\npause = true\n'
    config = place.paths.config
    config.write_text(f'[bandwidth]\ntime_zone = "UTC"\n{window}{tables}\n' + config.read_text())


def test_a_place_transfers_in_its_hours_only_and_is_right_when_it_starts(
    world: World, tmp_path: Path
) -> None:
    """Hours of seconds, by the wall clock; the village starts while it is closed."""
    folder = make_films(tmp_path / "series", [2_000_000] * 4, seed=2)
    village = world.west
    world.start(world.county)
    bundle = world.publish(world.county, folder)
    begins = datetime.now(UTC) + timedelta(seconds=OPENS_S)
    ends = begins + timedelta(seconds=OPEN_S)
    again = ends + timedelta(seconds=CLOSED_S)
    opening_hours(village, (begins, ends), (again, again + timedelta(days=1)))
    world.start(village)

    def until(moment: datetime) -> int:
        """What had come by then."""
        time.sleep(max(0.0, (moment - datetime.now(UTC)).total_seconds()))
        return int(world.traffic(village)["down_wire"])

    world.until("the catalogue comes", lambda: world.bundle(village, bundle.id) is not None)
    assert until(begins) == 0
    world.until("it comes", lambda: world.net.progress(village, bundle.id, 1) > 0)
    until(ends)
    stopped = until(ends + timedelta(seconds=STOP_S))
    assert stopped > 0
    assert until(again - timedelta(seconds=0.5)) == stopped
    assert world.net.progress(village, bundle.id, 1) < 1.0
    world.until_complete(bundle, village)
    assert_same_folder(folder, world.library(village, bundle))


def test_a_thin_uplink_is_shared_out_among_villages_and_each_is_told_why(
    world: World, tmp_path: Path
) -> None:
    """8 Mbit/s for two villages that could take 6 each, in a hub: 3,840 for each, then all for the one that is left."""
    folder = make_films(tmp_path / "series", [1_000_000] * 4, seed=3)
    uplink, downlink = 8_000, 6_000
    for place, link in (
        (world.county, f"link_up_kbit_s = {uplink}"),
        *((village, f"link_down_kbit_s = {downlink}") for village in world.villages),
    ):
        config = place.paths.config
        config.write_text(f"[bandwidth]\n{link}\n\n" + config.read_text())
    world.start(world.county, *world.villages)
    bundle = world.publish(world.county, folder)

    def limits() -> list[tuple[int, str]]:
        found = [world.status(village).bandwidth for village in world.villages]
        return [
            (one.limit_down_kbit_s, one.limit_down_reason.code if one.limit_down_reason else "")
            for one in found
            if one is not None
        ]

    share = (int(uplink * SHARED_OUT / 2), "bandwidth.shared-out")
    world.until("both are told their share", lambda: limits() == [share] * 2)
    said = " ".join(world.run(world.west, "limit").split())
    assert "The uplink above is shared among all places that want something." in said
    world.until_complete(bundle, *world.villages)
    world.until("nothing is shared out any more", lambda: limits() == [(0, "")] * 2)
    for village in world.villages:
        assert_same_folder(folder, world.library(village, bundle))

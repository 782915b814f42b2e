"""Daemons that are killed, stopped, or gone for good in the middle of a transfer."""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest

from cuntong_tools.demo.network import Place
from tests.support.world import Bundle, World, assert_same_folder, make_films

IS_FULL = bool(os.environ.get("CUNTONG_E2E_FULL"))
KILLS = 20 if IS_FULL else 3
MOST_FETCHED_AGAIN = 0.05
RATE_KBIT_S = 4096
FILMS = [1_500_000] * 4 if IS_FULL else [600_000] * 4


def received(world: World, place: Place) -> int:
    """Bytes that a place's limited link has let in since the daemon's start, with all overhead.

    What its peers have sent is more: the limit stands for the link, and what waits behind it has not crossed.
    """
    return int(world.traffic(place)["down_wire"])


def undisturbed(world: World, folder: Path) -> dict[str, float]:
    """What each byte of a bundle costs each place when nobody is killed."""
    bundle = world.publish(world.nation, make_films(folder, FILMS, seed=0))
    world.until_complete(bundle)
    return {place.code: received(world, place) / bundle.payload_bytes for place in world.all[1:]}


def kill_in_transfer(
    world: World, folder: Path, number: int, randomness: random.Random, costs: dict[str, float]
) -> float:
    """Publish a folder, kill somebody on its way; returns what came again, as a share of the bundle."""
    make_films(folder, FILMS, seed=number)
    victim = randomness.choice(world.all)
    watched = randomness.choice(world.all[1:])
    moment = randomness.uniform(0.0, 0.95)
    before = {place.code: received(world, place) for place in world.all}
    bundle = world.publish(world.nation, folder)
    world.until(
        f"{watched.name} has {moment:.0%}",
        lambda: world.net.progress(watched, bundle.id, 1) > moment,
    )
    before[victim.code] -= received(world, victim)
    world.net.kill(victim)
    world.start(victim)
    took_s = world.until_complete(bundle)
    for place in world.all:
        assert_same_folder(folder, world.library(place, bundle))
    again = {
        place.name: received(world, place)
        - before[place.code]
        - round(costs[place.code] * bundle.payload_bytes)
        for place in world.all[1:]
    }
    print(
        f"{number}: {victim.name} killed when {watched.name} had {moment:.0%}: {sum(again.values())}"
        f" of {bundle.payload_bytes} bytes fetched again {again}, whole {took_s:.1f} s later",
        flush=True,
    )
    return sum(again.values()) / bundle.payload_bytes


@pytest.mark.timeout(KILLS * 100)
def test_kills_at_any_moment_cost_a_few_pieces_and_no_manual_step(
    world: World, tmp_path: Path
) -> None:
    randomness = random.Random(20261286)
    # Those above serve several: so all links are about as busy, and any may be in the middle of something.
    world.limit(RATE_KBIT_S * 2, world.nation, world.province, world.county)
    world.limit(RATE_KBIT_S, *world.villages)
    world.start()
    costs = undisturbed(world, tmp_path / "series0")
    shares = [
        kill_in_transfer(world, tmp_path / f"series{number}", number, randomness, costs)
        for number in range(1, KILLS + 1)
    ]
    average = sum(shares) / len(shares)
    print(f"{KILLS} kills: {average:.2%} fetched again on average, {max(shares):.2%} at most")
    assert average <= MOST_FETCHED_AGAIN


def half_way(world: World, bundle: Bundle, *places: Place) -> None:
    world.until(
        "about half of it is there",
        lambda: all(world.net.progress(it, bundle.id, bundle.revision) > 0.4 for it in places),
    )


def test_village_that_was_stopped_goes_on_where_it_was(world: World, tmp_path: Path) -> None:
    folder = make_films(tmp_path / "series", [500_000] * 4, seed=1)
    world.limit(RATE_KBIT_S, *world.villages)
    world.start(world.county, *world.villages)
    bundle = world.publish(world.county, folder)
    half_way(world, bundle, world.west)
    had = received(world, world.west)
    world.net.stop(world.west)
    assert not world.library(world.west, bundle).exists()
    world.start(world.west)
    world.until_complete(bundle)
    assert_same_folder(folder, world.library(world.west, bundle))
    again = had + received(world, world.west) - received(world, world.east)
    print(f"{again} of {bundle.payload_bytes} bytes fetched again")
    # Blocks that were half received when it stopped, and a second greeting.
    assert again <= bundle.payload_bytes * 0.04


def test_villages_finish_from_the_province_after_the_county_is_gone_for_good(
    world: World, tmp_path: Path
) -> None:
    folder = make_films(tmp_path / "series", [500_000] * 4, seed=2)
    world.limit(RATE_KBIT_S, *world.villages)
    world.start()
    bundle = world.publish(world.nation, folder)
    half_way(world, bundle, *world.villages)
    world.net.kill(world.county)
    took_s = world.until_complete(bundle)
    print(f"complete {took_s:.1f} s after the county was lost")
    for village in world.villages:
        assert_same_folder(folder, world.library(village, bundle))
        parent = world.status(village).parent
        assert parent.code == world.province.code
        assert parent.fallback
    later = make_films(tmp_path / "later", [200_000], seed=3)
    after = world.publish(world.nation, later)
    world.until_complete(after)
    for village in world.villages:
        assert_same_folder(later, world.library(village, after))

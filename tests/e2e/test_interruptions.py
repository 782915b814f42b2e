"""Daemons that are killed, stopped, or gone for good in the middle of a transfer."""

from __future__ import annotations

import os
import random
from pathlib import Path

from cuntong_tools.demo.network import Place
from tests.support.world import Bundle, World, assert_same_folder, make_films

IS_FULL = bool(os.environ.get("CUNTONG_E2E_FULL"))
KILLS = 20 if IS_FULL else 3
MOST_FETCHED_AGAIN = 0.05
RATE_KBIT_S = 4096


def received(world: World, place: Place, before: dict[str, int]) -> int:
    """Payload bytes that others have sent to a place since `before`; they must have kept running."""
    others = [other for other in world.all if other is not place]
    return sum(world.sent_to(place, other) - before[other.code] for other in others)


def sent_so_far(world: World, place: Place) -> dict[str, int]:
    return {other.code: world.sent_to(place, other) for other in world.all if other is not place}


def kill_in_transfer(world: World, folder: Path, number: int, randomness: random.Random) -> float:
    """Publish a folder, kill somebody on its way; returns what came again, as a share of the bundle."""
    make_films(folder, [700_000] * 4, seed=number)
    victim = randomness.choice(world.all)
    watched = randomness.choice([place for place in world.all if place is not world.nation])
    moment = randomness.uniform(0.0, 0.95)
    sent_before = sent_so_far(world, victim)
    others = [place for place in world.all if place not in (world.nation, victim)]
    had = {place.code: world.traffic(place)["down"] for place in others}
    bundle = world.publish(world.nation, folder)
    world.until(
        f"{watched.name} has {moment:.0%}",
        lambda: world.net.progress(watched, bundle.id, 1) > moment,
    )
    world.net.kill(victim)
    world.start(victim)
    took_s = world.until_complete(bundle)
    for place in world.all:
        assert_same_folder(folder, world.library(place, bundle))
    fetched = sum(world.traffic(place)["down"] - had[place.code] for place in others)
    if victim is not world.nation:
        fetched += received(world, victim, sent_before)
    again = fetched - 4 * bundle.payload_bytes
    print(
        f"{number}: {victim.name} killed when {watched.name} had {moment:.0%}: {again} of"
        f" {bundle.payload_bytes} bytes fetched again, whole {took_s:.1f} s later",
        flush=True,
    )
    return again / bundle.payload_bytes


def test_kills_at_any_moment_cost_a_few_pieces_and_no_manual_step(
    world: World, tmp_path: Path
) -> None:
    randomness = random.Random(20261122)
    # Those above serve several: so all links are about as busy, and any may be in the middle of something.
    world.limit(RATE_KBIT_S * 2, world.nation, world.province, world.county)
    world.limit(RATE_KBIT_S, *world.villages)
    world.start()
    shares = [
        kill_in_transfer(world, tmp_path / f"series{number}", number, randomness)
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
    world.start()
    bundle = world.publish(world.nation, folder)
    half_way(world, bundle, world.west)
    world.net.stop(world.west)
    assert not world.library(world.west, bundle).exists()
    world.start(world.west)
    world.until_complete(bundle)
    assert_same_folder(folder, world.library(world.west, bundle))
    again = world.sent_to(world.west, world.county) - bundle.payload_bytes
    print(f"{again} of {bundle.payload_bytes} bytes fetched again")
    assert again <= bundle.payload_bytes * 0.01


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

"""Damaged disks, and bundles that must go."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

from cuntong_daemon.store.torrents import load_torrent
from cuntong_tools.demo.network import Place
from tests.support.world import Bundle, World, assert_same_folder, make_films, make_poems

WITHDRAWN_WITHIN_S = 15
GREETING_BYTES = 8 * 1024
"""What a connection costs beside pieces."""


def flip_a_bit(path: Path) -> None:
    """Change one bit in the middle of a read-only file, as a failing disk does: its time stays."""
    times = path.stat()
    path.chmod(0o644)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0x10
    path.write_bytes(data)
    path.chmod(0o444)
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))


def mixed_bundle(world: World, tmp_path: Path) -> tuple[Path, Bundle]:
    """Films, which lie in the payload as they are, and poems, which are packed; complete everywhere."""
    folder = make_films(tmp_path / "mixed", [300_000] * 3, seed=11)
    make_poems(folder / "诗", files=5, seed=12)
    bundle = world.publish(world.county, folder)
    world.until_complete(bundle)
    return folder, bundle


def verify(world: World, place: Place, bundle: Bundle) -> int:
    """`cuntong verify`; returns how much it found damaged, which its exit code tells too."""
    done = world.net.try_run(place, "verify", bundle.id, "--json")
    (step,) = json.loads(done.stdout)
    assert (done.returncode != 0) == (step["bad_pieces"] > 0)
    return int(step["bad_pieces"])


def repaired(world: World, place: Place) -> bool:
    return any(event.kind == "repaired" for event in world.status(place).repairs)


def test_flipped_bits_in_the_store_are_fetched_again_from_the_county(
    world: World, tmp_path: Path
) -> None:
    world.start(world.county, world.west)
    folder, bundle = mixed_bundle(world, tmp_path)
    payload = world.store(world.west, bundle)
    damaged = [min(payload.glob(it)) for it in ("**/*.mp4", "**/packs/*", "*/index")]
    for path in damaged:
        flip_a_bit(path)
    before = world.wire_bytes(world.west)
    assert verify(world, world.west, bundle) == len(damaged)
    world.until("the repair is told", lambda: repaired(world, world.west))
    world.until_complete(bundle, world.west)
    crossed = world.wire_bytes(world.west) - before
    piece_bytes = load_torrent(world.west.paths, bundle.infohash).piece_length
    print(f"{crossed} bytes crossed the link for {len(damaged)} pieces of at most {piece_bytes}")
    assert crossed < len(damaged) * piece_bytes + GREETING_BYTES
    assert_same_folder(folder, world.library(world.west, bundle))
    assert "damage" in world.run(world.west, "events", "--json")
    assert verify(world, world.west, bundle) == 0
    assert_same_folder(folder, world.library(world.west, bundle))


def test_flipped_bit_in_the_library_is_made_good(world: World, tmp_path: Path) -> None:
    world.start(world.county, world.west)
    folder, bundle = mixed_bundle(world, tmp_path)
    library = world.library(world.west, bundle)
    film, poem = min(library.glob("*.mp4")), min(library.glob("诗/**/*.json"))
    flip_a_bit(poem)  # Its pack in the store is whole: nothing needs to be fetched.
    before = world.wire_bytes(world.west)
    assert verify(world, world.west, bundle) == 1
    world.until("the repair is told", lambda: repaired(world, world.west))
    assert_same_folder(folder, library)
    assert world.wire_bytes(world.west) == before
    flip_a_bit(film)  # One file with that in the store, where links are.
    assert verify(world, world.west, bundle) == 1
    world.until_complete(bundle, world.west)
    assert_same_folder(folder, library)


def bits_of(world: World, place: Place, bundle: Bundle) -> list[Path]:
    """What a place still has of a bundle on its disk."""
    paths = place.paths
    return [
        path
        for path in (
            world.library(place, bundle),
            world.store(place, bundle),
            paths.torrents / f"{bundle.infohash.hex()}.torrent",
            paths.resume / bundle.infohash.hex(),
        )
        if path.exists()
    ]


def is_gone(world: World, place: Place, bundle: Bundle) -> bool:
    return not bits_of(world, place, bundle) and world.bundle(place, bundle.id) is None


def test_withdrawn_bundle_goes_from_connected_villages_and_stays_away(
    world: World, tmp_path: Path
) -> None:
    folder = make_films(tmp_path / "film", [200_000] * 2, seed=13)
    world.start()
    bundle = world.publish(world.nation, folder)
    world.until_complete(bundle)
    kept = tmp_path / "kept"
    for name in ("store", "library", "torrents"):
        shutil.copytree(getattr(world.west.paths, name), kept / name)
    world.withdraw(world.nation, bundle, "wrong film")
    took_s = world.until(
        "both villages have nothing of it",
        lambda: all(is_gone(world, village, bundle) for village in world.villages),
    )
    print(f"gone from both villages {took_s:.2f} s after `cuntong withdraw` had ended")
    assert took_s < WITHDRAWN_WITHIN_S
    world.until(
        "it is gone everywhere", lambda: all(is_gone(world, it, bundle) for it in world.all)
    )

    # Somebody puts it back by hand, at a village and at the county above it.
    for place in (world.west, world.county):
        for name in ("store", "library", "torrents"):
            shutil.copytree(kept / name, getattr(place.paths, name), dirs_exist_ok=True)
    world.until(
        "the library shows nothing of it",
        lambda: (
            not any(world.library(place, bundle).exists() for place in (world.west, world.county))
        ),
    )
    for place in (world.west, world.county):
        world.net.stop(place)
        shutil.copytree(kept / "library", place.paths.library, dirs_exist_ok=True)
    world.start(world.county, world.west)
    for place in (world.west, world.county):
        world.until("it is gone again", lambda place=place: is_gone(world, place, bundle))
    assert world.traffic(world.county)["up_wire"] == 0
    why = json.loads(world.run(world.west, "status", "--why", bundle.id, "--json"))
    assert why["reasons"][0]["code"] == "why.withdrawn"
    assert why["reasons"][0]["params"]["reason"] == "wrong film"


def test_bundle_that_is_withdrawn_while_it_is_downloading_leaves_nothing(
    world: World, tmp_path: Path
) -> None:
    folder = make_films(tmp_path / "film", [500_000] * 4, seed=14)
    world.limit(2048, *world.villages)
    world.start(world.county, *world.villages)
    bundle = world.publish(world.county, folder)
    world.until(
        "some of it is there",
        lambda: all(world.net.progress(it, bundle.id, 1) > 0.1 for it in world.villages),
    )
    world.net.stop(world.east)
    world.withdraw(world.county, bundle, "wrong film")
    took_s = world.until("it is gone from the west", lambda: is_gone(world, world.west, bundle))
    assert took_s < WITHDRAWN_WITHIN_S
    # The one that was away meanwhile: it hears of it when it is back.
    world.start(world.east)
    world.until("it is gone from the east", lambda: is_gone(world, world.east, bundle))

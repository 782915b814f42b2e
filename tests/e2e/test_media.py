"""Disks and discs by post, end to end: a county writes volumes, villages that were never connected show them."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

import msgspec
import pytest

from cuntong_daemon.control.media_messages import MediaStatus
from cuntong_tools.demo.network import Place
from tests.e2e.test_delivery import text_collection
from tests.support.world import (
    EAST,
    PROVINCE,
    WEST,
    World,
    assert_same_folder,
    make_films,
    make_poems,
)

VOLUME = "25MB"
VOLUME_BYTES = 25_000_000


def volumes_in(folder: Path) -> list[Path]:
    """Volumes, by number."""
    return sorted(folder.glob("cuntong-*"), key=lambda path: int(path.name.rpartition("-")[2]))


def size_of(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def validate(volume: Path) -> None:
    """`bagit.py --validate` accepts it."""
    pytest.importorskip("bagit")
    done = subprocess.run(
        [sys.executable, "-m", "bagit", "--validate", str(volume)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def through_fat(volume: Path, folder: Path) -> Path:
    """Put a volume into an image of 25 MB with a FAT file system, and take it out again at another place."""
    if shutil.which("mcopy") is None or shutil.which("mkfs.fat") is None:
        target = folder / volume.name
        shutil.copytree(volume, target)
        return target
    image = folder / f"{volume.name}.img"
    with image.open("wb") as file:
        file.truncate(VOLUME_BYTES)
    subprocess.run(["mkfs.fat", str(image)], check=True, capture_output=True)
    environment = {"LC_ALL": "C.UTF-8", "PATH": "/usr/bin:/bin", "MTOOLS_SKIP_CHECK": "1"}
    for arguments in (["-s", str(volume), "::/"], ["-s", "-n", f"::/{volume.name}", str(folder)]):
        subprocess.run(
            ["mcopy", "-i", str(image), *arguments],
            check=True,
            capture_output=True,
            env=environment,
        )
    image.unlink()
    return folder / volume.name


def export(
    world: World, place: Place, target: Path, *codes: str, options: Sequence[str] = ()
) -> str:
    """`cuntong media export` for places."""
    target.mkdir(parents=True, exist_ok=True)
    places = [word for code in codes for word in ("--for", code)]
    return world.run(place, "media", "export", str(target), *places, *options, "--yes")


def status(world: World, place: Place) -> MediaStatus:
    return msgspec.convert(world.net.ask(place, "media.status"), MediaStatus)


def import_all(world: World, place: Place, volumes: Iterable[Path]) -> None:
    for volume in volumes:
        world.run(place, "media", "import", str(volume))


def test_village_that_was_never_connected_shows_what_came_on_disks_in_any_order(
    world: World, tmp_path: Path
) -> None:
    folders = {
        "poetry": text_collection(tmp_path / "poetry"),
        "films": make_films(tmp_path / "films", [9_000_000, 4_100_000, 70_000], seed=1),
        "opera": make_films(tmp_path / "opera", [30_000_000, 2_000_000], seed=2),
    }
    world.start(world.nation, world.province, world.county)
    bundles = {name: world.publish(world.county, folder) for name, folder in folders.items()}
    for bundle in bundles.values():
        world.until_complete(bundle, world.county)
    export(world, world.county, tmp_path / "out", WEST, EAST, options=["--volume", VOLUME])
    written = volumes_in(tmp_path / "out")
    assert len(written) >= 2
    for volume in written:
        assert size_of(volume) <= VOLUME_BYTES
        validate(volume)
    (tmp_path / "post").mkdir()
    posted = [through_fat(volume, tmp_path / "post") for volume in written]

    # No network at all: the village has nobody to dial.
    world.net.stop(world.county, world.province, world.nation)
    world.net.start(world.west)
    import_all(world, world.west, reversed(posted))
    for name, bundle in bundles.items():
        assert world.has(world.west, bundle)
        assert_same_folder(folders[name], world.library(world.west, bundle))
    assert status(world, world.west).sets[0].missing == []
    receipt = tmp_path / "post" / f"{WEST}.receipt"
    assert receipt.exists()

    # The receipt comes back; the other village hasn't sent one, so everything would go there once more.
    world.net.start(world.county)
    world.run(world.county, "media", "receipt", str(receipt))
    world.net.stop(world.west)
    known = next(it for it in status(world, world.county).places if it.code == WEST)
    assert known.payloads == len(bundles)
    assert known.statistics is not None
    assert known.statistics.by_medium > 30_000_000

    # One file in a hundred changes: the next volume holds the difference.
    changed = sorted((tmp_path / "poetry").rglob("*.json"))
    for file in changed[::100]:
        file.write_text(file.read_text(encoding="utf-8").replace("\n", " \n", 1), encoding="utf-8")
    revised = world.revise(world.county, bundles["poetry"], tmp_path / "poetry")
    world.until_complete(revised, world.county)
    export(world, world.county, tmp_path / "again", WEST)
    (second,) = volumes_in(tmp_path / "again")
    assert size_of(second / "data" / "store") <= 0.03 * bundles["poetry"].payload_bytes
    assert size_of(second) <= 0.03 * sum(size_of(volume) for volume in written)
    world.net.stop(world.county)
    world.net.start(world.west)
    import_all(world, world.west, [second])
    world.until_complete(revised, world.west)
    assert_same_folder(tmp_path / "poetry", world.library(world.west, revised))


def test_countys_own_bundle_travels_up_on_a_disk_and_is_shown_when_it_is_promoted(
    world: World, tmp_path: Path
) -> None:
    folder = make_films(tmp_path / "opera", [700_000, 300_000], seed=3)
    world.net.start(world.county)
    bundle = world.publish(world.county, folder)
    world.until_complete(bundle, world.county)
    export(world, world.county, tmp_path / "post", PROVINCE)
    world.net.stop(world.county)

    world.net.start(world.province)
    import_all(world, world.province, [tmp_path / "post"])
    assert status(world, world.province).offers == 1
    assert bundle.id in world.run(world.province, "review")
    assert world.bundle(world.province, bundle.id) is None
    for stick in (1, 2):
        world.run(world.province, "promote", bundle.id, *world.keys(world.province, stick))
    world.until_complete(bundle, world.province)
    assert_same_folder(folder, world.library(world.province, bundle))
    world.until("nothing waits any more", lambda: status(world, world.province).offers == 0)

    # The province's receipt comes back on the same disk: the county has nothing to send any more.
    world.net.stop(world.province)
    world.net.start(world.county)
    import_all(world, world.county, [tmp_path / "post"])
    assert status(world, world.county).places[0].code == PROVINCE


def test_catalogue_alone_brings_an_offline_village_up_to_date(world: World, tmp_path: Path) -> None:
    folder = make_poems(tmp_path / "poems", files=3, seed=4, lines=5)
    world.start(world.nation, world.province, world.county)
    bundles = [
        world.publish(place, folder, slug=f"poems-{place.code}")
        for place in (world.nation, world.province, world.county)
    ]
    world.until("the county lists all", lambda: all(world.has(world.county, it) for it in bundles))
    export(world, world.county, tmp_path / "stick", WEST, options=["--catalogue"])
    (volume,) = volumes_in(tmp_path / "stick")
    assert not (volume / "data" / "store").exists()
    world.net.stop(world.county, world.province, world.nation)
    world.net.start(world.west)
    import_all(world, world.west, [tmp_path / "stick"])
    known = world.run(world.west, "catalogue", "list")
    for bundle in bundles:
        assert bundle.id in known


def test_disk_that_is_put_in_is_imported_and_leaves_a_receipt_that_the_county_takes_by_itself(
    world: World, tmp_path: Path
) -> None:
    media = tmp_path / "media"
    media.mkdir()
    for place in (world.west, world.county):
        config = place.paths.config
        config.write_text(f'[media]\nwatch = ["{media}"]\n\n' + config.read_text())
    folder = make_films(tmp_path / "films", [500_000], seed=5)
    world.net.start(world.county)
    bundle = world.publish(world.county, folder)
    world.until_complete(bundle, world.county)
    export(world, world.county, tmp_path / "disk", WEST)
    world.net.stop(world.county)

    world.net.start(world.west)
    (tmp_path / "disk").rename(media / "disk")  # As a mount does, all at once.
    world.until_complete(bundle, world.west)
    receipt = media / "disk" / f"{WEST}.receipt"
    world.until("the receipt lies on the disk", receipt.exists)
    world.net.stop(world.west)

    world.net.start(world.county)
    world.until(
        "the county knows what the village has",
        lambda: any(
            it.code == WEST and it.payloads == 1 for it in status(world, world.county).places
        ),
    )


def test_disk_is_served_in_place_and_its_bundles_are_wanted_again_when_it_goes(
    world: World, tmp_path: Path
) -> None:
    folder = make_films(tmp_path / "films", [2_000_000, 300_000], seed=6)
    world.start(world.nation, world.province)
    bundle = world.publish(world.province, folder)
    world.until_complete(bundle, world.province)
    export(world, world.province, tmp_path / "disk", world.county.code)
    world.stop()

    world.net.start(world.county)
    world.run(world.county, "media", "import", str(tmp_path / "disk"), "--in-place")
    assert world.store(world.county, bundle).is_symlink()
    assert not world.library(world.county, bundle).exists()
    world.start(world.west)
    world.until_complete(bundle, world.west)
    assert_same_folder(folder, world.library(world.west, bundle))
    world.net.stop(world.county)
    world.net.start(world.county)
    assert world.has(world.county, bundle)

    (tmp_path / "disk").rename(tmp_path / "drawer")
    world.until("it is missed", lambda: not world.has(world.county, bundle))
    store = world.store(world.county, bundle)
    world.until("its place in the store is free", lambda: not store.is_symlink())
    world.net.start(world.province)
    world.until_complete(bundle, world.county)
    assert_same_folder(folder, world.library(world.county, bundle))

"""From a folder at a centre to the reading rooms: what arrives, and what it costs."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from cuntong_tools.demo.content import change_one_file, folder_size, make_content
from tests.support.world import World, assert_same_folder, make_films, make_poems

FAST_KBIT_S = 4096
MOST_OF_TEXT = 0.40
MOST_OF_REVISION = 0.03
POETRY = os.environ.get("CUNTONG_POETRY")


def text_collection(folder: Path) -> Path:
    """The real poetry where `CUNTONG_POETRY` names it; else text that compresses about as well."""
    if POETRY:
        shutil.copytree(POETRY, folder, copy_function=shutil.copyfile)
        for path in (folder, *folder.rglob("*/")):
            path.chmod(0o755)  # It may be read-only where it comes from.
        return folder
    return make_poems(folder, files=60, seed=7)


def test_villages_show_every_file_of_a_folder_with_hard_names(world: World, tmp_path: Path) -> None:
    folder = make_content(tmp_path / "read", target_bytes=1_500_000)
    world.limit(FAST_KBIT_S, *world.villages)
    world.start()
    bundle = world.publish(world.nation, folder)
    world.until_complete(bundle)
    for place in world.all:
        assert_same_folder(folder, world.library(place, bundle))


def test_text_costs_a_village_little_and_its_revision_hardly_anything(
    world: World, tmp_path: Path
) -> None:
    folder = text_collection(tmp_path / "poetry")
    world.limit(FAST_KBIT_S, *world.villages)
    world.start()
    first = world.publish(world.nation, folder)
    world.until_complete(first)
    before: dict[str, int] = {}
    for village in world.villages:
        assert_same_folder(folder, world.library(village, first))
        before[village.code] = world.wire_bytes(village)
        share = before[village.code] / folder_size(folder)
        print(f"{village.name}: {share:.3f} of {folder_size(folder)} bytes crossed its link")
        assert share <= MOST_OF_TEXT
    change_one_file(folder)
    second = world.revise(world.nation, first, folder)
    world.until_complete(second)
    for village in world.villages:
        assert_same_folder(folder, world.library(village, second))
        world.until_gone(first, village)
        share = (world.wire_bytes(village) - before[village.code]) / second.payload_bytes
        print(f"{village.name}: {share:.4f} of {second.payload_bytes} bytes crossed again")
        assert share <= MOST_OF_REVISION


def test_second_bundle_brings_only_the_files_that_no_other_has(
    world: World, tmp_path: Path
) -> None:
    size = 400_000
    first_folder = make_films(tmp_path / "first", [size] * 4, seed=1)
    second_folder = make_films(tmp_path / "second", [size] * 2, seed=2)
    for number in (3, 4):
        shutil.copy(first_folder / f"第{number}集.mp4", second_folder)
    world.start(world.county, *world.villages)
    first = world.publish(world.county, first_folder)
    world.until_complete(first)
    before = {village.code: world.wire_bytes(village) for village in world.villages}
    second = world.publish(world.county, second_folder)
    world.until_complete(second)
    for village in world.villages:
        assert_same_folder(second_folder, world.library(village, second))
        assert_same_folder(first_folder, world.library(village, first))
        crossed = world.wire_bytes(village) - before[village.code]
        print(f"{village.name}: {crossed} of {second.payload_bytes} bytes crossed")
        assert crossed < 2 * size * 1.1


def test_revision_takes_over_while_the_former_is_still_downloading(
    world: World, tmp_path: Path
) -> None:
    size = 250_000
    folder = make_films(tmp_path / "series", [size] * 8, seed=3)
    world.limit(2048, *world.villages)
    world.start(world.county, *world.villages)
    first = world.publish(world.county, folder)
    world.until(
        "the villages have more than half of it",
        lambda: all(world.net.progress(it, first.id, 1) > 0.6 for it in world.villages),
    )
    make_films(tmp_path / "more", [size], seed=4)
    shutil.copy(tmp_path / "more" / "第1集.mp4", folder / "第9集.mp4")
    second = world.revise(world.county, first, folder)
    world.until_complete(second)
    for village in world.villages:
        assert_same_folder(folder, world.library(village, second))
        world.until_gone(first, village)
        payload = world.traffic(village)["down"]
        print(f"{village.name}: {payload} of {second.payload_bytes} bytes fetched")
        # What was whole is taken over; files of which half was here begin anew.
        assert payload < second.payload_bytes + 3 * size


def test_bundle_nobody_subscribed_to_comes_when_it_is_ordered(world: World, tmp_path: Path) -> None:
    folder = make_films(tmp_path / "opera", [200_000], seed=5)
    for place in (world.county, *world.villages):
        world.subscribe(place, 'categories = ["book"]')
    world.start(world.county, *world.villages)
    bundle = world.publish(world.county, folder, category="video")
    world.until(
        "the village knows of it",
        lambda: bundle.id in world.run(world.west, "catalogue", "list", "--json"),
    )
    why = world.run(world.west, "status", "--why", bundle.id, "--json")
    assert "selection.category" in why
    assert world.bundle(world.west, bundle.id) is None
    world.run(world.west, "order", bundle.id)
    world.until_complete(bundle, world.west)
    assert_same_folder(folder, world.library(world.west, bundle))
    assert "selection.ordered" in world.run(world.west, "status", "--why", bundle.id, "--json")
    assert not world.library(world.east, bundle).exists()

"""Bundles that stay on the medium they came on, and media that are pulled out or ejected meanwhile (SPEC 12.5)."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio

from cuntong_daemon.app import Node
from cuntong_daemon.config import StoreSection
from cuntong_daemon.control.media_messages import ImportStep
from cuntong_daemon.media import service
from cuntong_daemon.media.arrivals import Arrivals
from cuntong_daemon.swarm.alerts import DiskError
from cuntong_protocol.media import layout
from tests.support.payloads import random_bytes
from tests.support.volumes import (
    Lot,
    Post,
    SlowMedium,
    ask,
    beside,
    brought,
    expecting,
    import_at,
    lengthen,
    library,
    open_below,
    problem_codes,
    running_node,
    state_of,
    until,
)

FILMS = {"第1集.mp4": random_bytes(300_000, 1), "第2集.mp4": random_bytes(90_000, 2), "a.txt": b"a"}
LONG = {"第1集.mp4": random_bytes(4_000_000, 5)}


@pytest.fixture
def post(tmp_path: Path) -> Post:
    return Post(tmp_path / "post")


@pytest.fixture
def stick(tmp_path: Path) -> Path:
    folder = tmp_path / "stick"
    folder.mkdir()
    return folder


@pytest.fixture
def medium(monkeypatch: pytest.MonkeyPatch) -> Iterator[SlowMedium]:
    slow = SlowMedium(monkeypatch)
    yield slow
    slow.open()


def link(node: Node, lot: Lot) -> Path:
    """Where the store has a payload, or the link to it."""
    return node.paths.store / lot.infohash.hex()


def in_place(volume: Path, lot: Lot) -> Path:
    """The folder of a payload on a volume."""
    return volume / layout.STORE_FOLDER / lot.infohash.hex()


def file_in_place(volume: Path, lot: Lot) -> Path:
    """The first file of a payload on a volume."""
    return in_place(volume, lot) / lot.torrent.name / lot.torrent.files[0].path


def move(source: Path, target: Path) -> None:
    """Pull a medium out, or put it in somewhere else."""
    target.parent.mkdir(exist_ok=True)
    source.rename(target)


def make_unreadable(path: Path) -> None:
    """Nobody can say whether something lies there."""
    path.symlink_to("x" * 300)


def replace_with_link(path: Path, elsewhere: Path) -> None:
    path.rename(elsewhere)
    path.symlink_to(elsewhere)


def damage(path: Path) -> None:
    """Flip a bit."""
    data = bytearray(path.read_bytes())
    data[5] ^= 1
    path.write_bytes(data)


def holds(node: Node, lot: Lot) -> bool:
    """Whether it is shown as being here, and held on a medium."""
    return lot.id in node.replicator.rows and link(node, lot).is_symlink()


def is_wanted(node: Node, lot: Lot) -> bool:
    """Whether it waits to be brought, and isn't shown as being here."""
    item = node.replicator.items.get(lot.id)
    return lot.id not in node.replicator.rows and item is not None and item.state == "waiting"


# --- Holding, and what ends it --------------------------------------------------------------------


async def test_payload_is_held_on_the_medium_through_a_restart_until_the_medium_goes(
    post: Post, stick: Path, tmp_path: Path
) -> None:
    lot = post.publish("films", FILMS)
    volume = post.volume(stick, lot)
    before = state_of(volume)
    paths = post.enrol("village", config=f'[media]\nwatch = ["{tmp_path}/media"]\n')
    async with running_node(paths) as node:
        found = brought(await import_at(node, stick, in_place=True), lot)
        assert (found.state, found.is_in_place) == ("complete", True)
        assert link(node, lot).readlink() == in_place(volume, lot)
        assert library(node, lot) == {}
    async with running_node(paths) as node:
        await until(lambda: node.engine.status(lot.infohash) is not None)
        assert lot.id in node.replicator.rows
        assert library(node, lot) == {}
        assert state_of(volume) == before
        move(stick, tmp_path / "drawer")
        await until(lambda: is_wanted(node, lot))
        assert not link(node, lot).is_symlink()
        # Put in again, at a place that is watched.
        move(tmp_path / "drawer", tmp_path / "media" / "disk")
        await until(lambda: lot.id in node.replicator.rows)
        assert link(node, lot).is_symlink()


async def test_medium_that_goes_while_the_daemon_is_down_is_missed_at_its_start(
    post: Post, stick: Path, tmp_path: Path
) -> None:
    lot = post.publish("films", FILMS)
    post.volume(stick, lot)
    paths = post.enrol("village")
    async with running_node(paths) as node:
        await import_at(node, stick, in_place=True)
    move(stick, tmp_path / "drawer")
    async with running_node(paths) as node:
        await until(lambda: is_wanted(node, lot))
        assert not link(node, lot).is_symlink()
        await import_at(node, tmp_path / "drawer")
        assert library(node, lot) == FILMS


async def test_medium_of_which_not_even_the_folder_can_be_read_any_more_counts_as_gone(
    post: Post, stick: Path, tmp_path: Path
) -> None:
    lot = post.publish("films", FILMS)
    post.volume(stick, lot)
    post.volume(tmp_path / "right", lot)
    async with running_node(post.enrol("village")) as node:
        await import_at(node, stick, in_place=True)
        # As what was pulled out without being unmounted: another error than that nothing is there.
        shutil.rmtree(stick)
        make_unreadable(stick)
        await until(lambda: is_wanted(node, lot))
        await import_at(node, tmp_path / "right")
        assert library(node, lot) == FILMS


async def test_payload_on_a_disc_of_which_nothing_can_be_synced_is_held_in_place(
    post: Post, stick: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lot = post.publish("films", FILMS)
    post.volume(stick, lot)
    fsync = os.fsync

    def as_of_iso_9660(descriptor: int) -> None:
        if Path(f"/proc/self/fd/{descriptor}").readlink().is_relative_to(stick):
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", as_of_iso_9660)
    async with running_node(post.enrol("village")) as node:
        found = brought(await import_at(node, stick, in_place=True), lot)
        assert (found.state, found.is_in_place) == ("complete", True)
        status = node.engine.status(lot.infohash)
        assert status is not None
        assert (status.state.name, status.problem) == ("COMPLETE", None)


async def test_earlier_revision_is_not_shown_when_the_later_one_is_held_in_place(
    post: Post, stick: Path, tmp_path: Path
) -> None:
    old = post.publish("films", FILMS)
    post.volume(stick, old)
    new = post.publish("films", {**FILMS, "a.txt": b"b"}, revision=2)
    post.volume(tmp_path / "new", new)
    async with running_node(post.enrol("village")) as node:
        await import_at(node, stick)
        assert library(node, old) == FILMS
        found = brought(await import_at(node, tmp_path / "new", in_place=True), new)
        assert (found.state, found.is_in_place) == ("complete", True)
        assert library(node, new) == {}
        assert [path.name for path in node.paths.store.iterdir()] == [new.infohash.hex()]


async def test_bundle_that_is_withdrawn_is_let_go_and_stays_on_the_medium(
    post: Post, stick: Path
) -> None:
    lot, other = post.publish("films", FILMS), post.publish("more", {"b.txt": b"b" * 50_000})
    volume = post.volume(stick, lot)
    async with running_node(post.enrol("village")) as node:
        await import_at(node, stick, in_place=True)
        before = state_of(volume)
        post.county.withdraw(lot.id)
        post.county.publish()
        post.volume(stick.parent / "news", other)
        await import_at(node, stick.parent / "news")
        await until(lambda: lot.id not in node.replicator.rows)
        assert not link(node, lot).is_symlink()
        assert state_of(volume) == before


# --- What isn't held ------------------------------------------------------------------------------


async def test_damaged_payload_is_copied_rather_than_held_where_it_is(
    post: Post, stick: Path
) -> None:
    lot = post.publish("films", FILMS)
    volume = post.volume(stick, lot)
    damage(file_in_place(volume, lot))
    data = file_in_place(volume, lot).read_bytes()
    async with running_node(post.enrol("village")) as node:
        found = brought(await import_at(node, stick, in_place=True), lot)
        assert (found.state, found.is_in_place) == ("partial", False)
        assert found.bytes_missing == min(len(data), lot.torrent.piece_length)
        assert not link(node, lot).is_symlink()
    assert file_in_place(volume, lot).read_bytes() == data


@pytest.mark.parametrize("depth", [0, 1, 2, 3])
async def test_payload_that_is_a_link_to_elsewhere_is_not_held_in_place(
    post: Post, stick: Path, tmp_path: Path, depth: int
) -> None:
    lot = post.publish("films", FILMS)
    volume = post.volume(stick, lot)
    steps = (volume / layout.STORE_FOLDER, lot.infohash.hex(), lot.torrent.name, "files")
    replace_with_link(Path(*steps[: depth + 1]), tmp_path / "elsewhere")
    async with running_node(post.enrol("village")) as node:
        result = await import_at(node, stick, in_place=True)
        assert not brought(result, lot).is_in_place
        assert not link(node, lot).is_symlink()
        assert lot.id not in node.replicator.rows
    assert not any(path.is_symlink() for path in node.paths.store.rglob("*"))


async def test_file_that_another_bundle_shares_with_one_held_in_place_is_copied(
    post: Post, stick: Path, tmp_path: Path
) -> None:
    lot = post.publish("films", FILMS)
    other = post.publish("more", {**FILMS, "第3集.mp4": random_bytes(70_000, 8)})
    volume = post.volume(stick, lot)
    before = state_of(volume)
    shared = {file.root: file for file in lot.torrent.files}
    second = post.volume(tmp_path / "second", other)
    for file in other.torrent.files:
        if file.root in shared:
            (second / layout.store_file(other.infohash, other.torrent.name, file.path)).unlink()
    async with running_node(post.enrol("village")) as node:
        await import_at(node, stick, in_place=True)
        assert link(node, lot).is_symlink()
        await import_at(node, tmp_path / "second")
        assert library(node, other)["第1集.mp4"] == FILMS["第1集.mp4"]
        # Neither a link to one of its files nor another mode.
        assert state_of(volume) == before
        shutil.rmtree(stick)
        assert library(node, other)["第1集.mp4"] == FILMS["第1集.mp4"]


# --- Damage ---------------------------------------------------------------------------------------


async def test_damage_on_a_medium_is_not_mended_on_it_but_the_bundle_is_wanted_again(
    post: Post, stick: Path, tmp_path: Path
) -> None:
    lot = post.publish("films", FILMS)
    volume = post.volume(stick, lot)
    post.volume(tmp_path / "right", lot)
    async with running_node(post.enrol("village")) as node:
        await import_at(node, stick, in_place=True)
        damage(file_in_place(volume, lot))
        file_in_place(volume, lot).chmod(0o444)
        damaged = state_of(volume)
        assert await node.replicator.verify(lot.id, lambda count: None) == (1, 0)
        await until(lambda: is_wanted(node, lot))
        await import_at(node, tmp_path / "right")
        assert library(node, lot) == FILMS
    assert state_of(volume) == damaged


async def test_medium_that_goes_after_damage_was_found_on_it_leaves_the_bundle_wanted(
    post: Post, stick: Path, tmp_path: Path
) -> None:
    lot = post.publish("films", FILMS)
    volume = post.volume(stick, lot)
    post.volume(tmp_path / "right", lot)
    async with running_node(post.enrol("village")) as node:
        await import_at(node, stick, in_place=True)
        damage(file_in_place(volume, lot))
        await node.replicator.verify(lot.id, lambda count: None)
        move(stick, tmp_path / "drawer")
        await node.replicator.lose_places()
        await until(lambda: is_wanted(node, lot))
        await import_at(node, tmp_path / "right")
        assert library(node, lot) == FILMS


async def test_medium_that_fails_while_it_is_seeded_from_is_left_as_it_is(
    post: Post, stick: Path, tmp_path: Path
) -> None:
    lot = post.publish("films", FILMS)
    volume = post.volume(stick, lot)
    post.volume(tmp_path / "right", lot)
    async with running_node(post.enrol("village")) as node:
        await import_at(node, stick, in_place=True)
        damage(file_in_place(volume, lot))
        before = state_of(volume)
        # As libtorrent says it when a peer has asked for something.
        failed = DiskError(lot.infohash, str(file_in_place(volume, lot)), errno.EIO, "I/O error")
        node.engine._handle(failed)
        await until(lambda: is_wanted(node, lot))
        assert not link(node, lot).is_symlink()
        await import_at(node, tmp_path / "right")
        assert library(node, lot) == FILMS
    assert state_of(volume) == before


@pytest.mark.parametrize("is_missing", [True, False])
async def test_file_that_was_lost_while_the_daemon_was_down_is_not_made_anew_on_the_medium(
    post: Post, stick: Path, tmp_path: Path, is_missing: bool
) -> None:
    lot = post.publish("films", FILMS)
    volume = post.volume(stick, lot)
    post.volume(tmp_path / "right", lot)
    paths = post.enrol("village")
    async with running_node(paths) as node:
        await import_at(node, stick, in_place=True)
    if is_missing:
        file_in_place(volume, lot).unlink()
    else:
        os.truncate(file_in_place(volume, lot), 0)
    before = state_of(volume)
    async with running_node(paths) as node:
        await until(lambda: is_wanted(node, lot))
        await import_at(node, tmp_path / "right")
        assert library(node, lot) == FILMS
    assert state_of(volume) == before


# --- What a crash has left ------------------------------------------------------------------------


@pytest.mark.parametrize("is_gone", [True, False])
async def test_link_to_a_medium_that_a_crash_has_left_is_in_nobodys_way(
    post: Post, stick: Path, tmp_path: Path, is_gone: bool
) -> None:
    lot = post.publish("films", FILMS)
    volume = post.volume(stick, lot)
    post.volume(tmp_path / "other", lot)
    before = state_of(volume)
    paths = post.enrol("village")
    async with running_node(paths) as node:
        await import_at(node, stick, in_place=True)
        # As if the power had gone before it was noted that the bundle is held.
        await node.database.call(node.catalogue.remove_state, lot.id)
    assert (paths.store / lot.infohash.hex()).is_symlink()
    if is_gone:
        shutil.rmtree(stick)
    async with running_node(paths) as node:
        await import_at(node, tmp_path / "other")
        assert library(node, lot) == FILMS
        assert not link(node, lot).is_symlink()
    assert is_gone or state_of(volume) == before


async def test_link_of_which_the_database_knows_nothing_is_not_written_through(
    post: Post, stick: Path, tmp_path: Path
) -> None:
    lot = post.publish("films", FILMS)
    volume = post.volume(stick, lot)
    file_in_place(volume, lot).unlink()
    post.volume(tmp_path / "right", lot)
    before = state_of(volume)
    paths = post.enrol("village")
    paths.store.mkdir(exist_ok=True)
    (paths.store / lot.infohash.hex()).symlink_to(in_place(volume, lot))
    async with running_node(paths) as node:
        await import_at(node, tmp_path / "right")
        assert library(node, lot) == FILMS
        assert not link(node, lot).is_symlink()
    assert state_of(volume) == before


# --- Ejecting -------------------------------------------------------------------------------------


async def test_path_that_is_a_link_to_a_volume_is_imported(
    post: Post, stick: Path, tmp_path: Path
) -> None:
    lot = post.publish("films", FILMS)
    (tmp_path / "link").symlink_to(post.volume(stick, lot))
    async with running_node(post.enrol("village")) as node:
        result = await import_at(node, tmp_path / "link")
        assert problem_codes(result) == []
        assert library(node, lot) == FILMS


async def test_medium_is_ejected_by_any_name_that_leads_to_it(
    post: Post, stick: Path, tmp_path: Path
) -> None:
    lot = post.publish("films", FILMS)
    post.volume(stick, lot)
    (tmp_path / "usb").symlink_to(stick)
    async with running_node(post.enrol("village")) as node:
        await import_at(node, tmp_path / "usb", in_place=True)
        assert lot.id in node.replicator.rows
        assert link(node, lot).is_symlink()
        answer = await ask(node, "media.eject", {"path": f"{stick}/../stick/"}, dict)
        assert answer == {"stopped": 1}
        assert lot.id not in node.replicator.rows
        await import_at(node, stick, in_place=True)
        answer = await ask(node, "media.eject", {"path": str(tmp_path / "usb")}, dict)
        assert answer == {"stopped": 1}


async def test_eject_stops_an_import_and_those_that_wait_and_the_next_one_goes_on(
    post: Post, stick: Path, medium: SlowMedium
) -> None:
    lot = post.publish("films", LONG)
    lengthen(post.volume(stick, lot), lot)
    async with running_node(post.enrol("village")) as node:
        async with beside(medium) as nursery:
            phases: list[str] = []
            ended: list[str] = []

            def report(step: ImportStep) -> None:
                phases.append(step.phase)

            async def run() -> None:
                with expecting("media.stopped"):
                    await import_at(node, stick, report=report)
                ended.append("one")

            nursery.start_soon(run)
            await until(lambda: medium.reads == 1)
            nursery.start_soon(run)
            await until(lambda: "waiting" in phases)
            slowly = trio.CancelScope()
            nursery.start_soon(medium.go_on_slowly, slowly)
            await until(lambda: medium.reads >= 4)
            answer = await ask(node, "media.eject", {"path": str(stick)}, dict)
            assert answer == {"stopped": 2}
            assert open_below(stick) == []
            await until(lambda: len(ended) == 2)
            slowly.cancel()
            assert medium.reads < 40  # Of 62.
        shutil.move(stick, stick.parent / "elsewhere")
        result = await import_at(node, stick.parent / "elsewhere")
        assert library(node, lot) == LONG
        assert brought(result, lot).bytes_taken < lot.torrent.payload_size


async def test_eject_gives_up_what_is_held_on_a_medium_and_it_stays_ejected(
    post: Post, stick: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lot = post.publish("films", FILMS)
    post.volume(stick, lot)
    looks: list[int] = []

    class Counted(Arrivals):
        def look(self) -> list[Path]:
            looks.append(1)
            return super().look()

    monkeypatch.setattr(service, "Arrivals", Counted)
    monkeypatch.setattr(service, "WATCH_INTERVAL_S", 0.01)
    paths = post.enrol("village", config=f'[media]\nwatch = ["{tmp_path}/media"]\n')
    async with running_node(paths) as node:
        await import_at(node, stick, in_place=True)
        held_before = link(node, lot).readlink()
        move(stick, tmp_path / "media" / "disk")
        await until(lambda: holds(node, lot) and link(node, lot).readlink() != held_before)
        answer = await ask(node, "media.eject", {"path": f"{tmp_path}/media"}, dict)
        assert answer["stopped"] >= 1
        assert open_below(tmp_path / "media") == []
        looked = len(looks)
        await until(lambda: len(looks) > looked + 2)
        assert is_wanted(node, lot)
        assert not link(node, lot).is_symlink()


async def test_what_is_held_in_place_takes_no_room_of_the_quota(
    post: Post, stick: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    large = post.publish("films", LONG)
    post.volume(stick, large)
    quota = property(lambda _section: large.torrent.payload_size + 100_000)
    monkeypatch.setattr(StoreSection, "quota_bytes", quota)
    async with running_node(post.enrol("village")) as node:
        assert brought(await import_at(node, stick, in_place=True), large).is_in_place
        small = post.publish("opera", FILMS)
        post.volume(tmp_path / "other", small)
        await import_at(node, tmp_path / "other")
        assert library(node, small) == FILMS
        assert node.store.is_in_place(large.infohash)

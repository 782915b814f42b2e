"""Volumes from anybody, at a whole node: a clear reason, nothing that wasn't verified, and a way to go on (SPEC 12.4)."""

from __future__ import annotations

import os
import shutil
import socket
import stat
import threading
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest
import trio
import trio.testing
import zstandard

from cuntong_daemon.app import Node
from cuntong_daemon.control.media_messages import (
    ImportResult,
    ImportStep,
    MediaStatus,
)
from cuntong_daemon.media import medium_source
from cuntong_daemon.media import offers as offers_module
from cuntong_daemon.media.medium_source import MediumSource
from cuntong_daemon.media.receipts import check_exporter, signs_itself
from cuntong_daemon.media.volume import VolumeFolder, manifest_lines
from cuntong_daemon.paths import DataPaths
from cuntong_daemon.store.store import Store
from cuntong_daemon.store.torrents import keep_torrent, torrent_path
from cuntong_protocol.datacast.objects import CatalogueHead, Item, encode_catalogue
from cuntong_protocol.errors import CuntongError
from cuntong_protocol.media import layout
from cuntong_protocol.media.errors import MediaError
from cuntong_protocol.media.papers import MAX_VOLUME_PAPER_BYTES, decode_volume
from tests.support import trust_repo
from tests.support.payloads import random_bytes, read_files
from tests.support.volumes import (
    Lot,
    Post,
    SlowMedium,
    ask,
    beside,
    brought,
    close_bag,
    expecting,
    import_at,
    lengthen,
    library,
    paper_of,
    problem_codes,
    running_node,
    stored,
    until,
    write_volume,
)

FILMS = {"第1集.mp4": random_bytes(300_000, 1), "第2集.mp4": random_bytes(90_000, 2), "a.txt": b"a"}
OPERA = {f"{number}.mp4": random_bytes(70_000, 20 + number) for number in range(3)}
LONG = {"第1集.mp4": random_bytes(4_000_000, 5)}
GBK = "唐诗三百首".encode("gbk").decode("utf-8", "surrogateescape")


@pytest.fixture
def post(tmp_path: Path) -> Post:
    return Post(tmp_path / "post")


@pytest.fixture
def stick(tmp_path: Path) -> Path:
    folder = tmp_path / "stick"
    folder.mkdir()
    return folder


def carry(node: Node, *repositories: trust_repo.Repository) -> None:
    """News that come on another way."""
    for repository in repositories:
        for name, data in repository.files.items():
            node.spool.store_metadata(repository.code, name, data)
        for sha256, data in repository.blobs.items():
            node.spool.store_blob(sha256, data)
    node.keeper.look()


# --- What a volume says of itself -----------------------------------------------------------------


def changed(paper: bytes) -> bytes:
    return paper.replace(b"abcdefghij", b"bbcdefghij")


def rubbish(paper: bytes) -> bytes:
    return random_bytes(len(paper), 3)


def too_long(paper: bytes) -> bytes:
    return paper + bytes(MAX_VOLUME_PAPER_BYTES + 100_000)


def nothing(_paper: bytes) -> bytes:
    return b""


@pytest.mark.parametrize("spoil", [changed, rubbish, too_long, nothing])
async def test_volume_that_tells_nonsense_of_itself_brings_its_content_all_the_same(
    post: Post, stick: Path, spoil: Callable[[bytes], bytes]
) -> None:
    lot = post.publish("films", FILMS)
    volume = post.volume(stick, lot)
    for path in (layout.VOLUME_FILE, layout.again(layout.VOLUME_FILE)):
        (volume / path).write_bytes(spoil((volume / path).read_bytes()))
    async with running_node(post.enrol("village")) as node:
        result = await import_at(node, stick)
        assert library(node, lot) == FILMS
        (seen,) = result.volumes
        assert seen.problem is not None
        assert seen.problem.code in ("media.forged-volume", "media.bad-volume")
        assert (seen.serial, seen.is_refused) == ("", False)
        assert result.sets == []


@pytest.mark.filterwarnings("ignore:Parsed a")  # Of the library, about serial numbers and the like.
def test_every_flipped_bit_of_the_paper_is_noticed_and_none_is_a_surprise(post: Post) -> None:
    paper = paper_of(post.identity(), post.network, (), ())
    anchor = post.identity().anchor
    original = decode_volume(paper)[0], decode_volume(paper)[1].body
    codes = set()
    for at in range(len(paper) * 8):
        data = bytearray(paper)
        data[at // 8] ^= 1 << at % 8
        try:
            volume, signed = decode_volume(bytes(data))
            signs_itself(signed)
            check_exporter(volume, signed, anchor)
        except MediaError as error:
            codes.add(error.code)
        else:
            # The last bit of a signature's length in bits, say: it signs the same.
            assert (volume, signed.body) == original, at
    assert codes == {"media.bad-volume", "media.forged-volume", "media.newer-version"}


async def test_paper_that_a_stranger_signed_in_the_countys_name_is_not_believed(
    post: Post, stick: Path, tmp_path: Path
) -> None:
    lot = post.publish("films", FILMS)
    stranger = Post(tmp_path / "stranger")
    paper = paper_of(stranger.identity(), post.network, (), [lot])
    write_volume(stick, [lot], catalogues=post.catalogues(), paper=paper)
    async with running_node(post.enrol("village")) as node:
        result = await import_at(node, stick)
        assert result.volumes[0].problem is not None
        assert result.volumes[0].problem.code == "media.forged-volume"
        assert result.volumes[0].by == ""
        assert library(node, lot) == FILMS


async def test_second_copy_of_the_paper_counts_when_the_first_is_damaged(
    post: Post, stick: Path
) -> None:
    volume = post.volume(stick, post.publish("films", FILMS))
    (volume / layout.VOLUME_FILE).write_bytes(b"")
    async with running_node(post.enrol("village")) as node:
        result = await import_at(node, stick)
        assert result.volumes[0].problem is None
        assert result.volumes[0].serial == "abcdefghij"


# --- Other networks, older and forged catalogues --------------------------------------------------


async def test_volume_of_another_network_is_refused_and_the_next_one_is_taken(
    post: Post, stick: Path, tmp_path: Path
) -> None:
    other = Post(tmp_path / "other")
    other.volume(stick, other.publish("films", OPERA))
    lot = post.publish("films", FILMS)
    post.volume(tmp_path / "right", lot)
    async with running_node(post.enrol("village")) as node:
        result = await import_at(node, stick)
        assert result.volumes[0].is_refused
        assert result.volumes[0].problem is not None
        assert result.volumes[0].problem.code == "media.other-network"
        assert result.bundles == []
        assert result.receipt_file == ""
        assert stored(node) == set()
        await import_at(node, tmp_path / "right")
        assert library(node, lot) == FILMS


async def test_catalogues_of_another_network_are_refused_when_nothing_says_whose_they_are(
    post: Post, stick: Path, tmp_path: Path
) -> None:
    other = Post(tmp_path / "other")
    strange = other.publish("films", OPERA)
    write_volume(stick, [strange], catalogues=other.catalogues())
    lot = post.publish("films", FILMS)
    post.volume(tmp_path / "right", lot)
    async with running_node(post.enrol("village")) as node:
        result = await import_at(node, stick)
        assert {it.state for it in result.catalogues} <= {"refused", "foreign"}
        assert brought(result, strange).state == "unknown"
        assert stored(node) == set()
        assert node.view.listings == {}
        result = await import_at(node, tmp_path / "right")
        assert {it.state for it in result.catalogues} == {"taken"}
        assert library(node, lot) == FILMS


async def test_forged_catalogue_does_not_hide_the_right_one_beside_it(
    post: Post, stick: Path, tmp_path: Path
) -> None:
    other = Post(tmp_path / "other")
    other.publish("films", OPERA)
    lot = post.publish("films", FILMS)
    volume = post.volume(stick, lot)
    for authority, data in other.catalogues().items():
        (volume / layout.catalogue_file(authority)).write_bytes(data)
    close_bag(volume)  # Whoever forges it writes the manifest, too.
    async with running_node(post.enrol("village")) as node:
        result = await import_at(node, stick)
        assert {it.state for it in result.catalogues} <= {"taken", "refused"}
        close_bag(post.volume(tmp_path / "right", lot))
        await import_at(node, tmp_path / "right")
        assert library(node, lot) == FILMS


async def test_older_catalogue_than_this_nodes_is_not_taken(
    post: Post, stick: Path, tmp_path: Path
) -> None:
    old = post.publish("films", FILMS)
    post.volume(stick, old)
    new = post.publish("films", OPERA, revision=2)
    post.volume(tmp_path / "new", new)
    async with running_node(post.enrol("village")) as node:
        await import_at(node, tmp_path / "new")
        result = await import_at(node, stick)
        states = {it.authority: it.state for it in result.catalogues}
        assert states[str(post.county.code)] == "older"
        assert states[str(post.nation.code)] == "known"
        assert brought(result, old).state == "unknown"
        assert library(node, new) == OPERA
        assert stored(node) == {new.infohash.hex()}


async def test_timestamp_of_the_future_that_nobody_signed_stops_nothing(
    post: Post, stick: Path
) -> None:
    lot = post.publish("films", FILMS)
    volume = post.volume(stick, lot)
    forged = post.county.files["timestamp.json"].replace(b'"version":2', b'"version":999999999')
    assert forged != post.county.files["timestamp.json"]
    path = volume / layout.catalogue_file(post.county.code)
    path.write_bytes(encode_catalogue(post.county.code, [Item("timestamp.json", forged)]))
    close_bag(volume)
    async with running_node(post.enrol("village")) as node:
        result = await import_at(node, stick)
        found = next(it for it in result.catalogues if it.authority == post.county.code)
        assert (found.state, found.version_here) in (("taken", 2), ("refused", 2))
        assert library(node, lot) == FILMS


async def test_disk_that_was_too_long_in_the_post_is_taken_also_where_the_clock_counts(
    post: Post, stick: Path
) -> None:
    lot = post.publish("films", FILMS)
    for repository in post.authorities:
        repository.publish(timestamp_life=timedelta(seconds=1))
    post.volume(stick, lot)
    strict = "[media]\nwatch = []\n\n[bandwidth]\nshared = false\n"
    paths = post.enrol("village", config=strict)
    text = paths.config.read_text().replace("[node]\n", '[node]\nprofile = "strict"\n')
    paths.config.write_text(text)
    async with running_node(paths) as node:
        await import_at(node, stick)
        assert library(node, lot) == FILMS


async def test_what_a_volumes_catalogue_withdraws_is_not_taken_from_it(
    post: Post, stick: Path
) -> None:
    lot, other = post.publish("films", FILMS), post.publish("opera", OPERA)
    post.county.withdraw(lot.id)
    post.county.publish()
    post.volume(stick, lot, other)
    async with running_node(post.enrol("village")) as node:
        result = await import_at(node, stick)
        assert brought(result, lot).state in ("unknown", "unwanted")
        assert library(node, lot) == {}
        assert library(node, other) == OPERA
        assert stored(node) == {other.infohash.hex()}


# --- Floods ---------------------------------------------------------------------------------------


def bomb(authority: str, frames: int) -> bytes:
    """A catalogue whose frames unpack to 7 MiB each."""
    items = [["", bytes(7 * 1024 * 1024)]]
    packed = zstandard.ZstdCompressor().compress(msgspec.msgpack.encode(items))
    head = msgspec.msgpack.encode(
        CatalogueHead(authority=authority, frames=(len(packed),) * frames)
    )
    return len(head).to_bytes(4, "big") + head + packed * frames


def test_catalogue_that_unpacks_without_end_is_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = bomb("441900000000", 200)
    assert len(data) < 1024 * 1024
    volume = write_volume(tmp_path, [], catalogues={"441900000000": data})
    unpacked = []
    read = medium_source.snapshot_frame

    def counting(*arguments: Any, **more: Any) -> list[Item]:
        items = read(*arguments, **more)
        unpacked.append(sum(len(item.data) for item in items))
        return items

    monkeypatch.setattr(medium_source, "snapshot_frame", counting)
    with VolumeFolder(volume) as folder:
        MediumSource(folder).look()
    assert sum(unpacked) < 200_000_000


def test_manifest_that_is_one_endless_line_does_not_fill_the_memory(tmp_path: Path) -> None:
    volume = write_volume(tmp_path, [])
    os.truncate(volume / "manifest-sha256.txt", 1 << 30)
    with VolumeFolder(volume) as folder:
        tracemalloc.start()
        try:
            assert len(list(manifest_lines(folder))) <= 1
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    assert peak < 32 * 1024 * 1024


async def test_catalogue_of_many_frames_can_be_asked_by_many_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    blobs = [random_bytes(60_000, number) for number in range(100)]
    packed = encode_catalogue("441900000000", [Item("", data) for data in blobs])
    volume = write_volume(tmp_path, [], catalogues={"441900000000": packed})
    inside: list[int] = []
    meetings: list[int] = []
    read = MediumSource._read

    def watched(*arguments: Any) -> bytes | None:
        # What is kept of unpacked frames belongs to one reader at a time.
        inside.append(1)
        meetings.append(len(inside))
        threading.Event().wait(0.001)  # Others have the chance to come in.
        data = read(*arguments)
        inside.pop()
        return data

    monkeypatch.setattr(MediumSource, "_read", watched)
    with VolumeFolder(volume) as folder:
        source = MediumSource(folder)
        source.look()
        paths = list(source._places)
        got: list[bytes | None] = []

        async def fetch(path: str) -> None:
            got.append(await source.fetch(path, 100_000))

        async with trio.open_nursery() as nursery:
            for step in range(7):
                for path in paths[step::7]:
                    nursery.start_soon(fetch, path)
    assert sorted(data for data in got if data is not None) == sorted(blobs)
    assert max(meetings) == 1


async def test_thousands_of_payloads_that_nobody_knows_are_counted(post: Post, stick: Path) -> None:
    lot = post.publish("films", FILMS)
    volume = post.volume(stick, lot)
    for number in range(3_000):
        (volume / layout.STORE_FOLDER / trust_repo.infohash(str(number))).mkdir()
    for name in (" " * 64, "aa " * 21 + "a", "Z" * 64, GBK, "a" * 63):
        (volume / layout.STORE_FOLDER / name).mkdir()
    async with running_node(post.enrol("village")) as node:
        result = await import_at(node, stick)
        assert library(node, lot) == FILMS
        assert result.bundles_total == 3_001
        assert all(len(it.infohash) == 64 for it in result.bundles)
        assert len(result.bundles) <= 1_000


# --- Links, devices, strange names ----------------------------------------------------------------


async def test_links_devices_and_pipes_in_place_of_content_are_left_alone(
    post: Post, stick: Path, tmp_path: Path
) -> None:
    lot = post.publish("films", FILMS)
    volume = post.volume(stick, lot)
    folder = volume / layout.STORE_FOLDER / lot.infohash.hex() / lot.torrent.name
    first, second, third = (folder / file.path for file in lot.torrent.files[:3])
    outside = tmp_path / "outside"
    outside.write_bytes(first.read_bytes())
    first.unlink()
    first.symlink_to(outside)
    second.unlink()
    os.mkfifo(second)
    third.unlink()
    holder = os.open(third.parent, os.O_RDONLY)
    try:
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(f"/proc/self/fd/{holder}/{third.name}")
    finally:
        os.close(holder)
    async with running_node(post.enrol("village")) as node:
        result = await import_at(node, stick)
        assert problem_codes(result) == []
        found = brought(result, lot)
        good = sum(file.length for file in lot.torrent.files[3:])
        assert (found.state, found.bytes_taken) == ("partial", good)
        assert library(node, lot) == {}
        assert not any(path.is_symlink() for path in node.paths.store.rglob("*"))


async def test_device_without_a_driver_does_not_look_like_a_medium_that_was_pulled_out(
    post: Post, stick: Path
) -> None:
    lot, other = post.publish("films", FILMS), post.publish("opera", OPERA)
    volume = post.volume(stick, lot, other)
    file = lot.torrent.files[0]
    path = volume / layout.store_file(lot.infohash, lot.torrent.name, file.path)
    path.unlink()
    try:
        os.mknod(path, stat.S_IFBLK | 0o600, os.makedev(240, 99))
    except PermissionError:
        pytest.skip("making a device needs root")
    async with running_node(post.enrol("village")) as node:
        result = await import_at(node, stick)
        assert problem_codes(result) == []
        assert library(node, other) == OPERA
        assert brought(result, lot).bytes_taken == lot.torrent.payload_size - file.length


async def test_volume_whose_folder_has_a_name_in_gbk_is_imported_by_command(
    post: Post, stick: Path
) -> None:
    lot = post.publish("films", FILMS)
    post.volume(stick, lot).rename(stick / GBK)
    async with running_node(post.enrol("village")) as node:
        result = await import_at(node, stick)
        assert library(node, lot) == FILMS
        assert len(result.volumes) == 1
        await ask(node, "media.status", {}, MediaStatus)


async def test_volume_whose_folder_has_a_name_in_gbk_is_imported_by_itself(
    post: Post, stick: Path
) -> None:
    lot = post.publish("films", FILMS)
    (stick / GBK).mkdir()
    post.volume(stick / GBK, lot).rename(stick / GBK / GBK)
    (stick / GBK / f"{GBK}.receipt").write_bytes(b"rubbish")
    paths = post.enrol("village", config=f'[media]\nwatch = ["{stick}"]\n')
    async with running_node(paths) as node:
        await until(lambda: library(node, lot) == FILMS)
        await ask(node, "media.status", {}, MediaStatus)
        await ask(node, "events", {}, list)


async def test_path_that_is_a_link_to_itself_is_refused_with_a_reason(
    post: Post, tmp_path: Path
) -> None:
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    async with running_node(post.enrol("village")) as node:
        with pytest.raises(CuntongError) as caught:
            await import_at(node, tmp_path / "loop")
        assert caught.value.code == "media.no-such-path"


@pytest.mark.parametrize(
    ("where", "code"),
    [
        ("nowhere", "media.no-such-path"),
        ("stick", "media.nothing-found"),
        ("village/data", "media.own-data"),
        ("village", "media.own-data"),
        ("link", "media.own-data"),
    ],
)
async def test_path_without_a_volume_is_refused_with_a_reason(
    post: Post, stick: Path, where: str, code: str
) -> None:
    paths = post.enrol("village")
    (post.folder / "link").symlink_to(paths.root)
    top = stick if where == "stick" else post.folder / where
    async with running_node(paths) as node:
        with pytest.raises(CuntongError) as caught:
            await import_at(node, top)
        assert caught.value.code == code


# --- Torrents -------------------------------------------------------------------------------------


async def test_torrents_that_lie_under_each_others_names_cost_nothing(
    post: Post, stick: Path
) -> None:
    lot, other = post.publish("films", FILMS), post.publish("opera", OPERA)
    volume = post.volume(stick, lot, other)
    for place in (
        layout.torrent_file,
        lambda infohash: layout.again(layout.torrent_file(infohash)),
    ):
        first, second = volume / place(lot.infohash), volume / place(other.infohash)
        kept = first.read_bytes()
        first.write_bytes(second.read_bytes())
        second.write_bytes(kept)
    async with running_node(post.enrol("village")) as node:
        await import_at(node, stick)
        assert library(node, lot) == FILMS
        assert library(node, other) == OPERA


async def test_torrents_and_folders_with_other_names_are_known_by_their_content(
    post: Post, stick: Path
) -> None:
    lot = post.publish("films", FILMS)
    volume = post.volume(stick, lot)
    shutil.rmtree(volume / layout.AGAIN_FOLDER)
    (volume / layout.torrent_file(lot.infohash)).rename(volume / layout.TORRENT_FOLDER / "8DDE6A~1")
    store = volume / layout.STORE_FOLDER
    (store / lot.infohash.hex()).rename(store / "8DDE6A~1")
    async with running_node(post.enrol("village")) as node:
        result = await import_at(node, stick)
        assert library(node, lot) == FILMS
        assert brought(result, lot).bytes_taken == lot.torrent.payload_size


@pytest.mark.parametrize(
    "data", [b"", b"d" * 100_000, b"d4:infod", random_bytes(200_000, 4), b"l" * 2_000_000]
)
async def test_torrent_that_cannot_be_read_is_said_and_the_other_bundles_are_taken(
    post: Post, stick: Path, data: bytes
) -> None:
    lot, other = post.publish("films", FILMS), post.publish("opera", OPERA)
    volume = post.volume(stick, lot, other)
    for path in (
        layout.torrent_file(lot.infohash),
        layout.again(layout.torrent_file(lot.infohash)),
    ):
        (volume / path).write_bytes(data)
    async with running_node(post.enrol("village")) as node:
        result = await import_at(node, stick)
        found = brought(result, lot)
        assert found.state == "partial"
        assert found.reason is not None
        assert found.reason.code == "media.no-torrent"
        assert library(node, other) == OPERA
        # Another copy of the volume brings it.
        volume.rename(stick.parent / "damaged")
        post.volume(stick, lot, other)
        await import_at(node, stick)
        assert library(node, lot) == FILMS


# --- A medium that is slow, and what happens meanwhile --------------------------------------------


@pytest.fixture
def medium(monkeypatch: pytest.MonkeyPatch) -> Iterator[SlowMedium]:
    slow = SlowMedium(monkeypatch)
    yield slow
    slow.open()


async def test_two_imports_of_the_same_volume_wait_for_each_other(
    post: Post, stick: Path, medium: SlowMedium
) -> None:
    lot = post.publish("films", FILMS)
    post.volume(stick, lot)
    results: list[ImportResult] = []
    phases: list[str] = []
    async with running_node(post.enrol("village")) as node:

        async def run() -> None:
            def report(step: ImportStep) -> None:
                phases.append(step.phase)

            results.append(await import_at(node, stick, report=report))

        async with beside(medium) as nursery:
            nursery.start_soon(run)
            await until(lambda: medium.reads)
            nursery.start_soon(run)
            await until(lambda: "waiting" in phases)
        assert library(node, lot) == FILMS
        assert sum(brought(it, lot).bytes_taken for it in results) == lot.torrent.payload_size
        assert [brought(it, lot).state for it in results] == ["complete", "here"]


async def test_two_volumes_at_once_complete_one_bundle(
    post: Post, stick: Path, tmp_path: Path
) -> None:
    lot = post.publish("films", FILMS)
    halves = []
    for number in (1, 2):
        volume = post.volume(tmp_path / f"disk{number}", lot, number=number, count=2)
        files = list(lot.torrent.files)
        for file in files[number - 1 :: 2]:
            (volume / layout.store_file(lot.infohash, lot.torrent.name, file.path)).unlink()
        halves.append(volume)
    async with running_node(post.enrol("village")) as node:
        async with trio.open_nursery() as nursery:
            for volume in halves:
                nursery.start_soon(import_at, node, volume)
        assert library(node, lot) == FILMS
        status = await ask(node, "media.status", {}, MediaStatus)
        assert status.sets[0].imported == [1, 2]


async def test_eject_of_one_medium_does_not_wait_for_the_import_from_another(
    post: Post, stick: Path, tmp_path: Path, medium: SlowMedium
) -> None:
    lot = post.publish("films", FILMS)
    post.volume(stick, lot)
    (tmp_path / "other").mkdir()
    async with running_node(post.enrol("village")) as node, beside(medium) as nursery:
        nursery.start_soon(import_at, node, stick)
        await until(lambda: medium.reads)
        answers: list[dict[str, int]] = []

        async def eject() -> None:
            params = {"path": str(tmp_path / "other")}
            answers.append(await ask(node, "media.eject", params, dict))

        nursery.start_soon(eject)
        await until(lambda: answers)
        assert answers == [{"stopped": 0}]


async def test_download_goes_on_after_an_import_was_stopped(
    post: Post, stick: Path, medium: SlowMedium
) -> None:
    lot = post.publish("films", LONG)
    lengthen(post.volume(stick, lot), lot)
    async with running_node(post.enrol("village")) as node:
        async with beside(medium) as nursery:

            async def run() -> None:
                with expecting("media.stopped"):
                    await import_at(node, stick)

            nursery.start_soon(run)
            slowly = trio.CancelScope()
            nursery.start_soon(medium.go_on_slowly, slowly)
            await until(lambda: medium.reads >= 4)
            await ask(node, "media.eject", {"path": str(stick)}, dict)
            slowly.cancel()
        # Its torrent is here: it doesn't wait until somebody looks.
        await until(lambda: node.engine.status(lot.infohash) is not None)


async def test_bundle_is_shown_although_the_import_was_stopped_while_it_was_read_back(
    post: Post, stick: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lot = post.publish("films", FILMS)
    post.volume(stick, lot)
    is_there, may_go_on = threading.Event(), threading.Event()
    complete = Store.complete

    def slowly(*arguments: Any, **more: Any) -> Any:
        is_there.set()
        may_go_on.wait()
        return complete(*arguments, **more)

    monkeypatch.setattr(Store, "complete", slowly)
    async with running_node(post.enrol("village")) as node:
        async with trio.open_nursery() as nursery:

            async def run() -> None:
                with suppress(CuntongError):
                    await import_at(node, stick)

            try:
                nursery.start_soon(run)
                await until(is_there.is_set)
                nursery.start_soon(ask, node, "media.eject", {"path": str(stick)}, dict)
                await trio.testing.wait_all_tasks_blocked(0.05)
            finally:
                may_go_on.set()
        await until(lambda: library(node, lot) == FILMS)


async def test_daemon_stops_in_the_middle_of_an_import_and_goes_on_at_the_next_start(
    post: Post, stick: Path, medium: SlowMedium
) -> None:
    lot = post.publish("films", LONG)
    lengthen(post.volume(stick, lot), lot)
    paths = post.enrol("village")

    async def run(node: Node) -> None:
        with pytest.raises(CuntongError):
            await import_at(node, stick)

    async with beside(medium) as nursery:
        slowly = trio.CancelScope()
        async with running_node(paths) as node:
            nursery.start_soon(run, node)
            nursery.start_soon(medium.go_on_slowly, slowly)
            await until(lambda: medium.reads >= 4)
        slowly.cancel()
        assert medium.reads < 40  # Of 62: it doesn't wait for the end.
    assert not (paths.library / lot.id).exists()
    async with running_node(paths) as node:
        result = await import_at(node, stick)
        assert library(node, lot) == LONG
        assert brought(result, lot).bytes_taken < lot.torrent.payload_size


@pytest.fixture(params=["waiting", "downloading"])
def begun(request: pytest.FixtureRequest) -> bool:
    """Whether the bundle is being downloaded already when the medium is put in."""
    return bool(request.param == "downloading")


async def prepare(post: Post, paths: DataPaths, lot: Lot, *, begun: bool) -> None:
    if begun:
        keep_torrent(paths, lot.torrent)
        async with running_node(paths) as node:
            carry(node, *post.authorities)
            await until(lambda: node.engine.status(lot.infohash) is not None)


async def test_bundle_that_is_withdrawn_while_it_is_imported_leaves_nothing(
    post: Post, stick: Path, medium: SlowMedium, begun: bool
) -> None:
    lot = post.publish("films", LONG)
    lengthen(post.volume(stick, lot), lot)
    paths = post.enrol("village")
    await prepare(post, paths, lot, begun=begun)
    async with running_node(paths) as node:
        if begun:
            await until(lambda: node.engine.status(lot.infohash) is not None)
        async with beside(medium) as nursery:
            ended = trio.Event()

            async def run() -> None:
                await import_at(node, stick)
                ended.set()

            nursery.start_soon(run)
            medium.let(2)
            await until(lambda: medium.reads >= 3)
            post.county.withdraw(lot.id)
            post.county.publish()
            carry(node, *post.authorities)
            await until(lambda: lot.id in node.view.withdrawn)
            await until(lambda: lot.id not in node.replicator.items)
            medium.let(20)
            await until(ended.is_set)
            assert medium.reads < 20  # Of 62: what nobody wants isn't read.
        await node.replicator.settle()
        assert stored(node) == set()
        assert library(node, lot) == {}
        assert not torrent_path(paths, lot.infohash).exists()


async def test_bundle_that_is_withdrawn_between_two_files_leaves_no_empty_one(
    post: Post, stick: Path, medium: SlowMedium
) -> None:
    lot = post.publish("opera", {f"{at}.mp4": random_bytes(50_000, 70 + at) for at in range(6)})
    lengthen(post.volume(stick, lot), lot)
    async with running_node(post.enrol("village")) as node:
        async with beside(medium) as nursery:
            nursery.start_soon(import_at, node, stick)
            medium.let(1)
            await until(lambda: medium.reads >= 2)
            post.county.withdraw(lot.id)
            post.county.publish()
            carry(node, *post.authorities)
            await until(lambda: lot.id in node.view.withdrawn)
            await until(lambda: lot.id not in node.replicator.items)
            await trio.testing.wait_all_tasks_blocked(0.1)
        await node.replicator.settle()
        assert stored(node) == set()


async def test_revision_that_arrives_while_the_old_one_is_imported_takes_its_place(
    post: Post, stick: Path, tmp_path: Path, medium: SlowMedium, begun: bool
) -> None:
    old = post.publish("films", LONG)
    lengthen(post.volume(stick, old), old)
    paths = post.enrol("village")
    await prepare(post, paths, old, begun=begun)
    files = {**LONG, "第2集.mp4": random_bytes(40_000, 9)}
    async with running_node(paths) as node:
        if begun:
            await until(lambda: node.engine.status(old.infohash) is not None)
        async with beside(medium) as nursery:
            nursery.start_soon(import_at, node, stick)
            medium.let(2)
            await until(lambda: medium.reads >= 3)
            new = post.publish("films", files, revision=2)
            carry(node, *post.authorities)
            items = node.replicator.items
            await until(lambda: new.id not in items or items[new.id].infohash == new.infohash)
            medium.let(20)
            await until(lambda: new.id in items and items[new.id].infohash == new.infohash)
            assert medium.reads < 20
        post.volume(tmp_path / "next", new)
        await import_at(node, tmp_path / "next")
        assert library(node, new) == files
        await until(lambda: stored(node) == {new.infohash.hex()})


async def test_what_was_imported_is_noted_once_even_if_it_was_downloading(
    post: Post, stick: Path
) -> None:
    lot = post.publish("films", FILMS)
    post.volume(stick, lot)
    paths = post.enrol("village")
    await prepare(post, paths, lot, begun=True)
    async with running_node(paths) as node:
        await until(lambda: node.engine.status(lot.infohash) is not None)
        result = await import_at(node, stick)
        assert brought(result, lot).bytes_taken == lot.torrent.payload_size
        assert library(node, lot) == FILMS
        events = await node.database.call(node.catalogue.events, 100)
        assert [event.kind for event in events].count("complete") == 1
        assert not [event for event in events if event.kind == "repaired"]
        assert read_files(node.paths.store / lot.infohash.hex()).keys()


# --- Offers: what only candidates list ------------------------------------------------------------


def promote(post: Post, lot: Lot) -> None:
    """The province lists a bundle of the county."""
    target = post.county.roles["202611"].targets[lot.id]
    data = post.county.blobs[target.hashes["sha256"]]
    post.province.put("promoted", lot.id, data, target.unrecognized_fields["custom"])
    post.province.publish()


async def waiting(node: Node) -> int:
    return (await ask(node, "media.status", {}, MediaStatus)).offers


async def until_none_waits(node: Node) -> None:
    with trio.fail_after(30):
        while await waiting(node):  # noqa: ASYNC110  There is no event for it.
            await trio.sleep(0.01)


def left(paths: DataPaths) -> list[str]:
    """Everything that offers have left in the data directory."""
    places = (paths.media / "offers" / layout.STORE_FOLDER, paths.incoming)
    return [path.name for place in places if place.exists() for path in place.iterdir()]


async def test_candidate_waits_and_is_shown_without_any_network_when_it_is_promoted(
    post: Post, stick: Path
) -> None:
    lot = post.publish("films", FILMS)
    post.volume(stick, lot)
    async with running_node(post.enrol("province", trust_repo.PROVINCE)) as node:
        found = brought(await import_at(node, stick), lot)
        assert (found.state, found.bytes_taken) == ("offered", lot.torrent.payload_size)
        assert await waiting(node) == 1
        assert library(node, lot) == {}
        assert stored(node) == set()
        found = brought(await import_at(node, stick), lot)
        assert (found.state, found.bytes_taken) == ("offered", 0)
        promote(post, lot)
        carry(node, *post.authorities)
        await until(lambda: library(node, lot) == FILMS)
        await until_none_waits(node)
        assert left(node.paths) == []


async def test_candidate_that_comes_on_two_volumes_is_put_together(post: Post, stick: Path) -> None:
    lot = post.publish("films", FILMS)
    volume = post.volume(stick, lot)
    folder = volume / layout.STORE_FOLDER / lot.infohash.hex() / lot.torrent.name
    files = [folder / file.path for file in lot.torrent.files]
    kept = files[0].read_bytes()
    files[0].unlink()
    async with running_node(post.enrol("province", trust_repo.PROVINCE)) as node:
        found = brought(await import_at(node, stick), lot)
        assert (found.state, found.bytes_missing) == ("partial", len(kept))
        files[0].write_bytes(kept)
        files[1].unlink()
        found = brought(await import_at(node, stick), lot)
        assert (found.state, found.bytes_taken) == ("offered", len(kept))
        promote(post, lot)
        carry(node, *post.authorities)
        await until(lambda: library(node, lot) == FILMS)


async def test_part_of_a_candidate_is_used_when_it_is_promoted(
    post: Post, stick: Path, tmp_path: Path
) -> None:
    lot = post.publish("films", FILMS)
    volume = post.volume(stick, lot)
    first = volume / layout.store_file(lot.infohash, lot.torrent.name, lot.torrent.files[0].path)
    kept = first.read_bytes()
    first.unlink()
    async with running_node(post.enrol("province", trust_repo.PROVINCE)) as node:
        await import_at(node, stick)
        promote(post, lot)
        carry(node, *post.authorities)
        await until(lambda: lot.id in node.replicator.items)
        # The next volume has only what the first one lacked.
        shutil.rmtree(volume / layout.STORE_FOLDER)
        first.parent.mkdir(parents=True)
        first.write_bytes(kept)
        found = brought(await import_at(node, stick), lot)
        assert found.bytes_taken == len(kept)
        assert library(node, lot) == FILMS
        await until_none_waits(node)
        assert left(node.paths) == []


@pytest.mark.parametrize("is_whole", [True, False])
async def test_candidate_that_is_withdrawn_or_vanishes_is_removed(
    post: Post, stick: Path, is_whole: bool
) -> None:
    lots = [post.publish("films", FILMS), post.publish("opera", OPERA)]
    volume = post.volume(stick, *lots)
    if not is_whole:
        for lot in lots:
            file = lot.torrent.files[0]
            (volume / layout.store_file(lot.infohash, lot.torrent.name, file.path)).unlink()
    async with running_node(post.enrol("province", trust_repo.PROVINCE)) as node:
        await import_at(node, stick)
        assert await waiting(node) == 2
        post.county.withdraw(lots[0].id)
        del post.county.roles["202611"].targets[lots[1].id]
        post.county.publish()
        carry(node, *post.authorities)
        await until(lambda: not left(node.paths))
        await until_none_waits(node)


async def test_candidate_is_not_removed_by_a_look_that_came_while_it_was_taken(
    post: Post, stick: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lot = post.publish("films", FILMS)
    post.volume(stick, lot)
    is_there, may_go_on = threading.Event(), threading.Event()
    read = offers_module.read_torrent

    def slowly(*arguments: Any) -> Any:
        is_there.set()
        may_go_on.wait()
        return read(*arguments)

    monkeypatch.setattr(offers_module, "read_torrent", slowly)
    async with running_node(post.enrol("province", trust_repo.PROVINCE)) as node:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(import_at, node, stick)
            try:
                await until(is_there.is_set)
                nursery.start_soon(node.media._services.offers.look, node.view)
                await trio.testing.wait_all_tasks_blocked(0.1)
            finally:
                may_go_on.set()
        assert await waiting(node) == 1
        assert len(left(node.paths)) == 2
        promote(post, lot)
        carry(node, *post.authorities)
        await until(lambda: library(node, lot) == FILMS)


async def test_medium_that_is_put_in_again_while_its_offer_is_taken_disturbs_nothing(
    post: Post, stick: Path
) -> None:
    files = {"第1集.mp4": random_bytes(30_000_000, 6)}
    lot = post.publish("films", files)
    post.volume(stick, lot)
    async with running_node(post.enrol("province", trust_repo.PROVINCE)) as node:
        await import_at(node, stick)
        promote(post, lot)
        carry(node, *post.authorities)
        await until(lambda: lot.id in node.replicator.items)
        with trio.fail_after(20):
            await import_at(node, stick)
        assert library(node, lot) == files

"""The life of payloads in the store."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from cuntong_daemon.paths import DataPaths
from cuntong_daemon.store.errors import StoreError, disk_error
from cuntong_daemon.store.pieces import PieceSet
from cuntong_daemon.store.store import Store
from cuntong_protocol.bundle.torrent import Torrent
from tests.support.payloads import (
    random_bytes,
    read_files,
    some_files,
    torrent_of,
    write_files,
    write_payload,
)


@pytest.fixture
def paths(tmp_path: Path) -> DataPaths:
    return DataPaths(tmp_path)


@pytest.fixture
def store(paths: DataPaths) -> Iterator[Store]:
    with closing(sqlite3.connect(paths.database, check_same_thread=False)) as connection:
        yield Store(paths, connection)


def complete_payload(
    paths: DataPaths, store: Store, files: dict[str, bytes], name: str = "bundle"
) -> Torrent:
    torrent = torrent_of(files, name=name)
    store.prepare(torrent)
    write_payload(paths, torrent, files)
    assert not store.complete(torrent.infohash)
    return torrent


def test_a_complete_payload_is_read_only_and_known(paths: DataPaths, store: Store) -> None:
    torrent = complete_payload(paths, store, some_files())
    assert store.is_complete(torrent.infohash)
    assert [payload.infohash for payload in store.payloads()] == [torrent.infohash]
    for path in store.folder(torrent).rglob("*"):
        if path.is_file():
            assert path.stat().st_mode & 0o777 == 0o444
    assert store.torrent(torrent.infohash) == torrent
    assert store.usage().used >= torrent.payload_size
    assert store.usage().free > 0


def test_a_payload_with_a_damaged_piece_is_not_complete(paths: DataPaths, store: Store) -> None:
    files = some_files()
    torrent = torrent_of(files)
    store.prepare(torrent)
    write_payload(paths, torrent, files | {"index": b"x" * 99})
    assert len(store.complete(torrent.infohash)) == 1
    assert not store.is_complete(torrent.infohash)


def test_bytes_behind_the_end_of_a_file_are_cut_off(paths: DataPaths, store: Store) -> None:
    files = some_files()
    torrent = torrent_of(files)
    store.prepare(torrent)
    folder = write_payload(paths, torrent, files | {"index": files["index"] + b"tail"})
    assert not store.complete(torrent.infohash)
    assert read_files(folder) == files


def test_a_flipped_bit_is_found_and_the_payload_is_not_complete_any_more(
    paths: DataPaths, store: Store
) -> None:
    torrent = complete_payload(paths, store, some_files())
    path = store.folder(torrent) / "files/b/odd.bin"
    data = bytearray(path.read_bytes())
    data[5] ^= 1
    path.chmod(0o644)
    path.write_bytes(data)
    assert len(store.verify(torrent.infohash)) == 1
    assert not store.is_complete(torrent.infohash)


def test_a_revision_links_what_it_has_already(paths: DataPaths, store: Store) -> None:
    old = some_files()
    complete_payload(paths, store, old)
    new = old | {"index": b"other", "files/new/名.bin": random_bytes(50_000, 9)}
    new["files/renamed.mp4"] = new.pop("files/a.mp4")
    torrent = torrent_of(new, name="bundle")
    store.prepare(torrent)
    have = store.reuse(torrent)
    missing = {torrent.piece_place(piece)[0].path for piece in have.missing()}
    assert missing == {"index", "files/new/名.bin"}
    folder = store.folder(torrent)
    assert (folder / "files/renamed.mp4").stat().st_nlink == 2
    assert (folder / "files/renamed.mp4").read_bytes() == old["files/a.mp4"]
    assert not store.reuse(torrent), "what is in place is left alone"


def test_content_is_found_whatever_the_piece_length(paths: DataPaths, store: Store) -> None:
    files = some_files()
    complete_payload(paths, store, files)
    torrent = torrent_of(files, name="other", piece_length=65_536)
    store.prepare(torrent)
    assert store.reuse(torrent).is_full


def test_rotten_content_is_not_reused(paths: DataPaths, store: Store) -> None:
    files = some_files()
    first = complete_payload(paths, store, files)
    path = store.folder(first) / "files/a.mp4"
    path.chmod(0o644)
    with path.open("r+b") as file:
        file.seek(1000)
        file.write(b"rot")
    torrent = torrent_of(files, name="other")
    store.prepare(torrent)
    missing = {torrent.piece_place(piece)[0].path for piece in store.reuse(torrent).missing()}
    assert missing == {"files/a.mp4"}


def test_shared_content_stays_when_one_payload_goes(paths: DataPaths, store: Store) -> None:
    files = some_files()
    first = complete_payload(paths, store, files)
    second = torrent_of(files, name="other")
    store.prepare(second)
    assert store.reuse(second).is_full
    assert not store.complete(second.infohash)
    used = store.usage().used
    store.delete(first.infohash)
    assert not store.folder(first).exists()
    assert read_files(store.folder(second)) == files
    assert abs(store.usage().used - used) < 100_000
    with pytest.raises(StoreError) as caught:
        store.torrent(first.infohash)
    assert caught.value.code == "store.no-torrent"
    store.delete(first.infohash)


def test_what_came_of_an_abandoned_payload_moves_to_its_heir(
    paths: DataPaths, store: Store
) -> None:
    films = {"files/a.mp4": random_bytes(200_000, 1), "files/b.mp4": random_bytes(200_000, 2)}
    begun = torrent_of(films)
    store.prepare(begun)
    part = films["files/a.mp4"][:100_000] + bytes(100_000)
    write_payload(paths, begun, {"files/a.mp4": part})
    heir = torrent_of(films | {"files/c.mp4": random_bytes(1_000, 3)}, name="heir")
    store.prepare(heir)
    # Nothing of it counts before somebody has hashed it.
    assert not store.reuse(heir, abandoned=[begun.infohash, b"\xab" * 32])
    assert read_files(store.folder(heir)) == {"files/a.mp4": part}
    assert read_files(store.folder(begun)) == {}


def test_a_torrent_file_that_rotted_is_thrown_away(paths: DataPaths, store: Store) -> None:
    torrent = complete_payload(paths, store, some_files())
    path = paths.torrents / f"{torrent.infohash.hex()}.torrent"
    path.write_bytes(path.read_bytes()[:-3])
    with pytest.raises(StoreError):
        store.torrent(torrent.infohash)
    assert not path.exists()


@pytest.mark.parametrize("was_wanted", [False, True])
def test_a_published_payload_moves_in(paths: DataPaths, store: Store, was_wanted: bool) -> None:
    files = some_files()
    torrent = torrent_of(files)
    if was_wanted:
        store.prepare(torrent)
    place = paths.incoming / torrent.infohash.hex()
    write_files(place / torrent.name, files)
    (paths.incoming / f"{torrent.infohash.hex()}.torrent").write_bytes(torrent.encode())
    assert store.incoming() == [torrent.infohash]
    assert store.take_incoming(torrent.infohash) == torrent
    assert store.is_complete(torrent.infohash)
    assert read_files(store.folder(torrent)) == files
    assert store.incoming() == []
    assert list(paths.incoming.iterdir()) == []


def test_a_published_payload_that_changed_stays_outside(paths: DataPaths, store: Store) -> None:
    files = some_files()
    torrent = torrent_of(files)
    place = paths.incoming / torrent.infohash.hex()
    write_files(place / torrent.name, files | {"index": b"!" * 99})
    (paths.incoming / f"{torrent.infohash.hex()}.torrent").write_bytes(torrent.encode())
    with pytest.raises(StoreError) as caught:
        store.take_incoming(torrent.infohash)
    assert caught.value.code == "store.bad-incoming"
    assert not store.folder(torrent).exists()
    assert store.payloads() == []
    with pytest.raises(StoreError) as caught:
        store.take_incoming(bytes(32))
    assert caught.value.code == "store.no-incoming"


def test_a_crash_after_the_move_is_finished_by_taking_it_again(
    paths: DataPaths, store: Store
) -> None:
    files = some_files()
    torrent = torrent_of(files)
    store.prepare(torrent)
    write_payload(paths, torrent, files)
    paths.incoming.mkdir()
    (paths.incoming / f"{torrent.infohash.hex()}.torrent").write_bytes(torrent.encode())
    store.take_incoming(torrent.infohash)
    assert store.is_complete(torrent.infohash)
    assert store.incoming() == []


def test_folders_that_nothing_claims_are_removed(paths: DataPaths, store: Store) -> None:
    torrent = complete_payload(paths, store, some_files())
    stranger = paths.store / ("ab" * 32)
    write_files(stranger, {"x/y": b"z"})
    write_files(paths.store / "lost+found", {"x": b"z"})
    assert store.recover() == [b"\xab" * 32]
    assert not stranger.exists()
    assert (paths.store / "lost+found").exists()
    assert store.folder(torrent).exists()


def test_what_is_wanted_may_lie_there_without_a_row(paths: DataPaths, store: Store) -> None:
    wanted, stranger = b"\xab" * 32, b"\xcd" * 32
    paths.torrents.mkdir(exist_ok=True)
    for infohash in (wanted, stranger):
        write_files(paths.store / infohash.hex(), {"x/y": b"z"})
        (paths.torrents / f"{infohash.hex()}.torrent").write_bytes(b"z")
    assert store.recover() == []  # The database is empty: it may have been lost.
    assert store.recover(wanted=[wanted]) == [stranger]
    assert [path.name for path in paths.store.iterdir()] == [wanted.hex()]
    assert [path.name for path in paths.torrents.iterdir()] == [f"{wanted.hex()}.torrent"]


def test_knowledge_survives_a_restart(paths: DataPaths, store: Store) -> None:
    torrent = complete_payload(paths, store, some_files())
    with closing(sqlite3.connect(paths.database, check_same_thread=False)) as connection:
        again = Store(paths, connection)
        assert again.is_complete(torrent.infohash)
        other = torrent_of(some_files(), name="other")
        again.prepare(other)
        assert again.reuse(other).is_full


def test_an_empty_store_answers(tmp_path: Path) -> None:
    paths = DataPaths(tmp_path)
    with closing(sqlite3.connect(":memory:", check_same_thread=False)) as connection:
        store = Store(paths, connection)
        assert store.recover() == []
        assert store.incoming() == []
        with pytest.raises(StoreError) as caught:
            store.usage()
    assert caught.value.code == "store.disk-error"


def test_a_full_disk_is_told_from_a_broken_one() -> None:
    assert disk_error(OSError(28, os.strerror(28))).code == "store.disk-full"
    assert disk_error(OSError(5, os.strerror(5), "/x")).code == "store.disk-error"
    assert disk_error(OSError("odd")).code == "store.disk-error"


def test_pieces_of_an_unfinished_payload_are_all_missing(paths: DataPaths, store: Store) -> None:
    torrent = torrent_of(some_files())
    store.prepare(torrent)
    assert store.verify(torrent.infohash) == PieceSet.full(torrent.piece_count)
    assert not store.is_complete(torrent.infohash)

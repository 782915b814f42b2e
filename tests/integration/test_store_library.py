"""The library: real payloads with a real index and packs, and crashes at every step."""

from __future__ import annotations

import contextlib
import shutil
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from cuntong_daemon.paths import DataPaths
from cuntong_daemon.store import library as library_module
from cuntong_daemon.store.errors import StoreError
from cuntong_daemon.store.library import Library
from cuntong_daemon.store.links import copy, link_or_copy
from cuntong_daemon.store.store import Store
from cuntong_protocol.bundle.errors import BundleError
from cuntong_protocol.bundle.index import Index, IndexFile, IndexPack, encode_index, pack_name
from cuntong_protocol.bundle.merkle import EMPTY_ROOT, hash_file
from cuntong_protocol.bundle.packing import make_pack
from cuntong_protocol.bundle.torrent import Torrent
from tests.support.payloads import random_bytes, read_files, torrent_of, write_payload

BUNDLE = "441900000000/202601/poems"
TIME = 1_700_000_000


def root_of(data: bytes) -> bytes:
    return hash_file(data, 32_768)[0]


class Made:
    """A payload with whole files, a pack, a pack on a base, a duplicate, an empty file, an empty folder."""

    def __init__(self, paths: DataPaths, store: Store, word: str = "一") -> None:
        poems = {
            f"诗/{i}.txt": (word + f"床前明月光，疑是地上霜。{i}\n" * 50).encode() for i in range(5)
        }
        later = {
            f"词/{i}.txt": (word + f"床前明月光，疑是地上霜。{i}\n" * 50 + "新").encode()
            for i in range(5)
        }
        film = random_bytes(200_000, len(word))
        self.content = poems | later | {"film.mp4": film, "copy/film.mp4": film, "空": b""}
        base, delta = b"".join(poems.values()), b"".join(later.values())
        packed = [make_pack(base), make_pack(delta, base)]
        packs = tuple(
            IndexPack(pack_name(root_of(data)), len(raw), number)
            for data, raw, number in ((packed[0], base, None), (packed[1], delta, 0))
        )
        files = []
        for number, group in enumerate((poems, later)):
            offset = 0
            for path, data in group.items():
                files.append(IndexFile(path, len(data), TIME, root_of(data), number, offset))
                offset += len(data)
        files += [
            IndexFile("copy/film.mp4", len(film), TIME, root_of(film), stored="copy/film.mp4"),
            IndexFile("film.mp4", len(film), TIME, root_of(film), stored="copy/film.mp4"),
            IndexFile("空", 0, TIME, EMPTY_ROOT),
        ]
        files.sort(key=lambda file: file.path.encode())
        self.index = Index(tuple(files), packs, ("empty/inside",))
        self.stored = {
            "files/copy/film.mp4": film,
            "index": encode_index(self.index),
            f"packs/{packs[0].name}": packed[0],
            f"packs/{packs[1].name}": packed[1],
        }
        self.torrent: Torrent = torrent_of(self.stored, name="poems")
        store.prepare(self.torrent)
        write_payload(paths, self.torrent, self.stored)
        assert not store.complete(self.torrent.infohash)


@pytest.fixture
def paths(tmp_path: Path) -> DataPaths:
    return DataPaths(tmp_path)


@pytest.fixture
def store(paths: DataPaths) -> Iterator[Store]:
    with contextlib.closing(sqlite3.connect(paths.database, check_same_thread=False)) as connection:
        yield Store(paths, connection)


@pytest.fixture
def made(paths: DataPaths, store: Store) -> Made:
    return Made(paths, store)


@pytest.fixture
def library(paths: DataPaths) -> Library:
    return Library(paths)


def test_the_folder_is_byte_for_byte_what_was_published(
    library: Library, made: Made, paths: DataPaths
) -> None:
    folder = library.materialise(BUNDLE, made.torrent.infohash, made.index)
    assert folder == paths.library / BUNDLE
    assert read_files(folder) == made.content
    assert (folder / "empty/inside").is_dir()
    assert (folder / "film.mp4").stat().st_nlink == 3, "whole files are links"
    assert all(
        path.stat().st_mode & 0o222 == 0 and path.stat().st_mtime == TIME
        for path in folder.rglob("*")
        if path.is_file()
    )
    assert library.revision(BUNDLE) == made.torrent.infohash
    assert library.check(BUNDLE, made.index) == []
    assert library.bundles() == [BUNDLE]


def test_a_revision_replaces_the_folder_whole(
    library: Library, made: Made, paths: DataPaths, store: Store
) -> None:
    library.materialise(BUNDLE, made.torrent.infohash, made.index)
    new = Made(paths, store, "二二")
    library.materialise(BUNDLE, new.torrent.infohash, new.index)
    assert read_files(library.folder(BUNDLE)) == new.content
    assert library.revision(BUNDLE) == new.torrent.infohash


class CrashError(Exception):
    pass


STEPS = ("sync_filesystem", "sync_folder", "_remove", "write_atomically")


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("number", range(6))
def test_a_crash_leaves_the_old_folder_or_the_new_one(
    library: Library,
    made: Made,
    paths: DataPaths,
    store: Store,
    monkeypatch: pytest.MonkeyPatch,
    step: str,
    number: int,
) -> None:
    library.materialise(BUNDLE, made.torrent.infohash, made.index)
    new = Made(paths, store, "二二")
    real = getattr(library_module, step)
    calls = 0

    def crash(*arguments: object) -> None:
        nonlocal calls
        calls += 1
        if calls > number:
            raise CrashError
        real(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(library_module, step, crash)
        with contextlib.suppress(CrashError):
            library.materialise(BUNDLE, new.torrent.infohash, new.index)
    again = Library(paths)
    again.recover()
    found = read_files(again.folder(BUNDLE))
    assert found in (made.content, new.content)
    if again.revision(BUNDLE) is not None:
        expected = {made.torrent.infohash: made.content, new.torrent.infohash: new.content}
        assert found == expected[again.revision(BUNDLE) or b""]
    again.materialise(BUNDLE, new.torrent.infohash, new.index)
    assert read_files(again.folder(BUNDLE)) == new.content
    left = [path.name for path in (paths.library / ".staging").rglob("*")]
    assert left == [BUNDLE.replace("/", "+"), "revision"]


def test_damage_in_the_store_is_never_shown(library: Library, made: Made, store: Store) -> None:
    for path in made.stored:
        if path == "index":
            continue
        file = store.folder(made.torrent) / path
        before = file.read_bytes()
        file.chmod(0o644)
        file.write_bytes(before[:40] + bytes([before[40] ^ 1]) + before[41:])
        with pytest.raises(StoreError) as caught:
            library.materialise(BUNDLE, made.torrent.infohash, made.index)
        assert caught.value.code == "library.damaged"
        assert not library.folder(BUNDLE).exists()
        file.write_bytes(before)
    library.materialise(BUNDLE, made.torrent.infohash, made.index)


def test_an_index_that_lies_about_a_packed_file_is_not_shown(library: Library, made: Made) -> None:
    files = list(made.index.files)
    place = next(i for i, file in enumerate(files) if file.pack == 1)
    files[place] = msgspec.structs.replace(files[place], root=b"\x11" * 32)
    lie = msgspec.structs.replace(made.index, files=tuple(files))
    with pytest.raises(StoreError) as caught:
        library.materialise(BUNDLE, made.torrent.infohash, lie)
    assert caught.value.code == "library.damaged"
    assert library.bundles() == []


def test_an_index_of_another_payload_is_refused(
    library: Library, made: Made, paths: DataPaths, store: Store
) -> None:
    other = Made(paths, store, "三三三")
    with pytest.raises(BundleError):
        library.materialise(BUNDLE, made.torrent.infohash, other.index)
    assert library.bundles() == []


def test_a_vanished_payload_leaves_the_folder_that_is_there(
    library: Library, made: Made, store: Store
) -> None:
    library.materialise(BUNDLE, made.torrent.infohash, made.index)
    shutil.rmtree(store.folder(made.torrent))
    with pytest.raises(StoreError):
        library.materialise(BUNDLE, made.torrent.infohash, made.index)
    assert read_files(library.folder(BUNDLE)) == made.content


def test_what_somebody_did_to_the_folder_is_found(library: Library, made: Made) -> None:
    folder = library.materialise(BUNDLE, made.torrent.infohash, made.index)
    (folder / "诗/1.txt").unlink()
    (folder / "诗/2.txt").chmod(0o644)
    (folder / "诗/2.txt").write_bytes(
        made.content["诗/2.txt"].replace("霜".encode(), "雪".encode())
    )
    (folder / "virus.exe").write_bytes(b"MZ")
    (folder / "empty/inside").rmdir()
    assert library.check(BUNDLE, made.index) == [
        "empty/inside",
        "virus.exe",
        "诗/1.txt",
        "诗/2.txt",
    ]
    library.materialise(BUNDLE, made.torrent.infohash, made.index)
    assert library.check(BUNDLE, made.index) == []


def test_a_withdrawn_bundle_leaves_nothing(library: Library, made: Made, paths: DataPaths) -> None:
    library.materialise(BUNDLE, made.torrent.infohash, made.index)
    library.remove(BUNDLE)
    library.remove(BUNDLE)
    assert library.bundles() == []
    assert library.revision(BUNDLE) is None
    assert [path.name for path in paths.library.iterdir()] == [".staging"]


def test_a_crash_while_removing_is_finished_at_the_start(
    library: Library, made: Made, paths: DataPaths, monkeypatch: pytest.MonkeyPatch
) -> None:
    library.materialise(BUNDLE, made.torrent.infohash, made.index)

    def crash(folder: Path) -> None:
        raise CrashError

    with monkeypatch.context() as patch:
        patch.setattr(library_module, "sync_folder", crash)
        with pytest.raises(CrashError):
            library.remove(BUNDLE)
    assert library.bundles() == []
    library.recover()
    assert not any(path.is_file() for path in paths.library.rglob("*"))


def test_a_library_that_never_was_recovers(tmp_path: Path) -> None:
    library = Library(DataPaths(tmp_path))
    library.recover()
    assert library.bundles() == []


def test_a_copy_is_a_file_of_its_own(tmp_path: Path) -> None:
    source, target = tmp_path / "a", tmp_path / "b"
    source.write_bytes(b"content")
    copy(source, target)
    assert target.read_bytes() == b"content"
    assert target.stat().st_ino != source.stat().st_ino
    with pytest.raises(FileExistsError):
        link_or_copy(source, target)
    with pytest.raises(OSError):
        copy(tmp_path / "none", tmp_path / "c")
    assert not (tmp_path / "c").exists()

"""Building a bundle from a folder."""

from __future__ import annotations

import errno
import os
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import libtorrent as lt
import pytest

from cuntong_protocol.bundle.descriptor import parse_bundle_id
from cuntong_protocol.bundle.errors import BundleError
from cuntong_protocol.bundle.torrent import decode_torrent
from cuntong_tools.publish.build import BuildProgress, BuiltBundle
from tests.support.bundles import (
    as_predecessor,
    build,
    metadata,
    new_bytes,
    noise,
    poems_file,
    poetry,
    read_folder,
    read_payload,
    real_poetry,
    write_folder,
)

GOLDEN_INFOHASH = "5721fa55d9902bb79c99c146cd0ea30e8d87a483e75536120124ddf0f5b220eb"
"""Of `poetry()`; changes only with the rules of SPEC 3.7 or the version of zstd, both on purpose."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_folder(tmp_path_factory.mktemp("source") / "poems", poetry())


@pytest.fixture(scope="module")
def built(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> BuiltBundle:
    return build(folder, tmp_path_factory.mktemp("built"))


def test_payload_gives_back_exactly_the_folder(folder: Path, built: BuiltBundle) -> None:
    assert read_payload(built) == read_folder(folder)
    assert built.descriptor.payload_size == sum(
        path.stat().st_size for path in built.payload_dir.rglob("*") if path.is_file()
    )


def test_other_times_order_and_threads_give_the_same_bytes(
    tmp_path: Path, built: BuiltBundle
) -> None:
    files = poetry()
    again = write_folder(tmp_path / "again", dict(reversed(files.items())))
    for number, path in enumerate(again.rglob("*")):
        os.utime(path, (number, number))
    for threads in (1, 5):
        other = build(again, tmp_path / str(threads), threads=threads)
        assert other.descriptor == built.descriptor
        assert read_folder(other.payload_dir) == read_folder(built.payload_dir)


def test_another_machine_gives_the_same_infohash(built: BuiltBundle) -> None:
    assert built.descriptor.infohash.hex() == GOLDEN_INFOHASH


def test_compressible_files_are_packed_and_pictures_are_not(built: BuiltBundle) -> None:
    stored = {file.path for file in built.index.files if file.stored}
    assert stored == {f"pictures/{n}.jpg" for n in range(4)}
    assert built.descriptor.payload_size < 0.5 * built.descriptor.content_size


def test_libtorrent_reads_the_torrent_and_finds_the_payload_complete(built: BuiltBundle) -> None:
    data = built.torrent.encode()
    assert decode_torrent(data, infohash=built.descriptor.infohash) == built.torrent
    params = lt.load_torrent_buffer(data)
    info = params.ti
    assert info is not None
    assert info.info_hashes().v2.to_bytes() == built.descriptor.infohash
    assert not info.info_hashes().has_v1()
    assert info.priv()
    assert info.num_pieces() == built.torrent.piece_count

    session = lt.session(
        {
            "listen_interfaces": "127.0.0.1:0",
            "enable_dht": False,
            "enable_lsd": False,
            "enable_upnp": False,
            "enable_natpmp": False,
            "dht_bootstrap_nodes": "",
            "webtorrent_stun_server": "",
            "alert_mask": lt.alert.category_t.status_notification
            | lt.alert.category_t.error_notification,
        }
    )
    params.save_path = str(built.payload_dir.parent)
    handle = session.add_torrent(params)
    seen: list[str] = []
    while not any("torrent_checked" in name for name in seen):
        assert session.wait_for_alert(30_000) is not None, seen
        seen += [alert.what() for alert in session.pop_alerts()]
    status = handle.status()
    assert status.progress == 1.0
    assert status.is_seeding
    session.pause()


def test_files_with_equal_content_lie_once(tmp_path: Path) -> None:
    picture, text = noise(1, 300_000), poems_file(0, 600)
    files = {"a.jpg": picture, "b/copy.jpg": picture, "c.json": text, "d.json": text}
    built = build(write_folder(tmp_path / "in", files), tmp_path / "out")
    assert [file.path for file in built.torrent.files if file.path.startswith("files/")] == [
        "files/a.jpg"
    ]
    assert len(built.index.packs) == 1
    assert read_payload(built) == files


def test_empty_folders_and_odd_names_arrive(tmp_path: Path) -> None:
    long_name = "长" * 85
    source = write_folder(
        tmp_path / "in", {f"{long_name}/{long_name}": noise(1, 20_000), "e\u0301t\u00e9.txt": b"x"}
    )
    (source / "empty" / "inner").mkdir(parents=True)
    (source / "void").mkdir()
    built = build(source, tmp_path / "out")
    assert built.index.folders == ("empty/inner", "void")
    assert [file.path for file in built.index.files] == [
        "\u00e9t\u00e9.txt",
        f"{long_name}/{long_name}",
    ]
    assert all(file.time == metadata().time for file in built.index.files)


def test_links_inside_the_folder_become_files(tmp_path: Path) -> None:
    source = write_folder(tmp_path / "in", {"real/a.txt": b"a", "b.txt": b"b"})
    (source / "to-folder").symlink_to("real")
    (source / "real" / "to-file").symlink_to("../b.txt")
    built = build(source, tmp_path / "out")
    assert read_payload(built) == {
        "b.txt": b"b",
        "real/a.txt": b"a",
        "real/to-file": b"b",
        "to-folder/a.txt": b"a",
        "to-folder/to-file": b"b",
    }


def test_large_files_are_hashed_in_segments(tmp_path: Path) -> None:
    block = noise(5, 1 << 20)
    source = write_folder(tmp_path / "in", {"film.mp4": block * 70 + b"end", "b": b"b"})
    built = build(source, tmp_path / "out")
    params = lt.load_torrent_buffer(built.torrent.encode())
    assert params.ti is not None
    film = built.torrent.file("files/film.mp4")
    assert film is not None
    data = (built.payload_dir / film.path).read_bytes()
    pieces = built.torrent.pieces_of(film)
    for piece in (pieces[0], pieces[-2], pieces[-1]):
        _, offset, length = built.torrent.piece_place(piece)
        built.torrent.check_piece(piece, data[offset : offset + length])


# Revisions and sharing.


def test_revision_with_one_poem_changed_costs_next_to_nothing(
    tmp_path: Path, built: BuiltBundle
) -> None:
    for number, path in enumerate(("songci/ci.song.3000.json", "huajianji/4-juan.json")):
        files = poetry()
        files[path] = files[path].replace(files[path][600:700], "新的一首".encode())
        source = write_folder(tmp_path / f"in{number}", files)
        revised = build(
            source, tmp_path / f"out{number}", revision=2, predecessor=as_predecessor(built)
        )
        assert read_payload(revised) == files
        assert new_bytes(revised, built) < 0.01 * built.descriptor.payload_size
        assert revised.descriptor.payload_size < 1.01 * built.descriptor.payload_size
        assert revised.descriptor.supersedes is not None
        assert revised.descriptor.supersedes.infohash == built.descriptor.infohash


def test_many_revisions_of_one_file_keep_one_base_and_one_delta(
    tmp_path: Path, built: BuiltBundle
) -> None:
    files = poetry()
    path = "songci/ci.song.3000.json"
    last = built
    for revision in range(2, 6):
        at = revision * 5000
        files[path] = files[path][:at] + b'"changed"' + files[path][at + 9 :]
        source = write_folder(tmp_path / "in", files)
        last = build(
            source,
            tmp_path / str(revision),
            revision=revision,
            predecessor=as_predecessor(last),
        )
        assert len(last.index.packs) == len(built.index.packs) + 1
        assert [pack.base is not None for pack in last.index.packs].count(True) == 1
    assert read_payload(last) == files


def test_rewritten_file_drops_its_old_pack(tmp_path: Path, built: BuiltBundle) -> None:
    files = poetry()
    files["songci/ci.song.3000.json"] = poems_file(90_000, 500)
    source = write_folder(tmp_path / "in", files)
    revised = build(source, tmp_path / "out", revision=2, predecessor=as_predecessor(built))
    assert len(revised.index.packs) == len(built.index.packs)
    assert all(pack.base is None for pack in revised.index.packs)
    assert read_payload(revised) == files


def test_dead_content_is_packed_anew(tmp_path: Path, built: BuiltBundle) -> None:
    files = {path: data for path, data in poetry().items() if not path.startswith("huajianji/")}
    source = write_folder(tmp_path / "in", files)
    revised = build(source, tmp_path / "out", revision=2, predecessor=as_predecessor(built))
    assert read_payload(revised) == files
    live = {file.root: file.size for file in revised.index.files if file.pack is not None}
    assert sum(live.values()) >= 0.8 * sum(pack.size for pack in revised.index.packs)


def test_revision_is_the_same_on_every_machine(tmp_path: Path, built: BuiltBundle) -> None:
    files = poetry()
    files["LICENSE"] = b"CC0\n"
    source = write_folder(tmp_path / "in", files)
    first, second = (
        build(
            source,
            tmp_path / str(threads),
            revision=2,
            predecessor=as_predecessor(built),
            threads=threads,
        )
        for threads in (1, 3)
    )
    assert first.descriptor == second.descriptor


@pytest.mark.parametrize("by", ["folder", "alternate file"])
def test_bundle_that_shares_half_its_files_shares_their_packs(
    tmp_path: Path, built: BuiltBundle, by: str
) -> None:
    old = poetry()
    keep = sorted(old)
    kept = [path for path in keep if path.startswith("songci/")] if by == "folder" else keep[::2]
    files = {path: old[path] for path in kept}
    files |= {f"new/{n}.json": poems_file(50_000 + n * 500, 120) for n in range(20)}
    source = write_folder(tmp_path / "in", files)
    other_id = parse_bundle_id("440000000000/202704/others")
    plain = build(source, tmp_path / "plain", bundle_id=other_id)
    shared = build(source, tmp_path / "shared", bundle_id=other_id, others=(as_predecessor(built),))
    assert read_payload(shared) == files
    assert shared.reused_bytes > 0
    fresh = sum(len(data) for path, data in files.items() if path not in old)
    # What crosses a link is about what is new, packed.
    ratio = plain.descriptor.payload_size / plain.descriptor.content_size
    assert new_bytes(shared, built) < 1.3 * fresh * ratio
    assert new_bytes(shared, built) <= new_bytes(plain, built)


# What is refused, and that nothing is left.


def _link(target: str) -> Callable[[Path], None]:
    return lambda folder: (folder / "link").symlink_to(target)


def _socket(folder: Path) -> None:
    place = Path.cwd()
    os.chdir(folder)  # A socket's path has 108 bytes at most.
    try:
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind("socket")
    finally:
        os.chdir(place)


REFUSALS: list[tuple[str, dict[str, bytes], Callable[[Path], None] | None]] = [
    ("build.empty-folder", {}, None),
    ("build.empty-folder", {"a.txt": b""}, None),
    ("build.link-outside", {"a": b"a"}, _link("/etc/hostname")),
    ("build.link-outside", {"a": b"a"}, _link("../..")),
    ("build.dangling-link", {"a": b"a"}, _link("nowhere")),
    ("build.dangling-link", {"a": b"a"}, _link("link")),
    ("build.link-cycle", {"a": b"a"}, _link(".")),
    ("build.special-file", {"a": b"a"}, lambda folder: os.mkfifo(folder / "pipe")),
    ("build.special-file", {"a": b"a"}, _socket),
    ("bundle.path-collision", {"Readme": b"a", "README": b"b"}, None),
    ("bundle.path-collision", {"\u00e9": b"a", "e\u0301": b"b"}, None),
    ("bundle.bad-path", {"con.txt": b"a"}, None),
    ("bundle.bad-path", {"a\nb": b"a"}, None),
    ("bundle.bad-path", {os.fsdecode(b"\xff"): b"a"}, None),
]


@pytest.mark.parametrize(("code", "files", "prepare"), REFUSALS)
def test_bad_folder_is_refused_before_anything_is_written(
    tmp_path: Path,
    code: str,
    files: dict[str, bytes],
    prepare: Callable[[Path], None] | None,
) -> None:
    source = tmp_path / "in"
    source.mkdir()
    write_folder(source, files)
    if prepare is not None:
        prepare(source)
    with pytest.raises(BundleError) as caught:
        build(source, tmp_path / "out")
    assert caught.value.code == code
    assert not (tmp_path / "out").exists()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
@pytest.mark.parametrize("name", ["a", "b"])
def test_unreadable_file_or_folder_is_refused(tmp_path: Path, name: str) -> None:
    source = write_folder(tmp_path / "in", {"a": b"a", "b/c": b"c"})
    (source / name).chmod(0)
    try:
        with pytest.raises(BundleError) as caught:
            build(source, tmp_path / "out")
    finally:
        (source / name).chmod(0o700)
    assert caught.value.code == "build.unreadable"
    assert not (tmp_path / "out").exists()


def test_missing_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BundleError) as caught:
        build(tmp_path / "in", tmp_path / "out")
    assert caught.value.code == "build.not-a-folder"


def test_output_inside_the_folder_or_taken_is_refused(tmp_path: Path) -> None:
    source = write_folder(tmp_path / "in", {"a": b"a"})
    with pytest.raises(BundleError) as caught:
        build(source, source / "out")
    assert caught.value.code == "build.output-inside"
    (tmp_path / "out" / "poems").mkdir(parents=True)
    with pytest.raises(BundleError) as caught:
        build(source, tmp_path / "out")
    assert caught.value.code == "build.exists"


def test_wrong_id_or_revision_is_refused(tmp_path: Path, built: BuiltBundle) -> None:
    source = write_folder(tmp_path / "in", {"a": b"a"})
    other = parse_bundle_id("440000000000/202703/other")
    for arguments, code in (
        ({"revision": 2}, "build.wrong-revision"),
        ({"revision": 1, "predecessor": as_predecessor(built)}, "build.wrong-revision"),
        (
            {"revision": 2, "predecessor": as_predecessor(built), "bundle_id": other},
            "build.wrong-id",
        ),
    ):
        with pytest.raises(BundleError) as caught:
            build(source, tmp_path / "out", **arguments)
        assert caught.value.code == code
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("stage", ["hashing", "packing", "copying"])
def test_file_that_changes_while_it_is_read_is_refused(tmp_path: Path, stage: str) -> None:
    source = write_folder(tmp_path / "in", {"a.txt": b"a" * 999, "b.bin": noise(1, 99_999)})

    def change(progress: BuildProgress) -> None:
        if progress.stage == stage and progress.done == 0:
            for file in source.iterdir():
                with file.open("ab") as opened:
                    opened.write(b"more")

    with pytest.raises(BundleError) as caught:
        build(source, tmp_path / "out", progress=change)
    assert caught.value.code == "build.file-changed"
    assert not (tmp_path / "out").exists()


def test_file_that_vanishes_is_refused(tmp_path: Path) -> None:
    source = write_folder(tmp_path / "in", {"a.txt": b"a" * 999})

    def vanish(progress: BuildProgress) -> None:
        (source / "a.txt").unlink(missing_ok=True)

    with pytest.raises(BundleError) as caught:
        build(source, tmp_path / "out", progress=vanish)
    assert caught.value.code == "build.file-changed"


def test_damaged_predecessor_is_refused_and_nothing_is_left(
    tmp_path: Path, folder: Path, built: BuiltBundle
) -> None:
    payload = tmp_path / "damaged" / "poems"
    shutil.copytree(built.payload_dir, payload)
    pack = min((payload / "packs").iterdir())
    data = bytearray(pack.read_bytes())
    data[len(data) // 2] ^= 1
    pack.write_bytes(data)
    before = as_predecessor(built)
    before = type(before)(
        before.descriptor, before.index, before.torrent, payload, before.descriptor_sha256
    )
    with pytest.raises(BundleError) as caught:
        build(folder, tmp_path / "out", revision=2, predecessor=before)
    assert caught.value.code == "build.damaged-source"
    assert not (tmp_path / "out").exists()


def test_interrupted_build_leaves_nothing(tmp_path: Path, folder: Path) -> None:
    output = tmp_path / "out"
    output.mkdir()

    def interrupt(progress: BuildProgress) -> None:
        if progress.stage == "packing" and progress.done:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build(folder, output, progress=interrupt)
    assert list(output.iterdir()) == []


_ON_SMALL_DISK = """
import sys
import tempfile
from pathlib import Path
from cuntong_protocol.bundle.errors import BundleError
from tests.support.bundles import build, noise, write_folder
place, kind = Path(sys.argv[1]), sys.argv[2]
data = {"a.bin": noise(1, 900_000), "b.bin": noise(2, 900_000)}
if kind == "film":
    data = {"film.mp4": noise(1, 40_000_000)}
if kind == "packs":
    data = {f"{n}.txt": noise(n, 9_000).hex().encode() for n in range(200)}
source = write_folder(place / "in", data)
try:
    build(source, place / "disk" / "out")
except BundleError as error:
    print(error.code, sorted(path.name for path in (place / "disk").iterdir()))
"""


@pytest.mark.parametrize(
    ("kind", "size"),
    [
        ("files", "512k"),
        ("files", "1760k"),  # All files fit, and the index doesn't.
        ("packs", "512k"),
        ("film", "512k"),
        ("film", "30m"),
    ],
)
def test_full_disk_is_one_error_and_leaves_nothing(tmp_path: Path, kind: str, size: str) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "script.py").write_text(_ON_SMALL_DISK)
    command = 'mount -t tmpfs -o size="$4" none "$1/disk" && exec "$2" "$1/script.py" "$1" "$3"'
    unshare = shutil.which("unshare")
    if unshare is None:
        pytest.skip("unshare is missing")
    result = subprocess.run(
        [unshare, "-rm", "sh", "-c", command, "sh", str(tmp_path), sys.executable, kind, size],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        check=False,
    )
    if "ermission" in result.stderr or "not permitted" in result.stderr:
        pytest.skip("this system lets nobody but root mount a small disk")
    assert result.stdout == "build.disk-full []\n", result.stderr


def test_disk_with_room_for_one_folder_only_is_left_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = write_folder(tmp_path / "in", {"a": b"a"})

    def fill(**_arguments: object) -> str:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(tempfile, "mkdtemp", fill)
    with pytest.raises(BundleError) as caught:
        build(source, tmp_path / "out")
    assert caught.value.code == "build.disk-full"
    assert not (tmp_path / "out").exists()


def test_write_error_names_the_place(tmp_path: Path) -> None:
    source = write_folder(tmp_path / "in", {"a": b"a"})
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(BundleError) as caught:
        build(source, tmp_path / "file" / "out")
    assert caught.value.code == "build.write-failed"
    assert "file/out" in str(caught.value)


# The real collection.


def test_real_poetry_shrinks_to_a_third_and_comes_back(tmp_path: Path) -> None:
    source = real_poetry()
    built = build(source, tmp_path / "out")
    assert read_payload(built) == read_folder(source)
    assert built.descriptor.payload_size <= 0.33 * built.descriptor.content_size


def test_real_poetry_with_one_poem_changed_costs_a_hundredth(tmp_path: Path) -> None:
    source = real_poetry()
    first = build(source, tmp_path / "first")
    files = read_folder(source)
    path = max(
        (path for path in files if path.endswith(".json")), key=lambda path: len(files[path])
    )
    middle = len(files[path]) // 2
    files[path] = files[path][:middle] + "改了一首".encode() * 20 + files[path][middle + 300 :]
    changed = write_folder(tmp_path / "in", files)
    second = build(changed, tmp_path / "second", revision=2, predecessor=as_predecessor(first))
    assert read_payload(second) == files
    assert new_bytes(second, first) <= 0.01 * first.descriptor.payload_size

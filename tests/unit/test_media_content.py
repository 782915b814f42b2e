"""Content of a volume into payloads over real folders: every good piece, whatever was done to the volume (SPEC 12.4)."""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
import random
import resource
import shutil
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import pytest

from cuntong_daemon.media import content as content_module
from cuntong_daemon.media.content import CHUNK_BYTES, Gained, VolumeContent
from cuntong_daemon.media.volume import VolumeFolder
from cuntong_daemon.store.pieces import PieceSet, no_checkpoint, verified_pieces
from cuntong_protocol.media import layout
from tests.support.payloads import PIECE_LENGTH, random_bytes, some_files, torrent_of, write_files
from tests.support.volumes import DAMAGES, Lot, bytes_in, damage, pieces_on, write_volume

MB = 1_000_000
PART = "files/part.bin"


def lot_of(folder: Path, files: Mapping[str, bytes], name: str = "bundle") -> Lot:
    """A payload outside of any volume."""
    torrent = torrent_of(files, name=name)
    source = folder / "sources" / torrent.infohash.hex() / name
    write_files(source, files)
    return Lot("", torrent, source)


def films(folder: Path, seed: int = 1, size: int = 400_000) -> Lot:
    return lot_of(folder, {**some_files(size, seed), PART: random_bytes(250_000, seed + 50)})


def opera(folder: Path, seed: int = 100) -> Lot:
    files = {f"files/{at}.bin": random_bytes(90_000 + at, seed + at) for at in range(4)}
    return lot_of(folder, files, "opera")


class Importer:
    """What an import does with the content of one volume, without a daemon: the store is a folder."""

    def __init__(self, volume: Path, store: Path) -> None:
        self.volume = volume
        self.store = store
        self.have: dict[bytes, PieceSet] = {}

    def folder(self, lot: Lot) -> Path:
        return self.store / lot.infohash.hex() / lot.torrent.name

    def pieces(self, lot: Lot) -> set[int]:
        return set(self.have.get(lot.infohash, PieceSet(0)))

    def run(
        self,
        *lots: Lot,
        checkpoint: Callable[[], None] = no_checkpoint,
        report: Callable[[int], None] = lambda count: None,
    ) -> VolumeContent:
        """Take by place, then by hash."""
        with VolumeFolder(self.volume) as volume:
            content = VolumeContent(volume)
            for lot in lots:
                self._take(lot, content.take, report, checkpoint)
            missing = [(lot.torrent, self.have[lot.infohash].missing()) for lot in lots]
            if content.search(missing, checkpoint):
                for lot in lots:
                    self._take(lot, content.take_misplaced, report, checkpoint)
        return content

    def _take(
        self,
        lot: Lot,
        take: Callable[..., Gained],
        report: Callable[[int], None],
        checkpoint: Callable[[], None],
    ) -> None:
        have = self.have.get(lot.infohash, PieceSet(lot.torrent.piece_count))
        gained = take(lot.torrent, self.folder(lot), have, report, checkpoint)
        assert not gained.pieces.bits & have.bits
        assert gained.bytes_taken == bytes_in(lot.torrent, gained.pieces)
        self.have[lot.infohash] = have | gained.pieces

    def assert_sound(self, *lots: Lot) -> None:
        """What counts is right; where nothing came, nothing was written; no file is one with the volume's unless whole."""
        inodes = {
            path.stat().st_ino: path
            for path in self.volume.rglob("*")
            if path.is_file() and not path.is_symlink()
        }
        for lot in lots:
            pieces = self.pieces(lot)
            for number in range(lot.torrent.piece_count):
                file, offset, length = lot.torrent.piece_place(number)
                path = self.folder(lot) / file.path
                lies = _slice(path, offset, length)
                if number in pieces:
                    assert lies == _slice(lot.source / file.path, offset, length)
                else:
                    assert not any(lies), (file.path, number)
            for file in lot.torrent.files:
                path = self.folder(lot) / file.path
                if path.exists() and path.stat().st_ino in inodes:
                    assert path.read_bytes() == (lot.source / file.path).read_bytes()


def _slice(path: Path, offset: int, length: int) -> bytes:
    if not path.exists():
        return b""
    with path.open("rb") as file:
        file.seek(offset)
        return file.read(length)


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return tmp_path / "store"


def place(volume: Path, lot: Lot, path: str) -> Path:
    """Where a file should lie whole."""
    return volume / layout.store_file(lot.infohash, lot.torrent.name, path)


# --- Every kind of damage -------------------------------------------------------------------------


def test_right_volume_brings_every_byte_in_files_and_parts(tmp_path: Path, store: Path) -> None:
    lots = [films(tmp_path), opera(tmp_path)]
    volume = write_volume(tmp_path, lots, parts=[PART, "files/1.bin"])
    importer = Importer(volume, store)
    content = importer.run(*lots)
    importer.assert_sound(*lots)
    assert all(importer.have[lot.infohash].is_full for lot in lots)
    assert content.bytes_read == sum(lot.torrent.payload_size for lot in lots)


@pytest.mark.parametrize("seed", range(40))
def test_every_good_piece_of_a_damaged_volume_is_taken_and_nothing_else(
    tmp_path: Path, store: Path, seed: int
) -> None:
    lots = [films(tmp_path), opera(tmp_path)]
    volume = write_volume(tmp_path, lots, parts=[PART, "files/1.bin"])
    print(damage(volume, random.Random(seed)))
    wanted = pieces_on(volume, lots)
    importer = Importer(volume, store)
    importer.run(*lots)
    importer.assert_sound(*lots)
    assert {lot.infohash: importer.pieces(lot) for lot in lots} == wanted


@pytest.mark.parametrize("kind", DAMAGES)
def test_damage_of_each_kind_alone(
    tmp_path: Path, store: Path, kind: Callable[[Path, random.Random], str]
) -> None:
    for seed in range(3):
        folder = tmp_path / str(seed)
        lots = [films(folder), opera(folder)]
        volume = write_volume(folder, lots, parts=[PART])
        print(kind(volume, random.Random(1000 + seed)))
        importer = Importer(volume, store / str(seed))
        importer.run(*lots)
        importer.assert_sound(*lots)
        wanted = pieces_on(volume, lots)
        assert {lot.infohash: importer.pieces(lot) for lot in lots} == wanted


def test_rubbish_instead_of_every_file_brings_nothing(tmp_path: Path, store: Path) -> None:
    lot = films(tmp_path)
    volume = write_volume(tmp_path, [lot], parts=[PART])
    for path in sorted(it for it in volume.rglob("*") if it.is_file()):
        path.write_bytes(random_bytes(path.stat().st_size, 9))
    importer = Importer(volume, store)
    importer.run(lot)
    assert not importer.pieces(lot)
    importer.assert_sound(lot)


# --- Contents that lie somewhere else -------------------------------------------------------------


def test_content_that_lies_under_the_name_of_a_file_which_is_here_already_is_found(
    tmp_path: Path, store: Path
) -> None:
    lot = opera(tmp_path)
    volume = write_volume(tmp_path, [lot])
    first, second = (place(volume, lot, f"files/{at}.bin") for at in (0, 1))
    first.write_bytes(second.read_bytes())
    second.unlink()
    importer = Importer(volume, store)
    # The first file came on another way; the second one's content lies in its place.
    here = lot.torrent.file("files/0.bin")
    assert here is not None
    write_files(importer.folder(lot), {here.path: (lot.source / here.path).read_bytes()})
    importer.have[lot.infohash] = PieceSet.of(lot.torrent.piece_count, lot.torrent.pieces_of(here))
    importer.run(lot)
    assert importer.have[lot.infohash].is_full
    importer.assert_sound(lot)


def test_content_that_lies_in_the_folder_of_a_bundle_nobody_wants_is_found(
    tmp_path: Path, store: Path
) -> None:
    wanted, other = opera(tmp_path), films(tmp_path)
    volume = write_volume(tmp_path, [wanted, other])
    lost = place(volume, wanted, "files/2.bin")
    lost.rename(place(volume, other, "index"))
    importer = Importer(volume, store)
    importer.run(wanted)
    assert importer.have[wanted.infohash].is_full


@pytest.mark.parametrize("folder", ["torrents", "catalogue", "again/catalogue"])
def test_content_that_lies_where_torrents_or_catalogues_should_is_found(
    tmp_path: Path, store: Path, folder: str
) -> None:
    lot = opera(tmp_path)
    volume = write_volume(tmp_path, [lot])
    (volume / "data" / folder).mkdir(parents=True, exist_ok=True)
    place(volume, lot, "files/2.bin").rename(volume / "data" / folder / "441900000000")
    importer = Importer(volume, store)
    importer.run(lot)
    assert importer.have[lot.infohash].is_full


def test_folders_in_capitals_are_searched(tmp_path: Path, store: Path) -> None:
    lot = films(tmp_path)
    volume = write_volume(tmp_path, [lot], parts=[PART])
    for path in sorted((volume / "data").rglob("*"), reverse=True):
        path.rename(path.with_name(path.name.upper()))
    importer = Importer(volume, store)
    importer.run(lot)
    assert importer.have[lot.infohash].is_full
    importer.assert_sound(lot)


def test_good_piece_is_taken_from_a_second_place_when_the_first_is_damaged(
    tmp_path: Path, store: Path
) -> None:
    lot = opera(tmp_path)
    volume = write_volume(tmp_path, [lot])
    path = place(volume, lot, "files/3.bin")
    (volume / "copy").write_bytes(path.read_bytes())
    path.write_bytes(bytes(90_003))
    importer = Importer(volume, store)
    importer.run(lot)
    assert importer.have[lot.infohash].is_full


def test_whole_file_and_parts_of_it_complete_each_other(tmp_path: Path, store: Path) -> None:
    data = random_bytes(10 * PIECE_LENGTH + 77, 3)
    lot = lot_of(tmp_path, {"files/a": data, "index": b"i"})
    whole = write_volume(tmp_path / "1", [lot])
    parted = write_volume(tmp_path / "2", [lot], parts=["files/a"])
    shutil.copytree(parted / layout.PARTS_FOLDER, whole / layout.PARTS_FOLDER)
    damaged = bytearray(data)
    damaged[3 * PIECE_LENGTH] ^= 1
    damaged[10 * PIECE_LENGTH] ^= 1
    place(whole, lot, "files/a").write_bytes(damaged)
    (whole / layout.part_file(lot.infohash, 0, 0)).unlink()
    importer = Importer(whole, store)
    importer.run(lot)
    assert importer.have[lot.infohash].is_full
    importer.assert_sound(lot)


# --- Parts with strange numbers -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("folder", "name"),
    [
        ("0", "999999999"),
        ("0", "9999999999"),
        ("999999999", "0"),
        ("00", "0"),
        ("0", "00"),
        ("-1", "0"),
        ("0", "1e3"),
        ("٠", "٠"),
        ("0", "0.tmp"),
    ],
)
def test_parts_with_numbers_that_cannot_be_are_only_rubbish(
    tmp_path: Path, store: Path, folder: str, name: str
) -> None:
    lot = opera(tmp_path)
    volume = write_volume(tmp_path, [lot])
    part = volume / layout.PARTS_FOLDER / lot.infohash.hex() / folder / name
    part.parent.mkdir(parents=True)
    part.write_bytes(random_bytes(70_000, 5))
    place(volume, lot, "files/0.bin").unlink()
    importer = Importer(volume, store)
    importer.run(lot)
    importer.assert_sound(lot)
    wanted = lot.torrent.file("files/0.bin")
    assert wanted is not None
    assert set(importer.have[lot.infohash].missing()) == set(lot.torrent.pieces_of(wanted))


def test_part_that_is_longer_than_its_file_or_empty_does_no_harm(
    tmp_path: Path, store: Path
) -> None:
    lot = opera(tmp_path)
    volume = write_volume(tmp_path, [lot], parts=["files/0.bin", "files/1.bin"])
    long = volume / layout.part_file(lot.infohash, 0, 0)
    long.write_bytes((lot.source / "files/0.bin").read_bytes() + bytes(CHUNK_BYTES))
    (volume / layout.part_file(lot.infohash, 1, 1)).write_bytes(b"")
    importer = Importer(volume, store)
    importer.run(lot)
    assert importer.have[lot.infohash].is_full
    importer.assert_sound(lot)


# --- Links and clones -----------------------------------------------------------------------------


def shared(volume: Path, importer: Importer, lot: Lot, path: str) -> bool:
    there, here = place(volume, lot, path).stat(), (importer.folder(lot) / path).stat()
    return (there.st_dev, there.st_ino) == (here.st_dev, here.st_ino)


def test_whole_file_of_the_same_file_system_is_not_copied(tmp_path: Path, store: Path) -> None:
    lot = films(tmp_path)
    volume = write_volume(tmp_path, [lot])
    importer = Importer(volume, store)
    importer.run(lot)
    assert importer.have[lot.infohash].is_full
    if not is_cloning(tmp_path):
        assert shared(volume, importer, lot, "files/a.mp4")


def test_damaged_file_of_the_same_file_system_is_copied_without_its_bad_pieces(
    tmp_path: Path, store: Path
) -> None:
    lot = films(tmp_path)
    volume = write_volume(tmp_path, [lot])
    path = place(volume, lot, "files/a.mp4")
    data = bytearray(path.read_bytes())
    data[5 * PIECE_LENGTH] ^= 1
    path.write_bytes(data)
    importer = Importer(volume, store)
    importer.run(lot)
    assert len(importer.have[lot.infohash].missing()) == 1
    assert not shared(volume, importer, lot, "files/a.mp4")
    importer.assert_sound(lot)
    assert path.read_bytes() == data


@pytest.mark.parametrize("stop_at", range(1, 8))
def test_stop_in_the_middle_of_a_file_leaves_nothing_that_was_not_checked(
    tmp_path: Path, store: Path, stop_at: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(content_module, "CHUNK_BYTES", 2 * PIECE_LENGTH)
    lot = films(tmp_path)
    volume = write_volume(tmp_path, [lot])
    path = place(volume, lot, "files/a.mp4")
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    importer = Importer(volume, store)
    calls = itertools.count(1)

    def checkpoint() -> None:
        if next(calls) == stop_at:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        importer.run(lot, checkpoint=checkpoint)
    target = importer.folder(lot) / "files/a.mp4"
    if target.exists():
        assert not shared(volume, importer, lot, "files/a.mp4")
        good = verified_pieces(lot.torrent, importer.folder(lot))
        for number in lot.torrent.pieces_of(lot.torrent.files[0]):
            _, offset, length = lot.torrent.piece_place(number)
            if number not in good:
                assert not any(_slice(target, offset, length))
    # And it goes on where it was.
    importer.have[lot.infohash] = verified_pieces(lot.torrent, importer.folder(lot))
    importer.run(lot)
    assert len(importer.have[lot.infohash].missing()) == 1
    assert path.read_bytes() == data


def test_file_of_somebody_else_is_copied(tmp_path: Path, store: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("giving a file away needs root")
    lot = films(tmp_path)
    volume = write_volume(tmp_path, [lot])
    os.chown(place(volume, lot, "files/a.mp4"), 65534, 65534)
    importer = Importer(volume, store)
    importer.run(lot)
    assert importer.have[lot.infohash].is_full
    assert not shared(volume, importer, lot, "files/a.mp4")


def test_file_that_another_one_replaces_while_it_is_linked_is_not_believed(
    tmp_path: Path, store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lot = films(tmp_path)
    volume = write_volume(tmp_path, [lot])
    folder = place(volume, lot, "files/a.mp4").parent
    outside = tmp_path / "outside"
    write_files(outside, {"a.mp4": random_bytes(1000, 66), "b": b""})

    def replace(*_arguments: Any) -> None:
        if not folder.is_symlink():
            folder.rename(tmp_path / "away")
            folder.symlink_to(outside)
        raise OSError(errno.EOPNOTSUPP, "no clones here")

    monkeypatch.setattr(content_module.fcntl, "ioctl", replace)
    importer = Importer(volume, store)
    importer.run(lot)
    importer.assert_sound(lot)
    target = importer.folder(lot) / "files/a.mp4"
    assert target.stat().st_ino != (outside / "a.mp4").stat().st_ino
    assert not any(path.is_symlink() for path in store.rglob("*"))


def is_cloning(folder: Path) -> bool:
    """Whether this file system shares blocks."""
    (folder / "clone-a").write_bytes(bytes(4096))
    done = subprocess.run(
        ["cp", "--reflink=always", folder / "clone-a", folder / "clone-b"],
        capture_output=True,
        check=False,
    )
    return done.returncode == 0


@contextlib.contextmanager
def mounted(folder: Path, size: int, *mkfs: str) -> Iterator[Path]:
    """A file system of its own in an image beside `folder`; yields the image."""
    if os.geteuid() != 0:
        pytest.skip("mounting needs root")
    if shutil.which(mkfs[0]) is None:
        pytest.skip(f"{mkfs[0]} is missing")
    image = folder.with_suffix(".img")
    with image.open("wb") as file:
        file.truncate(size)
    subprocess.run([*mkfs, image], check=True, capture_output=True)
    folder.mkdir()
    done = subprocess.run(
        ["mount", "-o", "loop", image, folder], check=False, capture_output=True, text=True
    )
    if done.returncode:
        pytest.skip(f"this file system can't be mounted here: {done.stderr.strip()}")
    try:
        yield image
    finally:
        subprocess.run(["umount", "-l", folder], check=False, capture_output=True)


CLONING = [
    pytest.param(("mkfs.xfs", "-q", "-m", "reflink=1"), 300 * 1024 * 1024, id="xfs"),
    pytest.param(("mkfs.btrfs", "-q"), 120 * 1024 * 1024, id="btrfs"),
]


@pytest.mark.parametrize(("mkfs", "size"), CLONING)
def test_clones_share_blocks_and_a_damaged_file_leaves_no_clone(
    tmp_path: Path, mkfs: Sequence[str], size: int
) -> None:
    with mounted(tmp_path / "disk", size, *mkfs):
        disk = tmp_path / "disk"
        assert is_cloning(disk)
        lot = lot_of(
            tmp_path, {"files/a": random_bytes(6 * MB, 1), "files/b": random_bytes(6 * MB, 2)}
        )
        volume = write_volume(disk, [lot])
        damaged = place(volume, lot, "files/b")
        with damaged.open("r+b") as file:
            file.seek(40 * PIECE_LENGTH)
            file.write(bytes(PIECE_LENGTH))
        os.sync()
        before = os.statvfs(disk)
        importer = Importer(volume, disk / "store")
        importer.run(lot)
        os.sync()
        after = os.statvfs(disk)
        importer.assert_sound(lot)
        assert len(importer.have[lot.infohash].missing()) == 1
        assert not shared(volume, importer, lot, "files/a")
        used = (before.f_bfree - after.f_bfree) * before.f_frsize
        assert used < 9 * MB  # The damaged one was copied, the other shares its blocks.


# --- Media that can't be read ---------------------------------------------------------------------


class BadSectors:
    """Stretches of a file that can't be read: the system's calls say EIO, as for a scratched disc."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, path: Path, *stretches: range) -> None:
        self._inode = path.stat().st_ino
        self._stretches = stretches
        self.failures = 0
        self._preadv, self._pread = os.preadv, os.pread
        monkeypatch.setattr(content_module.os, "preadv", self.preadv)
        monkeypatch.setattr(content_module.os, "pread", self.pread)

    def _length(self, source: int, length: int, offset: int) -> int:
        """How many bytes come before the first bad one."""
        if os.fstat(source).st_ino != self._inode:
            return length
        for stretch in self._stretches:
            if offset < stretch.stop and offset + length > stretch.start:
                if offset >= stretch.start:
                    self.failures += 1
                    raise OSError(errno.EIO, os.strerror(errno.EIO))
                length = min(length, stretch.start - offset)
        return length

    def preadv(self, source: int, buffers: Sequence[memoryview], offset: int) -> int:
        length = self._length(source, len(buffers[0]), offset)
        return self._preadv(source, [buffers[0][:length]], offset)

    def pread(self, source: int, length: int, offset: int) -> bytes:
        return self._pread(source, self._length(source, length, offset), offset)


def test_bad_sectors_cost_the_pieces_that_they_lie_in(
    tmp_path: Path, store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lot = films(tmp_path)
    volume = write_volume(tmp_path, [lot])
    bad = [
        range(3 * PIECE_LENGTH + 5, 3 * PIECE_LENGTH + 517),
        range(6 * PIECE_LENGTH, 7 * PIECE_LENGTH + 1),
    ]
    sectors = BadSectors(monkeypatch, place(volume, lot, "files/a.mp4"), *bad)
    importer = Importer(volume, store)
    importer.run(lot)
    assert sectors.failures
    assert set(importer.have[lot.infohash].missing()) == {3, 6, 7}
    importer.assert_sound(lot)
    assert not shared(volume, importer, lot, "files/a.mp4")


def test_bad_sectors_of_a_file_that_lies_elsewhere_cost_no_more(
    tmp_path: Path, store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lot = films(tmp_path)
    volume = write_volume(tmp_path, [lot])
    moved = volume / "a.mp4"
    place(volume, lot, "files/a.mp4").rename(moved)
    BadSectors(monkeypatch, moved, range(3 * PIECE_LENGTH, 3 * PIECE_LENGTH + 512))
    importer = Importer(volume, store)
    importer.run(lot)
    assert set(importer.have[lot.infohash].missing()) == {3}
    importer.assert_sound(lot)


def test_whoever_stops_an_import_need_not_wait_for_every_bad_sector(
    tmp_path: Path, store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lot = films(tmp_path)
    volume = write_volume(tmp_path, [lot])
    path = place(volume, lot, "files/a.mp4")
    sectors = BadSectors(monkeypatch, path, range(path.stat().st_size))
    seen: list[int] = []

    def checkpoint() -> None:
        seen.append(sectors.failures)
        if sectors.failures > 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Importer(volume, store).run(lot, checkpoint=checkpoint)
    # Each may take a drive half a minute.
    assert sectors.failures <= 4


def test_sectors_of_a_real_disk_that_fail_cost_only_what_lies_there(
    tmp_path: Path, store: Path
) -> None:
    with mounted(tmp_path / "disk", 8 * 1024 * 1024, "mkfs.ext2", "-q") as image:
        lot = lot_of(
            tmp_path,
            {f"files/{at}.bin": random_bytes(700_000, 10 + at) for at in range(8)},
        )
        write_volume(tmp_path / "disk", [lot])
        os.sync()
        subprocess.run(["umount", tmp_path / "disk"], check=True)
        subprocess.run(["mount", "-o", "loop,ro", image, tmp_path / "disk"], check=True)
        volume = tmp_path / "disk" / layout.volume_folder("abcdefghij", 1)
        truth = pieces_on(volume, [lot])
        assert len(truth[lot.infohash]) == lot.torrent.piece_count
        subprocess.run(["umount", tmp_path / "disk"], check=True)
        subprocess.run(["mount", "-o", "loop,ro", image, tmp_path / "disk"], check=True)
        os.truncate(image, 4 * 1024 * 1024)  # What lies behind can't be read any more.
        importer = Importer(volume, store)
        content = importer.run(lot)
        importer.assert_sound(lot)
        assert not content.is_gone
        assert 0 < len(importer.pieces(lot)) < lot.torrent.piece_count


def pull_out(volume: Path) -> None:
    volume.rename(volume.parent / "drawer")


def delete(volume: Path) -> None:
    shutil.rmtree(volume)


@pytest.mark.parametrize("lose", [pull_out, delete])
def test_volume_that_goes_in_the_middle_counts_as_gone_and_keeps_what_came(
    tmp_path: Path, store: Path, lose: Callable[[Path], None]
) -> None:
    lot = films(tmp_path)
    volume = write_volume(tmp_path, [lot], parts=[PART])
    shutil.copytree(volume, tmp_path / "copy")

    def report(_count: int) -> None:
        if volume.exists():
            lose(volume)

    importer = Importer(volume, store)
    content = importer.run(lot, report=report)
    assert content.is_gone
    (tmp_path / "copy").rename(volume)
    importer.assert_sound(lot)
    assert 0 < len(importer.pieces(lot)) < lot.torrent.piece_count
    again = Importer(volume, store)
    again.have = importer.have
    again.run(lot)
    assert again.have[lot.infohash].is_full
    again.assert_sound(lot)


def test_disk_that_is_unmounted_in_the_middle_is_read_as_long_as_it_can_be(
    tmp_path: Path, store: Path
) -> None:
    with mounted(tmp_path / "disk", 8 * 1024 * 1024, "mkfs.ext2", "-q"):
        lot = films(tmp_path)
        volume = write_volume(tmp_path / "disk", [lot], parts=[PART])
        calls = itertools.count()

        def unmount(_count: int) -> None:
            if next(calls) == 1:
                subprocess.run(["umount", "-l", tmp_path / "disk"], check=True)

        importer = Importer(volume, store)
        content = importer.run(lot, report=unmount)
        assert content.is_gone or importer.have[lot.infohash].is_full


# --- The store's own disk -------------------------------------------------------------------------


def test_store_that_fills_up_is_said_and_goes_on_when_there_is_room(
    tmp_path: Path, store: Path
) -> None:
    lot = films(tmp_path)
    volume = write_volume(tmp_path, [lot])
    with place(volume, lot, "files/a.mp4").open("ab") as file:
        file.write(b"longer, so that it is copied")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    files = {path.name for path in Path("/proc/self/fd").iterdir()}
    importer = Importer(volume, store)
    resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, before[1]))
    try:
        with pytest.raises(OSError) as caught:
            importer.run(lot)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert caught.value.errno == errno.EFBIG
    assert {path.name for path in Path("/proc/self/fd").iterdir()} == files
    importer.have[lot.infohash] = verified_pieces(lot.torrent, importer.folder(lot))
    importer.run(lot)
    assert importer.have[lot.infohash].is_full
    importer.assert_sound(lot)


def test_what_was_read_only_in_the_store_is_mended(tmp_path: Path, store: Path) -> None:
    lot = films(tmp_path)
    volume = write_volume(tmp_path, [lot])
    importer = Importer(volume, store)
    write_files(importer.folder(lot), {"files/a.mp4": bytes(100_000)})
    (importer.folder(lot) / "files/a.mp4").chmod(0o444)
    importer.run(lot)
    assert importer.have[lot.infohash].is_full
    importer.assert_sound(lot)


def test_link_in_the_store_is_not_written_through(tmp_path: Path, store: Path) -> None:
    lot = films(tmp_path)
    volume = write_volume(tmp_path, [lot])
    importer = Importer(volume, store)
    target = importer.folder(lot) / "files/a.mp4"
    target.parent.mkdir(parents=True)
    (tmp_path / "precious").write_bytes(b"precious")
    target.symlink_to(tmp_path / "precious")
    with pytest.raises(OSError):
        importer.run(lot)
    assert (tmp_path / "precious").read_bytes() == b"precious"


def test_bytes_that_were_wrong_where_they_lay_are_counted(tmp_path: Path, store: Path) -> None:
    lot = films(tmp_path)
    volume = write_volume(tmp_path, [lot])
    path = place(volume, lot, "files/a.mp4")
    with path.open("r+b") as file:
        file.write(b"\0\0\0")
    with VolumeFolder(volume) as folder:
        content = VolumeContent(folder)
        gained = content.take(
            lot.torrent,
            store / lot.torrent.name,
            PieceSet(lot.torrent.piece_count),
            lambda count: None,
            no_checkpoint,
        )
    assert gained.bytes_wrong == PIECE_LENGTH
    assert gained.bytes_taken == lot.torrent.payload_size - PIECE_LENGTH
    assert PurePosixPath("data") not in (store / lot.torrent.name).parents

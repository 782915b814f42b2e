"""Volumes on real file systems: full, forgetful, pulled out, and taken up again (SPEC 12.1, 12.2, 12.8)."""

from __future__ import annotations

import contextlib
import errno
import functools
import hashlib
import importlib
import os
import pty
import random
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
import trio
from rich.cells import cell_len

from cuntong_daemon.control.media_messages import OfferedBundle, OfferedCatalogue, PlaceKnown
from cuntong_daemon.control.server import Outcome
from cuntong_daemon.store.torrents import keep_superseded, torrent_path
from cuntong_protocol.bundle.torrent import Torrent
from cuntong_protocol.media.errors import MediaError
from cuntong_tools.media import writing
from cuntong_tools.media.export import Exporter
from cuntong_tools.media.medium import Target
from cuntong_tools.media.plan import (
    KEPT_PLANS,
    HeldPlan,
    Plan,
    Wish,
    exports_folder,
    prune_plans,
)
from tests.support.media_export import (
    VILLAGE,
    Exported,
    Exporting,
    content_of,
    exporting,
    paper_of,
    volumes_in,
)
from tests.support.node import fake_node
from tests.support.payloads import random_bytes, read_files

FOR_VILLAGE = Wish(places=(VILLAGE,))
KILLS = 30
POEMS = {
    f"files/卷{number % 3}/诗·{number:02}.json": random_bytes(9_000, number) for number in range(12)
}
FILMS = {
    "files/第1集.mp4": random_bytes(6_000_000, 51),
    "files/第2集.mp4": random_bytes(900_000, 52),
}


@pytest.fixture
def county(tmp_path: Path) -> Exporting:
    return exporting(tmp_path)


@pytest.fixture
def stick(tmp_path: Path) -> Path:
    folder = tmp_path / "stick"
    folder.mkdir()
    return folder


def sized(size: int, places: tuple[str, ...] = (VILLAGE,)) -> Wish:
    return Wish(places=places, volume=str(size))


def no_report(_what: str, _count: int) -> None:
    pass


def assert_valid(*folders: Path) -> dict[int, Path]:
    """bagit.py accepts every volume; returns them by number."""
    bagit = pytest.importorskip("bagit")
    volumes = volumes_in(*folders)
    for path in volumes.values():
        bagit.Bag(str(path)).validate()
    return volumes


def assert_brings(county: Exporting, torrent: Torrent, *folders: Path) -> None:
    """The volumes have all of a bundle."""
    volumes = list(volumes_in(*folders).values())
    assert content_of(torrent, volumes) == read_files(county.source(torrent))


@contextlib.contextmanager
def mounted(folder: Path, size: int, *mkfs: str) -> Iterator[Path]:
    """A file system of its own in an image beside `folder`."""
    if os.geteuid() != 0:
        pytest.skip("mounting needs root")
    if shutil.which(mkfs[0]) is None:
        pytest.skip(f"{mkfs[0]} is missing")
    image = folder.with_suffix(".img")
    with image.open("wb") as file:
        file.truncate(size)
    subprocess.run([*mkfs, image], check=True, capture_output=True)
    with remounted(folder, image):
        yield folder


@contextlib.contextmanager
def remounted(folder: Path, image: Path) -> Iterator[None]:
    folder.mkdir(exist_ok=True)
    done = subprocess.run(
        ["mount", "-o", "loop", image, folder], check=False, capture_output=True, text=True
    )
    if done.returncode:
        pytest.skip(f"this file system can't be mounted here: {done.stderr.strip()}")
    try:
        yield
    finally:
        # While others mount and unmount, it may not find what is mounted.
        for _ in range(10):
            subprocess.run(["umount", "-l", folder], check=False, capture_output=True)
            if not folder.is_mount():
                break


# --- What lies on a volume ------------------------------------------------------------------------


def test_volumes_bring_every_byte_and_bagit_accepts_each(county: Exporting, stick: Path) -> None:
    poems, films = county.add("poems", POEMS), county.add("films", FILMS)
    done = county.export(sized(4_000_000), stick)
    volumes = assert_valid(stick)
    assert sorted(volumes) == [1, 2]
    assert_brings(county, poems, stick)
    assert_brings(county, films, stick)
    for number, path in volumes.items():
        paper = paper_of(path)
        assert (paper.number, paper.count, paper.by) == (number, 2, county.offer.code)
        assert paper.places == (VILLAGE,)
        data = path / "data"
        assert sorted(it.name for it in data.iterdir()) == sorted(
            {"volume", "catalogue", "torrents", "again"}
            | {name for name in ("store", "parts") if (data / name).exists()}
        )
        for name in ("volume", "catalogue", "torrents"):
            first, second = data / name, data / "again" / name
            if first.is_file():
                assert first.read_bytes() == second.read_bytes()
            else:
                assert read_files(first) == read_files(second) != {}
        assert len(read_files(data / "catalogue")) == 3
        assert (path / "LETTER.html").stat().st_size > 1000
        assert "Bag-Count: " + f"{number} of 2" in (path / "bag-info.txt").read_text()
    first = paper_of(volumes[1])
    assert [(bundle.id, bundle.is_whole) for bundle in first.bundles] == [
        (county.bundles[0].id, True),
        (county.bundles[1].id, False),
    ]
    assert first.bundles[0].bytes == poems.payload_size
    assert not any(bundle.is_whole for bundle in paper_of(volumes[2]).bundles)
    assert done.plan.undone == []
    whole = volumes[1] / "data" / "store" / poems.infohash.hex() / "poems"
    assert read_files(whole) == POEMS  # A folder that can be seeded as it is.


def test_catalogue_alone_is_a_small_volume_without_bundles(county: Exporting, stick: Path) -> None:
    county.add("poems", POEMS)
    county.export(Wish(places=(VILLAGE,), is_catalogue_only=True), stick)
    (path,) = assert_valid(stick).values()
    assert paper_of(path).bundles == ()
    assert not (path / "data" / "store").exists()
    assert sum(len(data) for data in read_files(path).values()) < 200_000


def test_files_that_the_place_has_from_a_replaced_revision_stay_at_home(
    county: Exporting, stick: Path
) -> None:
    old = county.add("poems", POEMS)
    keep_superseded(county.paths, old.infohash)
    changed = POEMS | {"files/卷0/诗·00.json": random_bytes(9_000, 99)}
    new = county.add("poems", changed, revision=2)
    county.offer = msgspec.structs.replace(county.offer, present=[old.infohash.hex()])
    county.export(FOR_VILLAGE, stick)
    (path,) = assert_valid(stick).values()
    brought = content_of(new, [path])
    assert brought == {"files/卷0/诗·00.json": changed["files/卷0/诗·00.json"]}
    assert paper_of(path).bundles[0].bytes == 9_000
    assert paper_of(path).bundles[0].is_whole


def test_names_that_some_file_system_refuses_lie_as_parts(county: Exporting, stick: Path) -> None:
    names = ("files/who?.txt", "files/100%.txt", "files/" + "x" * 250 + ".txt", "index")
    torrent = county.add("odd", {name: random_bytes(40_000, at) for at, name in enumerate(names)})
    county.export(FOR_VILLAGE, stick)
    (path,) = assert_valid(stick).values()
    assert_brings(county, torrent, stick)
    numbers = {int(it.name) for it in (path / "data/parts" / torrent.infohash.hex()).iterdir()}
    assert {torrent.files[number].path for number in numbers} == set(names[:2])


def test_catalogue_that_is_replaced_meanwhile_is_asked_for_anew(
    county: Exporting, stick: Path
) -> None:
    right = county.offer
    wrong = OfferedCatalogue(authority=county.offer.code, version=1, sha256="00" * 32)
    county.offer = msgspec.structs.replace(right, catalogues=[wrong])
    ask = county.ask

    def changing(wish: Wish) -> Any:
        answer = ask(wish)
        county.offer = right
        return answer

    county.ask = changing  # type: ignore[method-assign]
    county.export(Wish(is_catalogue_only=True), stick)
    (path,) = assert_valid(stick).values()
    assert len(read_files(path / "data/catalogue")) == 3


def test_catalogue_that_never_holds_still_is_said(county: Exporting, stick: Path) -> None:
    wrong = OfferedCatalogue(authority=county.offer.code, version=1, sha256="00" * 32)
    county.offer = msgspec.structs.replace(county.offer, catalogues=[wrong])
    with pytest.raises(MediaError) as caught:
        county.export(Wish(is_catalogue_only=True), stick)
    assert caught.value.code == "media.catalogue-changing"


# --- Real file systems ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("size", "mkfs"),
    [
        (25_000_000, ("mkfs.vfat",)),
        (25_000_000, ("mkfs.vfat", "-s", "1")),
        (25_000_000, ("mkfs.vfat", "-s", "8")),
        (50_000_000, ("mkfs.vfat", "-F", "32")),
    ],
    ids=["FAT16", "FAT16 with the largest table", "FAT16 with clusters of 4 KiB", "FAT32"],
)
def test_volume_of_a_named_size_fits_onto_a_fat_image_of_that_size(
    county: Exporting, stick: Path, tmp_path: Path, size: int, mkfs: tuple[str, ...]
) -> None:
    if shutil.which(mkfs[0]) is None or shutil.which("mcopy") is None:
        pytest.skip("mtools and dosfstools are missing")
    pictures = {f"files/图{at:03}.jpg": random_bytes(20_000 + at, at) for at in range(400)}
    torrents = [
        county.add("films", {"files/a.mp4": random_bytes(60_000_000, 7), "index": b"x"}),
        county.add("pictures", pictures),
    ]
    county.export(sized(size), stick)
    volumes = volumes_in(stick)
    assert len(volumes) == -(-68_000_000 // size)
    back = tmp_path / "back"
    back.mkdir()
    environment = os.environ | {"LC_ALL": "C.UTF-8", "MTOOLS_SKIP_CHECK": "1"}
    used = []
    for path in volumes.values():
        image = tmp_path / "fat.img"
        with image.open("wb") as file:
            file.truncate(size)
        subprocess.run([*mkfs, image], check=True, capture_output=True)
        for command in (
            ["mcopy", "-s", "-i", image, path, "::"],
            ["mcopy", "-s", "-i", image, f"::{path.name}", back],
        ):
            subprocess.run(command, check=True, capture_output=True, env=environment)
        listing = subprocess.run(
            ["mdir", "-i", image, "::"], check=True, capture_output=True, text=True, env=environment
        )
        (last,) = (line for line in listing.stdout.splitlines() if line.endswith("bytes free"))
        used.append(1 - int("".join(filter(str.isdigit, last))) / size)
        image.unlink()
    assert_valid(back)
    for torrent in torrents:
        assert_brings(county, torrent, back)
    # Neither is much room given away.
    assert max(used) > 0.95


@pytest.mark.parametrize(
    ("size", "mkfs"),
    [
        (24_000_000, ("mkfs.ext2", "-q", "-b", "1024", "-m", "0")),
        (24_000_000, ("mkfs.ext2", "-q", "-b", "4096", "-m", "0")),
        (24_000_000, ("mkfs.ext4", "-q", "-O", "^has_journal")),
    ],
    ids=["ext2 1 KiB", "ext2 4 KiB", "ext4"],
)
def test_volume_fills_a_small_file_system_and_fits(
    county: Exporting, tmp_path: Path, size: int, mkfs: tuple[str, ...]
) -> None:
    many = {f"files/图{at:03}.jpg": random_bytes(17_000 + at, at) for at in range(200)}
    county.add("pictures", many)
    film = county.add("films", {"files/a.mp4": random_bytes(size, 7), "index": b"x"})
    done: Exported | None = None
    folders: list[Path] = []
    with contextlib.ExitStack() as stack:
        for number in range(2):
            folders.append(stack.enter_context(mounted(tmp_path / f"{number}", size, *mkfs)))
            free = os.statvfs(folders[-1]).f_bavail * os.statvfs(folders[-1]).f_frsize
            done = county.export(FOR_VILLAGE, folders[-1])
            if number == 0:
                left = os.statvfs(folders[-1]).f_bavail * os.statvfs(folders[-1]).f_frsize
                assert left < 0.07 * free
        assert done is not None
        assert done.plan.undone == []
        assert len(assert_valid(*folders)) == 2
        assert_brings(county, film, *folders)


def test_stick_that_takes_no_chinese_names_gets_parts(county: Exporting, tmp_path: Path) -> None:
    if shutil.which("fusefat") is None or shutil.which("mkfs.vfat") is None:
        pytest.skip("fusefat and dosfstools are missing")
    image, folder = tmp_path / "fat.img", tmp_path / "fat"
    with image.open("wb") as file:
        file.truncate(25_000_000)
    folder.mkdir()
    subprocess.run(["mkfs.vfat", image], check=True, capture_output=True)
    done = subprocess.run(["fusefat", "-o", "rw+", image, folder], check=False, capture_output=True)
    if done.returncode:
        pytest.skip("FUSE can't be used here")
    try:
        poems, films = county.add("poems", POEMS), county.add("films", FILMS)
        plain = county.add("plain", {"files/a.txt": b"a" * 50_000, "index": b"b"})
        county.export(FOR_VILLAGE, folder)
        (path,) = assert_valid(folder).values()
        for torrent in (poems, films, plain):
            assert_brings(county, torrent, folder)
        assert not (path / "data/store" / poems.infohash.hex()).exists()
        assert (path / "data/store" / plain.infohash.hex() / "plain/files/a.txt").is_file()
    finally:
        subprocess.run(["umount", folder], check=False, capture_output=True)


def test_file_that_is_too_long_for_the_medium_lies_in_parts(county: Exporting, stick: Path) -> None:
    films = county.add("films", FILMS)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2_500_000, hard))
    try:
        county.export(FOR_VILLAGE, stick)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    (path,) = assert_valid(stick).values()
    assert_brings(county, films, stick)
    parts = path / "data/parts" / films.infohash.hex() / "0"
    assert len(list(parts.iterdir())) == 3
    assert (path / "data/store" / films.infohash.hex() / "films/files/第2集.mp4").is_file()


def test_store_and_stick_on_one_file_system_share_blocks(tmp_path: Path) -> None:
    with mounted(tmp_path / "disk", 400_000_000, "mkfs.xfs", "-q") as disk:
        county = exporting(disk)
        films = county.add("films", {"files/a.mp4": random_bytes(100_000_000, 3), "index": b"x"})
        os.sync()
        target = disk / "target"
        target.mkdir()
        before = os.statvfs(disk).f_bavail * os.statvfs(disk).f_frsize
        county.export(FOR_VILLAGE, target)
        assert before - os.statvfs(disk).f_bavail * os.statvfs(disk).f_frsize < 5_000_000
        assert_valid(target)
        assert_brings(county, films, target)


# --- Bad sources and bad media --------------------------------------------------------------------


def damage(path: Path, at: int = 100) -> None:
    path.chmod(0o644)
    with path.open("r+b") as file:
        file.seek(at)
        byte = file.read(1)[0]
        file.seek(at)
        file.write(bytes([byte ^ 1]))


@pytest.mark.parametrize("how", ["flipped", "shorter", "gone", "torrent gone"])
def test_bundle_that_is_damaged_in_the_store_is_left_out_and_the_others_go(
    county: Exporting, stick: Path, how: str
) -> None:
    films, poems = county.add("films", FILMS), county.add("poems", POEMS)
    place = county.source(films) / "files/第2集.mp4"
    if how == "flipped":
        damage(place, 700_000)
    elif how == "shorter":
        os.truncate(place, 800_000)
    elif how == "gone":
        place.unlink()
    else:
        torrent_path(county.paths, films.infohash).unlink()
    done = county.export(FOR_VILLAGE, stick)
    assert done.damaged == {county.bundles[0].id}
    (path,) = assert_valid(stick).values()
    assert_brings(county, poems, stick)
    assert [bundle.id for bundle in paper_of(path).bundles] == [county.bundles[1].id]
    assert not list(path.rglob(f"*{films.infohash.hex()}*"))


class Forgetful:
    """Spoils a file on the medium right after it was written, so many times."""

    def __init__(self, place: Callable[[], Path], times: int) -> None:
        self._place = place
        self._left = times
        self._spoilt = 0

    def __call__(self, what: str, count: int) -> None:
        place = self._place()
        if what == "written" and count > 0 and self._left and place.exists():
            status = place.stat()
            if status.st_size and status.st_ctime_ns != self._spoilt:
                damage(place, status.st_size - 1)
                self._left -= 1
                self._spoilt = place.stat().st_ctime_ns


def write_first(county: Exporting, stick: Path, report: Callable[[str, int], None]) -> None:
    with Exporter(county.paths, FOR_VILLAGE, county.ask) as exporter:
        with Target(stick, county.paths) as target:
            exporter.resume([target])
            if not exporter.has_plan:
                exporter.make_plan([target])
            exporter.write(1, target, report)


def place_of(stick: Path, torrent: Torrent, path: str) -> Path:
    found = list(stick.glob(f"*/data/store/{torrent.infohash.hex()}/{torrent.name}/{path}"))
    return found[0] if found else stick / "nothing"


def test_file_that_comes_back_wrong_once_is_written_again(county: Exporting, stick: Path) -> None:
    poems = county.add("poems", POEMS)
    name = "files/卷0/诗·00.json"
    write_first(county, stick, Forgetful(lambda: place_of(stick, poems, name), 1))
    assert_valid(stick)
    assert_brings(county, poems, stick)


def test_medium_that_spoils_a_file_twice_is_called_bad(county: Exporting, stick: Path) -> None:
    poems = county.add("poems", POEMS)
    name = "files/卷0/诗·00.json"
    with pytest.raises(MediaError) as caught:
        write_first(county, stick, Forgetful(lambda: place_of(stick, poems, name), 99))
    assert caught.value.code == "media.bad-medium"
    assert "诗·00.json" in str(caught.value)
    (path,) = volumes_in(stick).values()
    assert not (path / "bagit.txt").exists()


def test_stick_that_overwrites_what_came_first_is_noticed(county: Exporting, stick: Path) -> None:
    """As sticks do that claim more room than they have: the catalogue, written first, is gone in the end."""
    films = county.add("films", FILMS)
    spoiled: list[Path] = []

    def report(what: str, count: int) -> None:
        del count
        if what == "checked" and not spoiled:
            spoiled.extend(stick.glob(f"*/data/torrents/{films.infohash.hex()}.torrent"))
            damage(spoiled[0])

    write_first(county, stick, report)
    assert spoiled
    assert_valid(stick)  # It was written again, and was right then.


@pytest.mark.parametrize("number", [errno.EIO, errno.ENODEV])
def test_medium_that_can_not_be_read_back_is_told_from_one_that_was_pulled(
    county: Exporting, stick: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    county.add("films", FILMS)

    def failing(path: Path, length: int, buffer: memoryview) -> Iterator[memoryview]:
        raise OSError(number, os.strerror(number))
        yield buffer[:length]

    monkeypatch.setattr(writing, "read_medium", failing)
    with pytest.raises(MediaError) as caught:
        write_first(county, stick, no_report)
    expected = {errno.EIO: "media.bad-medium", errno.ENODEV: "media.vanished"}
    assert caught.value.code == expected[number]


def test_medium_that_fills_up_is_said_and_goes_on_when_there_is_room(
    county: Exporting, tmp_path: Path
) -> None:
    films = county.add("films", FILMS)
    with mounted(tmp_path / "disk", 12_000_000, "mkfs.ext2", "-q", "-m", "0") as disk:
        filler = disk / "filler"

        def fill(_what: str, _count: int) -> None:
            if not filler.exists():
                with filler.open("wb") as file, contextlib.suppress(OSError):
                    while True:
                        file.write(bytes(65_536))

        with pytest.raises(MediaError) as caught:
            write_first(county, disk, fill)
        assert caught.value.code == "media.full"
        with pytest.raises(MediaError) as caught:
            write_first(county, disk, no_report)
        assert caught.value.code == "media.no-room"
        filler.unlink()
        done = county.export(FOR_VILLAGE, disk)
        assert [volume.number for volume in done.written] == [1]
        assert_valid(disk)
        assert_brings(county, films, disk)


def test_medium_that_is_pulled_is_called_gone_and_nothing_lands_beneath_it(
    county: Exporting, tmp_path: Path
) -> None:
    films = county.add("films", FILMS)
    folder = tmp_path / "disk"
    with mounted(folder, 12_000_000, "mkfs.ext2", "-q", "-m", "0"):

        def pull(_what: str, _count: int) -> None:
            subprocess.run(["umount", "-l", folder], check=False, capture_output=True)

        with pytest.raises(MediaError) as caught:
            write_first(county, folder, pull)
        assert caught.value.code == "media.vanished"
        assert list(folder.iterdir()) == []
        with remounted(folder, folder.with_suffix(".img")):
            done = county.export(FOR_VILLAGE, folder)
            assert [volume.number for volume in done.written] == [1]
            assert len(volumes_in(folder)) == 1
            assert_valid(folder)
            assert_brings(county, films, folder)


# --- Targets that can't be used -------------------------------------------------------------------


def code_of(county: Exporting, path: Path) -> str:
    with pytest.raises(MediaError) as caught:
        Target(path, county.paths)
    return caught.value.code


def test_two_exports_onto_one_medium_do_not_mix(county: Exporting, stick: Path) -> None:
    with Target(stick, county.paths):
        assert code_of(county, stick) == "media.busy"
    Target(stick, county.paths).close()


def test_targets_that_can_not_be_used_are_named(county: Exporting, tmp_path: Path) -> None:
    assert code_of(county, tmp_path / "nothing") == "media.no-target"
    (tmp_path / "file").write_bytes(b"")
    assert code_of(county, tmp_path / "file") == "media.no-target"
    assert code_of(county, county.paths.root) == "media.in-data"
    assert code_of(county, county.paths.torrents.parent / "keys") == "media.in-data"
    link = tmp_path / "link"
    link.symlink_to(county.paths.keys)
    assert code_of(county, link) == "media.in-data"


def test_write_protected_medium_is_said(county: Exporting, tmp_path: Path) -> None:
    with mounted(tmp_path / "disk", 5_000_000, "mkfs.ext2", "-q") as disk:
        subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
        assert code_of(county, disk) == "media.not-writable"


def test_links_in_an_unfinished_volume_are_removed_and_never_followed(
    county: Exporting, stick: Path, tmp_path: Path
) -> None:
    poems = county.add("poems", POEMS)
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "volume").write_bytes(b"mine")

    def stop(_what: str, _count: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_first(county, stick, stop)
    (path,) = volumes_in(stick).values()
    shutil.rmtree(path / "data")
    (path / "data").symlink_to(outside)
    (path / "README.txt").symlink_to(outside / "volume")
    os.mkfifo(path / "pipe")
    (path / ".tmp-left").write_bytes(b"x")
    county.export(FOR_VILLAGE, stick)
    assert read_files(outside) == {"volume": b"mine"}
    assert not (path / "pipe").exists()
    assert not (path / ".tmp-left").exists()
    assert_valid(stick)
    assert_brings(county, poems, stick)


# --- Going on -------------------------------------------------------------------------------------


class _Killer:
    """Counts calls that change files, and kills the process before one of them."""

    CALLS = ("open", "pwrite", "write", "mkdir", "unlink", "ftruncate", "replace", "fsync")

    def __init__(self, moment: int | None) -> None:
        self._moment = moment
        self.count = 0

    def __enter__(self) -> _Killer:
        self._kept = {name: getattr(os, name) for name in self.CALLS}
        for name, call in self._kept.items():
            setattr(os, name, functools.partial(self._call, call))
        return self

    def __exit__(self, *_error: object) -> None:
        for name, call in self._kept.items():
            setattr(os, name, call)

    def _call(self, call: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
        self.count += 1
        if self.count == self._moment:
            os.kill(os.getpid(), signal.SIGKILL)
        return call(*arguments, **named)


@pytest.mark.slow
def test_export_goes_on_after_being_killed_at_any_moment(tmp_path: Path) -> None:
    pytest.importorskip("bagit")
    county = exporting(tmp_path)
    torrents = [county.add("poems", POEMS), county.add("films", FILMS)]
    wish = sized(4_500_000)
    first = tmp_path / "first"
    first.mkdir()
    county.export(wish, first)  # The next one finds everything loaded.
    with _Killer(None) as counter:
        county.export(wish, first)
    shutil.rmtree(first)
    randomness = random.Random(12)
    moments = sorted(randomness.sample(range(1, counter.count), KILLS))
    killed = finished_early = 0
    for moment in moments:
        stick = tmp_path / f"stick-{moment}"
        stick.mkdir()
        shutil.rmtree(exports_folder(county.paths), ignore_errors=True)
        child = os.fork()
        if child == 0:
            with _Killer(moment):
                county.export(wish, stick)
            os._exit(0)
        _, status = os.waitpid(child, 0)
        killed += os.WIFSIGNALED(status)
        bagged = {path.name for path in stick.iterdir() if (path / "bagit.txt").exists()}
        valid = assert_valid_among(stick, bagged)
        finished_early += len(valid)
        if len(valid) == 2 and not unfinished_plans(county):
            shutil.rmtree(stick)
            continue
        done = county.export(wish, stick)
        assert done.plan.undone == []
        # Unless it was killed before the plan was kept, the same set goes on.
        volumes = assert_valid(stick)
        assert len(volumes) == done.plan.count == len(list(stick.iterdir())), moment
        for torrent in torrents:
            assert_brings(county, torrent, stick)
        assert not list(stick.rglob(".tmp-*"))
        shutil.rmtree(stick)
    assert killed >= KILLS - 2  # Two threads don't always make the same number of calls.
    assert finished_early  # Some were killed in the second volume.


def unfinished_plans(county: Exporting) -> list[Plan]:
    plans = [
        msgspec.msgpack.decode(file.read_bytes(), type=Plan)
        for file in exports_folder(county.paths).glob("*/plan")
    ]
    return [plan for plan in plans if plan.undone]


def assert_valid_among(stick: Path, names: set[str]) -> list[Path]:
    """A folder with a declaration is a valid bag, whatever happened."""
    bagit = importlib.import_module("bagit")
    paths = [stick / name for name in sorted(names)]
    for path in paths:
        if (path / "bagit.txt").read_bytes():
            bagit.Bag(str(path)).validate()
    return paths


def test_what_lies_there_and_is_right_is_not_written_again(county: Exporting, stick: Path) -> None:
    poems, films = county.add("poems", POEMS), county.add("films", FILMS)
    told = 0

    def stop_late(what: str, count: int) -> None:
        nonlocal told
        told += count if what == "written" else 0
        if told > films.payload_size:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_first(county, stick, stop_late)
    kept = place_of(stick, poems, "files/卷1/诗·01.json")
    long = place_of(stick, films, "files/第1集.mp4")
    wrong = place_of(stick, poems, "files/卷2/诗·02.json")
    assert kept.stat().st_size == 9_000
    damage(wrong)
    before = {path: path.stat().st_ino for path in (kept, long, wrong)}
    times = {path: path.stat().st_mtime_ns for path in (kept, long)}
    done = county.export(FOR_VILLAGE, stick)
    assert [volume.number for volume in done.written] == [1]
    for path in (kept, long):
        assert (path.stat().st_ino, path.stat().st_mtime_ns) == (before[path], times[path])
    assert_valid(stick)
    assert_brings(county, poems, stick)
    assert_brings(county, films, stick)


def test_each_medium_gets_the_volumes_that_fit_and_the_next_run_the_others(
    county: Exporting, tmp_path: Path
) -> None:
    films = county.add("films", {"files/a.mp4": random_bytes(20_000_000, 3), "index": b"x"})
    wish = sized(6_000_000)
    folders = []
    with contextlib.ExitStack() as stack:
        for number, size in enumerate((14_000_000, 14_000_000)):
            path = tmp_path / f"disk-{number}"
            folders.append(stack.enter_context(mounted(path, size, "mkfs.ext2", "-q", "-m", "0")))
        first = county.export(wish, folders[0])
        assert first.plan.count == 4
        assert [volume.number for volume in first.written] == [1, 2]
        second = county.export(wish, folders[1])
        assert second.plan.serial == first.plan.serial
        assert [volume.number for volume in second.written] == [3, 4]
        assert_valid(*folders)
        assert_brings(county, films, *folders)


def test_several_targets_get_whole_volumes_each(county: Exporting, tmp_path: Path) -> None:
    films = county.add("films", {"files/a.mp4": random_bytes(20_000_000, 3), "index": b"x"})
    with contextlib.ExitStack() as stack:
        folders = [
            stack.enter_context(
                mounted(tmp_path / f"disk-{number}", size, "mkfs.ext2", "-q", "-m", "0")
            )
            for number, size in enumerate((14_000_000, 12_000_000))
        ]
        done = county.export(FOR_VILLAGE, *folders)
        assert done.plan.undone == []
        assert [volume.folder.parent for volume in done.written] == folders
        assert_valid(*folders)
        assert_brings(county, films, *folders)


def test_unfinished_plan_is_given_up_when_a_bundle_has_a_new_revision(
    county: Exporting, stick: Path
) -> None:
    county.add("poems", POEMS)

    def stop(_what: str, _count: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_first(county, stick, stop)
    (begun,) = stick.iterdir()
    new = county.add("poems", POEMS | {"files/new.txt": b"new"}, revision=2)
    done = county.export(FOR_VILLAGE, stick)
    assert done.outdated is not None
    assert done.outdated.code == "media.plan-revised"
    assert not begun.exists()  # It would have taken the room of the new one.
    assert_valid(stick)
    assert_brings(county, new, stick)


def test_unfinished_plan_is_given_up_when_a_bundle_is_gone(county: Exporting, stick: Path) -> None:
    films, poems = county.add("films", FILMS), county.add("poems", POEMS)
    wish = sized(4_500_000)
    with Exporter(county.paths, wish, county.ask) as exporter:
        with Target(stick, county.paths) as target:
            exporter.make_plan([target])
            exporter.write(1, target, no_report)
    torrent_path(county.paths, films.infohash).unlink()
    county.bundles = county.bundles[1:]
    done = county.export(wish, stick)
    assert done.outdated is not None
    assert done.outdated.code == "media.plan-lost"
    found = content_of(poems, [volume.folder for volume in done.written])
    assert found == read_files(county.source(poems))


def test_finished_export_is_made_anew_when_it_is_asked_for_again(
    county: Exporting, stick: Path
) -> None:
    county.add("poems", POEMS)
    first = county.export(FOR_VILLAGE, stick)
    second = county.export(FOR_VILLAGE, stick)
    assert first.plan.serial != second.plan.serial
    assert len(list(stick.iterdir())) == 2


def test_plan_that_somebody_works_on_is_left_to_him(county: Exporting, stick: Path) -> None:
    county.add("films", FILMS)
    wish = sized(4_500_000)
    with Exporter(county.paths, wish, county.ask) as exporter:
        with Target(stick, county.paths) as target:
            exporter.make_plan([target])
            exporter.write(1, target, no_report)
        other = county.export(wish, stick)
        assert other.plan.serial != exporter.plan.serial
        assert exporter.plan.undone == [2]


def test_only_the_latest_plans_are_kept_and_a_damaged_one_is_no_harm(
    county: Exporting, stick: Path
) -> None:
    for number in range(KEPT_PLANS + 3):
        plan = Plan(
            wish=FOR_VILLAGE,
            serial=hashlib.sha256(str(number).encode()).hexdigest()[:10],
            made_at=number,
            cluster_bytes=4096,
            bundles=[],
            volumes=[],
        )
        with HeldPlan(county.paths, plan) as held:
            held.save()
    broken = exports_folder(county.paths) / "broken"
    broken.mkdir()
    (broken / "plan").write_bytes(b"\x81\xa1v")
    prune_plans(county.paths)
    kept = {path.parent.name for path in exports_folder(county.paths).glob("*/plan")}
    assert len(kept) == KEPT_PLANS + 1
    county.add("poems", POEMS)
    county.export(FOR_VILLAGE, stick)
    assert_valid(stick)


# --- The command ----------------------------------------------------------------------------------


NOT_HERE = OfferedBundle(
    id="441900000000/202703/late",
    revision=1,
    title="春节戏曲晚会：广东粤剧院二〇二七年新春团拜演出全本实况录像（高清）",
    infohash="00" * 32,
    payload_size=1,
)


def streams(county: Exporting) -> dict[str, Any]:
    """`media.offer` as the daemon answers it."""

    async def offer(params: dict[str, Any]) -> AsyncIterator[object]:
        wish = Wish(
            places=tuple(params["places"]),
            bundles=tuple(params["bundles"]),
            release=params["release"],
            is_catalogue_only=params["catalogue_only"],
        )
        bundles, end = county.ask(wish)
        known = [
            PlaceKnown(code=code, how="receipt", number=7, at=1_795_000_000) for code in wish.places
        ]
        for bundle in bundles:
            yield bundle
        yield Outcome(
            msgspec.structs.replace(end, places=known, had=3, not_for=1, not_here=[NOT_HERE])
        )

    return {"media.offer": offer}


def command(county: Exporting, *arguments: object) -> list[str]:
    return [
        sys.executable,
        "-m",
        "cuntong_tools",
        "media",
        "export",
        *map(str, arguments),
        "--data",
        str(county.paths.root),
    ]


async def run_command(
    county: Exporting, *arguments: object, language: str = "en"
) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"LC_ALL": "C.UTF-8", "LANGUAGE": language, "TZ": "Asia/Shanghai"}
    async with fake_node(county.paths.root, [], streams=streams(county)):
        return await trio.to_thread.run_sync(
            lambda: subprocess.run(
                command(county, *arguments),
                capture_output=True,
                text=True,
                check=False,
                env=environment,
                stdin=subprocess.DEVNULL,
            )
        )


async def test_command_says_what_it_will_write_and_what_it_has_written(
    county: Exporting, stick: Path
) -> None:
    county.add("films", FILMS)
    for language in ("en", "zh_CN"):
        done = await run_command(
            county, stick, "--for", VILLAGE, "--volume", "5MB", "--yes", language=language
        )
        assert done.returncode == 0, done.stderr
        for line in done.stdout.splitlines():
            assert cell_len(line) <= 80 or str(stick) in line, line
        assert VILLAGE in done.stdout
        assert "2026-11-1" in done.stdout
        assert "LETTER.html" in done.stdout
        assert NOT_HERE.id in done.stdout
    assert_valid(stick)


async def test_command_that_needs_more_media_ends_with_what_to_do_and_goes_on(
    county: Exporting, tmp_path: Path
) -> None:
    films = county.add("films", {"files/a.mp4": random_bytes(9_000_000, 3), "index": b"x"})
    asked = ("--for", VILLAGE, "--volume", "6MB", "--yes")
    with contextlib.ExitStack() as stack:
        folders = [
            stack.enter_context(
                mounted(tmp_path / f"disk-{number}", 8_000_000, "mkfs.ext2", "-q", "-m", "0")
            )
            for number in range(2)
        ]
        first = await run_command(county, folders[0], *asked)
        assert first.returncode == 74
        assert "(media.more-volumes)" in first.stderr
        again = await run_command(county, folders[0], *asked)
        assert again.returncode == 74
        assert "(media.no-room)" in again.stderr
        second = await run_command(county, folders[1], *asked)
        assert second.returncode == 0, second.stderr
        assert_valid(*folders)
        assert_brings(county, films, *folders)


async def test_command_leaves_a_damaged_bundle_out_and_says_so_in_the_end(
    county: Exporting, stick: Path
) -> None:
    films = county.add("films", FILMS)
    county.add("poems", POEMS)
    damage(county.source(films) / "files/第1集.mp4")
    done = await run_command(county, stick, "--for", VILLAGE, "--yes")
    assert done.returncode == 65
    assert "(media.damaged-bundle)" in done.stderr
    assert f"cuntong verify {county.bundles[0].id}" in done.stderr
    assert_valid(stick)


@pytest.mark.parametrize(
    ("arguments", "exit_code", "said"),
    [
        ((), 64, "--for"),
        (("--catalogue", "--bundles", "x"), 64, "--catalogue"),
        (("--for", "nonsense"), 64, ""),
        (("--for", VILLAGE, "--volume", "huge"), 64, "huge"),
        (("--for", VILLAGE, "--volume", "1kB", "--yes"), 64, "media.volume-too-small"),
        (("--bundles", "441900000000/202703/none", "--yes"), 77, "media.nothing-to-export"),
    ],
)
async def test_command_line_that_makes_no_sense_is_refused(
    county: Exporting, stick: Path, arguments: tuple[str, ...], exit_code: int, said: str
) -> None:
    county.add("poems", POEMS)
    done = await run_command(county, stick, *arguments)
    assert done.returncode == exit_code, done.stderr
    assert said in done.stderr
    assert volumes_in(stick) == {}
    assert list(exports_folder(county.paths).glob("*")) == []


class Terminal:
    """The command on a terminal of its own."""

    def __init__(self, words: list[str]) -> None:
        self.said = ""
        environment = os.environ | {"LC_ALL": "C.UTF-8", "LANGUAGE": "en", "COLUMNS": "80"}
        self._process, self._terminal = pty.fork()
        if self._process == 0:
            os.execvpe(words[0], words, environment)  # noqa: S606

    def wait(self, text: str) -> None:
        """Read until it says something."""
        start = time.monotonic()
        while text not in self.said:
            assert time.monotonic() - start < 60, self.said
            try:
                self.said += os.read(self._terminal, 65_536).decode(errors="replace")
            except OSError:
                raise AssertionError(self.said) from None

    def answer(self, text: str) -> None:
        self.said = ""
        os.write(self._terminal, f"{text}\n".encode())

    def end(self) -> int:
        with contextlib.suppress(OSError):
            while data := os.read(self._terminal, 65_536):
                self.said += data.decode(errors="replace")
        os.close(self._terminal)
        return os.waitstatus_to_exitcode(os.waitpid(self._process, 0)[1])


async def test_person_changes_media_and_the_export_goes_on(
    county: Exporting, tmp_path: Path
) -> None:
    films = county.add("films", {"files/a.mp4": random_bytes(9_000_000, 3), "index": b"x"})
    folder = tmp_path / "stick"
    mkfs = ("mkfs.ext2", "-q", "-m", "0")
    kept = tmp_path / "kept"

    def play() -> None:
        words = command(county, folder, "--for", VILLAGE, "--volume", "6MB")
        with mounted(folder, 8_000_000, *mkfs):
            terminal = Terminal(words)
            terminal.wait("[y/N]")
            terminal.answer("y")
            terminal.wait("Press Enter")
            assert_valid(folder)
            shutil.copytree(folder, kept, ignore=shutil.ignore_patterns("lost+found"))
            terminal.answer("")  # It is still the full one.
            terminal.wait("Press Enter")
            subprocess.run(["umount", folder], check=True)  # Nothing holds it open.
        terminal.answer("")
        terminal.wait("No medium is mounted")
        terminal.wait("Press Enter")
        folder.with_suffix(".img").unlink()
        with mounted(folder, 8_000_000, *mkfs):
            terminal.answer("")
            assert terminal.end() == 0, terminal.said
            assert_valid(folder)
            assert_brings(county, films, kept, folder)

    async with fake_node(county.paths.root, [], streams=streams(county)):
        await trio.to_thread.run_sync(play)

"""Reading a folder that may come from anybody: no link is followed, no path leads out (SPEC 12.4)."""

from __future__ import annotations

import os
import shutil
import socket
import stat
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath

import pytest

from cuntong_daemon.media import volume as volume_module
from cuntong_daemon.media.volume import (
    Found,
    VolumeFolder,
    find_receipts,
    find_volumes,
    folders_in,
    is_gone,
    is_volume,
)
from cuntong_protocol.errors import Fault
from cuntong_protocol.media.errors import MediaError

GBK = "唐诗三百首.txt".encode("gbk").decode("utf-8", "surrogateescape")
"""A name as an old Windows tool writes it, as Python shows it."""
SECRET = b"what lies beside the volume"


@pytest.fixture
def top(tmp_path: Path) -> Path:
    """A volume's folder with one file in it, and a file outside that nothing may reach."""
    folder = tmp_path / "medium" / "cuntong-abcdefghij-1"
    (folder / "data" / "store").mkdir(parents=True)
    (folder / "data" / "volume").write_bytes(b"paper")
    (tmp_path / "secret").write_bytes(SECRET)
    return folder


@pytest.fixture
def volume(top: Path) -> Iterator[VolumeFolder]:
    with VolumeFolder(top) as opened:
        yield opened


def at(text: str) -> PurePosixPath:
    return PurePosixPath(text)


def read(volume: VolumeFolder, path: str) -> bytes | None:
    return volume.read(at(path), 100)


def listed(volume: VolumeFolder) -> set[str]:
    return {str(found.path) for found in volume.files()}


# --- Links and special files ----------------------------------------------------------------------


def test_link_to_a_file_outside_is_not_read(top: Path, volume: VolumeFolder) -> None:
    (top / "data" / "torrents").symlink_to(top.parent.parent / "secret")
    (top / "data" / "again").symlink_to(top.parent.parent)
    assert read(volume, "data/torrents") is None
    assert read(volume, "data/again/secret") is None
    assert volume.names(at("data/again")) == []
    assert listed(volume) == {"data/volume"}
    with pytest.raises(OSError):
        volume.open(at("data/torrents"))


def test_link_to_a_file_on_the_same_volume_is_not_read_either(
    top: Path, volume: VolumeFolder
) -> None:
    (top / "data" / "store" / "a").symlink_to(top / "data" / "volume")
    assert read(volume, "data/store/a") is None
    assert listed(volume) == {"data/volume"}


def test_data_folder_that_is_a_link_is_not_entered(tmp_path: Path, top: Path) -> None:
    shutil.move(top / "data", tmp_path / "elsewhere")
    (top / "data").symlink_to(tmp_path / "elsewhere")
    with VolumeFolder(top) as volume:
        assert read(volume, "data/volume") is None
        assert volume.names(at("data")) == []
        assert listed(volume) == set()


@pytest.mark.parametrize(
    "path", ["../secret", "data/../../../secret", "/etc/passwd", "data/store/../../../../secret"]
)
def test_path_that_leaves_the_volume_is_refused(volume: VolumeFolder, path: str) -> None:
    assert read(volume, path) is None
    with pytest.raises(OSError):
        volume.open(at(path))
    assert volume.names(at(path).parent / "..") == []


def test_pipes_and_sockets_are_refused_at_once_and_do_not_look_like_a_lost_medium(
    top: Path, volume: VolumeFolder
) -> None:
    os.mkfifo(top / "data" / "pipe")
    with socket.socket(socket.AF_UNIX) as listener:
        folder = os.open(top / "data", os.O_RDONLY)
        try:
            listener.bind(f"/proc/self/fd/{folder}/socket")  # Paths of sockets are short.
        finally:
            os.close(folder)
        for name in ("pipe", "socket"):
            with pytest.raises(OSError) as caught:
                volume.open(at("data") / name)
            assert not is_gone(caught.value), name
            assert read(volume, f"data/{name}") is None
    assert listed(volume) == {"data/volume"}


def test_device_on_a_medium_is_never_opened(top: Path, volume: VolumeFolder) -> None:
    try:
        # Nobody drives this number: opening it fails, and says that there is no such device.
        os.mknod(top / "data" / "device", stat.S_IFCHR | 0o600, os.makedev(240, 77))
    except PermissionError:
        pytest.skip("making a device needs root")
    with pytest.raises(OSError) as caught:
        volume.open(at("data/device"))
    assert not is_gone(caught.value)
    assert listed(volume) == {"data/volume"}


def test_folder_where_a_file_should_be_and_the_other_way_round(
    top: Path, volume: VolumeFolder
) -> None:
    assert read(volume, "data/store") is None
    assert read(volume, "data/volume/volume") is None
    assert volume.names(at("data/volume")) == []


# --- Folders that are replaced while they are read ------------------------------------------------


def test_folder_that_becomes_a_link_while_it_is_read_leads_nowhere(
    tmp_path: Path, top: Path, volume: VolumeFolder
) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "a").write_bytes(SECRET)
    store = top / "data" / "store"
    for name in ("1", "2", "3"):
        (store / name).mkdir()
        (store / name / "a").write_bytes(b"inside")
    found = []
    for file in volume.files():
        found.append(str(file.path))
        for name in ("1", "2", "3"):
            if (store / name).is_dir() and not (store / name).is_symlink():
                shutil.rmtree(store / name)
            (store / name).unlink(missing_ok=True)
            (store / name).symlink_to(outside)
    assert {path for path in found if path.startswith("data/store")} <= {
        "data/store/1/a",
        "data/store/2/a",
        "data/store/3/a",
    }
    for path in found:
        assert read(volume, path) in (None, b"paper")


def test_medium_that_is_replaced_by_another_under_the_same_name_is_noticed(
    tmp_path: Path, top: Path, volume: VolumeFolder
) -> None:
    volume.check()
    top.rename(tmp_path / "pulled-out")
    top.mkdir()
    with pytest.raises(MediaError) as caught:
        volume.check()
    assert caught.value.code == "media.gone"
    assert caught.value.fault is Fault.SYSTEM


def test_medium_that_goes_is_noticed(top: Path, volume: VolumeFolder) -> None:
    shutil.rmtree(top.parent)
    with pytest.raises(MediaError) as caught:
        volume.check()
    assert caught.value.code == "media.gone"
    assert volume.names(at("data")) == []
    assert list(volume.files()) == []


# --- Names ----------------------------------------------------------------------------------------


def test_names_that_are_not_utf8_are_read_like_any_other(top: Path, volume: VolumeFolder) -> None:
    (top / "data" / "store" / GBK).write_bytes(b"poems")
    assert volume.names(at("data/store")) == [GBK]
    assert Found(at("data/store") / GBK, 5) in list(volume.files())
    assert volume.read(at("data/store") / GBK, 100) == b"poems"


def test_capitals_that_a_medium_has_made_of_our_names_do_not_matter(tmp_path: Path) -> None:
    top = tmp_path / "CUNTONG-ABCDEFGHIJ-1"
    (top / "DATA" / "STORE").mkdir(parents=True)
    (top / "DATA" / "AGAIN" / "CATALOGUE").mkdir(parents=True)
    (top / "DATA" / "VOLUME").write_bytes(b"paper")
    (top / "DATA" / "AGAIN" / "VOLUME").write_bytes(b"paper")
    (top / "DATA" / "STORE" / "a").write_bytes(b"a")
    (top / "DATA" / "AGAIN" / "CATALOGUE" / "1").write_bytes(b"1")
    assert is_volume(top)
    with VolumeFolder(top) as volume:
        assert volume.names(at("data/store")) == ["a"]
        assert read(volume, "data/store/a") == b"a"
        assert read(volume, "data/volume") == b"paper"
        assert read(volume, "data/again/volume") == b"paper"
        assert read(volume, "data/again/catalogue/1") == b"1"


def test_two_folders_that_differ_in_case_are_both_seen(top: Path, volume: VolumeFolder) -> None:
    (top / "DATA").mkdir()
    (top / "DATA" / "b").write_bytes(b"b")
    assert read(volume, "data/volume") == b"paper"
    assert listed(volume) == {"data/volume", "DATA/b"}


def test_name_too_long_for_any_file_system_is_not_there(volume: VolumeFolder) -> None:
    assert read(volume, "data/" + "x" * 1000) is None
    assert read(volume, "/".join(["data"] * 2000)) is None


# --- Limits ---------------------------------------------------------------------------------------


def test_folder_with_very_many_entries_is_cut_off(
    top: Path, volume: VolumeFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(volume_module, "MAX_ENTRIES", 50)
    for number in range(60):
        (top / "data" / "store" / str(number)).write_bytes(b"")
    assert len(volume.names(at("data/store"))) == 50
    monkeypatch.setattr(volume_module, "MAX_FILES", 10)
    assert len(list(volume.files())) == 10


def test_folders_nested_without_end_are_not_followed_for_ever(
    top: Path, volume: VolumeFolder
) -> None:
    folder = os.open(top / "data", os.O_RDONLY)
    for _ in range(400):
        os.mkdir("a", dir_fd=folder)
        deeper = os.open("a", os.O_RDONLY, dir_fd=folder)
        os.close(folder)
        folder = deeper
    os.close(folder)
    assert listed(volume) == {"data/volume"}
    assert volume.names(at("/".join(["data", *["a"] * 400]))) == []


def test_no_descriptor_is_left_open(top: Path, volume: VolumeFolder) -> None:
    (top / "data" / "link").symlink_to("/")
    os.mkfifo(top / "data" / "pipe")
    before = open_files()
    for path in ("data/volume", "data/link/etc", "data/pipe", "data/none/none", "x/y", "/etc"):
        read(volume, path)
        volume.names(at(path))
    list(volume.files())
    assert open_files() == before


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def test_file_longer_than_the_limit_is_not_read(top: Path, volume: VolumeFolder) -> None:
    (top / "data" / "large").write_bytes(bytes(101))
    os.truncate(top / "data" / "volume", 1 << 40)
    assert read(volume, "data/large") is None
    assert volume.read(at("data/volume"), 1000) is None


# --- Finding --------------------------------------------------------------------------------------


def make(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / "data" / name).mkdir(parents=True)
    return folder


def test_volumes_are_found_two_folders_deep_and_come_in_the_order_of_their_numbers(
    tmp_path: Path,
) -> None:
    places = [
        make(tmp_path / "b" / f"cuntong-abcdefghij-{number}", "store") for number in (10, 2, 1)
    ]
    make(tmp_path / "b" / "deep" / "deeper" / "cuntong-abcdefghij-3", "store", "torrents")
    assert find_volumes(tmp_path) == places[::-1]
    assert find_volumes(places[0]) == [places[0]]


@pytest.mark.parametrize(
    ("names", "is_one"),
    [
        (("store",), False),
        (("store", "torrents"), True),
        (("STORE", "Torrents"), True),
        (("catalogue", "pictures"), False),
        ((), False),
    ],
)
def test_folder_of_another_name_is_a_volume_when_two_parts_are_there(
    tmp_path: Path, names: tuple[str, ...], is_one: bool
) -> None:
    folder = tmp_path / GBK
    (folder / "data").mkdir(parents=True)
    assert is_volume(make(folder, *names)) is is_one
    assert find_volumes(tmp_path) == ([folder] if is_one else [])


def test_links_to_volumes_are_not_found_and_a_link_to_one_can_be_named(tmp_path: Path) -> None:
    real = make(tmp_path / "real" / "cuntong-abcdefghij-1", "store")
    (tmp_path / "medium").mkdir()
    (tmp_path / "medium" / "cuntong-abcdefghij-1").symlink_to(real)
    assert find_volumes(tmp_path / "medium") == []


def spoil_by_nothing(path: Path) -> None:
    del path


def spoil_with_a_file(path: Path) -> None:
    path.write_bytes(b"no folder")


def spoil_with_a_loop(path: Path) -> None:
    path.symlink_to(path)


@pytest.mark.parametrize("spoil", [spoil_by_nothing, spoil_with_a_loop])
def test_path_that_is_not_there_is_said(tmp_path: Path, spoil: Callable[[Path], None]) -> None:
    spoil(tmp_path / "medium")
    with pytest.raises(MediaError) as caught:
        find_volumes(tmp_path / "medium")
    assert caught.value.code == "media.no-such-path"


def test_path_that_the_daemon_may_not_read_is_said(tmp_path: Path) -> None:
    if os.geteuid() == 0:
        pytest.skip("root may read everything")
    (tmp_path / "medium").mkdir(mode=0o000)
    with pytest.raises(MediaError) as caught:
        find_volumes(tmp_path / "medium")
    assert caught.value.code == "media.cannot-read"


def test_file_is_no_volume(tmp_path: Path) -> None:
    spoil_with_a_file(tmp_path / "a")
    assert find_volumes(tmp_path / "a") == []
    assert not is_volume(tmp_path / "a")
    assert folders_in(tmp_path / "a") == []
    assert folders_in(tmp_path / "none") == []


def test_receipts_are_found_beside_and_in_volumes_and_links_to_them_are_not(
    tmp_path: Path,
) -> None:
    volume = make(tmp_path / "cuntong-abcdefghij-1", "store")
    for place in (tmp_path / "441900003005.receipt", volume / "441900003006.receipt"):
        place.write_bytes(b"x")
    (tmp_path / "link.receipt").symlink_to(volume / "441900003006.receipt")
    (tmp_path / "folder.receipt").mkdir()
    os.mkfifo(tmp_path / "pipe.receipt")
    found = find_receipts(tmp_path, [volume])
    assert [path.name for path in found] == ["441900003005.receipt", "441900003006.receipt"]
    assert find_receipts(found[0], []) == [found[0]]
    spoil_with_a_file(tmp_path / "a.txt")
    assert find_receipts(tmp_path / "a.txt", []) == []

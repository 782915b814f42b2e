"""Disks that are full at any byte, read-only or gone: told in words, nothing half shown, mended by itself."""

from __future__ import annotations

import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from cuntong_protocol.errors import CuntongError, Fault
from cuntong_tools.demo.network import PASSPHRASE, Place
from tests.support.bad_world import (
    BUNDLE,
    IS_FULL,
    PATIENCE_S,
    SmallDisk,
    World,
    assert_no_traceback,
    assert_same,
    files_below,
    keys_of,
    library,
    log_of,
    make_content,
    running_world,
    said,
    small_disk,
    spawn,
    tool,
    wait_until,
)

SYSTEM = Fault.SYSTEM.value
TOLD = {"store.disk-full", "trust.cannot-write"}
FULL = {"(build.disk-full)", "(authority.cannot-write)"}
LARGE = 16_000_000
STEPS = 60 if IS_FULL else 5


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with running_world(tmp_path) as found:
        yield found


class _County:
    """The county on a small disk, mounted anew for each size."""

    def __init__(self, world: World, disk: SmallDisk, kept: Path) -> None:
        self.world = world
        self.disk = disk
        self._kept = kept
        self.place = world.county
        self.library = disk.path / "library" / BUNDLE

    def fill(self) -> None:
        """Put the county's data on the disk, as enrolled."""
        self.disk.clear()
        shutil.copytree(self._kept, self.disk.path, dirs_exist_ok=True)

    def start(self) -> bool:
        """True when it runs; False when it refused with the one right sentence."""
        self.place.log.unlink(missing_ok=True)
        spawn(self.world.network, self.place, prefix=self.disk.prefix)
        deadline = time.monotonic() + PATIENCE_S
        while self.is_alive():
            if self.answers():
                return True
            assert time.monotonic() < deadline, log_of(self.place)
            time.sleep(0.05)
        assert self.place.process is not None
        line = log_of(self.place).splitlines()[-1]
        assert line.endswith("(store.disk-full)"), log_of(self.place)
        assert self.place.process.returncode == SYSTEM
        return False

    def is_alive(self) -> bool:
        assert self.place.process is not None
        return self.place.process.poll() is None

    def answers(self) -> bool:
        try:
            self.world.network.ask(self.place, "traffic")
        except CuntongError:
            return False
        return True

    def is_complete(self) -> bool:
        assert self.is_alive(), log_of(self.place)
        return self.world.network.progress(self.place, BUNDLE, 1) == 1.0

    def problems(self) -> set[str]:
        """Codes that its status tells."""
        assert self.is_alive(), log_of(self.place)
        try:
            status = self.world.network.status(self.place)
        except CuntongError:
            return set()
        reasons = {bundle.reason.code for bundle in status.bundles if bundle.reason}
        return {problem.code for problem in status.problems} | reasons

    def assert_never_half(self) -> None:
        if self.library.exists():
            assert_same(self.world.content, self.library)


@pytest.fixture
def county(world: World, tmp_path: Path) -> Iterator[_County]:
    data = world.county.paths.root
    kept = tmp_path / "kept"
    shutil.copytree(data, kept)
    with small_disk(data, LARGE) as disk:
        world.county.folder = disk.seen(world.county.folder)
        county = _County(world, disk, kept)
        county.fill()
        try:
            yield county
        finally:
            world.network.kill(world.county)


def test_a_disk_that_is_full_at_any_byte(county: _County) -> None:
    """From too small for a start to just too small for the last file; then room is made."""
    world, disk = county.world, county.disk
    world.start(world.centre)
    empty = disk.used()
    assert county.start()
    wait_until(county.is_complete, county.place)
    needed = disk.used() - empty
    world.network.stop(county.place)
    outcomes: list[str] = []
    for step in range(STEPS):
        county.fill()
        room = needed * (step + 1) // (STEPS + 1)
        disk.remount(f"size={(disk.used() + room) // 4096 * 4096}")
        if county.start():
            wait_until(
                lambda: bool(TOLD & county.problems()) or county.is_complete(),
                county.place,
            )
            outcomes.append("complete" if county.is_complete() else "told")
        else:
            outcomes.append("refused")
        county.assert_never_half()
        assert_no_traceback(county.place)
        disk.remount(f"size={LARGE}")
        if not county.is_alive():
            assert county.start()
        wait_until(county.is_complete, county.place)
        wait_until(lambda: not TOLD & county.problems(), county.place)
        assert_same(world.content, county.library)
        assert_no_traceback(county.place)
        world.network.stop(county.place)
    assert "told" in outcomes, outcomes


def test_a_disk_that_fills_up_later_stops_nothing_and_a_withdrawal_makes_room(
    county: _County,
) -> None:
    world, disk, place = county.world, county.disk, county.place
    disk.remount("size=40000000")
    world.start(world.centre)
    assert county.start()
    wait_until(county.is_complete, place)
    wait_until((disk.path / "reserve").exists, place)
    disk.fill()
    refused = tool(place, "order", BUNDLE, prefix=disk.prefix)
    assert (refused.returncode, said(refused).endswith("(store.disk-full)")) == (SYSTEM, True)
    shown = tool(place, "status", "--json", prefix=disk.prefix)
    assert shown.returncode == 0, shown.stderr
    assert_same(world.content, county.library)
    done = tool(world.centre, "withdraw", BUNDLE, "--reason", "版权", "--yes",
                *keys_of(world.centre), passphrases=f"{PASSPHRASE}\n" * 9)  # fmt: skip
    assert done.returncode == 0, done.stderr
    wait_until(lambda: not county.library.exists(), place)
    wait_until(lambda: not any((disk.path / "store").iterdir()), place)
    assert_no_traceback(place)
    (disk.path / "filler").unlink()
    wait_until(lambda: not TOLD & county.problems(), place)
    assert tool(place, "status", prefix=disk.prefix).returncode == 0


def test_a_store_that_is_read_only_is_told_and_filled_when_it_is_mended(county: _County) -> None:
    world, disk, place = county.world, county.disk, county.place
    disk.make_read_only("store")
    world.start(world.centre)
    assert county.start()
    wait_until(lambda: "store.disk-error" in county.problems(), place)
    assert not county.library.exists()
    disk.make_writable("store")
    wait_until(county.is_complete, place)
    disk.make_read_only("store")  # It serves on, and can be asked.
    assert tool(place, "status", prefix=disk.prefix).returncode == 0
    assert_same(world.content, county.library)
    assert_no_traceback(place)


def test_a_store_that_vanishes_is_found_by_verify_and_filled_again(world: World) -> None:
    place = world.county
    world.start(world.centre)
    world.start(place)
    shutil.rmtree(place.paths.store)  # Before anything has come: it is made anew.
    world.wait_bundle(place)
    shutil.rmtree(place.paths.store)
    status = world.wait_status(place, lambda found: bool(found.problems))
    assert "store.disk-error" in {problem.code for problem in status.problems}
    checked = tool(place, "verify", BUNDLE)
    assert "Traceback" not in checked.stderr
    world.wait_status(place, lambda found: bool(found.repairs))
    assert files_below(place.paths.store) == {
        path: data
        for path, data in files_below(world.centre.paths.store).items()
        if not path.endswith(".torrent")
    }
    assert_same(world.content, library(place))
    assert_no_traceback(place)


def test_torrents_that_vanish_are_found_by_verify_and_cost_nothing_else(world: World) -> None:
    place = world.county
    world.start(world.centre)
    world.start(place)
    world.wait_bundle(place)
    before = world.network.ask(place, "traffic")["down"]
    shutil.rmtree(place.paths.torrents)
    checked = tool(place, "verify", BUNDLE)
    assert (checked.returncode, said(checked).endswith("(store.no-torrent)")) == (SYSTEM, True)
    wait_until(lambda: any(place.paths.torrents.glob("*.torrent")), place)
    world.wait_bundle(place)
    assert tool(place, "verify", BUNDLE).returncode == 0
    assert world.network.ask(place, "traffic")["down"] == before
    assert_no_traceback(place)


def test_a_full_disk_at_the_centre_publishes_nothing_by_halves(
    world: World, tmp_path: Path
) -> None:
    """`cuntong revise` where the new payload has no room: one sentence, and what is listed stays."""
    place = world.centre
    data = place.paths.root
    kept = tmp_path / "kept"
    shutil.copytree(data, kept)
    content = tmp_path / "new"
    make_content(content, size=400_000, seed=2)
    with small_disk(data, LARGE) as disk:
        place.folder = disk.seen(place.folder)
        shutil.copytree(kept, disk.path, dirs_exist_ok=True)
        before = files_below(disk.path / "authority")
        used = disk.used()
        for room in range(8_192, 900_000, 20_000 if IS_FULL else 200_000):
            disk.remount(f"size={(used + room) // 4096 * 4096}")
            done = _revise(place, content, disk)
            if done.returncode == 0:
                break
            assert done.returncode == SYSTEM, done.stderr
            assert said(done)[said(done).rindex("(") :] in FULL, said(done)
            assert files_below(disk.path / "authority") == before, said(done)
            left = {path.name for path in (disk.path / "incoming").rglob("*")}
            assert left <= {".lock"}
        else:
            disk.remount(f"size={LARGE}")
            done = _revise(place, content, disk)
            assert done.returncode == 0, done.stderr
        assert room > 300_000  # It struck a few times before.


def _revise(place: Place, content: Path, disk: SmallDisk) -> subprocess.CompletedProcess[str]:
    return tool(place, "revise", BUNDLE, str(content), "--yes", *keys_of(place),
                passphrases=f"{PASSPHRASE}\n" * 9, prefix=disk.prefix)  # fmt: skip

"""Disks that are full at any byte, read-only or gone: told in words, nothing half shown, mended by itself."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from cuntong_protocol.errors import CuntongError, Fault
from tests.support.bad_world import (
    BUNDLE,
    IS_FULL,
    PATIENCE_S,
    SmallDisk,
    World,
    assert_no_traceback,
    assert_same,
    log_of,
    running_world,
    small_disk,
    spawn,
    wait_until,
)

SYSTEM = Fault.SYSTEM.value
TOLD = {"store.disk-full", "trust.cannot-write"}
LARGE = 16_000_000
STEPS = 60 if IS_FULL else 9


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
        print(step, outcomes, room)
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
    print(outcomes)

"""Power cuts, full disks and lost files: what was verified once is never gone below (SPEC 4.6)."""

from __future__ import annotations

import errno
import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from cuntong_daemon import files
from cuntong_daemon.trust import spool as spool_module
from cuntong_daemon.trust.floors import MAX_EQUIVOCATIONS, Floors
from cuntong_protocol.divisions import NATION
from cuntong_protocol.trust.names import TrustError
from tests.support.trust_checks import assert_refused, codes, state
from tests.support.trust_checks import no_sync as no_sync
from tests.support.trust_repo import PROVINCE, START, Node, World

DAY = timedelta(days=1)
pytestmark = pytest.mark.usefixtures("no_sync")
ROOT = Path(__file__).resolve().parents[2]
YUEJU = f"{PROVINCE}/202611/yueju"


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture
def node(tmp_path: Path, world: World) -> Iterator[Node]:
    node = Node(tmp_path)
    node.bootstrap(world.nation)
    node.sync(*world.all)
    yield node
    node.close()


def update(world: World) -> dict[str, bytes]:
    old = dict(world.province.files)
    world.province.list_bundle("update")
    world.province.publish(now=START + DAY)
    return old


def truncate(node: Node) -> None:
    for path in node.paths.trusted.rglob("*.json"):
        path.write_bytes(b"")


@pytest.mark.parametrize("loss", [truncate, lambda node: shutil.rmtree(node.paths.trusted)])
def test_old_disk_is_refused_after_the_cache_was_lost(
    node: Node, world: World, loss: Callable[[Node], None]
) -> None:
    """python-tuf alone accepts the old repository then: it remembers only what lies in its cache."""
    old = update(world)
    node.sync(*world.all)
    node.close()
    loss(node)
    node.open()
    world.province.files = old
    node.carry(world.nation)
    node.carry(world.province)
    refresh = node.federation.refresh()
    assert codes(refresh) == {"trust.rollback"}
    assert not refresh.view.is_complete
    assert refresh.view.authorities[NATION].state == "fresh"
    assert refresh.view.authorities[PROVINCE].state == "refused"


@pytest.mark.parametrize("loss", [truncate, lambda node: shutil.rmtree(node.paths.trusted)])
def test_lost_catalogue_files_are_named_and_come_back(
    node: Node, world: World, loss: Callable[[Node], None]
) -> None:
    before = state(node)
    node.close()
    loss(node)
    node.open()
    refresh = node.federation.refresh()
    assert not refresh.view.is_complete
    assert f"metadata/{NATION}/1.202611.json" in {missing.path for missing in refresh.missing}
    assert not codes(refresh)
    for repository in world.all:
        (node.paths.spool / repository.code / "timestamp.json").unlink(missing_ok=True)
    for _ in range(9):
        if not node.fetch(refresh, *world.all):
            break
        refresh = node.federation.refresh()
    assert refresh.view.is_complete
    assert state(node) == before


def test_flipped_bit_in_an_accepted_file_is_found_and_mended(node: Node, world: World) -> None:
    before = state(node)
    path = node.paths.trusted / PROVINCE / "1.202611.json"
    data = path.read_bytes()
    path.write_bytes(data.replace(b"yueju", b"yuejv"))
    node.restart()
    view = node.federation.refresh().view
    assert not view.is_complete
    assert f"{PROVINCE}/202611/yuejv" not in view.listings
    node.sync(*world.all)
    assert state(node) == before
    assert path.read_bytes() == data


def test_lost_spool_costs_nothing(node: Node) -> None:
    before = state(node)
    shutil.rmtree(node.paths.spool)
    node.restart()
    assert state(node) == before


def test_kill_at_every_write_leaves_the_old_or_the_new_state(tmp_path: Path) -> None:
    result = subprocess.run(
        [sys.executable, "-m", "tests.support.trust_kill", str(tmp_path)],
        cwd=ROOT,
        env={
            **os.environ,
            "PYTHONPATH": os.pathsep.join(
                (str(ROOT), *(str(ROOT / one) for one in ("daemon", "protocol")))
            ),
        },
        capture_output=True,
        text=True,
        check=False,
        timeout=240,
    )
    assert result.returncode == 0, result.stderr
    assert int(result.stdout) > 40


class FullDisk:
    """Lets some writes through, then there is no room any more."""

    def __init__(self, left: int) -> None:
        self.left = left

    def write(self, path: Path, data: bytes, **arguments: bool) -> None:
        self.left -= 1
        if self.left < 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        files.write_atomically(path, data, **arguments)


@pytest.mark.parametrize("left", range(8))
def test_disk_full_at_any_write_accepts_nothing_by_halves(
    node: Node, world: World, monkeypatch: pytest.MonkeyPatch, left: int
) -> None:
    before = state(node)
    world.province.new_root()
    world.province.withdraw(YUEJU)
    update(world)
    node.carry(world.province)
    disk = FullDisk(left)
    monkeypatch.setattr(spool_module, "write_atomically", disk.write)
    refresh = node.federation.refresh()
    if disk.left < 0:
        assert "trust.cannot-write" in codes(refresh)
        assert state(node) == before
        monkeypatch.undo()
        node.restart()
    # There is room again: it goes on by itself.
    refresh = node.federation.refresh()
    assert YUEJU in refresh.view.withdrawn
    assert f"{PROVINCE}/202611/update" in refresh.view.listings
    assert not codes(refresh)


def test_disk_full_in_the_database_accepts_nothing(node: Node, world: World) -> None:
    before = state(node)
    for number in range(60):
        world.province.list_bundle("update", month=f"20{number + 27}01")
    world.province.publish(now=START + DAY)
    node.carry(world.province)
    database = node.federation._floors._db
    (pages,) = database.execute("PRAGMA page_count").fetchone()
    database.execute(f"PRAGMA max_page_count = {pages}")
    refresh = node.federation.refresh()
    assert "trust.cannot-write" in codes(refresh)
    assert state(node) == before
    database.execute("PRAGMA max_page_count = 100000")
    refresh = node.federation.refresh()
    assert f"{PROVINCE}/202701/update" in refresh.view.listings
    assert not codes(refresh)


def test_scratch_folder_that_cannot_be_written_is_told(
    node: Node, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = state(node)
    update(world)
    node.carry(world.province)

    def no_room(*_: object, **__: object) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(Path, "mkdir", no_room)
    assert "trust.cannot-write" in codes(node.federation.refresh())
    assert state(node) == before


def test_spool_that_cannot_be_read_blames_no_file(
    node: Node, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = state(node)
    update(world)
    node.carry(world.province)
    name = f"{world.province.snapshot_version}.snapshot.json"
    original = spool_module.Spool.read_spooled

    def broken(self: spool_module.Spool, authority: str, wanted: str) -> bytes | None:
        if wanted == name:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return original(self, authority, wanted)  # type: ignore[arg-type]

    monkeypatch.setattr(spool_module.Spool, "read_spooled", broken)
    assert "trust.cannot-write" in codes(node.federation.refresh())
    monkeypatch.undo()
    assert (node.paths.spool / PROVINCE / "timestamp.json").exists()
    assert state(node) != before


def test_database_of_a_newer_program_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "state.sqlite"
    connection = sqlite3.connect(path)
    Floors(connection)
    connection.execute("UPDATE trust_meta SET value = 99 WHERE name = 'version'")
    with pytest.raises(TrustError) as caught:
        Floors(connection)
    assert caught.value.code == "trust.newer-state"
    connection.close()


def test_thief_who_equivocates_without_end_fills_no_disk(node: Node, world: World) -> None:
    before = state(node)
    for day in range(1, MAX_EQUIVOCATIONS + 5):
        world.province.sign_timestamp(version=1, now=START + day * DAY)
        node.offer(world.province)
        node.federation.refresh()
    assert len(node.federation.refresh().view.equivocations) == MAX_EQUIVOCATIONS
    assert_refused(node, before, "trust.equivocation", world.province)


def test_floors_and_catalogue_reach_the_disk_in_order(
    tmp_path: Path, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A power cut can't be made here; that the files are synced before the commit that counts can."""
    node = Node(tmp_path / "durable", durable=True)
    node.bootstrap(world.nation)
    node.carry(world.nation)
    database = node.federation._floors._db
    assert database.execute("PRAGMA synchronous").fetchone() == (2,)
    order: list[str] = []
    monkeypatch.setattr(
        os, "fsync", lambda number: order.append(Path(f"/proc/self/fd/{number}").readlink().name)
    )
    database.set_trace_callback(lambda sql: order.append(sql.split(maxsplit=1)[0]))
    node.federation.refresh()
    database.set_trace_callback(None)
    commit = order.index("COMMIT")
    synced = [name for name in order[:commit] if name.startswith(".tmp-")]
    assert len(synced) == len(list((node.paths.trusted / world.nation.code).glob("*.json")))
    assert order[commit - 1] != str(world.nation.code)
    assert str(world.nation.code) in order[:commit]
    node.close()

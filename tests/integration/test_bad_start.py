"""What a daemon says when it can't start as it is: one sentence, a code, an exit code, nothing changed."""

from __future__ import annotations

import os
import random
import shutil
import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from cuntong_protocol.errors import Fault
from tests.support.bad_world import (
    CHINESE,
    IS_FULL,
    World,
    assert_never_half,
    assert_no_traceback,
    assert_same,
    fake_time,
    files_below,
    library,
    log_of,
    refusal,
    running_world,
    small_disk,
    spawn,
)

CONFIG, SYSTEM = Fault.CONFIG.value, Fault.SYSTEM.value


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """For refusals that leave everything as it was."""
    with running_world(tmp_path_factory.mktemp("start")) as world:
        yield world


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with running_world(tmp_path) as found:
        yield found


@pytest.fixture
def untouched(shared: World) -> Iterator[World]:
    """`shared`; at the end every file of the county is as it was, but for the lock and the database's own files."""
    before = _kept(shared)
    yield shared
    shared.network.kill(shared.county)
    assert _kept(shared) == before


def _kept(world: World) -> dict[str, bytes]:
    """What can't be had again at no cost."""
    found = files_below(world.county.paths.root)
    kept = ("config.toml", "keys/", "store/", "library/", "torrents/", "resume/")
    return {path: data for path, data in found.items() if path.startswith(kept)}


@pytest.mark.parametrize(
    ("old", "new", "code", "words"),
    [
        ('name = "', 'nam = "', "config.unknown-key", "the nearest is name"),
        ('code = "110101000000"', 'code = "110102000000"', "config.other-node", "110101000000"),
    ],
)
def test_a_wrong_configuration_is_named(
    untouched: World, old: str, new: str, code: str, words: str
) -> None:
    config = untouched.county.paths.config
    right = config.read_text()
    assert old in right
    config.write_text(right.replace(old, new))
    try:
        exit_code, line = refusal(untouched, untouched.county)
    finally:
        config.write_text(right)
    assert exit_code == CONFIG
    assert line.endswith(f"({code})")
    assert words in line
    assert str(config) in line


def test_an_unknown_key_is_refused_in_chinese(untouched: World) -> None:
    config = untouched.county.paths.config
    right = config.read_text()
    config.write_text(right.replace('name = "', 'nam = "'))
    try:
        exit_code, line = refusal(untouched, untouched.county, environment=CHINESE)
    finally:
        config.write_text(right)
    assert exit_code == CONFIG
    assert "(config.unknown-key)" in line
    assert "不认识的键 node.nam" in line
    assert "最接近的是 name" in line


@pytest.mark.parametrize(
    ("file", "content", "code"),
    [
        ("config.toml", None, "config.missing"),
        ("keys/node.key", b"rubbish", "node.bad-key"),
        ("keys/node.pem", b"rubbish", "node.bad-certificate"),
        ("keys/anchor.pem", b"", "node.bad-certificate"),
    ],
)
def test_a_missing_or_damaged_file_of_the_enrolment_is_named(
    untouched: World, file: str, content: bytes | None, code: str
) -> None:
    path = untouched.county.paths.root / file
    right = path.read_bytes()
    path.unlink()
    if content is not None:
        path.write_bytes(content)
    try:
        exit_code, line = refusal(untouched, untouched.county)
    finally:
        path.write_bytes(right)
    assert exit_code == CONFIG, line
    assert line.endswith(f"({code})")


def test_the_key_of_another_node_is_told(untouched: World) -> None:
    path = untouched.county.paths.keys / "node.key"
    right = path.read_bytes()
    path.write_bytes((untouched.centre.paths.keys / "node.key").read_bytes())
    try:
        exit_code, line = refusal(untouched, untouched.county)
    finally:
        path.write_bytes(right)
    assert (exit_code, line.endswith("(node.key-mismatch)")) == (CONFIG, True)


def test_a_folder_that_is_no_data_directory_is_told(untouched: World, tmp_path: Path) -> None:
    place = untouched.county
    here = place.folder
    try:
        place.folder = tmp_path  # No data/ in it.
        exit_code, line = refusal(untouched, place)
    finally:
        place.folder = here
    assert (exit_code, line.endswith("(config.missing)")) == (CONFIG, True)
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize(
    ("port", "code"), [(7440, "link.port-taken"), (7441, "swarm.cannot-listen")]
)
def test_a_taken_port_is_told(untouched: World, port: int, code: str) -> None:
    with socket.socket() as squatter, socket.socket(type=socket.SOCK_DGRAM) as other:
        squatter.bind((untouched.county.address, port))
        squatter.listen()
        other.bind((untouched.county.address, port))
        exit_code, line = refusal(untouched, untouched.county)
    # Not 78, which systemd takes as final: who holds the port may let it go.
    assert exit_code == SYSTEM
    assert line.endswith(f"({code})")
    assert f"{untouched.county.address}:{port}" in line


@pytest.mark.parametrize(
    ("key", "code"), [("listen", "link.cannot-listen"), ("swarm", "swarm.cannot-listen")]
)
def test_an_address_that_this_machine_lacks_is_told_and_not_final(
    untouched: World, key: str, code: str
) -> None:
    """As at boot, before the VPN is up."""
    config = untouched.county.paths.config
    right = config.read_text()
    address = untouched.county.address
    absent = right.replace(f'{key} = "{address}', f'{key} = "192.0.2.77').replace(
        '"127.0.0.0/8"', '"127.0.0.0/8", "192.0.2.0/24"'
    )
    assert absent != right
    config.write_text(absent)
    try:
        exit_code, line = refusal(untouched, untouched.county)
    finally:
        config.write_text(right)
    assert (exit_code, line.endswith(f"({code})")) == (SYSTEM, True)


def test_a_second_daemon_on_one_directory_is_refused_and_the_first_lives(shared: World) -> None:
    shared.start(shared.county)
    first = shared.county.process
    assert first is not None
    try:
        exit_code, line = refusal(shared, shared.county)
        assert (exit_code, line.endswith("(control.second-daemon)")) == (SYSTEM, True)
        shared.county.process = first
        assert shared.answers(shared.county)
    finally:
        shared.county.process = first
        shared.network.stop(shared.county)


def _stop_cleanly(world: World) -> None:
    """So that the county holds the bundle and nothing runs."""
    world.start(world.centre)
    world.start(world.county)
    world.wait_bundle(world.county)
    world.network.stop(world.county)


@pytest.mark.parametrize("kind", ["rubbish", "page", "truncated"])
def test_a_damaged_database_is_told_and_nothing_is_removed(shared: World, kind: str) -> None:
    database = shared.county.paths.database
    right = database.read_bytes()
    damaged = {
        "rubbish": b"not a database at all " * 200,
        "page": right[:8192] + b"\xff" * 8192 + right[16384:],
        "truncated": right[: len(right) // 2],
    }[kind]
    before = _kept(shared)
    database.write_bytes(damaged)
    try:
        exit_code, line = refusal(shared, shared.county)
    finally:
        for file in database.parent.glob("state.sqlite*"):
            file.unlink()
        database.write_bytes(right)
    assert (exit_code, line.endswith("(catalogue.damaged)")) == (SYSTEM, True), line
    assert str(database) in line
    assert _kept(shared) == before


def test_a_lost_database_is_mended_by_enrolling_again_without_fetching_again(world: World) -> None:
    _stop_cleanly(world)
    for file in world.county.paths.root.glob("state.sqlite*"):
        file.unlink()
    before = _kept(world)
    exit_code, line = refusal(world, world.county)
    assert (exit_code, line.endswith("(trust.no-anchor)")) == (CONFIG, True), line
    assert _kept(world) == before
    pack = world.county.folder / f"{world.county.code}.pack"
    world.network.run(world.county, "node", "enrol", str(pack), "--replace",
                      "--listen", f"{world.county.address}:7440",
                      "--swarm", f"{world.county.address}:7441")  # fmt: skip
    world.start(world.county)
    world.wait_bundle(world.county)
    assert world.network.ask(world.county, "traffic")["down"] == 0


def test_a_lost_folder_comes_back_by_itself(world: World) -> None:
    """Nothing of the payload is fetched again for it."""
    _stop_cleanly(world)
    together = [["trusted", "blobs", "spool"], ["resume", "torrents"], ["library"]]
    for folders in [[one] for group in together for one in group] if IS_FULL else together:
        for folder in folders:
            shutil.rmtree(world.county.paths.root / folder)
        world.start(world.county)
        world.wait_bundle(world.county)
        assert world.network.ask(world.county, "traffic")["down"] == 0, folders
        world.network.stop(world.county)
    assert_no_traceback(world.county)


def _spoil(folder: Path) -> int:
    """Half of each file becomes zeros."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    for path in files:
        data = path.read_bytes()
        path.write_bytes(data[: len(data) // 2] + bytes(len(data) - len(data) // 2))
    return len(files)


def test_damaged_files_are_made_good(world: World) -> None:
    _stop_cleanly(world)
    together = [["trusted", "blobs", "torrents", "resume"]]
    for folders in [[one] for one in together[0]] if IS_FULL else together:
        for folder in folders:
            assert _spoil(world.county.paths.root / folder)
        world.start(world.county)
        world.wait_bundle(world.county)
        world.network.stop(world.county)
    world.start(world.county)
    world.wait_bundle(world.county)
    assert not world.network.status(world.county).problems
    assert_no_traceback(world.county)


def test_a_store_that_vanished_before_the_start_is_filled_again(world: World) -> None:
    _stop_cleanly(world)
    shutil.rmtree(world.county.paths.store)
    world.start(world.county)
    world.wait_status(world.county, lambda status: bool(status.repairs))
    world.wait_bundle(world.county)
    assert list(world.county.paths.store.rglob("*.bin"))
    assert_no_traceback(world.county)


def test_an_expired_certificate_is_told_on_both_sides(world: World) -> None:
    """Both clocks are right; the county slept through its renewal, while the centre signed each day."""
    world.start(world.centre, environment=fake_time("2027-09-01 00:00:00"))
    world.network.stop(world.centre)
    later = fake_time("2028-06-01 00:00:00")
    world.start(world.centre, environment=later)
    world.start(world.county, environment=later)
    status = world.wait_status(world.county, lambda found: found.parent.refusal is not None)
    assert status.parent.refusal is not None
    assert status.parent.refusal.code == "node.expired"
    assert "app.certificate-ends" in {problem.code for problem in status.problems}
    assert "node.expired" in log_of(world.centre)


def test_a_stop_at_any_moment_of_the_start_ends_well(world: World) -> None:
    source = random.Random(5)
    for _ in range(40 if IS_FULL else 3):
        process = spawn(world.network, world.county)
        time.sleep(source.uniform(0.0, 1.2))  # The moment itself is what is tried.
        process.send_signal(signal.SIGTERM)
        # Before Python listens to signals the system ends it.
        assert process.wait(40) in (0, -signal.SIGTERM), log_of(world.county)
    assert_no_traceback(world.county)
    world.start(world.centre, world.county)
    world.wait_bundle(world.county)


def test_a_kill_at_any_moment_of_the_start_costs_nothing(world: World) -> None:
    _stop_cleanly(world)
    source = random.Random(6)
    for _ in range(40 if IS_FULL else 3):
        process = spawn(world.network, world.county)
        time.sleep(source.uniform(0.0, 1.2))  # The moment itself is what is tried.
        process.kill()
        process.wait()
        assert_same(world.content, library(world.county))
    assert_no_traceback(world.county)
    world.start(world.county)
    world.wait_bundle(world.county)
    assert world.network.ask(world.county, "traffic")["down"] == 0


def test_a_read_only_data_directory_is_told(world: World) -> None:
    data = world.county.paths.root
    kept = world.county.folder / "kept"
    shutil.copytree(data, kept)
    shutil.rmtree(data)
    with small_disk(data, 8_000_000) as disk:
        shutil.copytree(kept, disk.path, dirs_exist_ok=True)
        disk.remount("ro")
        world.county.folder = disk.seen(world.county.folder)
        exit_code, line = refusal(world, world.county, prefix=disk.prefix)
    assert (exit_code, line.endswith("(control.no-data)")) == (SYSTEM, True)
    assert_never_half(world, world.county)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_configuration_that_may_not_be_read_is_told(untouched: World) -> None:
    config = untouched.county.paths.config
    config.chmod(0)
    try:
        exit_code, line = refusal(untouched, untouched.county)
    finally:
        config.chmod(0o640)
    assert (exit_code, line.endswith("(config.unreadable)")) == (CONFIG, True)

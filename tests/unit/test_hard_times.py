"""The small parts that carry a node over wrong clocks, full disks and damaged databases."""

from __future__ import annotations

import errno
import io
import os
import sqlite3
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from cuntong_daemon import clock as clock_module
from cuntong_daemon.catalogue import Database, check_database
from cuntong_daemon.clock import NodeClock
from cuntong_daemon.logs import configure_logging, get_logger
from cuntong_daemon.main import _told
from cuntong_daemon.paths import DataPaths
from cuntong_daemon.reserve import RESERVE_BYTES, Reserve
from cuntong_daemon.store import errors as errors_module
from cuntong_daemon.store.errors import StoreError, database_error, is_disk_full
from cuntong_protocol.errors import CuntongError

SIGNED = datetime(2026, 11, 22, 6, 0, tzinfo=UTC)
RIGHT = SIGNED + timedelta(hours=5)
LONG_AGO = datetime(2000, 1, 1, tzinfo=UTC)
FAR_AHEAD = datetime(2040, 1, 1, tzinfo=UTC)


class _Wall(datetime):
    """The machine's clock, set by a test."""

    moment = RIGHT

    @classmethod
    def now(cls, tz: object = None) -> datetime:  # type: ignore[override]
        return cls.moment


@pytest.fixture
def wall(monkeypatch: pytest.MonkeyPatch) -> type[_Wall]:
    monkeypatch.setattr(clock_module, "datetime", _Wall)
    return _Wall


@pytest.mark.parametrize(
    ("own", "parent", "believed"),
    [
        (RIGHT, RIGHT, RIGHT),
        (LONG_AGO, RIGHT, RIGHT),
        (FAR_AHEAD, RIGHT, RIGHT),
        (RIGHT, LONG_AGO, RIGHT),
        (RIGHT, FAR_AHEAD, RIGHT),
        (LONG_AGO, FAR_AHEAD, LONG_AGO),
        (RIGHT - timedelta(hours=3), RIGHT, RIGHT),
    ],
)
def test_the_clock_that_can_be_right_is_believed(
    wall: type[_Wall], own: datetime, parent: datetime, believed: datetime
) -> None:
    wall.moment = own
    clock = NodeClock()
    clock.prove(SIGNED)
    clock.confirm(int(parent.timestamp()))
    assert abs(clock.now() - believed) < timedelta(seconds=5)
    assert clock.is_confirmed == (parent == RIGHT)
    assert (clock.parent_error is None) == (parent == RIGHT)
    assert (clock.error is None) == (own == believed)


def test_without_a_parent_the_machines_clock_is_all_there_is(wall: type[_Wall]) -> None:
    wall.moment = LONG_AGO
    clock = NodeClock()
    assert clock.now() == LONG_AGO
    assert (clock.error, clock.parent_error, clock.is_confirmed) == (None, None, False)


def test_a_reserve_is_made_once_and_given_up_once(tmp_path: Path) -> None:
    reserve = Reserve(DataPaths(tmp_path))
    assert not reserve.give_up()
    reserve.make()
    made = (tmp_path / "reserve").stat()
    assert made.st_blocks * 512 >= RESERVE_BYTES
    reserve.make()
    assert (tmp_path / "reserve").stat().st_ino == made.st_ino
    assert reserve.give_up()
    assert not reserve.give_up()


def test_a_reserve_that_cannot_be_made_is_no_error(tmp_path: Path) -> None:
    Reserve(DataPaths(tmp_path / "gone")).make()
    assert not is_disk_full(tmp_path / "gone")


def _error_of_a_full_disk(path: Path) -> sqlite3.Error:
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE t (x)")
    connection.execute("PRAGMA max_page_count = 3")
    with pytest.raises(sqlite3.OperationalError) as caught:
        connection.execute("INSERT INTO t VALUES (zeroblob(100000))")
    connection.close()
    return caught.value


async def test_a_database_that_fails_says_which_and_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "state.sqlite"
    full = _error_of_a_full_disk(path)
    assert database_error(full, str(path)).code == "store.disk-full"
    other = database_error(sqlite3.OperationalError("disk I/O error"), str(path))
    assert (other.code, str(path) in str(other)) == ("store.disk-error", True)
    monkeypatch.setattr(errors_module, "is_disk_full", lambda _folder: True)
    told = database_error(sqlite3.OperationalError("disk I/O error"), str(path))
    assert told.code == "store.disk-full"
    database = Database(path)

    def fail() -> None:
        raise full

    with pytest.raises(StoreError) as caught:
        await database.call(fail)
    assert caught.value.code == "store.disk-full"
    database.close()


def test_damage_in_the_middle_of_a_database_is_found_before_the_start(tmp_path: Path) -> None:
    path = tmp_path / "state.sqlite"
    check_database(path)
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE t (x)")
    connection.executemany("INSERT INTO t VALUES (?)", [("x" * 500,)] * 100)
    connection.commit()
    connection.close()
    check_database(path)
    data = bytearray(path.read_bytes())
    data[8192:16384] = b"\xff" * 8192
    path.write_bytes(data)
    with pytest.raises(StoreError) as caught:
        check_database(path)
    assert caught.value.code == "catalogue.damaged"
    assert str(path) in str(caught.value)


def test_what_ends_the_daemon_is_told_in_one_sentence_or_is_our_own_fault() -> None:
    ours = CuntongError("x.y", "A sentence.")
    disk = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    assert _told(ours) is ours
    group = BaseExceptionGroup("", [KeyError(), ExceptionGroup("", [ours, ValueError()])])
    assert _told(group) is ours
    told = _told(ExceptionGroup("", [disk]))
    assert told is not None
    assert told.code == "store.disk-full"
    assert _told(KeyError("bug")) is None


def test_logs_that_cannot_be_written_stop_nothing() -> None:
    class Full(io.StringIO):
        def write(self, text: str) -> int:
            raise OSError(errno.ENOSPC, "full")

        def flush(self) -> None:
            raise BrokenPipeError

    configure_logging(stream=Full(), is_console=False)
    try:
        get_logger("test").info("anything")
    finally:
        configure_logging()

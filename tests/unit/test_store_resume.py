"""What is written down about torrents, whose bytes are counted, which events wait."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
import trio
import trio.testing

from cuntong_daemon.paths import DataPaths
from cuntong_daemon.store.pieces import PieceSet
from cuntong_daemon.swarm.accounting import MAX_HOSTS, OTHERS, Accounting
from cuntong_daemon.swarm.alerts import Connection
from cuntong_daemon.swarm.events import Completed, EventBox, FileError, HashFailed, PeerBytes
from cuntong_daemon.swarm.resume import (
    EMPTY,
    Resume,
    load_resume,
    pack_blocks,
    resume_path,
    unpack_blocks,
    write_resume,
)
from cuntong_protocol.texts import sentence
from tests.support.payloads import some_files, torrent_of

ONE, TWO = b"\1" * 32, b"\2" * 32


def test_what_was_written_down_is_read_again(tmp_path: Path) -> None:
    paths = DataPaths(tmp_path)
    torrent = torrent_of(some_files())
    have = PieceSet.of(torrent.piece_count, [0, 3, 9])
    blocks = {1: (True, False), 2: (False, False), 3: (True, True)}
    resume = Resume(1, have.to_bytes(), pack_blocks(blocks), 12, 34)
    write_resume(paths, torrent.infohash, resume)
    found = load_resume(paths, torrent)
    assert found == resume
    assert PieceSet.from_bytes(torrent.piece_count, found.pieces) == have
    # Pieces without a block, and those that are whole, aren't unfinished.
    assert unpack_blocks(torrent, found, have) == {1: [True, False]}


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xff\x00",
        msgspec.msgpack.encode({"v": 2, "pieces": b"\xff" * 2}),
        msgspec.msgpack.encode({"v": 1, "pieces": b"\xff" * 99}),
        msgspec.msgpack.encode({"v": 1, "pieces": b"\xff" * 2, "down": -1}),
        msgspec.msgpack.encode({"v": 1, "pieces": "text"}),
    ],
)
def test_a_damaged_resume_file_counts_as_nothing(tmp_path: Path, data: bytes) -> None:
    paths = DataPaths(tmp_path)
    torrent = torrent_of(some_files())
    path = resume_path(paths, torrent.infohash)
    path.parent.mkdir()
    path.write_bytes(data)
    assert load_resume(paths, torrent) == EMPTY


def test_unfinished_pieces_of_nonsense_are_left_out() -> None:
    torrent = torrent_of(some_files())
    resume = Resume(1, b"", {-1: b"\xff", 10_000: b"\xff", 0: b"\xff" * 40})
    none = PieceSet(torrent.piece_count)
    assert unpack_blocks(torrent, resume, none) == {0: [True, True]}


def test_bytes_go_to_the_address_that_moved_them() -> None:
    accounting = Accounting()
    accounting.start(ONE, 1000, 0)
    accounting.begin(ONE, "10.0.0.1", 7)
    accounting.progress(ONE, 1400, 50)
    accounting.look(ONE, (Connection("10.0.0.1", 7, 300, 50), Connection("10.0.0.2", 8, 100, 0)))
    assert accounting.by_host() == {"10.0.0.1": PeerBytes(300, 50), "10.0.0.2": PeerBytes(100, 0)}
    # 10.0.0.1 moves 100 more, ends, and comes back on the same port.
    accounting.progress(ONE, 1500, 50)
    accounting.look(ONE, (Connection("10.0.0.2", 8, 100, 0),))
    assert accounting.by_host()["10.0.0.1"] == PeerBytes(400, 50)
    accounting.look(ONE, (Connection("10.0.0.1", 7, 5, 0), Connection("10.0.0.2", 8, 100, 0)))
    accounting.look(ONE, (Connection("10.0.0.1", 7, 2, 0), Connection("10.0.0.2", 8, 100, 0)))
    assert accounting.by_host()["10.0.0.1"] == PeerBytes(407, 50)
    assert (accounting.down, accounting.up) == (500, 50)


def test_a_connection_that_nobody_ever_saw_is_counted_too() -> None:
    accounting = Accounting()
    accounting.start(ONE, 0, 0)
    accounting.begin(ONE, "10.0.0.1", 7)
    assert accounting.is_watched(ONE)
    accounting.look(ONE, ())
    accounting.progress(ONE, 900, 0)
    assert accounting.by_host()["10.0.0.1"] == PeerBytes(900, 0)
    accounting.forget(ONE)
    assert not accounting.is_watched(ONE)


def test_strangers_can_t_fill_the_memory() -> None:
    accounting = Accounting()
    for number in range(MAX_HOSTS + 5):
        accounting.look(ONE, (Connection(f"h{number}", 1, 1, 0),))
    assert len(accounting.by_host()) == MAX_HOSTS + 1
    assert accounting.by_host()[OTHERS].down == 5


async def test_events_wait_and_never_pile_up() -> None:
    box = EventBox()
    problem = sentence("x.y", "z")
    for _ in range(1000):
        box.put(HashFailed(ONE, 1))
        box.put(FileError(ONE, problem, is_disk_full=True))
    box.put(Completed(TWO))
    assert await box.take() == HashFailed(ONE, 1000)
    assert await box.take() == FileError(ONE, problem, is_disk_full=True)
    box.put(Completed(ONE))
    box.forget(TWO)
    assert await box.take() == Completed(ONE)
    async with trio.open_nursery() as nursery:
        taken = []

        async def take() -> None:
            taken.append(await box.take())

        nursery.start_soon(take)
        await trio.testing.wait_all_tasks_blocked()
        box.put(Completed(TWO))
    assert taken == [Completed(TWO)]

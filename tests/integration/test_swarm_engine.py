"""Two or three real engines on loopback addresses."""

from __future__ import annotations

import ipaddress
import itertools
import shutil
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio

from cuntong_daemon.paths import DataPaths
from cuntong_daemon.services import running
from cuntong_daemon.store.pieces import PieceSet
from cuntong_daemon.store.torrents import payload_folder
from cuntong_daemon.swarm.engine import SwarmEngine
from cuntong_daemon.swarm.events import Completed, FileError, HashFailed, SwarmError, TorrentState
from cuntong_protocol.bundle.torrent import Torrent
from cuntong_protocol.divisions import Tier
from tests.support.payloads import read_files, some_files, torrent_of, write_payload

NETWORKS = [ipaddress.ip_network("127.0.0.0/8")]
_hosts = itertools.count(2)


def make_engine(
    root: Path,
    tier: Tier = Tier.COUNTY,
    *,
    down: int = 0,
    up: int = 0,
    networks: list[ipaddress.IPv4Network] | None = None,
) -> SwarmEngine:
    return SwarmEngine(
        DataPaths(root),
        listen=f"127.0.71.{next(_hosts)}:0",
        networks=NETWORKS if networks is None else networks,
        down_bytes_s=down,
        up_bytes_s=up,
        tier=tier,
    )


async def until(condition: Callable[[], bool]) -> None:
    """Wait for libtorrent, whose counters can only be looked at."""
    with trio.fail_after(60):
        while not condition():  # noqa: ASYNC110  There is no event for it.
            await trio.sleep(0.05)


async def completed(engine: SwarmEngine, torrent: Torrent) -> None:
    with trio.fail_after(120):
        while True:
            if await engine.wait_event() == Completed(torrent.infohash):
                return


async def test_a_village_gets_the_bytes_of_its_county(tmp_path: Path) -> None:
    files = some_files()
    torrent = torrent_of(files)
    write_payload(DataPaths(tmp_path / "a"), torrent, files)
    async with running(make_engine(tmp_path / "a")) as county:
        await county.add(torrent)
        await completed(county, torrent)
        async with running(make_engine(tmp_path / "b", Tier.VILLAGE)) as village:
            await village.add(torrent)
            village.connect_peers(torrent.infohash, [county.address])
            await completed(village, torrent)
            status = village.statuses()[torrent.infohash]
            assert status.state is TorrentState.COMPLETE
            assert status.progress == 1
            assert read_files(payload_folder(DataPaths(tmp_path / "b"), torrent)) == files


@asynccontextmanager
async def seeding(
    root: Path, torrent: Torrent, files: dict[str, bytes], **more: object
) -> AsyncIterator[SwarmEngine]:
    """An engine that has everything."""
    write_payload(DataPaths(root), torrent, files)
    async with running(make_engine(root, **more)) as engine:  # type: ignore[arg-type]
        await engine.add(torrent)
        await completed(engine, torrent)
        yield engine


async def test_bytes_are_counted_by_torrent_by_address_and_on_the_wire(tmp_path: Path) -> None:
    files = some_files(1_000_000)
    torrent = torrent_of(files)
    async with (
        seeding(tmp_path / "a", torrent, files) as county,
        running(make_engine(tmp_path / "b", Tier.VILLAGE)) as village,
    ):
        await village.add(torrent)
        village.connect_peers(torrent.infohash, [county.address])
        await completed(village, torrent)
        size = torrent.payload_size
        await until(lambda: village.totals.down >= size and village.totals.down_wire > 0)
        await until(lambda: county.totals.up >= size)
        await until(lambda: sum(peer.down for peer in village.totals.peers.values()) >= size)
        await until(lambda: sum(peer.up for peer in county.totals.peers.values()) >= size)
        totals = village.totals
        # The last blocks of a piece may be asked for twice at the end.
        assert torrent.payload_size <= totals.down < torrent.payload_size * 1.1
        assert totals.down_wire > 0
        assert village.statuses()[torrent.infohash].down == totals.down
        assert set(totals.peers) == {county.address[0]}
        assert set(county.totals.peers) == {village.address[0]}
        assert totals.peers[county.address[0]].down <= totals.down
        assert county.totals.peers[village.address[0]].up <= county.totals.up


@pytest.mark.parametrize("tier", [Tier.VILLAGE, Tier.COUNTY])
async def test_limits_hold_on_private_addresses(tmp_path: Path, tier: Tier) -> None:
    """Without the peer class filter this megabyte would take a few milliseconds."""
    files = some_files(1_000_000)
    torrent = torrent_of(files)
    async with (
        seeding(tmp_path / "a", torrent, files) as county,
        running(make_engine(tmp_path / "b", tier, down=100_000)) as child,
    ):
        await child.add(torrent)
        child.connect_peers(torrent.infohash, [county.address])
        start = trio.current_time()
        await until(lambda: child.statuses()[torrent.infohash].bytes_done >= 400_000)
        # A burst of a second or two is allowed, not forty times the limit.
        assert (trio.current_time() - start) * 100_000 > 200_000


async def test_a_sender_s_limit_holds_too(tmp_path: Path) -> None:
    files = some_files(1_000_000)
    torrent = torrent_of(files)
    async with (
        seeding(tmp_path / "a", torrent, files, up=100_000) as county,
        running(make_engine(tmp_path / "b")) as child,
    ):
        await child.add(torrent)
        child.connect_peers(torrent.infohash, [county.address])
        start = trio.current_time()
        await until(lambda: child.statuses()[torrent.infohash].bytes_done >= 400_000)
        assert (trio.current_time() - start) * 100_000 > 200_000


async def test_what_was_downloaded_is_not_fetched_again_after_a_stop(tmp_path: Path) -> None:
    files = some_files(1_000_000)
    torrent = torrent_of(files)
    async with seeding(tmp_path / "a", torrent, files) as county:
        async with running(make_engine(tmp_path / "b", Tier.VILLAGE, down=100_000)) as village:
            await village.add(torrent)
            village.connect_peers(torrent.infohash, [county.address])
            await until(lambda: village.statuses()[torrent.infohash].bytes_done >= 300_000)
            done = village.statuses()[torrent.infohash].bytes_done
        async with running(make_engine(tmp_path / "b", Tier.VILLAGE)) as village:
            await village.add(torrent)
            status = village.statuses()[torrent.infohash]
            assert status.bytes_done >= done - 4 * torrent.piece_length
            assert status.durable_pieces > 0
            village.connect_peers(torrent.infohash, [county.address])
            await completed(village, torrent)
            await until(lambda: village.totals.down > 0)
            assert village.totals.down < torrent.payload_size - done + 5 * torrent.piece_length
    assert read_files(payload_folder(DataPaths(tmp_path / "b"), torrent)) == files


async def test_only_durable_pieces_are_believed_after_a_power_cut(tmp_path: Path) -> None:
    """What was written after the last fsync may be zeros now: it is hashed, not believed."""
    files = some_files(1_000_000)
    torrent = torrent_of(files)
    paths = DataPaths(tmp_path)
    folder = write_payload(paths, torrent, files)
    path = folder / "files/a.mp4"
    path.write_bytes(files["files/a.mp4"][:500_000] + bytes(len(files["files/a.mp4"]) - 500_000))
    async with running(make_engine(tmp_path)) as engine:
        await engine.add(torrent)
        status = engine.statuses()[torrent.infohash]
        assert status.state is TorrentState.DOWNLOADING
        lost = len(files["files/a.mp4"]) - 500_000
        assert 0 <= status.bytes_total - status.bytes_done - lost < torrent.piece_length
    # Complete in its own eyes, but a file has vanished and another is shorter.
    path.write_bytes(files["files/a.mp4"])
    async with running(make_engine(tmp_path)) as engine:
        await engine.add(torrent)
        await completed(engine, torrent)
    (folder / "index").unlink()
    path.write_bytes(files["files/a.mp4"][:-1])
    async with running(make_engine(tmp_path)) as engine:
        await engine.add(torrent, have=PieceSet.full(torrent.piece_count))
        status = engine.statuses()[torrent.infohash]
        assert status.state is TorrentState.DOWNLOADING
        assert torrent.piece_count - status.durable_pieces == 2


async def test_a_complete_payload_says_nothing_when_its_caller_knew(tmp_path: Path) -> None:
    files = some_files()
    torrent = torrent_of(files)
    write_payload(DataPaths(tmp_path), torrent, files)
    async with running(make_engine(tmp_path)) as engine:
        await engine.add(torrent, have=PieceSet.full(torrent.piece_count))
        await engine.add(torrent)
        assert engine.statuses()[torrent.infohash].state is TorrentState.COMPLETE
        with trio.move_on_after(0.1) as scope:
            await engine.wait_event()
        assert scope.cancelled_caught


async def test_a_damaged_piece_is_fetched_again_alone(tmp_path: Path) -> None:
    files = some_files()
    torrent = torrent_of(files)
    async with (
        seeding(tmp_path / "a", torrent, files) as county,
        seeding(tmp_path / "b", torrent, files, tier=Tier.VILLAGE) as village,
    ):
        path = payload_folder(DataPaths(tmp_path / "b"), torrent) / "files/a.mp4"
        path.write_bytes(b"\0" + files["files/a.mp4"][1:])
        path.chmod(0o444)
        bad = PieceSet.of(torrent.piece_count, [torrent.pieces_of(torrent.files[0])[0]])
        await village.repair(torrent.infohash, bad)
        assert village.statuses()[torrent.infohash].state is TorrentState.DOWNLOADING
        village.connect_peers(torrent.infohash, [county.address])
        await completed(village, torrent)
        assert path.read_bytes() == files["files/a.mp4"]
        await village.repair(bytes(32), bad)


async def test_a_removed_torrent_is_seeded_no_more_and_leaves_no_trace(tmp_path: Path) -> None:
    files = some_files()
    torrent = torrent_of(files)
    async with (
        seeding(tmp_path / "a", torrent, files) as county,
        running(make_engine(tmp_path / "b", Tier.VILLAGE)) as village,
    ):
        await county.remove(torrent.infohash)
        await county.remove(torrent.infohash)
        assert county.statuses() == {}
        assert list((tmp_path / "a" / "resume").iterdir()) == []
        await village.add(torrent)
        village.connect_peers(torrent.infohash, [county.address])
        with trio.move_on_after(0.5):
            await village.wait_event()
        assert village.statuses()[torrent.infohash].bytes_done == 0
        # And it can come back.
        await county.add(torrent)
        await completed(county, torrent)
        await completed(village, torrent)


async def test_files_that_vanish_while_seeding_are_an_error_and_come_back(tmp_path: Path) -> None:
    files = some_files()
    torrent = torrent_of(files)
    async with (
        seeding(tmp_path / "a", torrent, files) as county,
        seeding(tmp_path / "b", torrent, files) as other,
        running(make_engine(tmp_path / "c", Tier.VILLAGE)) as village,
    ):
        shutil.rmtree(payload_folder(DataPaths(tmp_path / "a"), torrent))
        await village.add(torrent)
        village.connect_peers(torrent.infohash, [county.address])
        with trio.fail_after(60):
            event = await county.wait_event()
        assert isinstance(event, FileError)
        assert not event.is_disk_full
        assert event.problem.code == "swarm.file-error"
        status = county.statuses()[torrent.infohash]
        assert status.state is TorrentState.ERROR
        assert status.problem == event.problem
        assert village.statuses()[torrent.infohash].bytes_done == 0
        # It is tried again by itself, finds its files gone, and fetches them.
        county.connect_peers(torrent.infohash, [other.address])
        await completed(county, torrent)
        await completed(village, torrent)
        assert read_files(payload_folder(DataPaths(tmp_path / "a"), torrent)) == files


async def test_a_peer_that_sends_damaged_pieces_spoils_nothing(tmp_path: Path) -> None:
    files = some_files()
    torrent = torrent_of(files)
    async with (
        seeding(tmp_path / "a", torrent, files) as rotten,
        seeding(tmp_path / "b", torrent, files) as good,
        running(make_engine(tmp_path / "c", Tier.VILLAGE)) as village,
    ):
        path = payload_folder(DataPaths(tmp_path / "a"), torrent) / "files/a.mp4"
        path.write_bytes(bytes(len(files["files/a.mp4"])))
        await village.add(torrent)
        village.connect_peers(torrent.infohash, [rotten.address])
        with trio.fail_after(60):
            event = await village.wait_event()
        assert isinstance(event, HashFailed)
        village.connect_peers(torrent.infohash, [good.address])
        await completed(village, torrent)
        assert read_files(payload_folder(DataPaths(tmp_path / "c"), torrent)) == files


async def test_peers_outside_the_networks_are_neither_dialled_nor_answered(tmp_path: Path) -> None:
    files = some_files()
    torrent = torrent_of(files)
    far = [ipaddress.ip_network("10.20.0.0/16")]
    async with (
        seeding(tmp_path / "a", torrent, files, networks=far) as county,
        running(make_engine(tmp_path / "b")) as child,
        running(make_engine(tmp_path / "c", networks=far)) as confined,
    ):
        for engine in (child, confined):
            await engine.add(torrent)
            engine.connect_peers(
                torrent.infohash, [county.address, ("nonsense", 1), (county.address[0], 0)]
            )
        with trio.move_on_after(2):
            await child.wait_event()
        assert child.statuses()[torrent.infohash].bytes_done == 0
        assert confined.statuses()[torrent.infohash].bytes_done == 0
        assert county.statuses()[torrent.infohash].peers == 0


async def test_a_taken_port_is_told_in_words(tmp_path: Path) -> None:
    async with running(make_engine(tmp_path / "a")) as first:
        host, port = first.address
        second = SwarmEngine(
            DataPaths(tmp_path / "b"),
            listen=f"{host}:{port}",
            networks=NETWORKS,
            down_bytes_s=0,
            up_bytes_s=0,
            tier=Tier.COUNTY,
        )
        with pytest.RaisesGroup(SwarmError, flatten_subgroups=True) as caught:
            async with running(second):
                pytest.fail("it must not start")
        error = caught.value.exceptions[0]
        assert isinstance(error, SwarmError)
        assert error.code == "swarm.cannot-listen"
        assert str(port) in str(error)


async def test_introductions_are_limited(tmp_path: Path) -> None:
    torrent = torrent_of(some_files())
    async with running(make_engine(tmp_path)) as engine:
        engine.connect_peers(torrent.infohash, [("127.0.71.1", 9)])
        await engine.add(torrent)
        engine.connect_peers(torrent.infohash, [("127.0.71.1", port) for port in range(1, 1000)])
        assert len(engine._entries[torrent.infohash].peers) == 64


async def test_adding_can_be_cancelled(tmp_path: Path) -> None:
    files = some_files()
    torrent = torrent_of(files)
    write_payload(DataPaths(tmp_path), torrent, files)
    async with running(make_engine(tmp_path)) as engine:
        with trio.CancelScope() as scope:
            scope.cancel()
            await engine.add(torrent)
        assert engine.statuses() == {}
        await engine.add(torrent)
        await completed(engine, torrent)


def _first_half(torrent: Torrent, files: dict[str, bytes], folder: Path) -> PieceSet:
    """Write the first half of the pieces into a payload's files, as a medium does."""
    numbers = range(torrent.piece_count // 2)
    for number in numbers:
        file, offset, length = torrent.piece_place(number)
        path = folder / file.path
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("r+b" if path.exists() else "wb") as target:
            target.seek(offset)
            target.write(files[file.path][offset : offset + length])
    return PieceSet.of(torrent.piece_count, numbers)


async def test_what_a_medium_writes_into_a_running_torrent_is_not_fetched(tmp_path: Path) -> None:
    files = some_files()
    torrent = torrent_of(files)
    folder = payload_folder(DataPaths(tmp_path / "b"), torrent)
    async with (
        seeding(tmp_path / "a", torrent, files) as county,
        running(make_engine(tmp_path / "b", Tier.VILLAGE)) as village,
    ):
        await village.add(torrent)
        await village.fill(torrent.infohash, lambda torrent, _: _first_half(torrent, files, folder))
        durable = village.durable(torrent.infohash)
        assert durable is not None
        assert len(durable) == torrent.piece_count // 2
        village.connect_peers(torrent.infohash, [county.address])
        await completed(village, torrent)
        assert read_files(folder) == files
        await until(lambda: village.totals.down > 0)
        assert village.totals.down < torrent.payload_size
        await village.fill(bytes(32), lambda torrent, _: PieceSet(torrent.piece_count))


async def test_medium_that_fails_half_way_leaves_what_it_wrote_and_a_running_torrent(
    tmp_path: Path,
) -> None:
    files = some_files()
    torrent = torrent_of(files)
    folder = payload_folder(DataPaths(tmp_path / "b"), torrent)

    def fail(torrent: Torrent, _have: PieceSet) -> PieceSet:
        _first_half(torrent, files, folder)
        raise OSError(5, "Input/output error")

    async with (
        seeding(tmp_path / "a", torrent, files) as county,
        running(make_engine(tmp_path / "b", Tier.VILLAGE)) as village,
    ):
        await village.add(torrent)
        with pytest.raises(OSError, match="Input/output"):
            await village.fill(torrent.infohash, fail)
        durable = village.durable(torrent.infohash)
        assert durable is not None
        assert len(durable) == torrent.piece_count // 2
        village.connect_peers(torrent.infohash, [county.address])
        await completed(village, torrent)
        assert read_files(folder) == files

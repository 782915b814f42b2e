"""Real processes, real kills, real full and read-only disks."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import trio

from cuntong_daemon.paths import DataPaths
from cuntong_daemon.services import running
from cuntong_daemon.store.torrents import payload_folder
from cuntong_protocol.bundle.torrent import Torrent
from cuntong_protocol.divisions import Tier
from tests.support.payloads import read_files, some_files, torrent_of, write_payload
from tests.support.processes import swarm_node

from .test_swarm_engine import completed, make_engine, until

KILLS = 10


def node_settings(root: Path, torrent: Torrent, **more: Any) -> dict[str, Any]:
    path = root.parent / "wanted.torrent"
    path.write_bytes(torrent.encode())
    return {
        "root": str(root),
        "listen": "127.0.74.1:0",
        "tier": Tier.VILLAGE,
        "torrents": [str(path)],
    } | more


async def test_ten_kills_cost_a_few_pieces_each(tmp_path: Path) -> None:
    files = some_files(4_000_000)
    torrent = torrent_of(files)
    write_payload(DataPaths(tmp_path / "county"), torrent, files)
    moments = random.Random(7)
    # The link is modelled at the sender: what it has sent has crossed, as on a real one. A limit at the receiver
    # lets libtorrent ask for seconds ahead while it finds its pace.
    async with running(make_engine(tmp_path / "county", up=128_000)) as county:
        await county.add(torrent)
        await completed(county, torrent)
        settings = node_settings(tmp_path / "village", torrent, peers=[list(county.address)])
        kills = 0
        while kills < KILLS:
            async with swarm_node(settings) as village:
                assert (await village.wait("ready"))["what"] == "ready"
                with trio.move_on_after(moments.uniform(0.2, 4.0)):
                    await village.wait("completed")
                    break
            kills += 1
        async with swarm_node(settings) as village:
            assert (await village.wait("completed"))["what"] == "completed"
        # The county's last look at its counters: when the village hung up.
        await until(lambda: not county.statuses()[torrent.infohash].peers)
        assert read_files(payload_folder(DataPaths(tmp_path / "village"), torrent)) == files
        # What the county sent counts, even what nobody was there to receive any more.
        again = county.totals.up - torrent.payload_size
        assert kills >= KILLS // 2
        assert again / kills <= torrent.payload_size * 0.05, (again, kills)


def can(*command: str) -> bool:
    try:
        return subprocess.run(command, capture_output=True, check=False).returncode == 0
    except OSError:
        return False


UNSHARE = ["unshare", "-m"] if os.geteuid() == 0 else ["unshare", "-Urm"]


async def test_a_full_disk_stops_the_download_and_room_lets_it_go_on(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = f'mount -t tmpfs -o size=1300k tmpfs "{disk}"'
    if not can(*UNSHARE, "sh", "-c", mount):
        pytest.skip("no small file system can be mounted here (unshare)")
    files = some_files(800_000)
    torrent = torrent_of(files)
    write_payload(DataPaths(tmp_path / "county"), torrent, files)
    async with running(make_engine(tmp_path / "county")) as county:
        await county.add(torrent)
        await completed(county, torrent)
        settings = node_settings(disk / "village", torrent, peers=[list(county.address)])
        shutil.move(disk / "wanted.torrent", tmp_path / "wanted.torrent")
        settings["torrents"] = [str(tmp_path / "wanted.torrent")]
        fill = f'{mount} && head -c 800000 /dev/zero >"{disk}/filler" && exec "$@"'
        async with swarm_node(settings, wrapper=[*UNSHARE, "sh", "-c", fill, "sh"]) as village:
            error = await village.wait("FileError")
            assert error["what"] == "FileError"
            assert "is_disk_full=True" in error["text"]
            await village.wait_state("disk-full")
            inside = Path(f"/proc/{village.process.pid}/root") / disk.relative_to("/")
            (inside / "filler").unlink()
            assert (await village.wait("completed"))["what"] == "completed"
            assert read_files(payload_folder(DataPaths(inside / "village"), torrent)) == files


async def test_a_read_only_store_is_told_and_tried_again(tmp_path: Path) -> None:
    wrapper: list[str] = []
    if os.geteuid() == 0:
        # Root may write anywhere unless this capability is taken away.
        wrapper = ["setpriv", "--bounding-set", "-dac_override,-dac_read_search"]
        if not can(*wrapper, "true"):
            pytest.skip("root can't be kept from writing here (setpriv)")
    files = some_files()
    torrent = torrent_of(files)
    write_payload(DataPaths(tmp_path / "county"), torrent, files)
    paths = DataPaths(tmp_path / "village")
    paths.store.mkdir(parents=True)
    paths.store.chmod(0o555)
    async with running(make_engine(tmp_path / "county")) as county:
        await county.add(torrent)
        await completed(county, torrent)
        settings = node_settings(tmp_path / "village", torrent, peers=[list(county.address)])
        async with swarm_node(settings, wrapper=wrapper) as village:
            error = await village.wait("FileError")
            assert error["what"] == "FileError"
            assert "is_disk_full=False" in error["text"]
            await village.wait_state("error")
            paths.store.chmod(0o755)
            assert (await village.wait("completed"))["what"] == "completed"
            assert read_files(payload_folder(paths, torrent)) == files


async def test_a_child_finishes_after_its_parent_was_killed_and_came_back(tmp_path: Path) -> None:
    files = some_files(1_500_000)
    torrent = torrent_of(files)
    write_payload(DataPaths(tmp_path / "county"), torrent, files)
    settings = node_settings(tmp_path / "county", torrent, tier=Tier.COUNTY)
    async with running(make_engine(tmp_path / "village", Tier.VILLAGE, down=128_000)) as village:
        await village.add(torrent)
        async with swarm_node(settings) as county:
            port = (await county.wait("ready"))["port"]
            village.connect_peers(torrent.infohash, [("127.0.74.1", port)])
            await until(lambda: village.statuses()[torrent.infohash].bytes_done > 300_000)
        settings["listen"] = f"127.0.74.1:{port}"
        async with swarm_node(settings) as county:
            assert (await county.wait("ready"))["what"] == "ready"
            await completed(village, torrent)
    assert read_files(payload_folder(DataPaths(tmp_path / "village"), torrent)) == files

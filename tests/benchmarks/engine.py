"""The memory of an idle village engine, and the speed of a download between two centres."""

from __future__ import annotations

import ipaddress
import os
import tempfile
import time
from pathlib import Path

import trio

from cuntong_daemon.paths import DataPaths
from cuntong_daemon.services import running
from cuntong_daemon.store.pieces import PieceSet
from cuntong_daemon.swarm.engine import SwarmEngine
from cuntong_daemon.swarm.events import Completed
from cuntong_protocol.bundle.torrent import Torrent
from cuntong_protocol.divisions import Tier
from tests.support.payloads import random_bytes, torrent_of, write_payload

TORRENTS = 200
IDLE_S = 20.0
DOWNLOAD_BYTES = 256 * 1024 * 1024


def _resident_bytes() -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    return 0


def _engine(root: Path, host: str, tier: Tier) -> SwarmEngine:
    return SwarmEngine(
        DataPaths(root),
        listen=f"{host}:0",
        networks=[ipaddress.ip_network("127.0.0.0/8")],
        down_bytes_s=64_000 if tier is Tier.VILLAGE else 0,
        up_bytes_s=64_000 if tier is Tier.VILLAGE else 0,
        tier=tier,
    )


def _small(root: Path, number: int) -> Torrent:
    files = {"files/a.bin": random_bytes(200_000, number), "index": b"%d" % number}
    torrent = torrent_of(files, name=f"bundle-{number}")
    write_payload(DataPaths(root), torrent, files)
    return torrent


async def _idle(root: Path) -> tuple[int, int, int, float]:
    """Resident bytes before, with an empty engine, with the torrents; CPU share when idle."""
    torrents = [_small(root, number) for number in range(TORRENTS)]
    before = _resident_bytes()
    async with running(_engine(root, "127.0.76.1", Tier.VILLAGE)) as engine:
        await trio.sleep(1)
        empty = _resident_bytes()
        while torrents:
            torrent = torrents.pop()
            await engine.add(torrent, have=PieceSet.full(torrent.piece_count))
        await trio.sleep(2)
        cpu, start = time.process_time(), time.perf_counter()
        await trio.sleep(IDLE_S)
        share = (time.process_time() - cpu) / (time.perf_counter() - start)
        return before, empty, _resident_bytes(), share


async def _download(root: Path) -> float:
    """Bytes per second, from the introduction to the durable, read-back payload."""
    files = {"files/a.bin": os.urandom(DOWNLOAD_BYTES), "index": b"i"}
    torrent = torrent_of(files, piece_length=256 * 1024)
    write_payload(DataPaths(root / "a"), torrent, files)
    del files
    async with (
        running(_engine(root / "a", "127.0.76.2", Tier.COUNTY)) as source,
        running(_engine(root / "b", "127.0.76.3", Tier.COUNTY)) as target,
    ):
        await source.add(torrent, have=PieceSet.full(torrent.piece_count))
        await target.add(torrent)
        start = time.perf_counter()
        target.connect_peers(torrent.infohash, [source.address])
        while await target.wait_event() != Completed(torrent.infohash):
            pass
        return DOWNLOAD_BYTES / (time.perf_counter() - start)


def run() -> list[tuple[str, str]]:
    """Lines for the table of `make bench`."""
    with tempfile.TemporaryDirectory() as folder:
        before, empty, full, share = trio.run(_idle, Path(folder) / "idle")
        speed = trio.run(_download, Path(folder) / "download")
    mib = 1024 * 1024
    return [
        ("village engine, empty: resident memory", f"{empty / mib:.1f} MiB"),
        (
            f"village engine, {TORRENTS} complete torrents: resident memory",
            f"{full / mib:.1f} MiB ({(full - empty) / TORRENTS / 1024:.0f} KiB a torrent,"
            f" {before / mib:.1f} MiB before the session)",
        ),
        (f"village engine, {TORRENTS} complete torrents: CPU when idle", f"{share:.2%} of a core"),
        ("centre to centre on loopback, TCP, to the disk", f"{speed / 1e6:.0f} MB/s"),
    ]


if __name__ == "__main__":
    for name, value in run():
        print(f"{name:70} {value}")

"""No packet leaves the configured ranges: the system calls of real processes are read.

`CUNTONG_STRACE_SECONDS=40` watches for as long as the acceptance demands.
"""

from __future__ import annotations

import ipaddress
import os
import re
from pathlib import Path

import pytest
import trio

from cuntong_daemon.paths import DataPaths
from cuntong_daemon.services import running
from cuntong_protocol.divisions import Tier
from tests.support.payloads import some_files, torrent_of, write_payload
from tests.support.processes import swarm_node
from tests.support.strace import why_no_strace

from .test_swarm_engine import completed, make_engine

SECONDS = float(os.environ.get("CUNTONG_STRACE_SECONDS", "8"))
NETWORK = ipaddress.ip_network("127.0.64.0/18")
_ADDRESS = re.compile(r'(?:inet_addr\("|inet_pton\(AF_INET6, ")([0-9a-f.:]+)"')


def addresses(log: Path, calls: str) -> set[str]:
    """The addresses in these system calls."""
    return {
        address
        for line in log.read_text().splitlines()
        if re.search(rf"\b(?:{calls})\(", line)
        for address in _ADDRESS.findall(line)
    }


@pytest.mark.parametrize("tier", [Tier.VILLAGE, Tier.COUNTY])
async def test_no_packet_leaves_the_configured_ranges(tmp_path: Path, tier: Tier) -> None:
    if reason := why_no_strace():
        pytest.skip(reason)
    files = some_files(max(1_000_000, int(SECONDS * 100_000)))
    torrent = torrent_of(files)
    write_payload(DataPaths(tmp_path / "county"), torrent, files)
    (tmp_path / "wanted.torrent").write_bytes(torrent.encode())
    async with running(make_engine(tmp_path / "county")) as county:
        await county.add(torrent)
        await completed(county, torrent)
        settings = {
            "tier": tier,
            "networks": [str(NETWORK)],
            "down": 64_000,
            "torrents": [str(tmp_path / "wanted.torrent")],
            # The stranger must not be dialled.
            "peers": [list(county.address), ["127.0.0.9", 6881], ["192.0.2.1", 6881]],
        }
        idle = settings | {"root": str(tmp_path / "idle"), "listen": "127.0.75.1:0", "torrents": []}
        busy = settings | {"root": str(tmp_path / "busy"), "listen": "127.0.75.2:0"}

        def traced(name: str) -> list[str]:
            calls = "connect,sendto,sendmsg,sendmmsg,bind"
            return ["strace", "-f", "-qq", "-e", f"trace={calls}", "-o", str(tmp_path / name)]

        async with (
            swarm_node(idle, wrapper=traced("idle.log")) as first,
            swarm_node(busy, wrapper=traced("busy.log")) as second,
        ):
            await first.wait("ready")
            await second.wait("ready")
            await trio.sleep(SECONDS)  # What is watched, not waited for.
            assert second.status["done"] > 0
    for name, own in (("idle.log", "127.0.75.1"), ("busy.log", "127.0.75.2")):
        log = tmp_path / name
        # On a shared link libtorrent and the relay talk to each other on loopback (SPEC 10.9).
        relayed = {"127.0.0.1"} if tier is Tier.VILLAGE else set()
        assert addresses(log, "bind") == {own} | relayed
        sent = addresses(log, "connect|sendto|sendmsg|sendmmsg") - relayed
        assert all(ipaddress.ip_address(address) in NETWORK for address in sent), sent
        if name == "busy.log":
            assert county.address[0] in sent
        else:
            assert sent == set()

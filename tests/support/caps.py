"""Run inside a network namespace of its own: a county and a village move bytes between two addresses of a private
range, while every packet towards the village is counted on the wire.

    python -m tests.support.caps FOLDER NETWORK CAP:SECONDS [CAP:SECONDS ...]

A village holds itself to each CAP (bytes/s) for so many seconds. The packets are printed as JSON: pairs of seconds
since the first byte and bytes of IP, and the moments when a cap was set.
"""

from __future__ import annotations

import ipaddress
import json
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import trio

from cuntong_daemon.paths import DataPaths
from cuntong_daemon.services import running
from cuntong_daemon.swarm.engine import SwarmEngine
from cuntong_protocol.divisions import Tier
from tests.integration.test_swarm_engine import until
from tests.support.payloads import some_files, torrent_of, write_payload

EVERY_PROTOCOL = 0x0003
OUTGOING = 4
UDP = 17


class Wire(threading.Thread):
    """Counts uTP's packets to one address, as the kernel hands them over."""

    def __init__(self, address: str) -> None:
        super().__init__(daemon=True)
        self.seen: list[tuple[float, int]] = []
        self._address = ipaddress.ip_address(address).packed
        self._socket = socket.socket(
            socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(EVERY_PROTOCOL)
        )
        self._socket.bind(("lo", EVERY_PROTOCOL))

    def run(self) -> None:
        while True:
            packet, source = self._socket.recvfrom(4096)
            if source[2] == OUTGOING:  # On this interface each packet leaves and comes in.
                continue
            if packet[0] >> 4 == 4:
                to, protocol = packet[16:20], packet[9]
            else:
                to, protocol = packet[24:40], packet[6]
            if to == self._address and protocol == UDP:
                self.seen.append((time.monotonic(), len(packet)))


def prepare(network: str) -> tuple[str, str]:
    """Two addresses of the range, on the loopback device."""
    addresses = ipaddress.ip_network(network)
    hosts = str(addresses[5]), str(addresses[6])
    for host in hosts:
        command = ["ip", "address", "add", f"{host}/{addresses.prefixlen}", "dev", "lo"]
        subprocess.run(command + ["nodad"] * (addresses.version == 6), check=True)
    subprocess.run(["ip", "link", "set", "lo", "mtu", "1500", "up"], check=True)
    return hosts


async def main(
    folder: Path, network: str, hosts: tuple[str, str], steps: list[tuple[int, float]]
) -> None:
    files = some_files(12_000_000)
    torrent = torrent_of(files)
    write_payload(DataPaths(folder / Tier.COUNTY.name), torrent, files)
    wire = Wire(hosts[1])
    wire.start()

    def engine(host: str, tier: Tier, down: int) -> SwarmEngine:
        return SwarmEngine(
            DataPaths(folder / tier.name),
            listen=f"[{host}]:0" if ":" in host else f"{host}:0",
            networks=[ipaddress.ip_network(network)],
            down_bytes_s=down,
            up_bytes_s=0,
            tier=tier,
        )

    moments = []
    async with (
        running(engine(hosts[0], Tier.COUNTY, 0)) as county,
        running(engine(hosts[1], Tier.VILLAGE, steps[0][0])) as village,
    ):
        await county.add(torrent)
        await until(lambda: county.statuses()[torrent.infohash].progress == 1)
        await village.add(torrent)
        village.connect_peers(torrent.infohash, [county.address])
        await until(lambda: bool(wire.seen))
        for cap, seconds in steps:
            village.set_limits(down_bytes_s=cap, up_bytes_s=0)
            moments.append(time.monotonic())
            await trio.sleep(seconds)
    start = wire.seen[0][0]
    packets = [(at - start, size) for at, size in wire.seen]
    print(json.dumps({"packets": packets, "moments": [at - start for at in moments]}))


if __name__ == "__main__":
    trio.run(
        main,
        Path(sys.argv[1]),
        sys.argv[2],
        prepare(sys.argv[2]),
        [(int(step.split(":")[0]), float(step.split(":")[1])) for step in sys.argv[3:]],
    )

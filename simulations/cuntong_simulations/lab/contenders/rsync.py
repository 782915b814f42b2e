"""rsync: from the centre to each place, or from tier to tier."""

from __future__ import annotations

import shlex
from pathlib import Path

from cuntong_simulations.lab.wires import Wires

from .base import Processes

PORT = 8730
BANDWIDTH_SHARE = 0.8


class RsyncStar(Processes):
    """Every place fetches from the source at once."""

    name = "rsync, star"
    programs = ("rsync",)
    options: tuple[str, ...] = ()

    def start(self, wires: Wires) -> None:
        super().start(wires)
        for node in self.topology.nodes:
            config = self.folder / node.code / "rsyncd.conf"
            config.write_text(
                "use chroot = no\nmax connections = 0\nreverse lookup = no\n"
                f"[files]\npath = {self.files(node.code)}\n"
            )
            self.spawn(
                node.code, "rsync", "--daemon", "--no-detach", f"--config={config}",
                f"--address={node.address}", f"--port={PORT}", is_main=False,
            )  # fmt: skip

    def giver(self, code: str) -> str:
        """From whom a place fetches."""
        return self.topology.source

    def begin(self, content: Path) -> None:
        source = self.topology.source
        self.files(source).rmdir()
        self.files(source).symlink_to(content)
        (self.folder / source / "done").touch()
        for node in self.topology.receivers:
            giver = self.giver(node.code)
            fetch = ["rsync", "-a", *self.options, *self.limit(node.code),
                     f"rsync://{self.address(giver)}:{PORT}/files/", f"{self.files(node.code)}/"]  # fmt: skip
            waiting = shlex.quote(str(self.folder / giver / "done"))
            done = shlex.quote(str(self.folder / node.code / "done"))
            # A child begins when the one above it has everything.
            self.spawn(
                node.code,
                "sh",
                "-c",
                f"until [ -e {waiting} ]; do sleep 0.1; done; {shlex.join(fetch)} && touch {done}",
            )

    def has_begun(self, code: str) -> bool:
        return (self.folder / self.giver(code) / "done").exists()

    def limit(self, code: str) -> list[str]:
        """Options for one place."""
        return []


class RsyncTree(RsyncStar):
    """Every place fetches from its parent, when that has everything."""

    name = "rsync, tree"

    def giver(self, code: str) -> str:
        return self.topology.node(code).parent


class RsyncCompressed(RsyncTree):
    """The same, compressed on the link."""

    name = "rsync -z, tree"
    options = ("-z",)


class RsyncLimited(RsyncTree):
    """The same, held below the link's rate."""

    name = "rsync --bwlimit 80 %, tree"

    def limit(self, code: str) -> list[str]:
        node = self.topology.node(code)
        if node not in self.topology.last_tier:
            return []
        # rsync counts in KiB/s.
        return [f"--bwlimit={node.link.down_kbit_s * 125 * BANDWIDTH_SHARE / 1024:.0f}"]


class Stream(Processes):
    """One TCP connection of iperf3 to each place: what the link gives to TCP, and no files."""

    name = "iperf3, star"
    programs = ("iperf3",)

    def start(self, wires: Wires) -> None:
        super().start(wires)
        for node in self.topology.receivers:
            self.spawn(node.code, "iperf3", "-s", is_main=False)

    def begin(self, content: Path) -> None:
        total = sum(path.stat().st_size for path in content.rglob("*") if path.is_file())
        source = self.topology.source
        # iperf3 measures on connections of its own, one client a place.
        self._clients = {
            node.code: self.spawn(
                source, "iperf3", "-c", node.address, "-n", str(total), is_main=False
            )
            for node in self.topology.receivers
        }

    def is_done(self, code: str) -> bool:
        return self._clients[code].poll() == 0

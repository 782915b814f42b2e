"""BitTorrent clients: each place has one, all get the torrent at the same moment."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import libtorrent as lt

from cuntong_simulations.lab.wires import Wires

from . import tracker
from .base import Processes

TRACKER_PORT = 6969
PIECE_BYTES = 64 * 1024


class _Swarm(Processes):
    """A tracker at the source, and a torrent of the payload."""

    uses_tracker = True
    is_private = False

    def start(self, wires: Wires) -> None:
        super().start(wires)
        if self.uses_tracker:
            source = self.topology.source
            self.spawn(
                source, sys.executable, "-m", tracker.__name__, self.address(source),
                str(TRACKER_PORT), is_main=False,
            )  # fmt: skip

    def received(self, code: str) -> Path:
        return self.files(code) / self._content.name

    def make_torrent(self, content: Path) -> Path:
        """A v1 torrent, which all clients can read, and the payload at the source."""
        files = lt.list_files(str(content))
        made = lt.create_torrent(files, PIECE_BYTES, lt.create_torrent.v1_only)
        if self.uses_tracker:
            made.add_tracker(f"http://{self.address(self.topology.source)}:{TRACKER_PORT}/announce")
        made.set_priv(self.is_private)
        lt.set_piece_hashes(made, str(content.parent))
        torrent = self.folder / "payload.torrent"
        torrent.write_bytes(lt.bencode(made.generate()))
        (self.files(self.topology.source) / content.name).symlink_to(content)
        return torrent


class Transmission(_Swarm):
    """transmission-daemon, which picks the torrent up from a folder that it watches."""

    name = "Transmission, tracker"
    programs = ("transmission-daemon",)

    def start(self, wires: Wires) -> None:
        super().start(wires)
        for node in self.topology.nodes:
            home = self.folder / node.code / "home"
            watched = self.folder / node.code / "watched"
            home.mkdir()
            watched.mkdir()
            settings: dict[str, Any] = {
                "bind-address-ipv4": node.address,
                "dht-enabled": False,
                "lpd-enabled": False,
                "utp-enabled": True,
                "port-forwarding-enabled": False,
                "download-dir": str(self.files(node.code)),
                "watch-dir": str(watched),
                "watch-dir-enabled": True,
                "rpc-enabled": False,
            }
            (home / "settings.json").write_text(json.dumps(settings))
            self.spawn(node.code, "transmission-daemon", "--foreground", "--config-dir", home)

    def begin(self, content: Path) -> None:
        torrent = self.make_torrent(content).read_bytes()
        for node in self.topology.nodes:
            watched = self.folder / node.code / "watched"
            (watched / "payload.new").write_bytes(torrent)
            (watched / "payload.new").rename(watched / "payload.torrent")


class Aria2(_Swarm):
    """aria2c, started with the torrent."""

    name = "aria2, tracker"
    programs = ("aria2c",)

    def begin(self, content: Path) -> None:
        torrent = self.make_torrent(content)
        for node in self.topology.nodes:
            self.spawn(
                node.code, "aria2c", "--enable-dht=false", "--bt-enable-lpd=false",
                "--seed-ratio=0.0", "--listen-port=6881", f"--dir={self.files(node.code)}",
                "--file-allocation=none", "--check-integrity=true", "--summary-interval=0",
                torrent,
            )  # fmt: skip


class PlainTracker(_Swarm):
    """libtorrent with its defaults, told of everybody."""

    name = "libtorrent defaults, tracker"

    def begin(self, content: Path) -> None:
        torrent = self.make_torrent(content)
        for node in self.topology.nodes:
            self.spawn(
                node.code, sys.executable, "-m", "cuntong_simulations.lab.contenders.plain",
                torrent, self.files(node.code), node.address,
                *(self.address(code) for code in self.dialled(node.code)),
            )  # fmt: skip

    def dialled(self, code: str) -> list[str]:
        """Whom a place is told to dial."""
        return []


class PlainNear(PlainTracker):
    """libtorrent with its defaults; each place dials only its parent and its siblings.

    The torrent is private: otherwise peers tell each other of all the others (BEP 11, 27).
    """

    name = "libtorrent defaults, parent and siblings"
    uses_tracker = False
    is_private = True

    def dialled(self, code: str) -> list[str]:
        children = {child.code for child in self.topology.children(code)}
        return [other for other in self.near(code) if other not in children]

"""Syncthing: a folder shared with parents, children and siblings."""

from __future__ import annotations

import shutil
import subprocess
import time
from pathlib import Path
from xml.etree import ElementTree as ET

from cuntong_simulations.lab.topology import Topology
from cuntong_simulations.lab.wires import Wires

from .base import Processes

PORT = 22000
CONNECT_S = 20.0
"""Until all have met; a device that isn't there yet is dialled again after five seconds."""
OPTIONS = {
    "globalAnnounceEnabled": "false",
    "localAnnounceEnabled": "false",
    "relaysEnabled": "false",
    "natEnabled": "false",
    "crashReportingEnabled": "false",
    "urAccepted": "-1",
    "autoUpgradeIntervalH": "0",
    "startBrowser": "false",
    "stunServer": "",
    "limitBandwidthInLan": "false",
    "reconnectionIntervalS": "5",
}


class Syncthing(Processes):
    """Every place holds one folder; what the source puts into its own appears in all."""

    name = "Syncthing"
    programs = ("syncthing",)

    def prepare(self, topology: Topology, folder: Path, seed: int) -> None:
        super().prepare(topology, folder, seed)
        ids = {node.code: self._generate(node.code) for node in topology.nodes}
        for node in topology.nodes:
            self._configure(node.code, ids)

    def start(self, wires: Wires) -> None:
        super().start(wires)
        for node in self.topology.nodes:
            self.spawn(
                node.code, "syncthing", "serve", "--home", self.folder / node.code / "home",
                "--no-browser", "--no-restart", environment={"GOMAXPROCS": "1"},
            )  # fmt: skip
        time.sleep(CONNECT_S)

    def begin(self, content: Path) -> None:
        target = self.files(self.topology.source)
        for path in content.iterdir():
            if path.is_dir():
                shutil.copytree(path, target / path.name)
            else:
                shutil.copyfile(path, target / path.name)

    def _generate(self, code: str) -> str:
        home = self.folder / code / "home"
        common = {"check": True, "capture_output": True, "text": True}
        subprocess.run(
            ["syncthing", "generate", "--home", str(home), "--no-default-folder", "--skip-port-probing"],
            **common,
        )  # type: ignore[call-overload]  # fmt: skip
        done = subprocess.run(["syncthing", "--device-id", "--home", str(home)], **common)  # type: ignore[call-overload]
        (self.files(code) / ".stfolder").mkdir()
        return str(done.stdout).strip()

    def _configure(self, code: str, ids: dict[str, str]) -> None:
        path = self.folder / code / "home" / "config.xml"
        tree = ET.parse(path)  # noqa: S314 - written by the program we just ran.
        root = tree.getroot()
        for device in root.findall("device"):
            root.remove(device)
        folder = ET.SubElement(
            root, "folder", id="payload", label="payload", path=str(self.files(code)),
            type="sendreceive", rescanIntervalS="3600", fsWatcherEnabled="true", fsWatcherDelayS="1",
        )  # fmt: skip
        for other in (code, *self.near(code)):
            ET.SubElement(folder, "device", id=ids[other])
            device = ET.SubElement(root, "device", id=ids[other], name=other)
            address = f"tcp://{self.address(other)}:{PORT}" if other != code else "dynamic"
            ET.SubElement(device, "address").text = address
        options = root.find("options")
        assert options is not None  # noqa: S101 - it was just generated.
        for name, value in {
            **OPTIONS,
            "listenAddress": f"tcp://{self.address(code)}:{PORT}",
        }.items():
            for old in options.findall(name):
                options.remove(old)
            ET.SubElement(options, name).text = value
        tree.write(path)

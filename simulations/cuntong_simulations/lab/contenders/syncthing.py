"""Syncthing: a folder shared with parents, children and siblings."""

from __future__ import annotations

import http.client
import json
import shutil
import subprocess
import time
from functools import partial
from pathlib import Path
from xml.etree import ElementTree as ET

from cuntong_protocol.texts import N_
from cuntong_simulations.lab.errors import LabError
from cuntong_simulations.lab.namespaces import entered
from cuntong_simulations.lab.topology import Topology
from cuntong_simulations.lab.waiting import poll
from cuntong_simulations.lab.wires import Wires

from .base import Processes

PORT = 22000
API = "127.0.0.1", 8384
"""Where Syncthing answers questions unless told otherwise, in each namespace."""
ANSWER_S = 5.0
CONNECT_S = 120.0
"""Until all have met; a device that isn't there yet is dialled again after five seconds."""
POLL_S = 0.5
"""How often a place is asked whom it has met."""
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
        self._ids = {node.code: self._generate(node.code) for node in topology.nodes}
        self._api_keys = {node.code: self._configure(node.code) for node in topology.nodes}

    def start(self, wires: Wires) -> None:
        """Start all, and wait until neighbours have met.

        Raises:
            LabError: `lab.not-met`.
        """
        super().start(wires)
        for node in self.topology.nodes:
            self.spawn(
                node.code, "syncthing", "serve", "--home", self.folder / node.code / "home",
                "--no-browser", "--no-restart", environment={"GOMAXPROCS": "1"},
            )  # fmt: skip
        deadline = time.monotonic() + CONNECT_S
        for node in self.topology.nodes:
            poll(
                partial(self._has_met_all, node.code),
                every_s=POLL_S,
                deadline=deadline,
                failure=partial(_not_met, node.code),
            )

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

    def _has_met_all(self, code: str) -> bool:
        """Whether a place is connected to each that it is to exchange with."""
        asked = http.client.HTTPConnection(*API, timeout=ANSWER_S)
        try:
            with entered(self.wires.namespaces[code].handle):
                asked.connect()
            headers = {"X-API-Key": self._api_keys[code]}
            asked.request("GET", "/rest/system/connections", headers=headers)
            met = json.load(asked.getresponse())["connections"]
        except (OSError, http.client.HTTPException, ValueError, KeyError):
            return False  # It is still starting.
        finally:
            asked.close()
        return all(met.get(self._ids[other], {}).get("connected") for other in self.near(code))

    def _configure(self, code: str) -> str:
        """Write whom a place exchanges with; returns the key to ask it."""
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
            ET.SubElement(folder, "device", id=self._ids[other])
            device = ET.SubElement(root, "device", id=self._ids[other], name=other)
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
        return root.findtext("gui/apikey", "")


def _not_met(code: str) -> LabError:
    return LabError(
        "lab.not-met",
        N_("Syncthing at {place} hasn't met all its neighbours within {seconds} s."),
        place=code,
        seconds=round(CONNECT_S),
    )

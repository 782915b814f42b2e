"""Places in network namespaces of their own: a satellite that reaches those with a dish, and cables between some."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

from cuntong_tools.demo.network import CONTROL_PORT, Network, Place
from tests.support.world import ENVIRONMENT, World

NATION, PROVINCE, COUNTY = "000000000000", "440000000000", "441900000000"
TOWNSHIP = "441900003000"
Settings = dict[str, dict[str, str | int | bool]]
RATE_KBIT_S = 20_000
SATELLITE, CABLE = "sat0", "lan0"
UPLINK_ADDRESS = "10.200.0.1"
FAST_CABLE: dict[str, str | int | bool] = {
    "shared": False,
    "link_down_kbit_s": 100_000,
    "link_up_kbit_s": 100_000,
}


def can_have_namespaces() -> str:
    """Why this machine has no namespaces for a test; empty when it has."""
    if os.geteuid() != 0:
        return "needs root, to make network namespaces"
    if shutil.which("ip") is None:
        return "needs ip (iproute2)"
    probe = f"cuntong-probe-{os.getpid()}"
    if subprocess.run(["ip", "netns", "add", probe], capture_output=True, check=False).returncode:
        return "this machine refuses network namespaces"
    subprocess.run(["ip", "netns", "delete", probe], check=False)
    return ""


class Sky(World):
    """A network of real daemons, each in a namespace; it begins with nation, province, county and township.

    Only the nation sends. Places are enrolled by the real commands, those with a dish as receive-only.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.net = Network(folder, ENVIRONMENT, network="10.0.0.0/8")
        self._tag = f"c{os.getpid()}"
        self._namespaces: list[str] = []
        self._hub = self._namespace("sky")
        for bridge in (SATELLITE, CABLE):
            # Without snooping multicast reaches every port, as a satellite does.
            self._ip(
                "-n", self._hub, "link", "add", bridge, "type", "bridge", "mcast_snooping", "0"
            )
            self._ip("-n", self._hub, "link", "set", bridge, "up")
        cast: dict[str, str | int | bool] = {
            "interface": SATELLITE,
            "source": UPLINK_ADDRESS,
            "rate_kbit_s": RATE_KBIT_S,
        }
        self.nation = self._place(
            NATION, "国家中心", None, is_authority=True, settings={"cast": cast}
        )
        self.province = self._place(PROVINCE, "广东省", self.nation, is_authority=True)
        self.county = self._place(COUNTY, "东莞市", self.province, is_authority=True)
        self.township = self._place(
            TOWNSHIP, "石排镇", self.county, settings={"bandwidth": FAST_CABLE}
        )

    def close(self) -> None:
        """Stop what runs, and remove the namespaces."""
        self.stop()
        for namespace in self._namespaces:
            subprocess.run(["ip", "netns", "delete", namespace], check=False)

    def found(self) -> None:
        """Authorities and their nodes; the nation sends."""
        authorities = (self.nation, self.province, self.county)
        for place in authorities:
            self.net.found(place)
        for place in authorities:
            self.net.enrol(place)

    def village(self, code: str, *, dish: bool) -> Place:
        """Enrol a village: with a dish and no way back, or with a cable to the township."""
        settings: Settings = {"bandwidth": FAST_CABLE}
        if dish:
            settings |= {"dish": {"interface": SATELLITE, "source": UPLINK_ADDRESS}}
        place = self._place(
            code, f"村{code[-3:]}", self.township, receives_only=dish, settings=settings
        )
        self.net.enrol(place)
        return place

    def lay_cable(self, place: Place) -> None:
        """Let a place that had no way back dial the township from its next start on."""
        config = place.paths.config
        line = f'\n[[network.parents]]\ncode = "{TOWNSHIP}"\naddress = "{self.township.endpoint(CONTROL_PORT)}"\n'
        config.write_text(
            re.sub(
                r"(?m)^(\[network\]\n(?:(?!\[).*\n)*)", rf"\1{line}", config.read_text(), count=1
            )
        )

    def namespace_of(self, place: Place) -> str:
        return place.prefix[-1]

    def _place(
        self,
        code: str,
        name: str,
        parent: Place | None,
        *,
        is_authority: bool = False,
        receives_only: bool = False,
        settings: Settings | None = None,
    ) -> Place:
        number = len(self.net.places) + 1
        namespace = self._namespace(str(number))
        address = f"10.77.0.{number}"
        for device, own in ((SATELLITE, f"10.200.0.{number}"), (CABLE, address)):
            peer = f"{device[:3]}{number}"
            self._ip("link", "add", device, "netns", namespace, "type", "veth", "peer", "name", peer,
                     "netns", self._hub)  # fmt: skip
            self._ip("-n", self._hub, "link", "set", peer, "master", device, "up")
            self._ip("-n", namespace, "address", "add", f"{own}/24", "dev", device)
            self._ip("-n", namespace, "link", "set", device, "up")
        self._ip("-n", namespace, "link", "set", "lo", "up")
        return self.net.add(
            code,
            name,
            parent,
            is_authority=is_authority,
            address=address,
            prefix=("ip", "netns", "exec", namespace),
            receives_only=receives_only,
            settings=settings,
        )

    def _namespace(self, name: str) -> str:
        namespace = f"{self._tag}-{name}"
        self._ip("netns", "add", namespace)
        self._namespaces.append(namespace)
        return namespace

    def _ip(self, *arguments: str) -> None:
        subprocess.run(["ip", *arguments], check=True, capture_output=True)

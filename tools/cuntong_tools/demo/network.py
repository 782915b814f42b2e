"""A small network of real daemons on this machine, set up with the real commands.

Each place has its own loopback address and data directory. The demonstration and the end-to-end tests use
it; nothing in it knows more than an administrator at a keyboard does.
"""

from __future__ import annotations

import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from cuntong_daemon.control.client import ControlClient
from cuntong_daemon.control.messages import Status
from cuntong_daemon.control.sockets import ControlError
from cuntong_daemon.paths import DataPaths
from cuntong_protocol.divisions import Division
from cuntong_protocol.errors import CuntongError, Fault
from cuntong_protocol.texts import N_

PASSPHRASE = "demonstration only"  # noqa: S105 - of keys that are thrown away with the network.
CONTROL_PORT = 7440
SWARM_PORT = 7441
START_S = 30.0
STOP_S = 30.0
COMMAND_S = 300.0
POLL_S = 0.05
MAX_PASSPHRASES = 12
"""Lines put into the pipe for each command; more than any asks for."""

Settings = Mapping[str, Mapping[str, int | float | bool | str | list[str]]]


class DemoError(CuntongError):
    """The demonstration can't go on."""

    fault = Fault.SYSTEM


@dataclass(slots=True)
class Place:
    """One node of the network.

    Attributes:
        is_authority: It signs and takes nodes in.
        settings: Tables of its `config.toml`, beside what enrolment writes.
        prefix: Words before the command that starts its daemon, for example to enter a namespace.
        receives_only: It is enrolled without parents.
    """

    code: Division
    name: str
    address: str
    folder: Path
    parent: Place | None = None
    is_authority: bool = False
    settings: Settings = field(default_factory=dict)
    prefix: Sequence[str] = ()
    receives_only: bool = False
    process: subprocess.Popen[bytes] | None = field(default=None, repr=False)

    @property
    def paths(self) -> DataPaths:
        return DataPaths(self.folder / "data")

    def endpoint(self, port: int) -> str:
        """`host:port`, as configuration files have it."""
        return f"[{self.address}]:{port}" if ":" in self.address else f"{self.address}:{port}"

    @property
    def sticks(self) -> list[Path]:
        """The memory sticks with this authority's keys."""
        return [self.folder / "sticks" / str(number) for number in (1, 2, 3)]

    @property
    def log(self) -> Path:
        return self.folder / "cuntongd.log"


class Network:
    """Builds, runs and asks the places.

    Args:
        folder: Everything lies below; made if it isn't there.
        environment: For the commands and daemons, beside the process's own.
        network: The range that all addresses lie in.
        vpn_shape: `hub` or `mesh`.
    """

    def __init__(
        self,
        folder: Path,
        environment: Mapping[str, str] | None = None,
        *,
        network: str = "127.0.0.0/8",
        vpn_shape: str = "hub",
    ) -> None:
        self.folder = folder
        self.places: list[Place] = []
        self._environment = {**os.environ, **(environment or {})}
        self._network = network
        self._vpn_shape = vpn_shape
        self._subnet = ""

    def add(
        self,
        code: str,
        name: str,
        parent: Place | None = None,
        *,
        is_authority: bool = False,
        address: str | None = None,
        settings: Settings | None = None,
        prefix: Sequence[str] = (),
        receives_only: bool = False,
    ) -> Place:
        """Name a place; nothing happens yet. Without an address it gets one of this machine's own."""
        if address is None:
            self._subnet = self._subnet or _free_subnet()
            address = f"{self._subnet}.{len(self.places) + 1}"
        place = Place(
            Division(code),
            name,
            address,
            self.folder / code,
            parent,
            is_authority,
            settings or {},
            prefix,
            receives_only,
        )
        self.places.append(place)
        return place

    # Setting up, as administrators do it.

    def found(self, place: Place) -> None:
        """Make the authority of a place and have the one above endorse it."""
        place.folder.mkdir(parents=True, exist_ok=True)
        place.paths.root.mkdir(exist_ok=True)
        for stick in place.sticks:
            stick.mkdir(parents=True, exist_ok=True)
        request = place.folder / "authority.request"
        self.run(place, "authority", "init", place.code, "--name", place.name,
                 *_keys(place), "--output", str(request), "--yes")  # fmt: skip
        above = self._authority_above(place)
        if above is not None:
            response = place.folder / "authority.response"
            self.run(above, "authority", "endorse", str(request), *_keys(above),
                     "--output", str(response), "--yes", *self._fingerprint(request))  # fmt: skip
            self.run(place, "authority", "install", str(response), "--yes")

    def enrol(self, place: Place) -> None:
        """Request, acceptance and enrolment of a node."""
        place.folder.mkdir(parents=True, exist_ok=True)
        place.paths.root.mkdir(exist_ok=True)
        authority = self._authority_above(place) or place
        self.run(place, "node", "request", place.code, "--site", place.name, "--contact",
                 "demo", "--equipment", "demo", "--link", "demo",
                 "--output", str(place.folder))  # fmt: skip
        parents: list[str] = []
        above = place.parent
        if place.receives_only:
            parents, above = ["--receive-only"], None
        while above is not None:
            parents += ["--address", f"{above.code}={above.endpoint(CONTROL_PORT)}"]
            above = above.parent
        self.run(authority, "node", "accept", str(place.folder / f"{place.code}.request"),
                 *_keys(authority), *parents, "--name", place.name, "--network", self._network,
                 "--vpn-shape", self._vpn_shape, "--output", str(place.folder), "--yes")  # fmt: skip
        self.run(place, "node", "enrol", str(place.folder / f"{place.code}.pack"),
                 "--listen", place.endpoint(CONTROL_PORT),
                 "--swarm", place.endpoint(SWARM_PORT))  # fmt: skip
        lines = []
        for section, values in place.settings.items():
            # JSON's numbers, strings, booleans and lists are valid TOML.
            pairs = (f"{key} = {msgspec.json.encode(it).decode()}" for key, it in values.items())
            lines += [f"[{section}]", *pairs, ""]
        place.paths.config.write_text("\n".join([*lines, place.paths.config.read_text()]))

    def _authority_above(self, place: Place) -> Place | None:
        above = place.parent
        while above is not None and not above.is_authority:
            above = above.parent
        return above

    def _fingerprint(self, request: Path) -> list[str]:
        from cuntong_daemon.authority.endorsement import read_request

        return ["--fingerprint", read_request(request).fingerprint]

    # Commands.

    def run(self, place: Place, *arguments: str, check: bool = True) -> str:
        """Run one `cuntong` command at a place; returns what it printed.

        Raises:
            DemoError: `demo.command-failed`, with its last words.
        """
        done = self.try_run(place, *arguments)
        if check and done.returncode != 0:
            words = (done.stderr.strip() or done.stdout.strip()).splitlines()
            raise DemoError(
                "demo.command-failed",
                N_("cuntong {command} failed at {place}: {reason}"),
                command=" ".join(arguments[:2]),
                place=place.name,
                reason=words[-1] if words else str(done.returncode),
            )
        return done.stdout

    def try_run(self, place: Place, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run one `cuntong` command at a place, whatever comes of it."""
        return subprocess.run(
            [sys.executable, "-m", "cuntong_tools", *arguments, "--data", str(place.paths.root)]
            + (["--passphrase-fd", "0"] if _asks_for_keys(arguments) else []),
            input=f"{PASSPHRASE}\n" * MAX_PASSPHRASES,
            capture_output=True,
            text=True,
            timeout=COMMAND_S,
            check=False,
            env=self._environment,
        )

    # Daemons.

    def start(self, *places: Place) -> None:
        """Start daemons and wait until each answers.

        Raises:
            DemoError: `demo.not-started`, with the last line of its log.
        """
        for place in places:
            command = [sys.executable, "-m", "cuntong_daemon", "--data", str(place.paths.root)]
            with place.log.open("ab") as log:
                place.process = subprocess.Popen(
                    [*place.prefix, *command],
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    env=self._environment,
                    start_new_session=True,
                )
        deadline = time.monotonic() + START_S
        for place in places:
            while True:
                try:
                    self.ask(place, "traffic")
                    break
                except CuntongError:
                    is_gone = place.process is None or place.process.poll() is not None
                    if is_gone or time.monotonic() > deadline:
                        raise _not_started(place) from None
                    time.sleep(POLL_S)

    def stop(self, *places: Place) -> None:
        """SIGTERM, and wait."""
        running = [place for place in places if place.process is not None]
        for place in running:
            assert place.process is not None  # noqa: S101 - just filtered.
            place.process.terminate()
        for place in running:
            assert place.process is not None  # noqa: S101 - just filtered.
            try:
                place.process.wait(STOP_S)
            except subprocess.TimeoutExpired:
                place.process.kill()
                place.process.wait()
            place.process = None

    def kill(self, place: Place) -> None:
        """kill -9."""
        if place.process is not None:
            place.process.send_signal(signal.SIGKILL)
            place.process.wait()
            place.process = None

    # Questions.

    def ask(self, place: Place, method: str, params: dict[str, Any] | None = None) -> Any:  # noqa: ANN401 - JSON.
        """Ask a daemon over its local socket."""
        with ControlClient(place.paths.socket) as client:
            return client.call(method, params)

    def status(self, place: Place) -> Status:
        return msgspec.convert(self.ask(place, "status"), Status)

    def progress(self, place: Place, bundle: str, revision: int) -> float:
        """How much of a bundle a place has, 0 to 1; 1 only when its files are in the library."""
        try:
            status = self.status(place)
        except (ControlError, CuntongError):
            return 0.0
        for found in status.bundles:
            if found.id == bundle and found.revision == revision:
                return 1.0 if found.state == "complete" else min(found.progress, 0.999)
        return 0.0


def _keys(place: Place) -> list[str]:
    return [word for stick in place.sticks for word in ("--keys", str(stick))]


def _asks_for_keys(arguments: Sequence[str]) -> bool:
    return "--keys" in arguments


def _free_subnet() -> str:
    """The first three numbers of loopback addresses where nobody listens."""
    while True:
        subnet = f"127.{20 + secrets.randbelow(200)}.{1 + secrets.randbelow(250)}"
        with socket.socket() as probe:
            try:
                probe.bind((f"{subnet}.1", CONTROL_PORT))
            except OSError:
                continue
            return subnet


def _not_started(place: Place) -> DemoError:
    try:
        lines = place.log.read_text(errors="replace").strip().splitlines()
    except OSError:
        lines = []
    return DemoError(
        "demo.not-started",
        N_("The daemon of {place} didn't start: {reason}"),
        place=place.name,
        reason=lines[-1] if lines else "?",
    )

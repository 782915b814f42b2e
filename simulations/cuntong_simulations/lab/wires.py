"""A topology made real: a namespace for each place, and the emulator between them."""

from __future__ import annotations

import ipaddress
import subprocess
import sys
import threading
from typing import Literal

import msgspec

from cuntong_protocol.texts import N_

from .emulator import Change, Command, DirectionPlan, End, Plan, Restart, Sample
from .errors import LabError
from .namespaces import Namespace
from .topology import Topology

Direction = Literal["up", "down"]
START_S = 30.0
"""A Python that starts takes a fraction of a second, on a busy machine a few."""
STOP_S = 10.0


class Wires:
    """The namespaces and the emulator of a topology, until `close`.

    Attributes:
        namespaces: By division code.
        samples: What the emulator has told so far, one when it began and one a second.
    """

    def __init__(self, topology: Topology) -> None:
        self.topology = topology
        self.samples: list[Sample] = []
        self._has_told, self._has_ended = threading.Event(), threading.Event()
        self.namespaces = {node.code: Namespace(node.address) for node in topology.nodes}
        plan = make_plan(topology, {code: found.device for code, found in self.namespaces.items()})
        self._process = subprocess.Popen(
            [sys.executable, "-m", "cuntong_simulations.lab.emulator"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            pass_fds=[found.device for found in self.namespaces.values()],
            start_new_session=True,  # Ctrl-C is for this process, which ends it.
        )
        self._say(plan)
        self._listener = threading.Thread(target=self._listen, daemon=True)
        self._listener.start()

    def change(
        self,
        code: str,
        direction: Direction,
        *,
        rate_kbit_s: float | None = None,
        loss: float | None = None,
        is_down: bool | None = None,
    ) -> None:
        """Change one direction of a place's link from now on."""
        self._say(
            Change(
                index=self.index(code, direction),
                rate_bit_s=None if rate_kbit_s is None else rate_kbit_s * 1000,
                loss=loss,
                is_down=is_down,
            )
        )

    def restart(self) -> None:
        """Count delays and lateness anew from now on."""
        self._say(Restart())

    def index(self, code: str, direction: Direction) -> int:
        """Where a direction stands in a sample."""
        return direction_index(self.topology, code, direction)

    def wait_until_carrying(self) -> None:
        """Wait until the emulator carries packets.

        Raises:
            LabError: `lab.emulator-failed`.
        """
        if not self._has_told.wait(START_S) or not self.samples:
            raise _failed()

    def wait(self, seconds: float) -> None:
        """Let time pass while the emulator works.

        Raises:
            LabError: `lab.emulator-failed`, as soon as it ends.
        """
        if self._has_ended.wait(seconds):
            raise _failed()

    def kernel_drops(self) -> dict[str, int]:
        """By division code: packets that the emulator didn't fetch in time."""
        return {code: found.kernel_drops() for code, found in self.namespaces.items()}

    def stop(self) -> Sample:
        """End the emulator; returns its last sample, the only one with histograms.

        Raises:
            LabError: `lab.emulator-failed`.
        """
        assert self._process.stdin is not None  # noqa: S101 - it is a pipe.
        try:
            self._process.stdin.close()
            self._process.wait(STOP_S)
            self._listener.join(STOP_S)
        except (OSError, subprocess.TimeoutExpired):
            self._process.kill()
            self._process.wait()
        if not self.samples or self.samples[-1].waits is None:
            raise _failed()
        return self.samples[-1]

    def close(self) -> None:
        """Let everything go, whatever state it is in."""
        self._process.kill()
        self._process.wait()
        for found in self.namespaces.values():
            found.close()

    def _say(self, message: Plan | Command) -> None:
        assert self._process.stdin is not None  # noqa: S101 - it is a pipe.
        try:
            self._process.stdin.write(msgspec.json.encode(message) + b"\n")
            self._process.stdin.flush()
        except OSError:
            raise _failed() from None

    def _listen(self) -> None:
        assert self._process.stdout is not None  # noqa: S101 - it is a pipe.
        decoder = msgspec.json.Decoder(Sample)
        try:
            for line in self._process.stdout:
                self.samples.append(decoder.decode(line))
                self._has_told.set()
        finally:
            self._has_ended.set()
            self._has_told.set()


def direction_index(topology: Topology, code: str, direction: Direction) -> int:
    """Directions are numbered place by place: up, down."""
    at = next(at for at, node in enumerate(topology.nodes) if node.code == code)
    return 2 * at + (direction == "down")


def make_plan(topology: Topology, devices: dict[str, int]) -> Plan:
    """What the emulator has to know about a topology; `devices`: descriptors by division code."""
    packed = {node.code: ipaddress.ip_address(node.address).packed.hex() for node in topology.nodes}
    directions = [
        DirectionPlan(
            name=f"{node.code} {direction}",
            rate_bit_s=rate * 1000,
            delay_s=node.link.delay_ms / 1000,
            queue_s=node.link.queue_ms / 1000,
            loss=node.link.loss,
        )
        for node in topology.nodes
        for direction, rate in (("up", node.link.up_kbit_s), ("down", node.link.down_kbit_s))
    ]
    ends = [
        End(
            device=devices[node.code],
            address=packed[node.code],
            routes={
                packed[other.code]: tuple(
                    direction_index(topology, code, direction)
                    for code, direction in topology.path(node.code, other.code)
                )
                for other in topology.nodes
                if other is not node
            },
        )
        for node in topology.nodes
    ]
    return Plan(seed=topology.seed, directions=directions, ends=ends)


def _failed() -> LabError:
    return LabError(
        "lab.emulator-failed", N_("The link emulator ended early; its words are above.")
    )

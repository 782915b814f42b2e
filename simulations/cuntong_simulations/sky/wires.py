"""A satellite made real: a namespace for the sender and for each dish, and the emulator between them.

Each place has one end of a veth pair, `INTERFACE`; the other ends lie in the namespace of whoever builds this, which is
one of its own (`lab.namespaces.isolate`), and there the emulator takes and puts frames. Places have the laboratory's
link too, which may be left alone.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import threading
from collections.abc import Mapping

import msgspec

from cuntong_protocol.texts import N_
from cuntong_simulations.lab.errors import LabError
from cuntong_simulations.lab.namespaces import Namespace, _ip, entered

from .channel import ChannelSettings
from .emulator import MAX_DISHES, DishPlan, Plan, Port, Sample, Tell
from .errors import SkyError

INTERFACE = "sky0"
NETWORK = "10.79.0"
SENDER = f"{NETWORK}.1"
"""The sender's address on `INTERFACE`: what a receiver names as its source."""
LAB_NETWORK = "10.79.1"
"""Of the places' other links."""
QUEUE_PACKETS = 2000
START_S = 30.0
"""A Python that starts takes a fraction of a second, on a busy machine a few."""
STOP_S = 10.0


class SkyWires:
    """The namespaces and the emulator, until `close`.

    Attributes:
        sender: The sender's namespace.
        dishes: By name.
        samples: What the emulator has told so far.
    """

    def __init__(
        self, channels: Mapping[str, ChannelSettings], *, seed: int, is_two_way: bool = False
    ) -> None:
        """Build all; returns when packets are carried.

        Args:
            channels: For each dish, by its name; at most `MAX_DISHES`.
            seed: Of everything random.
            is_two_way: See `emulator.Plan`.

        Raises:
            LabError: `lab.namespace-failed`.
            SkyError: `sky.emulator-failed`.
        """
        if not 0 < len(channels) <= MAX_DISHES:
            raise ValueError(len(channels))
        self.samples: list[Sample] = []
        self._news = threading.Condition()
        self._has_ended = False
        self.sender = _place(1)
        self.dishes = {name: _place(number) for number, name in enumerate(channels, start=2)}
        plan = Plan(
            seed=seed,
            sender=Port(interface=_far_end(1)),
            dishes=[
                DishPlan(name=name, port=Port(interface=_far_end(number)), channel=channel)
                for number, (name, channel) in enumerate(channels.items(), start=2)
            ],
            is_two_way=is_two_way,
        )
        self._process = subprocess.Popen(
            [sys.executable, "-m", "cuntong_simulations.sky.emulator"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        self._listener = threading.Thread(target=self._listen, daemon=True)
        self._listener.start()
        self._say(plan)
        self._wait_for(1)

    def tell(self) -> Sample:
        """What the emulator has counted up to now.

        Raises:
            SkyError: `sky.emulator-failed`.
        """
        before = len(self.samples)
        self._say(Tell())
        return self._wait_for(before + 1)

    def stop(self) -> Sample:
        """End the emulator; returns what it has counted.

        Raises:
            SkyError: `sky.emulator-failed`.
        """
        assert self._process.stdin is not None  # noqa: S101 - it is a pipe.
        before = len(self.samples)
        try:
            self._process.stdin.close()
            self._process.wait(STOP_S)
            self._listener.join(STOP_S)
        except (OSError, subprocess.TimeoutExpired):
            self._process.kill()
            self._process.wait()
        return self._wait_for(before + 1)

    def close(self) -> None:
        """Let everything go, whatever state it is in."""
        self._process.kill()
        self._process.wait()
        self._listener.join(STOP_S)
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                stream.close()
        for number, place in enumerate((self.sender, *self.dishes.values()), start=1):
            # The kernel would do that too, but some time after the last process has left.
            with contextlib.suppress(LabError):
                _ip(f"link delete {_far_end(number)}")
            place.close()

    def _say(self, message: Plan | Tell) -> None:
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
                with self._news:
                    self.samples.append(decoder.decode(line))
                    self._news.notify_all()
        finally:
            with self._news:
                self._has_ended = True
                self._news.notify_all()

    def _wait_for(self, count: int) -> Sample:
        with self._news:
            self._news.wait_for(lambda: len(self.samples) >= count or self._has_ended, START_S)
            if len(self.samples) < count:
                raise _failed()
            return self.samples[-1]


def address(number: int) -> str:
    """The address of a place on `INTERFACE`: 1 is the sender, dishes follow."""
    return f"{NETWORK}.{number}"


def _far_end(number: int) -> str:
    return f"sky-end{number}"


def _place(number: int) -> Namespace:
    """A namespace with an end of a veth pair; the other end is here."""
    place = Namespace(f"{LAB_NETWORK}.{number}")
    try:
        inside = f"/proc/{os.getpid()}/fd/{place.handle}"
        far = _far_end(number)
        _ip(
            f"link add name {far} txqueuelen {QUEUE_PACKETS} type veth peer name {INTERFACE} netns {inside}",
            f"link set {far} up",
        )
        with entered(place.handle):
            _ip(
                f"address add {address(number)}/24 dev {INTERFACE}",
                f"link set {INTERFACE} txqueuelen {QUEUE_PACKETS} up",
            )
    except BaseException:
        place.close()
        raise
    return place


def _failed() -> SkyError:
    return SkyError(
        "sky.emulator-failed", N_("The satellite emulator ended early; its words are above.")
    )

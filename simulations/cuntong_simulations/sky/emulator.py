"""The emulator: a process that takes multicast from one interface and puts it on others, through a channel for each.

Started as `python -m cuntong_simulations.sky.emulator`; each interface lies in its own network namespace or in the
process's. Over its standard input it gets one JSON object a line: first a `Plan`, then `Tell`s. Over its standard output
it tells a `Sample` when it begins to carry packets, one for each `Tell`, and a last one when its input ends. Its clock,
by which fades come, starts with the first sample.

Nothing but multicast is carried, and nothing back, as a satellite does it; with `is_two_way` all frames are, and those of
the dishes reach the sender undisturbed, for programs that can't do without answers. Frames keep their addresses, so
that a dish sees whose packets they are.
"""

from __future__ import annotations

import contextlib
import gc
import heapq
import os
import select
import signal
import socket
import struct
import sys
import time
from types import FrameType

import msgspec

from cuntong_daemon.i18n import show
from cuntong_protocol.texts import N_
from cuntong_simulations.lab.emulator import (
    LATE_BINS,
    LATE_BINS_PER_S,
    Lateness,
    _prefer_this_process,
)
from cuntong_simulations.lab.links import percentile_ms
from cuntong_simulations.lab.namespaces import entered

from .channel import Cause, Channel, ChannelSettings
from .errors import SkyError

READS_IN_A_ROW = 64
"""Frames taken from the sender before the due ones are looked at again: some milliseconds."""
BUFFER_BYTES = 16 * 1024 * 1024
"""Of the sender's side: a second at 50 Mbit/s, as the kernel counts."""
FRAME_BYTES = 66_000
"""Larger than what one read can give: the kernel may hand over datagrams that it hasn't cut yet."""
OFFLOAD_BYTES = 10
"""In front of each frame: what the kernel has left to a network card to do, such as checksums. It goes on as it came."""
LINK_BYTES = 14
"""The Ethernet header, which doesn't count as sent."""
MAX_DISHES = 64

_SOL_PACKET = 263
_PACKET_STATISTICS, _PACKET_OFFLOAD, _PACKET_IGNORE_OUTGOING = 6, 15, 23
_SO_RCVBUFFORCE = 33
_ETH_P_ALL = 0x0003
_STATISTICS = struct.Struct("=II")
_IPV4, _IPV6 = b"\x08\x00", b"\x86\xdd"
_TYPE_AT = OFFLOAD_BYTES + 12
_TO_V4_AT = OFFLOAD_BYTES + LINK_BYTES + 16
_TO_V6_AT = OFFLOAD_BYTES + LINK_BYTES + 24


class Port(msgspec.Struct, frozen=True, kw_only=True):
    """An interface; `namespace` is a path such as `/run/netns/village`, empty for the emulator's own."""

    interface: str
    namespace: str = ""


class DishPlan(msgspec.Struct, frozen=True, kw_only=True):
    """A dish: where it is, and what happens on the way to it."""

    name: str
    port: Port
    channel: ChannelSettings = ChannelSettings()


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """All that the emulator has to know."""

    seed: int
    sender: Port
    dishes: list[DishPlan]
    is_two_way: bool = False


class Tell(msgspec.Struct, frozen=True, tag=True):
    """Tell a sample now."""


class DishSample(msgspec.Struct, frozen=True, kw_only=True):
    """Packets since the start.

    Attributes:
        forwarded: Copies that were put on the dish's interface, duplicates included.
        lost: What the channel took, by its cause.
        refused: What the system didn't take; the dish didn't get it either.
    """

    name: str
    forwarded: int
    lost: dict[Cause, int]
    reordered: int
    duplicated: int
    refused: int


class Sample(msgspec.Struct, frozen=True, kw_only=True):
    """What the emulator tells; counts since the start.

    Attributes:
        at: CLOCK_MONOTONIC.
        packets: That came from the sender.
        bytes: The same, with IP's headers.
        kernel_drops: Frames of the sender that the emulator didn't fetch in time; they are counted nowhere else.
        lateness: How much later than it should have been a packet was put on its interface.
    """

    at: float
    packets: int
    bytes: int
    kernel_drops: int
    dishes: list[DishSample]
    lateness: Lateness
    cpu_s: float
    is_real_time: bool


def open_port(port: Port, *, protocol: int = _ETH_P_ALL) -> socket.socket:
    """A socket for an interface's frames. It doesn't block.

    Args:
        port: Which one.
        protocol: 0: nothing is received.

    Raises:
        SkyError: `sky.no-interface`.
    """
    try:
        with contextlib.ExitStack() as stack:
            if port.namespace:
                handle = os.open(port.namespace, os.O_RDONLY | os.O_CLOEXEC)
                stack.callback(os.close, handle)
                stack.enter_context(entered(handle))
            opened = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
            try:
                opened.setblocking(False)
                opened.setsockopt(_SOL_PACKET, _PACKET_OFFLOAD, 1)
                opened.setsockopt(_SOL_PACKET, _PACKET_IGNORE_OUTGOING, 1)
                try:
                    opened.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, BUFFER_BYTES)
                except PermissionError:  # Then as much as the system lets everybody have.
                    opened.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, BUFFER_BYTES)
                opened.bind((port.interface, protocol))
            except BaseException:
                opened.close()
                raise
            return opened
    except OSError as error:
        raise SkyError(
            "sky.no-interface",
            N_("The interface {interface} can't be used by the satellite emulator: {reason}."),
            interface=port.interface,
            reason=error.strerror or str(error),
        ) from error


def is_multicast(frame: bytes | memoryview) -> bool:
    """Whether a frame, offload header first, carries a datagram for a group that routers forward."""
    kind = bytes(frame[_TYPE_AT : _TYPE_AT + 2])
    if kind == _IPV4:
        to = bytes(frame[_TO_V4_AT : _TO_V4_AT + 4])
        # 224.0.0.0/24 stays on its link (RFC 5771).
        return len(to) == 4 and to[0] >> 4 == 14 and to[:3] != b"\xe0\0\0"
    if kind == _IPV6:
        to = bytes(frame[_TO_V6_AT : _TO_V6_AT + 2])
        # So do groups of interface and link scope (RFC 4291).
        return len(to) == 2 and to[0] == 0xFF and to[1] & 15 > 2
    return False


class _Dish:
    def __init__(self, plan: DishPlan, *, seed: int, is_two_way: bool) -> None:
        self.name = plan.name
        self.channel = Channel(plan.channel, seed=f"{seed} {plan.name}")
        self.socket = open_port(plan.port, protocol=_ETH_P_ALL if is_two_way else 0)
        self.forwarded = 0
        self.refused = 0

    def put(self, frame: bytes) -> None:
        try:
            self.socket.send(frame)
        except OSError:
            self.refused += 1
        else:
            self.forwarded += 1


class Emulator:
    """Carries packets until its input ends, or a signal asks for it."""

    def __init__(self, plan: Plan) -> None:
        """Open the interfaces.

        Raises:
            SkyError: `sky.no-interface`.
        """
        self._is_two_way = plan.is_two_way
        self._sender = open_port(plan.sender)
        self._dishes = [
            _Dish(dish, seed=plan.seed, is_two_way=plan.is_two_way)
            for dish in plan.dishes[:MAX_DISHES]
        ]
        self._due: list[tuple[float, int, _Dish, bytes]] = []
        self._number = 0
        self._packets = self._bytes = self._kernel_drops = 0
        self._late = [0] * LATE_BINS
        self._latest_s = 0.0
        self._began_at = 0.0
        self._is_real_time = False

    def run(self) -> None:
        """Carry packets, tell samples."""
        self._is_real_time = _prefer_this_process()
        os.set_blocking(0, False)
        sources: list[socket.socket | int] = [0, self._sender]
        back = {dish.socket for dish in self._dishes} if self._is_two_way else set()
        sources += back
        gc.collect()
        gc.freeze()
        gc.disable()
        self._began_at = time.monotonic()
        self._tell()
        pending = b""
        while True:
            now = time.monotonic()
            while self._due and self._due[0][0] <= now:
                due, _, dish, frame = heapq.heappop(self._due)
                self._put(dish, frame, due)
            pause = None if not self._due else max(0.0, self._due[0][0] - time.monotonic())
            for source in select.select(sources, (), (), pause)[0]:
                if source is self._sender:
                    self._carry()
                elif source in back:
                    self._carry_back(source)
                else:
                    data = os.read(0, 65536)
                    *lines, pending = (pending + data).split(b"\n")
                    for line in lines:
                        msgspec.json.decode(line, type=Tell)
                        self._tell()
                    if not data:
                        self._tell()
                        return

    def _carry(self) -> None:
        receive = self._sender.recv
        now = time.monotonic()
        with contextlib.suppress(BlockingIOError):
            for _ in range(READS_IN_A_ROW):
                frame = receive(FRAME_BYTES)
                if not self._is_two_way and not is_multicast(frame):
                    continue
                self._packets += 1
                self._bytes += len(frame) - OFFLOAD_BYTES - LINK_BYTES
                at_s = now - self._began_at
                for dish in self._dishes:
                    for arrives in dish.channel.carry(at_s):
                        if arrives <= at_s:
                            self._put(dish, frame, now)
                        else:
                            self._number += 1
                            due = self._began_at + arrives
                            heapq.heappush(self._due, (due, self._number, dish, frame))

    def _carry_back(self, source: socket.socket) -> None:
        with contextlib.suppress(BlockingIOError):
            for _ in range(READS_IN_A_ROW):
                frame = source.recv(FRAME_BYTES)
                with contextlib.suppress(OSError):
                    self._sender.send(frame)

    def _put(self, dish: _Dish, frame: bytes, due: float) -> None:
        dish.put(frame)
        late = time.monotonic() - due
        step = int(late * LATE_BINS_PER_S)
        self._late[step if step < LATE_BINS else -1] += 1
        self._latest_s = max(self._latest_s, late)

    def _tell(self) -> None:
        told = self._sender.getsockopt(_SOL_PACKET, _PACKET_STATISTICS, _STATISTICS.size)
        self._kernel_drops += _STATISTICS.unpack(told)[1]  # The kernel counts anew after each look.
        sample = Sample(
            at=time.monotonic(),
            packets=self._packets,
            bytes=self._bytes,
            kernel_drops=self._kernel_drops,
            dishes=[
                DishSample(
                    name=dish.name,
                    forwarded=dish.forwarded,
                    lost=dict(dish.channel.lost),
                    reordered=dish.channel.reordered,
                    duplicated=dish.channel.duplicated,
                    refused=dish.refused,
                )
                for dish in self._dishes
            ],
            lateness=Lateness(
                p50_ms=percentile_ms(self._late, 0.5, LATE_BINS_PER_S),
                p99_ms=percentile_ms(self._late, 0.99, LATE_BINS_PER_S),
                max_ms=self._latest_s * 1000,
                packets=sum(self._late),
            ),
            cpu_s=time.process_time(),
            is_real_time=self._is_real_time,
        )
        sys.stdout.buffer.write(msgspec.json.encode(sample) + b"\n")
        sys.stdout.buffer.flush()


def _end(_number: int, _frame: FrameType | None) -> None:
    """Be told to end as if the input had ended: the last sample is told all the same."""
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.close(null)


def main() -> None:
    """Read the plan from standard input and go on until it ends."""
    # Unbuffered: what follows the plan has to be seen by `select`.
    with open(0, "rb", buffering=0, closefd=False) as source:
        plan = msgspec.json.decode(source.readline(), type=Plan)
    try:
        emulator = Emulator(plan)
    except SkyError as error:
        sys.exit(f"{show(error.sentence)} ({error.code})")
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _end)
    emulator.run()


if __name__ == "__main__":
    main()

"""The emulator proves itself before each run, with real sockets in namespaces of its own.

Rate: packets are offered a twentieth faster than the link, and numbered; the spacing of what arrives is the
link's. Delay: small packets, far apart. Loss: many packets, counted. Arrivals are the kernel's time stamps, so
that only the emulator is measured and not who was awake to receive.
"""

from __future__ import annotations

import contextlib
import os
import socket
import struct
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

from .namespaces import entered
from .result import Check, percentile
from .topology import parse_topology
from .wires import Wires

SLOW, FAST, OTHER, LOSSY = "000000000000", "110000000000", "120000000000", "130000000000"
SLOW_KBIT_S, FAST_KBIT_S = 512.0, 100_000.0
SLOW_DELAY_MS, FAST_DELAY_MS = 20.0, 5.0
LOSS = 0.05
_TOPOLOGY = {
    "name": "proof",
    "network": "10.78.0.0/24",
    "links": [
        {"nodes": [SLOW], "down_kbit_s": SLOW_KBIT_S, "up_kbit_s": SLOW_KBIT_S, "delay_ms": SLOW_DELAY_MS},
        {"nodes": [FAST, OTHER], "down_kbit_s": FAST_KBIT_S, "up_kbit_s": FAST_KBIT_S, "delay_ms": FAST_DELAY_MS},
        {"nodes": [LOSSY], "down_kbit_s": FAST_KBIT_S, "up_kbit_s": FAST_KBIT_S, "delay_ms": 0.0, "loss": LOSS},
    ],
}  # fmt: skip

PORT = 9000
UDP_HEADERS = 28
PRIORITY = 10
OFFERED = 1.05
"""Of the link's rate: the queue never runs empty, and doesn't overflow within the test."""
RATE_TOLERANCE = 0.02
DELAY_TOLERANCE_MS = 1.0
LOSS_PACKETS = 4000
LOSS_TOLERANCE = 4 * (LOSS * (1 - LOSS) / LOSS_PACKETS) ** 0.5
"""Four standard deviations: one run in 15,000 fails by chance, and never the same seed twice."""
SETTLE_S = 0.5
"""What was sent last has arrived by then."""
TURN_S = 0.0002
"""How exactly packets are sent on time: at 100 Mbit/s one or two are due after each turn."""
SO_TIMESTAMPNS = 35


@dataclass(slots=True)
class _Flow:
    """Numbered packets from one place to another: `sent` and `arrived` by number, CLOCK_REALTIME."""

    source: socket.socket
    target: socket.socket
    to: tuple[str, int]
    size: int
    count: int
    every_s: float
    sent: list[float] = field(default_factory=list)
    arrived: dict[int, float] = field(default_factory=dict)

    def rate_kbit_s(self) -> float:
        """Of IP bytes, by the spacing of arrivals."""
        if len(self.arrived) < 2:
            return 0.0
        first, last = min(self.arrived), max(self.arrived)
        # The first tenth fills the queue.
        first = min(number for number in self.arrived if number >= first + (last - first) // 10)
        seconds = self.arrived[last] - self.arrived[first]
        return (last - first) * self.size * 8 / 1000 / max(seconds, 1e-9)

    def delays_ms(self) -> list[float]:
        return [(at - self.sent[number]) * 1000 for number, at in self.arrived.items()]


def prove() -> list[Check]:
    """Measure rate, delay and loss of an emulator of its own; takes about five seconds.

    Raises:
        LabError: as `Wires`.
    """
    wires = Wires(parse_topology(_TOPOLOGY))
    with contextlib.ExitStack() as stack:
        stack.callback(wires.close)
        stack.enter_context(_real_time())
        sockets = {}
        for number, code in enumerate((SLOW, FAST, OTHER, LOSSY), start=1):
            with entered(wires.namespaces[code].handle):
                sockets[code] = stack.enter_context(
                    socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
                )
            sockets[code].bind((f"10.78.0.{number}", PORT))
            sockets[code].setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
            sockets[code].setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 * 2**20)
            sockets[code].setblocking(False)

        def flow(source: str, target: str, size: int, count: int, kbit_s: float) -> _Flow:
            to = sockets[target].getsockname()
            every = size * 8 / (kbit_s * 1000)
            return _Flow(sockets[source], sockets[target], to, size, count, every)

        wires.wait_until_carrying()
        small = flow(SLOW, FAST, 100, 50, 40.0)
        _exchange(small)
        slow = flow(SLOW, FAST, 500, 200, SLOW_KBIT_S * OFFERED)
        _exchange(slow)
        there = flow(FAST, OTHER, 1500, 8000, FAST_KBIT_S * OFFERED)
        back = flow(OTHER, FAST, 1500, 8000, FAST_KBIT_S * OFFERED)
        _exchange(there, back)
        lossy = flow(FAST, LOSSY, 100, LOSS_PACKETS, 4000.0)
        _exchange(lossy)
        wires.stop()
    crossing_ms = small.size * 8 / SLOW_KBIT_S + small.size * 8 / FAST_KBIT_S
    delay_ms = crossing_ms + SLOW_DELAY_MS + FAST_DELAY_MS
    lost = 1 - len(lossy.arrived) / lossy.count
    return [
        _rate("rate at 512 kbit/s", SLOW_KBIT_S, slow),
        _rate("rate at 100 Mbit/s", FAST_KBIT_S, there),
        _rate("rate at 100 Mbit/s, the other way", FAST_KBIT_S, back),
        _delay("delay, median", delay_ms, percentile(small.delays_ms(), 0.5)),
        _delay("delay, p95", delay_ms, percentile(small.delays_ms(), 0.95)),
        Check(
            name="loss", expected=LOSS, measured=lost, tolerance=LOSS_TOLERANCE, unit="of packets"
        ),
    ]


def _rate(name: str, expected: float, flow: _Flow) -> Check:
    return Check(
        name=name,
        expected=expected,
        measured=flow.rate_kbit_s(),
        tolerance=expected * RATE_TOLERANCE,
        unit="kbit/s",
    )


def _delay(name: str, expected: float, measured: float) -> Check:
    return Check(
        name=name,
        expected=expected,
        measured=measured,
        tolerance=DELAY_TOLERANCE_MS,
        unit="ms",
    )


def _exchange(*flows: _Flow) -> None:
    """Send all packets of all flows on time and receive what comes."""
    start = time.monotonic()
    bodies = {id(flow): bytes(flow.size - UDP_HEADERS - 4) for flow in flows}
    end = start + max(flow.count * flow.every_s for flow in flows) + SETTLE_S
    while (now := time.monotonic()) < end:
        for flow in flows:
            due = min(flow.count, int((now - start) / flow.every_s) + 1)
            while len(flow.sent) < due:
                packet = struct.pack("!I", len(flow.sent)) + bodies[id(flow)]
                flow.sent.append(time.time())
                flow.source.sendto(packet, flow.to)
            _receive(flow)
        time.sleep(TURN_S)


def _receive(flow: _Flow) -> None:
    with contextlib.suppress(BlockingIOError):
        while True:
            data, notes, _flags, _sender = flow.target.recvmsg(2048, 64)
            seconds, nanoseconds = struct.unpack("qq", notes[0][2][:16])
            flow.arrived[struct.unpack_from("!I", data)[0]] = seconds + nanoseconds / 1e9


@contextlib.contextmanager
def _real_time() -> Iterator[None]:
    """Real-time priority where permitted, after the emulator's."""
    with contextlib.suppress(OSError):
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(PRIORITY))
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))

"""The emulator: a process that reads packets from TUN devices and writes them where and when the links say.

Started as `python -m cuntong_simulations.lab.emulator` with the devices' file descriptors. Over its standard
input it gets one JSON object a line: first a `Plan`, then `Command`s. Over its standard output it tells a `Sample`
when it begins to carry packets, once a second, and when its input ends. Its clock is CLOCK_MONOTONIC, which all processes share.

The loop has no sleeps to add up: it always waits for the earliest due time of the model, and what it does
too late is counted as lateness, by which a run on a busy machine is told from a bad result.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import os
import select
import sys
import time
from random import Random

import msgspec

from .links import BINS, Fabric, LinkDirection, Packet, Path, percentile_ms

REAL_TIME_PRIORITY = 50
READS_IN_A_ROW = 32
"""Packets taken from one device before the due ones are looked at again: about 150 us."""
READ_BYTES = 2048
"""Larger than a packet; a TUN device gives one packet a read."""
SAMPLE_S = 1.0
LATE_BINS_PER_S = 20_000
LATE_BINS = 2000
"""Lateness is counted in steps of 50 us; the last one holds all from 100 ms on."""
TURN_S = 0.00015
"""The shortest wait for a due packet: on busy links one turn of the loop then serves several."""
PR_SET_TIMERSLACK = 29
IPV4, IPV6 = 4, 6


class DirectionPlan(msgspec.Struct, frozen=True, kw_only=True):
    """One direction of an access link; `name` is for people."""

    name: str
    rate_bit_s: float
    delay_s: float
    queue_s: float
    loss: float = 0.0


class End(msgspec.Struct, frozen=True, kw_only=True):
    """A place: its device, its address (packed, hex), and by whom it is reached how.

    Attributes:
        routes: For each other end's address (packed, hex): indices of directions.
    """

    device: int
    address: str
    routes: dict[str, tuple[int, ...]]


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """All that the emulator has to know."""

    seed: int
    directions: list[DirectionPlan]
    ends: list[End]


class Change(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """Something about one direction becomes different now."""

    index: int
    rate_bit_s: float | None = None
    loss: float | None = None
    is_down: bool | None = None


class Restart(msgspec.Struct, frozen=True, tag=True):
    """What is counted about delays and lateness begins anew: a measurement starts."""


Command = Change | Restart


class DirectionSample(msgspec.Struct, frozen=True, kw_only=True):
    """Totals since the start, and the queueing delay of the packets since the last sample."""

    bytes: int
    packets: int
    overflowed: int
    lost: int
    wait_mean_ms: float
    wait_peak_ms: float


class Lateness(msgspec.Struct, frozen=True, kw_only=True):
    """How much later than it should have been a packet was written, since the last `Restart`."""

    p50_ms: float = 0.0
    p99_ms: float = 0.0
    max_ms: float = 0.0
    packets: int = 0


class Sample(msgspec.Struct, frozen=True, kw_only=True):
    """What the emulator tells. `waits` (in the last sample only): histograms by direction
    since the last `Restart`."""

    at: float
    directions: list[DirectionSample]
    lateness: Lateness
    cpu_s: float
    is_real_time: bool
    foreign: int = 0
    waits: list[list[int]] | None = None


class Emulator:
    """Carries packets until its input ends."""

    def __init__(self, plan: Plan) -> None:
        self._links = [
            LinkDirection(
                rate_bit_s=found.rate_bit_s,
                delay_s=found.delay_s,
                queue_s=found.queue_s,
                loss=found.loss,
                random=Random(f"{plan.seed} {found.name}"),  # noqa: S311 - has to be repeatable.
            )
            for found in plan.directions
        ]
        self._fabric = Fabric(self._links, self._write)
        self._routes: dict[int, dict[bytes, Path]] = {}
        self._device_of: dict[int, int] = {}
        for end in plan.ends:
            self._routes[end.device] = {
                bytes.fromhex(address): tuple(path) for address, path in end.routes.items()
            }
        by_address = {end.address: end.device for end in plan.ends}
        for end in plan.ends:
            for address, path in end.routes.items():
                self._device_of[path[-1]] = by_address[address]
        self._late = [0] * LATE_BINS
        self._latest_s = 0.0
        self._foreign = 0
        self._is_real_time = False
        self._waited_before = [(0, 0.0)] * len(self._links)

    def run(self) -> None:
        """Carry packets, obey changes, tell samples."""
        self._is_real_time = _prefer_this_process()
        for device in self._routes:
            os.set_blocking(device, False)
        os.set_blocking(0, False)
        sources = [0, *self._routes]
        pending = b""
        clock, sleep, wait_for = time.monotonic, time.sleep, select.select
        fabric = self._fabric
        next_sample = clock() + SAMPLE_S
        gc.collect()
        gc.freeze()
        gc.disable()
        self._tell(clock())
        while True:
            now = clock()
            due = fabric.advance(now)
            if now >= next_sample:
                self._tell(now)
                next_sample += SAMPLE_S
            until = next_sample if due is None or due > next_sample else due
            pause = until - clock()
            if pause < TURN_S:
                # Nothing that arrives meanwhile ends this wait, so that it gathers too.
                sleep(TURN_S)
                pause = 0.0
            ready = wait_for(sources, (), (), pause)[0]
            for source in ready:
                if source:
                    self._read(source)
                    continue
                data = os.read(0, 65536)
                if not data:
                    self._tell(clock(), is_last=True)
                    return
                *lines, pending = (pending + data).split(b"\n")
                for line in lines:
                    self._obey(clock(), msgspec.json.decode(line, type=Command))

    def _read(self, device: int) -> None:
        routes, send = self._routes[device], self._fabric.send
        read, now = os.read, time.monotonic()
        try:
            for _ in range(READS_IN_A_ROW):
                packet = read(device, READ_BYTES)
                is_v4 = packet[0] >> 4 == IPV4
                path = routes.get(packet[16:20] if is_v4 else packet[24:40])
                if path is None:
                    self._foreign += 1
                    continue
                send(now, packet, path)
        except BlockingIOError:
            pass

    def _write(self, due: float, path: Path, packet: Packet) -> None:
        late = time.monotonic() - due
        step = int(late * LATE_BINS_PER_S)
        self._late[step if step < LATE_BINS else -1] += 1
        if late > self._latest_s:
            self._latest_s = late
        # A device that is gone or whose namespace is down: the packet is lost, as it would be.
        with contextlib.suppress(OSError):
            os.write(self._device_of[path[-1]], packet)

    def _obey(self, now: float, command: Command) -> None:
        if isinstance(command, Change):
            self._fabric.change(
                now,
                command.index,
                rate_bit_s=command.rate_bit_s,
                loss=command.loss,
                is_down=command.is_down,
            )
            return
        for link in self._links:
            link.histogram = [0] * BINS
        self._late = [0] * LATE_BINS
        self._latest_s = 0.0

    def _tell(self, now: float, *, is_last: bool = False) -> None:
        samples = []
        for at, link in enumerate(self._links):
            packets, waited = self._waited_before[at]
            fresh = link.packets - packets
            samples.append(
                DirectionSample(
                    bytes=link.bytes,
                    packets=link.packets,
                    overflowed=link.overflowed,
                    lost=link.lost,
                    wait_mean_ms=(link.waited_s - waited) / fresh * 1000 if fresh else 0.0,
                    wait_peak_ms=link.peak_s * 1000,
                )
            )
            self._waited_before[at] = (link.packets, link.waited_s)
            link.peak_s = 0.0
        sample = Sample(
            at=now,
            directions=samples,
            lateness=Lateness(
                p50_ms=percentile_ms(self._late, 0.5, LATE_BINS_PER_S),
                p99_ms=percentile_ms(self._late, 0.99, LATE_BINS_PER_S),
                max_ms=self._latest_s * 1000,
                packets=sum(self._late),
            ),
            cpu_s=time.process_time(),
            is_real_time=self._is_real_time,
            foreign=self._foreign,
            waits=[_trimmed(link.histogram) for link in self._links] if is_last else None,
        )
        sys.stdout.buffer.write(msgspec.json.encode(sample) + b"\n")
        sys.stdout.buffer.flush()


def _trimmed(histogram: list[int]) -> list[int]:
    """Without the zeros at the end."""
    last = max((step for step, count in enumerate(histogram) if count), default=-1)
    return histogram[: last + 1]


def _prefer_this_process() -> bool:
    """Real-time priority where permitted, and timers without slack; `True`: it is permitted."""
    ctypes.CDLL(None).prctl(PR_SET_TIMERSLACK, 1)
    try:
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(REAL_TIME_PRIORITY))
    except OSError:
        with contextlib.suppress(OSError):
            os.nice(-20)
        return False
    return True


def main() -> None:
    """Read the plan from standard input and go on until it ends."""
    # Unbuffered: what follows the plan has to be seen by `select`.
    with open(0, "rb", buffering=0, closefd=False) as source:
        plan = msgspec.json.decode(source.readline(), type=Plan)
    Emulator(plan).run()


if __name__ == "__main__":
    main()

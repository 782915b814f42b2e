"""The pacer: a process that sends what lies in a ring, byte by byte at the rate, and does nothing else (SPEC 11.10).

The schedule is absolute: packet n is due when all bytes before it have been sent at the rate. It wakes when a few
are due together, so that 20 Mbit/s cost some hundred wake-ups a second. Where the ring is empty it sends fillers: the
modem sees a constant rate.
"""

from __future__ import annotations

import contextlib
import gc
import os
import select
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import msgspec

from cuntong_protocol.datacast.errors import DatacastError
from cuntong_protocol.datacast.packets import IP_BYTES, PACKET_BYTES, filler_packet
from cuntong_protocol.texts import Sentence

from .frames import write_frame
from .ring import Ring
from .sockets import Group, open_sender

BURST_PACKETS = 4
"""Sent together; a modem's buffer takes that."""
LOST_S = 1.0
"""Later than this nothing is caught up: the machine slept, or the rate is beyond it."""
REPORT_S = 1.0
LOOK_S = 0.1
"""How often it looks whether whoever started it has gone."""
IPV6_MORE_BYTES = 20
REAL_TIME_PRIORITY = 10


class Pace(msgspec.Struct, frozen=True, kw_only=True):
    """What the pacer is told, as its only argument (JSON)."""

    ring: int
    slots: int
    address: str
    port: int
    interface: str
    source: str
    hops: int
    rate_bytes_s: int
    session: int


class Paced(msgspec.Struct, frozen=True, kw_only=True):
    """What the pacer tells every second.

    Attributes:
        packets: Sent since the start, fillers included.
        bytes: The same, with IP's headers.
        fillers: Of these packets.
        failed: Packets that the system refused.
        behind_ms: The latest that a packet was since the last report.
        lost_ms: Time that was given up since the start.
        problem: Why it ends.
    """

    packets: int = 0
    bytes: int = 0
    fillers: int = 0
    failed: int = 0
    behind_ms: float = 0.0
    lost_ms: float = 0.0
    problem: Sentence | None = None


class Packets(Protocol):
    """Where packets come from: a `Ring`."""

    def peek(self) -> memoryview | None: ...

    def drop(self) -> None: ...


@dataclass(slots=True)
class Schedule:
    """When the next packet is due, by the bytes that were sent. Times are seconds of a steady clock."""

    rate_bytes_s: float
    began_at: float
    sent_bytes: int = 0

    @property
    def due_at(self) -> float:
        return self.began_at + self.sent_bytes / self.rate_bytes_s


class Pacer:
    """Sends; `step` is called again and again."""

    def __init__(
        self,
        packets: Packets,
        send: Callable[[bytes | memoryview], object],
        *,
        rate_bytes_s: int,
        session: int,
        headers: int,
        now: float,
    ) -> None:
        self._packets = packets
        self._send = send
        self._headers = headers
        self._filler = filler_packet(session)
        self._schedule = Schedule(rate_bytes_s, now)
        self._burst_s = BURST_PACKETS * (PACKET_BYTES + headers) / rate_bytes_s
        self._sent = self._bytes = self._fillers = self._failed = 0
        self._behind_s = self._lost_s = 0.0

    def step(self, now: float) -> float:
        """Send what is due, a burst at most.

        Returns:
            When to call again.
        """
        schedule = self._schedule
        behind = now - schedule.due_at
        if behind > LOST_S:
            self._lost_s += behind
            schedule.began_at += behind
            behind = 0.0
        self._behind_s = max(self._behind_s, behind)
        for _ in range(BURST_PACKETS):
            if schedule.due_at > now:
                break
            self._send_one(schedule)
        # When late, twice the rate; else when a burst is due.
        return max(
            now + self._burst_s / 2, schedule.due_at + self._burst_s * (1 - 1 / BURST_PACKETS)
        )

    def _send_one(self, schedule: Schedule) -> None:
        packet = self._packets.peek()
        data = self._filler if packet is None else packet
        try:
            self._send(data)
        except OSError:
            # An interface that is down, or a full queue: what is on the air goes on with the next packet, and the
            # receivers do without this one, as with any that is lost.
            self._failed += 1
        size = len(data) + self._headers
        if packet is None:
            self._fillers += 1
        else:
            packet.release()
            self._packets.drop()
        self._sent += 1
        self._bytes += size
        schedule.sent_bytes += size

    def report(self) -> Paced:
        """How it goes; the lateness is counted anew."""
        behind, self._behind_s = self._behind_s, 0.0
        return Paced(
            packets=self._sent,
            bytes=self._bytes,
            fillers=self._fillers,
            failed=self._failed,
            behind_ms=round(behind * 1000, 3),
            lost_ms=round(self._lost_s * 1000, 3),
        )


def ip_bytes(group: Group) -> int:
    """Bytes of headers in front of each packet's payload."""
    return IP_BYTES + (IPV6_MORE_BYTES if group.is_6 else 0)


def run(order: Pace) -> None:
    """Send until whoever reads the reports has gone."""
    group = Group(order.address, order.port, order.interface, order.source)
    try:
        sender = open_sender(group, hops=order.hops)
    except DatacastError as error:
        write_frame(sys.stdout.fileno(), Paced(problem=error.sentence))
        return
    _hurry()
    ring = Ring(order.ring, order.slots, PACKET_BYTES)
    pacer = Pacer(
        ring,
        sender.send,
        rate_bytes_s=order.rate_bytes_s,
        session=order.session,
        headers=ip_bytes(group),
        now=time.monotonic(),
    )
    output = sys.stdout.fileno()
    ended = select.poll()
    ended.register(sys.stdin.fileno(), select.POLLIN | select.POLLHUP)
    os.set_blocking(output, False)
    report_at = look_at = time.monotonic() + REPORT_S
    while True:
        now = time.monotonic()
        again_at = pacer.step(now)
        if now >= look_at:
            look_at = now + LOOK_S
            if ended.poll(0):
                return
        if now >= report_at:
            report_at += REPORT_S
            try:
                write_frame(output, pacer.report())
            except BlockingIOError:
                pass  # Nobody reads at the moment; the next report says all.
            except BrokenPipeError:
                return
        pause = again_at - time.monotonic()
        if pause > 0:
            time.sleep(pause)


def _hurry() -> None:
    """Be late as rarely as the system lets us."""
    gc.freeze()
    gc.disable()  # Nothing here makes cycles.
    with contextlib.suppress(OSError):  # Without the right to it the kernel's usual turns must do.
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(REAL_TIME_PRIORITY))


if __name__ == "__main__":
    run(msgspec.json.decode(sys.argv[1], type=Pace))

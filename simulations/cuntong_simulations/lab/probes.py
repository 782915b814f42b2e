"""The public: one process that fetches pages, downloads and pings from inside the places.

Started as `python -m cuntong_simulations.lab.probes` with the namespaces' file descriptors. Its standard input
has one JSON `ProbePlan`; it goes on until its input ends. Over its standard output it tells what it saw, one
JSON object a line. Sockets belong to the namespace they were made in, so one process can be everywhere.

Pings are ICMP: the other end's kernel answers, while the emulator hands it the packet, and nobody there has to
be awake. Times are CLOCK_MONOTONIC.
"""

from __future__ import annotations

import contextlib
import ipaddress
import os
import socket
import struct
import sys
import time

import msgspec
import trio

from .namespaces import entered
from .scenario import PAGE_BYTES

PORT = 8080
PRIORITY = 10
"""Below the emulator, above the daemons: what is measured are the links, not who gets the processor."""
PING_EVERY_S = 0.2
PING_DATA = bytes(48)
"""With the time and the headers 84 bytes of IP, as `ping` sends them."""
PATIENCE_S = 120.0
"""A page that takes longer has failed."""
CHUNK = bytes(16 * 1024)
BULK_SAMPLE_S = 1.0


class ProbePlace(msgspec.Struct, frozen=True, kw_only=True):
    """Where something is probed from: the namespace's descriptor, and what is done there."""

    code: str
    handle: int
    pages: bool = False
    bulk: bool = False
    pings: bool = False


class ProbePlan(msgspec.Struct, frozen=True, kw_only=True):
    """All that the process has to know."""

    source_handle: int
    source_address: str
    page_every_s: float
    places: list[ProbePlace]


class Seen(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One observation.

    Attributes:
        kind: `page` and `ping`: `value` is seconds, negative when it failed. `bulk`: bytes since the last one.
        at: When it began.
    """

    kind: str
    code: str
    at: float
    value: float


def _tell(seen: Seen) -> None:
    sys.stdout.buffer.write(msgspec.json.encode(seen) + b"\n")
    sys.stdout.buffer.flush()


def _socket(handle: int, family: int, kind: int, protocol: int = 0) -> trio.socket.SocketType:
    with entered(handle):
        return trio.socket.from_stdlib_socket(socket.socket(family, kind, protocol))


async def _serve(plan: ProbePlan, family: int) -> None:
    listener = _socket(plan.source_handle, family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    await listener.bind((plan.source_address, PORT))
    listener.listen(64)
    await trio.serve_listeners(_answer, [trio.SocketListener(listener)])


async def _answer(stream: trio.SocketStream) -> None:
    with contextlib.suppress(trio.BrokenResourceError, trio.ClosedResourceError):
        request = b""
        while b"\r\n\r\n" not in request:
            data = await stream.receive_some(4096)
            if not data:
                return
            request += data
        is_page = request.startswith(b"GET /page ")
        length = f"Content-Length: {PAGE_BYTES}\r\n" if is_page else ""
        await stream.send_all(f"HTTP/1.0 200 OK\r\n{length}\r\n".encode())
        if is_page:
            await stream.send_all(bytes(PAGE_BYTES))
            await stream.send_eof()
            await stream.receive_some(1)
            return
        while True:
            await stream.send_all(CHUNK)


async def _request(plan: ProbePlan, place: ProbePlace, family: int, path: str) -> trio.SocketStream:
    connection = _socket(place.handle, family, socket.SOCK_STREAM)
    await connection.connect((plan.source_address, PORT))
    stream = trio.SocketStream(connection)
    await stream.send_all(f"GET {path} HTTP/1.0\r\n\r\n".encode())
    return stream


async def _fetch_pages(plan: ProbePlan, place: ProbePlace, family: int, offset_s: float) -> None:
    due = trio.current_time() + offset_s
    while True:
        await trio.sleep_until(due)
        began, took = time.monotonic(), -1.0
        with trio.move_on_after(PATIENCE_S), contextlib.suppress(OSError, trio.BrokenResourceError):
            async with await _request(plan, place, family, "/page") as stream:
                received = 0
                while data := await stream.receive_some(65536):
                    received += len(data)
                if received >= PAGE_BYTES:
                    took = time.monotonic() - began
        _tell(Seen(kind="page", code=place.code, at=began, value=took))
        # Late pages don't pile up; the next one keeps to the clock.
        due += plan.page_every_s * max(1, -(-(trio.current_time() - due) // plan.page_every_s))


async def _download(plan: ProbePlan, place: ProbePlace, family: int) -> None:
    while True:
        with contextlib.suppress(OSError, trio.BrokenResourceError):
            async with await _request(plan, place, family, "/bulk") as stream:
                received, since = 0, time.monotonic()
                while data := await stream.receive_some(65536):
                    received += len(data)
                    now = time.monotonic()
                    if now - since >= BULK_SAMPLE_S:
                        _tell(Seen(kind="bulk", code=place.code, at=since, value=float(received)))
                        received, since = 0, now
        await trio.sleep(1.0)


async def _ping(plan: ProbePlan, place: ProbePlace, family: int, offset_s: float) -> None:
    is_v6 = family == socket.AF_INET6
    protocol = socket.IPPROTO_ICMPV6 if is_v6 else socket.IPPROTO_ICMP
    connection = _socket(place.handle, family, socket.SOCK_DGRAM, protocol)
    sent: dict[int, float] = {}

    async def receive() -> None:
        while True:
            data = await connection.recv(2048)
            now = time.monotonic()
            began = sent.pop(struct.unpack_from("!H", data, 6)[0], None)
            if began is not None:
                _tell(Seen(kind="ping", code=place.code, at=began, value=now - began))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(receive)
        due, number = trio.current_time() + offset_s, 0
        while True:
            await trio.sleep_until(due)
            due += PING_EVERY_S
            number = (number + 1) & 0xFFFF
            echo = struct.pack("!BBHHHQ", 128 if is_v6 else 8, 0, 0, 0, number, 0) + PING_DATA
            now = sent[number] = time.monotonic()
            with contextlib.suppress(OSError):
                await connection.sendto(echo, (plan.source_address, 0))
            for old in [at for at, began in sent.items() if now - began > PATIENCE_S]:
                _tell(Seen(kind="ping", code=place.code, at=sent.pop(old), value=-1.0))


async def _probe(plan: ProbePlan) -> None:
    version = ipaddress.ip_address(plan.source_address).version
    family = socket.AF_INET6 if version == 6 else socket.AF_INET
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_serve, plan, family)
        await trio.sleep(0.1)
        fetching = [place for place in plan.places if place.pages]
        for number, place in enumerate(fetching):
            # Spread over the interval: they share the source's link.
            offset = plan.page_every_s * number / len(fetching)
            nursery.start_soon(_fetch_pages, plan, place, family, offset)
        for place in plan.places:
            if place.bulk:
                nursery.start_soon(_download, plan, place, family)
        pinging = [place for place in plan.places if place.pings]
        for number, place in enumerate(pinging):
            offset = PING_EVERY_S * number / len(pinging)
            nursery.start_soon(_ping, plan, place, family, offset)
        await trio.to_thread.run_sync(sys.stdin.buffer.read, abandon_on_cancel=True)
        nursery.cancel_scope.cancel()


def main() -> None:
    """Read the plan and go on until the input ends."""
    plan = msgspec.json.decode(sys.stdin.buffer.readline(), type=ProbePlan)
    with contextlib.suppress(OSError):
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(PRIORITY))
    trio.run(_probe, plan)


if __name__ == "__main__":
    main()

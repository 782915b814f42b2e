"""The control link: a thousand idle children, and what an idle hour costs on the wire.

The server and the children are processes of their own, over TLS 1.3 on loopback. The window of 30 s is laid
so that every child's ping falls into it: twice what an average half minute holds.
"""

from __future__ import annotations

import multiprocessing
import os
import resource
import tempfile
import time
from multiprocessing.connection import Connection
from pathlib import Path

import structlog
import trio
from trio.testing import MockClock

from cuntong_daemon.link.transport import ParentAddress, tls_dialler
from cuntong_daemon.services import running
from cuntong_protocol.divisions import Division
from cuntong_protocol.link.connection import PING_AFTER_S
from cuntong_protocol.link.states import Role
from tests.support.link_world import COUNTY, VILLAGE, Rest, make_child, make_server
from tests.support.tls_certs import identify, shared_authority

CHILDREN = 1000
WINDOW_S = 30
HOUR_S = 3600
CLOCK_RATE = 120.0
"""Seconds of the accelerated clock in one of ours."""
SEGMENT_BYTES = 52
"""IPv4 and TCP headers with the time-stamp option, for each segment and for its acknowledgement."""


def run() -> list[tuple[str, str]]:
    """Measure; takes about two minutes."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(40))
    return [*thousand_children(), *idle_hour()]


# A thousand children.


def thousand_children() -> list[tuple[str, str]]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    shared_authority()  # Both processes inherit it.
    fork = multiprocessing.get_context("fork")
    to_server, server_end = fork.Pipe()
    to_children, children_end = fork.Pipe()
    server = fork.Process(target=_server_process, args=(server_end,))
    server.start()
    port = to_server.recv()
    before = _rss_bytes(server.pid)
    children = fork.Process(target=_children_process, args=(children_end, port))
    children.start()
    connected = to_children.recv()
    time.sleep(PING_AFTER_S[Role.CHILD] - WINDOW_S / 2)
    cpu, pings = _cpu_s(server.pid), time.monotonic()
    time.sleep(WINDOW_S)
    share = (_cpu_s(server.pid) - cpu) / (time.monotonic() - pings)
    after = _rss_bytes(server.pid)
    for process in (children, server):
        process.terminate()
        process.join()
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    per_child = (after - before) / CHILDREN
    return [
        (f"{CHILDREN} idle children: connected in", f"{connected:.1f} s"),
        (
            f"{CHILDREN} idle children: CPU of the server over {WINDOW_S} s with all their pings",
            f"{share:.2%} of a core (two are there)",
        ),
        (f"{CHILDREN} idle children: memory a child (RSS)", f"{per_child / 1024:.1f} KiB"),
    ]


def _server_process(pipe: Connection) -> None:
    async def serve() -> None:
        server = make_server(Rest(), Path(tempfile.gettempdir()))
        async with running(server):
            pipe.send(server.port)
            await trio.sleep_forever()

    trio.run(serve)


def _children_process(pipe: Connection, port: int) -> None:
    async def connect() -> None:
        address = ParentAddress(COUNTY, "127.0.0.1", port)
        began = time.monotonic()
        limit = trio.Semaphore(50)
        up = 0
        all_up = trio.Event()

        async def child(number: int) -> None:
            nonlocal up
            code = Division(f"4419{number:08}")
            async with limit:
                dial = tls_dialler(shared_authority().context(code, server=False), identify)
            link = make_child(Rest(), Path(tempfile.gettempdir()), dial, address, code=code)
            async with limit:
                nursery.start_soon(link.run)
                await link.wait_session()
            up += 1
            if up == CHILDREN:
                all_up.set()

        async with trio.open_nursery() as nursery:
            for number in range(1, CHILDREN + 1):
                nursery.start_soon(child, number)
            await all_up.wait()
            pipe.send(time.monotonic() - began)
            await trio.sleep_forever()

    trio.run(connect)


def _rss_bytes(pid: int | None) -> int:
    pages = Path(f"/proc/{pid}/statm").read_text().split()[1]
    return int(pages) * resource.getpagesize()


def _cpu_s(pid: int | None) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


# An idle hour.


class Relay:
    """Passes bytes between two sockets and counts them; each piece that it sees was a segment or more."""

    def __init__(self, port: int) -> None:
        self._port = port
        self.payload = 0
        self.pieces = 0

    async def serve(self, stream: trio.SocketStream) -> None:
        far = await trio.open_tcp_stream("127.0.0.1", self._port)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._copy, stream, far)
            nursery.start_soon(self._copy, far, stream)

    async def _copy(self, source: trio.SocketStream, sink: trio.SocketStream) -> None:
        try:
            while data := await source.receive_some():
                self.payload += len(data)
                self.pieces += 1
                await sink.send_all(data)
            await sink.send_eof()
        except trio.BrokenResourceError:
            pass

    @property
    def wire_bytes(self) -> int:
        return self.payload + 2 * SEGMENT_BYTES * self.pieces


def idle_hour() -> list[tuple[str, str]]:
    clock = MockClock(rate=1.0)
    folder = Path(tempfile.gettempdir())

    async def measure() -> tuple[int, int, int]:
        server = make_server(Rest(), folder)
        async with running(server), trio.open_nursery() as nursery:
            relay = Relay(server.port)
            (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
            nursery.start_soon(trio.serve_listeners, relay.serve, [listener])
            address = ParentAddress(COUNTY, "127.0.0.1", listener.socket.getsockname()[1])
            link = make_child(Rest(), folder, None, address, code=VILLAGE)
            async with running(link):
                session = await link.wait_session()
                await trio.sleep(1)
                greeting = relay.wire_bytes
                payload, wire = relay.payload, relay.wire_bytes
                clock.rate = CLOCK_RATE
                await trio.sleep(HOUR_S)
                clock.rate = 1.0
                if link.session is not session:
                    raise RuntimeError("the link broke: the machine is too busy for this clock")
                counted = relay.payload - payload, relay.wire_bytes - wire, greeting
            nursery.cancel_scope.cancel()
        return counted

    payload, wire, greeting = trio.run(measure, clock=clock)
    average = wire * 8 / HOUR_S / 1000
    return [
        ("greeting on the wire, both directions", f"{greeting} B"),
        (
            "idle hour on the wire, both directions (goal: 1 kbit/s)",
            f"{wire} B ({payload} B of TLS) = {average:.3f} kbit/s",
        ),
    ]


if __name__ == "__main__":
    for name, figure in run():
        print(f"{name}: {figure}")

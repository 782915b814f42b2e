"""The reader and the pacer as processes, on the loopback device."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
import pytest

from cuntong_daemon.datacast.frames import read_frames
from cuntong_daemon.datacast.pacer import Pace, Paced
from cuntong_daemon.datacast.reader import FromReader, ReadOrder, ReadProblem, ReadStatus
from cuntong_daemon.datacast.ring import make_memory
from cuntong_daemon.datacast.sockets import RECEIVE_BUFFER_BYTES
from cuntong_daemon.pki.ca import make_ca_certificate
from cuntong_daemon.pki.certificates import certificate_der, new_key
from cuntong_protocol.datacast.packets import PACKET_BYTES
from cuntong_protocol.divisions import NATION
from tests.support.pki import NOW

SLOTS = 64
STALL_S = 0.5
FAST_BYTES_S = 50_000_000 // 8


@contextmanager
def process(
    part: str, order: msgspec.Struct, *descriptors: int
) -> Iterator[subprocess.Popen[bytes]]:
    """One of the datacast's processes; it ends with the block."""
    for descriptor in descriptors:
        os.set_inheritable(descriptor, True)
    child = subprocess.Popen(
        [
            sys.executable,
            "-m",
            f"cuntong_daemon.datacast.{part}",
            msgspec.json.encode(order).decode(),
        ],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        pass_fds=descriptors,
    )
    assert child.stdin is not None
    assert child.stdout is not None
    try:
        yield child
    finally:
        child.stdin.close()
        child.stdout.close()
        child.kill()
        child.wait()


def read_order(folder: Path, *, interface: str = "lo", port: int = 7450) -> ReadOrder:
    return ReadOrder(
        folder=str(folder),
        anchor=certificate_der(make_ca_certificate(new_key(), now=NOW)),
        sender=str(NATION),
        address="232.22.3.4",
        port=port,
        interface=interface,
        source="127.0.0.1",
        quota_bytes=50_000_000,
    )


def statuses(reader: subprocess.Popen[bytes]) -> Iterator[ReadStatus]:
    assert reader.stdout is not None
    for message in read_frames(reader.stdout.fileno(), FromReader):  # type: ignore[arg-type]
        if isinstance(message, ReadStatus):
            yield message


@pytest.mark.skipif(
    os.geteuid() != 0
    and int(Path("/proc/sys/net/core/rmem_max").read_text()) < RECEIVE_BUFFER_BYTES,
    reason="a receive buffer of 8 MiB needs root, or a higher net.core.rmem_max",
)
def test_half_a_second_without_reading_costs_no_packet_at_50_mbit_s(tmp_path: Path) -> None:
    memory = make_memory(SLOTS, PACKET_BYTES)
    pace = Pace(
        ring=memory,
        slots=SLOTS,
        address="232.22.3.4",
        port=7451,
        interface="lo",
        source="127.0.0.1",
        hops=1,
        rate_bytes_s=FAST_BYTES_S,
        session=1,
    )
    with process("reader", read_order(tmp_path, port=7451)) as reader:
        told = statuses(reader)
        next(told)  # It listens.
        with process("pacer", pace, memory) as pacer:
            assert pacer.stdout is not None
            paced = read_frames(pacer.stdout.fileno(), Paced)
            next(paced)
            os.kill(reader.pid, signal.SIGSTOP)
            try:
                with pytest.raises(subprocess.TimeoutExpired):
                    reader.wait(STALL_S)
            finally:
                os.kill(reader.pid, signal.SIGCONT)
            next(paced)
            sent = next(paced)
        for status in told:
            if status.packets >= sent.packets:
                break
            assert status.socket_drops == 0
        assert status.fillers == status.packets
        assert not status.dropped
    os.close(memory)


def test_reader_says_why_it_cannot_work(tmp_path: Path) -> None:
    with process("reader", read_order(tmp_path, interface="dish77")) as reader:
        assert reader.stdout is not None
        (told,) = read_frames(reader.stdout.fileno(), FromReader)  # type: ignore[arg-type]
        assert isinstance(told, ReadProblem)
        assert told.problem.code == "datacast.no-interface"
        assert "dish77" in str(told.problem)


def test_reader_goes_when_the_daemon_has_gone(tmp_path: Path) -> None:
    with process("reader", read_order(tmp_path)) as reader:
        next(statuses(reader))
        assert reader.stdin is not None
        reader.stdin.close()
        assert reader.wait(30) == 0

"""A swarm whose port somebody else has (SPEC 7.1)."""

from __future__ import annotations

import ipaddress
import resource
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import pytest

from cuntong_daemon.config import load_config
from cuntong_daemon.swarm.events import SwarmError
from cuntong_daemon.swarm.session import Session, open_session
from tests.support.volumes import Post, running_node

FILES = 13_000
"""Sockets of the test that takes most ports, and some more."""


async def test_node_says_so_when_another_program_has_its_swarms_port(tmp_path: Path) -> None:
    paths = Post(tmp_path / "post").enrol("village")
    host, _, port = load_config(paths.config).network.swarm.partition(":")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
        taken.bind((host, int(port)))
        with pytest.raises(AssertionError) as caught:
            async with running_node(paths):
                pass
    cause = caught.value.__cause__
    assert getattr(cause, "code", cause) == "swarm.cannot-listen"


@contextmanager
def session_on(host: str) -> Iterator[Session]:
    networks = [ipaddress.ip_network(f"{host}/32")]
    with open_session(
        host=host, networks=networks, down_bytes_s=0, up_bytes_s=0, is_shared=True
    ) as session:
        yield session


@pytest.fixture
def many_files() -> Iterator[None]:
    """As many open files as the system gives; a shell begins with 1,024."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < FILES:
        pytest.skip(f"the system lets nobody open {FILES:,} files (ulimit -Hn)")
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.usefixtures("many_files")
async def test_any_free_port_is_one_that_is_free_for_udp_too() -> None:
    """The system gives TCP an odd port; seven of eight of these are taken for UDP."""
    host = "127.0.93.1"
    with ExitStack() as stack:
        for port in range(32_769, 61_000, 2):
            if port % 16 == 1:
                continue
            taken = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
            with suppress(OSError):  # Another program has it: as well.
                taken.bind((host, port))
        session = stack.enter_context(session_on(host))
        ports = await session.listen(host, 0)
        for port in ports:
            for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
                with socket.socket(socket.AF_INET, kind) as other, pytest.raises(OSError):
                    other.bind((host, port))


async def test_no_free_port_on_an_address_of_somebody_else() -> None:
    host = "192.0.2.1"
    with session_on(host) as session, pytest.raises(SwarmError) as caught:
        await session.listen(host, 0)
    assert caught.value.code == "swarm.cannot-listen"

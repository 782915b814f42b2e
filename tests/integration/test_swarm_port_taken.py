"""A swarm whose port somebody else has (SPEC 7.1)."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from cuntong_daemon.config import load_config
from tests.support.volumes import Post, running_node


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

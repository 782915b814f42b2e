"""Networks of real daemons: founded once, copied for each test."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from cuntong_tools.demo.network import Network
from tests.support.world import World, found_network


@pytest.fixture(scope="session")
def founded(tmp_path_factory: pytest.TempPathFactory) -> Network:
    """Five enrolled places whose daemons never ran; for copying."""
    return found_network(tmp_path_factory.mktemp("founded") / "network")


@pytest.fixture
def world(founded: Network, tmp_path: Path) -> Iterator[World]:
    """A network of the test's own. No daemon runs yet; those that do at the end are stopped."""
    copy = World(founded, tmp_path / "network")
    yield copy
    copy.stop()

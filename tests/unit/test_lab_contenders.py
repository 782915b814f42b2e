"""Other programs in the laboratory: who has all files, who meets whom, and the table."""

from __future__ import annotations

import io
from pathlib import Path

import msgspec
import pytest
from rich.console import Console

from cuntong_simulations.lab.compare import copies, table
from cuntong_simulations.lab.contenders import CONTENDERS
from cuntong_simulations.lab.contenders.base import Processes
from cuntong_simulations.lab.contenders.rsync import RsyncLimited, RsyncStar, RsyncTree
from cuntong_simulations.lab.contenders.tracker import Swarm, announce
from cuntong_simulations.lab.topology import load_topology

from .test_lab_results import result

R1 = load_topology(Path(__file__).parents[2] / "config" / "lab" / "R1.toml")
NATION, COUNTY, VILLAGE = "000000000000", "440101000000", "440101001001"


class Still(Processes):
    """A contender that does nothing by itself."""

    def begin(self, content: Path) -> None:
        pass


def test_half_a_file_and_a_file_of_zeros_are_not_done(tmp_path: Path) -> None:
    content = tmp_path / "content"
    content.mkdir()
    for name in ("a", "b"):
        (content / name).write_bytes(b"0123456789")
    contender = Still()
    contender.prepare(R1, tmp_path / "places", 1)
    assert contender.publish(content) == 20
    received = contender.received(VILLAGE)
    (received / "a").write_bytes(b"0123456789")
    (received / "b").write_bytes(b"01234")
    assert not contender.is_done(VILLAGE)
    (received / "b").write_bytes(bytes(10))
    assert not contender.is_done(VILLAGE)
    (received / "b").write_bytes(b"0123456789")
    assert contender.is_done(VILLAGE)


def test_tree_waits_for_the_parent_and_star_for_nobody(tmp_path: Path) -> None:
    tree, star = RsyncTree(), RsyncStar()
    for contender in (tree, star):
        contender.prepare(R1, tmp_path / contender.name, 1)
        (contender.folder / NATION / "done").touch()
    assert (tree.giver(VILLAGE), star.giver(VILLAGE)) == (COUNTY, NATION)
    assert not tree.has_begun(VILLAGE)
    assert star.has_begun(VILLAGE)
    (tree.folder / COUNTY / "done").touch()
    assert tree.has_begun(VILLAGE)


def test_only_villages_are_held_below_their_rate(tmp_path: Path) -> None:
    contender = RsyncLimited()
    contender.prepare(R1, tmp_path, 1)
    assert contender.limit(COUNTY) == []
    assert contender.limit(VILLAGE) == ["--bwlimit=50"]


def test_near_are_parent_siblings_and_children() -> None:
    contender = Still()
    contender.topology = R1
    assert contender.near(COUNTY) == [
        "440000000000",
        "440102000000",
        "440101001001",
        "440101001002",
        "440101001003",
    ]
    assert contender.near(NATION) == ["440000000000", "450000000000"]


def test_program_that_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    assert CONTENDERS["aria2"].missing() == ["aria2c"]
    assert CONTENDERS["libtorrent"].missing() == []


def test_tracker_tells_everybody_of_everybody_else_until_he_stops() -> None:
    swarms: dict[bytes, Swarm] = {}

    def ask(peer: str, more: str = "") -> bytes:
        query = f"info_hash=%00%FF{'x' * 18}&peer_id={peer * 20}&port=6881{more}"
        return announce(swarms, query.encode(), f"10.0.0.{ord(peer) - 96}")

    assert ask("a").endswith(b"5:peers0:e")
    assert ask("b").endswith(b"5:peers6:\x0a\x00\x00\x01\x1a\xe1e")
    ask("b", "&event=stopped")
    assert ask("a").endswith(b"5:peers0:e")


def test_table_has_ratios_to_the_first_and_says_what_does_not_count() -> None:
    first = result()
    slow = msgspec.structs.replace(result(late_ms=9.0), contender="slow", last_s=60.0)
    screen = Console(width=130, record=True, file=io.StringIO())
    screen.print(table([first, slow]))
    lines = screen.export_text().splitlines()
    assert lines[1].split()[:3] == ["cuntong", "30.0", "1.00"]
    assert lines[2].split()[:3] == ["slow", "60.0", "2.00"]
    assert lines[2].split()[-1] == "NO"


def test_copies_are_of_the_files_not_of_what_was_made_of_them() -> None:
    packed = msgspec.structs.replace(result(), payload_bytes=500_000, content_bytes=1_000_000)
    assert copies(packed) == pytest.approx(packed.copies_out / 2)

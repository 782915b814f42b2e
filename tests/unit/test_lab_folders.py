"""Working folders of the laboratory: told apart by their names, removed when nobody has them any more."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from cuntong_simulations.lab.folders import remove_abandoned, working_folder
from cuntong_simulations.lab.namespaces import INSIDE

_RUN = """
import sys
from cuntong_simulations.lab.folders import working_folder
with working_folder("R1") as folder:
    (folder / "places").mkdir()
    print(folder, flush=True)
    sys.stdin.read()
"""


@pytest.fixture(autouse=True)
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


@pytest.fixture
def other_run(temporary: Path) -> Iterator[subprocess.Popen[str]]:
    """A process that works in a folder until its standard input ends."""
    with subprocess.Popen(
        [sys.executable, "-c", _RUN],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "TMPDIR": str(temporary), "PYTHONPATH": os.pathsep.join(sys.path)},
    ) as process:
        yield process
        process.kill()


def _folder_of(process: subprocess.Popen[str]) -> Path:
    assert process.stdout is not None
    return Path(process.stdout.readline().strip())


def test_two_runs_are_told_apart_by_process_and_name(
    temporary: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(INSIDE, "4711")
    with working_folder("乡镇 1/R") as first, working_folder() as second:
        assert first.parent == second.parent == temporary
        assert first.name.startswith("cuntong-lab-4711-乡镇_1_R-")
        assert second.name.startswith("cuntong-lab-4711-")
        assert "乡" not in second.name
    assert list(temporary.iterdir()) == []


def test_name_that_is_too_long_is_cut(temporary: Path) -> None:
    with working_folder("长" * 255) as folder:
        assert folder.is_dir()


def test_killed_run_leaves_a_folder_that_the_next_one_removes(
    other_run: subprocess.Popen[str],
) -> None:
    folder = _folder_of(other_run)
    assert f"-{other_run.pid}-R1-" in folder.name
    with working_folder() as own:
        assert remove_abandoned() == []
        other_run.kill()
        other_run.wait()
        assert (folder / "places").is_dir()
        assert remove_abandoned() == [folder]
        assert not folder.exists()
        assert own.is_dir()


def test_what_only_looks_like_a_working_folder_stays(temporary: Path) -> None:
    (temporary / "precious").mkdir()
    (temporary / "cuntong-lab-1-link").symlink_to("precious")
    (temporary / "cuntong-lab-1-file").touch()
    (temporary / "cuntong-lab-12345678").mkdir()  # Of an earlier version, and perhaps in use.
    assert remove_abandoned() == []
    assert len(list(temporary.iterdir())) == 4


def test_folder_of_another_user_stays(temporary: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (temporary / "cuntong-lab-1-abc").mkdir()
    monkeypatch.setattr(os, "geteuid", lambda: 4711)
    assert remove_abandoned() == []
    assert (temporary / "cuntong-lab-1-abc").is_dir()

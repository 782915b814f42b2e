"""Files are written whole, and what a power cut leaves of one is removed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from cuntong_daemon.files import remove_unfinished, write_atomically

_KILLED = """
import os, signal, sys
from pathlib import Path
import cuntong_daemon.files as files
files.os.fsync = lambda _handle: os.kill(os.getpid(), signal.SIGKILL)
files.write_atomically(Path(sys.argv[1]), b"whole")
"""


def test_what_a_killed_writer_leaves_is_removed_and_nothing_else(tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "below"):
        folder.mkdir(exist_ok=True)
        write_atomically(folder / "kept.tmp-1", b"before")
        write_atomically(folder / ".hidden", b"before")
        killed = subprocess.run([sys.executable, "-c", _KILLED, folder / "kept.tmp-1"], check=False)
        assert killed.returncode == -9
        assert len(list(folder.glob(".tmp-*"))) == 1
    remove_unfinished(tmp_path)
    for folder in (tmp_path, tmp_path / "below"):
        files = [path for path in folder.iterdir() if path.is_file()]
        assert sorted(path.name for path in files) == [".hidden", "kept.tmp-1"]
        assert {path.read_bytes() for path in files} == {b"before"}


def test_a_folder_that_is_not_there_is_left_alone(tmp_path: Path) -> None:
    remove_unfinished(tmp_path / "none")
    assert list(tmp_path.iterdir()) == []

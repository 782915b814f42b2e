"""What is compiled is kept, and what is kept is what was compiled: by whomever, from the sources as they are now."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

import cuntong_simulations
from tests.support.strace import why_no_strace

_CALLER = """
from .called import called
from .compiled import compiled

@compiled
def caller() -> float:
    return called()
"""
_CALLED = """
from .compiled import compiled

@compiled
def called() -> float:
    return {value}
"""
_ASKED = "from cuntong_simulations.model.caller import caller; print(caller())"
_ASKED_AND_COUNTED = _ASKED + "; print(sum(caller.stats.cache_hits.values()))"

_DOUBLE = """
from .compiled import compiled

@compiled
def double(value):
    return value + value
"""
_DOUBLED = "from cuntong_simulations.model.double import double; print(double({value}))"


class Copy:
    """A copy of the package, and Python processes that use it."""

    def __init__(self, root: Path) -> None:
        self.model = root / "cuntong_simulations" / "model"
        self.kept = self.model / "__pycache__"
        self._environment = os.environ | {"PYTHONPATH": str(root), "PYTHONDONTWRITEBYTECODE": "1"}
        shutil.copytree(
            cuntong_simulations.__path__[0],
            self.model.parent,
            ignore=shutil.ignore_patterns("__pycache__"),
        )

    def begin(
        self, script: str, prefix: Sequence[str] = (), **environment: str
    ) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [*prefix, sys.executable, "-c", script],
            env=self._environment | environment,
            stdout=subprocess.PIPE,
            text=True,
        )

    def told(self, script: str, **environment: str) -> str:
        with self.begin(script, **environment) as process:
            out, _ = process.communicate()
        assert process.returncode == 0
        return out.strip()

    def files(self, begin: str) -> list[Path]:
        return sorted(self.kept.glob(f"{begin}*.nbc"))


@pytest.fixture
def copy(tmp_path: Path) -> Copy:
    made = Copy(tmp_path)
    (made.model / "caller.py").write_text(_CALLER)
    (made.model / "called.py").write_text(_CALLED.format(value="1.0"))
    return made


def test_a_change_in_a_file_that_is_called_from_another_is_not_missed(copy: Copy) -> None:
    for value in ("1.0", "1.0", "2.0"):
        (copy.model / "called.py").write_text(_CALLED.format(value=value))
        assert copy.told(_ASKED) == value
        # What was made from the sources as they were is gone.
        assert len(copy.files("caller")) == 1


def test_what_is_kept_is_used(copy: Copy) -> None:
    copy.told(_ASKED)
    (made,) = copy.files("caller")
    before = made.stat()
    assert copy.told(_ASKED_AND_COUNTED) == "1.0\n1"
    assert made.stat().st_mtime_ns == before.st_mtime_ns


def test_processes_that_compile_at_the_same_time_for_different_types_take_only_their_own(
    copy: Copy,
) -> None:
    if reason := why_no_strace():
        pytest.skip(reason)
    (copy.model / "double.py").write_text(_DOUBLE)
    injected = ["strace", "-D", "-qq", "-o", "/dev/null", "-e"]
    # One has looked what there is, and waits before it puts its first file in its place.
    waits = copy.begin(
        _DOUBLED.format(value=0.5),
        prefix=[*injected, "inject=rename:delay_enter=5000000:when=1"],
    )
    while not any("tmp" in path.name for path in copy.kept.glob("*")) and waits.poll() is None:
        time.sleep(0.01)
    # The other halts when its own first file is in its place, until the one has put there all of its files.
    halts = copy.begin(
        _DOUBLED.format(value=3), prefix=[*injected, "inject=rename:signal=SIGSTOP:when=1"]
    )
    with waits:
        waits.communicate()
    with halts:
        while halts.poll() is None:  # It may not have come to where it halts yet.
            halts.send_signal(signal.SIGCONT)
            time.sleep(0.1)
    assert (waits.returncode, halts.returncode) == (0, 0)
    for _ in range(2):
        assert copy.told(_DOUBLED.format(value=3)) == "6"
        assert copy.told(_DOUBLED.format(value=0.5)) == "1.0"
    assert len(copy.files("double")) == 2


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: b"",
        lambda data: data[:40],
        lambda data: data[:-1],
        lambda data: data[:-4096] + bytes(4096),
        lambda data: bytes(len(data)),
    ],
    ids=["empty", "almost empty", "a byte short", "zeros at the end", "zeros"],
)
def test_what_a_power_cut_damaged_is_compiled_again(
    copy: Copy, damage: Callable[[bytes], bytes]
) -> None:
    assert copy.told(_ASKED) == "1.0"
    (made,) = copy.files("caller")
    data = made.read_bytes()
    made.write_bytes(damage(data))
    assert copy.told(_ASKED) == "1.0"
    assert len(made.read_bytes()) > 40
    assert copy.told(_ASKED_AND_COUNTED) == "1.0\n1"


def test_where_nothing_can_be_kept_it_is_compiled_each_time(copy: Copy) -> None:
    copy.kept.write_text("")  # A folder can't be made here, nor below a device.
    nowhere = {"HOME": "/dev/null", "XDG_CACHE_HOME": "/dev/null"}
    assert copy.told(_ASKED, **nowhere) == "1.0"


def test_what_cannot_be_written_is_not_missed(copy: Copy) -> None:
    full = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100)); "
    assert copy.told(full + _ASKED) == "1.0"
    assert list(copy.kept.iterdir()) == []

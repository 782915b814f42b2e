"""What is compiled is never older than what it was compiled from."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import cuntong_simulations

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


def test_a_change_in_a_file_that_is_called_from_another_is_not_missed(tmp_path: Path) -> None:
    copy = tmp_path / "cuntong_simulations"
    shutil.copytree(
        cuntong_simulations.__path__[0], copy, ignore=shutil.ignore_patterns("*.nbi", "*.nbc", "*.pyc")
    )  # fmt: skip
    (copy / "model" / "caller.py").write_text(_CALLER)
    environment = os.environ | {"PYTHONPATH": str(tmp_path), "PYTHONDONTWRITEBYTECODE": "1"}
    for value in ("1.0", "1.0", "2.0"):
        (copy / "model" / "called.py").write_text(_CALLED.format(value=value))
        told = subprocess.run(
            [sys.executable, "-c", _ASKED], env=environment, capture_output=True, text=True, check=True
        )  # fmt: skip
        assert told.stdout.strip() == value
    assert list((copy / "model" / "__pycache__").glob("caller*.nbi"))

"""Watching a process's system calls, or changing what comes of them."""

from __future__ import annotations

import shutil
import subprocess


def why_no_strace() -> str | None:
    """Why it can't be used here; None when it can."""
    if shutil.which("strace") is None:
        return "strace isn't installed"
    done = subprocess.run(["strace", "-o", "/dev/null", "true"], capture_output=True, check=False)
    return None if done.returncode == 0 else "strace isn't permitted here"

"""Run a checkout of theupdateframework/tuf-conformance against `tuf_client.py`, in both profiles.

    python -m tests.conformance.run CHECKOUT PYTHON

CHECKOUT is a clone of the suite, PYTHON the interpreter of a virtual environment into which it was installed (it
pins its own version of tuf). The command `faketime` must be there. Ends with 0 when strict passes everything and
tolerant fails exactly what `tolerant.xfails` lists; xfails are strict.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
PROFILES = ("strict", "tolerant")


def run(checkout: Path, python: Path, profile: str) -> int:
    """Run the suite once; its exit code."""
    with tempfile.TemporaryDirectory() as folder:
        # The suite looks for expected failures at `<entrypoint>.xfails`, so the entry point is one word.
        entrypoint = Path(folder) / "client"
        client = f'"{sys.executable}" "{HERE / "tuf_client.py"}" --profile {profile}'
        entrypoint.write_text(f'#!/bin/sh\nexec {client} "$@"\n')
        entrypoint.chmod(0o755)
        xfails = HERE / f"{profile}.xfails"
        if xfails.exists():
            Path(f"{entrypoint}.xfails").write_text(xfails.read_text())
        command = [
            str(python.absolute()),
            *("-m", "pytest", "tuf_conformance", "-q", "-p", "no:cacheprovider"),
            *("--entrypoint", str(entrypoint)),
        ]
        environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}
        return subprocess.run(command, cwd=checkout, env=environment, check=False).returncode


def main() -> int:
    """Run both profiles."""
    checkout, python = map(Path, sys.argv[1:3])
    worst = 0
    for profile in PROFILES:
        print(f"== {profile}", flush=True)
        worst = max(worst, run(checkout, python, profile))
    return worst


if __name__ == "__main__":
    sys.exit(main())

"""A catalogue of 10,000 bundles verified: seconds, memory, and against plain parsing in the same run."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests.support.trust_repo import START, Node, Repository

BUNDLES = 10_000
MONTHS = 36
REPEATS = 5
_ROOT = Path(__file__).resolve().parents[2]
_MIB = 1024 * 1024


def _write(folder: Path) -> None:
    """Sign the catalogue once, outside the process that is measured."""
    from cuntong_protocol.divisions import NATION

    nation = Repository(NATION)
    for number in range(BUNDLES):
        month = f"{2026 + number % MONTHS // 12}{number % 12 + 1:02}"
        nation.list_bundle(f"bundle-{number:05}", month=month)
    nation.publish()
    for name, data in nation.files.items():
        (folder / name).write_bytes(data)


def _resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def _measure(folder: Path) -> None:
    """Verify from nothing, look again, restart; print the figures as JSON."""
    files = {path.name: path.read_bytes() for path in folder.glob("*.json")}
    with tempfile.TemporaryDirectory() as data:
        node = Node(Path(data))
        node.federation.bootstrap(files["1.root.json"], START)
        from cuntong_protocol.divisions import NATION

        for name, content in files.items():
            node.federation.spool.store_metadata(NATION, name, content)
        sizes = {name: len(content) for name, content in files.items()}
        files.clear()
        before = _resident_bytes()
        started = time.process_time()
        refresh = node.federation.refresh()
        verified_s = time.process_time() - started
        after = _resident_bytes()
        count = len(refresh.view.listings)
        started = time.process_time()
        for _ in range(REPEATS):
            node.federation.refresh()
        again_s = (time.process_time() - started) / REPEATS
        node.restart()
        started = time.process_time()
        node.federation.refresh()
        restart_s = time.process_time() - started
        node.close()
    started = time.process_time()
    for _ in range(REPEATS):
        for name in sizes:
            content = (folder / name).read_bytes()
            hashlib.sha256(content).digest()
            json.loads(content)
    plain_s = (time.process_time() - started) / REPEATS
    figures = {
        "count": count,
        "bytes": sum(sizes.values()),
        "verified_s": verified_s,
        "again_s": again_s,
        "restart_s": restart_s,
        "plain_s": plain_s,
        "memory": after - before,
    }
    print(json.dumps(figures))


def run() -> list[tuple[str, str]]:
    """Rows of (name, value)."""
    with tempfile.TemporaryDirectory() as folder:
        _write(Path(folder))
        output = subprocess.run(
            [sys.executable, "-m", "tests.benchmarks.catalogue", folder],
            cwd=_ROOT,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
            check=True,
            capture_output=True,
        ).stdout
    found = json.loads(output)
    return [
        ("bundles verified", f"{found['count']:,} in {MONTHS} months, {found['bytes']:,} bytes"),
        ("verified from nothing, CPU", f"{found['verified_s']:.2f} s"),
        ("against JSON parsing + SHA-256", f"{found['verified_s'] / found['plain_s']:.1f} x"),
        ("memory more", f"{found['memory'] / _MIB:.1f} MiB"),
        ("looked at again, nothing new, CPU", f"{found['again_s'] * 1000:.1f} ms"),
        ("first look after a restart, CPU", f"{found['restart_s']:.2f} s"),
    ]


if __name__ == "__main__":
    if len(sys.argv) > 1:
        _measure(Path(sys.argv[1]))
    else:
        for name, value in run():
            print(f"{name:40} {value}")

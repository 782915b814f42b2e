"""How fast a bundle is built, against `openssl dgst -sha256` over the same bytes with a process a core.

OpenSSL only reads and hashes each byte once; building hashes, plans and writes the payload, and waits for the disk. The
files don't compress, so nothing is gained by packing. What the disk alone takes for so many bytes is shown by `cp` and `sync`; a
file system that can clone (btrfs, XFS) needn't write them at all. `CUNTONG_BENCH_BYTES` sets how much (4 GB), `CUNTONG_BENCH_DIR`
where (the temporary folder); twice as much must fit there.
"""

from __future__ import annotations

import os
import random
import shutil
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from cuntong_protocol.bundle.descriptor import parse_bundle_id
from cuntong_protocol.bundle.metadata import parse_metadata
from cuntong_tools.publish.build import build_bundle
from cuntong_tools.publish.copying import clone

TOTAL_BYTES = int(os.environ.get("CUNTONG_BENCH_BYTES", "4_000_000_000"))
ROUNDS = 3
GOAL = 0.8
_MIB = 1 << 20
_SIZES = (512 * _MIB, 64 * _MIB, 64 * _MIB, 200 * _MIB, 8 * _MIB, 8 * _MIB, 3 * _MIB, 33 * _MIB + 1)
"""Like a shelf of films, lectures and scanned books; cut where the total is reached."""
_METADATA = """
title = "基准"
slug = "benchmark"
date = "2026-11-01"
"""


def _make_files(folder: Path) -> list[Path]:
    randomness = random.Random(1)
    files: list[Path] = []
    left_bytes = TOTAL_BYTES
    while left_bytes > 0:
        path = folder / f"{len(files):04}.bin"
        size = min(left_bytes, _SIZES[len(files) % len(_SIZES)])
        left_bytes -= size
        with path.open("wb") as file:
            while size > 0:
                file.write(randomness.randbytes(min(size, 8 * _MIB)))
                size -= 8 * _MIB
        files.append(path)
    return files


def _timed(work: Callable[[], object]) -> float:
    """Seconds that `work` takes."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def _openssl(files: list[Path], processes: int) -> None:
    shares: list[list[Path]] = [[] for _ in range(processes)]
    # Largest first to whoever has least: as even as it gets.
    for path in sorted(files, key=lambda path: -path.stat().st_size):
        min(shares, key=lambda share: sum(one.stat().st_size for one in share)).append(path)
    running = [
        subprocess.Popen(["openssl", "dgst", "-sha256", *share], stdout=subprocess.DEVNULL)
        for share in shares
        if share
    ]
    for process in running:
        if process.wait():
            raise RuntimeError("openssl failed")


def _plain_copy(folder: Path, target: Path) -> None:
    subprocess.run(["cp", "-r", "--reflink=never", folder, target], check=True)
    subprocess.run(["sync", "-f", target], check=True)


def _can_clone(file: Path, target: Path) -> bool:
    with file.open("rb") as source, target.open("wb") as copy:
        return clone(source.fileno(), copy.fileno())


def run() -> list[tuple[str, str]]:
    """Build and hash in turn, so that a busy machine hurts both."""
    bundle_id = parse_bundle_id("000000000000/202611/benchmark")
    metadata = parse_metadata(_METADATA, file="benchmark.toml", publisher=bundle_id.code)
    cores = os.cpu_count() or 1
    with tempfile.TemporaryDirectory(dir=os.environ.get("CUNTONG_BENCH_DIR")) as name:
        folder = Path(name) / "content"
        folder.mkdir()
        files = _make_files(folder)
        os.sync()
        _openssl(files, cores)  # Both find the same pages in memory, as far as they fit.
        can_clone = _can_clone(files[-1], Path(name) / "clone")
        hashing_s, building_s, copying_s = [], [], []
        for number in range(ROUNDS):
            output = Path(name) / f"built-{number}"
            output.mkdir()

            def build(output: Path = output) -> None:
                build_bundle(
                    folder,
                    metadata,
                    bundle_id=bundle_id,
                    revision=1,
                    output=output,
                    predecessor=None,
                    threads=None,
                    progress=None,
                )

            hashing_s.append(_timed(lambda: _openssl(files, cores)))
            building_s.append(_timed(build))
            shutil.rmtree(output)
            os.sync()
            copying_s.append(_timed(lambda output=output: _plain_copy(folder, output)))
            shutil.rmtree(output)
            os.sync()
    ratios = [hashing / building for hashing, building in zip(hashing_s, building_s, strict=True)]
    to_copying = [
        copying / building for copying, building in zip(copying_s, building_s, strict=True)
    ]
    gigabytes = TOTAL_BYTES / 1e9
    return [
        (
            f"{cores} x openssl dgst, {gigabytes:.1f} GB",
            f"{gigabytes / statistics.median(hashing_s):.2f} GB/s",
        ),
        ("build_bundle, the same files", f"{gigabytes / statistics.median(building_s):.2f} GB/s"),
        (
            "building / hashing",
            f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f}; goal {GOAL})",
        ),
        ("the file system can clone", "yes" if can_clone else "no: all is written once more"),
        ("cp and sync, the same files", f"{gigabytes / statistics.median(copying_s):.2f} GB/s"),
        (
            "building / cp and sync",
            f"{statistics.median(to_copying):.2f} ({min(to_copying):.2f} to {max(to_copying):.2f})",
        ),
    ]

"""How fast volumes are written and imported, against `cp -r` and `sha256sum` over the same bytes.

An export reads each byte once, hashes it for the manifest, writes it, waits for the medium, reads it back from there past the
page cache, and hashes it once more against the torrent. `cp` leaves what it wrote in memory, and `sha256sum` reads it from there.
An import is timed as a person sees it: from the command to the bundle in the library, by a daemon that was never connected. It reads
the volume, hashes and writes, reads back and hashes again.
Since `sha256sum` is slow where it isn't built with OpenSSL, the same with `openssl dgst` is shown too. `CUNTONG_BENCH_BYTES` sets
how much (4 GB), `CUNTONG_BENCH_DIR` where (the temporary folder); twice as much must fit there.
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
from functools import partial
from pathlib import Path

from cuntong_daemon.store.torrents import keep_torrent
from cuntong_protocol.bundle.merkle import FileHasher
from cuntong_protocol.bundle.torrent import HashedFile, make_torrent, piece_length_for
from cuntong_tools.media.plan import Wish
from tests.support.media_export import VILLAGE, Exporting, exporting
from tests.support.world import WEST, World, found_network

TOTAL_BYTES = int(os.environ.get("CUNTONG_BENCH_BYTES", "4_000_000_000"))
ROUNDS = 3
GOAL = 0.7
_MIB = 1 << 20
_SIZES = (512 * _MIB, 64 * _MIB, 64 * _MIB, 200 * _MIB, 8 * _MIB, 8 * _MIB, 3 * _MIB, 33 * _MIB + 1)
"""Like a shelf of films, lectures and scanned books; cut where the total is reached."""


def make_store(folder: Path) -> Exporting:
    """A county that holds one bundle of `TOTAL_BYTES`."""
    county = exporting(folder)
    randomness = random.Random(1)
    piece_length = piece_length_for(TOTAL_BYTES)
    content = folder / "content"
    content.mkdir()
    hashed: list[HashedFile] = []
    left_bytes = TOTAL_BYTES
    while left_bytes > 0:
        path = f"files/{len(hashed):04}.bin"
        size = min(left_bytes, _SIZES[len(hashed) % len(_SIZES)])
        left_bytes -= size
        hasher = FileHasher(piece_length)
        (content / path).parent.mkdir(exist_ok=True)
        with (content / path).open("wb") as file:
            for start in range(0, size, 8 * _MIB):
                data = randomness.randbytes(min(size - start, 8 * _MIB))
                hasher.update(data)
                file.write(data)
        hashed.append(HashedFile(path, size, *hasher.finish()))
    torrent = make_torrent("benchmark", piece_length, hashed)
    keep_torrent(county.paths, torrent)
    source = county.source(torrent)
    source.parent.mkdir(parents=True)
    content.rename(source)
    county.offer_torrent(torrent)
    return county


def _timed(work: Callable[[], object]) -> float:
    """Seconds that `work` takes."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def _run(*command: str | Path) -> None:
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def export_rows(county: Exporting, folder: Path) -> list[tuple[str, str]]:
    """Export and plain copying in turn, so that a busy machine hurts both."""
    source = county.source(county.torrents[county.bundles[0].id])
    exporting_s, copying_s, with_openssl_s = [], [], []
    for number in range(ROUNDS):
        target = folder / f"target-{number}"
        target.mkdir()
        exporting_s.append(
            _timed(lambda target=target: county.export(Wish(places=(VILLAGE,)), target))
        )
        shutil.rmtree(target)
        os.sync()
        target.mkdir()
        plain_s = _timed(lambda target=target: _run("cp", "-r", "--reflink=never", source, target))
        files = _files(target)
        copying_s.append(plain_s + _timed(lambda files=files: _run("sha256sum", *files)))
        with_openssl_s.append(
            plain_s + _timed(lambda files=files: _run("openssl", "dgst", "-sha256", *files))
        )
        shutil.rmtree(target)
        os.sync()
    gigabytes = TOTAL_BYTES / 1e9
    return [
        (
            f"export of {gigabytes:.1f} GB, read back",
            f"{gigabytes / statistics.median(exporting_s):.2f} GB/s",
        ),
        *_against("export", exporting_s, copying_s, with_openssl_s),
    ]


def import_rows(folder: Path) -> list[tuple[str, str]]:
    """One import for each round, into a village of its own, and plain copying."""
    template = found_network(folder / "founded")
    world = World(template, folder / "network")
    films = folder / "films"
    films.mkdir()
    randomness = random.Random(2)
    left_bytes, number = TOTAL_BYTES, 0
    while left_bytes > 0:
        size = min(left_bytes, _SIZES[number % len(_SIZES)])
        with (films / f"{number:04}.bin").open("wb") as file:
            for start in range(0, size, 8 * _MIB):
                file.write(randomness.randbytes(min(size - start, 8 * _MIB)))
        left_bytes, number = left_bytes - size, number + 1
    disk = folder / "disk"
    disk.mkdir()
    try:
        world.net.start(world.county)
        bundle = world.publish(world.county, films)
        world.until_complete(bundle, world.county, timeout_s=600)
        world.run(world.county, "media", "export", str(disk), "--for", WEST, "--yes")
        world.net.stop(world.county)
        shutil.rmtree(world.county.paths.store)
        shutil.rmtree(films)
        (volume,) = disk.glob("cuntong-*")
        copy = folder / "copy"
        importing_s, copying_s, with_openssl_s, peak = [], [], [], 0
        for number in range(ROUNDS):
            os.sync()
            plain_s = _timed(lambda: _run("cp", "-r", "--reflink=never", volume / "data", copy))
            files = _files(copy)
            copying_s.append(plain_s + _timed(lambda files=files: _run("sha256sum", *files)))
            with_openssl_s.append(
                plain_s + _timed(lambda files=files: _run("openssl", "dgst", "-sha256", *files))
            )
            shutil.rmtree(copy)
            os.sync()
            if number:
                world.stop()
                world = World(template, folder / f"network-{number}")
            world.net.start(world.west)
            importing_s.append(
                _timed(partial(world.run, world.west, "media", "import", str(volume)))
            )
            assert world.has(world.west, bundle)
            peak = max(peak, _peak_bytes(world))
            shutil.rmtree(world.west.paths.root / "store")
            shutil.rmtree(world.west.paths.library)
    finally:
        world.stop()
    gigabytes = TOTAL_BYTES / 1e9
    return [
        (
            f"import of {gigabytes:.1f} GB, shown",
            f"{gigabytes / statistics.median(importing_s):.2f} GB/s",
        ),
        *_against("import", importing_s, copying_s, with_openssl_s),
        ("daemon at its peak while it imports", f"{peak / _MIB:.0f} MiB resident"),
    ]


def _peak_bytes(world: World) -> int:
    process = world.west.process
    assert process is not None
    for line in Path(f"/proc/{process.pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    raise AssertionError(line)


def _against(
    what: str, ours_s: list[float], copying_s: list[float], with_openssl_s: list[float]
) -> list[tuple[str, str]]:
    rows: list[tuple[str, str]] = []
    for name, found, goal in (
        ("cp -r and sha256sum", copying_s, f"; goal {GOAL}"),
        ("cp -r and openssl dgst", with_openssl_s, ""),
    ):
        ratios = [plain / ours for plain, ours in zip(found, ours_s, strict=True)]
        rows += [
            (name, f"{TOTAL_BYTES / 1e9 / statistics.median(found):.2f} GB/s"),
            (
                f"{what} / {name}",
                f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f}{goal})",
            ),
        ]
    return rows


def run() -> list[tuple[str, str]]:
    with tempfile.TemporaryDirectory(dir=os.environ.get("CUNTONG_BENCH_DIR")) as name:
        folder = Path(name)
        county = make_store(folder / "exporting")
        os.sync()
        rows = export_rows(county, folder)
        shutil.rmtree(folder / "exporting")
        return rows + import_rows(folder)

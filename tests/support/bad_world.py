"""Two enrolled places of real daemons for the tests of bad input: built once, copied for each test.

The centre (an authority that holds one published bundle) and a county below it, over TCP, so that a bundle
crosses in less than a second. Daemons may be started in a namespace of their own, as another user or at
another time.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import os
import random
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import pytest

from cuntong_daemon.control.messages import Status
from cuntong_protocol.errors import CuntongError
from cuntong_tools.demo.network import Network, Place

CENTRE = "000000000000"
COUNTY = "110101000000"
BUNDLE = f"{CENTRE}/202611/shici"
IS_FULL = bool(os.environ.get("CUNTONG_E2E_FULL"))
"""Wider sweeps than `make test` has time for."""
PATIENCE_S = 90.0
"""Nothing here takes a tenth of it on an idle machine; it only ends a test that would hang."""
ENGLISH = {"LC_ALL": "C.UTF-8", "LANGUAGE": "en"}
CHINESE = {"LC_ALL": "C.UTF-8", "LANG": "zh_CN.UTF-8", "LANGUAGE": "zh_CN"}
_DAEMON = [sys.executable, "-m", "tests.support.impatient"]
_TOOL = [sys.executable, "-m", "cuntong_tools"]
_ROOT = Path(__file__).parents[2]

T = TypeVar("T")


@dataclass(frozen=True)
class World:
    """A copy of the two places. `network` runs commands and daemons."""

    network: Network
    centre: Place
    county: Place
    content: Path

    def start(
        self,
        *places: Place,
        prefix: Sequence[str] = (),
        environment: Mapping[str, str] | None = None,
    ) -> None:
        """Start daemons and wait until each answers on its socket."""
        for place in places:
            spawn(self.network, place, prefix=prefix, environment=environment)
        for place in places:
            wait_until(functools.partial(self.answers, place), place)

    def answers(self, place: Place) -> bool:
        """Whether the daemon of a place is up."""
        assert place.process is not None
        assert place.process.poll() is None, log_of(place)
        try:
            self.network.ask(place, "traffic")
        except CuntongError:
            return False
        return True

    def has_bundle(self, place: Place, *, revision: int = 1) -> bool:
        """Whether the bundle is complete there. The daemon must live."""
        assert place.process is not None
        assert place.process.poll() is None, log_of(place)
        return self.network.progress(place, BUNDLE, revision) == 1.0

    def wait_bundle(self, place: Place, *, revision: int = 1, content: Path | None = None) -> None:
        """Wait until the public of a place sees exactly the published files."""
        wait_until(lambda: self.has_bundle(place, revision=revision), place)
        wait_until(library(place).exists, place)
        assert_same(content or self.content, library(place))

    def wait_status(self, place: Place, is_right: Callable[[Status], bool]) -> Status:
        """Wait until the status of a daemon says something."""
        found: list[Status] = []

        def look() -> bool:
            assert place.process is not None
            assert place.process.poll() is None, log_of(place)
            try:
                found.append(self.network.status(place))
            except CuntongError:
                return False
            return is_right(found[-1])

        wait_until(look, place, explain=lambda: repr(found[-1:]))
        return found[-1]


def spawn(
    network: Network,
    place: Place,
    *,
    prefix: Sequence[str] = (),
    environment: Mapping[str, str] | None = None,
) -> subprocess.Popen[bytes]:
    """Start a daemon; its words go to the place's log."""
    with place.log.open("ab") as log:
        place.process = subprocess.Popen(
            [*prefix, *_DAEMON, "--data", _inside(place)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env={**os.environ, "PYTHONPATH": str(_ROOT), **ENGLISH, **(environment or {})},
            start_new_session=True,
        )
    return place.process


def _inside(place: Place) -> str:
    """The data directory as its daemon sees it, when `place` is seen through `SmallDisk.seen`."""
    return re.sub(r"^/proc/[0-9]+/root", "", str(place.paths.root))


def refusal(
    world: World,
    place: Place,
    *,
    prefix: Sequence[str] = (),
    environment: Mapping[str, str] | None = None,
) -> tuple[int, str]:
    """Start a daemon that mustn't start: its exit code and the one line that says why."""
    place.log.unlink(missing_ok=True)
    process = spawn(world.network, place, prefix=prefix, environment=environment)
    try:
        code = process.wait(PATIENCE_S)
    finally:
        world.network.kill(place)
    said = [line for line in log_of(place).splitlines() if not line.startswith("{")]
    assert len(said) == 1, log_of(place)
    assert said[0].startswith("cuntongd: ")
    return code, said[0]


def log_of(place: Place) -> str:
    """All that a daemon wrote."""
    return place.log.read_text(errors="replace") if place.log.exists() else ""


def assert_no_traceback(*places: Place) -> None:
    """Nothing was unforeseen."""
    for place in places:
        assert "Traceback" not in log_of(place), log_of(place)


def library(place: Place) -> Path:
    """Where the public of a place finds the bundle."""
    return place.paths.library / BUNDLE


def files_below(folder: Path) -> dict[str, bytes]:
    """All files, by path."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def assert_same(published: Path, shown: Path) -> None:
    """Byte for byte."""
    wanted, found = files_below(published), files_below(shown)
    assert sorted(found) == sorted(wanted)
    assert [path for path in wanted if wanted[path] != found[path]] == []


def assert_never_half(world: World, place: Place) -> None:
    """The public sees the whole bundle or none of it."""
    if library(place).exists():
        assert_same(world.content, library(place))


def wait_until(
    is_true: Callable[[], bool],
    place: Place | None = None,
    *,
    explain: Callable[[], str] = str,
) -> None:
    """Ask again and again until it is true."""
    deadline = time.monotonic() + PATIENCE_S
    while not is_true():
        if time.monotonic() > deadline:
            pytest.fail(explain() + (log_of(place) if place is not None else ""))
        time.sleep(0.05)


def keys_of(place: Place) -> list[str]:
    """`--keys` for each stick of an authority."""
    return [word for stick in place.sticks for word in ("--keys", str(stick))]


def tool(
    place: Place,
    *arguments: str,
    passphrases: str | None = None,
    environment: Mapping[str, str] | None = None,
    prefix: Sequence[str] = (),
) -> subprocess.CompletedProcess[str]:
    """A command as an administrator types it; with `--passphrase-fd 0` when passphrases are given."""
    secret = [] if passphrases is None else ["--passphrase-fd", "0"]
    return subprocess.run(
        [*prefix, *_TOOL, *arguments, "--data", _inside(place), *secret],
        input=passphrases or "",
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env={**os.environ, **ENGLISH, **(environment or {})},
    )


def spawn_tool(
    place: Place, *arguments: str, passphrases: str | None = None
) -> subprocess.Popen[str]:
    """Like `tool`, but not waited for."""
    secret = [] if passphrases is None else ["--passphrase-fd", "0"]
    process = subprocess.Popen(
        [*_TOOL, *arguments, "--data", _inside(place), *secret],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        text=True,
        env={**os.environ, **ENGLISH},
    )
    assert process.stdin is not None
    with contextlib.suppress(BrokenPipeError), process.stdin as pipe:
        pipe.write(passphrases or "")
    return process


def said(done: subprocess.CompletedProcess[str]) -> str:
    """The one line that a refused command says."""
    lines = [line for line in done.stderr.splitlines() if line.startswith("cuntong: ")]
    assert len(lines) == 1, (done.stdout, done.stderr)
    assert "Traceback" not in done.stderr
    return lines[0]


def make_content(folder: Path, *, size: int = 300_000, seed: int = 1) -> None:
    """Two files that don't pack, a few dozen that do."""
    source = random.Random(seed)
    (folder / "名篇").mkdir(parents=True)
    (folder / "a.bin").write_bytes(source.randbytes(size))
    (folder / "名篇" / "录音.bin").write_bytes(source.randbytes(size // 2))
    for number in range(30):
        text = "".join(source.choices("床前明月光疑是地上霜举头望低思故乡", k=1500))
        (folder / f"诗{number}.txt").write_text(text)


@functools.cache
def _template() -> tuple[Network, Path]:
    base = Path(tempfile.mkdtemp(prefix="cuntong-bad-"))
    atexit.register(shutil.rmtree, base, ignore_errors=True)
    network = Network(base / "net", ENGLISH)
    centre, county = _places(network)
    network.found(centre)
    network.enrol(centre)
    network.enrol(county)
    content = base / "net" / "shici"
    make_content(content)
    metadata = base / "net" / "shici.toml"
    metadata.write_text('title = "诗词"\nslug = "shici"\ndate = "2026-11-01"\ncategory = "book"\n')
    network.start(centre)
    try:
        network.run(centre, "publish", str(content), str(metadata), *keys_of(centre), "--yes")
        wait_until(lambda: network.progress(centre, BUNDLE, 1) == 1.0, centre)
    finally:
        network.stop(centre)
    return network, content


def _places(network: Network) -> tuple[Place, Place]:
    centre = network.add(CENTRE, "国家中心", is_authority=True)
    return centre, network.add(COUNTY, "东城区", centre)


def copied_world(folder: Path) -> World:
    """A fresh copy of the template below `folder`; nothing runs yet."""
    made, content = _template()
    target = folder / "net"
    shutil.copytree(made.folder, target, symlinks=True)
    network = Network(target, ENGLISH)
    network._subnet = made._subnet  # The addresses are in the configurations.
    centre, county = _places(network)
    centre.log.unlink(missing_ok=True)
    return World(network, centre, county, content)


@contextmanager
def running_world(folder: Path) -> Iterator[World]:
    """`copied_world`; whatever still runs at the end is stopped."""
    world = copied_world(folder)
    try:
        yield world
    finally:
        for place in world.network.places:
            world.network.kill(place)


# A small disk of one's own, and other times.


class SmallDisk:
    """A real file system of a few megabytes, mounted in a namespace of its own: no root is needed.

    Tests look into it through `/proc/<pid>/root`. SQLite doesn't get through there (it resolves links by itself), so
    daemons are started inside.
    """

    def __init__(self, target: Path, size: int) -> None:
        target.mkdir(parents=True, exist_ok=True)
        self._target = target
        user = [] if os.geteuid() == 0 else ["--user", "--map-root-user"]
        script = (
            f"mount -t tmpfs -o size={size},mode=755 tmpfs '{target}' && echo ready && exec cat"
        )
        self._holder = subprocess.Popen(
            ["unshare", *user, "--mount", "--propagation", "private", "sh", "-c", script],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        assert self._holder.stdout is not None
        if self._holder.stdout.readline() != b"ready\n":
            self.close()
            pytest.skip("this machine lets nobody mount a small disk in a namespace")
        self.path = self.seen(target)

    def seen(self, path: Path) -> Path:
        """How a path of the namespace is reached from outside."""
        return Path(f"/proc/{self._holder.pid}/root{path}")

    @property
    def prefix(self) -> list[str]:
        """Put before a command, it runs inside."""
        user = [] if os.geteuid() == 0 else ["--user", "--preserve-credentials"]
        return ["nsenter", *user, "--mount", "--target", str(self._holder.pid), "--"]

    def remount(self, options: str) -> None:
        """Change its size, or make it read-only."""
        # Not merged with what /proc says: that names the owner by a number that the namespace doesn't have.
        self._run(
            "mount", "--options-mode", "ignore", "-t", "tmpfs",
            "-o", f"remount,{options}", "none", str(self._target),
        )  # fmt: skip

    def make_read_only(self, name: str) -> None:
        """A folder on it, whoever writes just then."""
        folder = self._target / name
        self._run("mkdir", "-p", str(folder))
        self._run("mount", "--bind", str(folder), str(folder))
        self._run("mount", "-o", "remount,bind,ro", str(folder))

    def make_writable(self, name: str) -> None:
        """Undo `make_read_only`."""
        self._run("umount", str(self._target / name))

    def _run(self, *command: str) -> None:
        subprocess.run([*self.prefix, *command], check=True, capture_output=True)

    def used(self) -> int:
        """Bytes."""
        found = os.statvfs(self.path)
        return (found.f_blocks - found.f_bfree) * found.f_frsize

    def fill(self) -> None:
        """To the last byte, with a file `filler`."""
        with contextlib.suppress(OSError), (self.path / "filler").open("wb", buffering=0) as file:
            for size in (65_536, 4_096, 1):
                with contextlib.suppress(OSError):
                    while file.write(bytes(size)) == size:
                        pass

    def clear(self) -> None:
        """Remove everything on it."""
        for path in self.path.iterdir():
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink()

    def close(self) -> None:
        self._holder.kill()
        self._holder.communicate()


@contextmanager
def small_disk(target: Path, size: int) -> Iterator[SmallDisk]:
    """A `SmallDisk` for the block."""
    if shutil.which("unshare") is None or shutil.which("nsenter") is None:
        pytest.skip("needs unshare and nsenter (Debian package util-linux)")
    disk = SmallDisk(target, size)
    try:
        yield disk
    finally:
        disk.close()


def fake_time(moment: str) -> dict[str, str]:
    """Environment in which a process's wall clock starts at `moment` ("2000-01-01 00:00:00")."""
    for folder in (
        "/usr/lib/x86_64-linux-gnu",
        "/usr/lib/aarch64-linux-gnu",
        "/usr/lib64",
        "/usr/lib",
    ):
        found = Path(folder) / "faketime" / "libfaketime.so.1"
        if found.exists():
            return {
                "LD_PRELOAD": str(found),
                "FAKETIME": f"@{moment}",
                "FAKETIME_DONT_FAKE_MONOTONIC": "1",
                "TZ": "UTC",
            }
    pytest.skip("needs libfaketime (Debian package faketime)")

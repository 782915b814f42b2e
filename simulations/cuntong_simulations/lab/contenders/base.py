"""What contenders share: folders, processes in the places, and who has all files."""

from __future__ import annotations

import filecmp
import os
import shutil
import subprocess
from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path

from cuntong_simulations.lab.topology import Topology
from cuntong_simulations.lab.wires import Wires

STOP_S = 5.0


class Processes(ABC):
    """A contender made of programs: one folder a place, `files/` in it is what it has of the payload.

    Attributes:
        programs: What has to be installed.
    """

    name = ""
    programs: tuple[str, ...] = ()

    def __init__(self) -> None:
        self._running: list[subprocess.Popen[bytes]] = []
        self._main: dict[str, subprocess.Popen[bytes]] = {}
        self._good: dict[str, set[Path]] = {}
        self._expected: list[Path] = []
        self._content = Path()

    @classmethod
    def missing(cls) -> list[str]:
        """The programs that aren't there."""
        return [program for program in cls.programs if shutil.which(program) is None]

    # What `run` calls.

    def prepare(self, topology: Topology, folder: Path, seed: int) -> None:
        self.topology = topology
        self.folder = folder
        for node in topology.nodes:
            self.files(node.code).mkdir(parents=True)

    def start(self, wires: Wires) -> None:
        self.wires = wires

    def publish(self, content: Path) -> int:
        self._content = content
        self._expected = [path for path in content.rglob("*") if path.is_file()]
        self.begin(content)
        return sum(path.stat().st_size for path in self._expected)

    @abstractmethod
    def begin(self, content: Path) -> None:
        """Let it go."""

    def has_begun(self, code: str) -> bool:
        return True

    def is_done(self, code: str) -> bool:
        """Each file is there and has the right bytes; those that were found good aren't read again."""
        good = self._good.setdefault(code, set())
        received = self.received(code)
        for path in self._expected:
            if path in good:
                continue
            found = received / path.relative_to(self._content)
            try:
                if not filecmp.cmp(path, found, shallow=False):
                    return False
            except OSError:
                return False
            good.add(path)
        return True

    def pids(self) -> dict[str, int]:
        return {code: process.pid for code, process in self._main.items()}

    def stop(self) -> None:
        for process in self._running:
            process.terminate()
        for process in self._running:
            try:
                process.wait(STOP_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    # For the contenders.

    def files(self, code: str) -> Path:
        return self.folder / code / "files"

    def received(self, code: str) -> Path:
        """Where the payload's files appear at a place."""
        return self.files(code)

    def address(self, code: str) -> str:
        return self.topology.node(code).address

    def near(self, code: str) -> list[str]:
        """Parent, siblings and children of a place."""
        node = self.topology.node(code)
        siblings = (
            [found.code for found in self.topology.children(node.parent)] if node.parent else []
        )
        found = [node.parent, *siblings, *(child.code for child in self.topology.children(code))]
        return [other for other in found if other and other != code]

    def spawn(
        self,
        code: str,
        *command: str | Path,
        is_main: bool = True,
        environment: Mapping[str, str] | None = None,
    ) -> subprocess.Popen[bytes]:
        """Start a program at a place; it is ended by `stop`. Its words go to `log` in the place's folder."""
        with (self.folder / code / "log").open("ab") as log:
            process = subprocess.Popen(
                [*self.wires.namespaces[code].prefix, *map(str, command)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self.folder / code,
                env={**os.environ, "HOME": str(self.folder / code), **(environment or {})},
            )
        self._running.append(process)
        if is_main:
            self._main[code] = process
        return process

"""A network of real daemons for one end-to-end test, and how a test looks at it.

Founding authorities and enrolling nodes takes many commands, so it is done once (`found_network`). Each test
gets a copy of those data directories on loopback addresses of its own, and starts only the daemons that it needs.
"""

from __future__ import annotations

import random
import shutil
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cuntong_daemon.authority.repository import AuthorityRepository
from cuntong_daemon.control.messages import BundleStatus, Status
from cuntong_protocol.bundle.descriptor import decode_descriptor
from cuntong_protocol.errors import CuntongError
from cuntong_tools.demo.network import Network, Place

ENVIRONMENT = {"LANG": "C.UTF-8", "LC_ALL": "C.UTF-8", "LANGUAGE": ""}
WAIT_S = 60.0
"""A bound for tests that hang; each passes in a small part of it."""
POLL_S = 0.05
LOG_LINES = 15
NATION, PROVINCE = "000000000000", "440000000000"
COUNTY, WEST, EAST = "441900000000", "441900003005", "441900003006"


@dataclass(frozen=True, slots=True)
class Bundle:
    """What `cuntong publish` or `revise` has listed."""

    id: str
    revision: int
    payload_bytes: int
    infohash: bytes


def found_network(folder: Path) -> Network:
    """Nation, province, county and two villages, enrolled by the real commands; nothing runs yet."""
    network = Network(folder, ENVIRONMENT)
    nation = network.add(NATION, "国家中心", is_authority=True)
    province = network.add(PROVINCE, "广东省", nation, is_authority=True)
    county = network.add(COUNTY, "东莞市", province, is_authority=True)
    west = network.add(WEST, "梨川村", county)
    east = network.add(EAST, "花园村", county)
    for place in (nation, province, county):
        network.found(place)
    for place in (nation, province, county, west, east):
        network.enrol(place)
    return network


class World:
    """A copy of a founded network."""

    def __init__(self, template: Network, folder: Path) -> None:
        shutil.copytree(template.folder, folder, symlinks=True)
        self.folder = folder
        self.net = Network(folder, ENVIRONMENT)
        copies: dict[str, Place] = {}
        for place in template.places:
            copy = self.net.add(
                place.code,
                place.name,
                copies[place.parent.code] if place.parent is not None else None,
                is_authority=place.is_authority,
            )
            copies[place.code] = copy
            config = copy.paths.config
            subnets = (f"{item.address.rpartition('.')[0]}." for item in (place, copy))
            config.write_text(config.read_text().replace(*subnets))
        self.nation, self.province, self.county, self.west, self.east = self.net.places[:5]

    @property
    def all(self) -> list[Place]:
        return list(self.net.places)

    @property
    def villages(self) -> list[Place]:
        return [self.west, self.east]

    # Running.

    def start(self, *places: Place) -> None:
        """Start daemons (all of them, if none is named); returns when they are linked to a parent."""
        chosen = list(places) or self.all
        self.net.start(*chosen)
        for place in chosen:
            if place.parent is not None and place.parent.process is not None:
                self.until(
                    f"{place.name} is connected",
                    lambda place=place: self.status(place).parent.state == "connected",
                )

    def stop(self) -> None:
        self.net.stop(*self.all)

    def limit(self, kbit_s: int, *places: Place) -> None:
        """Hold the links of places that don't run yet to a rate, in both directions."""
        for place in places:
            limits = f"[bandwidth]\ndown_kbit_s = {kbit_s}\nup_kbit_s = {kbit_s}\n\n"
            place.paths.config.write_text(limits + place.paths.config.read_text())

    def subscribe(self, place: Place, toml: str) -> None:
        """Set the subscriptions of a place that doesn't run yet."""
        config = place.paths.config
        config.write_text(f"[subscriptions]\n{toml}\n\n" + config.read_text())

    # Doing.

    def publish(
        self, place: Place, folder: Path, *, may_hold: Sequence[str] = (), **metadata: str
    ) -> Bundle:
        """`cuntong publish`, with a metadata file beside the folder.

        Args:
            may_hold: Codes, for a licence that is restricted to these places.
        """
        said = {
            "title": f"{folder.name}",
            "slug": folder.name,
            "date": "2026-11-01",
            "category": "book",
        } | metadata
        file = folder.with_suffix(".toml")
        lines = [f'{key} = "{value}"\n' for key, value in said.items()]
        if may_hold:
            scope = ", ".join(f'"{code}"' for code in may_hold)
            lines.append(f'[licence]\nkind = "restricted"\nscope = [{scope}]\n')
        file.write_text("".join(lines))
        output = self.run(place, "publish", str(folder), str(file), *self.keys(place))
        return self._listed(place, output)

    def revise(self, place: Place, bundle: Bundle, folder: Path) -> Bundle:
        """`cuntong revise`."""
        output = self.run(place, "revise", bundle.id, str(folder), *self.keys(place))
        return self._listed(place, output)

    def withdraw(self, place: Place, bundle: Bundle, reason: str) -> None:
        self.run(place, "withdraw", bundle.id, "--reason", reason, *self.keys(place))

    def run(self, place: Place, *arguments: str) -> str:
        return self.net.run(place, *arguments)

    @staticmethod
    def keys(place: Place, *sticks: int) -> list[str]:
        """Options that put memory sticks in; all of them, if none is named."""
        chosen = [place.sticks[number - 1] for number in sticks] or place.sticks
        return [word for stick in chosen for word in ("--keys", str(stick))] + ["--yes"]

    @staticmethod
    def _listed(place: Place, output: str) -> Bundle:
        """The bundle that the last line of `publish` or `revise` names, as it was signed."""
        identifier = output.split()[-1]
        repository = AuthorityRepository(place.paths.authority)
        target = repository.load().listing(identifier)
        assert target is not None, output
        signed = decode_descriptor(repository.blob(target))
        return Bundle(identifier, signed.revision, signed.payload_size, signed.infohash)

    # Looking.

    def status(self, place: Place) -> Status:
        return self.net.status(place)

    def bundle(self, place: Place, identifier: str) -> BundleStatus | None:
        """What `cuntong status` says of a bundle at a place."""
        return next((it for it in self.status(place).bundles if it.id == identifier), None)

    def has(self, place: Place, bundle: Bundle) -> bool:
        return self.net.progress(place, bundle.id, bundle.revision) == 1.0

    def library(self, place: Place, bundle: Bundle) -> Path:
        """What the reading room sees."""
        return place.paths.library / bundle.id

    def store(self, place: Place, bundle: Bundle) -> Path:
        return place.paths.store / bundle.infohash.hex()

    def traffic(self, place: Place) -> dict[str, Any]:
        """Bytes since the daemon's start (see `Api`)."""
        answer: dict[str, Any] = self.net.ask(place, "traffic")
        return answer

    def wire_bytes(self, place: Place) -> int:
        """Bytes of the swarms that crossed a place's link, both ways, with all overhead."""
        traffic = self.traffic(place)
        return int(traffic["down_wire"]) + int(traffic["up_wire"])

    def until(self, what: str, condition: Callable[[], object], timeout_s: float = WAIT_S) -> float:
        """Wait until a condition holds; a daemon that doesn't answer counts as "not yet".

        Returns:
            Seconds that it took.

        Raises:
            AssertionError: it took too long, with what every daemon says.
        """
        began = time.monotonic()
        while True:
            try:
                if condition():
                    return time.monotonic() - began
            except CuntongError:
                pass
            if time.monotonic() - began > timeout_s:
                raise AssertionError(f"Not within {timeout_s:.0f} s: {what}\n{self.report()}")
            time.sleep(POLL_S)

    def until_complete(self, bundle: Bundle, *places: Place, timeout_s: float = WAIT_S) -> float:
        """Wait until places show a bundle's files (all places, if none is named)."""
        chosen = places or tuple(place for place in self.all if place.process is not None)
        names = ", ".join(place.name for place in chosen)
        return self.until(
            f"{bundle.id} revision {bundle.revision} is complete at {names}",
            lambda: all(self.has(place, bundle) for place in chosen),
            timeout_s,
        )

    def until_gone(self, bundle: Bundle, place: Place) -> None:
        """Wait until a place has thrown a replaced payload away: it does so after the new one has come."""
        self.until("what was replaced is gone", lambda: not self.store(place, bundle).exists())

    def report(self) -> str:
        """What each daemon says of itself, and the end of its log."""
        lines = []
        for place in self.all:
            lines.append(f"== {place.name} {place.code}")
            if place.process is None:
                lines.append("(not running)")
            else:
                try:
                    status = self.status(place)
                    lines += [str(status.parent), *map(str, status.bundles)]
                    lines += [f"! {problem}" for problem in status.problems]
                except CuntongError as error:
                    lines.append(f"no answer: {error}")
            if place.log.exists():
                lines += place.log.read_text(errors="replace").splitlines()[-LOG_LINES:]
        return "\n".join(lines)


def assert_same_folder(published: Path, shown: Path) -> None:
    """`diff -r` finds nothing, in either direction."""
    done = subprocess.run(
        ["diff", "-r", str(published), str(shown)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout[:2000] + done.stderr[:2000]


def make_films(folder: Path, sizes: Sequence[int], *, seed: int) -> Path:
    """A folder of files that don't compress, with Chinese names."""
    folder.mkdir(parents=True)
    randomness = random.Random(seed)
    for number, size in enumerate(sizes, start=1):
        (folder / f"第{number}集.mp4").write_bytes(randomness.randbytes(size))
    return folder


def make_poems(folder: Path, *, files: int, seed: int, lines: int = 300) -> Path:
    """A folder of text in several sub-folders; it compresses about as well as real text does."""
    randomness = random.Random(seed)
    letters = [chr(0x4E00 + at) for at in randomness.sample(range(20_000), 2_500)]
    weights = [1 / (rank + 3) for rank in range(len(letters))]
    words = ["".join(randomness.choices(letters, weights, k=2)) for _ in range(6_000)]
    ranks = [1 / (rank + 10) for rank in range(len(words))]
    for number in range(files):
        path = folder / f"卷{number % 5 + 1}" / f"诗·{number:03}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        text = "\n".join(
            '  {"诗句": "' + "".join(randomness.choices(words, ranks, k=10)) + '。"},'
            for _ in range(lines)
        )
        path.write_text(f"[\n{text}\n  null\n]\n", encoding="utf-8")
    return folder

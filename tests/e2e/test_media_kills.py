"""Exports and imports that are interrupted at random moments, in every way in which a disk is lost: they always finish.

What is interrupted is the real command, or the real daemon. The full run holds media to the speed of a slow stick, so
that moments are spread over the reading and writing and not over the start of the command.
"""

from __future__ import annotations

import contextlib
import os
import random
import re
import select
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
import pytest

from cuntong_daemon.store.errors import StoreError
from cuntong_daemon.store.pieces import PieceSet, checked_pieces
from cuntong_daemon.store.torrents import load_torrent, payload_folder
from cuntong_daemon.swarm.resume import load_resume
from cuntong_tools.demo.network import Place
from cuntong_tools.media.plan import Plan, exports_folder
from tests.e2e.test_media import export, status, validate, volumes_in
from tests.support.media_export import content_of
from tests.support.removable import Medium, can_mount, media_in, slow_down, wait_until
from tests.support.world import (
    ENVIRONMENT,
    WAIT_S,
    WEST,
    Bundle,
    World,
    assert_same_folder,
    make_films,
    make_poems,
)

IS_FULL = bool(os.environ.get("CUNTONG_E2E_FULL"))
ROUNDS = int(os.environ.get("CUNTONG_KILLS") or ("30" if IS_FULL else "4"))
SCALE = 4 if IS_FULL else 1
SPEED_BYTES_S = 20_000_000 if IS_FULL else 0
START_S = 0.15
"""Until then Python starts, and not the command: it alone says what Ctrl-C does."""
RUN = "main()"
"""The line of `python -m cuntong_tools` in each traceback of what the command itself does."""
TOO_LATE = 0.95
"""Share of an undisturbed run after which nobody is interrupted: it might have ended."""
TWICE = 0.3
"""How often what goes on is interrupted once more."""
MEDIUM_MB = 60 + 30 * SCALE
SMALL_MB = 8
HOUSE_MB = 90 + 60 * SCALE
WISHES: Mapping[str, Sequence[str]] = {
    "as large as the medium": [],
    "some volumes": ["--volume", "9MB"],
    "one volume": ["--volume", "2GB"],
}
PULLED = frozenset({"pulled", "unmounted"})
NEED_IMAGES = PULLED | {"filled", "too small", "disk filled", "disk full", "power cut"}

Media = Callable[..., Medium]


@pytest.fixture
def media(tmp_path: Path) -> Iterator[Media]:
    """Makes media, and lets Ctrl-C reach commands: who is started in the background hands on that it is ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with media_in(tmp_path) as make:
            yield make
    finally:
        signal.signal(signal.SIGINT, before)


# --- Commands -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Ended:
    """A command that has ended.

    Attributes:
        code: Its exit code; negative: the signal that killed it.
        said: What a person saw.
        written: Bytes that it wrote.
    """

    code: int
    said: str
    written: int
    took_s: float

    @property
    def reason(self) -> str:
        """The stable code of its last sentence, or the exit code."""
        found = re.search(r"\(([a-z]+\.[a-z0-9-]+)\)$", self.said.strip())
        return found[1] if found and self.code > 0 else str(self.code)

    def says(self, words: str) -> bool:
        """Whether these words were among what it said, wherever its lines were broken."""
        return words in " ".join(self.said.split())

    @property
    def is_python_interrupted(self) -> bool:
        """Ctrl-C came while Python started or ended: no command ran that could have said anything."""
        return self.code == -signal.SIGINT and f"\n    {RUN}\n" not in self.said


class Command:
    """A `cuntong` command that runs."""

    def __init__(self, place: Place, *arguments: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "cuntong_tools", *arguments, "--data", str(place.paths.root)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env={**os.environ, **ENVIRONMENT, "COLUMNS": "80"},
            start_new_session=True,
        )
        slow_down(self.process.pid)
        self._began = time.monotonic()
        self._handle = os.pidfd_open(self.process.pid)

    def ends_within(self, seconds: float) -> bool:
        """Wait for its end, but not longer than until this long after its start."""
        left = self._began + seconds - time.monotonic()
        return bool(select.select([self._handle], [], [], max(0.0, left))[0])

    def end(self) -> Ended:
        """Wait for its end.

        Raises:
            AssertionError: it hangs.
        """
        if not self.ends_within(WAIT_S):
            self.process.send_signal(signal.SIGABRT)
            raise AssertionError(f"It hangs: {self.process.args!r}")
        took_s = time.monotonic() - self._began
        written = transferred(self.process.pid)[1]  # As long as nobody has asked for its exit code.
        os.close(self._handle)
        said, _ = self.process.communicate()
        return Ended(self.process.returncode, said, written, took_s)


def transferred(pid: int) -> tuple[int, int]:
    """Bytes that a process has read and written."""
    counts = dict(line.split(": ") for line in Path(f"/proc/{pid}/io").read_text().splitlines())
    return int(counts["rchar"]), int(counts["wchar"])


# --- Rounds ---------------------------------------------------------------------------------------


@dataclass
class Round:
    """A run that was interrupted, and what it took to finish it.

    Attributes:
        how: Each interruption, and what the command said then.
        is_late: It had ended before.
        damaged: What isn't as it should be at the end.
        untrue: Commands that said what wasn't so, or what nobody understands.
        read_again: Bytes more than an undisturbed run reads, in all; what a daemon reads as it starts doesn't count.
        written_again: The same of what is written.
        seconds: That the last run took.
    """

    kind: str
    how: list[str] = field(default_factory=list)
    is_late: bool = False
    is_finished: bool = False
    damaged: list[str] = field(default_factory=list)
    untrue: list[str] = field(default_factory=list)
    read_again: int = 0
    written_again: int = 0
    seconds: float = 0.0

    @contextlib.contextmanager
    def checked(self, what: str) -> Iterator[None]:
        """Note what a check finds."""
        try:
            yield
        except (AssertionError, OSError, subprocess.CalledProcessError) as error:
            self.damaged.append(f"{what}: {error!r}")

    def judge(self, kind: str, ended: Ended, allowed: Iterable[str], *, is_done: bool) -> None:
        """Note how a command ended that was interrupted like this."""
        self.how.append(f"{kind}: {ended.reason}")
        # Ctrl-C in a destructor is lost, and Python says where.
        own_words = re.split("^Exception ignored in", ended.said, flags=re.MULTILINE)[0]
        if kind == "Ctrl-C" and ended.is_python_interrupted:
            return
        if (
            "Traceback" in own_words
            or ended.reason not in {"0", *allowed}
            or (ended.code == 0 and not is_done)
        ):
            self.untrue.append(f"{kind}: ended with {ended.reason} and said:\n{ended.said}")


def interrupt_often(
    what: str, kinds: Sequence[str], payload: int, interrupted: Callable[[str], Round]
) -> None:
    """Run all rounds, print a line for each kind, and judge."""
    rounds: list[Round] = []
    for _ in range(3 * ROUNDS):
        result = interrupted(kinds[len(rounds) % len(kinds)])
        print(f"{what}: {result}", flush=True)
        if result.is_late:
            assert result.damaged == []
            assert result.untrue == []
            continue
        rounds.append(result)
        if len(rounds) == ROUNDS:
            break
    for kind in [*dict.fromkeys(kinds), ""]:
        some = [it for it in rounds if not kind or it.kind == kind]
        if some:
            print(
                f"{what}, {kind or 'all'}: {len(some)} rounds, "
                f"{sum(it.is_finished for it in some)} finished, "
                f"{sum(bool(it.damaged) for it in some)} damaged, "
                f"{sum(bool(it.untrue) for it in some)} told wrongly; on average "
                f"{average(it.written_again / payload for it in some):.1%} of {payload} bytes "
                f"written again (at most {max(it.written_again for it in some) / payload:.1%}), "
                f"{average(it.read_again / payload for it in some):.1%} read again, "
                f"{average(it.seconds for it in some):.1f} s to finish"
            )
    for how, count in sorted(Counter(how for it in rounds for how in it.how).items()):
        print(f"{what}: {count} x {how}")
    assert len(rounds) == ROUNDS
    assert [it for it in rounds if it.damaged or not it.is_finished] == []
    assert [it.untrue for it in rounds if it.untrue] == []


def average(values: Iterable[float]) -> float:
    found = list(values)
    return sum(found) / len(found)


def possible(kinds: Iterable[str]) -> list[str]:
    """Of kinds of interruptions, those that can be made here."""
    return [kind for kind in kinds if can_mount() or kind not in NEED_IMAGES]


@dataclass(frozen=True)
class Posted:
    """What the county has: each bundle, and the folder that was published."""

    folders: Sequence[tuple[Bundle, Path]]

    @property
    def payload_bytes(self) -> int:
        return sum(bundle.payload_bytes for bundle, _ in self.folders)


def post(world: World, folder: Path) -> Posted:
    """Let the county publish three bundles."""
    mb = SCALE * 1_000_000
    folders = [
        make_films(folder / "films", [5 * mb, 2 * mb, 70_000], seed=1),
        make_films(folder / "opera", [6 * mb, mb], seed=2),
        make_poems(folder / "poems", files=20 * SCALE, seed=3, lines=60),
    ]
    world.net.start(world.county)
    posted = Posted([(world.publish(world.county, it), it) for it in folders])
    for bundle, _ in posted.folders:
        world.until_complete(bundle, world.county)
    return posted


def temporary_files(*folders: Path) -> list[Path]:
    """What was begun and is never looked at again."""
    return [path for folder in folders for path in folder.rglob("*tmp*")]


# --- Export ---------------------------------------------------------------------------------------

GONE = frozenset({"media.vanished", "media.no-target", "media.not-mounted"})
EXPORT_ENDS: Mapping[str, frozenset[str]] = {
    "killed": frozenset({"-9"}),
    "pulled": GONE,
    "Ctrl-C": frozenset({"usage.stopped"}),
    "filled": frozenset({"media.full", "media.no-room", "media.volume-too-small"}),
    "unmounted": GONE,
    "terminated": frozenset({"-15", "usage.stopped"}),
    "daemon killed": frozenset({"control.no-daemon", "control.hung-up"}),
    "too small": frozenset({"media.no-room"}),
    "renamed": GONE,
}
"""How an export that is interrupted may end, by kind."""
ONCE_MORE = ("killed", "Ctrl-C", "daemon killed", "pulled", "filled")


class Exports:
    """A county that exports the same again and again, each time onto a fresh medium."""

    def __init__(self, world: World, posted: Posted, media: Media) -> None:
        self._world = world
        self._county = world.county
        self._posted = posted
        self._media = media
        self._randomness = random.Random(ROUNDS)
        self._undisturbed: dict[tuple[str, bool], Ended] = {}

    def undisturbed(self, wish: str, medium: Medium) -> Ended:
        """What a wish takes when nobody interrupts it, on a medium of the same sort."""
        known = wish, medium.is_image
        if known not in self._undisturbed:
            other = self._fresh("undisturbed", is_folder=not medium.is_image)
            ended = self._undisturbed[known] = self._start(other, wish).end()
            assert ended.code == 0, ended.said
            other.remove()
        return self._undisturbed[known]

    def interrupted(self, kind: str) -> Round:
        """One round."""
        result = Round(kind)
        wish = self._randomness.choice(list(WISHES))
        kinds = [kind]
        if kind == "too small":
            wish, kinds = "one volume", []
            self._try_small(result, wish)
        if self._randomness.random() < TWICE:
            kinds.append(self._randomness.choice(possible(ONCE_MORE)))
        is_folder = "renamed" in kinds or not can_mount()
        medium = self._fresh("medium", is_folder=is_folder)
        whole = self.undisturbed(wish, medium)
        if is_folder:
            kinds = ["renamed" if it in NEED_IMAGES else it for it in kinds]
        written = sum(self._interrupt(result, medium, wish, it, whole.took_s) for it in kinds)
        if not self._is_done(medium):
            ended = self._start(medium, wish).end()
            written += ended.written
            result.seconds = ended.took_s
            if ended.code != 0:
                result.damaged.append(f"didn't finish: {ended.said}")
        result.is_finished = self._is_done(medium)
        result.written_again = max(0, written - whole.written)
        self._check(result, medium)
        with result.checked("it can be unmounted"):
            medium.remove()
        return result

    def _try_small(self, result: Round, wish: str) -> None:
        """A medium that is too small is told before anything is written."""
        small = self._media("medium", mb=SMALL_MB)
        small.put_in()
        ended = self._start(small, wish).end()
        result.judge("too small", ended, EXPORT_ENDS["too small"], is_done=False)
        with result.checked("nothing is written"):
            assert list(small.path.iterdir()) == []
        small.remove()

    def _interrupt(
        self, result: Round, medium: Medium, wish: str, kind: str, whole_s: float
    ) -> int:
        """Interrupt one run at a random moment; returns how many bytes it has written."""
        if self._is_done(medium):
            return 0
        moment_s = self._randomness.uniform(0.0, TOO_LATE) * whole_s
        if kind == "Ctrl-C":
            moment_s = max(moment_s, START_S)
        command = self._start(medium, wish)
        if command.ends_within(moment_s):
            result.is_late = not result.how
            return command.end().written
        match kind:
            case "killed":
                command.process.kill()
            case "terminated":
                command.process.terminate()
            case "Ctrl-C":
                command.process.send_signal(signal.SIGINT)
            case "pulled":
                medium.vanish(is_failing=True)
            case "unmounted" | "renamed":
                medium.vanish()
            case "filled":
                medium.fill()
            case "daemon killed":
                self._world.net.kill(self._county)
        ended = command.end()
        print(f"  {kind} at {moment_s:.2f} of {whole_s:.2f} s: {ended.reason}", flush=True)
        if not medium.is_in:
            medium.put_in(speed_bytes_s=SPEED_BYTES_S)
        medium.make_room()
        result.judge(kind, ended, EXPORT_ENDS[kind], is_done=self._is_done(medium))
        if self._county.process is None:
            self._world.net.start(self._county)
        return ended.written

    def _fresh(self, name: str, *, is_folder: bool) -> Medium:
        kind = self._randomness.choice(["ext2", "ext4"])
        medium = self._media(name, mb=0 if is_folder else MEDIUM_MB, kind=kind)
        medium.put_in(speed_bytes_s=SPEED_BYTES_S)
        return medium

    def _start(self, medium: Medium, wish: str) -> Command:
        words = ["media", "export", str(medium.path), "--for", WEST, *WISHES[wish], "--yes"]
        return Command(self._county, *words)

    def _is_done(self, medium: Medium) -> bool:
        """Whether all volumes of the set that lies on the medium are noted as written."""
        plans = exports_folder(self._county.paths)
        return any(
            not msgspec.msgpack.decode((plans / serial / "plan").read_bytes(), type=Plan).undone
            for serial in {path.name.split("-")[1] for path in volumes_in(medium.path)}
        )

    def _check(self, result: Round, medium: Medium) -> None:
        """What lies there is whole, right, and nothing else."""
        paths, volumes = self._county.paths, volumes_in(medium.path)
        with result.checked("nothing but volumes of one set"):
            assert sorted(medium.path.iterdir()) == sorted(volumes)
            assert len({path.name.rpartition("-")[0] for path in volumes}) == 1
        for volume in volumes:
            with result.checked("valid"):
                validate(volume)
        for bundle, _ in self._posted.folders:
            torrent = load_torrent(paths, bundle.infohash)
            source = payload_folder(paths, torrent)
            with result.checked("the same as in the store"):
                found = content_of(torrent, volumes)
                assert found.keys() == {file.path for file in torrent.files}
                for path, data in found.items():
                    assert data == (source / path).read_bytes(), path
        with result.checked("nothing temporary"):
            assert temporary_files(medium.path, paths.media) == []


@pytest.mark.timeout(60 + ROUNDS * 60)
def test_export_that_is_interrupted_in_any_way_goes_on_with_the_same_command(
    world: World, media: Media, tmp_path: Path
) -> None:
    posted = post(world, tmp_path)
    exports = Exports(world, posted, media)
    interrupt_often("export", possible(EXPORT_ENDS), posted.payload_bytes, exports.interrupted)


# --- Import ---------------------------------------------------------------------------------------

HUNG_UP = frozenset({"control.hung-up", "control.no-daemon"})
LOST = frozenset({"media.gone", "media.no-such-path", "media.nothing-found"})
DISK_FULL = frozenset({"store.disk-full"})
"""When it was full before any content came; else that is told of each bundle, and the import goes on by itself."""
IMPORT_ENDS: Mapping[str, frozenset[str]] = {
    "daemon killed": HUNG_UP,
    "pulled": LOST,
    "power cut": HUNG_UP,
    "ejected": frozenset({"media.stopped"}),
    "disk filled": DISK_FULL,
    "daemon stopped": HUNG_UP,
    "unmounted": LOST,
    "command killed": frozenset({"-9"}),
    "disk full": DISK_FULL,
    "renamed": LOST,
    "Ctrl-C": frozenset({"usage.stopped"}),
}
"""How an import that is interrupted may end, by kind."""


class Imports:
    """A village that imports the same volumes again and again, each time with nothing."""

    def __init__(self, world: World, posted: Posted, media: Media, sets: Sequence[Path]) -> None:
        """Prepare.

        Args:
            sets: Folders, each with the volumes of one set, for the village.
        """
        self._world = world
        self._west = world.west
        self._posted = posted
        self._media = media
        self._sets = sets
        self._randomness = random.Random(ROUNDS)
        self._enrolled = self._west.folder / "enrolled"
        self._west.paths.root.rename(self._enrolled)
        self._undisturbed: dict[Path, Cost] = {}

    def undisturbed(self, volumes: Path) -> Cost:
        """What an import takes when nobody interrupts it."""
        if volumes not in self._undisturbed:
            stick, house = self._fresh("undisturbed", volumes)
            self._start()
            with self._counted() as cost:
                ended = self._import(stick).end()
            assert ended.code == 0, ended.said
            self._undisturbed[volumes] = cost
            self._world.net.stop(self._west)
            stick.remove()
            house.remove()
        return self._undisturbed[volumes]

    def interrupted(self, kind: str) -> Round:
        """One round."""
        result = Round(kind)
        volumes = self._randomness.choice(self._sets)
        whole = self.undisturbed(volumes)
        stick, house = self._fresh("stick", volumes)
        kinds = [kind]
        if self._randomness.random() < TWICE:
            kinds.append(self._randomness.choice(possible(IMPORT_ENDS)))
        self._start()
        costs = [self._interrupt(result, stick, house, it, whole) for it in kinds]
        with self._counted() as cost:
            ended = self._import(stick).end()
        if ended.code != 0:
            result.damaged.append(f"didn't finish: {ended.said}")
        result.seconds = ended.took_s
        result.read_again = sum(it.read for it in [*costs, cost]) - whole.read
        result.written_again = sum(it.written for it in [*costs, cost]) - whole.written
        self._check(result, stick)
        self._world.net.stop(self._west)
        with result.checked("it can be unmounted"):
            stick.remove()
            house.remove()
        return result

    def _interrupt(
        self, result: Round, stick: Medium, house: Medium, kind: str, whole: Cost
    ) -> Cost:
        """Interrupt one run at a random moment; returns what it took."""
        daemon = self._west.process
        assert daemon is not None
        moment_s = self._randomness.uniform(0.0, TOO_LATE) * whole.seconds
        if kind == "Ctrl-C":
            moment_s = max(moment_s, START_S)
        if kind == "disk full":
            house.fill(but_bytes=self._posted.payload_bytes // 2)
            moment_s = WAIT_S
        volume = volumes_in(stick.path)[0]
        hidden = volume.with_name(f".{volume.name}")
        was_told = True
        with self._counted() as cost:
            command = self._import(stick)
            is_late = command.ends_within(moment_s)
            match "" if is_late else kind:
                case "daemon killed":
                    daemon.kill()
                case "daemon stopped":
                    daemon.terminate()
                case "power cut":
                    daemon.send_signal(signal.SIGSTOP)
                    house.vanish(is_failing=True)
                    daemon.kill()
                case "command killed":
                    command.process.kill()
                case "Ctrl-C":
                    command.process.send_signal(signal.SIGINT)
                case "ejected":
                    told = self._world.run(self._west, "media", "eject", str(stick.path))
                    was_told = "Nothing here uses" not in " ".join(told.split())
                    if was_told:
                        with result.checked("it can be unmounted as soon as that is said"):
                            stick.take_out()
                case "renamed":
                    volume.rename(hidden)
                case "pulled":
                    stick.vanish(is_failing=True)
                case "unmounted":
                    stick.vanish()
                case "disk filled":
                    house.fill()
            ended = command.end()
            if kind in ("daemon killed", "daemon stopped", "power cut") and not is_late:
                # As long as nobody has asked for its exit code it can be counted.
                os.waitid(os.P_PID, daemon.pid, os.WEXITED | os.WNOWAIT)
            elif kind in ("command killed", "Ctrl-C"):
                wait_until("the import goes on", lambda: self._is_idle())
        print(f"  {kind} at {moment_s:.2f} of {whole.seconds:.2f} s: {ended.reason}", flush=True)
        if kind == "daemon stopped" and not is_late:
            with result.checked("the daemon stops in order"):
                assert daemon.wait(WAIT_S) == 0
        if daemon.poll() is not None:
            self._world.net.kill(self._west)  # It isn't there any more.
        if not house.is_in:
            house.put_in()
        # It may have been done just before, and said so: the disk knows, when it is back and whoever runs.
        is_interrupted = was_told and (kind == "disk full" or not is_late)
        if not is_interrupted:
            result.is_late = not result.how
        else:
            is_told = IMPORT_ENDS[kind] is DISK_FULL and ended.says("The disk is full.")
            is_done = ended.code == 0 and (is_told or self._shows_all())
            result.judge(kind, ended, IMPORT_ENDS[kind], is_done=is_done)
        self._look(result)
        house.make_room()
        if not stick.is_in:
            stick.put_in(speed_bytes_s=SPEED_BYTES_S)
        if hidden.exists():
            hidden.rename(volume)
        if self._west.process is None:
            self._start()
        return cost

    def _is_idle(self) -> bool:
        return status(self._world, self._west).running is None

    def _shows_all(self) -> bool:
        bundles = (bundle for bundle, _ in self._posted.folders)
        return all(self._world.library(self._west, it).exists() for it in bundles)

    def _has_all(self) -> bool:
        return all(self._world.has(self._west, bundle) for bundle, _ in self._posted.folders)

    def _fresh(self, name: str, volumes: Path) -> tuple[Medium, Medium]:
        """A stick with volumes, and the village as it was when it was enrolled."""
        stick = self._media(f"stick-{name}", mb=MEDIUM_MB)
        stick.put_in()
        shutil.copytree(volumes, stick.path, dirs_exist_ok=True)
        stick.take_out()  # What is in memory of it is forgotten.
        stick.put_in(speed_bytes_s=SPEED_BYTES_S)
        root = self._west.paths.root
        house = self._media(root.name, root.parent, mb=HOUSE_MB)
        house.put_in()
        shutil.copytree(self._enrolled, root, dirs_exist_ok=True)
        os.sync()
        return stick, house

    def _start(self) -> None:
        self._world.net.start(self._west)
        assert self._west.process is not None
        slow_down(self._west.process.pid)

    def _import(self, stick: Medium) -> Command:
        return Command(self._west, "media", "import", str(stick.path))

    @contextlib.contextmanager
    def _counted(self) -> Iterator[Cost]:
        """What the daemon reads and writes meanwhile."""
        assert self._west.process is not None
        pid, cost, began = self._west.process.pid, Cost(), time.monotonic()
        before = transferred(pid)
        yield cost
        after = transferred(pid)
        cost.seconds = time.monotonic() - began
        cost.read, cost.written = after[0] - before[0], after[1] - before[1]

    def _look(self, result: Round) -> None:
        """What is shown is right, and what counts as here is here."""
        paths = self._west.paths
        for bundle, folder in self._posted.folders:
            if self._world.library(self._west, bundle).exists():
                with result.checked("nothing wrong is shown"):
                    assert_same_folder(folder, self._world.library(self._west, bundle))
            with contextlib.suppress(StoreError), result.checked("what counts as here is here"):
                torrent = load_torrent(paths, bundle.infohash)
                claimed = PieceSet.from_bytes(
                    torrent.piece_count, load_resume(paths, torrent).pieces
                )
                assert checked_pieces(torrent, payload_folder(paths, torrent), claimed) == claimed

    def _check(self, result: Round, stick: Medium) -> None:
        """All is here, and right, and nothing else is left."""
        world, west = self._world, self._west
        result.is_finished = self._has_all()
        for bundle, folder in self._posted.folders:
            with result.checked("the same as was published"):
                assert_same_folder(folder, world.library(west, bundle))
            with result.checked("it is sound"):
                assert "1 bundle is sound." in world.run(west, "verify", bundle.id)
        with result.checked("nothing is left to do"):
            assert world.status(west).problems == []
            assert [it.missing for it in status(world, west).sets] == [[]]
        self._look(result)
        with result.checked("nothing temporary"):
            assert temporary_files(west.paths.root, stick.path) == []
        log = west.log.read_text(errors="replace")
        if "Traceback" in log:
            result.damaged.append(f"the daemon told of a fault of its own: {log}")
        west.log.unlink()


@dataclass
class Cost:
    """What a run took of the daemon: seconds, bytes read and bytes written."""

    seconds: float = 0.0
    read: int = 0
    written: int = 0


@pytest.mark.timeout(60 + ROUNDS * 60)
def test_import_that_is_interrupted_in_any_way_is_finished_by_the_next_one(
    world: World, media: Media, tmp_path: Path
) -> None:
    posted = post(world, tmp_path)
    sets = []
    for name in ("some volumes", "one volume"):
        sets.append(tmp_path / "post" / name)
        export(world, world.county, sets[-1], WEST, options=WISHES[name])
    world.net.stop(world.county)
    imports = Imports(world, posted, media, sets)
    interrupt_often("import", possible(IMPORT_ENDS), posted.payload_bytes, imports.interrupted)

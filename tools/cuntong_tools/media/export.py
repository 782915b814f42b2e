"""From what the daemon offers to finished volumes (SPEC 12.8).

Content is read from the data directory, while the daemon runs. A volume that was begun is gone on with: what lies on the
medium and is right stays there (`writing`).
"""

from __future__ import annotations

import contextlib
import datetime as dt
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from importlib import metadata
from pathlib import Path, PurePosixPath
from types import TracebackType
from typing import Self

from cuntong_daemon.media.receipts import load_identity
from cuntong_daemon.paths import DataPaths
from cuntong_daemon.policy.volumes import Stretch, needed
from cuntong_daemon.store.errors import StoreError
from cuntong_daemon.store.torrents import load_torrent, payload_folder, torrent_path
from cuntong_daemon.trust.spool import Spool
from cuntong_protocol.bundle.torrent import Torrent
from cuntong_protocol.datacast.errors import DatacastError
from cuntong_protocol.divisions import Division
from cuntong_protocol.errors import Fault
from cuntong_protocol.media.errors import MediaError
from cuntong_protocol.media.layout import (
    VOLUME_FILE,
    again,
    catalogue_file,
    torrent_file,
    volume_folder,
)
from cuntong_protocol.media.papers import Volume, VolumeBundle, encode_volume
from cuntong_protocol.texts import N_, Sentence
from cuntong_tools.output import format_bytes
from cuntong_tools.publish.scan import show_path

from .bag import (
    BAG_INFO_FILE,
    BAGIT_FILE,
    BAGIT_TEXT,
    MANIFEST_FILE,
    TAG_MANIFEST_FILE,
    bag_info,
    manifest,
    payload_oxum,
    tag_manifest,
)
from .letter import Letter, write_letter
from .medium import Target
from .plan import (
    Ask,
    HeldPlan,
    Plan,
    PlannedBundle,
    Wish,
    make_plan,
    medium_for,
    payload_of,
    prune_plans,
    unfinished,
    why_outdated,
)
from .writing import Content, Entry, Report, VolumeFiles

CATALOGUE_TRIES = 5
"""A centre replaces its own catalogue in a moment."""
ROOM_DIVISOR = 200
"""Half of what was reserved when volumes were cut must be left when one is written: the reckoning isn't exact."""


@dataclass(frozen=True, slots=True)
class WrittenVolume:
    """A finished volume: its folder as a person finds it, how many bundles, and bytes of content."""

    number: int
    folder: Path
    bundles: int
    content_bytes: int


class Exporter:
    """Writes the volumes of a plan.

    Attributes:
        bundles: That the daemon offered, in the order of writing.
        offer: What it said beside them.
        damaged: Bundles that were left out, since the store's copy is damaged; their titles by ID.
    """

    def __init__(self, paths: DataPaths, wish: Wish, ask: Ask) -> None:
        """Ask the daemon.

        Raises:
            CuntongError: what the daemon said, or that it doesn't run.
        """
        self._paths = paths
        self._wish = wish
        self._ask = ask
        self.bundles, self.offer = ask(wish)
        self.damaged: dict[str, str] = {}
        self._catalogue_bytes: dict[str, int] = {}
        self._held: HeldPlan | None = None
        self._identity = load_identity(Division(self.offer.code), paths.keys)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._release()

    @property
    def plan(self) -> Plan:
        if self._held is None:
            raise RuntimeError("There is no plan yet.")
        return self._held.plan

    def resume(self, targets: Sequence[Target]) -> Sentence | None:
        """Look for an unfinished plan (`has_plan`).

        Returns:
            Why one that was found is given up.
        """
        self._release()
        self._held = unfinished(self._paths, self._wish)
        if self._held is None:
            return None
        reason = why_outdated(self._paths, self._held.plan, self.bundles, self.offer)
        if reason is not None:
            self.give_up(targets)
        return reason

    @property
    def has_plan(self) -> bool:
        return self._held is not None

    def give_up(self, targets: Sequence[Target]) -> None:
        """Forget the plan, and remove what lies on the targets of volumes that were never finished."""
        if self._held is not None:
            for number in self.plan.undone:
                for target in targets:
                    name = volume_folder(self.plan.serial, number)
                    shutil.rmtree(target.folder / name, ignore_errors=True)
            self._held.discard()
        self._release()

    def make_plan(self, targets: Sequence[Target]) -> None:
        """Make a new plan; it is kept when the first volume is begun.

        Raises:
            MediaError: `media.nothing-to-export`, `media.volume-too-small`, `media.too-many-volumes`,
                `media.catalogue-changing`.
        """
        catalogues = self._catalogues()
        medium = medium_for(self._wish.volume, targets)
        plan, damaged = make_plan(
            self._paths, self._wish, self.bundles, self.offer, catalogues, medium
        )
        self.damaged |= {bundle.id: bundle.title for bundle in damaged}
        if not plan.bundles and not self._wish.is_catalogue_only:
            raise MediaError(
                "media.nothing-to-export",
                N_(
                    "There is nothing to export: the places have everything that is here and meant for them. For the catalogue alone: --catalogue"
                ),
                fault=Fault.REFUSED,
            )
        self._held = HeldPlan(self._paths, plan)

    def assign(self, targets: Sequence[Target]) -> list[tuple[int, Target]]:
        """Which volumes that are still to come go where, in the order of writing.

        A volume that was begun goes on where it lies; the others are put where there is room, the first target first.
        """
        free = {target.device: target.free_bytes for target in targets}
        found: list[tuple[int, Target]] = []
        for number in self.plan.undone:
            name = volume_folder(self.plan.serial, number)
            for target in sorted(targets, key=lambda it: not (it.folder / name).is_dir()):
                there = _taken_bytes(target.folder / name)
                room = free[target.device] + there
                if self.plan.volumes[number - 1].content_bytes > room:
                    continue
                need = self.needed_bytes(number, target)
                if need + need // ROOM_DIVISOR <= room:
                    free[target.device] -= max(need - there, 0)
                    found.append((number, target))
                    break
        return found

    def needed_bytes(self, number: int, target: Target) -> int:
        """What a volume takes on a medium, reckoned generously."""
        if target.cluster_bytes <= self.plan.cluster_bytes:
            return self.plan.volumes[number - 1].needed_bytes
        # Planned for small clusters, it may go to a medium with large ones after all.
        if not self._catalogue_bytes:
            self._catalogues()
        shares = (
            (payload_of(self._paths, torrent), stretches)
            for _, torrent, stretches in self._shares(number)
        )
        return needed(shares, self._catalogue_bytes, target.cluster_bytes).taken_bytes

    def write(self, number: int, target: Target, report: Report) -> WrittenVolume:
        """Write a volume, read it back, and note that it is done.

        Raises:
            MediaError: see `Target.errors` and `VolumeFiles`; `media.no-room`, `media.catalogue-changing`.
        """
        if self._held is None:
            raise RuntimeError("There is no plan yet.")
        self._held.save()
        name = volume_folder(self.plan.serial, number)
        folder = target.folder / name
        catalogues = self._catalogues()
        self._check_room(number, target)
        # What everything hangs on, and lies there twice.
        vital: dict[PurePosixPath, Callable[[], bytes]] = {
            catalogue_file(authority): partial(bytes, data)
            for authority, data in catalogues.items()
        }
        with VolumeFiles(target, folder, self._load, report) as files:
            for bundle in self._bundles(number):
                if bundle.id not in self.damaged:
                    path = torrent_file(bundle.infohash)
                    vital[path] = partial(self._torrent_bytes, bundle.infohash)
            for path, make in vital.items():
                files.put(str(path), make)
            for _, torrent, stretches in self._shares(number):
                source = payload_folder(self._paths, torrent)
                for stretch in stretches:
                    files.place(Content(torrent, source, stretch))
            files.finish_content()
            for bundle in self._bundles(number):
                if bundle.infohash in files.damaged:
                    self.damaged[bundle.id] = bundle.title
                    path = torrent_file(bundle.infohash)
                    files.drop(str(path))
                    vital.pop(path, None)
            paper = self._paper(number)
            signed = encode_volume(paper, self._identity.key, self._identity.chain_der)
            vital[VOLUME_FILE] = partial(bytes, signed)
            files.put(str(VOLUME_FILE), vital[VOLUME_FILE])
            for path, make in vital.items():
                files.put(str(again(path)), make)
            for tag, data in self._tag_files(paper, files.finish()).items():
                files.put(tag, partial(bytes, data))
            files.prove()
            files.put(BAGIT_FILE, partial(bytes, BAGIT_TEXT))
            files.prove()
        target.check()
        self._held.mark_done(number)
        prune_plans(self._paths)
        return WrittenVolume(
            number,
            target.path / name,
            len(paper.bundles),
            sum(bundle.bytes for bundle in paper.bundles),
        )

    def _release(self) -> None:
        if self._held is not None:
            self._held.close()
            self._held = None

    def _bundles(self, number: int) -> list[PlannedBundle]:
        return [self.plan.bundles[share.bundle] for share in self.plan.volumes[number - 1].shares]

    def _shares(self, number: int) -> Iterator[tuple[PlannedBundle, Torrent, list[Stretch]]]:
        """What goes onto a volume; one torrent is in memory at a time."""
        for share in self.plan.volumes[number - 1].shares:
            bundle = self.plan.bundles[share.bundle]
            if bundle.id in self.damaged:
                continue
            try:
                torrent = load_torrent(self._paths, bundle.infohash)
            except StoreError:
                self.damaged[bundle.id] = bundle.title
                continue
            yield bundle, torrent, share.stretches

    def _load(self, infohash: bytes) -> tuple[Torrent, Path]:
        torrent = load_torrent(self._paths, infohash)
        return torrent, payload_folder(self._paths, torrent)

    def _torrent_bytes(self, infohash: bytes) -> bytes:
        """The file of a torrent that was loaded before."""
        try:
            return torrent_path(self._paths, infohash).read_bytes()
        except OSError:
            return load_torrent(self._paths, infohash).encode()  # It says what is wrong.

    def _catalogues(self) -> dict[str, bytes]:
        """A snapshot of each authority's catalogue."""
        # It needs what reads the daemon's database, which takes a moment to load.
        from cuntong_daemon.datacast.lineup import (
            LineupCatalogue,
            catalogue_files,
            catalogue_snapshot,
        )

        spool = Spool(self._paths, Division(self.offer.code))
        for _ in range(CATALOGUE_TRIES):
            found: dict[str, bytes] = {}
            with contextlib.suppress(DatacastError):
                for it in self.offer.catalogues:
                    wanted = LineupCatalogue(
                        authority=it.authority,
                        version=it.version,
                        sha256=bytes.fromhex(it.sha256),
                    )
                    files = catalogue_files(spool, wanted)
                    found[it.authority] = catalogue_snapshot(it.authority, files)
                self._catalogue_bytes = {name: len(data) for name, data in found.items()}
                return found
            _, self.offer = self._ask(self._wish)
        raise MediaError(
            "media.catalogue-changing",
            N_("The catalogue is being replaced: run the same command again in a minute."),
            fault=Fault.SYSTEM,
        )

    def _check_room(self, number: int, target: Target) -> None:
        found = needed(
            (
                (payload_of(self._paths, torrent), stretches)
                for _, torrent, stretches in self._shares(number)
            ),
            self._catalogue_bytes,
            target.cluster_bytes,
        )
        there = _taken_bytes(target.folder / volume_folder(self.plan.serial, number))
        free, entries = target.free_bytes + there, target.free_entries
        if found.taken_bytes > free:
            raise no_room(number, found.taken_bytes, target, free)
        if entries is not None and found.entries > entries and not there:
            raise MediaError(
                "media.too-many-files",
                N_(
                    "Volume {number} has {needed} files and folders, and the file system of {target} has room for {free}: format it for more, or take another medium."
                ),
                number=number,
                needed=found.entries,
                target=show_path(target.path),
                free=entries,
                fault=Fault.SYSTEM,
            )

    def _paper(self, number: int) -> Volume:
        shares = self.plan.volumes[number - 1].shares
        return Volume(
            serial=self.plan.serial,
            number=number,
            count=self.plan.count,
            made_at=int(time.time()),
            by=self.offer.code,
            network=bytes.fromhex(self.offer.network),
            places=self.plan.wish.places,
            bundles=tuple(
                VolumeBundle(
                    id=bundle.id,
                    revision=bundle.revision,
                    infohash=bundle.infohash,
                    bytes=share.content_bytes,
                    is_whole=share.is_whole,
                )
                for share, bundle in zip(shares, self._bundles(number), strict=True)
                if bundle.id not in self.damaged
            ),
        )

    def _tag_files(self, paper: Volume, entries: Mapping[str, Entry]) -> dict[str, bytes]:
        letter = Letter(
            volume=paper,
            exporter_name=self.offer.name,
            titles={bundle.id: bundle.title for bundle in self.plan.bundles},
            place_names={self.offer.code: self.offer.name},
        )
        with tempfile.TemporaryDirectory() as folder:
            write_letter(Path(folder), letter)
            files = {path.name: path.read_bytes() for path in sorted(Path(folder).iterdir())}
        files[BAG_INFO_FILE] = bag_info(
            [
                ("Source-Organization", f"{self.offer.name} {self.offer.code}"),
                ("Bagging-Date", dt.datetime.now(dt.UTC).astimezone().date().isoformat()),
                ("External-Identifier", volume_folder(paper.serial, paper.number)),
                ("Bag-Group-Identifier", paper.serial),
                ("Bag-Count", f"{paper.number} of {paper.count}"),
                ("Payload-Oxum", payload_oxum(entry.length for entry in entries.values())),
                ("Bag-Software-Agent", f"cuntong {metadata.version('cuntong')}"),
            ]
        )
        files[MANIFEST_FILE] = manifest({path: it.sha256 for path, it in entries.items()})
        files[TAG_MANIFEST_FILE] = tag_manifest(files | {BAGIT_FILE: BAGIT_TEXT})
        return files


def no_room(number: int, needed_bytes: int, target: Target, free_bytes: int) -> MediaError:
    """The error for a target that a volume doesn't fit onto."""
    return MediaError(
        "media.no-room",
        N_(
            "Volume {number} needs {needed}, and {target} has room for {free}: make room, take a larger medium, or name a size by --volume."
        ),
        number=number,
        needed=format_bytes(needed_bytes),
        target=show_path(target.path),
        free=format_bytes(free_bytes),
        fault=Fault.SYSTEM,
    )


def _taken_bytes(folder: Path) -> int:
    """What lies in a folder takes on its disk."""
    return sum(
        (Path(parent) / name).lstat().st_blocks * 512
        for parent, folders, names in os.walk(folder)
        for name in (*folders, *names)
    )

"""The plan of an export (SPEC 12.8): what was asked, which bundle, file and stretch goes onto which volume, what is done.

It is a file of its own below `DATA/media/exports/`; the same wish finds its unfinished plan again.
"""

from __future__ import annotations

import base64
import contextlib
import fcntl
import os
import secrets
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

import msgspec

from cuntong_daemon.control.media_messages import Offer, OfferedBundle
from cuntong_daemon.files import write_atomically
from cuntong_daemon.paths import DataPaths
from cuntong_daemon.policy.volumes import (
    NO_LIMIT,
    Medium,
    Payload,
    PayloadFile,
    PlannedVolume,
    plan_volumes,
)
from cuntong_daemon.store.errors import StoreError
from cuntong_daemon.store.torrents import load_torrent, superseded_path, torrent_path
from cuntong_protocol.bundle.errors import BundleError
from cuntong_protocol.bundle.torrent import Torrent, decode_torrent
from cuntong_protocol.media.layout import DISC_BYTES, MAX_FAT_FILE_BYTES
from cuntong_protocol.texts import N_, Sentence, sentence

from .medium import Target

PLAN_VERSION = 1
KEPT_PLANS = 32
DISC_CLUSTER_BYTES = 2048
"""A sector of ISO 9660 and UDF on discs."""
CLUSTERS = ((256_000_000, 4096), (32_000_000_000, 32 * 1024))
"""The largest clusters with which Windows formats media up to so many bytes (FAT, exFAT); beyond: `LARGEST_CLUSTER`."""
LARGEST_CLUSTER = 128 * 1024


class Wish(msgspec.Struct, frozen=True, kw_only=True):
    """What a person asked for.

    Attributes:
        places: Codes, sorted.
        bundles: Identifiers, sorted.
        release: Its name, or empty.
        volume: `dvd`, `bd`, a number of bytes, or empty: as large as the medium.
    """

    places: tuple[str, ...] = ()
    bundles: tuple[str, ...] = ()
    release: str = ""
    is_catalogue_only: bool = False
    volume: str = ""


Ask = Callable[[Wish], tuple[list[OfferedBundle], Offer]]
"""Asks the daemon (`media.offer`): bundles in the order of writing, and the rest."""


class PlannedBundle(msgspec.Struct, frozen=True, kw_only=True):
    """A bundle of an export."""

    id: str
    revision: int
    title: str
    infohash: bytes


class Plan(msgspec.Struct, kw_only=True):
    """What goes where.

    Attributes:
        made_at: Seconds since 1970.
        cluster_bytes: With which the volumes were cut.
        bundles: Shares of volumes name them by their place here.
        done: Numbers of the volumes that are written and verified.
    """

    v: int = PLAN_VERSION
    wish: Wish
    serial: str
    made_at: int
    cluster_bytes: int
    bundles: list[PlannedBundle]
    volumes: list[PlannedVolume]
    done: list[int] = []

    @property
    def count(self) -> int:
        return len(self.volumes)

    @property
    def undone(self) -> list[int]:
        """Numbers of the volumes that are still to come."""
        return [number for number in range(1, self.count + 1) if number not in self.done]

    @property
    def content_bytes(self) -> int:
        return sum(volume.content_bytes for volume in self.volumes)


def exports_folder(paths: DataPaths) -> Path:
    """Where plans are kept, each in a folder named by its serial."""
    return paths.media / "exports"


class HeldPlan:
    """A plan that only this process works on, until it is closed.

    Attributes:
        plan: It.
    """

    def __init__(self, paths: DataPaths, plan: Plan) -> None:
        """Take hold of a plan.

        Raises:
            BlockingIOError: another process has it.
            OSError: its folder can't be made.
        """
        self.plan = plan
        self._folder = exports_folder(paths) / plan.serial
        self._folder.mkdir(parents=True, exist_ok=True)
        self._lock = os.open(self._folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BaseException:
            os.close(self._lock)
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Let go of it; one that was never saved leaves nothing."""
        with contextlib.suppress(OSError):
            self._folder.rmdir()
        os.close(self._lock)

    def save(self) -> None:
        """Write it durably."""
        for left in self._folder.glob(".tmp-*"):
            left.unlink(missing_ok=True)
        write_atomically(self._folder / "plan", msgspec.msgpack.encode(self.plan))

    def mark_done(self, number: int) -> None:
        self.plan.done = sorted({*self.plan.done, number})
        self.save()

    def discard(self) -> None:
        shutil.rmtree(self._folder, ignore_errors=True)


def unfinished(paths: DataPaths, wish: Wish) -> HeldPlan | None:
    """The latest plan of this wish that has volumes to come and that nobody else works on."""
    for plan in _plans(paths):
        if plan.wish == wish and plan.undone:
            with contextlib.suppress(BlockingIOError):
                return HeldPlan(paths, plan)
    return None


def prune_plans(paths: DataPaths) -> None:
    """Forget all but the latest plans."""
    for plan in _plans(paths)[KEPT_PLANS:]:
        with contextlib.suppress(BlockingIOError), HeldPlan(paths, plan) as held:
            held.discard()


def _plans(paths: DataPaths) -> list[Plan]:
    """Those that can be read, the latest first."""
    found: list[Plan] = []
    for file in exports_folder(paths).glob("*/plan"):
        with contextlib.suppress(OSError, msgspec.MsgspecError):
            plan = msgspec.msgpack.decode(file.read_bytes(), type=Plan)
            if plan.v == PLAN_VERSION and plan.serial == file.parent.name:
                found.append(plan)
    return sorted(found, key=lambda plan: plan.made_at, reverse=True)


def why_outdated(
    paths: DataPaths, plan: Plan, bundles: Sequence[OfferedBundle], offer: Offer
) -> Sentence | None:
    """Why an unfinished plan can't be gone on with; None: it can."""
    offered = {bundle.id: bundle.infohash for bundle in bundles}
    incomplete = {bundle.infohash for bundle in offer.not_here}
    ahead = {share.bundle for number in plan.undone for share in plan.volumes[number - 1].shares}
    for bundle in (plan.bundles[place] for place in sorted(ahead)):
        infohash = bundle.infohash.hex()
        if offered.get(bundle.id, infohash) != infohash:
            return sentence(
                "media.plan-revised",
                N_(
                    "{id} has a new revision since this export was begun: it is begun anew. Volumes that are written can be sent all the same."
                ),
                id=bundle.id,
            )
        is_here = torrent_path(paths, bundle.infohash).exists() and infohash not in incomplete
        if not is_here:
            return sentence(
                "media.plan-lost",
                N_(
                    "{id} isn't here any more since this export was begun: it is begun anew. Volumes that are written can be sent all the same."
                ),
                id=bundle.id,
            )
    return None


def medium_for(volume: str, targets: Sequence[Target]) -> Medium:
    """What volumes are cut for.

    Args:
        volume: As in `Wish`.
        targets: Where they are written to first.
    """
    is_fat = any(target.is_fat for target in targets)
    max_file_bytes = MAX_FAT_FILE_BYTES if is_fat or volume in DISC_BYTES else NO_LIMIT
    if volume in DISC_BYTES:
        return Medium(DISC_BYTES[volume], DISC_CLUSTER_BYTES, max_file_bytes)
    cluster = max(target.cluster_bytes for target in targets)
    if volume:
        size = int(volume)
        # They are often written into a folder first and copied onto media after.
        usual = next((bytes_ for limit, bytes_ in CLUSTERS if size <= limit), LARGEST_CLUSTER)
        return Medium(size, max(cluster, usual), max_file_bytes)
    return Medium(min(target.free_bytes for target in targets), cluster, max_file_bytes)


def make_plan(
    paths: DataPaths,
    wish: Wish,
    bundles: Sequence[OfferedBundle],
    offer: Offer,
    catalogues: Mapping[str, bytes],
    medium: Medium,
) -> tuple[Plan, list[OfferedBundle]]:
    """Cut an export into volumes; nothing is written.

    Returns:
        The plan, and bundles that were left out since their torrent is damaged.

    Raises:
        MediaError: see `plan_volumes`.
    """
    present = _present_files(paths, offer)
    planned: list[PlannedBundle] = []
    payloads: list[Payload] = []
    damaged: list[OfferedBundle] = []
    for bundle in bundles:
        infohash = bytes.fromhex(bundle.infohash)
        try:
            torrent = load_torrent(paths, infohash)
        except StoreError:
            damaged.append(bundle)
            continue
        planned.append(
            PlannedBundle(
                id=bundle.id, revision=bundle.revision, title=bundle.title, infohash=infohash
            )
        )
        payloads.append(payload_of(paths, torrent, present))
    sizes = {authority: len(data) for authority, data in catalogues.items()}
    plan = Plan(
        wish=wish,
        serial=base64.b32encode(secrets.token_bytes(10)).decode().lower()[:10],
        made_at=int(time.time()),
        cluster_bytes=medium.cluster_bytes,
        bundles=planned,
        volumes=plan_volumes(payloads, sizes, medium),
    )
    return plan, damaged


def payload_of(
    paths: DataPaths, torrent: Torrent, present: frozenset[tuple[bytes, int]] = frozenset()
) -> Payload:
    """What is to be written of a payload in the store; `present` are files that the places have."""
    files = [
        PayloadFile(number, file.path, file.length)
        for number, file in enumerate(torrent.files)
        if (file.root, file.length) not in present
    ]
    length = torrent_path(paths, torrent.infohash).stat().st_size
    return Payload(torrent.infohash, torrent.name, torrent.piece_length, length, files)


def _present_files(paths: DataPaths, offer: Offer) -> frozenset[tuple[bytes, int]]:
    """Root and length of each file that all the places have, as far as the torrents are here."""
    found: set[tuple[bytes, int]] = set()
    for infohash in map(bytes.fromhex, offer.present):
        for path in (torrent_path(paths, infohash), superseded_path(paths, infohash)):
            with contextlib.suppress(OSError, BundleError):
                torrent = decode_torrent(path.read_bytes(), infohash=infohash)
                found.update((file.root, file.length) for file in torrent.files)
                break
    return frozenset(found)

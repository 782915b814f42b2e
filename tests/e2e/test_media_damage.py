"""Volumes that came to harm in the post: what is good is taken, nothing else is, and the swarm brings the rest (SPEC 12.4)."""

from __future__ import annotations

import os
import random
import shutil
import signal
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from cuntong_daemon.control.client import ControlClient
from cuntong_daemon.control.media_messages import ImportResult, ImportStep
from cuntong_daemon.store.pieces import PieceSet
from cuntong_daemon.swarm.resume import load_resume
from cuntong_protocol.media import layout
from cuntong_tools.demo.network import Place
from tests.support.volumes import (
    Lot,
    bytes_in,
    damage,
    has_catalogue,
    has_torrent,
    pieces_on,
    volume_from,
)
from tests.support.world import (
    WEST,
    Bundle,
    World,
    assert_same_folder,
    make_films,
    make_poems,
)

IS_FULL = bool(os.environ.get("CUNTONG_E2E_FULL"))
VOLUMES = 200 if IS_FULL else 10
IN_PARTS = ("files/第3集.mp4", "files/第4集.mp4")


@dataclass(frozen=True)
class Posted:
    """What the county has sent: a right volume, its payloads, and the folders that were published."""

    volume: Path
    lots: list[Lot]
    folders: Mapping[str, tuple[Bundle, Path]]
    catalogues: Mapping[str, bytes]

    @property
    def payload_bytes(self) -> int:
        return sum(lot.torrent.payload_size for lot in self.lots)


@dataclass(frozen=True)
class Outcome:
    """What one damaged volume has brought, in bytes of payload."""

    taken: int
    on_volume: int
    from_swarm: int
    missed: list[str]


def post(world: World, folder: Path) -> Posted:
    """Let the county publish three bundles, and write them onto a volume."""
    folders = [
        make_films(folder / "films", [700_000, 400_000, 250_000, 90_000], seed=1),
        make_films(folder / "opera", [330_000] * 4, seed=2),
        make_poems(folder / "poems", files=20, seed=3),
    ]
    world.net.start(world.county)
    published = [(world.publish(world.county, it), it) for it in folders]
    for bundle, _ in published:
        world.until_complete(bundle, world.county)
    volume, lots = volume_from(world.county, folder / "stick", [WEST], parts=IN_PARTS)
    catalogues = {
        path.name: path.read_bytes() for path in (volume / layout.CATALOGUE_FOLDER).iterdir()
    }
    return Posted(volume, lots, {bundle.id: (bundle, it) for bundle, it in published}, catalogues)


@contextmanager
def unplugged(place: Place) -> Iterator[None]:
    """Nobody gets through to this place."""
    assert place.process is not None
    os.kill(place.process.pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(place.process.pid, signal.SIGCONT)


def import_at(place: Place, path: Path, *, in_place: bool = False) -> ImportResult:
    with ControlClient(place.paths.socket) as client:
        return client.follow(
            ImportStep,
            ImportResult,
            "media.import",
            {"path": str(path), "in_place": in_place},
            lambda step: None,
        )


def assert_nothing_wrong_was_taken(world: World, posted: Posted) -> None:
    """What counts as here is here, byte for byte, and nothing lies about that nobody asked for."""
    paths = world.west.paths
    torrents = {lot.infohash.hex(): lot for lot in posted.lots}
    for place in paths.store.iterdir():
        lot = torrents[place.name]
        folder = place / lot.torrent.name
        for path in folder.rglob("*"):
            if path.is_file():
                assert lot.torrent.file(path.relative_to(folder).as_posix()) is not None, path
        claimed = load_resume(paths, lot.torrent).pieces
        for piece in PieceSet.from_bytes(lot.torrent.piece_count, claimed):
            file, offset, length = lot.torrent.piece_place(piece)
            truth = (lot.source / file.path).read_bytes()[offset : offset + length]
            assert (folder / file.path).read_bytes()[offset : offset + length] == truth
    for identifier, (bundle, folder) in posted.folders.items():
        if world.library(world.west, bundle).exists():
            assert world.has(world.west, bundle), identifier
            assert_same_folder(folder, world.library(world.west, bundle))


def try_volume(world: World, posted: Posted, volume: Path, *, is_linked: bool) -> Outcome:
    """Import a damaged volume at a village that has nothing; then let the swarm bring the rest.

    Args:
        is_linked: The village has a link meanwhile (and the catalogue, and torrents), but no swarm.
    """
    on_volume = pieces_on(volume, posted.lots)
    is_listed = is_linked or all(
        has_catalogue(volume, authority, data) for authority, data in posted.catalogues.items()
    )
    is_known = {
        lot.id: is_listed and (is_linked or has_torrent(volume, lot)) for lot in posted.lots
    }
    west = world.west
    if is_linked:
        world.start(west)
        world.until(
            "the catalogue is known",
            lambda: all(world.bundle(west, lot.id) is not None for lot in posted.lots),
        )
        result = import_at(west, volume.parent)
        assert_nothing_wrong_was_taken(world, posted)
    else:
        with unplugged(world.county):
            world.net.start(west)
            result = import_at(west, volume.parent)
            assert_nothing_wrong_was_taken(world, posted)
    brought = {bundle.infohash: bundle for bundle in result.bundles}
    taken, missed = 0, []
    for lot in posted.lots:
        bundle = brought.get(lot.infohash.hex())
        count = 0 if bundle is None else bundle.bytes_taken
        good = bytes_in(lot.torrent, on_volume[lot.infohash])
        assert count <= good, lot.id
        if is_known[lot.id] and count < good:
            missed.append(f"{lot.torrent.name}: {count} of {good} bytes")
        taken += count
    world.net.ask(west, "resume")
    for bundle, folder in (posted.folders[lot.id] for lot in posted.lots):
        world.until_complete(bundle, west)
        assert_same_folder(folder, world.library(west, bundle))
    assert_nothing_wrong_was_taken(world, posted)
    from_swarm = int(world.traffic(west)["down"])
    assert from_swarm <= posted.payload_bytes - taken
    return Outcome(
        taken,
        sum(bytes_in(lot.torrent, on_volume[lot.infohash]) for lot in posted.lots),
        from_swarm,
        missed,
    )


@pytest.mark.timeout(60 + VOLUMES * 20)
def test_every_good_piece_of_damaged_volumes_is_taken_and_the_swarm_brings_the_rest(
    world: World, tmp_path: Path
) -> None:
    posted = post(world, tmp_path)
    west = world.west
    fresh = {"offline": tmp_path / "offline", "linked": tmp_path / "linked"}
    shutil.copytree(west.paths.root, fresh["offline"])
    with unplugged(world.county):
        world.net.start(west)
        world.run(west, "pause")
        world.net.stop(west)
    shutil.copytree(west.paths.root, fresh["linked"], ignore=shutil.ignore_patterns("*.sock"))
    outcomes = []
    for number in range(VOLUMES):
        is_linked = number % 2 == 1
        shutil.rmtree(west.paths.root)
        shutil.copytree(fresh["linked" if is_linked else "offline"], west.paths.root)
        volume = tmp_path / "post" / posted.volume.name
        shutil.copytree(posted.volume, volume)
        what = damage(volume, random.Random(number))
        print(f"{number}: {'linked' if is_linked else 'offline'}: {what}", flush=True)
        outcome = try_volume(world, posted, volume, is_linked=is_linked)
        outcomes.append(outcome)
        print(f"{number}: {outcome}", flush=True)
        world.net.stop(west)
        shutil.rmtree(volume.parent)
    assert not [it for it in outcomes if it.missed]
    whole = VOLUMES * posted.payload_bytes
    taken, on_volume = sum(it.taken for it in outcomes), sum(it.on_volume for it in outcomes)
    print(
        f"{VOLUMES} damaged volumes: {on_volume / whole:.1%} of the payload was good on them, "
        f"{taken / whole:.1%} was taken from them, "
        f"{sum(it.from_swarm for it in outcomes) / whole:.1%} came over the swarm"
    )

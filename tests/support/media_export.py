"""A county that exports: a real store, real keys, a verified catalogue, and an offer as its daemon would make it."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from cuntong_daemon.control.media_messages import (
    Offer,
    OfferedBundle,
    OfferedCatalogue,
    PlaceKnown,
)
from cuntong_daemon.paths import DataPaths
from cuntong_daemon.store.torrents import keep_torrent, payload_folder
from cuntong_protocol.bundle.torrent import Torrent
from cuntong_protocol.media.layout import parse_volume_folder
from cuntong_protocol.media.papers import Volume, check_volume, decode_volume
from cuntong_protocol.texts import Sentence
from cuntong_tools.media.export import Exporter, WrittenVolume
from cuntong_tools.media.medium import Target
from cuntong_tools.media.plan import Plan, Wish
from tests.support import pki, trust_repo
from tests.support.payloads import torrent_of, write_payload

VILLAGE = str(trust_repo.VILLAGE)
NETWORK = hashlib.sha256(b"a network").digest()


@dataclass
class Exported:
    """What came of an export: its plan, the volumes written now, and bundles that were left out."""

    plan: Plan
    written: list[WrittenVolume]
    damaged: set[str]
    outdated: Sentence | None


@dataclass
class Exporting:
    """A county with bundles.

    Attributes:
        paths: Its data directory.
        offer: What its daemon says beside the bundles.
        bundles: What it offers.
        asked: How often it was asked.
    """

    paths: DataPaths
    offer: Offer
    bundles: list[OfferedBundle] = field(default_factory=list)
    torrents: dict[str, Torrent] = field(default_factory=dict)
    asked: int = 0

    def ask(self, wish: Wish) -> tuple[list[OfferedBundle], Offer]:
        """As `media.offer`: what was asked for, in order."""
        self.asked += 1
        places = [PlaceKnown(code=place) for place in wish.places]
        bundles = [
            bundle
            for bundle in self.bundles
            if not wish.is_catalogue_only and (not wish.bundles or bundle.id in wish.bundles)
        ]
        return bundles, msgspec.structs.replace(self.offer, places=places)

    def add(
        self,
        slug: str,
        files: Mapping[str, bytes],
        *,
        revision: int = 1,
    ) -> Torrent:
        """Hold a bundle and offer it; one with the same slug is replaced."""
        torrent = torrent_of(files, name=slug)
        keep_torrent(self.paths, torrent)
        write_payload(self.paths, torrent, files)
        return self.offer_torrent(torrent, revision=revision)

    def offer_torrent(self, torrent: Torrent, *, revision: int = 1) -> Torrent:
        """Offer a bundle that is held; one with the same slug is replaced."""
        identifier = f"{self.offer.code}/202703/{torrent.name}"
        bundle = OfferedBundle(
            id=identifier,
            revision=revision,
            title=f"《{torrent.name}》",
            infohash=torrent.infohash.hex(),
            payload_size=torrent.payload_size,
        )
        self.bundles = [it for it in self.bundles if it.id != identifier]
        self.bundles.append(bundle)
        self.torrents[identifier] = torrent
        return torrent

    def source(self, torrent: Torrent) -> Path:
        """Where the store has a payload's files."""
        return payload_folder(self.paths, torrent)

    def export(self, wish: Wish, *targets: Path, rounds: int = 1) -> Exported:
        """Write what fits onto the targets, `rounds` times (as when media are changed)."""
        written: list[WrittenVolume] = []
        with Exporter(self.paths, wish, self.ask) as exporter:
            outdated: Sentence | None = None
            for number in range(rounds):
                opened = [Target(path, self.paths) for path in targets]
                try:
                    if not number:
                        outdated = exporter.resume(opened)
                    if not exporter.has_plan:
                        exporter.make_plan(opened)
                    written += [
                        exporter.write(number, target, lambda _what, _count: None)
                        for number, target in exporter.assign(opened)
                    ]
                finally:
                    for target in opened:
                        target.close()
            return Exported(exporter.plan, written, set(exporter.damaged), outdated)


def exporting(folder: Path) -> Exporting:
    """A county whose catalogue and its parents' are verified; it holds nothing yet."""
    paths = DataPaths(folder / "county")
    node = trust_repo.Node(paths.root, trust_repo.COUNTY)
    world = trust_repo.World()
    node.bootstrap(world.nation)
    node.sync(world.nation, world.province, world.county)
    node.close()
    keys, _ = pki.World("ed25519", folder / "pki").node(pki.DONGGUAN, pki.DONGGUAN)
    keys.rename(paths.keys)
    catalogues = [
        OfferedCatalogue(
            authority=str(repository.code),
            version=1,
            sha256=hashlib.sha256(repository.files["timestamp.json"]).hexdigest(),
        )
        for repository in (world.nation, world.province, world.county)
    ]
    offer = Offer(
        code=str(trust_repo.COUNTY), name="东莞市", network=NETWORK.hex(), catalogues=catalogues
    )
    return Exporting(paths, offer)


def volumes_in(*folders: Path) -> dict[int, Path]:
    """The folders of volumes, by number."""
    return {
        parsed[1]: path
        for folder in folders
        for path in folder.iterdir()
        if (parsed := parse_volume_folder(path.name)) is not None
    }


def paper_of(volume: Path) -> Volume:
    """What a volume says of itself; its signature is checked with the certificate in it."""
    from cuntong_daemon.pki.certificates import load_certificate
    from cuntong_protocol.enrolment import checked_public_key

    paper, signed = decode_volume((volume / "data" / "volume").read_bytes())
    check_volume(signed, checked_public_key(load_certificate(signed.chain[0]).public_key()))
    return paper


def content_of(torrent: Torrent, volumes: Sequence[Path]) -> dict[str, bytes]:
    """A payload's files, put together from whole files and parts on volumes; missing bytes are left out."""
    found: dict[str, bytes] = {}
    for number, file in enumerate(torrent.files):
        parts: dict[int, bytes] = {}
        for volume in volumes:
            data = volume / "data"
            whole = data / "store" / torrent.infohash.hex() / torrent.name / file.path
            if whole.is_file():
                parts[0] = whole.read_bytes()
            folder = data / "parts" / torrent.infohash.hex() / str(number)
            if folder.is_dir():
                parts |= {int(part.name): part.read_bytes() for part in folder.iterdir()}
        joined = b"".join(data for _, data in sorted(parts.items()))
        if joined:
            found[file.path] = joined
    return found

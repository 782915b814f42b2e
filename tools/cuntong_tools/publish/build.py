"""Builds a bundle's payload from a folder (SPEC 3.7).

The result is a function of the folder's content, the metadata, the id, the revision and the earlier bundles given: times
and order on the disk, the locale and the number of threads don't matter.

First the folder is scanned, and every reason to refuse that shows there is found. Then all is read and hashed, while a
thread copies what is stored as it is; then come the packs. All is written into a temporary folder beside the result that
is renamed at the end and removed on any error.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import accumulate
from pathlib import Path
from typing import Literal

import msgspec

from cuntong_daemon.files import sync_folder
from cuntong_protocol.bundle.descriptor import (
    BundleId,
    Descriptor,
    Supersedes,
    encode_descriptor,
)
from cuntong_protocol.bundle.index import (
    FILES_FOLDER,
    INDEX_PATH,
    PACKS_FOLDER,
    Index,
    IndexFile,
    IndexPack,
    check_payload,
    encode_index,
    pack_name,
)
from cuntong_protocol.bundle.merkle import hash_file, reduce_layer
from cuntong_protocol.bundle.metadata import Metadata, check_metadata
from cuntong_protocol.bundle.packing import (
    KeptPack,
    NewPack,
    make_pack,
    plan_packs,
    prefers_delta,
    unpack_pack,
)
from cuntong_protocol.bundle.torrent import (
    MAX_HYBRID_FILES,
    MAX_TORRENT_FILES,
    HashedFile,
    Torrent,
    TorrentFile,
    make_hybrid,
    make_torrent,
    piece_length_for,
    torrent_size_limit,
    v1_piece_hash,
)
from cuntong_protocol.errors import Fault
from cuntong_protocol.link.messages import MAX_OBJECT_BYTES
from cuntong_protocol.texts import N_

from .copying import Copier
from .hashing import Hashed, changed, open_source, read_source, run_jobs
from .reading import FolderReader
from .scan import BuildError, Scan, scan_folder, show_path
from .writing import check_output, sync_tree, temporary_folder, write_errors


@dataclass(frozen=True, slots=True)
class BuildProgress:
    """How far a build is; `done` and `total` are bytes of this stage.

    Stages overlap: copying begins with the hashing, which finds out what is to be copied. Until then the total is None.
    """

    stage: Literal["hashing", "packing", "copying"]
    done: int
    total: int | None


@dataclass(frozen=True, slots=True)
class Predecessor:
    """An earlier bundle: the revision before, or another one whose packs may be shared.

    Attributes:
        descriptor: Its descriptor.
        index: Its index, checked.
        torrent: Its torrent.
        payload_dir: Its payload, the folder that holds `index`.
        descriptor_sha256: Of its descriptor's bytes.
    """

    descriptor: Descriptor
    index: Index
    torrent: Torrent
    payload_dir: Path
    descriptor_sha256: bytes


@dataclass(frozen=True, slots=True)
class BuiltBundle:
    """A built bundle.

    Attributes:
        descriptor: To be signed (`encode_descriptor`).
        torrent: To be stored (`Torrent.encode`).
        index: What the payload's index says.
        payload_dir: The payload, `<output>/<slug>`.
        reused_bytes: Of the payload, in packs that earlier bundles have too.
    """

    descriptor: Descriptor
    torrent: Torrent
    index: Index
    payload_dir: Path
    reused_bytes: int


def build_bundle(
    folder: Path,
    metadata: Metadata,
    *,
    bundle_id: BundleId,
    revision: int,
    output: Path,
    predecessor: Predecessor | None = None,
    others: Sequence[Predecessor] = (),
    root_certificate: bytes = b"",
    threads: int | None = None,
    progress: Callable[[BuildProgress], None] | None = None,
) -> BuiltBundle:
    """Build a bundle.

    Args:
        folder: The content.
        metadata: What the publisher says about it.
        bundle_id: Its id; the slug must be the metadata's.
        revision: From 1; above the predecessor's.
        output: The payload goes to `<output>/<slug>`, which must not exist.
        predecessor: The revision before, when there is one.
        others: Other bundles of the same publisher, whose packs are shared where at least half of one is wanted.
        root_certificate: The publisher's swarm CA (PEM) for a restricted licence, and only for that (SPEC 7.6).
        threads: How many; as many as cores by default.
        progress: Called in this thread.

    Returns:
        The bundle. Its payload is on the disk for good (fsync).

    Raises:
        BuildError: see `scan_folder` and `hash_files`; `build.wrong-id`, `build.wrong-revision`, `build.exists`,
            `build.output-inside`, `build.damaged-source`, `build.disk-full`, `build.write-failed`,
            `build.too-many-files`, `build.paths-too-long`.
        BundleError: see `check_paths`, `check_metadata`, `make_torrent`, `encode_descriptor`.
    """
    _check_request(metadata, bundle_id, revision, predecessor)
    check_output(folder, output, bundle_id.slug)
    scan = scan_folder(folder)
    payload_dir = output / bundle_id.slug
    with (
        write_errors(output),
        temporary_folder(output) as temporary,
        # A hybrid torrent's payload is read once more: from memory, if it is there.
        Copier(temporary / FILES_FOLDER, is_direct=not metadata.build.hybrid) as copier,
    ):
        build = _Build(
            scan,
            metadata,
            copier,
            threads=threads or os.cpu_count() or 1,
            sources=(*([predecessor] if predecessor else []), *others),
            root_certificate=root_certificate,
            progress=progress or (lambda _: None),
        )
        build.read(predecessor.index if predecessor else None)
        index, torrent = build.write(temporary, bundle_id.slug)
        descriptor = Descriptor(
            id=str(bundle_id),
            revision=revision,
            metadata=metadata,
            infohash=torrent.infohash,
            piece_length=torrent.piece_length,
            payload_size=torrent.payload_size,
            content_size=sum(file.size for file in index.files),
            file_count=len(index.files),
            supersedes=_supersedes(predecessor),
        )
        encode_descriptor(descriptor)
        sync_tree(temporary)
        temporary.rename(payload_dir)
        sync_folder(output)
    return BuiltBundle(descriptor, torrent, index, payload_dir, build.reused_bytes)


class _Build:
    """One build: `read` hashes and plans, `write` makes the payload."""

    def __init__(
        self,
        scan: Scan,
        metadata: Metadata,
        copier: Copier,
        *,
        threads: int,
        sources: Sequence[Predecessor],
        root_certificate: bytes,
        progress: Callable[[BuildProgress], None],
    ) -> None:
        self._folders = scan.folders
        self._bytes = sum(file.size for file in scan.files)
        self._reader = FolderReader(scan, copier, self._report_copying)
        self._time = metadata.time
        self._is_hybrid = metadata.build.hybrid
        self._copier = copier
        self._threads = threads
        self._sources = sources
        self._root_certificate = root_certificate
        self._progress = progress
        self._kept_bytes = 0
        self._copying_total: int | None = None
        self._copying = BuildProgress("copying", 0, None)
        self.reused_bytes = 0

    def read(self, predecessor: Index | None) -> None:
        """Hash and plan; what is stored as it is is copied meanwhile."""
        report = self._reporter("hashing", self._bytes)
        self._progress(self._copying)
        self._reader.read(self._threads, report)
        self._first = self._reader.first
        others = self._sources if predecessor is None else self._sources[1:]
        self._plan = plan_packs(
            self._reader.contents(), predecessor, [other.index for other in others]
        )
        kept = [self._source_of(pack.name) for pack in self._plan.kept]
        self._copying_total = self._reader.offered_bytes + sum(entry.length for _, entry in kept)
        self._report_copying()

    def write(self, target: Path, name: str) -> tuple[Index, Torrent]:
        """Write the payload's files below `target`."""
        for subfolder in (FILES_FOLDER, PACKS_FOLDER):
            (target / subfolder).mkdir(exist_ok=True)
        made = self._make_packs(target / PACKS_FOLDER)
        places = {
            **self._plan.places,
            **{root: at for it in made for root, at in it.places.items()},
        }
        packs = {it.pack.name: it.pack for it in made}
        # A pack that was kept as a base is left out when no delta was worth it.
        lived_in = {pack for pack, _ in places.values()}
        bases = {pack.base for pack in (*packs.values(), *self._plan.kept)}
        kept = [it for it in self._plan.kept if it.name in lived_in or it.name in bases]
        packs.update((pack.name, pack) for pack in kept)
        copied = self._copy(target, kept)
        index = self._index(packs, places)
        data = encode_index(index)
        (target / INDEX_PATH).write_bytes(data)
        entries = [*(it.entry for it in made), *copied, _hashed_file(INDEX_PATH, data)]
        torrent = self._torrent(target, name, entries, len(index.files))
        check_payload(index, torrent)
        for subfolder in (FILES_FOLDER, PACKS_FOLDER):
            with contextlib.suppress(OSError):
                (target / subfolder).rmdir()  # Only when it is empty.
        return index, torrent

    def _make_packs(self, folder: Path) -> list[_MadePack]:
        new = self._plan.new
        report = self._reporter(
            "packing", sum(content.size for pack in new for content in pack.contents)
        )
        made: list[_MadePack] = []

        def done(pack: _MadePack) -> None:
            made.append(pack)
            report(pack.pack.size)

        run_jobs((partial(self._make_pack, pack, folder) for pack in new), self._threads, done)
        return made

    def _make_pack(self, plan: NewPack, folder: Path) -> _MadePack:
        data = b"".join(_read_again(self._first[content.root]) for content in plan.contents)
        packed, base = make_pack(data), None
        if plan.base is not None:
            delta = make_pack(data, self._unpacked(plan.base))
            if prefers_delta(len(packed), len(delta)):
                packed, base = delta, plan.base
        root, layer = hash_file(packed, piece_length_for(len(packed)))
        name = pack_name(root)
        (folder / name).write_bytes(packed)
        sizes = (content.size for content in plan.contents)
        offsets = accumulate(sizes, initial=0)
        return _MadePack(
            KeptPack(name, len(data), base),
            {it.root: (name, at) for it, at in zip(plan.contents, offsets, strict=False)},
            HashedFile(PACKS_FOLDER + name, len(packed), root, layer),
        )

    def _unpacked(self, name: str) -> bytes:
        """A base, from the payload of the bundle that has it."""
        source, _ = self._source_of(name)
        size = next(pack.size for pack in source.index.packs if pack.name == name)
        data = self._read_pack(source, name)[0]
        return unpack_pack(data, size)

    def _source_of(self, name: str) -> tuple[Predecessor, TorrentFile]:
        for source in self._sources:
            if entry := source.torrent.file(PACKS_FOLDER + name):
                return source, entry
        raise AssertionError(name)

    def _read_pack(self, source: Predecessor, name: str) -> tuple[bytes, HashedFile]:
        entry = source.torrent.file(PACKS_FOLDER + name)
        path = source.payload_dir / PACKS_FOLDER / name
        data = path.read_bytes() if path.is_file() else b""
        hashed = _hashed_file(PACKS_FOLDER + name, data)
        if entry is None or hashed.root != entry.root:
            raise BuildError(
                "build.damaged-source",
                N_("{path} of an earlier bundle is damaged: run `cuntong verify {id}`."),
                path=show_path(path),
                id=source.descriptor.id,
            )
        return data, hashed

    def _copy(self, target: Path, kept: Sequence[KeptPack]) -> list[HashedFile]:
        """Bring in kept packs, and wait for the files that are stored as they are."""
        sources = [self._source_of(pack.name) for pack in kept]
        self.reused_bytes = sum(entry.length for _, entry in sources)
        self._copying_total = self._reader.offered_bytes + self.reused_bytes
        copied: list[HashedFile] = []

        def done(entry: HashedFile) -> None:
            copied.append(entry)
            self._kept_bytes += entry.length
            self._report_copying()

        def copy_pack(source: Predecessor, entry: TorrentFile) -> HashedFile:
            data, hashed = self._read_pack(source, entry.path.removeprefix(PACKS_FOLDER))
            (target / entry.path).write_bytes(data)
            return hashed

        jobs = (partial(copy_pack, source, entry) for source, entry in sources)
        run_jobs(jobs, self._threads, done)
        stored = [self._first[content.root] for content in self._plan.stored]
        self._copier.finish({hashed.file.path for hashed in stored}, self._report_copying)
        copied += (
            HashedFile(FILES_FOLDER + it.file.path, it.file.size, it.root, it.layer)
            for it in stored
        )
        return copied

    def _index(
        self, packs: Mapping[str, KeptPack], places: Mapping[bytes, tuple[str, int]]
    ) -> Index:
        names = sorted(packs)
        numbers = {name: number for number, name in enumerate(names)}
        files: list[IndexFile] = []
        for hashed in self._reader.files:
            file = IndexFile(hashed.file.path, hashed.file.size, self._time, hashed.root)
            if hashed.root in places:
                name, offset = places[hashed.root]
                file = msgspec.structs.replace(file, pack=numbers[name], offset=offset)
            elif hashed.file.size:
                first = self._first[hashed.root].file.path
                file = msgspec.structs.replace(file, stored=first)
            files.append(file)
        return Index(
            tuple(files),
            tuple(
                IndexPack(name, packs[name].size, None if base is None else numbers[base])
                for name in names
                for base in [packs[name].base]
            ),
            self._folders,
        )

    def _torrent(
        self, target: Path, name: str, entries: Sequence[HashedFile], file_count: int
    ) -> Torrent:
        limit = MAX_HYBRID_FILES if self._is_hybrid else MAX_TORRENT_FILES
        if len(entries) > limit:
            raise BuildError(
                "build.too-many-files",
                N_(
                    "{count} files would lie in the torrent one by one, and {limit} may: cut the content into several bundles."
                ),
                count=len(entries),
                limit=limit,
            )
        size = sum(entry.length for entry in entries)
        piece_length = piece_length_for(size)
        torrent = make_torrent(
            name,
            piece_length,
            [_with_layer_of(entry, piece_length) for entry in entries],
            root_certificate=self._root_certificate,
        )
        if self._is_hybrid:
            torrent = self._with_v1(target, torrent)
        allowed = torrent_size_limit(size, piece_length, file_count, hybrid=self._is_hybrid)
        if len(torrent.encode()) > min(allowed, MAX_OBJECT_BYTES):
            raise BuildError(
                "build.paths-too-long",
                N_("The paths are too long on average: shorten them, or cut the content."),
            )
        return torrent

    def _with_v1(self, target: Path, torrent: Torrent) -> Torrent:
        """The hybrid torrent: reads the payload once more, now that its pieces are known."""
        report = self._reporter("hashing", torrent.payload_size)
        hashes = [b""] * torrent.piece_count

        def hash_piece(piece: int) -> tuple[int, bytes, int]:
            file, offset, length = torrent.piece_place(piece)
            descriptor = os.open(target / file.path, os.O_RDONLY | os.O_CLOEXEC)
            try:
                data = os.pread(descriptor, length, offset)
            finally:
                os.close(descriptor)
            return piece, v1_piece_hash(torrent, piece, data), length

        def done(result: tuple[int, bytes, int]) -> None:
            piece, hashes[piece], length = result
            report(length)

        jobs = (partial(hash_piece, piece) for piece in range(torrent.piece_count))
        run_jobs(jobs, self._threads, done)
        return make_hybrid(torrent, hashes)

    def _reporter(self, stage: Literal["hashing", "packing"], total: int) -> Callable[[int], None]:
        done = 0
        self._progress(BuildProgress(stage, 0, total))

        def report(more: int) -> None:
            nonlocal done
            done += more
            self._progress(BuildProgress(stage, done, total))
            self._copier.check()  # On a full disk the rest needn't be read.
            self._report_copying()

        return report

    def _report_copying(self) -> None:
        done = self._kept_bytes + self._copier.copied_bytes
        progress = BuildProgress("copying", done, self._copying_total)
        if progress != self._copying:
            self._copying = progress
            self._progress(progress)


@dataclass(frozen=True, slots=True)
class _MadePack:
    """A pack that was written, where each content lies in it, and its entry for the torrent."""

    pack: KeptPack
    places: Mapping[bytes, tuple[str, int]]
    entry: HashedFile


def _supersedes(predecessor: Predecessor | None) -> Supersedes | None:
    if predecessor is None:
        return None
    before = predecessor.descriptor
    return Supersedes(before.revision, predecessor.descriptor_sha256, before.infohash)


def _hashed_file(path: str, data: bytes) -> HashedFile:
    root, layer = hash_file(data, piece_length_for(len(data)))
    return HashedFile(path, len(data), root, layer)


def _with_layer_of(entry: HashedFile, piece_length: int) -> HashedFile:
    """The same file with the layer of the torrent's piece length instead of its own size's."""
    layer = b""
    if entry.length > piece_length:
        layer = reduce_layer(entry.layer, piece_length_for(entry.length), piece_length)
    return HashedFile(entry.path, entry.length, entry.root, layer)


def _read_again(hashed: Hashed) -> bytes:
    """A small file's content, the same that was hashed."""
    with open_source(hashed.file) as descriptor:
        data = bytearray(hashed.file.size)
        read_source(hashed.file, descriptor, memoryview(data), 0)
    if hash_file(memoryview(data), piece_length_for(len(data)))[0] != hashed.root:
        raise changed(hashed.file)
    return bytes(data)


def _check_request(
    metadata: Metadata, bundle_id: BundleId, revision: int, predecessor: Predecessor | None
) -> None:
    if metadata.slug != bundle_id.slug or (
        predecessor is not None and predecessor.descriptor.id != str(bundle_id)
    ):
        raise BuildError(
            "build.wrong-id",
            N_("The metadata's slug {slug} doesn't belong to the bundle {id}."),
            slug=metadata.slug,
            id=str(bundle_id),
            fault=Fault.USAGE,
        )
    before = 0 if predecessor is None else predecessor.descriptor.revision
    if revision <= before or (predecessor is None and revision != 1):
        raise BuildError(
            "build.wrong-revision",
            N_("Revision {revision} of {id} can't follow revision {before}."),
            revision=revision,
            id=str(bundle_id),
            before=before,
            fault=Fault.USAGE,
        )
    check_metadata(metadata, publisher=bundle_id.code)

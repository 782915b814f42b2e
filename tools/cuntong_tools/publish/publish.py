"""From a folder to a signed listing: what `cuntong publish` and `cuntong revise` do around the build.

The order on the disk lets a kill at any moment leave either nothing listed or everything there: the payload
is built aside, moved to `incoming/` whole, its torrent is put beside it, and only then is the listing signed
and committed. What a kill left unlisted is removed by the next publication.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import fcntl
import hashlib
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from securesystemslib.signer import Signer  # type: ignore[attr-defined]  # No __all__.

from cuntong_daemon.authority.documents import Authority
from cuntong_daemon.authority.keys import AuthorityError
from cuntong_daemon.authority.publishing import infohash_of, publish
from cuntong_daemon.authority.repository import AuthorityRepository
from cuntong_daemon.files import sync_folder, write_atomically
from cuntong_daemon.paths import DataPaths
from cuntong_protocol.bundle.descriptor import (
    BundleId,
    decode_descriptor,
    encode_descriptor,
    parse_bundle_id,
)
from cuntong_protocol.bundle.errors import BundleError
from cuntong_protocol.bundle.index import INDEX_PATH, decode_index
from cuntong_protocol.bundle.metadata import Metadata, parse_metadata
from cuntong_protocol.bundle.torrent import decode_torrent
from cuntong_protocol.divisions import Division
from cuntong_protocol.errors import Fault
from cuntong_protocol.texts import N_
from cuntong_protocol.trust.custom import Listed

from .build import BuildProgress, BuiltBundle, Predecessor, build_bundle

MAX_COMFORTABLE_BYTES = 20 * 10**9
"""Above this, those who join late starve and a village waits for days: propose several bundles."""
MAX_SHARED = 20
"""Newest bundles of the publisher whose packs are looked at; each costs reading its index."""
MAX_METADATA_FILE_BYTES = 256 * 1024
BUILDING = ".building"


@dataclass(frozen=True, slots=True)
class Cut:
    """A part of a folder that would make a bundle of its own: names directly below it, and their bytes."""

    names: tuple[str, ...]
    size: int


def metadata_file(folder: Path, given: Path | None) -> Path | None:
    """The metadata of a folder: the file given, `FOLDER.toml` beside it, or `metadata.toml` beside it."""
    if given is not None:
        return given
    folder = folder.absolute()
    places = (folder.with_name(folder.name + ".toml"), folder.parent / "metadata.toml")
    return next((place for place in places if place.is_file()), None)


def read_metadata(file: Path | None, folder: Path, publisher: Division) -> Metadata:
    """Read a metadata file.

    Raises:
        AuthorityError: `publish.no-metadata`, `publish.bad-metadata`.
        MetadataFileError: with file, line and reason.
    """
    if file is None:
        raise AuthorityError(
            "publish.no-metadata",
            N_("There is no metadata for {folder}. Write it into {file}, or name the file."),
            fault=Fault.USAGE,
            folder=str(folder),
            file=f"{folder.absolute().name}.toml",
        )
    try:
        with file.open("rb") as opened:
            text = opened.read(MAX_METADATA_FILE_BYTES).decode()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "UTF-8"
        raise AuthorityError(
            "publish.bad-metadata",
            N_("The metadata file {file} can't be read: {reason}."),
            fault=Fault.USAGE,
            file=str(file),
            reason=reason or str(error),
        ) from error
    return parse_metadata(text, file=str(file), publisher=publisher)


def propose_cuts(folder: Path, limit: int = MAX_COMFORTABLE_BYTES) -> list[Cut]:
    """How a large folder could be published as several bundles, in the order of names.

    Returns:
        Empty when the folder isn't above the limit; a single name above the limit stays one cut.
    """
    sizes = {entry.name: _size(Path(entry.path)) for entry in os.scandir(folder)}
    if sum(sizes.values()) <= limit:
        return []
    cuts: list[Cut] = []
    names: list[str] = []
    total = 0
    for name in sorted(sizes):
        if names and total + sizes[name] > limit:
            cuts.append(Cut(tuple(names), total))
            names, total = [], 0
        names.append(name)
        total += sizes[name]
    return [*cuts, Cut(tuple(names), total)]


def _size(path: Path) -> int:
    if not path.is_dir():
        return path.stat().st_size if path.is_file() else 0
    total = 0
    for folder, _folders, files in os.walk(path):
        for name in files:
            with contextlib.suppress(OSError):
                total += (Path(folder) / name).stat().st_size
    return total


class Publication:
    """One publication in the making. Use it as a context manager: what wasn't signed is removed at the end.

    Args:
        paths: The centre's data directory.
        repository: Its authority.
        current: What is in force.

    Raises:
        AuthorityError: `publish.busy` when another one runs.
    """

    def __init__(
        self, paths: DataPaths, repository: AuthorityRepository, current: Authority
    ) -> None:
        self._paths = paths
        self._repository = repository
        self._current = current
        self._building = paths.incoming / BUILDING

    def __enter__(self) -> Publication:
        self._stack = contextlib.ExitStack()
        with contextlib.ExitStack() as stack:
            stack.enter_context(_locked(self._paths.incoming))
            shutil.rmtree(self._building, ignore_errors=True)  # Of a killed run.
            stack.callback(shutil.rmtree, self._building, ignore_errors=True)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_error: object) -> None:
        self._stack.close()

    def build(
        self,
        folder: Path,
        metadata: Metadata,
        bundle_id: BundleId,
        predecessor: Predecessor | None,
        progress: Callable[[BuildProgress], None] | None,
    ) -> BuiltBundle:
        """Build the payload aside. Errors as `build_bundle` and `ensure_swarm_ca`; `publish.cannot-write`."""
        with _disk_errors(self._paths.incoming):
            self._building.mkdir(mode=0o750)
        root = self._root_certificate() if metadata.licence.kind == "restricted" else b""
        return build_bundle(
            folder,
            metadata,
            bundle_id=bundle_id,
            revision=1 if predecessor is None else predecessor.descriptor.revision + 1,
            output=self._building,
            predecessor=predecessor,
            others=self.others(bundle_id),
            root_certificate=root,
            progress=progress,
        )

    def _root_certificate(self) -> bytes:
        with _disk_errors(self._repository.path):
            return self._repository.swarm_ca(now=dt.datetime.now(dt.UTC)).pem

    def others(self, bundle_id: BundleId) -> list[Predecessor]:
        """The publisher's newest other bundles whose payload is here."""
        found: list[Predecessor] = []
        for path in sorted(self._current.listings(), key=lambda it: it.split("/")[1], reverse=True):
            if path != str(bundle_id) and not self._current.is_withdrawn(path):
                with contextlib.suppress(AuthorityError):
                    found.append(self.predecessor(path))
            if len(found) == MAX_SHARED:
                break
        return found

    def predecessor(self, bundle: str) -> Predecessor:
        """What this authority published under an id, with its payload.

        Raises:
            AuthorityError: `revise.unknown`, `revise.no-payload`.
        """
        parse_bundle_id(bundle)
        target = self._current.listing(bundle)
        if target is None:
            raise AuthorityError(
                "revise.unknown",
                N_("{id} isn't published here. For a new bundle: cuntong publish FOLDER"),
                fault=Fault.USAGE,
                id=bundle,
            )
        data = self._repository.blob(target)
        descriptor = decode_descriptor(data, expected_id=bundle)
        name = descriptor.infohash.hex()
        for payloads, torrents in (
            (self._paths.store, self._paths.torrents),
            (self._paths.incoming, self._paths.incoming),
        ):
            payload_dir = payloads / name / descriptor.metadata.slug
            with contextlib.suppress(OSError, BundleError):
                return Predecessor(
                    descriptor,
                    decode_index(
                        (payload_dir / INDEX_PATH).read_bytes(),
                        content_size=descriptor.content_size,
                        file_count=descriptor.file_count,
                    ),
                    decode_torrent(
                        (torrents / f"{name}.torrent").read_bytes(), infohash=descriptor.infohash
                    ),
                    payload_dir,
                    hashlib.sha256(data).digest(),
                )
        raise AuthorityError(
            "revise.no-payload",
            N_("The files of {id} aren't on this computer. Wait until its daemon has them again."),
            fault=Fault.SYSTEM,
            id=bundle,
        )

    def check_changed(self, built: BuiltBundle, before: Predecessor | None) -> None:
        """Refuse a revision that says nothing new.

        Raises:
            AuthorityError: `revise.unchanged`.
        """
        if (
            before is not None
            and built.descriptor.infohash == before.descriptor.infohash
            and built.descriptor.metadata == before.descriptor.metadata
        ):
            raise AuthorityError(
                "revise.unchanged",
                N_("Nothing has changed since revision {revision} of {id}. Nothing was signed."),
                id=before.descriptor.id,
                revision=before.descriptor.revision,
            )

    def sign(self, built: BuiltBundle, signers: Sequence[Signer], *, now: dt.datetime) -> Authority:
        """Put the payload where the daemon takes it from, then list the bundle.

        Raises:
            AuthorityError: as `publish`, and `publish.cannot-write`; nothing is left.
        """
        data = encode_descriptor(built.descriptor)
        name = built.descriptor.infohash.hex()
        place, torrent = self._paths.incoming / name, self._paths.incoming / f"{name}.torrent"
        listing = Listed(
            built.descriptor.id,
            hashlib.sha256(data).hexdigest(),
            len(data),
            built.descriptor.revision,
            built.descriptor.payload_size,
            name,
        )
        try:
            with _disk_errors(self._paths.incoming):
                if place.exists():
                    shutil.rmtree(place)
                write_atomically(torrent, built.torrent.encode())
                self._building.rename(place)
                sync_folder(self._paths.incoming)
            authority = publish(self._repository, listing, data, signers, now=now)
        except BaseException:
            # Ctrl-C may have come after the listing was decided; then everything must stay.
            self._remove_unlisted(self._repository.settle() or self._current)
            raise
        self._remove_unlisted(authority)
        return authority

    def _remove_unlisted(self, authority: Authority) -> None:
        """What was built and isn't listed (any more); the lock says that no other publication is at it."""
        listed = {infohash_of(target) for target in authority.listings().values()}
        for path in self._paths.incoming.iterdir():
            infohash = path.name.removesuffix(".torrent")
            if len(infohash) == 64 and infohash not in listed:
                if path.is_dir():
                    shutil.rmtree(path, ignore_errors=True)
                else:
                    path.unlink(missing_ok=True)


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    with _disk_errors(folder):
        folder.mkdir(mode=0o750, parents=True, exist_ok=True)
        lock = os.open(folder / ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise AuthorityError(
                "publish.busy",
                N_(
                    "Another publication is being made on this computer. Try again when it has ended."
                ),
                fault=Fault.SYSTEM,
            ) from None
        yield
    finally:
        os.close(lock)


@contextlib.contextmanager
def _disk_errors(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise AuthorityError(
            "publish.cannot-write",
            N_("{folder} can't be written: {reason}. Nothing was published."),
            fault=Fault.SYSTEM,
            folder=str(folder),
            reason=error.strerror or str(error),
        ) from error

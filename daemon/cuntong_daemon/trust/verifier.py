"""One run of python-tuf over a scratch folder: the only place that verifies a catalogue (SPEC 4.1, 4.6).

python-tuf guards against rollback with what it finds in its cache, and never fsyncs that cache: whoever can
truncate two files there can make it forget. So the cache is a scratch folder that is filled anew for each
run from documents that lie in SQLite (`floors.py`) and from catalogue files whose hashes lie there; what
python-tuf has verified is read back afterwards, whether the run succeeded or not.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TypeVar

from tuf.api._payload import Root, Signed, Snapshot, Targets, Timestamp
from tuf.api.exceptions import (
    BadVersionNumberError,
    DownloadLengthMismatchError,
    ExpiredMetadataError,
    LengthOrHashMismatchError,
    RepositoryError,
    UnsignedMetadataError,
)
from tuf.api.metadata import Metadata
from tuf.api.serialization import DeserializationError

from cuntong_protocol.texts import N_
from cuntong_protocol.trust.names import (
    MAX_ROOT_BYTES,
    MAX_SNAPSHOT_BYTES,
    MAX_TARGETS_BYTES,
    MAX_TIMESTAMP_BYTES,
    ROOT,
    SNAPSHOT,
    TARGETS,
    TIMESTAMP,
    TrustError,
    printable,
)

from .fetcher import BASE_URL, SpoolFetcher
from .tuf_client import Updater, UpdaterConfig

_CONFIG = UpdaterConfig(
    root_max_length=MAX_ROOT_BYTES,
    timestamp_max_length=MAX_TIMESTAMP_BYTES,
    snapshot_max_length=MAX_SNAPSHOT_BYTES,
    targets_max_length=MAX_TARGETS_BYTES,
    prefix_targets_with_hash=True,
)


S = TypeVar("S", bound=Signed)


@dataclass(frozen=True, slots=True)
class Documents:
    """The highest verified documents of an authority: python-tuf's memory against rollback."""

    root: bytes
    timestamp: bytes | None = None
    snapshot: bytes | None = None


class Verification:
    """One run. Make it, `refresh()`, then load roles; read `documents()` and `roots()` in any case."""

    def __init__(
        self,
        folder: Path,
        documents: Documents,
        roles: Mapping[str, bytes],
        fetcher: SpoolFetcher,
        reference_time: datetime,
        *,
        base_url: str = BASE_URL,
        targets_url: str | None = None,
    ) -> None:
        """Fill `folder` (emptied first) and load the root.

        Args:
            folder: Scratch; afterwards it holds what was verified, under python-tuf's names.
            documents: Where the last run ended.
            roles: Catalogue files accepted earlier, by role.
            fetcher: Where new files come from.
            reference_time: What expiry is judged by.
            base_url: What the fetcher expects before each metadata file's name.
            targets_url: The same for target files, where these are fetched through python-tuf.

        Raises:
            RepositoryError: the root isn't one.
            OSError: the folder can't be written.
        """
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        self._folder = folder
        self._documents = documents
        cached = dict(roles)
        if documents.timestamp is not None:
            cached[TIMESTAMP] = documents.timestamp
        if documents.snapshot is not None:
            cached[SNAPSHOT] = documents.snapshot
        for role, data in cached.items():
            (folder / f"{role}.json").write_bytes(data)
        with _malformed_is_refused():
            self.updater = Updater(
                str(folder),
                base_url,
                str(folder),
                targets_url,
                fetcher=fetcher,
                config=_CONFIG,
                bootstrap=documents.root,
            )
        # python-tuf has no public way to say what time it is (ADR 2); a test asserts that this one exists.
        self._trusted = self.updater._trusted_set  # noqa: SLF001
        self._trusted.reference_time = reference_time

    def refresh(self) -> None:
        """Load root, timestamp, snapshot and targets.

        Raises:
            RepositoryError, DownloadError, OSError: as python-tuf raises them.
        """
        with _malformed_is_refused():
            self.updater.refresh()

    def load(self, target_path: str) -> None:
        """Look a target up, and so load every delegated role that may speak of it.

        Raises:
            RepositoryError, DownloadError, OSError: as python-tuf raises them.
        """
        with _malformed_is_refused():
            self.updater.get_targetinfo(target_path)

    def targets(self, role: str) -> Targets | None:
        """A verified targets role, or None when this run hasn't verified it."""
        found = self._trusted.get(role)
        return found if isinstance(found, Targets) else None

    def signed(self, kind: type[S]) -> S | None:
        """The verified root, timestamp or snapshot of this run."""
        found = self._trusted.get(kind.type)
        return found if isinstance(found, kind) else None

    def top(self) -> tuple[Root, Timestamp, Snapshot]:
        """The three after a successful `refresh()`.

        Raises:
            RepositoryError: the run has not got so far.
        """
        root, timestamp = self.signed(Root), self.signed(Timestamp)
        snapshot = self.signed(Snapshot)
        if root is None or timestamp is None or snapshot is None:
            raise RepositoryError("the update isn't complete")
        return root, timestamp, snapshot

    def data(self, role: str) -> bytes:
        """The bytes of a role that this run has verified."""
        return (self._folder / f"{role}.json").read_bytes()

    def documents(self) -> Documents:
        """The highest verified documents after this run."""
        return Documents(self.data(ROOT), self._read(TIMESTAMP), self._read(SNAPSHOT))

    def roots(self) -> dict[int, bytes]:
        """The roots that this run has verified, by version, the one it began with included."""
        return {
            int(path.name.split(".", 1)[0]): path.read_bytes()
            for path in (self._folder / "root_history").iterdir()
        }

    def _read(self, role: str) -> bytes | None:
        path = self._folder / f"{role}.json"
        return path.read_bytes() if path.exists() else None


@contextmanager
def _malformed_is_refused() -> Iterator[None]:
    """python-tuf checks types as it reads, but not all: `true` as the name of a role ends in a TypeError.

    Whoever signs such a thing must not stop those who read it.
    """
    try:
        yield
    except (TypeError, ValueError, AttributeError, LookupError, ArithmeticError) as error:
        raise RepositoryError(f"what is signed is malformed ({type(error).__name__})") from error


def is_signed_timestamp(data: bytes, root: bytes) -> bytes | None:
    """The signed part of a timestamp when `root`'s keys have signed it, None when it isn't one.

    Two of these with one version but different bytes are an equivocation (SPEC 4.9).
    """
    try:
        timestamp = Metadata[Timestamp].from_bytes(data)
        if not isinstance(timestamp.signed, Timestamp):
            return None
        Metadata[Root].from_bytes(root).signed.verify_delegate(
            TIMESTAMP, timestamp.signed_bytes, timestamp.signatures
        )
    except (RepositoryError, ValueError):
        return None
    return timestamp.signed_bytes


def parse_timestamp(data: bytes) -> Timestamp:
    """Read a timestamp without verifying it: one verified earlier, or a hint.

    Raises:
        DeserializationError: it isn't one.
    """
    signed = Metadata[Timestamp].from_bytes(data).signed
    if not isinstance(signed, Timestamp):
        raise DeserializationError("not a timestamp")
    return signed


def parse_snapshot(data: bytes) -> Snapshot:
    """Read a snapshot that was verified earlier.

    Raises:
        DeserializationError: it isn't one.
    """
    signed = Metadata[Snapshot].from_bytes(data).signed
    if not isinstance(signed, Snapshot):
        raise DeserializationError("not a snapshot")
    return signed


def parse_targets(data: bytes) -> Targets:
    """Read a targets role that was verified earlier.

    Raises:
        DeserializationError: it isn't one.
    """
    signed = Metadata[Targets].from_bytes(data).signed
    if not isinstance(signed, Targets):
        raise DeserializationError("not a targets role")
    return signed


def explain(authority: str, error: Exception) -> TrustError:
    """What python-tuf refused, as a sentence with a stable code."""
    reason = printable(str(error))
    if isinstance(error, ExpiredMetadataError):
        return TrustError(
            "trust.expired",
            N_(
                "What {authority} signed has expired ({reason}). Its last verified catalogue stays; check this machine's clock, or ask {authority} whether it still signs."
            ),
            authority=authority,
            reason=reason,
        )
    if isinstance(error, BadVersionNumberError):
        return TrustError(
            "trust.rollback",
            N_(
                "An update of {authority} doesn't go with what was already seen ({reason}): it is refused, the last verified catalogue stays."
            ),
            authority=authority,
            reason=reason,
        )
    if isinstance(error, UnsignedMetadataError):
        return TrustError(
            "trust.bad-signature",
            N_(
                "An update of {authority} isn't signed by enough of its keys ({reason}): it is refused."
            ),
            authority=authority,
            reason=reason,
        )
    if isinstance(error, LengthOrHashMismatchError | DownloadLengthMismatchError):
        return TrustError(
            "trust.mismatch",
            N_(
                "A file of {authority} has another size or hash than signed ({reason}): it is refused."
            ),
            authority=authority,
            reason=reason,
        )
    if isinstance(error, DeserializationError):
        return TrustError(
            "trust.malformed",
            N_("A file of {authority} can't be read ({reason}): it is refused."),
            authority=authority,
            reason=reason,
        )
    return TrustError(
        "trust.refused",
        N_("An update of {authority} is refused: {reason}."),
        authority=authority,
        reason=reason,
    )


__all__ = [
    "TARGETS",
    "Documents",
    "Verification",
    "explain",
    "is_signed_timestamp",
    "parse_snapshot",
    "parse_targets",
    "parse_timestamp",
]

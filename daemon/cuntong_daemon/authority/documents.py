"""The signed documents of an authority in memory: reading, changing, signing (SPEC 4.1 to 4.3)."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from securesystemslib.exceptions import StorageError
from securesystemslib.signer import Signer  # type: ignore[attr-defined]  # No __all__.
from tuf.api.exceptions import RepositoryError, UnsignedMetadataError
from tuf.api.metadata import (  # type: ignore[attr-defined]  # No __all__.
    DelegatedRole,
    Delegations,
    Key,
    Metadata,
    Root,
    Snapshot,
    TargetFile,
    Targets,
    Timestamp,
)

from cuntong_protocol.divisions import Division
from cuntong_protocol.errors import Fault
from cuntong_protocol.texts import N_
from cuntong_protocol.trust.custom import format_time, parse_time
from cuntong_protocol.trust.names import (
    PROMOTED,
    ROOT,
    SIGNED_AT_FIELD,
    SNAPSHOT,
    TARGETS,
    TIMESTAMP,
    WITHDRAWN,
    is_month,
)

from .keys import AuthorityError
from .settings import Settings, decode_settings

TIMESTAMP_LIFE = dt.timedelta(days=30)
SETTINGS = "authority.toml"


class Authority:
    """What is in force: a snapshot of the repository, and the rules for reading it."""

    def __init__(
        self,
        settings: Settings,
        root: Metadata[Root],
        timestamp: Metadata[Timestamp],
        snapshot: Metadata[Snapshot],
        roles: dict[str, Metadata[Targets]],
    ) -> None:
        self.settings = settings
        self.root = root
        self.timestamp = timestamp
        self.snapshot = snapshot
        self.roles = roles

    @property
    def code(self) -> Division:
        return self.settings.code

    @property
    def targets(self) -> Targets:
        return self.roles[TARGETS].signed

    @property
    def signed_at(self) -> dt.datetime:
        """When the timestamp was signed last."""
        return parse_time(self.timestamp.signed.unrecognized_fields[SIGNED_AT_FIELD])

    def delegator(self, role: str) -> Root | Targets:
        """Who says which keys sign a role."""
        is_top = role in (ROOT, TARGETS, SNAPSHOT, TIMESTAMP)
        return self.root.signed if is_top else self.targets

    def role_keys(self, role: str) -> tuple[dict[str, str], int]:
        """Key id -> name, for the keys of a role; and how many of them must sign."""
        found = self.delegator(role).get_delegated_role(role)
        names = {wanted: name for name, wanted in self.settings.keys.items()}
        return {key: names.get(key, key[:8]) for key in found.keyids}, found.threshold

    def listing(self, bundle: str) -> TargetFile | None:
        """The target of a bundle that this authority published itself."""
        month = bundle.split("/")[1]
        role = self.roles.get(month)
        return None if role is None else role.signed.targets.get(bundle)

    def listings(self) -> dict[str, TargetFile]:
        """Every bundle of this authority's own, withdrawn ones included."""
        return {
            path: target
            for name, role in self.roles.items()
            if is_month(name)
            for path, target in role.signed.targets.items()
        }

    def promoted(self) -> Mapping[str, TargetFile]:
        return self.roles[PROMOTED].signed.targets

    def is_withdrawn(self, bundle: str) -> bool:
        return f"withdrawn/{bundle}" in self.roles[WITHDRAWN].signed.targets

    def endorsement(self, child: Division) -> TargetFile | None:
        return self.targets.targets.get(f"auth/{child}.root.json")

    def endorsed(self) -> dict[Division, TargetFile]:
        """The authorities that this one endorses."""
        return {
            Division(path[5:17]): target
            for path, target in self.targets.targets.items()
            if path.startswith("auth/")
        }


def load_authority(path: Path) -> Authority:
    """Read and verify what is in force in an authority's folder; the lock must be held.

    Raises:
        AuthorityError: `authority.damaged`.
    """
    folder = path / "metadata"
    what = SETTINGS
    try:
        settings = decode_settings((path / SETTINGS).read_bytes())
        what = "root"
        root = read_metadata(folder / f"{latest_root(folder)}.root.json", Root)
        what = "timestamp"
        timestamp = read_metadata(folder / "timestamp.json", Timestamp)
        what = "snapshot"
        number = timestamp.signed.snapshot_meta.version
        snapshot = read_metadata(folder / f"{number}.snapshot.json", Snapshot)
        roles: dict[str, Metadata[Targets]] = {}
        for name, meta in snapshot.signed.meta.items():
            what = role = name.removesuffix(".json")
            roles[role] = read_metadata(folder / f"{meta.version}.{name}", Targets)
        authority = Authority(settings, root, timestamp, snapshot, roles)
        for role, metadata in (
            (TIMESTAMP, timestamp),
            (SNAPSHOT, snapshot),
            *roles.items(),
        ):
            what = role
            authority.delegator(role).verify_delegate(
                role, metadata.signed_bytes, metadata.signatures
            )
    except (OSError, ValueError, KeyError, StorageError, RepositoryError) as error:
        raise damaged(path, what) from error
    return authority


def read_metadata(path: Path, kind: type[Any]) -> Metadata[Any]:
    """Read one of our own files.

    Raises:
        ValueError: It's something else.
    """
    metadata: Metadata[Any] = Metadata.from_bytes(path.read_bytes())
    if not isinstance(metadata.signed, kind):
        raise ValueError(path.name)  # noqa: TRY004 - a damaged file, not a wrong call
    return metadata


def latest_root(folder: Path) -> int:
    """The highest root version in a folder of metadata.

    Raises:
        ValueError: There is none.
    """
    return max(int(path.name.split(".")[0]) for path in folder.glob("[0-9]*.root.json"))


def stamp(timestamp: Timestamp, now: dt.datetime) -> None:
    """Set the time of signing and, 30 days later, the end (SPEC 4.3)."""
    now = now.astimezone(dt.UTC).replace(microsecond=0)
    timestamp.unrecognized_fields[SIGNED_AT_FIELD] = format_time(now)
    timestamp.expires = now + TIMESTAMP_LIFE


def make_target(path: str, digest: str, length: int, custom: Mapping[str, str | int]) -> TargetFile:
    """A target with its custom fields."""
    return TargetFile(length, {"sha256": digest}, path, {"custom": dict(custom)} if custom else {})


def delegate(
    targets: Targets, role: str, keys: Sequence[Key], threshold: int, paths: list[str]
) -> None:
    """Add or replace a delegation; keys that no delegation uses any more go."""
    delegations = targets.delegations or Delegations({}, {})
    assert delegations.roles is not None  # noqa: S101 - hash bins are never used here
    delegations.roles[role] = DelegatedRole(
        role, [key.keyid for key in keys], threshold, terminating=False, paths=paths
    )
    delegations.keys.update({key.keyid: key for key in keys})
    used = {key for other in delegations.roles.values() for key in other.keyids}
    delegations.keys = {key: value for key, value in delegations.keys.items() if key in used}
    targets.delegations = delegations


def sign(
    metadata: Metadata[Any], delegator: Root | Targets, role: str, signers: Iterable[Signer]
) -> None:
    """Replace the signatures by those of as many signers as the role needs; more would only cost bytes."""
    metadata.signatures.clear()
    wanted = delegator.get_delegated_role(role)
    for signer in signers:
        if signer.public_key.keyid in wanted.keyids and len(metadata.signatures) < wanted.threshold:
            metadata.sign(signer, append=True)


def require_signed(metadata: Metadata[Any], delegator: Root | Targets, role: str) -> None:
    """Check a role's signatures before it is published.

    Raises:
        AuthorityError: `authority.not-signed`.
    """
    try:
        delegator.verify_delegate(role, metadata.signed_bytes, metadata.signatures)
    except UnsignedMetadataError:
        raise AuthorityError(
            "authority.not-signed",
            N_(
                "The role {role} needs {threshold} signatures of its own keys. Use the right sticks."
            ),
            role=role,
            threshold=delegator.get_delegated_role(role).threshold,
        ) from None


def damaged(path: Path, what: str) -> AuthorityError:
    """The error for files that aren't what was written."""
    return AuthorityError(
        "authority.damaged",
        N_("The repository in {folder} is damaged ({what}). Put it back from the backup."),
        fault=Fault.SYSTEM,
        folder=str(path),
        what=what,
    )

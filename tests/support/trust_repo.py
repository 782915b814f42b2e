"""An authority's TUF repository for tests, built straight from SPEC 4 with tuf.api.metadata.

It signs whatever it is told to: tests use it to be a good authority, a careless one and a thief.
"""

from __future__ import annotations

import functools
import hashlib
import itertools
import re
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from securesystemslib.signer import CryptoSigner
from tuf.api.exceptions import UnsignedMetadataError
from tuf.api.metadata import (
    DelegatedRole,
    Delegations,
    Metadata,
    MetaFile,
    Root,
    Snapshot,
    TargetFile,
    Targets,
    Timestamp,
)
from tuf.api.serialization.json import JSONSerializer

from cuntong_daemon.paths import DataPaths
from cuntong_daemon.trust.federation import Federation, Profile
from cuntong_daemon.trust.view import Refresh
from cuntong_protocol.divisions import NATION, Division
from cuntong_protocol.trust.members import Member, MembersList

START = datetime(2026, 11, 1, tzinfo=UTC)
THREE_YEARS = timedelta(days=3 * 365)
MONTH = timedelta(days=30)
PROVINCE = Division("440000000000")
COUNTY = Division("441900000000")
TOWNSHIP = Division("441900003000")
VILLAGE = Division("441900003005")
OTHER_PROVINCE = Division("530000000000")
OTHER_COUNTY = Division("440300000000")

_seeds = itertools.count(1)


@functools.cache
def key(number: int) -> CryptoSigner:
    """A key that is the same in every run."""
    seed = hashlib.sha256(f"key {number}".encode()).digest()
    return CryptoSigner(Ed25519PrivateKey.from_private_bytes(seed))


def new_key() -> CryptoSigner:
    """A key that nobody has had before in this run."""
    return key(next(_seeds))


class TestClock:
    """A clock that stands until it is set."""

    __test__ = False

    def __init__(self, now: datetime = START) -> None:
        self.now = now

    def __call__(self) -> datetime:
        return self.now


class Repository:
    """One authority. Change `targets`, the roles, the keys; then `publish()`."""

    def __init__(
        self, code: Division, *, now: datetime = START, expires: datetime | None = None
    ) -> None:
        self.code = code
        self.now = now
        self.expires = expires or now + THREE_YEARS
        self.root_keys = [new_key(), new_key(), new_key()]
        self.root_threshold = 2
        self.targets_key = new_key()
        self.online_key = new_key()
        self.reviewers = [new_key(), new_key()]
        self.members_key = new_key()
        self.version = 0
        self.root_version = 0
        self.snapshot_version = 0
        self.files: dict[str, bytes] = {}
        self.blobs: dict[str, bytes] = {}
        self.targets = Targets(expires=self.expires)
        self.roles: dict[str, Targets] = {}
        self.versions: dict[str, int] = {}
        self.role_signers: dict[str, Sequence[CryptoSigner]] = {}
        self._written: dict[str, bytes] = {}
        self.targets.delegations = Delegations({}, {})
        self.new_root()
        self.delegate("promoted", ["*/*/*"], self.reviewers, 2)
        self.delegate("withdrawn", ["withdrawn/*/*/*"], [self.targets_key])
        self.delegate("members", ["members/*"], [self.members_key])

    # -- Roles and keys ------------------------------------------------------------------------------

    def new_root(self, signers: Sequence[CryptoSigner] = ()) -> bytes:
        """Sign another root with the present keys (and `signers`, the outgoing ones)."""
        self.root_version += 1
        root = Root(version=self.root_version, expires=self.expires, consistent_snapshot=True)
        for signer in self.root_keys:
            root.add_key(signer.public_key, "root")
        root.roles["root"].threshold = self.root_threshold
        root.add_key(self.targets_key.public_key, "targets")
        root.add_key(self.online_key.public_key, "snapshot")
        root.add_key(self.online_key.public_key, "timestamp")
        data = sign(root, [*self.root_keys, *signers])
        self.files[f"{self.root_version}.root.json"] = data
        return data

    def delegate(
        self,
        role: str,
        paths: list[str],
        signers: Sequence[CryptoSigner],
        threshold: int = 1,
        *,
        terminating: bool = False,
    ) -> Targets:
        """Delegate a role and make it, empty, if there is none."""
        assert self.targets.delegations is not None
        assert self.targets.delegations.roles is not None
        self.targets.delegations.roles[role] = DelegatedRole(
            role, [], threshold, terminating, paths
        )
        for signer in signers:
            self.targets.add_key(signer.public_key, role)
        self.role_signers[role] = signers
        return self.roles.setdefault(role, Targets(expires=self.expires))

    def month(self, month: str) -> Targets:
        """The role of a month, delegated when it is new."""
        if month not in self.roles:
            self.delegate(month, [f"{self.code}/{month}/*"], [self.targets_key])
        return self.roles[month]

    # -- What an authority says ------------------------------------------------------------------------

    def put(self, role: str, path: str, data: bytes, custom: Any = None) -> TargetFile:
        """List any target anywhere."""
        sha256 = hashlib.sha256(data).hexdigest()
        extra = {} if custom is None else {"custom": custom}
        target = TargetFile(len(data), {"sha256": sha256}, path, extra)
        (self.targets if role == "targets" else self.roles[role]).targets[path] = target
        self.blobs[sha256] = data
        return target

    def list_bundle(
        self, slug: str = "opera", *, month: str = "202611", revision: int = 1, data: bytes = b""
    ) -> str:
        """List a bundle of its own; returns its id."""
        bundle = f"{self.code}/{month}/{slug}"
        self.month(month)
        self.put(month, bundle, data or descriptor(bundle, revision), bundle_custom(revision))
        return bundle

    def promote(self, bundle: str, *, revision: int = 1, data: bytes = b"") -> None:
        """Promote a bundle of somebody below."""
        self.put("promoted", bundle, data or descriptor(bundle, revision), bundle_custom(revision))

    def withdraw(self, bundle: str, reason: str = "rights") -> None:
        """Set a tombstone."""
        self.put(
            "withdrawn",
            f"withdrawn/{bundle}",
            b"",
            {"reason": reason, "at": "2026-11-02T08:00:00Z"},
        )

    def endorse(
        self,
        child: Repository,
        *,
        epoch: int = 1,
        until: str = "2029-01-01",
        scope: str | None = None,
        root: bytes | None = None,
        custom: Any = None,
    ) -> None:
        """Endorse another authority."""
        self.put(
            "targets",
            f"auth/{child.code}.root.json",
            root or child.files["1.root.json"],
            custom
            or {
                "scope": child.code.prefix if scope is None else scope,
                "epoch": epoch,
                "until": until,
            },
        )

    def list_members(self, *members: Member, data: bytes | None = None) -> None:
        """Sign a members list."""
        self.put("members", "members/list", data or MembersList.of(members).encode())

    # -- Signing -------------------------------------------------------------------------------------------

    def publish(
        self,
        *,
        now: datetime | None = None,
        timestamp_life: timedelta = MONTH,
        signed_at: Any = "",
        hashes: bool = False,
    ) -> Repository:
        """Sign what changed, the snapshot and the timestamp."""
        self.now = now or self.now
        changed = self._sign_role("targets", self.targets, [self.targets_key])
        for role, targets in self.roles.items():
            changed |= self._sign_role(role, targets, self.role_signers[role])
        if changed or not self.snapshot_version:
            self.sign_snapshot(hashes=hashes)
        self.sign_timestamp(timestamp_life=timestamp_life, signed_at=signed_at)
        return self

    def _sign_role(self, role: str, targets: Targets, signers: Sequence[CryptoSigner]) -> bool:
        targets.version = self.versions.get(role, 0) + 1
        data = sign(targets, signers)
        content = re.sub(rb'"version":\d+', b"", sign(targets, []))
        if self._written.get(role) == content:
            targets.version -= 1
            return False
        self._written[role] = content
        self.versions[role] = targets.version
        self.files[f"{targets.version}.{role}.json"] = data
        return True

    def sign_snapshot(
        self, *, hashes: bool = False, versions: dict[str, int] | None = None
    ) -> bytes:
        """Sign a snapshot, of the present versions or of others."""
        self.snapshot_version += 1
        listed = versions or self.versions
        meta = {
            f"{role}.json": (
                MetaFile.from_data(version, self.files[f"{version}.{role}.json"], ["sha256"])
                if hashes
                else MetaFile(version)
            )
            for role, version in listed.items()
        }
        snapshot = Snapshot(version=self.snapshot_version, expires=self.expires, meta=meta)
        data = sign(snapshot, [self.online_key])
        self.files[f"{self.snapshot_version}.snapshot.json"] = data
        return data

    def sign_timestamp(
        self,
        *,
        timestamp_life: timedelta = MONTH,
        signed_at: Any = "",
        version: int | None = None,
        now: datetime | None = None,
        signers: Sequence[CryptoSigner] | None = None,
    ) -> bytes:
        """Sign a timestamp over the present snapshot."""
        self.now = now or self.now
        self.version = self.version + 1 if version is None else version
        snapshot = self.files[f"{self.snapshot_version}.snapshot.json"]
        if signed_at == "":
            signed_at = self.now.strftime("%Y-%m-%dT%H:%M:%SZ")
        timestamp = Timestamp(
            version=self.version,
            expires=self.now + timestamp_life,
            snapshot_meta=MetaFile.from_data(self.snapshot_version, snapshot, ["sha256"]),
            unrecognized_fields={} if signed_at is None else {"x-signed-at": signed_at},
        )
        data = sign(timestamp, [self.online_key] if signers is None else signers)
        self.files["timestamp.json"] = data
        return data

    @property
    def anchor(self) -> bytes:
        """Its first root."""
        return self.files["1.root.json"]


def sign(signed: Any, signers: Sequence[CryptoSigner]) -> bytes:
    """The bytes of signed metadata."""
    metadata = Metadata(signed)
    for signer in signers:
        metadata.sign(signer, append=True)
    return metadata.to_bytes(JSONSerializer(compact=True))


def descriptor(bundle: str, revision: int = 1) -> bytes:
    """Stands for a descriptor: the trust layer never looks inside."""
    return f"descriptor of {bundle} revision {revision}".encode()


def infohash(text: str) -> str:
    """64 hexadecimal digits."""
    return hashlib.sha256(text.encode()).hexdigest()


def bundle_custom(revision: int = 1, payload: int = 1000) -> dict[str, Any]:
    """The custom field of a bundle."""
    return {"rev": revision, "payload": payload, "infohash": infohash(str(revision))}


class Node:
    """A data directory with a federation, and all the authorities it can fetch from."""

    __test__ = False

    def __init__(
        self,
        root: Path,
        code: Division = VILLAGE,
        *,
        profile: Profile = "tolerant",
        clock: TestClock | None = None,
        durable: bool = False,
    ) -> None:
        """Make the node; a test that doesn't cut the power need not wait for the disk (`durable`)."""
        root.mkdir(parents=True, exist_ok=True)
        self.paths = DataPaths(root)
        self.code = code
        self.profile: Profile = profile
        self.clock = clock or TestClock()
        self.durable = durable
        self.federation = self.open()

    def open(self) -> Federation:
        """Open the data directory (again)."""
        self.federation = Federation(
            self.paths, code=self.code, profile=self.profile, clock=self.clock
        )
        if not self.durable:
            self.federation._floors._db.execute("PRAGMA synchronous=OFF")
        return self.federation

    def restart(self) -> None:
        """As after a restart of the daemon."""
        self.federation.close()
        self.open()

    def close(self) -> None:
        self.federation.close()

    def bootstrap(self, nation: Repository, proven_time: datetime = START) -> None:
        self.federation.bootstrap(nation.anchor, proven_time)

    def offer(self, repository: Repository) -> None:
        """Put down the present timestamp, as after an announcement."""
        self.federation.spool.store_metadata(
            repository.code, "timestamp.json", repository.files["timestamp.json"]
        )

    def carry(self, repository: Repository) -> None:
        """Put down everything, as from a disk."""
        for name, data in repository.files.items():
            self.federation.spool.store_metadata(repository.code, name, data)
        for sha256, data in repository.blobs.items():
            self.federation.spool.store_blob(sha256, data)

    def fetch(self, refresh: Refresh, *repositories: Repository) -> int:
        """Fetch what is missing from whoever has it, as the link does; how many objects were found."""
        known = {repository.code: repository for repository in repositories}
        found = 0
        for missing in refresh.missing:
            kind, _, rest = missing.path.partition("/")
            if kind == "blobs":
                data = next((r.blobs[rest] for r in repositories if rest in r.blobs), None)
                if data is not None and len(data) <= missing.max_bytes:
                    self.federation.spool.store_blob(rest, data)
                    found += 1
            else:
                code, name = rest.split("/")
                repository = known.get(Division(code))
                data = repository and repository.files.get(name)
                if data and len(data) <= missing.max_bytes:
                    self.federation.spool.store_metadata(Division(code), name, data)
                    found += 1
        return found

    def sync(self, *repositories: Repository, rounds: int = 40) -> Refresh:
        """Offer everybody's timestamp, and fetch until nothing more comes."""
        for repository in repositories:
            self.offer(repository)
        refresh = self.federation.refresh()
        for _ in range(rounds):
            if not self.fetch(refresh, *repositories):
                return refresh
            refresh = self.federation.refresh()
        raise AssertionError("it never comes to an end")


class World:
    """The nation, Guangdong, Dongguan and one of its townships, each endorsed by the one above."""

    __test__ = False

    def __init__(self) -> None:
        self.nation = Repository(NATION)
        self.province = Repository(PROVINCE)
        self.county = Repository(COUNTY)
        self.township = Repository(TOWNSHIP)
        self.nation.endorse(self.province)
        self.province.endorse(self.county)
        self.county.endorse(self.township)
        self.nation.list_bundle("news")
        self.province.list_bundle("yueju")
        self.county.list_bundle("dragon-boats")
        self.township.list_bundle("market-days")
        for repository in self.all:
            repository.publish()

    @property
    def all(self) -> tuple[Repository, ...]:
        return self.nation, self.province, self.county, self.township


def is_signed_by(data: bytes, root: bytes, role: str) -> bool:
    """Whether `root`'s keys for `role` have signed `data`."""
    metadata: Metadata[Any] = Metadata.from_bytes(data)
    try:
        Metadata[Root].from_bytes(root).signed.verify_delegate(
            role, metadata.signed_bytes, metadata.signatures
        )
    except UnsignedMetadataError:
        return False
    return True

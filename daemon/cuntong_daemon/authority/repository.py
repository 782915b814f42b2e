"""The repository that an authority publishes: one federated TUF repository on disk (SPEC 4.1 to 4.3).

Layout below `DataPaths.authority`:

- `metadata/`: `<N>.<role>.json` and `timestamp.json`, as they are served.
- `targets/<sha256>`: descriptors, children's roots and CA certificates, the members list.
- `keys/online.pem`: signs snapshot and timestamp; unencrypted, because the daemon uses it daily.
- `keys/swarm-ca.pem`: the swarm CA, key and certificate; unencrypted, because the daemon issues certificates.
- `pending/promoted.json`: a promotion that waits for a second reviewer.
- `authority.toml`: code, name, key ids by name, the endorsement by the parent.
- `ca.pem`, `parents/`: the CA chain up to the nation's, and the parents' metadata as objects of SPEC 6.3.

What is in force is what `timestamp.json` names; the root is the highest on disk. Every change is one
commit of the journal.
"""

from __future__ import annotations

import copy
import datetime as dt
import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from securesystemslib.signer import CryptoSigner, Signer  # type: ignore[attr-defined]  # No __all__.
from tuf.api.metadata import (  # type: ignore[attr-defined]  # No __all__.
    Metadata,
    MetaFile,
    TargetFile,
    Targets,
)

from cuntong_daemon.pki.certificates import key_type_of
from cuntong_daemon.pki.swarm import SwarmCa, ensure_swarm_ca
from cuntong_protocol.errors import Fault
from cuntong_protocol.texts import N_
from cuntong_protocol.trust.custom import format_time
from cuntong_protocol.trust.members import MembersList, decode_members
from cuntong_protocol.trust.names import (
    MEMBERS,
    MEMBERS_PATH,
    SNAPSHOT,
    TARGETS,
    TIMESTAMP,
    delegated_paths,
)

from .documents import (
    SETTINGS,
    damaged,
    delegate,
    load_authority,
    make_target,
    require_signed,
    sign,
    stamp,
)
from .documents import Authority as Authority
from .journal import Journal
from .keys import AuthorityError, load_key

LIFE = dt.timedelta(days=3 * 365)
"""Root, and with it every role but the timestamp (SPEC 4.3)."""
MAX_CLOCK_STEP = dt.timedelta(days=400)
"""A clock further ahead of the last signature is more likely wrong; signing with it couldn't be taken back."""
KEPT_VERSIONS = 3
"""Older versions of a role stay for children that are in the middle of an update, and as patch bases."""
ONLINE_KEY = "keys/online.pem"
PENDING = "pending/promoted.json"


class Draft:
    """A change in the making. Roles are copies; blobs and files are written when it is committed."""

    def __init__(self, current: Authority) -> None:
        self.current = current
        self.new = copy.deepcopy(current)
        self.changed: set[str] = set()
        self.root_changed = False
        self.presigned: dict[str, Metadata[Targets]] = {}
        self.blobs: dict[str, bytes] = {}
        self.files: dict[str, bytes] = {}
        self.private: list[str] = []
        self.remove: list[str] = []

    def role(self, name: str) -> Targets:
        """A role's content, to be changed."""
        self.changed.add(name)
        return self.new.roles[name].signed

    def add_target(
        self, role: str, path: str, data: bytes, custom: Mapping[str, str | int]
    ) -> None:
        """List `data` under a path."""
        digest = hashlib.sha256(data).hexdigest()
        self.blobs[digest] = data
        self.role(role).targets[path] = make_target(path, digest, len(data), custom)

    def add_month(self, month: str) -> None:
        """Delegate a month to the targets keys, if it isn't yet."""
        if month in self.new.roles:
            return
        top = self.role(TARGETS)
        keys = self.new.root.signed.roles[TARGETS]
        delegate(
            top,
            month,
            [self.new.root.signed.keys[key] for key in keys.keyids],
            keys.threshold,
            list(delegated_paths(self.new.code, month)),
        )
        self.new.roles[month] = Metadata(Targets(version=1, expires=self.new.root.signed.expires))
        self.changed.add(month)


class AuthorityRepository:
    """An authority's repository on disk. Every method is synchronous; call it in a thread."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._journal = Journal(path)

    def exists(self) -> bool:
        """True when this data directory belongs to an authority that publishes."""
        return (self.path / SETTINGS).exists()

    def settle(self) -> Authority | None:
        """After an interruption: finish a change that was decided; what is in force then, None if nothing.

        Whoever must tidy up after an error asks this first: Ctrl-C may have come after the decision.

        Raises:
            AuthorityError: as `load`.
        """
        if not self.path.exists():
            return None
        with self._journal.locked():
            return load_authority(self.path) if self.exists() else None

    def load(self) -> Authority:
        """What is in force now; a change that was cut short is finished first.

        Raises:
            AuthorityError: `authority.none`, `authority.damaged`, `authority.busy`, `authority.cannot-write`.
        """
        self._require()
        with self._journal.locked():
            return load_authority(self.path)

    def members(self) -> MembersList:
        """The members list in force; an empty one before the first member.

        Raises:
            AuthorityError: as `load`.
        """
        authority = self.load()
        target = authority.roles[MEMBERS].signed.targets.get(MEMBERS_PATH)
        if target is None:
            return MembersList()
        return decode_members(self.blob(target), authority=authority.code)

    def blob(self, target: TargetFile) -> bytes:
        """The content of one of this authority's targets.

        Raises:
            AuthorityError: `authority.damaged`.
        """
        try:
            data = (self.path / "targets" / target.hashes["sha256"]).read_bytes()
        except OSError:
            data = b""
        if hashlib.sha256(data).hexdigest() != target.hashes["sha256"]:
            raise damaged(self.path, f"targets/{target.hashes['sha256']}")
        return data

    # Changes. Each is one commit; signers come from the sticks, `now` from the caller.

    def create(self, draft_files: Mapping[str, bytes], *, private: Sequence[str] = ()) -> None:
        """Write a new repository; the folder must not hold one.

        Raises:
            AuthorityError: `authority.exists`, `authority.cannot-write`.
        """
        self._journal.make_folder()
        with self._journal.locked():
            self.refuse_existing()
            self._journal.commit(draft_files, private=private)

    def edit(
        self,
        change: Callable[[Draft], None],
        signers: Iterable[Signer],
        *,
        now: dt.datetime,
        is_clock_confirmed: bool = False,
    ) -> Authority:
        """Change roles, sign what has changed, and publish it.

        Args:
            change: Edits the draft; what it raises ends the edit with nothing changed.
            signers: Whatever keys are at hand; each changed role takes those that are its own.
            now: UTC.
            is_clock_confirmed: A person has said that `now` is right, although it's far from the last time.

        Raises:
            AuthorityError: `authority.not-signed` when a role hasn't got enough signatures,
                `authority.clock-behind`, `authority.clock-ahead`, `authority.root-expired`; and as `load`.
        """
        self._require()
        with self._journal.locked():
            current = load_authority(self.path)
            check_clock(current, now, is_clock_confirmed=is_clock_confirmed)
            draft = Draft(current)
            change(draft)
            files = self._finish(draft, list(signers), now)
            self._journal.commit(files, remove=draft.remove, private=draft.private)
            self._forget_old_versions(draft.new)
            return draft.new

    def resign_timestamp(self, now: dt.datetime) -> dt.datetime:
        """Sign the timestamp again with the online key; the daemon does this daily.

        Returns:
            When the new timestamp expires.

        Raises:
            AuthorityError: as `edit`; nothing has changed.
        """
        return self.edit(lambda draft: None, (), now=now).timestamp.signed.expires

    def set_members(self, members: MembersList, signer: Signer, *, now: dt.datetime) -> Authority:
        """Replace the members list.

        Args:
            members: The whole list.
            signer: With the enrolment key.
            now: UTC.

        Raises:
            AuthorityError: as `edit`; `authority.not-signed` with another key.
        """
        data = members.encode()
        return self.edit(
            lambda draft: draft.add_target(MEMBERS, MEMBERS_PATH, data, {}), [signer], now=now
        )

    def keep_pending(self, promotion: bytes, blobs: Mapping[str, bytes]) -> None:
        """Keep a promotion with too few signatures. Nothing that is published changes.

        Raises:
            AuthorityError: `authority.busy`, `authority.cannot-write`.
        """
        with self._journal.locked():
            files = {f"targets/{digest}": data for digest, data in blobs.items()}
            self._journal.commit({**files, PENDING: promotion})

    def drop_pending(self) -> None:
        """Forget a pending promotion."""
        with self._journal.locked():
            self._journal.commit({}, remove=[PENDING])

    def refuse_existing(self) -> None:
        """Before a new authority is made.

        Raises:
            AuthorityError: `authority.exists`.
        """
        if self.exists():
            raise AuthorityError(
                "authority.exists",
                N_("{folder} holds an authority already. Move it away to start afresh."),
                folder=str(self.path),
            )

    # Inside.

    def _require(self) -> None:
        if not self.exists():
            raise AuthorityError(
                "authority.none",
                N_(
                    "{folder} holds no authority. Make one with: cuntong authority init, or name the data directory with --data."
                ),
                fault=Fault.CONFIG,
                folder=str(self.path),
            )

    def _finish(self, draft: Draft, signers: list[Signer], now: dt.datetime) -> dict[str, bytes]:
        """Sign what changed; the files in the order in which they may appear."""
        new = draft.new
        root = new.root.signed
        if root.expires <= now:
            raise AuthorityError(
                "authority.root-expired",
                N_("The root of {place} ended on {date}. Renew it first: cuntong authority renew"),
                place=new.code,
                date=root.expires.date().isoformat(),
            )
        files = {f"targets/{digest}": data for digest, data in draft.blobs.items()}
        files.update(draft.files)
        for role in sorted(draft.changed):
            metadata = draft.presigned.get(role)
            if metadata is None:
                metadata = new.roles[role]
                metadata.signed.version += role in draft.current.roles
                metadata.signed.expires = root.expires
                sign(metadata, new.delegator(role), role, signers)
            new.roles[role] = metadata
            require_signed(metadata, new.delegator(role), role)
            data = metadata.to_bytes()
            files[f"metadata/{metadata.signed.version}.{role}.json"] = data
            new.snapshot.signed.meta[f"{role}.json"] = MetaFile(metadata.signed.version, len(data))
        online = [s for s in signers if s.public_key.keyid in root.roles[TIMESTAMP].keyids]
        if not online:
            online = [self._online_signer()]
        if draft.root_changed:
            files[f"metadata/{root.version}.root.json"] = new.root.to_bytes()
        files.update(self._sign_online(new, online, now, draft))
        return files

    def _sign_online(
        self, new: Authority, online: Sequence[Signer], now: dt.datetime, draft: Draft
    ) -> dict[str, bytes]:
        files: dict[str, bytes] = {}
        root = new.root.signed
        if draft.changed or draft.root_changed:
            new.snapshot.signed.version += 1
            new.snapshot.signed.expires = root.expires
            sign(new.snapshot, root, SNAPSHOT, online)
            data = new.snapshot.to_bytes()
            files[f"metadata/{new.snapshot.signed.version}.snapshot.json"] = data
            new.timestamp.signed.snapshot_meta = MetaFile(
                new.snapshot.signed.version,
                len(data),
                {"sha256": hashlib.sha256(data).hexdigest()},
            )
        stamp(new.timestamp.signed, now)
        new.timestamp.signed.version += 1
        sign(new.timestamp, root, TIMESTAMP, online)
        for role, metadata in ((SNAPSHOT, new.snapshot), (TIMESTAMP, new.timestamp)):
            require_signed(metadata, root, role)
        files["metadata/timestamp.json"] = new.timestamp.to_bytes()
        return files

    def swarm_ca(self, *, now: dt.datetime) -> SwarmCa:
        """The authority's swarm CA, made if it has none yet (SPEC 7.6).

        Raises:
            AuthorityError: `authority.none`, as `load`.
            EnrolmentError: `swarm-ca.damaged`.
            OSError: It can't be written.
        """
        current = self.load()
        with self._journal.locked():
            kind = key_type_of(load_key(self.path / ONLINE_KEY, None))
            return ensure_swarm_ca(self.path, current.code, kind, now=now)

    def _online_signer(self) -> Signer:
        return CryptoSigner(load_key(self.path / ONLINE_KEY, None))

    def _forget_old_versions(self, authority: Authority) -> None:
        versions = {name: role.signed.version for name, role in authority.roles.items()}
        versions[SNAPSHOT] = authority.snapshot.signed.version
        for path in (self.path / "metadata").iterdir():
            number, _dot, rest = path.name.partition(".")
            latest = versions.get(rest.removesuffix(".json"), 0)
            if number.isdigit() and int(number) <= latest - KEPT_VERSIONS:
                path.unlink(missing_ok=True)


def check_clock(current: Authority, now: dt.datetime, *, is_clock_confirmed: bool) -> None:
    """A time once signed is never taken back by the nodes below, so a wrong clock must not sign.

    Raises:
        AuthorityError: `authority.clock-behind`, `authority.clock-ahead`.
    """
    last = current.signed_at
    if now < last:
        raise AuthorityError(
            "authority.clock-behind",
            N_("This computer's clock says {now}, but {last} was signed already. Set the clock."),
            fault=Fault.SYSTEM,
            now=format_time(now),
            last=format_time(last),
        )
    if now > last + MAX_CLOCK_STEP and not is_clock_confirmed:
        raise AuthorityError(
            "authority.clock-ahead",
            N_(
                "This computer's clock says {now}, long after the last signature of {last}. Set the clock; if it is right, run: cuntong authority renew"
            ),
            fault=Fault.SYSTEM,
            now=format_time(now),
            last=format_time(last),
        )

"""Making an authority: its keys on the sticks, the first version of every role, the CA (SPEC 4.1, 5.1)."""

from __future__ import annotations

import datetime as dt
import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from securesystemslib.signer import CryptoSigner  # type: ignore[attr-defined]  # No __all__.
from tuf.api.metadata import Metadata, MetaFile, Root, Snapshot, Targets, Timestamp  # type: ignore[attr-defined]  # No __all__.

from cuntong_daemon.pki.ca import make_ca_certificate
from cuntong_daemon.pki.certificates import (
    KeyType,
    PrivateKey,
    chain_pem,
    key_type_of,
    new_key,
    private_key_pem,
)
from cuntong_daemon.pki.swarm import SWARM_CA, make_swarm_ca
from cuntong_protocol.divisions import Division, Tier
from cuntong_protocol.enrolment import public_key_der
from cuntong_protocol.errors import Fault
from cuntong_protocol.texts import N_
from cuntong_protocol.trust.names import (
    MEMBERS,
    PROMOTED,
    ROOT,
    SNAPSHOT,
    TARGETS,
    TIMESTAMP,
    WITHDRAWN,
    delegated_paths,
)

from .documents import SETTINGS, delegate, sign, stamp
from .endorsement import REQUEST, Request, encode_request
from .keys import AuthorityError, key_id, public_key, write_key
from .repository import LIFE, ONLINE_KEY, AuthorityRepository
from .settings import Settings, encode_settings

MAX_NAME_CHARS = 100
MAX_KEYS = 20
"""Of one role; more people than that don't meet in one room."""


@dataclass(frozen=True, slots=True)
class KeyPlan:
    """Which keys an authority gets, and on which stick each lies.

    Attributes:
        root_keys: How many root keys.
        root_threshold: How many of them must sign.
        reviewers: How many reviewers' keys; two must sign, or one if there is only one.
        sticks: One folder for each stick. Keys of the same kind go round the sticks; the keys of the daily
            work (targets, enrolment, ca) lie on the first.
    """

    root_keys: int
    root_threshold: int
    reviewers: int
    sticks: tuple[Path, ...]

    @property
    def review_threshold(self) -> int:
        return min(2, self.reviewers)

    @property
    def places(self) -> dict[str, Path]:
        """Name of each key -> the file that will hold it."""
        found = {}
        for kind, count in (("root", self.root_keys), ("reviewer", self.reviewers)):
            for number in range(count):
                name = f"{kind}-{number + 1}"
                found[name] = self.sticks[number % len(self.sticks)] / f"{name}.pem"
        found.update(
            {name: self.sticks[0] / f"{name}.pem" for name in ("targets", "enrolment", "ca")}
        )
        return found

    def check(self) -> None:
        """Check that the plan makes sense, that no stick holds a whole quorum, and that nothing is in the way.

        Raises:
            AuthorityError: `authority.bad-threshold`, `authority.too-few-sticks`, `keys.no-stick`,
                `keys.file-exists`.
        """
        if not 1 <= self.root_threshold <= self.root_keys <= MAX_KEYS or not (
            1 <= self.reviewers <= MAX_KEYS
        ):
            raise AuthorityError(
                "authority.bad-threshold",
                N_(
                    "Choose at least one key of each kind, at most {most}, and no threshold above the number of keys."
                ),
                fault=Fault.USAGE,
                most=MAX_KEYS,
            )
        count = len({stick.resolve() for stick in self.sticks})
        for keys, threshold in (
            (self.root_keys, self.root_threshold),
            (self.reviewers, self.review_threshold),
        ):
            most_on_one = -(-keys // count) if count else keys
            if threshold > 1 and most_on_one >= threshold:
                raise AuthorityError(
                    "authority.too-few-sticks",
                    N_(
                        "{sticks} sticks aren't enough: one of them would hold {threshold} of {keys} keys, which is enough to sign alone. Give --keys once for each stick."
                    ),
                    fault=Fault.USAGE,
                    sticks=count,
                    threshold=threshold,
                    keys=keys,
                )
        for path in self.places.values():
            if not path.parent.is_dir():
                raise AuthorityError(
                    "keys.no-stick",
                    N_("The folder {folder} can't be read ({reason}). Is the stick inserted?"),
                    fault=Fault.USAGE,
                    folder=str(path.parent),
                    reason="not a folder",
                )
            if path.exists():
                raise AuthorityError(
                    "keys.file-exists",
                    N_(
                        "{file} exists already. Choose another folder, or move it away if it's not needed."
                    ),
                    file=str(path),
                )


def default_plan(
    code: Division,
    sticks: Sequence[Path],
    *,
    root_keys: int | None = None,
    root_threshold: int | None = None,
    reviewers: int = 2,
) -> KeyPlan:
    """The nation 3 of 5, provinces to counties 2 of 3, townships and villages 1 of 2."""
    threshold, keys = {Tier.NATION: (3, 5), Tier.TOWNSHIP: (1, 2), Tier.VILLAGE: (1, 2)}.get(
        code.tier, (2, 3)
    )
    return KeyPlan(root_keys or keys, root_threshold or threshold, reviewers, tuple(sticks))


def create_authority(
    repository: AuthorityRepository,
    code: Division,
    name: str,
    plan: KeyPlan,
    passphrase_for: Callable[[Path], str],
    *,
    now: dt.datetime,
    key_type: KeyType = "ed25519",
) -> Request:
    """Make the keys, write them to the sticks, and write the repository.

    Args:
        repository: Where to; the folder must not hold an authority.
        code: Its division code.
        name: For people, 1 to 100 characters.
        plan: Checked here.
        passphrase_for: Called once for each stick before anything is written.
        now: UTC.
        key_type: For all keys.

    Returns:
        The request for the parent; the nation's shows its fingerprint.

    Raises:
        AuthorityError: those of `KeyPlan.check`, `authority.exists`, `authority.bad-name`,
            `authority.cannot-write`. Key files that were written are removed again.
    """
    if not 1 <= len(name) <= MAX_NAME_CHARS or not name.isprintable() or not name.strip():
        raise AuthorityError(
            "authority.bad-name",
            N_("A name is one line of 1 to {count} characters."),
            fault=Fault.USAGE,
            count=MAX_NAME_CHARS,
        )
    plan.check()
    repository.refuse_existing()
    passphrases = {stick: passphrase_for(stick) for stick in plan.sticks}
    keys: dict[str, PrivateKey] = {key: new_key(key_type) for key in plan.places}
    online = new_key(key_type)
    files = first_version(code, name, plan, keys, online, now=now)
    ca_key = public_key_der(keys["ca"].public_key())
    request = Request(str(code), name, files["metadata/1.root.json"], ca_key)
    files = {REQUEST: encode_request(request), **files}
    written: list[Path] = []
    try:
        for key, path in plan.places.items():
            write_key(path, keys[key], passphrases[path.parent], authority=code, name=key)
            written.append(path)
        repository.create(files, private=[ONLINE_KEY, SWARM_CA])
    except BaseException as error:
        if repository.settle() is None:
            for path in written:
                path.unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise AuthorityError(
                "authority.cannot-write",
                N_(
                    "{folder} can't be written: {reason}. Nothing was changed; mend that and try again."
                ),
                fault=Fault.SYSTEM,
                folder=str(error.filename or plan.sticks[0]),
                reason=error.strerror or str(error),
            ) from error
        raise
    return request


def first_version(
    code: Division,
    name: str,
    plan: KeyPlan,
    keys: Mapping[str, PrivateKey],
    online: PrivateKey,
    *,
    now: dt.datetime,
) -> dict[str, bytes]:
    """All files of a new repository, in the order in which they may appear."""
    signers = {key: CryptoSigner(private) for key, private in keys.items()}
    online_signer = CryptoSigner(online)
    public = {key: public_key(private) for key, private in keys.items()}
    reviewers = [public[key] for key in keys if key.startswith("reviewer-")]
    end = now.astimezone(dt.UTC).replace(microsecond=0) + LIFE

    root = Root(version=1, expires=end, consistent_snapshot=True)
    for key in keys:
        if key.startswith("root-"):
            root.add_key(public[key], ROOT)
    root.add_key(public["targets"], TARGETS)
    root.add_key(online_signer.public_key, SNAPSHOT)
    root.add_key(online_signer.public_key, TIMESTAMP)
    root.roles[ROOT].threshold = plan.root_threshold

    targets = Targets(version=1, expires=end)
    delegate(
        targets, PROMOTED, reviewers, plan.review_threshold, list(delegated_paths(code, PROMOTED))
    )
    delegate(
        targets,
        WITHDRAWN,
        [public["targets"], *reviewers],
        1,
        list(delegated_paths(code, WITHDRAWN)),
    )
    delegate(targets, MEMBERS, [public["enrolment"]], 1, list(delegated_paths(code, MEMBERS)))

    settings = Settings(code, name, {key: key_id(private) for key, private in keys.items()})
    swarm_ca = make_swarm_ca(code, key_type_of(online), now=now)
    files = {
        SETTINGS: encode_settings(settings),
        ONLINE_KEY: private_key_pem(online),
        SWARM_CA: swarm_ca.encode(),
    }
    if code.parent is None:
        files["ca.pem"] = chain_pem([make_ca_certificate(keys["ca"], now=now)])
    snapshot = Snapshot(version=1, expires=end)
    for role in (TARGETS, PROMOTED, WITHDRAWN, MEMBERS):
        metadata = Metadata(targets if role == TARGETS else Targets(version=1, expires=end))
        sign(metadata, root if role == TARGETS else targets, role, signers.values())
        data = metadata.to_bytes()
        files[f"metadata/1.{role}.json"] = data
        snapshot.meta[f"{role}.json"] = MetaFile(1, len(data))
    signed_root = Metadata(root)
    sign(signed_root, root, ROOT, signers.values())
    files["metadata/1.root.json"] = signed_root.to_bytes()
    signed_snapshot = Metadata(snapshot)
    sign(signed_snapshot, root, SNAPSHOT, [online_signer])
    data = signed_snapshot.to_bytes()
    files["metadata/1.snapshot.json"] = data
    meta = MetaFile(1, len(data), {"sha256": hashlib.sha256(data).hexdigest()})
    timestamp = Timestamp(version=1, expires=end, snapshot_meta=meta)
    stamp(timestamp, now)
    signed_timestamp = Metadata(timestamp)
    sign(signed_timestamp, root, TIMESTAMP, [online_signer])
    files["metadata/timestamp.json"] = signed_timestamp.to_bytes()
    return files

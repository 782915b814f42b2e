"""Replacing one key of an authority, and renewing everything that expires (SPEC 4.1, 4.3).

A lost or stolen key is replaced by name. The root's own chain carries it to every node: the parent has
nothing to do. Only when too few root keys are left is a new root needed, in a new epoch (SPEC 4.5).
"""

from __future__ import annotations

import copy
import datetime as dt
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import msgspec
from securesystemslib.signer import CryptoSigner, Key, Signer  # type: ignore[attr-defined]  # No __all__.
from tuf.api.metadata import Metadata, Root  # type: ignore[attr-defined]  # No __all__.

from cuntong_daemon.pki.certificates import PrivateKey, private_key_pem
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
    is_month,
)

from .documents import SETTINGS, Authority, delegate, require_signed
from .keys import AuthorityError, KeyRing
from .repository import LIFE, ONLINE_KEY, AuthorityRepository, Draft
from .settings import encode_settings

ONLINE = "online"


@dataclass(frozen=True, slots=True)
class RotationPlan:
    """Which keys must be on the table to replace one.

    Attributes:
        name: Of the key that is replaced.
        quorums: Role -> its keys (id -> name) and how many of them must sign.
    """

    name: str
    quorums: Mapping[str, tuple[dict[str, str], int]]


def plan_rotation(current: Authority, name: str) -> RotationPlan:
    """Work out who has to sign when `name` is replaced.

    Args:
        current: What is in force.
        name: `online`, or a name in `authority.toml`: `root-1`, `targets`, `reviewer-1`, `enrolment`.

    Raises:
        AuthorityError: `rotate.unknown-key`, `rotate.ca`.
    """
    if name == "ca":
        raise AuthorityError(
            "rotate.ca",
            N_(
                "The CA key can't be replaced alone, since all certificates hang on it: start a new epoch."
            ),
            fault=Fault.USAGE,
        )
    if name != ONLINE and name not in current.settings.keys:
        raise AuthorityError(
            "rotate.unknown-key",
            N_("There is no key {name} here. The keys are: {names}."),
            fault=Fault.USAGE,
            name=name,
            names=", ".join([*(key for key in current.settings.keys if key != "ca"), ONLINE]),
        )
    roles = []
    if name.startswith("root-") or name in (TARGETS, ONLINE):
        roles.append(ROOT)
    if not name.startswith("root-") and name not in (TARGETS, ONLINE):
        roles.append(TARGETS)
    if name.startswith("reviewer-"):
        roles.append(PROMOTED)
    return RotationPlan(name, {role: _left(current, role, name) for role in roles})


def _left(current: Authority, role: str, name: str) -> tuple[dict[str, str], int]:
    keys, threshold = current.role_keys(role)
    if role == PROMOTED:
        # The one who is replaced needn't sign: the new key does.
        keys = {key: owner for key, owner in keys.items() if owner != name}
        threshold = min(threshold - 1, len(keys))
    return keys, threshold


def collect_signers(plan: RotationPlan, ring: KeyRing) -> list[Signer]:
    """Decrypt what a rotation needs; all sticks are checked before the first passphrase is asked.

    Raises:
        AuthorityError: those of `KeyRing.quorum`.
    """
    for role, (keys, threshold) in plan.quorums.items():
        ring.check_quorum(keys, threshold, role)
    return [
        signer
        for role, (keys, threshold) in plan.quorums.items()
        for signer in ring.quorum(keys, threshold, role)
    ]


def rotate(
    repository: AuthorityRepository,
    name: str,
    new_key: PrivateKey,
    signers: Sequence[Signer],
    *,
    now: dt.datetime,
) -> Authority:
    """Replace one key by a new one, which the caller has put on a stick already.

    Args:
        repository: Whose.
        name: See `plan_rotation`.
        new_key: Also signs what it is needed for.
        signers: From `collect_signers`.
        now: UTC.

    Raises:
        AuthorityError: `authority.not-signed`, and those of `edit`; nothing was changed.
    """
    new_signer = CryptoSigner(new_key)
    everyone = [*signers, new_signer]

    def change(draft: Draft) -> None:
        new = draft.new
        if name == ONLINE:
            draft.files[ONLINE_KEY] = private_key_pem(new_key)
            draft.private.append(ONLINE_KEY)
            _change_root(
                draft, everyone, {SNAPSHOT: new_signer.public_key, TIMESTAMP: new_signer.public_key}
            )
            return
        old = new.settings.keys[name]
        keys = {**new.settings.keys, name: new_signer.public_key.keyid}
        new.settings = msgspec.structs.replace(new.settings, keys=keys)
        draft.files[SETTINGS] = encode_settings(new.settings)
        if name.startswith("root-"):
            _change_root(draft, everyone, {ROOT: new_signer.public_key}, old)
            return
        if name == TARGETS:
            _change_root(draft, everyone, {TARGETS: new_signer.public_key}, old)
        _change_delegations(draft, old, new_signer.public_key)

    return repository.edit(change, everyone, now=now)


def plan_renewal(current: Authority, ring: KeyRing) -> dict[str, str]:
    """Which keys to use for a renewal: the root quorum, and those of every role that has enough here.

    Returns:
        Key id -> name.

    Raises:
        AuthorityError: `keys.no-quorum` and `keys.same-stick` for the root.
    """
    keys, threshold = current.role_keys(ROOT)
    chosen = {key: keys[key] for key in ring.check_quorum(keys, threshold, ROOT)}
    for role in current.roles:
        keys, threshold = current.role_keys(role)
        try:
            chosen |= {key: keys[key] for key in ring.check_quorum(keys, threshold, role)}
        except AuthorityError:
            continue  # `renew` names the roles that are left.
    return chosen


def renew(
    repository: AuthorityRepository,
    signers: Sequence[Signer],
    *,
    now: dt.datetime,
) -> tuple[Authority, list[str]]:
    """Give the root, and every role whose keys are at hand, another three years.

    Returns:
        What is in force now, and the roles that keep their old end because their keys weren't there.

    Raises:
        AuthorityError: `authority.not-signed` when the root quorum isn't there; those of `edit`.
    """
    left: list[str] = []

    def change(draft: Draft) -> None:
        root = draft.new.root.signed
        root.expires = now.astimezone(dt.UTC).replace(microsecond=0) + LIFE
        _change_root(draft, signers, {})
        at_hand = {signer.public_key.keyid for signer in signers}
        for role in draft.new.roles:
            delegation = draft.new.delegator(role).get_delegated_role(role)
            if len(at_hand & set(delegation.keyids)) >= delegation.threshold:
                draft.changed.add(role)
            else:
                left.append(role)

    authority = repository.edit(change, signers, now=now, is_clock_confirmed=True)
    return authority, left


def _change_root(
    draft: Draft, signers: Iterable[Signer], new_keys: Mapping[str, Key], old: str | None = None
) -> None:
    """Make the next root; the old and the new root's quorum both sign it (TUF 5.3.4)."""
    metadata: Metadata[Root] = draft.new.root
    root = metadata.signed
    for role, key in new_keys.items():
        replaced = [old] if old is not None else list(root.roles[role].keyids)
        for key_id in replaced:
            root.revoke_key(key_id, role)
        root.add_key(key, role)
    root.version += 1
    metadata.signatures.clear()
    before = draft.current.root.signed
    allowed = {*before.roles[ROOT].keyids, *root.roles[ROOT].keyids}
    for signer in signers:
        if signer.public_key.keyid in allowed:
            metadata.sign(signer, append=True)
    require_signed(metadata, before, ROOT)
    require_signed(metadata, root, ROOT)
    draft.root_changed = True


def _change_delegations(draft: Draft, old: str, new: Key) -> None:
    """Put `new` in the place of `old` in every delegation, and sign those roles again."""
    top = draft.role(TARGETS)
    assert top.delegations is not None  # noqa: S101 - setup made them
    roles = copy.copy(top.delegations.roles or {})
    known = {**top.delegations.keys, new.keyid: new}
    for role, delegation in roles.items():
        if old in delegation.keyids:
            keys = [known[new.keyid if key == old else key] for key in delegation.keyids]
            delegate(top, role, keys, delegation.threshold, list(delegation.paths or ()))
            draft.changed.add(role)


def expiries(current: Authority) -> dict[str, dt.datetime]:
    """When each thing ends, months together: what `status` shows and reminds of."""
    ends = {"root": current.root.signed.expires, TIMESTAMP: current.timestamp.signed.expires}
    months = [role.signed.expires for name, role in current.roles.items() if is_month(name)]
    if months:
        ends["months"] = min(months)
    for role in (TARGETS, WITHDRAWN, PROMOTED, MEMBERS):
        ends[role] = current.roles[role].signed.expires
    ends[SNAPSHOT] = current.snapshot.signed.expires
    return ends

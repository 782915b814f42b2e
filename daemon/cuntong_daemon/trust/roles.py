"""Which roles an update has, which it lacks, and why it may be stuck (SPEC 4.1)."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

from tuf.api._payload import Snapshot, Timestamp
from tuf.api.exceptions import ExpiredMetadataError, RepositoryError, UnsignedMetadataError

from cuntong_protocol.divisions import Division
from cuntong_protocol.texts import N_, Sentence
from cuntong_protocol.trust.names import (
    MAX_MONTHS,
    MAX_SNAPSHOT_BYTES,
    MAX_TARGETS_BYTES,
    MAX_TIMESTAMP_BYTES,
    MEMBERS,
    PROMOTED,
    SNAPSHOT,
    TARGETS,
    WITHDRAWN,
    TrustError,
    delegated_paths,
    is_delegated_role,
    is_version,
    metadata_path,
    printable,
    probe_path,
    timestamp_path,
)

from .accepted import sha256_of
from .spool import Spool
from .verifier import Verification, explain, parse_targets
from .view import Missing

_FIRST_ROLES = (TARGETS, WITHDRAWN, MEMBERS, PROMOTED)


def load_roles(code: Division, run: Verification) -> tuple[dict[str, int], tuple[Sentence, ...]]:
    """Verify every delegated role of the kinds that SPEC 4.1 knows.

    Returns:
        The versions of all verified targets roles, and a sentence for each delegation that was left out.

    Raises:
        TrustError: `trust.too-many-roles`.
        RepositoryError, DownloadError: as python-tuf raises them.
    """
    targets = run.targets(TARGETS)
    if targets is None:
        raise RepositoryError("the update isn't complete")
    names: list[str] = []
    problems: list[Sentence] = []
    delegations = targets.delegations
    if delegations is not None:
        if delegations.succinct_roles is not None:
            problems.append(_bad_delegation(code, "succinct_roles"))
        for name, role in (delegations.roles or {}).items():
            if (
                isinstance(name, str)  # python-tuf doesn't look.
                and is_delegated_role(name)
                and tuple(role.paths or ()) == delegated_paths(code, name)
                and not role.terminating
            ):
                names.append(name)
            else:
                problems.append(_bad_delegation(code, str(name)))
    if len(names) > MAX_MONTHS:
        raise TrustError(
            "trust.too-many-roles",
            N_("{authority} has more than {limit} roles: its update is refused."),
            authority=code,
            limit=MAX_MONTHS,
        )
    loaded = {TARGETS: targets.version}
    for name in names:
        run.load(probe_path(code, name))
        found = run.targets(name)
        if found is None:
            raise RepositoryError(f"{name} is hidden by another role")
        loaded[name] = found.version
        found.targets.clear()  # python-tuf asks it no more; all months at once would be 12 MB.
    return loaded, tuple(problems)


def _bad_delegation(code: Division, name: str) -> Sentence:
    return TrustError(
        "trust.bad-delegation",
        N_("{authority} delegates to {role} in a way that the rules don't know: it is ignored."),
        authority=code,
        role=printable(name),
    ).sentence


def lacking(
    code: Division, run: Verification, good: Mapping[str, bytes], spool: Spool
) -> list[Missing]:
    """Everything that an unfinished run shows to be lacking, at once.

    Args:
        code: The authority.
        run: It ended because a file wasn't there.
        good: Accepted role files that are whole.
        spool: What is there unverified need not be fetched.
    """
    timestamp, snapshot = run.signed(Timestamp), run.signed(Snapshot)
    if timestamp is None:
        return [Missing(timestamp_path(code), MAX_TIMESTAMP_BYTES)]
    meta = timestamp.snapshot_meta
    if snapshot is None or snapshot.version != meta.version:
        limit = min(meta.length or MAX_SNAPSHOT_BYTES, MAX_SNAPSHOT_BYTES)
        return [Missing(metadata_path(code, SNAPSHOT, meta.version), limit)]
    names = [name.removesuffix(".json") for name in snapshot.meta]
    months = sorted((name for name in names if name not in _FIRST_ROLES), reverse=True)
    found = []
    for role in (*(name for name in _FIRST_ROLES if name in names), *months)[:MAX_MONTHS]:
        meta = snapshot.meta[f"{role}.json"]
        if (role != TARGETS and not is_delegated_role(role)) or not is_version(meta.version):
            continue
        if role in good and parse_targets(good[role]).version == meta.version:
            wanted = (meta.hashes or {}).get("sha256")
            if wanted is None or wanted == sha256_of(good[role]):
                continue
        if not spool.has_spooled(code, f"{meta.version}.{role}.json"):
            limit = min(meta.length or MAX_TARGETS_BYTES, MAX_TARGETS_BYTES)
            found.append(Missing(metadata_path(code, role, meta.version), limit))
    return found


def why_stuck(
    code: Division, name: str, good: Mapping[str, bytes], reference: datetime
) -> TrustError:
    """All that is listed is here, and yet file `name` was asked for: what is here doesn't hold any more."""
    role = name.split(".")[1] if name.count(".") == 2 else name
    if role not in good:
        return explain(code, RepositoryError(f"{printable(role)} is a role of no known kind"))
    if parse_targets(good[role]).is_expired(reference):
        return explain(code, ExpiredMetadataError(f"{role} is expired"))
    return explain(code, UnsignedMetadataError(f"{role} isn't signed by its present keys"))

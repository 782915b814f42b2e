"""What an accepted catalogue means, worked out once from its files (SPEC 4.2, 4.3)."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from tuf.api._payload import Targets, Timestamp
from tuf.api.exceptions import RepositoryError

from cuntong_protocol.divisions import Division
from cuntong_protocol.texts import Sentence
from cuntong_protocol.trust.custom import (
    Contents,
    Target,
    merge_contents,
    parse_time,
    read_role,
)
from cuntong_protocol.trust.names import SIGNED_AT_FIELD, SNAPSHOT, TIMESTAMP

from .floors import Accepted
from .spool import Spool
from .verifier import parse_targets, parse_timestamp


@dataclass(frozen=True, slots=True)
class AcceptedCatalogue:
    """The last complete catalogue of an authority, in words of ours.

    Attributes:
        timestamp_sha256: Of the timestamp's bytes.
        version: The timestamp's.
        signed_at: The signed time it carries, when that is sound.
        expires: The timestamp's.
        versions: Of every role, the timestamp's among them.
        contents: What it says, without the entries that break a rule.
        problems: About these entries.
        damaged: Roles whose files were lost on this disk.
    """

    timestamp_sha256: str
    version: int
    signed_at: datetime | None
    expires: datetime
    versions: Mapping[str, int]
    contents: Contents
    problems: tuple[Sentence, ...]
    damaged: frozenset[str]


def load_accepted(
    code: Division,
    accepted: Accepted,
    spool: Spool,
    delegation_problems: tuple[Sentence, ...] = (),
) -> AcceptedCatalogue:
    """Read an accepted catalogue from its files, which were verified when they were written.

    One at a time: python-tuf takes 1.2 kB for each bundle that is listed, ten times what is kept of it.
    """
    parts: list[Contents] = []
    problems = list(delegation_problems)
    damaged: set[str] = set()
    for role, file in accepted.roles.items():
        if role == SNAPSHOT:
            continue  # Its bytes lie in the floors.
        data = spool.read_trusted(code, role, file.version, file.sha256)
        if data is None:
            damaged.add(role)
            continue
        part, found = read_role(code, role, _targets(parse_targets(data)))
        parts.append(part)
        problems.extend(found)
    timestamp = parse_timestamp(accepted.timestamp)
    versions = {role: file.version for role, file in accepted.roles.items()}
    versions[TIMESTAMP] = timestamp.version
    return AcceptedCatalogue(
        sha256_of(accepted.timestamp),
        timestamp.version,
        signed_at(timestamp),
        timestamp.expires,
        versions,
        merge_contents(parts),
        tuple(problems),
        frozenset(damaged),
    )


def _targets(signed: Targets) -> Iterator[Target]:
    for path, target in signed.targets.items():
        yield Target(path, target.length, target.hashes.get("sha256", ""), target.custom)


def signed_at(timestamp: Timestamp) -> datetime | None:
    """`x-signed-at`, unless it is malformed or beyond the timestamp's own expiry."""
    value = timestamp.unrecognized_fields.get(SIGNED_AT_FIELD)
    if not isinstance(value, str):
        return None
    try:
        moment = parse_time(value)
    except ValueError:
        return None
    return moment if moment <= timestamp.expires else None


def hinted_time(offered: bytes | None) -> datetime:
    """The signed time of an unverified timestamp. It can only make a run stricter, never what is kept."""
    lowest = datetime.fromtimestamp(0, UTC)
    if offered is None:
        return lowest
    try:
        return signed_at(parse_timestamp(offered)) or lowest
    except (RepositoryError, ValueError):
        return lowest


def sha256_of(data: bytes) -> str:
    """In hexadecimal."""
    return hashlib.sha256(data).hexdigest()

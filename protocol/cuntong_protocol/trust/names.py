"""Names in the trust layer: roles, target paths, object paths, and their limits (SPEC 4.1, 4.2, 6.3)."""

from __future__ import annotations

import re
from dataclasses import dataclass

from cuntong_protocol.divisions import Division
from cuntong_protocol.errors import CuntongError, Fault
from cuntong_protocol.texts import N_

ROOT = "root"
TIMESTAMP = "timestamp"
SNAPSHOT = "snapshot"
TARGETS = "targets"
PROMOTED = "promoted"
WITHDRAWN = "withdrawn"
MEMBERS = "members"
DELEGATED = (WITHDRAWN, MEMBERS, PROMOTED)
"""The delegated roles beside the months; tombstones come first wherever there is an order."""

MEMBERS_PATH = "members/list"
SIGNED_AT_FIELD = "x-signed-at"

MAX_VERSION = 2**53
"""The largest integer that every JSON reader keeps; more is an attack on counters."""
MAX_MONTHS = 1_200
"""A hundred years of publishing."""
MAX_ROOT_BYTES = 512_000
MAX_TIMESTAMP_BYTES = 16_384
MAX_SNAPSHOT_BYTES = 2_000_000
MAX_TARGETS_BYTES = 5_000_000
"""These four are python-tuf's own defaults; 5 MB hold about 18,000 bundles in one month."""
MAX_DESCRIPTOR_BYTES = 65_536
MAX_CERTIFICATE_BYTES = 16_384
MAX_MEMBERS_BYTES = 4_194_304
"""About 25,000 members; the largest county has some hundreds."""

_MONTH = re.compile(r"[0-9]{4}(?:0[1-9]|1[0-2])")
_SLUG = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,62}[a-z0-9])?")
_VERSIONED = re.compile(r"([1-9][0-9]{0,15})\.([a-z0-9]{1,20})\.json")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_TIMESTAMP_FILE = f"{TIMESTAMP}.json"


class TrustError(CuntongError):
    """Something signed, or said to be signed, breaks a rule."""

    fault = Fault.REFUSED

    def __init__(
        self, code: str, template: str, /, *, fault: Fault | None = None, **params: str | int
    ) -> None:
        # A code is a kind of `str` that msgspec doesn't encode; sentences travel.
        plain = {
            name: value if isinstance(value, int) else str(value) for name, value in params.items()
        }
        super().__init__(code, template, fault=fault, **plain)


def is_month(role: str) -> bool:
    """True for the name of a monthly role, `<yyyymm>`."""
    return _MONTH.fullmatch(role) is not None


def is_delegated_role(role: str) -> bool:
    """True for a role that an authority may delegate (SPEC 4.1)."""
    return role in DELEGATED or is_month(role)


def delegated_paths(authority: Division, role: str) -> tuple[str, ...]:
    """The only path patterns that this delegated role may have."""
    if is_month(role):
        return (f"{authority}/{role}/*",)
    return {
        PROMOTED: ("*/*/*",),
        WITHDRAWN: ("withdrawn/*/*/*",),
        MEMBERS: ("members/*",),
    }[role]


def probe_path(authority: Division, role: str) -> str:
    """A target path that no bundle can have and whose lookup loads just this role and its like."""
    return delegated_paths(authority, role)[0].replace("*", "_")


def is_version(version: object) -> bool:
    """True for a version number that every counter holds; JSON's `true` is none, though Python counts it as 1."""
    return type(version) is int and 0 < version <= MAX_VERSION


def is_sha256(text: str) -> bool:
    """True for 64 lower-case hexadecimal digits."""
    return _SHA256.fullmatch(text) is not None


def split_bundle_path(path: str) -> tuple[Division, str, str]:
    """`<code>/<yyyymm>/<slug>` in its three parts.

    Raises:
        TrustError: `trust.bad-path`.
        DivisionError: the first part isn't a code.
    """
    parts = path.split("/")
    if len(parts) != 3 or not is_month(parts[1]) or not _SLUG.fullmatch(parts[2]):
        raise TrustError(
            "trust.bad-path", N_("{path} is not the name of a bundle."), path=printable(path)
        )
    return Division(parts[0]), parts[1], parts[2]


def printable(text: str) -> str:
    """A name from elsewhere, fit for a sentence: short, and encodable whatever it holds."""
    return text[:200].encode("utf-8", "backslashreplace").decode()


@dataclass(frozen=True, slots=True)
class ObjectPath:
    """What an object path of SPEC 6.3 names.

    Attributes:
        kind: `metadata`, `blobs` or `torrents`.
        authority: For metadata; None else.
        role: For metadata; the hexadecimal name else.
        version: For metadata but the timestamp; None else.
    """

    kind: str
    authority: Division | None
    role: str
    version: int | None = None

    @property
    def file_name(self) -> str:
        """The last part of the path."""
        if self.kind != "metadata":
            return self.role
        return _TIMESTAMP_FILE if self.version is None else f"{self.version}.{self.role}.json"


def parse_metadata_name(name: str) -> tuple[str, int | None]:
    """`timestamp.json` or `<N>.<role>.json` as (role, version).

    Raises:
        TrustError: `trust.bad-object`.
    """
    if name == _TIMESTAMP_FILE:
        return TIMESTAMP, None
    match = _VERSIONED.fullmatch(name)
    if match and (match[2] in (ROOT, SNAPSHOT, TARGETS) or is_delegated_role(match[2])):
        return match[2], int(match[1])
    raise _bad_object(name)


def parse_object_path(path: str) -> ObjectPath:
    """Read an object path; nothing but the exact forms of SPEC 6.3 is taken.

    Raises:
        TrustError: `trust.bad-object`.
        DivisionError: the authority isn't a code.
    """
    kind, _, rest = path.partition("/")
    if kind in ("blobs", "torrents") and is_sha256(rest):
        return ObjectPath(kind, None, rest)
    authority, _, name = rest.partition("/")
    if kind != "metadata":
        raise _bad_object(path)
    role, version = parse_metadata_name(name)
    return ObjectPath(kind, Division(authority), role, version)


def _bad_object(path: str) -> TrustError:
    return TrustError("trust.bad-object", N_("{path} names no object."), path=printable(path))


def timestamp_path(authority: Division) -> str:
    """The object path of an authority's timestamp."""
    return f"metadata/{authority}/{_TIMESTAMP_FILE}"


def metadata_path(authority: Division, role: str, version: int) -> str:
    """The object path of one version of a role."""
    return f"metadata/{authority}/{version}.{role}.json"


def blob_path(sha256: str) -> str:
    """The object path of a small signed file."""
    return f"blobs/{sha256}"


def torrent_path(infohash: str) -> str:
    """The object path of a torrent, by its v2 infohash in hexadecimal."""
    return f"torrents/{infohash}"


def max_metadata_bytes(role: str) -> int:
    """How large a file of this role may be."""
    return {
        ROOT: MAX_ROOT_BYTES,
        TIMESTAMP: MAX_TIMESTAMP_BYTES,
        SNAPSHOT: MAX_SNAPSHOT_BYTES,
    }.get(role, MAX_TARGETS_BYTES)

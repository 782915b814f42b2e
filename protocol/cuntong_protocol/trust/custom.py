"""The custom fields of signed targets, read strictly before anything uses them (SPEC 4.2).

An authority may sign what it likes. Whatever isn't exactly as the specification says is reported and that
entry alone is left out: a hostile or clumsy authority must not stop a node, nor hide its own good entries.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import UTC, date, datetime
from typing import Annotated, TypeVar

import msgspec

from cuntong_protocol.divisions import NATION, Division
from cuntong_protocol.errors import CuntongError
from cuntong_protocol.texts import N_, Sentence

from .names import (
    MAX_CERTIFICATE_BYTES,
    MAX_DESCRIPTOR_BYTES,
    MAX_MEMBERS_BYTES,
    MAX_ROOT_BYTES,
    MEMBERS,
    MEMBERS_PATH,
    PROMOTED,
    TARGETS,
    WITHDRAWN,
    TrustError,
    is_sha256,
    printable,
    split_bundle_path,
)

MAX_PROBLEMS = 20
"""Problems kept of one role: enough to find the mistake, too few to fill a screen or a report."""

_DATE = r"\A[0-9]{4}-[0-9]{2}-[0-9]{2}\Z"
_TIME = r"\A[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}Z\Z"
_TIME_FORMAT = "%Y-%m-%dT%H:%M:%SZ"
_EMPTY_SHA256 = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"

Date = Annotated[str, msgspec.Meta(pattern=_DATE, max_length=10)]
Time = Annotated[str, msgspec.Meta(pattern=_TIME, max_length=20)]


class Target(msgspec.Struct, frozen=True):
    """One target as a verified role lists it; its custom field is not yet looked at."""

    path: str
    length: int
    sha256: str
    custom: object


class EndorsementCustom(msgspec.Struct, frozen=True):
    """Of `auth/<code>.root.json`."""

    scope: Annotated[str, msgspec.Meta(pattern=r"\A[0-9]{0,12}\Z")]
    epoch: Annotated[int, msgspec.Meta(ge=1, le=1_000_000)]
    until: Date


class BundleCustom(msgspec.Struct, frozen=True):
    """Of a bundle. `payload` is in bytes, `infohash` the v2 infohash in hexadecimal."""

    rev: Annotated[int, msgspec.Meta(ge=1, le=1_000_000_000)]
    payload: Annotated[int, msgspec.Meta(ge=0, le=2**53)]
    infohash: Annotated[str, msgspec.Meta(pattern=r"\A[0-9a-f]{64}\Z")]


class TombstoneCustom(msgspec.Struct, frozen=True):
    """Of `withdrawn/…`."""

    reason: Annotated[str, msgspec.Meta(max_length=500)]
    at: Time


class BlobRef(msgspec.Struct, frozen=True):
    """A small signed file by its hash. `length` in bytes."""

    sha256: str
    length: int


class Endorsement(msgspec.Struct, frozen=True):
    """A parent's word for a child: this is its first root, this its epoch, until then it holds."""

    code: Division
    epoch: int
    until: date
    root: BlobRef


class Listed(msgspec.Struct, frozen=True, gc=False):
    """One bundle as one authority lists it. Sizes in bytes, hashes in hexadecimal."""

    id: str
    sha256: str
    length: int
    revision: int
    payload_size: int
    infohash: str


class Tombstone(msgspec.Struct, frozen=True):
    """A withdrawal: `by` took the bundle `id` back at `at`."""

    id: str
    by: Division
    reason: str
    at: datetime


class Contents(msgspec.Struct, frozen=True):
    """All that one authority says, validated."""

    endorsements: dict[Division, Endorsement] = {}
    certificates: dict[Division, BlobRef] = {}
    bundles: tuple[Listed, ...] = ()
    promoted: tuple[Listed, ...] = ()
    tombstones: tuple[Tombstone, ...] = ()
    members: BlobRef | None = None


C = TypeVar("C", bound=msgspec.Struct)


def parse_date(text: str) -> date:
    """`YYYY-MM-DD`.

    Raises:
        ValueError: no such day.
    """
    return date.fromisoformat(text)


def parse_time(text: str) -> datetime:
    """`YYYY-MM-DdatetimeHH:MM:SSZ`, and nothing else.

    Raises:
        ValueError: another form, or no such moment.
    """
    moment = datetime.strptime(text, _TIME_FORMAT).replace(tzinfo=UTC)
    if moment.strftime(_TIME_FORMAT).zfill(20) != text:
        raise ValueError(text)
    return moment


def format_time(moment: datetime) -> str:
    """The inverse of `parse_time`; fractions of a second are dropped."""
    return moment.astimezone(UTC).strftime(_TIME_FORMAT).zfill(20)


def _custom(target: Target, kind: type[C]) -> C:
    return msgspec.convert(target.custom, kind, strict=True)


def _need(fact: bool, text: str) -> None:
    if not fact:
        raise ValueError(text)


def _blob(target: Target, max_bytes: int) -> BlobRef:
    _need(0 < target.length <= max_bytes, "size")
    return BlobRef(target.sha256, target.length)


def _division_below(authority: Division, text: str) -> Division:
    code = Division(text)
    if not code.is_below(authority):
        raise TrustError(
            "trust.out-of-scope",
            N_("{path} is not below {authority}."),
            path=code,
            authority=authority,
        )
    return code


def _read_endorsement(authority: Division, target: Target) -> Endorsement:
    code = _division_below(authority, target.path.removeprefix("auth/").removesuffix(".root.json"))
    custom = _custom(target, EndorsementCustom)
    if custom.scope != code.prefix:
        raise TrustError(
            "trust.bad-scope",
            N_("The scope {scope} is not that of {code}."),
            scope=custom.scope,
            code=code,
        )
    return Endorsement(code, custom.epoch, parse_date(custom.until), _blob(target, MAX_ROOT_BYTES))


def read_listing(target: Target) -> Listed:
    """Read one bundle of a month or of `promoted`; its path is the caller's business."""
    custom = _custom(target, BundleCustom)
    _need(0 < target.length <= MAX_DESCRIPTOR_BYTES, "size")
    return Listed(
        target.path, target.sha256, target.length, custom.rev, custom.payload, custom.infohash
    )


def _read_tombstone(authority: Division, target: Target) -> Tombstone:
    bundle = target.path.removeprefix("withdrawn/")
    publisher, _, _ = split_bundle_path(bundle)
    _check_scope(authority, publisher, bundle)
    _need(target.length == 0 and target.sha256 == _EMPTY_SHA256, "not empty")
    custom = _custom(target, TombstoneCustom)
    custom.reason.encode()  # A lone surrogate could be shown or sent nowhere.
    return Tombstone(bundle, authority, custom.reason, parse_time(custom.at))


def _check_scope(authority: Division, publisher: Division, path: str) -> None:
    """TUF's globs can't say it: an authority speaks only of bundles within its own subtree."""
    if not publisher.is_within(authority):
        raise TrustError(
            "trust.out-of-scope",
            N_("{path} is not below {authority}."),
            path=printable(path),
            authority=authority,
        )


def read_role(
    authority: Division, role: str, targets: Iterable[Target]
) -> tuple[Contents, tuple[Sentence, ...]]:
    """What one verified role says, without the entries that break a rule.

    Returns:
        The valid part (only the fields that this role may fill), and at most `MAX_PROBLEMS` sentences
        about what was left out.
    """
    endorsements: dict[Division, Endorsement] = {}
    certificates: dict[Division, BlobRef] = {}
    listed: list[Listed] = []
    tombstones: list[Tombstone] = []
    members: list[BlobRef] = []

    def read_top(target: Target) -> None:
        if target.path.startswith("auth/") and target.path.endswith(".root.json"):
            endorsement = _read_endorsement(authority, target)
            endorsements[endorsement.code] = endorsement
        elif target.path.startswith("ca/") and target.path.endswith(".pem"):
            text = target.path.removeprefix("ca/").removesuffix(".pem")
            # The nation's own certificate is self-signed and may be listed for reference.
            code = NATION if text == NATION == authority else _division_below(authority, text)
            certificates[code] = _blob(target, MAX_CERTIFICATE_BYTES)
        else:
            raise _unknown_path(target.path)

    def read_month(target: Target) -> None:
        publisher, month, _ = split_bundle_path(target.path)
        if publisher != authority or month != role:
            raise TrustError(
                "trust.out-of-scope",
                N_("{path} is not below {authority}."),
                path=printable(target.path),
                authority=f"{authority}/{role}",
            )
        listed.append(read_listing(target))

    def read_promoted(target: Target) -> None:
        publisher, _, _ = split_bundle_path(target.path)
        _check_scope(authority, publisher, target.path)
        listed.append(read_listing(target))

    def read_withdrawn(target: Target) -> None:
        if not target.path.startswith("withdrawn/"):
            raise _unknown_path(target.path)
        tombstones.append(_read_tombstone(authority, target))

    def read_members(target: Target) -> None:
        if target.path != MEMBERS_PATH:
            raise _unknown_path(target.path)
        members.append(_blob(target, MAX_MEMBERS_BYTES))

    readers: dict[str, Callable[[Target], None]] = {
        TARGETS: read_top,
        PROMOTED: read_promoted,
        WITHDRAWN: read_withdrawn,
        MEMBERS: read_members,
    }
    read = readers.get(role, read_month)
    problems: list[Sentence] = []
    for target in targets:
        try:
            # python-tuf takes `true` for a number, and for a hash.
            _need(type(target.length) is int, "length")
            _need(type(target.sha256) is str and is_sha256(target.sha256), "sha256")
            read(target)
        except (CuntongError, ValueError) as error:  # msgspec's ValidationError is a ValueError.
            if len(problems) < MAX_PROBLEMS:
                problems.append(_ignored(authority, role, target.path, error))
    bundles = tuple(listed)
    contents = Contents(
        endorsements,
        certificates,
        () if role == PROMOTED else bundles,
        bundles if role == PROMOTED else (),
        tuple(tombstones),
        members[0] if members else None,
    )
    return contents, tuple(problems)


def merge_contents(parts: Iterable[Contents]) -> Contents:
    """Put the parts of all roles of one authority together."""
    endorsements: dict[Division, Endorsement] = {}
    certificates: dict[Division, BlobRef] = {}
    bundles: list[Listed] = []
    promoted: list[Listed] = []
    tombstones: list[Tombstone] = []
    members: BlobRef | None = None
    for part in parts:
        endorsements.update(part.endorsements)
        certificates.update(part.certificates)
        bundles.extend(part.bundles)
        promoted.extend(part.promoted)
        tombstones.extend(part.tombstones)
        members = part.members or members
    return Contents(
        endorsements, certificates, tuple(bundles), tuple(promoted), tuple(tombstones), members
    )


def _unknown_path(path: str) -> TrustError:
    return TrustError(
        "trust.bad-path", N_("{path} is not the name of a bundle."), path=printable(path)
    )


def _ignored(authority: Division, role: str, path: str, error: Exception) -> Sentence:
    code = error.code if isinstance(error, CuntongError) else "trust.bad-custom"
    return TrustError(
        code,
        N_(
            "{authority} signed an entry that breaks the rules, it is ignored: {path} in {role} ({reason})."
        ),
        authority=authority,
        path=printable(path),
        role=role,
        reason=printable(str(error)),
    ).sentence

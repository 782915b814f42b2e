"""What can be promoted: the daemon's verified candidates, and what waits for a second reviewer."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec

from cuntong_daemon.authority.keys import AuthorityError
from cuntong_daemon.authority.repository import AuthorityRepository
from cuntong_daemon.control.sockets import ControlError
from cuntong_daemon.paths import DataPaths
from cuntong_protocol.bundle.descriptor import Descriptor, decode_descriptor
from cuntong_protocol.bundle.errors import BundleError
from cuntong_protocol.errors import Fault
from cuntong_protocol.texts import N_
from cuntong_protocol.trust.custom import Listed
from cuntong_tools.client import connect


def candidates(paths: DataPaths, *, required: bool) -> dict[str, Listed]:
    """What the daemon has verified of those below (`review.candidates`), by id.

    Args:
        paths: The centre's.
        required: Fail when no daemon runs; otherwise there are simply none.

    Raises:
        ControlError: see there.
    """
    try:
        with connect(paths) as client:
            found = client.call("review.candidates")
    except ControlError as error:
        if required or error.code != "control.no-daemon":
            raise
        return {}
    try:
        listings = msgspec.convert(found, list[Listed])
    except msgspec.ValidationError as error:
        raise ControlError(
            "control.garbage",
            N_("What answers at {path} isn't a daemon of this version: {reason}."),
            path=str(paths.socket),
            reason=str(error),
        ) from None
    return {listing.id: listing for listing in listings}


def choose(
    bundles: Sequence[str], found: Mapping[str, Listed], waiting: Mapping[str, Listed]
) -> list[Listed]:
    """The listings with these ids; what waits already goes before what is new under the same id.

    Raises:
        AuthorityError: `promote.unknown`, `promote.nothing-pending`.
    """
    if not bundles:
        raise AuthorityError(
            "promote.nothing-pending",
            N_(
                "No promotion waits for a signature, or another change overtook it. Name the bundles: cuntong promote ID…"
            ),
            fault=Fault.USAGE,
        )
    chosen = []
    for bundle in bundles:
        listing = waiting.get(bundle) or found.get(bundle)
        if listing is None:
            raise AuthorityError(
                "promote.unknown",
                N_("{id} is not among those that can be promoted. See them with: cuntong review"),
                fault=Fault.USAGE,
                id=bundle,
            )
        chosen.append(listing)
    return chosen


def descriptor_bytes(paths: DataPaths, repository: AuthorityRepository, listing: Listed) -> bytes:
    """The descriptor of a listing, from the daemon's blobs or the authority's own; empty when it's nowhere."""
    for folder in (paths.blobs, repository.path / "targets"):
        data = _read(folder / listing.sha256)
        if hashlib.sha256(data).hexdigest() == listing.sha256:
            return data
    return b""


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""


def check_descriptor(listing: Listed, data: bytes) -> Descriptor:
    """Check that a descriptor says what its listing says, so that reviewers sign what they see.

    Raises:
        AuthorityError: `promote.bad-descriptor`.
    """
    try:
        descriptor = decode_descriptor(data, expected_id=listing.id)
        is_same = (
            hashlib.sha256(data).hexdigest() == listing.sha256
            and descriptor.revision == listing.revision
            and descriptor.payload_size == listing.payload_size
            and descriptor.infohash.hex() == listing.infohash
        )
    except BundleError:
        is_same = False
    if not is_same:
        raise AuthorityError(
            "promote.bad-descriptor",
            N_(
                "The descriptor of {id} isn't here yet or is damaged. Wait for the daemon to fetch it."
            ),
            fault=Fault.TRANSPORT,
            id=listing.id,
        )
    return descriptor


def title_of(data: bytes) -> str:
    """For lists; empty when there's no descriptor yet."""
    try:
        return decode_descriptor(data).metadata.title
    except BundleError:
        return ""

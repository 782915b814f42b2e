"""The metadata that goes with a new node: collected where it is accepted, so that it can start without a link.

What is collected was verified here, and is verified again there: nothing in a pack but the nation's root
and the CA above it is trusted for being in the pack (SPEC 5.6).
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from cuntong_protocol.divisions import NATION, Division
from cuntong_protocol.enrolment import MAX_OBJECT_BYTES, MAX_OBJECTS, EnrolmentError
from cuntong_protocol.errors import Fault
from cuntong_protocol.texts import N_
from cuntong_protocol.trust.names import (
    MEMBERS_PATH,
    SIGNED_AT_FIELD,
    blob_path,
    metadata_path,
    timestamp_path,
)

ReadObject = Callable[[str], bytes | None]
"""An object path of SPEC 6.3 -> its bytes."""

MAX_ROOTS = 256
"""python-tuf follows no longer chain."""

_METADATA = re.compile(r"metadata/([0-9]{12})/([a-z0-9.]+)")
_BLOB = re.compile(r"blobs/([0-9a-f]{64})")


def authority_objects(authority: Path, code: Division) -> ReadObject:
    """Read what an authority publishes itself, from its folder."""

    def read(path: str) -> bytes | None:
        if (match := _METADATA.fullmatch(path)) and match[1] == code:
            return _read_file(authority / "metadata" / match[2])
        if match := _BLOB.fullmatch(path):
            return _read_file(authority / "targets" / match[1])
        return None

    return read


def folder_objects(folder: Path) -> ReadObject:
    """Read objects that lie under their paths below a folder, as in `authority/parents`."""

    def read(path: str) -> bytes | None:
        if _METADATA.fullmatch(path) or _BLOB.fullmatch(path):
            return _read_file(folder / path)
        return None

    return read


def _read_file(path: Path) -> bytes | None:
    try:
        return path.read_bytes() if path.stat().st_size <= MAX_OBJECT_BYTES else None
    except OSError:
        return None


def collect_metadata(sources: Iterable[ReadObject], node: Division) -> dict[str, bytes]:
    """The newest metadata of the authorities that a node will follow, by object path.

    For each authority the first source that has all of it is taken, so that the parts fit together. Bundles'
    descriptors are left out: they are fetched or cast.

    Args:
        sources: In order of preference.
        node: Its ancestors and itself are what it follows (SPEC 4.4).

    Raises:
        EnrolmentError: `pack.no-nation` when the nation's metadata isn't here.
    """
    sources = list(sources)
    followed = (*reversed(node.ancestors), node)
    found: dict[str, bytes] = {}
    for authority in followed:
        for read in sources:
            objects = _collect_authority(read, authority, frozenset(followed))
            if objects:
                found |= objects
                break
    if timestamp_path(NATION) not in found:
        raise EnrolmentError(
            "pack.no-nation",
            N_(
                "The nation's catalogue isn't here yet. Install the endorsement, or let the daemon fetch it."
            ),
            fault=Fault.SYSTEM,
        )
    return dict(list(found.items())[:MAX_OBJECTS])


def _collect_authority(
    read: ReadObject, authority: Division, followed: frozenset[Division]
) -> dict[str, bytes]:
    """All of one authority's current metadata, or nothing."""
    found: dict[str, bytes] = {}

    def take(path: str) -> dict[str, Any]:
        data = read(path)
        if data is None:
            raise KeyError(path)
        found[path] = data
        signed: dict[str, Any] = json.loads(data)["signed"]
        return signed

    try:
        for number in range(1, MAX_ROOTS + 1):
            path = metadata_path(authority, "root", number)
            if number > 1 and read(path) is None:
                break
            take(path)
        timestamp = take(timestamp_path(authority))
        version = int(timestamp["meta"]["snapshot.json"]["version"])
        snapshot = take(metadata_path(authority, "snapshot", version))
        for name, meta in snapshot["meta"].items():
            role = take(metadata_path(authority, name.removesuffix(".json"), int(meta["version"])))
            for target, entry in role["targets"].items():
                if _is_needed(target, followed):
                    path = blob_path(entry["hashes"]["sha256"])
                    if (data := read(path)) is not None:
                        found[path] = data
    except (KeyError, TypeError, ValueError, AttributeError):
        return {}
    return found


def _is_needed(target: str, followed: frozenset[Division]) -> bool:
    if target == MEMBERS_PATH:
        return True
    kind, _, rest = target.partition("/")
    return kind in {"auth", "ca"} and rest[:12] in followed


def signed_at(objects: dict[str, bytes], authority: Division) -> datetime:
    """When an authority's collected timestamp was signed.

    Raises:
        EnrolmentError: `pack.no-nation` when there is none that can be read.
    """
    try:
        signed = json.loads(objects[timestamp_path(authority)])["signed"]
        return datetime.strptime(signed[SIGNED_AT_FIELD], "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC)
    except (KeyError, TypeError, ValueError):
        raise EnrolmentError(
            "pack.no-nation",
            N_(
                "The nation's catalogue isn't here yet. Install the endorsement, or let the daemon fetch it."
            ),
            fault=Fault.SYSTEM,
        ) from None

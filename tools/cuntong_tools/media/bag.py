"""The tag files that make a volume's folder a BagIt bag (RFC 8493)."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping

BAGIT_FILE = "bagit.txt"
"""Without it a folder is no bag; so it is written last."""
BAG_INFO_FILE = "bag-info.txt"
MANIFEST_FILE = "manifest-sha256.txt"
TAG_MANIFEST_FILE = "tagmanifest-sha256.txt"

BAGIT_TEXT = b"BagIt-Version: 1.0\nTag-File-Character-Encoding: UTF-8\n"


def bag_info(entries: Iterable[tuple[str, str]]) -> bytes:
    """`bag-info.txt` (section 2.2.2).

    Args:
        entries: Labels and values; what breaks a line in a value becomes a space.
    """
    return "".join(f"{label}: {' '.join(value.split())}\n" for label, value in entries).encode()


def payload_oxum(lengths: Iterable[int]) -> str:
    """The value of `Payload-Oxum`: bytes and number of the payload's files."""
    found = list(lengths)
    return f"{sum(found)}.{len(found)}"


def manifest(digests: Mapping[str, bytes]) -> bytes:
    """A manifest, or a tag manifest (sections 2.1.3 and 2.2.1), in the order of the paths.

    Args:
        digests: SHA-256 of each file, by its path in the bag.
    """
    return "".join(
        f"{digest.hex()}  {_encoded(path)}\n"
        for path, digest in sorted(digests.items(), key=lambda item: item[0].encode())
    ).encode()


def tag_manifest(tag_files: Mapping[str, bytes]) -> bytes:
    """The manifest of the tag files, from their names and contents."""
    return manifest({name: hashlib.sha256(data).digest() for name, data in tag_files.items()})


def _encoded(path: str) -> str:
    """A path as a manifest has it: what breaks a line, and the percent sign, are percent-encoded."""
    return path.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")

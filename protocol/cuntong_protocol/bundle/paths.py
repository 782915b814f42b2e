"""Which paths a bundle may hold (SPEC 3.6).

Paths come from other people's folders and, inside an index or a torrent, from other nodes. All of them are
checked before a byte is written, and one bad path refuses the whole: a reader never has to decide about
the rest. The rules are those of the strictest place a bundle is copied to (Windows PCs and exFAT disks in
reading rooms), so that what works at the centre works there.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable

from cuntong_protocol.texts import N_

from .errors import BundleError

MAX_COMPONENT_BYTES = 255
"""NAME_MAX of every file system in use."""
MAX_PATH_BYTES = 3072
"""PATH_MAX is 4,096 and the data directory, the bundle's id and `files/` come before a path."""
MAX_PATH_PARTS = 64
"""libtorrent refuses bencoding nested deeper than 100, and each folder is one level."""
MAX_PATHS = 1_000_000
"""Files and folders of one bundle; keeps the memory for checking them below 1 GB at a centre."""

# Direction overrides make a name look like another one; separators and controls break lists and logs.
_FORBIDDEN = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\\\\]")
_DEVICE = re.compile(r"(con|prn|aux|nul|conin\$|conout\$|(com|lpt)[0-9¹²³]) *(\..*)?", re.DOTALL)


def check_paths(files: Iterable[str], folders: Iterable[str] = ()) -> None:
    """Check that these files and (empty) folders can lie together in one tree everywhere.

    Args:
        files: `/`-separated relative paths.
        folders: Likewise; folders on the way to a file need not be named.

    Raises:
        BundleError: `bundle.bad-path`, `bundle.path-collision` or `bundle.too-many-files`.
    """
    seen: dict[str, tuple[str, bool]] = {}
    count = 0
    for paths, is_file in ((files, True), (folders, False)):
        for path in paths:
            count += 1
            if count > MAX_PATHS:
                raise BundleError(
                    "bundle.too-many-files",
                    N_(
                        "More than {limit} files and folders: cut the content into several bundles."
                    ),
                    limit=MAX_PATHS,
                )
            _check_path(path)
            _enter(seen, path, is_file=is_file)


def _check_path(path: str) -> None:
    parts = path.split("/")
    try:
        length = len(path.encode())
        longest = max(len(part.encode()) for part in parts)
    except UnicodeEncodeError:
        raise _bad(path, N_("The name {path} is not valid UTF-8: rename it.")) from None
    if "" in parts or "." in parts or ".." in parts:
        raise _bad(path, N_("The path {path} is absolute or has empty, `.` or `..` parts."))
    if longest > MAX_COMPONENT_BYTES:
        raise _bad(path, N_("A name in {path} is longer than 255 bytes: shorten it."))
    if length > MAX_PATH_BYTES or len(parts) > MAX_PATH_PARTS:
        raise _bad(path, N_("The path {path} is too long or too deep: shorten it."))
    if _FORBIDDEN.search(path):
        raise _bad(path, N_("The name {path} holds control characters or a backslash: rename it."))
    if not unicodedata.is_normalized("NFC", path):
        raise _bad(path, N_("The name {path} is not in Unicode normal form C."))
    for part in parts:
        if part[-1] in ". " or _DEVICE.fullmatch(part.casefold()):
            raise _bad(path, N_("The name {path} can't be used on Windows: rename it."))


def _enter(seen: dict[str, tuple[str, bool]], path: str, *, is_file: bool) -> None:
    """Add a path and the folders above it to the folded tree."""
    key = fold(path)
    if is_file and key in seen:
        raise _collision(path, seen[key][0])
    # Folders above a known folder are known already.
    while seen.get(key) != (path, is_file):
        if seen.setdefault(key, (path, is_file)) != (path, is_file):
            raise _collision(path, seen[key][0])
        path, slash, _ = path.rpartition("/")
        if not slash:
            return
        key, is_file = fold(path), False


def fold(path: str) -> str:
    """The form in which two paths that some file system can't tell apart are equal."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFD", path).casefold())


def _bad(path: str, template: str) -> BundleError:
    return BundleError("bundle.bad-path", template, path=_printable(path))


def _collision(path: str, other: str) -> BundleError:
    return BundleError(
        "bundle.path-collision",
        N_("{path} and {other} can't lie side by side everywhere: rename one."),
        path=_printable(path),
        other=_printable(other),
    )


def _printable(path: str) -> str:
    return path.encode(errors="backslashreplace").decode()

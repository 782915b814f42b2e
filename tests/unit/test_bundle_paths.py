"""Paths that would harm whoever writes them."""

from __future__ import annotations

import pytest

from cuntong_protocol.bundle import paths
from cuntong_protocol.bundle.errors import BundleError
from cuntong_protocol.bundle.paths import check_paths

BAD = [
    "", "/", "/a", "a/", "a//b", ".", "..", "../a", "a/../b", "a/./b", "a\\b", "a\0b", "a\nb", "a\x7fb",
    "a\u202eb", "a\u2028b", "e\u0301", "\ud800", "x" * 256, "长" * 86, "/".join(["x"] * 65),
    "/".join(["x" * 200] * 16), "con", "NUL.txt", "a/Com1", "lpt9.tar.gz", "COM\u00b9", "aux .txt", "CONIN$",
    "a.", "a ", "a./b", "a /b", "...",
]  # fmt: skip
GOOD = [
    "a",
    "a/b",
    "长" * 85,
    ".hidden",
    "com",
    "com10",
    "console",
    "nul_",
    "a b",
    "a..b",
    " a",
    "诗/e\u0301a"[:1],
]


@pytest.mark.parametrize("path", BAD)
@pytest.mark.parametrize("kind", ["file", "folder"])
def test_harmful_path_is_refused(path: str, kind: str) -> None:
    with pytest.raises(BundleError) as caught:
        check_paths([path] if kind == "file" else [], [path] if kind == "folder" else [])
    assert caught.value.code == "bundle.bad-path"
    str(caught.value).encode()


@pytest.mark.parametrize("path", GOOD)
def test_ordinary_path_is_taken(path: str) -> None:
    check_paths([path])
    check_paths([], [path])


@pytest.mark.parametrize(
    ("files", "folders"),
    [
        (["a", "a"], []),
        (["a", "A"], []),
        (["a/x", "A/y"], []),
        (["a", "a/b"], []),
        (["a/b", "a"], []),
        (["a/b", "A"], []),
        (["stra\u00dfe", "STRASSE"], []),
        (["\u00c5/x", "\u00e5"], []),
        (["a"], ["a"]),
        (["a/b"], ["A"]),
        ([], ["a", "A/b"]),
    ],
)
def test_paths_that_collide_somewhere_are_refused(files: list[str], folders: list[str]) -> None:
    with pytest.raises(BundleError) as caught:
        check_paths(files, folders)
    assert caught.value.code == "bundle.path-collision"


def test_folders_may_share_their_parents() -> None:
    check_paths(["a/b/c", "a/b/d", "a/e"], ["a/f", "a/g/h"])


def test_too_many_paths_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(paths, "MAX_PATHS", 3)
    check_paths(["a", "b"], ["c"])
    with pytest.raises(BundleError) as caught:
        check_paths(["a", "b"], ["c", "d"])
    assert caught.value.code == "bundle.too-many-files"

"""The tag files of a volume, to the letter of RFC 8493."""

from __future__ import annotations

import hashlib
import re

from cuntong_tools.media.bag import (
    BAGIT_FILE,
    BAGIT_TEXT,
    bag_info,
    manifest,
    payload_oxum,
    tag_manifest,
)


def test_declaration_has_its_two_lines_and_no_byte_order_mark() -> None:
    assert BAGIT_TEXT == b"BagIt-Version: 1.0\nTag-File-Character-Encoding: UTF-8\n"


def test_manifest_names_each_file_by_its_digest() -> None:
    digest = hashlib.sha256(b"").digest()
    text = manifest({"data/诗/春晓.txt": digest, "data/a b.txt": digest}).decode()
    assert text == f"{digest.hex()}  data/a b.txt\n{digest.hex()}  data/诗/春晓.txt\n"
    assert all(re.fullmatch(r"[0-9a-f]{64}  data/.+", line) for line in text.splitlines())


def test_paths_that_would_break_a_line_are_percent_encoded() -> None:
    lines = manifest({"data/100%\r\n.txt": bytes(32)}).decode().splitlines()
    assert lines == [f"{'00' * 32}  data/100%25%0D%0A.txt"]


def test_same_files_in_any_order_give_the_same_manifest() -> None:
    digests = {f"data/{name}": hashlib.sha256(name.encode()).digest() for name in "cab"}
    assert manifest(digests) == manifest(dict(sorted(digests.items())))


def test_value_that_would_break_a_line_stays_on_it() -> None:
    text = bag_info([("Source-Organization", "东莞市\nBag-Count: 9 of 9"), ("Bag-Count", "1 of 2")])
    assert text.decode().splitlines() == [
        "Source-Organization: 东莞市 Bag-Count: 9 of 9",
        "Bag-Count: 1 of 2",
    ]


def test_oxum_counts_bytes_and_files() -> None:
    assert payload_oxum([3, 4, 0]) == "7.3"
    assert payload_oxum([]) == "0.0"


def test_tag_manifest_covers_the_declaration_too() -> None:
    text = tag_manifest({BAGIT_FILE: BAGIT_TEXT, "README.txt": b"x"}).decode()
    assert f"{hashlib.sha256(BAGIT_TEXT).hexdigest()}  bagit.txt\n" in text
    assert len(text.splitlines()) == 2

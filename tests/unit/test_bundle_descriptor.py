"""Ids and descriptors."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from cuntong_protocol.bundle.descriptor import (
    BundleId,
    Descriptor,
    Supersedes,
    decode_descriptor,
    encode_descriptor,
    parse_bundle_id,
)
from cuntong_protocol.bundle.errors import BundleError
from cuntong_protocol.divisions import Division
from tests.support.bundles import metadata

GOOD = Descriptor(
    id="440000000000/202703/poems",
    revision=2,
    metadata=metadata(),
    infohash=bytes(range(32)),
    piece_length=32_768,
    payload_size=1000,
    content_size=4000,
    file_count=3,
    supersedes=Supersedes(1, bytes(32), bytes(32)),
)


def test_id_is_taken_in_one_form_only() -> None:
    text = "440000000000/202703/poems"
    assert parse_bundle_id(text) == BundleId(Division("440000000000"), "202703", "poems")
    assert str(parse_bundle_id(text)) == text
    for bad in (
        "", "poems", "44/202703/poems", "440000000000/202713/poems", "440000000000/20273/poems", "440000000000/202703/Poems",
        "440000000000/202703/-p", "440000000000/202703/p-", "440000000000/202703/p/x", "440000000000/202703/" + "p" * 65,
        "440000000000/202703/poems\n", "440000000000/202703/", "440000000000/２02703/poems", "../202703/poems",
    ):  # fmt: skip
        with pytest.raises(BundleError) as caught:
            parse_bundle_id(bad)
        assert caught.value.code == "bundle.bad-id"


def test_descriptor_round_trip_is_canonical() -> None:
    data = encode_descriptor(GOOD)
    assert len(data) < 400
    assert decode_descriptor(data, expected_id=GOOD.id) == GOOD
    assert decode_descriptor(data, expected_id=GOOD.bundle_id) == GOOD
    assert encode_descriptor(decode_descriptor(data)) == data


def _raw(**changes: Any) -> bytes:
    raw = msgspec.msgpack.decode(encode_descriptor(GOOD))
    raw.update(changes)
    return msgspec.msgpack.encode({key: value for key, value in raw.items() if value is not ...})


def test_unknown_fields_are_skipped() -> None:
    assert decode_descriptor(_raw(later={"a": 1})) == GOOD


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"v": 2}, "bundle.newer-version"),
        ({"v": 2, "id": 1}, "bundle.newer-version"),
        ({"v": 0}, "bundle.bad-descriptor"),
        ({"v": ...}, "bundle.bad-descriptor"),
        ({"id": "x"}, "bundle.bad-id"),
        ({"id": "440000000000/202703/other"}, "bundle.bad-descriptor"),
        ({"revision": 0}, "bundle.bad-descriptor"),
        ({"revision": 1}, "bundle.bad-descriptor"),
        ({"revision": 2.0}, "bundle.bad-descriptor"),
        ({"supersedes": None}, "bundle.bad-descriptor"),
        ({"supersedes": {"revision": 2, "sha256": bytes(32), "infohash": bytes(32)}}, "bundle.bad-descriptor"),
        ({"infohash": bytes(31)}, "bundle.bad-descriptor"),
        ({"infohash": "x" * 32}, "bundle.bad-descriptor"),
        ({"piece_length": 32_767}, "bundle.bad-descriptor"),
        ({"piece_length": 3 * 16_384}, "bundle.bad-descriptor"),
        ({"payload_size": 0}, "bundle.bad-descriptor"),
        ({"payload_size": 1 << 60}, "bundle.bad-descriptor"),
        ({"content_size": -1}, "bundle.bad-descriptor"),
        ({"file_count": 2_000_000}, "bundle.bad-descriptor"),
        ({"metadata": {}}, "bundle.bad-descriptor"),
        ({"metadata": {"title": "T\x1b[2J", "slug": "poems", "date": "2027-03-01"}}, "bundle.bad-descriptor"),
        ({"metadata": {"title": "T", "slug": "poems", "date": "2027-02-31"}}, "bundle.bad-descriptor"),
        ({"metadata": {"title": "T", "slug": "poems", "date": "2027-03-01", "audience": {"scope": ["45"]}}}, "metadata.outside-scope"),
        ({"metadata": {"title": "T", "slug": "poems", "date": "2027-03-01", "audience": {"scope": ["00"]}}}, "metadata.bad-prefix"),
        ({"metadata": {"title": "T", "slug": "poems", "date": "2027-03-01", "licence": {"kind": "restricted"}}}, "metadata.restricted-without-scope"),
        ({"metadata": {"title": "T", "slug": "poems", "date": "2027-03-01", "licence": {"scope": ["44"]}}}, "metadata.open-with-scope"),
        ({"padding": "x" * 70_000}, "bundle.bad-descriptor"),
    ],
)  # fmt: skip
def test_descriptor_that_is_not_sound_is_refused(changes: dict[str, Any], code: str) -> None:
    with pytest.raises(BundleError) as caught:
        decode_descriptor(_raw(**changes))
    assert caught.value.code == code


def test_descriptor_under_another_name_is_refused() -> None:
    with pytest.raises(BundleError) as caught:
        decode_descriptor(encode_descriptor(GOOD), expected_id="440000000000/202703/other")
    assert caught.value.code == "bundle.wrong-id"


@pytest.mark.parametrize("data", [b"", b"\xc1", b"\x90", b"\x81\xa1v", b"\x91" * 5000])
def test_garbage_is_refused(data: bytes) -> None:
    with pytest.raises(BundleError) as caught:
        decode_descriptor(data)
    assert caught.value.code == "bundle.bad-descriptor"


def test_unsound_descriptor_is_not_written() -> None:
    with pytest.raises(BundleError) as caught:
        encode_descriptor(msgspec.structs.replace(GOOD, revision=1))
    assert caught.value.code == "bundle.bad-descriptor"

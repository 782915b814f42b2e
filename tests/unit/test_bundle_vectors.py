"""The files in tests/vectors/bundle are read or refused as their manifest says."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from cuntong_protocol.bundle.descriptor import decode_descriptor, encode_descriptor
from cuntong_protocol.bundle.errors import BundleError
from cuntong_protocol.bundle.index import check_payload, decode_index
from cuntong_protocol.bundle.packing import unpack_pack
from cuntong_protocol.bundle.torrent import decode_torrent
from tests.vectors.bundle import make

HERE = Path(make.__file__).parent
MANIFEST = json.loads((HERE / "manifest.json").read_text())


def read(name: str) -> None:
    """Read one vector with the reader that its suffix names."""
    data = (HERE / name).read_bytes()
    match Path(name).suffix:
        case ".descriptor":
            decode_descriptor(data, expected_id=None)
        case ".torrent":
            known = "closed_infohash" if name == "closed.torrent" else "infohash"
            decode_torrent(data, infohash=bytes.fromhex(MANIFEST[known]))
        case ".index":
            decode_index(
                data, content_size=MANIFEST["content_size"], file_count=MANIFEST["file_count"]
            )
        case ".pack":
            sizes = MANIFEST["pack_sizes"]
            base = None
            if name == "delta.pack":
                base = unpack_pack((HERE / "base.pack").read_bytes(), sizes["base.pack"])
            unpack_pack(data, sizes.get(name, sizes["base.pack"]), base)


@pytest.mark.parametrize(("name", "expected"), sorted(MANIFEST["expected"].items()))
def test_vector_is_read_or_refused(name: str, expected: str) -> None:
    if expected == "ok":
        read(name)
        return
    with pytest.raises(BundleError) as caught:
        read(name)
    assert caught.value.code == expected


def test_good_vectors_belong_together() -> None:
    descriptor = decode_descriptor((HERE / "good.descriptor").read_bytes())
    assert encode_descriptor(descriptor) == (HERE / "good.descriptor").read_bytes()
    torrent = decode_torrent((HERE / "good.torrent").read_bytes(), infohash=descriptor.infohash)
    index = decode_index(
        (HERE / "good.index").read_bytes(),
        content_size=descriptor.content_size,
        file_count=descriptor.file_count,
    )
    check_payload(index, torrent)
    assert torrent.payload_size == descriptor.payload_size


def test_every_vector_can_be_made_again() -> None:
    files, manifest = make.vectors()
    assert manifest == MANIFEST
    assert {name: (HERE / name).read_bytes() for name in files} == files

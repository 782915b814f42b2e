"""What comes from the satellite reads as it always did (tests/vectors/datacast/README.md)."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from cuntong_protocol.datacast.errors import DROP_REASONS, BadPacketError, DatacastError
from cuntong_protocol.datacast.packets import Codepoint
from tests.vectors.datacast import make

HERE = Path(make.__file__).parent
INDEX = json.loads((HERE / "index.json").read_text())


def data_of(name: str) -> bytes:
    return (HERE / f"{name}.bin").read_bytes()


@pytest.mark.parametrize("name", INDEX["good"])
def test_good_vector_reads_as_it_always_did(name: str) -> None:
    assert repr(make.read(name, data_of(name))) == INDEX["good"][name]


@pytest.mark.parametrize("name", INDEX["bad"])
def test_bad_vector_is_refused_for_its_reason(name: str) -> None:
    reason = "nothing"
    try:
        make.read(name, data_of(name))
    except BadPacketError as error:
        reason = error.reason
        assert reason in DROP_REASONS
    except DatacastError as error:
        reason = error.code
    assert reason == INDEX["bad"][name]


def test_every_vector_can_be_made_again() -> None:
    files, index = make.vectors()
    assert index == INDEX
    assert {name: (HERE / name).read_bytes() for name in files} == files


def test_every_file_is_in_the_index() -> None:
    names = {path.stem for path in HERE.glob("*.bin")}
    assert names == INDEX["good"].keys() | INDEX["bad"].keys()


def test_every_kind_of_packet_has_good_and_bad_vectors() -> None:
    for kind in Codepoint:
        word = kind.name.lower()
        assert f"{word}-good" in INDEX["good"]
        assert [name for name in INDEX["bad"] if name.startswith(word)]

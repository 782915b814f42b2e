"""The bytes on the wire stay what they were (tests/vectors/link/README.md)."""

from __future__ import annotations

import json

import pytest

from cuntong_protocol.link.connection import LinkConnection
from cuntong_protocol.link.errors import LinkError
from cuntong_protocol.link.frames import FrameDecoder, encode_frame
from cuntong_protocol.link.messages import MAX_FRAME_BYTES, MESSAGES, decode_payload
from cuntong_protocol.link.states import Role
from tests.support.link_world import hello, welcome
from tests.vectors.link.make import GOOD, HERE, schema

INDEX = json.loads((HERE / "index.json").read_text())


@pytest.mark.parametrize("name", INDEX["good"])
def test_good_vector_reads_as_it_always_did(name: str) -> None:
    data = (HERE / f"good-{name}.bin").read_bytes()
    frames = FrameDecoder(MAX_FRAME_BYTES)
    frames.feed(data)
    payload = frames.next_payload()
    assert payload is not None
    message = decode_payload(payload)
    assert repr(message) == INDEX["good"][name]
    if name in GOOD:
        assert message == GOOD[name]
        assert encode_frame(GOOD[name]) == data


@pytest.mark.parametrize("name", INDEX["bad"])
def test_bad_vector_ends_with_its_code(name: str) -> None:
    # What only a parent says is read by a child, the rest by a parent.
    role = Role.CHILD if name == "host-name" else Role.PARENT
    machine = LinkConnection(role, 0.0)
    if role is Role.PARENT:
        machine.receive_data(encode_frame(hello()), 0.0)
        assert machine.next_event() == hello()
        machine.send(welcome(), 0.0)
    else:
        machine.send(hello(), 0.0)
        machine.receive_data(encode_frame(welcome()), 0.0)
        assert machine.next_event() == welcome()
    machine.receive_data((HERE / f"bad-{name}.bin").read_bytes(), 0.0)
    code: str | None = None
    try:
        assert machine.next_event() is None
    except LinkError as error:
        code = error.code
    assert code == INDEX["bad"][name]


def test_every_message_has_a_vector() -> None:
    assert {type(message) for message in GOOD.values()} == set(MESSAGES)


def test_schema_is_the_golden_one() -> None:
    assert schema() == json.loads((HERE / "schema.json").read_text())

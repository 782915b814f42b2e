"""However bytes arrive, the machine says the same; whatever arrives, it raises nothing but LinkError."""

from __future__ import annotations

import itertools
import string

from hypothesis import given, settings
from hypothesis import strategies as st

from cuntong_protocol.divisions import Division
from cuntong_protocol.link.connection import LinkConnection
from cuntong_protocol.link.errors import LinkError
from cuntong_protocol.link.frames import encode_frame
from cuntong_protocol.link.messages import (
    Announce,
    Announcement,
    Bye,
    Certificate,
    Get,
    Have,
    HaveItem,
    HaveState,
    Hello,
    Introduce,
    Message,
    NotFound,
    Notice,
    Order,
    PeerAddress,
    Ping,
    Pong,
    Refused,
    Report,
    Welcome,
    decode_payload,
)
from cuntong_protocol.link.states import Role
from cuntong_protocol.texts import Sentence
from tests.support.link_world import hello, welcome

CODES = st.integers(0, 10**12 - 1).map(lambda number: Division(f"{number:012}"))
DIGESTS = st.binary(min_size=32, max_size=32)
NUMBERS = st.integers(0, 2**32 - 1)
SENTENCES = st.builds(
    Sentence,
    st.sampled_from(["node.removed", "link.lost", "a"]),
    st.text(max_size=40),
    st.dictionaries(
        st.text(string.ascii_lowercase, min_size=1, max_size=8),
        st.text(max_size=20) | st.integers(-(2**63), 2**63),
        max_size=4,
    ),
)
ADDRESSES = st.builds(
    PeerAddress,
    st.ip_addresses().filter(lambda ip: "%" not in str(ip)).map(str),
    st.integers(1, 65_535),
)
PATHS = st.sampled_from(["blobs/ab", "torrents/00", "metadata/441900000000/3.202611.json"])
COMMON = (
    st.builds(
        Announce,
        st.lists(st.builds(Announcement, CODES, st.integers(1, 2**31), DIGESTS), max_size=4),
    )
    | st.builds(Get, NUMBERS, PATHS, st.integers(0, 2**20))
    | st.builds(Ping, NUMBERS)
    | st.builds(Pong, NUMBERS)
    | st.builds(Bye, SENTENCES)
)
FROM_CHILD = COMMON | (
    st.builds(
        Have,
        st.lists(
            st.builds(HaveItem, DIGESTS, st.sampled_from(HaveState), st.integers(0, 1000)),
            max_size=4,
        ),
    )
    | st.builds(Order, st.just("441900000000/202611/yueju"))
    | st.builds(Report, st.just("equivocation"), st.binary(max_size=100))
)
FROM_PARENT = COMMON | (
    st.builds(Introduce, DIGESTS, st.lists(ADDRESSES, max_size=4))
    | st.builds(Notice, SENTENCES)
    | st.builds(Certificate, st.text(min_size=1, max_size=50))
    | st.builds(Refused, SENTENCES)
    | st.builds(NotFound, NUMBERS)
)
ANY = (
    FROM_CHILD
    | FROM_PARENT
    | st.builds(
        Hello, st.integers(1, 9), CODES, st.text(max_size=9), st.text(max_size=9), st.just(1)
    )
    | st.builds(Welcome, st.integers(1, 9), CODES, NUMBERS, st.just(1), NUMBERS)
)


def opened(role: Role) -> LinkConnection:
    machine = LinkConnection(role, 0.0)
    if role is Role.CHILD:
        machine.send(hello(), 0.0)
        machine.receive_data(encode_frame(welcome()), 0.0)
        assert machine.next_event() == welcome()
    else:
        machine.receive_data(encode_frame(hello()), 0.0)
        assert machine.next_event() == hello()
        machine.send(welcome(), 0.0)
    return machine


def hear(machine: LinkConnection, pieces: list[bytes]) -> list[object]:
    """All that the machine says to these pieces; an error is its last word, by its code."""
    said: list[object] = []
    for piece in pieces:
        machine.receive_data(piece, 1.0)
        try:
            while (message := machine.next_event()) is not None:
                said.append(message)
        except LinkError as error:
            return [*said, error.code]
    return said


def cut(data: bytes, places: list[int]) -> list[bytes]:
    edges = sorted({place % (len(data) + 1) for place in places} | {0, len(data)})
    return [data[start:end] for start, end in itertools.pairwise(edges)]


@given(ANY)
def test_every_message_comes_back_as_it_was(message: Message) -> None:
    frame = encode_frame(message)
    assert decode_payload(frame[4:]) == message


@given(
    st.sampled_from(Role),
    st.data(),
    st.lists(st.integers(0, 10_000), max_size=30),
    st.binary(max_size=50),
)
def test_any_chunking_gives_the_same_events(
    role: Role, data: st.DataObject, places: list[int], tail: bytes
) -> None:
    messages = data.draw(st.lists(FROM_PARENT if role is Role.CHILD else FROM_CHILD, max_size=8))
    stream = b"".join(map(encode_frame, messages)) + tail
    whole = hear(opened(role), [stream])
    assert hear(opened(role), cut(stream, places)) == whole
    assert hear(opened(role), [stream[at : at + 1] for at in range(len(stream))]) == whole


@given(st.sampled_from(Role), st.booleans(), st.lists(st.binary(max_size=200), max_size=10))
def test_garbage_raises_nothing_but_link_errors(
    role: Role, is_open: bool, pieces: list[bytes]
) -> None:
    hear(opened(role) if is_open else LinkConnection(role, 0.0), pieces)


@settings(max_examples=300)
@given(
    st.sampled_from(Role),
    st.lists(ANY, min_size=1, max_size=4),
    st.lists(st.tuples(st.integers(0, 10_000), st.integers(0, 255)), min_size=1, max_size=6),
)
def test_spoilt_messages_raise_nothing_but_link_errors(
    role: Role, messages: list[Message], flips: list[tuple[int, int]]
) -> None:
    stream = bytearray(b"".join(map(encode_frame, messages)))
    for place, value in flips:
        stream[place % len(stream)] = value
    hear(opened(role), [bytes(stream)])


@given(st.binary(max_size=300))
def test_payload_that_is_garbage_raises_nothing_but_link_errors(payload: bytes) -> None:
    try:
        decode_payload(payload)
    except LinkError as error:
        assert error.code == "link.bad-message"  # noqa: PT017  # It may also pass.

"""The control link's machine: order, limits, deadlines."""

from __future__ import annotations

import hashlib

import msgspec
import pytest

from cuntong_protocol.errors import Fault
from cuntong_protocol.link import connection, limits
from cuntong_protocol.link.connection import LinkConnection
from cuntong_protocol.link.errors import LinkError
from cuntong_protocol.link.frames import HELLO_FRAME_BYTES, encode_frame
from cuntong_protocol.link.messages import (
    CHUNK_BYTES,
    MESSAGES,
    Announce,
    Announcement,
    Bye,
    Certificate,
    Encoding,
    Get,
    Have,
    Hello,
    Introduce,
    Message,
    NotFound,
    ObjectChunk,
    ObjectHead,
    PeerAddress,
    Ping,
    Pong,
    Refused,
    Report,
    Welcome,
    check_message,
)
from cuntong_protocol.link.states import TRANSITIONS, Role, State, next_state
from cuntong_protocol.texts import sentence
from cuntong_protocol.trust.names import MAX_TIMESTAMP_BYTES, MAX_VERSION
from tests.support.link_world import COUNTY, T0, VILLAGE, hello, welcome

WHY = sentence("node.removed", "{node} was removed.", node=VILLAGE)


class Pair:
    """Two machines and the wire between them."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.child = LinkConnection(Role.CHILD, self.now)
        self.parent = LinkConnection(Role.PARENT, self.now)

    def up(self, message: Message) -> list[Message]:
        return pass_on(self.child, self.parent, message, self.now)

    def down(self, message: Message) -> list[Message]:
        return pass_on(self.parent, self.child, message, self.now)

    def open(self) -> Pair:
        self.up(hello())
        self.down(welcome())
        return self


def pass_on(
    sender: LinkConnection, receiver: LinkConnection, message: Message, now: float
) -> list[Message]:
    receiver.receive_data(sender.send(message, now), now)
    return events(receiver)


def events(connection: LinkConnection) -> list[Message]:
    found = []
    while (message := connection.next_event()) is not None:
        found.append(message)
    return found


def head(request: int, whole: bytes, /, **other: object) -> ObjectHead:
    values = {
        "id": request,
        "size": len(whole),
        "sha256": hashlib.sha256(whole).digest(),
        "encoding": Encoding.PLAIN,
        "encoded_size": len(whole),
        "form": b"12345678",
        "offset": 0,
        "data": whole[:CHUNK_BYTES],
    }
    return ObjectHead(**(values | other))


def test_greeting_opens_both_ends() -> None:
    pair = Pair()
    assert pair.up(hello()) == [hello()]
    assert pair.down(welcome()) == [welcome()]
    assert pair.child.state is pair.parent.state is State.OPEN


def test_refused_child_reads_why_and_both_ends_are_closed() -> None:
    pair = Pair()
    pair.up(hello())
    assert pair.down(Refused(WHY)) == [Refused(WHY)]
    assert pair.child.state is pair.parent.state is State.CLOSED
    pair.child.receive_data(b"\xff" * 100, pair.now)
    assert pair.child.next_event() is None
    assert pair.child.next_deadline() == float("inf")


def test_child_is_removed_while_connected() -> None:
    assert Pair().open().down(Refused(WHY)) == [Refused(WHY)]


@pytest.mark.parametrize("state", list(State))
@pytest.mark.parametrize("sender", list(Role))
@pytest.mark.parametrize("kind", MESSAGES)
def test_what_is_not_in_the_table_is_refused(
    state: State, sender: Role, kind: type[Message]
) -> None:
    if kind in TRANSITIONS[state][sender]:
        assert next_state(state, sender, kind, fault=Fault.PEER) in State
        return
    with pytest.raises(LinkError) as caught:
        next_state(state, sender, kind, fault=Fault.PEER)
    assert caught.value.code == "link.out-of-order"


def test_every_message_has_a_place_in_the_table() -> None:
    placed = {kind for by in TRANSITIONS.values() for kinds in by.values() for kind in kinds}
    assert placed == set(MESSAGES)


def test_stranger_gets_nothing_before_welcome() -> None:
    pair = Pair()
    pair.up(hello())
    for message in (
        Announce([Announcement(COUNTY, 1, bytes(32))]),
        Introduce(bytes(32), [PeerAddress("10.0.0.1", 1)]),
    ):
        with pytest.raises(LinkError) as caught:
            pair.parent.send(message, pair.now)
        assert caught.value.code == "link.out-of-order"
        assert caught.value.fault is Fault.OURS
    pair.parent.receive_data(encode_frame(Get(1, "blobs/x", 10)), pair.now)
    with pytest.raises(LinkError) as caught:
        pair.parent.next_event()
    assert caught.value.fault is Fault.PEER


def test_frame_before_the_greeting_may_not_be_long() -> None:
    pair = Pair()
    pair.parent.receive_data((HELLO_FRAME_BYTES + 1).to_bytes(4, "big"), pair.now)
    with pytest.raises(LinkError) as caught:
        pair.parent.next_event()
    assert caught.value.code == "link.too-long"


def test_message_of_ours_that_does_not_fit_changes_nothing() -> None:
    pair = Pair().open()
    report = Report("equivocation", bytes(70_000))
    with pytest.raises(LinkError) as caught:
        pair.child.send(report, pair.now)
    assert caught.value.code == "link.too-long"
    assert caught.value.fault is Fault.OURS
    assert pair.up(Ping(3)) == [Ping(3)]


def test_parent_with_a_newer_version_is_refused_not_guessed_at() -> None:
    pair = Pair()
    pair.up(hello())
    pair.child.receive_data(encode_frame(Welcome(2, COUNTY, T0, 1, T0)), pair.now)
    with pytest.raises(LinkError) as caught:
        pair.child.next_event()
    assert caught.value.code == "link.version"


def test_child_with_a_newer_version_is_greeted() -> None:
    pair = Pair()
    pair.parent.receive_data(encode_frame(Hello(9, VILLAGE, "x", "village", 0)), pair.now)
    assert events(pair.parent) == [Hello(9, VILLAGE, "x", "village", 0)]


def test_unknown_types_and_further_fields_are_skipped() -> None:
    pair = Pair().open()
    unknown = b"\x92\x63\xc0"
    longer = b"\x93\x10\x07\xa3new"
    pair.parent.receive_data(
        b"".join(len(p).to_bytes(4, "big") + p for p in (unknown, longer)), pair.now
    )
    assert events(pair.parent) == [Ping(7)]


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"\x91",
        b"\x90\x01",
        b"\xdc\x00\x02\x10\x07",
        b"\x92\xcc\x10",
        b"\x92\x10\xa1x",
        b"\x91\x10",
        b"\x92\x10\x07\x00",
        b"\x93\x10\x07" + b"\x91" * 60_000 + b"\x00",
        b"\x92\x0d\x83\xa4code\xa1\xff\xa8template\xa1x\xa6params\x80",
        b"\x93\x0a\xc4\x20" + bytes(32) + b"\x91\x92\xa9localhost\x05",
        b"\x93\x0a\xc4\x20" + bytes(32) + b"\x91\x92\xacfe80::1%eth0\x05",
    ],
)
def test_garbage_ends_the_link_with_one_error(payload: bytes) -> None:
    pair = Pair().open()
    pair.child.receive_data(len(payload).to_bytes(4, "big") + payload, pair.now)
    with pytest.raises(LinkError) as caught:
        pair.child.next_event()
    assert caught.value.code == "link.bad-message"
    assert caught.value.fault is Fault.PEER


def test_wrong_code_in_hello_is_a_bad_message() -> None:
    payload = encode_frame(hello()).replace(VILLAGE.encode(), b"44190000300x")
    machine = LinkConnection(Role.PARENT, 0.0)
    machine.receive_data(payload, 0.0)
    with pytest.raises(LinkError) as caught:
        machine.next_event()
    assert caught.value.code == "link.bad-message"


# Time.


def test_idle_link_costs_one_ping_and_pong_a_minute() -> None:
    pair = Pair().open()
    said: list[tuple[float, str]] = []
    start = pair.now
    while pair.now < start + 3600:
        pair.now = min(pair.child.next_deadline(), pair.parent.next_deadline())
        for message in pair.child.on_timeout(pair.now):
            assert pair.up(message) == [message]
            said.append((pair.now, "child"))
            assert isinstance(message, Ping)
            pair.down(Pong(message.nonce))
        for message in pair.parent.on_timeout(pair.now):
            said.append((pair.now, "parent"))
            pair.down(message)
    assert {who for _, who in said} == {"child"}
    assert len(said) == 60


def test_half_open_link_is_noticed_by_both_ends_within_three_minutes() -> None:
    for role in Role:
        pair = Pair().open()
        end = pair.child if role is Role.CHILD else pair.parent
        start = pair.now
        (ping,) = end.on_timeout(end.next_deadline())
        assert isinstance(ping, Ping)
        end.send(ping, end.next_deadline())
        assert end.next_deadline() == start + 150
        assert end.on_timeout(start + 149) == []
        with pytest.raises(LinkError) as caught:
            end.on_timeout(start + 150)
        assert caught.value.code == "link.silent"


def test_silence_instead_of_a_greeting_ends_after_15_s() -> None:
    machine = LinkConnection(Role.PARENT, 100.0)
    assert machine.on_timeout(114.9) == []
    with pytest.raises(LinkError) as caught:
        machine.on_timeout(115.0)
    assert caught.value.code == "link.handshake-timeout"
    # A byte now and then doesn't prolong it.
    machine = LinkConnection(Role.PARENT, 100.0)
    machine.receive_data(b"\0", 114.0)
    assert machine.next_event() is None
    assert machine.next_deadline() == 115.0


def test_parent_that_answers_pings_but_sends_nothing_is_stalled() -> None:
    pair = Pair().open()
    pair.up(Get(1, "blobs/x", 100_000))
    start = pair.now
    pair.now += 40
    pair.up(Ping(1))
    pair.down(Pong(1))
    assert pair.child.next_deadline() == start + 60
    with pytest.raises(LinkError) as caught:
        pair.child.on_timeout(start + 60)
    assert caught.value.code == "link.stalled"


def test_slow_transfer_is_not_a_stalled_one() -> None:
    pair = Pair().open()
    data = bytes(5 * CHUNK_BYTES)
    pair.up(Get(1, "blobs/x", len(data)))
    pair.now += 59
    pair.down(head(1, data))
    for _ in range(4):
        pair.now += 59
        assert pair.child.on_timeout(pair.now) == []
        pair.down(ObjectChunk(1, bytes(CHUNK_BYTES)))
    assert pair.child.outstanding_gets == 0
    assert pair.child.next_deadline() == pair.now + 60


# Objects.


def test_object_nobody_asked_for_ends_the_link() -> None:
    for message in (head(5, b"x"), ObjectChunk(5, b"x"), NotFound(5)):
        pair = Pair().open()
        pair.child.receive_data(encode_frame(message), pair.now)
        with pytest.raises(LinkError) as caught:
            pair.child.next_event()
        assert caught.value.code == "link.unasked-object"


def test_second_head_or_more_bytes_than_said_end_the_link() -> None:
    data = bytes(CHUNK_BYTES + 10)
    for last, code in (
        (head(1, data), "link.unasked-object"),
        (ObjectChunk(1, bytes(11)), "link.bad-object"),
    ):
        pair = Pair().open()
        pair.up(Get(1, "blobs/x", len(data)))
        pair.down(head(1, data))
        pair.child.receive_data(encode_frame(last), pair.now)
        with pytest.raises(LinkError) as caught:
            events(pair.child)
        assert caught.value.code == code


@pytest.mark.parametrize(
    "other",
    [
        {"size": 101, "encoded_size": 101},
        {"encoded_size": 3},
        {"encoding": Encoding.ZSTD, "encoded_size": 11},
        {"encoding": Encoding.PATCH, "encoded_size": 5, "data": b""},
        {"offset": 4, "data": b""},
        {"data": bytes(11)},
    ],
)
def test_head_that_is_not_what_was_asked_for_ends_the_link(other: dict[str, object]) -> None:
    pair = Pair().open()
    pair.up(Get(1, "blobs/x", 100))
    pair.child.receive_data(encode_frame(head(1, bytes(10), **other)), pair.now)
    with pytest.raises(LinkError) as caught:
        pair.child.next_event()
    assert caught.value.code == "link.bad-object"


def test_transfer_goes_on_only_in_the_same_form() -> None:
    data = bytes(100)
    get = Get(1, "blobs/x", 100, b"", 60, b"12345678")
    pair = Pair().open()
    pair.up(get)
    assert pair.down(head(1, data, offset=60, data=bytes(40)))
    assert pair.child.outstanding_gets == 0
    pair.up(get)
    pair.child.receive_data(
        encode_frame(head(1, data, offset=60, data=bytes(40), form=b"87654321")), pair.now
    )
    with pytest.raises(LinkError) as caught:
        pair.child.next_event()
    assert caught.value.code == "link.bad-object"


def test_no_more_than_64_gets_are_open_on_either_side() -> None:
    pair = Pair().open()
    for number in range(connection.MAX_OUTSTANDING_GETS):
        pair.up(Get(number, "blobs/x", 100))
    with pytest.raises(LinkError) as caught:
        pair.child.send(Get(99, "blobs/x", 100), pair.now)
    assert caught.value.code == "link.misuse"
    pair.parent.receive_data(encode_frame(Get(99, "blobs/x", 100)), pair.now)
    with pytest.raises(LinkError) as caught:
        pair.parent.next_event()
    assert caught.value.code == "link.too-many-gets"


def test_answered_gets_make_room_for_more() -> None:
    pair = Pair().open()
    for number in range(1000):
        pair.up(Get(number, "blobs/x", 100))
        pair.down(NotFound(number) if number % 2 else head(number, b"1"))
    assert pair.child.outstanding_gets == 0


def test_parent_that_answers_what_nobody_asked_is_our_own_mistake() -> None:
    pair = Pair().open()
    for message in (head(1, b"x"), ObjectChunk(1, b"x"), NotFound(1)):
        with pytest.raises(LinkError) as caught:
            pair.parent.send(message, pair.now)
        assert caught.value.code == "link.misuse"
        assert caught.value.fault is Fault.OURS


# Floods.


def flood(receiver: LinkConnection, data: bytes, now: float) -> int:
    """Feed the same bytes again and again; how often until the receiver has enough."""
    for number in range(20_000):
        receiver.receive_data(data, now)
        try:
            events(receiver)
        except LinkError as error:
            return number if error.code == "link.flood" else 20_000
    return 20_000


def test_flood_of_small_messages_ends_the_link() -> None:
    pair = Pair().open()
    ping = encode_frame(Ping(1))
    assert flood(pair.child, ping * 500, pair.now) < 40


def test_flood_of_unknown_or_long_messages_ends_the_link() -> None:
    for payload in (b"\x91\x63", b"\x92\x63" + bytes(60_000)):
        pair = Pair().open()
        frame = len(payload).to_bytes(4, "big") + payload
        assert flood(pair.child, frame, pair.now) < 20_000


def test_sender_that_paces_itself_is_never_a_flood_even_after_a_minute_of_stand_still() -> None:
    pair = Pair().open()
    have = Have([])
    waiting = b""
    for _ in range(60 * 10):
        pair.now += 0.1
        while pair.parent.pacing_s(pair.now) <= 0 and pair.child.pacing_s(pair.now) <= 0:
            waiting += pair.child.send(have, pair.now)
    pair.parent.receive_data(waiting, pair.now)
    assert len(events(pair.parent)) > 10_000
    assert 0 < pair.child.pacing_s(pair.now) < 1


def test_bucket_never_holds_more_than_its_burst() -> None:
    bucket = limits.TokenBucket(10.0, 5.0, 0.0)
    assert bucket.wait_s(1000.0) == 0
    taken = sum(bucket.take(1.0, 1000.0) for _ in range(20))
    assert taken == 6
    assert bucket.wait_s(1000.0) == pytest.approx(0.1)


def test_bye_from_either_side_closes() -> None:
    pair = Pair().open()
    assert pair.up(Bye(WHY)) == [Bye(WHY)]
    assert pair.parent.state is State.CLOSED
    with pytest.raises(LinkError):
        pair.parent.send(Certificate("x"), pair.now)


def test_evidence_fits_whatever_an_authority_has_signed() -> None:
    """Whoever equivocates chooses the length of its timestamps; those below must be able to say so."""
    evidence = {"version": MAX_VERSION, "first": "a" * 64, "second": bytes(MAX_TIMESTAMP_BYTES)}
    check_message(Report("equivocation", msgspec.json.encode(evidence)))

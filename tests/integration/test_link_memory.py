"""Parents that fail in every way, over memory streams under a clock that jumps."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest
import trio
import trio.lowlevel
from trio.testing import MockClock

from cuntong_daemon.link import session as session_module
from cuntong_daemon.link.delegate import Identity
from cuntong_daemon.link.fetching import BUFFER_BYTES, LinkLostError
from cuntong_daemon.link.server import ChildServer
from cuntong_daemon.link.session import LinkSession
from cuntong_daemon.link.shelf import Shelf
from cuntong_daemon.services import running
from cuntong_protocol.divisions import Division
from cuntong_protocol.errors import CuntongError, Fault
from cuntong_protocol.link.connection import LinkConnection
from cuntong_protocol.link.errors import LinkError
from cuntong_protocol.link.frames import encode_frame
from cuntong_protocol.link.messages import (
    Announcement,
    Get,
    HaveItem,
    HaveState,
    Hello,
    Message,
    NotFound,
    Notice,
    ObjectChunk,
    ObjectHead,
    PeerAddress,
    Ping,
    Pong,
    Welcome,
)
from cuntong_protocol.link.states import Role
from cuntong_protocol.texts import Sentence, sentence
from tests.support.link_world import (
    COUNTY,
    PROVINCE,
    VILLAGE,
    MemoryNetwork,
    MemoryStream,
    Rest,
    hello,
    make_child,
    make_server,
    stream_pair,
    welcome,
)
from tests.support.tls_certs import SimpleIdentity

SOURCE = random.Random(5)  # Repeatable, not secret.
BIG = SOURCE.randbytes(3 * BUFFER_BYTES + 12_345)
REMOVED = LinkError("node.removed", "{node} was removed: inspection.", node=VILLAGE)


class World:
    """A child, and the parents that it can reach."""

    def __init__(self, nursery: trio.Nursery, folder: Path) -> None:
        self.folder = folder
        self.network = MemoryNetwork(nursery)
        self.rest = Rest()
        self.link = make_child(self.rest, folder, self.network.dial, COUNTY, PROVINCE)

    def parent(self, code: Division, rest: Rest, shelf: Shelf | None = None) -> ChildServer:
        server = make_server(rest, self.folder, code, shelf=shelf)
        self.network.handlers[code] = server.serve_stream
        return server

    def dialled(self, code: Division) -> list[float]:
        return [at for who, at in self.network.dials if who == code]


async def run_here(
    function: Callable[..., object], *arguments: object, limiter: object = None
) -> object:
    await trio.lowlevel.checkpoint()
    return function(*arguments)


@pytest.fixture(autouse=True)
def _no_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    """A clock that jumps doesn't wait for threads: their work is done in place."""
    monkeypatch.setattr(trio.to_thread, "run_sync", run_here)


@pytest.fixture
async def world(tmp_path: Path, autojump_clock: MockClock) -> AsyncIterator[World]:
    async with trio.open_nursery() as nursery:
        yield World(nursery, tmp_path)
        nursery.cancel_scope.cancel()


Talk = Callable[["Scripted", MemoryStream], Awaitable[None]]


class Scripted:
    """A parent that greets properly and then does what a test says."""

    def __init__(self, code: Division, talk: Talk) -> None:
        self.code = code
        self._talk = talk
        self.machine = LinkConnection(Role.PARENT, 0.0)

    async def __call__(self, stream: MemoryStream, identity: Identity, began: float) -> None:
        self.machine = LinkConnection(Role.PARENT, began)
        try:
            assert isinstance(await self.next(stream), Hello)
            await self.say(stream, welcome(self.code))
            await self._talk(self, stream)
        except trio.BrokenResourceError:
            pass
        finally:
            await trio.aclose_forcefully(stream)

    async def say(self, stream: MemoryStream, message: Message) -> None:
        await stream.send_all(self.machine.send(message, trio.current_time()))

    async def next(self, stream: MemoryStream) -> Message:
        while (message := self.machine.next_event()) is None:
            data = await stream.receive_some()
            if not data:
                raise trio.BrokenResourceError
            self.machine.receive_data(data, trio.current_time())
        return message


async def answer_pings(parent: Scripted, stream: MemoryStream) -> None:
    while True:
        message = await parent.next(stream)
        if isinstance(message, Ping):
            await parent.say(stream, Pong(message.nonce))


async def test_everything_that_can_be_said_arrives(world: World, autojump_clock: MockClock) -> None:
    above = Rest()
    above.news = [Announcement(PROVINCE, 3, bytes(32)), Announcement(COUNTY, 9, bytes(32))]
    server = world.parent(COUNTY, above)
    world.rest.news = [Announcement(VILLAGE, 1, bytes(32))]
    async with running(world.link):
        session = await world.link.wait_session()
        assert await world.rest.wait_said("announce") == ("announce", COUNTY, above.news)
        assert await above.wait_said("announce") == ("announce", VILLAGE, world.rest.news)
        assert session.welcome == welcome(COUNTY)
        assert server.sessions[VILLAGE].hello == hello()

        items = [HaveItem(bytes([n]) * 32, HaveState.PARTIAL, n) for n in range(10)]
        session.report_status(items)
        assert await above.wait_said("status") == ("status", VILLAGE, items)
        peers = [PeerAddress("10.0.0.1", 6881), PeerAddress("fd00::1", 6881)]
        server.sessions[VILLAGE].introduce(bytes(32), peers)
        assert await world.rest.wait_said("introduce") == ("introduce", COUNTY, bytes(32), peers)
        server.sessions[VILLAGE].notify(REMOVED.sentence)
        assert await world.rest.wait_said("notice") == ("notice", COUNTY, REMOVED.sentence)
        server.sessions[VILLAGE].send_certificate("PEM")
        assert await world.rest.wait_said("certificate") == ("certificate", COUNTY, "PEM")
        session.report("equivocation", b"two")
        assert await above.wait_said("report") == ("report", VILLAGE, "equivocation", b"two")
        told = await world.link.order("440000000000/202611/yueju")
        assert told.code == "order.taken"

        above.said.clear()
        world.rest.said.clear()
        above.news = [above.news[0], Announcement(COUNTY, 10, bytes(32))]
        server.announce()
        assert await world.rest.wait_said("announce") == ("announce", COUNTY, above.news[1:])
    assert above.up == world.rest.up == []
    assert server.sessions == {}


async def test_news_of_ten_thousand_bundles_is_paced_and_only_the_last_word_counts(
    world: World,
    autojump_clock: MockClock,
) -> None:
    above = Rest()
    world.parent(COUNTY, above)
    async with running(world.link):
        session = await world.link.wait_session()
        for permille in (1, 1000):
            session.report_status(
                HaveItem(n.to_bytes(32, "big"), HaveState.PARTIAL, permille) for n in range(10_000)
            )
        server_side = above.up[0]
        for number in range(3000):
            server_side.introduce(number.to_bytes(32, "big"), [PeerAddress("10.0.0.1", 1)])
        await world.rest.wait_until(
            lambda: sum(what[0] == "introduce" for what in world.rest.said) == 3000
        )
        items = {
            item.infohash: item.permille
            for what in above.said
            if what[0] == "status"
            for item in what[2]
        }
        assert len(items) == 10_000
        assert set(items.values()) == {1000}
        assert session.is_open


async def test_child_whose_parent_is_down_for_a_day_is_back_within_five_minutes(
    world: World,
    autojump_clock: MockClock,
) -> None:
    async with running(world.link):
        await trio.sleep(86_400)
        assert world.link.status().state == "down"
        assert world.link.status().problem.code == "link.nobody-listens"
        tries = world.dialled(COUNTY)
        assert 200 < len(tries) < 700
        world.parent(COUNTY, Rest())
        before = trio.current_time()
        await world.link.wait_session()
        assert trio.current_time() - before <= 300
        assert world.link.status().state == "up"


async def test_child_falls_back_to_the_grandparent_and_returns(
    world: World, autojump_clock: MockClock
) -> None:
    world.parent(PROVINCE, Rest())
    async with running(world.link):
        session = await world.link.wait_session()
        assert session.peer_code == PROVINCE
        status = world.link.status()
        assert (status.state, status.is_fallback) == ("up", True)
        assert status.problem.code == "link.nobody-listens"
        world.parent(COUNTY, Rest())
        await world.rest.wait_until(lambda: [s.peer_code for s in world.rest.up] == [COUNTY])
        assert not world.link.status().is_fallback
        order = [what[:2] for what in world.rest.said]
        assert order == [
            ("connected", PROVINCE),
            ("connected", COUNTY),
            ("disconnected", PROVINCE),
        ]


async def test_grandparent_that_didnt_know_the_child_yet_is_asked_again_when_the_parent_is_lost(
    world: World, autojump_clock: MockClock
) -> None:
    async def hang_up(parent: Scripted, stream: MemoryStream) -> None:
        del above.refuse[VILLAGE]
        del world.network.handlers[COUNTY]

    above = Rest()
    above.refuse[VILLAGE] = REMOVED
    world.parent(PROVINCE, above)
    async with running(world.link):
        await trio.sleep(1)
        assert len(world.dialled(PROVINCE)) == 1
        world.network.handlers[COUNTY] = Scripted(COUNTY, hang_up)
        await world.rest.wait_until(lambda: [s.peer_code for s in world.rest.up] == [PROVINCE])
        # The refusal alone would have kept it away for minutes.
        assert trio.current_time() < 60


async def test_refused_child_learns_the_sentence_and_gets_nothing(
    world: World, autojump_clock: MockClock
) -> None:
    above = Rest()
    above.refuse[VILLAGE] = REMOVED
    above.news = [Announcement(COUNTY, 9, bytes(32))]
    world.parent(COUNTY, above)
    async with running(world.link):
        await trio.sleep(3600)
        status = world.link.status()
        assert status.state == "refused"
        assert status.problem == REMOVED.sentence
        assert world.rest.said == []
        # Not in a circle: the longest back-off from the start.
        assert 12 <= len(world.dialled(COUNTY)) <= 25


async def test_child_that_is_removed_while_connected_learns_why(
    world: World, autojump_clock: MockClock
) -> None:
    above = Rest()
    server = world.parent(COUNTY, above)
    async with running(world.link):
        session = await world.link.wait_session()
        server.check_members()
        assert session.is_open
        above.refuse[VILLAGE] = REMOVED
        server.check_members()
        await world.rest.wait_said("disconnected")
        assert session.end_reason.sentence == REMOVED.sentence
        assert world.link.status().state == "refused"


async def test_wrong_parent_at_the_address_is_told_apart(
    world: World, autojump_clock: MockClock
) -> None:
    async def misdial(address: object) -> tuple[MemoryStream, SimpleIdentity]:
        await trio.lowlevel.checkpoint()
        return stream_pair()[0], SimpleIdentity(PROVINCE)

    link = make_child(world.rest, world.folder, misdial, COUNTY)
    async with running(link):
        await trio.sleep(1)
        assert link.status().problem.code == "link.wrong-parent"


async def test_parent_that_claims_another_code_is_not_believed(
    world: World, autojump_clock: MockClock
) -> None:
    world.network.handlers[COUNTY] = Scripted(PROVINCE, answer_pings)
    async with running(world.link):
        await trio.sleep(1)
        assert world.link.status().problem.code == "link.wrong-code"


async def test_child_that_claims_another_code_is_refused(
    world: World, autojump_clock: MockClock
) -> None:
    above = Rest()
    world.parent(COUNTY, above)
    liar = make_child(Rest(), world.folder, world.network.dial, COUNTY, code=COUNTY)
    async with running(liar):
        await trio.sleep(1)
        assert liar.status().problem.code == "link.wrong-code"
    assert above.said == []


async def test_parent_that_sends_garbage_is_left_for_the_grandparent(
    world: World, autojump_clock: MockClock
) -> None:
    async def garbage(parent: Scripted, stream: MemoryStream) -> None:
        await stream.send_all(SOURCE.randbytes(1000))
        await answer_pings(parent, stream)

    world.network.handlers[COUNTY] = Scripted(COUNTY, garbage)
    above = Rest()
    path = above.add(b"still here")
    world.parent(PROVINCE, above)
    async with running(world.link):
        await trio.sleep(7200)
        # It tries the county now and then, but less and less often.
        assert len(world.dialled(COUNTY)) < 60
        assert await world.link.fetch(path, 100) == b"still here"


async def test_parent_that_sends_garbage_instead_of_a_greeting_does_no_harm(
    world: World, autojump_clock: MockClock
) -> None:
    async def garbage(stream: MemoryStream, identity: Identity, began: float) -> None:
        await stream.send_all(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        await trio.aclose_forcefully(stream)

    world.network.handlers[COUNTY] = garbage
    async with running(world.link):
        await trio.sleep(10)
        assert world.link.status().problem.code == "link.too-long"


async def test_parent_that_says_nothing_is_given_up_after_15_s(
    world: World, autojump_clock: MockClock
) -> None:
    async def silent(stream: MemoryStream, identity: Identity, began: float) -> None:
        await trio.sleep_forever()

    world.network.handlers[COUNTY] = silent
    world.parent(PROVINCE, Rest())
    async with running(world.link):
        session = await world.link.wait_session()
        assert session.peer_code == PROVINCE
        assert world.link.status().problem.code == "link.handshake-timeout"


async def test_parent_that_floods_is_left(world: World, autojump_clock: MockClock) -> None:
    async def flood(parent: Scripted, stream: MemoryStream) -> None:
        notice = encode_frame(Notice(REMOVED.sentence))
        while True:
            await stream.send_all(notice * 100)

    world.network.handlers[COUNTY] = Scripted(COUNTY, flood)
    async with running(world.link):
        await world.rest.wait_said("disconnected")
        assert world.link.status().problem.code == "link.flood"
        assert len(world.rest.said) < 16_000


async def test_parent_that_sends_unasked_objects_is_left(
    world: World, autojump_clock: MockClock
) -> None:
    async def push(parent: Scripted, stream: MemoryStream) -> None:
        await stream.send_all(encode_frame(ObjectChunk(1, b"x")))
        await answer_pings(parent, stream)

    world.network.handlers[COUNTY] = Scripted(COUNTY, push)
    async with running(world.link):
        await world.rest.wait_said("disconnected")
        assert world.link.status().problem.code == "link.unasked-object"


async def test_half_open_connection_is_noticed_within_three_minutes(
    world: World, autojump_clock: MockClock
) -> None:
    async def vanish(parent: Scripted, stream: MemoryStream) -> None:
        await trio.sleep_forever()

    world.network.handlers[COUNTY] = Scripted(COUNTY, vanish)
    async with running(world.link):
        await world.link.wait_session()
        began = trio.current_time()
        await world.rest.wait_said("disconnected")
        assert 140 < trio.current_time() - began < 180
        assert world.link.status().problem.code == "link.silent"


async def test_parent_notices_a_half_open_child_within_three_minutes(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    above = Rest()
    server = make_server(above, tmp_path)
    near, far = stream_pair()
    async with trio.open_nursery() as nursery:
        began = trio.current_time()
        nursery.start_soon(server.serve_stream, far, SimpleIdentity(VILLAGE), began)
        await near.send_all(LinkConnection(Role.CHILD, began).send(hello(), began))
        await above.wait_said("disconnected")
        assert 140 < trio.current_time() - began < 180


async def test_child_that_connects_again_replaces_its_half_open_self(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    above = Rest()
    server = make_server(above, tmp_path)
    async with trio.open_nursery() as nursery:
        streams = []
        for _ in range(2):
            near, far = stream_pair()
            streams.append(near)
            now = trio.current_time()
            nursery.start_soon(server.serve_stream, far, SimpleIdentity(VILLAGE), now)
            await near.send_all(LinkConnection(Role.CHILD, now).send(hello(), now))
            await trio.sleep(1)
        await above.wait_said("disconnected")
        assert [what[0] for what in above.said] == ["connected", "connected", "disconnected"]
        assert len(server.sessions) == 1
        assert server.sessions[VILLAGE] is above.up[0]
        nursery.cancel_scope.cancel()


# Objects.


async def test_objects_of_all_sizes_come_whole(world: World, autojump_clock: MockClock) -> None:
    above = Rest()
    world.parent(COUNTY, above)
    objects = [b"", b"x", BIG[:16_384], BIG[:16_385], BIG, b"compressible " * 200_000]
    async with running(world.link):
        for data in objects:
            assert await world.link.fetch(above.add(data), 4_000_000) == data
        assert await world.link.fetch("blobs/absent", 100) is None
        assert await world.link.fetch(above.add(BIG), len(BIG) - 1) is None
        # And from the child, by the same code.
        session = above.up[0]
        path = world.rest.add(BIG)
        assert await session.fetch(path, len(BIG)) == BIG


async def test_patch_against_the_version_before_saves_nearly_all_bytes(
    world: World, autojump_clock: MockClock
) -> None:
    above = Rest()
    world.parent(COUNTY, above)
    before, after = BIG, BIG[:100_000] + b"new" + BIG[100_000:]
    above.objects["metadata/440000000000/8.targets.json"] = after
    above.bases[b"8" * 32] = before
    async with running(world.link):
        await world.link.wait_session()
        sent = world.network.streams[0].incoming
        start = sent.total
        got = await world.link.fetch(
            "metadata/440000000000/8.targets.json", 10**6, (b"8" * 32, before)
        )
        assert got == after
        assert sent.total - start < 2000
        # A base that the parent no longer has costs bytes, nothing else.
        above.bases.clear()
        got = await world.link.fetch(
            "metadata/440000000000/8.targets.json", 10**6, (b"9" * 32, b"?")
        )
        assert got == after


async def test_thousand_descriptors_do_not_cost_a_round_trip_each(
    world: World, autojump_clock: MockClock
) -> None:
    above = Rest()
    server = make_server(above, world.folder, COUNTY)
    delay_s = 0.5

    async def far_away(stream: MemoryStream, identity: Identity, began: float) -> None:
        """Half a second each way, as over a satellite."""
        near, far = stream_pair(10**6)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(server.serve_stream, near, identity, began)
            nursery.start_soon(later, stream, far)
            nursery.start_soon(later, far, stream)

    async def later(source: MemoryStream, sink: MemoryStream) -> None:
        send, receive = trio.open_memory_channel[tuple[float, bytes]](10**6)

        async def read() -> None:
            while data := await source.receive_some():
                await send.send((trio.current_time() + delay_s, data))
            await send.aclose()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(read)
            try:
                async for at, data in receive:
                    await trio.sleep_until(at)
                    await sink.send_all(data)
            except trio.BrokenResourceError:
                pass
            await sink.aclose()

    world.network.handlers[COUNTY] = far_away
    paths = [above.add(SOURCE.randbytes(600)) for _ in range(1000)]
    got = 0

    async def fetch(path: str) -> None:
        nonlocal got
        assert await world.link.fetch(path, 65_536) == above.objects[path]
        got += 1

    async with running(world.link):
        await world.link.wait_session()
        began = trio.current_time()
        async with trio.open_nursery() as nursery:
            for path in paths:
                nursery.start_soon(fetch, path)
        assert got == 1000
        # 1,000 round trips would be 1,000 s.
        assert trio.current_time() - began <= 1000 / 64 + 4


def stalling(rest: Rest, code: Division, after: int) -> Scripted:
    """A parent that answers pings for ever, but stops in the middle of each transfer."""

    async def talk(parent: Scripted, stream: MemoryStream) -> None:
        shelf = Shelf(rest)
        while True:
            message = await parent.next(stream)
            if isinstance(message, Ping):
                await parent.say(stream, Pong(message.nonce))
            if isinstance(message, Get):
                loan = await shelf.take(message)
                assert loan is not None
                encoded = loan.encoded
                start = message.offset if message.form == encoded.form else 0
                data = encoded.data[start : start + after]
                await parent.say(
                    stream,
                    ObjectHead(
                        message.id,
                        encoded.size,
                        encoded.sha256,
                        encoded.encoding,
                        len(encoded.data),
                        encoded.form,
                        start,
                        data[:16_384],
                    ),
                )
                for at in range(16_384, len(data), 16_384):
                    await parent.say(stream, ObjectChunk(message.id, data[at : at + 16_384]))

    return Scripted(code, talk)


async def test_parent_that_stalls_is_left_and_the_grandparent_goes_on_from_there(
    world: World,
    autojump_clock: MockClock,
) -> None:
    above = Rest()
    path = above.add(BIG)
    world.network.handlers[COUNTY] = stalling(above, COUNTY, 500_000)
    world.parent(PROVINCE, above)
    async with running(world.link):
        session = await world.link.wait_session()
        assert session.peer_code == COUNTY
        assert await world.link.fetch(path, len(BIG)) == BIG
        assert session.end_reason.code == "link.stalled"
        from_province = world.network.streams[1].incoming.total
        assert from_province < len(BIG) - 480_000
    assert list(await trio.to_thread.run_sync(lambda: list(world.folder.glob("*/*.part")))) == []


async def test_transfer_goes_on_after_many_breaks_and_a_restart(
    world: World, autojump_clock: MockClock
) -> None:
    above = Rest()
    path = above.add(BIG)

    def breaking(server: ChildServer) -> Callable[..., Awaitable[None]]:
        async def talk(stream: MemoryStream, identity: Identity, began: float) -> None:
            near, far = stream_pair(4096)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(server.serve_stream, near, identity, began)

                async def up() -> None:
                    while data := await stream.receive_some():
                        await far.send_all(data)

                nursery.start_soon(up)
                passed = 0
                while passed < 100_000:
                    data = await far.receive_some()
                    if not data:
                        break
                    passed += len(data)
                    await stream.send_all(data)
                nursery.cancel_scope.cancel()
            await trio.aclose_forcefully(stream)

        return talk

    server = make_server(above, world.folder, COUNTY)
    world.network.handlers[COUNTY] = breaking(server)
    with trio.move_on_after(20):
        async with running(world.link):
            await world.link.fetch(path, len(BIG))
    first_run = sum(stream.incoming.total for stream in world.network.streams)
    assert first_run > 100_000
    link = make_child(world.rest, world.folder, world.network.dial, COUNTY, PROVINCE)
    async with running(link):
        assert await link.fetch(path, len(BIG)) == BIG
    total = sum(stream.incoming.total for stream in world.network.streams)
    assert total < 1.15 * len(BIG)


async def test_part_that_was_spoilt_on_the_disk_is_not_the_parents_fault(
    world: World, autojump_clock: MockClock
) -> None:
    above = Rest()
    path = above.add(BIG)
    world.network.handlers[COUNTY] = stalling(above, COUNTY, 500_000)
    async with running(world.link):
        with trio.move_on_after(61):
            await world.link.fetch(path, len(BIG))
    (part,) = world.folder.glob("*/*.part")
    content = bytearray(part.read_bytes())
    content[300_000] ^= 1
    part.write_bytes(content)
    world.parent(COUNTY, above)
    link = make_child(world.rest, world.folder, world.network.dial, COUNTY, PROVINCE)
    async with running(link):
        assert await link.fetch(path, len(BIG)) == BIG
        assert link.session.peer_code == COUNTY
        assert sum(what[0] == "connected" for what in world.rest.said) == 2


async def test_object_that_is_not_the_one_of_its_name_ends_the_link(
    world: World, autojump_clock: MockClock
) -> None:
    above = Rest()
    path = above.add(b"right")
    above.objects[path] = b"wrong"
    world.parent(COUNTY, above)
    honest = Rest()
    honest.add(b"right")
    world.parent(PROVINCE, honest)
    async with running(world.link):
        assert await world.link.fetch(path, 100) == b"right"
        assert world.link.status().problem.code == "link.bad-object"


async def test_transfer_whose_bytes_do_not_match_its_hash_ends_the_link(
    world: World, autojump_clock: MockClock
) -> None:
    async def lie(parent: Scripted, stream: MemoryStream) -> None:
        while True:
            message = await parent.next(stream)
            if isinstance(message, Get):
                await parent.say(
                    stream, ObjectHead(message.id, 3, bytes(32), 0, 3, b"12345678", 0, b"abc")
                )

    world.network.handlers[COUNTY] = Scripted(COUNTY, lie)
    async with running(world.link):
        with trio.move_on_after(30):
            await world.link.fetch("metadata/440000000000/timestamp.json", 100)
        assert world.link.status().problem.code == "link.bad-object"


async def test_fetch_that_is_abandoned_leaves_the_link_usable(
    world: World, autojump_clock: MockClock
) -> None:
    above = Rest()
    world.parent(COUNTY, above)
    path, small = above.add(BIG), above.add(b"small")
    async with running(world.link):
        session = await world.link.wait_session()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(world.link.fetch, path, len(BIG))
            nursery.start_soon(world.link.fetch, path, len(BIG))
            await trio.lowlevel.checkpoint()
            while not session._fetching:
                await trio.lowlevel.checkpoint()
            nursery.cancel_scope.cancel()
        assert await world.link.fetch(small, 100) == b"small"
        assert await world.link.fetch(path, len(BIG)) == BIG
        assert session.is_open


async def test_hundreds_of_abandoned_fetches_do_not_end_the_link(
    world: World, autojump_clock: MockClock
) -> None:
    above = Rest()
    world.parent(COUNTY, above)
    paths = [above.add(SOURCE.randbytes(20_000)) for _ in range(200)]
    async with running(world.link):
        session = await world.link.wait_session()
        for _ in range(3):
            async with trio.open_nursery() as nursery:
                for path in paths:
                    nursery.start_soon(world.link.fetch, path, 20_000)
                while session._conn.outstanding_gets < 64:
                    await trio.lowlevel.checkpoint()
                nursery.cancel_scope.cancel()
        for path in paths:
            assert await world.link.fetch(path, 20_000) == above.objects[path]
        assert session.is_open
        assert session._fetching == {}


async def test_what_is_not_within_the_limits_is_never_sent(
    world: World, autojump_clock: MockClock
) -> None:
    above = Rest()
    server = world.parent(COUNTY, above)
    async with running(world.link):
        session = await world.link.wait_session()
        assert await world.link.fetch("metadata/../../etc/passwd", 100) is None
        assert await world.link.fetch(above.add(b"x"), 2**40) == b"x"
        with pytest.raises(LinkError) as caught:
            session.report("equivocation", bytes(40_000))
        assert caught.value.code == "link.misuse"
        with pytest.raises(LinkError):
            await world.link.order("no identifier")
        with pytest.raises(LinkError):
            server.sessions[VILLAGE].send_certificate("x" * 40_000)
        server.sessions[VILLAGE].introduce(bytes(32), [PeerAddress("10.0.0.1", 1)] * 100)
        told = await world.rest.wait_said("introduce")
        assert len(told[3]) == 64
        assert session.is_open


async def test_full_disk_is_told_and_the_link_stays(
    world: World, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    above = Rest()
    world.parent(COUNTY, above)
    path = above.add(BIG)
    world.folder.joinpath(f"parts-{VILLAGE}").touch()
    async with running(world.link):
        with pytest.raises(LinkError) as caught:
            await world.link.fetch(path, len(BIG))
        assert caught.value.code == "link.cannot-store"
        assert caught.value.fault is Fault.SYSTEM
        assert await world.link.fetch(above.add(b"small"), 100) == b"small"
        assert sum(what[0] == "connected" for what in world.rest.said) == 1


async def test_unreadable_object_counts_as_not_there(
    world: World, autojump_clock: MockClock
) -> None:
    class Broken(Rest):
        async def read_object(self, path: str) -> bytes | None:
            raise OSError(5, "Input/output error")

    world.parent(COUNTY, Broken())
    async with running(world.link):
        assert await world.link.fetch("blobs/a", 100) is None


async def test_ping_passes_while_a_large_object_is_sent(
    world: World, autojump_clock: MockClock
) -> None:
    above = Rest()
    path = above.add(BIG)
    server = make_server(above, world.folder, COUNTY)
    near, far = stream_pair(8192)
    now = trio.current_time()
    machine = LinkConnection(Role.CHILD, now)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(server.serve_stream, far, SimpleIdentity(VILLAGE), now)
        await near.send_all(machine.send(hello(), now))
        await trio.sleep(1)
        got: list[Message] = []

        async def read(count: int) -> None:
            machine.receive_data(await near.receive_some(count), trio.current_time())
            while (message := machine.next_event()) is not None:
                got.append(message)

        while not got:
            await read(1000)
        await near.send_all(machine.send(Get(1, path, len(BIG)), now))
        while len(got) < 5:
            await read(1000)
        await near.send_all(machine.send(Ping(7), now))
        await trio.sleep(1)
        before = len(got)
        while got[-1] != Pong(7):
            await read(1000)
        chunks = sum(isinstance(message, ObjectChunk) for message in got[before:])
        assert chunks <= 4
        nursery.cancel_scope.cancel()


async def test_child_that_never_reads_costs_little_and_is_dropped(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    above = Rest()
    limit = 4_000_000
    shelf = Shelf(above, max_in_use_bytes=limit, max_idle_bytes=1_000_000)
    server = make_server(above, tmp_path, shelf=shelf)
    highest = 0

    async def watch() -> None:
        nonlocal highest
        while True:
            highest = max(highest, shelf.in_use_bytes)
            await trio.sleep(0.01)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(watch)
        now = trio.current_time()
        for number in range(20):
            code = Division(f"4419000030{number + 10}")
            near, far = stream_pair()
            nursery.start_soon(server.serve_stream, far, SimpleIdentity(code), now)
            machine = LinkConnection(Role.CHILD, now)
            await near.send_all(machine.send(hello(code), now))
            machine.receive_data(await near.receive_some(), now)
            assert isinstance(machine.next_event(), Welcome)
            for request in range(8):
                path = above.add(SOURCE.randbytes(900_000))
                await near.send_all(machine.send(Get(request, path, 10**6), now))
        await trio.sleep(1)
        assert len(server.sessions) == 20
        # They ping, so they aren't silent; but they take nothing.
        server.announce()
        await above.wait_until(lambda: not server.sessions)
        assert trio.current_time() - now < 1200
        nursery.cancel_scope.cancel()
    assert 2_000_000 < highest <= limit
    assert shelf.in_use_bytes == 0
    assert shelf.idle_bytes <= 1_000_000


async def test_neighbour_whose_answers_pile_up_is_dropped(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    above = Rest()
    server = make_server(above, tmp_path)
    near, far = stream_pair(100)
    now = trio.current_time()
    machine = LinkConnection(Role.CHILD, now)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(server.serve_stream, far, SimpleIdentity(VILLAGE), now)
        await near.send_all(machine.send(hello(), now))
        await above.wait_said("connected")
        machine.receive_data(await near.receive_some(), now)
        assert isinstance(machine.next_event(), Welcome)
        pings = b"".join(machine.send(Ping(number), now) for number in range(5000))
        with pytest.raises(trio.BrokenResourceError):
            await near.send_all(pings)
        await above.wait_said("disconnected")
        assert server.sessions == {}


async def test_all_who_wait_for_room_get_their_turn(autojump_clock: MockClock) -> None:
    rest = Rest()
    shelf = Shelf(rest, max_in_use_bytes=100_000, max_idle_bytes=0)
    paths = [rest.add(SOURCE.randbytes(60_000)) for _ in range(6)]
    served = 0

    async def take(path: str) -> None:
        nonlocal served
        loan = await shelf.take(Get(1, path, 60_000))
        assert loan is not None
        assert shelf.in_use_bytes <= 100_000
        await trio.sleep(1)
        shelf.give_back(loan)
        served += 1

    with trio.fail_after(60):
        async with trio.open_nursery() as nursery:
            for path in paths:
                nursery.start_soon(take, path)
    assert served == 6
    assert shelf.idle_bytes == 0


async def test_the_same_object_is_packed_once_for_all(autojump_clock: MockClock) -> None:
    rest = Rest()
    path = rest.add(BIG)
    shelf = Shelf(rest)
    loans = []

    async def take() -> None:
        loan = await shelf.take(Get(1, path, len(BIG)))
        assert loan is not None
        loans.append(loan)

    async with trio.open_nursery() as nursery:
        for _ in range(50):
            nursery.start_soon(take)
    assert len({id(loan) for loan in loans}) == 1
    assert shelf.in_use_bytes == len(loans[0].encoded.data)
    for loan in loans:
        shelf.give_back(loan)
    assert shelf.in_use_bytes == 0


async def test_order_without_a_parent_or_an_answer_is_told(
    world: World, autojump_clock: MockClock
) -> None:
    class Deaf(Rest):
        async def on_order(self, peer: LinkSession, bundle: str) -> Sentence:
            await trio.sleep(1000)
            return sentence("order.taken", "late")

    async with running(world.link):
        with pytest.raises(LinkError) as caught:
            await world.link.order("440000000000/202611/yueju")
        assert caught.value.code == "link.down"
        world.parent(COUNTY, Deaf())
        await world.link.wait_session()
        with pytest.raises(LinkError) as caught:
            await world.link.order("440000000000/202611/yueju")
        assert caught.value.code == "link.no-answer"


async def test_order_ends_with_the_link(world: World, autojump_clock: MockClock) -> None:
    world.network.handlers[COUNTY] = Scripted(COUNTY, hang_up_at_the_first_word)
    async with running(world.link):
        await world.link.wait_session()
        with pytest.raises(LinkLostError):
            await world.link.order("440000000000/202611/yueju")


async def hang_up_at_the_first_word(parent: Scripted, stream: MemoryStream) -> None:
    await parent.next(stream)


async def test_stopping_daemon_says_goodbye(world: World, autojump_clock: MockClock) -> None:
    above = Rest()
    server = world.parent(COUNTY, above)
    async with running(world.link):
        await world.link.wait_session()
        session = server.sessions[VILLAGE]
    await above.wait_said("disconnected")
    reason = session.end_reason
    assert isinstance(reason, CuntongError)
    assert reason.code == "link.stopped"


def test_pending_news_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session_module, "MAX_PENDING_NEWS", 3)
    waiting: dict[int, int] = {}
    for number in range(10):
        session_module._put(waiting, number, number)
    assert list(waiting) == [7, 8, 9]


async def test_nation_without_parents_only_waits(world: World, autojump_clock: MockClock) -> None:
    link = make_child(world.rest, world.folder, world.network.dial)
    async with running(link):
        await trio.sleep(1000)
        status = link.status()
        assert (status.state, status.parent, status.problem) == ("down", None, None)
    assert NotFound(1) != NotFound(2)

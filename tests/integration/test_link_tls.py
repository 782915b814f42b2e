"""The control link over real sockets and real TLS 1.3 on loopback."""

from __future__ import annotations

import random
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest
import trio
import trio.lowlevel

from cuntong_daemon.link.parent import ParentLink
from cuntong_daemon.link.server import ChildServer
from cuntong_daemon.link.shelf import Shelf
from cuntong_daemon.link.transport import ParentAddress, dial, tls_dialler
from cuntong_daemon.services import running
from cuntong_protocol.divisions import Division
from cuntong_protocol.errors import CuntongError, Fault
from cuntong_protocol.link.errors import LinkError
from cuntong_protocol.link.frames import encode_frame
from cuntong_protocol.link.messages import Announcement, Get
from tests.support.link_world import (
    COUNTY,
    PROVINCE,
    VILLAGE,
    Rest,
    hello,
    make_child,
    make_server,
)
from tests.support.tls_certs import TestAuthority, identify, shared_authority

SOURCE = random.Random(6)  # Repeatable, not secret.


def address_of(server: ChildServer, code: Division = COUNTY) -> ParentAddress:
    return ParentAddress(code, "127.0.0.1", server.port)


async def problem_of(link: ParentLink) -> str:
    """Wait until a child knows why it has no parent; the code of the reason."""
    while (problem := link.status().problem) is None:
        await link.wait_changed()
    return problem.code


@asynccontextmanager
async def listening() -> AsyncIterator[tuple[socket.socket, ParentAddress]]:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        yield listener, ParentAddress(COUNTY, "127.0.0.1", listener.getsockname()[1])


async def test_objects_and_news_cross_real_tls(tmp_path: Path) -> None:
    above, below = Rest(), Rest()
    above.news = [Announcement(COUNTY, 1, bytes(32))]
    big = SOURCE.randbytes(2_000_000)
    paths = [above.add(SOURCE.randbytes(700)) for _ in range(500)]
    server = make_server(above, tmp_path)
    async with running(server):
        link = make_child(below, tmp_path, None, address_of(server))
        async with running(link):
            assert await below.wait_said("announce") == ("announce", COUNTY, above.news)
            async with trio.open_nursery() as nursery:
                for path in paths:
                    nursery.start_soon(link.fetch, path, 1000)
                assert await link.fetch(above.add(big), len(big)) == big
            session = await link.wait_session()
            assert session.peer_host == session.local_host == "127.0.0.1"
        await above.wait_said("disconnected")


async def test_200_children_at_once_are_all_served(tmp_path: Path) -> None:
    above = Rest()
    path = above.add(SOURCE.randbytes(100_000))
    server = make_server(above, tmp_path)
    fetched = 0
    everybody_has_it = trio.Event()

    async def child(code: Division) -> None:
        nonlocal fetched
        link = make_child(Rest(), tmp_path, None, address_of(server), code=code)
        async with running(link):
            assert await link.fetch(path, 100_000) == above.objects[path]
            fetched += 1
            if fetched == 200:
                everybody_has_it.set()
            await everybody_has_it.wait()
            assert link.status().state == "up"

    async with running(server):
        async with trio.open_nursery() as nursery:
            for number in range(200):
                nursery.start_soon(child, Division(f"441900003{number:03}"))
            await everybody_has_it.wait()
            assert len(server.sessions) == 200


async def test_parent_that_is_down_is_told_in_words(tmp_path: Path) -> None:
    async with listening() as (listener, address):
        listener.close()
        link = make_child(Rest(), tmp_path, None, address)
        async with running(link):
            assert await problem_of(link) == "link.nobody-listens"


async def test_host_that_does_not_exist_is_told_in_words(tmp_path: Path) -> None:
    address = ParentAddress(COUNTY, "127.0.0.1.invalid.", 1)
    link = make_child(Rest(), tmp_path, None, address)
    async with running(link):
        assert await problem_of(link) == "link.unknown-host"


async def test_parent_that_is_no_cuntong_node_is_told_in_words(tmp_path: Path) -> None:
    async def web_server(stream: trio.SocketStream) -> None:
        await stream.receive_some()
        await stream.send_all(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    async with trio.open_nursery() as nursery:
        (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
        nursery.start_soon(trio.serve_listeners, web_server, [listener])
        address = ParentAddress(COUNTY, "127.0.0.1", listener.socket.getsockname()[1])
        link = make_child(Rest(), tmp_path, None, address)
        async with running(link):
            assert (await problem_of(link)).startswith("tls.")
        nursery.cancel_scope.cancel()


async def test_parent_that_hangs_up_in_the_handshake_is_told_in_words(tmp_path: Path) -> None:
    async def hang_up(stream: trio.SocketStream) -> None:
        await stream.receive_some()

    async with trio.open_nursery() as nursery:
        (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
        nursery.start_soon(trio.serve_listeners, hang_up, [listener])
        address = ParentAddress(COUNTY, "127.0.0.1", listener.socket.getsockname()[1])
        link = make_child(Rest(), tmp_path, None, address)
        async with running(link):
            assert await problem_of(link) == "link.closed-in-handshake"
        nursery.cancel_scope.cancel()


async def test_parent_of_another_network_is_not_trusted(tmp_path: Path) -> None:
    context = TestAuthority().context(COUNTY, server=True)
    server = make_server(Rest(), tmp_path, context=context)
    async with running(server):
        link = make_child(Rest(), tmp_path, None, address_of(server))
        async with running(link):
            assert await problem_of(link) == "tls.unknown-authority"


async def test_child_of_another_network_gets_no_byte_and_is_told(tmp_path: Path) -> None:
    above, below = Rest(), Rest()
    above.news = [Announcement(COUNTY, 1, bytes(32))]
    server = make_server(above, tmp_path)
    context = TestAuthority().context(VILLAGE, server=False, anchor=shared_authority())
    async with running(server):
        link = make_child(below, tmp_path, tls_dialler(context, identify), address_of(server))
        async with running(link):
            assert await problem_of(link) in {
                "tls.refused",
                "link.broken",
                "link.closed-unanswered",
            }
    assert above.said == below.said == []


async def test_child_without_a_certificate_gets_no_byte(tmp_path: Path) -> None:
    above = Rest()
    server = make_server(above, tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    got = b""
    async with running(server):
        stream = await trio.open_ssl_over_tcp_stream(
            "127.0.0.1", server.port, ssl_context=context, https_compatible=True
        )
        try:
            await stream.send_all(encode_frame(hello()))
            while data := await stream.receive_some():
                got += data
        except trio.BrokenResourceError:
            pass
        await trio.aclose_forcefully(stream)
    assert got == b""
    assert above.said == []


async def test_identity_that_cannot_be_read_closes_the_connection(tmp_path: Path) -> None:
    def unreadable(stream: object) -> None:
        raise LinkError("node.bad-name", "Two names.")

    above = Rest()
    server = make_server(above, tmp_path)
    server._identify = unreadable
    async with running(server):
        link = make_child(Rest(), tmp_path, None, address_of(server))
        async with running(link):
            assert await problem_of(link) in {"link.closed-unanswered", "link.broken"}
        link = make_child(
            Rest(),
            tmp_path,
            tls_dialler(shared_authority().context(VILLAGE, server=False), unreadable),
            address_of(server),
        )
        async with running(link):
            assert await problem_of(link) == "node.bad-name"
    assert above.said == []


async def test_refused_child_reads_the_sentence_through_tls(tmp_path: Path) -> None:
    above = Rest()
    above.refuse[VILLAGE] = LinkError("node.removed", "{node} was removed.", node=VILLAGE)
    server = make_server(above, tmp_path)
    async with running(server):
        link = make_child(Rest(), tmp_path, None, address_of(server))
        async with running(link):
            assert await problem_of(link) == "node.removed"
            assert link.status().state == "refused"


async def test_grandparent_goes_on_when_the_parent_dies_in_a_transfer(tmp_path: Path) -> None:
    above = Rest()
    big = SOURCE.randbytes(5_000_000)
    path = above.add(big)
    county, province = make_server(above, tmp_path), make_server(above, tmp_path, PROVINCE)
    below = Rest()
    got: list[bytes | None] = []
    async with running(province):
        async with trio.open_nursery() as nursery:
            async with running(county):
                link = make_child(
                    below, tmp_path, None, address_of(county), address_of(province, PROVINCE)
                )

                async def child() -> None:
                    async with running(link):
                        got.append(await link.fetch(path, len(big)))
                        assert link.session is not None
                        assert link.session.peer_code == PROVINCE

                nursery.start_soon(child)
                session = await link.wait_session()
                assert session.peer_code == COUNTY
                while not any(f._stored for f in session._fetching.values()):
                    await trio.lowlevel.checkpoint()
    assert got == [big]


async def test_children_that_never_read_leave_the_others_alone(tmp_path: Path) -> None:
    above = Rest()
    limit = 3_000_000
    shelf = Shelf(above, max_in_use_bytes=limit)
    server = make_server(above, tmp_path, shelf=shelf)
    small = above.add(b"for everybody")
    async with running(server):
        deaf = []
        for number in range(2):
            code = Division(f"44190000301{number}")
            context = shared_authority().context(code, server=False)
            stream = await dial("127.0.0.1", server.port, context, COUNTY.dns_name)
            deaf.append(stream)
            await stream.send_all(encode_frame(hello(code)))
            for request in range(60):
                path = above.add(SOURCE.randbytes(400_000))
                await stream.send_all(encode_frame(Get(request, path, 500_000)))
        other = Division("441900003006")
        link = make_child(Rest(), tmp_path, None, address_of(server), code=other)
        async with running(link):
            assert await link.fetch(small, 100) == b"for everybody"
            assert shelf.in_use_bytes <= limit
        for stream in deaf:
            await trio.aclose_forcefully(stream)


async def test_port_that_is_taken_is_told_in_words(tmp_path: Path) -> None:
    first = make_server(Rest(), tmp_path)
    async with running(first):
        second = make_server(Rest(), tmp_path)
        second._port = first.port
        with pytest.raises(ExceptionGroup) as caught:
            async with running(second):
                pass
        (error,) = caught.value.exceptions
        assert isinstance(error, CuntongError)
        assert error.code == "link.port-taken"
        assert error.fault is Fault.SYSTEM


async def test_address_that_is_not_ours_is_told_in_words(tmp_path: Path) -> None:
    server = make_server(Rest(), tmp_path, host="192.0.2.1")
    with pytest.raises(LinkError) as caught:
        await server.run()
    assert caught.value.code == "link.cannot-listen"


async def test_strangers_beyond_the_limit_are_turned_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cuntong_daemon.link.server.MAX_GREETING", 2)
    server = make_server(Rest(), tmp_path)
    async with running(server):
        strangers = [await trio.open_tcp_stream("127.0.0.1", server.port) for _ in range(2)]
        while server._greeting < 2:
            await trio.lowlevel.checkpoint()
        third = await trio.open_tcp_stream("127.0.0.1", server.port)
        with suppress(trio.BrokenResourceError):
            assert await third.receive_some() == b""
        for stream in (*strangers, third):
            await stream.aclose()
        while server._greeting:
            await trio.lowlevel.checkpoint()
        link = make_child(Rest(), tmp_path, None, address_of(server))
        async with running(link):
            await link.wait_session()

"""Parents that are away, talk rubbish or aren't who they should be; clocks in 2000 and 2040; kills at any moment."""

from __future__ import annotations

import random
import shutil
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from cuntong_daemon.link.backoff import MAX_S, Backoff
from cuntong_daemon.pki.tls import server_context
from tests.support.bad_world import (
    BUNDLE,
    CHINESE,
    IS_FULL,
    World,
    assert_never_half,
    assert_no_traceback,
    fake_time,
    running_world,
    tool,
)

DAY_S = 86_400.0
LONG_AGO, FAR_AHEAD = "2000-01-01 00:00:00", "2040-01-01 00:00:00"


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with running_world(tmp_path) as found:
        yield found


def test_a_parent_that_is_down_for_a_day_costs_few_tries_and_is_found_within_minutes() -> None:
    for seed in range(50):
        backoff = Backoff(random.Random(seed))
        now, tries = 0.0, 0
        while now < DAY_S:
            backoff.failed(now)
            assert 0 < backoff.next_try_at - now <= MAX_S
            now = backoff.next_try_at
            tries += 1
        assert tries <= 2 * DAY_S / MAX_S + 20


def test_a_parent_that_is_down_is_told_and_nothing_is_lost(world: World) -> None:
    place = world.county
    world.start(place)
    status = world.wait_status(place, lambda found: found.parent.refusal is not None)
    assert status.parent.state == "unreachable"
    assert status.parent.refusal is not None
    assert status.parent.refusal.code == "link.nobody-listens"
    assert "连不上" in tool(place, "status", environment=CHINESE).stdout
    world.start(world.centre)
    world.wait_bundle(place)
    world.network.kill(world.centre)
    world.wait_status(place, lambda found: found.parent.state == "unreachable")
    assert tool(place, "catalogue", "show", BUNDLE).returncode == 0
    world.start(world.centre)
    world.wait_status(place, lambda found: found.parent.state == "connected")
    assert_no_traceback(place, world.centre)


Answer = Callable[[socket.socket], None]


@contextmanager
def _false_parent(world: World, answer: Answer) -> Iterator[None]:
    """Something at the centre's address that takes connections."""
    with socket.create_server((world.centre.address, 7440), backlog=8) as server:

        def serve() -> None:
            while True:
                try:
                    connection = server.accept()[0]
                except OSError:
                    return
                with connection, suppress(OSError):
                    connection.settimeout(10)
                    answer(connection)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        try:
            yield
        finally:
            server.shutdown(socket.SHUT_RDWR)
    thread.join(20)


def _rubbish(connection: socket.socket) -> None:
    connection.sendall(random.Random(1).randbytes(100_000))


def _another_protocol(connection: socket.socket) -> None:
    connection.recv(1000)
    connection.sendall(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")


def _hang_up(connection: socket.socket) -> None:
    connection.recv(10)


def _secured(world: World, after: Answer) -> Answer:
    """With the centre's own key and certificate, so that only what follows is wrong."""
    context = server_context(world.centre.paths.keys)

    def answer(connection: socket.socket) -> None:
        with suppress(ssl.SSLError), context.wrap_socket(connection, server_side=True) as secure:
            after(secure)

    return answer


def _as_county(world: World) -> Answer:
    """The county's certificate at the centre's address."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(
        world.county.paths.keys / "node.pem", world.county.paths.keys / "node.key"
    )

    def answer(connection: socket.socket) -> None:
        with suppress(ssl.SSLError), context.wrap_socket(connection, server_side=True) as secure:
            secure.recv(10)

    return answer


def test_a_parent_that_answers_garbage_does_no_harm(world: World) -> None:
    place = world.county
    answers: list[tuple[Answer, str]] = [
        (_rubbish, "tls.old-version"),
        (_another_protocol, "tls.old-version"),
        (_hang_up, "link.closed-in-handshake"),
        (_as_county(world), "tls.wrong-name"),
        (_secured(world, _rubbish), "link.too-long"),
        (_secured(world, _hang_up), "link.closed-unanswered"),
    ]
    for answer, code in answers:
        with _false_parent(world, answer):
            world.start(place)
            status = world.wait_status(place, lambda one: one.parent.refusal is not None)
            world.network.kill(place)
        assert status.parent.refusal is not None
        assert status.parent.refusal.code == code
    assert_no_traceback(place)
    world.start(world.centre, place)
    world.wait_bundle(place)


@pytest.mark.parametrize("moment", [LONG_AGO, FAR_AHEAD])
def test_a_county_whose_clock_is_wrong_finishes_and_tells(world: World, moment: str) -> None:
    """Its profile is strict: by the clock everything would be expired, or not valid yet."""
    place = world.county
    wrong = fake_time(moment)
    world.start(world.centre)
    world.start(place, environment=wrong)
    world.wait_bundle(place)
    status = world.wait_status(place, lambda found: bool(found.problems))
    assert [problem.code for problem in status.problems] == ["clock.wrong"]
    assert status.parent.state == "connected"
    if moment != LONG_AGO and not IS_FULL:
        return
    world.network.stop(place, world.centre)
    world.start(place, environment=wrong)  # Without a parent: it keeps and shows what it has.
    status = world.wait_status(place, lambda found: bool(found.problems))
    assert status.problems[0].code == "trust.wrong-clock"
    world.wait_bundle(place)
    world.network.stop(place)
    world.start(world.centre, place)  # Right again.
    world.wait_status(place, lambda found: found.parent.state == "connected" and not found.problems)
    world.wait_bundle(place)
    assert_no_traceback(place)


@pytest.mark.parametrize("moment", [LONG_AGO, FAR_AHEAD] if IS_FULL else [FAR_AHEAD])
def test_a_centre_whose_clock_is_wrong_signs_nothing_and_serves_on(
    world: World, moment: str
) -> None:
    place = world.centre
    before = (place.paths.authority / "metadata" / "timestamp.json").read_bytes()
    world.start(place, environment=fake_time(moment))
    world.start(world.county)
    world.wait_bundle(world.county)
    status = world.wait_status(place, lambda found: bool(found.problems))
    codes = {problem.code for problem in status.problems}
    assert codes & {"trust.wrong-clock", "authority.clock-ahead"}
    assert (place.paths.authority / "metadata" / "timestamp.json").read_bytes() == before
    told = [problem.code for problem in world.network.status(world.county).problems]
    assert told == ["clock.parent-wrong"]
    world.network.stop(place)
    world.start(place)
    world.wait_status(place, lambda found: not found.problems)
    assert_no_traceback(place, world.county)


def test_a_county_that_is_killed_at_any_moment_ends_up_whole(world: World) -> None:
    """While it starts, fetches, unpacks and shows."""
    source = random.Random(9)
    place = world.county
    enrolled = place.folder / "enrolled"
    shutil.copytree(place.paths.root, enrolled)
    world.start(world.centre)
    for _ in range(30 if IS_FULL else 1):
        shutil.rmtree(place.paths.root)
        shutil.copytree(enrolled, place.paths.root)
        for _ in range(3):
            world.start(place)
            time.sleep(source.uniform(0.0, 1.0))  # The moment itself is what is tried.
            world.network.kill(place)
            assert_never_half(world, place)
        world.start(place)
        world.wait_bundle(place)
        world.network.kill(place)
    assert_no_traceback(place, world.centre)

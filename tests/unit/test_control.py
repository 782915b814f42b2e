"""The local socket: what works, and what bad clients, dead daemons and second daemons get."""

from __future__ import annotations

import contextlib
import json
import socket
import stat
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import pytest
import trio

from cuntong_daemon.control import server as server_module
from cuntong_daemon.control.client import ControlClient, RemoteError, call
from cuntong_daemon.control.lock import hold_data_directory
from cuntong_daemon.control.messages import MAX_REQUEST_BYTES, Status, VerifyStep
from cuntong_daemon.control.server import ControlServer, Handler, Stream
from cuntong_daemon.control.sockets import ControlError
from cuntong_daemon.paths import DataPaths
from cuntong_daemon.services import running
from cuntong_protocol.errors import CuntongError, Fault
from tests.support.node import fake_node, published

T = TypeVar("T")


async def _echo(params: dict[str, Any]) -> object:
    await trio.lowlevel.checkpoint()
    return params


async def _refuse(_params: dict[str, Any]) -> object:
    await trio.lowlevel.checkpoint()
    raise CuntongError("test.no", "No to {who}.", fault=Fault.REFUSED, who="you")


async def _break(_params: dict[str, Any]) -> object:
    await trio.lowlevel.checkpoint()
    raise RuntimeError("a fault of ours")


async def _huge(_params: dict[str, Any]) -> object:
    await trio.lowlevel.checkpoint()
    return "x" * 5_000_000


async def _count(params: dict[str, Any]) -> AsyncIterator[object]:
    for number in range(params["to"]):
        await trio.lowlevel.checkpoint()
        yield VerifyStep(id="a", bytes_done=number, bytes_total=params["to"])


HANDLERS: dict[str, Handler] = {"echo": _echo, "refuse": _refuse, "break": _break, "huge": _huge}
STREAMS: dict[str, Stream] = {"count": _count}


async def in_thread(function: Callable[[], T]) -> T:
    return await trio.to_thread.run_sync(function)


def serving(path: Path) -> Any:
    return running(ControlServer(path, HANDLERS, STREAMS))


async def test_a_call_brings_its_result_and_the_socket_is_for_user_and_group(
    tmp_path: Path,
) -> None:
    path = tmp_path / "control.sock"
    async with serving(path):
        assert stat.S_IMODE(path.stat().st_mode) == 0o660
        assert await in_thread(lambda: call(path, "echo", {"词": "戏曲"})) == {"词": "戏曲"}
    assert not path.exists()


async def test_many_calls_and_a_stream_on_one_connection(tmp_path: Path) -> None:
    path = tmp_path / "control.sock"

    def talk() -> list[int]:
        with ControlClient(path) as client:
            assert client.call("echo", {"n": 1}) == {"n": 1}
            steps = list(client.stream(VerifyStep, "count", {"to": 3}))
            assert client.call("echo", {"n": 2}) == {"n": 2}
            return [step.bytes_done for step in steps]

    async with serving(path):
        assert await in_thread(talk) == [0, 1, 2]


async def test_errors_arrive_with_code_and_fault(tmp_path: Path) -> None:
    path = tmp_path / "control.sock"

    def talk(method: str, params: dict[str, Any] | None = None) -> CuntongError:
        with pytest.raises(CuntongError) as caught:
            call(path, method, params)
        return caught.value

    async with serving(path):
        error = await in_thread(lambda: talk("refuse"))
        assert (error.code, error.fault, str(error)) == ("test.no", Fault.REFUSED, "No to you.")
        assert (await in_thread(lambda: talk("nonsense"))).code == "control.no-method"
        assert (await in_thread(lambda: talk("huge"))).code == "control.too-long"


async def test_a_fault_in_a_method_is_logged_and_the_daemon_goes_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "control.sock"

    def talk() -> None:
        with ControlClient(path) as client:
            with pytest.raises(RemoteError) as caught:
                client.call("break")
            assert caught.value.code == "control.internal"
            assert caught.value.fault is Fault.OURS
            assert client.call("echo") == {}

    async with serving(path):
        await in_thread(talk)
    assert "a fault of ours" in "".join(capsys.readouterr())


@contextmanager
def raw(path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(30)
        client.connect(str(path))
        yield client


@pytest.mark.parametrize("line", [b"not json", b"[]", b'{"method": 3}', b'{"params": {}}', b"\xff"])
async def test_nonsense_is_answered_and_the_next_request_works(tmp_path: Path, line: bytes) -> None:
    path = tmp_path / "control.sock"

    def talk() -> list[Any]:
        with raw(path) as client, client.makefile("rwb") as file:
            file.write(line + b'\n{"method": "echo"}\n')
            file.flush()
            return [json.loads(file.readline()) for _ in range(2)]

    async with serving(path):
        refused, answered = await in_thread(talk)
    assert refused["error"]["code"] == "control.bad-request"
    assert refused["fault"] == Fault.USAGE.value
    assert answered == {"result": {}}


async def test_a_request_without_an_end_is_hung_up_on(tmp_path: Path) -> None:
    path = tmp_path / "control.sock"

    def talk() -> bytes:
        with raw(path) as client:
            try:
                client.sendall(b"x" * (MAX_REQUEST_BYTES + 8192))
                return client.recv(1)
            except ConnectionError:
                return b""

    async with serving(path):
        assert await in_thread(talk) == b""
        assert await in_thread(lambda: call(path, "echo")) == {}


async def test_a_client_that_leaves_in_the_middle_harms_nobody(tmp_path: Path) -> None:
    path = tmp_path / "control.sock"

    def leave() -> None:
        with raw(path) as client:
            client.sendall(b'{"method": "count", "params": {"to": 1000000}}\n')
            client.recv(10)

    async with serving(path):
        await in_thread(leave)
        assert await in_thread(lambda: call(path, "echo")) == {}


async def test_too_many_clients_are_turned_away_and_places_become_free(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server_module, "MAX_CLIENTS", 1)
    path = tmp_path / "control.sock"

    def crowd() -> None:
        with ControlClient(path) as first:
            first.call("echo")
            with pytest.raises(ControlError) as caught:
                call(path, "echo")
            assert caught.value.code == "control.hung-up"

    def again() -> object:
        while True:  # The server hears of the first one's leaving a moment later.
            with contextlib.suppress(ControlError):
                return call(path, "echo")

    async with serving(path):
        await in_thread(crowd)
        assert await in_thread(again) == {}


async def test_a_stalled_client_is_forgotten(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, autojump_clock: trio.testing.MockClock
) -> None:
    path = tmp_path / "control.sock"
    service = ControlServer(path, HANDLERS)
    async with running(service):
        client = await trio.open_unix_socket(path)
        async with client:
            await client.send_all(b'{"method"')
            assert await client.receive_some(1) == b""
    assert service._clients == 0


async def test_what_a_dead_daemon_left_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "control.sock"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    async with serving(path):
        assert await in_thread(lambda: call(path, "echo")) == {}


async def test_a_second_daemon_is_refused_and_the_first_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "control.sock"
    async with serving(path):
        with pytest.RaisesGroup(ControlError) as caught:
            async with serving(path):
                pass
        (error,) = caught.value.exceptions
        assert isinstance(error, ControlError)
        assert error.code == "control.second-daemon"
        assert await in_thread(lambda: call(path, "echo")) == {}


async def test_somebodys_file_in_the_place_of_the_socket_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "control.sock"
    path.write_text("mine")
    with pytest.RaisesGroup(ControlError) as caught:
        async with serving(path):
            pass
    assert [getattr(error, "code", "") for error in caught.value.exceptions] == [
        "control.no-socket"
    ]
    assert path.read_text() == "mine"


async def test_a_data_directory_deeper_than_a_socket_address(tmp_path: Path) -> None:
    folder = tmp_path / ("深" * 40) / ("y" * 100)
    folder.mkdir(parents=True)
    path = folder / "control.sock"
    async with serving(path):
        assert path.is_socket()
        assert await in_thread(lambda: call(path, "echo")) == {}
    assert list(folder.iterdir()) == []


def test_no_daemon_says_how_to_start_one(tmp_path: Path) -> None:
    with pytest.raises(ControlError) as caught:
        call(tmp_path / "control.sock", "status")
    assert caught.value.code == "control.no-daemon"
    assert f"cuntongd --data {tmp_path}" in str(caught.value)
    assert caught.value.fault is Fault.TRANSPORT


@contextmanager
def answering(path: Path, *lines: bytes) -> Iterator[None]:
    """Something that isn't a daemon and answers with these bytes."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        left = threading.Event()

        def serve() -> None:
            peer, _ = listener.accept()
            with peer:
                peer.recv(1000)
                for line in lines:
                    peer.sendall(line)
                if not lines:
                    left.wait(30)

        thread = threading.Thread(target=serve)
        thread.start()
        yield
        left.set()
        thread.join()


@pytest.mark.parametrize(
    ("lines", "code"),
    [
        ((b"HTTP/1.1 400\r\n\r\n",), "control.garbage"),
        ((b'{"result": {"node": 3}}\n',), "control.garbage"),
        ((b'{"error": {"code": "A B", "template": ""}}\n',), "control.garbage"),
        ((b'{"error": {"code": "x", "template": "y"}, "fault": 9}\n',), "x"),
        ((b"half",), "control.hung-up"),
        ((), "control.silent"),
    ],
)
def test_what_answers_is_not_believed(tmp_path: Path, lines: tuple[bytes, ...], code: str) -> None:
    path = tmp_path / "control.sock"
    with answering(path, *lines):
        with (
            pytest.raises(CuntongError) as caught,
            ControlClient(path, timeout_s=0.2 if not lines else 30) as client,
        ):
            client.call_as(Status, "status")
    assert caught.value.code == code


def test_one_daemon_a_data_directory(tmp_path: Path) -> None:
    paths = DataPaths(tmp_path)
    with hold_data_directory(paths):
        with pytest.raises(ControlError) as caught, hold_data_directory(paths):
            pass
        assert caught.value.code == "control.second-daemon"
    with hold_data_directory(paths):
        pass
    with pytest.raises(ControlError) as caught, hold_data_directory(DataPaths(tmp_path / "none")):
        pass
    assert caught.value.code == "control.no-data"


async def test_catalogue_methods_check_their_params_and_tell_of_orders(tmp_path: Path) -> None:
    book = published("书", "book")

    def talk() -> None:
        with ControlClient(DataPaths(tmp_path).socket) as client:
            for method, params in (
                ("catalogue.list", {"limit": 0}),
                ("catalogue.list", {"limit": 100_000}),
                ("catalogue.search", {}),
                ("catalogue.search", {"text": 3}),
                ("order", {"id": ""}),
                ("events", {"limit": "all"}),
            ):
                with pytest.raises(RemoteError) as caught:
                    client.call(method, params)
                assert caught.value.code == "control.bad-request"
            codes = [
                client.call("order", {"id": book.listing.id, "cancel": cancel})["code"]
                for cancel in (False, False, True, True)
            ]
            assert codes == ["order.taken", "order.again", "order.cancelled", "order.none"]
            assert len(client.call("events")) == 2

    async with fake_node(tmp_path, [book]):
        await in_thread(talk)

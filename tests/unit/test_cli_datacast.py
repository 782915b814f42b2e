"""`cuntong datacast` against a real local socket: what it shows of a satellite, by whose clock, and what it refuses."""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import click
import msgspec
import pytest
import structlog
import trio
from rich.cells import cell_len

from cuntong_daemon import i18n
from cuntong_daemon.catalogue import Catalogue, Database
from cuntong_daemon.config import new_config, write_config
from cuntong_daemon.config_datacast import CastSection, DishSection
from cuntong_daemon.control.datacast_methods import (
    Datacast,
    Held,
    datacast_methods,
    datacast_problems,
    datacast_status,
)
from cuntong_daemon.control.lock import hold_data_directory
from cuntong_daemon.control.messages import HeardBundle, NodeStatus, Status
from cuntong_daemon.datacast import receiver as receiver_module
from cuntong_daemon.datacast.caster import CastStatus, OnAirBundle
from cuntong_daemon.datacast.lineup import Lineup
from cuntong_daemon.datacast.pacer import Paced
from cuntong_daemon.datacast.reader import ReadOrder, ReadStatus
from cuntong_daemon.datacast.receiver import DatacastReceiver, Gathered, Signal
from cuntong_daemon.paths import DataPaths
from cuntong_daemon.store.pieces import PieceSet
from cuntong_protocol.bundle.metadata import Licence
from cuntong_protocol.datacast.blocks import Layout
from cuntong_protocol.datacast.errors import DROP_REASONS, DatacastError
from cuntong_protocol.datacast.objects import BundleEntry, Programme, Ref
from cuntong_protocol.datacast.packets import SYMBOL_BYTES, Beacon
from cuntong_protocol.divisions import Division
from cuntong_protocol.errors import CuntongError, Fault
from cuntong_protocol.texts import Sentence, sentence
from cuntong_tools import output
from cuntong_tools.datacast import commands as datacast_commands
from cuntong_tools.datacast import send, views
from cuntong_tools.main import run
from tests.support.node import fake_node, fill, published
from tests.support.payloads import random_bytes, torrent_of

NATION = "000000000000"
SENT_AT = 1_500_000_000
"""The sender's clock in the beacon: 2017. This machine's says something else, whenever this test runs."""
OPERA = published(
    "春节戏曲晚会：广东粤剧院二〇二七年新春团拜演出全本实况录像（高清）", "spring-opera"
)
FILM = published("臺灣風光紀錄片", "taiwan-film")
NEWS = published("乡村简报", "news")
SECRET = published(
    "内部资料",
    "secret",
    licence=Licence(kind="restricted", scope=("44",)),
)
BUNDLES = [OPERA, FILM, NEWS, SECRET]
DROPPED = {reason: number for number, reason in enumerate(DROP_REASONS, start=11)}


@dataclass
class FakeReceiver:
    """What a receiver tells."""

    signal: Signal
    programme: Programme | None
    gathered: dict[bytes, Gathered] = field(default_factory=dict)
    problems: list[Sentence] = field(default_factory=list)
    quota_bytes: int = 8_000_000_000
    blocks_done: int = 312


@dataclass
class FakeSender:
    """What a sender tells."""

    status: CastStatus
    problems: list[Sentence] = field(default_factory=list)


def infohash(bundle: Any) -> bytes:
    return bytes([BUNDLES.index(bundle)]) * 32


def entry(bundle: Any, begins: int, ends: int, after: int) -> BundleEntry:
    """A bundle of the programme; times are counted from when the beacon was sent."""
    times = [0 if at is None else SENT_AT + at for at in (begins, ends, after)]
    return BundleEntry(
        id=bundle.listing.id,
        infohash=infohash(bundle),
        size=50_000_000,
        toi=1 + 100 * BUNDLES.index(bundle),
        manifest=Ref(toi=9, size=10, sha256=bytes(32)),
        begins=times[0],
        ends=times[1],
        next=times[2],
    )


def heard(*, age_s: float | None = 1.0) -> FakeReceiver:
    """A receiver that hears a programme of three bundles."""
    beacon = Beacon(
        sender=NATION, number=5, time=SENT_AT, key=bytes(8), rate_bytes_s=2_500_000, catalogue=14
    )
    reader = ReadStatus(
        packets=1_234_567,
        bytes=1_600_000_000,
        symbols=1_200_000,
        unverified=12,
        vouched=7,
        fillers=345,
        dropped=DROPPED,
        socket_drops=3,
        buffer_bytes=425_984,
        gaps=2,
        gap_s=31.0,
        silent_s=0.1,
        open_blocks=12,
        used_bytes=48_000_000,
        write_errors=1,
    )
    return FakeReceiver(
        Signal(29_412_345, None if age_s is None else beacon, age_s, reader),
        Programme(
            made_at=SENT_AT - 5,
            bundles=(
                entry(NEWS, -3600, -1800, 86_400),
                entry(OPERA, -600, 1500, 1500),
                entry(FILM, 720, 1320, 9000),
            ),
        ),
        {infohash(OPERA): Gathered(13, 31, 0.4271)},
        [sentence("datacast.silent", "Nothing is heard.")],
    )


def sent() -> FakeSender:
    """A sender with two bundles on the air."""
    bundles = [
        OnAirBundle(id=OPERA.listing.id, turn="carousel", passes=3, permille=427, begins=SENT_AT - 600,
                    ends=SENT_AT + 1500, next=SENT_AT + 1500),
        OnAirBundle(id=FILM.listing.id, turn="waiting", passes=1, permille=0, begins=SENT_AT + 720,
                    ends=SENT_AT + 1320, next=SENT_AT + 1320),
    ]  # fmt: skip
    paced = Paced(
        packets=9000, bytes=12_528_000, fillers=12, failed=4, behind_ms=1.25, lost_ms=2500
    )
    return FakeSender(
        CastStatus(session=29_412_345, rate_bytes_s=250_000, paced=paced, catalogue=14, bundles=bundles),
        [sentence("datacast.sender-ended", "The sender ended.")],
    )  # fmt: skip


class Shell:
    """Runs `cuntong …` in this process against a node with satellite services."""

    def __init__(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.paths = DataPaths(folder)
        self.receiver: FakeReceiver | None = None
        self.sender: FakeSender | None = None
        self._capsys = capsys

    @property
    def datacast(self) -> Datacast:
        section = {"interface": "eth1", "source": "10.0.0.1"}
        return Datacast(
            cast=CastSection(**section),  # type: ignore[arg-type]
            dish=DishSection(interface="eth1"),
            sender=self.sender,
            receiver=self.receiver,
            held=self._held,
            catalogue_version=lambda authority: 13 if authority == NATION else 0,
            now=lambda: SENT_AT,
        )

    @staticmethod
    def _held(identifier: str, _infohash: bytes) -> Held:
        return "complete" if identifier == FILM.listing.id else "wanted"

    async def status(self, _params: dict[str, Any]) -> object:
        await trio.lowlevel.checkpoint()
        return Status(
            node=NodeStatus(code="441900003005", name="石排村", tier="village"),
            problems=datacast_problems(self.datacast),
            datacast=datacast_status(self.datacast),
        )

    async def raw(self, *arguments: str) -> tuple[int, str, str]:
        code = await trio.to_thread.run_sync(run, [*arguments, "--data", str(self.paths.root)])
        out, err = self._capsys.readouterr()
        if "--json" not in arguments:
            assert max(cell_len(line) for line in (out or " ").splitlines()) <= 80, out
        return code, out, err

    async def says(self, *arguments: str) -> str:
        """What a command that succeeds prints, on one line."""
        code, out, err = await self.raw(*arguments)
        assert (code, err) == (0, "")
        return " ".join(out.split())


@pytest.fixture(autouse=True, params=["en", "zh_CN"])
def language(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setenv("LANGUAGE", request.param)
    monkeypatch.setenv("TZ", "Asia/Shanghai")
    monkeypatch.delenv("COLUMNS", raising=False)
    time.tzset()
    i18n._catalogue.cache_clear()
    yield request.param
    monkeypatch.undo()
    time.tzset()
    i18n._catalogue.cache_clear()
    structlog.reset_defaults()


@asynccontextmanager
async def shell_at(folder: Path, capsys: pytest.CaptureFixture[str]) -> AsyncIterator[Shell]:
    shell = Shell(folder, capsys)
    database = Database(shell.paths.database)

    async def datacast(params: dict[str, Any]) -> object:
        handler = datacast_methods(shell.datacast, Catalogue(database.connection), database)
        return await handler["datacast"](params)

    try:
        async with fake_node(folder, BUNDLES, {"status": shell.status, "datacast": datacast}):
            yield shell
    finally:
        database.close()


@pytest.fixture
async def shell(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> AsyncIterator[Shell]:
    async with shell_at(tmp_path, capsys) as shell:
        shell.receiver, shell.sender = heard(), sent()
        yield shell


async def test_status_tells_signal_losses_and_what_comes(shell: Shell, language: str) -> None:
    shell.sender = None
    out = await shell.says("datacast", "status")
    assert out.startswith("! Nothing is heard.")
    for said in (
        "29412345",
        "232.20.1.1:7450",
        "1234567",
        "1.6 GB",
        "48.0 MB",
        "8.0 GB",
        "426 kB",
        "net.core.rmem_max=8388608",
        "42 %",
        "13/31",
        "春节戏曲晚会",
        OPERA.listing.id,
    ):
        assert said in out, said
    if language == "en":
        for said in (
            "Receiving 20 Mbit/s from 000000000000, last beacon 1 s ago",
            "Catalogue version 14 on the air, 13 here",
            "12 came unverified, 7 proven later",
            "3 the socket's buffer was full, 23 no room in the spool, 1 the disk refused",
            "17 forged",
            "21 here already, 22 of blocks that are whole",
            "2 gaps, 31 s in all; last packet 0 s ago",
            "12 blocks open",
            "312 made whole",
            "3 bundles, 1 coming",
            "until 11:05",
            "in 12 min",
        ):
            assert said in out, said
        # What comes is above what is here already; what only waits stands between them.
        places = [out.index(bundle.listing.id) for bundle in (OPERA, NEWS, FILM)]
        assert places == sorted(places)


async def test_status_of_a_sender_tells_what_is_on_the_air(shell: Shell, language: str) -> None:
    shell.receiver = None
    out = await shell.says("datacast", "status")
    assert out.startswith("! The sender ended.")
    assert "12.5 MB" in out
    if language == "en":
        for said in (
            "Sending 2000 kbit/s, 1.2 ms behind at most",
            "9000 packets, 12.5 MB; of these 12 fillers",
            "4 packets refused by the system, 2.5 s not caught up",
            "repeated 4 now",
            "42 % until 11:05",
            "between two slots 2 10:52",
            "0 % in 12 min",
        ):
            assert said in out, said


async def test_json_is_what_the_daemon_said_of_both(shell: Shell) -> None:
    code, out, _err = await shell.raw("datacast", "status", "--json")
    assert code == 0
    document = json.loads(out)
    assert document["receiver"]["dropped"] == DROPPED
    assert document["receiver"]["sender_time"] == SENT_AT + 1
    assert document["sender"]["behind_ms"] == 1.25
    assert [problem["code"] for problem in document["problems"]] == [
        "datacast.sender-ended",
        "datacast.silent",
    ]
    assert document["receiver"]["bundles"][0] == {
        "id": OPERA.listing.id,
        "title": "春节戏曲晚会：广东粤剧院二〇二七年新春团拜演出全本实况录像（高清）",
        "size": 50_000_000,
        "state": "coming",
        "progress": 0.4271,
        "blocks_done": 13,
        "blocks": 31,
        "passes": 0,
        "begins": SENT_AT - 600,
        "ends": SENT_AT + 1500,
        "next": SENT_AT + 1500,
    }


async def test_nothing_heard_for_long_is_told_instead_of_a_rate(
    shell: Shell, language: str
) -> None:
    shell.sender = None
    for age_s in (None, 300.0):
        shell.receiver = heard(age_s=age_s)
        assert "20 Mbit/s" not in await shell.says("datacast", "status")
        assert "20 Mbit/s" not in await shell.says("status")
    if language == "en":
        out = await shell.says("datacast", "status")
        assert "Receiving nothing was heard from 000000000000 for 5 min 0 s" in out


async def test_watch_shows_until_it_is_stopped(
    shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(_seconds: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(time, "sleep", stop)
    assert "29412345" in await shell.says("datacast", "status", "--watch")
    code, _out, err = await shell.raw("datacast", "status", "--watch", "--json")
    assert code == Fault.USAGE.value
    assert "(usage.bad-command-line)" in err


async def test_nodes_status_has_two_lines_and_the_problems_among_the_others(
    shell: Shell, language: str
) -> None:
    out = await shell.says("status")
    assert out.startswith("! The sender ended. ! Nothing is heard.")
    if language == "en":
        assert "Satellite in 20 Mbit/s from 000000000000, 1 of 3 bundles on the air coming" in out
        assert "out 2000 kbit/s, 2 bundles on the air" in out
    # Long lists belong to `cuntong datacast`.
    assert OPERA.listing.id not in out


async def test_times_are_the_senders_however_wrong_the_nodes_clock_is(
    shell: Shell, language: str
) -> None:
    """This machine's clock is years ahead of the beacon's, and nothing that is shown follows from it."""
    shell.sender = None
    assert time.time() > SENT_AT + 2 * 365 * 86_400
    out = await shell.says("datacast", "schedule", FILM.listing.id)
    assert "2017-07-14 10:52:00" in out
    if language == "en":
        assert "It comes round at 2017-07-14 10:52:00, in 12 min, until 2017-07-14 11:02:00." in out
        assert "The pass after that begins at 2017-07-14 13:10:00, in 2 h 30 min." in out
        assert "Here: complete." in out
        out = await shell.says("datacast", "schedule", OPERA.listing.id)
        assert "It is on the air now, until 2017-07-14 11:05:00, for another 25 min." in out
        assert "Here: 42 %, 13 of 31 blocks." in out
        out = await shell.says("datacast", "schedule", NEWS.listing.id)
        assert "It comes round at 2017-07-15 10:40:00, in 1 d 0 h." in out


async def test_schedule_lists_what_is_on_the_air_by_when_it_comes(
    shell: Shell, language: str
) -> None:
    shell.sender = None
    out = await shell.says("datacast", "schedule")
    places = [out.index(bundle.listing.id) for bundle in (OPERA, FILM, NEWS)]
    assert places == sorted(places)
    if language == "en":
        assert "By the sender's clock it is 2017-07-14 10:40:01." in out
        assert "now 11:05 11:05" in out
        assert f"10:52 11:02 13:10 {FILM.listing.id}" in out
        assert f"07-15 10:40 - - {NEWS.listing.id}" in out


async def test_a_signal_that_is_lost_makes_no_times_up(shell: Shell, language: str) -> None:
    shell.sender = None
    shell.receiver = heard(age_s=100_000.0)
    out = await shell.says("datacast", "schedule", OPERA.listing.id)
    assert "10:52" not in out
    if language == "en":
        assert "When it comes round isn't known at the moment." in out
    shell.receiver = heard(age_s=None)
    assert "2017" not in await shell.says("datacast", "schedule")


async def test_a_long_schedule_is_listed_over_all_pages(
    shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The receiver's list and the sender's are of different length; neither loses or repeats anything."""
    monkeypatch.setattr(datacast_commands, "MAX_PAGE", 1)
    document = json.loads((await shell.raw("datacast", "schedule", "--json"))[1])
    assert [one["id"] for one in document["receiver"]["bundles"]] == sorted(
        bundle.listing.id for bundle in (OPERA, FILM, NEWS)
    )
    assert [one["id"] for one in document["sender"]["bundles"]] == sorted(
        bundle.listing.id for bundle in (OPERA, FILM)
    )


async def test_more_bundles_than_a_page_shows_are_counted(
    shell: Shell, monkeypatch: pytest.MonkeyPatch, language: str
) -> None:
    monkeypatch.setattr(views, "MAX_SHOWN", 1)
    out = await shell.says("datacast", "status")
    assert NEWS.listing.id not in out
    if language == "en":
        assert "and 2 bundles more: cuntong datacast schedule" in out
        assert "and 1 bundle more: cuntong datacast schedule" in out


@pytest.mark.parametrize(
    ("identifier", "code", "fault"),
    [
        ("nothing", "datacast.not-on-air", Fault.USAGE),
        (SECRET.listing.id, "datacast.restricted", Fault.REFUSED),
    ],
)
async def test_what_never_comes_round_is_told_with_the_reason(
    shell: Shell, identifier: str, code: str, fault: Fault
) -> None:
    ended, out, err = await shell.raw("datacast", "schedule", identifier)
    assert (ended, out) == (fault.value, "")
    assert err.endswith(f"({code})\n")
    assert err.count("\n") == 1


async def test_before_the_first_programme_nobody_can_say_when(shell: Shell) -> None:
    shell.sender = None
    assert shell.receiver is not None
    shell.receiver.programme = None
    code, _out, err = await shell.raw("datacast", "schedule", OPERA.listing.id)
    assert code == Fault.TRANSPORT.value
    assert err.endswith("(datacast.no-programme)\n")
    assert (await shell.raw("datacast", "schedule"))[0] == 0


async def test_a_node_without_satellite_says_where_to_set_it(shell: Shell) -> None:
    shell.receiver = shell.sender = None
    assert "[dish]" in await shell.says("datacast", "status")
    assert "config.toml" not in await shell.says("status")
    for words in (["schedule"], ["schedule", OPERA.listing.id]):
        code, _out, err = await shell.raw("datacast", *words)
        assert code == Fault.CONFIG.value
        assert err.endswith("(datacast.not-set-up)\n")


@pytest.mark.parametrize(
    "params", [{"limit": 501}, {"limit": -1}, {"id": 5}, {"after": "x" * 101}, {"more": 1}]
)
async def test_a_request_that_makes_no_sense_is_refused(shell: Shell, params: Any) -> None:
    handler = datacast_methods(shell.datacast, None, None)["datacast"]  # type: ignore[arg-type]
    with pytest.raises(Exception, match=r"limit|id|after|more"):
        await handler(params)


def test_a_bundle_comes_round_when_its_times_say_so() -> None:
    bundle = HeardBundle(id="x", begins=100, ends=200, next=400)
    assert [views.round_of(bundle, now) for now in (0, 99, 100, 199, 200, 399, 400)] == [
        ("unknown", 0, 0),
        ("later", 100, 200),
        ("now", 100, 200),
        ("now", 100, 200),
        ("later", 400, 0),
        ("later", 400, 0),
        ("unknown", 0, 0),
    ]


def test_every_reason_for_a_drop_has_a_name() -> None:
    assert views.DROP_NAMES.keys() == set(DROP_REASONS)
    assert {*views.LOST, *views.USUAL} <= views.DROP_NAMES.keys()


class Engine:
    """Says which pieces are safe."""

    pieces: PieceSet | None = None

    def durable(self, _infohash: bytes) -> PieceSet | None:
        return self.pieces


async def test_symbols_count_long_before_a_block_is_whole(tmp_path: Path) -> None:
    """A pass goes over all blocks at once: they become whole at its end, so whole ones alone would tell nothing."""
    await trio.lowlevel.checkpoint()
    files = {"1.mp4": random_bytes(9_000_000), "2.mp4": random_bytes(1000)}
    torrent = torrent_of(files, piece_length=1 << 20)
    layout, engine = Layout(torrent), Engine()
    assert len(layout.sizes) == 3
    order = ReadOrder(folder=str(tmp_path), anchor=b"", sender=NATION, address="232.20.1.1", port=1,
                      interface="lo", source="", quota_bytes=5)  # fmt: skip
    receiver = DatacastReceiver(order, DataPaths(tmp_path), Division("441900003005"), spool=None, engine=engine,
                                replicator=None, look=print, has_parents=True)  # type: ignore[arg-type] # fmt: skip
    assert receiver.quota_bytes == 5
    assert receiver.gathered == {}
    on_air = msgspec.structs.replace(entry(OPERA, 0, 1, 2), infohash=torrent.infohash)
    content = receiver_module._Content(on_air, torrent, {}, layout)
    receiver._contents[torrent.infohash] = content

    def part() -> tuple[int, int, int]:
        found = receiver.gathered[torrent.infohash]
        return found.blocks_done, found.blocks, round(found.progress * 9_001_000)

    assert part() == (0, 3, 0)
    receiver._counts = {on_air.toi: 1000, on_air.toi + 2: 100_000}
    assert part() == (0, 3, 1000 * SYMBOL_BYTES + layout.sizes[2])
    # What the engine has counts once, however many symbols of it lie in the spool.
    engine.pieces = PieceSet.of(torrent.piece_count, range(4))
    assert part() == (1, 3, layout.sizes[0] + layout.sizes[2])
    content.handed[2] = 0.0
    assert part() == (2, 3, layout.sizes[0] + layout.sizes[2])
    engine.pieces = PieceSet.full(torrent.piece_count)
    assert part() == (3, 3, 9_001_000)


# Sending in the foreground: what is refused before anything is sent.


@pytest.fixture
def configured(tmp_path: Path) -> DataPaths:
    paths = DataPaths(tmp_path / "data")
    paths.root.mkdir()
    text = new_config(Division(NATION), swarm="127.0.0.1:7441", networks=["127.0.0.0/8"])
    write_config(paths.config, text)
    return paths


WHERE = ("--interface", "lo", "--source", "127.0.0.1")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "--all"),
        (("x", "--all", *WHERE), "--all"),
        (("--all",), "[cast]"),
        (("--all", "--interface", "lo"), "--source"),
        (("--all", "--interface", "lo", "--source", "here"), "--source"),
        (("--all", "--interface", "lo", "--source", "::1"), "--source"),
        (("--all", *WHERE, "--group", "10.0.0.1:7450"), "--group"),
        (("--all", *WHERE, "--group", "232.20.1.1"), "--group"),
        (("--all", *WHERE, "--rate", "63"), "--rate"),
        (("--all", *WHERE, "--hops", "0"), "--hops"),
    ],
)
def test_a_wrong_wish_to_send_gets_one_line(
    configured: DataPaths,
    arguments: tuple[str, ...],
    said: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    code = run(["datacast", "send", *arguments, "--data", str(configured.root)])
    out, err = capsys.readouterr()
    assert (code, out) == (Fault.USAGE.value, "")
    assert said in err
    assert err.count("\n") == 1
    assert err.endswith("(usage.bad-command-line)\n")


def test_where_the_daemon_runs_it_is_the_one_that_sends(
    configured: DataPaths, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(send, "is_installed", lambda: True)
    with hold_data_directory(configured):
        code = run(["datacast", "send", "--all", *WHERE, "--data", str(configured.root)])
    err = capsys.readouterr().err
    assert code == Fault.SYSTEM.value
    assert "[cast]" in err
    assert err.endswith("(datacast.daemon-runs)\n")
    assert err.count("\n") == 1


def test_without_raptorq_one_line_says_how_to_install_it(
    configured: DataPaths, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(send, "is_installed", lambda: False)
    code = run(["datacast", "send", "--all", *WHERE, "--data", str(configured.root)])
    err = capsys.readouterr().err
    assert code == Fault.SYSTEM.value
    assert "pip install 'cuntong[datacast]'" in err
    assert err.endswith("(datacast.not-installed)\n")


@pytest.mark.parametrize(
    ("identifiers", "code"),
    [
        ((OPERA.listing.id,), "datacast.not-held"),
        ((SECRET.listing.id,), "datacast.restricted"),
        (("nothing",), "catalogue.unknown-bundle"),
        ((), "datacast.nothing-to-cast"),
    ],
)
def test_what_may_not_be_cast_is_refused_by_name(
    tmp_path: Path, identifiers: tuple[str, ...], code: str
) -> None:
    database = Database(tmp_path / "state.sqlite")
    try:
        catalogue = Catalogue(database.connection)
        fill(catalogue, BUNDLES)
        with pytest.raises(CuntongError) as caught:
            send._choose(Lineup(), catalogue, identifiers)
    finally:
        database.close()
    assert caught.value.code == code
    assert isinstance(caught.value, DatacastError) or code.startswith("catalogue.")


def test_all_texts_of_the_commands_fit_and_are_there() -> None:
    group = datacast_commands.datacast
    for name in ["", *group.list_commands(click.Context(group))]:
        context = click.Context(group, info_name="cuntong datacast")
        command = group.get_command(context, name) if name else group
        assert command is not None
        inner = click.Context(command, info_name=f"cuntong datacast {name}".rstrip())
        inner.formatter_class = output.WideHelpFormatter
        page = command.get_help(inner)
        assert max(cell_len(line) for line in page.splitlines()) <= 80, page
        assert command.help
        for option in command.params:
            if isinstance(option, click.Option):
                assert option.help, (name, option.name)

"""The bandwidth service between real policies and an engine and neighbours that only listen."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

import pytest
import trio
from trio.testing import MockClock

from cuntong_daemon.bandwidth import Bandwidth
from cuntong_daemon.clock import NodeClock
from cuntong_daemon.config import parse_config
from cuntong_daemon.paths import DataPaths
from cuntong_daemon.policy.calendar import Rule
from cuntong_daemon.policy.peers import may_trade
from cuntong_daemon.said import PersonsLimits
from cuntong_daemon.services import running
from cuntong_daemon.swarm.events import Totals
from cuntong_protocol.divisions import Division
from cuntong_protocol.link.messages import Bandwidth as Said
from cuntong_protocol.link.states import Role

COUNTY, VILLAGE = Division("441900000000"), Division("441900003005")


@dataclass
class Engine:
    """Remembers what it was told."""

    up_bytes_s: int = 0
    relay: Any = None
    is_paused: bool = False
    limits: tuple[int, int] = (0, 0)
    link: int = 0
    parent: str = ""
    target_ms: int = 0
    hosts: dict[str, int] = field(default_factory=dict)

    @property
    def totals(self) -> Totals:
        return Totals(up_wire=int(self.up_bytes_s * trio.current_time()))

    def pause(self) -> None:
        self.is_paused = True

    def resume(self) -> None:
        self.is_paused = False

    def set_limits(self, *, down_bytes_s: int, up_bytes_s: int) -> None:
        self.limits = (down_bytes_s, up_bytes_s)

    def set_link(self, *, down_bytes_s: int, parent: str) -> None:
        self.link, self.parent = down_bytes_s, parent

    def set_target_delay(self, milliseconds: int) -> None:
        self.target_ms = milliseconds

    def limit_host(self, host: str, bytes_s: int | None) -> None:
        if bytes_s is None:
            self.hosts.pop(host, None)
        else:
            self.hosts[host] = bytes_s


@dataclass(eq=False)
class Session:
    peer_role: Role
    peer_code: Division = VILLAGE
    peer_host: str = "10.0.0.5"
    is_open: bool = True
    said: list[Said] = field(default_factory=list)

    def say_bandwidth(self, message: Said) -> None:
        self.said.append(message)


@dataclass
class Child:
    session: Session
    wants: dict[bytes, object] = field(default_factory=dict)


@dataclass
class Neighbours:
    parent: Session | None = None
    children: dict[Division, Child] = field(default_factory=dict)
    is_scarce: bool = False
    settled_at: float = float("-inf")

    def set_uplink_scarce(self, *, is_scarce: bool) -> None:
        self.is_scarce = is_scarce

    def settle(self, now: float) -> None:
        self.settled_at = now

    def trades(self, place: Division) -> bool:
        return may_trade(place, "mesh", is_uplink_scarce=self.is_scarce)


@dataclass
class Place:
    service: Bandwidth
    engine: Engine
    around: Neighbours

    async def settle(self, seconds: float = 3) -> None:
        await trio.sleep(seconds)

    def connect_parent(self) -> Session:
        parent = Session(Role.PARENT, COUNTY)
        self.around.parent = parent
        self.service.on_parent(cast("Any", parent))
        return parent

    def hear(self, peer: Session, message: Said) -> None:
        self.service.on_said(cast("Any", peer), message)

    def connect_villages(self, count: int) -> list[Session]:
        """Villages with 512 kbit/s that want something."""
        sessions = []
        for number in range(count):
            code = Division(f"4419000030{number + 10}")
            session = Session(Role.CHILD, code, f"10.0.1.{number}")
            self.around.children[code] = Child(session, {b"x" * 32: object()})
            self.hear(session, says(link=64_000))
            sessions.append(session)
        return sessions


Begin = Callable[..., AbstractAsyncContextManager[Place]]


@pytest.fixture
def begin(tmp_path: Path) -> Begin:
    """Runs the service with these lines in `[bandwidth]` and `[node]`."""

    @asynccontextmanager
    async def place(bandwidth: str = "", node: str = "") -> AsyncIterator[Place]:
        text = f'[node]\ncode = "441900003000"\n{node}[bandwidth]\n{bandwidth}'
        config = parse_config(text.encode(), file="config.toml")
        engine, around = Engine(), Neighbours()
        service = Bandwidth(
            config,
            clock=NodeClock(),
            engine=cast("Any", engine),
            neighbours=cast("Any", around),
            person=PersonsLimits(DataPaths(tmp_path), config.bandwidth.zone),
        )
        async with running(service):
            yield Place(service, engine, around)

    return place


def says(*, down: int = 0, link: int = 0, paused: bool = False, seconds: int = 0) -> Said:
    return Said(link, link, down, 0, paused, seconds)


async def test_a_person_s_pause_stops_the_engine_at_once_and_resume_goes_on(
    begin: Begin, autojump_clock: MockClock
) -> None:
    async with begin() as made:
        made.service.person.pause()
        made.service.look()
        await made.settle(0.5)
        assert made.engine.is_paused
        assert made.service.status().is_paused
        made.service.person.resume(datetime.now(UTC))
        made.service.look()
        await made.settle(0.5)
        assert not made.engine.is_paused


async def test_what_the_parent_says_holds_for_its_seconds_and_not_longer(
    begin: Begin, autojump_clock: MockClock
) -> None:
    async with begin() as made:
        parent = made.connect_parent()
        made.hear(parent, says(down=20_000, seconds=60))
        await made.settle()
        assert made.engine.limits[0] == 20_000
        await made.settle(100)
        assert made.engine.limits[0] == 0


async def test_a_parent_that_is_gone_says_nothing_any_more(
    begin: Begin, autojump_clock: MockClock
) -> None:
    async with begin() as made:
        parent = made.connect_parent()
        made.hear(parent, says(paused=True))
        await made.settle()
        assert made.engine.is_paused
        made.around.parent = None
        await made.settle()
        assert not made.engine.is_paused


async def test_the_parent_is_told_of_the_link_once_and_again_when_it_changes(
    begin: Begin, autojump_clock: MockClock
) -> None:
    async with begin("link_down_kbit_s = 512\nlink_up_kbit_s = 128\ndown_kbit_s = 400\n") as made:
        parent = made.connect_parent()
        await made.settle(10)
        assert [(one.link_down_bytes_s, one.limit_down_bytes_s) for one in parent.said] == [
            (64_000, 50_000)
        ]
        made.service.person.limit(Rule(down_bytes_s=10_000))
        made.service.look()
        await made.settle()
        assert parent.said[-1].limit_down_bytes_s == 10_000


async def test_a_child_s_own_limit_and_that_for_places_below_are_kept_for_its_address(
    begin: Begin, autojump_clock: MockClock
) -> None:
    child = Session(Role.CHILD)
    async with begin("up_kbit_s_per_child = 400\n") as made:
        made.around.children[VILLAGE] = Child(child)
        made.service.on_child(cast("Any", child))
        await made.settle()
        assert made.engine.hosts == {"10.0.0.5": 50_000}
        assert child.said[-1].limit_down_bytes_s == 50_000
        made.hear(child, says(down=8_000, link=64_000))
        await made.settle()
        assert made.engine.hosts == {"10.0.0.5": 8_000}
        assert made.engine.target_ms == 40
        assert [one.limit_kbit_s for one in made.service.status().children] == [64]
        del made.around.children[VILLAGE]
        await made.settle()
        assert made.engine.hosts == {}


async def test_a_thin_uplink_in_a_mesh_lets_villages_help_each_other(
    begin: Begin, autojump_clock: MockClock
) -> None:
    link = "link_up_kbit_s = 2000\nshared = false\n"
    async with begin(link, node='vpn_shape = "mesh"\n') as made:
        made.connect_villages(20)
        await made.settle()
        assert made.around.is_scarce
        made.around.children.clear()
        await made.settle()
        assert not made.around.is_scarce


async def test_in_a_hub_a_thin_uplink_is_shared_out_and_told(
    begin: Begin, autojump_clock: MockClock
) -> None:
    link = "link_up_kbit_s = 2000\nshared = false\n"
    async with begin(link, node='vpn_shape = "hub"\n') as made:
        sessions = made.connect_villages(10)
        await made.settle()
        assert [one.said[-1].limit_down_bytes_s for one in sessions] == [24_000] * 10
        assert all(one.said[-1].reason.code == "bandwidth.shared-out" for one in sessions)
        for session in sessions[1:]:
            made.around.children[session.peer_code].wants.clear()
        await made.settle()
        assert [one.said[-1].limit_down_bytes_s for one in sessions] == [0] * 10, "enough for one"


async def test_places_that_leave_their_share_let_others_have_it(
    begin: Begin, autojump_clock: MockClock
) -> None:
    link = "link_up_kbit_s = 2000\nshared = false\n"
    async with begin(link, node='vpn_shape = "hub"\n') as made:
        sessions = made.connect_villages(10)
        await made.settle(30)
        assert sessions[0].said[-1].limit_down_bytes_s == 24_000, "nothing is here that they want"
        made.engine.up_bytes_s = 120_000
        await made.settle(60)
        shares = [one.said[-1].limit_down_bytes_s for one in sessions]
        assert min(shares) > 30_000
        assert len(sessions[0].said) < 50, "small changes aren't told"


async def test_places_that_trade_are_told_no_share(begin: Begin, autojump_clock: MockClock) -> None:
    """It would hold for what their siblings send them, too."""
    async with begin("link_up_kbit_s = 2000\nshared = false\n", node='vpn_shape = "hub"\n') as made:
        sessions = [Session(Role.CHILD, Division(f"4{number}0000000000")) for number in (1, 2, 3)]
        for session in sessions:
            made.around.children[session.peer_code] = Child(session, {b"x" * 32: object()})
            made.hear(session, says(link=1_000_000))
        await made.settle()
        assert not any(one.said for one in sessions)

"""What children have and want, and whom they are introduced to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import pytest

from cuntong_daemon import neighbours
from cuntong_daemon.clock import NodeClock
from cuntong_daemon.neighbours import UNSETTLED_S, Neighbours
from cuntong_daemon.paths import DataPaths
from cuntong_daemon.trust.spool import Spool
from cuntong_protocol.divisions import Division
from cuntong_protocol.link.messages import LINK_VERSION, HaveItem, HaveState, Hello, PeerAddress
from cuntong_protocol.link.states import Role

COUNTY = Division("441827000000")
TOWNSHIP = Division("441827101000")
VILLAGE = Division("441827101001")
OTHER_VILLAGE = Division("441827101002")
ONE, TWO = b"1" * 32, b"2" * 32
OWN = PeerAddress("10.0.0.1", 7441)


@dataclass
class Session:
    """As much of a link as neighbours use."""

    peer_code: Division
    peer_host: str
    peer_role: Role = Role.CHILD
    local_host: str = OWN.ip
    is_open: bool = True
    said: list[tuple[bytes, list[PeerAddress]]] = field(default_factory=list)

    @property
    def hello(self) -> Hello:
        return Hello(LINK_VERSION, self.peer_code, "test", self.peer_code.tier.label, 7441)

    def introduce(self, infohash: bytes, peers: Sequence[PeerAddress]) -> None:
        self.said.append((infohash, list(peers)))


class Deaf:
    """Keeper and listener that do nothing with what they hear."""

    def __getattr__(self, name: str) -> Any:
        return lambda *_arguments: None


@pytest.fixture
def around(tmp_path: Path) -> Neighbours:
    made = Neighbours(
        COUNTY,
        vpn_shape="hub",
        clock=NodeClock(),
        spool=Spool(DataPaths(tmp_path), own=COUNTY),
        swarm_ports=lambda: (7441, 7442),
    )
    made.attach(keeper=cast("Any", Deaf()), listener=cast("Any", Deaf()), server=None)
    return made


def connect(around: Neighbours, code: Division, host: str) -> Session:
    session = Session(code, host)
    around.on_connected(cast("Any", session))
    return session


def tell(around: Neighbours, session: Session, state: HaveState, permille: int = 0) -> None:
    around.on_status(cast("Any", session), [HaveItem(ONE, state, permille)])


def test_village_is_introduced_to_its_county_but_not_to_another_village(around: Neighbours) -> None:
    around.set_swarms({ONE: 1.0})
    other = connect(around, OTHER_VILLAGE, "10.0.0.3")
    tell(around, other, HaveState.COMPLETE, 1000)
    village = connect(around, VILLAGE, "10.0.0.2")
    tell(around, village, HaveState.WANTED)
    assert village.said == [(ONE, [OWN])]
    assert not other.said
    assert around.wanted_below() == {ONE}
    assert around.holders_below(ONE) == [PeerAddress("10.0.0.3", 7441)]


def test_village_that_fell_back_learns_of_its_township_when_that_has_the_bundle(
    around: Neighbours,
) -> None:
    village = connect(around, VILLAGE, "10.0.0.2")
    tell(around, village, HaveState.WANTED)
    assert not village.said
    township = connect(around, TOWNSHIP, "10.0.0.4")
    tell(around, township, HaveState.PARTIAL, 300)
    assert village.said == [(ONE, [PeerAddress("10.0.0.4", 7441)])]


def city_of(folder: Path) -> Neighbours:
    made = Neighbours(
        Division("441800000000"),
        vpn_shape="hub",
        clock=NodeClock(),
        spool=Spool(DataPaths(folder), own=Division("441800000000")),
        swarm_ports=lambda: (7441, 7442),
    )
    made.attach(keeper=cast("Any", Deaf()), listener=cast("Any", Deaf()), server=None)
    return made


def test_counties_trade_with_each_other(tmp_path: Path) -> None:
    city = city_of(tmp_path)
    one = connect(city, COUNTY, "10.0.0.5")
    tell(city, one, HaveState.WANTED)
    two = connect(city, Division("441826000000"), "10.0.0.6")
    tell(city, two, HaveState.PARTIAL, 100)
    city.settle(0.0)
    city.settle(0.5)
    assert not one.said, "another one may come"
    city.settle(1.5)
    assert (one.said, two.said) == ([], [(ONE, [PeerAddress("10.0.0.5", 7441)])])
    tell(city, two, HaveState.COMPLETE, 1000)
    city.settle(2.0)
    city.settle(3.0)
    assert one.said == [(ONE, [PeerAddress("10.0.0.6", 7441)])], "two dials nobody any more"


def test_a_sibling_that_leaves_is_replaced(tmp_path: Path) -> None:
    city = city_of(tmp_path)
    sessions = {
        number: connect(city, Division(f"4418{number}000000"), f"10.0.0.{number}")
        for number in range(21, 40)
    }
    for session in sessions.values():
        tell(city, session, HaveState.WANTED)
    city.settle(0.0)
    city.settle(1.0)
    dialled = {
        number: [peer.ip for peer in one.said[-1][1]]
        for number, one in sessions.items()
        if one.said
    }
    gone = next(
        number for number in sessions if any(f"10.0.0.{number}" in ips for ips in dialled.values())
    )
    city.on_disconnected(cast("Any", sessions.pop(gone)))
    city.settle(2.0)
    city.settle(3.0)
    left = [peer.ip for one in sessions.values() if one.said for peer in one.said[-1][1]]
    assert f"10.0.0.{gone}" not in left
    assert len(set(left)) > 1


def test_siblings_that_come_without_end_are_introduced_all_the_same(tmp_path: Path) -> None:
    city = city_of(tmp_path)
    sessions = [connect(city, COUNTY, "10.0.0.5")]
    tell(city, sessions[0], HaveState.WANTED)

    def any_said() -> bool:
        return any(one.said for one in sessions)

    for second in range(8):
        newcomer = connect(city, Division(f"4418{40 + second}000000"), f"10.0.0.{40 + second}")
        sessions.append(newcomer)
        tell(city, newcomer, HaveState.WANTED)
        city.settle(float(second))
        assert bool(any_said()) == (second >= UNSETTLED_S)


def test_new_swarm_is_told_to_those_who_wait_for_it(around: Neighbours) -> None:
    village = connect(around, VILLAGE, "10.0.0.2")
    tell(around, village, HaveState.WANTED)
    around.set_swarms({TWO: 0.0})
    assert not village.said
    around.set_swarms({TWO: 0.5, ONE: 0.1})
    around.set_swarms({TWO: 0.6, ONE: 0.2})
    assert village.said == [(ONE, [OWN])]


def test_child_that_lost_a_piece_is_introduced_again(around: Neighbours) -> None:
    around.set_swarms({ONE: 1.0})
    village = connect(around, VILLAGE, "10.0.0.2")
    tell(around, village, HaveState.WANTED)
    tell(around, village, HaveState.COMPLETE, 1000)
    assert around.children[VILLAGE].bundles_done == 1
    assert not around.wanted_below()
    tell(around, village, HaveState.PARTIAL, 990)
    assert around.children[VILLAGE].bundles_done == 0
    assert village.said == [(ONE, [OWN])] * 2


def test_bundle_that_is_gone_is_neither_had_nor_wanted(around: Neighbours) -> None:
    village = connect(around, VILLAGE, "10.0.0.2")
    tell(around, village, HaveState.COMPLETE, 1000)
    tell(around, village, HaveState.GONE)
    assert around.children[VILLAGE].bundles_done == 0
    assert not around.holders_below(ONE)
    tell(around, village, HaveState.WANTED)
    tell(around, village, HaveState.GONE)
    assert not around.wanted_below()


def test_child_that_claims_without_end_is_not_remembered_without_end(
    around: Neighbours, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(neighbours, "MAX_NUMBERED", 10)
    monkeypatch.setattr(neighbours, "MAX_WANTED_BY_A_CHILD", 10)
    village = connect(around, VILLAGE, "10.0.0.2")
    for state in (HaveState.COMPLETE, HaveState.WANTED):
        items = [HaveItem(bytes([number]) * 32, state, 0) for number in range(100)]
        around.on_status(cast("Any", village), items)
        child = around.children[VILLAGE]
        assert child.bundles_done + len(child.wants) == 10


def test_a_thousand_places_with_thousands_of_bundles_are_introduced_bit_by_bit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    city = city_of(tmp_path)
    looked_at = 0
    group = city._group

    def count(infohash: bytes) -> None:
        nonlocal looked_at
        looked_at += len(city.children)
        group(infohash)

    monkeypatch.setattr(city, "_group", count)
    bundles = [number.to_bytes(32, "big") for number in range(2_000)]
    for number in range(10):
        session = connect(city, Division(f"4418{20 + number}000000"), f"10.0.0.{number}")
        items = [HaveItem(bundle, HaveState.WANTED, 0) for bundle in bundles]
        city.on_status(cast("Any", session), items)
    city.settle(0.0)
    for second in range(1, 9):
        before = looked_at
        city.settle(float(second))
        assert looked_at - before <= neighbours.GROUPED_AT_ONCE
    assert looked_at == 10 * len(bundles), "and all of them in the end"


def test_a_child_that_comes_again_before_its_old_link_has_ended_leaves_nothing_behind(
    tmp_path: Path,
) -> None:
    city = city_of(tmp_path)
    old = connect(city, COUNTY, "10.0.0.5")
    tell(city, old, HaveState.WANTED)
    for second in (0.0, 1.0):
        city.settle(second)
    assert city._partners
    new = connect(city, COUNTY, "10.0.0.5")
    city.on_disconnected(cast("Any", old))
    for second in (2.0, 3.0):
        city.settle(second)
    assert not city._partners
    assert list(city.children) == [COUNTY]
    assert city.children[COUNTY].session is cast("Any", new)


def test_villages_that_may_not_trade_cost_nothing(around: Neighbours) -> None:
    for number in range(3):
        village = connect(around, Division(f"44182710100{number + 1}"), f"10.0.0.{number}")
        tell(around, village, HaveState.WANTED)
    assert not around._unsettled

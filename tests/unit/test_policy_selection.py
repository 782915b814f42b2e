"""What a node wants: each reason once, with the case that an operator would ask about."""

from __future__ import annotations

import datetime as dt
from dataclasses import replace
from typing import Any, Literal

import pytest

from cuntong_daemon.policy.eviction import Held, evict
from cuntong_daemon.policy.peers import Holder, introductions
from cuntong_daemon.policy.selection import Candidate, NodeProfile, judge, select
from cuntong_protocol.bundle.metadata import Audience, Licence
from cuntong_protocol.divisions import Division

TODAY = dt.date(2027, 3, 5)
YESTERDAY = dt.date(2027, 3, 4)
NATION = Division("000000000000")
GUANGDONG = Division("440000000000")
DONGGUAN = Division("441900000000")
SHIPAI = Division("441900003000")
VILLAGE = Division("441900003005")
COUNTY = Division("442301000000")


def bundle(**changes: Any) -> Candidate:
    plain = Candidate(
        id="000000000000/202703/a",
        publisher=NATION,
        category="opera/film",
        languages=("zh-Hans",),
        audience=Audience(),
        licence=Licence(),
        priority=5,
        size_bytes=100,
        remaining_bytes=100,
    )
    return replace(plain, **changes)


def profile(code: Division = VILLAGE, **changes: Any) -> NodeProfile:
    return NodeProfile(code, **changes)


@pytest.mark.parametrize(
    ("candidate", "node", "is_ordered", "wanted", "code"),
    [
        (bundle(), profile(), False, True, "audience"),
        (bundle(is_withdrawn=True), profile(), True, False, "withdrawn"),
        (bundle(licence=Licence(until=YESTERDAY)), profile(), True, False, "licence-expired"),
        (bundle(licence=Licence(until=TODAY)), profile(), False, True, "audience"),
        # A licence for another place can't be overridden by an order.
        (
            bundle(licence=Licence(kind="restricted", scope=("4401",))),
            profile(),
            True,
            False,
            "licence-scope",
        ),
        (
            bundle(licence=Licence(kind="restricted", scope=("4419",))),
            profile(),
            False,
            True,
            "audience",
        ),
        # The province may carry what its city may hold, and its publisher may always keep it.
        (
            bundle(licence=Licence(kind="restricted", scope=("4419",))),
            profile(GUANGDONG),
            False,
            True,
            "audience",
        ),
        (
            bundle(publisher=COUNTY, licence=Licence(kind="restricted", scope=("442302",))),
            profile(COUNTY),
            False,
            True,
            "own",
        ),
        # Whoever promotes it: a place that isn't below the publisher could not join its swarm.
        (
            bundle(publisher=COUNTY, licence=Licence(kind="restricted", scope=("4423",))),
            profile(GUANGDONG),
            True,
            False,
            "licence-scope",
        ),
        (bundle(audience=Audience(tiers=("county",))), profile(), False, False, "other-tier"),
        (bundle(audience=Audience(tiers=("county",))), profile(), True, True, "ordered"),
        (bundle(audience=Audience(scope=("4401",))), profile(), False, False, "other-place"),
        (bundle(audience=Audience(groups=("schools",))), profile(), False, False, "other-group"),
        (
            bundle(audience=Audience(groups=("schools",))),
            profile(groups=("schools",)),
            False,
            True,
            "audience",
        ),
        (bundle(), profile(categories=("book",)), False, False, "category"),
        (bundle(), profile(categories=("opera",)), False, True, "audience"),
        (bundle(), profile(categories=("oper",)), False, False, "category"),
        (bundle(), profile(publishers=("4419",)), False, False, "publisher"),
        (bundle(), profile(languages=("bo",)), False, False, "language"),
        (bundle(), profile(languages=("zh",)), False, True, "audience"),
        (bundle(languages=("zh",)), profile(languages=("zh-Hant",)), False, True, "audience"),
        # What places below are to have is carried, whatever this place subscribes to.
        (bundle(audience=Audience(tiers=("village",))), profile(SHIPAI), False, True, "carried"),
        (
            bundle(audience=Audience(scope=("441900003",))),
            profile(DONGGUAN),
            False,
            True,
            "carried",
        ),
        (
            bundle(audience=Audience(scope=("4401",))),
            profile(DONGGUAN),
            False,
            False,
            "other-place",
        ),
        (bundle(), profile(DONGGUAN, categories=("book",)), False, True, "carried"),
        (
            bundle(audience=Audience(tiers=("city",))),
            profile(DONGGUAN, categories=("book",)),
            False,
            False,
            "category",
        ),
    ],
)
def test_a_bundle_is_wanted_or_not_for_one_reason(
    candidate: Candidate, node: NodeProfile, is_ordered: bool, wanted: bool, code: str
) -> None:
    decided, reason = judge(candidate, node, is_ordered=is_ordered, today=TODAY)
    assert (decided, reason.code) == (wanted, f"selection.{code}")
    assert str(reason).endswith(".")


def test_what_a_place_below_asked_for_is_fetched_for_it() -> None:
    other = bundle(audience=Audience(tiers=("city",), groups=("schools",)))
    assert not select([other], profile(SHIPAI), (), quota_bytes=0, today=TODAY)
    (decision,) = select(
        [other], profile(SHIPAI), (), needed_below={other.id}, quota_bytes=0, today=TODAY
    )
    assert (decision.wanted, decision.reason.code) == (True, "selection.needed-below")
    forbidden = bundle(licence=Licence(kind="restricted", scope=("4401",)))
    assert not select(
        [forbidden], profile(SHIPAI), (), needed_below={other.id}, quota_bytes=0, today=TODAY
    )


def test_the_queue_goes_by_priority_then_deadline_then_size() -> None:
    queue = [
        bundle(id="urgent", priority=9, remaining_bytes=900),
        bundle(id="soon", deadline=dt.date(2027, 4, 1), remaining_bytes=800),
        bundle(id="later", deadline=dt.date(2027, 5, 1), remaining_bytes=10),
        bundle(id="small", remaining_bytes=50),
        bundle(id="large", remaining_bytes=60),
        bundle(id="bulk", priority=0, deadline=TODAY),
    ]
    decisions = select(reversed(queue), profile(), (), quota_bytes=0, today=TODAY)
    assert [decision.id for decision in decisions] == [candidate.id for candidate in queue]
    assert [decision.order for decision in decisions] == list(range(6))


def test_what_is_held_is_never_pushed_out_and_what_fits_is_not_held_up() -> None:
    decisions = select(
        [
            bundle(id="held", priority=0, size_bytes=60, is_held=True),
            bundle(id="too-big", priority=9, size_bytes=50),
            bundle(id="fits", priority=1, size_bytes=40),
            bundle(id="gone", is_held=True, is_withdrawn=True, size_bytes=1000),
        ],
        profile(),
        (),
        quota_bytes=100,
        today=TODAY,
    )
    assert [(d.id, d.wanted, d.reason.code) for d in decisions] == [
        ("fits", True, "selection.audience"),
        ("held", True, "selection.audience"),
        ("too-big", False, "selection.no-room"),
        ("gone", False, "selection.withdrawn"),
    ]


def test_what_may_not_be_held_goes_first_and_at_once() -> None:
    held = [
        Held("unused-long", 10, used_at=1),
        Held("superseded", 10, is_superseded=True),
        Held("expired", 10, licence_until=YESTERDAY, is_needed_below=True, is_wanted=True),
        Held("withdrawn", 10, is_withdrawn=True, is_needed_below=True, is_wanted=True),
        Held("unused-short", 10, used_at=2),
        Held("wanted", 10, is_wanted=True),
        Held("needed", 10, is_superseded=True, is_needed_below=True),
        Held("lasts", 10, licence_until=TODAY, is_wanted=True),
    ]
    assert [e.key for e in evict(held, needed_bytes=0, today=TODAY)] == ["withdrawn", "expired"]
    assert [e.key for e in evict(held, needed_bytes=31, today=TODAY)] == [
        "withdrawn",
        "expired",
        "superseded",
        "unused-long",
    ]
    everything = evict(held, needed_bytes=1000, today=TODAY)
    assert {e.key for e in everything}.isdisjoint({"wanted", "needed", "lasts"})


def holders(*codes: Division, done: float = 1.0) -> list[Holder]:
    return [Holder(code, f"10.0.0.{number}:7441", done) for number, code in enumerate(codes, 1)]


def test_parents_come_first_nearest_first() -> None:
    found = introductions(
        VILLAGE, 0, "b", holders(NATION, SHIPAI, GUANGDONG, DONGGUAN), vpn_shape="hub"
    )
    assert [peer.code for peer in found] == [SHIPAI, DONGGUAN]


def test_of_two_siblings_with_a_part_one_dials() -> None:
    hunan = Division("430000000000")

    def is_introduced(asker: Division, has: float, other: Division, done: float) -> bool:
        return bool(introductions(asker, has, "b", holders(other, done=done), vpn_shape="mesh"))

    assert is_introduced(hunan, 0.5, GUANGDONG, 0.5)
    assert not is_introduced(GUANGDONG, 0.5, hunan, 0.5)
    assert is_introduced(GUANGDONG, 0.0, hunan, 0.5), "nobody dials one that has nothing"
    assert is_introduced(GUANGDONG, 0.5, hunan, 1.0), "nor does one that has all dial"


@pytest.mark.parametrize("shape", ["hub", "mesh"])
def test_provinces_cities_and_counties_trade(shape: Any) -> None:
    found = introductions(
        GUANGDONG, 0.5, "b", holders(Division("430000000000"), NATION), vpn_shape=shape
    )
    assert [peer.code for peer in found] == [NATION, Division("430000000000")]
    assert found[1].reason.code == "peers.sibling"
    neighbour = Division("442302000000")
    assert [p.code for p in introductions(COUNTY, 0, "b", holders(neighbour), vpn_shape=shape)] == [
        neighbour
    ]


def test_villages_meet_only_in_a_mesh_below_a_scarce_uplink() -> None:
    other = Division("441900003006")
    shapes: tuple[Literal["hub", "mesh"], ...] = ("hub", "mesh")
    for shape in shapes:
        for scarce in (False, True):
            found = introductions(
                VILLAGE,
                0,
                "b",
                holders(other),
                vpn_shape=shape,
                is_uplink_scarce=scarce,
            )
            assert bool(found) == (shape == "mesh" and scarce)


def test_townships_trade_only_in_a_mesh_with_a_scarce_uplink_above() -> None:
    other = holders(Division("441900004000"))
    assert introductions(SHIPAI, 0, "b", other, vpn_shape="mesh", is_uplink_scarce=True)
    assert not introductions(SHIPAI, 0, "b", other, vpn_shape="mesh")
    assert not introductions(SHIPAI, 0, "b", other, vpn_shape="hub", is_uplink_scarce=True)


def test_who_has_all_or_asks_about_a_sibling_with_nothing_gets_nobody() -> None:
    assert not introductions(VILLAGE, 1.0, "b", holders(SHIPAI), vpn_shape="hub")
    empty = holders(Division("430000000000"), done=0)
    assert not introductions(GUANGDONG, 0, "b", empty, vpn_shape="mesh")


def test_askers_are_spread_over_siblings() -> None:
    provinces = [Division(f"{number}0000000000") for number in range(11, 44)]
    chosen = {
        peer.code
        for asker in provinces
        for peer in introductions(asker, 0, "b", holders(*provinces), vpn_shape="mesh")
    }
    assert len(chosen) > len(provinces) // 2

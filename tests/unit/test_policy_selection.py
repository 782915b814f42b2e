"""What a node wants: each reason once, with the case that an operator would ask about."""

from __future__ import annotations

import datetime as dt
from dataclasses import replace
from typing import Any

import pytest

from cuntong_daemon.policy.eviction import Held, evict
from cuntong_daemon.policy.peers import CIRCLES, introductions, may_trade, partners_of
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
HUNAN = Division("430000000000")
OTHER_VILLAGE = Division("441900003006")


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


def test_parents_come_first_nearest_first() -> None:
    found = introductions(VILLAGE, 0, [NATION, SHIPAI, GUANGDONG, DONGGUAN], [OTHER_VILLAGE])
    assert [peer.code for peer in found] == [SHIPAI, DONGGUAN, OTHER_VILLAGE]
    assert [peer.reason.code for peer in found] == ["peers.parent"] * 2 + ["peers.helper"]
    assert introductions(GUANGDONG, 0.5, [], [HUNAN])[0].reason.code == "peers.sibling"


def test_who_has_all_gets_nobody() -> None:
    assert not introductions(VILLAGE, 1.0, [SHIPAI], [OTHER_VILLAGE])


@pytest.mark.parametrize("shape", ["hub", "mesh"])
@pytest.mark.parametrize("is_scarce", [False, True])
def test_below_the_county_places_trade_only_in_a_mesh_with_a_scarce_uplink_above(
    shape: Any, *, is_scarce: bool
) -> None:
    for place in (GUANGDONG, COUNTY):
        assert may_trade(place, shape, is_uplink_scarce=is_scarce)
    for place in (SHIPAI, VILLAGE):
        assert may_trade(place, shape, is_uplink_scarce=is_scarce) == (
            shape == "mesh" and is_scarce
        )
    assert not may_trade(NATION, shape, is_uplink_scarce=is_scarce)


def test_of_two_siblings_one_dials() -> None:
    assert partners_of("b", {GUANGDONG: 0.5, HUNAN: 0.5}) == {GUANGDONG: [], HUNAN: [GUANGDONG]}
    assert partners_of("b", {GUANGDONG: 0.5, HUNAN: 1.0}) == {GUANGDONG: [HUNAN], HUNAN: []}
    assert partners_of("b", {GUANGDONG: 0.5}) == {GUANGDONG: []}
    assert not partners_of("b", {})


def test_those_who_trade_all_reach_each_other_in_few_steps_with_few_partners() -> None:
    places = [Division(f"4401010010{number:02}") for number in range(1, 61)]
    for bundle in ("a", "b", "c"):
        dialled = partners_of(bundle, dict.fromkeys(places, 0.0))
        partners: dict[Division, set[Division]] = {place: set() for place in places}
        for place, others in dialled.items():
            for other in others:
                assert place not in partners[other], "each pair once"
                partners[place].add(other)
                partners[other].add(place)
        assert all(CIRCLES <= len(others) <= 2 * CIRCLES for others in partners.values())
        reached, steps = {places[0]}, 0
        while len(reached) < len(places):
            reached |= {other for place in reached for other in partners[place]}
            steps += 1
        assert steps <= 5


def test_who_joins_late_changes_little() -> None:
    places = [Division(f"4401010010{number:02}") for number in range(1, 61)]
    before = partners_of("b", dict.fromkeys(places[:-1], 0.0))
    after = partners_of("b", dict.fromkeys(places, 0.0))
    assert sum(before[place] != after[place] for place in before) <= 2 * CIRCLES

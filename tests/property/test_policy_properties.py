"""Laws that every choice keeps, whatever the catalogue looks like."""

from __future__ import annotations

import datetime as dt

from hypothesis import given
from hypothesis import strategies as st

from cuntong_daemon.policy.eviction import Held, evict
from cuntong_daemon.policy.peers import CIRCLES, MAX_PARENTS, introductions, partners_of
from cuntong_daemon.policy.selection import Candidate, NodeProfile, judge, select
from cuntong_daemon.policy.uplink import fair_shares
from cuntong_protocol.bundle.metadata import Audience, Licence
from cuntong_protocol.divisions import TIER_LABELS, Division

TODAY = dt.date(2027, 3, 5)
PLACES = [
    Division(code)
    for code in (
        "000000000000",
        "440000000000",
        "430000000000",
        "441900000000",
        "442300000000",
        "442301000000",
        "442302000000",
        "442301001000",
        "442301002000",
        "442301001001",
        "442301001002",
        "441900003000",
        "441900003005",
    )
]
places = st.sampled_from(PLACES)
prefixes = st.lists(places.map(lambda place: place.prefix), max_size=2).map(tuple)
days = st.one_of(st.none(), st.dates(dt.date(2027, 3, 1), dt.date(2027, 3, 9)))
audiences = st.builds(
    Audience,
    tiers=st.lists(st.sampled_from(TIER_LABELS), max_size=2).map(tuple),
    scope=prefixes,
    groups=st.sampled_from([(), ("schools",)]),
)
licences = st.builds(Licence, scope=prefixes, until=days)
profiles = st.builds(
    NodeProfile,
    code=places,
    categories=st.sampled_from([(), ("opera",), ("book",)]),
    groups=st.sampled_from([(), ("schools",)]),
)
sizes = st.integers(0, 100)


@st.composite
def catalogues(draw: st.DrawFn) -> list[Candidate]:
    return [
        Candidate(
            id=f"{number:04}",
            publisher=draw(places),
            category=draw(st.sampled_from(["opera/film", "book"])),
            languages=("zh-Hans",),
            audience=draw(audiences),
            licence=draw(licences),
            priority=draw(st.integers(0, 9)),
            size_bytes=draw(sizes),
            remaining_bytes=draw(sizes),
            deadline=draw(days),
            is_held=draw(st.booleans()),
            is_withdrawn=draw(st.booleans()),
        )
        for number in range(draw(st.integers(0, 12)))
    ]


@given(catalogues(), profiles, st.integers(0, 400), st.sets(st.sampled_from(["0000", "0003"])))
def test_selection_keeps_its_laws(
    catalogue: list[Candidate], profile: NodeProfile, quota: int, orders: set[str]
) -> None:
    decisions = select(catalogue, profile, orders, quota_bytes=quota, today=TODAY)
    by_id = {candidate.id: candidate for candidate in catalogue}
    chosen = [by_id[decision.id] for decision in decisions if decision.wanted]
    # One decision a bundle, numbered without gaps.
    assert len({decision.id for decision in decisions}) == len(decisions)
    assert [d.order for d in decisions if d.wanted] == list(range(len(chosen)))
    # Nothing withdrawn or expired is fetched or kept, ordered or not.
    assert not any(item.is_withdrawn for item in chosen)
    assert all(item.licence.until is None or item.licence.until >= TODAY for item in chosen)
    # What is new fits beside what is held and wanted.
    new = [item for item in chosen if not item.is_held]
    if quota and new:
        assert sum(item.size_bytes for item in chosen) <= quota
    # Everything held is decided about; what judge refuses isn't chosen, what it wants is chosen or waits.
    decided = {decision.id: decision for decision in decisions}
    for candidate in catalogue:
        wanted, reason = judge(candidate, profile, is_ordered=candidate.id in orders, today=TODAY)
        assert not candidate.is_held or candidate.id in decided
        if wanted:
            assert decided[candidate.id].wanted or decided[candidate.id].reason.code == (
                "selection.no-room"
            )
            if candidate.is_held:
                assert decided[candidate.id].wanted
        elif candidate.id in decided:
            assert decided[candidate.id].reason == reason
    # The order of the catalogue plays no part.
    assert (
        select(catalogue[::-1], profile, orders, quota_bytes=quota, today=TODAY)[: len(chosen)]
        == decisions[: len(chosen)]
    )


@given(catalogues(), places)
def test_what_a_place_wants_its_parent_wants(catalogue: list[Candidate], place: Division) -> None:
    """Otherwise it could never get it (orders, which travel upwards, aside)."""
    if place.parent is None:
        return
    for candidate in catalogue:
        wanted, reason = judge(candidate, NodeProfile(place), is_ordered=False, today=TODAY)
        is_scoped = bool(candidate.licence.scope)
        if (
            not wanted
            or reason.code == "selection.own"
            or (
                is_scoped
                and not candidate.publisher.is_within(place.parent)
                and not place.parent.is_within(candidate.publisher)
            )
        ):
            continue
        above, why = judge(candidate, NodeProfile(place.parent), is_ordered=False, today=TODAY)
        assert above, (candidate, place, why)


held_items = st.lists(
    st.builds(
        Held,
        key=st.text(min_size=1, max_size=3),
        size_bytes=sizes,
        is_withdrawn=st.booleans(),
        licence_until=days,
        is_superseded=st.booleans(),
        is_wanted=st.booleans(),
        is_needed_below=st.booleans(),
        used_at=st.integers(0, 5),
    ),
    max_size=12,
    unique_by=lambda item: item.key,
)


@given(held_items, st.integers(0, 500))
def test_eviction_keeps_its_laws(held: list[Held], needed: int) -> None:
    evictions = evict(held, needed_bytes=needed, today=TODAY)
    items = {item.key: item for item in held}
    gone = [items[eviction.key] for eviction in evictions]
    assert len({item.key for item in gone}) == len(gone)

    def must(item: Held) -> bool:
        return item.is_withdrawn or (item.licence_until is not None and item.licence_until < TODAY)

    assert {item.key for item in held if must(item)} <= {item.key for item in gone}
    optional = [item for item in gone if not must(item)]
    assert not any(item.is_needed_below for item in optional)
    assert all(item.is_superseded or not item.is_wanted for item in optional)
    # No more than is needed: without the last optional one it would not have been enough.
    if optional:
        assert sum(item.size_bytes for item in gone[:-1]) < needed
    # Never fewer than before when more room is needed.
    more = evict(held, needed_bytes=needed + 1, today=TODAY)
    assert more[: len(evictions)] == evictions


@given(places, st.floats(0, 1), st.lists(places), st.lists(places))
def test_introductions_keep_their_laws(
    asker: Division, done: float, holders: list[Division], partners: list[Division]
) -> None:
    found = [peer.code for peer in introductions(asker, done, holders, partners)]
    if done >= 1:
        assert not found
        return
    parents = found[: len(found) - len(partners)]
    assert found[len(parents) :] == partners
    assert len(parents) <= MAX_PARENTS
    assert parents == sorted(parents, key=lambda place: place.tier, reverse=True)
    assert all(asker.is_below(parent) and parent in holders for parent in parents)


@given(st.text(), st.dictionaries(places, st.floats(0, 1)))
def test_partners_keep_their_laws(bundle: str, done: dict[Division, float]) -> None:
    found = partners_of(bundle, done)
    assert found.keys() == done.keys()
    pairs = [frozenset((one, other)) for one, others in found.items() for other in others]
    assert all(len(pair) == 2 for pair in pairs), "nobody dials itself"
    assert len(set(pairs)) == len(pairs), "one of two dials"
    for place, others in found.items():
        assert len(others) <= (CIRCLES if done[place] < 1 else 0)
    # All that lack something belong together, if not by each other then by those who have all.
    lacking = [place for place in done if done[place] < 1]
    if lacking and len(done) > 1:
        assert all(any(place in pair for pair in pairs) for place in lacking)


@given(st.floats(1, 1e9), st.lists(st.integers(1, 10**9), max_size=50))
def test_shares_of_an_uplink_keep_their_laws(up: float, wanted: list[int]) -> None:
    shares = fair_shares(up, wanted)
    assert sum(shares) <= up
    assert all(0 <= share <= want for share, want in zip(shares, wanted, strict=True))
    # Whoever gets less than it wants gets as much as anybody, to a byte or so.
    short = [share for share, want in zip(shares, wanted, strict=True) if share < want]
    if short:
        assert max(shares) <= min(short) + 1 + len(wanted)
        assert sum(shares) >= up - 2 * len(wanted)

"""Wrong clocks, frozen mirrors and the two profiles (SPEC 4.7)."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from cuntong_daemon.trust.federation import Profile
from cuntong_protocol.divisions import NATION
from tests.support.trust_checks import assert_refused, codes, state
from tests.support.trust_checks import no_sync as no_sync
from tests.support.trust_repo import COUNTY, PROVINCE, START, Node, TestClock, World

DAY = timedelta(days=1)
pytestmark = pytest.mark.usefixtures("no_sync")
BOATS = f"{COUNTY}/202611/dragon-boats"
WRONG = [
    datetime(1970, 1, 1, tzinfo=UTC),
    datetime(2000, 1, 1, tzinfo=UTC),
    START - DAY,
    datetime(2040, 1, 1, tzinfo=UTC),
    datetime(9999, 12, 31, tzinfo=UTC),
]


@pytest.fixture
def world() -> World:
    return World()


def make(
    tmp_path: Path, world: World, profile: Profile, now: datetime, enrolled: datetime = START
) -> Node:
    node = Node(tmp_path / profile, profile=profile, clock=TestClock(now))
    node.bootstrap(world.nation, enrolled)
    return node


@pytest.fixture
def tolerant(tmp_path: Path, world: World) -> Iterator[Node]:
    node = make(tmp_path, world, "tolerant", START)
    node.sync(*world.all)
    yield node
    node.close()


@pytest.fixture
def strict(tmp_path: Path, world: World) -> Iterator[Node]:
    node = make(tmp_path, world, "strict", START)
    node.sync(*world.all)
    yield node
    node.close()


@pytest.mark.parametrize("now", WRONG)
def test_tolerant_node_reads_whatever_its_clock_says(
    tmp_path: Path, world: World, now: datetime
) -> None:
    node = make(tmp_path, world, "tolerant", now)
    refresh = node.sync(*world.all)
    assert BOATS in refresh.view.listings
    assert not refresh.problems
    assert refresh.view.authorities[COUNTY].state == "fresh"
    assert refresh.view.is_clock_trusted is False
    assert refresh.view.time == START
    node.close()


@pytest.mark.parametrize("now", WRONG)
def test_tolerant_node_refuses_a_rollback_whatever_its_clock_says(
    tolerant: Node, world: World, now: datetime
) -> None:
    old = dict(world.province.files)
    world.province.sign_timestamp(now=START + DAY)
    tolerant.sync(*world.all)
    before = state(tolerant)
    tolerant.clock.now = now
    world.province.files = old
    assert_refused(tolerant, before, "trust.rollback", world.province)


@pytest.mark.parametrize("now", [day for day in WRONG if day < START])
def test_strict_node_with_a_clock_in_the_past_goes_by_signed_time(
    strict: Node, world: World, now: datetime
) -> None:
    strict.clock.now = now
    frozen = dict(world.county.files)
    world.nation.sign_timestamp(now=START + 40 * DAY)
    strict.sync(*world.all)
    before = state(strict)
    world.county.files = frozen
    world.county.sign_timestamp(now=START + DAY)
    assert_refused(strict, before, "trust.expired", world.county)


@pytest.mark.parametrize("now", [day for day in WRONG if day > START])
def test_strict_node_with_a_clock_far_ahead_keeps_its_catalogue_and_goes_on_when_it_is_set(
    strict: Node, world: World, now: datetime
) -> None:
    before = state(strict)
    strict.clock.now = now
    world.province.list_bundle("new")
    world.province.publish(now=START + DAY)
    refresh = assert_refused(strict, before, "trust.endorsement-expired", world.province)
    assert "trust.wrong-clock" in codes(refresh)
    world.nation.sign_timestamp(now=START + DAY)
    assert_refused(strict, before, "trust.expired", world.nation)
    strict.clock.now = START + 2 * DAY
    refresh = strict.sync(*world.all)
    assert f"{PROVINCE}/202611/new" in refresh.view.listings
    assert not refresh.problems


def test_strict_node_refuses_a_frozen_timestamp(strict: Node, world: World) -> None:
    before = state(strict)
    strict.clock.now = START + 40 * DAY
    world.province.list_bundle("late")
    world.province.publish(now=START + 5 * DAY)
    refresh = assert_refused(strict, before, "trust.expired", world.province)
    assert refresh.view.authorities[PROVINCE].state == "refused"
    assert BOATS in refresh.view.listings


def test_strict_node_shows_since_when_nothing_came(strict: Node) -> None:
    strict.clock.now = START + 40 * DAY
    view = strict.federation.refresh().view
    assert view.authorities[COUNTY].state == "stale"
    assert view.authorities[COUNTY].stale_since == START + 30 * DAY
    assert BOATS in view.listings


def test_disk_that_was_under_way_for_two_months_is_taken_by_a_tolerant_node(
    tolerant: Node, world: World
) -> None:
    """A strict node would refuse it; a village without a link has nothing else."""
    tolerant.clock.now = START + 65 * DAY
    world.county.list_bundle("by-post")
    world.county.publish(now=START + 5 * DAY)
    tolerant.carry(world.county)
    view = tolerant.federation.refresh().view
    assert f"{COUNTY}/202611/by-post" in view.listings
    assert view.authorities[COUNTY].state == "stale"
    assert view.authorities[COUNTY].stale_since == START + 35 * DAY


def test_disk_older_than_the_enrolment_is_refused(tmp_path: Path, world: World) -> None:
    node = make(tmp_path, world, "tolerant", START, enrolled=START + 31 * DAY)
    before = state(node)
    assert_refused(node, before, "trust.expired", *world.all)
    node.close()


def test_own_signed_time_ends_an_older_timestamp_of_higher_version(
    tolerant: Node, world: World
) -> None:
    """The thief of an online key can't pass off an expired timestamp as new."""
    world.province.sign_timestamp(now=START + 100 * DAY)
    tolerant.sync(*world.all)
    before = state(tolerant)
    world.province.sign_timestamp(now=START + DAY)
    assert_refused(tolerant, before, "trust.expired", world.province)


def test_nations_time_makes_a_silent_county_stale(tolerant: Node, world: World) -> None:
    tolerant.clock.now = datetime(2000, 1, 1, tzinfo=UTC)
    world.nation.sign_timestamp(now=START + 45 * DAY)
    view = tolerant.sync(world.nation).view
    assert view.authorities[NATION].state == "fresh"
    assert view.authorities[COUNTY].state == "stale"
    assert view.time == START + 45 * DAY


def test_forged_signed_time_in_an_unverified_timestamp_moves_nothing(
    tolerant: Node, world: World
) -> None:
    before = state(tolerant)
    good = world.nation.files["timestamp.json"]
    forged = good.replace(b"2026-11-01T00:00:00Z", b"2026-11-30T00:00:00Z")
    assert forged != good
    world.nation.files["timestamp.json"] = forged
    assert_refused(tolerant, before, "trust.bad-signature", world.nation)
    assert tolerant.federation.refresh().view.proven_time == START


def test_proven_time_never_goes_back(tolerant: Node, world: World) -> None:
    world.nation.sign_timestamp(now=START + 20 * DAY)
    tolerant.sync(*world.all)
    world.nation.sign_timestamp(now=START + 10 * DAY)
    view = tolerant.sync(*world.all).view
    assert view.proven_time == START + 20 * DAY
    assert view.authorities[NATION].versions["timestamp"] == 3
    tolerant.restart()
    assert tolerant.federation.refresh().view.proven_time == START + 20 * DAY


def test_clock_that_jumps_back_and_forth_changes_labels_only(tolerant: Node, world: World) -> None:
    before, _, _ = state(tolerant)
    for now in (*WRONG, START, *reversed(WRONG)):
        tolerant.clock.now = now
        refresh = tolerant.sync(*world.all)
        assert refresh.view.listings == before
        assert not codes(refresh)


def test_clock_ahead_of_all_signed_time_is_trusted_when_the_parent_confirms_it(
    tolerant: Node,
) -> None:
    now = START + 500 * DAY
    tolerant.clock.now = now
    assert not tolerant.federation.refresh().view.is_clock_trusted
    tolerant.federation.confirm_clock(now - timedelta(hours=3))
    assert not tolerant.federation.refresh().view.is_clock_trusted
    tolerant.federation.confirm_clock(now + timedelta(minutes=5))
    view = tolerant.federation.refresh().view
    assert view.is_clock_trusted
    assert view.time == now
    assert view.authorities[COUNTY].state == "stale"


def test_tolerant_node_also_refuses_a_root_that_ended_by_its_own_time(
    tolerant: Node, world: World
) -> None:
    before = state(tolerant)
    world.nation.list_bundle("after-the-end")
    world.nation.publish(now=START + 1200 * DAY)
    assert_refused(tolerant, before, "trust.expired", world.nation)

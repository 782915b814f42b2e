"""The federation at work: following, promotion, withdrawal, review, serving, how little is fetched."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from datetime import date, timedelta
from pathlib import Path

import pytest
from tuf.ngclient._internal.trusted_metadata_set import TrustedMetadataSet

from cuntong_daemon.trust.federation import Federation
from cuntong_daemon.trust.spool import KEPT_VERSIONS
from cuntong_protocol.divisions import NATION, Division
from cuntong_protocol.trust.members import Member
from tests.support.trust_checks import codes
from tests.support.trust_checks import no_sync as no_sync
from tests.support.trust_repo import (
    COUNTY,
    OTHER_COUNTY,
    PROVINCE,
    START,
    TOWNSHIP,
    VILLAGE,
    Node,
    Repository,
    World,
)

DAY = timedelta(days=1)
pytestmark = pytest.mark.usefixtures("no_sync")
BOATS = f"{COUNTY}/202611/dragon-boats"


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture
def node(tmp_path: Path, world: World) -> Iterator[Node]:
    node = Node(tmp_path / "village")
    node.bootstrap(world.nation)
    node.sync(*world.all)
    yield node
    node.close()


def test_private_attribute_of_python_tuf_is_still_there(world: World) -> None:
    """The tolerant profile sets it; python-tuf has no public way, so its version is pinned."""
    from tuf.ngclient.config import EnvelopeType

    trusted = TrustedMetadataSet(world.nation.anchor, EnvelopeType.METADATA)
    assert trusted.reference_time.tzinfo is not None


def test_village_follows_its_ancestors_down_from_the_nations_root(node: Node) -> None:
    view = node.federation.refresh().view
    assert set(view.authorities) == {NATION, PROVINCE, COUNTY, TOWNSHIP}
    assert {listing.split("/")[0] for listing in view.listings} == set(view.authorities)
    assert view.authorities[TOWNSHIP].endorsed_by == COUNTY
    assert view.authorities[COUNTY].until == date(2029, 1, 1)
    assert view.authorities[NATION].versions["202611"] == 1
    assert view.authorities[NATION].signed_at == START
    assert view.is_complete


def test_new_village_needs_few_rounds(tmp_path: Path, world: World) -> None:
    node = Node(tmp_path)
    node.bootstrap(world.nation)
    refresh = node.federation.refresh()
    rounds = 0
    while node.fetch(refresh, *world.all):
        refresh = node.federation.refresh()
        rounds += 1
    assert rounds <= 3 * len(world.all) + 1
    node.close()


def test_everything_at_once_from_a_disk_needs_one_look(tmp_path: Path, world: World) -> None:
    node = Node(tmp_path)
    node.bootstrap(world.nation)
    for repository in world.all:
        node.carry(repository)
    refresh = node.federation.refresh()
    assert len(refresh.view.listings) == 4
    assert not [missing for missing in refresh.missing if not missing.is_optional]
    node.close()


def test_one_more_bundle_costs_its_month_and_its_descriptor(node: Node, world: World) -> None:
    for month in ("202609", "202610"):
        world.county.list_bundle("older", month=month)
    world.county.publish(now=START + DAY)
    node.sync(*world.all)
    world.county.list_bundle("new")
    world.county.publish(now=START + 2 * DAY)
    node.offer(world.county)
    fetched = []
    refresh = node.federation.refresh()
    while node.fetch(refresh, world.county):
        fetched += [missing.path.split("/")[-1] for missing in refresh.missing]
        refresh = node.federation.refresh()
    assert sorted(name for name in fetched if name.endswith(".json")) == [
        "2.202611.json",
        "2.root.json",
        "3.snapshot.json",
    ]
    assert len(fetched) == 4


def test_idle_day_costs_a_timestamp(node: Node, world: World) -> None:
    world.county.sign_timestamp(now=START + DAY)
    node.offer(world.county)
    refresh = node.federation.refresh()
    assert [missing.is_optional for missing in refresh.missing] == [True]
    assert node.federation.announcements()[2][1] == 2
    assert not node.federation.refresh().missing


def test_nothing_changes_when_nothing_came(node: Node) -> None:
    view = node.federation.refresh().view
    again = node.federation.refresh()
    assert not again.changed
    assert again.view.listings is view.listings
    node.clock.now += DAY
    assert not node.federation.refresh().changed


def test_announced_timestamps_are_wanted_once(node: Node, world: World) -> None:
    federation = node.federation
    for code, version, sha256 in federation.announcements():
        assert not federation.wants(code, version, sha256)
    world.county.sign_timestamp(now=START + DAY)
    sha256 = hashlib.sha256(world.county.files["timestamp.json"]).hexdigest()
    assert federation.wants(COUNTY, 2, sha256)
    assert not federation.wants(OTHER_COUNTY, 2, sha256)
    node.offer(world.county)
    federation.refresh()
    assert not federation.wants(COUNTY, 2, sha256)
    # A peer that lags behind is looked at once, then no more.
    world.county.sign_timestamp(version=1, now=START)
    world.county.sign_timestamp(version=1, now=START - DAY)
    old = hashlib.sha256(world.county.files["timestamp.json"]).hexdigest()
    assert federation.wants(COUNTY, 1, old)
    node.offer(world.county)
    federation.refresh()
    assert not federation.wants(COUNTY, 1, old)


def test_promotion_widens_the_audience(tmp_path: Path, world: World) -> None:
    """A node in Shenzhen sees Dongguan's bundle without following Dongguan."""
    node = Node(tmp_path, OTHER_COUNTY)
    node.bootstrap(world.nation)
    assert BOATS not in node.sync(*world.all).view.listings
    world.province.promote(BOATS)
    world.province.publish(now=START + DAY)
    view = node.sync(*world.all).view
    assert view.listings[BOATS].listed_by == (PROVINCE,)
    assert COUNTY not in view.authorities
    node.close()


def test_same_bundle_at_three_levels_is_one_listing(node: Node, world: World) -> None:
    world.province.promote(BOATS)
    world.nation.promote(BOATS)
    world.province.publish(now=START + DAY)
    world.nation.publish(now=START + DAY)
    view = node.sync(*world.all).view
    assert view.listings[BOATS].listed_by == (NATION, PROVINCE, COUNTY)


def test_new_revision_replaces_the_old_one(node: Node, world: World) -> None:
    world.province.promote(BOATS)
    world.province.publish(now=START + DAY)
    world.county.list_bundle("dragon-boats", revision=2)
    world.county.publish(now=START + DAY)
    view = node.sync(*world.all).view
    assert view.listings[BOATS].revision == 2
    assert view.listings[BOATS].listed_by == (COUNTY,)


@pytest.mark.parametrize("level", ["nation", "province", "county"])
def test_tombstone_of_any_level_at_or_above_wins(node: Node, world: World, level: str) -> None:
    repository: Repository = getattr(world, level)
    world.province.promote(BOATS)
    repository.withdraw(BOATS, "侵权")
    for one in (world.province, repository):
        one.publish(now=START + DAY)
    view = node.sync(*world.all).view
    assert BOATS not in view.listings
    assert view.withdrawn[BOATS].by == repository.code
    assert view.withdrawn[BOATS].reason == "侵权"
    node.restart()
    assert BOATS in node.federation.refresh().view.withdrawn


def test_county_works_while_its_province_is_down(node: Node, world: World) -> None:
    world.county.list_bundle("new")
    world.county.publish(now=START + DAY)
    assert f"{COUNTY}/202611/new" in node.sync(world.county).view.listings


def test_reviewer_sees_what_endorsed_children_offer(tmp_path: Path, world: World) -> None:
    node = Node(tmp_path, PROVINCE)
    node.bootstrap(world.nation)
    world.county.promote(f"{TOWNSHIP}/202611/market-days")
    world.county.publish(now=START + DAY)
    view = node.sync(*world.all).view
    assert set(view.authorities) == {NATION, PROVINCE, COUNTY}
    assert set(view.candidates) == {BOATS, f"{TOWNSHIP}/202611/market-days"}
    assert BOATS not in view.listings
    assert node.federation.spool.read_blob(view.candidates[BOATS].sha256)
    world.province.promote(BOATS)
    world.province.publish(now=START + DAY)
    view = node.sync(*world.all).view
    assert BOATS in view.listings
    assert BOATS not in view.candidates
    node.close()


def test_centre_reads_its_own_repository_where_its_tools_write_it(
    tmp_path: Path, world: World
) -> None:
    node = Node(tmp_path, COUNTY)
    node.bootstrap(world.nation)
    node.sync(world.nation, world.province)
    metadata, targets = node.paths.authority / "metadata", node.paths.authority / "targets"
    for folder, files in ((metadata, world.county.files), (targets, world.county.blobs)):
        folder.mkdir(parents=True)
        for name, data in files.items():
            (folder / name).write_bytes(data)
    refresh = node.federation.refresh()
    assert BOATS in refresh.view.listings
    assert not [m for m in refresh.missing if str(COUNTY) in m.path and not m.is_optional]
    assert node.federation.spool.read(f"metadata/{COUNTY}/timestamp.json")
    assert node.federation.spool.read(f"blobs/{refresh.view.listings[BOATS].sha256}")
    world.county.list_bundle("own")
    world.county.publish(now=START + DAY)
    for name, data in world.county.files.items():
        (metadata / name).write_bytes(data)
    assert f"{COUNTY}/202611/own" in node.federation.refresh().view.listings
    node.close()


def test_child_gets_everything_from_what_its_parent_serves(
    tmp_path: Path, node: Node, world: World
) -> None:
    world.province.new_root()
    world.province.publish(now=START + DAY)
    node.sync(*world.all)
    child = Node(tmp_path / "child")
    child.bootstrap(world.nation)
    refresh = child.federation.refresh()
    for _ in range(30):
        got = 0
        for missing in refresh.missing:
            data = node.federation.spool.read(missing.path)
            if data is None:
                continue
            assert len(data) <= missing.max_bytes
            kind, _, rest = missing.path.partition("/")
            if kind == "blobs":
                child.federation.spool.store_blob(rest, data)
            else:
                code, name = rest.split("/")
                child.federation.spool.store_metadata(Division(code), name, data)
            got += 1
        if not got:
            break
        refresh = child.federation.refresh()
    assert refresh.view.listings == node.federation.refresh().view.listings
    assert child.federation.announcements() == node.federation.announcements()
    child.close()


def test_old_versions_are_kept_for_patches_and_then_go(node: Node, world: World) -> None:
    spool = node.federation.spool
    hashes = []
    for number in range(KEPT_VERSIONS + 2):
        data = world.county.files[f"{world.county.versions['202611']}.202611.json"]
        hashes.append(hashlib.sha256(data).hexdigest())
        base = spool.base_for(f"metadata/{COUNTY}/{99}.202611.json")
        assert base == (hashes[-1], data)
        world.county.list_bundle(f"number-{number}")
        world.county.publish(now=START + DAY)
        node.sync(*world.all)
    assert spool.find_version(COUNTY, "202611", hashes[-1])
    assert spool.find_version(COUNTY, "202611", hashes[0]) is None
    assert spool.base_for(f"metadata/{COUNTY}/timestamp.json") is None
    assert spool.base_for(f"metadata/{OTHER_COUNTY}/2.202611.json") is None


def test_spool_is_emptied_when_its_content_was_accepted(node: Node) -> None:
    left = {path.name for path in node.paths.spool.rglob("*.json")}
    assert left <= {"timestamp.json"}


def test_members_and_certificates_reach_the_view(node: Node, world: World) -> None:
    world.county.list_members(
        Member(VILLAGE, b"k" * 32, "active", date(2026, 11, 1), date(2027, 11, 1))
    )
    world.nation.put("targets", f"ca/{PROVINCE}.pem", b"province pem")
    world.province.put("targets", f"ca/{COUNTY}.pem", b"county pem")
    world.province.put("targets", f"ca/{OTHER_COUNTY}.pem", b"other pem")
    for repository in world.all:
        repository.publish(now=START + DAY)
    view = node.sync(*world.all).view
    assert view.members[COUNTY][VILLAGE].until == date(2027, 11, 1)
    assert view.ca_certificates == {PROVINCE: b"province pem", COUNTY: b"county pem"}
    world.county.roles["members"].targets.clear()
    world.county.publish(now=START + DAY)
    assert not node.sync(*world.all).view.members[COUNTY]


def test_bootstrap_is_done_once(node: Node, world: World) -> None:
    node.bootstrap(world.nation, START + 99 * DAY)
    assert node.federation.refresh().view.proven_time == START


def test_torrents_are_served_from_their_folder(node: Node) -> None:
    node.paths.torrents.mkdir()
    (node.paths.torrents / f"{'ab' * 32}.torrent").write_bytes(b"d4:infoe")
    assert node.federation.spool.read(f"torrents/{'ab' * 32}") == b"d4:infoe"
    assert node.federation.spool.read(f"torrents/{'cd' * 32}") is None


def test_village_that_was_off_for_months_gets_only_what_is_new(node: Node, world: World) -> None:
    months = [f"2027{month:02}" for month in range(1, 7)]
    for day, month in enumerate(months):
        world.nation.list_bundle("film", month=month)
        world.nation.publish(now=START + day * DAY)
    node.offer(world.nation)
    names = []
    refresh = node.federation.refresh()
    while node.fetch(refresh, world.nation):
        names += [m.path.split("/")[-1] for m in refresh.missing if "metadata" in m.path]
        refresh = node.federation.refresh()
    assert sorted(name.split(".")[1] for name in names if name[-10:] != ".root.json") == [
        *months,
        "snapshot",
        "targets",
    ]
    assert len(refresh.view.listings) == 10


def test_two_federations_read_the_same_state(node: Node) -> None:
    other = Federation(node.paths, code=VILLAGE, profile="tolerant", clock=node.clock)
    assert other.refresh().view.listings == node.federation.refresh().view.listings
    other.close()


def test_problems_are_told_with_the_authoritys_code(node: Node, world: World) -> None:
    world.county.put("202611", f"{COUNTY}/202611/bad", b"bad", {})
    world.county.publish(now=START + DAY)
    refresh = node.sync(*world.all)
    assert codes(refresh) == {"trust.bad-custom"}
    assert str(COUNTY) in str(refresh.problems[0])
    assert codes(node.federation.refresh()) == {"trust.bad-custom"}

"""Authorities that reach beyond their rights: scopes, endorsements, epochs, custom fields (SPEC 4.2 to 4.8)."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pytest
from tuf.api.metadata import DelegatedRole

from cuntong_protocol.divisions import NATION, Division
from cuntong_protocol.trust.members import Member
from cuntong_protocol.trust.names import TrustError
from tests.support.trust_checks import assert_refused, codes, state
from tests.support.trust_checks import no_sync as no_sync
from tests.support.trust_repo import (
    COUNTY,
    OTHER_COUNTY,
    OTHER_PROVINCE,
    PROVINCE,
    START,
    TOWNSHIP,
    VILLAGE,
    Node,
    Repository,
    World,
    bundle_custom,
    descriptor,
    new_key,
)

DAY = timedelta(days=1)
pytestmark = pytest.mark.usefixtures("no_sync")
BOATS = f"{COUNTY}/202611/dragon-boats"


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture
def node(tmp_path: Path, world: World) -> Iterator[Node]:
    node = Node(tmp_path)
    node.bootstrap(world.nation)
    node.sync(*world.all)
    yield node
    node.close()


# -- Listings beyond one's scope ---------------------------------------------------------------------


@pytest.mark.parametrize(
    "path",
    [
        f"{OTHER_COUNTY}/202611/dragon-boats",
        f"{PROVINCE}/202611/dragon-boats",
        f"{COUNTY}/202612/dragon-boats",
        f"{TOWNSHIP}/202611/dragon-boats",
        f"{COUNTY}/202611/../202611",
        f"{COUNTY}/202611/UPPER",
        f"{COUNTY}/202611/-dash",
        f"{COUNTY}/202611/{'x' * 65}",
        f"{COUNTY}\n/202611/a",
        "a",
        "",
    ],
)
def test_county_lists_a_path_that_is_not_its_own_month(node: Node, world: World, path: str) -> None:
    before, _, _ = state(node)
    world.county.put("202611", path, b"descriptor", bundle_custom())
    world.county.publish(now=START + DAY)
    refresh = node.sync(*world.all)
    assert codes(refresh) & {"trust.out-of-scope", "trust.bad-path", "division.bad-code"}
    assert refresh.view.listings == before


@pytest.mark.parametrize("victim", [OTHER_COUNTY, PROVINCE, NATION, OTHER_PROVINCE])
def test_county_promotes_a_bundle_outside_its_subtree(
    node: Node, world: World, victim: Division
) -> None:
    before, _, _ = state(node)
    world.county.promote(f"{victim}/202611/news", revision=9)
    world.county.publish(now=START + DAY)
    refresh = node.sync(*world.all)
    assert "trust.out-of-scope" in codes(refresh)
    assert refresh.view.listings == before


@pytest.mark.parametrize("victim", [PROVINCE, NATION, OTHER_COUNTY])
def test_county_withdraws_what_is_not_below_it(node: Node, world: World, victim: Division) -> None:
    before, _, _ = state(node)
    world.county.withdraw(f"{victim}/202611/{'yueju' if victim == PROVINCE else 'news'}")
    world.county.publish(now=START + DAY)
    refresh = node.sync(*world.all)
    assert "trust.out-of-scope" in codes(refresh)
    assert refresh.view.listings == before
    assert not refresh.view.withdrawn


@pytest.mark.parametrize("path", [BOATS, f"removed/{BOATS}", f"withdrawn/{BOATS}/x"])
def test_tombstone_under_another_name_counts_for_nothing(
    node: Node, world: World, path: str
) -> None:
    world.county.put("withdrawn", path, b"", {"reason": "", "at": "2026-11-02T08:00:00Z"})
    world.county.publish(now=START + DAY)
    refresh = node.sync(*world.all)
    assert "trust.bad-path" in codes(refresh)
    assert BOATS in refresh.view.listings


def test_tombstone_with_content_counts_for_nothing(node: Node, world: World) -> None:
    """One name, one meaning: a tombstone is empty, so that nobody has to fetch it."""
    custom = {"reason": "", "at": "2026-11-02T08:00:00Z"}
    world.county.put("withdrawn", f"withdrawn/{BOATS}", b"x", custom)
    world.county.publish(now=START + DAY)
    refresh = node.sync(*world.all)
    assert "trust.bad-custom" in codes(refresh)
    assert BOATS in refresh.view.listings


def test_bundle_listed_in_the_top_role_counts_for_nothing(node: Node, world: World) -> None:
    before, _, _ = state(node)
    world.county.put("targets", f"{COUNTY}/202611/smuggled", b"x", bundle_custom())
    world.county.publish(now=START + DAY)
    refresh = node.sync(*world.all)
    assert "trust.bad-path" in codes(refresh)
    assert refresh.view.listings == before


@pytest.mark.parametrize(
    ("role", "paths", "terminating"),
    [
        ("202612", ["*/*/*"], False),
        ("202612", [f"{COUNTY}/202611/*"], False),
        ("202612", [f"{COUNTY}/202612/*", f"{COUNTY}/202611/*"], False),
        ("202612", [f"{COUNTY}/202612/*"], True),
        ("202613", [f"{COUNTY}/202613/*"], False),
        ("editors", ["*/*/*"], False),
        ("../../evil", [f"{COUNTY}/x/*"], False),
    ],
)
def test_delegation_of_another_kind_is_ignored(
    node: Node, world: World, role: str, paths: list[str], terminating: bool
) -> None:
    before, _, _ = state(node)
    world.county.delegate(role, paths, [world.county.targets_key], terminating=terminating)
    world.county.put(role, f"{COUNTY}/202612/smuggled", b"x", bundle_custom())
    world.county.publish(now=START + DAY)
    node.sync(world.county)
    refresh = node.federation.refresh()
    assert refresh.view.listings == before
    assert codes(refresh) & {"trust.bad-delegation", "trust.refused"}


@pytest.mark.parametrize("name", [True, 7, None])
@pytest.mark.parametrize("pattern", ["*/*/*", "x/y/z/*"])
def test_role_whose_name_is_no_word_stops_nobody(
    node: Node, world: World, name: Any, pattern: str
) -> None:
    before, _, _ = state(node)
    assert world.county.targets.delegations
    assert world.county.targets.delegations.roles
    role = DelegatedRole("odd", [], 1, False, [pattern])
    role.name = name
    world.county.targets.delegations.roles["odd"] = role
    world.county.publish(now=START + DAY)
    refresh = node.sync(*world.all)
    assert codes(refresh) & {"trust.bad-delegation", "trust.refused", "trust.malformed"}
    assert refresh.view.listings == before


# -- Endorsements --------------------------------------------------------------------------------------


def test_county_endorses_another_county(node: Node, world: World) -> None:
    rival = Repository(OTHER_COUNTY)
    rival.list_bundle("rival")
    rival.publish()
    world.county.endorse(rival)
    world.county.publish(now=START + DAY)
    refresh = node.sync(*world.all, rival)
    assert "trust.out-of-scope" in codes(refresh)
    assert OTHER_COUNTY not in refresh.view.authorities


def test_county_endorses_itself_or_its_parent(node: Node, world: World) -> None:
    impostor = Repository(PROVINCE)
    world.county.endorse(impostor)
    world.county.endorse(world.county)
    world.county.publish(now=START + DAY)
    refresh = node.sync(*world.all)
    assert "trust.out-of-scope" in codes(refresh)
    assert refresh.view.authorities[PROVINCE].endorsed_by == NATION


@pytest.mark.parametrize("scope", ["44", "", "4419000", "441900", "4418", "440000000000"])
def test_endorsement_with_a_scope_that_is_not_the_childs(
    tmp_path: Path, world: World, scope: str
) -> None:
    node = Node(tmp_path)
    node.bootstrap(world.nation)
    world.province.endorse(world.county, scope=scope)
    world.province.publish(now=START + DAY)
    refresh = node.sync(*world.all)
    assert "trust.bad-scope" in codes(refresh)
    assert COUNTY not in refresh.view.authorities
    assert BOATS not in refresh.view.listings
    node.close()


def test_authority_that_nobody_endorsed_is_not_followed(tmp_path: Path, world: World) -> None:
    node = Node(tmp_path)
    node.bootstrap(world.nation)
    del world.province.targets.targets[f"auth/{COUNTY}.root.json"]
    world.province.publish(now=START + DAY)
    node.carry(world.county)
    refresh = node.sync(*world.all)
    assert set(refresh.view.authorities) == {NATION, PROVINCE}
    assert not any(str(COUNTY) in missing.path for missing in refresh.missing)
    assert not node.federation.wants(COUNTY, 99, "0" * 64)
    node.close()


def test_revoked_endorsement_takes_the_listing_away(node: Node, world: World) -> None:
    del world.province.targets.targets[f"auth/{COUNTY}.root.json"]
    world.province.publish(now=START + DAY)
    refresh = node.sync(*world.all)
    assert "trust.not-endorsed" in codes(refresh)
    assert BOATS not in refresh.view.listings
    assert COUNTY not in {code for code, _, _ in node.federation.announcements()}
    # Those it endorsed go with it: nobody above vouches for them.
    assert TOWNSHIP not in refresh.view.authorities
    world.province.endorse(world.county)
    world.province.publish(now=START + 2 * DAY)
    refresh = node.sync(*world.all)
    assert BOATS in refresh.view.listings
    assert TOWNSHIP in refresh.view.authorities


def test_what_a_higher_authority_promoted_stays_after_a_revocation(
    node: Node, world: World
) -> None:
    del world.province.targets.targets[f"auth/{COUNTY}.root.json"]
    world.province.promote(BOATS)
    world.province.publish(now=START + DAY)
    refresh = node.sync(*world.all)
    assert refresh.view.listings[BOATS].listed_by == (PROVINCE,)


def test_expired_endorsement_stops_updates_and_keeps_what_is_there(
    node: Node, world: World
) -> None:
    world.province.endorse(world.county, until="2026-11-10")
    world.province.publish(now=START + DAY)
    node.sync(*world.all)
    world.nation.sign_timestamp(now=START + 20 * DAY)
    node.sync(*world.all)
    before = state(node)
    assert BOATS in before[0]
    world.county.list_bundle("after-the-end")
    world.county.publish(now=START + 20 * DAY)
    refresh = assert_refused(node, before, "trust.endorsement-expired", world.county)
    assert refresh.view.authorities[COUNTY].state == "refused"
    assert refresh.view.authorities[TOWNSHIP].problem is not None
    world.province.endorse(world.county, until="2027-11-10")
    world.province.publish(now=START + 20 * DAY)
    refresh = node.sync(*world.all)
    assert f"{COUNTY}/202611/after-the-end" in refresh.view.listings
    assert not refresh.problems


def test_what_an_expired_authority_endorsed_is_not_updated(node: Node, world: World) -> None:
    world.nation.endorse(world.province, until="2026-11-10")
    world.nation.publish(now=START + 20 * DAY)
    node.sync(*world.all)
    before = state(node)
    world.county.list_bundle("after-the-end")
    world.county.publish(now=START + 20 * DAY)
    assert_refused(node, before, "trust.endorser-ended", world.county)


def test_child_cannot_age_its_parent(node: Node, world: World) -> None:
    """A county whose clock runs years ahead harms only itself."""
    world.county.sign_timestamp(now=START + 700 * DAY)
    node.sync(*world.all)
    world.province.list_bundle("still-coming")
    world.province.publish(now=START + DAY)
    refresh = node.sync(*world.all)
    assert f"{PROVINCE}/202611/still-coming" in refresh.view.listings
    assert refresh.view.authorities[PROVINCE].state == "fresh"


def test_child_with_a_stopped_clock_cannot_outlive_its_root(tmp_path: Path, world: World) -> None:
    """Its own signed time stands still before its root's end; the nation's time decides."""
    world.county = Repository(COUNTY, expires=START + 40 * DAY)
    world.county.publish()
    world.province.endorse(world.county)
    world.province.publish()
    node = Node(tmp_path)
    node.bootstrap(world.nation)
    node.sync(*world.all)
    world.nation.sign_timestamp(now=START + 50 * DAY)
    node.sync(*world.all)
    before = state(node)
    world.county.list_bundle("undead")
    world.county.publish(now=START + DAY, timestamp_life=900 * DAY)
    assert_refused(node, before, "trust.root-expired", world.county)
    node.close()


# -- Epochs --------------------------------------------------------------------------------------------


def new_county(world: World, epoch: int) -> Repository:
    county = Repository(COUNTY)
    county.list_bundle("fresh-start")
    county.endorse(world.township)
    county.publish(now=START + DAY)
    world.province.endorse(county, epoch=epoch)
    world.province.publish(now=START + DAY)
    return county


def test_new_epoch_starts_afresh_and_versions_begin_at_one(node: Node, world: World) -> None:
    for _ in range(5):
        world.county.sign_timestamp(now=START + DAY)
    node.sync(*world.all)
    world.county = new_county(world, 2)
    refresh = node.sync(*world.all)
    assert f"{COUNTY}/202611/fresh-start" in refresh.view.listings
    assert BOATS not in refresh.view.listings
    assert refresh.view.authorities[COUNTY].epoch == 2
    assert not refresh.problems


def test_old_catalogue_stays_until_the_new_epochs_is_complete(node: Node, world: World) -> None:
    new_county(world, 2)
    refresh = node.sync(world.nation, world.province)
    assert BOATS in refresh.view.listings


def test_old_keys_do_not_count_in_a_new_epoch(node: Node, world: World) -> None:
    old = world.county
    world.county = new_county(world, 2)
    node.sync(*world.all)
    before = state(node)
    old.list_bundle("by-the-thief")
    for _ in range(9):
        old.publish(now=START + 3 * DAY)
    assert_refused(node, before, "trust.bad-signature", old)


def test_going_back_to_an_earlier_epoch_is_refused(node: Node, world: World) -> None:
    old = world.county
    world.county = new_county(world, 2)
    node.sync(*world.all)
    fresh = f"{COUNTY}/202611/fresh-start"
    world.province.endorse(old, epoch=1)
    world.province.publish(now=START + 2 * DAY)
    old.list_bundle("by-the-thief")
    old.publish(now=START + 3 * DAY)
    refresh = node.sync(*world.all, old)
    assert "trust.epoch-back" in codes(refresh)
    assert fresh in refresh.view.listings
    assert f"{COUNTY}/202611/by-the-thief" not in refresh.view.listings


def test_revoking_and_endorsing_again_does_not_bring_an_old_epoch_back(
    node: Node, world: World
) -> None:
    old = world.county
    world.county = new_county(world, 2)
    node.sync(*world.all)
    del world.province.targets.targets[f"auth/{COUNTY}.root.json"]
    world.province.publish(now=START + 2 * DAY)
    node.sync(*world.all)
    node.restart()
    world.province.endorse(old, epoch=1)
    world.province.publish(now=START + 2 * DAY)
    refresh = node.sync(*world.all, old)
    assert "trust.epoch-back" in codes(refresh)
    assert BOATS not in refresh.view.listings


def test_other_root_in_the_same_epoch_is_refused(node: Node, world: World) -> None:
    before, _, _ = state(node)
    usurper = new_county(world, 1)
    refresh = node.sync(world.nation, world.province, usurper)
    assert "trust.epoch-root" in codes(refresh)
    assert refresh.view.listings == before
    assert refresh.view.authorities[COUNTY].state == "refused"


def test_same_root_in_a_higher_epoch_keeps_the_floors(node: Node, world: World) -> None:
    old = dict(world.county.files)
    world.county.sign_timestamp(now=START + DAY)
    world.province.endorse(world.county, epoch=2)
    world.province.publish(now=START + DAY)
    node.sync(*world.all)
    before = state(node)
    world.county.files = old
    assert_refused(node, before, "trust.rollback", world.county)


def test_nearest_authority_above_decides(node: Node, world: World) -> None:
    """The nation also endorses the county, with another root: the province's word counts."""
    usurper = Repository(COUNTY)
    usurper.list_bundle("usurped")
    usurper.publish()
    world.nation.endorse(usurper, epoch=5)
    world.nation.publish(now=START + DAY)
    refresh = node.sync(*world.all)
    assert BOATS in refresh.view.listings
    assert refresh.view.authorities[COUNTY].endorsed_by == PROVINCE


# -- Custom fields -------------------------------------------------------------------------------------

BAD_BUNDLES: list[Any] = [
    None,
    [],
    "x",
    7,
    {},
    {"rev": 1},
    {"rev": 1, "payload": 1},
    {**bundle_custom(), "rev": 0},
    {**bundle_custom(), "rev": "1"},
    {**bundle_custom(), "rev": True},
    {**bundle_custom(), "rev": -(2**70)},
    {**bundle_custom(), "rev": 2**70},
    {**bundle_custom(), "rev": None},
    {**bundle_custom(), "payload": -1},
    {**bundle_custom(), "payload": 10**400},
    {**bundle_custom(), "payload": {}},
    {**bundle_custom(), "infohash": "0" * 63},
    {**bundle_custom(), "infohash": "0" * 64 + "\n"},
    {**bundle_custom(), "infohash": "G" * 64},
    {**bundle_custom(), "infohash": ["0" * 64]},
]


@pytest.mark.parametrize("custom", BAD_BUNDLES, ids=range(len(BAD_BUNDLES)))
def test_malformed_custom_of_a_bundle_hides_that_bundle_alone(
    node: Node, world: World, custom: Any
) -> None:
    world.county.put("202611", f"{COUNTY}/202611/bad", b"bad", custom)
    world.county.list_bundle("good")
    world.county.publish(now=START + DAY)
    refresh = node.sync(*world.all)
    assert "trust.bad-custom" in codes(refresh)
    assert f"{COUNTY}/202611/good" in refresh.view.listings
    assert f"{COUNTY}/202611/bad" not in refresh.view.listings
    assert refresh.view.authorities[COUNTY].state == "fresh"


BAD_ENDORSEMENTS: list[Any] = [
    ["4419"],
    {"scope": 4419, "epoch": 1, "until": "2029-01-01"},
    {"scope": "4419", "epoch": 0, "until": "2029-01-01"},
    {"scope": "4419", "epoch": 2**80, "until": "2029-01-01"},
    {"scope": "4419", "epoch": 1, "until": "2029-02-30"},
    {"scope": "4419", "epoch": 1, "until": "20290101"},
    {"scope": "4419", "epoch": 1, "until": "2029-01-01T00:00:00Z"},
    {"scope": "4419", "epoch": 1},
    {"scope": "4419\n", "epoch": 1, "until": "2029-01-01"},
]


@pytest.mark.parametrize("custom", BAD_ENDORSEMENTS, ids=range(len(BAD_ENDORSEMENTS)))
def test_malformed_endorsement_endorses_nobody(tmp_path: Path, world: World, custom: Any) -> None:
    node = Node(tmp_path)
    node.bootstrap(world.nation)
    world.province.endorse(world.county, custom=custom)
    world.province.publish(now=START + DAY)
    refresh = node.sync(*world.all)
    assert "trust.bad-custom" in codes(refresh)
    assert COUNTY not in refresh.view.authorities
    assert f"{PROVINCE}/202611/yueju" in refresh.view.listings
    node.close()


@pytest.mark.parametrize(
    "custom",
    [
        None,
        {"reason": 5, "at": "2026-11-02T08:00:00Z"},
        {"reason": "x" * 501, "at": "2026-11-02T08:00:00Z"},
        {"reason": "", "at": "2026-11-02"},
        {"reason": "", "at": "2026-11-31T08:00:00Z"},
        {"reason": ""},
    ],
)
def test_malformed_tombstone_is_told_and_ignored(node: Node, world: World, custom: Any) -> None:
    world.county.put("withdrawn", f"withdrawn/{BOATS}", b"", custom)
    world.county.publish(now=START + DAY)
    refresh = node.sync(*world.all)
    assert "trust.bad-custom" in codes(refresh)
    assert BOATS in refresh.view.listings


def test_ten_thousand_bad_entries_do_not_make_ten_thousand_problems(
    node: Node, world: World
) -> None:
    for number in range(10_000):
        world.county.put("202611", f"{COUNTY}/202611/x{number}", b"x", {})
    world.county.publish(now=START + DAY)
    assert len(node.sync(*world.all).problems) < 50


def test_descriptor_too_large_to_fetch_is_not_listed(node: Node, world: World) -> None:
    world.county.list_bundle("huge", data=b"x" * 65_537)
    world.county.list_bundle("empty", data=b"x")
    world.county.roles["202611"].targets[f"{COUNTY}/202611/empty"].length = 0
    world.county.publish(now=START + DAY)
    refresh = node.sync(*world.all)
    assert "trust.bad-custom" in codes(refresh)
    assert not {f"{COUNTY}/202611/huge", f"{COUNTY}/202611/empty"} & set(refresh.view.listings)


def test_target_without_sha256_is_not_listed(node: Node, world: World) -> None:
    bundle = world.county.list_bundle("other-hash")
    world.county.roles["202611"].targets[bundle].hashes = {"sha512": "0" * 128}
    world.county.publish(now=START + DAY)
    refresh = node.sync(*world.all)
    assert "trust.bad-custom" in codes(refresh)
    assert bundle not in refresh.view.listings


# -- Members and CA certificates -------------------------------------------------------------------------


def member(code: Division, status: Any = "active") -> Member:
    return Member(code, b"k" * 32, status, date(2026, 11, 1), date(2027, 11, 1))


@pytest.mark.parametrize("data", [b"", b"\x00", b"\xc1", b"\x81\xa1v\x02", b"x" * 5000])
def test_unreadable_members_list_leaves_the_last_one_in_force(
    node: Node, world: World, data: bytes
) -> None:
    world.county.list_members(member(VILLAGE))
    world.county.publish(now=START + DAY)
    node.sync(*world.all)
    world.county.list_members(data=data or b" ")
    world.county.publish(now=START + DAY)
    refresh = node.sync(*world.all)
    assert "trust.bad-members" in codes(refresh)
    assert set(refresh.view.members[COUNTY]) == {VILLAGE}
    node.restart()
    refresh = node.federation.refresh()
    assert "trust.bad-members" in codes(refresh)
    assert set(refresh.view.members[COUNTY]) == {VILLAGE}


def test_members_list_that_is_on_its_way_leaves_the_last_one_in_force(
    node: Node, world: World
) -> None:
    """While the new list is fetched, nobody is turned away."""
    world.county.list_members(member(VILLAGE))
    world.county.publish(now=START + DAY)
    node.sync(*world.all)
    world.county.list_members(member(VILLAGE, "removed"))
    world.county.publish(now=START + DAY)
    withheld = dict(world.county.blobs)
    world.county.blobs.clear()
    refresh = node.sync(*world.all)
    assert refresh.view.members[COUNTY][VILLAGE].is_active
    node.restart()
    assert node.federation.refresh().view.members[COUNTY][VILLAGE].is_active
    world.county.blobs.update(withheld)
    refresh = node.sync(*world.all)
    assert not refresh.view.members[COUNTY][VILLAGE].is_active


def test_county_enrols_a_node_of_another_county(node: Node, world: World) -> None:
    world.county.list_members(member(OTHER_COUNTY))
    world.county.publish(now=START + DAY)
    refresh = node.sync(*world.all)
    assert "trust.bad-members" in codes(refresh)
    assert not refresh.view.members[COUNTY]


def test_members_list_under_another_name_counts_for_nothing(node: Node, world: World) -> None:
    world.county.put("members", "members/other", b"x")
    world.county.publish(now=START + DAY)
    refresh = node.sync(*world.all)
    assert "trust.bad-path" in codes(refresh)
    assert not refresh.view.members[COUNTY]


def test_county_certifies_another_countys_ca(node: Node, world: World) -> None:
    world.county.put("targets", f"ca/{OTHER_COUNTY}.pem", b"pem")
    world.county.put("targets", f"ca/{PROVINCE}.pem", b"pem")
    world.county.put("targets", f"ca/{TOWNSHIP}.pem", b"x" * 20_000)
    world.county.publish(now=START + DAY)
    refresh = node.sync(*world.all)
    assert {"trust.out-of-scope", "trust.bad-custom"} <= codes(refresh)
    assert not refresh.view.ca_certificates


# -- Blobs and the anchor --------------------------------------------------------------------------------


def test_blob_with_another_hash_is_refused(node: Node) -> None:
    with pytest.raises(TrustError) as caught:
        node.federation.spool.store_blob("0" * 64, b"x")
    assert caught.value.code == "trust.blob-mismatch"
    assert node.federation.spool.read_blob("0" * 64) is None


@pytest.mark.parametrize("name", ["", "..", "../x", "A" * 64, "0" * 63, "0" * 64 + "\n"])
def test_blob_name_that_is_no_hash_is_refused(node: Node, name: str) -> None:
    with pytest.raises(TrustError) as caught:
        node.federation.spool.store_blob(name, b"x")
    assert caught.value.code == "trust.bad-object"


@pytest.mark.parametrize(
    "name",
    [
        "../timestamp.json",
        "x.json",
        "0.root.json",
        "01.root.json",
        "1.timestamp.json",
        "1.202613.json",
        "1.targets.json\n",
        "99999999999999999.root.json",
        "root.json",
        ".json",
    ],
)
def test_metadata_name_of_another_form_is_refused(node: Node, name: str) -> None:
    with pytest.raises(TrustError) as caught:
        node.federation.spool.store_metadata(PROVINCE, name, b"{}")
    assert caught.value.code == "trust.bad-object"


def test_damaged_blob_is_never_handed_out_and_is_fetched_again(node: Node, world: World) -> None:
    listing = node.federation.refresh().view.listings[BOATS]
    path = node.paths.blobs / listing.sha256
    path.write_bytes(b"rotten")
    assert node.federation.spool.read(f"blobs/{listing.sha256}") is None
    refresh = node.federation.refresh()
    assert [missing.path for missing in refresh.missing] == [f"blobs/{listing.sha256}"]
    node.fetch(refresh, *world.all)
    assert node.federation.spool.read(f"blobs/{listing.sha256}") == descriptor(BOATS)


def test_first_root_that_is_no_root_is_refused(tmp_path: Path, world: World) -> None:
    node = Node(tmp_path)
    node.bootstrap(world.nation)
    world.province.endorse(world.county, root=b'{"signed": {}}')
    world.province.publish(now=START + DAY)
    refresh = node.sync(*world.all)
    assert "trust.malformed" in codes(refresh)
    assert refresh.view.authorities[COUNTY].state == "unknown"
    assert BOATS not in refresh.view.listings
    node.close()


def test_node_is_not_moved_to_another_nation(node: Node) -> None:
    before = state(node)
    with pytest.raises(TrustError) as caught:
        node.federation.bootstrap(Repository(NATION).anchor, START)
    assert caught.value.code == "trust.other-nation"
    assert state(node) == before


@pytest.mark.parametrize("damage", ["garbage", "unsigned"])
def test_node_does_not_start_from_a_bad_root(tmp_path: Path, world: World, damage: str) -> None:
    node = Node(tmp_path)
    root = world.nation.anchor
    bad = b"{}" if damage == "garbage" else root.replace(b'"sig":"', b'"sig":"00')
    with pytest.raises(TrustError) as caught:
        node.federation.bootstrap(bad, START)
    assert caught.value.code == "trust.bad-root"
    with pytest.raises(TrustError) as caught:
        node.federation.refresh()
    assert caught.value.code == "trust.no-anchor"
    node.bootstrap(world.nation)
    assert node.federation.refresh().missing
    node.close()


def test_contradiction_between_two_levels_is_told_and_the_higher_one_holds(
    node: Node, world: World
) -> None:
    world.province.promote(BOATS, data=b"other descriptor")
    world.province.publish(now=START + DAY)
    refresh = node.sync(*world.all)
    assert "trust.contradiction" in codes(refresh)
    assert refresh.view.listings[BOATS].listed_by == (PROVINCE,)


def test_stolen_targets_key_is_replaced_by_the_root(node: Node, world: World) -> None:
    thief = world.county.targets_key
    world.county.targets_key = new_key()
    world.county.new_root()
    world.county.delegate("202611", [f"{COUNTY}/202611/*"], [world.county.targets_key])
    world.county.delegate("withdrawn", ["withdrawn/*/*/*"], [world.county.targets_key])
    world.county.publish(now=START + DAY)
    node.sync(*world.all)
    before = state(node)
    world.county.targets_key = thief
    world.county.delegate("202611", [f"{COUNTY}/202611/*"], [thief])
    world.county.list_bundle("by-the-thief")
    world.county.publish(now=START + 2 * DAY)
    assert_refused(node, before, "trust.bad-signature", world.county)

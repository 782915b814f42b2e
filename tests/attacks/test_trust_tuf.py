"""The attacks that TUF names, against one authority of the federation, through the spool."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from tuf.api.metadata import Metadata, Root, Snapshot, Targets, Timestamp

from cuntong_protocol.trust.names import TrustError
from tests.support.trust_checks import assert_refused, codes, state
from tests.support.trust_checks import no_sync as no_sync
from tests.support.trust_repo import (
    COUNTY,
    PROVINCE,
    START,
    Node,
    Repository,
    TestClock,
    World,
    new_key,
    sign,
)

DAY = timedelta(days=1)
pytestmark = pytest.mark.usefixtures("no_sync")


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture(params=["tolerant", "strict"])
def node(request: pytest.FixtureRequest, tmp_path: Path, world: World) -> Iterator[Node]:
    node = Node(tmp_path, COUNTY, profile=request.param, clock=TestClock(START + DAY))
    node.bootstrap(world.nation)
    node.sync(*world.all)
    yield node
    node.close()


def next_version(repository: Repository) -> dict[str, bytes]:
    """Publish something more; returns the files as they were before."""
    before = dict(repository.files)
    repository.list_bundle("second", month="202612")
    repository.publish(now=START + DAY)
    return before


def test_older_repository_replayed_from_a_disk_is_refused(node: Node, world: World) -> None:
    old = next_version(world.province)
    node.sync(*world.all)
    before = state(node)
    world.province.files = old
    assert_refused(node, before, "trust.rollback", world.province)


def test_older_timestamp_alone_is_refused_after_a_restart(node: Node, world: World) -> None:
    old = world.province.files["timestamp.json"]
    world.province.sign_timestamp(now=START + DAY)
    node.sync(*world.all)
    before = state(node)
    node.restart()
    world.province.files["timestamp.json"] = old
    assert_refused(node, before, "trust.rollback", world.province)


def test_older_snapshot_under_a_newer_timestamp_is_refused(node: Node, world: World) -> None:
    next_version(world.province)
    node.sync(*world.all)
    before = state(node)
    world.province.snapshot_version = 1
    world.province.sign_timestamp()
    assert_refused(node, before, "trust.rollback", world.province)


def test_older_role_inside_a_newer_snapshot_is_refused(node: Node, world: World) -> None:
    world.province.list_bundle("more")
    world.province.publish(now=START + DAY)
    node.sync(*world.all)
    before = state(node)
    world.province.sign_snapshot(versions={**world.province.versions, "202611": 1})
    world.province.sign_timestamp()
    assert_refused(node, before, "trust.rollback", world.province)


def test_role_dropped_from_a_snapshot_is_refused(node: Node, world: World) -> None:
    before = state(node)
    versions = dict(world.province.versions)
    del versions["withdrawn"]
    world.province.sign_snapshot(versions=versions)
    world.province.sign_timestamp()
    assert_refused(node, before, "trust.refused", world.province)


def test_rollback_is_refused_even_before_the_newer_catalogue_was_complete(
    node: Node, world: World
) -> None:
    """A newer timestamp was verified, its snapshot never came: the older one is a rollback all the same."""
    before = state(node)
    world.province.list_bundle("second", month="202612")
    world.province.publish(now=START + DAY)
    middle = dict(world.province.files)
    world.province.list_bundle("third", month="202612")
    world.province.publish(now=START + DAY)
    node.offer(world.province)
    node.federation.refresh()
    world.province.files = middle
    assert_refused(node, before, "trust.rollback", world.province)


@pytest.mark.parametrize("role", ["timestamp", "snapshot", "targets", "202611", "2.root"])
def test_file_signed_with_a_foreign_key_is_refused(node: Node, world: World, role: str) -> None:
    before = state(node)
    thief = new_key()
    province = world.province
    if role == "timestamp":
        province.sign_timestamp(now=START + DAY, signers=[thief])
    elif role == "2.root":
        root = Metadata[Root].from_bytes(province.anchor).signed
        root.version = 2
        node.federation.spool.store_metadata(PROVINCE, "2.root.json", sign(root, [thief]))
    else:
        province.list_bundle("forged")
        province.month("202612")
        province.publish(now=START + DAY)
        version = province.snapshot_version if role == "snapshot" else province.versions[role]
        name = f"{version}.{role}.json"
        kind = Snapshot if role == "snapshot" else Targets
        signed = Metadata[kind].from_bytes(province.files[name]).signed
        province.files[name] = sign(signed, [thief])
        if role == "snapshot":
            province.sign_timestamp()
    assert_refused(node, before, "trust.bad-signature", province, offer=role != "2.root")


def test_one_changed_digit_is_refused(node: Node, world: World) -> None:
    before = state(node)
    next_version(world.province)
    name = f"{world.province.versions['202612']}.202612.json"
    data = world.province.files[name]
    world.province.files[name] = data.replace(b'"payload":1000', b'"payload":1001')
    assert_refused(node, before, "trust.bad-signature", world.province)


def test_promotion_with_one_of_two_reviewers_is_refused(node: Node, world: World) -> None:
    before = state(node)
    world.province.role_signers["promoted"] = world.province.reviewers[:1]
    world.province.promote(f"{COUNTY}/202611/dragon-boats")
    world.province.publish(now=START + DAY)
    assert_refused(node, before, "trust.bad-signature", world.province)


def test_mixed_snapshot_with_another_hash_is_refused(node: Node, world: World) -> None:
    before = state(node)
    next_version(world.province)
    snapshot = f"{world.province.snapshot_version}.snapshot.json"
    world.province.sign_snapshot(versions={**world.province.versions, "202611": 1})
    world.province.files[snapshot] = world.province.files.pop(
        f"{world.province.snapshot_version}.snapshot.json"
    )
    assert_refused(node, before, "trust.mismatch", world.province)


def test_mixed_role_with_another_hash_is_refused(node: Node, world: World) -> None:
    world.province.list_bundle("more", month="202612")
    world.province.publish(now=START + DAY, hashes=True)
    before = state(node)
    version = world.province.versions["202612"]
    signed = Metadata[Targets].from_bytes(world.province.files[f"{version}.202612.json"]).signed
    next(iter(signed.targets.values())).custom["payload"] = 1001
    world.province.files[f"{version}.202612.json"] = sign(signed, [world.province.targets_key])
    assert_refused(node, before, "trust.mismatch", world.province)


def test_role_of_another_version_than_the_snapshot_says_is_refused(
    node: Node, world: World
) -> None:
    before = state(node)
    world.province.list_bundle("more")
    world.province.publish(now=START + DAY)
    world.province.files["2.202611.json"] = world.province.files["1.202611.json"]
    assert_refused(node, before, "trust.rollback", world.province)


def test_role_handed_out_as_another_is_refused(node: Node, world: World) -> None:
    before = state(node)
    world.province.list_bundle("more")
    world.province.publish(now=START + DAY)
    version = world.province.versions["202611"]
    snapshot = world.province.files[f"{world.province.snapshot_version}.snapshot.json"]
    world.province.files[f"{version}.202611.json"] = snapshot
    assert_refused(node, before, "trust.refused", world.province)


@pytest.mark.parametrize("garbage", [b"", b"{", b"[]", b"null", b"\x00" * 100, b"[" * 5000])
@pytest.mark.parametrize("name", ["timestamp.json", "2.root.json"])
def test_garbage_is_refused_and_cleared_away(
    node: Node, world: World, garbage: bytes, name: str
) -> None:
    before = state(node)
    node.federation.spool.store_metadata(PROVINCE, name, garbage)
    assert_refused(node, before, "trust.malformed", offer=False)
    assert not node.federation.spool.has_spooled(PROVINCE, name)
    world.province.sign_timestamp(now=START + DAY)
    node.sync(*world.all)
    assert node.federation.announcements()[1][1] == world.province.version


def test_garbage_that_comes_again_and_again_is_not_asked_for_for_ever(
    node: Node, world: World
) -> None:
    before = state(node)
    next_version(world.province)
    world.province.files[f"{world.province.snapshot_version}.snapshot.json"] = b"{}"
    refresh = assert_refused(node, before, "trust.mismatch", world.province)
    assert not [missing for missing in refresh.missing if "snapshot" in missing.path]


def test_endless_metadata_is_refused_before_it_is_stored(node: Node, world: World) -> None:
    before = state(node)
    for name, size in (("timestamp.json", 16_385), ("2.snapshot.json", 2_000_001)):
        with pytest.raises(TrustError) as caught:
            node.federation.spool.store_metadata(PROVINCE, name, b" " * size)
        assert caught.value.code == "trust.too-large"
    assert state(node) == before


def test_too_long_file_of_a_centres_own_repository_is_refused(node: Node, world: World) -> None:
    """Nothing checks sizes there on writing, so the verifier's own limit must hold."""
    before = state(node)
    folder = node.paths.authority / "metadata"
    folder.mkdir(parents=True)
    (folder / "timestamp.json").write_bytes(b" " * 20_000)
    refresh = node.federation.refresh()
    assert "trust.mismatch" in codes(refresh)
    assert state(node) == before
    assert (folder / "timestamp.json").exists()


def test_flood_of_files_for_one_authority_stops_at_a_limit(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = state(node)
    monkeypatch.setattr("cuntong_daemon.trust.spool.MAX_SPOOL_FILES", 20)
    spool = node.federation.spool
    for number in range(1, 20):  # The timestamp is the twentieth.
        spool.store_metadata(PROVINCE, f"{number}.202611.json", b"{}")
    with pytest.raises(TrustError) as caught:
        spool.store_metadata(PROVINCE, "20.202611.json", b"{}")
    assert caught.value.code == "trust.spool-full"
    assert state(node) == before


def test_root_with_only_the_new_keys_is_refused(node: Node, world: World) -> None:
    before = state(node)
    world.province.root_keys = [new_key(), new_key(), new_key()]
    world.province.new_root()
    node.federation.spool.store_metadata(
        PROVINCE, "2.root.json", world.province.files["2.root.json"]
    )
    assert_refused(node, before, "trust.bad-signature", world.province)


def test_root_signed_by_one_old_key_of_two_is_refused(node: Node, world: World) -> None:
    before = state(node)
    old = world.province.root_keys
    world.province.root_keys = [new_key(), new_key(), new_key()]
    world.province.new_root(old[:1])
    node.federation.spool.store_metadata(
        PROVINCE, "2.root.json", world.province.files["2.root.json"]
    )
    assert_refused(node, before, "trust.bad-signature", world.province)


def test_root_that_jumps_a_version_is_refused(node: Node, world: World) -> None:
    before = state(node)
    world.province.root_version += 1
    data = world.province.new_root()
    world.province.files["2.root.json"] = data
    node.federation.spool.store_metadata(
        PROVINCE, "2.root.json", world.province.files["2.root.json"]
    )
    assert_refused(node, before, "trust.rollback", world.province)


def test_root_of_another_authority_is_refused(node: Node, world: World) -> None:
    before = state(node)
    other = Repository(PROVINCE)
    other.new_root()
    world.province.files["2.root.json"] = other.files["2.root.json"]
    node.federation.spool.store_metadata(
        PROVINCE, "2.root.json", world.province.files["2.root.json"]
    )
    assert_refused(node, before, "trust.bad-signature", world.province)


def test_rotated_root_with_old_and_new_signatures_is_followed(node: Node, world: World) -> None:
    for _ in range(5):
        old = world.province.root_keys
        world.province.root_keys = [new_key(), new_key(), new_key()]
        world.province.new_root(old)
    world.province.list_bundle("after-rotation")
    world.province.publish(now=START + DAY)
    refresh = node.sync(*world.all)
    assert f"{PROVINCE}/202611/after-rotation" in refresh.view.listings
    assert not refresh.problems
    assert node.federation.spool.read(f"metadata/{PROVINCE}/6.root.json")
    node.restart()
    assert f"{PROVINCE}/202611/after-rotation" in node.federation.refresh().view.listings


def test_going_back_before_a_rotation_is_refused(node: Node, world: World) -> None:
    old_files = dict(world.province.files)
    old_key = world.province.online_key
    world.province.online_key = new_key()
    world.province.new_root()
    world.province.publish(now=START + DAY)
    node.sync(*world.all)
    before = state(node)
    world.province.files = old_files
    world.province.online_key = old_key
    world.province.sign_timestamp(version=50)
    assert_refused(node, before, "trust.bad-signature", world.province)


def test_online_key_stolen_and_counters_run_away_a_new_root_brings_them_back(
    node: Node, world: World
) -> None:
    province = world.province
    good = dict(province.files)
    version, snapshot_version = province.version, province.snapshot_version
    province.snapshot_version = 2**31
    province.sign_snapshot()
    province.sign_timestamp(version=2**31, now=START + 2 * 365 * DAY)
    node.sync(*world.all)
    floor = {code: number for code, number, _ in node.federation.announcements()}
    assert floor[PROVINCE] == 2**31
    province.files = good
    province.version, province.snapshot_version = version, snapshot_version
    province.online_key = new_key()
    province.new_root()
    province.list_bundle("after-theft")
    province.publish(now=START + DAY)
    refresh = node.sync(*world.all)
    assert f"{PROVINCE}/202611/after-theft" in refresh.view.listings
    assert refresh.view.authorities[PROVINCE].signed_at == START + DAY
    assert refresh.view.authorities[PROVINCE].state == "fresh"


def test_version_beyond_all_counting_is_refused(node: Node, world: World) -> None:
    before = state(node)
    world.province.sign_timestamp(version=10**30, now=START + DAY)
    node.offer(world.province)
    refresh = node.federation.refresh()
    assert state(node) == before
    assert refresh.view.authorities[PROVINCE].versions["timestamp"] == 1
    world.province.sign_timestamp(version=2, now=START + DAY)
    node.sync(*world.all)
    assert node.federation.announcements()[1][1] == 2


def test_delegated_role_with_a_lower_threshold_than_signed_for_is_refused(
    node: Node, world: World
) -> None:
    """The signature of a stranger over the month doesn't count, whatever the file says."""
    before = state(node)
    stranger = new_key()
    world.province.role_signers["202611"] = [stranger]
    world.province.list_bundle("by-a-stranger")
    world.province.publish(now=START + DAY)
    assert_refused(node, before, "trust.bad-signature", world.province)


def test_revoked_month_key_no_longer_counts(node: Node, world: World) -> None:
    before = state(node)
    old = world.province.targets_key
    assert world.province.targets.delegations
    assert world.province.targets.delegations.roles
    role = world.province.targets.delegations.roles["202611"]
    role.keyids = []
    world.province.targets.add_key(new_key().public_key, "202611")
    assert world.province.role_signers["202611"] == [old]
    world.province.publish(now=START + DAY)
    assert_refused(node, before, "trust.bad-signature", world.province)


def test_role_hidden_behind_a_target_of_its_parent_is_refused(node: Node, world: World) -> None:
    before = state(node)
    world.province.put("targets", f"{PROVINCE}/202611/_", b"x")
    world.province.list_bundle("hidden")
    world.province.publish(now=START + DAY)
    assert_refused(node, before, "trust.refused", world.province)


def test_delegation_to_a_role_that_the_snapshot_lacks_is_refused(node: Node, world: World) -> None:
    before = state(node)
    world.province.month("202612")
    world.province.publish(now=START + DAY)
    versions = dict(world.province.versions)
    del versions["202612"]
    world.province.sign_snapshot(versions=versions)
    world.province.sign_timestamp()
    assert_refused(node, before, "trust.refused", world.province)


def test_equal_version_with_other_content_is_not_taken_and_reported(
    node: Node, world: World
) -> None:
    before = state(node)
    world.province.list_bundle("for-some-only")
    world.province.publish(now=START + DAY)
    world.province.sign_timestamp(version=1)
    assert_refused(node, before, "trust.equivocation", world.province)
    (found,) = node.federation.refresh().view.equivocations
    assert (found.code, found.version) == (PROVINCE, 1)
    assert found.second == world.province.files["timestamp.json"]


def test_equal_timestamp_in_another_spelling_is_no_equivocation(node: Node, world: World) -> None:
    before = state(node)
    data = json.loads(world.province.files["timestamp.json"])
    world.province.files["timestamp.json"] = json.dumps(data, indent=4).encode()
    node.offer(world.province)
    assert not codes(node.federation.refresh())
    assert state(node) == before
    assert not node.federation.refresh().view.equivocations


def test_timestamp_for_another_authority_is_refused(node: Node, world: World) -> None:
    before = state(node)
    node.federation.spool.store_metadata(
        PROVINCE, "timestamp.json", world.nation.files["timestamp.json"]
    )
    assert_refused(node, before, "trust.bad-signature", offer=False)


def test_duplicate_keys_in_json_cannot_show_two_catalogues(node: Node, world: World) -> None:
    """What is verified and what is read come from one parse: the forged first value counts for neither."""
    world.province.list_bundle("real")
    world.province.publish(now=START + DAY)
    version = world.province.versions["202611"]
    name = f"{version}.202611.json"
    forged = world.province.files[name].replace(b"/real", b"/fake")
    signed = forged[forged.index(b'"signed":') : forged.rindex(b"}")]
    world.province.files[name] = b"{" + signed + b"," + world.province.files[name][1:]
    refresh = node.sync(*world.all)
    assert f"{PROVINCE}/202611/fake" not in refresh.view.listings


def test_signed_timestamp_without_a_signed_time_proves_nothing(node: Node, world: World) -> None:
    for value in (None, 5, "yesterday", "2026-13-01T00:00:00Z", "2999-01-01T00:00:00Z", "２０26"):
        world.province.sign_timestamp(now=START + DAY, signed_at=value)
        refresh = node.sync(*world.all)
        assert refresh.view.authorities[PROVINCE].signed_at is None
        assert refresh.view.authorities[PROVINCE].state == "fresh"


def test_timestamp_type_confusion_is_refused(node: Node, world: World) -> None:
    before = state(node)
    snapshot = Metadata[Snapshot].from_bytes(world.province.files["1.snapshot.json"])
    assert not isinstance(snapshot.signed, Timestamp)
    node.federation.spool.store_metadata(
        PROVINCE, "timestamp.json", world.province.files["1.snapshot.json"]
    )
    assert_refused(node, before, "trust.refused", offer=False)


def test_garbage_as_the_very_first_timestamp_is_not_asked_for_for_ever(
    tmp_path: Path, world: World
) -> None:
    fresh = Node(tmp_path / "fresh")
    fresh.bootstrap(world.nation)
    good = world.nation.files["timestamp.json"]
    world.nation.files["timestamp.json"] = b"{}"
    refresh = fresh.sync(world.nation)
    assert not refresh.missing
    world.nation.files["timestamp.json"] = good
    assert fresh.sync(world.nation).view.listings
    fresh.close()


def test_root_that_replaces_the_online_key_by_nobodys_does_not_make_a_node_ask_for_ever(
    node: Node, world: World
) -> None:
    before = state(node)
    world.province.online_key, key = new_key(), world.province.online_key
    world.province.new_root()
    world.province.online_key = key
    world.province.sign_timestamp(now=START + DAY)
    node.federation.spool.store_metadata(
        PROVINCE, "2.root.json", world.province.files["2.root.json"]
    )
    assert_refused(node, before, "trust.bad-signature", world.province)


@pytest.mark.parametrize("role", ["timestamp", "snapshot", "202611"])
def test_true_as_a_version_number_is_refused(node: Node, world: World, role: str) -> None:
    """Python counts `true` as 1; a file named after it would never be found again."""
    fresh = Node(node.paths.root / "fresh")
    fresh.bootstrap(world.nation)
    nation = world.nation
    name = "timestamp.json" if role == "timestamp" else f"1.{role}.json"
    kind = {"timestamp": Timestamp, "snapshot": Snapshot}.get(role, Targets)
    signed = Metadata[kind].from_bytes(nation.files[name]).signed
    signed.version = True
    key = nation.targets_key if role == "202611" else nation.online_key
    nation.files[name] = sign(signed, [key])
    if role == "snapshot":
        nation.sign_timestamp()
    refresh = fresh.sync(nation)
    assert "trust.bad-version" in codes(refresh)
    assert not refresh.view.listings
    assert refresh.view.is_complete
    fresh.close()


def test_true_as_a_hash_or_a_length_is_not_listed(node: Node, world: World) -> None:
    for number, field in enumerate(("hashes", "length")):
        bundle = world.province.list_bundle(f"odd-{number}")
        target = world.province.roles["202611"].targets[bundle]
        setattr(target, field, {"sha256": True} if field == "hashes" else True)
    world.province.publish(now=START + DAY)
    refresh = node.sync(*world.all)
    assert codes(refresh) <= {"trust.bad-custom", "trust.malformed"}
    assert not [bundle for bundle in refresh.view.listings if "odd" in bundle]

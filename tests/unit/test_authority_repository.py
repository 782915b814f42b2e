"""The repository on disk: what is signed, by whom, and what a kill or a wrong clock leaves."""

from __future__ import annotations

import datetime as dt
import hashlib
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tuf.api.metadata import Metadata

from cuntong_daemon.authority.endorsement import endorse, install, propose
from cuntong_daemon.authority.keys import AuthorityError
from cuntong_daemon.authority.publishing import (
    pending_listings,
    pending_promotion,
    publish,
    sign_promotion,
    withdraw,
)
from cuntong_daemon.authority.repository import AuthorityRepository
from cuntong_daemon.authority.setup import create_authority, default_plan
from cuntong_protocol.bundle.errors import BundleError
from cuntong_protocol.divisions import Division
from cuntong_protocol.trust.custom import Target, read_role
from cuntong_protocol.trust.members import Member, MembersList
from tests.support.authorities import (
    NOW,
    PASSPHRASE,
    Killed,
    Place,
    cheap_passphrases,
    files_below,
    kill_everywhere,
    killed_after,
    make_listing,
    make_place,
    take_in,
)

DAY = dt.timedelta(days=1)
COUNTY = "441900000000"


@pytest.fixture(autouse=True)
def _cheap(monkeypatch: pytest.MonkeyPatch) -> None:
    cheap_passphrases(monkeypatch)


@pytest.fixture
def nation(tmp_path: Path) -> Place:
    return make_place(tmp_path, "000000000000")


@pytest.fixture
def county(tmp_path: Path, nation: Place) -> Place:
    place = make_place(tmp_path, COUNTY)
    take_in(nation, place)
    return place


def _publish(place: Place, slug: str, revision: int = 1, now: dt.datetime = NOW) -> None:
    listing, descriptor = make_listing(f"{place.code}/202611/{slug}", revision)
    publish(place.repository, listing, descriptor, [place.signer("targets")], now=now)


def _refused(place: Place, run: Callable[[], object]) -> str:
    """Run what must be refused; nothing may have changed. Returns the code."""
    before = files_below(place.repository.path)
    with pytest.raises((AuthorityError, BundleError)) as caught:
        run()
    assert files_below(place.repository.path) == before
    assert "\n" not in str(caught.value)
    assert "{" not in str(caught.value)
    return caught.value.code


# Making one.


@pytest.mark.parametrize(
    ("code", "root", "count"),
    [("000000000000", 3, 5), ("440000000000", 2, 3), ("441900003000", 1, 2)],
)
def test_thresholds_follow_the_tier(tmp_path: Path, code: str, root: int, count: int) -> None:
    authority = make_place(tmp_path, code).repository.load()
    keys, threshold = authority.role_keys("root")
    assert (threshold, len(keys)) == (root, count)
    assert authority.role_keys("promoted")[1] == 2
    assert authority.role_keys("withdrawn")[1] == 1
    assert sorted(authority.role_keys("withdrawn")[0].values()) == [
        "reviewer-1",
        "reviewer-2",
        "targets",
    ]


def test_every_role_obeys_the_specification(county: Place) -> None:
    _publish(county, "opera")
    withdraw(
        county.repository, f"{COUNTY}/202611/opera", "错误", [county.signer("targets")], now=NOW
    )
    authority = county.repository.load()
    for name, role in authority.roles.items():
        targets = [
            Target(it.path, it.length, it.hashes["sha256"], it.custom)
            for it in role.signed.targets.values()
        ]
        contents, problems = read_role(Division(COUNTY), name, targets)
        assert not problems, problems
        if name == "202611":
            assert [it.id for it in contents.bundles] == [f"{COUNTY}/202611/opera"]
        if name == "withdrawn":
            assert contents.tombstones[0].reason == "错误"
    assert authority.targets.delegations is not None
    delegations = authority.targets.delegations.roles or {}
    assert {name: role.paths for name, role in delegations.items()} == {
        "promoted": ["*/*/*"],
        "withdrawn": ["withdrawn/*/*/*"],
        "members": ["members/*"],
        "202611": [f"{COUNTY}/202611/*"],
    }
    assert not any(role.terminating for role in delegations.values())
    ends = {role.signed.expires for role in authority.roles.values()}
    assert ends == {authority.root.signed.expires, authority.snapshot.signed.expires}
    assert authority.timestamp.signed.expires == NOW + 30 * DAY


def test_second_init_is_refused(county: Place) -> None:
    plan = default_plan(county.code, county.sticks)
    code = _refused(
        county,
        lambda: create_authority(
            county.repository, county.code, "x", plan, lambda _: PASSPHRASE, now=NOW
        ),
    )
    assert code == "keys.file-exists"
    for stick in county.sticks:
        shutil.rmtree(stick)
        stick.mkdir()
    code = _refused(
        county,
        lambda: create_authority(
            county.repository, county.code, "x", plan, lambda _: PASSPHRASE, now=NOW
        ),
    )
    assert code == "authority.exists"


@pytest.mark.parametrize(
    ("sticks", "plan", "code"),
    [
        (1, {}, "authority.too-few-sticks"),
        (2, {}, "authority.too-few-sticks"),
        (3, {"root_threshold": 4}, "authority.bad-threshold"),
        (3, {"reviewers": 0}, "authority.bad-threshold"),
        (3, {"root_keys": 21}, "authority.bad-threshold"),
        (0, {}, "authority.too-few-sticks"),
    ],
)
def test_plan_that_puts_a_quorum_on_one_stick_is_refused(
    tmp_path: Path, sticks: int, plan: dict[str, int], code: str
) -> None:
    with pytest.raises(AuthorityError) as caught:
        make_place(tmp_path, COUNTY, sticks=sticks, **plan)
    assert caught.value.code == code
    assert not any(path.is_file() for path in tmp_path.rglob("*"))


@pytest.mark.parametrize("name", ["", " ", "a\nb", "x" * 101])
def test_name_that_fills_a_screen_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(AuthorityError) as caught:
        make_place(tmp_path, COUNTY, name=name)
    assert caught.value.code == "authority.bad-name"


def test_stick_that_is_full_during_init_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from cuntong_daemon.authority import setup

    written: list[Path] = []

    def write(path: Path, *args: Any, **options: Any) -> None:
        if len(written) == 4:
            raise OSError(28, "No space left on device", str(path))
        written.append(path)
        path.write_bytes(b"key")

    monkeypatch.setattr(setup, "write_key", write)
    with pytest.raises(AuthorityError) as caught:
        make_place(tmp_path, COUNTY)
    assert caught.value.code == "authority.cannot-write"
    assert not any(path.is_file() for path in tmp_path.rglob("*"))


def test_no_authority_here_is_said(tmp_path: Path) -> None:
    with pytest.raises(AuthorityError) as caught:
        AuthorityRepository(tmp_path / "authority").load()
    assert caught.value.code == "authority.none"
    assert not (tmp_path / "authority").exists()


def test_damaged_repository_is_said_and_not_signed_over(county: Place) -> None:
    folder = county.repository.path / "metadata"
    whole = (folder / "1.targets.json").read_bytes()
    for data in (b"", whole[:100], whole.replace(b'"version":1', b'"version":2')):
        (folder / "1.targets.json").write_bytes(data)
        assert (
            _refused(county, lambda: county.repository.resign_timestamp(NOW)) == "authority.damaged"
        )
    (folder / "1.targets.json").write_bytes(whole)
    county.repository.resign_timestamp(NOW)


# Time.


def test_daemon_signs_the_timestamp_without_any_stick(county: Place) -> None:
    before = county.repository.load()
    ends = county.repository.resign_timestamp(NOW + DAY)
    after = county.repository.load()
    assert ends == NOW + 31 * DAY
    assert after.signed_at == NOW + DAY
    assert after.timestamp.signed.version == before.timestamp.signed.version + 1
    assert after.snapshot.signed.version == before.snapshot.signed.version


def test_clock_that_went_back_signs_nothing(county: Place) -> None:
    past = NOW.replace(year=2000)
    assert (
        _refused(county, lambda: county.repository.resign_timestamp(past))
        == "authority.clock-behind"
    )
    assert _refused(county, lambda: _publish(county, "opera", now=past)) in (
        "authority.clock-behind",
        "authority.endorsement-expired",
    )


def test_clock_far_ahead_signs_nothing(county: Place) -> None:
    future = NOW.replace(year=2040)
    assert (
        _refused(county, lambda: county.repository.resign_timestamp(future))
        == "authority.clock-ahead"
    )


def test_root_that_has_ended_publishes_nothing(county: Place) -> None:
    for days in (300, 600, 900, 1094):
        county.repository.resign_timestamp(NOW + days * DAY)
    late = NOW + 1095 * DAY
    code = _refused(county, lambda: county.repository.resign_timestamp(late))
    assert code == "authority.root-expired"


# Publishing.


def test_bundle_is_listed_in_its_month(county: Place) -> None:
    _publish(county, "opera")
    authority = county.repository.load()
    target = authority.listing(f"{COUNTY}/202611/opera")
    assert target is not None
    assert hashlib.sha256(county.repository.blob(target)).hexdigest() == target.hashes["sha256"]
    assert set(authority.listings()) == {f"{COUNTY}/202611/opera"}
    assert authority.roles["202611"].signed.version == 1
    _publish(county, "poetry")
    assert county.repository.load().roles["202611"].signed.version == 2
    assert county.repository.load().roles["targets"].signed.version == 2


@pytest.mark.parametrize(
    ("bundle", "revision", "code"),
    [
        ("440000000000/202611/x", 1, "publish.out-of-scope"),
        ("441900003000/202611/x", 1, "publish.out-of-scope"),
        (f"{COUNTY}/202611/opera", 1, "publish.exists"),
        (f"{COUNTY}/202611/opera", 2, "publish.old-revision"),
        (f"{COUNTY}/202611/gone", 2, "publish.withdrawn"),
    ],
)
def test_publishing_what_must_not_be_is_refused(
    county: Place, bundle: str, revision: int, code: str
) -> None:
    _publish(county, "opera")
    _publish(county, "opera", 2)
    _publish(county, "gone")
    withdraw(county.repository, f"{COUNTY}/202611/gone", "x", [county.signer("targets")], now=NOW)
    listing, descriptor = make_listing(bundle, revision)
    signer = county.signer("targets")
    assert (
        _refused(county, lambda: publish(county.repository, listing, descriptor, [signer], now=NOW))
        == code
    )


def test_wrong_key_signs_nothing(county: Place) -> None:
    listing, descriptor = make_listing(f"{COUNTY}/202611/opera")
    for signers in ([county.signer("reviewer-1")], []):
        code = _refused(
            county, lambda s=signers: publish(county.repository, listing, descriptor, s, now=NOW)
        )
        assert code == "authority.not-signed"


def test_unendorsed_authority_does_not_publish(tmp_path: Path) -> None:
    place = make_place(tmp_path, COUNTY)
    assert _refused(place, lambda: _publish(place, "opera")) == "authority.not-endorsed"


def test_expired_endorsement_publishes_nothing_but_still_withdraws(
    tmp_path: Path, nation: Place
) -> None:
    place = make_place(tmp_path, COUNTY)
    take_in(nation, place, until=(NOW + 10 * DAY).date())
    _publish(place, "opera", now=NOW + 10 * DAY)
    late = NOW + 11 * DAY
    assert (
        _refused(place, lambda: _publish(place, "late", now=late))
        == "authority.endorsement-expired"
    )
    withdraw(place.repository, f"{COUNTY}/202611/opera", "x", [place.signer("targets")], now=late)


# Withdrawal.


def test_one_reviewer_is_enough_to_withdraw_from_below(nation: Place) -> None:
    bundle = f"{COUNTY}/202611/opera"
    withdraw(nation.repository, bundle, "版权", [nation.signer("reviewer-2")], now=NOW)
    authority = nation.repository.load()
    assert authority.is_withdrawn(bundle)
    target = authority.roles["withdrawn"].signed.targets[f"withdrawn/{bundle}"]
    assert target.custom == {"reason": "版权", "at": "2026-11-22T08:00:00Z"}
    assert nation.repository.blob(target) == b""


@pytest.mark.parametrize(
    ("bundle", "reason", "code"),
    [
        ("440000000000/202611/x", "r", "publish.out-of-scope"),
        (f"{COUNTY}/202611/typo", "r", "publish.unknown"),
        (f"{COUNTY}/202611/gone", "r", "publish.withdrawn"),
        (f"{COUNTY}/202611/opera", "", "publish.bad-reason"),
        (f"{COUNTY}/202611/opera", "a\nb", "publish.bad-reason"),
        (f"{COUNTY}/202611/opera", "x" * 201, "publish.bad-reason"),
        ("nonsense", "r", "bundle.bad-id"),
    ],
)
def test_withdrawing_what_is_not_ones_own_is_refused(
    county: Place, bundle: str, reason: str, code: str
) -> None:
    signer = county.signer("targets")
    for slug in ("opera", "gone"):
        _publish(county, slug)
    withdraw(county.repository, f"{COUNTY}/202611/gone", "x", [signer], now=NOW)
    assert (
        _refused(county, lambda: withdraw(county.repository, bundle, reason, [signer], now=NOW))
        == code
    )


# Promotion.


def test_promotion_needs_two_reviewers(nation: Place) -> None:
    candidate = make_listing(f"{COUNTY}/202611/opera")
    first = sign_promotion(nation.repository, [candidate], [nation.signer("reviewer-1")], now=NOW)
    assert not first.is_published
    assert (first.signed, first.needed) == (1, 2)
    current = nation.repository.load()
    assert not current.promoted()
    pending = pending_promotion(nation.repository, current)
    assert pending is not None
    assert list(pending_listings(current, pending).values()) == [candidate[0]]
    second = sign_promotion(nation.repository, [], [nation.signer("reviewer-2")], now=NOW)
    assert second.is_published
    assert second.bundles == (candidate[0].id,)
    after = nation.repository.load()
    target = after.promoted()[candidate[0].id]
    assert target.hashes["sha256"] == candidate[0].sha256
    assert nation.repository.blob(target) == candidate[1]
    assert pending_promotion(nation.repository, after) is None


def test_two_reviewers_at_one_table_publish_at_once(nation: Place) -> None:
    signers = [nation.signer("reviewer-1"), nation.signer("reviewer-2")]
    done = sign_promotion(
        nation.repository, [make_listing(f"{COUNTY}/202611/opera")], signers, now=NOW
    )
    assert done.is_published


def test_single_reviewer_is_enough_where_init_said_so(tmp_path: Path) -> None:
    place = make_place(tmp_path, "000000000000", reviewers=1)
    candidate = make_listing(f"{COUNTY}/202611/opera")
    assert sign_promotion(
        place.repository, [candidate], [place.signer("reviewer-1")], now=NOW
    ).is_published


def test_same_reviewer_twice_is_not_two_reviewers(nation: Place) -> None:
    candidate = make_listing(f"{COUNTY}/202611/opera")
    signers = [nation.signer("reviewer-1")]
    sign_promotion(nation.repository, [candidate], signers * 2, now=NOW)
    code = _refused(
        nation, lambda: sign_promotion(nation.repository, [candidate], signers, now=NOW)
    )
    assert code == "promote.signed-already"
    assert not nation.repository.load().promoted()


def test_reviewer_adds_to_what_only_they_have_signed(nation: Place) -> None:
    signers = [nation.signer("reviewer-1")]
    both = [f"{COUNTY}/202611/opera", f"{COUNTY}/202611/poetry"]
    for bundle in both:
        sign_promotion(nation.repository, [make_listing(bundle)], signers, now=NOW)
    done = sign_promotion(nation.repository, [], [nation.signer("reviewer-2")], now=NOW)
    assert done.bundles == tuple(both)
    assert done.is_published


def test_other_reviewer_signs_or_drops_what_waits_first(nation: Place) -> None:
    other = make_listing(f"{COUNTY}/202611/poetry")
    second = [nation.signer("reviewer-2")]
    sign_promotion(
        nation.repository,
        [make_listing(f"{COUNTY}/202611/opera")],
        [nation.signer("reviewer-1")],
        now=NOW,
    )
    code = _refused(nation, lambda: sign_promotion(nation.repository, [other], second, now=NOW))
    assert code == "promote.other-pending"
    nation.repository.drop_pending()
    assert not sign_promotion(nation.repository, [other], second, now=NOW).is_published


def test_pending_promotion_overtaken_by_a_renewal_is_not_published(nation: Place) -> None:
    from cuntong_daemon.authority.rotation import renew

    candidate = make_listing(f"{COUNTY}/202611/opera")
    sign_promotion(nation.repository, [candidate], [nation.signer("reviewer-1")], now=NOW)
    names = [name for name in nation.repository.load().settings.keys if name != "ca"]
    renew(nation.repository, [nation.signer(name) for name in names], now=NOW + DAY)
    code = _refused(
        nation,
        lambda: sign_promotion(nation.repository, [], [nation.signer("reviewer-2")], now=NOW + DAY),
    )
    assert code == "promote.nothing-pending"


def test_tampered_pending_promotion_is_not_published(nation: Place) -> None:
    candidate = make_listing(f"{COUNTY}/202611/opera")
    sign_promotion(nation.repository, [candidate], [nation.signer("reviewer-1")], now=NOW)
    path = nation.repository.path / "pending" / "promoted.json"
    path.write_bytes(path.read_bytes().replace(b"202611/opera", b"202611/0pera"))
    done = sign_promotion(nation.repository, [], [nation.signer("reviewer-2")], now=NOW)
    assert not done.is_published
    path.write_bytes(b"{}")
    assert pending_promotion(nation.repository, nation.repository.load()) is None
    assert not nation.repository.load().promoted()


@pytest.mark.parametrize(
    ("bundle", "code"),
    [
        ("440100000000/202611/x", "publish.out-of-scope"),
        (f"{COUNTY}/202611/x", "publish.out-of-scope"),
        ("441900003000/202611/gone", "publish.withdrawn"),
        ("441900003000/202611/there", "promote.already"),
    ],
)
def test_promoting_what_must_not_be_is_refused(county: Place, bundle: str, code: str) -> None:
    both = [county.signer("reviewer-1"), county.signer("reviewer-2")]
    withdraw(county.repository, "441900003000/202611/gone", "x", both, now=NOW)
    sign_promotion(county.repository, [make_listing("441900003000/202611/there")], both, now=NOW)
    run = lambda: sign_promotion(county.repository, [make_listing(bundle)], both, now=NOW)  # noqa: E731
    assert _refused(county, run) == code


def test_promotion_with_a_wrong_descriptor_or_key_is_refused(nation: Place) -> None:
    listing, _descriptor = make_listing(f"{COUNTY}/202611/opera")
    reviewer, targets = nation.signer("reviewer-1"), nation.signer("targets")
    run = lambda data, key: sign_promotion(nation.repository, [(listing, data)], [key], now=NOW)  # noqa: E731
    assert _refused(nation, lambda: run(b"", reviewer)) == "promote.bad-descriptor"
    assert _refused(nation, lambda: run(_descriptor, targets)) == "promote.no-reviewer"


def test_new_revision_is_promoted_over_the_old(nation: Place) -> None:
    both = [nation.signer("reviewer-1"), nation.signer("reviewer-2")]
    bundle = f"{COUNTY}/202611/opera"
    for revision in (1, 2):
        sign_promotion(nation.repository, [make_listing(bundle, revision)], both, now=NOW)
    assert nation.repository.load().promoted()[bundle].custom["rev"] == 2


# Members.


def test_members_list_is_signed_by_the_enrolment_key_alone(county: Place) -> None:
    member = Member(Division("441900003005"), bytes(32), "active", NOW.date(), NOW.date())
    listed = MembersList.of([member])
    assert county.repository.members() == MembersList()
    county.repository.set_members(listed, county.signer("enrolment"), now=NOW)
    assert county.repository.members() == listed
    code = _refused(
        county, lambda: county.repository.set_members(listed, county.signer("targets"), now=NOW)
    )
    assert code == "authority.not-signed"


# Kills.


def _usable(place: Place) -> None:
    """What is there verifies, and can be gone on with."""
    current = place.repository.load()
    for role in current.roles.values():
        for target in role.signed.targets.values():
            place.repository.blob(target)
    place.repository.resign_timestamp(NOW + DAY)


@pytest.mark.slow
def test_kill_while_publishing_leaves_nothing_listed_or_everything_there(county: Place) -> None:
    folder = county.repository.path
    backup = folder.with_name("backup")
    shutil.copytree(folder, backup)
    listing, descriptor = make_listing(f"{COUNTY}/202611/opera")
    signer = county.signer("targets")
    seen = set()

    def reset() -> None:
        shutil.rmtree(folder)
        shutil.copytree(backup, folder)

    def check(_moment: int) -> None:
        seen.add(county.repository.load().listing(listing.id) is not None)
        _usable(county)

    moments = kill_everywhere(
        lambda: publish(county.repository, listing, descriptor, [signer], now=NOW),
        check,
        reset,
        folder,
    )
    assert moments > 20
    assert seen == {False, True}


def test_files_appear_in_an_order_that_a_reader_without_the_lock_can_follow(
    county: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    listing, descriptor = make_listing(f"{COUNTY}/202611/opera")
    folder = county.repository.path
    appeared: list[str] = []
    replace = Path.replace

    def watch(self: Path, target: Path) -> Path:
        target = Path(target)
        if folder in target.parents and "commit" not in target.relative_to(folder).parts[0]:
            appeared.append(str(target.relative_to(folder)))
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", watch)
    publish(county.repository, listing, descriptor, [county.signer("targets")], now=NOW)
    assert appeared == [
        f"targets/{listing.sha256}",
        "metadata/1.202611.json",
        "metadata/2.targets.json",
        "metadata/2.snapshot.json",
        "metadata/timestamp.json",
    ]


def test_kill_while_resigning_never_loses_the_timestamp(county: Place) -> None:
    def check(_moment: int) -> None:
        county.repository.load()

    kill_everywhere(
        lambda: county.repository.resign_timestamp(NOW),
        check,
        lambda: None,
        county.repository.path,
    )
    county.repository.resign_timestamp(NOW)


def test_kill_while_making_an_authority_leaves_none_or_a_whole_one(tmp_path: Path) -> None:
    moments = 0
    while True:
        folder = tmp_path / str(moments)
        folder.mkdir()
        try:
            with killed_after(moments, folder / f"data-{COUNTY}"):
                make_place(folder, COUNTY)
        except Killed:
            repository = AuthorityRepository(folder / f"data-{COUNTY}" / "authority")
            if repository.path.exists():
                with repository._journal.locked():
                    pass
            if repository.exists():
                repository.load()
            else:
                assert not files_below(repository.path).keys() - {"lock"}
            moments += 1
            continue
        break
    assert moments > 20


def test_old_versions_go_and_roots_stay(county: Place) -> None:
    for number in range(6):
        _publish(county, f"b{number}")
    names = {path.name for path in (county.repository.path / "metadata").iterdir()}
    months = sorted(name for name in names if name.endswith(".202611.json"))
    assert months == ["4.202611.json", "5.202611.json", "6.202611.json"]
    assert "1.root.json" in names
    county.repository.load()


def test_leftover_of_a_killed_change_never_becomes_part_of_the_next(county: Place) -> None:
    stray = county.repository.path / "metadata" / "1.202611.json"
    stray.write_bytes(b"half-written")
    _publish(county, "opera")
    assert Metadata.from_bytes(stray.read_bytes()).signed.version == 1


def test_endorse_and_install_can_be_repeated(tmp_path: Path, nation: Place, county: Place) -> None:
    proposal = propose(
        nation.repository.load(), county.request, until=None, is_new_epoch=False, now=NOW
    )
    assert proposal.is_renewal
    assert proposal.epoch == 1
    response = endorse(
        nation.repository, proposal, [nation.signer("targets")], nation.ca_key(), now=NOW
    )
    for _time in range(2):
        install(county.repository, response, now=NOW)

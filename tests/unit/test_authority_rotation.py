"""Key drills: a stick lost, an online key stolen, three years over."""

from __future__ import annotations

import datetime as dt
from pathlib import Path

import pytest
from tuf.api.metadata import Metadata, Root

from cuntong_daemon.authority.keys import AuthorityError, KeyRing, new_key, write_key
from cuntong_daemon.authority.publishing import publish, sign_promotion
from cuntong_daemon.authority.rotation import (
    collect_signers,
    expiries,
    plan_renewal,
    plan_rotation,
    renew,
    rotate,
)
from tests.support.authorities import (
    NOW,
    PASSPHRASE,
    Place,
    cheap_passphrases,
    files_below,
    kill_everywhere,
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
def county(tmp_path: Path) -> Place:
    nation = make_place(tmp_path, "000000000000")
    place = make_place(tmp_path, COUNTY)
    take_in(nation, place)
    listing, descriptor = make_listing(f"{COUNTY}/202611/opera")
    publish(place.repository, listing, descriptor, [place.signer("targets")], now=NOW)
    return place


def _rotate(place: Place, name: str, ring: KeyRing, stick: int = 0) -> str:
    """Replace a key as the command does; returns the old key id."""
    current = place.repository.load()
    old = current.settings.keys.get(name, "")
    key = new_key()
    signers = collect_signers(plan_rotation(current, name), ring)
    if name != "online":
        path = place.sticks[stick] / f"{name}.new.pem"
        write_key(path, key, PASSPHRASE, authority=place.code, name=name)
    rotate(place.repository, name, key, signers, now=NOW + DAY)
    return old


def _check_root_chain(place: Place) -> None:
    """Every root is signed by its own quorum and by that of the one before."""
    folder = place.repository.path / "metadata"
    roots: list[Metadata[Root]] = [
        Metadata.from_bytes((folder / f"{number}.root.json").read_bytes())
        for number in range(1, place.repository.load().root.signed.version + 1)
    ]
    for before, after in zip([roots[0], *roots], roots, strict=False):
        before.signed.verify_delegate("root", after.signed_bytes, after.signatures)
        after.signed.verify_delegate("root", after.signed_bytes, after.signatures)


@pytest.mark.parametrize(
    "name", ["root-1", "root-3", "targets", "online", "enrolment", "reviewer-2"]
)
def test_replaced_key_signs_nothing_any_more(county: Place, name: str) -> None:
    online = county.repository.load().root.signed.roles["timestamp"].keyids[0]
    old = _rotate(county, name, county.ring(), stick=2) or online
    after = county.repository.load()
    assert old not in after.root.signed.keys
    assert after.targets.delegations is not None
    assert old not in after.targets.delegations.keys
    _check_root_chain(county)
    listing, descriptor = make_listing(f"{COUNTY}/202611/poetry")
    publish(county.repository, listing, descriptor, [county.signer("targets")], now=NOW + DAY)
    assert len(county.repository.load().listings()) == 2
    county.repository.resign_timestamp(NOW + 2 * DAY)


def test_lost_root_stick_is_replaced_by_the_other_two(county: Place) -> None:
    _rotate(county, "root-1", county.ring(1, 2), stick=1)
    _check_root_chain(county)


def test_root_quorum_that_is_lost_is_said_before_anything_is_written(county: Place) -> None:
    before = files_below(county.repository.path)
    with pytest.raises(AuthorityError) as caught:
        _rotate(county, "root-1", county.ring(2))
    assert caught.value.code == "keys.no-quorum"
    assert files_below(county.repository.path) == before


def test_reviewer_who_left_need_not_sign(county: Place) -> None:
    (county.sticks[0] / "reviewer-1.pem").unlink()
    _rotate(county, "reviewer-1", county.ring())
    candidate = make_listing("441900003000/202611/x")
    signers = [county.signer("reviewer-1"), county.signer("reviewer-2")]
    assert sign_promotion(county.repository, [candidate], signers, now=NOW + DAY).is_published


def test_replacing_the_only_reviewer_works(tmp_path: Path) -> None:
    place = make_place(tmp_path, "000000000000", reviewers=1)
    (place.sticks[0] / "reviewer-1.pem").unlink()
    _rotate(place, "reviewer-1", place.ring())


@pytest.mark.parametrize(
    ("name", "code"),
    [("ca", "rotate.ca"), ("root-9", "rotate.unknown-key"), ("x", "rotate.unknown-key")],
)
def test_key_that_can_not_be_replaced_is_said(county: Place, name: str, code: str) -> None:
    with pytest.raises(AuthorityError) as caught:
        plan_rotation(county.repository.load(), name)
    assert caught.value.code == code


def test_rotation_signed_by_too_few_changes_nothing(county: Place) -> None:
    before = files_below(county.repository.path)
    for name in ("root-1", "targets", "online", "enrolment", "reviewer-1"):
        with pytest.raises(AuthorityError) as caught:
            rotate(county.repository, name, new_key(), [county.signer("root-1")], now=NOW)
        assert caught.value.code == "authority.not-signed"
    assert files_below(county.repository.path) == before


def test_kill_while_replacing_the_online_key_is_finished_without_any_stick(county: Place) -> None:
    signers = collect_signers(plan_rotation(county.repository.load(), "online"), county.ring())

    def check(_moment: int) -> None:
        county.repository.load()
        county.repository.resign_timestamp(NOW + DAY)

    kill_everywhere(
        lambda: rotate(county.repository, "online", new_key(), signers, now=NOW + DAY),
        check,
        lambda: None,
        county.repository.path,
    )
    _check_root_chain(county)


def test_renewal_with_all_sticks_gives_everything_three_years(county: Place) -> None:
    chosen = plan_renewal(county.repository.load(), county.ring())
    signers = [county.ring().signer(key, name) for key, name in chosen.items()]
    later = NOW + 365 * DAY
    authority, left = renew(county.repository, signers, now=later)
    assert not left
    ends = expiries(authority)
    assert ends.pop("timestamp") == later + 30 * DAY
    assert set(ends) == {
        "root",
        "months",
        "targets",
        "withdrawn",
        "promoted",
        "members",
        "snapshot",
    }
    assert set(ends.values()) == {later + 3 * 365 * DAY}
    _check_root_chain(county)


def test_renewal_without_the_reviewers_names_what_is_left(county: Place) -> None:
    for stick in county.sticks:
        for path in stick.glob("reviewer-*.pem"):
            path.unlink()
    chosen = plan_renewal(county.repository.load(), county.ring())
    signers = [county.ring().signer(key, name) for key, name in chosen.items()]
    authority, left = renew(county.repository, signers, now=NOW + 365 * DAY)
    assert left == ["promoted"]
    assert authority.roles["promoted"].signed.expires < authority.root.signed.expires


def test_centre_that_was_off_for_two_years_is_renewed(county: Place) -> None:
    later = NOW + 700 * DAY
    with pytest.raises(AuthorityError) as caught:
        county.repository.resign_timestamp(later)
    assert caught.value.code == "authority.clock-ahead"
    chosen = plan_renewal(county.repository.load(), county.ring())
    renew(
        county.repository,
        [county.ring().signer(key, name) for key, name in chosen.items()],
        now=later,
    )
    county.repository.resign_timestamp(later + DAY)


def test_renewal_without_the_root_quorum_is_refused(county: Place) -> None:
    with pytest.raises(AuthorityError) as caught:
        plan_renewal(county.repository.load(), county.ring(2))
    assert caught.value.code == "keys.no-quorum"

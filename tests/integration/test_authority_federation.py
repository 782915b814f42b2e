"""What the authority signs, the verifying client believes: across three levels, and through key drills."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from pathlib import Path

import pytest

from cuntong_daemon.authority.keys import new_key, write_key
from cuntong_daemon.authority.publishing import publish, sign_promotion, withdraw
from cuntong_daemon.authority.rotation import (
    collect_signers,
    plan_renewal,
    plan_rotation,
    renew,
    rotate,
)
from cuntong_daemon.paths import DataPaths
from cuntong_daemon.trust.federation import Federation
from cuntong_daemon.trust.view import View
from cuntong_protocol.divisions import Division
from cuntong_protocol.trust.members import Member, MembersList
from tests.support.authorities import (
    NOW,
    PASSPHRASE,
    Place,
    cheap_passphrases,
    make_listing,
    make_place,
    take_in,
)

DAY = dt.timedelta(days=1)
NATION, PROVINCE, COUNTY = "000000000000", "440000000000", "441900000000"
VILLAGE = "441900003005"


@pytest.fixture(autouse=True)
def _cheap(monkeypatch: pytest.MonkeyPatch) -> None:
    cheap_passphrases(monkeypatch)


@pytest.fixture
def places(tmp_path: Path) -> dict[str, Place]:
    made = {code: make_place(tmp_path, code) for code in (NATION, PROVINCE, COUNTY)}
    take_in(made[NATION], made[PROVINCE])
    take_in(made[PROVINCE], made[COUNTY])
    return made


class Follower:
    """A node whose spool is filled by copying what the authorities have written."""

    def __init__(self, folder: Path, code: str, places: dict[str, Place]) -> None:
        paths = DataPaths(folder / f"node-{code}")
        paths.root.mkdir()
        self.places = places
        self.now = NOW
        self.federation = Federation(
            paths, code=Division(code), profile="strict", clock=lambda: self.now
        )
        root = (places[NATION].repository.path / "metadata" / "1.root.json").read_bytes()
        self.federation.bootstrap(root, NOW)

    def view(self) -> View:
        """Copy everything, and go on until nothing is missing; no authority may be refused."""
        for code, place in self.places.items():
            for path in (place.repository.path / "metadata").iterdir():
                self.federation.spool.store_metadata(Division(code), path.name, path.read_bytes())
        for _round in range(20):
            result = self.federation.refresh()
            blobs = [it.path for it in result.missing if it.path.startswith("blobs/")]
            if not blobs:
                break
            for path in blobs:
                digest = path.removeprefix("blobs/")
                for place in self.places.values():
                    found = place.repository.path / "targets" / digest
                    if found.exists():
                        self.federation.spool.store_blob(digest, found.read_bytes())
        assert not result.problems, [str(it) for it in result.problems]
        assert all(it.state == "fresh" for it in result.view.authorities.values())
        return result.view


@pytest.fixture
def village(tmp_path: Path, places: dict[str, Place]) -> Iterator[Follower]:
    follower = Follower(tmp_path, VILLAGE, places)
    yield follower
    follower.federation.close()


def _publish(place: Place, slug: str, now: dt.datetime = NOW) -> str:
    listing, descriptor = make_listing(f"{place.code}/202611/{slug}")
    publish(place.repository, listing, descriptor, [place.signer("targets")], now=now)
    return listing.id


def test_village_sees_what_three_levels_publish(
    places: dict[str, Place], village: Follower
) -> None:
    ids = {_publish(place, "opera") for place in places.values()}
    view = village.view()
    assert set(view.listings) == ids
    assert set(view.authorities) == {NATION, PROVINCE, COUNTY}
    # The nation's certificate is the anchor that enrolment brings; it isn't listed.
    assert {PROVINCE, COUNTY} <= set(view.ca_certificates)


def test_promotion_carries_a_county_s_bundle_to_another_county(
    tmp_path: Path, places: dict[str, Place]
) -> None:
    bundle = _publish(places[COUNTY], "opera")
    cousin = Follower(tmp_path, "445200003005", places)
    province = Follower(tmp_path, PROVINCE, places)
    assert bundle not in cousin.view().listings
    found = province.view().candidates[bundle]
    listing, descriptor = make_listing(bundle)
    assert (found.sha256, found.infohash) == (listing.sha256, listing.infohash)
    for name in ("reviewer-1", "reviewer-2"):
        sign_promotion(
            places[PROVINCE].repository,
            [(listing, descriptor)],
            [places[PROVINCE].signer(name)],
            now=NOW,
        )
    assert bundle in cousin.view().listings
    cousin.federation.close()
    province.federation.close()


@pytest.mark.parametrize("by", [NATION, PROVINCE, COUNTY])
def test_withdrawal_by_any_level_above_takes_a_bundle_away(
    places: dict[str, Place], village: Follower, by: str
) -> None:
    bundle = _publish(places[COUNTY], "opera")
    assert bundle in village.view().listings
    withdraw(places[by].repository, bundle, "版权", [places[by].signer("reviewer-1")], now=NOW)
    view = village.view()
    assert bundle not in view.listings
    assert view.withdrawn[bundle].by == by
    assert view.withdrawn[bundle].reason == "版权"


def test_members_reach_the_node(places: dict[str, Place], village: Follower) -> None:
    member = Member(Division(VILLAGE), bytes(range(32)), "active", NOW.date(), NOW.date())
    places[COUNTY].repository.set_members(
        MembersList.of([member]), places[COUNTY].signer("enrolment"), now=NOW
    )
    assert village.view().members[Division(COUNTY)] == {Division(VILLAGE): member}


@pytest.mark.parametrize("name", ["root-1", "targets", "online", "enrolment", "reviewer-1"])
@pytest.mark.parametrize("has_seen_before", [True, False])
def test_node_follows_a_replaced_key(
    places: dict[str, Place], village: Follower, name: str, has_seen_before: bool
) -> None:
    county = places[COUNTY]
    first = _publish(county, "opera")
    if has_seen_before:
        village.view()
    key = new_key()
    signers = collect_signers(plan_rotation(county.repository.load(), name), county.ring())
    if name != "online":
        write_key(county.sticks[2] / "new.pem", key, PASSPHRASE, authority=COUNTY, name=name)
    rotate(county.repository, name, key, signers, now=NOW)
    assert set(village.view().listings) == {first}
    second = _publish(county, "poetry")
    assert set(village.view().listings) == {first, second}


def test_node_follows_a_renewal_after_two_years_of_daily_timestamps(
    places: dict[str, Place], village: Follower
) -> None:
    bundle = _publish(places[COUNTY], "opera")
    village.view()
    moment = NOW
    for _time in range(2):
        moment += 200 * DAY
        for place in places.values():
            place.repository.resign_timestamp(moment)
            chosen = plan_renewal(place.repository.load(), place.ring())
            renew(
                place.repository,
                [place.ring().signer(key, name) for key, name in chosen.items()],
                now=moment,
            )
        village.now = moment
        assert set(village.view().listings) == {bundle}


def test_authority_that_lost_its_keys_starts_a_new_epoch(
    tmp_path: Path, places: dict[str, Place], village: Follower
) -> None:
    _publish(places[COUNTY], "opera")
    village.view()
    again = make_place(tmp_path / "again", COUNTY)
    take_in(places[PROVINCE], again, is_new_epoch=True)
    places[COUNTY] = again
    bundle = _publish(again, "poetry")
    view = village.view()
    assert set(view.listings) == {bundle}
    assert view.authorities[Division(COUNTY)].epoch == 2


def test_centre_reads_its_own_repository_where_the_tools_write_it(
    places: dict[str, Place],
) -> None:
    county = places[COUNTY]
    bundle = _publish(county, "opera")
    own = Federation(county.paths, code=county.code, profile="strict", clock=lambda: NOW)
    root = county.repository.path / "parents" / "metadata" / NATION / "1.root.json"
    own.bootstrap(root.read_bytes(), NOW)
    for path in (county.repository.path / "parents").rglob("*"):
        if path.is_file() and path.parent.name.isdigit():
            own.spool.store_metadata(Division(path.parent.name), path.name, path.read_bytes())
        elif path.is_file():
            own.spool.store_blob(path.name, path.read_bytes())
    own.refresh()
    result = own.refresh()
    own.close()
    assert bundle in result.view.listings
    assert not [it for it in result.missing if it.path.startswith("blobs/")]


def test_federation_with_p256_keys_is_believed_too(tmp_path: Path) -> None:
    nation = make_place(tmp_path, NATION, key_type="p256")
    province = make_place(tmp_path, PROVINCE, key_type="p256")
    take_in(nation, province)
    bundle = _publish(province, "opera")
    follower = Follower(tmp_path, "440100000000", {NATION: nation, PROVINCE: province})
    assert set(follower.view().listings) == {bundle}
    follower.federation.close()

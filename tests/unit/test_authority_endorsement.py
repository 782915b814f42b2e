"""Requests, endorsements, responses: what a parent signs and what a child believes."""

from __future__ import annotations

import datetime as dt
from pathlib import Path

import msgspec
import pytest
import zstandard

from cuntong_daemon.authority.endorsement import (
    Response,
    ca_chain,
    check_response,
    encode_request,
    encode_response,
    endorse,
    install,
    propose,
    read_request,
    read_response,
    write_file,
)
from cuntong_daemon.authority.keys import AuthorityError
from cuntong_daemon.pki.certificates import ca_code
from cuntong_protocol.enrolment import EnrolmentError
from tests.support.authorities import (
    NOW,
    Place,
    cheap_passphrases,
    files_below,
    make_place,
    take_in,
)

DAY = dt.timedelta(days=1)


@pytest.fixture(autouse=True)
def _cheap(monkeypatch: pytest.MonkeyPatch) -> None:
    cheap_passphrases(monkeypatch)


@pytest.fixture
def nation(tmp_path: Path) -> Place:
    return make_place(tmp_path, "000000000000")


@pytest.fixture
def province(tmp_path: Path) -> Place:
    return make_place(tmp_path, "440000000000", name="广东")


def _respond(parent: Place, child: Place, now: dt.datetime = NOW, **terms: object) -> Response:
    options = {"until": None, "is_new_epoch": False, **terms}
    proposal = propose(parent.repository.load(), child.request, now=now, **options)  # type: ignore[arg-type]
    return endorse(
        parent.repository, proposal, [parent.signer("targets")], parent.ca_key(), now=now
    )


def _proposing(parent: Place, child: Place, **terms: object) -> str:
    options = {"until": None, "is_new_epoch": False, **terms}
    with pytest.raises(AuthorityError) as caught:
        propose(parent.repository.load(), child.request, now=NOW, **options)  # type: ignore[arg-type]
    return caught.value.code


def test_endorsement_says_scope_epoch_and_end(nation: Place, province: Place) -> None:
    take_in(nation, province)
    target = nation.repository.load().endorsement(province.code)
    assert target is not None
    assert target.custom == {"scope": "44", "epoch": 1, "until": "2028-02-21"}
    assert nation.repository.blob(target) == province.request.root
    assert [ca_code(it) for it in ca_chain(province.repository)] == [province.code, nation.code]


def test_chain_of_three_leads_to_the_nation(tmp_path: Path, nation: Place, province: Place) -> None:
    county = make_place(tmp_path, "441900000000")
    take_in(nation, province)
    take_in(province, county)
    chain = [ca_code(it) for it in ca_chain(county.repository)]
    assert chain == [county.code, province.code, nation.code]
    parents = files_below(county.repository.path / "parents")
    assert f"metadata/{nation.code}/timestamp.json" in parents
    assert f"metadata/{nation.code}/1.root.json" in parents
    assert f"metadata/{province.code}/2.targets.json" in parents


def test_place_that_is_not_below_is_not_endorsed(tmp_path: Path, province: Place) -> None:
    for number, code in enumerate(("000000000000", "440000000000", "450100000000")):
        other = make_place(tmp_path / str(number), code)
        assert _proposing(province, other) == "endorse.not-below"


def test_endorsement_that_ended_already_is_not_made(nation: Place, province: Place) -> None:
    assert _proposing(nation, province, until=NOW.date()) == "endorse.bad-until"


def test_expired_root_is_not_endorsed(tmp_path: Path, nation: Place) -> None:
    old = make_place(tmp_path, "440000000000", now=NOW - 1100 * DAY)
    assert _proposing(nation, old) == "endorse.expired-root"


def test_other_root_needs_a_new_epoch(tmp_path: Path, nation: Place, province: Place) -> None:
    take_in(nation, province)
    assert _proposing(nation, province, is_new_epoch=True) == "endorse.same-root"
    again = make_place(tmp_path / "again", "440000000000")
    assert _proposing(nation, again) == "endorse.other-root"
    response = _respond(nation, again, is_new_epoch=True)
    assert response.epoch == 2
    install(again.repository, response, now=NOW)
    target = nation.repository.load().endorsement(province.code)
    assert target is not None
    assert target.custom["epoch"] == 2


def test_without_a_ca_certificate_nobody_is_endorsed(tmp_path: Path, province: Place) -> None:
    county = make_place(tmp_path, "441900000000")
    before = files_below(province.repository.path)
    with pytest.raises(AuthorityError) as caught:
        _respond(province, county)
    assert caught.value.code == "authority.no-ca"
    assert files_below(province.repository.path) == before


def test_wrong_ca_key_signs_nothing(nation: Place, province: Place) -> None:
    proposal = propose(
        nation.repository.load(), province.request, until=None, is_new_epoch=False, now=NOW
    )
    before = files_below(nation.repository.path)
    with pytest.raises(EnrolmentError) as caught:
        endorse(
            nation.repository,
            proposal,
            [nation.signer("targets")],
            province.ca_key(),
            now=NOW,
        )
    assert caught.value.code == "ca.wrong-key"
    assert files_below(nation.repository.path) == before


def test_fingerprint_covers_every_part_of_a_request(province: Place) -> None:
    request = province.request
    others = [
        msgspec.structs.replace(request, code="450000000000"),
        msgspec.structs.replace(request, name="x"),
        msgspec.structs.replace(request, root=request.root + b" "),
        msgspec.structs.replace(request, ca_key=request.ca_key[:-1] + b"x"),
    ]
    prints = {it.fingerprint for it in (request, *others)}
    assert len(prints) == 5
    assert len(request.fingerprint) == 29


def test_damaged_request_is_refused_at_any_length(tmp_path: Path, province: Place) -> None:
    whole = encode_request(province.request)
    path = tmp_path / "request"
    write_file(path, whole)
    assert read_request(path) == province.request
    tampered = whole.replace(b'"threshold":2', b'"threshold":1')
    damaged = [whole[:length] for length in range(0, len(whole), 97)]
    for data in (*damaged, tampered, b"\x00" * 100_000, whole.replace(b"\x01v", b"\x01w")):
        if data == whole:
            continue
        path.write_bytes(data)
        with pytest.raises(AuthorityError) as caught:
            read_request(path)
        assert caught.value.code == "endorse.bad-request"
    with pytest.raises(AuthorityError):
        read_request(tmp_path / "none")


def test_root_that_is_no_root_is_refused(tmp_path: Path, province: Place) -> None:
    targets = (province.repository.path / "metadata" / "1.targets.json").read_bytes()
    path = tmp_path / "request"
    write_file(path, encode_request(msgspec.structs.replace(province.request, root=targets)))
    with pytest.raises(AuthorityError) as caught:
        read_request(path)
    assert caught.value.code == "endorse.bad-request"


def test_damaged_or_bloated_response_is_refused(
    tmp_path: Path, nation: Place, province: Place
) -> None:
    whole = encode_response(_respond(nation, province))
    path = tmp_path / "response"
    write_file(path, whole)
    assert read_response(path).code == province.code
    bomb = zstandard.compress(bytes(20 * 1024 * 1024))
    unsized = zstandard.ZstdCompressor(write_content_size=False).compress(b"x" * 100)
    damaged = [whole[:length] for length in range(0, len(whole), 211)]
    for data in (*damaged, bomb, unsized, zstandard.compress(b"")):
        path.write_bytes(data)
        with pytest.raises(AuthorityError) as caught:
            read_response(path)
        assert caught.value.code == "install.bad-response"


def test_response_cannot_write_outside_its_folder(
    tmp_path: Path, nation: Place, province: Place
) -> None:
    response = _respond(nation, province)
    evil = msgspec.structs.replace(response, objects={"metadata/../../../evil.json": b"x"})
    path = tmp_path / "response"
    write_file(path, encode_response(evil))
    with pytest.raises(AuthorityError) as caught:
        read_response(path)
    assert caught.value.code == "install.bad-response"


def test_response_for_others_is_not_installed(
    tmp_path: Path, nation: Place, province: Place
) -> None:
    response = _respond(nation, province)
    county = make_place(tmp_path, "441900000000")
    again = make_place(tmp_path / "again", "440000000000")
    for place in (county, again):
        before = files_below(place.repository.path)
        with pytest.raises(AuthorityError) as caught:
            install(place.repository, response, now=NOW)
        assert caught.value.code == "install.not-ours"
        assert files_below(place.repository.path) == before


def test_response_with_a_foreign_chain_is_not_installed(
    tmp_path: Path, nation: Place, province: Place
) -> None:
    response = _respond(nation, province)
    other_nation = make_place(tmp_path / "other", "000000000000")
    foreign = _respond(other_nation, province).ca_chain
    mixed = response.ca_chain.split(b"-----END CERTIFICATE-----\n")[0]
    mixed += b"-----END CERTIFICATE-----\n"
    anchor_of_other = (other_nation.repository.path / "ca.pem").read_bytes()
    current = province.repository.load()
    check_response(
        province.repository, current, msgspec.structs.replace(response, ca_chain=foreign)
    )
    for chain in (b"", b"junk", mixed, mixed + anchor_of_other, anchor_of_other):
        with pytest.raises(AuthorityError) as caught:
            install(province.repository, msgspec.structs.replace(response, ca_chain=chain), now=NOW)
        assert caught.value.code == "install.bad-chain"
    wrong_parent = msgspec.structs.replace(response, parent="450000000000")
    with pytest.raises(AuthorityError) as caught:
        install(province.repository, wrong_parent, now=NOW)
    assert caught.value.code == "install.bad-chain"


def test_older_epoch_is_not_installed_over_a_newer(nation: Place, province: Place) -> None:
    response = _respond(nation, province)
    install(province.repository, msgspec.structs.replace(response, epoch=2), now=NOW)
    with pytest.raises(AuthorityError) as caught:
        install(province.repository, response, now=NOW)
    assert caught.value.code == "install.older"


def test_read_only_stick_is_said(tmp_path: Path) -> None:
    with pytest.raises(AuthorityError) as caught:
        write_file(tmp_path / "none" / "request", b"x")
    assert caught.value.code == "authority.cannot-write"

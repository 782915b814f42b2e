"""The pure part of the trust layer: names, dates, members lists, who wins."""

from __future__ import annotations

from datetime import UTC, date, datetime

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cuntong_protocol.divisions import NATION, Division
from cuntong_protocol.errors import CuntongError
from cuntong_protocol.trust.custom import (
    BlobRef,
    Endorsement,
    Listed,
    Target,
    Tombstone,
    format_time,
    parse_time,
    read_role,
)
from cuntong_protocol.trust.members import MAX_MEMBERS, Member, MembersList, decode_members
from cuntong_protocol.trust.names import (
    MAX_MEMBERS_BYTES,
    TrustError,
    delegated_paths,
    metadata_path,
    parse_object_path,
    probe_path,
    split_bundle_path,
    timestamp_path,
    torrent_path,
)
from cuntong_protocol.trust.rules import (
    Step,
    find_endorsement,
    is_clock_trusted,
    judge_epoch,
    merge_listings,
    merge_tombstones,
)

PROVINCE = Division("440000000000")
COUNTY = Division("441900000000")
VILLAGE = Division("441900003005")
BOATS = f"{COUNTY}/202611/boats"
HASH = "ab" * 32
NOW = datetime(2026, 11, 1, tzinfo=UTC)


def listed(revision: int = 1, sha256: str = HASH, id_: str = BOATS) -> Listed:
    return Listed(id_, sha256, 100, revision, 1000, HASH)


def test_object_paths_are_read_back() -> None:
    for path in (
        timestamp_path(COUNTY),
        metadata_path(COUNTY, "202611", 7),
        metadata_path(COUNTY, "root", 1),
        f"blobs/{HASH}",
        torrent_path(HASH),
    ):
        found = parse_object_path(path)
        middle = f"{found.authority}/" if found.authority else ""
        assert f"{found.kind}/{middle}{found.file_name}" == path


@pytest.mark.parametrize(
    "path",
    [
        "",
        "blobs",
        "blobs/",
        f"blobs/{HASH}/x",
        f"keys/{HASH}",
        "metadata/1.root.json",
        f"metadata/{COUNTY}/../../keys",
        f"metadata/{COUNTY}/1.evil.json",
        "metadata/4419/1.root.json",
        f"torrents/{HASH}.torrent",
    ],
)
def test_path_that_names_no_object_is_refused(path: str) -> None:
    with pytest.raises(CuntongError) as caught:
        parse_object_path(path)
    assert caught.value.code in ("trust.bad-object", "division.bad-code")


def test_probe_path_is_delegated_but_never_a_bundle() -> None:
    for role in ("202611", "promoted", "withdrawn", "members"):
        probe = probe_path(COUNTY, role)
        assert delegated_paths(COUNTY, role)[0].count("/") == probe.count("/")
        with pytest.raises(CuntongError):
            split_bundle_path(probe.removeprefix("withdrawn/"))


@given(st.datetimes(min_value=datetime(1000, 1, 1), max_value=datetime(9999, 12, 31)))  # noqa: DTZ001
def test_times_are_read_back(moment: datetime) -> None:
    whole = moment.replace(microsecond=0, tzinfo=UTC)
    assert parse_time(format_time(whole)) == whole


@pytest.mark.parametrize("text", ["2026-1-1T00:00:00Z", "2026-01-01T00:00:00", "x", ""])
def test_time_in_another_form_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        parse_time(text)


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text() | st.floats(allow_nan=False),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
        max_leaves=20,
    ),
    st.text(max_size=80) | st.sampled_from([BOATS, f"auth/{VILLAGE}.root.json", "members/list"]),
    st.sampled_from(["targets", "202611", "promoted", "withdrawn", "members"]),
    st.integers(min_value=-1, max_value=2**70),
)
def test_no_signed_entry_stops_the_reader(
    custom: object, path: str, role: str, length: int
) -> None:
    """Whatever an authority signs: no exception, at most a sentence that can be sent."""
    _, problems = read_role(COUNTY, role, [Target(path, length, HASH, custom)])
    msgspec.msgpack.encode(problems)


@given(st.binary(max_size=300))
def test_no_members_list_stops_the_reader(data: bytes) -> None:
    try:
        decode_members(data, authority=COUNTY)
    except TrustError as error:
        assert error.code == "trust.bad-members"  # noqa: PT017


def member(code: Division) -> Member:
    return Member(code, b"k" * 32, "active", date(2026, 11, 1), date(2027, 11, 1), "")


def test_members_list_is_canonical_and_read_back() -> None:
    members = [member(VILLAGE), member(COUNTY)]
    data = MembersList.of(members).encode()
    assert data == MembersList.of(reversed(members)).encode()
    assert decode_members(data, authority=PROVINCE).members[VILLAGE] == members[0]
    assert members[0].is_active


@pytest.mark.parametrize("fault", ["twice", "newer", "too long", "stranger", "date", "key"])
def test_members_list_with_a_fault_is_refused_whole(fault: str) -> None:
    row = {
        "code": str(VILLAGE),
        "spki": b"k" * 32,
        "status": "active",
        "since": "2026-11-01",
        "until": "2027-11-01",
        "reason": "",
    }
    table: dict[str, object] = {"v": 1, "members": [row]}
    assert decode_members(msgspec.msgpack.encode(table), authority=COUNTY).members
    table |= {
        "twice": {"members": [row, row]},
        "newer": {"v": 2},
        "too long": {"x": b"x" * MAX_MEMBERS_BYTES},
        "stranger": {"members": [{**row, "code": "530000000000"}]},
        "date": {"members": [{**row, "since": "2026-02-30"}]},
        "key": {"members": [{**row, "spki": b"k"}]},
    }[fault]
    with pytest.raises(TrustError) as caught:
        decode_members(msgspec.msgpack.encode(table), authority=COUNTY)
    assert caught.value.code == "trust.bad-members"


def test_largest_members_list_fits() -> None:
    members = [member(Division(f"4419{number:08}")) for number in range(MAX_MEMBERS)]
    assert len(MembersList.of(members).encode()) <= MAX_MEMBERS_BYTES


def test_epochs_go_up_only() -> None:
    def step(epoch: int, root: str) -> Step:
        endorsement = Endorsement(COUNTY, epoch, date(2029, 1, 1), BlobRef(root, 1))
        return judge_epoch(COUNTY, 2, HASH, endorsement)

    assert step(2, HASH) is Step.KEEP
    assert step(3, HASH) is Step.RAISE
    assert step(3, "cd" * 32) is Step.AFRESH
    for epoch, root, code in ((1, HASH, "trust.epoch-back"), (2, "cd" * 32, "trust.epoch-root")):
        with pytest.raises(TrustError) as caught:
            step(epoch, root)
        assert caught.value.code == code


def test_nearest_listing_authority_endorses() -> None:
    def by(epoch: int) -> dict[Division, Endorsement]:
        return {VILLAGE: Endorsement(VILLAGE, epoch, date(2029, 1, 1), BlobRef(HASH, 1))}

    assert find_endorsement(VILLAGE, {}) is None
    for known, expected in (
        ({NATION: by(1)}, NATION),
        ({NATION: by(1), COUNTY: by(2)}, COUNTY),
        ({NATION: by(1), COUNTY: {}}, NATION),
    ):
        found = find_endorsement(VILLAGE, known)
        assert found is not None
        assert found[0] == expected


def test_clock_is_trusted_between_proven_time_and_a_year_later() -> None:
    assert is_clock_trusted(NOW, NOW)
    assert is_clock_trusted(NOW.replace(year=2027), NOW)
    assert not is_clock_trusted(NOW.replace(year=2028), NOW)
    assert not is_clock_trusted(NOW.replace(month=10), NOW)
    assert not is_clock_trusted(datetime(9999, 12, 31, tzinfo=UTC), NOW)


def test_highest_revision_wins_then_the_higher_authority() -> None:
    other = "cd" * 32
    listings, problems = merge_listings(
        [
            (COUNTY, [listed(2)]),
            (PROVINCE, [listed(1, other)]),
            (NATION, [listed(2)]),
        ],
        {},
    )
    assert listings[BOATS].revision == 2
    assert listings[BOATS].listed_by == (NATION, COUNTY)
    assert not problems
    listings, problems = merge_listings([(COUNTY, [listed()]), (PROVINCE, [listed(1, other)])], {})
    assert listings[BOATS].sha256 == other
    assert [problem.code for problem in problems] == ["trust.contradiction"]


@given(st.lists(st.tuples(st.sampled_from([NATION, PROVINCE, COUNTY]), st.integers(1, 4))))
def test_merging_does_not_depend_on_the_order(entries: list[tuple[Division, int]]) -> None:
    sources = [(by, [listed(revision)]) for by, revision in entries]
    forwards, _ = merge_listings(sources, {})
    backwards, _ = merge_listings(sources[::-1], {})
    assert forwards == backwards


def test_tombstone_hides_every_revision_and_the_highest_one_is_shown() -> None:
    tombstones = merge_tombstones(
        [
            [Tombstone(BOATS, COUNTY, "mistake", NOW)],
            [Tombstone(BOATS, NATION, "law", NOW)],
            [Tombstone(BOATS, PROVINCE, "rights", NOW)],
        ]
    )
    assert tombstones[BOATS].reason == "law"
    listings, _ = merge_listings([(COUNTY, [listed(99)])], tombstones)
    assert not listings

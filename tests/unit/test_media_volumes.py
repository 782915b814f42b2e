"""Which bundle, file and stretch goes onto which volume (SPEC 12.2, 12.8)."""

from __future__ import annotations

import hashlib

import pytest

from cuntong_daemon.policy.volumes import (
    CATALOGUE_GROWTH,
    NO_LIMIT,
    Footprint,
    Medium,
    Payload,
    PayloadFile,
    PlannedVolume,
    Stretch,
    as_parts,
    needed,
    plan_volumes,
    stretch_path,
)
from cuntong_protocol.media.errors import MediaError
from cuntong_protocol.media.layout import MAX_FAT_FILE_BYTES

PIECE = 32 * 1024
MB = 1_000_000
CATALOGUES = {"000000000000": 40_000, "441900000000": 2_000}


def payload(name: str, *lengths: int, paths: tuple[str, ...] = (), piece: int = PIECE) -> Payload:
    files = tuple(
        PayloadFile(number, paths[number] if paths else f"files/{number:03}.bin", length)
        for number, length in enumerate(lengths)
    )
    infohash = hashlib.sha256(name.encode()).digest()
    return Payload(infohash, name, piece, 1_000 + sum(lengths) // piece * 32, files)


def medium(volume: int, cluster: int = 4096, limit: int = NO_LIMIT) -> Medium:
    return Medium(volume, cluster, limit)


def bundles_on(volume: PlannedVolume) -> list[int]:
    return [share.bundle for share in volume.shares]


def stretches(volume: PlannedVolume) -> list[Stretch]:
    return [stretch for share in volume.shares for stretch in share.stretches]


def test_bundles_go_whole_onto_the_first_volume_with_room_in_their_order() -> None:
    payloads = [payload("a", 6 * MB), payload("b", 5 * MB), payload("c", 3 * MB)]
    volumes = plan_volumes(payloads, CATALOGUES, medium(10 * MB))
    assert [bundles_on(volume) for volume in volumes] == [[0, 2], [1]]
    assert all(share.is_whole for volume in volumes for share in volume.shares)


def test_catalogue_alone_is_one_volume() -> None:
    volumes = plan_volumes([], CATALOGUES, medium(MB))
    assert len(volumes) == 1
    assert volumes[0].shares == []
    assert 2 * sum(CATALOGUES.values()) < volumes[0].needed_bytes < MB // 2


def test_bundle_that_every_volume_is_too_small_for_is_cut_at_pieces() -> None:
    volumes = plan_volumes([payload("film", 25 * MB, 500)], CATALOGUES, medium(10 * MB))
    assert len(volumes) == 3
    film = [*stretches(volumes[0]), *stretches(volumes[1])]
    assert all(stretch.is_part and stretch.length % PIECE == 0 for stretch in film)
    assert [stretch.piece for stretch in film] == [0, film[0].length // PIECE]
    assert not any(share.is_whole for volume in volumes for share in volume.shares)
    # What is small enough lies there under its own name.
    assert stretches(volumes[2])[-1] == Stretch(1, 0, 500, is_part=False)


def test_large_bundle_begins_in_the_rest_of_the_last_volume_only_where_that_saves_one() -> None:
    small = payload("small", 3 * MB)
    saving = plan_volumes([small, payload("large", 15 * MB)], CATALOGUES, medium(10 * MB))
    assert [bundles_on(volume) for volume in saving] == [[0, 1], [1]]
    no_gain = plan_volumes([small, payload("large", 18 * MB)], CATALOGUES, medium(10 * MB))
    assert [bundles_on(volume) for volume in no_gain] == [[0], [1], [1]]


def test_what_comes_after_a_large_bundle_fills_the_rests() -> None:
    payloads = [payload("a", 7 * MB), payload("large", 18 * MB), payload("c", 2 * MB)]
    volumes = plan_volumes(payloads, CATALOGUES, medium(10 * MB))
    assert [bundles_on(volume) for volume in volumes] == [[0, 2], [1], [1]]


def test_file_of_4_gib_lies_in_parts_on_fat_and_whole_elsewhere() -> None:
    film = payload("film", 2**32, 2**32 - 1, piece=1 << 20)
    (on_fat,) = plan_volumes([film], {}, medium(32 * 10**9, 32 * 1024, MAX_FAT_FILE_BYTES))
    assert stretches(on_fat) == [
        Stretch(0, 0, 4095 * 2**20, is_part=True),
        Stretch(0, 4095, 2**20, is_part=True),
        Stretch(1, 0, 2**32 - 1, is_part=False),
    ]
    (elsewhere,) = plan_volumes([film], {}, medium(32 * 10**9))
    assert [stretch.is_part for stretch in stretches(elsewhere)] == [False, False]


@pytest.mark.parametrize(
    "name", ["who?.txt", "a:b.txt", "100%.txt", "字" * 256 + ".txt", "<b>.htm"]
)
def test_name_that_some_file_system_refuses_lies_as_a_part(name: str) -> None:
    bundle = payload("bundle", 500, 600, paths=(f"files/{name}", "index"))
    (volume,) = plan_volumes([bundle], {}, medium(10 * MB))
    assert stretches(volume) == [
        Stretch(0, 0, 500, is_part=True),
        Stretch(1, 0, 600, is_part=False),
    ]
    paths = [stretch_path(bundle, stretch) for stretch in stretches(volume)]
    assert paths == [
        f"data/parts/{bundle.infohash.hex()}/0/0",
        f"data/store/{bundle.infohash.hex()}/bundle/index",
    ]


def test_files_that_the_places_have_are_left_out_and_the_others_keep_their_numbers() -> None:
    whole = payload("bundle", 500, 600, 700)
    rest = Payload(whole.infohash, "bundle", PIECE, 1000, (whole.files[0], whole.files[2]))
    (volume,) = plan_volumes([rest], {}, medium(10 * MB))
    assert [stretch.file for stretch in stretches(volume)] == [0, 2]
    assert stretch_path(rest, stretches(volume)[1]).endswith("/bundle/files/002.bin")
    assert volume.shares[0].is_whole


def test_bundle_of_which_the_places_have_every_file_still_brings_its_torrent() -> None:
    (volume,) = plan_volumes([payload("bundle")], {}, medium(10 * MB))
    assert volume.shares[0].stretches == []
    assert volume.shares[0].is_whole


def test_volume_that_not_even_the_catalogue_fits_onto_is_refused() -> None:
    with pytest.raises(MediaError) as caught:
        plan_volumes([], {"000000000000": 2 * MB}, medium(3 * MB))
    assert caught.value.code == "media.volume-too-small"
    assert int(caught.value.sentence.params["needed"]) > 2 * 2 * MB * CATALOGUE_GROWTH // 1000


def test_volume_without_room_for_a_piece_is_refused_with_what_it_needs() -> None:
    films = [payload("film", 30 * MB, piece=8 * 1024 * 1024)]
    with pytest.raises(MediaError) as caught:
        plan_volumes(films, {}, medium(5 * MB))
    assert caught.value.code == "media.volume-too-small"
    needed_bytes = int(caught.value.sentence.params["needed"]) * 1000
    assert plan_volumes(films, {}, medium(needed_bytes))


def test_set_of_ten_thousand_volumes_is_refused() -> None:
    payloads = [payload(f"film {number}", 600_000) for number in range(10_000)]
    with pytest.raises(MediaError) as caught:
        plan_volumes(payloads, {}, medium(1_200_000))
    assert caught.value.code == "media.too-many-volumes"


def test_small_files_are_counted_in_whole_clusters() -> None:
    pictures = payload("pictures", *[20_000] * 400)
    on_ext4 = plan_volumes([pictures], {}, medium(20 * MB, 4096))
    on_exfat = plan_volumes([pictures], {}, medium(20 * MB, 128 * 1024))
    assert len(on_ext4) == 1
    assert len(on_exfat) >= 400 * 128 * 1024 // (20 * MB)


def test_volume_that_goes_to_a_medium_with_larger_clusters_needs_more() -> None:
    pictures = payload("pictures", *[20_000] * 100)
    (volume,) = plan_volumes([pictures], CATALOGUES, medium(20 * MB, 4096))
    shares = [(pictures, volume.shares[0].stretches)]
    assert needed(shares, CATALOGUES, 4096).taken_bytes == volume.needed_bytes
    assert needed(shares, CATALOGUES, 32 * 1024).taken_bytes > volume.needed_bytes
    assert needed(shares, CATALOGUES, 4096).entries >= 100 + 2 + 4


def test_footprint_counts_a_folder_once_and_lets_it_grow() -> None:
    found = Footprint(4096)
    one = found.cost("data/store/x/y/a", 1)
    found.add("data/store/x/y/a", 1)
    assert found.taken_bytes == one
    # The second file finds its folders there; the third makes one of them longer.
    assert found.cost("data/store/x/y/b", 1) < one - 4096
    before = found.entries
    found.add("data/store/x/y/b", 1)
    assert found.entries == before + 1
    assert found.room_for("data/store/x/y/c", found.taken_bytes) < 0


def test_parts_of_a_stretch_join_without_gap() -> None:
    stretch = Stretch(3, 5, 10 * PIECE + 7, is_part=False)
    parts = as_parts(stretch, PIECE, 4 * PIECE + 100)
    assert [(part.piece, part.length) for part in parts] == [
        (5, 4 * PIECE),
        (9, 4 * PIECE),
        (13, 2 * PIECE + 7),
    ]
    assert all(part.is_part and part.file == 3 for part in parts)
    assert as_parts(stretch, PIECE, 1)[0].length == PIECE

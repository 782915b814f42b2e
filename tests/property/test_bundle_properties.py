"""What holds for any folder, any tree and any plan."""

from __future__ import annotations

import hashlib
import tempfile
from pathlib import Path
from typing import Literal

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cuntong_protocol.bundle import bencode
from cuntong_protocol.bundle.bencode import Bencoded
from cuntong_protocol.bundle.descriptor import (
    Descriptor,
    Supersedes,
    decode_descriptor,
    encode_descriptor,
)
from cuntong_protocol.bundle.errors import BundleError
from cuntong_protocol.bundle.index import check_index, check_payload, decode_index, encode_index
from cuntong_protocol.bundle.merkle import BLOCK, FileHasher, hash_file, reduce_layer
from cuntong_protocol.bundle.metadata import Audience, Metadata
from cuntong_protocol.bundle.packing import Content, Plan, make_pack, plan_packs, unpack_pack
from cuntong_protocol.bundle.paths import check_paths, fold
from cuntong_protocol.bundle.torrent import HashedFile, decode_torrent, make_torrent
from cuntong_protocol.divisions import TIER_LABELS
from tests.support.bundles import (
    as_predecessor,
    build,
    new_bytes,
    noise,
    poems_file,
    read_payload,
    write_folder,
)

bencoded: st.SearchStrategy[Bencoded] = st.recursive(
    st.integers(-(10**17), 10**17) | st.binary(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.binary(max_size=5), inner, max_size=4)
    ),
    max_leaves=20,
)


@given(bencoded)
def test_bencoding_comes_back(value: Bencoded) -> None:
    assert bencode.decode(bencode.encode(value)) == value


@given(st.binary(max_size=200))
def test_what_bencoding_reads_it_writes_back(data: bytes) -> None:
    try:
        value = bencode.decode(data)
    except BundleError:
        return
    assert bencode.encode(value) == data


@given(
    st.integers(0, 9 * BLOCK), st.lists(st.integers(1, 3 * BLOCK), max_size=20), st.integers(0, 3)
)
@settings(deadline=None)
def test_any_chunking_gives_the_same_hashes(size: int, steps: list[int], shift: int) -> None:
    data = noise(size, size)
    piece_length = BLOCK << shift
    hasher = FileHasher(piece_length)
    start = 0
    for step in steps:
        hasher.update(data[start : start + step])
        start += step
    hasher.update(data[start:])
    root, layer = hasher.finish()
    assert (root, layer) == hash_file(data, piece_length)
    if size > piece_length:
        assert layer == reduce_layer(hash_file(data, BLOCK)[1], BLOCK, piece_length)


not_surrogates: tuple[Literal["Cs"]] = ("Cs",)
names = st.text(
    st.characters(exclude_categories=not_surrogates), min_size=1, max_size=8
) | st.sampled_from(["a", "A", "诗", "é", "e\u0301", "con", "..", "a b"])
paths = st.lists(names, min_size=1, max_size=4).map("/".join)


@given(st.lists(paths, max_size=8), st.lists(paths, max_size=3))
def test_paths_that_pass_are_distinct_everywhere_and_stay_inside(
    files: list[str], folders: list[str]
) -> None:
    try:
        check_paths(files, folders)
    except BundleError:
        return
    assert len({fold(path) for path in files}) == len(files)
    folded_files = {fold(path) for path in files}
    for path in (*files, *folders):
        assert not {"", ".", ".."} & set(path.split("/"))
        assert Path("/library/x", path).is_relative_to("/library/x")
        above = [fold(str(parent)) for parent in Path(path).parents]
        assert not folded_files & set(above)


hashes = st.binary(min_size=32, max_size=32)
titles = st.text(st.characters(exclude_categories=("Cc", "Cs")), min_size=1, max_size=40).filter(
    lambda text: (
        not set(text) & set("\u2028\u2029\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
    )
)
descriptors = st.builds(
    lambda revision, title, tiers, priority, infohash, size, date: Descriptor(
        id="440000000000/202703/poems",
        revision=revision,
        metadata=Metadata(
            title=title,
            slug="poems",
            date=date,
            priority=priority,
            audience=Audience(tiers=tuple(tiers)),
        ),
        infohash=infohash,
        piece_length=32_768,
        payload_size=size,
        content_size=size,
        file_count=1,
        supersedes=None if revision == 1 else Supersedes(revision - 1, infohash, infohash),
    ),
    st.integers(1, 1_000_000),
    titles,
    st.lists(st.sampled_from(TIER_LABELS), max_size=6),
    st.integers(0, 9),
    hashes,
    st.integers(1, 1 << 50),
    st.dates(),
)


@given(descriptors)
def test_descriptor_comes_back_and_equal_ones_have_equal_bytes(descriptor: Descriptor) -> None:
    data = encode_descriptor(descriptor)
    assert decode_descriptor(data) == descriptor
    assert encode_descriptor(decode_descriptor(data)) == data


@given(
    st.dictionaries(
        st.sampled_from(["index", "packs/a", "files/诗", "files/b/c", "files/b/d"]),
        st.integers(1, 200_000),
        min_size=2,
    )
)
@settings(deadline=None)
def test_torrent_comes_back(sizes: dict[str, int]) -> None:
    files = [
        HashedFile(path, size, *hash_file(noise(size, size), 32_768))
        for path, size in sizes.items()
    ]
    torrent = make_torrent("poems", 32_768, files)
    assert decode_torrent(torrent.encode(), infohash=torrent.infohash) == torrent
    assert torrent.piece_count == sum(len(torrent.pieces_of(file)) for file in torrent.files)


@given(st.binary(max_size=5000), st.binary(max_size=5000))
@settings(deadline=None)
def test_packs_come_back_with_and_without_a_base(data: bytes, base: bytes) -> None:
    assert unpack_pack(make_pack(data), len(data)) == data
    assert unpack_pack(make_pack(data, base), len(data), base or None) == data


contents = st.lists(
    st.tuples(st.integers(0, 60), st.integers(1, 400_000)), max_size=40, unique_by=lambda it: it[0]
).map(
    lambda pairs: [
        Content(
            hashlib.sha256(b"%d/%d" % (number, size)).digest(),
            size,
            (f"{number:03}",),
            number % 7 != 0,
        )
        for number, size in pairs
    ]
)


@given(contents)
def test_plan_puts_each_content_in_one_place(wanted: list[Content]) -> None:
    plan = plan_packs(wanted)
    _check_plan(plan, wanted)
    assert plan == plan_packs(list(reversed(wanted)))


def _check_plan(plan: Plan, wanted: list[Content]) -> None:
    placed = [*plan.places, *(it.root for it in plan.stored)]
    placed += [it.root for pack in plan.new for it in pack.contents]
    assert sorted(placed) == sorted(it.root for it in wanted)
    kept = {pack.name: pack for pack in plan.kept}
    assert {name for name, _ in plan.places.values()} <= kept.keys()
    for base in (*(pack.base for pack in plan.kept), *(pack.base for pack in plan.new)):
        assert base is None or kept[base].base is None


actions = st.lists(
    st.tuples(st.integers(0, 12), st.sampled_from(["edit", "rewrite", "delete", "move", "add"])),
    min_size=1,
    max_size=6,
)


@given(st.lists(actions, min_size=1, max_size=3))
@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_any_history_of_revisions_gives_back_its_folder(
    history: list[list[tuple[int, str]]],
) -> None:
    files = {f"{n % 3}/{n}.json": poems_file(n * 50, 10 + n * 15) for n in range(8)}
    files |= {f"p/{n}.jpg": noise(n, 20_000 + n) for n in range(4)}
    fresh = 100
    with tempfile.TemporaryDirectory() as place:
        last = build(write_folder(Path(place) / "0", files), Path(place) / "out0")
        for revision, actions in enumerate(history, start=2):
            for number, action in actions:
                path = sorted(files)[number % len(files)]
                fresh += 1
                match action:
                    case "edit":
                        half = len(files[path]) // 2
                        files[path] = files[path][:half] + b"edit%d" % fresh + files[path][half:]
                    case "rewrite":
                        files[path] = poems_file(fresh * 50, 40)
                    case "move":
                        files[f"moved/{fresh}"] = files.pop(path)
                    case "add":
                        files[f"added/{fresh}"] = poems_file(fresh * 50, 30)
                    case "delete" if len(files) > 1:
                        del files[path]
            source = write_folder(Path(place) / str(revision), files)
            before = last
            last = build(
                source,
                Path(place) / f"out{revision}",
                revision=revision,
                predecessor=as_predecessor(before),
            )
            assert read_payload(last) == files
            assert new_bytes(last, before) <= last.descriptor.payload_size
            index = decode_index(
                encode_index(last.index),
                content_size=last.descriptor.content_size,
                file_count=last.descriptor.file_count,
            )
            check_index(index)
            check_payload(index, last.torrent)

"""Indexes, packs and what must not be believed of them."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
import zstandard
from msgspec.structs import replace

from cuntong_protocol.bundle import index as index_module
from cuntong_protocol.bundle import packing
from cuntong_protocol.bundle.errors import BundleError
from cuntong_protocol.bundle.index import (
    Index,
    IndexFile,
    IndexPack,
    check_index,
    check_payload,
    decode_index,
    encode_index,
    pack_name,
)
from cuntong_protocol.bundle.merkle import EMPTY_ROOT, hash_file
from cuntong_protocol.bundle.packing import (
    Content,
    gather,
    is_packable,
    make_pack,
    plan_packs,
    unpack_pack,
)
from cuntong_protocol.bundle.torrent import HashedFile, make_torrent
from tests.support.bundles import noise, poems_file

ROOT_A, ROOT_B, ROOT_C = bytes([1]) * 32, bytes([2]) * 32, bytes([3]) * 32
PACK_1, PACK_2 = IndexPack("00" * 8 + ".zst", 100), IndexPack("11" * 8 + ".zst", 50, 0)
GOOD = Index(
    files=(
        IndexFile("a", 60, 7, ROOT_A, pack=0, offset=10),
        IndexFile("b", 50, 7, ROOT_B, pack=1),
        IndexFile("c.jpg", 900, 7, ROOT_C, stored="c.jpg"),
        IndexFile("d.jpg", 900, 7, ROOT_C, stored="c.jpg"),
        IndexFile("e", 0, 7, EMPTY_ROOT),
    ),
    packs=(PACK_1, PACK_2),
    folders=("f", "g"),
)
SIZE, COUNT = 60 + 50 + 1800, 5


def pack_raw(raw: object) -> bytes:
    return zstandard.ZstdCompressor().compress(msgspec.msgpack.encode(raw))


def test_index_round_trip() -> None:
    data = encode_index(GOOD)
    assert decode_index(data, content_size=SIZE, file_count=COUNT) == GOOD
    assert encode_index(GOOD) == data


def test_later_fields_are_skipped_and_later_versions_refused() -> None:
    raw = msgspec.to_builtins(GOOD, builtin_types=(bytes,))
    raw["later"] = 1
    raw["packs"] = [[*pack, "later"] for pack in raw["packs"]]
    assert decode_index(pack_raw(raw), content_size=SIZE, file_count=COUNT) == GOOD
    raw["v"] = 2
    with pytest.raises(BundleError) as caught:
        decode_index(pack_raw(raw), content_size=SIZE, file_count=COUNT)
    assert caught.value.code == "bundle.newer-version"


def _file(number: int, **changes: Any) -> Index:
    files = list(GOOD.files)
    files[number] = replace(files[number], **changes)
    return replace(GOOD, files=tuple(files))


def _pack(number: int, **changes: Any) -> Index:
    packs = list(GOOD.packs)
    packs[number] = replace(packs[number], **changes)
    return replace(GOOD, packs=tuple(packs))


UNSOUND: list[tuple[str, Index]] = [
    ("files out of order", _file(0, path="z")),
    ("folders out of order", replace(GOOD, folders=("g", "f"))),
    ("file in a pack that isn't there", _file(0, pack=2)),
    ("file beyond its pack", _file(0, offset=41)),
    ("packed file that is stored too", _file(0, stored="a")),
    ("file that lies nowhere", _file(2, stored=None)),
    ("file stored under a name that comes later", _file(2, stored="d.jpg")),
    ("file stored under a packed one's name", _file(3, stored="a")),
    ("copy of another size", _file(3, size=901)),
    ("copy of another content", _file(3, root=ROOT_A)),
    ("stored file with an offset", _file(2, offset=1)),
    ("empty file with a root", _file(4, root=ROOT_A)),
    ("empty file in a pack", _file(4, pack=0)),
    ("empty file that is stored", _file(4, stored="e")),
    ("empty file with an offset", _file(4, offset=1)),
    ("two packs of one name", _pack(1, name=PACK_1.name)),
    ("pack with a path for a name", _pack(0, name="../../etc/passwd")),
    ("pack that is its own base", _pack(1, base=1)),
    ("base with a base", _pack(0, base=1)),
    ("base that isn't there", _pack(1, base=2)),
    ("pack that nothing uses", replace(GOOD, packs=(*GOOD.packs, IndexPack("22" * 8 + ".zst", 9)))),
    (
        "packs much larger than the files",
        replace(
            GOOD,
            files=(
                *GOOD.files[:1],
                *(IndexFile(f"b{n}", 1, 7, bytes([n]) * 32, n) for n in range(1, 4)),
            ),
            packs=(PACK_1, *(IndexPack(f"{n:016x}.zst", 32 << 20) for n in range(1, 4))),
        ),
    ),
]


@pytest.mark.parametrize(("story", "index"), UNSOUND)
def test_index_that_contradicts_itself_is_refused(story: str, index: Index) -> None:
    with pytest.raises(BundleError) as caught:
        check_index(index)
    assert caught.value.code == "bundle.bad-index", story
    with pytest.raises(BundleError):
        encode_index(index)


def test_index_with_other_sums_than_the_descriptor_is_refused() -> None:
    data = encode_index(GOOD)
    for size, count in ((SIZE + 1, COUNT), (SIZE, COUNT + 1)):
        with pytest.raises(BundleError) as caught:
            decode_index(data, content_size=size, file_count=count)
        assert caught.value.code == "bundle.bad-index"


def test_index_with_wrong_types_is_refused() -> None:
    raw = msgspec.to_builtins(GOOD, builtin_types=(bytes,))
    bad_indexes: list[object] = [
        {**raw, "files": 1},
        {**raw, "files": [["a"]]},
        {**raw, "files": [[1, *raw["files"][0][1:]], *raw["files"][1:]]},
        {**raw, "packs": [["x", 1 << 40]]},
        {**raw, "folders": [b"f"]},
        [],
        {},
    ]
    for bad in bad_indexes:
        with pytest.raises(BundleError) as caught:
            decode_index(pack_raw(bad), content_size=SIZE, file_count=COUNT)
        assert caught.value.code == "bundle.bad-index"


def test_index_with_a_harmful_path_is_refused() -> None:
    raw = msgspec.to_builtins(GOOD, builtin_types=(bytes,))
    raw["files"][4][0] = "e/../../x"
    with pytest.raises(BundleError) as caught:
        decode_index(pack_raw(raw), content_size=SIZE, file_count=COUNT)
    assert caught.value.code == "bundle.bad-path"


def test_index_too_long_to_read_is_not_written(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(index_module, "MAX_INDEX_BYTES", 100)
    with pytest.raises(BundleError) as caught:
        encode_index(GOOD)
    assert caught.value.code == "bundle.bad-index"


def _frames() -> list[bytes]:
    good = zstandard.ZstdCompressor().compress(bytes(1000))
    return [
        b"",
        b"x" * 50,
        good[:-1],
        good + b"x",
        good + good,
        zstandard.ZstdCompressor(write_content_size=False).compress(bytes(1000)),
        zstandard.ZstdCompressor().compress(bytes(1001)),
        b"\x50\x2a\x4d\x18\x04\x00\x00\x00abcd",
        # States 4 GiB.
        b"\x28\xb5\x2f\xfd\xa0\x00\x00\x00\xff" + good[6:],
        # States 1000, holds 999 and more.
        zstandard.ZstdCompressor().compress(bytes(1000))[:6] + bytes(3),
    ]


@pytest.mark.parametrize("number", range(10))
def test_pack_that_is_not_what_it_says_is_refused(number: int) -> None:
    with pytest.raises(BundleError) as caught:
        unpack_pack(_frames()[number], 1000)
    assert caught.value.code == "bundle.bad-frame"


def test_delta_needs_its_base() -> None:
    base = poems_file(0, 300)
    data = base.replace("天".encode(), "地".encode(), 3)
    delta = make_pack(data, base)
    assert len(delta) < 0.01 * len(data)
    assert unpack_pack(delta, len(data), base) == data
    with pytest.raises(BundleError) as caught:
        unpack_pack(delta, len(data))
    assert caught.value.code == "bundle.bad-frame"


def test_payload_that_is_not_the_index_is_refused() -> None:
    contents = {"index": b"i", "packs/x": b"p", "files/c.jpg": noise(1, 900)}
    entries = {
        path: HashedFile(path, len(it), *hash_file(it, 32_768)) for path, it in contents.items()
    }
    pack = entries.pop("packs/x")
    name = pack_name(pack.root)
    entries[f"packs/{name}"] = HashedFile(f"packs/{name}", 1, pack.root, b"")
    stored = entries["files/c.jpg"]
    index = Index(
        (
            IndexFile("a", 10, 0, ROOT_A, pack=0),
            IndexFile("c.jpg", 900, 0, stored.root, stored="c.jpg"),
        ),
        (IndexPack(name, 10),),
    )
    check_index(index)
    check_payload(index, make_torrent("x", 32_768, entries.values()))
    other = "packs/0000000000000000.zst"
    bad = [
        {**entries, "files/more": HashedFile("files/more", 1, pack.root, b"")},
        {path: it for path, it in entries.items() if path != "files/c.jpg"},
        {**entries, "files/c.jpg": HashedFile("files/c.jpg", 901, stored.root, b"")},
        {**entries, "files/c.jpg": HashedFile("files/c.jpg", 900, ROOT_B, b"")},
        {**entries, f"packs/{name}": HashedFile(f"packs/{name}", 1, ROOT_B, b"")},
        {
            "index": entries["index"],
            "files/c.jpg": stored,
            other: HashedFile(other, 1, pack.root, b""),
        },
    ]
    for files in bad:
        with pytest.raises(BundleError) as caught:
            check_payload(index, make_torrent("x", 32_768, files.values()))
        assert caught.value.code == "bundle.payload-mismatch"


# Planning.


def content(number: int, size: int, path: str | None = None, *, packable: bool = True) -> Content:
    root = hash_file(number.to_bytes(8, "big"), 32_768)[0]
    return Content(root, size, (path or f"{number:06}.txt",), packable)


def test_small_files_are_gathered_and_large_ones_stand_alone() -> None:
    contents = [content(n, 50_000) for n in range(200)]
    contents.insert(7, content(999, 128 * 1024, "000006a"))
    packs = gather(contents)
    assert [content(999, 128 * 1024, "000006a")] in packs
    gathered = [pack for pack in packs if len(pack) > 1]
    sizes = [sum(it.size for it in pack) for pack in gathered]
    assert all(1 << 20 <= size <= 4 << 20 for size in sizes[:-1])
    assert [it for pack in gathered for it in pack] == [it for it in contents if it.size == 50_000]


def test_gathered_packs_never_exceed_their_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packing, "GATHERED_MEAN_BYTES", 1 << 60)
    packs = gather([content(n, 120_000) for n in range(100)])
    assert [len(pack) for pack in packs] == [34, 34, 32]


def test_same_files_after_others_meet_the_same_packs_again() -> None:
    common = [content(n, 60_000) for n in range(1000, 1400)]
    one = gather([*(content(n, 70_000) for n in range(10)), *common])
    other = gather([*(content(n, 90_000) for n in range(500, 533)), *common])
    shared = {tuple(it.root for it in pack) for pack in one} & {
        tuple(it.root for it in pack) for pack in other
    }
    assert len(shared) > 0.5 * len(other)


def test_what_is_compressible() -> None:
    assert is_packable(100, noise(1, 100))
    assert not is_packable(20_000, noise(1, 20_000))
    assert is_packable(20_000, bytes(20_000))
    assert not is_packable(32 << 20, bytes(20_000))


def test_stored_contents_stay_stored_even_beside_packs() -> None:
    plan = plan_packs([content(1, 50_000, packable=False), content(2, 10)])
    assert [it.size for it in plan.stored] == [50_000]
    assert [len(pack.contents) for pack in plan.new] == [1]


def _index_of(*packs: tuple[tuple[Content, ...], int | None]) -> Index:
    files: list[IndexFile] = []
    listed: list[IndexPack] = []
    for number, (contents, base) in enumerate(packs):
        offset = 0
        for it in contents:
            files.append(IndexFile(it.paths[0], it.size, 0, it.root, number, offset))
            offset += it.size
        listed.append(IndexPack(f"{number:016x}.zst", offset, base))
    return Index(tuple(sorted(files, key=lambda file: file.path)), tuple(listed))


def test_pack_is_kept_at_four_fifths_and_not_below() -> None:
    contents = tuple(content(n, 10) for n in range(10))
    before = _index_of((contents, None))
    assert [pack.name for pack in plan_packs(contents[2:], before).kept] == [before.packs[0].name]
    plan = plan_packs(contents[3:], before)
    assert plan.kept == ()
    assert [it.base for it in plan.new] == [None]


def test_delta_whose_base_goes_is_packed_anew() -> None:
    old, rest = content(1, 200_000, "a"), tuple(content(n, 10_000) for n in range(10, 60))
    before = _index_of(((*rest,), None), ((old,), 0))
    plan = plan_packs([old], before)
    assert plan.kept == ()
    assert [(it.contents, it.base) for it in plan.new] == [((old,), None)]


def test_other_bundles_pack_is_taken_when_half_is_wanted() -> None:
    contents = tuple(content(n, 10) for n in range(4))
    other = _index_of((contents, None))
    assert len(plan_packs(contents[:2], others=[other]).kept) == 1
    assert plan_packs(contents[:1], others=[other]).kept == ()
    assert len(plan_packs(contents, others=[other, other]).kept) == 1
    # What another pack brings already doesn't count twice.
    overlapping = _index_of((contents[:3], None), ((*contents[1:3], content(9, 5, "z")), None))
    assert [pack.size for pack in plan_packs(contents, others=[overlapping]).kept] == [30]

"""A year's metadata of four levels on a stick (SPEC 12.1, 12.4): how large it is, and what it does for an offline place."""

from __future__ import annotations

import random
from datetime import timedelta
from pathlib import Path

import pytest

from cuntong_daemon.media.medium_source import MediumSource
from cuntong_daemon.media.volume import VolumeFolder
from cuntong_daemon.trust.view import Refresh
from cuntong_protocol.bundle.descriptor import Descriptor, encode_descriptor
from cuntong_protocol.bundle.metadata import parse_metadata
from cuntong_protocol.datacast.objects import Item, encode_catalogue
from cuntong_protocol.divisions import Division
from cuntong_protocol.media import layout
from cuntong_protocol.trust.names import parse_object_path
from tests.support.trust_repo import START, Node, Repository, World, bundle_custom

MONTHS = [f"2026{number:02}" for number in range(1, 13)]
A_MONTH = (60, 30, 15, 5)
"""Bundles that nation, province, county and township publish in one."""
_LETTERS = "天地玄黄宇宙洪荒日月盈昃辰宿列张寒来暑往秋收冬藏闰余成岁律吕调阳云腾致雨露结为霜金生丽水玉出昆冈"


def real_descriptor(identifier: str, chance: random.Random) -> bytes:
    """With as much metadata as a publisher writes."""

    def words(count: int) -> str:
        return "".join(chance.choices(_LETTERS, k=count))

    code, _, slug = identifier.split("/")
    text = f"""\
title = "{words(12)}"
slug = "{slug}"
date = "2026-11-01"
category = "opera/film"
priority = {chance.randrange(10)}
[terms]
creator = ["{words(3)}", "{words(3)}"]
publisher = "{words(8)}"
description = "{words(120)}"
subject = ["{words(4)}", "{words(4)}"]
[audience]
tiers = ["county", "township", "village"]
[release]
name = "2026-11"
deadlines = {{ county = "2027-01-31", village = "2027-03-31" }}
"""
    metadata = parse_metadata(text, file="a.toml", publisher=Division(code))
    size = chance.randrange(10**8, 10**9)
    return encode_descriptor(
        Descriptor(
            id=identifier,
            revision=1,
            metadata=metadata,
            infohash=chance.randbytes(32),
            piece_length=262_144,
            payload_size=size,
            content_size=size,
            file_count=40,
        )
    )


@pytest.fixture(scope="module")
def world() -> World:
    """Four levels that have published for a year."""
    found = World()
    chance = random.Random(1)
    for repository, count in zip(found.all, A_MONTH, strict=True):
        for month in MONTHS:
            repository.month(month)
            for number in range(count):
                identifier = f"{repository.code}/{month}/bundle-{number:03}"
                data = real_descriptor(identifier, chance)
                custom = bundle_custom() | {"infohash": chance.randbytes(32).hex()}
                repository.put(month, identifier, data, custom)
        repository.publish(now=START + timedelta(days=1))
    return found


def stick(folder: Path, *repositories: Repository) -> Path:
    """A volume with catalogues, each twice."""
    volume = folder / layout.volume_folder("abcdefghij", 1)
    for repository in repositories:
        items = [Item(name, data) for name, data in sorted(repository.files.items())]
        items += [Item("", data) for data in repository.blobs.values() if data]
        packed = encode_catalogue(repository.code, items)
        path = layout.catalogue_file(repository.code)
        for place in (path, layout.again(path)):
            (volume / place).parent.mkdir(parents=True, exist_ok=True)
            (volume / place).write_bytes(packed)
    return volume


def take(node: Node, source: MediumSource, *, is_tolerant: bool = True) -> Refresh:
    """What the daemon's keeper does with a volume, by hand."""
    spool = node.federation.spool
    for authority, announced in source.announcements.items():
        if node.federation.wants(authority, announced.version, announced.sha256.hex()):
            data = source.read(f"metadata/{authority}/timestamp.json", 16_384)
            assert data is not None
            spool.store_metadata(authority, "timestamp.json", data)
    while True:
        refresh = node.federation.refresh(is_tolerant=is_tolerant)
        count = 0
        for missing in refresh.missing:
            data = source.read(missing.path, missing.max_bytes)
            if data is None:
                continue
            count += 1
            name = parse_object_path(missing.path)
            if name.authority is None:
                spool.store_blob(name.role, data)
            else:
                spool.store_metadata(name.authority, name.file_name, data)
        # Authorities that were endorsed just now are asked for by name.
        if not count:
            return refresh


def size_of(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def test_year_of_four_levels_is_a_few_megabytes_and_brings_an_offline_village_up_to_date(
    world: World, tmp_path: Path
) -> None:
    volume = stick(tmp_path, *world.all)
    plain = sum(len(it) for r in world.all for it in (*r.files.values(), *r.blobs.values()))
    count = 12 * sum(A_MONTH)
    print(f"{count} bundles: {plain:,} bytes of metadata, {size_of(volume):,} on the stick")
    assert size_of(volume) < 4_000_000
    node = Node(tmp_path / "village")
    node.bootstrap(world.nation)
    with VolumeFolder(volume) as folder:
        source = MediumSource(folder)
        source.look()
        assert not source.damaged
        for _ in world.all:  # Each level endorses the next.
            refresh = take(node, source)
    assert len([it for it in refresh.view.listings if "/bundle-" in it]) == count
    assert refresh.missing == ()
    node.close()


def test_disk_that_was_weeks_in_the_post_is_taken_by_a_place_that_judges_by_the_clock(
    world: World, tmp_path: Path
) -> None:
    volume = stick(tmp_path, world.nation)
    node = Node(tmp_path / "county", Division("441900000000"), profile="strict")
    node.bootstrap(world.nation)
    node.clock.now = START + timedelta(days=60)
    with VolumeFolder(volume) as folder:
        source = MediumSource(folder)
        source.look()
        take(node, source, is_tolerant=False)
        assert not node.federation.refresh().view.listings
    node.close()
    node = Node(tmp_path / "other", Division("441900000000"), profile="strict")
    node.bootstrap(world.nation)
    node.clock.now = START + timedelta(days=60)
    with VolumeFolder(volume) as folder:
        source = MediumSource(folder)
        source.look()
        take(node, source)
    refresh = node.federation.refresh()
    assert len(refresh.view.listings) == 1 + 12 * A_MONTH[0]
    assert refresh.view.authorities[world.nation.code].state == "stale"
    node.close()


def test_catalogue_of_which_one_copy_is_damaged_is_read_from_the_other(
    world: World, tmp_path: Path
) -> None:
    chance = random.Random(3)
    for number in range(20):
        volume = stick(tmp_path / str(number), world.nation)
        path = volume / layout.catalogue_file(world.nation.code)
        data = bytearray(path.read_bytes())
        for _ in range(5):
            data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
        path.write_bytes(data)
        node = Node(tmp_path / f"node-{number}")
        node.bootstrap(world.nation)
        with VolumeFolder(volume) as folder:
            for place in (layout.CATALOGUE_FOLDER, layout.again(layout.CATALOGUE_FOLDER)):
                source = MediumSource(folder, place)
                source.look()
                refresh = take(node, source)
        assert len(refresh.view.listings) == 1 + 12 * A_MONTH[0]
        assert refresh.missing == () or all("blobs" not in it.path for it in refresh.missing)
        node.close()

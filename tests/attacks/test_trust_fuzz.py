"""Mutated metadata, unsigned and rightly signed. Fixed seeds; `FUZZ_CASES` makes it longer.

Invariant: whatever lies in the spool, `refresh()` doesn't raise; what isn't signed is never accepted changed;
what is signed but malformed leaves every other authority as it was.
"""

from __future__ import annotations

import copy
import json
import os
import random
import shutil
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest
from securesystemslib.formats import encode_canonical
from securesystemslib.signer import CryptoSigner

from tests.support.trust_checks import no_sync as no_sync
from tests.support.trust_repo import COUNTY, NATION, START, Node, Repository, World

CASES = int(os.environ.get("FUZZ_CASES", "100"))
DAY = timedelta(days=1)
pytestmark = pytest.mark.usefixtures("no_sync")
STRANGE: list[Any] = [
    None,
    True,
    0,
    -1,
    2**63,
    2**64,
    10**30,
    "",
    "x",
    "\x00",
    "4419\n",
    "../../etc/passwd",
    "9999-12-31T23:59:59Z",
    "0001-01-01T00:00:00Z",
    "0000-00-00T00:00:00Z",
    "é\u202e",
    "x" * 3000,
    [],
    {},
    [[]],
    {"": {}},
    {"sha256": "0" * 64},
    ["*/*/*"],
    ["*" * 40 + "a"],
]


@pytest.fixture
def nodes(tmp_path: Path) -> Iterator[tuple[World, Node]]:
    world = World()
    node = Node(tmp_path / "node")
    node.bootstrap(world.nation)
    node.sync(*world.all)
    world.county.list_bundle("update", month="202612")
    world.county.withdraw(f"{COUNTY}/202611/dragon-boats")
    world.county.new_root()
    world.county.publish(now=START + DAY)
    yield world, node
    node.close()


def again(node: Node, start: Path) -> None:
    """Back to the state before the attack."""
    node.close()
    shutil.rmtree(node.paths.root)
    shutil.copytree(start, node.paths.root, symlinks=True)
    node.open()


def mutate_bytes(data: bytes, chance: random.Random) -> bytes:
    changed = bytearray(data)
    for _ in range(chance.choice((1, 1, 2, 8))):
        place = chance.randrange(len(changed) + 1)
        match chance.randrange(4):
            case 0 if place < len(changed):
                changed[place] ^= 1 << chance.randrange(8)
            case 1:
                del changed[place : place + chance.randrange(1, 40)]
            case 2:
                changed[place:place] = chance.randbytes(chance.randrange(1, 20))
            case _:
                changed[place:place] = changed[: chance.randrange(1, 200)]
    return bytes(changed)


def test_mutated_files_are_never_accepted_changed(nodes: tuple[World, Node]) -> None:
    world, node = nodes
    chance = random.Random(20261101)
    start = node.paths.root.parent / "start"
    shutil.copytree(node.paths.root, start, symlinks=True)
    old = dict(node.federation.refresh().view.listings)
    node.sync(*world.all)
    new = dict(node.federation.refresh().view.listings)
    assert old != new
    names = [name for name in world.county.files if not name.startswith("1.")]
    good = dict(world.county.files)
    for _ in range(CASES):
        again(node, start)
        world.county.files = dict(good)
        name = chance.choice(names)
        world.county.files[name] = mutate_bytes(good[name], chance)
        refresh = node.sync(*world.all)
        assert dict(refresh.view.listings) in (old, new), name
        msgspec.msgpack.encode(refresh.problems)
    world.county.files = good
    world.county.sign_timestamp()
    assert dict(node.sync(*world.all).view.listings) == new


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    found = [path] if path else []
    if isinstance(value, dict):
        for name, inner in value.items():
            found += places(inner, (*path, name))
    elif isinstance(value, list):
        for number, inner in enumerate(value):
            found += places(inner, (*path, number))
    return found


def mutate_signed(data: bytes, signers: list[CryptoSigner], chance: random.Random) -> bytes:
    """Change something in the signed part and sign it rightly."""
    signed = json.loads(data)["signed"]
    for _ in range(chance.choice((1, 1, 3))):
        *way, last = chance.choice(places(signed))
        inner = signed
        for step in way:
            inner = inner[step]
        match chance.randrange(3):
            case 0:
                del inner[last]
            case 1 if isinstance(inner, dict):
                inner[chance.choice(["x", "", "sha256", "custom", "_type"])] = inner[last]
            case _:
                inner[last] = copy.deepcopy(chance.choice(STRANGE))
        if not places(signed):
            break
    payload = encode_canonical(signed).encode()
    signatures = [
        {"keyid": signer.public_key.keyid, "sig": signer.sign(payload).signature}
        for signer in signers
    ]
    return json.dumps({"signed": signed, "signatures": signatures}).encode()


def signers_of(county: Repository, name: str) -> list[CryptoSigner]:
    role = name.split(".")[-2]
    if role in ("timestamp", "snapshot"):
        return [county.online_key]
    if role == "root":
        return county.root_keys
    return [county.targets_key] if role == "targets" else list(county.role_signers[role])


def test_signed_but_malformed_metadata_stops_nobody(nodes: tuple[World, Node]) -> None:
    world, node = nodes
    chance = random.Random(20261102)
    start = node.paths.root.parent / "start"
    shutil.copytree(node.paths.root, start, symlinks=True)
    names = [name for name in world.county.files if not name.startswith("1.")]
    good = dict(world.county.files)
    for _ in range(CASES):
        again(node, start)
        world.county.files = dict(good)
        name = chance.choice(names)
        world.county.files[name] = mutate_signed(good[name], signers_of(world.county, name), chance)
        refresh = node.sync(*world.all)
        assert f"{NATION}/202611/news" in refresh.view.listings
        msgspec.msgpack.encode(refresh.problems)
        node.restart()
        assert node.federation.refresh().view.listings == refresh.view.listings

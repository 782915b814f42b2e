"""Which files go into which packs (SPEC 3.7), and how a pack is made and read.

Planning is a function of the contents and of earlier indexes alone, so the same folder gives the same packs on every
machine. It aims at two things that pull apart: packs compress better when they hold more, and are shared
by more bundles when they hold less.

- A compressible content of `OWN_PACK_BYTES` or more is a pack of its own, so two bundles share it by its root.
- Smaller ones are gathered in path order. Where a pack ends depends on the contents in it and not on where
  it began, so that two bundles with the same folder in them find the same ends again after a few files.
- A revision keeps a predecessor's pack as long as at least `KEPT_SHARE` of it is of use: as content, or as the old
  version of a changed file. The changed file then lies in a *delta*, a pack with the old one as its base. Bases have
  no base of their own, so reading any file unpacks two packs at most.
- Another bundle's pack of which at least `SHARED_SHARE` is wanted is taken as it is.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import zstandard

from .index import MAX_PACK_BYTES, Index, order_key, unpack_frame

PACKED_BELOW_BYTES = MAX_PACK_BYTES
OWN_PACK_BYTES = 128 * 1024
TINY_BYTES = 16 * 1024
"""A file of one block or less is always packed: as a file of the torrent it would cost more than it weighs."""
GATHERED_MAX_BYTES = 4 * 1024 * 1024
GATHERED_MIN_BYTES = 1024 * 1024
GATHERED_MEAN_BYTES = 1024 * 1024
"""How much more than the minimum a gathered pack holds on average."""
KEPT_SHARE = (4, 5)
SHARED_SHARE = (1, 2)
LEVEL = 19
SAMPLE_BYTES = 64 * 1024
SAMPLE_LEVEL = 3
COMPRESSIBLE_SHARE = (9, 10)


@dataclass(frozen=True, slots=True)
class Content:
    """One distinct content that is not empty.

    Attributes:
        root: v2 Merkle root.
        size: In bytes.
        paths: Where it lies, in path order.
        is_packable: Small and compressible (`is_packable`).
    """

    root: bytes
    size: int
    paths: tuple[str, ...]
    is_packable: bool


@dataclass(frozen=True, slots=True)
class KeptPack:
    """A pack of an earlier bundle, taken as it is; `base` is the name of another one."""

    name: str
    size: int
    base: str | None


@dataclass(frozen=True, slots=True)
class NewPack:
    """A pack to be made of these contents, in this order.

    With a base it shall be made both ways; `prefers_delta` says which to take.
    """

    contents: tuple[Content, ...]
    base: str | None


@dataclass(frozen=True, slots=True)
class Plan:
    """What the payload shall hold.

    Attributes:
        kept: Packs of earlier bundles. One that nothing lies in (see `places`) is there as a base only,
            and is left out when no delta was worth it.
        new: Packs to be made.
        places: Root to pack name and offset, for what lies in kept packs.
        stored: Contents that are files of the torrent as they are.
    """

    kept: tuple[KeptPack, ...]
    new: tuple[NewPack, ...]
    places: Mapping[bytes, tuple[str, int]]
    stored: tuple[Content, ...]


def sample_offsets(size: int) -> tuple[int, ...]:
    """Where to take samples of `SAMPLE_BYTES` to tell whether a file is compressible."""
    if size <= 3 * SAMPLE_BYTES:
        return tuple(range(0, size, SAMPLE_BYTES))
    return 0, (size - SAMPLE_BYTES) // 2, size - SAMPLE_BYTES


def is_packable(size: int, sample: bytes) -> bool:
    """Whether a file of this size, with this joined sample, goes into a pack."""
    if size <= TINY_BYTES:
        return True
    if size >= PACKED_BELOW_BYTES:
        return False
    packed = zstandard.ZstdCompressor(level=SAMPLE_LEVEL).compress(sample)
    return len(packed) * COMPRESSIBLE_SHARE[1] < len(sample) * COMPRESSIBLE_SHARE[0]


def make_pack(data: bytes, base: bytes | None = None) -> bytes:
    """Compress a pack; one content gives one result (with one version of zstd)."""
    size = len(data) + len(base or b"")
    parameters = zstandard.ZstdCompressionParameters.from_level(
        LEVEL,
        source_size=len(data),
        dict_size=len(base or b""),
        # The window reaches over the whole base.
        window_log=min(max(20, size.bit_length()), 27),
        enable_ldm=base is not None,
        write_content_size=True,
        write_checksum=False,
    )
    dictionary = (
        zstandard.ZstdCompressionDict(base, dict_type=zstandard.DICT_TYPE_RAWCONTENT)
        if base
        else None
    )
    compressor = zstandard.ZstdCompressor(dict_data=dictionary, compression_params=parameters)
    return compressor.compress(data)


def unpack_pack(data: bytes, size: int, base: bytes | None = None) -> bytes:
    """Unpack a pack.

    Args:
        data: The file below `packs/`.
        size: Its unpacked size, from the index.
        base: Its base, unpacked.

    Raises:
        BundleError: `bundle.bad-frame`.
    """
    return unpack_frame(data, limit=MAX_PACK_BYTES, size=size, base=base or b"")


def prefers_delta(plain_size: int, delta_size: int) -> bool:
    """Whether a delta is worth it: reading it takes a second pack, which must be kept for it."""
    return delta_size * 2 < plain_size


def plan_packs(
    contents: Iterable[Content], predecessor: Index | None = None, others: Sequence[Index] = ()
) -> Plan:
    """Plan the payload.

    Args:
        contents: Distinct contents of the folder.
        predecessor: The index of the revision before.
        others: Indexes of other bundles at hand, whose packs may be shared.
    """
    ordered = sorted(contents, key=lambda content: order_key(content.paths[0]))
    planner = _Planner(ordered)
    homes = planner.keep_predecessor(predecessor) if predecessor else {}
    for other in others:
        planner.share(other)
    return planner.finish(homes)


class _Planner:
    def __init__(self, contents: list[Content]) -> None:
        self._contents = contents
        self._wanted = {content.root for content in contents}
        self._kept: dict[str, KeptPack] = {}
        self._places: dict[bytes, tuple[str, int]] = {}

    def keep_predecessor(self, index: Index) -> dict[bytes, str]:
        """Keep what is still of use; returns for each other content the kept pack to build a delta on."""
        held = _held(index)
        by_root = {root: number for number, roots in enumerate(held) for root in roots}
        by_path = {file.path: file.pack for file in index.files if file.pack is not None}
        homes: dict[bytes, int] = {}
        used = [0] * len(index.packs)
        for number, roots in enumerate(held):
            used[number] = sum(size for root, (_, size) in roots.items() if root in self._wanted)
        for content in self._contents:
            found = by_root.get(content.root)
            if found is None and content.is_packable:
                found = next((by_path[path] for path in content.paths if path in by_path), None)
            if found is None:
                continue
            base = index.packs[found].base
            home = found if base is None else base
            homes[content.root] = home
            if content.root not in held[home]:
                used[home] += content.size
        kept = {
            number
            for number, pack in enumerate(index.packs)
            if used[number] * KEPT_SHARE[1] >= pack.size * KEPT_SHARE[0]
        }
        for number in sorted(kept):
            base = index.packs[number].base
            if base is None or base in kept:
                self._take(index, number, held[number])
        return {root: index.packs[home].name for root, home in homes.items() if home in kept}

    def share(self, index: Index) -> None:
        """Take the other bundle's packs that are mostly wanted, the best first."""
        held = _held(index)

        def wanted(number: int) -> int:
            return sum(
                size
                for root, (_, size) in held[number].items()
                if root in self._wanted and root not in self._places
            )

        def is_worth_it(number: int) -> bool:
            size = index.packs[number].size
            return wanted(number) * SHARED_SHARE[1] >= size * SHARED_SHARE[0]

        candidates = [
            number
            for number, pack in enumerate(index.packs)
            if pack.base is None and pack.name not in self._kept and is_worth_it(number)
        ]
        candidates.sort(key=lambda number: (-wanted(number), index.packs[number].name))
        for number in candidates:
            if is_worth_it(number):
                self._take(index, number, held[number])

    def finish(self, homes: Mapping[bytes, str]) -> Plan:
        rest = [content for content in self._contents if content.root not in self._places]
        stored = tuple(content for content in rest if not content.is_packable)
        groups: dict[str | None, list[Content]] = {}
        for content in rest:
            if content.is_packable:
                groups.setdefault(homes.get(content.root), []).append(content)
        new = [
            NewPack(tuple(gathered), base)
            for base, members in groups.items()
            for gathered in gather(members)
        ]
        bases = {pack.base for pack in self._kept.values()} | {pack.base for pack in new}
        lived_in = {name for name, _ in self._places.values()}
        kept = tuple(
            pack for name, pack in sorted(self._kept.items()) if name in lived_in or name in bases
        )
        return Plan(kept, tuple(new), self._places, stored)

    def _take(self, index: Index, number: int, held: Mapping[bytes, tuple[int, int]]) -> None:
        pack = index.packs[number]
        base = None if pack.base is None else index.packs[pack.base].name
        self._kept[pack.name] = KeptPack(pack.name, pack.size, base)
        for root, (offset, _) in held.items():
            if root in self._wanted:
                self._places.setdefault(root, (pack.name, offset))


def gather(contents: Sequence[Content]) -> list[list[Content]]:
    """Divide contents, in this order, into packs."""
    packs: list[list[Content]] = []
    gathered: list[Content] = []
    size = 0
    for content in contents:
        if content.size >= OWN_PACK_BYTES:
            packs.append([content])
            continue
        if size + content.size > GATHERED_MAX_BYTES:
            packs.append(gathered)
            gathered, size = [], 0
        gathered.append(content)
        size += content.size
        if size >= GATHERED_MIN_BYTES and _ends_pack(content):
            packs.append(gathered)
            gathered, size = [], 0
    if gathered:
        packs.append(gathered)
    return packs


def _ends_pack(content: Content) -> bool:
    """A draw by the content's own hash, weighted by its size: once in `GATHERED_MEAN_BYTES`."""
    draw = int.from_bytes(content.root[:8], "big")
    return draw * GATHERED_MEAN_BYTES < content.size << 64


def _held(index: Index) -> list[dict[bytes, tuple[int, int]]]:
    """For each pack of an index: root to offset and size of what is known to lie in it."""
    held: list[dict[bytes, tuple[int, int]]] = [{} for _ in index.packs]
    for file in index.files:
        if file.pack is not None:
            held[file.pack].setdefault(file.root, (file.offset, file.size))
    return held

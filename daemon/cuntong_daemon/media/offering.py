"""What a volume for other places should hold: what they want and lack, of what is here (SPEC 12.8)."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path

from cuntong_daemon.catalogue import BundleState, Catalogue, Entry
from cuntong_daemon.control.media_messages import (
    OfferedBundle,
    OfferedCatalogue,
    PlaceKnown,
)
from cuntong_daemon.paths import DataPaths
from cuntong_daemon.planning import deadline_of, end_of_day
from cuntong_daemon.policy.selection import Candidate, NodeProfile, judge
from cuntong_protocol.divisions import Division
from cuntong_protocol.errors import Fault
from cuntong_protocol.link.messages import Announcement
from cuntong_protocol.media.errors import MediaError
from cuntong_protocol.media.papers import SHORT
from cuntong_protocol.texts import N_, Sentence, sentence

MAX_NOT_HERE = 500

_ASKED = sentence("media.asked-for", N_("It was asked for by name."))
_UPWARDS = sentence("media.upwards", N_("It was published here or below."))


@dataclass(frozen=True, slots=True)
class Destination:
    """A place that a volume is for.

    Attributes:
        known: What an operator sees of it.
        held: Shortened infohashes of what it has.
        profile: What it subscribes to, as far as is known.
        orders: Bundles that it ordered.
    """

    known: PlaceKnown
    held: frozenset[bytes]
    profile: NodeProfile
    orders: frozenset[str] = frozenset()

    @property
    def code(self) -> Division:
        return self.profile.code


@dataclass(frozen=True, slots=True)
class Wish:
    """What is asked for.

    Attributes:
        places: For whom; none: for anybody.
        bundles: Only these; none: whatever the places want.
        release: Only bundles of this release; empty: of any.
        is_catalogue_only: No bundles at all.
    """

    places: Sequence[Destination] = ()
    bundles: frozenset[str] = frozenset()
    release: str = ""
    is_catalogue_only: bool = False


@dataclass(slots=True)
class Offered:
    """The bundles in the order in which they should be written, and the rest of the answer."""

    bundles: list[OfferedBundle] = field(default_factory=list)
    had: int = 0
    not_for: int = 0
    not_here: list[OfferedBundle] = field(default_factory=list)


def check_places(own: Division, codes: Iterable[Division]) -> None:
    """Refuse destinations that a volume from here is of no use for.

    Raises:
        MediaError: `media.for-itself`, `media.not-related`.
    """
    for code in codes:
        if code == own:
            raise MediaError(
                "media.for-itself",
                N_("{code} is this place itself: it needs no volume."),
                fault=Fault.USAGE,
                code=code,
            )
        if not code.is_below(own) and code not in own.ancestors:
            raise MediaError(
                "media.not-related",
                N_(
                    "{code} lies neither below {own} nor above it. Ask a place above both to send it."
                ),
                fault=Fault.USAGE,
                code=code,
                own=own,
            )


def offered(
    catalogue: Catalogue,
    own: Division,
    held: Mapping[str, BundleState],
    wish: Wish,
    today: date,
) -> Offered:
    """Choose. Blocks; runs in the database's thread.

    Args:
        catalogue: What is listed.
        own: This place.
        held: What is here and whole, by bundle id.
        wish: What is asked for.
        today: By which licences are judged.

    Raises:
        MediaError: `media.unknown-bundle`, `media.unknown-release`, `media.restricted`.
    """
    found = Offered()
    if wish.is_catalogue_only:
        return found
    chosen: list[tuple[tuple[int, date, int, str], OfferedBundle]] = []
    seen: set[str] = set()
    has_release = False
    for entry in catalogue.bundles():
        metadata = entry.descriptor.metadata
        if wish.bundles and entry.id not in wish.bundles:
            continue
        seen.add(entry.id)
        if wish.release:
            if metadata.release is None or metadata.release.name != wish.release:
                continue
            has_release = True
        takers = _takers(entry, own, wish, today)
        if not wish.places and metadata.licence.kind == "restricted":
            if wish.bundles:
                raise MediaError(
                    "media.restricted",
                    N_(
                        "The licence of {id} names who may hold it: say for whom the volume is, with --for CODE."
                    ),
                    fault=Fault.USAGE,
                    id=entry.id,
                )
            takers = []
        if not takers:
            found.not_for += 1
            continue
        short = entry.descriptor.infohash[:SHORT]
        lacking = [
            (place, reason) for place, reason in takers if place is None or short not in place.held
        ]
        if not lacking:
            found.had += 1
            continue
        days = [
            day
            for place, _ in lacking
            if place is not None and (day := deadline_of(entry.descriptor, place.code)) is not None
        ]
        bundle = OfferedBundle(
            id=entry.id,
            revision=entry.revision,
            title=metadata.title,
            infohash=entry.descriptor.infohash.hex(),
            payload_size=entry.descriptor.payload_size,
            is_restricted=metadata.licence.kind == "restricted",
            deadline=int(end_of_day(min(days)).timestamp()) if days else None,
            reason=lacking[0][1],
        )
        state = held.get(entry.id)
        if state is None or state.infohash != entry.descriptor.infohash:
            found.not_here.append(bundle)
            continue
        order = (
            -metadata.priority,
            min(days, default=date.max),
            entry.descriptor.payload_size,
            entry.id,
        )
        chosen.append((order, bundle))
    _check_names(wish, seen, has_release=has_release)
    found.bundles = [bundle for _, bundle in sorted(chosen, key=lambda pair: pair[0])]
    del found.not_here[MAX_NOT_HERE:]
    return found


def catalogues_for(
    own: Division, codes: Sequence[Division], announcements: Iterable[Announcement]
) -> list[OfferedCatalogue]:
    """The verified catalogues that these places follow; for anybody all those above this place and its own."""

    def is_of_use(authority: Division) -> bool:
        if not codes:
            return authority == own or authority in own.ancestors
        return any(
            authority.is_within(own) if code in own.ancestors else authority in code.ancestors
            for code in codes
        )

    return [
        OfferedCatalogue(authority=it.authority, version=it.version, sha256=it.sha256.hex())
        for it in sorted(announcements, key=lambda it: (it.authority.tier, it.authority))
        if is_of_use(it.authority)
    ]


def present_at_all(paths: DataPaths, places: Sequence[Destination]) -> list[str]:
    """Payloads, in hexadecimal, that every place has and whose torrents are here. Blocks."""
    if not places:
        return []
    common = frozenset.intersection(*(place.held for place in places))
    names = {
        path.stem
        for folder in (paths.torrents, paths.media / "superseded")
        for path in _torrents(folder)
    }
    return sorted(name for name in names if bytes.fromhex(name)[:SHORT] in common)


def _torrents(folder: Path) -> list[Path]:
    return [
        path
        for path in (folder.iterdir() if folder.is_dir() else ())
        if path.suffix == ".torrent" and len(path.stem) == 64
    ]


def _takers(
    entry: Entry, own: Division, wish: Wish, today: date
) -> list[tuple[Destination | None, Sentence]]:
    """For whom a bundle is; None: for anybody."""
    if not wish.places:
        return [(None, _ASKED)]
    found: list[tuple[Destination | None, Sentence]] = []
    descriptor = entry.descriptor
    publisher = descriptor.bundle_id.code
    for place in wish.places:
        if place.code in own.ancestors:
            if publisher.is_within(own) and (
                descriptor.metadata.licence.kind == "open" or publisher.is_below(place.code)
            ):
                found.append((place, _UPWARDS))
            continue
        is_liked, reason = judge(
            _candidate(entry),
            place.profile,
            is_ordered=entry.id in place.orders or entry.id in wish.bundles,
            today=today,
        )
        if is_liked:
            found.append((place, reason))
    return found


def _candidate(entry: Entry) -> Candidate:
    descriptor = entry.descriptor
    metadata = descriptor.metadata
    return Candidate(
        id=entry.id,
        publisher=descriptor.bundle_id.code,
        category=metadata.category,
        languages=tuple(metadata.languages),
        audience=metadata.audience,
        licence=metadata.licence,
        priority=metadata.priority,
        size_bytes=descriptor.payload_size,
        remaining_bytes=descriptor.payload_size,
    )


def _check_names(wish: Wish, seen: Collection[str], *, has_release: bool) -> None:
    for identifier in sorted(wish.bundles):
        if identifier not in seen:
            raise MediaError(
                "media.unknown-bundle",
                N_("{id} isn't in this node's catalogue. Search it with: cuntong catalogue search"),
                fault=Fault.USAGE,
                id=identifier,
            )
    if wish.release and not has_release:
        raise MediaError(
            "media.unknown-release",
            N_("No bundle in this node's catalogue belongs to the release {release}."),
            fault=Fault.USAGE,
            release=wish.release,
        )

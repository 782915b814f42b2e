"""The rules over TUF, pure: epochs, whose time judges whom, who wins a listing (SPEC 4.4 to 4.9)."""

from __future__ import annotations

import enum
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime

import msgspec

from cuntong_protocol.divisions import Division
from cuntong_protocol.texts import N_, Sentence

from .custom import Endorsement, Listed, Tombstone
from .names import TrustError

CLOCK_TRUST_DAYS = 400
"""A clock further ahead of the nation's signed time than this is taken for wrong: a year and a bit offline."""

_SECONDS_A_DAY = 86_400


class Step(enum.Enum):
    """What an endorsement means for what is known of an authority."""

    KEEP = "keep"
    RAISE = "raise"
    AFRESH = "afresh"


class Listing(msgspec.Struct, frozen=True, gc=False):
    """One bundle of the view. `listed_by`: the authorities that list just these bytes, highest first."""

    id: str
    sha256: str
    length: int
    revision: int
    payload_size: int
    infohash: str
    listed_by: tuple[Division, ...]


def judge_epoch(
    code: Division, known_epoch: int, known_anchor: str, endorsement: Endorsement
) -> Step:
    """Compare an endorsement with the highest one seen (SPEC 4.5).

    Raises:
        TrustError: `trust.epoch-back` or `trust.epoch-root`.
    """
    same_root = endorsement.root.sha256 == known_anchor
    if endorsement.epoch < known_epoch:
        raise TrustError(
            "trust.epoch-back",
            N_(
                "{code} is endorsed with epoch {listed}, but epoch {known} was seen before: it is refused."
            ),
            code=code,
            listed=endorsement.epoch,
            known=known_epoch,
        )
    if endorsement.epoch > known_epoch:
        return Step.RAISE if same_root else Step.AFRESH
    if not same_root:
        raise TrustError(
            "trust.epoch-root",
            N_(
                "{code} is endorsed with another root but the same epoch {known}: it is refused. The authority above must endorse it with a new epoch."
            ),
            code=code,
            known=known_epoch,
        )
    return Step.KEEP


def check_endorsement_time(endorsement: Endorsement, now: datetime) -> None:
    """An endorsement holds to the end of its last day.

    Raises:
        TrustError: `trust.endorsement-expired`.
    """
    if now.date() > endorsement.until:
        raise TrustError(
            "trust.endorsement-expired",
            N_(
                "The endorsement of {code} ended on {until}: nothing new from it is accepted. The authority above can renew it."
            ),
            code=endorsement.code,
            until=endorsement.until.isoformat(),
        )


def find_endorsement(
    code: Division, endorsements: Mapping[Division, Mapping[Division, Endorsement]]
) -> tuple[Division, Endorsement] | None:
    """The endorsement of the nearest authority above that lists `code` (SPEC 4.4), and whose it is."""
    for above in code.ancestors:
        found = endorsements.get(above, {}).get(code)
        if found is not None:
            return above, found
    return None


def is_clock_trusted(clock: datetime, proven: datetime) -> bool:
    """SPEC 4.7: not before the nation's proven time and not much later."""
    ahead = clock.timestamp() - proven.timestamp()
    return 0 <= ahead <= CLOCK_TRUST_DAYS * _SECONDS_A_DAY


def merge_tombstones(
    sources: Iterable[Sequence[Tombstone]],
) -> dict[str, Tombstone]:
    """One tombstone an id; that of the highest authority is shown. Scope was checked on reading."""
    merged: dict[str, Tombstone] = {}
    for tombstones in sources:
        for tombstone in tombstones:
            known = merged.get(tombstone.id)
            if known is None or tombstone.by.tier < known.by.tier:
                merged[tombstone.id] = tombstone
    return merged


def merge_listings(
    sources: Sequence[tuple[Division, Iterable[Listed]]],
    tombstones: Mapping[str, Tombstone],
) -> tuple[dict[str, Listing], list[Sentence]]:
    """The view's listings: the highest revision wins, between equals the higher authority (SPEC 4.8).

    Args:
        sources: Each authority with what it lists or promotes, in any order.
        tombstones: What is withdrawn.

    Returns:
        Listings by id, and a sentence for each id whose listings contradict each other.
    """
    best: dict[str, Listed] = {}
    by: dict[str, tuple[Division, ...]] = {}
    problems: list[Sentence] = []
    for authority, entries in sorted(sources, key=lambda source: source[0].tier):
        alone = (authority,)
        for entry in entries:
            if entry.id in tombstones:
                continue
            known = best.get(entry.id)
            if known is None or entry.revision > known.revision:
                best[entry.id] = entry
                by[entry.id] = alone
            elif entry.sha256 == known.sha256:
                if authority not in by[entry.id]:
                    by[entry.id] = (*by[entry.id], authority)
            elif entry.revision == known.revision:
                problems.append(
                    TrustError(
                        "trust.contradiction",
                        N_(
                            "{winner} and {loser} list {id} with the same revision {revision} but different content: that of {winner} holds."
                        ),
                        winner=by[entry.id][0],
                        loser=authority,
                        id=entry.id,
                        revision=entry.revision,
                    ).sentence
                )
    listings = {
        id_: Listing(
            id_,
            entry.sha256,
            entry.length,
            entry.revision,
            entry.payload_size,
            entry.infohash,
            by[id_],
        )
        for id_, entry in best.items()
    }
    return listings, problems

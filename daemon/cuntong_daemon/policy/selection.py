"""What a node wants, and in what order (DESIGN 5).

`wanted = audience and licence match the node's profile or it was ordered, minus withdrawn, within the quota`.
A node also wants what places below it are to have, since they get it through this one. An order overrides
the audience and the subscriptions, never the licence. Order: priority, then earliest deadline, then smallest
remaining, then id.

What is already held counts against the quota first: making room is the business of `eviction`, so a new
bundle never pushes an old one out by itself.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import date

from cuntong_protocol.bundle.metadata import Audience, Licence
from cuntong_protocol.divisions import TIER_LABELS, Division, Tier
from cuntong_protocol.texts import N_, Sentence, sentence


@dataclass(frozen=True, slots=True)
class NodeProfile:
    """Who chooses. Empty categories, languages and publishers mean all; groups are opted into."""

    code: Division
    categories: tuple[str, ...] = ()
    languages: tuple[str, ...] = ()
    groups: tuple[str, ...] = ()
    publishers: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Candidate:
    """A listed bundle, as far as the choice depends on it.

    Attributes:
        publisher: The code in its id.
        deadline: The release's day for this node's tier.
        size_bytes: What it takes in the store.
        remaining_bytes: What is still to be fetched (reuse already taken off).
        is_held: It is in the store, whole or in part.
        is_withdrawn: A tombstone applies to it.
    """

    id: str
    publisher: Division
    category: str
    languages: tuple[str, ...]
    audience: Audience
    licence: Licence
    priority: int
    size_bytes: int
    remaining_bytes: int
    deadline: date | None = None
    is_held: bool = False
    is_withdrawn: bool = False


@dataclass(frozen=True, slots=True)
class Decision:
    """What to do about one bundle.

    Attributes:
        wanted: Fetch it, or keep it.
        reason: For the operator.
        order: Place in the queue, from 0; -1 when it isn't wanted.
    """

    id: str
    wanted: bool
    reason: Sentence
    order: int = -1


# Shared: a catalogue of 10,000 bundles gives most of them 10,000 times.
_WITHDRAWN = sentence("selection.withdrawn", N_("It was withdrawn."))
_LICENCE_SCOPE = sentence(
    "selection.licence-scope", N_("Its licence doesn't allow it to be held here.")
)
_OWN = sentence("selection.own", N_("It was published here."))
_ORDERED = sentence("selection.ordered", N_("It was ordered here."))
_AUDIENCE = sentence("selection.audience", N_("It is meant for this place."))
_CARRIED = sentence("selection.carried", N_("It is carried for places below this one."))
_NEEDED_BELOW = sentence("selection.needed-below", N_("A place below this one asked for it."))
_OTHER_PLACE = sentence("selection.other-place", N_("It is meant for other places."))
_OTHER_TIER = sentence("selection.other-tier", N_("It isn't meant for places of this tier."))
_NO_ROOM = sentence("selection.no-room", N_("The quota has no room for it."))


def judge(
    candidate: Candidate,
    profile: NodeProfile,
    *,
    is_ordered: bool,
    is_needed_below: bool = False,
    today: date,
) -> tuple[bool, Sentence]:
    """Whether the node would like to have a bundle, room aside, and why."""
    if candidate.is_withdrawn:
        return False, _WITHDRAWN
    licence = candidate.licence
    if licence.until is not None and licence.until < today:
        return False, sentence(
            "selection.licence-expired", N_("Its licence ended on {day}."), day=str(licence.until)
        )
    own = profile.code
    # Only places below the publisher can join its closed swarms (SPEC 7.6); promotion doesn't change that.
    is_in_scope = own.is_below(candidate.publisher) and _reaches(licence.scope, own)
    if licence.scope and own != candidate.publisher and not is_in_scope:
        return False, _LICENCE_SCOPE
    if own == candidate.publisher:
        return True, _OWN
    if is_ordered:
        return True, _ORDERED
    refusal = _refusal_by_audience(candidate.audience, profile) or _refusal_by_subscription(
        candidate, profile
    )
    if refusal is None:
        return True, _AUDIENCE
    if _is_for_below(candidate.audience, own):
        return True, _CARRIED
    if is_needed_below:
        return True, _NEEDED_BELOW
    return False, refusal


def select(
    candidates: Iterable[Candidate],
    profile: NodeProfile,
    orders: Collection[str],
    *,
    needed_below: Collection[str] = (),
    quota_bytes: int,
    today: date,
) -> list[Decision]:
    """Choose among all listed bundles.

    Args:
        candidates: In any order; read once, so it may be a generator over a large catalogue.
        orders: Ids that somebody here ordered.
        needed_below: Ids that places below asked for, whatever their audience says.
        quota_bytes: Room for bundles in all; 0 is no limit.
        today: The day by which licences are judged.

    Returns:
        The wanted ones in their order, then what is wanted but has no room, then what is held but not wanted. What
        is neither wanted nor held has no decision here; `judge` tells why.
    """
    wanted: list[tuple[_QueueKey, int, bool, Sentence]] = []
    unwanted: list[Decision] = []
    for candidate in candidates:
        is_wanted, reason = judge(
            candidate,
            profile,
            is_ordered=candidate.id in orders,
            is_needed_below=candidate.id in needed_below,
            today=today,
        )
        if is_wanted:
            # Candidates themselves aren't kept: they hold all of a bundle's metadata.
            wanted.append((_queue_key(candidate), candidate.size_bytes, candidate.is_held, reason))
        elif candidate.is_held:
            unwanted.append(Decision(candidate.id, False, reason))
    wanted.sort(key=lambda entry: entry[0])
    room = quota_bytes - sum(size for _key, size, is_held, _reason in wanted if is_held)
    chosen: list[Decision] = []
    waiting: list[Decision] = []
    for key, size, is_held, reason in wanted:
        if quota_bytes and not is_held:
            if size > room:
                waiting.append(Decision(key[-1], False, _NO_ROOM))
                continue
            room -= size
        chosen.append(Decision(key[-1], True, reason, len(chosen)))
    return chosen + waiting + unwanted


_QueueKey = tuple[int, date, int, str]


def _queue_key(candidate: Candidate) -> _QueueKey:
    return (
        -candidate.priority,
        candidate.deadline or date.max,
        candidate.remaining_bytes,
        candidate.id,
    )


def _reaches(prefixes: Sequence[str], own: Division) -> bool:
    """True when `own` lies in one of the subtrees, or on the way down to one.

    A place above a licence's scope carries the bundle: there is no other way to it.
    """
    return any(own.startswith(prefix) or prefix.startswith(own.prefix) for prefix in prefixes)


def _refusal_by_audience(audience: Audience, profile: NodeProfile) -> Sentence | None:
    own = profile.code
    if audience.scope and not any(own.startswith(prefix) for prefix in audience.scope):
        return _OTHER_PLACE
    if audience.tiers and own.tier.label not in audience.tiers:
        return _OTHER_TIER
    if audience.groups and not set(audience.groups) & set(profile.groups):
        return sentence(
            "selection.other-group",
            N_("It is meant for {groups}, which this place isn't."),
            groups=", ".join(audience.groups),
        )
    return None


def _refusal_by_subscription(candidate: Candidate, profile: NodeProfile) -> Sentence | None:
    if profile.publishers and not any(
        candidate.publisher.startswith(publisher) for publisher in profile.publishers
    ):
        return sentence(
            "selection.publisher",
            N_("This place doesn't subscribe to what {publisher} publishes."),
            publisher=candidate.publisher,
        )
    if profile.categories and not any(
        candidate.category == category or candidate.category.startswith(f"{category}/")
        for category in profile.categories
    ):
        return sentence(
            "selection.category",
            N_("This place doesn't subscribe to the category {category}."),
            category=candidate.category,
        )
    if profile.languages and not any(
        _speaks(language, wished)
        for language in candidate.languages
        for wished in profile.languages
    ):
        return sentence(
            "selection.language",
            N_("This place doesn't subscribe to its language ({languages})."),
            languages=", ".join(candidate.languages),
        )
    return None


def _speaks(language: str, wished: str) -> bool:
    """`zh` asks for `zh-Hans` too, and `zh-Hans` takes what only says `zh`."""
    language, wished = language.lower(), wished.lower()
    return (
        language == wished or language.startswith(f"{wished}-") or wished.startswith(f"{language}-")
    )


def _is_for_below(audience: Audience, own: Division) -> bool:
    """True when a place strictly below may be in the audience. Groups of places below aren't known here."""
    if own.tier is Tier.VILLAGE:
        return False
    deeper = TIER_LABELS[own.tier + 1 :]
    if audience.tiers and not set(audience.tiers) & set(deeper):
        return False
    return not audience.scope or _reaches(audience.scope, own)

"""How the link is shared out between the bundles that are on their way (SPEC 10.6).

A share grows with the bundle's priority and with how much of the time until its deadline it still needs. None
falls below a floor: a newcomer and a laggard go on, however urgent the others are. Shares add up to 1, and are the
same for the same bundles in whatever order they are named.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime

from cuntong_protocol.texts import N_, Sentence, sentence

PRIORITY_FACTOR = 1.5
"""A step of priority: 9 (urgent) gets 5 times the share of 5 (usual), that 8 times the share of 0 (bulk)."""
URGENCY_FACTOR = 4.0
"""For one that is late, or would be if it had less than the whole link: about three steps of priority."""
FLOOR = 0.02
"""512 kbit/s leaves a block of 16 KiB in 13 s; divided among all when there are more than 25."""
ASSUMED_LINK_BYTES_S = 64_000


@dataclass(frozen=True, slots=True)
class Claim:
    """A bundle on its way.

    Attributes:
        id: Unique.
        priority: 0 (bulk) to 9 (urgent).
        remaining_bytes: Still to be moved.
        deadline: Aware; None when there is none.
    """

    id: str
    priority: int
    remaining_bytes: int
    deadline: datetime | None = None


@dataclass(frozen=True, slots=True)
class Share:
    """A part of the link, 0 to 1, for this reason."""

    id: str
    part: float
    reason: Sentence


def shares(claims: Collection[Claim], *, now: datetime, link_bytes_s: int = 0) -> list[Share]:
    """Share out the link, largest part first.

    Args:
        claims: Each bundle once.
        now: Aware.
        link_bytes_s: What the link carries; 0 when unknown.
    """
    if not claims:
        return []
    weights = {
        claim.id: PRIORITY_FACTOR**claim.priority
        * (1 + (URGENCY_FACTOR - 1) * urgency(claim, now=now, link_bytes_s=link_bytes_s))
        for claim in claims
    }
    total = sum(weights[id_] for id_ in sorted(weights))
    floor = min(FLOOR, 0.5 / len(claims))
    spread = 1 - floor * len(claims)
    found = [
        Share(
            claim.id,
            floor + spread * weights[claim.id] / total,
            _reason(claim, urgency(claim, now=now, link_bytes_s=link_bytes_s)),
        )
        for claim in claims
    ]
    return sorted(found, key=lambda share: (-share.part, share.id))


def urgency(claim: Claim, *, now: datetime, link_bytes_s: int = 0) -> float:
    """The part of the time until the deadline that the bundle needs with the whole link to itself, 0 to 1."""
    if claim.deadline is None or not claim.remaining_bytes:
        return 0.0
    slack_s = (claim.deadline - now).total_seconds()
    needed_s = claim.remaining_bytes / (link_bytes_s or ASSUMED_LINK_BYTES_S)
    return 1.0 if slack_s <= needed_s else needed_s / slack_s


def _reason(claim: Claim, part: float) -> Sentence:
    if claim.deadline is None:
        return sentence(
            "shares.priority",
            N_("Its priority is {priority}, it has no deadline."),
            priority=claim.priority,
        )
    if part >= 1:
        return sentence(
            "shares.late",
            N_("Its priority is {priority}, and it will be late for {deadline}."),
            priority=claim.priority,
            deadline=f"{claim.deadline:%Y-%m-%d}",
        )
    return sentence(
        "shares.deadline",
        N_("Its priority is {priority}, and it needs {percent} % of the time until {deadline}."),
        priority=claim.priority,
        percent=round(part * 100),
        deadline=f"{claim.deadline:%Y-%m-%d}",
    )

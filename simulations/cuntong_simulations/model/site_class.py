"""What many places have in common (MODEL.md 2)."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class SiteClass:
    """What many places have in common.

    Attributes:
        tier: 0 (nation) to 5 (village).
        down_bytes_s: Rate of the access link, of IP packets; 0: no link.
        up_bytes_s: Likewise.
        link: The link class's name, for reports.
        link_number: Place in the tier's `links`; -1: from a file; -2: there is none.
        subscription: Place in the tier's `subscriptions`; -1: everything.
        has_dish: It can receive the satellite.
        store_bytes: 0: no limit.
    """

    tier: int
    down_bytes_s: float
    up_bytes_s: float
    link: str
    link_number: int
    subscription: int
    has_dish: bool
    store_bytes: float

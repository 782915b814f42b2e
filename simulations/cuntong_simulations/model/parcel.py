"""Disks on their way (MODEL.md 7)."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Parcel:
    """The disks of one order.

    Attributes:
        node: Where to.
        bundles: Their numbers.
        leaves_s: When they leave, after the start.
    """

    node: int
    bundles: tuple[int, ...]
    leaves_s: float

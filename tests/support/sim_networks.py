"""Small countries for the planning model's tests."""

from __future__ import annotations

from cuntong_simulations.model.trials import Network, Place, one_bundle

MEBIBYTE = 1 << 20


def chain(*rates: float) -> list[Place]:
    """One place below the other, nation to village, each with this rate down and up; bytes/s."""
    tiers = [0, 1, 2, 3, 4, 5][: len(rates)]
    return [Place(tier - 1, tier, rate, rate) for tier, rate in zip(tiers, rates, strict=True)]


def fan(server_up: float, *children: tuple[float, float], tier: int = 1) -> list[Place]:
    """The nation, and places of one tier below it, each (down, up); bytes/s."""
    return [Place(-1, 0, server_up, server_up), *(Place(0, tier, *rates) for rates in children)]


def hub_county(
    county: float, township: tuple[float, float], villages: int, village: float
) -> list[Place]:
    """A nation, a county, a township in it with villages; the county is as fast down as up."""
    places = [Place(-1, 0, 1e9, 1e9), Place(0, 3, county, county), Place(1, 4, *township)]
    return places + [Place(2, 5, village, village) for _ in range(villages)]


__all__ = ["MEBIBYTE", "Network", "Place", "chain", "fan", "hub_county", "one_bundle"]

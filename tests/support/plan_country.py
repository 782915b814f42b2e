"""Countries made by hand for the planner's tests: a nation, provinces and counties, no places below."""

from __future__ import annotations

from datetime import date
from typing import Any

import numpy as np

from cuntong_simulations.model.country import Bundles, Country, SiteClass
from cuntong_simulations.plan.capacity import Rates
from cuntong_simulations.scenario.scenario import (
    Costs,
    Disks,
    Link,
    Release,
    Run,
    Satellite,
    Scenario,
    Tier,
)
from cuntong_simulations.scenario.units import Money, Rate, Size

MBIT = 1e6 / 8
GB = 1e9

PRICES = Costs(
    currency="CNY",
    source="invented for tests",
    satellite_per_mbit_month=Money(6000.0),
    disk_trip=Money(20.0),
    parcel=Money(60.0),
)
DISKS = Disks(size=Size(4e12), batch=200, copy_rate=Rate(100e6))
SATELLITE = Satellite(rate=Rate(30 * MBIT))


def scenario(**changes: Any) -> Scenario:
    """90 days, two releases of 25 bundles to be there in 60 and 30 days; mesh, swarms."""
    link = Link(down=Rate(MBIT), up=Rate(MBIT))
    settings: dict[str, Any] = {
        "name": "planned",
        "run": Run(start=date(2026, 3, 2), days=90),
        "tiers": [
            Tier(tier="nation", count=1, links=[link]),
            Tier(tier="province", count=33, links=[link]),
            Tier(tier="county", count=2800, links=[link]),
        ],
        "releases": [release("spring", 0, 60), release("summer", 30, 60)],
        "costs": PRICES,
        "disks": DISKS,
        "satellite": SATELLITE,
    }
    return Scenario(**settings | changes)


def release(name: str, day: int, deadline: float, *, bundles: int = 25, size: float = 1.8e12) -> Release:  # fmt: skip
    return Release(name=name, day=day, bundles=bundles, size=Size(size), deadlines={"county": deadline})  # fmt: skip


def country(
    of: Scenario,
    *,
    provinces: int = 33,
    counties: int = 2800,
    county_mbit: tuple[tuple[float, float], ...] = ((2, 0.3), (10, 0.5), (100, 0.2)),
    province_up_mbit: float = 1000.0,
    nation_up_mbit: float = 10_000.0,
    dishes: float = 0.5,
    store: float = 0.0,
    subscriptions: int = 3,
    seed: int = 1,
) -> Country:
    """Counties spread evenly over provinces; link, dish and subscription of each drawn."""
    random = np.random.default_rng(seed)
    classes = [
        SiteClass(0, nation_up_mbit * MBIT, nation_up_mbit * MBIT, "centre", 0, -1, False, 0.0),
        SiteClass(
            1, province_up_mbit * MBIT, province_up_mbit * MBIT, "province", 0, -1, False, 0.0
        ),
    ]
    for rate, _share in county_mbit:
        for has_dish in (False, True):
            classes += [
                SiteClass(
                    3, rate * MBIT, rate * MBIT, f"{rate:g} Mbit/s", 0, choice, has_dish, store
                )
                for choice in range(subscriptions)
            ]
    shares = np.array([share for _rate, share in county_mbit])
    links = random.choice(len(shares), counties, p=shares / shares.sum())
    has = random.random(counties) < dishes
    chosen = random.integers(subscriptions, size=counties)
    node_class = np.concatenate((
        [0], np.full(provinces, 1), 2 + (links * 2 + has) * subscriptions + chosen,
    ))  # fmt: skip
    above = np.sort(np.arange(counties) % provinces) + 1
    parent = np.concatenate(([-1], np.zeros(provinces), above)).astype(np.int32)
    children = np.bincount(parent[1:], minlength=len(parent)).astype(np.int32)
    count = len(parent)
    number = np.arange(count)
    within = np.arange(counties) - np.searchsorted(above, above)
    code = np.concatenate((
        [0],
        (10 + np.arange(provinces)) * 10**10,
        (9 + above) * 10**10 + (1 + within // 99) * 10**8 + (1 + within % 99) * 10**6,
    ))  # fmt: skip
    return Country(
        scenario=of,
        classes=tuple(classes),
        parent=parent,
        first_child=np.concatenate(([1], 1 + np.cumsum(children)[:-1])).astype(np.int32),
        child_count=children,
        node_class=node_class.astype(np.int32),
        tier=np.concatenate(([0], np.full(provinces, 1), np.full(counties, 3))).astype(np.int8),
        province=np.concatenate(([0], 1 + np.arange(provinces), above)).astype(np.int32),
        identity=number.astype(np.int64),
        weight=np.ones(count),
        code=code.astype(np.int64),
    )


def bundles(of: Scenario, *, seed: int = 2) -> Bundles:
    """Sizes drawn within a factor of three."""
    random = np.random.default_rng(seed)
    names, releases, sizes, released, deadlines = [], [], [], [], []
    for number, one in enumerate(of.releases):
        drawn = random.uniform(1, 3, one.bundles)
        sizes += (drawn / drawn.sum() * one.size).tolist()
        names += [f"{one.name}/{n}" for n in range(one.bundles)]
        releases += [number] * one.bundles
        released += [one.day * 86400.0] * one.bundles
        line = [np.nan] * 6
        line[3] = (one.day + one.deadlines["county"]) * 86400.0
        deadlines += [line] * one.bundles
    count = len(names)
    return Bundles(
        names=tuple(names),
        release=np.array(releases, np.int32),
        size=np.array(sizes),
        priority=np.full(count, 5, np.int32),
        released_s=np.array(released),
        deadline_s=np.array(deadlines),
        publisher=np.zeros(count, np.int32),
    )


def wants(of: Country, published: Bundles) -> np.ndarray[Any, np.dtype[np.bool_]]:
    """The first subscription is for everything, each other one leaves out every third bundle."""
    number = np.arange(len(published.size))
    return np.array([
        np.ones(len(number), np.bool_)
        if one.subscription < 1
        else number % 3 != one.subscription % 3
        for one in of.classes
    ])  # fmt: skip


def rates(of: Country, *, goodput: float = 0.95, eta: float = 0.9, phi: float = 0.8) -> Rates:
    """All links are always open."""
    hours = np.ones(168)
    return Rates(
        down=np.outer([one.down_bytes_s * goodput for one in of.classes], hours),
        up=np.outer([one.up_bytes_s * goodput for one in of.classes], hours),
        listens=np.outer([1.0 if one.has_dish else 0.0 for one in of.classes], hours),
        air=hours,
        eta=eta,
        phi=phi,
        first_hour=0,
    )

"""Small networks on which models are compared: made by hand, or drawn with everything that there is."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import date

import numpy as np

from cuntong_protocol.divisions import TIER_LABELS
from cuntong_simulations.scenario.scenario import (
    Calibration,
    Disks,
    Link,
    Policy,
    Release,
    Run,
    Satellite,
    Scenario,
    Subscription,
    Tier,
    TierName,
    Vpn,
)
from cuntong_simulations.scenario.units import Days, Rate, Share, Size, Span

from .country import Bundles, Country
from .site_class import SiteClass
from .sky import Sky

PERFECT = Calibration(
    efficiency=Share(1.0),
    thin=Rate(0.0),
    startup=Span(0.0),
    eta=Share(1.0),
    phi=Share(1.0),
)
"""Nothing is lost: what closed forms say."""
_START = date(2027, 3, 3)
_CALENDARS = {
    "open": ["mon-fri 08:30-17:00", "sat,sun 09:00-11:15"],
    "night": ["daily 21:20-06:40"],
    "siesta": ["daily 12:00-14:00"],
}


@dataclass(frozen=True, slots=True)
class Place:
    """A place of a network.

    Attributes:
        parent: Its number; -1 for the first.
        tier: 0 to 5.
        down_bytes_s, up_bytes_s: Of its access link.
        has_dish, store_bytes, subscription: As in `SiteClass`.
        weight: How many it stands for.
    """

    parent: int
    tier: int
    down_bytes_s: float
    up_bytes_s: float
    has_dish: bool = False
    store_bytes: float = 0.0
    subscription: int = -1
    weight: float = 1.0


@dataclass(frozen=True, slots=True)
class Network:
    """All that a run needs; `heard`: what the satellite brings, if there is one."""

    scenario: Scenario
    country: Country
    bundles: Bundles
    heard: Sky | None = None


def network(
    scenario: Scenario, places: Sequence[Place], publishers: Sequence[int] | None = None
) -> Network:
    """A scenario with these places.

    Args:
        scenario: Its releases say what is published; all sizes of one release are the same unless it has `sizes`.
        places: Breadth first.
        publishers: By release; the first place unless said.
    """
    kinds = sorted(
        {_kind(place) for place in places},
        key=lambda kind: (kind.tier, kind.down_bytes_s, kind.up_bytes_s, kind.has_dish, kind.store_bytes, kind.subscription),
    )  # fmt: skip
    parent = [place.parent for place in places]
    count = [parent.count(number) for number in range(len(places))]
    first = [parent.index(number) if number in parent else 0 for number in range(len(places))]
    province = [0] * len(places)
    for number, place in enumerate(places):
        province[number] = number if place.tier == 1 else province[max(place.parent, 0)]
    country = Country(
        scenario=scenario,
        classes=tuple(kinds),
        parent=np.array(parent, np.int32),
        first_child=np.array(first, np.int32),
        child_count=np.array(count, np.int32),
        node_class=np.array([kinds.index(_kind(place)) for place in places], np.int32),
        tier=np.array([place.tier for place in places], np.int8),
        province=np.array(province, np.int32),
        identity=np.arange(len(places), dtype=np.int64),
        weight=np.array([place.weight for place in places], np.float64),
        code=np.arange(len(places), dtype=np.int64),
    )
    return Network(scenario, country, _bundles(scenario, publishers))


def _kind(place: Place) -> SiteClass:
    return SiteClass(
        tier=place.tier,
        down_bytes_s=place.down_bytes_s,
        up_bytes_s=place.up_bytes_s,
        link=f"{place.down_bytes_s * 8e-3:g}/{place.up_bytes_s * 8e-3:g} kbit/s",
        link_number=-1,
        subscription=place.subscription,
        has_dish=place.has_dish,
        store_bytes=place.store_bytes,
    )


def _bundles(scenario: Scenario, publishers: Sequence[int] | None) -> Bundles:
    rows = []
    for number, release in enumerate(scenario.releases):
        sizes = release.sizes or [Size(release.size / release.bundles)] * release.bundles
        deadlines = [
            (release.day + release.deadlines[label]) * 86400.0
            if label in release.deadlines
            else np.nan
            for label in TIER_LABELS
        ]
        rows += [
            (release, number, float(size), at, deadlines) for at, size in enumerate(sizes)
        ]  # fmt: skip
    # The nation's queue: priority, its deadline's day, size, name.
    rows.sort(
        key=lambda row: (
            -row[0].priority,
            np.inf if np.isnan(row[4][0]) else row[4][0] // 86400,
            int(row[2]),
            f"{row[0].name}/{row[3]}",
        )
    )
    return Bundles(
        names=tuple(f"{row[0].name}/{row[3]}" for row in rows),
        release=np.array([row[1] for row in rows], np.int32),
        size=np.array([row[2] for row in rows], np.float64),
        priority=np.array([row[0].priority for row in rows], np.int32),
        released_s=np.array([row[0].day * 86400.0 for row in rows], np.float64),
        deadline_s=np.array([row[4] for row in rows], np.float64),
        publisher=np.array([publishers[row[1]] if publishers else 0 for row in rows], np.int32),
    )


def one_bundle(
    places: Sequence[Place], size: float, *, policy: str, step_s: float, shape: str = "mesh"
) -> Network:
    """A day in which one bundle is passed on over links that lose nothing."""
    return network(
        Scenario(
            name="one bundle",
            run=Run(start=_START, days=1, step=Span(step_s), policy=policy),  # type: ignore[arg-type]
            tiers=_plain_tiers(places),
            releases=[Release(name="payload", size=Size(size))],
            vpn=Vpn(shape=shape),  # type: ignore[arg-type]
            calibration=PERFECT,
        ),
        places,
    )


def _plain_tiers(places: Sequence[Place]) -> list[Tier]:
    numbers = sorted({place.tier for place in places})
    return [
        Tier(
            tier=TIER_LABELS[number],  # type: ignore[arg-type]
            count=sum(place.tier == number for place in places),
            links=[Link(down=Rate(1.0), up=Rate(1.0))],
        )
        for number in numbers
    ]


# Drawn ones.


def draw_tree(
    chance: random.Random, *, tiers: Sequence[int], most_children: int, rates: Sequence[float]
) -> list[Place]:
    """Places with links drawn around a rate for each tier, up to 2.7 times as fast or as slow.

    Args:
        chance: Seeded.
        tiers: From the top.
        most_children: Of each place, at least 1.
        rates: Bytes/s by tier of `tiers`.
    """

    def rate(level: int) -> float:
        return float(round(rates[level] * math.exp(chance.uniform(-1, 1))))

    places = [Place(-1, tiers[0], rate(0), rate(0))]
    above = [0]
    for level in range(1, len(tiers)):
        parents = [place for place in above for _ in range(chance.randint(1, most_children))]
        above = list(range(len(places), len(places) + len(parents)))
        places += [Place(parent, tiers[level], rate(level), rate(level)) for parent in parents]
    return places


def draw(seed: int) -> Network:
    """A country of some ten places for some days, with calendars, stores, disks, subscriptions and weights."""
    chance = random.Random(f"trial {seed}")  # noqa: S311 - drawn networks.
    tiers = [0, *(tier for tier in (1, 2) if chance.random() < 0.7), 3, *([4] * (chance.random() < 0.5)), 5]  # fmt: skip
    days = chance.randint(2, 5)
    policies: list[Policy] = ["star", "tree", "swarm", "satellite-first"]
    policy = policies[seed % 4]
    rate = [2e6, 8e5, 5e5, 3e5, 1.5e5, 6.4e4]
    tree = draw_tree(chance, tiers=tiers, most_children=3, rates=[rate[tier] for tier in tiers])
    sizes = [Size(round(chance.uniform(0.02, 1.0) * 2e10)) for _ in range(chance.randint(2, 7))]
    audiences: list[list[TierName]] = [[], [], ["county"], ["county", "village"]]
    releases = [
        Release(
            name=f"r{number}",
            day=chance.randint(0, days - 1) * (number > 0),
            bundles=1,
            sizes=[size],
            priority=chance.choice((3, 5, 5, 8)),
            category=chance.choice(("opera", "lecture")),
            deadlines={"county": Days(chance.randint(1, 9))} if chance.random() < 0.5 else {},
            tiers=list(chance.choice(audiences)),
        )
        for number, size in enumerate(sizes)
    ]
    # Few kinds of links, as in a country: the policies are asked for each.
    tree = [_rounded(place) for place in tree]
    stores = [float(round(max(*sizes, sum(sizes) * part))) for part in (0.4, 0.8)]
    places = [_furnished(chance, place, stores) for place in tree]
    counties = [number for number, place in enumerate(places) if place.tier == 3]
    weights = {number: chance.choice((1.0, 1.0, 2.5)) for number in counties}
    for number, place in enumerate(places):
        above = number if place.tier == 3 else place.parent
        weight = weights.get(above, 1.0)
        if place.tier > 3:
            weights[number] = weight
        places[number] = _weighted(place, weight)
    scenario = Scenario(
        name=f"trial {seed}",
        run=Run(start=_START, days=days, seed=seed, policy=policy,
                step=Span(chance.choice((1800.0, 3600.0, 3600.0, 7200.0)))),
        tiers=[_tier(chance, number, places) for number in tiers],
        releases=releases,
        calendars=_CALENDARS,
        vpn=Vpn(shape=chance.choice(("mesh", "mesh", "hub"))),
        disks=Disks(
            size=Size(1e10), batch=chance.randint(1, 4), copy_rate=Rate(chance.uniform(1e5, 1e6)),
            leave=Span(43200.0), transit_least=Span(20000.0), transit_most=Span(90000.0),
            lost=Share(0.2), notice=Span(50000.0), releases=[releases[0].name],
        ) if chance.random() < 0.4 else None,
        satellite=Satellite(
            rate=Rate(1e6), code=("fountain", "carousel")[seed // 4 % 2]
        ) if policy == "satellite-first" or chance.random() < 0.3 else None,
        calibration=Calibration(
            efficiency=Share(0.95), thin=Rate(chance.choice((0.0, 20_000.0))),
            startup=Span(chance.choice((0.0, 2.5, 600.0, 5000.0))),
            eta=Share(chance.choice((1.0, 0.8))), phi=Share(chance.choice((1.0, 0.7))),
        ),
    )  # fmt: skip
    publishers = [0] * len(releases)
    if chance.random() < 0.3:
        publishers[-1] = counties[0]
    made = network(scenario, places, publishers)
    return replace(made, heard=_heard(chance, made)) if scenario.satellite else made


def _heard(chance: random.Random, made: Network) -> Sky:
    """A broadcast without a sender: each bundle is on the air from some step on, and comes at the end of a pass."""
    run = made.scenario.run
    steps = round(run.days * 86400 / run.step)
    bundles = len(made.bundles.size)
    flow, air = np.zeros((bundles, steps)), np.zeros((bundles, steps + 1))
    for b in range(bundles):
        begins = int(made.bundles.released_s[b] / run.step) + chance.randint(0, steps // 3)
        length = chance.randint(1, steps // 3)
        # A little off, so that no sum is exactly a whole: by rounding alone models may differ there.
        flow[b, begins:] = 1.0037 / length
        ends = begins + length
        if ends < steps:
            air[b, ends + 1 :] = 1.0
            air[b, ends] = chance.random()
    return Sky(air, flow)


def _rounded(place: Place) -> Place:
    rate = float(4 ** round(math.log(place.down_bytes_s) / math.log(4)))
    return Place(place.parent, place.tier, rate, round(rate * (0.5 if place.tier > 2 else 1.0)))


def _furnished(chance: random.Random, place: Place, stores: Sequence[float]) -> Place:
    return Place(
        place.parent,
        place.tier,
        place.down_bytes_s,
        place.up_bytes_s,
        has_dish=chance.random() < 0.5,
        store_bytes=chance.choice(stores) if place.tier >= 3 and chance.random() < 0.3 else 0.0,
        subscription=chance.choice((-1, 0)) if place.tier == 5 else -1,
    )


def _weighted(place: Place, weight: float) -> Place:
    return Place(
        place.parent, place.tier, place.down_bytes_s, place.up_bytes_s,
        has_dish=place.has_dish, store_bytes=place.store_bytes, subscription=place.subscription, weight=weight,
    )  # fmt: skip


def _tier(chance: random.Random, number: int, places: Sequence[Place]) -> Tier:
    plain = _plain_tiers([place for place in places if place.tier == number])[0]
    return Tier(
        tier=plain.tier,
        count=plain.count,
        links=plain.links,
        on=chance.choice(("always", "always", "open")) if number >= 4 else "always",
        off_days=Share(chance.choice((0.0, 0.2)) if number >= 3 else 0.0),
        public="open" if number >= 4 and chance.random() < 0.7 else "",
        public_share=Share(chance.choice((0.5, 0.8, 1.0))),
        pause=chance.choice(("", "", "siesta")),
        window=chance.choice(("", "", "night")) if number == 3 else "",
        subscriptions=[Subscription(categories=["opera"])],
    )

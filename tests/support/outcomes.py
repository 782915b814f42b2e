"""Outcomes of the planning model, made by hand: a small country in which each figure can be counted.

One nation, provinces, counties and villages; the shape is regular, the hours are drawn from a seed.
"""

from __future__ import annotations

import datetime as dt
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from cuntong_simulations.model.country import Bundles, Country, SiteClass
from cuntong_simulations.model.outcome import CARRIERS, CAUSES, Outcome
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
from cuntong_simulations.scenario.units import Money, Rate, Share, Size, Span

MBIT_S = 125_000.0
THICK, THIN = "100 Mbit/s", "10 Mbit/s"


def scenario(**changes: Any) -> Scenario:
    """Two releases, the second without a deadline for villages."""
    made = Scenario(
        name="small",
        title="小国 <two provinces>",
        run=Run(start=dt.date(2027, 3, 1), days=30),
        tiers=[
            Tier(tier="nation", count=1, links=[link(1000, 1000, "1 Gbit/s")]),
            Tier(tier="province", count=2, links=[link(200, 200, "200 Mbit/s")]),
            Tier(
                tier="county",
                count=8,
                links=[link(100, 50, THICK, 0.5), link(10, 5, THIN, 0.5)],
                dish=Share(0.5),
            ),
            Tier(tier="village", count=80, links=[link(0.512, 0.128, "512 kbit/s")]),
        ],
        releases=[
            Release(name="spring", bundles=3, size=Size(60e9), deadlines={"county": 10, "village": 20}),
            Release(name="opera", day=5, bundles=2, size=Size(20e9), deadlines={"county": 40}),
        ],
        sources=["Made up, to be counted by hand."],
    )  # fmt: skip
    return msgspec.structs.replace(made, **changes)


def link(down_mbit: float, up_mbit: float, name: str, share: float = 1.0) -> Link:
    return Link(
        down=Rate(down_mbit * MBIT_S), up=Rate(up_mbit * MBIT_S), name=name, share=Share(share)
    )


def with_everything() -> dict[str, Any]:
    """A satellite, disks and prices, for `scenario`."""
    return {
        "satellite": Satellite(rate=Rate(8 * MBIT_S), loss=Share(0.05)),
        "disks": Disks(
            size=Size(50e9), batch=100, copy_rate=Rate(100e6), releases=["spring"], leave=Span(7 * 86400.0)
        ),
        "costs": Costs(
            currency="CNY",
            source="Invented.",
            satellite_per_mbit_month=Money(60000.0),
            link_per_gb=Money(0.1),
            disk_trip=Money(40.0),
            parcel=Money(25.0),
        ),
    }  # fmt: skip


def country(of: Scenario, *, weight: float = 1.0) -> Country:
    """The scenario's tiers, spread evenly; links alternate. `weight`: of everything from the counties down."""
    tiers = [("nation", "province", "city", "county", "township", "village").index(t.tier) for t in of.tiers]  # fmt: skip
    classes: list[SiteClass] = []
    parents, tier_of, class_of, first = [-1], [tiers[0]], [0], [0]
    for number, one in enumerate(of.tiers):
        begin = len(classes)
        classes += [
            SiteClass(
                tier=tiers[number], down_bytes_s=float(kind.down), up_bytes_s=float(kind.up), link=kind.name,
                link_number=place, subscription=-1, has_dish=False, store_bytes=0.0,
            )
            for place, kind in enumerate(one.links)
        ]  # fmt: skip
        if number == 0:
            continue
        above = range(first[-1], len(parents))
        first.append(len(parents))
        for place in range(one.count):
            parents.append(above[place * len(above) // one.count])
            tier_of.append(tiers[number])
            class_of.append(begin + place % len(one.links))
    parent = np.array(parents, np.int32)
    nodes = len(parent)
    counts = np.bincount(parent[1:], minlength=nodes).astype(np.int32)
    firsts = np.full(nodes, -1, np.int32)
    firsts[parent[:0:-1]] = np.arange(nodes - 1, 0, -1, dtype=np.int32)
    province = np.zeros(nodes, np.int32)
    for node in range(1, nodes):
        province[node] = node if parent[node] == 0 else province[parent[node]]
    tier = np.array(tier_of, np.int8)
    return Country(
        scenario=of,
        classes=tuple(classes),
        parent=parent,
        first_child=firsts,
        child_count=counts,
        node_class=np.array(class_of, np.int32),
        tier=tier,
        province=province,
        identity=np.arange(nodes, dtype=np.int64),
        weight=np.where(tier >= 3, weight, 1.0),
        code=(province.astype(np.int64) + 10 * (province > 0)) * 10**10 + np.arange(nodes),
    )


def bundles(of: Scenario) -> Bundles:
    """All bundles of a release have the same size."""
    labels = ("nation", "province", "city", "county", "township", "village")
    release = [n for n, one in enumerate(of.releases) for _ in range(one.bundles)]
    days = [of.releases[n].day for n in release]
    return Bundles(
        names=tuple(f"{of.releases[n].name}/{place}" for place, n in enumerate(release)),
        release=np.array(release, np.int32),
        size=np.array([of.releases[n].size / of.releases[n].bundles for n in release]),
        priority=np.full(len(release), 5, np.int32),
        released_s=np.array(days) * 86400.0,
        deadline_s=np.array(
            [
                [
                    (days[b] + of.releases[n].deadlines.get(label, np.nan)) * 86400
                    for label in labels
                ]  # type: ignore[call-overload]
                for b, n in enumerate(release)
            ]
        ),
        publisher=np.zeros(len(release), np.int32),
    )


def outcome(of: Scenario | None = None, *, weight: float = 1.0, seed: int = 1) -> Outcome:
    """Hours drawn so that counties are in time, as a rule, and villages aren't."""
    of = of or scenario()
    place, what = country(of, weight=weight), bundles(of)
    random = np.random.default_rng(seed)
    nodes, days = place.node_count, of.run.days
    pace = np.array([0.0, 10.0, 30.0, 100.0, 150.0, 300.0])[place.tier][:, None]
    # A group of siblings shares its luck, as it shares an uplink.
    luck = random.lognormal(0.0, 0.4, nodes)[place.parent][:, None]
    done = what.released_s / 3600 + pace * luck * random.lognormal(
        0.0, 0.5, (nodes, len(what.size))
    )
    done[done > days * 24] = np.nan
    classes = len(place.classes)
    shape = (classes, 2, days)
    tiers = np.array([one.tier for one in place.classes])
    rate = np.array([[one.down_bytes_s, one.up_bytes_s] for one in place.classes])
    counts = np.bincount(place.node_class, place.weight, minlength=classes)
    room = np.broadcast_to((rate * counts[:, None])[:, :, None] * 86400, shape).copy()
    fading = np.exp(-np.arange(days) / 10.0)
    used = room * random.uniform(0.2, 0.9, shape) * fading
    carried = np.zeros((classes, len(CARRIERS), days))
    shares = random.dirichlet([6, 3, 2, 1], classes)
    carried[:] = used[:, :1] * shares[:, :, None]
    carried[tiers == 0] = 0.0
    provinces = np.concatenate([[0], np.flatnonzero(place.parent == 0)]).astype(np.int32)
    held = np.zeros((len(provinces), classes, len(CAUSES)))
    waiting = np.where(np.isnan(done), days * 24, done).max(axis=1) * place.weight
    causes = random.dirichlet([3, 2, 2, 1, 0.5, 0.2], (len(provinces), classes))
    index = np.searchsorted(provinces, place.province)
    np.add.at(held, (index, place.node_class), waiting[:, None] * causes[index, place.node_class])
    held[0] = 0.0
    wants: NDArray[np.bool_] = np.ones((classes, len(what.size)), np.bool_)
    return Outcome(
        country=place,
        bundles=what,
        done_h=done.astype(np.float32),
        wants=wants,
        carried=carried,
        link_bytes=used,
        link_room=room,
        held_back=held,
        province_nodes=provinces,
        threads=1,
        seconds=0.01,
    )

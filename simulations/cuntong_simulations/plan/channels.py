"""The cheapest mix of links, satellite and disks by which every county has every release in time."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from cuntong_protocol.divisions import TIER_LABELS
from cuntong_protocol.texts import N_, Sentence, sentence
from cuntong_simulations.results.findings import CostLine
from cuntong_simulations.scenario.scenario import Scenario

from .capacity import Floats
from .carriers import disks_of, months_of, satellite_of, sent
from .demand import COUNTY, Demand, demand
from .explain import shortfalls, store_shortfalls
from .inputs import Case, Margins
from .mix import Mix, cheapest
from .orders import orders
from .places import settle
from .problem import GB, Problem, build
from .program import Ints
from .result import Order, Plan, Way
from .solve import Status, Tell


def plan(
    case: Case,
    *,
    seconds: float = 60.0,
    gap: float = 0.01,
    tell: Tell | None = None,
    margins: Margins | None = None,
) -> Plan:
    """Plan for counties, and for the places above, through which they get it.

    Places below counties aren't planned for. The links that are there may always be used.

    First it is decided what is broadcast, and how far costs could be brought down at best; then what disks are needed
    beside it, place by place.

    Args:
        case: What is planned for.
        seconds: At most so long; what is best by then is taken.
        gap: So far from the optimum, relative, is good enough.
        tell: Is told how it gets on.
        margins: How carefully is planned; as a rule not at all, and then `loop.tighten` sees to it.

    Raises:
        PlanError: `sim.plan-no-counties`, `sim.plan-solver`.
    """
    began = time.perf_counter()
    margins = margins or Margins()
    case = case.planned_with(margins)
    wanted = demand(case, margins.deadline_s)
    lacking = store_shortfalls(case.country, wanted)
    mix = cheapest(case, wanted, seconds=seconds, gap=gap, tell=tell)
    status = mix.status
    if lacking or status is Status.INFEASIBLE:
        status = Status.INFEASIBLE
        mix = replace(mix, x=np.zeros(0))
        lacking += shortfalls(case, wanted)
    reading = _Reading(case, wanted, mix)
    is_found = len(mix.x) > 0
    bill = tuple(reading.bill()) if is_found else ()
    cost = sum(line.cost for line in bill) if is_found else math.inf
    return Plan(
        status=status,
        notes=tuple(_notes(case.scenario)),
        margins=margins,
        satellite_mbit_s=reading.satellite_mbit_s,
        on_air=reading.on_air,
        orders=reading.orders,
        node=wanted.node,
        link_bytes=reading.link_bytes,
        satellite_bytes=reading.satellite_bytes,
        disk_bytes=reading.disk_bytes,
        ways=tuple(reading.ways()) if is_found else (),
        bill=bill,
        cost=cost,
        bound=mix.bound,
        gap=max(0.0, (cost - mix.bound) / cost) if 0 < cost < math.inf else 0.0,
        seconds=time.perf_counter() - began,
        shortfalls=lacking,
    )


def _notes(scenario: Scenario) -> Iterator[Sentence]:
    if scenario.satellite is not None and satellite_of(scenario) is None:
        yield sentence(
            "sim.plan-satellite-without-price",
            N_("The satellite isn't used: costs.satellite_per_mbit_month isn't given."),
        )
    if scenario.disks is not None and disks_of(scenario) is None:
        yield sentence(
            "sim.plan-disks-without-price",
            N_("Disks aren't used: costs.disk, costs.disk_trip and costs.parcel aren't given."),
        )
    elif scenario.disks is not None and scenario.costs is not None:
        costs = scenario.costs
        for name in ("disk", "disk_trip", "parcel"):
            if getattr(costs, name) is None:
                yield sentence(
                    "sim.plan-not-counted",
                    N_("costs.{name} isn't given, so it isn't counted."),
                    name=name,
                )
    disks = disks_of(scenario)
    if disks is not None and disks.lost > 0:
        yield sentence(
            "sim.plan-disks-lost",
            N_(
                "Disks and parcels are counted {times} times, since some get lost and are sent again."
            ),
            times=f"{sent(disks):.3g}",
        )
    if scenario.costs is None or scenario.costs.link_per_gb is None:
        yield sentence(
            "sim.plan-link-free",
            N_("costs.link_per_gb isn't given: links count as paid for, up to what they carry."),
        )


class _Reading:
    """What a solution means."""

    def __init__(self, case: Case, wanted: Demand, mix: Mix) -> None:
        self._scenario, self._country, self._wanted = case.scenario, case.country, wanted
        self.on_air, self.satellite_mbit_s = mix.on_air, 0.0
        self.orders: tuple[Order, ...] = ()
        self.link_bytes = self.satellite_bytes = self.disk_bytes = np.zeros(wanted.need.shape)
        if not len(mix.x):
            self.on_air = np.zeros_like(mix.on_air)
            return
        satellite = self._scenario.satellite
        if satellite is not None:
            # The last step may go beyond what there is.
            self.satellite_mbit_s = min(mix.mbit_s, satellite.rate * 8 / 1e6)
        self._read(mix.problem, mix.x)
        self._link_is_enough = build(case, wanted).link_is_enough(wanted.tier)

    def _read(self, problem: Problem, x: Floats) -> None:
        scenario, wanted = self._scenario, self._wanted
        wants = wanted.wants[wanted.site_class]
        is_of = wanted.release[:, None] == np.arange(wanted.release_count)
        is_covered = problem.covered[:, wanted.release] > 0
        arrives = wants & self.on_air & is_covered & (wanted.need[:, wanted.release] > 0)
        on_disk = np.zeros_like(arrives)
        disks = disks_of(scenario)
        if disks is not None and scenario.costs is not None:
            count, volume = settle(problem, wanted, disks, scenario.costs, x)
            self.orders = orders(scenario, wanted, disks, count, volume * GB, arrives)
            site = self._sites()
            for order in self.orders:
                on_disk[site[order.node], list(order.bundles)] = True
        self.disk_bytes = (on_disk * wanted.size) @ is_of
        self.satellite_bytes = problem.covered * (((arrives & ~on_disk) * wanted.size) @ is_of)
        left = wanted.need - self.disk_bytes - self.satellite_bytes
        self.link_bytes = np.maximum(left, 0.0)

    def _sites(self) -> Ints:
        """The place of each node; -1: none."""
        site = np.full(self._country.node_count, -1)
        site[self._wanted.node] = np.arange(self._wanted.site_count)
        return site

    def ways(self) -> Iterator[Way]:
        wanted, country = self._wanted, self._country
        links = np.array([one.link for one in country.classes])[wanted.site_class]
        rates = np.array([one.down_bytes_s for one in country.classes])[wanted.site_class]
        disks, parcels = np.zeros(wanted.need.shape), np.zeros(wanted.need.shape)
        site = self._sites()
        for order in self.orders:
            disks[site[order.node], order.release] += order.disks
            parcels[site[order.node], order.release] += 1
        for number, release in enumerate(self._scenario.releases):
            for tier in range(1, COUNTY + 1):
                of_tier = (wanted.tier == tier) & (wanted.need[:, number] > 0)
                names, example = np.unique(links[of_tier], return_index=True)
                for link in names[np.argsort(rates[of_tier][example], kind="stable")].tolist():
                    there = of_tier & (links == link)
                    yield Way(
                        release=release.name,
                        tier=TIER_LABELS[tier],
                        link=link,
                        places=int(there.sum()),
                        without_disks=int((parcels[there, number] == 0).sum()),
                        by_satellite=int((self.satellite_bytes[there, number] > 0).sum()),
                        link_is_enough=int(self._link_is_enough[there, number].sum()),
                        need_bytes=float(wanted.need[there, number].sum()),
                        link_bytes=float(self.link_bytes[there, number].sum()),
                        satellite_bytes=float(self.satellite_bytes[there, number].sum()),
                        disk_bytes=float(self.disk_bytes[there, number].sum()),
                        disks=int(disks[there, number].sum()),
                        parcels=int(parcels[there, number].sum()),
                    )

    def bill(self) -> list[CostLine]:
        scenario, costs, wanted = self._scenario, self._scenario.costs, self._wanted
        if costs is None:
            return []
        disks = disks_of(scenario)
        again = sent(disks) if disks else 1.0
        over_link = float(self.link_bytes[wanted.tier == COUNTY].sum())
        posted = sum(order.disks for order in self.orders)
        lines = (
            ("satellite", self.satellite_mbit_s * months_of(scenario), "Mbit/s·month", costs.satellite_per_mbit_month),
            ("link", over_link / GB, "GB", costs.link_per_gb),
            ("disk", self._stock(), "disk", costs.disk),
            ("disk-trip", posted * again, "disk", costs.disk_trip),
            ("parcel", len(self.orders) * again, "parcel", costs.parcel),
        )  # fmt: skip
        return [
            CostLine(item=item, quantity=quantity, unit=unit, price=float(price))
            for item, quantity, unit, price in lines
            if price is not None and quantity
        ]

    def _stock(self) -> float:
        """The most disks that are away at once: from a release to its deadline, as the program counts them."""
        wanted, site = self._wanted, self._sites()
        released, deadline = wanted.released_s, wanted.deadline_s
        away = np.zeros((COUNTY + 1, wanted.release_count))
        for order in self.orders:
            away[wanted.tier[site[order.node]], order.release] += order.disks
        moments = np.unique(released)
        is_away = (released <= moments[:, None, None]) & (moments[:, None, None] < deadline)
        return float((is_away * away).sum(axis=(1, 2)).max())

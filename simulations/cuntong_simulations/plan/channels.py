"""The cheapest mix of links, satellite and disks by which every county has every release in time."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator

import numpy as np

from cuntong_protocol.divisions import TIER_LABELS
from cuntong_protocol.texts import N_, Sentence, sentence
from cuntong_simulations.model.country import Bundles, Country
from cuntong_simulations.results.findings import CostLine
from cuntong_simulations.scenario.scenario import Scenario

from .capacity import Bools, Floats, Rates
from .demand import COUNTY, Demand, demand
from .explain import shortfalls, store_shortfalls
from .inputs import link_rates, wanted_bundles
from .orders import orders
from .problem import Margins, Problem, build, disks_of, months_of, satellite_of
from .result import Order, Plan, Way
from .solve import Solution, Status, Tell, solve

GB = 1e9
LEASE_STEP_MBIT_S = 0.1
"""The leased rate is rounded up to this."""


def plan(
    scenario: Scenario,
    country: Country,
    bundles: Bundles,
    *,
    seconds: float = 60.0,
    gap: float = 0.01,
    tell: Tell | None = None,
    margins: Margins | None = None,
    rates: Rates | None = None,
    wants: Bools | None = None,
) -> Plan:
    """Plan for counties, and for the places above, through which they get it.

    Places below counties aren't planned for. A carrier that costs something may only be used if its price is stated;
    the links that are there may always be used.

    Args:
        scenario: With `[costs]`.
        country: The whole one, not a sample.
        bundles: Of the scenario.
        seconds: At most so long; what is best by then is taken.
        gap: So far from the optimum, relative, is good enough.
        tell: Is told how it gets on.
        margins: How carefully is planned; as a rule not at all, and then `loop.tighten` sees to it.
        rates: What links carry by site class; None: as the model says.
        wants: By site class and bundle; None: as the model says.

    Raises:
        PlanError: `sim.plan-no-counties`, `sim.plan-solver`.
    """
    began = time.perf_counter()
    margins = margins or Margins()
    rates = rates or link_rates(scenario, country)
    wants = wanted_bundles(scenario, country, bundles) if wants is None else wants
    wanted = demand(scenario, country, bundles, wants, margin_s=margins.deadline_s)
    lacking = store_shortfalls(country, wanted)
    problem = build(scenario, country, wanted, rates, margins=margins)
    found = solve(problem.program, seconds=seconds, gap=gap, tell=tell)
    if lacking or found.status is Status.INFEASIBLE:
        lacking += shortfalls(scenario, country, wanted, rates, margins)
        found = Solution(Status.INFEASIBLE, np.zeros(0), math.inf, math.inf, 0.0, found.seconds)
    reading = _Reading(scenario, country, wanted, problem, found.x)
    return Plan(
        found.status,
        tuple(_notes(scenario)),
        margins,
        reading.satellite_mbit_s,
        reading.on_air,
        reading.orders,
        wanted.node,
        reading.link_bytes,
        reading.satellite_bytes,
        reading.disk_bytes,
        tuple(reading.ways()) if len(found.x) else (),
        tuple(reading.bill()) if len(found.x) else (),
        sum(line.cost for line in reading.bill()) if len(found.x) else math.inf,
        found.bound,
        found.gap,
        time.perf_counter() - began,
        lacking,
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
    if scenario.costs is None or scenario.costs.link_per_gb is None:
        yield sentence(
            "sim.plan-link-free",
            N_("costs.link_per_gb isn't given: links count as paid for, up to what they carry."),
        )


class _Reading:
    """What a solution means."""

    def __init__(
        self, scenario: Scenario, country: Country, wanted: Demand, problem: Problem, x: Floats
    ) -> None:
        self._scenario, self._country, self._wanted = scenario, country, wanted
        shape = wanted.need.shape
        self.on_air = np.zeros(len(wanted.size), np.bool_)
        self.satellite_mbit_s = 0.0
        self.orders: tuple[Order, ...] = ()
        self.link_bytes = self.satellite_bytes = self.disk_bytes = np.zeros(shape)
        if len(x):
            self._read(problem, x)

    def _read(self, problem: Problem, x: Floats) -> None:
        scenario, wanted = self._scenario, self._wanted
        # What isn't there is read from one more column, which is 0.
        x = np.append(x, 0.0)
        self.on_air = x[problem.on_air] > 0.5
        if self.on_air.any():
            steps = math.ceil(x[problem.rate] / LEASE_STEP_MBIT_S - 1e-6)
            self.satellite_mbit_s = steps * LEASE_STEP_MBIT_S
        wants = wanted.wants[wanted.site_class]
        is_of = wanted.release[:, None] == np.arange(wanted.release_count)
        is_covered = problem.covered[:, wanted.release] > 0
        arrives = wants & self.on_air & is_covered & (wanted.need[:, wanted.release] > 0)
        on_disk = np.zeros_like(arrives)
        disks = disks_of(scenario)
        if disks is not None:
            volume = np.maximum(x[problem.disk], 0.0) * GB
            self.orders = orders(scenario, wanted, disks, x[problem.disks], volume, arrives)
            site = np.full(self._country.node_count, -1)
            site[wanted.node] = np.arange(wanted.site_count)
            for order in self.orders:
                on_disk[site[order.node], list(order.bundles)] = True
        self.disk_bytes = (on_disk * wanted.size) @ is_of
        self.satellite_bytes = problem.covered * (((arrives & ~on_disk) * wanted.size) @ is_of)
        left = wanted.need - self.disk_bytes - self.satellite_bytes
        self.link_bytes = np.maximum(left, 0.0)

    def ways(self) -> Iterator[Way]:
        wanted, country = self._wanted, self._country
        links = np.array([one.link for one in country.classes])[wanted.site_class]
        disks, parcels = np.zeros(wanted.need.shape), np.zeros(wanted.need.shape)
        site = np.full(country.node_count, -1)
        site[wanted.node] = np.arange(wanted.site_count)
        for order in self.orders:
            disks[site[order.node], order.release] += order.disks
            parcels[site[order.node], order.release] += 1
        for number, release in enumerate(self._scenario.releases):
            for tier in range(1, COUNTY + 1):
                of_tier = (wanted.tier == tier) & (wanted.need[:, number] > 0)
                for link in np.unique(links[of_tier]).tolist():
                    there = of_tier & (links == link)
                    yield Way(
                        release=release.name,
                        tier=TIER_LABELS[tier],
                        link=link,
                        places=int(there.sum()),
                        without_disks=int((parcels[there, number] == 0).sum()),
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
        again = 1 / (1 - min(disks.lost, 0.99)) if disks else 1.0
        over_link = float(self.link_bytes[wanted.tier == COUNTY].sum())
        sent = sum(order.disks for order in self.orders)
        lines = (
            ("satellite", self.satellite_mbit_s * months_of(scenario), "Mbit/s·month", costs.satellite_per_mbit_month),
            ("link", over_link / GB, "GB", costs.link_per_gb),
            ("disk", self._stock(), "disk", costs.disk),
            ("disk-trip", sent * again, "disk", costs.disk_trip),
            ("parcel", len(self.orders) * again, "parcel", costs.parcel),
        )  # fmt: skip
        return [
            CostLine(item=item, quantity=quantity, unit=unit, price=float(price))
            for item, quantity, unit, price in lines
            if price is not None and quantity
        ]

    def _stock(self) -> float:
        """The most disks that are away at once: from a release to its deadline, as the program counts them."""
        wanted = self._wanted
        released, deadline = wanted.released_s, wanted.deadline_s
        site = np.full(self._country.node_count, -1)
        site[wanted.node] = np.arange(wanted.site_count)
        away = np.zeros((COUNTY + 1, wanted.release_count))
        for order in self.orders:
            away[wanted.tier[site[order.node]], order.release] += order.disks
        moments = np.unique(released)
        is_away = (released <= moments[:, None, None]) & (moments[:, None, None] < deadline)
        return float((is_away * away).sum(axis=(1, 2)).max())

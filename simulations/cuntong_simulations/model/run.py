"""Runs the compiled model: `run`."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from datetime import timedelta
from itertools import pairwise

import numba
import numpy as np
from numpy.typing import NDArray

from cuntong_daemon.policy.eviction import Held, evict
from cuntong_protocol.divisions import TIER_LABELS
from cuntong_simulations.scenario.scenario import Calibration, Scenario

from . import kernel
from .arrays import COLUMNS, GROUP_ROWS, HELD, STAR_ROWS, Given, Settings, State
from .chance import chance
from .country import Bundles, Country
from .disks import Arrivals, arrivals
from .kernel import PARTS
from .memory import estimate, refuse_too_large
from .outcome import CARRIERS, CAUSES, Outcome
from .parameters import MEASURED, calibration_of
from .parcel import Parcel
from .sky import Sky, silent, sky
from .tables import Tables, tables

DAY_S = 86400.0
_MOST_THREADS = numba.get_num_threads()


def run(
    scenario: Scenario,
    country: Country,
    bundles: Bundles,
    *,
    threads: int = 1,
    tell: Callable[[float], None] | None = None,
    calibration: Calibration = MEASURED,
    heard: Sky | None = None,
    parcels: Sequence[Parcel] | None = None,
    ends_early: bool = False,
) -> Outcome:
    """Compute a scenario.

    Args:
        scenario: Checked.
        country: Its places, or a sample of them.
        bundles: What is published.
        threads: The result is the same for any number.
        tell: Is told the share that is done, once for each day; what it raises ends the run.
        calibration: For what the scenario doesn't say.
        heard: What the satellite brings; computed if None.
        parcels: What leaves by post; None: what the scenario says.
        ends_early: Stop in the hour in which everybody has everything that was released by then; only the times when
            places were done are of use then.

    Raises:
        ModelError: `sim.too-large`.
    """
    dishes = sum(
        int((country.node_class == number).sum())
        for number, site in enumerate(country.classes)
        if site.has_dish
    )
    refuse_too_large(
        estimate(
            country.node_count,
            len(bundles.size),
            dishes,
            is_star=scenario.run.policy == "star",
            rows=len(np.unique(country.province * len(country.classes) + country.node_class)),
            steps=round(scenario.run.days * DAY_S / scenario.run.step),
        )
    )
    began = time.perf_counter()
    values = calibration_of(scenario, calibration)
    model = _Model(scenario, country, bundles, values, heard, parcels)
    before = numba.get_num_threads()
    numba.set_num_threads(max(1, min(threads, _MOST_THREADS)))
    try:
        for day in range(scenario.run.days):
            model.run_day(day, ends_early=ends_early)
            if tell is not None:
                tell((day + 1) / scenario.run.days)
    finally:
        numba.set_num_threads(before)
    return model.outcome(threads, time.perf_counter() - began)


class _Model:
    """A run's arrays."""

    def __init__(
        self,
        scenario: Scenario,
        country: Country,
        bundles: Bundles,
        calibration: Calibration,
        heard: Sky | None,
        parcels: Sequence[Parcel] | None,
    ) -> None:
        self._scenario, self._country, self._bundles = scenario, country, bundles
        self._dt = float(scenario.run.step)
        self._day_steps = round(DAY_S / self._dt)
        steps = self._day_steps * scenario.run.days
        self._tables = tables(scenario, country.classes, bundles, calibration)
        if heard is None:
            has_dish = any(site.has_dish for site in country.classes)
            heard = sky(scenario, bundles) if has_dish else silent(len(bundles.size), steps)
        policy = scenario.run.policy
        startup, eta, phi = (
            float(value or 0.0) for value in (calibration.startup, calibration.eta, calibration.phi)
        )
        copy_rate = float(scenario.disks.copy_rate) if scenario.disks else 0.0
        self._settings = Settings(
            dt=self._dt,
            startup=startup,
            eta=eta,
            phi=phi,
            copy_bytes=copy_rate * self._dt,
            is_swarm=policy in ("swarm", "satellite-first"),
            is_star=policy == "star",
            leaves_to_sky=policy == "satellite-first",
            is_carousel=scenario.satellite is not None and scenario.satellite.code == "carousel",
            has_air=bool(heard.flow.any()),
        )
        posted = arrivals(scenario, country, bundles, self._tables.wants, parcels)
        self._given = _given(scenario, country, bundles, self._tables, heard, posted)
        self._state = self._start()
        width = self._width()
        parts = 1 if policy == "star" else PARTS
        self._scratch = np.zeros((parts, STAR_ROWS if policy == "star" else GROUP_ROWS, width))
        self._who = np.zeros((parts, width), np.int32)
        pairs = int(self._given.pair.max()) + 1
        self._sums = np.zeros((PARTS, pairs, COLUMNS))
        classes, days = len(country.classes), scenario.run.days
        self._carried = np.zeros((classes, len(CARRIERS), days))
        self._link_bytes = np.zeros((classes, 2, days))
        self._link_room = np.zeros((classes, 2, days))
        self._held = np.zeros((pairs, len(CAUSES)))
        self._class_of_pair = np.zeros(pairs, np.int64)
        self._class_of_pair[self._given.pair] = country.node_class
        self._province_of_pair = np.zeros(pairs, np.int64)
        self._province_of_pair[self._given.pair] = country.province

    def run_day(self, day: int, *, ends_early: bool = False) -> None:
        """Releases, who is off, the steps, eviction."""
        s, country = self._state, self._country
        self._release(day)
        off_part = self._tables.off_part[country.node_class]
        s.is_off[:] = 0
        some = np.flatnonzero(off_part)
        if len(some):
            lots = chance(self._scenario.run.seed, country.identity[some], day)
            s.is_off[some] = lots < off_part[some]
        first_hour = (self._scenario.run.start.weekday() + day) % 7 * 24
        looks = 24 if ends_early and self._day_steps % 24 == 0 else 1
        steps = self._day_steps // looks
        for look in range(looks):
            if ends_early and not s.left.any():
                break
            kernel.run_day(
                self._given, self._settings, s, (day * looks + look) * steps, steps,
                first_hour + look, self._scratch, self._who, self._sums,
            )  # fmt: skip
        self._add_up(day, first_hour)
        self._evict(day)

    def outcome(self, threads: int, seconds: float) -> Outcome:
        """What came of it."""
        country = self._country
        provinces = np.unique(np.concatenate(([0], country.province[country.tier == 1], country.province)))  # fmt: skip
        held = np.zeros((len(provinces), len(country.classes), len(CAUSES)))
        place = np.searchsorted(provinces, self._province_of_pair)
        np.add.at(held, (place, self._class_of_pair), self._held)
        return Outcome(
            country=country,
            bundles=self._bundles,
            done_h=self._state.done_h,
            wants=self._tables.wants,
            carried=self._carried,
            link_bytes=self._link_bytes,
            link_room=self._link_room,
            held_back=held,
            province_nodes=provinces.astype(np.int32),
            threads=threads,
            seconds=seconds,
        )

    def _width(self) -> int:
        """The most flows that are shared out at once."""
        country, g = self._country, self._given
        if self._settings.is_star:
            return country.node_count
        width = int(country.child_count.max(initial=1))
        below = np.flatnonzero((g.hub >= 0) & (g.hub != np.arange(len(g.hub))))
        if len(below):
            depth = np.searchsorted(g.depth_begin, below, side="right")
            _, counts = np.unique(g.hub[below] * 16 + depth, return_counts=True)
            width = max(width, int(counts.max()))
        return width

    def _start(self) -> State:
        g, count = self._given, self._country.node_count
        bundles, groups = len(g.size), int(g.fresh_row.max()) + 1
        return State(
            have=np.zeros((bundles, count)),
            done_h=np.full((count, bundles), np.nan, np.float32),
            pending=np.zeros((bundles, count), np.uint8),
            left=np.zeros(count, np.int32),
            is_off=np.zeros(count, np.uint8),
            is_idle=np.zeros(count, np.uint8),
            role=np.zeros(count, np.uint8),
            up_used=np.zeros(count),
            fresh=np.zeros((groups, bundles)),
            is_awaited=np.zeros((groups, bundles), np.uint8),
            used=np.zeros(count),
            intake=np.zeros(count),
            missed=np.zeros((len(g.dish), bundles)),
            to_sky=np.zeros((len(g.dish), bundles), np.uint8),
            order_done=np.zeros(len(g.order_node), np.uint8),
        )

    def _release(self, day: int) -> None:
        """What is released on a day is whole at its publisher, and wanted by those below it."""
        s, country, bundles = self._state, self._country, self._bundles
        released = np.flatnonzero(np.floor(bundles.released_s / DAY_S) == day)
        for bundle in released.tolist():
            publisher = int(bundles.publisher[bundle])
            size = bundles.size[bundle]
            s.have[bundle, publisher] = size
            s.used[publisher] += size
            s.done_h[publisher, bundle] = day * 24.0
            wants = self._tables.wants[:, bundle][country.node_class]
            if publisher:
                wants &= _below(country, publisher)
            wants[publisher] = False
            s.pending[bundle] = wants
            s.is_awaited[:, bundle] = 1
            s.left[:] += wants

    def _add_up(self, day: int, first_hour: int) -> None:
        sums = self._sums.sum(axis=0)
        self._sums[:] = 0
        self._held += sums[:, HELD:]
        np.add.at(self._carried[:, :, day], self._class_of_pair, sums[:, :4])
        np.add.at(self._link_bytes[:, :, day], self._class_of_pair, sums[:, 4:6])
        hours = ((first_hour + np.arange(self._day_steps) * self._dt / 3600) % 168).astype(int)
        on = np.bincount(
            self._country.node_class,
            weights=self._country.weight * (self._state.is_off == 0),
            minlength=len(self._country.classes),
        )
        for way, rates in enumerate((self._tables.down, self._tables.up)):
            self._link_room[:, way, day] = rates[:, hours].sum(axis=1) * self._dt * on

    def _evict(self, day: int) -> None:
        """At the end of a day, where not all that is wanted fits: what `policy.eviction` lets go."""
        g, s, country, bundles = self._given, self._state, self._country, self._bundles
        carries = (self._tables.wants & ~self._tables.is_own).any(axis=1)
        kinds = np.flatnonzero((g.is_tight > 0) & carries)
        today = self._scenario.run.start + timedelta(days=day)
        # Decided for all before anything leaves: what a child lacks is told by the day's end.
        leaving = []
        for node in np.flatnonzero(np.isin(country.node_class, kinds) & (s.left > 0)).tolist():
            kind = country.node_class[node]
            lacking = (s.pending[:, node] > 0) & (s.have[:, node] <= 0)
            needed = bundles.size[lacking].sum() - (g.store[kind] - s.used[node])
            if needed <= 0:
                continue
            children = slice(g.first[node], g.first[node] + g.children[node])
            is_needed = s.pending[:, children].max(axis=1, initial=0)
            held = [
                Held(
                    f"{number:09}",
                    int(bundles.size[number]),
                    is_wanted=bool(self._tables.is_own[kind, number])
                    or bundles.publisher[number] == node
                    or s.pending[number, node] > 0,
                    is_needed_below=bool(is_needed[number]),
                    used_at=int(bundles.released_s[number] // DAY_S),
                )
                for number in np.flatnonzero(s.have[:, node] > 0).tolist()
            ]  # fmt: skip
            leaving += [
                (node, int(gone.key))
                for gone in evict(held, needed_bytes=int(np.ceil(needed)), today=today)
            ]
        for node, number in leaving:
            s.have[number, node] = 0
            s.used[node] -= bundles.size[number]


def _below(country: Country, place: int) -> NDArray[np.bool_]:
    """Which nodes lie below a place."""
    is_below = np.zeros(country.node_count, np.bool_)
    # Breadth first, so parents ascend, and those of one depth that lie below a place follow each other.
    first, last = place, place + 1
    while first < last:
        first, last = np.searchsorted(country.parent, (first, last)).tolist()
        is_below[first:last] = True
    return is_below


def _depths(country: Country) -> NDArray[np.int32]:
    """The first node of each depth, and the number of nodes."""
    begins, first, last = [0], 0, 1
    while first < last:
        begins.append(last)
        counts = country.child_count[first:last]
        first, last = last, last + int(counts.sum())
    return np.array(begins, np.int32)


def _given(
    scenario: Scenario,
    country: Country,
    bundles: Bundles,
    tables_: Tables,
    heard: Sky,
    orders: Arrivals,
) -> Given:
    classes = country.classes
    begins = _depths(country)
    hub = np.full(country.node_count, -1, np.int32)
    if scenario.vpn.shape == "hub":
        hub_tier = TIER_LABELS.index(scenario.vpn.hub)
        hubs = np.flatnonzero(country.tier == hub_tier)
        hub[hubs] = hubs
        for begin, end in pairwise(begins[1:].tolist()):
            above = hub[country.parent[begin:end]]
            hub[begin:end] = np.where(above >= 0, above, hub[begin:end])
    trades = np.zeros(country.node_count, np.int8)
    kind = tables_.trades[country.node_class]
    for wanted in (1, 2):
        may = (kind == 1) | (kind == wanted)
        mays = np.bincount(country.parent[1:], weights=may[1:], minlength=country.node_count)
        trades[(mays == country.child_count) & (trades == 0) & (country.child_count > 0)] = wanted
    trades[hub >= 0] = 0
    if scenario.run.policy not in ("swarm", "satellite-first"):
        trades[:] = 0
    fresh_row = np.full(country.node_count, -1, np.int32)
    groups = np.flatnonzero(trades)
    fresh_row[groups] = np.arange(len(groups))
    pair_key = country.province.astype(np.int64) * len(classes) + country.node_class
    _, pair = np.unique(pair_key, return_inverse=True)
    has_dish = np.array([site.has_dish for site in classes])
    dish = np.flatnonzero(has_dish[country.node_class])
    dish_row = np.full(country.node_count, -1, np.int32)
    dish_row[dish] = np.arange(len(dish))
    has_link = (tables_.down + tables_.up).any(axis=1)
    is_stranded = ~(has_link | has_dish)[country.node_class]
    is_stranded[bundles.publisher] = False
    is_stranded[orders.node] = False
    store = np.array([site.store_bytes or np.inf for site in classes])
    wanted_bytes = np.where(tables_.wants, bundles.size, 0).sum(axis=1)
    is_tight = (wanted_bytes > store).astype(np.uint8)
    arrives = np.where(np.isfinite(orders.arrived_s), orders.arrived_s, 1e15)
    star_key = np.where(hub == np.arange(country.node_count), -1, hub)
    star_order = np.argsort(star_key, kind="stable")
    star_hub, star_begin = np.unique(star_key[star_order], return_index=True)
    is_hub = star_hub >= 0
    flow_sum = np.concatenate((np.zeros((len(bundles.size), 1)), np.cumsum(heard.flow, axis=1)), axis=1)  # fmt: skip
    is_sent = (np.diff(heard.air, axis=1) != 0) | (heard.flow != 0)
    is_sent |= scenario.run.policy == "satellite-first"
    step, sent = np.nonzero(is_sent.T)
    return Given(
        parent=country.parent,
        first=country.first_child,
        children=country.child_count,
        node_class=country.node_class,
        weight=country.weight,
        depth_begin=begins,
        pair=pair.astype(np.int32),
        hub=hub,
        trades=trades,
        fresh_row=fresh_row,
        down=tables_.down,
        up=tables_.up,
        listens=tables_.listens,
        order=tables_.order,
        wanted_count=tables_.wants.sum(axis=1).astype(np.int32),
        link_bytes_s=np.array([float(int(site.down_bytes_s)) for site in classes]),
        store=store,
        is_stranded=is_stranded.astype(np.uint8),
        is_tight=is_tight,
        tight=np.flatnonzero(is_tight[country.node_class] > 0).astype(np.int32),
        size=bundles.size,
        publisher=bundles.publisher,
        dish=dish.astype(np.int32),
        dish_row=dish_row,
        air=heard.air,
        flow=heard.flow,
        flow_sum=flow_sum,
        sent=sent.astype(np.int32),
        sent_begin=np.searchsorted(step, np.arange(is_sent.shape[1] + 1)),
        order_node=orders.node,
        order_step=np.ceil(arrives / float(scenario.run.step)).astype(np.int64),
        order_brings=orders.brings,
        publishers=np.unique(bundles.publisher).astype(np.int32),
        star_order=star_order.astype(np.int32),
        star_begin=np.append(star_begin[is_hub], country.node_count).astype(np.int32),
        star_hub=star_hub[is_hub].astype(np.int32),
    )

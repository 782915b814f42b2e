"""The channel planner: what it chooses, against a search through all choices, and what it may not use."""

from __future__ import annotations

import itertools
import math
from typing import Any

import msgspec
import numpy as np
import pytest

from cuntong_simulations.plan.carriers import months_of
from cuntong_simulations.plan.channels import plan
from cuntong_simulations.plan.demand import demand
from cuntong_simulations.plan.inputs import Case, Margins
from cuntong_simulations.plan.orders import FINENESS, fullest
from cuntong_simulations.plan.problem import build
from cuntong_simulations.plan.result import Plan
from cuntong_simulations.plan.solve import Status
from cuntong_simulations.scenario.scenario import Run, Scenario
from cuntong_simulations.scenario.units import Money, Rate, Size, Span
from tests.support import plan_country as made

DAY_S = 86400.0
ONE = {"counties": 6, "provinces": 2, "subscriptions": 1}


def planned(of: Scenario, *, margins: Margins | None = None, gap: float = 0.0, **shape: Any) -> Plan:  # fmt: skip
    country = made.country(of, **shape)
    published = made.bundles(of)
    case = Case(of, country, published, made.rates(country), made.wants(country, published))
    return plan(case, gap=gap, margins=margins)


def one_release(**changes: Any) -> Scenario:
    """4 TB in 60 days, one bundle."""
    return made.scenario(releases=[made.release("push", 0, 60, bundles=1, size=4e12)], **changes)


def test_counties_on_thin_links_get_disks_and_nobody_else() -> None:
    found = planned(one_release(satellite=None), county_mbit=((2, 0.5), (10, 0.5)), **ONE)

    ways = {way.link: way for way in found.ways if way.tier == "county"}
    assert ways["2 Mbit/s"].parcels == ways["2 Mbit/s"].disks == ways["2 Mbit/s"].places > 0
    assert ways["10 Mbit/s"].parcels == 0
    assert ways["10 Mbit/s"].link_bytes == pytest.approx(ways["10 Mbit/s"].need_bytes)
    assert found.cost == ways["2 Mbit/s"].places * 80


def test_a_broadcast_is_paid_for_once_and_so_beats_disks_when_many_have_dishes() -> None:
    thin = {"county_mbit": ((2, 1.0),), "provinces": 33, "subscriptions": 1, "dishes": 1.0}
    few = planned(one_release(), counties=100, **thin)
    many = planned(one_release(), counties=2800, **thin)

    assert few.satellite_mbit_s == 0
    assert few.parcel_count == 100
    assert many.satellite_mbit_s > 0
    assert many.parcel_count == 0
    assert many.cost < 2800 * 80


def test_nothing_without_a_price_is_used_and_the_plan_says_so() -> None:
    no_prices = msgspec.structs.replace(
        made.PRICES, satellite_per_mbit_month=None, disk_trip=None, parcel=None
    )
    found = planned(one_release(costs=no_prices), county_mbit=((10, 1.0),), **ONE)

    assert found.status is Status.OPTIMAL
    assert found.cost == 0
    assert found.satellite_mbit_s == 0
    assert not found.orders
    codes = [note.code for note in found.notes]
    assert "sim.plan-satellite-without-price" in codes
    assert "sim.plan-disks-without-price" in codes


def test_only_counties_without_a_dish_get_disks_once_a_release_is_broadcast() -> None:
    cheap = msgspec.structs.replace(made.PRICES, satellite_per_mbit_month=Money(1.0))
    found = planned(one_release(costs=cheap), county_mbit=((2, 1.0),), **ONE)
    country = made.country(one_release(), county_mbit=((2, 1.0),), **ONE)

    assert found.on_air.all()
    has_dish = {
        node for node in range(9) if country.classes[int(country.node_class[node])].has_dish
    }
    assert {order.node for order in found.orders} == set(range(3, 9)) - has_dish


def test_disks_leave_after_the_release_in_full_batches_and_arrive_in_time() -> None:
    disks = msgspec.structs.replace(made.DISKS, batch=2)
    of = one_release(disks=disks, satellite=None)
    found = planned(of, county_mbit=((2, 1.0),), **ONE)

    days = [order.day for order in found.orders]
    assert all(days.count(day) <= 2 and day % 7 == 0 for day in days)
    assert max(days) + 7 + 4e12 / 100e6 / DAY_S <= 60


def test_too_few_disks_in_a_batch_are_named_not_found_out_by_the_last_county() -> None:
    disks = msgspec.structs.replace(made.DISKS, batch=1, leave=Span(30 * DAY_S))
    found = planned(one_release(disks=disks, satellite=None), county_mbit=((2, 1.0),), **ONE)

    assert found.status is Status.INFEASIBLE
    (lack,) = [lack for lack in found.shortfalls if lack.kind == "batch"]
    assert lack.short_bytes > 0
    assert lack.enough > lack.rate == 1


def test_disks_that_get_lost_leave_early_enough_to_be_sent_again() -> None:
    disks = msgspec.structs.replace(made.DISKS, lost=0.02)
    found = planned(one_release(disks=disks, satellite=None), county_mbit=((2, 1.0),), **ONE)

    assert max(order.day for order in found.orders) + 7 + 14 + 7 < 60
    (parcels,) = [line for line in found.bill if line.item == "parcel"]
    assert parcels.quantity == pytest.approx(6 / 0.98)


def test_a_bundle_larger_than_a_disk_takes_several_in_one_parcel() -> None:
    disks = msgspec.structs.replace(made.DISKS, size=Size(1e12))
    found = planned(one_release(disks=disks, satellite=None), county_mbit=((2, 1.0),), **ONE)

    # The plan could bring a part of the bundle by link, but disks carry whole bundles.
    assert all(order.disks == 4 and order.bundles == (0,) for order in found.orders)
    assert found.parcel_count == 6


def test_a_link_that_is_paused_half_the_week_brings_half() -> None:
    of = one_release(disks=None, satellite=None)
    country = made.country(of, county_mbit=((10, 1.0),), **ONE)
    published, rates = made.bundles(of), made.rates(country)
    wants = made.wants(country, published)
    rates.down[:, :84] = 0.0  # 10 Mbit/s are just enough for 4 TB at 62 % of the time.
    found = plan(Case(of, country, published, rates, wants))

    assert found.status is Status.INFEASIBLE
    (lack,) = found.shortfalls
    possible = 10 * made.MBIT * 0.95 * rates_open_s(84)
    assert lack.short_bytes == pytest.approx(6 * (4e12 - possible), rel=1e-6)


def rates_open_s(closed_hours: int) -> float:
    """Open seconds in 60 days that begin with so many closed hours each week."""
    hours = np.arange(60 * 24) % 168
    return float((hours >= closed_hours).sum()) * 3600


@pytest.mark.parametrize("seed", range(12))
def test_a_search_through_all_choices_finds_nothing_cheaper(seed: int) -> None:
    random = np.random.default_rng(seed)
    prices = msgspec.structs.replace(
        made.PRICES, satellite_per_mbit_month=Money(float(random.uniform(5, 300)))
    )
    of = made.scenario(
        run=Run(start=made.date(2026, 3, 2), days=40, policy="tree"),
        releases=[
            made.release("a", 0, 30, bundles=3, size=random.uniform(0.5e12, 3e12)),
            made.release("b", 10, 30, bundles=2, size=random.uniform(0.5e12, 3e12)),
        ],
        costs=prices,
    )
    country = made.country(
        of, counties=4, provinces=1, county_mbit=((2, 0.5), (6, 0.5)), subscriptions=2, seed=seed
    )
    published = made.bundles(of, seed=seed)
    rates, wants = made.rates(country), made.wants(country, published)
    case = Case(of, country, published, rates, wants)
    found = plan(case, gap=0.0)
    passes = build(case, demand(case)).passes

    least = math.inf
    rate_day = made.MBIT * 0.95 * DAY_S
    for on_air in itertools.product((False, True), repeat=5):
        mask = np.array(on_air)
        aired = [float(published.size[mask & (published.release == one)].sum()) for one in (0, 1)]
        spans = ((aired[0], 30), (aired[1], 30), (sum(aired), 40))
        mbit = max(passes * volume / (days * DAY_S) / made.MBIT for volume, days in spans)
        if mbit > 30:
            continue
        cost = mbit * months_of(of) * float(prices.satellite_per_mbit_month or 0)
        for node in range(2, 6):
            site = country.classes[int(country.node_class[node])]
            here = wants[int(country.node_class[node])] & ~(mask & site.has_dish)
            needs = [float(published.size[here & (published.release == one)].sum()) for one in (0, 1)]  # fmt: skip
            day = site.down_bytes_s / made.MBIT * rate_day
            cost += 80 * min(
                sum(sent)
                for sent in itertools.product((0, 1), repeat=2)
                if (left := [n * (1 - s) for n, s in zip(needs, sent, strict=True)])
                and max(left) <= 30 * day * (1 + 1e-9)
                and sum(left) <= 40 * day * (1 + 1e-9)
            )
        least = min(least, cost)
    # The leased rate is rounded up to 0.1 Mbit/s.
    step = 0.1 * months_of(of) * float(prices.satellite_per_mbit_month or 0)
    assert least - 1e-3 <= found.cost <= least + step + 1e-3


def test_what_is_planned_covers_every_need_and_fills_no_link_beyond_what_it_carries() -> None:
    of = made.scenario()
    country = made.country(of, counties=300, provinces=5)
    found = planned(of, gap=0.01, counties=300, provinces=5)
    published = made.bundles(of)
    need = (made.wants(country, published) * published.size) @ (
        published.release[:, None] == np.arange(2)
    )
    need = need[country.node_class[found.node]]

    brought = found.link_bytes + found.satellite_bytes + found.disk_bytes
    assert (brought >= need * (1 - 1e-6)).all()
    rate = np.array([one.down_bytes_s for one in country.classes])[country.node_class[found.node]]
    assert (found.link_bytes <= rate[:, None] * 0.95 * 60 * DAY_S * (1 + 1e-6)).all()
    assert (found.link_bytes.sum(axis=1) <= rate * 0.95 * 90 * DAY_S * (1 + 1e-6)).all()


def test_the_whole_country_is_planned_to_a_gap_of_one_percent() -> None:
    found = planned(made.scenario(), gap=0.01)

    assert found.status is Status.OPTIMAL
    assert found.gap <= 0.01
    assert len(found.node) == 2833


TREE = Run(start=made.date(2026, 3, 2), days=90, policy="tree")
DEAR = msgspec.structs.replace(made.PRICES, satellite_per_mbit_month=Money(60_000.0))


def test_below_a_thin_province_only_so_many_counties_get_disks_as_have_to() -> None:
    of = made.scenario(run=TREE, satellite=None)
    found = planned(of, gap=0.01, province_up_mbit=200.0)
    country = made.country(of, province_up_mbit=200.0)

    assert found.status is Status.OPTIMAL
    assert found.gap <= 0.01
    above = country.parent[found.node]
    links = np.bincount(above, found.link_bytes.sum(axis=1))
    # Provinces are fetched from, too: 200 Mbit/s over 90 days are what their counties get together.
    assert (links[1:34] <= 200 * made.MBIT * 0.95 * 90 * DAY_S * (1 + 1e-6)).all()
    alike = country.node_class[found.node] * 100 + above
    gets = found.disk_bytes.sum(axis=1) > 0
    mixed = {key for key in alike.tolist() if 0 < gets[alike == key].sum() < (alike == key).sum()}
    assert mixed


def test_a_broadcast_spares_no_link_of_a_county_that_has_all_on_disks() -> None:
    # Batches, thin provinces and a dear satellite: each brings a part, and no part may be counted twice.
    of = made.scenario(run=TREE, costs=DEAR)
    found = planned(of, gap=0.05, province_up_mbit=100.0, counties=600, provinces=8)

    assert found.is_feasible
    need = found.link_bytes + found.disk_bytes + found.satellite_bytes
    country = made.country(of, province_up_mbit=100.0, counties=600, provinces=8)
    links = np.bincount(country.parent[found.node], found.link_bytes.sum(axis=1))
    assert (links[1:9] <= 100 * made.MBIT * 0.95 * 90 * DAY_S * (1 + 1e-6)).all()
    published = made.bundles(of)
    wanted = made.wants(country, published)[country.node_class[found.node]] @ published.size
    assert (need.sum(axis=1) >= wanted * (1 - 1e-6)).all()


def test_small_disks_are_filled_rather_than_one_more_sent() -> None:
    disks = msgspec.structs.replace(made.DISKS, size=Size(1e12))
    found = planned(made.scenario(run=TREE, costs=DEAR, disks=disks), gap=0.01)

    assert found.gap <= 0.01
    assert found.disk_count == found.parcel_count


@pytest.mark.parametrize("seed", range(20))
def test_no_other_choice_of_bundles_fills_a_disk_better(seed: int) -> None:
    random = np.random.default_rng(seed)
    sizes = random.uniform(1, 40, 12)
    chosen = fullest(sizes, 100.0)

    # Each size may be rounded up to the next unit.
    room = 100.0 * (1 - 12 / FINENESS)
    best = max(
        total
        for mask in itertools.product((False, True), repeat=12)
        if (total := float(sizes[np.array(mask)].sum())) <= room
    )
    assert len(set(chosen)) == len(chosen)
    assert best - 100.0 * 12 / FINENESS <= sizes[chosen].sum() <= 100


def test_margins_cost_something_and_leave_deadlines_earlier() -> None:
    plain = planned(made.scenario(), gap=0.01)
    careful = planned(made.scenario(), gap=0.01, margins=Margins(0.8, 0.8, 10 * DAY_S))

    assert careful.cost > plain.cost
    assert max(order.day for order in careful.orders) <= 90 - 10 - 7


def test_the_satellite_never_leases_more_than_there_is() -> None:
    cheap = msgspec.structs.replace(made.PRICES, satellite_per_mbit_month=Money(1.0))
    satellite = msgspec.structs.replace(made.SATELLITE, rate=Rate(2 * made.MBIT))
    found = planned(made.scenario(costs=cheap, satellite=satellite), gap=0.01)

    assert 0 < found.satellite_mbit_s <= 2.0
    assert not found.on_air.all()

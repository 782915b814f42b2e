"""Why there is no plan, what one more unit saves, and what a pocket calculator says."""

from __future__ import annotations

from datetime import date
from typing import Any

import msgspec
import numpy as np
import pytest

from cuntong_simulations.plan.by_hand import by_hand
from cuntong_simulations.plan.channels import plan
from cuntong_simulations.plan.errors import PlanError
from cuntong_simulations.plan.explain import gains
from cuntong_simulations.plan.inputs import Case
from cuntong_simulations.plan.result import Gain, Plan
from cuntong_simulations.plan.solve import Status
from cuntong_simulations.scenario.scenario import Calibration, Link, Run, Scenario, Tier
from cuntong_simulations.scenario.units import Money, Rate, Share
from tests.support import plan_country as made

TREE = Run(start=date(2026, 3, 2), days=60, policy="tree")
MIXED = ((2, 0.3), (10, 0.5), (100, 0.2))


def push(**changes: Any) -> Scenario:
    """4 TB to every county in 60 days over links alone."""
    settings = {"satellite": None, "disks": None, "run": TREE} | changes
    return made.scenario(releases=[made.release("push", 0, 60, bundles=4, size=4e12)], **settings)


def planned(of: Scenario, **shape: Any) -> Plan:
    country = made.country(of, **{"subscriptions": 1} | shape)
    published = made.bundles(of)
    return plan(Case(of, country, published, made.rates(country), made.wants(country, published)))


def test_thin_county_links_are_named_with_the_rate_that_would_be_enough() -> None:
    found = planned(push(), county_mbit=MIXED)

    assert found.status is Status.INFEASIBLE
    (lack,) = found.shortfalls
    assert (lack.kind, lack.tier, lack.link, lack.releases) == ("down", "county", "2 Mbit/s", ["push"])  # fmt: skip
    possible = 2 * made.MBIT * 0.95 * 60 * 86400
    assert lack.short_bytes == pytest.approx(lack.places * (4e12 - possible), rel=1e-6)
    assert lack.enough / made.MBIT == pytest.approx(4e12 / (0.95 * 60 * 86400) / made.MBIT)

    rate = lack.enough / made.MBIT * (1 + 1e-6)
    assert planned(push(), county_mbit=((rate, 0.3), *MIXED[1:])).is_feasible


def test_a_thin_province_is_named_rather_than_the_counties_below_it() -> None:
    found = planned(push(), county_mbit=((100, 1.0),), province_up_mbit=100.0)

    assert found.status is Status.INFEASIBLE
    (lack,) = found.shortfalls
    assert (lack.kind, lack.tier, lack.places) == ("up", "province", 33)
    assert planned(
        push(), county_mbit=((100, 1.0),), province_up_mbit=lack.enough / made.MBIT * (1 + 1e-6)
    ).is_feasible


def test_a_thin_nation_is_named() -> None:
    found = planned(push(), county_mbit=((100, 1.0),), nation_up_mbit=100.0)

    (lack,) = found.shortfalls
    assert (lack.kind, lack.tier, lack.link) == ("up", "nation", "centre")
    assert lack.enough > 33 * 4e12 / (0.95 * 60 * 86400) * (1 - 1e-6)


def test_provinces_that_trade_with_each_other_spare_the_nation() -> None:
    thin = {"county_mbit": ((100, 1.0),), "nation_up_mbit": 100.0}
    swarm = Run(start=date(2026, 3, 2), days=60, policy="swarm")

    assert not planned(push(), **thin).is_feasible
    assert planned(push(run=swarm), **thin).is_feasible


def test_a_county_without_link_dish_or_disk_is_reached_by_nothing() -> None:
    found = planned(push(), county_mbit=((0, 0.1), (10, 0.9)))

    (lack,) = found.shortfalls
    assert (lack.kind, lack.link) == ("none", "0 Mbit/s")
    assert lack.short_bytes == pytest.approx(lack.places * 4e12)


def test_a_release_larger_than_a_countys_store_is_refused_by_name() -> None:
    found = planned(push(), county_mbit=((10, 1.0),), store=3e12, counties=50)

    assert found.status is Status.INFEASIBLE
    assert not found.orders
    (lack,) = found.shortfalls
    assert (lack.kind, lack.places, lack.enough) == ("store", 50, pytest.approx(4e12))


def test_a_country_without_counties_is_refused() -> None:
    with pytest.raises(PlanError) as caught:
        planned(push(), counties=0)
    assert caught.value.code == "sim.plan-no-counties"


def gained(of: Scenario, **shape: Any) -> list[Gain]:
    country = made.country(of, **{"subscriptions": 1} | shape)
    published = made.bundles(of)
    return gains(Case(of, country, published, made.rates(country), made.wants(country, published)))


def test_faster_links_save_the_disks_of_exactly_those_counties_that_need_some() -> None:
    costs = msgspec.structs.replace(made.PRICES, extra_mbit_month=Money(1.0))
    of = push(disks=made.DISKS, costs=costs)
    # 6 Mbit/s are a little less than the 6.5 that 4 TB need.
    found = gained(of, county_mbit=((6, 0.5), (2, 0.5)), counties=100, provinces=4)

    by_link = {gain.link: gain for gain in found if gain.kind == "down" and gain.tier == "county"}
    assert by_link["6 Mbit/s"].saves == pytest.approx(by_link["6 Mbit/s"].places * 80, abs=0.1)
    assert by_link["2 Mbit/s"].saves == 0
    assert found[0] is by_link["6 Mbit/s"]
    assert by_link["6 Mbit/s"].price == pytest.approx(
        by_link["6 Mbit/s"].places * 60 / (365.25 / 12)
    )


def test_a_pocket_calculator_agrees_with_the_plan() -> None:
    links = [Link(down=Rate(rate * made.MBIT), up=Rate(made.MBIT), share=Share(1 / 3)) for rate in (2, 10, 100)]  # fmt: skip
    tiers = [
        Tier(tier="nation", count=1, links=links[:1]),
        Tier(tier="county", count=300, links=links),
    ]
    of = msgspec.structs.replace(
        push(disks=made.DISKS, tiers=tiers),
        calibration=Calibration(efficiency=Share(0.95), thin=Rate(0.0)),
    )
    found = {line.link: line for line in by_hand(of)}

    # 2 Mbit/s are 250,000 bytes/s; 60 days have 5,184,000 seconds; 95 % of that is 1.23 TB.
    assert found["2 Mbit/s"].possible_bytes == pytest.approx(1.2312e12)
    assert found["10 Mbit/s"].possible_bytes == pytest.approx(6.156e12)
    assert found["100 Mbit/s"].possible_bytes == pytest.approx(61.56e12)
    assert [found[f"{rate} Mbit/s"].disks for rate in (2, 10, 100)] == [1, 0, 0]
    assert found["2 Mbit/s"].needed_rate / made.MBIT == pytest.approx(6.498, abs=1e-3)
    assert found["2 Mbit/s"].satellite_rate / made.MBIT == pytest.approx(6.173, abs=1e-3)
    assert found["2 Mbit/s"].cost == pytest.approx(100 * 80)

    plan_of = planned(
        of, county_mbit=((2, 1 / 3), (10, 1 / 3), (100, 1 / 3)), counties=300, provinces=3
    )
    ways = {way.link: way for way in plan_of.ways if way.tier == "county"}
    for link, line in found.items():
        assert ways[link].disks == ways[link].places * line.disks
        assert bool(ways[link].parcels) is not line.is_enough


def test_the_search_for_what_is_missing_names_nothing_when_nothing_is() -> None:
    found = planned(push(), county_mbit=((10, 1.0),))

    assert found.is_feasible
    assert found.shortfalls == ()
    assert np.isfinite(found.cost)

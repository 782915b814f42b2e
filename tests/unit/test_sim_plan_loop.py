"""Plan, replay, plan again: with the plain reference model on a small country."""

from __future__ import annotations

from datetime import date
from typing import Any

import msgspec
import numpy as np

from cuntong_simulations.model.country import Country
from cuntong_simulations.model.outcome import Outcome
from cuntong_simulations.model.parameters import MEASURED
from cuntong_simulations.model.reference import run_reference
from cuntong_simulations.plan.inputs import Case, case_of
from cuntong_simulations.plan.loop import Round, above_villages, best, parcels, replayed, tighten
from cuntong_simulations.plan.result import Plan
from cuntong_simulations.scenario.scenario import Calibration, Link, Release, Run, Scenario, Tier
from cuntong_simulations.scenario.units import Rate, Share, Size
from tests.support import plan_country as made

RATES = ((2, 0.5), (10, 0.5))


def small(**changes: Any) -> Scenario:
    """Two releases in 20 days, by link or disk."""
    centre = [Link(down=Rate(1000 * made.MBIT), up=Rate(1000 * made.MBIT))]
    links = [
        Link(down=Rate(rate * made.MBIT), up=Rate(rate * made.MBIT), share=Share(share))
        for rate, share in RATES
    ]
    settings: dict[str, Any] = {
        "run": Run(start=date(2026, 3, 2), days=20, policy="tree"),
        "tiers": [
            Tier(tier="nation", count=1, links=centre),
            Tier(tier="province", count=2, links=centre),
            Tier(tier="county", count=8, links=links),
        ],
        "releases": [release("a", 0, 0.3e12), release("b", 2, 0.33e12)],
        "satellite": None,
        "disks": msgspec.structs.replace(made.DISKS, batch=20),
    }
    return made.scenario(**settings | changes)


def release(name: str, day: int, size: float) -> Release:
    return Release(name=name, day=day, bundles=4, size=Size(size), deadlines={"county": 18.0})


def replay(found: Plan, case: Case) -> Outcome:
    upper, numbers = above_villages(case.country)
    return run_reference(
        replayed(found, case.scenario),
        upper,
        case.bundles,
        calibration=MEASURED,
        parcels=parcels(found, numbers),
    )


def rounds_of(of: Scenario) -> list[Round]:
    country = made.country(
        of, provinces=2, counties=8, county_mbit=RATES, subscriptions=1, dishes=0.0
    )
    country = wanting_all(country)
    return tighten(case_of(of, country, made.bundles(of)), replay=replay)


def wanting_all(country: Country) -> Country:
    """Its classes want everything."""
    classes = tuple(
        type(one)(
            one.tier, one.down_bytes_s, one.up_bytes_s, one.link, one.link_number, -1, one.has_dish,
            one.store_bytes,
        )
        for one in country.classes
    )  # fmt: skip
    return Country(**{name: getattr(country, name) for name in Country.__slots__} | {"classes": classes})  # fmt: skip


def test_a_plan_that_just_suffices_is_tightened_until_the_replay_misses_nothing() -> None:
    rounds = rounds_of(small())

    assert rounds[-1].is_safe
    assert best(rounds) is rounds[-1]
    assert rounds[-1].pairs.sum() == 8 * 8
    costs = [one.plan.cost for one in rounds]
    assert costs == sorted(costs)


def test_only_what_missed_something_is_planned_more_carefully() -> None:
    rounds = rounds_of(small())
    country = made.country(small(), provinces=2, counties=8, county_mbit=RATES, subscriptions=1)

    assert len(rounds) > 1
    thick = next(n for n, one in enumerate(country.classes) if one.down_bytes_s == 10 * made.MBIT)
    thin = next(n for n, one in enumerate(country.classes) if one.down_bytes_s == 2 * made.MBIT)
    assert not rounds[0].missed[thick].any()
    capacity = np.array(rounds[-1].plan.margins.capacity)
    assert capacity[thick] == 1
    assert capacity[thin] < 1


def test_rounds_end_where_larger_margins_leave_no_plan() -> None:
    # Without disks 10 Mbit/s are enough and 2 Mbit/s aren't: there is nothing to replay.
    rounds = rounds_of(small(disks=None))

    assert len(rounds) == 1
    assert not rounds[0].plan.is_feasible
    assert rounds[0].plan.shortfalls
    assert not best(rounds).is_safe


def test_what_the_model_says_of_links_and_wishes_is_what_is_planned_with() -> None:
    of = small(calendars={"open": ["mon-fri 08:00-18:00"]})
    tiers = [*of.tiers[:2], msgspec.structs.replace(of.tiers[2], public="open", off_days=Share(0.1))]  # fmt: skip
    given = Calibration(efficiency=Share(0.95), thin=Rate(0.0))
    of = msgspec.structs.replace(of, tiers=tiers, calibration=given)
    country = wanting_all(
        made.country(of, provinces=2, counties=8, county_mbit=RATES, subscriptions=1)
    )
    case = case_of(of, country, made.bundles(of))

    thick = next(n for n, one in enumerate(country.classes) if one.down_bytes_s == 10 * made.MBIT)
    assert case.rates.down[thick, 9] == 0
    assert np.isclose(case.rates.down[thick, 19], 10 * made.MBIT * 0.95 * 0.9)
    assert case.wants.all()


def test_places_below_counties_are_left_out_and_parcels_still_find_their_counties() -> None:
    of = small()
    country = wanting_all(made.country(of, provinces=2, counties=8, county_mbit=RATES))
    # A province that is a village's parent puts the village before all counties.
    count = country.node_count
    village = np.insert(country.tier, 3, 5)
    moved = np.where(country.parent >= 3, country.parent + 1, country.parent)
    below = Country(
        scenario=of,
        classes=country.classes,
        parent=np.insert(moved, 3, 1).astype(np.int32),
        first_child=np.zeros(count + 1, np.int32),
        child_count=np.zeros(count + 1, np.int32),
        node_class=np.insert(country.node_class, 3, 2),
        tier=village,
        province=np.insert(country.province, 3, 1),
        identity=np.arange(count + 1),
        weight=np.ones(count + 1),
        code=np.insert(country.code, 3, 1),
    )
    upper, numbers = above_villages(below)

    assert upper.node_count == count
    assert numbers.tolist() == [0, 1, 2, -1, *range(3, count)]
    assert (upper.parent == country.parent).all()
    assert upper.child_count.tolist() == country.child_count.tolist()
    assert upper.first_child[:3].tolist() == country.first_child[:3].tolist()

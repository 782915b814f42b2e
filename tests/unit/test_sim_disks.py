"""Disks: the queue for batches, transit, loss, and what a sample makes of them (MODEL.md 7, 12)."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import replace
from datetime import date
from typing import Any

import numpy as np
import pytest

from cuntong_simulations.model import reference
from cuntong_simulations.model.country import Country
from cuntong_simulations.model.disks import Arrivals, arrivals
from cuntong_simulations.model.parcel import Parcel
from cuntong_simulations.model.tables import choose
from cuntong_simulations.model.trials import PERFECT, Network, Place, network
from cuntong_simulations.scenario.scenario import Disks, Link, Release, Run, Scenario, Tier
from cuntong_simulations.scenario.units import Rate, Share, Size, Span

DAY_S = 86400.0
WEEK_S = 7 * DAY_S
GB = 1e9


def counties(
    weights: Sequence[float], releases: Sequence[tuple[int, float]] = ((0, 10 * GB),), seed: int = 1,
    **disks: float,
) -> Network:  # fmt: skip
    """A nation with counties of these weights; releases by day and size; a disk holds 4 GB."""
    given = {
        "size": Size(4 * GB),
        "batch": 10,
        "copy_rate": Rate(1e8),
        "leave": Span(WEEK_S),
    } | disks
    link = [Link(down=Rate(1e6), up=Rate(1e6))]
    scenario = Scenario(
        name="disks",
        run=Run(start=date(2027, 3, 1), days=60, seed=seed),
        tiers=[
            Tier(tier="nation", count=1, links=link),
            Tier(tier="county", count=len(weights), links=link),
        ],
        releases=[
            Release(name=f"r{number}", day=day, size=Size(size))
            for number, (day, size) in enumerate(releases)
        ],
        disks=Disks(**given, releases=[f"r{number}" for number in range(len(releases))]),
    )
    places = [Place(-1, 0, 1e6, 1e6), *(Place(0, 3, 1e6, 1e6, weight=weight) for weight in weights)]
    return network(scenario, places)


def posted(made: Network, parcels: Sequence[Parcel] | None = None) -> Arrivals:
    _nation, county = made.scenario.tiers
    wants = np.array([
        choose(made.scenario, county, site, made.bundles)[0] for site in made.country.classes
    ])  # fmt: skip
    return arrivals(made.scenario, made.country, made.bundles, wants, parcels)


def departures(made: Network) -> list[int]:
    """In weeks; made without transit and loss."""
    found = posted(made).arrived_s / WEEK_S
    assert np.array_equal(found, np.round(found))
    return [int(week) for week in found]


NO_TRANSIT: dict[str, Any] = {"transit_least": Span(0.0), "transit_most": Span(0.0)}


def test_a_parcel_that_has_no_room_in_a_batch_leaves_with_its_last_disk() -> None:
    # Three disks each, ten a batch: the fourth county's third disk is the twelfth.
    assert departures(counties([1.0] * 7, **NO_TRANSIT)) == [0, 0, 0, 1, 1, 1, 2]


def test_a_later_release_begins_with_a_whole_batch_of_its_own() -> None:
    made = counties([1.0, 1.0], ((0, 10 * GB), (8, 4 * GB)), **NO_TRANSIT)
    assert departures(made) == [0, 0, 2, 2]


def test_without_batches_nothing_arrives() -> None:
    assert np.isinf(posted(counties([1.0, 2.0], batch=0)).arrived_s).all()


@pytest.mark.parametrize("seed", range(30))
def test_a_place_of_a_sample_leaves_with_the_middle_one_of_those_that_it_stands_for(seed: int) -> None:  # fmt: skip
    chance = random.Random(seed)
    weights = [float(2 * chance.randint(0, 12) + 1) for _ in range(chance.randint(1, 9))]
    releases = [(day, chance.randint(1, 9) * GB) for day in sorted(chance.sample((0, 7, 14), 2))]
    batch = chance.randint(1, 40)
    sample = departures(counties(weights, releases, batch=batch, **NO_TRANSIT))
    whole = departures(counties([1.0] * int(sum(weights)), releases, batch=batch, **NO_TRANSIT))
    ends = np.cumsum(weights).astype(int)
    middles = [int(end - (weight + 1) / 2) for end, weight in zip(ends, weights, strict=True)]
    # Orders queue by day, so all places stand in the queue twice.
    count = int(ends[-1])
    assert sample == [whole[middle + again] for again in (0, count) for middle in middles]


@pytest.mark.parametrize("seed", range(40))
def test_the_plain_model_has_the_same_disks_at_the_same_time(seed: int) -> None:
    chance = random.Random(seed)
    made = counties(
        [
            chance.choice((1.0, 1.0, 7 / 3, 17.5, 20.0, 100 / 7))
            for _ in range(chance.randint(1, 9))
        ],
        [(chance.randint(0, 9), chance.randint(1, 9) * GB) for _ in range(3)],
        seed,
        batch=chance.randint(0, 40),
        lost=Share(chance.choice((0.0, 0.4))),
    )
    model = reference._Model(made.scenario, made.country, made.bundles, PERFECT, None)
    model.send(reference.scenario_parcels(made.scenario, made.country, made.bundles, model.wanted))
    found = posted(made)
    plain = sorted((one.node, one.bundles, one.from_s) for one in model._copying)
    compiled = sorted(
        (int(node), tuple(np.flatnonzero(brings).tolist()), float(at))
        for node, brings, at in zip(found.node, found.brings, found.arrived_s, strict=True)
        if math.isfinite(at)
    )
    assert [one[:2] for one in plain] == [one[:2] for one in compiled]
    assert [one[2] for one in plain] == pytest.approx([one[2] for one in compiled], rel=1e-12)


def test_a_disk_is_as_long_on_its_way_in_a_sample_as_in_the_whole_country() -> None:
    whole = counties([1.0] * 8, lost=Share(0.3), batch=1000)
    kept = [2, 5, 7]
    sample = counties([1.0] * 3, lost=Share(0.3), batch=1000)
    identity = np.array([0, *kept], np.int64)
    country: Country = replace(sample.country, identity=identity)
    sample = replace(sample, country=country)
    of_whole = dict(zip(posted(whole).node.tolist(), posted(whole).arrived_s.tolist(), strict=True))
    assert posted(sample).arrived_s.tolist() == [of_whole[node] for node in kept]


def test_what_is_lost_is_sent_again_until_it_arrives() -> None:
    made = counties([1.0] * 400, batch=10_000, lost=Share(0.25), notice=Span(30 * DAY_S))
    attempts = np.floor(posted(made).arrived_s / (30 * DAY_S))
    # A geometric distribution: a quarter is sent twice, of these a quarter a third time.
    assert (attempts >= 1).mean() == pytest.approx(1 / 4, abs=0.07)
    assert (attempts >= 2).mean() == pytest.approx(1 / 16, abs=0.05)
    on_the_way = posted(made).arrived_s - attempts * 30 * DAY_S
    assert (on_the_way >= 3 * DAY_S).all()
    assert (on_the_way <= 7 * DAY_S).all()


def test_parcels_of_a_plan_leave_when_it_says() -> None:
    made = counties([1.0, 1.0], **NO_TRANSIT)
    parcels = [Parcel(2, (0,), 5 * DAY_S), Parcel(1, (), 2 * DAY_S)]
    found = posted(made, parcels)
    assert found.arrived_s.tolist() == [5 * DAY_S, 2 * DAY_S]
    assert found.brings.tolist() == [[1], [0]]

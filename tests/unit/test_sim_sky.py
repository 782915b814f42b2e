"""What the satellite brings, against symbols that are sent and lost one by one (MODEL.md 6, 12)."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from datetime import date
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from cuntong_daemon.policy.airtime import URGENT_PRIORITY, Aired, Airtime, Kind
from cuntong_daemon.policy.reception import SYMBOL_AIR_BYTES, symbols_per_s
from cuntong_protocol.datacast.blocks import object_blocks, pass_length, symbol_count
from cuntong_protocol.datacast.packets import SYMBOL_BYTES
from cuntong_simulations.model import sky as tried
from cuntong_simulations.model.sky import Sky, sky
from cuntong_simulations.model.trials import Network, Place, network
from cuntong_simulations.scenario.scenario import Link, Release, Run, Satellite, Scenario, Tier
from cuntong_simulations.scenario.units import Rate, Share, Size, Span

Floats = NDArray[np.float64]
STEP_S = 60.0
MB = 1e6
PRESENT = 0.999999


def on_air(
    bundles: Sequence[tuple[int, float, int]],
    rate: float,
    *,
    days: int = 1,
    step: float = STEP_S,
    seed: int = 1,
    **satellite: Any,
) -> Network:
    """A nation with bundles by day, size and priority."""
    scenario = Scenario(
        name="sky",
        run=Run(start=date(2027, 3, 1), days=days, step=Span(step), seed=seed),
        tiers=[Tier(tier="nation", count=1, links=[Link(down=Rate(1.0), up=Rate(1.0))])],
        releases=[
            Release(name=f"r{number}", day=day, size=Size(size), priority=priority)
            for number, (day, size, priority) in enumerate(bundles)
        ],
        calendars={"morning": ["daily 06:00-08:00"]},
        satellite=Satellite(rate=Rate(rate), **satellite),
    )
    return network(scenario, [Place(-1, 0, 1.0, 1.0)])


def brought(made: Network) -> Sky:
    return sky(made.scenario, made.bundles)


def first_at(curve: Floats, share: float) -> int:
    """The first step before which a share is there."""
    assert curve.max() >= share
    return int(np.argmax(curve >= share))


def sent_bytes_s(rate: float) -> float:
    """Of content, without headers."""
    return rate * SYMBOL_BYTES / SYMBOL_AIR_BYTES


# Fountain code.


def symbol_by_symbol(made: Network, receivers: int, chance: np.random.Generator) -> Floats:
    """The share of each bundle's blocks that receivers have by step: every symbol is lost or comes, by itself."""
    satellite = made.scenario.satellite
    assert satellite is not None
    sizes = [object_blocks(int(size)) for size in made.bundles.size]
    air = Airtime()
    for number, blocks in enumerate(sizes):
        priority = int(made.bundles.priority[number])
        lengths = [pass_length(block) for block in blocks]
        air.add(
            Aired(
                str(number), Kind.BUNDLE, lengths, [0] * len(blocks),
                priority=priority, is_urgent=priority >= URGENT_PRIORITY, order=number,
            )
        )  # fmt: skip
    needed = [
        [symbol_count(block) + (chance.random(receivers) < 1 / 256) for block in blocks]
        for blocks in sizes
    ]
    got = [[np.zeros(receivers, int) for _ in blocks] for blocks in sizes]
    have = [[np.full(receivers, math.inf) for _ in blocks] for blocks in sizes]
    every_s = 3600.0 / satellite.fades_per_hour if satellite.fades_per_hour else math.inf
    phase = chance.random(receivers) * (every_s if every_s < math.inf else 0.0)
    now, symbol_s = 0.0, 1 / symbols_per_s(satellite.rate)
    while now < made.scenario.run.days * 86400.0:
        run = air.next_run(now)
        if run is None:
            now += 0.1
            continue
        times = now + symbol_s * (np.arange(run.count) + 1)
        comes = chance.random((receivers, run.count)) >= satellite.loss
        if every_s < math.inf:
            comes &= (times[None, :] + phase[:, None]) % every_s >= satellite.fade
        number = int(run.item)
        counts = got[number][run.block][:, None] + np.cumsum(comes, axis=1)
        is_there = counts >= needed[number][run.block][:, None]
        at = np.where(is_there.any(axis=1), times[is_there.argmax(axis=1)], math.inf)
        have[number][run.block] = np.minimum(have[number][run.block], at)
        got[number][run.block] = counts[:, -1]
        now += run.count * symbol_s
        if all(np.isfinite(one).all() for blocks in have for one in blocks):
            break
    ends = np.arange(round(made.scenario.run.days * 86400 / made.scenario.run.step) + 1)
    ends = ends * float(made.scenario.run.step)
    return np.array([
        np.mean([(one[:, None] <= ends).mean(axis=0) for one in blocks], axis=0) for blocks in have
    ])  # fmt: skip


@pytest.mark.parametrize(
    "weather",
    [
        {},
        {"loss": Share(0.2)},
        {"loss": Share(0.01), "fade": Span(300.0), "fades_per_hour": 2.0},
        # 4.3 passes are needed: more than are sent before it is only counted how much comes.
        {"loss": Share(0.77)},
    ],
)  # fmt: skip
def test_receivers_have_what_they_would_have_symbol_by_symbol(
    weather: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    made = on_air([(0, 3 * MB, 5), (0, 10 * MB, 5), (0, 1 * MB, 8), (0, 7 * MB, 2)], 16e3, **weather)  # fmt: skip
    monkeypatch.setattr(tried, "RECEIVERS", 150)
    found = brought(made).air
    plain = symbol_by_symbol(made, 150, np.random.default_rng(7))
    assert found.shape == plain.shape
    # Blocks that are there all at once make steps; a step of a minute more or less says nothing.
    for one, other in zip(found, plain, strict=True):
        for share in (0.1, 0.25, 0.5, 0.75, 0.9):
            assert first_at(one, share) == pytest.approx(first_at(other, share), abs=3)
        assert first_at(one, PRESENT) == pytest.approx(first_at(other, PRESENT), abs=8)


def test_one_block_is_there_after_its_symbols_and_those_that_are_lost() -> None:
    # 4 MiB are 3,200 symbols or so; with half of them lost twice as many have to be sent, and a few more.
    size, rate = 4 * 1024 * 1024, 16e3
    found = brought(on_air([(0, size, 5)], rate, loss=Share(0.5))).air[0]
    needed_s = 2 * symbol_count(size) / symbols_per_s(rate)
    assert first_at(found, 0.5) * STEP_S == pytest.approx(needed_s, abs=3 * STEP_S)
    assert found[int(needed_s / STEP_S * 0.9)] == 0.0
    assert found[int(needed_s / STEP_S * 1.1)] == 1.0


def test_many_blocks_that_are_followed_together_come_when_each_of_them_comes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made = on_air(
        [(0, 400 * MB, 5), (0, 90 * MB, 5)], 1e6,
        loss=Share(0.05), fade=Span(120.0), fades_per_hour=4.0, step=10.0,
    )  # fmt: skip
    together = brought(made).air
    monkeypatch.setattr(tried, "MOST_BLOCKS", 1024)
    each = brought(made).air
    for one, other in zip(together, each, strict=True):
        for share in (0.5, PRESENT):
            assert first_at(one, share) == pytest.approx(first_at(other, share), rel=0.03, abs=2)


def test_weather_in_which_nothing_comes_does_not_hang() -> None:
    for loss in (1.0, 0.9999):
        found = brought(on_air([(0, 3 * MB, 5)], 16e3, loss=Share(loss)))
        assert not found.air.any()


# What is sent.


@pytest.mark.parametrize("rate", [4e3, 64e3, 1e6])
def test_no_more_is_sent_than_the_satellite_carries(rate: float) -> None:
    # Large bundles go out in runs that are longer than a step.
    made = on_air([(0, 8e9, 5), (0, 2e9, 5)], rate, days=3)
    came = (brought(made).flow * made.bundles.size[:, None]).sum(axis=0)
    symbols_a_run = 32 * math.ceil(8e9 / 4194304 / tried.MOST_BLOCKS)
    carried = sent_bytes_s(rate) * STEP_S * np.arange(1, len(came) + 1)
    assert (np.abs(np.cumsum(came) - carried) <= symbols_a_run * SYMBOL_BYTES).all()


def test_what_is_only_counted_is_what_would_have_been_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    made = on_air([(0, 30 * MB, 5), (0, 4 * MB, 9), (1, 60 * MB, 3)], 64e3, days=3)
    found = brought(made)
    monkeypatch.setattr(tried, "SETTLED_PASSES", 1e9)
    monkeypatch.setattr(tried, "PASSES_WITHOUT_REPEAT", 10**9)
    all_of_it = brought(made)
    assert np.array_equal(found.air, all_of_it.air)
    hour = round(3600 / STEP_S)
    for begin, end in ((6 * hour, 24 * hour), (40 * hour, 72 * hour)):
        counted = found.flow[:, begin:end].sum(axis=1)
        assert counted == pytest.approx(all_of_it.flow[:, begin:end].sum(axis=1), rel=0.03)


def test_nothing_comes_before_it_is_released_or_while_nothing_is_sent() -> None:
    made = on_air([(0, 5 * MB, 5), (1, 5 * MB, 5)], 16e3, days=2, hours="morning")
    found = brought(made)
    minute = np.arange(found.flow.shape[1]) % 1440
    sends = (minute >= 360) & (minute < 480)
    assert not found.flow[:, ~sends].any()
    assert found.flow[:, sends][0].all()
    assert not np.diff(found.air, axis=1)[:, ~sends].any()
    second = int(np.flatnonzero(made.bundles.released_s)[0])
    assert not found.air[second, : 1440 + 360].any()
    assert found.air[second, -1] == 1.0


def test_what_is_not_on_the_air_does_not_come() -> None:
    made = on_air([(0, 5 * MB, 5), (0, 5 * MB, 5)], 16e3, releases=["r1"])
    found = brought(made)
    names = [made.scenario.releases[number].name for number in made.bundles.release]
    assert [bool(row.any()) for row in found.air] == [name == "r1" for name in names]
    assert [bool(row.any()) for row in found.flow] == [name == "r1" for name in names]


# Plain repetition.


@pytest.mark.parametrize("loss", [0.0, 0.1, 0.5])
def test_after_n_passes_without_a_code_the_share_that_was_lost_n_times_is_missing(loss: float) -> None:  # fmt: skip
    rate = 64e3
    size = round(sent_bytes_s(rate) * STEP_S * 10)  # A pass is ten steps.
    found = brought(on_air([(0, size, 5)], rate, code="carousel", loss=Share(loss))).air[0]
    symbols = symbol_count(size)
    for passes in range(1, 30):
        missing = loss**passes
        if missing * symbols < math.log(2) / 2:
            assert found[10 * passes + 1] == 1.0
        elif missing * symbols > math.log(2) * 2:
            # A run of 32 symbols more or less.
            assert found[10 * passes] == pytest.approx(1 - missing, abs=64 / symbols)
            assert found[10 * passes] < 1.0
    assert found[5] == pytest.approx((1 - loss) / 2, abs=64 / symbols)


def test_the_last_symbol_of_a_repetition_comes_when_it_does_for_half_of_the_receivers() -> None:
    chance = np.random.default_rng(3)
    rate, loss = 64e3, 0.4
    size = round(sent_bytes_s(rate) * STEP_S * 10)
    found = brought(on_air([(0, size, 5)], rate, code="carousel", loss=Share(loss))).air[0]
    # Each symbol comes with the pass in which it isn't lost; the last one makes the bundle whole.
    passes = chance.geometric(1 - loss, (400, symbol_count(size))).max(axis=1)
    assert first_at(found, 1.0) / 10 == pytest.approx(float(np.median(passes)), abs=1.0)


# Whatever is sent.


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10**6))
def test_shares_rise_from_nothing_and_lots_fall_the_same_again(seed: int) -> None:
    chance = random.Random(seed)
    made = on_air(
        [
            (chance.randint(0, 1), chance.uniform(0.001, 80) * MB, chance.randint(0, 9))
            for _ in range(chance.randint(1, 5))
        ],
        10 ** chance.uniform(3, 5.5),
        days=2,
        step=chance.choice((600.0, 3600.0, 7200.0)),
        seed=seed,
        code=chance.choice(("fountain", "carousel")),
        hours=chance.choice(("always", "morning")),
        loss=Share(chance.choice((0.0, 0.05, 0.6))),
        fade=Span(chance.choice((0.0, 200.0))),
        fades_per_hour=chance.choice((0.1, 3.0)),
    )
    found, again = brought(made), brought(made)
    assert np.array_equal(found.air, again.air)
    assert np.array_equal(found.flow, again.flow)
    assert not found.air[:, 0].any()
    assert (found.flow >= 0).all()
    assert (np.diff(found.air, axis=1) >= -1e-12).all()
    assert found.air.max(initial=0.0) <= 1.0
    # Nobody has more than has come.
    came = np.cumsum(found.flow, axis=1)
    sizes = made.bundles.size[:, None]
    more = 64 * SYMBOL_BYTES / sizes
    assert (found.air[:, 1:] * (1 - 4 * SYMBOL_BYTES / sizes) <= 1.15 * came + more).all()
    run = made.scenario.run
    for number, released_s in enumerate(made.bundles.released_s):
        assert not found.air[number, : int(released_s / run.step) + 1].any()

"""Laws that the satellite's time keeps, whatever is on the air, comes, goes or isn't ready."""

from __future__ import annotations

from collections import Counter, defaultdict
from random import Random
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from cuntong_daemon.policy.airtime import (
    METADATA_PART,
    RUN_SYMBOLS,
    Aired,
    Airtime,
    Kind,
    Turn,
    class_parts,
    forecast,
    turn_of,
    worth_of,
)
from cuntong_protocol.datacast.blocks import PASSES_WITHOUT_REPEAT, esi_limit, pass_length

SYMBOLS_S = 500.0
block_sizes = st.lists(st.integers(1, 300_000), min_size=1, max_size=6)


def on_air(
    key: str, sizes: list[int], kind: Kind = Kind.BUNDLE, *, passed: float = 0, **more: Any
) -> Aired:
    lengths = [pass_length(size) for size in sizes]
    return Aired(key, kind, lengths, [int(passed * length) for length in lengths], **more)


KEYS = "0123456"
MANIFESTS = "012"


@st.composite
def items(draw: st.DrawFn, key: str) -> Aired:
    return on_air(
        key,
        draw(block_sizes),
        Kind.METADATA if key in MANIFESTS else Kind.BUNDLE,
        priority=draw(st.integers(0, 9)),
        is_urgent=draw(st.booleans()),
        order=draw(st.integers(0, 3)),
        manifest="" if key in MANIFESTS else draw(st.sampled_from(["", *MANIFESTS])),
        interval_s=draw(st.sampled_from([1.0, 30.0])),
        run_symbols=draw(st.sampled_from([1, RUN_SYMBOLS, 100])),
        passed=draw(st.floats(0, 3)),
    )


@settings(max_examples=30, deadline=None)
@given(st.lists(block_sizes, min_size=1, max_size=3), st.integers(0, 1000), st.booleans())
def test_sixteen_passes_send_every_symbol_once(
    sizes: list[list[int]], seed: int, is_urgent: bool
) -> None:
    """Whatever isn't ready now and then."""
    chance = Random(seed)
    air = Airtime(lambda _key, _block: chance.random() < 0.8)
    for number, of_item in enumerate(sizes):
        air.add(on_air(f"{number}", of_item, is_urgent=is_urgent))
    sent: dict[tuple[str, int], Counter[int]] = defaultdict(Counter)
    now = 0.0
    while any(item.complete_passes < PASSES_WITHOUT_REPEAT for item in air.items.values()):
        run = air.next_run(now)
        if run is None:
            now += 1.0
            continue
        now += run.count / SYMBOLS_S
        limit = esi_limit(sizes[int(run.item)][run.block])
        if run.first < limit:
            assert run.first + run.count <= limit
            sent[run.item, run.block].update(range(run.first, run.first + run.count))
    for number, of_item in enumerate(sizes):
        for block, size in enumerate(of_item):
            assert sent[f"{number}", block] == Counter(range(esi_limit(size)))


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_counters_go_on_without_a_gap_whatever_comes_and_goes(data: st.DataObject) -> None:
    chance = Random(data.draw(st.integers(0, 1000)))
    air = Airtime(lambda _key, _block: chance.random() < 0.7)
    counters: dict[str, list[int]] = {}
    now = 0.0
    for _ in range(data.draw(st.integers(1, 12))):
        key = data.draw(st.sampled_from(KEYS))
        match data.draw(st.sampled_from(["add", "add", "remove", "change", "wait"])):
            case "add":
                item = data.draw(items(key))
                air.add(item)
                counters[key] = list(item.counters)
            case "remove":
                air.remove(key)
                counters.pop(key, None)
            case "change" if key in air.items:
                air.change(
                    key,
                    priority=data.draw(st.integers(0, 9)),
                    is_urgent=data.draw(st.booleans()),
                    order=data.draw(st.integers(0, 3)),
                )
            case "wait":
                now += data.draw(st.sampled_from([1.0, 400.0, 1300.0]))
        for _ in range(data.draw(st.integers(0, 60))):
            run = air.next_run(now)
            if run is None:
                now += 0.05
                continue
            now += run.count / SYMBOLS_S
            item = air.items[run.item]
            assert run.first == counters[run.item][run.block]
            assert 0 < run.count <= item.run_symbols
            counters[run.item][run.block] += run.count
            assert item.counters == counters[run.item]
            # One pass after the other.
            passed = [c / length for c, length in zip(item.counters, item.passes, strict=True)]
            assert max(passed) <= int(min(passed)) + 1
        said = forecast(air, symbols_s=SYMBOLS_S, now=now)
        bundles = {key for key, item in air.items.items() if item.kind is Kind.BUNDLE}
        assert said.keys() == bundles
        assert all(-1e7 < it.begins <= it.ends <= it.next < 1e7 for it in said.values())
        assert all(it.ends >= now for it in said.values())


@settings(max_examples=30, deadline=None)
@given(
    st.lists(
        st.tuples(st.lists(st.integers(30_000, 300_000), min_size=1), st.integers(0, 9)),
        min_size=3,
        max_size=9,
    ),
    st.booleans(),
)
def test_no_class_and_nobody_in_it_starves(
    wanted: list[tuple[list[int], int]], has_catalogue: bool
) -> None:
    """While all are ready each class has its part in any half minute, and each bundle something in the long run."""
    air = Airtime()
    if has_catalogue:
        air.add(on_air("catalogue", [4_000_000], Kind.METADATA, interval_s=0.0))
    for number, (sizes, priority) in enumerate(wanted):
        turn = Turn(number % 3)
        is_urgent, passed = turn is Turn.URGENT, float(turn is Turn.CAROUSEL)
        air.add(on_air(f"{number}", sizes, passed=passed, priority=priority, is_urgent=is_urgent))
    now = 0.0
    started = {key: sum(item.counters) for key, item in air.items.items()}
    while now < 200:
        sent = dict.fromkeys(Turn, 0)
        parts = dict.fromkeys(Turn, 0.0)
        until = now + 30
        while now < until:
            content = [item for item in air.items.values() if item.kind is Kind.BUNDLE]
            turns = {item.key: turn_of(item, now) for item in content}
            run = air.next_run(now)
            if run is None:
                now += 0.05
                continue
            now += run.count / SYMBOLS_S
            turn = turns.get(run.item)
            if turn is not None:
                sent[turn] += run.count
            worths: dict[Turn, float] = {}
            for item in content:
                its = turns[item.key]
                if its is not None and (its is not Turn.FRESH or item.has_begun):
                    worths[its] = worths.get(its, 0.0) + worth_of(item)
            for its, part in class_parts(worths).items():
                parts[its] += part * run.count
        for turn, part in parts.items():
            # Manifests go in their bundles' time.
            assert sent[turn] >= part * (1 - METADATA_PART) * 0.99 - 3 * RUN_SYMBOLS, turn
    for key, item in air.items.items():
        assert sum(item.counters) > started[key] or turn_of(item, now) is Turn.FRESH


@given(st.dictionaries(st.sampled_from(Turn), st.floats(1, 1e6)))
def test_the_classes_parts_are_all_of_the_air(worths: dict[Turn, float]) -> None:
    parts = class_parts(worths)
    assert parts.keys() == worths.keys()
    assert all(part > 0 for part in parts.values())
    assert not worths or abs(sum(parts.values()) - 1) < 1e-9
    urgent, fresh, carousel = (parts.get(turn, 0.0) for turn in Turn)
    assert not urgent or not fresh or urgent <= 0.6
    assert not fresh or fresh >= 2.99 * carousel
    assert not urgent or carousel <= 0.4
    assert (
        not carousel or len(worths) == 1 or carousel <= worths[Turn.CAROUSEL] / sum(worths.values())
    )

"""When a node with a return path asks the swarm for what the sky didn't bring."""

from __future__ import annotations

import math

import pytest

from cuntong_daemon.policy.repair import (
    MAX_DELAY_S,
    MIN_DELAY_S,
    NEIGHBOURS_S,
    Repair,
    Source,
    air_wait,
)

LINK = 64_000
USABLE = LINK * 0.9


def decide(
    repair: Repair, now: float, *, fetch_s: float, air_s: float, has_neighbours: bool = True
) -> Source:
    return repair.decide(
        now,
        missing_bytes=round(fetch_s * USABLE),
        link_bytes_s=LINK,
        air_s=air_s,
        has_neighbours=has_neighbours,
    )


def test_village_waits_for_the_sky_when_that_is_sooner() -> None:
    repair = Repair(0.0)
    for now in range(0, 7200, 60):
        assert decide(repair, now, fetch_s=1000, air_s=999) is Source.AIR
    assert "minutes" in str(repair.reason)


def test_village_asks_after_a_delay_of_its_own() -> None:
    first, last = Repair(0.0), Repair(0.999)
    assert decide(first, 0, fetch_s=100, air_s=1000) is Source.NEIGHBOURS
    assert decide(last, 0, fetch_s=100, air_s=1000) is Source.AIR
    assert decide(last, 240, fetch_s=100, air_s=760) is Source.NEIGHBOURS


def test_a_fade_over_many_villages_does_not_make_all_ask_at_once() -> None:
    asked = []
    for part in range(100):
        repair, now = Repair(part / 100), 0.0
        while decide(repair, now, fetch_s=60, air_s=3600 - now) is Source.AIR:
            now += 10
        asked.append(now)
    assert asked == sorted(asked)
    assert max(sum(now == at for now in asked) for at in asked) <= 5
    assert max(asked) <= MAX_DELAY_S


def test_delay_begins_anew_when_the_sky_was_sooner_meanwhile() -> None:
    repair = Repair(0.5)
    assert decide(repair, 0, fetch_s=100, air_s=1000) is Source.AIR
    assert decide(repair, 100, fetch_s=100, air_s=50) is Source.AIR
    assert decide(repair, 130, fetch_s=100, air_s=1000) is Source.AIR
    assert decide(repair, 130 + 125, fetch_s=100, air_s=1000) is Source.NEIGHBOURS


def test_neighbours_are_asked_alone_at_first() -> None:
    repair = Repair(0.0)
    assert decide(repair, 0, fetch_s=100, air_s=1000) is Source.NEIGHBOURS
    assert decide(repair, NEIGHBOURS_S - 1, fetch_s=100, air_s=1000) is Source.NEIGHBOURS
    assert decide(repair, NEIGHBOURS_S, fetch_s=100, air_s=1000) is Source.ANYBODY


def test_village_without_neighbours_asks_those_above() -> None:
    repair = Repair(0.0)
    assert decide(repair, 0, fetch_s=1, air_s=100, has_neighbours=False) is Source.ANYBODY
    alone = Repair(0.0)
    assert decide(alone, 0, fetch_s=1, air_s=100) is Source.NEIGHBOURS
    assert decide(alone, 1, fetch_s=1, air_s=100, has_neighbours=False) is Source.ANYBODY


def test_who_has_begun_to_fetch_goes_on_unless_the_sky_is_twice_as_fast() -> None:
    repair = Repair(0.0)
    assert decide(repair, 0, fetch_s=100, air_s=101) is Source.NEIGHBOURS
    assert decide(repair, 1, fetch_s=100, air_s=60) is Source.NEIGHBOURS
    assert decide(repair, 2, fetch_s=100, air_s=49) is Source.AIR


def test_when_the_sky_is_silent_all_comes_over_the_link_in_the_end() -> None:
    repair = Repair(0.999)
    assert decide(repair, 0, fetch_s=100_000, air_s=math.inf) is Source.AIR
    assert decide(repair, MAX_DELAY_S, fetch_s=100_000, air_s=math.inf) is Source.NEIGHBOURS
    assert repair.reason.code == "repair.silent"


def test_link_of_an_unknown_rate_counts_as_a_village_link() -> None:
    known, unknown = Repair(0.0), Repair(0.0)
    arguments = {"missing_bytes": 1_000_000, "air_s": 17.0, "has_neighbours": True}
    assert known.decide(0, link_bytes_s=64_000, **arguments) is unknown.decide(  # type: ignore[arg-type]
        0,
        link_bytes_s=0,
        **arguments,  # type: ignore[arg-type]
    )


def test_smallest_delay_is_drawn_from_half_a_minute() -> None:
    repair = Repair(0.99)
    assert decide(repair, 0, fetch_s=1, air_s=10) is Source.AIR
    assert decide(repair, MIN_DELAY_S, fetch_s=1, air_s=10) is Source.NEIGHBOURS


@pytest.mark.parametrize(
    ("now", "missing", "expected"),
    [
        (0, 0.5, 100 + 50),  # Before the pass: until it begins, and half of it.
        (100, 1.0, 100),  # At its beginning.
        (150, 0.2, 20),  # In its midst, as much as is lacking of it.
        (
            150,
            0.7,
            150 + 20,
        ),  # More than is to come: the rest from the next one, which begins at 300.
        (250, 0.3, 50 + 30),  # Between two passes.
        (350, 0.3, 30),  # Told late: the next one is under way.
    ],
)
def test_wait_for_the_sky_follows_the_programme(
    now: float, missing: float, expected: float
) -> None:
    found = air_wait(now, begins=100, ends=200, after=300, missing_part=missing)
    assert found == pytest.approx(expected)


def test_what_does_not_come_round_again_is_never_waited_for() -> None:
    assert math.isinf(air_wait(190, begins=100, ends=200, after=0, missing_part=0.5))
    assert air_wait(150, begins=100, ends=200, after=0, missing_part=0.5) == pytest.approx(50)

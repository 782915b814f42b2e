"""Laws that the governor keeps, whatever the link does to it."""

from __future__ import annotations

from dataclasses import dataclass

from hypothesis import given
from hypothesis import strategies as st

from cuntong_daemon.policy.governor import (
    INCREASE,
    GovernedLink,
    Governor,
    State,
)
from cuntong_daemon.policy.round_trips import Sample

BASE_S = 0.05
links = st.builds(
    GovernedLink,
    link_bytes_s=st.sampled_from([0, 8_000, 64_000, 1_250_000]),
    target_delay_s=st.sampled_from([0.02, 0.04, 0.1]),
    cap_bytes_s=st.sampled_from([0, 0, 500, 10_000, 50_000]),
)


@dataclass(frozen=True)
class Moment:
    """One step: how long after the one before, how much longer than the base the round trips were."""

    after_s: float
    excess_s: list[float]
    achieved: int


moments = st.lists(
    st.builds(
        Moment,
        st.sampled_from([0.05, 0.3, 0.3, 1.0, 5.0, 100.0]),
        st.lists(st.sampled_from([0.0, 0.01, 0.08, 0.1, 0.15, 0.3, 5.0]), max_size=3),
        st.integers(0, 100_000),
    ),
    max_size=40,
)


def live(governor: Governor, story: list[Moment], now: float = 100.0) -> float:
    """Lets a governor live through a story; returns when it ends."""
    for moment in story:
        now += moment.after_s
        samples = [Sample(now - 0.001 * n, BASE_S + e) for n, e in enumerate(moment.excess_s)]
        governor.step(now, samples, moment.achieved)
    return now


@given(links, moments)
def test_never_below_the_floor_never_above_the_cap(link: GovernedLink, story: list[Moment]) -> None:
    governor = Governor(link)
    now = 100.0
    for moment in story:
        now += moment.after_s
        samples = [Sample(now, BASE_S + excess) for excess in moment.excess_s]
        decision = governor.step(now, samples, moment.achieved)
        assert now < decision.next_look <= now + 30
        if decision.rate_bytes_s is None:
            assert not link.cap_bytes_s
        else:
            assert decision.rate_bytes_s >= link.floor_bytes_s > 0
            assert not link.cap_bytes_s or decision.rate_bytes_s <= link.cap_bytes_s


@given(links, moments, st.integers(1, 100_000), st.booleans())
def test_bloat_always_decreases(
    link: GovernedLink, story: list[Moment], achieved: int, is_hard: bool
) -> None:
    governor = Governor(link)
    governor.step(99.9, [Sample(99.9, BASE_S)], achieved)
    now = live(governor, story)
    # An hour later old outages and wariness are forgotten; the base isn't.
    for _ in range(20):
        now += 200
        governor.step(now, [Sample(now, BASE_S)], achieved)
    before = governor.step(now + 0.1, [Sample(now + 0.1, BASE_S)], achieved).rate_bytes_s
    excess = link.hard_s * 1.5 if is_hard else (link.bloat_s + link.hard_s) / 2
    now += 5
    for _ in range(3):
        now += 0.4
        decision = governor.step(now, [Sample(now, BASE_S + excess)], achieved)
    after = decision.rate_bytes_s
    assert after is not None
    assert after == link.floor_bytes_s or after < min(before or achieved, achieved)
    if is_hard:
        assert (after, decision.state) == (link.floor_bytes_s, State.YIELDING)


@given(links, moments)
def test_quiet_under_load_recovers_within_a_bounded_time(
    link: GovernedLink, story: list[Moment]
) -> None:
    governor = Governor(link)
    governor.step(99.9, [Sample(99.9, BASE_S)], 1000)
    now = live(governor, story)
    rate = governor.step(now, [], 1000).rate_bytes_s
    capacity = link.link_bytes_s or 64_000
    steps = 0
    while rate != (link.cap_bytes_s or None):
        now += 0.3
        steps += 1
        assert steps * 0.3 < 60
        achieved = capacity if rate is None else min(capacity, rate)
        rate = governor.step(now, [Sample(now, BASE_S)], achieved).rate_bytes_s


@given(links, moments, st.lists(st.sampled_from([0.1, 0.3, 1.0, 10.0]), min_size=1, max_size=30))
def test_a_stall_never_counts_as_bloat(
    link: GovernedLink, story: list[Moment], silence: list[float]
) -> None:
    governor = Governor(link)
    governor.step(99.9, [Sample(99.9, BASE_S)], 1000)
    now = live(governor, story)
    before = governor.step(now, [], 1000)
    # The first probe that isn't answered may be taken for somebody's page, until all is silent.
    governor.step(now + 0.5, [], 1000, unanswered_since=now)
    for after_s in (0.6, 3.0, 3.5):
        governor.step(now + after_s, [], 0, unanswered_since=now)
    now += 4.0
    for after_s in [*silence, 3.0, 3.0]:
        now += after_s
        decision = governor.step(now, [], 0)
        floor = min(before.rate_bytes_s or 0, decision.rate_bytes_s or 0)
        assert (
            before.rate_bytes_s is None
            or decision.rate_bytes_s is None
            or floor >= (before.rate_bytes_s)
        )
        if before.rate_bytes_s is None:
            assert decision.rate_bytes_s is None
    now += 30.0
    governor.step(now, [], 0)
    now += 3.0
    stalled = governor.step(now, [], 0)
    assert stalled.state is State.STALLED
    # All that was under way comes at once.
    back = governor.step(now + 0.1, [Sample(now + 0.1, age) for age in (3.0, 2.0, 1.0)], 5_000)
    if stalled.rate_bytes_s is None:
        assert back.rate_bytes_s is None
    else:
        assert back.rate_bytes_s is None or back.rate_bytes_s >= stalled.rate_bytes_s


@given(links, moments)
def test_a_held_rate_rises_slowly(link: GovernedLink, story: list[Moment]) -> None:
    """Only coming back from a yield, or dropping a limit that isn't used, is fast."""
    governor = Governor(link)
    now, before = 100.0, governor.step(99.9, [Sample(99.9, BASE_S)], 1000)
    for moment in story:
        now += moment.after_s
        samples = [Sample(now, BASE_S + excess) for excess in moment.excess_s]
        decision = governor.step(now, samples, moment.achieved)
        if before.state is State.HELD is decision.state:
            assert before.rate_bytes_s is not None
            assert decision.rate_bytes_s is not None
            assert decision.rate_bytes_s <= before.rate_bytes_s * INCREASE + 2
        before = decision

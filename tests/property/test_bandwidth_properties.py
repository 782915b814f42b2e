"""Laws of ramps, target delays, shares, transports, link rates and the choice of neighbours."""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from cuntong_daemon.policy.link_rate import How, Interval, LinkRate
from cuntong_daemon.policy.ramp import MAX_LIMIT_BYTES_S, ramp
from cuntong_daemon.policy.shares import FLOOR, Claim, shares
from cuntong_daemon.policy.target_delay import CEILING_MS, FLOOR_MS, serialisation_s, target_delay
from cuntong_daemon.policy.transport import transport
from cuntong_daemon.policy.uplink import (
    Receiver,
    minimum_distribution_s,
    star_distribution_s,
    uplink_scarcity,
)
from cuntong_protocol.divisions import Tier

NOW = datetime(2027, 3, 1, tzinfo=UTC)
limits = st.just(0) | st.integers(1, MAX_LIMIT_BYTES_S)
rates = st.integers(1_000, 12_500_000)


@given(limits, limits, st.integers(0, MAX_LIMIT_BYTES_S), st.floats(0, 10))
def test_a_ramp_moves_towards_its_target_and_never_past_it(
    current: int, target: int, achieved: int, elapsed_s: float
) -> None:
    step = ramp(current, target, achieved_bytes_s=achieved, elapsed_s=elapsed_s)
    of = lambda limit: limit or math.inf  # noqa: E731
    low, high = sorted((of(current), of(target)))
    assert low <= of(step.limit_bytes_s) <= high
    assert step.is_there == (step.limit_bytes_s == target)
    assert not step.is_paused
    if of(target) > of(current) and step.limit_bytes_s:
        assert step.limit_bytes_s <= current * 2 + 1
    if of(target) < of(current) and not step.is_there:
        # No more than a half is taken of what was under way.
        assert step.limit_bytes_s >= min(of(current), achieved) // 2


@given(limits, limits, st.floats(0.05, 1))
def test_a_ramp_arrives(start: int, target: int, tick_s: float) -> None:
    """From anything to anything in half a minute, when the link is used as far as it may be."""
    limit, spent_s = start, 0.0
    while True:
        achieved = min(limit or MAX_LIMIT_BYTES_S, MAX_LIMIT_BYTES_S)
        step = ramp(limit, target, achieved_bytes_s=achieved, elapsed_s=tick_s)
        limit = step.limit_bytes_s
        if step.is_there:
            break
        spent_s += tick_s
        assert spent_s < 60


@given(limits, limits, st.integers(0, MAX_LIMIT_BYTES_S))
def test_a_pause_is_never_ramped(current: int, target: int, achieved: int) -> None:
    step = ramp(current, target, achieved_bytes_s=achieved, elapsed_s=0.0, is_paused=True)
    assert (step.is_paused, step.is_there) == (True, True)


@given(st.lists(st.integers(0, 12_500_000), max_size=5))
def test_the_target_delay_is_the_slowest_links(found: list[int]) -> None:
    delay = target_delay(found)
    known = [rate for rate in found if rate]
    if known:
        assert FLOOR_MS <= delay.ms <= CEILING_MS
        assert delay.ms >= 1500 * serialisation_s(min(known)) or delay.ms == CEILING_MS
        assert delay.ms == target_delay([min(known)]).ms
        assert delay.ms >= target_delay([max(known)]).ms


claims = st.lists(
    st.builds(
        Claim,
        id=st.text(min_size=1, max_size=3),
        priority=st.integers(0, 9),
        remaining_bytes=st.integers(0, 10**12),
        deadline=st.none() | st.integers(-30, 400).map(lambda days: NOW + timedelta(days)),
    ),
    max_size=40,
    unique_by=lambda claim: claim.id,
)


@given(claims, st.sampled_from([0, 64_000, 12_500_000]))
def test_shares_keep_their_laws(found: list[Claim], link: int) -> None:
    given_out = shares(found, now=NOW, link_bytes_s=link)
    assert given_out == shares(found[::-1], now=NOW, link_bytes_s=link)
    assert {share.id for share in given_out} == {claim.id for claim in found}
    if found:
        assert math.isclose(sum(share.part for share in given_out), 1)
    parts = {share.id: share.part for share in given_out}
    for one in found:
        assert parts[one.id] >= min(FLOOR, 0.5 / len(found)) - 1e-9
        for other in found:
            is_sooner = other.deadline is None or (
                one.deadline is not None and one.deadline <= other.deadline
            )
            if (
                one.priority >= other.priority
                and is_sooner
                and one.remaining_bytes >= other.remaining_bytes > 0
            ):
                assert parts[one.id] >= parts[other.id] - 1e-9


@given(st.booleans(), st.booleans(), st.sampled_from([0, 64_000, 12_500_000]))
def test_whoever_is_below_reaches_whoever_is_above(below: bool, above: bool, link: int) -> None:
    """Except a centre that shares its link while those below it don't: it can only be reached by uTP."""
    lower = transport(is_shared=below, link_bytes_s=link)
    upper = transport(is_shared=above)
    reaches = (lower.dials_utp and upper.accepts_utp) or (lower.dials_tcp and upper.accepts_tcp)
    assert reaches or (above and not below)
    assert lower.dials_utp != lower.dials_tcp
    assert not (below and (lower.accepts_tcp or lower.dials_tcp))


receivers = st.lists(st.builds(Receiver, rates, rates), min_size=1, max_size=30)


@given(st.integers(1, 10**13), rates, receivers)
def test_help_never_makes_it_slower(payload: int, server: int, below: list[Receiver]) -> None:
    alone = star_distribution_s(payload, server, below)
    helped = minimum_distribution_s(payload, server, below)
    assert helped <= alone * (1 + 1e-9)
    assert helped >= payload / server * (1 - 1e-9)
    if alone > payload / min(r.down_bytes_s for r in below) * (1 + 1e-9):
        assert math.isclose(alone, len(below) * payload / server)
    assert not uplink_scarcity(server, below, vpn_shape="hub").is_scarce
    if uplink_scarcity(server, below, vpn_shape="mesh").is_scarce:
        assert helped < alone
        # More uplinks don't end the need for help, another receiver neither.
        more = [Receiver(r.down_bytes_s, r.up_bytes_s * 2) for r in below]
        assert uplink_scarcity(server, more, vpn_shape="mesh").is_scarce


intervals = st.lists(
    st.builds(
        Interval,
        at=st.floats(0, 3600),
        seconds=st.floats(0.1, 10),
        bytes_moved=st.integers(0, 10**7),
        is_limited_by_us=st.booleans(),
        is_delay_rising=st.booleans(),
    ),
    max_size=40,
)


@given(intervals, st.sampled_from([0, 64_000]), st.sampled_from(list(Tier)))
def test_an_estimate_says_how_it_is_known(
    found: list[Interval], configured: int, tier: Tier
) -> None:
    link = LinkRate(tier, configured)
    for interval in sorted(found, key=lambda interval: interval.at):
        link.add(interval)
    estimate = link.estimate(3600)
    assert 0 <= estimate.confidence <= 1
    assert estimate.bytes_s >= 0
    if configured:
        assert (estimate.bytes_s, estimate.how) == (configured, How.CONFIGURED)
        assert estimate.contradiction is None  # Not at once.
    else:
        assert estimate.contradiction is None
        assert estimate.how is not How.CONFIGURED
        fastest = max((i.bytes_moved / i.seconds for i in found), default=0)
        if estimate.how is How.MEASURED:
            assert 0 < estimate.bytes_s <= fastest

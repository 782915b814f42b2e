"""Tables say what the policies say."""

from datetime import UTC, datetime, timedelta

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from cuntong_daemon.policy.calendar import Calendar, Rule, Source, limits_at
from cuntong_daemon.policy.caps import session_caps
from cuntong_daemon.policy.peers import may_trade
from cuntong_daemon.policy.repair import Repair
from cuntong_daemon.policy.repair import Source as RepairSource
from cuntong_daemon.policy.selection import NodeProfile, judge, select
from cuntong_daemon.policy.uplink import Receiver, uplink_scarcity
from cuntong_protocol.divisions import TIER_LABELS
from cuntong_simulations.model import tables as model
from cuntong_simulations.model.deliveries import fetch_seconds
from cuntong_simulations.model.groups import is_scarce
from cuntong_simulations.model.trials import draw
from cuntong_simulations.scenario.calendars import windows_of

_MONDAY = datetime(2024, 1, 1, tzinfo=UTC)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000), st.integers(0, 167), st.data())
def test_a_class_has_in_each_hour_what_the_daemon_would_set(
    seed: int, hour: int, data: st.DataObject
) -> None:
    made = draw(seed)
    scenario, site = made.scenario, data.draw(st.sampled_from(made.country.classes))
    tier = next(tier for tier in scenario.tiers if tier.tier == TIER_LABELS[site.tier])
    found = model.link_hours(scenario, tier, site, scenario.calibration)
    left = 1 - tier.public_share
    down, up = int(left * site.down_bytes_s), int(left * site.up_bytes_s)
    public = Rule(down, up) if down and up else Rule(is_paused=True)
    calendar = Calendar(Source.OWN, UTC, windows=(
        *windows_of(scenario, tier.public, public),
        *windows_of(scenario, tier.pause, Rule(is_paused=True)),
    ))  # fmt: skip

    def is_within(name: str, now: datetime) -> bool:
        within = Calendar(Source.OWN, UTC, windows=windows_of(scenario, name, Rule(1, 1)))
        return limits_at(now, [within]).down.bytes_s == 1

    best, thin = (
        float(value or 0) for value in (scenario.calibration.efficiency, scenario.calibration.thin)
    )
    down_part, up_part = (
        best / (1 + (thin / rate) ** 2) if rate else 0.0
        for rate in (site.down_bytes_s, site.up_bytes_s)
    )
    expected = np.zeros(2)
    for minute in range(60):
        now = _MONDAY + timedelta(hours=hour, minutes=minute)
        limits = limits_at(now, [calendar])
        caps = session_caps(
            limits, is_shared=bool(tier.public), link_up_bytes_s=int(site.up_bytes_s)
        )
        is_open = is_within(tier.on, now) and (not tier.window or is_within(tier.window, now))
        if is_open and not caps.is_paused:
            expected[0] += down_part * min(site.down_bytes_s, caps.down.bytes_s or np.inf) / 60
            expected[1] += up_part * min(site.up_bytes_s, caps.up.bytes_s or np.inf) / 60
    np.testing.assert_allclose([found[0][hour], found[1][hour]], expected, rtol=1e-9)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000))
def test_a_class_wants_and_ranks_what_the_daemon_would(seed: int) -> None:
    made = draw(seed)
    scenario, bundles = made.scenario, made.bundles
    found = model.tables(scenario, made.country.classes, bundles, scenario.calibration)
    start = scenario.run.start
    for number, site in enumerate(made.country.classes):
        tier = next(tier for tier in scenario.tiers if tier.tier == TIER_LABELS[site.tier])
        categories = tuple(tier.subscriptions[site.subscription].categories) if site.subscription >= 0 else ()  # fmt: skip
        code = made_code(site.tier)
        profile = NodeProfile(code, categories=categories)
        candidates = [model.candidate(scenario, bundles, b, site.tier) for b in range(len(bundles.size))]  # fmt: skip
        wants = [judge(one, profile, is_ordered=False, today=start)[0] for one in candidates]
        assert found.wants[number].tolist() == wants
        queue = [one.id for one in select(candidates, profile, (), quota_bytes=0, today=start)]
        assert [bundles.names[b] for b in found.order[number, : sum(wants)]] == queue
        shape = scenario.vpn.shape
        assert (found.trades[number] == 1) == may_trade(code, shape)
        assert (found.trades[number] > 0) == may_trade(code, shape, is_uplink_scarce=True)


def made_code(tier: int) -> model.Division:
    """Any place of a tier."""
    digits = "110101001001"[: (0, 2, 4, 6, 9, 12)[tier]]
    return model.parse_division(digits.ljust(12, "0"))


@given(
    st.integers(0, 10**7),
    st.lists(st.tuples(st.integers(1, 10**6), st.integers(1, 10**6)), max_size=20),
)
def test_an_uplink_is_scarce_when_the_daemon_says_so(
    own: int, links: list[tuple[int, int]]
) -> None:
    receivers = [Receiver(down, up) for down, up in links]
    least = min((down for down, _ in links), default=0)
    found = is_scarce(own, len(links), least, sum(up for _, up in links))
    assert bool(found) == uplink_scarcity(own, receivers, vpn_shape="mesh").is_scarce


@given(st.integers(1, 10**12), st.integers(0, 10**8), st.floats(0, 1e7))
def test_a_bundle_is_left_to_the_sky_when_the_daemon_would(
    missing: int, link: int, air_s: float
) -> None:
    decided = Repair(delay_part=0.0).decide(
        0.0, missing_bytes=missing, link_bytes_s=link, air_s=air_s, has_neighbours=False
    )
    assert (fetch_seconds(float(missing), float(link)) >= air_s) == (decided is RepairSource.AIR)

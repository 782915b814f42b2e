"""Ramps, target delays, caps, shares, transports, link rates, and when neighbours help."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from cuntong_daemon.policy.calendar import Calendar, Limit, Limits, Rule, Source, limits_at
from cuntong_daemon.policy.caps import child_cap, session_caps
from cuntong_daemon.policy.link_rate import How, Interval, LinkRate
from cuntong_daemon.policy.ramp import ramp
from cuntong_daemon.policy.shares import Claim, shares
from cuntong_daemon.policy.target_delay import target_delay
from cuntong_daemon.policy.transport import is_shared_by_default, transport
from cuntong_daemon.policy.uplink import (
    MOST_FACTOR,
    Receiver,
    Sharing,
    fair_shares,
    minimum_distribution_s,
    uplink_scarcity,
)
from cuntong_protocol.divisions import Tier
from cuntong_protocol.texts import sentence

NOW = datetime(2027, 3, 1, tzinfo=UTC)
VILLAGE_LINK = 64_000
WHY = sentence("test.why", "why")


# Ramps.


def test_a_big_step_down_is_halved_once_a_second() -> None:
    limit, steps = 1_250_000, []
    while limit != 2_000:
        limit = ramp(limit, 2_000, achieved_bytes_s=limit, elapsed_s=1).limit_bytes_s
        steps.append(limit)
    assert steps == [625_000, 312_500, 156_250, 78_125, 39_062, 19_531, 9_765, 4_882, 2_441, 2_000]


def test_from_no_limit_the_way_down_begins_at_what_was_moved() -> None:
    step = ramp(0, 2_000, achieved_bytes_s=60_000, elapsed_s=1)
    assert (step.limit_bytes_s, step.is_there) == (30_000, False)
    assert ramp(0, 2_000, achieved_bytes_s=0, elapsed_s=1).limit_bytes_s == 2_000


def test_a_limit_far_above_what_was_moved_is_no_place_to_begin_at() -> None:
    assert ramp(10**8, 2_000, achieved_bytes_s=8_000, elapsed_s=1).limit_bytes_s == 4_000


def test_up_to_no_limit_it_doubles_until_it_no_longer_holds_back() -> None:
    step = ramp(8_000, 0, achieved_bytes_s=8_000, elapsed_s=1)
    assert (step.limit_bytes_s, step.is_there) == (16_000, False)
    assert ramp(160_000, 0, achieved_bytes_s=64_000, elapsed_s=1).is_there


def test_a_late_step_is_no_bigger_than_one_second() -> None:
    assert ramp(8_000, 1_000, achieved_bytes_s=8_000, elapsed_s=60).limit_bytes_s == 4_000


def test_a_stop_is_a_pause_at_once() -> None:
    step = ramp(0, 2_000, achieved_bytes_s=10**7, elapsed_s=0, is_paused=True)
    assert (step.is_paused, step.limit_bytes_s, step.is_there) == (True, 2_000, True)


# Target delays.


@pytest.mark.parametrize(
    ("kbit_s", "ms"), [(512, 40), (256, 80), (128, 160), (64, 200), (2_000, 20), (100_000, 20)]
)
def test_a_link_has_the_target_that_was_measured_to_fill_it(kbit_s: int, ms: int) -> None:
    assert target_delay([kbit_s * 125]).ms == ms


def test_a_county_takes_the_target_of_its_slowest_village() -> None:
    assert target_delay([500_000, 250_000, VILLAGE_LINK, 0]).ms == 40
    assert target_delay([0]).ms == 100
    assert "512 kbit/s" in str(target_delay([VILLAGE_LINK]).reason)


# Caps.


def limits_of(rule: Rule, source: Source = Source.OWN) -> Limits:
    return limits_at(NOW, [Calendar(source, UTC, rule)])


def test_a_shared_uplink_is_kept_below_full() -> None:
    caps = session_caps(limits_of(Rule()), is_shared=True, link_up_bytes_s=16_000)
    assert (caps.up.bytes_s, caps.down.bytes_s) == (14_400, 0)
    assert caps.reason.code == "caps.uplink"
    tighter = session_caps(limits_of(Rule(0, 9_000)), is_shared=True, link_up_bytes_s=16_000)
    assert (tighter.up.bytes_s, tighter.reason.code) == (9_000, "limits.own")


def test_a_centre_fills_its_own_fast_uplink() -> None:
    caps = session_caps(limits_of(Rule()), is_shared=False, link_up_bytes_s=500_000)
    assert (caps.up.bytes_s, caps.reason.code) == (0, "limits.none")
    thin = session_caps(limits_of(Rule()), is_shared=False, link_up_bytes_s=62_500)
    assert thin.up.bytes_s == 56_250


def test_an_uplink_that_is_too_thin_for_all_below_has_no_queue() -> None:
    def up(link: int, wanted: int) -> tuple[int, str]:
        caps = session_caps(
            limits_of(Rule()), is_shared=False, link_up_bytes_s=link, wanted_below_bytes_s=wanted
        )
        return caps.up.bytes_s, caps.up.reason.code

    assert up(500_000, 20 * 64_000) == (485_000, "caps.wanted-below")
    assert up(500_000, 3 * 64_000) == (0, "limits.none")
    assert up(0, 20 * 64_000) == (0, "limits.none")
    assert up(16_000, 20 * 64_000) == (14_400, "caps.uplink")


def test_a_pause_is_told_before_any_limit() -> None:
    caps = session_caps(limits_of(Rule(is_paused=True)), is_shared=True, link_up_bytes_s=64_000)
    assert caps.is_paused
    assert caps.reason.code == "limits.own-pause"


def test_a_child_gets_the_least_of_what_all_say() -> None:
    below = limits_of(Rule(down_bytes_s=30_000))
    assert child_cap(below, Limit(3_200, WHY)) == Limit(3_200, WHY)
    assert child_cap(below, Limit(0, WHY)).bytes_s == 30_000
    assert child_cap(below, None) == below.down
    assert child_cap(limits_of(Rule()), None).bytes_s == 0


# Shares.


def test_an_urgent_notice_goes_before_a_film_that_goes_on() -> None:
    film, notice = Claim("film", 5, 10**9), Claim("notice", 9, 10**6)
    first, second = shares([film, notice], now=NOW, link_bytes_s=VILLAGE_LINK)
    assert first.id == "notice"
    assert first.part > 0.8
    assert 0.02 < second.part < 0.2
    assert first.reason.code == "shares.priority"


def test_one_that_will_be_late_goes_before_one_with_time() -> None:
    late = Claim("late", 5, 10**9, NOW + timedelta(hours=1))
    early = Claim("early", 5, 10**9, NOW + timedelta(days=10))
    first, second = shares([early, late], now=NOW, link_bytes_s=VILLAGE_LINK)
    assert (first.id, first.reason.code, second.reason.code) == (
        "late",
        "shares.late",
        "shares.deadline",
    )
    assert "2 %" in str(second.reason)
    assert not shares([], now=NOW)


# Transports.


def test_the_lower_end_dials() -> None:
    village = transport(is_shared=is_shared_by_default(Tier.VILLAGE), link_bytes_s=VILLAGE_LINK)
    county = transport(is_shared=is_shared_by_default(Tier.COUNTY), link_bytes_s=500_000)
    assert (village.dials_utp, village.dials_tcp, village.accepts_tcp) == (True, False, False)
    assert (county.dials_utp, county.dials_tcp) == (False, True)
    assert (county.accepts_utp, county.accepts_tcp) == (True, True)


def test_a_thin_link_has_utp_only_even_if_nobody_shares_it() -> None:
    assert not transport(is_shared=False, link_bytes_s=VILLAGE_LINK).dials_tcp


# Link rates.


def moved(
    at: float, bytes_moved: int, *, is_limited: bool = False, is_full: bool = True
) -> Interval:
    return Interval(at, 1.0, bytes_moved, is_limited, is_full)


def test_a_link_is_measured_by_transfers_that_fill_it() -> None:
    link = LinkRate(Tier.VILLAGE)
    assert (link.estimate(0).how, link.estimate(0).bytes_s) == (How.UNKNOWN, VILLAGE_LINK)
    for second in range(20):
        # In every third second somebody else has half of it.
        link.add(moved(second, 120_000 if second % 3 else 60_000))
    estimate = link.estimate(20)
    assert (estimate.bytes_s, estimate.how, estimate.confidence) == (120_000, How.MEASURED, 1.0)


def test_what_a_limit_of_ours_held_back_says_nothing_but_at_least() -> None:
    link = LinkRate(Tier.VILLAGE)
    for second in range(100):
        link.add(moved(second, 8_000, is_limited=True))
    assert link.estimate(100).how is How.UNKNOWN
    link.add(moved(101, 250_000, is_limited=True, is_full=False))
    estimate = link.estimate(102)
    assert (estimate.how, estimate.bytes_s) == (How.MEASURED, 250_000)
    assert estimate.confidence < 0.5


def test_a_centre_assumes_nothing() -> None:
    estimate = LinkRate(Tier.COUNTY).estimate(0)
    assert (estimate.bytes_s, estimate.reason.code) == (0, "link-rate.unknown")


def test_old_measurements_are_forgotten() -> None:
    link = LinkRate(Tier.VILLAGE)
    link.add(moved(0, 120_000))
    assert link.estimate(4000).how is How.UNKNOWN


@pytest.mark.parametrize(("carried", "kbit_s"), [(30_000, 240), (125_000, 1000)])
def test_a_configured_rate_that_transfers_contradict_for_long_is_told(
    carried: int, kbit_s: int
) -> None:
    link = LinkRate(Tier.VILLAGE, VILLAGE_LINK)
    for second in range(900):
        link.add(moved(second, carried))
        estimate = link.estimate(second)
        assert estimate.bytes_s == VILLAGE_LINK
        if second < 600:
            assert estimate.contradiction is None
    assert str(estimate.contradiction) == (
        f"config.toml says 512 kbit/s, but transfers show {kbit_s} kbit/s."
    )


def test_headers_and_other_people_contradict_nothing() -> None:
    link = LinkRate(Tier.VILLAGE, VILLAGE_LINK)
    for second in range(900):
        link.add(moved(second, 60_000 if second % 5 == 0 else 20_000))
        assert link.estimate(second).contradiction is None


# Neighbours.


def test_twenty_villages_behind_four_mbit_help_each_other_and_three_do_not() -> None:
    village = Receiver(VILLAGE_LINK, VILLAGE_LINK)
    assert not uplink_scarcity(500_000, [village] * 3, vpn_shape="mesh").is_scarce
    scarce = uplink_scarcity(500_000, [village] * 20, vpn_shape="mesh")
    assert (scarce.is_scarce, scarce.reason.code) == (True, "uplink.scarce")
    # Helpers are kept a little longer than they would be called.
    nine = [village] * 9
    assert not uplink_scarcity(500_000, nine, vpn_shape="mesh").is_scarce
    assert uplink_scarcity(500_000, nine, vpn_shape="mesh", was_scarce=True).is_scarce
    assert uplink_scarcity(500_000, [village] * 20, vpn_shape="hub").reason.code == "uplink.hub"
    assert not uplink_scarcity(0, [village] * 20, vpn_shape="mesh").is_scarce


def test_an_uplink_is_shared_out_so_that_who_wants_less_leaves_it_to_the_others() -> None:
    assert fair_shares(100_000, [64_000] * 4) == [25_000] * 4
    assert fair_shares(100_000, [64_000, 10_000, 64_000]) == [45_000, 10_000, 45_000]
    assert fair_shares(100_000, [10_000, 20_000]) == [10_000, 20_000]
    assert fair_shares(100_000, []) == []


def test_more_than_the_uplink_is_shared_out_only_while_some_of_it_idles() -> None:
    sharing = Sharing()

    def step(used: int, places: int = 10, cap: int = 97_000) -> float:
        return sharing.step(100_000, cap, used, places, 1.0)

    budget = step(0)
    assert budget == pytest.approx(96_000)
    for _ in range(100):
        assert step(0) == budget, "nothing is here that they want"
    for _ in range(8):
        assert step(50_000) == budget, "they may only begin"
    for _ in range(200):
        most = step(50_000)
    assert most == pytest.approx(MOST_FACTOR * budget)
    assert step(50_000, places=2) == pytest.approx(2 * budget), "each could have all"
    for _ in range(20):
        step(99_000)
    assert step(90_000) == budget
    assert step(50_000, cap=50_000) == pytest.approx(49_500), "a limit of the place's own"


def test_the_minimum_distribution_time_of_the_three_bottlenecks() -> None:
    villages = [Receiver(64_000, 64_000)] * 20
    assert minimum_distribution_s(8_000_000, 4_000, villages) == 2000  # The server's uplink.
    assert minimum_distribution_s(8_000_000, 500_000, villages) == 125  # The slowest downlink.
    fast_down = [Receiver(1_000_000, 0)] * 20
    assert minimum_distribution_s(8_000_000, 500_000, fast_down) == 320  # All uplinks together.

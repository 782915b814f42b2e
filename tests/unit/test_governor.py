"""The governor: who uses the link, by how long packets of ours were held up."""

from __future__ import annotations

from cuntong_daemon.policy.governor import (
    ALARMS,
    FLOOR_SHARE,
    HOLD_S,
    LEARN_S,
    SILENT_S,
    Decision,
    Governor,
    State,
)

LINK = 64_000
LOUD = 0.2


def decide(governor: Governor, now: float, *, queue_s: float = 0.0) -> Decision:
    return governor.step(now, queue_s=queue_s)


def test_one_packet_that_a_page_held_up_stops_us_at_once() -> None:
    governor = Governor(LINK)
    governor.packet(1.0, 1500, 0.0)
    assert decide(governor, 1.0).rate_bytes_s is None
    governor.packet(1.1, 1500, LOUD)
    found = decide(governor, 1.1)
    assert (found.state, found.rate_bytes_s) == (State.YIELDING, 0)


def test_a_single_packet_of_others_is_no_page() -> None:
    governor = Governor(LINK)
    governor.packet(1.0, 1500, 1.5 * governor.packet_s)
    assert decide(governor, 1.0).state is State.FREE


def test_who_uses_the_link_for_long_leaves_us_the_floor() -> None:
    governor = Governor(LINK)
    now = 0.0
    while now < 300:
        governor.packet(now, 1500, LOUD)
        found = decide(governor, now)
        now += 0.3
    assert found.rate_bytes_s == int(LINK * FLOOR_SHARE)


def test_after_the_page_all_is_as_before() -> None:
    governor = Governor(LINK)
    governor.packet(0.0, 1500, LOUD)
    governor.packet(1.0, 1500, LOUD)
    governor.packet(1.0 + HOLD_S / 2, 1500, 0.0)
    assert decide(governor, 1.0 + HOLD_S / 2).state is State.YIELDING
    governor.packet(1.01 + HOLD_S, 1500, 0.0)
    assert decide(governor, 1.01 + HOLD_S).rate_bytes_s is None


def test_silence_is_not_waited_out_for_ever() -> None:
    governor = Governor(LINK)
    governor.packet(0.0, 1500, LOUD)
    assert decide(governor, SILENT_S / 2).state is State.YIELDING
    assert decide(governor, SILENT_S).state is State.FREE


def loud_again_and_again() -> tuple[Governor, float]:
    """A governor that gave way and came back so often that it takes the next loud packet for a slow link; and when."""
    governor, now = Governor(LINK), 0.0
    for _ in range(ALARMS):
        governor.packet(now, 1500, LOUD)
        governor.packet(now + HOLD_S + 0.01, 1500, 0.0)
        now += HOLD_S + 0.5
    governor.packet(now, 1500, LOUD)
    return governor, now


def test_a_link_that_became_slower_is_learnt() -> None:
    governor, now = loud_again_and_again()
    assert decide(governor, now).state is State.LEARNING
    end = now + LEARN_S + 0.01
    while now < end:
        governor.packet(now, 1500, LOUD)
        now += 1500 / (LINK / 2)
    found = decide(governor, now)
    assert found.state is State.FREE
    assert abs(found.link_bytes_s - LINK / 2) < LINK * 0.03


def test_others_who_stay_are_not_taken_for_a_slow_link() -> None:
    governor, now = loud_again_and_again()
    governor.packet(now + 1, 3000, LOUD)
    found = decide(governor, now + LEARN_S + 0.01)
    assert (found.state, found.link_bytes_s) == (State.YIELDING, LINK)


def test_a_learnt_rate_follows_the_link_up_and_down() -> None:
    governor = Governor(LINK)
    governor._learnt = LINK // 2
    lower = decide(governor, 1.0, queue_s=0.2).link_bytes_s
    assert lower < LINK // 2
    now = 2.0
    while (rate := decide(governor, now).link_bytes_s) < LINK:
        assert rate > lower
        lower, now = rate, now + 1
    assert now < 60
    governor._learnt = 10_000
    governor.know(LINK * 2)
    assert governor.link_bytes_s == LINK * 2


def test_on_a_link_of_unknown_rate_only_utp_gives_way() -> None:
    governor = Governor()
    for number in range(100):
        governor.packet(number * 0.05, 1500, LOUD)
        assert decide(governor, number * 0.05).state is State.FREE
    assert decide(governor, 6.0).link_bytes_s == 0

"""The governor: what it takes for somebody else's page, for bloat, for a stall, and how it comes back.

`Road` is a fluid model of an access link: a queue before a bottleneck, uTP that steers the queue to its target,
and TCP that fills it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from random import Random

import pytest

from cuntong_daemon.policy.governor import (
    Decision,
    GovernedLink,
    Governor,
    State,
)
from cuntong_daemon.policy.round_trips import Sample

LINK = 64_000
BASE_S = 0.053
VILLAGE = GovernedLink(link_bytes_s=LINK, target_delay_s=0.04)
QUIET_S = BASE_S + 0.040
BLOATED_S = BASE_S + 0.100
PAGE_S = BASE_S + 0.200


@dataclass
class Feed:
    """Steps a governor as the daemon does: one sample a look."""

    governor: Governor = field(default_factory=lambda: Governor(VILLAGE))
    now: float = 1000.0
    last: Decision | None = None

    def give(self, *delays_s: float, achieved: int = LINK, every_s: float = 0.3) -> Decision:
        for delay_s in delays_s:
            self.now += every_s
            self.last = self.governor.step(self.now, [Sample(self.now, delay_s)], achieved)
        assert self.last is not None
        return self.last

    def silence(self, seconds: float, achieved: int = 0) -> Decision:
        for _ in range(int(seconds / 0.5)):
            self.now += 0.5
            self.last = self.governor.step(self.now, [], achieved)
        assert self.last is not None
        return self.last


@pytest.fixture
def feed() -> Feed:
    """A village that has been downloading alone for a while."""
    made = Feed()
    made.give(BASE_S, *[QUIET_S] * 20)
    return made


def test_our_own_standing_queue_is_nobody_else(feed: Feed) -> None:
    decision = feed.give(*[BASE_S + 0.075] * 100)
    assert (decision.rate_bytes_s, decision.state) == (None, State.FREE)


def test_a_page_makes_it_yield_at_the_first_long_round_trip(feed: Feed) -> None:
    decision = feed.give(PAGE_S)
    assert decision.state is State.YIELDING
    assert decision.rate_bytes_s == VILLAGE.floor_bytes_s == 3_200
    assert decision.reason.code == "governor.yielding"
    assert decision.next_look - feed.now < 0.5


def test_it_stays_away_while_the_page_loads_and_is_back_two_seconds_later(feed: Feed) -> None:
    assert feed.give(*[PAGE_S] * 30, achieved=3_200).rate_bytes_s == 3_200
    ended = feed.now
    while feed.give(BASE_S, achieved=3_200).rate_bytes_s is not None:
        assert feed.now - ended < 3
    assert feed.now - ended >= 1


def test_half_of_the_rate_comes_back_before_the_whole(feed: Feed) -> None:
    feed.give(*[PAGE_S] * 3, achieved=3_200)
    rates = [feed.give(BASE_S, achieved=3_200).rate_bytes_s for _ in range(8)]
    assert LINK // 2 in rates
    assert rates[-1] is None


def test_the_next_picture_of_the_page_sends_it_away_again(feed: Feed) -> None:
    feed.give(*[PAGE_S] * 3, achieved=3_200)
    while feed.give(BASE_S, achieved=3_200).state is State.YIELDING:
        pass
    assert feed.last is not None
    assert feed.last.state is State.RECOVERING
    assert feed.give(PAGE_S).rate_bytes_s == 3_200
    # And it hasn't forgotten what it had.
    decision = feed.give(PAGE_S, *[BASE_S] * 10, achieved=3_200)
    assert decision.rate_bytes_s is None


def test_one_packet_that_tcp_sent_again_costs_less_than_a_second(feed: Feed) -> None:
    feed.give(PAGE_S)
    decision = feed.give(QUIET_S, QUIET_S)
    assert decision.state is State.RECOVERING


def test_on_a_lossy_link_a_single_long_round_trip_is_no_news(feed: Feed) -> None:
    for _ in range(2):
        feed.give(PAGE_S, *[QUIET_S] * 8)
    assert feed.give(PAGE_S).rate_bytes_s is None
    # Two in a row are.
    assert feed.give(PAGE_S).state is State.YIELDING


def test_wariness_is_forgotten_after_a_minute(feed: Feed) -> None:
    for _ in range(2):
        feed.give(PAGE_S, *[QUIET_S] * 8)
    feed.give(*[QUIET_S] * 240)
    assert feed.give(PAGE_S).state is State.YIELDING


def test_mild_bloat_takes_a_fifth_and_then_waits(feed: Feed) -> None:
    assert feed.give(BLOATED_S).rate_bytes_s is None
    decision = feed.give(BLOATED_S)
    assert (decision.rate_bytes_s, decision.state) == (LINK * 8 // 10, State.HELD)
    assert feed.give(BLOATED_S, BLOATED_S).rate_bytes_s == LINK * 8 // 10
    assert feed.give(BLOATED_S, BLOATED_S).rate_bytes_s == int(LINK * 8 // 10 * 0.8)


def test_it_rises_only_while_the_limit_is_used(feed: Feed) -> None:
    held = feed.give(BLOATED_S, BLOATED_S).rate_bytes_s
    assert held is not None
    rate = feed.give(*[QUIET_S] * 5, achieved=held // 2).rate_bytes_s
    assert rate == held
    rate = feed.give(*[QUIET_S] * 5, achieved=held).rate_bytes_s
    assert rate is not None
    assert held < rate < held * 1.25


def test_a_limit_that_nobody_needs_is_dropped(feed: Feed) -> None:
    feed.give(BLOATED_S, BLOATED_S)
    assert feed.give(*[QUIET_S] * 20, achieved=10_000).rate_bytes_s is None


def test_an_outage_is_not_bloat_and_what_was_under_way_then_does_not_count(feed: Feed) -> None:
    decision = feed.silence(30)
    assert (decision.state, decision.rate_bytes_s) == (State.STALLED, None)
    # The pings of the outage come back all at once, up to half a minute old.
    late = [Sample(feed.now + 0.1, delay_s) for delay_s in (29.0, 20.0, 10.0, 1.0)]
    feed.now += 0.1
    assert feed.governor.step(feed.now, late, 40_000).rate_bytes_s is None
    assert feed.give(QUIET_S).rate_bytes_s is None


def test_a_probe_that_waits_too_long_is_not_waited_for(feed: Feed) -> None:
    sent = feed.now
    early = feed.governor.step(sent + 0.15, [], LINK, unanswered_since=sent)
    assert early.state is State.FREE
    late = sent + feed.governor.patience_s + 0.01
    assert feed.governor.step(late, [], LINK, unanswered_since=sent).rate_bytes_s == 3_200
    # Its answer is no second witness: two short ones and it was a false alarm.
    feed.governor.step(sent + 0.3, [Sample(sent + 0.3, 0.3)], LINK)
    feed.now = sent + 0.3
    assert feed.give(QUIET_S, QUIET_S).state is State.RECOVERING


def test_a_probe_that_is_never_answered_was_an_outage(feed: Feed) -> None:
    sent = feed.now
    step = feed.governor.step(sent + 0.5, [], LINK, unanswered_since=sent)
    assert step.state is State.YIELDING
    for tenths in range(6, 60):
        step = feed.governor.step(sent + tenths / 10, [], 0, unanswered_since=sent)
    assert (step.state, step.rate_bytes_s) == (State.STALLED, None)


def test_bytes_without_samples_are_no_stall(feed: Feed) -> None:
    assert feed.silence(30, achieved=40_000).state is State.FREE


def test_a_cap_is_kept_while_nothing_is_wrong_and_after_recovery() -> None:
    feed = Feed(Governor(GovernedLink(LINK, 0.04, cap_bytes_s=20_000)))
    assert feed.give(BASE_S, *[QUIET_S] * 5, achieved=20_000).rate_bytes_s == 20_000
    assert feed.give(PAGE_S, PAGE_S).rate_bytes_s == 3_200
    assert feed.give(*[BASE_S] * 10, achieved=3_200).rate_bytes_s == 20_000


def test_a_cap_below_the_floor_is_kept_too() -> None:
    feed = Feed(Governor(GovernedLink(LINK, 0.04, cap_bytes_s=1_000)))
    assert feed.give(BASE_S, PAGE_S, PAGE_S, achieved=1_000).rate_bytes_s == 1_000


def test_an_idle_node_hardly_probes(feed: Feed) -> None:
    decision = feed.give(BASE_S, BASE_S, achieved=0)
    assert decision.next_look - feed.now > 29
    # 100 bytes each way, twice a minute: far below 1 kbit/s.


def test_a_new_route_is_the_new_base_after_a_while(feed: Feed) -> None:
    far = [QUIET_S + 0.2] * (20 * 60 * 2)
    decision = feed.give(*far, achieved=3_200, every_s=0.6)
    assert decision.state is State.FREE


def test_a_source_with_a_longer_way_has_a_base_of_its_own(feed: Feed) -> None:
    feed.now += 0.3
    far = [Sample(feed.now, 0.300, "cousin"), Sample(feed.now, 0.310, "cousin")]
    assert feed.governor.step(feed.now, far, LINK).state is State.FREE


def test_many_sources_do_not_fill_the_memory(feed: Feed) -> None:
    for number in range(1000):
        feed.now += 0.1
        feed.governor.step(feed.now, [Sample(feed.now, 0.1, f"peer {number}")], LINK)
    assert len(feed.governor._round_trips) <= 64


# The closed loop.


@dataclass
class Road:
    """One direction of an access link, in steps of 10 ms.

    Attributes:
        link: Bytes/s it carries.
        buffer_s: What its queue holds at most.
        queue: Bytes in it.
    """

    link: float = LINK
    buffer_s: float = 0.25
    target_s: float = 0.04
    queue: float = 0.0
    utp: float = LINK
    tcp: float = 0.0
    carried_ours: float = 0.0
    carried_theirs: float = 0.0
    full_at: int = 0
    ticks: int = 0

    def tick(self, limit: int | None, *, is_foreground: bool) -> None:
        dt = 0.01
        delay_s = self.queue / self.link
        # LEDBAT in one line: up below the target, down above, a round trip or so to get there.
        self.utp += self.link * 0.6 * (self.target_s - delay_s) / self.target_s * dt
        # A window that isn't filled doesn't grow.
        most = 2 * self.link if limit is None else 1.2 * limit
        self.utp = min(max(self.utp, 3_000), most)
        ours = self.utp if limit is None else min(self.utp, limit)
        self.ticks += 1
        if is_foreground:
            # A first burst of ten packets, then what cubic's window makes of a full buffer.
            if not self.tcp:
                self.queue += 15_000
                self.tcp = self.link
            self.tcp = min(self.tcp + self.link * 0.3 * dt, 2 * self.link)
            if delay_s >= self.buffer_s * 0.99 and self.ticks - self.full_at > 30:
                self.tcp, self.full_at = self.tcp * 0.7, self.ticks
        else:
            self.tcp = 0.0
        offered = ours + self.tcp
        self.queue = max(0.0, self.queue + (offered - self.link) * dt)
        self.queue = min(self.queue, self.buffer_s * self.link)
        carried = min(self.link, offered + self.queue / dt) * dt
        if offered:
            self.carried_ours += carried * ours / offered
            self.carried_theirs += carried * self.tcp / offered


@dataclass
class Loop:
    """Governor and road: probes on the way for as long as the queue says, limits 60 ms late."""

    road: Road = field(default_factory=Road)
    governor: Governor = field(default_factory=lambda: Governor(VILLAGE))
    now: float = 0.0
    limit: int | None = None
    loss: float = 0.0
    random: Random = field(default_factory=lambda: Random(1))
    _pending: list[tuple[float, int | None]] = field(default_factory=list)
    _probes: list[Sample] = field(default_factory=list)
    _next: float = 0.0
    _sent: float | None = None
    _before: float = 0.0
    _rates: list[float] = field(default_factory=list)

    def run(self, seconds: float, *, is_foreground: bool = False) -> tuple[float, float]:
        """Returns what was carried for us and for others, as parts of the link."""
        ours, theirs = self.road.carried_ours, self.road.carried_theirs
        for _ in range(round(seconds * 100)):
            self.now += 0.01
            while self._pending and self._pending[0][0] <= self.now:
                self.limit = self._pending.pop(0)[1]
            self.road.tick(self.limit, is_foreground=is_foreground)
            self._rates = [*self._rates[-99:], self.road.carried_ours]
            arrived = [sample for sample in self._probes if sample.at <= self.now]
            waited = self.now - self._sent if self._sent is not None else 0.0
            is_late = self.governor.patience_s < waited <= self.governor.patience_s + 0.015
            if arrived or is_late or self.now >= self._next or self.road.ticks % 100 == 0:
                self._look(arrived)
        whole = self.road.link * seconds
        return (self.road.carried_ours - ours) / whole, (self.road.carried_theirs - theirs) / whole

    def _look(self, arrived: list[Sample]) -> None:
        self._probes = [sample for sample in self._probes if sample.at > self.now]
        achieved = (self._rates[-1] - self._rates[0]) / (len(self._rates) * 0.01)
        sent = [sample.at - sample.delay_s for sample in self._probes]
        self._sent = min(sent, default=None)
        decision = self.governor.step(self.now, arrived, int(achieved), unanswered_since=self._sent)
        self._pending.append((self.now + 0.06, decision.rate_bytes_s))
        if self.now >= self._next:
            delay_s = BASE_S + self.road.queue / self.road.link + 0.012
            if self.random.random() < 1 - (1 - self.loss) ** 2:
                delay_s += 0.25 + delay_s  # TCP waits, then sends again.
            self._probes.append(Sample(self.now + delay_s, delay_s))
            self._sent = min(self.now, self._sent or self.now)
        self._next = decision.next_look


def test_alone_on_the_link_it_uses_all_of_it() -> None:
    loop = Loop()
    loop.run(10)
    ours, _theirs = loop.run(120)
    assert ours >= 0.95


def test_a_bulk_download_by_the_public_gets_what_it_gets_alone() -> None:
    loop = Loop()
    loop.run(10)
    _ours, theirs = loop.run(300, is_foreground=True)
    alone = Road()
    for _ in range(300 * 100):
        alone.tick(0, is_foreground=True)
    assert theirs >= 0.9 * alone.carried_theirs / (alone.link * 300)


def test_within_a_second_of_a_page_the_link_is_the_pages() -> None:
    loop = Loop()
    loop.run(10)
    loop.run(0.6, is_foreground=True)
    ours, theirs = loop.run(1.2, is_foreground=True)
    assert ours < 0.07
    assert theirs > 0.9


def test_between_pages_it_uses_the_link_again() -> None:
    loop = Loop()
    loop.run(10)
    for _ in range(10):
        loop.run(2, is_foreground=True)
        loop.run(3)
        ours, _theirs = loop.run(10)
        assert ours >= 0.95


def test_a_link_that_loses_a_packet_in_fifty_is_used() -> None:
    loop = Loop(loss=0.02)
    loop.run(60)
    ours, _theirs = loop.run(600)
    assert ours >= 0.9


def test_a_link_that_falls_to_half_is_used_and_not_taken_for_somebody_else() -> None:
    loop = Loop()
    loop.run(10)
    loop.road.link = LINK / 2
    loop.run(10)
    ours, _theirs = loop.run(60)
    assert ours >= 0.85
    loop.road.link = LINK
    loop.run(30)
    ours, _theirs = loop.run(60)
    assert ours >= 0.95

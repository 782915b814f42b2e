"""The governor: gets out of the way when somebody else's traffic shows (SPEC 10.5).

uTP gives way slowly, and behind a router with active queues it doesn't see that it should. The governor watches round
trips and says how much may be moved. The idea is cake-autorate's, fitted to a thin link with few probes:

- **Yield.** A round trip that is longer than the queue that our own transfer keeps standing can explain is somebody
  else's page. The rate goes to the floor at once, after one sample: a page lasts two seconds. A probe that has waited
  that long already needn't be answered first; should the answer never come, that was an outage and is taken back. It stays there
  while round trips stay long, and a moment longer; then half of the former rate, then all of it. A single long
  round trip among short ones (a lost packet that TCP sent again) is over after two short ones, and when that has
  happened twice in a minute, two long ones in a row are asked for.
- **Bloat.** Two of the last three samples above the threshold: the rate becomes a part of what was achieved. The
  threshold is uTP's own target delay, one packet's serialisation, and the jitter of an honest link. Then nothing is
  decided for a while, since what is measured was sent before. Upwards it goes slowly, and only under load: a limit
  that isn't used proves nothing; one that isn't needed is dropped.
- **Stall.** Neither samples nor bytes come: the link is down, not full. Nothing is decided, and round trips that
  began before it came back don't count: they measure the outage.

It is a function of what it is given: no clock, no sockets. `Decision.next_look` says when to send a probe. The step is
asked for at that time, and at least once a second while anything moves; asking more often does no harm.
"""

from __future__ import annotations

import enum
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass

from cuntong_protocol.texts import N_, Sentence, sentence

from .round_trips import PROBES, RoundTrips, Sample
from .target_delay import serialisation_s

FLOOR_SHARE = 0.05
"""What is left to us while we yield: a bulk download by the public gets 95 %, and our connections stay alive."""
MIN_FLOOR_BYTES_S = 2_000
"""A block of 16 KiB within 8 s: less, and peers give up on each other."""
ASSUMED_LINK_BYTES_S = 64_000
"""512 kbit/s, the thinnest link the programme allows: it gives the widest thresholds."""
JITTER_S = 0.015
"""Beyond queues: interleaving on copper, air time on radio, a busy PC."""
HARD_PACKETS = 2
"""Above the threshold by two packets (47 ms at 512 kbit/s): a page's first burst is ten."""
MIN_HARD_S = 0.020
"""The same where packets take no time."""
DECREASE = 0.8
"""uTP has made its part of the way by itself; cake-autorate takes 0.75 to 0.9."""
INCREASE = 1.1
"""A second. From one decrease back within three seconds, and never so fast that a queue builds up unseen."""
REFRACTORY_S = 1.0
"""A round trip through a full modem (300 ms), twice, and some probes: what comes sooner was sent before."""
HOLD_S = 1.0
"""After the last long round trip: the gap between a page and its pictures."""
RECOVERY_S = 0.5
"""At half the former rate, to see whether it is missed."""
QUIET_SAMPLES = 2
FALSE_ALARMS = 2
FALSE_ALARM_MEMORY_S = 60.0
LOAD = 0.75
"""A limit of which that much is used holds something back."""
RELEASE_S = 5.0
"""A limit that wasn't used for so long while all was quiet is dropped."""
RELEASE_ABOVE = 1.25
"""So is one that is that much above what the link carries."""
STALL_S = 2.0
"""Longer than the queue of any modem we know; half a minute is an outage, a second may be anything."""
RECENT_S = 3.0
SAME_PROBE_S = 0.005
"""Clocks and sums of floats."""
PROBE_BYTES = 100
"""A ping or pong in TLS, TCP and IP."""
PROBE_SHARE = 0.005
"""Of the link, for probes under load: three a second at 512 kbit/s."""
SHORTEST_LOOK_S = 0.1
LONGEST_LOOK_S = 1.0
IDLE_LOOK_S = 30.0
"""While nothing of ours moves there is nothing to take back; the base is kept fresh."""
IDLE_SHARE = 0.02


@dataclass(frozen=True, slots=True)
class GovernedLink:
    """What the governor knows of the link.

    Attributes:
        link_bytes_s: What it carries; 0 when unknown.
        target_delay_s: The queue that our own transfers keep standing (uTP's target).
        cap_bytes_s: Never more than this; 0 for no cap.
    """

    link_bytes_s: int = 0
    target_delay_s: float = 0.04
    cap_bytes_s: int = 0

    @property
    def floor_bytes_s(self) -> int:
        floor = max(MIN_FLOOR_BYTES_S, int(self.link_bytes_s * FLOOR_SHARE))
        return min(floor, self.cap_bytes_s) if self.cap_bytes_s else floor

    @property
    def packet_s(self) -> float:
        return serialisation_s(self.link_bytes_s or ASSUMED_LINK_BYTES_S)

    @property
    def bloat_s(self) -> float:
        """Above the base by more than this: more than our own queue."""
        return self.target_delay_s + self.packet_s + JITTER_S

    @property
    def hard_s(self) -> float:
        """Above the base by more than this: somebody else's queue."""
        return self.bloat_s + max(HARD_PACKETS * self.packet_s, MIN_HARD_S)

    @property
    def look_s(self) -> float:
        probe_s = PROBE_BYTES / (PROBE_SHARE * (self.link_bytes_s or ASSUMED_LINK_BYTES_S))
        return min(max(probe_s, SHORTEST_LOOK_S), LONGEST_LOOK_S)


class State(enum.Enum):
    """What the governor is doing."""

    FREE = "free"
    HELD = "held"
    YIELDING = "yielding"
    RECOVERING = "recovering"
    STALLED = "stalled"


@dataclass(frozen=True, slots=True)
class Decision:
    """What may be moved.

    Attributes:
        rate_bytes_s: None for as much as uTP finds.
        state: For programs.
        reason: For people.
        next_look: When to probe and ask again, monotonic seconds.
    """

    rate_bytes_s: int | None
    state: State
    reason: Sentence
    next_look: float


_REASONS = {
    State.FREE: sentence("governor.free", N_("Nobody else's traffic shows on the link.")),
    State.HELD: sentence(
        "governor.held", N_("Round trips were longer than they should be; the rate rises slowly.")
    ),
    State.YIELDING: sentence("governor.yielding", N_("Somebody else is using the link.")),
    State.RECOVERING: sentence(
        "governor.recovering", N_("The link was used by somebody else until a moment ago.")
    ),
    State.STALLED: sentence("governor.stalled", N_("Nothing comes through the link at all.")),
}


class Governor:
    """One direction of one link. It starts free."""

    def __init__(self, link: GovernedLink) -> None:
        self.link = link
        """May be replaced at any time: the rate is learnt, the calendar changes the cap."""
        self._state = State.FREE
        self._rate: int | None = None
        self._former: int | None = None
        self._former_achieved = 0
        self._round_trips = RoundTrips()
        self._recent: deque[tuple[float, float]] = deque(maxlen=3)
        self._quiet = 0
        self._loud = 0
        self._loud_at = float("-inf")
        self._alarms: deque[float] = deque(maxlen=FALSE_ALARMS)
        self._decided_at = float("-inf")
        self._used_at: float | None = None
        self._silent_since: float | None = None
        self._is_stalled = False
        self._heard_at = float("-inf")
        self._alive_at = float("-inf")
        self._next_look = float("-inf")
        self._suspected: float | None = None
        """When the probe was sent that made us yield before it was answered."""

    @property
    def patience_s(self) -> float:
        """A probe that waits longer than this for its answer is news: ask for a step then."""
        base_s = self._round_trips.base_s(PROBES)
        return STALL_S if base_s is None else base_s + self.link.hard_s

    def step(
        self,
        now: float,
        samples: Iterable[Sample],
        achieved_bytes_s: int,
        *,
        unanswered_since: float | None = None,
    ) -> Decision:
        """Decide anew.

        Args:
            now: Monotonic seconds.
            samples: Round trips that ended since the last step, in any order.
            achieved_bytes_s: What was moved over the last second or so.
            unanswered_since: When the oldest probe was sent that has no answer yet.
        """
        ordered = sorted(samples, key=lambda sample: sample.at)
        if self._watch_for_stall(now, bool(ordered) or achieved_bytes_s > 0, unanswered_since):
            return self._decision(now, State.STALLED, is_idle=False)
        for sample in ordered:
            self._take(sample, now, achieved_bytes_s)
        if unanswered_since is not None and achieved_bytes_s > 0:
            self._suspect(unanswered_since, now, achieved_bytes_s)
        if self._state is State.YIELDING:
            self._recover(now)
        elif self._state is State.RECOVERING:
            self._finish_recovery(now)
        if self._state in (State.FREE, State.HELD):
            self._regulate(now, achieved_bytes_s)
        is_idle = (
            self._state is State.FREE
            and achieved_bytes_s <= (self.link.link_bytes_s or ASSUMED_LINK_BYTES_S) * IDLE_SHARE
        )
        return self._decision(now, self._state, is_idle=is_idle)

    def _decision(self, now: float, state: State, *, is_idle: bool) -> Decision:
        cap = self.link.cap_bytes_s
        rate = self._rate
        if rate is not None:
            rate = max(rate, self.link.floor_bytes_s)
        if cap:
            rate = cap if rate is None else min(rate, cap)
        look = now + (IDLE_LOOK_S if is_idle else self.link.look_s)
        # Asked early, the probe that is due stays due.
        self._next_look = min(self._next_look, look) if now < self._next_look else look
        return Decision(rate, state, _REASONS[state], self._next_look)

    def _watch_for_stall(self, now: float, is_alive: bool, unanswered_since: float | None) -> bool:
        if is_alive:
            if self._is_stalled:
                self._is_stalled = False
                self._alive_at = now
                self._recent.clear()
            self._silent_since = None
            self._heard_at = now
            return False
        if self._silent_since is None:
            if unanswered_since is not None:
                self._silent_since = max(unanswered_since, self._heard_at)
            elif now < self._next_look:
                return False  # No probe was sent, so nothing is missing.
            else:
                self._silent_since = now
        self._is_stalled = now - self._silent_since >= STALL_S
        if self._is_stalled and self._suspected is not None:
            self._rate, self._suspected, self._loud = self._former, None, 0
            self._change(State.FREE if self._rate is None else State.HELD, now)
        return self._is_stalled

    # Samples.

    def _take(self, sample: Sample, now: float, achieved_bytes_s: int) -> None:
        if sample.at - sample.delay_s < self._alive_at:
            return
        excess = self._round_trips.excess_s(sample)
        self._recent.append((sample.at, excess))
        if excess <= self.link.bloat_s:
            self._quiet += 1
            if self._state is not State.YIELDING:
                self._loud = 0
            return
        self._quiet = 0
        if self._state is State.YIELDING:
            is_the_suspected = (
                self._suspected is not None
                and abs(sample.at - sample.delay_s - self._suspected) < SAME_PROBE_S
            )
            self._loud += not is_the_suspected
            self._loud_at = sample.at
            self._suspected = None
        elif excess > self.link.hard_s:
            self._loud += 1
            self._loud_at = sample.at
            if self._loud >= self._needed(now):
                self._yield(now, achieved_bytes_s)

    def _suspect(self, sent: float, now: float, achieved_bytes_s: int) -> None:
        """A probe has waited for too long already."""
        if (
            self._state is not State.YIELDING
            and sent >= self._alive_at
            and now - sent > self.patience_s
            and self._loud + 1 >= self._needed(now)
        ):
            self._loud += 1
            self._loud_at = now
            self._yield(now, achieved_bytes_s)
            self._suspected = sent

    def _needed(self, now: float) -> int:
        """How many long round trips in a row make us yield."""
        is_wary = len(self._alarms) == FALSE_ALARMS and now - self._alarms[0] < FALSE_ALARM_MEMORY_S
        return 2 if is_wary else 1

    # Yielding and coming back.

    def _yield(self, now: float, achieved_bytes_s: int) -> None:
        if self._state is not State.RECOVERING:
            self._former, self._former_achieved = self._rate, achieved_bytes_s
        self._rate = self.link.floor_bytes_s
        self._change(State.YIELDING, now)

    def _recover(self, now: float) -> None:
        if self._quiet < QUIET_SAMPLES:
            return
        is_alarm_false = self._loud < 2
        if not is_alarm_false and now - self._loud_at < HOLD_S:
            return
        if is_alarm_false:
            self._alarms.append(now)
        self._suspected = None
        whole = self._former or self.link.link_bytes_s or self._former_achieved
        self._rate = max(self.link.floor_bytes_s, whole // 2)
        self._loud = 0
        self._change(State.RECOVERING, now)

    def _finish_recovery(self, now: float) -> None:
        if now - self._decided_at >= RECOVERY_S and self._quiet:
            self._rate = self._former
            self._change(State.FREE if self._rate is None else State.HELD, now)

    # The slow loop.

    def _regulate(self, now: float, achieved_bytes_s: int) -> None:
        fresh = [excess for at, excess in self._recent if now - at <= RECENT_S]
        bloated = sum(excess > self.link.bloat_s for excess in fresh)
        if bloated >= 2:
            if now - self._decided_at >= REFRACTORY_S:
                self._decrease(now, achieved_bytes_s)
            return
        if self._rate is None or not self._quiet:
            return
        if self._used_at is None or achieved_bytes_s >= self._rate * LOAD:
            self._used_at = now
        if now - self._used_at >= RELEASE_S:
            self._release(now)
        elif achieved_bytes_s >= self._rate * LOAD and now - self._decided_at >= REFRACTORY_S:
            self._increase(now)

    def _decrease(self, now: float, achieved_bytes_s: int) -> None:
        before = achieved_bytes_s if self._rate is None else min(self._rate, achieved_bytes_s)
        if self.link.cap_bytes_s:
            before = min(before, self.link.cap_bytes_s)
        self._rate = max(self.link.floor_bytes_s, int(before * DECREASE))
        self._change(State.HELD, now)

    def _increase(self, now: float) -> None:
        assert self._rate is not None  # noqa: S101  Only a limit is raised.
        rate = int(self._rate * INCREASE) + 1
        link, cap = self.link.link_bytes_s, self.link.cap_bytes_s
        if (link and rate >= link * RELEASE_ABOVE) or (cap and rate >= cap):
            self._release(now)
        else:
            self._rate, self._decided_at = rate, now

    def _release(self, now: float) -> None:
        self._rate = None
        self._change(State.FREE, now)

    def _change(self, state: State, now: float) -> None:
        """What was measured belongs to the state before."""
        self._state = state
        self._decided_at = now
        self._used_at = None
        self._quiet = 0
        self._recent.clear()

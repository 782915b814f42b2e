"""The governor: gets out of the way when somebody else's traffic shows (SPEC 10.5).

Every packet of ours tells how long others' packets held it up (`swarm.relay.delays`). So one is evidence enough:

- **Yield.** Held up by others for longer than the jitter of an honest link: somebody's page. We stop at once; probes of
  a few bytes go on telling. When one comes through unhindered, and none was held up for a moment, all is as before. A
  bulk download by the public gets all but a floor.
- **Guess nothing.** Where the link's rate isn't known, our own queue can't be told from others'; uTP alone gives way.
- **Learn.** A link that has become slower looks the same: its packets take longer than its known rate explains. But
  then each return is followed by another yield within seconds. After three of these we stay for a while and see what
  comes: uTP alone gives way to others and gets next to nothing beside them, but all of a link that is only slow. What
  it gets then is the link's rate from now on, and rises as long as no queue builds up, faster and faster.

It is a function of what it is given: no clock, no sockets.
"""

from __future__ import annotations

import enum
from collections import deque
from dataclasses import dataclass

from cuntong_protocol.texts import N_, Sentence, sentence

from .target_delay import serialisation_s

ASSUMED_LINK_BYTES_S = 64_000
"""512 kbit/s, the thinnest link the programme allows: it gives the widest thresholds."""
JITTER_S = 0.03
"""Beyond queues: interleaving on copper, air time on radio, a busy PC."""
HARD_PACKETS = 2
"""And two packets (47 ms at 512 kbit/s), which may be anything: a page's first burst is ten."""
FLOOR_AFTER_S = 10.0
"""A page is over by then. Whoever uses the link for longer leaves us a little, or nothing would ever come by day."""
FLOOR_SHARE = 0.06
HOLD_S = 0.1
"""After the last packet that was held up: two probes that nobody held up."""
SILENT_S = 3.0
"""Nothing of ours came for so long: what it would tell has to be asked for anew."""
ALARMS = 3
ALARMS_WITHIN_S = 8.0
"""So many returns and yields in that time, and it isn't pages."""
LEARN_S = 3.0
LEAST_SHARE = 0.3
"""Less of the link's rate is what uTP gets beside others."""
GROWTH_PER_S, MOST_GROWTH_PER_S = 0.03, 0.24
"""Used or not, and twice as much each second until a queue shows: a rate that was learnt by mistake is forgotten in
seconds, and one that is too high queues."""
SHRINK_PER_S = 0.97
QUEUE_PACKETS = 0.75
"""A standing queue of more: the learnt rate is too high."""
LONG_YIELD_S = 2.0


class State(enum.Enum):
    """What the governor is doing."""

    FREE = "free"
    YIELDING = "yielding"
    LEARNING = "learning"


@dataclass(frozen=True, slots=True)
class Decision:
    """What may be moved.

    Attributes:
        rate_bytes_s: None for all that the link carries, 0 for nothing.
        link_bytes_s: What it carries by now; 0: not known.
        state: For programs.
        reason: For people.
    """

    rate_bytes_s: int | None
    link_bytes_s: int
    state: State
    reason: Sentence


_REASONS = {
    State.FREE: sentence("governor.free", N_("Nobody else's traffic shows on the link.")),
    State.YIELDING: sentence("governor.yielding", N_("Somebody else is using the link.")),
    State.LEARNING: sentence(
        "governor.learning", N_("The link seems slower than it was; its rate is measured.")
    ),
}


class Governor:
    """One direction of one link. It starts free."""

    def __init__(self, link_bytes_s: int = 0) -> None:
        self._known = link_bytes_s
        self._learnt = 0
        self._state = State.FREE
        self._since = float("-inf")
        self._hold_s = HOLD_S
        self._loud_at = float("-inf")
        self._heard_at = float("-inf")
        self._alarms: deque[float] = deque(maxlen=ALARMS)
        self._arrived = 0
        self._grown_at = float("-inf")
        self._growth = GROWTH_PER_S

    @property
    def link_bytes_s(self) -> int:
        """What the link carries: as known, or as learnt since."""
        return self._learnt or self._known

    @property
    def packet_s(self) -> float:
        """How long a full packet takes."""
        return serialisation_s(self.link_bytes_s or ASSUMED_LINK_BYTES_S)

    @property
    def hard_s(self) -> float:
        """Held up by others for longer than this: somebody uses the link."""
        return JITTER_S + HARD_PACKETS * self.packet_s

    @property
    def floor_bytes_s(self) -> int:
        """What is left to us while others use the link for long."""
        return int((self.link_bytes_s or ASSUMED_LINK_BYTES_S) * FLOOR_SHARE)

    def know(self, link_bytes_s: int) -> None:
        """The configured or measured rate; another one makes what was learnt void. 0: not known."""
        if link_bytes_s != self._known:
            self._known, self._learnt = link_bytes_s, 0

    def packet(self, now: float, size: int, foreign_s: float) -> None:
        """A packet of ours has come.

        Args:
            now: Monotonic seconds.
            size: Bytes on the wire.
            foreign_s: How long others' packets held it up.
        """
        self._heard_at = now
        self._arrived += size
        if not self._known:
            return
        if foreign_s > self.hard_s:
            self._loud_at = now
            if self._state is State.FREE:
                self._yield(now)
        elif self._state is State.YIELDING and now - self._loud_at >= self._hold_s:
            self._enter(State.FREE, now)

    def step(self, now: float, *, queue_s: float) -> Decision:
        """Decide anew; after every packet, and at least once a second.

        Args:
            now: Monotonic seconds.
            queue_s: What of our own stands before each packet of ours.
        """
        if self._state is State.LEARNING and now - self._since >= LEARN_S:
            self._learn(now)
        elif self._state is State.YIELDING and now - max(self._heard_at, self._since) >= SILENT_S:
            self._enter(State.FREE, now)
        if self._learnt and self._state is State.FREE and now - self._grown_at >= 1.0:
            self._follow(now, queue_s)
        rate: int | None = None
        if self._state is State.YIELDING:
            rate = self.floor_bytes_s if now - self._since >= FLOOR_AFTER_S else 0
        return Decision(rate, self.link_bytes_s, self._state, _REASONS[self._state])

    def _yield(self, now: float) -> None:
        is_slow = len(self._alarms) == ALARMS and now - self._alarms[0] < ALARMS_WITHIN_S
        if is_slow:
            self._alarms.clear()
            self._enter(State.LEARNING, now)
            return
        self._alarms.append(now)
        self._hold_s = HOLD_S
        self._enter(State.YIELDING, now)

    def _learn(self, now: float) -> None:
        seen = int(self._arrived / (now - self._since))
        if seen >= self._known * LEAST_SHARE:
            self._learnt, self._growth = min(seen, self._known), GROWTH_PER_S
            self._enter(State.FREE, now)
            return
        self._enter(State.YIELDING, now)
        self._hold_s = LONG_YIELD_S

    def _follow(self, now: float, queue_s: float) -> None:
        """Move the learnt rate to where the link is by now."""
        self._grown_at = now
        if queue_s > QUEUE_PACKETS * self.packet_s:
            self._learnt = int(self._learnt * SHRINK_PER_S)
            self._growth = GROWTH_PER_S
        else:
            self._learnt = int(self._learnt * (1 + self._growth)) + 1
            self._growth = min(2 * self._growth, MOST_GROWTH_PER_S)
            if self._learnt >= self._known:
                self._learnt = 0

    def _enter(self, state: State, now: float) -> None:
        self._state, self._since, self._arrived = state, now, 0

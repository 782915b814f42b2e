"""What may cross the link, applied (SPEC 10): the service between the policies and the swarm engine.

Once a second it asks the policies what holds (calendars of the configuration, the parent and a person; caps; target
delay; whether neighbours should help), moves the engine's limits there, and tells parent and children what they
should know. The governor of a shared link runs in the relay, packet by packet; here its state is only read.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

import trio

from cuntong_protocol.divisions import Division
from cuntong_protocol.link.messages import Bandwidth as Said
from cuntong_protocol.link.states import Role
from cuntong_protocol.texts import N_, Sentence, sentence

from .clock import NodeClock
from .config import Config
from .config_bandwidth import BYTES_PER_KBIT
from .control.messages import BandwidthStatus, ChildBandwidth, RateKnown
from .link.session import LinkSession
from .logs import get_logger
from .neighbours import Neighbours
from .policy.calendar import Calendar, Limit, Limits, Rule, Source, limits_at, said
from .policy.caps import Caps, child_cap, lowest, session_caps
from .policy.link_rate import Estimate, How, Interval, LinkRate
from .policy.ramp import ramp
from .policy.target_delay import TargetDelay, target_delay
from .policy.uplink import Receiver, Scarcity, Sharing, fair_shares, uplink_scarcity
from .said import PersonsLimits
from .swarm.engine import SwarmEngine

log = get_logger("bandwidth")

TICK_S = 1.0
CALENDAR_S = 30.0
"""The calendar is judged anew at least that often: clocks jump."""
_SHARED = sentence(
    "bandwidth.shared-out", N_("The uplink above is shared among all places that want something.")
)
_NOTHING = sentence("bandwidth.nothing", N_("No reason was given."))
SAY_CHANGE = 0.1
"""A neighbour is told when what it should know has changed by more than this."""
SHARE_CHANGE, LESS_CHANGE = 0.03, 0.005
"""Of a share of the uplink: no more than this upwards, or downwards, isn't told."""
BUSY_SHARE = 0.9
"""Of a limit: then it holds the transfer back."""


@dataclass(frozen=True, slots=True)
class _Heard:
    """What a neighbour said, and when (trio's clock)."""

    message: Said
    at: float

    def left_s(self, now: float) -> float | None:
        """For how long it still holds; None: as long as the control link."""
        return self.at + self.message.seconds - now if self.message.seconds else None

    def holds(self, now: float) -> bool:
        left = self.left_s(now)
        return left is None or left > 0


@dataclass(frozen=True, slots=True)
class ChildLink:
    """What is known of a child's link, and what it is held to."""

    code: Division
    cap: Limit
    is_paused: bool


class Bandwidth:
    """A service; see the module."""

    def __init__(
        self,
        config: Config,
        *,
        clock: NodeClock,
        engine: SwarmEngine,
        neighbours: Neighbours,
        person: PersonsLimits,
    ) -> None:
        self._section = config.bandwidth
        self._vpn_shape = config.node.vpn_shape
        self._clock = clock
        self._engine = engine
        self._neighbours = neighbours
        self.person = person
        own, below = config.bandwidth.calendar(), config.bandwidth.calendar(is_below=True)
        self._own, self._below = own, below
        tier = config.division.tier
        self._down_rate = LinkRate(tier, config.bandwidth.link_down_kbit_s * BYTES_PER_KBIT)
        self._up_rate = LinkRate(tier, config.bandwidth.link_up_kbit_s * BYTES_PER_KBIT)
        self._parent: tuple[LinkSession, _Heard] | None = None
        self._children: dict[Division, tuple[LinkSession, _Heard]] = {}
        self._limited: dict[str, int] = {}
        self._said: dict[LinkSession, Said] = {}
        self._wake = trio.Event()
        self._judged_at = float("-inf")
        self._set = (0, 0)
        self._moved = (0, 0, 0.0)
        self._rates = (0, 0)
        self._scarcity = Scarcity(False, _NOTHING)
        now = self._clock.now()
        self.limits: Limits = limits_at(now, [own])
        self.below: Limits = limits_at(now, [below])
        self._wanted_below = 0
        self._sharing = Sharing()
        self._shares: dict[Division, int] = {}
        self._parent_host = ""
        self.caps: Caps = self._caps()
        self.target: TargetDelay = target_delay([])
        self.children: tuple[ChildLink, ...] = ()

    # What others see.

    @property
    def down(self) -> Estimate:
        """What the link carries towards this node."""
        return self._down_rate.estimate(trio.current_time())

    @property
    def up(self) -> Estimate:
        """What it carries the other way."""
        return self._up_rate.estimate(trio.current_time())

    def status(self) -> BandwidthStatus:
        """What holds now, judged anew."""
        now, wall = trio.current_time(), self._clock.now()
        self._judge(wall, now)
        limits, relay = self.limits, self._engine.relay
        down, up = self.down, self.up
        caps = self._caps()
        return BandwidthStatus(
            link_down_kbit_s=down.bytes_s // BYTES_PER_KBIT,
            link_down_how=_known(down),
            link_down_reason=down.reason,
            link_up_kbit_s=up.bytes_s // BYTES_PER_KBIT,
            link_up_how=_known(up),
            link_up_reason=up.reason,
            limit_down_kbit_s=caps.down.bytes_s // BYTES_PER_KBIT,
            limit_down_reason=self._why(caps.down) if caps.down.bytes_s else None,
            limit_up_kbit_s=caps.up.bytes_s // BYTES_PER_KBIT,
            limit_up_reason=caps.up.reason if caps.up.bytes_s else None,
            is_paused=limits.is_paused,
            pause_reason=limits.reason if limits.is_paused else None,
            until=int(limits.until.timestamp()) if limits.until is not None else None,
            down_kbit_s=self._rates[0] // BYTES_PER_KBIT,
            up_kbit_s=self._rates[1] // BYTES_PER_KBIT,
            governor_state=relay.state.value if relay is not None else "off",
            governor_reason=relay.reason if relay is not None else None,
            target_delay_ms=self.target.ms,
            children=[
                ChildBandwidth(
                    code=child.code,
                    limit_kbit_s=child.cap.bytes_s // BYTES_PER_KBIT,
                    reason=child.cap.reason,
                    is_paused=child.is_paused,
                )
                for child in self.children
                if child.cap.bytes_s or child.is_paused
            ],
            contradiction=down.contradiction or up.contradiction,
        )

    def _why(self, limit: Limit) -> Sentence:
        """The reason of a limit downwards: the parent may have said more than that it limits."""
        heard = self._parent[1].message.reason if self._parent is not None else None
        is_shared_out = heard is not None and heard.code == _SHARED.code
        is_parents = limit.reason.code == "limits.parent"
        return _SHARED if is_parents and is_shared_out else limit.reason

    # What others tell.

    def look(self) -> None:
        """Something has changed: judge now."""
        self._judged_at = float("-inf")
        self._wake.set()

    def on_child(self, session: LinkSession) -> None:
        """A child is connected: its address gets a limit of its own before BitTorrent meets it."""
        self._engine.limit_host(
            session.peer_host, self._section.up_kbit_s_per_child * BYTES_PER_KBIT
        )
        self.look()

    def on_parent(self, session: LinkSession) -> None:
        """A parent is connected, and wants to know what this link carries."""
        self._parent = None
        self.look()

    def on_said(self, peer: LinkSession, message: Said) -> None:
        """A neighbour says what may cross the link between us."""
        heard = _Heard(message, trio.current_time())
        if peer.peer_role is Role.PARENT:
            self._parent = (peer, heard)
        else:
            self._children[peer.peer_code] = (peer, heard)
        self.look()

    # Running.

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Run until cancelled."""
        self._apply(trio.current_time(), TICK_S)
        task_status.started()
        before = trio.current_time()
        while True:
            with trio.move_on_after(TICK_S):
                await self._wake.wait()
            self._wake = trio.Event()
            now = trio.current_time()
            self._measure(now)
            self._apply(now, now - before)
            before = now

    def _measure(self, now: float) -> None:
        totals = self._engine.totals
        down, up, at = self._moved
        seconds = now - at
        if seconds < TICK_S * 0.9:
            return
        moved_down, moved_up = totals.down_wire - down, totals.up_wire - up
        self._moved = (totals.down_wire, totals.up_wire, now)
        if not at:
            return
        self._rates = (int(moved_down / seconds), int(moved_up / seconds))
        relay = self._engine.relay
        if relay is None or not self._rates[0]:
            return
        held = relay.rate_down_bytes_s
        self._down_rate.add(
            Interval(
                at=now,
                seconds=seconds,
                bytes_moved=moved_down,
                is_limited_by_us=bool(held and relay.down_bytes_s >= held * BUSY_SHARE),
                is_delay_rising=relay.queue_s >= self.target.ms / 1000,
            )
        )

    def _apply(self, now: float, elapsed_s: float) -> None:
        self._forget_strangers()
        wall = self._clock.now()
        until = self.limits.until
        if now - self._judged_at >= CALENDAR_S or (until is not None and wall >= until):
            self._judged_at = now
            self._judge(wall, now)
        down, up = self.down, self.up
        caps = self.caps = self._caps()
        if caps.is_paused != self._engine.is_paused:
            (self._engine.pause if caps.is_paused else self._engine.resume)()
        self._set = (
            self._step(self._set[0], caps.down.bytes_s, self._rates[0], elapsed_s),
            self._step(self._set[1], caps.up.bytes_s, self._rates[1], elapsed_s),
        )
        # Where the rate is a guess, our own queue can't be told from others': then only uTP gives way.
        known = down.bytes_s if down.how is How.CONFIGURED else 0
        parent = self._neighbours.parent
        if parent is not None and parent.peer_host:
            self._parent_host = parent.peer_host
        self._engine.set_link(down_bytes_s=known, parent=self._parent_host)
        self._engine.set_limits(down_bytes_s=self._set[0], up_bytes_s=self._set[1])
        self._look_after_children(now, up, elapsed_s)
        self._tell(down, up)

    def _caps(self) -> Caps:
        up = self.up
        return session_caps(
            self.limits,
            is_shared=self._section.shared,
            link_up_bytes_s=up.bytes_s,
            # A guess that limits itself would never rise.
            wanted_below_bytes_s=self._wanted_below if up.how is How.CONFIGURED else 0,
        )

    def _step(self, current: int, target: int, achieved: int, elapsed_s: float) -> int:
        if self._section.shared:
            return target  # The relay paces packet by packet: there is nothing to be smoothed.
        step = ramp(current, target, achieved_bytes_s=achieved, elapsed_s=elapsed_s)
        return step.limit_bytes_s

    def _judge(self, wall: datetime, now: float) -> None:
        calendars = [self._own, *self.person.calendars(wall)]
        if self._parent is not None and self._parent[1].holds(now):
            calendars.append(_calendar(self._parent[1], wall, now))
        self.limits = limits_at(wall, calendars)
        self.below = limits_at(wall, [self._below])

    def _forget_strangers(self) -> None:
        if self._parent is not None and self._neighbours.parent is not self._parent[0]:
            self._parent = None
            self._judged_at = float("-inf")
        connected = self._neighbours.children
        for code, (session, _) in list(self._children.items()):
            if code not in connected or connected[code].session is not session:
                del self._children[code]
        for session in [one for one in self._said if not one.is_open]:
            del self._said[session]

    def _look_after_children(self, now: float, up: Estimate, elapsed_s: float) -> None:
        rates: list[int] = [up.bytes_s] if self._section.shared else []
        receivers: dict[Division, Receiver] = {}
        limited: dict[str, int] = {}
        children: list[ChildLink] = []
        for code, child in self._neighbours.children.items():
            told: Limit | None = None
            is_paused = self.below.is_paused
            found = self._children.get(code)
            if found is not None:
                message = found[1].message
                rates.append(message.link_down_bytes_s)
                if message.link_down_bytes_s and child.wants:
                    receivers[code] = Receiver(
                        message.link_down_bytes_s,
                        message.link_up_bytes_s or message.link_down_bytes_s,
                    )
                if found[1].holds(now):
                    is_paused = is_paused or message.is_paused
                    if message.limit_down_bytes_s:
                        told = Limit(message.limit_down_bytes_s, message.reason or _NOTHING)
            cap = child_cap(self.below, told)
            children.append(ChildLink(code, cap, is_paused))
            limited[child.session.peer_host] = cap.bytes_s
        for host in self._limited.keys() - limited.keys():
            self._engine.limit_host(host, None)
        for host, bytes_s in limited.items():
            self._engine.limit_host(host, bytes_s)
        self._limited = limited
        self.children = tuple(children)
        self._wanted_below = sum(receiver.down_bytes_s for receiver in receivers.values())
        self.target = target_delay(rates)
        self._engine.set_target_delay(self.target.ms)
        self._scarcity = uplink_scarcity(
            up.bytes_s,
            list(receivers.values()),
            vpn_shape=self._vpn_shape,
            was_scarce=self._scarcity.is_scarce,
        )
        self._neighbours.set_uplink_scarce(is_scarce=self._scarcity.is_scarce)
        self._share_out(up, receivers, elapsed_s)
        self._neighbours.settle(now)

    def _share_out(
        self, up: Estimate, receivers: Mapping[Division, Receiver], elapsed_s: float
    ) -> None:
        """What each place below may take of an uplink that is too thin for all, unless they help each other."""
        is_too_thin = up.how is How.CONFIGURED and 0 < up.bytes_s < self._wanted_below
        # What a place is told holds for what its siblings send it, too.
        if not is_too_thin or any(self._neighbours.trades(code) for code in receivers):
            self._sharing, self._shares = Sharing(), {}
            return
        if self.caps.is_paused:
            return
        budget = self._sharing.step(
            up.bytes_s, self.caps.up.bytes_s, self._rates[1], len(receivers), elapsed_s
        )
        wanted = [receiver.down_bytes_s for receiver in receivers.values()]
        shares = {
            code: max(1, share)  # 0 would be no limit.
            for code, share in zip(receivers, fair_shares(budget, wanted), strict=True)
        }
        for code, before in self._shares.items():
            if code in shares and -LESS_CHANGE <= shares[code] / before - 1 <= SHARE_CHANGE:
                shares[code] = before
        self._shares = shares

    # Telling.

    def _tell(self, down: Estimate, up: Estimate) -> None:
        parent = self._neighbours.parent
        if parent is not None:
            limits = self.limits
            # The relay holds a limit to the packet; the parent's would only come in lumps on top.
            is_held_here = self._engine.relay is not None
            self._say(
                parent,
                Said(
                    down.bytes_s,
                    up.bytes_s,
                    0 if is_held_here else limits.down.bytes_s,
                    0 if is_held_here else limits.up.bytes_s,
                    limits.is_paused,
                    0,
                    limits.reason,
                ),
            )
        below = self.below
        for code, child in self._neighbours.children.items():
            most = lowest([below.down, Limit(self._shares.get(code, 0), _SHARED)])
            reason = _SHARED if most.reason is _SHARED and not below.is_paused else below.reason
            is_limited = below.is_paused or most.bytes_s or below.up.bytes_s
            if is_limited or child.session in self._said:
                self._say(
                    child.session,
                    Said(0, 0, most.bytes_s, below.up.bytes_s, below.is_paused, 0, reason),
                )

    def _say(self, session: LinkSession, message: Said) -> None:
        before = self._said.get(session)
        if session.is_open and (before is None or _is_news(before, message)):
            self._said[session] = message
            session.say_bandwidth(message)


def _known(estimate: Estimate) -> RateKnown:
    if estimate.how is How.UNKNOWN:
        return "assumed" if estimate.bytes_s else "unknown"
    return "configured" if estimate.how is How.CONFIGURED else "measured"


def _calendar(heard: _Heard, wall: datetime, now: float) -> Calendar:
    message = heard.message
    rule = Rule(message.limit_down_bytes_s, message.limit_up_bytes_s, message.is_paused)
    return said(Source.PARENT, rule, now=wall.astimezone(UTC), seconds=heard.left_s(now))


def _is_news(before: Said, after: Said) -> bool:
    if (before.is_paused, before.limit_down_bytes_s, before.limit_up_bytes_s) != (
        after.is_paused,
        after.limit_down_bytes_s,
        after.limit_up_bytes_s,
    ):
        return True
    pairs = (
        (before.link_down_bytes_s, after.link_down_bytes_s),
        (before.link_up_bytes_s, after.link_up_bytes_s),
    )
    return any(abs(one - other) > SAY_CHANGE * max(one, 1) for one, other in pairs)

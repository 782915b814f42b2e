"""The model a second time, plain and slow, as `MODEL.md` says it: what the compiled one is judged by.

It asks the daemon's policies for each class and hour, and where they depend on the network for each place and step,
instead of reading tables, and shares links out by progressive filling. It suits some hundred places.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta

import numpy as np

from cuntong_daemon.policy.calendar import Calendar, Rule, Source, limits_at
from cuntong_daemon.policy.caps import session_caps
from cuntong_daemon.policy.eviction import Held, evict
from cuntong_daemon.policy.peers import CIRCLES, may_trade
from cuntong_daemon.policy.repair import Repair
from cuntong_daemon.policy.repair import Source as RepairSource
from cuntong_daemon.policy.selection import Candidate, NodeProfile, judge, select
from cuntong_daemon.policy.uplink import Receiver, uplink_scarcity
from cuntong_protocol.bundle.metadata import Audience, Licence
from cuntong_protocol.divisions import NATION, TIER_LABELS, Division
from cuntong_simulations.scenario.calendars import ALWAYS, windows_of
from cuntong_simulations.scenario.scenario import Calibration, Disks, Scenario, Tier

from .chance import chance
from .country import Bundles, Country, SiteClass
from .filling import progressive_filling
from .outcome import CARRIERS, CAUSES, Outcome
from .parcel import Parcel
from .sky import Sky

Links = Mapping[tuple[int, int], float]
"""By place, and 1 for its uplink or 0 for its downlink."""
HOUR_S, DAY_S = 3600.0, 86400.0
WEEK_HOURS = 168
DONE = 1 - 1e-9
NEARLY = 1 - 1e-9
TRANSIT_DRAW, LOSS_DRAW = 1 << 33, 1 << 34
MOST_ATTEMPTS = 64
_A_MONDAY = datetime(2024, 1, 1, tzinfo=UTC)
_PLACES = [
    Division(("110101001001"[:digits]).ljust(12, "0")) for digits in (0, 2, 4, 6, 9, 12)
]  # fmt: skip
"""A place of each tier, for policies that only look at the tier."""


def run_reference(
    scenario: Scenario,
    country: Country,
    bundles: Bundles,
    *,
    calibration: Calibration,
    sky: Sky | None = None,
    parcels: Sequence[Parcel] | None = None,
) -> Outcome:
    """Compute a run.

    Args:
        scenario: What is run.
        country: Its places.
        bundles: What is published.
        calibration: All its values are given.
        sky: With a satellite.
        parcels: What leaves by post; None: what the scenario says.
    """
    began = time.perf_counter()
    model = _Model(scenario, country, bundles, calibration, sky)
    model.send(
        scenario_parcels(scenario, country, bundles, model.wanted) if parcels is None else parcels
    )
    for step in range(model.steps):
        model.step(step)
    return model.outcome(time.perf_counter() - began)


# Section 2: what links carry, by the policies.


def link_hours(
    scenario: Scenario, tier: Tier, site: SiteClass, calibration: Calibration
) -> tuple[list[float], list[float], list[float]]:
    """By hour of the week, 0 is Monday 00:00: bytes/s down, bytes/s up, the share in which the computer is on."""
    public = Rule(is_paused=True)
    if tier.public_share < 1:
        left = 1 - tier.public_share
        public = Rule(int(site.down_bytes_s * left), int(site.up_bytes_s * left))
        if not (public.down_bytes_s and public.up_bytes_s):
            public = Rule(is_paused=True)  # 0 would be no limit.
    closed = Rule(is_paused=True)
    own = Calendar(
        Source.OWN,
        UTC,
        windows=(
            *windows_of(scenario, tier.public, public),
            *windows_of(scenario, tier.pause, closed),
        ),
    )
    # Paused is what tells that a moment lies in one of these windows.
    allowed = Calendar(Source.OWN, UTC, windows=windows_of(scenario, tier.window or ALWAYS, closed))
    is_on = Calendar(Source.OWN, UTC, windows=windows_of(scenario, tier.on, closed))
    best, thin = given(calibration.efficiency), given(calibration.thin)
    goodput, goodput_up = (
        best * rate**2 / (rate**2 + thin**2) if rate else 0.0
        for rate in (site.down_bytes_s, site.up_bytes_s)
    )
    down, up, on = [0.0] * WEEK_HOURS, [0.0] * WEEK_HOURS, [0.0] * WEEK_HOURS
    now, end = _A_MONDAY, _A_MONDAY + timedelta(days=7)
    found = [(limits_at(now, [calendar]), calendar) for calendar in (own, allowed, is_on)]
    while now < end:
        found = [
            (limits_at(now, [calendar]) if limits.until == now else limits, calendar)
            for limits, calendar in found
        ]
        (limits, _), (may, _), (runs, _) = found
        following = min([end, *(each.until for each, _ in found if each.until is not None)])
        caps = session_caps(
            limits, is_shared=bool(tier.public), link_up_bytes_s=int(site.up_bytes_s)
        )
        is_open = runs.is_paused and may.is_paused and not caps.is_paused
        while now < following:
            part_ends = min(following, _next_hour(now))
            share = (part_ends - now).total_seconds() / HOUR_S
            hour = int((now - _A_MONDAY).total_seconds() // HOUR_S)
            on[hour] += share * runs.is_paused
            if is_open:
                down[hour] += share * goodput * _capped(site.down_bytes_s, caps.down.bytes_s)
                up[hour] += share * goodput_up * _capped(site.up_bytes_s, caps.up.bytes_s)
            now = part_ends
    return down, up, on


def _next_hour(now: datetime) -> datetime:
    return now.replace(minute=0) + timedelta(hours=1)


def _capped(rate_bytes_s: float, limit_bytes_s: int) -> float:
    return min(rate_bytes_s, limit_bytes_s) if limit_bytes_s else rate_bytes_s


def given(value: float | None) -> float:
    """A parameter that has to be there."""
    if value is None:
        raise ValueError("the reference needs all parameters")
    return float(value)


# Section 3: who wants what, by the policies.


@dataclass(frozen=True, slots=True)
class Choice:
    """What the places of a class want.

    Attributes:
        wants: By bundle, wherever it was published.
        is_own: By bundle: for itself, not only for places below.
        order: Bundles that are wanted, the first in the queue first.
    """

    wants: list[bool]
    is_own: list[bool]
    order: list[int]


def choose(scenario: Scenario, site: SiteClass, bundles: Bundles) -> Choice:
    """What a place of this class wants, and in what order."""
    tier = _tier_of(scenario, site)
    profile = NodeProfile(_PLACES[site.tier])
    if site.subscription >= 0:
        chosen = tier.subscriptions[site.subscription]
        profile = NodeProfile(
            _PLACES[site.tier],
            tuple(chosen.categories),
            tuple(chosen.languages),
            tuple(chosen.groups),
        )
    today = scenario.run.start
    candidates = [
        _candidate(scenario, bundles, number, site.tier) for number in range(len(bundles.size))
    ]
    judged = [judge(one, profile, is_ordered=False, today=today) for one in candidates]
    decisions = select(candidates, profile, (), quota_bytes=0, today=today)
    numbers = {one.id: number for number, one in enumerate(candidates)}
    return Choice(
        wants=[is_wanted for is_wanted, _ in judged],
        is_own=[reason.code in ("selection.own", "selection.audience") for _, reason in judged],
        order=[numbers[decision.id] for decision in decisions if decision.wanted],
    )


def _candidate(scenario: Scenario, bundles: Bundles, number: int, tier: int) -> Candidate:
    release = scenario.releases[int(bundles.release[number])]
    deadline_s = float(bundles.deadline_s[number, tier])
    size = int(bundles.size[number])
    return Candidate(
        id=bundles.names[number],
        publisher=NATION,
        category=release.category,
        languages=tuple(release.languages),
        audience=Audience(tiers=tuple(release.tiers), groups=tuple(release.groups)),
        licence=Licence(),
        priority=int(bundles.priority[number]),
        size_bytes=size,
        remaining_bytes=size,
        deadline=None if math.isnan(deadline_s) else _day_of(scenario, deadline_s),
    )


def _day_of(scenario: Scenario, at_s: float) -> date:
    return scenario.run.start + timedelta(days=int(at_s // DAY_S))


def _tier_of(scenario: Scenario, site: SiteClass) -> Tier:
    return next(tier for tier in scenario.tiers if tier.tier == TIER_LABELS[site.tier])


# Section 7: what is sent by post.


def scenario_parcels(
    scenario: Scenario, country: Country, bundles: Bundles, is_wanted: Callable[[int, int], bool]
) -> list[Parcel]:
    """What `disks.releases` make, with the departure that has each order's last disk."""
    disks = scenario.disks
    if disks is None:
        return []
    tiers = [TIER_LABELS.index(tier) for tier in disks.to]
    orders = []
    for number, release in enumerate(scenario.releases):
        if release.name not in disks.releases:
            continue
        for node in range(country.node_count):
            chosen = tuple(
                b
                for b in range(len(bundles.size))
                if bundles.release[b] == number and is_wanted(node, b)
            )
            if country.tier[node] in tiers and chosen:
                orders.append((release.day, node, number, chosen))
    return _posted(sorted(orders), country, disks, bundles)


def _posted(
    orders: Iterable[tuple[int, int, int, tuple[int, ...]]],
    country: Country,
    disks: Disks,
    bundles: Bundles,
) -> list[Parcel]:
    """A batch is filled disk by disk: `taken` of those of a departure, and of all after it, are gone."""
    found: list[Parcel] = []
    begun, taken = 0, 0.0
    for day, node, _release, chosen in orders:
        if not disks.batch:
            break
        departure = begun + _before(taken, disks.batch)
        first = math.ceil(day * DAY_S / disks.leave)
        if departure < first:
            begun, taken, departure = first, 0.0, first
        needed = math.ceil(sum(float(bundles.size[b]) for b in chosen) / disks.size)
        weight = float(country.weight[node])
        middle = begun + _before(taken + needed * (weight + 1) / 2, disks.batch)
        taken += needed * weight
        found.append(Parcel(node, chosen, middle * disks.leave))
    return found


def _before(taken: float, batch: int) -> int:
    """How many whole batches go before the one that has the last of so many disks."""
    return max(0, math.ceil((taken - 1e-9) / batch) - 1)


@dataclass(slots=True)
class _Copying:
    """A parcel that will be copied in from a time on."""

    node: int
    bundles: tuple[int, ...]
    from_s: float


# Section 5: who gives in a swarm.


@dataclass(slots=True)
class _Offer:
    """A child's uplink for its siblings.

    Attributes:
        left: Bytes.
        near: Connections to siblings among which it was split.
        beside: Connections that have the rest.
    """

    left: float
    near: float
    beside: float


_ABOVE, _BELOW = -1, -2
"""Ends of connections that are none of the group's children."""


def _rest(left: float, taken: float) -> float:
    """What is left; a rounding error isn't."""
    return left - taken if left - taken > left * 1e-12 else 0.0


def _over_connections(
    up: float,
    given: Mapping[int, float],
    first: Mapping[int, float],
    offers: Mapping[int, _Offer],
    count: Mapping[int, float],
    reach: float,
) -> tuple[float, dict[int, float]]:
    """What comes from above, and from each child, of what the children are given: max-min among connections."""
    firsts = progressive_filling(
        {"above": up}, list(first.values()), [{"above": count[node]} for node in first]
    )
    above = sum(came * count[node] for node, came in zip(first, firsts, strict=True))
    room = {("from", _ABOVE): up - above}
    ways: dict[tuple[int, int], dict[tuple[str, int], float]] = {}
    for (taker, share), came in zip(given.items(), firsts, strict=True):
        room["to", taker] = share - came
        if share <= came:
            continue
        ways[_ABOVE, taker] = {("from", _ABOVE): count[taker], ("to", taker): 1.0}
        for giver in offers:
            alike = float(taker == giver)
            if count[taker] - alike > 1e-12:
                ways[giver, taker] = {
                    ("from", giver): reach * (count[taker] - alike),
                    ("to", taker): reach * (count[giver] - alike),
                }
    for giver, offer in offers.items():
        room["from", giver] = offer.left * (offer.near + offer.beside) / offer.near
        if offer.beside:
            ways[giver, _BELOW] = {("from", giver): offer.beside}
    rates = progressive_filling(room, [math.inf] * len(ways), list(ways.values()))
    used = dict.fromkeys(offers, 0.0)
    for ((giver, taker), way), rate in zip(ways.items(), rates, strict=True):
        if giver == _ABOVE:
            above += rate * count[taker]
        elif taker != _BELOW:
            used[giver] += rate * way["from", giver]
    # A child's own uplink counts in what all are given; what only that could carry comes from what the others have left.
    total = sum(share * count[node] for node, share in given.items())
    pool = up + sum(count[node] * offer.left for node, offer in offers.items())
    carried = above + sum(count[node] * part for node, part in used.items())
    part = max(0.0, total - carried) / (pool - carried)
    used = {node: came + (offers[node].left - came) * part for node, came in used.items()}
    return above + (up - above) * part, used


# Section 4: the steps.


class _Model:
    """The state of a run."""

    def __init__(
        self,
        scenario: Scenario,
        country: Country,
        bundles: Bundles,
        calibration: Calibration,
        sky: Sky | None,
    ) -> None:
        self._scenario, self._country, self._bundles, self._sky = scenario, country, bundles, sky
        self._startup = given(calibration.startup)
        self._eta, self._phi = given(calibration.eta), given(calibration.phi)
        self._dt = float(scenario.run.step)
        self._policy = scenario.run.policy
        self.steps = round(scenario.run.days * DAY_S / self._dt)
        self._nodes, self._numbers = range(country.node_count), range(len(bundles.size))
        self._sites = [country.classes[int(number)] for number in country.node_class]
        self._class_of = [int(number) for number in country.node_class]
        self._parent = [int(number) for number in country.parent]
        self._weight = [float(weight) for weight in country.weight]
        self._children: list[list[int]] = [[] for _ in self._nodes]
        for node in self._nodes[1:]:
            self._children[self._parent[node]].append(node)
        self._hub = self._hubs()
        tiers = [_tier_of(scenario, site) for site in country.classes]
        self._hours = [
            link_hours(scenario, tier, site, calibration)
            for tier, site in zip(tiers, country.classes, strict=True)
        ]
        self._off_days = [float(tier.off_days) for tier in tiers]
        self._choices = [choose(scenario, site, bundles) for site in country.classes]
        self._size = [float(size) for size in bundles.size]
        self._publisher = [int(node) for node in bundles.publisher]
        self._wants = [[self._is_for(node, b) for b in self._numbers] for node in self._nodes]
        self._have = [[0.0 for _ in self._numbers] for _ in self._nodes]
        self._done_s = [[math.nan for _ in self._numbers] for _ in self._nodes]
        self._is_evicted = [[False for _ in self._numbers] for _ in self._nodes]
        self._missed = [[0.0 for _ in self._numbers] for _ in self._nodes]
        self._startup_left = [[self._startup for _ in self._numbers] for _ in self._nodes]
        self._fresh: dict[tuple[int, int], float] = {}
        self._copying: list[_Copying] = []
        classes, days = len(country.classes), scenario.run.days
        self._carried = np.zeros((classes, len(CARRIERS), days))
        self._link_bytes = np.zeros((classes, 2, days))
        self._link_room = np.zeros((classes, 2, days))
        self._provinces = sorted({0, *(int(node) for node in country.province)})
        self._held_back = np.zeros((len(self._provinces), classes, len(CAUSES)))

    def wanted(self, node: int, bundle: int) -> bool:
        return self._wants[node][bundle]

    def send(self, parcels: Sequence[Parcel]) -> None:
        """Put parcels into the post: with transit, and again what is lost."""
        disks = self._scenario.disks
        if disks is None:
            return
        orders = [0 for _ in self._nodes]
        for parcel in parcels:
            order, leaves = orders[parcel.node], parcel.leaves_s
            orders[parcel.node] += 1
            for attempt in range(MOST_ATTEMPTS):
                draw = 64 * order + attempt
                if self._chance(parcel.node, LOSS_DRAW + draw) >= disks.lost:
                    spread = disks.transit_most - disks.transit_least
                    transit = (
                        disks.transit_least
                        + self._chance(parcel.node, TRANSIT_DRAW + draw) * spread
                    )
                    self._copying.append(_Copying(parcel.node, parcel.bundles, leaves + transit))
                    break
                leaves += disks.notice

    def step(self, number: int) -> None:
        """Section 4, in its order."""
        dt = self._dt
        begins = number * dt
        self._day = int(begins // DAY_S)
        self._begins = begins
        week_hour = (self._scenario.run.start.weekday() * 24 + int(begins // HOUR_S)) % WEEK_HOURS
        self._set_links(week_hour)
        self._release()
        before = [list(row) for row in self._have]
        self._got_link = [0.0 for _ in self._nodes]
        self._could = [0.0 for _ in self._nodes]
        self._link_until: dict[tuple[int, int], float] = {}
        self._allowed = [self._with_room(node) for node in self._nodes]
        self._left_to_sky = self._choose_sky(number)
        self._receive(number)
        self._copy_in()
        waiting = {node: self._missing(node) for node in self._nodes}
        if self._policy == "star":
            self._share_star()
        else:
            for node in self._nodes:
                if self._hub[node] < 0:
                    self._share(node)
                elif self._hub[node] == node:
                    self._share_below_hub(node)
        self._note_done(before)
        self._note_held_back(waiting)
        if round((begins + dt) % DAY_S, 6) in (0.0, DAY_S):
            self._evict()

    # Links, places, wishes.

    def _hubs(self) -> list[int]:
        """The hub of each place: a hub is its own; -1: the VPN is a mesh there."""
        hubs = [-1 for _ in self._nodes]
        if self._scenario.vpn.shape == "mesh":
            return hubs
        tier = TIER_LABELS.index(self._scenario.vpn.hub)
        for node in self._nodes:
            if self._country.tier[node] == tier:
                hubs[node] = node
            elif node:
                hubs[node] = hubs[self._parent[node]]
        return hubs

    def _chance(self, node: int, draw: int) -> float:
        return float(chance(self._scenario.run.seed, int(self._country.identity[node]), draw))

    def _set_links(self, week_hour: int) -> None:
        self._down, self._up, self._listens = [], [], []
        self._is_on = [
            self._chance(node, self._day) >= self._off_days[self._class_of[node]]
            for node in self._nodes
        ]
        for node in self._nodes:
            kind = self._class_of[node]
            is_on = self._is_on[node]
            down, up, on = (hours[week_hour] if is_on else 0.0 for hours in self._hours[kind])
            self._down.append(down)
            self._up.append(up)
            self._listens.append(on if self._sites[node].has_dish else 0.0)
            weight = self._weight[node] * self._dt
            self._link_room[kind, 0, self._day] += down * weight
            self._link_room[kind, 1, self._day] += up * weight
        self._down_left = [rate * self._dt for rate in self._down]
        self._up_left = [rate * self._dt for rate in self._up]

    def _is_for(self, node: int, bundle: int) -> bool:
        """The class wants it, and the place lies below its publisher."""
        publisher, above = self._publisher[bundle], node
        while above >= 0 and above != publisher:
            above = self._parent[above]
        return above >= 0 and (
            node == publisher or self._choices[self._class_of[node]].wants[bundle]
        )

    def _is_released(self, bundle: int) -> bool:
        return float(self._bundles.released_s[bundle]) <= self._begins

    def _is_done(self, node: int, bundle: int) -> bool:
        return self._is_evicted[node][bundle] or (
            self._have[node][bundle] >= self._size[bundle] * DONE
        )

    def _missing(self, node: int) -> list[int]:
        """Released bundles that a place wants and hasn't done, in its order."""
        return [
            b
            for b in self._order(node)
            if self._wants[node][b] and self._is_released(b) and not self._is_done(node, b)
        ]

    def _order(self, node: int) -> list[int]:
        return self._choices[self._class_of[node]].order

    def _release(self) -> None:
        for b in self._numbers:
            node = self._publisher[b]
            if self._is_released(b) and math.isnan(self._done_s[node][b]):
                self._have[node][b] = self._size[b]
                self._done_s[node][b] = float(self._bundles.released_s[b])

    # Section 5: transfers.

    def _gets_here(self, node: int) -> list[int]:
        """What a place takes over the link in this step, if it can get it."""
        return [
            b
            for b in self._missing(node)
            if b in self._allowed[node] and (node, b) not in self._left_to_sky
        ]

    def _after_startup(
        self, node: int, bundle: int, amount: float, *, is_closed: bool = False
    ) -> float:
        """What can be got of a bundle, less what the beginning takes (section 9)."""
        is_closed = is_closed or self._down[node] <= 0
        if amount <= 0 or is_closed or self._have[node][bundle] > 0:
            return amount
        left = self._startup_left[node][bundle]
        self._startup_left[node][bundle] = max(0.0, left - self._dt)
        return min(amount, self._down[node] * max(0.0, self._dt - left)) if left else amount

    def _can_get(
        self, node: int, source: int, bundles: Iterable[int] | None = None
    ) -> dict[int, float]:
        """Bytes of each bundle, in the order of its queue."""
        if not self._is_on[node]:
            return {}
        found = {}
        for b in self._gets_here(node) if bundles is None else bundles:
            amount = max(0.0, self._have[source][b] - self._have[node][b])
            found[b] = self._after_startup(node, b, amount, is_closed=self._up[source] <= 0)
        self._could[node] += sum(found.values())
        return found

    def _count(self, node: int, owner: int) -> float:
        """How many like it a place stands for in a constraint of `owner`."""
        return self._weight[node] / self._weight[owner]

    def _fill(
        self, cans: Mapping[int, Mapping[int, float]], room: Links, ways: Mapping[int, Links]
    ) -> None:
        """Share out, and give to each in the order of its queue."""
        nodes = list(cans)
        demands = [min(sum(cans[node].values()), self._down_left[node]) for node in nodes]
        shares = progressive_filling(room, demands, [ways[node] for node in nodes])
        for node, share in zip(nodes, shares, strict=True):
            for link, count in ways[node].items():
                owner, direction = link
                left = self._up_left if direction else self._down_left
                left[owner] = max(0.0, left[owner] - share * count)
                self._note_link(owner, direction, share * count)
            left_to_give = share
            for b, amount in cans[node].items():
                part = min(amount, left_to_give)
                self._give(node, b, part, {"link": part})
                left_to_give -= part

    def _share(self, source: int) -> None:
        """Among the children of a place that neither is a hub nor lies below one."""
        if self._policy in ("swarm", "satellite-first") and self._is_group(source):
            self._trade(source)
            return
        cans = {node: self._can_get(node, source) for node in self._children[source]}
        up = (source, 1)
        self._fill(
            cans,
            {up: self._up_left[source]},
            {node: {up: self._count(node, source)} for node in cans},
        )

    def _share_below_hub(self, hub: int) -> None:
        level = self._children[hub]
        while level:
            cans = {node: self._can_get(node, self._parent[node]) for node in level}
            ways = {node: self._way(node, self._parent[node], hub) for node in level}
            self._fill(cans, self._room(ways.values()), ways)
            level = [child for node in level for child in self._children[node]]

    def _way(self, node: int, source: int, hub: int) -> dict[tuple[int, int], float]:
        """The constraints that what a place gets from a source has to cross, but its own downlink; 1 is up."""
        way = {(source, 1): self._count(node, source)}
        if hub not in (-1, node, source):
            way[hub, 1] = self._count(node, hub)
            way[hub, 0] = self._count(node, hub)
        return way

    def _room(self, ways: Iterable[Iterable[tuple[int, int]]]) -> dict[tuple[int, int], float]:
        return {
            (owner, direction): (self._up_left if direction else self._down_left)[owner]
            for way in ways
            for owner, direction in way
        }

    def _share_star(self) -> None:
        for publisher in sorted(set(self._publisher)):
            own = [b for b in self._numbers if self._publisher[b] == publisher]
            cans = {
                node: self._can_get(node, publisher, [b for b in self._gets_here(node) if b in own])
                for node in self._nodes
                if node != publisher
            }
            ways = {node: self._way(node, publisher, self._hub[node]) for node in cans}
            room = self._room(ways.values())
            for owner, direction in room:
                # A hub's own intake comes first; it is shared out at the same time, so its demand is kept free.
                if direction == 0 and owner in cans:
                    room[owner, 0] = max(0.0, room[owner, 0] - sum(cans[owner].values()))
            self._fill(cans, room, ways)

    def _is_group(self, source: int) -> bool:
        """Whether the children of a place trade with each other."""
        children = self._children[source]
        shape = self._scenario.vpn.shape
        receivers = [
            Receiver(int(self._down[node]), int(self._up[node]))
            for node in children
            if self._is_receiver(node) and int(self._down[node]) > 0 and int(self._up[node]) > 0
        ]
        is_scarce = uplink_scarcity(int(self._up[source]), receivers, vpn_shape=shape).is_scarce
        return bool(children) and all(
            may_trade(_PLACES[self._sites[node].tier], shape, is_uplink_scarce=is_scarce)
            for node in children
        )

    def _is_receiver(self, node: int) -> bool:
        return self._is_on[node] and bool(self._missing(node))

    def _siblings_share(self, node: int, receivers: float, reach: float) -> _Offer:
        """Bytes of a child's uplink that go to siblings, split by connections."""
        near = reach * (receivers - self._is_receiver(node))
        if near <= 1e-12 * reach:
            return _Offer(0.0, 1.0, 0.0)
        beside = max(0.0, 1.0 - near) + sum(
            self._count(child, node) for child in self._children[node] if self._is_receiver(child)
        )
        return _Offer(self._up_left[node] * near / (near + beside), near, beside)

    def _trade(self, source: int) -> None:
        """Among children that trade: swarms, bundle by bundle."""
        on = [node for node in self._children[source] if self._is_on[node]]
        receivers = [node for node in on if self._is_receiver(node)]
        count = sum(self._count(node, source) for node in receivers)
        others = sum(self._count(node, source) for node in on) - 1
        reach = 1 - (1 - 2 / others) ** CIRCLES if others > 2 else 1.0
        shares = {node: self._siblings_share(node, count, reach) for node in on}
        for b in self._numbers:
            # Those who leave it to the sky, or have no room, want it all the same.
            if any(b in self._missing(node) for node in receivers):
                takers = [node for node in receivers if b in self._gets_here(node)]
                self._trade_bundle(source, b, takers, shares, reach)

    def _trade_bundle(
        self, source: int, b: int, takers: list[int], shares: dict[int, _Offer], reach: float
    ) -> None:
        whole, up = self._have[source][b], self._up_left[source]
        before = max(self._fresh.get((source, b), 0.0), *(self._have[node][b] for node in shares), 0.0)  # fmt: skip
        grown = max(before, min(whole, before + self._phi * up))
        cans = {}
        for node in takers:
            amount = max(0.0, min(grown, whole) - self._have[node][b])
            cans[node] = self._after_startup(node, b, amount)
            self._could[node] += cans[node]
        demands = {node: min(can, self._down_left[node]) for node, can in cans.items()}
        count = {node: self._count(node, source) for node in shares}
        taking = sum(count[node] for node, demand in demands.items() if demand > 0)
        # Nobody can give to itself, and with an eta of 0 nobody gives.
        offers = {
            node: replace(share, left=self._eta * share.left)
            for node, share in shares.items()
            if self._eta > 0
            and (self._have[node][b] > 0 or demands.get(node, 0.0) > 0)
            and taking - (demands.get(node, 0.0) > 0) > 1e-12
        }
        pool = up + sum(count[node] * offer.left for node, offer in offers.items())
        given_to = progressive_filling(
            {"pool": pool}, list(demands.values()), [{"pool": count[node]} for node in demands]
        )
        given = dict(zip(demands, given_to, strict=True))
        total = sum(share * count[node] for node, share in given.items())
        self._fresh[source, b] = min(grown, before + total)
        if total <= 0:
            return
        first = {
            node: given[node]
            if can * NEARLY < self._down_left[node] and whole < self._size[b] * DONE
            else 0.0
            for node, can in cans.items()
        }
        above, used = up, {node: offer.left for node, offer in offers.items()}
        if total < pool * (1 - 1e-12):
            above, used = _over_connections(up, given, first, offers, count, reach)
        for node, share in given.items():
            part = share * above / total
            self._give(node, b, share, {"link": part, "siblings": share - part})
        self._up_left[source] = _rest(up, above)
        self._note_link(source, 1, above)
        for node, offer in used.items():
            taken = offer / self._eta
            shares[node].left = _rest(shares[node].left, taken)
            self._up_left[node] = max(0.0, self._up_left[node] - taken)
            self._note_link(node, 1, offer)

    def _give(self, node: int, bundle: int, amount: float, carriers: Mapping[str, float]) -> None:
        """Bytes over the link."""
        if amount <= 0:
            return
        have = self._have[node][bundle] + amount
        self._have[node][bundle] = min(have, self._size[bundle])
        self._got_link[node] += amount
        self._link_until[node, bundle] = self._got_link[node]
        self._down_left[node] = max(0.0, self._down_left[node] - amount)
        self._note_link(node, 0, amount)
        for carrier, part in carriers.items():
            self._note_carried(node, carrier, part)

    # Section 6: the satellite.

    def _choose_sky(self, number: int) -> set[tuple[int, int]]:
        """What is left to the sky."""
        if self._policy != "satellite-first" or self._sky is None:
            return set()
        return {
            (node, b)
            for node in self._nodes
            if self._sites[node].has_dish
            for b in self._missing(node)
            if self._is_left_to_sky(node, b, number, self._sky)
        }

    def _is_left_to_sky(self, node: int, b: int, number: int, sky: Sky) -> bool:
        missing = self._size[b] - self._have[node][b]
        needed, coming, air_s = missing / self._size[b], 0.0, math.inf
        for later in range(number, self.steps):
            coming += float(sky.flow[b, later])
            if coming >= needed:
                air_s = (later + 1 - number) * self._dt
                break
        source = Repair(delay_part=0.0).decide(
            0.0,
            missing_bytes=int(missing),
            link_bytes_s=int(self._sites[node].down_bytes_s),
            air_s=air_s,
            has_neighbours=False,
        )
        return source is RepairSource.AIR

    def _receive(self, number: int) -> None:
        sky, satellite = self._sky, self._scenario.satellite
        if sky is None or satellite is None:
            return
        for node in self._nodes:
            if not self._sites[node].has_dish:
                continue
            for b in self._order(node):
                if not (self._wants[node][b] and self._is_released(b)):
                    continue
                listens = self._listens[node] if b in self._allowed[node] else 0.0
                came = float(sky.air[b, number + 1] - sky.air[b, number])
                again = listens * float(sky.flow[b, number])
                missed = self._missed[node][b]
                refill = min(missed, again)
                if satellite.code == "carousel":
                    refill = missed * min(1.0, again)
                self._missed[node][b] = missed + (1 - listens) * came - refill
                if b in self._allowed[node] and not self._is_done(node, b):
                    self._take(node, b, (listens * came + refill) * self._size[b], "satellite")

    def _take(self, node: int, b: int, offered: float, carrier: str) -> float:
        """At most what a place lacks."""
        amount = min(offered, self._size[b] - self._have[node][b])
        self._have[node][b] += amount
        self._note_carried(node, carrier, amount)
        return amount

    # Section 7: disks.

    def _copy_in(self) -> None:
        disks = self._scenario.disks
        if disks is None:
            return
        for parcel in self._copying:
            if parcel.from_s > self._begins:
                continue
            left = disks.copy_rate * self._dt
            for b in self._order(parcel.node):
                if b in parcel.bundles and b in self._allowed[parcel.node]:
                    left -= self._take(parcel.node, b, left, "disk")

    # Section 8: the store.

    def _with_room(self, node: int) -> set[int]:
        """Bundles that a place may hold: what it has begun, and what fits, in its order."""
        store = self._sites[node].store_bytes
        missing = self._missing(node)
        if not store:
            return set(missing)
        have = self._have[node]
        room = store - sum(self._size[b] for b in self._numbers if have[b] > 0)
        found = set()
        for b in missing:
            if have[b] <= 0:
                if self._size[b] > room:
                    continue
                room -= self._size[b]
            found.add(b)
        return found

    def _evict(self) -> None:
        # Decided for all before anything leaves: what a child still lacks is told by the day's end.
        leaving = [(node, b) for node in self._nodes for b in self._evictions(node)]
        for node, b in leaving:
            self._have[node][b] = 0.0
            self._is_evicted[node][b] = True

    def _evictions(self, node: int) -> list[int]:
        store = self._sites[node].store_bytes
        if not store:
            return []
        have, missing = self._have[node], self._missing(node)
        held = [b for b in self._numbers if have[b] > 0]
        wanted = sum(self._size[b] for b in [*held, *(b for b in missing if have[b] <= 0)])
        is_own = self._choices[self._class_of[node]].is_own
        items = [
            Held(
                key=f"{b:09}",
                size_bytes=int(self._size[b]),
                is_wanted=is_own[b] or self._publisher[b] == node or not self._is_done(node, b),
                is_needed_below=any(
                    self._wants[child][b] and not self._is_done(child, b)
                    for child in self._children[node]
                ),
                used_at=int(self._bundles.released_s[b] // DAY_S),
            )
            for b in held
        ]
        gone = evict(items, needed_bytes=math.ceil(wanted - store), today=self._scenario.run.start)
        return [int(eviction.key) for eviction in gone]

    # Section 11: results.

    def _note_carried(self, node: int, carrier: str, amount: float) -> None:
        at = self._class_of[node], CARRIERS.index(carrier), self._day
        self._carried[at] += amount * self._weight[node]

    def _note_link(self, node: int, direction: int, amount: float) -> None:
        at = self._class_of[node], direction, self._day
        self._link_bytes[at] += amount * self._weight[node]

    def _note_done(self, before: list[list[float]]) -> None:
        for node in self._nodes:
            for b in self._numbers:
                is_done = self._have[node][b] >= self._size[b] * DONE
                if is_done and self._have[node][b] > before[node][b]:
                    share = 1.0
                    if (node, b) in self._link_until:
                        share = self._link_until[node, b] / (self._down[node] * self._dt)
                    self._done_s[node][b] = self._begins + min(share, 1.0) * self._dt

    def _note_held_back(self, waiting: Mapping[int, list[int]]) -> None:
        for node, missing in waiting.items():
            if missing:
                cause = CAUSES.index(self._cause(node, missing))
                province = self._provinces.index(int(self._country.province[node]))
                hours = self._weight[node] * self._dt / HOUR_S
                self._held_back[province, self._class_of[node], cause] += hours

    def _cause(self, node: int, missing: Sequence[int]) -> str:
        room = self._down[node] * self._dt
        if room <= 0:
            return "off"
        if all((node, b) in self._left_to_sky for b in missing):
            return "sky"
        if not any(b in self._allowed[node] for b in missing):
            return "store"
        if self._got_link[node] >= room * NEARLY:
            return "own-link"
        return "uplink" if self._got_link[node] < self._could[node] * NEARLY else "content"

    def outcome(self, seconds: float) -> Outcome:
        return Outcome(
            country=self._country,
            bundles=self._bundles,
            done_h=(np.array(self._done_s).reshape(len(self._nodes), -1) / HOUR_S).astype(
                np.float32
            ),
            wants=np.array([choice.wants for choice in self._choices]),
            carried=self._carried,
            link_bytes=self._link_bytes,
            link_room=self._link_room,
            held_back=self._held_back,
            province_nodes=np.array(self._provinces, np.int32),
            threads=1,
            seconds=seconds,
        )

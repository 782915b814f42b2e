"""What the daemon's policies say, by class: by hour of the week, and by bundle (MODEL.md 2, 3, 12)."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta

import numpy as np
from numpy.typing import NDArray

from cuntong_daemon.policy.calendar import DAY_MINUTES, Calendar, Rule, Source, limits_at
from cuntong_daemon.policy.caps import session_caps
from cuntong_daemon.policy.peers import may_trade
from cuntong_daemon.policy.selection import Candidate, NodeProfile, judge, select
from cuntong_protocol.bundle.metadata import Audience, Licence
from cuntong_protocol.divisions import NATION, TIER_LABELS, Division, parse_division
from cuntong_simulations.scenario.calendars import WEEK_HOURS, windows_of
from cuntong_simulations.scenario.scenario import Calibration, Scenario, Tier

from .country import Bundles
from .parameters import goodput
from .site_class import SiteClass

WEEK_MINUTES = 7 * DAY_MINUTES
DAY_S = 86400.0
_MONDAY = datetime(2024, 1, 1, tzinfo=UTC)
_PLACES = [
    parse_division(code)
    for code in ("000000000000", "110000000000", "110100000000", "110101000000", "110101001000", "110101001001")
]  # fmt: skip
"""One of each tier: policies that are asked for a class see its tier only."""


@dataclass(frozen=True, slots=True)
class Tables:
    """All that policies say.

    Attributes:
        down, up: What transfers get of the access link, bytes/s, by class and hour of the week.
        listens: The share of the hour in which a dish receives, alike.
        wants: By class and bundle.
        is_own: It wants it for itself, not for places below.
        order: By class: the bundles in its queue, first those that it wants.
        trades: By class: 0: siblings never help each other, 1: always, 2: while the uplink above them is scarce.
        off_part: By class: the share of days on which it is off.
    """

    down: NDArray[np.float64]
    up: NDArray[np.float64]
    listens: NDArray[np.float64]
    wants: NDArray[np.bool_]
    is_own: NDArray[np.bool_]
    order: NDArray[np.int32]
    trades: NDArray[np.int8]
    off_part: NDArray[np.float64]


def tables(
    scenario: Scenario, classes: tuple[SiteClass, ...], bundles: Bundles, calibration: Calibration
) -> Tables:
    """Ask the policies.

    Args:
        scenario: Calendars, subscriptions, the VPN's shape.
        classes: Of the country.
        bundles: Columns of the tables.
        calibration: All its values are given.
    """
    tiers = {TIER_LABELS.index(tier.tier): tier for tier in scenario.tiers}
    links: dict[tuple[int, float, float], tuple[NDArray[np.float64], NDArray[np.float64]]] = {}
    choices: dict[tuple[int, int], tuple[NDArray[np.bool_], NDArray[np.bool_], NDArray[np.int32]]]
    choices = {}
    rows = []
    for site in classes:
        tier = tiers[site.tier]
        key = (site.tier, site.down_bytes_s, site.up_bytes_s)
        if key not in links:
            links[key] = link_hours(scenario, tier, site, calibration)
        taste = (site.tier, site.subscription)
        if taste not in choices:
            choices[taste] = choose(scenario, tier, site, bundles)
        rows.append((*links[key], *choices[taste]))
    listens = [
        _is_on(scenario, tiers[site.tier]).reshape(WEEK_HOURS, 60).mean(axis=1) * site.has_dish
        for site in classes
    ]
    shape = scenario.vpn.shape
    trades = [
        1
        if may_trade(_PLACES[site.tier], shape)
        else 2 * may_trade(_PLACES[site.tier], shape, is_uplink_scarce=True)
        for site in classes
    ]
    return Tables(
        down=np.array([row[0] for row in rows]),
        up=np.array([row[1] for row in rows]),
        listens=np.array(listens),
        wants=np.array([row[2] for row in rows]),
        is_own=np.array([row[3] for row in rows]),
        order=np.array([row[4] for row in rows], np.int32),
        trades=np.array(trades, np.int8),
        off_part=np.array([float(tiers[site.tier].off_days) for site in classes]),
    )


def link_hours(
    scenario: Scenario, tier: Tier, site: SiteClass, calibration: Calibration
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """What transfers get of a link, down and up, by hour of the week: bytes/s, shape (168,)."""
    down, up = np.zeros(WEEK_MINUTES), np.zeros(WEEK_MINUTES)
    if not site.down_bytes_s:
        return down[:WEEK_HOURS], up[:WEEK_HOURS]
    calendar = Calendar(Source.OWN, UTC, windows=(
        *windows_of(scenario, tier.public, _public_leaves(tier, site)),
        *windows_of(scenario, tier.pause, Rule(is_paused=True)),
    ))  # fmt: skip
    minute = 0
    while minute < WEEK_MINUTES:
        now = _MONDAY + timedelta(minutes=minute)
        limits = limits_at(now, [calendar])
        caps = session_caps(
            limits,
            is_shared=bool(tier.public),
            link_up_bytes_s=int(site.up_bytes_s),
            wanted_below_bytes_s=0,
        )
        until = WEEK_MINUTES
        if limits.until is not None:
            until = min(until, int((limits.until - _MONDAY).total_seconds()) // 60)
        if not caps.is_paused:
            down[minute:until] = min(site.down_bytes_s, caps.down.bytes_s or np.inf)
            up[minute:until] = min(site.up_bytes_s, caps.up.bytes_s or np.inf)
        minute = until
    is_open = _is_on(scenario, tier)
    if tier.window:
        is_open &= _is_within(scenario, tier.window)
    return (
        goodput(site.down_bytes_s, calibration)
        * (down * is_open).reshape(WEEK_HOURS, 60).mean(axis=1),
        goodput(site.up_bytes_s, calibration) * (up * is_open).reshape(WEEK_HOURS, 60).mean(axis=1),
    )


def _public_leaves(tier: Tier, site: SiteClass) -> Rule:
    """What the public leaves; a limit of 0 would be none."""
    left = 1 - tier.public_share
    down, up = int(left * site.down_bytes_s), int(left * site.up_bytes_s)
    return Rule(down, up) if down and up else Rule(is_paused=True)


def _is_on(scenario: Scenario, tier: Tier) -> NDArray[np.bool_]:
    return _is_within(scenario, tier.on)


def _is_within(scenario: Scenario, name: str) -> NDArray[np.bool_]:
    """Which minutes of the week lie in a calendar's windows."""
    minutes = np.zeros(WEEK_MINUTES, np.bool_)
    for window in windows_of(scenario, name, Rule()):
        length = (window.ends_minute - window.begins_minute - 1) % DAY_MINUTES + 1
        for day in window.days:
            begin = day * DAY_MINUTES + window.begins_minute
            minutes[np.arange(begin, begin + length) % WEEK_MINUTES] = True
    return minutes


def choose(
    scenario: Scenario, tier: Tier, site: SiteClass, bundles: Bundles
) -> tuple[NDArray[np.bool_], NDArray[np.bool_], NDArray[np.int32]]:
    """What a class wants, what of it for itself, and all bundles in the order of its queue."""
    profile = NodeProfile(_PLACES[site.tier])
    if site.subscription >= 0:
        chosen = tier.subscriptions[site.subscription]
        profile = NodeProfile(
            _PLACES[site.tier],
            categories=tuple(chosen.categories),
            languages=tuple(chosen.languages),
            groups=tuple(chosen.groups),
        )
    candidates = [
        candidate(scenario, bundles, number, site.tier) for number in range(len(bundles.size))
    ]
    start = scenario.run.start
    wants = np.zeros(len(candidates), np.bool_)
    is_own = wants.copy()
    for number, one in enumerate(candidates):
        wants[number], reason = judge(one, profile, is_ordered=False, today=start)
        is_own[number] = wants[number] and reason.code != "selection.carried"
    decided = select(candidates, profile, (), quota_bytes=0, today=start)
    number_of = {one.id: number for number, one in enumerate(candidates)}
    queue = [number_of[decision.id] for decision in decided if decision.wanted]
    queue += [number for number in range(len(candidates)) if not wants[number]]
    return wants, is_own, np.array(queue, np.int32)


def candidate(scenario: Scenario, bundles: Bundles, number: int, tier: int) -> Candidate:
    """A bundle as a place of a tier sees it, nothing of it fetched yet.

    The publisher is the nation: whether a place lies below another publisher isn't the class's.
    """
    release = scenario.releases[bundles.release[number]]
    deadline_s = bundles.deadline_s[number, tier]
    day: date | None = None
    if not np.isnan(deadline_s):
        day = scenario.run.start + timedelta(days=int(deadline_s // DAY_S))
    return Candidate(
        id=bundles.names[number],
        publisher=Division(NATION),
        category=bundles.category[number] if bundles.category else release.category,
        languages=bundles.languages[number] if bundles.languages else tuple(release.languages),
        audience=Audience(tiers=tuple(release.tiers), groups=tuple(release.groups)),
        licence=Licence(),
        priority=int(bundles.priority[number]),
        size_bytes=int(bundles.size[number]),
        remaining_bytes=int(bundles.size[number]),
        deadline=day,
    )

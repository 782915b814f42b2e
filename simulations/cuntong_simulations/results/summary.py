"""From what the model gives to the figures of a report."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from cuntong_protocol.divisions import TIER_LABELS
from cuntong_simulations.model.country import Country, Floats, Ints
from cuntong_simulations.model.outcome import CARRIERS, CAUSES, Outcome

from .costs import bill
from .findings import (
    Arrival,
    Carried,
    Curve,
    DailyUse,
    Estimate,
    Findings,
    Held,
    LinkUse,
    Manifest,
    Miss,
    Reach,
)
from .jackknife import Groups, groups_of, half_width

NODES_AT_ONCE = 65_536
"""13 MB of hours at 50 bundles: what is worked on stays small beside the hours themselves."""
SLACK = 1e-6
"""Hours are float32: a place that has a bundle exactly at its deadline hasn't missed it."""
NEVER = np.float32(np.inf)

Bools = NDArray[np.bool_]
Hours = NDArray[np.float32]


def summarise(outcome: Outcome, manifest: Manifest) -> Findings:
    """All figures of a run.

    Uses little memory beside the outcome: a few numbers a node.
    """
    view = View(outcome)
    arrivals: list[Arrival] = []
    curves: list[Curve] = []
    reaches: list[Reach] = []
    misses: list[Miss] = []
    everything = np.full(view.country.node_count, -NEVER)
    for number in range(len(view.country.scenario.releases)):
        release = Release(view, number)
        np.maximum(everything, release.latest, out=everything)
        for tier in range(len(TIER_LABELS)):
            places = view.places_of(tier, release.latest)
            if len(places):
                arrivals.append(_arrival(view, release, tier, places))
                curves.append(_curve(view, release.name, tier, places, release.latest))
        reaches += _reaches(view, release)
        misses += _misses(view, release)
    for tier in range(len(TIER_LABELS)):
        places = view.places_of(tier, everything)
        if len(places):
            curves.append(_curve(view, "", tier, places, everything))
    return Findings(
        manifest=manifest,
        arrivals=arrivals,
        reaches=reaches,
        curves=curves,
        links=list(_links(view)),
        daily=list(_daily(view)),
        carried=list(_carried(view)),
        misses=sorted(misses, key=lambda miss: -miss.missed),
        held=list(_held(view)),
        costs=bill(outcome, manifest.scenario),
    )


@dataclass(frozen=True)
class View:
    """An outcome, and what is looked up in it again and again."""

    outcome: Outcome

    @property
    def country(self) -> Country:
        return self.outcome.country

    @property
    def days(self) -> int:
        return self.country.scenario.run.days

    @cached_property
    def groups(self) -> Groups | None:
        return groups_of(self.country)

    @cached_property
    def province_of(self) -> Ints:
        """The place of each node's province in `province_nodes`."""
        place = np.zeros(self.country.node_count, np.int32)
        place[self.outcome.province_nodes] = np.arange(len(self.outcome.province_nodes))
        return place[self.country.province]

    @cached_property
    def province_labels(self) -> list[str]:
        return [f"{code:012d}"[:2] for code in self.country.code[self.outcome.province_nodes]]

    @cached_property
    def kinds(self) -> list[tuple[int, str]]:
        """Tier and link name of each class."""
        return [
            (one.tier, one.link if one.down_bytes_s or one.up_bytes_s else NO_LINK)
            for one in self.country.classes
        ]

    @cached_property
    def by_kind(self) -> dict[tuple[int, str], list[int]]:
        """Classes of one tier and link name, in the order of the tiers and of the scenario."""
        order = sorted(
            range(len(self.kinds)),
            key=lambda c: (self.kinds[c][0], self.country.classes[c].link_number % (1 << 30)),
        )
        found: dict[tuple[int, str], list[int]] = {}
        for c in order:
            found.setdefault(self.kinds[c], []).append(c)
        return found

    @cached_property
    def places(self) -> Floats:
        """Weighted, by province and class."""
        shape = (len(self.outcome.province_nodes), len(self.country.classes))
        return self.sums(self.country.weight, slice(None)).reshape(shape)

    def sums(self, values: Floats, nodes: slice) -> Floats:
        """Of values of some nodes, by province and class, flat."""
        classes = len(self.country.classes)
        key = self.province_of[nodes].astype(np.int64) * classes + self.country.node_class[nodes]
        cells = len(self.outcome.province_nodes) * classes
        return np.bincount(key, values, minlength=cells).astype(np.float64)

    def places_of(self, tier: int, latest: Hours) -> Ints:
        """Nodes of a tier that want something that has an hour."""
        found: Ints = np.flatnonzero((self.country.tier == tier) & (latest > -NEVER)).astype(
            np.int32
        )
        return found

    def wanted(self, nodes: slice, bundles: Ints) -> Bools:
        """Which of these nodes wait for which bundles: what they want of publishers above them, but their own."""
        wants = self.outcome.wants[np.ix_(self.country.node_class[nodes], bundles)]
        for column, bundle in enumerate(bundles):
            publisher = int(self.outcome.bundles.publisher[bundle])
            if publisher:
                wants[:, column] &= self._below(publisher)[nodes]
            elif nodes.start == 0:
                wants[0, column] = False
        return wants

    def _below(self, node: int) -> Bools:
        if node not in self._subtrees:
            below = np.zeros(self.country.node_count, np.bool_)
            below[node] = True
            for _tier in TIER_LABELS:
                below |= below[np.maximum(self.country.parent, 0)]
            below[node] = False
            self._subtrees[node] = below
        return self._subtrees[node]

    @cached_property
    def _subtrees(self) -> dict[int, Bools]:
        return {}


NO_LINK = "-"
"""The link name of places that have none."""


def chunks(count: int) -> Iterator[slice]:
    """So many nodes, a part at a time."""
    for start in range(0, count, NODES_AT_ONCE):
        yield slice(start, min(count, start + NODES_AT_ONCE))


class Release:
    """One release in all places.

    Attributes:
        latest: Hour at which each node had all that it wants of it; infinite: not by the end; -infinite: wants nothing.
        tallies: Pairs with a deadline by what became of them (all, missed, undecided), province and class; weighted.
        due_h: By tier, the hour of its first deadline; NaN: none.
    """

    def __init__(self, view: View, number: int) -> None:
        outcome, country = view.outcome, view.country
        self.name = country.scenario.releases[number].name
        self.latest: Hours = np.full(country.node_count, -NEVER)
        self.tallies = np.zeros((3, len(outcome.province_nodes), len(country.classes)))
        self.due_h = np.full(len(TIER_LABELS), np.nan)
        self.released_h = 0.0
        self.volume = np.zeros(len(country.classes))
        bundles: Ints = np.flatnonzero(outcome.bundles.release == number).astype(np.int32)
        if not len(bundles):
            return
        self.volume = outcome.wants[:, bundles] @ outcome.bundles.size[bundles]
        self.released_h = float(outcome.bundles.released_s[bundles].min()) / 3600
        due_h = outcome.bundles.deadline_s[bundles] / 3600
        # Where there is none, nothing is ever late.
        self.due_h = np.where(np.isnan(due_h).all(axis=0), np.nan, np.fmin.reduce(due_h, axis=0))
        limit_h = np.where(np.isnan(due_h), np.inf, due_h * (1 + SLACK)).astype(np.float32).T
        end_h = view.days * 24
        for nodes in chunks(country.node_count):
            wants = view.wanted(nodes, bundles)
            hours = outcome.done_h[nodes][:, bundles]
            hours[np.isnan(hours)] = NEVER
            limit = limit_h[country.tier[nodes]]
            counts = wants & (limit < NEVER)
            late = counts & (hours > limit)
            undecided = late & (limit > end_h * (1 + SLACK))
            weight = country.weight[nodes]
            for place, found in enumerate((counts, late & ~undecided, undecided)):
                self.tallies[place] += view.sums(found.sum(axis=1) * weight, nodes).reshape(
                    self.tallies[place].shape
                )
            hours[~wants] = -NEVER
            self.latest[nodes] = hours.max(axis=1)

    def deadline_days(self, tier: int) -> float | None:
        due_h = float(self.due_h[tier])
        return None if np.isnan(due_h) else (due_h - self.released_h) / 24

    def days(self, hour: Estimate | None) -> Estimate | None:
        """Of an hour of the run: days since the release."""
        if hour is None:
            return None
        value, low, high = (
            None if end is None else (end - self.released_h) / 24
            for end in (hour.value, hour.low, hour.high)
        )
        return None if value is None else Estimate(value, low, high)


def _arrival(view: View, release: Release, tier: int, places: Ints) -> Arrival:
    hours = release.latest[places]
    weight = view.country.weight[places]
    reached = _Distribution(view, places, hours)
    end_h = view.days * 24.0
    classes = _of_tier(view, tier)
    pairs, missed, undecided = release.tallies[:, :, classes].sum(axis=(1, 2))

    return Arrival(
        release=release.name,
        tier=TIER_LABELS[tier],
        places=float(weight.sum()),
        end=reached.share(end_h * (1 + SLACK)),
        deadline_days=release.deadline_days(tier),
        due=_due(view, release, tier, reached),
        p50=release.days(reached.quantile(0.5)),
        p90=release.days(reached.quantile(0.9)),
        p99=release.days(reached.quantile(0.99)),
        last_days=None if np.isinf(reached.last_h) else (reached.last_h - release.released_h) / 24,
        pairs=float(pairs),
        missed=float(missed),
        undecided=float(undecided),
    )


class _Distribution:
    """When places of a tier had something: shares by an hour, and hours by a share."""

    def __init__(self, view: View, places: Ints, hours: Hours) -> None:
        self._by_group: Floats | None = None
        if view.groups is None:
            # Every place counts once: ten times as fast as with weights.
            self._hours = np.sort(hours)
            self._reached = np.arange(1.0, len(hours) + 1)
            self.last_h = float(self._hours[-1])
            return
        order = np.argsort(hours)
        self._hours = hours[order]
        self.last_h = float(self._hours[-1])
        weight = view.country.weight[places[order]]
        self._reached = np.cumsum(weight)
        # A row for each group: the weights of its places, cumulated in the order of their hours.
        group = view.groups.of_node[places[order]]
        self._by_group = np.zeros((view.groups.count + 1, len(places)))
        self._by_group[group, np.arange(len(places))] = weight
        np.cumsum(self._by_group, axis=1, out=self._by_group)

    def share(self, hour: float) -> Estimate:
        """Of the places, by an hour."""
        at = int(np.searchsorted(self._hours, np.float32(hour), side="right"))
        total = self._reached[-1]
        value = float(self._reached[at - 1] / total) if at else 0.0
        if self._by_group is None:
            return Estimate(value)
        by_then = self._by_group[:, at - 1] if at else np.zeros(len(self._by_group))
        half = float(half_width(by_then, self._by_group[:, -1]))
        return Estimate(value, max(0.0, value - half), min(1.0, value + half))

    def quantile(self, share: float) -> Estimate | None:
        """The hour by which such a share of the places has it; None: not within the run."""
        value = self._hour(share)
        if value is None or self._by_group is None:
            return None if value is None else Estimate(value)
        found = self.share(value)
        half = ((found.high or 0.0) - (found.low or 0.0)) / 2
        return Estimate(
            value, self._hour(max(share - half, 0.0)), self._hour(min(share + half, 1.0))
        )

    def _hour(self, share: float) -> float | None:
        at = int(np.searchsorted(self._reached, share * self._reached[-1] * (1 - 1e-12)))
        hour = float(self._hours[min(at, len(self._hours) - 1)])
        return None if np.isinf(hour) else hour


def _due(view: View, release: Release, tier: int, reached: _Distribution) -> Estimate | None:
    due_h = float(release.due_h[tier])
    # A deadline after the end of the run isn't decided.
    is_decided = due_h <= view.days * 24 * (1 + SLACK)
    return reached.share(due_h * (1 + SLACK)) if is_decided else None


def _reaches(view: View, release: Release) -> Iterator[Reach]:
    is_of = release.latest > -NEVER
    counts = view.places.sum(axis=0)
    for (tier, link), classes in view.by_kind.items():
        is_kind = np.zeros(len(counts), np.bool_)
        is_kind[classes] = True
        places = np.flatnonzero(is_of & is_kind[view.country.node_class]).astype(np.int32)
        if not len(places):
            continue
        reached = _Distribution(view, places, release.latest[places])
        weight = float(view.country.weight[places].sum())
        room = float(view.outcome.link_room[classes, 0].sum())
        yield Reach(
            release=release.name,
            tier=TIER_LABELS[tier],
            link=link,
            places=weight,
            volume_bytes=float(
                release.volume[view.country.node_class[places]] @ view.country.weight[places]
            )
            / weight,
            day_bytes=room / view.days / float(counts[classes].sum()),
            deadline_days=release.deadline_days(tier),
            due=_due(view, release, tier, reached),
            p50=release.days(reached.quantile(0.5)),
        )


def _curve(view: View, release: str, tier: int, places: Ints, latest: Hours) -> Curve:
    """By day, in one pass over the places."""
    days = view.days
    hours = np.minimum(latest[places], (days + 1) * 24)
    day = np.ceil(hours / 24 - SLACK).astype(np.int64).clip(0)
    weight = view.country.weight[places]
    groups = view.groups
    rows = 1 if groups is None else groups.count + 1
    group = 0 if groups is None else groups.of_node[places].astype(np.int64)
    found = np.bincount(group * (days + 2) + day, weight, minlength=rows * (days + 2))
    by_day = found.reshape(rows, days + 2)
    total = by_day.sum(axis=1, keepdims=True)
    reached = by_day.cumsum(axis=1)[:, : days + 1]
    share = reached.sum(axis=0) / total.sum()
    half = np.zeros(0) if groups is None else half_width(reached, total)
    return Curve(
        release=release,
        tier=TIER_LABELS[tier],
        share=[round(float(one), 6) for one in share],
        half_width=[round(float(one), 6) for one in half],
    )


def _misses(view: View, release: Release) -> Iterator[Miss]:
    for (tier, link), classes in view.by_kind.items():
        pairs, missed, _undecided = release.tallies[:, :, classes].sum(axis=2)
        for province in np.flatnonzero(missed > 0):
            yield Miss(
                release=release.name,
                tier=TIER_LABELS[tier],
                province=view.province_labels[province],
                link=link,
                pairs=float(pairs[province]),
                missed=float(missed[province]),
            )


def _links(view: View) -> Iterator[LinkUse]:
    for (tier, link), classes in view.by_kind.items():
        used = view.outcome.link_bytes[classes].sum(axis=0)
        room = view.outcome.link_room[classes].sum(axis=0)
        if not room.any():
            continue
        share = _share(used, room).max(axis=0)
        day = int(share.argmax())
        (down, up), (down_room, up_room) = used.sum(axis=1), room.sum(axis=1)
        yield LinkUse(
            tier=TIER_LABELS[tier],
            link=link,
            places=float(view.places[:, classes].sum()),
            down_bytes=float(down),
            down_room=float(down_room),
            up_bytes=float(up),
            up_room=float(up_room),
            highest_day=day,
            highest_use=float(share[day]),
        )


def _daily(view: View) -> Iterator[DailyUse]:
    for tier, label in enumerate(TIER_LABELS):
        classes = _of_tier(view, tier)
        share = _share(
            view.outcome.link_bytes[classes].sum(axis=0),
            view.outcome.link_room[classes].sum(axis=0),
        )
        if share.any():
            down, up = ([round(float(one), 6) for one in row] for row in share)
            yield DailyUse(tier=label, down=down, up=up)


def _carried(view: View) -> Iterator[Carried]:
    for tier, label in enumerate(TIER_LABELS):
        received = view.outcome.carried[_of_tier(view, tier)].sum(axis=(0, 2))
        for carrier, count in zip(CARRIERS, received, strict=True):
            if count > 0:
                yield Carried(tier=label, carrier=carrier, bytes=float(count))


def _held(view: View) -> Iterator[Held]:
    for (tier, link), classes in view.by_kind.items():
        hours = view.outcome.held_back[:, classes].sum(axis=1)
        places = view.places[:, classes].sum(axis=1)
        for province, cause in np.argwhere(hours > 0):
            yield Held(
                province=view.province_labels[province],
                tier=TIER_LABELS[tier],
                link=link,
                cause=CAUSES[cause],
                node_hours=float(hours[province, cause]),
                places=float(places[province]),
            )


def _of_tier(view: View, tier: int) -> list[int]:
    return [c for c, one in enumerate(view.country.classes) if one.tier == tier]


def _share(part: Floats, whole: Floats) -> Floats:
    found: Floats = np.divide(part, whole, out=np.zeros_like(whole), where=whole > 0)
    return found

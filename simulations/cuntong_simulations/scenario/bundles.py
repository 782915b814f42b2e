"""What is published, in the order in which the nation would rank it (MODEL.md 3)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path
from typing import get_args

import numpy as np

from cuntong_daemon.policy.selection import Candidate, NodeProfile, select
from cuntong_protocol.bundle.metadata import Audience, Licence
from cuntong_protocol.divisions import NATION, parse_division
from cuntong_protocol.texts import N_
from cuntong_simulations.model.country import Bundles, Country

from .errors import ScenarioError
from .rows import broken, cell, read_rows
from .scenario import Release, Scenario, TierName
from .units import Size, half_width, shown

DAY_S = 86400.0
TIERS: tuple[TierName, ...] = get_args(TierName)


@dataclass(frozen=True, slots=True)
class Bundle:
    """One bundle of a release; unlike `model.country.Bundles` it is no array and has no place in any order."""

    name: str
    release: int
    size_bytes: float
    category: str
    languages: tuple[str, ...]
    priority: int


def bundles_in(release: Release, number: int) -> list[Bundle]:
    """A release's bundles in the order in which it names them.

    Raises:
        ScenarioError: its file has a broken row.
    """
    if release.file:
        return _from_file(release, number)
    each = release.size / release.bundles
    sizes: Sequence[float] = release.sizes or [each] * release.bundles
    digits = len(str(len(sizes) - 1))
    return [
        Bundle(
            f"{release.name}/{place:0{digits}}",
            number,
            float(size),
            release.category,
            tuple(release.languages),
            release.priority,
        )
        for place, size in enumerate(sizes)
    ]


def candidate(scenario: Scenario, bundle: Bundle, deadline: date | None = None) -> Candidate:
    """A bundle as the daemon's `policy.selection` sees it, nothing of it fetched yet."""
    release = scenario.releases[bundle.release]
    return Candidate(
        id=bundle.name,
        publisher=parse_division(release.publisher),
        category=bundle.category,
        languages=bundle.languages,
        audience=Audience(tiers=tuple(release.tiers), groups=tuple(release.groups)),
        licence=Licence(),
        priority=bundle.priority,
        size_bytes=int(bundle.size_bytes),
        remaining_bytes=int(bundle.size_bytes),
        deadline=deadline,
    )


def deadline_day(scenario: Scenario, release: Release, tier: TierName) -> date | None:
    """The day by which a tier shall have a release."""
    days = release.deadlines.get(tier)
    if days is None:
        return None
    return scenario.run.start + timedelta(days=int(release.day + days))


def bundles_of(scenario: Scenario, country: Country) -> Bundles:
    """All bundles as arrays.

    The nation has no deadline of its own as a rule: it ranks by the earliest of any tier.

    Raises:
        ScenarioError: a release's file is broken, or its publisher isn't a place of the country.
    """
    all_bundles = [
        bundle
        for number, release in enumerate(scenario.releases)
        for bundle in bundles_in(release, number)
    ]
    by_name = {bundle.name: bundle for bundle in all_bundles}
    candidates = [
        candidate(
            scenario,
            bundle,
            min(
                (
                    day
                    for tier in TIERS
                    if (day := deadline_day(scenario, scenario.releases[bundle.release], tier))
                ),
                default=None,
            ),
        )
        for bundle in all_bundles
    ]
    decisions = select(
        candidates, NodeProfile(NATION), by_name.keys(), quota_bytes=0, today=scenario.run.start
    )
    ranked = [by_name[decision.id] for decision in decisions]
    releases = [scenario.releases[bundle.release] for bundle in ranked]
    return Bundles(
        names=tuple(bundle.name for bundle in ranked),
        release=np.array([bundle.release for bundle in ranked], dtype=np.int32),
        size=np.array([bundle.size_bytes for bundle in ranked], dtype=np.float64),
        priority=np.array([bundle.priority for bundle in ranked], dtype=np.int32),
        released_s=np.array([release.day * DAY_S for release in releases], dtype=np.float64),
        deadline_s=np.array(
            [
                [
                    (release.day + release.deadlines[tier]) * DAY_S
                    if tier in release.deadlines
                    else np.nan
                    for tier in TIERS
                ]
                for release in releases
            ],
            dtype=np.float64,
        ),
        publisher=np.array([_node_of(country, release) for release in releases], dtype=np.int32),
        category=tuple(bundle.category for bundle in ranked),
        languages=tuple(bundle.languages for bundle in ranked),
    )


def _node_of(country: Country, release: Release) -> int:
    wanted = int(parse_division(release.publisher))
    if wanted == int(NATION):
        return 0
    found = np.flatnonzero(country.code == wanted)
    if not len(found):
        # The scenario was checked with its own seed; with another one places may be spread otherwise.
        raise ScenarioError(
            "sim.no-publisher",
            N_("The release {release} is published by {code}, which isn't a place of this scenario."),
            release=release.name,
            code=release.publisher,
        )  # fmt: skip
    return int(found[0])


def _from_file(release: Release, number: int) -> list[Bundle]:
    path = Path(release.file)
    found: dict[str, Bundle] = {}
    optional = ("category", "language", "priority")
    for line, cells in read_rows(path, required=("name", "size"), optional=optional):
        name = f"{release.name}/{cells['name']}"
        if not cells["name"] or name in found:
            raise broken(
                path,
                line,
                N_("{file}, line {line}: each bundle has to have a name of its own, not {name}."),
                name=shown(cells["name"]),
            )
        size = cell(Size, path, line, "size", cells["size"])
        if size < 1:
            raise broken(path, line, N_("{file}, line {line}: a bundle can't be empty."))
        priority = half_width(cells.get("priority", ""))
        if priority and (len(priority) > 1 or not priority.isdecimal() or not priority.isascii()):
            raise broken(
                path,
                line,
                N_("{file}, line {line}: the priority has to be a whole number from 0 to 9, not {value}."),
                value=shown(priority),
            )  # fmt: skip
        languages = cells.get("language", "").replace(",", " ").replace(";", " ").split()
        found[name] = Bundle(
            name,
            number,
            size,
            cells.get("category") or release.category,
            tuple(languages or release.languages),
            int(priority or release.priority),
        )
    if not found:
        raise broken(path, 1, N_("{file}, line {line}: there is no bundle in it."))
    return list(found.values())

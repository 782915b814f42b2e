"""What in a scenario contradicts something else in it; each refusal names file, line and reason."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from datetime import date
from itertools import pairwise

from cuntong_daemon.policy.calendar import Rule
from cuntong_protocol.divisions import (
    GROUP_LENGTHS,
    NATION,
    TIER_LABELS,
    DivisionError,
    parse_division,
)
from cuntong_protocol.texts import N_
from cuntong_simulations import toml
from cuntong_simulations.model.generate import generate

from .bundles import bundles_in
from .calendars import ALWAYS, windows
from .errors import ScenarioError
from .origin import Origin
from .places import THIN_MOST_BYTES_S, THIN_TIERS
from .scenario import Release, Scenario, Tier
from .units import UnitError, shown

DAY_S = 86400.0
FIRST_DAY, LAST_DAY = date(2000, 1, 1), date(2199, 12, 31)
MOST_STEPS = 1_000_000
"""Eleven days of seconds, a hundred years of hours."""
SHARE_SLACK = 1e-6
"""Three thirds written with six digits add up to 1."""
DISK_LEAST_BYTES = 100e6
"""Nothing smaller is worth its postage: a slip in the unit."""


def check(scenario: Scenario, origin: Origin) -> None:
    """Refuse what can't be.

    Raises:
        ScenarioError: the first contradiction.
    """
    _check_run(scenario, origin)
    _check_calendars(scenario, origin)
    _check_tiers(scenario, origin)
    _check_releases(scenario, origin)
    _check_carriers(scenario, origin)
    _check_publishers(scenario, origin)


def _check_run(scenario: Scenario, origin: Origin) -> None:
    step = float(scenario.run.step)
    if step < 1 or step % 1 or DAY_S % step:
        raise origin.refusal(
            ("run", "step"),
            "sim.step",
            N_("{file}, line {line}: {key} has to divide a day into whole seconds, such as '1 h' or '10 min'."),
        )  # fmt: skip
    steps = int(scenario.run.days * DAY_S / step)
    if steps > MOST_STEPS:
        raise origin.refusal(
            ("run", "step"),
            "sim.too-many-steps",
            N_(
                "{file}, line {line}: with this {key} there are {steps} steps; {most} are the most."
            ),
            steps=steps,
            most=MOST_STEPS,
        )
    if not FIRST_DAY <= scenario.run.start <= LAST_DAY:
        raise origin.refusal(
            ("run", "start"),
            "sim.absurd",
            N_("{file}, line {line}: {key} = {value} makes no sense: it has to lie between {least} and {most}."),
            value=scenario.run.start.isoformat(),
            least=FIRST_DAY.isoformat(),
            most=LAST_DAY.isoformat(),
        )  # fmt: skip


def _check_calendars(scenario: Scenario, origin: Origin) -> None:
    for name, written in scenario.calendars.items():
        if name in ("", ALWAYS):
            raise origin.refusal(
                ("calendars", name),
                "sim.calendar-name",
                N_("{file}, line {line}: a calendar can't be called {name}; that has a meaning already."),
                name=shown(name),
            )  # fmt: skip
        for number, line in enumerate(written):
            try:
                windows([line], Rule())
            except UnitError as error:
                raise origin.refusal(
                    ("calendars", name, number), error.code, error.template, **error.params
                ) from None
    for path, name in _named_calendars(scenario):
        if name and name != ALWAYS and name not in scenario.calendars:
            raise origin.refusal(
                path,
                "sim.unknown-calendar",
                N_("{file}, line {line}: {key} names the calendar {value}, which isn't there; the nearest is {nearest}."),
                value=shown(name),
                nearest=toml.nearest(name, [*scenario.calendars, ALWAYS]),
            )  # fmt: skip
        is_needed = path[-1] in ("on", "hours") or (path[-1] == "window" and name)
        if is_needed and name != ALWAYS and not scenario.calendars.get(name):
            raise origin.refusal(
                path,
                "sim.never",
                N_("{file}, line {line}: {key} would never be: the calendar {value} has no windows."),
                value=shown(name),
            )  # fmt: skip


def _named_calendars(scenario: Scenario) -> Iterator[tuple[toml.Path, str]]:
    for number, tier in enumerate(scenario.tiers):
        for key in ("on", "public", "pause", "window"):
            yield ("tier", number, key), getattr(tier, key)
    if scenario.satellite is not None:
        yield ("satellite", "hours"), scenario.satellite.hours


def _check_tiers(scenario: Scenario, origin: Origin) -> None:
    seen: dict[str, int] = {}
    for number, tier in enumerate(scenario.tiers):
        if tier.tier in seen:
            raise origin.refusal(
                ("tier", number, "tier"),
                "sim.tier-twice",
                N_("{file}, line {line}: the tier {tier} is there twice."),
                tier=tier.tier,
            )
        seen[tier.tier] = number
    nation = seen.get("nation")
    if nation is None or scenario.tiers[nation].count != 1:
        raise origin.refusal(
            ("tier", seen.get("nation", 0), "count"),
            "sim.one-nation",
            N_("{file}, line {line}: there has to be a [[tier]] with tier = 'nation' and count = 1: all places lie below it."),
        )  # fmt: skip
    if scenario.places is None:
        _check_counts(scenario, origin)
    for number, tier in enumerate(scenario.tiers):
        if scenario.places is None:
            _check_parents(scenario, tier, number, origin)
        if not tier.store and ("tier", number, "store") in origin.places:
            raise _zero(("tier", number, "store"), origin)
        _check_links(tier, number, origin)
        _check_shares(tier, number, origin)


def _check_counts(scenario: Scenario, origin: Origin) -> None:
    """More places than the codes of those above them have numbers for, however they are spread."""
    depths = {TIER_LABELS.index(tier.tier): number for number, tier in enumerate(scenario.tiers)}
    there = sorted(depth for depth in depths if scenario.tiers[depths[depth]].count)
    for above, depth in pairwise(there):
        parents, tier = scenario.tiers[depths[above]], scenario.tiers[depths[depth]]
        most = 10 ** GROUP_LENGTHS[depth - 1] - 1
        if tier.count > parents.count * most:
            raise origin.refusal(
                ("tier", depths[depth], "count"),
                "sim.too-many-below",
                N_("{file}, line {line}: {count} places are too many for the tier {tier}: division codes allow {most} right below each {parent}."),
                count=tier.count,
                tier=tier.tier,
                most=most,
                parent=parents.tier,
            )  # fmt: skip


def _check_parents(scenario: Scenario, tier: Tier, number: int, origin: Origin) -> None:
    """A tier that is described with no places can't have places below it."""
    depth = TIER_LABELS.index(tier.tier)
    below = [one for one in scenario.tiers if TIER_LABELS.index(one.tier) > depth and one.count]
    if tier.count == 0 and below:
        raise origin.refusal(
            ("tier", number, "count"),
            "sim.no-parents",
            N_("{file}, line {line}: the tier {tier} has no places, but {below} lies below it; leave the tier out instead."),
            tier=tier.tier,
            below=below[0].tier,
        )  # fmt: skip


def _check_links(tier: Tier, number: int, origin: Origin) -> None:
    is_thin = tier.tier in THIN_TIERS
    for place, link in enumerate(tier.links):
        for key, rate in (("down", link.down), ("up", link.up)):
            path = ("tier", number, "links", place, key)
            if not rate:
                raise origin.refusal(
                    path,
                    "sim.zero-rate",
                    N_("{file}, line {line}: {key} is zero; places without a link are said by without_link."),
                )  # fmt: skip
            if is_thin and rate > THIN_MOST_BYTES_S:
                raise origin.refusal(
                    path,
                    "sim.absurd-link",
                    N_("{file}, line {line}: {key} makes no sense: no {tier} has more than 10 Gbit/s."),
                    tier=tier.tier,
                )  # fmt: skip


def _check_shares(tier: Tier, number: int, origin: Origin) -> None:
    for key, shares in (
        ("links", [link.share for link in tier.links]),
        ("subscriptions", [one.share for one in tier.subscriptions]),
    ):
        if shares and abs(sum(shares) - 1) > SHARE_SLACK:
            raise origin.refusal(
                ("tier", number, key),
                "sim.shares",
                N_("{file}, line {line}: the shares of {key} add up to {sum}; they have to add up to 100 %."),
                sum=f"{sum(shares) * 100:.8g} %",
            )  # fmt: skip


def _check_releases(scenario: Scenario, origin: Origin) -> None:
    tiers = {tier.tier for tier in scenario.tiers}
    seen: set[str] = set()
    for number, release in enumerate(scenario.releases):
        at: toml.Path = ("release", number)
        if "/" in release.name:
            raise origin.refusal(
                (*at, "name"),
                "sim.release-name",
                N_("{file}, line {line}: a release's name can't have a slash: {value}."),
                value=shown(release.name),
            )
        if release.name in seen:
            raise origin.refusal(
                (*at, "name"),
                "sim.release-twice",
                N_("{file}, line {line}: the release {release} is there twice."),
                release=release.name,
            )
        seen.add(release.name)
        if release.day >= scenario.run.days:
            raise origin.refusal(
                (*at, "day"),
                "sim.release-after-end",
                N_("{file}, line {line}: the release {release} is published on day {day}, when the run of {days} days is over."),
                release=release.name,
                day=release.day,
                days=scenario.run.days,
            )  # fmt: skip
        for tier, days in release.deadlines.items():
            if days <= 0:
                raise origin.refusal(
                    (*at, "deadlines", tier),
                    "sim.deadline-before-release",
                    N_("{file}, line {line}: the deadline of {tier} isn't after the release {release}; it counts from the day of release."),
                    tier=tier,
                    release=release.name,
                )  # fmt: skip
        for key, named in (("deadlines", [*release.deadlines]), ("tiers", release.tiers)):
            for tier in named:
                if tier not in tiers:
                    raise _unknown_tier((*at, key), tier, origin)
        _check_publisher(release, number, tiers, origin)
        _check_deadlines(release, number, origin)
        _check_sizes(scenario, release, number, origin)


def _unknown_tier(path: toml.Path, tier: str, origin: Origin) -> ScenarioError:
    return origin.refusal(
        path,
        "sim.no-such-tier",
        N_("{file}, line {line}: {key} names the tier {tier}, which the scenario doesn't have."),
        tier=tier,
    )


def _check_publisher(release: Release, number: int, tiers: Collection[str], origin: Origin) -> None:
    path = ("release", number, "publisher")
    try:
        publisher = parse_division(release.publisher)
    except DivisionError:
        raise origin.refusal(
            path,
            "sim.bad-publisher",
            N_("{file}, line {line}: {code} isn't a division code."),
            code=shown(release.publisher),
        ) from None
    if publisher != NATION and publisher.tier.label not in tiers:
        raise _unknown_tier(path, publisher.tier.label, origin)


def _check_deadlines(release: Release, number: int, origin: Origin) -> None:
    """Whoever lies above a place that is meant carries it too; nobody above the publisher does, and nobody below."""
    publisher = int(parse_division(release.publisher).tier)
    deepest = max((TIER_LABELS.index(tier) for tier in release.tiers), default=5)
    for tier in release.deadlines:
        if not publisher <= TIER_LABELS.index(tier) <= deepest:
            raise origin.refusal(
                ("release", number, "deadlines", tier),
                "sim.deadline-for-nobody",
                N_("{file}, line {line}: {key}: the release {release} never comes to the tier {tier}."),
                release=release.name,
                tier=tier,
            )  # fmt: skip


def _check_publishers(scenario: Scenario, origin: Origin) -> None:
    """As a rule the nation publishes, and nothing has to be put together to know that it is there."""
    named = [parse_division(release.publisher) for release in scenario.releases]
    if all(publisher == NATION for publisher in named):
        return
    codes = frozenset(generate(scenario).code.tolist())
    for number, publisher in enumerate(named):
        if int(publisher) not in codes:
            raise origin.refusal(
                ("release", number, "publisher"),
                "sim.no-publisher",
                N_("{file}, line {line}: the release {release} is published by {code}, which isn't a place of this scenario."),
                release=scenario.releases[number].name,
                code=publisher,
            )  # fmt: skip


def _check_sizes(scenario: Scenario, release: Release, number: int, origin: Origin) -> None:
    at: toml.Path = ("release", number)
    ways = [
        key
        for key, is_given in (
            ("size", release.size > 0 or (*at, "size") in origin.places),
            ("sizes", bool(release.sizes)),
            ("file", bool(release.file)),
        )
        if is_given
    ]
    if len(ways) != 1:
        raise origin.refusal(
            (*at, ways[1] if ways else "size"),
            "sim.release-size",
            N_("{file}, line {line}: the release {release} has to have either a size, or sizes, or a file."),
            release=release.name,
        )  # fmt: skip
    sizes = [bundle.size_bytes for bundle in bundles_in(release, number)]
    if len(sizes) != release.bundles and (*at, "bundles") in origin.places:
        raise origin.refusal(
            (*at, "bundles"),
            "sim.release-bundles",
            N_("{file}, line {line}: the release {release} has {found} bundles by its {way}, not {bundles}; leave {key} out."),
            release=release.name,
            found=len(sizes),
            way=ways[0],
            bundles=release.bundles,
        )  # fmt: skip
    if min(sizes) < 1:
        raise origin.refusal(
            (*at, ways[0]),
            "sim.empty-bundle",
            N_("{file}, line {line}: the release {release} has a bundle without a byte in it."),
            release=release.name,
        )
    meant = {TIER_LABELS.index(tier) for tier in release.tiers} or {5}
    for tier in scenario.tiers:
        depth = TIER_LABELS.index(tier.tier)
        # Whoever lies above a place that is meant carries it too.
        if tier.store and sum(sizes) > tier.store and depth <= max(meant):
            raise origin.refusal(
                (*at, ways[0]),
                "sim.release-too-large",
                N_("{file}, line {line}: the release {release} takes {size} GB, more than a {tier}'s store of {store} GB."),
                release=release.name,
                tier=tier.tier,
                size=f"{sum(sizes) / 1e9:g}",
                store=f"{tier.store / 1e9:g}",
            )  # fmt: skip


def _check_carriers(scenario: Scenario, origin: Origin) -> None:
    tiers = {tier.tier for tier in scenario.tiers}
    releases = {release.name for release in scenario.releases}
    # The hubs' default is a tier that a small scenario may not have.
    if scenario.vpn.shape == "hub" and scenario.vpn.hub not in tiers:
        raise _unknown_tier(("vpn", "hub"), scenario.vpn.hub, origin)
    satellite, disks = scenario.satellite, scenario.disks
    if satellite is not None:
        if not satellite.rate:
            raise _zero(("satellite", "rate"), origin)
        _check_lost(("satellite", "loss"), satellite.loss, origin)
        if satellite.fade * satellite.fades_per_hour >= 3600:
            raise origin.refusal(
                ("satellite", "fades_per_hour"),
                "sim.always-faded",
                N_(
                    "{file}, line {line}: with so many fades of this length nothing is ever received."
                ),
            )
        if scenario.places is None and not any(tier.dish for tier in scenario.tiers):
            raise origin.refusal(
                ("satellite",),
                "sim.no-dish",
                N_("{file}, line {line}: there is a satellite, but no tier has a dish."),
            )
        _check_named(("satellite", "releases"), satellite.releases, releases, origin)
    elif scenario.run.policy == "satellite-first":
        raise origin.refusal(
            ("run", "policy"),
            "sim.no-satellite",
            N_("{file}, line {line}: the policy is satellite-first, but there is no [satellite]."),
        )
    if disks is not None:
        for key, value in (("size", disks.size), ("copy_rate", disks.copy_rate), ("leave", disks.leave), ("batch", disks.batch)):  # fmt: skip
            if not value:
                raise _zero(("disks", key), origin)
        if disks.size < DISK_LEAST_BYTES:
            raise origin.refusal(
                ("disks", "size"),
                "sim.absurd",
                N_("{file}, line {line}: {key} = {value} makes no sense: it has to be at least {least}."),
                value=f"{disks.size:.15g} B",
                least=f"{DISK_LEAST_BYTES / 1e6:g} MB",
            )  # fmt: skip
        _check_lost(("disks", "lost"), disks.lost, origin)
        if disks.transit_least > disks.transit_most:
            raise origin.refusal(
                ("disks", "transit_least"),
                "sim.transit",
                N_("{file}, line {line}: transit_least is longer than transit_most."),
            )
        for number, tier in enumerate(disks.to):
            if tier not in tiers:
                raise _unknown_tier(("disks", "to", number), tier, origin)
        _check_named(("disks", "releases"), disks.releases, releases, origin)
    if scenario.calibration.efficiency is not None and scenario.calibration.efficiency <= 0:
        raise _zero(("calibration", "efficiency"), origin)


def _check_lost(path: toml.Path, lost: float, origin: Origin) -> None:
    if lost >= 1:
        raise origin.refusal(
            path,
            "sim.all-lost",
            N_("{file}, line {line}: with {key} = 100 % nothing ever arrives."),
        )


def _zero(path: toml.Path, origin: Origin) -> ScenarioError:
    return origin.refusal(path, "sim.zero", N_("{file}, line {line}: {key} can't be zero."))


def _check_named(at: toml.Path, named: list[str], known: set[str], origin: Origin) -> None:
    for number, name in enumerate(named):
        if name not in known:
            raise origin.refusal(
                (*at, number),
                "sim.unknown-release",
                N_("{file}, line {line}: {key} names the release {value}, which isn't there; the nearest is {nearest}."),
                value=shown(name),
                nearest=toml.nearest(name, sorted(known)),
            )  # fmt: skip

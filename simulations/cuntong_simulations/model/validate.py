"""Whether the model computes what it should: against textbooks, closed forms, pieces, and itself a second time."""

from __future__ import annotations

import random
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from cuntong_daemon.policy.uplink import Receiver, uplink_scarcity
from cuntong_protocol.divisions import Tier
from cuntong_protocol.texts import N_, Sentence, sentence
from cuntong_simulations.scenario.scenario import Policy

from .closed import even_shares_bytes_s, pipeline_s, swarm_s
from .filling import progressive_filling
from .max_min import cut
from .outcome import Outcome
from .pieces import PIECE_BYTES, Peer, distribute
from .reference import run_reference
from .trials import Network, Place, draw, draw_tree, one_bundle

TREES, SWARMS, PIPELINES, PIECE_TREES, SCENARIOS = 300, 200, 60, 20, 40
STEPS = 200
"""In which the model passes a bundle on when it is compared with closed forms: a step is less than 1 % of the time."""
PIECES = 512
_STEP_S = 36.0
_RATES = [5e6, 2.5e6, 1e6, 4e5]
"""Bytes/s from the nation to villages, around which links are drawn: none so thin that the policy caps its uplink."""
_TIERS = [0, 1, 3, 5]


@dataclass(frozen=True, slots=True)
class Check:
    """One comparison.

    Attributes:
        name: What was compared.
        found: The largest difference, or its 95th percentile: relative.
        allowed: The most that it may be.
        cases: How many were compared.
    """

    name: Sentence
    found: float
    allowed: float
    cases: int

    @property
    def is_met(self) -> bool:
        return self.found <= self.allowed


def validate(tell: Callable[[Sentence], None], *, share: float = 1.0) -> list[Check]:
    """Compare the model with all that is there to compare it with.

    Args:
        tell: Hears what is compared next.
        share: Of the cases; at least one of each.
    """
    checks: list[Check] = []
    for name, differences, cases, percentile, allowed in _COMPARISONS:
        tell(name)
        count = max(1, round(cases * share))
        found = [difference for seed in range(count) for difference in differences(seed)]
        checks.append(Check(name, float(np.percentile(found, percentile)), allowed, count))
    return checks


def _max_min(seed: int) -> Iterator[float]:
    """Nested links over flows in a row: the model's way of cutting, and progressive filling."""
    chance = random.Random(f"max-min {seed}")  # noqa: S311 - drawn networks.
    flows = chance.randint(1, 60)
    demands = [chance.choice((0.0, chance.expovariate(1.0), chance.uniform(0, 9))) for _ in range(flows)]  # fmt: skip
    counts = [chance.choice((1.0, 1.0, chance.uniform(1, 20))) for _ in range(flows)]
    ranges = list(_nested(chance, 0, flows))
    room: dict[Hashable, float] = {
        number: chance.uniform(0, 1.2) * sum(
            count * demand for count, demand in zip(counts[begin:end], demands[begin:end], strict=True)
        )
        for number, (begin, end) in enumerate(ranges)
    }  # fmt: skip
    ways: list[dict[Hashable, float]] = [
        {number: counts[flow] for number, (begin, end) in enumerate(ranges) if begin <= flow < end}
        for flow in range(flows)
    ]
    expected = progressive_filling(room, demands, ways)
    shares = np.array(demands)
    for number, (begin, end) in enumerate(ranges):
        cut(shares, np.array(counts), begin, end, room[number])
    scale = max(1e-3, *expected)
    yield max(abs(ours - theirs) for ours, theirs in zip(shares, expected, strict=True)) / scale


def _nested(chance: random.Random, begin: int, end: int) -> Iterator[tuple[int, int]]:
    """Ranges, the inner ones before those that contain them."""
    if end - begin > 1 and chance.random() < 0.8:
        middle = chance.randint(begin + 1, end - 1)
        yield from _nested(chance, begin, middle)
        yield from _nested(chance, middle, end)
    yield begin, end


def _swarm(seed: int) -> Iterator[float]:
    """Siblings with a server (Kumar and Ross)."""
    chance = random.Random(f"swarm {seed}")  # noqa: S311 - drawn networks.
    rates = [round(10 ** chance.uniform(5.1, 6.8)) for _ in range(2 * chance.randint(3, 12))]
    down, up = rates[::2], rates[1::2]
    server = round(10 ** chance.uniform(5.1, 6.8))
    # The end lies anywhere in its step.
    size = round(STEPS * _STEP_S * chance.uniform(1, 1.01) / swarm_s(1, server, down, up))
    places = [Place(-1, 0, server, server), *(Place(0, 1, *each) for each in zip(down, up, strict=True))]  # fmt: skip
    found = run_network(one_bundle(places, size, policy="swarm", step_s=_STEP_S))
    yield _difference(_last_s(found), swarm_s(size, server, down, up))


def _pipeline(seed: int) -> Iterator[float]:
    """Trees in which places of one tier are alike."""
    chance = random.Random(f"pipeline {seed}")  # noqa: S311 - drawn networks.
    places = [Place(-1, 0, 1e6, _rate(chance, 0))]
    above = [0]
    for level in range(1, len(_TIERS)):
        down, up, children = _rate(chance, level), _rate(chance, level), chance.randint(1, 4)
        added = [
            Place(parent, _TIERS[level], down, up) for parent in above for _ in range(children)
        ]
        above = list(range(len(places), len(places) + len(added)))
        places += added
    parent = [one.parent for one in places]
    downs, ups = [one.down_bytes_s for one in places], [one.up_bytes_s for one in places]
    slowest = pipeline_s(1.0, even_shares_bytes_s(parent, downs, ups, above[0]))
    size = round(STEPS * _STEP_S * chance.uniform(1, 1.01) / slowest)
    found = run_network(one_bundle(places, size, policy="tree", step_s=_STEP_S))
    for node in range(1, len(places)):
        expected = pipeline_s(size, even_shares_bytes_s(parent, downs, ups, node))
        # In units of the whole, which is what a step is small against.
        yield abs(float(found.done_h[node, 0]) * 3600 - expected) * slowest / size


def _rate(chance: random.Random, level: int) -> float:
    return float(round(_RATES[level] * np.exp(chance.uniform(-1, 1))))


def _tree_pieces(seed: int) -> Iterator[float]:
    yield _against_pieces(seed, "tree")


def _swarm_pieces(seed: int) -> Iterator[float]:
    yield _against_pieces(seed, "swarm")


def _against_pieces(seed: int, policy: Policy) -> float:
    """The last place's time."""
    chance = random.Random(f"pieces {seed}")  # noqa: S311 - drawn networks.
    places = draw_tree(chance, tiers=_TIERS, most_children=3, rates=_RATES)
    peers = [Peer(one.parent, one.down_bytes_s, one.up_bytes_s) for one in places]
    expected = max(distribute(peers, PIECES * PIECE_BYTES, mode="tree" if policy == "tree" else "swarm", is_trading=_trading(places)))  # fmt: skip
    # Like the pieces, the model is scaled: a longer transfer over the same links has the same course.
    scale = STEPS * _STEP_S / expected
    network = one_bundle(places, PIECES * PIECE_BYTES * scale, policy=policy, step_s=_STEP_S)
    return _difference(_last_s(run_network(network)), expected * scale)


def _trading(places: Sequence[Place]) -> list[bool]:
    """Whose children trade: where the policies say so."""
    found = []
    for number, place in enumerate(places):
        children = [one for one in places if one.parent == number]
        receivers = [Receiver(int(one.down_bytes_s), int(one.up_bytes_s)) for one in children]
        scarcity = uplink_scarcity(int(place.up_bytes_s), receivers, vpn_shape="mesh")
        found.append(bool(children) and (children[0].tier <= Tier.COUNTY or scarcity.is_scarce))
    return found


def _second_time(seed: int) -> Iterator[float]:
    """All that there is, computed by the reference."""
    network = draw(seed)
    ours = run_network(network)
    theirs = run_reference(
        network.scenario,
        network.country,
        network.bundles,
        calibration=network.scenario.calibration,
        sky=network.heard,
    )
    yield from differences(ours, theirs)


def differences(ours: Outcome, theirs: Outcome) -> list[float]:
    """How far two outcomes of one scenario are from each other, relative: hours, and each sum of bytes and node-hours."""
    hours = ours.bundles.released_s.max() / 3600 + ours.country.scenario.run.days * 24
    if (np.isnan(ours.done_h) != np.isnan(theirs.done_h)).any():
        return [np.inf]
    found = [float(np.nanmax(np.abs(ours.done_h - theirs.done_h), initial=0.0)) / hours]
    for one, other in (
        (ours.carried, theirs.carried),
        (ours.link_bytes, theirs.link_bytes),
        (ours.link_room, theirs.link_room),
        (ours.held_back, theirs.held_back),
    ):
        found.append(float(np.abs(one - other).max() / max(np.abs(other).max(), 1.0)))
    return found


def _threads(seed: int) -> Iterator[float]:
    """0 when one and two threads give the same bits, else 1."""
    network = draw(seed)
    one, two = run_network(network, threads=1), run_network(network, threads=2)
    yield float(
        any(
            first.tobytes() != second.tobytes()
            for first, second in (
                (one.done_h, two.done_h),
                (one.carried, two.carried),
                (one.link_bytes, two.link_bytes),
                (one.held_back, two.held_back),
            )
        )
    )


def run_network(network: Network, *, threads: int = 1) -> Outcome:
    """The model's outcome."""
    from .run import run

    return run(
        network.scenario, network.country, network.bundles, threads=threads, heard=network.heard
    )


def _last_s(outcome: Outcome) -> float:
    last = float(outcome.done_h.max())
    return np.inf if np.isnan(last) else last * 3600


def _difference(found: float, expected: float) -> float:
    return abs(found - expected) / expected


_COMPARISONS: list[tuple[Sentence, Callable[[int], Iterator[float]], int, float, float]] = [
    (sentence("validate.max-min", N_("Sharing of links, against progressive filling")), _max_min, TREES, 100, 1e-9),
    (sentence("validate.swarm", N_("Swarms, against the minimum distribution time (Kumar and Ross)")), _swarm, SWARMS, 100, 0.02),
    (sentence("validate.pipeline", N_("Trees, against the pipeline in closed form")), _pipeline, PIPELINES, 100, 0.01),
    (sentence("validate.tree-pieces", N_("Trees, last place, against single pieces (95th percentile)")), _tree_pieces, PIECE_TREES, 95, 0.02),
    (sentence("validate.swarm-pieces", N_("Swarms, last place, against single pieces (95th percentile)")), _swarm_pieces, PIECE_TREES, 95, 0.02),
    (sentence("validate.reference", N_("Drawn scenarios, against the plain model")), _second_time, SCENARIOS, 100, 1e-6),
    (sentence("validate.threads", N_("Drawn scenarios, one thread against two: the same bytes")), _threads, SCENARIOS // 4, 100, 0.0),
]  # fmt: skip

"""The satellite's time is shared out as promised, whatever is on the air and whatever isn't ready."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable
from types import FrameType
from typing import Any

import pytest

from cuntong_daemon.policy.airtime import (
    FRESH_AT_ONCE,
    METADATA_PART,
    RUN_SYMBOLS,
    SECOND_SLOT_PART,
    Aired,
    Airtime,
    Kind,
    Run,
    Turn,
    forecast,
    turn_of,
)
from cuntong_protocol.datacast.blocks import esi_limit, object_blocks, pass_length

SYMBOLS_S = 1773.0
"""About 20 Mbit/s."""
MB = 1_000_000
IDLE_S = 0.05


def bundle(key: str, size: int, *, passes: float = 0, **more: Any) -> Aired:
    lengths = [pass_length(block) for block in object_blocks(size)]
    counters = [int(passes * length) for length in lengths]
    return Aired(key, Kind.BUNDLE, lengths, counters, **more)


def metadata(key: str, size: int, **more: Any) -> Aired:
    lengths = [pass_length(block) for block in object_blocks(size)]
    return Aired(key, Kind.METADATA, lengths, [0] * len(lengths), **more)


class Sender:
    """Sends on a counted clock, and remembers what."""

    def __init__(
        self,
        *items: Aired,
        is_ready: Callable[[str, int], bool] = lambda _key, _block: True,
        symbols_s: float = SYMBOLS_S,
    ) -> None:
        self.now = 0.0
        self.symbols_s = symbols_s
        self.runs: list[tuple[float, Run]] = []
        self.idle_s = 0.0
        self.air = Airtime(is_ready)
        for item in items:
            self.air.add(item)

    def step(self) -> Run | None:
        run = self.air.next_run(self.now)
        if run is None:
            self.now += IDLE_S
            self.idle_s += IDLE_S
        else:
            self.runs.append((self.now, run))
            self.now += run.count / self.symbols_s
        return run

    def send(self, seconds: float) -> Counter[str]:
        """For so long; returns how many symbols of each item."""
        until, before = self.now + seconds, len(self.runs)
        while self.now < until:
            self.step()
        found: Counter[str] = Counter()
        for _, run in self.runs[before:]:
            found[run.item] += run.count
        return found

    def send_until(self, is_done: Callable[[], bool], *, at_most_s: float = 100_000) -> float:
        """Until something is so; returns when."""
        while not is_done():
            assert self.now < at_most_s
            self.step()
        return self.now

    def passes(self, key: str) -> int:
        return self.air.items[key].complete_passes


def part(sent: Counter[str], *keys: str) -> float:
    return sum(sent[key] for key in keys) / sent.total()


# The four classes.


def test_a_large_catalogue_gets_its_reserved_part_and_no_more_while_content_waits() -> None:
    sender = Sender(metadata("catalogue", 100 * MB, order=1), bundle("film", 1000 * MB))
    assert part(sender.send(600), "catalogue") == pytest.approx(METADATA_PART, rel=0.02)


def test_metadata_has_all_of_the_air_when_there_is_nothing_else() -> None:
    sender = Sender(metadata("catalogue", 10 * MB, interval_s=15))
    sender.send_until(lambda: sender.passes("catalogue") == 3)
    assert sender.idle_s == pytest.approx(sender.now - 3 * 7600 / SYMBOLS_S, abs=2)
    begins = [at for at, run in sender.runs if run.block == 0 and run.first % 3183 == 0]
    assert [round(at) for at in begins] == [0, 15, 30]


def test_three_classes_share_the_air_as_specified() -> None:
    sender = Sender(
        bundle("notice", 1000 * MB, is_urgent=True),
        bundle("new", 1000 * MB),
        bundle("old", 1000 * MB, passes=1),
    )
    sent = sender.send(300)
    assert part(sent, "notice") == pytest.approx(0.6, rel=0.01)
    assert part(sent, "new") == pytest.approx(0.3, rel=0.01)
    assert part(sent, "old") == pytest.approx(0.1, rel=0.01)


@pytest.mark.parametrize("passes", [0, 1])
def test_urgent_ones_have_at_most_60_percent_whoever_waits(passes: int) -> None:
    sender = Sender(
        *(bundle(f"notice{n}", 1000 * MB, is_urgent=True, priority=9) for n in range(5)),
        *(bundle(f"other{n}", 1000 * MB, passes=passes, priority=4) for n in range(40)),
    )
    sent = sender.send(100)
    others = [key for key in sent if key.startswith("other")]
    assert part(sent, *others) == pytest.approx(0.4, rel=0.01)


@pytest.mark.parametrize("is_urgent", [False, True])
def test_a_small_bundle_is_not_repeated_thousands_of_times_during_a_large_ones_pass(
    *, is_urgent: bool
) -> None:
    large, small = bundle("large", 10_000 * MB, is_urgent=is_urgent), bundle("small", MB)
    sender = Sender(large, small)
    sender.send_until(lambda: sender.passes("small") == 1)
    sent = sender.send(600)
    ratio = (small.symbols_a_pass / large.symbols_a_pass) ** 0.5
    assert sent["small"] / sent["large"] == pytest.approx(ratio, rel=0.05)
    assert sender.passes("small") > 10


def test_what_one_class_does_not_use_goes_to_the_others() -> None:
    sender = Sender(bundle("new", 1000 * MB), bundle("old", 1000 * MB, passes=1))
    assert part(sender.send(300), "new") == pytest.approx(0.75, rel=0.01)
    sender.air.remove("new")
    assert sender.send(60).keys() == {"old"}
    assert sender.idle_s == 0


def test_a_class_that_had_nothing_to_send_gets_no_credit_for_that() -> None:
    is_stuck = True
    sender = Sender(
        bundle("notice", 1000 * MB, is_urgent=True),
        bundle("new", 1000 * MB),
        is_ready=lambda key, _block: key != "notice" or not is_stuck,
    )
    assert sender.send(200).keys() == {"new"}
    is_stuck = False
    assert part(sender.send(10), "notice") == pytest.approx(0.6, rel=0.02)


# Weights.


def test_first_passes_share_by_priority() -> None:
    sender = Sender(
        bundle("a", 1000 * MB, priority=5),
        bundle("b", 1000 * MB, priority=6),
        bundle("c", 1000 * MB, priority=8),
    )
    sent = sender.send(300)
    assert sent["b"] / sent["a"] == pytest.approx(1.5, rel=0.01)
    assert sent["c"] / sent["a"] == pytest.approx(1.5**3, rel=0.01)


def test_repetitions_share_by_the_square_root_of_demand_and_size_however_far_apart_they_are() -> (
    None
):
    small = bundle("small", 100_000, passes=1)
    large = bundle("large", 1000 * MB, passes=1)
    popular = bundle("popular", 1000 * MB, passes=1, priority=9)
    sender = Sender(small, large, popular)
    sent = sender.send(1000)
    ratio = (large.symbols_a_pass / small.symbols_a_pass) ** 0.5
    assert sent["large"] / sent["small"] == pytest.approx(ratio, rel=0.03)
    assert sent["popular"] / sent["large"] == pytest.approx(1.5**2, rel=0.01)


def test_one_that_was_not_ready_for_long_gets_no_credit_and_the_others_go_on() -> None:
    stuck = {"b"}
    sender = Sender(
        *(bundle(key, 1000 * MB) for key in "abc"), is_ready=lambda key, _block: key not in stuck
    )
    sent = sender.send(100)
    assert part(sent, "a") == pytest.approx(0.5, rel=0.01)
    assert sender.idle_s == 0
    stuck.clear()
    assert part(sender.send(30), "b") == pytest.approx(1 / 3, rel=0.02)


def test_the_only_one_that_is_ready_is_found_among_hundreds_of_others() -> None:
    """Also when it is the lightest by far, and beyond what is looked at in one call."""
    sender = Sender(
        *(bundle(f"{n:03}", 100 * MB, passes=1, priority=9) for n in range(300)),
        bundle("tiny", 1000, passes=1, priority=0),
        is_ready=lambda key, _block: key == "tiny",
    )
    sent = sender.send(10)
    assert sent.keys() == {"tiny"}
    assert sender.idle_s < 1


# First passes.


def test_first_passes_go_four_at_a_time_and_in_order() -> None:
    sender = Sender(*(bundle(f"{n}", 10 * MB, order=9 - n) for n in range(10)))
    sender.send_until(lambda: all(sender.passes(key) for key in sender.air.items))
    began = [item.key for item in sorted(sender.air.items.values(), key=lambda it: it.began_at)]
    assert began == [f"{n}" for n in reversed(range(10))]
    for at, run in sender.runs:
        on_the_way = [
            item
            for item in sender.air.items.values()
            if item.began_at <= at and not 0 <= item.first_ended_at < at
        ]
        assert len(on_the_way) <= FRESH_AT_ONCE, run


def test_what_has_begun_is_ended_before_a_newcomer_with_a_better_place() -> None:
    sender = Sender(*(bundle(f"{n}", n * MB, order=n) for n in range(4, 9)))
    sender.send(5)
    sender.air.add(bundle("new", 10 * MB, order=0))
    first = sender.send_until(lambda: any(sender.passes(key) for key in "4567"))
    assert sender.air.items["new"].began_at < 0
    sender.send(1)
    assert sender.air.items["new"].began_at >= first
    assert sender.air.items["8"].began_at < 0


def test_a_change_of_order_counts_for_those_that_wait_and_a_new_urgent_one_begins_at_once() -> None:
    sender = Sender(*(bundle(f"{n}", 100 * MB, order=n) for n in range(8)))
    sender.send(1)
    sender.air.change("7", priority=5, is_urgent=True, order=7)
    sender.air.change("6", priority=5, is_urgent=False, order=0)
    sender.send(1)
    assert sender.air.items["7"].began_at == pytest.approx(1, abs=0.1)
    sender.send_until(lambda: sender.air.items["6"].began_at > 0)
    assert sender.air.items["4"].began_at < 0
    assert sum(item.has_begun for item in sender.air.items.values()) == 6


def test_within_a_bundle_no_block_is_ahead_by_more_than_a_run() -> None:
    item = bundle("set", 21 * MB + 300_000)
    sender = Sender(item)
    last = [0] * len(item.passes)
    while sender.passes("set") < 3:
        run = sender.step()
        assert run is not None
        last[run.block] = run.count
        parts = [c / length for c, length in zip(item.counters, item.passes, strict=True)]
        leads = [p - q / n for p, q, n in zip(parts, last, item.passes, strict=True)]
        assert max(leads) <= min(parts) + 1e-9


def test_a_block_that_cannot_be_had_holds_its_bundle_up_at_the_end_of_the_pass_only() -> None:
    stuck = {3}
    item = bundle("set", 40 * MB)
    sender = Sender(item, is_ready=lambda _key, block: block not in stuck)
    sender.send(60)
    assert item.counters == [0 if n == 3 else length for n, length in enumerate(item.passes)]
    stuck.clear()
    sender.send_until(lambda: sender.passes("set") == 1)
    assert item.counters == item.passes


def test_first_passes_that_can_never_go_on_do_not_hold_up_all_others() -> None:
    sender = Sender(
        *(bundle(f"{n}", MB, order=n) for n in range(9)),
        is_ready=lambda key, _block: key > "4",
    )
    sender.send(60)
    assert all(sender.passes(key) for key in "5678")


# Urgent bundles.


@pytest.mark.parametrize(
    ("size", "begins"), [(100 * MB, 1200), (2000 * MB, 1200), (4000 * MB, 2100)]
)
def test_the_second_slot_keeps_its_distance_from_the_first(size: int, begins: float) -> None:
    item = bundle("notice", size, is_urgent=True)
    sender = Sender(item)
    ended = sender.send_until(lambda: item.complete_passes == 1)
    assert turn_of(item, sender.now) is None
    sender.send_until(lambda: item.progress > 1)
    second = next(at for at, run in sender.runs if run.first >= item.passes[run.block])
    assert second >= max(1200, ended - 0.1 + 300)
    assert second == pytest.approx(begins, rel=0.05)
    sender.send_until(lambda: turn_of(item, sender.now) is Turn.CAROUSEL)
    source = sum(-(-block // 1344) for block in object_blocks(size))
    assert sum(item.counters) / item.symbols_a_pass >= 1 + SECOND_SLOT_PART
    assert sum(item.counters) / source <= 1.32


def test_between_its_slots_an_urgent_bundle_leaves_the_air_to_the_others() -> None:
    notice, film = bundle("notice", 100 * MB, is_urgent=True), bundle("film", 4000 * MB)
    sender = Sender(notice, film)
    sender.send_until(lambda: notice.complete_passes == 1)
    assert sender.send(1199 - sender.now).keys() == {"film"}
    assert part(sender.send(10), "notice") > 0.5


def test_a_sender_that_was_started_anew_between_the_slots_waits_its_time_again() -> None:
    item = bundle("notice", 100 * MB, passes=1, is_urgent=True)
    sender = Sender(item)
    assert sender.send(1199) == {}
    assert sender.send(10).keys() == {"notice"}
    again = bundle("notice", 100 * MB, passes=1.1, is_urgent=True)
    assert Sender(again).send(1).keys() == {"notice"}  # Its second slot had begun.


# Manifests and other metadata.


def test_a_manifest_goes_before_its_content_and_before_each_later_pass() -> None:
    film = bundle("film", 10 * MB, manifest="manifest")
    sender = Sender(metadata("manifest", 30_000, order=2), film)
    sender.send_until(lambda: film.complete_passes == 4)
    seen = 0
    for _, run in sender.runs:
        if run.item == "manifest":
            seen += run.count
        else:
            complete = run.first // film.passes[run.block]
            assert seen >= (complete + 1) * sender.air.items["manifest"].symbols_a_pass


def test_an_urgent_bundles_manifest_does_not_wait_for_a_large_catalogue_or_thousands_of_others() -> (
    None
):
    sender = Sender(metadata("catalogue", 100 * MB, order=1, interval_s=15))
    for n in range(3000):
        sender.air.add(metadata(f"m{n}", 30_000, order=2))
        sender.air.add(bundle(f"b{n}", 10 * MB, manifest=f"m{n}", order=n))
    sender.send(60)
    sender.air.add(metadata("m", 30_000, order=2))
    sender.air.add(bundle("b", 10 * MB, manifest="m", is_urgent=True))
    sender.send(1)
    assert sender.air.items["b"].began_at == pytest.approx(60, abs=0.5)


def test_a_manifest_that_is_replaced_is_sent_before_anything_else_of_its_bundle() -> None:
    film = bundle("film", 10 * MB, manifest="manifest")
    sender = Sender(metadata("manifest", 30_000, order=2), film)
    sender.send_until(lambda: film.complete_passes == 3)
    sender.air.add(metadata("manifest", 60_000, order=2))
    length = sender.air.items["manifest"].symbols_a_pass
    before = len(sender.runs)
    sender.send(1)
    sent = [run.item for _, run in sender.runs[before:]]
    assert sent.index("film") == -(-length // RUN_SYMBOLS)


def test_a_manifest_comes_every_ten_minutes_during_a_long_pass() -> None:
    film = bundle("film", 1000 * MB, manifest="manifest")
    sender = Sender(metadata("manifest", 3000, order=2), film, symbols_s=100)
    sender.send(3600)
    assert sender.passes("film") == 0
    assert 6 <= sender.passes("manifest") <= 7


def test_a_catalogue_that_never_gets_through_in_time_leaves_room_for_other_metadata() -> None:
    manifests = [metadata(f"m{n}", 3000, order=2) for n in range(20)]
    sender = Sender(
        metadata("programme", 20_000, order=0, interval_s=5),
        metadata("catalogue", 50 * MB, order=1, interval_s=15),
        *manifests,
    )
    sender.send(60)
    assert sender.passes("programme") == 12
    assert all(sender.passes(item.key) == 1 for item in manifests)
    sender.send_until(lambda: sender.passes("catalogue") == 3)
    sender.air.add(bundle("film", 1000 * MB))
    sender.send(60)
    assert sender.passes("programme") > 24
    assert part(sender.send(300), "film") == pytest.approx(1 - METADATA_PART, rel=0.01)


def test_a_catalogues_delta_does_not_wait_for_its_snapshot() -> None:
    sender = Sender(
        metadata("snapshot", 50 * MB, order=1, interval_s=15),
        metadata("delta", 5000, order=1, interval_s=15),
        bundle("film", 1000 * MB),
    )
    sender.send(300)
    assert sender.passes("delta") >= 18
    sender.send_until(lambda: sender.passes("snapshot") == 2)


def test_metadata_that_is_not_ready_holds_nothing_up() -> None:
    sender = Sender(
        metadata("programme", 3000, order=0),
        metadata("catalogue", 3000, order=1),
        bundle("film", 1000 * MB),
        is_ready=lambda key, _block: key != "programme",
    )
    sent = sender.send(10)
    assert sent.keys() == {"catalogue", "film"}
    assert sender.idle_s == 0


def test_a_bundle_whose_manifest_is_not_ready_waits_and_the_others_do_not() -> None:
    sender = Sender(
        metadata("m", 3000, order=2),
        bundle("a", 100 * MB, manifest="m"),
        bundle("b", 100 * MB),
        is_ready=lambda key, _block: key != "m",
    )
    assert sender.send(10).keys() == {"b"}


# Coming and going.


def test_after_a_restart_every_block_goes_on_where_it_was() -> None:
    sender = Sender(bundle("a", 20 * MB), bundle("b", 30 * MB, order=1))
    sender.send(20)
    counters = {key: list(item.counters) for key, item in sender.air.items.items()}
    again = Sender()
    for key, item in sender.air.items.items():
        again.air.add(Aired(key, Kind.BUNDLE, item.passes, list(counters[key]), order=item.order))
    again.send(40)
    for _, run in again.runs:
        assert run.first == counters[run.item][run.block]
        counters[run.item][run.block] += run.count


def test_first_passes_that_had_begun_before_a_restart_are_ended_first() -> None:
    sender = Sender(
        *(bundle(f"new{n}", 10 * MB, order=n) for n in range(9)),
        bundle("begun", 10 * MB, passes=0.1, order=99),
    )
    assert "begun" in sender.send(1)


def test_nothing_on_the_air_or_nothing_ready_is_told_and_is_no_end() -> None:
    sender = Sender()
    assert sender.step() is None
    is_there = False
    sender = Sender(
        metadata("catalogue", 3000),
        bundle("film", 10 * MB),
        is_ready=lambda _key, _block: is_there,
    )
    assert sender.send(10) == {}
    is_there = True
    assert sender.send(1).keys() == {"catalogue", "film"}


@pytest.mark.parametrize("passes", [0, 0.5, 1, 3])
@pytest.mark.parametrize("is_urgent", [False, True])
def test_what_is_taken_off_the_air_is_not_sent_again(*, passes: float, is_urgent: bool) -> None:
    sender = Sender(
        metadata("m", 3000),
        bundle("gone", 10 * MB, passes=passes, is_urgent=is_urgent, manifest="m"),
        bundle("stays", 10 * MB),
        symbols_s=100,
    )
    sender.send(0.5)
    sender.air.remove("gone")
    sender.air.remove("m")
    sender.air.remove("never there")
    assert sender.send(3000).keys() == {"stays"}
    assert forecast(sender.air, symbols_s=SYMBOLS_S, now=sender.now).keys() == {"stays"}


def test_what_comes_back_under_the_same_key_is_sent_once_at_a_time() -> None:
    sender = Sender(bundle("other", 100 * MB))
    for _ in range(5):
        sender.air.add(bundle("film", 100 * MB))
        sender.send(0.5)
    assert part(sender.send(10), "film") == pytest.approx(0.5, rel=0.05)


def operations(sender: Sender, runs: int) -> int:
    """Lines that Python executes for so many runs."""
    count = 0

    def trace(_frame: FrameType, event: str, _argument: object) -> Any:
        nonlocal count
        count += event == "line"
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        for _ in range(runs):
            sender.step()
    finally:
        sys.settrace(before)
    return count


@pytest.mark.parametrize("passes", [0, 1])
def test_twenty_thousand_bundles_cost_the_sender_hardly_more_than_twenty(passes: int) -> None:
    found = []
    for bundles in (20, 20_000):
        sender = Sender(metadata("catalogue", MB, order=1, interval_s=15))
        for n in range(bundles):
            sender.air.add(metadata(f"m{n}", 3000, order=2))
            sender.air.add(bundle(f"b{n}", 30_000, passes=passes, manifest=f"m{n}", order=n))
        sender.send(2)  # Puts everything into its place.
        found.append(operations(sender, 1000))
    assert found[1] < found[0] * 3


# Forecasts.


def assert_right(sender: Sender, *, passes: int = 1) -> None:
    """What is forecast for the next passes happens, to a tenth."""
    begun = sender.now
    said = forecast(sender.air, symbols_s=SYMBOLS_S, now=begun)
    target = {key: sender.passes(key) + 1 for key in said}
    ended: dict[str, float] = {}
    while len(ended) < len(said):
        sender.step()
        for key in said.keys() - ended.keys():
            if sender.passes(key) >= target[key]:
                ended[key] = sender.now
    for key, it in said.items():
        assert it.begins <= it.ends <= it.next
        assert it.ends - begun == pytest.approx(ended[key] - begun, rel=0.1, abs=2), key


def test_forecast_of_first_passes_that_go_together_is_right() -> None:
    sender = Sender(*(bundle(f"{n}", (n + 1) * 20 * MB, order=n) for n in range(9)))
    assert_right(sender)
    sender = Sender(*(bundle(f"{n}", 50 * MB, order=n, priority=n) for n in range(3)))
    sender.send(10)
    assert_right(sender)


def test_forecast_of_a_carousel_is_right() -> None:
    sender = Sender(*(bundle(f"{n}", (n + 1) * 20 * MB, passes=1, priority=n) for n in range(8)))
    sender.send(33)
    assert_right(sender)


def test_forecast_of_all_classes_together_is_right() -> None:
    sender = Sender(
        metadata("catalogue", 100 * MB, order=1),
        bundle("notice", 100 * MB, is_urgent=True),
        bundle("new", 200 * MB),
        bundle("newer", 300 * MB, order=1),
        bundle("old", 100 * MB, passes=1),
        bundle("older", 200 * MB, passes=2),
    )
    assert_right(sender)


def test_forecast_of_an_urgent_bundle_names_both_slots() -> None:
    item = bundle("notice", 200 * MB, is_urgent=True)
    sender = Sender(item)
    first = forecast(sender.air, symbols_s=SYMBOLS_S, now=0)["notice"]
    assert (first.begins, first.next) == (0, 1200)
    sender.send_until(lambda: item.complete_passes == 1)
    assert first.ends == pytest.approx(sender.now, rel=0.1)
    second = forecast(sender.air, symbols_s=SYMBOLS_S, now=sender.now)["notice"]
    assert second.begins == 1200
    sender.send_until(lambda: turn_of(item, sender.now) is Turn.CAROUSEL)
    assert second.ends - 1200 == pytest.approx(sender.now - 1200, rel=0.1)
    assert_right(sender)


@pytest.mark.parametrize("passes", [0, 0.5, 1, 1.1, 2])
@pytest.mark.parametrize("is_urgent", [False, True])
def test_forecast_after_a_restart_names_real_times(*, passes: float, is_urgent: bool) -> None:
    """Nobody knows then when the first slot was."""
    sender = Sender(bundle("film", 20 * MB, passes=passes, is_urgent=is_urgent))
    sender.now = 1000.0
    for _ in range(2):
        it = forecast(sender.air, symbols_s=SYMBOLS_S, now=sender.now)["film"]
        assert 900 < it.begins <= it.ends <= it.next < 5000
        sender.step()


@pytest.mark.parametrize("size", [1, 1344, 5000, 100_000, 4_194_304])
def test_no_run_goes_over_the_number_where_a_block_begins_anew(size: int) -> None:
    sender = Sender(bundle("a", size))
    sender.send_until(lambda: sender.passes("a") == 17)
    for _, run in sender.runs:
        assert run.first % esi_limit(size) + run.count <= esi_limit(size)

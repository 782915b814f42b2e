"""The satellite's channel, traces of fades, weather, and a day of the satellite's time on a counted clock."""

from __future__ import annotations

import itertools
import math
import statistics
from pathlib import Path
from random import Random

import pytest

from cuntong_daemon.policy import reception
from cuntong_simulations.sky.channel import (
    Bursts,
    Channel,
    ChannelSettings,
    bursts_of,
    draw_binomial,
)
from cuntong_simulations.sky.emulator import LINK_BYTES, OFFLOAD_BYTES, is_multicast
from cuntong_simulations.sky.errors import SkyFileError
from cuntong_simulations.sky.medium import Dish, Medium, Publication
from cuntong_simulations.sky.traces import (
    MAX_TRACE_BYTES,
    Fade,
    format_trace,
    parse_trace,
    read_trace,
)
from cuntong_simulations.sky.weather import (
    CLEAR,
    DAY_S,
    HOUR_S,
    MONSOON,
    SHOWERS,
    Climate,
    dark_s,
    joined,
    make_weather,
)

MIB = 1024 * 1024
PACKETS = 40_000
RATE_BYTES_S = 2_500_000
RUN = 32
"""Symbols that the sender sends of one block before the next."""


def deviation(share: float, packets: int = PACKETS) -> float:
    """Of a share of independent packets; five of them are missed by one seed in two million."""
    return 5 * math.sqrt(share * (1 - share) / packets)


def fates(channel: Channel, packets: int = PACKETS, *, every_s: float = 0.001) -> list[bool]:
    """Whether each of these packets arrived."""
    return [bool(channel.carry(number * every_s)) for number in range(packets)]


def lengths_of_losses(arrived: list[bool]) -> list[int]:
    return [len(list(group)) for is_here, group in itertools.groupby(arrived) if not is_here]


# The channel.


def test_channel_without_settings_loses_and_delays_nothing() -> None:
    channel = Channel(ChannelSettings(), seed="1")
    assert [channel.carry(float(at)) for at in range(3)] == [(0.0,), (1.0,), (2.0,)]


@pytest.mark.parametrize("loss", [0.01, 0.05, 0.2])
def test_noise_takes_its_share_and_nothing_but_single_packets(loss: float) -> None:
    channel = Channel(ChannelSettings(loss=loss), seed="noise")
    arrived = fates(channel)
    assert arrived.count(False) / PACKETS == pytest.approx(loss, abs=deviation(loss))
    assert channel.lost == {"noise": arrived.count(False), "burst": 0, "fade": 0}
    assert channel.carried == arrived.count(True)
    # Runs of independent losses have 1 / (1 - loss) packets in the mean.
    assert statistics.fmean(lengths_of_losses(arrived)) == pytest.approx(1 / (1 - loss), rel=0.05)


def test_bursts_take_their_share_in_runs_of_their_length() -> None:
    bursts = bursts_of(0.1, packets=25)
    assert bursts.share == pytest.approx(0.1)
    arrived = fates(Channel(ChannelSettings(bursts=bursts), seed="burst"))
    assert arrived.count(False) / PACKETS == pytest.approx(0.1, rel=0.15)
    assert statistics.fmean(lengths_of_losses(arrived)) == pytest.approx(25, rel=0.15)


def test_burst_that_takes_only_half_lets_the_other_half_through() -> None:
    bursts = Bursts(begins=0.01, ends=0.04, loss=0.5)
    channel = Channel(ChannelSettings(bursts=bursts), seed="half")
    arrived = fates(channel)
    assert arrived.count(False) / PACKETS == pytest.approx(bursts.share / 2, rel=0.15)
    assert channel.lost["burst"] == arrived.count(False)


@pytest.mark.parametrize(("loss", "packets"), [(0.0, 5), (1.0, 5), (0.1, 0.5), (0.9, 1)])
def test_bursts_that_cannot_be_are_refused(loss: float, packets: float) -> None:
    with pytest.raises(ValueError):
        bursts_of(loss, packets=packets)


def test_fade_takes_all_from_its_first_moment_to_before_its_last() -> None:
    channel = Channel(ChannelSettings(fades=(Fade(1.0, 2.0), Fade(5.0, 6.0))), seed="1")
    times = (0.0, 0.999, 1.0, 1.999, 2.0, 4.999, 5.5, 6.0, 1e9)
    assert [bool(channel.carry(at)) for at in times] == [
        True, True, False, False, True, True, False, True, True,
    ]  # fmt: skip
    assert channel.lost["fade"] == 3


def test_light_fade_takes_its_share() -> None:
    channel = Channel(ChannelSettings(fades=(Fade(0.0, 1000.0, 0.3),)), seed="light")
    assert fates(channel).count(False) / PACKETS == pytest.approx(0.3, abs=deviation(0.3))


def test_same_seed_has_the_same_fates_and_another_dish_has_others() -> None:
    settings = ChannelSettings(loss=0.1, bursts=bursts_of(0.1, packets=5), duplicated=0.1)
    first, again, other = (Channel(settings, seed=seed) for seed in ("1 west", "1 west", "1 east"))
    assert fates(first) == fates(again)
    assert fates(first) != fates(other)


def test_other_weather_does_not_change_what_the_noise_takes() -> None:
    clear = fates(Channel(ChannelSettings(loss=0.1), seed="1"))
    settings = ChannelSettings(
        loss=0.1, fades=(Fade(10.0, 20.0, 0.5),), reordered=0.2, duplicated=0.2
    )
    cloudy = fates(Channel(settings, seed="1"))
    assert cloudy[:10_000] == clear[:10_000]
    assert cloudy[20_000:] == clear[20_000:]
    assert all(was for was, is_here in zip(clear, cloudy, strict=True) if is_here)


def test_late_packet_arrives_after_its_followers_and_duplicates_arrive_twice() -> None:
    settings = ChannelSettings(delay_s=0.25, reordered=0.1, reordered_by_s=0.0105, duplicated=0.05)
    channel = Channel(settings, seed="1")
    arrivals = [
        (arrives, number) for number in range(PACKETS) for arrives in channel.carry(number * 0.001)
    ]
    counts = [len(list(group)) for _, group in itertools.groupby(arrivals, lambda it: it[1])]
    assert len(counts) == PACKETS == channel.carried
    assert counts.count(2) == channel.duplicated
    assert channel.duplicated / PACKETS == pytest.approx(0.05, abs=deviation(0.05))
    assert channel.reordered / PACKETS == pytest.approx(0.1, abs=deviation(0.1))
    delays = {round(arrives - number * 0.001, 6) for arrives, number in arrivals}
    assert delays == {0.25, 0.2605}
    order = [number for _, number in sorted(arrivals)]
    # Ten packets overtake each late one.
    assert max(seen - number for seen, number in itertools.pairwise(order)) == 10


# Many packets at once.


@pytest.mark.parametrize(
    "settings",
    [
        ChannelSettings(loss=0.2),
        ChannelSettings(loss=0.05, bursts=bursts_of(0.1, packets=8)),
        ChannelSettings(bursts=Bursts(begins=0.02, ends=0.1, loss=0.7)),
        ChannelSettings(loss=0.1, fades=(Fade(0.0, 1e9, 0.4),)),
    ],
)
def test_runs_come_through_as_their_packets_would(settings: ChannelSettings) -> None:
    arrived = fates(Channel(settings, seed="packets"))
    packets = [sum(arrived[at : at + RUN]) for at in range(0, PACKETS, RUN)]
    channel = Channel(settings, seed="runs")
    runs = [channel.come_through(RUN, 0.0) for _ in range(PACKETS // RUN)]
    assert statistics.fmean(runs) == pytest.approx(statistics.fmean(packets), rel=0.03)
    assert statistics.pstdev(runs) == pytest.approx(statistics.pstdev(packets), rel=0.12)


def test_runs_in_a_fade_are_lost_and_the_next_one_is_not() -> None:
    channel = Channel(ChannelSettings(fades=(Fade(10.0, 20.0),)), seed="1")
    assert [channel.come_through(RUN, at) for at in (9.9, 10.0, 19.9, 20.0)] == [RUN, 0, 0, RUN]


def test_binomial_numbers_have_their_mean_and_their_spread() -> None:
    random = Random(1)
    drawn = [draw_binomial(RUN, 0.9, random) for _ in range(PACKETS)]
    assert statistics.fmean(drawn) == pytest.approx(RUN * 0.9, rel=0.002)
    assert statistics.pvariance(drawn) == pytest.approx(RUN * 0.09, rel=0.05)
    assert (draw_binomial(5, 0.0, random), draw_binomial(5, 1.0, random)) == (0, 5)


# Traces.


def test_trace_is_read_as_it_was_written(tmp_path: Path) -> None:
    fades = (*make_weather(MONSOON, dishes=1, seed=1)[0], Fade(DAY_S, DAY_S + 0.1, 0.25))
    path = tmp_path / "day.csv"
    path.write_text(format_trace(fades))
    assert read_trace(path) == fades


def test_trace_may_have_comments_columns_and_empty_lines() -> None:
    text = "# a dish in Lichuan\n\nbegin_s,end_s\n0,1.5\n # then rain\n 2 , 3 , 0.5 \n"
    assert parse_trace(text, file="trace") == (Fade(0.0, 1.5), Fade(2.0, 3.0, 0.5))
    assert parse_trace("", file="trace") == ()


@pytest.mark.parametrize(
    ("row", "code"),
    [
        ("5", "sky.trace-columns"),
        ("5,6,1,2", "sky.trace-columns"),
        ("begin_s,end_s", "sky.trace-number"),
        ("5,", "sky.trace-number"),
        ("5,six", "sky.trace-number"),
        ("5,inf", "sky.trace-number"),
        ("nan,6", "sky.trace-number"),
        ("5,5", "sky.trace-backwards"),
        ("6,5", "sky.trace-backwards"),
        ("3.9,5", "sky.trace-overlap"),
        ("-1,5", "sky.trace-number"),
        ("5,6,0", "sky.trace-loss"),
        ("5,6,1.01", "sky.trace-loss"),
    ],
)
def test_bad_row_is_refused_with_its_file_line_and_reason(
    tmp_path: Path, row: str, code: str
) -> None:
    path = tmp_path / "bad.csv"
    path.write_text(f"begin_s,end_s\n1,2\n\n3,4\n{row}\n")
    with pytest.raises(SkyFileError) as caught:
        read_trace(path)
    assert caught.value.code == code
    assert str(caught.value).startswith(f"{path}, line 5: ")


def test_trace_that_is_not_there_or_not_text_or_too_large_is_refused(tmp_path: Path) -> None:
    binary, large = tmp_path / "binary", tmp_path / "large"
    binary.write_bytes(b"\xff\xfe1,2")
    large.write_bytes(b"#" * (MAX_TRACE_BYTES + 1))
    for path, code in (
        (tmp_path / "none", "sky.trace-unreadable"),
        (binary, "sky.trace-unreadable"),
        (large, "sky.trace-too-large"),
    ):
        with pytest.raises(SkyFileError) as caught:
            read_trace(path)
        assert caught.value.code == code
        assert str(path) in str(caught.value)


# Weather.


def test_week_of_showers_has_its_fades_and_each_its_length() -> None:
    (fades,) = make_weather(SHOWERS, dishes=1, seed=3, length_s=7 * DAY_S)
    hours = 7 * 24
    # Poisson: five deviations. Fades that touch have become one.
    assert len(fades) == pytest.approx(hours, abs=5 * math.sqrt(hours))
    assert statistics.median(fade.end_s - fade.begin_s for fade in fades) == pytest.approx(120.0)
    assert dark_s(fades) == pytest.approx(hours * 120.0, rel=0.4)


def test_weather_is_the_same_for_the_same_seed_and_the_same_however_many_dishes_there_are() -> None:
    assert make_weather(MONSOON, dishes=2, seed=5) == make_weather(MONSOON, dishes=4, seed=5)[:2]
    assert make_weather(MONSOON, dishes=2, seed=5) != make_weather(MONSOON, dishes=2, seed=6)
    assert make_weather(CLEAR, dishes=2, seed=5) == [(), ()]


def test_rain_cell_passes_over_all_dishes_one_after_the_other() -> None:
    cells = Climate(fades_per_hour=0.5, median_s=60.0, spread=0.0, shared=1.0, drift_s=300.0)
    weather = make_weather(cells, dishes=6, seed=1)
    alone = make_weather(
        Climate(fades_per_hour=0.5, median_s=60.0, spread=0.0, shared=0.0), dishes=6, seed=1
    )

    def within(traces: list[tuple[Fade, ...]]) -> float:
        """How many of the first dish's fades the second one has within the time that a cell needs."""
        first, second, *_ = traces
        near = [any(abs(a.begin_s - b.begin_s) <= 300 for b in second) for a in first]
        return sum(near) / len(near)

    assert within(weather) > 0.9
    assert within(alone) < 0.4
    assert len(set(weather)) == 6


def test_it_rains_more_in_the_afternoon_where_it_does() -> None:
    climate = Climate(fades_per_hour=20.0, median_s=1.0, spread=0.0, swing=1.0, peak_hour=16.0)
    (fades,) = make_weather(climate, dishes=1, seed=1)
    by_hour = [0] * 24
    for fade in fades:
        by_hour[int(fade.begin_s // HOUR_S)] += 1
    assert sum(by_hour[13:19]) > 5 * sum(by_hour[1:7])


def test_fades_that_overlap_become_one_and_what_is_too_late_goes() -> None:
    fades = (Fade(5.0, 6.0), Fade(0.0, 2.0, 0.5), Fade(1.0, 1.5), Fade(20.0, 21.0), Fade(9.0, 12.0))
    assert joined(fades, length_s=10.0) == (Fade(0.0, 2.0), Fade(5.0, 6.0), Fade(9.0, 10.0))


# What the emulator carries.


@pytest.mark.parametrize(
    ("kind", "to", "carried"),
    [
        (b"\x08\x00", "e8140101", True),  # 232.20.1.1
        (b"\x08\x00", "efffffff", True),
        (b"\x08\x00", "e0000016", False),  # IGMP
        (b"\x08\x00", "0a4f0001", False),
        (b"\x08\x00", "ffffffff", False),
        (b"\x86\xdd", "ff3e" + 28 * "0", True),
        (b"\x86\xdd", "ff02" + 28 * "0", False),  # MLD, neighbours
        (b"\x86\xdd", "fd00" + 28 * "0", False),
        (b"\x08\x06", "e8140101", False),  # ARP
    ],
)
def test_nothing_but_multicast_for_routers_is_carried(kind: bytes, to: str, carried: bool) -> None:
    start = 16 if kind == b"\x08\x00" else 24
    head = bytes(OFFLOAD_BYTES + LINK_BYTES - 2) + kind
    assert is_multicast(head + bytes(start) + bytes.fromhex(to) + bytes(8)) is carried
    assert not is_multicast(head + bytes(4))
    assert not is_multicast(b"")


# The satellite's time.


def dishes(climate: Climate, count: int, *, loss: float, seed: int = 1) -> list[Dish]:
    weather = make_weather(climate, dishes=count, seed=seed)
    return [
        Dish(
            f"dish {number}",
            Channel(ChannelSettings(loss=loss, fades=fades), seed=f"{seed} {number}"),
            seed=seed,
        )
        for number, fades in enumerate(weather)
    ]


@pytest.mark.parametrize(("loss", "most"), [(0.0, 1.01), (0.05, 1.08), (0.2, 1.30)])
def test_bundle_takes_little_more_air_than_the_noise_demands(loss: float, most: float) -> None:
    medium = Medium(
        [Publication(key="films", size=64 * MIB)],
        dishes(CLEAR, 3, loss=loss),
        rate_bytes_s=RATE_BYTES_S,
    )
    medium.run(HOUR_S, is_over_when_complete=True)
    assert medium.complete_part("films") == 1.0
    assert 1.0 <= medium.sent.symbols["films"] / medium.symbols_needed("films") <= most


def test_urgent_bundle_reaches_nearly_all_dishes_in_time_though_it_fades_every_hour() -> None:
    urgent = Publication(key="flood warning", size=1024 * MIB, is_urgent=True)
    medium = Medium([urgent], dishes(SHOWERS, 60, loss=0.001), rate_bytes_s=RATE_BYTES_S)
    medium.run(HOUR_S, is_over_when_complete=True)
    waits = medium.waits_s("flood warning")
    assert statistics.median(waits) < 8 * 60
    # Who had a fade in the first slot has the second one, twenty minutes after the first began.
    assert medium.complete_part("flood warning", by_s=10 * 60) < 0.95
    assert medium.complete_part("flood warning", by_s=22 * 60 + 300) >= 0.98


def test_forecast_of_the_policy_and_the_counted_clock_agree_dish_by_dish() -> None:
    weather = make_weather(SHOWERS, dishes=12, seed=7)
    size, loss = 700 * MIB, 0.03
    medium = Medium(
        [Publication(key="films", size=size)],
        [
            Dish(f"{number}", Channel(ChannelSettings(loss=loss, fades=fades), seed=f"{number}"), seed=7)
            for number, fades in enumerate(weather)
        ],
        rate_bytes_s=RATE_BYTES_S,
    )  # fmt: skip
    medium.run(HOUR_S, is_over_when_complete=True)
    forecast = reception.Broadcast(reception.symbols_per_s(RATE_BYTES_S))
    forecast.add("films", size)
    forecast.send(medium.now + 60)
    for dish, fades in zip(medium.dishes, weather, strict=True):
        trace = [(fade.begin_s, fade.end_s) for fade in fades]
        times = reception.receive(forecast, reception.Weather(loss=loss, trace=trace), Random(1))
        assert dish.complete_s["films"] == pytest.approx(max(times["films"]), rel=0.01)
    # Some had a fade, so there was something to agree on.
    waits = medium.waits_s("films")
    assert waits[-1] > waits[0] + 30


def test_dish_that_is_switched_on_late_gets_all_with_the_next_pass() -> None:
    late = Dish("late", Channel(ChannelSettings(loss=0.01), seed="late"), seed=1, since_s=600.0)
    medium = Medium(
        [Publication(key="poems", size=64 * MIB)],
        [late, *dishes(CLEAR, 1, loss=0.01)],
        rate_bytes_s=RATE_BYTES_S,
    )
    medium.run(HOUR_S, is_over_when_complete=True)
    assert 600 < medium.waits_s("poems")[1] < 600 + 2 * 32


def test_dish_that_hears_one_packet_in_twenty_gets_all_though_numbers_begin_anew() -> None:
    medium = Medium(
        [Publication(key="poems", size=8 * MIB)],
        dishes(CLEAR, 1, loss=0.95),
        rate_bytes_s=RATE_BYTES_S,
    )
    medium.run(HOUR_S, is_over_when_complete=True)
    assert medium.complete_part("poems") == 1.0
    # Twenty passes without repeats would do; the numbers repeat after sixteen.
    assert 20 <= medium.sent.passes["poems"] <= 30


def test_day_of_monsoon_brings_every_bundle_to_every_dish() -> None:
    publications = [
        Publication(key=f"bundle {number}", size=30 * MIB, at_s=number * HOUR_S)
        for number in range(5)
    ]
    medium = Medium(publications, dishes(MONSOON, 4, loss=0.001), rate_bytes_s=250_000)
    medium.run(8 * HOUR_S)
    assert medium.now == pytest.approx(8 * HOUR_S, abs=1.0)
    assert all(medium.complete_part(it.key) == 1.0 for it in publications)

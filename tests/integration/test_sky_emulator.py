"""The satellite emulator in real namespaces, with the sockets that sender and receivers use.

What needs namespaces runs in a process of its own, this module as a program; where the kernel refuses, tests are
skipped with its words.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec
import pytest

from cuntong_daemon.datacast.sockets import Group, open_receiver, open_sender
from cuntong_simulations.lab.errors import LabError
from cuntong_simulations.lab.namespaces import Namespace, entered, isolate
from cuntong_simulations.sky.channel import ChannelSettings, bursts_of
from cuntong_simulations.sky.emulator import DishPlan, Plan, Port, Sample
from cuntong_simulations.sky.traces import read_trace
from cuntong_simulations.sky.wires import INTERFACE, SENDER, SkyWires, address

TOGETHER_S = 120.0
MISSING = ("(lab.no-tool)", "(lab.no-namespaces)", "(lab.no-tun)")
"""How the line ends in which the program says what this machine lacks."""
GROUP = Group("232.20.1.1", 7450, INTERFACE, SENDER)
PACKETS = 3000
AT_ONCE = 50
"""Sent before the receivers are read: far less than a socket's buffer holds, whoever may make it large."""
BODY = bytes(1300)


def inside(case: str, *arguments: str) -> Any:
    """Run a case of this module in namespaces of its own; returns what it found."""
    process = subprocess.run(
        [sys.executable, "-m", "tests.integration.test_sky_emulator", case, *arguments],
        capture_output=True,
        text=True,
        timeout=TOGETHER_S,
        cwd=Path(__file__).resolve().parents[2],
        env={**os.environ, "LANG": "C.UTF-8"},
        check=False,
    )
    said = (process.stderr.strip().splitlines() or [""])[-1]
    if process.returncode != 0 and said.endswith(MISSING):
        pytest.skip(said)
    assert process.returncode == 0, process.stderr
    return json.loads(process.stdout)


def test_each_dish_hears_what_its_channel_lets_through_and_nothing_is_lost_uncounted() -> None:
    found = inside("channels")
    assert found["packets"] == PACKETS
    for name, dish in found["dishes"].items():
        numbers = dish["numbers"]
        assert len(numbers) == dish["forwarded"], name
        assert len(set(numbers)) == PACKETS - sum(dish["lost"].values()), name
        assert dish["refused"] == 0
    dishes = found["dishes"]
    assert dishes["clear"]["numbers"] == list(range(PACKETS))
    noisy = dishes["noisy"]
    # Five deviations: one seed in two million.
    assert noisy["lost"]["noise"] / PACKETS == pytest.approx(0.2, abs=0.037)
    assert noisy["numbers"] == sorted(noisy["numbers"])
    assert dishes["dark"]["numbers"] == []
    assert dishes["dark"]["lost"]["fade"] == PACKETS
    restless = dishes["restless"]
    assert restless["lost"]["burst"] > 0
    assert restless["numbers"] != sorted(restless["numbers"])
    copies = len(restless["numbers"]) - len(set(restless["numbers"]))
    assert copies == restless["duplicated"] > 0
    assert restless["reordered"] > 0


def test_receiver_that_joined_one_source_never_hears_another_that_sends_to_its_group() -> None:
    found = inside("sources")
    assert found["of the sender"] == ["sender"] * 5
    assert found["of anybody"] == ["sender", "impostor"] * 5


def test_nothing_comes_back_from_a_dish() -> None:
    found = inside("back", "one-way")
    assert found == {"answers": [], "heard": 1}


def test_programs_that_need_answers_get_them_when_that_is_asked_for() -> None:
    found = inside("back", "two-way")
    assert found == {"answers": ["answer"], "heard": 1}


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT])
def test_emulator_that_is_told_to_end_says_what_it_has_counted(how: signal.Signals) -> None:
    found = inside("signal", str(int(how)))
    assert found == {"code": 0, "packets": 7, "samples": 1}


def test_interface_that_is_not_there_is_named() -> None:
    nowhere = Port(interface="no-such-link")
    plan = Plan(seed=1, sender=nowhere, dishes=[DishPlan(name="dish", port=nowhere)])
    process = subprocess.run(
        [sys.executable, "-m", "cuntong_simulations.sky.emulator"],
        input=msgspec.json.encode(plan) + b"\n",
        capture_output=True,
        timeout=TOGETHER_S,
        check=False,
    )
    assert process.returncode == 1
    assert process.stdout == b""
    assert b"no-such-link" in process.stderr
    assert process.stderr.strip().endswith(b"(sky.no-interface)")


# What runs in namespaces.


@contextlib.contextmanager
def wires(
    channels: Mapping[str, ChannelSettings], *, is_two_way: bool = False
) -> Iterator[SkyWires]:
    found = SkyWires(channels, seed=1, is_two_way=is_two_way)
    try:
        yield found
    finally:
        found.close()


def sender(place: Namespace, group: Group = GROUP) -> socket.socket:
    with entered(place.handle):
        return open_sender(group, hops=8)


def receiver(place: Namespace, group: Group = GROUP) -> socket.socket:
    with entered(place.handle):
        return open_receiver(group)


def drain(source: socket.socket) -> Iterator[bytes]:
    """What waits in a socket that doesn't block."""
    with contextlib.suppress(BlockingIOError):
        while True:
            yield source.recv(2048)


def wait_for(is_so: Callable[[], bool]) -> None:
    """Ask again and again until it is so; each question waits for an answer of some process."""
    deadline = time.monotonic() + TOGETHER_S / 2
    while not is_so():
        assert time.monotonic() < deadline


def channels() -> object:
    """Numbered packets, and which of them each dish got."""
    with tempfile.TemporaryDirectory() as folder:
        trace = Path(folder) / "night.csv"
        trace.write_text("begin_s,end_s\n0,86400\n")
        night = read_trace(trace)
    plans = {
        "clear": ChannelSettings(),
        "noisy": ChannelSettings(loss=0.2),
        "dark": ChannelSettings(fades=night),
        "restless": ChannelSettings(
            bursts=bursts_of(0.05, packets=10),
            delay_s=0.02,
            reordered=0.05,
            duplicated=0.05,
        ),
    }
    numbers: dict[str, list[int]] = {name: [] for name in plans}
    with wires(plans) as sky:
        dishes = {name: receiver(place) for name, place in sky.dishes.items()}

        def read() -> None:
            for name, dish in dishes.items():
                numbers[name] += [int.from_bytes(data[:4], "big") for data in drain(dish)]

        with sender(sky.sender) as source:
            for number in range(PACKETS):
                source.send(number.to_bytes(4, "big") + BODY)
                if number % AT_ONCE == AT_ONCE - 1:
                    wait_for(lambda sent=number + 1: sky.tell().packets == sent)
                    read()

        def is_all_here() -> bool:
            select.select(list(dishes.values()), (), (), 0.1)
            read()
            told = {dish.name: dish for dish in sky.tell().dishes}
            return all(
                len(numbers[name])
                == PACKETS - sum(told[name].lost.values()) + told[name].duplicated
                for name in plans
            )

        wait_for(is_all_here)
        sample = sky.stop()
        for dish in dishes.values():
            dish.close()
    assert sample.kernel_drops == 0
    return {
        "packets": sample.packets,
        "dishes": {
            dish.name: msgspec.to_builtins(dish) | {"numbers": numbers[dish.name]}
            for dish in sample.dishes
        },
    }


def sources() -> object:
    """A second sender on the same link sends to the same group, between the packets of the first."""
    impostor = address(200)
    with wires({"of the sender": ChannelSettings(), "of anybody": ChannelSettings()}) as sky:
        subprocess.run(
            [*sky.sender.prefix, "ip", "address", "add", f"{impostor}/24", "dev", INTERFACE],
            check=True,
        )
        any_source = Group(GROUP.address, GROUP.port, INTERFACE)
        dishes = {
            "of the sender": receiver(sky.dishes["of the sender"]),
            "of anybody": receiver(sky.dishes["of anybody"], any_source),
        }
        senders = {
            "sender": sender(sky.sender),
            "impostor": sender(sky.sender, Group(GROUP.address, GROUP.port, INTERFACE, impostor)),
        }
        for _ in range(5):
            for name, source in senders.items():
                source.send(name.encode())
        found: dict[str, list[str]] = {name: [] for name in dishes}

        def is_all_here() -> bool:
            select.select(list(dishes.values()), (), (), 0.1)
            for name, dish in dishes.items():
                found[name] += [data.decode() for data in drain(dish)]
            return len(found["of anybody"]) == 10 and len(found["of the sender"]) >= 5

        wait_for(is_all_here)
        for opened in (*dishes.values(), *senders.values()):
            opened.close()
        return found


def back(mode: str) -> object:
    """A dish answers the sender; then the sender is heard, and what has come back is read."""
    with wires({"dish": ChannelSettings()}, is_two_way=mode == "two-way") as sky:
        with entered(sky.sender.handle):
            listening = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        with entered(sky.dishes["dish"].handle):
            answering = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        with (
            listening,
            answering,
            sender(sky.sender) as source,
            receiver(sky.dishes["dish"]) as dish,
        ):
            listening.setblocking(False)
            listening.bind((SENDER, 7451))
            answering.sendto(b"answer", (SENDER, 7451))
            answers: list[str] = []
            if mode == "two-way":
                assert select.select([listening], (), (), TOGETHER_S / 2)[0]
            source.send(BODY)
            assert select.select([dish], (), (), TOGETHER_S / 2)[0]
            answers += [data.decode() for data in drain(listening)]
            return {"answers": answers, "heard": len(list(drain(dish)))}


def ended_by_a_signal(number: str) -> object:
    with wires({"dish": ChannelSettings()}) as sky:
        with sender(sky.sender) as source:
            for _ in range(7):
                source.send(BODY)
        wait_for(lambda: sky.tell().packets == 7)
        before = len(sky.samples)
        os.kill(sky._process.pid, int(number))
        code = sky._process.wait(TOGETHER_S / 2)
        sky._listener.join(TOGETHER_S / 2)
        last: Sample = sky.samples[-1]
        return {"code": code, "packets": last.packets, "samples": len(sky.samples) - before}


CASES: dict[str, Callable[..., object]] = {
    "channels": channels,
    "sources": sources,
    "back": back,
    "signal": ended_by_a_signal,
}


def main() -> None:
    """Become a process in its own namespaces, and run a case there."""
    case, *arguments = sys.argv[1:]
    try:
        isolate([sys.executable, "-m", "tests.integration.test_sky_emulator", *sys.argv[1:]])
    except LabError as error:
        sys.exit(f"{error} ({error.code})")
    sys.stdout.write(json.dumps(CASES[case](*arguments)))


if __name__ == "__main__":
    main()

"""`kill -9` of each process of a satellite receiver, and of the sender, while a bundle is on the air."""

from __future__ import annotations

import os
import random
import signal
import time
from pathlib import Path

import pytest

from tests.support.on_air import on_air, processes
from tests.support.world import World, assert_same_folder, make_films

pytest.importorskip("raptorq", reason="the datacast needs raptorq")

KILLS = int(os.environ.get("CUNTONG_KILLS", "6"))
MOST_LOST_S = 10.0


def test_receiver_ends_with_the_same_files_however_often_its_processes_are_killed(
    world: World, tmp_path: Path
) -> None:
    randomness = random.Random(KILLS)
    folder = make_films(
        tmp_path / "films", [KILLS * 1_000_000, KILLS * 1_500_000, 100_000], seed=11
    )
    on_air(world, world.nation, world.west)
    world.start(world.nation, world.west)
    bundle = world.publish(world.nation, folder)
    world.until(
        "the village knows of the bundle", lambda: world.bundle(world.west, bundle.id) is not None
    )
    spool = world.west.paths.datacast / "receiver"
    parts = ["reader", "decoder", "daemon", "caster", "encoder", "pacer"]
    killed = 0
    while killed < KILLS and not world.has(world.west, bundle):
        part = parts[killed % len(parts)] if killed < len(parts) else randomness.choice(parts)
        moment = time.monotonic() + randomness.uniform(0.2, 1.5)
        world.until("its moment has come", lambda moment=moment: time.monotonic() >= moment)
        if part == "daemon":
            world.net.kill(world.west)
        else:
            place = world.west if part in ("reader", "decoder") else world.nation
            found = processes(place, part)
            if not found:
                part = "nothing"  # The decoder runs while there is something to decode.
            for pid in found[:1]:
                os.kill(pid, signal.SIGKILL)
        if part in ("reader", "daemon") and killed > 2:
            age = time.time() - max(file.stat().st_mtime for file in spool.glob("spool.sqlite*"))
            print(f"{part}: what came in {age:.1f} s was lost at most")
            assert age <= MOST_LOST_S
        if part == "daemon":
            world.net.start(world.west)
        killed += 1
    world.until_complete(bundle, world.west, timeout_s=240)
    assert_same_folder(folder, world.library(world.west, bundle))
    assert world.status(world.west).problems == []

"""A satellite on the loopback device, for the networks of `tests.support.world`."""

from __future__ import annotations

import random
import re
from pathlib import Path

from cuntong_daemon.config_datacast import DEFAULT_GROUP
from cuntong_tools.demo.network import Place
from tests.support.world import World

RATE_KBIT_S = 8_000


def on_air(world: World, sender: Place, *receivers: Place, has_links: bool = False) -> None:
    """Let one place send on the loopback device, and others receive; these lose their links, unless they have them."""
    number = random.Random(str(world.folder)).randrange(1, 250 * 250)
    group = DEFAULT_GROUP.replace("232.20.1.1", f"232.21.{number // 250}.{number % 250 + 1}")
    common = f'interface = "lo"\nsource = "127.0.0.1"\ngroup = "{group}"\n'
    config = sender.paths.config
    config.write_text(f"[cast]\n{common}rate_kbit_s = {RATE_KBIT_S}\n\n" + config.read_text())
    for place in receivers:
        config = place.paths.config
        text = config.read_text()
        if not has_links:
            text = re.sub(r"(?m)^\[\[network\.parents\]\]\n(?:\w+ = .*\n)+", "", text)
        config.write_text(f"[dish]\n{common}\n" + text)


def processes(place: Place, part: str) -> list[int]:
    """Processes of one part of a place's datacast: descendants of its daemon."""
    assert place.process is not None
    found, wanted = [place.process.pid], []
    for pid in found:
        for task in Path(f"/proc/{pid}/task").glob("*/children"):
            found += map(int, task.read_text().split())
    for pid in found:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        if f"cuntong_daemon.datacast.{part}".encode() in words:
            wanted.append(pid)
    return wanted

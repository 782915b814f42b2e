"""One swarm engine as a process of its own, to be killed: `python -m tests.support.swarm_node '<json>'`.

Prints one JSON object a line: `ready`, then `status` every tenth of a second, and `completed`.
"""

from __future__ import annotations

import ipaddress
import json
import os
import sys
from pathlib import Path
from typing import Any

import trio

from cuntong_daemon.paths import DataPaths
from cuntong_daemon.services import running
from cuntong_daemon.swarm.engine import SwarmEngine
from cuntong_daemon.swarm.events import Completed
from cuntong_protocol.bundle.torrent import decode_torrent
from cuntong_protocol.divisions import Tier


def say(**what: Any) -> None:
    print(json.dumps(what), flush=True)


async def main(settings: dict[str, Any]) -> None:
    if (user := settings.get("user")) and os.geteuid() == 0:
        os.setgid(user)
        os.setuid(user)
    engine = SwarmEngine(
        DataPaths(Path(settings["root"])),
        listen=settings["listen"],
        networks=[ipaddress.ip_network(text) for text in settings.get("networks", ["127.0.0.0/8"])],
        down_bytes_s=settings.get("down", 0),
        up_bytes_s=settings.get("up", 0),
        tier=Tier(settings.get("tier", Tier.COUNTY)),
    )
    with trio.open_signal_receiver(15) as signals:
        async with running(engine), trio.open_nursery() as nursery:

            async def until_stopped() -> None:
                async for _ in signals:
                    nursery.cancel_scope.cancel()

            async def tell_events() -> None:
                while True:
                    event = await engine.wait_event()
                    if isinstance(event, Completed):
                        say(what="completed")
                    else:
                        say(what=type(event).__name__, text=str(event))

            async def tell_status() -> None:
                while True:
                    await trio.sleep(0.1)
                    totals = await engine.count()
                    for status in engine.statuses().values():
                        say(
                            what="status",
                            state=status.state,
                            done=status.bytes_done,
                            peers=status.peers,
                            down=totals.down,
                            up=totals.up,
                            down_wire=totals.down_wire,
                            up_wire=totals.up_wire,
                            hosts={
                                host: [count.down, count.up] for host, count in totals.peers.items()
                            },
                        )

            nursery.start_soon(until_stopped)
            nursery.start_soon(tell_events)
            for path in settings.get("torrents", []):
                torrent = decode_torrent(await trio.Path(path).read_bytes())
                await engine.add(torrent)
                engine.connect_peers(
                    torrent.infohash, [(host, port) for host, port in settings.get("peers", [])]
                )
            say(what="ready", port=engine.address[1])
            nursery.start_soon(tell_status)


if __name__ == "__main__":
    trio.run(main, json.loads(sys.argv[1]))

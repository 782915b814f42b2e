"""The tree of `simulation` in SimGrid's fluid model. A program of its own: the system's Python runs it, which has SimGrid.

In comes JSON: `parent` of each place (breadth first, -1 for the first), `down_bytes_s`, `up_bytes_s`, `size_bytes` of each bundle,
`chunks` in a bundle. Out comes JSON: `seconds` and `cpu_s` for all of it, `done_s` of each place and bundle, `version`.

Max-min sharing (CM02) without what SimGrid adds for TCP (its window, and acknowledgements on the way back); latencies are 0. Every
place has an access link into one star, as in a mesh VPN. It fetches chunk after chunk, each once the place above has it.
"""

from __future__ import annotations

import json
import sys
import time

from simgrid import (  # type: ignore[import-not-found]
    Actor,
    Comm,
    Engine,
    LinkInRoute,
    NetZone,
    simgrid_version,
    this_actor,
)

_CONFIGURATION = [
    "--log=root.threshold:warning",
    "--cfg=network/model:CM02",
    "--cfg=network/TCP-gamma:0",
    "--cfg=network/bandwidth-factor:1",
    "--cfg=network/crosstraffic:0",
]


def main() -> None:
    """Read, simulate, write."""
    given = json.load(sys.stdin)
    began, began_cpu = time.perf_counter(), time.process_time()
    engine = Engine([sys.argv[0], *_CONFIGURATION])
    parent, sizes, chunks = given["parent"], given["size_bytes"], given["chunks"]
    star = NetZone.create_star_zone("vpn")
    hosts = []
    for place in range(len(parent)):
        host = star.create_host(f"{place}", 1e9)
        up = star.create_link(f"{place} up", given["up_bytes_s"][place]).seal()
        down = star.create_link(f"{place} down", given["down_bytes_s"][place]).seal()
        star.add_route(host.netpoint, None, None, None, [LinkInRoute(up)], False)
        star.add_route(None, host.netpoint, None, None, [LinkInRoute(down)], False)
        hosts.append(host)
    star.seal()
    children: list[list[int]] = [[] for _ in parent]
    for place, above in enumerate(parent[1:], start=1):
        children[above].append(place)
    have = [len(sizes) * chunks] + [0] * (len(parent) - 1)
    done_s = [[0.0] * len(sizes) for _ in parent]
    waiting: dict[int, Actor] = {}

    def fetch(place: int) -> None:
        above = parent[place]
        for bundle, size in enumerate(sizes):
            for _ in range(chunks):
                # Actors take turns, so plain variables will do: semaphores would double SimGrid's time.
                if have[above] == have[place]:
                    waiting[place] = Actor.self()
                    this_actor.suspend()
                Comm.sendto(hosts[above], hosts[place], size // chunks)
                have[place] += 1
                for child in children[place]:
                    if child in waiting:
                        waiting.pop(child).resume()
            done_s[place][bundle] = engine.clock

    for place in range(1, len(parent)):
        Actor.create(f"{place}", hosts[place], fetch, place)
    engine.run()
    seconds, cpu_s = time.perf_counter() - began, time.process_time() - began_cpu
    answer = {"seconds": seconds, "cpu_s": cpu_s, "done_s": done_s, "version": simgrid_version}
    json.dump(answer, sys.stdout)


if __name__ == "__main__":
    main()

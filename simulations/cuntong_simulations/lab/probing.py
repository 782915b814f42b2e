"""The laboratory's side of `probes`: starts the process and collects what it sees."""

from __future__ import annotations

import subprocess
import sys
import threading
from types import TracebackType

import msgspec

from .probes import ProbePlace, ProbePlan, Seen
from .scenario import Scenario, chosen
from .wires import Wires

STOP_S = 10.0


class Probes:
    """The foreground of a scenario, from `with` on."""

    def __init__(self, wires: Wires, scenario: Scenario) -> None:
        self._wires = wires
        self._seen: list[Seen] = []
        self._process: subprocess.Popen[bytes] | None = None
        topology = wires.topology
        roles = {
            kind: {node.code for node in chosen(topology, places)}
            for kind, places in (
                ("pages", scenario.pages),
                ("bulk", scenario.bulk),
                ("pings", scenario.pings),
            )
        }
        codes = sorted(set().union(*roles.values()))
        self._plan = ProbePlan(
            source_handle=wires.namespaces[topology.source].handle,
            source_address=topology.node(topology.source).address,
            page_every_s=scenario.page_every_s,
            places=[
                ProbePlace(
                    code=code,
                    handle=wires.namespaces[code].handle,
                    pages=code in roles["pages"],
                    bulk=code in roles["bulk"],
                    pings=code in roles["pings"],
                )
                for code in codes
            ],
        )

    def __enter__(self) -> Probes:
        if not self._plan.places:
            return self
        handles = [self._plan.source_handle, *(place.handle for place in self._plan.places)]
        self._process = subprocess.Popen(
            [sys.executable, "-m", "cuntong_simulations.lab.probes"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            pass_fds=handles,
            start_new_session=True,  # Ctrl-C is for this process, which ends it.
        )
        assert self._process.stdin is not None  # noqa: S101 - it is a pipe.
        self._process.stdin.write(msgspec.json.encode(self._plan) + b"\n")
        self._process.stdin.flush()
        self._listener = threading.Thread(target=self._listen, daemon=True)
        self._listener.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def stop(self) -> list[Seen]:
        """End it; returns all that it saw."""
        if self._process is not None:
            assert self._process.stdin is not None  # noqa: S101 - it is a pipe.
            self._process.stdin.close()
            self._process.wait(STOP_S)
            self._listener.join(STOP_S)
        return self._seen

    def _listen(self) -> None:
        assert self._process is not None  # noqa: S101 - it was just started.
        assert self._process.stdout is not None  # noqa: S101 - it is a pipe.
        decoder = msgspec.json.Decoder(Seen)
        for line in self._process.stdout:
            self._seen.append(decoder.decode(line))

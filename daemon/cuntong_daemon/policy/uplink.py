"""When the uplink of the place above is the bottleneck, so that siblings should help (SPEC 7.5).

The minimum distribution time of a payload of F bytes from a server with uplink u_s to N places with downlinks d_i
and uplinks u_i is max(F/u_s, F/d_min, N F/(u_s + sum u_i)) (Kumar and Ross, Peer-Assisted File Distribution, 2006).
Without help from each other it is max(N F/u_s, F/d_min). Siblings pay off when the first is clearly less: otherwise they
cost more than they bring, since what a village sends up delays its own acknowledgements.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from cuntong_protocol.texts import N_, Sentence, sentence

SHARED_OUT = 0.96
"""Of an uplink that is too thin for all below: what is told to each adds up to less than the uplink's own cap, so that
nothing queues there. A queue would be taken for the public by some, who then leave their part to the others."""
OF_CAP = 0.99
"""Of the uplink's cap, where that is lower."""
IDLE_BELOW, FULL_ABOVE = 0.9, 0.97
"""Of what was shared out: used less, some can't use their part; used more, all can."""
IDLE_S = 10.0
"""For so long, before more is shared out than there is: transfers need time to begin."""
MORE_PER_S, LESS_PER_S = 1.02, 0.9
MOST_FACTOR = 4.0
USED = 0.05
"""Less than that is used: nobody can use anything, since nothing that they want is here yet."""
GAIN = 0.8
"""Siblings have to save a fifth of the time: on unshared links of 512 kbit/s they cost 15 %."""
KEPT_GAIN = 0.9
"""Those who help already go on until they save less than a tenth: places come and go, and introductions shouldn't."""


@dataclass(frozen=True, slots=True)
class Receiver:
    """A place below that wants a bundle; what its link carries, bytes/s, more than 0."""

    down_bytes_s: int
    up_bytes_s: int


@dataclass(frozen=True, slots=True)
class Scarcity:
    """Whether the places below should trade with each other, and why."""

    is_scarce: bool
    reason: Sentence


def minimum_distribution_s(
    payload_bytes: int, server_up_bytes_s: float, receivers: Sequence[Receiver]
) -> float:
    """The least time until all have the payload, when they may help each other.

    Args:
        payload_bytes: F.
        server_up_bytes_s: u_s, more than 0.
        receivers: At least one.
    """
    helped = server_up_bytes_s + sum(receiver.up_bytes_s for receiver in receivers)
    return max(
        payload_bytes / server_up_bytes_s,
        payload_bytes / min(receiver.down_bytes_s for receiver in receivers),
        len(receivers) * payload_bytes / helped,
    )


def star_distribution_s(
    payload_bytes: int, server_up_bytes_s: float, receivers: Sequence[Receiver]
) -> float:
    """The least time when each gets it from the server alone: arguments as above."""
    return max(
        len(receivers) * payload_bytes / server_up_bytes_s,
        payload_bytes / min(receiver.down_bytes_s for receiver in receivers),
    )


def fair_shares(up_bytes_s: float, wanted: Sequence[int]) -> list[int]:
    """Shares of an uplink so that nobody's could be larger without another's becoming less that is no larger.

    Max-min fairness (Bertsekas and Gallager, Data Networks, 6.5.2).

    Args:
        up_bytes_s: What is shared out, more than 0.
        wanted: The most that each can take, bytes/s.

    Returns:
        Bytes/s for each, in the same order.
    """
    shares = [0] * len(wanted)
    left = up_bytes_s
    order = sorted(range(len(wanted)), key=lambda number: wanted[number])
    for taken, number in enumerate(order):
        shares[number] = min(wanted[number], int(left / (len(order) - taken)))
        left -= shares[number]
    return shares


class Sharing:
    """How much of an uplink is shared out: more than there is, when some don't use their part."""

    def __init__(self) -> None:
        self._factor = 1.0
        self._idle_s = 0.0

    def step(
        self, up_bytes_s: int, cap_bytes_s: int, used_bytes_s: int, places: int, elapsed_s: float
    ) -> float:
        """Once a second or more often, unless nothing may be sent.

        Args:
            up_bytes_s: What the uplink carries, more than 0.
            cap_bytes_s: What may be sent of it; 0: all.
            used_bytes_s: What was sent lately.
            places: Among how many it is shared out.
            elapsed_s: Since the last call.

        Returns:
            Bytes/s to share out.
        """
        budget = min(up_bytes_s * SHARED_OUT, (cap_bytes_s or up_bytes_s) * OF_CAP)
        is_idle = budget * USED < used_bytes_s < budget * IDLE_BELOW
        self._idle_s = self._idle_s + elapsed_s if is_idle else 0.0
        if self._idle_s >= IDLE_S:
            self._factor *= MORE_PER_S**elapsed_s
        elif used_bytes_s > budget * FULL_ABOVE:
            self._factor *= LESS_PER_S**elapsed_s
        self._factor = max(1.0, min(self._factor, MOST_FACTOR, places))
        return budget * self._factor


def uplink_scarcity(
    own_up_bytes_s: int,
    receivers: Sequence[Receiver],
    *,
    vpn_shape: Literal["mesh", "hub"],
    was_scarce: bool = False,
) -> Scarcity:
    """Whether this place's uplink is what slows its children down.

    Args:
        own_up_bytes_s: What this place can send downwards; 0 when unknown.
        receivers: The children that want the bundle.
        vpn_shape: In a hub VPN what siblings send each other crosses this place's link twice, so they never help.
        was_scarce: What was decided last.
    """
    if vpn_shape == "hub":
        return Scarcity(
            False,
            sentence("uplink.hub", N_("In a hub VPN neighbours would use the same link twice.")),
        )
    if not own_up_bytes_s or len(receivers) < 2:
        return Scarcity(
            False, sentence("uplink.enough", N_("Its uplink is enough for the places below."))
        )
    alone = star_distribution_s(1, own_up_bytes_s, receivers)
    helped = minimum_distribution_s(1, own_up_bytes_s, receivers)
    if helped > alone * (KEPT_GAIN if was_scarce else GAIN):
        return Scarcity(
            False, sentence("uplink.enough", N_("Its uplink is enough for the places below."))
        )
    return Scarcity(
        True,
        sentence(
            "uplink.scarce",
            N_("Its uplink of {rate} kbit/s is too thin for {count} places: neighbours help."),
            rate=own_up_bytes_s * 8 // 1000,
            count=len(receivers),
        ),
    )
